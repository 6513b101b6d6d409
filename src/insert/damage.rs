//! Handling of a block that turns out to be damaged when it is sent.
//!
//! An INSERT that breaks off stores nothing. If every earlier attempt was answered, ClickHouse has
//! nothing of the block, and a salvaged copy may be sent under another token
//! ([`crate::spool::SegmentPool::salvage`]). If an earlier attempt is open, ClickHouse may have the
//! whole block, and a copy under another token would double rows. The block is then held. So is one that
//! was cut: the positions of its pieces are those of rows that are missing now.

use super::due::Work;
use super::failure::{FORCE, Failure};
use super::inserter::Inserts;
use super::step::Unrecorded;

impl Inserts {
    /// Replaces the damaged block by its salvaged copy, or holds it.
    pub(super) fn damaged(&self, mut work: Work, failure: Failure) {
        if let Some(reason) = why_held(&work, &failure) {
            self.put_back(work, &Failure { reason, remedy: FORCE, ..failure });
            return;
        }
        let number = work.block.number();
        let salvaged = match self.pool.salvage(&mut work.block) {
            Ok(Some(salvaged)) => salvaged,
            // The block can be read after all.
            Ok(None) => return self.put_back(work, &failure),
            Err(error) => {
                let reason = format!("{}; its readable frames can't be copied yet: {error}", failure.reason);
                return self.put_back(work, &Failure { reason, ..failure });
            }
        };
        let (rows, rejected) = (salvaged.missing.rows, salvaged.missing.rejected);
        let readable = salvaged.block.as_ref().map_or(0, |left| left.rows() + left.rejected());
        tracing::error!(
            block = %number,
            missing_rows = rows,
            missing_rejected = rejected,
            readable,
            reason = failure.reason,
            "a block is damaged; its segment's file is kept in damaged/, and its readable frames are inserted"
        );
        self.spool.held.release(number);
        if let Some(left) = salvaged.block {
            let left = Work {
                block: left,
                attempts: 0,
                progress: Unrecorded::default(),
                salvaged: true,
                absent: false,
                partitions: work.partitions,
                orders: work.orders,
            };
            self.due.later(left, std::time::Duration::ZERO);
        }
    }
}

/// The reason why the damaged block must be held; `None` if it may be salvaged.
fn why_held(work: &Work, failure: &Failure) -> Option<String> {
    let reason = &failure.reason;
    if work.block.cut().is_some() && work.block.rows_waiting() > 0 && !work.orders.force {
        return Some(format!(
            "{reason}; the block was cut into pieces by the positions of its rows, so its readable frames can't be \
             sent alone; check which of its rows are in the table; `sluicegate spool requeue --force` sets the rows \
             aside that are not decided, with the file in damaged/, and sends the rejected lines that can be read"
        ));
    }
    if work.block.open_attempt().is_some() && !work.orders.force {
        return Some(format!(
            "{reason}; an earlier attempt had no answer, so ClickHouse may have all its rows; check whether the table \
             has them; `sluicegate spool requeue --force` sends the readable frames under another token, which doubles \
             the rows that ClickHouse has"
        ));
    }
    None
}
