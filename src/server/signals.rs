//! The handler of SIGTERM and SIGINT.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::threads::ServerError;
use crate::handoff::Lifecycle;

/// Installs the handler. The first signal begins the stop, which may take `within`, and wakes the
/// calling thread. The second signal ends the process at once; acknowledged events are in the spool.
pub(super) fn install(lifecycle: &Arc<Lifecycle>, within: Duration) -> Result<(), ServerError> {
    let (main, lifecycle) = (thread::current(), lifecycle.clone());
    ctrlc::set_handler(move || {
        if !lifecycle.stop(within) {
            tracing::warn!("second signal: the process ends at once");
            std::process::exit(130);
        }
        main.unpark();
    })
    .map_err(|error| ServerError(format!("signals can't be handled: {error}")))
}
