// SPDX-License-Identifier: MulanPSL-2.0
//! The rootfs store: the records that tie a container to its image and to its writable layer.
//!
//! ```text
//! <dir>/<container id>/container.json               0600  the record
//! <dir>/../.isula-storage/<name of dir>/            lock, trash, quarantine, and
//!   making/<container id>/container.json            a record on its way into <dir>; removed at the next start
//!   creating/<container id>/container.json          a container is being created: its layer, too, goes at the next start
//!   removing/<container id>/container.json          a container is being deleted: its layer, too, goes at the next start
//! ```
//!
//! This store never touches a layer. Whoever creates or deletes a container with its layer takes two steps here, and
//! works on the layer between them:
//!
//! | | first | then | crash in between |
//! |---|---|---|---|
//! | creation | [`RootfsStore::begin`] | [`Staged::publish`] | the layer was made for a container that nobody was told of |
//! | deletion | [`RootfsStore::begin_removal`] | [`Removal::finish`] | the layer is that of a container whose deletion was asked for |
//!
//! In both cases the next start finds the record in [`RootfsStore::unfinished`]; the caller deletes its layer and calls
//! [`RootfsStore::settled`].
//!
//! Concurrency: lookups read an index in memory and never wait for the disk. Whoever changes a record claims its id,
//! and its layer and names if it comes or goes; others that want one of them wait until the claim ends. The disk is
//! written first, then the index. No lock is held while the disk is used or a caller's function runs.
//!
//! Source: iSulad's rootfs store, whose directories this one reads and writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::id::ContainerId;
use crate::layer::Problem;
use crate::persist::{Durability, Ownership, Quarantined, StateDir};
use crate::record::rootfs::RootfsRecord;
use crate::sys::fs::Dir;

mod aside;
mod change;
mod claims;
mod create;
mod disk;
mod index;
mod load;
mod open;
mod remove;

#[cfg(test)]
mod tests;

pub use crate::record::rootfs::IdMap;
pub use create::Staged;
pub use remove::Removal;

use claims::Claims;
use index::Index;
use load::Unfinished;

/// How to open a rootfs store.
#[derive(Debug, Clone)]
pub struct RootfsStoreOptions {
    /// The directory itself: `<storage root>/<driver>-containers`. The store's state lies beside it.
    pub dir: PathBuf,
    /// `Owner` or `ReadOnly`.
    pub ownership: Ownership,
    /// How writes are made durable.
    pub durability: Durability,
}

/// What a new container's record is to be.
#[derive(Debug, Clone, Default)]
pub struct CreateRootfs {
    /// Container id; none: 64 random hex digits.
    pub id: Option<ContainerId>,
    /// Its names; duplicates are dropped, the rest sorted.
    pub names: Vec<String>,
    /// Id of its image; not looked at.
    pub image: Option<String>,
    /// Id of its writable layer.
    pub layer: String,
    /// Free text.
    pub metadata: Option<String>,
    /// Ranges of user ids.
    pub uid_map: Vec<IdMap>,
    /// Ranges of group ids.
    pub gid_map: Vec<IdMap>,
}

/// The rootfs store. All methods may be called from any thread. "By any name" means: id, id of the layer, unique short
/// id of at least three digits, in this order; `names` are kept, but nothing is found by them, as in the reference.
///
/// Every changing method fails with `ReadOnly` on a store opened so.
pub struct RootfsStore {
    root: Dir,
    state: StateDir,
    /// The state directory; none in a read-only store.
    work: Option<Dir>,
    durability: Durability,
    claims: Claims,
    index: RwLock<Index>,
    unfinished: RwLock<Vec<Unfinished>>,
    problems: Vec<Problem>,
    broken: Vec<ContainerId>,
}

impl RootfsStore {
    /// Opens the store and loads all records. Never deletes out of doubt: what is unreadable or contradicts itself is put
    /// aside and reported. A read-only store must exist, and shows what there is at this moment.
    pub fn open(options: RootfsStoreOptions) -> Result<RootfsStore> {
        open::open(options)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.root.path()
    }

    /// How the store is held.
    pub fn ownership(&self) -> Ownership {
        self.state.ownership()
    }

    /// Makes a record for a layer that exists already. Its id exists, or its layer or a name belongs to another container:
    /// `AlreadyExists`, nothing touched. A crash leaves the record whole or absent, and never condemns the layer.
    pub fn create(&self, rootfs: &CreateRootfs) -> Result<ContainerId> {
        create::create(self, rootfs)
    }

    /// First step of creating a container with its layer: id, layer and names are reserved, and the record lies durable
    /// where the next start takes it for a creation that was interrupted; it is not listed. Id, layer or a name taken:
    /// `AlreadyExists`, nothing touched. Of an interrupted one that is not settled yet: `InUse`.
    ///
    /// `vacant` is called with the layer's id after the reservation and before anything is written. It must fail if such a
    /// layer exists: from here on a crash deletes the layer.
    pub fn begin(
        &self,
        rootfs: &CreateRootfs,
        vacant: impl FnOnce(&str) -> Result<()>,
    ) -> Result<Staged<'_>> {
        create::begin(self, rootfs, vacant)
    }

    /// First step of deleting a container, by any name, with its layer: the record lies durable where the next start takes
    /// it for a deletion to be finished, and is not listed any more. Unknown: `None`.
    pub fn begin_removal(&self, rootfs: &str) -> Result<Option<Removal<'_>>> {
        remove::begin(self, rootfs)
    }

    /// Deletes a record, by any name, and leaves its layer alone. Unknown is fine (`false`).
    pub fn delete(&self, rootfs: &str) -> Result<bool> {
        remove::delete(self, rootfs)
    }

    /// Deletes all records. Goes on after a failure and returns the first.
    pub fn wipe(&self) -> Result<()> {
        remove::wipe(self)
    }

    /// Creations and deletions that a crash interrupted, as the start found them. Their layers are to be deleted, each
    /// followed by [`settled`](Self::settled): no other container has them. (A caller that cannot delete a layer now
    /// leaves it for the next start; its id and layer are taken until then.)
    pub fn unfinished(&self) -> Vec<Arc<RootfsRecord>> {
        self.unfinished.read().iter().map(|unfinished| Arc::clone(&unfinished.record)).collect()
    }

    /// The layer of an unfinished creation or deletion is gone: forgets it. Not one of them: `NotFound`.
    pub fn settled(&self, id: &ContainerId) -> Result<()> {
        remove::settled(self, id)
    }

    /// Sets the free text, by any name.
    pub fn set_metadata(&self, rootfs: &str, metadata: &str) -> Result<()> {
        change::set_metadata(self, rootfs, metadata)
    }

    /// Writes a record as it is given, in place of the one of its id, or as a new one. Without a valid id or layer:
    /// `InvalidArgument`; its layer or a name belongs to another container: `AlreadyExists`.
    pub fn save(&self, record: &RootfsRecord) -> Result<()> {
        change::save(self, record)
    }

    /// Whether a record of any such name exists.
    pub fn exists(&self, rootfs: &str) -> bool {
        self.index.read().resolve(rootfs).is_ok()
    }

    /// Full id of the container of any such name. Ambiguous short ids are `NotFound` and the message says so.
    pub fn lookup(&self, rootfs: &str) -> Result<ContainerId> {
        self.index.read().resolve(rootfs).map(|found| found.id.clone())
    }

    /// The record of any such name.
    pub fn get(&self, rootfs: &str) -> Result<Arc<RootfsRecord>> {
        self.index.read().resolve(rootfs).map(|found| Arc::clone(&found.record))
    }

    /// All records, in order of creation (after a restart: of their `created`, then id).
    pub fn list(&self) -> Result<Vec<Arc<RootfsRecord>>> {
        Ok(self.index.read().list().map(|found| Arc::clone(&found.record)).collect())
    }

    /// What was found wrong when the store was opened.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.clone()
    }

    /// Containers whose record was absent or did not parse when the store was opened, as far as they are not listed: of
    /// those the reference tells the daemon's clean-up.
    pub fn broken(&self) -> Vec<ContainerId> {
        self.broken.clone()
    }

    /// What lies in quarantine.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.state.quarantined()
    }

    /// Puts a record aside, by any name: it is no longer listed, its file is kept, and its layer left alone.
    pub fn quarantine(&self, rootfs: &str, reason: &str) -> Result<Quarantined> {
        aside::quarantine(self, rootfs, reason)
    }

    /// The layer that a record which was put aside names; `None` when it cannot be read, or names none.
    pub fn layer_aside(&self, entry: &Quarantined) -> Option<String> {
        aside::layer(entry)
    }

    /// Brings a record back. Something is in its place, or its layer belongs to another container by now: `AlreadyExists`;
    /// it is still the reason that it was put aside: `Corrupt`. A name that another container has by now stays with that
    /// one.
    pub fn restore(&self, entry: &Quarantined) -> Result<()> {
        aside::restore(self, entry)
    }

    /// Gives up what was put aside, for good.
    pub fn purge(&self, entry: &Quarantined) -> Result<()> {
        self.writable()?;
        if let Some(discarded) = self.state.purge(entry)? {
            discarded.remove();
        }
        Ok(())
    }

    /// The state directory, for a change.
    fn writable(&self) -> Result<&Dir> {
        self.work.as_ref().ok_or_else(|| {
            let message =
                format!("change rootfs store {}: it was opened for reading only", self.dir().display());
            Error::new(ErrorKind::ReadOnly, message)
        })
    }
}

impl std::fmt::Debug for RootfsStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ownership = self.ownership();
        f.debug_struct("RootfsStore")
            .field("dir", &self.dir())
            .field("ownership", &ownership)
            .finish_non_exhaustive()
    }
}
