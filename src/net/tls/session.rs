//! One connection's session. It takes ciphertext from the caller's buffer, and puts plaintext, and
//! ciphertext for the peer, into others. Between two calls it keeps only an incomplete record, so an idle
//! connection owns no buffer here either.

use std::fmt;

use rustls::Error;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};

use super::TlsConfig;
use crate::limits;

/// The server's side of one TLS connection.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// Ciphertext that is not complete: the next input begins with it. The position of what `rustls` has
    /// seen of it is `rustls`'s own, so each call is given all of it.
    kept: Vec<u8>,
    is_handshaking: bool,
    peer_closed: bool,
    sent_close: bool,
    is_broken: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_handshaking", &self.is_handshaking).finish_non_exhaustive()
    }
}

/// What a step of a session asks for.
enum Step {
    Again,
    Blocked,
    Ready,
}

impl Session {
    /// A session in which nothing has come.
    ///
    /// # Errors
    ///
    /// If `rustls` can't begin one.
    pub fn new(config: &TlsConfig) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config.server.clone())?,
            kept: Vec::new(),
            is_handshaking: true,
            peer_closed: false,
            sent_close: false,
            is_broken: false,
        })
    }

    /// True until application data may be sent.
    pub fn is_handshaking(&self) -> bool {
        self.is_handshaking
    }

    /// True when the peer has said that no more data comes (`close_notify`).
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Bytes that are kept of an incomplete record.
    pub fn kept_bytes(&self) -> usize {
        self.kept.capacity()
    }

    /// The ciphertext that the next input of [`Session::open`] begins with.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Decrypts `input`, which is what is kept followed by what has come. Writes plaintext to the front of
    /// `plain`, which is at least as long as `input`, and appends what has to be sent to `output`. Returns
    /// the length of the plaintext.
    ///
    /// # Errors
    ///
    /// If the peer breaks the protocol, or has nothing in common with this server; `output` then ends
    /// with an alert that says so, and the session is over.
    pub fn open(&mut self, input: &mut [u8], plain: &mut [u8], output: &mut Vec<u8>) -> Result<usize, Error> {
        let (mut start, mut written) = (0, 0);
        if self.is_broken {
            return Err(Error::General("the session is over".to_owned()));
        }
        loop {
            let rest = input.get_mut(start..).unwrap_or_default();
            let (discarded, step) = self.step(rest, plain, &mut written, output);
            start += discarded;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Blocked | Step::Ready) => break,
                Err(error) => {
                    self.fail(output);
                    return Err(error);
                }
            }
        }
        let kept = input.get(start..).unwrap_or_default();
        if kept.len() > limits::TLS_KEPT_BYTES_MAX {
            self.fail(output);
            return Err(Error::General("an incomplete message is too long".to_owned()));
        }
        self.kept = kept.to_vec();
        Ok(written)
    }

    /// Makes one step, and says how many bytes at the front of `input` are done with.
    fn step(
        &mut self,
        input: &mut [u8],
        plain: &mut [u8],
        written: &mut usize,
        output: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(input);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Step::Again),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        let end = *written + record.payload.len();
                        let Some(space) = plain.get_mut(*written..end) else {
                            break Err(Error::General("plaintext is longer than its ciphertext".to_owned()));
                        };
                        space.copy_from_slice(record.payload);
                        *written = end;
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, output);
                Ok(Step::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::PeerClosed) => {
                self.peer_closed = true;
                Ok(Step::Again)
            }
            Ok(ConnectionState::WriteTraffic(_)) => {
                self.is_handshaking = false;
                Ok(Step::Ready)
            }
            Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
            // There is no early data, and no other state in this version of `rustls`.
            Ok(_) => Err(Error::General("a state that this server does not know".to_owned())),
            Err(error) => Err(error),
        };
        (discard, step)
    }

    /// Encrypts `plain`, all of it, and appends it to `output`. False when nothing more can be sent.
    pub fn seal(&mut self, plain: &[u8], output: &mut Vec<u8>) -> bool {
        self.write(output, |traffic, space| traffic.encrypt(plain, space))
    }

    /// Appends a `close_notify` to `output`, once: nothing more is sent. Without effect during the
    /// handshake and after an error.
    pub fn close(&mut self, output: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.sent_close, true) && !self.is_handshaking {
            self.write(output, |traffic, space| traffic.queue_close_notify(space));
        }
    }

    fn write(
        &mut self,
        output: &mut Vec<u8>,
        encrypt: impl Fn(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> bool {
        if self.is_broken {
            return false;
        }
        let mut kept = std::mem::take(&mut self.kept);
        let mut is_written = false;
        loop {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut kept);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    is_written = append(output, |space| match encrypt(&mut traffic, space) {
                        Ok(len) => Ok(len),
                        Err(EncryptError::InsufficientSize(size)) => Err(Some(size)),
                        Err(EncryptError::EncryptExhausted) => Err(None),
                    });
                    break;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, output);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(_) | Err(_) => break,
            }
        }
        self.kept = kept;
        is_written
    }

    /// Appends the alert of an error to `output`. What has come is not looked at again: `rustls` panics
    /// when the same input is wrong twice. It gives out what it has to send before it looks at any.
    fn fail(&mut self, output: &mut Vec<u8>) {
        (self.is_broken, self.sent_close) = (true, true);
        self.kept = Vec::new();
        while self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(&mut []).state
        {
            encode(&mut data, output);
        }
    }
}

/// The two kinds of states that a session writes in.
type Traffic<'a> = WriteTraffic<'a, ServerConnectionData>;
type Handshake<'a> = EncodeTlsData<'a, ServerConnectionData>;

fn encode(data: &mut Handshake<'_>, output: &mut Vec<u8>) {
    append(output, |space| match data.encode(space) {
        Ok(len) => Ok(len),
        Err(EncodeError::InsufficientSize(size)) => Err(Some(size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
    });
}

/// Appends to `output` what `write` writes; it says how much space it needs. False if it fails.
fn append(
    output: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> bool {
    let begin = output.len();
    let mut written = write(&mut []);
    if let Err(Some(InsufficientSizeError { required_size })) = written {
        output.resize(begin + required_size, 0);
        written = write(output.get_mut(begin..).unwrap_or_default());
    }
    output.truncate(begin + written.as_ref().copied().unwrap_or_default());
    written.is_ok()
}
