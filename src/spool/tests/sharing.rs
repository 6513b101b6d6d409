//! Tests of requests with keys that share a batch.

use super::committing::commit_all;
use super::{batch, config, contents, with};
use crate::batch::identity::{RequestKey, Summary, of_event, of_request};
use crate::batch::{Batch, CommitOutcome, CommitRefusal};
use crate::spool::Spool;

/// A request with a key, a plain one, one with nothing but a rejected line, or one that only asks for a key.
enum Request {
    Keyed(&'static str, &'static str, &'static str),
    Plain(&'static str),
    BadLine(&'static str),
    Asks(&'static str),
}

/// The batch that these requests share.
fn shared(requests: &[Request]) -> Batch {
    let mut batch = batch(&[], &[]);
    for request in requests {
        let from = batch.mark();
        let (Request::Keyed(_, _, row) | Request::Plain(row) | Request::BadLine(row) | Request::Asks(row)) = request;
        if !matches!(request, Request::BadLine(_)) {
            // Its event has an identity, and a rejected line is beside it.
            batch.rows.bytes.extend_from_slice(row.as_bytes());
            batch.rows.count += 1;
            batch.identify(of_event("c", row.as_bytes()), batch.rows.bytes.len() - row.len()..batch.rows.bytes.len());
        }
        batch.rejected.bytes.extend_from_slice(row.to_uppercase().as_bytes());
        batch.rejected.count += 1;
        let (name, body) = match request {
            Request::Keyed(name, body, _) => (name, body),
            Request::Asks(name) => (name, &"body"),
            Request::Plain(_) | Request::BadLine(_) => continue,
        };
        let summary = Summary { accepted: 1, rejected: 1, refused: false };
        batch.add_keyed(RequestKey::of_tests(of_request("t", name.as_bytes()), body.as_bytes(), summary), from);
        if matches!(request, Request::Asks(_)) {
            batch.only_ask(from);
        }
    }
    batch.close();
    batch
}

#[test]
fn however_requests_share_batches_each_has_the_same_outcome_and_the_same_is_stored() {
    let requests = [
        Request::Asks("k"),
        Request::Keyed("k", "body", "a"),
        Request::Plain("bb"),
        Request::Keyed("k", "body", "ccc"),
        Request::BadLine("x"),
        Request::Keyed("l", "body", "dddd"),
        Request::Asks("l"),
        // The event was stored before.
        Request::Keyed("m", "body", "bb"),
        Request::Keyed("l", "other", "e"),
        Request::Plain("ff"),
    ];
    let mut seen = None;
    for ends in 0..1u32 << (requests.len() - 1) {
        let (mut batches, mut from) = (Vec::new(), 0);
        for end in 1..=requests.len() {
            if end == requests.len() || ends >> (end - 1) & 1 == 1 {
                batches.push(shared(&requests[from..end]));
                from = end;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let identified = || with(config(folder.path()), |table| table.has_identities = true);
        let (exchange, mut outcomes) = (commit_all(identified(), batches), Vec::new());
        for returned in exchange {
            outcomes.extend(returned.batch.keyed().iter().map(|request| request.rule.outcome(returned.outcome)));
        }
        let outcomes = outcomes.into_iter().map(|outcome| match outcome {
            CommitOutcome::Committed { .. } | CommitOutcome::Deduplicated { .. } => "stored".to_owned(),
            CommitOutcome::Repeated { summary, .. } => format!("repeated {}", summary.accepted),
            other => format!("{other:?}"),
        });
        let outcomes: Vec<String> = outcomes.collect();
        let (_spool, recovered) = Spool::open(identified()).unwrap();
        let found = (outcomes, recovered.blocks.iter().map(|block| contents(block).unwrap()).collect::<Vec<_>>());
        let expected = ["NoRepeat", "stored", "repeated 1", "stored", "repeated 1", "stored", "KeyReused"];
        assert_eq!(found.0, expected, "{ends:b}");
        assert_eq!(seen.get_or_insert_with(|| found.clone()), &found, "{ends:b}");
    }
    let stored = ("abbddddff".to_owned(), "ABBXDDDDBBFF".to_owned());
    assert_eq!(seen.unwrap().1, [stored]);
}

#[test]
fn where_a_table_has_its_share_a_repeat_has_its_reply_and_what_is_new_beside_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = with(config(folder.path()), |table| table.bytes_max = Some(4));
    let batches = [
        &[Request::Keyed("k", "body", "a")][..],
        &[Request::Keyed("k", "body", "a"), Request::Keyed("l", "body", "bb")],
    ];
    let returned = commit_all(config, batches.map(shared).into());
    let outcomes = returned[1].batch.keyed().iter().map(|request| request.rule.outcome(returned[1].outcome));
    let outcomes: Vec<CommitOutcome> = outcomes.collect();
    assert!(matches!(outcomes[0], CommitOutcome::Repeated { .. }), "{outcomes:?}");
    assert_eq!(outcomes[1], CommitOutcome::Refused(CommitRefusal::SpoolFull));
}
