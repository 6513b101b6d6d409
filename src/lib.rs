//! Sluicegate: an HTTP server, one pinned thread per core, that takes NDJSON events, enriches
//! them, turns each straight into a ClickHouse RowBinary row, makes it durable in one shared log,
//! answers, and inserts every row into ClickHouse exactly once.
//!
//! # The way of an event: bytes go forward, positions come back
//!
//! ```text
//! socket ─▶ head ─▶ body ─▶ line ─▶ row ─▶ batch ═lock-free═▶ frame ─▶ segment ═lock-free═▶ INSERT ─▶ ClickHouse
//! └───────────── worker k, pinned to core k ──────────┘        └── committer ──┘             └ inserter i ┘
//!      ▲ reply                                                       │ outcome of the batch     │ block inserted
//!      └───────────────◀── released when the batch is durable ───────┴──────────────────────────┘
//! ```
//!
//! A batch itself comes back to its worker, empty again, with what became of it; no other message
//! is needed to release the replies that wait for it.
//!
//! # Rooms, from the ground up
//!
//! A room stands only on rooms above it in this table, and only on those that are named beside it;
//! `tests/tidy.rs` reads the table and the sources and holds one against the other. Each room is a
//! folder whose `mod.rs` lists its files.
//!
//! | room | stands on | what happens there |
//! |---|---|---|
//! | [`limits`] | | every maximum that is no setting, and what it costs |
//! | [`clock`] | | the wall clock, and one that no step moves |
//! | [`http`] | `limits` | framing without I/O: head, body, its chunks and content codings, query, response; the client's address behind proxies |
//! | [`net`] | `limits` | listening sockets, also those that systemd passes, and connections, TCP and Unix; trusted proxies, the PROXY protocol; transport: plain or TLS |
//! | [`batch`] | `limits` | what a worker hands over at once: rows, identities of requests and events, and the outcome; kinds of numbers |
//! | [`rowbinary`] | | types of ClickHouse, and primitive encoders of RowBinary |
//! | [`schema`] | `limits`, `rowbinary` | a table's columns → the plan that rows are encoded by |
//! | [`quarantine`] | `limits`, `rowbinary`, `schema` | the row of a rejected line |
//! | [`ndjson`] | `batch`, `limits`, `quarantine`, `rowbinary`, `schema` | lines → rows, one file a family of types |
//! | [`handoff`] | `batch`, `limits`, `net` | where threads meet: batches, wake-ups, proven blocks, published versions, the phase from start to stop |
//! | [`spool`] | `batch`, `clock`, `limits` | the log: frames, segments, the committer and its keeper, the journal, keys and identities, what is held, recovery |
//! | [`clickhouse`] | `batch`, `clock`, `handoff`, `limits`, `ndjson`, `quarantine`, `rowbinary`, `schema` | what ClickHouse is: client, servers, tables and columns, guarantee ("exactly once") and horizon, the lines in quarantine and how they are taken again, embedded |
//! | [`insert`] | `batch`, `clickhouse`, `clock`, `handoff`, `quarantine`, `rowbinary`, `schema`, `spool` | how a block gets into it: due, step, attempt, outcome of an error, cutting, presence |
//! | [`api`] | `batch`, `http`, `limits`, `ndjson`, `schema` | routes, replies and faults of the public address; keys, rates, pages of other origins, identities of requests |
//! | [`connection`] | `api`, `batch`, `http`, `limits` | one connection's state machine, without a socket |
//! | [`intake`] | `api`, `batch`, `clock`, `connection`, `handoff`, `http`, `limits`, `ndjson`, `net`, `schema`, `spool` | what both engines share: a request's context, outbox, outcomes, schemas of the tables, waiting for inserts, budget, what is charged to rates, health, counters, lines for those who watch |
//! | [`worker`] | `api`, `clock`, `connection`, `handoff`, `http`, `intake`, `limits`, `net` | the own event loop: sockets, buffers, time-outs |
//! | `engine_may` | `api`, `batch`, `clock`, `connection`, `handoff`, `http`, `intake`, `limits` | the same api through `may_minihttp`, in a build with the feature `engine-may` |
//! | [`admin`] | `api`, `batch`, `clickhouse`, `clock`, `handoff`, `http`, `intake`, `limits`, `ndjson`, `schema`, `spool` | the admin address: metrics, statistics, `/livez`, `/readyz` and its warnings, events and rejected lines, also live, orders for held blocks |
//! | [`config`] | `api`, `batch`, `clickhouse`, `connection`, `http`, `insert`, `intake`, `limits`, `ndjson`, `net`, `schema`, `spool` | flags, environment and file → one checked [`config::Settings`], handed on in parts |
//! | [`commands`] | `clickhouse`, `clock`, `config`, `limits`, `net`, `schema`, `spool` | `check`, `schema`, `spool`, `quarantine` and `send` |
//! | [`server`] | `admin`, `api`, `batch`, `clickhouse`, `clock`, `config`, `engine_may`, `handoff`, `insert`, `intake`, `limits`, `ndjson`, `net`, `schema`, `spool`, `worker` | start and stop in order, signals, engines, pinning, open files, the log; `drain` |
//!
//! Three rooms are not where one would look first. *Health* is in `intake`, because both engines
//! answer `GET /health`; what `/readyz` adds to it is in `admin`. The *phase from start to stop* is in
//! `handoff`, because workers, committer and inserters all read it. `drain` is in `server`: it is a
//! start without ports, and `commands` stands on no inserter.
//!
//! # Threads
//!
//! | thread | how many | never |
//! |---|---|---|
//! | worker | one a core, pinned where each has one | blocks, locks, allocates per event, touches disk or ClickHouse |
//! | committer | one | parses anything; makes, names or seals a file; waits for anything but its write, its sync, and the next segment |
//! | keeper | one | stands in the way of a commit: it has the next segment ready, and seals the full ones |
//! | inserter | `--inserters`, and as many spare ones for those whose INSERT is silent | sleeps on a block, or leaves none of them to the other tables |
//! | watcher | one, for all tables | touches an event; publishes what a table has become |
//! | delivery | one, until every server was asked about every table and has its quarantine | does more than make missing quarantine tables and say in the log what the tables promise |
//! | admin | one, one that samples once a second, one a request, and one for each who watches live | serves ingestion |
//! | survey | one for each server of `--clickhouse-url` | is waited for: `/stats` shows its last answers |
//! | systemd | one, where it started the server | does more than say what the server does, and that it is alive |
//! | main | one | does anything but start and stop the others |
//!
//! With `--engine may` the workers are that crate's threads, and one more thread wakes them for their
//! time-outs; what is said of workers holds for them too, but that a coroutine may wait, also for the
//! lock of what it shares with the others on its thread.
//!
//! Any thread's end is the process's end: a release is built with `panic = "abort"`.
//!
//! # Invariants
//!
//! 1. A 200 never leaves before its rows are durable ([`connection`], [`intake::outbox`]).
//! 2. Positions are contiguous, at commit and at replay ([`spool`]).
//! 3. A block's bytes, columns, types, row count and settings never change after it is sealed, and
//!    its token only when ClickHouse knows it and has not the rows ([`spool`],
//!    [`clickhouse::frozen::Frozen`]).
//! 4. A block leaves the spool only after ClickHouse has proven the insert ([`clickhouse::client`]).
//! 5. Recovered + committed = inserted + spooled + set aside, in events, at every moment
//!    ([`spool::LedgerSnapshot`]).
//! 6. A failed sync ends the process; it is never tried again and believed ([`spool`]).
//! 7. Nothing from a peer, the disk or ClickHouse reaches an `unwrap`, an index or an unbounded
//!    allocation (clippy denies the first two in the whole crate).
//! 8. What a client says about its own address or the server's time is never stored as such, unless the
//!    operator named its proxy, or mapped the column to a field ([`ndjson`]).
//! 9. One block of the spool is one block for ClickHouse ([`config::Settings::validate`]).
//!
//! # Absent on purpose
//!
//! No async runtime on the way of an event, no lock between worker and committer, no `dyn` per
//! line, no tree of a JSON document, no struct of an event: the table is the schema. No callee
//! imports its caller.

pub mod admin;
pub mod api;
pub mod batch;
pub mod clickhouse;
pub mod clock;
pub mod commands;
pub mod config;
pub mod connection;
#[cfg(feature = "engine-may")]
pub mod engine_may;
pub mod handoff;
pub mod http;
pub mod insert;
pub mod intake;
pub mod limits;
pub mod ndjson;
pub mod net;
pub mod quarantine;
pub mod rowbinary;
pub mod schema;
pub mod server;
pub mod spool;
pub mod worker;
