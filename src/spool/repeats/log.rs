//! The on-disk log of the identities in sealed blocks: one file per hour, one chunk per block.
//!
//! ```text
//!   0  4  "KEYS" or "SEEN"      4  4  records             8  8  written, Unix s
//!  16  8  number of the block   24  4  checksum of bytes 0..24 and the records
//!  28  …  records: request keys of 36 bytes, or event identities of 16 bytes
//! ```
//!
//! Every valid chunk of a file is used. Bytes between two valid chunks are damage, which is logged;
//! bytes behind the last one are a torn tail.
//!
//! A file of a previous run is never appended to. The first append replaces it by a new file with
//! its chunks and the new one: after a failed sync the page cache may show bytes that are not on the
//! disk.
//!
//! One hour may bring many more records than are remembered. Chunks with enough newer records behind
//! them are obsolete: they are not kept in memory, and a file that is mostly obsolete is replaced by
//! one without them.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime};

use crate::batch::BlockNumber;
use crate::batch::identity::{Id, REQUEST_KEY_BYTES, RequestKey};
use crate::spool::frame::{get, get_u32, get_u64};
use crate::spool::layout::Layout;
use crate::spool::metrics::SpoolMetrics;
use crate::spool::storage::{self, EntryKind, SealError, StorageFile, read_up_to, write_all};

const HEADER: usize = 28;

/// A type of record that a log can hold.
pub(super) trait Record: Copy {
    /// The first bytes of a chunk.
    const MAGIC: &'static [u8; 4];
    /// Encoded size of one record.
    const BYTES: usize;
    /// Appends the encoded record.
    fn put(&self, out: &mut Vec<u8>);
    /// Decodes the records that `bytes` consists of.
    fn all_in(bytes: &[u8]) -> Vec<Self>;
}

impl Record for RequestKey {
    const MAGIC: &'static [u8; 4] = b"KEYS";
    const BYTES: usize = REQUEST_KEY_BYTES;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encode());
    }

    fn all_in(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks().0.iter().map(Self::decode).collect()
    }
}

impl Record for Id {
    const MAGIC: &'static [u8; 4] = b"SEEN";
    const BYTES: usize = size_of::<Self>();

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn all_in(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks().0.to_vec()
    }
}

/// A folder of hourly log files with records of type `R`.
pub(super) struct HourlyLog<R> {
    layout: Arc<Layout>,
    metrics: Arc<SpoolMetrics>,
    folder: PathBuf,
    /// A record is dropped once there are this many newer ones.
    records_max: u64,
    /// A file is dropped once all its records are older than this.
    seconds_max: u64,
    /// The files from the oldest on.
    files: VecDeque<File>,
    records: PhantomData<R>,
}

/// The chunks of one log file.
struct File {
    /// Hours since 1970.
    hour: u64,
    /// Bytes and records of each chunk that is not obsolete, the oldest first. A damaged range is a
    /// chunk without records.
    chunks: VecDeque<(u64, u64)>,
    /// Number of records in `chunks`.
    records: u64,
    /// Offset of the first of `chunks`.
    from: u64,
    /// Offset behind the last of `chunks`.
    end: u64,
    /// The file, if this process has written it and may append to it.
    open: Option<Box<dyn StorageFile>>,
}

impl File {
    fn new(hour: u64) -> Self {
        Self { hour, chunks: VecDeque::new(), records: 0, from: 0, end: 0, open: None }
    }

    /// Adds a chunk at the end, and drops the chunks that are obsolete because `records_max` newer
    /// records follow them.
    fn push(&mut self, bytes: u64, records: u64, records_max: u64) {
        self.chunks.push_back((bytes, records));
        self.end += bytes;
        self.records += records;
        while let Some(&(bytes, records)) = self.chunks.front()
            && self.records - records >= records_max
        {
            self.chunks.pop_front();
            self.from += bytes;
            self.records -= records;
        }
    }
}

/// Bytes that are read at once when searching for a valid chunk behind damage.
const WINDOW: usize = 64 << 10;

/// A file is replaced once more than this much of it, and more than half of it, is obsolete.
const OLD_BYTES_KEPT: u64 = 1 << 20;

/// A record that was read from a log: its block, the second it was logged, and the record.
pub(super) type Found<R> = (BlockNumber, u64, R);

impl<R: Record> HourlyLog<R> {
    /// Opens the log in a folder and returns it with its newest `records_max` records, the oldest
    /// first.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        folder: PathBuf,
        records_max: u64,
        seconds_max: u64,
    ) -> io::Result<(Self, VecDeque<Found<R>>)> {
        let storage = layout.storage();
        let entries = storage.list(&folder)?;
        for interrupted in entries.iter().filter(|entry| entry.name.ends_with(".new")) {
            // A crash interrupted the replacement of a file; the original is still there.
            let _ = storage.remove(&folder.join(&interrupted.name));
        }
        let files_of_hours = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let mut hours: Vec<u64> = files_of_hours.filter_map(|entry| hour_of(&entry.name)).collect();
        hours.sort_unstable();
        let (mut files, mut found) = (VecDeque::new(), VecDeque::new());
        let found_max = usize::try_from(records_max).unwrap_or(usize::MAX);
        for hour in hours {
            let opened = storage.open(&folder.join(name_of(hour)))?;
            let mut file = File::new(hour);
            while let Some((gap, chunk)) = Chunk::next(&*opened, file.end)? {
                if gap > 0 {
                    warn_of_damage::<R>(&folder.join(name_of(hour)), file.end, gap);
                    file.push(gap, 0, records_max);
                }
                file.push(chunk.len(), chunk.records.len() as u64, records_max);
                found.extend(chunk.records.into_iter().map(|record| (chunk.block, chunk.second, record)));
                found.drain(..found.len().saturating_sub(found_max));
            }
            files.push_back(file);
        }
        let (layout, metrics) = (layout.clone(), metrics.clone());
        let log = Self { layout, metrics, folder, records_max, seconds_max, files, records: PhantomData };
        Ok((log, found))
    }

    /// Writes a chunk and syncs it. The next chunk overwrites the remains of a failed write.
    pub(super) fn append(&mut self, block: BlockNumber, records: &[R], second: u64) -> Result<(), SealError> {
        let chunk = Chunk { block, second, records: records.to_vec() }.encode();
        // If the clock was set back, the newest file is continued.
        let hour = (second / 3600).max(self.files.back().map_or(0, |file| file.hour));
        if self.files.back().is_none_or(|file| file.hour != hour) {
            self.files.push_back(File::new(hour));
        }
        let Some(file) = self.files.back_mut() else { return Ok(()) };
        match &file.open {
            Some(open) if file.from <= OLD_BYTES_KEPT.max(file.end / 2) => {
                let written = self.layout.with_spare(|| write_all(&**open, &chunk, file.end));
                written.map_err(SealError::Write)?;
                open.sync().map_err(SealError::Sync)?;
            }
            _ => {
                let replaced = self.layout.with_spare(|| replace(&self.layout, &self.folder, file, &chunk));
                file.open = Some(replaced.map_err(SealError::Write)?);
                self.metrics.release(file.from);
                file.end -= file.from;
                file.from = 0;
            }
        }
        file.push(chunk.len() as u64, records.len() as u64, self.records_max);
        self.metrics.occupy(chunk.len() as u64);
        self.remove_old(second);
        Ok(())
    }

    /// Removes files whose records are all forgotten.
    fn remove_old(&mut self, now: u64) {
        let mut records: u64 = self.files.iter().map(|file| file.records).sum();
        while let Some(file) = self.files.front()
            && self.files.len() > 1
            && (((file.hour + 1) * 3600).saturating_add(self.seconds_max) <= now
                || records - file.records >= self.records_max)
        {
            if let Err(error) = self.layout.storage().remove(&self.folder.join(name_of(file.hour))) {
                tracing::warn!(%error, "an old log of identities can't be removed");
                return;
            }
            records -= file.records;
            self.metrics.release(file.end);
            self.files.pop_front();
        }
    }
}

/// Logs that records are lost: repeats of the requests or events in them are stored again.
fn warn_of_damage<R: Record>(path: &Path, offset: u64, bytes: u64) {
    let path = path.display();
    // The bound for a single chunk; more chunks have more headers and fewer records.
    let records_max = bytes.saturating_sub(HEADER as u64) / R::BYTES as u64;
    tracing::warn!(
        %path, offset, bytes, records_max,
        "a log of identities is damaged; repeats of the requests or events in the damaged part will be stored again"
    );
}

/// Creates or replaces the file of an hour. The new file has the chunks of the old one that are not
/// obsolete, and `chunk`.
fn replace(layout: &Layout, folder: &Path, file: &File, chunk: &[u8]) -> io::Result<Box<dyn StorageFile>> {
    let path = folder.join(name_of(file.hour));
    let mut bytes = Vec::new();
    if file.end > file.from {
        bytes.resize(usize::try_from(file.end - file.from).map_err(io::Error::other)?, 0);
        let former = layout.storage().open(&path)?;
        if read_up_to(&*former, &mut bytes, file.from)? < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a log of identities has become shorter"));
        }
    }
    bytes.extend_from_slice(chunk);
    storage::replace(layout.storage(), &path, &bytes)?;
    layout.storage().sync_folder(folder)?;
    layout.storage().open(&path)
}

/// The records of one block, as they are logged.
struct Chunk<R> {
    block: BlockNumber,
    second: u64,
    records: Vec<R>,
}

impl<R: Record> Chunk<R> {
    fn encode(&self) -> Vec<u8> {
        let mut records = Vec::with_capacity(self.records.len() * R::BYTES);
        self.records.iter().for_each(|record| record.put(&mut records));
        let mut bytes = Vec::with_capacity(HEADER + records.len());
        bytes.extend_from_slice(R::MAGIC);
        // A block has far fewer rows than `u32::MAX`.
        bytes.extend_from_slice(&u32::try_from(self.records.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.second.to_le_bytes());
        bytes.extend_from_slice(&self.block.packed().to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &records);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&records);
        bytes
    }

    /// The first valid chunk at or behind this offset, and the number of bytes skipped before it.
    fn next(file: &dyn StorageFile, offset: u64) -> io::Result<Option<(u64, Self)>> {
        if let Some(chunk) = Self::read(file, offset)? {
            return Ok(Some((0, chunk)));
        }
        let mut window = vec![0; WINDOW];
        let mut at = offset;
        loop {
            let len = read_up_to(file, &mut window, at)?;
            for found in memchr::memmem::find_iter(window.get(..len).unwrap_or_default(), R::MAGIC) {
                let begin = at + found as u64;
                if let Some(chunk) = Self::read(file, begin)? {
                    return Ok(Some((begin - offset, chunk)));
                }
            }
            if len < WINDOW {
                return Ok(None);
            }
            // Windows overlap, because the magic may lie across the end of one.
            at += (WINDOW - R::MAGIC.len() + 1) as u64;
        }
    }

    /// The chunk at this offset; `None` if there is no valid one.
    fn read(file: &dyn StorageFile, offset: u64) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        if read_up_to(file, &mut header, offset)? < HEADER {
            return Ok(None);
        }
        let bytes = get_u32(&header, 4).map_or(0, |records| u64::from(records) * R::BYTES as u64);
        let left = file.len()?.saturating_sub(offset + HEADER as u64);
        let Some(bytes) = usize::try_from(bytes).ok().filter(|_| bytes <= left) else { return Ok(None) };
        let mut records = vec![0; bytes];
        if read_up_to(file, &mut records, offset + HEADER as u64)? < bytes {
            return Ok(None);
        }
        Ok(Self::decode(&header, &records))
    }

    fn decode(header: &[u8; HEADER], records: &[u8]) -> Option<Self> {
        let fields = get(header, 0, HEADER - 4)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(fields), records);
        if !fields.starts_with(R::MAGIC) || get_u32(header, HEADER - 4)? != checksum {
            return None;
        }
        Some(Self {
            second: get_u64(fields, 8)?,
            block: BlockNumber::unpacked(get_u64(fields, 16)?),
            records: R::all_in(records),
        })
    }

    fn len(&self) -> u64 {
        (HEADER + self.records.len() * R::BYTES) as u64
    }
}

/// The file name of an hour, such as `2026-11-24T21.log`, in UTC.
fn name_of(hour: u64) -> String {
    let second = i64::try_from(hour.saturating_mul(3600)).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp(second, 0).unwrap_or(DateTime::UNIX_EPOCH);
    time.format("%Y-%m-%dT%H.log").to_string()
}

fn hour_of(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".log")?;
    let time = NaiveDateTime::parse_from_str(&format!("{stem}:00"), "%Y-%m-%dT%H:%M").ok()?;
    u64::try_from(time.and_utc().timestamp() / 3600).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_a_name_and_a_name_its_hour() {
        assert_eq!(name_of(0), "1970-01-01T00.log");
        assert_eq!(name_of(498_765), "2026-11-24T21.log");
        for hour in [0, 1, 23, 24, 498_765, 900_000] {
            assert_eq!(hour_of(&name_of(hour)), Some(hour));
        }
        for name in ["1970-01-01T00", "1970-01-01.log", "x.log", "1969-12-31T23.log", "1970-01-01T00.new"] {
            assert_eq!(hour_of(name), None, "{name}");
        }
    }
}
