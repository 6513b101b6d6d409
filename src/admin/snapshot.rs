//! The values of all metrics at one moment, which `/metrics` and `/stats` both show.

use super::process::ProcessMetrics;
use super::{Admin, AdminTable, fields};
use crate::api::Shed;
use crate::batch::TableIndex;
use crate::clickhouse::metrics::{Attempts, DELIVERY_SECONDS, INSERT_SECONDS, OTHER_TABLES, quarantine_label};
use crate::clock::unix_ms;
use crate::intake::metrics::{ByTable, Counter, REQUEST_SECONDS, WorkerMetrics};
use crate::ndjson::LineCode;
use crate::spool::{Accounts, COMMIT_SECONDS, LedgerSnapshot};

/// Names and values of labels.
pub(super) type Labels = Vec<(String, String)>;

/// The name, the help text and the series of a metric.
pub(super) type Family<T> = (&'static str, &'static str, Vec<(Labels, T)>);

/// The values of all metrics at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) counters: Vec<Family<u64>>,
    pub(super) gauges: Vec<Family<f64>>,
    pub(super) histograms: Vec<Histogram>,
    pub(super) ledger: LedgerSnapshot,
    /// The ledger's accounts by the label of the table.
    pub(super) ledger_tables: Vec<(String, Accounts)>,
    /// Age of the oldest block that is not inserted; 0 without one.
    pub(super) oldest_seconds: f64,
    /// What the system says of the process, under names without this server's prefix.
    pub(super) process: ProcessMetrics,
}

/// A histogram of one or more series.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) series: Vec<HistogramSeries>,
}

/// One series of a histogram: its buckets, each with its upper bound.
#[derive(Debug)]
pub(super) struct HistogramSeries {
    pub(super) labels: Labels,
    pub(super) sum: f64,
    pub(super) buckets: Vec<(f64, u64)>,
}

impl HistogramSeries {
    /// Creates a series. `counts` has one bucket more than `bounds`, for the values above all bounds.
    fn new(labels: Labels, bounds: &[f64], (counts, sum): (Vec<u64>, f64)) -> Self {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        Self { labels, sum, buckets: bounds.zip(counts).collect() }
    }

    /// The number of observations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Snapshot {
    pub(super) fn of(admin: &Admin) -> Self {
        let (ledger, tables) = admin.spool.ledgers();
        let ledger_tables = ledger_tables(admin, &ledger, &tables);
        let oldest_seconds = age(admin.spool.oldest_unix_ms());
        Self {
            counters: counters(admin),
            gauges: gauges(admin, &ledger, &ledger_tables, oldest_seconds),
            histograms: histograms(admin),
            ledger,
            ledger_tables,
            oldest_seconds,
            process: ProcessMetrics::now(),
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

fn counters(admin: &Admin) -> Vec<Family<u64>> {
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
    counters.extend(by_table(admin));
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

/// What is counted of each table beside the sums over all of them.
fn by_table(admin: &Admin) -> [Family<u64>; 3] {
    let counted = |of: fn(&WorkerMetrics) -> &ByTable| -> Vec<(Labels, u64)> {
        let tables = (0..).map(TableIndex::new).zip(&admin.tables);
        let sum = |(index, table): (TableIndex, &AdminTable)| {
            (label("table", &table.label), admin.workers.iter().map(|worker| of(worker).get(index)).sum())
        };
        tables.map(sum).collect()
    };
    [
        (
            "table_events_accepted",
            "Events that were acknowledged, by table",
            counted(|worker| &worker.accepted_by_table),
        ),
        ("table_events_rejected", "Rejected lines, by table", counted(|worker| &worker.rejected_by_table)),
        (
            "table_events_duplicates",
            "Accepted events that were not stored again, by table",
            counted(|worker| &worker.duplicates_by_table),
        ),
    ]
}

fn gauges(
    admin: &Admin,
    ledger: &LedgerSnapshot,
    ledger_tables: &[(String, Accounts)],
    oldest_seconds: f64,
) -> Vec<Family<f64>> {
    let spool = &admin.spool;
    let connections: u64 = admin.workers.iter().map(|worker| worker.connections.get()).sum();
    let (keys, horizon) = spool.request_keys();
    let alone = |name, help, value| (name, help, vec![(Vec::new(), value)]);
    let build = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    let held = spool.held.by_table();
    let by_table = |of: &dyn Fn(TableIndex) -> f64| -> Vec<(Labels, f64)> {
        let tables = (0..).map(TableIndex::new).zip(&admin.tables);
        tables.map(|(index, table)| (label("table", &table.label), of(index))).collect()
    };
    let spooled = ledger_tables.iter().map(|(table, accounts)| (label("table", table), accounts.spooled as f64));
    let mut gauges = vec![
        alone("events_spooled", "Events that are committed and not yet inserted", ledger.rows.spooled as f64),
        (
            "table_events_spooled",
            "Events that are committed and not yet inserted by table, and rejected lines by quarantine table",
            spooled.collect(),
        ),
        alone("ledger_balances", "1 while every event is accounted for", f64::from(u8::from(ledger.balances()))),
        alone("spool_bytes", "Bytes that the files of the spool occupy", spool.spool_bytes() as f64),
        (
            "table_spool_bytes",
            "Bytes of a table's events and rejected lines that are not yet inserted",
            by_table(&|table| spool.spooled_bytes(table) as f64),
        ),
        alone("spool_oldest_seconds", "Age of the oldest block that is not yet inserted", oldest_seconds),
        (
            "table_oldest_seconds",
            "Age of a table's oldest block that is not yet inserted",
            by_table(&|table| age(spool.oldest_unix_ms_of(table))),
        ),
        alone("blocks_held", "Blocks that need operator action", spool.held.count() as f64),
        (
            "table_blocks_held",
            "Blocks of a table that need operator action",
            by_table(&|table| held.get(&table).map_or(0.0, |count| *count as f64)),
        ),
        alone("files_damaged", "Files in damaged/", spool.damaged() as f64),
        alone(
            "in_flight_bytes",
            "Bytes of --in-flight-bytes-max that are taken: partial requests, batches under way, waiting replies",
            admin.budget.bytes() as f64,
        ),
        alone("reply_bytes", "The part of in_flight_bytes that replies take", admin.budget.reply_bytes() as f64),
        alone("idempotency_keys", "Remembered idempotency keys", keys as f64),
        alone(
            "idempotency_horizon_seconds",
            "How long an idempotency key is remembered: a day, or the age of the oldest once --idempotency-keys-max is \
             reached",
            horizon as f64,
        ),
        alone("connections", "Open connections on the public address", connections as f64),
        alone("inserters_busy", "Inserters that work on a block", admin.inserts.busy() as f64),
        ("build_info", "The running version", vec![(build, 1.0)]),
    ];
    if let Some(free) = admin.series.disk_free() {
        gauges.push(alone("disk_free_bytes", "Free bytes of the disk that has the spool", free as f64));
    }
    gauges
}

/// Seconds since a moment in Unix ms; 0 for 0.
fn age(since_ms: u64) -> f64 {
    if since_ms == 0 { 0.0 } else { unix_ms().saturating_sub(since_ms) as f64 / 1000.0 }
}

fn histograms(admin: &Admin) -> Vec<Histogram> {
    let (requests, request_nanoseconds) = request_times(&admin.workers);
    let alone = |name, help, bounds: &[f64], times| Histogram {
        name,
        help,
        series: vec![HistogramSeries::new(Vec::new(), bounds, times)],
    };
    let tables = admin.inserts.tables();
    let delivery = tables.iter().filter(|table| !table.is_quarantine);
    let delivery = delivery
        .map(|table| HistogramSeries::new(label("table", &table.label), &DELIVERY_SECONDS, table.delivery.get()));
    vec![
        alone(
            "request_seconds",
            "Time from the last byte of a request with events to its reply",
            &REQUEST_SECONDS,
            (requests.into(), request_nanoseconds as f64 / 1e9),
        ),
        alone("commit_seconds", "Time to write and sync one group of batches", &COMMIT_SECONDS, admin.spool.commits()),
        alone("insert_seconds", "Time of one INSERT attempt", &INSERT_SECONDS, admin.inserts.durations()),
        Histogram {
            name: "delivery_seconds",
            help: "Time from the commit of a block's first event, and so its reply, until ClickHouse has confirmed all \
                   rows of the block",
            series: delivery.collect(),
        },
    ]
}

/// The number of requests in each bucket of [`REQUEST_SECONDS`] and in one more, and the sum of their times
/// in nanoseconds.
pub(super) fn request_times(workers: &[std::sync::Arc<WorkerMetrics>]) -> ([u64; REQUEST_SECONDS.len() + 1], u64) {
    let of_bucket =
        |bucket| workers.iter().filter_map(|worker| worker.request_buckets.get(bucket)).map(Counter::get).sum();
    let nanoseconds = workers.iter().map(|worker| worker.request_nanoseconds.get()).sum();
    (std::array::from_fn(of_bucket), nanoseconds)
}

/// The value below which a share `q` of the observations lies, in seconds, interpolated in its bucket as
/// Prometheus' `histogram_quantile` does: linearly from the bound below, which is 0 for the first bucket; the
/// highest bound for what is above it. `None` without an observation.
pub(super) fn quantile(buckets: impl Iterator<Item = (f64, u64)> + Clone, q: f64) -> Option<f64> {
    let total: u64 = buckets.clone().map(|(_, count)| count).sum();
    if total == 0 {
        return None;
    }
    let rank = q * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bound, count) in buckets {
        let count = count as f64;
        if count > 0.0 && below + count >= rank {
            return Some(if bound.is_finite() { lower + (bound - lower) * (rank - below) / count } else { lower });
        }
        below += count;
        lower = if bound.is_finite() { bound } else { lower };
    }
    Some(lower)
}

fn label(name: &str, value: &str) -> Labels {
    vec![(name.to_owned(), value.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_interpolated_in_its_bucket() {
        let of = |counts: [u64; 4], q| quantile([0.1, 0.2, 0.4, f64::INFINITY].into_iter().zip(counts), q);
        let near = |counts, q, expected: f64| {
            let found = of(counts, q).unwrap();
            assert!((found - expected).abs() < 1e-9, "{counts:?} {q}: {found} instead of {expected}");
        };
        assert_eq!(of([0; 4], 0.5), None);
        near([10, 0, 0, 0], 0.5, 0.05);
        near([10, 0, 0, 0], 1.0, 0.1);
        near([0, 10, 0, 0], 0.5, 0.15);
        near([5, 0, 5, 0], 0.5, 0.1);
        near([5, 0, 5, 0], 0.75, 0.3);
        near([1, 1, 1, 1], 0.99, 0.4);
        near([0, 0, 0, 3], 0.5, 0.4);
    }
}
