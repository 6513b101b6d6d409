//! Starting of threads, and the error of a start.

use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};

/// The reason why the server can't start, as one sentence.
#[derive(Debug)]
pub struct ServerError(pub(crate) String);

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

/// Converts errors to a [`ServerError`] with their text.
macro_rules! from_text_of {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for ServerError {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })+
    };
}

from_text_of!(
    crate::clickhouse::description::TableError,
    crate::clickhouse::embedded::EmbeddedError,
    crate::config::ConfigError,
    crate::net::ListenError,
    crate::schema::SchemaError,
    crate::spool::SpoolError,
);

/// Starts a thread.
///
/// # Errors
///
/// If the operating system can't create a thread.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServerError> {
    thread::Builder::new().name(name).spawn(body).map_err(os("a thread can't be started"))
}

/// Converts an error of the operating system to a [`ServerError`] that begins with `what`.
pub(crate) fn os(what: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError(format!("{what}: {error}"))
}

/// True once all of the threads have ended.
pub(crate) fn all_ended(threads: &[JoinHandle<()>]) -> bool {
    threads.iter().all(JoinHandle::is_finished)
}
