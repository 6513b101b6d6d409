//! The learned key order.
//!
//! Lines of one client look alike: the same keys, in the same order, with the same spaces. So
//! what stands between two values, from the end of one to the start of the next
//! (`,"device_id":`), is remembered as one *step*, with the field that it leads to; on the next
//! line it is enough to compare the bytes. A key is then neither scanned nor looked up.
//!
//! - A step that does not match may be a field that this line lacks: the next few steps are tried
//!   as well. Nothing is forgotten for that.
//! - A key that no step foresaw is looked up and *inserted* where it came, so that two kinds of
//!   lines in turn soon have steps for both.
//! - A line with several such keys has another order, and nothing is kept of it. After
//!   [`OTHER_LINES_MAX`] of them in a row all steps are forgotten, and the next line is learned from
//!   its start.
//! - After [`MISSED_LINES_MAX`] lines with lookups in a row the guess is dropped for
//!   [`PAUSE_LINES`] lines: lines without order cost a lookup a key and nothing else.

use crate::schema::KeyTarget;

/// How many further steps are tried behind one that does not match.
const STEPS_AHEAD: usize = 3;
/// Lookups in one line after which its order counts as another one.
const LOOKUPS_IN_ORDER: u32 = 2;
const OTHER_LINES_MAX: u32 = 2;
const MISSED_LINES_MAX: u32 = 4;
const PAUSE_LINES: u32 = 100;
/// Steps for keys that no column has, and for columns' keys in other places.
const STEPS_OF_UNKNOWN_MAX: usize = 112;
/// A spelling that is longer is always looked up.
const SPELLING_BYTES_MAX: usize = 64;
/// What is compared at once.
const HEAD_BYTES: usize = 32;

/// What is expected between two values, and where it leads.
#[derive(Clone, Debug)]
struct Step {
    spelling: [u8; SPELLING_BYTES_MAX],
    /// 0xff for every byte of the spelling's first [`HEAD_BYTES`], 0 behind its end.
    mask: [u8; HEAD_BYTES],
    length: usize,
    target: KeyTarget,
}

impl Step {
    fn new(spelling: &[u8], target: KeyTarget) -> Option<Self> {
        let mut step =
            Self { spelling: [0; SPELLING_BYTES_MAX], mask: [0; HEAD_BYTES], length: spelling.len(), target };
        step.spelling.get_mut(..spelling.len())?.copy_from_slice(spelling);
        for byte in step.mask.iter_mut().take(spelling.len()) {
            *byte = 0xff;
        }
        Some(step)
    }

    /// Compares 32 bytes at once where the body has so many left, without a branch on the
    /// length. No spelling has a line feed in it, so a match never reaches into the next line.
    #[inline(always)]
    fn matches(&self, body: &[u8], at: usize) -> bool {
        let Some(rest) = body.get(at..) else {
            return false;
        };
        match rest.first_chunk::<HEAD_BYTES>() {
            Some(head) if self.length <= HEAD_BYTES => {
                let mut difference = 0;
                for ((byte, expected), mask) in head.iter().zip(&self.spelling).zip(&self.mask) {
                    difference |= (byte ^ expected) & mask;
                }
                difference == 0
            }
            _ => self.spelling.get(..self.length).is_some_and(|spelling| rest.starts_with(spelling)),
        }
    }
}

/// The steps of the last lines, and how well they did.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    steps: Vec<Step>,
    steps_max: usize,
    /// The step that is expected next in this line.
    next: usize,
    /// Keys of this line that had to be looked up.
    lookups: u32,
    /// Where this line has inserted steps, in order.
    inserted: Vec<usize>,
    /// True while this line is the first to be learned: its lookups are no misses of an order.
    fresh: bool,
    /// Lines in a row with lookups.
    missed_lines: u32,
    /// Lines in a row of another order.
    other_lines: u32,
    /// Lines left without a guess.
    pause: u32,
}

impl KeyOrder {
    /// For a table of so many columns.
    pub(crate) fn new(columns: usize) -> Self {
        Self { steps_max: columns * 2 + STEPS_OF_UNKNOWN_MAX, ..Self::default() }
    }

    /// A line begins.
    #[inline]
    pub(crate) fn begin_line(&mut self) {
        self.next = 0;
        self.lookups = 0;
        self.inserted.clear();
        self.fresh = self.steps.is_empty();
    }

    /// The field that the bytes at `at` lead to if they are as expected, and the value's place.
    #[inline]
    pub(crate) fn guess(&mut self, body: &[u8], at: usize) -> Option<(KeyTarget, usize)> {
        let step = self.steps.get(self.next)?;
        if step.matches(body, at) {
            self.next += 1;
            return Some((step.target, at + step.length));
        }
        self.guess_ahead(body, at)
    }

    #[inline(never)]
    fn guess_ahead(&mut self, body: &[u8], at: usize) -> Option<(KeyTarget, usize)> {
        // The end of the object is no missing field.
        if body.get(at) == Some(&b'}') {
            return None;
        }
        let ahead = self.steps.iter().enumerate().skip(self.next + 1);
        for (index, step) in ahead.take(STEPS_AHEAD) {
            if step.matches(body, at) {
                self.next = index + 1;
                return Some((step.target, at + step.length));
            }
        }
        None
    }

    /// A key was looked up; `spelling` is all that stood before its value.
    pub(crate) fn learn(&mut self, spelling: &[u8], target: KeyTarget) {
        self.lookups += 1;
        if self.pause > 0 || self.steps.len() >= self.steps_max {
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

    /// Takes back what this line has inserted, all of it before the step that is expected next.
    fn forget_line(&mut self) {
        for index in self.inserted.drain(..).rev() {
            self.steps.remove(index);
            self.next -= 1;
        }
    }

    /// A line has ended, whatever became of it.
    #[inline]
    pub(crate) fn end_line(&mut self) {
        if self.lookups == 0 {
            self.missed_lines = 0;
            self.other_lines = 0;
            return;
        }
        self.end_missed_line();
    }

    #[cold]
    fn end_missed_line(&mut self) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        if self.fresh {
            return;
        }
        self.missed_lines += 1;
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

    /// Runs a line of keys through the order: how many of them were guessed.
    fn line(order: &mut KeyOrder, keys: &[&str]) -> usize {
        order.begin_line();
        let mut guessed = 0;
        for (index, key) in keys.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let spelling = format!("{separator}\"{key}\":");
            let body = format!("{spelling}1,\"padding behind it, so that 32 bytes are there\"");
            let target = KeyTarget::Field(key.len() as u16);
            match order.guess(body.as_bytes(), 0) {
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
    fn the_second_line_is_guessed_whole() {
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
    fn a_line_of_another_order_now_and_then_leaves_no_trace() {
        let mut order = KeyOrder::new(8);
        line(&mut order, &["a", "bb", "ccc", "dddd"]);
        for _ in 0..100 {
            line(&mut order, &["dddd", "ccc", "bb", "a", "eeeee", "ffffff"]);
            assert_eq!(order.steps.len(), 4);
            assert_eq!(line(&mut order, &["a", "bb", "ccc", "dddd"]), 4);
        }
    }

    #[test]
    fn without_order_the_guess_is_dropped_for_a_while() {
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
    fn the_steps_are_bounded() {
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
