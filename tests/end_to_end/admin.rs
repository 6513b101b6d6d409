//! The admin address: who may use it, and how its connections end.

use std::fs;

use crate::support::{Connection, PATIENCE, Response, Server, get, post, post_with, run, shared_clickhouse, wait_for};

fn get_with(server: &Server, target: &str, headers: &str) -> Response {
    let mut connection = Connection::open(server.admin_address());
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes());
    connection.read_response()
}

/// Of the user `anybody` with the password `pass: word`.
const CREDENTIALS: &str = "Authorization: Basic YW55Ym9keTpwYXNzOiB3b3Jk\r\n";

#[test]
fn with_a_password_file_strangers_get_health_in_numbers_and_metrics_and_nothing_else() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    fs::write(&path, "pass: word\r\nanother line\n").unwrap();
    let file = path.to_str().unwrap();
    let server = Server::start(clickhouse, &database, &["--admin-password-file", file]);
    for target in ["/livez", "/readyz", "/healthz", "/health", "/ping", "/metrics"] {
        assert_eq!(server.admin_get(target).status, 200, "{target}");
    }
    for target in ["/stats", "/version", "/api/events", "/quarantine/replay", "/nothing"] {
        let reply = server.admin_get(target);
        assert_eq!(reply.status, 401, "{target}");
        assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"sluicegate\", charset=\"UTF-8\""));
        assert_ne!(get_with(&server, target, CREDENTIALS).status, 401, "{target}");
    }
    let wrong = post_with(server.admin_address(), "/spool/requeue", "Authorization: Basic Og==\r\n", b"");
    assert_eq!(wrong.status, 401);

    // A held block's reason is ClickHouse's text.
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    assert_eq!(post(server.address(), "/api/events", b"{\"event\":\"a\"}").status, 200);
    let told = || get_with(&server, "/readyz", CREDENTIALS).text();
    wait_for(|| format!("{}\n{}", told(), server.log()), || told().contains("block 1 is held: ").then_some(()));
    assert!(told().contains(&database), "{}", told());
    let numbers = server.admin_get("/readyz").text();
    assert!(numbers.contains("held blocks: 1") && !numbers.contains(&database), "{numbers}");

    // The commands read the same file.
    let admin = server.admin_address().to_string();
    let url = clickhouse.url();
    let settings = ["--admin-listen", &admin, "--clickhouse-url", &url, "--database", &database];
    let replay = [&["quarantine", "replay"], &settings[..]].concat();
    for command in [&["spool", "requeue", "--admin-listen", &admin][..], &replay] {
        let (ok, _, error) = run(command);
        assert!(!ok && error.contains("--admin-password-file"), "{error}");
    }
    let spool = server.spool_dir().to_string_lossy().into_owned();
    let (_, said, _) = run(&[&["check", "--spool-dir", &spool], &settings[..]].concat());
    assert!(said.contains(&format!("the server at {admin} wants a password")), "{said}");
    clickhouse.query(&format!("RENAME TABLE {database}.away TO {database}.events"));
    let (ok, said, error) = run(&["spool", "requeue", "--admin-listen", &admin, "--admin-password-file", file]);
    assert!(ok && said.contains("{\"requeued\":1}"), "{said}{error}");
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1);
    assert_eq!(post(server.address(), "/api/events", b"bad").status, 422);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);
    let (ok, said, error) = run(&[&replay[..], &["--admin-password-file", file]].concat());
    assert!(ok && said.contains("1 lines: 0 accepted, 1 rejected again"), "{said}{error}");
    assert!(!server.log().contains("pass: word"));
}

#[test]
fn a_password_file_that_is_missing_or_empty_stops_the_start_with_its_name() {
    let clickhouse = shared_clickhouse();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    for content in [None, Some("\nsecond line")] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let flags = ["--admin-password-file", path.to_str().unwrap()];
        let (status, log) = Server::expect_failure(clickhouse, &clickhouse.database(), &flags);
        let named = format!("--admin-password-file {}: ", path.display());
        assert!(!status.success() && log.contains(&named) && !log.contains("second line"), "{log}");
        let spool = folder.path().join("spool");
        let check = ["check", "--clickhouse-url", "http://127.0.0.1:1", "--spool-dir", spool.to_str().unwrap()];
        let (ok, said, _) = run(&[&check, &flags[..]].concat());
        assert!(!ok && said.contains(&named), "{said}");
    }
}

#[test]
fn a_name_that_points_to_loopback_gets_nothing() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(clickhouse, &clickhouse.database(), &[]);
    let host = |target: &str, host: &str| {
        let mut connection = Connection::open(server.admin_address());
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        connection.read_response()
    };
    for target in ["/livez", "/readyz", "/stats", "/api/events"] {
        let reply = host(target, "rebound.example:9080");
        assert!(reply.status == 403 && reply.text().contains("\"foreign_host\""), "{target}: {}", reply.text());
        assert_eq!(host(target, "localhost:9080").status, 200, "{target}");
        assert_eq!(host(target, &server.admin_address().to_string()).status, 200, "{target}");
    }
}

/// Without a lingering close the kernel answers what the server does not read with a reset, and that
/// makes the client's write or read fail.
#[test]
fn a_reply_is_read_by_a_client_that_goes_on_sending() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(clickhouse, &clickhouse.database(), &[]);
    let piece = [b'x'; 64 << 10];
    for (line, status) in [
        // Answered by the polling thread, by the polling thread without looking further, and by a
        // request's thread.
        ("GET /livez", 200),
        ("GET / HTTP/1.1\r\nBad", 400),
        ("POST /spool/requeue", 200),
        ("POST /quarantine/replay?more=1", 413),
    ] {
        let mut connection = Connection::open(server.admin_address());
        let end = if line.contains("HTTP") { "\r\n\r\n" } else { " HTTP/1.1\r\nHost: localhost\r\n" };
        connection.send(format!("{line}{end}Content-Length: 4194304\r\n\r\n").as_bytes());
        for _ in 0..64 {
            connection.send(&piece);
            std::thread::yield_now();
        }
        assert_eq!(connection.read_response().status, status, "{line}");
        connection.finish();
        assert!(connection.is_closed_within(PATIENCE), "{line}");
    }
    assert_eq!(get(server.admin_address(), "/livez").status, 200);
}

#[test]
fn the_configuration_in_force_is_read_as_printed_and_has_no_secret() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, again, password) = (path("a.toml"), path("b.toml"), path("password"));
    std::fs::write(&password, "pass: word\n").unwrap();
    let text = format!(
        "clickhouse-setting = [\"s3_secret_access_key=hidden-setting\", \"insert_quorum=0\"]\nbatch-rows = 7\n\
         admin-password-file = \"{password}\"\n[table.events]\nbatch-age = \"50ms\"\n[table.events.columns]\nevent = \"type\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let print = |file: &str, flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.args(["serve", "--print-config", "--config", file]).args(flags);
        let command =
            command.env("SLUICEGATE_BATCH_BYTES", "3MiB").env("SLUICEGATE_CLICKHOUSE_PASSWORD", "hidden-variable");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print(&file, &["--inserters", "5"]);
    for line in
        ["inserters = 5", "batch-bytes = \"3MiB\"", "batch-rows = 7", "batch-age = \"50ms\"", "\"event\" = \"type\""]
    {
        assert!(printed.lines().any(|found| found == line), "{line}\n{printed}");
    }
    assert!(!printed.contains("hidden"), "{printed}");
    std::fs::write(&again, &printed).unwrap();
    let without_comments =
        |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_comments(&print(&again, &[])), without_comments(&printed));

    // The server has the same to say, to those who have the password.
    let text = std::fs::read_to_string(&file).unwrap().replace("\"s3_secret_access_key=hidden-setting\", ", "");
    std::fs::write(&file, text).unwrap();
    let password = [("SLUICEGATE_CLICKHOUSE_PASSWORD", "")];
    let server = Server::start_with_environment(clickhouse, &database, &["--config", &file], &password);
    assert_eq!(server.admin_get("/config").status, 401);
    let reply = get_with(&server, "/config", CREDENTIALS);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert!(reply.text().contains(&format!("admin-listen = \"{}\"\n", server.admin_address())), "{}", reply.text());
    assert!(!reply.text().contains("pass: word") && !reply.text().contains("hidden"), "{}", reply.text());
    assert!(!server.log().contains("pass: word") && !server.log().contains("hidden"), "{}", server.log());
    std::fs::write(&again, reply.text()).unwrap();
    assert!(print(&again, &[]).contains("\"event\" = \"type\""));
    assert!(server.stop().success());
}
