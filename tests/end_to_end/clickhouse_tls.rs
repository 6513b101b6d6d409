//! `https://` for ClickHouse, and `--clickhouse-ca-file`.

use std::fs;

use crate::support::{Authority, Server, post, run, shared_clickhouse, wait_for};

#[test]
fn everything_that_asks_clickhouse_trusts_the_authority_of_the_file() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let authority = Authority::new();
    let url = authority.front_of(&clickhouse.url());
    let ca_file = authority.ca_file();
    let trust = ["--clickhouse-url", &url, "--clickhouse-ca-file", &ca_file];
    let mut server = Server::start(clickhouse, &database, &[&trust[..], &["--insert-compression", "zstd"]].concat());
    assert_eq!(post(server.address(), "/api/events?ack=inserted", b"{\"event\":\"a\"}\nbad").status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);
    // The admin address, the watcher.
    assert!(server.admin_get("/api/events").text().contains("\"event\":\"a\""));
    clickhouse.query(&format!("ALTER TABLE {database}.events DROP COLUMN session"));
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"b\"}").status, 200);
    wait_for(|| server.log(), || server.log().contains("the table has changed").then_some(()));
    // The commands.
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let admin = server.admin_address().to_string();
    let free = ["--listen", "127.0.0.1:0"];
    let settings = [&trust[..], &["--database", &database, "--admin-listen", &admin]].concat();
    let (ok, said, error) = run(&["spool", "requeue", "--convert", "--admin-listen", &admin]);
    assert!(ok && said.contains("{\"requeued\":1}"), "{said}{error}");
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    let (_, said, error) = run(&[&["check", "--spool-dir", &spool], &settings[..], &free].concat());
    assert!(said.contains("guarantee: exactly once"), "{said}{error}");
    let (ok, said, error) = run(&[&["quarantine", "list"], &settings[..]].concat());
    assert!(ok && said.contains("bad"), "{said}{error}");
    let (ok, said, error) = run(&[&["quarantine", "replay"], &settings[..]].concat());
    assert!(ok && said.contains("1 lines: 0 accepted, 1 rejected again"), "{said}{error}");
    server.kill9();
    let (ok, _, log) = run(&[&["drain", "--spool-dir", &spool], &settings[..]].concat());
    assert!(ok, "{log}");
}

#[test]
fn a_server_that_nobody_vouches_for_gets_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let url = authority.front_of(&clickhouse.url());
    let ca_file = stranger.ca_file();
    let flags = ["--clickhouse-url", &url, "--clickhouse-ca-file", &ca_file];
    let server = Server::start_unready(clickhouse, &database, &flags);
    wait_for(|| server.log(), || server.log().contains("UnknownIssuer").then_some(()));
    assert_eq!(server.admin_get("/readyz").status, 503);
    let spool = authority.path("spool");
    let check = ["check", "--database", &database, "--spool-dir", &spool];
    let (ok, said, _) = run(&[&check, &flags[..]].concat());
    assert!(!ok && said.contains("no connection") && said.contains("UnknownIssuer"), "{said}");
    // Of the right authority, and for another name.
    let ca_file = authority.ca_file();
    let url = url.replace("localhost", "127.0.0.1");
    let flags = ["--clickhouse-url", &url, "--clickhouse-ca-file", &ca_file];
    let (ok, said, _) = run(&[&check, &flags[..]].concat());
    assert!(!ok && said.contains("no connection") && said.contains("certificate"), "{said}");
    assert_eq!(clickhouse.query(&format!("SHOW TABLES FROM {database}")), "");
}

#[test]
fn a_file_without_a_usable_certificate_stops_the_start_with_its_name() {
    let clickhouse = shared_clickhouse();
    let authority = Authority::new();
    let path = authority.path("given.pem");
    let key = fs::read_to_string(authority.issue("other", &["a"]).key).unwrap();
    for (content, reason) in [
        (None, "No such file"),
        (Some(""), "no certificate"),
        (Some(key.as_str()), "no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "can't be used"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), "not in PEM"),
    ] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let flags = ["--clickhouse-ca-file", &path];
        let (status, log) = Server::expect_failure(clickhouse, &clickhouse.database(), &flags);
        let named = format!("--clickhouse-ca-file {path}: ");
        assert!(!status.success() && log.contains(&named) && log.contains(reason), "{reason}: {log}");
        let (ok, said, _) = run(&[&["check", "--spool-dir", &authority.path("spool")], &flags[..]].concat());
        assert!(!ok && said.contains(&named), "{said}");
    }
}
