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

#[cfg(test)]
mod tests {
    use crate::config::cli::tests::with_file;
    use crate::schema::{AddressKind, ColumnSource, Mapping, RequestInput, TimeUnit, UnknownFields};

    fn mapping(text: &str, flags: &[&str]) -> Mapping {
        let mut tables = with_file(text, flags).unwrap().tables();
        assert_eq!(tables.len(), 1);
        tables.remove(0).mapping
    }

    #[test]
    fn each_source_of_a_column_is_read() {
        let text = r#"
            [table.hits]
            required = ["event", "user_id"]
            unknown-fields = { collect = "props" }
            [table.hits.columns]
            user_id = ["user.id", "uid"]
            name = "user.name"
            line_number = { field = "line" }
            app = { value = "game-1" }
            tags = { value = [1, "a", 2020-12-01T00:00:00Z, { x = true }] }
            country = { header = "CF-IPCountry" }
            peer = { client-ip = "truncated" }
            received = "server-time"
            request = "request-id"
            raw = "line"
            agent = "user-agent"
            sender = "key-name"
            ts = { field = ["timestamp", "time.at"], unit = "ms" }
        "#;
        let fields = |names: &[&str], unit| ColumnSource::Fields {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            unit,
        };
        let expected = [
            ("user_id", fields(&["user.id", "uid"], None)),
            ("name", fields(&["user.name"], None)),
            ("line_number", fields(&["line"], None)),
            ("app", ColumnSource::Value("\"game-1\"".into())),
            ("tags", ColumnSource::Value("[1,\"a\",\"2020-12-01T00:00:00Z\",{\"x\":true}]".into())),
            ("country", ColumnSource::Request(RequestInput::Header("cf-ipcountry".into()))),
            ("peer", ColumnSource::ClientAddress(AddressKind::Truncated)),
            ("received", ColumnSource::ServerTime),
            ("request", ColumnSource::Request(RequestInput::RequestId)),
            ("raw", ColumnSource::Line),
            ("agent", ColumnSource::Request(RequestInput::UserAgent)),
            ("sender", ColumnSource::Request(RequestInput::KeyName)),
            ("ts", fields(&["timestamp", "time.at"], Some(TimeUnit::Milliseconds))),
        ];
        let mapping = mapping(text, &[]);
        assert_eq!(mapping.columns, expected.map(|(column, source)| (column.to_owned(), source)).into());
        assert_eq!(mapping.required, ["event", "user_id"]);
        assert_eq!(mapping.unknown_fields, UnknownFields::Collect("props".into()));
    }

    #[test]
    fn unknown_fields_are_treated_as_the_section_says_else_as_the_flag_does() {
        let of = |text: &str, flags: &[&str]| mapping(text, flags).unknown_fields;
        assert_eq!(of("", &[]), UnknownFields::Skip);
        assert_eq!(of("", &["--unknown-fields", "reject"]), UnknownFields::Reject);
        assert_eq!(of("unknown-fields = \"reject\"\n[table.a]", &[]), UnknownFields::Reject);
        let skipping = "[table.a]\nunknown-fields = \"skip\"";
        assert_eq!(of(skipping, &["--unknown-fields", "reject"]), UnknownFields::Skip);
    }

    #[test]
    fn a_wrong_mapping_stops_the_start_with_a_sentence() {
        let deep = format!("[table.a.columns]\nx = \"{}\"", ["p"; 9].join("."));
        let many =
            format!("[table.a.columns]\nx = [{}]", (0..17).map(|n| format!("\"f{n}\"")).collect::<Vec<_>>().join(","));
        for (text, parts) in [
            ("[table.a]\nrequired = \"x\"", &["[table.a]", "`required` takes a list of columns"][..]),
            ("[table.a]\nrequired = [1]", &["`required` takes a list of columns"]),
            ("[table.a]\nunknown-fields = \"drop\"", &["[table.a]", "`unknown-fields` takes", "collect"]),
            ("[table.a]\nunknown-fields = { collect = 1 }", &["`unknown-fields` takes"]),
            ("unknown-fields = \"collect\"", &["unknown-fields", "skip, reject"]),
            ("[table.a]\ncolumns = 1", &["[table.a]", "`columns` is a section"]),
            ("[table.a.columns]\nx = 1", &["[table.a]", "the source of x must be a field or a path"]),
            ("[table.a.columns]\nx = []", &["the source of x must be a field"]),
            ("[table.a.columns]\nx = [\"a\", 1]", &["the source of x must be a field"]),
            ("[table.a.columns]\nx = [\"a\", \"a\"]", &["the source of x names the field `a` twice"]),
            ("[table.a.columns]\nx.y = \"z\"", &["the source of x must be a field"]),
            ("[table.a.columns]\nx = { value = 1, header = \"h\" }", &["the source of x must be"]),
            ("[table.a.columns]\nx = { value = nan }", &["the source of x has a `value` that is no"]),
            ("[table.a.columns]\nx = { header = \"a b\" }", &["the source of x has no name of a header"]),
            ("[table.a.columns]\nx = { client-ip = \"half\" }", &["full, truncated, hashed or none"]),
            ("[table.a.columns]\nx = { client-ip = \"hashed\" }", &["[table.a]", "needs --client-ip-key-file"]),
            ("[table.a.columns]\nx = { field = \"a\", unit = \"min\" }", &["s, ms, us or ns"]),
            ("[table.a.columns]\nx = { unit = \"s\" }", &["the source of x must be"]),
            (&deep, &["the source of x is a path of more than 8 names"]),
            (&many, &["the source of x has 17 fields, and 16 are the most"]),
        ] {
            let error = with_file(text, &[]).unwrap_err();
            assert!(parts.iter().all(|part| error.0.contains(part)), "{parts:?}: {error}");
            assert!(!error.0.trim_end().contains('\n'), "{error}");
        }
    }
}
