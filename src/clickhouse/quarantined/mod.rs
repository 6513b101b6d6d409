//! The rejected lines that the quarantine tables of the servers hold: which tables there are, which lines are
//! meant, and how lines are taken again.

mod replay;
mod row;

use std::collections::HashSet;
use std::fmt;
use std::io;

use super::client::{ClickHouse, ClientError};
use super::facts::TableFacts;
use super::name::TableName;

pub use replay::{Replay, Stored, Taker, Totals};

/// The code of a row that is no line: it names the node through which a replay goes, and the text that the
/// replay's lines contain.
pub const MARK: &str = "replay";

/// The most text of a filter: it is kept in the mark of a replay.
const TEXT_BYTES_MAX: usize = 1024;

/// A quarantine table, and a server that has it.
pub struct QuarantineTable {
    /// The server.
    pub server: ClickHouse,
    /// The quoted name of the table.
    pub table: String,
}

/// The quarantine tables of the servers.
pub struct Found {
    /// Each table, a replicated one once; empty if no server has one.
    pub tables: Vec<QuarantineTable>,
    /// Servers that did not answer, each as a sentence.
    pub away: Vec<String>,
}

/// Which lines are meant; all of them by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those rejected with this code.
    pub code: Option<String>,
    /// Those rejected at this time or later.
    pub since: Option<String>,
    /// Those rejected at this time or before.
    pub until: Option<String>,
    /// Those that contain this text, or whose message does; upper and lower case are the same.
    pub text: Option<String>,
}

/// Why lines can't be shown or taken again.
#[derive(Debug)]
pub enum QuarantineError {
    /// ClickHouse does not answer, or refuses.
    ClickHouse(ClientError),
    /// The stream of the lines broke off.
    Stream(io::Error),
    /// The filter is malformed.
    Filter(String),
    /// What became of the lines of an earlier replay is not known.
    Undecided(String),
    /// The server does not take the lines.
    Refused(String),
}

impl Filter {
    /// Checks that ClickHouse, which evaluates the conditions, understands the times.
    ///
    /// # Errors
    ///
    /// If it does not, or the text is too long, or ClickHouse does not answer.
    pub fn check(&self, server: &ClickHouse) -> Result<(), QuarantineError> {
        if self.text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(QuarantineError::Filter(format!("text may have at most {TEXT_BYTES_MAX} bytes")));
        }
        for (name, time) in [("since", &self.since), ("until", &self.until)] {
            let Some(time) = time else { continue };
            let statement = "SELECT parseDateTimeBestEffortOrNull({time:String}, 'UTC') IS NULL";
            if server.query(statement, &[("param_time", &escaped(time))])?.trim() != "0" {
                return Err(QuarantineError::Filter(format!(
                    "{name} `{time}` is no time; a time looks like 2026-11-24 or 2026-11-24T12:00:00Z"
                )));
            }
        }
        Ok(())
    }

    /// The condition in SQL, in which values are parameters.
    pub fn condition(&self) -> String {
        let conditions = [
            (&self.code, "code = {code:String}"),
            (&self.since, "server_time >= parseDateTimeBestEffort({since:String}, 'UTC')"),
            (&self.until, "server_time <= parseDateTimeBestEffort({until:String}, 'UTC')"),
            (
                &self.text,
                "(positionCaseInsensitiveUTF8(line, {text:String}) > 0 \
                 OR positionCaseInsensitiveUTF8(message, {text:String}) > 0)",
            ),
        ];
        let mut all = format!("code != '{MARK}'");
        for (_, condition) in conditions.into_iter().filter(|(value, _)| value.is_some()) {
            all.push_str(" AND ");
            all.push_str(condition);
        }
        all
    }

    /// The parameters of the condition.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let values = [
            ("param_code", &self.code),
            ("param_since", &self.since),
            ("param_until", &self.until),
            ("param_text", &self.text),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name, escaped(value.as_deref()?)))).collect()
    }
}

/// The quarantine tables that the servers have for a table.
///
/// # Errors
///
/// If no server has one, and one of them does not answer; or if the filter is malformed.
pub fn quarantine_tables(servers: &[ClickHouse], table: &TableName, filter: &Filter) -> Result<Found, QuarantineError> {
    let table = table.quarantine();
    let (mut tables, mut known) = (Vec::new(), HashSet::new());
    let (mut away, mut reason) = (Vec::new(), None);
    for server in servers {
        match TableFacts::ask(server, &table) {
            Ok(Some(facts)) => {
                filter.check(server)?;
                if known.insert(facts.window_name) {
                    tables.push(QuarantineTable { server: server.clone(), table: table.to_string() });
                }
            }
            Ok(None) => {}
            Err(error) => {
                away.push(format!("{}: {error}", server.url()));
                reason = Some(error);
            }
        }
    }
    match reason {
        Some(_) if tables.is_empty() => Err(QuarantineError::Refused(away.join("; "))),
        _ => Ok(Found { tables, away }),
    }
}

/// Escapes the value of a parameter, which ClickHouse reads in TSV format.
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
}

impl fmt::Display for QuarantineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClickHouse(error) => error.fmt(f),
            Self::Stream(error) => error.fmt(f),
            Self::Filter(reason) | Self::Undecided(reason) | Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for QuarantineError {}

impl From<ClientError> for QuarantineError {
    fn from(error: ClientError) -> Self {
        Self::ClickHouse(error)
    }
}

impl From<io::Error> for QuarantineError {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_filter_are_parameters_and_never_in_the_statement() {
        let value = |text: &str| Some(text.to_owned());
        let all = Filter::default();
        assert_eq!((all.condition().as_str(), all.parameters()), ("code != 'replay'", Vec::new()));
        let filter = Filter { code: value("c'"), since: value("s'"), until: value("u'"), text: value("t'\\ \t\n") };
        let condition = filter.condition();
        assert_eq!(condition.matches(" AND ").count(), 4);
        assert_eq!(condition.matches('\'').count(), 6, "those of the constants alone: {condition}");
        let expected =
            [("param_code", "c'"), ("param_since", "s'"), ("param_until", "u'"), ("param_text", "t'\\\\ \\t\\n")];
        assert_eq!(filter.parameters(), expected.map(|(name, value)| (name, value.to_owned())));
        let text = Filter { text: value("t"), ..Filter::default() };
        assert_eq!(text.parameters(), [("param_text", "t".to_owned())]);
    }
}
