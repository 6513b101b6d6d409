//! `/metrics`: all metrics of the server as Prometheus text, collected for each request.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Admin, Page, fields};
use crate::api::Shed;
use crate::batch::TableIndex;
use crate::clickhouse::metrics::{Attempts, INSERT_SECONDS, OTHER_TABLES, quarantine_label};
use crate::clock::unix_ms;
use crate::http::Status;
use crate::intake::metrics::{Counter, REQUEST_SECONDS, WorkerMetrics};
use crate::ndjson::LineCode;
use crate::spool::{Accounts, COMMIT_SECONDS, KEY_SECONDS_MAX, LedgerSnapshot};

/// Where [`page`] is.
pub(super) const PATH: &str = "/metrics";

/// The page.
pub(super) fn page(admin: &Admin) -> Page {
    let mut registry = Registry::with_prefix("sluicegate");
    registry.register_collector(Box::new(Snapshot::of(admin)));
    let mut open_metrics = String::with_capacity(16 << 10);
    if text::encode(&mut open_metrics, &registry).is_err() {
        return Page::fault(Status::InternalServerError, "metrics_failed", "The metrics can't be encoded.");
    }
    Page {
        status: Status::Ok,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body: prometheus_text(&open_metrics),
        allow: None,
    }
}

/// Converts OpenMetrics to the older text format, which every scraper reads. That format describes a
/// counter under the full name of its series, and has no end mark.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 256);
    // The help line of a metric directly precedes its type line.
    let mut help = None;
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        let counter = line.strip_prefix("# TYPE ").and_then(|described| described.strip_suffix(" counter"));
        let total = if counter.is_some() { "_total" } else { "" };
        if let Some((name, sentence)) = help.take() {
            text.extend(["# HELP ", name, total, " ", sentence, "\n"]);
        }
        match counter {
            Some(name) => text.extend(["# TYPE ", name, "_total counter\n"]),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

/// Names and values of labels.
pub(super) type Labels = Vec<(String, String)>;

/// The name, the help text and the series of a counter.
pub(super) type Family = (&'static str, &'static str, Vec<(Labels, u64)>);

/// The values of all metrics at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) counters: Vec<Family>,
    pub(super) gauges: Vec<(&'static str, &'static str, Labels, f64)>,
    pub(super) histograms: Vec<Histogram>,
    pub(super) ledger: LedgerSnapshot,
    /// The ledger's accounts by the label of the table.
    pub(super) ledger_tables: Vec<(String, Accounts)>,
}

/// A histogram with its buckets, each with its upper bound.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) sum: f64,
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Creates a histogram. `counts` has one bucket more than `bounds`, for the values above all
    /// bounds.
    fn new(name: &'static str, help: &'static str, sum: f64, bounds: &[f64], counts: Vec<u64>) -> Self {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        Self { name, help, sum, buckets: bounds.zip(counts).collect() }
    }
}

impl Snapshot {
    pub(super) fn of(admin: &Admin) -> Self {
        let (ledger, tables) = admin.spool.ledgers();
        Self {
            counters: counters(admin),
            gauges: gauges(admin, &ledger),
            histograms: histograms(admin),
            ledger,
            ledger_tables: ledger_tables(admin, &ledger, &tables),
        }
    }
}

/// The accounts of each table and of its quarantine, by label. Of an only table they are all of the ledger.
fn ledger_tables(
    admin: &Admin,
    ledger: &LedgerSnapshot,
    tables: &[(TableIndex, LedgerSnapshot)],
) -> Vec<(String, Accounts)> {
    let of = |label: &str, ledger: &LedgerSnapshot| {
        [(label.to_owned(), ledger.rows), (quarantine_label(label), ledger.rejected)]
    };
    if let [only] = &admin.tables[..] {
        return of(&only.label, ledger).into();
    }
    let none = LedgerSnapshot::default();
    let of_table = |index: TableIndex| tables.iter().find(|(table, _)| *table == index).map(|(_, ledger)| ledger);
    let known = (0..).map(TableIndex::new).zip(&admin.tables);
    let mut lines: Vec<_> =
        known.flat_map(|(index, table)| of(&table.label, of_table(index).unwrap_or(&none))).collect();
    // What an earlier run left of a table that is not configured, and what nobody knows whose it was.
    lines.extend(of_table(TableIndex::OTHER).into_iter().flat_map(|ledger| of(OTHER_TABLES, ledger)));
    lines
}

fn counters(admin: &Admin) -> Vec<Family> {
    let (workers, inserts) = (&admin.workers, &admin.inserts);
    let total = |counter: fn(&WorkerMetrics) -> &Counter| -> Vec<(Labels, u64)> {
        vec![(Vec::new(), workers.iter().map(|worker| counter(worker).get()).sum())]
    };
    let mut replies = std::collections::BTreeMap::new();
    for (status, count) in workers.iter().flat_map(|worker| worker.replies.sent()) {
        *replies.entry(status).or_insert(0) += count;
    }
    let rejected = LineCode::ALL.iter().enumerate().map(|(index, code)| {
        let count = workers.iter().filter_map(|worker| worker.rejected.get(index)).map(Counter::get).sum();
        (label("code", code.as_str()), count)
    });
    let shed = Shed::ALL.iter().enumerate().map(|(index, reason)| {
        let count = workers.iter().filter_map(|worker| worker.shed.get(index)).map(Counter::get).sum();
        (label("reason", reason.code()), count)
    });
    let tables = inserts.tables();
    let outcomes = tables.iter().flat_map(|table| outcomes(&table.label, &table.attempts)).collect();
    let targets = tables.iter().filter(|table| !table.is_quarantine);
    let mut counters = vec![
        (
            "requests",
            "Replies by status",
            replies.into_iter().map(|(status, count)| (label("code", &status.to_string()), count)).collect(),
        ),
        ("events_received", "Lines received, valid events and rejected lines", total(|worker| &worker.received)),
        ("events_accepted", "Events that were acknowledged", total(|worker| &worker.accepted)),
        ("events_rejected", "Rejected lines by reason", rejected.collect()),
        (
            "events_duplicates",
            "Accepted events that were not stored again, because --dedup-field identified them as repeats",
            total(|worker| &worker.duplicates),
        ),
        (
            "requests_repeated",
            "Requests that were not stored again, because their Idempotency-Key was known",
            total(|worker| &worker.repeated),
        ),
        (
            "events_inserted",
            "Rows that ClickHouse has confirmed",
            targets.map(|table| (label("table", &table.label), table.attempts.rows())).collect(),
        ),
        (
            "events_quarantined",
            "Rows that ClickHouse has confirmed in the quarantine table: rejected lines and refused rows",
            vec![(Vec::new(), inserts.rows(true))],
        ),
        ("inserts", "INSERT attempts by outcome", outcomes),
        ("shed", "Requests answered with 503 by reason", shed.collect()),
    ];
    counters.extend(fields::counters(admin));
    let keys = admin.keys.newest();
    let by_key: Vec<(Labels, u64)> =
        keys.owners().accepted().into_iter().map(|(name, count)| (label("key", name), count)).collect();
    if !by_key.is_empty() {
        let help = "Events that were acknowledged, by the name of the write key; empty for keys without a name";
        counters.push(("key_events_accepted", help, by_key));
    }
    counters
}

fn outcomes(table: &str, attempts: &Attempts) -> Vec<(Labels, u64)> {
    let of = |(outcome, count): (&str, u64)| {
        let labels = vec![("table".to_owned(), table.to_owned()), ("outcome".to_owned(), outcome.to_owned())];
        (labels, count)
    };
    attempts.by_outcome().map(of).into()
}

fn gauges(admin: &Admin, ledger: &LedgerSnapshot) -> Vec<(&'static str, &'static str, Labels, f64)> {
    let spool = &admin.spool;
    let oldest_ms = spool.oldest_unix_ms();
    let oldest = if oldest_ms == 0 { 0.0 } else { unix_ms().saturating_sub(oldest_ms) as f64 / 1000.0 };
    let connections: u64 = admin.workers.iter().map(|worker| worker.connections.get()).sum();
    let (keys, since) = spool.request_keys();
    let horizon = if since == 0 { KEY_SECONDS_MAX } else { (unix_ms() / 1000).saturating_sub(since) };
    let build = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    vec![
        ("events_spooled", "Events that are committed and not yet inserted", Vec::new(), ledger.rows.spooled as f64),
        ("ledger_balances", "1 while every event is accounted for", Vec::new(), f64::from(u8::from(ledger.balances()))),
        ("spool_bytes", "Bytes that the files of the spool occupy", Vec::new(), spool.spool_bytes() as f64),
        ("spool_oldest_seconds", "Age of the oldest block that is not yet inserted", Vec::new(), oldest),
        ("blocks_held", "Blocks that need operator action", Vec::new(), admin.spool.held.count() as f64),
        ("files_damaged", "Files in damaged/", Vec::new(), spool.damaged() as f64),
        (
            "in_flight_bytes",
            "Bytes of --in-flight-bytes-max that are taken: partial requests, batches under way, waiting replies",
            Vec::new(),
            admin.budget.bytes() as f64,
        ),
        ("idempotency_keys", "Remembered idempotency keys", Vec::new(), keys as f64),
        (
            "idempotency_horizon_seconds",
            "How long an idempotency key is remembered: a day, or the age of the oldest once --idempotency-keys-max is \
             reached",
            Vec::new(),
            horizon as f64,
        ),
        ("connections", "Open connections on the public address", Vec::new(), connections as f64),
        ("build_info", "The running version", build, 1.0),
    ]
}

fn histograms(admin: &Admin) -> Vec<Histogram> {
    let requests = (0..=REQUEST_SECONDS.len())
        .map(|bucket| {
            admin.workers.iter().filter_map(|worker| worker.request_buckets.get(bucket)).map(Counter::get).sum()
        })
        .collect();
    let request_sum: u64 = admin.workers.iter().map(|worker| worker.request_nanoseconds.get()).sum();
    let (inserts, insert_sum) = admin.inserts.durations();
    let (commits, commit_sum) = admin.spool.commits();
    vec![
        Histogram::new(
            "request_seconds",
            "Time from the last byte of a request with events to its reply",
            request_sum as f64 / 1e9,
            &REQUEST_SECONDS,
            requests,
        ),
        Histogram::new(
            "commit_seconds",
            "Time to write and sync one group of batches",
            commit_sum,
            &COMMIT_SECONDS,
            commits,
        ),
        Histogram::new("insert_seconds", "Time of one INSERT attempt", insert_sum, &INSERT_SECONDS, inserts),
    ]
}

fn label(name: &str, value: &str) -> Labels {
    vec![(name.to_owned(), value.to_owned())]
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, series) in &self.counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, value) in series {
                if labels.is_empty() {
                    family.encode_counter::<NoLabelSet, u64, f64>(value, None)?;
                } else {
                    family.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(value, None)?;
                }
            }
        }
        for (name, help, labels, value) in &self.gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            if labels.is_empty() {
                family.encode_gauge(value)?;
            } else {
                family.encode_family(labels)?.encode_gauge(value)?;
            }
        }
        let help = "Events by account: recovered + committed = inserted + spooled + set_aside";
        let mut family = encoder.encode_descriptor("ledger_events", help, None, MetricType::Gauge)?;
        for (table, accounts) in &self.ledger_tables {
            for (account, events) in accounts.named() {
                let labels = vec![("table".to_owned(), table.clone()), ("account".to_owned(), account.to_owned())];
                family.encode_family(&labels)?.encode_gauge(&(events as f64))?;
            }
        }
        for histogram in &self.histograms {
            let mut family = encoder.encode_descriptor(histogram.name, histogram.help, None, MetricType::Histogram)?;
            let count = histogram.buckets.iter().map(|(_, count)| count).sum();
            family.encode_histogram::<NoLabelSet>(histogram.sum, count, &histogram.buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::prometheus_text;

    #[test]
    fn counters_are_described_under_the_names_of_their_series() {
        let open_metrics = "# HELP a_b Some of it\n# TYPE a_b counter\na_b_total{c=\"d\"} 1\n\
                            # HELP e Now\n# TYPE e gauge\ne 2.0\n# EOF\n";
        let text = "# HELP a_b_total Some of it\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n\
                    # HELP e Now\n# TYPE e gauge\ne 2.0\n";
        assert_eq!(prometheus_text(open_metrics), text);
    }
}
