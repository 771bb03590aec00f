// SPDX-License-Identifier: MulanPSL-2.0
//! Crash safety: everything that must survive a power cut is written through here.
//!
//! Knows files, not images. Each store keeps its own state beside its data in a hidden directory
//!
//! ```text
//! <state>/                      0700, name starts with a dot, so no id can collide with it
//!   format                      version of this layout, one decimal number and a newline
//!   lock                        owner of the store: its process id
//!   trash/<random>              deleted data on its way out; removed outside every lock, resumed at start
//!   quarantine/<random>/        what was put aside out of doubt:
//!     item                        the thing itself, as it was
//!     record.json                 where it was, when, why
//! ```
//!
//! Order of truth: content is durable before the record that names it; a record is replaced by write, fsync,
//! rename, fsync of the directory; what goes is first forgotten by its record, then moved to the trash, then removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Result;
use crate::sys::fs::Dir;

/// How durable writes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Data and directories reach the disk before a call returns.
    #[default]
    Full,
    /// Order is kept, but nothing is flushed: a power cut may lose the last changes. For those who ask.
    None,
}

/// Replaces `name` below `dir` by `content` in one step: readers see the old or the new file, whole, also after a
/// power cut. Temporary name `.tmp-<name>-<10 hex>`; removed again on failure. `mode` is set exactly.
pub fn replace_file(dir: &Dir, name: &str, content: &[u8], mode: u32, durability: Durability) -> Result<()> {
    todo!()
}

/// Removes left-over temporary files of [`replace_file`] in `dir`; best effort, logs what it could not.
pub fn sweep_temporary(dir: &Dir) {
    todo!()
}

/// How a store is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This process owns the store until it is closed; a second owner is refused.
    Owner,
    /// The lock is taken for each change.
    Shared,
    /// Nothing is ever written; no lock is taken.
    ReadOnly,
}

/// The hidden state directory of one store.
#[derive(Debug)]
pub struct StateDir {
    dir: Dir,
    ownership: Ownership,
}

impl StateDir {
    /// Opens `parent/name` (making it unless read-only), checks the format version, and takes the lock when
    /// `ownership` is `Owner` (held elsewhere: `InUse`, "in use by pid N").
    pub fn open(parent: &Dir, name: &str, ownership: Ownership, durability: Durability) -> Result<StateDir> {
        todo!()
    }

    /// Takes the lock for one change of a shared store, waiting up to `timeout`; a no-op token for an owner; `ReadOnly`
    /// error for a read-only one.
    pub fn lock_for_change(&self, timeout: Duration) -> Result<ChangeLock> {
        todo!()
    }

    /// How this store is held.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Moves `dir/name` into the trash and makes that durable; it is gone from `dir` when this returns, its data are
    /// removed by [`Discarded::remove`], at the latest at the next start. Absent: `None`.
    pub fn discard(&self, dir: &Dir, name: &str) -> Result<Option<Discarded>> {
        todo!()
    }

    /// Removes what lies in the trash from earlier; best effort, logs what it could not remove.
    pub fn sweep_trash(&self) {
        todo!()
    }

    /// Moves `dir/name` into the quarantine with the reason, durably, and returns its entry. Absent: `NotFound`.
    pub fn quarantine(&self, dir: &Dir, name: &str, reason: &str) -> Result<Quarantined> {
        todo!()
    }

    /// What is in quarantine, oldest first; entries that cannot be read are listed with what is known.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        todo!()
    }

    /// Moves an entry back to where it was; something is there already: `AlreadyExists`.
    pub fn restore(&self, entry: &Quarantined, dir: &Dir) -> Result<()> {
        todo!()
    }
}

/// A change lock; released on drop.
#[derive(Debug)]
pub struct ChangeLock {
    _lock: Option<crate::sys::lock::FileLock>,
}

/// Data in the trash that can be removed now, outside every lock.
#[derive(Debug)]
#[must_use = "the data are removed only by `remove` or at the next start"]
pub struct Discarded {
    trash: Dir,
    name: String,
}

impl Discarded {
    /// Removes the data; best effort: what fails is logged and retried at the next start.
    pub fn remove(self) {
        todo!()
    }
}

/// Something put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Name of the entry in the quarantine directory.
    pub key: String,
    /// Name it had.
    pub name: String,
    /// Directory it was in, as a path for people.
    pub from: PathBuf,
    /// Why it was put aside.
    pub reason: String,
    /// When, as UTC text.
    pub time: String,
    /// Where it lies now.
    pub path: PathBuf,
}
