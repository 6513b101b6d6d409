//! The decoders of all codings, one of which is in use.

use super::brotli::Brotli;
use super::gzip::{Deflate, Gzip};
use super::zstd::Zstd;
use super::{Coding, CodingRefusal, Step};
use crate::limits::CODING_BYTES_KEPT;

/// Decoders of all codings. Each is made at its first use; the next body of the same coding uses the
/// memory again, except that of Brotli, whose crate can't begin a second stream in the same memory.
#[derive(Default)]
pub struct Decoder {
    gzip: Option<Gzip>,
    deflate: Option<Deflate>,
    zstd: Option<Zstd>,
    brotli: Option<Box<Brotli>>,
    coding: Option<Coding>,
}

impl Decoder {
    /// Begins the body of a request with this coding. Returns false when there is no memory for it.
    #[must_use]
    pub fn begin(&mut self, coding: Coding) -> bool {
        self.coding = Some(coding);
        match coding {
            Coding::Gzip => self.gzip.get_or_insert_default().begin(),
            Coding::Deflate => self.deflate.get_or_insert_default().begin(),
            Coding::Br => self.brotli = Some(Box::default()),
            Coding::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = Zstd::new();
                }
                return self.zstd.as_mut().is_some_and(Zstd::begin);
            }
        }
        true
    }

    /// Decodes from `input` to `output`. The contract is in the documentation of [`super`].
    ///
    /// # Errors
    ///
    /// The body is refused.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, CodingRefusal> {
        let step = match self.coding {
            Some(Coding::Gzip) => self.gzip.as_mut().map(|gzip| gzip.decode(input, output)),
            Some(Coding::Deflate) => self.deflate.as_mut().map(|deflate| deflate.decode(input, output)),
            Some(Coding::Zstd) => self.zstd.as_mut().map(|zstd| zstd.decode(input, output)),
            Some(Coding::Br) => self.brotli.as_mut().map(|brotli| brotli.decode(input, output)),
            None => None,
        };
        let step = step.unwrap_or(Err(CodingRefusal::Broken))?;
        debug_assert!(step.consumed <= input.len() && step.written <= output.len());
        Ok(step)
    }

    /// The end of the body.
    ///
    /// # Errors
    ///
    /// The coded stream is not at its end.
    pub fn finish(&self) -> Result<(), CodingRefusal> {
        let complete = match self.coding {
            Some(Coding::Gzip) => self.gzip.as_ref().is_some_and(Gzip::is_complete),
            Some(Coding::Deflate) => self.deflate.as_ref().is_some_and(Deflate::is_complete),
            Some(Coding::Zstd) => self.zstd.as_ref().is_some_and(Zstd::is_complete),
            Some(Coding::Br) => self.brotli.as_ref().is_some_and(|brotli| brotli.is_complete()),
            None => false,
        };
        if complete { Ok(()) } else { Err(CodingRefusal::Truncated) }
    }

    /// Gives back what the last body took beyond [`CODING_BYTES_KEPT`].
    pub fn rest(&mut self) {
        self.coding = None;
        self.brotli = None;
        self.zstd.take_if(|zstd| zstd.memory() > CODING_BYTES_KEPT);
    }
}
