//! The wall clock, for what operators and other programs read: ages, times in rows; and a clock that
//! no step of the wall clock moves, for heartbeats. Deadlines are kept as [`std::time::Instant`]s.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since this process first asked, never 0. No step of the wall clock changes them.
pub fn monotonic_ms() -> u64 {
    u64::try_from(since_first().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Nanoseconds since this process first asked. No step of the wall clock changes them.
pub fn monotonic_ns() -> u64 {
    u64::try_from(since_first().as_nanos()).unwrap_or(u64::MAX)
}

fn since_first() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

/// Milliseconds since 1970; 0 before that.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that goes on by itself from where it was set: no step of the wall clock changes it.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    base_seconds: u64,
    base: Instant,
}

impl SteadyClock {
    /// A clock that shows this time now, in seconds since 1970.
    pub fn start(seconds: u64) -> Self {
        Self { base_seconds: seconds, base: Instant::now() }
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> u64 {
        self.base_seconds.saturating_add(self.base.elapsed().as_secs())
    }
}

/// Seconds since 1970; 0 before that.
pub fn unix_seconds() -> u64 {
    unix_ms() / 1000
}

/// Nanoseconds since 1970, as a `server_time` is computed from; 0 before that.
pub fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
