//! The clients of `docs/clients`, against a server whose every second request fails in some way: each event is stored
//! once, in batches that have a key of their own, and nobody is asked sooner than the server said.

mod flaky;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::{Browser, ClickHouse, Folder, Pages, Server, shared_clickhouse, wait_for};
use flaky::{Attempt, FATES, Fate, Flaky, RETRY_AFTER};

const KEY: &str = "web-0123456789abcdef";
const EVENTS: u64 = 5000;

/// A server with write keys, to which every page may send.
fn start(clickhouse: &ClickHouse, database: &str, folder: &Folder) -> Server {
    let keys = folder.path().join("keys");
    std::fs::write(&keys, format!("{KEY} name=web\n")).unwrap();
    Server::start(clickhouse, database, &["--write-key-file", keys.to_str().unwrap(), "--cors-origin", "*"])
}

fn source(name: &str) -> String {
    format!("{}/docs/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The command of each client that reads events from its standard input.
fn commands(folder: &Path) -> BTreeMap<&'static str, Command> {
    let built = folder.join("client");
    let status = Command::new("go").args(["build", "-o"]).arg(&built).arg(source("client.go")).status();
    assert!(status.expect("go is needed: install Debian's package golang-go").success());
    let interpreted = |program: &str, name: &str| {
        let mut command = Command::new(program);
        command.arg(source(name));
        command
    };
    BTreeMap::from([
        ("curl", interpreted("bash", "curl.sh")),
        ("go", Command::new(built)),
        ("node", interpreted("node", "client.mjs")),
        ("python", interpreted("python3", "client.py")),
    ])
}

/// Starts a client, which has nothing else on its standard input than this.
fn run(command: &mut Command, url: &str, key: &str, queue: &Path, input: String) -> Child {
    let environment = [("SLUICEGATE_URL", url), ("SLUICEGATE_KEY", key), ("SLUICEGATE_QUEUE", queue.to_str().unwrap())];
    let mut child = command.envs(environment).stdin(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A client that ends early reads no more.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    child
}

fn wait_for_end(name: &str, child: &mut Child) {
    let status = wait_for(|| format!("{name} does not end"), || child.try_wait().unwrap());
    assert!(status.success(), "{name}: {status}");
}

fn kill_group(child: &mut Child) {
    kill_process_group(Pid::from_child(child), Signal::KILL).unwrap();
    child.wait().unwrap();
}

fn events(name: &str, numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{{\"event\":\"e\",\"session\":\"{name}\",\"sequence\":{number}}}\n")).collect()
}

/// Waits until ClickHouse has what this client sent; each event once.
fn each_once(server: &Server, clickhouse: &ClickHouse, database: &str, name: &str, expected: u64) {
    let count = format!(
        "SELECT count(), uniqExact(sequence), max(sequence) FROM {database}.events WHERE session = '{name}' FORMAT TSV"
    );
    let stored = || clickhouse.query(&count).trim().to_owned();
    let expected = format!("{expected}\t{expected}\t{}", expected - 1);
    wait_for(
        || format!("of {name} {} are stored in place of {expected}:\n{}", stored(), server.log()),
        || (stored() == expected).then_some(()),
    );
}

/// A batch has one key and one body until it is answered, and no request comes sooner than the server said to a client
/// that goes on: after those of these attempts.
fn assert_patient(name: &str, attempts: &[Attempt], goes_on_after: impl Fn(&Attempt) -> bool) {
    for fate in FATES {
        assert!(attempts.iter().any(|attempt| attempt.fate == fate), "nothing of {name} was {fate:?}");
    }
    let mut bodies = BTreeMap::<&str, &[u8]>::new();
    for attempt in attempts.iter().filter(|attempt| !attempt.body.is_empty()) {
        let first = *bodies.entry(&attempt.key).or_insert(&attempt.body);
        assert!(first == attempt.body, "{name} sends other events under the key {}", attempt.key);
    }
    let distinct: std::collections::BTreeSet<_> = bodies.values().collect();
    assert!(distinct.len() == bodies.len(), "{name} sends a batch under several keys");
    for key in bodies.keys() {
        let last = attempts.iter().rfind(|attempt| attempt.key == *key).unwrap();
        // The head of a reply is promise enough for who does not read its body.
        assert!(matches!(last.fate, Fate::Passed | Fate::ReplyCut), "{name} gave up on {key}: {:?}", last.fate);
    }
    for (told, next) in attempts.iter().zip(&attempts[1..]) {
        if matches!(told.fate, Fate::Refused(_, true)) && goes_on_after(told) {
            assert!(next.began - told.ended >= RETRY_AFTER, "{name} came back before Retry-After");
        }
    }
}

#[test]
#[ignore = "needs Node, Python and Go: make test-outside"]
fn each_client_stores_each_event_once_whatever_becomes_of_its_requests() {
    let (clickhouse, folder) = (shared_clickhouse(), Folder::new());
    let database = clickhouse.database();
    let server = start(clickhouse, &database, &folder);
    let mut running: Vec<_> = commands(folder.path())
        .into_iter()
        .map(|(name, mut command)| {
            let (flaky, queue) = (Flaky::before(server.address()), folder.path().join(name));
            let child = run(&mut command, &flaky.url(), KEY, &queue, events(name, 0..EVENTS));
            (name, command, queue, flaky, child)
        })
        .collect();
    for (name, command, queue, flaky, child) in &mut running {
        let mut killed = None;
        if *name == "curl" {
            // Its queue is on the disk: killed, it goes on where it was, with nothing new to send.
            wait_for(|| format!("{:?}", flaky.attempts()), || (flaky.attempts().len() >= 4).then_some(()));
            kill_group(child);
            killed = Some(Instant::now());
            *child = run(command, &flaky.url(), KEY, queue, String::new());
        }
        wait_for_end(name, child);
        each_once(&server, clickhouse, &database, name, EVENTS);
        assert_patient(name, &flaky.attempts(), |told| killed.is_none_or(|killed| told.began > killed));
    }
    server.wait_until_drained();
    for (name, ..) in &running {
        each_once(&server, clickhouse, &database, name, EVENTS);
    }
    assert!(server.metrics()["sluicegate_requests_repeated_total"] >= 4.0 * 3.0, "{:?}", server.metrics());
    assert!(server.stop().success());
}

#[test]
#[ignore = "needs Node, Python and Go: make test-outside"]
fn a_batch_that_is_refused_for_good_is_not_sent_again() {
    let (clickhouse, folder) = (shared_clickhouse(), Folder::new());
    let database = clickhouse.database();
    let server = start(clickhouse, &database, &folder);
    let url = format!("http://{}/api/events", server.address());
    for (name, mut command) in commands(folder.path()) {
        let before = server.metrics().get("sluicegate_requests_total{code=\"403\"}").copied().unwrap_or(0.0);
        let mut child = run(&mut command, &url, "wrong", &folder.path().join(name), events(name, 0..10));
        wait_for_end(name, &mut child);
        assert_eq!(server.metrics()["sluicegate_requests_total{code=\"403\"}"], before + 1.0, "{name}");
    }
    assert_eq!(clickhouse.query(&format!("SELECT count() FROM {database}.events")).trim(), "0");
    assert!(server.stop().success());
}

/// The browser's client, which sends to this URL, with calls of `track` behind it.
fn page(url: &str, calls: &str) -> String {
    let script = std::fs::read_to_string(source("browser.js")).unwrap();
    let (own_url, own_key) = ("https://events.example/api/events", "Zx81kR2mPq7LwT0c");
    assert!(script.contains(own_url) && script.contains(own_key), "{script}");
    // Its first comment has a tag that would end the script.
    let (_, script) = script.split_once("\n\n").unwrap();
    let script = script.replace(own_url, url).replace(own_key, KEY);
    let event = "const event = sequence => ({ event: 'e', session: 'browser', sequence });";
    format!("<script>{script}</script><script>{event} {calls}</script>")
}

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn a_page_that_is_left_while_its_requests_fail_loses_and_doubles_nothing() {
    let (clickhouse, folder, pages) = (shared_clickhouse(), Folder::new(), Pages::new());
    let database = clickhouse.database();
    let server = start(clickhouse, &database, &folder);
    let flaky = Flaky::before(server.address());
    // The first page is left while a batch has no reply yet and the queue has more.
    let first = "for (let number = 0; number < 800; number++) track(event(number));
        fetch('/report', { method: 'POST', body: 'tracked' });
        const leave = () => Object.keys(localStorage).length ? location = '/next' : setTimeout(leave, 1);
        setTimeout(leave, 1500);";
    pages.put("/", page(&flaky.url(), first));
    pages.put("/next", page(&flaky.url(), "for (let number = 800; number < 1600; number++) track(event(number));"));
    let _browser = Browser::open(&pages.origin());
    assert_eq!(pages.report(), "tracked");
    each_once(&server, clickhouse, &database, "browser", 1600);
    let is_over = || flaky.attempts().last().is_some_and(|last| matches!(last.fate, Fate::Passed | Fate::ReplyCut));
    wait_for(|| format!("{:?}", flaky.attempts().last()), || is_over().then_some(()));
    server.wait_until_drained();
    each_once(&server, clickhouse, &database, "browser", 1600);
    let is_of_second_page = |told: &Attempt| {
        let body = String::from_utf8_lossy(&told.body);
        let first = body.split("\"sequence\":").nth(1).and_then(|rest| rest.split('}').next()?.parse().ok());
        first.is_some_and(|number: u64| number >= 800)
    };
    assert!(flaky.attempts().iter().any(is_of_second_page));
    assert_patient("the browser", &flaky.attempts(), is_of_second_page);
    assert!(server.stop().success());
}
