//! What commands report to programs (`--json`), and `check` beside a running server.

use serde_json::Value;

use crate::support::{ClickHouse, Server, post, run, shared_clickhouse, wait_for};

fn json(arguments: &[&str]) -> (bool, Value) {
    let (ok, said, error) = run(&[arguments, &["--json"]].concat());
    assert_eq!(said.lines().count(), 1, "{said}{error}");
    (ok, serde_json::from_str(&said).unwrap_or_else(|wrong| panic!("{wrong}: {said}{error}")))
}

/// The flags by which a command finds a server and its spool.
fn flags(clickhouse: &ClickHouse, database: &str, server: &Server) -> Vec<String> {
    let pairs = [
        ("--clickhouse-url", clickhouse.url()),
        ("--database", database.to_owned()),
        ("--spool-dir", server.spool_dir().to_string_lossy().into_owned()),
        ("--listen", server.address().to_string()),
        ("--admin-listen", server.admin_address().to_string()),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn command<'a>(words: &[&'a str], flags: &'a [String]) -> Vec<&'a str> {
    words.iter().copied().chain(flags.iter().map(String::as_str)).collect()
}

#[test]
fn check_says_to_programs_all_that_it_says_to_operators() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.weak (event String DEFAULT 'none', ip String, server_time DateTime('UTC')) \
         ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY event"
    ));
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool").to_string_lossy().into_owned();
    let url = clickhouse.url();
    let check = ["check", "--clickhouse-url", &url, "--database", &database, "--spool-dir", &spool];
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let (ok, report) = json(&[&check[..], &free, &["--table", "weak"]].concat());
    assert!(ok && report["works"] == true && report["running"] == false, "{report}");
    assert_eq!(report["clickhouse"]["url"], format!("{url}/"));
    assert_eq!(report["clickhouse"]["version"], clickhouse.query("SELECT version()").trim());
    let table = &report["tables"][0];
    let name = format!("{database}.weak");
    for (key, value) in [
        ("table", Value::from(name)),
        ("label", "weak".into()),
        ("path", "/api/weak".into()),
        ("works", true.into()),
        ("engine", "MergeTree".into()),
        ("partition_key", "toYYYYMM(server_time)".into()),
        ("dedup_window", Value::Null),
        ("quarantine", Value::Null),
    ] {
        assert_eq!(table[key], value, "{key}: {table}");
    }
    assert_eq!(
        table["columns"],
        serde_json::json!([
            {"name": "event", "type": "String", "source": "the event's field of this name", "default": "'none'"},
            {"name": "ip", "type": "String", "source": "the client's address", "default": null},
            {"name": "server_time", "type": "DateTime('UTC')", "source": "the server's clock", "default": null},
        ])
    );
    assert_eq!(table["guarantee"]["level"], "at_least_once");
    // The statement that it names does fix it.
    clickhouse.query(table["guarantee"]["fix"].as_str().unwrap());
    let (_, after) = json(&[&check[..], &free, &["--table", "weak"]].concat());
    let table = &after["tables"][0];
    assert_eq!((&table["guarantee"]["level"], &table["dedup_window"]), (&"exactly_once".into(), &10_000.into()));
    assert!(table["horizon_seconds"].as_f64().unwrap() > 60.0, "{table}");

    let disk = &report["disk"];
    let ms = |key: &str| disk[key].as_f64().unwrap();
    assert!(0.0 < ms("sync_p50_ms") && ms("sync_p50_ms") <= ms("sync_p99_ms"), "{disk}");
    assert!(["good", "usable", "slow"].contains(&disk["verdict"].as_str().unwrap()), "{disk}");
    assert!(
        report["files_limit"].as_u64().unwrap() > 100 && report["memory"]["sum_bytes"].as_u64().unwrap() > 256 << 20
    );
    for finding in report["findings"].as_array().unwrap() {
        assert!(["info", "warning", "error"].contains(&finding["severity"].as_str().unwrap()), "{finding}");
        assert!(finding["topic"].is_string() && finding["message"].is_string() && finding.get("fix").is_some());
    }
    let guarantee = report["findings"].as_array().unwrap().iter().find(|found| !found["fix"].is_null()).unwrap();
    assert_eq!((&guarantee["severity"], &guarantee["topic"]), (&"warning".into(), &"guarantee".into()));

    // More than the machine has.
    let (ok, said, _) = run(&[&check[..], &free, &["--in-flight-bytes-max", "100TiB", "--table", "weak"]].concat());
    assert!(ok && said.contains("which is less: the kernel may kill the server"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours but for a terminal");
    let (ok, report) = json(&[&check[..], &free, &["--table", "missing"]].concat());
    assert!(!ok && report["works"] == false && report["tables"][0]["works"] == false, "{report}");
    let (ok, report) = json(&[&check[..], &free].concat());
    assert!(ok && report["tables"][0]["works"] == true && report["tables"][0]["engine"].is_null(), "{report}");
    assert!(report["clickhouse"]["version"].is_string(), "{report}");
}

#[test]
fn check_says_that_a_server_runs_on_this_configuration_and_that_is_no_error() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let flags = flags(clickhouse, &database, &server);
    let check = command(&["check"], &flags);
    let (ok, said, _) = run(&check);
    assert!(ok && said.contains("runs on this configuration, at 127.0.0.1:"), "{said}");
    assert!(said.contains("guarantee: exactly once") && said.contains("after a restart, serve would work"), "{said}");
    let (ok, report) = json(&check);
    assert!(ok && report["running"] == true && report["works"] == true, "{report}");
    // A server on another spool is none of this one, though the admin address is the same.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = [&check[..], &["--spool-dir", elsewhere.path().to_str().unwrap()]].concat();
    let other: Vec<&str> =
        other.iter().enumerate().filter(|(at, _)| !(5..7).contains(at)).map(|(_, word)| *word).collect();
    let (ok, said, _) = run(&other);
    assert!(!ok && said.contains("is in use") && !said.contains("runs on this"), "{said}");
    // What is wrong beside is an error still.
    let (ok, report) = json(&[&check[..], &["--table", "missing"]].concat());
    assert!(!ok && report["running"] == true && report["works"] == false, "{report}");
    assert!(server.stop().success());
}

#[test]
fn what_waits_is_listed_and_verified_for_programs() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &["--inserters", "1"]);
    let flags = flags(&clickhouse, &database, &server);
    let nothing = serde_json::json!({"events": 0, "rejected": 0, "blocks": []});
    clickhouse.kill();
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"a\"}\n{\"event\":\"b\"}\nbad").status, 200);
    wait_for(
        || server.log(),
        || (server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"] > 0.0).then_some(()),
    );
    server.kill9();
    let (ok, listed) = json(&command(&["spool", "list"], &flags));
    assert!(ok && listed["events"] == 2 && listed["rejected"] == 1, "{listed}");
    let block = &listed["blocks"][0];
    let known = (&block["state"], &block["number"], &block["table"], &block["events"], &block["rejected"]);
    assert_eq!(known, (&"waiting".into(), &"1".into(), &"events".into(), &2.into(), &1.into()), "{listed}");
    assert!(block["token"].is_string() && block["bytes"].as_u64().unwrap() > 0 && block["age_seconds"].is_u64());
    let (ok, verified) = json(&command(&["spool", "verify"], &flags));
    assert!(ok && verified["whole"] == true && verified["blocks"][0]["whole"] == true, "{verified}");
    clickhouse.restart();
    let (ok, _, log) = run(&command(&["drain"], &flags));
    assert!(ok, "{log}");
    assert_eq!(json(&command(&["spool", "list"], &flags)), (true, nothing));

    let (ok, listed) = json(&command(&["quarantine", "list"], &flags));
    let quarantine = &listed["quarantines"][0];
    assert!(ok && quarantine["table"] == "events" && listed["notes"] == serde_json::json!([]), "{listed}");
    assert_eq!(
        (&quarantine["codes"][0]["code"], &quarantine["codes"][0]["lines"]),
        (&"invalid_json".into(), &1.into())
    );
    assert_eq!(quarantine["lines"][0]["line"], "bad");
    let (ok, statements) = json(&command(&["schema"], &flags));
    let set = &statements["sets"][0];
    assert!(ok && set["statements"].as_array().unwrap().len() == 3 && statements["failed"] == serde_json::json!([]));
    assert_eq!(set["servers"], serde_json::json!([format!("{}/", clickhouse.url())]));
}

#[test]
fn suggestions_for_programs_are_statements_that_clickhouse_takes() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let flags = flags(clickhouse, &database, &server);
    assert_eq!(
        post(server.address(), "/api/events", b"{\"event\":\"a\",\"level\":3,\"user\":{\"id\":\"x\"}}").status,
        200
    );
    let (ok, suggested) = json(&command(&["schema", "--suggest"], &flags));
    let all = suggested["suggestions"].as_array().unwrap();
    assert!(ok && !all.is_empty(), "{suggested}");
    for suggestion in all {
        assert!(suggestion["table"] == "events" && suggestion["count"] == 1, "{suggestion}");
        clickhouse.query(suggestion["statement"].as_str().unwrap());
    }
    assert!(all.iter().any(|found| found["field"] == "level" && found["needs_mapping"] == false), "{suggested}");
    assert!(server.stop().success());
}
