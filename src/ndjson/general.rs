//! The slow path of a line, which alone rejects lines. It checks the grammar and depth of the line
//! first, and then encodes the fields of the object one by one. `sonic-rs` decodes their texts.
//!
//! The slow path encodes the lines that [`super::walk`] does not accept. It is also the twin of the
//! fast path in tests: it uses neither the guessed key order, nor the readers in place, nor `escape`.

use std::borrow::Cow;
use std::sync::Arc;

use super::LineCode;
use super::field_counts::FieldCounter;
use super::keys::{Keys, ambiguous, unknown_field};
use super::mapped::{close_members, push_escaped, push_member};
use super::row::{RowBuilder, ServerCells};
use super::skip::{SkipError, skip_space, skip_string, skip_value};
use super::values::json::Paths;
use super::values::nested::{Tuples, Workspace};
use super::values::{self, JsonToken, ValueError};
use crate::limits;
use crate::schema::{Field, KeyTarget, ObjectKeys, Plan, Taker, Unknown};

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
    counter: &mut FieldCounter,
) -> Result<(), Rejection> {
    builder.begin(server);
    let text = std::str::from_utf8(line).map_err(|error| {
        let message = format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1);
        Rejection::new(LineCode::InvalidUtf8, message)
    })?;
    let start = skip_space(line, 0);
    let end = skip_value(line, start, 0).map_err(|error| match error {
        SkipError::Invalid(at) if at >= line.len() && line.get(start) == Some(&b'{') => {
            let message = "the line ends inside of its object: an object must stand on one line; objects over several \
                           lines are read as the elements of one JSON array";
            Rejection::new(LineCode::InvalidJson, message)
        }
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
    let object = text.get(start..end).unwrap_or_default();
    let keys = Keys::default();
    let workspace = Decoded::default();
    let mut row = Row { plan, server, builder, counter, keys, workspace, mapped: MappedRow::default() };
    row.encode(object)?;
    // All values were converted, so none is read.
    builder.finish(plan.fields(), server, line, |_, _, _| Some(()));
    Ok(())
}

/// A row while the members of its line are read.
struct Row<'a> {
    plan: &'a Plan,
    server: &'a ServerCells,
    builder: &'a mut RowBuilder,
    counter: &'a mut FieldCounter,
    keys: Keys,
    workspace: Decoded,
    mapped: MappedRow<'a>,
}

/// What a mapping makes of a line.
#[derive(Default)]
struct MappedRow<'a> {
    /// The values of columns with several sources.
    offers: Vec<Offer<'a>>,
    /// By source: whether the line had it.
    seen: Vec<bool>,
    /// The members that no column takes.
    collected: Vec<u8>,
    /// Why the line is rejected because of the first of them.
    refused: Option<Rejection>,
}

/// A value for a column with several sources.
struct Offer<'a> {
    field: u16,
    is_null: bool,
    rank: u16,
    raw: &'a str,
}

impl<'a> Row<'a> {
    fn encode(&mut self, object: &'a str) -> Result<(), Rejection> {
        self.members(None, "", object)?;
        self.take_offers()?;
        if let Some(refused) = self.mapped.refused.take() {
            return Err(refused);
        }
        if !self.plan.takes_every_object()
            && let Some(rejection) = self.keys.reject(self.plan)
        {
            return Err(rejection);
        }
        for index in self.plan.lines() {
            self.put_object(usize::from(*index), object.as_bytes())?;
        }
        if let Unknown::Collect(index) = self.plan.unknown() {
            let mut collected = std::mem::take(&mut self.mapped.collected);
            close_members(&mut collected);
            self.put_object(usize::from(index), &collected)?;
        }
        for index in self.plan.required().iter().map(|index| usize::from(*index)) {
            if self.builder.check_new(index).is_ok()
                && let Some(field) = self.plan.fields().get(index)
            {
                return Err(missing(field));
            }
        }
        match &self.server.unfit {
            Some(unfit) => Err(unfit.clone()),
            None => Ok(()),
        }
    }

    /// Reads the members of the line's own object, or of one that paths go into.
    fn members(&mut self, inside: Option<&'a ObjectKeys>, path: &str, object: &'a str) -> Result<(), Rejection> {
        let mut members = Members { text: object, at: 0 };
        while let Some((raw_key, value)) = members.next() {
            let inner = raw_key.get(1..raw_key.len().saturating_sub(1)).unwrap_or_default();
            // A key with an unpaired surrogate is no text, so no column has it.
            let Some(key) = decode(raw_key) else {
                self.counter.note_other();
                self.leave(path, inner, inner, value);
                continue;
            };
            let target = match inside {
                None => self.plan.target(key.as_bytes()),
                Some(inside) => inside.target(key.as_bytes()),
            };
            self.keys.any_known |= !matches!(target, KeyTarget::Unknown | KeyTarget::Counted(_));
            match target {
                KeyTarget::Field(index) => self.field(usize::from(index), value)?,
                KeyTarget::Node(number) => self.node(number, value)?,
                KeyTarget::Server => {}
                KeyTarget::Unknown | KeyTarget::Counted(_) => {
                    self.count(path, &key, value);
                    self.leave(path, inner, &key, value);
                }
                KeyTarget::Ambiguous => return Err(ambiguous(self.plan, &key)),
            }
        }
        Ok(())
    }

    fn node(&mut self, number: u16, value: &'a str) -> Result<(), Rejection> {
        let Some(node) = self.plan.paths().node(number) else { return Ok(()) };
        let is_null = value == "null";
        for taker in &node.takers {
            let seen = &mut self.mapped.seen;
            let source = usize::from(taker.source);
            if seen.len() <= source {
                seen.resize(source + 1, false);
            }
            if seen.get_mut(source).is_some_and(|seen| std::mem::replace(seen, true))
                && let Some(field) = self.plan.fields().get(usize::from(taker.field))
            {
                return Err(twice(field));
            }
            let Taker { field, rank, .. } = *taker;
            self.mapped.offers.push(Offer { field, is_null, rank, raw: value });
        }
        match &node.inside {
            Some(inside) if value.starts_with('{') => self.members(Some(inside), &node.path, value)?,
            Some(_) if node.takers.is_empty() && !node.is_taken && !is_null => {
                self.count("", &node.path, value);
                let mut key = Vec::new();
                push_escaped(&mut key, &node.path);
                self.leave("", &String::from_utf8_lossy(&key), &node.path, value);
            }
            _ => {}
        }
        Ok(())
    }

    /// Encodes the best value of each column with several sources. Null is the weakest.
    fn take_offers(&mut self) -> Result<(), Rejection> {
        let mut offers = std::mem::take(&mut self.mapped.offers);
        offers.sort_by_key(|offer| (offer.field, offer.is_null, offer.rank));
        offers.dedup_by_key(|offer| offer.field);
        offers.iter().try_for_each(|offer| self.field(usize::from(offer.field), offer.raw))
    }

    fn count(&mut self, path: &str, key: &str, value: &str) {
        match self.counter.number(path, key.as_bytes()) {
            Some(number) => self.counter.note(number, value.as_bytes()),
            None => self.counter.note_other(),
        }
    }

    /// Does with a field that no column takes what the plan says. `inner` is its key as in the line, without
    /// quotes; `key` is what it means.
    fn leave(&mut self, path: &str, inner: &str, key: &str, value: &str) {
        if path.is_empty() {
            self.keys.add_unknown(key);
        }
        match self.plan.unknown() {
            Unknown::Skip => {}
            Unknown::Reject => {
                let plan = self.plan;
                self.mapped.refused.get_or_insert_with(|| unknown_field(plan, path, key));
            }
            Unknown::Collect(_) => push_member(&mut self.mapped.collected, path, inner.as_bytes(), value.as_bytes()),
        }
    }

    fn put_object(&mut self, index: usize, object: &[u8]) -> Result<(), Rejection> {
        let Some(field) = self.plan.fields().get(index) else { return Ok(()) };
        let (workspace, token) = (&mut self.workspace, JsonToken::Nested(object));
        let written = self.builder.put(index, |out| values::write_field(field, token, workspace, out));
        written.map_err(|error| reject_value(field, &String::from_utf8_lossy(object), error))
    }

    fn field(&mut self, index: usize, raw: &str) -> Result<(), Rejection> {
        let Some(field) = self.plan.fields().get(index) else { return Ok(()) };
        if self.builder.check_new(index).is_err() {
            return Err(twice(field));
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
        if token == JsonToken::Null && field.is_required {
            return Err(missing(field));
        }
        let workspace = &mut self.workspace;
        let written = self.builder.put(index, |out| values::write_field(field, token, workspace, out));
        written.map_err(|error| reject_value(field, raw, error))?;
        if let Some(unit) = values::guessed_unit(field, token) {
            self.counter.note_guess(field.index, unit);
        }
        Ok(())
    }
}

fn twice(field: &Field) -> Rejection {
    Rejection::of_field(LineCode::DuplicateField, field, "the field occurs more than once".to_owned())
}

/// Rejects a line without a value for a column that is required.
pub(super) fn missing(field: &Field) -> Rejection {
    let message = format!("the column `{}` is required, and the line has no value for it", field.name);
    Rejection::of_field(LineCode::MissingField, field, message)
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
pub(super) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('\\') {
        return raw.get(1..raw.len().checked_sub(1)?).map(Cow::Borrowed);
    }
    sonic_rs::from_str(raw).ok().map(Cow::Owned)
}

pub(super) fn reject_value(field: &Field, raw: &str, error: ValueError) -> Rejection {
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
