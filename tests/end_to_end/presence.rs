//! What a success proves after ClickHouse was killed: its log of tokens may know an INSERT whose rows
//! it has not, and every event is there once all the same.

use std::path::{Path, PathBuf};

use crate::support::{ClickHouse, Forwarder, Server, Variant, each_insert, post, run, wait_for};

fn sequences(range: impl IntoIterator<Item = i64>) -> String {
    range.into_iter().map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect()
}

/// Every sequence of the table, in order.
fn stored(clickhouse: &ClickHouse, database: &str) -> Vec<i64> {
    let rows = clickhouse.query(&format!("SELECT sequence FROM {database}.events ORDER BY sequence FORMAT TSV"));
    rows.lines().map(|line| line.parse().unwrap()).collect()
}

/// Parts whose tokens are in a log of tokens, and which are not there.
fn parts_that_are_missing(folder: &Path) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "deduplication_logs") {
            for log in std::fs::read_dir(&path).unwrap() {
                let text = std::fs::read_to_string(log.unwrap().path()).unwrap();
                let parts = text.lines().filter_map(|line| line.split('\t').nth(1));
                missing.extend(parts.map(|part| folder.join(part)).filter(|part| !part.exists()));
            }
        } else if path.is_dir() {
            missing.extend(parts_that_are_missing(&path));
        }
    }
    missing
}

/// What a test needs, and has seen happen.
struct Gap {
    clickhouse: ClickHouse,
    database: String,
    server: Server,
}

impl Gap {
    /// Sends `body`, and kills ClickHouse between the token and the rows of what would have become the
    /// `nth` part of `table`.
    fn open(
        variant: Variant,
        prepare: impl Fn(&ClickHouse, &str),
        body: &str,
        status: u16,
        table: &str,
        nth: u32,
    ) -> Self {
        let mut clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        let server = Server::start(&clickhouse, &database, &variant.and(&[]));
        prepare(&clickhouse, &database);
        let trap = clickhouse.kill_at_part(&database, table, nth);
        assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, status);
        clickhouse.wait_for_end();
        drop(trap);
        let mut missing = parts_that_are_missing(&clickhouse.path().join("store"));
        // 26.2 to 26.6 write a block down twice, under ids of two schemes.
        missing.dedup();
        assert_eq!(missing.len(), 1, "it was not killed between a token and its rows: {missing:?}\n{}", server.log());
        Self { clickhouse, database, server }
    }

    fn wait_until_drained(&mut self) {
        self.clickhouse.restart();
        self.server.wait_until_drained();
        let log = self.server.log();
        assert_eq!(log.matches("sent again under another one").count(), 1, "{log}");
        assert!(log.contains("-g1\""), "{log}");
    }

    fn count(&self, table: &str) -> u64 {
        self.clickhouse.query(&format!("SELECT count() FROM {}.{table}", self.database)).trim().parse().unwrap()
    }
}

each_insert!(
    rows_that_only_the_log_of_tokens_knows_are_sent_again,
    pieces_and_what_is_cut_out_of_them_are_sent_again_too,
    rows_of_every_type_that_are_there_after_a_restart_are_recognised,
);

fn rows_that_only_the_log_of_tokens_knows_are_sent_again(variant: Variant) {
    let mut gap = Gap::open(variant, |_, _| {}, &sequences(0..50), 200, "events", 1);
    gap.wait_until_drained();
    assert_eq!(stored(&gap.clickhouse, &gap.database), (0..50).collect::<Vec<_>>());
    let metrics = gap.server.metrics();
    assert_eq!(metrics["sluicegate_events_inserted_total{table=\"events\"}"], 50.0);
    assert_eq!(metrics["sluicegate_inserts_total{table=\"events\",outcome=\"done\"}"], 1.0);
}

#[test]
fn rows_that_only_the_log_of_tokens_knows_are_sent_again_by_the_next_start() {
    let mut gap = Gap::open(Variant::USUAL, |_, _| {}, &sequences(0..50), 200, "events", 1);
    gap.server.kill9();
    gap.clickhouse.restart();
    gap.server = gap.server.start_again();
    gap.server.wait_until_drained();
    assert_eq!(stored(&gap.clickhouse, &gap.database), (0..50).collect::<Vec<_>>());
}

#[test]
fn rejected_lines_that_only_the_log_of_tokens_knows_are_sent_again() {
    let mut gap = Gap::open(Variant::USUAL, |_, _| {}, "bad\nworse\n", 422, "events_quarantine", 1);
    gap.wait_until_drained();
    assert_eq!(gap.count("events_quarantine"), 2);
}

fn pieces_and_what_is_cut_out_of_them_are_sent_again_too(variant: Variant) {
    let constraint = |clickhouse: &ClickHouse, database: &str| {
        clickhouse.query(&format!("ALTER TABLE {database}.events ADD CONSTRAINT small CHECK sequence != 3"));
    };
    // The rows before it, those behind it, and the row itself into the quarantine.
    for (table, nth) in [("events", 1), ("events", 2), ("events_quarantine", 1)] {
        let mut gap = Gap::open(variant, constraint, &sequences(0..50), 200, table, nth);
        gap.wait_until_drained();
        let expected: Vec<i64> = (0..50).filter(|number| *number != 3).collect();
        assert_eq!(stored(&gap.clickhouse, &gap.database), expected, "{table} {nth}");
        assert_eq!(gap.count("events_quarantine"), 1, "{table} {nth}");
    }
}

/// A server whose INSERT of `events` events ClickHouse has taken, and whose answer is lost each time.
struct Unanswered {
    clickhouse: ClickHouse,
    database: String,
    forwarder: Forwarder,
    server: Server,
}

impl Unanswered {
    fn new(variant: Variant, columns: &str, events: i64, line: impl Fn(i64) -> String) -> Self {
        let clickhouse = ClickHouse::start();
        let database = clickhouse.database();
        clickhouse.query(&format!(
            "CREATE TABLE {database}.events ({columns}) ENGINE = MergeTree ORDER BY event \
             SETTINGS non_replicated_deduplication_window = 1000"
        ));
        // The server says for how many whole seconds it has been up: an attempt in the first of them
        // may as well have been made before its start.
        let uptime = || clickhouse.query("SELECT uptime()").trim().parse::<u64>().unwrap();
        wait_for(|| "ClickHouse does not get older".to_owned(), || (uptime() >= 2).then_some(()));
        let forwarder = Forwarder::new(&clickhouse.url(), "", "");
        let server = Server::start(&clickhouse, &database, &variant.and(&["--clickhouse-url", &forwarder.url()]));
        forwarder.lose_answers(true);
        let body: String = (0..events).map(line).collect();
        assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
        let retries = || server.metrics()["sluicegate_inserts_total{table=\"events\",outcome=\"retry\"}"];
        wait_for(|| server.log(), || (retries() >= 1.0).then_some(()));
        server.wait_for_rows(&clickhouse, &format!("{database}.events"), events as u64);
        Self { clickhouse, database, forwarder, server }
    }

    fn delete(&self, condition: &str) {
        let Self { clickhouse, database, .. } = self;
        clickhouse
            .query(&format!("ALTER TABLE {database}.events DELETE WHERE {condition} SETTINGS mutations_sync = 1"));
    }

    fn restart(&mut self) {
        self.clickhouse.kill();
        self.clickhouse.restart();
    }

    fn stored(&self) -> Vec<i64> {
        stored(&self.clickhouse, &self.database)
    }

    fn wait_until_held(&self) {
        let ready = || self.server.admin_get("/readyz").text();
        wait_for(|| self.server.log(), || ready().contains("rows of the block that were looked up").then_some(()));
    }

    fn requeue(&self, flags: &[&str]) {
        let admin = self.server.admin_address().to_string();
        let (succeeded, out, error) = run(&[&["spool", "requeue", "--admin-listen", &admin], flags].concat());
        assert!(succeeded && out.contains("{\"requeued\":1}"), "{out}{error}");
    }
}

const COLUMNS: &str = "event String, sequence Int64, server_time DateTime('UTC')";

fn event(sequence: i64) -> String {
    sequences([sequence])
}

fn rows_of_every_type_that_are_there_after_a_restart_are_recognised(variant: Variant) {
    let columns = "event LowCardinality(String), sequence Int64, small Float32, large Float64, text Nullable(String), \
                   few LowCardinality(Nullable(String)), four FixedString(4), id UUID, day Date, far Date32, \
                   at DateTime('Asia/Tokyo'), exact DateTime64(6, 'UTC'), v4 IPv4, v6 IPv6, kind Enum8('a' = 1, 'b' = 2), \
                   yes Bool, `it's \\\\ odd` UInt64, tags Array(Nullable(String)), attributes Map(String, Float32), \
                   pair Tuple(a UInt8, `b c` String), price Decimal(18, 4), wide Int256, place Point, span Time64(3), \
                   any Dynamic, list Array(Dynamic), open JSON(a.b DateTime('UTC'), n Float32), one Variant(String, UInt8), \
                   ip IPv6, server_time DateTime64(3)";
    // Of every row but each third something is missing.
    let line = |number: i64| match number % 3 {
        0 => format!(
            "{{\"event\":\"it's\",\"sequence\":{number},\"small\":0.1,\"large\":-1e-300,\"text\":\"a\\\\\\tb'\",\
             \"few\":\"few\",\"four\":\"ab\",\"id\":\"61f0c404-5cb3-11e7-907b-a6006ad3dba0\",\"day\":\"2026-11-25\",\
             \"far\":\"1925-01-01\",\"at\":\"2026-11-25 01:02:03\",\"exact\":\"2026-11-25 01:02:03.456789\",\
             \"v4\":\"1.2.3.4\",\"v6\":\"2001:db8::1\",\"kind\":\"b\",\"yes\":true,\"it's \\\\ odd\":7,\"tags\":[\"it's\",null],\
             \"attributes\":{{\"a'\":0.1}},\"pair\":{{\"b c\":\"x\",\"a\":1}},\"price\":-0.0001,\"wide\":-12345678901234567890,\
             \"place\":[0.1,-1e300],\"span\":\"-12:34:56.789\",\"any\":{{\"z\":1,\"a\":[1,null]}},\
             \"list\":[\"it's\",\"2020-01-01 00:00:00\",1.5,[1],[1,\"x\"]],\
             \"open\":{{\"z\":\"x\",\"n\":0.1,\"a\":{{\"b\":\"2020-01-01 00:00:00\"}}}},\"one\":7}}\n"
        ),
        1 => format!("{{\"event\":\"\",\"sequence\":{number},\"large\":-0.0}}\n"),
        _ => event(number),
    };
    let mut unanswered = Unanswered::new(variant, columns, 300, line);
    unanswered.restart();
    unanswered.forwarder.lose_answers(false);
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (0..300).collect::<Vec<_>>());
    let odd = format!("SELECT sum(`it's \\\\ odd`) FROM {}.events", unanswered.database);
    assert_eq!(unanswered.clickhouse.query(&odd).trim(), "700");
    assert!(!unanswered.server.log().contains("another one"), "{}", unanswered.server.log());
}

const WITH_DEFAULTS: &str = "event String, sequence Int64, doubled Int64 DEFAULT sequence * 2, made DateTime64(9) DEFAULT \
                             now64(9), note String DEFAULT 'none', prefix String EPHEMERAL 'p', \
                             name String DEFAULT concat(prefix, event), ip String, server_time DateTime";

#[test]
fn rows_whose_defaults_clickhouse_computed_are_recognised() {
    let line =
        |number: i64| format!("{{\"event\":\"e\",\"sequence\":{number},\"note\":\"{number}\",\"prefix\":\"x\"}}\n");
    let mut unanswered = Unanswered::new(Variant::USUAL, WITH_DEFAULTS, 20, line);
    unanswered.restart();
    unanswered.forwarder.lose_answers(false);
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (0..20).collect::<Vec<_>>());
    let sums = format!("SELECT sum(doubled), any(name), uniqExact(note) FROM {}.events", unanswered.database);
    assert_eq!(unanswered.clickhouse.query(&sums).trim(), "380\txe\t20");
    assert!(!unanswered.server.log().contains("another one"), "{}", unanswered.server.log());
}

#[test]
fn rows_that_may_differ_in_a_column_with_defaults_are_not_taken_for_each_other() {
    // Half of the rows have a note of their own, and the others its default.
    let line = |number: i64| match number % 2 {
        0 => format!("{{\"event\":\"e\",\"sequence\":{number},\"note\":\"{number}\"}}\n"),
        _ => format!("{{\"event\":\"e\",\"sequence\":{number}}}\n"),
    };
    let mut unanswered = Unanswered::new(Variant::USUAL, WITH_DEFAULTS, 20, line);
    unanswered.restart();
    unanswered.forwarder.lose_answers(false);
    let ready = || unanswered.server.admin_get("/readyz").text();
    wait_for(|| unanswered.server.log(), || ready().contains("some hold defaults of ClickHouse").then_some(()));
    unanswered.delete("true");
    unanswered.requeue(&[]);
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (0..20).collect::<Vec<_>>());
}

#[test]
fn without_a_restart_the_token_is_believed() {
    let unanswered = Unanswered::new(Variant::USUAL, COLUMNS, 20, event);
    unanswered.delete("sequence < 5");
    unanswered.forwarder.lose_answers(false);
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (5..20).collect::<Vec<_>>());
}

#[test]
fn where_some_rows_are_there_the_operator_decides() {
    let mut unanswered = Unanswered::new(Variant::USUAL, COLUMNS, 20, event);
    unanswered.delete("sequence < 5");
    unanswered.restart();
    unanswered.forwarder.lose_answers(false);
    unanswered.wait_until_held();
    assert_eq!(unanswered.stored(), (5..20).collect::<Vec<_>>());
    // What the reason advises.
    unanswered.delete("true");
    unanswered.requeue(&[]);
    unanswered.server.wait_until_drained();
    assert_eq!(unanswered.stored(), (0..20).collect::<Vec<_>>());
}

#[test]
fn what_the_operator_forces_goes_in_once_more() {
    for with_server in [true, false] {
        let mut unanswered = Unanswered::new(Variant::USUAL, COLUMNS, 20, event);
        unanswered.delete("sequence < 5");
        unanswered.restart();
        unanswered.forwarder.lose_answers(false);
        unanswered.wait_until_held();
        if with_server {
            unanswered.requeue(&["--force"]);
        } else {
            unanswered.server.kill9();
            let spool = unanswered.server.spool_dir().to_string_lossy().into_owned();
            let admin = unanswered.server.admin_address().to_string();
            let arguments = ["spool", "requeue", "--force", "--admin-listen", &admin, "--spool-dir", &spool];
            let (succeeded, out, error) = run(&arguments);
            assert!(succeeded && out.contains("sends 1 blocks again"), "{out}{error}");
            unanswered.server = unanswered.server.start_again();
        }
        unanswered.server.wait_until_drained();
        let mut expected: Vec<i64> = (0..20).chain(5..20).collect();
        expected.sort_unstable();
        assert_eq!(unanswered.stored(), expected, "{with_server}");
    }
}
