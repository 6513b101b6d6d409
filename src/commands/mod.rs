//! The commands of `sluicegate` besides `serve`, `drain` and `clickhouse`.

pub mod check;
pub mod quarantine;
pub mod requeue;
pub mod schema;
pub mod spool;
