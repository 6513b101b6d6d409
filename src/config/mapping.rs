//! The keys of a section that say where columns get their values from: `columns`, `required` and
//! `unknown-fields`.

use std::collections::BTreeMap;

use super::ConfigError;
use crate::limits;
use crate::schema::{AddressKind, ColumnSource, RequestInput, TimeUnit, UnknownFields, path_parts};

/// The keys, for messages.
pub(super) const KEYS: [&str; 3] = ["required", "unknown-fields", "columns"];

/// What a section says of its columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SectionMapping {
    /// `[table.NAME.columns]`.
    pub columns: BTreeMap<String, ColumnSource>,
    /// `required`.
    pub required: Vec<String>,
    /// `unknown-fields`.
    pub unknown_fields: Option<UnknownFields>,
}

impl SectionMapping {
    /// Takes the keys out of those of a section.
    ///
    /// # Errors
    ///
    /// If a value is invalid; the sentence names the key.
    pub(super) fn take(keys: &mut toml::Table) -> Result<Self, ConfigError> {
        let mut mapping = Self::default();
        if let Some(required) = keys.remove("required") {
            mapping.required = texts(&required)
                .ok_or_else(|| ConfigError("`required` takes a list of columns, such as [\"event\"]".to_owned()))?;
        }
        if let Some(unknown) = keys.remove("unknown-fields") {
            mapping.unknown_fields = Some(unknown_fields(&unknown)?);
        }
        match keys.remove("columns") {
            None => {}
            Some(toml::Value::Table(columns)) => {
                for (column, value) in columns {
                    let source = source(&value)
                        .map_err(|sentence| ConfigError(format!("`columns`: the source of {column} {sentence}")))?;
                    mapping.columns.insert(column, source);
                }
            }
            Some(_) => {
                return Err(ConfigError(
                    "`columns` is a section of its own, such as [table.events.columns]".to_owned(),
                ));
            }
        }
        Ok(mapping)
    }
}

fn unknown_fields(value: &toml::Value) -> Result<UnknownFields, ConfigError> {
    match value {
        toml::Value::String(text) if text == "skip" => return Ok(UnknownFields::Skip),
        toml::Value::String(text) if text == "reject" => return Ok(UnknownFields::Reject),
        toml::Value::Table(table) if table.len() == 1 => {
            if let Some(toml::Value::String(column)) = table.get("collect") {
                return Ok(UnknownFields::Collect(column.clone()));
            }
        }
        _ => {}
    }
    let message = "`unknown-fields` takes \"skip\", \"reject\" or { collect = \"COLUMN\" }";
    Err(ConfigError(message.to_owned()))
}

/// The source that a value of `columns` names; the error goes on behind the column's name.
fn source(value: &toml::Value) -> Result<ColumnSource, String> {
    match value {
        toml::Value::String(text) => match text.as_str() {
            "server-time" => Ok(ColumnSource::ServerTime),
            "request-id" => Ok(ColumnSource::Request(RequestInput::RequestId)),
            "key-name" => Ok(ColumnSource::Request(RequestInput::KeyName)),
            "user-agent" => Ok(ColumnSource::Request(RequestInput::UserAgent)),
            "line" => Ok(ColumnSource::Line),
            _ => fields(value, None),
        },
        toml::Value::Array(_) => fields(value, None),
        toml::Value::Table(table) => of_table(table),
        _ => Err(explained()),
    }
}

fn of_table(table: &toml::Table) -> Result<ColumnSource, String> {
    let text = |key: &str| match table.get(key) {
        Some(toml::Value::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let keys: Vec<&str> = table.keys().map(String::as_str).collect();
    match keys.as_slice() {
        ["value"] => match table.get("value").and_then(|value| sonic_rs::to_string(&plain(value)?).ok()) {
            Some(json) => Ok(ColumnSource::Value(json)),
            None => Err("has a `value` that is no text, number, truth, list or table of these".to_owned()),
        },
        ["header"] => match text("header").filter(|name| is_token(name)) {
            Some(name) => Ok(ColumnSource::Request(RequestInput::Header(name.to_ascii_lowercase().into()))),
            None => Err("has no name of a header in `header`".to_owned()),
        },
        ["client-ip"] => Ok(ColumnSource::ClientAddress(match text("client-ip") {
            Some("full") => AddressKind::Full,
            Some("truncated") => AddressKind::Truncated,
            Some("hashed") => AddressKind::Hashed,
            Some("none") => AddressKind::None,
            _ => return Err("takes full, truncated, hashed or none for `client-ip`".to_owned()),
        })),
        ["field"] => fields(table.get("field").unwrap_or(&toml::Value::Boolean(false)), None),
        ["field", "unit"] => {
            let unit = TimeUnit::ALL.into_iter().find(|unit| Some(unit.as_str()) == text("unit"));
            let unit = unit.ok_or_else(|| "takes s, ms, us or ns for `unit`".to_owned())?;
            fields(table.get("field").unwrap_or(&toml::Value::Boolean(false)), Some(unit))
        }
        _ => Err(explained()),
    }
}

fn explained() -> String {
    "must be a field or a path, a list of these, server-time, request-id, key-name, user-agent or line, or one of \
     { value = … }, { header = … }, { client-ip = … }, { field = … } and { field = …, unit = … }"
        .to_owned()
}

fn fields(value: &toml::Value, unit: Option<TimeUnit>) -> Result<ColumnSource, String> {
    let names = match value {
        toml::Value::String(name) => vec![name.clone()],
        other => texts(other).filter(|names| !names.is_empty()).ok_or_else(explained)?,
    };
    if names.len() > limits::MAPPED_FIELDS_MAX {
        return Err(format!("has {} fields, and {} are the most", names.len(), limits::MAPPED_FIELDS_MAX));
    }
    for (place, name) in names.iter().enumerate() {
        if names.iter().take(place).any(|other| other == name) {
            return Err(format!("names the field `{name}` twice"));
        }
        if path_parts(name).is_some_and(|parts| parts.len() > limits::MAPPED_LEVELS_MAX) {
            return Err(format!("is a path of more than {} names: `{name}`", limits::MAPPED_LEVELS_MAX));
        }
    }
    Ok(ColumnSource::Fields { names, unit })
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    let text = |value: &toml::Value| value.as_str().map(str::to_owned);
    value.as_array()?.iter().map(text).collect()
}

/// The value without what JSON has not: a time becomes its text. `None` for a number that is no number.
fn plain(value: &toml::Value) -> Option<toml::Value> {
    Some(match value {
        toml::Value::Datetime(time) => toml::Value::String(time.to_string()),
        toml::Value::Float(number) if !number.is_finite() => return None,
        toml::Value::Array(values) => toml::Value::Array(values.iter().map(plain).collect::<Option<_>>()?),
        toml::Value::Table(table) => {
            let member = |(key, value): (&String, &toml::Value)| Some((key.clone(), plain(value)?));
            toml::Value::Table(table.iter().map(member).collect::<Option<_>>()?)
        }
        other => other.clone(),
    })
}

/// True for the name of a header field (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_token_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token_char)
}
