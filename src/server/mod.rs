//! The start of the server in order, and the stop in the opposite order.
//!
//! Start: lock and recover the spool → the tables' columns → inserters → committer → workers →
//! watcher. Every thread runs before the threads that send to it.
//!
//! Stop: the workers stop accepting and answer the requests in progress → the committer stores the
//! submitted batches and seals → the inserters insert the spooled blocks. One deadline holds for
//! the whole stop.
//!
//! | file | contents |
//! |---|---|
//! | `signals` | SIGTERM, SIGINT and SIGHUP |
//! | `reload` | what SIGHUP reads again |
//! | `discover` | the tables' columns, from ClickHouse or from the last run |
//! | `targets` | the tables as the start deals with them |
//! | `engine` | the HTTP loop of `--engine` |
//! | `pipeline` | the committer, the keeper and the inserters |
//! | `threads` | starting threads, and the error of a start |
//! | `cpu` | checks that the processor has the instructions that the build uses |
//! | `systemd` | what systemd is told |
//! | `embedded` | the embedded ClickHouse: kept running, and ended with the server |
//! | `drain` | `sluicegate drain`: the inserters alone |

pub mod allocator;
pub mod cpu;
mod discover;
pub mod drain;
mod embedded;
mod engine;
mod files;
pub mod log;
mod pinning;
mod pipeline;
mod reload;
mod signals;
mod systemd;
mod targets;
mod threads;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::admin::{Access, Admin, ReplayLimits, Series, SpoolLimits};
use crate::api::Api;
use crate::api::keys::Keys;
use crate::clickhouse::delivery;
use crate::clickhouse::metrics::InsertMetrics;
use crate::clickhouse::survey::Survey;
use crate::clickhouse::watcher::Watcher;
use crate::clock::unix_ms;
use crate::config::Settings;
use crate::handoff::{Handoff, Lifecycle, Published};
use crate::intake::Shared;
use crate::intake::addresses::ConnectionsPerAddress;
use crate::intake::budget::ByteBudget;
use crate::intake::health::Health;
use crate::intake::live::Live;
use crate::intake::metrics::WorkerMetrics;
use crate::intake::quotas::Quotas;
use crate::intake::replay::Replayer;
use crate::net::tls::TlsConfig;
use crate::net::{self, ListenAddress, PassedSockets};
use crate::spool::{self, Recovered, Spool};
use embedded::KeptRunning;
use engine::Serving;
use pipeline::Pipeline;
use reload::Reload;
use targets::{StoredAddresses, Target, Targets};
use threads::{os, spawn};

pub use threads::ServerError;

/// Pause between two checks of a condition that the main thread waits for.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// Runs the server until a signal stops it.
///
/// # Errors
///
/// If the server can't start.
pub fn run(settings: &Settings) -> Result<ExitCode, ServerError> {
    let passed = PassedSockets::take().map_err(os("the sockets that systemd passes can't be used"))?;
    let lifecycle = Arc::new(Lifecycle::default());
    let tls = settings.tls(None)?.map(|config| Arc::new(Published::new(config)));
    let keys = Arc::new(Published::new(reload::warned_of(settings.write_keys(None)?)));
    let reload = Reload { settings: settings.clone(), keys: keys.clone(), tls: tls.clone() };
    signals::install(&lifecycle, *settings.shutdown_delay, settings.stop_within(), reload)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = settings.on_one_line(), "starting");
    spool::require_file_bytes(settings.segment_bytes_max())?;
    let tables = settings.tables();
    let (spool, recovered) = Spool::open(settings.spool(&tables))?;
    let new_metrics = || Arc::new(WorkerMetrics::of_tables(tables.len()));
    let metrics: Vec<Arc<WorkerMetrics>> = (0..settings.worker_count()).map(|_| new_metrics()).collect();
    if passed.is_empty() {
        probe_addresses(&settings.listen)?;
    }
    let connections_max = files::connections_max(settings)?;
    let settings = &Settings { connections_max, ..settings.clone() };
    let budget = ByteBudget::new(settings.budget());
    let admin = start_admin(settings, &lifecycle, &spool, &metrics, &budget, &keys)?;
    systemd::report(admin.clone(), lifecycle.clone())?;
    // Before any thread is pinned: the child inherits the CPU affinity of the thread that starts it.
    let embedded = KeptRunning::start(settings)?;
    let targets = Target::all(settings, &spool);
    let Some(known) = discover::known_tables(&admin.clickhouse, &targets, &lifecycle)? else {
        tracing::info!("stopped while waiting for ClickHouse");
        return Ok(ExitCode::SUCCESS);
    };
    let targets = Targets::new(targets, known, &admin.inserts)?;
    let listen = if passed.is_empty() {
        settings.listen.iter().map(ListenAddress::to_string).collect()
    } else {
        passed.addresses()
    };
    let server =
        Server::start(settings, lifecycle, Sockets { passed, tls }, (spool, recovered), admin, &metrics, targets)?;
    systemd::ready();
    tracing::info!(?listen, admin = %settings.admin_listen, workers = metrics.len(), "serving");
    server.wait_for_stop(*settings.shutdown_delay, settings.stop_within());
    systemd::stopping();
    server.stop();
    if let (Some(embedded), Some(deadline)) = (embedded, server.lifecycle.deadline()) {
        embedded.stop(deadline);
    }
    Ok(ExitCode::SUCCESS)
}

/// What clients connect to.
struct Sockets {
    /// Those that were there before.
    passed: PassedSockets,
    /// The certificates, if clients speak TLS.
    tls: Option<Arc<Published<TlsConfig>>>,
}

/// The running threads of the server.
struct Server {
    lifecycle: Arc<Lifecycle>,
    handoff: Arc<Handoff>,
    engine: Serving,
    pipeline: Pipeline,
    /// Another process gets its sockets next: its stop waits for no INSERT.
    is_replaced: bool,
}

impl Server {
    fn start(
        settings: &Settings,
        lifecycle: Arc<Lifecycle>,
        Sockets { passed, tls }: Sockets,
        (spool, recovered): (Spool, Recovered),
        admin: Arc<Admin>,
        metrics: &[Arc<WorkerMetrics>],
        targets: Targets,
    ) -> Result<Self, ServerError> {
        let configs = targets.configs();
        let (engine, mailboxes) = engine::prepare(settings, &passed, metrics.len(), configs.len())?;
        let handoff = Arc::new(Handoff::new(mailboxes, lifecycle.clone()));
        let (node, bodies) = (spool.node_id().to_owned(), spool.bodies());
        let pipeline = Pipeline::start(settings, &configs, spool, recovered, &handoff, &admin)?;
        delivery::log_at_start(admin.clickhouse.clone(), configs).map_err(os("a thread can't be started"))?;
        admin.health.look_at(targets.schemas.clone());
        let rates = targets.all.iter().map(|target| target.settings.rate_limit);
        let quotas = Quotas::new(admin.keys.newest().owners().clone(), settings.rate_limit_per_address);
        let shared = Arc::new(Shared {
            handoff: handoff.clone(),
            health: admin.health.clone(),
            schemas: targets.schemas.clone(),
            quotas: quotas.with_tables(rates),
            keys: admin.keys.clone(),
            cors: settings.cors(),
            connections_per_address: settings
                .connections_per_address_max
                .map(|max| ConnectionsPerAddress::new(max.get())),
            live: admin.live.clone(),
            budget: admin.budget.clone(),
            connections_max: settings.connections_max,
            request_limits: settings.request_limits(),
            timeouts: settings.timeouts(),
            trusted: settings.trusted_proxies(),
            proxy_protocol: settings.proxy_protocol,
            tls,
        });
        let addresses = StoredAddresses { form: settings.address_form()?, key: settings.address_key()? };
        let api = |metrics: &WorkerMetrics| {
            Api::new(targets.for_api(settings, &addresses, metrics)).hashing_bodies(bodies.clone())
        };
        let engine = engine.start(api, &shared, metrics, settings.pin)?;
        // Its only other writer would be a second start.
        let replayed = targets.for_replay(settings, &addresses);
        let _ = admin.replayer.set(Replayer::new(shared, node, bodies, replayed));
        let watcher = Watcher::new(
            pipeline.inserts.servers(),
            pipeline.inserts.refresh.clone(),
            &admin.inserts,
            settings.clickhouse_setting.clone(),
            targets.watched(),
        );
        spawn("watcher".into(), move || watcher.run())?;
        lifecycle.serve();
        Ok(Self { lifecycle, handoff, engine, pipeline, is_replaced: !passed.is_empty() })
    }

    /// Waits for the signal, and then for `delay`, in which events are still taken and `/readyz` is 503 already.
    fn wait_for_stop(&self, delay: Duration, within: Duration) {
        let leaving = loop {
            match self.lifecycle.leaving_since() {
                Some(since) => break since,
                None => thread::park(),
            }
        };
        if !self.lifecycle.is_stopping() {
            tracing::info!(?delay, "leaving: /readyz is 503, and events are still taken");
            thread::sleep(delay.saturating_sub(leaving.elapsed()));
            self.lifecycle.stop(within);
        }
    }

    fn stop(&self) {
        let (Some(since), Some(deadline)) = (self.lifecycle.stopping_since(), self.lifecycle.deadline()) else {
            return;
        };
        let within = deadline.duration_since(since);
        tracing::info!(within = ?within, "stopping");
        self.handoff.wake_workers();
        // The last third of the time is reserved for INSERTs, so slow clients can't use it up.
        if !wait_until(since + within * 2 / 3, || self.engine.has_ended()) {
            tracing::warn!(
                "some requests are still in progress after two thirds of --shutdown-timeout; they get no reply"
            );
        }
        self.handoff.finish();
        // A hanging INSERT may be abandoned: the next start repeats it under the same token.
        wait_until(deadline, || match self.is_replaced {
            true => self.pipeline.has_committed(),
            false => self.pipeline.has_ended() || self.pipeline.is_silent(),
        });
        self.pipeline.log_what_is_left();
    }
}

/// Checks that the addresses can be bound, and closes the sockets again. An address in use is thereby
/// reported before the wait for ClickHouse, while no socket listens that nothing would answer.
fn probe_addresses(addresses: &[ListenAddress]) -> Result<(), ServerError> {
    for address in addresses {
        net::probe(address)?;
    }
    Ok(())
}

fn start_admin(
    settings: &Settings,
    lifecycle: &Arc<Lifecycle>,
    spool: &Spool,
    metrics: &[Arc<WorkerMetrics>],
    budget: &Arc<ByteBudget>,
    keys: &Arc<Published<Keys>>,
) -> Result<Arc<Admin>, ServerError> {
    let address = settings.admin_listen;
    let listener = TcpListener::bind(address)
        .map_err(|error| ServerError(format!("--admin-listen {address} can't be listened on: {error}")))?;
    let (clickhouse, tables) = (settings.clickhouse()?, settings.tables());
    let survey = Survey::new(&clickhouse, tables.iter().map(|table| table.name.clone()).collect());
    survey.start().map_err(os("a thread can't be started"))?;
    let live = Live::new(tables.len());
    let names = tables.iter().map(|table| (table.name.clone(), table.label.clone()));
    let admin = Arc::new(Admin {
        access: Access::new(address, settings.admin_password()?.as_deref()),
        health: Arc::new(Health::new(lifecycle.clone(), spool.metrics(), *settings.commit_timeout)),
        workers: metrics.to_vec(),
        budget: budget.clone(),
        keys: keys.clone(),
        spool: spool.metrics(),
        spool_limits: SpoolLimits {
            dir: settings.spool_dir.clone(),
            bytes_max: settings.spool_bytes_max.0,
            disk_free_min: settings.disk_free_min.0,
        },
        inserts: Arc::new(InsertMetrics::new(names)),
        inserters: settings.inserters.get() as u64,
        clickhouse,
        survey,
        node: spool.node_id().to_owned(),
        started_unix_ms: unix_ms(),
        tables: tables.into_iter().map(Target::admin_table).collect(),
        requeue: OnceLock::new(),
        replayer: OnceLock::new(),
        replay_limits: ReplayLimits {
            events_max: settings.events_max as usize,
            body_bytes_max: usize::try_from(settings.body_bytes_max.0).unwrap_or(usize::MAX),
            ..ReplayLimits::default()
        },
        series: Series::default(),
        config: settings.to_toml(),
        live,
    });
    let running = admin.clone();
    spawn("admin".into(), move || {
        if let Err(error) = running.run(listener) {
            tracing::error!(%error, "the admin address can't be served any more");
            log::flush();
            std::process::abort();
        }
    })?;
    Ok(admin)
}

/// Waits until `done` is true, at most until the deadline. False if the deadline has passed.
fn wait_until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL_PAUSE);
    }
    true
}
