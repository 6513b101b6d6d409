//! The log during an outage: a line a change, however many blocks wait.

use crate::support::{ClickHouse, Server, post, shared_clickhouse, wait_for};

const EVENT: &[u8] = b"{\"event\":\"a\"}";

fn lines(server: &Server, message: &str) -> usize {
    server.log().lines().filter(|line| line.contains(message)).count()
}

#[test]
fn an_outage_and_a_broken_table_are_a_few_lines_however_many_blocks_wait() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &["--batch-rows", "1", "--log-level", "info"]);
    let send = |events: u32| {
        for _ in 0..events {
            assert_eq!(post(server.address(), "/api/events", EVENT).status, 200);
        }
    };
    let attempts = |outcome: &str| {
        let series = format!("sluicegate_inserts_total{{table=\"events\",outcome=\"{outcome}\"}}");
        server.metrics().get(&series).copied().unwrap_or(0.0)
    };
    clickhouse.kill();
    send(40);
    wait_for(|| server.log(), || (attempts("retry") >= 60.0).then_some(()));
    let said = lines(&server, "an INSERT failed and will be retried");
    assert!((1..=6).contains(&said), "{said} lines:\n{}", server.log());
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 40);
    wait_for(|| server.log(), || server.log().contains("get through again").then_some(()));

    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    send(40);
    wait_for(|| server.log(), || (server.metrics()["sluicegate_blocks_held"] >= 40.0).then_some(()));
    let said = lines(&server, "a block is held and needs operator action");
    assert!((1..=4).contains(&said), "{said} lines:\n{}", server.log());
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 80);
    // Once after each; an attempt under way may fail behind the first that gets through.
    let said = lines(&server, "get through again");
    assert!((2..=4).contains(&said), "{said} lines:\n{}", server.log());
    assert!(server.stop().success());
}

#[test]
fn the_level_trace_tells_of_each_commit() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--log-level", "trace", "--log-format", "json"]);
    for _ in 0..3 {
        assert_eq!(post(server.address(), "/api/events", EVENT).status, 200);
    }
    let commits = wait_for(
        || server.log(),
        || {
            let log = server.log();
            let said = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let commits: Vec<_> = said.filter(|line| line["message"] == "committed").collect();
            (commits.len() == 3).then_some(commits)
        },
    );
    for commit in commits {
        let (seconds, bytes) = (commit["seconds"].as_f64().unwrap(), commit["bytes"].as_u64().unwrap());
        assert!(commit["frames"] == 1 && seconds > 0.0 && bytes > EVENT.len() as u64, "{commit}");
    }
    // What libraries say of their own steps is not in it, as mio does of each socket.
    assert!(!server.log().contains("event source"), "{}", server.log());
    assert!(server.stop().success());
}
