//! Events a core-second of the row encoder, against `sonic_rs::from_slice` into a borrowed struct
//! with the same RowBinary written from it, on the sample events of the default table.
//!
//! Both run in one process, in alternating rounds, so that a machine that becomes slower becomes
//! so for both; the figure is the median of the rounds' ratios. `--quick` runs a few rounds only,
//! to see that it runs at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use sluicegate::batch::Batch;
use sluicegate::ndjson::{EncodeLimits, Origin, Report, RowEncoder};
use sluicegate::rowbinary::RowBuffer;
use sluicegate::schema::{ColumnDescription, Plan};

const CORPUS: &[u8] = include_bytes!("corpus/events-30.ndjson");

const COLUMNS: [(&str, &str); 10] = [
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

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    client_time: Cow<'a, str>,
    #[serde(borrow)]
    device_id: Cow<'a, str>,
    #[serde(borrow)]
    device_os: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    sequence: i64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    param_int: i64,
    #[serde(borrow)]
    param_str: Cow<'a, str>,
}

fn plan() -> Result<Arc<Plan>, String> {
    let columns: Vec<ColumnDescription> = COLUMNS
        .iter()
        .map(|(name, type_name)| ColumnDescription {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            default_kind: String::new(),
            default_expression: String::new(),
        })
        .collect();
    let plan = Plan::compile(&columns, "UTC").map_err(|error| error.to_string())?;
    Ok(Arc::new(plan))
}

/// Reads every line into the struct and writes its row.
fn with_struct(body: &[u8], ip: &[u8], seconds: u32, rows: &mut RowBuffer, batch: &mut Batch) -> Result<(), String> {
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Event<'_> = sonic_rs::from_slice(line).map_err(|error| error.to_string())?;
        rows.put(unix_seconds(&event.client_time).ok_or("a time")?.to_le_bytes());
        rows.put_string(event.device_id.as_bytes());
        rows.put_string(event.device_os.as_bytes());
        rows.put_string(event.session.as_bytes());
        rows.put(event.sequence.to_le_bytes());
        rows.put_string(event.event.as_bytes());
        rows.put(event.param_int.to_le_bytes());
        rows.put_string(event.param_str.as_bytes());
        rows.put_string(ip);
        rows.put(seconds.to_le_bytes());
        batch.rows.count += 1;
    }
    batch.rows.bytes.extend_from_slice(rows.written());
    rows.truncate(0);
    Ok(())
}

/// `YYYY-MM-DD hh:mm:ss`, as quick as plain code is.
fn unix_seconds(text: &str) -> Option<u32> {
    let text: &[u8; 19] = text.as_bytes().try_into().ok()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b' ', h1, h2, b':', i1, i2, b':', s1, s2] = text else {
        return None;
    };
    let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let (year, month, day) = (two(y1, y2) * 100 + two(y3, y4), two(m1, m2), two(d1, d2));
    let (shifted, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (month * 153 + 2) / 5 + day - 719_469;
    u32::try_from(days * 86_400 + two(h1, h2) * 3600 + two(i1, i2) * 60 + two(s1, s2)).ok()
}

fn main() -> Result<(), String> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, bodies) = if quick { (3, 20) } else { (61, 3000) };
    let origin = Origin {
        client_ip: std::net::Ipv4Addr::new(8, 8, 8, 8).into(),
        server_time_unix_ns: 1_606_864_194_000_000_000,
    };
    let limits = EncodeLimits { line_bytes_max: 1 << 20, events_max: 100_000, encoded_bytes_max: 64 << 20 };
    let mut encoder = RowEncoder::new(plan()?, limits);
    let mut batch = Batch::new(0);
    let mut report = Report::default();
    let mut rows = RowBuffer::with_space(16 << 10);

    // The same rows, or there is nothing to compare.
    encoder.encode(CORPUS, &origin, &mut batch, &mut report).map_err(|refusal| format!("{refusal:?}"))?;
    let encoded = batch.rows.bytes.clone();
    batch.clear();
    with_struct(CORPUS, b"8.8.8.8", 1_606_864_194, &mut rows, &mut batch)?;
    if batch.rows.bytes != encoded || batch.rows.count != 30 {
        return Err("the two do not write the same rows".to_owned());
    }

    let events = f64::from(batch.rows.count) * f64::from(bodies);
    let mut ratios = Vec::new();
    let (mut encoder_rates, mut struct_rates) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..bodies {
            batch.clear();
            report.clear();
            encoder
                .encode(black_box(CORPUS), &origin, &mut batch, &mut report)
                .map_err(|refusal| format!("{refusal:?}"))?;
            black_box(&batch.rows.bytes);
        }
        let encoder_rate = events / start.elapsed().as_secs_f64();
        let start = Instant::now();
        for _ in 0..bodies {
            batch.clear();
            with_struct(black_box(CORPUS), b"8.8.8.8", 1_606_864_194, &mut rows, &mut batch)?;
            black_box(&batch.rows.bytes);
        }
        let struct_rate = events / start.elapsed().as_secs_f64();
        ratios.push(encoder_rate / struct_rate);
        encoder_rates.push(encoder_rate);
        struct_rates.push(struct_rate);
    }
    let million = 1e6;
    println!("encoder      {:6.2} million events a core-second", median(&mut encoder_rates) / million);
    println!("from_slice   {:6.2} million events a core-second", median(&mut struct_rates) / million);
    println!("ratio        {:6.2} (median of {rounds} rounds)", median(&mut ratios));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
