//! The handlers of SIGINT, SIGTERM and SIGHUP.
//!
//! `ctrlc` handles SIGINT. Its feature for SIGTERM takes SIGHUP along as one more order to stop, so
//! these two are handled by `signal_hook`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;

use super::log;
use super::reload::Reload;
use super::systemd;
use super::threads::{ServerError, os, spawn};
use crate::handoff::Lifecycle;

/// Installs the handlers. The first signal begins the stop, which may take `within`, after `delay` if the server
/// takes events by then, and wakes the calling thread. The second signal ends the process at once; acknowledged events are in the spool.
/// SIGHUP runs `reload`.
pub(super) fn install(
    lifecycle: &Arc<Lifecycle>,
    delay: Duration,
    within: Duration,
    reload: Reload,
) -> Result<(), ServerError> {
    let (main, lifecycle, reloading) = (thread::current(), lifecycle.clone(), lifecycle.clone());
    let stop = Arc::new(move || {
        if lifecycle.leave() {
            if delay.is_zero() || lifecycle.is_starting() {
                lifecycle.stop(within);
            }
            main.unpark();
        } else {
            tracing::warn!("second signal: the process ends at once");
            log::flush();
            std::process::exit(130);
        }
    });
    let interrupted = stop.clone();
    ctrlc::set_handler(move || interrupted()).map_err(std::io::Error::other).map_err(os("SIGINT can't be handled"))?;
    // Of its own: a file on a network that hangs must not hold up a stop.
    let (hang_up, hang_ups) = crossbeam::channel::bounded(1);
    spawn("reload".into(), move || {
        hang_ups.iter().for_each(|()| systemd::while_reloading(&reloading, || reload.run()));
    })?;
    let mut signals = Signals::new([SIGTERM, SIGHUP]).map_err(os("signals can't be handled"))?;
    spawn("signals".into(), move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                // One that waits reads everything as well.
                let _ = hang_up.try_send(());
            } else {
                stop();
            }
        }
    })?;
    Ok(())
}
