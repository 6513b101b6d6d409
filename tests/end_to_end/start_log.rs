//! What a start says: what is listening, what the tables promise, and warnings last; each of it once.

use serde_json::Value;

use crate::support::{ClickHouse, Folder, Server, post, shared_clickhouse, wait_for};

/// The lines of a log: level, message, and the whole line.
fn lines(log: &str) -> Vec<(String, String, String)> {
    let line = |text: &str| {
        let line: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let of = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        (of("level"), of("message"), text.to_owned())
    };
    log.lines().map(line).collect()
}

fn has_said(server: &Server, text: &str) -> Option<()> {
    server.log().contains(text).then_some(())
}

#[test]
fn a_start_takes_few_lines_and_says_what_was_set() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    // No more than any machine has files for.
    let server = Server::start(clickhouse, &database, &["--connections-max", "100"]);
    wait_for(|| server.log(), || has_said(&server, "what tables promise"));
    let log = server.log();
    let said: Vec<(String, String)> = lines(&log).into_iter().map(|(level, message, _)| (level, message)).collect();
    let messages: Vec<&str> = said.iter().map(|(_, message)| message.as_str()).collect();
    let guessed = "bare numbers in these columns are Unix times in the unit that their magnitude says; `columns` may name the unit";
    let expected = [
        "starting",
        "ClickHouse has answered",
        "created the missing table",
        "the quarantine table was missing and is created",
        guessed,
        "serving",
        "what tables promise",
    ];
    assert!(messages == expected && said.iter().all(|(level, _)| level == "INFO"), "{log}");
    let (_, _, first) = &lines(&log)[0];
    assert!(first.contains("batch-age=100ms") && !first.contains("batch-rows="), "{first}");
    assert!(log.contains("\"guarantee\":\"exactly once\""), "{log}");
    assert!(server.stop().success());
}

#[test]
fn each_thing_that_is_wrong_with_a_table_is_said_once_behind_what_is_right() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let create = |table: &str| {
        clickhouse.query(&format!(
            "CREATE TABLE {database}.{table} (event String, n UInt8) ENGINE = MergeTree ORDER BY event"
        ))
    };
    create("weak");
    let folder = Folder::new();
    let file = folder.path().join("a.toml").to_str().unwrap().to_owned();
    std::fs::write(&file, "[table.events]\n[table.gone]\n[table.weak]\n").unwrap();
    let server = Server::start(clickhouse, &database, &["--config", &file]);
    wait_for(|| server.log(), || has_said(&server, "a table promises less than exactly once"));
    // The watcher has looked for it meanwhile.
    create("gone");
    wait_for(|| server.log(), || has_said(&server, "the table is there; its events are taken"));
    let log = server.log();
    let before: Vec<_> =
        lines(&log).into_iter().take_while(|(_, message, _)| !message.starts_with("the table is there")).collect();
    let place = |text: &str| {
        before.iter().position(|(_, message, _)| message == text).unwrap_or_else(|| panic!("{text}: {log}"))
    };
    let of_gone: Vec<_> = before.iter().filter(|(level, _, line)| level == "WARN" && line.contains("gone")).collect();
    assert_eq!(of_gone.len(), 1, "{log}");
    assert_eq!(of_gone[0].1, "a table takes no events; they are answered with 503", "{log}");
    let less = place("a table promises less than exactly once");
    assert!(place("serving") < less && place("what tables promise") < less, "{log}");
    assert!(before[less].2.contains("MODIFY SETTING non_replicated_deduplication_window"), "{log}");
    let warnings = before.iter().filter(|(level, _, _)| level == "WARN").count();
    assert_eq!(warnings, 2, "{log}");
    assert!(server.stop().success());
}

#[test]
fn a_failed_insert_is_said_with_the_id_by_which_clickhouse_knows_it() {
    let log = "<query_log><database>system</database><table>query_log</table></query_log>";
    let clickhouse = &ClickHouse::start_with_config(&format!("<clickhouse>{log}</clickhouse>"));
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    assert_eq!(post(server.address(), "/api/events?ack=inserted", b"{\"event\":\"a\"}").status, 200);
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"b\"}").status, 200);
    wait_for(|| server.log(), || has_said(&server, "UNKNOWN_TABLE"));
    let log = server.log();
    let id =
        log.split_once("(sluicegate-").and_then(|(_, rest)| rest.split(')').next()).unwrap_or_else(|| panic!("{log}"));
    let id = format!("sluicegate-{id}");
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    clickhouse.query("SYSTEM FLUSH LOGS");
    let known = clickhouse.query(&format!("SELECT type, exception_code FROM system.query_log WHERE query_id = '{id}'"));
    assert_eq!(known.trim(), "ExceptionBeforeStart\t60");
    // Those that succeed have one as well.
    let succeeded = "SELECT count() FROM system.query_log WHERE startsWith(query_id, 'sluicegate-') \
                     AND type = 'QueryFinish' AND query_kind = 'Insert' AND written_rows = 1";
    assert_ne!(clickhouse.query(succeeded).trim(), "0");
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    assert!(server.stop().success());
}
