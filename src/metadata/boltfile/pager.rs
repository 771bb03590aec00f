// SPDX-License-Identifier: MulanPSL-2.0
//! Reading pages, with a cache of bounded size.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::bytes::{Slice, to_u64, to_usize};
use super::medium::Medium;
use super::page::{HEADER, Header, Page, Run};
use crate::error::{During, Error, ErrorKind, Result};

/// Most bytes of a page with those that continue it, on reading and writing.
pub(super) const LONGEST_RUN: u64 = 256 << 20;

/// Reads and writes pages of one file.
#[derive(Debug)]
pub(super) struct Pager {
    medium: Box<dyn Medium>,
    page_size: usize,
    /// Length of the file: what bounds the memory that a page takes, whatever it says of itself.
    length: AtomicU64,
    cache: Mutex<Cache>,
}

/// Two generations: what was not used since the younger one filled up is forgotten.
#[derive(Debug)]
struct Cache {
    young: HashMap<u64, Arc<Page>>,
    old: HashMap<u64, Arc<Page>>,
    bytes: usize,
    /// Bytes of the young generation.
    limit: usize,
}

impl Pager {
    /// `cache`: bytes of pages that are kept.
    pub(super) fn new(medium: Box<dyn Medium>, page_size: usize, cache: usize) -> Result<Pager> {
        let length = AtomicU64::new(medium.length()?);
        let cache = Cache { young: HashMap::new(), old: HashMap::new(), bytes: 0, limit: cache / 2 };
        Ok(Pager { medium, page_size, length, cache: Mutex::new(cache) })
    }

    pub(super) fn page_size(&self) -> usize {
        self.page_size
    }

    /// Whole pages that the file has.
    pub(super) fn file_pages(&self) -> u64 {
        self.length.load(Ordering::Relaxed) / to_u64(self.page_size)
    }

    fn offset(&self, page: u64) -> Result<u64> {
        let offset = page.checked_mul(to_u64(self.page_size));
        offset.ok_or_else(|| Error::corrupt(format!("there can be no page {page}")))
    }

    /// Makes the file hold `pages` pages.
    pub(super) fn grow(&self, pages: u64) -> Result<()> {
        let needed = self.offset(pages)?;
        if needed <= self.length.load(Ordering::Relaxed) {
            return Ok(());
        }
        // In steps, so that not every commit changes the length: doubling first, by 16 MiB later, as the original.
        let step: u64 = 16 << 20;
        let length = match needed.checked_next_power_of_two().filter(|length| *length <= step) {
            Some(length) => length.max(32 << 10),
            None => needed.div_ceil(step).saturating_mul(step),
        };
        self.medium.set_length(length)?;
        self.length.store(length, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a page and those that continue it.
    pub(super) fn write(&self, page: u64, bytes: &[u8]) -> Result<()> {
        self.forget(page);
        self.medium.write(self.offset(page)?, bytes).during(|| format!("page {page}"))
    }

    /// What lies there will not be read again as it is.
    fn forget(&self, page: u64) {
        let mut cache = self.cache.lock();
        if let Some(page) = cache.young.remove(&page) {
            cache.bytes = cache.bytes.saturating_sub(page.size());
        }
        cache.old.remove(&page);
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.medium.sync()
    }

    fn cached(&self, page: u64) -> Option<Arc<Page>> {
        let mut cache = self.cache.lock();
        if let Some(found) = cache.young.get(&page) {
            return Some(Arc::clone(found));
        }
        let found = cache.old.remove(&page)?;
        cache.keep(page, &found);
        Some(found)
    }

    fn read(&self, page: u64, length: usize) -> Result<Vec<u8>> {
        let mut buffer = Vec::new();
        // A file may have holes: it may be longer than the memory.
        buffer.try_reserve_exact(length).map_err(|_| no_memory(length))?;
        buffer.resize(length, 0);
        let count = self.medium.read(self.offset(page)?, &mut buffer)?;
        if count < length {
            return Err(Error::corrupt("the file ends before it"));
        }
        Ok(buffer)
    }
}

/// The length of a file bounds nothing: it may have holes.
pub(super) fn check_run(bytes: u64) -> Result<()> {
    if bytes <= LONGEST_RUN {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LimitExceeded, format!("a page with more than {LONGEST_RUN} bytes")))
}

fn no_memory(length: usize) -> Error {
    Error::new(ErrorKind::Os(libc::ENOMEM), format!("there is no memory for {length} bytes"))
}

impl Cache {
    fn keep(&mut self, id: u64, page: &Arc<Page>) {
        // A huge value would displace everything else.
        if page.size() > self.limit / 4 {
            return;
        }
        if self.bytes.saturating_add(page.size()) > self.limit {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(page.size());
        self.young.insert(id, Arc::clone(page));
    }
}

/// The pages of one state of the file.
#[derive(Debug)]
pub(super) struct Pages {
    pager: Arc<Pager>,
    high_water: u64,
    /// Bytes that may still be read through this; without bounds if there are none.
    left: Option<AtomicU64>,
}

impl Pages {
    pub(super) fn new(pager: Arc<Pager>, high_water: u64) -> Pages {
        Pages { pager, high_water, left: None }
    }

    /// The same, for reading so many bytes of pages, those included that are in memory already.
    pub(super) fn limited(&self, bytes: u64) -> Pages {
        let left = Some(AtomicU64::new(bytes));
        Pages { pager: Arc::clone(&self.pager), high_water: self.high_water, left }
    }

    fn charge(&self, run: Run) -> Result<()> {
        let Some(left) = &self.left else { return Ok(()) };
        let bytes = run.length.saturating_mul(to_u64(self.pager.page_size));
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .map(drop)
            .map_err(|_| Error::corrupt("pages have more than one place: too much would be read"))
    }

    pub(super) fn page_size(&self) -> usize {
        self.pager.page_size
    }

    pub(super) fn file_pages(&self) -> u64 {
        self.pager.file_pages()
    }

    /// The header of a page, whose run lies within the file.
    pub(super) fn header(&self, id: u64) -> Result<Header> {
        self.checked_header(id, |pager| pager.read(id, HEADER))
            .map(|(header, _)| header)
            .during(|| format!("page {id}"))
    }

    fn checked_header(
        &self,
        id: u64,
        read: impl FnOnce(&Pager) -> Result<Vec<u8>>,
    ) -> Result<(Header, Vec<u8>)> {
        let limit = self.high_water.min(self.pager.file_pages());
        if !(2..limit).contains(&id) {
            return Err(Error::corrupt(format!("it is not among the {limit} pages in use")));
        }
        let bytes = read(&self.pager)?;
        let header = Header::parse(&bytes).ok_or_else(|| Error::corrupt("it has no header"))?;
        if header.id != id {
            return Err(Error::corrupt(format!("it says that it is page {}", header.id)));
        }
        if header.run().end() > limit {
            return Err(Error::corrupt(format!("it has {} more pages than the file", header.overflow)));
        }
        Ok((header, bytes))
    }

    /// The bytes of a page with those that continue it.
    fn read(&self, id: u64) -> Result<(Header, Vec<u8>)> {
        let (header, mut bytes) = self.checked_header(id, |pager| pager.read(id, pager.page_size))?;
        self.charge(header.run())?;
        if header.overflow > 0 {
            let length = header.run().length.saturating_mul(to_u64(self.pager.page_size));
            check_run(length)?;
            bytes = self.pager.read(id, to_usize(length))?;
        }
        Ok((header, bytes))
    }

    /// A branch or a leaf.
    pub(super) fn load(&self, id: u64) -> Result<Arc<Page>> {
        if let Some(page) = self.pager.cached(id) {
            self.charge(page.run())?;
            return Ok(page);
        }
        let page = self.read(id).and_then(|(_, bytes)| Page::parse(Slice::from(bytes)));
        let page = Arc::new(page.during(|| format!("page {id}"))?.compact());
        self.pager.cache.lock().keep(id, &page);
        Ok(page)
    }

    /// A freelist page: where it lies, what it says.
    pub(super) fn load_freelist(&self, id: u64) -> Result<(Run, Vec<u64>)> {
        let list = self.read(id).and_then(|(header, bytes)| {
            let ids = super::page::parse_freelist(&bytes)?;
            if !ids.iter().is_sorted_by(|a, b| a < b)
                || !ids.iter().all(|id| (2..self.high_water).contains(id))
            {
                return Err(Error::corrupt("the freelist is not a sorted list of pages"));
            }
            Ok((header.run(), ids))
        });
        list.during(|| format!("page {id}"))
    }
}
