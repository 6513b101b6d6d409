//! TLS: an authority that issues certificates, a client, and forwarders that speak TLS on one side.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection as Tls, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned, SupportedProtocolVersion,
};

use super::http::Response;
use super::load::Reply;
use super::{Folder, PATIENCE};

/// Both versions that the server speaks.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// An authority, with a folder for what it issues.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: Folder,
}

/// A certificate and its key, as paths.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Issued {
    /// The flags that name it.
    pub fn flags(&self) -> [&str; 4] {
        ["--tls-cert", &self.certificate, "--tls-key", &self.key]
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = params("authority", Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: Folder::new() };
        std::fs::write(authority.path("authority.pem"), authority.issuer.as_ref().pem()).unwrap();
        authority
    }

    /// The file with its own certificate.
    pub fn ca_file(&self) -> String {
        self.path("authority.pem")
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// Issues a certificate for these names and addresses, and writes it to `file`, over what is there.
    pub fn issue(&self, file: &str, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let issued = params("server", names).signed_by(&key, &self.issuer).unwrap();
        let paths = Issued { certificate: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) };
        std::fs::write(&paths.certificate, issued.pem()).unwrap();
        std::fs::write(&paths.key, key.serialize_pem()).unwrap();
        paths
    }

    /// A client that trusts this authority alone.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        self.client_with_alpn(versions, &["http/1.1"])
    }

    pub fn client_with_alpn(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Forwards to a server that speaks plain TCP, and speaks TLS with a certificate for `localhost`.
    /// Returns where.
    pub fn front_of(&self, url: &str) -> String {
        let upstream: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let issued = self.issue("front", &["localhost"]);
        let key = PrivateKeyDer::from_pem_file(&issued.key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.der()], key)
            .unwrap();
        let config = Arc::new(config);
        let address = forward(upstream, move |sealed, plain| {
            let tls = ServerConnection::new(config.clone()).ok()?;
            pump(plain, sealed, tls.into())
        });
        format!("https://localhost:{}", address.port())
    }

    /// Takes plain connections, and forwards them over TLS to `server`. Returns where.
    pub fn tunnel_to(&self, server: SocketAddr, versions: &[&'static SupportedProtocolVersion]) -> SocketAddr {
        let config = self.client(versions);
        forward(server, move |plain, sealed| {
            let tls = ClientConnection::new(config.clone(), server_name("127.0.0.1")).ok()?;
            pump(plain, sealed, tls.into())
        })
    }
}

/// A certificate's contents, with a name that no other has.
fn params(kind: &str, names: Vec<String>) -> CertificateParams {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, format!("{kind} {}", COUNT.fetch_add(1, Relaxed)));
    params
}

fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

/// Serves each connection with one to `upstream`, until the test's process ends.
fn forward(
    upstream: SocketAddr,
    serve: impl Fn(TcpStream, TcpStream) -> Option<()> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(upstream) else { continue };
            let serve = serve.clone();
            // A connection that breaks is seen by its client.
            thread::spawn(move || serve(client, server));
        }
    });
    address
}

/// Copies between a plain and a TLS connection until both sides have ended; `None` if one breaks.
fn pump(mut plain: TcpStream, mut sealed: TcpStream, mut tls: Tls) -> Option<()> {
    for stream in [&plain, &sealed] {
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
    }
    let (mut plain_ended, mut sealed_ended, mut shut) = (false, false, false);
    let mut to_plain = Vec::new();
    let mut space = vec![0; 16 << 10];
    loop {
        if !plain_ended && !tls.wants_write() && !tls.is_handshaking() {
            match once(plain.read(&mut space))? {
                Some(0) => {
                    plain_ended = true;
                    tls.send_close_notify();
                }
                Some(len) => tls.writer().write_all(&space[..len]).ok()?,
                None => {}
            }
        }
        while tls.wants_write() && once(tls.write_tls(&mut sealed))?.is_some() {}
        if !sealed_ended && to_plain.is_empty() {
            let is_end = once(tls.read_tls(&mut sealed))? == Some(0);
            tls.process_new_packets().ok()?;
            loop {
                match once(tls.reader().read(&mut space))? {
                    Some(0) => {
                        sealed_ended = true;
                        break;
                    }
                    Some(len) => to_plain.extend_from_slice(&space[..len]),
                    None => break,
                }
            }
            // Without a close_notify it is no end.
            if is_end && !sealed_ended {
                return None;
            }
        }
        while !to_plain.is_empty() {
            match once(plain.write(&to_plain))? {
                Some(len) => drop(to_plain.drain(..len)),
                None => break,
            }
        }
        if sealed_ended && to_plain.is_empty() && !shut {
            plain.shutdown(std::net::Shutdown::Write).ok()?;
            shut = true;
        }
        if plain_ended && shut && !tls.wants_write() {
            return Some(());
        }
        let interest = |readable: bool, writable: bool| {
            (if readable { PollFlags::IN } else { PollFlags::empty() })
                | (if writable { PollFlags::OUT } else { PollFlags::empty() })
        };
        let of_plain = interest(!plain_ended && !tls.wants_write() && !tls.is_handshaking(), !to_plain.is_empty());
        let of_sealed = interest(!sealed_ended && to_plain.is_empty(), tls.wants_write());
        let mut waits = [(&plain, of_plain), (&sealed, of_sealed)]
            .into_iter()
            .filter(|(_, interest)| !interest.is_empty())
            .map(|(stream, interest)| PollFd::from_borrowed_fd(stream.as_fd(), interest))
            .collect::<Vec<_>>();
        poll(&mut waits, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).ok()?;
    }
}

/// The result of one call that does not block: `Some(None)` if it would have.
fn once(result: io::Result<usize>) -> Option<Option<usize>> {
    match result {
        Ok(len) => Some(Some(len)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Some(None),
        Err(_) => None,
    }
}

/// A TLS connection that is used by hand.
pub struct TlsConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl TlsConnection {
    /// Connects, and asks for the certificate of `name`.
    pub fn open(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        Self::open_after(b"", address, config, name)
    }

    /// The same, behind these bytes.
    pub fn open_after(first: &[u8], address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        socket.write_all(first)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let client = ClientConnection::new(config.clone(), server_name(name)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(client, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, received: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends `bytes` as one flight, whose ciphertext is written in pieces of these lengths, again and again.
    pub fn send_in_pieces(&mut self, bytes: &[u8], pieces: &[usize]) {
        let mut flight = Vec::new();
        for part in bytes.chunks(10_000) {
            self.stream.conn.writer().write_all(part).unwrap();
            while self.stream.conn.wants_write() {
                self.stream.conn.write_tls(&mut flight).unwrap();
            }
        }
        let (mut rest, mut lengths) = (&flight[..], pieces.iter().cycle());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
            self.stream.sock.write_all(piece).unwrap();
            thread::yield_now();
            rest = more;
        }
    }

    /// Says that nothing more is sent, and goes on reading.
    pub fn finish(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
    }

    /// Ends our side of the connection below TLS, which says nothing.
    pub fn cut_off(&mut self) {
        self.stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    }

    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        loop {
            if let Some(reply) = Reply::parse(&self.received) {
                let (response, len) = (Response::of(&reply), reply.len());
                self.received.drain(..len);
                return response;
            }
            let mut space = [0; 16 << 10];
            match self.stream.read(&mut space) {
                Ok(len @ 1..) => self.received.extend_from_slice(&space[..len]),
                end => panic!("the connection ended before a reply: {end:?}"),
            }
        }
    }

    /// Waits for the end of the connection. True if the server has said with a close_notify that it is the
    /// end, and sent nothing before.
    pub fn ends_cleanly(&mut self) -> bool {
        self.received.is_empty() && matches!(self.stream.read(&mut [0]), Ok(0))
    }

    pub fn version(&self) -> Option<ProtocolVersion> {
        self.stream.conn.protocol_version()
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}
