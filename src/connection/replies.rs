//! The pending replies of one connection, in the order of its requests.

use std::collections::VecDeque;
use std::time::Instant;

use crate::api::{Ack, Answer, Fault, Reply, ReplyFields};
use crate::batch::identity::Summary;
use crate::batch::{BlockNumber, Sequence};
use crate::http::{DateCache, Head, Method, Response, Status, Version};

/// The queue of one connection's replies. The first one may be sent once it waits for nothing.
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<Pending>,
    /// Memory of the replies beside their places in the queue.
    bytes: usize,
}

/// A reply that is not rendered yet.
#[derive(Debug)]
struct Pending {
    wait: Wait,
    options: ReplyOptions,
    fields: ReplyFields,
    wire: Wire,
}

/// What a reply waits for, beside the replies before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing.
    Nothing,
    /// The commit of this batch, in which it is the request at the place `keyed` of those with a key, and then
    /// the insert if `ack` asks for it.
    Commit { sequence: Sequence, keyed: Option<usize>, ack: Ack },
    /// ClickHouse's confirmation of this block, at most until `until`. If the block is not
    /// `certain` to contain all events of the request, the reply is 202 even after the confirmation.
    Insert { block: BlockNumber, certain: bool, until: Instant },
}

/// Where a committed batch is stored, and what its replies still wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The block that contains the batch; `None` when ClickHouse has its rows.
    pub block: Option<BlockNumber>,
    /// False when another block that is not inserted yet contains events of the batch, too.
    pub certain: bool,
    /// How long a reply with `ack=inserted` waits for the confirmation of the block.
    pub until: Instant,
    /// The first reply to a repeated request, if it differs from the reply to the repeat.
    pub first: Option<Summary>,
}

/// A response on the wire: the interim response `100 Continue`, or a reply.
#[derive(Debug)]
pub(crate) enum Wire {
    Continue,
    Reply(Reply),
}

/// How a reply is sent, apart from its contents: as the request asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyOptions {
    /// Close the connection after the reply.
    pub(crate) close: bool,
    /// Send no body, in reply to HEAD.
    pub(crate) head_only: bool,
    /// Send `Connection: keep-alive`, in reply to an HTTP/1.0 request with that field.
    pub(crate) confirm_keep_alive: bool,
}

impl ReplyOptions {
    /// The options of the last reply of a connection.
    pub(crate) const LAST: Self = Self { close: true, head_only: false, confirm_keep_alive: false };

    /// The options that the head of a request asks for.
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
        self.bytes = 0;
    }

    /// Bytes that the waiting replies take beside their places in the queue.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the answer to the next request.
    pub(crate) fn push(&mut self, answer: Answer, options: ReplyOptions, fields: ReplyFields) {
        let (wait, reply) = match answer {
            Answer::Now(reply) => (Wait::Nothing, reply),
            Answer::AfterCommit { reply, sequence, keyed, ack } => (Wait::Commit { sequence, keyed, ack }, reply),
        };
        self.bytes += reply.bytes() + fields.bytes();
        self.queue.push_back(Pending { wait, options, fields, wire: Wire::Reply(reply) });
    }

    /// Appends the interim response that asks for the body.
    pub(super) fn push_continue(&mut self) {
        let (options, fields) = (ReplyOptions::LAST, ReplyFields::default());
        self.queue.push_back(Pending { wait: Wait::Nothing, options, fields, wire: Wire::Continue });
    }

    /// Removes the first response, if it waits for nothing.
    pub(crate) fn next(&mut self) -> Option<(Wire, ReplyOptions, ReplyFields)> {
        let pending = self.queue.pop_front_if(|pending| pending.wait == Wait::Nothing)?;
        self.bytes -= pending.wire.bytes() + pending.fields.bytes();
        Some((pending.wire, pending.options, pending.fields))
    }

    /// Ends the wait for the commit of a batch: its replies are sent as they are, or replaced by the
    /// error; `outcome` gives that of a request by its place among those with a key. Returns the blocks whose
    /// insert replies now wait for.
    pub fn settle(
        &mut self,
        sequence: Sequence,
        outcome: impl Fn(Option<usize>) -> Result<Committed, Fault>,
    ) -> Vec<BlockNumber> {
        let mut waits = Vec::new();
        for pending in &mut self.queue {
            let Wait::Commit { sequence: of, keyed, ack } = pending.wait else { continue };
            if of != sequence {
                continue;
            }
            pending.wait = Wait::Nothing;
            match outcome(keyed) {
                Ok(Committed { block, certain, until, first }) => {
                    if let (Some(summary), Wire::Reply(now)) = (first, &pending.wire) {
                        let first = Reply::remembered(summary, now);
                        pending.replace(first, &mut self.bytes);
                    }
                    if let Some(block) = block.filter(|_| ack == Ack::Inserted) {
                        pending.wait = Wait::Insert { block, certain, until };
                        if waits.last() != Some(&block) {
                            waits.push(block);
                        }
                    }
                }
                Err(fault) => pending.replace(Reply::Fault(fault), &mut self.bytes),
            }
        }
        waits
    }

    /// Ends the wait for a block, which ClickHouse has confirmed.
    pub fn inserted(&mut self, block: BlockNumber) {
        for pending in &mut self.queue {
            match pending.wait {
                Wait::Insert { block: of, certain, .. } if of == block => pending.release(certain, &mut self.bytes),
                _ => {}
            }
        }
    }

    /// True when a reply waits for an insert.
    pub fn awaits_insert(&self) -> bool {
        self.queue.iter().any(|pending| matches!(pending.wait, Wait::Insert { .. }))
    }

    /// Ends the wait of replies whose time for the insert is over at `now`: they become 202.
    pub fn give_up_inserts(&mut self, now: Instant) {
        for pending in &mut self.queue {
            if matches!(pending.wait, Wait::Insert { until, .. } if until <= now) {
                pending.release(false, &mut self.bytes);
            }
        }
    }
}

impl Pending {
    /// Ends the wait for an insert; the reply becomes 202 unless the insert is `proven`.
    fn release(&mut self, proven: bool, bytes: &mut usize) {
        self.wait = Wait::Nothing;
        if let Wire::Reply(reply) = &self.wire
            && !proven
        {
            let reply = reply.not_yet_inserted();
            self.replace(reply, bytes);
        }
    }

    /// Another reply, with `bytes` as the sum of what all replies take.
    fn replace(&mut self, reply: Reply, bytes: &mut usize) {
        let before = self.wire.bytes();
        self.wire = Wire::Reply(reply);
        *bytes = *bytes - before + self.wire.bytes();
    }
}

impl Wire {
    fn bytes(&self) -> usize {
        match self {
            Self::Continue => 0,
            Self::Reply(reply) => reply.bytes(),
        }
    }
}

/// Renders a reply to `out`, with the header fields that `more` appends, and returns its status.
pub(crate) fn write(
    out: &mut Vec<u8>,
    reply: &Reply,
    options: ReplyOptions,
    date: &DateCache,
    more: impl FnOnce(Status, &mut Vec<u8>),
) -> Status {
    spell_out(reply, |status, body, extra| {
        let response = Response {
            close: options.close,
            keep_alive_10: options.confirm_keep_alive,
            head_only: options.head_only,
            extra,
            ..Response::new(status, body)
        };
        response.append_with(out, date, |out| more(status, out));
        status
    })
}

/// Calls `with` with the status, body and further header fields of a reply.
pub(crate) fn spell_out<T>(reply: &Reply, with: impl FnOnce(Status, &[u8], &[(&str, &str)]) -> T) -> T {
    match reply {
        Reply::Accepted(accepted) => with(Status::Ok, accepted_body(*accepted, &mut [0; ACCEPTED_BODY_MAX]), &[]),
        Reply::Json(status, body) => with(*status, body.as_bytes(), &[]),
        Reply::Allow(methods) | Reply::Preflight(methods) => with(Status::NoContent, b"", &[("Allow", methods)]),
        Reply::Fault(fault) => {
            // Codes and messages are constants without quotes and backslashes.
            let place = fault.at.map(|at| format!(" It is not valid from byte {at} on.")).unwrap_or_default();
            let body = format!("{{\"error\":\"{}\",\"message\":\"{}{place}\"}}", fault.code, fault.message);
            match (fault.allow, fault.accept_encoding) {
                (Some(methods), _) => with(fault.status, body.as_bytes(), &[("Allow", methods)]),
                (None, Some(codings)) => with(fault.status, body.as_bytes(), &[("Accept-Encoding", codings)]),
                // RFC 6750, section 3.
                (None, None) if fault.status == Status::Unauthorized => {
                    with(fault.status, body.as_bytes(), &[("WWW-Authenticate", "Bearer")])
                }
                (None, None) if fault.status == Status::ServiceUnavailable => {
                    with(fault.status, body.as_bytes(), &[("Retry-After", "1")])
                }
                (None, None) => with(fault.status, body.as_bytes(), &[]),
            }
        }
    }
}

/// Bytes of the longest body of [`Reply::Accepted`], rounded up.
const ACCEPTED_BODY_MAX: usize = 48;

/// Renders `{"accepted":N,"rejected":0}` without an allocation.
fn accepted_body(accepted: u32, space: &mut [u8; ACCEPTED_BODY_MAX]) -> &[u8] {
    let mut digits = itoa::Buffer::new();
    let parts = [&b"{\"accepted\":"[..], digits.format(accepted).as_bytes(), b",\"rejected\":0}"];
    let mut len = 0;
    for part in parts {
        // The longest number has ten digits, so the space suffices.
        if let Some(destination) = space.get_mut(len..len + part.len()) {
            destination.copy_from_slice(part);
            len += part.len();
        }
    }
    space.get(..len).unwrap_or_default()
}
