//! The table changes while events arrive and blocks wait: with both sides up, one down, both
//! down. Every acknowledged event is stored once, with the values that the table then has a place
//! for, and nothing is dropped that nobody ordered to be dropped.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{
    ClickHouse, Connection, Server, Variant, each_insert, each_insert_and_engine, post, run, shared_clickhouse,
    wait_for,
};

/// An event with a value, made of its number, for each column that any of the tests has.
fn event(number: u64) -> String {
    format!(
        "{{\"event\":\"e\",\"sequence\":{number},\"param_int\":{number},\"param_str\":\"p{number}\",\
         \"session\":\"s{number}\",\"visit\":\"v{number}\",\"extra\":{number}}}\n"
    )
}

fn events(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(event).collect()
}

fn send(server: &Server, numbers: impl IntoIterator<Item = u64>) {
    assert_eq!(post(server.address(), "/api/events", events(numbers).as_bytes()).status, 200);
}

/// What the clients of a load know of an acknowledged event: it was certainly encoded for the
/// table as it was after the change had been noticed.
type Acknowledged = BTreeMap<u64, bool>;

/// Runs `meanwhile` while several connections send events. It is given a flag to set when the server
/// has noticed a change.
fn under_load(server: &Server, meanwhile: impl FnOnce(&AtomicBool)) -> Acknowledged {
    const CLIENTS: u64 = 4;
    let (stop, noticed, acknowledged) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::default());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, noticed, acknowledged) = (&stop, &noticed, &acknowledged);
            scope.spawn(move || send_events(server, client * 10_000_000, stop, noticed, acknowledged));
        }
        let stopper = Stopper(&stop);
        meanwhile(&noticed);
        // The load goes on for as long as it takes each client to send events after the change.
        let count = || acknowledged.lock().unwrap().values().filter(|after| **after).count();
        wait_for(|| server.log(), || (!noticed.load(Ordering::Relaxed) || count() >= 2000).then_some(()));
        drop(stopper);
    });
    acknowledged.into_inner().unwrap()
}

/// Stops the clients, also when the test fails: the scope waits for them.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn send_events(
    server: &Server,
    first: u64,
    stop: &AtomicBool,
    noticed: &AtomicBool,
    acknowledged: &Mutex<Acknowledged>,
) {
    let mut connection = Connection::open(server.address());
    let mut next = first;
    // A request that was answered since shows that its worker has begun another turn.
    let (mut after, mut noticed_before) = (false, false);
    while !stop.load(Ordering::Relaxed) {
        let numbers: Vec<u64> = (next..next + 10).collect();
        next += 10;
        let body = events(numbers.iter().copied());
        let head = format!("POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send(&[head.as_bytes(), body.as_bytes()].concat());
        assert_eq!(connection.read_response().status, 200);
        acknowledged.lock().unwrap().extend(numbers.into_iter().map(|number| (number, after)));
        after = noticed_before;
        noticed_before = noticed.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2));
    }
}

/// Changes the table. An INSERT that overlapped with the change before may have left a part with a
/// column too many, which ClickHouse then can't read to convert it: a merge leaves the column out.
fn alter(clickhouse: &ClickHouse, database: &str, change: &str) {
    let columns = |of: &str| format!("system.{of} WHERE database = '{database}' AND table = 'events'");
    let too_many = format!(
        "SELECT count() FROM {} AND active AND column NOT IN (SELECT name FROM {})",
        columns("parts_columns"),
        columns("columns")
    );
    wait_for(
        || format!("parts have columns that the table has not: {}", clickhouse.query(&too_many)),
        || {
            let is_clean = clickhouse.query(&too_many).trim() == "0";
            if !is_clean {
                clickhouse.query(&format!("OPTIMIZE TABLE {database}.events FINAL"));
            }
            is_clean.then_some(())
        },
    );
    clickhouse.query(&format!("ALTER TABLE {database}.events {change}"));
}

fn wait_for_log(server: &Server, text: &str) {
    wait_for(|| format!("no {text} in {}", server.log()), || server.log().contains(text).then_some(()));
}

fn wait_for_warning(server: &Server, text: &str) {
    wait_for(
        || format!("/readyz has no warning with {text}: {}\n{}", server.admin_get("/readyz").text(), server.log()),
        || server.admin_get("/readyz").text().contains(text).then_some(()),
    );
    assert_eq!(server.admin_get("/readyz").status, 200);
}

fn requeue(server: &Server, flags: &[&str]) {
    let admin = server.admin_address().to_string();
    let (succeeded, out, error) = run(&[&["spool", "requeue", "--admin-listen", &admin], flags].concat());
    assert!(succeeded, "{out}{error}");
}

/// Waits until nothing is spooled, with an operator who orders it again and again.
fn drain(server: &Server, flags: &[&str]) {
    wait_for(
        || server.log(),
        || {
            let spooled = server.metrics()["sluicegate_events_spooled"];
            if spooled > 0.0 {
                requeue(server, flags);
                thread::sleep(Duration::from_millis(100));
            }
            (spooled == 0.0).then_some(())
        },
    );
}

/// Waits until everything has gone in but the blocks that are held.
fn wait_until_only_held_ones_wait(server: &Server) {
    wait_for(
        || server.log(),
        || {
            let held = server.metrics()["sluicegate_blocks_held"];
            (held > 0.0 && server.spooled_files().len() as f64 == held).then_some(())
        },
    );
}

/// The columns of every event, by its number: each is there once.
fn stored(clickhouse: &ClickHouse, database: &str, columns: &str) -> BTreeMap<u64, Vec<String>> {
    let rows =
        clickhouse.query(&format!("SELECT sequence, {columns} FROM {database}.events ORDER BY sequence FORMAT TSV"));
    let mut stored = BTreeMap::new();
    for row in rows.lines() {
        let mut values = row.split('\t').map(str::to_owned);
        let number = values.next().unwrap().parse().unwrap();
        assert!(stored.insert(number, values.collect()).is_none(), "event {number} is stored twice");
    }
    stored
}

/// Every acknowledged event is stored and no other; returns its columns and what is known of it.
fn exactly<'a>(
    stored: &'a BTreeMap<u64, Vec<String>>,
    acknowledged: &'a Acknowledged,
) -> impl Iterator<Item = (u64, &'a [String], bool)> {
    let lost: Vec<_> = acknowledged.keys().filter(|number| !stored.contains_key(number)).collect();
    assert!(lost.is_empty(), "{} of {} events are lost: {:?}", lost.len(), acknowledged.len(), lost[0]);
    assert_eq!(stored.len(), acknowledged.len());
    acknowledged.iter().map(|(number, after)| (*number, &stored[number][..], *after))
}

each_insert_and_engine!(
    a_column_is_added_under_load,
    columns_are_dropped_retyped_and_renamed_under_load_and_what_waited_is_converted,
);

each_insert!(
    the_table_changes_while_the_server_is_down,
    blocks_with_a_renamed_column_go_in_whole_when_it_has_its_name_again,
    clickhouse_restarts_with_another_table,
    both_are_down_and_the_server_is_back_first_with_the_columns_of_before,
    a_table_that_can_not_be_followed_is_a_warning_and_events_go_on,
);

fn a_column_is_added_under_load(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--batch-age", "50ms"]));
    let acknowledged = under_load(&server, |noticed| {
        thread::sleep(Duration::from_millis(300));
        alter(clickhouse, &database, "ADD COLUMN extra Int64");
        thread::sleep(Duration::from_millis(300));
        // No insert fails by it. Who has just changed the table need not wait for the next look.
        requeue(&server, &[]);
        wait_for_log(&server, "added `extra` Int64");
        noticed.store(true, Ordering::Relaxed);
    });
    wait_for(|| server.log(), || (server.metrics()["sluicegate_events_spooled"] == 0.0).then_some(()));
    let (mut without, stored) = (0, stored(clickhouse, &database, "extra, param_str"));
    for (number, values, after) in exactly(&stored, &acknowledged) {
        assert_eq!(values[1], format!("p{number}"));
        let has_it = values[0] == number.to_string();
        assert!(has_it || values[0] == "0" && !after, "event {number} has {}", values[0]);
        without += u32::from(!has_it);
    }
    assert!(without > 0, "no event came before the column");
    assert!(server.admin_get("/readyz").text().contains("\"warnings\":[]"));
    assert!(server.stop().success());
}

fn columns_are_dropped_retyped_and_renamed_under_load_and_what_waited_is_converted(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--batch-age", "50ms"]));
    let acknowledged = under_load(&server, |noticed| {
        let changes = [
            ("DROP COLUMN param_str", "dropped `param_str` String"),
            ("MODIFY COLUMN param_int Int32", "changed `param_int` from Int64 to Int32"),
            ("RENAME COLUMN session TO visit", "added `visit` String; dropped `session` String"),
        ];
        for (change, said) in changes {
            thread::sleep(Duration::from_millis(300));
            alter(clickhouse, &database, change);
            wait_for_log(&server, said);
        }
        noticed.store(true, Ordering::Relaxed);
    });
    // What was sealed for the columns of before is held, and said; what came after has gone in.
    for said in ["`param_str`", "`param_int` was Int64 and is Int32", "`session` can't be inserted", "--convert"] {
        wait_for_warning(&server, said);
    }
    wait_until_only_held_ones_wait(&server);
    drain(&server, &["--convert"]);
    let (mut converted, stored) = (0, stored(clickhouse, &database, "param_int, visit"));
    for (number, values, after) in exactly(&stored, &acknowledged) {
        assert_eq!(values[0], number.to_string());
        match values[1].as_str() {
            // The operator has ordered to go without what is under a name that the table has no more; or
            // ClickHouse took the insert while it renamed, and stored it without.
            "" => converted += 1,
            visit => assert!(visit == format!("v{number}") || visit == format!("s{number}"), "{number}: {visit}"),
        }
        assert!(!after || values[1] == format!("v{number}"), "event {number} has {values:?}");
    }
    assert!(converted > 0);
    assert!(server.stop().success());
}

/// Seals a block when it has so many rows, and never for its age.
const BY_ROWS: [&str; 4] = ["--batch-age", "1h", "--batch-rows", "100"];

fn the_table_changes_while_the_server_is_down(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &variant.and(&BY_ROWS));
    send(&server, 0..50);
    server.kill9();
    alter(clickhouse, &database, "ADD COLUMN extra Int64");
    server = server.start_again();
    // What waited goes in as it is.
    server.wait_until_drained();
    send(&server, 50..90);
    server.kill9();
    alter(clickhouse, &database, "DROP COLUMN param_str, MODIFY COLUMN param_int Int32");
    server = server.start_again();
    wait_for_warning(&server, "without the values of `param_str`");
    send(&server, 100..200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 150);
    drain(&server, &["--convert"]);
    let stored = stored(clickhouse, &database, "param_int, extra");
    let acknowledged = (0..90).chain(100..200).map(|number| (number, number >= 50)).collect();
    for (number, values, extra) in exactly(&stored, &acknowledged) {
        let extra = if extra { number } else { 0 };
        assert_eq!(values, [number.to_string(), extra.to_string()]);
    }
    assert!(server.stop().success());
}

/// ClickHouse as it comes back with another table, before the server can reach it.
fn alter_while_away(clickhouse: &mut ClickHouse, database: &str, change: &str) {
    alter(&ClickHouse::on(&clickhouse.path()), database, change);
    clickhouse.restart();
}

fn blocks_with_a_renamed_column_go_in_whole_when_it_has_its_name_again(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &variant.and(&["--batch-age", "50ms"]));
    let acknowledged = under_load(&server, |noticed| {
        thread::sleep(Duration::from_millis(300));
        // Not while it takes inserts: ClickHouse stores what overlaps with a RENAME without its values.
        clickhouse.kill();
        alter_while_away(&mut clickhouse, &database, "RENAME COLUMN session TO visit");
        wait_for_log(&server, "added `visit` String; dropped `session` String");
        noticed.store(true, Ordering::Relaxed);
    });
    wait_for_warning(&server, "rename it back");
    wait_until_only_held_ones_wait(&server);
    clickhouse.kill();
    alter_while_away(&mut clickhouse, &database, "RENAME COLUMN visit TO session");
    // Without an order to convert; sooner than by itself.
    drain(&server, &[]);
    for (number, values, after) in exactly(&stored(&clickhouse, &database, "session, param_str"), &acknowledged) {
        let sent = [format!("v{number}"), format!("s{number}")];
        assert!(sent[..if after { 1 } else { 2 }].contains(&values[0]), "event {number} has {values:?}");
        assert_eq!(values[1], format!("p{number}"));
    }
    assert!(server.admin_get("/readyz").text().contains("\"warnings\":[]"));
    assert!(server.stop().success());
}

fn clickhouse_restarts_with_another_table(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &variant.and(&[]));
    send(&server, 0..10);
    // An INSERT whose answer the server has not seen would be held: its rows can't be looked up after the change.
    server.wait_until_drained();
    clickhouse.kill();
    send(&server, 10..20);
    alter_while_away(&mut clickhouse, &database, "DROP COLUMN param_str, ADD COLUMN extra Int64");
    wait_for_log(&server, "added `extra` Int64; dropped `param_str` String");
    wait_for_warning(&server, "without the values of `param_str`");
    send(&server, 20..30);
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 20);
    wait_until_only_held_ones_wait(&server);
    // The server may get at it before the change or after: right at once after the restart.
    clickhouse.kill();
    send(&server, 30..40);
    clickhouse.restart();
    alter(&clickhouse, &database, "MODIFY COLUMN param_int Int32");
    wait_for_log(&server, "changed `param_int` from Int64 to Int32");
    send(&server, 40..50);
    drain(&server, &["--convert"]);
    let stored = stored(&clickhouse, &database, "param_int, extra");
    let acknowledged = (0..50).map(|number| (number, number >= 20)).collect();
    for (number, values, extra) in exactly(&stored, &acknowledged) {
        let extra = if extra { number } else { 0 };
        assert_eq!(values, [number.to_string(), extra.to_string()]);
    }
    assert!(server.stop().success());
}

fn both_are_down_and_the_server_is_back_first_with_the_columns_of_before(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &variant.and(&["--batch-age", "300ms"]));
    send(&server, 0..10);
    server.wait_until_drained();
    server.kill9();
    clickhouse.kill();
    server = server.start_again();
    send(&server, 10..20);
    // Nothing fails by the new column: it is seen because ClickHouse was away.
    alter_while_away(&mut clickhouse, &database, "ADD COLUMN extra Int64");
    wait_for_log(&server, "added `extra` Int64");
    send(&server, 20..30);
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 30);
    // An INSERT whose answer the server has not seen would be held: its rows can't be looked up after a RENAME.
    server.wait_until_drained();
    server.kill9();
    clickhouse.kill();
    server = server.start_again();
    send(&server, 30..40);
    alter_while_away(&mut clickhouse, &database, "RENAME COLUMN session TO visit");
    wait_for_log(&server, "added `visit` String; dropped `session` String");
    wait_for_warning(&server, "without the values of `session`");
    send(&server, 40..50);
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 40);
    drain(&server, &["--convert"]);
    let stored = stored(&clickhouse, &database, "visit, extra");
    let acknowledged = (0..50).map(|number| (number, number >= 20)).collect();
    for (number, values, extra) in exactly(&stored, &acknowledged) {
        let visit = match number {
            0..30 => format!("s{number}"),
            30..40 => String::new(),
            _ => format!("v{number}"),
        };
        let extra = if extra { number } else { 0 };
        assert_eq!(values, [visit, extra.to_string()], "{number}");
    }
    assert!(server.stop().success());
}

fn a_table_that_can_not_be_followed_is_a_warning_and_events_go_on(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let kept = std::fs::read_to_string(server.spool_dir().join("events/schema.json")).unwrap();
    let warnings = || server.admin_get("/readyz").text();
    let many = |change: &str| -> String {
        (0..1100).map(|index| format!("{change} COLUMN many{index}")).collect::<Vec<_>>().join(", ")
    };
    let said = "columns, more than the 1024 that are supported";
    alter(clickhouse, &database, &(many("ADD").replace(',', " UInt8,") + " UInt8"));
    requeue(&server, &[]);
    wait_for_warning(&server, said);
    wait_for_log(&server, said);
    let sent = 10;
    send(&server, 0..sent);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), sent);
    assert!(warnings().contains(said), "{}", warnings());
    assert_eq!(server.metrics()["sluicegate_blocks_held"], 0.0);
    assert_eq!(std::fs::read_to_string(server.spool_dir().join("events/schema.json")).unwrap(), kept);
    alter(clickhouse, &database, &format!("{}, ADD COLUMN extra Int64", many("DROP")));
    requeue(&server, &[]);
    wait_for_log(&server, "added `extra` Int64");
    wait_for(warnings, || warnings().contains("\"warnings\":[]").then_some(()));
    send(&server, sent..sent + 10);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), sent + 10);
    let stored = stored(clickhouse, &database, "session, extra");
    let acknowledged = (0..sent + 10).map(|number| (number, number >= sent)).collect();
    for (number, values, extra) in exactly(&stored, &acknowledged) {
        let extra = if extra { number } else { 0 };
        assert_eq!(values, [format!("s{number}"), extra.to_string()]);
    }
    assert!(server.stop().success());
}
