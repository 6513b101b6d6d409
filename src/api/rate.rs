//! `--rate-limit` and its relatives: events a second, with a burst.
//!
//! The algorithm is GCRA (ITU-T I.371, annex A) in its form as a virtual clock: a cell holds one time,
//! at which all of its events are paid for; an event moves it on by the pause between two events. A
//! request of `n` events passes while the time stays within the time of a whole burst from now. One
//! atomic number a cell: no lock, no thread that refills, and an idle cell is as good as a new one.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECOND: u64 = 1_000_000_000;

/// Events a second and events at once, each from 1 to 10⁹: a nanosecond is the shortest pause.
const NUMBER_MAX: u32 = 1_000_000_000;

/// What a rate looks like, for the errors of its parser.
const LOOKS: &str = "a rate looks like 5000/s or 5000/s,burst=20000, each number from 1 to 1000000000";

/// Events a second, and how many of them may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// The most events of one request: more never pass.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// The time that so many events take at this rate, in nanoseconds. Rounded down, so that a burst
    /// passes in pieces, too.
    const fn time_of(self, events: u32) -> u64 {
        events as u64 * SECOND / self.per_second as u64
    }

    /// The most events that take no longer than `time`.
    fn events_in(self, time: u64) -> u32 {
        let events = (time.saturating_add(1).saturating_mul(u64::from(self.per_second)).saturating_sub(1)) / SECOND;
        u32::try_from(events).unwrap_or(u32::MAX).min(self.burst)
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `N/s` or `N/s,burst=M`; without a burst it is the events of a second.
    fn from_str(text: &str) -> Result<Self, String> {
        let (rate, burst) = match text.split_once(',') {
            Some((rate, burst)) => (rate, Some(burst.strip_prefix("burst=").ok_or(LOOKS)?)),
            None => (text, None),
        };
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text);
            let number = digits.and_then(|digits| digits.parse::<u32>().ok());
            number.filter(|number| (1..=NUMBER_MAX).contains(number)).ok_or(LOOKS)
        };
        let per_second = number(rate.strip_suffix("/s").ok_or(LOOKS)?)?;
        Ok(Self { per_second, burst: burst.map_or(Ok(per_second), number)? })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s,burst={}", self.per_second, self.burst)
    }
}

/// What is left of a rate, for the fields `X-RateLimit-…` and `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The most events at once.
    pub limit: u32,
    /// Events that would pass now.
    pub remaining: u32,
    /// Seconds until `limit` events would pass, rounded up.
    pub reset: u32,
    /// Seconds until a refused request would pass, rounded up; 0 for one that was not refused.
    pub retry_after: u32,
}

/// The use of one rate: by a key's name, an address, or everyone.
#[derive(Debug, Default)]
pub struct RateCell {
    /// When all of its events are paid for, in nanoseconds of the caller's clock.
    paid_at: AtomicU64,
}

impl RateCell {
    /// Takes `events` at `now`, all or none.
    ///
    /// # Errors
    ///
    /// They would not pass now. Requests above [`Rate::burst`] never do; the caller refuses them first.
    pub fn charge(&self, rate: Rate, events: u32, now: u64) -> Result<Quota, Quota> {
        let (burst, cost) = (rate.time_of(rate.burst), rate.time_of(events));
        let mut ahead = 0;
        let moved = self.paid_at.fetch_update(Relaxed, Relaxed, |paid_at| {
            ahead = paid_at.max(now) - now;
            let next = ahead.saturating_add(cost);
            // No events are no burden, even when a new file has made the burst smaller.
            (next <= burst || events == 0).then_some(now.saturating_add(next))
        });
        let retry = ahead.saturating_add(cost).saturating_sub(burst);
        let taken = if moved.is_ok() { ahead.saturating_add(cost) } else { ahead };
        let quota = Quota {
            limit: rate.burst,
            remaining: rate.events_in(burst.saturating_sub(taken)),
            reset: seconds(taken),
            retry_after: if moved.is_ok() { 0 } else { seconds(retry).max(1) },
        };
        if moved.is_ok() { Ok(quota) } else { Err(quota) }
    }

    /// Gives back what [`RateCell::charge`] took.
    pub fn refund(&self, rate: Rate, events: u32) {
        let cost = rate.time_of(events);
        let _ = self.paid_at.fetch_update(Relaxed, Relaxed, |paid_at| Some(paid_at.saturating_sub(cost)));
    }

    /// When all of its events are paid for: before now, the cell is as good as a new one.
    pub fn paid_at(&self) -> u64 {
        self.paid_at.load(Relaxed)
    }

    /// Forgets what was charged.
    pub fn clear(&self) {
        self.paid_at.store(0, Relaxed);
    }
}

/// Nanoseconds as seconds, rounded up.
fn seconds(time: u64) -> u32 {
    u32::try_from(time.div_ceil(SECOND)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_is_parsed_and_shown_and_anything_else_is_an_error() {
        assert_eq!(rate("5000/s"), Rate { per_second: 5000, burst: 5000 });
        assert_eq!(rate("5000/s,burst=20000").to_string(), "5000/s,burst=20000");
        assert_eq!(rate("1000000000/s,burst=1").burst(), 1);
        for wrong in [
            "",
            "5000",
            "/s",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1/m",
            "1/s,",
            "1/s,burst",
            "1/s,burst=",
            "1/s,burst=0",
            "1/s,20",
            "1000000001/s",
            "1/s,burst=99999999999",
            "1/s,burst=2,burst=3",
            " 1/s",
        ] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_burst_passes_at_once_whole_or_in_pieces_and_then_one_a_pause() {
        for text in ["3/s", "3/s,burst=10", "7/s,burst=100", "1000/s,burst=1"] {
            let (rate, cell) = (rate(text), RateCell::default());
            let now = 5 * SECOND;
            for left in (0..rate.burst()).rev() {
                assert_eq!(cell.charge(rate, 1, now).map(|quota| quota.remaining), Ok(left), "{text}");
            }
            assert!(cell.charge(rate, 1, now).is_err(), "{text}");
            assert!(cell.charge(rate, 0, now).is_ok(), "{text}");
            let pause = SECOND / u64::from(rate.per_second) + 1;
            assert!(cell.charge(rate, 1, now + pause).is_ok(), "{text}");
            assert!(cell.charge(rate, 1, now + pause).is_err(), "{text}");
            let whole = RateCell::default();
            assert_eq!(whole.charge(rate, rate.burst(), now).map(|quota| quota.remaining), Ok(0), "{text}");
        }
    }

    #[test]
    fn a_request_passes_whole_or_not_and_what_is_given_back_is_there_again() {
        let (rate, cell) = (rate("10/s,burst=20"), RateCell::default());
        assert_eq!(cell.charge(rate, 15, 0), Ok(Quota { limit: 20, remaining: 5, reset: 2, retry_after: 0 }));
        assert_eq!(cell.charge(rate, 6, 0), Err(Quota { limit: 20, remaining: 5, reset: 2, retry_after: 1 }));
        assert_eq!(cell.charge(rate, 20, 0).map_err(|quota| quota.retry_after), Err(2));
        assert_eq!(cell.charge(rate, 5, 0).map(|quota| quota.remaining), Ok(0));
        cell.refund(rate, 15);
        assert_eq!(cell.charge(rate, 15, 0).map(|quota| quota.remaining), Ok(0));
    }

    #[test]
    fn a_burst_that_a_new_file_has_made_smaller_is_waited_for() {
        let cell = RateCell::default();
        assert!(cell.charge(rate("10/s,burst=1000"), 1000, 0).is_ok());
        let smaller = rate("10/s,burst=10");
        assert_eq!(cell.charge(smaller, 1, 0), Err(Quota { limit: 10, remaining: 0, reset: 100, retry_after: 100 }));
        assert!(cell.charge(smaller, 1, 100 * SECOND).is_ok());
    }

    proptest! {
        #[test]
        fn who_waits_as_long_as_was_said_passes_and_never_more_than_the_rate_does(
            per_second in 1..100_000u32,
            burst in 1..100_000u32,
            steps in proptest::collection::vec((1..100_000u32, 0..3 * SECOND), 1..40),
        ) {
            let (rate, cell) = (Rate { per_second, burst }, RateCell::default());
            let (mut now, mut passed) = (7 * SECOND, 0u64);
            let begin = now;
            for (events, pause) in steps {
                let events = events.min(burst);
                if let Err(refused) = cell.charge(rate, events, now) {
                    prop_assert!(refused.retry_after >= 1 && refused.remaining < events);
                    now += u64::from(refused.retry_after) * SECOND;
                    prop_assert!(cell.charge(rate, events, now).is_ok());
                }
                passed += u64::from(events);
                // Each request's time is rounded down, by less than an event.
                let allowed = (now - begin) as f64 / SECOND as f64 * f64::from(per_second) + f64::from(burst) + 41.0;
                prop_assert!(passed as f64 <= allowed, "{} of {}", passed, allowed);
                now += pause;
            }
        }
    }
}
