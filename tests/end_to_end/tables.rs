//! Tables of `[table.NAME]` sections: what the start says of them, what the commands print, and where events
//! come in.

use std::path::Path;

use crate::support::{Folder, Server, get, post, run, shared_clickhouse, wait_for};

/// Columns of a table that a test makes.
const COLUMNS: &str = "event String, ip String, server_time DateTime('UTC')";

const ENGINE: &str = "ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY event \
                      SETTINGS non_replicated_deduplication_window = 10000";

/// A configuration file.
struct File {
    _folder: Folder,
    path: String,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = Folder::new();
        let path = Path::new(folder.path()).join("sluicegate.toml").to_string_lossy().into_owned();
        let file = Self { _folder: folder, path };
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).unwrap();
    }
}

fn create(table: &str) {
    shared_clickhouse().query(&format!("CREATE TABLE {table} ({COLUMNS}) {ENGINE}"));
}

#[test]
fn what_is_wrong_with_sections_ends_the_start_with_one_sentence() {
    let clickhouse = shared_clickhouse();
    for (text, flags, parts) in [
        ("[table.a]\nbatch-row = 1", &[][..], &["[table.a]", "`batch-row`", "`batch-rows`"][..]),
        ("[table.a]", &["--table", "b"], &["--table", "[table.NAME]", "leave one of them out"]),
        ("[table.a]\npath = \"/health\"", &[], &["[table.a]", "/health"]),
        ("[table.a]\npath = \"/x\"\n[table.b]\npath = \"/x\"", &[], &["/x", "[table.a]", "[table.b]"]),
    ] {
        let file = File::new(text);
        let flags = [&["--config", &file.path], flags].concat();
        let (status, said) = Server::expect_failure(clickhouse, "default", &flags);
        assert!(!status.success() && said.lines().count() == 1, "{text}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{text}: {said}");
    }
    let file = File::new("[table.a]");
    let (ok, _, said) = run(&["check", "--config", &file.path, "--only", "b"]);
    assert!(!ok && said.contains("--only b") && said.contains("they are a"), "{said}");
    let environment = [("SLUICEGATE_TABLE", "b")];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let output = command.args(["schema", "--config", &file.path]).envs(environment).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("SLUICEGATE_TABLE"), "{said}");
}

#[test]
fn schema_prints_the_statements_of_every_table_each_once() {
    let clickhouse = shared_clickhouse();
    let (one, two) = (clickhouse.database(), format!("{}_two", clickhouse.database()));
    let file = File::new(&format!("[table.events]\n[table.hits]\n[table.\"{two}.hits\"]"));
    let schema = |more: &[&str]| {
        let url = clickhouse.url();
        let all = [&["schema", "--config", &file.path, "--clickhouse-url", &url, "--database", &one], more].concat();
        let (ok, said, error) = run(&all);
        assert!(ok, "{error}");
        said
    };
    let said = schema(&[]);
    let statements: Vec<&str> = said.split(";\n").map(str::trim).filter(|text| !text.is_empty()).collect();
    // Two databases, the default table, three quarantine tables.
    assert_eq!(statements.len(), 6, "{said}");
    statements.iter().for_each(|statement| drop(clickhouse.query(statement)));
    assert_eq!(
        clickhouse.query(&format!("SHOW TABLES FROM {one}")).trim(),
        "events\nevents_quarantine\nhits_quarantine"
    );
    assert_eq!(clickhouse.query(&format!("SHOW TABLES FROM {two}")).trim(), "hits_quarantine");
    let said = schema(&["--only", &format!("{two}.hits")]);
    assert!(!said.contains("events") && !said.contains(&format!("`{one}`")) && said.contains(&two), "{said}");
}

#[test]
fn check_has_a_verdict_for_every_table_and_serve_works_while_one_of_them_does() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(&format!("{database}.hits"));
    let file = File::new("[table.events]\n[table.hits]\npath = \"/hits\"\n[table.gone]\n[table.narrow]\n");
    clickhouse.query(&format!(
        "CREATE TABLE {database}.narrow (event String, ip IPv4) {}",
        "ENGINE = MergeTree ORDER BY event"
    ));
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool").to_string_lossy().into_owned();
    let check = |only: &[&str]| {
        let url = clickhouse.url();
        let settings = ["--clickhouse-url", &url, "--database", &database, "--spool-dir", &spool];
        let addresses = ["--listen", "[::]:0", "--admin-listen", "127.0.0.1:0"];
        let file = ["check", "--config", &file.path];
        run(&[&file[..], &settings, &addresses, only].concat())
    };
    let (ok, said, _) = check(&[]);
    assert!(ok && said.contains("serve would work"), "{said}");
    for part in [
        "table events at /api/events:",
        "table hits at /hits:",
        "table events: would take events",
        "table hits: would take events",
        "table gone: would NOT take events",
        "table narrow: would NOT take events",
        "is missing; `serve` would create it",
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let (ok, said, _) = check(&["--only", "hits"]);
    assert!(ok && !said.contains("gone"), "{said}");
    let (ok, said, _) = check(&["--only", "gone", "--only", "narrow"]);
    assert!(!ok && said.contains("none of these tables would take events"), "{said}");
    assert_eq!(
        clickhouse.query(&format!("SHOW TABLES FROM {database}")).trim(),
        "hits\nnarrow",
        "looking makes nothing"
    );
}

#[test]
fn the_table_of_one_section_is_served_at_its_path_and_at_that_of_events() {
    let clickhouse = shared_clickhouse();
    let (database, other) = (clickhouse.database(), format!("{}_web", clickhouse.database()));
    clickhouse.query(&format!("CREATE DATABASE {other}"));
    create(&format!("{other}.hits"));
    let file = File::new(&format!(
        "batch-rows = 100000\n[table.\"{other}.hits\"]\npath = \"/collect/hits\"\nbatch-rows = 2\n"
    ));
    let server = Server::start(clickhouse, &database, &["--config", &file.path, "--batch-age", "1h"]);
    let events = |path: &str| post(server.address(), path, b"{\"event\":\"a\"}").status;
    // The section's two rows, not the file's 100000, make an INSERT.
    assert_eq!([events("/collect/hits"), events("/api/events"), events("/api/hits")], [200, 200, 404]);
    server.wait_for_rows(clickhouse, &format!("{other}.hits"), 2);
    // An INSERT is counted a moment after its rows are there.
    let counted = || {
        let metrics = server.metrics();
        let inserted = metrics["sluicegate_events_inserted_total{table=\"hits\"}"];
        let account = metrics["sluicegate_ledger_events{table=\"hits\",account=\"inserted\"}"];
        [inserted, account]
    };
    wait_for(|| format!("{:?}", counted()), || (counted() == [2.0, 2.0]).then_some(()));
    for path in ["/api/hits", "/api/events"] {
        let found = get(server.admin_address(), path);
        assert_eq!((found.status, found.text().lines().count()), (200, 2), "{path}: {}", found.text());
    }
    assert_eq!(get(server.admin_address(), "/collect/hits").status, 404);
    assert!(server.log().contains(&format!("[table.\\\"{other}.hits\\\"]={{")), "{}", server.log());
    assert_eq!(clickhouse.query(&format!("SHOW TABLES FROM {other}")).trim(), "hits\nhits_quarantine");
    assert!(server.stop().success());
}

#[test]
fn a_hang_up_names_the_sections_that_a_restart_would_change_and_changes_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let file = File::new("[table.events]\n");
    let server = Server::start(clickhouse, &database, &["--config", &file.path]);
    let hang_up = |text: &str, expected: &str| {
        file.write(text);
        server.signal(rustix::process::Signal::HUP);
        wait_for(
            || format!("{expected} is missing:\n{}", server.log()),
            || server.log().contains(expected).then_some(()),
        );
    };
    hang_up("[table.events]\n", "the file has the same [table.NAME] sections");
    hang_up("[table.events]\npath = \"/in\"\n[table.hits]\n", "[table.events] is changed, [table.hits] is new");
    hang_up("[table.events]\nbatch-rows = 0", "the file can't be used; nothing is changed");
    let status = |path: &str| post(server.address(), path, b"{\"event\":\"a\"}").status;
    assert_eq!([status("/api/events"), status("/in"), status("/api/hits")], [200, 404, 404]);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    assert!(server.stop().success());
}
