//! The results of encoding the lines of a body.

use std::sync::Arc;

use super::general::Rejection;
use crate::limits;

/// Why a line is rejected, as a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineCode {
    /// The line is not JSON.
    InvalidJson,
    /// The line is JSON and not an object.
    NotAnObject,
    /// A value can't be converted to the type of its column.
    TypeMismatch,
    /// A value is outside the range of its column's type.
    OutOfRange,
    /// A field that the configuration requires is missing.
    MissingField,
    /// The field of a column occurs more than once, or a key matches several columns.
    DuplicateField,
    /// The line is longer than [`EncodeLimits::line_bytes_max`](super::EncodeLimits::line_bytes_max).
    LineTooLong,
    /// Values are nested deeper than [`limits::DEPTH_MAX`].
    TooDeep,
    /// The line is not UTF-8.
    InvalidUtf8,
    /// It is an object with keys of which none is a column's.
    NoKnownField,
    /// A field that no column takes, where such fields are rejected.
    UnknownField,
}

impl LineCode {
    /// Every code, at the index of its discriminant.
    pub const ALL: [Self; 11] = [
        Self::InvalidJson,
        Self::NotAnObject,
        Self::TypeMismatch,
        Self::OutOfRange,
        Self::MissingField,
        Self::DuplicateField,
        Self::LineTooLong,
        Self::TooDeep,
        Self::InvalidUtf8,
        Self::NoKnownField,
        Self::UnknownField,
    ];

    /// The name of the code in replies, metrics and the quarantine table.
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
            Self::NoKnownField => "no_known_field",
            Self::UnknownField => "unknown_field",
        }
    }
}

/// The error of one rejected line, as the reply lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line in the body, from 1.
    pub line: u32,
    /// The column whose value is the reason, if a value is.
    pub column: Option<Arc<str>>,
    /// The reason as a code.
    pub code: LineCode,
    /// The reason as a sentence.
    pub message: String,
}

/// The number of rejected lines per code, in the order of [`LineCode::ALL`].
pub type RejectedByCode = [u32; LineCode::ALL.len()];

/// The results of encoding the lines of one request. Each worker reuses one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Accepted lines: those that became rows.
    pub accepted: u32,
    /// Rejected lines.
    pub rejected: u32,
    /// The errors of the first [`limits::LINE_ERRORS_LISTED_MAX`] rejected lines.
    pub errors: Vec<LineError>,
    /// The rejected lines by code.
    pub rejected_by_code: RejectedByCode,
    /// True when the body is an array: the lines are its elements.
    pub has_elements: bool,
}

impl Report {
    /// Empties the report for the next request.
    pub fn clear(&mut self) {
        self.accepted = 0;
        self.rejected = 0;
        self.errors.clear();
        self.rejected_by_code = RejectedByCode::default();
        self.has_elements = false;
    }

    pub(super) fn reject(&mut self, line: u32, rejection: Rejection) {
        self.rejected += 1;
        if let Some(count) = self.rejected_by_code.get_mut(rejection.code as usize) {
            *count += 1;
        }
        if self.errors.len() < limits::LINE_ERRORS_LISTED_MAX {
            let Rejection { code, column, message } = rejection;
            self.errors.push(LineError { line, column, code, message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_at_the_index_of_its_discriminant() {
        for (number, code) in LineCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
    }
}
