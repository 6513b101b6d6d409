//! The start in its order, and the stop in the opposite one.
//!
//! Start: lock and recover the spool → the table's columns → inserters → committer → workers →
//! watcher.
//! Whatever is downstream runs before the first event can come.
//! Stop: workers stop accepting and answer what was begun → the committer stores what they handed
//! over and seals → the inserters insert what is spooled; all within one deadline.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel;

use crate::admin::{Admin, Series};
use crate::api::Api;
use crate::config::{InsertFormat, Settings};
use crate::connection::RequestLimits;
use crate::embedded::{Embedded, EmbeddedOptions};
use crate::engine;
use crate::figures::WorkerFigures;
use crate::handoff::Handoff;
use crate::health::Health;
use crate::http::HeadLimits;
use crate::in_flight::InFlight;
use crate::insert::client::ClickHouse;
use crate::insert::delivery;
use crate::insert::figures::InsertFigures;
use crate::insert::inserter::Inserts;
use crate::insert::stream::InsertClient;
use crate::insert::target::Target;
use crate::insert::watch::Watcher;
use crate::listener;
use crate::ndjson::{EncodeLimits, RowEncoder};
use crate::schema::CurrentSchema;
use crate::spool::{Committer, Spool};
use crate::startup::{ServerError, all_ended, os, spawn};
use crate::worker::{Shared, Timeouts};

/// Set by the first signal; the second ends the process.
static STOP: AtomicBool = AtomicBool::new(false);

/// How often the main thread looks whether something that it waits for has happened.
const LOOK: Duration = Duration::from_millis(20);

/// Between two tries to reach ClickHouse for the first time.
const DISCOVER_AGAIN: Duration = Duration::from_secs(1);

/// Runs the server until a signal stops it.
///
/// # Errors
///
/// A sentence that says why it could not start.
pub fn run(settings: &Settings) -> Result<ExitCode, ServerError> {
    install_signals()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = settings.effective.join(" "), "starting");
    let (spool, recovered) = Spool::open(settings.spool())?;
    let spool_figures = spool.figures();
    let health = Arc::new(Health::new(spool_figures.clone()));
    let servers = ClickHouse::of(settings)?;
    let inserts = Arc::new(InsertFigures::default());
    let workers: Vec<Arc<WorkerFigures>> = (0..worker_count(settings)).map(|_| Arc::default()).collect();
    // An address in use is said at once, not after a wait for ClickHouse; meanwhile nobody listens
    // there who would not answer.
    for address in &settings.listen {
        listener::probe(*address)?;
    }
    let admin = Arc::new(Admin {
        health: health.clone(),
        workers: workers.clone(),
        spool: spool_figures.clone(),
        inserts: inserts.clone(),
        clickhouse: servers.clone(),
        database: settings.database.clone(),
        table: settings.table.clone(),
        inserting: OnceLock::new(),
        series: Series::default(),
    });
    start_admin(admin.clone(), settings.admin_listen)?;
    // Before any thread is pinned: the child inherits the processors of the thread that starts it.
    let embedded = settings.embedded.as_deref().map(|path| start_embedded(path, settings)).transpose()?;

    let Some(target) = known_target(&servers, settings, &spool)? else {
        tracing::info!("stopped before ClickHouse was there");
        return Ok(ExitCode::SUCCESS);
    };
    let plan = target.plan()?;
    if let Some(field) = &settings.dedup_field {
        plan.require_field(field)?;
    }
    let (engine, mailboxes) = engine::prepare(settings, workers.len())?;
    delivery::say_at_start(servers.clone(), settings).map_err(os("a thread can't be started"))?;
    let frozen = target.freeze(&plan);
    if settings.insert_format == InsertFormat::Native && !frozen.is_safe_as_native() {
        tracing::warn!(
            "--insert-format native is not used for this table: it has an Enum, whose values ClickHouse does not check \
             in that format, or ClickHouse is too old to check types; rows go as RowBinary"
        );
    }
    let schema = Arc::new(CurrentSchema::new(plan, frozen.to_bytes()));
    let version = schema.newest();
    let schema_path = spool.schema_path();
    let (sealed_sender, sealed) = channel::unbounded();
    for segment in recovered.segments {
        // The receiver is in our hands.
        let _ = sealed_sender.send(segment);
    }
    let handoff = Arc::new(Handoff::new(mailboxes));
    let inserting = Arc::new(Inserts::new(
        settings,
        servers,
        sealed,
        spool.pool(),
        spool_figures.clone(),
        inserts.clone(),
        handoff.clone(),
    ));
    let _ = admin.inserting.set(inserting.clone());
    let frozen = version.frozen.clone();
    let committer = Committer::new(spool, handoff.clone(), frozen, sealed_sender, settings.inserters.get());
    let inserter_threads = (0..settings.inserters.get())
        .map(|index| {
            let inserting = inserting.clone();
            let client = InsertClient::new(settings.insert_compression).map_err(os("an inserter can't be set up"))?;
            spawn(format!("inserter-{index}"), move || inserting.run(&client))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let committer_thread = spawn("committer".into(), move || committer.run())?;
    let shared = Arc::new(Shared {
        handoff: handoff.clone(),
        health: health.clone(),
        schema: schema.clone(),
        stopping: AtomicBool::new(false),
        in_flight: InFlight::new(settings.in_flight_bytes_max.0),
        connections_max: settings.connections_max,
        request_limits: RequestLimits {
            head: HeadLimits { head_bytes_max: bounded(settings.head_bytes_max.0), headers_max: settings.headers_max },
            body_bytes_max: settings.body_bytes_max.0,
        },
        timeouts: Timeouts {
            head: *settings.head_timeout,
            body: *settings.body_timeout,
            idle: *settings.idle_timeout,
            commit: *settings.commit_timeout,
            inserted: *settings.inserted_timeout,
        },
    });
    let api = || {
        let encoder = RowEncoder::new(version.plan.clone(), encode_limits(settings));
        Api::new(encoder.identifying(settings.dedup_field.as_deref()), &settings.table)
    };
    let engine = engine.start(api, &shared, &workers)?;
    let watcher = Watcher::new(inserting.clone(), inserts, schema, settings.clone(), schema_path, target);
    spawn("watcher".into(), move || watcher.run())?;
    health.serving();
    tracing::info!(listen = ?settings.listen, admin = %settings.admin_listen, workers = workers.len(), "serving");

    while !STOP.load(Ordering::Relaxed) {
        thread::park();
    }
    tracing::info!(within = %settings.shutdown_timeout, "stopping");
    let (begun, within) = (Instant::now(), *settings.shutdown_timeout);
    health.stopping();
    shared.stopping.store(true, Ordering::Relaxed);
    handoff.wake_workers();
    // Slow clients don't get the time that the inserts need.
    if !wait_until(begun + within * 2 / 3, || engine.has_ended()) {
        tracing::warn!(
            "requests were still under way at two thirds of --shutdown-timeout; they are cut off unanswered"
        );
    }
    inserting.due.end_at(begun + within);
    handoff.finish();
    // An insert that hangs holds up nothing: its segment is sent again, under the same token.
    wait_until(begun + within, || committer_thread.is_finished() && all_ended(&inserter_threads));
    match spool_figures.spooled_rows() {
        0 => tracing::info!("stopped; every event is in ClickHouse"),
        events => tracing::warn!(events, "stopped; what is spooled goes out at the next start"),
    }
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    Ok(ExitCode::SUCCESS)
}

fn encode_limits(settings: &Settings) -> EncodeLimits {
    EncodeLimits {
        line_bytes_max: bounded(settings.line_bytes_max.0),
        events_max: settings.events_max,
        encoded_bytes_max: bounded(settings.encoded_bytes_max.0),
    }
}

fn bounded(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn worker_count(settings: &Settings) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    settings.workers.map_or_else(cores, usize::from)
}

/// Asks ClickHouse, or takes the last known columns while it is away. `None` when a signal came
/// while it was waited for.
fn known_target(servers: &[ClickHouse], settings: &Settings, spool: &Spool) -> Result<Option<Target>, ServerError> {
    let path = spool.schema_path();
    let mut said = false;
    while !STOP.load(Ordering::Relaxed) {
        let known = Target::load(&path);
        let mut reasons = Vec::new();
        for server in servers {
            match Target::discover(server, settings) {
                Ok(target) => {
                    if let Err(error) = target.save(&path) {
                        tracing::warn!(%error, path = %path.display(), "the columns can't be kept for a start without ClickHouse");
                    }
                    tracing::info!(
                        url = server.url(),
                        version = target.version,
                        columns = target.columns.len(),
                        "ClickHouse is there"
                    );
                    return Ok(Some(target));
                }
                // A password that was changed under a server is no reason to lose events meanwhile; at
                // a first start it is a mistake.
                Err(error) if error.may_pass() || error.is_login_refused() && matches!(known, Ok(Some(_))) => {
                    reasons.push(format!("{}: {error}", server.url()));
                }
                Err(error) => return Err(ServerError(format!("{}: {error}", server.url()))),
            }
        }
        let reason = reasons.join("; ");
        match known {
            Ok(Some(target)) => {
                tracing::warn!(
                    reason,
                    "ClickHouse can't be asked; events are taken for the columns that the table had last"
                );
                return Ok(Some(target));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, path = %path.display(), "the last known columns can't be read"),
        }
        if !said {
            tracing::warn!(reason, "waiting for ClickHouse: the columns of the table are not known yet");
            said = true;
        }
        wait_until(Instant::now() + DISCOVER_AGAIN, || STOP.load(Ordering::Relaxed));
    }
    Ok(None)
}

fn start_embedded(path: &std::path::Path, settings: &Settings) -> Result<Embedded, ServerError> {
    let url = settings.clickhouse_url.first().and_then(|url| reqwest::Url::parse(url).ok());
    let (host, http_port) = url
        .as_ref()
        .and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)))
        .ok_or_else(|| ServerError("--embedded needs a --clickhouse-url with a host and a port".to_owned()))?;
    tracing::info!(path = %path.display(), host, http_port, "starting the embedded ClickHouse");
    Ok(Embedded::start(&EmbeddedOptions { path: path.to_owned(), host, http_port })?)
}

fn start_admin(admin: Arc<Admin>, address: SocketAddr) -> Result<(), ServerError> {
    let listener = TcpListener::bind(address)
        .map_err(|error| ServerError(format!("--admin-listen {address} can't be listened on: {error}")))?;
    spawn("admin".into(), move || admin.run(listener))?;
    Ok(())
}

fn wait_until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// The first SIGTERM or SIGINT stops in order, the second ends at once; what was acknowledged is
/// on the disk in either case.
fn install_signals() -> Result<(), ServerError> {
    let main = thread::current();
    ctrlc::set_handler(move || {
        if STOP.swap(true, Ordering::Relaxed) {
            tracing::warn!("second signal: ending at once");
            std::process::exit(130);
        }
        main.unpark();
    })
    .map_err(|error| ServerError(format!("signals can't be handled: {error}")))
}
