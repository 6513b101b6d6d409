//! The status codes that this server sends, and their reason phrases.

macro_rules! statuses {
    ($($name:ident = $code:literal $reason:literal,)*) => {
        /// A status code of RFC 9110, section 15, or RFC 6585.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Status {
            $(#[doc = concat!("`", $code, " ", $reason, "`")] $name,)*
        }

        impl Status {
            /// Every status, by ascending code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code, three digits.
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// The status line with its line end (RFC 9112, section 4).
            pub const fn line(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n"),)*
                }
            }

            /// The reason phrase.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }
        }
    };
}

statuses! {
    Ok = 200 "OK",
    Accepted = 202 "Accepted",
    NoContent = 204 "No Content",
    BadRequest = 400 "Bad Request",
    Unauthorized = 401 "Unauthorized",
    Forbidden = 403 "Forbidden",
    NotFound = 404 "Not Found",
    MethodNotAllowed = 405 "Method Not Allowed",
    RequestTimeout = 408 "Request Timeout",
    Conflict = 409 "Conflict",
    LengthRequired = 411 "Length Required",
    ContentTooLarge = 413 "Content Too Large",
    UriTooLong = 414 "URI Too Long",
    UnsupportedMediaType = 415 "Unsupported Media Type",
    ExpectationFailed = 417 "Expectation Failed",
    UnprocessableContent = 422 "Unprocessable Content",
    TooManyRequests = 429 "Too Many Requests",
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    InternalServerError = 500 "Internal Server Error",
    NotImplemented = 501 "Not Implemented",
    ServiceUnavailable = 503 "Service Unavailable",
    VersionNotSupported = 505 "HTTP Version Not Supported",
}

impl Status {
    /// True when a response with this status has content. A response without content has no
    /// `Content-Length` (RFC 9110, section 8.6).
    pub const fn has_content(self) -> bool {
        !matches!(self, Self::NoContent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_contain_their_codes_and_codes_ascend() {
        for status in Status::ALL {
            let start = format!("HTTP/1.1 {} ", status.code());
            assert!(status.line().starts_with(&start), "{status:?}");
            assert!(status.line().len() > start.len() + 2 && status.line().ends_with("\r\n"));
            assert_eq!(status.line(), format!("{start}{}\r\n", status.reason()));
        }
        assert!(Status::ALL.is_sorted_by(|a, b| a.code() < b.code()));
    }
}
