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

/// Tables that a line of the log names, and tables that have a line each.
const NAMED_MAX: usize = 20;

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

    /// Says what a table promises that promises less than it could.
    fn warn(&self, url: &str) {
        let Guarantee { level, sentence, fix } = &self.guarantee;
        tracing::warn!(
            url,
            table = %self.table,
            engine = self.facts.engine,
            guarantee = %level,
            reason = sentence,
            to_fix_it = fix.as_deref(),
            "a table promises less than exactly once"
        );
    }
}

/// Says what the tables of a server promise: one line for all that keep what they can, then one for each other,
/// and at most [`NAMED_MAX`] of these.
fn log_deliveries(url: &str, deliveries: &[Delivery]) {
    let (whole, less): (Vec<&Delivery>, Vec<&Delivery>) =
        deliveries.iter().partition(|delivery| delivery.guarantee.level == Level::ExactlyOnce);
    if !whole.is_empty() {
        let shortest =
            whole.iter().filter_map(|delivery| delivery.horizon.as_ref()).min_by_key(|horizon| horizon.duration);
        tracing::info!(
            url,
            tables = listed(whole.iter().map(|delivery| &delivery.table)),
            guarantee = %Level::ExactlyOnce,
            horizon = shortest.map(ToString::to_string),
            "what tables promise"
        );
    }
    for delivery in less.iter().take(NAMED_MAX) {
        delivery.warn(url);
    }
    if let Some(more) = less.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        tracing::warn!(url, more, "as many tables more promise less than exactly once; `sluicegate check` names them");
    }
    let without_quorum = deliveries.iter().filter(|delivery| delivery.quorum.is_some());
    if let Some(quorum) = without_quorum.clone().find_map(|delivery| delivery.quorum) {
        tracing::warn!(url, tables = listed(without_quorum.map(|delivery| &delivery.table)), "{quorum}");
    }
}

/// The first names of tables, and how many more there are.
fn listed<'a>(tables: impl Iterator<Item = &'a TableName>) -> String {
    let tables: Vec<&TableName> = tables.collect();
    let mut text = tables.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more) = tables.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
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
        let mut left: Vec<Unlogged<'_>> =
            servers.iter().map(|server| Unlogged::new(server, &tables, servers.len() < 2)).collect();
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
    uncreated: Vec<Uncreated<'a>>,
    /// Tables whose guarantee was not said.
    unlogged: Vec<&'a TableConfig>,
    /// True once the log says whether the settings of an INSERT arrive.
    has_answered: bool,
    is_first: bool,
    /// True for the only server.
    is_alone: bool,
}

/// A table whose quarantine may be missing.
struct Uncreated<'a> {
    config: &'a TableConfig,
    /// The refusal that the log has; ClickHouse's error code, if it has one.
    said: Option<Option<u32>>,
}

impl<'a> Unlogged<'a> {
    fn new(server: &'a ClickHouse, tables: &'a [TableConfig], is_alone: bool) -> Self {
        Self {
            server,
            uncreated: tables
                .iter()
                .filter(|table| table.create)
                .map(|config| Uncreated { config, said: None })
                .collect(),
            unlogged: tables.iter().collect(),
            has_answered: false,
            is_first: true,
            is_alone,
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
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        self.unlogged.retain(|config| {
            if outcome.is_err() {
                return true;
            }
            match ask_about(server, config, &mut found, &mut missing) {
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
        ask_last(&mut self.unlogged, |config| config, unanswered);
        log_deliveries(server.url(), &found);
        // The only server that lacks a table has said so to those who look for its columns.
        if is_first && !missing.is_empty() && !self.is_alone {
            let tables = listed(missing.iter());
            tracing::warn!(
                url = server.url(),
                tables,
                "this server lacks tables; their rows go to the others, or wait in the spool"
            );
        }
        self.is_first &= outcome.is_err();
        outcome
    }

    /// Creates the quarantine tables that are missing, and keeps those that are not there yet. A refusal may
    /// pass: a replica without ZooKeeper refuses for a while.
    fn create_quarantines(&mut self) -> Result<(), ClientError> {
        let server = self.server;
        let (mut no_answer, mut unanswered) = (None, None);
        self.uncreated.retain_mut(|Uncreated { config, said }| {
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
                    let code = error.code();
                    // Without its table it is not looked for, and that the table is missing is said elsewhere.
                    if *said != Some(code) && tables::exists(server, &config.name).unwrap_or(true) {
                        tables::say_not_created(server, &config.name, &error);
                        *said = Some(code);
                    }
                    true
                }
            }
        });
        ask_last(&mut self.uncreated, |table| table.config, unanswered);
        no_answer.map_or(Ok(()), Err)
    }
}

/// Puts the table that there was no answer about behind the others, which something that locks it does not concern.
fn ask_last<'a, T>(tables: &mut [T], config: impl Fn(&T) -> &'a TableConfig, unanswered: Option<&'a TableConfig>) {
    tables.sort_by_key(|table| unanswered.is_some_and(|unanswered| std::ptr::eq(unanswered, config(table))));
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

/// Asks about a table and its quarantine, and adds what they promise to `found`. Returns the name of the table's
/// window; `None` if the server has no such table, which is added to `missing`.
fn ask_about(
    server: &ClickHouse,
    config: &TableConfig,
    found: &mut Vec<Delivery>,
    missing: &mut Vec<TableName>,
) -> Result<Option<String>, ClientError> {
    let Some(target) = Delivery::ask(server, config, &config.name)? else {
        missing.push(config.name.clone());
        return Ok(None);
    };
    let quarantine = config.name.quarantine();
    let lines = Delivery::ask(server, config, &quarantine)?;
    if lines.is_none() && !config.create {
        tracing::warn!(url = server.url(), table = %quarantine, "a quarantine table is missing; rejected lines wait in the spool");
    }
    let window = target.facts.window_name.clone();
    found.push(target);
    // One that keeps its promise as well is not worth a name.
    found.extend(lines.filter(|delivery| delivery.guarantee.level != Level::ExactlyOnce));
    Ok(Some(window))
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
    fn a_line_names_so_many_tables_and_counts_the_others() {
        let names = |count: usize| (0..count).map(|n| TableName::new("d", &format!("t{n}"))).collect::<Vec<_>>();
        assert_eq!(listed(names(0).iter()), "");
        assert_eq!(listed(names(2).iter()), "`d`.`t0`, `d`.`t1`");
        assert!(listed(names(NAMED_MAX).iter()).ends_with("`d`.`t19`"));
        assert!(listed(names(NAMED_MAX + 3).iter()).ends_with("`d`.`t19` and 3 more"));
    }

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
