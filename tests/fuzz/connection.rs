//! A whole connection: whatever arrives in whatever pieces, it keeps no more than a request, serves
//! the same requests and writes the same replies as if all had come at once, in the order of the
//! requests, and nothing behind the one that closes. What is wrong with a request may be said in
//! other words: where several things are, the pieces decide which is seen first.
//!
//! The input says how it is cut, in which order batches are decided, when there is no room, which requests
//! take several turns, and then what arrives.

#![no_main]

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use sluicegate::api::cors::Cors;
use sluicegate::api::{Ack, Answer, Fault, IngestOptions, Rendering, Reply, ReplyFields, RequestIds, Route, Shed};
use sluicegate::batch::{BlockNumber, CommitRefusal, SegmentNumber, Sequence};
use sluicegate::connection::{Client, Committed, Connection, RequestLimits, Served, Service, Unfinished};
use sluicegate::http::{CONTINUE, DateCache, Head, HeadLimits, Method, Status, client_address};

const LIMITS: RequestLimits =
    RequestLimits { head: HeadLimits { head_bytes_max: 512, headers_max: 8 }, body_bytes_max: 128, requests_max: None };

/// The most that a request may be, so the most that is kept of one.
const KEPT_MAX: usize = LIMITS.head.head_bytes_max + LIMITS.body_bytes_max as usize;

const NOT_FOUND: Fault = Fault::new(Status::NotFound, "not_found", "Nothing here.");

/// Serves by noting what it is asked; each reply says the how-many-th request it belongs to.
#[derive(Default)]
struct Recorder {
    served: Vec<(Route, Option<IpAddr>, Vec<u8>)>,
    /// Batches that are not decided yet.
    undecided: Vec<Sequence>,
    heads: Cell<usize>,
    /// The last head asked for the end of the connection.
    is_last: Cell<bool>,
    /// A client asked for leave to send what is refused: how it is told depends on what is here.
    is_told_at_once: Cell<bool>,
    /// A bit for each time that it is asked for room: is there none?
    full: u8,
    /// A bit for each time that it is asked to serve: does it need another turn?
    long: u8,
    turns: u32,
    asked: Cell<u32>,
}

impl Service for Recorder {
    fn route(&self, head: &Head<'_>) -> Route {
        assert!(!self.is_last.replace(!head.keep_alive), "a head is read behind the last request");
        self.heads.set(self.heads.get() + 1);
        match (head.path, head.method) {
            ("/api/events", Method::Post) => {
                let ack = if head.query.contains("inserted") { Ack::Inserted } else { Ack::Disk };
                Route::Events(IngestOptions { ack, ..IngestOptions::default() })
            }
            ("/api/events", Method::Options) => Route::Options("POST, OPTIONS"),
            ("/health", _) => Route::Health,
            _ => {
                self.is_told_at_once.set(self.is_told_at_once.get() || head.expect_continue);
                Route::Refuse(NOT_FOUND)
            }
        }
    }

    fn client_address(&self, head: &Head<'_>) -> Option<IpAddr> {
        client_address(head, None, |address| address.is_loopback())
    }

    fn has_room(&self, _bytes: usize) -> bool {
        let asked = self.asked.replace(self.asked.get() + 1);
        // Never seven times in a row.
        self.full & 0x7f & (1 << (asked % 8)) == 0
    }

    fn fields(&self, origin: Option<&[u8]>, request_id: Option<&[u8]>) -> ReplyFields {
        ReplyFields::new(&Cors::default(), origin, request_id)
    }

    fn serve(&mut self, route: Route, client: Client<'_>, body: &[u8], _: &mut ReplyFields) -> Served {
        self.turns += 1;
        // Never seven times in a row.
        if self.long & 0x7f & (1 << (self.turns % 8)) != 0 {
            return Served::Unfinished(if self.turns % 2 == 0 { Unfinished::NextTurn } else { Unfinished::InLine });
        }
        self.served.push((route, client.address, body.to_vec()));
        let number = self.served.len() as u32;
        Served::Answered(match route {
            Route::Events(options) => {
                let sequence = Sequence::new(number.into());
                self.undecided.push(sequence);
                Answer::AfterCommit { reply: Reply::Accepted(number), sequence, keyed: None, ack: options.ack }
            }
            Route::Options(methods) | Route::Preflight(methods) => Answer::Now(Reply::Allow(methods)),
            _ => Answer::Now(Reply::Json(Status::Ok, format!("{{\"accepted\":{number},").into())),
        })
    }
}

/// What came of an input.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    served: Vec<(Route, Option<IpAddr>, Vec<u8>)>,
    replies: String,
    was_refused: bool,
    is_finished: bool,
}

/// A connection and what it has written.
struct Side {
    connection: Connection,
    service: Recorder,
    out: Vec<u8>,
    order: u8,
    ids: RequestIds,
}

impl Side {
    /// As a worker does: what is kept stands in front of the next piece, and nothing is read while
    /// there is no room.
    fn feed<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) {
        let mut kept = Vec::new();
        for piece in pieces {
            kept.extend_from_slice(piece);
            loop {
                let (was_over, heads) = (self.is_over(), self.service.heads.get());
                let received = self.connection.receive(&mut kept, &LIMITS, &mut self.service);
                kept = kept[received.kept].to_vec();
                assert!(!was_over || self.service.heads.get() == heads, "a head is read behind the end");
                assert!(received.expected <= KEPT_MAX, "{} bytes are expected", received.expected);
                self.decide_one();
                if !self.connection.is_paused() {
                    break;
                }
            }
            assert!(kept.len() <= KEPT_MAX, "{} bytes are kept", kept.len());
            self.render();
        }
    }

    fn is_over(&self) -> bool {
        self.connection.is_closing() || self.connection.is_finished()
    }

    /// Decides any one of the batches; what is decided depends on the batch alone.
    fn decide_one(&mut self) {
        let undecided = &mut self.service.undecided;
        if !undecided.is_empty() {
            self.order = self.order.wrapping_mul(5).wrapping_add(1);
            let sequence = undecided.swap_remove(usize::from(self.order) % undecided.len());
            let (number, block) = (sequence.get(), BlockNumber::first(SegmentNumber::new(sequence.get())));
            let outcome = match number % 4 {
                0 => Err(Shed::Commit(CommitRefusal::DiskFull).into()),
                1 => Ok(Committed { block: None, certain: true, until: Instant::now(), first: None }),
                _ => Ok(Committed { block: Some(block), certain: number % 4 == 2, until: Instant::now(), first: None }),
            };
            if !self.connection.replies().settle(sequence, |_| outcome).is_empty() {
                self.connection.replies().inserted(block);
            }
        }
        self.render();
    }

    fn render(&mut self) {
        let (was_finished, before) = (self.connection.is_finished(), self.out.len());
        let (date, cors) = (DateCache::default(), Cors::default());
        let with = Rendering { date: &date, cors: &cors, ids: &self.ids };
        self.connection.render(&mut self.out, &with, false, |_| {});
        assert!(!was_finished || self.out.len() == before, "a reply leaves behind the last one");
    }

    fn end(mut self) -> (Outcome, bool) {
        while !self.service.undecided.is_empty() {
            self.decide_one();
        }
        let replies = String::from_utf8(self.out.clone()).expect("replies are text");
        let interim = std::str::from_utf8(CONTINUE).expect("it is text");
        let replies = replies.replace(interim, "");
        let numbers = replies.split("\"accepted\":").skip(1).map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().expect("a number")
        });
        assert!(numbers.is_sorted_by(|one, next| one < next), "replies are out of order: {replies}");
        let was_refused = self.connection.may_have_more_input();
        let refusal = ["HTTP/1.1 4", "HTTP/1.1 5"].iter().filter_map(|status| replies.rfind(status)).max();
        assert!(!was_refused || refusal.is_some(), "a refusal is not said: {replies}");
        let told = refusal.filter(|_| was_refused).unwrap_or(replies.len());
        let outcome = Outcome {
            served: self.service.served.clone(),
            replies: replies[..told].to_owned(),
            was_refused,
            is_finished: self.connection.is_finished(),
        };
        // The peer has sent all, and has every reply: nothing is left to do.
        self.connection.end_of_input();
        self.render();
        assert!(self.connection.is_finished(), "it waits for nothing");
        (outcome, self.service.is_told_at_once.get())
    }
}

fn run<'a>(order: u8, full: u8, long: u8, pieces: impl Iterator<Item = &'a [u8]>) -> (Outcome, bool) {
    let service = Recorder { full, long, ..Recorder::default() };
    let mut side =
        Side { connection: Connection::default(), service, out: Vec::new(), order, ids: RequestIds::seeded(0) };
    side.feed(pieces);
    side.end()
}

fuzz_target!(|input: &[u8]| {
    let [order, full, long, cuts, input @ ..] = input else { return };
    let Some((sizes, bytes)) = input.split_at_checked(usize::from(cuts % 16)) else { return };
    let mut sizes = sizes.iter().cycle();
    // What is wrong with a line is said at its end at the latest.
    let bytes = [bytes, b"\r\n"].concat();
    let mut rest = &bytes[..];
    let pieces = std::iter::from_fn(|| {
        let len = sizes.next().map_or(usize::MAX, |size| usize::from(*size) + 1).min(rest.len());
        let (piece, behind) = rest.split_at(len);
        rest = behind;
        Some(piece).filter(|piece| !piece.is_empty())
    });
    let (parts, is_told_at_once) = run(*order, *full, *long, pieces);
    let (whole, is_told_at_once_whole) = run(0, 0, 0, std::iter::once(&bytes[..]));
    if !is_told_at_once && !is_told_at_once_whole {
        assert_eq!(parts, whole);
    }
});
