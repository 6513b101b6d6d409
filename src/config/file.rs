//! The configuration file: its keys as arguments, which the parser of the flags reads, and its sections.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::Command as ClapCommand;

use super::ConfigError;
use super::section::Section;
use crate::limits;

/// Flags that are no keys of the file.
const NO_KEYS: [&str; 2] = ["config", "help"];

/// From this likeness on another key is offered.
const LIKENESS_MIN: f64 = 0.7;

/// What a file says.
pub(super) struct Contents {
    /// The keys outside of every section.
    pub(super) keys: toml::Table,
    /// The `[table.NAME]` sections.
    pub(super) sections: Vec<Section>,
}

/// What is wrong with the keys of a file or a section.
pub(super) enum Wrong {
    /// A key is unknown.
    Key(String),
    /// A value is neither a text, a number nor a truth.
    Value(String),
}

impl Wrong {
    /// The sentence about a key outside of every section.
    pub(super) fn sentence(self) -> String {
        match self {
            Self::Key(sentence) if !sentence.ends_with('?') => {
                format!("{sentence}; `sluicegate serve --help` lists the keys")
            }
            Self::Key(sentence) | Self::Value(sentence) => sentence,
        }
    }
}

/// Reads a file.
///
/// # Errors
///
/// If it can't be read, is no TOML, or a section is wrong; the sentence names the file.
pub(super) fn read(path: &Path) -> Result<Contents, ConfigError> {
    let wrong = |sentence: String| ConfigError(format!("{}: {sentence}", path.display()));
    let text = read_text(path).map_err(|error| wrong(error.to_string()))?;
    let mut keys: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(not_toml(&text, &error)))?;
    let sections = match keys.get("table") {
        Some(toml::Value::Table(sections)) => {
            let sections = sections_of(sections).map_err(|error| wrong(error.0))?;
            keys.remove("table");
            sections
        }
        _ => Vec::new(),
    };
    Ok(Contents { keys, sections })
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limits::CONFIG_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::CONFIG_FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {} bytes", limits::CONFIG_FILE_BYTES_MAX)));
    }
    Ok(text)
}

/// A key and a section of one name are no TOML: the parser's message does not say what is meant.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let lines = || text.lines().map(str::trim);
    let has_key = lines().any(|line| line.strip_prefix("table").is_some_and(|rest| rest.trim_start().starts_with('=')));
    let has_section = lines().any(|line| line.starts_with("[table"));
    if has_key && has_section {
        return "`table` is the name of the one table, or [table.NAME] sections name the tables: leave one of them out"
            .to_owned();
    }
    error.to_string()
}

fn sections_of(sections: &toml::Table) -> Result<Vec<Section>, ConfigError> {
    if sections.is_empty() {
        return Err(ConfigError("[table] names no table; a section looks like [table.events]".to_owned()));
    }
    if sections.len() > limits::TABLES_MAX {
        return Err(ConfigError(format!(
            "there are {} [table.NAME] sections; at most {} tables can be served",
            sections.len(),
            limits::TABLES_MAX
        )));
    }
    let read = |(name, keys): (&String, &toml::Value)| match keys {
        toml::Value::Table(keys) => Section::read(name, keys),
        _ => Err(ConfigError(format!("[table]: `{name}` is no section; a section looks like [table.events]"))),
    };
    sections.iter().map(read).collect()
}

/// The keys as arguments, without those that are `given` elsewhere, by the flag's identifier.
///
/// # Errors
///
/// If a key is unknown, or its value is none that a flag could have.
pub(super) fn arguments(
    keys: &toml::Table,
    known: &ClapCommand,
    given: impl Fn(&str) -> bool,
) -> Result<Vec<OsString>, Wrong> {
    let mut arguments = Vec::new();
    for (key, value) in keys {
        let argument = known
            .get_arguments()
            .find(|argument| argument.get_long() == Some(key) && !NO_KEYS.contains(&key.as_str()))
            .ok_or_else(|| Wrong::Key(unknown_key(key, known)))?;
        if given(argument.get_id().as_str()) {
            continue;
        }
        let repeatable = matches!(argument.get_action(), clap::ArgAction::Append);
        let values = match value {
            toml::Value::Array(values) if repeatable => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => return Err(Wrong::Value(format!("`{key}` takes a string, a number or true/false"))),
            };
            arguments.push(format!("--{key}={text}").into());
        }
    }
    Ok(arguments)
}

/// The keys that a command's flags are.
pub(super) fn keys(known: &ClapCommand) -> impl Iterator<Item = &str> {
    known.get_arguments().filter_map(|argument| argument.get_long()).filter(|long| !NO_KEYS.contains(long))
}

/// True for a key that one of the command's flags is.
pub(super) fn is_key(key: &str, known: &ClapCommand) -> bool {
    keys(known).any(|long| long == key)
}

fn unknown_key(key: &str, known: &ClapCommand) -> String {
    let nearest = keys(known).map(|long| (strsim::jaro_winkler(long, key), long)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, long)) if likeness > LIKENESS_MIN => format!("unknown key `{key}`; did you mean `{long}`?"),
        _ => format!("unknown key `{key}`"),
    }
}
