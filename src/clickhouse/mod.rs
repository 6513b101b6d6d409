//! ClickHouse as sluicegate sees it: its HTTP interface, its servers and tables, and the delivery
//! guarantee that they give.
//!
//! | file | contents |
//! |---|---|
//! | `client` | asks a server over HTTP, and tells success from anything else |
//! | `servers` | the servers of `--clickhouse-url`, and which share a deduplication window |
//! | `name`, `tables` | a table's name in SQL; the tables that the server creates |
//! | `description`, `frozen` | a table's columns as they are; what of them is fixed with a block |
//! | `settings`, `arrival` | what is sent with every INSERT, and whether it arrives |
//! | `version` | releases, and which tokens they recognise |
//! | `watcher`, `watched` | follows the columns of the tables while the server runs |
//! | `facts` | engine, deduplication window, TTL and policies of a table |
//! | `guarantee`, `horizon`, `delivery` | what a table promises, for how long, and who says it |
//! | `quarantined` | the lines in the quarantine tables, and how they are taken again |
//! | `survey` | what the servers answer now, and the guarantees of their tables |
//! | `metrics` | what INSERTs came to |
//! | `embedded`, `server_id` | ClickHouse as a child process, and its identity |

pub mod arrival;
pub mod client;
pub mod delivery;
pub mod description;
pub mod embedded;
pub mod facts;
pub mod frozen;
pub mod guarantee;
pub mod horizon;
pub mod metrics;
pub mod name;
pub mod quarantined;
pub mod refresh;
mod server_id;
pub mod servers;
pub mod settings;
pub mod survey;
pub mod tables;
pub mod trust;
pub mod version;
mod watched;
pub mod watcher;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use name::TableName;
use settings::{ClickHouseSetting, InsertFormat};

use crate::schema::{Addresses, Mapping};

/// The configuration of a table.
#[derive(Debug, Clone)]
pub struct TableConfig {
    /// The table.
    pub name: TableName,
    /// `--create-table`: whether the table and its quarantine table may be created.
    pub create: bool,
    /// `--clickhouse-setting`: settings sent with every INSERT into the table.
    pub insert_settings: Vec<ClickHouseSetting>,
    /// `--insert-format`: the format of the INSERTs.
    pub insert_format: InsertFormat,
    /// `--writers`: number of sluicegate nodes that insert into the table.
    pub writers: NonZeroUsize,
    /// `--batch-age`: the age at which a block is sealed and inserted.
    pub batch_age: Duration,
    /// Which addresses the clients have that its rows may come from.
    pub addresses: Addresses,
    /// The same for columns that store addresses in full, whatever `--client-ip` says.
    pub whole_addresses: Addresses,
    /// Where its columns get their values from.
    pub mapping: Arc<Mapping>,
    /// `--dedup-field`: a column that the table must have.
    pub dedup_field: Option<String>,
}
