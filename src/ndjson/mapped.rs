//! The fast path of keys that a mapping names: paths into objects, columns with several sources, and fields
//! that are collected.
//!
//! An object that a path goes into has a learned key order of its own, so its keys are guessed like those of the
//! line. A column with several sources gets the one with the lowest rank, whatever their order in the line: a
//! value whose better one may follow is written aside, where that one replaces it.

use super::InvalidText;
use super::order::KeyOrder;
use super::repair::has_unpaired_surrogate;
use super::skip::{skip_scalar, skip_space, skip_value};
use super::values::text::plain_string;
use super::values::{self, JsonToken};
use super::walk::Walk;
use crate::schema::{Inside, KeyTarget, Plan, Taker, Unknown};

/// What the fast path remembers of a mapping between keys and between lines.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// By source: the last row that had it.
    sources: Vec<u64>,
    /// By field: the last row that had a value of it, and the value's rank.
    ranks: Vec<(u64, u8)>,
    /// By nested object: the order of its keys.
    orders: Vec<KeyOrder>,
    /// The members of this line's object that no column takes, as JSON without braces.
    pub(super) collected: Vec<u8>,
}

impl Mapped {
    pub(crate) fn new(plan: &Plan) -> Self {
        let paths = plan.paths();
        let orders = (0..paths.objects).map(|_| KeyOrder::new(plan.columns().len()));
        Self {
            sources: vec![0; paths.sources],
            ranks: vec![(0, 0); plan.fields().len()],
            orders: orders.collect(),
            collected: Vec::new(),
        }
    }
}

/// What stands between two values, or behind the opening brace.
pub(super) enum Between<'a> {
    /// A key, and the offset of its value.
    Key(&'a [u8], usize),
    /// The end of the object: the offset after it.
    End(usize),
}

/// Parses what follows a value, or the brace at `at` if `first` is set, up to the next value.
pub(super) fn read_between(body: &[u8], at: usize, first: bool) -> Option<Between<'_>> {
    let mut next = at;
    if first {
        next = skip_space(body, at + 1);
        if body.get(next) == Some(&b'}') {
            return Some(Between::End(next + 1));
        }
    } else {
        next = skip_space(body, next);
        match body.get(next)? {
            b'}' => return Some(Between::End(next + 1)),
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
    Some(Between::Key(key, skip_space(body, colon + 1)))
}

impl Walk<'_> {
    /// Reads the value of a key that leads to a node; `level` objects are open around it. Returns the offset
    /// after the value.
    #[inline(never)]
    pub(super) fn node(&mut self, number: u16, body: &[u8], at: usize, level: usize) -> Option<usize> {
        let node = self.plan.paths().node(number)?;
        let mut end = None;
        for taker in &node.takers {
            end = Some(self.take(taker, body, at, level)?);
        }
        if let Some(inside) = &node.inside
            && body.get(at) == Some(&b'{')
        {
            return self.object_inside(inside, &node.path, body, at, level + 1);
        }
        if end.is_some() {
            return end;
        }
        // A path goes on inside of what is no object. A null is an object that is missing.
        let end = skip(body, at, level)?;
        let raw = body.get(at..end)?;
        if raw != b"null" {
            let target = self.counted("", node.path.as_bytes())?;
            self.leave(target, "", node.path.as_bytes(), raw)?;
        }
        Some(end)
    }

    /// Reads a value for one of the columns that want it.
    fn take(&mut self, taker: &Taker, body: &[u8], at: usize, level: usize) -> Option<usize> {
        let index = usize::from(taker.field);
        let field = self.plan.fields().get(index)?;
        let row = self.builder.row();
        let last = self.mapped.sources.get_mut(usize::from(taker.source))?;
        if std::mem::replace(last, row) == row {
            return None;
        }
        if body.get(at) == Some(&b'n') {
            // Without another source null differs from a missing field in such a column alone.
            return if field.absent.null == field.absent.missing { skip_scalar(body, at) } else { None };
        }
        let (of_row, rank) = self.mapped.ranks.get_mut(index)?;
        if *of_row == row {
            if *rank < taker.rank {
                return skip(body, at, level);
            }
            if self.builder.is_in_place(index) {
                return None;
            }
        }
        (*of_row, *rank) = (row, taker.rank);
        let read = |out: &mut _| values::read_mapped(field, body, at, out).ok_or(());
        let read = match taker.waits {
            true => self.builder.put_aside(index, read),
            false => self.builder.put(index, self.server, read),
        };
        match read {
            Ok(end) => Some(end),
            Err(()) => self.unusual(index, field, body, at, (level, taker.waits)),
        }
    }

    /// Reads the object at `at` that paths go into; `level` objects are open with it.
    fn object_inside(&mut self, inside: &Inside, path: &str, body: &[u8], at: usize, level: usize) -> Option<usize> {
        // The order is this object's while it is read: paths do not come back to an object.
        let place = usize::from(inside.index);
        let mut order = std::mem::take(self.mapped.orders.get_mut(place)?);
        order.begin_line();
        let end = self.members(inside, path, &mut order, body, at, level);
        order.end_line();
        *self.mapped.orders.get_mut(place)? = order;
        end
    }

    fn members(
        &mut self,
        inside: &Inside,
        path: &str,
        order: &mut KeyOrder,
        body: &[u8],
        at: usize,
        level: usize,
    ) -> Option<usize> {
        let (mut at, mut first) = (at, true);
        loop {
            if (body.get(at) == Some(&b'{')) != first {
                return None;
            }
            let (target, value) = match order.guess(body, at) {
                Some(hit) => hit,
                None => match read_between(body, at, first)? {
                    Between::End(end) => return Some(end),
                    Between::Key(key, value) => {
                        let target = match inside.target(key) {
                            KeyTarget::Unknown => self.counted(path, key)?,
                            KeyTarget::Ambiguous => return None,
                            target => target,
                        };
                        order.learn(body.get(at..value)?, target);
                        (target, value)
                    }
                },
            };
            first = false;
            at = match target {
                KeyTarget::Field(index) => self.field(usize::from(index), body, value)?,
                KeyTarget::Node(number) => self.node(number, body, value, level)?,
                target => {
                    let end = skip(body, value, level)?;
                    self.leave(target, path, key_of(body.get(at..value)?)?, body.get(value..end)?)?;
                    end
                }
            };
        }
    }

    /// The target of a key that no column has, with the number that it is counted by.
    #[cold]
    pub(super) fn counted(&mut self, path: &str, key: &[u8]) -> Option<KeyTarget> {
        let number = self.counter.number(path, std::str::from_utf8(key).ok()?);
        Some(number.map_or(KeyTarget::Unknown, KeyTarget::Counted))
    }

    /// Counts a field that no column takes, and collects it if a column does that. `key` is its key without
    /// quotes, inside of the object at `path`. `None` when the line is rejected for it.
    #[inline]
    fn leave(&mut self, target: KeyTarget, path: &str, key: &[u8], raw: &[u8]) -> Option<()> {
        match target {
            KeyTarget::Counted(number) => self.counter.note(number, raw),
            KeyTarget::Unknown => self.counter.note_other(),
            _ => return Some(()),
        }
        if self.plan.unknown() == Unknown::Skip { Some(()) } else { self.collect(path, key, raw) }
    }

    /// [`Walk::leave`] for a key of the line's own object; `between` is what stands before its value.
    #[inline(never)]
    pub(super) fn leave_of_line(&mut self, between: &[u8], raw: &[u8]) -> Option<()> {
        self.collect("", key_of(between)?, raw)
    }

    fn collect(&mut self, path: &str, key: &[u8], raw: &[u8]) -> Option<()> {
        if self.plan.unknown() == Unknown::Reject || self.is_to_be_repaired(raw) {
            return None;
        }
        push_member(&mut self.mapped.collected, path, key, raw);
        Some(())
    }

    /// True if invalid text is replaced, which the slow path alone does.
    fn is_to_be_repaired(&self, raw: &[u8]) -> bool {
        self.invalid_text == InvalidText::Replace && has_unpaired_surrogate(raw)
    }

    /// Writes the columns that take the line or what is left of it, and checks that no required one is missing.
    /// `None` when one is, or a column does not take what it gets.
    #[inline(never)]
    pub(super) fn conclude(&mut self, line: &[u8]) -> Option<()> {
        let lines = self.plan.lines();
        if !lines.is_empty() && self.is_to_be_repaired(line) {
            return None;
        }
        for index in lines {
            self.put_object(*index, line)?;
        }
        if let Unknown::Collect(index) = self.plan.unknown() {
            let mut collected = std::mem::take(&mut self.mapped.collected);
            close_members(&mut collected);
            let put = self.put_object(index, &collected);
            self.mapped.collected = collected;
            put?;
        }
        let is_there = |index: &u16| self.builder.check_new(usize::from(*index)).is_err();
        self.plan.required().iter().all(is_there).then_some(())
    }

    fn put_object(&mut self, index: u16, object: &[u8]) -> Option<()> {
        let field = self.plan.fields().get(usize::from(index))?;
        let workspace = &mut *self.workspace;
        let write = |out: &mut _| values::write_field(field, JsonToken::Nested(object), workspace, out);
        self.builder.put(usize::from(index), self.server, write).ok()
    }
}

/// The offset after a value around which `level` objects are open.
#[inline]
pub(super) fn skip(body: &[u8], at: usize, level: usize) -> Option<usize> {
    match skip_scalar(body, at) {
        Some(end) => Some(end),
        None => skip_value(body, at, level).ok(),
    }
}

/// The key in what stands before a value, without its quotes.
fn key_of(between: &[u8]) -> Option<&[u8]> {
    between.get(memchr::memchr(b'"', between)? + 1..memchr::memrchr(b'"', between)?)
}

/// Adds a member to an object that [`close_members`] ends. `key` is as in the line, without quotes.
pub(super) fn push_member(object: &mut Vec<u8>, path: &str, key: &[u8], raw: &[u8]) {
    object.extend_from_slice(if object.is_empty() { b"{\"" } else { b",\"" });
    if !path.is_empty() {
        push_escaped(object, path);
        object.push(b'.');
    }
    object.extend_from_slice(key);
    object.extend_from_slice(b"\":");
    object.extend_from_slice(raw);
}

/// Ends the object, which is empty if it has no members.
pub(super) fn close_members(object: &mut Vec<u8>) {
    object.extend_from_slice(if object.is_empty() { b"{}" } else { b"}" });
}

/// Appends a text as it stands between the quotes of a JSON string.
pub(super) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && !matches!(byte, b'"' | b'\\')) {
        return out.extend_from_slice(text.as_bytes());
    }
    let escaped = sonic_rs::to_string(text).unwrap_or_default();
    out.extend_from_slice(escaped.trim_matches('"').as_bytes());
}
