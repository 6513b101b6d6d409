//! Several servers: which of them share a deduplication window, and what goes where because of it.
//! The replicated tables are real ones, coordinated by ClickHouse's own in-process Keeper for tests;
//! but `clickhouse local` never gives them the address that replicas need, so they stay read-only.

use crate::support::{ClickHouse, Forwarder, Server, Variant, each_insert, free_address, post, run, wait_for};

/// The engine reads a `config.xml` in the folder where it is started.
fn config() -> String {
    let port = free_address().port();
    format!(
        "<clickhouse>
           <zookeeper><implementation>testkeeper</implementation></zookeeper>
           <tcp_port>{port}</tcp_port>
           <remote_servers><here><shard><replica><host>127.0.0.1</host><port>{port}</port></replica></shard></here></remote_servers>
         </clickhouse>"
    )
}

const COLUMNS: &str = "event String, sequence Int64, server_time DateTime('UTC')";

/// Two databases with a replica each of one table.
fn replicas() -> ClickHouse {
    let clickhouse = ClickHouse::start_with_config(&config());
    for (database, replica) in [("replica_a", "a"), ("replica_b", "b")] {
        clickhouse.query(&format!("CREATE DATABASE {database}"));
        clickhouse.query(&format!(
            "CREATE TABLE {database}.events ({COLUMNS}) ENGINE = ReplicatedMergeTree('/tables/events', '{replica}') \
             ORDER BY event \
             SETTINGS replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 3600"
        ));
    }
    clickhouse
}

fn send(server: &Server, events: u64) {
    let body: String = (0..events).map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect();
    assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
}

fn count(clickhouse: &ClickHouse, table: &str) -> u64 {
    clickhouse.query(&format!("SELECT count() FROM {table}")).trim().parse().unwrap()
}

fn attempts(server: &Server, outcome: &str) -> f64 {
    server.metrics()[&format!("sluicegate_inserts_total{{table=\"events\",outcome=\"{outcome}\"}}")]
}

fn wait_for_attempts(server: &Server, outcome: &str, number: f64) {
    wait_for(
        || format!("{} attempts: {outcome}\n{}", attempts(server, outcome), server.log()),
        || (attempts(server, outcome) >= number).then_some(()),
    );
}

each_insert!(
    what_one_may_have_goes_to_another_that_shares_its_window,
    a_distributed_table_is_inserted_in_the_foreground_and_passes_the_token_on,
);

fn what_one_may_have_goes_to_another_that_shares_its_window(variant: Variant) {
    let clickhouse = ClickHouse::start();
    clickhouse.query("CREATE DATABASE shared");
    clickhouse.query(&format!(
        "CREATE TABLE shared.events ({COLUMNS}) ENGINE = MergeTree ORDER BY event \
         SETTINGS non_replicated_deduplication_window = 1000"
    ));
    // Two addresses of one server, which the embedded engine has no identity to tell by.
    let (identity, literal) = ("toString(serverUUID())", "'one-and-same-server-'");
    let first = Forwarder::new(&clickhouse.url(), identity, literal);
    let second = Forwarder::new(&clickhouse.url(), identity, literal);
    let urls = format!("{},{}", first.url(), second.url());
    let server = Server::start(&clickhouse, "shared", &variant.and(&["--clickhouse-url", &urls]));
    // For good: what the first may have can only be proven by the second.
    first.lose_answers(true);
    send(&server, 40);
    wait_for_attempts(&server, "done", 1.0);
    assert!(attempts(&server, "retry") >= 1.0, "the first one's answer was to be lost");
    wait_for(|| server.log(), || (server.metrics()["sluicegate_events_spooled"] == 0.0).then_some(()));
    assert_eq!(count(&clickhouse, "shared.events"), 40);
    assert!(server.stop().success());
}

#[test]
fn what_a_server_may_have_never_goes_to_one_with_a_window_of_its_own() {
    // As `ON CLUSTER` makes them: one UUID on both servers, and yet two tables.
    let (one, other) = (ClickHouse::start(), ClickHouse::start());
    for clickhouse in [&one, &other] {
        clickhouse.query("CREATE DATABASE apart");
        clickhouse.query(&format!(
            "CREATE TABLE apart.events UUID '11111111-2222-4333-8444-555555555555' ({COLUMNS}) ENGINE = MergeTree \
             ORDER BY event SETTINGS non_replicated_deduplication_window = 1000"
        ));
    }
    let first = Forwarder::new(&one.url(), "", "");
    let urls = format!("{},{}", first.url(), other.url());
    let server = Server::start(&one, "apart", &["--clickhouse-url", &urls]);
    first.lose_answers(true);
    send(&server, 40);
    wait_for_attempts(&server, "retry", 3.0);
    assert_eq!((count(&one, "apart.events"), count(&other, "apart.events")), (40, 0));
    first.lose_answers(false);
    wait_for_attempts(&server, "done", 1.0);
    assert_eq!((count(&one, "apart.events"), count(&other, "apart.events")), (40, 0));
    wait_for(|| server.log(), || server.log().contains("shares its deduplication window").then_some(()));
    assert!(server.stop().success());
}

#[test]
fn schema_prints_the_quarantine_that_serve_makes_on_each_replica() {
    let clickhouse = replicas();
    let second = Forwarder::new(&clickhouse.url(), "replica_a", "replica_b");
    let urls = format!("{},{}", clickhouse.url(), second.url());
    let (ok, statements, _) = run(&["schema", "--clickhouse-url", &urls, "--database", "replica_a"]);
    for engine in ["'/tables/events_quarantine', 'a'", "'/tables/events_quarantine', 'b'"] {
        let engine = format!("ENGINE = ReplicatedMergeTree({engine})");
        assert!(ok && statements.matches(&engine).count() == 1, "{engine}: {statements}");
    }
    assert!(statements.contains(&format!("-- {}/\n", second.url())), "{statements}");
    let (ok, statements, _) = run(&["schema", "--clickhouse-url", &clickhouse.url(), "--database", "replica_a"]);
    assert!(ok && !statements.contains("--") && statements.contains("ReplicatedMergeTree"), "{statements}");
}

#[test]
fn check_and_the_log_say_who_shares_a_window_and_that_a_quorum_is_missing() {
    let clickhouse = replicas();
    let first = Forwarder::new(&clickhouse.url(), "", "");
    let second = Forwarder::new(&clickhouse.url(), "replica_a", "replica_b");
    let other = ClickHouse::start();
    other.query("CREATE DATABASE replica_a");
    other.query(&format!("CREATE TABLE replica_a.events ({COLUMNS}) ENGINE = MergeTree ORDER BY event"));
    let urls = [first.url(), second.url(), other.url()];
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().to_string_lossy().into_owned();
    let urls_flag = urls.join(",");
    let arguments = [
        "check",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--clickhouse-url",
        &urls_flag,
        "--database",
        "replica_a",
        "--spool-dir",
        &spool,
        "--clickhouse-setting",
    ];
    let shared = format!("{}/ and {}/ share the deduplication window `default:/tables/events`", urls[0], urls[1]);
    let apart = format!("{}/ shares its deduplication window", urls[2]);
    let (ok, said, _) = run(&arguments[..arguments.len() - 1]);
    for part in [
        shared.as_str(),
        &apart,
        "engine: ReplicatedMergeTree",
        "replicas: 2",
        "quorum: one replica confirms an INSERT",
        "insert_quorum=2",
        "deduplication window: 1000 blocks, ",
        "MODIFY SETTING replicated_deduplication_window = 100000, replicated_deduplication_window_seconds = 100000",
    ] {
        assert!(ok && said.contains(part), "{part} is missing:\n{said}");
    }
    let (ok, said, _) = run(&[&arguments[..], &["insert_quorum=2"]].concat());
    assert!(ok && !said.contains("quorum: "), "{said}");

    let server = Server::start(&clickhouse, "replica_a", &["--clickhouse-url", &urls_flag]);
    for part in [shared.as_str(), &apart, "one replica confirms an INSERT", "at least once", "exactly once"] {
        wait_for(|| format!("{part} is missing: {}", server.log()), || server.log().contains(part).then_some(()));
    }
    assert!(server.stop().success());
}

#[test]
fn the_statement_that_widens_a_horizon_does() {
    let clickhouse = ClickHouse::start();
    clickhouse.query(&format!(
        "CREATE TABLE default.events ({COLUMNS}) ENGINE = MergeTree ORDER BY event \
         SETTINGS non_replicated_deduplication_window = 1000"
    ));
    let folder = tempfile::tempdir().unwrap();
    let (url, spool) = (clickhouse.url(), folder.path().to_string_lossy().into_owned());
    let check = || run(&["check", "--clickhouse-url", &url, "--spool-dir", &spool]).1;
    let said = check();
    let horizon = "an INSERT without an answer can be repeated safely for: ";
    assert!(said.contains(&format!("{horizon}0.2 hours (900 blocks of this node, one every 1s")), "{said}");
    let statement = said.lines().find_map(|line| line.trim().strip_prefix("to make that a day: ")).unwrap();
    clickhouse.query(statement);
    let said = check();
    assert!(said.contains(&format!("{horizon}25.0 hours")) && !said.contains("to make that a day"), "{said}");
}

fn a_distributed_table_is_inserted_in_the_foreground_and_passes_the_token_on(variant: Variant) {
    let clickhouse = ClickHouse::start_with_config(&config());
    clickhouse.query("CREATE DATABASE spread");
    clickhouse.query(&format!(
        "CREATE TABLE spread.shard ({COLUMNS}) ENGINE = MergeTree ORDER BY event \
         SETTINGS non_replicated_deduplication_window = 1000"
    ));
    clickhouse
        .query("CREATE TABLE spread.events AS spread.shard ENGINE = Distributed('here', 'spread', 'shard', sequence)");
    let forwarder = Forwarder::new(&clickhouse.url(), "", "");
    let url = forwarder.url();
    let server = Server::start(&clickhouse, "spread", &variant.and(&["--clickhouse-url", &url]));
    let kept = std::fs::read_to_string(server.spool_dir().join("events/schema.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["settings"]["distributed_foreground_insert"], "1");
    forwarder.lose_answers(true);
    send(&server, 30);
    wait_for_attempts(&server, "retry", 2.0);
    forwarder.lose_answers(false);
    wait_for_attempts(&server, "done", 1.0);
    assert_eq!(count(&clickhouse, "spread.shard"), 30);
    wait_for(|| server.log(), || server.log().contains("the table passes the token on").then_some(()));
    assert!(server.stop().success());
}
