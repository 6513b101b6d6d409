//! How long a token is safe: for how many inserts, and for how long, a table remembers it.
//!
//! A segment whose attempt has an unknown outcome goes again only while ClickHouse would recognise
//! its token. Inserts that can have followed are counted by segment numbers, which grow by one a
//! segment and survive a restart; no clock is needed for that.

use std::time::Duration;

use super::guarantee::TableFacts;
use crate::spool::OpenAttempt;

/// A part of the window that is not used: other clocks, other writers' bursts.
const MARGIN_PERCENT: u64 = 10;

/// Who else fills the window, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Writers {
    /// Nodes like this one that insert into the table.
    pub nodes: u64,
}

impl Writers {
    /// Tokens that this node may insert before one of `facts`'s window is forgotten; `None` without
    /// a window.
    pub fn segments(self, facts: &TableFacts) -> Option<u64> {
        let each = facts.tokens_per_insert().saturating_mul(self.nodes.max(1));
        Some(with_margin(facts.window?) / each)
    }

    /// How long a token is safe when this node makes `per_second` segments a second; `None` without
    /// a window.
    pub fn duration(self, facts: &TableFacts, per_second: f64) -> Option<Duration> {
        let by_count = self.segments(facts)? as f64 / per_second.max(f64::MIN_POSITIVE);
        let by_age = facts.window_seconds.map_or(f64::INFINITY, |seconds| with_margin(seconds) as f64);
        Duration::try_from_secs_f64(by_count.min(by_age)).ok()
    }

    /// Would the window still know a token of `open`?
    ///
    /// `newest` is the newest segment's number, `outstanding` the segments that are not inserted.
    ///
    /// # Errors
    ///
    /// Says what has passed.
    pub fn still_known(
        self,
        facts: &TableFacts,
        open: &OpenAttempt,
        newest: u64,
        outstanding: u64,
        now_ms: u64,
    ) -> Result<(), String> {
        // Without a window nothing was ever promised: at least once.
        let Some(segments) = self.segments(facts) else { return Ok(()) };
        let since = newest.saturating_sub(open.newest).saturating_add(outstanding);
        if since > segments {
            return Err(format!(
                "up to {since} inserts may have followed its first attempt, and the table remembers the tokens of \
                 {segments} of this node's"
            ));
        }
        let age = now_ms.saturating_sub(open.since_ms) / 1000;
        match facts.window_seconds {
            Some(seconds) if age > with_margin(seconds) => {
                Err(format!("its first attempt was {age} s ago, and the table remembers tokens for {seconds} s"))
            }
            _ => Ok(()),
        }
    }
}

fn with_margin(value: u64) -> u64 {
    value - value / 100 * MARGIN_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(window: Option<u64>, seconds: Option<u64>, partition_key: &str) -> TableFacts {
        TableFacts { window, window_seconds: seconds, partition_key: partition_key.into(), ..TableFacts::default() }
    }

    fn open(newest: u64, since_ms: u64) -> OpenAttempt {
        OpenAttempt { since_ms, newest, window: String::new() }
    }

    #[test]
    fn a_window_holds_so_many_segments_and_so_much_time() {
        let one = Writers { nodes: 1 };
        assert_eq!(one.segments(&facts(Some(10_000), None, "")), Some(9000));
        assert_eq!(one.segments(&facts(Some(10_000), None, "toYYYYMM(server_time)")), Some(4500));
        assert_eq!(one.segments(&facts(Some(10_000), None, "toYYYYMM(client_time)")), Some(90));
        assert_eq!(Writers { nodes: 3 }.segments(&facts(Some(10_000), None, "")), Some(3000));
        assert_eq!(one.segments(&facts(None, None, "")), None);
        let duration = |facts, rate| one.duration(&facts, rate).map(|duration| duration.as_secs());
        assert_eq!(duration(facts(Some(10_000), None, ""), 1.0), Some(9000));
        assert_eq!(duration(facts(Some(10_000), None, ""), 2.0), Some(4500));
        assert_eq!(duration(facts(Some(10_000), Some(3600), ""), 1.0), Some(3240));
        assert_eq!(duration(facts(None, None, ""), 1.0), None);
    }

    #[test]
    fn a_token_is_known_until_too_much_has_followed() {
        let one = Writers { nodes: 1 };
        let known = |facts: &TableFacts, newest, outstanding, now_ms| {
            one.still_known(facts, &open(100, 1_000_000), newest, outstanding, now_ms).is_ok()
        };
        let counted = facts(Some(1000), None, "");
        assert!(known(&counted, 100, 1, u64::MAX));
        assert!(known(&counted, 999, 1, 0));
        assert!(!known(&counted, 1000, 1, 0));
        assert!(!known(&counted, 500, 600, 0));
        let timed = facts(Some(1000), Some(3600), "");
        assert!(known(&timed, 101, 1, 1_000_000 + 3_200_000));
        assert!(!known(&timed, 101, 1, 1_000_000 + 3_300_000));
        assert!(known(&facts(None, None, ""), u64::MAX, 1, u64::MAX), "without a window nothing is promised");
    }
}
