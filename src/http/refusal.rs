//! The table of protocol errors: status, code and message of each.

use super::Status;

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident => $status:ident $code:literal $message:literal,)*) => {
        /// Why a request is refused by its HTTP syntax, framing or size, before it is routed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum HttpRefusal {
            $($(#[doc = $doc])+ $name,)*
        }

        impl HttpRefusal {
            /// Every refusal, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The status code of the reply.
            pub const fn status(self) -> Status {
                match self { $(Self::$name => Status::$status,)* }
            }

            /// The value of `error` in the reply; stable across versions.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The value of `message` in the reply, a sentence.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }

            /// The body of the reply: code and message as JSON.
            pub const fn json(self) -> &'static str {
                match self {
                    $(Self::$name => concat!(
                        "{\"error\":\"", $code, "\",\"message\":\"", $message, "\"}"
                    ),)*
                }
            }
        }
    };
}

refusals! {
    /// A request line that is not `method SP target SP version` (RFC 9112, section 3), or more than
    /// one blank line before it (section 2.2).
    BadRequestLine => BadRequest "bad_request_line"
        "The request line is not a method, a target and an HTTP version.",
    /// A target in none of the forms of RFC 9112, section 3.2, or with bytes that no URI contains.
    BadTarget => BadRequest "bad_target"
        "The request target is not a valid path or URL.",
    /// A line of the head that ends in a bare LF or contains a bare CR (RFC 9112, section 2.2).
    BadLineEnd => BadRequest "bad_line_end"
        "A line of the request head does not end in CR LF.",
    /// A header field that violates RFC 9112, section 5: line folding, white space before the colon,
    /// or a control character.
    BadHeader => BadRequest "bad_header"
        "A header field of the request is malformed.",
    /// An HTTP/1.1 request without `Host` (RFC 9112, section 3.2).
    MissingHost => BadRequest "missing_host"
        "An HTTP/1.1 request needs a Host header field.",
    /// A repeated `Host`, or one that is not `uri-host [ ":" port ]` (RFC 9112, section 3.2).
    BadHost => BadRequest "bad_host"
        "The Host header field is repeated or is not a host with an optional port.",
    /// A `Content-Length` that is not a decimal number, does not fit 64 bits, or is repeated
    /// (RFC 9112, section 6.3).
    BadContentLength => BadRequest "bad_content_length"
        "Content-Length is repeated or is not a number.",
    /// `Content-Length` and `Transfer-Encoding` together (RFC 9112, section 6.3).
    BothLengths => BadRequest "both_lengths"
        "Content-Length and Transfer-Encoding exclude each other.",
    /// A `Transfer-Encoding` that does not determine the end of the body: in an HTTP/1.0 request,
    /// empty, or with `chunked` elsewhere than once at the end (RFC 9112, sections 6.1
    /// and 6.3).
    BadTransferCoding => BadRequest "bad_transfer_coding"
        "Transfer-Encoding is not usable: it must be chunked, once, and HTTP/1.1.",
    /// A transfer coding other than `chunked` (RFC 9112, section 6.1).
    UnsupportedTransferCoding => NotImplemented "unsupported_transfer_coding"
        "The only transfer coding that this server supports is chunked.",
    /// A chunk that violates RFC 9112, section 7.1, or chunk extensions above
    /// [`limits::CHUNK_EXTENSION_BYTES_MAX`](crate::limits::CHUNK_EXTENSION_BYTES_MAX) or
    /// [`limits::CHUNK_EXTENSIONS_BYTES_MAX`](crate::limits::CHUNK_EXTENSIONS_BYTES_MAX).
    BadChunk => BadRequest "bad_chunk"
        "The chunked body is malformed.",
    /// Trailer fields above [`limits::TRAILER_BYTES_MAX`](crate::limits::TRAILER_BYTES_MAX).
    TrailersTooLarge => HeaderFieldsTooLarge "trailers_too_large"
        "The trailer fields of the chunked body are too large.",
    /// A body above `--body-bytes-max`.
    BodyTooLarge => ContentTooLarge "body_too_large"
        "The body is larger than this server accepts.",
    /// A head above `--head-bytes-max` whose request line fits.
    HeadTooLarge => HeaderFieldsTooLarge "head_too_large"
        "The request head is larger than this server accepts.",
    /// More header fields than `--headers-max`.
    TooManyHeaders => HeaderFieldsTooLarge "too_many_headers"
        "The request has more header fields than this server accepts.",
    /// A request line above `--head-bytes-max`.
    TargetTooLong => UriTooLong "target_too_long"
        "The request target is longer than this server accepts.",
    /// A version other than HTTP/1.0 and HTTP/1.1 (RFC 9110, section 15.6.6).
    UnsupportedVersion => VersionNotSupported "unsupported_version"
        "This server supports HTTP/1.1 and HTTP/1.0.",
    /// A method that RFC 9110 and RFC 5789 do not define, or CONNECT (RFC 9110, section 15.6.2).
    UnknownMethod => NotImplemented "unknown_method"
        "This server does not implement the request method.",
    /// An expectation other than `100-continue` (RFC 9110, section 10.1.1).
    BadExpectation => ExpectationFailed "expectation_failed"
        "The only expectation that this server supports is 100-continue.",
    /// A query with an invalid percent escape, or one that is not UTF-8 once decoded.
    BadQuery => BadRequest "bad_query"
        "The query string has an invalid percent escape or is not UTF-8.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_its_own_and_its_status() {
        use HttpRefusal::*;
        let mut codes: Vec<_> = HttpRefusal::ALL.iter().map(|refusal| refusal.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), HttpRefusal::ALL.len());
        for &refusal in HttpRefusal::ALL {
            let status = match refusal {
                HeadTooLarge | TooManyHeaders | TrailersTooLarge => 431,
                TargetTooLong => 414,
                BodyTooLarge => 413,
                BadExpectation => 417,
                UnknownMethod | UnsupportedTransferCoding => 501,
                UnsupportedVersion => 505,
                _ => 400,
            };
            assert_eq!(refusal.status().code(), status, "{refusal:?}");
            let json: serde_json::Value = serde_json::from_str(refusal.json()).unwrap();
            assert_eq!(json["error"], refusal.code());
            assert_eq!(json["message"], refusal.message());
        }
    }
}
