//! The handler of SIGTERM, SIGINT and SIGHUP.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::log;
use super::threads::{ServerError, os, spawn};
use crate::api::keys::Keys;
use crate::config::Settings;
use crate::handoff::{Lifecycle, Published};

/// Installs the handler. SIGHUP publishes the keys as their file is then. The first signal begins the stop, which may take `within`, and wakes the
/// calling thread. The second signal ends the process at once; acknowledged events are in the spool.
pub(super) fn install(
    lifecycle: &Arc<Lifecycle>,
    within: Duration,
    settings: &Settings,
    keys: &Arc<Published<Keys>>,
) -> Result<(), ServerError> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(os("signals can't be handled"))?;
    let (main, lifecycle) = (thread::current(), lifecycle.clone());
    let (settings, keys) = (settings.clone(), keys.clone());
    spawn("signals".into(), move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                read_again(&settings, &keys);
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

/// Reads the key file again. What can't be read is an error in the log and changes nothing.
fn read_again(settings: &Settings, keys: &Published<Keys>) {
    if settings.write_key_file.is_none() {
        tracing::info!("SIGHUP: there is nothing to read again");
        return;
    }
    match settings.write_keys(Some(&keys.newest())) {
        Ok(new) => {
            let number = new.len();
            keys.publish(warned_of(new));
            tracing::info!(keys = number, "SIGHUP: the write keys are read again");
        }
        Err(error) => tracing::error!(%error, "SIGHUP: the write keys stay as they were"),
    }
}

/// The keys, once the log says which of them may be guessed.
pub(super) fn warned_of(keys: Keys) -> Keys {
    keys.warnings().for_each(|warning| tracing::warn!("{warning}"));
    keys
}
