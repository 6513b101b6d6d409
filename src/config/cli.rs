//! The command line, and the merging of flags, environment and file into one [`Settings`].
//!
//! The keys of the file are parsed by the same parser as the flags: each key that neither a flag nor
//! the environment sets is appended to the arguments, which are then parsed again. A setting
//! therefore has one definition, one default and one error message, wherever its value comes from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command as ClapCommand, CommandFactory, FromArgMatches};

use super::arguments::ONLY;
pub use super::arguments::{
    CheckArgs, Cli, ClickHouseArgs, Command, ListArgs, QuarantineCommand, ReplayArgs, ReportArgs, RequeueArgs,
    SchemaArgs, ServeArgs, SpoolCommand, TablesArgs,
};
use super::print::Effective;
use super::{ConfigError, Section, Settings, file};

/// Parses the arguments and the environment of the process, and the file that `--config` names.
///
/// Ends the process after `--help` and `--version`, and on invalid usage, as clap does.
///
/// # Errors
///
/// If a value is invalid; the sentence names the setting, and the file if the value is from there.
pub fn parse() -> Result<Cli, ConfigError> {
    parse_from(std::env::args_os().collect())
}

pub(crate) fn parse_from(mut arguments: Vec<OsString>) -> Result<Cli, ConfigError> {
    let known = Cli::command();
    let mut matches = known.clone().try_get_matches_from(&arguments).map_err(|error| match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => ConfigError(one_sentence(&error)),
        // Help, version, or invalid usage.
        _ => error.exit(),
    })?;
    let mut sections = Vec::new();
    // What a command takes besides is no setting.
    let keys = Settings::augment_args(ClapCommand::new("settings"));
    if let Some(path) = innermost(&known, &matches).try_get_one::<PathBuf>("config").ok().flatten().cloned() {
        let given = innermost(&known, &matches);
        let file = file::read(&path)?;
        let wrong = |sentence: String| ConfigError(format!("{}: {sentence}", path.display()));
        let is_given =
            |id: &str| matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        if !file.sections.is_empty() && is_given("table") {
            return Err(wrong(
                "--table (or SLUICEGATE_TABLE) is the name of the one table, or [table.NAME] sections name the \
                 tables: leave one of them out (`--only` selects tables for a command)"
                    .to_owned(),
            ));
        }
        arguments.extend(file::arguments(&file.keys, &keys, is_given).map_err(|error| wrong(error.sentence()))?);
        sections = file.sections;
        matches = known.clone().try_get_matches_from(&arguments).map_err(|error| wrong(one_sentence(&error)))?;
    }
    let mut cli = read(&matches);
    if let Some(settings) = cli.command.settings_mut() {
        let given = innermost(&known, &matches);
        let only = given.try_get_many::<String>(ONLY).ok().flatten();
        settings.only = only.map(|labels| labels.cloned().collect()).unwrap_or_default();
        settings.sections = sections;
        settings.validate()?;
        settings.effective = Effective::all(&keys, given);
    }
    Ok(cli)
}

/// The `[table.NAME]` sections that a file has now.
///
/// # Errors
///
/// If the file can't be read, or a section is wrong.
pub fn sections_of(path: &Path) -> Result<Vec<Section>, ConfigError> {
    Ok(file::read(path)?.sections)
}

/// The same, checked for a start with these settings.
///
/// # Errors
///
/// If a start with the sections would not work.
pub fn sections_again(path: &Path, settings: &Settings) -> Result<Vec<Section>, ConfigError> {
    let sections = sections_of(path)?;
    Settings { sections: sections.clone(), ..settings.clone() }.validate()?;
    Ok(sections)
}

/// The matches of the innermost subcommand.
fn innermost<'a>(mut command: &'a ClapCommand, mut matches: &'a ArgMatches) -> &'a ArgMatches {
    while let Some((name, inner)) = matches.subcommand()
        && let Some(subcommand) = command.find_subcommand(name)
    {
        (command, matches) = (subcommand, inner);
    }
    matches
}

fn read(matches: &ArgMatches) -> Cli {
    Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}

/// One sentence that names the setting, its invalid value, and what the setting accepts.
pub(super) fn one_sentence(error: &clap::Error) -> String {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if let (ErrorKind::ValueValidation, Some(argument), Some(value)) =
        (error.kind(), named(ContextKind::InvalidArg), named(ContextKind::InvalidValue))
        && let Some(accepted) = accepted(argument)
    {
        return format!("invalid value '{value}' for '{argument}': {accepted}");
    }
    // The first paragraph of clap's message, without its "error: ".
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    first.trim_start_matches("error: ").trim().replace("\n  ", " ")
}

/// What a setting accepts, from the name of its value. The errors of the parsers do not say that.
fn accepted(argument: &str) -> Option<&'static str> {
    let (_, value_name) = argument.split_once(' ')?;
    match value_name {
        "<ADDRESS:PORT>" => Some("an address looks like 127.0.0.1:8080 or [::1]:8080"),
        "<ADDRESS:PORT|unix:/PATH>" => {
            Some("an address looks like 127.0.0.1:8080, [::1]:8080 or unix:/run/sluicegate.sock")
        }
        "<CIDR|unix:>" => Some("a proxy looks like 10.0.0.0/8, ::1 or unix:"),
        "<SIZE>" => Some("a size looks like 4096, 512KiB or 10GiB"),
        "<TIME>" => Some("a time looks like 250ms, 30s or 5m"),
        "<N>" if argument != "--http-port <N>" => Some("it takes a whole number of at least 1"),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    pub fn settings(arguments: &[&str]) -> Result<Settings, ConfigError> {
        let mut all = vec!["sluicegate".into(), "serve".into()];
        all.extend(arguments.iter().map(OsString::from));
        match parse_from(all)?.command {
            Command::Serve(arguments) => Ok(arguments.settings),
            _ => panic!("the command is serve"),
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    pub fn with_file(text: &str, more: &[&str]) -> Result<Settings, ConfigError> {
        let file = file(text);
        let mut arguments = vec!["--config", file.path().to_str().unwrap()];
        arguments.extend(more);
        settings(&arguments)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let defaults = settings(&[]).unwrap();
        assert_eq!(defaults.listen, ["0.0.0.0:8080".parse().unwrap()]);
        assert_eq!(defaults.batch_rows, 500_000);
        assert_eq!(defaults.batch_bytes.0, 32 << 20);
        assert_eq!(defaults.spool_bytes_max.0, 10 << 30);
        assert_eq!(defaults.insert_timeout.as_secs(), 300);
        assert!(defaults.create_table);
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let text = "batch-rows = 7\ntable = \"t\"\ncreate-table = false\nbatch-age = \"250ms\"\n\
                    listen = [\"127.0.0.1:1\", \"[::1]:2\"]\nclickhouse-setting = [\"insert_quorum=2\"]";
        let merged = with_file(text, &["--table", "u"]).unwrap();
        assert_eq!(merged.batch_rows, 7);
        assert_eq!(merged.table, "u");
        assert!(!merged.create_table);
        assert_eq!(merged.batch_age.as_millis(), 250);
        assert_eq!(merged.listen.len(), 2);
        assert_eq!(merged.clickhouse_setting.first().unwrap().name, "insert_quorum");
    }

    #[test]
    fn only_is_a_flag_of_commands_and_no_key_of_the_file() {
        let file = file("[table.a]\n[table.b]");
        let path = file.path().to_str().unwrap();
        let parsed = |arguments: &[&str]| {
            let mut cli = parse_from(arguments.iter().map(OsString::from).collect())?;
            Ok::<_, ConfigError>(cli.command.settings_mut().unwrap().only.clone())
        };
        for command in [&["check"][..], &["schema"], &["drain"], &["spool", "list"], &["quarantine", "replay"]] {
            let arguments = [&["sluicegate"][..], command, &["--config", path, "--only", "a", "--only", "b"]].concat();
            assert_eq!(parsed(&arguments).unwrap(), ["a", "b"], "{command:?}");
        }
        let key = self::file("only = \"a\"\n[table.a]");
        let error = parsed(&["sluicegate", "check", "--config", key.path().to_str().unwrap()]).unwrap_err();
        assert!(error.0.contains("unknown key `only`"), "{error}");
        let serve = Cli::command().find_subcommand("serve").unwrap().get_arguments().any(|flag| flag.get_id() == ONLY);
        assert!(!serve, "serve takes events for all tables");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_nearest() {
        let error = with_file("batch-row = 7", &[]).unwrap_err();
        assert!(error.0.contains("`batch-row`") && error.0.contains("`batch-rows`"), "{error}");
        let error = with_file("zzz = 7", &[]).unwrap_err();
        assert!(error.0.contains("`zzz`"), "{error}");
        assert!(with_file("config = \"x\"", &[]).is_err());
    }

    #[test]
    fn a_bad_value_of_a_flag_or_a_key_is_one_sentence_with_what_is_accepted() {
        for (key, value, accepted) in [
            ("listen", "localhost:80", "looks like 127.0.0.1:8080"),
            ("listen", "unix:relative", "unix:/run/sluicegate.sock"),
            ("trusted-proxy", "10.0.0.0/33", "looks like 10.0.0.0/8"),
            ("proxy-protocol", "maybe", "[possible values: true, false]"),
            ("client-ip", "half", "[possible values: full, truncated, hashed, none]"),
            ("admin-listen", "9080", "looks like 127.0.0.1:8080"),
            ("workers", "0", "a whole number of at least 1"),
            ("batch-rows", "many", "a whole number of at least 1"),
            ("connections-max", "1.5", "a whole number of at least 1"),
            ("batch-bytes", "10X", "looks like 4096, 512KiB"),
            ("insert-timeout", "5", "looks like 250ms, 30s"),
            ("durability", "maybe", "[possible values: sync, written]"),
            ("clickhouse-setting", "a", "looks like insert_quorum=2"),
        ] {
            for error in [
                settings(&[&format!("--{key}={value}")]).unwrap_err(),
                with_file(&format!("{key} = \"{value}\""), &[]).unwrap_err(),
            ] {
                let parts = [format!("'{value}'"), format!("'--{key} "), accepted.to_owned()];
                assert!(parts.iter().all(|part| error.0.contains(part)) && !error.0.contains('\n'), "{error}");
            }
        }
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_accepted() {
        for (text, key) in [
            ("batch-rows = \"many\"", "--batch-rows"),
            ("durability = \"maybe\"", "--durability"),
            ("batch-age = 5", "--batch-age"),
            ("listen = \"here\"", "--listen"),
            ("batch-rows = 1048449", "--batch-rows"),
            ("table = \"a/b\"", "--table"),
            ("clickhouse-url = \"ftp://x\"", "--clickhouse-url"),
            ("head-timeout = \"0s\"", "--head-timeout"),
            ("headers-max = 100000", "--headers-max"),
            ("connections-max = \"18446744073709551615\"", "--connections-max"),
            ("idle-timeout = \"500000000000years\"", "--idle-timeout"),
            ("workers = 100000", "--workers"),
            ("inserters = 100000", "--inserters"),
            ("spool-bytes-max = \"32MiB\"", "--spool-bytes-max"),
        ] {
            let error = with_file(text, &[]).unwrap_err();
            assert!(error.0.contains(key), "{text}: {error}");
        }
    }
}
