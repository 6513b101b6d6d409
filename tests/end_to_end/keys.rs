//! Write keys: who may send events, what a new key file changes, and where a key is never seen. And the
//! identities of requests.

use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
use rustix::process::Signal;

use crate::support::{
    Connection, Folder, Response, Server, get, post, post_with, request, run, shared_clickhouse, wait_for,
};

const TARGET: &str = "/api/events";
const WEB: &str = "web-0123456789abcdef";
const NEW: &str = "new-0123456789abcdef";
const APP: &str = "app-0123456789abcdef";

/// A key file and its folder.
struct KeyFile {
    _folder: Folder,
    path: PathBuf,
}

impl KeyFile {
    fn new(text: &str) -> Self {
        let folder = Folder::new();
        let path = folder.path().join("keys");
        std::fs::write(&path, text).unwrap();
        Self { _folder: folder, path }
    }

    fn flags(&self) -> [&str; 2] {
        ["--write-key-file", self.path.to_str().unwrap()]
    }

    /// Writes it anew, and waits until the server has said so in these words.
    fn replace(&self, server: &Server, text: &str, said: &str) {
        std::fs::write(&self.path, text).unwrap();
        let before = server.log().matches(said).count();
        server.signal(Signal::HUP);
        wait_for(|| server.log(), || (server.log().matches(said).count() > before).then_some(()));
    }
}

fn event(name: &str) -> String {
    format!("{{\"event\":\"{name}\"}}\n")
}

fn send(server: &Server, key: &str, fields: &str, body: &str) -> Response {
    post_with(server.address(), TARGET, &format!("X-Write-Key: {key}\r\n{fields}"), body.as_bytes())
}

#[test]
fn events_need_a_key_in_any_of_three_places_and_health_needs_none() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let file = KeyFile::new(&format!("{WEB} name=web\n{NEW} name=web\n{APP}\n"));
    let server = Server::start(clickhouse, &database, &[&file.flags()[..], &["--log-level", "trace"]].concat());
    let address = server.address();
    let none = post(address, TARGET, event("none").as_bytes());
    assert_eq!((none.status, none.header("www-authenticate")), (401, Some("Bearer")));
    assert!(none.text().contains("\"error\":\"missing_key\""), "{}", none.text());
    let wrong = send(&server, "web-0123456789abcdeg", "", &event("wrong"));
    assert!(wrong.status == 403 && wrong.text().contains("\"error\":\"wrong_key\""), "{}", wrong.text());
    let ways = [
        post_with(address, TARGET, &format!("Authorization: Bearer {WEB}\r\n"), event("a").as_bytes()),
        send(&server, NEW, "", &(event("b") + "rubbish")),
        post_with(address, &format!("{TARGET}?key={APP}&ack=inserted"), "", event("c").as_bytes()),
    ];
    for reply in &ways {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    // What is refused is read and dropped: the connection lives on.
    let mut connection = Connection::open(address);
    connection.send(&request(TARGET, "", event("none").as_bytes()));
    connection.send(&request(TARGET, &format!("X-Write-Key: {WEB}\r\n"), event("d").as_bytes()));
    assert_eq!([connection.read_response().status, connection.read_response().status], [401, 200]);
    let expecting = post_with(address, TARGET, "Expect: 100-continue\r\n", b"");
    assert_eq!(expecting.status, 401);
    assert_eq!(get(address, "/health").status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 4);
    let names = clickhouse.query(&format!("SELECT arraySort(groupArray(event)) FROM {database}.events"));
    assert_eq!(names.trim(), "['a','b','c','d']");
    let metrics = server.metrics();
    assert_eq!(metrics["sluicegate_key_events_accepted_total{key=\"web\"}"], 3.0);
    assert_eq!(metrics["sluicegate_key_events_accepted_total{key=\"\"}"], 1.0);
    assert_eq!(metrics["sluicegate_requests_total{code=\"403\"}"], 1.0);
    let shown = [server.admin_get("/metrics").text(), server.admin_get("/stats").text(), wrong.text(), none.text()];
    for key in [WEB, NEW, APP, "web-0123456789abcdeg"] {
        assert!(!shown.concat().contains(key) && !server.log().contains(key), "{key}");
    }
    assert!(server.stop().success());
}

#[test]
fn a_new_key_file_takes_effect_on_a_hang_up_and_a_broken_one_changes_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let file = KeyFile::new(&format!("{WEB} name=web\n"));
    let server = Server::start(clickhouse, &database, &file.flags());
    let mut connection = Connection::open(server.address());
    let mut status = |key: &str| {
        connection.send(&request(TARGET, &format!("X-Write-Key: {key}\r\n"), event("a").as_bytes()));
        connection.read_response().status
    };
    assert_eq!([status(WEB), status(NEW)], [200, 403]);
    file.replace(&server, &format!("{WEB} name=web\n{NEW} name=web\n"), "the write keys are read again");
    assert_eq!([status(WEB), status(NEW)], [200, 200]);
    file.replace(&server, &format!("{NEW} name=web\n"), "the write keys are read again");
    assert_eq!([status(WEB), status(NEW)], [403, 200]);
    for broken in [format!("{NEW} name=web\n{APP} name=a {WEB}\n"), String::new()] {
        file.replace(&server, &broken, "the write keys stay as they were");
        assert_eq!([status(WEB), status(NEW), status(APP)], [403, 200, 403]);
    }
    assert!(server.log().contains("line 2"), "{}", server.log());
    std::fs::remove_file(&file.path).unwrap();
    server.signal(Signal::HUP);
    wait_for(|| server.log(), || server.log().contains("No such file").then_some(()));
    assert_eq!([status(WEB), status(NEW)], [403, 200]);
    assert_eq!(server.metrics()["sluicegate_key_events_accepted_total{key=\"web\"}"], 7.0);
    for key in [WEB, NEW, APP] {
        assert!(!server.log().contains(key), "{key}");
    }
    assert!(server.stop().success());
}

#[test]
fn an_idempotency_key_belongs_to_the_name_of_the_write_key_across_a_restart() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let file = KeyFile::new(&format!("{WEB} name=web\n{NEW} name=web\n{APP} name=app\n"));
    let server = Server::start(clickhouse, &database, &file.flags());
    let keyed = |server: &Server, key: &str| send(server, key, "Idempotency-Key: 1\r\n", &event("a"));
    for key in [WEB, NEW, APP] {
        assert_eq!(keyed(&server, key).status, 200, "{key}");
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    let server = server.restart();
    for key in [WEB, NEW, APP] {
        assert_eq!(keyed(&server, key).status, 200, "{key}");
    }
    assert_eq!(server.metrics()["sluicegate_requests_repeated_total"], 3.0);
    assert!(!server.metrics().contains_key("sluicegate_key_events_accepted_total{key=\"\"}"));
    assert_eq!(server.metrics()["sluicegate_key_events_accepted_total{key=\"web\"}"], 0.0);
    assert!(server.stop().success());
    let rows = clickhouse.query(&format!("SELECT count() FROM {database}.events"));
    assert_eq!(rows.trim(), "2");
}

#[test]
fn a_key_for_another_table_may_not_write_to_this_one() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let file = KeyFile::new(&format!("{WEB} name=web tables=hits\n{APP} name=app tables=hits,events\n"));
    let server = Server::start(clickhouse, &database, &file.flags());
    let refused = send(&server, WEB, "", &event("a"));
    assert!(refused.status == 403 && refused.text().contains("\"error\":\"wrong_table\""), "{}", refused.text());
    assert_eq!(send(&server, APP, "", &event("a")).status, 200);
    assert!(server.stop().success());
}

#[test]
fn a_key_file_that_cant_be_used_stops_the_start_with_its_line_and_without_its_keys() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let file = KeyFile::new(&format!("{WEB} name=web\n{APP} title=app\n"));
    let (status, log) = Server::expect_failure(clickhouse, &database, &file.flags());
    assert!(!status.success() && log.contains("--write-key-file") && log.contains("line 2"), "{log}");
    assert!(!log.contains(WEB) && !log.contains(APP), "{log}");
    let url = clickhouse.url();
    let flags = ["check", "--clickhouse-url", &url, file.flags()[0], file.flags()[1]];
    let (works, printed, _) = run(&flags);
    assert!(!works && printed.contains("line 2") && !printed.contains(APP), "{printed}");
    let (status, log) = Server::expect_failure(clickhouse, &database, &["--write-key-file", "/nowhere/keys"]);
    assert!(!status.success() && log.contains("/nowhere/keys"), "{log}");
}

#[test]
fn a_sane_identity_of_a_request_comes_back_and_each_other_request_gets_one() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--log-level", "debug"]);
    let id = |fields: &str, target: &str| {
        let reply = post_with(server.address(), target, fields, event("a").as_bytes());
        reply.header("x-request-id").unwrap_or_default().to_owned()
    };
    assert_eq!(id("X-Request-Id: mine-1\r\n", TARGET), "mine-1");
    assert_eq!(id("X-Request-Id: mine-2\r\n", "/lost"), "mine-2");
    let ours = [id("", TARGET), id("", TARGET), id("X-Request-Id: a \"b\"\r\n", TARGET), id("", "/lost")];
    for (index, id) in ours.iter().enumerate() {
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(!ours[..index].contains(id), "{ours:?}");
    }
    // A refusal stands in the log with its identity.
    for id in ["mine-2", &ours[3]] {
        wait_for(|| server.log(), || server.log().contains(id).then_some(()));
    }
    assert!(server.stop().success());
}

#[test]
fn a_key_file_that_hangs_when_it_is_read_again_does_not_hold_up_a_stop() {
    let clickhouse = shared_clickhouse();
    let file = KeyFile::new(&format!("{WEB}\n"));
    let mut server = Server::start(clickhouse, &clickhouse.database(), &file.flags());
    std::fs::remove_file(&file.path).unwrap();
    mkfifoat(CWD, &file.path, Mode::RUSR | Mode::WUSR).unwrap();
    server.signal(Signal::HUP);
    // It opens without waiting once the server reads, which gets nothing as long as this is open.
    let write = || open(&file.path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).ok();
    let _open = wait_for(|| server.log(), write);
    assert_eq!(send(&server, WEB, "", &event("meanwhile")).status, 200);
    server.signal(Signal::TERM);
    assert!(server.wait_for_end().success());
}
