//! Tests of large requests without sockets: the test is the connection, the turn and the committer.

use std::sync::Arc;

use super::*;
use crate::api::keys::Owners;
use crate::api::{Api, ApiTable, ReplyFields};
use crate::batch::identity::BodyHashing;
use crate::batch::{Batch, BlockNumber, CommitOutcome, Exchange, Returned, SegmentNumber};
use crate::connection::{Client, Service};
use crate::handoff::{Handoff, Mailbox};
use crate::http::Status;
use crate::http::coding::encoders::gzip;
use crate::intake::budget::{BudgetLimits, ByteBudget};
use crate::intake::metrics::WorkerMetrics;
use crate::intake::quotas::Quotas;
use crate::intake::{Hop, Shared};
use crate::limits::{BAD_LINES_MAX, BATCHES_PER_WORKER};
use crate::ndjson::{EncodeLimits, RowEncoder};
use crate::schema::{ColumnDescription, Plan, SchemaVersion};

const BODY_BYTES_MAX: u64 = 8 << 20;

/// What a worker has, without its sockets.
struct Bench {
    api: Api,
    outbox: Outbox,
    large: LargeRequests,
    shared: Shared,
    metrics: WorkerMetrics,
    fields: ReplyFields,
    /// What the replies of a connection take; the connections share it here.
    replies: Charge,
}

fn plan(names: &[&str]) -> Arc<Plan> {
    let column = |name: &&str| ColumnDescription {
        name: (*name).to_owned(),
        type_name: "String".into(),
        default_kind: String::new(),
        default_expression: String::new(),
    };
    Arc::new(Plan::compile(&names.iter().map(column).collect::<Vec<_>>(), "UTC").unwrap())
}

impl Bench {
    fn new() -> Self {
        Self::with_budget(1 << 30)
    }

    fn with_budget(max: u64) -> Self {
        let handoff = Arc::new(Handoff::new(vec![Mailbox::woken_by(|| ())], Arc::default()));
        let budget = ByteBudget::new(BudgetLimits { max, request_max: 1 << 19 });
        let schema = || Some(SchemaVersion { plan: plan(&["event"]), frozen: Arc::default() });
        let mut shared = Shared::of_tests(handoff, vec![schema(), schema()], budget.clone());
        shared.request_limits.body_bytes_max = BODY_BYTES_MAX;
        let limits = EncodeLimits { line_bytes_max: 1 << 20, events_max: 1 << 20, encoded_bytes_max: 2 << 20 };
        let table = |name: &str| ApiTable {
            name: name.to_owned(),
            paths: vec![format!("/api/{name}")],
            encoder: RowEncoder::new(plan(&["event"]), limits),
        };
        Self {
            api: Api::new(vec![table("events"), table("hits")]),
            outbox: Outbox::new(0, BATCHES_PER_WORKER, 2, budget.clone()),
            large: LargeRequests::default(),
            shared,
            metrics: WorkerMetrics::default(),
            fields: ReplyFields::default(),
            replies: budget.open(None),
        }
    }

    /// Passes a request once, as a connection of this slot does.
    fn pass(&mut self, slot: usize, options: IngestOptions, body: &[u8]) -> Served {
        let mut context = RequestContext {
            api: &mut self.api,
            outbox: &mut self.outbox,
            large: &mut self.large,
            shared: &self.shared,
            metrics: &self.metrics,
            waiter: waiter(slot),
            hop: Hop::new(None, &self.shared.trusted),
            client_ip: None,
            quota: None,
            replies: &mut self.replies,
            decoded_left: SLICE_BYTES,
        };
        let client = Client { address: Some([127, 0, 0, 1].into()), values: None };
        context.serve(Route::Events(options), client, body, &mut self.fields)
    }

    /// Passes a request until it is answered: the answer, and the turns before it.
    fn serve(&mut self, options: IngestOptions, body: &[u8]) -> (Answer, usize) {
        let mut turns = 0;
        loop {
            match self.pass(0, options, body) {
                Served::Answered(answer) => return (answer, turns),
                Served::Unfinished(unfinished) => assert_eq!(unfinished, Unfinished::NextTurn),
            }
            assert_eq!(self.large.tend(&mut self.outbox, |_| true), None);
            turns += 1;
        }
    }

    /// Everything that was handed over.
    fn batches(&mut self) -> Vec<Batch> {
        self.outbox.hand_over(&self.shared.handoff);
        std::iter::from_fn(|| self.shared.handoff.next()).collect()
    }

    /// Gives the batches back.
    fn settle(&mut self, batches: Vec<Batch>) {
        for batch in batches {
            let outcome = CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(1)) };
            self.outbox.settle(Returned { batch, outcome });
        }
    }

    /// Gives the batches back, and checks that nothing is left.
    fn end(mut self, batches: Vec<Batch>) {
        self.settle(batches);
        assert!(self.batches().is_empty());
        assert!(matches!(self.large.place, Place::Free));
        self.replies.set(0);
        assert_eq!(self.shared.budget.bytes(), 0, "bytes stay in flight");
        // The one that fills, which no request has joined, too.
        assert!(self.outbox.fill(EVENTS).is_some());
        let spare: Vec<OwnBatch> = std::iter::from_fn(|| self.outbox.open_own(EVENTS)).collect();
        assert_eq!(spare.len(), BATCHES_PER_WORKER);
    }
}

fn waiter(slot: usize) -> Waiter {
    Waiter { slot, generation: 1 }
}

fn events(count: usize) -> Vec<u8> {
    (0..count).flat_map(|event| format!("{{\"event\":\"{event:08}\"}}\n").into_bytes()).collect()
}

fn rows(count: usize) -> Vec<u8> {
    (0..count).flat_map(|event| format!("\x08{event:08}").into_bytes()).collect()
}

/// Events of more than four slices.
const MANY: usize = 5 * SLICE_BYTES / 21;

const EVENTS: TableIndex = TableIndex::new(0);
const HITS: TableIndex = TableIndex::new(1);

const PLAIN: IngestOptions =
    IngestOptions { table: EVENTS, dry_run: false, ack: crate::api::Ack::Disk, key: None, writer: None, coding: None };

fn status(answer: &Answer) -> Status {
    match answer {
        Answer::Now(reply) | Answer::AfterCommit { reply, .. } => match reply {
            Reply::Accepted(_) => Status::Ok,
            Reply::Json(status, _) => *status,
            Reply::Fault(fault) => fault.status,
            Reply::Allow(_) | Reply::Preflight(_) => Status::NoContent,
        },
    }
}

#[test]
fn a_large_body_takes_a_turn_a_slice_and_has_a_batch_of_its_own() {
    let mut bench = Bench::new();
    let (answer, turns) = bench.serve(PLAIN, &events(MANY));
    assert!(matches!(&answer, Answer::AfterCommit { reply: Reply::Accepted(count), .. } if *count as usize == MANY));
    assert!(turns >= 4, "{turns} turns");
    assert!(matches!(bench.pass(1, PLAIN, &events(1)), Served::Answered(_)));
    let batches = bench.batches();
    assert_eq!((batches.len(), batches.get(1).map(|batch| batch.rows.count)), (2, Some(1)));
    assert!(batches[0].rows.bytes == rows(MANY) && batches[0].rows.count as usize == MANY);
    bench.end(batches);
}

#[test]
fn small_requests_are_served_between_the_slices_and_are_in_batches_of_theirs() {
    let mut bench = Bench::new();
    let (large, small) = (events(MANY), events(1));
    assert_eq!(bench.pass(0, PLAIN, &large), Served::Unfinished(Unfinished::NextTurn));
    // What a turn has served is handed over while the large request is under way.
    assert!(matches!(bench.pass(1, PLAIN, &small), Served::Answered(_)));
    let first = bench.batches();
    assert_eq!((first.len(), first[0].rows.count), (1, 1));
    // These are in the batch that fills when the last slice is encoded.
    let mut others = 0;
    let answer = loop {
        match bench.pass(0, PLAIN, &large) {
            Served::Answered(answer) => break answer,
            Served::Unfinished(_) => {
                assert!(matches!(bench.pass(1, PLAIN, &small), Served::Answered(_)));
                others += 1;
            }
        }
    };
    let batches = bench.batches();
    assert_eq!(batches.iter().map(|batch| batch.rows.count as usize).collect::<Vec<_>>(), [others, MANY]);
    let sequence = batches[1].sequence;
    assert!(matches!(answer, Answer::AfterCommit { sequence: of, .. } if of == sequence));
    bench.end(first.into_iter().chain(batches).collect());
}

#[test]
fn large_requests_wait_in_line_and_have_their_turns_in_its_order() {
    let mut bench = Bench::new();
    let body = events(MANY);
    assert_eq!(bench.pass(0, PLAIN, &body), Served::Unfinished(Unfinished::NextTurn));
    for slot in 1..4 {
        assert_eq!(bench.pass(slot, PLAIN, &body), Served::Unfinished(Unfinished::InLine));
        bench.large.wait(waiter(slot));
    }
    let mut held = Vec::new();
    let mut served = Vec::new();
    let mut slot = 0;
    while served.len() < 3 {
        if let Served::Answered(_) = bench.pass(slot, PLAIN, &body) {
            served.push(slot);
            // One that comes now does not get in front of those that wait.
            let late = bench.pass(9, PLAIN, &body);
            assert!(served.len() == 3 || late == Served::Unfinished(Unfinished::InLine));
        }
        held.extend(bench.batches());
        // The connection of slot 2 is closed while it waits.
        let is_unfinished = |waiter: Waiter| waiter.slot != 2 && !served.contains(&waiter.slot);
        if let Some(next) = bench.large.tend(&mut bench.outbox, is_unfinished) {
            assert_eq!(bench.pass(9, PLAIN, &body), Served::Unfinished(Unfinished::InLine));
            slot = next.slot;
        }
    }
    assert_eq!(served, [0, 1, 3]);
    // The late one had the place, since nobody waits any more; its connection is closed.
    assert!(bench.large.is_of(waiter(9)));
    assert_eq!(bench.large.tend(&mut bench.outbox, |_| false), None);
    bench.end(held);
}

#[test]
fn what_a_closed_connection_had_under_way_is_given_up() {
    for turns in 1..8 {
        let mut bench = Bench::new();
        let body = gzip(&events(MANY));
        for _ in 0..turns {
            let options = IngestOptions { coding: Some(Coding::Gzip), ..PLAIN };
            assert_eq!(bench.pass(0, options, &body), Served::Unfinished(Unfinished::NextTurn));
        }
        assert!(bench.shared.budget.bytes() > 0);
        assert_eq!(bench.large.tend(&mut bench.outbox, |_| false), None);
        bench.end(Vec::new());
    }
}

#[test]
fn a_change_of_the_columns_in_the_middle_leaves_rows_of_one_version() {
    let body = events(MANY);
    for turns in 1..5 {
        for key in [None, Some([7; 16])] {
            let mut bench = Bench::new();
            let options = IngestOptions { key, ..PLAIN };
            for _ in 0..turns {
                bench.pass(0, options, &body);
            }
            bench.outbox.change_schema(EVENTS, b"second".to_vec().into(), &bench.shared.handoff);
            bench.api.follow(EVENTS, Some(plan(&["more", "event"])));
            bench.large.change_schema(EVENTS);
            let (answer, _) = bench.serve(options, &body);
            assert!(matches!(answer, Answer::AfterCommit { reply: Reply::Accepted(n), .. } if n as usize == MANY));
            let batches = bench.batches();
            assert_eq!((batches.len(), &batches[0].frozen[..]), (1, &b"second"[..]));
            let expected: Vec<u8> = rows(MANY).chunks(9).flat_map(|row| [b"\0", row].concat()).collect();
            assert!(batches[0].rows.bytes == expected, "after {turns} turns");
            bench.end(batches);
        }
    }
}

#[test]
fn a_body_that_is_refused_in_its_last_slice_stores_nothing() {
    let mut body = events(MANY);
    body.extend(b"bad\n".repeat(BAD_LINES_MAX as usize + 1));
    let too_long = events((2 << 20) / 9 + 1);
    for (body, expected) in [(&body, Status::UnprocessableContent), (&too_long, Status::ContentTooLarge)] {
        for coding in [None, Some(Coding::Gzip)] {
            let mut bench = Bench::new();
            let sent = if coding.is_some() { gzip(body) } else { body.clone() };
            let (answer, _) = bench.serve(IngestOptions { coding, ..PLAIN }, &sent);
            assert_eq!((status(&answer), matches!(answer, Answer::Now(_))), (expected, true));
            assert!(bench.batches().is_empty());
            bench.end(Vec::new());
        }
    }
    // The key of a request that is refused for its lines is stored alone.
    let mut bench = Bench::new();
    let (answer, _) = bench.serve(IngestOptions { key: Some([7; 16]), ..PLAIN }, &body);
    assert!(matches!(answer, Answer::AfterCommit { .. }));
    let batches = bench.batches();
    assert_eq!((batches.len(), batches[0].len(), batches[0].rows.count), (1, 0, 0));
    let key = batches[0].keyed()[0].key;
    assert!(key.summary.refused && key.body == BodyHashing::default().hash(&body));
    bench.end(batches);
}

#[test]
fn a_dry_run_of_a_large_body_stores_nothing() {
    let mut bench = Bench::new();
    let (answer, turns) = bench.serve(IngestOptions { dry_run: true, key: Some([7; 16]), ..PLAIN }, &events(MANY));
    assert_eq!(answer, Answer::Now(Reply::Accepted(MANY as u32)));
    assert!(turns > 3);
    bench.end(Vec::new());
}

#[test]
fn a_coded_body_of_any_size_gives_the_rows_and_the_key_of_the_plain_one() {
    for count in [0, 1, SLICE_BYTES / 21 - 1, SLICE_BYTES / 21 + 1, MANY] {
        let body = events(count);
        let mut keys = Vec::new();
        for coding in [None, Some(Coding::Gzip)] {
            let mut bench = Bench::new();
            let sent = if coding.is_some() { gzip(&body) } else { body.clone() };
            let options = IngestOptions { key: Some([7; 16]), coding, ..PLAIN };
            let (answer, turns) = bench.serve(options, &sent);
            assert_eq!(status(&answer), Status::Ok);
            assert_eq!(turns > 0, body.len() > SLICE_BYTES, "{count} events");
            let batches = bench.batches();
            assert_eq!(batches.len(), 1);
            assert!(batches[0].rows.bytes == rows(count), "{count} events");
            keys.push(batches[0].keyed()[0].key);
            bench.end(batches);
        }
        assert_eq!(keys[0], keys[1], "{count} events");
    }
}

#[test]
fn a_coded_body_that_breaks_at_its_end_or_is_too_large_stores_nothing() {
    for (count, expected) in [
        (1, Status::BadRequest),
        (MANY, Status::BadRequest),
        (BODY_BYTES_MAX as usize / 21 + 1, Status::ContentTooLarge),
    ] {
        let mut body = gzip(&events(count));
        if expected == Status::BadRequest {
            *body.last_mut().unwrap() ^= 1;
        }
        let mut bench = Bench::new();
        let (answer, _) = bench.serve(IngestOptions { coding: Some(Coding::Gzip), ..PLAIN }, &body);
        assert_eq!((status(&answer), matches!(answer, Answer::Now(_))), (expected, true), "{count} events");
        bench.end(Vec::new());
    }
}

#[test]
fn decoded_content_beyond_the_budget_is_shed_and_given_back() {
    let mut bench = Bench::with_budget(1 << 20);
    let body = gzip(&events(3 * MANY));
    let (answer, _) = bench.serve(IngestOptions { coding: Some(Coding::Gzip), ..PLAIN }, &body);
    assert_eq!(status(&answer), Status::ServiceUnavailable);
    assert_eq!(bench.metrics.shed[Shed::InFlightBytes.index()].get(), 1);
    bench.end(Vec::new());
}

#[test]
fn one_visit_decodes_no_more_than_a_slice_of_small_bodies() {
    let mut bench = Bench::new();
    let body = gzip(&events(SLICE_BYTES / 42));
    let options = IngestOptions { coding: Some(Coding::Gzip), ..PLAIN };
    let mut context = RequestContext {
        api: &mut bench.api,
        outbox: &mut bench.outbox,
        large: &mut bench.large,
        shared: &bench.shared,
        metrics: &bench.metrics,
        waiter: waiter(0),
        hop: Hop::new(None, &bench.shared.trusted),
        client_ip: None,
        quota: None,
        replies: &mut bench.replies,
        decoded_left: SLICE_BYTES,
    };
    let client = Client { address: None, values: None };
    let mut serve = || context.serve(Route::Events(options), client, &body, &mut ReplyFields::default());
    let served: Vec<bool> = (0..4).map(|_| matches!(serve(), Served::Answered(_))).collect();
    assert_eq!(served, [true, true, false, false]);
    let batches = bench.batches();
    bench.end(batches);
}

#[test]
fn the_memory_of_decoders_is_given_back_at_rest() {
    let mut bench = Bench::new();
    let options = IngestOptions { coding: Some(Coding::Gzip), ..PLAIN };
    bench.serve(options, &gzip(&events(MANY)));
    assert!(bench.large.spare.as_ref().is_some_and(|spare| spare.memory() <= SLICE_BYTES));
    bench.large.shrink();
    assert!(bench.large.spare.is_none());
    let batches = bench.batches();
    bench.end(batches);
}

#[test]
fn a_large_request_is_charged_once_and_one_above_the_rate_stores_nothing() {
    let mut bench = Bench::new();
    let rate = format!("1/s,burst={}", 3 * MANY / 2);
    bench.shared.quotas = Quotas::new(Arc::new(Owners::new(1)), Some(rate.parse().unwrap()));
    let body = events(MANY);
    let (answer, _) = bench.serve(PLAIN, &body);
    assert_eq!(status(&answer), Status::Ok);
    let left = bench.fields.quota.take().unwrap().remaining as usize;
    assert!((MANY / 2 - 1..=MANY / 2 + 1).contains(&left), "{left}");
    let (answer, _) = bench.serve(PLAIN, &body);
    assert_eq!(status(&answer), Status::TooManyRequests);
    assert!(bench.fields.quota.take().is_some());
    let (answer, _) = bench.serve(IngestOptions { dry_run: true, ..PLAIN }, &body);
    assert_eq!(status(&answer), Status::TooManyRequests);
    let (answer, _) = bench.serve(PLAIN, &events(2 * MANY));
    assert_eq!(status(&answer), Status::ContentTooLarge);
    assert!(!bench.outbox.is_filling(), "a refused request keeps its batch");
    let batches = bench.batches();
    assert_eq!(batches.iter().map(|batch| batch.rows.count).sum::<u32>(), MANY as u32);
    bench.end(batches);
}

/// The tables of batches, and their numbers of rows.
fn contents(batches: &[Batch]) -> Vec<(TableIndex, usize)> {
    batches.iter().map(|batch| (batch.table, batch.rows.count as usize)).collect()
}

#[test]
fn a_large_request_of_one_table_leaves_the_batches_of_the_others_alone() {
    let mut bench = Bench::new();
    let (large, small) = (events(MANY), events(1));
    let hits = IngestOptions { table: HITS, ..PLAIN };
    assert_eq!(bench.pass(0, hits, &large), Served::Unfinished(Unfinished::NextTurn));
    let mut turns = 0;
    loop {
        for options in [PLAIN, hits] {
            assert!(matches!(bench.pass(1, options, &small), Served::Answered(_)));
        }
        turns += 1;
        if let Served::Answered(answer) = bench.pass(0, hits, &large) {
            assert_eq!(status(&answer), Status::Ok);
            break;
        }
        let batches = bench.batches();
        assert_eq!(contents(&batches), [(EVENTS, 1), (HITS, 1)]);
        bench.settle(batches);
    }
    let batches = bench.batches();
    assert_eq!(contents(&batches), [(EVENTS, 1), (HITS, 1), (HITS, MANY)]);
    assert!(turns >= 4 && batches[2].rows.bytes == rows(MANY));
    bench.end(batches);
}

#[test]
fn a_change_of_another_table_does_not_begin_a_large_request_again() {
    let mut bench = Bench::new();
    let body = events(MANY);
    let (_, undisturbed) = bench.serve(PLAIN, &body);
    let mut turns = 0;
    while !matches!(bench.pass(0, PLAIN, &body), Served::Answered(_)) {
        turns += 1;
        assert!(turns <= undisturbed, "it has begun again");
        bench.outbox.change_schema(HITS, b"second".to_vec().into(), &bench.shared.handoff);
        bench.api.follow(HITS, Some(plan(&["more", "event"])));
        bench.large.change_schema(HITS);
    }
    assert_eq!(turns, undisturbed);
    let batches = bench.batches();
    assert_eq!(contents(&batches), [(EVENTS, MANY); 2]);
    assert!(batches.iter().all(|batch| batch.rows.bytes == rows(MANY) && batch.frozen.is_empty()));
    bench.end(batches);
}

#[test]
fn a_large_request_of_a_table_that_becomes_unavailable_is_503_and_stores_and_counts_nothing() {
    for turns in 1..4 {
        let mut bench = Bench::new();
        let (body, hits) = (gzip(&events(MANY)), IngestOptions { table: HITS, coding: Some(Coding::Gzip), ..PLAIN });
        for _ in 0..turns {
            bench.pass(0, hits, &body);
        }
        bench.api.follow(HITS, None);
        bench.large.change_schema(HITS);
        let (answer, _) = bench.serve(hits, &body);
        assert_eq!(answer, Answer::Now(Reply::Fault(TABLE_UNAVAILABLE)), "after {turns} turns");
        assert_eq!((bench.metrics.received.get(), bench.batches().len()), (0, 0));
        let (answer, _) = bench.serve(PLAIN, &events(MANY));
        assert_eq!(status(&answer), Status::Ok);
        let batches = bench.batches();
        assert_eq!(contents(&batches), [(EVENTS, MANY)]);
        bench.end(batches);
    }
}
