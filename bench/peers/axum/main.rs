//! A service as it is written today: `axum`, `serde_json`, the official `clickhouse` client.
//!
//! `axum ADDRESS CLICKHOUSE_URL TABLE`
//!
//! A request's lines become structs and go through a bounded channel to the one task that feeds
//! the client's inserter, which streams them and ends an INSERT by rows, bytes or time. The client
//! sends uncompressed, since ClickHouse is on the same machine; the rest is its default.
//!
//! Left out: a disk, repeats of a failed INSERT, reasons of rejected lines, any other table.

#[path = "../client_time.rs"]
mod client_time;

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use clickhouse::inserter::Inserter;
use clickhouse::{Client, Compression, Row};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The size of an INSERT, whichever is first.
const BATCH_ROWS: u64 = 500_000;
const BATCH_BYTES: u64 = 32 << 20;
const BATCH_AGE: Duration = Duration::from_secs(1);

/// Requests that wait for the inserter.
const WAITING_MAX: usize = 1024;
const BODY_BYTES_MAX: usize = 16 << 20;

/// A client's own `ip` and `server_time` are written over.
#[derive(Default, Row, Serialize, Deserialize)]
#[serde(default)]
struct Event {
    #[serde(deserialize_with = "client_time::deserialize")]
    client_time: u32,
    device_id: String,
    device_os: String,
    session: String,
    sequence: i64,
    event: String,
    param_int: i64,
    param_str: String,
    ip: String,
    server_time: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, clickhouse, table] = arguments.as_slice() else {
        return Err("axum ADDRESS CLICKHOUSE_URL TABLE".into());
    };
    let (database, table) = table.split_once('.').ok_or("TABLE is database.table")?;
    let client = Client::default()
        .with_url(clickhouse)
        .with_database(database)
        .with_compression(Compression::None)
        .with_setting("async_insert", "0");
    let (sender, receiver) = channel(WAITING_MAX);
    tokio::spawn(insert(client, table.to_owned(), receiver));
    let routes = Router::new()
        .route("/api/events", post(take))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(sender)
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn take(
    State(sender): State<Sender<Vec<Event>>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    let server_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let server_time = u32::try_from(server_time).unwrap_or(u32::MAX);
    let ip = address.ip().to_string();
    let mut events = Vec::with_capacity(32);
    let mut rejected = 0;
    for line in lines(&body) {
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => events.push(Event { ip: ip.clone(), server_time, ..event }),
            Err(_) => rejected += 1,
        }
    }
    let accepted = events.len();
    if sender.send(events).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let reply = format!("{{\"accepted\":{accepted},\"rejected\":{rejected}}}");
    ([(CONTENT_TYPE, "application/json")], reply).into_response()
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

async fn insert(client: Client, table: String, mut receiver: Receiver<Vec<Event>>) {
    loop {
        let inserter =
            client.inserter(&table).with_max_rows(BATCH_ROWS).with_max_bytes(BATCH_BYTES).with_period(Some(BATCH_AGE));
        // An inserter that failed can't go on.
        match feed(inserter, &mut receiver).await {
            Ok(()) => return,
            Err(error) => eprintln!("the rows of an INSERT are lost: {error}"),
        }
    }
}

async fn feed(mut inserter: Inserter<Event>, receiver: &mut Receiver<Vec<Event>>) -> clickhouse::error::Result<()> {
    loop {
        let time_left = inserter.time_left().unwrap_or(BATCH_AGE);
        match tokio::time::timeout(time_left, receiver.recv()).await {
            Ok(Some(events)) => {
                for event in &events {
                    inserter.write(event).await?;
                }
            }
            Ok(None) => return inserter.end().await.map(drop),
            Err(_) => {}
        }
        inserter.commit().await?;
    }
}
