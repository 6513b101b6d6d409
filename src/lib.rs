//! Sluicegate: an HTTP server, one pinned thread per core, that takes NDJSON events, enriches
//! them, turns each straight into a ClickHouse RowBinary row, makes it durable in one shared log,
//! answers, and inserts every row into ClickHouse exactly once.
//!
//! # The way of an event: bytes go forward, positions come back
//!
//! ```text
//! socket ─▶ head ─▶ body ─▶ line ─▶ row ─▶ batch ═lock-free═▶ frame ─▶ segment ═lock-free═▶ INSERT ─▶ ClickHouse
//! └───────────── worker k, pinned to core k ──────────┘        └── committer ──┘             └ inserter i ┘
//!      ▲ reply                                                       │ outcome of the batch     │ segment inserted
//!      └───────────────◀── released when the batch is durable ───────┴──────────────────────────┘
//! ```
//!
//! A batch itself comes back to its worker, empty again, with what became of it; no other message
//! is needed to release the replies that wait for it.
//!
//! # Rooms, in reading order
//!
//! | room | what happens there |
//! |---|---|
//! | [`cpu`], [`cli`], [`config`], [`limits`] | does the processor fit; flags, environment and file → one checked [`config::Settings`]; every other maximum |
//! | [`server`], [`startup`], [`engine`] | the start in its order, the stop in the opposite one; what a start fails with; which HTTP loop serves |
//! | [`listener`], [`worker`], [`slot`], [`outbox`], [`in_flight`] | sockets of a worker; its event loop; a connection's socket and buffers; its batches under way; the budget of both |
//! | [`connection`] | one connection's state machine, without a socket |
//! | `engine_may` | the same api served by `may_minihttp`, in a build with the feature `engine-may` |
//! | [`http`] | framing, without I/O: head, chunks, response |
//! | [`api`] | routes → replies |
//! | [`schema`], [`ndjson`], [`rowbinary`] | the table's columns as a plan, which may change; lines → rows; primitive encoders |
//! | [`identity`] | what tells a repeat of a request or an event |
//! | [`batch`], [`handoff`] | what one worker hands over at once; where threads meet |
//! | [`spool`] | frames, segments, the committer, what was taken lately, recovery |
//! | [`insert`] | segments → proven rows in ClickHouse |
//! | [`figures`], [`health`], [`admin`] | what is counted; would an event be taken; the admin address |
//! | [`embedded`] | ClickHouse as a child process |
//! | [`commands`] | what `check`, `schema`, `drain`, `spool` and `quarantine` do |
//!
//! # Threads
//!
//! | thread | how many | never |
//! |---|---|---|
//! | worker | one a core, pinned | blocks, locks, allocates per event, touches disk or ClickHouse |
//! | committer | one | parses anything |
//! | inserter | a few | sleeps on a segment |
//! | watcher | one | touches an event; publishes what the table has become |
//! | admin | one, one that looks once a second, and one a request | serves ingestion |
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
//! 1. A 200 never leaves before its rows are durable ([`connection`], [`outbox`]).
//! 2. Positions are contiguous, at commit and at replay ([`spool`]).
//! 3. A segment's bytes, columns, types, row count and settings never change after it is sealed, and
//!    its token only when ClickHouse knows it and has not the rows ([`spool`],
//!    [`insert::target::Frozen`]).
//! 4. A segment is deleted only after ClickHouse has proven the insert ([`insert::client`]).
//! 5. Recovered + committed = inserted + spooled + set aside, in events, at every moment
//!    ([`spool::LedgerSnapshot`]).
//! 6. A failed sync ends the process; it is never tried again and believed ([`spool`]).
//! 7. Nothing from a peer, the disk or ClickHouse reaches an `unwrap`, an index or an unbounded
//!    allocation (clippy denies the first two in the whole crate).
//! 8. What a client says about its own address or the server's time is never stored as such
//!    ([`ndjson`]).
//! 9. One segment is one block for ClickHouse ([`config::Settings::validate`]).
//!
//! # Absent on purpose
//!
//! No async runtime on the way of an event, no lock between worker and committer, no `dyn` per
//! line, no tree of a JSON document, no struct of an event: the table is the schema. No callee
//! imports its caller.

pub mod admin;
pub mod api;
pub mod batch;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connection;
pub mod cpu;
pub mod embedded;
pub mod engine;
#[cfg(feature = "engine-may")]
pub mod engine_may;
pub mod figures;
pub mod handoff;
pub mod health;
pub mod http;
pub mod identity;
pub mod in_flight;
pub mod insert;
pub mod limits;
pub mod listener;
pub mod ndjson;
pub mod outbox;
pub mod rowbinary;
pub mod schema;
pub mod server;
pub mod slot;
pub mod spool;
pub mod startup;
pub mod worker;
