//! What the server may have in memory at most, beside what this machine, or its part of it, allows.

use std::fs;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;

use super::{Findings, Severity, Topic};
use crate::clickhouse::settings::InsertFormat;
use crate::config::Settings;
use crate::limits;

/// Bytes of an idle connection: of the server itself, and with TLS.
const CONNECTION_BYTES: u64 = 2 << 10;
const TLS_CONNECTION_BYTES: u64 = 7 << 10;

/// Bytes for each value of `--dedup-field`, and for each `Idempotency-Key`, that is remembered.
const VALUE_BYTES: u64 = 70;
const KEY_BYTES: u64 = 120;

/// Bytes that an INSERT under way takes beside rows that are turned into columns.
const INSERT_BYTES: u64 = 2 << 20;

/// Bytes of the program itself, of its threads' stacks, and of what the allocator keeps.
const PROGRAM_BYTES: u64 = 64 << 20;

/// What may be in memory at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    sum_bytes: u64,
    parts: Vec<Part>,
    /// The limit of the cgroup that this command runs in, or of one above it; `null` without one.
    cgroup_limit_bytes: Option<u64>,
    /// What the machine has.
    machine_bytes: Option<u64>,
}

/// A part of the sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Part {
    what: &'static str,
    bytes: u64,
}

/// Compares what the settings allow with the limit.
pub fn check(settings: &Settings, findings: &mut Findings) -> Memory {
    let parts = parts(settings);
    let memory = Memory {
        sum_bytes: parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add),
        parts,
        cgroup_limit_bytes: cgroup_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")),
        machine_bytes: machine_bytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
    };
    report(&memory, settings.embedded.is_some(), findings);
    memory
}

fn report(memory: &Memory, is_embedded: bool, findings: &mut Findings) {
    let listed = memory.parts.iter().filter(|part| part.bytes >= 1 << 20);
    let listed: Vec<String> = listed.map(|part| format!("{} {}", ByteSize(part.bytes), part.what)).collect();
    let beside = if is_embedded { "; the embedded ClickHouse comes on top of it" } else { "" };
    let text = format!("at most {}: {}{beside}", ByteSize(memory.sum_bytes), listed.join(", "));
    findings.add(Severity::Info, Topic::Memory, text);
    let of_cgroup = memory.cgroup_limit_bytes.map(|bytes| (bytes, "the limit of the cgroup (memory.max)"));
    let limit = of_cgroup.into_iter().chain(memory.machine_bytes.map(|bytes| (bytes, "what the machine has"))).min();
    let Some((bytes, what)) = limit else { return };
    let limit = format!("{what} is {}", ByteSize(bytes));
    if memory.sum_bytes <= bytes {
        return findings.add(Severity::Info, Topic::Memory, format!("  {limit}"));
    }
    let remedy = "a smaller --in-flight-bytes-max, fewer remembered values and keys, or a higher limit".to_owned();
    let text = format!("  {limit}, which is less: the kernel may kill the server when all of it is used");
    findings.add_with_remedy(Severity::Warning, Topic::Memory, text, Some(remedy));
}

fn parts(settings: &Settings) -> Vec<Part> {
    let part = |what, bytes| Part { what, bytes };
    let number = |value: usize| value as u64;
    let tables = settings.tables();
    let connection = if settings.tls_cert.is_empty() { CONNECTION_BYTES } else { TLS_CONNECTION_BYTES };
    let worker = limits::SPARE_BATCHES_BYTES_MAX + limits::READ_SCRATCH_BYTES + limits::CODING_BYTES_KEPT;
    let as_columns = tables.iter().filter(|table| table.insert_format == InsertFormat::Native);
    // Rows are in memory once as rows and once as columns.
    let columns = as_columns.map(|table| table.batch_bytes.saturating_mul(2)).max().unwrap_or_default();
    let inserters = number(settings.inserters.get());
    let values = tables.iter().any(|table| table.dedup_field.is_some());
    let values = if values { number(settings.dedup_values_max.get()).saturating_mul(VALUE_BYTES) } else { 0 };
    vec![
        part("in flight (--in-flight-bytes-max)", settings.in_flight_bytes_max.0),
        part("connections (--connections-max)", number(settings.connections_max).saturating_mul(connection)),
        part("workers", number(settings.worker_count()).saturating_mul(number(worker))),
        part("INSERTs (--inserters)", inserters.saturating_mul(INSERT_BYTES.saturating_add(columns))),
        part("values of --dedup-field (--dedup-values-max)", values),
        part("keys (--idempotency-keys-max)", number(settings.idempotency_keys_max.get()).saturating_mul(KEY_BYTES)),
        part("program", PROGRAM_BYTES),
    ]
}

/// The smallest `memory.max` of a process's cgroup (version 2) and of those above it.
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>
fn cgroup_limit(of_process: &Path, root: &Path) -> Option<u64> {
    let text = fs::read_to_string(of_process).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut folder = PathBuf::from(root);
    let mut folders = vec![folder.clone()];
    for part in Path::new(path).components() {
        folder.push(part);
        folders.push(folder.clone());
    }
    let limit = |folder: &PathBuf| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse::<u64>().ok();
    folders.iter().filter_map(limit).min()
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_smallest_of_the_cgroup_and_those_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let (root, of_process) = (folder.path().join("cgroup"), folder.path().join("of-process"));
        let of = |line: &str| {
            fs::write(&of_process, line).unwrap();
            cgroup_limit(&of_process, &root)
        };
        fs::create_dir_all(root.join("a.slice/b.service")).unwrap();
        assert_eq!(of("0::/a.slice/b.service\n"), None, "there are no files");
        fs::write(root.join("a.slice/memory.max"), "1000\n").unwrap();
        fs::write(root.join("a.slice/b.service/memory.max"), "max\n").unwrap();
        assert_eq!(of("0::/a.slice/b.service\n"), Some(1000));
        fs::write(root.join("a.slice/b.service/memory.max"), "900\n").unwrap();
        assert_eq!(of("5:memory:/x\n0::/a.slice/b.service\n"), Some(900));
        assert_eq!(of("0::/\n"), None);
        assert_eq!(of("5:memory:/x\n"), None, "version 1");
        assert_eq!(cgroup_limit(Path::new("/nowhere"), &root), None);
        assert_eq!(machine_bytes("MemTotal:       24683452 kB\nMemFree: 1 kB\n"), Some(24_683_452 << 10));
        assert_eq!(machine_bytes("nothing"), None);
    }

    #[test]
    fn more_than_the_limit_is_a_warning_and_no_more_is_none() {
        let said = |sum_bytes, cgroup_limit_bytes, machine_bytes| {
            let parts = vec![Part { what: "program", bytes: sum_bytes }];
            let mut findings = Findings::default();
            report(&Memory { sum_bytes, parts, cgroup_limit_bytes, machine_bytes }, false, &mut findings);
            findings.listed().iter().map(|found| (found.severity, found.text.clone())).collect::<Vec<_>>()
        };
        let gib = 1 << 30;
        assert_eq!(said(gib, None, None).len(), 1);
        assert_eq!(said(gib, Some(gib), Some(2 * gib))[1].0, Severity::Info);
        let over = &said(gib + 1, Some(gib), Some(2 * gib))[1];
        assert!(over.0 == Severity::Warning && over.1.contains("the limit of the cgroup"), "{over:?}");
        let over = &said(3 * gib, None, Some(2 * gib))[1];
        assert!(over.0 == Severity::Warning && over.1.contains("what the machine has is 2.0 GiB"), "{over:?}");
    }
}
