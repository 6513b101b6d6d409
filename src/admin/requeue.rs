//! `POST /spool/requeue`: an operator's orders for held blocks.

use super::{Admin, Page};
use crate::batch::BlockNumber;
use crate::http::{Status, query_pairs};
use crate::spool::Orders;

pub(super) const PATH: &str = "/spool/requeue";

/// Requeues block N with `block=N`, else all blocks, with `table=LABEL` those of that table (or of several);
/// `force=1` and `convert=1` are the orders. Replies with the number of blocks. `segment=N` is the former name
/// of `block=N`.
pub(super) fn page(admin: &Admin, query: &str) -> Page {
    let Some(Meant { block, labels, orders }) = read(query) else {
        let message = "The query may have block=NUMBER, table=LABEL, force=1 and convert=1.";
        return Page::fault(Status::BadRequest, "bad_query", message);
    };
    let named = |label: &String| admin.tables.iter().find(|table| table.label == *label);
    let Some(tables) = labels.iter().map(|label| Some(named(label)?.name.clone())).collect::<Option<Vec<_>>>() else {
        return Page::fault(Status::NotFound, "no_table", "There is no such table.");
    };
    let Some(requeue) = admin.requeue.get() else {
        return Page::fault(Status::ServiceUnavailable, "starting", "The server has not started to insert yet.");
    };
    let count = requeue(block, &tables, orders);
    Page::json(Status::Ok, format!("{{\"requeued\":{count}}}"))
}

/// What an operator asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Meant {
    block: Option<BlockNumber>,
    labels: Vec<String>,
    orders: Orders,
}

fn read(query: &str) -> Option<Meant> {
    let mut meant = Meant::default();
    for pair in query_pairs(query) {
        let (name, value) = pair.ok()?;
        match (name.as_ref(), value.as_ref()) {
            ("block" | "segment", number) => meant.block = Some(number.parse().ok()?),
            ("table", label) => meant.labels.push(label.to_owned()),
            ("force", "1") => meant.orders.force = true,
            ("convert", "1") => meant.orders.convert = true,
            _ => return None,
        }
    }
    Some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::SegmentNumber;

    #[test]
    fn orders_are_parsed_and_nothing_else() {
        assert_eq!(read(""), Some(Meant::default()));
        let forced = Orders { force: true, convert: false };
        let block = Some(BlockNumber::first(SegmentNumber::new(7)));
        for name in ["block", "segment"] {
            let query = format!("{name}=7&force=1");
            assert_eq!(read(&query), Some(Meant { block, orders: forced, ..Meant::default() }));
        }
        assert_eq!(read("block=7.3").and_then(|meant| meant.block), "7.3".parse().ok());
        let labels = vec!["a".to_owned(), "web.b".to_owned()];
        let orders = Orders { force: false, convert: true };
        assert_eq!(read("table=a&convert=1&table=web.b"), Some(Meant { block: None, labels, orders }));
        for wrong in ["block=x", "force=yes", "other=1", "block=-1", "block=7."] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
