//! Limits of events by key and by address, of connections by address, of requests by connection. The rates
//! are so slow beside their bursts that no pause of a busy machine changes what a test sees.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::{
    Connection, Folder, PATIENCE, Response, Server, get, post, post_with, request, shared_clickhouse, wait_for,
};

const TARGET: &str = "/api/events";

fn events(number: usize) -> Vec<u8> {
    b"{\"event\":\"a\"}\n".repeat(number)
}

fn number(reply: &Response, field: &str) -> u64 {
    let value = reply.header(field).unwrap_or_else(|| panic!("{field} is missing: {:?}", reply.headers));
    value.parse().unwrap()
}

/// A connection of a client at this address of the loopback.
fn connect_from(client: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(client), 0).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A POST from this address on a connection of its own: what comes back up to the end of the head.
fn post_from(client: [u8; 4], server: SocketAddr, body: &[u8]) -> String {
    let mut stream = connect_from(client, server);
    stream.write_all(&request(TARGET, "", body)).unwrap();
    read_head(&mut stream)
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn events_above_the_rate_are_429_with_what_is_left_and_when_and_nothing_of_them_is_stored() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--rate-limit", "1/s,burst=50000"]);
    let first = post(server.address(), TARGET, &[events(39_990), b"rubbish\n".repeat(10)].concat());
    assert_eq!(first.status, 200);
    assert_eq!(number(&first, "x-ratelimit-limit"), 50_000);
    assert!((10_000..11_000).contains(&number(&first, "x-ratelimit-remaining")), "{:?}", first.headers);
    assert!((39_000..=40_000).contains(&number(&first, "x-ratelimit-reset")), "{:?}", first.headers);
    assert_eq!(first.header("retry-after"), None);
    let over = post(server.address(), TARGET, &events(15_000));
    assert!(over.status == 429 && over.text().contains("\"error\":\"over_rate\""), "{}", over.text());
    assert!((4_000..=5_000).contains(&number(&over, "retry-after")), "{:?}", over.headers);
    assert!(number(&over, "x-ratelimit-remaining") < 11_000, "{:?}", over.headers);
    // All or none: fewer pass, and what was refused took nothing.
    assert_eq!(post(server.address(), TARGET, &events(10_000)).status, 200);
    let never = post(server.address(), TARGET, &events(50_001));
    assert!(never.status == 413 && never.text().contains("\"error\":\"too_many_events\""), "{}", never.text());
    assert_eq!(never.header("retry-after"), None);
    assert_eq!(post(server.address(), TARGET, b"").status, 200);
    assert_eq!(get(server.address(), "/health").status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 49_990);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 10);
    assert!(server.stop().success());
    let rows = clickhouse.query(&format!("SELECT count() FROM {database}.events"));
    assert_eq!(rows.trim(), "49990");
}

#[test]
fn who_waits_as_long_as_retry_after_says_is_let_in() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--rate-limit", "1000/s,burst=2000"]);
    let body = events(2000);
    let over = wait_for(
        || "the rate refuses nothing".to_owned(),
        || Some(post(server.address(), TARGET, &body)).filter(|reply| reply.status == 429),
    );
    let seconds = number(&over, "retry-after");
    assert!((1..=2).contains(&seconds), "{seconds}");
    std::thread::sleep(Duration::from_secs(seconds));
    assert_eq!(post(server.address(), TARGET, &body).status, 200);
    assert!(server.stop().success());
}

#[test]
fn a_repeat_is_free_and_answered_even_when_nothing_is_left_of_the_rate() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--rate-limit", "1/s,burst=50000"]);
    let keyed =
        |key: &str, body: &[u8]| post_with(server.address(), TARGET, &format!("Idempotency-Key: {key}\r\n"), body);
    let body = [events(19_999), b"rubbish\n".to_vec()].concat();
    let first = keyed("1", &body);
    assert_eq!(first.status, 200);
    // It is given back: else the third would not pass.
    for _ in 0..3 {
        let again = keyed("1", &body);
        assert_eq!((again.status, again.text()), (200, first.text()));
    }
    assert_eq!(keyed("2", &events(29_000)).status, 200);
    let over = keyed("3", &body);
    assert!(over.status == 429 && number(&over, "retry-after") > 10_000, "{:?}", over.headers);
    let again = keyed("1", &body);
    assert_eq!((again.status, again.text()), (200, first.text()));
    let reused = keyed("1", &events(20_000));
    assert!(reused.status == 422 && reused.text().contains("idempotency_key_reused"), "{}", reused.text());
    // A key that was refused is not known.
    let over = keyed("3", &events(20_000));
    assert_eq!(over.status, 429, "{}", over.text());
    let metrics = server.metrics();
    assert_eq!(metrics["sluicegate_requests_repeated_total"], 4.0);
    assert_eq!(metrics["sluicegate_events_accepted_total"], 48_999.0);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 48_999);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);
    assert_eq!(server.metrics()["sluicegate_idempotency_keys"], 2.0);
    assert!(server.stop().success());
}

#[test]
fn a_repeat_above_a_burst_that_was_made_smaller_gets_its_first_reply() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = Folder::new();
    let file = folder.path().join("keys");
    let write =
        |burst: u32| std::fs::write(&file, format!("key-0123456789-1 name=a rate=1/s,burst={burst}\n")).unwrap();
    write(50_000);
    let server = Server::start(clickhouse, &database, &["--write-key-file", file.to_str().unwrap()]);
    let send = |key: &str, number: usize| {
        let target = format!("{TARGET}?key=key-0123456789-1");
        post_with(server.address(), &target, &format!("Idempotency-Key: {key}\r\n"), &events(number))
    };
    // One that is served at once, and one in slices.
    let numbers = [("small", 15_000), ("large", 30_000)];
    for (key, number) in numbers {
        assert_eq!(send(key, number).status, 200);
    }
    write(10_000);
    server.signal(Signal::HUP);
    wait_for(|| server.log(), || server.log().contains("the write keys are read again").then_some(()));
    wait_for(|| server.log(), || (send("another", 15_000).status == 413).then_some(()));
    for (key, number) in numbers {
        let again = send(key, number);
        assert_eq!((again.status, again.text()), (200, format!("{{\"accepted\":{number},\"rejected\":0}}")), "{key}");
        let other = send(&format!("other {key}"), number);
        assert!(other.status == 413 && other.text().contains("too_many_events"), "{}", other.text());
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 45_000);
    assert!(server.stop().success());
}

#[test]
fn each_name_of_a_key_has_its_rate_and_the_keys_of_a_name_share_it() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = Folder::new();
    let file = folder.path().join("keys");
    let text = "key-0123456789-1 name=a\nkey-0123456789-2 name=a\nkey-0123456789-3 name=b rate=1/s,burst=20000\n";
    std::fs::write(&file, text).unwrap();
    let flags = ["--write-key-file", file.to_str().unwrap(), "--rate-limit", "1/s,burst=30000"];
    let server = Server::start(clickhouse, &database, &flags);
    let send = |key: u32, number: usize| {
        let target = format!("{TARGET}?key=key-0123456789-{key}");
        post(server.address(), &target, &events(number)).status
    };
    assert_eq!([send(1, 20_000), send(2, 20_000), send(2, 10_000), send(1, 10_000)], [200, 429, 200, 429]);
    assert_eq!([send(3, 30_000), send(3, 20_000), send(3, 10_000)], [413, 200, 429]);
    let metrics = server.metrics();
    assert_eq!(metrics["sluicegate_key_events_accepted_total{key=\"a\"}"], 30_000.0);
    assert_eq!(metrics["sluicegate_key_events_accepted_total{key=\"b\"}"], 20_000.0);
    assert!(server.stop().success());
}

#[test]
fn each_address_has_its_rate() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--rate-limit-per-address", "1/s,burst=30000"]);
    for client in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 1, 2, 3]] {
        let first = post_from(client, server.address(), &events(20_000));
        assert!(first.starts_with("HTTP/1.1 200") && first.contains("X-RateLimit-Limit: 30000"), "{first}");
        let over = post_from(client, server.address(), &events(20_000));
        assert!(over.starts_with("HTTP/1.1 429") && over.contains("\r\nRetry-After: "), "{over}");
    }
    assert!(server.stop().success());
}

#[test]
fn one_connection_of_an_address_too_many_is_told_so_and_others_are_served() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--connections-per-address-max", "2"]);
    let (me, other) = ([127, 0, 0, 5], [127, 0, 0, 6]);
    let serves = |stream: &mut TcpStream| {
        stream.write_all(&request(TARGET, "", &events(1))).unwrap();
        let head = read_head(stream);
        let mut body = [0; 27];
        stream.read_exact(&mut body).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    };
    let mut open = [connect_from(me, server.address()), connect_from(me, server.address())];
    open.iter_mut().for_each(serves);
    let mut third = connect_from(me, server.address());
    let told = read_head(&mut third);
    assert!(told.starts_with("HTTP/1.1 429") && told.contains("Connection: close"), "{told}");
    assert!(told.contains("Retry-After: 1"), "{told}");
    // Many of them take nothing from others: most are closed without a word.
    let _flood: Vec<TcpStream> = (0..100).map(|_| connect_from(me, server.address())).collect();
    serves(&mut connect_from(other, server.address()));
    open.iter_mut().for_each(serves);
    drop((open, third, _flood));
    wait_for(
        || format!("no connection is let in:\n{}", server.log()),
        || {
            let mut stream = connect_from(me, server.address());
            stream.write_all(&request(TARGET, "", &events(1))).ok()?;
            let mut status = [0; 12];
            stream.read_exact(&mut status).ok()?;
            (status.ends_with(b"200")).then_some(())
        },
    );
    assert!(server.stop().success());
}

#[test]
fn the_last_request_of_a_connection_by_number_closes_it() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--requests-per-connection-max", "3"]);
    let mut connection = Connection::open(server.address());
    // More than the server reads: the replies arrive all the same.
    connection.send(&request(TARGET, "", &events(1)).repeat(5));
    let replies: Vec<Response> = (0..3).map(|_| connection.read_response()).collect();
    let closes: Vec<bool> = replies.iter().map(|reply| reply.header("connection") == Some("close")).collect();
    assert_eq!(closes, [false, false, true]);
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert!(connection.try_read_response().is_none());
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 3);
    assert!(server.stop().success());
}

#[test]
fn a_client_that_reads_slowly_but_reads_gets_all_replies() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let times = [("idle", "2s"), ("commit", "1s"), ("inserted", "10ms"), ("head", "1s"), ("body", "1s")];
    let flags = times.map(|(name, time)| format!("--{name}-timeout={time}"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start(clickhouse, &database, &flags);
    // Replies of about 10 KB: more than the kernel keeps for a client that does not read.
    let one = [request(TARGET, "", &b"rubbish\n".repeat(100)), Vec::new()].concat();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&server.address().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    const REQUESTS: usize = 600;
    let sender = std::thread::spawn(move || writer.write_all(&one.repeat(REQUESTS)).unwrap());
    let (mut received, mut space) = (Vec::new(), vec![0; 64 << 10]);
    let count = |received: &[u8]| memchr::memmem::find_iter(received, b"HTTP/1.1 422").count();
    while count(&received) < REQUESTS {
        let len = stream.read(&mut space).unwrap();
        assert!(len > 0, "the connection ended after {} replies", count(&received));
        received.extend_from_slice(&space[..len]);
        std::thread::sleep(Duration::from_millis(40));
    }
    sender.join().unwrap();
    assert!(server.stop().success());
}
