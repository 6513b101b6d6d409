//! Certificates, read from files, and which of them a client gets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The reason why certificates can't be used; names the file, and nothing that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    flag: &'static str,
    path: PathBuf,
    reason: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.flag, self.path.display(), self.reason)
    }
}

impl std::error::Error for TlsError {}

/// The certificates and settings that new connections begin with.
#[derive(Clone)]
pub struct TlsConfig {
    pub(super) server: Arc<ServerConfig>,
    tickets: Arc<dyn ProducesTickets>,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConfig")
    }
}

impl TlsConfig {
    /// Reads certificates. A client that names none of them gets the first. The tickets that `former`
    /// has given out stay valid.
    ///
    /// # Errors
    ///
    /// If a file can't be read, is not in PEM, or has a key that is not the certificate's.
    pub fn load(files: &[CertificateFiles], former: Option<&Self>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let failed = |error: &Error| TlsError {
            flag: "--tls-cert",
            path: files.first().map(|files| files.certificate.clone()).unwrap_or_default(),
            reason: error.to_string(),
        };
        let pairs = files.iter().map(|files| certified_key(files, &provider)).collect::<Result<_, _>>()?;
        let tickets = match former {
            Some(former) => former.tickets.clone(),
            None => ring::Ticketer::new().map_err(|error| failed(&error))?,
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByName(pairs)));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = tickets.clone();
        Ok(Self { server: Arc::new(server), tickets })
    }
}

fn certified_key(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let of_certificate = |reason: String| TlsError { flag: "--tls-cert", path: files.certificate.clone(), reason };
    let of_key = |reason: String| TlsError { flag: "--tls-key", path: files.key.clone(), reason };
    let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    // The texts of the parser's errors may quote the file.
    let chain = CertificateDer::pem_slice_iter(&read(&files.certificate).map_err(of_certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| of_certificate("it is not in PEM format".to_owned()))?;
    let Some(first) = chain.first() else {
        return Err(of_certificate("it has no certificate in PEM format".to_owned()));
    };
    if ParsedCertificate::try_from(first).is_err() {
        return Err(of_certificate("its first certificate can't be read".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key).map_err(of_key)?)
        .map_err(|_| of_key("it has no private key in PEM format that is not encrypted".to_owned()))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        of_key(match error {
            Error::InconsistentKeys(_) => format!("it is not the key of {}", files.certificate.display()),
            _ => "its kind of key is not supported; RSA, ECDSA and Ed25519 are".to_owned(),
        })
    })?;
    Ok(Arc::new(key))
}

/// Chooses the first certificate that has the name that the client asks for, and whose key the client can
/// check; else the first whose key it can check.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| self.0.iter().filter(fits).find(|pair| has_name(pair, &name)));
        named.or_else(|| self.0.iter().find(fits)).or_else(|| self.0.first()).cloned()
    }
}

fn has_name(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = pair.cert.first().and_then(|certificate| ParsedCertificate::try_from(certificate).ok());
    parsed.is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}
