//! Open files: the limit that a process has, and what connections may take of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::threads::ServerError;
use crate::config::Settings;

/// Raises the soft limit of open files as far as the process may, and says how many connections may be
/// open beside what the spool, the inserters and the admin address need.
///
/// # Errors
///
/// When the limit leaves room for no connection.
pub(super) fn connections_max(settings: &Settings) -> Result<usize, ServerError> {
    let Some(limit) = raise() else {
        return Ok(settings.connections_max);
    };
    let kept = settings.descriptors_kept();
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
