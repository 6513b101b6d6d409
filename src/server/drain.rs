//! `sluicegate drain`: inserts all events of a spool, without opening a port.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel;

use super::embedded::KeptRunning;
use super::threads::{ServerError, spawn};
use crate::clickhouse::servers::Servers;
use crate::config::{ConfigError, Settings, TableSettings};
use crate::handoff::Handoff;
use crate::insert::inserter::{Ends, Inserts};
use crate::insert::stream::InsertClient;
use crate::spool::{self, LedgerSnapshot, Recovered, SealedBlock, Spool, SpoolError, SpoolMetrics};

/// Threads that insert: an inserter, and a spare one for the place of a silent attempt.
const INSERTERS: usize = 2;

/// Pause between two checks of what the inserters have done.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// The reason why a spool is not drained, as one sentence.
#[derive(Debug)]
pub enum DrainError {
    /// The table's folder does not exist.
    NoSpool(PathBuf),
    /// The spool can't be opened.
    Spool(SpoolError),
    /// The settings are invalid.
    Config(ConfigError),
    /// An inserter can't be set up.
    Io(std::io::Error),
    /// A thread can't be started.
    Thread(ServerError),
    /// ClickHouse does not answer this many INSERTs, and nothing else can be inserted.
    Silent {
        /// Number of INSERTs without an answer.
        inserts: usize,
        /// Number of events in the spool.
        events: u64,
        /// Number of rejected lines in the spool.
        rejected_lines: u64,
    },
    /// This many segments can't be recovered, because the disk is full.
    NoRoom(usize),
    /// This many blocks are held; the text is the reason of the first.
    Held(usize, String),
    /// The ledger does not balance.
    Unbalanced(LedgerSnapshot),
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpool(folder) => {
                write!(
                    f,
                    "there is no spool at {}; check --spool-dir and the tables of the configuration",
                    folder.display()
                )
            }
            Self::Spool(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Io(error) => write!(f, "an inserter can't be set up: {error}"),
            Self::Thread(error) => error.fmt(f),
            Self::Silent { inserts, events, rejected_lines } => write!(
                f,
                "ClickHouse accepts connections and does not answer ({inserts} INSERTs without a byte for 10 s); \
                 {events} events and {rejected_lines} rejected lines are left in the spool; drain again when ClickHouse \
                 answers, which inserts each of them once"
            ),
            Self::NoRoom(segments) => write!(
                f,
                "{segments} segments that a crash left open can't be recovered, because the disk of the spool is full; \
                 free some space and drain again"
            ),
            Self::Held(count, reason) => write!(f, "{count} blocks are held and need operator action: {reason}"),
            Self::Unbalanced(ledger) => {
                write!(f, "the ledger does not balance, which is a bug of sluicegate; please report it: {ledger:?}")
            }
        }
    }
}

impl std::error::Error for DrainError {}

/// Inserts the events of all tables, or of those of `--only`, until only held blocks are left, and those
/// whose INSERT is silent. Other failed INSERTs are retried as in `serve`. Only a signal ends the command
/// early; the remaining blocks stay in the spool.
///
/// # Errors
///
/// If the spool can't be opened, or can't be emptied completely.
pub fn run(settings: &Settings) -> Result<(), DrainError> {
    // Opening the spool would create a missing folder, perhaps in the wrong place.
    let tables = settings.tables();
    let labels: Vec<&str> = tables.iter().map(|table| table.label.as_str()).collect();
    if !spool::exists(&settings.spool_dir, &labels) {
        return Err(DrainError::NoSpool(settings.spool_dir.clone()));
    }
    let (spool, recovered) = Spool::open(settings.spool(&tables)).map_err(DrainError::Spool)?;
    let embedded = KeptRunning::start(settings).map_err(DrainError::Thread)?;
    let outcome = insert_all(settings, &tables, &spool, recovered);
    drop(embedded);
    outcome
}

fn insert_all(
    settings: &Settings,
    tables: &[TableSettings],
    spool: &Spool,
    recovered: Recovered,
) -> Result<(), DrainError> {
    let servers = settings.clickhouse().map_err(DrainError::Config)?;
    let trust = settings.trust().map_err(DrainError::Config)?;
    tracing::info!(blocks = recovered.blocks.len(), events = spool.metrics().spooled_rows(), "draining");
    let configs: Vec<_> = tables.iter().map(|table| settings.table_config(table)).collect();
    let is_meant =
        |block: &SealedBlock| settings.only.is_empty() || settings.only.iter().any(|only| only == block.label());
    let (sender, sealed) = channel::unbounded();
    for block in recovered.blocks.into_iter().filter(is_meant) {
        // The receiver is alive, so the channel takes the block.
        let _ = sender.send(block);
    }
    drop(sender);
    let handoff = Arc::new(Handoff::new(Vec::new(), Arc::default()));
    let ends =
        Ends { inserters: 1, sealed, pool: spool.pool(), spool: spool.metrics(), metrics: Arc::default(), handoff };
    let servers = Arc::new(Servers::new(servers, settings.clickhouse_setting.clone()));
    let inserts = Arc::new(Inserts::new(&configs, *settings.insert_timeout, servers, ends));
    let client = || InsertClient::new(settings.insert_compression, &trust).map_err(DrainError::Io);
    let (shared, own) = (inserts.clone(), client()?);
    let inserter = spawn("inserter".into(), move || shared.run(&own)).map_err(DrainError::Thread)?;
    let (shared, own) = (inserts.clone(), client()?);
    spawn("spare".into(), move || shared.run_spare(&own)).map_err(DrainError::Thread)?;
    let mut is_given_up = Ok(());
    while is_given_up.is_ok() && !(inserter.is_finished() && inserts.spares_are_idle()) {
        is_given_up = give_up_silence(&spool.metrics());
        thread::sleep(POLL_PAUSE);
    }
    if let Err(error) = spool.pool().flush() {
        tracing::debug!(%error, "the next start looks up blocks whose attempts were answered");
    }
    is_given_up?;
    let ledger = spool.metrics().ledger();
    if !ledger.balances() {
        return Err(DrainError::Unbalanced(ledger));
    }
    let held = spool.metrics().held.reasons();
    if let Some((number, reason)) = held.first() {
        return Err(DrainError::Held(held.len(), format!("block {number}: {reason}")));
    }
    match spool.postponed() {
        0 => tracing::info!(
            events = ledger.rows.inserted,
            set_aside = ledger.rows.set_aside,
            rejected_lines = ledger.rejected.inserted,
            "{}",
            if settings.only.is_empty() { "the spool is empty" } else { "the spool holds nothing of these tables" }
        ),
        segments => return Err(DrainError::NoRoom(segments)),
    }
    Ok(())
}

/// Fails if nothing is inserted before ClickHouse answers an INSERT that it has been silent about.
fn give_up_silence(spool: &SpoolMetrics) -> Result<(), DrainError> {
    let (silent, silent_or_held) = spool.held.silent();
    let is_all = silent == INSERTERS || silent_or_held as u64 >= spool.not_inserted();
    if silent == 0 || !is_all {
        return Ok(());
    }
    let (events, rejected_lines) = (spool.spooled_rows(), spool.spooled_rejected());
    Err(DrainError::Silent { inserts: silent, events, rejected_lines })
}
