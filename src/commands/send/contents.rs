//! What identifies a part of a file: everything in front of it and itself.
//!
//! The `Idempotency-Key` of the lines between two offsets is a hash of the uncompressed contents up to the second
//! offset, of both offsets, and of `--salt`. It follows that
//!
//! - the same file has the same keys, whatever its name and its compression;
//! - equal lines in two places of a file have two keys;
//! - files with the same name and other contents have other keys, from the first difference on;
//! - of two files that begin alike, the requests up to the first difference have the same keys.

use blake3::Hasher;

/// The context of the hashes (see `blake3::Hasher::new_derive_key`). Another text makes all keys different.
const CONTEXT: &str = "sluicegate 2026-11-28 contents of a sent file";

/// The context of the keys.
const KEY_CONTEXT: &str = "sluicegate 2026-11-28 Idempotency-Key of sent lines";

/// Bytes of a hash that a key has.
const KEY_BYTES: usize = 16;

/// The contents of a file from its beginning to an offset.
#[derive(Clone)]
pub(super) struct Prefix {
    hasher: Hasher,
    bytes: u64,
    lines: u64,
    ends_line: bool,
}

/// An offset in a file, with what is in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes in front of it, uncompressed.
    pub offset: u64,
    /// Lines in front of it.
    pub lines: u64,
    /// Hash of what is in front of it.
    pub digest: [u8; 32],
    /// False if it is at the end of a last line that has no line feed.
    pub ends_line: bool,
}

impl Prefix {
    /// The beginning of a file.
    pub fn new(salt: &str) -> Self {
        let mut hasher = Hasher::new_derive_key(CONTEXT);
        hasher.update(&(salt.len() as u64).to_le_bytes()).update(salt.as_bytes());
        Self { hasher, bytes: 0, lines: 0, ends_line: true }
    }

    /// Adds what follows.
    pub fn extend(&mut self, contents: &[u8]) {
        let Some(last) = contents.last() else { return };
        self.hasher.update(contents);
        self.bytes += contents.len() as u64;
        // A last line without an end is counted when it begins.
        self.lines += count_lines(contents) - u64::from(!self.ends_line);
        self.ends_line = *last == b'\n';
    }

    /// Lines in front of its end.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Bytes in front of its end.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its end.
    pub fn mark(&self) -> Mark {
        let digest = *self.hasher.finalize().as_bytes();
        Mark { offset: self.bytes, lines: self.lines, digest, ends_line: self.ends_line }
    }
}

/// Lines of contents, a last one without an end included.
pub(super) fn count_lines(contents: &[u8]) -> u64 {
    let ends = memchr::memchr_iter(b'\n', contents).count() as u64;
    ends + u64::from(contents.last().is_some_and(|last| *last != b'\n'))
}

/// The `Idempotency-Key` of the contents between two offsets of a file.
pub(super) fn key(from: u64, to: &Mark) -> String {
    let mut hasher = Hasher::new_derive_key(KEY_CONTEXT);
    hasher.update(&from.to_le_bytes()).update(&to.offset.to_le_bytes()).update(&to.digest);
    hex(hasher.finalize().as_bytes().get(..KEY_BYTES).unwrap_or_default())
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(before: &str, contents: &str, salt: &str) -> String {
        let mut prefix = Prefix::new(salt);
        prefix.extend(before.as_bytes());
        let from = prefix.mark().offset;
        prefix.extend(contents.as_bytes());
        key(from, &prefix.mark())
    }

    #[test]
    fn a_key_is_that_of_contents_and_place() {
        let first = key_of("", "a\n", "");
        assert_eq!(first, key_of("", "a\n", ""), "the same file again");
        assert_eq!(first.len(), 32);
        for (other, why) in [
            (key_of("", "b\n", ""), "other contents"),
            (key_of("a\n", "a\n", ""), "the same line, further behind"),
            (key_of("b\n", "a\n", ""), "the same line at the same offset, behind others"),
            (key_of("", "a\na\n", ""), "more lines"),
            (key_of("", "a\n", "x"), "a salt"),
        ] {
            assert_ne!(first, other, "{why}");
        }
        assert_ne!(key_of("b\n", "a\n", ""), key_of("c\n", "a\n", ""));
        assert_ne!(key_of("", "xa\n", ""), key_of("", "a\n", "x"), "a salt is not the beginning of the contents");
    }

    #[test]
    fn a_mark_is_the_same_however_the_contents_came() {
        for contents in ["", "a", "a\n", "a\nb", "\n\n", "a\r\nbb\r\n", "\n"] {
            let mut whole = Prefix::new("");
            whole.extend(contents.as_bytes());
            assert_eq!(whole.lines(), contents.lines().count() as u64, "{contents:?}");
            assert_eq!(whole.mark().ends_line, contents.is_empty() || contents.ends_with('\n'));
            for at in 0..=contents.len() {
                let mut halves = Prefix::new("");
                halves.extend(&contents.as_bytes()[..at]);
                halves.extend(&contents.as_bytes()[at..]);
                assert_eq!(halves.mark(), whole.mark(), "{contents:?} at {at}");
            }
        }
    }
}
