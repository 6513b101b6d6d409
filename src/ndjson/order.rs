//! The learned order of keys.
//!
//! The lines of one client are alike: the same keys, in the same order, with the same white space. So
//! the encoder remembers the bytes between two values, from the end of one to the start of the next
//! (`,"device_id":`), as a *step*, together with the field of the next value. On the next line it
//! only compares these bytes: the key is neither searched for its end nor looked up.
//!
//! - If a step does not match, the line may lack that field: the next [`STEPS_AHEAD`] steps are tried,
//!   and all steps are kept.
//! - If no step matches, the key is looked up, and a step for it is *inserted* at this position. So
//!   two kinds of lines in turn soon have steps for both.
//! - A line with more than [`LOOKUPS_IN_ORDER`] lookups has another order, and the steps that it
//!   inserted are removed. After [`OTHER_LINES_MAX`] such lines in a row all steps are forgotten,
//!   and the next line is learned from its start.
//! - A guess pays if it is right most of the time: a wrong one costs as much as some lookups, because the
//!   processor guessed as well. After [`MISSED_LINES_MAX`] lines in a row of which many keys did not match the
//!   next step, nothing is guessed for [`PAUSE_LINES`] lines: lines of many orders cost one lookup per key and
//!   nothing else.

use crate::schema::KeyTarget;

/// Steps that are tried after one that does not match.
const STEPS_AHEAD: usize = 3;
/// The largest number of lookups in a line that still follows the learned order.
const LOOKUPS_IN_ORDER: u32 = 2;
/// Lines of another order in a row after which the steps are forgotten.
const OTHER_LINES_MAX: u32 = 2;
/// A line is missed if more than one key of so many steps did not match the next one.
const MISSES_OF: u32 = 4;
/// Missed lines in a row after which guessing pauses.
const MISSED_LINES_MAX: u32 = 4;
/// Lines without guesses in a pause.
const PAUSE_LINES: u32 = 100;
/// Steps beyond two per column: for keys of no column.
const STEPS_OF_UNKNOWN_MAX: usize = 112;
/// Bytes of a step's spelling; a key with a longer spelling is always looked up.
const SPELLING_BYTES_MAX: usize = 64;
/// Bytes of a spelling that are compared at once.
const COMPARED_BYTES: usize = 32;
/// Bytes of a body that are compared with a spelling.
pub(crate) const HEAD_BYTES: usize = 64;

/// The expected bytes between two values, and the field of the second one.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The bytes before the value, from the end of the former value: a comma or the opening brace,
    /// the key, the colon, and white space.
    spelling: [u8; SPELLING_BYTES_MAX],
    /// 0xff for every byte among the first [`COMPARED_BYTES`] of the spelling, 0 after its end.
    mask: [u8; COMPARED_BYTES],
    /// Bytes of the spelling.
    length: usize,
    target: KeyTarget,
}

impl Step {
    fn new(spelling: &[u8], target: KeyTarget) -> Option<Self> {
        let mut step =
            Self { spelling: [0; SPELLING_BYTES_MAX], mask: [0; COMPARED_BYTES], length: spelling.len(), target };
        step.spelling.get_mut(..spelling.len())?.copy_from_slice(spelling);
        for byte in step.mask.iter_mut().take(spelling.len()) {
            *byte = 0xff;
        }
        Some(step)
    }

    /// True when `head` begins with the spelling. Compares 32 bytes at once, without a branch on the length.
    /// No spelling contains a line feed, so a match never crosses the end of a line.
    #[inline(always)]
    pub(super) fn matches(&self, head: &[u8; HEAD_BYTES]) -> bool {
        let mut difference = 0;
        for ((byte, expected), mask) in head.iter().zip(&self.spelling).zip(&self.mask) {
            difference |= (byte ^ expected) & mask;
        }
        difference == 0 && (self.length <= COMPARED_BYTES || self.matches_long(head))
    }

    /// The length of the spelling.
    #[inline(always)]
    pub(super) fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    pub(super) fn target(&self) -> KeyTarget {
        self.target
    }

    #[inline(never)]
    fn matches_long(&self, head: &[u8; HEAD_BYTES]) -> bool {
        self.spelling.get(..self.length).is_some_and(|spelling| head.starts_with(spelling))
    }
}

/// The learned key order: the steps of recent lines, and how often they missed.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    steps: Vec<Step>,
    steps_max: usize,
    /// The index of the next expected step in this line.
    next: usize,
    /// Keys of this line that were looked up.
    lookups: u32,
    /// Keys of this line that were not the next step's.
    missed: u32,
    /// The indexes of the steps that this line has inserted, ascending.
    inserted: Vec<usize>,
    /// True while the first line of an order is learned: its lookups are not misses.
    fresh: bool,
    /// The number of missed lines in a row.
    missed_lines: u32,
    /// The number of lines in a row of another order.
    other_lines: u32,
    /// Remaining lines of a pause.
    pause: u32,
}

impl KeyOrder {
    /// An empty order for a table with this many columns.
    pub(crate) fn new(columns: usize) -> Self {
        Self { steps_max: columns * 2 + STEPS_OF_UNKNOWN_MAX, ..Self::default() }
    }

    /// Begins a line.
    #[inline]
    pub(crate) fn begin_line(&mut self) {
        self.next = 0;
        self.lookups = 0;
        self.missed = 0;
        self.inserted.clear();
        self.fresh = self.steps.is_empty();
    }

    /// The steps that are expected next, in their order.
    #[inline(always)]
    pub(super) fn expected(&self) -> &[Step] {
        self.steps.get(self.next..).unwrap_or_default()
    }

    /// Goes on behind so many of the expected steps.
    #[inline(always)]
    pub(super) fn matched(&mut self, steps: usize) {
        self.next += steps;
    }

    /// The target of the key that `head` begins with, and the length of what is before its value, if a step
    /// matches.
    #[inline(always)]
    pub(crate) fn guess(&mut self, head: &[u8; HEAD_BYTES]) -> Option<(KeyTarget, usize)> {
        let step = self.steps.get(self.next)?;
        if step.matches(head) {
            self.next += 1;
            return Some((step.target, step.length));
        }
        self.guess_ahead(head)
    }

    #[inline(never)]
    fn guess_ahead(&mut self, head: &[u8; HEAD_BYTES]) -> Option<(KeyTarget, usize)> {
        self.missed += 1;
        let ahead = self.steps.iter().enumerate().skip(self.next + 1);
        for (index, step) in ahead.take(STEPS_AHEAD) {
            if step.matches(head) {
                self.next = index + 1;
                return Some((step.target, step.length));
            }
        }
        None
    }

    /// Learns a key that was looked up; `spelling` is everything between the former value and its value.
    #[inline(always)]
    pub(crate) fn learn(&mut self, spelling: &[u8], target: KeyTarget) {
        // What is not counted by name now may be later.
        if self.pause == 0 && target != KeyTarget::Unknown {
            self.learn_step(spelling, target);
        }
    }

    #[inline(never)]
    fn learn_step(&mut self, spelling: &[u8], target: KeyTarget) {
        self.lookups += 1;
        if self.steps.len() >= self.steps_max {
            return;
        }
        if self.is_of_another_order() {
            self.forget_line();
            return;
        }
        if let Some(step) = Step::new(spelling, target) {
            let index = self.next.min(self.steps.len());
            self.steps.insert(index, step);
            self.next = index + 1;
            self.inserted.push(index);
        }
    }

    fn is_of_another_order(&self) -> bool {
        !self.fresh && self.lookups > LOOKUPS_IN_ORDER
    }

    /// Removes the steps that this line has inserted. All of them are before `next`.
    fn forget_line(&mut self) {
        for index in self.inserted.drain(..).rev() {
            self.steps.remove(index);
            self.next -= 1;
        }
    }

    /// Ends a line, accepted or not.
    #[inline]
    pub(crate) fn end_line(&mut self) {
        if self.missed == 0 && self.lookups == 0 && self.pause == 0 {
            self.missed_lines = 0;
            self.other_lines = 0;
            return;
        }
        self.end_missed_line();
    }

    #[inline(never)]
    fn end_missed_line(&mut self) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        if self.fresh {
            return;
        }
        let steps = self.lookups.max(self.next as u32);
        self.missed_lines = if self.missed * MISSES_OF > steps { self.missed_lines + 1 } else { 0 };
        if self.missed_lines >= MISSED_LINES_MAX {
            self.steps.clear();
            self.missed_lines = 0;
            self.pause = PAUSE_LINES;
            self.other_lines = 0;
            return;
        }
        self.other_lines = if self.is_of_another_order() { self.other_lines + 1 } else { 0 };
        if self.other_lines >= OTHER_LINES_MAX || self.steps.len() >= self.steps_max {
            self.steps.clear();
            self.other_lines = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes a line with these keys through the order, and returns the number of guessed keys.
    fn line(order: &mut KeyOrder, keys: &[&str]) -> usize {
        order.begin_line();
        let mut guessed = 0;
        for (index, key) in keys.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let spelling = format!("{separator}\"{key}\":");
            let body = format!("{spelling}1{:64}", "");
            let target = KeyTarget::Field(key.len() as u16);
            match order.guess(body.as_bytes().first_chunk().unwrap()) {
                Some(hit) => {
                    assert_eq!(hit, (target, spelling.len()));
                    guessed += 1;
                }
                None => order.learn(spelling.as_bytes(), target),
            }
        }
        order.end_line();
        guessed
    }

    const LONG: &str = "a_key_that_is_longer_than_what_is_compared_at_once";
    const TOO_LONG: &str = "a_key_that_is_longer_than_what_is_remembered_at_all_and_so_is_looked_up";

    #[test]
    fn every_key_of_the_second_line_is_guessed() {
        let mut order = KeyOrder::new(8);
        assert_eq!(line(&mut order, &["a", "bb", LONG, "dddd"]), 0);
        assert_eq!(line(&mut order, &["a", "bb", LONG, "dddd"]), 4);
        assert_eq!(line(&mut order, &["a", "dddd"]), 2, "missing fields are stepped over");
        assert_eq!(line(&mut order, &["a", "bb"]), 2, "and not forgotten for it");
        assert_eq!(line(&mut order, &["a", "eeeee", "bb", LONG, "dddd"]), 4);
        assert_eq!(line(&mut order, &["a", "eeeee", "bb", LONG, "dddd"]), 5);
        assert_eq!(line(&mut order, &["a", "bb", LONG, "dddd"]), 4);
    }

    #[test]
    fn another_order_is_learned() {
        let mut order = KeyOrder::new(8);
        line(&mut order, &["a", "bb", "ccc", "dddd"]);
        for _ in 0..=OTHER_LINES_MAX {
            line(&mut order, &["dddd", "ccc", "bb", "a"]);
        }
        assert_eq!(line(&mut order, &["dddd", "ccc", "bb", "a"]), 4);
    }

    #[test]
    fn an_occasional_line_of_another_order_is_not_learned() {
        let mut order = KeyOrder::new(8);
        line(&mut order, &["a", "bb", "ccc", "dddd"]);
        for _ in 0..100 {
            line(&mut order, &["dddd", "ccc", "bb", "a", "eeeee", "ffffff"]);
            assert_eq!(order.steps.len(), 4);
            assert_eq!(line(&mut order, &["a", "bb", "ccc", "dddd"]), 4);
        }
    }

    #[test]
    fn without_a_common_order_guessing_pauses() {
        let mut order = KeyOrder::new(8);
        let lines = [["a", "bb", "ccc"], ["ccc", "a", "bb"], ["bb", "ccc", "a"]];
        let mut paused = false;
        for round in 0..40 {
            line(&mut order, &lines[round % 3]);
            paused |= order.pause > 0;
        }
        assert!(paused && order.steps.is_empty());
        for _ in 0..PAUSE_LINES + 2 {
            line(&mut order, &lines[0]);
        }
        assert_eq!(line(&mut order, &lines[0]), 3, "and comes back");
    }

    #[test]
    fn the_number_of_steps_is_limited() {
        let mut order = KeyOrder::new(1);
        let keys: Vec<String> = (1..100).map(|length| "k".repeat(length)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for _ in 0..10 {
            line(&mut order, &keys);
            assert!(order.steps.len() <= order.steps_max);
        }
        assert_eq!(line(&mut order, &[TOO_LONG]), 0);
    }
}
