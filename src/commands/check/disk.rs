//! What the disk of the spool is worth: how long it takes to write and sync, and whether it keeps what it syncs.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde::Serialize;

use super::{Findings, Severity, Topic};
use crate::config::Settings;
use crate::spool;

/// Number of syncs that are timed.
const SYNCS: usize = 200;

/// The time after which no further sync is begun.
const SYNCS_WITHIN: Duration = Duration::from_secs(3);

/// Up to these times (median and 99th percentile, in microseconds) a disk is good for `--durability sync`: a reply waits
/// for one sync, or two.
const GOOD: (u64, u64) = (2_000, 20_000);

/// Up to these it can be used.
const USABLE: (u64, u64) = (15_000, 100_000);

/// Types of file systems that a restart of the machine empties (`statfs(2)`): tmpfs and ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The times of the disk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disk {
    sync_p50_ms: f64,
    sync_p99_ms: f64,
    sync_max_ms: f64,
    syncs: usize,
    verdict: Verdict,
    /// Nothing that is written survives a restart of the machine.
    in_memory: bool,
}

/// What the times mean for `--durability sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Usable,
    Slow,
}

/// Checks that the disk of the spool has the room that `serve` needs to take an event: a segment, beside what
/// `--disk-free-min` keeps free. One that runs has its segments.
pub fn check_room(settings: &Settings, is_running: bool, findings: &mut Findings) {
    let existing = settings.spool_dir.ancestors().find(|folder| folder.exists());
    let Some(Ok(free)) = existing.map(spool::free_bytes) else { return };
    let segment = settings.segment_bytes_max();
    if free >= settings.disk_free_min.0.saturating_add(segment) {
        return;
    }
    findings.add_with_remedy(
        if is_running { Severity::Warning } else { Severity::Error },
        Topic::Spool,
        format!(
            "{}: {} are free; with --disk-free-min {} and segments of {} every event is answered with 503",
            settings.spool_dir.display(),
            ByteSize(free),
            settings.disk_free_min,
            ByteSize(segment)
        ),
        Some("free some of it, or set a lower --disk-free-min".to_owned()),
    );
}

/// Measures how long the disk of the spool takes to write and sync 4 KiB.
pub fn check(folder: &Path, findings: &mut Findings) -> Option<Disk> {
    let times = match time_syncs(folder) {
        Ok(times) => times,
        Err(error) => {
            findings.add(Severity::Error, Topic::Spool, format!("{}: {error}", folder.display()));
            return None;
        }
    };
    let disk = Disk::of(times, is_in_memory(folder));
    let Disk { sync_p50_ms, sync_p99_ms, sync_max_ms, syncs, verdict, in_memory } = &disk;
    let text = format!(
        "{}: a sync takes {sync_p50_ms:.2} ms (median of {syncs}), {sync_p99_ms:.2} ms (99th percentile), \
         {sync_max_ms:.2} ms (longest)",
        folder.display()
    );
    findings.add(Severity::Info, Topic::Spool, text);
    let (severity, meaning) = match verdict {
        Verdict::Good => (Severity::Info, "good: a reply of --durability sync waits no longer than a network may take"),
        Verdict::Usable => {
            (Severity::Info, "usable: replies of --durability sync wait for it, and many requests share each sync")
        }
        Verdict::Slow => (
            Severity::Warning,
            "slow: replies of --durability sync wait long, and some are 503 where a sync takes longer than \
             --commit-timeout",
        ),
    };
    let remedy = (*verdict == Verdict::Slow).then(|| {
        "put --spool-dir on a local SSD, best one with protection against loss of power, or accept --durability written"
            .to_owned()
    });
    findings.add_with_remedy(severity, Topic::Spool, format!("  {meaning}"), remedy);
    if *in_memory {
        let text =
            "  the file system is in memory: a restart of the machine loses what was acknowledged and not inserted";
        findings.add_with_remedy(Severity::Warning, Topic::Spool, text, Some("put --spool-dir on a disk".to_owned()));
    }
    Some(disk)
}

impl Disk {
    /// Of the times of syncs, in microseconds.
    fn of(mut times: Vec<u64>, in_memory: bool) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(place).copied().unwrap_or_default()
        };
        let (p50, p99, longest) = (at(50), at(99), at(100));
        let within = |(median, tail): (u64, u64)| p50 <= median && p99 <= tail;
        let verdict = match (within(GOOD), within(USABLE)) {
            (true, _) => Verdict::Good,
            (false, true) => Verdict::Usable,
            (false, false) => Verdict::Slow,
        };
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            sync_p50_ms: ms(p50),
            sync_p99_ms: ms(p99),
            sync_max_ms: ms(longest),
            syncs: times.len(),
            verdict,
            in_memory,
        }
    }
}

fn time_syncs(folder: &Path) -> io::Result<Vec<u64>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("check-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let begun = Instant::now();
    let times = (0..SYNCS)
        .take_while(|done| *done == 0 || begun.elapsed() < SYNCS_WITHIN)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            Ok(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX))
        })
        .collect();
    fs::remove_file(&path)?;
    times
}

#[allow(clippy::useless_conversion, reason = "the type of the field depends on the platform")]
fn is_in_memory(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|found| IN_MEMORY.contains(&i64::from(found.f_type)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_depends_on_the_median_and_on_the_tail() {
        let of = |times: &[u64]| Disk::of(times.to_vec(), false);
        let hundred = |usual: u64, slow: u64, last: u64| [vec![usual; 97], vec![slow; 2], vec![last]].concat();
        for (times, verdict) in [
            (hundred(100, 100, 10_000_000), Verdict::Good),
            (hundred(100, 50_000, 50_000), Verdict::Usable),
            (hundred(5_000, 5_000, 5_000), Verdict::Usable),
            (hundred(100, 500_000, 500_000), Verdict::Slow),
            (hundred(30_000, 30_000, 30_000), Verdict::Slow),
            (vec![1], Verdict::Good),
        ] {
            assert_eq!(of(&times).verdict, verdict, "{times:?}");
        }
        let disk = of(&(1..=200).map(|place| place * 1000).collect::<Vec<_>>());
        assert_eq!((disk.sync_p50_ms, disk.sync_p99_ms, disk.sync_max_ms), (100.0, 198.0, 200.0));
        assert_eq!(of(&[]).syncs, 0);
    }

    #[test]
    fn a_file_system_in_memory_is_told_from_a_disk() {
        assert!(is_in_memory(Path::new("/dev/shm")));
        assert!(!is_in_memory(Path::new("/proc")));
    }
}
