//! Write keys: who may send events (`--write-key-file`).
//!
//! A key is known by its SHA-256 alone, from the moment its file is read. The key of a request is hashed,
//! and its hash is looked up in a table whose order a random number decides; two hashes are compared in
//! constant time. So neither the time of a look-up nor a copy of the table tells how near a guess was.
//!
//! | file | |
//! |---|---|
//! | `file` | the text of a key file → keys |
//! | `owners` | what belongs to a key's name and outlives a new file: its rate and its counter |

mod file;
mod owners;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

pub use file::KeyFileError;
pub use owners::{Owner, OwnerId, Owners};

use super::fault::Fault;
use super::rate::Rate;
use crate::http::{Head, Status, query_pairs};
use crate::limits;

/// The parameter of the query that carries a key, for clients that can't set a field (`sendBeacon`).
pub(super) const PARAMETER: &str = "key";

const MISSING: Fault = Fault::new(
    Status::Unauthorized,
    "missing_key",
    "A write key is needed: Authorization: Bearer KEY, X-Write-Key: KEY, or ?key=KEY.",
);
const WRONG: Fault = Fault::new(Status::Forbidden, "wrong_key", "This write key is not known.");
const WRONG_TABLE: Fault = Fault::new(Status::Forbidden, "wrong_table", "This write key is not for this table.");

/// Who sends a request: the name of its key, and the rate of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// What belongs to the name.
    pub owner: OwnerId,
    /// The rate that the name's events are charged to.
    pub rate: Option<Rate>,
}

/// The keys of a file, or none: then everyone may send events.
#[derive(Debug)]
pub struct Keys {
    owners: Arc<Owners>,
    access: Access,
    /// Lines of the file with a short key.
    short: Vec<usize>,
}

#[derive(Debug)]
enum Access {
    /// Without a file. With `--rate-limit` all clients share one rate.
    Open(Option<Writer>),
    ByKey(HashMap<KeyHash, Grant>),
}

/// What a key permits.
#[derive(Debug)]
struct Grant {
    writer: Writer,
    /// The tables that it may write to; `None` for all.
    tables: Option<Box<[Box<str>]>>,
}

/// The SHA-256 of a key.
#[derive(Clone, Copy)]
struct KeyHash([u8; 32]);

impl Keys {
    /// No keys: everyone may send events, all together at this rate.
    pub fn open(rate: Option<Rate>) -> Self {
        let writer = rate.map(|rate| Writer { owner: OwnerId::EVERYONE, rate: Some(rate) });
        Self { owners: Arc::new(Owners::new(1)), access: Access::Open(writer), short: Vec::new() }
    }

    /// The keys in the text of a file. Names without a rate have
    /// `rate`. With `former`, the names that it had keep what they have used of their rates, and their
    /// counters.
    ///
    /// # Errors
    ///
    /// The first line that is wrong, without anything that stands on it.
    pub fn parse(text: &str, rate: Option<Rate>, former: Option<&Self>) -> Result<Self, KeyFileError> {
        let owners = former.map_or_else(|| Arc::new(Owners::new(limits::KEY_OWNERS_MAX)), |keys| keys.owners.clone());
        let (by_hash, short) = file::parse(text, rate, &owners)?;
        Ok(Self { owners, access: Access::ByKey(by_hash), short })
    }

    /// Who sends the request with this head to `table`; `None` when nothing belongs to the sender.
    ///
    /// # Errors
    ///
    /// The request has no key, a wrong one, or one for other tables.
    #[inline]
    pub fn authorize(&self, head: &Head<'_>, table: &str) -> Result<Option<Writer>, Fault> {
        match &self.access {
            Access::Open(writer) => Ok(*writer),
            Access::ByKey(by_hash) => find(by_hash, head, table).map(Some),
        }
    }

    /// What belongs to the names.
    pub fn owners(&self) -> &Arc<Owners> {
        &self.owners
    }

    /// A sentence for each line whose key is so short that it may be guessed.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.short
            .iter()
            .map(|line| format!("the write key in line {line} has less than 16 characters; it may be guessed"))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        match &self.access {
            Access::Open(_) => 0,
            Access::ByKey(by_hash) => by_hash.len(),
        }
    }

    /// True when everyone may send events.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The first of `Authorization: Bearer`, `X-Write-Key` and `?key=` that is there decides.
fn find(by_hash: &HashMap<KeyHash, Grant>, head: &Head<'_>, table: &str) -> Result<Writer, Fault> {
    let in_fields = head.header("authorization").and_then(bearer).or_else(|| head.header("x-write-key"));
    let grant = match in_fields {
        Some(key) => look_up(by_hash, key),
        None => {
            // A malformed pair is told to whoever has a key.
            let mut pairs = query_pairs(head.query).filter_map(Result::ok);
            let (_, key) = pairs.find(|(name, _)| name == PARAMETER).ok_or(MISSING)?;
            look_up(by_hash, key.as_bytes())
        }
    };
    let Grant { writer, tables } = grant.ok_or(WRONG)?;
    match tables {
        Some(tables) if !tables.iter().any(|allowed| **allowed == *table) => Err(WRONG_TABLE),
        _ => Ok(*writer),
    }
}

fn look_up<'a>(by_hash: &'a HashMap<KeyHash, Grant>, key: &[u8]) -> Option<&'a Grant> {
    // A longer one is no key; its length is no secret.
    by_hash.get(&KeyHash::of(key)).filter(|_| key.len() <= limits::WRITE_KEY_BYTES_MAX)
}

/// The token of `Bearer` credentials (RFC 6750, section 2.1); `None` for another scheme.
fn bearer(credentials: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = credentials.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl KeyHash {
    fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.iter_mut().zip(digest(&SHA256, key).as_ref()).for_each(|(to, from)| *to = *from);
        Self(hash)
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the hash of a key")
    }
}

#[cfg(test)]
mod tests;
