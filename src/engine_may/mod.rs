//! `--engine may`: the same [`Api`] served by `may_minihttp` instead of `worker`. For comparison, and for
//! trusted networks.
//!
//! ```text
//! socket ─▶ may_minihttp ─▶ connection ─▶ worker k ═lock-free═▶ committer
//! (a coroutine for each)    one request    api, batch, slots      │
//!      ▲ reply                                 ▲ settler k ◀══════┘
//!      └───────────────◀── unparked ───────────┘
//! ```
//!
//! A waiting request parks its coroutine and blocks no thread. A `MayWorker` has the parts of a
//! `worker::Worker`: an API, batches, and the requests that wait for them. Its connections are those
//! whose file descriptors `may` polls on one thread, so that its lock is rarely contended. A coroutine
//! that has added its events to the batch lets all other ready coroutines run before it hands the batch
//! over, so that one batch holds the events of all of them. The *settler* of a worker is a coroutine that
//! takes returned batches and unparks the coroutines that wait for them. One more thread, the sweeper,
//! unparks the settlers every [`limits::SWEEP_MS`] for time-outs.
//!
//! # Limits
//!
//! This engine lacks what `may_minihttp` lacks:
//!
//! - A request with more than 16 header fields, or one that `may_minihttp` can't parse, closes its
//!   connection without a reply. `may_minihttp` prints such an error to standard error; if standard error
//!   is a pipe without a reader, the process ends.
//! - A client that closes its side after a request gets no reply.
//! - Content codings are not supported: 415. A large body is encoded in one go, which holds up the other
//!   coroutines of its thread.
//! - Chunked bodies are not supported. They are answered 411, or not at all if the request is not the
//!   first one of its connection.
//! - `may_minihttp` panics on a Content-Length that is not a number. So the head is checked as strictly
//!   as in `worker` before the body is read, and a refusal closes the connection. Line ends can't be
//!   checked any more: a bare LF is accepted.
//! - There are no time-outs, no limit on the size of a head, no `100 Continue`, and no limit on
//!   connections that send nothing. A listener that can't accept for lack of file descriptors retries
//!   without a pause.
//! - `--body-rate-min` is not applied, and no idle connection is closed for a new one.
//! - Each connection, even an idle one, has two buffers of 32 KiB and a stack, which count in no budget.
//! - The requests of one connection are served one after the other: each pipelined request waits for a
//!   commit of its own, and replies are sent when all requests that were read are served.
//! - If a body arrives in one piece after its head, an end of input or further requests that arrived with
//!   it are noticed only with the next bytes. (For a body in several pieces, `Peer::report_again` prevents
//!   this.)
//! - A reply to HEAD has the Content-Length 0, and a 204 has a Content-Length.
//! - Listeners are not closed. After SIGTERM every reply closes its connection, and after
//!   [`limits::STOPPING_IDLE_MS`] requests with events are answered 503. Requests under way when the
//!   process ends get no reply.

mod may_worker;
mod peer;
mod reply;

use std::io::{self, BufRead};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use may::coroutine::Coroutine;
use may_minihttp::{BodyReader, HttpService, HttpServiceFactory, Request, Response};

use crate::api::{Api, Fault, Reply, Shed};
use crate::clock::unix_ms;
use crate::connection::{Client, ReplyOptions, write_reply};
use crate::handoff::Mailbox;
use crate::http::{DateCache, Framing, HttpRefusal, Status, accept_head};
use crate::intake::Shared;
use crate::intake::budget::Size;
use crate::intake::metrics::WorkerMetrics;
use crate::limits;
use may_worker::MayWorker;
use peer::Peer;

/// The size of a coroutine's stack, in words of 8 bytes. The kernel allocates only the pages that are used.
/// The default of `may` is too small for a parser.
const STACK_WORDS: usize = 64 << 10;

const LENGTH_REQUIRED: Fault =
    Fault::new(Status::LengthRequired, "length_required", "With --engine may a body needs a Content-Length.");

const INCOMPLETE_BODY: Fault =
    Fault::new(Status::BadRequest, "incomplete_body", "The body ended before its Content-Length; nothing is stored.");

/// The coroutine to unpark for a mailbox; empty until the coroutine runs.
type Settler = Arc<OnceLock<Coroutine>>;

/// The engine before it is started: the addresses and the settlers.
pub struct Settlers {
    listen: Vec<SocketAddr>,
    settlers: Vec<Settler>,
}

/// The workers of the running engine.
pub struct MayWorkers(Vec<Arc<MayWorker>>);

/// Prepares the engine with so many batches for each worker, and returns the mailboxes that wake its
/// settlers.
pub fn prepare(listen: &[SocketAddr], workers: usize, batches: usize) -> (Settlers, Vec<Mailbox>) {
    let settlers: Vec<Settler> = (0..workers).map(|_| Settler::default()).collect();
    let mailboxes = settlers.iter().cloned().map(|settler| {
        Mailbox::woken_by(move || {
            if let Some(settler) = settler.get() {
                settler.unpark();
            }
        })
        .with_batches(batches)
    });
    let mailboxes = mailboxes.collect();
    (Settlers { listen: listen.to_vec(), settlers }, mailboxes)
}

impl Settlers {
    /// Starts serving on every address; each worker gets its own `api`.
    ///
    /// # Errors
    ///
    /// When an address can't be listened on, or a thread can't be started.
    pub fn start(
        self,
        api: impl Fn(&WorkerMetrics) -> Api,
        shared: &Arc<Shared>,
        metrics: &[Arc<WorkerMetrics>],
        pinned: bool,
    ) -> io::Result<MayWorkers> {
        tracing::warn!(
            "--engine may is for trusted networks: a request with more than 16 header fields closes its connection \
             without a reply, chunked bodies are answered 411, there are no time-outs of connections, no limit on the \
             size of a head and no 100 Continue, and requests under way at the end of a stop get no reply"
        );
        // `may_minihttp` logs the end of every connection as an error.
        log::set_max_level(log::LevelFilter::Off);
        may::config().set_workers(self.settlers.len()).set_stack_size(STACK_WORDS).set_worker_pin(pinned);
        let workers: Vec<Arc<MayWorker>> = (0..)
            .zip(metrics)
            .map(|(index, metrics)| Arc::new(MayWorker::new(index, api(metrics), shared.clone(), metrics.clone())))
            .collect();
        for (worker, settler) in workers.iter().cloned().zip(self.settlers) {
            may::go!(move || worker.run_settler(&settler));
        }
        let handoff = shared.handoff.clone();
        thread::Builder::new().name("sweeper".into()).spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(limits::SWEEP_MS));
                handoff.wake_workers();
            }
        })?;
        for address in self.listen {
            Connections(workers.clone()).start(address)?;
        }
        Ok(MayWorkers(workers))
    }
}

impl MayWorkers {
    /// True when the server stops and no worker accepts events any more.
    pub fn have_ended(&self) -> bool {
        self.0.iter().all(|worker| worker.is_closed())
    }
}

/// The factory of connections.
struct Connections(Vec<Arc<MayWorker>>);

impl HttpServiceFactory for Connections {
    type Service = Connection;

    fn new_service(&self, id: usize) -> Connection {
        let peer = Peer::new(id);
        let ip = peer.as_ref().and_then(Peer::ip);
        // `may` polls a file descriptor on the thread of this index.
        let worker = id.checked_rem(self.0.len()).and_then(|index| self.0.get(index)).cloned();
        if let Some(worker) = &worker {
            worker.open.fetch_add(1, Ordering::Relaxed);
        }
        let open: usize = self.0.iter().map(|worker| worker.open.load(Ordering::Relaxed)).sum();
        Connection {
            too_many: worker.as_ref().is_some_and(|worker| open > worker.shared.connections_max),
            worker,
            peer,
            ip,
            kept: Vec::new(),
            is_first: true,
            is_head: false,
            ended: false,
        }
    }
}

/// One connection. `may_minihttp` passes its requests one after the other.
struct Connection {
    /// Never `None`, because there is at least one worker.
    worker: Option<Arc<MayWorker>>,
    peer: Option<Peer>,
    ip: Option<IpAddr>,
    /// The received part of a body that did not arrive with its head.
    kept: Vec<u8>,
    /// No request was answered yet, so no earlier reply can be unsent.
    is_first: bool,
    /// The request's method is HEAD: a refusal has no content, either.
    is_head: bool,
    /// The last reply was given: further requests are not served.
    ended: bool,
    /// The connection exceeds `--connections-max`.
    too_many: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl HttpService for Connection {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        // `may_minihttp` sends a response to every call, by default with the status 200.
        response.status_code(Status::BadRequest.code().into(), Status::BadRequest.reason());
        let Some(worker) = self.worker.clone().filter(|_| !self.ended) else {
            // The request came after one whose reply was the last: it is not served.
            return Ok(());
        };
        self.is_head = request.method() == "HEAD";
        let head = match accept_head(request.method(), request.path(), request.version(), request.headers()) {
            Ok(head) => head,
            Err(refusal) => return self.refuse(&worker, refusal.into(), response, None),
        };
        let options = ReplyOptions::of(&head);
        let (route, values) = worker.route(&head);
        let client = Client { address: self.ip, values: values.as_ref() };
        let length = match head.framing {
            Framing::Chunked => return self.refuse(&worker, LENGTH_REQUIRED, response, None),
            Framing::Length(length) => length,
        };
        if length > worker.shared.request_limits.body_bytes_max {
            return self.refuse(&worker, HttpRefusal::BodyTooLarge.into(), response, Some(request.body()));
        }
        if self.too_many {
            worker.shed(Shed::Connections);
            return self.refuse(&worker, Shed::Connections.into(), response, Some(request.body()));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut body = request.body();
        let pending = match body.fill_buf() {
            Ok(whole) if whole.len() == length => Some(worker.serve(route, whole, options, client)),
            _ => {
                let mut charge = worker.shared.budget.open(self.ip);
                if !charge.grow(length, Size::of(length)) {
                    worker.shed(Shed::InFlightBytes);
                    return self.refuse(&worker, Shed::InFlightBytes.into(), response, Some(body));
                }
                let whole = gather(&mut body, length, &mut self.kept);
                let pending = whole.then(|| worker.serve(route, &self.kept, options, client));
                drop(charge);
                self.kept = Vec::new();
                if let Some(peer) = &self.peer {
                    peer.report_again();
                }
                pending
            }
        };
        let Some(pending) = pending else {
            return self.refuse(&worker, INCOMPLETE_BODY, response, Some(body));
        };
        drop(body);
        let (reply, mut options) = worker.reply_of(pending);
        options.close |= worker.shared.handoff.lifecycle.is_stopping();
        worker.count(reply::write(response, &reply, options));
        self.is_first = false;
        if options.close {
            self.end();
        }
        Ok(())
    }
}

impl Connection {
    /// Answers with an error and closes the connection, because the start of the next request is unknown,
    /// or the body is not worth reading.
    ///
    /// `may_minihttp` sends a response only after it has parsed the input after the request, and closes
    /// the connection without the response when that input is not a head. So the first reply of a
    /// connection, which can't overtake another one, is sent directly to the socket.
    #[cold]
    fn refuse(
        &mut self,
        worker: &MayWorker,
        fault: Fault,
        response: &mut Response,
        body: Option<BodyReader<'_, '_>>,
    ) -> io::Result<()> {
        let reply = Reply::Fault(fault);
        let options = ReplyOptions { head_only: self.is_head, ..ReplyOptions::LAST };
        let status = reply::write(response, &reply, options);
        worker.count(status);
        if let Some(peer) = self.peer.as_ref().filter(|_| self.is_first) {
            let (mut out, mut date) = (Vec::new(), DateCache::default());
            date.update(unix_ms() / 1000);
            write_reply(&mut out, &reply, options, &date, |_, _| {});
            peer.send_last(&out);
        }
        // Dropping the reader reads the rest of the body. Closing a socket with unread input would send a
        // reset, which may destroy the reply.
        drop(body);
        self.end();
        Ok(())
    }

    /// Ends the connection after the reply that was given.
    fn end(&mut self) {
        self.ended = true;
        if let Some(peer) = &self.peer {
            peer.stop_reading();
        }
    }
}

/// Reads a body of `length` bytes into `kept`. Returns false when the input ends before.
fn gather(body: &mut BodyReader<'_, '_>, length: usize, kept: &mut Vec<u8>) -> bool {
    while kept.len() < length {
        let Ok(piece) = body.fill_buf() else { return false };
        let read = piece.len();
        if read == 0 {
            return false;
        }
        kept.extend_from_slice(piece);
        body.consume(read);
    }
    true
}
