//! The replies of one connection, in the order of its requests, and what each still waits for.

use std::collections::VecDeque;
use std::time::Instant;

use crate::api::{Ack, Answer, Fault, Reply};
use crate::batch::identity::Summary;
use crate::batch::{SegmentNumber, Sequence};
use crate::http::{DateCache, Head, Method, Response, Status, Version};

/// The queue of one connection's replies: the first leaves once it waits for nothing.
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    wait: Wait,
    options: ReplyOptions,
    wire: Wire,
}

/// What a reply waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Its turn.
    Nothing,
    /// The commit of the batch of this sequence, and then what `ack` says.
    Commit { sequence: Sequence, ack: Ack },
    /// ClickHouse's proof of this segment, until the time is over; where that is not `certain` to
    /// prove everything, it is told apart.
    Insert { segment: SegmentNumber, certain: bool, until: Instant },
}

/// Where a committed batch is stored, and what its replies still wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The segment that holds it; `None` when ClickHouse has it.
    pub segment: Option<SegmentNumber>,
    /// False when that segment's proof does not prove all of it.
    pub certain: bool,
    /// How long a reply waits for the proof of that segment, if it waits for one.
    pub until: Instant,
    /// The request came before, and was then answered this, which is not what it would be now.
    pub first: Option<Summary>,
}

#[derive(Debug)]
pub(crate) enum Wire {
    Continue,
    Reply(Reply),
}

/// How the request asks to be answered, whatever the reply says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyOptions {
    pub(crate) close: bool,
    pub(crate) head_only: bool,
    /// HTTP/1.0 with `Connection: keep-alive`: the reply has to say it too.
    pub(crate) confirm_keep_alive: bool,
}

impl ReplyOptions {
    pub(crate) const LAST: Self = Self { close: true, head_only: false, confirm_keep_alive: false };

    /// What the head of a request asks for.
    pub(crate) fn of(head: &Head<'_>) -> Self {
        Self {
            close: !head.keep_alive,
            head_only: head.method == Method::Head,
            confirm_keep_alive: head.keep_alive && head.version == Version::Http10,
        }
    }
}

impl Replies {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Appends the answer to the next request.
    pub(crate) fn push(&mut self, answer: Answer, options: ReplyOptions) {
        let (wait, reply) = match answer {
            Answer::Now(reply) => (Wait::Nothing, reply),
            Answer::AfterCommit { reply, sequence, ack } => (Wait::Commit { sequence, ack }, reply),
        };
        self.queue.push_back(Pending { wait, options, wire: Wire::Reply(reply) });
    }

    /// The interim reply that asks for the body.
    pub(super) fn push_continue(&mut self) {
        self.queue.push_back(Pending { wait: Wait::Nothing, options: ReplyOptions::LAST, wire: Wire::Continue });
    }

    /// The next reply, if its turn has come.
    pub(crate) fn next(&mut self) -> Option<(Wire, ReplyOptions)> {
        let pending = self.queue.pop_front_if(|pending| pending.wait == Wait::Nothing)?;
        Some((pending.wire, pending.options))
    }

    /// The commit of a batch is decided: its replies may leave, as they are or as this fault. True
    /// when one of them now waits for the segment's insert.
    pub fn settle(&mut self, sequence: Sequence, outcome: Result<Committed, Fault>) -> bool {
        let mut waits = false;
        for pending in &mut self.queue {
            let Wait::Commit { sequence: of, ack } = pending.wait else { continue };
            if of != sequence {
                continue;
            }
            pending.wait = Wait::Nothing;
            match outcome {
                Ok(Committed { segment, certain, until, first }) => {
                    if let Some(summary) = first {
                        pending.wire = Wire::Reply(Reply::remembered(summary));
                    }
                    if let Some(segment) = segment.filter(|_| ack == Ack::Inserted) {
                        pending.wait = Wait::Insert { segment, certain, until };
                        waits = true;
                    }
                }
                Err(fault) => pending.wire = Wire::Reply(Reply::Fault(fault)),
            }
        }
        waits
    }

    /// ClickHouse has confirmed a segment: the replies that wait for it may leave.
    pub fn inserted(&mut self, segment: SegmentNumber) {
        for pending in &mut self.queue {
            match pending.wait {
                Wait::Insert { segment: of, certain, .. } if of == segment => pending.release(certain),
                _ => {}
            }
        }
    }

    /// True when a reply waits for an insert.
    pub fn awaits_insert(&self) -> bool {
        self.queue.iter().any(|pending| matches!(pending.wait, Wait::Insert { .. }))
    }

    /// The replies that have waited for an insert for as long as they may say 202.
    pub fn give_up_inserts(&mut self, now: Instant) {
        for pending in &mut self.queue {
            if matches!(pending.wait, Wait::Insert { until, .. } if until <= now) {
                pending.release(false);
            }
        }
    }
}

impl Pending {
    /// It has waited for an insert: says whether that is proven.
    fn release(&mut self, proven: bool) {
        self.wait = Wait::Nothing;
        if let Wire::Reply(reply) = &mut self.wire
            && !proven
        {
            *reply = reply.not_yet_inserted();
        }
    }
}

/// Appends one reply and returns its status.
pub(crate) fn write(out: &mut Vec<u8>, reply: &Reply, options: ReplyOptions, date: &DateCache) -> Status {
    spell_out(reply, |status, body, extra| {
        let response = Response {
            close: options.close,
            keep_alive_10: options.confirm_keep_alive,
            head_only: options.head_only,
            extra,
            ..Response::new(status, body)
        };
        response.append_to(out, date);
        status
    })
}

/// What a reply is in HTTP: status, body, and further fields.
pub(crate) fn spell_out<T>(reply: &Reply, with: impl FnOnce(Status, &[u8], &[(&str, &str)]) -> T) -> T {
    match reply {
        Reply::Accepted(accepted) => with(Status::Ok, accepted_body(*accepted, &mut [0; ACCEPTED_BODY_MAX]), &[]),
        Reply::Json(status, body) => with(*status, body.as_bytes(), &[]),
        Reply::Allow(methods) => with(Status::NoContent, b"", &[("Allow", methods)]),
        Reply::Fault(fault) => {
            // Codes and sentences are constants of ours without quotes or backslashes.
            let body = format!("{{\"error\":\"{}\",\"message\":\"{}\"}}", fault.code, fault.message);
            match fault.allow {
                Some(methods) => with(fault.status, body.as_bytes(), &[("Allow", methods)]),
                None if fault.status == Status::ServiceUnavailable => {
                    with(fault.status, body.as_bytes(), &[("Retry-After", "1")])
                }
                None => with(fault.status, body.as_bytes(), &[]),
            }
        }
    }
}

const ACCEPTED_BODY_MAX: usize = 48;

/// `{"accepted":N,"rejected":0}` without an allocation.
fn accepted_body(accepted: u32, space: &mut [u8; ACCEPTED_BODY_MAX]) -> &[u8] {
    let mut digits = itoa::Buffer::new();
    let parts = [&b"{\"accepted\":"[..], digits.format(accepted).as_bytes(), b",\"rejected\":0}"];
    let mut len = 0;
    for part in parts {
        // Ten digits and the words fit.
        if let Some(place) = space.get_mut(len..len + part.len()) {
            place.copy_from_slice(part);
            len += part.len();
        }
    }
    space.get(..len).unwrap_or_default()
}
