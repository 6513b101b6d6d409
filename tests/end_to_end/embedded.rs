//! The embedded ClickHouse as a program of its own.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{ClickHouse, free_address, get, post, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use sluicegate::clickhouse::client::{ClickHouse as Client, ClientConfig};
use sluicegate::clickhouse::facts::TableFacts;
use sluicegate::clickhouse::name::TableName;
use sluicegate::clickhouse::trust::Trust;

fn command(path: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(["clickhouse", "--http-port", &address.port().to_string(), "--path"]).arg(path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

fn wait_until_closed(address: SocketAddr) {
    wait_for(|| format!("{address} is still open"), || TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn its_data_outlive_a_stop_and_a_kill() {
    let mut clickhouse = ClickHouse::start();
    assert!(clickhouse.query("SELECT version()").starts_with("26."));
    clickhouse.query("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1");
    clickhouse.query("INSERT INTO default.t SETTINGS async_insert = 0 VALUES (1)");
    clickhouse.kill();
    clickhouse.restart();
    clickhouse.query("INSERT INTO default.t SETTINGS async_insert = 0 VALUES (2)");
    assert_eq!(clickhouse.query("SELECT sum(a) FROM default.t").trim(), "3");
}

/// The name of the deduplication window of `t`, which a server and a table have.
fn window(clickhouse: &ClickHouse) -> String {
    let config = ClientConfig {
        urls: vec![clickhouse.url()],
        user: "default".to_owned(),
        password: None,
        trust: Trust::nobody(),
    };
    let name = TableName { database: "d".to_owned(), table: "t".to_owned() };
    let clients = Client::connect(&config).unwrap();
    TableFacts::ask(&clients[0], &name).unwrap().expect("the table is there").window_name
}

#[test]
fn its_folder_makes_it_the_same_server_and_not_its_url() {
    let folder = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (folder.path().join("clickhouse"), folder.path().join("elsewhere"));
    let mut clickhouse = ClickHouse::on(&path);
    let make = |clickhouse: &ClickHouse| {
        clickhouse.query("CREATE DATABASE d");
        // The same UUID for all, so that only the server makes a difference.
        clickhouse.query(
            "CREATE TABLE d.t UUID '6b1f3a52-7f1e-4a53-9d0b-0c5d1b0f7a11' (a UInt8) ENGINE = MergeTree ORDER BY a \
             SETTINGS non_replicated_deduplication_window = 100",
        );
    };
    make(&clickhouse);
    let first = window(&clickhouse);
    clickhouse.kill();
    fs::rename(&path, &elsewhere).unwrap();
    clickhouse.restart();
    make(&clickhouse);
    assert_ne!(window(&clickhouse), first, "another folder under the same URL");
    assert_eq!(window(&ClickHouse::on(&elsewhere)), first, "the same folder under another URL");
}

#[test]
fn it_says_when_it_is_ready_and_ends_in_order_at_sigterm() {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut child = command(folder.path(), address).stdin(Stdio::null()).spawn().unwrap();
    let mut line = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line[..11], b"ClickHouse ");
    TcpStream::connect(address).unwrap();
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    wait_until_closed(address);
}

#[test]
fn it_ends_when_its_parent_is_killed() {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut child = command(folder.path(), address).stdin(Stdio::null()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    kill_process(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    wait_until_closed(address);
}

#[test]
fn it_says_in_a_sentence_why_it_does_not_start() {
    let clickhouse = ClickHouse::start();
    let folder = tempfile::tempdir().unwrap();
    let said = |output: Output| {
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let address: SocketAddr = clickhouse.url().strip_prefix("http://").unwrap().parse().unwrap();
    let taken = said(command(folder.path(), address).output().unwrap());
    assert!(taken.contains("listens at") && taken.contains(&address.port().to_string()), "{taken}");
    let missing =
        command(folder.path(), free_address()).env("SLUICEGATE_CLICKHOUSE_LIBRARY", "/nowhere/lib.so").output();
    let missing = said(missing.unwrap());
    assert!(missing.contains("make clickhouse"), "{missing}");
    let twice = said(command(&clickhouse.path(), free_address()).output().unwrap());
    assert!(twice.contains("lock"), "{twice}");
}

#[test]
fn serve_runs_it_and_takes_it_down_last() {
    let (folder, clickhouse, events) = (tempfile::tempdir().unwrap(), free_address(), free_address());
    let mut server = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args([
            "serve",
            "--batch-age",
            "1h",
            "--listen",
            &events.to_string(),
            "--admin-listen",
            &free_address().to_string(),
        ])
        .args(["--clickhouse-url", &format!("http://{clickhouse}"), "--embedded"])
        .arg(folder.path().join("clickhouse"))
        .arg("--spool-dir")
        .arg(folder.path().join("spool"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(
        || "the server does not answer".to_owned(),
        || {
            TcpStream::connect(events).ok()?;
            (get(events, "/health").status == 200).then_some(())
        },
    );
    assert_eq!(post(events, "/api/events", b"{\"event\":\"last\"}").status, 200);
    kill_process(pid(&server), Signal::INT).unwrap();
    assert!(server.wait().unwrap().success());
    wait_until_closed(clickhouse);
    // The batch was open when the signal came; ClickHouse was still there to take it.
    let clickhouse = ClickHouse::on(&folder.path().join("clickhouse"));
    assert_eq!(clickhouse.query("SELECT event FROM events").trim(), "last");
}
