//! A reply's parts in the bytes that have arrived of it.

use memchr::memmem;

/// A complete reply.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    pub status: u16,
    /// Status line and header fields, with the empty line behind them.
    pub head: &'a str,
    /// As it came: the chunks of a chunked one are not taken apart.
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The first reply in `received`; `None` while it is not all there.
    pub fn parse(received: &'a [u8]) -> Option<Self> {
        let head_len = memmem::find(received, b"\r\n\r\n")? + 4;
        let (head, rest) = received.split_at(head_len);
        let head = std::str::from_utf8(head).expect("a reply's head is text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let reply = Self { status: status.unwrap_or_else(|| panic!("no status: {head}")), head, body: &[] };
        let body_len = if reply.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            const END: &[u8] = b"0\r\n\r\n";
            memmem::find(rest, END)? + END.len()
        } else {
            reply.field("content-length").map_or(0, |length| length.parse().expect("a length is a number"))
        };
        Some(Self { body: rest.get(..body_len)?, ..reply })
    }

    /// Bytes of all of it.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Names and values of its header fields.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.head.lines().skip(1).filter_map(|line| line.split_once(": "))
    }
}
