//! The lines of a body as they were sent, with their numbers in a report, for those who look at a few of them.

use std::borrow::Cow;

use super::lines::{Lines, after_mark, end_of_line, trim_end};

/// The lines of a body that are not blank, or the elements of an array, each with its number, from 1. Ends at the
/// first element that is none.
pub struct BodyLines<'a> {
    body: &'a [u8],
    from: From<'a>,
}

enum From<'a> {
    Lines(Lines),
    Elements(u32, Box<dyn Iterator<Item = sonic_rs::Result<sonic_rs::LazyValue<'a>>> + 'a>),
}

impl<'a> BodyLines<'a> {
    /// The lines of `body`; with `has_elements` it is an array.
    pub fn new(body: &'a [u8], has_elements: bool) -> Self {
        let array = body.get(after_mark(body)..).unwrap_or_default();
        let from = if has_elements {
            From::Elements(0, Box::new(sonic_rs::to_array_iter(array)))
        } else {
            From::Lines(Lines::new(body, 0))
        };
        Self { body, from }
    }
}

impl<'a> Iterator for BodyLines<'a> {
    type Item = (u32, Cow<'a, [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.from {
            From::Lines(lines) => {
                let (start, number) = lines.begin(self.body)?;
                let end = end_of_line(self.body, start);
                lines.end(end);
                Some((number, trim_end(self.body.get(start..end)?).into()))
            }
            From::Elements(number, elements) => {
                *number = number.saturating_add(1);
                let element = match elements.next()?.ok()?.as_raw_cow() {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                };
                Some((*number, element))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &str, has_elements: bool) -> Vec<(u32, String)> {
        let text = |(number, line): (u32, Cow<'_, [u8]>)| (number, String::from_utf8(line.into_owned()).unwrap());
        BodyLines::new(body.as_bytes(), has_elements).map(text).collect()
    }

    #[test]
    fn lines_and_elements_have_the_numbers_that_errors_have() {
        let line = |number: u32, text: &str| (number, text.to_owned());
        assert_eq!(all("\u{feff}{\"a\":1} \r\n\n \nb", false), [line(1, "{\"a\":1}"), line(4, "b")]);
        assert_eq!(all("", false), []);
        let array = "\u{feff} [{\"a\":\n1}, 2 ,\n\"x\"]";
        assert_eq!(all(array, true), [line(1, "{\"a\":\n1}"), line(2, "2"), line(3, "\"x\"")]);
        assert_eq!(all("[1,", true), [line(1, "1")]);
        assert_eq!(all("[]", true), []);
    }
}
