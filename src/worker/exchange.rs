//! The input and output of one connection: reading, serving, sending and time-outs.

use std::time::Duration;

use super::Worker;
use super::slot::Slot;
use super::timers::Until;
use crate::api::{Fault, Rendering, Shed};
use crate::connection::{Unfinished, Waiting};
use crate::http::Status;
use crate::intake::RequestContext;
use crate::intake::budget::Size;
use crate::limits;
use crate::net::{ReadOutcome, read_some};

impl Worker {
    /// Reads once from a connection, serves complete requests, and sends replies.
    pub(super) fn visit(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        slot.queued = false;
        self.unvisited -= usize::from(std::mem::take(&mut slot.is_unvisited));
        if !slot.write_unsent() {
            return self.close(index);
        }
        let has_place = self.large.has_place(slot.waiter(index));
        if !slot.unsent.is_empty() && !has_place {
            // The requests of a peer that does not read its replies are not read. A large one that is under
            // way is served to its end, since others wait for its place.
            return slot.account();
        }
        if slot.linger.is_some() {
            return self.discard(index);
        }
        // A refusal may go out before the header has come, but none goes through TLS before its handshake.
        let is_refused = slot.connection.is_closing() && !slot.transport.is_handshaking();
        if slot.awaits_proxy_header && !is_refused && !self.read_proxy_header(index) {
            return;
        }
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        if !self.outbox.has_room(Size::Small)
            && !self.shared.health.is_stuck()
            && !has_place
            && !slot.asks_for_less_than_events()
        {
            return self.stall(index);
        }
        let requests = slot.connection.requests();
        if !self.receive(index) || !self.send(index) {
            return;
        }
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        self.visits.work += usize::try_from(slot.connection.requests() - requests).unwrap_or(0);
        let has_place = self.large.has_place(slot.waiter(index));
        let is_over = slot.connection.is_closing() && !slot.transport.is_handshaking();
        if is_over || !slot.unsent.is_empty() && !has_place {
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
            hop: slot.hop,
            client_ip: None,
            quota: None,
            replies: &mut slot.replies,
            decoded_left: limits::SLICE_BYTES,
        };
        let limits = &self.shared.request_limits;
        if slot.connection.is_closing() && !slot.transport.is_handshaking() {
            return true;
        }
        if !slot.kept.bytes.is_empty() && slot.connection.is_paused() {
            // Kept input is served before new input is read.
            let received = slot.connection.receive(&mut slot.kept.bytes, limits, &mut context);
            self.buffers.keep(&mut slot.kept, received.kept);
            if slot.connection.is_paused() {
                self.visits.count_bytes(limits::SLICE_BYTES - context.decoded_left);
                return true;
            }
        }
        if !slot.readable {
            return true;
        }
        slot.held_back = false;
        self.sealed.clear();
        let read = slot.transport.read(&mut slot.stream, &mut self.scratch, slot.read_closed, &mut self.sealed);
        if !self.sealed.is_empty() && !Slot::write_to(&mut slot.stream, &mut slot.unsent, &self.sealed) {
            self.close(index);
            return false;
        }
        let len = match read {
            ReadOutcome::Bytes(len) => len,
            ReadOutcome::Drained(len) => {
                slot.readable = false;
                len
            }
            ReadOutcome::End if slot.transport.is_handshaking() => {
                self.close(index);
                return false;
            }
            ReadOutcome::End => {
                slot.readable = false;
                slot.connection.end_of_input();
                self.buffers.give_back(&mut slot.kept);
                return true;
            }
            ReadOutcome::Broken if self.sealed.is_empty() => {
                self.close(index);
                return false;
            }
            // The alert that says what is wrong is to be read.
            ReadOutcome::Broken => {
                slot.connection.end_of_input();
                self.buffers.give_back(&mut slot.kept);
                self.linger(index);
                return false;
            }
        };
        self.visits.count_bytes(len);
        // What is kept of an incomplete record is not there unless the budget has room for it.
        let waiting = slot.connection.replies().bytes() + slot.unsent.capacity();
        let more = (waiting + slot.transport.kept_bytes()).saturating_sub(context.replies.bytes());
        if !context.replies.grow(more, Size::Small) {
            if slot.transport.is_handshaking() {
                self.close(index);
                return false;
            }
            self.metrics.shed(Shed::InFlightBytes, 1);
            slot.connection.refuse(Shed::InFlightBytes.into());
            self.buffers.give_back(&mut slot.kept);
            return true;
        }
        let Some(fresh) = self.scratch.plain.get_mut(..len) else {
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
        self.visits.count_bytes(limits::SLICE_BYTES - context.decoded_left);
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
        if slot.transport.is_handshaking() {
            // A connection that is one too many is told so once it can be.
            slot.account();
            return true;
        }
        self.out.clear();
        let last = self.shared.handoff.lifecycle.is_stopping() && slot.kept.bytes.is_empty();
        let metrics = &self.metrics;
        let with = Rendering { date: &self.date, cors: &self.shared.cors, ids: &self.ids };
        slot.connection.render(&mut self.out, &with, last, |status| metrics.replies.count(status.code()));
        let mut is_sent = self.out.is_empty() || slot.write(&self.out, &mut self.sealed);
        if slot.connection.is_finished() {
            is_sent = is_sent && slot.write_close(&mut self.sealed);
        }
        if !is_sent {
            self.close(index);
            return false;
        }
        self.out.shrink_to(limits::RENDER_BYTES_KEPT);
        self.sealed.shrink_to(limits::RENDER_BYTES_KEPT);
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
        let may_send_more = slot.connection.may_have_more_input() || self.shared.handoff.lifecycle.is_stopping();
        if peer_is_done || !may_send_more {
            self.close(index);
            return false;
        }
        self.linger(index);
        true
    }

    /// Shuts our side of a connection, and reads on for a while.
    fn linger(&mut self, index: usize) {
        if let Some(Some(slot)) = self.slots.get_mut(index) {
            slot.linger(self.now);
            self.timers.set(index, Until::Other, self.now + Duration::from_secs(limits::LINGER_SECONDS));
            self.enqueue(index);
        }
    }

    /// Reads once from a lingering connection and drops the input.
    fn discard(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        let len = match read_some(&mut slot.stream, &mut self.scratch.plain, slot.read_closed) {
            ReadOutcome::Bytes(len) => {
                self.visits.push_begun(index);
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
        self.visits.count_bytes(len);
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
        let (mut waiting, number) = (slot.waiting(), slot.connection.requests());
        if !slot.unsent.is_empty() {
            // Nothing is read meanwhile: no part of a request can be late.
            waiting = Waiting::Reply;
            slot.body.1 = self.now;
        }
        // A head's time is not renewed by each of its bytes, nor an idle connection's by what is no
        // request; a body's is, within that of the whole body.
        let is_renewed = matches!(waiting, Waiting::Body | Waiting::Reply) || slot.timed != (waiting, number);
        // A handshake has the time that was set when the connection came.
        if slot.linger.is_some() || !is_renewed || slot.transport.is_handshaking() {
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
            Waiting::Reply => (Until::Reply, self.now + timeouts.reply()),
        };
        self.timers.set(index, until, at);
    }

    /// Gives a peer that has taken a part of its replies the whole time for the next part. False when it has
    /// taken none, or has them all.
    fn wait_for_reader(&mut self, index: usize) -> bool {
        let at = self.now + self.shared.timeouts.reply();
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return false;
        };
        if slot.linger.is_some() || !slot.has_taken_a_part() {
            return false;
        }
        slot.timed = (Waiting::Reply, slot.connection.requests());
        slot.body.1 = self.now;
        self.timers.set(index, Until::Reply, at);
        true
    }

    /// Handles a passed deadline: answers 408 to an incomplete request, and closes the connection.
    pub(super) fn time_out(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return;
        };
        if slot.connection.unfinished().is_some() {
            // It has waited in line for the place of large requests.
            self.metrics.shed(Shed::InFlightBytes, 1);
            slot.connection.refuse(Shed::InFlightBytes.into());
            self.buffers.give_back(&mut slot.kept);
            self.send(index);
            return;
        }
        let message = match slot.waiting() {
            _ if !slot.unsent.is_empty() || slot.linger.is_some() => {
                if !self.wait_for_reader(index) {
                    self.close(index);
                }
                return;
            }
            Waiting::Head => "The head of the request took too long to arrive.",
            Waiting::Body => "The body of the request took too long to arrive.",
            Waiting::Request | Waiting::Reply => return self.close(index),
        };
        slot.connection.refuse(Fault::new(Status::RequestTimeout, "request_timeout", message));
        self.buffers.give_back(&mut slot.kept);
        self.send(index);
    }
}
