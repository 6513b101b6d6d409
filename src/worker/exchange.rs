//! The input and output of one connection: reading, serving, sending and time-outs.

use std::time::Duration;

use super::Worker;
use super::slot::{ReadOutcome, read_some};
use super::timers::Until;
use crate::api::{Fault, Shed};
use crate::connection::{Unfinished, Waiting};
use crate::http::Status;
use crate::intake::RequestContext;
use crate::intake::budget::Size;
use crate::limits;

impl Worker {
    /// Reads once from a connection, serves complete requests, and sends replies.
    pub(super) fn visit(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        slot.queued = false;
        if !slot.write_unsent() {
            return self.close(index);
        }
        if !slot.unsent.is_empty() {
            // The requests of a peer that does not read its replies are not read.
            return slot.account();
        }
        if slot.linger.is_some() {
            return self.discard(index);
        }
        if !self.outbox.has_room(Size::Small)
            && !self.shared.health.is_stuck()
            && !self.large.is_of(slot.waiter(index))
            && !slot.asks_for_less_than_events()
        {
            return self.stall(index);
        }
        if !self.receive(index) || !self.send(index) {
            return;
        }
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        if slot.connection.is_closing() || !slot.unsent.is_empty() {
            return;
        }
        if slot.connection.lacks_room() {
            self.stall(index);
        } else if let Some(unfinished) = slot.connection.unfinished() {
            match unfinished {
                Unfinished::NextTurn => self.enqueue(index),
                Unfinished::InLine => {
                    slot.queued = true;
                    self.large.wait(slot.waiter(index));
                }
            }
        } else if slot.connection.is_paused() {
            // A connection that is paused because too many replies are pending is queued when one of them
            // is sent.
            if slot.connection.has_room_for_replies() {
                self.enqueue(index);
            }
        } else if slot.readable {
            self.enqueue(index);
        }
    }

    /// Puts a connection aside until the committer returns a batch.
    fn stall(&mut self, index: usize) {
        if let Some(Some(slot)) = self.slots.get_mut(index)
            && !slot.queued
        {
            slot.queued = true;
            self.stalled.push(index);
        }
    }

    /// Serves the kept input, and then reads once and serves that. Returns false when the connection is
    /// closed.
    pub(super) fn receive(&mut self, index: usize) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        let mut context = RequestContext {
            api: &mut self.api,
            outbox: &mut self.outbox,
            large: &mut self.large,
            shared: &self.shared,
            metrics: &self.metrics,
            waiter: slot.waiter(index),
            client_ip: slot.peer,
            replies: &mut slot.replies,
            decoded_left: limits::SLICE_BYTES,
        };
        let limits = &self.shared.request_limits;
        if slot.connection.is_closing() {
            return true;
        }
        if !slot.kept.bytes.is_empty() && slot.connection.is_paused() {
            // Kept input is served before new input is read.
            let received = slot.connection.receive(&mut slot.kept.bytes, limits, &mut context);
            self.buffers.keep(&mut slot.kept, received.kept);
            if slot.connection.is_paused() {
                return true;
            }
        }
        if !slot.readable {
            return true;
        }
        slot.held_back = false;
        let len = match read_some(&mut slot.stream, &mut self.scratch, slot.read_closed) {
            ReadOutcome::Bytes(len) => len,
            ReadOutcome::Drained(len) => {
                slot.readable = false;
                len
            }
            ReadOutcome::End => {
                slot.readable = false;
                slot.connection.end_of_input();
                self.buffers.give_back(&mut slot.kept);
                return true;
            }
            ReadOutcome::Broken => {
                self.close(index);
                return false;
            }
        };
        let Some(fresh) = self.scratch.get_mut(..len) else {
            return true;
        };
        let kept_all = if slot.kept.bytes.is_empty() {
            let received = slot.connection.receive(fresh, limits, &mut context);
            let kept = fresh.get(received.kept).unwrap_or_default();
            kept.is_empty() || self.buffers.append(&mut slot.kept, kept, received.expected)
        } else {
            let expected = slot.connection.expected();
            let appended = self.buffers.append(&mut slot.kept, fresh, expected);
            if appended {
                let received = slot.connection.receive(&mut slot.kept.bytes, limits, &mut context);
                self.buffers.keep(&mut slot.kept, received.kept);
            }
            appended
        };
        if !kept_all {
            self.metrics.shed(Shed::InFlightBytes, 1);
            slot.connection.refuse(Shed::InFlightBytes.into());
        }
        if slot.connection.is_closing() {
            self.buffers.give_back(&mut slot.kept);
        }
        true
    }

    /// Renders and sends the replies that may be sent now. Returns false when the connection is closed.
    pub(super) fn send(&mut self, index: usize) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        self.out.clear();
        let last = self.shared.handoff.lifecycle.is_stopping() && slot.kept.bytes.is_empty();
        let metrics = &self.metrics;
        slot.connection.render(&mut self.out, &self.date, last, |status| metrics.replies.count(status.code()));
        if !self.out.is_empty() && !slot.write(&self.out) {
            self.close(index);
            return false;
        }
        self.out.shrink_to(limits::RENDER_BYTES_KEPT);
        slot.account();
        if slot.connection.is_finished() && slot.unsent.is_empty() {
            return self.end(index);
        }
        self.set_deadline(index);
        true
    }

    /// Ends a connection whose last reply is sent: closes it, or lingers if the peer may still be
    /// sending. Returns false when the connection is closed.
    fn end(&mut self, index: usize) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        let peer_is_done = slot.read_closed && !slot.readable;
        // The last reply of a stop comes unforeseen: more requests may be on their way.
        let may_send_more = slot.connection.was_refused() || self.shared.handoff.lifecycle.is_stopping();
        if peer_is_done || !may_send_more {
            self.close(index);
            return false;
        }
        slot.linger(self.now);
        self.timers.set(index, Until::Other, self.now + Duration::from_secs(limits::LINGER_SECONDS));
        self.enqueue(index);
        true
    }

    /// Reads once from a lingering connection and drops the input.
    fn discard(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        let len = match read_some(&mut slot.stream, &mut self.scratch, slot.read_closed) {
            ReadOutcome::Bytes(len) => {
                self.visits.push_back(index);
                slot.queued = true;
                len
            }
            ReadOutcome::Drained(len) => {
                slot.readable = false;
                len
            }
            ReadOutcome::End | ReadOutcome::Broken => return self.close(index),
        };
        let Some(linger) = &mut slot.linger else {
            return;
        };
        linger.bytes += len as u64;
        if linger.bytes > limits::LINGER_BYTES_MAX {
            return self.close(index);
        }
        if len > 0 && !self.shared.handoff.lifecycle.is_stopping() {
            let end = linger.since + Duration::from_secs(limits::LINGER_SECONDS_MAX);
            let pause = self.now + Duration::from_secs(limits::LINGER_SECONDS);
            self.timers.set(index, Until::Other, end.min(pause));
        }
    }

    /// Sets the deadline of what the connection waits for now.
    pub(super) fn set_deadline(&mut self, index: usize) {
        let timeouts = &self.shared.timeouts;
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        let (waiting, number) = (slot.connection.waiting(), slot.connection.requests());
        // A head's time is not renewed by each of its bytes, nor an idle connection's by what is no
        // request; a body's is, within that of the whole body.
        let is_renewed = matches!(waiting, Waiting::Body | Waiting::Reply) || slot.timed != (waiting, number);
        if slot.linger.is_some() || !is_renewed {
            return;
        }
        slot.timed = (waiting, number);
        let (until, at) = match waiting {
            Waiting::Head => (Until::Other, self.now + timeouts.head),
            Waiting::Body => {
                if slot.body.0 != number {
                    slot.body = (number, self.now);
                }
                let whole = slot.body.1 + timeouts.whole_body(slot.connection.body_len());
                (Until::Other, whole.min(self.now + timeouts.body))
            }
            Waiting::Request => (Until::Idle, self.now + timeouts.idle),
            Waiting::Reply => (Until::Reply, self.now + timeouts.idle.max(timeouts.commit * 2 + timeouts.inserted)),
        };
        self.timers.set(index, until, at);
    }

    /// Handles a passed deadline: answers 408 to an incomplete request, and closes the connection.
    pub(super) fn time_out(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        let message = match slot.connection.waiting() {
            Waiting::Head if slot.linger.is_none() => "The head of the request took too long to arrive.",
            Waiting::Body if slot.linger.is_none() => "The body of the request took too long to arrive.",
            _ => return self.close(index),
        };
        slot.connection.refuse(Fault::new(Status::RequestTimeout, "request_timeout", message));
        self.buffers.give_back(&mut slot.kept);
        self.send(index);
    }
}
