//! Starts, stops, settings, and the admin address.

use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{ClickHouse, Connection, Server, Variant, each_engine, post, shared_clickhouse, wait_for};

each_engine!(
    a_stop_answers_what_was_begun_and_inserts_what_is_spooled,
    a_request_on_an_open_connection_is_served_while_stopping,
    a_first_start_without_clickhouse_says_so_and_takes_no_connection,
    a_second_server_on_the_port_or_the_spool_stops_with_a_sentence,
    settings_come_from_flag_environment_and_file_in_that_order,
    the_admin_address_shows_what_happened,
    a_full_spool_is_503_and_takes_events_again_by_itself,
);

fn a_stop_answers_what_was_begun_and_inserts_what_is_spooled(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--batch-age", "1h"]));
    let mut begun = Connection::open(server.address());
    let mut idle = Connection::open(server.address());
    begun.send(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\n\r\n{\"event\":");
    idle.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.read_response().status, 200);
    let stopping = server.begin_stop();
    stopping.wait_until_unready();
    begun.send(b"\"begun\"}");
    let reply = begun.read_response();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(idle.is_closed_within(Duration::from_secs(5)));
    assert!(stopping.wait().success());
    let events = clickhouse.query(&format!("SELECT event FROM {database}.events FORMAT TSV"));
    assert_eq!(events.trim(), "begun");
}

fn a_request_on_an_open_connection_is_served_while_stopping(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let mut open = Connection::open(server.address());
    open.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(open.read_response().status, 200);
    let stopping = server.begin_stop();
    stopping.wait_until_unready();
    open.send(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{\"event\":\"end\"}");
    let reply = open.read_response();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(stopping.wait().success());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "1");
}

#[test]
fn an_interrupt_stops_in_order_and_a_second_signal_ends_at_once_and_loses_nothing() {
    let clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &["--batch-age", "1h"]);
    server.signal(Signal::INT);
    assert!(server.wait_for_end().success());
    server = server.start_again();
    clickhouse.pause();
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"kept\"}").status, 200);
    // The stop waits for ClickHouse.
    server.signal(Signal::TERM);
    wait_for(|| server.log(), || (server.admin_get("/readyz").status == 503).then_some(()));
    server.signal(Signal::INT);
    assert_eq!(server.wait_for_end().code(), Some(130));
    clickhouse.resume();
    server = server.start_again();
    assert!(server.stop().success());
    assert_eq!(clickhouse.query(&format!("SELECT event FROM {database}.events FORMAT TSV")).trim(), "kept");
}

#[test]
fn a_stop_does_not_wait_for_inserts_that_do_not_get_through() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let flags = ["--shutdown-timeout", "1h", "--batch-age", "50ms", "--batch-rows", "1"];
    let mut server = Server::start(&clickhouse, &database, &flags);
    for (rows, is_silent) in [(200, false), (2, true)] {
        if is_silent {
            clickhouse.pause();
        } else {
            clickhouse.kill();
        }
        for sequence in 0..rows {
            let body = format!("{{\"sequence\":{sequence}}}\nbad");
            assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
        }
        server.signal(Signal::TERM);
        assert!(server.wait_for_end().success());
        assert!(server.log().contains("stopped; the spooled events are inserted after the next start"));
        if is_silent {
            clickhouse.resume();
        } else {
            clickhouse.restart();
        }
        server = server.start_again();
        server.wait_until_drained();
    }
    assert!(server.stop().success());
    let rows = clickhouse.query(&format!("SELECT count(), uniqExact(sequence) FROM {database}.events FORMAT TSV"));
    assert_eq!(rows.trim(), "202\t200");
}

#[test]
fn what_is_in_the_spool_is_its_owners_alone() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &["--dedup-field", "session", "--batch-rows", "1"]);
    let send = |key: &str| {
        let body = format!("{{\"session\":\"{key}\"}}\nbad");
        let head = "POST /api/events HTTP/1.1\r\nHost: a";
        let mut connection = Connection::open(server.address());
        connection.send(
            format!("{head}\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
        );
        assert_eq!(connection.read_response().status, 200);
    };
    send("inserted");
    server.wait_for_rows(&clickhouse, &format!("{database}.events_quarantine"), 1);
    clickhouse.kill();
    (1..9).for_each(|number| send(&number.to_string()));
    let found = || {
        let mut found = Vec::new();
        let mut folders = vec![server.spool_dir()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                // What is renamed or taken away meanwhile is found by another look.
                let Ok((path, metadata)) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) else {
                    continue;
                };
                folders.extend(metadata.is_dir().then(|| path.clone()));
                let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
                found.push(path.strip_prefix(server.spool_dir()).unwrap().to_string_lossy().into_owned());
            }
        }
        found
    };
    let expected = [
        "node-id",
        "lock",
        "keys/",
        ".log",
        "events/schema.json",
        ".segment",
        "state/0",
        "state/1",
        "damaged",
        "log/recycled",
        "events/seen/",
    ];
    wait_for(
        || format!("{:?}\n{}", found(), server.log()),
        || {
            let found = found();
            expected.iter().all(|part| found.iter().any(|path| path.contains(part))).then_some(())
        },
    );
}

fn a_first_start_without_clickhouse_says_so_and_takes_no_connection(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    clickhouse.kill();
    let server = Server::start_unready(&clickhouse, &database, &variant.and(&[]));
    assert_eq!(server.admin_get("/livez").status, 200);
    let ready = server.admin_get("/readyz");
    assert!(ready.status == 503 && ready.text().contains("\"starting\""), "{}", ready.text());
    assert!(Connection::try_open(server.address()).is_none(), "a connection is taken that nobody serves");
    let (status, log) = Server::expect_failure(
        &clickhouse,
        &database,
        &variant.and(&["--admin-listen", &server.admin_address().to_string()]),
    );
    assert!(!status.success() && log.contains("in use"), "{log}");
    clickhouse.restart();
    server.wait_until_ready();
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"first\"}").status, 200);
    assert!(server.stop().success());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "1");
}

#[test]
fn a_login_that_is_refused_ends_a_first_start_and_no_later_one() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let wrong = ["--clickhouse-user", "nobody"];
    let (status, log) = Server::expect_failure(clickhouse, &database, &wrong);
    assert!(!status.success() && log.contains("Authentication failed"), "{log}");
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool").to_string_lossy().into_owned();
    let own = ["--spool-dir", &spool];
    assert!(Server::start(clickhouse, &database, &own).stop().success());
    let server = Server::start(clickhouse, &database, &[&own[..], &wrong].concat());
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"kept\"}").status, 200);
    wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("is held").then_some(()));
    drop(server);
    let server = Server::start(clickhouse, &database, &own);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    assert!(server.stop().success());
}

fn a_second_server_on_the_port_or_the_spool_stops_with_a_sentence(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let (status, log) =
        Server::expect_failure(clickhouse, &database, &variant.and(&["--listen", &server.address().to_string()]));
    assert!(!status.success() && log.contains("in use"), "{log}");
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let (status, log) = Server::expect_failure(clickhouse, &database, &variant.and(&["--spool-dir", &spool]));
    assert!(!status.success() && log.contains("lock"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start_unheard(clickhouse, &database, &["--log-level", "debug"]);
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"unheard\"}").status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    assert!(server.stop().success());
}

fn settings_come_from_flag_environment_and_file_in_that_order(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "events-max = 2\nline-bytes-max = \"30B\"\nbody-bytes-max = \"1KiB\"\n").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let server = Server::start_with_environment(
        clickhouse,
        &database,
        &variant.and(&["--config", &path, "--body-bytes-max", "64B"]),
        &[("SLUICEGATE_EVENTS_MAX", "3"), ("SLUICEGATE_BODY_BYTES_MAX", "128B")],
    );
    let status = |body: &[u8]| post(server.address(), "/api/events", body).status;
    assert_eq!(status(b"{}\n{}\n{}"), 200);
    assert_eq!(status(b"{}\n{}\n{}\n{}"), 413);
    assert_eq!(status(&[b' '; 65]), 413);
    let long = post(server.address(), "/api/events", b"{\"event\":\"0123456789012345678901234\"}");
    assert!(long.text().contains("line_too_long"), "{}", long.text());
    std::fs::write(file.path(), "event-max = 2\n").unwrap();
    let (status, log) = Server::expect_failure(clickhouse, &database, &variant.and(&["--config", &path]));
    assert!(!status.success() && log.contains("`event-max`") && log.contains("`events-max`"), "{log}");
    let (status, log) = Server::expect_failure(clickhouse, &database, &variant.and(&["--batch-rows", "2000000"]));
    assert!(!status.success() && log.contains("--batch-rows"), "{log}");
}

fn the_admin_address_shows_what_happened(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let body =
        b"{\"event\":\"a\",\"sequence\":1}\n{\"event\":\"b\",\"sequence\":2}\n{\"event\":\"b\",\"sequence\":3}\nbad";
    assert_eq!(post(server.address(), "/api/events", body).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 3);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);

    for path in ["/livez", "/readyz", "/healthz", "/health", "/ping", "/version"] {
        assert_eq!(server.admin_get(path).status, 200, "{path}");
    }
    assert!(server.admin_get("/readyz").text().contains("\"warnings\":[]"));
    assert!(server.admin_get("/version").text().contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(server.admin_get("/nothing").status, 404);
    assert_eq!(post(server.admin_address(), "/nothing", b"").status, 404);
    assert_eq!(server.admin_get("/%6civez").status, 200);
    for (request, methods) in [("POST /livez", "GET, HEAD"), ("GET /spool/requeue", "POST")] {
        let mut connection = Connection::open(server.admin_address());
        connection.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").as_bytes());
        let response = connection.read_response();
        assert_eq!((response.status, response.header("allow")), (405, Some(methods)), "{request}");
    }

    let newest = |query: &str| server.admin_get(&format!("/api/events{query}"));
    assert_eq!(newest("").text().lines().count(), 3);
    assert_eq!(newest("?limit=2").text().lines().count(), 2);
    let filtered = newest("?event=b&sequence=3");
    let row: serde_json::Value = serde_json::from_str(filtered.text().trim()).unwrap();
    assert_eq!(
        (row["event"].as_str(), row["sequence"].as_i64(), row["ip"].as_str()),
        (Some("b"), Some(3), Some("127.0.0.1"))
    );
    assert_eq!(newest("?since=2020-01-01T00:00:00Z").text().lines().count(), 3);
    assert_eq!(newest("?since=2100-01-01T00:00:00Z").text().lines().count(), 0);
    assert_eq!(newest("?event=%27%20OR%201=1%20--").text(), "");
    for wrong in ["?limit=0", "?limit=10001", "?limit=x", "?nocolumn=1", "?since=never", "?event=%zz"] {
        let reply = newest(wrong);
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text());
        let json: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
        assert!(json["error"] == "bad_query" && json["message"].is_string(), "{json}");
        assert!(!reply.text().contains("DB::") && !reply.text().contains("parseDateTime"), "{json}");
    }
    assert_eq!(newest("?since=1500000000").text().lines().count(), 3);

    let exposed = server.admin_get("/metrics");
    assert_eq!(exposed.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (name, kind) in [
        ("requests_total", "counter"),
        ("events_received_total", "counter"),
        ("events_accepted_total", "counter"),
        ("events_rejected_total", "counter"),
        ("events_inserted_total", "counter"),
        ("events_quarantined_total", "counter"),
        ("events_spooled", "gauge"),
        ("spool_bytes", "gauge"),
        ("spool_oldest_seconds", "gauge"),
        ("connections", "gauge"),
        ("inserts_total", "counter"),
        ("shed_total", "counter"),
        ("request_seconds", "histogram"),
        ("commit_seconds", "histogram"),
        ("insert_seconds", "histogram"),
        ("build_info", "gauge"),
    ] {
        assert!(exposed.text().contains(&format!("\n# TYPE sluicegate_{name} {kind}\n")), "{name}: {}", exposed.text());
    }

    let metrics = server.metrics();
    let value =
        |series: &str| metrics.get(series).copied().unwrap_or_else(|| panic!("{series} is missing: {metrics:?}"));
    assert_eq!(value("sluicegate_requests_total{code=\"200\"}"), 1.0);
    assert_eq!(value("sluicegate_events_received_total"), 4.0);
    assert_eq!(value("sluicegate_events_accepted_total"), 3.0);
    assert_eq!(value("sluicegate_events_rejected_total{code=\"invalid_json\"}"), 1.0);
    assert_eq!(value("sluicegate_events_inserted_total{table=\"events\"}"), 3.0);
    assert_eq!(value("sluicegate_events_quarantined_total"), 1.0);
    assert_eq!(value("sluicegate_events_spooled"), 0.0);
    assert!(value("sluicegate_inserts_total{table=\"events\",outcome=\"done\"}") >= 1.0);
    assert!(value("sluicegate_spool_bytes") > 0.0);
    assert_eq!(value("sluicegate_shed_total{reason=\"spool_full\"}"), 0.0);
    for histogram in ["request", "commit", "insert"] {
        assert!(value(&format!("sluicegate_{histogram}_seconds_count")) >= 1.0);
    }
    assert_eq!(value(&format!("sluicegate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    value("sluicegate_spool_oldest_seconds");
    value("sluicegate_connections");
}

#[test]
fn a_page_from_elsewhere_changes_nothing_at_the_admin_address() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let admin = server.admin_address();
    let requeue = |headers: &str| {
        let mut connection = Connection::open(admin);
        let head = format!("POST /spool/requeue?force=1 HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n");
        connection.send(head.as_bytes());
        connection.read_response()
    };
    let host = format!("Host: {admin}\r\n");
    for elsewhere in [
        format!("{host}Origin: http://elsewhere.example\r\n"),
        format!("{host}Origin: null\r\n"),
        format!("{host}Origin: http://{}\r\n", server.address()),
        format!("{host}Sec-Fetch-Site: cross-site\r\n"),
        format!("{host}Sec-Fetch-Site: same-site\r\n"),
        format!("{host}Origin: http://{admin}\r\nSec-Fetch-Site: cross-site\r\n"),
        "Host: rebound.example\r\nOrigin: http://rebound.example\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
    ] {
        let reply = requeue(&elsewhere);
        assert_eq!(reply.status, 403, "{elsewhere}{}", reply.text());
        let json: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
        let error = if elsewhere.contains("Host: rebound") { "foreign_host" } else { "cross_site" };
        assert!(json["error"] == error && json["message"].is_string(), "{json}");
    }
    for own in [
        host.clone(),
        format!("{host}Origin: http://{admin}\r\nSec-Fetch-Site: same-origin\r\n"),
        format!("{host}Sec-Fetch-Site: none\r\n"),
    ] {
        assert_eq!(requeue(&own).status, 200, "{own}");
    }
}

fn a_full_spool_is_503_and_takes_events_again_by_itself(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(
        &clickhouse,
        &database,
        &variant.and(&["--spool-bytes-max", "3MiB", "--batch-bytes", "1MiB", "--disk-free-min", "1B"]),
    );
    clickhouse.kill();
    let body = format!("{{\"event\":\"full\",\"param_str\":\"{}\"}}\n", "x".repeat(1000)).repeat(200);
    let mut accepted = 0;
    let refused = (0..100).find_map(|_| {
        let reply = post(server.address(), "/api/events", body.as_bytes());
        accepted += u64::from(reply.status == 200) * 200;
        (reply.status != 200).then_some(reply)
    });
    let refused = refused.expect("the spool never fills");
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("spool_full") && refused.header("retry-after").is_some());
    let ready = server.admin_get("/readyz");
    assert!(ready.status == 503 && ready.text().contains("of 3145728 bytes"), "{}", ready.text());
    assert!(
        ready.text().contains("--spool-bytes-max") && server.log().contains("events are refused"),
        "{}",
        server.log()
    );
    assert!(accepted > 0);
    clickhouse.restart();
    for _ in 0..200 {
        let reply = post(server.address(), "/api/events", body.as_bytes());
        if reply.status == 200 {
            accepted += 200;
            assert_eq!(server.admin_get("/readyz").status, 200);
            wait_for(|| server.log(), || server.log().contains("events are taken again").then_some(()));
            assert!(server.stop().success());
            let count = clickhouse.query(&format!("SELECT count() FROM {database}.events"));
            assert_eq!(count.trim(), accepted.to_string());
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("the server takes no events again:\n{}", server.log());
}
