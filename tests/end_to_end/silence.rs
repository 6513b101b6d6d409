//! A ClickHouse that accepts connections and never answers does not stop the delivery of other events.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;

use crate::support::proxy::{Fault, Proxy, Reaches, Then};
use crate::support::{ClickHouse, Server, post, run, shared_clickhouse, wait_for};

const TWO_PLACES: [&str; 6] = ["--inserters", "2", "--insert-timeout", "1h", "--batch-age", "20ms"];

fn silence(reaches: Reaches) -> Fault {
    Fault { name: "silence", reaches, then: Then::Silence, outcome: "retry" }
}

fn send(server: &Server, event: &str) {
    assert_eq!(post(server.address(), "/api/events", format!("{{\"event\":\"{event}\"}}\n").as_bytes()).status, 200);
}

/// Two events, each in an INSERT of its own that gets no answer: as many as there are places.
fn fall_silent_twice(server: &Server, proxy: &Proxy) {
    for inserts in 1..=2 {
        send(server, "silent");
        wait_for(|| server.log(), || (proxy.inflicted() == inserts).then_some(()));
    }
}

/// True if a connection to `peer` has a keepalive timer, for every connection that has one of the
/// kernel's timers at all (proc(5), `/proc/net/tcp`: 2 is keepalive, 1 is a retransmission).
fn is_kept_alive(peer: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    let SocketAddr::V4(peer) = peer else { panic!("{peer}") };
    let peer = format!("{:08X}:{:04X}", u32::from_ne_bytes(peer.ip().octets()), peer.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let timers: Vec<_> = rows
        .filter(|row| row[2] == peer && row[3] == ESTABLISHED)
        .map(|row| row[5].split(':').next().unwrap().to_owned())
        .collect();
    timers.len() >= 2 && timers.iter().all(|timer| timer == "02")
}

/// `TCP_USER_TIMEOUT` of each connection of the server to `peer`: after that time without an
/// acknowledgement of what was sent the kernel gives a connection up (tcp(7)).
fn user_timeouts(server: &Server, peer: SocketAddr) -> Vec<Option<Duration>> {
    let process = pidfd_open(Pid::from_raw(server.id().try_into().unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
    let numbers = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // One may be closed meanwhile.
    let descriptors = numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
    let is_to_peer = |socket: &SockRef<'_>| socket.peer_addr().is_ok_and(|address| address.as_socket() == Some(peer));
    let timeout = |socket: SockRef<'_>| is_to_peer(&socket).then(|| socket.tcp_user_timeout().unwrap());
    descriptors.filter_map(|descriptor| timeout(SockRef::from(&descriptor))).collect()
}

#[test]
fn silent_inserts_give_up_their_places_to_others_and_are_repeated_once() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Proxy::start(clickhouse);
    let url = proxy.url();
    let flags = [&["--clickhouse-url", &url][..], &TWO_PLACES].concat();
    let mut server = Server::start(clickhouse, &database, &flags);
    proxy.inflict([silence(Reaches::Nothing), silence(Reaches::Whole)]);
    fall_silent_twice(&server, &proxy);
    // A host that is dead, rather than silent, is found out by the kernel.
    wait_for(|| "a silent connection has no keepalive".to_owned(), || is_kept_alive(proxy.address()).then_some(()));
    let timeouts = user_timeouts(&server, proxy.address());
    assert!(timeouts.len() >= 2, "of both INSERTs: {timeouts:?}");
    assert!(timeouts.iter().all(|timeout| *timeout == Some(Duration::from_secs(20))), "{timeouts:?}");
    let stored = format!("{database}.events WHERE event = 'later'");
    for later in 1..=3 {
        send(&server, "later");
        server.wait_for_rows(clickhouse, &stored, later);
    }
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let (_, listed, _) = run(&["spool", "list", "--spool-dir", &spool, "--table", "events"]);
    assert_eq!(listed.matches("sent, not proven").count(), 2, "{listed}");
    server.kill9();
    let server = server.start_again();
    server.wait_until_drained();
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "5");
    assert!(server.stop().success());
}

#[test]
fn events_go_to_another_server_while_one_is_silent() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Proxy::start(clickhouse);
    let (silent, other) = (proxy.url(), clickhouse.url());
    let flags = [&["--clickhouse-url", &silent, "--clickhouse-url", &other][..], &TWO_PLACES].concat();
    let server = Server::start(clickhouse, &database, &flags);
    proxy.inflict(std::iter::repeat_n(silence(Reaches::Nothing), 100));
    fall_silent_twice(&server, &proxy);
    // More than there are places and spare ones.
    for later in 1..=4 {
        send(&server, "later");
        server.wait_for_rows(clickhouse, &format!("{database}.events"), later);
    }
}

#[test]
fn a_drain_gives_up_what_is_silent_inserts_the_rest_and_says_what_is_left() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Proxy::start(clickhouse);
    let url = proxy.url();
    let mut server = Server::start(clickhouse, &database, &[&["--clickhouse-url", &url][..], &TWO_PLACES].concat());
    proxy.inflict(std::iter::repeat_n(silence(Reaches::Nothing), 2));
    fall_silent_twice(&server, &proxy);
    server.kill9();
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let settings = ["--spool-dir", &spool, "--clickhouse-url", &url, "--database", &database];
    let drain = || run(&[&["drain", "--log-format", "json", "--insert-timeout", "1h"][..], &settings].concat());
    let stored = || clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim().to_owned();
    // One of the two is silent: the other one takes its place.
    proxy.inflict([silence(Reaches::Whole)]);
    let (succeeded, _, log) = drain();
    assert!(!succeeded && log.contains("does not answer (1 INSERTs") && log.contains("; 1 events and"), "{log}");
    assert_eq!(stored(), "2", "one of them unanswered");
    let (succeeded, _, log) = drain();
    assert!(succeeded && log.contains("the spool is empty"), "{log}");
    assert_eq!(stored(), "2");
}

#[test]
fn a_clickhouse_that_is_stopped_and_goes_on_gets_everything_once() {
    let clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &["--batch-age", "20ms", "--insert-timeout", "500ms"]);
    send(&server, "before");
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 1);
    clickhouse.pause();
    for _ in 0..5 {
        send(&server, "meanwhile");
    }
    // These are in ClickHouse's socket when it goes on, and are sent again.
    let retries = || server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"];
    wait_for(|| server.log(), || (retries() >= 1.0).then_some(()));
    clickhouse.resume();
    server.wait_until_drained();
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "6");
    assert!(server.stop().success());
}
