//! Where the committer and the keeper meet: the next segment goes one way, full segments the other. Each
//! locks it once a segment.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::repeats::Identities;
use super::segment::OpenSegment;
use crate::batch::{BlockNumber, CommitRefusal, TableIndex};

/// A segment more is not begun while so many are not sealed: with `written` none of their frames may be on
/// the disk.
const UNSEALED_MAX: usize = 2;

/// The shelf between the two.
pub(super) struct Shelf {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    ready: Option<OpenSegment>,
    /// Why there is no next segment: the answer to the committer, who takes it away. It is found out again for
    /// each group that is refused.
    refusal: Option<CommitRefusal>,
    /// There is no next segment, and it was tried.
    is_refused: bool,
    /// The committer has a segment to write to.
    is_writing: bool,
    handed_over: Vec<OpenSegment>,
    /// Segments with frames that were handed over and are not sealed.
    unsealed: usize,
    /// A write of the committer failed: nothing is written to the disk before that segment is sealed and
    /// another one made.
    failed: Option<CommitRefusal>,
    /// Identities of segments that the keeper has recovered.
    recovered: Vec<(BlockNumber, TableIndex, Identities)>,
    /// The committer waits for an answer.
    is_asked: bool,
    /// The keeper is at it.
    is_answering: bool,
    is_finished: bool,
}

/// What the committer gets.
pub(super) enum Next {
    Segment(Box<OpenSegment>, Vec<(BlockNumber, TableIndex, Identities)>),
    Refused(CommitRefusal),
    /// The keeper has not answered yet.
    NotYet,
}

/// What the keeper finds to do.
pub(super) struct Errands {
    pub(super) handed_over: Vec<OpenSegment>,
    /// The next segment is to be made.
    pub(super) make: bool,
    /// Why the committer's write failed.
    pub(super) failed: Option<CommitRefusal>,
    pub(super) is_finished: bool,
}

impl Shelf {
    pub(super) fn new() -> Self {
        let state = State {
            ready: None,
            refusal: None,
            is_refused: false,
            is_writing: false,
            handed_over: Vec::new(),
            unsealed: 0,
            failed: None,
            recovered: Vec::new(),
            is_asked: false,
            is_answering: false,
            is_finished: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next segment.
    pub(super) fn take(&self) -> Next {
        let mut state = self.lock();
        self.changed.notify_all();
        if state.may_take()
            && let Some(open) = state.ready.take()
        {
            state.is_writing = true;
            // Nobody waits for an answer any more: one that is left would be that to another question.
            (state.refusal, state.is_asked, state.is_answering) = (None, false, false);
            return Next::Segment(Box::new(open), std::mem::take(&mut state.recovered));
        }
        if let Some(refusal) = state.refusal.take() {
            return Next::Refused(refusal);
        }
        state.is_asked = true;
        Next::NotYet
    }

    /// Takes a segment that gets no more frames. `failed` says that what is behind its last frame is unknown.
    pub(super) fn hand_over(&self, open: OpenSegment, failed: Option<CommitRefusal>) {
        let mut state = self.lock();
        state.is_writing = false;
        state.unsealed += usize::from(!open.is_empty());
        state.handed_over.push(open);
        if failed.is_some() {
            state.failed = failed;
            state.put_back();
        }
        self.changed.notify_all();
    }

    /// The committer has come to its end, and has handed over what it had.
    pub(super) fn finish(&self) {
        self.lock().is_finished = true;
        self.changed.notify_all();
    }

    /// Waits until the keeper has answered.
    pub(super) fn wait_for_answer(&self) {
        let state = self.lock();
        drop(self.changed.wait_while(state, |state| !state.may_take() && state.refusal.is_none()));
    }

    /// Waits until there is something to do for the keeper, and at most for this long.
    pub(super) fn wait_for_errands(&self, timeout: Duration) {
        let state = self.lock();
        let is_idle = |state: &mut State| {
            !state.is_finished && !state.is_asked && state.handed_over.is_empty() && !state.wants_one()
        };
        drop(self.changed.wait_timeout_while(state, timeout, is_idle));
    }

    /// What there is to do for the keeper.
    pub(super) fn errands(&self) -> Errands {
        let mut state = self.lock();
        state.is_answering = std::mem::take(&mut state.is_asked);
        let is_wanted = state.ready.is_none() && !state.is_finished;
        Errands {
            handed_over: std::mem::take(&mut state.handed_over),
            make: is_wanted,
            failed: state.failed,
            is_finished: state.is_finished,
        }
    }

    /// Puts the next segment there. `failed` is the failed write behind which it was made.
    pub(super) fn put(&self, open: OpenSegment, failed: Option<CommitRefusal>) {
        let mut state = self.lock();
        if state.failed.is_some() && failed.is_none() {
            // The write has failed meanwhile.
            state.handed_over.push(open);
            return;
        }
        (state.refusal, state.is_refused, state.failed) = (None, false, None);
        state.ready = Some(open);
        self.changed.notify_all();
    }

    /// There is no next segment, or the last one can't be sealed, for this reason. True if no event is taken
    /// now.
    pub(super) fn refuse(&self, refusal: CommitRefusal) -> bool {
        let mut state = self.lock();
        state.is_refused = true;
        if std::mem::take(&mut state.is_answering) {
            state.refusal = Some(refusal);
        }
        self.changed.notify_all();
        !state.takes_events()
    }

    /// A segment that was handed over is sealed. True if events are taken now.
    pub(super) fn sealed(&self) -> bool {
        let mut state = self.lock();
        state.unsealed = state.unsealed.saturating_sub(1);
        self.changed.notify_all();
        state.takes_events()
    }

    /// Identities that the committer has to remember before it takes the next segment.
    pub(super) fn recovered(&self, found: Vec<(BlockNumber, TableIndex, Identities)>) {
        self.lock().recovered.extend(found);
    }

    /// The segment that was ready, at the end.
    pub(super) fn clear(&self) -> Option<OpenSegment> {
        self.lock().ready.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside the lock ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_take(&self) -> bool {
        self.ready.is_some() && self.failed.is_none() && self.unsealed < UNSEALED_MAX
    }

    fn takes_events(&self) -> bool {
        self.is_writing || self.may_take()
    }

    fn wants_one(&self) -> bool {
        self.ready.is_none() && !self.is_refused
    }

    /// Gives back the segment that was made, which is not to be used.
    fn put_back(&mut self) {
        self.handed_over.extend(self.ready.take());
        (self.refusal, self.is_refused) = (None, false);
    }
}
