//! Error replies of the public address, and why a request is shed.

use crate::batch::CommitRefusal;
use crate::http::{HttpRefusal, Status};
use crate::ndjson::EncodeRefusal;

/// An error reply: `{"error":code,"message":message}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its status.
    pub status: Status,
    /// The `error` of its body.
    pub code: &'static str,
    /// The `message` of its body, a sentence.
    pub message: &'static str,
    /// The methods that the path has, for 405.
    pub allow: Option<&'static str>,
}

impl Fault {
    /// A fault with a code and a sentence.
    pub const fn new(status: Status, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, allow: None }
    }

    pub(super) const fn with_allow(mut self, allow: &'static str) -> Self {
        self.allow = Some(allow);
        self
    }
}

impl From<HttpRefusal> for Fault {
    fn from(refusal: HttpRefusal) -> Self {
        Self::new(refusal.status(), refusal.code(), refusal.message())
    }
}

impl From<Shed> for Fault {
    fn from(reason: Shed) -> Self {
        Self::new(Status::ServiceUnavailable, reason.code(), reason.message())
    }
}

impl From<EncodeRefusal> for Fault {
    fn from(refusal: EncodeRefusal) -> Self {
        match refusal {
            // Has a body of its own with the errors, see `Api::take_events`.
            EncodeRefusal::TooManyBadLines => TOO_MANY_BAD_LINES,
            EncodeRefusal::TooManyEvents => Self::new(
                Status::ContentTooLarge,
                "too_many_events",
                "The body has more events than one request may have; nothing was stored.",
            ),
            EncodeRefusal::EncodedTooLarge => Self::new(
                Status::ContentTooLarge,
                "too_many_events",
                "The rows of the body take more bytes than one request may take; nothing was stored.",
            ),
        }
    }
}

/// Why a request was shed with 503 (`shed_total{reason}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The committer did not store it.
    Commit(CommitRefusal),
    /// The commit took longer than `--commit-timeout`.
    CommitTimeout,
    /// `--connections-max` are open.
    Connections,
    /// `--in-flight-bytes-max` are in flight.
    InFlightBytes,
}

impl Shed {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Commit(CommitRefusal::SpoolFull),
        Self::Commit(CommitRefusal::DiskFull),
        Self::Commit(CommitRefusal::WriteFailed),
        Self::CommitTimeout,
        Self::Connections,
        Self::InFlightBytes,
    ];

    /// The place of its counter: that in [`Shed::ALL`].
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or_default()
    }

    /// The label in metrics, and the `error` of the reply.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Commit(CommitRefusal::SpoolFull) => "spool_full",
            Self::Commit(CommitRefusal::DiskFull) => "disk_full",
            Self::Commit(CommitRefusal::WriteFailed) => "write_failed",
            Self::CommitTimeout => "commit_timeout",
            Self::Connections => "too_many_connections",
            Self::InFlightBytes => "too_many_bytes_in_flight",
        }
    }

    /// What the reply says.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Commit(CommitRefusal::SpoolFull) => "The spool is full; send the request again later.",
            Self::Commit(CommitRefusal::DiskFull) => "The disk is full; send the request again later.",
            Self::Commit(CommitRefusal::WriteFailed) => "The disk refused a write; send the request again later.",
            Self::CommitTimeout => "The disk took too long; send the request again later.",
            Self::Connections => "Too many connections are open; try again later.",
            Self::InFlightBytes => "Too many bytes are in flight; send the request again later.",
        }
    }
}

pub(super) const NOT_FOUND: Fault = Fault::new(Status::NotFound, "not_found", "There is nothing at this path.");
pub(super) const EVENTS_ALLOW: &str = "POST, OPTIONS";
pub(super) const HEALTH_ALLOW: &str = "GET, HEAD, OPTIONS";
pub(super) const METHOD_NOT_ALLOWED: Fault =
    Fault::new(Status::MethodNotAllowed, "method_not_allowed", "The path does not have this method; see Allow.");
pub(super) const UNSUPPORTED_CODING: Fault =
    Fault::new(Status::UnsupportedMediaType, "unsupported_content_coding", "This Content-Encoding is not supported.");
pub(super) const BAD_QUERY: Fault = Fault::new(
    Status::BadRequest,
    "bad_query",
    "The query is malformed, or a value in it is not one of those that are known.",
);

pub(super) const TOO_MANY_BAD_LINES: Fault =
    Fault::new(Status::UnprocessableContent, "too_many_bad_lines", "More than 1000 lines are bad; nothing was stored.");
pub(super) const BAD_KEY: Fault =
    Fault::new(Status::BadRequest, "bad_idempotency_key", "There must be one Idempotency-Key, of 1 to 255 bytes.");
/// The reply to a key that came before with another body.
pub const KEY_REUSED: Fault = Fault::new(
    Status::UnprocessableContent,
    "idempotency_key_reused",
    "This Idempotency-Key came before with another body; nothing was stored.",
);
