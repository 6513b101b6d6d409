//! Each stage of an event's way alone: head, chunks, codings, lines, encoder, frame, segment.
//!
//! `cargo bench --bench micro` (or `make bench-micro`), with the arguments of criterion: a name
//! measures what it is part of, `--quick` looks only whether it runs. Environment: `BENCH_RECORD`
//! (a folder for the raw figures).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/columns.rs"]
#[allow(dead_code)]
mod columns;
#[path = "support/feed.rs"]
mod feed;
#[path = "support/record.rs"]
mod record;
#[path = "support/rows.rs"]
mod rows;

use std::error::Error;
use std::fs;
use std::hint::black_box;
#[cfg(feature = "codings")]
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use feed::Feed;
use record::Record;
use serde_json::Value;
use sluicegate::batch::Batch;
use sluicegate::http::{ChunkDecoder, HeadLimits, NO_HEADERS, Parsed, parse_head};
use sluicegate::ndjson::Report;
use sluicegate::spool::{Durability, Part, SealedBlock};

const EVENTS_30: &[u8] = include_bytes!("corpus/events-30.ndjson");
const ONE_EVENT: &[u8] = include_bytes!("corpus/one.ndjson");

/// What a load generator sends.
const SHORT_HEAD: &[u8] = b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\
Content-Type: application/x-ndjson\r\nContent-Length: 6719\r\n\r\n";
/// What a browser sends.
const LONG_HEAD: &[u8] = b"POST /api/events?key=0123456789abcdef HTTP/1.1\r\nHost: events.example.com\r\n\
Connection: keep-alive\r\nContent-Length: 6719\r\nsec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
sec-ch-ua-platform: \"Windows\"\r\nsec-ch-ua-mobile: ?0\r\n\
User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36\r\n\
Content-Type: text/plain;charset=UTF-8\r\nAccept: */*\r\nOrigin: https://www.example.com\r\nSec-Fetch-Site: same-site\r\n\
Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: empty\r\nReferer: https://www.example.com/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\r\n";

/// A frame of one event, of a usual request, and of a worker's whole turn.
const FRAMES: [(&str, &[u8], usize); 3] =
    [("1 row", ONE_EVENT, 1), ("30 rows", EVENTS_30, 1), ("1,500 rows", EVENTS_30, 50)];

const BATCH_BYTES: u64 = 8 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut record = Record::begin("micro");
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("micro");
    if results.exists() {
        // Those of an earlier run would be taken for this one's.
        fs::remove_dir_all(&results)?;
    }
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(&results)
        .sample_size(30)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    head(&mut criterion);
    chunks(&mut criterion);
    #[cfg(feature = "codings")]
    codings(&mut criterion)?;
    lines(&mut criterion)?;
    encoder(&mut criterion)?;
    frame(&mut criterion)?;
    segment(&mut criterion)?;
    criterion.final_summary();
    if results.exists() {
        take_down(&results, &mut record)?;
    }
    record.save()
}

fn head(criterion: &mut Criterion) {
    let limits = HeadLimits { head_bytes_max: 16 << 10, headers_max: 100 };
    let mut group = criterion.benchmark_group("head");
    for (name, head) in [("5 fields", SHORT_HEAD), ("16 fields", LONG_HEAD)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut slots = NO_HEADERS;
                let Parsed::Done(head) = parse_head(black_box(head), &limits, &mut slots) else { panic!("a head") };
                black_box(head.len)
            });
        });
    }
    group.finish();
}

/// The body of a usual request, in chunks.
fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunks");
    for len in [16, 1024, 8192] {
        let mut raw = Vec::new();
        for chunk in EVENTS_30.chunks(len) {
            raw.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            raw.extend_from_slice(chunk);
            raw.extend_from_slice(b"\r\n");
        }
        raw.extend_from_slice(b"0\r\n\r\n");
        group.throughput(Throughput::Bytes(EVENTS_30.len() as u64));
        group.bench_function(format!("{len} bytes"), |bencher| {
            bencher.iter_batched_ref(
                || raw.clone(),
                |raw| {
                    let decoded = ChunkDecoder::default().decode(raw).expect("a chunked body");
                    assert!(decoded.done);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The content coding of a usual request, decoded as a worker does; `encoder/30 events` is what the plain
/// body costs.
#[cfg(feature = "codings")]
fn codings(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use sluicegate::http::Coding;
    use sluicegate::http::coding::{Advanced, ContentDecoder};

    let gzip = |level: u32| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(EVENTS_30)?;
        encoder.finish()
    };
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(EVENTS_30)?;
    let mut brotli = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
    brotli::BrotliCompress(&mut &EVENTS_30[..], &mut brotli, &parameters)?;
    let bodies = [
        ("gzip -1", Coding::Gzip, gzip(1)?),
        ("gzip -6", Coding::Gzip, gzip(6)?),
        ("deflate -6", Coding::Deflate, zlib.finish()?),
        ("zstd -1", Coding::Zstd, zstd::bulk::compress(EVENTS_30, 1)?),
        ("zstd -3", Coding::Zstd, zstd::bulk::compress(EVENTS_30, 3)?),
        ("br -5", Coding::Br, brotli),
    ];
    let mut decoder = ContentDecoder::default();
    let mut group = criterion.benchmark_group("codings");
    for (name, coding, body) in bodies {
        group.throughput(Throughput::Bytes(EVENTS_30.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                assert!(decoder.begin(coding, 1 << 20));
                assert_eq!(decoder.advance(black_box(&body), 1 << 20), Ok(Advanced::Done));
                black_box(decoder.content());
                decoder.rest();
            });
        });
    }
    group.finish();
    Ok(())
}

/// Lines that hold nothing to encode: what a line costs as such.
fn lines(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    const LINES: usize = 1000;
    encode(criterion, "lines", "blank", &b"\n".repeat(LINES), LINES)?;
    encode(criterion, "lines", "empty objects", &b"{}\n".repeat(LINES), LINES)
}

fn encoder(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    encode(criterion, "encoder", "1 event", ONE_EVENT, 1)?;
    encode(criterion, "encoder", "30 events", EVENTS_30, 30)
}

fn encode(criterion: &mut Criterion, group: &str, name: &str, body: &[u8], lines: usize) -> Result<(), Box<dyn Error>> {
    let mut encoder = rows::encoder(&columns::OF_CLIENTS)?;
    let (mut batch, mut report) = (Batch::new(0), Report::default());
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(lines as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            batch.clear();
            report.clear();
            encoder.encode(black_box(body), &rows::ORIGIN, &mut batch, &mut report).expect("a body of the table");
            black_box(&batch.rows.bytes);
        });
    });
    group.finish();
    Ok(())
}

/// What a worker does to make a frame of its batch: the checksum.
fn frame(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("frame");
    for (name, body, times) in FRAMES {
        let mut batch = rows::batch(body, times)?;
        group.throughput(Throughput::Bytes(batch.frame_payload()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                black_box(&mut batch).close();
                black_box(batch.checksum)
            });
        });
    }
    group.finish();
    Ok(())
}

/// What an inserter does to read a segment of such frames: every header and checksum is looked at.
fn segment(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("segment");
    for (name, body, times) in FRAMES {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let block = sealed(folder.path(), body, times)?;
        group.throughput(Throughput::Bytes(block.rows_bytes()));
        group.bench_function(format!("frames of {name}"), |bencher| {
            bencher.iter(|| {
                let mut reader = block.read(Part::Rows).expect("a block");
                while let Some(piece) = reader.next_rows().expect("its frames") {
                    black_box(&piece);
                }
            });
        });
    }
    group.finish();
    Ok(())
}

/// A full block of frames that hold the rows of `body` so many times.
fn sealed(folder: &Path, body: &[u8], times: usize) -> Result<SealedBlock, Box<dyn Error>> {
    let feed = Feed { folder, durability: Durability::Written, batch_bytes: BATCH_BYTES, workers: 1, cores: None };
    let batches = BATCH_BYTES / rows::batch(body, times)?.frame_payload();
    let mut first = None;
    feed.run(
        || rows::batch(body, times),
        |batches_so_far, _| batches_so_far < batches,
        |block, _| {
            first.get_or_insert(block);
            Ok(())
        },
    )?;
    first.ok_or_else(|| "nothing was sealed".into())
}

/// Criterion's own results, as it wrote them: nanoseconds of each sample.
fn take_down(folder: &Path, record: &mut Record) -> Result<(), Box<dyn Error>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.is_dir()) {
        let read = |name: &str| fs::read(path.join("new").join(name));
        let (Ok(benchmark), Ok(sample)) = (read("benchmark.json"), read("sample.json")) else {
            take_down(path, record)?;
            continue;
        };
        let (benchmark, sample): (Value, Value) =
            (serde_json::from_slice(&benchmark)?, serde_json::from_slice(&sample)?);
        let numbers = |name: &str| -> Vec<f64> {
            sample[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let nanoseconds: Vec<f64> =
            numbers("times").iter().zip(numbers("iters")).map(|(time, count)| time / count).collect();
        let name = benchmark["full_id"].as_str().unwrap_or_default();
        let throughput = &benchmark["throughput"];
        let rate = match (throughput["Bytes"].as_f64(), throughput["Elements"].as_f64()) {
            (Some(bytes), _) => Some((bytes, "throughput", "GB/s")),
            (_, Some(lines)) => Some((lines * 1e3, "lines a core-second", "million/s")),
            _ => None,
        };
        if let Some((amount, figure, unit)) = rate {
            record.note(name, figure, unit, nanoseconds.iter().map(|time| amount / time));
        }
        record.note(name, "time", "ns", nanoseconds);
    }
    Ok(())
}
