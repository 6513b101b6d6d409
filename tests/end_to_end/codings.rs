//! Content codings of requests, and large bodies: what is stored in ClickHouse, and what is refused.

use crate::support::{Server, post_with, shared_clickhouse};

#[cfg(feature = "codings")]
#[path = "../../src/http/coding/encoders.rs"]
mod encoders;

const TARGET: &str = "/api/events";

#[cfg(not(feature = "codings"))]
#[test]
fn a_build_without_codings_refuses_each_of_them() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(clickhouse, &clickhouse.database(), &[]);
    for coding in ["gzip", "deflate", "zstd", "br"] {
        let reply = post_with(server.address(), TARGET, &format!("Content-Encoding: {coding}\r\n"), b"{}");
        assert_eq!((reply.status, reply.header("accept-encoding")), (415, Some("identity")), "{coding}");
    }
    assert_eq!(post_with(server.address(), TARGET, "Content-Encoding: identity\r\n", b"{}").status, 200);
}

#[cfg(feature = "codings")]
mod with_the_feature {
    use std::thread;

    use super::encoders::{brotli, gzip, raw_deflate, zlib, zstd};
    use super::{Server, TARGET, post_with, shared_clickhouse};
    use crate::support::{ClickHouse, Connection, Response, request, wait_for};

    type Encode = fn(&[u8]) -> Vec<u8>;

    /// What clients send as `Content-Encoding`, and what they mean.
    const CODINGS: [(&str, Encode); 8] = [
        ("gzip", gzip),
        ("x-gzip", gzip),
        ("GZip", gzip),
        ("deflate", zlib),
        ("deflate", |content| raw_deflate(content, 6)),
        ("zstd", |content| zstd(content, 20)),
        ("br", |content| brotli(content, 22, false)),
        (" , br,identity", |content| brotli(content, 22, false)),
    ];

    fn send(server: &Server, coding: &str, body: &[u8]) -> Response {
        post_with(server.address(), TARGET, &format!("Content-Encoding: {coding}\r\n"), body)
    }

    fn event(name: &str) -> String {
        format!("{{\"event\":\"{name}\"}}\n")
    }

    /// So many events, numbered in `sequence`.
    fn events(count: usize) -> Vec<u8> {
        let filler = "x".repeat(100);
        (0..count)
            .flat_map(|event| format!("{{\"sequence\":{event},\"param_str\":\"{filler}\"}}\n").into_bytes())
            .collect()
    }

    fn names(clickhouse: &ClickHouse, database: &str) -> Vec<String> {
        let rows = clickhouse.query(&format!("SELECT event FROM {database}.events ORDER BY event FORMAT TSV"));
        rows.lines().map(str::to_owned).collect()
    }

    fn count(clickhouse: &ClickHouse, database: &str) -> String {
        let query = format!("SELECT count(), uniqExact(sequence), max(sequence) FROM {database}.events FORMAT TSV");
        clickhouse.query(&query).trim().replace('\t', " ")
    }

    #[test]
    fn every_coding_is_stored_as_its_plain_body_with_a_length_and_in_chunks() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &[]);
        let mut expected = Vec::new();
        // All over one connection: whatever is decoded, the next request begins where it should.
        let mut connection = Connection::open(server.address());
        for (index, (coding, encode)) in CODINGS.iter().enumerate() {
            for is_chunked in [false, true] {
                let name = format!("{index} {is_chunked}");
                let body = encode(format!("{}bad\n{}", event(&name), event(&name)).as_bytes());
                let headers = format!("Content-Encoding: {coding}\r\n");
                if is_chunked {
                    let head =
                        format!("POST {TARGET} HTTP/1.1\r\nHost: a\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
                    connection.send(head.as_bytes());
                    for chunk in body.chunks(7) {
                        connection.send(format!("{:x}\r\n", chunk.len()).as_bytes());
                        connection.send(&[chunk, b"\r\n"].concat());
                    }
                    connection.send(b"0\r\n\r\n");
                } else {
                    connection.send(&request(TARGET, &headers, &body));
                }
                let reply = connection.read_response();
                assert_eq!(reply.status, 200, "{coding:?}: {}", reply.text());
                assert!(
                    reply.text().starts_with("{\"accepted\":2,\"rejected\":1,\"errors\":[{\"line\":2,"),
                    "{}",
                    reply.text()
                );
                expected.extend([name.clone(), name]);
            }
        }
        assert!(server.stop().success());
        assert_eq!(names(clickhouse, &database), expected);
        let lines = clickhouse.query(&format!("SELECT DISTINCT line FROM {database}.events_quarantine FORMAT TSV"));
        assert_eq!(lines.trim(), "bad");
    }

    #[test]
    fn an_unknown_coding_and_several_in_a_row_are_refused_and_the_reply_names_ours() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &[]);
        let twice = gzip(&gzip(event("twice").as_bytes()));
        let mut connection = Connection::open(server.address());
        for coding in [
            "compress",
            "lzma",
            "gzip, gzip",
            "gzip,br",
            "identity, zstd, gzip",
            "gzip\r\nContent-Encoding: gzip",
            "*",
            "gzip;q=1",
        ] {
            connection.send(&request(TARGET, &format!("Content-Encoding: {coding}\r\n"), &twice));
            let reply = connection.read_response();
            let accepted = reply.header("accept-encoding");
            assert_eq!((reply.status, accepted), (415, Some("gzip, deflate, zstd, br")), "{coding:?}");
            assert!(reply.text().contains("\"error\":\"unsupported_content_coding\""), "{}", reply.text());
        }
        // No coding at all.
        for coding in ["", "identity", ","] {
            connection.send(&request(TARGET, &format!("Content-Encoding: {coding}\r\n"), event("plain").as_bytes()));
            assert_eq!(connection.read_response().status, 200, "{coding:?}");
        }
        assert!(server.stop().success());
        assert_eq!(names(clickhouse, &database), ["plain"; 3]);
    }

    #[test]
    fn a_broken_truncated_or_trailed_body_stores_nothing_and_the_connection_lives_on() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &[]);
        let small = event("lost").repeat(30).into_bytes();
        let large = events(20_000);
        let mut connection = Connection::open(server.address());
        for content in [&small, &large] {
            for (coding, encode) in CODINGS {
                let body = encode(content);
                let mut broken = body.clone();
                let middle = broken.len() / 2;
                broken[middle..middle + 4].iter_mut().for_each(|byte| *byte ^= 0x5a);
                let truncated = &body[..body.len() - 1];
                let trailed = [&body[..], b"{\"event\":\"trailed\"}\n"].concat();
                for (what, bad) in [("truncated", truncated), ("trailed", &trailed), ("empty", b""), ("plain", &small)]
                {
                    connection.send(&request(TARGET, &format!("Content-Encoding: {coding}\r\n"), bad));
                    let reply = connection.read_response();
                    assert_eq!(reply.status, 400, "{coding} {what}: {}", reply.text());
                    assert!(reply.text().contains("\"error\":\"bad_content_coding\""), "{}", reply.text());
                }
                // Nothing but a checksum tells that bytes in the middle are other ones.
                if ["gzip", "x-gzip", "GZip"].contains(&coding) {
                    connection.send(&request(TARGET, &format!("Content-Encoding: {coding}\r\n"), &broken));
                    assert_eq!(connection.read_response().status, 400, "{coding}");
                }
            }
        }
        assert_eq!(send(&server, "gzip", &gzip(event("whole").as_bytes())).status, 200);
        assert!(server.stop().success());
        assert_eq!(names(clickhouse, &database), ["whole"]);
    }

    #[test]
    fn empty_gzip_members_and_several_members_are_taken() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &[]);
        let empty = send(&server, "gzip", &gzip(b""));
        assert_eq!((empty.status, empty.text()), (200, "{\"accepted\":0,\"rejected\":0}".to_owned()));
        // A member may end in the middle of a line, as the files of rotated logs do.
        let members = [gzip(b""), gzip(b"{\"event\":\"on"), gzip(b""), gzip(b"e\"}\n{\"event\":\"two\"}"), gzip(b"")];
        let reply = send(&server, "x-gzip", &members.concat());
        assert_eq!((reply.status, reply.text()), (200, "{\"accepted\":2,\"rejected\":0}".to_owned()));
        let frames = [zstd(event("three").as_bytes(), 20), zstd(b"", 20), zstd(event("four").as_bytes(), 20)];
        assert_eq!(send(&server, "zstd", &frames.concat()).status, 200);
        assert!(server.stop().success());
        assert_eq!(names(clickhouse, &database), ["four", "one", "three", "two"]);
    }

    #[test]
    fn a_bomb_is_413_and_costs_no_more_than_the_body_that_is_allowed() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &["--body-bytes-max", "4MiB", "--workers", "1"]);
        // A first round, so that what is kept for the next body is there.
        let warm = |server: &Server| {
            for (coding, encode) in CODINGS {
                assert_eq!(send(server, coding, &encode(&vec![b'\n'; 4 << 20])).status, 200, "{coding}");
            }
        };
        warm(&server);
        let before = server.memory("VmHWM");
        let newlines = vec![b'\n'; 256 << 20];
        for (coding, encode) in [CODINGS[0], CODINGS[3], CODINGS[5], CODINGS[6]] {
            let bomb = encode(&newlines);
            assert!(bomb.len() < newlines.len() / 1000 + 100_000, "{coding}: {} bytes", bomb.len());
            let replies: Vec<u16> = thread::scope(|scope| {
                let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| send(&server, coding, &bomb).status)).collect();
                clients.into_iter().map(|client| client.join().unwrap()).collect()
            });
            assert_eq!(replies, [413; 8], "{coding}");
        }
        let more = server.memory("VmHWM").saturating_sub(before) >> 20;
        assert!(more < 16, "{more} MiB more than for bodies that are allowed");
        // The limit holds to the byte, after decompression, and for the coded body itself.
        let line = event("at the limit").into_bytes();
        let at_limit = [&line[..], &vec![b' '; (4 << 20) - line.len()]].concat();
        let above = [&at_limit[..], b" "].concat();
        for (coding, encode) in CODINGS {
            assert_eq!(send(&server, coding, &encode(&at_limit)).status, 200, "{coding}");
            assert_eq!(send(&server, coding, &encode(&above)).status, 413, "{coding}");
        }
        let long = vec![0; (4 << 20) + 1];
        assert_eq!(send(&server, "gzip", &long).status, 413);
        assert!(server.stop().success());
        assert_eq!(names(clickhouse, &database), ["at the limit"; 8]);
    }

    #[test]
    fn windows_above_8_mib_are_refused() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &[]);
        assert_eq!(send(&server, "zstd", &zstd(event("8 MiB").as_bytes(), 23)).status, 200);
        for body in [zstd(event("16 MiB").as_bytes(), 24), zstd(&events(100), 27)] {
            let reply = send(&server, "zstd", &body);
            assert_eq!((reply.status, reply.text().contains("window")), (400, true), "{}", reply.text());
        }
        // A stream with a window of 16 MiB, empty otherwise (RFC 7932, section 9.1).
        let reply = send(&server, "br", b"\x0f\x03");
        assert_eq!((reply.status, reply.text().contains("window")), (400, true), "{}", reply.text());
        assert!(server.stop().success());
        assert_eq!(names(clickhouse, &database), ["8 MiB"]);
    }

    #[test]
    fn the_same_events_under_another_coding_are_the_same_request() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &[]);
        for (key, body) in [("small", event("small").into_bytes()), ("large", events(20_000))] {
            let headers = format!("Idempotency-Key: {key}\r\n");
            let first = post_with(server.address(), TARGET, &headers, &body);
            assert_eq!(first.status, 200);
            for (coding, encode) in CODINGS {
                let headers = format!("{headers}Content-Encoding: {coding}\r\n");
                let again = post_with(server.address(), TARGET, &headers, &encode(&body));
                assert_eq!((again.status, again.text()), (200, first.text()), "{coding}");
            }
            let headers = format!("{headers}Content-Encoding: gzip\r\n");
            let other = [&body[..], b"{}\n"].concat();
            assert_eq!(post_with(server.address(), TARGET, &headers, &gzip(&other)).status, 422);
        }
        assert!(server.stop().success());
        assert_eq!(count(clickhouse, &database), "20001 20000 19999");
    }

    #[test]
    fn large_bodies_are_stored_whole_and_small_requests_are_answered_meanwhile() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let flags = ["--workers", "1", "--events-max", "200000"];
        let server = Server::start(clickhouse, &database, &flags);
        let large = events(100_000);
        assert!(large.len() > 12 << 20);
        let mut bodies: Vec<(&str, Vec<u8>)> = CODINGS.map(|(coding, encode)| (coding, encode(&large))).to_vec();
        bodies.push(("identity", large));
        thread::scope(|scope| {
            let clients: Vec<_> =
                bodies.iter().map(|(coding, body)| scope.spawn(|| send(&server, coding, body))).collect();
            let mut connection = Connection::open(server.address());
            let mut small = 0;
            while !clients.iter().all(|client| client.is_finished()) {
                connection.send(&request(TARGET, "", b"{\"sequence\":1}"));
                assert_eq!(connection.read_response().status, 200);
                small += 1;
            }
            for client in clients {
                let reply = client.join().unwrap();
                assert_eq!((reply.status, reply.text()), (200, "{\"accepted\":100000,\"rejected\":0}".to_owned()));
            }
            server.wait_for_rows(clickhouse, &format!("{database}.events"), 900_000 + small);
        });
        server.wait_until_nothing_is_in_flight();
        assert!(server.stop().success());
        let query = format!(
            "SELECT uniqExact(sequence), min(times), countIf(times != 9) FROM \
             (SELECT sequence, count() AS times FROM {database}.events GROUP BY sequence) FORMAT TSV"
        );
        assert_eq!(clickhouse.query(&query).trim(), "100000\t9\t1");
    }

    #[test]
    fn a_large_body_is_all_or_nothing() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &["--workers", "1", "--events-max", "50000"]);
        let good = events(40_000);
        let bad_lines = [&good[..], &b"bad\n".repeat(1001)].concat();
        let too_many = events(50_001);
        for (body, status) in [(&bad_lines, 422), (&too_many, 413)] {
            for (coding, encode) in [CODINGS[0], CODINGS[5], ("identity", (|body: &[u8]| body.to_vec()) as Encode)] {
                assert_eq!(send(&server, coding, &encode(body)).status, status, "{coding}");
            }
        }
        // The connection ends before the body, and behind it before the reply.
        let whole = request(TARGET, "Content-Encoding: gzip\r\n", &gzip(&good));
        let mut connection = Connection::open(server.address());
        connection.send(&whole[..whole.len() - 1]);
        drop(connection);
        assert_eq!(send(&server, "gzip", &gzip(&good)).status, 200);
        wait_for(
            || format!("a connection stays:\n{}", server.log()),
            || (server.metrics()["sluicegate_connections"] == 0.0).then_some(()),
        );
        let connection = Connection::open(server.address());
        let mut gone = connection;
        gone.send(&whole);
        drop(gone);
        // Its request was whole: it is stored, whoever reads the reply.
        server.wait_for_rows(clickhouse, &format!("{database}.events"), 80_000);
        server.wait_until_nothing_is_in_flight();
        assert!(server.stop().success());
        assert_eq!(count(clickhouse, &database), "80000 40000 39999");
        let rejected = clickhouse.query(&format!("SELECT count() FROM {database}.events_quarantine FORMAT TSV"));
        assert_eq!(rejected.trim(), "0");
    }

    #[cfg(feature = "engine-may")]
    #[test]
    fn the_engine_may_refuses_every_coding_and_takes_large_plain_bodies() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &["--engine", "may"]);
        for (coding, encode) in CODINGS {
            let reply = send(&server, coding, &encode(event("lost").as_bytes()));
            assert_eq!((reply.status, reply.header("accept-encoding")), (415, Some("identity")), "{coding}");
        }
        assert_eq!(send(&server, "identity", &events(30_000)).status, 200);
        assert!(server.stop().success());
        assert_eq!(count(clickhouse, &database), "30000 30000 29999");
    }
}
