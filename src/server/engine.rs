//! The HTTP loop of `--engine`. Both engines serve the same [`Api`] and submit batches to the same
//! committer.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::Poll;

use super::threads::{ServerError, all_ended, os, spawn};
use super::{log, pinning};
use crate::api::Api;
use crate::config::{Engine, Pin, Settings};
#[cfg(feature = "engine-may")]
use crate::engine_may::{self, MayWorkers, Settlers};
use crate::handoff::Mailbox;
use crate::intake::Shared;
use crate::intake::metrics::WorkerMetrics;
use crate::limits;
use crate::net::{self, Listener, PassedSockets};
use crate::worker::{WAKE, Worker};

/// An engine that is ready to start.
pub enum Prepared {
    /// The server's own loop: an event queue and the listening sockets of each worker.
    Epoll(Vec<(Poll, Vec<Listener>)>),
    /// `may_minihttp`, which binds its addresses when it starts.
    #[cfg(feature = "engine-may")]
    May(Settlers),
}

/// An engine that serves.
pub enum Serving {
    /// The threads of the server's own loop.
    Epoll(Vec<JoinHandle<()>>),
    /// The stations of `may_minihttp`.
    #[cfg(feature = "engine-may")]
    May(MayWorkers),
}

/// Prepares the engine that the settings name for so many tables, and a mailbox for each of its workers. It listens
/// at the sockets that were passed, and only without any at the addresses of the settings.
///
/// # Errors
///
/// If an address can't be bound, or an event queue can't be created.
pub fn prepare(
    settings: &Settings,
    passed: &PassedSockets,
    workers: usize,
    tables: usize,
) -> Result<(Prepared, Vec<Mailbox>), ServerError> {
    let batches = limits::batches_per_worker(tables);
    match settings.engine {
        Engine::Epoll => prepare_epoll(settings, passed, workers, batches),
        #[cfg(feature = "engine-may")]
        Engine::May if !passed.is_empty() => {
            Err(ServerError("--engine may can't listen at sockets that systemd passes: use --engine epoll".to_owned()))
        }
        #[cfg(feature = "engine-may")]
        Engine::May => {
            let (settlers, mailboxes) = engine_may::prepare(&settings.tcp_addresses(), workers, batches);
            Ok((Prepared::May(settlers), mailboxes))
        }
        // `Settings::validate` refuses this case.
        #[cfg(not(feature = "engine-may"))]
        Engine::May => prepare_epoll(settings, passed, workers, batches),
    }
}

fn prepare_epoll(
    settings: &Settings,
    passed: &PassedSockets,
    workers: usize,
    batches: usize,
) -> Result<(Prepared, Vec<Mailbox>), ServerError> {
    let mut sockets = passed.listeners(workers).map_err(os("the sockets that systemd passes can't be used"))?;
    if passed.is_empty() {
        for address in &settings.listen {
            sockets.push(net::bind(address, workers)?);
        }
    }
    let (mut seats, mut mailboxes) = (Vec::new(), Vec::new());
    for _ in 0..workers {
        let poll = Poll::new().map_err(os("an event queue can't be created"))?;
        let mailbox = Mailbox::new(poll.registry(), WAKE).map_err(os("a waker can't be created"))?;
        mailboxes.push(mailbox.with_batches(batches));
        seats.push((poll, sockets.iter_mut().filter_map(Vec::pop).collect()));
    }
    Ok((Prepared::Epoll(seats), mailboxes))
}

impl Prepared {
    /// Starts to serve. Each worker has its own `api`.
    ///
    /// # Errors
    ///
    /// If a thread can't be started, or an address can't be bound.
    pub fn start(
        self,
        api: impl Fn(&WorkerMetrics) -> Api,
        shared: &Arc<Shared>,
        metrics: &[Arc<WorkerMetrics>],
        pin: Pin,
    ) -> Result<Serving, ServerError> {
        let cores = pinning::cores(pin, metrics.len());
        match self {
            Self::Epoll(seats) => {
                let mut cores = cores.into_iter().flatten();
                let workers = (0..).zip(seats).zip(metrics).map(|((index, (poll, listeners)), metrics)| {
                    let worker = Worker::new(index, poll, listeners, api(metrics), shared.clone(), metrics.clone())
                        .map_err(os("a listening socket can't be watched"))?;
                    let core = cores.next();
                    spawn(format!("worker-{index}"), move || {
                        if let Some(core) = core {
                            pinning::pin(index, core);
                        }
                        run(worker);
                    })
                });
                Ok(Serving::Epoll(workers.collect::<Result<_, _>>()?))
            }
            #[cfg(feature = "engine-may")]
            Self::May(settlers) => {
                let serving = settlers.start(api, shared, metrics, cores.is_some());
                Ok(Serving::May(serving.map_err(os("an address can't be listened on"))?))
            }
        }
    }
}

impl Serving {
    /// True once the engine has stopped and no request waits for the committer.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Epoll(workers) => all_ended(workers),
            #[cfg(feature = "engine-may")]
            Self::May(stations) => stations.have_ended(),
        }
    }
}

fn run(worker: Worker) {
    let ended: io::Result<()> = worker.run();
    if let Err(error) = ended {
        tracing::error!(%error, "a worker can't wait for events any more");
        log::flush();
        std::process::abort();
    }
}
