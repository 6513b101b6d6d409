//! The oracle of what a value means: ClickHouse's own `JSONEachRow` on the same lines.

use std::collections::BTreeMap;

use crate::support::{ClickHouse, Server, post};

/// A line's columns beside `id`, as JSON, and the reason why ClickHouse makes something else of it.
pub struct Line {
    pub json: String,
    pub exception: Option<&'static str>,
}

/// Sends the lines both ways; panics with those that differ without a reason, and with those that
/// have a reason and don't differ.
pub fn compare(clickhouse: &ClickHouse, database: &str, columns: &str, lines: &[Line]) {
    // Older versions have no Nullable(Tuple) and no such setting.
    let nullable_tuples = clickhouse.query(
        "SELECT concat(', ', name, ' = 1') FROM system.settings WHERE name = 'allow_experimental_nullable_tuple_type'",
    );
    for table in ["ours", "theirs"] {
        clickhouse.query(&format!(
            "CREATE TABLE {database}.{table} (id UInt32, {columns}) ENGINE = MergeTree ORDER BY id \
             SETTINGS allow_suspicious_low_cardinality_types = 1, enable_time_time64_type = 1, \
             allow_suspicious_variant_types = 1{nullable_tuples}"
        ));
    }
    let server = Server::start(clickhouse, database, &["--table", "ours"]);
    let numbered = lines.iter().enumerate().map(|(id, line)| format!("{{\"id\":{id},{}}}\n", line.json));
    let numbered: Vec<String> = numbered.collect();
    // A request with more bad lines than this would be refused as a whole.
    let accepted = numbered.chunks(1000).map(|lines| {
        let reply = post(server.address(), "/api/ours", lines.concat().as_bytes());
        let reply: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
        reply["accepted"].as_u64().unwrap()
    });
    let accepted = accepted.sum();
    server.wait_for_rows(clickhouse, &format!("{database}.ours"), accepted);
    // Without a list of columns ClickHouse takes a value for an EPHEMERAL column for an unknown field.
    let listed = clickhouse.query(&format!(
        "SELECT arrayStringConcat(groupArray('`' || replaceAll(name, '`', '\\\\`') || '`'), ', ') FROM system.columns \
         WHERE database = '{database}' AND table = 'theirs' AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') \
         FORMAT TSVRaw"
    ));
    insert(clickhouse, &format!("{database}.theirs ({})", listed.trim()), &numbered);
    let differing = clickhouse.query(&format!(
        "SELECT id, if(o.found, o.row, 'refused'), if(t.found, t.row, 'refused') \
         FROM (SELECT id, toString(tuple(* EXCEPT id)) AS row, true AS found FROM {database}.ours) AS o \
         FULL JOIN (SELECT id, toString(tuple(* EXCEPT id)) AS row, true AS found FROM {database}.theirs) AS t USING id \
         WHERE o.found != t.found OR o.row != t.row ORDER BY id FORMAT JSONCompactEachRow"
    ));
    let mut differing: BTreeMap<usize, String> = differing
        .lines()
        .map(|line| serde_json::from_str::<(usize, String, String)>(line).unwrap())
        .map(|(id, ours, theirs)| (id, format!("ours {ours}\n    theirs {theirs}")))
        .collect();
    // Other versions know fewer forms, and have other exceptions.
    let is_same_version = clickhouse.query("SELECT version()").starts_with("26.7.");
    let mut wrong = Vec::new();
    for (id, line) in lines.iter().enumerate() {
        match (differing.remove(&id), line.exception) {
            (Some(difference), None) => wrong.push(format!("{}\n    {difference}", line.json)),
            (None, Some(reason)) if is_same_version => {
                wrong.push(format!("{}\n    is no exception: {reason}", line.json))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty() && differing.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
    let (compared, stored): (u64, u64) = (lines.len() as u64, accepted);
    assert!(
        stored > compared / 4 && stored < compared,
        "{stored} of {compared} lines are stored: this compares nothing"
    );
    assert!(server.stop().success());
}

/// Some errors of a value stop an INSERT that may have errors all the same: then its halves.
fn insert(clickhouse: &ClickHouse, table: &str, lines: &[String]) {
    let inserted = clickhouse.try_query(&format!(
        "INSERT INTO {table} SETTINGS async_insert = 0, date_time_input_format = 'best_effort', \
         input_format_skip_unknown_fields = 1, input_format_null_as_default = 1, input_format_parallel_parsing = 0, \
         input_format_allow_errors_num = 100000 FORMAT JSONEachRow\n{}",
        // After an error ClickHouse goes on behind the next line feed, but some values are read with a fixed
        // length: they must not reach the next line.
        lines.concat().replace('\n', &format!("{}\n", " ".repeat(100)))
    ));
    if let (Err(_), 2..) = (inserted, lines.len()) {
        let (one, other) = lines.split_at(lines.len() / 2);
        insert(clickhouse, table, one);
        insert(clickhouse, table, other);
    }
}
