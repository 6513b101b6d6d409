//! The metrics of the process, under the names that all of Prometheus' client libraries give them.
//!
//! Only Linux says all of them; elsewhere there are none.

/// The name of a metric, its help text, and its value.
type Value = (&'static str, &'static str, f64);

/// The figures of this process at one moment.
#[derive(Debug, Default)]
pub(super) struct ProcessMetrics {
    pub(super) counters: Vec<Value>,
    pub(super) gauges: Vec<Value>,
}

impl ProcessMetrics {
    /// What the system says now; nothing of what it does not say.
    pub(super) fn now() -> Self {
        #[cfg(target_os = "linux")]
        return linux::metrics();
        #[cfg(not(target_os = "linux"))]
        Self::default()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::{LimitValue, Process, Stat};

    use super::ProcessMetrics;

    pub(super) fn metrics() -> ProcessMetrics {
        let mut metrics = ProcessMetrics::default();
        let Ok(process) = Process::myself() else { return metrics };
        if let Ok(stat) = process.stat() {
            add_stat(&mut metrics, &stat);
        }
        let descriptors = process.fd_count().ok().map(|count| count as f64);
        let limit = process.limits().ok().map(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(limit) => limit as f64,
            LimitValue::Unlimited => f64::INFINITY,
        });
        let gauges = [
            ("process_open_fds", "Number of open file descriptors", descriptors),
            ("process_max_fds", "Maximum number of open file descriptors", limit.filter(|limit| limit.is_finite())),
        ];
        metrics.gauges.extend(gauges.into_iter().filter_map(|(name, help, value)| Some((name, help, value?))));
        metrics
    }

    fn add_stat(metrics: &mut ProcessMetrics, stat: &Stat) {
        let ticks = procfs::ticks_per_second() as f64;
        let cpu_seconds = (stat.utime + stat.stime) as f64 / ticks;
        metrics.counters.push(("process_cpu_seconds", "User and system CPU time in seconds", cpu_seconds));
        let resident = stat.rss.saturating_mul(procfs::page_size()) as f64;
        metrics.gauges.push(("process_resident_memory_bytes", "Resident memory in bytes", resident));
        metrics.gauges.push(("process_virtual_memory_bytes", "Virtual memory in bytes", stat.vsize as f64));
        metrics.gauges.push(("process_threads", "Number of threads", stat.num_threads as f64));
        if let Ok(boot) = procfs::boot_time_secs() {
            let started = boot as f64 + stat.starttime as f64 / ticks;
            metrics.gauges.push(("process_start_time_seconds", "Start of the process in Unix seconds", started));
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::clock::unix_ms;

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        let metrics = ProcessMetrics::now();
        let all: Vec<Value> = [metrics.counters, metrics.gauges].concat();
        let value = |name: &str| all.iter().find(|(known, ..)| *known == name).unwrap().2;
        assert!(value("process_cpu_seconds") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        let age = unix_ms() as f64 / 1000.0 - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
