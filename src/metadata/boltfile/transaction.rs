// SPDX-License-Identifier: MulanPSL-2.0
//! Transactions: what they see, and how one is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shared;
use super::bucket::{Bucket, BucketMut, State, Stored};
use super::bytes::{to_u64, to_usize};
use super::check::{check, used_pages};
use super::meta::{Meta, NO_FREELIST};
use super::node::{Space, release};
use super::page::{Run, encode_freelist, freelist_size};
use super::pager::Pages;
use super::spans::Spans;
use super::{Access, Freelist};
use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::{Durability, step};

/// One state of the file, for reading or for changes; dropped without [`Transaction::commit`], nothing has happened.
///
/// A transaction that reads keeps the pages of its state from being used again: the file grows while it lasts.
#[derive(Debug)]
pub struct Transaction {
    shared: Arc<Shared>,
    pages: Pages,
    meta: Meta,
    root: State,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Read,
    /// Pages of the state before that the next one does not need.
    Write(Spans),
}

/// Pages that may be written over; known to whoever writes.
#[derive(Debug, Clone)]
pub(super) struct Room {
    free: Spans,
    /// What the transaction of this number made free: states before it need it.
    pending: BTreeMap<u64, Spans>,
    /// Where the freelist lies.
    freelist: Option<Run>,
}

impl Room {
    /// Everything that no bucket needs is free, whatever the stored freelist says: it may be absent, and has been seen
    /// wrong. That the whole tree is sound is a condition for writing: else pages that are still in use, but not found,
    /// would be written over.
    pub(super) fn find(pages: &Pages, meta: &Meta) -> Result<Room> {
        if meta.high_water > pages.file_pages() {
            return Err(Error::corrupt(format!(
                "the file has {} pages, but says that it has {}",
                pages.file_pages(),
                meta.high_water
            )));
        }
        let mut used = used_pages(pages, meta)?;
        // The freelist is no longer believed, but others would read it if this process came to its end now.
        let stored = match meta.freelist {
            NO_FREELIST => None,
            id => match pages.load_freelist(id) {
                Ok((run, _)) => Some(run),
                Err(error) => {
                    log::warn!("the freelist is made anew: {}", error.report());
                    None
                }
            },
        };
        let freelist = stored.filter(|run| used.insert(*run));
        Ok(Room { free: used.gaps(2..meta.high_water), pending: BTreeMap::new(), freelist })
    }
}

impl Transaction {
    pub(super) fn new(shared: Arc<Shared>, meta: Meta, writable: bool) -> Transaction {
        let pages = Pages::new(Arc::clone(&shared.pager), meta.high_water);
        let root = State::new(Stored { root: meta.root, sequence: meta.sequence, inline: None }, 0);
        let mode = if writable { Mode::Write(Spans::default()) } else { Mode::Read };
        Transaction { shared, pages, meta, root, mode }
    }

    /// Whether it was begun for changes.
    pub fn is_writable(&self) -> bool {
        matches!(self.mode, Mode::Write(_))
    }

    /// The number of the state that it sees: that of the last transaction that was written.
    pub fn id(&self) -> u64 {
        self.meta.txid
    }

    /// The outermost bucket. As in the original it is meant to hold buckets only, though nothing depends on that.
    pub fn root(&self) -> Bucket<'_> {
        Bucket::open(&self.pages, &self.root)
    }

    /// For reading all that lies in a bucket from elsewhere, whose pages may have more than one place: there is an error
    /// instead of more than a sound file could make anyone read. Without bounds in a transaction that writes: the file is
    /// sound then.
    pub fn scan(&self) -> Scan<'_> {
        /// How often a call may look at a page: once for each key of an image.
        const LOOKS: u64 = 16;
        let bytes = self.file_bytes().saturating_mul(LOOKS).saturating_add(1 << 20);
        let pages = (!self.is_writable()).then(|| self.pages.limited(bytes));
        Scan { transaction: self, pages }
    }

    /// The same for changes; `tx not writable` (`ReadOnly`) if it was begun for reading.
    pub fn root_mut(&mut self) -> Result<BucketMut<'_>> {
        match &mut self.mode {
            Mode::Read => Err(not_writable()),
            Mode::Write(freed) => Ok(BucketMut::new(&self.pages, freed, &mut self.root)),
        }
    }

    /// What is wrong with the state that it began with, in words; nothing: each page has exactly one place. Reads the
    /// whole file in time linear in its length, whatever lies in it.
    pub fn check(&self) -> Vec<String> {
        check(&self.pages, &self.meta)
    }

    /// Why the buckets of the state that it began with do not fit together, if they do not: the first thing that is
    /// wrong. The freelist is not looked at. Reads the whole file in time linear in its length.
    pub fn check_buckets(&self) -> Result<()> {
        used_pages(&self.pages, &self.meta).map(drop)
    }

    /// Length of the file in bytes: no sound bucket holds more.
    pub fn file_bytes(&self) -> u64 {
        self.pages.file_pages().saturating_mul(to_u64(self.pages.page_size()))
    }

    /// Writes the changes. They are durable when it returns.
    ///
    /// An error before the meta page is written leaves the state before, and further transactions can be begun. Once it
    /// may have been written, or when the disk could not make something durable, nobody knows which of the two the
    /// file holds: then this file is only read until it is opened again (`Latched`).
    pub fn commit(mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let written = match std::mem::replace(&mut self.mode, Mode::Write(Spans::default())) {
            Mode::Write(freed) => self.write(freed),
            Mode::Read => {
                self.mode = Mode::Read;
                Err(not_writable())
            }
        };
        written.during(|| format!("commit to {}", shared.name))
    }

    fn write(&mut self, mut freed: Spans) -> Result<()> {
        if !self.root.is_changed() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let slot = shared.current.lock().slot;
        let mut room =
            shared.room.lock().clone().ok_or_else(|| Error::corrupt("free pages are not known"))?;
        let mut next = next_meta(&self.meta, slot)?;
        room.free_up_to(shared.oldest_reader(&self.meta));

        let free = std::mem::take(&mut room.free);
        let mut space = Space {
            pages: &self.pages,
            free,
            freed: &mut freed,
            high_water: next.high_water,
            written: Vec::new(),
        };
        next.root = self.root.spill(&mut space)?;
        next.sequence = self.root.sequence;
        space.release(room.freelist.take());
        if shared.options.freelist == Freelist::Stored {
            let run = store_freelist(&mut space, &room.pending)?;
            (next.freelist, room.freelist) = (run.start, Some(run));
        } else {
            next.freelist = NO_FREELIST;
        }
        next.high_water = space.high_water;
        let (free, written) = (space.free, space.written);
        room.free = free;
        room.pending.insert(next.txid, freed);

        let full = shared.options.durability == Durability::Full;
        step("grow file")?;
        shared.pager.grow(next.high_water)?;
        step("write pages")?;
        for (page, bytes) in &written {
            shared.pager.write(*page, bytes)?;
        }
        // From here on the disk may have either state.
        let made = (|| {
            step("sync pages")?;
            if full {
                shared.pager.sync()?;
            }
            step("write meta page")?;
            shared.pager.write(1 - slot, &next.to_page(1 - slot))?;
            step("sync meta page")?;
            if full { shared.pager.sync() } else { Ok(()) }
        })();
        let mut current = shared.current.lock();
        if made.is_err() {
            current.latched = true;
            return made;
        }
        current.meta = next;
        current.slot = 1 - slot;
        *shared.room.lock() = Some(room);
        Ok(())
    }
}

/// See [`Transaction::scan`].
#[derive(Debug)]
pub struct Scan<'t> {
    transaction: &'t Transaction,
    pages: Option<Pages>,
}

impl Scan<'_> {
    /// See [`Transaction::root`].
    pub fn root(&self) -> Bucket<'_> {
        let pages = self.pages.as_ref().unwrap_or(&self.transaction.pages);
        Bucket::open(pages, &self.transaction.root)
    }
}

impl Room {
    /// What the transactions up to `txid` made free is free: no reader has a state before them.
    fn free_up_to(&mut self, txid: u64) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| *entry.key() <= txid) {
            for run in entry.remove().runs() {
                release(&mut self.free, Some(run));
            }
        }
    }
}

/// The next number is written to the other slot than this one: it has to differ in its lowest bit.
fn next_meta(meta: &Meta, slot: u64) -> Result<Meta> {
    let step = if meta.txid % 2 == slot { 1 } else { 2 };
    let txid = meta.txid.checked_add(step);
    let txid =
        txid.ok_or_else(|| Error::new(ErrorKind::LimitExceeded, "there are no more transaction numbers"))?;
    Ok(Meta { txid, ..*meta })
}

/// Puts the freelist among what is to be written: what is free, and what will be.
fn store_freelist(space: &mut Space<'_>, pending: &BTreeMap<u64, Spans>) -> Result<Run> {
    let mut later = space.freed.clone();
    for run in pending.values().flat_map(Spans::runs) {
        release(&mut later, Some(run));
    }
    // Its own pages are taken from the free ones, so it may become a little shorter than this.
    let size = freelist_size(space.free.count().saturating_add(later.count()));
    let (run, _) = space.allocate(to_usize(size))?;
    for free in space.free.runs() {
        release(&mut later, Some(free));
    }
    let ids: Vec<u64> = later.pages().collect();
    space.written.push((run.start, encode_freelist(run, &ids)?));
    Ok(run)
}

fn not_writable() -> Error {
    Error::new(ErrorKind::ReadOnly, "tx not writable")
}

impl Drop for Transaction {
    fn drop(&mut self) {
        match self.mode {
            Mode::Read => self.shared.end_reader(self.meta.txid),
            Mode::Write(_) => self.shared.end_writer(),
        }
    }
}

impl Shared {
    /// Ends a reader's hold on its state.
    fn end_reader(&self, txid: u64) {
        let mut current = self.current.lock();
        if let Some(count) = current.readers.get_mut(&txid) {
            *count -= 1;
            if *count == 0 {
                current.readers.remove(&txid);
            }
        }
    }

    /// The oldest state that somebody reads.
    fn oldest_reader(&self, meta: &Meta) -> u64 {
        self.current.lock().readers.keys().next().copied().unwrap_or(meta.txid)
    }

    /// Waits until nobody writes, then finds free pages unless they are known.
    pub(super) fn begin_write(self: &Arc<Shared>) -> Result<Transaction> {
        if self.options.access == Access::ReadOnly {
            return Err(Error::new(ErrorKind::ReadOnly, "database is in read-only mode"));
        }
        self.wait_for_writer()?;
        let (meta, latched) = {
            let current = self.current.lock();
            (current.meta, current.latched)
        };
        // Gives the right to write back, also on failure.
        let transaction = Transaction::new(Arc::clone(self), meta, true);
        if latched {
            return Err(Error::new(ErrorKind::Latched, "an earlier commit failed; open it again to write"));
        }
        let known = self.room.lock().is_some();
        if !known {
            let room = Room::find(&transaction.pages, &meta)?;
            *self.room.lock() = Some(room);
        }
        Ok(transaction)
    }

    fn wait_for_writer(&self) -> Result<()> {
        let mut writing = self.writing.lock();
        let busy = || Error::new(ErrorKind::InUse, "another transaction writes");
        match self.options.timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout)) {
            Some(deadline) => {
                self.written.wait_while_until(&mut writing, |writing| *writing, deadline);
                if *writing {
                    return Err(busy());
                }
            }
            None => self.written.wait_while(&mut writing, |writing| *writing),
        }
        *writing = true;
        Ok(())
    }

    fn end_writer(&self) {
        *self.writing.lock() = false;
        self.written.notify_one();
    }

    pub(super) fn begin_read(self: &Arc<Shared>) -> Transaction {
        let mut current = self.current.lock();
        let meta = current.meta;
        *current.readers.entry(meta.txid).or_insert(0) += 1;
        drop(current);
        Transaction::new(Arc::clone(self), meta, false)
    }
}
