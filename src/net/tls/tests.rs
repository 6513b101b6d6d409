//! Tests of sessions and certificates against the client of `rustls`, without sockets.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::limits;

/// A folder with certificates, each for itself.
struct Files {
    folder: tempfile::TempDir,
    count: usize,
    roots: RootCertStore,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), count: 0, roots: RootCertStore::empty() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the certificate of these names, and its key.
    fn issue(&mut self, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.count += 1;
        let count = self.count;
        let files = CertificateFiles {
            certificate: self.path(&format!("{count}.pem")),
            key: self.path(&format!("{count}.key")),
        };
        let issued = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(&files.certificate, issued.cert.pem()).unwrap();
        std::fs::write(&files.key, issued.signing_key.serialize_pem()).unwrap();
        self.roots.add(issued.cert.der().clone()).unwrap();
        files
    }

    fn client(&self, name: &str, version: &'static SupportedProtocolVersion) -> ClientConnection {
        client_of(&self.client_config(version), name)
    }

    fn client_config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn client_of(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    ClientConnection::new(config.clone(), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

/// A client and a session, with wires between them.
struct Wires {
    client: ClientConnection,
    server: Session,
    /// Plaintext that the session has received.
    received: Vec<u8>,
    /// Plaintext that the client has received.
    read: Vec<u8>,
    /// The client has seen the end of what the session sends.
    client_at_end: bool,
}

impl Wires {
    fn new(client: ClientConnection, config: &TlsConfig) -> Self {
        let server = Session::new(config).unwrap();
        Self { client, server, received: Vec::new(), read: Vec::new(), client_at_end: false }
    }

    /// What the client wants to send.
    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut flight).unwrap();
        }
        flight
    }

    /// Hands ciphertext to the session; what it sends goes to the client.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        let mut input = [self.server.kept(), bytes].concat();
        let (mut plain, mut output) = (vec![0; input.len()], Vec::new());
        let opened = self.server.open(&mut input, &mut plain, &mut output);
        self.hand_to_client(&output);
        self.received.extend_from_slice(&plain[..opened?]);
        Ok(())
    }

    fn hand_to_client(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            // An alert is an error, of which the tests that provoke one look at the session's side.
            let _ = self.client.process_new_packets();
            let mut space = vec![0; 32 << 10];
            while let Ok(len) = self.client.reader().read(&mut space) {
                self.client_at_end |= len == 0;
                if len == 0 {
                    break;
                }
                self.read.extend_from_slice(&space[..len]);
            }
        }
    }

    /// Everything that the client wants to send, in pieces.
    fn settle(&mut self, piece: usize) {
        loop {
            let flight = self.flight();
            if flight.is_empty() {
                return;
            }
            flight.chunks(piece).for_each(|piece| self.feed(piece).unwrap());
        }
    }

    fn seal(&mut self, bytes: &[u8]) {
        let mut output = Vec::new();
        assert!(self.server.seal(bytes, &mut output));
        self.hand_to_client(&output);
    }
}

const BODY: &[u8] = &[b'x'; 40_000];

#[test]
fn any_split_of_the_ciphertext_gives_the_same_plaintext_in_both_versions() {
    let mut files = Files::new();
    let config = TlsConfig::load(&[files.issue(&["a.example"])], None).unwrap();
    for version in [&TLS12, &TLS13] {
        for piece in (1..=40).chain([100, 1000, 16_406, 16_407, 100_000]) {
            let mut wires = Wires::new(files.client("a.example", version), &config);
            assert!(wires.server.is_handshaking());
            wires.settle(piece);
            assert!(!wires.server.is_handshaking() && !wires.client.is_handshaking(), "{piece}");
            assert_eq!(wires.client.alpn_protocol(), Some(&b"http/1.1"[..]));
            // Small pieces of much would take long.
            let body = &BODY[..if piece < 20 { 2000 } else { BODY.len() }];
            wires.client.writer().write_all(body).unwrap();
            wires.settle(piece);
            assert!(wires.received == body, "{piece}");
            assert_eq!(wires.server.kept_bytes(), 0, "an idle session keeps nothing");
            wires.seal(BODY);
            assert!(wires.read == BODY, "{piece}");
            wires.client.send_close_notify();
            wires.settle(piece);
            assert!(wires.server.peer_closed() && !wires.client_at_end, "{piece}");
            wires.seal(b"a reply that was under way");
            let mut output = Vec::new();
            wires.server.close(&mut output);
            wires.server.close(&mut output);
            wires.hand_to_client(&output);
            assert!(wires.client_at_end && wires.read.ends_with(b"under way"), "{piece}");
        }
    }
}

#[test]
fn a_handshake_succeeds_with_its_flights_split_at_any_byte() {
    let mut files = Files::new();
    let config = TlsConfig::load(&[files.issue(&["a.example"])], None).unwrap();
    for version in [&TLS12, &TLS13] {
        let client = files.client_config(version);
        for at in 1.. {
            let mut wires = Wires::new(client_of(&client, "a.example"), &config);
            let mut longest = 0;
            loop {
                let flight = wires.flight();
                if flight.is_empty() {
                    break;
                }
                longest = longest.max(flight.len());
                let (front, back) = flight.split_at(at.min(flight.len()));
                wires.feed(front).unwrap();
                wires.feed(back).unwrap();
            }
            assert!(!wires.server.is_handshaking() && !wires.client.is_handshaking(), "{at}");
            if at > longest {
                break;
            }
        }
    }
}

/// Bytes that look like records often enough to come far.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let random = || proptest::collection::vec(any::<u8>(), 0..80);
    let record = (prop_oneof![20u8..25, any::<u8>()], random(), 0u16..3).prop_map(|(kind, content, more)| {
        let len = content.len() as u16 + if more == 0 { 7 } else { 0 };
        [&[kind, 3, 3][..], &len.to_be_bytes(), &content].concat()
    });
    prop_oneof![record, random()]
}

proptest! {
    /// No panic, no endless loop, nothing kept beyond the limit, and no plaintext that was not sent.
    #[test]
    fn random_bytes_within_a_session_never_panic(
        before in 0usize..400,
        rubbish in proptest::collection::vec(records(), 0..4),
        changed in proptest::option::of((0usize..400, 1u8..)),
        pieces in proptest::collection::vec(1usize..300, 1..8),
        is_new in any::<bool>(),
    ) {
        static SHARED: std::sync::OnceLock<(TlsConfig, [Arc<ClientConfig>; 2])> = std::sync::OnceLock::new();
        let (config, clients) = SHARED.get_or_init(|| {
            let mut files = Files::new();
            let config = TlsConfig::load(&[files.issue(&["a.example"])], None).unwrap();
            (config, [&TLS12, &TLS13].map(|version| files.client_config(version)))
        });
        let mut wires = Wires::new(client_of(&clients[usize::from(is_new)], "a.example"), config);
        let mut pieces = pieces.into_iter().cycle();
        let mut rubbish = rubbish.concat();
        // The front of each flight as it is, then rubbish, then its end with a changed byte.
        for _ in 0..6 {
            let mut flight = wires.flight();
            if let Some((place, by)) = changed && let Some(byte) = flight.get_mut(place) {
                *byte ^= by;
            }
            let at = before.min(flight.len());
            flight.splice(at..at, rubbish.drain(..));
            let mut rest = &flight[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(pieces.next().unwrap().min(rest.len()));
                let outcome = wires.feed(piece);
                assert!(wires.server.kept().len() <= limits::TLS_KEPT_BYTES_MAX);
                assert!(wires.received.is_empty());
                if outcome.is_err() {
                    assert!(wires.feed(piece).is_err() && !wires.server.seal(b"reply", &mut Vec::new()));
                    return Ok(());
                }
                rest = behind;
            }
        }
        wires.server.close(&mut Vec::new());
    }
}

#[test]
fn sealing_between_any_two_bytes_of_a_record_disturbs_nothing() {
    let mut files = Files::new();
    let config = TlsConfig::load(&[files.issue(&["a.example"])], None).unwrap();
    for version in [&TLS12, &TLS13] {
        let mut wires = Wires::new(files.client("a.example", version), &config);
        wires.settle(1000);
        if version.version == TLS13.version {
            wires.client.refresh_traffic_keys().unwrap();
        }
        wires.client.writer().write_all(b"one").unwrap();
        wires.client.writer().write_all(b"two").unwrap();
        let flight = wires.flight();
        for byte in &flight {
            wires.feed(&[*byte]).unwrap();
            wires.seal(b".");
        }
        assert_eq!(wires.received, b"onetwo");
        assert_eq!(wires.read, vec![b'.'; flight.len()]);
    }
}

/// A message of the handshake may come in many records (RFC 8446, section 5.1).
#[test]
fn a_hello_in_many_records_is_read_and_what_is_kept_of_it_is_no_place_to_write_from() {
    let mut files = Files::new();
    let config = TlsConfig::load(&[files.issue(&["a.example"])], None).unwrap();
    let mut wires = Wires::new(files.client("a.example", &TLS13), &config);
    let flight = wires.flight();
    let (header, message) = flight.split_at(5);
    for fragment in message.chunks(7) {
        assert!(wires.server.is_handshaking());
        let record = [&header[..3], &(fragment.len() as u16).to_be_bytes(), fragment].concat();
        record.chunks(3).for_each(|piece| wires.feed(piece).unwrap());
        assert!(!wires.server.seal(b"too early", &mut Vec::new()));
    }
    wires.settle(1000);
    wires.client.writer().write_all(b"body").unwrap();
    wires.settle(1000);
    assert_eq!(wires.received, b"body");
}

#[test]
fn a_message_that_never_ends_ends_the_session_before_much_of_it_is_kept() {
    let mut files = Files::new();
    let config = TlsConfig::load(&[files.issue(&["a.example"])], None).unwrap();
    let mut wires = Wires::new(files.client("a.example", &TLS13), &config);
    // The header of a hello of 65,000 bytes, and then record after record of one byte.
    let begin = [22, 3, 1, 0, 4, 1, 0, 0xfd, 0xe8];
    let records = std::iter::repeat_n([22, 3, 1, 0, 1, 3], 65_000);
    let mut outcome = wires.feed(&begin);
    let mut fed = begin.len();
    for record in records {
        if outcome.is_err() {
            break;
        }
        assert!(wires.server.kept().len() <= limits::TLS_KEPT_BYTES_MAX);
        outcome = wires.feed(&record);
        fed += record.len();
    }
    assert!(outcome.is_err() && fed <= limits::TLS_KEPT_BYTES_MAX + 6, "{fed}");
    assert!(wires.server.kept().is_empty() && wires.feed(&[22]).is_err());
}

#[test]
fn what_is_no_tls_gets_an_alert_and_any_changed_byte_ends_the_session_without_plaintext() {
    let mut files = Files::new();
    let config = TlsConfig::load(&[files.issue(&["a.example"])], None).unwrap();
    let mut wires = Wires::new(files.client("a.example", &TLS13), &config);
    let mut input = b"POST /api/events HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let (mut plain, mut output) = (vec![0; input.len()], Vec::new());
    assert!(wires.server.open(&mut input, &mut plain, &mut output).is_err());
    assert_eq!((output[0], output.len()), (21, 7), "an alert");
    assert!(!wires.server.seal(b"reply", &mut output));
    // Kind and version of a record in front of its length say nothing in TLS 1.3.
    for place in 3.. {
        let mut wires = Wires::new(files.client("a.example", &TLS13), &config);
        wires.settle(1000);
        wires.client.writer().write_all(b"body").unwrap();
        let mut flight = wires.flight();
        let Some(byte) = flight.get_mut(place) else { break };
        *byte ^= 1;
        let outcome = flight.chunks(5).try_for_each(|piece| wires.feed(piece));
        assert!(wires.received.is_empty(), "{place}: {outcome:?}");
    }
    for place in 0.. {
        let mut wires = Wires::new(files.client("a.example", &TLS13), &config);
        let mut flight = wires.flight();
        let Some(byte) = flight.get_mut(place) else { break };
        *byte ^= 0x80;
        let _ = flight.chunks(50).try_for_each(|piece| wires.feed(piece));
        let _ = wires.server.seal(b"reply", &mut Vec::new());
        wires.server.close(&mut Vec::new());
    }
}

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for_else_the_first() {
    let mut files = Files::new();
    let pairs = [files.issue(&["a.example"]), files.issue(&["b.example", "*.c.example"]), files.issue(&["b.example"])];
    let config = TlsConfig::load(&pairs, None).unwrap();
    let certificates: Vec<_> =
        pairs.iter().map(|pair| CertificateDer::from_pem_file(&pair.certificate).unwrap()).collect();
    for (name, expected) in [
        ("a.example", 0),
        ("b.example", 1),
        ("B.Example", 1),
        ("x.c.example", 1),
        ("c.example", 0),
        ("x.y.c.example", 0),
        ("other.example", 0),
        ("127.0.0.1", 0),
    ] {
        for version in [&TLS12, &TLS13] {
            let mut wires = Wires::new(files.client(name, version), &config);
            // A client that does not accept the certificate ends the handshake, which is its own affair.
            loop {
                let flight = wires.flight();
                if flight.is_empty() || flight.chunks(1000).any(|piece| wires.feed(piece).is_err()) {
                    break;
                }
            }
            if let Some([got, ..]) = wires.client.peer_certificates() {
                assert_eq!(*got, certificates[expected], "{name}");
            } else {
                assert_eq!(expected, 0, "{name}");
            }
        }
    }
}

#[test]
fn a_session_is_resumed_after_the_certificates_were_read_again() {
    let mut files = Files::new();
    let pair = [files.issue(&["a.example"])];
    let before = TlsConfig::load(&pair, None).unwrap();
    let again = TlsConfig::load(&pair, Some(&before)).unwrap();
    let another = TlsConfig::load(&pair, None).unwrap();
    for version in [&TLS12, &TLS13] {
        let client = files.client_config(version);
        let handshake = |config| {
            let mut wires = Wires::new(client_of(&client, "a.example"), config);
            wires.settle(1000);
            // The tickets of TLS 1.3 come before it.
            wires.seal(b"reply");
            wires.client.handshake_kind()
        };
        assert_eq!(handshake(&before), Some(HandshakeKind::Full));
        assert_eq!(handshake(&before), Some(HandshakeKind::Resumed));
        assert_eq!(handshake(&again), Some(HandshakeKind::Resumed));
        assert_eq!(handshake(&another), Some(HandshakeKind::Full));
    }
}

#[test]
fn what_can_not_be_used_is_named_and_not_quoted() {
    let mut files = Files::new();
    let (good, other) = (files.issue(&["a.example"]), files.issue(&["b.example"]));
    let (missing, rubbish) = (files.path("missing"), files.path("rubbish"));
    std::fs::write(&rubbish, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----BEGIN SECRET-----\n").unwrap();
    let certificate = |path: &PathBuf| CertificateFiles { certificate: path.clone(), ..good.clone() };
    let key = |path: &PathBuf| CertificateFiles { key: path.clone(), ..good.clone() };
    for (wrong, flag, reason) in [
        (certificate(&missing), "--tls-cert", "No such file"),
        (certificate(&rubbish), "--tls-cert", "PEM"),
        (certificate(&good.key), "--tls-cert", "no certificate"),
        (key(&missing), "--tls-key", "No such file"),
        (key(&rubbish), "--tls-key", "no private key"),
        (key(&good.certificate), "--tls-key", "no private key"),
        (key(&other.key), "--tls-key", "not the key of"),
    ] {
        let path = if flag == "--tls-cert" { &wrong.certificate } else { &wrong.key };
        let said = TlsConfig::load(&[good.clone(), wrong.clone()], None).unwrap_err().to_string();
        assert!(said.starts_with(&format!("{flag} {}: ", path.display())) && said.contains(reason), "{said}");
        assert!(!said.contains("SECRET") && !said.contains("c2Vj"), "{said}");
    }
}
