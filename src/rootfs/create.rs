// SPDX-License-Identifier: MulanPSL-2.0
//! Making records.
//!
//! ```text
//! id, layer and names claimed, compared with what is there
//! making/<id> or creating/<id>: directory, record         durable
//!     ◄── begin returns; the caller makes the layer
//! what lies unlisted in the place of the new record       put aside
//! directory moved to its place                            durable: the container exists
//! memory
//! ```

use std::sync::Arc;

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{ContainerId, LayerId};
use crate::record::rootfs::RootfsRecord;
use crate::sys::fs::{Dir, random_hex};
use crate::time::Timestamp;

use super::claims::Claim;
use super::disk::{CREATING, MAKING, REMOVING};
use super::{CreateRootfs, RootfsStore};

/// Digits of a random id.
const ID_LEN: usize = 64;

/// A container that is being created. Dropped unpublished: its record is taken back, as if it had never been asked for.
#[derive(Debug)]
#[must_use = "the container is made by `publish` only"]
pub struct Staged<'a> {
    store: &'a RootfsStore,
    id: ContainerId,
    record: Arc<RootfsRecord>,
    place: Dir,
    published: bool,
    _claim: Claim<'a>,
}

impl Staged<'_> {
    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Its record.
    pub fn record(&self) -> &RootfsRecord {
        &self.record
    }

    /// Makes it one of the store's containers, durably. After an error it is not one, and its layer is to be deleted.
    pub fn publish(mut self) -> Result<ContainerId> {
        let doing = format!("create container {}", self.id);
        self.store.publish(&self.id, &self.record, &self.place).during(|| doing)?;
        self.published = true;
        Ok(self.id.clone())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = self.store.discard_from(&self.place, &self.id)
        {
            // The next creation of this id, or the next start, takes it away.
            log::warn!("container {}: take back its creation: {}", self.id, error.report());
        }
    }
}

pub(super) fn create(store: &RootfsStore, rootfs: &CreateRootfs) -> Result<ContainerId> {
    stage(store, rootfs, MAKING, |_| Ok(()))?.publish()
}

pub(super) fn begin<'a>(
    store: &'a RootfsStore,
    rootfs: &CreateRootfs,
    vacant: impl FnOnce(&str) -> Result<()>,
) -> Result<Staged<'a>> {
    stage(store, rootfs, CREATING, vacant)
}

fn stage<'a>(
    store: &'a RootfsStore,
    rootfs: &CreateRootfs,
    part: &'static str,
    vacant: impl FnOnce(&str) -> Result<()>,
) -> Result<Staged<'a>> {
    store.writable()?;
    let id = match &rootfs.id {
        Some(id) => id.clone(),
        None => ContainerId::new(&random_hex(ID_LEN)?)?,
    };
    let doing = || format!("create container {id}");
    let record = new_record(&id, rootfs).during(doing)?;
    stage_record(store, id.clone(), record, part, vacant).during(doing)
}

/// The same for a record that is given.
pub(super) fn stage_record<'a>(
    store: &'a RootfsStore,
    id: ContainerId,
    record: RootfsRecord,
    part: &'static str,
    vacant: impl FnOnce(&str) -> Result<()>,
) -> Result<Staged<'a>> {
    let claim = store.claims.take_all(&record)?;
    store.check_free(&id, &record)?;
    vacant(record.layer.as_deref().unwrap_or_default())?;
    // Of attempts that could not be taken back, or of a deletion that is done but for this.
    for part in [MAKING, CREATING, REMOVING] {
        store.discard_from(&store.part(part)?, &id)?;
    }
    let place = store.part(part)?;
    let staged = Staged { store, id, record: Arc::new(record), place, published: false, _claim: claim };
    store.write_new(&staged.place, &staged.id, &staged.record)?;
    Ok(staged)
}

fn new_record(id: &ContainerId, rootfs: &CreateRootfs) -> Result<RootfsRecord> {
    LayerId::new(&rootfs.layer)?;
    let mut names = rootfs.names.clone();
    names.sort_unstable();
    names.dedup();
    let record = RootfsRecord {
        id: Some(id.to_string()),
        names,
        image: rootfs.image.clone(),
        layer: Some(rootfs.layer.clone()),
        metadata: rootfs.metadata.clone(),
        created: Timestamp::now().to_local_text(),
        uid_map: rootfs.uid_map.clone(),
        gid_map: rootfs.gid_map.clone(),
    };
    check_texts(&record)?;
    Ok(record)
}

/// Text in records ends at a NUL when it is read again.
pub(super) fn check_texts(record: &RootfsRecord) -> Result<()> {
    let texts = [
        ("image", &record.image),
        ("metadata", &record.metadata),
        ("layer", &record.layer),
        ("created", &record.created),
    ];
    let named = texts.iter().filter_map(|(what, text)| Some((*what, text.as_deref()?)));
    let names = record.names.iter().map(|name| ("name", name.as_str()));
    match named.chain(names).find(|(_, text)| text.contains('\0')) {
        Some((what, _)) => Err(Error::invalid(format!("{what} contains a NUL byte"))),
        None => Ok(()),
    }
}

impl RootfsStore {
    /// Whether nothing of a record belongs to another container, and no container has its id.
    pub(super) fn check_free(&self, id: &ContainerId, record: &RootfsRecord) -> Result<()> {
        let taken = |message: String| Err(Error::new(ErrorKind::AlreadyExists, message));
        let index = self.index.read();
        if index.get(id.as_str()).is_some() {
            return taken("it exists already".to_owned());
        }
        check_belongings(&index, id, record)?;
        drop(index);
        let layer = record.layer.as_deref();
        if let Some(unfinished) = self.unfinished.read().iter().find(|unfinished| {
            unfinished.id == *id || (layer.is_some() && unfinished.record.layer.as_deref() == layer)
        }) {
            let message = format!("an interrupted change of container {} is not finished", unfinished.id);
            return Err(Error::new(ErrorKind::InUse, message));
        }
        Ok(())
    }

    fn publish(&self, id: &ContainerId, record: &Arc<RootfsRecord>, place: &Dir) -> Result<()> {
        if self.root.stat(id.as_str())?.is_some() {
            let reason = "it was in the way of a new container of this id, and was not listed itself";
            self.state.quarantine(&self.root, id.as_str(), reason)?;
            log::warn!("container {id}: a record that was not listed was put aside");
        }
        match self.move_record(id, place, &self.root) {
            Ok(()) => {
                self.index.write().put(id.clone(), Arc::clone(record));
                Ok(())
            }
            Err((error, is_back)) => {
                if !is_back {
                    // Memory follows the disk: so it can be deleted.
                    self.index.write().put(id.clone(), Arc::clone(record));
                }
                Err(error)
            }
        }
    }
}

/// Whether layer and names of a record are free, or this container's own.
pub(super) fn check_belongings(
    index: &super::index::Index,
    id: &ContainerId,
    record: &RootfsRecord,
) -> Result<()> {
    let layer = record.layer.iter().map(|layer| ("layer", layer, index.holder_of_layer(layer)));
    let names = record.names.iter().map(|name| ("name", name, index.holder_of_name(name)));
    for (what, text, holder) in layer.chain(names) {
        if let Some(holder) = holder.filter(|holder| *holder != id) {
            let message = format!("{what} {text} belongs to container {holder}");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
    }
    Ok(())
}
