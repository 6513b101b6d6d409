//! A TCP forwarder before ClickHouse or ZooKeeper that loses answers, asks for another database than it
//! was asked for, or is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Forwards until the test's process ends.
pub struct Forwarder {
    address: SocketAddr,
    loses_answers: Arc<AtomicBool>,
    /// The connections so far, and whether new ones are refused.
    cut: Arc<Mutex<(Vec<TcpStream>, bool)>>,
}

impl Forwarder {
    /// Forwards to `url`; every `from` in what is sent there becomes `to`, which is as long.
    pub fn new(url: &str, from: &str, to: &str) -> Self {
        assert_eq!(from.len(), to.len());
        let upstream: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let loses_answers = Arc::new(AtomicBool::new(false));
        let cut = Arc::new(Mutex::new((Vec::new(), false)));
        let (names, loses, is_cut) = ((from.to_owned(), to.to_owned()), loses_answers.clone(), cut.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut cut = is_cut.lock().unwrap();
                if cut.1 {
                    continue;
                }
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                cut.0.push(server.try_clone().unwrap());
                drop(cut);
                serve(client, server, names.clone(), loses.clone());
            }
        });
        Self { address, loses_answers, cut }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and lets no other be made; or lets them be made again.
    pub fn cut(&self, cut: bool) {
        let mut guard = self.cut.lock().unwrap();
        guard.1 = cut;
        for stream in guard.0.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
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
