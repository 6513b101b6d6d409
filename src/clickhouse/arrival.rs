//! Do the settings of an INSERT arrive? A proxy that drops query parameters, or a profile that changes
//! or forbids a setting, makes every INSERT another one: without its token, two INSERTs of equal rows
//! are one.

use std::collections::BTreeMap;

use super::TableConfig;
use super::client::{ClickHouse, ClientError};
use super::description::known_settings;
use super::settings::{self, TOKEN, fixed_names};

/// A setting that ClickHouse has otherwise than it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// Its name.
    pub name: String,
    /// The value that was sent.
    pub sent: String,
    /// The value that ClickHouse has; empty for a token that did not arrive.
    pub found: String,
}

impl std::fmt::Display for Altered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, sent, found } = self;
        if name == TOKEN {
            return f.write_str(
                "the token of an INSERT does not arrive: something in front of ClickHouse drops or changes query \
                 parameters, so that equal rows would be stored once; let it pass `insert_deduplication_token` and \
                 every other parameter on, or name ClickHouse itself with --clickhouse-url",
            );
        }
        write!(
            f,
            "the setting `{name}` of an INSERT is sent as `{sent}` and is `{found}` in ClickHouse: a proxy or a profile of \
             the user changes it, and that rows are stored as they are, and once, depends on it"
        )
    }
}

/// The same for an INSERT that would be sent now.
///
/// # Errors
///
/// See [`altered`].
pub fn check(clickhouse: &ClickHouse, config: &TableConfig) -> Result<Option<Altered>, ClientError> {
    let known = known_settings(clickhouse)?;
    let sent = settings::to_send(&BTreeMap::new(), &config.insert_settings, &known);
    altered(clickhouse, &sent, "sluicegate.check")
}

/// Asks for the settings in the way that an INSERT sends them, and compares. Of the operator's settings
/// only that ClickHouse can read them is known.
///
/// # Errors
///
/// No answer; or a refusal: a setting that this user may not change, or a value that can't be read.
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
