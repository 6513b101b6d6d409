//! `--tls-cert`: clients that speak TLS to the server.

use crate::support::{Server, shared_clickhouse};

#[cfg(not(feature = "tls"))]
#[test]
fn a_build_without_tls_says_what_needs_it() {
    let clickhouse = shared_clickhouse();
    for (flags, named) in [
        (&["--tls-cert", "a", "--tls-key", "b"][..], "--tls-cert"),
        (&["--clickhouse-ca-file", "a"], "--clickhouse-ca-file"),
        (&["--clickhouse-url", "HTTPS://localhost:1"], "https://"),
    ] {
        let (status, log) = Server::expect_failure(clickhouse, &clickhouse.database(), flags);
        assert!(!status.success() && log.contains(named) && log.contains("the feature tls"), "{log}");
    }
}

#[cfg(feature = "tls")]
mod with_the_feature {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::Command;

    use rustix::process::Signal;
    use rustls::ProtocolVersion;
    use rustls::version::TLS13;

    use super::{Server, shared_clickhouse};
    use crate::support::{
        Authority, ClickHouse, Client, Connection, Load, PATIENCE, TlsConnection, VERSIONS, request, wait_for,
    };

    const TARGET: &str = "/api/events";
    const EVENTS: &[u8] = include_bytes!("../../bench/corpus/events-30.ndjson");

    fn count(clickhouse: &ClickHouse, database: &str) -> String {
        clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim().to_owned()
    }

    fn chunked(body: &[u8], chunk: usize) -> Vec<u8> {
        let mut request =
            format!("POST {TARGET} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in body.chunks(chunk) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    }

    #[test]
    fn requests_of_all_kinds_are_served_in_both_versions_however_their_ciphertext_is_cut() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let authority = Authority::new();
        let issued = authority.issue("server", &["events.example"]);
        let server = Server::start(clickhouse, &database, &issued.flags());
        // Larger than any buffer on the way.
        let large = EVENTS.repeat((5 << 20) / EVENTS.len());
        let lines = |body: &[u8]| body.iter().filter(|byte| **byte == b'\n').count();
        let mut events = 0;
        for version in VERSIONS {
            let client = authority.client(&[version]);
            let open = || TlsConnection::open(server.address(), &client, "events.example").unwrap();
            let mut connection = open();
            assert_eq!(connection.version(), Some(version.version));
            assert_eq!(connection.alpn(), Some(&b"http/1.1"[..]));
            assert_eq!(connection.certificate(), issued.der());
            let mut post = |connection: &mut TlsConnection, request: &[u8], body: &[u8], pieces: &[usize]| {
                connection.send_in_pieces(request, pieces);
                let reply = connection.read_response();
                let accepted = format!("{{\"accepted\":{},\"rejected\":0}}", lines(body));
                assert_eq!((reply.status, reply.text()), (200, accepted));
                events += lines(body);
            };
            for pieces in [&[usize::MAX][..], &[1], &[3, 5, 7], &[1, 100, 5000], &[4096], &[10_029]] {
                post(&mut connection, &request(TARGET, "", EVENTS), EVENTS, pieces);
                post(&mut connection, &chunked(EVENTS, 777), EVENTS, pieces);
            }
            for pieces in [&[usize::MAX][..], &[1, 65_537, 16_406]] {
                post(&mut connection, &request(TARGET, "", &large), &large, pieces);
                post(&mut connection, &chunked(&large, 100_000), &large, pieces);
            }
            // Pipelined, and the last one ends the connection with a close_notify.
            let mut pipelined = request(TARGET, "", EVENTS).repeat(20);
            pipelined.extend(request(TARGET, "Connection: close\r\n", EVENTS));
            connection.send(&pipelined);
            for _ in 0..21 {
                assert_eq!(connection.read_response().status, 200);
            }
            events += 21 * lines(EVENTS);
            assert!(connection.ends_cleanly());
            // A refusal is read by a client that goes on sending, and ends cleanly as well.
            let mut connection = open();
            connection.send(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
            connection.send(&vec![b' '; 3 << 20]);
            assert_eq!(connection.read_response().status, 413);
            assert!(connection.ends_cleanly());
        }
        assert!(server.stop().success());
        assert_eq!(count(clickhouse, &database), events.to_string());
    }

    #[test]
    fn curl_gets_its_reply_in_both_versions() {
        let Ok(found) = Command::new("curl").arg("--version").output() else { return };
        assert!(found.status.success());
        let clickhouse = shared_clickhouse();
        let authority = Authority::new();
        let issued = authority.issue("server", &["localhost", "127.0.0.1"]);
        let server = Server::start(clickhouse, &clickhouse.database(), &issued.flags());
        for version in ["1.2", "1.3"] {
            let url = format!("https://127.0.0.1:{}{TARGET}", server.address().port());
            let exact = [format!("--tlsv{version}"), "--tls-max".to_owned(), version.to_owned()];
            let output = Command::new("curl")
                .args(["-sS", "--noproxy", "*", "--cacert", &authority.ca_file(), "--data-binary", "{\"event\":\"a\"}"])
                .args(exact)
                .arg(url)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.starts_with("{\"accepted\":1"), "{version}: {said}{error}");
        }
        assert!(server.stop().success());
    }

    #[test]
    fn each_name_has_its_certificate_and_a_client_without_a_name_or_with_another_gets_the_first() {
        let clickhouse = shared_clickhouse();
        let authority = Authority::new();
        let first = authority.issue("first", &["a.example", "127.0.0.1"]);
        let second = authority.issue("second", &["*.b.example"]);
        let server = Server::start(clickhouse, &clickhouse.database(), &[first.flags(), second.flags()].concat());
        let client = authority.client(&VERSIONS);
        for (name, expected) in [("a.example", &first), ("127.0.0.1", &first), ("x.b.example", &second)] {
            let connection = TlsConnection::open(server.address(), &client, name).unwrap();
            assert_eq!(connection.certificate(), expected.der(), "{name}");
        }
        let error = TlsConnection::open(server.address(), &client, "c.example").err().unwrap().to_string();
        assert!(error.contains("not valid for name") && error.contains("a.example"), "{error}");
        // Nothing in common: the client is told.
        let client = authority.client_with_alpn(&VERSIONS, &["h2"]);
        let error = TlsConnection::open(server.address(), &client, "a.example").err().unwrap().to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    }

    #[test]
    fn certificates_are_read_again_under_load_and_a_broken_one_changes_nothing() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let authority = Authority::new();
        let names = ["localhost", "127.0.0.1"];
        let first = authority.issue("server", &names);
        let before = first.der();
        let server = Server::start(clickhouse, &database, &first.flags());
        // A new client each time: one that resumes its session keeps the certificate that it has seen.
        let open = || TlsConnection::open(server.address(), &authority.client(&VERSIONS), "localhost").unwrap();
        let exchange = |connection: &mut TlsConnection| {
            connection.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
            connection.read_response().status
        };
        let hang_up = |words: &str, times: usize| {
            server.signal(Signal::HUP);
            wait_for(|| server.log(), || (server.log().matches(words).count() == times).then_some(()));
        };
        let (again, not_again) = ("the certificates were read again", "the certificates can't be read again");
        let mut old = open();
        assert_eq!((exchange(&mut old), old.certificate()), (200, before.clone()));
        let load = Load::new(authority.tunnel_to(server.address(), &VERSIONS), 7);
        load.during(&[Client::WithoutKey; 6], || {
            load.wait_for_more(&server, 50, 0);
            for round in 1..=5 {
                let issued = authority.issue("server", &names);
                hang_up(again, round);
                assert_eq!(open().certificate(), issued.der());
                load.wait_for_more(&server, 50, 0);
            }
            let kept = open().certificate();
            std::fs::write(&first.key, "no key").unwrap();
            hang_up(not_again, 1);
            std::fs::write(&first.certificate, "no certificate").unwrap();
            hang_up(not_again, 2);
            assert_eq!(open().certificate(), kept);
            load.wait_for_more(&server, 50, 0);
        });
        // It has outlived them all.
        assert_eq!((exchange(&mut old), old.certificate()), (200, before));
        let counts = load.counts();
        assert_eq!((counts.unanswered, counts.shed), (0, 0), "{counts}");
        server.wait_until_drained();
        let log = server.log();
        assert!(log.contains(&format!("--tls-key {}", first.key)) && !log.contains("panicked"), "{log}");
        drop(old);
        assert!(server.stop().success());
        load.check(clickhouse, &database);
    }

    #[test]
    fn killed_under_load_nothing_is_lost_and_nothing_is_doubled() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let authority = Authority::new();
        let issued = authority.issue("server", &["127.0.0.1"]);
        let mut server = Server::start(clickhouse, &database, &issued.flags());
        let load = Load::new(authority.tunnel_to(server.address(), &VERSIONS), 11);
        load.during(&[Client::WithoutKey, Client::WithKey, Client::Inserted, Client::WithKey], || {
            for round in 1..=6 {
                load.wait_for_more(&server, 40, 0);
                load.note(format!("round {round}: the server is killed"));
                server.kill9();
                server = server.start_again();
            }
        });
        server.wait_until_drained();
        assert!(server.stop().success());
        load.check(clickhouse, &database);
    }

    #[test]
    fn who_speaks_no_tls_or_does_not_end_its_handshake_is_closed_and_stands_in_nobodys_way() {
        let clickhouse = shared_clickhouse();
        let authority = Authority::new();
        let issued = authority.issue("server", &["localhost"]);
        let limits = ["--workers", "1", "--head-timeout", "2s", "--connections-max", "3"];
        let server = Server::start(clickhouse, &clickhouse.database(), &[&issued.flags()[..], &limits].concat());
        let mut plain = TcpStream::connect(server.address()).unwrap();
        plain.set_read_timeout(Some(PATIENCE)).unwrap();
        plain.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut said = Vec::new();
        plain.read_to_end(&mut said).unwrap();
        // An alert record, and its end.
        assert!(said.len() == 7 && said[0] == 21, "{said:?}");
        // The beginning of a client's hello, one without its end, and silence.
        for begun in [&[22, 3, 1, 0, 200, 1][..], &[22], &[]] {
            let mut connection = Connection::open(server.address());
            connection.send(begun);
            assert!(connection.is_closed_within(PATIENCE), "{begun:?}");
        }
        // All places are taken by those who say nothing: the longest silent one makes way.
        let mut silent: Vec<Connection> = (0..3).map(|_| Connection::open(server.address())).collect();
        let client = authority.client(&VERSIONS);
        let mut connection = TlsConnection::open(server.address(), &client, "localhost").unwrap();
        // Then the next of them, not the one that has just ended its handshake and has no request on its way yet.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let more = Connection::open(server.address());
        assert!(silent[1].is_closed_within(PATIENCE));
        connection.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.read_response().status, 200);
        drop((silent, connection, more));
        wait_for(|| server.log(), || (server.metrics()["sluicegate_connections"] == 0.0).then_some(()));
        // Those that have begun a request don't make way, and one more is told so.
        let busy = || {
            let mut connection = TlsConnection::open(server.address(), &client, "localhost").unwrap();
            connection.send(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{");
            connection
        };
        let served = |server: &Server| server.metrics()["sluicegate_in_flight_bytes"];
        let taken: Vec<TlsConnection> = (0..3).map(|_| busy()).collect();
        wait_for(|| server.log(), || (served(&server) >= 3.0 * 4096.0).then_some(()));
        let mut connection = TlsConnection::open(server.address(), &client, "localhost").unwrap();
        assert_eq!(connection.read_response().status, 503);
        assert!(connection.ends_cleanly());
        drop((taken, connection));
        assert!(server.stop().success());
    }

    #[test]
    fn the_header_of_the_proxy_protocol_comes_before_tls() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let authority = Authority::new();
        let issued = authority.issue("server", &["localhost"]);
        let flags = ["--proxy-protocol", "--trusted-proxy", "127.0.0.1"];
        let server = Server::start(clickhouse, &database, &[&issued.flags()[..], &flags].concat());
        let client = authority.client(&VERSIONS);
        let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n";
        let mut connection = TlsConnection::open_after(header, server.address(), &client, "localhost").unwrap();
        connection.send(&request(TARGET, "", b"{\"event\":\"a\"}"));
        assert_eq!(connection.read_response().status, 200);
        assert!(TlsConnection::open(server.address(), &client, "localhost").is_err());
        drop(connection);
        assert!(server.stop().success());
        assert_eq!(clickhouse.query(&format!("SELECT ip FROM {database}.events")).trim(), "192.0.2.7");
    }

    #[test]
    fn both_sides_end_cleanly_and_what_is_cut_off_is_not_served() {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let authority = Authority::new();
        let issued = authority.issue("server", &["localhost"]);
        let server = Server::start(clickhouse, &database, &[&issued.flags()[..], &["--idle-timeout", "2s"]].concat());
        for version in VERSIONS {
            let client = authority.client(&[version]);
            let open = || TlsConnection::open(server.address(), &client, "localhost").unwrap();
            let whole = request(TARGET, "", b"{\"event\":\"whole\"}");
            // The client says that it has sent everything, and reads on.
            let mut connection = open();
            connection.send(&whole);
            connection.finish();
            assert_eq!(connection.read_response().status, 200);
            assert!(connection.ends_cleanly());
            // It says nothing, and is gone below TLS; what it had sent whole is served.
            let mut connection = open();
            connection.send(&whole);
            connection.cut_off();
            assert_eq!(connection.read_response().status, 200);
            assert!(connection.ends_cleanly());
            // Part of a request, with and without a word.
            for says_so in [true, false] {
                let mut connection = open();
                connection.send(&whole[..whole.len() - 1]);
                if says_so {
                    connection.finish()
                } else {
                    connection.cut_off()
                }
                assert!(connection.ends_cleanly(), "{says_so}");
            }
            // The time of an idle connection is over.
            assert!(open().ends_cleanly());
        }
        let mut connection = TlsConnection::open(server.address(), &authority.client(&[&TLS13]), "localhost").unwrap();
        assert_eq!(connection.version(), Some(ProtocolVersion::TLSv1_3));
        let stopping = server.begin_stop();
        assert!(connection.ends_cleanly(), "a stop");
        assert!(stopping.wait().success());
        assert_eq!(count(clickhouse, &database), "4");
    }

    #[test]
    fn settings_that_can_not_be_used_stop_the_start_with_their_names() {
        let clickhouse = shared_clickhouse();
        let authority = Authority::new();
        let (one, other) = (authority.issue("one", &["a"]), authority.issue("other", &["b"]));
        let missing = authority.path("missing");
        let mut cases = vec![
            (vec!["--tls-cert", &one.certificate], "go in pairs".to_owned()),
            (vec!["--tls-key", &one.key], "go in pairs".to_owned()),
            (vec!["--tls-cert", &one.certificate, "--tls-key", &missing], format!("--tls-key {missing}: No such file")),
            (vec!["--tls-cert", &missing, "--tls-key", &one.key], format!("--tls-cert {missing}: No such file")),
            (
                vec!["--tls-cert", &one.certificate, "--tls-key", &other.key],
                format!("--tls-key {}: it is not the key of {}", other.key, one.certificate),
            ),
        ];
        if cfg!(feature = "engine-may") {
            cases.push(([&["--engine", "may"], &one.flags()[..]].concat(), "--engine may speaks no TLS".to_owned()));
        }
        for (flags, reason) in cases {
            let (status, log) = Server::expect_failure(clickhouse, &clickhouse.database(), &flags);
            assert!(!status.success() && log.contains(&reason), "{reason}:\n{log}");
        }
    }

    #[test]
    fn an_idle_connection_costs_less_than_twenty_kilobytes() {
        let clickhouse = shared_clickhouse();
        let authority = Authority::new();
        let issued = authority.issue("server", &["localhost"]);
        for version in VERSIONS {
            // One of its own: what the other version had would be used again.
            let server = Server::start(clickhouse, &clickhouse.database(), &issued.flags());
            let client = authority.client(&[version]);
            let connections = |count: usize| -> Vec<TlsConnection> {
                let open = || {
                    let mut connection = TlsConnection::open(server.address(), &client, "localhost").unwrap();
                    connection.send(&request(TARGET, "", EVENTS));
                    assert_eq!(connection.read_response().status, 200);
                    connection
                };
                std::iter::repeat_with(open).take(count).collect()
            };
            drop(connections(50));
            let before = server.memory("RssAnon");
            let idle = connections(1000);
            let each = server.memory("RssAnon").saturating_sub(before) / idle.len() as u64;
            println!("{each} bytes for an idle connection with {:?}", version.version);
            assert!(each <= 20 << 10, "{each} bytes for an idle connection with {:?}", version.version);
            drop(idle);
            assert!(server.stop().success());
        }
    }
}
