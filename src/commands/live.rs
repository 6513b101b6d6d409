//! `sluicegate check --live`: whether the running server lives, for the health check of a container.

use std::time::Duration;

use super::running::RunningServer;
use crate::config::{ConfigError, Settings};

/// The longest wait for the answer: the admin address answers `/livez` whatever else hangs there.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks `/livez` of the admin address, and nobody else.
///
/// # Errors
///
/// If no server answers there, or it answers that one of its threads hangs.
pub fn run(settings: &Settings) -> Result<(), ConfigError> {
    let server = RunningServer::new(settings, TIMEOUT)?;
    let url = server.url("/livez");
    let answer = server.get("/livez").send();
    let answer = answer.map_err(|error| ConfigError(format!("no server answers at {url}: {error}")))?;
    match answer.status() {
        status if status == 200 => Ok(()),
        status => {
            let text = answer.text().unwrap_or_default();
            Err(ConfigError(format!("{url} answers {status}: {}", text.trim())))
        }
    }
}
