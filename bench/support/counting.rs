//! Passes bytes to ClickHouse and back, and counts those on their way to it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

/// Serves until the process ends.
pub struct Counting {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Counting {
    /// In front of a server.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, bytes) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counter = bytes.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counter = counter.clone();
                // A connection that ends is no error here.
                thread::spawn(move || pass_both(client, server, &counter).ok());
            }
        });
        Ok(Self { address, bytes })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What went to the server so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

fn pass_both(client: TcpStream, server: SocketAddr, counter: &AtomicU64) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || pass(from_server, to_client, &AtomicU64::new(0)).ok());
    pass(client, server, counter)
}

fn pass(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) -> io::Result<()> {
    let mut space = vec![0; 256 << 10];
    loop {
        let len = from.read(&mut space)?;
        if len == 0 {
            return to.shutdown(Shutdown::Write);
        }
        counter.fetch_add(len as u64, Relaxed);
        to.write_all(space.get(..len).unwrap_or_default())?;
    }
}
