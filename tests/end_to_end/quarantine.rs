//! `sluicegate quarantine list|replay` against a running server and a real ClickHouse.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::support::{
    ClickHouse, Connection, Server, Variant, each_engine, each_insert, post, request, run, shared_clickhouse,
};

/// A table for numbers, its server, and what to tell the command.
struct Bench {
    clickhouse: &'static ClickHouse,
    database: String,
    server: Server,
}

impl Bench {
    fn new(variant: Variant) -> Self {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &variant.and(&[]));
        Self { clickhouse, database, server }
    }

    fn quarantine(&self, words: &[&str]) -> (bool, String, String) {
        let (admin, url) = (self.server.admin_address().to_string(), self.clickhouse.url());
        let settings = ["--admin-listen", &admin, "--clickhouse-url", &url, "--database", &self.database];
        run(&[&["quarantine"], words, &settings].concat())
    }

    /// What a replay that works says.
    fn replay(&self, words: &[&str]) -> String {
        let (succeeded, said, error) = self.quarantine(&[&["replay"], words].concat());
        assert!(succeeded, "{said}{error}\n{}", self.server.log());
        said
    }

    fn send(&self, body: &str) {
        let reply = post(self.server.address(), "/api/events", body.as_bytes());
        assert!(matches!(reply.status, 200 | 422), "{}", reply.text());
    }

    fn ask(&self, statement: &str) -> String {
        self.clickhouse.query(&statement.replace("$", &format!("{}.events", self.database))).trim().to_owned()
    }

    fn wait_for(&self, events: u64, quarantined: u64) {
        self.server.wait_for_rows(self.clickhouse, &format!("{}.events", self.database), events);
        self.server.wait_for_rows(self.clickhouse, &format!("{}.events_quarantine", self.database), quarantined);
    }
}

/// A line that is refused until `sequence` is text that an Int64 can't hold.
fn misfit(number: u64) -> String {
    format!("{{\"event\":\"e\",\"sequence\":\"n{number}\"}}\n")
}

each_insert!(rows_that_clickhouse_refused_go_in_once_it_takes_them_and_cut_lines_stay,);

each_engine!(
    lines_that_fit_now_are_stored_and_the_others_are_there_once,
    more_lines_than_a_request_may_have_and_equal_ones_all_come_once,
);

#[test]
fn a_list_shows_reasons_and_the_newest_lines() {
    let bench = Bench::new(Variant::USUAL);
    bench.send("bad\n{\"event\":\"good\"}\n\u{1b}[31m\n[1]\n");
    bench.wait_for(1, 3);
    let (ok, said, _) = bench.quarantine(&["list"]);
    for part in ["invalid_json: 2 lines, 20", "not_an_object: 1 lines, 20", "127.0.0.1 not_an_object", ": \"[1]\""] {
        assert!(ok && said.contains(part), "{part} is missing:\n{said}");
    }
    assert!(said.contains("\\u{1b}[31m") && !said.contains('\u{1b}'), "{said:?}");
    let (ok, said, _) = bench.quarantine(&["list", "--limit", "1"]);
    assert!(ok && said.lines().count() == 4, "{said}");
    let (ok, said, _) = bench.quarantine(&["list", "--since", "2100-01-01"]);
    assert!(ok && said.lines().count() == 1, "{said}");
    let (ok, said, _) = bench.quarantine(&["list", "--since", "2001-01-01T00:00:00Z"]);
    assert!(ok && said.contains("invalid_json: 2 lines"), "{said}");
    for command in ["list", "replay"] {
        let (ok, _, error) = bench.quarantine(&[command, "--since", "yesterday"]);
        assert!(!ok && error.contains("--since `yesterday` is no time") && !error.contains("Code:"), "{error}");
    }
    let (ok, _, error) = bench.quarantine(&["list", "--table", "nothing"]);
    assert!(!ok && error.contains("`nothing_quarantine`"), "{error}");
    assert!(bench.server.stop().success());
}

fn lines_that_fit_now_are_stored_and_the_others_are_there_once(variant: Variant) {
    let bench = Bench::new(variant);
    let lines: String = (0..30).map(misfit).collect();
    bench.send(&format!("{lines}bad\nbad\nbad\n"));
    bench.wait_for(0, 33);
    // A dry run says what would be, and changes nothing.
    let said = bench.replay(&["--dry-run"]);
    assert!(said.contains("33 lines: 0 would be accepted, 33 would be rejected again"), "{said}");
    // Nothing fits yet: a line that is rejected again is there again, and not twice.
    let said = bench.replay(&[]);
    assert!(said.contains("33 lines: 0 accepted, 33 rejected again"), "{said}");
    bench.wait_for(0, 33);
    // The table takes text now.
    bench.ask("ALTER TABLE $ MODIFY COLUMN sequence String");
    let bench = Bench { server: bench.server.restart(), ..bench };
    let said = bench.replay(&["--dry-run"]);
    assert!(said.contains("33 lines: 30 would be accepted, 3 would be rejected again"), "{said}");
    bench.wait_for(0, 33);
    let said = bench.replay(&[]);
    assert!(said.contains("type_mismatch: 30 lines: 30 accepted, 0 rejected again"), "{said}");
    assert!(said.contains("invalid_json: 3 lines: 0 accepted, 3 rejected again"), "{said}");
    bench.wait_for(30, 3);
    assert_eq!(bench.ask("SELECT uniqExact(sequence) FROM $"), "30");
    assert_eq!(bench.ask("SELECT groupUniqArray(line) FROM $_quarantine"), "['bad']");
    // Nothing comes a second time.
    let said = bench.replay(&[]);
    assert!(said.contains("3 lines: 0 accepted, 3 rejected again"), "{said}");
    bench.wait_for(30, 3);
    assert!(bench.server.stop().success());
}

fn more_lines_than_a_request_may_have_and_equal_ones_all_come_once(variant: Variant) {
    let bench = Bench::new(variant);
    // All of one second, by the quarantine's own account: several requests, one delete.
    bench.ask(
        "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toStartOfDay(now('UTC')), '1.2.3.4', 'type_mismatch', \
         'm', concat('{\"event\":\"e\",\"sequence\":', toString(number % 1500), '}') FROM numbers(4000)",
    );
    bench.ask(
        "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toStartOfDay(now('UTC')) + number, \
         '1.2.3.4', 'out_of_range', 'm', concat('{\"event\":\"f\",\"sequence\":', toString(number), '}') FROM numbers(50)",
    );
    // More bad lines than the server takes in one request.
    bench.ask(
        "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toStartOfDay(now('UTC')), '1.2.3.4', 'too_deep', \
         'm', concat('bad', toString(number)) FROM numbers(1200)",
    );
    let since = bench.ask("SELECT toStartOfDay(now('UTC')) + 10");
    let said = bench.replay(&["--since", &since]);
    assert!(said.starts_with("out_of_range: 40 lines: 40 accepted"), "{said}");
    bench.wait_for(40, 5210);
    let said = bench.replay(&[]);
    assert!(said.contains("type_mismatch: 4000 lines: 4000 accepted"), "{said}");
    assert!(said.contains("too_deep: 1200 lines: 0 accepted, 1200 rejected again"), "{said}");
    bench.wait_for(4050, 1200);
    assert_eq!(bench.ask("SELECT uniqExact(line) FROM $_quarantine WHERE code = 'too_deep'"), "1200");
    let counts = bench.ask(
        "SELECT countIf(n = 3), countIf(n = 2), count() FROM (SELECT count() AS n FROM $ WHERE event = 'e' GROUP BY sequence)",
    );
    assert_eq!(counts, "1000\t500\t1500");
    assert_eq!(bench.ask("SELECT DISTINCT ip FROM $"), "1.2.3.4");
    let late = bench.ask("SELECT countIf(server_time >= toStartOfDay(now('UTC')) + 50) FROM $");
    assert_eq!(late, "0", "the lines have the time of the replay");
    assert!(bench.server.stop().success());
}

fn rows_that_clickhouse_refused_go_in_once_it_takes_them_and_cut_lines_stay(variant: Variant) {
    let bench = Bench::new(variant);
    bench.ask("ALTER TABLE $ ADD CONSTRAINT small CHECK sequence < 5");
    let events: String = (0..8).map(|number| format!("{{\"event\":\"e\",\"sequence\":{number}}}\n")).collect();
    bench.send(&format!("{events}{{\"param_str\":\"{}\"", "x".repeat(70_000)));
    bench.wait_for(5, 4);
    bench.ask("ALTER TABLE $ DROP CONSTRAINT small");
    let said = bench.replay(&[]);
    assert!(said.contains("refused_by_clickhouse: 3 lines: 3 accepted, 0 rejected again"), "{said}");
    assert!(said.contains("1 lines were truncated when they were stored"), "{said}");
    bench.wait_for(8, 1);
    assert_eq!(bench.ask("SELECT sequence FROM $ ORDER BY sequence FORMAT TSV"), "0\n1\n2\n3\n4\n5\n6\n7");
    assert!(bench.server.stop().success());
}

#[test]
fn an_interrupted_replay_makes_the_same_requests_again() {
    let bench = Bench::new(Variant::USUAL);
    let insert = |second: u32, lines: &str| {
        bench.ask(&format!(
            "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toStartOfDay(now('UTC')) + {second}, '1.2.3.4', \
             'invalid_json', 'm', line FROM VALUES('line String', {lines})"
        ));
    };
    insert(1, "('b'), ('a'), ('b')");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Nobody knows what this server has done with the request.
    let first = &interrupted(&bench, &listener, &[None])[0];
    assert!(first.contains("content-length: 42\r\n"), "{first}");
    // What comes later belongs to another request.
    insert(2, "('c')");
    assert_eq!(key(&interrupted(&bench, &listener, &[None])[0]), key(first));
    bench.wait_for(0, 5);
    // What comes to the same second makes it another request.
    insert(1, "('d')");
    assert_ne!(key(&interrupted(&bench, &listener, &[None])[0]), key(first));
    assert!(bench.server.stop().success());
}

#[test]
fn of_a_second_that_is_answered_in_part_nothing_is_deleted() {
    let bench = Bench::new(Variant::USUAL);
    for (second, lines) in [(0, 5), (1, 1500)] {
        bench.ask(&format!(
            "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toStartOfDay(now('UTC')) + {second}, \
             '1.2.3.4', 'invalid_json', 'm', toString(number) FROM numbers({lines})"
        ));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let requests = interrupted(&bench, &listener, &[Some(5), Some(1000), None]);
    assert_eq!(bench.ask("SELECT count() FROM $_quarantine WHERE line != ''"), "1500");
    let again = interrupted(&bench, &listener, &[Some(1000), None]);
    assert_eq!(
        again.iter().map(|request| key(request)).collect::<Vec<_>>(),
        requests[1..].iter().map(|request| key(request)).collect::<Vec<_>>()
    );
    assert_eq!(bench.ask("SELECT count() FROM $_quarantine WHERE line != ''"), "1500");
    assert!(bench.server.stop().success());
}

/// Replays to a server that says of each request that so many lines are accepted, and ends at the
/// first about which it says nothing. The heads of the requests.
fn interrupted(bench: &Bench, listener: &TcpListener, answers: &[Option<u64>]) -> Vec<String> {
    let (address, url) = (listener.local_addr().unwrap().to_string(), bench.clickhouse.url());
    let settings = ["--admin-listen", &address, "--clickhouse-url", &url, "--database", &bench.database];
    thread::scope(|scope| {
        let replay = scope.spawn(|| run(&[&["quarantine", "replay"], &settings[..]].concat()));
        let requests = answers.iter().map(|answer| {
            let (head, mut stream) = next_request(listener, &bench.database);
            if let Some(accepted) = answer {
                let body = format!("{{\"accepted\":{accepted},\"rejected\":[]}}");
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
            head
        });
        let requests = requests.collect();
        let (succeeded, _, error) = replay.join().unwrap();
        assert!(!succeeded && error.contains("does not answer"), "{error}");
        requests
    })
}

/// The next request that does not only ask for the time.
fn next_request(listener: &TcpListener, database: &str) -> (String, TcpStream) {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let head = read_request(&mut stream);
        if !head.starts_with("GET /quarantine/replay ") {
            return (head, stream);
        }
        let second = chrono::Utc::now().timestamp();
        let body = format!("{{\"node\":\"n\",\"table\":\"`{database}`.`events`\",\"second\":{second}}}");
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        let reply = head + &body;
        stream.write_all(reply.as_bytes()).unwrap();
    }
}

/// Reads a request to its end and returns its head.
fn read_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    stream.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    head
}

fn key(head: &str) -> String {
    head.lines().find(|line| line.starts_with("idempotency-key: ")).expect("the request has a key").to_owned()
}

#[test]
fn without_a_server_or_the_right_to_delete_nothing_is_lost() {
    let bench = Bench::new(Variant::USUAL);
    bench.send("bad");
    bench.wait_for(0, 1);
    let (ok, _, error) = bench.quarantine(&["replay", "--table", "nothing"]);
    assert!(!ok && error.contains("`nothing_quarantine`"), "{error}");
    bench.ask("CREATE TABLE $2_quarantine AS $_quarantine ENGINE = Log");
    bench.ask("INSERT INTO $2_quarantine SETTINGS async_insert = 0 SELECT * FROM $_quarantine");
    let (ok, _, error) = bench.quarantine(&["replay", "--table", "events2"]);
    assert!(!ok && error.contains("not for"), "{error}");
    bench.ask("RENAME TABLE $_quarantine TO $3_quarantine, $2_quarantine TO $_quarantine");
    let (ok, _, error) = bench.quarantine(&["replay"]);
    assert!(!ok && error.contains("must be deleted"), "{error}");
    bench.ask("RENAME TABLE $_quarantine TO $2_quarantine, $3_quarantine TO $_quarantine");
    let Bench { clickhouse, database, server } = bench;
    let (listen, url) = (server.admin_address().to_string(), clickhouse.url());
    assert!(server.stop().success());
    let settings = ["--admin-listen", &listen, "--clickhouse-url", &url, "--database", &database];
    let (ok, _, error) = run(&[&["quarantine", "replay"], &settings[..]].concat());
    assert!(!ok && error.contains("does not answer"), "{error}");
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events_quarantine")).trim(), "1");
}

#[test]
fn a_replay_keeps_the_address_and_the_time_and_no_page_or_public_request_sets_them() {
    let bench = Bench::new(Variant::USUAL);
    let came = bench.ask("SELECT now('UTC') - 100000");
    bench.ask(&format!(
        "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toDateTime('{came}', 'UTC'), \
         arrayElement(['8.8.8.8', '2001:db8::1', ''], number + 1), 'type_mismatch', 'm', \
         concat('{{\"event\":\"', toString(number), '\",\"ip\":\"6.6.6.6\"}}') FROM numbers(3)"
    ));
    let said = bench.replay(&[]);
    assert!(said.contains("3 lines: 2 accepted, 1 rejected again"), "a row has no address: {said}");
    bench.wait_for(2, 1);
    assert_eq!(
        bench.ask("SELECT event, ip, server_time FROM $ ORDER BY event FORMAT TSV"),
        format!("0\t8.8.8.8\t{came}\n1\t2001:db8::1\t{came}")
    );
    let line = [&[1, 0, 0, 0, 7][..], b"9.9.9.9", &[2], b"{}"].concat();
    let fields = "Idempotency-Key: a\r\nOrigin: http://pages.example\r\n";
    let mut admin = Connection::open(bench.server.admin_address());
    admin.send(&request("/quarantine/replay", fields, &line));
    assert_eq!(admin.read_response().status, 403);
    let mut public = Connection::open(bench.server.address());
    public.send(&request("/quarantine/replay", "Idempotency-Key: a\r\n", &line));
    assert_eq!(public.read_response().status, 404);
    for (fields, body, status) in [
        ("", &line[..], 400),
        ("Idempotency-Key: a\r\n", &line[1..], 400),
        ("Idempotency-Key: a\r\n", &[0; 3 << 20], 413),
        ("Idempotency-Key: a\r\n", &line, 200),
        ("Idempotency-Key: a\r\n", &line, 200),
    ] {
        let mut admin = Connection::open(bench.server.admin_address());
        admin.send(&request("/quarantine/replay", fields, body));
        assert_eq!(admin.read_response().status, status, "{fields}");
    }
    bench.wait_for(3, 1);
    assert_eq!(bench.ask("SELECT count() FROM $ WHERE ip = '9.9.9.9'"), "1", "the key came twice");
    assert!(bench.server.stop().success());
}

#[test]
fn a_replay_that_was_interrupted_is_not_made_through_another_node_unasked() {
    let bench = Bench::new(Variant::USUAL);
    let other = Server::start(bench.clickhouse, &bench.database, &[]);
    bench.ask(
        "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toStartOfDay(now('UTC')), '1.2.3.4', \
         'type_mismatch', 'm', concat('{\"event\":\"e\",\"sequence\":', toString(number), '}') FROM numbers(5)",
    );
    // The lines are stored, and nothing is deleted: as when the program is killed in between.
    bench.ask("RENAME TABLE $_quarantine TO $_kept");
    bench.ask("CREATE TABLE $_quarantine AS $_kept");
    bench.ask("INSERT INTO $_quarantine SETTINGS async_insert = 0, insert_deduplicate = 0 SELECT * FROM $_kept");
    assert!(bench.replay(&[]).contains("5 lines: 5 accepted"));
    bench.wait_for(5, 0);
    let node = std::fs::read_to_string(bench.server.spool_dir().join("node-id")).unwrap();
    let node = node.trim().to_owned();
    bench.ask("INSERT INTO $_quarantine SETTINGS async_insert = 0, insert_deduplicate = 0 SELECT * FROM $_kept");
    let mark = |hours: u32| {
        bench.ask(&format!(
            "INSERT INTO $_quarantine SETTINGS async_insert = 0, insert_deduplicate = 0 \
             SELECT now('UTC') - {hours} * 3600, '', 'replay', '{node}', ''"
        ));
    };
    mark(0);
    let through = |server: &Server, words: &[&str]| {
        let (admin, url) = (server.admin_address().to_string(), bench.clickhouse.url());
        let settings = ["--admin-listen", &admin, "--clickhouse-url", &url, "--database", &bench.database];
        run(&[&["quarantine", "replay"], words, &settings].concat())
    };
    let (ok, _, error) = through(&other, &[]);
    assert!(!ok && error.contains(&node) && error.contains("--force"), "{error}");
    // Through the same node nothing is stored twice, and the lines are gone then.
    assert!(bench.replay(&[]).contains("5 lines: 5 accepted"));
    bench.wait_for(5, 0);
    bench.ask("INSERT INTO $_quarantine SETTINGS async_insert = 0, insert_deduplicate = 0 SELECT * FROM $_kept");
    // A day later it has forgotten.
    mark(30);
    let (ok, _, error) = through(&bench.server, &[]);
    assert!(!ok && error.contains("forgotten"), "{error}");
    let (ok, said, error) = through(&other, &["--force"]);
    assert!(ok && said.contains("5 lines: 5 accepted"), "{said}{error}");
    bench.wait_for(10, 0);
    assert!(bench.server.stop().success() && other.stop().success());
}

#[test]
fn lines_that_became_good_while_a_replay_was_interrupted_are_not_doubled_unasked() {
    let bench = Bench::new(Variant::USUAL);
    bench.ask(
        "INSERT INTO $_quarantine SETTINGS async_insert = 0 SELECT toStartOfDay(now('UTC')), '1.2.3.4', \
         'type_mismatch', 'm', concat('{\"event\":\"e\",\"sequence\":\"', line, '\"}') \
         FROM VALUES('line String', ('1'), ('2'), ('x'))",
    );
    bench.ask("CREATE TABLE $_kept AS $_quarantine");
    bench.ask("INSERT INTO $_kept SETTINGS async_insert = 0 SELECT * FROM $_quarantine");
    assert!(bench.replay(&[]).contains("3 lines: 2 accepted, 1 rejected again"));
    bench.wait_for(2, 1);
    // As when the program was killed before it could delete.
    bench.ask("TRUNCATE TABLE $_quarantine");
    bench.ask("INSERT INTO $_quarantine SETTINGS async_insert = 0, insert_deduplicate = 0 SELECT * FROM $_kept");
    bench.ask("ALTER TABLE $ MODIFY COLUMN sequence String");
    let bench = Bench { server: bench.server.restart(), ..bench };
    let (ok, _, error) = bench.quarantine(&["replay"]);
    assert!(!ok && error.contains("not known") && error.contains("--force"), "{error}");
    bench.wait_for(2, 4);
    assert!(bench.replay(&["--force"]).contains("3 lines: 3 accepted"));
    bench.wait_for(5, 0);
    assert!(bench.server.stop().success());
}
