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

/// `serve` with an embedded ClickHouse, on folders of its own.
struct Serving {
    folder: tempfile::TempDir,
    clickhouse: SocketAddr,
    events: SocketAddr,
    admin: SocketAddr,
    flags: &'static [&'static str],
}

impl Serving {
    fn new(flags: &'static [&'static str]) -> Self {
        let [clickhouse, events, admin] = [free_address(), free_address(), free_address()];
        Self { folder: tempfile::tempdir().unwrap(), clickhouse, events, admin, flags }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.arg(name).args(self.flags);
        command.args(["--listen", &self.events.to_string(), "--admin-listen", &self.admin.to_string()]);
        command.args(["--clickhouse-url", &format!("http://{}", self.clickhouse), "--embedded"]);
        command.arg(self.folder.path().join("clickhouse")).arg("--spool-dir").arg(self.folder.path().join("spool"));
        command.stderr(Stdio::null());
        command
    }

    fn start(&self) -> Child {
        let server = self.command("serve").spawn().unwrap();
        wait_for(
            || "the server does not answer".to_owned(),
            || {
                TcpStream::connect(self.events).ok()?;
                (get(self.events, "/health").status == 200).then_some(())
            },
        );
        server
    }

    fn send(&self, event: &str) {
        let body = format!("{{\"event\":\"{event}\"}}");
        assert_eq!(post(self.events, "/api/events", body.as_bytes()).status, 200);
    }

    fn events(&self) -> String {
        let clickhouse = ClickHouse::on(&self.folder.path().join("clickhouse"));
        clickhouse.query("SELECT arrayStringConcat(arraySort(groupArray(event)), ' ') FROM events").trim().to_owned()
    }
}

/// The engine that a server has started.
fn engine_of(server: &Child) -> Option<Pid> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        // One that has ended is no engine.
        fields.next() != Some("Z") && fields.next() == Some(&server.id().to_string())
    };
    Pid::from_raw(processes.into_iter().find(is_child)?)
}

#[test]
fn serve_starts_one_again_that_is_killed() {
    let serving = Serving::new(&["--batch-age", "50ms"]);
    let mut server = serving.start();
    serving.send("before");
    for event in ["then", "and again"] {
        let killed = engine_of(&server).unwrap();
        kill_process(killed, Signal::KILL).unwrap();
        wait_for(
            || "it is not started again".to_owned(),
            || engine_of(&server).filter(|engine| *engine != killed && TcpStream::connect(serving.clickhouse).is_ok()),
        );
        serving.send(event);
    }
    kill_process(pid(&server), Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
    wait_until_closed(serving.clickhouse);
    assert_eq!(serving.events(), "and again before then");
}

#[test]
fn one_that_hangs_is_killed_at_the_deadline_of_a_stop_and_drain_starts_one() {
    let serving = Serving::new(&["--shutdown-timeout", "3s"]);
    let mut server = serving.start();
    let engine = engine_of(&server).unwrap();
    kill_process(engine, Signal::STOP).unwrap();
    serving.send("kept");
    kill_process(pid(&server), Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
    assert!(!Path::new(&format!("/proc/{}", engine.as_raw_nonzero())).exists());
    assert!(serving.command("drain").status().unwrap().success());
    wait_until_closed(serving.clickhouse);
    assert_eq!(serving.events(), "kept");
}

#[test]
fn serve_runs_it_and_takes_it_down_last() {
    let serving = Serving::new(&["--batch-age", "1h"]);
    let mut server = serving.start();
    serving.send("last");
    kill_process(pid(&server), Signal::INT).unwrap();
    assert!(server.wait().unwrap().success());
    wait_until_closed(serving.clickhouse);
    // The batch was open when the signal came; ClickHouse was still there to take it.
    assert_eq!(serving.events(), "last");
}
