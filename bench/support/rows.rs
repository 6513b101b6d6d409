//! The sample events as rows: an encoder for their table, and closed batches.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluicegate::batch::Batch;
use sluicegate::ndjson::{EncodeLimits, Origin, Report, RowEncoder};
use sluicegate::schema::{ColumnDescription, Plan};

/// The default table.
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

/// Where the events come from, and when.
pub const ORIGIN: Origin = Origin {
    client_ip: std::net::IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    server_time_unix_ns: 1_606_864_194_000_000_000,
};

/// An encoder for the default table, which has learned nothing yet.
pub fn encoder() -> Result<RowEncoder, String> {
    let columns = EVENTS.map(|(name, type_name)| ColumnDescription {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        default_kind: String::new(),
        default_expression: String::new(),
    });
    let plan = Plan::compile(&columns, "UTC").map_err(|error| error.to_string())?;
    Ok(RowEncoder::new(Arc::new(plan), LIMITS))
}

/// A closed batch of worker 0 that holds the rows of `body` so many times.
pub fn batch(body: &[u8], times: usize) -> Result<Batch, String> {
    let (mut encoder, mut batch, mut report) = (encoder()?, Batch::new(0), Report::default());
    for _ in 0..times {
        encoder.encode(body, &ORIGIN, &mut batch, &mut report).map_err(|refusal| format!("{refusal:?}"))?;
    }
    batch.close(1);
    Ok(batch)
}
