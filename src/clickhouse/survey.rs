//! What the servers of `--clickhouse-url` say of themselves and of the tables, for `/stats`: whether each
//! answers, its version, and the delivery guarantee that each table has there.
//!
//! Each server is asked by a thread of its own, so that one that hangs delays nothing of the others, and
//! nobody waits for an answer: a page shows the last one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{ClickHouse, ClientError};
use super::facts::TableFacts;
use super::guarantee::Guarantee;
use super::name::TableName;
use crate::clock::monotonic_ms;

/// Pause between two questions to the same server.
const PAUSE: Duration = Duration::from_secs(5);

/// Time limit of one question.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Age at which a server is asked for the guarantees again while somebody looks at them, and what each table
/// adds to it, which takes a few questions.
const GUARANTEES_AGE: Duration = Duration::from_secs(5);
const TABLE_AGE: Duration = Duration::from_millis(200);

/// Somebody looks at the guarantees who did so within this time.
const LOOKED_AT_MS: u64 = 120_000;

/// Asks the servers, and keeps their last answers.
pub struct Survey {
    servers: Vec<Asked>,
    tables: Vec<TableName>,
    /// When somebody last looked, by [`monotonic_ms`]; 0 before.
    looked_ms: AtomicU64,
}

/// A server and its last answers.
struct Asked {
    clickhouse: ClickHouse,
    last: Mutex<ServerState>,
    /// By table; `None` where the server has no such table, or was not asked yet.
    guarantees: Mutex<Vec<Option<Guarantee>>>,
}

/// What is known of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerState {
    /// Whether it answered last time; `None` before the first time.
    pub answers: Option<bool>,
    /// Its version, as it said last.
    pub version: Option<String>,
    /// Why it does not answer, or refuses.
    pub error: Option<String>,
}

impl Survey {
    /// A survey of these servers and tables, in which nobody was asked yet.
    pub fn new(servers: &[ClickHouse], tables: Vec<TableName>) -> Arc<Self> {
        let asked = |clickhouse: &ClickHouse| Asked {
            clickhouse: clickhouse.within(QUERY_TIMEOUT),
            last: Mutex::default(),
            guarantees: Mutex::new(vec![None; tables.len()]),
        };
        Arc::new(Self { servers: servers.iter().map(asked).collect(), tables, looked_ms: AtomicU64::new(0) })
    }

    /// Starts a thread for each server, which asks it until the process ends.
    ///
    /// # Errors
    ///
    /// If a thread can't be started.
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        for place in 0..self.servers.len() {
            let survey = self.clone();
            thread::Builder::new().name(format!("survey-{place}")).spawn(move || survey.run(place))?;
        }
        Ok(())
    }

    /// The servers, each with its URL and what is known of it.
    pub fn servers(&self) -> Vec<(String, ServerState)> {
        self.servers.iter().map(|server| (server.clickhouse.url().to_owned(), lock(&server.last).clone())).collect()
    }

    /// The lowest guarantee that each table has on a server that has the table; `None` where none is known.
    pub fn guarantees(&self) -> Vec<Option<Guarantee>> {
        self.looked_ms.store(monotonic_ms(), Relaxed);
        let mut lowest = vec![None; self.tables.len()];
        for server in &self.servers {
            lowest.iter_mut().zip(&*lock(&server.guarantees)).for_each(|(lowest, found)| lower(lowest, found.as_ref()));
        }
        lowest
    }

    fn run(&self, place: usize) {
        let Some(server) = self.servers.get(place) else { return };
        let mut asked: Option<Instant> = None;
        let tables = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        let age_max = GUARANTEES_AGE.saturating_add(TABLE_AGE.saturating_mul(tables));
        loop {
            let answer = server.clickhouse.query("SELECT version()", &[]);
            let answers = answer.is_ok();
            server.note(answer);
            let is_due = asked.is_none_or(|asked| asked.elapsed() >= age_max && self.is_looked_at());
            // A table that is not there yet is asked about each time.
            if answers && server.ask_guarantees(&self.tables, !is_due) && is_due {
                asked = Some(Instant::now());
            }
            thread::sleep(PAUSE);
        }
    }

    fn is_looked_at(&self) -> bool {
        let looked = self.looked_ms.load(Relaxed);
        looked != 0 && monotonic_ms().saturating_sub(looked) < LOOKED_AT_MS
    }
}

impl Asked {
    fn note(&self, answer: Result<String, ClientError>) {
        let mut last = lock(&self.last);
        match answer {
            Ok(version) => {
                *last = ServerState { answers: Some(true), version: Some(version.trim().to_owned()), error: None };
            }
            Err(error) => (last.answers, last.error) = (Some(false), Some(error.to_string())),
        }
    }

    /// Asks for the guarantees of all tables, or only for those that are not known. False if the server stopped
    /// answering.
    fn ask_guarantees(&self, tables: &[TableName], only_unknown: bool) -> bool {
        let is_known = |place: usize| lock(&self.guarantees).get(place).is_some_and(Option::is_some);
        for (place, table) in tables.iter().enumerate().filter(|(place, _)| !only_unknown || !is_known(*place)) {
            let found = match TableFacts::ask(&self.clickhouse, table) {
                Ok(facts) => facts.map(|facts| facts.guarantee(table)),
                Err(error) if error.is_no_answer() => return false,
                Err(_) => None,
            };
            if let Some(guarantee) = lock(&self.guarantees).get_mut(place) {
                *guarantee = found;
            }
        }
        true
    }
}

/// Keeps the lower one of two guarantees.
fn lower(lowest: &mut Option<Guarantee>, found: Option<&Guarantee>) {
    if let Some(found) = found
        && lowest.as_ref().is_none_or(|lowest| found.level > lowest.level)
    {
        *lowest = Some(found.clone());
    }
}

// Each change replaces a whole value, so a poisoned one is still consistent.
fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::guarantee::Level;

    #[test]
    fn of_several_servers_the_lowest_guarantee_counts() {
        let guarantee = |level| Guarantee { level, sentence: "", fix: None };
        let mut lowest = None;
        lower(&mut lowest, None);
        assert_eq!(lowest, None);
        for (level, expected) in [
            (Level::ExactlyOnce, Level::ExactlyOnce),
            (Level::AtLeastOnce, Level::AtLeastOnce),
            (Level::ExactlyOnce, Level::AtLeastOnce),
            (Level::Unfit, Level::Unfit),
            (Level::None, Level::Unfit),
        ] {
            lower(&mut lowest, Some(&guarantee(level)));
            assert_eq!(lowest.as_ref().map(|lowest| lowest.level), Some(expected));
        }
    }
}
