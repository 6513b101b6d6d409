//! Identities that detect repeats: of a request by its `Idempotency-Key`, and of an event by the value
//! of its `--dedup-field`.
//!
//! An identity is a truncated BLAKE3 hash, so a client can't construct a value whose identity
//! collides with that of another client's request or event. A worker computes the identity; the
//! committer alone knows which identities were seen. Identities are stored in the frame of their
//! events, so that a crash keeps both or neither.

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
    /// The first 8 bytes of the BLAKE3 hash of the body: detects the reuse of a key for another body.
    pub body: [u8; 8],
    /// The numbers in the reply.
    pub summary: Summary,
}

impl RequestKey {
    /// The key of the request `id` with this body and this reply.
    pub fn new(id: Id, body: &[u8], summary: Summary) -> Self {
        Self { id, body: front(&blake3::hash(body)), summary }
    }

    /// The same for a body that was hashed in parts.
    pub fn of_parts(id: Id, body: &BodyHasher, summary: Summary) -> Self {
        Self { id, body: front(&body.0.finalize()), summary }
    }

    /// Encodes the key as it is stored in a frame: id (16 bytes), hash of the body (8), accepted,
    /// rejected and refused (0 or 1), each a little-endian `u32`.
    pub fn encode(&self) -> [u8; REQUEST_KEY_BYTES] {
        let Summary { accepted, rejected, refused } = self.summary;
        let numbers = [accepted, rejected, u32::from(refused)];
        let bytes = self.id.into_iter().chain(self.body).chain(numbers.into_iter().flat_map(u32::to_le_bytes));
        let mut encoded = [0; REQUEST_KEY_BYTES];
        encoded.iter_mut().zip(bytes).for_each(|(destination, byte)| *destination = byte);
        encoded
    }

    /// Decodes what [`RequestKey::encode`] returned.
    pub fn decode(bytes: &[u8; REQUEST_KEY_BYTES]) -> Self {
        let (id, rest) = split(bytes);
        let (body, rest) = split(rest);
        let (accepted, rest) = split(rest);
        let (rejected, rest) = split(rest);
        let (refused, _) = split(rest);
        let summary = Summary {
            accepted: u32::from_le_bytes(accepted),
            rejected: u32::from_le_bytes(rejected),
            refused: u32::from_le_bytes(refused) != 0,
        };
        Self { id, body, summary }
    }
}

/// The hash of a body, computed part by part.
#[derive(Debug, Default)]
pub struct BodyHasher(blake3::Hasher);

impl BodyHasher {
    /// Adds the next part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
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
mod tests {
    use super::*;

    #[test]
    fn a_request_key_comes_back_and_each_part_counts() {
        let summary = Summary { accepted: 30, rejected: 2, refused: true };
        let key = RequestKey::new(of_request("events", b"k"), b"body", summary);
        assert_eq!(RequestKey::decode(&key.encode()), key);
        let other = |stream, name, body| RequestKey::new(of_request(stream, name), body, summary);
        let owners = [1, 2].map(|owner| of_request_by(Some(&[owner; 32]), "events", b"k"));
        assert!(owners[0] != owners[1] && !owners.contains(&key.id));
        assert_eq!(other("events", b"k", b"body"), key);
        assert_ne!(other("events", b"l", b"body").id, key.id);
        assert_ne!(other("other", b"k", b"body").id, key.id);
        assert_ne!(other("event", b"sk", b"body").id, key.id);
        assert_ne!(other("events", b"k", b"another").body, key.body);
        let mut hasher = BodyHasher::default();
        hasher.update(b"bo");
        hasher.update(b"dy");
        assert_eq!(RequestKey::of_parts(key.id, &hasher, summary), key);
    }
}
