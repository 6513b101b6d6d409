//! The settings of the server: one struct with all settings, their defaults, and their validation.
//!
//! [`cli`] fills the struct from flags, environment and file, [`Settings::validate`] checks it, and
//! each room gets only the part that it needs.

mod arguments;
pub mod cli;
pub mod environment;
mod file;
mod mapping;
mod parts;
mod print;
mod section;
mod send;
mod tables;
#[cfg(test)]
mod tests;
mod validate;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{ArgAction, Args, ValueEnum};

use crate::api::cors::CorsOrigin;
use crate::api::rate::Rate;
use crate::clickhouse::settings::{ClickHouseSetting, InsertFormat};
use crate::insert::compression::InsertCompression;
use crate::ndjson::InvalidText;
use crate::net::{ListenAddress, TrustedProxy};
use crate::spool::Durability;

pub use mapping::SectionMapping;
pub use print::Effective;
pub use section::Section;
pub use send::SendArgs;
pub use tables::TableSettings;

/// The settings of `serve` and of every command that works on the same spool and table.
///
/// The long flag, the key in the configuration file and (in capitals, with `SLUICEGATE_` before
/// it and `_` for `-`) the environment variable of a setting have the same name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// A TOML file with settings; its keys are the flags' names
    #[arg(long, env = "SLUICEGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address for events, or unix:/path for a Unix socket; repeat it for more
    #[arg(
        long,
        env = "SLUICEGATE_LISTEN",
        value_name = "ADDRESS:PORT|unix:/PATH",
        default_value = "0.0.0.0:8080",
        value_delimiter = ','
    )]
    pub listen: Vec<ListenAddress>,

    /// A network, an address or unix: (all Unix sockets) whose peers are proxies that say who their
    /// clients are, in X-Forwarded-For or Forwarded; repeat it for more
    #[arg(long, env = "SLUICEGATE_TRUSTED_PROXY", value_name = "CIDR|unix:", value_delimiter = ',')]
    pub trusted_proxy: Vec<TrustedProxy>,

    /// Every connection to --listen begins with a header of the PROXY protocol, v1 or v2, and comes
    /// from a --trusted-proxy; any other is closed
    #[arg(long, env = "SLUICEGATE_PROXY_PROTOCOL", value_name = "BOOL", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub proxy_protocol: bool,

    /// What is stored of a client's address: all of it (full), its /24 or /48 (truncated), a keyed hash
    /// (hashed, with --client-ip-key-file), or nothing (none)
    #[arg(long, env = "SLUICEGATE_CLIENT_IP", value_name = "FORM", default_value = "full")]
    pub client_ip: ClientIp,

    /// File with the secret key of --client-ip hashed
    #[arg(long, env = "SLUICEGATE_CLIENT_IP_KEY_FILE", value_name = "FILE")]
    pub client_ip_key_file: Option<PathBuf>,

    /// File with a certificate in PEM, and those between it and its authority: every --listen then
    /// speaks TLS 1.2 and 1.3, but for Unix sockets. Repeat it, with --tls-key, for more: a client gets
    /// the first that has the name that it asks for, else the first. Read again on SIGHUP
    #[arg(long, env = "SLUICEGATE_TLS_CERT", value_name = "FILE", value_delimiter = ',')]
    pub tls_cert: Vec<PathBuf>,

    /// File with the private key, in PEM, of the --tls-cert at the same place
    #[arg(long, env = "SLUICEGATE_TLS_KEY", value_name = "FILE", value_delimiter = ',')]
    pub tls_key: Vec<PathBuf>,

    /// Address for metrics, health and queries
    #[arg(long, env = "SLUICEGATE_ADMIN_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9080")]
    pub admin_listen: SocketAddr,

    /// File whose first line is the password of the admin address (HTTP Basic, any user); /livez,
    /// /readyz without its texts, and /metrics stay open
    #[arg(long, env = "SLUICEGATE_ADMIN_PASSWORD_FILE", value_name = "FILE")]
    pub admin_password_file: Option<PathBuf>,

    /// Worker threads [default: one per core]
    #[arg(long, env = "SLUICEGATE_WORKERS", value_name = "N")]
    pub workers: Option<NonZeroUsize>,

    /// Whether workers are pinned to cores: where the affinity mask has exactly one for each (auto),
    /// always (true), or never (false)
    #[arg(long, env = "SLUICEGATE_PIN", value_name = "WHEN", default_value = "auto")]
    pub pin: Pin,

    /// The HTTP loop that serves events: the server's own (epoll), or may_minihttp (may), in a build
    /// with the feature engine-may, for trusted networks
    #[arg(long, env = "SLUICEGATE_ENGINE", value_name = "ENGINE", default_value = "epoll")]
    pub engine: Engine,

    /// HTTP interface of ClickHouse; repeat it for replicas: if one fails, the next one is tried
    #[arg(
        long,
        env = "SLUICEGATE_CLICKHOUSE_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8123",
        value_delimiter = ','
    )]
    pub clickhouse_url: Vec<String>,

    /// ClickHouse user; the password comes from --clickhouse-password-file or from
    /// SLUICEGATE_CLICKHOUSE_PASSWORD
    #[arg(long, env = "SLUICEGATE_CLICKHOUSE_USER", value_name = "NAME", default_value = "default")]
    pub clickhouse_user: String,

    /// File whose first line is the password of the ClickHouse user
    #[arg(long, env = "SLUICEGATE_CLICKHOUSE_PASSWORD_FILE", value_name = "FILE")]
    pub clickhouse_password_file: Option<PathBuf>,

    /// File with the certificates, in PEM, of the authorities that are trusted for https:// URLs of
    /// ClickHouse, in place of the system's
    #[arg(long, env = "SLUICEGATE_CLICKHOUSE_CA_FILE", value_name = "FILE")]
    pub clickhouse_ca_file: Option<PathBuf>,

    /// Run an embedded ClickHouse on this folder, which listens at the address of --clickhouse-url and is
    /// started again when it ends by itself
    #[arg(long, env = "SLUICEGATE_EMBEDDED", value_name = "DIR")]
    pub embedded: Option<PathBuf>,

    /// A ClickHouse setting sent with every INSERT, such as insert_quorum=2; repeatable
    #[arg(long, env = "SLUICEGATE_CLICKHOUSE_SETTING", value_name = "NAME=VALUE", value_delimiter = ',')]
    pub clickhouse_setting: Vec<ClickHouseSetting>,

    /// Format of the rows in an INSERT: as they are in the spool (rowbinary), or as columns (native),
    /// which costs ClickHouse less CPU, and memory for the rows of each running INSERT
    #[arg(long, env = "SLUICEGATE_INSERT_FORMAT", value_name = "FORMAT", default_value = "rowbinary")]
    pub insert_format: InsertFormat,

    /// Compression of an INSERT, for a ClickHouse behind a slow network
    #[arg(long, env = "SLUICEGATE_INSERT_COMPRESSION", value_name = "CODING", default_value = "none")]
    pub insert_compression: InsertCompression,

    /// Time limit for one INSERT
    #[arg(long, env = "SLUICEGATE_INSERT_TIMEOUT", value_name = "TIME", default_value = "300s")]
    pub insert_timeout: humantime::Duration,

    /// Database of the target table, and of each [table.NAME] section that names none
    #[arg(long, env = "SLUICEGATE_DATABASE", value_name = "NAME", default_value = "default")]
    pub database: String,

    /// The target table, unless the file has [table.NAME] sections
    #[arg(long, env = "SLUICEGATE_TABLE", value_name = "NAME", default_value = "events")]
    pub table: String,

    /// Number of sluicegate nodes that insert into this table; shrinks the deduplication horizon
    #[arg(long, env = "SLUICEGATE_WRITERS", value_name = "N", default_value = "1")]
    pub writers: NonZeroUsize,

    /// Create the databases, the quarantine tables and, under the name events, the target table when
    /// they are missing
    #[arg(long, env = "SLUICEGATE_CREATE_TABLE", value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub create_table: bool,

    /// Name of this node in deduplication tokens [default: generated once and kept in the spool]
    #[arg(long, env = "SLUICEGATE_NODE_ID", value_name = "NAME")]
    pub node_id: Option<String>,

    /// Folder of the spool
    #[arg(long, env = "SLUICEGATE_SPOOL_DIR", value_name = "DIR", default_value = "./data/spool")]
    pub spool_dir: PathBuf,

    /// Size of the spool above which events are refused with 503
    #[arg(long, env = "SLUICEGATE_SPOOL_BYTES_MAX", value_name = "SIZE", default_value = "10GiB")]
    pub spool_bytes_max: ByteSize,

    /// Free disk space below which events are refused with 503
    #[arg(long, env = "SLUICEGATE_DISK_FREE_MIN", value_name = "SIZE", default_value = "1GiB")]
    pub disk_free_min: ByteSize,

    /// Time limit for a commit to the disk; a request that waits longer is answered with 503
    #[arg(long, env = "SLUICEGATE_COMMIT_TIMEOUT", value_name = "TIME", default_value = "5s")]
    pub commit_timeout: humantime::Duration,

    /// What a 200 means: on the disk (sync), or handed to the operating system (written)
    #[arg(long, env = "SLUICEGATE_DURABILITY", value_name = "LEVEL", default_value = "sync")]
    pub durability: Durability,

    /// Number of rows after which an INSERT is made
    #[arg(long, env = "SLUICEGATE_BATCH_ROWS", value_name = "N", default_value_t = 500_000)]
    pub batch_rows: u64,

    /// Number of bytes after which an INSERT is made
    #[arg(long, env = "SLUICEGATE_BATCH_BYTES", value_name = "SIZE", default_value = "32MiB")]
    pub batch_bytes: ByteSize,

    /// Time after which an INSERT is made
    #[arg(long, env = "SLUICEGATE_BATCH_AGE", value_name = "TIME", default_value = "1s")]
    pub batch_age: humantime::Duration,

    /// Number of concurrent INSERTs
    #[arg(long, env = "SLUICEGATE_INSERTERS", value_name = "N", default_value = "2")]
    pub inserters: NonZeroUsize,

    /// The longest body of a request, after decompression too
    #[arg(long, env = "SLUICEGATE_BODY_BYTES_MAX", value_name = "SIZE", default_value = "16MiB")]
    pub body_bytes_max: ByteSize,

    /// The longest line of a body
    #[arg(long, env = "SLUICEGATE_LINE_BYTES_MAX", value_name = "SIZE", default_value = "1MiB")]
    pub line_bytes_max: ByteSize,

    /// The longest head of a request
    #[arg(long, env = "SLUICEGATE_HEAD_BYTES_MAX", value_name = "SIZE", default_value = "16KiB")]
    pub head_bytes_max: ByteSize,

    /// The most headers of a request
    #[arg(long, env = "SLUICEGATE_HEADERS_MAX", value_name = "N", default_value_t = 100)]
    pub headers_max: usize,

    /// The most events of one request
    #[arg(long, env = "SLUICEGATE_EVENTS_MAX", value_name = "N", default_value_t = 100_000)]
    pub events_max: u32,

    /// The most bytes of the encoded rows of one request
    #[arg(long, env = "SLUICEGATE_ENCODED_BYTES_MAX", value_name = "SIZE", default_value = "64MiB")]
    pub encoded_bytes_max: ByteSize,

    /// The most bytes of bodies and batches in memory, over all connections
    #[arg(long, env = "SLUICEGATE_IN_FLIGHT_BYTES_MAX", value_name = "SIZE", default_value = "256MiB")]
    pub in_flight_bytes_max: ByteSize,

    /// The most open connections
    #[arg(long, env = "SLUICEGATE_CONNECTIONS_MAX", value_name = "N", default_value_t = 10_000)]
    pub connections_max: usize,

    /// Time limit from the first byte of a request to the end of its head
    #[arg(long, env = "SLUICEGATE_HEAD_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub head_timeout: humantime::Duration,

    /// Time limit between two reads of a body
    #[arg(long, env = "SLUICEGATE_BODY_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub body_timeout: humantime::Duration,

    /// The slowest that a whole body may come, in bytes a second: it must be there within
    /// --body-timeout and its length divided by this
    #[arg(long, env = "SLUICEGATE_BODY_RATE_MIN", value_name = "SIZE", default_value = "8KiB")]
    pub body_rate_min: ByteSize,

    /// Time limit between two requests of a connection
    #[arg(long, env = "SLUICEGATE_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s")]
    pub idle_timeout: humantime::Duration,

    /// Time that a request with ack=inserted waits for ClickHouse before it is answered with 202
    #[arg(long, env = "SLUICEGATE_INSERTED_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub inserted_timeout: humantime::Duration,

    /// The most idempotency keys that are remembered, each for at most 24 hours
    #[arg(long, env = "SLUICEGATE_IDEMPOTENCY_KEYS_MAX", value_name = "N", default_value = "1000000")]
    pub idempotency_keys_max: NonZeroUsize,

    /// Column whose value identifies an event; an event with a remembered value is not stored again
    #[arg(long, env = "SLUICEGATE_DEDUP_FIELD", value_name = "COLUMN")]
    pub dedup_field: Option<String>,

    /// The most values of --dedup-field that are remembered
    #[arg(long, env = "SLUICEGATE_DEDUP_VALUES_MAX", value_name = "N", default_value = "1000000")]
    pub dedup_values_max: NonZeroUsize,

    /// What happens to a line with fields that no column takes: they are skipped (skip), or the line is
    /// rejected (reject); a section of the file may also collect them in a column
    #[arg(long, env = "SLUICEGATE_UNKNOWN_FIELDS", value_name = "HOW", default_value = "skip")]
    pub unknown_fields: UnknownFieldsFlag,

    /// What happens to a line with invalid text, that is, unpaired surrogates or bytes that are not
    /// UTF-8: it is rejected (reject), or such text becomes U+FFFD (replace)
    #[arg(long, env = "SLUICEGATE_INVALID_TEXT", value_name = "HOW", default_value = "reject")]
    pub invalid_text: InvalidText,
    /// File of the keys that clients need to send events, one a line: KEY name=web rate=5000/s; read again
    /// on SIGHUP [default: none, everyone may]
    #[arg(long, env = "SLUICEGATE_WRITE_KEY_FILE", value_name = "FILE")]
    pub write_key_file: Option<PathBuf>,

    /// Events a second of each key's name, unless its line has a rate; without keys, of all clients
    /// together: 5000/s,burst=20000 [default: none]
    #[arg(long, env = "SLUICEGATE_RATE_LIMIT", value_name = "RATE")]
    pub rate_limit: Option<Rate>,

    /// Events a second of each client address; an IPv6 address counts with its /64 [default: none]
    #[arg(long, env = "SLUICEGATE_RATE_LIMIT_PER_ADDRESS", value_name = "RATE")]
    pub rate_limit_per_address: Option<Rate>,

    /// The most open connections of one address [default: none]
    #[arg(long, env = "SLUICEGATE_CONNECTIONS_PER_ADDRESS_MAX", value_name = "N")]
    pub connections_per_address_max: Option<NonZeroU32>,

    /// The most requests of one connection; the reply to the last one closes it [default: none]
    #[arg(long, env = "SLUICEGATE_REQUESTS_PER_CONNECTION_MAX", value_name = "N")]
    pub requests_per_connection_max: Option<NonZeroU64>,

    /// Origin whose pages may send events and read the replies, such as https://shop.example, or * for
    /// every origin; repeatable [default: none]
    #[arg(long, env = "SLUICEGATE_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<CorsOrigin>,

    /// After SIGTERM /readyz is 503 for this long while events are still taken, so that balancers leave
    #[arg(long, env = "SLUICEGATE_SHUTDOWN_DELAY", value_name = "TIME", default_value = "0s")]
    pub shutdown_delay: humantime::Duration,

    /// Time limit for the whole stop
    #[arg(long, env = "SLUICEGATE_SHUTDOWN_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub shutdown_timeout: humantime::Duration,

    /// Format of the log [default: text on a terminal, else json]
    #[arg(long, env = "SLUICEGATE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Lowest level that is logged
    #[arg(long, env = "SLUICEGATE_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,

    /// The `[table.NAME]` sections of the file; none: `--table` is the only table.
    #[arg(skip)]
    pub sections: Vec<Section>,

    /// `--only` of a command: the labels of the tables that it is about; none: all tables.
    #[arg(skip)]
    pub only: Vec<String>,

    /// Every setting that has a value, as it was written.
    #[arg(skip)]
    pub effective: Vec<Effective>,
}

/// An HTTP loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The server's own loop.
    Epoll,
    /// `may_minihttp`, in a build with the feature `engine-may`; for trusted networks.
    May,
}

/// What is stored of a client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientIp {
    /// All of it.
    Full,
    /// The /24 of an IPv4 address, the /48 of an IPv6 one.
    Truncated,
    /// A hash with the key of `--client-ip-key-file`.
    Hashed,
    /// Nothing.
    None,
}

/// What happens to fields that no column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnknownFieldsFlag {
    /// They are skipped.
    Skip,
    /// The line is rejected.
    Reject,
}

/// Whether workers are pinned to cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pin {
    /// Where the affinity mask has exactly one core for each worker.
    Auto,
    /// Always.
    True,
    /// Never.
    False,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Errors that end the process, refuse events, or hold them in the spool.
    Error,
    /// Problems that may need operator action.
    Warn,
    /// Starts, stops, changes of state.
    Info,
    /// Each INSERT.
    Debug,
    /// Each commit of the spool.
    Trace,
}

/// The reason why a configuration can't be used: a sentence that names the setting and what it
/// accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}
