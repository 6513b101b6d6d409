//! What the committer knows of each table: when a block of it is full or old, its share of the spool, and what the
//! group that is being committed has of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SpoolConfig;
use super::block::BLOCKS_MAX;
use super::frame::HEADER;
use super::layout::Layout;
use super::metrics::SpoolMetrics;
use super::segment::{OpenBlock, OpenSegment, schema_bytes};
use crate::batch::{Batch, BlockNumber, SegmentNumber, TableIndex};

/// All tables, by their indices.
pub(super) struct Tables {
    layout: Arc<Layout>,
    tables: Vec<Table>,
    /// The tables that the group has batches of.
    joined: Vec<TableIndex>,
    /// Those of them that the open segment has no block of.
    new: u16,
}

struct Table {
    batch_rows: u64,
    batch_bytes: u64,
    batch_age: Duration,
    /// Bytes of it that may wait for their insert.
    bytes_max: Option<u64>,
    /// Columns and settings of its newest batch, and the least number of a segment with them.
    frozen: Arc<[u8]>,
    frozen_from: SegmentNumber,
    /// When its block in the open segment got its first frame.
    age_from: Instant,
    /// What the group has of it.
    group: Option<Joined>,
}

struct Joined {
    frozen: Arc<[u8]>,
    index: u16,
    rows: u64,
    rejected: u64,
    bytes: u64,
}

impl Tables {
    pub(super) fn new(layout: Arc<Layout>, config: &SpoolConfig) -> Self {
        let of = |table: &super::SpoolTable| Table {
            batch_rows: table.batch_rows,
            batch_bytes: table.batch_bytes,
            batch_age: table.batch_age,
            bytes_max: table.bytes_max,
            frozen: Arc::default(),
            frozen_from: SegmentNumber::default(),
            age_from: Instant::now(),
            group: None,
        };
        Self { layout, tables: config.tables.iter().map(of).collect(), joined: Vec::new(), new: 0 }
    }

    fn of(&self, batch: &Batch) -> Option<&Table> {
        self.tables.get(batch.table.get())
    }

    /// True while its table has its share of the spool, so that the batch is refused.
    pub(super) fn is_full(&self, batch: &Batch, metrics: &SpoolMetrics) -> bool {
        let Some(table) = self.of(batch) else { return false };
        let more = batch.len() as u64 + table.group.as_ref().map_or(0, |group| group.bytes);
        table.bytes_max.is_some_and(|max| metrics.spooled_bytes(batch.table).saturating_add(more) > max)
    }

    /// True if the open segment, or a new one, takes the batch beside those that have joined the group: with the
    /// columns that its table has there, and with no more rows than an INSERT may have.
    pub(super) fn take(&self, open: Option<&OpenSegment>, batch: &Batch) -> bool {
        let Some(table) = self.of(batch) else { return false };
        let block = open.and_then(|open| open.block_of(batch.table)).map(|(_, block)| block);
        let has_room = || open.map_or(0, |open| open.blocks().len()) + usize::from(self.new) < BLOCKS_MAX;
        let is_taken = match (&table.group, block) {
            (Some(group), _) => Arc::ptr_eq(&group.frozen, &batch.frozen) || group.frozen == batch.frozen,
            (None, Some(block)) => block.has_schema_of(batch),
            (None, None) => has_room(),
        };
        let (rows, rejected) = block.map_or((0, 0), |block| (block.totals.rows, block.totals.rejected));
        let (more, more_rejected) = table.group.as_ref().map_or((0, 0), |group| (group.rows, group.rejected));
        let rows = rows + more + u64::from(batch.rows.count);
        let rejected = rejected + more_rejected + u64::from(batch.rejected.count);
        is_taken && rows.max(rejected) <= table.batch_rows
    }

    /// Bytes that the batch takes in the segment.
    pub(super) fn bytes_of(&self, open: Option<&OpenSegment>, batch: &Batch) -> u64 {
        let is_known = self.of(batch).is_some_and(|table| table.group.is_some());
        match open {
            Some(open) if !is_known => open.bytes_of(batch),
            None if !is_known => batch.frame_payload() + HEADER as u64 + schema_bytes(&self.layout, batch),
            _ => batch.frame_payload() + HEADER as u64,
        }
    }

    /// The index of the block that the batch belongs to, or will.
    pub(super) fn index_of(&self, open: Option<&OpenSegment>, batch: &Batch) -> u16 {
        if let Some(group) = self.of(batch).and_then(|table| table.group.as_ref()) {
            return group.index;
        }
        match open.and_then(|open| open.block_of(batch.table)) {
            Some((index, _)) => index as u16,
            None => open.map_or(0, |open| open.blocks().len()) as u16 + self.new,
        }
    }

    /// The batch joins the group, in a block that has this number or gets it.
    pub(super) fn join(&mut self, batch: &Batch, block: BlockNumber, is_new: bool) {
        let Some(table) = self.tables.get_mut(batch.table.get()) else { return };
        if !Arc::ptr_eq(&table.frozen, &batch.frozen) {
            if table.frozen != batch.frozen {
                table.frozen_from = block.segment;
            }
            table.frozen = batch.frozen.clone();
        }
        if table.group.is_none() {
            self.joined.push(batch.table);
            self.new += u16::from(is_new);
        }
        let joined = Joined { frozen: batch.frozen.clone(), index: block.index, rows: 0, rejected: 0, bytes: 0 };
        let group = table.group.get_or_insert(joined);
        group.rows += u64::from(batch.rows.count);
        group.rejected += u64::from(batch.rejected.count);
        group.bytes += batch.len() as u64;
    }

    /// The group is committed, or refused.
    pub(super) fn leave(&mut self) {
        for table in self.joined.drain(..) {
            if let Some(table) = self.tables.get_mut(table.get()) {
                table.group = None;
            }
        }
        self.new = 0;
    }

    /// The table's block in the open segment has its first frame.
    pub(super) fn begins(&mut self, table: TableIndex, now: Instant) {
        if let Some(table) = self.tables.get_mut(table.get()) {
            table.age_from = now;
        }
    }

    /// True if the open segment is full, or a block in it is full, or old and would be sent soon.
    pub(super) fn is_due(&self, open: &OpenSegment, metrics: &SpoolMetrics, inserters: u64) -> bool {
        let is_due = |block: &OpenBlock| {
            let Some(table) = self.tables.get(block.table.get()) else { return false };
            let bytes = block.totals.rows_bytes + block.totals.rejected_bytes;
            block.events() >= table.batch_rows
                || bytes >= table.batch_bytes
                || table.age_from.elapsed() >= table.batch_age
                    && table.age_from.elapsed() >= metrics.held.age(block.table, table.batch_age)
                    && metrics.may_seal_by_age(block.table, table.frozen_from, inserters)
        };
        open.end >= open.capacity || open.blocks().iter().any(is_due)
    }

    /// How long no block in the open segment is old; `None` if there is none.
    pub(super) fn left(&self, open: &OpenSegment, metrics: &SpoolMetrics) -> Option<Duration> {
        let of = |block: &OpenBlock| {
            let table = self.tables.get(block.table.get())?;
            let age = metrics.held.age(block.table, table.batch_age);
            Some(age.saturating_sub(table.age_from.elapsed()))
        };
        open.blocks().iter().filter_map(of).min()
    }
}
