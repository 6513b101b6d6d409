//! The report of a table's delivery guarantee, printed by `check` and logged at the start.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::TableConfig;
use super::arrival;
use super::client::{ClickHouse, ClientError};
use super::facts::{TableFacts, is_replicated};
use super::guarantee::{Guarantee, Level};
use super::horizon::{Horizon, Writers};
use super::name::TableName;
use super::tables;

/// Pause between two attempts to ask the servers that have not answered yet.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause between two tries to create a quarantine table that a server refuses to create.
const CREATE_AGAIN_MAX: Duration = Duration::from_secs(600);

/// What one server's table promises.
#[derive(Debug)]
pub struct Delivery {
    /// The table.
    pub table: TableName,
    /// The facts that the guarantee follows from.
    pub facts: TableFacts,
    /// The guarantee, and the statement that improves it.
    pub guarantee: Guarantee,
    /// The deduplication horizon; `None` if the table remembers no tokens.
    pub horizon: Option<Horizon>,
    /// Number of replicas; 0 if the table is not replicated.
    pub replicas: u64,
    /// Advice to use `insert_quorum`, if a table with several replicas is used without it.
    pub quorum: Option<&'static str>,
}

impl Delivery {
    /// Asks a server about a table; `None` if the server has no such table.
    ///
    /// # Errors
    ///
    /// If the server does not answer or refuses.
    pub fn ask(clickhouse: &ClickHouse, config: &TableConfig, table: &TableName) -> Result<Option<Self>, ClientError> {
        let Some(facts) = TableFacts::ask(clickhouse, table)? else { return Ok(None) };
        let replicas = replicas(clickhouse, table, &facts)?;
        let has_quorum = replicas < 2 || inserts_with_quorum(clickhouse, config)?;
        let quorum = (!has_quorum).then_some(
            "one replica confirms an INSERT, and rows that the other replicas have not copied yet are lost with its \
             disk; to prevent that: `--clickhouse-setting insert_quorum=2`",
        );
        let writers = Writers { nodes: config.writers.get() as u64 };
        let horizon = writers.horizon(&facts, config.batch_age, table);
        Ok(Some(Self { guarantee: facts.guarantee(table), table: table.clone(), facts, horizon, replicas, quorum }))
    }

    fn log(&self, url: &str) {
        let Guarantee { level, sentence, fix } = &self.guarantee;
        let (horizon, widen) = match &self.horizon {
            Some(horizon) => (Some(horizon.to_string()), horizon.widen.as_deref()),
            None => (None, None),
        };
        // `tracing` needs the log level at compile time, so there are two calls.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    url,
                    table = %self.table,
                    engine = self.facts.engine,
                    guarantee = %level,
                    reason = sentence,
                    to_fix_it = fix.as_deref(),
                    horizon = horizon.as_deref(),
                    to_widen_it = widen,
                    quorum = self.quorum,
                    "delivery guarantee of a table"
                )
            };
        }
        if *level == Level::ExactlyOnce { log!(info) } else { log!(warn) }
    }
}

/// One sentence per deduplication window that says which servers share it. `windows` are URLs, each
/// with the name of the server's window.
pub fn shared_windows(windows: &[(String, String)]) -> Vec<String> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (url, name) in windows {
        by_name.entry(name).or_default().push(url);
    }
    let sentences = by_name.into_iter().map(|(name, urls)| match urls.as_slice() {
        [url] => {
            format!(
                "{url} shares its deduplication window `{name}` with no other server: an INSERT without an answer is \
                 repeated only there"
            )
        }
        _ => format!(
            "{} share the deduplication window `{name}`: an INSERT without an answer is repeated on any of them",
            urls.join(" and ")
        ),
    });
    sentences.collect()
}

/// Makes the quarantine tables where a server has a table without its quarantine, and says in the log what
/// each server's tables promise, as soon as it answers: the start does not wait for it.
///
/// # Errors
///
/// If the thread can't be started.
pub fn log_at_start(servers: Vec<ClickHouse>, tables: Vec<TableConfig>) -> std::io::Result<()> {
    thread::Builder::new().name("delivery".into()).spawn(move || {
        let mut windows = Vec::new();
        let mut left: Vec<Unlogged<'_>> = servers.iter().map(|server| Unlogged::new(server, &tables)).collect();
        let (mut pause, mut is_said) = (RETRY_PAUSE, servers.len() < 2);
        loop {
            left.retain_mut(|server| server.ask(&mut windows));
            let is_silent = left.iter().any(|server| !server.has_answered);
            if !is_said && left.iter().all(|server| server.unlogged.is_empty()) {
                shared_windows(&windows).iter().for_each(|sentence| tracing::info!("{sentence}"));
                is_said = true;
            }
            if left.is_empty() {
                return;
            }
            // A server that has answered lacks a table, or refuses to create one.
            pause = if is_silent { RETRY_PAUSE } else { pause };
            thread::sleep(pause);
            pause = CREATE_AGAIN_MAX.min(pause * 2);
        }
    })?;
    Ok(())
}

/// A server, and what is still to be created and said of its tables.
struct Unlogged<'a> {
    server: &'a ClickHouse,
    /// Tables whose quarantine may be missing.
    uncreated: Vec<&'a TableConfig>,
    /// Tables whose guarantee was not said.
    unlogged: Vec<&'a TableConfig>,
    /// True once the log says whether the settings of an INSERT arrive.
    has_answered: bool,
    is_first: bool,
}

impl<'a> Unlogged<'a> {
    fn new(server: &'a ClickHouse, tables: &'a [TableConfig]) -> Self {
        Self {
            server,
            uncreated: tables.iter().filter(|table| table.create).collect(),
            unlogged: tables.iter().collect(),
            has_answered: false,
            is_first: true,
        }
    }

    /// Creates and says what is possible now. True while something is left.
    fn ask(&mut self, windows: &mut Vec<(String, String)>) -> bool {
        if let Err(error) = self.try_ask(windows) {
            tracing::debug!(url = self.server.url(), %error, "the delivery guarantee of the server's tables is not known yet");
        }
        !self.uncreated.is_empty() || !self.unlogged.is_empty()
    }

    fn try_ask(&mut self, windows: &mut Vec<(String, String)>) -> Result<(), ClientError> {
        let Self { server, is_first, .. } = *self;
        self.create_quarantines()?;
        if let Some(config) = self.unlogged.first().filter(|_| !self.has_answered) {
            log_settings(server, config)?;
            self.has_answered = true;
        }
        let (mut outcome, mut unanswered) = (Ok(()), None);
        self.unlogged.retain(|config| {
            if outcome.is_err() {
                return true;
            }
            match log_tables(server, config, is_first) {
                Ok(Some(window)) => {
                    windows.push((server.url().to_owned(), window));
                    false
                }
                // It may come later.
                Ok(None) => true,
                Err(error) => {
                    (outcome, unanswered) = (Err(error), Some(*config));
                    true
                }
            }
        });
        ask_last(&mut self.unlogged, unanswered);
        self.is_first &= outcome.is_err();
        outcome
    }

    /// Creates the quarantine tables that are missing, and keeps those that are not there yet. A refusal may
    /// pass: a replica without ZooKeeper refuses for a while.
    fn create_quarantines(&mut self) -> Result<(), ClientError> {
        let Self { server, is_first, .. } = *self;
        let (mut no_answer, mut unanswered) = (None, None);
        self.uncreated.retain(|config| {
            if no_answer.is_some() {
                return true;
            }
            match tables::create_missing_quarantine(server, &config.name) {
                Ok(()) => false,
                Err(error) if error.is_no_answer() => {
                    (no_answer, unanswered) = (Some(error), Some(*config));
                    true
                }
                Err(error) => {
                    if is_first {
                        tables::say_not_created(server, &config.name, &error);
                    }
                    true
                }
            }
        });
        ask_last(&mut self.uncreated, unanswered);
        no_answer.map_or(Ok(()), Err)
    }
}

/// Puts the table that there was no answer about behind the others, which something that locks it does not concern.
fn ask_last<'a>(tables: &mut [&'a TableConfig], unanswered: Option<&'a TableConfig>) {
    tables.sort_by_key(|table| unanswered.is_some_and(|unanswered| std::ptr::eq(unanswered, *table)));
}

/// Says in the log whether the settings of an INSERT arrive.
fn log_settings(server: &ClickHouse, config: &TableConfig) -> Result<(), ClientError> {
    match arrival::check(server, config) {
        Ok(None) => {}
        Ok(Some(altered)) => tracing::error!(url = server.url(), "{altered}"),
        Err(error) if error.is_no_answer() => return Err(error),
        Err(error) => tracing::error!(url = server.url(), %error, "the settings of an INSERT can't be sent"),
    }
    Ok(())
}

/// Returns the name of the target table's window; `None` if the server has no such table.
fn log_tables(server: &ClickHouse, config: &TableConfig, says_missing: bool) -> Result<Option<String>, ClientError> {
    let (name, quarantine) = (&config.name, config.name.quarantine());
    let target = Delivery::ask(server, config, name)?;
    if target.is_none() && !says_missing {
        return Ok(None);
    }
    let lines = Delivery::ask(server, config, &quarantine)?;
    for (table, delivery) in [(name, &target), (&quarantine, &lines)] {
        match delivery {
            Some(delivery) => delivery.log(server.url()),
            None => tracing::warn!(url = server.url(), %table, "a table is missing; its rows wait in the spool"),
        }
    }
    Ok(target.map(|delivery| delivery.facts.window_name))
}

fn replicas(clickhouse: &ClickHouse, name: &TableName, facts: &TableFacts) -> Result<u64, ClientError> {
    if !is_replicated(&facts.engine) {
        return Ok(0);
    }
    let statement =
        "SELECT total_replicas FROM system.replicas WHERE database = {database:String} AND table = {table:String}";
    let answer = clickhouse.query(statement, &[("param_database", &name.database), ("param_table", &name.table)])?;
    Ok(answer.trim().parse().unwrap_or(0))
}

/// True if `insert_quorum`, from the configuration or else the server's default, asks for more than
/// one replica.
fn inserts_with_quorum(clickhouse: &ClickHouse, config: &TableConfig) -> Result<bool, ClientError> {
    let sent = config.insert_settings.iter().find(|setting| setting.name == "insert_quorum");
    let value = match sent {
        Some(setting) => setting.value.clone(),
        None => clickhouse.query("SELECT value FROM system.settings WHERE name = 'insert_quorum'", &[])?,
    };
    Ok(!matches!(value.trim(), "" | "0" | "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_grouped_by_their_window() {
        let windows = [("http://a", "k:/t"), ("http://b", "s u"), ("http://c", "k:/t")];
        let windows = windows.map(|(url, name)| (url.to_owned(), name.to_owned()));
        let sentences = shared_windows(&windows);
        assert_eq!(sentences.len(), 2);
        assert!(sentences[0].starts_with("http://a and http://c share"), "{sentences:?}");
        assert!(sentences[1].starts_with("http://b shares its") && sentences[1].contains("`s u`"), "{sentences:?}");
    }
}
