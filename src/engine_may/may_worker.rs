//! The counterpart of `worker::Worker` for coroutines: the API, the batches, and the requests that wait
//! for them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use may::coroutine::{self, Coroutine};
use may::sync::{Mutex, MutexGuard};

use super::Settler;
use crate::api::{Answer, Api, Reply, ReplyFields, RequestValues, Route, Shed};
use crate::batch::Sequence;
use crate::clock::monotonic_ms;
use crate::connection::{Client, Replies, ReplyOptions, Wire};
use crate::http::{Head, Status};
use crate::intake::awaiting::AwaitingInserts;
use crate::intake::budget::{Charge, Size};
use crate::intake::metrics::WorkerMetrics;
use crate::intake::outbox::{Outbox, Settled, Waiter};
use crate::intake::{Hop, LargeRequests, RequestContext, SchemaFollower, Shared, count, decide};
use crate::limits;

/// A worker of this engine. Its connections are those whose file descriptors `may` polls on one thread.
pub(super) struct MayWorker {
    index: usize,
    pub(super) shared: Arc<Shared>,
    /// The number of open connections.
    pub(super) open: AtomicUsize,
    closed: AtomicBool,
    /// A coroutine that holds the lock never parks. The mutex is that of `may`, which parks a waiting
    /// coroutine and not its thread.
    inner: Mutex<Inner>,
}

/// The state of a worker under its lock.
struct Inner {
    api: Api,
    /// The schemas that `api` encodes for.
    schemas: SchemaFollower,
    outbox: Outbox,
    metrics: Arc<WorkerMetrics>,
    /// The requests that are being served.
    slots: Vec<RequestSlot>,
    /// The indexes of vacant slots.
    vacant: Vec<usize>,
    /// The generation of the newest request.
    generation: u64,
    /// The coroutines that wait for room in the outbox.
    stalled: Vec<Coroutine>,
    /// Requests with a reply that waits for the insert of a block.
    awaiting: AwaitingInserts,
    /// When the periodic work was last done.
    swept: Instant,
    /// The server has been stopping for [`limits::STOPPING_IDLE_MS`]: events are refused.
    refusing: bool,
}

/// The slot of a request that is being served, with the request's coroutine.
struct RequestSlot {
    generation: u64,
    replies: Replies,
    /// What its reply takes of the budget.
    charge: Charge,
    coroutine: Coroutine,
}

/// A served request whose reply [`MayWorker::reply_of`] waits for.
pub(super) struct PendingReply {
    /// The index of the request's slot.
    slot: usize,
    /// The batch with the request's events, if the reply waits for one.
    sequence: Option<Sequence>,
}

impl MayWorker {
    pub(super) fn new(index: usize, api: Api, shared: Arc<Shared>, metrics: Arc<WorkerMetrics>) -> Self {
        let inner = Inner {
            api: api.without_codings(),
            schemas: SchemaFollower::new(&shared.schemas),
            outbox: Outbox::new(
                index,
                shared.handoff.batches(index),
                shared.schemas.values().len(),
                shared.budget.clone(),
            ),
            metrics,
            slots: Vec::new(),
            vacant: Vec::new(),
            generation: 0,
            stalled: Vec::new(),
            awaiting: AwaitingInserts::default(),
            swept: Instant::now(),
            refusing: false,
        };
        Self { index, shared, open: AtomicUsize::new(0), closed: AtomicBool::new(false), inner: Mutex::new(inner) }
    }

    /// True when the server stops, events are refused, and no batch is under way.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Selects the operation of a request by its head, and what the columns of its table get of the head.
    pub(super) fn route(&self, head: &Head<'_>) -> (Route, Option<Arc<RequestValues>>) {
        let mut inner = self.lock();
        inner.follow_schemas(&self.shared);
        let route = inner.api.route(head);
        // No proxy is trusted here, so every header is believed.
        let mut fields = ReplyFields::new(&self.shared.cors, None, head.request_id);
        (route, inner.api.values(route, head, true, &mut fields))
    }

    /// Counts a reply.
    pub(super) fn count(&self, status: Status) {
        self.lock().metrics.replies.count(status.code());
    }

    /// Counts a shed request.
    pub(super) fn shed(&self, reason: Shed) {
        self.lock().metrics.shed(reason, 1);
    }

    /// Serves a request whose body is complete. Parks the coroutine while the outbox has no room.
    pub(super) fn serve(
        &self,
        route: Route,
        body: &[u8],
        options: ReplyOptions,
        Client { address: client_ip, values }: Client<'_>,
    ) -> PendingReply {
        let me = coroutine::current();
        let mut guard = loop {
            let mut guard = self.lock();
            if !matches!(route, Route::Events(_))
                || guard.outbox.has_room(Size::of(body.len()))
                || self.shared.health.is_stuck()
            {
                break guard;
            }
            guard.stalled.push(me.clone());
            drop(guard);
            coroutine::park();
        };
        let inner = &mut *guard;
        inner.follow_schemas(&self.shared);
        if let Route::Events(options) = route {
            inner.api.set_request(options.table, values);
        }
        let waiter = inner.take_slot(me, self.shared.budget.open(None));
        let mut charge = self.shared.budget.open_for_replies(client_ip);
        let answer = if inner.refusing && matches!(route, Route::Events(_)) {
            Answer::Now(self.shared.health.reply())
        } else {
            let mut context = RequestContext {
                api: &mut inner.api,
                outbox: &mut inner.outbox,
                large: &mut LargeRequests::default(),
                shared: &self.shared,
                metrics: &inner.metrics,
                waiter,
                hop: Hop::client(client_ip),
                client_ip,
                quota: None,
                replies: &mut charge,
                decoded_left: 0,
            };
            // A coroutine has no next turn: a large body holds up those on its thread.
            context.serve_at_once(route, body)
        };
        let sequence = match &answer {
            Answer::Now(_) => None,
            Answer::AfterCommit { sequence, .. } => Some(*sequence),
        };
        if let Some(slot) = inner.slot(waiter) {
            slot.replies.push(answer, options, ReplyFields::default());
            slot.charge = charge;
        }
        PendingReply { slot: waiter.slot, sequence }
    }

    /// Waits for the reply, and vacates the slot. Parks the coroutine meanwhile.
    pub(super) fn reply_of(&self, pending: PendingReply) -> (Reply, ReplyOptions) {
        if let Some(sequence) = pending.sequence {
            // All coroutines that are ready add their events to the batches before these are handed over.
            coroutine::yield_now();
            self.lock().outbox.hand_over_batch(sequence, &self.shared.handoff);
        }
        loop {
            let mut inner = self.lock();
            match inner.slots.get_mut(pending.slot).map(|slot| slot.replies.next()) {
                Some(Some((Wire::Reply(reply), options, _))) => {
                    if let Some(slot) = inner.slots.get_mut(pending.slot) {
                        slot.charge.set(0);
                    }
                    inner.vacant.push(pending.slot);
                    return (reply, options);
                }
                Some(_) => {}
                None => return (Reply::Fault(Shed::CommitTimeout.into()), ReplyOptions::LAST),
            }
            drop(inner);
            coroutine::park();
        }
    }

    /// The settler: takes returned batches from the committer and unparks the coroutines that wait for
    /// them, until the process ends.
    pub(super) fn run_settler(&self, settler: &Settler) {
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

    /// One turn of the settler: returned batches, confirmed blocks, time-outs and the stop.
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
            inner.metrics.heartbeat_ms.set(monotonic_ms());
            inner.metrics.connections.set(self.open.load(Ordering::Relaxed) as u64);
            while let Some(settled) = inner.outbox.overdue(shared.timeouts.commit) {
                inner.settle(settled, shared, now);
            }
            inner.give_up_inserts(shared, now);
        }
        if let Some(since) = shared.handoff.lifecycle.stopping_since() {
            // Requests that are on their way when the stop begins are still served.
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
        // A panic aborts the process, except in a build for tests.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Encodes all further events for the newest schemas. No large request is under way between two calls.
    fn follow_schemas(&mut self, shared: &Shared) {
        let Self { schemas, api, outbox, .. } = self;
        schemas.follow(api, outbox, &shared.handoff, |_| ());
    }

    fn take_slot(&mut self, coroutine: Coroutine, charge: Charge) -> Waiter {
        self.generation += 1;
        let slot = RequestSlot { generation: self.generation, replies: Replies::default(), charge, coroutine };
        let index = self.vacant.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(vacant) => *vacant = slot,
            None => self.slots.push(slot),
        }
        Waiter { slot: index, generation: self.generation }
    }

    fn slot(&mut self, waiter: Waiter) -> Option<&mut RequestSlot> {
        slot_of(&mut self.slots, waiter)
    }

    fn settle(&mut self, mut settled: Settled, shared: &Shared, now: Instant) {
        count(&mut settled, shared, &self.metrics);
        let until = now + shared.timeouts.inserted;
        for waiter in &settled.waiters {
            let Some(slot) = slot_of(&mut self.slots, *waiter) else { continue };
            let mut waits = false;
            for block in slot.replies.settle(settled.sequence, |keyed| decide(&settled, keyed, until)) {
                if self.awaiting.add(block, *waiter, &shared.handoff.inserted) {
                    waits = true;
                } else {
                    slot.replies.inserted(block);
                }
            }
            if !waits {
                slot.coroutine.unpark();
            }
        }
        self.outbox.recycle(settled);
    }

    /// Unparks the coroutines whose blocks are confirmed.
    fn take_inserted(&mut self, shared: &Shared) {
        for (block, waiter) in self.awaiting.take_proven(&shared.handoff.inserted) {
            if let Some(slot) = self.slot(waiter) {
                slot.replies.inserted(block);
                slot.coroutine.unpark();
            }
        }
    }

    /// Answers 202 to the requests whose time for the insert is over; to all of them when the server
    /// stops.
    fn give_up_inserts(&mut self, shared: &Shared, now: Instant) {
        // A stop does not wait for ClickHouse: `until` of every reply is before now plus the time-out.
        let stopping = shared.handoff.lifecycle.is_stopping();
        let reached = if stopping { now + shared.timeouts.inserted } else { now };
        let Self { awaiting, slots, .. } = self;
        awaiting.retain(&shared.handoff.inserted, |waiter| {
            slot_of(slots, waiter).is_some_and(|slot| {
                slot.replies.give_up_inserts(reached);
                let waits = slot.replies.awaits_insert();
                if !waits {
                    slot.coroutine.unpark();
                }
                waits
            })
        });
    }
}

/// The slot of the waiter; `None` when another request uses it.
fn slot_of(slots: &mut [RequestSlot], waiter: Waiter) -> Option<&mut RequestSlot> {
    slots.get_mut(waiter.slot).filter(|slot| slot.generation == waiter.generation)
}
