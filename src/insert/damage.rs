//! A segment that can't be read as it was sealed.
//!
//! An attempt that breaks off stores nothing. So if every other attempt was answered, ClickHouse has
//! nothing of the segment, and what is readable of it may go in under another token: see
//! [`crate::spool::SegmentPool::salvage`]. If one was not, ClickHouse may have the whole, and a part
//! of it under another token would double: then a person decides.

use super::due::Work;
use super::failure::Failure;
use super::inserter::Inserts;
use super::step::Unrecorded;

impl Inserts {
    /// Sends what is readable from now on, or holds it.
    pub(super) fn damaged(&self, mut work: Work, failure: Failure) {
        if let Some(reason) = why_held(&work, &failure) {
            self.put_back(work, &Failure { reason, ..failure });
            return;
        }
        let segment = work.segment.number();
        let salvaged = match self.pool.salvage(&mut work.segment) {
            Ok(Some(salvaged)) => salvaged,
            // Whatever was wrong has passed, or is no damage.
            Ok(None) => return self.put_back(work, &failure),
            Err(error) => {
                let reason = format!("{}; what is readable can't be copied yet: {error}", failure.reason);
                return self.put_back(work, &Failure { reason, ..failure });
            }
        };
        let (rows, rejected) = (salvaged.missing.rows, salvaged.missing.rejected);
        let readable = salvaged.segment.as_ref().map_or(0, |left| left.rows() + left.rejected());
        tracing::error!(
            segment = segment.get(),
            missing_rows = rows,
            missing_rejected = rejected,
            readable,
            reason = failure.reason,
            "a segment is damaged; it is kept in damaged/, and what is readable goes in"
        );
        self.spool.held.release(segment);
        if let Some(left) = salvaged.segment {
            let left = Work {
                segment: left,
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

/// Why nothing of it may go in by itself, if that is so.
fn why_held(work: &Work, failure: &Failure) -> Option<String> {
    let reason = &failure.reason;
    if work.segment.cut().is_some() && work.segment.rows_waiting() > 0 {
        return Some(format!(
            "{reason}; the segment was cut into pieces, whose places are those in the whole, so that what is readable \
             of it can't be sent by itself: look which of its rows are in the table"
        ));
    }
    if work.segment.open_attempt().is_some() && !work.orders.force {
        return Some(format!(
            "{reason}; an earlier attempt had no answer, so ClickHouse may have the whole: look whether its rows are \
             there, and `sluicegate spool requeue --force` sends what is readable under another token, which doubles \
             what ClickHouse has already"
        ));
    }
    None
}
