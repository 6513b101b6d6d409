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
use super::field_counts::FieldCounter;
use super::mapped::{Between, Mapped, read_between, skip};
use super::order::KeyOrder;
use super::repair::has_unpaired_surrogate;
use super::row::{RowBuilder, ServerCells};
use super::skip::{skip_space, skip_value};
use super::values::nested::InPlace;
use super::values::{self, JsonToken};
use crate::schema::{Field, KeyTarget, Plan, Unknown};

/// The parts of the encoder that the fast path uses, borrowed for one line.
pub(crate) struct Walk<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) order: &'a mut KeyOrder,
    pub(crate) builder: &'a mut RowBuilder,
    pub(crate) server: &'a ServerCells,
    pub(crate) scratch: &'a mut Vec<u8>,
    pub(crate) workspace: &'a mut InPlace,
    pub(crate) invalid_text: InvalidText,
    pub(crate) mapped: &'a mut Mapped,
    pub(crate) counter: &'a mut FieldCounter,
}

impl Walk<'_> {
    /// Encodes the line whose object begins at `at`. Returns the offset of its line feed, or the end of
    /// the body. On `None` the caller removes the unfinished row.
    #[inline]
    pub(crate) fn line(&mut self, body: &[u8], at: usize) -> Option<usize> {
        self.builder.begin(self.server);
        self.order.begin_line();
        self.counter.begin_line();
        self.mapped.collected.clear();
        let object = self.object(body, at);
        self.order.end_line();
        let end = skip_space(body, object?);
        if !matches!(body.get(end), None | Some(b'\n')) {
            return None;
        }
        if self.builder.lacks_fields(self.plan.fields()) {
            if self.plan.has_conditions() {
                self.conclude(body.get(at..object?)?)?;
            }
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
                KeyTarget::Node(number) => self.node(number, body, value, 1)?,
                target => {
                    let end = skip(body, value, 1)?;
                    if target != KeyTarget::Server {
                        match target {
                            KeyTarget::Counted(number) => self.counter.note(number, body.get(value..end)?),
                            _ => self.counter.note_other(),
                        }
                        if self.plan.unknown() != Unknown::Skip {
                            self.leave_of_line(body.get(at..value)?, body.get(value..end)?)?;
                        }
                    }
                    end
                }
            };
        }
    }

    /// Parses what follows `at` when no step matches: a key, which is looked up and learned, or the end
    /// of the object.
    #[inline(never)]
    fn separator(&mut self, body: &[u8], at: usize, first: bool) -> Option<Separator> {
        Some(match read_between(body, at, first)? {
            Between::End(end) => Separator::End(end),
            Between::Key(key, value) => {
                let target = match self.plan.target(key) {
                    KeyTarget::Ambiguous => return None,
                    KeyTarget::Unknown => self.counted("", key)?,
                    target => target,
                };
                self.order.learn(body.get(at..value)?, target);
                Separator::Key(target, value)
            }
        })
    }

    /// Reads the value of a field, and returns the offset after it.
    #[inline]
    pub(super) fn field(&mut self, index: usize, body: &[u8], at: usize) -> Option<usize> {
        let field = self.plan.fields().get(index)?;
        self.builder.check_new(index).ok()?;
        let read = self.builder.put(index, self.server, |out| values::read_field(field, body, at, out).ok_or(()));
        match read {
            Ok(end) => Some(end),
            Err(()) => self.unusual(index, field, body, at, (1, false)),
        }
    }

    /// Reads a value that is not in the usual form of its type. `level` objects are open around it; it is
    /// written `aside` if another one may replace it.
    #[inline(never)]
    pub(super) fn unusual(
        &mut self,
        index: usize,
        field: &Field,
        body: &[u8],
        at: usize,
        (level, aside): (usize, bool),
    ) -> Option<usize> {
        let (token, end) = match body.get(at)? {
            b'"' => {
                let end = escape::decode(body, at, self.scratch)?;
                (JsonToken::Text(self.scratch), end)
            }
            first => {
                let end = skip_value(body, at, level).ok()?;
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
        let workspace = &mut *self.workspace;
        let write = |out: &mut _| values::write_field(field, token, workspace, out);
        match aside {
            true => self.builder.put_aside(index, write).ok()?,
            false => self.builder.put(index, self.server, write).ok()?,
        }
        if let Some(unit) = values::guessed_unit(field, token) {
            self.counter.note_guess(index, unit);
        }
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
