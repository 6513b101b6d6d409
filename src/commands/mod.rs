//! The commands of `sluicegate` besides `serve`, `drain` and `clickhouse`.

pub mod check;
pub mod quarantine;
pub mod requeue;
mod running;
pub mod schema;
pub mod send;
pub mod spool;
pub mod suggest;
