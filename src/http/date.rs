//! The `Date` field, rendered once a second.

use std::io::Write;

use chrono::DateTime;

/// Bytes of an IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
const LENGTH: usize = 29;

/// The current time rendered as an IMF-fixdate (RFC 9110, section 5.6.7). Each worker owns one.
#[derive(Debug, Clone)]
pub struct DateCache {
    unix_seconds: u64,
    rendered: [u8; LENGTH],
}

impl Default for DateCache {
    fn default() -> Self {
        Self { unix_seconds: 0, rendered: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl DateCache {
    /// Sets the time in seconds since 1970. A call with an unchanged time costs one comparison. A
    /// time after the year 9999, which an IMF-fixdate can't express, is ignored.
    pub fn update(&mut self, unix_seconds: u64) {
        if unix_seconds != self.unix_seconds {
            self.render(unix_seconds);
        }
    }

    /// The date of the last [`DateCache::update`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.rendered
    }

    #[cold]
    fn render(&mut self, unix_seconds: u64) {
        let Some(time) = i64::try_from(unix_seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        else {
            return;
        };
        let mut rendered = [0; LENGTH];
        let mut room = rendered.as_mut_slice();
        let written = write!(room, "{}", time.format("%a, %d %b %Y %H:%M:%S GMT"));
        if written.is_ok() && room.is_empty() {
            self.unix_seconds = unix_seconds;
            self.rendered = rendered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_rendered_as_an_imf_fixdate() {
        let mut date = DateCache::default();
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            // An IMF-fixdate has four digits for the year: the last date stays.
            (253_402_300_800, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            date.update(seconds);
            assert_eq!(str::from_utf8(date.as_bytes()), Ok(text));
        }
    }
}
