//! `--engine may`: the same [`Api`] served by `may_minihttp` instead of the own loop. For comparison,
//! and for trusted networks.
//!
//! ```text
//! socket ─▶ may_minihttp ─▶ connection ─▶ station k ═lock-free═▶ committer
//! (a coroutine for each)    one request    api, batch, seats      │
//!      ▲ reply                                 ▲ settler k ◀══════┘
//!      └───────────────◀── unparked ───────────┘
//! ```
//!
//! A coroutine waits where a connection of the own loop would stand in a list; no thread waits with
//! it. A *station* has what a worker has: an api, the batch that fills, the requests that wait. Its
//! connections are those whose descriptors `may` polls on one thread, so that its lock is nearly
//! always free. A coroutine that has put its events into the batch lets all others that are ready run
//! before it hands the batch over: group commit begins here, too. The *settler* is a coroutine that
//! takes the station's batches back and wakes who waits; a thread of its own, the sweeper, wakes it
//! now and then to look at what took too long.
//!
//! # Limits
//!
//! What `may_minihttp` does not do is not done:
//!
//! - A request with more than 16 header fields, or one that it can't parse, ends its connection
//!   without a word. It prints that on the standard error by itself, and where that is a pipe that
//!   nobody reads any more, the process ends.
//! - A client that ends its side of the connection behind a request is no more served than one that
//!   has gone.
//! - It knows no chunked bodies. They are answered 411; where the request is not the first of its
//!   connection, possibly without a word.
//! - It panics where Content-Length is no number, so the head is looked at as strictly as in the own
//!   loop before it is asked for the body; what is refused there ends the connection. But it has
//!   taken line ends away by then: bare LFs pass.
//! - No time-outs, no bound on a head, no `100 Continue`, no bound on connections that send nothing;
//!   a listening socket that can't accept for the want of files tries again without a pause.
//! - Each connection, idle or not, has two buffers of 32 KiB and a stack; they count in no budget.
//! - The requests of one connection are served one behind the other: each pipelined one waits for a
//!   commit of its own, and replies leave when all that was read is served.
//! - A body that comes in one piece, but behind its head, hides what came with it: the client's end,
//!   or more requests than one read takes, are seen when the next bytes come. (A body in pieces does
//!   not, see `Peer::look_again`.)
//! - A reply to HEAD has the length 0, and one of 204 has a length.
//! - It does not close a listening socket. From SIGTERM on every reply is the last of its connection,
//!   and soon every request is answered 503; what is under way when the process ends is cut off.

mod peer;
mod reply;
mod station;

use std::io::{self, BufRead};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use may::coroutine::Coroutine;
use may_minihttp::{BodyReader, HttpService, HttpServiceFactory, Request, Response};

use crate::api::{Api, Fault, Reply, Shed};
use crate::clock::unix_ms;
use crate::connection::{ReplyOptions, write_reply};
use crate::handoff::Mailbox;
use crate::http::{DateCache, Framing, HttpRefusal, Status, accept_head};
use crate::intake::Shared;
use crate::intake::metrics::WorkerMetrics;
use crate::limits;
use peer::Peer;
use station::Station;

/// A coroutine's stack, in words of 8 bytes. The kernel gives the memory of what is used of it; the
/// default of the crate is too little for a parser.
const STACK_WORDS: usize = 64 << 10;

const LENGTH_REQUIRED: Fault =
    Fault::new(Status::LengthRequired, "length_required", "With --engine may a body needs a Content-Length.");

const INCOMPLETE_BODY: Fault =
    Fault::new(Status::BadRequest, "incomplete_body", "The body ended before its Content-Length; nothing is stored.");

/// Which coroutine to wake for a mailbox, once it runs.
type Settler = Arc<OnceLock<Coroutine>>;

/// The stations before they serve.
pub struct Settlers {
    listen: Vec<SocketAddr>,
    settlers: Vec<Settler>,
}

/// The stations while they serve.
pub struct Stations(Vec<Arc<Station>>);

/// Settlers to come, with their mailboxes.
pub fn prepare(listen: &[SocketAddr], workers: usize) -> (Settlers, Vec<Mailbox>) {
    let settlers: Vec<Settler> = (0..workers).map(|_| Settler::default()).collect();
    let mailboxes = settlers.iter().cloned().map(|settler| {
        Mailbox::woken_by(move || {
            if let Some(settler) = settler.get() {
                settler.unpark();
            }
        })
    });
    let mailboxes = mailboxes.collect();
    (Settlers { listen: listen.to_vec(), settlers }, mailboxes)
}

impl Settlers {
    /// Serves on every address, each station with an `api` of its own.
    ///
    /// # Errors
    ///
    /// When an address can't be listened on, or a thread not be started.
    pub fn start(
        self,
        api: impl Fn() -> Api,
        shared: &Arc<Shared>,
        metrics: &[Arc<WorkerMetrics>],
    ) -> io::Result<Stations> {
        tracing::warn!(
            "--engine may is for trusted networks: a request with more than 16 header fields ends its connection \
             without a word, chunked bodies are answered 411, there are no time-outs of connections, no bound on a \
             head and no 100 Continue, and a stop cuts off what is under way at its end, unanswered"
        );
        // To the crate, every connection that ends is an error.
        log::set_max_level(log::LevelFilter::Off);
        may::config().set_workers(self.settlers.len()).set_stack_size(STACK_WORDS).set_worker_pin(true);
        let stations: Vec<Arc<Station>> = (0..)
            .zip(metrics)
            .map(|(index, metrics)| Arc::new(Station::new(index, api(), shared.clone(), metrics.clone())))
            .collect();
        for (station, settler) in stations.iter().cloned().zip(self.settlers) {
            may::go!(move || station.settle_for_ever(&settler));
        }
        let handoff = shared.handoff.clone();
        thread::Builder::new().name("sweeper".into()).spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(limits::SWEEP_MS));
                handoff.wake_workers();
            }
        })?;
        for address in self.listen {
            Connections(stations.clone()).start(address)?;
        }
        Ok(Stations(stations))
    }
}

impl Stations {
    /// True when the server stops and no station takes a request any more.
    pub fn have_ended(&self) -> bool {
        self.0.iter().all(|station| station.is_closed())
    }
}

struct Connections(Vec<Arc<Station>>);

impl HttpServiceFactory for Connections {
    type Service = Connection;

    fn new_service(&self, id: usize) -> Connection {
        let peer = Peer::new(id);
        let ip = peer.as_ref().and_then(Peer::ip);
        // The thread that `may` polls the descriptor on.
        let station = id.checked_rem(self.0.len()).and_then(|index| self.0.get(index)).cloned();
        if let Some(station) = &station {
            station.open.fetch_add(1, Ordering::Relaxed);
        }
        let open: usize = self.0.iter().map(|station| station.open.load(Ordering::Relaxed)).sum();
        Connection {
            too_many: station.as_ref().is_some_and(|station| open > station.shared.connections_max),
            station,
            peer,
            ip: ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            kept: Vec::new(),
            is_first: true,
            ended: false,
        }
    }
}

/// One connection; its requests come one behind the other.
struct Connection {
    /// `None` never: there is at least one.
    station: Option<Arc<Station>>,
    peer: Option<Peer>,
    ip: IpAddr,
    /// A body that did not come with its head.
    kept: Vec<u8>,
    /// Nothing was answered yet, so that no reply of before can be unsent.
    is_first: bool,
    /// The last reply is given: what follows is no request.
    ended: bool,
    /// It is one above `--connections-max`.
    too_many: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(station) = &self.station {
            station.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl HttpService for Connection {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        // The crate answers everything, and by itself with 200.
        response.status_code(Status::BadRequest.code().into(), Status::BadRequest.reason());
        let Some(station) = self.station.clone().filter(|_| !self.ended) else {
            // Behind the last reply.
            return Ok(());
        };
        let head = match accept_head(request.method(), request.path(), request.version(), request.headers()) {
            Ok(head) => head,
            Err(refusal) => return self.refuse(&station, refusal.into(), response, None),
        };
        let (options, route) = (ReplyOptions::of(&head), station.route(&head));
        let length = match head.framing {
            Framing::Chunked => return self.refuse(&station, LENGTH_REQUIRED, response, None),
            Framing::Length(length) => length,
        };
        if length > station.shared.request_limits.body_bytes_max {
            return self.refuse(&station, HttpRefusal::BodyTooLarge.into(), response, Some(request.body()));
        }
        if self.too_many {
            station.shed(Shed::Connections);
            return self.refuse(&station, Shed::Connections.into(), response, Some(request.body()));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut body = request.body();
        let seat = match body.fill_buf() {
            Ok(whole) if whole.len() == length => Some(station.serve(route, whole, options, self.ip)),
            _ => {
                if !station.shared.budget.charge(length) {
                    station.shed(Shed::InFlightBytes);
                    return self.refuse(&station, Shed::InFlightBytes.into(), response, Some(body));
                }
                let whole = gather(&mut body, length, &mut self.kept);
                let seat = whole.then(|| station.serve(route, &self.kept, options, self.ip));
                station.shared.budget.release(length);
                self.kept = Vec::new();
                if let Some(peer) = &self.peer {
                    peer.look_again();
                }
                seat
            }
        };
        let Some(seat) = seat else {
            return self.refuse(&station, INCOMPLETE_BODY, response, Some(body));
        };
        drop(body);
        let (reply, mut options) = station.reply_of(seat);
        options.close |= station.shared.handoff.lifecycle.is_stopping();
        station.count(reply::write(response, &reply, options));
        self.is_first = false;
        if options.close {
            self.end();
        }
        Ok(())
    }
}

impl Connection {
    /// Answers with this and ends the connection; nobody knows where the next request would begin, or
    /// its body is not worth reading.
    ///
    /// `may_minihttp` sends a reply only once it has parsed what is behind the request, and ends the
    /// connection without a word when that is no head: so the first reply of a connection, which can't
    /// overtake another, is sent past it.
    #[cold]
    fn refuse(
        &mut self,
        station: &Station,
        fault: Fault,
        response: &mut Response,
        body: Option<BodyReader<'_, '_>>,
    ) -> io::Result<()> {
        let reply = Reply::Fault(fault);
        let status = reply::write(response, &reply, ReplyOptions::LAST);
        station.count(status);
        if let Some(peer) = self.peer.as_ref().filter(|_| self.is_first) {
            let (mut out, mut date) = (Vec::new(), DateCache::default());
            date.update(unix_ms() / 1000);
            write_reply(&mut out, &reply, ReplyOptions::LAST, &date);
            peer.send_last(&out);
        }
        // Its end reads the body to its end, or the client's: bytes that nobody has read would reset the
        // connection, and take the reply with them.
        drop(body);
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(peer) = &self.peer {
            peer.stop_reading();
        }
    }
}

/// Reads the whole body into `kept`; false when it breaks off.
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
