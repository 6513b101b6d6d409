//! The settings divided into the parts that the rooms need.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{ClientIp, ConfigError, Settings, TableSettings};
use crate::api::cors::Cors;
use crate::api::keys::Keys;
use crate::clickhouse::client::{ClickHouse, ClientConfig};
use crate::clickhouse::trust::Trust;
use crate::connection::RequestLimits;
use crate::http::HeadLimits;
use crate::intake::Timeouts;
use crate::intake::budget::BudgetLimits;
use crate::limits;
use crate::ndjson::{AddressForm, AddressKey, EncodeLimits};
use crate::net::tls::{CertificateFiles, TlsConfig};
use crate::net::{ListenAddress, TrustedProxies};
use crate::schema::Addresses;
use crate::spool::{SpoolConfig, SpoolTable};

/// Bytes of the key in `--client-ip-key-file`.
const ADDRESS_KEY_BYTES_MIN: usize = 16;

impl Settings {
    /// The settings of the spool, with these tables.
    pub fn spool(&self, tables: &[TableSettings]) -> SpoolConfig {
        SpoolConfig {
            dir: self.spool_dir.clone(),
            tables: tables.iter().map(|table| spool_table(table, self.spool_bytes_max.0)).collect(),
            node_id: self.node_id.clone(),
            spool_bytes_max: self.spool_bytes_max.0,
            disk_free_min: self.disk_free_min.0,
            durability: self.durability,
            idempotency_keys_max: self.idempotency_keys_max.get(),
            dedup_values_max: self.dedup_values_max.get(),
        }
    }

    /// The largest file of the spool: a batch that is larger than a segment gets one of its own.
    pub fn segment_bytes_max(&self) -> u64 {
        let largest = self.tables().iter().map(|table| table.batch_bytes).max().unwrap_or_default();
        largest.max(self.encoded_bytes_max.0) + limits::SEGMENT_BLOCKS_BYTES
    }

    /// Which addresses are stored: those that connections to the listeners can come from, or that a proxy
    /// can name.
    pub(super) fn addresses(&self) -> Addresses {
        match self.client_ip {
            ClientIp::Hashed => Addresses::Hashed,
            ClientIp::None => Addresses::Ipv4,
            ClientIp::Full | ClientIp::Truncated => self.whole_addresses(),
        }
    }

    /// The same of the addresses that are stored in full.
    pub(super) fn whole_addresses(&self) -> Addresses {
        let is_ipv4_alone = self.trusted_proxy.is_empty() && self.listen.iter().all(ListenAddress::is_without_ipv6);
        if is_ipv4_alone { Addresses::Ipv4 } else { Addresses::Any }
    }

    /// What is stored of a client's address.
    ///
    /// # Errors
    ///
    /// If the key file can't be read, or its key is too short.
    pub fn address_form(&self) -> Result<AddressForm, ConfigError> {
        Ok(match self.client_ip {
            ClientIp::Full => AddressForm::Full,
            ClientIp::Truncated => AddressForm::Truncated,
            ClientIp::None => AddressForm::None,
            ClientIp::Hashed => match self.address_key()? {
                Some(key) => AddressForm::Hashed(key),
                None => return Err(ConfigError("--client-ip hashed needs --client-ip-key-file".into())),
            },
        })
    }

    /// The key of hashed addresses; `None` if no address is hashed.
    ///
    /// # Errors
    ///
    /// If the key file can't be read, or its key is too short.
    pub fn address_key(&self) -> Result<Option<AddressKey>, ConfigError> {
        let is_needed = || self.tables().iter().any(|table| table.mapping.hashes_addresses());
        let Some(path) = self.client_ip_key_file.as_ref().filter(|_| self.client_ip == ClientIp::Hashed || is_needed())
        else {
            return Ok(None);
        };
        let key = std::fs::read(path)
            .map_err(|error| ConfigError(format!("--client-ip-key-file {}: {error}", path.display())))?;
        let key = key.trim_ascii();
        if key.len() < ADDRESS_KEY_BYTES_MIN {
            return Err(ConfigError(format!(
                "--client-ip-key-file {} must hold a key of at least {ADDRESS_KEY_BYTES_MIN} bytes: all IPv4 \
                 addresses can be tried with a key that can be guessed",
                path.display()
            )));
        }
        Ok(Some(AddressKey::new(key)))
    }

    /// The proxies whose word about their clients is believed.
    pub fn trusted_proxies(&self) -> TrustedProxies {
        TrustedProxies::new(&self.trusted_proxy)
    }

    /// The addresses of `--listen` that are no Unix sockets.
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.listen.iter().filter_map(|address| match address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        });
        addresses.collect()
    }

    /// Creates a client for each `--clickhouse-url`.
    ///
    /// # Errors
    ///
    /// If the password file can't be read, or TLS can't be set up.
    pub fn clickhouse(&self) -> Result<Vec<ClickHouse>, ConfigError> {
        let config = ClientConfig {
            urls: self.clickhouse_url.clone(),
            user: self.clickhouse_user.clone(),
            password: self.clickhouse_password()?,
            trust: self.trust()?,
        };
        ClickHouse::connect(&config).map_err(|error| ConfigError(error.to_string()))
    }

    /// Number of workers: `--workers`, or one per core.
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.map_or_else(cores, usize::from)
    }

    /// Number of file descriptors that are kept back for everything that is no connection of a client.
    pub fn descriptors_kept(&self) -> u64 {
        // An event queue, a waker, and the listening sockets.
        let workers = self.worker_count().saturating_mul(2 + self.listen.len());
        // A connection to each server and the file that is sent, for each inserter and each spare one; the
        // watcher has connections as well.
        let inserters = (2 * self.inserters.get() + 1).saturating_mul(self.clickhouse_url.len() + 2);
        let admin = limits::ADMIN_CONNECTIONS_MAX;
        let counted = workers + inserters + admin + limits::REFUSED_CONNECTIONS_MAX;
        limits::DESCRIPTORS_KEPT + counted as u64
    }

    /// The certificates of `--tls-cert`, read now; `None` without one. Tickets that `former` has given out
    /// stay valid.
    ///
    /// # Errors
    ///
    /// If a file can't be read, or a key is not the certificate's; the sentence names the file.
    pub fn tls(&self, former: Option<&TlsConfig>) -> Result<Option<TlsConfig>, ConfigError> {
        let pairs = self.tls_cert.iter().zip(&self.tls_key);
        let files: Vec<CertificateFiles> = pairs
            .map(|(certificate, key)| CertificateFiles { certificate: certificate.clone(), key: key.clone() })
            .collect();
        if files.is_empty() {
            return Ok(None);
        }
        TlsConfig::load(&files, former).map(Some).map_err(|error| ConfigError(error.to_string()))
    }

    /// Who may vouch for the servers of `--clickhouse-url`.
    ///
    /// # Errors
    ///
    /// If the file of `--clickhouse-ca-file` can't be read, or has no certificate in PEM.
    pub fn trust(&self) -> Result<Trust, ConfigError> {
        Trust::new(&self.clickhouse_url, "--clickhouse-ca-file", self.clickhouse_ca_file.as_deref())
            .map_err(|error| ConfigError(error.to_string()))
    }

    /// The limits of a request.
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            head: HeadLimits { head_bytes_max: bounded(self.head_bytes_max.0), headers_max: self.headers_max },
            body_bytes_max: self.body_bytes_max.0,
            requests_max: self.requests_per_connection_max,
        }
    }

    /// The limits of a request's events.
    pub fn encode_limits(&self) -> EncodeLimits {
        EncodeLimits {
            line_bytes_max: bounded(self.line_bytes_max.0),
            events_max: self.events_max,
            encoded_bytes_max: bounded(self.encoded_bytes_max.0),
        }
    }

    /// The time limits of connections, commits and `ack=inserted`.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            head: *self.head_timeout,
            body: *self.body_timeout,
            body_rate_min: self.body_rate_min.0,
            idle: *self.idle_timeout,
            commit: *self.commit_timeout,
            inserted: *self.inserted_timeout,
        }
    }

    /// The keys that requests with events need, as the file is now. `former` are those of an earlier look at
    /// the file.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or a line is wrong; the sentence repeats nothing of the file.
    pub fn write_keys(&self, former: Option<&Keys>) -> Result<Keys, ConfigError> {
        let Some(path) = &self.write_key_file else {
            // Everyone's rate is that of each table.
            return Ok(Keys::open(None));
        };
        let wrong = |error: &dyn Display| ConfigError(format!("--write-key-file {}: {error}", path.display()));
        let text = read_bounded(path, limits::WRITE_KEY_FILE_BYTES_MAX).map_err(|error| wrong(&error))?;
        Keys::parse(&text, self.rate_limit, former).map_err(|error| wrong(&error))
    }

    /// The pages that may read replies.
    pub fn cors(&self) -> Cors {
        Cors::new(self.cors_origin.clone())
    }

    /// What buffers and batches may take together, and one connection's request of it.
    pub fn budget(&self) -> BudgetLimits {
        let request = bounded(self.body_bytes_max.0.saturating_add(self.head_bytes_max.0));
        BudgetLimits { max: self.in_flight_bytes_max.0, request_max: request }
    }

    /// The time limit of a stop.
    pub fn stop_within(&self) -> Duration {
        *self.shutdown_timeout
    }

    /// The password of the ClickHouse user, from the file or the environment.
    fn clickhouse_password(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.clickhouse_password_file else {
            // A secret that was written to a variable by `$(cat FILE)` and its like may have its line end.
            let password = std::env::var("SLUICEGATE_CLICKHOUSE_PASSWORD").ok();
            return Ok(password.map(|text| text.lines().next().unwrap_or("").to_owned()));
        };
        first_line("--clickhouse-password-file", path).map(Some)
    }

    /// The password of the admin address; `None` without `--admin-password-file`.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or its first line is empty, which would be no password.
    pub fn admin_password(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.admin_password_file else { return Ok(None) };
        match first_line("--admin-password-file", path)? {
            password if password.is_empty() => {
                Err(ConfigError(format!("--admin-password-file {}: its first line is empty", path.display())))
            }
            password => Ok(Some(password)),
        }
    }
}

/// The settings of a table in a spool of at most so many bytes.
fn spool_table(table: &TableSettings, of: u64) -> SpoolTable {
    SpoolTable {
        label: table.label.clone(),
        batch_rows: table.batch_rows,
        batch_bytes: table.batch_bytes,
        batch_age: table.batch_age,
        has_identities: table.dedup_field.is_some(),
        bytes_max: Some(table.spool_bytes_max).filter(|max| *max < of),
    }
}

/// The first line of the file that `flag` names, without its end.
pub(super) fn first_line(flag: &str, path: &Path) -> Result<String, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError(format!("{flag} {}: {error}", path.display())))?;
    Ok(text.lines().next().unwrap_or("").to_owned())
}

/// The text of a file of at most `max` bytes.
fn read_bounded(path: &Path, max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::other(format!("it is larger than {max} bytes")));
    }
    // The error of the standard library repeats nothing of the text.
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn bounded(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
