//! What the server assumes of ClickHouse and has no say in, tried on each version that there is, with no
//! server of ours between. `make test-outside` runs this.

use crate::support::{ClickHouse, Cluster, Engine, Forwarder, Server, post, wait_for};
use sluicegate::clickhouse::settings::FIXED;

const ENGINES: [&str; 4] = ["25.8", "26.3", "26.7", "26.9"];

fn start(engine: &str) -> ClickHouse {
    ClickHouse::start_engine(Engine::named(engine), None)
}

/// A table that remembers the tokens of `window` blocks.
fn create(clickhouse: &ClickHouse, window: u64, settings: &str) {
    clickhouse.query(&format!(
        "CREATE TABLE default.t (a Int64) ENGINE = MergeTree ORDER BY a \
         SETTINGS non_replicated_deduplication_window = {window}{settings}"
    ));
}

/// Two rows under a token.
fn insert(clickhouse: &ClickHouse, token: &str) -> Result<String, String> {
    clickhouse.try_query(&format!(
        "INSERT INTO default.t SETTINGS async_insert = 0, insert_deduplication_token = '{token}' VALUES (1), (2)"
    ))
}

fn count(clickhouse: &ClickHouse) -> u64 {
    clickhouse.query("SELECT count() FROM default.t").trim().parse().unwrap()
}

/// True when a repeat of a token was stored, after the versions of `engines` had the table in turn. In those that
/// are marked, the INSERT was repeated.
fn is_doubled(engines: &[(&str, bool)]) -> bool {
    let mut clickhouse = start(engines[0].0);
    create(&clickhouse, 1000, "");
    insert(&clickhouse, "x").unwrap();
    for (engine, repeated) in &engines[1..] {
        clickhouse.stop();
        clickhouse.restart_as(Engine::named(engine));
        if *repeated {
            insert(&clickhouse, "x").unwrap();
        }
    }
    match count(&clickhouse) {
        2 => false,
        4 => true,
        other => panic!("{engines:?}: {other} rows"),
    }
}

#[test]
#[ignore = "needs other versions of ClickHouse: make test-outside"]
fn a_token_is_forgotten_by_an_upgrade_from_25_8_to_26_7_and_by_no_other_step() {
    assert!(is_doubled(&[("25.8", false), ("26.7", true)]));
    assert!(is_doubled(&[("25.8", false), ("26.9", true)]));
    assert!(!is_doubled(&[("25.8", false), ("26.3", true)]));
    assert!(!is_doubled(&[("26.3", false), ("26.7", true)]));
    assert!(!is_doubled(&[("26.3", false), ("26.9", true)]));
    assert!(!is_doubled(&[("26.7", false), ("26.9", true)]));
    // A repeat that 26.3 drops is not noted under the newer id.
    assert!(is_doubled(&[("25.8", false), ("26.3", true), ("26.7", true)]));
}

#[test]
#[ignore = "needs other versions of ClickHouse: make test-outside"]
fn an_insert_takes_two_places_of_the_window_in_26_3_and_one_in_the_others() {
    for engine in ENGINES {
        let clickhouse = start(engine);
        create(&clickhouse, 20, "");
        insert(&clickhouse, "first").unwrap();
        for number in 0..14 {
            insert(&clickhouse, &format!("other {number}")).unwrap();
        }
        insert(&clickhouse, "first").unwrap();
        assert_eq!(count(&clickhouse), if engine == "26.3" { 32 } else { 30 }, "{engine}");
    }
}

#[test]
#[ignore = "needs other versions of ClickHouse: make test-outside"]
fn an_error_after_the_token_leaves_it_without_the_rows_and_the_repeat_is_a_success() {
    for engine in ENGINES {
        let clickhouse = start(engine);
        create(&clickhouse, 1000, "");
        let trap = clickhouse.fail_at_part("default", "t", "tmp_insert_all_1_1_0");
        let error = insert(&clickhouse, "x").unwrap_err();
        drop(trap);
        assert!(error.contains("Input/output error"), "{engine}: {error}");
        insert(&clickhouse, "x").unwrap_or_else(|error| panic!("{engine}: {error}"));
        assert_eq!(count(&clickhouse), 0, "{engine}");
    }
}

#[test]
#[ignore = "needs other versions of ClickHouse: make test-outside"]
fn a_limit_of_the_tables_size_leaves_the_token_without_the_rows_in_26_9() {
    let clickhouse = start("26.9");
    clickhouse.query(
        "CREATE TABLE default.t (a Int64) ENGINE = MergeTree PARTITION BY a ORDER BY a \
         SETTINGS non_replicated_deduplication_window = 1000, max_table_size_rows = 1",
    );
    // The first partition's two rows are there when the second's are committed.
    let insert = || {
        clickhouse.try_query(
            "INSERT INTO default.t SETTINGS async_insert = 0, insert_deduplication_token = 'x' VALUES (1), (1), (2)",
        )
    };
    let error = insert().unwrap_err();
    assert!(error.contains("Code: 1016"), "{error}");
    clickhouse.query("ALTER TABLE default.t MODIFY SETTING max_table_size_rows = 100");
    insert().unwrap();
    assert_eq!(count(&clickhouse), 2);
}

#[test]
#[ignore = "needs other versions of ClickHouse: make test-outside"]
fn the_fixed_settings_are_accepted_and_a_converted_repeat_is_dropped() {
    for engine in ENGINES {
        let clickhouse = start(engine);
        create(&clickhouse, 1000, "");
        let known = clickhouse.query("SELECT name FROM system.settings FORMAT TSV");
        let is_known = |name: &str| known.lines().any(|known| known == name);
        let settings =
            FIXED.iter().filter(|(name, _)| is_known(name)).map(|(name, value)| format!("{name} = '{value}'"));
        let settings = settings.collect::<Vec<_>>().join(", ");
        for _ in 0..2 {
            clickhouse.query(&format!(
                "INSERT INTO default.t SETTINGS insert_deduplication_token = 'x', {settings} \
                 SELECT toInt64(number) FROM numbers(2)"
            ));
        }
        assert_eq!(count(&clickhouse), 2, "{engine}");
    }
}

#[test]
#[ignore = "needs other versions of ClickHouse: make test-outside"]
fn what_was_frozen_for_a_newer_clickhouse_goes_into_an_older_one() {
    let (mut newer, older) = (start("26.9"), start("25.8"));
    let database = newer.database();
    older.query(&format!("CREATE DATABASE {database}"));
    let way = Forwarder::new(&older.url(), "", "");
    let urls = format!("{},{}", newer.url(), way.url());
    way.cut(true);
    let server = Server::start(&newer, &database, &["--clickhouse-url", &urls, "--batch-age", "1s"]);
    let table = newer.query(&format!("SHOW CREATE TABLE {database}.events FORMAT TSVRaw"));
    newer.kill();
    older.query(&table);
    assert_eq!(post(server.address(), "/api/events", b"{}\n").status, 200);
    way.cut(false);
    wait_for(|| server.log(), || server.spooled_files().is_empty().then_some(()));
    assert_eq!(older.query(&format!("SELECT count() FROM {database}.events")).trim(), "1");
    assert!(server.stop().success());
}

/// A table with a replica on each server, and an INSERT into it that waits for both.
const QUORUM: &str = "async_insert = 0, insert_deduplication_token = 'x', insert_quorum = 2";

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn a_repeat_that_waits_for_a_quorum_is_a_success_when_the_quorum_has_failed_and_the_rows_are_gone() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    let insert = |timeout_ms: u64| {
        format!(
            "INSERT INTO {database}.events (sequence) SETTINGS {QUORUM}, insert_quorum_timeout = {timeout_ms} VALUES (1)"
        )
    };
    // Only the second replica has the part.
    cluster.servers[0].query(&format!("SYSTEM STOP FETCHES {database}.events"));
    let error = cluster.servers[1].try_query(&insert(1000)).unwrap_err();
    assert!(error.contains("Code: 319"), "{error}");
    let [first, second] = &mut cluster.servers;
    let (first, repeat) = (&*first, insert(40_000));
    std::thread::scope(|scope| {
        let repeated = scope.spawn(|| first.try_query(&repeat));
        let running = "SELECT count() FROM system.processes WHERE query LIKE '%insert_quorum = 2%' AND query NOT LIKE '%processes%'";
        wait_for(|| "it does not run".to_owned(), || (first.query(running).trim() == "1").then_some(()));
        std::thread::sleep(std::time::Duration::from_millis(500));
        second.kill();
        first.query(&format!("SYSTEM START FETCHES {database}.events"));
        assert_eq!(repeated.join().unwrap(), Ok(String::new()));
    });
    second.restart();
    cluster.sync(&format!("{database}.events"));
    for replica in &cluster.servers {
        assert_eq!(replica.query(&format!("SELECT count() FROM {database}.events")).trim(), "0");
    }
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn a_replicated_table_that_is_killed_or_fails_before_its_rows_are_there_has_no_token_either() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    let insert = |clickhouse: &ClickHouse, token: &str| {
        clickhouse.try_query(&format!(
            "INSERT INTO {database}.events (server_time) SETTINGS async_insert = 0, \
             insert_deduplication_token = '{token}' VALUES (now('UTC'))"
        ))
    };
    let tokens = |clickhouse: &ClickHouse| {
        let path = format!("/tables/{database}/events/blocks");
        clickhouse.query(&format!("SELECT count() FROM system.zookeeper WHERE path = '{path}'")).trim().to_owned()
    };
    let [first, second] = &mut cluster.servers;
    let month = first.query("SELECT toYYYYMM(now('UTC'))");

    let trap = first.fail_at_part(&database, "events", &format!("tmp_insert_{}_1_1_0", month.trim()));
    let error = insert(first, "x").unwrap_err();
    drop(trap);
    assert!(error.contains("Input/output error"), "{error}");
    assert_eq!(tokens(second), "0");

    let trap = first.kill_at_part(&database, "events", 2);
    insert(first, "x").unwrap_err();
    first.wait_for_end();
    drop(trap);
    assert_eq!(tokens(second), "0");
    insert(second, "x").unwrap();
    assert_eq!(tokens(second), "1");
    first.restart();
    insert(first, "x").unwrap();
    cluster.sync(&format!("{database}.events"));
    for replica in &cluster.servers {
        assert_eq!(replica.query(&format!("SELECT count() FROM {database}.events")).trim(), "1");
    }
}
