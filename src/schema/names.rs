//! The lookup from a key to its column, used when the key order was not guessed.

use std::collections::BTreeMap;

/// The column that a key of a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyTarget {
    /// A column that clients fill: the index of its field in the plan.
    Field(u16),
    /// A column that the server fills, or a key of an object that a column takes whole: the value is validated
    /// and skipped.
    Server,
    /// Several columns, or paths that go on inside of the value: the number of the node.
    Node(u16),
    /// No column: the value is validated, and skipped or collected.
    Unknown,
    /// The same, with the number under which the encoder counts the key.
    Counted(u16),
    /// Several columns that differ in case alone, none of them spelled like the key: the line is
    /// rejected.
    Ambiguous,
}

/// The bit that tells an ASCII letter from the same letter in the other case, in each byte.
const FOLD: u64 = 0x2020_2020_2020_2020;

/// The columns by name: exactly as written first, then without regard to the case of ASCII letters.
#[derive(Debug, Default)]
pub(crate) struct Names {
    exact: Slots,
    folded: Slots,
    /// No longer key is any column's.
    length_max: usize,
}

impl Names {
    pub(crate) fn new<'a>(names: impl Iterator<Item = (&'a str, KeyTarget)>) -> Self {
        let names: Vec<(Box<[u8]>, KeyTarget)> = names.map(|(name, target)| (name.as_bytes().into(), target)).collect();
        let mut by_folded: BTreeMap<Box<[u8]>, KeyTarget> = BTreeMap::new();
        for (name, target) in &names {
            let merged = by_folded.entry(name.to_ascii_lowercase().into()).or_insert(*target);
            if merged != target {
                *merged = KeyTarget::Ambiguous;
            }
        }
        Self {
            length_max: names.iter().map(|(name, _)| name.len()).max().unwrap_or_default(),
            folded: Slots::new(by_folded.into_iter().collect(), FOLD),
            exact: Slots::new(names, 0),
        }
    }

    /// The names as they are written, with their targets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, KeyTarget)> + Clone {
        let written = self.exact.slots.iter().flatten();
        written.filter_map(|(name, target)| Some((std::str::from_utf8(name).ok()?, *target)))
    }

    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        match self.exact.find(hash(key, 0), |name| *name == *key) {
            Some(target) => target,
            None => self.folded_target(key),
        }
    }

    #[inline(never)]
    fn folded_target(&self, key: &[u8]) -> KeyTarget {
        if key.len() > self.length_max {
            return KeyTarget::Unknown;
        }
        let found = self.folded.find(hash(key, FOLD), |name| name.eq_ignore_ascii_case(key));
        found.unwrap_or(KeyTarget::Unknown)
    }
}

/// A hash table with open addressing from key to [`KeyTarget`], built once from the names of the
/// table's columns. A key is hashed by its first and last eight bytes and its length. A client can
/// make its keys collide, but the column names alone limit the length of a probe.
#[derive(Debug, Default)]
struct Slots {
    /// A power of two of slots, at most a quarter of them occupied; none by default.
    slots: Vec<Option<(Box<[u8]>, KeyTarget)>>,
}

impl Slots {
    fn new(names: Vec<(Box<[u8]>, KeyTarget)>, fold: u64) -> Self {
        let mut slots = vec![None; (names.len() * 4).next_power_of_two()];
        let mask = slots.len() - 1;
        for (name, target) in names {
            let mut at = hash(&name, fold) & mask;
            while slots.get(at).is_some_and(Option::is_some) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = Some((name, target));
            }
        }
        Self { slots }
    }

    #[inline(always)]
    fn find(&self, hash: usize, is_it: impl Fn(&[u8]) -> bool) -> Option<KeyTarget> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash & mask;
        while let Some(Some((name, target))) = self.slots.get(at) {
            if is_it(name) {
                return Some(*target);
            }
            at = (at + 1) & mask;
        }
        None
    }
}

/// `fold` is or-ed to each eight bytes: with [`FOLD`] letters that differ in case alone are equal.
#[inline]
fn hash(key: &[u8], fold: u64) -> usize {
    let (first, last) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (key.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)), 0),
    };
    let (first, last) = (first | fold, last | fold);
    let mixed = (first ^ last.rotate_left(29) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let names: Vec<String> = (0..500)
            .map(|i| format!("{}column_{i}_name", "x".repeat(i % 7)))
            .chain((0..50).map(|i| format!("c{i}")))
            .chain(["".to_owned()])
            .collect();
        let table = Names::new(names.iter().enumerate().map(|(i, name)| (name.as_str(), KeyTarget::Field(i as u16))));
        for (i, name) in names.iter().enumerate() {
            assert_eq!(table.target(name.as_bytes()), KeyTarget::Field(i as u16));
            assert_eq!(table.target(format!("{name}!").as_bytes()), KeyTarget::Unknown);
        }
        assert_eq!(Names::default().target(b"x"), KeyTarget::Unknown);
    }

    #[test]
    fn a_key_of_another_case_is_found_where_it_means_one_column() {
        let field = KeyTarget::Field;
        let names = [
            ("short", field(0)),
            ("A_Longer_Name", field(1)),
            ("twice", field(2)),
            ("TWICE", field(3)),
            ("straße", field(4)),
            ("ip", KeyTarget::Server),
            ("Ip", KeyTarget::Server),
            ("server_time", KeyTarget::Server),
            ("SERVER_TIME", field(5)),
        ];
        let table = Names::new(names.into_iter());
        for (name, target) in names {
            assert_eq!(table.target(name.as_bytes()), target, "{name}");
        }
        for (key, target) in [
            ("SHORT", field(0)),
            ("a_longer_name", field(1)),
            ("A_LONGER_NAME", field(1)),
            ("Twice", KeyTarget::Ambiguous),
            ("STRAße", field(4)),
            ("STRASSE", KeyTarget::Unknown),
            ("STRAẞE", KeyTarget::Unknown),
            ("IP", KeyTarget::Server),
            ("Server_Time", KeyTarget::Ambiguous),
            ("shor", KeyTarget::Unknown),
            ("a_longer_name_and_more", KeyTarget::Unknown),
            ("a-longer-name", KeyTarget::Unknown),
            ("", KeyTarget::Unknown),
        ] {
            assert_eq!(table.target(key.as_bytes()), target, "{key}");
        }
    }
}
