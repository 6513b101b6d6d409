//! The stack that fits on a card: `may_minihttp`, `sonic-rs` into a struct, `clickhouse_rowbinary`
//! values, a `crossbeam` channel, `reqwest`.
//!
//! `card ADDRESS CLICKHOUSE_URL TABLE`
//!
//! One pinned worker a core parses a request's lines into borrowed structs, writes them as rows,
//! and hands the rows over; two threads by turns gather what is handed over into an INSERT. A full
//! channel holds the workers back.
//!
//! Left out: a disk, repeats of a failed INSERT, time-outs, chunked bodies, reasons of rejected
//! lines, any other table.

#[path = "../client_time.rs"]
mod client_time;

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clickhouse_rowbinary::{RowBinaryFormat, RowBinaryValueWriter, Schema, Value};
use crossbeam_channel::{Receiver, Sender, bounded};
use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};
use nix::sys::socket::{SockaddrStorage, getpeername};
use serde::Deserialize;

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

/// The size of an INSERT, whichever is first.
const BATCH_ROWS: usize = 500_000;
const BATCH_BYTES: usize = 32 << 20;
const BATCH_AGE: Duration = Duration::from_secs(1);

const INSERTERS: usize = 2;
/// Requests that wait for an inserter.
const WAITING_MAX: usize = 1024;
/// In words: a coroutine's default is too little for a parser.
const STACK_WORDS: usize = 32 << 10;

#[derive(Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(deserialize_with = "client_time::deserialize")]
    client_time: u32,
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

impl Default for Event<'_> {
    fn default() -> Self {
        let text = || Cow::Borrowed("");
        Self {
            client_time: 0,
            device_id: text(),
            device_os: text(),
            session: text(),
            sequence: 0,
            event: text(),
            param_int: 0,
            param_str: text(),
        }
    }
}

/// What one request hands over.
struct Rows {
    count: usize,
    bytes: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, clickhouse, table] = arguments.as_slice() else {
        return Err("card ADDRESS CLICKHOUSE_URL TABLE".into());
    };
    let (sender, receiver) = bounded(WAITING_MAX);
    for _ in 0..INSERTERS {
        let inserter = Inserter::new(clickhouse, table)?;
        let receiver = receiver.clone();
        std::thread::spawn(move || inserter.run(&receiver));
    }
    may::config().set_workers(std::thread::available_parallelism()?.get()).set_stack_size(STACK_WORDS);
    may::config().set_worker_pin(true);
    Connections { sender, schema: schema()? }.start(address.as_str())?.join().map_err(|_| "the server ended")?;
    Ok(())
}

fn schema() -> Result<Schema, Box<dyn Error>> {
    Ok(Schema::from_type_strings(&COLUMNS)?)
}

struct Connections {
    sender: Sender<Rows>,
    schema: Schema,
}

impl HttpServiceFactory for Connections {
    type Service = Connection;

    fn new_service(&self, id: usize) -> Connection {
        // `may_minihttp` tells a service its connection's descriptor and nothing else.
        let ip = RawFd::try_from(id).ok().and_then(|id| getpeername::<SockaddrStorage>(id).ok()).and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| address.ip().to_string());
            v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().to_string()))
        });
        let writer = RowBinaryValueWriter::new(Vec::new(), RowBinaryFormat::RowBinary, self.schema.clone());
        Connection { sender: self.sender.clone(), ip: ip.unwrap_or_default(), body: Vec::new(), writer }
    }
}

struct Connection {
    sender: Sender<Rows>,
    ip: String,
    body: Vec<u8>,
    writer: RowBinaryValueWriter<Vec<u8>>,
}

impl HttpService for Connection {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        if request.method() != "POST" || request.path() != "/api/events" {
            response.status_code(404, "Not Found");
            return Ok(());
        }
        self.body.clear();
        request.body().read_to_end(&mut self.body)?;
        let server_time = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        let server_time = u32::try_from(server_time).map_err(io::Error::other)?;
        // Rows are about as long as their lines without the names.
        self.writer.reset(Vec::with_capacity(self.body.len()));
        let (mut accepted, mut rejected) = (0, 0);
        for line in lines(&self.body) {
            let Ok(event) = sonic_rs::from_slice::<Event>(line) else {
                rejected += 1;
                continue;
            };
            let text = |text: Cow<str>| Value::String(text.into_owned().into_bytes());
            let row = [
                Value::DateTime(event.client_time),
                text(event.device_id),
                text(event.device_os),
                text(event.session),
                Value::Int64(event.sequence),
                text(event.event),
                Value::Int64(event.param_int),
                text(event.param_str),
                text(Cow::Borrowed(&self.ip)),
                Value::DateTime(server_time),
            ];
            self.writer.write_row(&row).map_err(io::Error::other)?;
            accepted += 1;
        }
        let rows = Rows { count: accepted, bytes: self.writer.take_inner() };
        self.sender.send(rows).map_err(|_| io::Error::other("the inserters ended"))?;
        response.header("Content-Type: application/json");
        response.body_vec(format!("{{\"accepted\":{accepted},\"rejected\":{rejected}}}").into_bytes());
        Ok(())
    }
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', body).chain(std::iter::once(body.len()));
    ends.filter_map(move |end| {
        let line = body.get(begin..end)?;
        begin = end + 1;
        (!line.trim_ascii().is_empty()).then_some(line)
    })
}

struct Inserter {
    client: reqwest::blocking::Client,
    url: reqwest::Url,
    header: Vec<u8>,
}

impl Inserter {
    fn new(clickhouse: &str, table: &str) -> Result<Self, Box<dyn Error>> {
        let mut writer = RowBinaryValueWriter::new(Vec::new(), RowBinaryFormat::RowBinaryWithNamesAndTypes, schema()?);
        writer.write_header()?;
        let columns = COLUMNS.map(|(name, _)| name).join(", ");
        let query = format!("INSERT INTO {table} ({columns}) FORMAT RowBinaryWithNamesAndTypes");
        let settings = [("query", query.as_str()), ("async_insert", "0")];
        let url = reqwest::Url::parse_with_params(clickhouse, settings)?;
        let client = reqwest::blocking::Client::builder().no_proxy().timeout(Duration::from_secs(300)).build()?;
        Ok(Self { client, url, header: writer.into_inner() })
    }

    fn run(&self, receiver: &Receiver<Rows>) {
        while let Ok(mut rows) = receiver.recv() {
            let deadline = Instant::now() + BATCH_AGE;
            let mut body = Vec::with_capacity(BATCH_BYTES + (1 << 20));
            body.extend_from_slice(&self.header);
            let mut count = 0;
            loop {
                body.extend_from_slice(&rows.bytes);
                count += rows.count;
                if count >= BATCH_ROWS || body.len() >= BATCH_BYTES {
                    break;
                }
                let Ok(next) = receiver.recv_deadline(deadline) else { break };
                rows = next;
            }
            if let Err(error) = self.insert(body) {
                eprintln!("{count} rows are lost: {error}");
            }
        }
    }

    fn insert(&self, body: Vec<u8>) -> Result<(), Box<dyn Error>> {
        let response = self.client.post(self.url.clone()).body(body).send()?;
        let succeeded = response.status() == 200;
        let text = response.text()?;
        if succeeded && text.is_empty() { Ok(()) } else { Err(text.into()) }
    }
}
