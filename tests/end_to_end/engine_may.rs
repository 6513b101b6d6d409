//! `--engine may`, in a build with the feature `engine-may`: what is its own. What both engines promise
//! is tested beside, once an engine.

use crate::support::{Server, shared_clickhouse};

#[cfg(not(feature = "engine-may"))]
#[test]
fn a_build_without_engine_may_says_how_to_make_one_with_it() {
    let clickhouse = shared_clickhouse();
    let (status, log) = Server::expect_failure(clickhouse, &clickhouse.database(), &["--engine", "may"]);
    assert!(!status.success());
    assert!(log.contains("--engine may") && log.contains("cargo build --release --features engine-may"), "{log}");
}

#[cfg(feature = "engine-may")]
mod with_the_feature {
    use std::thread;
    use std::time::Duration;

    use super::{Server, shared_clickhouse};
    use crate::support::{Connection, PATIENCE, Response, free_address, get, post, request, wait_for};

    const TARGET: &str = "/api/events";

    #[test]
    fn what_this_engine_cant_do_stops_its_start_with_the_flag() {
        let clickhouse = shared_clickhouse();
        for flags in [
            ["--write-key-file", "/etc/hostname"],
            ["--rate-limit", "1/s"],
            ["--rate-limit-per-address", "1/s"],
            ["--connections-per-address-max", "9"],
            ["--requests-per-connection-max", "9"],
            ["--cors-origin", "*"],
        ] {
            let flags = [&["--engine", "may"], &flags[..]].concat();
            let (status, log) = Server::expect_failure(clickhouse, &clickhouse.database(), &flags);
            assert!(!status.success() && log.contains(flags[2]) && log.contains("--engine may"), "{log}");
        }
    }

    const POST: &str = "POST /api/events HTTP/1.1\r\nHost: a\r\n";

    fn start(database: &str, flags: &[&str]) -> Server {
        Server::start(shared_clickhouse(), database, &[&["--engine", "may"], flags].concat())
    }

    fn send(server: &Server, input: &str) -> (Connection, Response) {
        let mut connection = Connection::open(server.address());
        connection.send(input.as_bytes());
        let reply = connection.read_response();
        (connection, reply)
    }

    fn count(database: &str) -> String {
        shared_clickhouse().query(&format!("SELECT count() FROM {database}.events")).trim().to_owned()
    }

    #[test]
    fn its_limits_are_said_at_the_start() {
        let server = start(&shared_clickhouse().database(), &[]);
        let log = server.log();
        for limit in ["trusted networks", "16 header fields", "chunked", "no time-outs", "get no reply"] {
            assert!(log.contains(limit), "{limit}:\n{log}");
        }
        assert!(log.contains("engine=may"), "{log}");
    }

    /// Each of these would panic in the crate, be served as a body of no length, or be parsed as the
    /// next request.
    #[test]
    fn what_has_no_certain_end_is_refused_and_ends_the_connection() {
        let database = shared_clickhouse().database();
        let mut server = start(&database, &["--body-bytes-max", "1KiB"]);
        let smuggled = "POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{\"event\":\"bad\"}";
        for (headers, status) in [
            ("Content-Length: x\r\n", 400),
            ("Content-Length: -1\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: \u{fc}\r\n", 400),
            ("Content-Length: 99999999999999999999999\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: gzip\r\n", 501),
            ("Transfer-Encoding: chunked\r\n", 411),
            ("Expect: something\r\n", 417),
            ("Host: b\r\n", 400),
        ] {
            let (mut connection, reply) = send(&server, &format!("{POST}{headers}\r\n{smuggled}"));
            assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{headers}");
            let json: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
            assert!(json["error"].is_string() && json["message"].is_string(), "{json}");
            assert!(connection.is_closed_within(PATIENCE), "{headers}");
            server.assert_runs();
        }
        // Behind a request that is served, too; its reply may be lost, what follows is not served.
        let keyless = request(TARGET, "", b"{\"event\":\"good\"}");
        for headers in ["Content-Length: x\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut connection = Connection::open(server.address());
            connection.send(&keyless);
            assert_eq!(connection.read_response().status, 200);
            connection.send(format!("{POST}{headers}\r\n{smuggled}").as_bytes());
            let reply = connection.try_read_response();
            assert!(reply.is_none_or(|reply| reply.status >= 400), "{headers}");
            let deadline = std::time::Instant::now() + PATIENCE;
            while connection.try_read_response().is_some() {
                assert!(std::time::Instant::now() < deadline, "{headers}");
            }
            server.assert_runs();
        }
        assert!(server.stop().success());
        assert_eq!(count(&database), "2");
    }

    #[test]
    fn a_body_that_is_too_large_is_413_and_one_that_breaks_off_leaves_no_trace() {
        let database = shared_clickhouse().database();
        let server = start(&database, &["--body-bytes-max", "1MiB"]);
        let (mut connection, reply) = send(&server, &format!("{POST}Content-Length: 1048577\r\n\r\n{{}}"));
        assert_eq!((reply.status, reply.header("connection")), (413, Some("close")));
        connection.finish();
        assert!(connection.is_closed_within(PATIENCE));
        // More than is read before the head is looked at: the adapter itself waits for the rest.
        let line = "{\"event\":\"broken\"}\n";
        let mut broken = Connection::open(server.address());
        broken.send(format!("{POST}Content-Length: 500000\r\n\r\n{}", line.repeat(10_000)).as_bytes());
        broken.finish();
        assert!(broken.try_read_response().is_none_or(|reply| reply.status == 400));
        assert!(broken.is_closed_within(PATIENCE));
        // Far more than comes with a head, in pieces.
        let body = "{\"event\":\"big\",\"param_str\":\"x\"}\n".repeat(30_000);
        let mut slow = Connection::open(server.address());
        let request = request(TARGET, "", body.as_bytes());
        for piece in request.chunks(100_000) {
            slow.send(piece);
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(slow.read_response().text(), r#"{"accepted":30000,"rejected":0}"#);
        assert!(server.stop().success());
        assert_eq!(count(&database), "30000");
    }

    /// The kernel tells once that something is there, and to wait for the rest of a body forgets it.
    #[test]
    fn what_comes_with_the_rest_of_a_body_is_seen() {
        let database = shared_clickhouse().database();
        let server = start(&database, &["--batch-age", "1s"]);
        let served = |connection: &mut Connection| {
            assert_eq!(connection.read_response().text(), r#"{"accepted":1,"rejected":0}"#);
        };
        // A request that takes a while, behind it one whose body is begun; the rest comes once both
        // were read.
        let begin = || {
            let received = || server.metrics()["sluicegate_events_received_total"];
            let before = received();
            let mut connection = Connection::open(server.address());
            let slow = request("/api/events?ack=inserted", "", b"{}");
            connection.send(&[&slow, format!("{POST}Content-Length: 2\r\n\r\n{{").as_bytes()].concat());
            wait_for(|| "nothing is received".to_owned(), || (received() > before).then_some(()));
            connection
        };
        let mut broken = begin();
        broken.finish();
        served(&mut broken);
        let reply = broken.read_response();
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
        assert!(reply.text().contains("incomplete_body"), "{}", reply.text());
        assert!(broken.is_closed_within(PATIENCE));

        let mut ended = begin();
        ended.send(b"}");
        ended.finish();
        (0..2).for_each(|_| served(&mut ended));
        assert!(ended.is_closed_within(PATIENCE));

        // More than is read at once.
        let mut pipelined = begin();
        pipelined.send(&[b"}", &b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000)[..]].concat());
        (0..2).for_each(|_| served(&mut pipelined));
        for _ in 0..2000 {
            assert_eq!(pipelined.read_response().status, 200);
        }
        assert!(server.stop().success());
        assert_eq!(count(&database), "5");
    }

    #[test]
    fn seventeen_header_fields_end_the_connection_without_a_word() {
        let database = shared_clickhouse().database();
        let server = start(&database, &[]);
        let with = |fields: usize| {
            let mut connection = Connection::open(server.address());
            connection.send(&request(TARGET, &"X: y\r\n".repeat(fields - 2), b"{}"));
            connection.try_read_response().map(|reply| reply.status)
        };
        assert_eq!((with(16), with(17)), (Some(200), None));
        assert!(server.stop().success());
        assert_eq!(count(&database), "1");
    }

    #[test]
    fn replies_look_as_those_of_the_own_loop() {
        let server = start(&shared_clickhouse().database(), &[]);
        let mut connection = Connection::open(server.address());
        for (line, status, allow) in [
            ("GET /nothing", 404, None),
            ("DELETE /api/events", 405, Some("POST, OPTIONS")),
            ("POST /health", 405, Some("GET, HEAD, OPTIONS")),
            ("OPTIONS /api/events", 204, Some("POST, OPTIONS")),
            ("HEAD /health", 200, None),
            ("GET /health", 200, None),
        ] {
            connection.send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            let reply = connection.read_response();
            assert_eq!((reply.status, reply.header("allow")), (status, allow), "{line}");
            assert!(reply.header("date").is_some() && reply.header("connection").is_none(), "{line}");
        }
        let (mut old, reply) = send(&server, "GET /health HTTP/1.0\r\n\r\n");
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        assert!(old.is_closed_within(PATIENCE));
        let (_, reply) = send(&server, "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(reply.header("connection"), Some("keep-alive"));
        let (mut closing, reply) = send(&server, "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(closing.is_closed_within(PATIENCE));
        assert_eq!(server.admin_get("/livez").status, 200);
        assert_eq!(server.metrics()["sluicegate_requests_total{code=\"405\"}"], 2.0);
    }

    #[test]
    fn too_many_connections_are_told_so_and_those_that_end_make_room() {
        let server = start(&shared_clickhouse().database(), &["--connections-max", "2"]);
        let mut open: Vec<Connection> = (0..2).map(|_| Connection::open(server.address())).collect();
        for connection in &mut open {
            connection.send(&request(TARGET, "", b"{}"));
            assert_eq!(connection.read_response().status, 200);
        }
        let reply = post(server.address(), TARGET, b"{}");
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert_eq!(server.metrics()["sluicegate_shed_total{reason=\"too_many_connections\"}"], 1.0);
        drop(open);
        wait_for(
            || "nothing is served".to_owned(),
            || (post(server.address(), TARGET, b"{}").status == 200).then_some(()),
        );
    }

    /// More at once than a station has batches, with a key each, so that each is a batch.
    #[test]
    fn more_requests_than_batches_are_all_served() {
        let database = shared_clickhouse().database();
        let server = start(&database, &["--workers", "1"]);
        let mut waiting: Vec<Connection> = (0..200).map(|_| Connection::open(server.address())).collect();
        for round in 0..3 {
            for (client, connection) in waiting.iter_mut().enumerate() {
                connection.send(&request(TARGET, &format!("Idempotency-Key: {round}-{client}\r\n"), b"{}"));
            }
            for connection in &mut waiting {
                assert_eq!(connection.read_response().text(), r#"{"accepted":1,"rejected":0}"#);
            }
        }
        assert!(server.stop().success());
        assert_eq!(count(&database), "600");
    }

    #[test]
    fn a_stop_serves_what_comes_at_once_and_loses_nothing_acknowledged() {
        let database = shared_clickhouse().database();
        let server = start(&database, &["--batch-age", "1h"]);
        let address = server.address();
        let mut open = Connection::open(address);
        open.send(&request(TARGET, "", b"{}"));
        assert_eq!(open.read_response().status, 200);
        let (stopping, acknowledged) = thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        let mut acknowledged = 0;
                        // Until nobody takes any more.
                        loop {
                            let Some(mut connection) = Connection::try_open(address) else { return acknowledged };
                            if !connection.try_send(&request(TARGET, "", b"{}")) {
                                continue;
                            }
                            match connection.try_read_response().map(|reply| reply.status) {
                                Some(200) => acknowledged += 1,
                                Some(503) => return acknowledged,
                                Some(status) => panic!("{status}"),
                                None => {}
                            }
                        }
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(200));
            let stopping = server.begin_stop();
            stopping.wait_until_unready();
            open.send(&request(TARGET, "", b"{}"));
            let reply = open.read_response();
            assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
            assert!(open.is_closed_within(PATIENCE));
            (stopping, clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>())
        });
        assert!(stopping.wait().success());
        let stored: u64 = count(&database).parse().unwrap();
        assert!(acknowledged > 0 && stored >= acknowledged + 2, "{stored} of {acknowledged}");
    }

    #[test]
    fn it_listens_on_every_address_and_shares_none() {
        let second = free_address().to_string();
        let first = free_address().to_string();
        let database = shared_clickhouse().database();
        let server = start(&database, &["--listen", &first, "--listen", &second]);
        for address in [&first, &second] {
            assert_eq!(get(address.parse().unwrap(), "/health").status, 200);
        }
        let flags = ["--engine", "may", "--listen", &second];
        let (status, log) = Server::expect_failure(shared_clickhouse(), &database, &flags);
        assert!(!status.success() && log.contains("in use"), "{log}");
        assert!(server.stop().success());
    }
}
