//! The configuration in force, for the log and for reading: all that flags, environment and file come to, without
//! secrets.

use std::fmt::Write;

use bytesize::ByteSize;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command as ClapCommand, ValueEnum};
use reqwest::Url;
use toml::Value;

use super::{Section, Settings, TableSettings};
use crate::schema::UnknownFields;

/// What stands in place of a secret.
const MASK: &str = "***";

/// Parts of names whose values are not printed.
const SECRET_NAMES: [&str; 10] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "access_key",
    "private_key",
    "api_key",
    "signature",
    "authorization",
];

/// A setting that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    key: String,
    /// As they are written; several of a repeatable setting.
    values: Vec<String>,
    form: Form,
    /// Nobody has set it.
    is_default: bool,
}

/// How the values of a setting are written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Truth,
    List,
}

impl Effective {
    /// The settings of a command that have a value.
    pub(super) fn all(settings: &ClapCommand, given: &ArgMatches) -> Vec<Self> {
        let with_value = |argument: &Arg| {
            let key = argument.get_long().filter(|key| *key != "config")?;
            let raw = given.try_get_raw(argument.get_id().as_str()).ok()??;
            let values = raw.map(|value| value.to_string_lossy().into_owned()).collect();
            let is_default = given.value_source(argument.get_id().as_str()) == Some(ValueSource::DefaultValue);
            Some(Self { key: key.to_owned(), values, form: form(argument), is_default })
        };
        settings.get_arguments().filter_map(with_value).collect()
    }

    /// The value for the file; `None` if it is a secret.
    fn value(&self, text: &str) -> Option<Value> {
        let text = shown(&self.key, text)?;
        Some(match self.form {
            Form::Number => text.parse().map_or_else(|_| Value::String(text), Value::Integer),
            Form::Truth => text.parse().map_or_else(|_| Value::String(text), Value::Boolean),
            Form::Text | Form::List => Value::String(text),
        })
    }

    /// The setting on one line of the log.
    fn on_one_line(&self) -> String {
        let value = |text: &String| shown(&self.key, text).unwrap_or_else(|| format!("{}={MASK}", name_of(text)));
        format!("{}={}", self.key, self.values.iter().map(value).collect::<Vec<_>>().join(","))
    }
}

fn form(argument: &Arg) -> Form {
    if matches!(argument.get_action(), ArgAction::Append) {
        return Form::List;
    }
    match argument.get_value_names().and_then(|names| names.first()).map(clap::builder::Str::as_str) {
        Some("N") => Form::Number,
        Some("BOOL") => Form::Truth,
        _ => Form::Text,
    }
}

/// A value without the secrets in it; `None` if the whole value is one.
fn shown(key: &str, text: &str) -> Option<String> {
    match key {
        "clickhouse-setting" => (!is_secret(name_of(text))).then(|| text.to_owned()),
        "clickhouse-url" => Some(without_secrets(text)),
        _ => Some(text.to_owned()),
    }
}

/// The name in `NAME=VALUE`.
fn name_of(text: &str) -> &str {
    text.split_once('=').map_or(text, |(name, _)| name)
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// A URL without user and password, and without the values of parameters that look like secrets.
fn without_secrets(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    let has_user = !url.username().is_empty() || url.password().is_some();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if !has_user && !pairs.iter().any(|(name, _)| is_secret(name)) {
        return text.to_owned();
    }
    if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
        return MASK.to_owned();
    }
    if !pairs.is_empty() {
        let masked =
            |(name, value): (String, String)| if is_secret(&name) { (name, MASK.to_owned()) } else { (name, value) };
        url.query_pairs_mut().clear().extend_pairs(pairs.into_iter().map(masked));
    }
    url.to_string()
}

impl Settings {
    /// What was set, on one line, for the log; `GET /config` has all of it.
    pub fn on_one_line(&self) -> String {
        let top = self.top_level().filter(|setting| !setting.is_default).map(Effective::on_one_line);
        top.chain(self.sections.iter().map(Section::written)).collect::<Vec<_>>().join(" ")
    }

    /// The configuration in force as TOML, which `--config` takes again: every setting that has a value, and of each
    /// table the settings that it has of its own or from the top. Secrets are left out, and named in comments.
    pub fn to_toml(&self) -> String {
        let mut out = format!(
            "# The configuration in force of sluicegate {}: defaults, file, environment and flags.\n",
            env!("CARGO_PKG_VERSION")
        );
        // Writing to a String does not fail.
        let _ = self.write_toml(&mut out);
        out
    }

    fn write_toml(&self, out: &mut String) -> std::fmt::Result {
        for setting in self.top_level() {
            let mut values = Vec::new();
            for text in &setting.values {
                match setting.value(text) {
                    Some(value) => values.push(value),
                    None => writeln!(out, "# {} {} is not printed.", setting.key, name_of(text))?,
                }
            }
            match setting.form {
                Form::List if !values.is_empty() => writeln!(out, "{} = {}", setting.key, Value::Array(values))?,
                Form::List => {}
                Form::Text | Form::Number | Form::Truth => {
                    for value in values {
                        writeln!(out, "{} = {value}", setting.key)?;
                    }
                }
            }
        }
        for (title, table) in self.titled_tables() {
            if let Some(section) = self.sections.iter().find(|section| section.title() == title) {
                write_section(out, section, &table)?;
            }
        }
        Ok(())
    }

    /// Those outside of every section.
    fn top_level(&self) -> impl Iterator<Item = &Effective> {
        self.effective.iter().filter(|setting| setting.key != "table" || self.sections.is_empty())
    }
}

fn write_section(out: &mut String, section: &Section, table: &TableSettings) -> std::fmt::Result {
    writeln!(out, "\n{}", section.title())?;
    let text = |text: String| Value::String(text);
    let number = |number: u64| i64::try_from(number).map_or_else(|_| text(number.to_string()), Value::Integer);
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| text(value.get_name().to_owned()));
    let keys = [
        ("path", table.paths.first().cloned().map(text)),
        ("batch-rows", Some(number(table.batch_rows))),
        ("batch-bytes", Some(text(exact(table.batch_bytes)))),
        ("batch-age", Some(text(humantime::format_duration(table.batch_age).to_string()))),
        ("dedup-field", table.dedup_field.clone().map(text)),
        ("insert-format", name(table.insert_format.to_possible_value())),
        ("rate-limit", table.rate_limit.map(|rate| text(rate.to_string()))),
        ("spool-bytes-max", Some(text(exact(table.spool_bytes_max)))),
        ("required", section.written_key("required").cloned()),
        ("unknown-fields", Some(unknown_fields(&table.mapping.unknown_fields))),
    ];
    for (key, value) in keys {
        if let Some(value) = value {
            writeln!(out, "{key} = {value}")?;
        }
    }
    if let Some(Value::Table(columns)) = section.written_key("columns") {
        let head = section.title();
        writeln!(out, "{}.columns]", head.strip_suffix(']').unwrap_or(&head))?;
        for (column, source) in columns {
            writeln!(out, "{} = {source}", Value::String(column.clone()))?;
        }
    }
    Ok(())
}

fn unknown_fields(how: &UnknownFields) -> Value {
    match how {
        UnknownFields::Skip => Value::String("skip".to_owned()),
        UnknownFields::Reject => Value::String("reject".to_owned()),
        UnknownFields::Collect(column) => {
            Value::Table([("collect".to_owned(), Value::String(column.clone()))].into_iter().collect())
        }
    }
}

/// A size in the largest unit in which it is a whole number.
fn exact(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((shift, name)) => format!("{}{name}", bytes >> shift),
        None => format!("{}B", ByteSize(bytes).as_u64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cli::tests::{settings, with_file};

    /// What is printed of these settings, once it was read again and found to be the same.
    #[track_caller]
    fn printed(text: &str, flags: &[&str]) -> String {
        let first = with_file(text, flags).unwrap();
        let printed = first.to_toml();
        let again = with_file(&printed, &[]).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(again.to_toml(), printed);
        assert_eq!(again.tables(), first.tables(), "{printed}");
        assert_eq!(again.listen, first.listen);
        printed
    }

    #[test]
    fn what_is_printed_can_be_read_again_and_is_printed_the_same() {
        let flags: &[&[&str]] = &[
            &[],
            &["--batch-rows", "7", "--batch-age", "1500ms", "--create-table", "false", "--workers", "3"],
            &["--listen", "127.0.0.1:1,[::1]:2", "--listen", "unix:/tmp/a \"b\".sock", "--trusted-proxy", "unix:"],
            &["--clickhouse-setting", "insert_quorum=2,a=b=c", "--clickhouse-url", "http://a:1,http://b:2"],
            &["--rate-limit", "5000/s,burst=20000", "--rate-limit-per-address", "7/s", "--node-id", "n1"],
            &["--rate-limit", "5000/s", "--write-key-file", "/k", "--cors-origin", "*"],
            &["--database", "d", "--table", "t", "--unknown-fields", "reject", "--dedup-field", "id"],
            #[cfg(feature = "tls")]
            &["--tls-cert", "/a,/b", "--tls-key", "/c,/d", "--clickhouse-url", "https://c:8443/"],
            &["--client-ip", "hashed", "--client-ip-key-file", "/k"],
            &["--spool-bytes-max", "3000000001B", "--batch-bytes", "1000001B", "--shutdown-delay", "0s"],
            &[
                "--log-format",
                "json",
                "--log-level",
                "trace",
                "--pin",
                "false",
                "--proxy-protocol",
                "--trusted-proxy",
                "::1",
            ],
            &["--insert-format", "native", "--insert-compression", "zstd", "--embedded", "/data/c h"],
            &[
                "--idempotency-keys-max",
                "5",
                "--connections-per-address-max",
                "6",
                "--requests-per-connection-max",
                "7",
            ],
        ];
        let sections = "[table.events]\n[table.\"web.hits\"]\npath = \"/in/hits\"\nbatch-age = \"5s\"\nbatch-rows = 9\n\
            spool-bytes-max = \"1GiB\"\nrequired = [\"event\"]\nunknown-fields = { collect = \"props\" }\n\
            rate-limit = \"9/s\"\ninsert-format = \"native\"\ndedup-field = \"id\"\n\
            [table.\"web.hits\".columns]\nuser_id = [\"user.id\", \"uid\"]\n\"odd name\" = { value = [1, { x = \"a\\nb\" }] }\n\
            ts = { field = \"time\", unit = \"ms\" }\nip = { client-ip = \"truncated\" }\nraw = \"line\"\n";
        for &flags in flags {
            let alone = printed("", flags);
            assert!(alone.contains("\ntable = ") && !alone.contains("[table."), "{alone}");
            if !flags.contains(&"--table") {
                let several = printed(sections, flags);
                assert!(
                    several.contains("[table.\"web.hits\".columns]") && !several.contains("\ntable = "),
                    "{several}"
                );
                printed("[table.events]\nbatch-bytes = 4096", flags);
                printed("[table.hits]\nunknown-fields = \"skip\"", flags);
            }
        }
    }

    #[test]
    fn every_setting_that_has_a_default_is_printed_in_its_form() {
        let text = printed("", &[]);
        for line in [
            "listen = [\"0.0.0.0:8080\"]",
            "batch-rows = 500000",
            "batch-bytes = \"32MiB\"",
            "create-table = true",
            "clickhouse-url = [\"http://127.0.0.1:8123\"]",
            "inserters = 2",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}\n{text}");
        }
        let sections = printed("batch-rows = 9\nspool-bytes-max = \"8GiB\"\n[table.a]\n[table.b]\nbatch-rows = 8", &[]);
        for part in ["[table.a]\npath = \"/api/a\"\nbatch-rows = 9\n", "[table.b]\npath = \"/api/b\"\nbatch-rows = 8\n"]
        {
            assert!(sections.contains(part), "{sections}");
        }
        assert!(sections.contains("spool-bytes-max = \"4GiB\""), "half of all: {sections}");
    }

    #[test]
    fn no_secret_is_printed_neither_as_toml_nor_in_the_log() {
        let flags = [
            "--clickhouse-setting",
            "s3_secret_access_key=hidden1,insert_quorum=2,Some_PASSWORD=hidden2,format_avro_schema_registry_token=hidden3",
            "--clickhouse-url",
            "http://host:8123/?user=u&password=hidden4&database=d,http://b:1/path",
        ];
        let settings = settings(&flags).unwrap();
        let (toml, line) = (settings.to_toml(), settings.on_one_line());
        assert!(!toml.contains("hidden") && !line.contains("hidden"), "{toml}{line}");
        assert!(toml.contains("# clickhouse-setting s3_secret_access_key is not printed."), "{toml}");
        assert!(toml.contains("clickhouse-setting = [\"insert_quorum=2\"]"), "{toml}");
        assert!(toml.contains("http://host:8123/?user=u&password=***&database=d") && toml.contains("http://b:1/path"));
        assert!(line.contains("Some_PASSWORD=***") && line.contains("insert_quorum=2"), "{line}");
        assert!(with_file(&toml, &[]).is_ok(), "{toml}");
        // The configuration refuses a user in a URL: should that change, it is not printed.
        assert_eq!(without_secrets("http://user:hidden@host/?a=b"), "http://host/?a=b");
        assert_eq!(without_secrets("no url, hidden"), "***");
    }

    #[test]
    fn the_log_has_what_was_set_and_no_default() {
        let settings = with_file("batch-rows = 7\n[table.a]\nbatch-rows = 8", &["--inserters", "2"]).unwrap();
        assert_eq!(settings.on_one_line(), "batch-rows=7 inserters=2 [table.a]={batch-rows=8}");
        assert_eq!(self::settings(&[]).unwrap().on_one_line(), "");
    }

    #[test]
    fn a_size_is_printed_exactly() {
        for (bytes, text) in
            [(0, "0B"), (1, "1B"), (1 << 10, "1KiB"), (3 << 19, "1536KiB"), (5 << 30, "5GiB"), (1001, "1001B")]
        {
            assert_eq!(exact(bytes), text);
            assert_eq!(text.parse::<ByteSize>().unwrap().as_u64(), bytes);
        }
    }
}
