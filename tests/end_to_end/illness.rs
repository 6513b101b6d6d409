//! A start while ClickHouse is ill, behind a broken balancer or stopped: with known columns the server
//! serves, without them it waits; and both recover by themselves.

use crate::support::proxy::{Proxy, Then, refused, said};
use crate::support::{ClickHouse, Server, post, shared_clickhouse, wait_for};

fn illnesses() -> Vec<(&'static str, Then)> {
    let html = "Content-Type: text/html\r\n";
    vec![
        ("502", said("502 Bad Gateway", html, "<html>Bad Gateway</html>")),
        ("503", said("503 Service Unavailable", "Retry-After: 5\r\n", "")),
        ("504", said("504 Gateway Timeout", html, "<html>Gateway Timeout</html>")),
        ("429", said("429 Too Many Requests", "", "")),
        ("241", refused(241, "(total) memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)")),
        ("202", refused(202, "Too many simultaneous queries. Maximum: 100. (TOO_MANY_SIMULTANEOUS_QUERIES)")),
        ("201", refused(201, "Quota for user `default` for 3600s has been exceeded. (QUOTA_EXCEEDED)")),
        ("a maintenance page", said("200 OK", html, "<html>Back soon</html>")),
        ("an empty 200", said("200 OK", "", "")),
        ("an end", Then::Say(String::new())),
    ]
}

fn takes_an_event(server: &Server, name: &str) {
    let reply = post(server.address(), "/api/events", b"{\"event\":\"one\"}\n");
    assert_eq!(reply.status, 200, "{name}: {}", reply.text());
}

fn has_no_warning(server: &Server) -> Option<()> {
    server.admin_get("/readyz").text().contains("\"warnings\":[]").then_some(())
}

#[test]
fn with_known_columns_a_start_serves_while_clickhouse_is_ill_and_recovers_by_itself() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Proxy::start(clickhouse);
    let mut server = Server::start(clickhouse, &database, &["--clickhouse-url", &proxy.url()]);
    for (rows, (name, illness)) in (1..).zip(illnesses()) {
        server.kill9();
        proxy.fall_ill(illness);
        server = server.start_again();
        takes_an_event(&server, name);
        assert_eq!(server.log().matches("events are encoded for the last known columns").count(), rows, "{name}");
        proxy.recover();
        server.wait_for_rows(clickhouse, &format!("{database}.events"), rows as u64);
        server.wait_until_drained();
        wait_for(|| format!("{name}: {}", server.admin_get("/readyz").text()), || has_no_warning(&server));
    }
    assert!(server.stop().success());
}

#[test]
fn without_known_columns_a_start_waits_while_clickhouse_is_ill_and_recovers_by_itself() {
    let clickhouse = shared_clickhouse();
    let proxy = Proxy::start(clickhouse);
    for (name, illness) in illnesses() {
        let database = clickhouse.database();
        proxy.fall_ill(illness);
        let mut server = Server::start_unready(clickhouse, &database, &["--clickhouse-url", &proxy.url()]);
        wait_for(
            || format!("{name}: {}", server.log()),
            || server.log().contains("waiting for ClickHouse").then_some(()),
        );
        server.assert_runs();
        assert_eq!(server.admin_get("/readyz").status, 503, "{name}");
        assert_eq!(server.admin_get("/livez").status, 200, "{name}");
        proxy.recover();
        server.wait_until_ready();
        takes_an_event(&server, name);
        server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
        assert!(server.stop().success(), "{name}");
    }
}

#[test]
fn a_clickhouse_that_is_stopped_delays_no_start_with_known_columns_and_ends_none() {
    let clickhouse = ClickHouse::start();
    let (database, another) = (clickhouse.database(), clickhouse.database());
    let mut server = Server::start(&clickhouse, &database, &[]);
    server.kill9();
    clickhouse.pause();
    let server = server.start_again();
    let fresh = Server::start_unready(&clickhouse, &another, &[]);
    takes_an_event(&server, "SIGSTOP");
    assert_eq!(fresh.admin_get("/readyz").status, 503);
    clickhouse.resume();
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 1);
    fresh.wait_until_ready();
    takes_an_event(&fresh, "SIGSTOP");
    fresh.wait_for_rows(&clickhouse, &format!("{another}.events"), 1);
    for server in [server, fresh] {
        server.wait_until_drained();
        assert!(server.stop().success());
    }
}

#[test]
fn many_silent_servers_delay_a_start_with_known_columns_by_one_time_out() {
    // With a time-out for each it would take longer than this test waits.
    const SILENT: usize = 40;
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Proxy::start(clickhouse);
    let url = proxy.url();
    let flags: Vec<&str> = std::iter::repeat_n(["--clickhouse-url", url.as_str()], SILENT).flatten().collect();
    let mut server = Server::start(clickhouse, &database, &flags);
    server.kill9();
    proxy.fall_ill(Then::Silence);
    let server = server.start_again();
    takes_an_event(&server, "silence");
}
