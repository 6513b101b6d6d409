//! The real parts that the tests work with: ClickHouse, the server's binary, a raw HTTP client.
//!
//! Every wait is bounded and panics with the log of whom it waited for.

mod browser;
mod calls;
mod clickhouse;
mod cluster;
#[allow(dead_code, reason = "the benchmarks use the rest")]
pub mod columns;
mod devtools;
mod disk;
mod engine;
mod folder;
mod forwarder;
mod http;
mod load;
mod matrix;
mod promises;
pub mod proxy;
mod random;
mod server;
#[cfg(feature = "tls")]
mod tls;
mod zookeeper;

use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use browser::{Browser, Pages};
pub use calls::FailingCalls;
pub use clickhouse::{ClickHouse, shared_clickhouse};
pub use cluster::{COLUMNS, Cluster};
pub use devtools::Tab;
pub use disk::SmallDisk;
pub use engine::Engine;
pub use folder::Folder;
pub use forwarder::Forwarder;
pub use http::{Connection, Response, get, post, post_with};
pub use load::request;
pub use matrix::Variant;
pub(crate) use matrix::{each_engine, each_insert, each_insert_and_engine};
pub use promises::{Client, Counts, Load};
pub use random::{Random, seed};
pub use server::Server;
#[cfg(feature = "tls")]
pub use tls::{Authority, TlsConnection, VERSIONS};
pub use zookeeper::ZooKeeper;

/// The longest that anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ports that the kernel gives to nobody by itself. One of its own choice could go to a client's
/// side of some connection while the server that has it is killed and started again; a client
/// that tries to connect meanwhile could even be connected to itself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that was free a moment ago, and that no other test of this process was given: a server takes a
/// while to listen on it.
pub fn free_address() -> SocketAddr {
    static GIVEN: OnceLock<AtomicU64> = OnceLock::new();
    let given = GIVEN.get_or_init(|| AtomicU64::new(Random::new(random::fresh(), 0).below(PORTS.len() as u64)));
    let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    let ports = std::iter::repeat_with(|| PORTS.start + (given.fetch_add(1, Relaxed) % PORTS.len() as u64) as u16);
    let mut addresses = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    addresses.find(is_free).expect("a free port")
}

/// Looks again and again until `look` finds something; panics with `otherwise` when it does not.
pub fn wait_for<T>(otherwise: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the binary to its end, or kills it after [`PATIENCE`]: exit status, standard output, standard error.
pub fn run(arguments: &[&str]) -> (bool, String, String) {
    let mut command = std::process::Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", &PATIENCE.as_secs().to_string(), env!("CARGO_BIN_EXE_sluicegate")]);
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
