//! `sluicegate quarantine replay`: sends the lines of the quarantine table to the running server again, through
//! its admin address. [`crate::clickhouse::quarantined`] makes sure that each is stored once.

use std::io::Write;
use std::time::Duration;

use serde::Deserialize;

use super::{missing, tables_of};
use crate::clickhouse::quarantined::{Filter, QuarantineError, QuarantineTable, Replay, Stored, Taker, Totals};
use crate::commands::running::RunningServer;
use crate::config::cli::ReplayArgs;
use crate::config::{ConfigError, TableSettings};

/// The path of the admin address that takes lines again.
const PATH: &str = "/quarantine/replay";

/// The server's error for a key that came before with other good lines.
const KEY_REUSED: &str = "idempotency_key_reused";

/// The most times that the server's clock is read, every 100 ms, until a second has passed.
const CLOCK_READS_MAX: u32 = 50;

/// Time limit for one request to the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the lines of the quarantine to the running server, and prints the result.
///
/// # Errors
///
/// If ClickHouse or the server does not answer, or the server does not acknowledge a request. Lines
/// that were acknowledged before are not sent again. Also if another node may have stored some of the
/// lines.
pub fn replay(arguments: &ReplayArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &arguments.settings;
    let filter = Filter { since: arguments.since.clone(), ..Filter::default() };
    let (selected, has_several) = (settings.selected_tables(), settings.tables().len() > 1);
    for table in &selected {
        let quarantines = match tables_of(settings, &table.name, &filter, out)? {
            Some(quarantines) => quarantines,
            None if selected.len() > 1 => {
                writeln!(out, "there is no table {}", table.name.quarantine())?;
                continue;
            }
            None => return Err(missing(&table.name)),
        };
        if has_several {
            writeln!(out, "table {}:", table.label)?;
        }
        replay_table(arguments, table, &filter, &quarantines, out)?;
    }
    Ok(())
}

fn replay_table(
    arguments: &ReplayArgs,
    table: &TableSettings,
    filter: &Filter,
    quarantines: &[QuarantineTable],
    out: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &arguments.settings;
    let server = RunningServer::new(settings, REQUEST_TIMEOUT)?;
    let has_several = settings.tables().len() > 1;
    let path = if has_several { format!("{PATH}?table={}", table.label) } else { PATH.to_owned() };
    let target = match (arguments.dry_run, has_several) {
        (false, _) => path.clone(),
        (true, false) => format!("{path}?dry_run=1"),
        (true, true) => format!("{path}&dry_run=1"),
    };
    let node = Node::ask(&server, &path)?;
    let name = table.name.to_string();
    if node.table != name {
        let url = server.url(PATH);
        return Err(ConfigError(format!("the server at {url} takes lines for {}, not for {name}", node.table)).into());
    }
    let until = if arguments.dry_run { u32::MAX } else { node.last_full_second(&server, &path)? };
    let taker = Remote { server: &server, target: &target };
    let mut total = Totals::default();
    for quarantine in quarantines {
        let replay = Replay {
            quarantine,
            taker: &taker,
            node: &node.node,
            filter,
            dry_run: arguments.dry_run,
            force: arguments.force,
            until,
            second: node.second,
            events_max: settings.events_max as usize,
            body_bytes_max: usize::try_from(settings.body_bytes_max.0).unwrap_or(usize::MAX),
        };
        let mut printed = Ok(());
        let outcome = replay.run(&mut total, &mut |code, totals| {
            let Totals { lines, accepted, rejected, .. } = totals;
            let line = writeln!(out, "{code}: {lines} lines: {accepted} accepted, {rejected} rejected again");
            printed = std::mem::replace(&mut printed, Ok(())).and(line);
        });
        outcome?;
        printed?;
    }
    let Totals { lines, accepted, rejected, truncated } = total;
    let would = if arguments.dry_run { "would be " } else { "" };
    writeln!(out, "{lines} lines: {accepted} {would}accepted, {rejected} {would}rejected again")?;
    if truncated > 0 {
        writeln!(
            out,
            "{truncated} lines were truncated when they were stored and can't be sent; they stay in the quarantine"
        )?;
    }
    Ok(())
}

/// The running server, which takes lines by its admin address.
struct Remote<'a> {
    server: &'a RunningServer,
    /// Path and query of a request.
    target: &'a str,
}

/// The reply of the server to a request: the number of stored lines, and the indexes of the others.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    accepted: u64,
    rejected: Vec<usize>,
    error: Option<String>,
}

impl Taker for Remote<'_> {
    fn take(&self, key: &str, body: Vec<u8>) -> Result<Option<Stored>, QuarantineError> {
        let url = self.server.url(self.target);
        let silent = |error| QuarantineError::Refused(format!("the server does not answer at {url}: {error}"));
        let response = self.server.post(self.target).header("Idempotency-Key", key).body(body).send();
        let response = response.map_err(silent)?;
        let status = response.status().as_u16();
        let text = response.text().map_err(silent)?;
        let reply: Reply = sonic_rs::from_str(&text).unwrap_or_default();
        match reply.error.as_deref() {
            Some(KEY_REUSED) => Ok(None),
            None if status == 200 => Ok(Some(Stored { accepted: reply.accepted, rejected: reply.rejected })),
            _ => Err(QuarantineError::Refused(format!("the server answered {status}: {}", text.trim()))),
        }
    }
}

/// The node that takes the lines, as it says itself.
#[derive(Deserialize)]
struct Node {
    /// Its name in tokens.
    node: String,
    /// The quoted name of the table that the lines go to.
    table: String,
    /// Its clock, in Unix seconds.
    second: u32,
}

impl Node {
    fn ask(server: &RunningServer, path: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let url = server.url(path);
        let reply = server.get(path).send().and_then(|reply| Ok((reply.status(), reply.text()?)));
        let (status, text) =
            reply.map_err(|error| ConfigError(format!("the server does not answer at {url}: {error}")))?;
        if status == 401 {
            return Err(ConfigError(server.wants_password()).into());
        }
        let node = sonic_rs::from_str(&text);
        Ok(node.map_err(|_| {
            ConfigError(format!("what answers at {url} is no server that takes events: {}", text.trim()))
        })?)
    }

    /// The second of its clock that is shown now, once that is over.
    fn last_full_second(&self, server: &RunningServer, path: &str) -> Result<u32, Box<dyn std::error::Error>> {
        for _ in 0..CLOCK_READS_MAX {
            std::thread::sleep(Duration::from_millis(100));
            if Self::ask(server, path)?.second > self.second {
                return Ok(self.second);
            }
        }
        Err(ConfigError(format!("the clock of the server at {} stands still", server.url(PATH))).into())
    }
}
