//! A request whose events are taken over several turns, and the answer to any request with events.

use super::IngestOptions;
use super::fault::Fault;
use super::reply::{Ack, Answer, Reply};
use crate::batch::identity::{BodyHasher, Id, RequestKey, Summary};
use crate::batch::{Batch, Mark};
use crate::ndjson::{EncodeRefusal, Origin, Progress, Report};

/// A request whose body is encoded in slices, as far as it has come.
#[derive(Debug)]
pub struct Taken {
    /// The options of the request.
    pub options: IngestOptions,
    /// The numbers and errors of the lines so far.
    pub report: Report,
    /// Where and when it came from.
    pub origin: Origin,
    pub(super) progress: Progress,
    hasher: BodyHasher,
}

impl Taken {
    /// A request of which nothing is encoded.
    pub(super) fn new(options: IngestOptions, origin: Origin, hasher: BodyHasher) -> Self {
        Self { options, report: Report::default(), origin, progress: Progress::default(), hasher }
    }

    /// True when the body has to be hashed, for the identity of the request.
    pub fn needs_hash(&self) -> bool {
        self.options.key.is_some() && !self.options.dry_run
    }

    /// Adds the next part of the body to its hash.
    pub fn hash(&mut self, part: &[u8]) {
        self.hasher.update(part);
    }

    /// Begins the encoding again, for another plan. The caller empties the batch.
    pub fn restart(&mut self) {
        self.progress = Progress::default();
        self.report.clear();
    }

    /// The answer, once all slices are encoded or one was refused. As [`super::Api::take_events`]; the
    /// batch has nothing of another request.
    pub fn conclude(&self, encoded: Result<(), EncodeRefusal>, before: Mark, batch: &mut Batch) -> Answer {
        if encoded.is_err() {
            batch.roll_back(before);
        }
        let key = |id, summary| RequestKey { id, body: self.hasher.finish(), summary };
        answer(encoded, self.options, &self.report, before, batch, key)
    }
}

/// The answer to a request whose events were encoded into `batch`, which had the length `before`.
pub(super) fn answer(
    encoded: Result<(), EncodeRefusal>,
    options: IngestOptions,
    report: &Report,
    before: Mark,
    batch: &mut Batch,
    key: impl FnOnce(Id, Summary) -> RequestKey,
) -> Answer {
    let refused = match encoded {
        Ok(()) => false,
        Err(EncodeRefusal::TooManyBadLines) => true,
        Err(refusal) => return Answer::Now(Reply::Fault(Fault::from(refusal))),
    };
    let Report { accepted, rejected, ref errors, .. } = *report;
    let summary = Summary { accepted, rejected, refused };
    let reply = Reply::of(summary, errors, report.has_elements);
    let is_empty = before == batch.mark();
    let key = options.key.filter(|_| !options.dry_run).map(|id| key(id, summary));
    if options.dry_run || is_empty && key.is_none() {
        return Answer::Now(reply);
    }
    let keyed = key.map(|key| batch.add_keyed(key, before));
    let ack = if accepted > 0 { options.ack } else { Ack::Disk };
    Answer::AfterCommit { reply, sequence: batch.sequence, keyed, ack }
}
