//! Every figure of `/stats` against what the client sent and was told, what ClickHouse has and counts, and what
//! the kernel says of the process: a figure that nobody compares with anything fails the test.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::{Map, Value, json};

use crate::support::{ClickHouse, Connection, Folder, Response, Server, post_with, shared_clickhouse, wait_for};

const KEY: &str = "web-0123456789abcdef";

/// What the client knows.
#[derive(Default)]
struct Tally {
    replies: BTreeMap<String, u64>,
    /// Requests that waited for a commit, and those of them that brought something new.
    committing: u64,
    received: u64,
    accepted: BTreeMap<&'static str, u64>,
    rejected: BTreeMap<String, u64>,
    rejected_of: BTreeMap<&'static str, u64>,
}

/// A request with events, and what it has to be told.
struct Sent<'a> {
    table: &'static str,
    query: &'a str,
    fields: &'a str,
    body: &'a [u8],
    status: u16,
}

const PLAIN: Sent<'static> = Sent { table: "events", query: "", fields: "", body: b"", status: 200 };

struct Client<'a> {
    server: &'a Server,
    tally: Tally,
}

impl Client<'_> {
    /// Sends a request with events, and counts its reply.
    fn send(&mut self, sent: &Sent<'_>) -> Value {
        let Sent { table, query, fields, body, status } = *sent;
        let fields = format!("X-Write-Key: {KEY}\r\n{fields}");
        let reply = post_with(self.server.address(), &format!("/api/{table}{query}"), &fields, body);
        let text = reply.text();
        assert_eq!(reply.status, status, "{text}");
        self.count(&reply);
        serde_json::from_str(&text).unwrap()
    }

    /// Sends one whose lines are stored, and counts them by the reply.
    fn store(&mut self, sent: &Sent<'_>) {
        let reply = self.send(sent);
        let (accepted, rejected) = (reply["accepted"].as_u64().unwrap(), reply["rejected"].as_u64().unwrap());
        self.tally.committing += 1;
        self.tally.received += accepted + rejected;
        *self.tally.accepted.entry(sent.table).or_default() += accepted;
        *self.tally.rejected_of.entry(sent.table).or_default() += rejected;
        for error in reply["errors"].as_array().into_iter().flatten() {
            *self.tally.rejected.entry(error["code"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }

    fn count(&mut self, reply: &Response) {
        *self.tally.replies.entry(reply.status.to_string()).or_default() += 1;
    }

    /// Sends these bytes on a connection of their own, and counts the reply.
    fn raw(&mut self, bytes: &[u8], status: u16) {
        let mut connection = Connection::open(self.server.address());
        connection.send(bytes);
        let reply = connection.read_response();
        assert_eq!(reply.status, status, "{}", reply.text());
        self.count(&reply);
    }
}

/// What is left of the figures to compare.
struct Left(Map<String, Value>);

impl Left {
    fn take(&mut self, name: &str) -> Value {
        self.0.remove(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    #[track_caller]
    fn is<T: Into<Value> + Debug>(&mut self, name: &str, expected: T) {
        let (found, expected) = (self.take(name), expected.into());
        let same = found == expected || found.is_f64() && found.as_f64() == expected.as_f64();
        assert!(same, "{name} is {found} instead of {expected}");
    }

    /// Takes the counts of a histogram: its observations, whose buckets add up, and their sum.
    #[track_caller]
    fn observations(histogram: &Value) -> u64 {
        let count = histogram["count"].as_u64().unwrap();
        let buckets = histogram["buckets"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum::<u64>(), count, "{histogram}");
        let bounds: Vec<f64> = buckets.iter().map(|bucket| bucket["le"].as_f64().unwrap_or(f64::INFINITY)).collect();
        assert!(bounds.is_sorted() && bounds.last() == Some(&f64::INFINITY), "{histogram}");
        let quantiles: Vec<f64> =
            histogram["quantiles"].as_array().unwrap().iter().filter_map(|q| q["seconds"].as_f64()).collect();
        assert!(quantiles.is_sorted() && quantiles.len() == if count > 0 { 4 } else { 0 }, "{histogram}");
        let sum = histogram["sum"].as_f64().unwrap();
        assert_eq!(sum > 0.0, count > 0, "{histogram}");
        count
    }
}

fn stats(server: &Server) -> Value {
    serde_json::from_slice(&server.admin_get("/stats").body).unwrap()
}

fn rows(clickhouse: &ClickHouse, table: &str) -> u64 {
    clickhouse.query(&format!("SELECT count() FROM {table}")).trim().parse().unwrap()
}

/// INSERTs into a table, as ClickHouse numbers their blocks: each has one, since it goes into one partition.
fn numbered_inserts(clickhouse: &ClickHouse, database: &str, table: &str) -> u64 {
    let of_table = format!("database = '{database}' AND table = '{table}'");
    let newest = clickhouse.query(&format!("SELECT max(max_block_number) FROM system.parts WHERE {of_table}"));
    newest.trim().parse().unwrap()
}

/// The series of `/metrics`, each with its labels' values, by the names and levels of `/stats`.
fn flat_metrics(server: &Server) -> BTreeMap<Vec<String>, f64> {
    let flat = |(series, value): (String, f64)| {
        let (name, labels) = series.split_once('{').unwrap_or((&series, ""));
        let name = name.strip_prefix("sluicegate_").unwrap_or(name).to_owned();
        let values = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        let values = values.map(|label| label.split_once("=\"").unwrap().1.trim_end_matches('"').to_owned());
        ([name].into_iter().chain(values).collect(), value)
    };
    server.metrics().into_iter().map(flat).collect()
}

/// The same of `/stats`: a histogram's buckets are added up as Prometheus has them.
fn flatten(path: &[String], value: &Value, into: &mut BTreeMap<Vec<String>, f64>) {
    let Some(object) = value.as_object() else {
        into.insert(path.to_vec(), value.as_f64().unwrap());
        return;
    };
    let Some(buckets) = object.get("buckets") else {
        object.iter().for_each(|(key, value)| flatten(&[path, std::slice::from_ref(key)].concat(), value, into));
        return;
    };
    let name = |suffix: &str| [&[format!("{}{suffix}", path[0])], &path[1..]].concat();
    into.insert(name("_count"), object["count"].as_f64().unwrap());
    into.insert(name("_sum"), object["sum"].as_f64().unwrap());
    let mut sum = 0.0;
    for bucket in buckets.as_array().unwrap() {
        sum += bucket["count"].as_f64().unwrap();
        let bound = bucket["le"].as_f64().map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
        into.insert([&name("_bucket")[..1], &[bound], &path[1..]].concat(), sum);
    }
}

#[test]
fn every_figure_is_what_client_clickhouse_and_kernel_say() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    clickhouse.query(&format!(
        "CREATE TABLE {database}.hits (event String, number UInt8, ts DateTime('UTC')) ENGINE = MergeTree \
         ORDER BY event SETTINGS non_replicated_deduplication_window = 100"
    ));
    let folder = Folder::new();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let keys = write("keys", &format!("{KEY} name=web\n"));
    let config = write(
        "sluicegate.toml",
        "[table.events]\ndedup-field = \"session\"\n[table.hits]\nrequired = [\"event\"]\nunknown-fields = \"reject\"\n",
    );
    let flags = ["--config", &config, "--write-key-file", &keys, "--batch-age", "50ms", "--body-bytes-max", "64KiB"];
    let flags = [&flags[..], &["--events-max", "3000", "--line-bytes-max", "1KiB", "--encoded-bytes-max", "1MiB"]];
    let server = Server::start(clickhouse, &database, &flags.concat());
    let mut client = Client { server: &server, tally: Tally::default() };

    // Events: plain ones, with unknown fields and guessed units, in an array, compressed, and of the other table.
    let events = |from: u64, to: u64| -> String {
        (from..to).map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect()
    };
    client.store(&Sent { body: events(0, 30).as_bytes(), ..PLAIN });
    client.store(&Sent { body: b"{\"event\":\"a\",\"more\":1}\n{\"event\":\"a\",\"more\":2,\"most\":3}", ..PLAIN });
    let times = b"{\"event\":\"t\",\"client_time\":1700000000}\n{\"event\":\"t\",\"client_time\":1700000000000}";
    client.store(&Sent { body: times, ..PLAIN });
    client.store(&Sent { body: b"[{\"event\":\"x\"},{\"event\":\"y\"},3]", ..PLAIN });
    client.store(&Sent { query: "?ack=inserted", body: events(30, 35).as_bytes(), ..PLAIN });
    let hits = b"{\"event\":\"h\",\"number\":1}\n{\"event\":\"i\",\"number\":2}\n{\"number\":3}\n{\"event\":\"j\",\"strange\":4}";
    client.store(&Sent { table: "hits", body: hits, ..PLAIN });
    client.store(&Sent { body: b"", ..PLAIN });
    client.tally.committing -= 1;

    // Bad lines of every kind.
    let deep = format!("{{\"event\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let long = format!("{{\"event\":\"{}\"}}", "x".repeat(2000));
    let bad = [
        "bad",
        "[1]",
        r#"{"sequence":"x"}"#,
        r#"{"sequence":99999999999999999999}"#,
        r#"{"event":"a","event":"b"}"#,
        r#"{"nothing":1}"#,
        &deep,
        &long,
        r#"{"event":"good"}"#,
    ];
    let bad = [bad.join("\n").as_bytes(), b"\n{\"event\":\"\xff\"}"].concat();
    client.store(&Sent { body: &bad, ..PLAIN });
    client.store(&Sent { body: b"bad\nbad", status: 422, ..PLAIN });
    // Of more than 1000, those up to the one that was too many are counted, and nothing is stored.
    let reply = client.send(&Sent { body: "bad\n".repeat(1500).as_bytes(), status: 422, ..PLAIN });
    assert_eq!(reply["error"], "too_many_bad_lines");
    let refused = reply["rejected"].as_u64().unwrap();
    client.tally.received += refused;
    *client.tally.rejected.entry("invalid_json".to_owned()).or_default() += refused;

    // Repeats of requests and of events.
    let keyed = format!("{}bad", events(100, 105));
    let first = Sent { fields: "Idempotency-Key: one\r\n", body: keyed.as_bytes(), ..PLAIN };
    client.store(&first);
    client.send(&first);
    client.tally.received += 6;
    client.send(&Sent { body: b"{\"event\":\"other\"}", status: 422, ..first });
    client.tally.received += 1;
    client.tally.committing += 2;
    let session = |name: &str| format!("{{\"event\":\"s\",\"session\":\"{name}\"}}\n");
    client.store(&Sent { body: [session("a"), session("b"), session("a")].concat().as_bytes(), ..PLAIN });
    client.store(&Sent { body: [session("b"), session("c")].concat().as_bytes(), ..PLAIN });
    let duplicates = 2;

    // What stores nothing.
    let dry = client.send(&Sent { query: "?dry_run=1", body: b"{\"event\":\"d\"}\nbad", ..PLAIN });
    assert_eq!((&dry["accepted"], &dry["rejected"]), (&json!(1), &json!(1)));
    client.tally.received += 2;
    client.send(&Sent { body: "{}\n".repeat(3001).as_bytes(), status: 413, ..PLAIN });
    client.send(&Sent { query: "?ack=never", status: 400, ..PLAIN });
    client.send(&Sent { fields: "Content-Encoding: brand-new\r\n", status: 415, ..PLAIN });
    client.raw(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 401);
    client.raw(b"POST /api/events?key=wrong HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 403);
    client.raw(b"GET /api/events HTTP/1.1\r\nHost: a\r\n\r\n", 405);
    client.raw(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404);
    client.raw(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200);
    client.raw(b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413);
    client.raw(b"nonsense\r\n\r\n", 400);

    let tables = ["events", "hits"];
    let expected = |table: &str| client.tally.accepted[table] - if table == "events" { duplicates } else { 0 };
    for table in tables {
        server.wait_for_rows(clickhouse, &format!("{database}.{table}"), expected(table));
        let rejected = client.tally.rejected_of[table];
        server.wait_for_rows(clickhouse, &format!("{database}.{table}_quarantine"), rejected);
    }
    server.wait_until_drained();
    let _open = Connection::open(server.address());
    // An INSERT is counted, and a connection noticed, a moment later.
    let quiet = || {
        let figures = &stats(&server)["figures"];
        (figures["inserters_busy"] == 0.0 && figures["connections"] == 1.0 && figures["in_flight_bytes"] == 0.0)
            .then_some(())
    };
    wait_for(|| stats(&server).to_string(), quiet);
    let Value::Object(mut all) = stats(&server) else { panic!() };
    let Some(Value::Object(figures)) = all.remove("figures") else { panic!() };

    compare_with_metrics(&server, &figures);
    let mut left = Left(figures);
    let Tally { replies, committing, received, accepted, rejected, rejected_of } = client.tally;
    let sum = |of: &BTreeMap<&str, u64>| of.values().sum::<u64>();
    left.is("requests_total", json!(replies));
    left.is("events_received_total", received);
    left.is("events_accepted_total", sum(&accepted));
    left.is("table_events_accepted_total", json!(accepted));
    left.is("key_events_accepted_total", json!({"web": sum(&accepted)}));
    let codes = left.take("events_rejected_total");
    let counted = codes.as_object().unwrap().iter().filter(|(_, count)| **count != json!(0));
    assert_eq!(
        counted.map(|(code, count)| (code.clone(), count.as_u64().unwrap())).collect::<BTreeMap<_, _>>(),
        rejected
    );
    assert_eq!(rejected.len(), codes.as_object().unwrap().len(), "a line for each code is sent: {codes}");
    left.is(
        "table_events_rejected_total",
        json!({"events": rejected_of["events"] + refused, "hits": rejected_of["hits"]}),
    );
    left.is("events_duplicates_total", duplicates);
    left.is("table_events_duplicates_total", json!({"events": duplicates, "hits": 0}));
    left.is("requests_repeated_total", 1);
    left.is("unknown_fields_total", json!({"events": {"more": 2, "most": 1, "nothing": 1}, "hits": {"strange": 1}}));
    left.is("guessed_units_total", json!({"events": {"client_time": {"s": 1, "ms": 1}}}));
    let shed = left.take("shed_total");
    assert!(shed.as_object().unwrap().values().all(|count| *count == 0), "{shed}");

    // What ClickHouse has, and how many INSERTs it took.
    let stored = |table: &str| rows(clickhouse, &format!("{database}.{table}"));
    left.is("events_inserted_total", json!({"events": stored("events"), "hits": stored("hits")}));
    left.is("events_quarantined_total", stored("events_quarantine") + stored("hits_quarantine"));
    let inserts = left.take("inserts_total");
    let mut attempts = 0;
    for table in ["events", "events_quarantine", "hits", "hits_quarantine"] {
        let done = numbered_inserts(clickhouse, &database, table);
        assert!(done > 0);
        assert_eq!(inserts[table], json!({"done": done, "retry": 0, "hold": 0, "cut": 0, "split": 0}), "{table}");
        attempts += done;
    }
    assert_eq!(inserts.as_object().unwrap().len(), 4);
    assert_eq!(Left::observations(&left.take("insert_seconds")), attempts);
    let delivery = left.take("delivery_seconds");
    for table in tables {
        assert_eq!(json!(Left::observations(&delivery[table])), inserts[table]["done"], "one of each block's rows");
    }
    assert_eq!(delivery.as_object().unwrap().len(), 2);
    assert_eq!(Left::observations(&left.take("request_seconds")), committing);
    // One request after the other; a repeat, and a request of nothing but known events, write nothing.
    let commits = Left::observations(&left.take("commit_seconds"));
    assert_eq!(commits, committing - 2);

    // Nothing waits.
    let tables_zero = json!({"events": 0.0, "hits": 0.0});
    left.is("events_spooled", 0);
    left.is(
        "table_events_spooled",
        json!({"events": 0.0, "events_quarantine": 0.0, "hits": 0.0, "hits_quarantine": 0.0}),
    );
    left.is("table_spool_bytes", tables_zero.clone());
    left.is("spool_oldest_seconds", 0);
    left.is("table_oldest_seconds", tables_zero.clone());
    left.is("blocks_held", 0);
    left.is("table_blocks_held", tables_zero);
    left.is("files_damaged", 0);
    left.is("in_flight_bytes", 0);
    left.is("reply_bytes", 0);
    left.is("inserters_busy", 0);
    left.is("connections", 1);
    left.is("ledger_balances", 1);
    left.is("idempotency_keys", 1);
    left.is("idempotency_horizon_seconds", 86400);
    left.is("build_info", json!({env!("CARGO_PKG_VERSION"): 1.0}));
    let disk = rustix::fs::statvfs(server.spool_dir()).unwrap();
    let (free, found) = ((disk.f_bavail * disk.f_frsize) as f64, left.take("disk_free_bytes").as_f64().unwrap());
    assert!((found / free - 1.0).abs() < 0.2, "{found} of {free}");
    assert!(left.take("spool_bytes").as_f64().unwrap() > 0.0);
    compare_with_kernel(&server, &mut left);
    assert!(left.0.is_empty(), "nobody compares these with anything: {:?}", left.0.keys());

    let ledger = |committed: u64| json!({"recovered": 0, "committed": committed, "inserted": committed, "spooled": 0, "set_aside": 0});
    let expected = json!({
        "events": ledger(stored("events")), "events_quarantine": ledger(stored("events_quarantine")),
        "hits": ledger(stored("hits")), "hits_quarantine": ledger(stored("hits_quarantine")),
    });
    assert_eq!(all["ledger"], expected);
    assert_eq!(all["ledger_balances"], true);
}

/// The names of both pages are the same, and so are the values that time does not change.
fn compare_with_metrics(server: &Server, figures: &Map<String, Value>) {
    let mut ours = BTreeMap::new();
    figures.iter().for_each(|(name, value)| flatten(std::slice::from_ref(name), value, &mut ours));
    let mut theirs = flat_metrics(server);
    // It stands outside the figures, in "ledger".
    theirs.retain(|series, _| series[0] != "ledger_events");
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (series, value) in &ours {
        let moves = series[0].starts_with("process_") || series[0] == "disk_free_bytes";
        assert!(moves || theirs[series] == *value, "{series:?}: {value} in /stats, {} in /metrics", theirs[series]);
    }
}

fn compare_with_kernel(server: &Server, left: &mut Left) {
    let mut near = |name: &str, expected: f64, within: f64| {
        let found = left.take(name).as_f64().unwrap();
        assert!((found - expected).abs() <= within * expected.abs() + 1.0, "{name} is {found}, not near {expected}");
    };
    near("process_resident_memory_bytes", server.memory("VmRSS") as f64, 0.3);
    near("process_virtual_memory_bytes", server.memory("VmSize") as f64, 0.3);
    let folder = format!("/proc/{}", server.id());
    let entries = |name: &str| std::fs::read_dir(format!("{folder}/{name}")).unwrap().count() as f64;
    near("process_open_fds", entries("fd"), 0.3);
    near("process_threads", entries("task"), 0.3);
    let limits = std::fs::read_to_string(format!("{folder}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    near("process_max_fds", line.split_whitespace().next().unwrap().parse().unwrap(), 0.0);
    let stat = std::fs::read_to_string(format!("{folder}/stat")).unwrap();
    let fields: Vec<f64> =
        stat.rsplit_once(") ").unwrap().1.split(' ').map(|field| field.trim().parse().unwrap_or(0.0)).collect();
    near("process_cpu_seconds_total", (fields[11] + fields[12]) / 100.0, 0.3);
    let stats = std::fs::read_to_string("/proc/stat").unwrap();
    let boot: f64 = stats.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().parse().unwrap();
    near("process_start_time_seconds", boot + fields[19] / 100.0, 0.0);
}
