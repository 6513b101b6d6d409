//! The lookup from a key to its column, used when the key order was not guessed.

/// The column that a key of a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyTarget {
    /// A column that clients fill: the index of its field in the plan.
    Field(u16),
    /// No column, or a column that the server fills: the value is validated and skipped.
    Unknown,
}

/// A hash table with open addressing from key to [`KeyTarget`], built once from the names of the
/// table's columns. A key is hashed by its first and last eight bytes and its length. A client can
/// make its keys collide, but the column names alone limit the length of a probe.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// A power of two of slots, at most a quarter of them occupied; none by default.
    slots: Vec<Option<(Box<[u8]>, KeyTarget)>>,
}

impl Names {
    pub(crate) fn new<'a>(names: impl Iterator<Item = (&'a str, KeyTarget)>) -> Self {
        let names: Vec<_> = names.collect();
        let mut slots = vec![None; (names.len() * 4).next_power_of_two()];
        let mask = slots.len() - 1;
        for (name, target) in names {
            let mut at = hash(name.as_bytes()) & mask;
            while slots.get(at).is_some_and(Option::is_some) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = Some((name.as_bytes().into(), target));
            }
        }
        Self { slots }
    }

    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash(key) & mask;
        while let Some(Some((name, target))) = self.slots.get(at) {
            if **name == *key {
                return *target;
            }
            at = (at + 1) & mask;
        }
        KeyTarget::Unknown
    }
}

#[inline]
fn hash(key: &[u8]) -> usize {
    let (first, last) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (key.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)), 0),
    };
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
}
