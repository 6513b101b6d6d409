//! Open files: the limit that a process has, and what connections may take of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::threads::ServerError;
use crate::config::Settings;
use crate::limits;

/// Raises the soft limit of open files as far as the process may, and says how many connections may be
/// open beside what the spool, the inserters and the admin address need.
///
/// # Errors
///
/// When the limit leaves room for no connection.
pub(super) fn connections_max(settings: &Settings, workers: usize) -> Result<usize, ServerError> {
    let Some(limit) = raise() else {
        return Ok(settings.connections_max);
    };
    let kept = kept(settings, workers);
    let left = usize::try_from(limit.saturating_sub(kept)).unwrap_or(usize::MAX);
    if left == 0 {
        return Err(ServerError(format!(
            "the limit of open files is {limit}, and {kept} are needed beside connections; raise it with `ulimit -n` or \
             LimitNOFILE="
        )));
    }
    if left < settings.connections_max {
        tracing::warn!(
            limit,
            kept,
            "--connections-max is {left} in place of {}: the limit of open files allows no more; raise it with \
             `ulimit -n` or LimitNOFILE=",
            settings.connections_max
        );
    }
    Ok(settings.connections_max.min(left))
}

/// The limit after it was raised; `None` where there is none.
fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = current?;
    if maximum.is_some_and(|hard| hard <= soft) {
        return Some(soft);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => Some(soft),
    }
}

/// Descriptors that no connection takes.
fn kept(settings: &Settings, workers: usize) -> u64 {
    // An event queue, a waker, and the listening sockets.
    let workers = workers * (2 + settings.listen.len());
    // A connection to each server and the file that is sent; the watcher has connections as well.
    let inserters = (settings.inserters.get() + 1) * (settings.clickhouse_url.len() + 2);
    // Those whose request is read, and those that linger.
    let admin = 2 * limits::ADMIN_CONNECTIONS_MAX;
    let counted = workers + inserters + admin + limits::REFUSED_CONNECTIONS_MAX;
    limits::DESCRIPTORS_KEPT + counted as u64
}
