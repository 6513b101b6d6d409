//! SIGHUP: what is read again while the server runs.

use std::sync::Arc;

use crate::api::keys::Keys;
use crate::config::Settings;
use crate::handoff::Published;
use crate::net::tls::TlsConfig;

/// What a SIGHUP reads again, and where it is published.
pub(super) struct Reload {
    /// Names the files.
    pub(super) settings: Settings,
    /// The write keys.
    pub(super) keys: Arc<Published<Keys>>,
    /// The certificates, if clients speak TLS. Open connections keep those that they began with.
    pub(super) tls: Option<Arc<Published<TlsConfig>>>,
}

impl Reload {
    /// Reads everything again. What can't be read is an error in the log and changes nothing.
    pub(super) fn run(&self) {
        if self.settings.write_key_file.is_none() && self.tls.is_none() {
            tracing::info!("SIGHUP: there is nothing to read again");
        }
        if self.settings.write_key_file.is_some() {
            self.read_keys();
        }
        if let Some(published) = &self.tls {
            self.read_certificates(published);
        }
    }

    fn read_keys(&self) {
        match self.settings.write_keys(Some(&self.keys.newest())) {
            Ok(new) => {
                let number = new.len();
                self.keys.publish(warned_of(new));
                tracing::info!(keys = number, "SIGHUP: the write keys are read again");
            }
            Err(error) => tracing::error!(%error, "SIGHUP: the write keys stay as they were"),
        }
    }

    fn read_certificates(&self, published: &Published<TlsConfig>) {
        match self.settings.tls(Some(&published.newest())) {
            Ok(Some(config)) => {
                published.publish(config);
                tracing::info!(certificates = self.settings.tls_cert.len(), "SIGHUP: the certificates were read again");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "SIGHUP: the certificates can't be read again; those from before stay in use");
            }
        }
    }
}

/// The keys, once the log says which of them may be guessed.
pub(super) fn warned_of(keys: Keys) -> Keys {
    keys.warnings().for_each(|warning| tracing::warn!("{warning}"));
    keys
}
