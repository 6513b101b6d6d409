//! `/`: the page that shows what the server does, and the files that it consists of.
//!
//! The page has no build step and loads nothing of another address; its policy lets a browser hold it to that,
//! and keeps what an event says from being run should the page ever take a text for markup.

use super::Page;
use crate::http::Status;

/// What the browser may load and run on a page of this address
/// ([Content Security Policy Level 3](https://www.w3.org/TR/CSP3/)): files of this address, and no text as
/// code.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The path, the content type and the text of each file.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    ("/page/page.css", CSS, include_str!("page.css")),
    ("/page/page.js", SCRIPT, include_str!("page.js")),
    ("/page/figures.js", SCRIPT, include_str!("figures.js")),
    ("/page/chart.js", SCRIPT, include_str!("chart.js")),
    ("/page/events.js", SCRIPT, include_str!("events.js")),
    ("/page/dom.js", SCRIPT, include_str!("dom.js")),
];

/// The file at `path`; `None` if the page has no such file.
pub(super) fn file(path: &str) -> Option<Page> {
    let (_, content_type, text) = FILES.iter().find(|(known, ..)| *known == path)?;
    Some(Page { status: Status::Ok, content_type, body: (*text).to_owned(), allow: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_no_file_that_is_not_there_and_nothing_elsewhere() {
        for (path, _, text) in FILES {
            let own = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains("http://") && !own.contains("https://") && !own.contains("\"//"), "{path}");
            let imports = text.lines().filter_map(|line| line.split_once(" from \"./")?.1.split_once('"'));
            let imports = imports.map(|(name, _)| format!("/page/{name}"));
            let loads = ["src=\"/page/", "href=\"/page/"].into_iter().flat_map(|before| {
                text.split(before).skip(1).filter_map(|rest| Some(format!("/page/{}", rest.split_once('"')?.0)))
            });
            for name in imports.chain(loads) {
                assert!(file(&name).is_some(), "{path} names {name}");
            }
        }
        assert!(file("/page/").is_none() && file("/page/page.html").is_none());
    }
}
