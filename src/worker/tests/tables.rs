//! Tests of a worker of several tables.

use super::*;
use crate::batch::identity::Summary;
use crate::batch::{Batch, OutcomeRule, TableIndex};
use crate::intake::metrics::Counter;
use crate::intake::quotas::Quotas;

const MINUTE: Duration = Duration::from_secs(60);

fn start(tables: &[&str]) -> Harness {
    start_with(tables, MINUTE, |_| {})
}

fn start_with(tables: &[&str], commit_timeout: Duration, change: impl FnOnce(&mut Shared)) -> Harness {
    Harness::run(worker_of(tables, commit_timeout, change))
}

/// A request with one event, whose value is `event`, for the path of a table.
fn request(table: &str, headers: &str, event: &str) -> String {
    let body = format!("{{\"event\":\"{event}\"}}");
    format!("POST /api/{table} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// So many batches that the worker hands over.
fn batches(harness: &Harness, count: usize) -> Vec<Batch> {
    (0..count).map(|_| harness.batch()).collect()
}

/// The table of a batch and its rows, without the lengths in front of the values.
fn contents(batch: &Batch) -> (usize, String) {
    let text = String::from_utf8(batch.rows.bytes.clone()).unwrap();
    (batch.table.get(), text.replace(|character: char| character.is_control(), " "))
}

fn statuses(client: &mut TcpStream, count: usize) -> Vec<u16> {
    (0..count).map(|_| status(client)).collect()
}

const REFUSED: CommitOutcome = CommitOutcome::Refused(CommitRefusal::SpoolFull);

#[test]
fn requests_of_one_turn_are_a_batch_a_table_and_each_is_answered_by_the_outcome_of_its_own() {
    let harness = start(&["a", "b", "c"]);
    let mut client = harness.connect();
    let pipelined: String = ["b", "a", "b", "c", "a"].map(|table| request(table, "", table)).concat();
    client.write_all(pipelined.as_bytes()).unwrap();
    let batches = batches(&harness, 3);
    assert!(harness.shared.handoff.next().is_none());
    let expected = [(1, " b b".to_owned()), (0, " a a".to_owned()), (2, " c".to_owned())];
    assert_eq!(batches.iter().map(contents).collect::<Vec<_>>(), expected);
    // The share of `a` is full.
    for batch in batches {
        let outcome = if batch.table.get() == 0 { REFUSED } else { COMMITTED };
        harness.give_back(batch, outcome);
    }
    assert_eq!(statuses(&mut client, 5), [200, 503, 200, 200, 503]);
    let accepted = |table| harness.metrics.accepted_by_table.get(TableIndex::new(table));
    assert_eq!([0, 1, 2, 3].map(accepted), [0, 2, 1, 0]);
    assert_eq!(harness.metrics.accepted.get(), 3);
    drop(client);
    harness.stop();
}

#[test]
fn replies_come_in_the_order_of_the_requests_though_other_tables_are_committed_first() {
    let harness = start(&["a", "b"]);
    let mut client = harness.connect();
    // `b` is handed over first, because its first request comes first.
    let pipelined = [("b", "1"), ("a", "2"), ("b", "3"), ("a", "4")].map(|(table, event)| request(table, "", event));
    client.write_all(pipelined.concat().as_bytes()).unwrap();
    let mut batches = batches(&harness, 2);
    assert_eq!(batches.iter().map(contents).collect::<Vec<_>>(), [(1, " 1 3".to_owned()), (0, " 2 4".to_owned())]);
    let last = batches.pop().unwrap();
    harness.give_back(batches.pop().unwrap(), COMMITTED);
    assert_eq!(status(&mut client), 200);
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "the third reply came first");
    client.set_read_timeout(Some(MINUTE)).unwrap();
    harness.give_back(last, REFUSED);
    assert_eq!(statuses(&mut client, 3), [503, 200, 503]);
    drop(client);
    harness.stop();
}

#[test]
fn requests_with_keys_share_the_batch_of_their_table_and_each_has_an_outcome_of_its_own() {
    let harness = start(&["a", "b"]);
    let mut client = harness.connect();
    let keyed = "Idempotency-Key: k\r\n";
    let pipelined = [
        request("a", "", "1"),
        request("b", keyed, "2"),
        request("a", keyed, "3"),
        request("b", "", "4"),
        request("b", keyed, "5"),
        request("a", keyed, "6"),
    ];
    client.write_all(pipelined.concat().as_bytes()).unwrap();
    let mut batches = batches(&harness, 2);
    assert!(harness.shared.handoff.next().is_none());
    let expected = [(0, " 1 3 6".to_owned()), (1, " 2 4 5".to_owned())];
    assert_eq!(batches.iter().map(contents).collect::<Vec<_>>(), expected);
    let [of_a, of_b] = [0, 1].map(|table: usize| batches[table].keyed().to_vec());
    assert_eq!((of_a.len(), of_b.len()), (2, 2));
    assert_ne!(of_a[0].key.id, of_b[0].key.id, "one key for two tables");
    let summary = Summary { accepted: 7, rejected: 0, refused: false };
    let outcomes = [CommitOutcome::KeyReused, CommitOutcome::Repeated { summary, block: None }];
    for (request, outcome) in batches[0].keyed_mut().iter_mut().zip(outcomes) {
        request.rule = OutcomeRule::Fixed(outcome);
    }
    // What is no repeat has the outcome of its batch.
    batches[1].keyed_mut()[1].rule = OutcomeRule::Fixed(CommitOutcome::KeyReused);
    let last = batches.pop().unwrap();
    harness.give_back(batches.pop().unwrap(), COMMITTED);
    harness.give_back(last, REFUSED);
    let replies: Vec<(u16, String)> = (0..6).map(|_| reply(&mut client)).collect();
    assert_eq!(replies.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 503, 422, 503, 422, 200]);
    assert_eq!(replies[5].1, "{\"accepted\":7,\"rejected\":0}");
    let sheds: u64 = harness.metrics.shed.iter().map(Counter::get).sum();
    assert_eq!((harness.metrics.repeated.get(), sheds), (1, 2));
    drop(client);
    harness.stop();
}

#[test]
fn a_new_schema_of_one_table_applies_to_it_alone() {
    let harness = start(&["a", "b", "c"]);
    let mut client = harness.connect();
    let all: String = ["a", "b", "c"].map(|table| request(table, "", table)).concat();
    let mut frozen = [&b"first"[..]; 3];
    let mut rows = [" a", " b", " c"];
    for changed in [None, Some(1), Some(2), Some(1)] {
        if let Some(table) = changed {
            harness.publish(table, &["more", "event"], b"second");
            frozen[table] = b"second";
            rows[table] = ["", "  b", "  c"][table];
        }
        // Reused batches were those of other tables.
        for _ in 0..limits::batches_per_worker(3) {
            client.write_all(all.as_bytes()).unwrap();
            for (table, batch) in batches(&harness, 3).into_iter().enumerate() {
                assert_eq!((contents(&batch), &batch.frozen[..]), ((table, rows[table].to_owned()), frozen[table]));
                harness.give_back(batch, COMMITTED);
            }
            assert_eq!(statuses(&mut client, 3), [200; 3]);
        }
    }
    drop(client);
    harness.stop();
}

#[test]
fn a_table_that_becomes_unavailable_is_503_until_it_is_back_and_the_others_take_events() {
    let harness = start(&["a", "b"]);
    let mut client = harness.connect();
    // Its head has come, and its body comes when the table is gone.
    let cut = request("a", "", "late");
    let (head, body) = cut.split_at(cut.len() - 3);
    let mut late = harness.connect();
    late.write_all(head.as_bytes()).unwrap();
    while harness.shared.budget.bytes() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    harness.shared.schemas.values()[0].publish(None);
    late.write_all(body.as_bytes()).unwrap();
    assert_eq!(status(&mut late), 503);
    let both = [request("a", "", "1"), request("b", "", "2"), request("a", "Idempotency-Key: k\r\n", "3")].concat();
    client.write_all(both.as_bytes()).unwrap();
    let batch = harness.batch();
    assert_eq!(contents(&batch), (1, " 2".to_owned()));
    harness.give_back(batch, COMMITTED);
    assert_eq!(statuses(&mut client, 3), [503, 200, 503]);
    harness.publish(0, &["event"], b"back");
    client.write_all(request("a", "", "again").as_bytes()).unwrap();
    let batch = harness.batch();
    assert_eq!((contents(&batch), &batch.frozen[..]), ((0, " again".to_owned()), &b"back"[..]));
    harness.give_back(batch, COMMITTED);
    assert_eq!(status(&mut client), 200);
    drop((client, late));
    harness.stop();
}

#[test]
fn a_dry_run_of_one_table_stores_nothing_and_the_others_are_stored() {
    let harness = start(&["a", "b"]);
    let mut client = harness.connect();
    let pipelined = [
        request("a?dry_run=1", "", "1"),
        request("b", "", "2"),
        request("b?dry_run=1", "", "3"),
        request("a?dry_run=1", "Idempotency-Key: k\r\n", "4"),
        request("b", "", "5"),
    ];
    client.write_all(pipelined.concat().as_bytes()).unwrap();
    let batch = harness.batch();
    assert_eq!(contents(&batch), (1, " 2 5".to_owned()));
    harness.give_back(batch, COMMITTED);
    assert_eq!(statuses(&mut client, 5), [200; 5]);
    assert!(harness.shared.handoff.next().is_none());
    drop(client);
    harness.stop();
}

#[test]
fn a_commit_that_takes_too_long_is_503_for_the_requests_of_its_table() {
    let harness = start_with(&["a", "b"], Duration::from_millis(1500), |_| {});
    let [mut slow, mut quick] = [harness.connect(), harness.connect()];
    quick.write_all(request("b", "", "1").as_bytes()).unwrap();
    harness.give_back(harness.batch(), COMMITTED);
    assert_eq!(status(&mut quick), 200);
    slow.write_all([request("a", "", "2"), request("b", "", "3")].concat().as_bytes()).unwrap();
    let mut batches = batches(&harness, 2);
    let (second, first) = (batches.pop().unwrap(), batches.pop().unwrap());
    harness.give_back(first, COMMITTED);
    assert_eq!(status(&mut slow), 200);
    assert_eq!(status(&mut slow), 503, "the batch of `b` is late");
    harness.give_back(second, COMMITTED);
    drop((slow, quick));
    harness.stop();
}

#[test]
fn events_above_the_rate_of_a_table_are_429_and_those_of_others_are_stored() {
    let harness = start_with(&["a", "b"], MINUTE, |shared| {
        let owners = shared.keys.newest().owners().clone();
        shared.quotas = Quotas::new(owners, None).with_tables([None, "1/s,burst=1".parse().ok()]);
    });
    let mut client = harness.connect();
    let all: String = ["b", "a", "b?dry_run=1", "a", "b"].map(|table| request(table, "", "x")).concat();
    client.write_all(all.as_bytes()).unwrap();
    let batches = batches(&harness, 2);
    assert_eq!(batches.iter().map(contents).collect::<Vec<_>>(), [(1, " x".to_owned()), (0, " x x".to_owned())]);
    for batch in batches {
        // What the disk refuses is given back.
        let outcome = if batch.table.get() == 1 { REFUSED } else { COMMITTED };
        harness.give_back(batch, outcome);
    }
    assert_eq!(statuses(&mut client, 5), [503, 200, 429, 200, 429]);
    client.write_all(request("b", "", "y").as_bytes()).unwrap();
    harness.give_back(harness.batch(), COMMITTED);
    assert_eq!(status(&mut client), 200);
    drop(client);
    harness.stop();
}

#[test]
fn a_turn_over_many_tables_is_a_batch_for_each_while_the_last_turn_is_under_way() {
    const TABLES: usize = 32;
    let names: Vec<String> = (0..TABLES).map(|table| format!("t{table}")).collect();
    let harness = start(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut client = harness.connect();
    let all: String = names.iter().map(|table| request(table, "", table)).collect();
    let mut under_way = Vec::new();
    for _ in 0..2 {
        client.write_all(all.as_bytes()).unwrap();
        under_way.extend(batches(&harness, TABLES));
    }
    let mut tables: Vec<usize> = under_way.iter().map(|batch| batch.table.get()).collect();
    tables.sort_unstable();
    assert_eq!(tables, (0..2 * TABLES).map(|place| place / 2).collect::<Vec<_>>());
    // So many are left: what comes now waits for one.
    let left = limits::batches_per_worker(TABLES) - 2 * TABLES;
    let mut others: Vec<TcpStream> = (0..left + 1).map(|_| harness.connect()).collect();
    for (place, other) in others.iter_mut().enumerate() {
        other.write_all(request("t7", "", "x").as_bytes()).unwrap();
        if place < left {
            under_way.push(harness.batch());
        }
    }
    thread::sleep(Duration::from_millis(200));
    assert!(harness.shared.handoff.next().is_none(), "there are more batches than there may be");
    for batch in under_way {
        harness.give_back(batch, COMMITTED);
    }
    harness.give_back(harness.batch(), COMMITTED);
    assert_eq!(statuses(&mut client, 2 * TABLES), [200; 2 * TABLES]);
    assert!(others.iter_mut().all(|client| status(client) == 200));
    drop((client, others));
    harness.stop();
}

#[test]
fn a_large_request_of_one_table_is_served_beside_small_ones_of_all() {
    const EVENTS: usize = 1000;
    const SMALL: usize = 5;
    let harness = start_with(&["a", "b"], MINUTE, |shared| {
        shared.budget = ByteBudget::new(BudgetLimits { max: 256 << 20, request_max: 8 << 20 });
    });
    let body = format!("{{\"event\":\"{}\"}}\n", "x".repeat(5 * limits::SLICE_BYTES / EVENTS)).repeat(EVENTS);
    let mut large = harness.connect();
    let mut sending = large.try_clone().unwrap();
    let sender = thread::spawn(move || {
        write!(sending, "POST /api/b HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        sending.write_all(request("a", "", "behind").as_bytes()).unwrap();
    });
    let mut small: Vec<TcpStream> = (0..SMALL).map(|_| harness.connect()).collect();
    for client in &mut small {
        client.write_all([request("a", "", "1"), request("b", "", "2")].concat().as_bytes()).unwrap();
    }
    let mut events = [0; 2];
    while events != [SMALL + 1, SMALL + EVENTS] {
        let batch = harness.batch();
        let (table, rows) = (batch.table.get(), batch.rows.count as usize);
        assert!(rows < EVENTS || (table, rows) == (1, EVENTS), "a large request shares a batch");
        events[table] += rows;
        harness.give_back(batch, COMMITTED);
    }
    sender.join().unwrap();
    assert_eq!(statuses(&mut large, 2), [200, 200]);
    assert!(small.iter_mut().all(|client| statuses(client, 2) == [200, 200]));
    drop((large, small));
    harness.stop();
}

#[test]
fn a_large_request_is_in_the_columns_of_its_table_that_are_known_at_its_end() {
    const EVENTS: usize = 1000;
    let (mut worker, address) = worker_of(&["a", "b"], MINUTE, |shared| {
        shared.budget = ByteBudget::new(BudgetLimits { max: 256 << 20, request_max: 8 << 20 });
    });
    let value = "x".repeat(5 * limits::SLICE_BYTES / EVENTS);
    let body = format!("{{\"event\":\"{value}\"}}\n").repeat(EVENTS);
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(MINUTE)).unwrap();
    let mut sending = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        write!(sending, "POST /api/b HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    let mut events = Events::with_capacity(64);
    let is_under_way =
        |worker: &Worker| worker.slots.iter().flatten().any(|slot| slot.connection.unfinished().is_some());
    while !is_under_way(&worker) {
        worker.turn(&mut events).unwrap();
    }
    worker.turn(&mut events).unwrap();
    assert!(is_under_way(&worker), "it is served already");
    let second = SchemaVersion::new(plan(&["more", "event"]), b"second".to_vec());
    worker.shared.schemas.values()[1].publish(Some(second));
    let batch = loop {
        worker.turn(&mut events).unwrap();
        if let Some(batch) = worker.shared.handoff.next() {
            break batch;
        }
    };
    assert_eq!((batch.table.get(), &batch.frozen[..], batch.rows.count as usize), (1, &b"second"[..], EVENTS));
    let length = [0x80 | value.len() as u8 & 0x7f, (value.len() >> 7) as u8];
    assert!(batch.rows.bytes == [&b"\0"[..], &length, value.as_bytes()].concat().repeat(EVENTS));
    worker.shared.handoff.mailbox(0).unwrap().give_back(Returned { batch, outcome: COMMITTED });
    worker.turn(&mut events).unwrap();
    sender.join().unwrap();
    assert_eq!(status(&mut client), 200);
}
