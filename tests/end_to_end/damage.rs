//! Bytes of a sealed segment that change on the disk: what is readable goes in once, the rest is
//! kept, booked and said; and what ClickHouse may have already waits for the operator.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;

use crate::support::{ClickHouse, Forwarder, Server, Variant, each_insert, post, run, shared_clickhouse, wait_for};
use serde_json::Value;

/// Requests that fill a block, each a frame of it, with so many events and a bad line.
const REQUESTS: u64 = 5;
const EVENTS: u64 = 10;

/// Seals by rows and by nothing else.
const ONE_BLOCK: [&str; 4] = ["--batch-rows", "50", "--batch-age", "1h"];

/// Recovered, inserted, spooled, set aside; of rows, and of rejected lines.
type Ledger = [[u64; 4]; 2];

fn ledger(server: &Server) -> Ledger {
    let stats: Value = serde_json::from_slice(&server.admin_get("/stats").body).unwrap();
    assert_eq!(stats["ledger_balances"], true, "{stats}");
    ["events", "events_quarantine"].map(|table| {
        let of = |account: &str| stats["ledger"][table][account].as_u64().unwrap();
        assert_eq!(of("recovered") + of("committed"), of("inserted") + of("spooled") + of("set_aside"), "{stats}");
        ["recovered", "inserted", "spooled", "set_aside"].map(of)
    })
}

fn wait_for_ledger(server: &Server, expected: Ledger) {
    wait_for(
        || format!("the ledger is {:?} instead of {expected:?}:\n{}", ledger(server), server.log()),
        || (ledger(server) == expected).then_some(()),
    );
}

fn wait_for_warning(server: &Server, text: &str) {
    let warnings = || server.admin_get("/readyz").text();
    wait_for(
        || format!("nobody is told of {text:?}: {}\n{}", warnings(), server.log()),
        || warnings().contains(text).then_some(()),
    );
}

fn body(request: u64) -> Vec<u8> {
    let event = |index: u64| format!("{{\"event\":\"e\",\"sequence\":{}}}\n", request * EVENTS + index);
    (0..EVENTS).map(event).chain(["bad\n".to_owned()]).collect::<String>().into_bytes()
}

/// One request after the other.
fn send(server: &Server, requests: Range<u64>) {
    for request in requests {
        assert_eq!(post(server.address(), "/api/events", &body(request)).status, 200);
    }
}

/// Every number that is stored, in order, as often as it is.
fn stored(clickhouse: &ClickHouse, database: &str) -> Vec<u64> {
    let numbers = clickhouse.query(&format!("SELECT sequence FROM {database}.events ORDER BY sequence FORMAT TSV"));
    numbers.lines().map(|number| number.parse().unwrap()).collect()
}

fn rejected_lines(clickhouse: &ClickHouse, database: &str) -> u64 {
    let count = clickhouse.query(&format!("SELECT count() FROM {database}.events_quarantine"));
    count.trim().parse().unwrap()
}

/// The events of these requests.
fn numbers(requests: impl IntoIterator<Item = u64>) -> Vec<u64> {
    requests.into_iter().flat_map(|request| request * EVENTS..(request + 1) * EVENTS).collect()
}

/// The only segment that waits, once it is sealed.
fn segment(server: &Server) -> PathBuf {
    wait_for(
        || format!("no sealed segment is there: {:?}\n{}", server.spooled_files(), server.log()),
        || {
            let name = server.spooled_files().into_iter().find(|name| name.ends_with(".segment"))?;
            let path = server.spool_dir().join("log").join(name);
            let bytes = fs::read(&path).ok()?;
            bytes[number(&bytes, 12)..].starts_with(b"SEALED 3").then_some(path)
        },
    )
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Changes a byte in the rows of a segment's frame, and in nothing else.
fn flip(path: &PathBuf, frame: usize) {
    let mut bytes = fs::read(path).unwrap();
    let mut at = number(&bytes, 12) + 16384;
    // The schema and its copy come first.
    while number(&bytes, at + 20) >> 31 == 1 {
        at += 76 + number(&bytes, at + 12);
    }
    for _ in 0..frame {
        assert_eq!(&bytes[at..at + 4], b"FRAM");
        assert_eq!((number(&bytes, at + 20), number(&bytes, at + 24)), (0, 0), "there are identities");
        at += 76 + number(&bytes, at + 12) + number(&bytes, at + 16);
    }
    assert_eq!((number(&bytes, at + 4), number(&bytes, at + 8)), (EVENTS as usize, 1), "a frame is not one request");
    bytes[at + 76 + 5] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn damaged_files(server: &Server) -> Vec<String> {
    let folder = fs::read_dir(server.spool_dir().join("damaged")).unwrap();
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The damaged file is kept, and everybody can see it.
fn is_said(server: &Server, missing_rows: u64, missing_lines: u64) {
    assert_eq!(damaged_files(server).len(), 1);
    assert_eq!(server.metrics()["sluicegate_files_damaged"], 1.0);
    wait_for_warning(server, "damaged/");
    let log = server.log();
    let said: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("missing_rows"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [said] = &said[..] else { panic!("{log}") };
    assert_eq!((&said["level"], &said["missing_rows"]), (&"ERROR".into(), &missing_rows.into()), "{said}");
    assert_eq!(said["missing_rejected"], missing_lines, "{said}");
}

each_insert!(
    all_but_the_damaged_frame_of_a_block_that_was_never_sent_is_stored_once,
    what_clickhouse_may_have_is_held_until_the_operator_wants_what_is_readable,
    rows_that_are_stored_are_not_sent_again_with_the_lines_that_are_not,
    nobody_is_told_that_the_lost_events_are_inserted,
    a_damaged_block_that_was_cut_is_held_until_the_operator_gives_its_rows_up,
    drain_keeps_a_block_without_a_readable_frame_and_is_done,
);

fn all_but_the_damaged_frame_of_a_block_that_was_never_sent_is_stored_once(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &variant.and(&ONE_BLOCK));
    clickhouse.kill();
    send(&server, 0..REQUESTS);
    let path = segment(&server);
    server.kill9();
    flip(&path, 2);
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let verify = ["spool", "verify", "--spool-dir", &spool];
    let (succeeded, said, _) = run(&verify);
    assert!(!succeeded && said.contains("DAMAGED"), "{said}");
    let server = server.start_again();
    assert_eq!(ledger(&server), [[50, 0, 50, 0], [5, 0, 5, 0]]);
    clickhouse.restart();
    wait_for_ledger(&server, [[50, 40, 0, 10], [5, 4, 0, 1]]);
    server.wait_until_drained();
    assert_eq!(stored(&clickhouse, &database), numbers([0, 1, 3, 4]));
    assert_eq!(rejected_lines(&clickhouse, &database), 4);
    is_said(&server, 10, 1);
    // It goes on as ever.
    send(&server, REQUESTS..2 * REQUESTS);
    wait_for_ledger(&server, [[50, 90, 0, 10], [5, 9, 0, 1]]);
    assert!(server.stop().success());
    assert_eq!(stored(&clickhouse, &database), numbers([0, 1, 3, 4, 5, 6, 7, 8, 9]));
    let (succeeded, said, _) = run(&verify);
    assert!(succeeded, "{said}");
}

fn what_clickhouse_may_have_is_held_until_the_operator_wants_what_is_readable(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let forwarder = Forwarder::new(&clickhouse.url(), "", "");
    let url = forwarder.url();
    let mut server =
        Server::start(clickhouse, &database, &variant.and(&[&ONE_BLOCK[..], &["--clickhouse-url", &url]].concat()));
    forwarder.lose_answers(true);
    send(&server, 0..REQUESTS);
    wait_for(|| server.log(), || (stored(clickhouse, &database).len() == 50).then_some(()));
    let path = segment(&server);
    server.kill9();
    flip(&path, 2);
    forwarder.lose_answers(false);
    let server = server.start_again();
    wait_for_warning(&server, "requeue --force");
    wait_for_warning(&server, "is damaged at byte");
    assert_eq!(ledger(&server), [[50, 0, 50, 0], [5, 0, 5, 0]]);
    assert_eq!((stored(clickhouse, &database), damaged_files(&server)), (numbers(0..REQUESTS), vec![]));
    let admin = server.admin_address().to_string();
    let (succeeded, out, error) = run(&["spool", "requeue", "--admin-listen", &admin, "--force"]);
    assert!(succeeded, "{out}{error}");
    wait_for_ledger(&server, [[50, 40, 0, 10], [5, 4, 0, 1]]);
    server.wait_until_drained();
    let mut doubled = [numbers(0..REQUESTS), numbers([0, 1, 3, 4])].concat();
    doubled.sort_unstable();
    assert_eq!(stored(clickhouse, &database), doubled);
    is_said(&server, 10, 1);
    assert!(!server.admin_get("/readyz").text().contains("is held"));
    assert!(server.stop().success());
}

fn rows_that_are_stored_are_not_sent_again_with_the_lines_that_are_not(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &variant.and(&ONE_BLOCK));
    let create = clickhouse.query(&format!("SHOW CREATE TABLE {database}.events_quarantine FORMAT TSVRaw"));
    clickhouse.query(&format!("DROP TABLE {database}.events_quarantine SYNC"));
    send(&server, 0..REQUESTS);
    wait_for_ledger(&server, [[0, 50, 0, 0], [0, 0, 5, 0]]);
    let path = segment(&server);
    server.kill9();
    flip(&path, 4);
    clickhouse.query(&create);
    let server = server.start_again();
    wait_for_ledger(&server, [[0, 0, 0, 0], [5, 4, 0, 1]]);
    server.wait_until_drained();
    assert_eq!(stored(clickhouse, &database), numbers(0..REQUESTS));
    assert_eq!(rejected_lines(clickhouse, &database), 4);
    is_said(&server, 0, 1);
    assert!(server.stop().success());
}

fn nobody_is_told_that_the_lost_events_are_inserted(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server =
        Server::start(clickhouse, &database, &variant.and(&[&ONE_BLOCK[..], &["--inserted-timeout", "5s"]].concat()));
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    send(&server, 0..REQUESTS - 1);
    let address = server.address();
    let waiting = thread::spawn(move || post(address, "/api/events?ack=inserted", &body(REQUESTS - 1)));
    let path = segment(&server);
    wait_for_warning(&server, "is held");
    flip(&path, 4);
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    let admin = server.admin_address().to_string();
    let (succeeded, out, error) = run(&["spool", "requeue", "--admin-listen", &admin]);
    assert!(succeeded, "{out}{error}");
    wait_for_ledger(&server, [[0, 40, 0, 10], [0, 4, 0, 1]]);
    let reply = waiting.join().unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(stored(clickhouse, &database), numbers(0..REQUESTS - 1));
    is_said(&server, 10, 1);
    assert!(server.stop().success());
}

fn a_damaged_block_that_was_cut_is_held_until_the_operator_gives_its_rows_up(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &variant.and(&ONE_BLOCK));
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT c CHECK sequence != 42"));
    let create = clickhouse.query(&format!("SHOW CREATE TABLE {database}.events_quarantine FORMAT TSVRaw"));
    clickhouse.query(&format!("DROP TABLE {database}.events_quarantine SYNC"));
    send(&server, 0..REQUESTS);
    wait_for_ledger(&server, [[0, 49, 1, 0], [0, 0, 5, 0]]);
    let path = segment(&server);
    server.kill9();
    flip(&path, 1);
    clickhouse.query(&create);
    let server = server.start_again();
    wait_for_warning(&server, "was cut into pieces");
    assert_eq!(ledger(&server), [[1, 0, 1, 0], [5, 0, 5, 0]]);
    assert_eq!((stored(clickhouse, &database).len(), rejected_lines(clickhouse, &database)), (49, 0));
    assert!(damaged_files(&server).is_empty());
    let admin = server.admin_address().to_string();
    let (succeeded, out, error) = run(&["spool", "requeue", "--admin-listen", &admin, "--force"]);
    assert!(succeeded, "{out}{error}");
    wait_for_ledger(&server, [[1, 0, 0, 1], [5, 4, 0, 1]]);
    server.wait_until_drained();
    assert_eq!((stored(clickhouse, &database).len(), rejected_lines(clickhouse, &database)), (49, 4));
    assert_eq!(damaged_files(&server).len(), 1);
    assert!(!server.admin_get("/readyz").text().contains("is held"));
}

fn drain_keeps_a_block_without_a_readable_frame_and_is_done(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &variant.and(&["--batch-rows", "10", "--batch-age", "1h"]));
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    send(&server, 0..1);
    let path = segment(&server);
    send(&server, 1..2);
    wait_for(|| server.log(), || (server.metrics()["sluicegate_blocks_held"] == 2.0).then_some(()));
    server.kill9();
    flip(&path, 0);
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let url = clickhouse.url();
    let (succeeded, _, log) = run(&variant.and(&[
        "drain",
        "--spool-dir",
        &spool,
        "--clickhouse-url",
        &url,
        "--database",
        &database,
        "--log-format",
        "json",
    ]));
    assert!(succeeded, "{log}");
    let said: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((&said["events"], &said["set_aside"]), (&10.into(), &10.into()), "{log}");
    assert_eq!(stored(clickhouse, &database), numbers([1]));
    assert_eq!((server.spooled_files(), damaged_files(&server).len()), (vec![], 1));
}

#[test]
fn a_start_deletes_nothing_that_it_does_not_understand_and_sends_what_is_readable() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &ONE_BLOCK);
    clickhouse.kill();
    send(&server, 0..4 * REQUESTS);
    let table = server.spool_dir().join("log");
    let path = |number: u64| table.join(format!("{number:020}.segment"));
    wait_for(|| server.log(), || (1..=4).all(|number| path(number).exists()).then_some(()));
    wait_for_ledger(&server, [[0, 0, 200, 0], [0, 0, 20, 0]]);
    server.kill9();
    let change = |number: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path(number)).unwrap();
        change(&mut bytes);
        fs::write(path(number), bytes).unwrap();
    };
    change(1, &|bytes| bytes[..4096].fill(0));
    change(2, &|bytes| bytes.clear());
    change(3, &|bytes| bytes[9] ^= 1);
    fs::rename(path(4), path(44)).unwrap();
    fs::create_dir(path(7)).unwrap();
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let (succeeded, said, _) = run(&["spool", "verify", "--spool-dir", &spool]);
    assert!(!succeeded && said.matches("DAMAGED").count() >= 3, "{said}");
    let server = server.start_again();
    clickhouse.restart();
    wait_for_ledger(&server, [[150, 150, 0, 0], [15, 15, 0, 0]]);
    assert_eq!(stored(&clickhouse, &database), numbers((0..5).chain(10..20)));
    let mut kept = damaged_files(&server);
    kept.sort();
    assert_eq!(kept, [2, 7].map(|number| format!("{number:020}.segment")));
    wait_for_warning(&server, "damaged/");
    for said in ["written again from its copy", "gets its name back", "identity can't be read", "is none"] {
        assert!(server.log().contains(said), "{said:?} is not said:\n{}", server.log());
    }
    send(&server, 20..25);
    let first = server.spooled_files();
    assert!(first.iter().all(|name| name.as_str() > "00000000000000000007"), "a number came again: {first:?}");
    assert!(server.stop().success());
}
