//! The wake-up protocol, which makes a system call only when the other side sleeps and never loses a
//! wake-up.
//!
//! The sleeper announces that it is about to sleep, checks once more for work, and only then sleeps.
//! The waker first adds work and then checks for the announcement. Both sides use sequentially
//! consistent operations, so at least one of them sees the other's write.

use super::sync::atomic::{AtomicBool, Ordering, fence};

/// The announcement of a thread that it sleeps or is about to.
#[derive(Debug, Default)]
pub(super) struct Asleep(AtomicBool);

impl Asleep {
    /// Called by the sleeper: announces that it is about to sleep, then checks `is_idle`. If the
    /// result is false there is work, and the sleeper must not sleep.
    pub(super) fn may_sleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let may_sleep = is_idle();
        if !may_sleep {
            self.0.store(false, Ordering::SeqCst);
        }
        may_sleep
    }

    /// True from the announcement until the sleeper is awake, or a waker has taken on to wake it.
    pub(super) fn is_asleep(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::SeqCst)
    }

    /// Called by a waker after a change that may satisfy `is_over`, for a sleeper that waits until
    /// `is_over`. True if the caller must wake the sleeper.
    pub(super) fn must_wake_when(&self, is_over: impl FnOnce() -> bool) -> bool {
        self.is_asleep() && is_over() && self.must_wake()
    }

    /// Called by the sleeper after it has slept.
    pub(super) fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Called by a waker after it has added work. True if the caller must wake the sleeper; of several
    /// wakers only one gets true.
    pub(super) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.swap(false, Ordering::SeqCst)
    }
}
