//! What a feature costs the server, for a request of 30 events on a connection that is kept, and for a
//! connection with one request, and for a request that is one of 16 at once. Beside a server without the feature, in one run, in turn: in CPU time of
//! the whole process, or with `BENCH_CALLGRIND=1` in instructions outside the kernel, which the state of
//! the machine changes little.
//!
//! One client sends one request after another, so that every server does the same number of turns, reads
//! and writes; or one on each of 16 connections, and waits for all replies, so that requests share turns.
//!
//! `cargo bench --bench features` (or `make bench-features`). Environment: `BENCH_REQUESTS` (a round,
//! 3000), `BENCH_CONNECTIONS` (a round, 1000), `BENCH_ROUNDS` (7), `BENCH_CALLGRIND` (with `valgrind`, and
//! a tenth of both), `BENCH_RECORD` (a folder for the raw figures). `--quick` runs two short rounds, to see
//! that it runs at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/process.rs"]
mod process;
#[path = "support/record.rs"]
mod record;

use std::cell::Cell;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use process::{Child, ClickHouse, on_core, serve, size};
use record::Record;

const EVENTS: &[u8] = include_bytes!("corpus/events-30.ndjson");
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// What the committer and the inserters still have to do belongs to the round.
const LAST_BLOCK: Duration = Duration::from_millis(1300);

const PROXY_V1: &[u8] = b"PROXY TCP4 203.0.113.7 203.0.113.1 56324 443\r\n";
/// The same as version 2 of the protocol has it.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\x00\x71\x07\xcb\x00\x71\x01\xdc\x04\x01\xbb";
/// Requests that are sent at once.
const TOGETHER: u64 = 16;
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// What becomes a number of 16 digits.
const FRESH: &str = "FRESH-NUMBER----";

/// What a connection speaks through.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A server, and how its client speaks.
struct Contender {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    /// What a connection begins with.
    first: &'static [u8],
    /// Further fields of a request; [`FRESH`] in it is another number in each request.
    fields: String,
    /// The newest of these numbers.
    number: Cell<u64>,
    is_tls: bool,
    /// Where its instructions are counted, if they are.
    counts: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let is_counted = std::env::var_os("BENCH_CALLGRIND").is_some();
    let share = if is_counted { 10 } else { 1 };
    let requests = size("BENCH_REQUESTS", 3_000, 300) / share;
    let connections = size("BENCH_CONNECTIONS", 1_000, 100) / share;
    let rounds = size("BENCH_ROUNDS", 7, 2);
    let (figure, unit) = if is_counted { ("instructions", "1000") } else { ("CPU time", "µs") };
    let mut record = Record::begin("features");
    let clickhouse = ClickHouse::start()?;
    clickhouse.create_null_table()?;
    let contenders = contenders(&clickhouse, is_counted)?;
    process::pin(LOAD_CORE);

    println!(
        "{rounds} rounds in turn of {requests} requests of 30 events on one connection, of {connections} connections with one request each, and of {requests} requests, {TOGETHER} at once; {figure}, {unit}"
    );
    let (a, b, c) = ("a request", "a connection", "one of many");
    println!("{:<30} {a:>22} {:>20} {b:>24} {:>20} {c:>24} {:>20}", "", "beside plain", "beside plain", "over plain");
    let mut costs = vec![(Vec::new(), Vec::new(), Vec::new()); contenders.len()];
    for round in 0..=rounds {
        for (contender, (kept, opened, together)) in contenders.iter().zip(&mut costs) {
            let kept_cost = contender.cost(requests, 1)?;
            let opened_cost = contender.cost(1, connections)?;
            let together_cost = contender.cost_together(requests / TOGETHER)?;
            // The first round warms up.
            if round > 0 {
                kept.push(kept_cost);
                opened.push(opened_cost);
                together.push(together_cost);
            }
        }
    }
    let plain = costs[0].clone();
    for (contender, (kept, opened, together)) in contenders.iter().zip(costs) {
        let mut columns = [(kept, &plain.0, "request"), (opened, &plain.1, "connection")].map(|(costs, plain, of)| {
            let more: Vec<f64> = costs.iter().zip(plain).map(|(cost, plain)| cost - plain).collect();
            let cost = record.note(contender.name, &format!("{figure} a {of}"), unit, costs).summary();
            let more = record.note(contender.name, &format!("{figure} a {of}, beside plain"), unit, more).summary();
            [cost, more]
        });
        let [[kept, kept_more], [opened, opened_more]] = &mut columns;
        let ratio: Vec<f64> = together.iter().zip(&plain.2).map(|(cost, plain)| cost / plain).collect();
        let together =
            record.note(contender.name, &format!("{figure} a request of {TOGETHER} at once"), unit, together).summary();
        let ratio = record
            .note(contender.name, &format!("{figure} a request of {TOGETHER} at once, over plain"), "", ratio)
            .summary();
        println!(
            "{:<30} {kept:>22} {kept_more:>20} {opened:>24} {opened_more:>20} {together:>24} {ratio:>20}",
            contender.name
        );
    }
    record.save()
}

fn contenders(clickhouse: &ClickHouse, is_counted: bool) -> Result<Vec<Contender>, Box<dyn Error>> {
    if is_counted {
        let program = clickhouse.folder().join("counted");
        let (folder, server) = (clickhouse.folder().display(), env!("CARGO_BIN_EXE_sluicegate"));
        let options = format!("--tool=callgrind --callgrind-out-file={folder}/count.%p");
        std::fs::write(&program, format!("#!/bin/sh\nexec valgrind -q {options} {server} \"$@\"\n"))?;
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700))?;
        // SAFETY: no other thread runs yet.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("BENCH_SLUICEGATE", &program);
        }
    }
    let keys = clickhouse.folder().join("keys");
    std::fs::write(&keys, format!("{KEY} name=bench\n"))?;
    let keys = keys.to_string_lossy();
    let start = |name, flags: &[&str], first, fields: &[&str], is_tls| -> Result<Contender, Box<dyn Error>> {
        let flags = [&["--workers", "1"], flags].concat();
        let (child, address) = on_core(SERVER_CORE, || serve(clickhouse, "written", &flags))??;
        let counts = is_counted.then(|| clickhouse.folder().to_path_buf());
        Ok(Contender { name, child, address, first, fields: fields.concat(), number: Cell::new(0), is_tls, counts })
    };
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let (id, origin) = ("X-Request-Id: 7f3c9a52\r\n", "Origin: https://shop.example\r\n");
    let proxy = ["--proxy-protocol", "--trusted-proxy", "127.0.0.1"];
    let with_keys = ["--write-key-file", &keys];
    let with_cors = ["--cors-origin", "https://shop.example"];
    let contenders = vec![
        start("plain", &[], b"", &[], false)?,
        start("plain, again", &[], b"", &[], false)?,
        start("a request id of the client", &[], b"", &[id], false)?,
        start("write keys", &with_keys, b"", &[&key], false)?,
        start("an Idempotency-Key", &[], b"", &["Idempotency-Key: ", FRESH, "\r\n"], false)?,
        start("CORS", &with_cors, b"", &[origin], false)?,
        start("id, keys and CORS", &[with_keys, with_cors].concat(), b"", &[id, &key, origin], false)?,
        start("PROXY v1", &proxy, PROXY_V1, &[], false)?,
        start("PROXY v2", &proxy, PROXY_V2, &[], false)?,
    ];
    #[cfg(feature = "tls")]
    let contenders = {
        let mut contenders = contenders;
        let [certificate, key] = certificate(clickhouse.folder())?;
        contenders.push(start("TLS 1.3", &["--tls-cert", &certificate, "--tls-key", &key], b"", &[], true)?);
        contenders
    };
    Ok(contenders)
}

/// A certificate of itself, ECDSA P-256, and its key, as files.
#[cfg(feature = "tls")]
fn certificate(folder: &std::path::Path) -> Result<[String; 2], Box<dyn Error>> {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let [certificate, key] = ["bench.pem", "bench.key"].map(|name| folder.join(name).to_string_lossy().into_owned());
    std::fs::write(&certificate, issued.cert.pem())?;
    std::fs::write(&key, issued.signing_key.serialize_pem())?;
    Ok([certificate, key])
}

impl Contender {
    /// What the server has used so far: µs of CPU time, or thousands of instructions since the last call.
    fn used(&self) -> Result<f64, Box<dyn Error>> {
        let Some(folder) = &self.counts else {
            return Ok(self.child.cpu_time()?.as_secs_f64() * 1e6);
        };
        let process = self.child.id();
        // It writes what was counted, and counts from 0 again.
        Command::new("callgrind_control").args(["-d", &process.to_string()]).output()?;
        let mut counted = 0.0;
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            if path.to_string_lossy().contains(&format!("/count.{process}.")) {
                let text = std::fs::read_to_string(&path)?;
                let totals = text.lines().filter_map(|line| line.strip_prefix("totals: "));
                counted += totals.filter_map(|total| total.parse::<f64>().ok()).sum::<f64>();
                std::fs::remove_file(path)?;
            }
        }
        Ok(counted / 1e3)
    }

    /// What each of these requests costs the server: so many on each of so many connections.
    fn cost(&self, requests: u64, connections: u64) -> Result<f64, Box<dyn Error>> {
        self.cost_of(requests * connections, || {
            for _ in 0..connections {
                let mut stream = self.connect()?;
                for _ in 0..requests {
                    self.send(&mut *stream)?;
                    take_reply(&mut *stream)?;
                }
            }
            Ok(())
        })
    }

    /// What each request costs the server that comes with others, so many times one on each connection.
    fn cost_together(&self, times: u64) -> Result<f64, Box<dyn Error>> {
        let mut streams = (0..TOGETHER).map(|_| self.connect()).collect::<Result<Vec<_>, _>>()?;
        self.cost_of(times * TOGETHER, || {
            for _ in 0..times {
                streams.iter_mut().try_for_each(|stream| self.send(&mut **stream))?;
                streams.iter_mut().try_for_each(|stream| take_reply(&mut **stream))?;
            }
            Ok(())
        })
    }

    fn cost_of(&self, requests: u64, send: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
        let before = self.used()?;
        send()?;
        std::thread::sleep(LAST_BLOCK);
        let used = self.used()?;
        let spent = if self.counts.is_some() { used } else { used - before };
        Ok(spent / requests as f64)
    }

    fn connect(&self) -> Result<Box<dyn Stream>, Box<dyn Error>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(self.first)?;
        Ok(if self.is_tls { Box::new(encrypted(stream)?) } else { Box::new(stream) })
    }

    fn send(&self, stream: &mut dyn Stream) -> Result<(), Box<dyn Error>> {
        self.number.set(self.number.get() + 1);
        let fields = self.fields.replace(FRESH, &format!("{:016}", self.number.get()));
        let head =
            format!("POST /api/events HTTP/1.1\r\nHost: bench\r\n{fields}Content-Length: {}\r\n\r\n", EVENTS.len());
        stream.write_all(&[head.as_bytes(), EVENTS].concat())?;
        Ok(stream.flush()?)
    }
}

/// Takes a reply, which comes in one piece.
fn take_reply(stream: &mut dyn Stream) -> Result<(), Box<dyn Error>> {
    let mut reply = [0; 1024];
    let len = stream.read(&mut reply)?;
    if !reply[..len].starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(&reply[..len]).into_owned().into());
    }
    Ok(())
}

/// TLS 1.3 over a connection, with a handshake of its own: no session is resumed. The client asks no
/// authority, which would cost the client alone.
#[cfg(feature = "tls")]
fn encrypted(stream: TcpStream) -> Result<impl Read + Write, Box<dyn Error>> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let client = rustls::ClientConnection::new(std::sync::Arc::new(config), "localhost".try_into()?)?;
    Ok(rustls::StreamOwned::new(client, stream))
}

#[cfg(not(feature = "tls"))]
fn encrypted(stream: TcpStream) -> Result<TcpStream, Box<dyn Error>> {
    Ok(stream)
}

/// Takes every certificate.
#[cfg(feature = "tls")]
#[derive(Debug)]
struct Anybody(std::sync::Arc<rustls::crypto::CryptoProvider>);

#[cfg(feature = "tls")]
impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
