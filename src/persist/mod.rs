// SPDX-License-Identifier: MulanPSL-2.0
//! Crash safety: everything that must survive a power cut is written through here.
//!
//! Knows files, not images. Each store keeps its own state beside its data in a hidden directory
//!
//! ```text
//! <state>/                      0700, name starts with a dot, so no id can collide with it
//!   format                      version of this layout, one decimal number and a newline; made last
//!   lock                        owner of the store: its process id
//!   trash/<random>              deleted data on its way out; removed outside every lock, resumed at start
//!   quarantine/<random>/        what was put aside out of doubt:
//!     item                        the thing itself, as it was
//!     record.json                 where it was, when, why
//! ```
//!
//! Order of truth: content is durable before the record that names it; a record is replaced by write, fsync,
//! rename, fsync of the directory; what goes is first forgotten by its record, then moved to the trash, then removed.
//!
//! The trash and the quarantine take things by renaming them, so what is given to them must lie in the same mount
//! as the state directory, and must have been opened on the same side of a bind mount (see [`crate::sys::fs`]).
//!
//! After an error the disk may hold the old or the new state (a failed fsync does not say which): a caller that
//! keeps the state in memory as well has to read it again.

mod quarantine;
mod replace;
mod shared;
mod state;
mod steps;

#[cfg(test)]
mod crash_tests;

pub(crate) use quarantine::ITEM as QUARANTINED;
pub use quarantine::Quarantined;
pub use replace::{Replacement, is_temporary, replace_file, sweep_temporary};
pub use shared::{
    Place, SHARED, SharedDir, SharedEntry, build_shared_entry, make_shared_home, remove_shared_entry,
};
pub use state::{ChangeLock, Discarded, StateDir};
pub(crate) use state::{QUARANTINE, TRASH};
pub(crate) use steps::step;
#[cfg(test)]
pub(crate) use steps::with_hook;

/// How durable writes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Data and directories reach the disk before a call returns.
    #[default]
    Full,
    /// Order is kept, but nothing is flushed: a power cut may lose the last changes. For those who ask.
    None,
}

impl Durability {
    /// Makes changes of a directory durable, if asked for.
    fn sync_dir(self, dir: &crate::sys::fs::Dir) -> crate::error::Result<()> {
        match self {
            Durability::Full => dir.sync(),
            Durability::None => Ok(()),
        }
    }
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
