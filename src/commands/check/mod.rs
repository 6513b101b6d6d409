//! `sluicegate check`: connects as `serve` would, and reports whether `serve` would work.

mod disk;
mod facts;
mod finding;
mod memory;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::Deserialize;

use super::running::RunningServer;
use crate::clickhouse::TableConfig;
use crate::clickhouse::arrival;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::delivery::{Delivery, shared_windows};
use crate::clickhouse::description::TableDescription;
use crate::clickhouse::guarantee::{Guarantee, Level};
use crate::clickhouse::name::TableName;
use crate::clickhouse::tables;
use crate::config::{Settings, TableSettings};
use crate::net;
use crate::schema::{Plan, PlanColumn};
use crate::spool;

pub use facts::{Facts, TableFacts};
pub use finding::{Finding, Findings, Severity, Topic};

/// Time limit for each request to a running server.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The widest column of a report; what is wider moves the rest of its line.
const WIDTH_MAX: usize = 40;

/// How the report is printed.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// For operators, in colours or without.
    Text {
        /// In colours.
        has_colours: bool,
    },
    /// One JSON object.
    Json,
}

impl Form {
    /// Colours are for a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub fn new(is_json: bool, is_terminal: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_json { Self::Json } else { Self::Text { has_colours: is_terminal && !no_colour } }
    }
}

/// Everything that `check` finds.
#[derive(Debug, Default)]
pub struct Report {
    /// What is said of it.
    pub findings: Findings,
    /// What it is.
    pub facts: Facts,
}

/// Prints the report. True if `serve` would work, or works already.
///
/// # Errors
///
/// If `out` can't be written.
pub fn run(settings: &Settings, form: Form, out: &mut impl Write) -> io::Result<bool> {
    let Report { findings, facts } = report(settings);
    match form {
        Form::Text { has_colours } => findings.print(has_colours, facts.running, out)?,
        Form::Json => writeln!(out, "{}", facts.to_json(&findings).map_err(io::Error::other)?)?,
    }
    Ok(findings.works())
}

/// Runs all checks.
pub fn report(settings: &Settings) -> Report {
    let mut report = Report::default();
    let Report { findings, facts } = &mut report;
    facts.running = check_running(settings, findings);
    match settings.clickhouse() {
        Ok(servers) => check_tables(&servers, settings, findings, facts),
        Err(error) => findings.add(Severity::Error, Topic::Configuration, error.to_string()),
    }
    for error in [
        settings.admin_password().err(),
        settings.tls(None).err(),
        settings.address_form().err().or(settings.address_key().err()),
    ]
    .into_iter()
    .flatten()
    {
        findings.add(Severity::Error, Topic::Configuration, error.to_string());
    }
    check_keys(settings, findings);
    if !facts.running {
        check_addresses(settings, findings);
        check_owner(&settings.spool_dir, findings);
    }
    facts.disk = disk::check(&settings.spool_dir, findings);
    disk::check_room(settings, facts.running, findings);
    facts.files_limit = check_files(settings, findings);
    facts.memory = Some(memory::check(settings, findings));
    report
}

/// What a running server says of itself at `/version`.
#[derive(Deserialize)]
struct Version {
    name: String,
    version: String,
}

/// The part of a running server's configuration that tells whether it is this one's.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RunningConfig {
    spool_dir: PathBuf,
}

/// True if a server runs on this configuration: it owns the spool, and answers at the admin address.
fn check_running(settings: &Settings, findings: &mut Findings) -> bool {
    if !spool::is_owned(&settings.spool_dir).unwrap_or(false) {
        return false;
    }
    let Ok(server) = RunningServer::new(settings, ANSWER_WITHIN) else { return false };
    if server.get("/version").send().is_ok_and(|reply| reply.status() == 401) {
        findings.add(Severity::Warning, Topic::Server, server.wants_password());
        return false;
    }
    let ask = |path: &str| {
        let reply = server.get(path).send().ok().filter(|reply| reply.status() == 200)?;
        reply.text().ok()
    };
    let Some(Version { name, version }) = ask("/version").and_then(|text| sonic_rs::from_str(&text).ok()) else {
        return false;
    };
    let spool_dir = |text: String| toml::from_str::<RunningConfig>(&text).ok().map(|config| config.spool_dir);
    let is_another = ask("/config").and_then(spool_dir).is_some_and(|other| {
        // A relative path is that of the server's folder, not of this command's.
        other.is_absolute() && !is_same(&other, &settings.spool_dir)
    });
    if name != "sluicegate" || is_another {
        return false;
    }
    let mut text = format!("sluicegate {version} runs on this configuration, at {}", server.address());
    if version != env!("CARGO_PKG_VERSION") {
        text.push_str(&format!("; this is {}", env!("CARGO_PKG_VERSION")));
    }
    findings.add(Severity::Info, Topic::Server, text);
    if ask("/readyz").is_none() {
        let text = format!("  it takes no events now; {} says why", server.url("/readyz"));
        findings.add(Severity::Warning, Topic::Server, text);
    }
    true
}

fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole(one) == whole(other)
}

/// Reads the key file.
fn check_keys(settings: &Settings, findings: &mut Findings) {
    match settings.write_keys(None) {
        Ok(keys) if keys.is_empty() => {}
        Ok(keys) => {
            findings.add(Severity::Info, Topic::Configuration, format!("write keys: {}", keys.len()));
            keys.warnings().for_each(|warning| findings.add(Severity::Warning, Topic::Configuration, warning));
        }
        Err(error) => findings.add(Severity::Error, Topic::Configuration, error.to_string()),
    }
}

/// Checks the tables of `--only`, else all of them. With several tables `serve` works while one of them
/// takes events.
fn check_tables(servers: &[ClickHouse], settings: &Settings, findings: &mut Findings, facts: &mut Facts) {
    let tables = settings.selected_tables();
    if let ([table], [_]) = (tables.as_slice(), settings.tables().as_slice()) {
        return check_servers(servers, settings, table, findings, facts);
    }
    let mut is_there = false;
    for table in &tables {
        let mut about = Findings::default();
        let paths = table.paths.join(" and ");
        about.add(Severity::Info, Topic::Table, format!("table {} at {paths}:", table.label));
        check_servers(servers, settings, table, &mut about, facts);
        is_there |= about.works();
        findings.add_table(&table.label, about);
    }
    if !is_there {
        findings.add(Severity::Error, Topic::Table, "none of these tables would take events");
    }
}

/// Checks the servers for a table. A server that is away does not prevent a start while another one answers.
fn check_servers(
    servers: &[ClickHouse],
    settings: &Settings,
    table: &TableSettings,
    findings: &mut Findings,
    facts: &mut Facts,
) {
    let (mut windows, mut is_there) = (Vec::new(), false);
    let mut of_table = TableFacts::new(table);
    for server in servers {
        let mut about = About { findings, facts, table: &mut of_table };
        is_there |= check_server(server, settings, table, &mut windows, &mut about);
    }
    if !is_there {
        findings.add(Severity::Error, Topic::ClickHouse, "no server of --clickhouse-url can be used");
    }
    if servers.len() > 1 {
        for sentence in shared_windows(&windows) {
            findings.add(Severity::Info, Topic::ClickHouse, sentence);
        }
    }
    of_table.works = is_there && findings.works();
    facts.tables.push(of_table);
}

/// Where it goes what is found out about a table.
struct About<'a> {
    findings: &'a mut Findings,
    facts: &'a mut Facts,
    table: &'a mut TableFacts,
}

/// Checks a server. True if `serve` can use it.
fn check_server(
    server: &ClickHouse,
    settings: &Settings,
    table: &TableSettings,
    windows: &mut Vec<(String, String)>,
    about: &mut About<'_>,
) -> bool {
    let config = settings.table_config(table);
    let name = &config.name;
    let described = match TableDescription::ask(server, &config) {
        Ok(described) => described,
        Err(error) if config.create && tables::is_created(name) && error.is_missing() => {
            let text = format!("{}: {name} is missing; `serve` would create it", server.url());
            about.findings.add(Severity::Info, Topic::Table, text);
            if let Ok(version) = server.query("SELECT version()", &[]) {
                about.facts.note_server(server.url(), Ok(version.trim()));
            }
            return true;
        }
        Err(error) => {
            let severity = if error.may_pass() { Severity::Warning } else { Severity::Error };
            about.facts.note_server(server.url(), Err(error.to_string()));
            about.findings.add(severity, Topic::ClickHouse, format!("{}: {error}", server.url()));
            return false;
        }
    };
    about.facts.note_server(server.url(), Ok(&described.version));
    let text = format!("ClickHouse {} at {}", described.version, server.url());
    about.findings.add(Severity::Info, Topic::ClickHouse, text);
    let plan = match described.plan(&config) {
        Ok(plan) => plan,
        Err(error) => {
            about.findings.add(Severity::Error, Topic::Table, format!("{name}: {error}"));
            return false;
        }
    };
    about.table.note_columns(&plan);
    describe_columns(name, &plan, about.findings);
    if let Err(error) = table.dedup_field.as_ref().map_or(Ok(()), |field| plan.require_field(field)) {
        about.findings.add(Severity::Error, Topic::Table, error.to_string());
        return false;
    }
    check_settings(server, &config, about.findings);
    for (table, is_quarantine) in [(name.clone(), false), (name.quarantine(), true)] {
        match Delivery::ask(server, &config, &table) {
            Ok(Some(delivery)) => {
                about.table.note_delivery(&delivery, is_quarantine);
                describe(&delivery, about.findings);
                if !insert_nothing(server, &config, (!is_quarantine).then_some(&plan), about.findings) {
                    return false;
                }
                if !is_quarantine {
                    windows.push((server.url().to_owned(), delivery.facts.window_name));
                }
            }
            Ok(None) => {
                let text =
                    format!("{table}: missing; `serve` would create it, or rejected lines would wait in the spool");
                about.findings.add(Severity::Info, Topic::Guarantee, text);
            }
            Err(error) => {
                about.findings.add(Severity::Error, Topic::Guarantee, format!("{table}: {error}"));
                return false;
            }
        }
    }
    true
}

/// Tries an INSERT without rows into a table with this plan, or into the quarantine. False if `serve` could insert
/// no event.
fn insert_nothing(server: &ClickHouse, config: &TableConfig, plan: Option<&Plan>, findings: &mut Findings) -> bool {
    let (table, tried) = match plan {
        Some(plan) => (config.name.clone(), arrival::insert_nothing(server, config, plan)),
        None => (config.name.quarantine(), arrival::reject_nothing(server, config)),
    };
    let Err(error) = tried else { return true };
    let is_fatal = plan.is_some() && !error.may_pass();
    let severity = if is_fatal { Severity::Error } else { Severity::Warning };
    let remedy = match error.code() {
        Some(ACCESS_DENIED) => Some(format!("GRANT SELECT, INSERT ON {table} TO the user, or what the error names")),
        Some(READONLY) => Some("the user's profile must have `readonly` = 0".to_owned()),
        _ => None,
    };
    let text = format!("{}: an INSERT into {table} would wait in the spool: {error}", server.url());
    findings.add_with_remedy(severity, Topic::Table, text, remedy);
    !is_fatal
}

/// Error codes of ClickHouse: rights that are missing, and a profile that permits no INSERT.
const ACCESS_DENIED: u32 = 497;
const READONLY: u32 = 164;

/// Lists the columns, one below the other.
fn describe_columns(name: &TableName, plan: &Plan, findings: &mut Findings) {
    findings.add(Severity::Info, Topic::Table, format!("columns of {name}:"));
    let columns = plan.columns();
    let width = |of: fn(&PlanColumn) -> &str| {
        let widest = columns.iter().map(|column| of(column).chars().count()).max();
        widest.unwrap_or_default().min(WIDTH_MAX)
    };
    let (names, types) = (width(|column| &column.name), width(|column| &column.type_name));
    for column in columns {
        let default = match &column.default {
            Some(default) if default.ephemeral => format!(", else EPHEMERAL {}", default.expression),
            Some(default) => format!(", else DEFAULT {}", default.expression),
            None => String::new(),
        };
        let text = format!("  {:names$}  {:types$}  {}{default}", column.name, column.type_name, column.source);
        findings.add(Severity::Info, Topic::Table, text);
    }
    for column in plan.guessed_units() {
        let text = format!("  {column}: a bare number is a Unix time in the unit that its magnitude says");
        findings.add(Severity::Info, Topic::Table, text);
    }
    for left in plan.unfillable() {
        let text = format!("  {}: no client can fill it, so it gets its default: {}", left.column, left.reason);
        findings.add(Severity::Warning, Topic::Table, text);
    }
}

/// Checks that the settings of an INSERT arrive unchanged.
fn check_settings(server: &ClickHouse, config: &TableConfig, findings: &mut Findings) {
    match arrival::check(server, config) {
        Ok(None) => findings.add(Severity::Info, Topic::Settings, "the settings of an INSERT arrive unchanged"),
        Ok(Some(altered)) => findings.add(Severity::Error, Topic::Settings, format!("{}: {altered}", server.url())),
        Err(error) => findings.add_with_remedy(
            Severity::Error,
            Topic::Settings,
            format!("{}: the settings of an INSERT: {error}", server.url()),
            Some(
                "let this user change settings: `readonly` must not be 1, and no constraint may forbid one of them"
                    .into(),
            ),
        ),
    }
}

/// Checks that the addresses are free.
fn check_addresses(settings: &Settings, findings: &mut Findings) {
    for address in settings.listen.iter().chain([&settings.admin_listen.into()]) {
        match net::probe(address) {
            Ok(()) => findings.add(Severity::Info, Topic::Address, format!("{address}: free")),
            Err(error) => findings.add(Severity::Error, Topic::Address, error.to_string()),
        }
    }
}

/// Checks that no other process owns the spool.
fn check_owner(folder: &Path, findings: &mut Findings) {
    match spool::is_owned(folder) {
        Ok(false) => {}
        Ok(true) => {
            findings.add(Severity::Error, Topic::Spool, format!("{}: another process owns it", folder.display()))
        }
        Err(error) => findings.add(Severity::Error, Topic::Spool, format!("{}: {error}", folder.display())),
    }
}

fn describe(delivery: &Delivery, findings: &mut Findings) {
    let Delivery { table, facts, guarantee, horizon, replicas, quorum } = delivery;
    findings.add(Severity::Info, Topic::Guarantee, format!("{table}:"));
    findings.add(Severity::Info, Topic::Guarantee, format!("  engine: {}", facts.engine));
    if *replicas > 0 {
        findings.add(Severity::Info, Topic::Guarantee, format!("  replicas: {replicas}"));
    }
    let partition = if facts.partition_key.is_empty() { "none" } else { &facts.partition_key };
    findings.add(Severity::Info, Topic::Guarantee, format!("  partition key: {partition}"));
    let window = match (facts.window, facts.window_seconds) {
        (Some(blocks), Some(seconds)) => format!("{blocks} blocks, {seconds} seconds"),
        (Some(blocks), None) => format!("{blocks} blocks"),
        (None, _) => "none".to_owned(),
    };
    findings.add(Severity::Info, Topic::Guarantee, format!("  deduplication window: {window}"));
    let Guarantee { level, sentence, fix } = guarantee;
    let severity = match level {
        Level::ExactlyOnce => Severity::Info,
        Level::AtLeastOnce | Level::None => Severity::Warning,
        Level::Unfit => Severity::Error,
    };
    findings.add_with_remedy(severity, Topic::Guarantee, format!("  guarantee: {level}: {sentence}"), fix.clone());
    if let Some(horizon) = horizon {
        let text = format!("  an INSERT without an answer can be repeated safely for: {horizon}");
        findings.add(Severity::Info, Topic::Guarantee, text);
        if let Some(statement) = &horizon.widen {
            findings.add(Severity::Info, Topic::Guarantee, format!("  to make that a day: {statement}"));
        }
    }
    if let Some(sentence) = quorum {
        findings.add(Severity::Warning, Topic::Guarantee, format!("  quorum: {sentence}"));
    }
}

/// Checks the limit of open files, which `serve` raises to the hard limit at its start.
fn check_files(settings: &Settings, findings: &mut Findings) -> Option<u64> {
    let Some(limit) = getrlimit(Resource::Nofile).maximum else {
        findings.add(Severity::Info, Topic::Files, "open files: no limit");
        return None;
    };
    let (kept, connections_max) = (settings.descriptors_kept(), settings.connections_max as u64);
    let left = limit.saturating_sub(kept);
    let what = format!("open files: the hard limit is {limit}, of which {kept} are not for connections");
    let (severity, consequence) = match left {
        0 => (Severity::Error, "serve does not start".to_owned()),
        _ if left < connections_max => {
            (Severity::Warning, format!("serve lowers --connections-max from {connections_max} to {left}"))
        }
        _ => (Severity::Info, format!("enough for --connections-max {connections_max}")),
    };
    let remedy = (severity > Severity::Info).then(|| "raise it with `ulimit -Hn` or LimitNOFILE=".to_owned());
    findings.add_with_remedy(severity, Topic::Files, format!("{what}; {consequence}"), remedy);
    Some(limit)
}
