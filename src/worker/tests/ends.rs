//! How connections end: when their time is over, when others need their place, at a refusal and at a stop.

use super::*;

#[test]
fn a_body_that_drips_has_the_time_of_its_length_and_no_more() {
    let bench = Harness::start_with(Duration::from_secs(60), |shared| {
        shared.timeouts.body = Duration::from_secs(2);
        shared.timeouts.body_rate_min = 1 << 20;
    });
    let mut client = bench.connect();
    client.write_all(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n").unwrap();
    let mut dripped = 0;
    client.set_nonblocking(true).unwrap();
    while client.peek(&mut [0]).is_err() {
        // Far more often than one pause may take, and far longer than the whole may.
        client.write_all(b"\n").unwrap();
        dripped += 1;
        assert!(dripped < 200, "the body may drip for ever");
        thread::sleep(Duration::from_millis(50));
    }
    client.set_nonblocking(false).unwrap();
    assert_eq!(status(&mut client), 408);
    // Each request of a connection has its own time, whatever those before it took.
    let mut client = bench.connect();
    for _ in 0..5 {
        client.write_all(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n").unwrap();
        thread::sleep(Duration::from_millis(500));
        client.write_all(b"\n\n").unwrap();
        assert_eq!(status(&mut client), 200);
    }
    drop(client);
    bench.stop();
}

#[test]
fn a_new_connection_replaces_the_one_that_is_idle_longest() {
    let bench = Harness::start_with(Duration::from_secs(60), |shared| shared.connections_max = 3);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| bench.connect()).collect();
    for client in clients.iter_mut().rev() {
        client.write_all(HEALTH).unwrap();
        assert_eq!(status(client), 200);
    }
    let mut fresh = bench.connect();
    fresh.write_all(HEALTH).unwrap();
    assert_eq!(status(&mut fresh), 200);
    assert_eq!(clients.pop().unwrap().read(&mut [0]).unwrap(), 0, "the longest idle one is not closed");
    for client in &mut clients {
        client.write_all(HEALTH).unwrap();
        assert_eq!(status(client), 200);
    }
    // None of these is idle: each has a request under way.
    post(&mut fresh, "under way");
    clients.iter_mut().for_each(|client| client.write_all(b"POST /api/e").unwrap());
    let batch = bench.batch();
    thread::sleep(Duration::from_millis(200));
    let mut refused = bench.connect();
    assert_eq!(status(&mut refused), 503);
    bench.give_back(batch, COMMITTED);
    assert_eq!(status(&mut fresh), 200);
    drop((clients, fresh, refused));
    bench.stop();
}

#[test]
fn a_worker_without_an_idle_connection_passes_a_new_one_on_and_refuses_one_that_was_passed_to_it() {
    let other = [Poll::new().unwrap()];
    let (worker, address) =
        worker_beside(&other, &["events"], Duration::from_secs(60), |shared| shared.connections_max = 3);
    let handoff = worker.shared.handoff.clone();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let arrival = || {
        let stream = mio::net::TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
        crate::handoff::Arrival { stream: crate::net::Stream::Tcp(stream), peer: None, is_passed: false }
    };
    // The other one has three, which nobody knows to be idle but itself; this one has none.
    let take = |worker: usize| handoff.mailbox(worker).unwrap().arrival();
    (0..5).for_each(|_| handoff.place(1, arrival()));
    let of_other: Vec<_> = (0..3).map(|_| take(1).unwrap()).collect();
    (0..2).for_each(|_| {
        drop(take(0).unwrap());
        handoff.leave(0);
    });
    let bench = Harness::run((worker, address));
    let mut client = bench.connect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let passed = loop {
        if let Some(passed) = take(1).filter(|arrival| arrival.is_passed) {
            break passed;
        }
        assert!(Instant::now() < deadline, "it is not passed on");
        thread::sleep(Duration::from_millis(1));
    };
    // As if the other one had passed it here: then there is room nowhere.
    handoff.leave(1);
    handoff.place(1, passed);
    handoff.mailbox(0).unwrap().wake();
    assert_eq!(status(&mut client), 503);
    drop((client, of_other));
    bench.stop();
}

#[test]
fn the_last_reply_of_a_stop_is_read_by_a_client_that_goes_on_sending() {
    let bench = Harness::start(Duration::from_secs(60));
    let mut client = bench.connect();
    post(&mut client, "begun");
    let batch = bench.batch();
    bench.shared.handoff.lifecycle.stop(Duration::from_secs(60));
    bench.give_back(batch, COMMITTED);
    thread::sleep(Duration::from_millis(300));
    post(&mut client, "too late");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(status(&mut client), 200);
    // The end, and not a reset, which may overtake the reply.
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    bench.stop();
}

#[test]
fn a_refusal_is_read_by_a_client_that_sends_for_long() {
    let bench = Harness::start(Duration::from_secs(60));
    let mut client = bench.connect();
    client.write_all(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n").unwrap();
    for _ in 0..2 * limits::LINGER_SECONDS * 10 {
        client.write_all(&[b' '; 10_000]).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(status(&mut client), 413);
    drop(client);
    bench.stop();
}
