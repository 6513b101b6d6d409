//! Every maximum that is not a setting, with what it costs and what breaks when it is changed.
//!
//! # The memory budget
//!
//! With `W` workers, resident memory is bounded by the sum of
//!
//! - `--in-flight-bytes-max`: partly received requests, batches under way by the memory that they
//!   hold, and replies that wait or that a client does not read;
//! - `W` × twice [`SLICE_BYTES`], as rows and as rejected lines: what one request adds to the batch
//!   that fills, before that batch is counted. The batch of a larger request is counted slice by slice;
//! - `W` × [`TURN_TABLES_BYTES_MAX`] for the batches of all tables that fill, and about 64 KiB for the
//!   encoder of each table, twice that once clients send more than [`COUNTED_FIELDS_MAX`] fields without a
//!   column;
//! - `W` × [`SPARE_BATCHES_BYTES_MAX`] for spare batches, until [`MEMORY_KEPT_SECONDS`] of rest;
//! - `W` × ([`READ_SCRATCH_BYTES`] and [`RENDER_BYTES_KEPT`], both twice with TLS, [`SPARE_BUFFERS_MAX`] × twice
//!   [`KEPT_BYTES_FIRST`], and a few lines of `--line-bytes-max` in the encoder);
//! - `--connections-max` × about 600 bytes for an idle connection, which owns no buffer, with TLS about
//!   4 KiB more for its keys, and up to 9 KiB for one with [`PIPELINED_REQUESTS_MAX`] replies under way;
//! - `W` × 2 × ([`SLICE_BYTES`] + [`CODING_WINDOW_BYTES_MAX`] + [`CODING_BYTES_KEPT`] + 1 MiB) for the
//!   decoders of coded bodies: one for small bodies, and one for the large body that is under way, whose
//!   content counts in `--in-flight-bytes-max`; without requests nothing after [`MEMORY_KEPT_SECONDS`];
//! - [`ADMIN_CONNECTIONS_MAX`] × 20 KiB and the pages of [`ADMIN_REQUESTS_MAX`] requests;
//! - [`LOG_BYTES_MAX`] of log lines that standard error did not take yet;
//! - what the allocator keeps: `server::allocator` says what it is told;
//! - about 130 bytes for each idempotency key that is remembered, `--idempotency-keys-max` at most,
//!   and about 70 for each value of `--dedup-field`, `--dedup-values-max` at most;
//! - 1 MiB with `--rate-limit-per-address`, about 100 bytes for each connection with
//!   `--connections-per-address-max`, and about 300 for each key of `--write-key-file`;
//! - inserters × about 1 MiB: a block is streamed from its file, never held; with
//!   `--insert-format native` × its rows, `--batch-bytes` as a rule and 128 MiB at most.

use std::time::Duration;

/// The most rows of one INSERT that ClickHouse still stores as one block
/// (`max_insert_block_size` of ClickHouse, its documented default). Sent with every insert;
/// blocks of the spool stay below it, because more than one block for ClickHouse is not atomic.
pub const ROWS_PER_INSERT_MAX: u64 = 1_048_449;

/// A worker ends its turn after so many requests…
pub const TURN_REQUESTS_MAX: usize = 32;

/// …or so many encoded bytes, so that one client with big bodies does not hold up the others'
/// replies. Larger: fewer frames and headers, longer waits.
pub const TURN_BYTES_MAX: usize = 256 << 10;

/// Requests of one connection that are served before the others have their turn. Larger: a client that
/// pipelines holds up the others for longer (about 2 µs for each request that is refused); smaller: more
/// of what it has sent is copied.
pub const VISIT_REQUESTS_MAX: usize = 32;

/// The work of the visits to connections that have news, in one turn, and again of those that have
/// something left to do: a visit counts as 1, and so does each request and each [`WORK_BYTES`]. Larger: a
/// request that comes in the middle waits longer (64 take some 0.5 ms); smaller: the sockets are asked for
/// news more often, which costs about 2 µs.
pub const TURN_WORK_MAX: usize = 64;

/// Bytes that are read, decoded or encoded as fast as a usual request is served.
pub const WORK_BYTES: usize = 16 << 10;

/// Connections that a worker accepts, and admits, in one turn; each costs about 15 µs.
pub const TURN_ARRIVALS_MAX: usize = 16;

/// Connections whose time a worker ends in one turn; each costs about 7 µs, a reply with 408 included.
pub const TURN_TIME_OUTS_MAX: usize = 16;

/// Encoded bytes of all tables in one turn, beyond which all batches that fill are handed over: what they
/// hold counts in no budget before. Larger: more of that; smaller: more batches of few requests, where many
/// tables are written to at once.
pub const TURN_TABLES_BYTES_MAX: usize = 4 * TURN_BYTES_MAX;

/// Batches of one worker with one table, filling or under way. Two keep worker and committer busy; the
/// rest carries a worker over a slow sync. Each costs up to [`BATCH_BYTES_KEPT`] twice.
pub const BATCHES_PER_WORKER: usize = 16;

/// Batches of one worker, however many tables there are. A batch that was not used yet costs some 300
/// bytes, and those that were used keep [`SPARE_BATCHES_BYTES_MAX`] together. Smaller: the worker reads
/// nothing more before the batches of its last two turns are back.
pub const WORKER_BATCHES_MAX: usize = 256;

/// Memory that the spare batches of a worker keep: as much as those of one table.
pub const SPARE_BATCHES_BYTES_MAX: usize = BATCHES_PER_WORKER * (2 * BATCH_BYTES_KEPT + 32 * BATCH_IDS_KEPT);

/// Batches of one worker with so many tables: each further table may fill one in this turn and have one
/// of the last turn under way.
pub const fn batches_per_worker(tables: usize) -> usize {
    let batches = BATCHES_PER_WORKER.saturating_add(tables.saturating_sub(1).saturating_mul(2));
    if batches < WORKER_BATCHES_MAX { batches } else { WORKER_BATCHES_MAX }
}

/// A batch that grew beyond this gives its memory back after use.
pub const BATCH_BYTES_KEPT: usize = 512 << 10;

/// A batch that had more identities of events than this gives their memory back after use: each
/// takes 32 bytes. Many more than the events of a usual turn.
pub const BATCH_IDS_KEPT: usize = 4096;

/// A body with more bytes of content than this is decoded and encoded in slices of [`LARGE_SLICE_BYTES`]
/// into a batch of its own. Larger: the other connections wait longer for their turn (about 0.5 ms for so
/// many bytes of gzip); smaller: more bodies are large, and of these a worker serves one at a time.
/// A worker keeps so much for the content of coded bodies, twice while a large body is under way. Brotli
/// alone decodes up to its window before it stops, some ms for a body that is hardly more than repetition.
pub const SLICE_BYTES: usize = 256 << 10;

/// What of a large body is decoded, or encoded, in one turn. Larger: the other connections wait longer
/// (some 0.1 ms for this); smaller: more turns for a body, each of which costs some 2 µs.
pub const LARGE_SLICE_BYTES: usize = 64 << 10;

/// The largest window of a zstd or brotli body, in bytes: what a decoder has to support at least (RFC
/// 9659, RFC 8878, section 3.1.1.1.2). Larger: more memory for each decoder. A power of two.
pub const CODING_WINDOW_BYTES_MAX: usize = 8 << 20;

/// A zstd decoder that grew beyond this is given back after its body. zstd -3 of an unknown length has a
/// window of 2 MiB.
pub const CODING_BYTES_KEPT: usize = 4 << 20;

/// What a worker reads from one socket in one call. Must hold a usual request whole: only what
/// is incomplete is copied to a buffer of the connection.
pub const READ_SCRATCH_BYTES: usize = 256 << 10;

/// Ciphertext that one TLS connection keeps of what is not complete: a record has at most 18 KiB (RFC
/// 8446, section 5.2), and no hello of a client more than that.
pub const TLS_KEPT_BYTES_MAX: usize = 34 << 10;

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

/// A rejected line is stored in the quarantine up to this length.
pub const QUARANTINE_LINE_BYTES_MAX: usize = 64 << 10;

/// Tables that one server takes events for. Each costs its plan, once a worker a row encoder, a file in the
/// spool for its last known columns, four small queries a minute, and some 20 series of the metrics.
pub const TABLES_MAX: usize = 1000;

/// Tables that have counters of their own beside those of the configuration: blocks of earlier
/// configurations name them. Each costs about 10 series of the metrics.
pub const UNKNOWN_TABLES_MAX: usize = 100;

/// Bytes of the configuration file: far more than [`TABLES_MAX`] sections need.
pub const CONFIG_FILE_BYTES_MAX: u64 = 4 << 20;

/// Bytes of a table's `path`.
pub const PATH_BYTES_MAX: usize = 1024;

/// Columns of a table. Each costs a worker 24 bytes, allocated once a schema: where the cell of a
/// field that came early lies.
pub const COLUMNS_MAX: usize = 1024;

/// Names in a path of a mapping: levels of objects that are gone into.
pub const MAPPED_LEVELS_MAX: usize = 8;

/// Objects that the paths of a table go into, each of which costs a worker about 3 KiB. A path of n names goes into
/// 2^(n-1) - 1 of them: its names may be spelled together.
pub const MAPPED_OBJECTS_MAX: usize = 1024;

/// Fields that one column of a mapping may be the first of.
pub const MAPPED_FIELDS_MAX: usize = 16;

/// Names of fields without a column that each encoder counts by name, about 300 bytes each; the admin address
/// shows [`SHOWN_FIELDS_MAX`] of them. Larger: a name that comes rarely is counted by name, too.
pub const COUNTED_FIELDS_MAX: usize = 128;

/// Bytes of such a name; a longer one is counted among the others.
pub const COUNTED_NAME_BYTES_MAX: usize = 64;

/// Names of fields without a column that the admin address shows for a table: those that come most often.
pub const SHOWN_FIELDS_MAX: usize = 100;

/// Held blocks that `/stats` shows: those that came first.
pub const SHOWN_HELD_MAX: usize = 100;

/// Files of inserted segments that are kept to be overwritten (DESIGN, rule 7). Each occupies
/// `--batch-bytes` on the disk.
pub const FREE_SEGMENTS_MAX: usize = 4;

/// The first size of a buffer for an incomplete request; it doubles from there.
pub const KEPT_BYTES_FIRST: usize = 32 << 10;

/// Spare buffers that a worker keeps for incomplete requests, each at most twice
/// [`KEPT_BYTES_FIRST`].
pub const SPARE_BUFFERS_MAX: usize = 64;

/// Connections above `--connections-max` that are accepted only to be told 503; what comes beyond
/// is closed without a word.
pub const REFUSED_CONNECTIONS_MAX: usize = 128;

/// After the last reply the input of a connection is thrown away until nothing has come for so long…
pub const LINGER_SECONDS: u64 = 2;

/// …or until this much time has passed: a client reads a 413 only once it has sent what it began
/// to send…
pub const LINGER_SECONDS_MAX: u64 = 30;

/// …or so many bytes have come. Costs reading them.
pub const LINGER_BYTES_MAX: u64 = 64 << 20;

/// Requests below this size have a quarter of `--in-flight-bytes-max` to themselves. Larger: fewer
/// of them fit into that quarter.
pub const SMALL_REQUEST_BYTES: usize = 256 << 10;

/// Counters of what client addresses hold of the budget. Two addresses that share a counter share
/// what one address may take; which ones do changes with each start. Each costs 8 bytes.
pub const ADDRESS_SHARES: usize = 4096;

/// Addresses whose rates are known at a time (`--rate-limit-per-address`): 1 MiB, with that flag alone.
/// With more addresses active at a time, some get more than their rate.
pub const RATED_ADDRESSES: usize = 64 << 10;

/// Parts of the table of `--connections-per-address-max`, each with a lock: far more than workers.
pub const ADDRESS_SHARDS: usize = 64;

/// Bytes of one connection's replies that may wait; beyond it the connection is not read.
pub const WAITING_REPLIES_BYTES_MAX: usize = 256 << 10;

/// A worker's buffer for replies gives back what it has beyond this.
pub const RENDER_BYTES_KEPT: usize = 256 << 10;

/// A worker without a request for so long gives back the memory of its spare batches and buffers.
pub const MEMORY_KEPT_SECONDS: u64 = 5;

/// Open connections of the admin address, besides those of requests under way. When one more comes, the
/// oldest whose reply is sent is closed, else the oldest that has not sent its request yet.
pub const ADMIN_CONNECTIONS_MAX: usize = 128;

/// Requests of the admin address under way at a time, besides `/livez`; a further one is answered 503.
pub const ADMIN_REQUESTS_MAX: usize = 16;

/// Those who may watch `/api/<table>/live` at a time, each with a thread; a further one is answered 503.
pub const LIVE_WATCHERS_MAX: usize = 8;

/// Bytes of one line that they are shown.
pub const LIVE_LINE_BYTES_MAX: usize = 64 << 10;

/// Bytes of all lines on their way to them.
pub const LIVE_BYTES_MAX: usize = 8 << 20;

/// Log lines that wait for standard error; beyond it lines are dropped and counted.
pub const LOG_LINES_MAX: usize = 4096;

/// Bytes of log lines that wait for standard error; beyond it lines are dropped and counted.
pub const LOG_BYTES_MAX: usize = 1 << 20;

/// How long the end of the process waits for standard error to take the last log lines.
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// Descriptors that connections can't take, besides those that are counted one by one: the spool's
/// files, the standard streams, what libraries open.
pub const DESCRIPTORS_KEPT: u64 = 64;

/// Idle connections that are examined to find one to close when a new one comes and none is left.
pub const IDLE_SCAN_MAX: usize = 16;

/// While stopping, a connection without a request is kept so long for one that is on its way.
pub const STOPPING_IDLE_MS: u64 = 500;

/// How often the table is described while nothing says that its columns have changed. A column that is
/// added makes no error: so long may its values go missing. Costs four small queries.
pub const SCHEMA_REFRESH_SECONDS: u64 = 60;

/// The same while ClickHouse is away: it may come back with another table.
pub const SCHEMA_REFRESH_AWAY_SECONDS: u64 = 2;

/// The body of a request that replays rejected lines, on the admin address: a few of its requests, and
/// the batch of one, are in memory.
pub const REPLAY_BYTES_MAX: usize = 2 << 20;

/// How often the server's time zone is asked for where a column has none of its own: so long may its
/// events be hours off after a change. Costs one small query.
pub const TIMEZONE_CHECK_SECONDS: u64 = 1;

/// The least time between two descriptions of the table, however many errors call for one.
pub const SCHEMA_REFRESH_PAUSE_MS: u64 = 1000;

/// The longest pause between two sweeps of a worker: over its time-outs, and with its heartbeat. A
/// heartbeat of a healthy worker is at most so old, and what a slow turn adds.
pub const SWEEP_MS: u64 = 250;

/// A heartbeat that is older belongs to a thread that is stuck. A sync of a slow disk may take seconds.
pub const HEARTBEAT_AGE_MAX_MS: u64 = 30_000;

/// The longest `Idempotency-Key`. Only its hash is kept: longer ones cost nothing but sense.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Bytes of the longest write key.
pub const WRITE_KEY_BYTES_MAX: usize = 256;

/// Keys of a `--write-key-file`. Each costs about 150 bytes.
pub const WRITE_KEYS_MAX: usize = 4096;

/// Names of write keys, and keys without a name, since the start: what a name has used of its rate, and
/// its counter, outlive a new file. Each costs about 150 bytes and a series of the metrics.
pub const KEY_OWNERS_MAX: usize = 4096;

/// Bytes of a `--write-key-file`.
pub const WRITE_KEY_FILE_BYTES_MAX: usize = 4 << 20;

/// Fresh connections on their way to a worker. The largest bursts are a listener's backlog.
pub const ARRIVALS_MAX: usize = LISTEN_BACKLOG as usize;

/// Connections that the kernel keeps for us before they are accepted; `net.core.somaxconn` may
/// make it less.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Parameters of a query; each is compared with each. A request of this server has at most four.
pub const QUERY_PARAMETERS_MAX: usize = 64;

/// A header of the PROXY protocol, version 2 with all that a proxy adds to it. The protocol's own limit is
/// 64 KiB; what HAProxy and nginx send is below 1 KiB but for certificates. nginx takes as much.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// Addresses of `--listen`.
pub const LISTENERS_MAX: usize = 64;

/// Origins of `--cors-origin`: each reply to a page looks through them.
pub const CORS_ORIGINS_MAX: usize = 1000;

/// A file shorter than this is not worth keeping in the pool.
pub const FREE_SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// Batches that the committer writes with one call at most, so that one group stays a fraction of
/// a segment.
pub const GROUP_BATCHES_MAX: usize = 256;

/// Where a sync takes less, it is done at once: waiting for more batches would cost more than
/// another sync.
pub const GATHER_MIN: Duration = Duration::from_micros(50);

/// The committer waits no longer than this for more batches, however long the last sync took.
pub const GATHER_MAX: Duration = Duration::from_millis(2);

/// Room in a segment's file beside the rows of its largest block: identity, seals, and schemas.
pub const SEGMENT_BLOCKS_BYTES: u64 = 40 << 10;

/// Length of each of the journal's two files.
pub const JOURNAL_BYTES: u64 = 8 << 20;

/// Room on the spool's disk that is kept for what a full disk still has to take: the keys of a segment that
/// is sealed. Each takes a few KiB and gives back a segment's room once that is inserted.
pub const SPARE_BYTES: u64 = 1 << 20;

/// The most headers that can be configured; their slots are on the worker's stack, which costs
/// nothing until they are used.
pub const HEADERS_MAX: usize = 256;

/// Bytes of extensions in one chunk's line; nobody uses them.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 256;

/// Bytes of all extensions of a body: without it, one-byte chunks could carry 256 times the body.
pub const CHUNK_EXTENSIONS_BYTES_MAX: usize = 16 << 10;

/// Bytes of trailers behind a chunked body; they are skipped.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;

/// Confirmed blocks that are remembered for `ack=inserted`: far more than are inserted while a
/// reply waits. Costs 8 bytes each.
pub const INSERTED_RING: usize = 4096;

// What must hold between the limits, whoever changes one of them.
const _: () = {
    // One batch under way and one that fills, or worker and committer wait for each other.
    assert!(BATCHES_PER_WORKER >= 2 && BATCHES_PER_WORKER <= WORKER_BATCHES_MAX);
    // Each request of two turns may be for another table.
    assert!(2 * (TURN_WORK_MAX + VISIT_REQUESTS_MAX) <= WORKER_BATCHES_MAX);
    // A batch is full before all of them are.
    assert!(TURN_BYTES_MAX < TURN_TABLES_BYTES_MAX);
    // The exponent of the window is what zstd is told.
    assert!(CODING_WINDOW_BYTES_MAX.is_power_of_two());
    // What is encoded in one go fits into one turn as well as what is read in one go.
    assert!(SLICE_BYTES <= READ_SCRATCH_BYTES);
    // A visit may serve what a batch takes.
    assert!(VISIT_REQUESTS_MAX >= TURN_REQUESTS_MAX && TURN_WORK_MAX > VISIT_REQUESTS_MAX);
    // A part of a large body is no large body.
    assert!(LARGE_SLICE_BYTES <= SLICE_BYTES && WORK_BYTES <= LARGE_SLICE_BYTES);
    // A usual batch keeps its memory from turn to turn.
    assert!(TURN_BYTES_MAX <= BATCH_BYTES_KEPT);
    // A buffer for what is incomplete begins smaller than what one read brings.
    assert!(KEPT_BYTES_FIRST <= READ_SCRATCH_BYTES);
    // A header of the PROXY protocol is looked at in the worker's buffer.
    assert!(PROXY_HEADER_BYTES_MAX <= READ_SCRATCH_BYTES);
    // A table's place fits into its index.
    assert!(TABLES_MAX <= u16::MAX as usize);
    assert!(GATHER_MIN.as_nanos() < GATHER_MAX.as_nanos());
    // A reply that lists errors is one that has not too many of them.
    assert!(LINE_ERRORS_LISTED_MAX <= BAD_LINES_MAX as usize);
    assert!(CHUNK_EXTENSION_BYTES_MAX <= CHUNK_EXTENSIONS_BYTES_MAX);
    // A line that is shown whole is one of many that are on their way.
    assert!(LIVE_LINE_BYTES_MAX * 16 <= LIVE_BYTES_MAX);
    // A rejected line fits into one frame beside others.
    assert!(QUARANTINE_LINE_BYTES_MAX <= TURN_BYTES_MAX);
    // ClickHouse that is away is asked more often than one that is there, and neither without a pause.
    assert!(SCHEMA_REFRESH_AWAY_SECONDS < SCHEMA_REFRESH_SECONDS);
    assert!(SCHEMA_REFRESH_PAUSE_MS <= SCHEMA_REFRESH_AWAY_SECONDS * 1000);
    // Many sweeps pass before a thread is called stuck.
    assert!(SWEEP_MS * 10 <= HEARTBEAT_AGE_MAX_MS);
    // A stop looks at idle connections at least once before it closes them.
    assert!(SWEEP_MS <= STOPPING_IDLE_MS);
    // The committer's list of workers to wake has a bit for each of the first 128 only; a group holds
    // no more batches than these workers can hand over.
    assert!(GROUP_BATCHES_MAX <= 128 * BATCHES_PER_WORKER);
};
