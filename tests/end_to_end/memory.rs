//! What connections cost in memory, idle and busy.

use crate::support::{Connection, Server, request, shared_clickhouse, wait_for};

const TARGET: &str = "/api/events";
const EVENTS: &[u8] = include_bytes!("../../bench/corpus/events-30.ndjson");

#[test]
fn an_idle_connection_costs_less_than_two_kilobytes_and_a_busy_one_no_more_than_its_request() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let request = request(TARGET, "", EVENTS);
    let connections = |count: usize| -> Vec<Connection> {
        let opened: Vec<_> = (0..count).map(|_| Connection::open(server.address())).collect();
        wait_for(
            || format!("{count} connections are not open:\n{}", server.log()),
            || (server.metrics()["sluicegate_connections"] == count as f64).then_some(()),
        );
        opened
    };
    // Buffers and batches have grown to what they need.
    let mut warm = connections(50);
    for _ in 0..20 {
        exchange(&mut warm, &request);
    }
    drop(warm);
    let before = server.memory("RssAnon");
    let mut idle = connections(2000);
    // Not fresh ones: each has had a request.
    idle.chunks_mut(50).for_each(|some| exchange(some, &request));
    let each = server.memory("RssAnon").saturating_sub(before) / idle.len() as u64;
    assert!(each <= 2048, "{each} bytes for an idle connection");
    drop(idle);
    let mut busy = connections(500);
    for _ in 0..10 {
        exchange(&mut busy, &request);
    }
    let resident = server.memory("VmHWM") >> 20;
    assert!(resident < 100, "{resident} MiB with 500 busy connections");
    assert!(server.stop().success());
}

/// Bytes that may be in flight, and what the server may have resident besides: its code, and what
/// `limits.rs` adds up for two workers.
const IN_FLIGHT: u64 = 64 << 20;
const BESIDE: u64 = 64 << 20;

/// What it may have resident when it rests: 25 to 35 MiB where this was measured, and 70 when the allocator
/// keeps what is freed.
const RESTING: u64 = 48 << 20;

#[test]
fn large_bodies_on_many_connections_stay_within_the_budget_and_their_memory_goes_back() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let flags = ["--in-flight-bytes-max", "64MiB", "--workers", "2", "--durability", "written"];
    let server = Server::start(clickhouse, &database, &flags);
    let line = format!("{{\"event\":\"large\",\"param_str\":\"{}\"}}\n", "x".repeat(400));
    let lengths = [100, 1_000, 4_000, 12_000].map(|kilobytes| line.repeat(kilobytes * 1_000 / line.len()));
    let bodies = lengths.map(|body| request(TARGET, "", body.as_bytes()));
    std::thread::scope(|scope| {
        for client in 0..200 {
            let (server, bodies) = (&server, &bodies);
            scope.spawn(move || {
                for round in 0..3 {
                    let request = &bodies[(client + round) % bodies.len()];
                    let (front, back) = request.split_at(request.len() - 100);
                    let mut connection = Connection::open(server.address());
                    // What the budget has no room for is answered 503, or reset while it is sent.
                    if connection.try_send(front) && connection.try_send(back) {
                        let _ = connection.try_read_response();
                    }
                }
            });
        }
    });
    let most = server.memory("VmHWM");
    assert!(most < IN_FLIGHT + BESIDE, "{} MiB at most", most >> 20);
    server.wait_until_nothing_is_in_flight();
    wait_for(
        || format!("{} MiB stay resident", server.memory("RssAnon") >> 20),
        || (server.memory("RssAnon") < RESTING).then_some(()),
    );
    assert!(server.stop().success());
}

/// A request on each connection, all under way at once.
fn exchange(connections: &mut [Connection], request: &[u8]) {
    for connection in &mut *connections {
        connection.send(request);
    }
    for connection in connections {
        let reply = connection.read_response();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}
