//! A file of the faulty disk: its state in the page cache, and its state on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::chance::Chance;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

type Page = [u8; PAGE];
/// Pages that were written; the others are zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) len: u64,
    pub(super) pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    fn resize(&mut self, len: u64) {
        self.len = len;
        let (page, within) = (len / PAGE as u64, (len % PAGE as u64) as usize);
        self.pages.split_off(&len.div_ceil(PAGE as u64));
        if let Some(last) = self.pages.get_mut(&page) {
            Arc::make_mut(last)[within..].fill(0);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) cached: Content,
    pub(super) stored: Content,
    /// Pages that may differ between page cache and disk.
    pub(super) dirty: BTreeSet<u64>,
    /// Lengths that the file has had since the last sync.
    lens: Vec<u64>,
    /// Bytes with allocated disk space.
    pub(super) reserved: u64,
}

impl File {
    /// Changes one bit, in the page cache and on the disk.
    pub(super) fn flip(&mut self, byte: u64, bit: u8) {
        for content in [&mut self.cached, &mut self.stored] {
            let page = content.pages.entry(byte / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[(byte % PAGE as u64) as usize] ^= 1 << bit;
        }
    }

    pub(super) fn write_back(&mut self, page: u64) {
        match self.cached.pages.get(&page) {
            Some(bytes) => self.stored.pages.insert(page, bytes.clone()),
            None => self.stored.pages.remove(&page),
        };
    }

    pub(super) fn write_back_all(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.write_back(page);
        }
        self.stored.resize(self.cached.len);
        self.lens.clear();
    }

    pub(super) fn forget_dirty(&mut self, chance: &mut Chance) {
        for page in std::mem::take(&mut self.dirty) {
            if chance.one_in(2) {
                self.write_back(page);
            }
        }
        self.settle_len(chance);
    }

    fn settle_len(&mut self, chance: &mut Chance) {
        if !self.lens.is_empty() {
            let lens: Vec<u64> = self.lens.drain(..).chain([self.stored.len]).collect();
            self.stored.resize(*chance.pick(&lens));
        }
    }

    pub(super) fn lose_power(&mut self, chance: &mut Chance) {
        for page in std::mem::take(&mut self.dirty) {
            match chance.below(4) {
                0 => self.write_back(page),
                1 => self.tear(page, chance),
                _ => {}
            }
        }
        self.settle_len(chance);
        self.cached = self.stored.clone();
        self.reserved = self.stored.len;
    }

    fn tear(&mut self, page: u64, chance: &mut Chance) {
        let zeros = Arc::new([0; PAGE]);
        let new = self.cached.pages.get(&page).unwrap_or(&zeros).clone();
        let old = Arc::make_mut(self.stored.pages.entry(page).or_insert(zeros));
        for (old, new) in old.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
            if chance.one_in(2) {
                old.copy_from_slice(new);
            }
        }
    }

    pub(super) fn read(&self, space: &mut [u8], offset: u64) -> usize {
        let len = space.len().min(usize::try_from(self.cached.len.saturating_sub(offset)).unwrap());
        let mut done = 0;
        while done < len {
            let (page, within, part) = piece_of_page(offset + done as u64, len - done);
            let target = &mut space[done..done + part];
            match self.cached.pages.get(&page) {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + part]),
                None => target.fill(0),
            }
            done += part;
        }
        len
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let (page, within, part) = piece_of_page(offset + done as u64, bytes.len() - done);
            let target = self.cached.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(target)[within..within + part].copy_from_slice(&bytes[done..done + part]);
            self.dirty.insert(page);
            done += part;
        }
        let end = offset + bytes.len() as u64;
        self.reserved = self.reserved.max(end);
        if end > self.cached.len {
            self.set_len(end);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.dirty.extend(self.cached.pages.range(len / PAGE as u64..).map(|(page, _)| *page));
        self.cached.resize(len);
        self.reserved = self.reserved.min(len);
        self.lens.push(len);
    }
}

/// The page of an offset, the offset in the page, and the bytes up to the end of the page.
fn piece_of_page(offset: u64, left: usize) -> (u64, usize, usize) {
    let within = (offset % PAGE as u64) as usize;
    (offset / PAGE as u64, within, left.min(PAGE - within))
}
