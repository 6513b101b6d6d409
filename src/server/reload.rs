//! SIGHUP: what is read again while the server runs.

use std::sync::Arc;

use crate::config::Settings;
use crate::handoff::Published;
use crate::net::tls::TlsConfig;

/// What a SIGHUP reads again, and where it is published.
pub(super) struct Reload {
    /// Names the files.
    pub(super) settings: Settings,
    /// The certificates, if clients speak TLS. Open connections keep those that they began with.
    pub(super) tls: Option<Arc<Published<TlsConfig>>>,
}

impl Reload {
    /// Reads everything again. What can't be read is an error in the log and changes nothing.
    pub(super) fn run(&self) {
        let Some(published) = &self.tls else {
            tracing::info!("SIGHUP: there is nothing to read again");
            return;
        };
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
