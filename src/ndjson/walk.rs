//! The fast path of a line: keys in the learned order, values read in place.
//!
//! The fast path never rejects a line. On anything unexpected it returns `None`, and [`super::general`]
//! encodes or rejects the line. So the fast path must accept only lines that the slow path accepts,
//! with the same bytes; it need not accept all of them. Beside the learned order it accepts keys in
//! any order, fields that no column has, and values in unusual forms, because many lines may have
//! them.
//!
//! The fast path parses the body, not a line of it: no value and no separator that it accepts contains
//! a line feed, so it reaches the end of the line without searching for it before.

use super::InvalidText;
use super::escape;
use super::order::KeyOrder;
use super::repair::has_unpaired_surrogate;
use super::row::{RowBuilder, ServerCells};
use super::skip::{skip_scalar, skip_space, skip_value};
use super::values::nested::InPlace;
use super::values::text::plain_string;
use super::values::{self, JsonToken};
use crate::schema::{Field, KeyTarget, Plan};

/// The parts of the encoder that the fast path uses, borrowed for one line.
pub(crate) struct Walk<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) order: &'a mut KeyOrder,
    pub(crate) builder: &'a mut RowBuilder,
    pub(crate) server: &'a ServerCells,
    pub(crate) scratch: &'a mut Vec<u8>,
    pub(crate) workspace: &'a mut InPlace,
    pub(crate) invalid_text: InvalidText,
}

impl Walk<'_> {
    /// Encodes the line whose object begins at `at`. Returns the offset of its line feed, or the end of
    /// the body. On `None` the caller removes the unfinished row.
    #[inline]
    pub(crate) fn line(&mut self, body: &[u8], at: usize) -> Option<usize> {
        self.builder.begin(self.server);
        self.order.begin_line();
        let end = self.object(body, at);
        self.order.end_line();
        let end = skip_space(body, end?);
        if !matches!(body.get(end), None | Some(b'\n')) {
            return None;
        }
        if self.builder.lacks_fields(self.plan.fields()) {
            // An object without any column's key is rejected, unless it is empty.
            if self.builder.is_untouched() {
                return None;
            }
            self.builder.finish(self.plan.fields(), self.server);
        }
        Some(end)
    }

    #[inline]
    fn object(&mut self, body: &[u8], at: usize) -> Option<usize> {
        let mut at = at;
        let mut first = true;
        loop {
            // A step includes the bytes before its key: the brace for the first key, a comma for the
            // others. Without this check a step could match a brace in place of a comma, or a comma
            // in place of the brace.
            if (body.get(at) == Some(&b'{')) != first {
                return None;
            }
            let (target, value) = match self.order.guess(body, at) {
                Some(hit) => hit,
                None if body.get(at) == Some(&b'}') && !first => return Some(at + 1),
                None => match self.separator(body, at, first)? {
                    Separator::End(end) => return Some(end),
                    Separator::Key(target, value) => (target, value),
                },
            };
            first = false;
            at = match target {
                KeyTarget::Field(index) => self.field(usize::from(index), body, value)?,
                _ => match skip_scalar(body, value) {
                    Some(end) => end,
                    None => skip_value(body, value, 1).ok()?,
                },
            };
        }
    }

    /// Parses what follows `at` when no step matches: a key, which is looked up and learned, or the end
    /// of the object.
    #[inline(never)]
    fn separator(&mut self, body: &[u8], at: usize, first: bool) -> Option<Separator> {
        let mut next = at;
        if first {
            next = skip_space(body, at + 1);
            if body.get(next) == Some(&b'}') {
                return Some(Separator::End(next + 1));
            }
        } else {
            next = skip_space(body, next);
            match body.get(next)? {
                b'}' => return Some(Separator::End(next + 1)),
                b',' => next = skip_space(body, next + 1),
                _ => return None,
            }
        }
        let (key, length, key_end) = plain_string(body, next)?;
        let key = body.get(key..key + length)?;
        let colon = skip_space(body, key_end);
        if body.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_space(body, colon + 1);
        let target = match self.plan.target(key) {
            KeyTarget::Ambiguous => return None,
            target => target,
        };
        self.order.learn(body.get(at..value)?, target);
        Some(Separator::Key(target, value))
    }

    /// Reads the value of a field, and returns the offset after it.
    #[inline]
    fn field(&mut self, index: usize, body: &[u8], at: usize) -> Option<usize> {
        let field = self.plan.fields().get(index)?;
        self.builder.check_new(index).ok()?;
        let read = self.builder.put(index, self.server, |out| values::read_field(field, body, at, out).ok_or(()));
        match read {
            Ok(end) => Some(end),
            Err(()) => self.unusual(index, field, body, at),
        }
    }

    /// Reads a value that is not in the usual form of its type.
    #[inline(never)]
    fn unusual(&mut self, index: usize, field: &Field, body: &[u8], at: usize) -> Option<usize> {
        let (token, end) = match body.get(at)? {
            b'"' => {
                let end = escape::decode(body, at, self.scratch)?;
                (JsonToken::Text(self.scratch), end)
            }
            first => {
                let end = skip_value(body, at, 1).ok()?;
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
        let workspace = &mut *self.workspace;
        self.builder.put(index, self.server, |out| values::write_field(field, token, workspace, out)).ok()?;
        Some(end)
    }
}

/// What follows a value, or the opening brace, of an object.
enum Separator {
    /// A key: its target and the offset of its value.
    Key(KeyTarget, usize),
    /// The end of the object: the offset after it.
    End(usize),
}
