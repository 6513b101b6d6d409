//! What systemd is told of the server, where it is started as a service of `Type=notify` (sd_notify(3)). Without
//! systemd all of this does nothing.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::threads::{ServerError, spawn};
use crate::admin::Admin;
use crate::handoff::Lifecycle;

/// Pause between two lines of status.
const STATUS_PAUSE: Duration = Duration::from_secs(5);

/// The server takes events.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The stop has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// What SIGHUP reads is read again by `reload`.
pub(super) fn while_reloading(lifecycle: &Lifecycle, reload: impl FnOnce()) {
    if lifecycle.is_starting() || lifecycle.leaving_since().is_some() {
        return reload();
    }
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the clock can't be read"),
    }
    reload();
    ready();
}

/// Starts the thread that says what the server does, and, with `WatchdogSec=`, that it is alive: as `/livez`.
///
/// # Errors
///
/// If the thread can't be started.
pub(super) fn report(admin: Arc<Admin>, lifecycle: Arc<Lifecycle>) -> Result<(), ServerError> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Twice as often as it has to be.
    let pause = watchdog.map_or(STATUS_PAUSE, |within| (within / 2).min(STATUS_PAUSE));
    spawn("systemd".into(), move || {
        loop {
            let status = status(&admin, &lifecycle);
            tell(&[NotifyState::Status(&status)]);
            if watchdog.is_some() && admin.is_alive() {
                tell(&[NotifyState::Watchdog]);
            }
            std::thread::sleep(pause);
        }
    })?;
    Ok(())
}

/// One line for `systemctl status`.
fn status(admin: &Admin, lifecycle: &Lifecycle) -> String {
    let waiting = admin.spool.spooled_rows() + admin.spool.spooled_rejected();
    match admin.health.unready() {
        _ if lifecycle.is_stopping() => format!("stopping; {waiting} events wait for ClickHouse"),
        None => format!("taking events; {waiting} wait for ClickHouse"),
        Some(fault) => format!("{}; {waiting} events wait for ClickHouse", fault.message.trim_end_matches('.')),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd can't be told");
    }
}
