//! What the program does besides serving.

use std::os::unix::fs::PermissionsExt;

use crate::support::{ClickHouse, Engine, Server, post, run, shared_clickhouse, wait_for};

fn arguments<'a>(command: &[&'a str], url: &'a str, database: &'a str, spool: &'a str) -> Vec<&'a str> {
    let settings = ["--clickhouse-url", url, "--database", database, "--spool-dir", spool];
    [command, &settings].concat()
}

#[test]
fn version_and_help_say_what_this_is() {
    let (ok, version, _) = run(&["--version"]);
    assert!(ok && version.trim() == format!("sluicegate {}", env!("CARGO_PKG_VERSION")), "{version}");
    let (ok, help, _) = run(&["--help"]);
    for command in ["serve", "check", "schema", "drain", "send", "spool", "quarantine", "clickhouse"] {
        assert!(ok && help.contains(command), "{help}");
    }
    let (ok, help, _) = run(&["serve", "--help"]);
    assert!(ok && help.contains("--batch-rows") && help.contains("500000"), "{help}");
}

#[path = "../../examples/assets.rs"]
#[allow(dead_code, reason = "its main is the example's")]
mod assets;

#[test]
fn man_pages_and_completions_know_every_command_and_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    assets::write(folder.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let completions = ["sluicegate.bash", "_sluicegate", "sluicegate.fish"];
    for command in ["serve", "check", "schema", "drain", "send", "spool", "quarantine", "clickhouse"] {
        assert!(read("sluicegate.1").contains(&format!("sluicegate\\-{command}(1)")), "{command}");
        assert!(completions.iter().all(|name| read(name).contains(command)), "{command}");
    }
    for (page, flag) in [
        ("sluicegate-serve", "batch-rows"),
        ("sluicegate-send", "give-up-after"),
        ("sluicegate-spool-requeue", "force"),
    ] {
        assert!(read(&format!("{page}.1")).contains(&flag.replace('-', "\\-")), "{page}");
        assert!(completions.iter().all(|name| read(name).contains(flag)), "{flag}");
    }
    let bash = std::process::Command::new("bash").arg("-n").arg(folder.path().join("sluicegate.bash")).status();
    assert!(bash.unwrap().success());
}

#[test]
fn schema_prints_statements_that_clickhouse_takes() {
    let clickhouse = shared_clickhouse();
    let database = format!("{}_schema", clickhouse.database());
    let (ok, statements, _) = run(&["schema", "--database", &database]);
    assert!(ok);
    let statements: Vec<&str> = statements.split(";\n").map(str::trim).filter(|text| !text.is_empty()).collect();
    assert_eq!(statements.len(), 3, "{statements:?}");
    for statement in statements {
        clickhouse.query(statement);
    }
    assert_eq!(clickhouse.query(&format!("SHOW TABLES FROM {database}")).trim(), "events\nevents_quarantine");
    let (ok, statements, _) = run(&["schema", "--database", &database, "--table", "other"]);
    assert!(ok && statements.contains("`other_quarantine`") && !statements.contains("`events`"), "{statements}");
}

#[test]
fn check_says_what_will_happen_and_which_guarantee_the_table_gives() {
    let clickhouse = shared_clickhouse();
    let (url, database) = (clickhouse.url(), clickhouse.database());
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool").to_string_lossy().into_owned();
    let check = |table: &str| {
        let mut all = arguments(&["check"], &url, &database, &spool);
        all.extend(["--table", table, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        run(&all)
    };
    let columns = "event String, ip String, server_time DateTime('UTC')";
    let engine = "ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY event";
    clickhouse.query(&format!("CREATE TABLE {database}.weak ({columns}) {engine}"));
    let (ok, said, _) = check("weak");
    assert!(ok, "{said}");
    for part in [
        &format!("ClickHouse {}.", Engine::of_the_tests().name()),
        "event String the event's field",
        "ip String the client's address",
        "MergeTree",
        "toYYYYMM(server_time)",
        "deduplication window: none",
        "at least once",
        "MODIFY SETTING non_replicated_deduplication_window",
        "a sync takes",
        "open files",
        "serve would work",
    ] {
        let squeezed = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed.contains(part), "{part} is missing:\n{said}");
    }
    // The statement that it names does fix it.
    let statement = said.lines().find_map(|line| line.trim().strip_prefix("to fix it: ")).unwrap();
    clickhouse.query(statement);
    let (_, said, _) = check("weak");
    assert!(said.contains("deduplication window: 10000 blocks") && said.contains("exactly once"), "{said}");
    let (ok, said, _) = check("missing");
    assert!(!ok && said.contains("would NOT work"), "{said}");
    let gone = "http://127.0.0.1:1";
    let (ok, said, _) = run(&arguments(&["check"], gone, &database, &spool));
    assert!(!ok && said.contains(gone), "{said}");
    let (ok, said, _) =
        run(&[&arguments(&["check"], &url, &database, &spool)[..], &["--table", "weak", "--dedup-field", "ip"]]
            .concat());
    assert!(!ok && said.contains("--dedup-field ip") && said.contains("would NOT work"), "{said}");
    // Looking changes nothing, and what it makes is its owner's alone.
    assert_eq!(clickhouse.query(&format!("SHOW TABLES FROM {database}")).trim(), "weak");
    assert_eq!(std::fs::metadata(&spool).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
}

#[test]
fn check_says_of_open_files_what_serve_does() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start_after("ulimit -n 500", clickhouse, &database, &[]);
    let log = server.log();
    let (_, lowered) = log.split_once("--connections-max is ").expect("serve lowers it");
    let lowered = lowered.split(' ').next().unwrap();
    let check = |limit: &str| {
        let script =
            format!("ulimit {limit}; exec \"$0\" check --clickhouse-url \"$1\" --database \"$2\" --spool-dir \"$3\"");
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_sluicegate"), &clickhouse.url(), &database]);
        let folder = tempfile::tempdir().unwrap();
        let output = command.arg(folder.path()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (_, said) = check("-n 500");
    assert!(said.contains(&format!("serve lowers --connections-max from 10000 to {lowered}")), "{lowered}: {said}");
    let (works, said) = check("-n 100");
    assert!(!works && said.contains("serve does not start"), "{said}");
    // What counts is the limit that serve raises its own to.
    let (_, said) = check("-S -n 100");
    assert!(!said.contains("serve does not start"), "{said}");
}

#[test]
fn check_tells_what_keeps_serve_from_starting_from_what_does_not() {
    let clickhouse = shared_clickhouse();
    let (url, database) = (clickhouse.url(), clickhouse.database());
    let server = Server::start(clickhouse, &database, &[]);
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("spool").to_string_lossy().into_owned();
    let own = server.spool_dir().to_string_lossy().into_owned();
    let (listen, admin) = (server.address().to_string(), server.admin_address().to_string());
    let check =
        |spool: &str, flags: &[&str]| run(&[&arguments(&["check"], &url, &database, spool)[..], flags].concat());
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let (ok, said, _) = check(&other, &free);
    assert!(ok && said.contains("serve would work"), "{said}");
    let gone = "http://127.0.0.1:1";
    let (ok, said, _) = check(&other, &[&free[..], &["--clickhouse-url", gone]].concat());
    assert!(ok && said.contains(&format!("{gone}/: no connection")) && said.contains("serve would work"), "{said}");
    for (spool, flags, reason) in [
        (&other, &["--listen", &listen, "--admin-listen", "127.0.0.1:0"][..], format!("{listen} is in use")),
        (&other, &["--listen", "127.0.0.1:0", "--admin-listen", &admin], format!("{admin} is in use")),
        (&own, &free, format!("{own}: another process owns it")),
    ] {
        let (ok, said, _) = check(spool, flags);
        assert!(!ok && said.contains(&reason) && said.contains("serve would NOT work"), "{said}");
    }
    assert!(server.stop().success());
    let (ok, said, _) = check(&own, &["--listen", &listen, "--admin-listen", &admin]);
    assert!(ok && said.contains("serve would work"), "{said}");
}

#[test]
fn what_waits_is_listed_verified_and_drained() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &["--inserters", "1"]);
    clickhouse.kill();
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"a\"}\n{\"event\":\"b\"}\nbad").status, 200);
    wait_for(
        || server.log(),
        || (server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"] > 0.0).then_some(()),
    );
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"c\"}").status, 200);
    server.kill9();

    let (url, spool) = (clickhouse.url(), server.spool_dir().to_string_lossy().into_owned());
    let command = |words: &[&str]| run(&arguments(words, &url, &database, &spool));
    let (ok, listed, _) = command(&["spool", "list"]);
    assert!(ok && listed.contains("1: never sent; 2 events, 1 rejected lines"), "{listed}");
    assert!(listed.contains("2: not sealed"), "{listed}");
    let (ok, verified, _) = command(&["spool", "verify"]);
    assert!(ok && verified.contains("1: whole"), "{verified}");

    clickhouse.restart();
    let (ok, _, log) = command(&["drain", "--log-format", "json"]);
    assert!(ok, "{log}");
    let events = clickhouse.query(&format!("SELECT event FROM {database}.events ORDER BY event FORMAT TSV"));
    assert_eq!(events.trim(), "a\nb\nc");
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events_quarantine")).trim(), "1");
    let (ok, listed, _) = command(&["spool", "list"]);
    assert!(ok && listed.trim() == "0 events and 0 rejected lines wait in sealed blocks", "{listed}");
    let (ok, verified, _) = command(&["spool", "verify"]);
    let expected = format!("0 sealed blocks and 0 other files were read in {spool}");
    assert!(ok && verified.trim() == expected, "{verified}");

    let nowhere = format!("{spool}-elsewhere");
    let (ok, _, error) = run(&arguments(&["drain"], &url, &database, &nowhere));
    assert!(!ok && error.contains("there is no spool at"), "{error}");
    assert!(!std::path::Path::new(&nowhere).exists());
}

#[test]
fn requeue_tells_the_running_server_and_fails_for_a_block_that_does_not_wait() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"a\"}").status, 200);
    wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("block 1 is held").then_some(()));
    let admin = server.admin_address().to_string();
    let requeue = |flags: &[&str]| run(&[&["spool", "requeue", "--admin-listen", &admin], flags].concat());
    // The second is how it was called when a block was a segment.
    for flag in ["--block", "--segment"] {
        let (ok, _, error) = requeue(&[flag, "7"]);
        assert!(!ok && error.contains("block 7 does not wait"), "{error}");
    }
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    let (ok, said, _) = requeue(&["--block", "1"]);
    assert!(ok && said.contains("{\"requeued\":1}"), "{said}");
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    let (ok, said, _) = requeue(&[]);
    assert!(ok && said.contains("{\"requeued\":0}"), "{said}");
    assert!(server.stop().success());
}

#[test]
fn verify_finds_a_changed_byte() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &[]);
    clickhouse.kill();
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"changed\"}").status, 200);
    let file = server.spool_dir().join("log/00000000000000000001.segment");
    wait_for(
        || server.log(),
        || (server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"] > 0.0).then_some(()),
    );
    server.kill9();
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|seven| seven == b"changed").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let (ok, verified, _) = run(&arguments(&["spool", "verify"], &clickhouse.url(), &database, &spool));
    assert!(!ok && verified.contains("1: DAMAGED"), "{verified}");
}
