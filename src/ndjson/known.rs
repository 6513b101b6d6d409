//! The keys that lines had lately, and what they mean.
//!
//! Clients differ in the order of their keys, in the fields that they leave out, and in the fields that
//! no column takes; the keys themselves are few. So the encoder learns no order: it finds each key in a small
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
    /// The words of the key between `start` and `end`. `None` for a key that is too short or too long, and near
    /// the end of the body.
    #[inline(always)]
    fn new(body: &[u8], start: usize, end: usize) -> Option<Self> {
        let length = end.wrapping_sub(start);
        if length.wrapping_sub(1) >= KEY_BYTES_MAX {
            return None;
        }
        let mask = u64::MAX >> (64 - 8 * length.min(8));
        let first = word(body, start)? & mask;
        let last = word(body, start + length.saturating_sub(8))? & mask;
        Some(Self { length, first, last })
    }

    #[inline(always)]
    fn hash(self) -> usize {
        let mixed = (self.first ^ self.last.rotate_left(29) ^ self.length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as usize
    }

    /// The words between the first and the last one, of a key that has more than two.
    #[inline]
    fn middle(self, body: &[u8], start: usize) -> Option<[u64; 2]> {
        Some([word(body, start + 8)?, word(body, start + self.length - 16)?])
    }
}

#[inline(always)]
fn word(body: &[u8], at: usize) -> Option<u64> {
    body.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
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
            if let Some(key) = Words::new(&name, 0, end) {
                known.put(key, &name, 0, target, true);
            }
        }
        known
    }

    /// The target of the key between `start` and `end`, without its quotes.
    #[inline(always)]
    pub(crate) fn target(
        &mut self,
        body: &[u8],
        start: usize,
        end: usize,
        look_up: impl FnOnce(&[u8]) -> KeyTarget,
    ) -> KeyTarget {
        let Some(key) = Words::new(body, start, end) else {
            return look_up(body.get(start..end).unwrap_or_default());
        };
        let at = key.hash() & (self.places.len() - 1);
        match self.places.get(at) {
            Some(place) if place.key == key && (key.length <= SHORT_BYTES_MAX || self.is_at(at, key, body, start)) => {
                place.target
            }
            _ => self.target_beside(body, key, start, look_up),
        }
    }

    #[inline]
    fn is_at(&self, at: usize, key: Words, body: &[u8], start: usize) -> bool {
        self.middles.get(at).copied() == key.middle(body, start)
    }

    #[inline(never)]
    fn target_beside(
        &mut self,
        body: &[u8],
        key: Words,
        start: usize,
        look_up: impl FnOnce(&[u8]) -> KeyTarget,
    ) -> KeyTarget {
        let beside = (key.hash() & (self.places.len() - 1)) ^ 1;
        if let Some(place) = self.places.get(beside)
            && place.key == key
            && (key.length <= SHORT_BYTES_MAX || self.is_at(beside, key, body, start))
        {
            return place.target;
        }
        let target = look_up(body.get(start..start + key.length).unwrap_or_default());
        // A key that is not counted by name may be later.
        if target != KeyTarget::Unknown {
            self.put(key, body, start, target, false);
        }
        target
    }

    /// Puts a key at its place, or beside it, but not in the place of a column's name.
    fn put(&mut self, key: Words, body: &[u8], start: usize, target: KeyTarget, is_name: bool) {
        let middle = if key.length > SHORT_BYTES_MAX { key.middle(body, start) } else { Some([0; 2]) };
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
