//! Sends the lines of a batch until each of them is accepted, or rejected with a reason.

use super::batch::Batch;
use super::client::{Client, LineError, Reply, Verdict};

/// What a server is asked for.
pub(super) trait Server {
    /// Sends lines under the key of their batch.
    fn send(&self, batch: &Batch) -> Verdict;
    /// Asks which lines are bad; nothing is stored.
    fn ask(&self, batch: &Batch) -> Verdict;
}

impl Server for Client {
    fn send(&self, batch: &Batch) -> Verdict {
        Client::send(self, &batch.body(), &batch.key())
    }

    fn ask(&self, batch: &Batch) -> Verdict {
        Client::ask(self, &batch.body())
    }
}

/// A line that was not accepted.
#[derive(Debug, PartialEq)]
pub(super) struct Rejection {
    /// Its number in the file, from 1.
    pub line: u64,
    /// The code.
    pub code: String,
    /// A sentence.
    pub message: String,
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Report {
    /// Number of accepted lines.
    pub accepted: u64,
    /// Number of rejected lines.
    pub rejected: u64,
    /// The rejected lines, in their order.
    pub rejections: Vec<Rejection>,
    /// The numbers of the first line and the last one among which there are rejected lines without a reason, with how
    /// many and why.
    pub unnamed: Vec<String>,
    /// Why a part of the batch could not be sent; nothing behind it was tried.
    pub failed: Option<String>,
    /// The order to stop came first.
    pub stopped: bool,
}

/// Sends a batch.
pub(super) fn send(server: &impl Server, batch: Batch) -> Report {
    let mut report = Report::default();
    // The parts that are left, the next one last.
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        let (arrays, part) = leave_arrays(part);
        report.add_local(arrays);
        if part.is_empty() {
            continue;
        }
        match server.send(&part) {
            Verdict::Taken(reply) => report.add(server, &part, reply),
            Verdict::TooMuch(_) if part.lines() > 1 => {
                let half = part.lines() / 2;
                let (first, second) = part.split(half);
                parts.extend([second, first]);
            }
            Verdict::TooMuch(reason) => report.add_local(vec![Rejection {
                line: part.first_line(),
                code: "line_too_long".to_owned(),
                message: format!("The server refuses a request with this line alone: {reason}"),
            }]),
            Verdict::Refused(reason) => {
                report.failed = Some(reason);
                return report;
            }
            Verdict::Stopped => {
                report.stopped = true;
                return report;
            }
        }
    }
    report
}

/// Splits off the lines because of which the server would take a body for one JSON array.
fn leave_arrays(mut batch: Batch) -> (Vec<Rejection>, Batch) {
    let mut arrays = Vec::new();
    while let Some(lines) = batch.array_lines() {
        let line = batch.first_line() + lines - 1;
        let message = "The line is an array, and no object.".to_owned();
        arrays.push(Rejection { line, code: "not_an_object".to_owned(), message });
        (_, batch) = batch.split(lines);
    }
    (arrays, batch)
}

impl Report {
    /// Adds lines that the server was not given, or does not take.
    fn add_local(&mut self, rejections: Vec<Rejection>) {
        self.rejected += rejections.len() as u64;
        self.rejections.extend(rejections);
    }

    /// Adds the reply to a batch. A reply names the first rejected lines only, and that to a request that was sent
    /// before names none: dry runs of what follows name the others.
    fn add(&mut self, server: &impl Server, batch: &Batch, reply: Reply) {
        self.accepted += reply.accepted.unwrap_or_default();
        self.rejected += reply.rejected;
        let (mut left, mut rest) = (reply.rejected, batch.clone());
        let mut errors = reply.errors;
        while left > 0 {
            let last = errors.last().map_or(0, |error| error.line);
            left = left.saturating_sub(errors.len() as u64);
            let before = rest.first_line() - 1;
            self.rejections.extend(errors.into_iter().map(|error| named(before, error)));
            (_, rest) = rest.split(last);
            // Inside of the batch such a line was a rejected one.
            let (arrays, behind) = if left > 0 { leave_arrays(rest) } else { (Vec::new(), rest) };
            rest = behind;
            left = left.saturating_sub(arrays.len() as u64);
            self.rejections.extend(arrays);
            if left == 0 {
                return;
            }
            let reason = match server.ask(&rest) {
                Verdict::Taken(Reply { errors: more, .. }) if !more.is_empty() => {
                    errors = more;
                    continue;
                }
                Verdict::Taken(_) => "the server names no more of them".to_owned(),
                Verdict::TooMuch(reason) | Verdict::Refused(reason) => reason,
                Verdict::Stopped => "send was stopped".to_owned(),
            };
            let (first, last) = (rest.first_line(), rest.first_line() + rest.lines().saturating_sub(1));
            self.unnamed.push(format!("{left} of the lines {first} to {last} were rejected as well: {reason}"));
            return;
        }
    }
}

fn named(before: u64, error: LineError) -> Rejection {
    Rejection { line: before.saturating_add(error.line), code: error.code, message: error.message }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::super::batch::{BatchLimits, Batcher, Piece};
    use super::*;

    /// A server for which every line but `ok` is bad, with limits of its own.
    struct Naive {
        errors_listed: usize,
        bad_max: u64,
        lines_max: u64,
        /// Bodies by key.
        stored: RefCell<HashMap<String, String>>,
        asked: RefCell<usize>,
    }

    impl Naive {
        fn new(errors_listed: usize, bad_max: u64, lines_max: u64) -> Self {
            Self { errors_listed, bad_max, lines_max, stored: RefCell::default(), asked: RefCell::default() }
        }

        fn verdict(&self, body: &str, is_repeated: bool) -> Verdict {
            assert!(!body.trim_start().starts_with('['), "it would be one array");
            let bad = |line: &&(usize, &str)| line.1.trim() != "ok" && !line.1.trim().is_empty();
            let lines: Vec<(usize, &str)> = body.lines().enumerate().collect();
            let errors = lines.iter().filter(bad).map(|(place, line)| LineError {
                line: *place as u64 + 1,
                code: "bad".into(),
                message: (*line).into(),
            });
            let rejected = lines.iter().filter(bad).count() as u64;
            if lines.len() as u64 > self.lines_max || rejected > self.bad_max {
                return Verdict::TooMuch("too much".into());
            }
            let listed = if is_repeated { 0 } else { self.errors_listed };
            let accepted = lines.iter().filter(|(_, line)| line.trim() == "ok").count() as u64;
            let errors = errors.take(listed).collect();
            Verdict::Taken(Reply { accepted: Some(accepted), rejected, errors, ..Reply::default() })
        }
    }

    impl Server for Naive {
        fn send(&self, batch: &Batch) -> Verdict {
            let body = String::from_utf8(batch.body().to_vec()).unwrap();
            let is_repeated = self.stored.borrow().contains_key(&batch.key());
            let verdict = self.verdict(&body, is_repeated);
            if matches!(verdict, Verdict::Taken(_)) {
                self.stored.borrow_mut().insert(batch.key(), body);
            }
            verdict
        }

        fn ask(&self, batch: &Batch) -> Verdict {
            *self.asked.borrow_mut() += 1;
            self.verdict(std::str::from_utf8(&batch.body()).unwrap(), false)
        }
    }

    fn batch(contents: &str) -> Batch {
        let limits = BatchLimits { lines: u32::MAX, bytes: 1 << 20 };
        match Batcher::new(contents.as_bytes(), "", limits).next() {
            Ok(Some(Piece::Batch(batch))) => *batch,
            _ => panic!("it is one batch"),
        }
    }

    fn rejected(report: &Report) -> Vec<u64> {
        report.rejections.iter().map(|rejection| rejection.line).collect()
    }

    #[test]
    fn every_rejected_line_is_named_once_however_few_a_reply_lists() {
        let contents = "x\nok\n\nx\n[1]\n[2]\nx\nok\n[3]\n\nx";
        for errors_listed in 1..8 {
            for lines_max in 1..12 {
                for bad_max in [1, 2, 100] {
                    let server = Naive::new(errors_listed, bad_max, lines_max);
                    for _ in 0..2 {
                        let report = send(&server, batch(contents));
                        assert_eq!(rejected(&report), [1, 4, 5, 6, 7, 9, 11], "{errors_listed} {lines_max} {bad_max}");
                        assert_eq!((report.accepted, report.rejected), (2, 7));
                        assert_eq!((report.failed, report.unnamed), (None, vec![]));
                    }
                    let stored: usize = server
                        .stored
                        .borrow()
                        .values()
                        .flat_map(|body| body.lines())
                        .filter(|line| *line == "ok")
                        .count();
                    assert_eq!(stored, 2, "the second time has the same keys");
                }
            }
        }
    }

    #[test]
    fn nothing_is_asked_where_all_is_accepted_or_named() {
        let server = Naive::new(100, 1000, 1000);
        assert_eq!(send(&server, batch("ok\nok\n")), Report { accepted: 2, ..Report::default() });
        assert_eq!(rejected(&send(&server, batch("x\nok\nx"))), [1, 3]);
        assert_eq!(*server.asked.borrow(), 0);
    }

    #[test]
    fn a_line_that_is_refused_alone_is_a_rejected_line() {
        let server = Naive::new(100, 0, 1000);
        let report = send(&server, batch("ok\nx\nok\n[1]\nok"));
        assert_eq!((report.accepted, report.rejected), (3, 2));
        let codes: Vec<(u64, &str)> = report.rejections.iter().map(|found| (found.line, found.code.as_str())).collect();
        assert_eq!(codes, [(2, "line_too_long"), (4, "not_an_object")]);
    }

    /// Takes one request, then answers this.
    struct Once(RefCell<Vec<Verdict>>);

    impl Server for Once {
        fn send(&self, _: &Batch) -> Verdict {
            self.0.borrow_mut().remove(0)
        }

        fn ask(&self, batch: &Batch) -> Verdict {
            self.send(batch)
        }
    }

    #[test]
    fn a_server_that_names_no_more_lines_is_not_asked_for_ever() {
        let taken = |rejected| Verdict::Taken(Reply { accepted: Some(1), rejected, ..Reply::default() });
        let report = send(&Once(RefCell::new(vec![taken(5), taken(5)])), batch("a\nb\nc\n"));
        assert_eq!(report.unnamed, ["5 of the lines 1 to 3 were rejected as well: the server names no more of them"]);
        assert_eq!((report.rejected, report.failed), (5, None));
        let report = send(&Once(RefCell::new(vec![taken(1), Verdict::Refused("no".into())])), batch("a\n"));
        assert_eq!(report.unnamed, ["1 of the lines 1 to 1 were rejected as well: no"]);
    }

    #[test]
    fn what_is_behind_a_failure_is_not_tried() {
        let answers = vec![Verdict::TooMuch("large".into()), Verdict::Refused("no".into())];
        let report = send(&Once(RefCell::new(answers)), batch("ok\nok\n"));
        assert_eq!(report, Report { failed: Some("no".into()), ..Report::default() });
        let report = send(&Once(RefCell::new(vec![Verdict::Stopped])), batch("ok\nok\n"));
        assert!(report.stopped && report.failed.is_none());
    }
}
