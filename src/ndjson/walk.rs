//! The fast path of a line: keys that are known, values read in place.
//!
//! The fast path never rejects a line. On anything unexpected it returns `None`, and [`super::general`]
//! encodes or rejects the line. So the fast path must accept only lines that the slow path accepts,
//! with the same bytes; it need not accept all of them. It accepts keys in any order, fields that no column
//! has, and values in unusual forms, because many lines may have them.
//!
//! The first pass goes from key to key by the marks of [`super::window`]: they show where a key and its text
//! end. The end of a number is found from behind: a mark follows it, which is the quote of the next key, or
//! the end of the line; whether all in between is a number is seen when it is converted. The second pass
//! converts the values in the table's order ([`super::row`]).
//!
//! The fast path parses the body, not a line of it: no value and no separator that it accepts contains
//! a line feed, so it reaches the end of the line without searching for it before.

use super::InvalidText;
use super::escape;
use super::field_counts::FieldCounter;
use super::known::KnownKeys;
use super::mapped::Mapped;
use super::order::{HEAD_BYTES, KeyOrder};
use super::repair::has_unpaired_surrogate;
use super::row::{Found, Place, RowBuilder, ServerCells};
use super::skip::{skip_scalar, skip_space, skip_string, skip_value};
use super::values::nested::InPlace;
use super::values::text::plain_string;
use super::values::{self, JsonToken};
use super::window::Window;
use crate::rowbinary::RowBuffer;
use crate::schema::{Field, KeyTarget, ObjectKeys, Plan};

/// The parts of the encoder that the fast path uses, borrowed for one line.
pub(crate) struct Walk<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) window: &'a Window,
    pub(crate) known: &'a mut KnownKeys,
    pub(crate) order: &'a mut KeyOrder,
    pub(crate) builder: &'a mut RowBuilder,
    pub(crate) server: &'a ServerCells,
    pub(crate) inside: Inside<'a>,
    pub(crate) mapped: &'a mut Mapped,
    /// The keys of the object that is walked, if paths go into it; `None`: those of the line.
    pub(crate) keys: Option<&'a ObjectKeys>,
    /// The path to the object that is walked.
    pub(crate) path: &'a str,
}

/// What converts a value in an unusual form.
pub(crate) struct Inside<'a> {
    pub(crate) scratch: &'a mut Vec<u8>,
    pub(crate) workspace: &'a mut InPlace,
    pub(crate) invalid_text: InvalidText,
    pub(crate) counter: &'a mut FieldCounter,
    /// Objects that are open around a value.
    pub(crate) level: usize,
}

/// A key that was read, not far from its value.
struct Key<'b> {
    target: KeyTarget,
    /// The body from the brace or comma before the key on.
    head: &'b [u8; HEAD_BYTES],
    /// The marks of `head`.
    marks: u64,
    /// The offset of the value in `head`, at most 56.
    value: usize,
}

/// The end of a key in [`Key::head`] may be here, so that the mark of its value is among those that are loaded.
const LAST_KEY_END: usize = 53;

/// What follows a value, or the opening brace, of an object.
enum Separator {
    /// A key: its target and the offset of its value.
    Key(KeyTarget, usize),
    /// The end of the object: the offset after it.
    End(usize),
}

impl Walk<'_> {
    /// Encodes the line whose object begins at `at`. Returns the offset of its line feed, or the end of
    /// the body. On `None` the caller removes the unfinished row.
    #[inline]
    pub(crate) fn line(&mut self, body: &[u8], at: usize) -> Option<usize> {
        self.builder.begin();
        self.inside.counter.begin_line();
        self.mapped.begin_line();
        self.order.begin_line();
        let object = self.object(body, at);
        self.order.end_line();
        let object = object?;
        let end = skip_space(body, object);
        if !matches!(body.get(end), None | Some(b'\n')) {
            return None;
        }
        if self.plan.has_conditions() {
            self.conclude(body.get(at..object)?)?;
        }
        // An object without any column's key is rejected, unless it is empty.
        if self.builder.is_untouched() {
            return None;
        }
        let inside = &mut self.inside;
        self.builder.finish(self.plan.fields(), self.server, body, |field, value, out| {
            let range = value.in_body();
            let before = out.len();
            if values::read_field(field, body, range.start, out) == Some(range.end) {
                return Some(());
            }
            out.truncate(before);
            (inside.read(field, body, range.start, out)? == range.end).then_some(())
        })?;
        Some(end)
    }

    /// Finds the values of an object, and returns the offset behind it.
    #[inline(never)]
    pub(super) fn object(&mut self, body: &[u8], at: usize) -> Option<usize> {
        let (mut at, mut before) = (at, b'{');
        if body.get(at) != Some(&before) {
            return None;
        }
        loop {
            at = match self.key(body, at, before) {
                Some(key) => self.value(body, at, &key)?,
                None => match self.separator(body, at)? {
                    Separator::End(end) => return Some(end),
                    Separator::Key(target, value) => self.any_value(target, body, value)?,
                },
            };
            before = b',';
            match body.get(at) {
                Some(b',') => {}
                Some(b'}') => return Some(at + 1),
                _ => {
                    at = skip_space(body, at);
                    match body.get(at) {
                        Some(b',') => {}
                        Some(b'}') => return Some(at + 1),
                        _ => return None,
                    }
                }
            }
        }
    }

    /// Reads the key that follows the byte `before` at `at`, a brace or a comma, if the key is written as nearly
    /// all are: with at most a space before it and behind its colon, without escapes, and not too near the end of
    /// the body.
    #[inline(always)]
    fn key<'b>(&mut self, body: &'b [u8], at: usize, before: u8) -> Option<Key<'b>> {
        let head: &[u8; HEAD_BYTES] = body.get(at..)?.first_chunk()?;
        let marks = self.window.marks(at);
        if self.keys.is_some() {
            return self.look_up(head, marks);
        }
        match self.order.guess(head) {
            // A step includes the byte before its key. Without this check a brace could pass for a comma.
            Some((target, value)) if *head.first()? == before => Some(Key { target, head, marks, value }),
            _ => self.look_up(head, marks),
        }
    }

    #[inline(always)]
    fn look_up<'b>(&mut self, head: &'b [u8; HEAD_BYTES], marks: u64) -> Option<Key<'b>> {
        let [_, one, two, ..] = *head;
        let (quote, start) = if one == b' ' { (two, 3) } else { (one, 2) };
        let end = (marks & marks.wrapping_sub(1)).trailing_zeros() as usize;
        if quote != b'"' || end > LAST_KEY_END || head.get(end..end + 2) != Some(b"\":") {
            return None;
        }
        let value = end + 2 + usize::from(head.get(end + 2) == Some(&b' '));
        let target = self.target(head, start, end);
        self.learn(head.get(..value)?, target);
        Some(Key { target, head, marks, value })
    }

    #[inline(always)]
    fn learn(&mut self, spelling: &[u8], target: KeyTarget) {
        if self.keys.is_none() {
            self.order.learn(spelling, target);
        }
    }

    /// Finds the end of the value of a key, and returns the offset behind it.
    #[inline(always)]
    fn value(&mut self, body: &[u8], at: usize, key: &Key<'_>) -> Option<usize> {
        let (target, head, value) = (key.target, key.head, key.value % 64);
        let marks = key.marks >> value;
        let first = *head.get(value)?;
        if first == b'"' {
            let close = marks & marks.wrapping_sub(1);
            let end = value + close.trailing_zeros() as usize;
            if close == 0 || head.get(end) != Some(&b'"') {
                return self.any_value(target, body, at + value);
            }
            let found = Found { place: Place::Text, start: at + value + 1, end: at + end };
            match target {
                KeyTarget::Field(field) => self.builder.set(field.into(), found).ok()?,
                KeyTarget::Server => {}
                _ => return self.other(target, found, body),
            }
            return Some(at + end + 1);
        }
        // The comma before the next key, or the brace before the end of the line.
        let end = (value + marks.trailing_zeros() as usize).wrapping_sub(1);
        if marks == 0 || matches!(first, b'{' | b'[') || !matches!(head.get(end), Some(b',' | b'}')) {
            return self.any_value(target, body, at + value);
        }
        let found = Found { place: Place::Bare, start: at + value, end: at + end };
        match target {
            KeyTarget::Field(field) => self.builder.set(field.into(), found).ok()?,
            // It is the last one of a nested object, or no number.
            _ if skip_scalar(body, found.start)? != found.end => return self.any_value(target, body, found.start),
            KeyTarget::Server => {}
            _ => return self.other(target, found, body),
        }
        Some(found.end)
    }

    /// Reads what follows the brace or comma at `at`, however it is written.
    #[inline(never)]
    fn separator(&mut self, body: &[u8], at: usize) -> Option<Separator> {
        let next = skip_space(body, at + 1);
        if body.get(next) == Some(&b'}') && body.get(at) == Some(&b'{') {
            return Some(Separator::End(next + 1));
        }
        let (key, length, key_end) = plain_string(body, next)?;
        let colon = skip_space(body, key_end);
        if body.get(colon) != Some(&b':') {
            return None;
        }
        let target = self.target(body, key, key + length);
        let value = skip_space(body, colon + 1);
        self.learn(body.get(at..value)?, target);
        Some(Separator::Key(target, value))
    }

    /// [`Walk::value`] for a value of any form and length.
    #[inline(never)]
    fn any_value(&mut self, target: KeyTarget, body: &[u8], at: usize) -> Option<usize> {
        let found = match *body.get(at)? {
            b'{' | b'[' => return self.aside(target, body, at),
            b'"' => {
                let end = self.window.next(at + 1)?;
                if body.get(end) != Some(&b'"') {
                    return self.aside(target, body, at);
                }
                Found { place: Place::Text, start: at + 1, end }
            }
            _ => Found { place: Place::Bare, start: at, end: skip_scalar(body, at)? },
        };
        match target {
            KeyTarget::Field(field) => self.builder.set(field.into(), found).ok()?,
            KeyTarget::Server => {}
            _ => return self.other(target, found, body),
        }
        Some(found.in_body().end)
    }

    /// The target of the key between `start` and `end`.
    #[inline(always)]
    fn target(&mut self, body: &[u8], start: usize, end: usize) -> KeyTarget {
        let (plan, keys, path, counter) = (self.plan, self.keys, self.path, &mut *self.inside.counter);
        self.known.target(body, start, end, |key| {
            let target = keys.map_or_else(|| plan.target(key), |keys| keys.target(key));
            if target == KeyTarget::Unknown { counter.target(path, key) } else { target }
        })
    }

    /// Converts or skips an array, an object or a text with escapes, and returns the offset behind it.
    #[inline(never)]
    fn aside(&mut self, target: KeyTarget, body: &[u8], at: usize) -> Option<usize> {
        let index = match target {
            KeyTarget::Field(field) => usize::from(field),
            KeyTarget::Node(number) => return self.node_aside(number, body, at),
            KeyTarget::Ambiguous => return None,
            KeyTarget::Server | KeyTarget::Unknown | KeyTarget::Counted(_) => {
                let end = self.skip(body, at)?;
                self.leave(target, body, at..end)?;
                return Some(end);
            }
        };
        self.builder.check_new(index).ok()?;
        self.convert(index, body, at)
    }

    /// Skips an array, an object or a text.
    pub(super) fn skip(&self, body: &[u8], at: usize) -> Option<usize> {
        match body.get(at) {
            Some(b'"') => skip_string(body, at),
            _ => skip_value(body, at, self.inside.level).ok(),
        }
    }

    /// Converts the value of a field before its turn, and returns the offset behind it.
    pub(super) fn convert(&mut self, index: usize, body: &[u8], at: usize) -> Option<usize> {
        let field = self.plan.fields().get(index)?;
        let read = self.builder.put(index, |out| values::read_field_aside(field, body, at, out).ok_or(()));
        match read {
            Ok(end) => Some(end),
            Err(()) => self.builder.put(index, |out| self.inside.read(field, body, at, out).ok_or(())).ok(),
        }
    }
}

impl Inside<'_> {
    /// Reads a value that is not in the usual form of its type, and returns the offset behind it.
    #[inline(never)]
    fn read(&mut self, field: &Field, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
        let (token, end) = match body.get(at)? {
            b'"' => {
                let end = escape::decode(body, at, self.scratch)?;
                (JsonToken::Text(self.scratch), end)
            }
            first => {
                let end = skip_value(body, at, self.level).ok()?;
                let raw = body.get(at..end)?;
                match first {
                    b'{' | b'[' => {
                        // Only the slow path replaces invalid text.
                        if self.invalid_text == InvalidText::Replace && has_unpaired_surrogate(raw) {
                            return None;
                        }
                        (JsonToken::Nested(raw), end)
                    }
                    _ => (JsonToken::of_bare(raw), end),
                }
            }
        };
        if token == JsonToken::Null && field.is_required {
            return None;
        }
        values::write_field(field, token, self.workspace, out).ok()?;
        if let Some(unit) = values::guessed_unit(field, token) {
            self.counter.note_guess(field.index, unit);
        }
        Some(end)
    }
}
