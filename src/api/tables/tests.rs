//! Tests of the routes of several tables, and of what is encoded for which.

use super::*;
use crate::api::keys::Keys;
use crate::api::{Answer, Api, IngestOptions, Reply, Route, TABLE_UNAVAILABLE};
use crate::batch::{Batch, identity};
use crate::http::{HeadLimits, NO_HEADERS, Parsed, parse_head};
use crate::ndjson::{EncodeLimits, Origin};
use crate::schema::ColumnDescription;

const KEY: &str = "0123456789abcdef";

fn plan(column: &str) -> Arc<Plan> {
    let column = ColumnDescription {
        name: column.to_owned(),
        type_name: "String".into(),
        default_kind: String::new(),
        default_expression: String::new(),
    };
    Arc::new(Plan::compile(&[column], "UTC").unwrap())
}

/// The tables `events` at two paths, `web.hits` at an own one, and `clicks`, which tells events apart by
/// `clicks`. The only column of each has the table's name.
fn api() -> Api {
    let limits = EncodeLimits { line_bytes_max: 1000, events_max: 100, encoded_bytes_max: 10_000 };
    let table = |name: &str, paths: &[&str], dedup_field: Option<&str>| ApiTable {
        name: name.to_owned(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        encoder: RowEncoder::new(plan(name), limits).identifying(dedup_field),
    };
    Api::new(vec![
        table("events", &["/api/events", "/in"], None),
        table("web.hits", &["/api/h\u{ef}ts"], None),
        table("clicks", &["/api/clicks", "/in"], Some("clicks")),
    ])
}

fn route(api: &Api, request: &str) -> Route {
    let head = format!("{request}\r\n\r\n").replacen("\r\n", " HTTP/1.1\r\nHost: a\r\n", 1);
    let mut slots = NO_HEADERS;
    let limits = HeadLimits { head_bytes_max: 4096, headers_max: 16 };
    match parse_head(head.as_bytes(), &limits, &mut slots) {
        Parsed::Done(head) => api.route(&head),
        other => panic!("{other:?}"),
    }
}

fn options(api: &Api, request: &str) -> IngestOptions {
    match route(api, request) {
        Route::Events(options) => options,
        other => panic!("{request}: {other:?}"),
    }
}

fn refusal(api: &Api, request: &str) -> (u16, &'static str) {
    match route(api, request) {
        Route::Refuse(fault) => (fault.status.code(), fault.code),
        other => panic!("{request}: {other:?}"),
    }
}

/// The rows that events of a table make, and the number of their identities.
fn rows(api: &mut Api, table: u16, body: &str) -> (Vec<u8>, usize) {
    let (mut batch, options) = (Batch::new(0), IngestOptions { table: TableIndex::new(table), ..Default::default() });
    let origin = Origin { client_ip: None, server_time_unix_ns: 0 };
    let answer = api.take_events(body.as_bytes(), options, &origin, &mut batch);
    assert!(matches!(answer, Answer::AfterCommit { reply: Reply::Accepted(1), .. }), "{answer:?}");
    (batch.rows.bytes, batch.ids.len())
}

#[test]
fn each_path_leads_to_its_table_however_it_is_escaped() {
    let api = api();
    for (path, table) in [
        ("/api/events", 0),
        ("/in?ack=inserted", 0),
        ("/api/%65vents", 0),
        ("/api/h%C3%AFts", 1),
        ("/%61pi/h%c3%aFts", 1),
        ("/api/clicks", 2),
    ] {
        assert_eq!(options(&api, &format!("POST {path}")).table, TableIndex::new(table), "{path}");
    }
    for path in
        ["/api/hits", "/api/web.hits", "/api/event", "/api/eventss", "/api/events/", "/api%2Fevents", "/", "/api"]
    {
        assert_eq!(refusal(&api, &format!("POST {path}")), (404, "not_found"), "{path}");
    }
}

#[test]
fn every_path_of_a_table_has_the_same_methods() {
    let api = api();
    for path in ["/api/events", "/in", "/api/h%C3%AFts", "/api/clicks"] {
        assert_eq!(route(&api, &format!("OPTIONS {path}")), Route::Options("POST, OPTIONS"), "{path}");
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let Route::Refuse(fault) = route(&api, &format!("{method} {path}")) else { panic!("{method} {path}") };
            assert_eq!((fault.status.code(), fault.allow), (405, Some("POST, OPTIONS")), "{method} {path}");
        }
    }
    assert_eq!(route(&api, "GET /health"), Route::Health);
    let Route::Refuse(fault) = route(&api, "POST /health") else { panic!() };
    assert_eq!((fault.status.code(), fault.allow), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn a_key_for_some_tables_is_refused_at_the_paths_of_the_others() {
    let mut api = api();
    api.require(Arc::new(Keys::parse(&format!("{KEY} tables=events,web.hits\n"), None, None).unwrap()));
    let post = |path: &str| format!("POST {path}\r\nX-Write-Key: {KEY}");
    assert_eq!(options(&api, &post("/in")).table, TableIndex::new(0));
    assert_eq!(options(&api, &post("/api/h%C3%AFts")).table, TableIndex::new(1));
    assert_eq!(refusal(&api, &post("/api/clicks")), (403, "wrong_table"));
    assert_eq!(refusal(&api, "POST /api/clicks"), (401, "missing_key"));
}

#[test]
fn the_same_idempotency_key_names_another_request_for_each_table_and_key_and_one_for_all_paths() {
    let mut api = api();
    let id = |api: &Api, path: &str| {
        options(api, &format!("POST {path}\r\nIdempotency-Key: k\r\nX-Write-Key: {KEY}")).key.unwrap()
    };
    assert_eq!(id(&api, "/api/events"), identity::of_request("events", b"k"), "as it was with one table");
    assert_eq!(id(&api, "/api/h%C3%AFts"), identity::of_request("web.hits", b"k"));
    assert_eq!(id(&api, "/in"), id(&api, "/api/events"));
    let keys = Keys::parse(&format!("{KEY} name=web\n"), None, None).unwrap();
    let open = id(&api, "/in");
    api.require(Arc::new(keys));
    assert!(id(&api, "/in") != open && id(&api, "/in") != id(&api, "/api/clicks"));
}

#[test]
fn events_become_rows_and_identities_of_their_table() {
    let mut api = api();
    let body = "{\"events\":\"e\",\"web.hits\":\"h\",\"clicks\":\"c\"}";
    assert_eq!(rows(&mut api, 0, body), (b"\x01e".to_vec(), 0));
    assert_eq!(rows(&mut api, 1, body), (b"\x01h".to_vec(), 0));
    assert_eq!(rows(&mut api, 2, body), (b"\x01c".to_vec(), 1));
    api.follow(TableIndex::new(1), Some(plan("events")));
    assert_eq!(rows(&mut api, 1, body), (b"\x01e".to_vec(), 0));
    assert_eq!(rows(&mut api, 2, body), (b"\x01c".to_vec(), 1));
}

#[test]
fn an_unavailable_table_is_503_at_its_paths_alone_and_takes_events_again_once_it_has_a_plan() {
    let mut api = api();
    let events = TableIndex::new(0);
    api.follow(events, None);
    for path in ["/api/events", "/in", "/in?dry_run=1", "/in\r\nIdempotency-Key: k"] {
        assert_eq!(refusal(&api, &format!("POST {path}")), (503, "table_unavailable"), "{path}");
    }
    // What would be wrong anyway is said first.
    assert_eq!(refusal(&api, "POST /in?ack=x").0, 400);
    assert_eq!(refusal(&api, "POST /in\r\nContent-Encoding: x").0, 415);
    assert_eq!(refusal(&api, "POST /in\r\nIdempotency-Key: ").0, 400);
    assert_eq!(refusal(&api, "GET /in").0, 405);
    assert_eq!(route(&api, "OPTIONS /in"), Route::Options("POST, OPTIONS"));
    assert_eq!(options(&api, "POST /api/clicks").table, TableIndex::new(2));
    // A request whose head came before.
    let origin = Origin { client_ip: None, server_time_unix_ns: 0 };
    let (mut batch, body) = (Batch::new(0), b"{\"events\":\"e\"}");
    for table in [events, TableIndex::new(3)] {
        let answer = api.take_events(body, IngestOptions { table, ..Default::default() }, &origin, &mut batch);
        assert_eq!(answer, Answer::Now(Reply::Fault(TABLE_UNAVAILABLE)));
        assert!(batch.is_empty());
    }
    api.follow(events, Some(plan("events")));
    assert_eq!(options(&api, "POST /in").table, events);
    assert_eq!(rows(&mut api, 0, "{\"events\":\"e\"}"), (b"\x01e".to_vec(), 0));
}
