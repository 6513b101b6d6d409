//! The server as a service of systemd, whose part the test plays: it passes a listening socket, and listens to
//! what it is told.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{ClickHouse, Connection, Folder, PATIENCE, Server, post, shared_clickhouse, wait_for};

const HEAD: &str = "POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n";
const EVENT: &[u8] = b"{\"event\":\"a\"}\n";

/// Where the server tells systemd what it does.
struct Notified {
    socket: UnixDatagram,
    path: String,
    _folder: Folder,
}

impl Notified {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path: path.to_string_lossy().into_owned(), _folder: folder }
    }

    /// Reads until a line begins like this, and returns the rest of it.
    fn wait_for(&self, begin: &str) -> String {
        loop {
            let mut space = [0; 4096];
            let len = self.socket.recv(&mut space).unwrap_or_else(|error| panic!("{begin} is not said: {error}"));
            let text = String::from_utf8_lossy(&space[..len]).into_owned();
            if let Some(rest) = text.lines().find_map(|line| line.strip_prefix(begin)) {
                return rest.to_owned();
            }
        }
    }
}

fn socket() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn systemd_is_told_of_each_phase_and_that_the_server_is_alive() {
    let (clickhouse, notified) = (shared_clickhouse(), Notified::new());
    let environment = [("NOTIFY_SOCKET", notified.path.as_str()), ("WATCHDOG_USEC", "400000")];
    let server = Server::start_at(socket(), clickhouse, &clickhouse.database(), &[], &environment);
    notified.wait_for("READY=1");
    assert!(notified.wait_for("STATUS=taking events").contains("wait for ClickHouse"));
    notified.wait_for("WATCHDOG=1");
    assert_eq!(post(server.address(), "/api/events", EVENT).status, 200);
    server.signal(Signal::HUP);
    notified.wait_for("RELOADING=1");
    notified.wait_for("READY=1");
    let stopping = server.begin_stop();
    notified.wait_for("STOPPING=1");
    assert!(stopping.wait().success());
}

#[test]
fn after_sigterm_events_are_taken_for_the_delay_while_the_server_is_not_ready() {
    let clickhouse = shared_clickhouse();
    let mut server = Server::start(clickhouse, &clickhouse.database(), &["--shutdown-delay", "1h"]);
    server.signal(Signal::TERM);
    wait_for(|| server.log(), || (server.admin_get("/readyz").status == 503).then_some(()));
    assert!(server.admin_get("/readyz").text().contains("stopping"));
    assert_eq!(post(server.address(), "/api/events", EVENT).status, 200);
    server.assert_runs();
    // The second signal ends it at once.
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_end().code(), Some(130));
    let mut server = Server::start(clickhouse, &clickhouse.database(), &["--shutdown-delay", "300ms"]);
    server.signal(Signal::TERM);
    assert!(server.wait_for_end().success());
    assert!(server.log().contains("every event is in ClickHouse"), "{}", server.log());
}

/// Restarts it under the load of clients that keep their connections, and of some that open one for each request.
/// Every request is answered with 200. Returns the server and the number of events.
fn restart_under_load(mut server: Server, restarts: u32) -> (Server, u64) {
    const KEPT: usize = 56;
    const OPENED: usize = 8;
    // A stop closes connections on which nothing comes for half a second.
    const IDLE: Duration = Duration::from_millis(400);
    let (address, is_over, sent) = (server.address(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..KEPT + OPENED)
        .map(|index| {
            let (is_over, sent) = (is_over.clone(), sent.clone());
            thread::spawn(move || {
                let (mut client, mut longest, mut replied) = (None, Duration::ZERO, Instant::now());
                while !is_over.load(Relaxed) {
                    let begun = Instant::now();
                    let kept = client.get_or_insert_with(|| Connection::open(address));
                    let pause = replied.elapsed();
                    let sent_whole = kept.try_send(&[HEAD.as_bytes(), EVENT].concat());
                    let reply = if sent_whole { kept.try_read_response() } else { None };
                    let Some(reply) = reply else {
                        // A client that the machine has held up for so long was idle, and its connection may end.
                        assert!(pause > IDLE, "a request fails after a pause of {pause:?}");
                        client = None;
                        continue;
                    };
                    replied = Instant::now();
                    longest = longest.max(begun.elapsed());
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    sent.fetch_add(1, Relaxed);
                    if index >= KEPT || reply.header("connection").is_some_and(|value| value == "close") {
                        client = None;
                    }
                    // 2,000 requests a second of all.
                    thread::sleep(Duration::from_millis(32).saturating_sub(begun.elapsed()));
                }
                longest
            })
        })
        .collect();
    let wait_for_more = |server: &Server| {
        let before = sent.load(Relaxed);
        wait_for(|| server.log(), || (sent.load(Relaxed) > before + 500).then_some(()));
    };
    for _ in 0..restarts {
        wait_for_more(&server);
        server.signal(Signal::TERM);
        assert!(server.wait_for_end().success());
        server = server.start_again_unready();
    }
    wait_for_more(&server);
    is_over.store(true, Relaxed);
    let longest = clients.into_iter().map(|client| client.join().unwrap()).max();
    eprintln!("{} requests over {restarts} restarts, the longest took {longest:?}", sent.load(Relaxed));
    (server, sent.load(Relaxed))
}

#[test]
fn no_request_fails_while_the_server_is_restarted_under_load() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start_at(socket(), clickhouse, &database, &["--workers", "2"], &[]);
    let (server, sent) = restart_under_load(server, 3);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), sent);
}

#[test]
fn no_request_fails_while_the_server_is_restarted_under_load_and_clickhouse_is_away() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start_at(socket(), &clickhouse, &database, &["--workers", "2"], &[]);
    clickhouse.kill();
    let (server, sent) = restart_under_load(server, 3);
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), sent);
}
