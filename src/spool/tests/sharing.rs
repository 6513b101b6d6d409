//! Tests of requests with keys that share a batch.

use super::committing::commit_all;
use super::{batch, config, contents, with};
use crate::batch::identity::{RequestKey, Summary, of_event, of_request};
use crate::batch::{Batch, CommitOutcome};
use crate::spool::Spool;

/// A request with a key, a plain one, or one that only asks for a key.
enum Request {
    Keyed(&'static str, &'static str, &'static str),
    Plain(&'static str),
    Asks(&'static str),
}

/// The batch that these requests share.
fn shared(requests: &[Request]) -> Batch {
    let mut batch = batch(&[], &[]);
    for request in requests {
        let from = batch.mark();
        let (Request::Keyed(_, _, row) | Request::Plain(row) | Request::Asks(row)) = request;
        if !row.is_empty() {
            // Its events have identities, and a rejected line is beside them.
            batch.rows.bytes.extend_from_slice(row.as_bytes());
            batch.rows.count += 1;
            batch.identify(of_event("c", row.as_bytes()), batch.rows.bytes.len() - row.len()..batch.rows.bytes.len());
            batch.rejected.bytes.extend_from_slice(row.to_uppercase().as_bytes());
            batch.rejected.count += 1;
        }
        let (name, body) = match request {
            Request::Keyed(name, body, _) => (name, body),
            Request::Asks(name) => (name, &"body"),
            Request::Plain(_) => continue,
        };
        let summary = Summary { accepted: 1, rejected: 1, refused: false };
        batch.add_keyed(RequestKey::new(of_request("t", name.as_bytes()), body.as_bytes(), summary), from);
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
        Request::Keyed("l", "body", "dddd"),
        Request::Asks("l"),
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
            CommitOutcome::Committed { .. } => "stored".to_owned(),
            CommitOutcome::Repeated { summary, .. } => format!("repeated {}", summary.accepted),
            other => format!("{other:?}"),
        });
        let outcomes: Vec<String> = outcomes.collect();
        let (_spool, recovered) = Spool::open(identified()).unwrap();
        let found = (outcomes, recovered.blocks.iter().map(|block| contents(block).unwrap()).collect::<Vec<_>>());
        let expected = ["NoRepeat", "stored", "repeated 1", "stored", "repeated 1", "KeyReused"];
        assert_eq!(found.0, expected, "{ends:b}");
        assert_eq!(seen.get_or_insert_with(|| found.clone()), &found, "{ends:b}");
    }
    let stored = ("abbddddff".to_owned(), "ABBDDDDFF".to_owned());
    assert_eq!(seen.unwrap().1, [stored]);
}
