//! The servers of `--clickhouse-url`, and which of them share a deduplication window.
//!
//! A token is recognised only where it was seen. Replicas of one Replicated table share what they
//! have seen; two plain MergeTree tables on two servers share nothing, even under one name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::{ClickHouse, ClientError};
use super::guarantee::TableFacts;
use super::name::TableName;

/// How long what a server said about a table is believed.
const FACTS_AGE_MAX: Duration = Duration::from_secs(60);

/// The servers that INSERTs may go to, and what each said about its tables.
pub struct Servers {
    all: Vec<Server>,
    preferred: AtomicUsize,
}

/// Which server of `--clickhouse-url`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerIndex(usize);

struct Server {
    clickhouse: ClickHouse,
    facts: Mutex<HashMap<TableName, (Instant, TableFacts)>>,
}

impl Servers {
    /// These servers, the first one preferred.
    pub fn new(all: Vec<ClickHouse>) -> Self {
        let all = all.into_iter().map(|clickhouse| Server { clickhouse, facts: Mutex::default() }).collect();
        Self { all, preferred: AtomicUsize::new(0) }
    }

    /// The indices of all servers, the one that answered last first.
    pub fn in_turn(&self) -> impl Iterator<Item = ServerIndex> + use<> {
        let (preferred, count) = (self.preferred.load(Relaxed), self.all.len());
        (0..count).map(move |turn| ServerIndex((preferred + turn) % count))
    }

    /// The server of an index.
    pub fn get(&self, index: ServerIndex) -> Option<&ClickHouse> {
        self.all.get(index.0).map(|server| &server.clickhouse)
    }

    /// What the server of an index says about a table, asked again after a while.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal; also when there is no such table: nothing is sent to it then, so that
    /// nobody has to wonder later whether it was stored there.
    pub fn facts(&self, index: ServerIndex, table: &TableName) -> Result<TableFacts, ClientError> {
        let Some(server) = self.all.get(index.0) else {
            return Err(ClientError::NoConnection("there is no such server".to_owned()));
        };
        let cache = || server.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, facts)) = cache().get(table)
            && asked.elapsed() < FACTS_AGE_MAX
        {
            return Ok(facts.clone());
        }
        let facts = TableFacts::ask(&server.clickhouse, table)?.ok_or_else(|| {
            let message = format!("Code: 60. There is no table {table}");
            ClientError::Refused { status: 404, code: Some(60), message }
        })?;
        cache().insert(table.clone(), (Instant::now(), facts.clone()));
        Ok(facts)
    }

    /// The server of an index failed: others come first, and what it said is asked again.
    pub fn failed(&self, index: ServerIndex) {
        if let Some(server) = self.all.get(index.0) {
            server.facts.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let next = (index.0 + 1) % self.all.len();
            let _ = self.preferred.compare_exchange(index.0, next, Relaxed, Relaxed);
        }
    }
}
