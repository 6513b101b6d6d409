//! In place of TLS, in a build without it: types without a value, so that no code for them is left.

use std::convert::Infallible;
use std::path::PathBuf;

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// There is none.
#[derive(Debug, Clone)]
pub struct TlsConfig(Infallible);

impl TlsConfig {
    /// Always fails; `Settings::validate` has refused the settings before.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn load(_files: &[CertificateFiles], _former: Option<&Self>) -> Result<Self, &'static str> {
        Err("TLS is not in this build")
    }
}

/// There is none. Its methods are those of the session in a build with TLS.
#[derive(Debug)]
pub struct Session(Infallible);

#[expect(missing_docs, clippy::missing_errors_doc, reason = "they can't be called")]
impl Session {
    pub fn new(config: &TlsConfig) -> Result<Self, Infallible> {
        match config.0 {}
    }

    pub fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub fn peer_closed(&self) -> bool {
        match self.0 {}
    }

    pub fn kept_bytes(&self) -> usize {
        match self.0 {}
    }

    pub fn kept(&self) -> &[u8] {
        match self.0 {}
    }

    pub fn open(&mut self, _input: &mut [u8], _plain: &mut [u8], _output: &mut Vec<u8>) -> Result<usize, Infallible> {
        match self.0 {}
    }

    pub fn seal(&mut self, _plain: &[u8], _output: &mut Vec<u8>) -> bool {
        match self.0 {}
    }

    pub fn close(&mut self, _output: &mut Vec<u8>) {
        match self.0 {}
    }
}
