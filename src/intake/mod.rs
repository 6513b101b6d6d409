//! The code that both engines share: the path of a request from its connection to a batch, and of the
//! batch's outcome back to the replies.
//!
//! | file | |
//! |---|---|
//! | `context` | serves one request: route, decode, encode, join the batch |
//! | `large` | requests that are decoded and encoded over several turns |
//! | `outbox` | a worker's batches: filling, under way, spare |
//! | `schemas` | the schema of each table, and how a worker follows it |
//! | `settle` | the effect of a batch's outcome on its replies |
//! | `awaiting` | replies that wait for ClickHouse's confirmation (`ack=inserted`) |
//! | `budget` | `--in-flight-bytes-max` |
//! | `hop` | who is in front of a connection: a client or a trusted proxy |
//! | `health` | whether events are accepted now |
//! | `live` | lines for those who watch what is accepted or rejected now |
//! | `metrics` | the counters of each worker |
//! | `quotas` | what events are charged to: rates by key, by address and by table |
//! | `addresses` | what is kept by client address: rates, connections |
//! | `replay` | rejected lines that an operator sends again |

pub mod addresses;
pub mod awaiting;
pub mod budget;
mod context;
pub mod health;
mod hop;
mod large;
pub mod live;
pub mod metrics;
pub mod outbox;
pub mod quotas;
pub mod replay;
mod schemas;
mod settle;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use context::RequestContext;
pub use hop::Hop;
pub(crate) use large::LargeRequests;
pub(crate) use schemas::SchemaFollower;
pub use schemas::Schemas;
pub(crate) use settle::{count, decide};

use crate::api::cors::Cors;
use crate::api::keys::Keys;
use crate::connection::RequestLimits;
use crate::handoff::{Handoff, Published};
use crate::net::TrustedProxies;
use crate::net::tls::TlsConfig;
use addresses::ConnectionsPerAddress;
use budget::ByteBudget;
use health::Health;
use live::Live;
use quotas::Quotas;

/// The time-outs of connections and requests.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// `--head-timeout`: from the first byte of a request to the end of its head.
    pub head: Duration,
    /// `--body-timeout`: between two reads of a body.
    pub body: Duration,
    /// Bytes a second: a whole body has the time above and its length at this rate.
    pub body_rate_min: u64,
    /// `--idle-timeout`: between two requests, and for a peer that does not read its replies.
    pub idle: Duration,
    /// `--commit-timeout`: from serving a request to the outcome of its commit.
    pub commit: Duration,
    /// `--inserted-timeout`: from a commit to the confirmation of its insert, for `ack=inserted`.
    pub inserted: Duration,
}

impl Timeouts {
    /// How long a connection waits for a reply to be ready, and for its peer to read a part of it.
    pub fn reply(&self) -> Duration {
        self.idle.max(self.commit * 2 + self.inserted)
    }

    /// How long a body of so many bytes may take from its head to its end.
    pub fn whole_body(&self, bytes: usize) -> Duration {
        self.body + Duration::from_millis((bytes as u64).saturating_mul(1000) / self.body_rate_min.max(1))
    }
}

/// The state that all workers share.
pub struct Shared {
    /// The exchange with the committer, and the lifecycle of the server.
    pub handoff: Arc<Handoff>,
    /// Whether events are accepted now.
    pub health: Arc<Health>,
    /// The schemas that events are encoded for.
    pub schemas: Arc<Schemas>,
    /// The keys that requests with events need.
    pub keys: Arc<Published<Keys>>,
    /// The rates that events are charged to.
    pub quotas: Quotas,
    /// The pages that may read replies.
    pub cors: Cors,
    /// `--connections-per-address-max`.
    pub connections_per_address: Option<Arc<ConnectionsPerAddress>>,
    /// Where lines go that somebody watches.
    pub live: Arc<Live>,
    /// The budget of buffers and batches.
    pub budget: Arc<ByteBudget>,
    /// `--connections-max`, or what the limit of open files allows.
    pub connections_max: usize,
    /// Limits of a request.
    pub request_limits: RequestLimits,
    /// Time-outs of connections.
    pub timeouts: Timeouts,
    /// `--trusted-proxy`.
    pub trusted: TrustedProxies,
    /// `--proxy-protocol`.
    pub proxy_protocol: bool,
    /// The certificates, if clients speak TLS.
    pub tls: Option<Arc<Published<TlsConfig>>>,
}

#[cfg(test)]
impl Shared {
    /// A state for tests: everyone may send, bodies have at most 8 MiB, and every time-out is a minute.
    pub(crate) fn of_tests(
        handoff: Arc<Handoff>,
        schemas: Vec<Option<crate::schema::SchemaVersion>>,
        budget: Arc<ByteBudget>,
    ) -> Self {
        let minute = Duration::from_secs(60);
        let health = Health::new(handoff.lifecycle.clone(), Arc::default(), minute);
        let tables = schemas.len();
        Self {
            health: Arc::new(health),
            handoff,
            schemas: Arc::new(Schemas::new(schemas)),
            keys: Arc::new(Published::new(Keys::open(None))),
            quotas: Quotas::new(Arc::new(crate::api::keys::Owners::new(1)), None),
            cors: Cors::default(),
            connections_per_address: None,
            live: Live::new(tables),
            budget,
            connections_max: 100,
            request_limits: RequestLimits {
                head: crate::http::HeadLimits { head_bytes_max: 1024, headers_max: 16 },
                body_bytes_max: 8 << 20,
                requests_max: None,
            },
            timeouts: Timeouts {
                head: minute,
                body: minute,
                body_rate_min: 8 << 10,
                idle: minute,
                commit: minute,
                inserted: minute,
            },
            trusted: TrustedProxies::default(),
            proxy_protocol: false,
            tls: None,
        }
    }
}
