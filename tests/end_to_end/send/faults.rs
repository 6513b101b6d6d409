//! A run that is killed or interrupted, a server that goes away or refuses for a while, and a network that loses
//! replies: nothing is lost, and nothing is stored twice.

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::support::proxy::{Proxy, Then, faults, said};
use crate::support::wait_for;

const EVENTS: u64 = 20_000;

/// So slow that a run lasts for seconds.
const SLOW: [&str; 2] = ["--rate-limit", "6000/s,burst=4000"];

fn accepted_so_far(server: &Server) -> f64 {
    server
        .metrics()
        .iter()
        .filter(|(name, _)| name.starts_with("sluicegate_events_accepted_total"))
        .map(|(_, count)| count)
        .sum()
}

/// Waits until a part of the file is stored.
fn wait_for_some(server: &Server) {
    wait_for(|| server.log(), || (accepted_so_far(server) > 0.0).then_some(()));
}

fn file_and_arguments(files: &Files, url: &str, more: &[&str]) -> Vec<String> {
    let file = files.write("a", events(0..EVENTS));
    let arguments = [&[&file, "--url", url, "--batch-lines", "100", "--connections", "3"], more].concat();
    arguments.into_iter().map(str::to_owned).collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn a_run_that_was_killed_is_repeated_and_stores_nothing_twice() {
    for has_state in [false, true] {
        let clickhouse = shared_clickhouse();
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, &SLOW);
        let files = Files::new();
        let state = files.path("state");
        let more: &[&str] = if has_state { &["--state", &state] } else { &[] };
        let arguments = file_and_arguments(&files, &url(&server), more);
        for _ in 0..2 {
            let before = accepted_so_far(&server);
            let mut child = spawn(&words(&arguments));
            let is_written = || !has_state || Path::new(&state).exists();
            wait_for(|| server.log(), || (accepted_so_far(&server) > before && is_written()).then_some(()));
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success());
        }
        let sent = run(&words(&arguments));
        assert_eq!(sent.code, 0, "{}", sent.errors);
        assert_eq!(sent.said.trim() == accepted(EVENTS), !has_state, "with a state, less is sent: {}", sent.said);
        each_once(clickhouse, &database, &server, EVENTS);
        assert!(server.stop().success());
    }
}

#[test]
fn a_run_that_was_interrupted_ends_in_order_and_goes_on() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &SLOW);
    let files = Files::new();
    let state = files.path("state");
    let arguments = file_and_arguments(&files, &url(&server), &["--state", &state]);
    let child = spawn(&words(&arguments));
    wait_for_some(&server);
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    let sent = Sent::of(child.wait_with_output().unwrap());
    assert!(sent.code == 2 && sent.errors.contains("interrupted; the same command goes on"), "{}", sent.errors);
    let stored = accepted_so_far(&server);
    let sent = run(&words(&arguments));
    // What was stored behind a request that waited is sent again, and is not stored again.
    let count: u64 = sent.said.split(' ').next().unwrap().parse().unwrap();
    assert!(
        sent.code == 0 && (EVENTS - stored as u64..EVENTS).contains(&count),
        "{stored}: {}{}",
        sent.said,
        sent.errors
    );
    each_once(clickhouse, &database, &server, EVENTS);
    // A pipe into which nobody writes keeps it from nothing.
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let child = child
        .args(["send", "-", "--url", &url(&server)])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = child.spawn().unwrap();
    let (pipe, id) = (child.stdin.take(), child.id());
    // Its threads begin behind the handlers of signals.
    let has_threads = || std::fs::read_dir(format!("/proc/{id}/task")).is_ok_and(|threads| threads.count() > 4);
    wait_for(|| "it does not begin".to_owned(), || has_threads().then_some(()));
    kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    let sent = Sent::of(child.wait_with_output().unwrap());
    assert!(sent.code == 2 && sent.errors.contains("interrupted"), "{}", sent.errors);
    drop(pipe);
}

#[test]
fn a_server_that_is_killed_meanwhile_gets_the_rest_when_it_is_back() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let mut server = Server::start(clickhouse, &database, &SLOW);
    let files = Files::new();
    let arguments = file_and_arguments(&files, &url(&server), &[]);
    let child = spawn(&words(&arguments));
    wait_for_some(&server);
    server.kill9();
    let server = server.start_again();
    let sent = Sent::of(child.wait_with_output().unwrap());
    assert_eq!(sent.code, 0, "{}", sent.errors);
    assert!(sent.errors.lines().all(|line| line.contains("waiting for http://")), "{}", sent.errors);
    each_once(clickhouse, &database, &server, EVENTS);
    assert!(server.stop().success());
}

#[test]
fn refusals_and_lost_replies_of_a_network_lose_and_double_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let proxy = Proxy::before(server.address());
    let names = [
        "a late reply",
        "a reply byte by byte",
        "a reset before the body",
        "a reset behind the body",
        "a reset instead of the reply",
        "an end instead of the reply",
        "an end, and nothing stored",
        "half a head",
        "500 for what is stored",
        "502 of a load balancer",
        "503 of a load balancer for what is stored",
        "429 of a front",
    ];
    let mixed: Vec<_> = faults().into_iter().filter(|fault| names.contains(&fault.name)).collect();
    assert_eq!(mixed.len(), names.len());
    let files = Files::new();
    // The proxy takes what says that it is an INSERT for one.
    let target = format!("{}/api/events?query=INSERT", proxy.url());
    for (round, first) in (0..4000).step_by(1000).enumerate() {
        proxy.inflict(mixed.clone());
        let file = files.write("a", events(first..first + 1000));
        let sent = run(&[&file, "--url", &target, "--batch-lines", "50", "--timeout", "5s"]);
        let sent = sent.expect(0, &accepted(1000));
        assert_eq!(proxy.inflicted(), (round as u64 + 1) * mixed.len() as u64);
        // Each cause is said once.
        let waits = sent.errors.lines().filter(|line| line.contains("waiting for")).count();
        assert!((1..=5).contains(&waits) && waits == sent.errors.lines().count(), "{}", sent.errors);
    }
    each_once(clickhouse, &database, &server, 4000);
    assert!(server.stop().success());
}

#[test]
fn a_server_that_refuses_for_a_while_is_waited_for_and_one_that_goes_on_is_given_up() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let proxy = Proxy::before(server.address());
    let target = format!("{}/api/events", proxy.url());
    let files = Files::new();
    let file = files.write("a", events(0..1000));
    let body = "{\"error\":\"spool_full\",\"message\":\"The spool is full.\"}";
    // The proxy ends the connection: a client that is not told uses it again, and says that it broke off.
    let illness = |status: &str| -> Then { said(status, "Retry-After: 1\r\nConnection: close\r\n", body) };
    for status in ["503 Service Unavailable", "429 Too Many Requests"] {
        proxy.fall_ill(illness(status));
        let given_up = run(&[&file, "--url", &target, "--give-up-after", "100ms"]).expect(2, &accepted(0));
        let reason = format!("it answered {} (spool_full): The spool is full.", &status[..3]);
        assert!(given_up.errors.contains(&reason) && given_up.errors.contains("within 100ms"), "{}", given_up.errors);
    }
    let mut child = spawn(&[&file, "--url", &target, "--batch-lines", "100"]);
    let mut errors = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut errors, &mut line).unwrap();
    assert!(line.contains("waiting for http://") && line.contains("429 (spool_full)"), "{line}");
    proxy.recover();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    line.clear();
    std::io::Read::read_to_string(&mut errors, &mut line).unwrap();
    assert_eq!(line, "", "it is said once, not by each connection");
    each_once(clickhouse, &database, &server, 1000);
    assert!(server.stop().success());
}

#[test]
fn a_rate_limit_slows_a_run_down_and_halves_what_is_over_its_burst() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--rate-limit", "500/s,burst=400"]);
    let files = Files::new();
    let file = files.write("a", events(0..2000));
    let sent = run(&[&file, "--url", &url(&server), "--batch-lines", "1000"]).expect(0, &accepted(2000));
    assert!(sent.errors.lines().count() == 1 && sent.errors.contains("429 (over_rate)"), "{}", sent.errors);
    each_once(clickhouse, &database, &server, 2000);
    assert!(server.stop().success());
}
