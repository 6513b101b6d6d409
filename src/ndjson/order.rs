//! The learned orders of keys.
//!
//! The lines of one client are alike: the same keys, in the same order, with the same white space. So
//! the encoder remembers the bytes before each value, from behind the comma to the value (`"device_id":`), as a *step*,
//! together with the field of the value. On the next line it only compares these bytes: the key is neither searched
//! for its end nor looked up. Several clients have several orders, so the steps of up to [`ORDERS_MAX`] orders are
//! kept.
//!
//! - A line is expected to have the order of the one before it, or the one that came behind that order lately. If a
//!   step does not match, the line may be of another order that was the same so far: those are tried at this
//!   place. Or the line may lack that field: the steps behind it are tried, and all steps are kept.
//! - If no step matches, the key is looked up. A line with keys that the order lacks has the same order with more
//!   fields: steps for them are inserted. If the order has its keys at other places, the line has another order, which
//!   is kept beside the others; the one that was followed least recently has to go. If only a few are at other places
//!   and the line lacks fields, the order was not known well enough, and is put right.
//! - Where many fields are missing, which step is next can't be guessed: several steps are compared without a branch
//!   for each ([`KeyOrder::is_sparse`]).
//! - A guess pays if it is right most of the time: a wrong one costs as much as some lookups, because the
//!   processor guessed as well. After [`MISSED_MAX`] points (two a line of an order that is not known, less one a line
//!   of a known one) nothing is guessed for [`PAUSE_LINES`] lines and, each time that it was in vain, for
//!   [`PAUSE_FACTOR`] times as many: lines of ever other orders cost one lookup per key and nothing else.

use super::format::Format;
use super::step::{HEAD_BYTES, Step, first_match};
use crate::schema::KeyTarget;

/// Orders that are kept.
const ORDERS_MAX: usize = 32;
/// Points for missed lines after which guessing pauses: more lines than there are orders.
const MISSED_MAX: u32 = 3 * ORDERS_MAX as u32;
/// Points that are left after a pause: as many orders may be learned until the next one.
const MISSED_AFTER_PAUSE: u32 = MISSED_MAX - 3 * ORDERS_MAX as u32 / 2;
/// Lines without guesses in the first pause, and in the longest.
const PAUSE_LINES: u32 = 100;
const PAUSE_LINES_MAX: u32 = 6400;
const PAUSE_FACTOR: u32 = 4;
/// An order is put right if at most one key of so many is at another place.
const CONFLICTS_OF: u32 = 4;
/// Points for orders that were put right, four for each, less one a line without a lookup, above which none is: two
/// orders that differ in little would be put right again and again.
const REPAIRS_MAX: u32 = 64;
/// A line is sparse if more than one key of so many did not match the next step.
const SKIPS_OF: u32 = 4;
/// Sparse lines, less others, after which several steps are compared at once.
const SPARSE_LINES: u32 = 8;
/// Steps of an order, beyond two per column: for keys of no column.
const STEPS_OF_UNKNOWN_MAX: usize = 112;
/// Steps of all orders, beyond eight per column.
const STEPS_OF_ALL_MAX: usize = 1024;

/// One order of keys.
#[derive(Debug, Default)]
struct Order {
    steps: Vec<Step>,
    /// The number of the line that was the last to turn to it.
    used: u64,
    /// The order that the next line is expected to have.
    successor: usize,
    /// True if the line behind the last one of this order had another one.
    is_doubtful: bool,
}

impl Order {
    /// Computes what the steps say of those before them.
    fn link(&mut self, formats: &[Format]) {
        let mut path = 0;
        for step in &mut self.steps {
            path = step.path_after(path);
            step.path = path;
        }
        let steps = self.steps.iter_mut().rev();
        steps.fold(u16::MAX, |lowest, step| step.decide(lowest, formats));
    }
}

/// The learned orders, and where in one of them the line is.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    /// One per field of the plan.
    formats: Vec<Format>,
    orders: Vec<Order>,
    /// The order that is followed.
    current: usize,
    /// The order of the line before this one.
    before: usize,
    /// The index of the next expected step in it.
    next: usize,
    /// Steps of an order, and of all.
    steps_max: usize,
    all_steps_max: usize,
    /// Keys of this line that were looked up.
    lookups: u32,
    /// Keys of this line that were not the next step's.
    skips: u32,
    /// Steps of the order, up to the last one that matched, that this line has none of.
    lacks: usize,
    /// The ranges of those.
    skipped: Vec<(usize, usize)>,
    /// The steps of this line so far, once a key was looked up.
    line: Vec<Step>,
    /// Keys that were looked up although the order that is followed has them, at another place.
    conflicts: u32,
    repairs: u32,
    /// Lines that turned to another order.
    turns: u64,
    /// Points for lines of orders that are not known.
    missed: u32,
    sparse_lines: u32,
    /// Remaining lines of a pause, and the length of the next one.
    pause: u32,
    next_pause: u32,
}

impl KeyOrder {
    /// No order yet, for a table with this many columns and fields of these formats.
    pub(super) fn new(columns: usize, formats: Vec<Format>) -> Self {
        Self {
            formats,
            steps_max: columns * 2 + STEPS_OF_UNKNOWN_MAX,
            all_steps_max: columns * 8 + STEPS_OF_ALL_MAX,
            next_pause: PAUSE_LINES,
            ..Self::default()
        }
    }

    /// Begins a line.
    #[inline]
    pub(crate) fn begin_line(&mut self) {
        if self.orders.len() > 1 && self.pause == 0 {
            self.expect_order();
        }
        self.next = 0;
        self.lookups = 0;
        self.skips = 0;
        self.lacks = 0;
        self.skipped.clear();
        self.line.clear();
        self.conflicts = 0;
    }

    /// Goes on to the order that came behind the one of the last line, twice in a row at least: clients may take turns.
    #[inline(never)]
    fn expect_order(&mut self) {
        let last = self.current;
        if let Some(before) = self.orders.get_mut(self.before) {
            let is_expected = before.successor == last;
            if !is_expected && before.is_doubtful {
                before.successor = last;
            }
            before.is_doubtful = !is_expected && !before.is_doubtful;
        }
        self.before = last;
        let expected = self.orders.get(last).map(|order| order.successor).filter(|order| *order < self.orders.len());
        self.current = expected.unwrap_or(last);
        if self.current != last {
            self.note_use();
        }
    }

    /// Notes that the line turned to the current order.
    fn note_use(&mut self) {
        self.turns += 1;
        if let Some(order) = self.orders.get_mut(self.current) {
            order.used = self.turns;
        }
    }

    /// The steps that are expected next, in their order.
    #[inline(always)]
    pub(super) fn expected(&self) -> &[Step] {
        if self.pause > 0 {
            return &[];
        }
        self.orders.get(self.current).and_then(|order| order.steps.get(self.next..)).unwrap_or_default()
    }

    /// True if lines lack many of the fields of their order.
    #[inline(always)]
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse_lines >= SPARSE_LINES
    }

    /// True while nothing is guessed.
    #[inline(always)]
    pub(super) fn is_pausing(&self) -> bool {
        self.pause > 0
    }

    /// True if a key of this line was looked up.
    #[inline(always)]
    pub(super) fn is_lost(&self) -> bool {
        self.lookups > 0
    }

    /// True if no step of this line has matched.
    #[inline(always)]
    pub(super) fn is_at_start(&self) -> bool {
        self.next == 0
    }

    /// Goes on behind so many of the expected steps, each of which has matched.
    #[inline(always)]
    pub(super) fn matched(&mut self, steps: usize) {
        if self.lookups > 0 {
            self.note_line(steps);
        }
        self.next += steps;
    }

    /// Goes on behind the last of so many expected steps; only that one has matched.
    #[inline(always)]
    pub(super) fn skipped_to(&mut self, step: usize) {
        // Without a branch: where lines lack fields at random, none could be guessed.
        self.skips += u32::from(step > 0);
        self.lacks += step;
        self.skipped.push((self.next, self.next + step));
        self.next += step;
        self.matched(1);
    }

    #[inline(never)]
    fn note_line(&mut self, steps: usize) {
        let order = self.orders.get(self.current).map(|order| order.steps.as_slice()).unwrap_or_default();
        self.line.extend_from_slice(order.get(self.next..self.next + steps).unwrap_or_default());
    }

    /// The target of the key that `head` begins with, and the length of what is before its value, if a step
    /// matches. `head` is what follows the comma or brace.
    #[inline(always)]
    pub(crate) fn guess(&mut self, head: &[u8; HEAD_BYTES]) -> Option<(KeyTarget, usize)> {
        if self.pause > 0 {
            return None;
        }
        if let Some(step) = self.expected().first()
            && step.matches(head)
        {
            let found = (step.target(), step.length());
            self.matched(1);
            return Some(found);
        }
        if self.is_sparse() {
            return self.guess_ahead(head).or_else(|| self.turn(head).then(|| self.guess_ahead(head))?);
        }
        self.guess_ahead(head)
    }

    /// The same out of all expected steps.
    #[inline(never)]
    fn guess_ahead(&mut self, head: &[u8; HEAD_BYTES]) -> Option<(KeyTarget, usize)> {
        // A line that contradicts its order so often is of another one, and would be so with each further key.
        let steps = self.orders.get(self.current).map_or(0, |order| order.steps.len());
        if (self.conflicts * CONFLICTS_OF) as usize > steps {
            return None;
        }
        let expected = self.expected();
        let at = first_match(expected, head.first_chunk())?;
        let step = expected.get(at).filter(|step| step.matches(head))?;
        let found = (step.target(), step.length());
        self.skipped_to(at);
        Some(found)
    }

    /// Turns to the order, of those that were the same so far and go on with this key, that was followed last. Where lines lack many
    /// fields, [`KeyOrder::guess`] does: others than the one that is followed know less of what comes.
    #[inline(never)]
    pub(super) fn turn(&mut self, head: &[u8; HEAD_BYTES]) -> bool {
        if self.lookups > 0 || self.skips > 0 || self.pause > 0 {
            return false;
        }
        let path = match self.next.checked_sub(1) {
            None => None,
            Some(last) => self.orders.get(self.current).and_then(|order| order.steps.get(last)).map(|step| step.path),
        };
        let goes_on = |order: &Order| {
            let last = self.next.checked_sub(1).and_then(|last| order.steps.get(last)).map(|step| step.path);
            order.steps.get(self.next).is_some_and(|step| step.matches(head)) && last == path
        };
        let orders = self.orders.iter().enumerate().filter(|(_, order)| goes_on(order));
        let Some((found, _)) = orders.max_by_key(|(_, order)| order.used) else { return false };
        self.current = found;
        self.note_use();
        true
    }

    /// Learns a key that was looked up; `spelling` is what [`KeyOrder::guess`] was given, up to the value.
    #[inline(always)]
    pub(crate) fn learn(&mut self, spelling: &[u8], target: KeyTarget) {
        // What is not counted by name now may be later.
        if self.pause == 0 && target != KeyTarget::Unknown {
            self.learn_step(spelling, target);
        }
    }

    #[inline(never)]
    fn learn_step(&mut self, spelling: &[u8], target: KeyTarget) {
        let order = self.orders.get(self.current).map(|order| order.steps.as_slice()).unwrap_or_default();
        if self.lookups == 0 {
            let is_skipped = |at: &usize| self.skipped.iter().any(|(from, to)| (from..to).contains(&at));
            let of_line = order.iter().take(self.next).enumerate().filter(|(at, _)| !is_skipped(at));
            self.line.extend(of_line.map(|(_, step)| step.clone()));
        }
        self.lookups += 1;
        if self.line.len() < self.steps_max
            && let Some(step) = Step::new(spelling, target)
        {
            self.conflicts += u32::from(order.iter().any(|known| known.is_spelled_as(&step)));
            self.line.push(step);
        }
    }

    /// Ends a line, accepted or not.
    #[inline]
    pub(crate) fn end_line(&mut self) {
        let is_quiet = self.missed | self.sparse_lines | self.repairs == 0;
        if self.skips | self.lookups | self.pause == 0 && is_quiet {
            return;
        }
        self.end_other_line();
    }

    #[inline(never)]
    fn end_other_line(&mut self) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let keys = self.lookups + (self.next - self.lacks) as u32;
        let is_known = self.lookups == 0;
        let is_longer = !is_known && self.conflicts == 0 && self.next > 0;
        let is_mistaken = self.conflicts > 0
            && self.lacks > self.conflicts as usize
            && self.conflicts * CONFLICTS_OF <= keys
            && self.repairs < REPAIRS_MAX;
        if !(is_known || is_longer || is_mistaken) {
            self.sparse_lines = self.sparse_lines.saturating_sub(1);
            return self.end_unknown_line();
        }
        let is_sparse = self.skips * SKIPS_OF > keys;
        let sparse_lines = if is_sparse { self.sparse_lines + 1 } else { self.sparse_lines.saturating_sub(1) };
        self.sparse_lines = sparse_lines.min(2 * SPARSE_LINES);
        self.missed = self.missed.saturating_sub(1);
        if self.missed == 0 {
            self.next_pause = PAUSE_LINES;
        }
        if is_known {
            self.repairs = self.repairs.saturating_sub(1);
            return;
        }
        self.repairs += if is_mistaken { 4 } else { 0 };
        self.merge_line();
    }

    /// Ends a line of an order that is not known.
    fn end_unknown_line(&mut self) {
        self.missed += 2;
        if self.missed >= MISSED_MAX {
            self.missed = MISSED_AFTER_PAUSE;
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * PAUSE_FACTOR).min(PAUSE_LINES_MAX);
            return;
        }
        self.keep_line();
    }

    /// Adds the fields of this line to the order that is followed, which has the order of the line then. A step that
    /// the line lacks stays behind the one that it was behind.
    fn merge_line(&mut self) {
        let Some(order) = self.orders.get_mut(self.current) else { return };
        let mut merged = std::mem::take(&mut self.line);
        let mut behind = 0;
        for step in order.steps.drain(..) {
            match merged.iter().position(|known| known.is_spelled_as(&step)) {
                Some(at) => behind = at + 1,
                None => {
                    merged.insert(behind.min(merged.len()), step);
                    behind += 1;
                }
            }
        }
        // An order that has grown so long is none.
        if merged.len() <= self.steps_max {
            order.steps = merged;
        }
        order.link(&self.formats);
        self.make_room(0);
    }

    /// Keeps the order of this line, and follows it.
    fn keep_line(&mut self) {
        if self.line.is_empty() || self.line.len() >= self.steps_max {
            return;
        }
        self.make_room(self.line.len());
        self.turns += 1;
        self.current = self.orders.len();
        let steps = std::mem::take(&mut self.line);
        let mut order = Order { steps, used: self.turns, successor: self.current, is_doubtful: false };
        order.link(&self.formats);
        self.orders.push(order);
    }

    /// Forgets orders until there is room for one more with so many steps.
    fn make_room(&mut self, steps: usize) {
        let orders_max = ORDERS_MAX - usize::from(steps > 0);
        while self.orders.len() > orders_max
            || self.orders.iter().map(|order| order.steps.len()).sum::<usize>() + steps > self.all_steps_max
        {
            let others = self.orders.iter().enumerate().filter(|(at, _)| steps > 0 || *at != self.current);
            let Some((oldest, _)) = others.min_by_key(|(_, order)| order.used) else { return };
            self.orders.remove(oldest);
            // What was expected behind the others is found out again.
            if self.current > oldest {
                self.current -= 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/order.rs"]
mod tests;
