//! `/stats`: what it says of tables, held blocks, servers and the spool, and that every figure in it is true.

use serde_json::{Value, json};

use crate::support::{Server, free_address, post, run, shared_clickhouse, wait_for};

fn stats(server: &Server) -> Value {
    let page = server.admin_get("/stats");
    assert_eq!(page.status, 200, "{}", page.text());
    serde_json::from_slice(&page.body).unwrap()
}

/// Waits until `/stats` has this at a JSON pointer.
fn wait_for_value(server: &Server, pointer: &str, expected: &Value) -> Value {
    let found = || stats(server).pointer(pointer).cloned().unwrap_or_default();
    wait_for(
        || format!("{pointer} is {} instead of {expected}:\n{}", found(), server.log()),
        || {
            let stats = stats(server);
            (stats.pointer(pointer) == Some(expected)).then_some(stats)
        },
    )
}

#[test]
fn a_held_block_is_there_with_its_reason_and_the_command_that_sends_it() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--batch-age", "50ms"]);
    let empty = stats(&server);
    assert_eq!((&empty["held"], &empty["ready"], &empty["reason"]), (&json!([]), &json!(true), &Value::Null));
    assert_eq!(empty["warnings"], json!([]));
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"a\",\"session\":\"16\"}").status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);

    // Rows that were encoded for a column of another type need an order of the operator.
    clickhouse.query(&format!("ALTER TABLE {database}.events MODIFY COLUMN session Int32"));
    let body = b"{\"event\":\"b\",\"session\":\"17\"}\n{\"event\":\"c\",\"session\":\"18\"}\nbad";
    assert_eq!(post(server.address(), "/api/events", body).status, 200);
    let stats = wait_for_value(&server, "/tables/0/held", &json!(1));
    let held = &stats["held"][0];
    let block = held["block"].as_str().unwrap();
    assert_eq!((&held["table"], &held["rows"], &held["rejected"]), (&json!("events"), &json!(2), &json!(1)));
    assert!(held["bytes"].as_u64().unwrap() > 0 && held["since_unix_ms"].as_u64() <= stats["unix_ms"].as_u64());
    let reason = held["reason"].as_str().unwrap();
    assert!(reason.contains("`session` was String and is Int32"), "{reason}");
    assert_eq!(held["command"], format!("sluicegate spool requeue --block {block} --convert"));
    assert_eq!(stats["figures"]["blocks_held"], 1.0);
    assert_eq!(stats["figures"]["table_blocks_held"]["events"], 1.0);
    let warning = format!("block {block} is held: {reason}");
    assert_eq!(stats["warnings"], json!([warning]));
    let ready: Value = serde_json::from_slice(&server.admin_get("/readyz").body).unwrap();
    assert_eq!(ready["warnings"], stats["warnings"], "the same as /readyz");

    // The command helps.
    let admin = server.admin_address().to_string();
    let command = held["command"].as_str().unwrap().split(' ').skip(1);
    let arguments: Vec<&str> = command.chain(["--admin-listen", &admin]).collect();
    let (ok, said, error) = run(&arguments);
    assert!(ok, "{said}{error}");
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 3);
    wait_for_value(&server, "/held", &json!([]));
}

#[test]
fn tables_servers_spool_and_node_are_described() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let away = format!("http://{}", free_address());
    let url = clickhouse.url();
    let urls = ["--clickhouse-url", &url, "--clickhouse-url", &away];
    let flags = ["--spool-bytes-max", "2GiB", "--disk-free-min", "3MiB", "--inserters", "3"];
    let flags = [&urls[..], &flags, &["--node-id", "a-node", "--batch-age", "50ms"]].concat();
    let server = Server::start(clickhouse, &database, &flags);
    wait_for_value(&server, "/servers/0/answers", &json!(true));
    let stats = wait_for_value(&server, "/servers/1/answers", &json!(false));
    let version = clickhouse.query("SELECT version()").trim().to_owned();
    let servers = &stats["servers"];
    assert_eq!(servers[0], json!({"url": clickhouse.url() + "/", "answers": true, "version": version, "error": null}));
    assert!(servers[1]["error"].as_str().unwrap().contains("no connection"), "{servers}");
    let stats = wait_for_value(&server, "/tables/0/guarantee/level", &json!("exactly_once"));
    let table = &stats["tables"][0];
    assert_eq!(stats["tables"].as_array().unwrap().len(), 1);
    for (name, expected) in [
        ("label", json!("events")),
        ("table", json!(format!("{database}.events"))),
        ("path", json!("/api/events")),
        ("available", json!(true)),
        ("reason", Value::Null),
        ("spooled", json!(0)),
        ("spool_bytes", json!(0)),
        ("spool_bytes_max", json!(2u64 << 30)),
        ("held", json!(0)),
        ("quarantine", json!(format!("{database}.events_quarantine"))),
    ] {
        assert_eq!(table[name], expected, "{name}");
    }
    assert_eq!(table["guarantee"]["fix"], Value::Null);
    assert!(table["guarantee"]["text"].as_str().unwrap().contains("repeat"));
    let spool = &stats["spool"];
    assert_eq!((&spool["bytes_max"], &spool["disk_free_min_bytes"]), (&json!(2u64 << 30), &json!(3u64 << 20)));
    assert_eq!(spool["bytes"].as_f64(), stats["figures"]["spool_bytes"].as_f64());
    wait_for(|| stats.to_string(), || self::stats(&server)["spool"]["disk_free_bytes"].is_u64().then_some(()));
    assert_eq!((&stats["node"], &stats["version"]), (&json!("a-node"), &json!(env!("CARGO_PKG_VERSION"))));
    assert!(stats["started_unix_ms"].as_u64() <= stats["unix_ms"].as_u64());
    assert_eq!(stats["inserters"], json!({"count": 3, "busy": 0}));

    // A table without a window has a lesser guarantee, and the statement that fixes it.
    clickhouse.query(&format!("ALTER TABLE {database}.events MODIFY SETTING non_replicated_deduplication_window = 0"));
    let server = server.restart();
    let stats = wait_for_value(&server, "/tables/0/guarantee/level", &json!("at_least_once"));
    let fix = stats["tables"][0]["guarantee"]["fix"].as_str().unwrap();
    clickhouse.query(fix);
    wait_for_value(&server, "/tables/0/guarantee/level", &json!("exactly_once"));
}
