//! The places of inserters, which bound the number of concurrent INSERTs.
//!
//! There are `--inserters` places, one per inserter, and as many spare inserters, which sleep. An
//! attempt that is silent gives up its place to a spare inserter, so that a server that accepts
//! connections and never answers does not stop delivery.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest sleep of a spare inserter before it checks the phase of the server again.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// The places that were given up, and the spare inserters that have taken one.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<State>,
    changed: Condvar,
}

/// The numbers of places that were given up, and of those that spare inserters have taken.
#[derive(Debug, Default)]
struct State {
    given_up: usize,
    taken_by_spare: usize,
}

impl Places {
    /// Takes the place of an inserter for an attempt.
    pub(super) fn take(&self) -> Place<'_> {
        Place { places: self, is_given_up: Mutex::new(false) }
    }

    /// Called by a spare inserter: waits for a place, at most for [`WAIT_MAX`]. If the result is true, the
    /// caller has a place and must give it back.
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

    /// True while no spare inserter has a place.
    pub(super) fn spares_are_idle(&self) -> bool {
        self.lock().taken_by_spare == 0
    }

    /// Called by a spare inserter: gives its place back.
    pub(super) fn give_back_spare(&self) {
        let mut state = self.lock();
        state.taken_by_spare = state.taken_by_spare.saturating_sub(1);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change touches one number, so a poisoned state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of an attempt. Dropping the value ends the attempt's use of the place, or takes back a place
/// that was given up.
pub(super) struct Place<'a> {
    places: &'a Places,
    is_given_up: Mutex<bool>,
}

impl Place<'_> {
    /// Gives the place up: the attempt goes on, and a spare inserter may begin another one.
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
