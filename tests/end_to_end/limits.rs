//! What one client can't take from the others: the budget, connections, descriptors, memory, the admin
//! address, the log.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{ClickHouse, Connection, PATIENCE, Server, get, post, request, shared_clickhouse, wait_for};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

const TARGET: &str = "/api/events";
const EVENT: &[u8] = b"{\"event\":\"a\"}";

/// A connection of a client at this address of the loopback.
fn connect_from(client: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(client), 0).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn status(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

#[test]
fn bodies_that_drip_take_no_budget_from_other_clients_nor_from_small_requests() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let flags = ["--in-flight-bytes-max", "20MiB", "--body-bytes-max", "2MiB"];
    let server = Server::start(clickhouse, &database, &flags);
    // The start of a large body takes a buffer of 32 KiB: with enough of them no such buffer is left.
    let large = request(TARGET, "", &[b'\n'; 2 << 20]);
    let start = &large[..10_000];
    // From three addresses, since one alone may take no more than half.
    let mut dripping: Vec<TcpStream> = Vec::new();
    for number in 0..900 {
        let mut stream = connect_from([127, 0, 0, 1 + (number / 300) as u8], server.address());
        // Those that the budget refuses are closed.
        let _ = stream.write_all(start);
        dripping.push(stream);
    }
    let in_flight = || server.metrics()["sluicegate_in_flight_bytes"];
    wait_for(|| format!("the budget is not taken: {}", in_flight()), || (in_flight() > 14.5 * 1e6).then_some(()));
    for number in 0..100u8 {
        let mut stream = connect_from([127, 0, 1, number], server.address());
        let request = request(TARGET, "", EVENT);
        let (front, back) = request.split_at(request.len() - 5);
        stream.write_all(front).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        stream.write_all(back).unwrap();
        assert_eq!(status(&mut stream), 200, "request {number}");
    }
    drop(dripping);
    assert!(server.stop().success());
}

#[test]
fn repeats_that_are_taken_out_of_a_batch_take_nothing_from_the_budget_for_good() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let flags = ["--dedup-field", "session", "--in-flight-bytes-max", "20MiB"];
    let server = Server::start(clickhouse, &database, &flags);
    let line = |number: u32| format!("{{\"session\":\"s{number}\",\"param_str\":\"{}\"}}\n", "x".repeat(500));
    let body: String = (0..500).map(line).collect();
    for _ in 0..20 {
        assert_eq!(post(server.address(), TARGET, body.as_bytes()).status, 200);
    }
    assert!(server.metrics()["sluicegate_events_duplicates_total"] > 9_000.0);
    // Says so when something stays.
    assert!(server.stop().success());
}

#[test]
fn with_few_descriptors_idle_connections_make_way_and_events_are_taken() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start_after("ulimit -n 400", clickhouse, &database, &[]);
    assert!(server.log().contains("--connections-max is"), "{}", server.log());
    let idle: Vec<Option<Connection>> = (0..800).map(|_| Connection::try_open(server.address())).collect();
    // A worker without an idle connection of its own refuses one, or closes it, until those of the others have made way.
    let take = || {
        let mut connection = Connection::try_open(server.address())?;
        connection.try_send(&request(TARGET, "", EVENT));
        connection.try_read_response().filter(|response| response.status == 200)
    };
    for _ in 0..50 {
        wait_for(|| server.log(), take);
        assert_eq!(server.admin_get("/readyz").status, 200);
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 50);
    assert!(!server.log().contains("refused a write"), "{}", server.log());
    drop(idle);
    assert!(server.stop().success());
}

#[test]
fn the_soft_limit_of_open_files_is_raised_at_the_start() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start_after("ulimit -S -n 256", clickhouse, &database, &["--connections-max", "500"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = files.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert!(numbers[0] == numbers[1] && !server.log().contains("--connections-max is"), "{files}\n{}", server.log());
    assert!(server.stop().success());
}

#[test]
fn liveness_is_answered_whatever_hangs_on_the_admin_address() {
    let clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &[]);
    let slow: Vec<Connection> = (0..200)
        .filter_map(|_| Connection::try_open(server.admin_address()))
        .map(|mut connection| {
            connection.try_send(b"GET /live");
            connection
        })
        .collect();
    // Pages that wait for a ClickHouse that hangs.
    clickhouse.pause();
    let waiting: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::open(server.admin_address());
            connection.send(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
            connection
        })
        .collect();
    for _ in 0..20 {
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(get(server.admin_address(), path).status, 200, "{path}");
        }
    }
    clickhouse.resume();
    drop((slow, waiting));
    assert!(server.stop().success());
}

#[test]
fn a_reader_of_the_log_that_hangs_stops_neither_inserts_nor_the_stop() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start_to_a_deaf_reader(clickhouse, &database, &["--log-level", "trace"]);
    for _ in 0..100 {
        let reply = post(server.address(), TARGET, EVENT);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 100);
    assert!(server.stop().success());
}

#[test]
fn a_hang_up_ends_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &[]);
    server.signal(Signal::HUP);
    wait_for(|| server.log(), || server.log().contains("SIGHUP").then_some(()));
    assert_eq!(post(server.address(), TARGET, EVENT).status, 200);
    server.assert_runs();
    assert!(server.stop().success());
}

#[test]
fn one_address_too_many_to_listen_on_is_an_error_with_the_number_that_may_be() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let addresses: Vec<String> = (0..65).map(|_| crate::support::free_address().to_string()).collect();
    let (status, log) = Server::expect_failure(clickhouse, &database, &["--listen", &addresses.join(",")]);
    assert!(!status.success() && log.contains("--listen") && log.contains("64"), "{log}");
}

#[test]
fn workers_are_pinned_where_each_has_a_core_and_else_not() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let cores = std::thread::available_parallelism().unwrap().get();
    let pinned = |workers: usize, pin: &str| {
        let workers = workers.to_string();
        let server = Server::start(clickhouse, &database, &["--workers", &workers, "--pin", pin]);
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
        let of_workers = tasks
            .map(|task| task.unwrap().path())
            .filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("worker-")));
        let masks = of_workers.map(|task| {
            let status = std::fs::read_to_string(task.join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
            line.trim().to_owned()
        });
        let mut masks: Vec<String> = masks.collect();
        masks.sort();
        masks.dedup();
        masks
    };
    let is_one_core = |mask: &String| mask.parse::<u32>().is_ok();
    let each = pinned(cores, "auto");
    assert!(each.len() == cores && each.iter().all(is_one_core), "{each:?}");
    if cores > 1 {
        assert!(!pinned(1, "auto").iter().any(is_one_core));
        assert!(!pinned(cores + 1, "auto").iter().any(is_one_core));
        assert!(!pinned(cores, "false").iter().any(is_one_core));
    }
    assert!(pinned(1, "true").iter().all(is_one_core));
}

#[test]
fn a_reply_does_not_repeat_the_name_of_a_huge_type() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let elements: Vec<String> = (0..5000).map(|number| format!("'element number {number}' = {number}")).collect();
    clickhouse.query(&format!("CREATE DATABASE IF NOT EXISTS {database}"));
    clickhouse.query(&format!(
        "CREATE TABLE {database}.huge (e Enum16({})) ENGINE = MergeTree ORDER BY tuple() \
         SETTINGS non_replicated_deduplication_window = 1000",
        elements.join(", ")
    ));
    let server = Server::start(clickhouse, &database, &["--table", "huge"]);
    let reply = post(server.address(), TARGET, "{\"e\":\"none\"}\n".repeat(100).as_bytes());
    assert!(reply.status == 422 && reply.body.len() < 40_000, "{} with {} bytes", reply.status, reply.body.len());
    assert!(server.stop().success());
}
