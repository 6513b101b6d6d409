//! TLS without a socket: certificates, and one connection's session.
//!
//! TLS 1.2 and 1.3 without renegotiation and without early data, which could be replayed (RFC 8446,
//! section 8). Sessions are resumed by tickets, so that the server keeps nothing for a client that has
//! left.

mod certificates;
mod session;

pub use certificates::{CertificateFiles, TlsConfig, TlsError};
pub use session::Session;

#[cfg(test)]
mod tests;
