//! `/openapi.json` against the real replies: each one's status, content type and shape are described, and what is
//! described is seen.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Connection, Folder, PATIENCE, Response, Server, get, post, shared_clickhouse, wait_for};

const KEY: &str = "web-0123456789abcdef";
const WRITE_KEY: &str = "X-Write-Key: web-0123456789abcdef\r\n";
/// Of the password `pass`.
const PASSWORD: &str = "Authorization: Basic dXNlcjpwYXNz\r\n";

/// What is described and not seen here, because it needs a disk that fails, a server that starts, the other engine, or half a minute.
const UNSEEN: [(&str, &str, &str); 9] = [
    ("/api/{table}", "post", "408"),
    ("/api/{table}", "post", "411"),
    ("/healthz", "get", "503"),
    ("/livez", "get", "503"),
    ("/ping", "get", "503"),
    ("/quarantine/replay", "get", "503"),
    ("/quarantine/replay", "post", "422"),
    ("/quarantine/replay", "post", "503"),
    ("/spool/requeue", "post", "503"),
];

/// The description, and what was seen of it.
struct Description {
    document: Value,
    seen: BTreeSet<(String, String, String)>,
}

impl Description {
    /// True if the value is as a schema says, which may name others of the document.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.document["components"],
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
    }

    /// The template of a target, and its operation.
    fn operation(&self, method: &str, target: &str) -> (String, Value) {
        let path = target.split('?').next().unwrap();
        let paths = self.document["paths"].as_object().unwrap();
        let matches = |template: &str| {
            let (parts, wanted): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), template.split('/').collect());
            parts.len() == wanted.len() && parts.iter().zip(&wanted).all(|(a, b)| a == b || b.starts_with('{'))
        };
        let exact = paths.keys().find(|template| *template == path);
        let template = exact.or_else(|| paths.keys().find(|template| matches(template)));
        let template = template.unwrap_or_else(|| panic!("{path} is not described"));
        let operation = paths[template].get(method).unwrap_or_else(|| panic!("{method} {template} is not described"));
        (template.clone(), operation.clone())
    }

    /// Checks a reply to a request.
    #[track_caller]
    fn check(&mut self, method: &str, target: &str, status: u16, reply: &Response) {
        let text = reply.text();
        assert_eq!(reply.status, status, "{method} {target}: {text}");
        let (template, operation) = self.operation(method, target);
        let described = operation["responses"].get(status.to_string());
        let described = described.unwrap_or_else(|| panic!("{method} {template}: {status} is not described"));
        for (name, _) in described["headers"].as_object().into_iter().flatten() {
            assert!(reply.header(&name.to_lowercase()).is_some(), "{method} {target}: {status} lacks {name}");
        }
        self.seen.insert((template, method.to_owned(), status.to_string()));
        let Some(contents) = described.get("content") else { return assert!(text.is_empty(), "{target}: {text}") };
        let content_type = reply.header("content-type").unwrap_or_default();
        let media = content_type.split(';').next().unwrap();
        let content = contents.get(media).unwrap_or_else(|| panic!("{method} {target}: {media} is not described"));
        let values: Vec<Value> = match media {
            "application/json" => vec![serde_json::from_slice(&reply.body).unwrap()],
            "application/x-ndjson" => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            _ => vec![text.clone().into()],
        };
        for value in values {
            self.fits(&content["schema"], &value)
                .unwrap_or_else(|wrong| panic!("{method} {target} {status}: {wrong}\n{text}"));
        }
    }
}

/// A server, and the description that its replies are held against.
struct Bench {
    server: Server,
    description: Description,
}

impl Bench {
    fn exchange(&self, address: SocketAddr, bytes: &[u8]) -> Response {
        let mut connection = Connection::open(address);
        connection.send(bytes);
        connection.read_response()
    }

    /// A request to the admin address.
    #[track_caller]
    fn admin(&mut self, method: &str, target: &str, fields: &str, body: &[u8], status: u16) {
        let length = if method == "get" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n", method.to_uppercase());
        let reply = self.exchange(self.server.admin_address(), &[head.as_bytes(), body].concat());
        self.description.check(method, target, status, &reply);
    }

    #[track_caller]
    fn get(&mut self, target: &str, status: u16) {
        self.admin("get", target, "", b"", status);
    }

    /// Events to the public address.
    #[track_caller]
    fn send(&mut self, query: &str, fields: &str, body: &[u8], status: u16) {
        let target = format!("/api/events{query}");
        self.send_raw(&target, &format!("{WRITE_KEY}{fields}Content-Length: {}\r\n", body.len()), body, status);
    }

    #[track_caller]
    fn send_raw(&mut self, target: &str, fields: &str, body: &[u8], status: u16) {
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let reply = self.exchange(self.server.address(), &[head.as_bytes(), body].concat());
        self.description.check("post", target, status, &reply);
    }
}

fn document(server: &Server) -> Value {
    serde_json::from_slice(&server.admin_get("/openapi.json").body).unwrap()
}

#[test]
fn each_reply_is_as_it_is_described_and_each_description_is_seen() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = Folder::new();
    let write = |name: &str, text: &str| {
        let path = Path::new(folder.path()).join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let keys = write("keys", &format!("{KEY} name=web\nslow-0123456789abcdef name=slow rate=1/s,burst=1\n"));
    let config = write("sluicegate.toml", "[table.events]\n[table.missing]\n");
    let flags = ["--config", &config, "--write-key-file", &keys, "--batch-age", "2s", "--body-bytes-max", "64KiB"];
    let server = Server::start(clickhouse, &database, &[&flags[..], &["--inserted-timeout", "1ms"]].concat());
    let mut bench = Bench { description: Description { document: document(&server), seen: BTreeSet::new() }, server };

    // Events.
    bench.send("", "", b"{\"event\":\"a\",\"more\":1}\n{\"event\":\"b\",\"client_time\":1700000000}", 200);
    bench.send("", "", b"[{\"event\":\"a\"},1]", 200);
    bench.send("?ack=inserted", "", b"{\"event\":\"c\"}", 202);
    bench.send("", "", b"bad\n{\"sequence\":\"x\"}", 422);
    bench.send("", "", "bad\n".repeat(1001).as_bytes(), 422);
    bench.send("", "Idempotency-Key: k\r\n", b"{}", 200);
    bench.send("", "Idempotency-Key: k\r\n", b"{\"event\":\"b\"}", 422);
    bench.send("?ack=never", "", b"", 400);
    bench.send("", "", b"[1", 400);
    bench.send("", "Content-Encoding: brand-new\r\n", b"{}", 415);
    bench.send("", "Expect: miracles\r\n", b"{}", 417);
    bench.send("", &format!("Field: {}\r\n", "x".repeat(20_000)), b"", 431);
    bench.send_raw("/api/events", "Content-Length: 0\r\n", b"", 401);
    bench.send_raw("/api/events?key=wrong", "Content-Length: 0\r\n", b"", 403);
    bench.send_raw("/api/nothing", "Content-Length: 0\r\n", b"", 404);
    bench.send_raw("/api/events", &format!("{WRITE_KEY}Content-Length: 999999\r\n"), b"", 413);
    bench.send_raw(&format!("/api/events?{}", "x".repeat(20_000)), WRITE_KEY, b"", 414);
    bench.send_raw("/api/events", &format!("{WRITE_KEY}Transfer-Encoding: gzip\r\n"), b"", 501);
    bench.send_raw("/api/missing", &format!("{WRITE_KEY}Content-Length: 0\r\n"), b"", 503);
    let slow = "X-Write-Key: slow-0123456789abcdef\r\nContent-Length: 3\r\n";
    bench.send_raw("/api/events", slow, b"{}\n", 200);
    bench.send_raw("/api/events", slow, b"{}\n", 429);
    let public = bench.server.address();
    let other = bench.exchange(public, b"DELETE /api/events HTTP/1.1\r\nHost: a\r\n\r\n");
    bench.description.check("post", "/api/events", 405, &other);
    let other = bench.exchange(public, b"POST /api/events HTTP/3.0\r\nHost: a\r\n\r\n");
    bench.description.check("post", "/api/events", 505, &other);
    for path in ["/api/events", "/health"] {
        let reply = bench.exchange(public, format!("OPTIONS {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        bench.description.check("options", path, 204, &reply);
    }
    bench.description.check("get", "/health", 200, &get(public, "/health"));

    // What they have become, at the admin address.
    let table = format!("{database}.events");
    bench.server.wait_for_rows(clickhouse, &table, 6);
    bench.server.wait_for_rows(clickhouse, &format!("{table}_quarantine"), 3);
    for target in ["/", "/page/page.css", "/page/page.js", "/config", "/fields", "/health", "/healthz", "/livez"] {
        bench.get(target, 200);
    }
    for target in ["/metrics", "/openapi.json", "/ping", "/readyz", "/stats", "/stats?since=1", "/version"] {
        bench.get(target, 200);
    }
    bench.get("/stats?more=1", 400);
    bench.get("/page/nothing", 404);
    bench.get("/api/events?limit=2&event=a", 200);
    bench.get("/api/events?limit=0", 400);
    bench.get("/api/nothing", 404);
    bench.get("/api/missing", 503);
    bench.get("/api/events/quarantine?limit=2", 200);
    bench.get("/api/events/quarantine?more=1", 400);
    bench.get("/api/missing/quarantine", 404);
    bench.get("/api/nothing/live", 404);
    bench.get("/api/events/live?more=1", 400);
    watch(&mut bench);
    // A mark of a replay that did not end, then a replay that does.
    let now = clickhouse.query("SELECT toString(now('UTC'))").trim().to_owned();
    clickhouse.query(&format!(
        "INSERT INTO {table}_quarantine SETTINGS async_insert = 0 VALUES ('{now}', '', 'replay', 'x', '')"
    ));
    bench.admin("post", "/api/events/quarantine", "", b"", 409);
    bench.admin("post", "/api/events/quarantine?dry_run=1", "", b"", 200);
    bench.admin("post", "/api/events/quarantine?force=1", "", b"", 200);
    bench.admin("post", "/api/events/quarantine?more=1", "", b"", 400);
    bench.admin("post", "/api/missing/quarantine", "", b"", 404);
    bench.get("/quarantine/replay?table=events", 200);
    bench.get("/quarantine/replay?more=1", 400);
    bench.get("/quarantine/replay", 404);
    let key = "Idempotency-Key: k\r\n";
    bench.admin("post", "/quarantine/replay?table=events", key, b"\x01\0\0\0\x078.8.8.8\x02{}", 200);
    bench.admin("post", "/quarantine/replay?table=events", key, b"no lines", 400);
    bench.admin("post", "/quarantine/replay", key, b"", 404);
    let long = bench.exchange(
        bench.server.admin_address(),
        b"POST /quarantine/replay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
    );
    bench.description.check("post", "/quarantine/replay", 413, &long);
    bench.admin("post", "/spool/requeue", "", b"", 200);
    bench.admin("post", "/spool/requeue?more=1", "", b"", 400);
    bench.admin("post", "/spool/requeue?table=nothing", "", b"", 404);
    for target in ["/api/events/quarantine", "/quarantine/replay", "/spool/requeue"] {
        bench.admin("post", target, "Sec-Fetch-Site: cross-site\r\n", b"", 403);
    }

    let seen = without_password_and_without_clickhouse(bench);
    let described = |document: &Value| {
        let mut all = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(_, it)| it["responses"].is_object()) {
                let statuses = operation["responses"].as_object().unwrap().keys();
                all.extend(statuses.map(|status| (path.clone(), method.clone(), status.clone())));
            }
        }
        all
    };
    let unseen: Vec<_> = described(&seen.document).difference(&seen.seen).cloned().collect();
    let expected = UNSEEN.map(|(path, method, status)| (path.to_owned(), method.to_owned(), status.to_owned()));
    assert_eq!(unseen, expected);
}

/// Watches accepted and rejected lines, and more of them than may.
fn watch(bench: &mut Bench) {
    let admin = bench.server.admin_address();
    let open = |query: &str| {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /api/events/live{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        stream
    };
    let mut streams: Vec<TcpStream> = ["", "?rejected=1"].iter().map(|query| open(query)).collect();
    streams.extend((0..6).map(|_| open("")));
    bench.get("/api/events/live", 503);
    let body = "{\"event\":\"a\"}\nbad\n".repeat(300);
    bench.send("", "", body.as_bytes(), 200);
    for (stream, schema) in streams.iter_mut().zip(["LiveAccepted", "LiveRejected"]) {
        let mut text = String::new();
        while !text.contains("event: skipped\n") || !text.ends_with("\n\n") {
            let mut space = [0; 4096];
            let len = stream.read(&mut space).unwrap();
            text.push_str(std::str::from_utf8(&space[..len]).unwrap());
        }
        let (head, events) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
        for event in events.split_terminator("\n\n").filter(|event| !event.starts_with(':')) {
            let (schema, data) = match event.strip_prefix("event: skipped\n") {
                Some(data) => ("LiveSkipped", data),
                None => (schema, event),
            };
            let value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
            bench.description.fits(&schema, &value).unwrap_or_else(|wrong| panic!("{event}: {wrong}"));
        }
    }
    let seen = ["/api/{table}/live", "get", "200"].map(str::to_owned);
    bench.description.seen.insert(seen.into());
}

/// The replies of a server to those who have no password; and of one whose ClickHouse is away.
fn without_password_and_without_clickhouse(bench: Bench) -> Description {
    let Bench { server, description } = bench;
    drop(server);
    let mut clickhouse = crate::support::ClickHouse::start();
    let database = clickhouse.database();
    let folder = Folder::new();
    let file = Path::new(folder.path()).join("password");
    std::fs::write(&file, "pass").unwrap();
    let flags = ["--admin-password-file", file.to_str().unwrap(), "--shutdown-delay", "60s"];
    let server = Server::start(&clickhouse, &database, &flags);
    let mut bench = Bench { server, description };
    let paths = bench.description.document["paths"].clone();
    for (path, item) in paths.as_object().unwrap() {
        let target = path.replace("{table}", "events").replace("{file}", "page.css");
        for method in ["get", "post"] {
            let is_ours = item[method]["tags"].as_array().is_some_and(|tags| tags.contains(&json!("admin")));
            let status = if item[method]["responses"]["401"].is_object() { 401 } else { 200 };
            if is_ours {
                bench.admin(method, &target, "", b"", status);
            }
        }
    }
    bench.admin("get", "/stats", PASSWORD, b"", 200);
    // A held block, the warning of which strangers get as a number.
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.away"));
    assert_eq!(post(bench.server.address(), "/api/events", b"{\"event\":\"a\"}").status, 200);
    let is_held = || bench.server.admin_get("/readyz").text().contains("held blocks: 1").then_some(());
    wait_for(|| bench.server.log(), is_held);
    bench.admin("get", "/readyz", "", b"", 200);
    bench.admin("get", "/readyz", PASSWORD, b"", 200);
    bench.admin("get", "/stats", PASSWORD, b"", 200);
    clickhouse.kill();
    bench.admin("get", "/api/events", PASSWORD, b"", 503);
    bench.admin("get", "/api/events/quarantine", PASSWORD, b"", 503);
    bench.admin("post", "/api/events/quarantine", PASSWORD, b"", 503);
    bench.server.signal(rustix::process::Signal::TERM);
    let is_leaving = || (bench.server.admin_get("/readyz").status == 503).then_some(());
    wait_for(|| bench.server.log(), is_leaving);
    bench.admin("get", "/readyz", "", b"", 503);
    bench.admin("get", "/health", "", b"", 503);
    bench.admin("get", "/stats", PASSWORD, b"", 200);
    bench.description
}

#[test]
fn each_name_in_the_description_is_there_and_each_parameter_of_a_path_is_described() {
    let clickhouse = shared_clickhouse();
    let server = Server::start(clickhouse, &clickhouse.database(), &[]);
    let document = document(&server);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let text = document.to_string();
    for name in text.split("\"#/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(&format!("/{name}")).is_some(), "{name}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")) || name.starts_with("Live"), "{name}");
        assert!(jsonschema::meta::is_valid(schema), "{name}");
    }
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(_, it)| it["responses"].is_object()) {
            assert!(operations.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
            let parameters = [&item["parameters"], &operation["parameters"]];
            let parameters = parameters.iter().flat_map(|all| all.as_array().into_iter().flatten());
            let of_path: Vec<&str> = parameters
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let named: Vec<&str> = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
            assert_eq!(of_path, named, "{method} {path}");
            let schemes = operation["security"].as_array().into_iter().flatten();
            for scheme in schemes.flat_map(|scheme| scheme.as_object().unwrap().keys()) {
                assert!(document["components"]["securitySchemes"][scheme].is_object(), "{scheme}");
            }
        }
    }
}
