//! The handler of SIGTERM, SIGINT and SIGHUP.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::log;
use super::reload::Reload;
use super::threads::{ServerError, os, spawn};
use crate::handoff::Lifecycle;

/// Installs the handler. The first signal begins the stop, which may take `within`, and wakes the
/// calling thread. The second signal ends the process at once; acknowledged events are in the spool.
/// SIGHUP runs `reload`.
pub(super) fn install(lifecycle: &Arc<Lifecycle>, within: Duration, reload: Reload) -> Result<(), ServerError> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(os("signals can't be handled"))?;
    let (main, lifecycle) = (thread::current(), lifecycle.clone());
    spawn("signals".into(), move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                reload.run();
            } else if lifecycle.stop(within) {
                main.unpark();
            } else {
                tracing::warn!("second signal: the process ends at once");
                log::flush();
                std::process::exit(130);
            }
        }
    })?;
    Ok(())
}
