//! The values behind guessed keys: the loop in which a usual line is read.
//!
//! For each step of the learned order it looks at the body once: a comma, a key, and the first bytes of a value. What
//! is done with a value is written in the step, so that nothing has to be looked up for it. If the field is the next
//! one of the row, or the line lacks those before it, its value is converted to the end of the rows at once; of any other
//! field the place is remembered, and it is converted when the line ends ([`super::row`]).

use super::escape;
use super::format::Reader;
use super::found::Found;
use super::row::{RowBuilder, ServerCells};
use super::scan::{BLOCK, ends};
use super::skip::skip_scalar;
use super::step::{COMPARED_BYTES, HEAD_BYTES, Step, first_match};
use super::values::number::short_integer;
use super::values::{self, time};
use super::walk::{Inside, Walk};
use crate::schema::{Plan, Unknown, Zone};

/// Bytes of a value that are looked at with its key: a quote, and the first bytes of a text.
const VALUE_BYTES: usize = 1 + BLOCK;
/// Bytes of the body that are looked at for a step.
const WINDOW_BYTES: usize = 1 + COMPARED_BYTES + VALUE_BYTES;

/// The parts of a walk that take values.
struct Takers<'t, 'i> {
    plan: &'t Plan,
    builder: &'t mut RowBuilder,
    server: &'t ServerCells,
    inside: &'t mut Inside<'i>,
}

impl Walk<'_> {
    /// Reads values as long as the learned steps match and the values are in their usual forms; those of fields that
    /// no column takes are only counted. Returns the offset of what follows the last one.
    #[inline(always)]
    pub(super) fn guessed(&mut self, body: &[u8], at: usize, before: u8) -> usize {
        if self.order.is_pausing() {
            return at;
        }
        if self.order.is_sparse() {
            return self.guessed_sparse(body, at, before);
        }
        if self.order.is_lost() {
            return self.guessed_again(body, at, before);
        }
        let at = self.follow(body, at, before);
        if body.get(at) == Some(&b'}') { at } else { self.guessed_elsewhere(body, at, before) }
    }

    /// The same behind a key that was looked up: the next key may be guessed, or none of the line's others.
    #[inline(never)]
    fn guessed_again(&mut self, body: &[u8], at: usize, before: u8) -> usize {
        match (self.order.expected(), head_behind(body, at, before)) {
            ([step, ..], Some(head)) if step.matches(head) => self.follow(body, at, before),
            _ => at,
        }
    }

    /// Goes on in another order, as long as there is one.
    #[inline(never)]
    fn guessed_elsewhere(&mut self, body: &[u8], at: usize, before: u8) -> usize {
        let mut at = at;
        loop {
            let before = if self.order.is_at_start() { before } else { b',' };
            match head_behind(body, at, before) {
                Some(head) if self.order.turn(head) => {}
                _ => return at,
            }
            let end = self.follow(body, at, before);
            if end == at {
                return at;
            }
            at = end;
        }
    }

    #[inline(always)]
    fn follow(&mut self, body: &[u8], at: usize, before: u8) -> usize {
        let (plan, builder, server, inside) = (self.plan, &mut *self.builder, self.server, &mut self.inside);
        let (matched, at) = Takers { plan, builder, server, inside }.follow(self.order.expected(), body, at, before);
        self.order.matched(matched);
        at
    }

    /// The same where lines lack many fields.
    #[inline(never)]
    fn guessed_sparse(&mut self, body: &[u8], at: usize, before: u8) -> usize {
        let (mut at, mut before) = (at, before);
        let (plan, builder, server, inside) = (self.plan, &mut *self.builder, self.server, &mut self.inside);
        let mut takers = Takers { plan, builder, server, inside };
        while let Some(window) = window_behind(body, at, before) {
            let expected = self.order.expected();
            let Some(number) = first_match(expected, window.first_chunk()) else { break };
            let Some(step) = expected.get(number) else { break };
            let Some(end) = takers.take::<true>(step, window, body, at + 1) else { break };
            self.order.skipped_to(number);
            (at, before) = (end, b',');
        }
        at
    }
}

impl Takers<'_, '_> {
    /// Follows the steps from the byte `before` at `at` on. Returns how many of them matched, and the offset of what
    /// follows the last one's value.
    #[inline(never)]
    fn follow(&mut self, steps: &[Step], body: &[u8], at: usize, before: u8) -> (usize, usize) {
        let (mut at, mut before, mut matched) = (at, before, 0);
        for step in steps {
            let Some(window) = window_behind(body, at, before) else { break };
            if !window.first_chunk().is_some_and(|head| step.begins(head)) {
                break;
            }
            let Some(end) = self.take::<false>(step, window, body, at + 1) else { break };
            (at, before) = (end, b',');
            matched += 1;
        }
        (matched, at)
    }

    /// Takes the value behind a step whose first bytes `window` has, which is what the body has at `at`. Returns the offset
    /// after the value. `SPARSE` says that fields are missing often.
    #[inline(always)]
    fn take<const SPARSE: bool>(
        &mut self,
        step: &Step,
        window: &[u8; WINDOW_BYTES - 1],
        body: &[u8],
        at: usize,
    ) -> Option<usize> {
        // Behind a long spelling the window has not enough bytes.
        let value = match window.get(step.length()..).and_then(<[u8]>::first_chunk) {
            Some(value) => value,
            None => &long_value(step, body, at)?,
        };
        let at = at + step.length();
        let field = usize::from(step.field);
        let usual = match &step.reader {
            Reader::Leave => return None,
            Reader::Count(number) => return self.count(*number, value, body, at),
            _ if !self.builder.goes_on_with::<SPARSE>(field, step.is_lowest, self.server) => {
                let found = Found::guessed(value, body, at)?;
                self.builder.set(field, found).ok()?;
                return Some(found.in_body().end);
            }
            Reader::Text => self.put_text(value, body, at),
            Reader::Integer { width, max } => self.put_integer(*width, *max, value, at),
            Reader::DateTime(zone) => self.put_time(*zone, value, at),
            Reader::Any => None,
        };
        let end = match usual {
            Some(end) => end,
            None => self.put_any(field, body, at)?,
        };
        self.builder.next = field + 1;
        if step.has_run {
            self.server.put_run(field + 1, &mut self.builder.rows);
        }
        Some(end)
    }

    /// Counts a field that no column takes.
    #[inline(never)]
    fn count(&mut self, number: u16, value: &[u8; VALUE_BYTES], body: &[u8], at: usize) -> Option<usize> {
        if self.plan.unknown() != Unknown::Skip {
            return None;
        }
        let end = match value {
            [b'{' | b'[', ..] => return None,
            [b'"', ..] => Found::guessed(value, body, at)?.in_body().end,
            _ => skip_scalar(body, at)?,
        };
        self.inside.counter.note(number, body.get(at..end)?);
        Some(end)
    }

    /// Puts a text that has its first escape, if any, not far from its begin, which is `value`. `at` is the offset of that.
    #[inline(always)]
    fn put_text(&mut self, value: &[u8; VALUE_BYTES], body: &[u8], at: usize) -> Option<usize> {
        let [b'"', block @ ..] = value else { return None };
        let length = ends(block).trailing_zeros() as usize;
        match block.get(length) {
            Some(b'"') => {
                self.builder.rows.put_short_string(block, length);
                Some(at + length + 2)
            }
            Some(b'\\') => self.put_escaped_text(body, at),
            Some(_) => None,
            None => self.put_longer_text(body, at + 1),
        }
    }

    #[inline(never)]
    fn put_escaped_text(&mut self, body: &[u8], at: usize) -> Option<usize> {
        let end = escape::decode(body, at, self.inside.scratch)?;
        self.builder.rows.put_string(self.inside.scratch);
        Some(end)
    }

    /// The same where the first block has no end.
    #[inline(always)]
    fn put_longer_text(&mut self, body: &[u8], start: usize) -> Option<usize> {
        let second = body.get(start + BLOCK..)?.first_chunk()?;
        let length = ends(second).trailing_zeros() as usize;
        if second.get(length) != Some(&b'"') {
            return None;
        }
        self.builder.rows.put_string_of(body, start, BLOCK + length);
        Some(start + BLOCK + length + 1)
    }

    #[inline(always)]
    fn put_time(&mut self, zone: Zone, value: &[u8; VALUE_BYTES], at: usize) -> Option<usize> {
        let (seconds, length) = time::read_seconds(&mut self.builder.last_day, zone, value.first_chunk()?)?;
        self.builder.rows.put(seconds.to_le_bytes());
        Some(at + length)
    }

    #[inline(always)]
    fn put_integer(&mut self, width: u8, max: u32, value: &[u8; VALUE_BYTES], at: usize) -> Option<usize> {
        let (integer, digits) = short_integer(u64::from_le_bytes(*value.first_chunk()?))?;
        let is_whole = matches!(value.get(digits), Some(b',' | b'}'));
        if !is_whole || integer > u64::from(max) {
            return None;
        }
        self.builder.rows.put_integer(integer, width);
        Some(at + digits)
    }

    /// Puts a value in another form, or of another type.
    #[inline(never)]
    fn put_any(&mut self, field: usize, body: &[u8], at: usize) -> Option<usize> {
        let field = self.plan.fields().get(field)?;
        let rows = &mut self.builder.rows;
        let before = rows.len();
        if let Some(end) = values::read_any(field, body, at, rows) {
            return Some(end);
        }
        rows.truncate(before);
        let end = self.inside.read(field, body, at, rows);
        if end.is_none() {
            rows.truncate(before);
        }
        end
    }
}

/// What follows the byte `before` at `at`; `None` if another byte is there, and near the end of the body.
#[inline(always)]
fn window_behind(body: &[u8], at: usize, before: u8) -> Option<&[u8; WINDOW_BYTES - 1]> {
    let [first, window @ ..] = body.get(at..)?.first_chunk::<WINDOW_BYTES>()?;
    (*first == before).then_some(window)
}

/// The same, as much as is compared with a spelling.
#[inline(always)]
pub(super) fn head_behind(body: &[u8], at: usize, before: u8) -> Option<&[u8; HEAD_BYTES]> {
    let [first, head @ ..] = body.get(at..)?.first_chunk::<{ HEAD_BYTES + 1 }>()?;
    if *first == before { head.first_chunk() } else { None }
}

/// What is behind a step with a long spelling, if all of it is at `at`.
#[inline(never)]
fn long_value(step: &Step, body: &[u8], at: usize) -> Option<[u8; VALUE_BYTES]> {
    let head = body.get(at..)?.first_chunk()?;
    if !step.matches(head) {
        return None;
    }
    body.get(at + step.length()..)?.first_chunk().copied()
}
