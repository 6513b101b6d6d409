//! Tests of requests that take several turns, with real sockets.

use super::*;
use crate::api::Shed;
use crate::connection::Unfinished;

/// Events of more than five slices: as many as the harness allows in a request.
const EVENTS: usize = 1000;

fn large_body() -> Vec<u8> {
    let filler = "x".repeat(5 * limits::SLICE_BYTES / EVENTS + 100);
    (0..EVENTS).flat_map(|event| format!("{{\"event\":\"{event:05}{filler}\"}}\n").into_bytes()).collect()
}

fn start() -> Harness {
    Harness::start_with(Duration::from_secs(60), |shared| {
        shared.budget = ByteBudget::new(BudgetLimits { max: 256 << 20, request_max: 8 << 20 });
    })
}

fn send(client: &mut TcpStream, headers: &str, body: &[u8]) {
    write!(client, "POST /api/events HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).unwrap();
    client.write_all(body).unwrap();
}

/// Gives back batches until all of these rows were in one, and returns the numbers of rows.
fn commit(harness: &Harness, rows: usize) -> Vec<usize> {
    let mut counts = Vec::new();
    while counts.iter().sum::<usize>() < rows {
        let batch = harness.batch();
        counts.push(batch.rows.count as usize);
        harness.give_back(batch, COMMITTED);
    }
    counts
}

#[test]
fn large_requests_of_many_connections_are_served_one_by_one_and_small_ones_beside_them() {
    let harness = start();
    let body = large_body();
    let mut clients: Vec<TcpStream> = (0..5).map(|_| harness.connect()).collect();
    let mut small: Vec<TcpStream> = (0..5).map(|_| harness.connect()).collect();
    for (client, small) in clients.iter_mut().zip(&mut small) {
        // A second one is behind each: the connection is read on.
        let mut client = client.try_clone().unwrap();
        let body = body.clone();
        thread::spawn(move || {
            send(&mut client, "", &body);
            send(&mut client, "", b"{\"event\":\"behind\"}");
        });
        post(small, "small");
    }
    let counts = commit(&harness, 5 * EVENTS + 10);
    assert_eq!(
        counts.iter().filter(|count| **count == EVENTS).count(),
        5,
        "a large request shares a batch: {counts:?}"
    );
    for client in &mut clients {
        assert_eq!((status(client), status(client)), (200, 200));
    }
    assert!(small.iter_mut().all(|client| status(client) == 200));
    drop((clients, small));
    harness.stop();
}

#[test]
fn a_stop_answers_the_large_requests_that_are_under_way() {
    let harness = start();
    let body = large_body();
    let mut clients: Vec<TcpStream> = (0..3).map(|_| harness.connect()).collect();
    for client in &mut clients {
        send(client, "", &body);
    }
    harness.shared.handoff.lifecycle.stop(Duration::from_secs(60));
    assert_eq!(commit(&harness, 3 * EVENTS), [EVENTS; 3]);
    assert!(clients.iter_mut().all(|client| status(client) == 200));
    drop(clients);
    harness.stop();
}

#[test]
fn large_requests_wait_for_a_batch_while_all_are_under_way() {
    let harness = start();
    let mut clients: Vec<TcpStream> = (0..limits::BATCHES_PER_WORKER).map(|_| harness.connect()).collect();
    let mut held = Vec::new();
    for client in &mut clients {
        post(client, "held");
        held.push(harness.batch());
    }
    let body = large_body();
    let mut large: Vec<TcpStream> = (0..2).map(|_| harness.connect()).collect();
    for client in &large {
        let (mut client, body) = (client.try_clone().unwrap(), body.clone());
        thread::spawn(move || send(&mut client, "", &body));
    }
    thread::sleep(Duration::from_millis(200));
    assert!(harness.shared.handoff.next().is_none());
    held.into_iter().for_each(|batch| harness.give_back(batch, COMMITTED));
    assert_eq!(commit(&harness, 2 * EVENTS), [EVENTS; 2]);
    assert!(clients.iter_mut().chain(&mut large).all(|client| status(client) == 200));
    drop((clients, large));
    harness.stop();
}

#[test]
fn one_that_waits_too_long_in_line_is_told_to_come_again_and_those_beside_it_are_served() {
    let (mut worker, address) = worker(Duration::from_secs(60), |shared| {
        shared.budget = ByteBudget::new(BudgetLimits { max: 256 << 20, request_max: 8 << 20 });
    });
    let (body, last) = (large_body(), b"\n");
    let begin = || {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (mut sending, body) = (client.try_clone().unwrap(), body.clone());
        thread::spawn(move || {
            let len = body.len() + last.len();
            write!(sending, "POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n").unwrap();
            sending.write_all(&body).unwrap();
        });
        client
    };
    let mut clients: Vec<TcpStream> = (0..3).map(|_| begin()).collect();
    let mut events = Events::with_capacity(64);
    let kept = |worker: &Worker| worker.slots.iter().flatten().map(|slot| slot.kept.bytes.len()).sum::<usize>();
    while kept(&worker) < 3 * body.len() {
        worker.turn(&mut events).unwrap();
    }
    clients.iter_mut().for_each(|client| client.write_all(last).unwrap());
    let unfinished = |worker: &Worker, index: usize| worker.slots.get(index)?.as_ref()?.connection.unfinished();
    let in_line = |worker: &Worker| (0..3).find(|index| unfinished(worker, *index) == Some(Unfinished::InLine));
    worker.turn(&mut events).unwrap();
    let late = in_line(&worker).expect("one has the place");
    let reached = worker.now + worker.shared.timeouts.reply();
    let due: Vec<usize> = std::iter::from_fn(|| worker.timers.take_due(reached)).collect();
    assert!(due.contains(&late), "nothing limits its wait: {due:?}");
    worker.time_out(late);
    assert_eq!(worker.metrics.shed[Shed::InFlightBytes.index()].get(), 1);
    let mut rows = 0;
    while rows < 2 * EVENTS {
        worker.turn(&mut events).unwrap();
        while let Some(batch) = worker.shared.handoff.next() {
            rows += batch.rows.count as usize;
            worker.shared.handoff.mailbox(0).unwrap().give_back(Returned { batch, outcome: COMMITTED });
        }
    }
    worker.turn(&mut events).unwrap();
    let mut statuses: Vec<u16> = clients.iter_mut().map(status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
}

#[cfg(feature = "codings")]
#[test]
fn pipelined_coded_requests_are_all_answered_in_their_order() {
    use crate::http::coding::encoders::gzip;

    let harness = start();
    let (large, small) = (gzip(&large_body()), gzip(b"{\"event\":\"small\"}"));
    let mut client = harness.connect();
    let headers = "Content-Encoding: gzip\r\n";
    for _ in 0..3 {
        for body in [&small, &large, &small, &small] {
            send(&mut client, headers, body);
        }
        send(&mut client, headers, &small[1..]);
    }
    commit(&harness, 3 * (EVENTS + 3));
    let statuses: Vec<u16> = (0..15).map(|_| status(&mut client)).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 400].repeat(3));
    drop(client);
    harness.stop();
}
