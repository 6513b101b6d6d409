//! The worker: the event loop of one core.
//!
//! In each turn the loop waits for events, takes returned batches from the committer and sends their
//! replies, visits connections with input, and hands the filled batches to the committer. `mio` is
//! edge-triggered: a connection that may have more input is queued for the next turn.
//!
//! No client delays the others, because everything in a turn is bounded, and what is left waits for the
//! next one: a visit reads at most [`limits::READ_SCRATCH_BYTES`] once and serves at most
//! [`limits::VISIT_REQUESTS_MAX`] requests; the visits of a turn do a bounded amount of work ([`visits`]
//! says which come first); a turn accepts [`limits::TURN_ARRIVALS_MAX`] connections, and ends the time of
//! [`limits::TURN_TIME_OUTS_MAX`].

mod connections;
mod exchange;
mod proxy_header;
mod send_queue;
mod slot;
mod timers;
mod visits;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::api::keys::Keys;
use crate::api::{Api, RequestIds};
use crate::clock::{monotonic_ms, unix_ms};
use crate::handoff::Subscription;
use crate::http::DateCache;
use crate::intake::awaiting::AwaitingInserts;
use crate::intake::budget::Size;
use crate::intake::metrics::WorkerMetrics;
use crate::intake::outbox::{Outbox, Settled, Waiter};
use crate::intake::{LargeRequests, SchemaFollower, Shared, count, decide};
use crate::limits;
use crate::net::tls::TlsConfig;
use crate::net::{Listener, Scratch};
use slot::{BufferPool, Slot};
use timers::Timers;
use visits::Visits;

/// The token of the waker that the worker's mailbox uses.
pub const WAKE: Token = Token(0);
/// The token of the first listener. Tokens of connections follow those of [`limits::LISTENERS_MAX`]
/// listeners.
const FIRST_LISTENER: usize = 1;

/// A worker: its connections, its batches and its event loop.
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
    poll: Poll,
    listeners: Vec<Listener>,
    /// The connections; a slot is `None` while it is vacant.
    slots: Vec<Option<Slot>>,
    /// The indexes of vacant slots.
    vacant: Vec<usize>,
    /// The number of open connections.
    open: usize,
    /// The generation of the newest connection.
    generation: u64,
    visits: Visits,
    /// Connections whose events have no place until the committer returns a batch.
    stalled: Vec<usize>,
    timers: Timers,
    api: Api,
    /// The schemas that `api` encodes for.
    schemas: SchemaFollower,
    keys: Subscription<Keys>,
    outbox: Outbox,
    /// The request that is decoded and encoded over several turns, and those that wait for their turn.
    large: LargeRequests,
    /// Connections with a reply that waits for the insert of a block.
    awaiting: AwaitingInserts,
    buffers: BufferPool,
    /// The certificates, if clients speak TLS.
    tls: Option<Subscription<TlsConfig>>,
    /// Those that fresh connections begin with.
    tls_config: Option<Arc<TlsConfig>>,
    /// The buffers that sockets are read into.
    scratch: Scratch,
    /// The buffer for what goes over the wire in place of what is sent.
    sealed: Vec<u8>,
    /// The buffer that replies are rendered into.
    out: Vec<u8>,
    date: DateCache,
    ids: RequestIds,
    /// When this turn began; precise enough for every time-out.
    now: Instant,
    /// When [`Worker::sweep`] last did its work.
    swept: Instant,
    /// When it served last; `None` once it has given back the memory that it kept for more.
    served: Option<Instant>,
    not_accepted_said: Option<Instant>,
    untrusted_said: Option<Instant>,
    no_header_said: Option<Instant>,
    /// Connections that have come and were not visited yet.
    unvisited: usize,
    /// Connections wait in the listeners' queues: for those to make way, or for the next turn.
    accept_again: bool,
    /// There may be connections whose time is over.
    has_due: bool,
}

impl Worker {
    /// A worker with its listeners. `poll` is the one that its mailbox's waker is registered with.
    ///
    /// # Errors
    ///
    /// When the listeners can't be registered.
    pub fn new(
        index: usize,
        poll: Poll,
        mut listeners: Vec<Listener>,
        api: Api,
        shared: Arc<Shared>,
        metrics: Arc<WorkerMetrics>,
    ) -> io::Result<Self> {
        for (listener, token) in listeners.iter_mut().zip(FIRST_LISTENER..) {
            poll.registry().register(listener, Token(token), Interest::READABLE)?;
        }
        let mut date = DateCache::default();
        date.update(unix_ms() / 1000);
        Ok(Self {
            index,
            metrics,
            poll,
            listeners,
            slots: Vec::new(),
            vacant: Vec::new(),
            open: 0,
            generation: 0,
            visits: Visits::default(),
            stalled: Vec::new(),
            timers: Timers::default(),
            api,
            schemas: SchemaFollower::new(&shared.schemas),
            keys: Subscription::new(shared.keys.clone()),
            outbox: Outbox::new(
                index,
                shared.handoff.batches(index),
                shared.schemas.values().len(),
                shared.budget.clone(),
            ),
            large: LargeRequests::default(),
            awaiting: AwaitingInserts::default(),
            buffers: BufferPool::new(shared.budget.clone()),
            tls: shared.tls.clone().map(Subscription::new),
            tls_config: None,
            scratch: Scratch::new(limits::READ_SCRATCH_BYTES, shared.tls.is_some()),
            sealed: Vec::new(),
            out: Vec::with_capacity(16 << 10),
            date,
            ids: RequestIds::default(),
            now: Instant::now(),
            swept: Instant::now(),
            served: None,
            not_accepted_said: None,
            untrusted_said: None,
            no_header_said: None,
            unvisited: 0,
            accept_again: false,
            has_due: false,
            shared,
        })
    }

    /// Serves until the server stops and every open connection is answered and closed.
    ///
    /// # Errors
    ///
    /// When waiting for events fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        // A connection may have arrived before its listener was registered.
        self.accept(limits::TURN_ARRIVALS_MAX);
        while !self.is_done() {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// Waits for events, serves what they announce and what was left, and hands the rows over.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        self.wait(events)?;
        self.serve(events);
        Ok(())
    }

    /// A turn, but for its wait.
    fn serve(&mut self, events: &Events) {
        self.now = Instant::now();
        self.follow_schemas();
        if let Some(keys) = self.keys.changed() {
            self.api.require(keys);
        }
        for event in events {
            self.notice(event);
        }
        self.take_arrivals(limits::TURN_ARRIVALS_MAX);
        self.take_returned();
        self.take_inserted();
        if !self.visits.is_empty() {
            self.served = Some(self.now);
        }
        self.visit_all();
        if std::mem::take(&mut self.accept_again) {
            self.accept(limits::TURN_ARRIVALS_MAX);
        }
        self.outbox.hand_over(&self.shared.handoff);
        self.sweep();
        self.end_overdue();
        self.tend_large();
    }

    /// Encodes all further events for the newest schemas.
    fn follow_schemas(&mut self) {
        let Self { schemas, api, outbox, large, shared, .. } = self;
        schemas.follow(api, outbox, &shared.handoff, |table| large.change_schema(table));
    }

    /// Gives up the large request of a connection that is closed, and visits the next one of the line.
    fn tend_large(&mut self) {
        let Self { large, outbox, slots, .. } = self;
        let is_unfinished = |waiter| slot_of(slots, waiter).is_some_and(|slot| slot.connection.unfinished().is_some());
        if let Some(waiter) = large.tend(outbox, is_unfinished) {
            // It is marked as queued while it waits in line.
            self.visits.push_begun(waiter.slot);
        }
    }

    /// True when the server stops, no connection is open and no batch is under way. On the first call
    /// after the start of a stop the listeners are closed.
    fn is_done(&mut self) -> bool {
        if !self.shared.handoff.lifecycle.is_stopping() {
            return false;
        }
        self.shared.handoff.ends_soon();
        if !self.listeners.is_empty() {
            self.accept(usize::MAX);
            self.listeners.clear();
        }
        self.take_arrivals(usize::MAX);
        self.open == 0 && self.outbox.is_empty()
    }

    /// Waits for events, without blocking while there is work.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let mailbox = self.shared.handoff.mailbox(self.index);
        let busy = !self.visits.is_empty() || self.accept_again || self.has_due;
        // Announcing sleep while the committer gathers would end its wait early, so poll once without
        // blocking first.
        if busy || self.shared.handoff.is_gathering() {
            uninterrupted(self.poll.poll(events, Some(Duration::ZERO)))?;
            if busy || !events.is_empty() {
                return Ok(());
            }
        }
        let sleep = mailbox.is_none_or(|mailbox| mailbox.may_sleep());
        if sleep {
            self.shared.handoff.worker_sleeps();
        }
        let timeout = if sleep { Duration::from_millis(limits::SWEEP_MS) } else { Duration::ZERO };
        let waited = self.poll.poll(events, Some(timeout));
        if let Some(mailbox) = mailbox {
            mailbox.awake();
        }
        uninterrupted(waited)
    }

    /// Handles an event: accepts connections, or queues a connection for a visit.
    fn notice(&mut self, event: &Event) {
        let Token(token) = event.token();
        let first_slot = FIRST_LISTENER + limits::LISTENERS_MAX;
        if token == WAKE.0 {
            return;
        }
        if token < first_slot {
            self.accept(limits::TURN_ARRIVALS_MAX);
            return;
        }
        let index = token - first_slot;
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() {
            slot.readable = true;
            slot.read_closed |= event.is_read_closed();
        }
        if !slot.queued {
            slot.queued = true;
            self.visits.push_fresh(index);
        }
    }

    /// Takes every batch that the committer has returned, and sends its replies.
    fn take_returned(&mut self) {
        while let Some(returned) = self.shared.handoff.mailbox(self.index).and_then(|mailbox| mailbox.take()) {
            if let Some(settled) = self.outbox.settle(returned) {
                self.settle(settled);
            }
            self.visits.extend_begun(self.stalled.drain(..));
        }
    }

    fn settle(&mut self, mut settled: Settled) {
        count(&mut settled, &self.shared, &self.metrics);
        let until = self.now + self.shared.timeouts.inserted;
        for waiter in &settled.waiters {
            let Some(slot) = slot_of(&mut self.slots, *waiter) else { continue };
            let replies = slot.connection.replies();
            for block in replies.settle(settled.sequence, |keyed| decide(&settled, keyed, until)) {
                if !self.awaiting.add(block, *waiter, &self.shared.handoff.inserted) {
                    replies.inserted(block);
                }
            }
            self.send_released(*waiter);
        }
        self.outbox.recycle(settled);
    }

    /// Sends the replies whose blocks are confirmed.
    fn take_inserted(&mut self) {
        if !self.shared.handoff.mailbox(self.index).is_some_and(|mailbox| mailbox.take_news()) {
            return;
        }
        for (block, waiter) in self.awaiting.take_proven(&self.shared.handoff.inserted) {
            if let Some(slot) = slot_of(&mut self.slots, waiter) {
                slot.connection.replies().inserted(block);
                self.send_released(waiter);
            }
        }
    }

    /// Answers 202 to the requests whose time for the insert is over; to all of them when the server
    /// stops.
    fn give_up_inserts(&mut self) {
        // A stop does not wait for ClickHouse: `until` of every reply is before now plus the time-out.
        let stopping = self.shared.handoff.lifecycle.is_stopping();
        let reached = if stopping { self.now + self.shared.timeouts.inserted } else { self.now };
        for waiter in self.awaiting.waiters() {
            if let Some(slot) = slot_of(&mut self.slots, waiter) {
                slot.connection.replies().give_up_inserts(reached);
                self.send_released(waiter);
            }
        }
        let slots = &mut self.slots;
        self.awaiting.retain(&self.shared.handoff.inserted, |waiter| {
            slot_of(slots, waiter).is_some_and(|slot| slot.connection.replies().awaits_insert())
        });
    }

    /// Sends the replies of a connection that may be sent now, and lets the connection continue reading.
    fn send_released(&mut self, waiter: Waiter) {
        let Some(slot) = slot_of(&mut self.slots, waiter) else { return };
        let stalled = slot.readable || !slot.kept.bytes.is_empty();
        // The connection may have stopped reading because too many replies were pending.
        if self.send(waiter.slot) && stalled {
            self.enqueue(waiter.slot);
        }
    }

    /// Queues a connection for a visit.
    fn enqueue(&mut self, index: usize) {
        if let Some(Some(slot)) = self.slots.get_mut(index)
            && !slot.queued
        {
            slot.queued = true;
            self.visits.push_begun(index);
        }
    }

    /// The periodic work, once in [`limits::SWEEP_MS`]: updates date and heartbeat, looks for time-outs,
    /// and closes idle connections during a stop.
    fn sweep(&mut self) {
        let now = self.now;
        if now.duration_since(self.swept) < Duration::from_millis(limits::SWEEP_MS) {
            return;
        }
        self.swept = now;
        let unix_ms = unix_ms();
        self.date.update(unix_ms / 1000);
        self.metrics.heartbeat_ms.set(monotonic_ms());
        while let Some(settled) = self.outbox.overdue(self.shared.timeouts.commit) {
            self.settle(settled);
        }
        self.give_up_inserts();
        // After accepting failed for lack of file descriptors, no event announces the connections that
        // still wait.
        self.accept(limits::TURN_ARRIVALS_MAX);
        let idle_is_over = self
            .shared
            .handoff
            .lifecycle
            .stopping_since()
            .is_some_and(|since| now.duration_since(since) > Duration::from_millis(limits::STOPPING_IDLE_MS));
        if idle_is_over {
            let (idle, head) = (self.shared.timeouts.idle, self.shared.timeouts.head);
            for index in self.timers.longest_waiting(idle, head).collect::<Vec<_>>() {
                if self.slots.get(index).and_then(Option::as_ref).is_some_and(Slot::is_idle) {
                    self.close(index);
                }
            }
            self.close_those_without_proxy_header();
        }
        self.has_due = true;
        if self.outbox.has_room(Size::Small) || self.shared.health.is_stuck() {
            self.visits.extend_begun(self.stalled.drain(..));
        }
        let kept = Duration::from_secs(limits::MEMORY_KEPT_SECONDS);
        if self.served.is_some_and(|served| now.duration_since(served) > kept) && self.outbox.is_empty() {
            self.served = None;
            self.outbox.shrink();
            self.large.shrink();
            self.buffers.shrink();
        }
    }

    /// Ends the time of connections whose deadline has passed: of so many in this turn, since thousands may
    /// have come at once.
    fn end_overdue(&mut self) {
        for _ in 0..limits::TURN_TIME_OUTS_MAX {
            if !self.has_due {
                return;
            }
            match self.timers.take_due(self.now) {
                Some(index) => self.time_out(index),
                None => self.has_due = false,
            }
        }
    }
}

/// The result of a wait, with success for a wait that a signal has interrupted.
fn uninterrupted(waited: io::Result<()>) -> io::Result<()> {
    match waited {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        waited => waited,
    }
}

/// The slot of the waiter; `None` when its connection is closed.
fn slot_of(slots: &mut [Option<Slot>], waiter: Waiter) -> Option<&mut Slot> {
    slots.get_mut(waiter.slot)?.as_mut().filter(|slot| slot.generation == waiter.generation)
}

#[cfg(test)]
mod tests;
