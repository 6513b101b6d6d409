//! Error replies of the public API, and the reasons for which requests are shed.

use std::num::NonZeroU32;

use crate::batch::CommitRefusal;
use crate::http::coding::CodingRefusal;
use crate::http::{HttpRefusal, Status};
use crate::ndjson::EncodeRefusal;

/// An error reply: `{"error":code,"message":message}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The status code.
    pub status: Status,
    /// The value of `error` in the body; stable across versions.
    pub code: &'static str,
    /// The value of `message` in the body, a sentence without quotes or backslashes.
    pub message: &'static str,
    /// The value of `Allow` in a 405: the methods that the path supports.
    pub allow: Option<&'static str>,
    /// The value of `Accept-Encoding` in a 415 for a content coding (RFC 9110, section 15.5.16).
    pub accept_encoding: Option<&'static str>,
    /// The byte of the body, counted from 1, from which on it is not valid; the message names it.
    pub at: Option<NonZeroU32>,
}

impl Fault {
    /// An error reply without further header fields.
    pub const fn new(status: Status, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, allow: None, accept_encoding: None, at: None }
    }

    pub(super) const fn with_allow(mut self, allow: &'static str) -> Self {
        self.allow = Some(allow);
        self
    }

    pub(super) const fn with_accept_encoding(mut self, codings: &'static str) -> Self {
        self.accept_encoding = Some(codings);
        self
    }
}

impl From<HttpRefusal> for Fault {
    fn from(refusal: HttpRefusal) -> Self {
        Self::new(refusal.status(), refusal.code(), refusal.message())
    }
}

impl From<CodingRefusal> for Fault {
    fn from(refusal: CodingRefusal) -> Self {
        let message = match refusal {
            CodingRefusal::TooLarge => return HttpRefusal::BodyTooLarge.into(),
            CodingRefusal::Broken => "The body is not in the format of its Content-Encoding; nothing was stored.",
            CodingRefusal::Truncated => "The body ends before its Content-Encoding does; nothing was stored.",
            CodingRefusal::Trailed => "The body goes on behind the end of its Content-Encoding; nothing was stored.",
            CodingRefusal::WindowTooLarge => {
                "The Content-Encoding of the body needs a window above 8 MiB; nothing was stored."
            }
        };
        Self::new(Status::BadRequest, "bad_content_coding", message)
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
            // `Reply::of` renders this refusal with the errors of the lines.
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
            EncodeRefusal::InvalidArray { at } => Self {
                at: u32::try_from(at).ok().and_then(|at| NonZeroU32::MIN.checked_add(at)),
                ..Self::new(
                    Status::BadRequest,
                    "invalid_array",
                    "The body begins as a JSON array and is none as a whole; nothing was stored.",
                )
            },
        }
    }
}

/// Why a request is shed, that is answered 503 because of load or of a full or failing disk
/// (`sluicegate_shed_total{reason}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The committer refused the batch of the request.
    Commit(CommitRefusal),
    /// The commit takes longer than `--commit-timeout`.
    CommitTimeout,
    /// More than `--connections-max` connections are open.
    Connections,
    /// The request would exceed `--in-flight-bytes-max`.
    InFlightBytes,
}

impl Shed {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Commit(CommitRefusal::SpoolFull),
        Self::Commit(CommitRefusal::DiskFull),
        Self::Commit(CommitRefusal::NoDescriptors),
        Self::Commit(CommitRefusal::WriteFailed),
        Self::CommitTimeout,
        Self::Connections,
        Self::InFlightBytes,
    ];

    /// The index of the reason in [`Shed::ALL`], and of its counter.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or_default()
    }

    /// The label `reason` of the metric, and the value of `error` in the reply.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Commit(CommitRefusal::SpoolFull) => "spool_full",
            Self::Commit(CommitRefusal::DiskFull) => "disk_full",
            Self::Commit(CommitRefusal::NoDescriptors) => "no_descriptors",
            Self::Commit(CommitRefusal::WriteFailed) => "write_failed",
            Self::CommitTimeout => "commit_timeout",
            Self::Connections => "too_many_connections",
            Self::InFlightBytes => "too_many_bytes_in_flight",
        }
    }

    /// The value of `message` in the reply, a sentence.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Commit(CommitRefusal::SpoolFull) => "The spool is full; send the request again later.",
            Self::Commit(CommitRefusal::DiskFull) => "The disk is full; send the request again later.",
            Self::Commit(CommitRefusal::NoDescriptors) => {
                "The server may open no more files (LimitNOFILE); send the request again later."
            }
            Self::Commit(CommitRefusal::WriteFailed) => "The disk refused a write; send the request again later.",
            Self::CommitTimeout => "The disk took too long; send the request again later.",
            Self::Connections => "Too many connections are open; try again later.",
            Self::InFlightBytes => "Too many bytes are in flight; send the request again later.",
        }
    }
}

/// The reply at the path of a table that is missing or can't be filled.
pub const TABLE_UNAVAILABLE: Fault = Fault::new(
    Status::ServiceUnavailable,
    "table_unavailable",
    "The table is missing in ClickHouse or can't be filled; send the request again later.",
);
pub(super) const NOT_FOUND: Fault = Fault::new(Status::NotFound, "not_found", "There is nothing at this path.");
/// The methods of a table's path.
pub(super) const EVENTS_ALLOW: &str = "POST, OPTIONS";
/// The methods of `/health`.
pub(super) const HEALTH_ALLOW: &str = "GET, HEAD, OPTIONS";
pub(super) const METHOD_NOT_ALLOWED: Fault =
    Fault::new(Status::MethodNotAllowed, "method_not_allowed", "The path does not support this method; see Allow.");
pub(super) const UNSUPPORTED_CODING: Fault = Fault::new(
    Status::UnsupportedMediaType,
    "unsupported_content_coding",
    "This Content-Encoding is not supported, or is more than one; see Accept-Encoding.",
);
/// The content codings of requests, as `Accept-Encoding` names them.
pub(super) const CODINGS: &str = "gzip, deflate, zstd, br";
pub(super) const BAD_QUERY: Fault = Fault::new(
    Status::BadRequest,
    "bad_query",
    "The query is malformed, or a parameter has an unknown value or comes twice.",
);

pub(super) const TOO_MANY_BAD_LINES: Fault =
    Fault::new(Status::UnprocessableContent, "too_many_bad_lines", "More than 1000 lines are bad; nothing was stored.");
pub(super) const BAD_KEY: Fault =
    Fault::new(Status::BadRequest, "bad_idempotency_key", "There must be one Idempotency-Key, of 1 to 255 bytes.");
/// The reply to a request that is over a rate.
pub const OVER_RATE: Fault = Fault::new(
    Status::TooManyRequests,
    "over_rate",
    "Events come faster than the rate limit allows; nothing was stored, send the request again later.",
);
/// The reply to a request with more events than a rate ever lets pass at once.
pub const OVER_BURST: Fault = Fault::new(
    Status::ContentTooLarge,
    "too_many_events",
    "The body has more events than the rate limit lets pass at once; nothing was stored, send fewer in one request.",
);
/// The reply on a connection above `--connections-per-address-max`.
pub const TOO_MANY_OF_ADDRESS: Fault = Fault::new(
    Status::TooManyRequests,
    "too_many_connections",
    "Too many connections from this address are open; try again later.",
);
/// The reply to a request whose `Idempotency-Key` was used before with another body.
pub const KEY_REUSED: Fault = Fault::new(
    Status::UnprocessableContent,
    "idempotency_key_reused",
    "This Idempotency-Key was used before with another body; nothing was stored.",
);
