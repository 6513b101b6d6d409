//! The sample events as rows: an encoder for their table, and closed batches.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluicegate::batch::Batch;
use sluicegate::ndjson::{EncodeLimits, Origin, Report, RowEncoder};
use sluicegate::schema::Plan;

use crate::columns;

const LIMITS: EncodeLimits = EncodeLimits { line_bytes_max: 1 << 20, events_max: 100_000, encoded_bytes_max: 64 << 20 };

/// Where the events come from, and when.
pub const ORIGIN: Origin = Origin {
    client_ip: Some(std::net::IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8))),
    server_time_unix_ns: 1_606_864_194_000_000_000,
};

/// An encoder for a table of these columns and the server's own, which has learned nothing yet.
pub fn encoder(columns: &[(&str, &str)]) -> Result<RowEncoder, String> {
    let plan = Plan::compile(&columns::described(columns), "UTC").map_err(|error| error.to_string())?;
    Ok(RowEncoder::new(Arc::new(plan), LIMITS))
}

/// A closed batch of worker 0 that holds the rows of `body` so many times.
pub fn batch(body: &[u8], times: usize) -> Result<Batch, String> {
    let (mut encoder, mut batch, mut report) = (encoder(&columns::OF_CLIENTS)?, Batch::new(0), Report::default());
    for _ in 0..times {
        encoder.encode(body, &ORIGIN, &mut batch, &mut report).map_err(|refusal| format!("{refusal:?}"))?;
    }
    batch.close();
    Ok(batch)
}
