//! Checks that the settings of an INSERT arrive at ClickHouse unchanged, and that it takes INSERTs at all.
//!
//! A proxy may drop query parameters, and the profile of the user may change or forbid a setting. Then
//! an INSERT means something else: without its token, for instance, two INSERTs of equal rows are
//! stored as one.

use std::collections::BTreeMap;

use super::TableConfig;
use super::client::{ClickHouse, ClientError};
use super::description::known_settings;
use super::name::{TableName, literal, quoted};
use super::settings::{self, TOKEN, fixed_names};
use crate::quarantine;
use crate::schema::Plan;

/// A setting whose value in ClickHouse differs from the one that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// The name of the setting.
    pub name: String,
    /// The value that was sent.
    pub sent: String,
    /// The value in ClickHouse; empty for a token that did not arrive.
    pub found: String,
}

impl std::fmt::Display for Altered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, sent, found } = self;
        if name == TOKEN {
            return f.write_str(
                "the token of an INSERT does not arrive: a proxy in front of ClickHouse drops or changes query \
                 parameters, so that equal rows would be stored once; configure the proxy to pass on \
                 `insert_deduplication_token` and every other parameter, or set --clickhouse-url to ClickHouse itself",
            );
        }
        write!(
            f,
            "the setting `{name}` of an INSERT is sent as `{sent}` and is `{found}` in ClickHouse: a proxy or the profile \
             of the user changes it, and without it rows may be changed, or stored twice"
        )
    }
}

/// Checks the settings of an INSERT that would be sent now.
///
/// # Errors
///
/// See [`altered`].
pub fn check(clickhouse: &ClickHouse, config: &TableConfig) -> Result<Option<Altered>, ClientError> {
    let known = known_settings(clickhouse)?;
    let sent = settings::to_send(&BTreeMap::new(), &config.insert_settings, &known);
    altered(clickhouse, &sent, "sluicegate.check")
}

/// Sends an INSERT of no rows into the table, with the settings that one would have now: it leaves nothing, and is
/// refused as one with rows would be, by rights, quotas, the user's profile, or a type that needs a setting.
///
/// # Errors
///
/// If the server does not answer or refuses.
pub fn insert_nothing(clickhouse: &ClickHouse, config: &TableConfig, plan: &Plan) -> Result<(), ClientError> {
    let columns: Vec<(&str, &str)> =
        plan.columns().iter().map(|column| (column.name.as_str(), column.type_name.as_str())).collect();
    let structure: Vec<String> =
        columns.iter().map(|(name, type_name)| format!("{} {type_name}", quoted(name))).collect();
    let reads_input = plan.columns().iter().any(|column| column.default.is_some());
    let rows =
        if reads_input { format!("SELECT * FROM input({})", literal(&structure.join(", "))) } else { String::new() };
    insert_no_rows(clickhouse, config, &config.name, &columns, &rows)
}

/// The same for the table's quarantine.
///
/// # Errors
///
/// If the server does not answer or refuses.
pub fn reject_nothing(clickhouse: &ClickHouse, config: &TableConfig) -> Result<(), ClientError> {
    insert_no_rows(clickhouse, config, &config.name.quarantine(), &quarantine::COLUMNS, "")
}

fn insert_no_rows(
    clickhouse: &ClickHouse,
    config: &TableConfig,
    table: &TableName,
    columns: &[(&str, &str)],
    rows: &str,
) -> Result<(), ClientError> {
    let known = known_settings(clickhouse)?;
    let sent = settings::to_send(&BTreeMap::new(), &config.insert_settings, &known);
    let parameters: Vec<(&str, &str)> = sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let names: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
    let statement = format!("INSERT INTO {table} ({}) {rows} FORMAT RowBinary", names.join(", "));
    match clickhouse.query(&statement, &parameters) {
        // Some versions say so once nothing else is wrong.
        Err(error) if error.code() == Some(NO_DATA_TO_INSERT) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Error code of ClickHouse for an INSERT of no rows.
const NO_DATA_TO_INSERT: u32 = 108;

/// Sends a query with the settings of an INSERT, and compares their values in ClickHouse. The values of
/// the operator's settings are not compared; ClickHouse refuses one that it can't parse.
///
/// # Errors
///
/// If the server does not answer, or refuses because the user may not change a setting or a value can't
/// be parsed.
pub fn altered(
    clickhouse: &ClickHouse,
    settings: &BTreeMap<String, String>,
    token: &str,
) -> Result<Option<Altered>, ClientError> {
    let mut parameters: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    parameters.push((TOKEN, token));
    let answer = clickhouse.query("SELECT name, value FROM system.settings FORMAT JSONCompactEachRow", &parameters)?;
    let now: BTreeMap<String, String> =
        answer.lines().filter_map(|line| sonic_rs::from_str::<(String, String)>(line).ok()).collect();
    let is_altered = |name: &str, sent: &str| {
        let found = now.get(name).cloned().unwrap_or_default();
        (found != sent).then(|| Altered { name: name.to_owned(), sent: sent.to_owned(), found })
    };
    if let Some(altered) = is_altered(TOKEN, token) {
        return Ok(Some(altered));
    }
    let fixed =
        settings.iter().filter(|(name, _)| fixed_names().any(|fixed| fixed == *name) && now.contains_key(*name));
    Ok(fixed.filter_map(|(name, sent)| is_altered(name, sent)).next())
}
