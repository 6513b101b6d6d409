//! SIGHUP: what is read again while the server runs.

use std::path::Path;
use std::sync::Arc;

use crate::api::keys::Keys;
use crate::config::{Section, Settings, cli};
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
        if self.settings.write_key_file.is_none() && self.tls.is_none() && self.settings.config.is_none() {
            tracing::info!("SIGHUP: there is nothing to read again");
        }
        if let Some(path) = &self.settings.config {
            self.compare_tables(path);
        }
        if self.settings.write_key_file.is_some() {
            self.read_keys();
        }
        if let Some(published) = &self.tls {
            self.read_certificates(published);
        }
    }

    /// Says which tables the file has now that a restart would change.
    fn compare_tables(&self, path: &Path) {
        match cli::sections_again(path, &self.settings) {
            Ok(now) => match differences(&self.settings.sections, &now) {
                changed if changed.is_empty() => tracing::info!("SIGHUP: the file has the same [table.NAME] sections"),
                changed => tracing::warn!(
                    sections = changed.join(", "),
                    "SIGHUP: [table.NAME] sections of the file have changed; a restart is needed for them, and nothing \
                     else of the file is read again"
                ),
            },
            Err(error) => tracing::error!(%error, "SIGHUP: the file can't be used; nothing is changed"),
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

/// The heads of the sections that differ, each with how.
fn differences(before: &[Section], now: &[Section]) -> Vec<String> {
    let of = |sections: &[Section], name: &str| sections.iter().find(|section| section.name == name).cloned();
    let mut differences = Vec::new();
    for section in now {
        match of(before, &section.name) {
            None => differences.push(format!("{} is new", section.title())),
            Some(former) if former != *section => differences.push(format!("{} is changed", section.title())),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|section| of(now, &section.name).is_none());
    differences.extend(gone.map(|section| format!("{} is gone", section.title())));
    differences
}

/// The keys, once the log says which of them may be guessed.
pub(super) fn warned_of(keys: Keys) -> Keys {
    keys.warnings().for_each(|warning| tracing::warn!("{warning}"));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(text: &str) -> Vec<Section> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        cli::sections_of(file.path()).unwrap()
    }

    #[test]
    fn sections_that_are_new_changed_or_gone_are_named() {
        let before = sections("[table.a]\n[table.b]\nbatch-rows = 1\n[table.\"c.d\"]");
        let now = sections("[table.b]\nbatch-rows = 2\n[table.a]\n[table.e]");
        assert_eq!(differences(&before, &now), ["[table.b] is changed", "[table.e] is new", "[table.\"c.d\"] is gone"]);
        assert_eq!(differences(&before, &before), Vec::<String>::new());
    }
}
