//! Behind a real nginx and a real HAProxy, with the configurations that docs/operating.md shows: every event has
//! the address of its client, whatever the client says itself, whatever connection its request shares.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{ClickHouse, Connection, Folder, Server, free_address, request, shared_clickhouse, wait_for};

const TARGET: &str = "/api/events";

/// What a client sends to be taken for another.
const SPOOFED: &str = "X-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n";

/// Clients, each with an address of its own; the server trusts only 127.0.0.1, from where proxies come.
const CLIENTS: u8 = 8;

/// Requests of each client on its one connection.
const REQUESTS: usize = 5;

/// A proxy; killed with its value.
struct Proxy {
    child: Child,
    address: SocketAddr,
    folder: Folder,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The block of docs/operating.md of this language that holds `text`.
fn snippet(language: &str, text: &str) -> String {
    let page = include_str!("../../docs/operating.md");
    let mut blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix(language));
    blocks
        .find(|block| block.contains(text))
        .unwrap_or_else(|| panic!("docs/operating.md has no {language} with {text}"))
        .to_owned()
}

fn replaced(config: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(config.to_owned(), |config, (from, to)| {
        assert!(config.contains(from), "{from} is not in\n{config}");
        config.replace(from, to)
    })
}

impl Proxy {
    fn nginx(config: &str, listen: &str, changes: &[(&str, &str)]) -> Self {
        let (folder, address) = (Folder::new(), free_address());
        let (certificate, key) = make_certificate(folder.path());
        let mut config = replaced(config, changes);
        config = replaced(&config, &[(&format!("listen {listen}"), &format!("listen {address}"))]);
        config = config.replace("/etc/ssl/events.crt", &certificate).replace("/etc/ssl/events.key", &key);
        let path = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .concat();
        let whole = format!(
            "daemon off;\nuser root;\npid {path}/pid;\nerror_log {path}/log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{config}\n}}\n"
        );
        fs::write(folder.path().join("config"), whole).unwrap();
        let config = folder.path().join("config");
        let mut command = Command::new("nginx");
        // A master would outlive a kill by its workers.
        command.args(["-e", &format!("{path}/log"), "-c", config.to_str().unwrap(), "-g", "master_process off;"]);
        Self::start(command, address, folder)
    }

    fn haproxy(config: &str, changes: &[(&str, &str)]) -> Self {
        let (folder, address) = (Folder::new(), free_address());
        let (certificate, key) = make_certificate(folder.path());
        let pem = folder.path().join("events.pem");
        fs::write(&pem, fs::read_to_string(certificate).unwrap() + &fs::read_to_string(key).unwrap()).unwrap();
        let config = replaced(config, changes)
            .replace("bind :443", &format!("bind {address}"))
            .replace("/etc/haproxy/events.pem", pem.to_str().unwrap());
        let times = "timeout connect 5s\ntimeout client 60s\ntimeout server 60s\ntimeout check 5s\n";
        fs::write(folder.path().join("config"), format!("defaults\n{times}{config}\n")).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(folder.path().join("config"));
        Self::start(command, address, folder)
    }

    fn start(mut command: Command, address: SocketAddr, folder: Folder) -> Self {
        let log = fs::File::create(folder.path().join("output")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; make test-outside installs it"));
        let proxy = Self { child, address, folder };
        wait_for(|| proxy.log(), || std::net::TcpStream::connect(address).ok());
        proxy
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("output") + &read("log") + &read("config")
    }
}

/// A self-signed certificate and its key.
fn make_certificate(folder: &Path) -> (String, String) {
    let path = |name| folder.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("events.crt"), path("events.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=localhost", "-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

fn address_of(client: u8) -> String {
    format!("127.0.1.{client}")
}

/// An event that names its client, with filler so that bodies come in pieces.
fn event(client: u8, filler: usize) -> Vec<u8> {
    let filler = "x".repeat(filler);
    format!("{{\"device_id\":\"{}\",\"param_str\":\"{filler}\"}}\n", address_of(client)).into_bytes()
}

/// Each client's requests on a connection of its own, all of them open at the same time.
fn send_plain(proxy: &Proxy) {
    let mut connections: Vec<(u8, Connection)> = (1..=CLIENTS)
        .map(|client| (client, Connection::open_from(address_of(client).parse().unwrap(), proxy.address)))
        .collect();
    for number in 0..REQUESTS {
        for (client, connection) in &mut connections {
            let filler = if number == 0 { 500_000 } else { number };
            connection.send(&request(TARGET, SPOOFED, &event(*client, filler)));
        }
        for (_, connection) in &mut connections {
            let response = connection.read_response();
            assert_eq!(response.status, 200, "{}\n{}", response.text(), proxy.log());
        }
    }
}

/// The same through TLS, by curl, which keeps its connection.
fn send_tls(proxy: &Proxy) {
    let url = format!("https://{}{TARGET}", proxy.address);
    let clients: Vec<Child> = (1..=CLIENTS)
        .map(|client| {
            let mut command = Command::new("curl");
            command.args(["-sk", "-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null"]);
            command.args(["--interface", &address_of(client), "--data-binary", "@-"]);
            for field in SPOOFED.lines() {
                command.args(["-H", field]);
            }
            for _ in 1..REQUESTS {
                command.args([&url, "-o", "/dev/null"]);
            }
            let mut child = command.arg(&url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(&event(client, 20_000)).unwrap();
            child
        })
        .collect();
    for client in clients {
        let output = String::from_utf8(client.wait_with_output().unwrap().stdout).unwrap();
        let expected = "200 1\n".to_owned() + &"200 0\n".repeat(REQUESTS - 1);
        assert_eq!(output, expected, "{}", proxy.log());
    }
}

/// Every event of so many clients has its client's address.
fn assert_addresses(server: &Server, clickhouse: &ClickHouse, database: &str, rounds: usize) {
    let rows = usize::from(CLIENTS) * REQUESTS * rounds;
    server.wait_for_rows(clickhouse, &format!("{database}.events"), rows as u64);
    let wrong = clickhouse.query(&format!(
        "SELECT device_id, ip, count() FROM {database}.events WHERE ip != device_id GROUP BY ALL ORDER BY ALL FORMAT TSV"
    ));
    assert_eq!(wrong, "", "client, stored address, events");
}

/// Starts a server with these flags, and a proxy in front of it; sends through it.
fn check(flags: &[&str], proxy: impl Fn(&str, &str) -> Proxy, sends: &[fn(&Proxy)]) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let (folder, address) = (Folder::new(), free_address().to_string());
    let path = folder.path().join("events.sock");
    let path = path.to_str().unwrap();
    let unix = format!("unix:{path}");
    let is_unix = flags.contains(&"unix:");
    let flags = [flags, &["--listen", if is_unix { &unix } else { &address }]].concat();
    let server = Server::start(clickhouse, &database, &flags);
    let proxy = proxy(&address, path);
    for send in sends {
        send(&proxy);
    }
    assert_addresses(&server, clickhouse, &database, sends.len());
    drop(proxy);
    assert!(server.stop().success());
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn nginx_ends_tls_and_says_the_address_in_x_forwarded_for_over_a_unix_socket() {
    let config = snippet("nginx", "X-Forwarded-For $proxy_add_x_forwarded_for");
    let start = |_: &str, path: &str| Proxy::nginx(&config, "443", &[("/run/sluicegate/events.sock", path)]);
    check(&["--trusted-proxy", "unix:"], start, &[send_tls]);
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn nginx_says_the_address_in_x_forwarded_for_buffered_or_not_and_with_a_connection_for_each_request() {
    let config = snippet("nginx", "X-Forwarded-For $proxy_add_x_forwarded_for");
    // nginx's default towards a server: HTTP/1.0.
    let old = replaced(&config, &[("proxy_http_version 1.1;", ""), ("proxy_set_header Connection \"\";", "")]);
    for (config, buffering) in [(&config, "on"), (&config, "off"), (&old, "on")] {
        let buffering = format!("client_max_body_size 16m; proxy_request_buffering {buffering}");
        let start = |address: &str, _: &str| {
            let changes = [
                ("unix:/run/sluicegate/events.sock", address),
                ("client_max_body_size 16m", &buffering),
                ("listen 443 ssl", "listen 443"),
            ];
            Proxy::nginx(config, "443", &changes)
        };
        check(&["--trusted-proxy", "127.0.0.1"], start, &[send_plain]);
    }
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn nginx_says_the_address_in_forwarded() {
    let config = snippet("nginx", "proxy_set_header Forwarded");
    let start = |address: &str, _: &str| Proxy::nginx(&config, "80", &[("127.0.0.1:8080", address)]);
    check(&["--trusted-proxy", "127.0.0.1"], start, &[send_plain]);
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn an_ipv6_client_of_nginx_is_stored_from_either_field() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--trusted-proxy", "127.0.0.1"]);
    let address = server.address().to_string();
    for (config, text, to, listen) in [
        ("$proxy_add_x_forwarded_for", "unix:/run/sluicegate/events.sock", "listen 443 ssl", "443"),
        ("proxy_set_header Forwarded", "127.0.0.1:8080", "listen 80", "80"),
    ] {
        let six = free_address().port();
        let both = format!("listen [::1]:{six}; listen {listen}");
        let proxy = Proxy::nginx(&snippet("nginx", config), listen, &[(text, &address), (to, &both)]);
        let mut connection = Connection::open(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, six)));
        connection.send(&request(TARGET, SPOOFED, b"{\"event\":\"six\"}"));
        assert_eq!(connection.read_response().status, 200, "{}", proxy.log());
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    assert_eq!(clickhouse.query(&format!("SELECT ip FROM {database}.events FORMAT TSV")), "::1\n::1\n");
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn haproxy_ends_tls_and_says_the_address_in_either_field() {
    let config = snippet("haproxy", "send-proxy-v2");
    // docs/operating.md: with HAProxy it is `option forwardfor`.
    let usual = "option forwardfor";
    let forwarded = "http-request del-header X-Forwarded-For\nhttp-request set-header Forwarded for=%[src]";
    for fields in [usual, forwarded] {
        let default = format!("{fields}\n    default_backend sluicegate");
        let start = |address: &str, _: &str| {
            let changes = [
                ("mode tcp", "mode http"),
                ("127.0.0.1:8080 send-proxy-v2", address),
                ("default_backend sluicegate", default.as_str()),
            ];
            Proxy::haproxy(&config, &changes)
        };
        check(&["--trusted-proxy", "127.0.0.1"], start, &[send_tls]);
    }
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn haproxy_says_the_address_in_a_proxy_header_of_either_version() {
    let config = snippet("haproxy", "send-proxy-v2");
    for (mode, header) in [
        ("mode tcp", "send-proxy-v2"),
        ("mode tcp", "send-proxy"),
        ("mode http", "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
        ("mode http", "send-proxy"),
    ] {
        let header = format!("{header} ");
        let start = |address: &str, _: &str| {
            Proxy::haproxy(&config, &[("127.0.0.1:8080", address), ("send-proxy-v2 ", &header), ("mode tcp", mode)])
        };
        check(&["--trusted-proxy", "127.0.0.1", "--proxy-protocol"], start, &[send_tls]);
    }
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn haproxy_says_the_address_in_a_proxy_header_over_a_unix_socket() {
    let config = snippet("haproxy", "send-proxy-v2");
    for (header, tls) in [("send-proxy-v2", true), ("send-proxy", false)] {
        let bind = if tls { "bind :443 ssl crt /etc/haproxy/events.pem" } else { "bind :443" };
        let start = |_: &str, path: &str| {
            let path = format!("unix@{path}");
            let changes = [
                ("127.0.0.1:8080", path.as_str()),
                ("send-proxy-v2", header),
                ("bind :443 ssl crt /etc/haproxy/events.pem", bind),
            ];
            Proxy::haproxy(&config, &changes)
        };
        let send = if tls { send_tls } else { send_plain };
        check(&["--trusted-proxy", "unix:", "--proxy-protocol"], start, &[send]);
    }
}

#[test]
#[ignore = "needs nginx and HAProxy: make test-outside"]
fn health_checks_of_haproxy_pass_and_leave_nothing_behind() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let flags = ["--trusted-proxy", "127.0.0.1", "--proxy-protocol"];
    let server = Server::start(clickhouse, &database, &flags);
    let address = server.address().to_string();
    let changes = [
        ("127.0.0.1:8080", address.as_str()),
        ("bind :443 ssl crt /etc/haproxy/events.pem", "bind :443"),
        ("check\n", "check inter 50ms fall 1 rise 1\n"),
    ];
    let proxy = Proxy::haproxy(&snippet("haproxy", "send-proxy-v2"), &changes);
    let series = "sluicegate_requests_total{code=\"200\"}";
    wait_for(|| proxy.log(), || (server.metrics().get(series).copied().unwrap_or(0.0) >= 20.0).then_some(()));
    send_plain(&proxy);
    assert_addresses(&server, clickhouse, &database, 1);
    let (log, proxy_log) = (server.log(), proxy.log());
    assert!(!log.contains("is closed"), "{log}");
    assert!(!proxy_log.contains("DOWN"), "{proxy_log}");
    drop(proxy);
    assert!(server.stop().success());
}
