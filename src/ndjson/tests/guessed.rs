//! Every order of a few keys, with every set of them missing, behind every other: what is guessed of a line must not
//! show in its row.

use super::mapping::{fields, mapped, mapping};
use super::*;

/// The keys with their values, in the table's order.
const FIELDS: [(&str, &str); 5] = [
    ("a", "\"text\""),
    ("bb", "17"),
    ("c", "\"2020-12-01 23:09:54\""),
    ("a_key_that_is_longer_than_what_is_compared_at_once", "[1,2]"),
    ("e", "\"a text that is longer than thirty-two bytes\""),
];

/// The server's columns are before, between and behind those of the clients.
const COLUMNS: [(&str, &str); 7] = [
    ("ip", "String"),
    ("a", "String"),
    ("bb", "UInt16"),
    ("server_time", "DateTime('UTC')"),
    ("c", "Nullable(DateTime('UTC'))"),
    ("a_key_that_is_longer_than_what_is_compared_at_once", "Array(Int64)"),
    ("e", "String"),
];

/// The numbers of the fields of each line: all orders of all sets.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    let mut from = 0;
    while from < orders.len() {
        let to = orders.len();
        for at in from..to {
            for field in (0..FIELDS.len()).filter(|field| !orders[at].contains(field)).collect::<Vec<_>>() {
                orders.push([&orders[at][..], &[field]].concat());
            }
        }
        from = to;
    }
    orders
}

fn line(order: &[usize], keys: impl Fn(usize) -> String) -> String {
    let members: Vec<String> = order.iter().map(|field| format!("\"{}\":{}", keys(*field), FIELDS[*field].1)).collect();
    format!("{{{}}}\n", members.join(","))
}

fn both_agree(plan: &Arc<Plan>, body: &str) {
    let mut encoder = RowEncoder::new(Arc::clone(plan), LIMITS);
    let fast = run(&mut encoder, true, body.as_bytes());
    assert_eq!(fast, run(&mut encoder, false, body.as_bytes()), "{body}");
}

#[test]
fn a_row_is_the_same_whatever_orders_were_learned_before_it() {
    let plan = plan(&COLUMNS);
    let exact = |field: usize| FIELDS[field].0.to_owned();
    let orders = orders();
    assert_eq!(orders.len(), 326);
    for learned in orders.iter().filter(|order| order.len() >= 4 || order.is_empty()) {
        let learned = line(learned, exact);
        let body: String = orders.iter().map(|order| format!("{learned}{}", line(order, exact))).collect();
        both_agree(&plan, &body);
    }
}

#[test]
fn lines_of_an_order_that_was_learned_stay_on_the_fast_path() {
    let plan = plan(&COLUMNS);
    for order in orders().into_iter().filter(|order| !order.is_empty()) {
        let mut encoder = RowEncoder::new(Arc::clone(&plan), LIMITS);
        let body = line(&order, |field| FIELDS[field].0.to_owned()).repeat(3);
        run(&mut encoder, true, body.as_bytes());
        encoder.window.clear();
        let bounds = Bounds { lines: u32::MAX, bytes: usize::MAX, line_bytes: usize::MAX };
        let walked = encoder.walk().lines(body.as_bytes(), &mut Lines::new(body.as_bytes(), 0), bounds);
        assert_eq!(walked, 3, "{body}");
    }
}

#[test]
fn a_field_that_comes_twice_is_refused_whatever_is_between() {
    let plan = plan(&COLUMNS);
    for order in orders().iter().filter(|order| order.len() >= 3) {
        let exact = line(order, |field| FIELDS[field].0.to_owned());
        for twice in 0..order.len() {
            // In another case it is another key of the same column.
            let again = format!("\"{}\":{}", FIELDS[order[twice]].0.to_uppercase(), FIELDS[order[twice]].1);
            for at in 0..order.len() {
                let members = line(&order[at..], |field| FIELDS[field].0.to_owned());
                let before = line(&order[..at], |field| FIELDS[field].0.to_owned());
                let before = before.trim_end().trim_end_matches('}');
                let comma = if at == 0 { "" } else { "," };
                let other = format!("{before}{comma}{again},{}", members.trim_start_matches('{'));
                both_agree(&plan, &format!("{exact}{other}{exact}{other}{other}{exact}"));
            }
        }
    }
}

#[test]
fn a_field_with_another_name_may_come_behind_those_that_follow_it_in_the_table() {
    let plan = mapped(&COLUMNS, &mapping(&[("bb", fields(&["bb", "b"])), ("e", fields(&["x.e"]))]));
    let required = {
        let mut mapping = mapping(&[]);
        mapping.required = vec!["bb".to_owned()];
        mapped(&COLUMNS, &mapping)
    };
    for order in orders() {
        let exact = line(&order, |field| FIELDS[field].0.to_owned());
        let other = line(&order, |field| if field == 1 { "b".to_owned() } else { FIELDS[field].0.to_owned() });
        both_agree(&plan, &format!("{exact}{exact}{other}{exact}{other}{other}{exact}"));
        both_agree(&required, &exact.repeat(3));
    }
}
