//! The fast path of keys that a mapping names: paths into objects, columns with several sources, and fields
//! that are collected.
//!
//! An object that a path goes into is walked like the line, with a table of known keys of its own. A column with
//! several sources gets the one with the lowest rank, whatever their order in the line: which one that is, is
//! known when the line ends, and only then it is converted.

use std::ops::Range;

use super::InvalidText;
use super::found::Found;
use super::known::{KnownKeys, PLACES_OF_OTHERS_INSIDE};
use super::repair::has_unpaired_surrogate;
use super::values::{self, JsonToken};
use super::walk::Walk;
use crate::schema::{KeyTarget, Plan, Taker, Unknown};

/// What the fast path remembers of a mapping between keys and between lines.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// The number of the line under way.
    line: u64,
    /// By source: the last line that had it.
    sources: Vec<u64>,
    /// By field: the last line that had a value of it, and the value's rank.
    ranks: Vec<(u64, u16)>,
    /// By nested object: its known keys.
    known: Vec<KnownKeys>,
    /// The members of this line's object that no column takes, as JSON without the closing brace.
    collected: Vec<u8>,
}

impl Mapped {
    pub(crate) fn new(plan: &Plan) -> Self {
        let paths = plan.paths();
        let known = paths.objects().map(|keys| KnownKeys::new(keys.targets(), PLACES_OF_OTHERS_INSIDE));
        Self {
            line: 0,
            sources: vec![0; paths.sources],
            ranks: vec![(0, 0); plan.fields().len()],
            known: known.collect(),
            collected: Vec::new(),
        }
    }

    /// Begins a line.
    #[inline]
    pub(super) fn begin_line(&mut self) {
        self.line += 1;
        self.collected.clear();
    }
}

impl Walk<'_> {
    /// Takes a text without escapes or a bare value, whose grammar is checked, for another target than one
    /// field. Returns the offset after it.
    #[inline(never)]
    pub(super) fn other(&mut self, target: KeyTarget, value: Found, body: &[u8]) -> Option<usize> {
        let range = value.in_body();
        if let KeyTarget::Node(number) = target {
            let node = self.plan.paths().node(number)?;
            for taker in &node.takers {
                if self.claims(taker, body.get(range.start) == Some(&b'n'))? {
                    self.builder.replace(usize::from(taker.field), value);
                }
            }
            if node.takers.is_empty() && !node.is_taken {
                self.leave_path(&node.path, body.get(range.clone())?)?;
            }
        } else {
            self.leave(target, body, range.clone())?;
        }
        Some(range.end)
    }

    /// Takes an array, an object or a text with escapes for a node. Returns the offset after it.
    pub(super) fn node_aside(&mut self, number: u16, body: &[u8], at: usize) -> Option<usize> {
        let node = self.plan.paths().node(number)?;
        let mut end = None;
        for taker in &node.takers {
            end = Some(match self.claims(taker, false)? {
                true => self.convert(usize::from(taker.field), body, at)?,
                false => self.skip(body, at)?,
            });
        }
        let Some(inside) = node.inside.as_ref().filter(|_| body.get(at) == Some(&b'{')) else {
            if end.is_none() {
                end = self.skip(body, at);
                if !node.is_taken {
                    self.leave_path(&node.path, body.get(at..end?)?)?;
                }
            }
            return end;
        };
        let place = usize::from(inside.index);
        // No path comes back to an object, so its keys are not needed twice at once.
        let outer = (self.keys, self.path);
        std::mem::swap(self.known, self.mapped.known.get_mut(place)?);
        (self.keys, self.path) = (Some(inside), &node.path);
        self.inside.level += 1;
        let end = self.object(body, at);
        self.inside.level -= 1;
        (self.keys, self.path) = outer;
        std::mem::swap(self.known, self.mapped.known.get_mut(place)?);
        end
    }

    /// True if the column gets this value, as far as the line has come. A null counts as missing. `None` when the
    /// source comes twice, or if it matters whether it is null or missing.
    fn claims(&mut self, taker: &Taker, is_null: bool) -> Option<bool> {
        let index = usize::from(taker.field);
        let absent = &self.plan.fields().get(index)?.absent;
        let Mapped { line, sources, ranks, .. } = &mut *self.mapped;
        if std::mem::replace(sources.get_mut(usize::from(taker.source))?, *line) == *line {
            return None;
        }
        if is_null {
            return (absent.null == absent.missing).then_some(false);
        }
        let best = ranks.get_mut(index)?;
        let is_better = best.0 != *line || taker.rank < best.1;
        if is_better {
            *best = (*line, taker.rank);
        }
        Some(is_better)
    }

    /// Counts a field that no column takes, and collects it if a column does that. `None` when the line is
    /// rejected for it.
    #[inline]
    pub(super) fn leave(&mut self, target: KeyTarget, body: &[u8], value: Range<usize>) -> Option<()> {
        match target {
            KeyTarget::Counted(number) => self.inside.counter.note(number, body.get(value.clone())?),
            KeyTarget::Unknown => self.inside.counter.note_other(),
            KeyTarget::Server => return Some(()),
            KeyTarget::Ambiguous | KeyTarget::Field(_) | KeyTarget::Node(_) => return None,
        }
        if self.plan.unknown() == Unknown::Skip {
            return Some(());
        }
        // Without escapes the key is between the last two quotes before its value.
        let before = body.get(..value.start)?;
        let key_end = memchr::memrchr(b'"', before)?;
        let key_start = memchr::memrchr(b'"', before.get(..key_end)?)? + 1;
        let path = self.path;
        self.collect(path, before.get(key_start..key_end)?, body.get(value)?)
    }

    /// [`Walk::leave`] for what is no object, though a path goes on inside of it. A null is an object that is
    /// missing.
    fn leave_path(&mut self, path: &str, raw: &[u8]) -> Option<()> {
        if raw == b"null" {
            return Some(());
        }
        match self.inside.counter.target("", path.as_bytes()) {
            KeyTarget::Counted(number) => self.inside.counter.note(number, raw),
            _ => self.inside.counter.note_other(),
        }
        if self.plan.unknown() == Unknown::Skip { Some(()) } else { self.collect("", path.as_bytes(), raw) }
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
        self.inside.invalid_text == InvalidText::Replace && has_unpaired_surrogate(raw)
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
        let workspace = &mut *self.inside.workspace;
        let write = |out: &mut _| values::write_field(field, JsonToken::Nested(object), workspace, out);
        self.builder.put(usize::from(index), write).ok()
    }
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
