//! Pages of other origins, as far as a client without a browser can see: preflights, and the fields of
//! every reply. `browser` has the same with a browser.

use crate::support::{Connection, Folder, Response, Server, get, post_with, shared_clickhouse};

const TARGET: &str = "/api/events";
const PAGE: &str = "https://shop.example";
const EVENT: &[u8] = b"{\"event\":\"a\"}\n";

fn send(server: &Server, head: &str, body: &[u8]) -> Response {
    let mut connection = Connection::open(server.address());
    connection.send(head.as_bytes());
    connection.send(body);
    connection.read_response()
}

fn preflight(server: &Server, target: &str, origin: &str) -> Response {
    let fields = format!(
        "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type,idempotency-key\r\n"
    );
    send(server, &format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), b"")
}

#[test]
fn a_preflight_of_an_allowed_page_is_answered_without_a_key_and_one_of_another_says_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = Folder::new();
    let file = folder.path().join("keys");
    std::fs::write(&file, "0123456789abcdef name=web\n").unwrap();
    let flags = ["--cors-origin", PAGE, "--cors-origin", "http://localhost:3000"];
    let flags = [&flags[..], &["--write-key-file", file.to_str().unwrap()]].concat();
    let server = Server::start(clickhouse, &database, &flags);
    for origin in [PAGE, "http://localhost:3000"] {
        let reply = preflight(&server, TARGET, origin);
        assert_eq!(reply.status, 204, "{}", reply.text());
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        assert_eq!(reply.header("vary"), Some("Origin"));
        assert_eq!(reply.header("access-control-max-age"), Some("7200"));
        assert!(reply.header("access-control-allow-methods").unwrap().contains("POST"));
        let allowed = reply.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
        for field in ["authorization", "content-type", "content-encoding", "idempotency-key", "x-write-key"] {
            assert!(allowed.split(", ").any(|allowed| allowed == field), "{field}: {allowed}");
        }
    }
    for origin in ["https://shop.example.evil", "null", "https://shop.example:8443"] {
        let reply = preflight(&server, TARGET, origin);
        assert_eq!(reply.status, 204);
        assert!(reply.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{:?}", reply.headers);
    }
    // OPTIONS of others is what it was.
    let options = send(&server, &format!("OPTIONS {TARGET} HTTP/1.1\r\nHost: a\r\nOrigin: {PAGE}\r\n\r\n"), b"");
    assert_eq!((options.status, options.header("allow")), (204, Some("POST, OPTIONS")));
    assert_eq!(options.header("access-control-allow-methods"), None);
    assert!(server.stop().success());
}

#[test]
fn a_page_can_read_every_reply_errors_before_routing_included() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let folder = Folder::new();
    let file = folder.path().join("keys");
    std::fs::write(&file, "0123456789abcdef name=web\n").unwrap();
    let flags = ["--cors-origin", PAGE, "--rate-limit", "1/s,burst=20000", "--body-bytes-max", "1MiB"];
    let flags = [&flags[..], &["--write-key-file", file.to_str().unwrap()]].concat();
    let server = Server::start(clickhouse, &database, &flags);
    let origin = format!("Host: a\r\nOrigin: {PAGE}\r\n");
    let key = "X-Write-Key: 0123456789abcdef\r\n";
    let most = EVENT.repeat(20_000);
    let length = |body: &[u8]| format!("Content-Length: {}\r\n\r\n", body.len());
    for (status, head, body) in [
        (200, format!("POST {TARGET} HTTP/1.1\r\n{origin}{key}{}", length(&most)), &most[..]),
        (429, format!("POST {TARGET} HTTP/1.1\r\n{origin}{key}{}", length(&most)), &most[..]),
        (401, format!("POST {TARGET} HTTP/1.1\r\n{origin}{}", length(EVENT)), EVENT),
        (403, format!("POST {TARGET}?key=x HTTP/1.1\r\n{origin}{}", length(EVENT)), EVENT),
        (400, format!("POST {TARGET}?ack=never HTTP/1.1\r\n{origin}{key}{}", length(EVENT)), EVENT),
        (404, format!("POST /lost HTTP/1.1\r\n{origin}{}", length(EVENT)), EVENT),
        (405, format!("GET {TARGET} HTTP/1.1\r\n{origin}\r\n"), b""),
        (413, format!("POST {TARGET} HTTP/1.1\r\n{origin}{key}Content-Length: 9999999\r\n\r\n"), b""),
        (400, format!("POST {TARGET} HTTP/1.1\r\n{origin}{key}Content-Length: x\r\n\r\n"), b""),
        (400, format!("POST {TARGET} HTTP/1.1\r\n{origin}{key}Transfer-Encoding: chunked\r\n\r\nx"), b"\r\n"),
        (200, format!("GET /health HTTP/1.1\r\n{origin}\r\n"), b""),
    ] {
        let reply = send(&server, &head, body);
        assert_eq!(reply.status, status, "{head}{}", reply.text());
        assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE), "{head}");
        assert_eq!(reply.header("vary"), Some("Origin"), "{head}");
        let exposed = reply.header("access-control-expose-headers").unwrap();
        for field in ["Retry-After", "X-Request-Id", "X-RateLimit-Remaining"] {
            assert!(exposed.split(", ").any(|exposed| exposed == field), "{exposed}");
        }
        assert!(status != 429 || reply.header("retry-after").is_some());
    }
    let other = post_with(server.address(), TARGET, &format!("Origin: https://other.example\r\n{key}"), b"");
    assert!(other.status == 200 && other.header("access-control-allow-origin").is_none(), "{:?}", other.headers);
    assert_eq!(get(server.address(), "/health").header("vary"), None);
    assert!(server.stop().success());
}

#[test]
fn a_star_allows_every_origin_and_without_the_flag_none_is_allowed() {
    let clickhouse = shared_clickhouse();
    for (flags, allowed) in [(&["--cors-origin", "*"][..], Some("*")), (&[], None)] {
        let database = clickhouse.database();
        let server = Server::start(clickhouse, &database, flags);
        for origin in [PAGE, "null"] {
            let reply = post_with(server.address(), TARGET, &format!("Origin: {origin}\r\n"), EVENT);
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, allowed));
            assert_eq!(reply.header("vary"), None);
            let asked = preflight(&server, TARGET, origin);
            assert_eq!((asked.status, asked.header("access-control-allow-origin")), (204, allowed));
        }
        assert!(server.stop().success());
    }
    let database = clickhouse.database();
    let (status, log) = Server::expect_failure(clickhouse, &database, &["--cors-origin", "shop.example"]);
    assert!(!status.success() && log.contains("--cors-origin") && log.contains("https://shop.example"), "{log}");
}
