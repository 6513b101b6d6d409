//! gzip (RFC 1952) and `deflate`, over the raw DEFLATE decoder of `flate2`.
//!
//! The frame of a gzip member is read here, because the crate's decoder of whole members allocates its
//! state again for each.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{CodingRefusal, Step};

/// Bytes of a member's header before its optional fields.
const FIXED_HEADER: u8 = 10;
/// Bytes of CRC-32 and length behind the data of a member.
const TRAILER: u8 = 8;

const HAS_CRC: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// A decoder of gzip members in a row.
pub(super) struct Gzip {
    inflate: Decompress,
    state: State,
    /// Bytes of the current part of the header or of the trailer that were read.
    at: u8,
    flags: u8,
    /// The number of two or four bytes that is being read, little-endian.
    number: u32,
    /// Bytes of the extra field that have not arrived yet.
    left: u32,
    /// Over the header, then over the content.
    crc: Crc,
    /// Bytes of the member's content, modulo 2^32.
    len: u32,
    members: bool,
}

/// The part of a member that the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    ExtraLength,
    Extra,
    Name,
    Comment,
    HeaderCrc,
    Data,
    Trailer,
}

impl Default for Gzip {
    fn default() -> Self {
        Self {
            inflate: Decompress::new(false),
            state: State::Header,
            at: 0,
            flags: 0,
            number: 0,
            left: 0,
            crc: Crc::new(),
            len: 0,
            members: false,
        }
    }
}

impl Gzip {
    pub(super) fn begin(&mut self) {
        self.members = false;
        self.begin_member();
    }

    /// True at the end of a member.
    pub(super) fn is_complete(&self) -> bool {
        self.members && self.state == State::Header && self.at == 0
    }

    /// Decodes until the end of a member at most.
    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, CodingRefusal> {
        let (mut consumed, mut written) = (0, 0);
        while let Some(rest) = input.get(consumed..) {
            if self.state == State::Data {
                let space = output.get_mut(written..).unwrap_or_default();
                let (step, is_end) = inflate(&mut self.inflate, rest, space)?;
                let content = space.get(..step.written).unwrap_or_default();
                self.crc.update(content);
                self.len = self.len.wrapping_add(content.len() as u32);
                consumed += step.consumed;
                written += step.written;
                if !is_end {
                    break;
                }
                self.enter(State::Trailer);
            } else {
                let Some(&byte) = rest.first() else { break };
                consumed += 1;
                if self.step(byte)? {
                    break;
                }
            }
        }
        Ok(Step { consumed, written })
    }

    /// Takes a byte of the header or of the trailer. Returns true when it is the last byte of a member.
    fn step(&mut self, byte: u8) -> Result<bool, CodingRefusal> {
        match self.state {
            State::Header => {
                let fits = match self.at {
                    0 => byte == 0x1f,
                    1 => byte == 0x8b,
                    // The only method that is defined.
                    2 => byte == 8,
                    3 => {
                        self.flags = byte;
                        byte & RESERVED == 0
                    }
                    _ => true,
                };
                if !fits {
                    // A byte that begins no member is behind the last one.
                    let is_trailed = self.members && self.at < 2;
                    return Err(if is_trailed { CodingRefusal::Trailed } else { CodingRefusal::Broken });
                }
                self.crc.update(&[byte]);
                self.at += 1;
                if self.at == FIXED_HEADER {
                    self.enter_after(State::Header);
                }
            }
            State::ExtraLength => {
                self.crc.update(&[byte]);
                if self.take_number(byte, 2) {
                    self.left = self.number;
                    self.state = State::Extra;
                    if self.left == 0 {
                        self.enter_after(State::Extra);
                    }
                }
            }
            State::Extra => {
                self.crc.update(&[byte]);
                self.left -= 1;
                if self.left == 0 {
                    self.enter_after(State::Extra);
                }
            }
            State::Name | State::Comment => {
                self.crc.update(&[byte]);
                if byte == 0 {
                    self.enter_after(self.state);
                }
            }
            State::HeaderCrc => {
                if self.take_number(byte, 2) {
                    if self.number != self.crc.sum() & 0xffff {
                        return Err(CodingRefusal::Broken);
                    }
                    self.enter_after(State::HeaderCrc);
                }
            }
            State::Trailer => {
                let is_crc = self.at < 4;
                let is_whole = self.take_number(byte, if is_crc { 4 } else { TRAILER });
                if is_whole {
                    if self.number != if is_crc { self.crc.sum() } else { self.len } {
                        return Err(CodingRefusal::Broken);
                    }
                    self.number = 0;
                    if !is_crc {
                        self.members = true;
                        self.begin_member();
                        return Ok(true);
                    }
                }
            }
            State::Data => {}
        }
        Ok(false)
    }

    fn begin_member(&mut self) {
        self.crc.reset();
        self.len = 0;
        self.flags = 0;
        self.enter(State::Header);
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.at = 0;
        self.number = 0;
    }

    /// Enters the next part of the header that the flags announce, or the data.
    fn enter_after(&mut self, state: State) {
        let parts = [
            (State::Header, State::ExtraLength, HAS_EXTRA),
            (State::Extra, State::Name, HAS_NAME),
            (State::Name, State::Comment, HAS_COMMENT),
            (State::Comment, State::HeaderCrc, HAS_CRC),
        ];
        let behind = parts.iter().skip_while(|(before, ..)| *before != state);
        match behind.into_iter().find(|(_, _, flag)| self.flags & flag != 0) {
            Some((_, part, _)) => self.enter(*part),
            None => {
                self.crc.reset();
                self.inflate.reset(false);
                self.enter(State::Data);
            }
        }
    }

    /// Adds a byte to the number; true when it is the byte at `end`.
    fn take_number(&mut self, byte: u8, end: u8) -> bool {
        self.number |= u32::from(byte) << (8 * u32::from(self.at % 4));
        self.at += 1;
        self.at == end
    }
}

/// A decoder of `deflate`: the zlib format (RFC 1950), which the name stands for, or raw DEFLATE
/// (RFC 1951), which many clients send under it (RFC 9110, section 8.4.1.2).
pub(super) struct Deflate {
    inflate: Decompress,
    state: DeflateState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DeflateState {
    Start,
    Data,
    End,
}

impl Default for Deflate {
    fn default() -> Self {
        Self { inflate: Decompress::new(true), state: DeflateState::Start }
    }
}

impl Deflate {
    pub(super) fn begin(&mut self) {
        self.state = DeflateState::Start;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == DeflateState::End
    }

    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, CodingRefusal> {
        match (self.state, input.first()) {
            (DeflateState::Start, None) | (DeflateState::End, None) => return Ok(Step { consumed: 0, written: 0 }),
            (DeflateState::Start, Some(first)) => {
                // The first byte of the zlib format ends in 8, the method. Raw DEFLATE with such a byte
                // would begin with a stored block whose padding is not zero, which no encoder writes.
                self.inflate.reset(first & 0x0f == 8);
                self.state = DeflateState::Data;
            }
            (DeflateState::End, Some(_)) => return Err(CodingRefusal::Trailed),
            (DeflateState::Data, _) => {}
        }
        let (step, is_end) = inflate(&mut self.inflate, input, output)?;
        if is_end {
            self.state = DeflateState::End;
        }
        Ok(step)
    }
}

/// Decodes DEFLATE; true at the end of the stream.
fn inflate(state: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), CodingRefusal> {
    let (consumed, written) = (state.total_in(), state.total_out());
    let status = state.decompress(input, output, FlushDecompress::None).map_err(|_| CodingRefusal::Broken)?;
    let step = Step {
        consumed: usize::try_from(state.total_in() - consumed).unwrap_or(input.len()),
        written: usize::try_from(state.total_out() - written).unwrap_or(output.len()),
    };
    Ok((step, status == Status::StreamEnd))
}
