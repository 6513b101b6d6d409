//! The input and output of one connection: reading, serving, sending and time-outs.

use std::time::Duration;

use super::Worker;
use super::slot::{ReadOutcome, read_some};
use crate::api::{Fault, Shed};
use crate::connection::Waiting;
use crate::http::Status;
use crate::intake::RequestContext;
use crate::intake::outbox::Waiter;
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
            return;
        }
        if slot.lingering {
            return self.discard(index);
        }
        if !self.outbox.has_room() {
            // The visit is repeated when the committer has returned a batch.
            return self.enqueue(index);
        }
        if !self.receive(index) || !self.send(index) {
            return;
        }
        if let Some(Some(slot)) = self.slots.get_mut(index) {
            // A connection that is paused for lack of a batch is queued. One that is paused because too
            // many replies are pending is queued when one of them is sent.
            let due = if slot.connection.is_paused() {
                !self.outbox.has_room()
            } else {
                slot.readable && !slot.connection.is_closing() && slot.unsent.is_empty()
            };
            if due {
                self.enqueue(index);
            }
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
            shared: &self.shared,
            metrics: &self.metrics,
            waiter: Waiter { slot: index, generation: slot.generation },
            client_ip: slot.peer,
        };
        let limits = &self.shared.request_limits;
        if slot.connection.is_closing() {
            return true;
        }
        if !slot.kept.is_empty() && slot.connection.is_paused() {
            // Kept input is served before new input is read.
            let received = slot.connection.receive(&mut slot.kept, limits, &mut context);
            slot.kept.truncate(received.kept.end);
            slot.kept.drain(..received.kept.start);
            if slot.kept.is_empty() {
                self.buffers.give_back(&mut slot.kept);
            }
            if slot.connection.is_paused() {
                return true;
            }
        }
        if !slot.readable {
            return true;
        }
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
        let kept_all = if slot.kept.is_empty() {
            let received = slot.connection.receive(fresh, limits, &mut context);
            let kept = fresh.get(received.kept).unwrap_or_default();
            kept.is_empty() || self.buffers.append(&mut slot.kept, kept, received.expected)
        } else {
            let expected = slot.connection.expected();
            let appended = self.buffers.append(&mut slot.kept, fresh, expected);
            if appended {
                let received = slot.connection.receive(&mut slot.kept, limits, &mut context);
                slot.kept.truncate(received.kept.end);
                slot.kept.drain(..received.kept.start);
            }
            appended
        };
        if !kept_all {
            self.metrics.shed(Shed::InFlightBytes, 1);
            slot.connection.refuse(Shed::InFlightBytes.into());
            slot.kept.clear();
        }
        if slot.kept.is_empty() || slot.connection.is_closing() {
            slot.kept.clear();
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
        let last = self.shared.handoff.lifecycle.is_stopping() && slot.kept.is_empty();
        let metrics = &self.metrics;
        slot.connection.render(&mut self.out, &self.date, last, |status| metrics.replies.count(status.code()));
        if !self.out.is_empty() && !slot.write(&self.out) {
            self.close(index);
            return false;
        }
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
        if peer_is_done || !slot.connection.was_refused() {
            self.close(index);
            return false;
        }
        slot.linger();
        slot.deadline = (Waiting::Reply, self.now + Duration::from_secs(limits::LINGER_SECONDS));
        self.enqueue(index);
        true
    }

    /// Reads once from a lingering connection and drops the input.
    fn discard(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        match read_some(&mut slot.stream, &mut self.scratch, slot.read_closed) {
            ReadOutcome::Bytes(_) => self.enqueue(index),
            ReadOutcome::Drained(_) => slot.readable = false,
            ReadOutcome::End | ReadOutcome::Broken => self.close(index),
        }
    }

    /// Sets the deadline of what the connection waits for now.
    pub(super) fn set_deadline(&mut self, index: usize) {
        let timeouts = &self.shared.timeouts;
        if let Some(Some(slot)) = self.slots.get_mut(index) {
            let waiting = slot.connection.waiting();
            // The deadline of a head is set once; that of a body is renewed by every read.
            if slot.lingering || (waiting == Waiting::Head && slot.deadline.0 == Waiting::Head) {
                return;
            }
            let time = match waiting {
                Waiting::Head => timeouts.head,
                Waiting::Body => timeouts.body,
                Waiting::Request => timeouts.idle,
                Waiting::Reply => timeouts.idle.max(timeouts.commit * 2 + timeouts.inserted),
            };
            slot.deadline = (waiting, self.now + time);
        }
    }

    /// Handles a passed deadline: answers 408 to an incomplete request, and closes the connection.
    pub(super) fn time_out(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        let message = match slot.connection.waiting() {
            Waiting::Head if !slot.lingering => "The head of the request took too long to arrive.",
            Waiting::Body if !slot.lingering => "The body of the request took too long to arrive.",
            _ => return self.close(index),
        };
        slot.connection.refuse(Fault::new(Status::RequestTimeout, "request_timeout", message));
        self.buffers.give_back(&mut slot.kept);
        self.send(index);
    }
}
