//! A `[table.NAME]` section of the configuration file: a table, and the settings that it has of its own.

use bytesize::ByteSize;
use clap::{Args, Command as ClapCommand, FromArgMatches};

use super::mapping::{self, SectionMapping};
use super::{ConfigError, cli, file};
use crate::api::rate::Rate;
use crate::clickhouse::name::TableName;
use crate::clickhouse::settings::InsertFormat;

/// A `[table.NAME]` section.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The name as it is written: a table, or `database.table`.
    pub name: String,
    /// The keys that the section sets.
    pub keys: SectionKeys,
    /// Where the columns get their values from.
    pub mapping: SectionMapping,
    /// The same as they are written.
    values: toml::Table,
}

/// The keys of a section. A key that is not set has the value of the flag, variable or top-level key of
/// the same name.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct SectionKeys {
    /// Path of the table's events [default: /api/<table>]
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Number of rows after which an INSERT is made
    #[arg(long, value_name = "N")]
    pub batch_rows: Option<u64>,
    /// Number of bytes after which an INSERT is made
    #[arg(long, value_name = "SIZE")]
    pub batch_bytes: Option<ByteSize>,
    /// Time after which an INSERT is made
    #[arg(long, value_name = "TIME")]
    pub batch_age: Option<humantime::Duration>,
    /// Column whose value identifies an event
    #[arg(long, value_name = "COLUMN")]
    pub dedup_field: Option<String>,
    /// Format of the rows in an INSERT
    #[arg(long, value_name = "FORMAT")]
    pub insert_format: Option<InsertFormat>,
    /// Events a second
    #[arg(long, value_name = "RATE")]
    pub rate_limit: Option<Rate>,
    /// Size of the table's part of the spool above which its events are refused with 503
    #[arg(long, value_name = "SIZE")]
    pub spool_bytes_max: Option<ByteSize>,
}

impl Section {
    /// The section on one line.
    pub(super) fn written(&self) -> String {
        let keys: Vec<String> = self.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}={{{}}}", self.title(), keys.join(","))
    }

    /// The value of a key, as it is written.
    pub(super) fn written_key(&self, key: &str) -> Option<&toml::Value> {
        self.values.get(key)
    }

    /// Reads the keys of a section.
    ///
    /// # Errors
    ///
    /// If a key is unknown, or a value is invalid; the sentence names the section and the key.
    pub(super) fn read(name: &str, keys: &toml::Table) -> Result<Self, ConfigError> {
        let wrong = |sentence: String| ConfigError(format!("{}: {sentence}", title(name)));
        let values = keys.clone();
        let mut keys = keys.clone();
        let mapping = SectionMapping::take(&mut keys).map_err(|error| wrong(error.0))?;
        let known = SectionKeys::augment_args(ClapCommand::new("section").no_binary_name(true).disable_help_flag(true));
        if let Some((inner, _)) = keys.iter().find(|(key, value)| value.is_table() && !file::is_key(key, &known)) {
            return Err(wrong(format!(
                "`{inner}` is a section in a section; the table {inner} of the database {name} is {}",
                title(&format!("{name}.{inner}"))
            )));
        }
        let arguments = file::arguments(&keys, &known, |_| false).map_err(|unknown| match unknown {
            file::Wrong::Key(sentence) => {
                let accepted: Vec<&str> = file::keys(&known).chain(mapping::KEYS).collect();
                let end = if sentence.ends_with('?') { " A" } else { "; a" };
                wrong(format!("{sentence}{end} section takes {}", accepted.join(", ")))
            }
            file::Wrong::Value(sentence) => wrong(sentence),
        })?;
        // The keys of a section are no flags.
        let invalid = |error: clap::Error| wrong(cli::one_sentence(&error).replace("'--", "'"));
        let matches = known.try_get_matches_from(arguments).map_err(invalid)?;
        let set = SectionKeys::from_arg_matches(&matches).map_err(invalid)?;
        Ok(Self { name: name.to_owned(), keys: set, mapping, values })
    }

    /// The table; without a database in its name it is in `database`.
    pub(super) fn table(&self, database: &str) -> TableName {
        match self.name.split_once('.') {
            Some((database, table)) => TableName::new(database, table),
            None => TableName::new(database, &self.name),
        }
    }

    /// The head of the section, as it is written in the file.
    pub fn title(&self) -> String {
        title(&self.name)
    }
}

/// The head of the section with this name.
fn title(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if is_bare { format!("[table.{name}]") } else { format!("[table.{name:?}]") }
}
