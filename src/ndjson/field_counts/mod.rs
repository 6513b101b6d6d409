//! What is counted of fields: those that no column takes, by name, and the units of times that were guessed.
//!
//! Each encoder has a [`FieldCounter`] of its own. While a line is encoded, it notes; when the line has ended
//! it counts, so that a line which leaves the fast path in its middle counts once. At the end of a body the
//! counts are added to [`FieldCounts`], which the admin address reads. A worker never waits for it: what can't be
//! added now is added after a later body.
//!
//! The names are the clients' and have no end, so only [`limits::COUNTED_FIELDS_MAX`] are known. When all
//! places are taken, each [`TRY_EACH`]th further name takes that of the one with the lowest count. So a name
//! that comes often gets a place, and many names that come once cost little.

mod kinds;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

pub use kinds::Kinds;

use crate::limits;
use crate::schema::{Field, KeyTarget, TimeUnit};

/// Names without a place, of which one gets a place. A prime: names that take turns get theirs.
const TRY_EACH: u32 = 61;

/// Notes of one line that are kept; further unknown fields count as `others` at once.
const NOTES_MAX: usize = 1024;

/// An unknown field, or all those without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// How often it came.
    pub count: u64,
    /// What its values were.
    pub kinds: Kinds,
}

/// What one encoder has counted since its start, for other threads to read.
#[derive(Debug, Default)]
pub struct FieldCounts(Mutex<Counts>);

/// Counts of fields.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Fields that no column takes, by their names: paths from the line's object on.
    pub unknown: BTreeMap<Box<str>, UnknownField>,
    /// How often other ones came.
    pub others: u64,
    /// By column and unit: bare numbers whose unit was guessed.
    pub guessed: BTreeMap<Arc<str>, [u64; TimeUnit::ALL.len()]>,
}

impl FieldCounts {
    /// Adds the counts to `sum`, whose places are not limited.
    pub fn add_to(&self, sum: &mut Counts) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, UnknownField { count, kinds }) in counts.unknown {
            sum.add_unknown(&name, count, kinds);
        }
        sum.others += counts.others;
        for (column, units) in counts.guessed {
            let sums = sum.guessed.entry(column).or_default();
            sums.iter_mut().zip(units).for_each(|(sum, count)| *sum += count);
        }
    }
}

impl Counts {
    fn add_unknown(&mut self, name: &str, count: u64, kinds: Kinds) {
        match self.unknown.get_mut(name) {
            Some(known) => {
                known.count += count;
                known.kinds = known.kinds.and(kinds);
            }
            None => _ = self.unknown.insert(name.into(), UnknownField { count, kinds }),
        }
    }

    /// Keeps the `max` names that came most often; the rest counts as others.
    #[must_use]
    pub fn most_frequent(mut self, max: usize) -> Self {
        let mut by_count: Vec<(Box<str>, UnknownField)> = std::mem::take(&mut self.unknown).into_iter().collect();
        by_count.sort_by_key(|(_, field)| std::cmp::Reverse(field.count));
        let rest = by_count.split_off(max.min(by_count.len()));
        self.others += rest.iter().map(|(_, field)| field.count).sum::<u64>();
        self.unknown = by_count.into_iter().collect();
        self
    }
}

/// The place of a name.
#[derive(Debug)]
struct Place {
    name: Box<str>,
    /// The number that keys of this name have now. A place that another name takes gets another number.
    number: u16,
    /// Since the counts were added to the shared ones.
    fresh: u64,
    /// Since the name has the place.
    count: u64,
    kinds: Kinds,
}

/// A note about the line under way.
#[derive(Clone, Copy, Debug)]
enum Note {
    Unknown(u16, Kinds),
    Guessed(u16, TimeUnit),
}

/// The counts of one encoder.
#[derive(Debug, Default)]
pub(crate) struct FieldCounter {
    shared: Arc<FieldCounts>,
    /// At most [`limits::COUNTED_FIELDS_MAX`]. The place of a number is its remainder.
    places: Vec<Place>,
    /// Their names are few: that a client may choose ones that collide costs little.
    by_name: HashMap<Box<[u8]>, u16, RandomState>,
    /// Names without a place, since one got a place.
    misses: u32,
    others: u64,
    /// Keys of the line under way without a number.
    noted_others: u64,
    /// By field of the plan.
    guessed: Vec<[u64; TimeUnit::ALL.len()]>,
    notes: Vec<Note>,
    is_fresh: bool,
    /// A name with the path in front of it.
    name: Vec<u8>,
}

impl FieldCounter {
    /// A counter that adds to `shared`.
    pub(crate) fn new(shared: Arc<FieldCounts>) -> Self {
        Self { shared, ..Self::default() }
    }

    /// Forgets the notes of a line.
    #[inline]
    pub(crate) fn begin_line(&mut self) {
        self.notes.clear();
        self.noted_others = 0;
    }

    /// Counts the notes of a line.
    #[inline]
    pub(crate) fn end_line(&mut self) {
        if !self.notes.is_empty() || self.noted_others > 0 {
            self.count_notes();
        }
    }

    #[inline(never)]
    fn count_notes(&mut self) {
        self.is_fresh = true;
        self.others += std::mem::take(&mut self.noted_others);
        for note in self.notes.drain(..) {
            match note {
                Note::Unknown(number, kinds) => {
                    let place = self.places.get_mut(usize::from(number) % limits::COUNTED_FIELDS_MAX);
                    match place.filter(|place| place.number == number) {
                        Some(place) => {
                            place.fresh += 1;
                            place.count += 1;
                            place.kinds = place.kinds.and(kinds);
                        }
                        None => self.others += 1,
                    }
                }
                Note::Guessed(field, unit) => {
                    let field = usize::from(field);
                    if self.guessed.len() <= field {
                        self.guessed.resize(field + 1, Default::default());
                    }
                    if let Some(count) = self.guessed.get_mut(field).and_then(|units| units.get_mut(unit as usize)) {
                        *count += 1;
                    }
                }
            }
        }
    }

    /// Notes a key with this number, and its value.
    #[inline]
    pub(crate) fn note(&mut self, number: u16, raw: &[u8]) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note::Unknown(number, Kinds::of(raw)));
        } else {
            self.others += 1;
        }
    }

    /// Notes a key without a number.
    #[inline]
    pub(crate) fn note_other(&mut self) {
        self.noted_others += 1;
    }

    /// Notes that the unit of a bare number was guessed.
    pub(crate) fn note_guess(&mut self, field: u16, unit: TimeUnit) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note::Guessed(field, unit));
        }
    }

    /// The target of a key that no column has, with the number that it is counted by.
    #[cold]
    pub(crate) fn target(&mut self, path: &str, key: &[u8]) -> KeyTarget {
        self.number(path, key).map_or(KeyTarget::Unknown, KeyTarget::Counted)
    }

    /// The number of a key inside of `path`, which is empty for the line's own object; `None` when it has no
    /// place.
    pub(crate) fn number(&mut self, path: &str, key: &[u8]) -> Option<u16> {
        let separator = if path.is_empty() { "" } else { "." };
        if path.len() + separator.len() + key.len() > limits::COUNTED_NAME_BYTES_MAX {
            return None;
        }
        let name = if path.is_empty() {
            key
        } else {
            self.name.clear();
            self.name.extend_from_slice(path.as_bytes());
            self.name.extend_from_slice(separator.as_bytes());
            self.name.extend_from_slice(key);
            &self.name
        };
        if let Some(number) = self.by_name.get(name) {
            return Some(*number);
        }
        if self.places.len() >= limits::COUNTED_FIELDS_MAX {
            self.misses += 1;
            if self.misses < TRY_EACH {
                return None;
            }
        }
        let name = std::str::from_utf8(name).ok()?.into();
        self.take_place(name)
    }

    /// A place for a new name.
    #[cold]
    fn take_place(&mut self, name: Box<str>) -> Option<u16> {
        let place = Place { name, number: self.places.len() as u16, fresh: 0, count: 0, kinds: Kinds::default() };
        if self.places.len() < limits::COUNTED_FIELDS_MAX {
            let number = place.number;
            self.by_name.insert(place.name.as_bytes().into(), number);
            self.places.push(place);
            return Some(number);
        }
        self.misses = 0;
        let shared = self.shared.clone();
        let mut counts = shared.0.try_lock().ok()?;
        let least = self.places.iter_mut().min_by_key(|place| place.count)?;
        let number = least.number.wrapping_add(limits::COUNTED_FIELDS_MAX as u16);
        self.by_name.remove(least.name.as_bytes());
        self.by_name.insert(place.name.as_bytes().into(), number);
        let forgotten = counts.unknown.remove(&least.name).map_or(0, |forgotten| forgotten.count);
        counts.others += forgotten + least.fresh;
        *least = Place { number, ..place };
        Some(number)
    }

    /// Ends a body: adds what was counted to the shared counts, if no other thread reads them just now.
    #[inline]
    pub(crate) fn end_body(&mut self, fields: &[Field]) {
        if self.is_fresh {
            self.add_guesses(fields);
            self.add_to_shared();
        }
    }

    #[inline(never)]
    fn add_to_shared(&mut self) {
        let Ok(mut counts) = self.shared.0.try_lock() else { return };
        for place in self.places.iter_mut().filter(|place| place.fresh > 0) {
            counts.add_unknown(&place.name, std::mem::take(&mut place.fresh), place.kinds);
        }
        counts.others += std::mem::take(&mut self.others);
        self.is_fresh = false;
    }

    /// Adds the guesses for these fields. Called before the fields change, too.
    #[inline(never)]
    pub(crate) fn add_guesses(&mut self, fields: &[Field]) {
        let is_any = self.guessed.iter().flatten().any(|count| *count > 0);
        if !is_any {
            return;
        }
        let Ok(mut counts) = self.shared.0.try_lock() else { return };
        for (field, units) in fields.iter().zip(&mut self.guessed) {
            if units.iter().any(|count| *count > 0) {
                let sums = counts.guessed.entry(field.name.clone()).or_default();
                sums.iter_mut().zip(units).for_each(|(sum, count)| *sum += std::mem::take(count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(counter: &mut FieldCounter, path: &str, key: &str, raw: &str) {
        counter.begin_line();
        match counter.number(path, key.as_bytes()) {
            Some(number) => counter.note(number, raw.as_bytes()),
            None => counter.note_other(),
        }
        counter.end_line();
    }

    fn counts(shared: &FieldCounts) -> Counts {
        let mut sum = Counts::default();
        shared.add_to(&mut sum);
        sum
    }

    #[test]
    fn fields_are_counted_by_their_paths_and_long_names_are_others() {
        let shared = Arc::new(FieldCounts::default());
        let mut counter = FieldCounter::new(shared.clone());
        for raw in ["1", "null", "1.5"] {
            count(&mut counter, "", "a", raw);
            count(&mut counter, "user", "name", "\"x\"");
        }
        count(&mut counter, "", &"x".repeat(limits::COUNTED_NAME_BYTES_MAX), "1");
        count(&mut counter, "", &"x".repeat(limits::COUNTED_NAME_BYTES_MAX + 1), "1");
        counter.begin_line();
        let number = counter.number("", b"a").unwrap();
        counter.note(number, b"true");
        counter.note_other();
        counter.begin_line();
        counter.end_line();
        counter.end_body(&[]);
        let counts = counts(&shared);
        let of = |name: &str| counts.unknown.get(name).map(|field| (field.count, field.kinds.column_type()));
        assert_eq!(of("a"), Some((3, "Nullable(Float64)".to_owned())), "a line that has not ended counts nothing");
        assert_eq!(of("user.name"), Some((3, "String".to_owned())));
        assert_eq!((counts.unknown.len(), counts.others), (3, 1));
    }

    #[test]
    fn what_came_since_the_last_body_is_counted_although_its_name_is_forgotten() {
        let shared = Arc::new(FieldCounts::default());
        let mut counter = FieldCounter::new(shared.clone());
        for round in 0..2000 {
            count(&mut counter, "", &format!("once_{round}"), "1");
        }
        counter.end_body(&[]);
        let counts = counts(&shared);
        assert_eq!(counts.unknown.values().map(|field| field.count).sum::<u64>() + counts.others, 2000);
    }

    #[test]
    fn names_that_come_often_get_a_place_among_many_that_come_once() {
        let shared = Arc::new(FieldCounts::default());
        let mut counter = FieldCounter::new(shared.clone());
        let mut total = 0;
        for round in 0..4000 {
            count(&mut counter, "", &format!("once_{round}"), "1");
            count(&mut counter, "", if round < 2000 { "early" } else { "late" }, "1");
            total += 2;
            if round % 10 == 0 {
                counter.end_body(&[]);
            }
            assert!(counter.places.len() <= limits::COUNTED_FIELDS_MAX);
            assert_eq!(counter.by_name.len(), counter.places.len());
        }
        counter.end_body(&[]);
        let all = counts(&shared);
        assert!(all.unknown.len() <= limits::COUNTED_FIELDS_MAX);
        let count_of = |name: &str| all.unknown.get(name).map_or(0, |field| field.count);
        assert_eq!(count_of("early"), 2000);
        assert!(count_of("late") > 1500, "{}", count_of("late"));
        assert_eq!(all.unknown.values().map(|field| field.count).sum::<u64>() + all.others, total);
        let few = all.most_frequent(2);
        assert_eq!(few.unknown.keys().map(|name| &**name).collect::<Vec<_>>(), ["early", "late"]);
        assert_eq!(few.unknown.values().map(|field| field.count).sum::<u64>() + few.others, total);
    }
}
