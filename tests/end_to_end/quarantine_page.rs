//! `/api/<table>/quarantine` of the admin address: shows rejected lines, and takes them again.

use serde_json::{Value, json};

use crate::support::{ClickHouse, Response, Server, Variant, each_engine, post, post_with, shared_clickhouse};

/// A server whose quarantine has lines of several kinds and times.
struct Bench {
    clickhouse: &'static ClickHouse,
    database: String,
    server: Server,
    /// The dates of the day before yesterday and of yesterday, which no TTL has reached.
    days: [String; 2],
}

impl Bench {
    fn new(variant: Variant) -> Self {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &variant.and(&["--node-id", "here"]));
        let day = |ago: i64| (chrono::Utc::now() - chrono::Duration::days(ago)).format("%Y-%m-%d").to_string();
        Self { clickhouse, database, server, days: [day(2), day(1)] }
    }

    /// A text with the dates in the places of `D1` and `D2`.
    fn dated(&self, text: &str) -> String {
        text.replace("D1", &self.days[0]).replace("D2", &self.days[1])
    }

    /// Puts lines into the quarantine as an earlier time has left them: time, code, message and line.
    fn insert(&self, rows: &[(&str, &str, &str, &str)]) {
        for (time, code, message, line) in rows {
            let time = self.dated(time);
            self.ask(&format!(
                "INSERT INTO $_quarantine SETTINGS async_insert = 0, insert_deduplicate = 0 \
                 VALUES ('{time}', '1.2.3.4', '{code}', '{message}', '{line}')"
            ));
        }
    }

    fn ask(&self, statement: &str) -> String {
        self.clickhouse.query(&statement.replace("$", &format!("{}.events", self.database))).trim().to_owned()
    }

    fn get(&self, query: &str) -> Response {
        self.server.admin_get(&self.dated(&format!("/api/events/quarantine{query}")))
    }

    /// The lines that a query shows.
    fn lines(&self, query: &str) -> Vec<String> {
        let reply = self.get(query);
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["line"].as_str().unwrap().to_owned();
        reply.text().lines().map(line).collect()
    }

    fn take(&self, query: &str) -> (u16, Value) {
        let target = self.dated(&format!("/api/events/quarantine{query}"));
        let reply = post(self.server.admin_address(), &target, b"");
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    fn taken(&self, query: &str, replayed: u64, rejected: u64) {
        let dry_run = query.contains("dry_run");
        let expected = json!({"replayed": replayed, "rejected": rejected, "truncated": 0, "dry_run": dry_run});
        assert_eq!(self.take(query), (200, expected), "{query}: {}", self.server.log());
    }
}

#[test]
fn lines_are_shown_newest_first_by_code_time_and_text() {
    let bench = Bench::new(Variant::USUAL);
    bench.insert(&[
        ("D1 10:00:00", "invalid_json", "it is bad", "one"),
        ("D1 10:00:01", "type_mismatch", "not a number: 100%", "two"),
        ("D2 00:00:00", "invalid_json", "it is bad", "Three \\\\ \\t\\n\\' \\xff"),
        ("D2 00:00:00", "replay", "elsewhere", ""),
    ]);
    let three = "Three \\ \t\n' \u{fffd}";
    assert_eq!(bench.lines(""), [three, "two", "one"]);
    let first: Value = serde_json::from_str(bench.get("?limit=1").text().trim()).unwrap();
    assert_eq!(
        first,
        json!({"server_time": bench.dated("D2 00:00:00"), "ip": "1.2.3.4", "code": "invalid_json", "message": "it is bad",
               "line": three})
    );
    let second = bench.ask(&bench.dated("SELECT toUnixTimestamp(toDateTime('D1 10:00:01', 'UTC'))"));
    let since = format!("?since={second}");
    for (query, expected) in [
        ("?limit=2", &[three, "two"][..]),
        ("?code=invalid_json", &[three, "one"]),
        ("?code=nothing", &[]),
        ("?code=replay", &[]),
        ("?since=D1T10:00:01Z", &[three, "two"]),
        ("?until=D1+10:00:01", &["two", "one"]),
        ("?since=D1T10:00:01Z&until=D1T10:00:01Z", &["two"]),
        (&since, &[three, "two"]),
        ("?text=ONE", &["one"]),
        ("?text=not+a+number", &["two"]),
        ("?text=100%25", &["two"]),
        ("?text=%25", &["two"]),
        ("?text=%5C", &[three]),
        ("?text=%09%0A%27", &[three]),
        ("?text=%27+OR+1+--+", &[]),
        ("?code=%27+OR+1%3D1+OR+%27", &[]),
        ("?text=", &[three, "two", "one"]),
        ("?code=invalid_json&text=e&limit=1", &[three]),
    ] {
        assert_eq!(bench.lines(query), expected, "{query}");
    }
    for query in ["?since=yesterday", "?until=%27", "?limit=0", "?limit=x", "?sort=1", "?code=a&code=b", "?dry_run=1"] {
        let reply = bench.get(query);
        assert!(reply.status == 400 && reply.text().contains("\"bad_query\""), "{query}: {}", reply.text());
    }
    assert_eq!(bench.server.admin_get("/api/nothing/quarantine").status, 404);
    let reply = post_with(bench.server.admin_address(), "/api/events/quarantine?more=1", "", b"");
    assert_eq!(reply.status, 400);
    bench.ask("DROP TABLE $_quarantine SYNC");
    assert!(bench.get("").status == 404 && bench.get("").text().contains("no_quarantine"), "{}", bench.get("").text());
    assert_eq!(bench.take("").0, 404);
}

each_engine!(lines_that_are_good_now_are_taken_once_and_those_that_are_meant_alone,);

fn lines_that_are_good_now_are_taken_once_and_those_that_are_meant_alone(variant: Variant) {
    let bench = Bench::new(variant);
    let line = |event: &str| format!("{{\"event\":\"{event}\"}}");
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(line);
    bench.insert(&[
        ("D1 10:00:00", "type_mismatch", "m", &a),
        ("D1 10:00:01", "type_mismatch", "m", &b),
        ("D1 10:00:01", "type_mismatch", "m", "still bad"),
        ("D1 10:00:02", "out_of_range", "m", &c),
        ("D1 10:00:03", "out_of_range", "m", &d),
        ("D1 10:00:03", "out_of_range", "m", &e),
    ]);
    let left = || bench.lines("?limit=9").len();
    bench.taken("?dry_run=1", 5, 1);
    bench.taken("?dry_run=1&code=type_mismatch", 2, 1);
    bench.taken("?dry_run=1&limit=1", 2, 0);
    bench.taken("?dry_run=1&limit=3", 3, 0);
    bench.taken("?dry_run=1&limit=4", 4, 1);
    bench.taken("?dry_run=1&text=%22e%22", 1, 0);
    bench.taken("?dry_run=1&code=nothing&limit=5", 0, 0);
    assert_eq!(left(), 6, "nothing is taken so far");
    bench.taken("?text=%22e%22", 1, 0);
    assert_eq!(left(), 5);
    bench.taken("?text=%22e%22", 0, 0);
    bench.taken("?limit=1", 1, 0);
    bench.taken("?since=D1+10:00:01&until=D1+10:00:01", 1, 1);
    bench.taken("", 2, 1);
    assert_eq!(bench.lines(""), ["still bad"]);
    assert_eq!(bench.ask("SELECT count() FROM $_quarantine"), "1", "no mark is left");
    bench.server.wait_for_rows(bench.clickhouse, &format!("{}.events", bench.database), 5);
    bench.taken("", 0, 1);
    let stored = "SELECT event, toString(server_time), ip FROM $ ORDER BY event FORMAT CSV";
    let rows = [("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 3)];
    let rows = rows.map(|(event, second)| bench.dated(&format!("\"{event}\",\"D1 10:00:0{second}\",\"1.2.3.4\"")));
    assert_eq!(bench.ask(stored), rows.join("\n"));
}

#[test]
fn a_replay_of_other_lines_that_did_not_end_keeps_the_next_one_from_storing_twice() {
    let bench = Bench::new(Variant::USUAL);
    let now = bench.ask("SELECT toString(now('UTC'))");
    bench.insert(&[("D1 10:00:00", "type_mismatch", "m", "{\"event\":\"a\"}"), (&now, "replay", "here", "text")]);
    let (status, said) = bench.take("");
    assert_eq!((status, &said["error"]), (409, &json!("replay_undecided")), "{said}");
    assert!(said["message"].as_str().unwrap().contains("of the text \"text\""), "{said}");
    assert_eq!(said["replayed"], 0);
    assert_eq!(bench.take("?text=other").0, 409);
    assert_eq!(bench.ask("SELECT count() FROM $_quarantine"), "2");
    bench.taken("?dry_run=1", 1, 0);
    // The one with the same text goes on, and ends.
    bench.taken("?text=text", 0, 0);
    assert_eq!(bench.ask("SELECT count() FROM $_quarantine"), "1");
    bench.insert(&[(&now, "replay", "elsewhere", "")]);
    let (status, said) = bench.take("");
    assert!(status == 409 && said["message"].as_str().unwrap().contains("the node elsewhere"), "{said}");
    bench.taken("?force=1", 1, 0);
    assert_eq!(bench.ask("SELECT count() FROM $_quarantine"), "0");
}

#[test]
fn pages_of_other_origins_and_other_methods_take_nothing() {
    let bench = Bench::new(Variant::USUAL);
    bench.insert(&[("D1 10:00:00", "type_mismatch", "m", "{\"event\":\"a\"}")]);
    let address = bench.server.admin_address();
    for field in ["Origin: http://elsewhere.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        let reply = post_with(address, "/api/events/quarantine", field, b"");
        assert!(reply.status == 403 && reply.text().contains("cross_site"), "{}", reply.text());
    }
    let mut connection = crate::support::Connection::open(address);
    connection.send(b"DELETE /api/events/quarantine HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = connection.read_response();
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(bench.lines("").len(), 1);
    assert_eq!(bench.ask("SELECT count() FROM $"), "0");
}
