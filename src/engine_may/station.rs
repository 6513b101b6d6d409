//! What a worker is to the own loop: an api, the batches of it under way, and who waits for them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use may::coroutine::{self, Coroutine};
use may::sync::{Mutex, MutexGuard};

use super::Settler;
use crate::api::{Answer, Api, Fault, Reply, Route, Shed};
use crate::batch::Sequence;
use crate::clock::unix_ms;
use crate::connection::{Committed, Replies, ReplyOptions, Service, Wire};
use crate::handoff::Subscription;
use crate::http::{Head, Status};
use crate::intake::awaiting::AwaitingInserts;
use crate::intake::metrics::WorkerMetrics;
use crate::intake::outbox::{Outbox, Settled, Waiter};
use crate::intake::{RequestContext, Shared, decide};
use crate::limits;
use crate::schema::SchemaVersion;

/// The connections whose descriptors `may` polls on one thread, with what serves them.
pub(super) struct Station {
    index: usize,
    pub(super) shared: Arc<Shared>,
    /// Open connections.
    pub(super) open: AtomicUsize,
    closed: AtomicBool,
    /// Nobody waits for anything while he has it. It is `may`'s: it parks the coroutine, not the thread.
    inner: Mutex<Inner>,
}

struct Inner {
    api: Api,
    /// What `api` encodes for.
    schema: Subscription<SchemaVersion>,
    outbox: Outbox,
    metrics: Arc<WorkerMetrics>,
    seats: Vec<Seat>,
    vacant: Vec<usize>,
    generation: u64,
    /// Who waits for room in the outbox.
    stalled: Vec<Coroutine>,
    /// Seats with a reply that waits for the insert of a segment.
    awaiting: AwaitingInserts,
    swept: Instant,
    /// The server has stopped for so long that no events are taken any more.
    refusing: bool,
}

/// A request that is served, and its coroutine.
struct Seat {
    generation: u64,
    replies: Replies,
    coroutine: Coroutine,
}

/// The caller's seat, and the batch that its events are in.
pub(super) struct Ticket {
    seat: usize,
    sequence: Option<Sequence>,
}

impl Station {
    pub(super) fn new(index: usize, api: Api, shared: Arc<Shared>, metrics: Arc<WorkerMetrics>) -> Self {
        let inner = Inner {
            api,
            schema: Subscription::new(shared.schema.clone()),
            outbox: Outbox::new(index, shared.budget.clone()),
            metrics,
            seats: Vec::new(),
            vacant: Vec::new(),
            generation: 0,
            stalled: Vec::new(),
            awaiting: AwaitingInserts::default(),
            swept: Instant::now(),
            refusing: false,
        };
        Self { index, shared, open: AtomicUsize::new(0), closed: AtomicBool::new(false), inner: Mutex::new(inner) }
    }

    /// True when the server stops, no events are taken any more, and none wait for the committer.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// What a head asks for.
    pub(super) fn route(&self, head: &Head<'_>) -> Route {
        self.lock().api.route(head)
    }

    /// Counts a reply.
    pub(super) fn count(&self, status: Status) {
        self.lock().metrics.replies.count(status.code());
    }

    /// Counts a shed request.
    pub(super) fn shed(&self, reason: Shed) {
        self.lock().metrics.shed(reason, 1);
    }

    /// Serves a request whose body is complete; its coroutine waits while there is no room.
    pub(super) fn serve(&self, route: Route, body: &[u8], options: ReplyOptions, client_ip: IpAddr) -> Ticket {
        let me = coroutine::current();
        let mut guard = loop {
            let mut guard = self.lock();
            if guard.outbox.has_room() {
                break guard;
            }
            guard.stalled.push(me.clone());
            drop(guard);
            coroutine::park();
        };
        let inner = &mut *guard;
        inner.follow_schema(&self.shared);
        let waiter = inner.take_seat(me);
        let answer = if inner.refusing && matches!(route, Route::Events(_)) {
            Answer::Now(self.shared.health.reply())
        } else {
            let mut context = RequestContext {
                api: &mut inner.api,
                outbox: &mut inner.outbox,
                shared: &self.shared,
                metrics: &inner.metrics,
                waiter,
                client_ip,
            };
            context.serve(route, body)
        };
        let sequence = match &answer {
            Answer::Now(_) => None,
            Answer::AfterCommit { sequence, .. } => Some(*sequence),
        };
        if let Some(seat) = inner.seat(waiter) {
            seat.replies.push(answer, options);
        }
        Ticket { seat: waiter.slot, sequence }
    }

    /// Waits for the reply, and gives the seat back.
    pub(super) fn reply_of(&self, ticket: Ticket) -> (Reply, ReplyOptions) {
        if let Some(sequence) = ticket.sequence {
            // All that are ready put their events into the batch first.
            coroutine::yield_now();
            self.lock().outbox.hand_over_batch(sequence, &self.shared.handoff);
        }
        loop {
            let mut inner = self.lock();
            match inner.seats.get_mut(ticket.seat).map(|seat| seat.replies.next()) {
                Some(Some((Wire::Reply(reply), options))) => {
                    inner.vacant.push(ticket.seat);
                    return (reply, options);
                }
                Some(_) => {}
                None => return (Reply::Fault(Shed::CommitTimeout.into()), ReplyOptions::LAST),
            }
            drop(inner);
            coroutine::park();
        }
    }

    /// Takes back what the committer has decided, and wakes who waits for it, until the process ends.
    pub(super) fn settle_for_ever(&self, settler: &Settler) {
        let _ = settler.set(coroutine::current());
        let Some(mailbox) = self.shared.handoff.mailbox(self.index) else { return };
        loop {
            self.turn();
            if mailbox.may_sleep() {
                self.shared.handoff.worker_sleeps();
                coroutine::park();
            }
            mailbox.awake();
        }
    }

    fn turn(&self) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (now, shared) = (Instant::now(), &*self.shared);
        let mailbox = shared.handoff.mailbox(self.index);
        while let Some(returned) = mailbox.and_then(|mailbox| mailbox.take()) {
            if let Some(settled) = inner.outbox.settle(returned) {
                inner.settle(settled, shared, now);
            }
        }
        if mailbox.is_some_and(|mailbox| mailbox.take_news()) {
            inner.take_inserted(shared);
        }
        if now.duration_since(inner.swept) >= Duration::from_millis(limits::SWEEP_MS) {
            inner.swept = now;
            inner.metrics.heartbeat_ms.set(unix_ms());
            inner.metrics.connections.set(self.open.load(Ordering::Relaxed) as u64);
            while let Some(settled) = inner.outbox.overdue(shared.timeouts.commit) {
                inner.settle(settled, shared, now);
            }
            inner.give_up_inserts(shared, now);
        }
        if let Some(since) = shared.handoff.lifecycle.stopping_since() {
            // A request that is on its way has a moment to come.
            inner.refusing = now.duration_since(since) > Duration::from_millis(limits::STOPPING_IDLE_MS);
            if inner.refusing && inner.outbox.is_empty() {
                self.closed.store(true, Ordering::SeqCst);
            }
        }
        for coroutine in inner.stalled.drain(..) {
            coroutine.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What panicked ended the process, but for a build for tests.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The table has changed: what is served from here on is encoded for what it is now.
    fn follow_schema(&mut self, shared: &Shared) {
        if let Some(version) = self.schema.changed() {
            self.outbox.change_schema(version.frozen.clone(), &shared.handoff);
            self.api.follow(version.plan.clone());
        }
    }

    fn take_seat(&mut self, coroutine: Coroutine) -> Waiter {
        self.generation += 1;
        let seat = Seat { generation: self.generation, replies: Replies::default(), coroutine };
        let slot = self.vacant.pop().unwrap_or(self.seats.len());
        match self.seats.get_mut(slot) {
            Some(place) => *place = seat,
            None => self.seats.push(seat),
        }
        Waiter { slot, generation: self.generation }
    }

    fn seat(&mut self, waiter: Waiter) -> Option<&mut Seat> {
        seat_of(&mut self.seats, waiter)
    }

    fn settle(&mut self, settled: Settled, shared: &Shared, now: Instant) {
        let outcome: Result<Committed, Fault> = decide(&settled, &self.metrics, now + shared.timeouts.inserted);
        for waiter in &settled.waiters {
            let Some(seat) = seat_of(&mut self.seats, *waiter) else { continue };
            let waits = seat.replies.settle(settled.sequence, outcome);
            if waits && let Ok(Committed { segment: Some(segment), .. }) = outcome {
                if self.awaiting.add(segment, *waiter, &shared.handoff.inserted) {
                    continue;
                }
                seat.replies.inserted(segment);
            }
            seat.coroutine.unpark();
        }
        self.outbox.recycle(settled.waiters);
    }

    /// Wakes those whose segments are proven.
    fn take_inserted(&mut self, shared: &Shared) {
        for (segment, waiter) in self.awaiting.take_proven(&shared.handoff.inserted) {
            if let Some(seat) = self.seat(waiter) {
                seat.replies.inserted(segment);
                seat.coroutine.unpark();
            }
        }
    }

    /// Answers 202 where the time is over, or the server stops.
    fn give_up_inserts(&mut self, shared: &Shared, now: Instant) {
        // A stop does not wait for ClickHouse: no reply waits longer than the whole time.
        let stopping = shared.handoff.lifecycle.is_stopping();
        let reached = if stopping { now + shared.timeouts.inserted } else { now };
        let Self { awaiting, seats, .. } = self;
        awaiting.retain(&shared.handoff.inserted, |waiter| {
            seat_of(seats, waiter).is_some_and(|seat| {
                seat.replies.give_up_inserts(reached);
                let waits = seat.replies.awaits_insert();
                if !waits {
                    seat.coroutine.unpark();
                }
                waits
            })
        });
    }
}

/// The waiter's seat, unless another request has it by now.
fn seat_of(seats: &mut [Seat], waiter: Waiter) -> Option<&mut Seat> {
    seats.get_mut(waiter.slot).filter(|seat| seat.generation == waiter.generation)
}
