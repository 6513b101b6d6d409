//! The keys of sealed segments on the disk: `keys/<hour>.log`, a block a segment.
//!
//! ```text
//!   0  4  "KEYS"                4  4  keys                8  8  written, Unix s
//!  16  8  number of the segment 24  4  checksum of bytes 0..24 and the keys
//!  28  …  keys of 36 bytes
//! ```
//!
//! All of a file counts up to the first block that is not whole. A file of a former run is not
//! appended to, but replaced by one that holds its blocks and the new one: after a failed sync the
//! page cache may show what the disk does not have.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime};

use super::SECONDS_MAX;
use crate::identity::{REQUEST_KEY_BYTES, RequestKey};
use crate::spool::figures::SpoolFigures;
use crate::spool::frame::{get, get_u32, get_u64};
use crate::spool::layout::Layout;
use crate::spool::segment::SealError;
use crate::spool::storage::{self, StorageFile, read_up_to, write_all};

const MAGIC: &[u8; 4] = b"KEYS";
const HEADER: usize = 28;

/// See the module.
pub(super) struct KeyLog {
    layout: Arc<Layout>,
    figures: Arc<SpoolFigures>,
    keys_max: u64,
    /// The oldest first.
    files: VecDeque<File>,
}

struct File {
    /// Since 1970.
    hour: u64,
    keys: u64,
    /// Bytes that count.
    len: u64,
    /// Written by this process, which may append to it.
    open: Option<Box<dyn StorageFile>>,
}

struct Block {
    segment: u64,
    second: u64,
    keys: Vec<RequestKey>,
}

impl KeyLog {
    /// A log that knows no file yet.
    pub(super) fn new(layout: Arc<Layout>, figures: Arc<SpoolFigures>, keys_max: u64) -> Self {
        Self { layout, figures, keys_max, files: VecDeque::new() }
    }

    /// Reads every file, the oldest first: `found` gets the segment, the second and the key.
    pub(super) fn load(&mut self, mut found: impl FnMut(u64, u64, RequestKey)) -> io::Result<()> {
        let entries = self.layout.storage().list(&self.layout.keys_dir())?;
        for interrupted in entries.iter().filter(|entry| entry.name.ends_with(".new")) {
            // It was to replace another, and did not: nothing in it counts.
            let _ = self.layout.storage().remove(&self.layout.keys_dir().join(&interrupted.name));
        }
        let mut hours: Vec<u64> = entries.iter().filter_map(|entry| hour_of(&entry.name)).collect();
        hours.sort_unstable();
        for hour in hours {
            let file = self.layout.storage().open(&self.path(hour))?;
            let (mut len, mut keys) = (0, 0);
            while let Some(block) = Block::read(&*file, len)? {
                len += block.len();
                keys += block.keys.len() as u64;
                block.keys.iter().for_each(|key| found(block.segment, block.second, *key));
            }
            self.files.push_back(File { hour, keys, len, open: None });
        }
        Ok(())
    }

    /// Writes a block and syncs it. What a failed write leaves behind does not count.
    pub(super) fn append(&mut self, segment: u64, keys: &[RequestKey], second: u64) -> Result<(), SealError> {
        let block = Block { segment, second, keys: keys.to_vec() }.encode();
        // A clock that was set back does not begin an older file.
        let hour = (second / 3600).max(self.files.back().map_or(0, |file| file.hour));
        if self.files.back().is_none_or(|file| file.hour != hour) {
            self.files.push_back(File { hour, keys: 0, len: 0, open: None });
        }
        let path = self.path(hour);
        let Some(file) = self.files.back_mut() else { return Ok(()) };
        match &file.open {
            Some(open) => {
                write_all(&**open, &block, file.len).map_err(SealError::Write)?;
                open.sync().map_err(SealError::Sync)?;
            }
            None => {
                file.open = Some(replace(&self.layout, file, &path, &block).map_err(SealError::Write)?);
            }
        }
        file.len += block.len() as u64;
        file.keys += keys.len() as u64;
        self.figures.occupy(block.len() as u64);
        self.remove_old(second);
        Ok(())
    }

    /// Removes files whose keys are all forgotten.
    fn remove_old(&mut self, now: u64) {
        let mut keys: u64 = self.files.iter().map(|file| file.keys).sum();
        while let Some(file) = self.files.front()
            && self.files.len() > 1
            && ((file.hour + 1) * 3600 + SECONDS_MAX <= now || keys - file.keys >= self.keys_max)
        {
            if let Err(error) = self.layout.storage().remove(&self.path(file.hour)) {
                tracing::warn!(%error, "an old log of keys can't be removed");
                return;
            }
            keys -= file.keys;
            self.figures.release(file.len);
            self.files.pop_front();
        }
    }

    fn path(&self, hour: u64) -> PathBuf {
        self.layout.keys_dir().join(name_of(hour))
    }
}

/// Puts a file in the place of one of a former run, or of none: its blocks, and a new one.
fn replace(layout: &Layout, file: &File, path: &std::path::Path, block: &[u8]) -> io::Result<Box<dyn StorageFile>> {
    let mut bytes = Vec::new();
    if file.len > 0 {
        bytes.resize(usize::try_from(file.len).map_err(io::Error::other)?, 0);
        let former = layout.storage().open(path)?;
        if read_up_to(&*former, &mut bytes, 0)? < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a log of keys has become shorter"));
        }
    }
    bytes.extend_from_slice(block);
    storage::replace(layout.storage(), path, &bytes)?;
    layout.storage().sync_folder(&layout.keys_dir())?;
    layout.storage().open(path)
}

impl Block {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.keys.len() * REQUEST_KEY_BYTES);
        bytes.extend_from_slice(MAGIC);
        // A segment has far fewer rows than that.
        bytes.extend_from_slice(&u32::try_from(self.keys.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.second.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        let keys: Vec<u8> = self.keys.iter().flat_map(RequestKey::encode).collect();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &keys);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&keys);
        bytes
    }

    /// The block at this offset; `None` where none is whole.
    fn read(file: &dyn StorageFile, offset: u64) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        if read_up_to(file, &mut header, offset)? < HEADER {
            return Ok(None);
        }
        let left = file.len()?.saturating_sub(offset + HEADER as u64);
        let keys_bytes = get_u32(&header, 4).map_or(0, |keys| u64::from(keys) * REQUEST_KEY_BYTES as u64);
        let Ok(keys_bytes) = usize::try_from(keys_bytes.min(left.saturating_add(1))) else { return Ok(None) };
        let mut keys = vec![0; keys_bytes];
        if read_up_to(file, &mut keys, offset + HEADER as u64)? < keys_bytes {
            return Ok(None);
        }
        Ok(Self::decode(&header, &keys))
    }

    fn decode(header: &[u8; HEADER], keys: &[u8]) -> Option<Self> {
        let fields = get(header, 0, HEADER - 4)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(fields), keys);
        if !fields.starts_with(MAGIC) || get_u32(header, HEADER - 4)? != checksum {
            return None;
        }
        let (keys, _) = keys.as_chunks::<REQUEST_KEY_BYTES>();
        let keys = keys.iter().map(RequestKey::decode).collect();
        Some(Self { second: get_u64(fields, 8)?, segment: get_u64(fields, 16)?, keys })
    }

    fn len(&self) -> u64 {
        (HEADER + self.keys.len() * REQUEST_KEY_BYTES) as u64
    }
}

/// `2026-11-24T21.log`, in UTC.
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
