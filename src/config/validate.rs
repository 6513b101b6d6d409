//! Validation of the settings.

use std::fmt::Display;
use std::time::Duration;

use bytesize::ByteSize;

use super::{ClientIp, ConfigError, Engine, Settings, TableSettings};
use crate::clickhouse::trust::is_https;
use crate::limits;
use crate::net::ListenAddress;
use crate::spool;

/// Upper limit of `--head-bytes-max`. A head is parsed again whenever more of it arrives.
const HEAD_BYTES_CEILING: u64 = 1 << 20;

/// Upper limit of `--headers-max`. The parsed headers are on the worker's stack.
const HEADERS_CEILING: usize = limits::HEADERS_MAX;

/// Upper limit of every time. Sums of times can't overflow.
const TIME_CEILING: Duration = Duration::from_hours(30 * 24);

/// Upper limit of `--connections-max`: more than a kernel lets a process open.
const CONNECTIONS_CEILING: usize = 1_000_000;

/// Upper limit of `--workers`. Each worker has a socket per address, batches and buffers.
const WORKERS_CEILING: usize = 256;

/// Upper limit of `--inserters`. Each is a thread and a connection, and writes a part of the table.
const INSERTERS_CEILING: usize = 64;

/// Upper limit of sizes that are held in memory or sent as one INSERT.
const BYTES_CEILING: u64 = 1 << 30;

impl Settings {
    /// Checks each setting, and the relations between settings.
    ///
    /// # Errors
    ///
    /// If a setting is invalid; the sentence names the setting and what it accepts.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_engine()?;
        self.check_tls()?;
        self.check_times()?;
        self.check_events()?;
        self.check_requests()?;
        self.check_listeners()?;
        self.check_proxies()?;
        self.check_origins()?;
        self.check_threads()?;
        self.check_names()?;
        self.check_urls()?;
        self.check_tables()
    }

    fn check_engine(&self) -> Result<(), ConfigError> {
        rule(
            self.engine != Engine::May || cfg!(feature = "engine-may"),
            "--engine may is not in this build; `cargo build --release --features engine-may` makes a build with it",
        )?;
        for (flag, is_set) in [
            ("write-key-file", self.write_key_file.is_some()),
            ("rate-limit", self.rate_limit.is_some() || self.tables().iter().any(|table| table.rate_limit.is_some())),
            ("rate-limit-per-address", self.rate_limit_per_address.is_some()),
            ("connections-per-address-max", self.connections_per_address_max.is_some()),
            ("requests-per-connection-max", self.requests_per_connection_max.is_some()),
            ("cors-origin", !self.cors_origin.is_empty()),
        ] {
            rule(
                self.engine != Engine::May || !is_set,
                format_args!("--{flag} has no effect with --engine may; leave one of the two out"),
            )?;
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        for (is_set, setting) in [
            (!self.tls_cert.is_empty(), "--tls-cert"),
            (self.clickhouse_ca_file.is_some(), "--clickhouse-ca-file"),
            (self.clickhouse_url.iter().any(|url| is_https(url)), "an https:// address of --clickhouse-url"),
        ] {
            rule(
                !is_set || cfg!(feature = "tls"),
                format_args!("{setting} needs TLS, which is not in this build; a build with the feature tls has it"),
            )?;
        }
        rule(
            self.tls_cert.len() == self.tls_key.len(),
            format_args!(
                "--tls-cert and --tls-key go in pairs, in the same order: there are {} and {}",
                self.tls_cert.len(),
                self.tls_key.len()
            ),
        )?;
        rule(
            self.tls_cert.is_empty() || self.engine != Engine::May,
            "--engine may speaks no TLS: leave out --tls-cert, or --engine may",
        )
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("insert-timeout", self.insert_timeout),
            ("commit-timeout", self.commit_timeout),
            ("head-timeout", self.head_timeout),
            ("body-timeout", self.body_timeout),
            ("idle-timeout", self.idle_timeout),
            ("inserted-timeout", self.inserted_timeout),
            ("shutdown-timeout", self.shutdown_timeout),
        ] {
            time(key, *value)?;
        }
        Ok(())
    }

    fn check_events(&self) -> Result<(), ConfigError> {
        positive("events-max", self.events_max.into())?;
        positive("encoded-bytes-max", self.encoded_bytes_max.0)?;
        at_most_1_gib("encoded-bytes-max", self.encoded_bytes_max.0)
    }

    /// Checks the INSERTs of a table.
    pub(super) fn check_batches(&self, table: &TableSettings) -> Result<(), ConfigError> {
        time("batch-age", table.batch_age)?;
        positive("batch-rows", table.batch_rows)?;
        positive("batch-bytes", table.batch_bytes)?;
        at_most_1_gib("batch-bytes", table.batch_bytes)?;
        rule(
            table.batch_rows.saturating_add(self.events_max.into()) < limits::ROWS_PER_INSERT_MAX,
            format_args!(
                "--batch-rows plus --events-max must be less than {}: ClickHouse stores at most that many rows as one \
                 block",
                limits::ROWS_PER_INSERT_MAX
            ),
        )?;
        rule(
            table.spool_bytes_max <= self.spool_bytes_max.0,
            format_args!("--spool-bytes-max must be at most that of all tables, {}", self.spool_bytes_max),
        )?;
        rule(
            table.spool_bytes_max > table.batch_bytes,
            format_args!(
                "--spool-bytes-max must be more than --batch-bytes: the spool holds at least one block of a table, \
                 which may take {} of the spool",
                ByteSize(table.spool_bytes_max)
            ),
        )?;
        let kept = spool::kept_bytes(self.spool_bytes_max.0) + limits::SEGMENT_BLOCKS_BYTES;
        rule(
            self.spool_bytes_max.0 >= table.batch_bytes.saturating_add(kept),
            format_args!(
                "--spool-bytes-max must be at least --batch-bytes and {} more, for the journal and what else is there \
                 beside the rows",
                ByteSize(kept)
            ),
        )
    }

    fn check_requests(&self) -> Result<(), ConfigError> {
        positive("body-bytes-max", self.body_bytes_max.0)?;
        positive("line-bytes-max", self.line_bytes_max.0)?;
        positive("body-rate-min", self.body_rate_min.0)?;
        at_most_1_gib("body-bytes-max", self.body_bytes_max.0)?;
        rule(
            (1..=CONNECTIONS_CEILING).contains(&self.connections_max),
            format_args!("--connections-max must be from 1 to {CONNECTIONS_CEILING}"),
        )?;
        rule(
            (64..=HEAD_BYTES_CEILING).contains(&self.head_bytes_max.0),
            format_args!("--head-bytes-max must be from 64B to {}", ByteSize(HEAD_BYTES_CEILING)),
        )?;
        rule(
            (1..=HEADERS_CEILING).contains(&self.headers_max),
            format_args!("--headers-max must be from 1 to {HEADERS_CEILING}"),
        )?;
        rule(
            self.in_flight_bytes_max.0 >= self.body_bytes_max.0 + self.head_bytes_max.0,
            "--in-flight-bytes-max must hold at least one request: --body-bytes-max and --head-bytes-max",
        )
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        rule(
            self.listen.len() <= limits::LISTENERS_MAX,
            format_args!("--listen may be given {} times at most, not {}", limits::LISTENERS_MAX, self.listen.len()),
        )
    }

    fn check_proxies(&self) -> Result<(), ConfigError> {
        if self.engine == Engine::May {
            let unix = self.listen.iter().find(|address| matches!(address, ListenAddress::Unix(_)));
            for (is_set, setting) in [
                (!self.trusted_proxy.is_empty(), "--trusted-proxy"),
                (self.proxy_protocol, "--proxy-protocol"),
                (unix.is_some(), "a Unix socket in --listen"),
            ] {
                rule(!is_set, format_args!("--engine may can't serve {setting}; --engine epoll can"))?;
            }
        }
        rule(
            !self.proxy_protocol || !self.trusted_proxy.is_empty(),
            "--proxy-protocol needs --trusted-proxy: a connection from any other peer is closed",
        )?;
        rule(
            self.client_ip != ClientIp::Hashed || self.client_ip_key_file.is_some(),
            "--client-ip hashed needs --client-ip-key-file",
        )
    }

    fn check_origins(&self) -> Result<(), ConfigError> {
        rule(
            self.cors_origin.len() <= limits::CORS_ORIGINS_MAX,
            format_args!(
                "--cors-origin may be given {} times at most, not {}; or * for every origin",
                limits::CORS_ORIGINS_MAX,
                self.cors_origin.len()
            ),
        )
    }

    fn check_threads(&self) -> Result<(), ConfigError> {
        rule(
            self.workers.is_none_or(|workers| workers.get() <= WORKERS_CEILING),
            format_args!("--workers must be from 1 to {WORKERS_CEILING}"),
        )?;
        rule(
            self.inserters.get() <= INSERTERS_CEILING,
            format_args!("--inserters must be from 1 to {INSERTERS_CEILING}"),
        )
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        rule(
            is_plain_name(&self.database),
            format_args!("--database must consist of letters, digits, `_`, `-` and `.`, not `{}`", self.database),
        )?;
        let Some(node_id) = &self.node_id else { return Ok(()) };
        rule(
            is_plain_name(node_id) && node_id.len() <= 64,
            format_args!("--node-id must be 1 to 64 letters, digits, `_`, `-` or `.`, not `{node_id}`"),
        )
    }

    fn check_urls(&self) -> Result<(), ConfigError> {
        for url in &self.clickhouse_url {
            let parsed = reqwest::Url::parse(url).ok();
            rule(
                parsed.as_ref().is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()),
                format_args!("--clickhouse-url must look like http://host:8123, not `{url}`"),
            )?;
            rule(
                parsed.is_some_and(|url| url.username().is_empty() && url.password().is_none()),
                "--clickhouse-url must not hold a user or a password: name them with --clickhouse-user and \
                 --clickhouse-password-file",
            )?;
        }
        Ok(())
    }
}

pub(super) fn rule(holds: bool, sentence: impl Display) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError(sentence.to_string())) }
}

fn positive(key: &str, value: u64) -> Result<(), ConfigError> {
    rule(value > 0, format_args!("--{key} must be more than 0"))
}

fn time(key: &str, value: Duration) -> Result<(), ConfigError> {
    rule(
        value > Duration::ZERO && value <= TIME_CEILING,
        format_args!("--{key} must be more than 0s, and at most {}", humantime::format_duration(TIME_CEILING)),
    )
}

fn at_most_1_gib(key: &str, value: u64) -> Result<(), ConfigError> {
    rule(value <= BYTES_CEILING, format_args!("--{key} must be at most 1GiB"))
}

/// A name that is safe as a folder, in a URL path and, quoted, in SQL.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}
