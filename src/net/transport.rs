//! What is between a socket and HTTP: nothing, or TLS.

use std::io::{self, Read};

use super::Stream;
use super::tls::{Session, TlsConfig};

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This many bytes were read; there may be more.
    Bytes(usize),
    /// This many bytes were read, and the socket has no more for now.
    Drained(usize),
    /// The peer has closed its side.
    End,
    /// The connection has failed, or the peer breaks the protocol: nothing more is read.
    Broken,
}

/// A worker's buffers to read into.
pub struct Scratch {
    /// Where the plaintext goes.
    pub plain: Box<[u8]>,
    /// Where ciphertext goes; empty without TLS. No longer than `plain`: what is decrypted at once fits
    /// there.
    sealed: Box<[u8]>,
}

impl Scratch {
    /// Buffers of this many bytes each.
    pub fn new(bytes: usize, for_tls: bool) -> Self {
        let sealed = if for_tls { bytes } else { 0 };
        Self { plain: vec![0; bytes].into_boxed_slice(), sealed: vec![0; sealed].into_boxed_slice() }
    }
}

/// What a connection speaks below HTTP.
#[derive(Debug)]
pub enum Transport {
    /// HTTP itself.
    Plain,
    /// TLS.
    Tls(Box<Session>),
}

impl Transport {
    /// TLS with this configuration.
    ///
    /// # Errors
    ///
    /// If a session can't begin; the text says why.
    pub fn tls(config: &TlsConfig) -> Result<Self, String> {
        Session::new(config).map(|session| Self::Tls(Box::new(session))).map_err(|error| error.to_string())
    }

    /// True until HTTP may be spoken.
    pub fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(session) => session.is_handshaking(),
        }
    }

    /// Bytes that it keeps of what has come.
    pub fn kept_bytes(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Tls(session) => session.kept_bytes(),
        }
    }

    /// True if what comes next can't be seen without reading it.
    pub fn is_opaque(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// The first byte of what comes next, if that can be seen without reading it.
    pub fn peek(&self, stream: &Stream) -> Option<u8> {
        let mut space = [0];
        match self {
            Self::Plain => (stream.peek(&mut space).ok()? > 0).then_some(space[0]),
            Self::Tls(_) => None,
        }
    }

    /// Reads into the front of `scratch.plain`, as [`read_some`] does. What has to be sent before anything
    /// else is appended to `output`.
    pub fn read(
        &mut self,
        stream: &mut Stream,
        scratch: &mut Scratch,
        read_closed: bool,
        output: &mut Vec<u8>,
    ) -> ReadOutcome {
        match self {
            Self::Plain => read_some(stream, &mut scratch.plain, read_closed),
            Self::Tls(session) => read_sealed(session, stream, scratch, output),
        }
    }

    /// `bytes` as they go over the wire, in `space` if they differ. `None` when nothing more can be sent.
    pub fn seal<'a>(&mut self, bytes: &'a [u8], space: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        match self {
            Self::Plain => Some(bytes),
            Self::Tls(session) => {
                space.clear();
                session.seal(bytes, space).then_some(space)
            }
        }
    }

    /// Appends to `output` that nothing more is sent, where the protocol has a way to say so.
    pub fn close(&mut self, output: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
            Self::Tls(session) => session.close(output),
        }
    }
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

/// Reads ciphertext until the socket has no more or the buffer is full, and decrypts it.
///
/// A peer that ends the connection without a `close_notify` ends its side as one that sends it: a request
/// says its own length, so one that was cut off is never served.
fn read_sealed(
    session: &mut Session,
    stream: &mut impl Read,
    scratch: &mut Scratch,
    output: &mut Vec<u8>,
) -> ReadOutcome {
    if session.peer_closed() {
        return ReadOutcome::End;
    }
    let Scratch { plain, sealed } = scratch;
    let mut len = session.kept().len();
    let Some(front) = sealed.get_mut(..len) else {
        return ReadOutcome::Broken;
    };
    front.copy_from_slice(session.kept());
    let stopped = loop {
        let space = sealed.get_mut(len..).unwrap_or_default();
        if space.is_empty() {
            break None;
        }
        match stream.read(space) {
            Ok(read @ 1..) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            stopped => break Some(stopped),
        }
    };
    let opened = session.open(sealed.get_mut(..len).unwrap_or_default(), plain, output);
    let len = match opened {
        Ok(len) => len,
        Err(error) => {
            tracing::debug!(%error, "a TLS connection has failed");
            return ReadOutcome::Broken;
        }
    };
    let is_over = session.peer_closed() || matches!(stopped, Some(Ok(_)));
    match stopped {
        // The end, or a failure, is looked at again by the next read.
        _ if is_over && len == 0 => ReadOutcome::End,
        _ if is_over => ReadOutcome::Bytes(len),
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Drained(len),
        Some(_) if len == 0 => ReadOutcome::Broken,
        _ => ReadOutcome::Bytes(len),
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
}
