//! The slot of a connection: its socket, the kept part of its input, and its unsent output.
//!
//! An idle connection owns no buffer: a worker reads into one large scratch buffer. Only an incomplete
//! request is copied to a buffer of the connection, which comes from the worker's pool.

use std::io::{self, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::send_queue;
use crate::connection::{Connection, Waiting};
use crate::intake::Hop;
use crate::intake::addresses::CountedConnection;
use crate::intake::budget::{ByteBudget, Charge, Size};
use crate::intake::outbox::Waiter;
use crate::limits;
use crate::net::{Stream, Transport};

/// One connection of a worker.
pub struct Slot {
    /// The socket.
    pub stream: Stream,
    /// What is spoken over it below HTTP.
    pub transport: Transport,
    /// Who is in front of the connection.
    pub hop: Hop,
    /// The header of the PROXY protocol has not arrived yet, and is still in the socket.
    pub awaits_proxy_header: bool,
    /// Distinguishes the connection from the next one in the same slot.
    pub generation: u64,
    /// The state machine.
    pub connection: Connection,
    /// The front of an incomplete request.
    pub kept: Buffer,
    /// Replies that the kernel did not take, as they go over the wire.
    pub unsent: Vec<u8>,
    /// Bytes of replies that the peer had not taken when it was last looked at; 0 while the kernel takes all.
    pub untaken: usize,
    /// What replies that wait, those that the kernel did not take, and an incomplete TLS record take of
    /// the budget.
    pub replies: Charge,
    /// The kernel may have bytes for us.
    pub readable: bool,
    /// The peer has closed its side, or the connection has failed: the socket is read to its end.
    pub read_closed: bool,
    /// The connection is in the worker's queue of connections to visit.
    pub queued: bool,
    /// It has just come, and was not visited yet.
    pub is_unvisited: bool,
    /// What it has to say first was looked at while there was no room: it brings events.
    pub held_back: bool,
    /// Our side is shut; what arrives is thrown away until the peer is done.
    pub linger: Option<Linger>,
    /// The connection in the number of its address's.
    pub counted: Option<CountedConnection>,
    /// What its time was set for last, and the number of the request then.
    pub timed: (Waiting, u64),
    /// The number of the request whose body was waited for last, and since when.
    pub body: (u64, Instant),
}

/// Input that is thrown away behind the last reply.
#[derive(Debug)]
pub struct Linger {
    /// Since when.
    pub since: Instant,
    /// How much it was.
    pub bytes: u64,
}

/// The front of an incomplete request, with what it takes of the budget.
#[derive(Debug)]
pub struct Buffer {
    /// The bytes.
    pub bytes: Vec<u8>,
    charge: Charge,
}

impl Buffer {
    /// An empty buffer that will be charged to `charge`.
    pub fn new(charge: Charge) -> Self {
        Self { bytes: Vec::new(), charge }
    }
}

impl Slot {
    /// Writes the unsent bytes. Returns false when the connection has failed.
    pub fn write_unsent(&mut self) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.write_sealed(&unsent)
    }

    /// Writes `bytes`, and keeps those that the send buffer has no space for; `space` is for what they
    /// become on the wire. Returns false when the connection has failed.
    pub fn write(&mut self, bytes: &[u8], space: &mut Vec<u8>) -> bool {
        let Some(sealed) = self.transport.seal(bytes, space) else { return false };
        let is_written = Self::write_to(&mut self.stream, &mut self.unsent, sealed);
        self.note_untaken();
        is_written
    }

    /// Tells the peer that nothing more is sent. Returns false when the connection has failed.
    pub fn write_close(&mut self, space: &mut Vec<u8>) -> bool {
        space.clear();
        self.transport.close(space);
        self.write_sealed(space)
    }

    /// The same for bytes that are as they go over the wire.
    pub fn write_sealed(&mut self, bytes: &[u8]) -> bool {
        let is_written = Self::write_to(&mut self.stream, &mut self.unsent, bytes);
        self.note_untaken();
        is_written
    }

    /// [`Slot::write_sealed`] while the rest of the slot is in use.
    pub fn write_to(stream: &mut Stream, unsent: &mut Vec<u8>, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        if unsent.is_empty() {
            while !rest.is_empty() {
                match stream.write(rest) {
                    Ok(0) => return false,
                    Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
            }
        }
        unsent.extend_from_slice(rest);
        true
    }

    fn note_untaken(&mut self) {
        if self.unsent.is_empty() {
            self.untaken = 0;
        } else if self.untaken == 0 {
            self.untaken = self.unsent.len() + send_queue::bytes(&self.stream);
        }
    }

    /// True when the peer has taken a part of its replies, but not all, since it was last asked, or since
    /// the kernel took no more of them. The kernel's own queue can be so long that it takes nothing for
    /// minutes of a slow reader.
    pub fn has_taken_a_part(&mut self) -> bool {
        let untaken = self.unsent.len() + send_queue::bytes(&self.stream);
        let before = std::mem::replace(&mut self.untaken, untaken);
        !self.unsent.is_empty() && untaken < before
    }

    /// Where replies to its requests go; `index` is that of this slot.
    pub fn waiter(&self, index: usize) -> Waiter {
        Waiter { slot: index, generation: self.generation }
    }

    /// True when it waits for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        let is_idle = self.connection.is_idle() && self.unsent.is_empty() && !self.readable && self.linger.is_none();
        is_idle && !self.has_begun_record()
    }

    /// True when a part of a record has come behind the handshake: a request is on its way.
    fn has_begun_record(&self) -> bool {
        !self.transport.is_handshaking() && self.transport.kept_bytes() > 0
    }

    /// What the connection waits for.
    pub fn waiting(&self) -> Waiting {
        match self.connection.waiting() {
            Waiting::Request if self.has_begun_record() => Waiting::Head,
            waiting => waiting,
        }
    }

    /// Notes what its replies, and an incomplete record, take of the budget now.
    pub fn account(&mut self) {
        let kept = self.transport.kept_bytes();
        self.replies.set(self.connection.replies().bytes() + self.unsent.capacity() + kept);
    }

    /// True unless what the peer says first may be a request with events, looked at without reading it.
    /// Under TLS that can't be seen.
    pub fn asks_for_less_than_events(&mut self) -> bool {
        if self.transport.is_handshaking() {
            return true;
        }
        if self.held_back || self.connection.is_paused() {
            return false;
        }
        let first = self.kept.bytes.first().copied().or_else(|| self.transport.peek(&self.stream));
        self.held_back = match first {
            Some(first) => first == b'P',
            None => self.transport.is_opaque(),
        };
        !self.held_back
    }

    /// Ends our side and goes on reading for a while: closing with unread input would make the
    /// kernel send a reset, which can overtake the reply (RFC 9112, section 9.6).
    pub fn linger(&mut self, now: Instant) {
        self.linger = Some(Linger { since: now, bytes: 0 });
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// A worker's spare buffers for incomplete requests.
#[derive(Debug)]
pub struct BufferPool {
    spare: Vec<Vec<u8>>,
    budget: Arc<ByteBudget>,
}

impl BufferPool {
    /// An empty pool that charges `budget`.
    pub fn new(budget: Arc<ByteBudget>) -> Self {
        Self { spare: Vec::new(), budget }
    }

    /// Appends `bytes` to `buffer`, for a request of `expected` bytes (0: unknown). A buffer grows
    /// with what has arrived, not with what was announced: a head alone reserves nothing. False,
    /// and nothing appended, when the budget does not allow it.
    pub fn append(&mut self, buffer: &mut Buffer, bytes: &[u8], expected: usize) -> bool {
        let Buffer { bytes: kept, charge } = buffer;
        let needed = kept.len() + bytes.len();
        let size = Size::of(needed.max(expected));
        if kept.capacity() == 0
            && let Some(spare) = self.spare.pop_if(|spare| spare.capacity() >= needed)
        {
            if !charge.grow(spare.capacity(), size) {
                self.spare.push(spare);
                return false;
            }
            *kept = spare;
        }
        if needed > kept.capacity() {
            let doubled = needed.max(kept.len() * 2).max(limits::KEPT_BYTES_FIRST);
            let most = if expected >= needed { expected } else { self.budget.connection_max() };
            let wanted = doubled.min(most.max(limits::KEPT_BYTES_FIRST)).max(needed);
            if needed > self.budget.connection_max() || !charge.grow(wanted - kept.capacity(), size) {
                return false;
            }
            kept.reserve_exact(wanted - kept.len());
            // The allocator may give more than was asked for.
            charge.set(kept.capacity());
        }
        kept.extend_from_slice(bytes);
        true
    }

    /// Leaves the part of a buffer that is to be there again, and no more memory than that calls for.
    pub fn keep(&mut self, buffer: &mut Buffer, part: Range<usize>) {
        buffer.bytes.truncate(part.end);
        buffer.bytes.drain(..part.start);
        if buffer.bytes.is_empty() {
            self.give_back(buffer);
        } else if buffer.bytes.capacity() > 2 * limits::KEPT_BYTES_FIRST
            && buffer.bytes.capacity() / 4 > buffer.bytes.len()
        {
            buffer.bytes.shrink_to(limits::KEPT_BYTES_FIRST);
            buffer.charge.set(buffer.bytes.capacity());
        }
    }

    /// Takes a buffer's memory back; what was in it is forgotten.
    pub fn give_back(&mut self, buffer: &mut Buffer) {
        if buffer.bytes.capacity() == 0 {
            return;
        }
        let mut bytes = std::mem::take(&mut buffer.bytes);
        buffer.charge.set(0);
        bytes.clear();
        if bytes.capacity() <= limits::KEPT_BYTES_FIRST * 2 && self.spare.len() < limits::SPARE_BUFFERS_MAX {
            self.spare.push(bytes);
        }
    }

    /// Gives back the memory of the spare buffers.
    pub fn shrink(&mut self) {
        self.spare = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::budget::BudgetLimits;

    fn budget(max: usize) -> Arc<ByteBudget> {
        ByteBudget::new(BudgetLimits { max: max as u64, request_max: max / 4 })
    }

    #[test]
    fn buffers_are_charged_and_released_exactly() {
        const MAX: usize = 64 * limits::KEPT_BYTES_FIRST;
        let budget = budget(MAX);
        let mut pool = BufferPool::new(budget.clone());
        let mut buffer = Buffer::new(budget.open(None));
        for _ in 0..3 {
            while pool.append(&mut buffer, &[7; 1000], 0) {
                assert_eq!(budget.bytes(), buffer.bytes.capacity() as u64);
            }
            assert!(buffer.bytes.len() > limits::KEPT_BYTES_FIRST && buffer.bytes.iter().all(|byte| *byte == 7));
            assert!(buffer.bytes.capacity() <= MAX);
            let end = buffer.bytes.len();
            pool.keep(&mut buffer, end - 10..end);
            assert_eq!(budget.bytes(), buffer.bytes.capacity() as u64);
            assert!(buffer.bytes.len() == 10 && buffer.bytes.capacity() <= 2 * limits::KEPT_BYTES_FIRST);
            pool.give_back(&mut buffer);
            assert_eq!(budget.bytes(), 0);
        }
        assert!(pool.append(&mut buffer, &[7; 1000], 0));
        drop(buffer);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_buffer_grows_with_the_bytes_that_arrived_not_with_those_announced() {
        let budget = budget(1 << 30);
        let mut pool = BufferPool::new(budget.clone());
        let mut buffer = Buffer::new(budget.open(None));
        assert!(pool.append(&mut buffer, b"POST", 16 << 20));
        assert!(buffer.bytes.capacity() <= limits::KEPT_BYTES_FIRST * 2);
        let mut large = Buffer::new(budget.open(None));
        let half = vec![1; limits::KEPT_BYTES_FIRST * 3];
        let expected = half.len() * 2 - 10;
        assert!(pool.append(&mut large, &half, expected));
        assert!(pool.append(&mut large, &half[10..], expected));
        assert_eq!(large.bytes.capacity(), expected);
    }

    #[test]
    fn a_large_request_leaves_the_last_quarter_from_its_first_byte_on() {
        let budget = budget(64 * limits::KEPT_BYTES_FIRST);
        let mut pool = BufferPool::new(budget.clone());
        let mut others = budget.open(None);
        others.set(48 * limits::KEPT_BYTES_FIRST);
        let mut buffer = Buffer::new(budget.open(None));
        assert!(!pool.append(&mut buffer, b"POST", limits::SMALL_REQUEST_BYTES));
        assert!(pool.append(&mut buffer, b"POST", limits::SMALL_REQUEST_BYTES - 1));
    }
}
