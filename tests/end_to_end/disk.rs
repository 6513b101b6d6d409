//! A real disk that is full, read-only or failing: at the start, after a crash, under load; and is
//! well again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::support::{
    ClickHouse, Client, FailingCalls, Load, PATIENCE, Server, SmallDisk, Variant, each_engine, post, post_with,
    shared_clickhouse, wait_for,
};

const SMALL_SEGMENTS: [&str; 2] = ["--batch-bytes", "1MiB"];

const DURABILITIES: [&str; 2] = ["sync", "written"];

fn event(name: &str) -> String {
    format!("{{\"event\":\"{name}\"}}\n")
}

/// An event is refused for this reason, with all that belongs to it.
fn is_refused_because(server: &Server, reason: &str) {
    let ready = server.admin_get("/readyz");
    assert!(
        ready.status == 503 && ready.text().contains(reason),
        "{} {}\n{}",
        ready.status,
        ready.text(),
        server.log()
    );
    assert_eq!(server.admin_get("/livez").status, 200);
    let reply = post(server.address(), "/api/events", event("refused").as_bytes());
    assert!(reply.status == 503 && reply.text().contains(reason), "{} {}", reply.status, reply.text());
    assert!(reply.header("retry-after").is_some());
    assert!(server.metrics()[&format!("sluicegate_shed_total{{reason=\"{reason}\"}}")] >= 1.0);
}

/// Clients send while `trouble` comes and goes; then everything that they were promised is in
/// ClickHouse, and of the rest nothing in part or twice.
fn under_load(
    mut server: Server,
    clickhouse: &mut ClickHouse,
    database: &str,
    pause_max_ms: u64,
    trouble: impl FnOnce(&mut Server, &mut ClickHouse, &Load),
) {
    server.wait_until_ready();
    let load = Load::new(server.address(), 3).with_pauses(pause_max_ms);
    load.during(&[Client::WithoutKey; 4], || {
        load.wait_for_more(&server, 20, 0);
        trouble(&mut server, clickhouse, &load);
        load.wait_for_more(&server, 20, 0);
    });
    server.wait_until_ready();
    server.wait_until_drained();
    assert!(server.stop().success());
    load.check(clickhouse, database);
}

fn takes_events_again(server: &Server) {
    server.wait_until_ready();
    wait_for(
        || format!("no event is taken:\n{}", server.log()),
        || (post(server.address(), "/api/events", event("later").as_bytes()).status == 200).then_some(()),
    );
}

each_engine!(
    a_start_on_a_full_disk_comes_up_and_takes_events_when_there_is_room,
    a_disk_that_fills_and_is_freed_under_load_loses_nothing_that_was_acknowledged,
    a_spool_that_holds_all_that_it_may_refuses_until_clickhouse_is_back,
    a_write_that_fails_is_answered_with_503_and_the_server_goes_on,
);

fn a_start_on_a_full_disk_comes_up_and_takes_events_when_there_is_room(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(8 << 20));
    disk.fill();
    let server = Server::start_on(&disk, clickhouse, &database, &variant.and(&SMALL_SEGMENTS));
    wait_for(
        || format!("the server does not listen:\n{}", server.log()),
        || server.log().contains("\"serving\"").then_some(()),
    );
    wait_for(
        || "the full disk is not noticed".to_owned(),
        || server.admin_get("/readyz").text().contains("disk_full").then_some(()),
    );
    is_refused_because(&server, "disk_full");
    disk.free();
    takes_events_again(&server);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    assert!(server.stop().success());
}

/// The smallest that the file limit of a shell can be set to, in blocks of 1 KiB: 1 MiB.
const FILE_BLOCKS: &str = "1024";

#[test]
fn a_limit_on_files_below_a_segments_size_stops_the_start_with_a_sentence() {
    let spool = tempfile::tempdir().unwrap();
    let script = format!(
        "ulimit -f {FILE_BLOCKS}; exec timeout --signal=KILL {} \"$0\" serve --spool-dir \"$1\" --admin-listen 127.0.0.1:0",
        PATIENCE.as_secs()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_sluicegate")])
        .arg(spool.path().join("spool"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("LimitFSIZE") && said.contains("--batch-bytes"), "{said}");
}

#[test]
fn a_disk_that_hangs_is_answered_with_503_however_many_ask() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--commit-timeout", "300ms", "--workers", "1"]);
    let send = |name: String| post(server.address(), "/api/events", event(&name).as_bytes());
    assert_eq!(send("before".into()).status, 200);
    let hanging = FailingCalls::hanging(&server, "fdatasync", 600);
    // More than there are batches that can wait for the disk, one after the other and at once.
    let send = &send;
    std::thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                for request in 0..20 {
                    let reply = send(format!("{client} {request}"));
                    assert!(reply.status == 503 && reply.text().contains("commit_timeout"), "{}", reply.text());
                    assert!(reply.header("retry-after").is_some());
                }
            });
        }
    });
    let ready = server.admin_get("/readyz");
    assert!(ready.status == 503 && ready.text().contains("commit_timeout"), "{}", ready.text());
    assert_eq!(server.admin_get("/livez").status, 200);
    assert!(server.metrics()["sluicegate_shed_total{reason=\"commit_timeout\"}"] >= 80.0);
    drop(hanging);
    takes_events_again(&server);
    assert!(server.stop().success());
}

#[test]
fn without_inodes_it_is_said_once_and_nobody_is_told_that_all_is_well() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(64 << 20));
    let server =
        Server::start_on(&disk, clickhouse, &database, &[&SMALL_SEGMENTS[..], &["--batch-age", "20ms"]].concat());
    server.wait_until_ready();
    disk.use_up_inodes();
    wait_for(
        || format!("nothing is refused: {}", server.log()),
        || (post(server.address(), "/api/events", event("a").as_bytes()).status == 503).then_some(()),
    );
    for _ in 0..100 {
        // The file of a segment that was inserted needs no inode, so now and then one is taken. Otherwise
        // `/readyz` is about to say what every request is answered.
        wait_for(
            || format!("events are refused, and it is said that they are taken:\n{}", server.log()),
            || {
                let reply = post(server.address(), "/api/events", event("b").as_bytes());
                let ready = server.admin_get("/readyz");
                let is_said = ready.status == 503 && ready.text().contains("disk_full");
                assert!(is_said || ready.status == 200, "{}", ready.text());
                (reply.status == 200 || is_said).then_some(())
            },
        );
    }
    let said = server.log().matches("requests are answered with 503").count();
    assert!(said <= 3, "it is said {said} times:\n{}", server.log());
    disk.free_inodes();
    takes_events_again(&server);
    assert!(server.stop().success());
}

#[test]
fn from_a_full_disk_goes_what_is_on_it_with_its_keys() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(8 << 20));
    let flags = [&SMALL_SEGMENTS[..], &["--batch-age", "1h", "--batch-rows", "2", "--disk-free-min", "1"]].concat();
    let mut server = Server::start_on(&disk, clickhouse, &database, &flags);
    server.wait_until_ready();
    let keyed = |server: &Server, key: &str| {
        let headers = format!("Idempotency-Key: {key}\r\n");
        post_with(server.address(), "/api/events", &headers, event(key).as_bytes()).status
    };
    assert_eq!(keyed(&server, "one"), 200);
    disk.fill();
    // Two rows seal it, which takes a log of keys that is not there yet.
    assert_eq!(keyed(&server, "two"), 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    disk.free();
    takes_events_again(&server);
    assert_eq!(keyed(&server, "three"), 200);
    server.kill9();
    let server = server.start_again();
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 4);
    for key in ["one", "two", "three"] {
        assert_eq!(keyed(&server, key), 200);
    }
    server.wait_until_drained();
    assert!(server.stop().success());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "4");
}

#[test]
fn what_a_crash_left_open_goes_in_from_a_full_disk() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(8 << 20));
    let flags = [&SMALL_SEGMENTS[..], &["--batch-age", "1h"]].concat();
    let mut server = Server::start_on(&disk, clickhouse, &database, &flags);
    server.wait_until_ready();
    for name in ["one", "two"] {
        assert_eq!(post(server.address(), "/api/events", event(name).as_bytes()).status, 200);
    }
    server.kill9();
    disk.fill();
    let server = server.start_again_unready();
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    disk.free();
    takes_events_again(&server);
    assert!(server.stop().success());
    let events = clickhouse.query(&format!("SELECT event FROM {database}.events ORDER BY event FORMAT TSV"));
    assert_eq!(events.trim(), "later\none\ntwo");
}

fn a_disk_that_fills_and_is_freed_under_load_loses_nothing_that_was_acknowledged(variant: Variant) {
    for durability in DURABILITIES {
        let mut clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        let disk = Arc::new(SmallDisk::new(16 << 20));
        let flags = [&SMALL_SEGMENTS[..], &["--durability", durability]].concat();
        let server = Server::start_on(&disk, &clickhouse, &database, &variant.and(&flags));
        under_load(server, &mut clickhouse, &database, 5, |server, clickhouse, load| {
            // While it is there, files of inserted segments are enough to go on with.
            clickhouse.kill();
            disk.fill();
            load.wait_for_more(server, 0, 10);
            is_refused_because(server, "disk_full");
            disk.free();
            load.wait_for_more(server, 20, 0);
            clickhouse.restart();
        });
    }
}

#[test]
fn a_disk_that_becomes_read_only_under_load_loses_nothing_and_is_used_again_when_it_is_writable() {
    for durability in DURABILITIES {
        let mut clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        let flags = [&SMALL_SEGMENTS[..], &["--durability", durability, "--batch-age", "10ms"]].concat();
        let server = Server::start(&clickhouse, &database, &flags);
        under_load(server, &mut clickhouse, &database, 400, |server, _, load| {
            let read_only = FailingCalls::of(server, "pwritev,fallocate,rename,unlink", "EROFS");
            load.wait_for_more(server, 0, 10);
            is_refused_because(server, "write_failed");
            drop(read_only);
        });
    }
}

/// The bytes of all files in a folder and those below it.
fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // A file may be renamed meanwhile.
    let of =
        |path: &Path| fs::metadata(path).map_or(0, |found| if found.is_dir() { bytes_of(path) } else { found.len() });
    entries.map(|path| of(&path)).sum()
}

fn a_spool_that_holds_all_that_it_may_refuses_until_clickhouse_is_back(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let flags = [&SMALL_SEGMENTS[..], &["--spool-bytes-max", "6MiB"]].concat();
    let server = Server::start(&clickhouse, &database, &variant.and(&flags));
    under_load(server, &mut clickhouse, &database, 5, |server, clickhouse, load| {
        clickhouse.kill();
        load.wait_for_more(server, 0, 10);
        is_refused_because(server, "spool_full");
        let (told, there) = (server.metrics()["sluicegate_spool_bytes"], bytes_of(&server.spool_dir()));
        assert!(told <= f64::from(6 << 20) && there <= 6 << 20, "{told} and {there}");
        clickhouse.restart();
    });
}

#[test]
fn what_the_disk_has_to_keep_free_is_left_alone_until_clickhouse_is_back() {
    const FREE_MIN: u64 = 8 << 20;
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let disk = Arc::new(SmallDisk::new(16 << 20));
    let flags = [&SMALL_SEGMENTS[..], &["--disk-free-min", "8MiB"]].concat();
    let server = Server::start_on(&disk, &clickhouse, &database, &flags);
    under_load(server, &mut clickhouse, &database, 5, |server, clickhouse, load| {
        clickhouse.kill();
        load.wait_for_more(server, 0, 10);
        is_refused_because(server, "disk_full");
        assert!(disk.free_bytes() >= FREE_MIN, "{} bytes are free", disk.free_bytes());
        clickhouse.restart();
    });
}

fn a_write_that_fails_is_answered_with_503_and_the_server_goes_on(variant: Variant) {
    for durability in DURABILITIES {
        let mut clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        let flags = [&SMALL_SEGMENTS[..], &["--durability", durability]].concat();
        let server = Server::start(&clickhouse, &database, &variant.and(&flags));
        under_load(server, &mut clickhouse, &database, 5, |server, _, load| {
            let failing = FailingCalls::of(server, "pwritev", "EIO");
            load.wait_for_more(server, 0, 10);
            is_refused_because(server, "write_failed");
            // That it began, and not each write and each seal that failed since.
            let is_said = |line: &&str| line.contains("answered with 503") || line.contains("sealing is retried");
            let log = server.log();
            let errors = log.lines().filter(|line| line.contains("\"ERROR\"")).filter(is_said);
            let said: Vec<&str> =
                errors.filter_map(|line| line.split_once("\"message\"")).map(|(_, what)| what).collect();
            let each: BTreeSet<&str> = said.iter().copied().collect();
            assert!(!said.is_empty() && each.len() == said.len(), "it is said again and again:\n{log}");
            drop(failing);
            load.wait_for_more(server, 20, 0);
            server.assert_runs();
        });
    }
}

#[test]
fn a_sync_that_fails_ends_the_process_and_the_next_start_believes_the_disk() {
    for (durability, call) in [("sync", "fdatasync"), ("written", "fdatasync"), ("sync", "fsync"), ("written", "fsync")]
    {
        let mut clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        let flags = [&SMALL_SEGMENTS[..], &["--durability", durability]].concat();
        let server = Server::start(&clickhouse, &database, &flags);
        under_load(server, &mut clickhouse, &database, 5, |server, _, _| {
            let failing = FailingCalls::of(server, call, "EIO");
            let status = server.wait_for_end();
            assert_eq!(status.code(), Some(74), "{call} with durability {durability}");
            let log = server.log();
            let last = log.lines().last().unwrap_or_default();
            assert!(last.contains("a sync of the spool failed"), "{last}");
            drop(failing);
            *server = server.start_again();
        });
    }
}

#[test]
fn an_attempt_that_cant_be_noted_on_the_disk_is_retried_and_needs_no_operator() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--batch-age", "1h", "--batch-rows", "2"]);
    let send = || assert_eq!(post(server.address(), "/api/events", event("noted").as_bytes()).status, 200);
    send();
    let journal = server.spool_dir().join("state/1");
    let failing = FailingCalls::naming(server.id(), "pwritev", journal.to_str().unwrap(), "EIO");
    // The second row seals the block, which is sent at once.
    send();
    wait_for(|| server.log(), || server.log().contains("an INSERT failed and will be retried").then_some(()));
    assert_eq!(server.metrics()["sluicegate_blocks_held"], 0.0, "{}", server.log());
    drop(failing);
    server.wait_until_drained();
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "2");
}
