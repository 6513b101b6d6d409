//! Bytes of one connection: in, through its state machine, and out.

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
    /// Reads once from a connection, serves what is complete, and sends what is due.
    pub(super) fn visit(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        slot.queued = false;
        if !slot.write_unsent() {
            return self.close(index);
        }
        if !slot.unsent.is_empty() {
            // A peer that does not read its replies is not read either.
            return;
        }
        if slot.lingering {
            return self.discard(index);
        }
        if !self.outbox.has_room() {
            // Comes again by itself when the committer returns a batch.
            return self.enqueue(index);
        }
        if !self.receive(index) || !self.send(index) {
            return;
        }
        if let Some(Some(slot)) = self.slots.get_mut(index) {
            // Paused for the want of a batch, it comes again with the next one; for the want of room
            // for replies, when one of them leaves.
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

    /// False when the connection is gone.
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
            // What is there already comes first.
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

    /// Renders the replies whose turn it is and sends them. False when the connection is gone.
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

    /// The last reply is out: close, or read on for a while if the peer may still be sending.
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

    pub(super) fn set_deadline(&mut self, index: usize) {
        let timeouts = &self.shared.timeouts;
        if let Some(Some(slot)) = self.slots.get_mut(index) {
            let waiting = slot.connection.waiting();
            // A head's time is not renewed by each of its bytes; a body's is.
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

    pub(super) fn time_out(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        let message = match slot.connection.waiting() {
            Waiting::Head if !slot.lingering => "The head of the request took too long.",
            Waiting::Body if !slot.lingering => "The body of the request took too long.",
            _ => return self.close(index),
        };
        slot.connection.refuse(Fault::new(Status::RequestTimeout, "request_timeout", message));
        self.buffers.give_back(&mut slot.kept);
        self.send(index);
    }
}
