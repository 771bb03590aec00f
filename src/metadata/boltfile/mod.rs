// SPDX-License-Identifier: MulanPSL-2.0
//! Files of the bolt database, as Go's bbolt reads and writes them.
//!
//! ```text
//! page 0, 1   meta        two states of the file; the valid one with the higher transaction number counts
//! page 2…     branch, leaf, freelist, in any order; a page that is too small continues in those behind it
//!
//! page        { id u64, flags u16, count u16, overflow u32 }, then count elements of 16 bytes, then keys and values
//!   flags       1 branch, 2 leaf, 4 meta, 0x10 freelist;  overflow: how many pages continue it
//!   branch      { position u32, key size u32, child page u64 }
//!   leaf        { flags u32 (1: bucket), position u32, key size u32, value size u32 }; the value follows its key
//!               positions count from the start of the element
//!   freelist    count page ids; count 0xffff: the first number is the count
//! meta        { magic ED0CDAED u32, version 2 u32, page size u32, flags u32, root page u64, sequence u64,
//!               freelist page u64 (all ones: none), high water u64, transaction u64, FNV-1a of those 56 bytes u64 }
//! bucket      { root page u64, sequence u64 }; root page 0: a leaf follows, in the same value
//! ```
//!
//! Numbers have the byte order of the machine. Pages have 1 to 64 KiB.
//!
//! Safe from hostile files: nothing is mapped; every page is checked when it is read, and that its keys belong where
//! the way to it leads; nothing is allocated that is longer than the file or 256 MiB; nothing recurses over what lies in it.
//! One call reads a few pages, whatever they say. For work on the whole of a file from elsewhere, call
//! [`Transaction::check`] first.
//!
//! Concurrency: one transaction writes at a time, any number read; each sees one state from beginning to end. Other
//! processes, also with the original, are excluded by `flock` on the file: from writing all, from reading writers.
//!
//! Crash safety: a commit writes to pages that no state needs which somebody could see, syncs, writes one of the two meta
//! pages, syncs. What is free is found from the buckets themselves before the first change; the stored freelist is
//! written for others and never believed.
//!
//! Source: the format and the limits of go.etcd.io/bbolt 1.3; a test beside it compares with that itself.

mod bucket;
mod bytes;
mod check;
mod cursor;
#[doc(hidden)]
pub mod fuzzing;
mod medium;
mod meta;
mod node;
mod page;
mod pager;
mod spans;
mod transaction;
mod walk;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
pub(super) mod hostile_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::Durability;
use crate::sys::flock::{LockedFile, Sharing};
use crate::sys::fs::Dir;

pub use bucket::{Bucket, BucketMut, DEEPEST_BUCKET, Item, LONGEST_KEY, LONGEST_VALUE};
pub use bytes::Slice;
pub use cursor::{Cursor, CursorMut};
pub use transaction::{Scan, Transaction};

use bytes::{to_u64, to_usize};
use medium::Medium;
use meta::{LARGEST_PAGE, Meta, SMALLEST_PAGE, is_page_size};
use page::Run;
use pager::Pager;
use transaction::Room;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Changes, too; made if it is absent. Excludes everybody else.
    #[default]
    ReadWrite,
    /// Reading only; excludes those who write.
    ReadOnly,
}

/// Whether the freelist is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freelist {
    /// With each commit: programs that cannot do without it read the file.
    #[default]
    Stored,
    /// Never: a smaller commit. What is free is found when it is needed.
    Absent,
}

/// How a file is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// What for.
    pub access: Access,
    /// How long to wait for other processes, and for other transactions that write; `None`: for ever.
    pub timeout: Option<Duration>,
    /// Bytes in a page of a new file: a power of two, 1 to 64 KiB. A file that exists keeps its own.
    pub page_size: usize,
    /// Whether the freelist is written.
    pub freelist: Freelist,
    /// Bytes of pages kept in memory.
    pub cache: usize,
    /// Whether a commit reaches the disk before it returns.
    pub durability: Durability,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            access: Access::default(),
            timeout: None,
            page_size: 4096,
            freelist: Freelist::default(),
            cache: 32 << 20,
            durability: Durability::default(),
        }
    }
}

/// An open database file. It is locked until this and all its transactions are dropped.
#[derive(Debug)]
pub struct BoltFile {
    shared: Arc<Shared>,
    /// Device and inode, where it is a file.
    identity: Option<(u64, u64)>,
}

/// What the transactions of a file share. Locks are taken in the order of the fields and held for a moment only.
#[derive(Debug)]
struct Shared {
    /// For messages.
    name: String,
    options: Options,
    pager: Arc<Pager>,
    writing: Mutex<bool>,
    /// Somebody has stopped writing.
    written: Condvar,
    current: Mutex<Current>,
    /// Unknown until the first transaction that writes.
    room: Mutex<Option<Room>>,
}

#[derive(Debug)]
struct Current {
    meta: Meta,
    /// Which meta page it is.
    slot: u64,
    /// How many transactions read which state.
    readers: BTreeMap<u64, usize>,
    latched: bool,
}

impl BoltFile {
    /// Opens `name` below `dir`. In use by another process: `InUse`, which names it, after the timeout. No bolt file,
    /// or a damaged one: `Corrupt`; nothing is changed then.
    pub fn open(dir: &Dir, name: &str, options: &Options) -> Result<BoltFile> {
        let path = dir.path().join(name).display().to_string();
        let file = open_locked(dir, name, options).during(|| format!("open {path}"))?;
        let stat = file.file().metadata().during(|| format!("open {path}"))?;
        let opened = BoltFile::with(Box::new(file), path, options)?;
        Ok(BoltFile { identity: Some((stat.dev(), stat.ino())), ..opened })
    }

    /// Whether it is the file at `path`.
    pub fn is_at(&self, path: &Path) -> bool {
        let there = std::fs::metadata(path).map(|stat| (stat.dev(), stat.ino()));
        there.is_ok_and(|there| self.identity == Some(there))
    }

    fn with(medium: Box<dyn Medium>, name: String, options: &Options) -> Result<BoltFile> {
        let opened: Result<_> = (|| {
            if options.access == Access::ReadWrite {
                begin_file(medium.as_ref(), options.page_size)?;
            }
            let (meta, slot) = meta::choose(|at, length| read_some(medium.as_ref(), at, length))?;
            Ok((Pager::new(medium, meta.page_size, options.cache)?, meta, slot))
        })();
        let (pager, meta, slot) = opened.during(|| format!("open {name}"))?;
        let shared = Shared {
            name,
            options: options.clone(),
            pager: Arc::new(pager),
            writing: Mutex::new(false),
            written: Condvar::new(),
            current: Mutex::new(Current { meta, slot, readers: BTreeMap::new(), latched: false }),
            room: Mutex::new(None),
        };
        Ok(BoltFile { shared: Arc::new(shared), identity: None })
    }

    /// Begins a transaction that reads. It sees the file as it is now, whatever is written later.
    pub fn begin(&self) -> Transaction {
        self.shared.begin_read()
    }

    /// Begins a transaction that writes, when the one before it has ended; after the timeout: `InUse`.
    ///
    /// The first one reads the whole file to see that it is sound; if it is not: `Corrupt`, and it can only be read.
    pub fn begin_write(&self) -> Result<Transaction> {
        self.shared.begin_write().during(|| format!("write to {}", self.shared.name))
    }

    /// Bytes in a page.
    pub fn page_size(&self) -> usize {
        self.shared.pager.page_size()
    }
}

fn open_locked(dir: &Dir, name: &str, options: &Options) -> Result<LockedFile> {
    loop {
        let (opened, sharing) = match options.access {
            Access::ReadOnly => (dir.open_file(name), Sharing::Shared),
            Access::ReadWrite => (dir.open_file_in_place(name), Sharing::Exclusive),
        };
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound && options.access == Access::ReadWrite => {
                match dir.create_file(name, 0o600) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    made => made.map(drop).and_then(|()| dir.sync())?,
                }
                continue;
            }
            opened => opened?,
        };
        let locked = LockedFile::lock(file, sharing, options.timeout)?;
        // Only a lock on the file that others will open is worth something.
        let mine = locked.file().metadata().during(|| "look at it")?;
        match dir.stat(name)? {
            Some(stat) if (stat.device, stat.inode) == (mine.dev(), mine.ino()) => return Ok(locked),
            Some(_) | None => {}
        }
    }
}

fn read_some(medium: &dyn Medium, at: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let count = medium.read(at, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// A new file: two meta pages, an empty freelist, an empty leaf.
fn new_file(page_size: usize) -> Result<Vec<u8>> {
    let meta = |txid| Meta { page_size, flags: 0, root: 3, sequence: 0, freelist: 2, high_water: 4, txid };
    let mut content = [meta(0).to_page(0), meta(1).to_page(1)].concat();
    for page in [page::encode_freelist(Run { start: 2, length: 1 }, &[])?, page::encode_leaf(3, 0, &[])?] {
        let end = content.len() + page_size;
        content.extend_from_slice(&page);
        content.resize(end, 0);
    }
    Ok(content)
}

/// Writes a new file if this one is empty, or if a power cut has left a new one unfinished: if it has nothing but bytes
/// of a new file, and not all of them.
fn begin_file(medium: &dyn Medium, page_size: usize) -> Result<()> {
    if !is_page_size(page_size) {
        return Err(Error::invalid(format!("a page cannot have {page_size} bytes")));
    }
    let length = medium.length()?;
    if length > to_u64(4 * LARGEST_PAGE) {
        return Ok(());
    }
    // Before it was whole it had no other transactions.
    let meta = meta::choose(|at, length| read_some(medium, at, length));
    if meta.is_ok_and(|(meta, _)| meta.txid > 1) {
        return Ok(());
    }
    let found = read_some(medium, 0, to_usize(length))?;
    let mut size = SMALLEST_PAGE;
    let mut unfinished = false;
    while size <= LARGEST_PAGE {
        let new = new_file(size)?;
        if found == new {
            return Ok(());
        }
        let is_part = |(found, new): (&[u8], &[u8])| {
            found == new || found.iter().zip(new).all(|(byte, new)| *byte == 0 || byte == new)
        };
        unfinished |= found.len() <= new.len() && found.chunks(512).zip(new.chunks(512)).all(is_part);
        size *= 2;
    }
    if !unfinished {
        return Ok(());
    }
    let content = new_file(page_size)?;
    crate::persist::step("write a new file")?;
    medium.set_length(to_u64(content.len()))?;
    medium.write(0, &content)?;
    crate::persist::step("sync a new file")?;
    medium.sync()
}
