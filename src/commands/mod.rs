//! What `sluicegate` does besides serving: looking at what it would do, and at what waits.

pub mod check;
pub mod quarantine;
pub mod requeue;
pub mod schema;
pub mod spool;
