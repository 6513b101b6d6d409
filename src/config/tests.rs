//! The example configuration, `scripts/sluicegate.toml`, held against the code.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Command};

use super::cli::tests::{settings, with_file};
use super::section::SectionKeys;
use super::{Settings, file, mapping};

const EXAMPLE: &str = include_str!("../../scripts/sluicegate.toml");

/// The keys whose values are not the defaults.
const CHANGED: [&str; 1] = ["spool-dir"];

/// The part in front of the sections, and the sections.
fn parts() -> (&'static str, &'static str) {
    EXAMPLE.split_once("# [table.").map(|(top, _)| EXAMPLE.split_at(top.len())).expect("it has sections")
}

/// What a line sets, whether there is a # in front of it or not.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    key.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'-' | b'_')).then_some((key, value))
}

/// The text with every key and section in force that this build takes.
fn in_force(text: &str) -> String {
    let line = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_for_tls = bare.starts_with("tls-") || bare.starts_with("clickhouse-ca-file");
        let is_meant = key_of(line).is_some() && (!is_for_tls || cfg!(feature = "tls"));
        if is_meant || bare.starts_with("[table") { bare.to_owned() } else { String::new() }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_is_in_the_example_once_and_no_other_is() {
    let known = Settings::augment_args(Command::new("settings"));
    let found: Vec<&str> = parts().0.lines().filter_map(key_of).map(|(key, _)| key).collect();
    let unique: BTreeSet<&str> = found.iter().copied().collect();
    assert_eq!(unique, file::keys(&known).collect());
    assert_eq!(unique.len(), found.len(), "a key is there twice");

    let known = SectionKeys::augment_args(Command::new("section"));
    let sections = parts().1.split(".columns]").next().unwrap();
    let found: BTreeSet<&str> = sections.lines().filter_map(key_of).map(|(key, _)| key).collect();
    let keys = file::keys(&known).chain(mapping::KEYS).filter(|key| *key != "columns");
    assert_eq!(found, keys.collect());
}

#[test]
fn each_value_in_the_example_is_the_default_where_there_is_one() {
    let defaults = settings(&[]).unwrap().to_toml();
    let defaults: BTreeMap<&str, &str> = defaults.lines().filter_map(key_of).collect();
    let mut is_set = true;
    for line in parts().0.lines() {
        match key_of(line) {
            Some((key, value)) => {
                let is_commented = line.starts_with('#');
                match defaults.get(key) {
                    Some(default) if !CHANGED.contains(&key) => assert_eq!(value, *default, "{key}"),
                    Some(default) => assert!(value != *default && !is_commented, "{key} is in force"),
                    None => assert!(!is_set && is_commented, "{key} has no default, and that is said in front of it"),
                }
            }
            None if line.starts_with("# Not set: ") => is_set = false,
            None => is_set = true,
        }
    }
}

#[test]
fn the_example_is_a_configuration_as_it_is_and_with_every_key_in_force() {
    let as_it_is = with_file(EXAMPLE, &[]).unwrap();
    assert_eq!(as_it_is.spool_dir.to_str(), Some("/var/lib/sluicegate/spool"));
    assert_eq!(as_it_is.tables().len(), 1);
    let (top, sections) = parts();
    with_file(&in_force(top), &[]).unwrap();
    let without_table = in_force(top).replace("table = \"events\"", "");
    let several = with_file(&format!("{without_table}\n{}", in_force(sections)), &[]).unwrap().tables();
    let labels: Vec<&str> = several.iter().map(|table| table.label.as_str()).collect();
    assert_eq!(labels, ["events", "hits"]);
    assert_eq!(several[1].mapping.columns.len(), 10);
}
