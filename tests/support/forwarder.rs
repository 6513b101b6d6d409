//! A TCP forwarder before ClickHouse that loses answers, or asks for another database than it was
//! asked for.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Forwards until the test's process ends.
pub struct Forwarder {
    address: SocketAddr,
    loses_answers: Arc<AtomicBool>,
}

impl Forwarder {
    /// Forwards to `url`; every `from` in what is sent there becomes `to`, which is as long.
    pub fn new(url: &str, from: &str, to: &str) -> Self {
        assert_eq!(from.len(), to.len());
        let upstream: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let loses_answers = Arc::new(AtomicBool::new(false));
        let (names, loses) = ((from.to_owned(), to.to_owned()), loses_answers.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                serve(client, server, names.clone(), loses.clone());
            }
        });
        Self { address, loses_answers }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, answers of inserts are lost after ClickHouse has given them; or no more.
    pub fn lose_answers(&self, lose: bool) {
        self.loses_answers.store(lose, Ordering::SeqCst);
    }
}

fn serve(client: TcpStream, server: TcpStream, names: (String, String), loses: Arc<AtomicBool>) {
    let inserts = Arc::new(AtomicBool::new(false));
    let seen = inserts.clone();
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        copy(from_client, to_server, |bytes| {
            if contains(bytes, b"INSERT").is_some() {
                seen.store(true, Ordering::SeqCst);
            }
            while names.0 != names.1
                && let Some(at) = contains(bytes, names.0.as_bytes())
            {
                bytes[at..at + names.1.len()].copy_from_slice(names.1.as_bytes());
            }
            true
        });
    });
    thread::spawn(move || {
        copy(server, client, |_| !(inserts.load(Ordering::SeqCst) && loses.load(Ordering::SeqCst)));
    });
}

/// Copies until one side ends or `goes_on` says no; then ends both.
fn copy(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(&mut [u8]) -> bool) {
    let mut space = [0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut space) {
        if !goes_on(&mut space[..len]) || to.write_all(&space[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn contains(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
