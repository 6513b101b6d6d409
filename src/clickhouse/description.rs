//! The description of a table by ClickHouse: columns, time zone, and the INSERT settings that this
//! ClickHouse knows. It is asked for at the start and saved in `schema.json`, so that the server can
//! take events if it starts while ClickHouse is away.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::client::{ClickHouse, ClientError};
use super::frozen::{Frozen, FrozenDefault, RowFormat};
use super::name::TableName;
use super::settings::ClickHouseSetting;
use super::version::Release;
use super::{TableConfig, settings, tables};
use crate::ndjson::check_constants;
use crate::schema::{self, ColumnDescription, Dialect, PathRules, Plan, PlanColumn, SchemaError, SchemaVersion};

/// The oldest ClickHouse that is supported.
const VERSION_MIN: Release = Release::new(25, 8);

/// The description of a table by one ClickHouse server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDescription {
    /// The version of ClickHouse.
    pub version: String,
    /// The time zone of the columns that name none.
    pub timezone: String,
    /// The columns, from `DESCRIBE TABLE`.
    pub columns: Vec<ColumnDescription>,
    /// The fixed settings that this ClickHouse knows.
    pub settings: BTreeMap<String, String>,
}

/// The reason why events can't be encoded for a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    /// ClickHouse did not answer, or refused.
    Client(ClientError),
    /// ClickHouse is too old, or gave an answer that is not understood.
    Unsupported(String),
    /// A column of the table is not supported.
    Schema(SchemaError),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Unsupported(sentence) => f.write_str(sentence),
            Self::Schema(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TableError {}

impl From<ClientError> for TableError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// ClickHouse's error codes for a table, and a database, that is not there.
const MISSING: [u32; 2] = [60, 81];

/// ClickHouse's error codes for a wrong user or password.
const LOGIN_REFUSED: [u32; 4] = [192, 193, 194, 516];

impl TableError {
    /// True if a later attempt may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Client(error) if error.may_pass())
    }

    /// True if the server did not answer.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_no_answer())
    }

    /// True if the table or its database is missing.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Client(ClientError::Refused { code: Some(code), .. }) if MISSING.contains(code))
    }

    /// True if the error says nothing about the table: ClickHouse refuses the user or the password, or a
    /// proxy answered in its place.
    pub fn is_not_about_the_table(&self) -> bool {
        match self {
            Self::Client(ClientError::Refused { code, .. }) => code.is_none_or(|code| LOGIN_REFUSED.contains(&code)),
            _ => false,
        }
    }
}

/// What a server says of itself, which the descriptions of all of its tables have in common.
#[derive(Debug, Clone)]
pub struct ServerDescription {
    version: String,
    timezone: String,
    /// The fixed settings that the server knows.
    settings: BTreeMap<String, String>,
}

impl ServerDescription {
    /// Asks a server. `operators` are the settings of `--clickhouse-setting`, which the server must know.
    ///
    /// # Errors
    ///
    /// See [`TableError`].
    pub fn ask(clickhouse: &ClickHouse, operators: &[ClickHouseSetting]) -> Result<Self, TableError> {
        let version = supported_version(clickhouse)?;
        let timezone = timezone(clickhouse)?;
        Ok(Self { settings: insert_settings(clickhouse, operators)?, version, timezone })
    }

    /// The version of ClickHouse.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl TableDescription {
    /// Creates the missing tables, asks for the description, and checks that events can be encoded for it.
    ///
    /// # Errors
    ///
    /// See [`TableError`].
    pub fn discover(
        clickhouse: &ClickHouse,
        server: &ServerDescription,
        config: &TableConfig,
    ) -> Result<Self, TableError> {
        if config.create {
            tables::create_missing(clickhouse, &config.name)?;
        }
        let described = Self::ask_of(clickhouse, server, &config.name)?;
        described.first_version(config).map_err(TableError::Schema)?;
        Ok(described)
    }

    /// Asks for the description without creating anything.
    ///
    /// # Errors
    ///
    /// See [`TableError`].
    pub fn ask(clickhouse: &ClickHouse, config: &TableConfig) -> Result<Self, TableError> {
        let server = ServerDescription::ask(clickhouse, &config.insert_settings)?;
        Self::ask_of(clickhouse, &server, &config.name)
    }

    /// Asks a server that has described itself for one of its tables.
    ///
    /// # Errors
    ///
    /// See [`TableError`].
    pub fn ask_of(
        clickhouse: &ClickHouse,
        ServerDescription { version, timezone, settings }: &ServerDescription,
        name: &TableName,
    ) -> Result<Self, TableError> {
        Ok(Self {
            columns: describe_table(clickhouse, name)?,
            version: version.clone(),
            timezone: timezone.clone(),
            settings: settings.clone(),
        })
    }

    /// The schema of a table that begins to take events.
    ///
    /// # Errors
    ///
    /// If a column is not supported, or there is none of the name of `--dedup-field`.
    pub fn first_version(&self, config: &TableConfig) -> Result<SchemaVersion, SchemaError> {
        let version = self.version(config)?;
        config.dedup_field.as_ref().map_or(Ok(()), |field| version.plan.require_field(field))?;
        Ok(version)
    }

    /// The schema that events are encoded by.
    ///
    /// # Errors
    ///
    /// If a column is not supported.
    pub fn version(&self, config: &TableConfig) -> Result<SchemaVersion, SchemaError> {
        let plan = self.plan(config)?;
        let frozen = self.freeze(&plan, config).to_bytes();
        Ok(SchemaVersion::new(plan, frozen))
    }

    /// Compiles the plan by which rows are encoded.
    ///
    /// # Errors
    ///
    /// If a column is not supported, or does not fit the mapping; the error names it.
    pub fn plan(&self, config: &TableConfig) -> Result<Plan, SchemaError> {
        let plan = Plan::compile_mapped(&self.columns, self.dialect(), &config.mapping)?;
        plan.require_room_for(config.addresses, config.whole_addresses)?;
        check_constants(&plan)?;
        Ok(plan)
    }

    fn dialect(&self) -> Dialect<'_> {
        let path_rules = Release::of(&self.version).map_or(PathRules::NEWEST, Release::path_rules);
        Dialect { timezone: &self.timezone, path_rules }
    }

    /// True when the server's time zone says what some column's times mean.
    pub(super) fn depends_on_timezone(&self) -> bool {
        self.columns.iter().any(|column| schema::depends_on_timezone(&column.type_name))
    }

    /// The table, columns and settings that are written into each block.
    pub fn freeze(&self, plan: &Plan, config: &TableConfig) -> Frozen {
        let defaults: Vec<FrozenDefault> = plan.columns().iter().filter_map(frozen_default).collect();
        Frozen {
            table: config.name.clone(),
            format: if defaults.is_empty() { RowFormat::RowBinary } else { RowFormat::RowBinaryWithFlags },
            columns: plan.columns().iter().map(|column| (column.name.clone(), column.type_name.clone())).collect(),
            computed: self.computed_for(&defaults),
            defaults,
            settings: self.settings.clone(),
        }
    }

    /// The MATERIALIZED and ALIAS columns whose names stand in these expressions, or in those of one that is
    /// found so. A name that only looks like one costs nothing.
    fn computed_for(&self, defaults: &[FrozenDefault]) -> Vec<(String, String)> {
        let is_computed =
            |column: &&ColumnDescription| matches!(column.default_kind.as_str(), "MATERIALIZED" | "ALIAS");
        let mut texts: Vec<&str> = defaults.iter().map(|default| default.expression.as_str()).collect();
        let mut left: Vec<&ColumnDescription> = self.columns.iter().filter(is_computed).collect();
        let mut computed = Vec::new();
        while let Some(text) = texts.pop() {
            left.retain(|column| {
                let is_named = text.contains(&column.name);
                if is_named {
                    texts.push(&column.default_expression);
                    computed.push((column.name.clone(), column.default_expression.clone()));
                }
                !is_named
            });
        }
        computed
    }

    /// Loads the last known description; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or has no valid description.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        sonic_rs::from_slice(&text).map(Some).map_err(io::Error::other)
    }

    /// Saves the description for the next start. A crash leaves the old or the new file.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = sonic_rs::to_string_pretty(self).map_err(io::Error::other)?;
        let beside = path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

fn frozen_default(column: &PlanColumn) -> Option<FrozenDefault> {
    let default = column.default.as_ref()?;
    Some(FrozenDefault {
        column: column.name.clone(),
        expression: default.expression.clone(),
        ephemeral: default.ephemeral,
    })
}

/// The time zone of columns that name none.
pub(super) fn timezone(clickhouse: &ClickHouse) -> Result<String, ClientError> {
    Ok(clickhouse.query("SELECT timezone()", &[])?.trim().to_owned())
}

/// The columns of a table as they are now.
///
/// # Errors
///
/// See [`TableError`].
pub fn describe_table(clickhouse: &ClickHouse, name: &TableName) -> Result<Vec<ColumnDescription>, TableError> {
    let statement = format!("DESCRIBE TABLE {name} FORMAT JSONCompactEachRow");
    clickhouse.query(&statement, &[])?.lines().map(column).collect()
}

/// Parses a line of `DESCRIBE TABLE`: name, type, default kind and default expression come first.
fn column(line: &str) -> Result<ColumnDescription, TableError> {
    let wrong = || TableError::Unsupported(format!("ClickHouse described a column in an unknown format: {line}"));
    let mut fields: Vec<String> = sonic_rs::from_str(line).map_err(|_| wrong())?;
    fields.truncate(4);
    let [name, type_name, default_kind, default_expression] = <[String; 4]>::try_from(fields).map_err(|_| wrong())?;
    Ok(ColumnDescription { name, type_name: on_one_line(&type_name), default_kind, default_expression })
}

/// The type as ClickHouse spells it in a header, on one line: `DESCRIBE TABLE` puts each element of a Tuple
/// on a line of its own (`print_pretty_type_names`).
fn on_one_line(type_name: &str) -> String {
    let mut lines = type_name.split('\n');
    let mut joined = lines.next().unwrap_or_default().to_owned();
    // A line feed in a name is escaped, so each one here is between two elements.
    for line in lines.map(str::trim_start) {
        if !joined.ends_with('(') && !line.starts_with(')') {
            joined.push(' ');
        }
        joined.push_str(line);
    }
    joined
}

fn supported_version(clickhouse: &ClickHouse) -> Result<String, TableError> {
    let version = clickhouse.query("SELECT version()", &[])?.trim().to_owned();
    check_version(&version)?;
    Ok(version)
}

fn check_version(version: &str) -> Result<(), TableError> {
    let Some(release) = Release::of(version) else {
        return Err(TableError::Unsupported(format!(
            "the server is not ClickHouse, or its version is not understood: it answered `{}`",
            version.chars().take(100).collect::<String>()
        )));
    };
    if release < VERSION_MIN {
        return Err(TableError::Unsupported(format!(
            "ClickHouse {version} is too old: {VERSION_MIN} or newer is required"
        )));
    }
    Ok(())
}

/// The fixed settings that this ClickHouse knows. It must also know the operator's settings.
fn insert_settings(
    clickhouse: &ClickHouse,
    operators: &[ClickHouseSetting],
) -> Result<BTreeMap<String, String>, TableError> {
    let known = known_settings(clickhouse)?;
    if let Some(setting) = operators.iter().find(|setting| !known.contains(&setting.name)) {
        return Err(TableError::Unsupported(format!(
            "--clickhouse-setting {}: this ClickHouse has no such setting",
            setting.name
        )));
    }
    Ok(settings::to_send(&BTreeMap::new(), &[], &known))
}

/// The names of all settings of a server.
///
/// # Errors
///
/// If the server does not answer or refuses.
pub(super) fn known_settings(clickhouse: &ClickHouse) -> Result<HashSet<String>, ClientError> {
    let known = clickhouse.query("SELECT name FROM system.settings FORMAT TSV", &[])?;
    Ok(known.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(check_version("26.7.2.1").is_ok());
        assert!(check_version("25.8.1").is_ok());
        assert!(check_version("25.12").is_ok());
        for old in ["25.7.9", "18.16.1", "Ok.", ""] {
            assert!(check_version(old).is_err(), "{old}");
        }
    }

    #[test]
    fn values_are_those_of_the_release_that_described_the_table() {
        let rules = |version: &str| {
            let description = TableDescription {
                version: version.into(),
                timezone: "UTC".into(),
                columns: Vec::new(),
                settings: BTreeMap::new(),
            };
            description.dialect().path_rules
        };
        assert_eq!(rules("25.8.2.1"), Release::new(25, 8).path_rules());
        assert_eq!(rules("26.7.2.1"), PathRules::NEWEST);
        assert_ne!(rules("25.8.2.1"), rules("26.7.2.1"));
    }

    #[test]
    fn a_column_is_parsed_from_describe() {
        let line = r#"["a","LowCardinality(String)","DEFAULT","'x'","comment","","" ]"#;
        let column = column(line).unwrap();
        assert_eq!((column.name.as_str(), column.type_name.as_str()), ("a", "LowCardinality(String)"));
        assert_eq!((column.default_kind.as_str(), column.default_expression.as_str()), ("DEFAULT", "'x'"));
        assert!(super::column("[\"a\"]").is_err());
        assert!(super::column("nothing").is_err());
    }

    #[test]
    fn a_type_is_put_on_one_line_and_nothing_else_of_it_changes() {
        let pretty = "Tuple(\n    a UInt8,\n    `b  c` Array(Tuple(\n        d Enum8('x  (' = 1, 'y\\n' = 2),\n        e String)))";
        let plain = "Tuple(a UInt8, `b  c` Array(Tuple(d Enum8('x  (' = 1, 'y\\n' = 2), e String)))";
        assert_eq!(on_one_line(pretty), plain);
        assert_eq!(on_one_line(plain), plain);
        assert_eq!(on_one_line("Nested(\n    a UInt8\n)"), "Nested(a UInt8)");
    }

    #[test]
    fn a_saved_description_is_loaded_and_a_missing_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.json");
        assert_eq!(TableDescription::load(&path).unwrap(), None);
        let description = TableDescription {
            version: "26.7.2.1".into(),
            timezone: "UTC".into(),
            columns: vec![column(r#"["a","String","",""]"#).unwrap()],
            settings: [("async_insert".to_owned(), "0".to_owned())].into(),
        };
        description.save(&path).unwrap();
        assert_eq!(TableDescription::load(&path).unwrap().as_ref(), Some(&description));
        fs::write(&path, "{").unwrap();
        assert!(TableDescription::load(&path).is_err());
    }
}
