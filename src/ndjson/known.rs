//! The keys that lines had lately, and what they mean.
//!
//! Clients differ in the order of their keys, in the fields that they leave out, and in the fields that
//! no column takes; the keys themselves are few. So a key that was not guessed ([`super::order`]) is found in a small
//! table, with the same few instructions whatever the key is, and no branch that depends on it. A key of
//! up to [`KEY_BYTES_MAX`] bytes is compared as two or four words.
//!
//! The columns' names are in the table from the start and stay there. All other keys that lead somewhere or
//! nowhere (names in another case, fields that no column takes) share the other places, and the last
//! one that came takes the place. A client that invents keys costs a lookup in the plan for each, and nothing
//! else.

use crate::schema::KeyTarget;

/// A longer key is looked up in the plan each time.
const KEY_BYTES_MAX: usize = 32;
/// Keys that are compared as their first and last word.
const SHORT_BYTES_MAX: usize = 16;
/// Places for other keys of a line than those that lead somewhere.
pub(crate) const PLACES_OF_OTHERS: usize = 256;
/// The same for an object that paths go into.
pub(crate) const PLACES_OF_OTHERS_INSIDE: usize = 32;

/// A key as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words {
    length: usize,
    /// The first bytes, 8 at most, and zeros behind.
    first: u64,
    /// The last bytes, 8 at most, and zeros behind.
    last: u64,
}

impl Words {
    /// The words of the key that `text` begins with. `None` for a key that is too short or too long, and where the text
    /// has no whole word.
    #[inline(always)]
    fn new(text: &[u8], length: usize) -> Option<Self> {
        if length.wrapping_sub(1) >= KEY_BYTES_MAX {
            return None;
        }
        let mask = u64::MAX >> (64 - 8 * length.min(8));
        let first = word(text, 0)? & mask;
        let last = word(text, length.saturating_sub(8))? & mask;
        Some(Self { length, first, last })
    }

    #[inline(always)]
    fn hash(self) -> usize {
        let mixed = (self.first ^ self.last.rotate_left(29) ^ self.length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as usize
    }

    /// The words between the first and the last one, of a key that has more than two.
    #[inline]
    fn middle(self, text: &[u8]) -> Option<[u64; 2]> {
        Some([word(text, 8)?, word(text, self.length.checked_sub(16)?)?])
    }
}

#[inline(always)]
fn word(text: &[u8], at: usize) -> Option<u64> {
    text.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// The length is 0 in an empty place.
    key: Words,
    target: KeyTarget,
    /// True for the name of a column, which is never replaced.
    is_name: bool,
}

const EMPTY: Place = Place { key: Words { length: 0, first: 0, last: 0 }, target: KeyTarget::Unknown, is_name: false };

/// The keys that are known, for one table.
#[derive(Debug)]
pub(crate) struct KnownKeys {
    /// A power of two of places. A key is at its hash, or beside it.
    places: Vec<Place>,
    /// [`Words::middle`] of the keys of `places`.
    middles: Vec<[u64; 2]>,
}

impl KnownKeys {
    /// Knows these names, and has at least so many places for other keys.
    pub(crate) fn new<'a>(names: impl Iterator<Item = (&'a str, KeyTarget)> + Clone, others: usize) -> Self {
        let count = (names.clone().count() * 4 + others).next_power_of_two();
        let mut known = Self { places: vec![EMPTY; count], middles: vec![[0; 2]; count] };
        for (name, target) in names {
            // Words are loaded from behind the end of a short key.
            let (end, name) = (name.len(), [name.as_bytes(), &[0; 8]].concat());
            if let Some(key) = Words::new(&name, end) {
                known.put(key, &name, target, true);
            }
        }
        known
    }

    /// The target of the key, without quotes, of `length` bytes that `text` begins with.
    #[inline(always)]
    pub(crate) fn target(&mut self, text: &[u8], length: usize, look_up: impl FnOnce(&[u8]) -> KeyTarget) -> KeyTarget {
        let Some(key) = Words::new(text, length) else {
            return look_up(text.get(..length).unwrap_or_default());
        };
        let at = key.hash() & (self.places.len() - 1);
        match self.places.get(at) {
            Some(place) if place.key == key && (key.length <= SHORT_BYTES_MAX || self.is_at(at, key, text)) => {
                place.target
            }
            _ => self.target_beside(text, key, look_up),
        }
    }

    #[inline]
    fn is_at(&self, at: usize, key: Words, text: &[u8]) -> bool {
        self.middles.get(at).copied() == key.middle(text)
    }

    #[inline(never)]
    fn target_beside(&mut self, text: &[u8], key: Words, look_up: impl FnOnce(&[u8]) -> KeyTarget) -> KeyTarget {
        let beside = (key.hash() & (self.places.len() - 1)) ^ 1;
        if let Some(place) = self.places.get(beside)
            && place.key == key
            && (key.length <= SHORT_BYTES_MAX || self.is_at(beside, key, text))
        {
            return place.target;
        }
        let target = look_up(text.get(..key.length).unwrap_or_default());
        // A key that is not counted by name may be later.
        if target != KeyTarget::Unknown {
            self.put(key, text, target, false);
        }
        target
    }

    /// Puts a key at its place, or beside it, but not in the place of a column's name.
    fn put(&mut self, key: Words, text: &[u8], target: KeyTarget, is_name: bool) {
        let middle = if key.length > SHORT_BYTES_MAX { key.middle(text) } else { Some([0; 2]) };
        let at = key.hash() & (self.places.len() - 1);
        for at in [at, at ^ 1] {
            if let (Some(place), Some(place_middle), Some(middle)) =
                (self.places.get_mut(at), self.middles.get_mut(at), middle)
                && !place.is_name
            {
                *place = Place { key, target, is_name };
                *place_middle = middle;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ColumnDescription, Plan};

    fn plan(names: &[String]) -> Plan {
        let columns: Vec<ColumnDescription> = names
            .iter()
            .map(|name| ColumnDescription {
                name: name.clone(),
                type_name: "String".to_owned(),
                default_kind: String::new(),
                default_expression: String::new(),
            })
            .collect();
        Plan::compile(&columns, "UTC").unwrap()
    }

    /// The target of a key in the middle of a body, and at the end of one.
    fn target(known: &mut KnownKeys, plan: &Plan, key: &str) -> KeyTarget {
        let body = format!("{{\"{key}\":1,\"what\":\"follows\"}}");
        // What the plan does not know has a number.
        let look_up = |key: &[u8]| match plan.target(key) {
            KeyTarget::Unknown => KeyTarget::Counted(7),
            target => target,
        };
        let found = known.target(&body.as_bytes()[2..], key.len(), look_up);
        assert_eq!(found, known.target(key.as_bytes(), key.len(), look_up), "{key}");
        found
    }

    #[test]
    fn every_key_has_the_target_that_the_plan_says() {
        // Of each length around those of words, and such as differ in one byte alone.
        let mut names: Vec<String> = (1..=40).map(|length| "k".repeat(length)).collect();
        names.extend((0..36).map(|at| (0..36).map(|index| if index == at { 'x' } else { 'y' }).collect()));
        names.extend((0..24).map(|at| (0..24).map(|index| if index == at { 'x' } else { 'y' }).collect()));
        names.extend((0..12).map(|at| (0..12).map(|index| if index == at { 'x' } else { 'y' }).collect()));
        names.extend(["ip", "Twice", "TWICE", "ключ"].map(str::to_owned));
        let plan = plan(&names);
        let mut known = KnownKeys::new(plan.paths().targets(), PLACES_OF_OTHERS);
        let others =
            ["", "unknown", "IP", "twice", "KKK", "kk\u{1}", "Ключ", "yyyyyyyyyyyy", "yyyyyyyyyyyyyyyyyyyyyyyy"];
        for round in 0..3 {
            for key in names.iter().map(String::as_str).chain(others) {
                let expected = match plan.target(key.as_bytes()) {
                    KeyTarget::Unknown => KeyTarget::Counted(7),
                    target => target,
                };
                assert_eq!(target(&mut known, &plan, key), expected, "{key} in round {round}");
            }
        }
    }

    #[test]
    fn keys_that_nobody_knows_take_no_room_and_no_place_of_a_column() {
        let names: Vec<String> = (0..300).map(|number| format!("column_{number}")).collect();
        let plan = plan(&names);
        let mut known = KnownKeys::new(plan.paths().targets(), PLACES_OF_OTHERS);
        let room = known.places.len();
        let named = |known: &KnownKeys| known.places.iter().filter(|place| place.is_name).count();
        let named_before = named(&known);
        assert!(named_before >= 290, "{named_before}");
        for number in 0..100_000 {
            assert_eq!(target(&mut known, &plan, &format!("invented_{number}")), KeyTarget::Counted(7));
        }
        assert_eq!((known.places.len(), known.middles.len(), named(&known)), (room, room, named_before));
        for (number, name) in names.iter().enumerate() {
            assert_eq!(target(&mut known, &plan, name), KeyTarget::Field(number as u16));
        }
    }

    #[test]
    fn the_last_key_that_nobody_knows_has_the_place() {
        let plan = plan(&["x".to_owned()]);
        let mut known = KnownKeys::new(plan.paths().targets(), PLACES_OF_OTHERS);
        for number in 0..2000 {
            let key = format!("invented_{number}");
            target(&mut known, &plan, &key);
            let words = Words::new(format!("{key}        ").as_bytes(), key.len()).unwrap();
            assert!(known.places.iter().any(|place| place.key == words), "{key}");
        }
    }
}
