//! `/stats`: the metrics, the ledger and the time series of the last minute as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::metrics::{Labels, Snapshot};
use super::series::Steps;
use super::{Admin, Page};
use crate::clock::unix_ms;
use crate::http::Status;
use crate::spool::Accounts;

/// The body of the page.
#[derive(Serialize)]
struct Stats {
    unix_ms: u64,
    /// The metrics by their names in `/metrics`.
    #[serde(rename = "figures")]
    metrics: BTreeMap<String, Metric>,
    /// The ledger's accounts by table.
    ledger: BTreeMap<String, TableAccounts>,
    /// True if the accounts of all tables balance.
    ledger_balances: bool,
    /// The time series of the last minute.
    last_minute: Steps,
}

/// A metric: a value, or values by label, such as `requests_total` by code and `inserts_total` by
/// table and then by outcome.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Metric {
    Count(u64),
    Value(f64),
    By(BTreeMap<String, Metric>),
}

/// The ledger's accounts of one table.
#[derive(Serialize)]
struct TableAccounts {
    recovered: u64,
    committed: u64,
    inserted: u64,
    spooled: u64,
    set_aside: u64,
}

impl From<Accounts> for TableAccounts {
    fn from(accounts: Accounts) -> Self {
        let Accounts { recovered, committed, inserted, spooled, set_aside } = accounts;
        Self { recovered, committed, inserted, spooled, set_aside }
    }
}

/// The page.
pub(super) fn page(admin: &Admin) -> Page {
    let snapshot = Snapshot::of(admin);
    let ledger_balances = snapshot.ledger.balances();
    let ledger = snapshot.ledger_tables.iter().map(|(table, accounts)| (table.clone(), (*accounts).into())).collect();
    let stats = Stats {
        unix_ms: unix_ms(),
        metrics: metrics(snapshot),
        ledger,
        ledger_balances,
        last_minute: admin.series.steps(),
    };
    match sonic_rs::to_string(&stats) {
        Ok(body) => Page::json(Status::Ok, body),
        Err(_) => Page::fault(Status::InternalServerError, "stats_failed", "The statistics can't be encoded."),
    }
}

fn metrics(snapshot: Snapshot) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for (name, _, series) in snapshot.counters {
        put(&mut metrics, format!("{name}_total"), series, Metric::Count);
    }
    for (name, _, labels, value) in snapshot.gauges {
        put(&mut metrics, name.to_owned(), vec![(labels, value)], Metric::Value);
    }
    for histogram in snapshot.histograms {
        let count = histogram.buckets.iter().map(|(_, count)| count).sum();
        let name = |bound: f64| if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
        let buckets = histogram.buckets.into_iter().map(|(bound, count)| (name(bound), Metric::Count(count)));
        let parts = [
            ("count".to_owned(), Metric::Count(count)),
            ("sum".to_owned(), Metric::Value(histogram.sum)),
            ("buckets".to_owned(), Metric::By(buckets.collect())),
        ];
        metrics.insert(histogram.name.to_owned(), Metric::By(parts.into()));
    }
    metrics
}

/// Inserts the series of a metric below its name, with one level per label.
fn put<T>(metrics: &mut BTreeMap<String, Metric>, name: String, series: Vec<(Labels, T)>, of: fn(T) -> Metric) {
    let all_labelled = series.iter().all(|(labels, _)| !labels.is_empty());
    if all_labelled {
        metrics.insert(name.clone(), Metric::By(BTreeMap::new()));
    }
    for (labels, value) in series {
        let mut place = &mut *metrics;
        let mut key = name.clone();
        for (_, label) in labels {
            let below = place.entry(key).or_insert_with(|| Metric::By(BTreeMap::new()));
            let Metric::By(inner) = below else { return };
            (place, key) = (inner, label);
        }
        place.insert(key, of(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn labels_become_levels() {
        let mut metrics = BTreeMap::new();
        put(&mut metrics, "plain".into(), vec![(labels(&[]), 7)], Metric::Count);
        put(&mut metrics, "none".into(), Vec::new(), Metric::Count);
        let series = vec![
            (labels(&[("table", "a"), ("outcome", "done")]), 1),
            (labels(&[("table", "a"), ("outcome", "hold")]), 2),
            (labels(&[("table", "b"), ("outcome", "done")]), 3),
        ];
        put(&mut metrics, "deep".into(), series, Metric::Count);
        assert_eq!(
            sonic_rs::to_string(&metrics).unwrap(),
            r#"{"deep":{"a":{"done":1,"hold":2},"b":{"done":3}},"none":{},"plain":7}"#
        );
    }
}
