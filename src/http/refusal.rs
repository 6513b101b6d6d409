//! Why a request was refused before anybody looked at what it wants: one table.

use super::Status;

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident => $status:ident $code:literal $message:literal,)*) => {
        /// Why the framing refused a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The status to answer with.
            pub const fn status(self) -> Status {
                match self { $(Self::$name => Status::$status,)* }
            }

            /// The stable name in the reply's `error`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The sentence in the reply's `message`.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }

            /// Code and message as the reply's whole body.
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
    /// No `method SP target SP version` (RFC 9112, section 3), or more than one blank line
    /// before it (section 2.2).
    BadRequestLine => BadRequest "bad_request_line"
        "The request line is not a method, a target and an HTTP version.",
    /// A target in none of the forms of RFC 9112, section 3.2, or with bytes that no URI has.
    BadTarget => BadRequest "bad_target"
        "The request target is not a valid path or URL.",
    /// A line of the head that ends in a bare LF or has a bare CR (RFC 9112, section 2.2).
    BadLineEnd => BadRequest "bad_line_end"
        "A line of the request head does not end in CR LF.",
    /// A header field that breaks RFC 9112, section 5: folded, space before the colon, a control
    /// character.
    BadHeader => BadRequest "bad_header"
        "A header field of the request is malformed.",
    /// HTTP/1.1 without `Host` (RFC 9112, section 3.2).
    MissingHost => BadRequest "missing_host"
        "An HTTP/1.1 request needs a Host header field.",
    /// More than one `Host`, or one that names no host (RFC 9112, section 3.2).
    BadHost => BadRequest "bad_host"
        "The Host header field is repeated or is not a host with an optional port.",
    /// Not a plain decimal number, one that does not fit 64 bits, or given more than once
    /// (RFC 9112, section 6.3).
    BadContentLength => BadRequest "bad_content_length"
        "Content-Length is repeated or is not a number.",
    /// `Content-Length` and `Transfer-Encoding` together (RFC 9112, section 6.3).
    BothLengths => BadRequest "both_lengths"
        "Content-Length and Transfer-Encoding exclude each other.",
    /// A `Transfer-Encoding` that leaves the end of the body open: from HTTP/1.0, repeated,
    /// empty, or with `chunked` elsewhere than once at the end (RFC 9112, sections 6.1, 6.3).
    BadTransferCoding => BadRequest "bad_transfer_coding"
        "Transfer-Encoding is not usable: it must be chunked, once, and HTTP/1.1.",
    /// A transfer coding beside `chunked` (RFC 9112, section 6.1).
    UnsupportedTransferCoding => NotImplemented "unsupported_transfer_coding"
        "The only transfer coding known here is chunked.",
    /// A chunk that breaks RFC 9112, section 7.1, or extensions beyond what is skipped.
    BadChunk => BadRequest "bad_chunk"
        "The chunked body is malformed.",
    /// Trailer fields longer than what is skipped.
    TrailersTooLarge => HeaderFieldsTooLarge "trailers_too_large"
        "The trailer fields of the chunked body are too large.",
    /// More body than `--body-bytes-max`.
    BodyTooLarge => ContentTooLarge "body_too_large"
        "The body is larger than this server takes.",
    /// Header fields beyond `--head-bytes-max`.
    HeadTooLarge => HeaderFieldsTooLarge "head_too_large"
        "The request head is larger than this server takes.",
    /// More header fields than `--headers-max`.
    TooManyHeaders => HeaderFieldsTooLarge "too_many_headers"
        "The request has more header fields than this server takes.",
    /// A request line beyond `--head-bytes-max`.
    TargetTooLong => UriTooLong "target_too_long"
        "The request target is longer than this server takes.",
    /// A version other than HTTP/1.0 and HTTP/1.1 (RFC 9110, section 15.6.6).
    UnsupportedVersion => VersionNotSupported "unsupported_version"
        "This server speaks HTTP/1.1 and HTTP/1.0.",
    /// A method that RFC 9110 and RFC 5789 do not name, or CONNECT (RFC 9110, section 15.6.2).
    UnknownMethod => NotImplemented "unknown_method"
        "The request method is not known here.",
    /// An expectation other than `100-continue` (RFC 9110, section 10.1.1).
    BadExpectation => ExpectationFailed "expectation_failed"
        "The only expectation known here is 100-continue.",
    /// A query with a broken percent escape, or one that is not UTF-8 behind its escapes.
    BadQuery => BadRequest "bad_query"
        "The query string has a broken escape or is not UTF-8.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_a_table_of_distinct_codes() {
        use Refusal::*;
        let mut codes: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Refusal::ALL.len());
        for &refusal in Refusal::ALL {
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
