//! Connections with TLS: what an incomplete record takes, replies that are not read, and a stop.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::api::Shed;
use crate::net::tls::CertificateFiles;

/// A worker that speaks TLS, and the configuration of its clients.
fn start(change: impl FnOnce(&mut Shared)) -> (Harness, Arc<ClientConfig>) {
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles { certificate: folder.path().join("pem"), key: folder.path().join("key") };
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&files.certificate, issued.cert.pem()).unwrap();
    std::fs::write(&files.key, issued.signing_key.serialize_pem()).unwrap();
    let config = TlsConfig::load(&[files], None).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let harness = Harness::start_with(Duration::from_secs(60), |shared| {
        shared.tls = Some(Arc::new(Published::new(config)));
        change(shared);
    });
    (harness, Arc::new(client))
}

/// A connection whose handshake is done.
struct Client {
    tls: ClientConnection,
    socket: TcpStream,
}

impl Client {
    fn open(harness: &Harness, config: &Arc<ClientConfig>) -> Self {
        let tls = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut client = Self { tls, socket: harness.connect() };
        while client.tls.is_handshaking() {
            client.tls.complete_io(&mut client.socket).unwrap();
        }
        client
    }

    /// The ciphertext of `bytes`, not sent.
    fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        for part in bytes.chunks(8000) {
            self.tls.writer().write_all(part).unwrap();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut sealed).unwrap();
            }
        }
        sealed
    }

    /// Reads until this much plaintext has come.
    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut read = vec![0; len];
        rustls::Stream::new(&mut self.tls, &mut self.socket).read_exact(&mut read).unwrap();
        read
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_incomplete_record_is_in_the_budget_until_it_is_complete_or_its_connection_ends() {
    let (harness, config) = start(|_| {});
    let mut client = Client::open(&harness, &config);
    wait_until("something is in flight after a handshake", || harness.shared.budget.bytes() == 0);
    let body = "{\"event\":\"a\"}\n".repeat(500);
    let request = format!("POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let sealed = client.seal(request.as_bytes());
    let (front, back) = sealed.split_at(sealed.len() - 1);
    client.socket.write_all(front).unwrap();
    wait_until("a record is not in the budget", || harness.shared.budget.bytes() >= front.len() as u64);
    client.socket.write_all(back).unwrap();
    harness.give_back(harness.batch(), COMMITTED);
    assert_eq!(client.read(12), b"HTTP/1.1 200");
    let sealed = client.seal(b"POST /api/events HTTP/1.1\r\n");
    client.socket.write_all(&sealed[..sealed.len() - 1]).unwrap();
    wait_until("a record is not in the budget", || harness.shared.budget.bytes() >= sealed.len() as u64 - 1);
    drop(client);
    harness.stop();
}

#[test]
fn replies_that_are_not_read_wait_as_ciphertext_and_come_in_order() {
    let (harness, config) = start(|_| {});
    let mut client = Client::open(&harness, &config);
    let count = 60_000;
    // Replies of 10 MB: the kernel does not grow this side of its buffers, and the other one to 4 MiB at most.
    socket2::SockRef::from(&client.socket).set_recv_buffer_size(64 << 10).unwrap();
    let sealed = client.seal(&HEALTH.repeat(count));
    let mut socket = client.socket.try_clone().unwrap();
    let sender = thread::spawn(move || socket.write_all(&sealed).unwrap());
    // Until the kernel takes no more of the replies, and the worker no more requests.
    let answered = || harness.metrics.replies.sent().map(|(_, number)| number).sum::<u64>();
    let mut before = 0;
    while before == 0 || before != answered() {
        before = answered();
        thread::sleep(Duration::from_millis(300));
    }
    assert!(before < count as u64, "the kernel takes all of the replies");
    let head = client.read(15);
    assert_eq!(head, b"HTTP/1.1 200 OK");
    let mut text = String::from_utf8(head).unwrap();
    let last = "\r\n\r\n{\"status\":\"ok\"}";
    while text.matches(last).count() < 1 {
        text.push(char::from(client.read(1)[0]));
    }
    for _ in 1..count {
        let next = client.read(text.len());
        assert!(next.starts_with(b"HTTP/1.1 200 OK\r\n") && next.ends_with(last.as_bytes()));
    }
    sender.join().unwrap();
    drop(client);
    harness.stop();
}

#[test]
fn a_stop_waits_for_no_handshake_that_has_not_ended() {
    let (harness, config) = start(|shared| shared.timeouts.head = Duration::from_secs(600));
    let mut idle = Client::open(&harness, &config);
    let mut silent = harness.connect();
    let mut begun = harness.connect();
    begun.write_all(&[22, 3, 1]).unwrap();
    wait_until("a connection is not open", || harness.metrics.connections.get() == 3);
    harness.shared.handoff.lifecycle.stop(Duration::from_secs(600));
    harness.shared.handoff.wake_workers();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert_eq!(begun.read(&mut [0]).unwrap(), 0);
    let mut stream = rustls::Stream::new(&mut idle.tls, &mut idle.socket);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "with a close_notify");
    harness.thread.join().unwrap().unwrap();
}

#[test]
fn a_request_whose_record_has_begun_is_served_during_a_stop_and_has_the_time_of_a_head() {
    let (harness, config) = start(|_| {});
    let mut client = Client::open(&harness, &config);
    let sealed = client.seal(HEALTH);
    let (front, back) = sealed.split_at(sealed.len() - 1);
    client.socket.write_all(front).unwrap();
    wait_until("a record is not in the budget", || harness.shared.budget.bytes() > 0);
    harness.shared.handoff.lifecycle.stop(Duration::from_secs(600));
    harness.shared.handoff.wake_workers();
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(limits::STOPPING_IDLE_MS + 3 * limits::SWEEP_MS) {
        thread::sleep(Duration::from_millis(10));
    }
    client.socket.write_all(back).unwrap();
    assert_eq!(client.read(12), b"HTTP/1.1 503", "as health says during a stop");
    drop(client);
    harness.thread.join().unwrap().unwrap();

    let (harness, config) = start(|shared| shared.timeouts.head = Duration::from_millis(300));
    let mut client = Client::open(&harness, &config);
    let sealed = client.seal(HEALTH);
    client.socket.write_all(&sealed[..sealed.len() - 1]).unwrap();
    assert_eq!(client.read(12), b"HTTP/1.1 408");
    drop(client);
    harness.stop();
}

#[test]
fn one_address_keeps_no_more_of_incomplete_records_than_its_share() {
    let (harness, config) = start(|_| {});
    let half = harness.shared.budget.connection_max() as u64;
    // With no room left, a handshake that comes in pieces would be closed.
    let mut clients: Vec<Client> = (0..50).map(|_| Client::open(&harness, &config)).collect();
    // A record of 16 KiB each, of which the last byte is missing.
    for client in &mut clients {
        let mut sealed = Vec::new();
        client.tls.writer().write_all(&[b'a'; 16 << 10]).unwrap();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut sealed).unwrap();
        }
        // What was refused is closed.
        let _ = client.socket.write_all(&sealed[..sealed.len() - 1]);
        assert!(harness.shared.budget.bytes() <= half + (64 << 10), "{}", harness.shared.budget.bytes());
    }
    wait_until("nobody was refused", || harness.metrics.shed[Shed::InFlightBytes.index()].get() > 0);
    drop(clients);
    harness.stop();
}
