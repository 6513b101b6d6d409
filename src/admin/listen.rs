//! The admin address's connections: one request on each.
//!
//! One thread polls all of them and waits for nobody: it reads heads, answers `/livez`, and hands every
//! other request to a thread of its own. A connection that does not send its head has a place here and
//! no thread; when places run out, the one that has waited longest is closed. A connection whose reply
//! is sent lingers here too.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::linger::Lingerers;
use super::{Admin, Page, health, live, replay, response};
use crate::api::Fault;
use crate::http::{self, HeadLimits, Method, Parsed, Status};
use crate::limits;

const HEAD_BYTES_MAX: usize = 16 << 10;
/// From a connection to the end of its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a client to take one piece of a page, and the whole of it.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the whole body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries to accept where the system refuses to.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const LISTENER: Token = Token(0);

/// A connection whose request is not read yet.
struct Pending {
    token: Token,
    stream: TcpStream,
    input: Vec<u8>,
    since: Instant,
}

/// What a request may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `/livez`: nothing.
    Live,
    /// Its client.
    Plain,
    /// ClickHouse.
    ClickHouse,
    /// What comes, for as long as its client reads.
    Stream,
}

/// What became of reading from a connection.
enum Next {
    Wait,
    Close,
    /// The head is there.
    Request {
        page: Kind,
        head_only: bool,
    },
    Refuse {
        page: Page,
        head_only: bool,
    },
}

impl Admin {
    /// Serves until the process ends.
    ///
    /// # Errors
    ///
    /// When the system refuses what it takes to wait for connections.
    pub fn run(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let looking = self.clone();
        let spawned = thread::Builder::new().name("series".into()).spawn(move || looking.series.run(&looking));
        if let Err(error) = spawned {
            tracing::warn!(%error, "the last minute can't be recorded: a thread can't be started");
        }
        listener.set_nonblocking(true)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (answered, done) = channel::unbounded();
        let mut place = Place {
            admin: self,
            poll,
            pending: VecDeque::new(),
            lingerers: Lingerers::default(),
            tokens: 0,
            busy: Arc::default(),
            streams: Arc::default(),
            answered,
            done,
        };
        let mut events = Events::with_capacity(limits::ADMIN_CONNECTIONS_MAX);
        loop {
            match place.poll.poll(&mut events, Some(ACCEPT_PAUSE)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            // Where accepting failed, the edge is gone: it is tried each time.
            place.accept_all(&listener);
            for event in events.iter().filter(|event| event.token() != LISTENER) {
                place.lingerers.discard(event.token());
                place.read(event.token());
            }
            // The pause between two polls is short enough for these: their replies are sent.
            while let Ok(stream) = place.done.try_recv() {
                place.linger(stream);
            }
            place.close_late();
        }
    }
}

/// The polling thread's own.
struct Place {
    admin: Arc<Admin>,
    poll: Poll,
    /// The longest waiting first.
    pending: VecDeque<Pending>,
    lingerers: Lingerers,
    tokens: usize,
    /// Requests that a thread serves.
    busy: Arc<AtomicUsize>,
    /// Those that watch.
    streams: Arc<AtomicUsize>,
    /// Where a thread puts the connection of a request that is answered.
    answered: Sender<TcpStream>,
    done: Receiver<TcpStream>,
}

impl Place {
    fn accept_all(&mut self, listener: &mio::net::TcpListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the admin address can't be accepted");
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream) {
        self.make_room();
        let token = self.next_token();
        if self.poll.registry().register(&mut stream, token, Interest::READABLE).is_ok() {
            self.pending.push_back(Pending { token, stream, input: Vec::new(), since: Instant::now() });
            self.read(token);
        }
    }

    fn next_token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// Closes a connection if there are as many as may be: the oldest whose reply is sent, else the one
    /// that has waited longest.
    fn make_room(&mut self) {
        if self.pending.len() + self.lingerers.len() >= limits::ADMIN_CONNECTIONS_MAX && !self.lingerers.close_oldest()
        {
            self.pending.pop_front();
        }
    }

    fn linger(&mut self, stream: TcpStream) {
        self.make_room();
        let token = self.next_token();
        self.lingerers.take(stream, token, self.poll.registry());
    }

    fn close_late(&mut self) {
        self.lingerers.close_late(Instant::now());
        while self.pending.pop_front_if(|pending| pending.since.elapsed() > HEAD_TIMEOUT).is_some() {}
    }

    fn read(&mut self, token: Token) {
        let Some(index) = self.pending.iter().position(|pending| pending.token == token) else {
            return;
        };
        let next = self.pending.get_mut(index).map_or(Next::Close, |pending| pending.read(&self.admin));
        if matches!(next, Next::Wait) {
            return;
        }
        let Some(mut pending) = self.pending.remove(index) else {
            return;
        };
        let _ = self.poll.registry().deregister(&mut pending.stream);
        match next {
            Next::Wait | Next::Close => {}
            Next::Refuse { page, head_only } => self.send_at_once(pending, &page, head_only),
            Next::Request { page: Kind::Live, head_only } => {
                let page = health::live(&self.admin.workers, &self.admin.spool);
                self.send_at_once(pending, &page, head_only);
            }
            Next::Request { page, head_only } => self.hand_over(pending, page, head_only),
        }
    }

    /// Sends what fits into an empty socket's buffer, as each of these replies does.
    fn send_at_once(&mut self, mut pending: Pending, page: &Page, head_only: bool) {
        if pending.stream.write(&response(page, head_only)).is_ok() {
            self.linger(pending.stream);
        }
    }

    fn hand_over(&mut self, pending: Pending, page: Kind, head_only: bool) {
        let (busy, most) = match page {
            // Those who watch take no place of a request that ends.
            Kind::Stream => (&self.streams, limits::LIVE_WATCHERS_MAX),
            // A ClickHouse that hangs leaves half of them to metrics and health.
            Kind::ClickHouse => (&self.busy, limits::ADMIN_REQUESTS_MAX / 2),
            Kind::Live | Kind::Plain => (&self.busy, limits::ADMIN_REQUESTS_MAX),
        };
        let busy = busy.clone();
        if busy.fetch_add(1, Ordering::Relaxed) >= most {
            busy.fetch_sub(1, Ordering::Relaxed);
            let message = "Too many requests of this address are under way; try again later.";
            let page = Page::fault(Status::ServiceUnavailable, "busy", message);
            return self.send_at_once(pending, &page, head_only);
        }
        let (admin, answered, place) = (self.admin.clone(), self.answered.clone(), busy.clone());
        let spawned = thread::Builder::new().name("admin-request".into()).spawn(move || {
            // A peer that went away is no news.
            if let Ok(stream) = pending.serve(&admin) {
                let _ = answered.send(stream);
            }
            busy.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            place.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Pending {
    fn read(&mut self, admin: &Admin) -> Next {
        let mut space = [0; 4096];
        loop {
            match self.stream.read(&mut space) {
                Ok(0) => return Next::Close,
                Ok(len) => self.input.extend_from_slice(space.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
                Err(_) => return Next::Close,
            }
            let parsed = with_head(&self.input, |head| {
                let (reads, head_only) =
                    (matches!(head.method, Method::Get | Method::Head), head.method == Method::Head);
                if let Some(page) = admin.access.refusal(head) {
                    return Next::Refuse { page, head_only };
                }
                let page = match http::plain_path(head.path).as_ref() {
                    health::LIVE_PATH if reads => Kind::Live,
                    path if reads && live::is_path(&admin.tables, path) => Kind::Stream,
                    path if path.starts_with("/api/") => Kind::ClickHouse,
                    _ => Kind::Plain,
                };
                Next::Request { page, head_only }
            });
            match parsed {
                Parsed::Done(next) => return next,
                Parsed::Refused(refusal) => {
                    let Fault { status, code, message, .. } = refusal.into();
                    return Next::Refuse { page: Page::fault(status, code, message), head_only: false };
                }
                Parsed::NeedMore => {}
            }
        }
    }

    /// Answers the request, on a thread that may wait, and shuts the server's side of the connection.
    fn serve(mut self, admin: &Admin) -> io::Result<TcpStream> {
        let mut stream = std::net::TcpStream::from(self.stream);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PIECE_TIMEOUT))?;
        stream.set_write_timeout(Some(PIECE_TIMEOUT))?;
        let Parsed::Done(len) = with_head(&self.input, request_len) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        read_to(&mut stream, &mut self.input, len)?;
        let watched = with_head(&self.input, |head| live::wanted(admin, head));
        if let Parsed::Done(Some(wanted)) = watched {
            live::serve(admin, wanted, &mut stream)?;
            return ended(stream);
        }
        let page = with_head(&self.input, |head| {
            let body = self.input.get(head.len..len).unwrap_or_default();
            (admin.page(head, body), head.method == Method::Head)
        });
        let Parsed::Done((page, head_only)) = page else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let deadline = Instant::now() + PAGE_TIMEOUT;
        let bytes = response(&page, head_only);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && Instant::now() < deadline {
            match stream.write(rest) {
                Ok(0) => break,
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !rest.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        ended(stream)
    }
}

/// Shuts the server's side of a connection, whose client sees the end of the reply before the polling thread looks
/// at the connection again.
fn ended(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

/// Bytes of the head, and of the body where the path takes one.
fn request_len(head: &http::Head<'_>) -> usize {
    let takes_body = head.method == Method::Post && http::plain_path(head.path) == replay::PATH;
    head.len + if takes_body { replay::body_len(head).unwrap_or(0) } else { 0 }
}

/// Reads until `input` has `len` bytes.
fn read_to(stream: &mut std::net::TcpStream, input: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut space = [0; 16 << 10];
    while input.len() < len {
        match stream.read(&mut space) {
            _ if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => input.extend_from_slice(space.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn with_head<T>(input: &[u8], found: impl FnOnce(&http::Head<'_>) -> T) -> Parsed<T> {
    let limits = HeadLimits { head_bytes_max: HEAD_BYTES_MAX, headers_max: limits::HEADERS_MAX };
    let mut slots = http::NO_HEADERS;
    match http::parse_head(input, &limits, &mut slots) {
        Parsed::Done(head) => Parsed::Done(found(&head)),
        Parsed::NeedMore => Parsed::NeedMore,
        Parsed::Refused(refusal) => Parsed::Refused(refusal),
    }
}
