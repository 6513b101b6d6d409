//! The budget of `--in-flight-bytes-max`: partly received requests, batches and waiting replies of all
//! workers. Touched when a buffer grows or is given back and once per batch, not per request.
//!
//! Three bounds beside the sum keep one client from taking it all:
//!
//! - requests of [`limits::SMALL_REQUEST_BYTES`] and more, and waiting replies, leave a quarter to
//!   the small requests;
//! - one client's address holds at most half, an IPv6 address with all of its /64;
//! - one connection holds at most one request, and as much as is read at once.
//!
//! What is charged is held by a [`Charge`], which knows how much that is and gives it back when it is
//! dropped: nothing is computed a second time.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::limits;

/// What a budget is made of.
#[derive(Debug, Clone, Copy)]
pub struct BudgetLimits {
    /// Bytes in all.
    pub max: u64,
    /// The longest request, head and body: always fits where nothing else is.
    pub request_max: usize,
}

/// A limit of bytes shared by all workers.
#[derive(Debug)]
pub struct ByteBudget {
    bytes: AtomicU64,
    /// Those of replies.
    reply_bytes: AtomicU64,
    max: u64,
    /// What requests that are not small may leave it at.
    large_max: u64,
    /// What one connection's request may take.
    connection_max: usize,
    /// What one address may take.
    share_max: u64,
    /// Bytes by client address: counters that an address finds by a hash that nobody can foresee.
    shares: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// What bytes are charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A request below [`limits::SMALL_REQUEST_BYTES`]: may take the last quarter.
    Small,
    /// Anything else.
    Large,
}

impl Size {
    /// The size of a request of so many bytes.
    pub fn of(bytes: usize) -> Self {
        if bytes < limits::SMALL_REQUEST_BYTES { Self::Small } else { Self::Large }
    }
}

impl ByteBudget {
    /// A budget within these limits, of which nothing is taken.
    pub fn new(limits: BudgetLimits) -> Arc<Self> {
        let BudgetLimits { max, request_max } = limits;
        let connection_max = request_max.saturating_add(limits::READ_SCRATCH_BYTES);
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
            max,
            large_max: (max - max / 4).max(connection_max as u64),
            connection_max,
            share_max: (max / 2).max(connection_max as u64),
            shares: std::iter::repeat_with(AtomicU64::default).take(limits::ADDRESS_SHARES).collect(),
            hasher: RandomState::new(),
        })
    }

    /// A charge of nothing yet, counted against `client`'s share; `None` for what belongs to no client,
    /// or to one whose address says nothing about who asks.
    pub fn open(self: &Arc<Self>, client: Option<IpAddr>) -> Charge {
        let share = client.map(|client| (self.hasher.hash_one(network(client)) % limits::ADDRESS_SHARES as u64) as u16);
        Charge { budget: self.clone(), share, is_for_replies: false, bytes: 0 }
    }

    /// The same, for replies.
    pub fn open_for_replies(self: &Arc<Self>, client: Option<IpAddr>) -> Charge {
        let mut charge = self.open(client);
        charge.is_for_replies = true;
        charge
    }

    /// True when nothing is left for a request of this size.
    pub fn is_used_up(&self, size: Size) -> bool {
        self.bytes() >= self.max_of(size)
    }

    /// The bytes that are charged now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Those that are charged for replies.
    pub fn reply_bytes(&self) -> u64 {
        self.reply_bytes.load(Relaxed)
    }

    /// The most that one connection's request may take.
    pub fn connection_max(&self) -> usize {
        self.connection_max
    }

    fn max_of(&self, size: Size) -> u64 {
        match size {
            Size::Small => self.max,
            Size::Large => self.large_max.min(self.max),
        }
    }
}

/// Whose share an address is counted in: an IPv6 client has a whole /64 to choose addresses from.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// Bytes taken out of a budget, by one buffer or batch; back in it when this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<ByteBudget>,
    share: Option<u16>,
    is_for_replies: bool,
    bytes: usize,
}

impl Charge {
    /// A charge of nothing in the same budget and share, not for replies.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { budget: self.budget.clone(), share: self.share, is_for_replies: false, bytes: 0 }
    }

    /// What is charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `more` bytes out of the budget; false, and nothing taken, when the budget or the client's
    /// share has not so many for a request of this size.
    #[must_use]
    pub fn grow(&mut self, more: usize, size: Size) -> bool {
        let bytes = more as u64;
        let budget = &*self.budget;
        if budget.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) > budget.max_of(size) {
            budget.bytes.fetch_sub(bytes, Relaxed);
            return false;
        }
        if let Some(share) = self.share()
            && share.fetch_add(bytes, Relaxed).saturating_add(bytes) > budget.share_max
        {
            share.fetch_sub(bytes, Relaxed);
            budget.bytes.fetch_sub(bytes, Relaxed);
            return false;
        }
        if self.is_for_replies {
            budget.reply_bytes.fetch_add(bytes, Relaxed);
        }
        self.bytes += more;
        true
    }

    /// Makes it a charge of `bytes`, whatever the budget has: they are there already.
    pub fn set(&mut self, bytes: usize) {
        let change = |counter: &AtomicU64| {
            if bytes > self.bytes {
                counter.fetch_add((bytes - self.bytes) as u64, Relaxed);
            } else {
                counter.fetch_sub((self.bytes - bytes) as u64, Relaxed);
            }
        };
        if bytes != self.bytes {
            change(&self.budget.bytes);
            if self.is_for_replies {
                change(&self.budget.reply_bytes);
            }
            self.share().map(change);
            self.bytes = bytes;
        }
    }

    fn share(&self) -> Option<&AtomicU64> {
        self.budget.shares.get(usize::from(self.share?))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 100 << 20;

    fn budget() -> Arc<ByteBudget> {
        ByteBudget::new(BudgetLimits { max: MAX, request_max: 1 << 20 })
    }

    fn client(last: u8) -> Option<IpAddr> {
        Some([10, 0, 0, last].into())
    }

    #[test]
    fn what_is_charged_comes_back_exactly_whatever_happened_to_it_meanwhile() {
        let budget = budget();
        let mut charges: Vec<Charge> = (0..20).map(|last| budget.open(client(last))).collect();
        let mut random = 7usize;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let charge = &mut charges[(random >> 33) % 20];
            let bytes = (random >> 40) % (9 << 20);
            match random >> 62 {
                0 => charge.set(bytes),
                _ => drop(charge.grow(bytes, if random & 64 == 0 { Size::Small } else { Size::Large })),
            }
        }
        assert_eq!(budget.bytes(), charges.iter().map(|charge| charge.bytes() as u64).sum::<u64>());
        drop(charges);
        assert_eq!(budget.bytes(), 0);
        assert!(budget.shares.iter().all(|share| share.load(Relaxed) == 0));
    }

    #[test]
    fn large_requests_leave_a_quarter_to_small_ones() {
        let budget = budget();
        let mut large = budget.open(None);
        while large.grow(1 << 20, Size::Large) {}
        assert_eq!(budget.bytes(), MAX - MAX / 4);
        assert!(budget.is_used_up(Size::Large) && !budget.is_used_up(Size::Small));
        let mut small = budget.open(client(1));
        while small.grow(1 << 20, Size::Small) {}
        assert_eq!(budget.bytes(), MAX);
    }

    #[test]
    fn one_address_takes_half_and_an_ipv6_client_counts_with_its_network() {
        for [own, neighbour, stranger] in
            [["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"], ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"]]
        {
            let budget = budget();
            let open = |address: &str| budget.open(Some(address.parse().unwrap()));
            let mut charge = open(own);
            while charge.grow(1 << 20, Size::Small) {}
            assert_eq!(budget.bytes(), MAX / 2, "{own}");
            assert!(!open(neighbour).grow(1 << 20, Size::Small), "{neighbour}");
            let mut other = open(stranger);
            // One in 4096 starts has both in one counter.
            assert!(other.share == charge.share || other.grow(1 << 20, Size::Small), "{stranger}");
        }
    }

    #[test]
    fn the_longest_request_fits_into_the_smallest_budget() {
        let budget = ByteBudget::new(BudgetLimits { max: 1 << 20, request_max: 1 << 20 });
        let mut charge = budget.open(client(1));
        assert!(charge.grow(1 << 20, Size::Large));
        assert!(!charge.grow(1, Size::Small));
    }

    #[test]
    fn what_is_charged_for_replies_is_known_apart() {
        let budget = ByteBudget::new(BudgetLimits { max: 1000, request_max: 1000 });
        let mut request = budget.open(None);
        let mut replies = budget.open_for_replies(None);
        assert!(request.grow(100, Size::Small) && replies.grow(30, Size::Small));
        let mut more = replies.another();
        assert!(more.grow(5, Size::Small));
        assert_eq!((budget.bytes(), budget.reply_bytes()), (135, 30));
        replies.set(40);
        assert_eq!((budget.bytes(), budget.reply_bytes()), (145, 40));
        assert!(!replies.grow(1000, Size::Small));
        drop(replies);
        assert_eq!((budget.bytes(), budget.reply_bytes()), (105, 0));
    }
}
