//! `POST /spool/requeue`: an operator's orders for held segments.

use super::{Admin, Page};
use crate::batch::BlockNumber;
use crate::http::{Method, Status, query_pairs};
use crate::spool::Orders;

pub(super) const PATH: &str = "/spool/requeue";

/// Requeues segment N with `segment=N`, else all segments; `force=1` and `convert=1` are the orders.
/// Replies with the number of segments.
pub(super) fn page(admin: &Admin, method: Method, query: &str) -> Page {
    if method != Method::Post {
        return Page::only("POST");
    }
    let Some((segment, orders)) = read(query) else {
        let message = "The query may have segment=NUMBER, force=1 and convert=1.";
        return Page::fault(Status::BadRequest, "bad_query", message);
    };
    let Some(requeue) = admin.requeue.get() else {
        return Page::fault(Status::ServiceUnavailable, "starting", "The server has not started to insert yet.");
    };
    let count = requeue(segment, orders);
    Page::json(Status::Ok, format!("{{\"requeued\":{count}}}"))
}

fn read(query: &str) -> Option<(Option<BlockNumber>, Orders)> {
    let (mut segment, mut orders) = (None, Orders::default());
    for pair in query_pairs(query) {
        let (name, value) = pair.ok()?;
        match (name.as_ref(), value.as_ref()) {
            ("segment", number) => segment = Some(number.parse().ok()?),
            ("force", "1") => orders.force = true,
            ("convert", "1") => orders.convert = true,
            _ => return None,
        }
    }
    Some((segment, orders))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::SegmentNumber;

    #[test]
    fn orders_are_parsed_and_nothing_else() {
        assert_eq!(read(""), Some((None, Orders::default())));
        assert_eq!(
            read("segment=7&force=1"),
            Some((Some(BlockNumber::first(SegmentNumber::new(7))), Orders { force: true, convert: false }))
        );
        assert_eq!(read("convert=1"), Some((None, Orders { force: false, convert: true })));
        for wrong in ["segment=x", "force=yes", "other=1", "segment=-1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
