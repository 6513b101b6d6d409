//! An INSERT whose answer is lost, and what happens to the table before it is repeated: its rows are
//! there once in the end, or it is held and nothing is doubled.

use crate::support::{ClickHouse, FailingCalls, Forwarder, Server, Variant, each_insert, post, run, wait_for};

const COLUMNS: &str = "event String, sequence Int64, server_time DateTime('UTC')";

fn sequences(range: impl IntoIterator<Item = i64>) -> String {
    range.into_iter().map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect()
}

/// A server whose INSERT of 20 events ClickHouse has taken, and whose answer is lost each time.
struct Unanswered {
    clickhouse: ClickHouse,
    database: String,
    forwarder: Forwarder,
    server: Server,
}

impl Unanswered {
    fn new(engine: &str) -> Self {
        let clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        clickhouse.query(&format!("CREATE TABLE {database}.events ({COLUMNS}) ENGINE = {engine}"));
        let forwarder = Forwarder::new(&clickhouse.url(), "", "");
        let server = Server::start(&clickhouse, &database, &["--clickhouse-url", &forwarder.url()]);
        forwarder.lose_answers(true);
        assert_eq!(post(server.address(), "/api/events", sequences(0..20).as_bytes()).status, 200);
        let retries = || server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"];
        wait_for(|| server.log(), || (retries() >= 1.0).then_some(()));
        server.wait_for_rows(&clickhouse, &format!("{database}.events"), 20);
        Self { clickhouse, database, forwarder, server }
    }

    fn query(&self, statement: &str) -> String {
        self.clickhouse.query(&statement.replace("TABLE_NAME", &format!("{}.events", self.database)))
    }

    /// Another writer puts so many blocks into the table, each of a row with a negative sequence.
    fn others_insert(&self, blocks: i64) {
        for block in 1..=blocks {
            self.query(&format!("INSERT INTO TABLE_NAME (event, sequence, server_time) VALUES ('o', -{block}, now())"));
        }
    }

    fn stored(&self) -> Vec<i64> {
        let rows = self.query("SELECT sequence FROM TABLE_NAME WHERE sequence >= 0 ORDER BY sequence FORMAT TSV");
        rows.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Does something while no attempt is under way; from then on, answers come.
    fn meanwhile(&mut self, change: impl FnOnce(&Self)) {
        self.server.kill9();
        change(self);
        self.forwarder.lose_answers(false);
        self.server = self.server.start_again();
    }

    fn wait_until_held(&self, why: &str) {
        let ready = || self.server.admin_get("/readyz").text();
        let otherwise = || format!("{}\n{}", ready(), self.server.log());
        wait_for(otherwise, || ready().contains(why).then_some(()));
    }
}

const SMALL_WINDOW: &str = "MergeTree ORDER BY event SETTINGS non_replicated_deduplication_window = 10";

/// A configuration under which the user of the engine sees no row of the table that the tests send.
fn row_policy(database: &str) -> String {
    format!(
        "<clickhouse>
  <users_config>config.xml</users_config>
  <default_profile>default</default_profile>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <databases><{database}><events><filter>sequence &lt; 0</filter></events></{database}></databases>
  </default></users>
</clickhouse>"
    )
}

#[test]
fn a_token_that_other_writers_pushed_out_is_not_sent_again() {
    let mut unanswered = Unanswered::new(SMALL_WINDOW);
    unanswered.meanwhile(|unanswered| unanswered.others_insert(15));
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (0..20).collect::<Vec<_>>(), "{}", unanswered.server.log());
}

#[test]
fn a_token_that_is_pushed_out_with_its_rows_deleted_is_sent_again() {
    let mut unanswered = Unanswered::new(SMALL_WINDOW);
    unanswered.meanwhile(|unanswered| {
        unanswered.query("ALTER TABLE TABLE_NAME DELETE WHERE 1 SETTINGS mutations_sync = 1");
        unanswered.others_insert(15);
    });
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (0..20).collect::<Vec<_>>(), "{}", unanswered.server.log());
}

#[test]
fn where_only_the_values_differ_the_block_is_held() {
    let mut unanswered = Unanswered::new(SMALL_WINDOW);
    unanswered.meanwhile(|unanswered| {
        unanswered
            .query("ALTER TABLE TABLE_NAME UPDATE sequence = sequence + 1000 WHERE 1 SETTINGS mutations_sync = 1");
        unanswered.others_insert(15);
    });
    unanswered.wait_until_held("with other values");
    assert_eq!(unanswered.stored().len(), 20);
}

#[test]
fn without_key_columns_nobody_believes_that_changed_rows_are_missing() {
    let without_key = "MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 10";
    let mut unanswered = Unanswered::new(without_key);
    unanswered.meanwhile(|unanswered| {
        unanswered
            .query("ALTER TABLE TABLE_NAME UPDATE sequence = sequence + 1000 WHERE 1 SETTINGS mutations_sync = 1");
        unanswered.others_insert(15);
    });
    unanswered.wait_until_held("no key columns to find them by");
    assert_eq!(unanswered.stored().len(), 20);
}

#[test]
fn after_a_rename_a_conversion_doubles_no_row_and_inserts_those_that_are_certainly_missing() {
    let mut unanswered = Unanswered::new(SMALL_WINDOW);
    unanswered.meanwhile(|unanswered| {
        unanswered.others_insert(15);
        unanswered.query("ALTER TABLE TABLE_NAME RENAME COLUMN sequence TO number");
    });
    unanswered.wait_until_held("the columns of the table have changed. The block was written for other columns");
    let admin = unanswered.server.admin_address().to_string();
    let convert = || {
        let (done, _, error) = run(&["spool", "requeue", "--convert", "--admin-listen", &admin]);
        assert!(done, "{error}");
    };
    convert();
    unanswered.wait_until_held("they may be rows of other INSERTs");
    let count = || unanswered.query("SELECT count() FROM TABLE_NAME WHERE event = 'e'").trim().to_owned();
    assert_eq!(count(), "20");
    unanswered.query("ALTER TABLE TABLE_NAME DELETE WHERE event = 'e' SETTINGS mutations_sync = 1");
    convert();
    unanswered.server.wait_until_drained();
    assert_eq!(count(), "20", "{}", unanswered.server.log());
}

#[test]
fn a_table_that_was_exchanged_for_another_gets_nothing_twice() {
    let mut unanswered =
        Unanswered::new("MergeTree ORDER BY event SETTINGS non_replicated_deduplication_window = 1000");
    unanswered.meanwhile(|Unanswered { clickhouse, database, .. }| {
        clickhouse.query(&format!("CREATE TABLE {database}.other AS {database}.events"));
        clickhouse.query(&format!("INSERT INTO {database}.other SELECT * FROM {database}.events"));
        clickhouse.query(&format!("EXCHANGE TABLES {database}.other AND {database}.events"));
    });
    unanswered.wait_until_held("in a table that is gone, or on another server");
    assert_eq!(unanswered.stored(), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_row_policy_makes_nobody_believe_that_rows_are_missing() {
    let mut unanswered = Unanswered::new(SMALL_WINDOW);
    unanswered.server.kill9();
    unanswered.others_insert(15);
    let config = unanswered.clickhouse.path().with_file_name("config.xml");
    std::fs::write(&config, row_policy(&unanswered.database)).unwrap();
    unanswered.clickhouse.kill();
    unanswered.clickhouse.restart();
    assert_eq!(unanswered.stored(), [0; 0], "the policy hides the rows");
    unanswered.forwarder.lose_answers(false);
    unanswered.server = unanswered.server.start_again();
    unanswered.wait_until_held("a row policy may hide rows");
    let (_, said, _) = run(&[
        "check",
        "--clickhouse-url",
        &unanswered.clickhouse.url(),
        "--database",
        &unanswered.database,
        "--spool-dir",
        &unanswered.server.folder().path().join("check").to_string_lossy(),
    ]);
    assert!(said.contains("at least once: a row policy may hide rows"), "{said}");
    std::fs::remove_file(&config).unwrap();
    unanswered.clickhouse.kill();
    unanswered.clickhouse.restart();
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (0..20).collect::<Vec<_>>());
}

#[test]
fn rows_that_have_expired_are_not_missed() {
    let engine = "MergeTree ORDER BY event TTL server_time + INTERVAL 30 MINUTE \
                  SETTINGS non_replicated_deduplication_window = 10, merge_with_ttl_timeout = 1000000";
    let mut unanswered = Unanswered::new(engine);
    unanswered.meanwhile(|unanswered| {
        unanswered.others_insert(15);
        // As a merge would leave it, some time after they have expired.
        unanswered.query("ALTER TABLE TABLE_NAME DELETE WHERE sequence >= 0 SETTINGS mutations_sync = 1");
    });
    unanswered.server.wait_until_drained();
    assert!(unanswered.server.admin_get("/readyz").text().contains("\"warnings\":[]"), "{}", unanswered.server.log());
    assert_eq!(unanswered.stored(), [0; 0], "what has expired was sent again");
}

each_insert!(a_row_that_is_refused_after_a_lost_answer_is_cut_out);

fn a_row_that_is_refused_after_a_lost_answer_is_cut_out(variant: Variant) {
    let clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let forwarder = Forwarder::new(&clickhouse.url(), "", "");
    let server = Server::start(&clickhouse, &database, &variant.and(&["--clickhouse-url", &forwarder.url()]));
    clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT odd CHECK sequence != 7"));
    // The refusal itself is lost: from here on an attempt is open.
    forwarder.lose_answers(true);
    assert_eq!(post(server.address(), "/api/events", sequences(0..20).as_bytes()).status, 200);
    let retries = || server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"];
    wait_for(|| server.log(), || (retries() >= 1.0).then_some(()));
    forwarder.lose_answers(false);
    server.wait_until_drained();
    let count = format!("SELECT count(), countIf(sequence = 7) FROM {database}.events FORMAT TSV");
    assert_eq!(clickhouse.query(&count).trim(), "19\t0", "{}", server.log());
    let quarantined = format!("SELECT count() FROM {database}.events_quarantine");
    assert_eq!(clickhouse.query(&quarantined).trim(), "1");
}

#[test]
fn an_error_that_leaves_the_token_without_the_rows_loses_nothing() {
    let clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let server = Server::start(&clickhouse, &database, &[]);
    // The rename that makes the part visible fails, as on a full disk; ClickHouse keeps the token.
    let month = clickhouse.query("SELECT toYYYYMM(now('UTC'))");
    let failing = clickhouse.fail_at_part(&database, "events", &format!("tmp_insert_{}_1_1_0", month.trim()));
    assert_eq!(post(server.address(), "/api/events", sequences(0..20).as_bytes()).status, 200);
    let retries = || server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"];
    wait_for(|| server.log(), || (retries() >= 1.0).then_some(()));
    drop::<FailingCalls>(failing);
    server.wait_until_drained();
    let stored = clickhouse.query(&format!("SELECT count(), uniqExact(sequence) FROM {database}.events FORMAT TSV"));
    assert_eq!(stored.trim(), "20\t20", "{}", server.log());
}
