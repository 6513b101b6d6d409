//! Which cores the workers are pinned to.
//!
//! The affinity mask says which cores the process may use; a quota of CPU time does not show in it. A
//! container with a quota of two on a host of 64 cores has all 64 in its mask: pinned by their numbers,
//! the workers of every such container would share the same two cores. So by default workers are pinned
//! only where the mask has exactly one core for each, and where an operator asks for it, beginning at a
//! core chosen by chance.

use core_affinity::CoreId;

use crate::config::Pin;

/// A core for each worker; `None` where they are not pinned.
pub(super) fn cores(pin: Pin, workers: usize) -> Option<Vec<CoreId>> {
    let mask = core_affinity::get_core_ids().unwrap_or_default();
    let chosen = choose(pin, mask.len(), workers, getrandom::u32().unwrap_or_default() as usize)?;
    tracing::debug!(?chosen, "workers are pinned to these places of the affinity mask");
    Some(chosen.into_iter().filter_map(|place| mask.get(place).copied()).collect())
}

/// Pins the calling thread.
pub(super) fn pin(worker: usize, core: CoreId) {
    if !core_affinity::set_for_current(core) {
        tracing::warn!(worker, core = core.id, "the worker can't be pinned to a core");
    }
}

/// Places in a mask of so many cores.
fn choose(pin: Pin, mask: usize, workers: usize, chance: usize) -> Option<Vec<usize>> {
    let first = match pin {
        Pin::Auto if workers == mask => 0,
        Pin::True if mask > 0 => chance % mask,
        Pin::Auto | Pin::True | Pin::False => return None,
    };
    Some((0..workers).map(|worker| (first + worker) % mask).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_pinned_where_each_has_a_core_or_the_operator_says_so() {
        assert_eq!(choose(Pin::Auto, 4, 4, 3), Some(vec![0, 1, 2, 3]));
        assert_eq!(choose(Pin::Auto, 64, 2, 3), None);
        assert_eq!(choose(Pin::Auto, 2, 4, 3), None);
        assert_eq!(choose(Pin::True, 4, 2, 7), Some(vec![3, 0]));
        assert_eq!(choose(Pin::True, 2, 3, 0), Some(vec![0, 1, 0]));
        assert_eq!(choose(Pin::True, 0, 1, 0), None);
        assert_eq!(choose(Pin::False, 4, 4, 0), None);
    }
}
