//! In steady state an event costs no allocation, whatever a request costs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unsafe_code, reason = "a global allocator that counts")]

#[path = "support/columns.rs"]
#[allow(dead_code)]
mod columns;

#[cfg(feature = "codings")]
#[path = "../src/http/coding/encoders.rs"]
#[allow(dead_code)]
mod encoders;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use sluicegate::batch::Batch;
use sluicegate::ndjson::{EncodeLimits, Origin, Report, RowEncoder};
use sluicegate::schema::{ColumnDescription, Plan};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a plain cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn encoder() -> RowEncoder {
    let columns = columns::described(&columns::OF_CLIENTS);
    let limits = EncodeLimits { line_bytes_max: 1 << 20, events_max: 100_000, encoded_bytes_max: 64 << 20 };
    RowEncoder::new(Arc::new(Plan::compile(&columns, "UTC").unwrap()), limits)
}

#[cfg(feature = "codings")]
#[test]
fn decoding_gzip_and_deflate_allocates_nothing_once_it_is_warm() {
    use encoders::{gzip, raw_deflate, zlib};
    use sluicegate::http::Coding;
    use sluicegate::http::coding::{Advanced, ContentDecoder};

    let events = include_bytes!("../bench/corpus/events-30.ndjson");
    let (gzip, zlib, raw) = (gzip(events), zlib(events), raw_deflate(events, 6));
    let bodies = [(Coding::Gzip, &gzip), (Coding::Deflate, &zlib), (Coding::Deflate, &raw)];
    let mut decoder = ContentDecoder::default();
    let mut round = || {
        for (coding, body) in bodies {
            assert!(decoder.begin(coding, 1 << 20));
            assert_eq!(decoder.advance(body, 1 << 20), Ok(Advanced::Done));
            assert_eq!(decoder.content(), events);
            decoder.rest();
        }
    };
    round();
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        round();
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 300 bodies");
}

#[test]
fn requests_of_many_tables_are_routed_and_encoded_without_an_allocation_once_they_are_warm() {
    use sluicegate::api::{Answer, Api, ApiTable, Reply, Route};
    use sluicegate::http::{HeadLimits, NO_HEADERS, Parsed, parse_head};

    let table = |place: usize| {
        let name = format!("table{place}");
        ApiTable { paths: vec![format!("/api/{name}"), format!("/in/{name}")], name, encoder: encoder() }
    };
    let mut api = Api::new((0..100).map(table).collect());
    let events = include_bytes!("../bench/corpus/events-30.ndjson");
    let heads: Vec<Vec<u8>> = (0..100)
        .map(|place| format!("POST /in/table{place}?ack=disk HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes())
        .collect();
    let origin = Origin { client_ip: None, server_time_unix_ns: 0 };
    let mut batch = Batch::new(0);
    let mut round = || {
        for (place, head) in heads.iter().enumerate() {
            let mut slots = NO_HEADERS;
            let limits = HeadLimits { head_bytes_max: 1000, headers_max: 16 };
            let Parsed::Done(head) = parse_head(head, &limits, &mut slots) else { panic!() };
            let Route::Events(options) = api.route(&head) else { panic!() };
            assert_eq!(options.table.get(), place);
            let answer = api.take_events(events, options, &origin, &mut batch);
            assert!(matches!(answer, Answer::AfterCommit { reply: Reply::Accepted(30), .. }));
            batch.clear();
        }
    };
    (0..3).for_each(|_| round());
    let before = ALLOCATIONS.with(Cell::get);
    round();
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 100 requests");
}

#[test]
fn encoding_allocates_nothing_once_it_is_warm() {
    let events = include_bytes!("../bench/corpus/events-30.ndjson");
    // The same events in another order of keys: the guess is missed again and again.
    let turned: String = std::str::from_utf8(events)
        .unwrap()
        .lines()
        .map(|line| {
            let mut fields: Vec<&str> = line.trim_matches(['{', '}']).split(",\"").collect();
            fields.rotate_left(1);
            let fields: Vec<String> =
                fields.iter().map(|field| format!("\"{}", field.trim_start_matches('"'))).collect();
            format!("{{{}}}\n", fields.join(","))
        })
        .collect();
    let origin = Origin { client_ip: Some([127, 0, 0, 1].into()), server_time_unix_ns: 1_700_000_000_000_000_000 };
    let (mut encoder, mut batch, mut report) = (encoder(), Batch::new(0), Report::default());
    let mut encode = |body: &[u8]| {
        report.clear();
        encoder.encode(body, &origin, &mut batch, &mut report).unwrap();
        assert_eq!((report.accepted, report.rejected), (30, 0));
        batch.clear();
    };
    let round = |encode: &mut dyn FnMut(&[u8])| {
        encode(events);
        encode(turned.as_bytes());
    };
    for _ in 0..10 {
        round(&mut encode);
    }
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        round(&mut encode);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 6,000 events");
    // The counter counts.
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1);
}

#[test]
fn values_inside_of_values_allocate_nothing_once_they_are_warm() {
    let described = |name: &str, type_name: &str| ColumnDescription {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        default_kind: String::new(),
        default_expression: String::new(),
    };
    let columns = [
        described("list", "Array(String)"),
        described("map", "Map(String, Float64)"),
        described("tuple", "Tuple(a UInt8, b Array(Tuple(x Int8, y String)))"),
        described("json", "JSON"),
        described("any", "Variant(Array(String), Int64, String)"),
    ];
    let limits = EncodeLimits { line_bytes_max: 1 << 20, events_max: 100_000, encoded_bytes_max: 64 << 20 };
    let mut encoder = RowEncoder::new(Arc::new(Plan::compile(&columns, "UTC").unwrap()), limits);
    // Keys of tuples in their order and in another one, plain texts and escaped ones.
    let events = r#"{"list":["a","b\n"],"map":{"k":1.5,"\u0061":2},"tuple":{"a":1,"b":[{"x":1,"y":"z"}]},"json":{"a":[{"b":1}]},"any":[1]}
{"list":[],"map":{},"tuple":{"b":[{"y":"\u0061","x":1},{"y":"b"}],"a":1},"json":{"a":{"b":"\n"}},"any":"\u0061"}
"#;
    let origin = Origin { client_ip: None, server_time_unix_ns: 0 };
    let (mut batch, mut report) = (Batch::new(0), Report::default());
    let mut encode = || {
        report.clear();
        encoder.encode(events.as_bytes(), &origin, &mut batch, &mut report).unwrap();
        assert_eq!((report.accepted, report.rejected), (2, 0));
        batch.clear();
    };
    encode();
    encode();
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        encode();
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 200 events");
}

#[test]
fn mapped_columns_allocate_nothing_once_they_are_warm() {
    use sluicegate::ndjson::{FieldCounts, InvalidText};
    use sluicegate::schema::{ColumnSource, Dialect, Mapping, TimeUnit, UnknownFields};

    let described = |(name, type_name): (&str, &str)| ColumnDescription {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        default_kind: String::new(),
        default_expression: String::new(),
    };
    let columns = [
        ("id", "String"),
        ("n", "Int64"),
        ("ts", "DateTime64(3, 'UTC')"),
        ("guessed", "DateTime('UTC')"),
        ("app", "String"),
        ("raw", "String"),
        ("rest", "Map(String, String)"),
    ];
    let fields = |names: &[&str], unit| ColumnSource::Fields {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        unit,
    };
    let sources = [
        ("id", fields(&["user.id", "uid"], None)),
        ("n", fields(&["a.b.c", "n"], None)),
        ("ts", fields(&["time.at"], Some(TimeUnit::Milliseconds))),
        ("app", ColumnSource::Value("\"app\"".to_owned())),
        ("raw", ColumnSource::Line),
    ];
    let mapping = Mapping {
        columns: sources.map(|(column, source)| (column.to_owned(), source)).into(),
        required: vec!["id".to_owned()],
        unknown_fields: UnknownFields::Collect("rest".to_owned()),
    };
    let plan = Plan::compile_mapped(&columns.map(described), Dialect::newest("UTC"), &mapping).unwrap();
    let limits = EncodeLimits { line_bytes_max: 1 << 20, events_max: 100_000, encoded_bytes_max: 64 << 20 };
    let mut encoder = RowEncoder::new(Arc::new(plan), limits)
        .with_invalid_text(InvalidText::Reject)
        .counting(Arc::new(FieldCounts::default()));
    let events = r#"{"uid":"x","user":{"id":"y","name":"z"},"a":{"b":{"c":7}},"time":{"at":1606864194123},"other":[1,2]}
{"user":{"name":"\u0061","id":"y"},"n":8,"guessed":1606864194,"other":{"a":"\n"},"a":{"d":true}}
"#;
    let origin = Origin { client_ip: None, server_time_unix_ns: 0 };
    let (mut batch, mut report) = (Batch::new(0), Report::default());
    let mut encode = || {
        report.clear();
        encoder.encode(events.as_bytes(), &origin, &mut batch, &mut report).unwrap();
        assert_eq!((report.accepted, report.rejected), (2, 0));
        batch.clear();
    };
    // The orders of both lines are learned: they contradict each other in little, which takes a few lines more.
    (0..20).for_each(|_| encode());
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        encode();
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 200 events");
}
