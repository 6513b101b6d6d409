//! Lines to rows: the quick way and its twin, the general one, give the same bytes and say the
//! same, with a mapping as well; and what was learned from a body changes nothing.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sluicegate::batch::Batch;
use sluicegate::ndjson::{EncodeLimits, EncodeRefusal, InvalidText, Origin, Report, RowEncoder};
use sluicegate::schema::{ColumnDescription, ColumnSource, Dialect, Mapping, Plan, TimeUnit, UnknownFields};

const COLUMNS: [(&str, &str); 28] = [
    ("t", "DateTime('UTC')"),
    ("s", "String"),
    ("l", "LowCardinality(String)"),
    ("ip", "String"),
    ("i", "Int8"),
    ("u", "UInt64"),
    ("f", "Float64"),
    ("g", "Float32"),
    ("b", "Bool"),
    ("id", "UUID"),
    ("server_time", "DateTime"),
    ("x", "FixedString(3)"),
    ("m", "DateTime64(3,'Europe/Berlin')"),
    ("e", "Enum8('a'=1,'b'=2)"),
    ("n", "Nullable(Int64)"),
    ("d", "Nullable(Date)"),
    ("v", "IPv4"),
    ("w", "IPv6"),
    ("two", "UInt8"),
    ("TWO", "UInt8"),
    ("wide", "Int256"),
    ("dec", "Decimal(18, 3)"),
    ("bf", "BFloat16"),
    ("day", "Time64(3)"),
    ("list", "Array(Nullable(Int16))"),
    ("map", "Map(String, Array(String))"),
    ("rest", "String"),
    ("obj", "Tuple(a UInt8, b Nullable(String), s Array(Tuple(x Int8, y String)))"),
];

const LIMITS: EncodeLimits = EncodeLimits { line_bytes_max: 4096, events_max: 1000, encoded_bytes_max: 1 << 20 };

type Outcome = (Result<(), EncodeRefusal>, Vec<u8>, u32, Vec<u8>, String);

fn run(encoder: &mut RowEncoder, quick: bool, body: &[u8]) -> Outcome {
    let origin = Origin { client_ip: Some([8, 8, 8, 8].into()), server_time_unix_ns: 1_606_867_194_000_000_000 };
    let (mut batch, mut report) = (Batch::new(0), Report::default());
    let done = if quick {
        encoder.encode(body, &origin, &mut batch, &mut report)
    } else {
        encoder.encode_generally(body, &origin, &mut batch, &mut report)
    };
    (done, batch.rows.bytes, batch.rows.count, batch.rejected.bytes, format!("{report:?}"))
}

thread_local! {
    static LEARNED: RefCell<[RowEncoder; 4]> = RefCell::new([
        encoder(&Mapping::default()),
        encoder(&Mapping::default()).with_invalid_text(InvalidText::Replace),
        encoder(&mapping()),
        encoder(&mapping()).with_invalid_text(InvalidText::Replace),
    ]);
}

/// Paths, several sources, a unit, the line, what is left, and a required column.
fn mapping() -> Mapping {
    let fields = |names: &[&str], unit| ColumnSource::Fields {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        unit,
    };
    let columns = [
        ("s", fields(&["s.t", "t.s", "l"], None)),
        ("i", fields(&["obj.a"], None)),
        ("n", fields(&["n.n.n"], None)),
        ("m", fields(&["m"], Some(TimeUnit::Milliseconds))),
        ("l", ColumnSource::Line),
    ];
    Mapping {
        columns: columns.map(|(column, source)| (column.to_owned(), source)).into(),
        required: vec!["u".to_owned()],
        unknown_fields: UnknownFields::Collect("rest".to_owned()),
    }
}

fn encoder(mapping: &Mapping) -> RowEncoder {
    let columns = COLUMNS.map(|(name, type_name)| ColumnDescription {
        name: name.into(),
        type_name: type_name.into(),
        default_kind: String::new(),
        default_expression: String::new(),
    });
    RowEncoder::new(
        Arc::new(Plan::compile_mapped(&columns, Dialect::newest("UTC"), mapping).expect("these are supported")),
        LIMITS,
    )
}

fuzz_target!(|body: &[u8]| {
    LEARNED.with_borrow_mut(|encoders| {
        for learned in encoders {
            let general = run(learned, false, body);
            assert_eq!(general, run(learned, true, body), "with what other bodies taught");
            assert_eq!(general, run(learned, true, body), "a second time");
        }
    });
});
