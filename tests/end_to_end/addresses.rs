//! Whose address an event has: behind a trusted proxy, at a Unix socket, and in the form that is stored.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{
    Connection, Folder, PATIENCE, Response, Server, post, post_with, request, run, shared_clickhouse,
};

const TARGET: &str = "/api/events";
const EVENT: &[u8] = b"{\"event\":\"a\"}";

/// The addresses of the events in their order, and of the rejected lines.
fn stored(server: &Server, database: &str, events: u64, lines: u64) -> (String, String) {
    let clickhouse = shared_clickhouse();
    server.wait_for_rows(clickhouse, &format!("{database}.events"), events);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), lines);
    let addresses = |table: &str| {
        clickhouse.query(&format!(
            "SELECT arrayStringConcat(arraySort(groupArray(toString(ip))), ' ') FROM {database}.{table}"
        ))
    };
    (addresses("events").trim().to_owned(), addresses("events_quarantine").trim().to_owned())
}

#[test]
fn a_trusted_proxy_says_whose_event_it_is_and_nobody_else_does() {
    let clickhouse = shared_clickhouse();
    let body = b"{\"event\":\"a\"}\nbad\n";
    for (flags, expected) in [
        (&["--trusted-proxy", "127.0.0.0/8"][..], "127.0.0.1 2001:db8::1 8.8.4.4 8.8.8.8"),
        (&["--trusted-proxy", "::ffff:127.0.0.0/104,10.0.0.0/8"], "127.0.0.1 2001:db8::1 8.8.4.4 8.8.8.8"),
        (&["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "unix:"], "127.0.0.1 127.0.0.1 127.0.0.1 127.0.0.1"),
        (&[], "127.0.0.1 127.0.0.1 127.0.0.1 127.0.0.1"),
    ] {
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, flags);
        // One connection, as a proxy's; its requests are there at once.
        let mut connection = Connection::open(server.address());
        let fields = [
            "X-Forwarded-For: 1.1.1.1, 8.8.8.8\r\n",
            "X-Forwarded-For: 8.8.4.4\r\nX-Forwarded-For: 127.0.0.9\r\nForwarded: for=1.1.1.1\r\n",
            "Forwarded: for=1.1.1.1, for=\"[2001:db8::1]:80\";proto=https\r\n",
            "X-Forwarded-For: 1.1.1.1, unknown\r\n",
        ];
        connection.send(&fields.map(|fields| request(TARGET, fields, body)).concat());
        fields.iter().for_each(|_| assert_eq!(connection.read_response().status, 200));
        let (events, lines) = stored(&server, &database, 4, 4);
        assert_eq!((events.as_str(), lines.as_str()), (expected, expected), "{flags:?}");
    }
}

#[test]
fn a_header_of_the_proxy_protocol_is_required_of_every_connection() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--trusted-proxy", "127.0.0.1", "--proxy-protocol"]);
    let event = request(TARGET, "", EVENT);
    let binary = |command: u8, family: u8, addresses: &[u8]| {
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family, 0, addresses.len() as u8], addresses].concat()
    };
    for header in [
        b"PROXY TCP4 8.8.8.8 127.0.0.1 5 6\r\n".to_vec(),
        binary(0x21, 0x11, &[8, 8, 4, 4, 127, 0, 0, 1, 0, 5, 0, 6, 4, 0, 1, 0]),
        binary(0x20, 0, &[]),
    ] {
        let mut connection = Connection::open(server.address());
        connection.send(&[&header[..], &event, &event].concat());
        assert_eq!((connection.read_response().status, connection.read_response().status), (200, 200));
    }
    // A health check.
    let mut connection = Connection::open(server.address());
    connection.send(&binary(0x20, 0, &[]));
    connection.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.read_response().status, 200);
    // Nobody gets an answer without it, nor from an address that is not trusted.
    for (from, input) in [
        ([127, 0, 0, 1], &event[..]),
        ([127, 0, 0, 1], b"PROXY TCP4 8.8.8.8\r\n"),
        ([127, 0, 0, 2], b"PROXY TCP4 8.8.8.8 127.0.0.1 5 6\r\n"),
    ] {
        let mut connection = Connection::open_from(from.into(), server.address());
        connection.try_send(input);
        assert!(connection.is_closed_within(PATIENCE), "{input:?}");
    }
    let (events, _) = stored(&server, &database, 6, 0);
    assert_eq!(events, "127.0.0.1 127.0.0.1 8.8.4.4 8.8.4.4 8.8.8.8 8.8.8.8");
    assert!(server.log().contains("is no --trusted-proxy"), "{}", server.log());
    assert!(server.stop().success());
}

fn socket() -> (Folder, PathBuf, String) {
    let folder = Folder::new();
    let path = folder.path().join("events.sock");
    let address = format!("unix:{}", path.display());
    (folder, path, address)
}

fn post_unix(path: &std::path::Path, fields: &str, body: &[u8]) -> Response {
    let mut connection = Connection::open_unix(path);
    connection.send(&request(TARGET, fields, body));
    connection.read_response()
}

#[test]
fn a_unix_socket_is_served_by_all_workers_and_goes_with_the_server() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (_folder, path, address) = socket();
    let mut server = Server::start(clickhouse, &database, &["--listen", &address, "--workers", "3"]);
    // A peer that nobody trusts has no address, whatever it says.
    let mut connections: Vec<Connection> = (0..30).map(|_| Connection::open_unix(&path)).collect();
    for connection in &mut connections {
        connection.send(&request(TARGET, "X-Forwarded-For: 8.8.8.8\r\n", b"{\"event\":\"a\"}\nbad"));
    }
    connections.iter_mut().for_each(|connection| assert_eq!(connection.read_response().status, 200));
    assert_eq!(stored(&server, &database, 30, 30), (String::new(), String::new()));
    // A second server can't have it, and takes nothing away from the first.
    let (status, log) = Server::expect_failure(clickhouse, &database, &["--listen", &address]);
    assert!(!status.success() && log.contains("is in use"), "{log}");
    assert_eq!(post_unix(&path, "", EVENT).status, 200);
    // What a killed server leaves there is replaced.
    server.kill9();
    assert!(path.exists());
    let server = server.start_again();
    assert_eq!(post_unix(&path, "", EVENT).status, 200);
    drop(connections);
    assert!(server.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_trusted_unix_socket_says_whose_event_it_is_beside_an_untrusted_port() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (_folder, path, address) = socket();
    let port = crate::support::free_address();
    let listen = format!("{address},{port}");
    let server = Server::start(clickhouse, &database, &["--listen", &listen, "--trusted-proxy", "unix:"]);
    assert_eq!(post_unix(&path, "X-Forwarded-For: 8.8.8.8\r\n", EVENT).status, 200);
    assert_eq!(post_unix(&path, "X-Forwarded-For: unknown\r\n", EVENT).status, 200);
    assert_eq!(post_with(port, TARGET, "X-Forwarded-For: 9.9.9.9\r\n", EVENT).status, 200);
    assert_eq!(stored(&server, &database, 3, 0).0, " 127.0.0.1 8.8.8.8".trim());
    assert!(server.stop().success());
}

#[test]
fn an_address_is_stored_in_the_form_that_is_asked_for() {
    let clickhouse = shared_clickhouse();
    let folder = Folder::new();
    let key = folder.path().join("key");
    fs::write(&key, "0123456789abcdef\n").unwrap();
    let key = key.to_str().unwrap();
    let mut hashes = Vec::new();
    for (flags, expected) in [
        (&["--client-ip", "full"][..], Some("2001:db8:1:2::3 8.8.8.8")),
        (&["--client-ip", "truncated"], Some("2001:db8:1:: 8.8.8.0")),
        (&["--client-ip", "none"], Some("")),
        (&["--client-ip", "hashed", "--client-ip-key-file", key], None),
        (&["--client-ip", "hashed", "--client-ip-key-file", key], None),
    ] {
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &[flags, &["--trusted-proxy", "127.0.0.1"]].concat());
        for client in ["8.8.8.8", "2001:db8:1:2::3"] {
            let field = format!("X-Forwarded-For: {client}\r\n");
            assert_eq!(post_with(server.address(), TARGET, &field, b"{\"event\":\"a\"}\nbad").status, 200);
        }
        let (events, lines) = stored(&server, &database, 2, 2);
        assert_eq!(events, lines, "{flags:?}");
        match expected {
            Some(expected) => assert_eq!(events, expected, "{flags:?}"),
            None => hashes.push(events),
        }
    }
    // The same in each table and server that has the key, and nothing of the address.
    let [one, other] = &hashes[..] else { panic!("{hashes:?}") };
    assert_eq!(one, other);
    let digits = one.split(' ').all(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(digits && one.len() == 65, "{one}");
}

#[test]
fn rejected_lines_are_replayed_with_what_was_stored_of_their_address() {
    let clickhouse = shared_clickhouse();
    let folder = Folder::new();
    let key = folder.path().join("key");
    fs::write(&key, "0123456789abcdef\n").unwrap();
    for flags in
        [&["--client-ip", "hashed", "--client-ip-key-file", key.to_str().unwrap()][..], &["--client-ip", "none"]]
    {
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, flags);
        assert_eq!(post(server.address(), TARGET, b"{\"event\":\"a\",\"more\":1,\"param_int\":\"x\"}\n{}").status, 200);
        let (events, lines) = stored(&server, &database, 1, 1);
        assert_eq!(events, lines);
        // The line becomes good.
        clickhouse.query(&format!("ALTER TABLE {database}.events MODIFY COLUMN param_int String"));
        let server = server.restart();
        let admin = server.admin_address().to_string();
        let (url, spool) = (clickhouse.url(), server.spool_dir());
        let (success, out, log) = run(&[
            "quarantine",
            "replay",
            "--clickhouse-url",
            &url,
            "--database",
            &database,
            "--admin-listen",
            &admin,
            "--spool-dir",
            spool.to_str().unwrap(),
        ]);
        assert!(success && out.contains("1 accepted"), "{out}{log}");
        assert_eq!(stored(&server, &database, 2, 0).0, [&events[..]; 2].join(" ").trim(), "{flags:?}");
    }
}

#[test]
fn a_setting_that_can_not_work_is_named_at_the_start() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let narrow = clickhouse.database();
    clickhouse.query(&format!("CREATE TABLE {narrow}.narrow (ip IPv6, event String) ENGINE = MergeTree ORDER BY ()"));
    let folder = Folder::new();
    let (short, good) = (folder.path().join("short"), folder.path().join("good"));
    fs::write(&short, "0123456789abcde\n").unwrap();
    fs::write(&good, "0123456789abcdef").unwrap();
    let (short, good) = (short.to_str().unwrap(), good.to_str().unwrap());
    let plain = format!("unix:{good}");
    let long = format!("unix:{}/{}", folder.path().display(), "x".repeat(108));
    let table = ["--database", &narrow, "--table", "narrow"];
    let hashed = ["--client-ip", "hashed", "--client-ip-key-file"];
    for (flags, sentence) in [
        (&["--proxy-protocol", "true"][..], "--proxy-protocol needs --trusted-proxy"),
        (&["--client-ip", "hashed"], "--client-ip hashed needs --client-ip-key-file"),
        (&[&hashed[..], &[short]].concat(), "at least 16 bytes"),
        (&[&hashed[..], &["/nonexistent"]].concat(), "--client-ip-key-file /nonexistent"),
        (&[&hashed[..], &[good], &table].concat(), "make it a String"),
        (&["--listen", &plain], "is no socket"),
        (&["--listen", &long], "at most 107 bytes"),
        (&["--listen", "unix:/nonexistent/socket"], "/nonexistent/socket can't be listened on"),
        (&["--listen", "unix:relative"], "unix:/run/sluicegate.sock"),
        (&["--trusted-proxy", "localhost"], "10.0.0.0/8, ::1 or unix:"),
        #[cfg(feature = "engine-may")]
        (&["--engine", "may", "--trusted-proxy", "127.0.0.1"], "--engine may can't serve --trusted-proxy"),
        #[cfg(feature = "engine-may")]
        (&["--engine", "may", "--listen", "unix:/tmp/socket"], "--engine may can't serve a Unix socket in --listen"),
    ] {
        let (status, log) = Server::expect_failure(clickhouse, &database, flags);
        assert!(!status.success() && log.contains(sentence), "{flags:?}: {log}");
        // `check` says so as well.
        let url = clickhouse.url();
        let usual = ["check", "--clickhouse-url", &url, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let usual = if flags.contains(&"--listen") { &usual[..3] } else { &usual[..] };
        let spool = folder.path().join("spool").to_str().unwrap().to_owned();
        let (success, out, log) = run(&[usual, &["--spool-dir", &spool], flags].concat());
        assert!(!success && (out + &log).contains(sentence), "{flags:?}: {log}");
    }
    assert_eq!(fs::read_to_string(good).unwrap(), "0123456789abcdef");
}

#[test]
fn a_stop_answers_what_a_proxy_has_sent_and_waits_for_no_header() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let flags =
        ["--trusted-proxy", "127.0.0.1", "--proxy-protocol", "--head-timeout", "1h", "--shutdown-timeout", "10m"];
    let server = Server::start(clickhouse, &database, &flags);
    let mut silent = Connection::open(server.address());
    let mut connection = Connection::open(server.address());
    connection.send(
        b"PROXY TCP4 8.8.8.8 127.0.0.1 5 6\r\nPOST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n",
    );
    crate::support::wait_for(|| server.log(), || (server.metrics()["sluicegate_connections"] == 2.0).then_some(()));
    let stopping = server.begin_stop();
    stopping.wait_until_unready();
    connection.send(EVENT);
    assert_eq!(connection.read_response().status, 200);
    assert!(silent.is_closed_within(PATIENCE));
    assert!(connection.is_closed_within(Duration::from_secs(30)));
    assert!(stopping.wait().success());
}

#[test]
fn limits_by_address_go_by_the_client_and_not_by_its_proxy() {
    let clickhouse = shared_clickhouse();
    let flags = ["--trusted-proxy", "127.0.0.1", "--rate-limit-per-address", "1/s,burst=1000"];
    let server = Server::start(clickhouse, &clickhouse.database(), &flags);
    let mut connection = Connection::open(server.address());
    // A burst, which takes many minutes to come back.
    let body = "{\"event\":\"a\"}\n".repeat(1000);
    for (client, status) in
        [("8.8.8.8", 200), ("8.8.8.8", 429), ("8.8.4.4", 200), ("2001:db8::1", 200), ("8.8.4.4", 429)]
    {
        connection.send(&request(TARGET, &format!("X-Forwarded-For: {client}\r\n"), body.as_bytes()));
        let response = connection.read_response();
        assert_eq!(response.status, status, "{client}: {}", response.text());
    }
    assert!(server.stop().success());

    // The proxy has as many connections as it likes; whom it names has two.
    let flags = ["--trusted-proxy", "127.0.0.1", "--proxy-protocol", "--connections-per-address-max", "2"];
    let server = Server::start(clickhouse, &clickhouse.database(), &flags);
    let open = |client: &str, status: u16| {
        let mut connection = Connection::open(server.address());
        connection.send(format!("PROXY TCP4 {client} 127.0.0.1 5 6\r\n").as_bytes());
        connection.send(&request(TARGET, "", EVENT));
        assert_eq!(connection.read_response().status, status, "{client}");
        connection
    };
    let two = [open("8.8.8.8", 200), open("8.8.8.8", 200)];
    let others = ["8.8.4.4", "127.0.0.1", "127.0.0.1", "127.0.0.1"].map(|client| open(client, 200));
    open("8.8.8.8", 429);
    drop((two, others));
    assert!(server.stop().success());
}

#[cfg(feature = "tls")]
#[test]
fn a_connection_too_many_is_told_so_through_tls_behind_its_proxy_header() {
    use crate::support::{Authority, TlsConnection, VERSIONS};
    let clickhouse = shared_clickhouse();
    let authority = Authority::new();
    let issued = authority.issue("server", &["localhost"]);
    let flags = ["--trusted-proxy", "127.0.0.1", "--proxy-protocol", "--connections-max", "1", "--workers", "1"];
    let server = Server::start(clickhouse, &clickhouse.database(), &[&issued.flags()[..], &flags].concat());
    let client = authority.client(&VERSIONS);
    let header = b"PROXY TCP4 8.8.8.8 127.0.0.1 5 6\r\n";
    let open = || TlsConnection::open_after(header, server.address(), &client, "localhost").unwrap();
    let mut first = open();
    first.send(&request(TARGET, "", EVENT));
    assert_eq!(first.read_response().status, 200);
    // It is not idle.
    let (front, back) = (request(TARGET, "", EVENT), EVENT);
    let cut = front.len() - back.len();
    first.send(&front[..cut]);
    crate::support::wait_for(
        || server.log(),
        || {
            let in_flight = server.metrics()["sluicegate_in_flight_bytes"];
            (in_flight > 0.0).then_some(())
        },
    );
    let mut second = open();
    assert_eq!(second.read_response().status, 503);
    first.send(back);
    assert_eq!(first.read_response().status, 200);
}

#[test]
fn a_body_that_is_served_over_several_turns_keeps_the_address_of_its_head() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let flags = ["--trusted-proxy", "127.0.0.1", "--workers", "1"];
    let server = Server::start(clickhouse, &database, &flags);
    let large = "{\"event\":\"large\",\"param_str\":\"0123456789012345678901234567890123456789\"}\n".repeat(50_000);
    let mut connections: Vec<Connection> = (0..4).map(|_| Connection::open(server.address())).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.send(&request(TARGET, &format!("X-Forwarded-For: 8.8.8.{number}\r\n"), large.as_bytes()));
        connection.send(&request(TARGET, &format!("X-Forwarded-For: 8.8.4.{number}\r\n"), EVENT));
    }
    for connection in &mut connections {
        assert_eq!((connection.read_response().status, connection.read_response().status), (200, 200));
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 4 * 50_001);
    let counts = clickhouse.query(&format!(
        "SELECT ip, event, count() FROM {database}.events GROUP BY ALL ORDER BY toUInt8(splitByChar('.', ip)[4]), event DESC FORMAT TSV"
    ));
    let expected: String =
        (0..4).map(|number| format!("8.8.8.{number}\tlarge\t50000\n8.8.4.{number}\ta\t1\n")).collect();
    assert_eq!(counts, expected);
    assert!(server.stop().success());
}
