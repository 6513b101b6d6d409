//! Sluicegate: an HTTP server, one pinned thread per core, that takes NDJSON events, enriches
//! them, turns each straight into a ClickHouse RowBinary row, makes it durable in one shared
//! log, answers, and inserts every row into ClickHouse exactly once.

pub mod batch;
pub mod handoff;
pub mod limits;
