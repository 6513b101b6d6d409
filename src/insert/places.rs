//! The places of inserters: an attempt that is silent gives up its place, so that a peer that takes a
//! connection and never answers does not stop delivery.
//!
//! There are as many places as `--inserters` says. Beside the inserters stand as many spare ones, which
//! sleep until a place is given up.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest that a spare inserter sleeps without a look at the phase of the server.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Places that were given up, and spare inserters that have one.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    given_up: usize,
    taken_by_spare: usize,
}

impl Places {
    /// The place of an attempt that begins.
    pub(super) fn take(&self) -> Place<'_> {
        Place { places: self, is_given_up: Mutex::new(false) }
    }

    /// A spare inserter waits for a place, but no longer than a moment. True when it has one, which it
    /// has to give back.
    pub(super) fn take_spare(&self) -> bool {
        let mut state = self.lock();
        if state.given_up <= state.taken_by_spare {
            state = self
                .changed
                .wait_timeout(state, WAIT_MAX)
                .map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
        let has_place = state.given_up > state.taken_by_spare;
        state.taken_by_spare += usize::from(has_place);
        has_place
    }

    /// The spare inserter's segment is done with.
    pub(super) fn give_back_spare(&self) {
        let mut state = self.lock();
        state.taken_by_spare = state.taken_by_spare.saturating_sub(1);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Two numbers, each changed in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt's place. Whether it was given up or not, it is free again when this is dropped.
pub(super) struct Place<'a> {
    places: &'a Places,
    is_given_up: Mutex<bool>,
}

impl Place<'_> {
    /// The attempt goes on, and another may begin.
    pub(super) fn give_up(&self) {
        let mut is_given_up = self.is_given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_given_up {
            *is_given_up = true;
            self.places.lock().given_up += 1;
            self.places.changed.notify_one();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if *self.is_given_up.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let mut state = self.places.lock();
            state.given_up = state.given_up.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_inserter_has_a_place_only_while_one_is_given_up() {
        let places = Places::default();
        assert!(!places.take_spare());
        let (first, second) = (places.take(), places.take());
        first.give_up();
        first.give_up();
        assert!(places.take_spare());
        assert!(!places.take_spare(), "one place for one");
        second.give_up();
        assert!(places.take_spare());
        drop((first, second));
        places.give_back_spare();
        places.give_back_spare();
        assert!(!places.take_spare(), "the attempts ended, and have their places again");
    }
}
