//! The decoder of a build without the feature `codings`: there is none.

use super::{Coding, CodingRefusal, Step};

/// No decoder: it begins no body.
#[derive(Default)]
pub struct Decoder;

impl Decoder {
    /// False.
    #[must_use]
    pub fn begin(&mut self, _: Coding) -> bool {
        false
    }

    /// Decodes nothing.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn decode(&mut self, _: &[u8], _: &mut [u8]) -> Result<Step, CodingRefusal> {
        Err(CodingRefusal::Broken)
    }

    /// The end of no body.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn finish(&self) -> Result<(), CodingRefusal> {
        Err(CodingRefusal::Truncated)
    }

    /// Does nothing.
    pub fn rest(&mut self) {}
}
