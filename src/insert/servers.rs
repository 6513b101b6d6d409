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
use super::tables;

/// How long what a server said about a table is believed.
const FACTS_AGE_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub struct Servers {
    all: Vec<Server>,
    database: String,
    preferred: AtomicUsize,
}

struct Server {
    clickhouse: ClickHouse,
    facts: Mutex<HashMap<String, (Instant, TableFacts)>>,
}

impl Servers {
    /// These servers, the first one preferred.
    pub fn new(all: Vec<ClickHouse>, database: String) -> Self {
        let all = all.into_iter().map(|clickhouse| Server { clickhouse, facts: Mutex::default() }).collect();
        Self { all, database, preferred: AtomicUsize::new(0) }
    }

    /// The places of all servers, the one that answered last first.
    pub fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (preferred, count) = (self.preferred.load(Relaxed), self.all.len());
        (0..count).map(move |turn| (preferred + turn) % count)
    }

    /// The server of a place.
    pub fn get(&self, place: usize) -> Option<&ClickHouse> {
        self.all.get(place).map(|server| &server.clickhouse)
    }

    /// What the server of a place says about a table, asked again after a while.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal; also when there is no such table: nothing is sent to it then, so that
    /// nobody has to wonder later whether it was stored there.
    pub fn facts(&self, place: usize, table: &str) -> Result<TableFacts, ClientError> {
        let Some(server) = self.all.get(place) else {
            return Err(ClientError::NoConnection("there is no such server".to_owned()));
        };
        let cache = || server.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, facts)) = cache().get(table)
            && asked.elapsed() < FACTS_AGE_MAX
        {
            return Ok(facts.clone());
        }
        let facts = TableFacts::ask(&server.clickhouse, &self.database, table)?.ok_or_else(|| {
            let message = format!("Code: 60. There is no table {}", tables::quoted(&self.database, table));
            ClientError::Refused { status: 404, code: Some(60), message }
        })?;
        cache().insert(table.to_owned(), (Instant::now(), facts.clone()));
        Ok(facts)
    }

    /// The server of a place failed: others come first, and what it said is asked again.
    pub fn failed(&self, place: usize) {
        if let Some(server) = self.all.get(place) {
            server.facts.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let next = (place + 1) % self.all.len();
            let _ = self.preferred.compare_exchange(place, next, Relaxed, Relaxed);
        }
    }
}
