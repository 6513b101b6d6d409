//! Settings of an INSERT that do not arrive as they are sent: nothing is inserted, and everybody is told.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{ClickHouse, Server, post, run, shared_clickhouse, wait_for};

/// A proxy in front of ClickHouse that takes a parameter out of every request, as chproxy does with
/// those that it does not know; until it is told to pass everything on.
struct Dropper {
    url: String,
    drops: Arc<AtomicBool>,
}

impl Dropper {
    fn start(clickhouse: &ClickHouse, parameter: &'static str) -> Self {
        let upstream = clickhouse.url().strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let drops = Arc::new(AtomicBool::new(true));
        let is_on = drops.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (upstream, is_on) = (upstream.clone(), is_on.clone());
                thread::spawn(move || {
                    let server = TcpStream::connect(upstream).unwrap();
                    // One request a connection: the reply ends with it.
                    let _ = pass(client, server, is_on.load(Ordering::SeqCst).then_some(parameter));
                });
            }
        });
        Self { url, drops }
    }

    fn pass_everything(&self) {
        self.drops.store(false, Ordering::SeqCst);
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, parameter: Option<&str>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, fields) = head.split_once("\r\n").unwrap();
    let line = match (parameter, line.split_once('?')) {
        (Some(parameter), Some((path, rest))) => {
            let (query, version) = rest.split_once(' ').unwrap();
            let kept: Vec<&str> = query.split('&').filter(|pair| pair.split('=').next() != Some(parameter)).collect();
            format!("{path}?{} {version}", kept.join("&"))
        }
        _ => line.to_owned(),
    };
    server.write_all(format!("{line}\r\nConnection: close\r\n{fields}").as_bytes())?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

fn warnings(server: &Server) -> String {
    server.admin_get("/readyz").text()
}

#[test]
fn equal_events_behind_a_proxy_that_drops_tokens_are_held_and_not_stored_as_one() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Dropper::start(clickhouse, "insert_deduplication_token");
    let server = Server::start(clickhouse, &database, &["--clickhouse-url", &proxy.url, "--batch-age", "20ms"]);
    for _ in 0..5 {
        assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"same\"}").status, 200);
        thread::sleep(std::time::Duration::from_millis(100));
    }
    wait_for(|| server.log(), || warnings(&server).contains("the token of an INSERT does not arrive").then_some(()));
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "0");
    let spool = server.folder().path().join("check").to_string_lossy().into_owned();
    let (works, said, _) =
        run(&["check", "--clickhouse-url", &proxy.url, "--database", &database, "--spool-dir", &spool]);
    assert!(!works && said.contains("the token of an INSERT does not arrive"), "{said}");
    proxy.pass_everything();
    server.wait_until_drained();
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "5");
}

#[test]
fn a_setting_that_does_not_arrive_is_named() {
    let clickhouse = ClickHouse::start_with_config(
        "<clickhouse>
  <users_config>config.xml</users_config>
  <default_profile>default</default_profile>
  <profiles><default><max_insert_block_size>1000</max_insert_block_size></default></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
  </default></users>
</clickhouse>",
    );
    let database = clickhouse.database();
    let proxy = Dropper::start(&clickhouse, "max_insert_block_size");
    let server = Server::start(&clickhouse, &database, &["--clickhouse-url", &proxy.url, "--batch-age", "20ms"]);
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"one\"}").status, 200);
    wait_for(
        || server.log(),
        || warnings(&server).contains("`max_insert_block_size` of an INSERT is sent as").then_some(()),
    );
    proxy.pass_everything();
    server.wait_until_drained();
}

#[test]
fn a_value_that_clickhouse_can_not_read_is_told_by_check_and_holds_no_event_for_ever() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let setting = |value| [("SLUICEGATE_CLICKHOUSE_SETTING", value)];
    let mut server = Server::start_with_environment(clickhouse, &database, &[], &setting("insert_quorum_timeout=soon"));
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"one\"}").status, 200);
    wait_for(|| server.log(), || warnings(&server).contains("the settings of an INSERT").then_some(()));
    let spool = server.folder().path().join("check").to_string_lossy().into_owned();
    let url = clickhouse.url();
    let arguments = ["check", "--clickhouse-url", &url, "--database", &database, "--spool-dir", &spool];
    let (works, said, _) = run(&[&arguments[..], &["--clickhouse-setting", "insert_quorum_timeout=soon"]].concat());
    assert!(!works && said.contains("the settings of an INSERT"), "{said}");
    // The operator's settings are those of the configuration now, for what is in the spool as well.
    server.kill9();
    server.set_environment(&setting("insert_quorum_timeout=1000"));
    let server = server.start_again();
    server.wait_until_drained();
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "1");
}

/// A user `default` with all rights, and two that can't insert.
const USERS: &str = "<clickhouse>
  <users_config>config.xml</users_config>
  <default_profile>default</default_profile>
  <profiles><default/><reader><readonly>2</readonly></reader></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    </default>
    <reads>
      <password/><networks><ip>::/0</ip></networks><profile>reader</profile><quota>default</quota>
    </reads>
    <selects>
      <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
      <grants><query>GRANT SELECT ON *.*</query></grants>
    </selects>
    <inserts>
      <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
      <grants><query>GRANT SELECT ON *.*</query><query>GRANT INSERT ON *.events</query></grants>
    </inserts>
  </users>
</clickhouse>";

#[test]
fn check_tells_that_a_user_can_not_insert_and_leaves_nothing() {
    let clickhouse = ClickHouse::start_with_config(&USERS.replace("ON *.events", "ON allowed.events"));
    let columns = "event String DEFAULT 'a', n UInt8";
    clickhouse.query("CREATE DATABASE allowed");
    clickhouse.query(&format!("CREATE TABLE allowed.events ({columns}) ENGINE = MergeTree ORDER BY n"));
    clickhouse.query("CREATE TABLE allowed.plain (n UInt8) ENGINE = MergeTree ORDER BY n");
    for table in ["events", "plain"] {
        clickhouse.query(&format!(
            "CREATE TABLE allowed.{table}_quarantine (server_time DateTime('UTC'), ip String, \
             code LowCardinality(String), message String, line String) ENGINE = MergeTree ORDER BY code"
        ));
    }
    let (folder, url) = (tempfile::tempdir().unwrap(), clickhouse.url());
    let spool = folder.path().join("spool").to_string_lossy().into_owned();
    for (user, table, works, expected) in [
        ("default", "events", true, "serve would work"),
        ("default", "plain", true, "serve would work"),
        ("reads", "plain", false, "`readonly` = 0"),
        ("selects", "plain", false, "INSERT"),
        ("inserts", "events", true, "an INSERT into `allowed`.`events_quarantine` would wait"),
    ] {
        let arguments = ["check", "--clickhouse-url", &url, "--database", "allowed", "--spool-dir", &spool];
        let of_user = ["--clickhouse-user", user, "--table", table, "--listen", "127.0.0.1:0", "--admin-listen"];
        let (ok, said, _) = run(&[&arguments[..], &of_user, &["127.0.0.1:0"]].concat());
        assert!(ok == works && said.contains(expected), "{user} {table}: {said}");
        assert_eq!(said.contains("an INSERT into"), user != "default", "{user} {table}: {said}");
    }
    let rows = "SELECT sum(total_rows) FROM system.tables WHERE database = 'allowed'";
    assert_eq!(clickhouse.query(rows).trim(), "0");
}

#[test]
fn check_tells_that_the_disk_has_no_room_for_events() {
    let clickhouse = shared_clickhouse();
    let (database, url, folder) = (clickhouse.database(), clickhouse.url(), tempfile::tempdir().unwrap());
    let spool = folder.path().join("not/there/yet").to_string_lossy().into_owned();
    let arguments = ["check", "--clickhouse-url", &url, "--database", &database, "--spool-dir", &spool];
    let addresses = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for (least, works) in [("1B", true), ("1000000GiB", false)] {
        let (ok, said, _) = run(&[&arguments[..], &addresses, &["--disk-free-min", least]].concat());
        assert!(ok == works && said.contains("lower --disk-free-min") != works, "{least}: {said}");
    }
}
