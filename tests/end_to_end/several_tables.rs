//! A server of several tables: each gets its events, and one that is missing or can't be filled stops none of
//! the others.

use std::path::Path;

use crate::support::proxy::{Fault, Proxy, Reaches, Then};
use crate::support::{ClickHouse, Folder, Server, get, post, run, shared_clickhouse, wait_for};

/// Columns of a table that a test makes.
const COLUMNS: &str = "event String, ip String, server_time DateTime('UTC')";

/// A server of `[table.…]` sections, and the folder of its file.
fn start(clickhouse: &ClickHouse, database: &str, sections: &str, flags: &[&str]) -> (Server, Folder) {
    let folder = Folder::new();
    let path = Path::new(folder.path()).join("sluicegate.toml").to_string_lossy().into_owned();
    std::fs::write(&path, sections).unwrap();
    (Server::start(clickhouse, database, &[&["--config", path.as_str()], flags].concat()), folder)
}

fn create(clickhouse: &ClickHouse, table: &str, columns: &str) {
    clickhouse.query(&format!(
        "CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY event \
         SETTINGS non_replicated_deduplication_window = 10000"
    ));
}

fn status(server: &Server, path: &str) -> u16 {
    post(server.address(), path, b"{\"event\":\"a\"}").status
}

/// Waits until the path answers with this status.
fn wait_for_status(server: &Server, path: &str, expected: u16) {
    wait_for(
        || format!("{path} answers {}:\n{}", status(server, path), server.log()),
        || (status(server, path) == expected).then_some(()),
    );
}

fn events(clickhouse: &ClickHouse, table: &str) -> String {
    clickhouse.query(&format!("SELECT event FROM {table} ORDER BY event")).trim().to_owned()
}

#[test]
fn each_table_gets_its_own_events_and_rejected_lines_and_is_counted_for_itself() {
    let clickhouse = shared_clickhouse();
    let (database, other) = (clickhouse.database(), format!("{}_web", clickhouse.database()));
    clickhouse.query(&format!("CREATE DATABASE {other}"));
    create(clickhouse, &format!("{other}.hits"), COLUMNS);
    create(clickhouse, &format!("{other}.events"), "event String, number UInt8");
    let sections = format!("[table.events]\n[table.\"{other}.hits\"]\npath = \"/hits\"\n[table.\"{other}.events\"]\n");
    let (server, _folder) = start(clickhouse, &database, &sections, &[]);
    let label = |database: &str| format!("{database}.events");
    let post_to = |path: &str, body: &str| post(server.address(), path, body.as_bytes()).text();
    let two = "{\"event\":\"a\"}\nbad\n{\"event\":\"b\"}";
    assert!(post_to("/hits", two).contains("\"accepted\":2,\"rejected\":1"));
    assert!(post_to("/api/events", "{\"event\":\"c\"}").contains("\"accepted\":1"), "that of --database");
    assert!(post_to(&format!("/api/{}", label(&database)), "{\"event\":\"d\"}").contains("\"accepted\":1"));
    let mixed = "{\"event\":\"e\",\"number\":256}\n{\"event\":\"f\",\"number\":7}";
    assert!(post_to(&format!("/api/{}", label(&other)), mixed).contains("\"accepted\":1,\"rejected\":1"));
    assert!(post_to("/api/hits", two).contains("not_found"));
    for (table, rows) in [
        (format!("{other}.hits"), 2),
        (format!("{other}.hits_quarantine"), 1),
        (format!("{database}.events"), 2),
        (format!("{other}.events"), 1),
        (format!("{other}.events_quarantine"), 1),
    ] {
        server.wait_for_rows(clickhouse, &table, rows);
    }
    assert_eq!(events(clickhouse, &format!("{other}.hits")), "a\nb");
    assert_eq!(events(clickhouse, &format!("{database}.events")), "c\nd");
    assert_eq!(events(clickhouse, &format!("{other}.events")), "f");
    let lines = |table: &str| clickhouse.query(&format!("SELECT line FROM {table}_quarantine")).trim().to_owned();
    assert_eq!(lines(&format!("{other}.hits")), "bad");
    assert_eq!(lines(&format!("{other}.events")), r#"{"event":"e","number":256}"#);
    assert_eq!(lines(&format!("{database}.events")), "");
    // An INSERT is counted a moment after its rows are there.
    let quarantine = format!("{}_quarantine", label(&other));
    let counted = || {
        let metrics = server.metrics();
        let of = |name: &str, table: &str, more: &str| {
            metrics[&format!("sluicegate_{name}_total{{table=\"{table}\"{more}}}")]
        };
        let inserted = ["hits", &label(&database), &label(&other)].map(|table| of("events_inserted", table, ""));
        let quarantined = metrics["sluicegate_events_quarantined_total"];
        let done = ",outcome=\"done\"";
        (inserted, quarantined, of("inserts", "hits", done) >= 1.0, of("inserts", &quarantine, done))
    };
    let expected = ([2.0, 2.0, 1.0], 2.0, true, 1.0);
    wait_for(|| format!("{:?}", counted()), || (counted() == expected).then_some(()));
    let metrics = server.metrics();
    let account = |table: &str, account: &str| {
        metrics[&format!("sluicegate_ledger_events{{table=\"{table}\",account=\"{account}\"}}")]
    };
    let tables = ["hits", "hits_quarantine", &label(&database), &label(&other), &quarantine];
    assert_eq!(tables.map(|table| account(table, "committed")), [2.0, 1.0, 2.0, 1.0, 1.0]);
    assert_eq!(tables.map(|table| account(table, "spooled")), [0.0; 5]);
    for (path, lines) in [("/api/hits", 2), ("/api/events", 2), (&*format!("/api/{}", label(&other)), 1)] {
        let found = get(server.admin_address(), path);
        assert_eq!((found.status, found.text().lines().count()), (200, lines), "{path}: {}", found.text());
    }
    assert!(server.stop().success());
}

#[test]
fn a_table_that_is_missing_at_the_start_stops_no_other_and_takes_events_once_it_is_there() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.narrow"), COLUMNS);
    let sections = "[table.events]\n[table.hits]\n[table.narrow]\ndedup-field = \"id\"\n";
    let (server, _folder) = start(clickhouse, &database, sections, &[]);
    assert_eq!([status(&server, "/api/events"), status(&server, "/api/narrow")], [200, 503]);
    let refused = post(server.address(), "/api/hits", b"{\"event\":\"a\"}");
    assert!(refused.status == 503 && refused.text().contains("\"table_unavailable\""), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let ready = server.admin_get("/readyz");
    assert!(ready.status == 200 && ready.text().contains("table hits: "), "{}", ready.text());
    assert!(ready.text().contains("table narrow: ") && ready.text().contains("--dedup-field id"), "{}", ready.text());
    create(clickhouse, &format!("{database}.hits"), COLUMNS);
    wait_for_status(&server, "/api/hits", 200);
    clickhouse.query(&format!("ALTER TABLE {database}.narrow ADD COLUMN id String"));
    wait_for_status(&server, "/api/narrow", 200);
    // What was said of it goes a moment behind its first event.
    let said = || server.admin_get("/readyz").text();
    wait_for(said, || (!said().contains("table ")).then_some(()));
    wait_for(|| server.log(), || events(clickhouse, &format!("{database}.hits")).starts_with('a').then_some(()));
    assert!(server.stop().success());
}

#[test]
fn a_table_that_is_dropped_answers_503_until_it_is_there_again_and_delays_no_other() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (dropped, hits) = (format!("{database}.events"), format!("{database}.hits"));
    create(clickhouse, &hits, COLUMNS);
    let (server, _folder) = start(clickhouse, &database, "[table.events]\n[table.hits]\n[table.later]\n", &[]);
    clickhouse.query(&format!("DROP TABLE {dropped} SYNC"));
    // What is taken before the server knows is held, and asks for the table again.
    wait_for_status(&server, "/api/events", 503);
    assert_eq!(status(&server, "/api/hits"), 200);
    server.wait_for_rows(clickhouse, &hits, 1);
    assert!(server.admin_get("/readyz").text().contains("table events: "), "{}", server.admin_get("/readyz").text());
    // What an operator has dropped is not made again by the look that finds another table.
    create(clickhouse, &format!("{database}.later"), COLUMNS);
    wait_for_status(&server, "/api/later", 200);
    assert_eq!(clickhouse.query(&format!("EXISTS TABLE {dropped}")).trim(), "0");
    create(clickhouse, &dropped, &format!("{COLUMNS}, more String"));
    wait_for_status(&server, "/api/events", 200);
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"z\",\"more\":\"m\"}").status, 200);
    wait_for(
        || server.log(),
        || (clickhouse.query(&format!("SELECT more FROM {dropped} WHERE event = 'z'")).trim() == "m").then_some(()),
    );
}

#[test]
fn a_server_of_which_no_table_takes_events_is_not_ready() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = Folder::new();
    let path = Path::new(folder.path()).join("sluicegate.toml").to_string_lossy().into_owned();
    std::fs::write(&path, "[table.a]\n[table.b]\n").unwrap();
    let server = Server::start_unready(clickhouse, &database, &["--config", &path]);
    wait_for(|| server.log(), || server.admin_get("/readyz").text().contains("table_unavailable").then_some(()));
    assert_eq!(server.admin_get("/readyz").status, 503);
    create(clickhouse, &format!("{database}.b"), COLUMNS);
    server.wait_until_ready();
    assert_eq!([status(&server, "/api/a"), status(&server, "/api/b")], [503, 200]);
    assert_eq!(get(server.address(), "/health").status, 200);
}

#[test]
fn without_clickhouse_each_table_has_its_own_last_known_columns() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    create(&clickhouse, &format!("{database}.hits"), "event String, number UInt8");
    let (mut server, _folder) = start(&clickhouse, &database, "[table.events]\n[table.hits]\n[table.never]\n", &[]);
    clickhouse.kill();
    server.kill9();
    let server = server.start_again();
    let rejected =
        post(server.address(), "/api/hits", b"{\"event\":\"a\",\"number\":256}\n{\"event\":\"b\",\"number\":7}");
    assert!(rejected.text().contains("\"accepted\":1,\"rejected\":1"), "{}", rejected.text());
    let accepted = post(server.address(), "/api/events", b"{\"event\":\"c\",\"number\":256}");
    assert!(accepted.text().contains("\"accepted\":1,\"rejected\":0"), "{}", accepted.text());
    assert_eq!(status(&server, "/api/never"), 503);
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.hits"), 1);
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 1);
}

#[test]
fn a_section_s_rate_is_that_of_its_table_alone() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.hits"), COLUMNS);
    let sections = "rate-limit = \"1000000/s\"\n[table.events]\n[table.hits]\nrate-limit = \"1/s,burst=2\"\n";
    let (server, _folder) = start(clickhouse, &database, sections, &[]);
    let three = b"{\"event\":\"a\"}\n{\"event\":\"b\"}\n{\"event\":\"c\"}";
    let two = b"{\"event\":\"a\"}\n{\"event\":\"b\"}";
    assert_eq!([0, 1].map(|_| post(server.address(), "/api/hits", two).status), [200, 429]);
    assert_eq!(post(server.address(), "/api/hits", three).status, 413, "more than its burst");
    assert_eq!(post(server.address(), "/api/events", three).status, 200);
    assert!(server.stop().success());
}

#[test]
fn rejected_lines_of_each_table_are_listed_and_sent_again_for_themselves() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.hits"), "event String, number UInt8");
    let (server, folder) = start(clickhouse, &database, "[table.events]\n[table.hits]\n", &[]);
    assert_eq!(post(server.address(), "/api/hits", b"{\"event\":\"a\",\"number\":256}").status, 422);
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"a\",\"sequence\":\"x\"}").status, 422);
    server.wait_for_rows(clickhouse, &format!("{database}.hits_quarantine"), 1);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);
    let path = Path::new(folder.path()).join("sluicegate.toml").to_string_lossy().into_owned();
    let (url, admin) = (clickhouse.url(), server.admin_address().to_string());
    let command = |words: &[&str]| {
        let settings = ["--config", &path, "--clickhouse-url", &url, "--database", &database, "--admin-listen", &admin];
        let (ok, said, error) = run(&[&["quarantine"], words, &settings].concat());
        assert!(ok, "{error}");
        said
    };
    let listed = command(&["list"]);
    assert!(listed.contains("`hits_quarantine`") && listed.contains("`events_quarantine`"), "{listed}");
    let listed = command(&["list", "--only", "hits"]);
    assert!(listed.contains("`hits_quarantine`") && !listed.contains("events"), "{listed}");
    clickhouse.query(&format!("ALTER TABLE {database}.hits MODIFY COLUMN number UInt16"));
    // The server looks at its tables again, and the line is good once it has followed this one.
    assert_eq!(post(server.admin_address(), "/spool/requeue", b"").status, 200);
    wait_for(
        || server.log(),
        || command(&["replay", "--only", "hits", "--dry-run"]).contains("1 would be accepted").then_some(()),
    );
    let replayed = command(&["replay"]);
    assert!(replayed.contains("table hits:") && replayed.contains("1 accepted, 0 rejected again"), "{replayed}");
    assert!(replayed.contains("table events:") && replayed.contains("0 accepted, 1 rejected again"), "{replayed}");
    server.wait_for_rows(clickhouse, &format!("{database}.hits"), 1);
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events_quarantine")).trim(), "1");
    assert!(server.stop().success());
}

#[test]
fn what_is_held_is_sent_again_and_drained_for_the_tables_that_are_named() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.hits"), COLUMNS);
    let (mut server, folder) = start(clickhouse, &database, "[table.events]\n[table.hits]\n", &[]);
    let rename = |from: &str, to: &str| {
        for table in ["events", "hits"] {
            clickhouse.query(&format!("RENAME TABLE {database}.{table}{from} TO {database}.{table}{to}"));
        }
    };
    rename("", "_away");
    // The server does not know yet that the tables are gone.
    assert_eq!([status(&server, "/api/events"), status(&server, "/api/hits")], [200, 200]);
    wait_for(|| server.log(), || (server.metrics()["sluicegate_blocks_held"] == 2.0).then_some(()));
    let path = Path::new(folder.path()).join("sluicegate.toml").to_string_lossy().into_owned();
    let (url, admin) = (clickhouse.url(), server.admin_address().to_string());
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let command = |words: &[&str]| {
        let settings = ["--config", &path, "--clickhouse-url", &url, "--database", &database];
        let own = ["--admin-listen", &admin, "--spool-dir", &spool];
        run(&[words, &settings, &own].concat())
    };
    let requeued = |words: &[&str]| command(&[&["spool", "requeue"], words].concat()).1;
    // One that is being tried is in nobody's queue.
    let becomes = |words: &[&str], expected: &str| {
        wait_for(|| server.log(), || requeued(words).contains(&format!("{{\"requeued\":{expected}}}")).then_some(()));
    };
    becomes(&["--only", "hits"], "1");
    becomes(&[], "2");
    server.kill9();
    rename("_away", "");
    let (ok, _, said) = command(&["drain", "--only", "hits"]);
    assert!(ok, "{said}");
    assert_eq!(
        [events(clickhouse, &format!("{database}.hits")), events(clickhouse, &format!("{database}.events"))],
        ["a", ""]
    );
    let (ok, _, said) = command(&["drain"]);
    assert!(ok, "{said}");
    assert_eq!(events(clickhouse, &format!("{database}.events")), "a");
}

/// Rows of `few` throw in a view, so each block of it is held; those of `events` go in beside it.
#[test]
fn a_table_that_is_held_for_ever_takes_no_room_from_the_others_and_delays_none() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.few"), COLUMNS);
    create(clickhouse, &format!("{database}.events"), COLUMNS);
    clickhouse.query(&format!(
        "CREATE MATERIALIZED VIEW {database}.broken ENGINE = Memory AS \
         SELECT throwIf(event != '', 'as told') AS nothing FROM {database}.few"
    ));
    let flags = ["--batch-bytes", "256KiB", "--spool-bytes-max", "4MiB", "--batch-age", "1h"];
    let (server, _folder) = start(clickhouse, &database, "[table.events]\n[table.few]\nbatch-rows = 3\n", &flags);
    let row = format!("{{\"event\":\"{}\"}}\n", "x".repeat(1000));
    let body = row.repeat(100);
    let (mut rows, mut few) = (0, 0);
    // Ten times what the spool may hold, and a few rows of the held table in each segment.
    for request in 0..400 {
        // A full spool has room again as soon as rows of its table are in.
        let is_taken = || (post(server.address(), "/api/events", body.as_bytes()).status == 200).then_some(());
        wait_for(|| format!("request {request}:\n{}", server.log()), is_taken);
        rows += 100;
        if request % 2 == 0 {
            few += u32::from(status(&server, "/api/few") == 200);
        }
    }
    assert!(server.metrics()["sluicegate_blocks_held"] > 30.0, "{}", server.metrics()["sluicegate_blocks_held"]);
    let server = server.restart();
    wait_for(
        || server.log(),
        || {
            let count = clickhouse.query(&format!("SELECT count() FROM {database}.events"));
            (count.trim() == rows.to_string()).then_some(())
        },
    );
    clickhouse.query(&format!("DROP TABLE {database}.broken SYNC"));
    assert_eq!(post(server.admin_address(), "/spool/requeue", b"").status, 200);
    server.wait_until_drained();
    let counts = ["events", "few"].map(|table| clickhouse.query(&format!("SELECT count() FROM {database}.{table}")));
    assert_eq!(counts.map(|count| count.trim().to_owned()), [rows.to_string(), few.to_string()]);
    assert!(server.stop().success());
}

#[test]
fn a_table_that_has_its_share_of_the_spool_is_refused_alone() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    create(&clickhouse, &format!("{database}.few"), COLUMNS);
    create(&clickhouse, &format!("{database}.events"), COLUMNS);
    let sections = "[table.events]\n[table.few]\nspool-bytes-max = \"300KiB\"\n";
    let flags = ["--batch-bytes", "256KiB", "--spool-bytes-max", "32MiB"];
    let (server, _folder) = start(&clickhouse, &database, sections, &flags);
    clickhouse.kill();
    let body = format!("{{\"event\":\"{}\"}}\n", "x".repeat(1000)).repeat(100);
    let mut taken = 0;
    let refused = (0..10).find_map(|_| {
        let reply = post(server.address(), "/api/few", body.as_bytes());
        taken += u64::from(reply.status == 200);
        (reply.status != 200).then_some(reply)
    });
    let refused = refused.unwrap_or_else(|| panic!("it takes more than its share:\n{}", server.log()));
    assert!(refused.status == 503 && refused.text().contains("spool_full"), "{}", refused.text());
    assert_eq!(taken, 3);
    for _ in 0..20 {
        assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
    }
    assert_eq!(server.admin_get("/readyz").status, 200);
    clickhouse.restart();
    server.wait_for_rows(&clickhouse, &format!("{database}.few"), 300);
    server.wait_for_rows(&clickhouse, &format!("{database}.events"), 2000);
    assert_eq!(post(server.address(), "/api/few", body.as_bytes()).status, 200);
}

#[test]
fn a_table_whose_inserts_hang_delays_no_other() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    for table in ["hanging", "quick"] {
        create(clickhouse, &format!("{database}.{table}"), COLUMNS);
    }
    let proxy = Proxy::start(clickhouse);
    proxy.only("hanging");
    // More than there are inserters and spare ones.
    let silence = Fault { name: "silence", reaches: Reaches::Nothing, then: Then::Silence, outcome: "retry" };
    proxy.inflict(std::iter::repeat_n(silence, 100));
    let url = proxy.url();
    let flags = ["--clickhouse-url", &url, "--inserters", "2", "--insert-timeout", "1h", "--batch-age", "20ms"];
    let (server, _folder) = start(clickhouse, &database, "[table.hanging]\n[table.quick]\n", &flags);
    let quick = format!("{database}.quick");
    // A segment has a block of each, so that the quick one's are followed by ever more of the other.
    for sent in 1..=12 {
        assert_eq!(status(&server, "/api/hanging"), 200);
        assert_eq!(status(&server, "/api/quick"), 200);
        server.wait_for_rows(clickhouse, &quick, sent);
    }
    assert_eq!(proxy.inflicted(), 2, "one for each inserter");
    proxy.inflict([]);
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.hanging")).trim(), "0");
}

#[test]
fn a_table_that_can_not_be_asked_about_hides_no_change_of_another() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    for table in ["locked", "other"] {
        create(clickhouse, &format!("{database}.{table}"), COLUMNS);
    }
    let proxy = Proxy::start(clickhouse);
    let url = proxy.url();
    let (server, _folder) =
        start(clickhouse, &database, "[table.locked]\n[table.other]\n", &["--clickhouse-url", &url]);
    assert_eq!(status(&server, "/api/other"), 200);
    server.wait_for_rows(clickhouse, &format!("{database}.other"), 1);
    proxy.fall_ill_about("locked", Then::Silence);
    clickhouse.query(&format!("DROP TABLE {database}.other SYNC"));
    // The first INSERT that fails has all tables described again, the locked one first.
    wait_for_status(&server, "/api/other", 503);
    create(clickhouse, &format!("{database}.other"), COLUMNS);
    wait_for_status(&server, "/api/other", 200);
}

#[test]
fn a_table_that_can_not_be_asked_about_delays_no_first_start_for_the_others() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    for table in ["locked", "other"] {
        create(clickhouse, &format!("{database}.{table}"), COLUMNS);
    }
    let proxy = Proxy::start(clickhouse);
    proxy.fall_ill_about("locked", Then::Silence);
    let url = proxy.url();
    let (server, _folder) =
        start(clickhouse, &database, "[table.locked]\n[table.other]\n", &["--clickhouse-url", &url]);
    assert_eq!([status(&server, "/api/locked"), status(&server, "/api/other")], [503, 200]);
    server.wait_for_rows(clickhouse, &format!("{database}.other"), 1);
    proxy.recover();
    wait_for_status(&server, "/api/locked", 200);
}
