//! The certificate authorities that an HTTP client of the program trusts for `https://` URLs.

use reqwest::Url;

#[cfg(feature = "tls")]
pub use with_tls::Trust;
#[cfg(not(feature = "tls"))]
pub use without_tls::Trust;

/// True for an `https://` URL.
pub fn is_https(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "https")
}

#[cfg(feature = "tls")]
mod with_tls {
    use std::io;
    use std::path::Path;

    use reqwest::Certificate;
    use rustls::RootCertStore;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::is_https;

    /// The certificate authorities that an HTTP client trusts.
    #[derive(Clone)]
    pub enum Trust {
        /// None: every URL is `http://`. A machine may have no authorities of its own.
        Nobody,
        /// Those of the system.
        System,
        /// Those of `--clickhouse-ca-file` or another file, and no others.
        These(Vec<Certificate>),
    }

    impl Trust {
        /// What these URLs call for. `flag` is the one that names the file of authorities.
        ///
        /// # Errors
        ///
        /// If the file can't be read, or has no certificate in PEM.
        pub fn new(urls: &[String], flag: &str, ca_file: Option<&Path>) -> io::Result<Self> {
            let Some(path) = ca_file else {
                let any_https = urls.iter().any(|url| is_https(url));
                return Ok(if any_https { Self::System } else { Self::Nobody });
            };
            let wrong = |reason: String| io::Error::other(format!("{flag} {}: {reason}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let (mut found, mut store) = (Vec::new(), RootCertStore::empty());
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|_| wrong("it is not in PEM format".into()))?;
                found.extend(Certificate::from_der(&certificate));
                store.add(certificate).map_err(|error| wrong(format!("a certificate in it can't be used: {error}")))?;
            }
            if found.is_empty() {
                return Err(wrong("it has no certificate in PEM format".into()));
            }
            Ok(Self::These(found))
        }

        /// For a client of `http://` URLs only.
        pub const fn nobody() -> Self {
            Self::Nobody
        }

        /// The certificates that a client is limited to; `None` for the system's.
        pub(crate) fn roots(&self) -> Option<Vec<Certificate>> {
            match self {
                Self::Nobody => Some(Vec::new()),
                Self::System => None,
                Self::These(certificates) => Some(certificates.clone()),
            }
        }
    }

    /// Limits a `reqwest` builder of either kind to what a [`Trust`] trusts.
    macro_rules! trusting {
        ($builder:expr, $trust:expr) => {
            match $trust.roots() {
                Some(roots) => $builder.tls_certs_only(roots),
                None => $builder,
            }
        };
    }
    pub(crate) use trusting;
}

#[cfg(not(feature = "tls"))]
mod without_tls {
    use std::io;
    use std::path::Path;

    /// Nobody: a build without the feature `tls` has no `https://`.
    #[derive(Clone)]
    pub struct Trust;

    impl Trust {
        /// For a client of `http://` URLs only.
        pub const fn nobody() -> Self {
            Self
        }

        /// Never fails: `Settings::validate` refuses what needs TLS.
        ///
        /// # Errors
        ///
        /// None.
        pub fn new(_urls: &[String], _flag: &str, _ca_file: Option<&Path>) -> io::Result<Self> {
            Ok(Self)
        }
    }

    /// Leaves the builder as it is.
    macro_rules! trusting {
        ($builder:expr, $trust:expr) => {{
            let _: &$crate::clickhouse::trust::Trust = $trust;
            $builder
        }};
    }
    pub(crate) use trusting;
}

#[cfg(feature = "tls")]
pub(crate) use with_tls::trusting;
#[cfg(not(feature = "tls"))]
pub(crate) use without_tls::trusting;
