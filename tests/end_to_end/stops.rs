//! A stop, and `drain`, end while something is held or can't be recovered, and say what is left.

use std::fs;
use std::sync::Arc;

use crate::support::{ClickHouse, Server, SmallDisk, post, post_with, run, shared_clickhouse, wait_for};

/// A stop that waits for what is held takes longer than any test waits.
const PATIENT: [&str; 4] = ["--shutdown-timeout", "1h", "--batch-age", "20ms"];

const ALL_IS_THERE: &str = "every event is in ClickHouse";

fn wait_for_held(server: &Server, count: f64) {
    wait_for(|| server.log(), || (server.metrics()["sluicegate_blocks_held"] == count).then_some(()));
}

fn drain(server: &Server, clickhouse: &ClickHouse, database: &str) -> (bool, String) {
    let (spool, url) = (server.spool_dir().to_string_lossy().into_owned(), clickhouse.url());
    let place = ["--spool-dir", &spool, "--clickhouse-url", &url, "--database", database];
    let (succeeded, _, log) = run(&[&["drain", "--log-format", "json", "--disk-free-min", "0B"][..], &place].concat());
    (succeeded, log)
}

/// A server of which `body` leaves one block that is held, after it was stopped.
fn stopped_with_one_held(clickhouse: &ClickHouse, database: &str, body: &[u8], held: impl FnOnce()) -> Server {
    let server = Server::start(clickhouse, database, &PATIENT);
    held();
    assert!([200, 422].contains(&post(server.address(), "/api/events", body).status));
    wait_for_held(&server, 1.0);
    server.wait_until_nothing_is_in_flight();
    let mut server = server;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_for_end().success());
    server
}

#[test]
fn a_held_block_delays_no_stop_and_no_drain_and_both_say_that_it_is_left() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = stopped_with_one_held(clickhouse, &database, b"{\"sequence\":1}\n{\"sequence\":2}\n", || {
        clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    });
    let last = server.log().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("\"events\":2") && !last.contains(ALL_IS_THERE), "{last}");
    let (succeeded, log) = drain(&server, clickhouse, &database);
    assert!(!succeeded && log.contains("1 blocks are held and need operator action"), "{log}");
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    let (succeeded, log) = drain(&server, clickhouse, &database);
    assert!(succeeded && log.contains("the spool is empty"), "{log}");
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "2");
}

#[test]
fn a_held_rejected_line_delays_no_stop_and_no_drain_and_both_say_that_it_is_left() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = stopped_with_one_held(clickhouse, &database, b"bad\n", || {
        clickhouse.query(&format!("RENAME TABLE {database}.events_quarantine TO {database}.away"));
        clickhouse.query(&format!("CREATE TABLE {database}.events_quarantine (a UInt8) ENGINE = MergeTree ORDER BY a"));
    });
    let last = server.log().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("\"rejected_lines\":1") && !last.contains(ALL_IS_THERE), "{last}");
    let (succeeded, log) = drain(&server, clickhouse, &database);
    assert!(!succeeded && log.contains("1 blocks are held and need operator action"), "{log}");
    clickhouse.query(&format!("DROP TABLE {database}.events_quarantine SYNC"));
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events_quarantine"));
    let (succeeded, log) = drain(&server, clickhouse, &database);
    assert!(succeeded && log.contains("the spool is empty"), "{log}");
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events_quarantine")).trim(), "1");
}

#[test]
fn a_stop_and_a_drain_say_that_a_segment_waits_to_be_recovered() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(8 << 20));
    let flags = [&PATIENT[..2], &["--batch-bytes", "1MiB", "--batch-age", "1h"]].concat();
    let mut server = Server::start_on(&disk, clickhouse, &database, &flags);
    server.wait_until_ready();
    for key in ["one", "two"] {
        let reply =
            post_with(server.address(), "/api/events", &format!("Idempotency-Key: {key}\r\n"), b"{\"event\":\"a\"}");
        assert_eq!(reply.status, 200);
    }
    let room =
        ["spare", "log/00000000000000000002.segment"].map(|name| disk.seen_from_outside().join("spool").join(name));
    wait_for(|| server.log(), || room.iter().all(|path| path.exists()).then_some(()));
    server.kill9();
    // Without the spare room the keys can't be logged, so the segment can't be sealed; nor is there the room
    // of the segment that was ready.
    for path in room {
        fs::remove_file(path).unwrap();
    }
    disk.fill();
    let mut server = server.start_again_unready();
    wait_for(|| server.log(), || server.log().contains("waits for room on the disk to be recovered").then_some(()));
    wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("disk_full").then_some(()));
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_for_end().success());
    let last = server.log().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("\"segments\":1") && !last.contains(ALL_IS_THERE), "{last}");
    let drain = || {
        let mut drain = disk.command(env!("CARGO_BIN_EXE_sluicegate"));
        drain.args(["drain", "--log-format", "json", "--disk-free-min", "0B", "--batch-bytes", "1MiB"]);
        drain.arg("--spool-dir").arg(disk.path().join("spool"));
        let output = drain.args(["--clickhouse-url", &clickhouse.url(), "--database", &database]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (succeeded, log) = drain();
    assert!(!succeeded && log.contains("1 segments that a crash left open can't be recovered"), "{log}");
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "0");
    disk.free();
    let (succeeded, log) = drain();
    assert!(succeeded && log.contains("the spool is empty"), "{log}");
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "2");
}
