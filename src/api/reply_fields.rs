//! The header fields of a reply that do not depend on its outcome: the request's identity, what a page of
//! another origin may read, and what is left of a rate.

use super::cors::{AllowedOrigin, Cors};
use super::rate::Quota;
use super::reply::Reply;
use super::request_id::{self, RequestIds};
use crate::http::{DateCache, Status, push_field};

/// What a reply carries beside its outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyFields {
    /// The identity that the client gave its request. One of ours is made when the reply is rendered.
    request_id: Option<Box<str>>,
    origin: Option<AllowedOrigin>,
    /// What is left of the rate that the request was charged to.
    pub quota: Option<Quota>,
}

/// What rendering a reply takes beside the reply.
#[derive(Debug, Clone, Copy)]
pub struct Rendering<'a> {
    /// The date now.
    pub date: &'a DateCache,
    /// The allowed origins, those that the fields were made with.
    pub cors: &'a Cors,
    /// Makes the missing identities.
    pub ids: &'a RequestIds,
}

impl ReplyFields {
    /// The fields for a request with these values of `Origin` and `X-Request-Id`.
    #[inline]
    pub fn new(cors: &Cors, origin: Option<&[u8]>, request_id: Option<&[u8]>) -> Self {
        Self {
            request_id: request_id.and_then(request_id::of_client).map(Into::into),
            origin: origin.and_then(|origin| cors.allow(origin)),
            quota: None,
        }
    }

    /// The request's identity, which is made of `ids` if the client gave none.
    pub fn identify(&mut self, ids: &RequestIds) -> &str {
        self.request_id.get_or_insert_with(|| ids.next().as_str().into())
    }

    /// Bytes that they take beside their own place.
    pub fn bytes(&self) -> usize {
        self.request_id.as_ref().map_or(0, |id| id.len())
    }

    /// Appends the fields of `reply`, whose status is `status`, and logs a refusal with the request's
    /// identity.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>, reply: &Reply, status: Status, with: &Rendering<'_>) {
        let ours;
        let id = match &self.request_id {
            Some(id) => id,
            None => {
                ours = with.ids.next();
                ours.as_str()
            }
        };
        push_field(out, "X-Request-Id", id.as_bytes());
        if let Some(origin) = self.origin {
            match reply {
                Reply::Preflight(methods) => with.cors.push_preflight(origin, methods, out),
                _ => with.cors.push_fields(origin, out),
            }
        }
        if let Some(quota) = &self.quota {
            push_number(out, "X-RateLimit-Limit", quota.limit);
            push_number(out, "X-RateLimit-Remaining", quota.remaining);
            push_number(out, "X-RateLimit-Reset", quota.reset);
        }
        if status == Status::TooManyRequests {
            push_number(out, "Retry-After", self.quota.map_or(1, |quota| quota.retry_after.max(1)));
        }
        if let Reply::Fault(fault) = reply {
            tracing::debug!(request_id = id, status = status.code(), error = fault.code, "a request was refused");
        }
    }
}

fn push_number(out: &mut Vec<u8>, name: &str, value: u32) {
    push_field(out, name, itoa::Buffer::new().format(value).as_bytes());
}
