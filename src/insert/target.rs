//! What is known about the target: the columns of the table, the time zone, and the settings that
//! this ClickHouse knows. Asked at the start, kept in `schema.json`, so that the server takes
//! events when it starts while ClickHouse is away.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::client::{ClickHouse, ClientError};
use super::tables;
use crate::config::{FIXED_INSERT_SETTINGS, Settings};
use crate::ndjson::quarantine;
use crate::schema::{self, ColumnDescription, Plan, SchemaError};

/// The oldest ClickHouse that is supported.
const VERSION_MIN: (u32, u32) = (25, 3);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// ClickHouse's version.
    pub version: String,
    /// The time zone of columns that name none.
    pub timezone: String,
    /// The columns, as DESCRIBE TABLE gave them.
    pub columns: Vec<ColumnDescription>,
    /// What is sent with every insert.
    pub settings: BTreeMap<String, String>,
}

/// What is fixed when a segment is opened, and sent with it whatever the server has become since
/// (invariant 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Names and types of the rows' columns.
    pub columns: Vec<(String, String)>,
    /// Settings of the insert.
    pub settings: BTreeMap<String, String>,
}

/// Why the target can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetError {
    /// ClickHouse did not answer, or not with success.
    Client(ClientError),
    /// Its answer is not what a supported ClickHouse says.
    Unsupported(String),
    /// A column of the table can't be filled.
    Schema(SchemaError),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Unsupported(sentence) => f.write_str(sentence),
            Self::Schema(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TargetError {}

impl From<ClientError> for TargetError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// ClickHouse's code for a wrong user or password.
const AUTHENTICATION_FAILED: u32 = 516;

impl TargetError {
    /// True when asking again later may help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_no_answer())
    }

    /// True when ClickHouse does not let this user in: user or password are wrong, or changed.
    pub fn is_login_refused(&self) -> bool {
        matches!(self, Self::Client(ClientError::Refused { code: Some(AUTHENTICATION_FAILED), .. }))
    }
}

impl Target {
    /// Makes the missing tables and asks for everything.
    ///
    /// # Errors
    ///
    /// See [`TargetError`]; also when a column can't be filled.
    pub fn discover(clickhouse: &ClickHouse, settings: &Settings) -> Result<Self, TargetError> {
        supported_version(clickhouse)?;
        tables::create_missing(clickhouse, settings)?;
        let target = Self::look(clickhouse, settings)?;
        target.plan().map_err(TargetError::Schema)?;
        Ok(target)
    }

    /// Asks for everything and changes nothing.
    ///
    /// # Errors
    ///
    /// See [`TargetError`].
    pub fn look(clickhouse: &ClickHouse, settings: &Settings) -> Result<Self, TargetError> {
        let version = supported_version(clickhouse)?;
        let timezone = clickhouse.query("SELECT timezone()", &[])?.trim().to_owned();
        let columns = describe_table(clickhouse, &settings.database, &settings.table)?;
        Ok(Self { settings: insert_settings(clickhouse, settings)?, version, timezone, columns })
    }

    /// The plan of the table.
    ///
    /// # Errors
    ///
    /// Names the column that can't be filled.
    pub fn plan(&self) -> Result<Plan, SchemaError> {
        Plan::compile(&self.columns, &self.timezone)
    }

    /// What is written into each segment.
    pub fn freeze(&self, plan: &Plan) -> Frozen {
        Frozen {
            columns: plan.columns().iter().map(|column| (column.name.clone(), column.type_name.clone())).collect(),
            settings: self.settings.clone(),
        }
    }

    /// Reads the last known target; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When the file is there and can't be read, or is no target.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        sonic_rs::from_slice(&text).map(Some).map_err(io::Error::other)
    }

    /// Writes it for the next start: beside the old one first, so that a crash leaves one of them.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = sonic_rs::to_string_pretty(self).map_err(io::Error::other)?;
        let beside = path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

impl Frozen {
    /// As it stands in a segment.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings in lists and maps: there is nothing in it that JSON could not say.
        sonic_rs::to_vec(self).unwrap_or_default()
    }

    /// As a segment says.
    ///
    /// # Errors
    ///
    /// When the segment was written by another program.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        sonic_rs::from_slice(bytes).map_err(io::Error::other)
    }

    /// The header of `FORMAT RowBinaryWithNamesAndTypes`.
    ///
    /// # Errors
    ///
    /// A type that can't be written back.
    pub fn rowbinary_header(&self) -> Result<Vec<u8>, SchemaError> {
        let columns: Vec<(&str, &str)> =
            self.columns.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        schema::rowbinary_header(&columns)
    }

    /// True when ClickHouse refuses these rows as a block of Native where the table has become another.
    ///
    /// It compares the types of a block with those of the table only when it is told to, which it has
    /// been since this server knows the format; and it never compares which values an Enum has: a number
    /// that the table's Enum lacks would be stored, and would break every SELECT.
    pub fn is_safe_as_native(&self) -> bool {
        let converts = self.settings.get("input_format_native_allow_types_conversion").is_none_or(|sent| sent != "0");
        !converts && !self.columns.iter().any(|(_, type_name)| type_name.contains("Enum"))
    }

    /// The same settings, for the rejected lines of the segment.
    pub fn of_quarantine(&self) -> Self {
        Self {
            columns: quarantine::COLUMNS
                .iter()
                .map(|(name, type_name)| ((*name).to_owned(), (*type_name).to_owned()))
                .collect(),
            settings: self.settings.clone(),
        }
    }
}

/// The columns of a table as they are now.
pub(super) fn describe_table(
    clickhouse: &ClickHouse,
    database: &str,
    table: &str,
) -> Result<Vec<ColumnDescription>, TargetError> {
    let statement = format!("DESCRIBE TABLE {} FORMAT JSONCompactEachRow", tables::quoted(database, table));
    clickhouse.query(&statement, &[])?.lines().map(column).collect()
}

/// Name, type, default kind and default expression: the first four columns of DESCRIBE.
fn column(line: &str) -> Result<ColumnDescription, TargetError> {
    let wrong = || TargetError::Unsupported(format!("ClickHouse described a column in an unknown way: {line}"));
    let mut fields: Vec<String> = sonic_rs::from_str(line).map_err(|_| wrong())?;
    fields.truncate(4);
    let [name, type_name, default_kind, default_expression] = <[String; 4]>::try_from(fields).map_err(|_| wrong())?;
    Ok(ColumnDescription { name, type_name, default_kind, default_expression })
}

fn supported_version(clickhouse: &ClickHouse) -> Result<String, TargetError> {
    let version = clickhouse.query("SELECT version()", &[])?.trim().to_owned();
    check_version(&version)?;
    Ok(version)
}

fn check_version(version: &str) -> Result<(), TargetError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let (Some(Some(year)), Some(Some(month))) = (numbers.next(), numbers.next()) else {
        return Err(TargetError::Unsupported(format!(
            "this is no ClickHouse, or one that does not tell its version: it says `{}`",
            version.chars().take(100).collect::<String>()
        )));
    };
    if (year, month) < VERSION_MIN {
        let (min_year, min_month) = VERSION_MIN;
        return Err(TargetError::Unsupported(format!(
            "ClickHouse {version} is too old: {min_year}.{min_month} or newer is needed"
        )));
    }
    Ok(())
}

/// What is sent with every insert, less the fixed ones that this server does not know, which it
/// would refuse with code 115.
fn insert_settings(clickhouse: &ClickHouse, settings: &Settings) -> Result<BTreeMap<String, String>, TargetError> {
    let known = clickhouse.query("SELECT name FROM system.settings FORMAT TSV", &[])?;
    let known: std::collections::HashSet<&str> = known.lines().collect();
    let mut sent: BTreeMap<String, String> = FIXED_INSERT_SETTINGS
        .into_iter()
        // `wait_end_of_query` is a parameter of the HTTP interface, not a setting.
        .filter(|(name, _)| known.contains(name) || *name == "wait_end_of_query")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for setting in &settings.clickhouse_setting {
        if !known.contains(setting.name.as_str()) {
            return Err(TargetError::Unsupported(format!(
                "--clickhouse-setting {}: this ClickHouse has no such setting",
                setting.name
            )));
        }
        sent.insert(setting.name.clone(), setting.value.clone());
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(check_version("26.7.2.1").is_ok());
        assert!(check_version("25.3.1").is_ok());
        assert!(check_version("25.12").is_ok());
        for old in ["25.2.9", "18.16.1", "Ok.", ""] {
            assert!(check_version(old).is_err(), "{old}");
        }
    }

    #[test]
    fn a_column_is_read_from_describe() {
        let line = r#"["a","LowCardinality(String)","DEFAULT","'x'","comment","","" ]"#;
        let column = column(line).unwrap();
        assert_eq!((column.name.as_str(), column.type_name.as_str()), ("a", "LowCardinality(String)"));
        assert_eq!((column.default_kind.as_str(), column.default_expression.as_str()), ("DEFAULT", "'x'"));
        assert!(super::column("[\"a\"]").is_err());
        assert!(super::column("nothing").is_err());
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.json");
        assert_eq!(Target::load(&path).unwrap(), None);
        let target = Target {
            version: "26.7.2.1".into(),
            timezone: "UTC".into(),
            columns: vec![column(r#"["a","String","",""]"#).unwrap()],
            settings: [("async_insert".to_owned(), "0".to_owned())].into(),
        };
        target.save(&path).unwrap();
        assert_eq!(Target::load(&path).unwrap().as_ref(), Some(&target));
        fs::write(&path, "{").unwrap();
        assert!(Target::load(&path).is_err());
        let frozen = target.freeze(&target.plan().unwrap());
        assert_eq!(Frozen::from_bytes(&frozen.to_bytes()).unwrap(), frozen);
    }
}
