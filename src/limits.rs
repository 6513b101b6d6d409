//! Every maximum that is not a setting, with what it costs and what breaks when it is changed.
//!
//! # The memory budget
//!
//! With the defaults and `W` workers, resident memory is bounded by the sum of
//!
//! - `W` × [`READ_SCRATCH_BYTES`]: what a worker reads into;
//! - `W` × [`BATCHES_PER_WORKER`] × ([`TURN_BYTES_MAX`] and what one request may add, kept down
//!   to [`BATCH_BYTES_KEPT`] afterwards): batches, counted in `--in-flight-bytes-max`;
//! - partly received requests, counted in `--in-flight-bytes-max` as well;
//! - connections × about 300 bytes for an idle one, which owns no buffer;
//! - inserters × about 1 MiB: a segment is streamed from its file, never held.

/// The most rows of one INSERT that ClickHouse still stores as one block
/// (`max_insert_block_size` of ClickHouse, its documented default). Sent with every insert;
/// segments stay below it, because more than one block is not atomic.
pub const ROWS_PER_INSERT_MAX: u64 = 1_048_449;

/// A worker ends its turn after so many requests…
pub const TURN_REQUESTS_MAX: usize = 32;

/// …or so many encoded bytes, so that one client with big bodies does not hold up the others'
/// replies. Larger: fewer frames and headers, longer waits.
pub const TURN_BYTES_MAX: usize = 256 << 10;

/// Batches of one worker, filling or under way. Two keep worker and committer busy; the rest
/// carries a worker over a slow sync. Each costs up to [`BATCH_BYTES_KEPT`] twice.
pub const BATCHES_PER_WORKER: usize = 16;

/// A batch that grew beyond this gives its memory back after use.
pub const BATCH_BYTES_KEPT: usize = 512 << 10;

/// What a worker reads from one socket in one call. Must hold a usual request whole: only what
/// is incomplete is copied to a buffer of the connection.
pub const READ_SCRATCH_BYTES: usize = 256 << 10;

/// Requests of one connection that may wait for their replies; beyond it the connection is not
/// read. RFC 9112, section 9.3.2, leaves the number to the server.
pub const PIPELINED_REQUESTS_MAX: usize = 64;

/// Errors of lines that a reply lists (the contract's "first 100").
pub const LINE_ERRORS_LISTED_MAX: usize = 100;

/// More bad lines than this refuse the request as a whole.
pub const BAD_LINES_MAX: u32 = 1000;

/// How deep values may be nested inside a line. The parsers here do not recurse; this bounds the
/// work of skipping an unknown value and what is passed on to `sonic-rs`.
pub const DEPTH_MAX: usize = 128;

/// A refused line is stored in the quarantine up to this length.
pub const QUARANTINE_LINE_BYTES_MAX: usize = 64 << 10;

/// Columns of a table. A row's bookkeeping is a fixed array of ranges per worker.
pub const COLUMNS_MAX: usize = 1024;

/// Files of inserted segments that are kept to be overwritten (DESIGN, rule 7). Each occupies
/// `--batch-bytes` on the disk.
pub const FREE_SEGMENTS_MAX: usize = 4;
