//! What networks, load balancers and failing servers do between inserter and ClickHouse: after each
//! of it, and after all of it at random, every event is there once and nothing waits any more.

use std::thread;

use crate::support::proxy::{Fault, Proxy, faults, refused};
use crate::support::{
    ClickHouse, Client, Engine, Load, Random, Server, Variant, each_insert, post, run, seed, shared_clickhouse,
    wait_for,
};

/// INSERTs that meet a fault in the test of all at random: each kind a few times.
const FAULTS: u64 = 200;

/// The most of them between two kills of the server. More would be slower: what failed waits longer and longer.
const FAULTS_OF_A_LIFE_MAX: u64 = 6;

/// The longest pause of a client between two requests.
const CLIENT_PAUSE_MAX_MS: u64 = 20;

/// As many as there can be in a short time, most of which fails.
const MANY_INSERTS: [&str; 6] = ["--batch-age", "20ms", "--batch-rows", "500", "--inserters", "8"];
const SHORT_ATTEMPTS: [(&str, &str); 1] = [("SLUICEGATE_INSERT_TIMEOUT", "500ms")];
/// None fails by itself on a busy machine.
const LONG_ATTEMPTS: [(&str, &str); 1] = [("SLUICEGATE_INSERT_TIMEOUT", "60s")];

/// A user's profile under which no token is looked at, rows are cut into many blocks, and their
/// types are not compared with the table's, unless an insert says otherwise: setting, value, and the
/// oldest ClickHouse here that knows it.
const CARELESS: [(&str, &str, &str); 6] = [
    ("insert_deduplicate", "0", "25.8"),
    ("deduplicate_insert", "disable", "26.3"),
    ("use_strict_insert_block_limits", "1", "26.7"),
    ("max_insert_block_size_bytes", "1000", "26.3"),
    ("input_format_with_types_use_header", "0", "25.8"),
    ("input_format_native_allow_types_conversion", "1", "25.8"),
];

fn careless() -> String {
    let engine = Engine::of_the_tests().name();
    let known = CARELESS.iter().filter(|(_, _, since)| *since <= engine);
    let profile: String = known.map(|(name, value, _)| format!("<{name}>{value}</{name}>")).collect();
    format!(
        "<clickhouse>
           <users_config>config.xml</users_config>
           <default_profile>default</default_profile>
           <profiles><default>{profile}</default></profiles>
           <quotas><default/></quotas>
           <users><default>
             <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
           </default></users>
         </clickhouse>"
    )
}

const OUTCOMES: [&str; 5] = ["done", "retry", "hold", "cut", "split"];

/// Attempts of inserts into a table so far, by outcome.
fn attempts(server: &Server, table: &str) -> [u64; 5] {
    let metrics = server.metrics();
    OUTCOMES
        .map(|outcome| metrics[&format!("sluicegate_inserts_total{{table=\"{table}\",outcome=\"{outcome}\"}}")] as u64)
}

/// Sends lines that go to `table`, through each fault once.
fn each_fault(variant: Variant, faults: Vec<Fault>, table: &str, status: u16, line: impl Fn(usize) -> String) {
    const LINES: usize = 20;
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Proxy::start(clickhouse);
    let flags = ["--clickhouse-url", &proxy.url(), "--insert-timeout", "5s", "--batch-age", "20ms"];
    let server = Server::start(clickhouse, &database, &variant.and(&flags));
    for (index, fault) in faults.into_iter().enumerate() {
        let Fault { name, outcome, .. } = fault;
        let before = attempts(&server, table);
        proxy.inflict([fault]);
        let body: String = (0..LINES).map(|place| line(index * LINES + place)).collect();
        assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, status);
        server.wait_for_rows(clickhouse, &format!("{database}.{table}"), ((index + 1) * LINES) as u64);
        server.wait_until_drained();
        assert_eq!(proxy.inflicted(), index as u64 + 1, "{name}: no INSERT met it");
        let after = attempts(&server, table);
        let moved: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let expected = match outcome {
            "done" => [1, 0, 0, 0, 0],
            "retry" => [1, 1, 0, 0, 0],
            // Sent again at once, without the limit of partitions.
            "split" => [1, 0, 0, 0, 1],
            other => panic!("{other}"),
        };
        assert_eq!(moved, expected, "{name}: {OUTCOMES:?}\n{}", server.log());
        let ready = server.admin_get("/readyz");
        assert!(ready.status == 200 && ready.text().contains("\"warnings\":[]"), "{name}: {}", ready.text());
    }
    let what = if table == "events" { "sequence" } else { "line" };
    let twice = clickhouse.query(&format!("SELECT count() - uniqExact({what}) FROM {database}.{table}"));
    assert_eq!(twice.trim(), "0");
    assert!(server.stop().success());
}

each_insert!(
    every_fault_leaves_each_event_once,
    every_fault_leaves_each_rejected_line_once,
    a_profile_that_ignores_tokens_types_and_blocks_does_not_reach_an_insert,
    all_faults_at_random_under_load_and_kills_lose_and_double_nothing,
);

fn every_fault_leaves_each_event_once(variant: Variant) {
    let event = |number| format!("{{\"event\":\"proxy\",\"sequence\":{number}}}\n");
    each_fault(variant, faults(), "events", 200, event);
}

fn every_fault_leaves_each_rejected_line_once(variant: Variant) {
    each_fault(variant, faults(), "events_quarantine", 422, |number| format!("bad {number}\n"));
}

fn a_profile_that_ignores_tokens_types_and_blocks_does_not_reach_an_insert(variant: Variant) {
    const ROWS: u64 = 5000;
    let clickhouse = ClickHouse::start_with_config(&careless());
    let database = clickhouse.database();
    let proxy = Proxy::start(&clickhouse);
    let server =
        Server::start(&clickhouse, &database, &variant.and(&["--clickhouse-url", &proxy.url(), "--batch-age", "20ms"]));
    proxy.inflict(faults().into_iter().filter(|fault| fault.name == "a reset instead of the reply"));
    let body: String = (0..ROWS).map(|number| format!("{{\"sequence\":{number}}}\n")).collect();
    assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
    server.wait_until_drained();
    // More than one retry where the first attempt still ran.
    let only_retried = |[done, retry, hold, cut, split]: [u64; 5]| done == 1 && retry > 0 && hold + cut + split == 0;
    assert!(only_retried(attempts(&server, "events")), "{}", server.log());
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), ROWS.to_string());
    let parts = "SELECT rows FROM system.parts WHERE table = 'events' AND level = 0";
    assert_eq!(clickhouse.query(parts).trim(), ROWS.to_string(), "one INSERT is not one block");
    // As wide as before: nothing but the type says that a row means something else. The server does not learn of it
    // before it has taken the row.
    proxy.fall_ill(refused(202, "Too many simultaneous queries."));
    assert_eq!(post(server.address(), "/api/events", b"{\"param_int\":-1}").status, 200);
    clickhouse.query(&format!("ALTER TABLE {database}.events MODIFY COLUMN param_int UInt64"));
    proxy.recover();
    let decided = || Some(attempts(&server, "events")).filter(|[done, _, hold, ..]| done + hold > 1);
    let [done, _, hold, cut, _] = wait_for(|| server.log(), decided);
    assert!(done == 1 && hold > 0 && cut == 0, "{}", server.log());
}

fn all_faults_at_random_under_load_and_kills_lose_and_double_nothing(variant: Variant) {
    let seed = seed("PROXY_SEED");
    let mut random = Random::new(seed, 0);
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let proxy = Proxy::start(clickhouse);
    let url = proxy.url();
    let flags = [&["--clickhouse-url", &url][..], &MANY_INSERTS].concat();
    let mut server = Server::start_with_environment(clickhouse, &database, &variant.and(&flags), &SHORT_ATTEMPTS);
    proxy.inflict_mixed(faults(), Random::new(seed, 1));
    // Clients without pauses would take the processor from those whom they wait for.
    let load = Load::new(server.address(), seed).with_pauses(CLIENT_PAUSE_MAX_MS);
    load.during(&[Client::WithoutKey, Client::Inserted, Client::WithoutKey, Client::WithoutKey], || {
        while proxy.inflicted() < FAULTS {
            // Each life has its share of faults, however slow the machine is.
            for _ in 0..=random.below(FAULTS_OF_A_LIFE_MAX) {
                let so_far = proxy.inflicted();
                wait_for(
                    || format!("no INSERT meets a fault any more, after {so_far}:\n{}", server.log()),
                    || (proxy.inflicted() > so_far).then_some(()),
                );
            }
            thread::sleep(random.milliseconds(0, 50));
            server.kill9();
            server = server.start_again();
        }
    });
    proxy.inflict([]);
    let server = server.restart_with_environment(&LONG_ATTEMPTS);
    let admin = server.admin_address().to_string();
    wait_for(
        || format!("the spool is not empty: {:?}\n{}", server.spooled_files(), server.log()),
        || {
            // What waits for a slower and slower next attempt is due now.
            run(&["spool", "requeue", "--admin-listen", &admin]);
            server.spooled_files().is_empty().then_some(())
        },
    );
    assert_eq!(server.admin_get("/readyz").status, 200);
    assert!(server.stop().success());
    println!("{} INSERTs met a fault; {}", proxy.inflicted(), load.counts());
    assert!(load.counts().events > 100, "too little happened");
    load.check(clickhouse, &database);
}
