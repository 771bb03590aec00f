// SPDX-License-Identifier: MulanPSL-2.0
//! Taking records away.
//!
//! ```text
//! id, layer and names claimed
//! directory moved to removing/<id>     durable: a crash from here on finishes the deletion at the next start
//! memory
//!     ◄── begin_removal returns; the caller deletes the layer
//! directory moved to the trash
//! trash emptied
//! ```

use std::sync::Arc;

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ContainerId;
use crate::record::rootfs::RootfsRecord;
use crate::sys::fs::Dir;

use super::RootfsStore;
use super::claims::Claim;
use super::disk::{CREATING, REMOVING};
use super::index::Found;

/// A container that is being deleted. Dropped: as [`undo`](Removal::undo), as far as that is possible.
#[derive(Debug)]
#[must_use = "the container is deleted by `finish` only"]
pub struct Removal<'a> {
    store: &'a RootfsStore,
    found: Found,
    shared: bool,
    place: Dir,
    done: bool,
    _claim: Claim<'a>,
}

impl Removal<'_> {
    /// Its record.
    pub fn record(&self) -> &Arc<RootfsRecord> {
        &self.found.record
    }

    /// The layer to be deleted; none if another container's record names the same: then it must stay.
    pub fn layer(&self) -> Option<&str> {
        self.found.record.layer.as_deref().filter(|_| !self.shared)
    }

    /// The layer is gone: forgets the container. After an error it is forgotten all the same, but the next start tries to
    /// delete the layer once more.
    pub fn finish(mut self) -> Result<()> {
        self.done = true;
        let id = &self.found.id;
        self.store.discard_from(&self.place, id).during(|| format!("delete the record of container {id}"))
    }

    /// The layer is still there: lists the container again, where it was.
    pub fn undo(mut self) -> Result<()> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<()> {
        self.done = true;
        let id = &self.found.id;
        let moved = match self.place.stat(id.as_str()) {
            // There was no directory to begin with.
            Ok(None) => Ok(()),
            Ok(Some(_)) => self.store.move_record(id, &self.place, &self.store.root),
            Err(error) => Err((error, true)),
        };
        let (result, listed) = match moved {
            Ok(()) => (Ok(()), true),
            Err((error, is_in_old_place)) => (Err(error), !is_in_old_place),
        };
        if listed {
            self.store.index.write().put_back(self.found.clone());
        }
        result.during(|| format!("take back the deletion of container {id}"))
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.put_back()
        {
            log::error!("{}; the next start finishes it", error.report());
        }
    }
}

pub(super) fn begin<'a>(store: &'a RootfsStore, rootfs: &str) -> Result<Option<Removal<'a>>> {
    let work = store.writable()?;
    let Some((found, claim)) = store.claim(rootfs)? else { return Ok(None) };
    let id = found.id.clone();
    let doing = || format!("delete container {id}");
    let place = work.ensure_dir(REMOVING, super::disk::DIR_MODE).during(doing)?;
    // Of an earlier container of this id, whose deletion is done but for this.
    store.discard_from(&place, &id).during(doing)?;
    if store.root.stat(id.as_str()).during(doing)?.is_some()
        && let Err((error, is_back)) = store.move_record(&id, &store.root, &place)
    {
        if !is_back {
            store.index.write().remove(&id);
        }
        return Err(error.context(doing()));
    }
    let mut index = store.index.write();
    index.remove(&id);
    let shared = found.record.layer.as_deref().is_some_and(|layer| index.is_shared(layer, &id));
    drop(index);
    Ok(Some(Removal { store, found, shared, place, done: false, _claim: claim }))
}

pub(super) fn delete(store: &RootfsStore, rootfs: &str) -> Result<bool> {
    store.writable()?;
    let Some((found, claim)) = store.claim(rootfs)? else { return Ok(false) };
    let id = &found.id;
    let discarded = store
        .take(id, || store.state.discard(&store.root, id.as_str()))
        .during(|| format!("delete the record of container {id}"))?;
    drop(claim);
    if let Some(discarded) = discarded {
        discarded.remove();
    }
    Ok(true)
}

pub(super) fn wipe(store: &RootfsStore) -> Result<()> {
    store.writable()?;
    let ids: Vec<ContainerId> = store.index.read().list().map(|found| found.id.clone()).collect();
    let mut first = Ok(());
    for error in ids.iter().filter_map(|id| delete(store, id.as_str()).err()) {
        log::warn!("wipe the rootfs store: {}", error.report());
        first = first.and(Err(error));
    }
    first
}

pub(super) fn settled(store: &RootfsStore, id: &ContainerId) -> Result<()> {
    store.writable()?;
    if !store.unfinished.read().iter().any(|unfinished| unfinished.id == *id) {
        return Err(Error::not_found(format!("container {id}: no interrupted change of it is known")));
    }
    for part in [CREATING, REMOVING] {
        store
            .discard_from(&store.part(part)?, id)
            .during(|| format!("forget the interrupted change of container {id}"))?;
    }
    store.unfinished.write().retain(|unfinished| unfinished.id != *id);
    Ok(())
}

impl RootfsStore {
    /// The container of any such name, and the sole right to change all that belongs to it; unknown: `None`.
    pub(super) fn claim(&self, rootfs: &str) -> Result<Option<(Found, Claim<'_>)>> {
        loop {
            let found = match self.index.read().resolve(rootfs) {
                Ok(found) => found.clone(),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let claim = self.claims.take_all(&found.record)?;
            // Somebody may have changed it while we waited.
            let now = self.index.read().resolve(rootfs).ok().map(|now| Arc::clone(&now.record));
            if now.is_some_and(|now| Arc::ptr_eq(&now, &found.record)) {
                return Ok(Some((found, claim)));
            }
        }
    }

    /// Takes a record's directory away by `moving` it, then the container out of memory. When the move was made but not
    /// known to be durable, memory follows what the disk shows: a power cut brings back a whole record or none.
    pub(super) fn take<T>(&self, id: &ContainerId, moving: impl FnOnce() -> Result<T>) -> Result<T> {
        let moved = moving();
        if moved.is_ok() || matches!(self.root.stat(id.as_str()), Ok(None)) {
            self.index.write().remove(id);
        }
        moved
    }
}
