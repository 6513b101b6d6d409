//! The servers of `--clickhouse-url`, and which of them share a deduplication window.
//!
//! A server recognises only the tokens in its own deduplication window. The replicas of a Replicated
//! table share one window. Plain MergeTree tables on two servers have separate windows, even under
//! the same name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::arrival::{Altered, altered};
use super::client::{ClickHouse, ClientError};
use super::description::known_settings;
use super::facts::TableFacts;
use super::name::TableName;
use super::settings::{self, ClickHouseSetting};

/// How long the facts about a table are cached.
const FACTS_AGE_MAX: Duration = Duration::from_secs(60);

/// The servers that INSERTs may go to, each with the cached facts about its tables.
pub struct Servers {
    all: Vec<Server>,
    /// The settings of `--clickhouse-setting`.
    settings: Vec<ClickHouseSetting>,
    preferred: AtomicUsize,
}

/// The index of a server in the list of `--clickhouse-url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerIndex(usize);

/// A server and the cached facts about its tables.
struct Server {
    clickhouse: ClickHouse,
    facts: Mutex<HashMap<TableName, (Instant, TableFacts)>>,
    /// The last check of the settings of INSERTs.
    settings: Mutex<Option<CheckedSettings>>,
}

/// The result of checking that the settings of INSERTs arrive at a server.
struct CheckedSettings {
    when: Instant,
    /// The names of the settings that the server knows.
    known: Arc<HashSet<String>>,
    /// The settings that were sent.
    sent: BTreeMap<String, String>,
    /// A setting that did not arrive unchanged.
    altered: Option<Altered>,
}

impl Servers {
    /// Creates the list; the first server is preferred. `settings` are the operator's for INSERTs.
    pub fn new(all: Vec<ClickHouse>, settings: Vec<ClickHouseSetting>) -> Self {
        let server = |clickhouse| Server { clickhouse, facts: Mutex::default(), settings: Mutex::default() };
        Self { all: all.into_iter().map(server).collect(), settings, preferred: AtomicUsize::new(0) }
    }

    /// The indices of all servers, the preferred one first.
    pub fn in_turn(&self) -> impl Iterator<Item = ServerIndex> + use<> {
        let (preferred, count) = (self.preferred.load(Relaxed), self.all.len());
        (0..count).map(move |turn| ServerIndex((preferred + turn) % count))
    }

    /// The server with this index.
    pub fn get(&self, index: ServerIndex) -> Option<&ClickHouse> {
        self.all.get(index.0).map(|server| &server.clickhouse)
    }

    /// The facts of a server about a table, at most [`FACTS_AGE_MAX`] old.
    ///
    /// # Errors
    ///
    /// If the server does not answer or refuses, or has no such table. The caller must not send an
    /// INSERT then, so that no attempt with an unknown outcome arises.
    pub fn facts(&self, index: ServerIndex, table: &TableName) -> Result<TableFacts, ClientError> {
        let server = self.server(index)?;
        if let Some((asked, facts)) = lock(&server.facts).get(table)
            && asked.elapsed() < FACTS_AGE_MAX
        {
            return Ok(facts.clone());
        }
        self.fresh_facts(index, table)
    }

    /// The current facts of a server about a table, without the cache: the name may have passed to
    /// another table since.
    ///
    /// # Errors
    ///
    /// See [`Servers::facts`].
    pub fn fresh_facts(&self, index: ServerIndex, table: &TableName) -> Result<TableFacts, ClientError> {
        let server = self.server(index)?;
        let facts = TableFacts::ask(&server.clickhouse, table)?.ok_or_else(|| {
            let message = format!("Code: 60. There is no table {table}");
            ClientError::Refused { status: 404, code: Some(60), message }
        })?;
        lock(&server.facts).insert(table.clone(), (Instant::now(), facts.clone()));
        Ok(facts)
    }

    /// The settings of an INSERT to a server, checked to arrive unchanged. `frozen` are those that were
    /// fixed with the block.
    ///
    /// # Errors
    ///
    /// If the server does not answer or refuses, or a setting does not arrive unchanged.
    pub fn insert_settings(
        &self,
        index: ServerIndex,
        frozen: &BTreeMap<String, String>,
        token: &str,
    ) -> Result<BTreeMap<String, String>, SettingsError> {
        let server = self.server(index)?;
        let mut checked = lock(&server.settings);
        let known = match &*checked {
            Some(checked) if checked.when.elapsed() < FACTS_AGE_MAX => checked.known.clone(),
            _ => Arc::new(known_settings(&server.clickhouse)?),
        };
        let sent = settings::to_send(frozen, &self.settings, &known);
        let is_fresh = |checked: &CheckedSettings| {
            checked.when.elapsed() < FACTS_AGE_MAX && checked.sent == sent && checked.altered.is_none()
        };
        if !checked.as_ref().is_some_and(is_fresh) {
            let altered = altered(&server.clickhouse, &sent, token)?;
            *checked = Some(CheckedSettings { when: Instant::now(), known, sent: sent.clone(), altered });
        }
        match checked.as_ref().and_then(|checked| checked.altered.clone()) {
            Some(altered) => Err(SettingsError::Altered(altered)),
            None => Ok(sent),
        }
    }

    /// Notes that a server failed: prefers the next one, and drops the cached answers of the failed one.
    pub fn failed(&self, index: ServerIndex) {
        if let Some(server) = self.all.get(index.0) {
            lock(&server.facts).clear();
            *lock(&server.settings) = None;
            let next = (index.0 + 1) % self.all.len();
            let _ = self.preferred.compare_exchange(index.0, next, Relaxed, Relaxed);
        }
    }

    fn server(&self, index: ServerIndex) -> Result<&Server, ClientError> {
        self.all.get(index.0).ok_or_else(|| ClientError::NoConnection("there is no such server".to_owned()))
    }
}

/// The reason why an INSERT can't be sent with its settings.
#[derive(Debug)]
pub enum SettingsError {
    /// The server does not answer, or refuses a setting or its value.
    Client(ClientError),
    /// A setting does not arrive unchanged.
    Altered(Altered),
}

impl From<ClientError> for SettingsError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

// Each change replaces a whole value, so a poisoned one is still consistent.
fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}
