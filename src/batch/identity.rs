//! Identities that detect repeats: of a request by its `Idempotency-Key`, and of an event by the value
//! of its `--dedup-field`.
//!
//! An identity is a truncated BLAKE3 hash, so a client can't construct a value whose identity
//! collides with that of another client's request or event. Bodies, which are long, are hashed by a faster hash
//! with a secret. A worker computes the identity; the
//! committer alone knows which identities were seen. Identities are stored in the frame of their
//! events, so that a crash keeps both or neither.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use highway::{HighwayHash, HighwayHasher};

/// The identity of a request or of an event: the first 16 bytes of a BLAKE3 hash.
pub type Id = [u8; 16];

/// Bytes of an encoded [`RequestKey`].
pub const REQUEST_KEY_BYTES: usize = 36;

/// The numbers in the reply to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Accepted events.
    pub accepted: u32,
    /// Rejected lines.
    pub rejected: u32,
    /// True when the whole request was refused because too many of its lines are invalid: nothing
    /// of it is stored.
    pub refused: bool,
}

/// The identity of a request with an `Idempotency-Key`, and its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    /// The identity made of stream and key.
    pub id: Id,
    /// The hash of the body: detects the reuse of a key for another body.
    pub body: BodyHash,
    /// The numbers in the reply.
    pub summary: Summary,
}

impl RequestKey {
    /// Encodes the key as it is stored in a frame: id (16 bytes), hash of the body (8), accepted and rejected (4
    /// each), then 4 with the name of the body hash's secret, shifted by one, and refused in the lowest bit. All
    /// numbers are little-endian.
    pub fn encode(&self) -> [u8; REQUEST_KEY_BYTES] {
        let Summary { accepted, rejected, refused } = self.summary;
        let numbers = [accepted, rejected, self.body.secret << 1 | u32::from(refused)];
        let bytes = self.id.into_iter().chain(self.body.hash).chain(numbers.into_iter().flat_map(u32::to_le_bytes));
        let mut encoded = [0; REQUEST_KEY_BYTES];
        encoded.iter_mut().zip(bytes).for_each(|(destination, byte)| *destination = byte);
        encoded
    }

    /// Decodes what [`RequestKey::encode`] returned.
    pub fn decode(bytes: &[u8; REQUEST_KEY_BYTES]) -> Self {
        let (id, rest) = split(bytes);
        let (hash, rest) = split(rest);
        let (accepted, rest) = split(rest);
        let (rejected, rest) = split(rest);
        let (last, _) = split(rest);
        let last = u32::from_le_bytes(last);
        let summary = Summary {
            accepted: u32::from_le_bytes(accepted),
            rejected: u32::from_le_bytes(rejected),
            refused: last & 1 != 0,
        };
        Self { id, body: BodyHash { secret: last >> 1, hash, former: None }, summary }
    }
}

/// The hash of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHash {
    /// Names the secret that it was made with; 0 for a BLAKE3 hash, which older releases made without one.
    secret: u32,
    hash: [u8; 8],
    /// The BLAKE3 hash, while a body may have to be compared with that of an older release.
    former: Option<[u8; 8]>,
}

impl BodyHash {
    /// True if it is the hash of the body that was `stored` first, or may be: hashes that were made with another
    /// secret say nothing.
    pub fn may_be(&self, stored: &Self) -> bool {
        match stored.secret {
            secret if secret == self.secret => stored.hash == self.hash,
            0 => self.former.is_none_or(|former| former == stored.hash),
            _ => true,
        }
    }

    /// True if an older release made it.
    pub fn is_former(&self) -> bool {
        self.secret == 0
    }
}

/// Hashes bodies with a secret of the spool, by HighwayHash: a client that does not know the secret can't
/// construct another body with the hash of one that it knows.
#[derive(Debug)]
pub struct BodyHashing {
    key: [u64; 4],
    /// Names the key, never 0.
    name: u32,
    /// Bodies that an older release hashed are remembered.
    has_former: AtomicBool,
}

impl Default for BodyHashing {
    fn default() -> Self {
        Self::new(&[0; 32])
    }
}

impl BodyHashing {
    /// With this secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut key = [0; 4];
        key.iter_mut().zip(secret.as_chunks().0).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
        let (name, _) = split(blake3::hash(secret).as_bytes());
        Self { key, name: (u32::from_le_bytes(name) >> 1).max(1), has_former: AtomicBool::new(false) }
    }

    /// Says whether bodies that an older release hashed are remembered: then both hashes are made.
    pub fn remember_former(&self, has_former: bool) {
        self.has_former.store(has_former, Relaxed);
    }

    /// The hash of a body.
    pub fn hash(&self, body: &[u8]) -> BodyHash {
        let mut hasher = self.hasher();
        hasher.update(body);
        hasher.finish()
    }

    /// Hashes a body part by part.
    pub fn hasher(&self) -> BodyHasher {
        let former = self.has_former.load(Relaxed).then(|| Box::new(blake3::Hasher::new()));
        BodyHasher { secret: self.name, hasher: HighwayHasher::new(highway::Key(self.key)), former }
    }
}

/// The hash of a body, computed part by part.
#[derive(Debug, Clone)]
pub struct BodyHasher {
    secret: u32,
    hasher: HighwayHasher,
    former: Option<Box<blake3::Hasher>>,
}

impl BodyHasher {
    /// Adds the next part.
    pub fn update(&mut self, part: &[u8]) {
        self.hasher.append(part);
        if let Some(former) = &mut self.former {
            former.update(part);
        }
    }

    /// The hash of all parts.
    pub fn finish(&self) -> BodyHash {
        let former = self.former.as_ref().map(|former| front(&former.finalize()));
        BodyHash { secret: self.secret, hash: self.hasher.clone().finalize64().to_le_bytes(), former }
    }
}

/// The identity of a request to `stream` with this `Idempotency-Key`.
pub fn of_request(stream: &str, key: &[u8]) -> Id {
    of_request_by(None, stream, key)
}

/// The same of a request by `owner`: the keys of each owner, and those of none, are distinct.
pub fn of_request_by(owner: Option<&[u8; 32]>, stream: &str, key: &[u8]) -> Id {
    let mut hasher = owner.map_or_else(blake3::Hasher::new, blake3::Hasher::new_keyed);
    hasher.update(stream.as_bytes()).update(&[0]).update(key);
    front(&hasher.finalize())
}

/// The identity of an event whose column `column` has the RowBinary value `cell`.
pub fn of_event(column: &str, cell: &[u8]) -> Id {
    let mut hasher = blake3::Hasher::new();
    hasher.update(column.as_bytes()).update(&[0]).update(cell);
    front(&hasher.finalize())
}

fn front<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    split(hash.as_bytes()).0
}

/// The first `N` bytes and the rest; all zeros and no rest when `bytes` is shorter.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    match bytes.split_first_chunk() {
        Some((front, rest)) => (*front, rest),
        None => ([0; N], &[]),
    }
}

#[cfg(test)]
impl RequestKey {
    /// A key whose body is hashed with the secret of tests.
    pub fn of_tests(id: Id, body: &[u8], summary: Summary) -> Self {
        Self { id, body: BodyHashing::default().hash(body), summary }
    }

    /// A key as an older release stored it.
    pub fn of_older_release(id: Id, body: &[u8], summary: Summary) -> Self {
        Self { id, body: BodyHash { secret: 0, hash: front(&blake3::hash(body)), former: None }, summary }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: Summary = Summary { accepted: 30, rejected: 2, refused: true };

    #[test]
    fn a_request_key_comes_back_and_each_part_counts() {
        let other = |stream, name, body| RequestKey::of_tests(of_request(stream, name), body, SUMMARY);
        let key = other("events", b"k", b"body");
        assert_eq!(RequestKey::decode(&key.encode()), key);
        let owners = [1, 2].map(|owner| of_request_by(Some(&[owner; 32]), "events", b"k"));
        assert!(owners[0] != owners[1] && !owners.contains(&key.id));
        assert_eq!(other("events", b"k", b"body"), key);
        assert_ne!(other("events", b"l", b"body").id, key.id);
        assert_ne!(other("other", b"k", b"body").id, key.id);
        assert_ne!(other("event", b"sk", b"body").id, key.id);
        assert!(!other("events", b"k", b"another").body.may_be(&key.body));
        let hashing = BodyHashing::default();
        let mut hasher = hashing.hasher();
        hasher.update(b"bo");
        hasher.update(b"dy");
        assert_eq!(hasher.finish(), key.body);
    }

    #[test]
    fn a_body_is_compared_with_one_that_an_older_release_hashed_and_not_with_one_of_another_secret() {
        let stored = RequestKey::of_older_release(Id::default(), b"body", SUMMARY);
        let stored = RequestKey::decode(&stored.encode());
        assert!(stored.body.is_former() && stored.summary == SUMMARY);
        let hashing = BodyHashing::new(&[7; 32]);
        assert!(hashing.hash(b"other").may_be(&stored.body), "nobody can tell");
        hashing.remember_former(true);
        assert!(hashing.hash(b"body").may_be(&stored.body) && !hashing.hash(b"other").may_be(&stored.body));
        let lost = BodyHashing::new(&[8; 32]).hash(b"other");
        assert!(!lost.is_former() && lost != hashing.hash(b"other"));
        assert!(hashing.hash(b"body").may_be(&lost), "the secret was lost");
        assert!(!hashing.hash(b"body").may_be(&hashing.hash(b"bodz")));
    }
}
