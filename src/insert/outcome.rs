//! What an answer of ClickHouse to an insert calls for, in one table.
//!
//! Nothing is ever dropped by a class. Two things are told apart that HTTP status alone does not
//! tell: what to do next, and whether the attempt is *answered*, that is whether ClickHouse has
//! certainly stored nothing of it. Only an answered attempt may be followed by anything else than
//! the same bytes under the same token.

use std::time::Duration;

use crate::clickhouse::client::ClientError;

/// What to do with a segment whose insert was not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Load, memory, network, a restart: passes by itself.
    Retry,
    /// A person's or a deployment's fault: everything is kept, tried again slowly, and said.
    Hold,
    /// The rows' fault: the row that is to blame is cut out and quarantined.
    Cut,
}

/// A class, and whether ClickHouse has certainly stored nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// What to do.
    pub class: Class,
    /// True: nothing of the attempt is stored, nor will be.
    pub answered: bool,
}

/// ClickHouse's codes (`src/Common/ErrorCodes.cpp` there), what they call for, and whether they
/// are an answer.
const TABLE: [(Class, bool, &[u32]); 5] = [
    // Memory, time-outs, Keeper, network, read-only replica, an insert of unknown fate.
    (Class::Retry, false, &[3, 107, 159, 203, 209, 210, 241, 242, 285, 319, 425, 999]),
    // Too many queries, an earlier attempt that still runs, too many parts: said before anything is
    // written. For 252 see below.
    (Class::Retry, true, &[202, 216, 252]),
    // "Cannot read all data": the rows' fault, or a body that was cut on its way. See below.
    (Class::Retry, true, &[32, 33]),
    // No such table, database, column or setting; syntax; rights; passwords.
    (Class::Hold, true, &[16, 20, 36, 44, 47, 60, 62, 81, 115, 164, 192, 193, 194, 497, 516]),
    // Parse errors, too large, constraints, enums, conversions, what an expression threw.
    (Class::Cut, true, &[6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 153, 349, 395, 407, 469, 675, 676, 691]),
];

/// Attempts after which [`TABLE`]'s "cannot read all data" is believed to be the rows' fault.
const CANNOT_READ_ATTEMPTS: u32 = 4;

/// What a failed attempt calls for, the `attempts`-th of this process.
pub fn classify(error: &ClientError, attempts: u32) -> Outcome {
    let outcome = |class, answered| Outcome { class, answered };
    let (code, message) = match error {
        ClientError::NoConnection(_) => return outcome(Class::Retry, true),
        ClientError::Damaged(_) => return outcome(Class::Hold, true),
        ClientError::NoAnswer(_) | ClientError::Absent(_) | ClientError::Refused { code: None, .. } => {
            return outcome(Class::Retry, false);
        }
        ClientError::Refused { code: Some(code), message, .. } => (*code, message.as_str()),
    };
    // The source table has the rows then, and the view has not: the same bytes again under the same
    // token make both right, pieces would double.
    if message.contains("while pushing to view") {
        return outcome(Class::Hold, false);
    }
    let known = TABLE.iter().find(|(_, _, codes)| codes.contains(&code));
    match (code, known) {
        // One code for two things: too many parts passes, too many partitions of one block does not.
        (252, _) if message.contains("partitions") => outcome(Class::Cut, true),
        (code, _) if is_another_type(code, message) => outcome(Class::Hold, true),
        (32 | 33, _) if attempts >= CANNOT_READ_ATTEMPTS => outcome(Class::Cut, true),
        (_, Some((class, answered, _))) => outcome(*class, *answered),
        (_, None) => outcome(Class::Hold, false),
    }
}

/// True when the table may be another than it was: its columns have changed, or ClickHouse was away.
pub fn calls_for_a_look(error: &ClientError) -> bool {
    match error {
        ClientError::NoConnection(_) | ClientError::NoAnswer(_) => true,
        ClientError::Refused { code: Some(code), message, .. } => {
            LOOK_AGAIN.contains(code) || is_another_type(*code, message)
        }
        ClientError::Refused { code: None, .. } => false,
        ClientError::Damaged(_) | ClientError::Absent(_) => false,
    }
}

/// The table's columns are not the segment's, as RowBinary's header says or a block of Native.
fn is_another_type(code: u32, message: &str) -> bool {
    match code {
        117 => message.contains("Type of"),
        53 => message.contains("While executing Native"),
        _ => false,
    }
}

/// No such column, in one wording or another, or one that can't be inserted into; no such table or
/// database: it may come back as another one.
const LOOK_AGAIN: [u32; 7] = [16, 20, 36, 44, 47, 60, 81];

/// The row, counted from 0, that a violated constraint names.
pub fn row_named_by(error: &ClientError) -> Option<u64> {
    let ClientError::Refused { code: Some(469), message, .. } = error else {
        return None;
    };
    let (_, rest) = message.split_once("is violated at row ")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse::<u64>().ok()?.checked_sub(1)
}

impl Class {
    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Cut => "cut",
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
            Self::Cut => Duration::ZERO,
        }
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
const HOLD: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u32, message: &str) -> ClientError {
        ClientError::Refused { status: 500, code: Some(code), message: message.into() }
    }

    #[test]
    fn the_codes_fall_into_their_classes() {
        let of = |error: &ClientError| {
            let Outcome { class, answered } = classify(error, 1);
            (class, answered)
        };
        assert_eq!(of(&ClientError::NoAnswer("reset".into())), (Class::Retry, false));
        assert_eq!(of(&ClientError::NoConnection("refused".into())), (Class::Retry, true));
        assert_eq!(of(&ClientError::Damaged("at byte 7".into())), (Class::Hold, true));
        assert_eq!(of(&ClientError::Refused { status: 502, code: None, message: "x".into() }), (Class::Retry, false));
        assert_eq!(of(&refused(241, "Memory limit exceeded")), (Class::Retry, false));
        assert_eq!(of(&refused(252, "Too many parts (300)")), (Class::Retry, true));
        assert_eq!(of(&refused(216, "Query with id = q is already running.")), (Class::Retry, true));
        assert_eq!(of(&refused(252, "Too many partitions for single INSERT block")), (Class::Cut, true));
        assert_eq!(of(&refused(117, "Type of 'a' must be UInt32, not UInt64")), (Class::Hold, true));
        assert_eq!(of(&refused(117, "Bool value must be 0 or 1")), (Class::Cut, true));
        let native = "Cannot convert: Int64 to Int32: While executing Native. (TYPE_MISMATCH)";
        assert_eq!(of(&refused(53, native)), (Class::Hold, true));
        assert_eq!(of(&refused(53, "Cannot convert: Int64 to Int32: in a view. (TYPE_MISMATCH)")), (Class::Cut, true));
        for code in [60, 81, 16, 497, 516, 164, 115, 62] {
            assert_eq!(of(&refused(code, "")), (Class::Hold, true), "{code}");
        }
        for code in [27, 131, 469, 691, 395] {
            assert_eq!(of(&refused(code, "")), (Class::Cut, true), "{code}");
            assert_eq!(of(&refused(code, "… while pushing to view d.v. (X)")), (Class::Hold, false), "{code}");
        }
        assert_eq!(of(&refused(4242, "")), (Class::Hold, false));
        assert_eq!(of(&refused(33, "")), (Class::Retry, true));
        assert_eq!(classify(&refused(33, ""), CANNOT_READ_ATTEMPTS).class, Class::Cut);
    }

    #[test]
    fn what_smells_of_changed_columns_calls_for_a_look() {
        for code in LOOK_AGAIN {
            assert!(calls_for_a_look(&refused(code, "")), "{code}");
            assert_eq!(classify(&refused(code, ""), 1), Outcome { class: Class::Hold, answered: true }, "{code}");
        }
        assert!(calls_for_a_look(&refused(117, "Type of 'a' must be UInt32, not UInt64")));
        assert!(calls_for_a_look(&refused(53, "Cannot convert: Int64 to Int32: While executing Native. (X)")));
        assert!(calls_for_a_look(&ClientError::NoConnection("refused".into())));
        for (code, message) in [(117, "Bool value must be 0 or 1"), (241, ""), (469, ""), (252, "Too many parts")] {
            assert!(!calls_for_a_look(&refused(code, message)), "{code}");
        }
        assert!(!calls_for_a_look(&ClientError::Refused { status: 502, code: None, message: "x".into() }));
    }

    #[test]
    fn every_code_is_in_the_table_once() {
        let mut codes: Vec<u32> = TABLE.iter().flat_map(|(_, _, codes)| codes.iter().copied()).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }

    #[test]
    fn a_constraint_names_the_row() {
        let message = "Code: 469. DB::Exception: Constraint `c` for table d.t is violated at row 2. Expression: …";
        assert_eq!(row_named_by(&refused(469, message)), Some(1));
        assert_eq!(row_named_by(&refused(469, "is violated at row 0")), None);
        assert_eq!(row_named_by(&refused(469, "something else")), None);
        assert_eq!(row_named_by(&refused(27, message)), None);
    }

    #[test]
    fn delays_grow_and_stay_bounded() {
        assert_eq!(Class::Retry.delay(1), RETRY_FIRST);
        assert!(Class::Retry.delay(3) > Class::Retry.delay(2));
        assert_eq!(Class::Retry.delay(u32::MAX), RETRY_LONGEST);
    }
}
