//! The fast path of a line: keys that are known, values read in place.
//!
//! The fast path never rejects a line. On anything unexpected it returns `None`, and [`super::general`]
//! encodes or rejects the line. So the fast path must accept only lines that the slow path accepts,
//! with the same bytes; it need not accept all of them. It accepts keys in any order, fields that no column
//! has, and values in unusual forms, because many lines may have them.
//!
//! As long as the keys come in the learned order and the fields in the table's, each value is converted at once,
//! in one loop ([`super::guessed`]). Any other key is looked up, and only the place of its value is found; such values
//! are converted when the line ends, in the table's order ([`super::row`]).
//!
//! The fast path parses the body, not a line of it: no value and no separator that it accepts contains
//! a line feed, so it reaches the end of the line without searching for it before.

use std::ops::Range;

use super::InvalidText;
use super::escape;
use super::field_counts::FieldCounter;
use super::found::Found;
use super::guessed::head_behind;
use super::known::KnownKeys;
use super::lines::Lines;
use super::mapped::Mapped;
use super::order::KeyOrder;
use super::repair::has_unpaired_surrogate;
use super::row::{RowBuilder, ServerCells};
use super::scan::{BLOCK, ends, string_end};
use super::siblings::Siblings;
use super::skip::{skip_space, skip_string, skip_value};
use super::step::HEAD_BYTES;
use super::utf8::Utf8Window;
use super::values::nested::InPlace;
use super::values::text::plain_string;
use super::values::{self, JsonToken};
use crate::rowbinary::RowBuffer;
use crate::schema::{Field, KeyTarget, ObjectKeys, Plan, Unknown};

/// Bytes behind the quote of a short key: the key, a quote, a colon, and a space.
const SHORT_KEY_BYTES: usize = BLOCK + 2;

/// The parts of the encoder that the fast path uses, borrowed for one line.
pub(crate) struct Walk<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) window: &'a mut Utf8Window,
    pub(crate) known: &'a mut KnownKeys,
    pub(crate) order: &'a mut KeyOrder,
    pub(crate) builder: &'a mut RowBuilder,
    pub(crate) server: &'a ServerCells,
    pub(crate) inside: Inside<'a>,
    pub(crate) mapped: &'a mut Mapped,
    pub(crate) siblings: Option<&'a mut Siblings>,
    /// The keys of the object that is walked, if paths go into it; `None`: those of the line.
    pub(crate) keys: Option<&'a ObjectKeys>,
    /// The path to the object that is walked.
    pub(crate) path: &'a str,
}

/// What ends a run of lines on the fast path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Lines of the run, at most.
    pub(crate) lines: u32,
    /// No line is begun when there are so many bytes of rows.
    pub(crate) bytes: usize,
    /// A longer line takes the slow path.
    pub(crate) line_bytes: usize,
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

/// What follows a value, or the opening brace, of an object.
enum Separator {
    /// A key: its target and the offset of its value.
    Key(KeyTarget, usize),
    /// The end of the object: the offset after it.
    End(usize),
}

impl Walk<'_> {
    /// Encodes lines until one has to take the slow path, and returns their number.
    pub(crate) fn lines(&mut self, body: &[u8], lines: &mut Lines, bounds: Bounds) -> u32 {
        let mut done = 0;
        while done < bounds.lines && self.builder.rows.len() < bounds.bytes {
            let before = *lines;
            let Some((start, _)) = lines.begin(body).filter(|(start, _)| self.window.has_line(body, *start)) else {
                *lines = before;
                break;
            };
            let walked = self.line(body, start).filter(|end| end - start <= bounds.line_bytes && self.fit_siblings());
            let Some(end) = walked else {
                *lines = before;
                self.builder.abandon();
                // The slow path counts the fields of this line.
                self.inside.counter.begin_line();
                break;
            };
            lines.end(end);
            self.inside.counter.end_line();
            done += 1;
        }
        done
    }

    /// True if the arrays of Nested columns fit in the row that was finished last.
    #[inline]
    fn fit_siblings(&mut self) -> bool {
        self.siblings.as_mut().is_none_or(|siblings| siblings.check(self.builder.last_row()).is_ok())
    }

    /// Encodes the line whose object begins at `at`. Returns the offset of its line feed, or the end of
    /// the body. On `None` the caller removes the unfinished row.
    #[inline(always)]
    fn line(&mut self, body: &[u8], at: usize) -> Option<usize> {
        self.builder.begin(self.server);
        self.inside.counter.begin_line();
        self.mapped.begin_line();
        self.order.begin_line();
        let object = self.object_of_line(body, at);
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
    pub(super) fn object(&mut self, body: &[u8], at: usize) -> Option<usize> {
        if body.get(at) == Some(&b'{') { self.members(body, at, b'{') } else { None }
    }

    /// The same of the object of a line.
    #[inline(always)]
    fn object_of_line(&mut self, body: &[u8], at: usize) -> Option<usize> {
        if body.get(at) != Some(&b'{') {
            return None;
        }
        let guessed = self.guessed(body, at, b'{');
        if guessed == at {
            return self.members(body, at, b'{');
        }
        if body.get(guessed) == Some(&b'}') { Some(guessed + 1) } else { self.members(body, guessed, b',') }
    }

    /// Finds the values behind the byte `before` at `at`.
    #[inline(never)]
    fn members(&mut self, body: &[u8], at: usize, before: u8) -> Option<usize> {
        let (mut at, mut before) = (at, before);
        loop {
            if body.get(at) == Some(&before) {
                let (target, value) = match self.key(body, at, before) {
                    Some(key) => key,
                    None => match self.separator(body, at)? {
                        Separator::End(end) => return Some(end),
                        Separator::Key(target, value) => (target, value),
                    },
                };
                at = self.value(body, target, value)?;
                before = b',';
            }
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
            if self.keys.is_none() {
                at = self.guessed(body, at, b',');
            }
        }
    }

    /// Reads the key that follows the byte `before` at `at`, a brace or a comma, and returns its target and the offset
    /// of its value, if the key is guessed, or written as nearly all are: with at most a space before it and behind
    /// its colon, without escapes, and not too near the end of the body.
    #[inline(always)]
    fn key(&mut self, body: &[u8], at: usize, before: u8) -> Option<(KeyTarget, usize)> {
        if self.keys.is_none() && !self.order.is_pausing() {
            let tail;
            let head = match head_behind(body, at, before) {
                Some(head) => head,
                None => {
                    tail = tail_of(body, at + 1);
                    &tail
                }
            };
            if let Some((target, length)) = self.order.guess(head) {
                return Some((target, at + 1 + length));
            }
        }
        let [one, two] = *body.get(at + 1..)?.first_chunk()?;
        let (quote, start) = if one == b' ' { (two, at + 3) } else { (one, at + 2) };
        if quote != b'"' {
            return None;
        }
        let text = body.get(start..)?;
        let (target, value) = match text.first_chunk::<SHORT_KEY_BYTES>().and_then(|text| self.short_key(text)) {
            Some((target, length)) => (target, start + length),
            None => self.long_key(text).map(|(target, length)| (target, start + length))?,
        };
        self.learn(body, at + 1..value, target);
        Some((target, value))
    }

    /// The target of the key that `text` begins with, behind its quote, and the bytes up to its value.
    #[inline(always)]
    fn short_key(&mut self, text: &[u8; SHORT_KEY_BYTES]) -> Option<(KeyTarget, usize)> {
        let length = ends(text.first_chunk()?).trailing_zeros() as usize;
        let [b'"', b':', next] = *text.get(length..)?.first_chunk()? else { return None };
        Some((self.target(text, length), length + 2 + usize::from(next == b' ')))
    }

    /// The same for a longer key, and near the end of the body.
    #[inline(never)]
    fn long_key(&mut self, text: &[u8]) -> Option<(KeyTarget, usize)> {
        let (length, b'"') = string_end(text, 0)? else { return None };
        let [b':', next] = *text.get(length + 1..)?.first_chunk()? else { return None };
        Some((self.target(text, length), length + 2 + usize::from(next == b' ')))
    }

    #[inline(always)]
    fn learn(&mut self, body: &[u8], spelling: Range<usize>, target: KeyTarget) {
        if self.keys.is_none() && !self.order.is_pausing() {
            self.order.learn(body.get(spelling).unwrap_or_default(), target);
        }
    }

    /// Finds the end of the value of a key, and returns the offset behind it.
    #[inline(always)]
    fn value(&mut self, body: &[u8], target: KeyTarget, at: usize) -> Option<usize> {
        match Found::short(body, at) {
            Some(found) => self.plain_value(body, target, found),
            None => self.long_value(body, target, at),
        }
    }

    #[inline(never)]
    fn long_value(&mut self, body: &[u8], target: KeyTarget, at: usize) -> Option<usize> {
        match Found::long(body, at) {
            Some(found) => self.plain_value(body, target, found),
            None => self.aside(target, body, at),
        }
    }

    /// Takes a text without escapes, a number or a literal, and returns the offset behind it.
    #[inline(always)]
    fn plain_value(&mut self, body: &[u8], target: KeyTarget, found: Found) -> Option<usize> {
        match target {
            KeyTarget::Field(field) => self.builder.set(field.into(), found).ok()?,
            KeyTarget::Server => {}
            KeyTarget::Unknown if self.plan.unknown() == Unknown::Skip => self.inside.counter.note_other(),
            _ => return self.other(target, found, body),
        }
        Some(found.in_body().end)
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
        let target = self.target(body.get(key..)?, length);
        let value = skip_space(body, colon + 1);
        self.learn(body, at + 1..value, target);
        Some(Separator::Key(target, value))
    }

    /// The target of the key of `length` bytes that `text` begins with.
    #[inline(always)]
    fn target(&mut self, text: &[u8], length: usize) -> KeyTarget {
        let (plan, keys, path, counter) = (self.plan, self.keys, self.path, &mut *self.inside.counter);
        self.known.target(text, length, |key| {
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

/// The last bytes of a body, and zeros behind them.
#[inline(never)]
fn tail_of(body: &[u8], at: usize) -> [u8; HEAD_BYTES] {
    let mut tail = [0; HEAD_BYTES];
    for (byte, from) in tail.iter_mut().zip(body.iter().skip(at)) {
        *byte = *from;
    }
    tail
}

impl Inside<'_> {
    /// Reads a value that is not in the usual form of its type, and returns the offset behind it.
    #[inline(never)]
    pub(super) fn read(&mut self, field: &Field, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
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
