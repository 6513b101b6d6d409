//! The admin address: metrics and statistics, health, version, and the newest events from ClickHouse.
//!
//! The admin address has its own thread, which may block; it has no part in the path of an event.
//! Each connection serves one request on a short-lived thread, so that a slow client does not delay
//! the health probe of an orchestrator.

mod browser;
mod events;
mod health;
mod metrics;
mod requeue;
mod series;
mod stats;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::api::Fault;
use crate::batch::SegmentNumber;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::metrics::InsertMetrics;
use crate::clickhouse::name::TableName;
use crate::clock::unix_ms;
use crate::http::{self, DateCache, Head, HeadLimits, Method, Parsed, Status};
use crate::intake::health::Health;
use crate::intake::metrics::WorkerMetrics;
use crate::limits;
use crate::spool::{Orders, SpoolMetrics};

pub use series::Series;

/// A function that makes one segment, or all of them, due now with an operator's orders. Returns how
/// many segments that were.
pub type Requeue = Box<dyn Fn(Option<SegmentNumber>, Orders) -> usize + Send + Sync>;

/// The state that the admin address shows.
pub struct Admin {
    /// Whether an event would be taken now.
    pub health: Arc<Health>,
    /// The metrics of each worker.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// The metrics of the spool.
    pub spool: Arc<SpoolMetrics>,
    /// The metrics of the inserters.
    pub inserts: Arc<InsertMetrics>,
    /// The servers that have the events.
    pub clickhouse: Vec<ClickHouse>,
    /// The target table.
    pub table: TableName,
    /// Requeues segments; set once the inserters run.
    pub requeue: OnceLock<Requeue>,
    /// The time series of the last minute.
    pub series: Series,
}

/// The most concurrent requests; a further connection is closed without a reply.
const REQUESTS_MAX: usize = 16;
const HEAD_BYTES_MAX: usize = 16 << 10;
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// The reply to a request.
struct Page {
    status: Status,
    content_type: &'static str,
    body: String,
    /// The methods of the path, if it lacks the one of the request.
    allow: Option<&'static str>,
}

impl Page {
    fn json(status: Status, body: String) -> Self {
        Self { status, content_type: "application/json", body, allow: None }
    }

    fn only(allow: &'static str) -> Self {
        let message = "The path does not have this method; see Allow.";
        Self { allow: Some(allow), ..Self::fault(Status::MethodNotAllowed, "method_not_allowed", message) }
    }

    fn fault(status: Status, code: &'static str, message: &str) -> Self {
        let message = sonic_rs::to_string(message).unwrap_or_default();
        Self::json(status, format!("{{\"error\":\"{code}\",\"message\":{message}}}"))
    }
}

impl Admin {
    /// Serves until the process ends.
    pub fn run(self: Arc<Self>, listener: TcpListener) {
        let sampled = self.clone();
        let spawned = thread::Builder::new().name("series".into()).spawn(move || sampled.series.run(&sampled));
        if let Err(error) = spawned {
            tracing::warn!(%error, "the time series of /stats can't be recorded: a thread can't be started");
        }
        let busy = Arc::new(AtomicUsize::new(0));
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.clone().spawn(stream, &busy),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin address can't be accepted");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn spawn(self: Arc<Self>, stream: TcpStream, busy: &Arc<AtomicUsize>) {
        if busy.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            busy.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let counter = busy.clone();
        let spawned = thread::Builder::new().name("admin-request".into()).spawn(move || {
            // A client that disconnects is not worth a log message.
            let _ = self.serve(stream);
            counter.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SOCKET_TIMEOUT))?;
        stream.set_write_timeout(Some(SOCKET_TIMEOUT))?;
        let mut input = Vec::with_capacity(1024);
        let mut space = [0; 4096];
        loop {
            let limits = HeadLimits { head_bytes_max: HEAD_BYTES_MAX, headers_max: limits::HEADERS_MAX };
            let mut slots = http::NO_HEADERS;
            match http::parse_head(&input, &limits, &mut slots) {
                Parsed::Done(head) => {
                    let page = self.page(&head);
                    return respond(&mut stream, &page, head.method == Method::Head);
                }
                Parsed::Refused(refusal) => {
                    let fault = Fault::from(refusal);
                    return respond(&mut stream, &Page::fault(fault.status, fault.code, fault.message), false);
                }
                Parsed::NeedMore => {}
            }
            let len = stream.read(&mut space)?;
            if len == 0 {
                return Ok(());
            }
            input.extend_from_slice(space.get(..len).unwrap_or_default());
        }
    }

    fn page(&self, head: &Head<'_>) -> Page {
        let reads = matches!(head.method, Method::Get | Method::Head);
        if !reads && browser::is_cross_site(head) {
            let message = "A page of another origin may not change anything here.";
            return Page::fault(Status::Forbidden, "cross_site", message);
        }
        let path = http::plain_path(head.path);
        let page: fn(&Self, &str) -> Page = match path.as_ref() {
            requeue::PATH => return requeue::page(self, head.method, head.query),
            "/livez" => |admin, _| health::live(&admin.workers, &admin.spool),
            "/readyz" | "/healthz" | "/health" | "/ping" => |admin, _| health::ready(admin),
            "/metrics" => |admin, _| metrics::page(admin),
            "/stats" => |admin, _| stats::page(admin),
            "/version" => |_, _| version(),
            path => match path.strip_prefix("/api/") {
                Some(table) if table == self.table.table || table == "events" => events::page,
                _ => return Page::fault(Status::NotFound, "not_found", "There is nothing at this path."),
            },
        };
        if reads { page(self, head.query) } else { Page::only("GET, HEAD") }
    }
}

fn version() -> Page {
    Page::json(
        Status::Ok,
        format!(
            "{{\"name\":\"sluicegate\",\"version\":\"{}\",\"arch\":\"{}\",\"os\":\"{}\"}}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS
        ),
    )
}

fn respond(stream: &mut TcpStream, page: &Page, head_only: bool) -> io::Result<()> {
    let mut date = DateCache::default();
    date.update(unix_ms() / 1000);
    let allow = page.allow.map(|methods| ("Allow", methods));
    let response = http::Response {
        content_type: page.content_type,
        close: true,
        head_only,
        extra: allow.as_slice(),
        ..http::Response::new(page.status, page.body.as_bytes())
    };
    let mut out = Vec::with_capacity(page.body.len() + 256);
    response.append_to(&mut out, &date);
    stream.write_all(&out)
}
