//! Tests of the state machine. An input split at any byte gives the same requests and replies.

use std::time::Instant;

use super::*;
use crate::api::cors::Cors;
use crate::api::{Ack, IngestOptions, RequestIds, Shed};
use crate::batch::identity::Summary;
use crate::batch::{BlockNumber, CommitRefusal, SegmentNumber, Sequence};
use crate::http::DateCache;

/// A service that records bodies. The replies to events wait for batches 1, 2, 3, …
#[derive(Default)]
struct Recorder {
    bodies: Vec<Vec<u8>>,
    /// The client's address of each.
    clients: Vec<Option<IpAddr>>,
    full: bool,
    /// How often each request is passed before it is answered.
    turns: usize,
    /// What was passed and is not answered.
    unfinished: Vec<Vec<u8>>,
}

impl Service for Recorder {
    fn route(&self, head: &http::Head<'_>) -> Route {
        match head.path {
            "/api/events" => Route::Events(IngestOptions::default()),
            "/health" => Route::Health,
            _ => Route::Refuse(Fault::new(Status::NotFound, "not_found", "Nothing here.")),
        }
    }

    fn has_room(&self, _: usize) -> bool {
        !self.full
    }

    /// As behind a proxy that is trusted.
    fn client_address(&self, head: &http::Head<'_>) -> Option<IpAddr> {
        http::client_address(head, None, |address| address.is_loopback())
    }

    fn fields(&self, origin: Option<&[u8]>, request_id: Option<&[u8]>) -> ReplyFields {
        ReplyFields::new(&cors(), origin, request_id)
    }

    fn serve(&mut self, route: Route, client: Client<'_>, body: &[u8], _: &mut ReplyFields) -> Served {
        assert!(self.unfinished.iter().all(|before| before == body), "another request than before");
        if self.unfinished.len() < self.turns {
            self.unfinished.push(body.to_vec());
            return Served::Unfinished(Unfinished::NextTurn);
        }
        self.unfinished.clear();
        Served::Answered(match route {
            Route::Events(_) => {
                self.clients.push(client.address);
                self.bodies.push(body.to_vec());
                let sequence = Sequence::new(self.bodies.len() as u64);
                Answer::AfterCommit { reply: Reply::Accepted(body.len() as u32), sequence, keyed: None, ack: Ack::Disk }
            }
            _ => Answer::Now(Reply::Json(Status::Ok, "{}".into())),
        })
    }
}

#[test]
fn each_request_has_the_client_of_its_own_head_however_it_is_split() {
    let mut input = Vec::new();
    let fields = ["X-Forwarded-For: 8.8.8.8, 127.0.0.1\r\n", "", "Forwarded: for=\"[2001:db8::1]\"\r\n"];
    for field in fields {
        let head = format!("POST /api/events HTTP/1.1\r\nHost: a\r\n{field}");
        input.extend_from_slice(format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes());
        // The trailers of a chunked body are not the head's fields.
        let trailer = "X-Forwarded-For: 9.9.9.9";
        input.extend_from_slice(
            format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n1\r\n}}\r\n0\r\n{trailer}\r\n\r\n").as_bytes(),
        );
    }
    let expected = ["8.8.8.8", "8.8.8.8", "", "", "2001:db8::1", "2001:db8::1"].map(|address| address.parse().ok());
    for cut in 0..input.len() {
        let (mut connection, mut service) = (Connection::default(), Recorder::default());
        feed(&mut connection, &mut service, &[&input[..cut], &input[cut..]]);
        assert_eq!(service.clients, expected, "{cut}");
    }
}

#[test]
fn a_refused_head_request_has_no_content() {
    let long = format!("HEAD /{} HTTP/1.1\r\n", "x".repeat(2000));
    for (input, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n", "400"),
        ("\r\nHEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("HEAD / HTTP/2.0\r\n", "505"),
        (&long, "414"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n", "413"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", "400"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", "404"),
    ] {
        for cut in 0..input.len() {
            let (first, second) = input.as_bytes().split_at(cut);
            let (out, ..) = replies_of(&[first, second]);
            assert!(out.starts_with(&format!("HTTP/1.1 {status}")), "{input:?} at {cut}: {out}");
            assert!(out.ends_with("\r\n\r\n") && !out.contains("Content-Length: 0\r\n"), "{input:?} at {cut}: {out}");
        }
    }
    // What comes behind one has a request of its own.
    let (out, ..) = replies_of(&[b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n"]);
    assert!(out.ends_with("}"), "{out}");
    // One that comes too slowly.
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    feed(&mut connection, &mut service, &[b"HEAD /"]);
    connection.refuse(Fault::new(Status::RequestTimeout, "request_timeout", "Too slow."));
    assert!(render(&mut connection).ends_with("\r\n\r\n"));
}

fn committed() -> Result<Committed, Fault> {
    let block = Some(BlockNumber::first(SegmentNumber::new(7)));
    Ok(Committed { block, certain: true, until: Instant::now(), first: None })
}

const LIMITS: RequestLimits =
    RequestLimits { head: HeadLimits { head_bytes_max: 1024, headers_max: 8 }, body_bytes_max: 64, requests_max: None };

/// Passes the pieces to the connection as a worker does: each after the kept bytes.
fn feed(connection: &mut Connection, service: &mut Recorder, pieces: &[&[u8]]) {
    let mut kept = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let received = connection.receive(&mut kept, &LIMITS, service);
            kept = kept[received.kept].to_vec();
            assert_eq!(connection.unfinished().is_some(), !service.unfinished.is_empty());
            if connection.unfinished().is_none() {
                break;
            }
            assert!(connection.is_paused() && !connection.lacks_room() && !connection.is_idle());
            assert_eq!(connection.waiting(), Waiting::Reply);
        }
    }
}

fn render(connection: &mut Connection) -> String {
    let mut out = Vec::new();
    render_to(&mut out, connection, false);
    String::from_utf8(out).unwrap()
}

fn render_to(out: &mut Vec<u8>, connection: &mut Connection, last: bool) {
    let (date, cors, ids) = (DateCache::default(), cors(), RequestIds::seeded(0));
    connection.render(out, &Rendering { date: &date, cors: &cors, ids: &ids }, last, |_| {});
}

fn cors() -> Cors {
    Cors::new(vec!["https://a.example".parse().unwrap()])
}

fn replies_of(pieces: &[&[u8]]) -> (String, Vec<Vec<u8>>, bool) {
    replies_after(0, pieces)
}

/// The same when each request takes so many turns more.
fn replies_after(turns: usize, pieces: &[&[u8]]) -> (String, Vec<Vec<u8>>, bool) {
    let (mut connection, mut service) = (Connection::default(), Recorder { turns, ..Recorder::default() });
    feed(&mut connection, &mut service, pieces);
    for sequence in 1..=service.bodies.len() as u64 {
        connection.replies().settle(Sequence::new(sequence), |_| committed());
    }
    let out = render(&mut connection);
    (out, service.bodies, connection.is_finished())
}

const INPUTS: &[&[u8]] = &[
    b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /api/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n\
      POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok",
    b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /late",
    b"POST /api/events HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nxPOST /api/events HTTP/1.0\r\nContent-Length: 1\r\n\r\ny",
    b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n",
    b"POST /api/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n1\r\nx\r\n0\r\n\r\n",
    b"POST /api/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n;x\r\n",
    b"BAD\x01 / HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
];

#[test]
fn an_input_split_at_every_byte_gives_the_same_replies() {
    for input in INPUTS {
        let whole = replies_of(&[input]);
        for at in 0..=input.len() {
            let (front, back) = input.split_at(at);
            assert_eq!(replies_of(&[front, back]), whole, "{:?} at {at}", String::from_utf8_lossy(input));
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(replies_of(&bytes), whole, "{:?} byte by byte", String::from_utf8_lossy(input));
    }
}

#[test]
fn requests_that_take_several_turns_give_the_same_replies_however_the_input_is_split() {
    for input in INPUTS {
        let at_once = replies_of(&[input]);
        for turns in [1, 3] {
            for at in 0..=input.len() {
                let (front, back) = input.split_at(at);
                let replies = replies_after(turns, &[front, back]);
                assert_eq!(replies, at_once, "{:?} at {at}", String::from_utf8_lossy(input));
            }
        }
    }
}

#[test]
fn a_request_that_takes_several_turns_is_served_to_its_end_however_many_replies_wait() {
    let (mut connection, mut service) = (Connection::default(), Recorder { turns: 2, ..Recorder::default() });
    let mut input = INPUTS[0].to_vec();
    connection.receive(&mut input, &LIMITS, &mut service);
    let long = Reply::Json(Status::Ok, "x".repeat(limits::WAITING_REPLIES_BYTES_MAX).into());
    let answer = Answer::AfterCommit { reply: long, sequence: Sequence::new(9), keyed: None, ack: Ack::Disk };
    connection.replies.push(answer, ReplyOptions { close: false, ..ReplyOptions::LAST }, ReplyFields::default());
    assert!(!connection.has_room_for_replies());
    connection.receive(&mut input, &LIMITS, &mut service);
    assert_eq!(connection.receive(&mut input, &LIMITS, &mut service).kept, 0..0);
    assert_eq!((service.bodies.len(), connection.unfinished()), (1, None));
    // The next one has to wait.
    assert_eq!(connection.receive(&mut input, &LIMITS, &mut service).kept, 0..input.len());
    assert!(service.unfinished.is_empty());
}

#[test]
fn a_request_that_is_refused_while_it_takes_several_turns_is_not_passed_again() {
    let (mut connection, mut service) = (Connection::default(), Recorder { turns: 9, ..Recorder::default() });
    let mut input = INPUTS[0].to_vec();
    assert_eq!(connection.receive(&mut input, &LIMITS, &mut service).kept, 0..input.len());
    assert_eq!((connection.unfinished(), connection.body_len()), (Some(Unfinished::NextTurn), 5));
    connection.refuse(Shed::InFlightBytes.into());
    assert_eq!(connection.unfinished(), None);
    connection.receive(&mut input, &LIMITS, &mut service);
    assert_eq!(service.unfinished.len(), 1);
    assert!(render(&mut connection).starts_with("HTTP/1.1 503"));
    assert!(connection.is_finished());
}

#[test]
fn every_input_gets_the_expected_replies() {
    let statuses = |input: &[u8]| -> Vec<u16> {
        replies_of(&[input]).0.split("HTTP/1.1 ").filter_map(|reply| reply.get(..3)?.parse().ok()).collect()
    };
    let expected: [&[u16]; 10] =
        [&[200], &[200, 200], &[200, 200], &[404, 200], &[200, 200], &[413], &[413], &[400], &[400], &[400]];
    for (input, expected) in INPUTS.iter().zip(expected) {
        assert_eq!(statuses(input), expected, "{:?}", String::from_utf8_lossy(input));
    }
    let (_, bodies, _) = replies_of(&[INPUTS[2]]);
    assert_eq!(bodies, [b"abcde".to_vec(), b"ok".to_vec()]);
    assert!(replies_of(&[INPUTS[4]]).0.contains("Connection: keep-alive"));
}

#[test]
fn a_prefix_of_a_request_is_neither_served_nor_refused() {
    for input in [INPUTS[0], &INPUTS[2][..INPUTS[2].len() - 64]] {
        for at in 0..input.len() - 1 {
            let (replies, bodies, _) = replies_of(&[&input[..at]]);
            assert!(!replies.contains(" 4"), "{at}: {replies}");
            assert!(bodies.len() <= 1);
        }
    }
}

#[test]
fn replies_are_sent_in_order_and_after_their_batch_is_settled() {
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    let request: &[u8] = b"POST /api/events HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let health: &[u8] = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    feed(&mut connection, &mut service, &[request, request, health]);
    assert_eq!(render(&mut connection), "");
    connection.replies().settle(Sequence::new(2), |_| committed());
    assert_eq!(render(&mut connection), "");
    assert_eq!(connection.waiting(), Waiting::Reply);
    connection.replies().settle(Sequence::new(1), |_| Err(Shed::Commit(CommitRefusal::DiskFull).into()));
    let out = render(&mut connection);
    let statuses: Vec<&str> = out.split("HTTP/1.1 ").skip(1).map(|reply| &reply[..3]).collect();
    assert_eq!(statuses, ["503", "200", "200"]);
    assert!(out.contains("Retry-After: "));
    assert!(connection.is_idle());
}

#[test]
fn without_room_nothing_is_served_and_nothing_is_lost() {
    let (mut connection, mut service) = (Connection::default(), Recorder { full: true, ..Recorder::default() });
    let mut input = INPUTS[0].to_vec();
    let received = connection.receive(&mut input, &LIMITS, &mut service);
    assert_eq!(received.kept, 0..input.len());
    assert!(connection.is_paused() && service.bodies.is_empty());
    service.full = false;
    connection.receive(&mut input, &LIMITS, &mut service);
    assert!(!connection.is_paused());
    assert_eq!(service.bodies, [b"hello".to_vec()]);
}

#[test]
fn the_number_of_pipelined_requests_is_limited() {
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    let mut input = INPUTS[0].repeat(limits::PIPELINED_REQUESTS_MAX + 5);
    let received = connection.receive(&mut input, &LIMITS, &mut service);
    assert_eq!(service.bodies.len(), limits::VISIT_REQUESTS_MAX);
    assert!(connection.is_paused() && !connection.lacks_room() && connection.has_room_for_replies());
    let received = connection.receive(&mut input[received.kept], &LIMITS, &mut service);
    assert_eq!(service.bodies.len(), limits::PIPELINED_REQUESTS_MAX);
    assert_eq!(received.kept.len(), INPUTS[0].len() * 5);
    assert!(connection.is_paused());
}

#[test]
fn without_room_for_events_health_is_answered_all_the_same() {
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let input = [
            "GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
            &format!("POST /api/events HTTP/1.1\r\nHost: a\r\n{framing}"),
            "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        ]
        .concat();
        let (mut connection, mut service) = (Connection::default(), Recorder { full: true, ..Recorder::default() });
        let mut kept = input.clone().into_bytes();
        let received = connection.receive(&mut kept, &LIMITS, &mut service);
        assert!(connection.is_paused() && connection.lacks_room() && service.bodies.is_empty());
        let replies = render(&mut connection);
        let statuses: Vec<&str> = replies.split("HTTP/1.1 ").skip(1).map(|reply| &reply[..3]).collect();
        assert_eq!(statuses, ["200", "404"]);
        let mut kept = kept[received.kept].to_vec();
        service.full = false;
        connection.receive(&mut kept, &LIMITS, &mut service);
        assert_eq!(service.bodies, [b"hello".to_vec()]);
        assert!(!connection.is_paused() && !connection.lacks_room());
    }
}

#[test]
fn replies_that_wait_are_bounded_in_bytes_as_well() {
    let mut connection = Connection::default();
    let long = Reply::Json(Status::Ok, "x".repeat(limits::WAITING_REPLIES_BYTES_MAX / 4).into());
    for waiting in 0..4 {
        assert!(connection.has_room_for_replies(), "{waiting}");
        let answer = Answer::AfterCommit {
            reply: long.clone(),
            sequence: Sequence::new(waiting + 1),
            keyed: None,
            ack: Ack::Disk,
        };
        connection.replies.push(answer, ReplyOptions { close: false, ..ReplyOptions::LAST }, ReplyFields::default());
    }
    assert!(!connection.has_room_for_replies());
    connection.replies().settle(Sequence::new(1), |_| committed());
    connection.replies().settle(Sequence::new(2), |_| Err(Shed::CommitTimeout.into()));
    assert_eq!(connection.replies().bytes(), 3 * long.bytes());
    render(&mut connection);
    assert_eq!(connection.replies().bytes(), 2 * long.bytes());
    let first = Summary { accepted: 1, rejected: 0, refused: false };
    let repeated = Committed { first: Some(first), ..committed().unwrap() };
    connection.replies().settle(Sequence::new(3), |_| Ok(repeated));
    connection.refuse(Shed::Connections.into());
    connection.replies().settle(Sequence::new(4), |_| committed());
    render(&mut connection);
    assert!(connection.is_finished());
    assert_eq!(connection.replies().bytes(), 0);
}

#[test]
fn a_client_that_expects_100_gets_it_before_the_body_or_a_refusal_at_once() {
    let head = b"POST /api/events HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    feed(&mut connection, &mut service, &[head]);
    assert_eq!(render(&mut connection), "HTTP/1.1 100 Continue\r\n\r\n");
    let mut whole = [&head[..], b"ok"].concat();
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    connection.receive(&mut whole, &LIMITS, &mut service);
    connection.replies().settle(Sequence::new(1), |_| committed());
    assert!(render(&mut connection).starts_with("HTTP/1.1 200"));
    let lost = b"POST /lost HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let (replies, _, finished) = replies_of(&[lost]);
    assert!(replies.starts_with("HTTP/1.1 404") && replies.contains("Connection: close") && finished);
}

#[test]
fn a_stop_closes_the_connection_after_the_last_pending_reply() {
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    feed(&mut connection, &mut service, &[INPUTS[0], INPUTS[0]]);
    let mut out = Vec::new();
    connection.replies().settle(Sequence::new(1), |_| committed());
    render_to(&mut out, &mut connection, true);
    assert!(!String::from_utf8_lossy(&out).contains("Connection: close"));
    connection.replies().settle(Sequence::new(2), |_| committed());
    render_to(&mut out, &mut connection, true);
    assert!(String::from_utf8_lossy(&out).contains("Connection: close"));
    assert!(connection.is_finished());
}

#[test]
fn a_peer_that_has_closed_its_side_gets_its_replies_and_then_the_end() {
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    feed(&mut connection, &mut service, &[INPUTS[0]]);
    connection.end_of_input();
    assert!(!connection.is_finished());
    connection.replies().settle(Sequence::new(1), |_| committed());
    assert!(render(&mut connection).starts_with("HTTP/1.1 200"));
    assert!(connection.is_finished());
    let mut silent = Connection::default();
    silent.end_of_input();
    assert!(silent.is_finished());
}

#[test]
fn a_reply_whose_block_does_not_prove_all_events_is_202() {
    for (certain, status) in [(true, "200 OK"), (false, "202 Accepted")] {
        let mut connection = Connection::default();
        let (sequence, block) = (Sequence::new(1), BlockNumber::first(SegmentNumber::new(7)));
        let answer = Answer::AfterCommit { reply: Reply::Accepted(2), sequence, keyed: None, ack: Ack::Inserted };
        connection.replies.push(answer, ReplyOptions::LAST, ReplyFields::default());
        let committed = Committed { block: Some(block), certain, until: Instant::now(), first: None };
        assert_eq!(connection.replies().settle(sequence, |_| Ok(committed)).len(), 1);
        assert_eq!(render(&mut connection), "");
        connection.replies().inserted(block);
        assert!(render(&mut connection).starts_with(&format!("HTTP/1.1 {status}\r\n")), "{certain}");
    }
}

/// Requests of an allowed page with an identity of their own, each with what is wrong with it.
const OF_A_PAGE: &[(u16, &str)] = &[
    (200, "POST /api/events HTTP/1.1\r\nHost: a\r\n{}Content-Length: 2\r\n\r\nok"),
    (200, "GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n"),
    (404, "POST /nothing HTTP/1.1\r\nHost: a\r\n{}Content-Length: 2\r\n\r\nok"),
    (404, "POST /nothing HTTP/1.1\r\nHost: a\r\n{}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
    (413, "POST /api/events HTTP/1.1\r\nHost: a\r\n{}Content-Length: 65\r\n\r\n"),
    (400, "POST /api/events HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\n\r\n;x\r\n"),
    (400, "POST /api/events HTTP/1.1\r\n{}Content-Length: 2\r\n\r\nok"),
    (400, "POST /api/events HTTP/1.1\r\nHost: a\r\n{}Content-Length: x\r\n\r\n"),
    (417, "POST /api/events HTTP/1.1\r\nHost: a\r\n{}Expect: x\r\nContent-Length: 2\r\n\r\nok"),
];

#[test]
fn every_reply_to_an_allowed_page_carries_its_fields_and_the_requests_identity() {
    for (status, request) in OF_A_PAGE {
        let request = request.replace("{}", "Origin: https://a.example\r\nX-Request-Id: mine-1\r\n");
        for at in 0..=request.len() {
            let (front, back) = request.as_bytes().split_at(at);
            let (replies, ..) = replies_of(&[front, back]);
            let reply = replies.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&replies);
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{request} at {at}: {reply}");
            assert!(reply.contains("\r\nX-Request-Id: mine-1\r\n"), "{request} at {at}: {reply}");
            assert!(
                reply.contains("\r\nAccess-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n"),
                "{reply}"
            );
            assert!(reply.contains("\r\nAccess-Control-Expose-Headers: Retry-After,"), "{reply}");
        }
        let other = request.replace("a.example", "b.example").replace("mine-1", "mine 1");
        let (reply, ..) = replies_of(&[other.as_bytes()]);
        assert!(!reply.contains("Access-Control") && !reply.contains("mine"), "{reply}");
        assert_eq!(reply.matches("\r\nX-Request-Id: ").count(), 1, "{reply}");
    }
}

#[test]
fn a_page_whose_request_is_given_up_in_its_middle_can_read_why() {
    let mut connection = Connection::default();
    let fields = "Origin: https://a.example\r\nX-Request-Id: mine-1\r\n";
    let head = format!("POST /api/events HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 5\r\n\r\nhe");
    feed(&mut connection, &mut Recorder::default(), &[head.as_bytes()]);
    connection.refuse(Shed::InFlightBytes.into());
    let reply = render(&mut connection);
    assert!(["503", "X-Request-Id: mine-1", "Allow-Origin"].iter().all(|part| reply.contains(part)), "{reply}");
}

#[test]
fn the_identities_that_wait_with_replies_count_in_their_bytes() {
    let mut connection = Connection::default();
    let head = format!("POST /api/events HTTP/1.1\r\nHost: a\r\nX-Request-Id: {}\r\n\r\n", "x".repeat(100));
    feed(&mut connection, &mut Recorder::default(), &[head.as_bytes(), head.as_bytes()]);
    assert_eq!(connection.replies().bytes(), 200);
    connection.replies().settle(Sequence::new(1), |_| committed());
    render(&mut connection);
    assert_eq!(connection.replies().bytes(), 100);
}

#[test]
fn the_last_request_of_a_connection_by_number_is_told_so_and_no_further_one_is_read() {
    let limits = RequestLimits { requests_max: std::num::NonZeroU64::new(2), ..LIMITS };
    let (mut connection, mut service) = (Connection::default(), Recorder::default());
    let mut input = INPUTS[0].repeat(3);
    let received = connection.receive(&mut input, &limits, &mut service);
    assert_eq!((received.kept.len(), service.bodies.len()), (0, 2));
    assert!(connection.may_have_more_input());
    connection.replies().settle(Sequence::new(1), |_| committed());
    let first = render(&mut connection);
    assert!(first.starts_with("HTTP/1.1 200") && !first.contains("Connection: close"), "{first}");
    connection.replies().settle(Sequence::new(2), |_| committed());
    let last = render(&mut connection);
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("Connection: close"), "{last}");
    assert!(connection.is_finished());
}
