//! What is counted of fields: in the metrics, and at `/fields` with the type that each field without a column
//! would need, for `sluicegate schema --suggest`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::snapshot::{Family, Labels};
use super::{Admin, Page};
use crate::http::Status;
use crate::limits;
use crate::ndjson::Counts;
use crate::schema::TimeUnit;

/// Where [`page`] is.
pub(super) const PATH: &str = "/fields";

/// What fields are counted by that have no name of their own in the metrics.
const OTHER: &str = "other";

/// A field that no column takes.
#[derive(Serialize)]
struct Field {
    field: String,
    count: u64,
    /// The type of a column that takes all values that the field had.
    #[serde(rename = "type")]
    column_type: String,
}

/// The fields that no column takes and that came most often, by table.
pub(super) fn page(admin: &Admin) -> Page {
    let of_table = |(label, counts): (&str, Counts)| {
        let field = |(name, field): (Box<str>, crate::ndjson::UnknownField)| Field {
            field: name.into(),
            count: field.count,
            column_type: field.kinds.column_type(),
        };
        let mut fields: Vec<Field> = counts.unknown.into_iter().map(field).collect();
        fields.sort_by_key(|field| Reverse(field.count));
        (label.to_owned(), fields)
    };
    let tables: BTreeMap<String, Vec<Field>> = counts(admin).map(of_table).collect();
    match sonic_rs::to_string(&tables) {
        Ok(body) => Page::json(Status::Ok, body),
        Err(_) => Page::fault(Status::InternalServerError, "fields_failed", "The fields can't be encoded."),
    }
}

/// The counters of all tables.
pub(super) fn counters(admin: &Admin) -> [Family<u64>; 2] {
    let (mut unknown, mut guessed) = (Vec::new(), Vec::new());
    for (table, counts) in counts(admin) {
        let named = counts.unknown.iter().map(|(name, field)| (&**name, field.count));
        let mut by_name: BTreeMap<&str, u64> = named.collect();
        if counts.others > 0 {
            *by_name.entry(OTHER).or_default() += counts.others;
        }
        unknown.extend(by_name.into_iter().map(|(name, count)| (labels(&[("table", table), ("field", name)]), count)));
        for (column, units) in &counts.guessed {
            let of_column = TimeUnit::ALL.into_iter().zip(units).filter(|(_, count)| **count > 0);
            guessed.extend(of_column.map(|(unit, count)| {
                (labels(&[("table", table), ("column", column), ("unit", unit.as_str())]), *count)
            }));
        }
    }
    [
        (
            "unknown_fields",
            "Fields that no column takes, by name: the most frequent ones, and all others together",
            unknown,
        ),
        ("guessed_units", "Bare numbers in columns of times whose unit was guessed by their magnitude", guessed),
    ]
}

/// What all workers have counted, by the label of the table.
fn counts(admin: &Admin) -> impl Iterator<Item = (&str, Counts)> {
    admin.tables.iter().enumerate().map(|(index, table)| {
        let mut sum = Counts::default();
        admin.workers.iter().filter_map(|worker| worker.fields.get(index)).for_each(|counts| counts.add_to(&mut sum));
        (table.label.as_str(), sum.most_frequent(limits::SHOWN_FIELDS_MAX))
    })
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
