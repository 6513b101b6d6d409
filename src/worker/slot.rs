//! The slot of a connection: its socket, the kept part of its input, and its unsent output.
//!
//! An idle connection owns no buffer: a worker reads into one large scratch buffer. Only an incomplete
//! request is copied to a buffer of the connection, which comes from the worker's pool.

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
    /// The address of the peer.
    pub peer: IpAddr,
    /// Distinguishes the connection from the next one in the same slot.
    pub generation: u64,
    /// The state machine.
    pub connection: Connection,
    /// Input that is not served yet: an incomplete request, or requests that there was no room for.
    pub kept: Vec<u8>,
    /// Rendered replies that the socket's send buffer had no space for.
    pub unsent: Vec<u8>,
    /// The socket may have input.
    pub readable: bool,
    /// The peer has closed its side, or the connection has failed: the socket is read to its end.
    pub read_closed: bool,
    /// The connection is in the worker's queue of connections to visit.
    pub queued: bool,
    /// The server's side is shut down; input is discarded until the peer closes.
    pub lingering: bool,
    /// What the connection waited for when the deadline was set, and the deadline.
    pub deadline: (Waiting, Instant),
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

    /// Shuts down the server's side, and continues reading for a while. Closing a socket with unread
    /// input makes the kernel send a reset, which may destroy the reply (RFC 9112, section 9.6).
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
    /// An empty pool that charges `budget`.
    pub fn new(budget: Arc<ByteBudget>) -> Self {
        Self { spare: Vec::new(), budget }
    }

    /// Appends `bytes` to `buffer`, for a request of `expected` bytes (0 when not known). A buffer grows
    /// with the bytes that have arrived, not with those that were announced, so that a head alone
    /// reserves nothing. Returns false, and appends nothing, when the budget does not allow it.
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

    /// Takes back a buffer and releases its bytes from the budget.
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
    fn a_short_read_is_the_last_one_unless_the_peer_has_closed() {
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
    fn a_buffer_grows_with_the_bytes_that_arrived_not_with_those_announced() {
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
