//! `/stats`: the metrics, the ledger, the state of the server and the time series of the last 15 minutes as
//! JSON. Queried by the dashboard every second or so: `since=UNIX_MS` gives only the steps of the series that
//! ended after that moment.

use std::collections::BTreeMap;

use serde::Serialize;

use super::series::Steps;
use super::snapshot::{HistogramSeries, Labels, Snapshot, quantile};
use super::state::{Inserters, ServerLine, SpoolState, State};
use super::{Admin, Page, health, state};
use crate::clock::unix_ms;
use crate::http::{Status, query_pairs};
use crate::spool::Accounts;

/// The quantiles of each histogram.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// The body of the page.
#[derive(Serialize)]
struct Stats {
    unix_ms: u64,
    started_unix_ms: u64,
    version: &'static str,
    node: String,
    /// True if an event would be taken now, as `/readyz` decides.
    ready: bool,
    reason: Option<Reason>,
    warnings: Vec<String>,
    /// The metrics by their names in `/metrics`, without the prefix.
    figures: BTreeMap<String, Metric>,
    /// The ledger's accounts by table.
    ledger: BTreeMap<String, TableAccounts>,
    /// True if the accounts of all tables balance.
    ledger_balances: bool,
    spool: SpoolState,
    tables: Vec<state::TableLine>,
    held: Vec<state::HeldLine>,
    servers: Vec<ServerLine>,
    inserters: Inserters,
    series: Steps,
}

/// Why events are not taken.
#[derive(Serialize)]
struct Reason {
    code: &'static str,
    message: &'static str,
}

/// A metric: a value, or values by label, such as `requests_total` by code and `inserts_total` by
/// table and then by outcome.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Metric {
    Count(u64),
    Value(f64),
    Histogram(Distribution),
    By(BTreeMap<String, Metric>),
}

/// The observations of a histogram.
#[derive(Debug, PartialEq, Serialize)]
struct Distribution {
    count: u64,
    sum: f64,
    /// In the order of their bounds.
    buckets: Vec<Bucket>,
    quantiles: Vec<Quantile>,
}

/// The observations between two bounds.
#[derive(Debug, PartialEq, Serialize)]
struct Bucket {
    /// The upper bound; `None` for the last bucket, which has none.
    le: Option<f64>,
    /// Observations in this bucket alone.
    count: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Quantile {
    quantile: f64,
    /// `None` without an observation.
    seconds: Option<f64>,
}

impl From<HistogramSeries> for Distribution {
    fn from(series: HistogramSeries) -> Self {
        let of = |q| Quantile { quantile: q, seconds: quantile(series.buckets.iter().copied(), q) };
        let bucket = |&(bound, count): &(f64, u64)| Bucket { le: Some(bound).filter(|bound| bound.is_finite()), count };
        Self {
            count: series.count(),
            sum: series.sum,
            quantiles: QUANTILES.map(of).into(),
            buckets: series.buckets.iter().map(bucket).collect(),
        }
    }
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
pub(super) fn page(admin: &Admin, query: &str) -> Page {
    let Some(since) = since(query) else {
        let message = "The query may have since=UNIX_MS, and nothing else.";
        return Page::fault(Status::BadRequest, "bad_query", message);
    };
    let snapshot = Snapshot::of(admin);
    let State { spool, tables, held, servers, inserters } = State::of(admin, &snapshot);
    let ledger_balances = snapshot.ledger.balances();
    let ledger = snapshot.ledger_tables.iter().map(|(table, accounts)| (table.clone(), (*accounts).into())).collect();
    let fault = admin.health.unready();
    let stats = Stats {
        unix_ms: unix_ms(),
        started_unix_ms: admin.started_unix_ms,
        version: env!("CARGO_PKG_VERSION"),
        node: admin.node.clone(),
        ready: fault.is_none(),
        reason: fault.map(|fault| Reason { code: fault.code, message: fault.message }),
        warnings: health::texts(admin),
        figures: figures(snapshot),
        ledger,
        ledger_balances,
        spool,
        tables,
        held,
        servers,
        inserters,
        series: admin.series.steps(since),
    };
    match sonic_rs::to_string(&stats) {
        Ok(body) => Page::json(Status::Ok, body),
        Err(_) => Page::fault(Status::InternalServerError, "stats_failed", "The statistics can't be encoded."),
    }
}

/// The moment behind which steps of the series are asked for, Unix ms; `None` for a bad query.
fn since(query: &str) -> Option<u64> {
    let mut since = 0;
    for pair in query_pairs(query) {
        let (name, value) = pair.ok()?;
        match name.as_ref() {
            "since" => since = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(since)
}

fn figures(snapshot: Snapshot) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for (name, _, series) in snapshot.counters {
        put(&mut metrics, format!("{name}_total"), series, Metric::Count);
    }
    for (name, _, series) in snapshot.gauges {
        put(&mut metrics, name.to_owned(), series, Metric::Value);
    }
    for (name, _, value) in snapshot.process.counters {
        metrics.insert(format!("{name}_total"), Metric::Value(value));
    }
    for (name, _, value) in snapshot.process.gauges {
        metrics.insert(name.to_owned(), Metric::Value(value));
    }
    for histogram in snapshot.histograms {
        let series = histogram.series.into_iter().map(|mut series| (std::mem::take(&mut series.labels), series));
        put(&mut metrics, histogram.name.to_owned(), series.collect(), |series| Metric::Histogram(series.into()));
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

    #[test]
    fn a_histogram_has_its_buckets_in_order_and_its_quantiles() {
        let buckets = vec![(0.5, 0), (1.0, 4), (f64::INFINITY, 0)];
        let series = HistogramSeries { labels: labels(&[("table", "a")]), sum: 3.5, buckets };
        let mut metrics = BTreeMap::new();
        put(&mut metrics, "h".into(), vec![(series.labels.clone(), series)], |series| Metric::Histogram(series.into()));
        assert_eq!(
            sonic_rs::to_string(&metrics).unwrap(),
            r#"{"h":{"a":{"count":4,"sum":3.5,"buckets":[{"le":0.5,"count":0},{"le":1.0,"count":4},{"le":null,"count":0}],"quantiles":[{"quantile":0.5,"seconds":0.75},{"quantile":0.9,"seconds":0.95},{"quantile":0.99,"seconds":0.995},{"quantile":0.999,"seconds":0.9995}]}}}"#
        );
        let none = HistogramSeries { labels: Vec::new(), sum: 0.0, buckets: vec![(f64::INFINITY, 0)] };
        assert!(Distribution::from(none).quantiles.iter().all(|quantile| quantile.seconds.is_none()));
    }

    #[test]
    fn a_query_has_a_moment_or_nothing() {
        assert_eq!((since(""), since("since=17")), (Some(0), Some(17)));
        for bad in ["since=", "since=x", "since=-1", "more=1", "since=1&more=1", "%"] {
            assert_eq!(since(bad), None, "{bad}");
        }
    }
}
