//! The known payloads of `scripts/examples`, each as it is printed: its table, its configuration, its lines, and what
//! its query answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{ClickHouse, Server, post_with, shared_clickhouse, wait_for};

const FILES: [&str; 5] = ["events.ndjson", "expected.ndjson", "query.sql", "sluicegate.toml", "table.sql"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/examples")
}

/// Runs a statement as `clickhouse-client --database` would.
fn run_in(clickhouse: &ClickHouse, database: &str, statement: &str) -> String {
    let settings = "default_format=JSONEachRow&output_format_json_quote_64bit_integers=0";
    clickhouse.query_in(database, settings, statement.trim().trim_end_matches(';'))
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Runs one example.
fn works_as_printed(name: &str) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let read = |file: &str| fs::read_to_string(folder().join(name).join(file)).unwrap();
    let lines = read("events.ndjson");
    run_in(clickhouse, &database, &read("table.sql"));
    let config = folder().join(name).join("sluicegate.toml").to_string_lossy().into_owned();
    let server = Server::start(clickhouse, &database, &["--config", config.as_str()]);
    let headers = "CF-IPCountry: DE\r\nUser-Agent: probe/1.0\r\n";
    let reply = post_with(server.address(), "/api/events", headers, lines.as_bytes());
    let count = lines.lines().count();
    assert_eq!(reply.text(), format!("{{\"accepted\":{count},\"rejected\":0}}"));
    let expected = rows(&read("expected.ndjson"));
    let found = || rows(&run_in(clickhouse, &database, &read("query.sql")));
    wait_for(
        || format!("{} rows:\n{}", found().len(), server.log()),
        || (found().len() >= expected.len()).then_some(()),
    );
    let found = found();
    for (found, expected) in found.iter().zip(&expected) {
        for (column, value) in expected.as_object().unwrap() {
            assert_eq!(&found[column], value, "{name}: {column} of {found}");
        }
    }
    assert_eq!(found, expected, "{name}");
    assert!(server.stop().success());
}

/// A test for each folder.
macro_rules! examples {
    ($($name:ident),+ $(,)?) => {
        const TESTED: &[&str] = &[$(stringify!($name)),+];

        mod works_as_it_is_printed {
            $(#[test]
            fn $name() {
                super::works_as_printed(stringify!($name));
            })+
        }
    };
}

examples!(amplitude, cloudevents, docker, ga4, github, nginx, otel_logs, posthog, segment, web_hits);

#[test]
fn each_folder_has_all_files_and_a_test_and_stands_in_the_readme() {
    let mut folders = BTreeSet::new();
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    for entry in fs::read_dir(folder()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let files: BTreeSet<String> = fs::read_dir(entry.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().to_string_lossy().into())
            .collect();
        assert_eq!(files, FILES.map(str::to_owned).into(), "{name}");
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
        folders.insert(name);
    }
    assert_eq!(folders, TESTED.iter().map(|name| (*name).to_owned()).collect());
}
