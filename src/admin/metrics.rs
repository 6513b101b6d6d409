//! `/metrics`: all metrics of the server as Prometheus text, collected for each request.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::process::ProcessMetrics;
use super::snapshot::Snapshot;
use super::{Admin, Page};
use crate::http::Status;

/// Where [`page`] is.
pub(super) const PATH: &str = "/metrics";

/// The page.
pub(super) fn page(admin: &Admin) -> Page {
    let mut snapshot = Snapshot::of(admin);
    let mut process = Registry::default();
    process.register_collector(Box::new(std::mem::take(&mut snapshot.process)));
    let mut registry = Registry::with_prefix("sluicegate");
    registry.register_collector(Box::new(snapshot));
    let mut open_metrics = String::with_capacity(16 << 10);
    let encoded = text::encode(&mut open_metrics, &registry).and_then(|()| text::encode(&mut open_metrics, &process));
    if encoded.is_err() {
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
        for (name, help, series) in &self.gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in series {
                if labels.is_empty() {
                    family.encode_gauge(value)?;
                } else {
                    family.encode_family(labels)?.encode_gauge(value)?;
                }
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
            for series in &histogram.series {
                let (sum, count, buckets) = (series.sum, series.count(), &series.buckets);
                if series.labels.is_empty() {
                    family.encode_histogram::<NoLabelSet>(sum, count, buckets, None)?;
                } else {
                    family.encode_family(&series.labels)?.encode_histogram::<NoLabelSet>(sum, count, buckets, None)?;
                }
            }
        }
        Ok(())
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in &self.counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            family.encode_counter::<NoLabelSet, f64, f64>(value, None)?;
        }
        for (name, help, value) in &self.gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)?;
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
