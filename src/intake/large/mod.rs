//! Requests whose content is longer than [`SLICE_BYTES`]: decoded and encoded in slices of
//! [`LARGE_SLICE_BYTES`], one a turn, so that the worker's other connections are served between, and into a batch of their own.
//!
//! ```text
//!          coded                 has a key            last slice
//! begin ─────────▶ Decode ──────▶ Hash ──────▶ Encode ──────────▶ the batch joins the others
//!            (plain: from Hash or Encode on)     │ refused, dry run: the batch is emptied
//! ```
//!
//! A worker has one such request under way. Others wait in line, and hold nothing but their input. The
//! request belongs to a connection, which passes it again in each turn; when the connection is gone, or
//! has refused it, the worker gives it up, and nothing of it is stored. Nothing leaves the batch before
//! the last slice, so a request is all or nothing here as well.
//!
//! When the columns of its table change in the middle, the encoding begins again: a batch has rows of one
//! version. When the table becomes unavailable, the request ends with that.

use std::collections::VecDeque;

use super::budget::{Charge, Size};
use super::context::{Charging, Joining, RequestContext, count, sample};
use super::live::LiveLine;
use super::outbox::{Outbox, OwnBatch, Waiter};
use crate::api::{Answer, Fault, IngestOptions, Reply, Route, Shed, TABLE_UNAVAILABLE, Taken};
use crate::batch::TableIndex;
use crate::connection::{Served, Unfinished};
use crate::http::Coding;
use crate::http::coding::{Advanced, ContentDecoder};
use crate::limits::{LARGE_SLICE_BYTES, SLICE_BYTES};

/// The large request of a worker, those that wait, and the spare decoder.
#[derive(Default)]
pub(crate) struct LargeRequests {
    place: Place,
    /// Connections with a large request, in the order in which they came.
    line: VecDeque<Waiter>,
    /// The decoder for small bodies. A body that turns out to be large takes it along.
    spare: Option<Box<ContentDecoder>>,
}

/// The place of the large request that is under way.
#[derive(Default)]
enum Place {
    #[default]
    Free,
    /// Kept for the first of the line.
    Promised(Waiter),
    Taken(Box<Large>),
}

/// A request under way.
struct Large {
    waiter: Waiter,
    taken: Taken,
    own: OwnBatch,
    /// Has the content of a coded body.
    decoder: Option<Box<ContentDecoder>>,
    /// What the decoded content takes of the budget.
    charge: Charge,
    stage: Stage,
    /// Lines for those who watch.
    samples: Vec<LiveLine>,
}

/// What is done with the next slice.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Decode,
    /// The offset of the slice.
    Hash(usize),
    Encode,
}

impl LargeRequests {
    /// True when the request under way is that of this connection.
    pub(super) fn is_of(&self, waiter: Waiter) -> bool {
        matches!(&self.place, Place::Taken(large) if large.waiter == waiter)
    }

    /// True when the place is that of this connection: its request is under way, or the next one.
    pub(crate) fn has_place(&self, waiter: Waiter) -> bool {
        self.is_of(waiter) || matches!(self.place, Place::Promised(of) if of == waiter)
    }

    /// Puts a connection at the end of the line.
    pub(crate) fn wait(&mut self, waiter: Waiter) {
        self.line.push_back(waiter);
    }

    /// Gives up what belongs to no connection any more, and returns the connection whose turn has come.
    pub(crate) fn tend(
        &mut self,
        outbox: &mut Outbox,
        mut is_unfinished: impl FnMut(Waiter) -> bool,
    ) -> Option<Waiter> {
        match &self.place {
            Place::Taken(large) if is_unfinished(large.waiter) => return None,
            Place::Promised(waiter) if is_unfinished(*waiter) => return None,
            Place::Taken(_) | Place::Promised(_) => self.give_up(outbox),
            Place::Free => {}
        }
        while let Some(waiter) = self.line.pop_front() {
            if is_unfinished(waiter) {
                self.place = Place::Promised(waiter);
                return Some(waiter);
            }
        }
        None
    }

    /// Begins the encoding again, because the columns of the table have changed, or it became unavailable.
    pub(crate) fn change_schema(&mut self, table: TableIndex) {
        if let Place::Taken(large) = &mut self.place
            && large.taken.options.table == table
            && matches!(large.stage, Stage::Encode)
        {
            large.taken.restart();
            large.own.roll_back();
        }
    }

    /// Gives back the memory that is kept for the next coded body.
    pub(crate) fn shrink(&mut self) {
        self.spare = None;
    }

    fn give_up(&mut self, outbox: &mut Outbox) {
        if let Place::Taken(large) = std::mem::take(&mut self.place) {
            outbox.put_back(large.own);
            self.keep(large.decoder);
        }
    }

    /// Keeps a decoder for the next coded body.
    fn keep(&mut self, decoder: Option<Box<ContentDecoder>>) {
        if let Some(mut decoder) = decoder
            && self.spare.is_none()
        {
            decoder.rest();
            self.spare = Some(decoder);
        }
    }
}

impl RequestContext<'_> {
    /// Decodes a body and serves it, or begins a large request.
    pub(super) fn serve_coded(&mut self, options: IngestOptions, coding: Coding, body: &[u8]) -> Served {
        /// What a body counts for beside its content.
        const BODY_COST: usize = 4 << 10;
        if self.shared.health.is_stuck() {
            return Served::Answered(self.shed(Shed::CommitTimeout));
        }
        if self.decoded_left == 0 {
            return Served::Unfinished(Unfinished::NextTurn);
        }
        let mut decoder = self.large.spare.take().unwrap_or_default();
        if !decoder.begin(coding, self.shared.request_limits.body_bytes_max) {
            return Served::Answered(self.shed(Shed::InFlightBytes));
        }
        let advanced = decoder.advance(body, SLICE_BYTES);
        self.decoded_left = self.decoded_left.saturating_sub(decoder.content().len() + BODY_COST);
        let answer = match advanced {
            Err(refusal) => Answer::Now(Reply::Fault(refusal.into())),
            Ok(Advanced::Done) => self.serve_at_once(Route::Events(options), decoder.content()),
            Ok(Advanced::More | Advanced::Full) => return self.begin_large(options, body, Some(decoder)),
        };
        self.large.keep(Some(decoder));
        Served::Answered(answer)
    }

    /// Begins a large request, or waits in line. `decoder` has the front of the content of a coded body.
    pub(super) fn begin_large(
        &mut self,
        options: IngestOptions,
        body: &[u8],
        decoder: Option<Box<ContentDecoder>>,
    ) -> Served {
        let may_begin = match &self.large.place {
            Place::Free => self.large.line.is_empty(),
            Place::Promised(waiter) => *waiter == self.waiter,
            Place::Taken(_) => false,
        };
        if !may_begin {
            self.large.keep(decoder);
            return Served::Unfinished(Unfinished::InLine);
        }
        self.large.place = Place::Free;
        let mut charge = self.replies.another();
        if !charge.grow(decoder.as_ref().map_or(0, |decoder| decoder.memory()), Size::Large) {
            self.large.keep(decoder);
            return Served::Answered(self.shed(Shed::InFlightBytes));
        }
        let Some(own) = self.outbox.open_own(options.table) else {
            self.large.keep(decoder);
            return Served::Answered(self.shed(Shed::InFlightBytes));
        };
        let taken = self.api.begin(options, self.origin());
        let stage = if decoder.is_some() { Stage::Decode } else { first_stage(&taken) };
        let large = Large { waiter: self.waiter, taken, own, decoder, charge, stage, samples: Vec::new() };
        self.large.place = Place::Taken(Box::new(large));
        self.continue_large(body)
    }

    /// Takes the next slice of the large request, and answers it after the last one.
    pub(super) fn continue_large(&mut self, body: &[u8]) -> Served {
        let Place::Taken(mut large) = std::mem::take(&mut self.large.place) else {
            return Served::Unfinished(Unfinished::InLine);
        };
        self.decoded_left = self.decoded_left.saturating_sub(LARGE_SLICE_BYTES);
        match self.take_slice(&mut large, body) {
            Ok(None) => {
                self.large.place = Place::Taken(large);
                Served::Unfinished(Unfinished::NextTurn)
            }
            Ok(Some(answer)) => Served::Answered(self.conclude(*large, answer)),
            Err(answer) => Served::Answered(self.conclude(*large, answer)),
        }
    }

    /// One slice: the answer when it was the last one, or an error that ends the request.
    fn take_slice(&mut self, large: &mut Large, body: &[u8]) -> Result<Option<Answer>, Answer> {
        let Large { taken, own, decoder, charge, stage, samples, .. } = large;
        if matches!(stage, Stage::Decode) {
            if self.decode_slice(decoder.as_deref_mut(), charge, body)? {
                *stage = first_stage(taken);
            }
            return Ok(None);
        }
        let content = decoder.as_ref().map_or(body, |decoder| decoder.content());
        match *stage {
            Stage::Decode => {}
            Stage::Hash(at) => {
                let end = at.saturating_add(LARGE_SLICE_BYTES).min(content.len());
                taken.hash(content.get(at..end).unwrap_or_default());
                *stage = if end == content.len() { Stage::Encode } else { Stage::Hash(end) };
            }
            Stage::Encode => {
                let Some(encoded) = self.api.take_slice(content, LARGE_SLICE_BYTES, taken, own.batch()) else {
                    return Err(Answer::Now(Reply::Fault(TABLE_UNAVAILABLE)));
                };
                own.account();
                if encoded != Ok(false) {
                    if self.shared.live.is_watched() {
                        let Taken { options, report, origin, .. } = &*taken;
                        *samples = sample(self.api, &self.shared.live, *options, content, Some(report), origin);
                    }
                    return Ok(Some(own.conclude(taken, encoded.map(drop))));
                }
            }
        }
        Ok(None)
    }

    /// Decodes a slice; true when the content is complete.
    fn decode_slice(
        &self,
        decoder: Option<&mut ContentDecoder>,
        charge: &mut Charge,
        body: &[u8],
    ) -> Result<bool, Answer> {
        let Some(decoder) = decoder else { return Ok(true) };
        match decoder.advance(body, LARGE_SLICE_BYTES) {
            Ok(Advanced::Done) => return Ok(true),
            Ok(Advanced::More) => {}
            Ok(Advanced::Full) => {
                let more = decoder.grown_capacity().saturating_sub(charge.bytes());
                if !charge.grow(more, Size::Large) {
                    return Err(self.shed(Shed::InFlightBytes));
                }
                decoder.grow();
                charge.set(decoder.memory());
            }
            Err(refusal) => return Err(Answer::Now(Reply::Fault(Fault::from(refusal)))),
        }
        Ok(false)
    }

    /// Hands over the batch of a request if its answer waits for the commit, and empties it if not.
    fn conclude(&mut self, large: Large, answer: Answer) -> Answer {
        let Large { taken, mut own, decoder, samples, .. } = large;
        self.large.keep(decoder);
        let Taken { options, report, .. } = &taken;
        let charging = Charging { quotas: &self.shared.quotas, address: self.client_ip, quota: &mut self.quota };
        if matches!(answer, Answer::Now(_)) {
            self.outbox.put_back(own);
            if let Err(over) = charging.charge(&answer, *options, report) {
                return Answer::Now(Reply::Fault(over.fault()));
            }
            count(report, *options, self.metrics, false);
            return answer;
        }
        let (options, waiter) = (*options, self.waiter);
        let joining = Joining { options, replies: self.replies, metrics: self.metrics, waiter, samples, charging };
        // It may be refused yet.
        let (answer, _) = joining.join(answer, report, own.fill());
        self.outbox.hand_over_own(own, &self.shared.handoff);
        answer
    }
}

fn first_stage(taken: &Taken) -> Stage {
    if taken.needs_hash() { Stage::Hash(0) } else { Stage::Encode }
}

#[cfg(feature = "codings")]
#[cfg(test)]
mod tests;
