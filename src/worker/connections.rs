//! Accepting, admitting and closing of connections.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::{Interest, Token};

use super::slot::Slot;
use super::{FIRST_LISTENER, Worker};
use crate::api::Shed;
use crate::connection::{Connection, Waiting};
use crate::handoff::Arrival;
use crate::limits;

impl Worker {
    /// Accepts all waiting connections. Each goes to the worker with the fewest connections.
    pub(super) fn accept_all(&self) {
        for listener in &self.listeners {
            loop {
                match listener.accept() {
                    Ok((stream, peer)) => self.shared.handoff.place(self.index, Arrival { stream, peer }),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            tracing::warn!(%error, "can't accept a connection; is the limit of open files too low?");
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Admits the connections that were accepted for this worker.
    pub(super) fn take_arrivals(&mut self) {
        while let Some(arrival) = self.shared.handoff.mailbox(self.index).and_then(|mailbox| mailbox.arrival()) {
            self.admit(arrival);
        }
    }

    /// Registers a connection in a slot. Above `--connections-max` the connection is only told 503;
    /// above [`limits::REFUSED_CONNECTIONS_MAX`] more it is closed at once.
    fn admit(&mut self, Arrival { stream, peer }: Arrival) {
        let total = self.shared.handoff.connections();
        if total > self.shared.connections_max + limits::REFUSED_CONNECTIONS_MAX {
            self.metrics.shed(Shed::Connections, 1);
            self.shared.handoff.leave(self.index);
            return;
        }
        // Replies are written whole, so Nagle's algorithm would only delay them.
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
            deadline: (Waiting::Request, self.now + self.shared.timeouts.idle),
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
        if total > self.shared.connections_max {
            self.metrics.shed(Shed::Connections, 1);
            slot.connection.refuse(Shed::Connections.into());
        }
        match self.slots.get_mut(index) {
            Some(vacant) => *vacant = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        self.open += 1;
        self.metrics.connections.set(self.open as u64);
        self.visits.push_back(index);
    }

    /// Closes a connection and vacates its slot.
    pub(super) fn close(&mut self, index: usize) {
        let Some(mut slot) = self.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        let _ = self.poll.registry().deregister(&mut slot.stream);
        self.buffers.give_back(&mut slot.kept);
        self.vacant.push(index);
        self.open -= 1;
        self.metrics.connections.set(self.open as u64);
        self.shared.handoff.leave(self.index);
    }
}

/// The client's address; an IPv4-mapped IPv6 address becomes the IPv4 address.
fn client_ip(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
