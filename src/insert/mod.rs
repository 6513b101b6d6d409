//! From a sealed segment to proven rows in ClickHouse.
//!
//! ```text
//! committer ── sealed segment ──▶ due ──▶ inserter i ──▶ stream ──▶ ClickHouse
//!                                  ▲          │ outcome
//!                                  └── later ─┘ (back-off; nothing is ever dropped)
//! ```
//!
//! One segment is one INSERT of one block, under a token that names its bytes; so an attempt whose
//! outcome is unknown is simply made again; what its success proves after a restart of ClickHouse is
//! said in `presence`. A segment leaves the spool only after ClickHouse has
//! proven the insert (invariant 4).
//!
//! How its rows are sent is said in `native` and `compression`; to ClickHouse it is one and the same
//! block.
//!
//! Beside them [`watch`] looks whether the table is still what events are encoded for.

pub mod client;
mod compression;
mod cutting;
mod damage;
pub mod delivery;
pub mod due;
mod failure;
pub mod figures;
pub mod guarantee;
pub mod horizon;
pub mod inserter;
mod look;
mod native;
pub mod outcome;
mod presence;
pub mod rows;
pub mod servers;
mod statement;
pub mod stream;
pub mod tables;
pub mod target;
pub mod watch;
