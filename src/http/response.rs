//! Rendering of a complete response (RFC 9112, section 4) into the caller's buffer.

use super::{DateCache, Status};

/// The interim response that asks a client with `Expect: 100-continue` for its body (RFC 9110,
/// section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The largest head without [`Response::extra`], in bytes: reserved with the body, so that `out`
/// grows once.
const HEAD_BYTES: usize = 320;

/// A response with its complete body. The defaults of [`Response::new`] are those of a reply to
/// events on a persistent HTTP/1.1 connection.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The status code.
    pub status: Status,
    /// The body; not sent when [`Status::has_content`] is false.
    pub body: &'a [u8],
    /// The media type of the body.
    pub content_type: &'a str,
    /// Sends `Connection: close`: the connection is closed after this response.
    pub close: bool,
    /// Sends `Connection: keep-alive`, which confirms persistence to an HTTP/1.0 client that asked
    /// for it (RFC 9112, section 9.3).
    pub keep_alive_10: bool,
    /// Answers HEAD: the head as for GET, and no body (RFC 9110, section 9.3.2).
    pub head_only: bool,
    /// Further header fields, such as `Allow` and `Retry-After`. They contain no CR and no LF.
    pub extra: &'a [(&'a str, &'a str)],
}

impl<'a> Response<'a> {
    /// A response with a JSON body.
    pub const fn new(status: Status, body: &'a [u8]) -> Self {
        Self {
            status,
            body,
            content_type: "application/json",
            close: false,
            keep_alive_10: false,
            head_only: false,
            extra: &[],
        }
    }

    /// Appends the rendered response to `out`. Allocates only when `out` has to grow.
    pub fn append_to(&self, out: &mut Vec<u8>, date: &DateCache) {
        self.append_with(out, date, |_| {});
    }

    /// The same with header fields that `more` appends, each by [`push_field`].
    #[inline]
    pub fn append_with(&self, out: &mut Vec<u8>, date: &DateCache, more: impl FnOnce(&mut Vec<u8>)) {
        out.reserve(HEAD_BYTES + self.body.len());
        out.extend_from_slice(self.status.line().as_bytes());
        push_field(out, "Date", date.as_bytes());
        if self.status.has_content() {
            push_field(out, "Content-Type", self.content_type.as_bytes());
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(self.body.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if self.close {
            push_field(out, "Connection", b"close");
        } else if self.keep_alive_10 {
            push_field(out, "Connection", b"keep-alive");
        }
        for (name, value) in self.extra {
            push_field(out, name, value.as_bytes());
        }
        more(out);
        out.extend_from_slice(b"\r\n");
        if self.status.has_content() && !self.head_only {
            out.extend_from_slice(self.body);
        }
    }
}

/// Appends a header field with its line end. The value contains no CR and no LF.
pub fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(memchr::memchr2(b'\r', b'\n', value).is_none(), "{name}");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: Response<'_>) -> String {
        let mut out = b"before|".to_vec();
        response.append_to(&mut out, &DateCache::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_usual_reply_is_rendered() {
        assert_eq!(
            text(Response::new(Status::Ok, br#"{"accepted":30,"rejected":0}"#)),
            "before|HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Content-Type: application/json\r\nContent-Length: 28\r\n\r\n\
             {\"accepted\":30,\"rejected\":0}"
        );
    }

    #[test]
    fn a_closing_reply_with_every_field_is_rendered() {
        let response = Response {
            close: true,
            keep_alive_10: true,
            content_type: "text/plain",
            extra: &[("Allow", "POST, OPTIONS"), ("Retry-After", "1")],
            ..Response::new(Status::MethodNotAllowed, b"")
        };
        assert_eq!(
            text(response),
            "before|HTTP/1.1 405 Method Not Allowed\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Content-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\
             Allow: POST, OPTIONS\r\nRetry-After: 1\r\n\r\n"
        );
    }

    #[test]
    fn a_reply_to_head_has_a_length_and_no_body_and_a_204_has_neither() {
        let head = text(Response { head_only: true, keep_alive_10: true, ..Response::new(Status::Ok, b"0123456789") });
        assert!(head.contains("Content-Length: 10\r\n"), "{head}");
        assert!(head.ends_with("Connection: keep-alive\r\n\r\n"), "{head}");
        assert_eq!(
            text(Response::new(Status::NoContent, b"lost")),
            "before|HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
        );
    }

    #[test]
    fn no_head_is_longer_than_the_reserved_space() {
        for &status in Status::ALL {
            let mut out = Vec::new();
            let longest = Response {
                close: true,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                ..Response::new(status, b"")
            };
            longest.append_to(&mut out, &DateCache::default());
            assert!(out.len() <= HEAD_BYTES, "{status:?}: {}", out.len());
        }
    }
}
