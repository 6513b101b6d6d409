//! The wake-up protocol: a system call only when the other side sleeps, and no wake-up lost.
//!
//! The sleeper announces that it is about to sleep, looks once more for something to do, and only
//! then sleeps. The waker puts something there first, and looks at the announcement afterwards. Both
//! sides use sequentially consistent operations, so one of the two sees the other.

// Beside `std`, a test has another `sync`, which runs this file in every order.
use super::sync::atomic::{AtomicBool, Ordering, fence};

/// The announcement of one sleeper.
#[derive(Debug, Default)]
pub(super) struct Asleep(AtomicBool);

impl Asleep {
    /// Sleeper: announces that it is about to sleep. False when `is_idle`, the second look, finds
    /// something to do: then it must not sleep.
    pub(super) fn may_sleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let may_sleep = is_idle();
        if !may_sleep {
            self.0.store(false, Ordering::SeqCst);
        }
        may_sleep
    }

    /// Anybody: true from the announcement until it is awake, or somebody is to wake it.
    pub(super) fn is_asleep(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::SeqCst)
    }

    /// Waker of one that sleeps until `is_over`, behind what may have made it so: true when the
    /// sleeper has to be woken.
    pub(super) fn must_wake_when(&self, is_over: impl FnOnce() -> bool) -> bool {
        self.is_asleep() && is_over() && self.must_wake()
    }

    /// Sleeper: it is awake, for whatever reason.
    pub(super) fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Waker, behind what it put there: true when the sleeper has to be woken, which only one of
    /// several wakers is told.
    pub(super) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.swap(false, Ordering::SeqCst)
    }
}
