//! The admin address: a page, metrics and statistics, health, version, and the newest events from ClickHouse.
//!
//! The admin address has its own thread, which may block; it has no part in the path of an event.
//! Each connection serves one request on a short-lived thread, so that a slow client does not delay
//! the health probe of an orchestrator.

mod access;
mod browser;
mod events;
mod fields;
mod health;
mod linger;
mod listen;
mod live;
mod metrics;
mod page;
mod password;
mod process;
mod quarantine;
mod replay;
mod requeue;
mod routes;
mod series;
mod snapshot;
mod state;
mod stats;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use crate::api::keys::Keys;
use crate::batch::BlockNumber;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::metrics::InsertMetrics;
use crate::clickhouse::name::TableName;
use crate::clickhouse::survey::Survey;
use crate::clock::unix_ms;
use crate::handoff::Published;
use crate::http::{self, DateCache, Head, Status};
use crate::intake::budget::ByteBudget;
use crate::intake::health::Health;
use crate::intake::live::Live;
use crate::intake::metrics::WorkerMetrics;
use crate::intake::replay::Replayer;
use crate::spool::{Orders, SpoolMetrics};

/// A table that events are taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTable {
    /// The table.
    pub name: TableName,
    /// Its name in paths and metrics.
    pub label: String,
    /// True for the table of the public address's `/api/events`.
    pub is_default: bool,
    /// Its path on the public address.
    pub path: String,
    /// Its `spool-bytes-max`.
    pub spool_bytes_max: u64,
}

/// The limits of requests that take rejected lines again.
#[derive(Debug, Default)]
pub struct ReplayLimits {
    /// `--events-max`.
    pub events_max: usize,
    /// `--body-bytes-max`.
    pub body_bytes_max: usize,
    /// Held by the replay that is under way.
    pub under_way: Mutex<()>,
}

/// The folder of the spool, and what it may take of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolLimits {
    /// `--spool-dir`.
    pub dir: PathBuf,
    /// `--spool-bytes-max`.
    pub bytes_max: u64,
    /// `--disk-free-min`.
    pub disk_free_min: u64,
}

use routes::Request;

pub use access::Access;
pub use series::Series;

/// A function that makes one block, or all of them, due now with an operator's orders; with tables, only
/// those of these. Returns how many blocks that were.
pub type Requeue = Box<dyn Fn(Option<BlockNumber>, &[TableName], Orders) -> usize + Send + Sync>;

/// The state that the admin address shows.
pub struct Admin {
    /// Which requests are answered.
    pub access: Access,
    /// Whether an event would be taken now.
    pub health: Arc<Health>,
    /// The metrics of each worker.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// The write keys, whose names have counters.
    pub keys: Arc<Published<Keys>>,
    /// The budget of partial requests, batches and replies.
    pub budget: Arc<ByteBudget>,
    /// The metrics of the spool.
    pub spool: Arc<SpoolMetrics>,
    /// The limits of the spool.
    pub spool_limits: SpoolLimits,
    /// The metrics of the inserters.
    pub inserts: Arc<InsertMetrics>,
    /// How many inserters there are.
    pub inserters: u64,
    /// The servers that have the events.
    pub clickhouse: Vec<ClickHouse>,
    /// What these servers answer now.
    pub survey: Arc<Survey>,
    /// The name of this node.
    pub node: String,
    /// When the server was started, Unix ms.
    pub started_unix_ms: u64,
    /// The tables that events are taken for, in the order of their indexes.
    pub tables: Vec<AdminTable>,
    /// Requeues blocks; set once the inserters run.
    pub requeue: OnceLock<Requeue>,
    /// Takes rejected lines again. Set once the workers run.
    pub replayer: OnceLock<Replayer>,
    /// What a request that takes them again may have, and that there is one at a time.
    pub replay_limits: ReplayLimits,
    /// The time series of the last 15 minutes.
    pub series: Series,
    /// The configuration in force as TOML, without secrets.
    pub config: String,
    /// Lines for those who watch what is accepted or rejected now.
    pub live: Arc<Live>,
}

/// The reply to a request.
struct Page {
    status: Status,
    content_type: &'static str,
    body: String,
    /// The methods of the path, if it lacks the one of the request.
    allow: Option<&'static str>,
}

impl Page {
    fn json(status: Status, body: String) -> Self {
        Self { status, content_type: "application/json", body, allow: None }
    }

    fn text(body: String) -> Self {
        Self { status: Status::Ok, content_type: "text/plain; charset=utf-8", body, allow: None }
    }

    fn only(allow: &'static str) -> Self {
        let message = "The path does not have this method; see Allow.";
        Self { allow: Some(allow), ..Self::fault(Status::MethodNotAllowed, "method_not_allowed", message) }
    }

    fn fault(status: Status, code: &'static str, message: &str) -> Self {
        let message = sonic_rs::to_string(message).unwrap_or_default();
        Self::json(status, format!("{{\"error\":\"{code}\",\"message\":{message}}}"))
    }
}

impl Admin {
    /// True while `/livez` is 200.
    pub fn is_alive(&self) -> bool {
        health::live(&self.workers, &self.spool).status == Status::Ok
    }

    /// Serves a request that [`Access::refusal`] has let through.
    fn page(&self, head: &Head<'_>, body: &[u8]) -> Page {
        let path = http::plain_path(head.path);
        let Some((route, place)) = routes::find(&self.tables, &path) else { return routes::nothing() };
        if let Some(refusal) = route.refusal(head.method) {
            return refusal;
        }
        (route.page)(self, &Request { head, body, path: &path, place })
    }
}

/// The table of `/api/<name>`: the one with this label; for `events`, else the one that has the public
/// `/api/events`.
fn named<'a>(tables: &'a [AdminTable], name: &str) -> Option<&'a AdminTable> {
    let labelled = tables.iter().find(|table| table.label == name);
    labelled.or_else(|| tables.iter().find(|table| name == "events" && table.is_default))
}

fn version() -> Page {
    Page::json(
        Status::Ok,
        format!(
            "{{\"name\":\"sluicegate\",\"version\":\"{}\",\"arch\":\"{}\",\"os\":\"{}\"}}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        ),
    )
}

/// A page as it goes over the wire.
fn response(page: &Page, head_only: bool) -> Vec<u8> {
    let mut date = DateCache::default();
    date.update(unix_ms() / 1000);
    let mut extra = vec![
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", page::POLICY),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
    ];
    extra.extend(match (page.allow, page.status) {
        (Some(methods), _) => Some(("Allow", methods)),
        (None, Status::ServiceUnavailable) => Some(("Retry-After", "1")),
        (None, Status::Unauthorized) => Some(("WWW-Authenticate", password::CHALLENGE)),
        (None, _) => None,
    });
    let response = http::Response {
        content_type: page.content_type,
        close: true,
        head_only,
        extra: &extra,
        ..http::Response::new(page.status, page.body.as_bytes())
    };
    let mut out = Vec::with_capacity(page.body.len() + 256);
    response.append_to(&mut out, &date);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_is_found_by_its_label_and_the_default_one_as_events() {
        let table = |database: &str, name: &str, label: &str, is_default| AdminTable {
            name: TableName::new(database, name),
            label: label.to_owned(),
            is_default,
            path: format!("/api/{label}"),
            spool_bytes_max: 1,
        };
        let tables = [table("a", "hits", "a.hits", false), table("b", "hits", "b.hits", true)];
        let found = |tables: &[AdminTable], name: &str| named(tables, name).map(|table| table.label.clone());
        assert_eq!(found(&tables, "a.hits").as_deref(), Some("a.hits"));
        assert_eq!(found(&tables, "events").as_deref(), Some("b.hits"));
        assert_eq!((found(&tables, "hits"), found(&tables, "")), (None, None));
        let tables = [table("a", "events", "events", false), table("a", "hits", "hits", true)];
        assert_eq!(found(&tables, "events").as_deref(), Some("events"), "its label is nobody else's");
    }
}
