//! `sluicegate send`: every line of every file is stored once, or named with a reason.

mod faults;
mod lines;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{ClickHouse, Folder, PATIENCE, Server, shared_clickhouse};

/// `sluicegate send` with these arguments, which is killed when it takes too long.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", &PATIENCE.as_secs().to_string(), env!("CARGO_BIN_EXE_sluicegate")]);
    command.arg("send").args(arguments).env_remove("SLUICEGATE_WRITE_KEY");
    command
}

/// How a run ended, and what it said.
struct Sent {
    code: i32,
    said: String,
    errors: String,
}

impl Sent {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), said: text(output.stdout), errors: text(output.stderr) }
    }

    #[track_caller]
    fn expect(self, code: i32, said: &str) -> Self {
        assert!(self.code == code && self.said.trim() == said, "{}: {}{}", self.code, self.said, self.errors);
        self
    }

    /// The numbers of the rejected lines of a file, in the order in which they were printed.
    fn rejected(&self, file: &str) -> Vec<u64> {
        let begin = format!("{file}:");
        let numbers = self.errors.lines().filter_map(|line| line.strip_prefix(&begin)?.split(':').next()?.parse().ok());
        numbers.collect()
    }
}

fn run(arguments: &[&str]) -> Sent {
    Sent::of(command(arguments).stdin(Stdio::null()).output().unwrap())
}

fn run_with(input: &[u8], arguments: &[&str]) -> Sent {
    let mut child =
        command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without having read all of it.
    let _ = child.stdin.take().unwrap().write_all(input);
    Sent::of(child.wait_with_output().unwrap())
}

/// The process itself, to be killed.
fn spawn(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.arg("send").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn url(server: &Server) -> String {
    format!("http://{}/api/events", server.address())
}

/// Events with these numbers.
fn events(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{{\"event\":\"e\",\"param_int\":{number}}}\n")).collect()
}

/// A folder with files.
struct Files(Folder);

impl Files {
    fn new() -> Self {
        Self(Folder::new())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }
}

/// Waits until so many events are stored, and checks that they have the numbers from 0 on, each once.
#[track_caller]
fn each_once(clickhouse: &ClickHouse, database: &str, server: &Server, count: u64) {
    server.wait_until_drained();
    let found = clickhouse.query(&format!(
        "SELECT count(), uniqExact(param_int), min(param_int), max(param_int) FROM {database}.events FORMAT TSV"
    ));
    assert_eq!(found.trim(), format!("{count}\t{count}\t0\t{}", count - 1), "{}", server.log());
}

fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

fn accepted(count: u64) -> String {
    format!("{count} lines accepted, 0 rejected")
}

#[test]
fn the_same_contents_are_stored_once_whatever_their_name_and_packing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url, contents) = (Files::new(), url(&server), events(0..30_000));
    let (first, second) = contents.as_bytes().split_at(contents.len() / 3);
    let zstandard = |contents: &[u8]| zstd::stream::encode_all(contents, 1).unwrap();
    let packed = [
        files.write("a", &contents),
        files.write("b", &contents),
        files.write("a.gz", [gzip(first), gzip(second)].concat()),
        files.write("a.zst", [zstandard(first), zstandard(second)].concat()),
    ];
    for (file, connections) in packed.iter().zip(["1", "2", "8", "3"]) {
        let arguments = [file, "--url", &url, "--batch-lines", "700", "--connections", connections];
        run(&arguments).expect(0, &accepted(30_000));
    }
    run_with(contents.as_bytes(), &["-", "--url", &url, "--batch-lines", "700"]).expect(0, &accepted(30_000));
    each_once(clickhouse, &database, &server, 30_000);
    // In one run that is said.
    let both = run(&[&packed[0], &packed[1], "--url", &url, "--batch-lines", "700"]).expect(0, &accepted(60_000));
    assert!(both.errors.contains("b: it begins with the same 700 lines as") && both.errors.lines().count() == 1);
    each_once(clickhouse, &database, &server, 30_000);
    run(&[&packed[0], "--url", &url, "--salt", "again"]).expect(0, &accepted(30_000));
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 60_000);
    assert!(server.stop().success());
}

#[test]
fn other_contents_under_the_same_name_and_equal_lines_of_a_file_are_stored() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url) = (Files::new(), url(&server));
    let arguments = |file: &str| run(&[file, "--url", &url, "--batch-lines", "2"]);
    // Four times the same request body.
    arguments(&files.write("a", "{\"event\":\"same\"}\n".repeat(8))).expect(0, &accepted(8));
    arguments(&files.write("a", events(0..6))).expect(0, &accepted(6));
    // The same but for its beginning: what is behind has other keys.
    arguments(&files.write("a", events(6..8) + &events(2..6))).expect(0, &accepted(6));
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 20);
    assert!(server.stop().success());
}

#[test]
fn a_state_goes_on_where_a_file_was_and_does_not_take_another_one_for_it() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url) = (Files::new(), url(&server));
    let state = files.path("state");
    let send = |file: &str| run(&[file, "--url", &url, "--batch-lines", "300", "--state", &state]);
    let file = files.write("a", events(0..1000));
    send(&file).expect(0, &accepted(1000));
    send(&file).expect(0, &accepted(0));
    // A file that has grown, and one that is packed meanwhile.
    files.write("a", events(0..1700));
    send(&file).expect(0, &accepted(700));
    files.write("a", gzip(events(0..2000).as_bytes()));
    send(&file).expect(0, &accepted(300));
    each_once(clickhouse, &database, &server, 2000);
    let other = files.write("a", events(2000..2500));
    let sent = send(&other).expect(0, &accepted(500));
    assert!(sent.errors.contains("its first 2000 lines are not those"), "{}", sent.errors);
    each_once(clickhouse, &database, &server, 2500);
    // Standard input has no beginning to go back to.
    let piped = |input: &str| run_with(input.as_bytes(), &["-", "--url", &url, "--state", &state]);
    piped(&events(2500..2600)).expect(0, &accepted(100));
    piped(&events(2500..2700)).expect(0, &accepted(100));
    assert!(piped(&events(0..300)).expect(2, &accepted(0)).errors.contains("its first 200 lines are not those"));
    each_once(clickhouse, &database, &server, 2700);
    let wrong = run(&[&file, "--url", "http://127.0.0.1:1/api/other", "--state", &state]);
    assert!(wrong.code == 2 && wrong.errors.contains("about another --url"), "{}", wrong.errors);
    assert!(server.stop().success());
}

#[test]
fn a_write_key_comes_from_a_file_or_a_variable_and_is_not_printed() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let files = Files::new();
    let key = "web-0123456789abcdef";
    let keys = files.write("keys", format!("{key} name=web\n"));
    let server = Server::start(clickhouse, &database, &["--write-key-file", &keys]);
    let (url, file, own) = (url(&server), files.write("a", events(0..10)), files.write("key", format!("{key}\n")));
    let refused = run(&[&file, "--url", &url]).expect(2, &accepted(0));
    assert!(refused.errors.contains("it answered 401"), "{}", refused.errors);
    run(&[&file, "--url", &url, "--write-key-file", &own]).expect(0, &accepted(10));
    let output = command(&[&file, "--url", &url]).env("SLUICEGATE_WRITE_KEY", key).output().unwrap();
    let sent = Sent::of(output).expect(0, &accepted(10));
    assert!(sent.errors.is_empty(), "{}", sent.errors);
    each_once(clickhouse, &database, &server, 10);
    assert!(server.stop().success());
}

#[cfg(feature = "tls")]
#[test]
fn https_needs_an_authority_that_is_trusted() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (authority, files) = (crate::support::Authority::new(), Files::new());
    let url = format!("{}/api/events", authority.front_of(&format!("http://{}", server.address())));
    let file = files.write("a", events(0..10));
    run(&[&file, "--url", &url, "--ca-file", &authority.ca_file()]).expect(0, &accepted(10));
    let stranger = crate::support::Authority::new();
    let refused = run(&[&file, "--url", &url, "--ca-file", &stranger.ca_file(), "--give-up-after", "300ms"]);
    assert!(refused.code == 2 && refused.errors.contains("certificate"), "{}", refused.errors);
    each_once(clickhouse, &database, &server, 10);
}

#[test]
fn what_can_not_be_sent_is_said_before_anything_is() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url) = (Files::new(), url(&server));
    let good = files.write("good", events(0..10));
    let (missing, folder) = (files.path("missing"), files.path("."));
    let wrong_url = url.replace("/api/events", "/api/nothing");
    for (arguments, reason) in [
        (&[&good, missing.as_str(), "--url", &url][..], "missing: No such file"),
        (&[&good, "--url", "host:8080"], "--url must look like"),
        (&[&good, "--url", &url, "--ca-file", &missing], "--ca-file"),
        (&[&good, "--url", &url, "--write-key-file", &missing], "--write-key-file"),
        (&[&good, "--url", &wrong_url], "it answered 404 (not_found)"),
        (&["--url", &url], "<FILE>"),
    ] {
        let sent = run(arguments);
        assert!(sent.code == 2 && sent.errors.contains(reason), "{arguments:?}: {} {}", sent.code, sent.errors);
        assert!(!sent.said.contains("10 lines accepted"), "{arguments:?}: {}", sent.said);
    }
    // One that can't be read does not keep the others from being sent.
    let sent = run(&[&folder, &good, "--url", &url]).expect(2, &accepted(10));
    assert!(sent.errors.contains("it is a folder"), "{}", sent.errors);
    each_once(clickhouse, &database, &server, 10);
    assert!(server.stop().success());
}
