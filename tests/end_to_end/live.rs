//! `/api/<table>/live`: what is accepted or rejected now, as server-sent events.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, Variant, each_engine, get, post, post_with, shared_clickhouse, wait_for};

/// A client that watches.
struct Watching {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Watching {
    /// Begins to watch, and waits for the head of the reply.
    fn open(address: SocketAddr, target: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let mut watching = Self { stream, received: Vec::new() };
        let head = watching.until("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
        watching
    }

    /// What comes up to this end; `None` if the stream ends before.
    fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|part| part == end.as_bytes()) {
                let rest = self.received.split_off(at + end.len());
                return Some(String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap());
            }
            let mut space = [0; 16 << 10];
            match self.stream.read(&mut space).unwrap() {
                0 => return None,
                len => self.received.extend_from_slice(&space[..len]),
            }
        }
    }

    /// The next event that has a line.
    fn event(&mut self) -> Value {
        loop {
            let event = self.until("\n\n").expect("the stream goes on");
            if let Some(data) = event.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    fn line(&mut self) -> Value {
        self.event()["line"].take()
    }

    /// Reads until so many lines were shown or said to be left out; how many were shown.
    fn account_for(&mut self, lines: u64) -> u64 {
        let (mut shown, mut skipped) = (0, 0);
        while shown + skipped < lines {
            let event = self.until("\n\n").expect("the stream goes on");
            if event.starts_with("data: ") {
                shown += 1;
            } else if let Some(data) = event.strip_prefix("event: skipped\ndata: ") {
                skipped += serde_json::from_str::<Value>(data).unwrap()["skipped"].as_u64().unwrap();
            }
        }
        assert_eq!(shown + skipped, lines, "{shown} were shown, {skipped} left out");
        shown
    }
}

each_engine!(
    accepted_and_rejected_lines_are_shown_as_they_were_sent,
    what_is_left_out_is_counted_and_a_watcher_that_hangs_stops_nobody,
);

fn accepted_and_rejected_lines_are_shown_as_they_were_sent(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--client-ip", "truncated"]));
    let mut accepted = Watching::open(server.admin_address(), "/api/events/live");
    let mut rejected = Watching::open(server.admin_address(), "/api/events/live?rejected=1");
    let send = |body: &[u8], status| {
        let reply = post(server.address(), "/api/events", body);
        assert_eq!(reply.status, status, "{}", reply.text());
    };
    send(b"{\"event\":\"a\",\r\"unknown\": [1, 2.50]}\r\n\nbad \xff\n{\"sequence\":\"x\"}\n{\"event\":\"b\"}", 200);
    let event = accepted.event();
    assert_eq!(event["line"], json!({"event": "a", "unknown": [1, 2.5]}));
    assert_eq!(event["ip"], "127.0.0.0");
    let time = chrono::DateTime::parse_from_rfc3339(event["server_time"].as_str().unwrap()).unwrap();
    assert!((chrono::Utc::now().timestamp() - time.timestamp()).abs() < 60, "{time}");
    assert_eq!(accepted.line(), json!({"event": "b"}));
    let event = rejected.event();
    assert_eq!((&event["line"], &event["code"]), (&json!("bad \u{fffd}"), &json!("invalid_utf8")));
    assert_eq!((&event["column"], &event["ip"]), (&Value::Null, &json!("127.0.0.0")));
    let event = rejected.event();
    assert_eq!((&event["line"], &event["code"]), (&json!("{\"sequence\":\"x\"}"), &json!("type_mismatch")));
    assert!(event["column"] == "sequence" && event["message"].as_str().unwrap().len() > 10, "{event}");

    // An array; a large body; a line that is longer than what is shown.
    send(b"[{\"event\":\"c\"},\n 7, {\"event\":\n\"d\"}]", 200);
    assert_eq!([accepted.line(), accepted.line()], [json!({"event": "c"}), json!({"event": "d"})]);
    assert_eq!(rejected.line(), "7");
    let large = format!("{{\"event\":\"e\"}}\n{{\"event\":\"{}\"}}", "x".repeat(300 << 10));
    send(large.as_bytes(), 200);
    assert_eq!(accepted.line(), json!({"event": "e"}));
    let cut = accepted.line();
    assert_eq!(cut.as_str().map(str::len), Some(64 << 10), "as text, and cut");

    // What stores nothing, or nothing new, is not shown.
    assert_eq!(post(server.address(), "/api/events?dry_run=1", b"{\"event\":\"dry\"}\nbad").status, 200);
    if variant.and(&[]).is_empty() {
        for _ in 0..2 {
            let body = b"{\"event\":\"once\"}\nbad";
            let reply = post_with(server.address(), "/api/events", "Idempotency-Key: k\r\n", body);
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        assert_eq!(accepted.line(), json!({"event": "once"}));
        assert_eq!(rejected.line(), "bad");
    }
    send("bad\n".repeat(1500).as_bytes(), 422);
    send(b"{\"event\":\"last\"}\nlast", 200);
    assert_eq!(accepted.line(), json!({"event": "last"}));
    assert_eq!(rejected.line(), "last");
    // The streams end with the server.
    assert!(server.stop().success());
    assert_eq!((accepted.until("data: "), rejected.until("data: ")), (None, None));
}

fn what_is_left_out_is_counted_and_a_watcher_that_hangs_stops_nobody(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&[]));
    let hanging = Watching::open(server.admin_address(), "/api/events/live");
    let mut reading = Watching::open(server.admin_address(), "/api/events/live");
    let before = server.memory("VmRSS");
    // More than the kernel's buffers hold: 200 lines of 40 KiB a second would be shown.
    let line = format!("{{\"event\":\"e\",\"param_str\":\"{}\"}}\n", "x".repeat(40 << 10));
    let body = line.repeat(20);
    let mut sent = 0;
    wait_for(
        || server.log(),
        || {
            assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
            sent += 20;
            (sent >= 2000).then_some(())
        },
    );
    let shown = reading.account_for(sent);
    assert!(shown >= 50, "{shown} of {sent} were shown");
    let grown = server.memory("VmRSS").saturating_sub(before);
    assert!(grown < 200 << 20, "the server has grown by {} MiB", grown >> 20);
    drop(hanging);
}

#[test]
fn so_many_may_watch_and_places_are_given_back() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let admin = server.admin_address();
    for (target, status) in [
        ("/api/events/live?rejected=2", 400),
        ("/api/events/live?more", 400),
        ("/api/nothing/live", 404),
        ("/api/events/live/", 404),
    ] {
        assert_eq!(get(admin, target).status, status, "{target}");
    }
    assert_eq!(post(admin, "/api/events/live", b"").status, 405);
    let mut all: Vec<_> = (0..8).map(|_| Watching::open(admin, "/api/events/live")).collect();
    let reply = get(admin, "/api/events/live");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{}", reply.text());
    // They take no place of other requests.
    let newest: Vec<_> = (0..4).map(|_| get(admin, "/api/events").status).collect();
    assert_eq!((newest, get(admin, "/stats").status), (vec![200; 4], 200));
    // One that ends its side is done.
    let last = all.pop().unwrap();
    last.stream.shutdown(Shutdown::Write).unwrap();
    let open = || {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.write_all(b"GET /api/events/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (&status == b"HTTP/1.1 200").then_some(stream)
    };
    let again = wait_for(|| server.log(), open);
    // Where nothing comes a comment shows that the connection is alive.
    again.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut watching = Watching { stream: again, received: Vec::new() };
    assert!(watching.until(": keep-alive\n\n").is_some());
}
