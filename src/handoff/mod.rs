//! The exchange between threads: bounded lock-free queues, and wake-ups that make a system call only
//! when the other side sleeps.
//!
//! ```text
//! worker k ── batch ──▶ Handoff.submitted ──▶ committer
//! worker k ◀─ the same batch with its outcome ── Mailbox k ── committer
//! worker k ◀─ blocks that ClickHouse has confirmed ── Inserted ── inserter i
//! worker k ◀─ new connections, if it has fewer than worker j ── Mailbox k ── worker j
//! ```
//!
//! Each worker owns a fixed number of batches, and the queues have the capacity for all batches, so
//! a push of a batch never fails. A worker whose batches are all submitted stops reading from its
//! sockets, and TCP flow control slows the clients down.
//!
//! The module [`wakeup`] describes how a sleeping thread is woken.

mod exchange;
mod inserted;
mod lifecycle;
mod mailbox;
mod published;
mod submitted;
mod sync;
mod wakeup;

pub use exchange::Handoff;
pub use inserted::Inserted;
pub use lifecycle::Lifecycle;
pub use mailbox::{Arrival, Mailbox};
pub use published::{ListSubscription, Published, PublishedList, Subscription};

#[cfg(test)]
mod tests;
