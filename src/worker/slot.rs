//! The slot of a connection: its socket, the kept part of its input, and its unsent output.
//!
//! An idle connection owns no buffer: a worker reads into one large scratch buffer. Only an incomplete
//! request is copied to a buffer of the connection, which comes from the worker's pool.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use crate::connection::{Connection, Waiting};
use crate::intake::budget::{ByteBudget, Charge, Size};
use crate::intake::outbox::Waiter;
use crate::limits;

/// One connection of a worker.
pub struct Slot {
    /// The socket.
    pub stream: TcpStream,
    /// The address of the peer.
    pub peer: IpAddr,
    /// Distinguishes the connection from the next one in the same slot.
    pub generation: u64,
    /// The state machine.
    pub connection: Connection,
    /// The front of an incomplete request.
    pub kept: Buffer,
    /// Replies that the kernel did not take.
    pub unsent: Vec<u8>,
    /// What replies that wait, and those that the kernel did not take, take of the budget.
    pub replies: Charge,
    /// The kernel may have bytes for us.
    pub readable: bool,
    /// The peer has closed its side, or the connection has failed: the socket is read to its end.
    pub read_closed: bool,
    /// The connection is in the worker's queue of connections to visit.
    pub queued: bool,
    /// What it has to say first was looked at while there was no room: it brings events.
    pub held_back: bool,
    /// Our side is shut; what arrives is thrown away until the peer is done.
    pub linger: Option<Linger>,
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

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This many bytes were read; the socket may have more.
    Bytes(usize),
    /// This many bytes were read, and the socket has no more for now.
    Drained(usize),
    /// The peer has closed its side.
    End,
    /// The connection has failed.
    Broken,
}

/// Reads once into `space`. A short read means that the socket is drained, which saves the read that
/// would return `WouldBlock`. If the peer has closed its side, the socket is read to its end anyway,
/// because no further event announces the end.
pub fn read_some(stream: &mut impl Read, space: &mut [u8], read_closed: bool) -> ReadOutcome {
    loop {
        return match stream.read(space) {
            Ok(0) => ReadOutcome::End,
            Ok(len) if len < space.len() && !read_closed => ReadOutcome::Drained(len),
            Ok(len) => ReadOutcome::Bytes(len),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::WouldBlock => ReadOutcome::Drained(0),
                _ => ReadOutcome::Broken,
            },
        };
    }
}

impl Slot {
    /// Writes the unsent bytes. Returns false when the connection has failed.
    pub fn write_unsent(&mut self) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.write(&unsent)
    }

    /// Writes `bytes`, and keeps those that the send buffer has no space for. Returns false when the
    /// connection has failed.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        if self.unsent.is_empty() {
            while !rest.is_empty() {
                match self.stream.write(rest) {
                    Ok(0) => return false,
                    Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
            }
        }
        self.unsent.extend_from_slice(rest);
        true
    }

    /// Where replies to its requests go; `index` is that of this slot.
    pub fn waiter(&self, index: usize) -> Waiter {
        Waiter { slot: index, generation: self.generation }
    }

    /// True when it waits for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        self.connection.is_idle() && self.unsent.is_empty() && !self.readable && self.linger.is_none()
    }

    /// Notes what its replies take of the budget now.
    pub fn account(&mut self) {
        self.replies.set(self.connection.replies().bytes() + self.unsent.capacity());
    }

    /// True unless what the peer says first is a request with events, looked at without reading it.
    pub fn asks_for_less_than_events(&mut self) -> bool {
        if self.held_back || self.connection.is_paused() {
            return false;
        }
        let mut space = [0];
        let is_post = match self.kept.bytes.first() {
            Some(first) => *first == b'P',
            None => self.stream.peek(&mut space).is_ok() && space == *b"P",
        };
        self.held_back = is_post;
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

    #[test]
    fn a_short_read_is_the_last_one_unless_the_peer_has_closed() {
        let mut space = [0; 8];
        assert_eq!(read_some(&mut &b"abc"[..], &mut space, false), ReadOutcome::Drained(3));
        assert_eq!(read_some(&mut &b"abc"[..], &mut space, true), ReadOutcome::Bytes(3));
        assert_eq!(read_some(&mut &b"12345678"[..], &mut space, false), ReadOutcome::Bytes(8));
        assert_eq!(read_some(&mut &b""[..], &mut space, false), ReadOutcome::End);
    }

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
