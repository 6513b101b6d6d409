//! The header of the PROXY protocol at the start of a connection (`--proxy-protocol`).

use std::io::{self, Read};

use super::Worker;
use super::connections::{Closed, count};
use super::slot::Buffer;
use crate::api::TOO_MANY_OF_ADDRESS;
use crate::intake::Hop;
use crate::intake::addresses::Admission;
use crate::limits;
use crate::net::{ParsedProxyHeader, ProxyHeader, parse_proxy_header};

impl Worker {
    /// Reads the header of a connection once it has arrived whole; until then it stays in the socket.
    /// Returns false while it is incomplete, and when the connection is closed because of it.
    #[cold]
    pub(super) fn read_proxy_header(&mut self, index: usize) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        let Some(space) = self.scratch.plain.get_mut(..limits::PROXY_HEADER_BYTES_MAX) else {
            return false;
        };
        let peeked = loop {
            match slot.stream.peek(space) {
                Ok(0) => break None,
                Ok(len) => break Some(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.readable = false;
                    return false;
                }
                Err(_) => break None,
            }
        };
        // A balancer that only looks whether somebody listens says nothing.
        let Some(len) = peeked else {
            self.close(index);
            return false;
        };
        match parse_proxy_header(space.get(..len).unwrap_or_default()) {
            ParsedProxyHeader::NeedMore if !slot.read_closed => {
                // More bytes make another event.
                slot.readable = false;
                false
            }
            ParsedProxyHeader::Done(ProxyHeader { source, len }) => {
                let header = space.get_mut(..len).unwrap_or_default();
                if slot.stream.read_exact(header).is_err() {
                    self.close(index);
                    return false;
                }
                slot.awaits_proxy_header = false;
                if source.is_some() {
                    slot.hop = Hop::new(source, &self.shared.trusted);
                    slot.kept = Buffer::new(self.shared.budget.open(slot.hop.share()));
                    slot.replies = self.shared.budget.open_for_replies(slot.hop.share());
                    match count(&self.shared, slot.hop) {
                        None => {}
                        Some(Admission::Admitted(counted)) => slot.counted = Some(counted),
                        Some(Admission::OneTooMany(counted)) => {
                            slot.counted = Some(counted);
                            slot.connection.refuse(TOO_MANY_OF_ADDRESS);
                        }
                        Some(Admission::Closed) => {
                            self.close(index);
                            return false;
                        }
                    }
                }
                let is_handshaking = slot.transport.is_handshaking();
                self.set_first_deadline(index, is_handshaking);
                true
            }
            ParsedProxyHeader::NeedMore | ParsedProxyHeader::Refused => {
                let peer = slot.hop.address();
                self.say_closed(peer, Closed::NoHeader);
                self.close(index);
                false
            }
        }
    }

    /// During a stop: closes connections of which no header has arrived, as it does idle ones.
    pub(super) fn close_those_without_proxy_header(&mut self) {
        if self.shared.proxy_protocol {
            for index in 0..self.slots.len() {
                if self.slots.get(index).and_then(Option::as_ref).is_some_and(|slot| slot.awaits_proxy_header) {
                    self.close(index);
                }
            }
        }
    }
}
