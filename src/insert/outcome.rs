//! The classification of the errors of an INSERT.
//!
//! An error determines two things, which the HTTP status alone does not: the class, that is how to
//! continue, and whether the attempt is *answered*, that is whether ClickHouse has certainly stored
//! nothing of it. After an attempt that is not answered, only the same bytes may be sent under the same
//! token. No class ever drops rows.
//!
//! The error code decides ([`super::codes`]), and in a few cases the fixed parts of the text
//! ([`super::message`]). Values that the text quotes decide nothing, because clients write them.

use std::time::Duration;

use super::codes::{Meaning, meaning};
use super::message::Message;
use crate::clickhouse::client::ClientError;
use crate::clickhouse::settings::InsertFormat;

/// How to continue with a block after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A temporary condition such as load, a lack of memory, the network or a restart: retry.
    Retry,
    /// A condition that needs operator action: hold the block, report it, and retry slowly.
    Hold,
    /// ClickHouse refuses some rows: cut them out and put them into the quarantine table.
    Cut,
    /// The INSERT exceeds a limit: send the rows in smaller pieces.
    Split,
}

/// The class of an error, and what is certain about the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How to continue.
    pub class: Class,
    /// True if ClickHouse has stored nothing of the attempt, and will not store it later.
    pub answered: bool,
    /// True if ClickHouse may have stored the token without the rows, even without a restart. The success
    /// of a repeat is then no proof, and the rows must be looked up.
    pub is_suspicious: bool,
}

/// Number of attempts after which bytes that end inside of a row are taken to mean a bad row, and a
/// limit is taken to be permanent.
const PATIENCE: u32 = 4;

/// Classifies the error of an attempt in this format, which is the `attempts`-th of this process.
pub fn classify(error: &ClientError, attempts: u32, format: InsertFormat) -> Outcome {
    let outcome = |class, answered| Outcome { class, answered, is_suspicious: false };
    let (code, message) = match error {
        ClientError::NoConnection(_) => return outcome(Class::Retry, true),
        ClientError::Damaged(_) => return outcome(Class::Hold, true),
        ClientError::NoAnswer(_) | ClientError::Absent(_) => return outcome(Class::Retry, false),
        // A proxy in front of ClickHouse answers, or changes the answers of ClickHouse. That may be
        // temporary, such as the error page of a load balancer; if it lasts it needs an operator.
        ClientError::Unproven(_) if attempts >= PATIENCE => return outcome(Class::Hold, false),
        ClientError::Unproven(_) => return outcome(Class::Retry, false),
        ClientError::Refused { code: None, status: 413 | 414, .. } if attempts >= PATIENCE => {
            return outcome(Class::Split, false);
        }
        ClientError::Refused { code: None, .. } => return outcome(Class::Retry, false),
        ClientError::Refused { code: Some(code), message, .. } => (*code, Message::new(message)),
    };
    if message.is_from_a_view() {
        // The source table has the rows, the view does not. Repeating the same bytes under the same
        // token completes the view; pieces would double the rows of the source table.
        return outcome(Class::Hold, false);
    }
    if is_too_many_partitions(code, message) {
        return outcome(Class::Split, true);
    }
    if is_another_type(code, message, format) {
        return outcome(Class::Hold, true);
    }
    match meaning(code) {
        Some(Meaning::Busy) => outcome(Class::Retry, true),
        Some(Meaning::Unreadable) if attempts >= PATIENCE => outcome(Class::Cut, true),
        Some(Meaning::Unreadable) => outcome(Class::Retry, true),
        Some(Meaning::Deployment) => outcome(Class::Hold, true),
        Some(Meaning::Rows) => outcome(Class::Cut, true),
        Some(Meaning::TooLarge) if attempts >= PATIENCE => outcome(Class::Split, false),
        Some(Meaning::TooLarge | Meaning::Passing) | None => {
            Outcome { is_suspicious: true, ..outcome(Class::Retry, false) }
        }
    }
}

/// True if the error may be due to a changed table, so that its description should be refreshed:
/// after an error about columns, and after ClickHouse was away.
pub fn calls_for_refresh(error: &ClientError) -> bool {
    match error {
        ClientError::NoConnection(_) | ClientError::NoAnswer(_) => true,
        ClientError::Refused { code: Some(code), message, .. } => {
            let message = Message::new(message);
            TABLE_CHANGED.contains(code) || is_another_type(*code, message, InsertFormat::Native)
        }
        ClientError::Refused { code: None, .. } | ClientError::Unproven(_) => false,
        ClientError::Damaged(_) | ClientError::Absent(_) => false,
    }
}

/// True if the table has more parts than ClickHouse lets it have (`parts_to_throw_insert`).
pub fn is_too_many_parts(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: Some(TOO_MANY_PARTS), .. })
}

/// True if the INSERT touches more partitions than the limit permits.
pub fn is_partition_limit(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { code: Some(code), message, .. } => is_too_many_partitions(*code, Message::new(message)),
        _ => false,
    }
}

/// True if the user may not change a setting of the INSERT.
pub fn is_forbidden_setting(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: Some(452 | 164), .. })
}

/// Code 252 has two meanings: too many parts in the table is temporary, too many partitions in one block
/// is not.
fn is_too_many_partitions(code: u32, message: Message<'_>) -> bool {
    code == 252 && message.begins_with("Too many partitions for single INSERT block")
}

/// True if the error says that a column of the table has another type than in the block. The codes
/// are those of the header of RowBinary and of a Native block.
fn is_another_type(code: u32, message: Message<'_>, format: InsertFormat) -> bool {
    match code {
        117 => message.begins_with("Type of "),
        // `throwIf`, by which an INSERT with defaults compares the types itself.
        395 => message.begins_with(COLUMNS_CHANGED),
        // No row can cause it: the values of a Native block always have the types of its columns.
        53 => format == InsertFormat::Native,
        _ => false,
    }
}

/// The text of the error of an INSERT with defaults, if the columns of the table are not those of the rows.
pub(super) const COLUMNS_CHANGED: &str = "sluicegate: the columns of the table are not those of the rows";

/// Codes for a column that is missing or can't be inserted into, and for a missing table or database,
/// which may return with other columns.
const TABLE_CHANGED: [u32; 7] = [16, 20, 36, 44, 47, 60, 81];

/// `TOO_MANY_PARTS`.
const TOO_MANY_PARTS: u32 = 252;

/// The index of the row that a violated constraint names, from 0. The text names the row before it
/// quotes any value.
pub fn row_named_by(error: &ClientError) -> Option<u64> {
    let ClientError::Refused { code: Some(469), message, .. } = error else {
        return None;
    };
    let named = Message::new(message).after("Constraint ")?;
    let (_, rest) = named.split_once(" is violated at row ")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse::<u64>().ok()?.checked_sub(1)
}

impl Class {
    /// The label of the class in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Cut => "cut",
            Self::Split => "split",
        }
    }

    /// The pause before the next attempt, after `attempts` attempts.
    pub fn delay(self, attempts: u32) -> Duration {
        match self {
            Self::Retry => {
                let doubled = RETRY_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16));
                doubled.min(RETRY_LONGEST)
            }
            Self::Hold => HOLD,
            Self::Cut | Self::Split => Duration::ZERO,
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
        let message = format!("Code: {code}. DB::Exception: {message}. (NAME) (version 26.7.2.1)");
        ClientError::Refused { status: 500, code: Some(code), message }
    }

    fn of(error: &ClientError) -> (Class, bool) {
        let Outcome { class, answered, .. } = classify(error, 1, InsertFormat::Rowbinary);
        (class, answered)
    }

    #[test]
    fn the_codes_fall_into_their_classes() {
        let front = |status| ClientError::Refused { status, code: None, message: "<html>".into() };
        assert_eq!(of(&ClientError::NoAnswer("reset".into())), (Class::Retry, false));
        assert_eq!(of(&ClientError::NoConnection("refused".into())), (Class::Retry, true));
        assert_eq!(of(&ClientError::Damaged("at byte 7".into())), (Class::Hold, true));
        assert_eq!(of(&ClientError::Unproven("another id".into())), (Class::Retry, false));
        for status in [400, 401, 403, 404, 405, 413, 414, 429, 502] {
            assert_eq!(of(&front(status)), (Class::Retry, false), "{status}");
        }
        assert_eq!(
            of(&refused(252, "Too many parts (300) in all partitions in total in table 'd.t'")),
            (Class::Retry, true)
        );
        assert_eq!(
            of(&refused(252, "Too many partitions for single INSERT block (more than 100)")),
            (Class::Split, true)
        );
        assert_eq!(of(&refused(117, "Type of 'a' must be UInt32, not UInt64")), (Class::Hold, true));
        assert_eq!(of(&refused(117, "Bool value must be 0 or 1")), (Class::Cut, true));
        for code in [60, 81, 16, 497, 516, 164, 115, 62, 452] {
            assert_eq!(of(&refused(code, "")), (Class::Hold, true), "{code}");
        }
        for code in [202, 216, 33] {
            assert_eq!(of(&refused(code, "")), (Class::Retry, true), "{code}");
        }
        for code in [27, 131, 376, 469, 691, 395] {
            assert_eq!(of(&refused(code, "")), (Class::Cut, true), "{code}");
            assert_eq!(of(&refused(code, "…: while pushing to view d.v")), (Class::Hold, false), "{code}");
        }
        for code in [241, 242, 394, 999, 1001, 1016, 4242] {
            assert_eq!(of(&refused(code, "")), (Class::Retry, false), "{code}");
        }
    }

    #[test]
    fn what_a_client_wrote_decides_nothing() {
        for value in [
            "x: while pushing to view d.v",
            "Type of ",
            "Too many partitions for single INSERT block",
            "While executing Native",
        ] {
            assert_eq!(of(&refused(469, &format!("Column values: s = '{value}'"))), (Class::Cut, true), "{value}");
            assert_eq!(of(&refused(117, &format!("Cannot read '{value}'"))), (Class::Cut, true), "{value}");
            assert_eq!(
                of(&refused(252, &format!("Too many parts (5) in table '{value}'"))),
                (Class::Retry, true),
                "{value}"
            );
            assert_eq!(of(&refused(53, &format!("in '{value}'"))), (Class::Cut, true), "{value}");
        }
        let named = "Constraint `c` for table d.t is violated at row 2. Column values: s = ' is violated at row 9'";
        assert_eq!(row_named_by(&refused(469, named)), Some(1));
    }

    #[test]
    fn what_never_passes_whole_is_split_after_some_attempts() {
        let later = |error: &ClientError| {
            let Outcome { class, answered, .. } = classify(error, PATIENCE, InsertFormat::Rowbinary);
            (class, answered)
        };
        let front = |status| ClientError::Refused { status, code: None, message: String::new() };
        assert_eq!(later(&refused(241, "")), (Class::Split, false));
        assert_eq!(later(&front(413)), (Class::Split, false));
        assert_eq!(later(&front(414)), (Class::Split, false));
        assert_eq!(later(&refused(33, "")), (Class::Cut, true));
        assert_eq!(later(&ClientError::Unproven("another id".into())), (Class::Hold, false));
        for status in [400, 401, 403, 404, 405, 429, 502] {
            assert_eq!(later(&front(status)), (Class::Retry, false), "{status}");
        }
        assert_eq!(later(&refused(4242, "")), (Class::Retry, false), "a code that nobody knows is not held");
    }

    #[test]
    fn an_error_that_may_leave_a_token_without_rows_is_suspicious() {
        let suspicious = |error: &ClientError| classify(error, 1, InsertFormat::Rowbinary).is_suspicious;
        for code in [75, 241, 425, 999, 1001, 1016, 4242] {
            assert!(suspicious(&refused(code, "")), "{code}");
        }
        for code in [202, 216, 252, 60, 469] {
            assert!(!suspicious(&refused(code, "")), "{code}");
        }
        assert!(!suspicious(&ClientError::NoConnection(String::new())));
    }

    #[test]
    fn what_smells_of_changed_columns_calls_for_refresh() {
        for code in TABLE_CHANGED {
            assert!(calls_for_refresh(&refused(code, "")), "{code}");
            assert_eq!(of(&refused(code, "")), (Class::Hold, true), "{code}");
        }
        assert!(calls_for_refresh(&refused(117, "Type of 'a' must be UInt32, not UInt64")));
        let compared = refused(395, &format!("{COLUMNS_CHANGED}: while executing 'FUNCTION throwIf'"));
        assert!(calls_for_refresh(&compared));
        assert_eq!(of(&compared), (Class::Hold, true));
        assert!(!calls_for_refresh(&refused(395, &format!("a value '{COLUMNS_CHANGED}'"))));
        assert!(calls_for_refresh(&refused(53, "Cannot convert: Int64 to Int32: While executing Native")));
        assert!(calls_for_refresh(&ClientError::NoConnection("refused".into())));
        for (code, message) in [(117, "Bool value must be 0 or 1"), (241, ""), (469, ""), (252, "Too many parts")] {
            assert!(!calls_for_refresh(&refused(code, message)), "{code}");
            assert_eq!(is_too_many_parts(&refused(code, message)), code == 252);
        }
        assert!(!calls_for_refresh(&ClientError::Refused { status: 502, code: None, message: "x".into() }));
        let native = classify(&refused(53, "Cannot convert: Int64 to Int32"), 1, InsertFormat::Native);
        assert_eq!((native.class, native.answered), (Class::Hold, true));
    }

    #[test]
    fn a_constraint_names_the_row() {
        assert_eq!(
            row_named_by(&refused(469, "Constraint `c` for table d.t is violated at row 2. Expression: …")),
            Some(1)
        );
        assert_eq!(row_named_by(&refused(469, "Constraint `c` for table d.t is violated at row 0")), None);
        assert_eq!(row_named_by(&refused(469, "something else")), None);
        assert_eq!(row_named_by(&refused(27, "Constraint `c` for table d.t is violated at row 2")), None);
    }

    #[test]
    fn delays_grow_and_stay_bounded() {
        assert_eq!(Class::Retry.delay(1), RETRY_FIRST);
        assert!(Class::Retry.delay(3) > Class::Retry.delay(2));
        assert_eq!(Class::Retry.delay(u32::MAX), RETRY_LONGEST);
    }
}
