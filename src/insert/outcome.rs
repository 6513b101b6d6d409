//! What an answer of ClickHouse to an insert calls for.
//!
//! Nothing is ever dropped by a class: both end in another attempt, under the same token, of the
//! same bytes. They differ in how soon, and in whether a person has to hear of it.

use std::time::Duration;

use super::client::ClientError;

/// What to do with a segment whose insert was not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Load, memory, network, a restart: passes by itself.
    Retry,
    /// A deployment's fault or the rows': needs a person. Tried again slowly.
    Hold,
}

impl Class {
    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
        }
    }

    /// How long to wait before the next attempt, after `attempts` of them.
    pub fn delay(self, attempts: u32) -> Duration {
        match self {
            Self::Retry => {
                let doubled = RETRY_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16));
                doubled.min(RETRY_LONGEST)
            }
            Self::Hold => HOLD,
        }
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
const HOLD: Duration = Duration::from_secs(15);

/// ClickHouse's codes that pass by themselves: memory, too many queries or parts, read-only
/// replica, Keeper, time-outs, network.
const PASSING: [u32; 13] = [3, 107, 159, 202, 203, 209, 210, 241, 242, 285, 319, 425, 999];

/// The class of a failed attempt.
pub fn classify(error: &ClientError) -> Class {
    match error {
        ClientError::NoAnswer(_) => Class::Retry,
        ClientError::Refused { code, message, .. } => match code {
            Some(code) if PASSING.contains(code) => Class::Retry,
            // One code for two things: too many parts passes, too many partitions does not.
            Some(252) if !message.contains("partitions") => Class::Retry,
            // "Cannot read all data" is also what a connection that broke off gives.
            Some(33) => Class::Retry,
            Some(_) => Class::Hold,
            None => Class::Retry,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u32, message: &str) -> ClientError {
        ClientError::Refused { status: 500, code: Some(code), message: message.into() }
    }

    #[test]
    fn the_codes_fall_into_their_classes() {
        assert_eq!(classify(&ClientError::NoAnswer("refused".into())), Class::Retry);
        assert_eq!(classify(&refused(241, "Memory limit exceeded")), Class::Retry);
        assert_eq!(classify(&refused(252, "Too many parts (300)")), Class::Retry);
        assert_eq!(classify(&refused(252, "Too many partitions for single INSERT block")), Class::Hold);
        for code in [60, 81, 16, 497, 117, 469] {
            assert_eq!(classify(&refused(code, "")), Class::Hold, "{code}");
        }
    }

    #[test]
    fn delays_grow_and_stay_bounded() {
        assert_eq!(Class::Retry.delay(1), RETRY_FIRST);
        assert!(Class::Retry.delay(3) > Class::Retry.delay(2));
        assert_eq!(Class::Retry.delay(u32::MAX), RETRY_LONGEST);
    }
}
