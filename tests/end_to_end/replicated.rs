//! Real replicas and shards: two servers of ClickHouse 25.8 and a ZooKeeper, each killed in turn under
//! load. Every acknowledged event is on both replicas, once. `make test-outside` runs this.

use std::thread;
use std::time::Duration;

use crate::support::{COLUMNS, ClickHouse, Client, Cluster, Forwarder, Load, Random, Server, post, seed, wait_for};

const CLIENTS: [Client; 4] = [Client::WithoutKey, Client::WithKey, Client::Inserted, Client::WithoutKey];

/// Many INSERTs, and no table's INSERT waits for a quorum longer than a moment.
const FLAGS: [&str; 6] = ["--batch-age", "50ms", "--inserted-timeout", "500ms", "--shutdown-timeout", "60s"];

/// By default an INSERT waits more than a minute for ZooKeeper before it fails.
const FAILS_SOON: [&str; 2] = ["--clickhouse-setting", "insert_keeper_max_retries=2"];

const EVENTS_MIN: u64 = 1000;

fn start(cluster: &Cluster, database: &str, flags: &[&str]) -> Server {
    let urls = cluster.urls();
    Server::start(&cluster.servers[0], database, &[&["--clickhouse-url", &urls], &FLAGS[..], flags].concat())
}

/// Waits for the quarantine tables: a server or a ZooKeeper that is killed during their CREATE may leave an entry in
/// Keeper that only an operator removes.
fn wait_for_quarantines(cluster: &Cluster, database: &str, server: &Server) {
    for replica in &cluster.servers {
        let is_there = || replica.query(&format!("EXISTS TABLE {database}.events_quarantine")).trim() == "1";
        wait_for(|| server.log(), || is_there().then_some(()));
    }
}

/// Sends under `disturb`, waits until all of it is delivered, and looks at both replicas.
fn under_load(cluster: &mut Cluster, database: &str, flags: &[&str], disturb: impl FnOnce(&mut Cluster, &mut Random)) {
    let server = start(cluster, database, flags);
    wait_for_quarantines(cluster, database, &server);
    let seed = seed("REPLICATED_SEED");
    let load = Load::new(server.address(), seed);
    load.during(&CLIENTS, || disturb(cluster, &mut Random::new(seed, 0)));
    assert!(load.counts().events > EVENTS_MIN, "too little happened: {}", load.counts());
    expect_all_once(cluster, database, &server, &load);
    assert!(server.stop().success());
}

fn expect_all_once(cluster: &Cluster, database: &str, server: &Server, load: &Load) {
    server.wait_until_drained();
    wait_for(|| server.log(), || (server.metrics()["sluicegate_ledger_balances"] == 1.0).then_some(()));
    for table in ["events", "events_quarantine"] {
        let table = format!("{database}.{table}");
        cluster.verify_parts(&table);
        cluster.sync(&table);
    }
    for replica in &cluster.servers {
        load.check(replica, database);
    }
}

fn kill_for_a_while(clickhouse: &mut ClickHouse, random: &mut Random) {
    thread::sleep(random.milliseconds(300, 1500));
    clickhouse.kill();
    thread::sleep(random.milliseconds(0, 1500));
    clickhouse.restart();
}

fn send(server: &Server, sequences: std::ops::Range<u64>) {
    let body: String = sequences.map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect();
    assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
}

fn count(clickhouse: &ClickHouse, table: &str) -> u64 {
    clickhouse.query(&format!("SELECT count() FROM {table}")).trim().parse().unwrap()
}

fn attempts(server: &Server, outcome: &str) -> f64 {
    server.metrics()[&format!("sluicegate_inserts_total{{table=\"events\",outcome=\"{outcome}\"}}")]
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn either_replica_is_killed_under_load_and_both_and_every_event_is_on_both_once() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    under_load(&mut cluster, &database, &[], |cluster, random| {
        for _ in 0..2 {
            for victim in [0, 1] {
                kill_for_a_while(&mut cluster.servers[victim], random);
            }
        }
        thread::sleep(random.milliseconds(300, 1500));
        for server in &mut cluster.servers {
            server.kill();
        }
        for server in &mut cluster.servers {
            server.restart();
        }
        thread::sleep(Duration::from_secs(1));
    });
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn zookeeper_is_killed_under_load_and_every_event_is_on_both_replicas_once() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    let server = start(&cluster, &database, &FAILS_SOON);
    wait_for_quarantines(&cluster, &database, &server);
    let seed = seed("REPLICATED_SEED");
    let load = Load::new(server.address(), seed);
    load.during(&CLIENTS, || {
        let mut random = Random::new(seed, 0);
        // A short absence, and one that outlasts the sessions.
        for seconds in [0, 5] {
            thread::sleep(random.milliseconds(500, 1500));
            cluster.zookeeper.kill();
            thread::sleep(Duration::from_secs(seconds));
            cluster.zookeeper.restart();
        }
        thread::sleep(Duration::from_secs(1));
    });
    assert!(load.counts().events > EVENTS_MIN, "too little happened: {}", load.counts());
    assert!(attempts(&server, "retry") >= 1.0, "no INSERT has failed");
    expect_all_once(&cluster, &database, &server, &load);
    assert!(server.stop().success());
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn what_a_replica_without_zookeeper_refuses_goes_to_the_other() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    under_load(&mut cluster, &database, &FAILS_SOON, |cluster, _| {
        let [first, second] = &cluster.servers;
        let is_readonly =
            format!("SELECT is_readonly FROM system.replicas WHERE database = '{database}' AND table = 'events'");
        let table = format!("{database}.events");
        cluster.ways[0].cut(true);
        let readonly = || first.try_query(&is_readonly).unwrap_or_default();
        wait_for(|| "it does not become read-only".to_owned(), || (readonly().trim() == "1").then_some(()));
        let before = count(second, &table);
        wait_for(|| "nothing arrives".to_owned(), || (count(second, &table) > before + 200).then_some(()));
        assert_eq!(readonly().trim(), "1");
        cluster.ways[0].cut(false);
    });
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn with_a_quorum_of_two_an_event_counts_as_inserted_when_both_replicas_have_it() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    let quorum = ["--clickhouse-setting", "insert_quorum=2", "--clickhouse-setting", "insert_quorum_timeout=2000"];
    let server = start(&cluster, &database, &quorum);
    cluster.servers[1].kill();
    send(&server, 0..10);
    wait_for(|| server.log(), || (attempts(&server, "retry") >= 3.0).then_some(()));
    assert_eq!(server.metrics()["sluicegate_events_inserted_total{table=\"events\"}"], 0.0);
    cluster.servers[1].restart();
    server.wait_until_drained();
    for replica in &cluster.servers {
        assert_eq!(count(replica, &format!("{database}.events")), 10);
    }
    assert!(server.stop().success());
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn a_token_that_one_replica_knows_is_known_to_the_other() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let first = Forwarder::new(&cluster.servers[0].url(), "", "");
    let urls = format!("{},{}", first.url(), cluster.servers[1].url());
    let server = Server::start(&cluster.servers[0], &database, &["--clickhouse-url", &urls]);
    // For good: what the first has can only be proven by the second.
    first.lose_answers(true);
    send(&server, 0..40);
    server.wait_until_drained();
    assert!(attempts(&server, "retry") >= 1.0, "the first one's answer was to be lost");
    cluster.sync(&format!("{database}.events"));
    for replica in &cluster.servers {
        assert_eq!(count(replica, &format!("{database}.events")), 40);
    }
    assert!(server.stop().success());
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn a_distributed_table_over_two_shards_that_are_killed_under_load_has_every_event_once() {
    let mut cluster = Cluster::start();
    let database = cluster.servers[0].database();
    cluster.servers[1].query(&format!("CREATE DATABASE {database}"));
    // Replicated ones, of one replica each: their token and their rows are there together or not at all.
    cluster.on_both(&format!(
        "CREATE TABLE {database}.shard ({COLUMNS}) \
         ENGINE = ReplicatedMergeTree('/shards/{{database}}/{{replica}}', '{{replica}}') ORDER BY event"
    ));
    cluster.on_both(&format!(
        "CREATE TABLE {database}.events ({COLUMNS}) ENGINE = Distributed('shards', '{database}', 'shard', param_int)"
    ));
    let front = Forwarder::new(&cluster.servers[0].url(), "", "");
    let url = front.url();
    let flags = [&["--clickhouse-url", &url], &FLAGS[..]].concat();
    let server = Server::start(&cluster.servers[0], &database, &flags);
    let seed = seed("REPLICATED_SEED");
    let load = Load::new(server.address(), seed);
    load.during(&CLIENTS, || {
        let mut random = Random::new(seed, 0);
        for victim in [1, 0, 1] {
            front.lose_answers(true);
            kill_for_a_while(&mut cluster.servers[victim], &mut random);
            front.lose_answers(false);
        }
        thread::sleep(Duration::from_secs(1));
    });
    assert!(load.counts().events > EVENTS_MIN, "too little happened: {}", load.counts());
    server.wait_until_drained();
    wait_for(|| server.log(), || (server.metrics()["sluicegate_ledger_balances"] == 1.0).then_some(()));
    load.check(&cluster.servers[0], &database);
    for shard in &cluster.servers {
        assert!(count(shard, &format!("{database}.shard")) > 0);
    }
    assert!(server.stop().success());
}

/// The engine and the path of a quarantine table.
fn quarantine(clickhouse: &ClickHouse, database: &str) -> String {
    clickhouse.query(&format!(
        "SELECT engine, zookeeper_path FROM system.tables LEFT JOIN system.replicas \
         ON system.replicas.database = system.tables.database AND system.replicas.table = name \
         WHERE database = '{database}' AND name = 'events_quarantine' FORMAT TSV"
    ))
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn the_quarantine_of_a_replicated_table_has_a_replica_beside_each_of_its_own() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    // A server that is away at the start gets it when it is back.
    cluster.servers[1].kill();
    let server = start(&cluster, &database, &[]);
    cluster.servers[1].restart();
    let expected = format!("ReplicatedMergeTree\t/tables/{database}/events_quarantine\n");
    for replica in &cluster.servers {
        let found = || quarantine(replica, &database);
        wait_for(|| format!("{:?}\n{}", found(), server.log()), || (found() == expected).then_some(()));
    }
    assert_eq!(post(server.address(), "/api/events", b"bad\nworse\n").status, 422);
    server.wait_until_drained();
    cluster.sync(&format!("{database}.events_quarantine"));
    for replica in &cluster.servers {
        assert_eq!(count(replica, &format!("{database}.events_quarantine")), 2);
    }
    assert!(server.stop().success());
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn an_entry_in_keeper_that_prevents_a_quarantine_is_named_with_the_statement_that_removes_it() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    cluster.servers[1].kill();
    let server = start(&cluster, &database, &[]);
    let first = &cluster.servers[0];
    let statement = first.query(&format!(
        "SELECT replaceOne(replaceOne(create_table_query, '.events_quarantine', '.other'), '\\'r0\\'', '\\'r1\\'') \
         FROM system.tables WHERE database = '{database}' AND name = 'events_quarantine' FORMAT TSVRaw"
    ));
    // As a CREATE leaves it whose session with Keeper ends in its middle.
    first.query(&statement);
    first.query(&format!("DETACH TABLE {database}.other PERMANENTLY SYNC"));
    cluster.servers[1].restart();
    let remedy = format!("SYSTEM DROP REPLICA 'r1' FROM ZKPATH '/tables/{database}/events_quarantine'");
    wait_for(|| server.log(), || server.log().contains(&remedy).then_some(()));
    cluster.servers[1].query(&remedy);
    wait_for_quarantines(&cluster, &database, &server);
    assert!(server.stop().success());
}

#[test]
#[ignore = "needs ZooKeeper: make test-outside"]
fn in_a_replicated_database_the_database_makes_the_quarantine_on_each_replica() {
    let cluster = Cluster::start();
    let database = "by_database";
    cluster
        .on_both(&format!("CREATE DATABASE {database} ENGINE = Replicated('/databases/one', 'shard', '{{replica}}')"));
    cluster.servers[0]
        .query(&format!("CREATE TABLE {database}.events ({COLUMNS}) ENGINE = ReplicatedMergeTree ORDER BY event"));
    let server = start(&cluster, database, &[]);
    assert_eq!(post(server.address(), "/api/events", b"{}\nbad\n").status, 200);
    server.wait_until_drained();
    for table in ["events", "events_quarantine"] {
        cluster.sync(&format!("{database}.{table}"));
        for replica in &cluster.servers {
            assert_eq!(count(replica, &format!("{database}.{table}")), 1, "{table}");
        }
    }
    assert!(server.stop().success());
}
