//! Tests of bodies that are encoded in slices: all as if the body were encoded in one go.

use super::*;

/// Encodes a body in slices of about `bytes` bytes, as [`run`] does in one go; the identities, too.
pub(super) fn run_in_slices(encoder: &mut RowEncoder, body: &[u8], bytes: usize) -> (Outcome, Batch) {
    let (mut batch, mut report, mut progress) = (Batch::new(0), Report::default(), Progress::default());
    let mut done = Ok(false);
    while done == Ok(false) {
        let mark = batch.mark();
        done = encoder.encode_slice(body, bytes, &mut progress, &origin(), &mut batch, &mut report);
        assert!(done.is_ok() || batch.mark() == mark);
    }
    let outcome = Outcome {
        done: done.map(drop),
        rows: batch.rows.bytes.clone(),
        count: batch.rows.count,
        rejected: batch.rejected.bytes.clone(),
        report,
    };
    (outcome, batch)
}

pub(super) fn lines(count: usize) -> String {
    let line = |index: usize| match index % 9 {
        2 => "\n \t\r\n".to_owned(),
        4 => "bad\r\n".to_owned(),
        7 => format!("{{\"s\":[{index}]}}\n"),
        _ => format!("{{\"s\":\"{}\",\"n\":{index}}}\n", "é".repeat(index % 13)),
    };
    (0..count).map(line).collect()
}

#[test]
fn slices_of_any_size_give_what_the_whole_body_gives() {
    let plan = plan(&[("s", "String"), ("n", "Int64")]);
    let many = lines(100);
    for body in
        [&many[..], &format!("\u{feff}{many}"), many.trim_end(), "", "\n", "bad", "{\"n\":1}", "\n\n\n{\"n\":1}"]
    {
        let whole = run(&mut RowEncoder::new(Arc::clone(&plan), LIMITS), true, body.as_bytes());
        assert_eq!(whole.done, Ok(()));
        for bytes in [1, 2, 30, 100, 1000, 1 << 20] {
            let mut encoder = RowEncoder::new(Arc::clone(&plan), LIMITS);
            assert_eq!(run_in_slices(&mut encoder, body.as_bytes(), bytes).0, whole, "{body:?} in slices of {bytes}");
        }
    }
}

#[test]
fn the_limits_of_a_request_hold_over_all_of_its_slices() {
    let plan = plan(&[("s", "String"), ("n", "Int64")]);
    let body = lines(100);
    let bad = "x\n".repeat(limits::BAD_LINES_MAX as usize);
    let outcome = run(&mut RowEncoder::new(Arc::clone(&plan), LIMITS), true, body.as_bytes());
    let (events, encoded) = (outcome.count + outcome.report.rejected, outcome.rows.len() + outcome.rejected.len());
    for (limits, body) in [
        (EncodeLimits { events_max: events, ..LIMITS }, body.clone()),
        (EncodeLimits { events_max: events - 1, ..LIMITS }, body.clone()),
        (EncodeLimits { encoded_bytes_max: encoded, ..LIMITS }, body.clone()),
        (EncodeLimits { encoded_bytes_max: encoded - 1, ..LIMITS }, body),
        (LIMITS, bad.clone()),
        (LIMITS, bad + "x"),
    ] {
        let whole = run(&mut RowEncoder::new(Arc::clone(&plan), limits), true, body.as_bytes());
        for bytes in [1, 100, 1000] {
            let (parts, _) = run_in_slices(&mut RowEncoder::new(Arc::clone(&plan), limits), body.as_bytes(), bytes);
            assert_eq!(parts.done, whole.done, "{limits:?}");
            assert_eq!((parts.report.rejected, &parts.report.errors), (whole.report.rejected, &whole.report.errors));
        }
    }
}

#[test]
fn the_identities_of_events_are_with_their_rows_in_every_slice() {
    let plan = plan(&[("s", "String"), ("n", "Int64")]);
    let body = lines(100);
    let encoder = || RowEncoder::new(Arc::clone(&plan), LIMITS).identifying(Some("n"));
    let removed = |mut batch: Batch| {
        let mut nth = 0;
        batch.remove_repeats(|_| {
            nth += 1;
            nth % 3 == 0
        });
        (batch.ids, batch.rows.bytes)
    };
    let mut whole = Batch::new(0);
    encoder().encode(body.as_bytes(), &origin(), &mut whole, &mut Report::default()).unwrap();
    let whole = removed(whole);
    assert!(whole.0.len() > 30);
    for bytes in [1, 100, 1000] {
        assert_eq!(removed(run_in_slices(&mut encoder(), body.as_bytes(), bytes).1), whole);
    }
}
