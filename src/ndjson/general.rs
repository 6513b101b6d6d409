//! The slow path of a line, which alone rejects lines. It checks the grammar and depth of the line
//! first, and then encodes the fields of the object one by one. `sonic-rs` decodes their texts.
//!
//! The slow path encodes the lines that [`super::walk`] does not accept. It is also the twin of the
//! fast path in tests: it uses neither the guessed key order, nor the readers in place, nor `escape`.

use std::borrow::Cow;
use std::sync::Arc;

use super::LineCode;
use super::keys::{Keys, ambiguous};
use super::row::{RowBuilder, ServerCells};
use super::skip::{SkipError, skip_space, skip_string, skip_value};
use super::values::json::Paths;
use super::values::nested::{Tuples, Workspace};
use super::values::{self, JsonToken, ValueError};
use crate::limits;
use crate::schema::{Field, KeyTarget, Plan};

/// Characters of a value that a message shows.
const EXCERPT_CHARS: usize = 64;

/// Why a line is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) code: LineCode,
    pub(crate) column: Option<Arc<str>>,
    pub(crate) message: String,
}

impl Rejection {
    pub(crate) fn new(code: LineCode, message: impl Into<String>) -> Self {
        Self { code, column: None, message: message.into() }
    }

    fn at_byte(at: usize) -> Self {
        let message = format!("the line is not valid JSON from byte {} on", at + 1);
        Self::new(LineCode::InvalidJson, message)
    }

    fn of_field(code: LineCode, field: &Field, message: String) -> Self {
        Self { code, column: Some(Arc::clone(&field.name)), message }
    }
}

/// The workspace of the slow path.
#[derive(Default)]
struct Decoded {
    text: String,
    tuples: Tuples,
    paths: Paths,
}

impl Workspace for Decoded {
    fn decode<'a>(&'a mut self, raw: &'a [u8]) -> Option<&'a [u8]> {
        self.text = decode(std::str::from_utf8(raw).ok()?)?.into_owned();
        Some(self.text.as_bytes())
    }

    fn tuples(&mut self) -> &mut Tuples {
        &mut self.tuples
    }

    fn paths(&mut self) -> &mut Paths {
        &mut self.paths
    }
}

/// Encodes a line, which contains no line feed, as a row. On an error the caller removes the
/// unfinished row.
pub(crate) fn encode_line(
    plan: &Plan,
    line: &[u8],
    server: &ServerCells,
    builder: &mut RowBuilder,
) -> Result<(), Rejection> {
    builder.begin();
    let text = std::str::from_utf8(line).map_err(|error| {
        let message = format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1);
        Rejection::new(LineCode::InvalidUtf8, message)
    })?;
    let start = skip_space(line, 0);
    let end = skip_value(line, start, 0).map_err(|error| match error {
        SkipError::Invalid(at) => Rejection::at_byte(at),
        SkipError::TooDeep => {
            Rejection::new(LineCode::TooDeep, format!("values are nested more than {} levels deep", limits::DEPTH_MAX))
        }
    })?;
    let trailing = skip_space(line, end);
    if trailing != line.len() {
        return Err(Rejection::at_byte(trailing));
    }
    if line.get(start) != Some(&b'{') {
        let message = "the line is JSON but not an object";
        return Err(Rejection::new(LineCode::NotAnObject, message));
    }
    let mut keys = Keys::default();
    let mut workspace = Decoded::default();
    let mut members = Members { text, at: start };
    while let Some((raw_key, value)) = members.next() {
        let key = decode(raw_key);
        // A key with an unpaired surrogate is no text, so no column has it.
        let Some(key) = key else {
            keys.add_unknown(raw_key.trim_matches('"'));
            continue;
        };
        let index = match plan.target(key.as_bytes()) {
            KeyTarget::Field(index) => usize::from(index),
            KeyTarget::Server => {
                keys.any_known = true;
                continue;
            }
            KeyTarget::Unknown => {
                keys.add_unknown(&key);
                continue;
            }
            KeyTarget::Ambiguous => return Err(ambiguous(plan, &key)),
        };
        keys.any_known = true;
        if let Some(field) = plan.fields().get(index) {
            encode_field(index, field, value, &mut workspace, builder)?;
        }
    }
    if let Some(rejection) = keys.reject(plan) {
        return Err(rejection);
    }
    // All values were converted, so none is read.
    builder.finish(plan.fields(), server, line, |_, _, _| Some(()));
    Ok(())
}

/// The members of an object whose grammar has been checked.
struct Members<'a> {
    text: &'a str,
    /// The offset of the opening brace, or of what follows the last value.
    at: usize,
}

impl<'a> Members<'a> {
    /// The next key, with its quotes, and the next value; `None` at the end of the object.
    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let body = self.text.as_bytes();
        // A brace or a comma; the closing brace of an empty object is no key.
        let key = skip_space(body, skip_space(body, self.at) + 1);
        let key_end = skip_string(body, key)?;
        let value = skip_space(body, skip_space(body, key_end) + 1);
        self.at = skip_value(body, value, 1).ok()?;
        Some((self.text.get(key..key_end)?, self.text.get(value..self.at)?))
    }
}

/// The text of a string whose grammar has been checked; `None` if it has an unpaired surrogate.
fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('\\') {
        return raw.get(1..raw.len().checked_sub(1)?).map(Cow::Borrowed);
    }
    sonic_rs::from_str(raw).ok().map(Cow::Owned)
}

fn encode_field(
    index: usize,
    field: &Field,
    raw: &str,
    workspace: &mut Decoded,
    builder: &mut RowBuilder,
) -> Result<(), Rejection> {
    if builder.check_new(index).is_err() {
        let message = "the field occurs more than once".to_owned();
        return Err(Rejection::of_field(LineCode::DuplicateField, field, message));
    }
    let text: Cow<'_, str>;
    let token = match raw.as_bytes().first() {
        Some(b'"') => {
            text = decode(raw).ok_or_else(|| reject_value(field, raw, ValueError::Surrogate))?;
            JsonToken::Text(text.as_bytes())
        }
        Some(b'{' | b'[') => JsonToken::Nested(raw.as_bytes()),
        _ => JsonToken::of_bare(raw.as_bytes()),
    };
    let written = builder.put(index, |out| values::write_field(field, token, workspace, out));
    written.map_err(|error| reject_value(field, raw, error))
}

fn reject_value(field: &Field, raw: &str, error: ValueError) -> Rejection {
    let (type_name, value) = (excerpt(&field.type_name), excerpt(raw));
    let (code, message) = match error {
        ValueError::Mismatch => (LineCode::TypeMismatch, format!("{value} is not a value of type {type_name}")),
        ValueError::OutOfRange => (LineCode::OutOfRange, format!("{value} is out of the range of type {type_name}")),
        ValueError::Surrogate => (LineCode::InvalidJson, format!("the text {value} has an unpaired surrogate")),
        ValueError::Duplicate => {
            (LineCode::DuplicateField, format!("{value} has two values for one element or path of type {type_name}"))
        }
    };
    Rejection::of_field(code, field, message)
}

/// The first [`EXCERPT_CHARS`] characters of a value or a key, for a message.
pub(super) fn excerpt(raw: &str) -> Cow<'_, str> {
    match raw.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", raw.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(raw),
    }
}
