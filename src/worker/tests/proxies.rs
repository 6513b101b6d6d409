//! Connections of proxies: whose address an event has, and the header of the PROXY protocol.

use super::*;

fn trust(shared: &mut Shared, proxies: &[&str]) {
    let proxies: Vec<crate::net::TrustedProxy> = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
    shared.trusted = crate::net::TrustedProxies::new(&proxies);
}

fn start(proxies: &[&str], proxy_protocol: bool) -> Harness {
    Harness::start_with(Duration::from_secs(60), |shared| {
        trust(shared, proxies);
        shared.proxy_protocol = proxy_protocol;
        shared.schemas = Arc::new(Schemas::new([Some(SchemaVersion::new(plan(&["ip"]), b"first".to_vec()))]));
    })
}

fn request(field: &str) -> String {
    format!("POST /api/events HTTP/1.1\r\nHost: a\r\n{field}Content-Length: 2\r\n\r\n{{}}")
}

/// The addresses of the rows of a batch, each a short String.
fn addresses(harness: &Harness) -> Vec<String> {
    let batch = harness.batch();
    let (mut rest, mut found) = (&batch.rows.bytes[..], Vec::new());
    while let [len, behind @ ..] = rest {
        let (text, behind) = behind.split_at(usize::from(*len));
        found.push(String::from_utf8(text.to_vec()).unwrap());
        rest = behind;
    }
    harness.give_back(batch, COMMITTED);
    found
}

#[test]
fn only_a_trusted_peer_says_who_its_clients_are_and_each_request_for_itself() {
    let input = request("X-Forwarded-For: 8.8.8.8\r\n") + &request("") + &request("Forwarded: for=9.9.9.9\r\n");
    for (proxies, expected) in [
        (&["127.0.0.0/8"][..], ["8.8.8.8", "127.0.0.1", "9.9.9.9"]),
        (&["10.0.0.0/8", "unix:"], ["127.0.0.1"; 3]),
        (&[], ["127.0.0.1"; 3]),
    ] {
        let harness = start(proxies, false);
        let mut client = harness.connect();
        client.write_all(input.as_bytes()).unwrap();
        assert_eq!(addresses(&harness), expected, "{proxies:?}");
        (0..3).for_each(|_| assert_eq!(status(&mut client), 200));
        drop(client);
        harness.stop();
    }
}

fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = (addresses.len() as u16).to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, addresses].concat()
}

#[test]
fn a_proxy_header_names_the_client_however_it_is_split() {
    let harness = start(&["127.0.0.0/8"], true);
    let v4 = [8, 8, 8, 8, 127, 0, 0, 1, 0, 1, 0, 2];
    let forwarded = "X-Forwarded-For: 9.9.9.9\r\n";
    for (header, field, address) in [
        (b"PROXY TCP4 8.8.8.8 127.0.0.1 5 6\r\n".to_vec(), "", "8.8.8.8"),
        (b"PROXY TCP6 2001:db8::1 ::1 5 6\r\n".to_vec(), "", "2001:db8::1"),
        (binary(0x21, 0x11, &[&v4[..], &[0x04, 0, 60], &[0; 60]].concat()), "", "8.8.8.8"),
        // Who is named is not trusted, so it can't name others.
        (b"PROXY TCP4 8.8.8.8 127.0.0.1 5 6\r\n".to_vec(), forwarded, "8.8.8.8"),
        (b"PROXY TCP4 127.0.0.9 127.0.0.1 5 6\r\n".to_vec(), forwarded, "9.9.9.9"),
        // The proxy asks by itself.
        (binary(0x20, 0, &[]), "", "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "", "127.0.0.1"),
    ] {
        let input = [&header[..], request(field).as_bytes(), request(field).as_bytes()].concat();
        for cut in 1..=header.len() + 1 {
            let mut client = harness.connect();
            client.set_nodelay(true).unwrap();
            client.write_all(&input[..cut]).unwrap();
            // Until the worker has seen the first piece alone.
            while harness.metrics.connections.get() == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            client.write_all(&input[cut..]).unwrap();
            assert_eq!(addresses(&harness), [address; 2], "{cut} of {header:?}");
            assert_eq!((status(&mut client), status(&mut client)), (200, 200));
            drop(client);
            while harness.shared.handoff.connections() > 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    harness.stop();
}

/// The server says nothing and closes the connection.
fn assert_closed(client: &mut TcpStream) {
    match client.read(&mut [0; 64]) {
        Ok(len) => assert_eq!(len, 0),
        // It had not read all.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn a_connection_without_a_proxy_header_is_closed_without_a_reply() {
    let harness = start(&["127.0.0.0/8"], true);
    for input in [
        request("").as_bytes(),
        b"PROXY TCP4 8.8.8.8 127.0.0.1 5\r\n",
        &binary(0x21, 0x11, &[0; 5000]),
        b"\r\n\r\n\0\r\nQUIT!",
    ] {
        let mut client = harness.connect();
        client.write_all(input).unwrap();
        assert_closed(&mut client);
    }
    // One that breaks off.
    let mut client = harness.connect();
    client.write_all(b"PROXY TCP4 8.8").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_closed(&mut client);
    harness.stop();

    let harness = start(&["10.0.0.0/8"], true);
    let mut client = harness.connect();
    let _ = client.write_all(&[&b"PROXY TCP4 8.8.8.8 127.0.0.1 5 6\r\n"[..], HEALTH].concat());
    assert_closed(&mut client);
    while harness.shared.handoff.connections() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    harness.stop();
}

#[test]
fn a_proxy_header_has_the_time_of_a_head_and_no_stop_waits_for_it() {
    let harness = Harness::start_with(Duration::from_secs(60), |shared| {
        trust(shared, &["127.0.0.1"]);
        shared.proxy_protocol = true;
        shared.timeouts.head = Duration::from_millis(400);
    });
    let mut client = harness.connect();
    client.write_all(b"PROXY TCP4 8.8.8.8").unwrap();
    assert_closed(&mut client);
    harness.stop();

    let harness = Harness::start_with(Duration::from_secs(60), |shared| {
        trust(shared, &["127.0.0.1"]);
        shared.proxy_protocol = true;
        shared.timeouts.head = Duration::from_hours(1);
    });
    let mut client = harness.connect();
    client.write_all(b"PROXY ").unwrap();
    while harness.metrics.connections.get() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    harness.stop();
    assert_closed(&mut client);
}
