//! `ack=inserted`: 200 when ClickHouse has the events, 202 when it has them not yet.

use std::thread;

use crate::support::{ClickHouse, Connection, Server, Variant, each_engine, post, shared_clickhouse};

const TARGET: &str = "/api/events?ack=inserted";

each_engine!(a_200_means_that_clickhouse_has_the_events, a_202_says_that_it_waits_here_and_no_thread_is_held,);

fn a_200_means_that_clickhouse_has_the_events(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &variant.and(&["--batch-age", "50ms"]));
    // Several at once, over more workers than one, and one of them with a bad line.
    thread::scope(|scope| {
        for client in 0..8 {
            let (server, database) = (&server, &database);
            scope.spawn(move || {
                for request in 0..5 {
                    let body = format!("{{\"event\":\"c{client}\",\"sequence\":{request}}}\nbad");
                    let reply = post(server.address(), TARGET, body.as_bytes());
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    assert!(!reply.text().contains("inserted"), "{}", reply.text());
                    let count = clickhouse.query(&format!(
                        "SELECT count() FROM {database}.events WHERE event = 'c{client}' AND sequence = {request}"
                    ));
                    assert_eq!(count.trim(), "1");
                }
            });
        }
    });
    assert_eq!(post(server.address(), TARGET, b"").status, 200);
    assert_eq!(post(server.address(), TARGET, b"bad").status, 422);
    assert_eq!(post(server.address(), "/api/events?ack=inserted&dry_run=1", b"{}").status, 200);
    assert_eq!(post(server.address(), "/api/events?ack=soon", b"{}").status, 400);
    assert!(server.stop().success());
}

fn a_202_says_that_it_waits_here_and_no_thread_is_held(variant: Variant) {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    // Too short for an insert on a busy machine.
    let short = [("SLUICEGATE_INSERTED_TIMEOUT", "1s")];
    let flags = variant.and(&["--workers", "1"]);
    let server = Server::start_with_environment(&clickhouse, &database, &flags, &short);
    clickhouse.kill();
    let body = "{\"event\":\"a\"}\nbad";
    let request = format!("POST {TARGET} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut waiting: Vec<Connection> = (0..50).map(|_| Connection::open(server.address())).collect();
    for connection in &mut waiting {
        connection.send(request.as_bytes());
    }
    // The only worker goes on while fifty wait.
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"b\"}").status, 200);
    for connection in &mut waiting {
        let reply = connection.read_response();
        assert_eq!(reply.status, 202);
        let text = reply.text();
        assert!(text.starts_with("{\"accepted\":1,\"rejected\":1,\"errors\":["), "{text}");
        assert!(text.ends_with("],\"inserted\":false}"), "{text}");
    }
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 51);
    let server = server.restart_with_environment(&[("SLUICEGATE_INSERTED_TIMEOUT", "60s")]);
    assert_eq!(post(server.address(), TARGET, b"{\"event\":\"c\"}").status, 200);
    assert!(server.stop().success());
}
