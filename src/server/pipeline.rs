//! The threads between the workers and ClickHouse: the committer, the keeper and the inserters.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel;

use super::threads::{ServerError, all_ended, os, spawn};
use crate::admin::Admin;
use crate::clickhouse::TableConfig;
use crate::clickhouse::servers::Servers;
use crate::config::Settings;
use crate::handoff::Handoff;
use crate::insert::inserter::{Ends, Inserts};
use crate::insert::stream::InsertClient;
use crate::spool::{Committer, Recovered, SegmentPool, Spool, SpoolMetrics};

/// The committer, the keeper and the inserters.
pub(super) struct Pipeline {
    pub(super) inserts: Arc<Inserts>,
    spool: Arc<SpoolMetrics>,
    pool: Arc<SegmentPool>,
    committer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    inserters: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts the inserters, with the blocks of previous runs, and then the committer and its keeper.
    pub(super) fn start(
        settings: &Settings,
        tables: &[TableConfig],
        spool: Spool,
        recovered: Recovered,
        handoff: &Arc<Handoff>,
        admin: &Admin,
    ) -> Result<Self, ServerError> {
        let (sender, sealed) = channel::unbounded();
        for block in recovered.blocks {
            // The receiver is alive, so the channel takes the block.
            let _ = sender.send(block);
        }
        let (metrics, pool) = (spool.metrics(), spool.pool());
        let count = settings.inserters.get();
        let ends = Ends {
            inserters: count,
            sealed,
            pool: pool.clone(),
            spool: metrics.clone(),
            metrics: admin.inserts.clone(),
            handoff: handoff.clone(),
        };
        let servers = Arc::new(Servers::new(admin.clickhouse.clone(), settings.clickhouse_setting.clone()));
        let inserts = Arc::new(Inserts::new(tables, *settings.insert_timeout, servers, ends));
        let requeued = inserts.clone();
        let _ = admin.requeue.set(Box::new(move |block, tables, orders| requeued.requeue(block, tables, orders)));
        let trust = settings.trust()?;
        let inserters = (0..count)
            .map(|index| {
                let inserts = inserts.clone();
                let client = InsertClient::new(settings.insert_compression, &trust)
                    .map_err(os("an inserter can't be set up"))?;
                spawn(format!("inserter-{index}"), move || inserts.run(&client))
            })
            .collect::<Result<_, _>>()?;
        for index in 0..count {
            let inserts = inserts.clone();
            let client =
                InsertClient::new(settings.insert_compression, &trust).map_err(os("an inserter can't be set up"))?;
            spawn(format!("spare-{index}"), move || inserts.run_spare(&client))?;
        }
        let (committer, keeper) = Committer::new(spool, handoff.clone(), sender, count);
        let committer = spawn("committer".into(), move || committer.run())?;
        let keeper = spawn("keeper".into(), move || keeper.run())?;
        Ok(Self { inserts, spool: metrics, pool, committer, keeper, inserters })
    }

    /// True once everything is committed and sealed.
    pub(super) fn has_committed(&self) -> bool {
        self.committer.is_finished() && self.keeper.is_finished()
    }

    /// True once all threads have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.has_committed() && all_ended(&self.inserters) && self.inserts.spares_are_idle()
    }

    /// True once everything is committed, and ClickHouse is silent about the INSERTs of all that is not held: nobody
    /// knows until when.
    pub(super) fn is_silent(&self) -> bool {
        let (silent, silent_or_held) = self.spool.held.silent();
        self.has_committed() && silent > 0 && silent_or_held as u64 >= self.spool.not_inserted()
    }

    /// Says in the log what a stop has left in the spool.
    pub(super) fn log_what_is_left(&self) {
        if let Err(error) = self.pool.flush() {
            tracing::debug!(%error, "the next start looks up blocks whose attempts were answered");
        }
        let (events, rejected_lines) = (self.spool.spooled_rows(), self.spool.spooled_rejected());
        match (events, rejected_lines, self.spool.postponed()) {
            (0, 0, 0) => tracing::info!("stopped; every event is in ClickHouse"),
            (_, _, 0) => {
                tracing::warn!(events, rejected_lines, "stopped; the spooled events are inserted after the next start")
            }
            (_, _, segments) => tracing::warn!(
                events,
                rejected_lines,
                segments,
                "stopped; the spooled events are inserted after the next start, and so are those of segments that a \
                 crash left open and that wait for room on the disk"
            ),
        }
    }
}
