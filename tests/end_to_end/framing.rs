//! Malformed requests: each gets the contract's status, and the connection ends.

use std::time::Duration;

use crate::support::{Connection, Server, post, shared_clickhouse};

#[test]
fn malformed_requests_get_their_status_and_a_closed_connection() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--body-bytes-max", "1KiB", "--head-bytes-max", "1KiB"]);
    let long_header = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2000));
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(2000));
    let many_headers = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    let post = "POST /api/events HTTP/1.1\r\nHost: a\r\n";
    for (input, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\x01".to_owned(), 400),
        ("GET / HTTP/1.1\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        (long_header, 431),
        (long_target, 414),
        (many_headers, 431),
        (format!("{post}Content-Length: x\r\n\r\n"), 400),
        (format!("{post}Content-Length: -1\r\n\r\n"), 400),
        (format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400),
        (format!("{post}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: gzip\r\n\r\n"), 501),
        (format!("{post}Content-Length: 1025\r\n\r\n"), 413),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n401\r\n"), 413),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\nx\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n\r\n"), 400),
        (format!("{post}Expect: something\r\nContent-Length: 0\r\n\r\n"), 417),
    ] {
        let mut connection = Connection::open(server.address());
        connection.send(input.as_bytes());
        let response = connection.read_response();
        assert_eq!(response.status, status, "{input:?}: {}", response.text());
        let json: serde_json::Value = serde_json::from_str(&response.text()).unwrap();
        assert!(json["error"].is_string() && json["message"].is_string(), "{json}");
        assert_eq!(response.header("connection"), Some("close"), "{input:?}");
        assert!(connection.is_closed_within(Duration::from_secs(5)), "{input:?}");
    }
    assert!(server.stop().success());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "0");
}

#[test]
fn what_is_well_formed_but_not_there_keeps_the_connection() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(clickhouse, &clickhouse.database(), &[]);
    let mut connection = Connection::open(server.address());
    for (input, status, allow) in [
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, None),
        ("POST /api%2Fevents HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 404, None),
        ("POST /api/%65vents HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, None),
        ("POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 404, None),
        ("DELETE /api/events HTTP/1.1\r\nHost: a\r\n\r\n", 405, Some("POST, OPTIONS")),
        ("POST /api/events?ack=never HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 400, None),
        ("POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Encoding: lzma\r\nContent-Length: 0\r\n\r\n", 415, None),
        ("OPTIONS /api/events HTTP/1.1\r\nHost: a\r\n\r\n", 204, Some("POST, OPTIONS")),
        ("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200, None),
    ] {
        connection.send(input.as_bytes());
        let response = connection.read_response();
        assert_eq!((response.status, response.header("allow")), (status, allow), "{input:?}");
    }
}

#[test]
fn a_body_that_breaks_off_stores_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let event = "{\"event\":\"half\"}\n";
    for head in
        ["Content-Length: 1000\r\n\r\n".to_owned(), format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", event.len())]
    {
        let mut connection = Connection::open(server.address());
        connection.send(format!("POST /api/events HTTP/1.1\r\nHost: a\r\n{head}{event}\r\n").as_bytes());
        drop(connection);
    }
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"whole\"}").status, 200);
    assert!(server.stop().success());
    let events = clickhouse.query(&format!("SELECT event FROM {database}.events FORMAT TSV"));
    assert_eq!(events.trim(), "whole");
}

#[test]
fn slow_heads_and_bodies_time_out_and_idle_connections_close() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(
        clickhouse,
        &clickhouse.database(),
        &["--head-timeout", "500ms", "--body-timeout", "500ms", "--idle-timeout", "700ms"],
    );
    for input in ["POST /api/ev", "POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"] {
        let mut connection = Connection::open(server.address());
        connection.send(input.as_bytes());
        let response = connection.read_response();
        assert_eq!(response.status, 408, "{input:?}");
        assert!(connection.is_closed_within(Duration::from_secs(5)));
    }
    let mut idle = Connection::open(server.address());
    assert!(idle.is_closed_within(Duration::from_secs(5)));
}

#[test]
fn connections_above_the_limit_replace_idle_ones_or_are_told_so() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(clickhouse, &clickhouse.database(), &["--connections-max", "4", "--workers", "1"]);
    let mut open: Vec<Connection> = (0..4).map(|_| Connection::open(server.address())).collect();
    for connection in &mut open {
        connection.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.read_response().status, 200);
    }
    // These are idle, and make way.
    assert_eq!(post(server.address(), "/api/events", b"{}").status, 200);
    open.clear();
    // Each of these has a request on its way.
    open.extend((0..4).map(|_| Connection::open(server.address())));
    open.iter_mut().for_each(|connection| connection.send(b"GET /hea"));
    std::thread::sleep(Duration::from_millis(500));
    let refused = post(server.address(), "/api/events", b"{}");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    open.clear();
    let mut accepted = post(server.address(), "/api/events", b"{}");
    for _ in 0..50 {
        if accepted.status == 200 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
        accepted = post(server.address(), "/api/events", b"{}");
    }
    panic!("connections are still refused: {}", accepted.status);
}

#[test]
fn a_client_that_ends_its_side_gets_its_reply() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(clickhouse, &clickhouse.database(), &[]);
    let mut connection = Connection::open(server.address());
    let request = b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    connection.send(&request.repeat(200));
    connection.finish();
    for _ in 0..200 {
        assert_eq!(connection.read_response().status, 200);
    }
    assert!(connection.is_closed_within(Duration::from_secs(5)));
}
