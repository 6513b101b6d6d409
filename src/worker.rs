//! The event loop of one pinned core.
//!
//! A turn: wait for the kernel, take back what the committer has decided and send those replies,
//! then visit every connection that has input once (one read of at most
//! [`limits::READ_SCRATCH_BYTES`] each, so that no client holds up the others), and hand over the
//! batch that came together. `mio` is edge-triggered: a connection that was not read to its end is
//! queued and visited in the next turn.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::api::{Answer, Api, Fault, Reply, Route};
use crate::connection::{Connection, RequestLimits, Service, Waiting};
use crate::figures::{Shed, WorkerFigures, unix_ms};
use crate::handoff::{Arrival, CommitOutcome, Handoff};
use crate::health::Health;
use crate::http::{DateCache, Head, Status};
use crate::limits;
use crate::ndjson::Origin;
use crate::outbox::{Outbox, Settled, Waiter};
use crate::slot::{BufferPool, InFlight, ReadOutcome, Slot, read_some};

/// The mailbox's waker.
pub const WAKE: Token = Token(0);
const FIRST_LISTENER: usize = 1;

/// Time-outs of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// Between two requests, and for a peer that does not read its replies.
    pub idle: Duration,
    /// From a served request to the outcome of its commit.
    pub commit: Duration,
}

/// What all workers share.
pub struct Shared {
    /// The way to the committer.
    pub handoff: Arc<Handoff>,
    /// Would an event be taken?
    pub health: Arc<Health>,
    /// Set when the server stops; wake the mailboxes afterwards.
    pub stopping: AtomicBool,
    /// The budget of buffers.
    pub in_flight: Arc<InFlight>,
    /// `--connections-max`.
    pub connections_max: usize,
    /// Bounds of a request.
    pub request_limits: RequestLimits,
    /// Time-outs of connections.
    pub timeouts: Timeouts,
}

/// One worker.
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    figures: Arc<WorkerFigures>,
    poll: Poll,
    listeners: Vec<TcpListener>,
    slots: Vec<Option<Slot>>,
    vacant: Vec<usize>,
    open: usize,
    generation: u64,
    visits: VecDeque<usize>,
    api: Api,
    outbox: Outbox,
    buffers: BufferPool,
    scratch: Box<[u8]>,
    out: Vec<u8>,
    date: DateCache,
    swept: Instant,
    stopping_since: Option<Instant>,
}

impl Worker {
    /// A worker on `poll`, whose waker is its mailbox's, with its own listening sockets.
    ///
    /// # Errors
    ///
    /// When the listeners can't be registered.
    pub fn new(
        index: usize,
        poll: Poll,
        mut listeners: Vec<TcpListener>,
        api: Api,
        shared: Arc<Shared>,
        figures: Arc<WorkerFigures>,
    ) -> io::Result<Self> {
        for (listener, token) in listeners.iter_mut().zip(FIRST_LISTENER..) {
            poll.registry().register(listener, Token(token), Interest::READABLE)?;
        }
        let mut date = DateCache::default();
        date.update(unix_ms() / 1000);
        Ok(Self {
            index,
            figures,
            poll,
            listeners,
            slots: Vec::new(),
            vacant: Vec::new(),
            open: 0,
            generation: 0,
            visits: VecDeque::new(),
            api,
            outbox: Outbox::new(index),
            buffers: BufferPool::new(shared.in_flight.clone()),
            scratch: vec![0; limits::READ_SCRATCH_BYTES].into_boxed_slice(),
            out: Vec::with_capacity(16 << 10),
            date,
            swept: Instant::now(),
            stopping_since: None,
            shared,
        })
    }

    /// Serves until the server stops and every request that was begun is answered.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to wait for events: nothing can be served then.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        // A connection may have come between binding and registering.
        self.accept_all();
        while !self.is_done() {
            self.wait(&mut events)?;
            for event in &events {
                self.notice(event);
            }
            self.take_arrivals();
            self.take_returned();
            for _ in 0..self.visits.len() {
                if let Some(slot) = self.visits.pop_front() {
                    self.visit(slot);
                }
            }
            self.outbox.hand_over(&self.shared.handoff);
            self.sweep();
        }
        Ok(())
    }

    fn is_done(&mut self) -> bool {
        if !self.shared.stopping.load(Ordering::Relaxed) {
            return false;
        }
        if self.stopping_since.is_none() {
            self.stopping_since = Some(Instant::now());
            self.accept_all();
            self.listeners.clear();
        }
        self.take_arrivals();
        self.open == 0 && self.outbox.is_empty()
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let mailbox = self.shared.handoff.mailbox(self.index);
        let busy = !self.visits.is_empty() && self.outbox.has_room();
        let sleep = !busy && mailbox.is_none_or(|mailbox| mailbox.may_sleep());
        let timeout = if sleep { Duration::from_millis(limits::SWEEP_MS) } else { Duration::ZERO };
        let waited = self.poll.poll(events, Some(timeout));
        if let Some(mailbox) = mailbox {
            mailbox.awake();
        }
        match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
    }

    fn notice(&mut self, event: &Event) {
        let Token(token) = event.token();
        let first_slot = FIRST_LISTENER + limits::LISTENERS_MAX;
        if token == WAKE.0 {
            return;
        }
        if token < first_slot {
            self.accept_all();
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
            self.visits.push_back(index);
        }
    }

    /// Accepts until nothing is left, and hands what another worker has more room for to it.
    fn accept_all(&self) {
        for listener in &self.listeners {
            loop {
                match listener.accept() {
                    Ok((stream, peer)) => self.shared.handoff.place(self.index, Arrival { stream, peer }),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            tracing::warn!(%error, "a connection can't be accepted; is the limit of open files too low?");
                        }
                        break;
                    }
                }
            }
        }
    }

    fn take_arrivals(&mut self) {
        while let Some(arrival) = self.shared.handoff.mailbox(self.index).and_then(|mailbox| mailbox.arrival()) {
            self.admit(arrival);
        }
    }

    fn admit(&mut self, Arrival { stream, peer }: Arrival) {
        let total = self.shared.handoff.connections();
        if total > self.shared.connections_max + limits::REFUSED_CONNECTIONS_MAX {
            self.figures.shed(Shed::Connections, 1);
            self.shared.handoff.leave(self.index);
            return;
        }
        // Replies are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        self.generation += 1;
        let mut slot = Slot {
            stream,
            peer: client_ip(peer),
            generation: self.generation,
            connection: Connection::default(),
            kept: Vec::new(),
            unsent: Vec::new(),
            readable: true,
            read_closed: false,
            queued: true,
            lingering: false,
            deadline: (Waiting::Request, Instant::now() + self.shared.timeouts.idle),
        };
        let index = self.vacant.pop().unwrap_or(self.slots.len());
        let token = Token(index + FIRST_LISTENER + limits::LISTENERS_MAX);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut slot.stream, token, interest) {
            tracing::warn!(%error, "a connection can't be registered");
            self.vacant.extend((index < self.slots.len()).then_some(index));
            self.shared.handoff.leave(self.index);
            return;
        }
        if total > self.shared.connections_max {
            self.figures.shed(Shed::Connections, 1);
            slot.connection.refuse(Shed::Connections.into());
        }
        match self.slots.get_mut(index) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        self.open += 1;
        self.figures.connections.set(self.open as u64);
        self.visits.push_back(index);
    }

    /// Sends the replies of every batch that the committer has decided.
    fn take_returned(&mut self) {
        while let Some(returned) = self.shared.handoff.mailbox(self.index).and_then(|mailbox| mailbox.take()) {
            if let Some(settled) = self.outbox.settle(returned) {
                self.settle(settled);
            }
        }
    }

    fn settle(&mut self, settled: Settled) {
        let refused = match settled.outcome {
            Some(CommitOutcome::Committed { .. }) => {
                self.figures.accepted.add(u64::from(settled.rows));
                None
            }
            Some(CommitOutcome::Refused(refusal)) => Some(refusal.into()),
            None => Some(Shed::CommitTimeout),
        };
        let requests = settled.waiters.len() as u64;
        if let Some(reason) = refused {
            self.figures.shed(reason, requests);
        }
        self.figures.request_took(settled.elapsed, requests);
        for waiter in &settled.waiters {
            let Some(Some(slot)) = self.slots.get_mut(waiter.slot) else {
                continue;
            };
            if slot.generation != waiter.generation {
                continue;
            }
            slot.connection.settle(settled.sequence, refused);
            let stalled = slot.readable || !slot.kept.is_empty();
            if !self.send(waiter.slot) {
                continue;
            }
            // It may have stopped reading for the want of room for replies.
            if stalled {
                self.enqueue(waiter.slot);
            }
        }
        self.outbox.recycle(settled.waiters);
    }

    fn enqueue(&mut self, index: usize) {
        if let Some(Some(slot)) = self.slots.get_mut(index)
            && !slot.queued
        {
            slot.queued = true;
            self.visits.push_back(index);
        }
    }

    /// Reads once from a connection, serves what is complete, and sends what is due.
    fn visit(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        slot.queued = false;
        if !slot.write_unsent() {
            return self.close(index);
        }
        if !slot.unsent.is_empty() {
            // A peer that does not read its replies is not read either.
            return;
        }
        if slot.lingering {
            return self.discard(index);
        }
        if !self.outbox.has_room() {
            // Comes again by itself when the committer returns a batch.
            return self.enqueue(index);
        }
        if !self.receive(index) || !self.send(index) {
            return;
        }
        if let Some(Some(slot)) = self.slots.get_mut(index) {
            let due = !slot.connection.is_closing() && slot.readable && slot.unsent.is_empty();
            self.set_deadline(index);
            if due {
                self.enqueue(index);
            }
        }
    }

    /// False when the connection is gone.
    fn receive(&mut self, index: usize) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        let mut desk = Desk {
            api: &mut self.api,
            outbox: &mut self.outbox,
            shared: &self.shared,
            figures: &self.figures,
            waiter: Waiter { slot: index, generation: slot.generation },
            client_ip: slot.peer,
        };
        let limits = &self.shared.request_limits;
        if slot.connection.is_closing() {
            return true;
        }
        if !slot.kept.is_empty() && slot.connection.is_paused() {
            // What is there already comes first.
            let received = slot.connection.receive(&mut slot.kept, limits, &mut desk);
            slot.kept.truncate(received.kept.end);
            slot.kept.drain(..received.kept.start);
            if slot.kept.is_empty() {
                self.buffers.give_back(&mut slot.kept);
            }
            if slot.connection.is_paused() {
                return true;
            }
        }
        if !slot.readable {
            return true;
        }
        let len = match read_some(&mut slot.stream, &mut self.scratch, slot.read_closed) {
            ReadOutcome::Bytes(len) => len,
            ReadOutcome::Drained(len) => {
                slot.readable = false;
                len
            }
            ReadOutcome::End => {
                slot.readable = false;
                slot.connection.end_of_input();
                self.buffers.give_back(&mut slot.kept);
                return true;
            }
            ReadOutcome::Broken => {
                self.close(index);
                return false;
            }
        };
        let Some(fresh) = self.scratch.get_mut(..len) else {
            return true;
        };
        let kept_all = if slot.kept.is_empty() {
            let received = slot.connection.receive(fresh, limits, &mut desk);
            let kept = fresh.get(received.kept).unwrap_or_default();
            kept.is_empty() || self.buffers.append(&mut slot.kept, kept, received.expected)
        } else {
            let expected = slot.connection.expected();
            let appended = self.buffers.append(&mut slot.kept, fresh, expected);
            if appended {
                let received = slot.connection.receive(&mut slot.kept, limits, &mut desk);
                slot.kept.truncate(received.kept.end);
                slot.kept.drain(..received.kept.start);
            }
            appended
        };
        if !kept_all {
            self.figures.shed(Shed::InFlightBytes, 1);
            slot.connection.refuse(Shed::InFlightBytes.into());
            slot.kept.clear();
        }
        if slot.kept.is_empty() || slot.connection.is_closing() {
            slot.kept.clear();
            self.buffers.give_back(&mut slot.kept);
        }
        true
    }

    /// Renders the replies whose turn it is and sends them. False when the connection is gone.
    fn send(&mut self, index: usize) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        self.out.clear();
        let last = self.stopping_since.is_some() && slot.kept.is_empty();
        let figures = &self.figures;
        slot.connection.render(&mut self.out, &self.date, last, |status| figures.replies.count(status.code()));
        if !self.out.is_empty() && !slot.write(&self.out) {
            self.close(index);
            return false;
        }
        if slot.connection.is_finished() && slot.unsent.is_empty() {
            return self.end(index);
        }
        self.set_deadline(index);
        true
    }

    /// The last reply is out: close, or read on for a while if the peer may still be sending.
    fn end(&mut self, index: usize) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        let peer_is_done = slot.read_closed && !slot.readable;
        if peer_is_done || !slot.connection.was_refused() {
            self.close(index);
            return false;
        }
        slot.linger();
        slot.deadline = (Waiting::Reply, Instant::now() + Duration::from_secs(limits::LINGER_SECONDS));
        self.enqueue(index);
        true
    }

    fn discard(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        match read_some(&mut slot.stream, &mut self.scratch, slot.read_closed) {
            ReadOutcome::Bytes(_) => self.enqueue(index),
            ReadOutcome::Drained(_) => slot.readable = false,
            ReadOutcome::End | ReadOutcome::Broken => self.close(index),
        }
    }

    fn set_deadline(&mut self, index: usize) {
        let timeouts = &self.shared.timeouts;
        if let Some(Some(slot)) = self.slots.get_mut(index) {
            let waiting = slot.connection.waiting();
            // A head's time is not renewed by each of its bytes; a body's is.
            if slot.lingering || (waiting == Waiting::Head && slot.deadline.0 == Waiting::Head) {
                return;
            }
            let time = match waiting {
                Waiting::Head => timeouts.head,
                Waiting::Body => timeouts.body,
                Waiting::Request => timeouts.idle,
                Waiting::Reply => timeouts.idle.max(timeouts.commit * 2),
            };
            slot.deadline = (waiting, Instant::now() + time);
        }
    }

    /// Once in a while: the date, the heartbeat, time-outs, and what a stop closes.
    fn sweep(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.swept) < Duration::from_millis(limits::SWEEP_MS) {
            return;
        }
        self.swept = now;
        let unix_ms = unix_ms();
        self.date.update(unix_ms / 1000);
        self.figures.heartbeat_ms.set(unix_ms);
        while let Some(settled) = self.outbox.overdue(self.shared.timeouts.commit) {
            self.settle(settled);
        }
        // Where accepting failed for the want of files, the edge is gone: look again.
        self.accept_all();
        let idle_is_over = self
            .stopping_since
            .is_some_and(|since| now.duration_since(since) > Duration::from_millis(limits::STOPPING_IDLE_MS));
        for index in 0..self.slots.len() {
            let Some(Some(slot)) = self.slots.get_mut(index) else {
                continue;
            };
            let idle = slot.connection.is_idle() && slot.unsent.is_empty() && !slot.readable;
            if idle && idle_is_over {
                self.close(index);
            } else if slot.deadline.1 <= now {
                self.time_out(index);
            }
        }
    }

    fn time_out(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        let message = match slot.connection.waiting() {
            Waiting::Head if !slot.lingering => "The head of the request took too long.",
            Waiting::Body if !slot.lingering => "The body of the request took too long.",
            _ => return self.close(index),
        };
        slot.connection.refuse(Fault::new(Status::RequestTimeout, "request_timeout", message));
        self.buffers.give_back(&mut slot.kept);
        self.send(index);
    }

    fn close(&mut self, index: usize) {
        let Some(mut slot) = self.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        let _ = self.poll.registry().deregister(&mut slot.stream);
        self.buffers.give_back(&mut slot.kept);
        self.vacant.push(index);
        self.open -= 1;
        self.figures.connections.set(self.open as u64);
        self.shared.handoff.leave(self.index);
    }
}

/// What a connection sees of its worker while a request of it is served.
struct Desk<'a> {
    api: &'a mut Api,
    outbox: &'a mut Outbox,
    shared: &'a Shared,
    figures: &'a WorkerFigures,
    waiter: Waiter,
    client_ip: IpAddr,
}

impl Service for Desk<'_> {
    fn route(&self, head: &Head<'_>) -> Route {
        self.api.route(head)
    }

    fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    fn serve(&mut self, route: Route, body: &[u8]) -> (Answer, u64) {
        let dry_run = match route {
            Route::Events { dry_run } => dry_run,
            Route::Health => return (Answer::now(self.shared.health.reply()), 0),
            Route::Options(allow) => return (Answer::now(Reply::Allow(allow)), 0),
            Route::Refuse(fault) => return (Answer::now(Reply::Fault(fault)), 0),
        };
        let origin = Origin { client_ip: self.client_ip, server_time_unix_ns: unix_ns() };
        let Some((batch, sequence)) = self.outbox.filling() else {
            return (Answer::now(Reply::Fault(Shed::InFlightBytes.into())), 0);
        };
        let answer = self.api.take_events(body, dry_run, &origin, batch);
        let report = self.api.report();
        self.figures.received.add(u64::from(report.accepted) + u64::from(report.rejected));
        if !dry_run && report.rejected > 0 {
            for (counter, count) in self.figures.rejected.iter().zip(&report.rejected_by_code) {
                counter.add(u64::from(*count));
            }
        }
        if answer.after_commit {
            self.outbox.wait_for_filling(self.waiter, &self.shared.handoff);
        }
        (answer, sequence)
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn client_ip(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
