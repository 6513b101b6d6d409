//! What both engines share: the path of a request from its connection to a batch, and of the batch's
//! outcome back to the replies.
//!
//! | file | |
//! |---|---|
//! | `context` | serves one request: route, encode, join the batch |
//! | `outbox` | a worker's batches: filling, under way, spare |
//! | `settle` | what a batch's outcome means for its replies |
//! | `awaiting` | replies that wait for ClickHouse's proof (`ack=inserted`) |
//! | `budget` | `--in-flight-bytes-max` |
//! | `health` | would an event be taken now |
//! | `metrics` | what each worker counts |

pub mod awaiting;
pub mod budget;
mod context;
pub mod health;
pub mod metrics;
pub mod outbox;
mod settle;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use context::RequestContext;
pub(crate) use settle::decide;

use crate::connection::RequestLimits;
use crate::handoff::{Handoff, Published};
use crate::schema::SchemaVersion;
use budget::ByteBudget;
use health::Health;

/// Time-outs of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// Between two requests, and for a peer that does not read its replies.
    pub idle: Duration,
    /// From a served request to the outcome of its commit.
    pub commit: Duration,
    /// From a commit to the proof of the insert, for `ack=inserted`.
    pub inserted: Duration,
}

/// What all workers share.
pub struct Shared {
    /// The way to the committer, and whether the server stops.
    pub handoff: Arc<Handoff>,
    /// Would an event be taken?
    pub health: Arc<Health>,
    /// What events are encoded for.
    pub schema: Arc<Published<SchemaVersion>>,
    /// The budget of buffers and batches.
    pub budget: Arc<ByteBudget>,
    /// `--connections-max`.
    pub connections_max: usize,
    /// Bounds of a request.
    pub request_limits: RequestLimits,
    /// Time-outs of connections.
    pub timeouts: Timeouts,
}
