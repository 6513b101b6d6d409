//! What belongs to the name of a key and outlives a new key file: its identity, its rate, its counter.
//!
//! Names are only ever added, so that a name's number stays right for requests that are under way while
//! the file is read again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::api::rate::RateCell;

/// The number of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId(u16);

impl OwnerId {
    /// Whoever sends events where no key is needed.
    pub const EVERYONE: Self = Self(0);
}

/// What belongs to a name, or to a key without one.
#[derive(Debug, Default)]
pub struct Owner {
    /// The name; empty for keys without one.
    pub name: Box<str>,
    /// Distinguishes the idempotency keys of different owners; `None` for everyone's, which are as they
    /// were before there were keys.
    pub identity: Option<[u8; 32]>,
    /// What is used of the rate.
    pub rate: RateCell,
    /// Events that were acknowledged.
    accepted: AtomicU64,
}

impl Owner {
    /// Counts acknowledged events.
    pub fn count_accepted(&self, events: u64) {
        self.accepted.fetch_add(events, Relaxed);
    }
}

/// All owners since the start.
#[derive(Debug)]
pub struct Owners {
    owners: Box<[OnceLock<Box<Owner>>]>,
    /// The numbers by identity, for the reader of the file.
    known: Mutex<BTreeMap<[u8; 32], u16>>,
    everyone: Owner,
}

impl Owners {
    /// Room for so many owners, beside everyone.
    pub fn new(max: usize) -> Self {
        let owners = std::iter::repeat_with(OnceLock::new).take(max.min(usize::from(u16::MAX))).collect();
        Self { owners, known: Mutex::default(), everyone: Owner::default() }
    }

    /// The owner with this number; every number that was given is known.
    pub fn get(&self, OwnerId(number): OwnerId) -> &Owner {
        let index = usize::from(number).checked_sub(1);
        let owner = index.and_then(|index| self.owners.get(index)).and_then(OnceLock::get);
        owner.map_or(&self.everyone, |owner| owner)
    }

    /// The owner of this identity, new or known; `None` when there is no room for a new one.
    pub(super) fn add(&self, name: &str, identity: [u8; 32]) -> Option<OwnerId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.get(&identity) {
            return Some(OwnerId(*number));
        }
        let place = self.owners.get(known.len())?;
        let number = u16::try_from(known.len() + 1).ok()?;
        let owner = Owner { name: name.into(), identity: Some(identity), ..Owner::default() };
        place.set(Box::new(owner)).ok()?;
        known.insert(identity, number);
        Some(OwnerId(number))
    }

    /// Acknowledged events by name, those of keys without one together.
    pub fn accepted(&self) -> BTreeMap<&str, u64> {
        let mut accepted = BTreeMap::new();
        for owner in self.owners.iter().map_while(OnceLock::get) {
            *accepted.entry(&*owner.name).or_default() += owner.accepted.load(Relaxed);
        }
        accepted
    }
}
