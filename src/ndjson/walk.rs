//! The quick way through a line: key by key as the learned order has it, each value read where it
//! stands.
//!
//! It never refuses a line. Where anything is not as it should be it answers `None`, and the line
//! is read again by [`super::general`], which decides. So it must only take lines that the
//! general way takes too, with the same bytes; it need not take all of them. What it does take,
//! beyond keys in the order that was learned, is keys in any other order, fields that no column
//! has, and values in unusual forms, because lines of that sort may be many.
//!
//! It works on the whole body, not on a line: no value and no separator that it accepts has a
//! line feed in it, so it finds the line's end by getting there, and nothing has to search for it
//! before.

use super::escape;
use super::order::KeyOrder;
use super::row::{RowBuilder, ServerCells};
use super::skip::{skip_scalar, skip_space, skip_value};
use super::values::text::plain_string;
use super::values::{self, JsonToken};
use crate::schema::{Field, KeyTarget, Plan};

/// What a line is read with.
pub(crate) struct Walk<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) order: &'a mut KeyOrder,
    pub(crate) builder: &'a mut RowBuilder,
    pub(crate) server: &'a ServerCells,
    pub(crate) scratch: &'a mut Vec<u8>,
}

impl Walk<'_> {
    /// Reads the object at `at` and the rest of its line into a row: the place of the line feed,
    /// or the body's end. On `None` an unfinished row is left to be taken back.
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
        self.builder.finish(self.plan.fields(), self.server);
        Some(end)
    }

    #[inline]
    fn object(&mut self, body: &[u8], at: usize) -> Option<usize> {
        let mut at = at;
        let mut first = true;
        loop {
            // A step is learned with what stands before its key. So the first key's has the brace in
            // it, which must not be taken for a comma, nor a comma for the brace.
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
                KeyTarget::Unknown => match skip_scalar(body, value) {
                    Some(end) => end,
                    None => skip_value(body, value, 1).ok()?,
                },
            };
        }
    }

    /// What stands before a value that was not foreseen, or before the object's end.
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
        let target = self.plan.target(key);
        self.order.learn(body.get(at..value)?, target);
        Some(Separator::Key(target, value))
    }

    /// Reads the value of a field: the place behind it.
    #[inline]
    fn field(&mut self, index: usize, body: &[u8], at: usize) -> Option<usize> {
        let field = self.plan.fields().get(index)?;
        self.builder.check_new(index).ok()?;
        let read = self.builder.put(index, self.server, |out| values::read(field, body, at, out).ok_or(()));
        match read {
            Ok(end) => Some(end),
            Err(()) => self.unusual(index, field, body, at),
        }
    }

    /// Reads a value that is not in its usual form.
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
                    b'{' | b'[' => (JsonToken::Nested(raw), end),
                    _ => (JsonToken::of_bare(raw), end),
                }
            }
        };
        self.builder.put(index, self.server, |out| values::write(field, token, out)).ok()?;
        Some(end)
    }
}

enum Separator {
    /// A key's field and the place of its value.
    Key(KeyTarget, usize),
    /// The place behind the object.
    End(usize),
}
