//! The threads that a start starts, and what it can fail with.

use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};

/// Why the server did not start, or ended: one sentence.
#[derive(Debug)]
pub struct ServerError(pub(crate) String);

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

/// Any error becomes the sentence it is printed as.
macro_rules! said {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for ServerError {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })+
    };
}

said!(
    crate::clickhouse::description::TableError,
    crate::clickhouse::embedded::EmbeddedError,
    crate::config::ConfigError,
    crate::net::ListenError,
    crate::schema::SchemaError,
    crate::spool::SpoolError,
);

/// Starts a thread that lives as long as the process, or until the server stops.
///
/// # Errors
///
/// When the system gives no thread.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServerError> {
    thread::Builder::new().name(name).spawn(body).map_err(os("a thread can't be started"))
}

/// Says what the system refused.
pub(crate) fn os(what: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError(format!("{what}: {error}"))
}

/// True when none of them runs any more.
pub(crate) fn all_ended(threads: &[JoinHandle<()>]) -> bool {
    threads.iter().all(JoinHandle::is_finished)
}
