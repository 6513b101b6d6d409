//! A request as the encoder knows it: its limits, its origin, what the columns of a table get of its head, and why
//! it is refused.

use std::net::IpAddr;

/// Limits of the events of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeLimits {
    /// Bytes of a line; a longer line is rejected.
    pub line_bytes_max: usize,
    /// Lines that are not blank, accepted or rejected; a request with more is refused.
    pub events_max: u32,
    /// Bytes of encoded rows and rejected lines; a request with more is refused.
    pub encoded_bytes_max: usize,
}

/// The origin of a request: the values that the server adds to its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; none when it is not known.
    pub client_ip: Option<IpAddr>,
    /// When the body was complete, in nanoseconds since 1970.
    pub server_time_unix_ns: i64,
}

/// Why the encoder refuses a whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeRefusal {
    /// More than [`BAD_LINES_MAX`](crate::limits::BAD_LINES_MAX) lines are rejected.
    TooManyBadLines,
    /// The request has more lines than [`EncodeLimits::events_max`].
    TooManyEvents,
    /// The request has more encoded bytes than [`EncodeLimits::encoded_bytes_max`].
    EncodedTooLarge,
    /// The body begins as a JSON array, and is none from this offset on.
    InvalidArray {
        /// The offset in the body.
        at: usize,
    },
}

/// The values of one request, in the order of
/// [`Mapping::request_inputs`](crate::schema::Mapping::request_inputs).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestValues(Box<[Option<Box<str>>]>);

impl RequestValues {
    /// These values. An empty one is none.
    pub fn new(values: impl IntoIterator<Item = Option<Box<str>>>) -> Self {
        Self(values.into_iter().map(|value| value.filter(|value| !value.is_empty())).collect())
    }

    /// The value at a place.
    pub fn get(&self, place: usize) -> Option<&str> {
        self.0.get(place)?.as_deref()
    }
}
