//! What became of a body's lines.

use std::sync::Arc;

use super::general::Refused;
use crate::limits;

/// Why a line was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineCode {
    /// The line is not JSON.
    InvalidJson,
    /// It is JSON, but no object.
    NotAnObject,
    /// A value is nothing that its column's type can be read from.
    TypeMismatch,
    /// A value is of the right sort, but its column's type can't hold it.
    OutOfRange,
    /// A field that the configuration requires is not there.
    MissingField,
    /// A column's field is there more than once.
    DuplicateField,
    /// The line is longer than a line may be.
    LineTooLong,
    /// Values are nested too deep.
    TooDeep,
    /// The line is not UTF-8.
    InvalidUtf8,
}

impl LineCode {
    /// All codes, each at its own number.
    pub const ALL: [Self; 9] = [
        Self::InvalidJson,
        Self::NotAnObject,
        Self::TypeMismatch,
        Self::OutOfRange,
        Self::MissingField,
        Self::DuplicateField,
        Self::LineTooLong,
        Self::TooDeep,
        Self::InvalidUtf8,
    ];

    /// The name in replies, metrics and the quarantine table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::TypeMismatch => "type_mismatch",
            Self::OutOfRange => "out_of_range",
            Self::MissingField => "missing_field",
            Self::DuplicateField => "duplicate_field",
            Self::LineTooLong => "line_too_long",
            Self::TooDeep => "too_deep",
            Self::InvalidUtf8 => "invalid_utf8",
        }
    }
}

/// One refused line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line's number in the body, from 1.
    pub line: u32,
    /// The column whose field was refused, if it was a field.
    pub column: Option<Arc<str>>,
    /// Why.
    pub code: LineCode,
    /// Why, as a sentence.
    pub message: String,
}

/// How many lines were refused for each reason, in the order of [`LineCode::ALL`].
pub type RejectedByCode = [u32; LineCode::ALL.len()];

/// What became of the lines of one request. Reused from request to request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that became rows.
    pub accepted: u32,
    /// Lines that were refused.
    pub rejected: u32,
    /// The first [`limits::LINE_ERRORS_LISTED_MAX`] of those.
    pub errors: Vec<LineError>,
    /// The refused lines by reason.
    pub rejected_by_code: RejectedByCode,
}

impl Report {
    /// Makes it empty for the next request.
    pub fn clear(&mut self) {
        self.accepted = 0;
        self.rejected = 0;
        self.errors.clear();
        self.rejected_by_code = RejectedByCode::default();
    }

    pub(super) fn reject(&mut self, line: u32, refused: Refused) {
        self.rejected += 1;
        if let Some(count) = self.rejected_by_code.get_mut(refused.code as usize) {
            *count += 1;
        }
        if self.errors.len() < limits::LINE_ERRORS_LISTED_MAX {
            self.errors.push(LineError { line, column: refused.column, code: refused.code, message: refused.message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_at_its_number() {
        for (number, code) in LineCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
    }
}
