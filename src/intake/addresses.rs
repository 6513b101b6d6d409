//! What is kept by client address, within bounds: the rate of each, and how many connections it has. An
//! IPv6 address counts with all of its /64, which one client can choose from.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::network;
use crate::api::rate::RateCell;
use crate::limits;

/// Cells that one address can have. A search looks at these and no others.
const WAYS: usize = 8;

/// Connections of one address above the maximum that are told so; what comes beyond is closed without a
/// word.
const REFUSED_PER_ADDRESS: u32 = 4;

/// The rates of [`limits::RATED_ADDRESSES`] addresses: a table of fixed size that all workers share without
/// a lock.
///
/// A cell that is paid for is as good as a new one, so to forget it loses nothing. Where all cells that an
/// address can have are in use by others, the one that is paid for first is forgotten, and its address
/// begins with a whole burst again: with more addresses active at a time than the table holds, the limit
/// lets more pass, and never less.
///
/// Which address a cell belongs to, and what was charged to it, are two numbers. Between their changes,
/// another worker may charge one request to the wrong one of two addresses.
#[derive(Debug)]
pub struct RatedAddresses {
    buckets: Box<[[RatedAddress; WAYS]]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct RatedAddress {
    /// The address's hash; 0 for none.
    hash: AtomicU64,
    cell: RateCell,
}

impl RatedAddresses {
    /// A table of so many addresses, at least.
    pub fn new(addresses: usize) -> Self {
        let buckets = addresses.div_ceil(WAYS).max(1);
        Self { buckets: std::iter::repeat_with(Default::default).take(buckets).collect(), hasher: RandomState::new() }
    }

    /// The cell of an address at `now`. None of another's is returned, but while it changes its owner.
    pub fn cell(&self, address: IpAddr, now: u64) -> Option<&RateCell> {
        let hash = self.hasher.hash_one(network(address)).max(1);
        let bucket = self.buckets.get((hash % self.buckets.len() as u64) as usize)?;
        if let Some(known) = bucket.iter().find(|known| known.hash.load(Relaxed) == hash) {
            return Some(&known.cell);
        }
        let oldest = bucket.iter().min_by_key(|known| known.cell.paid_at())?;
        oldest.hash.store(hash, Relaxed);
        if oldest.cell.paid_at() > now {
            oldest.cell.clear();
        }
        Some(&oldest.cell)
    }
}

/// The numbers of open connections by address, each at most a maximum.
#[derive(Debug)]
pub struct ConnectionsPerAddress {
    max: u32,
    /// Each lock is held for one change of a number, when a connection begins or ends.
    shards: Box<[Mutex<HashMap<IpAddr, u32>>]>,
    hasher: RandomState,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub enum Admission {
    /// It is served.
    Admitted(CountedConnection),
    /// It is one too many and is told so.
    OneTooMany(CountedConnection),
    /// It is closed without a word.
    Closed,
}

/// One connection in its address's number, until it is dropped.
#[derive(Debug)]
pub struct CountedConnection {
    connections: Arc<ConnectionsPerAddress>,
    address: IpAddr,
}

impl ConnectionsPerAddress {
    /// At most `max` connections an address.
    pub fn new(max: u32) -> Arc<Self> {
        let shards = std::iter::repeat_with(Mutex::default).take(limits::ADDRESS_SHARDS).collect();
        Arc::new(Self { max, shards, hasher: RandomState::new() })
    }

    /// Counts a connection of a peer.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Admission {
        let address = network(peer);
        let Some(mut shard) = self.shard(address) else { return Admission::Closed };
        let number = shard.entry(address).or_default();
        if *number >= self.max.saturating_add(REFUSED_PER_ADDRESS) {
            return Admission::Closed;
        }
        *number += 1;
        let counted = CountedConnection { connections: self.clone(), address };
        if *number > self.max { Admission::OneTooMany(counted) } else { Admission::Admitted(counted) }
    }

    fn shard(&self, address: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, u32>>> {
        let shard = self.shards.get((self.hasher.hash_one(address) % self.shards.len() as u64) as usize)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let Some(mut shard) = self.connections.shard(self.address) else { return };
        if let Some(number) = shard.get_mut(&self.address) {
            *number -= 1;
            if *number == 0 {
                shard.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rate::Rate;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn rate() -> Rate {
        "1/s,burst=10".parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_rate_and_an_ipv6_network_has_one() {
        let table = RatedAddresses::new(1024);
        let charge = |address: IpAddr| table.cell(address, 0).unwrap().charge(rate(), 10, 0).is_ok();
        let networks = ["2001:db8::1", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        for address in [address(1), address(2), networks[0], networks[1]] {
            assert!(charge(address), "{address}");
            assert!(!charge(address), "{address}");
        }
        assert!(!charge("2001:db8::2".parse().unwrap()) && !charge("::ffff:0.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_full_table_forgets_first_what_is_paid_for_and_then_what_is_nearly() {
        let table = RatedAddresses::new(WAYS);
        let charge = |number: u32, events: u32, now: u64| {
            table.cell(address(number), now).unwrap().charge(rate(), events, now).is_ok()
        };
        for number in 0..WAYS as u32 {
            // The first is paid for after 2 s, the last after 9 s.
            assert!(charge(number, 2 + number, 0));
        }
        let second = 1_000_000_000;
        // The cell of the first is paid for: it is taken, and the others are as they were.
        assert!(charge(100, 10, 2 * second) && !charge(100, 1, 2 * second));
        for number in 1..WAYS as u32 {
            assert!(!charge(number, 10, second), "{number}");
        }
        // None is paid for: the one that would be first is forgotten, and begins anew.
        assert!(charge(101, 10, second) && !charge(101, 1, second));
        assert!(!charge(2, 10, second) && charge(1, 10, second));
    }

    #[test]
    fn connections_of_an_address_are_counted_until_they_end() {
        let connections = ConnectionsPerAddress::new(2);
        let admit = |number: u32| connections.admit(address(number));
        let (first, second) = (admit(1), admit(1));
        assert!(matches!((&first, &second), (Admission::Admitted(_), Admission::Admitted(_))));
        assert!(matches!(admit(2), Admission::Admitted(_)));
        let told: Vec<Admission> = (0..REFUSED_PER_ADDRESS).map(|_| admit(1)).collect();
        assert!(told.iter().all(|admission| matches!(admission, Admission::OneTooMany(_))));
        assert!(matches!(admit(1), Admission::Closed));
        drop((told, first));
        assert!(matches!(admit(1), Admission::Admitted(_)));
        drop(second);
        assert!(connections.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
