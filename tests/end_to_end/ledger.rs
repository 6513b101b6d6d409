//! The ledger: recovered + committed = inserted + spooled + set aside, after every kind of fault,
//! and what it says is what ClickHouse has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{ClickHouse, Server, Variant, each_engine, post, run, shared_clickhouse, wait_for};
use serde_json::Value;

const EVENTS: &str = "events";
const QUARANTINE: &str = "events_quarantine";

/// Recovered, committed, inserted, spooled, set aside.
type Line = [u64; 5];

fn stats(server: &Server) -> Value {
    let page = server.admin_get("/stats");
    assert_eq!(page.status, 200, "{}", page.text());
    serde_json::from_slice(&page.body).unwrap()
}

/// One line of a ledger, which must balance, by this test's own sum too.
fn line(stats: &Value, table: &str) -> Line {
    let of = |account: &str| stats["ledger"][table][account].as_u64().unwrap();
    let line = ["recovered", "committed", "inserted", "spooled", "set_aside"].map(of);
    let [recovered, committed, inserted, spooled, set_aside] = line;
    assert_eq!(recovered + committed, inserted + spooled + set_aside, "{table}: {stats}");
    assert_eq!(stats["ledger_balances"], true);
    line
}

fn ledger(server: &Server) -> [Line; 2] {
    let stats = stats(server);
    [line(&stats, EVENTS), line(&stats, QUARANTINE)]
}

fn wait_for_ledger(server: &Server, expected: [Line; 2]) {
    wait_for(
        || format!("the ledger is {:?} instead of {expected:?}:\n{}", ledger(server), server.log()),
        || (ledger(server) == expected).then_some(()),
    );
    // The same in the metrics.
    let metrics = server.metrics();
    for (table, line) in [EVENTS, QUARANTINE].into_iter().zip(expected) {
        for (account, events) in ["recovered", "committed", "inserted", "spooled", "set_aside"].into_iter().zip(line) {
            let series = format!("sluicegate_ledger_events{{table=\"{table}\",account=\"{account}\"}}");
            assert_eq!(metrics[&series], events as f64, "{series}");
        }
    }
    assert_eq!(metrics["sluicegate_ledger_balances"], 1.0);
    assert_eq!(metrics["sluicegate_events_spooled"], expected[0][3] as f64);
}

/// Rows of the table and of its quarantine.
fn stored(clickhouse: &ClickHouse, database: &str) -> [u64; 2] {
    [EVENTS, QUARANTINE].map(|table| {
        let count = clickhouse.query(&format!("SELECT count() FROM {database}.{table}"));
        count.trim().parse().unwrap()
    })
}

fn send(server: &Server, numbers: impl IntoIterator<Item = u64>, bad_lines: usize) {
    let events: String =
        numbers.into_iter().map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect();
    let reply = post(server.address(), "/api/events", format!("{events}{}", "bad\n".repeat(bad_lines)).as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
}

each_engine!(
    plain_events_bad_lines_and_refused_rows_are_on_their_accounts,
    it_balances_at_every_moment_and_the_series_are_there,
);

fn plain_events_bad_lines_and_refused_rows_are_on_their_accounts(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    wait_for_ledger(&server, [[0; 5], [0; 5]]);
    send(&server, 0..50, 0);
    wait_for_ledger(&server, [[0, 50, 50, 0, 0], [0; 5]]);
    send(&server, 50..60, 4);
    wait_for_ledger(&server, [[0, 60, 60, 0, 0], [0, 4, 4, 0, 0]]);
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT c CHECK sequence NOT IN (103, 150, 199)"));
    send(&server, 100..200, 2);
    wait_for_ledger(&server, [[0, 160, 157, 0, 3], [0, 6, 6, 0, 0]]);
    // What is set aside is in the quarantine, beside the rejected lines.
    assert_eq!(stored(clickhouse, &database), [157, 9]);
    assert!(server.stop().success());
}

#[test]
fn what_is_held_is_spooled_and_a_killed_server_recovers_as_much() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &[]);
    send(&server, 0..5, 0);
    wait_for_ledger(&server, [[0, 5, 5, 0, 0], [0; 5]]);
    let create = clickhouse.query(&format!("SHOW CREATE TABLE {database}.events FORMAT TSVRaw"));
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    send(&server, 5..12, 3);
    wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("is held").then_some(()));
    assert_eq!(ledger(&server), [[0, 12, 5, 7, 0], [0, 3, 0, 3, 0]]);
    server.kill9();
    // The columns are known from the last time: the start goes on only where ClickHouse is away or
    // the table is there.
    clickhouse.query(&create);
    let server = server.start_again();
    wait_for_ledger(&server, [[7, 0, 7, 0, 0], [3, 0, 3, 0, 0]]);
    assert_eq!(stored(clickhouse, &database), [7, 3]);
    assert!(server.stop().success());
}

#[test]
fn of_a_cut_block_only_the_undecided_rows_are_recovered() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &[]);
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT odd CHECK sequence % 40 != 7"));
    let create = clickhouse.query(&format!("SHOW CREATE TABLE {database}.events_quarantine FORMAT TSVRaw"));
    clickhouse.query(&format!("DROP TABLE {database}.events_quarantine SYNC"));
    send(&server, 0..200, 2);
    // The good rows are in; the refused ones, and the lines, wait for a table.
    wait_for_ledger(&server, [[0, 200, 195, 5, 0], [0, 2, 0, 2, 0]]);
    server.kill9();
    clickhouse.query(&create);
    let server = server.start_again();
    wait_for_ledger(&server, [[5, 0, 0, 0, 5], [2, 0, 2, 0, 0]]);
    assert_eq!(stored(clickhouse, &database), [195, 7]);
    assert!(server.stop().success());
}

#[test]
fn what_waits_while_clickhouse_is_away_is_drained() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &[]);
    clickhouse.kill();
    send(&server, 0..30, 1);
    send(&server, 30..40, 0);
    assert_eq!(ledger(&server), [[0, 40, 0, 40, 0], [0, 1, 0, 1, 0]]);
    server.kill9();
    let server = server.start_again();
    assert_eq!(ledger(&server), [[40, 0, 0, 40, 0], [1, 0, 0, 1, 0]]);
    send(&server, 40..41, 0);
    assert_eq!(ledger(&server), [[40, 1, 0, 41, 0], [1, 0, 0, 1, 0]]);
    let spool = server.spool_dir().to_string_lossy().into_owned();
    drop(server);
    clickhouse.restart();
    let url = clickhouse.url();
    let arguments = ["drain", "--spool-dir", &spool, "--clickhouse-url", &url, "--database", &database];
    let (succeeded, _, log) = run(&[&arguments[..], &["--log-format", "json"]].concat());
    assert!(succeeded, "{log}");
    let said: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((&said["events"], &said["set_aside"], &said["rejected_lines"]), (&41.into(), &0.into(), &1.into()));
    assert_eq!(stored(&clickhouse, &database), [41, 1]);
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn it_balances_at_every_moment_and_the_series_are_there(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--batch-age", "10ms"]));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // When this fails, the clients end too.
        let _ends = SetOnDrop(&stop);
        let clients: Vec<_> = (0..2)
            .map(|client| {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        send(server, (0..20).map(|number| client * 1_000_000 + sent * 20 + number), 1);
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        for _ in 0..200 {
            ledger(&server);
        }
        // Until a whole second lies between two looks at the counters.
        wait_for(
            || stats(&server).to_string(),
            || {
                let steps = &stats(&server)["series"];
                let sum = |name: &str| steps[name].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
                let all = ["requests", "events_accepted", "events_rejected", "events_inserted"].map(sum);
                all.iter().all(|sum| *sum > 0).then_some(())
            },
        );
        stop.store(true, Ordering::Relaxed);
        let requests: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        let (events, lines) = (requests * 20, requests);
        wait_for_ledger(&server, [[0, events, events, 0, 0], [0, lines, lines, 0, 0]]);
        assert_eq!(stored(clickhouse, &database), [events, lines]);
        let figures = &stats(&server)["figures"];
        assert_eq!(figures["events_accepted_total"], events);
        assert_eq!(figures["events_rejected_total"]["invalid_json"], lines);
        assert_eq!(figures["requests_total"]["200"], requests);
        assert_eq!(figures["events_inserted_total"]["events"], events);
        assert_eq!(figures["request_seconds"]["count"], requests);
        assert!(figures["inserts_total"]["events"]["done"].as_u64().unwrap() > 0);
    });
    assert!(server.stop().success());
}
