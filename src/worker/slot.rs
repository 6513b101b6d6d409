//! A connection's slot: its socket, what of its input is kept, and what of its output the kernel
//! did not take.
//!
//! An idle connection owns no buffer: a worker reads into one large scratch buffer, and only an
//! incomplete request is copied to a buffer of the connection, taken from the worker's pool.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use crate::connection::{Connection, Waiting};
use crate::intake::budget::ByteBudget;
use crate::limits;

/// One connection of a worker.
pub struct Slot {
    /// The socket.
    pub stream: TcpStream,
    /// The address on its other side.
    pub peer: IpAddr,
    /// Tells it from the next connection in the same place.
    pub generation: u64,
    /// What the bytes mean.
    pub connection: Connection,
    /// The front of an incomplete request.
    pub kept: Vec<u8>,
    /// Replies that the kernel did not take.
    pub unsent: Vec<u8>,
    /// The kernel may have bytes for us.
    pub readable: bool,
    /// The peer ended its side, or the connection broke: read to the end.
    pub read_closed: bool,
    /// It stands in the worker's queue of connections to visit.
    pub queued: bool,
    /// Our side is shut; what arrives is thrown away until the peer is done.
    pub lingering: bool,
    /// When its time is over, and what it waited for when that was set.
    pub deadline: (Waiting, Instant),
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes; the kernel may have more.
    Bytes(usize),
    /// So many bytes, and the kernel has no more for now.
    Drained(usize),
    /// The peer ended its side.
    End,
    /// The connection is broken.
    Broken,
}

/// Reads once into `space`. A short read means that the kernel has no more, so the read that would
/// only say so is left out; unless the peer closed, since its end arrives without another event.
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
    /// Writes what was not sent before. False when the connection is broken.
    pub fn write_unsent(&mut self) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.write(&unsent)
    }

    /// Writes, and keeps what the kernel does not take. False when the connection is broken.
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

    /// Ends our side and goes on reading for a while: closing with unread input would make the
    /// kernel send a reset, which can overtake the reply (RFC 9112, section 9.6).
    pub fn linger(&mut self) {
        self.lingering = true;
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
    /// An empty pool on the shared budget.
    pub fn new(budget: Arc<ByteBudget>) -> Self {
        Self { spare: Vec::new(), budget }
    }

    /// Appends `bytes` to `buffer`, for a request of `expected` bytes (0: unknown). A buffer grows
    /// with what has arrived, not with what was announced: a head alone reserves nothing. False,
    /// and nothing appended, when the budget does not allow it.
    pub fn append(&mut self, buffer: &mut Vec<u8>, bytes: &[u8], expected: usize) -> bool {
        let needed = buffer.len() + bytes.len();
        if buffer.capacity() == 0
            && let Some(spare) = self.spare.pop_if(|spare| spare.capacity() >= needed)
        {
            if !self.budget.charge(spare.capacity()) {
                self.spare.push(spare);
                return false;
            }
            *buffer = spare;
        }
        if needed > buffer.capacity() {
            let doubled = needed.max(buffer.len() * 2).max(limits::KEPT_BYTES_FIRST);
            let wanted = if expected >= needed { doubled.min(expected.max(limits::KEPT_BYTES_FIRST)) } else { doubled };
            let before = buffer.capacity();
            if !self.budget.charge(wanted - before) {
                return false;
            }
            buffer.reserve_exact(wanted - buffer.len());
            // The allocator may give more than was asked for.
            self.budget.add(buffer.capacity() - wanted);
        }
        buffer.extend_from_slice(bytes);
        true
    }

    /// Takes a buffer back.
    pub fn give_back(&mut self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        let mut buffer = std::mem::take(buffer);
        self.budget.release(buffer.capacity());
        buffer.clear();
        if buffer.capacity() <= limits::KEPT_BYTES_FIRST * 2 && self.spare.len() < limits::SPARE_BUFFERS_MAX {
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_read_is_the_last_one_unless_the_peer_closed() {
        let mut space = [0; 8];
        assert_eq!(read_some(&mut &b"abc"[..], &mut space, false), ReadOutcome::Drained(3));
        assert_eq!(read_some(&mut &b"abc"[..], &mut space, true), ReadOutcome::Bytes(3));
        assert_eq!(read_some(&mut &b"12345678"[..], &mut space, false), ReadOutcome::Bytes(8));
        assert_eq!(read_some(&mut &b""[..], &mut space, false), ReadOutcome::End);
    }

    #[test]
    fn buffers_are_charged_and_released_exactly() {
        let budget = ByteBudget::new(10 * limits::KEPT_BYTES_FIRST as u64);
        let mut pool = BufferPool::new(budget.clone());
        let mut buffer = Vec::new();
        for _ in 0..3 {
            while pool.append(&mut buffer, &[7; 1000], 0) {
                assert_eq!(budget.bytes(), buffer.capacity() as u64);
            }
            assert!(buffer.len() > limits::KEPT_BYTES_FIRST && buffer.iter().all(|byte| *byte == 7));
            assert!(buffer.capacity() as u64 <= 10 * limits::KEPT_BYTES_FIRST as u64);
            pool.give_back(&mut buffer);
            assert_eq!(budget.bytes(), 0);
        }
    }

    #[test]
    fn a_buffer_grows_with_what_arrived_not_with_what_was_announced() {
        let mut pool = BufferPool::new(ByteBudget::new(1 << 30));
        let mut buffer = Vec::new();
        assert!(pool.append(&mut buffer, b"POST", 16 << 20));
        assert!(buffer.capacity() <= limits::KEPT_BYTES_FIRST * 2);
        let mut large = Vec::new();
        let half = vec![1; limits::KEPT_BYTES_FIRST * 3];
        let expected = half.len() * 2 - 10;
        assert!(pool.append(&mut large, &half, expected));
        assert!(pool.append(&mut large, &half[10..], expected));
        assert_eq!(large.capacity(), expected);
    }
}
