//! The start in its order, and the stop in the opposite one.
//!
//! Start: lock and recover the spool → the table's columns → inserters → committer → workers →
//! watcher. Whatever is downstream runs before the first event can come.
//!
//! Stop: workers stop accepting and answer what was begun → the committer stores what they handed
//! over and seals → the inserters insert what is spooled; all within one deadline.
//!
//! | file | |
//! |---|---|
//! | `signals` | SIGTERM and SIGINT |
//! | `discover` | the table's columns, from ClickHouse or as they were last |
//! | `engine` | which HTTP loop serves |
//! | `pipeline` | inserters and committer |
//! | `threads` | threads, and what a start fails with |
//! | `cpu` | does the processor fit the build |
//! | `drain` | the inserters alone: `sluicegate drain` |

pub mod cpu;
mod discover;
pub mod drain;
mod engine;
mod pipeline;
mod signals;
mod threads;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::admin::{Admin, Series};
use crate::api::Api;
use crate::clickhouse::delivery;
use crate::clickhouse::description::TableDescription;
use crate::clickhouse::embedded::{Embedded, EmbeddedOptions};
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::settings::InsertFormat;
use crate::clickhouse::watcher::Watcher;
use crate::config::Settings;
use crate::handoff::{Handoff, Lifecycle, Published};
use crate::intake::Shared;
use crate::intake::budget::ByteBudget;
use crate::intake::health::Health;
use crate::intake::metrics::WorkerMetrics;
use crate::ndjson::RowEncoder;
use crate::net;
use crate::schema::SchemaVersion;
use crate::spool::{Recovered, Spool};
use engine::Serving;
use pipeline::Pipeline;
use threads::{os, spawn};

pub use threads::ServerError;

/// How often the main thread looks whether something that it waits for has happened.
const WAIT_STEP: Duration = Duration::from_millis(20);

/// Runs the server until a signal stops it.
///
/// # Errors
///
/// A sentence that says why it could not start.
pub fn run(settings: &Settings) -> Result<ExitCode, ServerError> {
    let lifecycle = Arc::new(Lifecycle::default());
    signals::install(&lifecycle, settings.stop_within())?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = settings.effective.join(" "), "starting");
    let (spool, recovered) = Spool::open(settings.spool())?;
    let metrics: Vec<Arc<WorkerMetrics>> = (0..worker_count(settings)).map(|_| Arc::default()).collect();
    probe_addresses(&settings.listen)?;
    let admin = start_admin(settings, &lifecycle, &spool, &metrics)?;
    // Before any thread is pinned: the child inherits the processors of the thread that starts it.
    let embedded = settings.embedded.as_deref().map(|path| start_embedded(path, settings)).transpose()?;
    let Some(table) = discover::known_table(&admin.clickhouse, &settings.table(), &spool, &lifecycle)? else {
        tracing::info!("stopped before ClickHouse was there");
        return Ok(ExitCode::SUCCESS);
    };
    let server = Server::start(settings, lifecycle, spool, recovered, admin, &metrics, table)?;
    tracing::info!(listen = ?settings.listen, admin = %settings.admin_listen, workers = metrics.len(), "serving");
    server.wait_for_stop();
    server.stop();
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that serves.
struct Server {
    lifecycle: Arc<Lifecycle>,
    handoff: Arc<Handoff>,
    engine: Serving,
    pipeline: Pipeline,
}

impl Server {
    fn start(
        settings: &Settings,
        lifecycle: Arc<Lifecycle>,
        spool: Spool,
        recovered: Recovered,
        admin: Arc<Admin>,
        metrics: &[Arc<WorkerMetrics>],
        table: TableDescription,
    ) -> Result<Self, ServerError> {
        let schema = Arc::new(Published::new(first_version(settings, &table)?));
        let (engine, mailboxes) = engine::prepare(settings, metrics.len())?;
        delivery::log_at_start(admin.clickhouse.clone(), settings.table()).map_err(os("a thread can't be started"))?;
        let handoff = Arc::new(Handoff::new(mailboxes, lifecycle.clone()));
        let path = spool.schema_path();
        let frozen = schema.newest().frozen.clone();
        let pipeline = Pipeline::start(settings, spool, recovered, frozen, &handoff, &admin)?;
        let shared = Arc::new(Shared {
            handoff: handoff.clone(),
            health: admin.health.clone(),
            schema: schema.clone(),
            budget: ByteBudget::new(settings.in_flight_bytes_max.0),
            connections_max: settings.connections_max,
            request_limits: settings.request_limits(),
            timeouts: settings.timeouts(),
        });
        let plan = schema.newest().plan.clone();
        let api = || {
            let encoder = RowEncoder::new(plan.clone(), settings.encode_limits());
            Api::new(encoder.identifying(settings.dedup_field.as_deref()), &settings.table)
        };
        let engine = engine.start(api, &shared, metrics)?;
        let watcher = Watcher {
            config: settings.table(),
            servers: pipeline.inserts.servers(),
            refresh: pipeline.inserts.refresh.clone(),
            schema,
            path,
            metrics: admin.inserts.clone(),
            known: table,
        };
        spawn("watcher".into(), move || watcher.run())?;
        lifecycle.serve();
        Ok(Self { lifecycle, handoff, engine, pipeline })
    }

    fn wait_for_stop(&self) {
        while !self.lifecycle.is_stopping() {
            thread::park();
        }
    }

    fn stop(&self) {
        let (Some(since), Some(deadline)) = (self.lifecycle.stopping_since(), self.lifecycle.deadline()) else {
            return;
        };
        let within = deadline.duration_since(since);
        tracing::info!(within = ?within, "stopping");
        self.handoff.wake_workers();
        // Slow clients don't get the time that the inserts need.
        if !wait_until(since + within * 2 / 3, || self.engine.has_ended()) {
            tracing::warn!(
                "requests were still under way at two thirds of --shutdown-timeout; they are cut off unanswered"
            );
        }
        self.handoff.finish();
        // An insert that hangs holds up nothing: its segment is sent again, under the same token.
        wait_until(deadline, || self.pipeline.has_ended());
        match self.pipeline.spooled_rows() {
            0 => tracing::info!("stopped; every event is in ClickHouse"),
            events => tracing::warn!(events, "stopped; what is spooled goes out at the next start"),
        }
    }
}

/// An address in use is said at once, not after a wait for ClickHouse; meanwhile nobody listens there
/// who would not answer.
fn probe_addresses(addresses: &[SocketAddr]) -> Result<(), ServerError> {
    for address in addresses {
        net::probe(*address)?;
    }
    Ok(())
}

fn start_admin(
    settings: &Settings,
    lifecycle: &Arc<Lifecycle>,
    spool: &Spool,
    metrics: &[Arc<WorkerMetrics>],
) -> Result<Arc<Admin>, ServerError> {
    let address = settings.admin_listen;
    let listener = TcpListener::bind(address)
        .map_err(|error| ServerError(format!("--admin-listen {address} can't be listened on: {error}")))?;
    let admin = Arc::new(Admin {
        health: Arc::new(Health::new(lifecycle.clone(), spool.metrics())),
        workers: metrics.to_vec(),
        spool: spool.metrics(),
        inserts: Arc::default(),
        clickhouse: settings.clickhouse()?,
        table: settings.table().name,
        requeue: OnceLock::new(),
        series: Series::default(),
    });
    let running = admin.clone();
    spawn("admin".into(), move || running.run(listener))?;
    Ok(admin)
}

/// What events are encoded for at first.
fn first_version(settings: &Settings, table: &TableDescription) -> Result<SchemaVersion, ServerError> {
    let plan = table.plan()?;
    if let Some(field) = &settings.dedup_field {
        plan.require_field(field)?;
    }
    let frozen = table.freeze(&plan, &settings.table());
    warn_of_format(&frozen, settings.insert_format);
    Ok(SchemaVersion::new(plan, frozen.to_bytes()))
}

fn warn_of_format(frozen: &Frozen, format: InsertFormat) {
    if format == InsertFormat::Native && !frozen.is_safe_as_native() {
        tracing::warn!(
            "--insert-format native is not used for this table: it has an Enum, whose values ClickHouse does not check \
             in that format, or ClickHouse is too old to check types; rows go as RowBinary"
        );
    }
}

fn worker_count(settings: &Settings) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    settings.workers.map_or_else(cores, usize::from)
}

fn start_embedded(path: &Path, settings: &Settings) -> Result<Embedded, ServerError> {
    let url = settings.clickhouse_url.first().and_then(|url| reqwest::Url::parse(url).ok());
    let (host, http_port) = url
        .as_ref()
        .and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)))
        .ok_or_else(|| ServerError("--embedded needs a --clickhouse-url with a host and a port".to_owned()))?;
    tracing::info!(path = %path.display(), host, http_port, "starting the embedded ClickHouse");
    Ok(Embedded::start(&EmbeddedOptions { path: path.to_owned(), host, http_port })?)
}

/// Waits until `done`, and not beyond the deadline; false when that was reached.
fn wait_until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(WAIT_STEP);
    }
    true
}
