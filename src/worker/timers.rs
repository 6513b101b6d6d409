//! When each connection's time is over. Finding those whose time has come costs nothing for the others.
//!
//! Most connections wait for a request, for a reply or for the end of a handshake, each for one time that
//! is the same for all: three lists in the order in which they began to wait are sorted by themselves. A change is a few stores,
//! without an allocation. What is left, partial requests and connections that linger, is few and stands
//! in an ordered set.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What a connection waits for, as far as its time is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The next request: always as long from now.
    Idle,
    /// A reply: always as long from now, too.
    Reply,
    /// The end of a TLS handshake: always as long from now, too.
    Handshake,
    /// Anything else, for any time.
    Other,
}

/// The times of all connections of a worker, by the index of their slots.
#[derive(Debug)]
pub struct Timers {
    links: Vec<Link>,
    idle: List,
    reply: List,
    handshake: List,
    others: BTreeSet<(Instant, usize)>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    place: Option<(Until, Instant)>,
    before: usize,
    after: usize,
}

#[derive(Debug, Clone, Copy)]
struct List {
    first: usize,
    last: usize,
}

const NONE: usize = usize::MAX;
const UNLINKED: Link = Link { place: None, before: NONE, after: NONE };
const EMPTY: List = List { first: NONE, last: NONE };

impl Default for Timers {
    fn default() -> Self {
        Self { links: Vec::new(), idle: EMPTY, reply: EMPTY, handshake: EMPTY, others: BTreeSet::new() }
    }
}

impl Timers {
    /// From now on the time of `index` is over `at`.
    pub fn set(&mut self, index: usize, until: Until, at: Instant) {
        self.remove(index);
        if self.links.len() <= index {
            self.links.resize(index + 1, UNLINKED);
        }
        if until == Until::Other {
            self.others.insert((at, index));
            self.link(index, |link| link.place = Some((until, at)));
            return;
        }
        let last = std::mem::replace(&mut self.list(until).last, index);
        debug_assert!(self.at(last).is_none_or(|before| before <= at), "a list is not in order");
        if last == NONE {
            self.list(until).first = index;
        }
        self.link(last, |link| link.after = index);
        self.link(index, |link| *link = Link { place: Some((until, at)), before: last, after: NONE });
    }

    /// `index` waits for nothing any more.
    pub fn remove(&mut self, index: usize) {
        let Some(Link { place: Some((until, at)), before, after }) = self.links.get(index).copied() else {
            return;
        };
        self.link(index, |link| *link = UNLINKED);
        if until == Until::Other {
            self.others.remove(&(at, index));
            return;
        }
        self.link(before, |link| link.after = after);
        self.link(after, |link| link.before = before);
        let list = self.list(until);
        if list.first == index {
            list.first = after;
        }
        if list.last == index {
            list.last = before;
        }
    }

    /// Takes out one whose time is over.
    pub fn take_due(&mut self, now: Instant) -> Option<usize> {
        let other = self.others.first().map_or(NONE, |(_, index)| *index);
        let heads = [self.idle.first, self.reply.first, self.handshake.first, other];
        let index = heads.into_iter().find(|index| self.at(*index).is_some_and(|at| at <= now))?;
        self.remove(index);
        Some(index)
    }

    /// Those that wait for a request or for the end of a handshake, the longest waiting first. The times are those
    /// that the two kinds are given.
    pub fn longest_waiting(&self, idle: Duration, handshake: Duration) -> impl Iterator<Item = usize> + '_ {
        let since = move |index: usize, time: Duration| self.at(index).and_then(|at| at.checked_sub(time));
        let mut idles = self.of(&self.idle).map(move |index| (since(index, idle), index)).peekable();
        let mut handshakes = self.of(&self.handshake).map(move |index| (since(index, handshake), index)).peekable();
        std::iter::from_fn(move || {
            let is_idle_next = match (idles.peek(), handshakes.peek()) {
                (Some(idle), Some(handshake)) => idle.0 <= handshake.0,
                (idle, _) => idle.is_some(),
            };
            let next = if is_idle_next { idles.next() } else { handshakes.next() };
            next.map(|(_, index)| index)
        })
    }

    fn of(&self, list: &List) -> impl Iterator<Item = usize> + '_ {
        let first = Some(list.first).filter(|index| *index != NONE);
        std::iter::successors(first, |index| {
            self.links.get(*index).map(|link| link.after).filter(|index| *index != NONE)
        })
    }

    fn at(&self, index: usize) -> Option<Instant> {
        Some(self.links.get(index)?.place?.1)
    }

    fn list(&mut self, until: Until) -> &mut List {
        match until {
            Until::Idle => &mut self.idle,
            Until::Handshake => &mut self.handshake,
            _ => &mut self.reply,
        }
    }

    fn link(&mut self, index: usize, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(index) {
            change(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const IDLE: Duration = Duration::from_millis(75);
    const HANDSHAKE: Duration = Duration::from_millis(10);

    #[test]
    fn times_are_over_as_in_a_naive_map_whatever_is_set_and_removed() {
        let begin = Instant::now();
        let (mut timers, mut naive) = (Timers::default(), HashMap::new());
        let mut random = 3usize;
        let mut now = begin;
        for step in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = (random >> 33) % 50;
            now += Duration::from_millis((random >> 45) as u64 % 3);
            let (until, at) = match random >> 61 {
                0 | 1 => {
                    timers.remove(index);
                    naive.remove(&index);
                    continue;
                }
                2 | 3 => (Until::Idle, now + IDLE),
                4 => (Until::Reply, now + Duration::from_millis(40)),
                5 => (Until::Handshake, now + HANDSHAKE),
                _ => (Until::Other, now + Duration::from_millis((random >> 50) as u64 % 100)),
            };
            timers.set(index, until, at);
            naive.insert(index, (until, at));
            let begun = |index: &usize| match naive[index] {
                (Until::Idle, at) => at - IDLE,
                (_, at) => at - HANDSHAKE,
            };
            let longest: Vec<usize> = timers.longest_waiting(IDLE, HANDSHAKE).collect();
            let is_waiting = |until| matches!(until, Until::Idle | Until::Handshake);
            assert_eq!(longest.len(), naive.values().filter(|(until, _)| is_waiting(*until)).count());
            assert!(longest.iter().map(begun).is_sorted(), "the longest waiting does not come first");
            if step % 7 == 0 {
                while let Some(due) = timers.take_due(now) {
                    assert!(naive.remove(&due).is_some_and(|(_, at)| at <= now), "{due} has time left");
                }
                assert!(naive.values().all(|(_, at)| *at > now), "somebody's time is over");
            }
        }
    }

    #[test]
    fn of_those_that_wait_the_longest_waiting_comes_first_whatever_it_waits_for() {
        let (mut timers, begin) = (Timers::default(), Instant::now());
        let longest = |timers: &Timers| timers.longest_waiting(IDLE, HANDSHAKE).collect::<Vec<_>>();
        for (millisecond, index) in [5, 2, 9, 2].into_iter().enumerate() {
            timers.set(index, Until::Idle, begin + Duration::from_millis(millisecond as u64) + IDLE);
        }
        assert_eq!(longest(&timers), [5, 9, 2]);
        timers.set(1, Until::Handshake, begin + Duration::from_millis(1) + HANDSHAKE);
        timers.set(3, Until::Handshake, begin + Duration::from_millis(4) + HANDSHAKE);
        assert_eq!(longest(&timers), [5, 1, 9, 2, 3]);
        timers.set(9, Until::Reply, begin + Duration::from_millis(75));
        timers.remove(5);
        assert_eq!(longest(&timers), [1, 2, 3]);
    }
}
