//! What tells a repeat: the identity of a request that came with an `Idempotency-Key`, and that of
//! an event by the value of its `--dedup-field`.
//!
//! An identity is the front of a BLAKE3 hash: a client can't make one that somebody else's request
//! or event will have. A worker computes it, the committer alone knows which were seen, and both
//! stand in the frame of the events that they belong to, so that no crash parts them.

/// A hash that names a request or an event.
pub type Id = [u8; 16];

/// Bytes of a [`RequestKey`] on the disk.
pub const REQUEST_KEY_BYTES: usize = 36;

/// What the reply to a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Events that were taken.
    pub accepted: u32,
    /// Lines that were refused.
    pub rejected: u32,
    /// The request was refused as a whole, for its many bad lines: nothing of it is stored.
    pub refused: bool,
}

/// A request that came with an `Idempotency-Key`, and what it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    /// Names stream and key.
    pub id: Id,
    /// Tells another body under the same key.
    pub body: [u8; 8],
    /// What the reply says.
    pub summary: Summary,
}

impl RequestKey {
    /// The request of `id` with this body, answered with these summary.
    pub fn new(id: Id, body: &[u8], summary: Summary) -> Self {
        Self { id, body: front(&blake3::hash(body)), summary }
    }

    /// As it stands in a frame: id, body, accepted, rejected, 1 when it was refused as a whole.
    pub fn encode(&self) -> [u8; REQUEST_KEY_BYTES] {
        let Summary { accepted, rejected, refused } = self.summary;
        let numbers = [accepted, rejected, u32::from(refused)];
        let bytes = self.id.into_iter().chain(self.body).chain(numbers.into_iter().flat_map(u32::to_le_bytes));
        let mut encoded = [0; REQUEST_KEY_BYTES];
        encoded.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        encoded
    }

    /// As [`RequestKey::encode`] wrote it.
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

/// The identity of the request to `stream` with this key.
pub fn of_request(stream: &str, key: &[u8]) -> Id {
    let mut hasher = blake3::Hasher::new();
    hasher.update(stream.as_bytes()).update(&[0]).update(key);
    front(&hasher.finalize())
}

/// The identity of an event whose column has this cell.
pub fn of_event(column: &str, cell: &[u8]) -> Id {
    let mut hasher = blake3::Hasher::new();
    hasher.update(column.as_bytes()).update(&[0]).update(cell);
    front(&hasher.finalize())
}

fn front<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    split(hash.as_bytes()).0
}

/// The first `N` bytes, with zeros for those that are not there, and the rest.
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
        assert_eq!(other("events", b"k", b"body"), key);
        assert_ne!(other("events", b"l", b"body").id, key.id);
        assert_ne!(other("other", b"k", b"body").id, key.id);
        assert_ne!(other("event", b"sk", b"body").id, key.id);
        assert_ne!(other("events", b"k", b"another").body, key.body);
    }
}
