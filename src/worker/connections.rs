//! Accepting, admitting and closing of connections.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use mio::{Interest, Token};

use super::slot::{Buffer, Slot};
use super::timers::Until;
use super::{FIRST_LISTENER, Worker};
use crate::api::{Shed, TOO_MANY_OF_ADDRESS};
use crate::connection::{Connection, Waiting};
use crate::handoff::Arrival;
use crate::intake::addresses::Admission;
use crate::intake::{Hop, Shared};
use crate::limits;
use crate::net::{Listener, Stream, Transport};

/// Between two lines that say the same.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Why a connection is closed without a reply.
#[derive(Debug, Clone, Copy)]
pub(super) enum Closed {
    /// With `--proxy-protocol`, its peer is not trusted.
    Untrusted,
    /// With `--proxy-protocol`, it begins with something else.
    NoHeader,
}

impl Worker {
    /// Accepts waiting connections, at most so many; those that are left are accepted in the next turn. Each
    /// goes to the worker with the fewest connections.
    pub(super) fn accept(&mut self, max: usize) {
        let mut left = max;
        for index in 0..self.listeners.len() {
            while self.may_accept()
                && let Some(accepted) = self.listeners.get(index).map(Listener::accept)
            {
                match accepted {
                    Ok((stream, peer)) => self.place(Arrival { stream, peer, is_passed: false }),
                    Err(error) => match error.kind() {
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                        io::ErrorKind::WouldBlock => break,
                        _ if self.close_an_idle_one() => {}
                        _ => {
                            self.say_not_accepted(&error);
                            break;
                        }
                    },
                }
                left -= 1;
                if left == 0 {
                    self.accept_again = true;
                    return;
                }
            }
        }
    }

    /// False when the next connection has to wait in the listener's queue: those that have just come may
    /// turn out to be idle, and make way.
    fn may_accept(&mut self) -> bool {
        if self.has_descriptors() {
            return true;
        }
        self.take_arrivals(limits::TURN_ARRIVALS_MAX);
        if self.has_descriptors() || self.close_an_idle_one() {
            return true;
        }
        self.accept_again = self.unvisited > 0;
        !self.accept_again
    }

    /// False when one more connection would take a descriptor that is kept back.
    fn has_descriptors(&self) -> bool {
        let most = self.shared.connections_max + limits::REFUSED_CONNECTIONS_MAX;
        self.shared.handoff.connections() < most
    }

    /// Hands a connection to its worker, or closes it without a word when there is no descriptor for it, or
    /// `--proxy-protocol` requires another peer. That one takes no place from others.
    fn place(&mut self, arrival: Arrival) {
        if self.shared.proxy_protocol && !self.shared.trusted.has_peer(arrival.peer) {
            return self.say_closed(arrival.peer, Closed::Untrusted);
        }
        if self.has_descriptors() {
            self.shared.handoff.place(self.index, arrival);
        } else {
            self.metrics.shed(Shed::Connections, 1);
        }
    }

    /// Says so once in a while: it is tried again several times a second.
    #[cold]
    fn say_not_accepted(&mut self, error: &io::Error) {
        if self.not_accepted_said.is_none_or(|said| self.now.duration_since(said) >= SAID_AGAIN) {
            self.not_accepted_said = Some(self.now);
            tracing::warn!(%error, "a connection can't be accepted; is the limit of open files too low?");
        }
    }

    /// Closes the connection that has waited longest for a request or for the end of a handshake, to make room
    /// for another. False when there is none, or each has a request on its way.
    fn close_an_idle_one(&mut self) -> bool {
        let timeouts = &self.shared.timeouts;
        // Were one kind taken first, peers that stay the other would close all connections of that kind.
        let found = self
            .timers
            .longest_waiting(timeouts.idle, timeouts.head)
            .take(limits::IDLE_SCAN_MAX)
            .find(|index| self.slots.get(*index).and_then(Option::as_ref).is_some_and(Slot::is_idle));
        if let Some(index) = found {
            self.close(index);
        }
        found.is_some()
    }

    /// Admits connections that were accepted for this worker, at most so many.
    pub(super) fn take_arrivals(&mut self, max: usize) {
        for _ in 0..max {
            let handoff = &self.shared.handoff;
            if handoff.mailbox(self.index).is_none_or(|mailbox| !mailbox.has_arrivals()) {
                return;
            }
            let is_one_too_many = handoff.admitted() >= self.shared.connections_max && !self.close_an_idle_one();
            if is_one_too_many && self.unvisited > 0 {
                // Once those that have come are looked at, they may make way.
                return;
            }
            let Some(arrival) = self.shared.handoff.mailbox(self.index).and_then(|mailbox| mailbox.arrival()) else {
                return;
            };
            let arrival = if is_one_too_many { self.shared.handoff.pass_on(self.index, arrival) } else { Err(arrival) };
            if let Err(arrival) = arrival {
                self.admit(arrival, is_one_too_many);
            }
        }
    }

    fn admit(&mut self, Arrival { stream, peer, .. }: Arrival, is_one_too_many: bool) {
        // Replies are written whole, so Nagle's algorithm would only delay them.
        stream.set_nodelay();
        self.generation += 1;
        let hop = Hop::new(peer, &self.shared.trusted);
        let Some(transport) = self.transport_of(&stream) else {
            self.shared.handoff.leave(self.index);
            return;
        };
        let is_handshaking = transport.is_handshaking();
        let (counted, is_one_too_many_of_address) = match count(&self.shared, hop) {
            None => (None, false),
            Some(Admission::Admitted(counted)) => (Some(counted), false),
            Some(Admission::OneTooMany(counted)) => (Some(counted), true),
            Some(Admission::Closed) => return self.shared.handoff.leave(self.index),
        };
        let mut slot = Slot {
            stream,
            transport,
            hop,
            awaits_proxy_header: self.shared.proxy_protocol,
            generation: self.generation,
            connection: Connection::default(),
            kept: Buffer::new(self.shared.budget.open(hop.share())),
            unsent: Vec::new(),
            untaken: 0,
            replies: self.shared.budget.open_for_replies(hop.share()),
            readable: true,
            read_closed: false,
            queued: true,
            is_unvisited: true,
            held_back: false,
            linger: None,
            counted,
            // A handshake is no request: what comes behind it has a time of its own.
            timed: (Waiting::Request, if is_handshaking { u64::MAX } else { 0 }),
            body: (0, self.now),
        };
        let index = self.vacant.pop().unwrap_or(self.slots.len());
        let token = Token(index + FIRST_LISTENER + limits::LISTENERS_MAX);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut slot.stream, token, interest) {
            tracing::warn!(%error, "can't register a connection with the event loop");
            self.vacant.extend((index < self.slots.len()).then_some(index));
            self.shared.handoff.leave(self.index);
            return;
        }
        if is_one_too_many {
            self.metrics.shed(Shed::Connections, 1);
            slot.connection.refuse(Shed::Connections.into());
        } else if is_one_too_many_of_address {
            slot.connection.refuse(TOO_MANY_OF_ADDRESS);
        }
        match self.slots.get_mut(index) {
            Some(vacant) => *vacant = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        if self.shared.proxy_protocol {
            self.timers.set(index, Until::Other, self.now + self.shared.timeouts.head);
        } else {
            self.set_first_deadline(index, is_handshaking);
        }
        self.open += 1;
        self.unvisited += 1;
        self.metrics.connections.set(self.open as u64);
        self.visits.push_fresh(index);
    }

    /// Sets the deadline of a connection of which no byte of TLS or HTTP has come.
    pub(super) fn set_first_deadline(&mut self, index: usize, is_handshaking: bool) {
        let (until, time) = match is_handshaking {
            true => (Until::Handshake, self.shared.timeouts.head),
            false => (Until::Idle, self.shared.timeouts.idle),
        };
        self.timers.set(index, until, self.now + time);
    }

    /// Says once in a while that a connection is closed without a reply.
    #[cold]
    pub(super) fn say_closed(&mut self, peer: Option<IpAddr>, why: Closed) {
        let (said, why) = match why {
            Closed::Untrusted => (&mut self.untrusted_said, "its peer is no --trusted-proxy"),
            Closed::NoHeader => (&mut self.no_header_said, "it begins with no header of the PROXY protocol"),
        };
        if said.is_none_or(|said| self.now.duration_since(said) >= SAID_AGAIN) {
            *said = Some(self.now);
            let peer = peer.map_or("unix:".to_owned(), |peer| peer.to_string());
            tracing::warn!(peer, "a connection is closed, as --proxy-protocol requires: {why}");
        }
    }

    /// What a fresh connection speaks; `None` if its TLS session can't begin. A process of this machine
    /// needs no TLS at a Unix socket.
    fn transport_of(&mut self, stream: &Stream) -> Option<Transport> {
        if let Some(tls) = &mut self.tls
            && let Some(config) = tls.changed()
        {
            self.tls_config = Some(config);
        }
        match &self.tls_config {
            Some(config) if matches!(stream, Stream::Tcp(_)) => match Transport::tls(config) {
                Ok(transport) => Some(transport),
                Err(error) => {
                    tracing::warn!(error, "a TLS session can't begin");
                    None
                }
            },
            _ => Some(Transport::Plain),
        }
    }

    /// Closes a connection and vacates its slot.
    pub(super) fn close(&mut self, index: usize) {
        let Some(mut slot) = self.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.unvisited -= usize::from(slot.is_unvisited);
        if slot.unsent.is_empty() {
            // Where the peer is gone, this fails, and nothing is lost.
            let _ = slot.write_close(&mut self.sealed);
        }
        let _ = self.poll.registry().deregister(&mut slot.stream);
        self.buffers.give_back(&mut slot.kept);
        self.timers.remove(index);
        self.vacant.push(index);
        self.open -= 1;
        self.metrics.connections.set(self.open as u64);
        self.shared.handoff.leave(self.index);
    }
}

/// Counts a connection among those of its client's address; `None` where they are not counted, and where
/// the address says nothing about the client.
pub(super) fn count(shared: &Shared, hop: Hop) -> Option<Admission> {
    let connections = shared.connections_per_address.as_ref()?;
    Some(connections.admit(hop.share()?))
}
