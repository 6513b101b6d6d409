//! Tests of the whole encoder: bodies are encoded, and `clickhouse_rowbinary` decodes the rows.

mod arrays;
mod bodies;
mod guessed;
mod invalid_text;
mod mapping;
mod nested;
mod open;
mod scalars;
mod slices;
mod times;
mod twin;
mod types;

use std::sync::Arc;

use clickhouse_rowbinary::{RowBinaryFormat, RowBinaryValueReader, Value};

use super::*;
use crate::schema::ColumnDescription;

/// The plan of a table without default expressions, on a ClickHouse server in UTC.
fn plan(columns: &[(&str, &str)]) -> Arc<Plan> {
    let columns: Vec<ColumnDescription> = columns
        .iter()
        .map(|(name, type_name)| ColumnDescription {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            default_kind: String::new(),
            default_expression: String::new(),
        })
        .collect();
    Arc::new(Plan::compile(&columns, "UTC").unwrap())
}

/// The columns of the default table.
const EVENTS: [(&str, &str); 10] = [
    ("client_time", "DateTime('UTC')"),
    ("device_id", "String"),
    ("device_os", "LowCardinality(String)"),
    ("session", "String"),
    ("sequence", "Int64"),
    ("event", "LowCardinality(String)"),
    ("param_int", "Int64"),
    ("param_str", "String"),
    ("ip", "String"),
    ("server_time", "DateTime('UTC')"),
];

const LIMITS: EncodeLimits = EncodeLimits { line_bytes_max: 1 << 20, events_max: 100_000, encoded_bytes_max: 64 << 20 };

fn origin() -> Origin {
    Origin { client_ip: Some([8, 8, 8, 8].into()), server_time_unix_ns: 1_606_864_194_123_456_789 }
}

/// The result of encoding a body.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    done: Result<(), EncodeRefusal>,
    rows: Vec<u8>,
    count: u32,
    rejected: Vec<u8>,
    report: Report,
}

/// Encodes a body, on the slow path alone if `fast` is false.
fn run(encoder: &mut RowEncoder, fast: bool, body: &[u8]) -> Outcome {
    let mut batch = Batch::new(0);
    batch.rows.bytes.extend_from_slice(b"before");
    batch.rows.count = 7;
    let mark = batch.mark();
    let mut report = Report::default();
    let done = if fast {
        encoder.encode(body, &origin(), &mut batch, &mut report)
    } else {
        encoder.encode_generally(body, &origin(), &mut batch, &mut report)
    };
    if done.is_err() {
        assert_eq!(batch.mark(), mark, "a refused request changed the batch");
    } else {
        assert_eq!(batch.rows.count, 7 + report.accepted);
        assert_eq!(batch.rejected.count, report.rejected);
        assert_eq!(report.rejected_by_code.iter().sum::<u32>(), report.rejected);
    }
    assert!(batch.rows.bytes.starts_with(b"before"));
    Outcome {
        done,
        rows: batch.rows.bytes.split_off(6),
        count: batch.rows.count - 7,
        rejected: batch.rejected.bytes,
        report,
    }
}

/// The rows as `clickhouse_rowbinary` decodes them.
fn decode(plan: &Plan, rows: &[u8]) -> Vec<Vec<Value>> {
    let mut table = plan.rowbinary_header().unwrap();
    table.extend_from_slice(rows);
    let format = RowBinaryFormat::RowBinaryWithNamesAndTypes;
    let mut reader = RowBinaryValueReader::new(&table[..], format).unwrap();
    let mut decoded = Vec::new();
    while let Some(row) = reader.read_row().unwrap() {
        decoded.push(row);
    }
    decoded
}

/// Encodes a body with a new encoder, again with the learned key order, far from the end of what is read at once, and
/// on the slow path. All results must be equal.
fn encode(plan: &Arc<Plan>, body: &[u8]) -> Outcome {
    encode_with(plan, body, InvalidText::Reject)
}

/// [`encode`] with another treatment of invalid text.
fn encode_with(plan: &Arc<Plan>, body: &[u8], invalid_text: InvalidText) -> Outcome {
    let mut encoder = RowEncoder::new(Arc::clone(plan), LIMITS).with_invalid_text(invalid_text);
    let fast = run(&mut encoder, true, body);
    assert_eq!(fast, run(&mut encoder, true, body), "a second time");
    // Blank lines are no events.
    let far = [body, &[b'\n'; 200]].concat();
    if !fast.report.has_elements {
        assert_eq!(fast, run(&mut encoder, true, &far), "far from the end");
    }
    assert_eq!(fast, run(&mut encoder, false, body), "on the slow path");
    fast
}

fn text(text: &str) -> Value {
    Value::String(text.as_bytes().to_vec())
}

/// The value that `json` becomes in a column of this type.
fn cell(type_name: &str, json: &str) -> Result<Value, LineCode> {
    let plan = plan(&[("x", type_name)]);
    // Two lines, so that the key of the second one is guessed.
    let body = format!("{{\"x\":{json}}}\n{{\"x\":{json}}}\n");
    let outcome = encode(&plan, body.as_bytes());
    assert_eq!(outcome.done, Ok(()));
    match outcome.report.errors.first() {
        Some(error) => {
            assert_eq!(outcome.count, 0);
            let named = error.column.as_deref() == Some("x");
            assert!(named || error.code == LineCode::InvalidJson, "{error:?}");
            Err(error.code)
        }
        None => {
            let rows = decode(&plan, &outcome.rows);
            assert_eq!(rows.len(), 2);
            assert_eq!(rows[0], rows[1]);
            Ok(rows[0][0].clone())
        }
    }
}

fn check(type_name: &str, cases: &[(&str, Result<Value, LineCode>)]) {
    for (json, expected) in cases {
        assert_eq!(&cell(type_name, json), expected, "{json} into {type_name}");
    }
}
