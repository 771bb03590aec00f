// SPDX-License-Identifier: MulanPSL-2.0
//! Containers: a record, and a writable layer on top of the image's.
//!
//! | | record | layer | record | crash in between |
//! |---|---|---|---|---|
//! | creation | staged | made | published | the next start deletes the layer and forgets the record |
//! | deletion | taken out of the lists | deleted | forgotten | the next start goes on where it stopped |
//!
//! A layer that was there before is never deleted by a creation, whatever becomes of it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::driver::Metadata;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{ContainerId, LayerId};
use crate::layer::{CreateLayer, Created, Layer};
use crate::persist::Quarantined;
use crate::record::rootfs::RootfsRecord;
use crate::rootfs::{CreateRootfs, RootfsStore};
use crate::units::Usage;

use super::Storage;

/// What a new container is to be.
#[derive(Debug, Clone)]
pub struct CreateContainer {
    /// Its id, and that of its layer.
    pub id: ContainerId,
    /// Its image, by any name that a person may use.
    pub image: String,
    /// SELinux label.
    pub mount_label: Option<String>,
    /// Storage options, such as `size`.
    pub storage_options: Vec<(String, String)>,
}

/// Containers that come or go at the moment, each with its image: they use it though no record says so.
#[derive(Debug, Default)]
pub(super) struct InTransit(Vec<(ContainerId, String)>);

impl InTransit {
    pub(super) fn user_of(&self, image: &str) -> Option<&ContainerId> {
        self.0.iter().find(|(_, used)| used == image).map(|(container, _)| container)
    }
}

/// Keeps a container among those in transit.
pub(super) struct Passage<'a> {
    storage: &'a Storage,
    entry: (ContainerId, String),
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let mut ties = self.storage.ties.lock();
        if let Some(at) = ties.0.iter().position(|entry| *entry == self.entry) {
            ties.0.swap_remove(at);
        }
    }
}

impl Storage {
    /// The store of containers; `NotFound` if the storage was opened for reading only and never had one.
    pub fn containers(&self) -> Result<&Arc<RootfsStore>> {
        self.containers.as_ref().ok_or_else(|| Error::not_found("this storage has no containers"))
    }

    /// Keeps the image of a container in use, whatever becomes of the container.
    pub(super) fn in_transit(&self, container: &ContainerId, image: &str) -> Passage<'_> {
        let entry = (container.clone(), image.to_owned());
        self.ties.lock().0.push(entry.clone());
        Passage { storage: self, entry }
    }

    /// Makes a container with its layer; returns where that is or would be mounted.
    ///
    /// A writable layer of this id on the right parent that belongs to no container becomes this one's, with its content.
    /// Errors: `NotFound` for the image; `AlreadyExists` for a container or another layer of this id: nothing is touched;
    /// what the driver says. Nothing of it remains after an error.
    pub fn create_container(&self, container: &CreateContainer) -> Result<Option<PathBuf>> {
        self.require_writable()?;
        self.make_container(container).during(|| format!("create container {}", container.id))
    }

    fn make_container(&self, container: &CreateContainer) -> Result<Option<PathBuf>> {
        let containers = self.containers()?;
        let (image, top, _passage) = {
            let mut ties = self.ties.lock();
            let image = self.find_image(&container.image)?;
            let top = self.images().top_layer(image.as_str())?;
            let entry = (container.id.clone(), image.to_string());
            ties.0.push(entry.clone());
            (image, top, Passage { storage: self, entry })
        };
        let parent = top.as_deref().map(LayerId::new).transpose()?;
        let layer = LayerId::new(container.id.as_str())?;
        let record = CreateRootfs {
            id: Some(container.id.clone()),
            image: Some(image.to_string()),
            layer: layer.to_string(),
            ..CreateRootfs::default()
        };
        self.try_settle(&container.id);
        if let Some(existing) = self.layers().find(layer.as_str()) {
            adoptable(&existing, &layer, parent.as_ref())?;
            containers.create(&record)?;
            log::warn!("container {}: a layer of its id was there and is its own now", container.id);
            return Ok(existing.mount_point);
        }
        let staged = containers.begin(&record, |_| match self.layers().find(layer.as_str()) {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::AlreadyExists, format!("layer {layer} exists"))),
        })?;
        let create = CreateLayer {
            parent,
            writable: true,
            mount_label: container.mount_label.clone(),
            storage_options: container.storage_options.clone(),
            ..CreateLayer::default()
        };
        if let Created::Existing(existing) = self.layers().create(&layer, &create, None)? {
            // Made by somebody else since: it is not ours to delete.
            self.layers().release(&existing)?;
            return Err(Error::new(ErrorKind::AlreadyExists, format!("layer {existing} exists")));
        }
        match staged.publish() {
            Ok(_) => Ok(self.layers().find(layer.as_str()).and_then(|layer| layer.mount_point)),
            Err(error) => {
                self.take_back(&container.id, &layer);
                Err(error)
            }
        }
    }

    /// Of a container whose record could not be made: its layer, and its record where it was made all the same.
    fn take_back(&self, id: &ContainerId, layer: &LayerId) {
        let taken = match self.containers().map(|containers| containers.exists(id.as_str())) {
            Ok(true) => self.remove_container(id.as_str()).map(|_| ()),
            _ => self.layers().delete(layer.as_str()),
        };
        if let Err(error) = taken {
            log::warn!("take back container {id}: {}", error.report());
        }
    }

    /// Deletes a container, by any name that its store knows, with its layer; unmounts it first. Unknown is fine
    /// (`false`). Still busy: `InUse`, nothing changed.
    pub fn delete_container(&self, any: &str) -> Result<bool> {
        self.require_writable()?;
        self.remove_container(any).during(|| format!("delete container {any}"))
    }

    fn remove_container(&self, any: &str) -> Result<bool> {
        let containers = self.containers()?;
        let Some(record) = self.known(any)? else { return Ok(false) };
        let id = ContainerId::new(record.id.as_deref().unwrap_or_default())?;
        let _passage = record.image.as_ref().map(|image| {
            let entry = (id.clone(), image.clone());
            self.ties.lock().0.push(entry.clone());
            Passage { storage: self, entry }
        });
        let Some(removal) = containers.begin_removal(id.as_str())? else { return Ok(false) };
        if let Some(layer) = removal.layer()
            && let Err(error) = self.delete_writable(layer)
        {
            if let Err(also) = removal.undo() {
                log::error!("{}", also.report());
            }
            return Err(error);
        }
        if let Err(error) = removal.finish() {
            log::warn!("{}; the next start forgets it", error.report());
        }
        Ok(true)
    }

    /// Deletes the layer of a container that is going. Only a writable layer can be that, whatever a record says.
    fn delete_writable(&self, layer: &str) -> Result<()> {
        match self.layers().find(layer).filter(|found| found.id.as_str() == layer) {
            // A store that was closed meanwhile finds nothing either.
            None => match LayerId::new(layer).and_then(|id| self.layers().hold_count(&id)) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Some(found) if found.writable => self.layers().delete(layer),
            Some(_) => {
                log::warn!("layer {layer} is no container's own, though a record says so: it stays");
                Ok(())
            }
        }
    }

    /// Finishes what a crash interrupted: the layer first, then the record.
    pub(super) fn settle(&self, record: &RootfsRecord) -> Result<()> {
        let containers = self.containers()?;
        let id = ContainerId::new(record.id.as_deref().unwrap_or_default())?;
        if let Some(layer) = &record.layer {
            let owner = containers.list()?.into_iter().find(|other| other.layer.as_ref() == Some(layer));
            match owner {
                Some(owner) => {
                    let owner = owner.id.as_deref().unwrap_or_default();
                    log::warn!(
                        "layer {layer} of an interrupted change belongs to container {owner}: it stays"
                    );
                }
                None => self.delete_writable(layer)?,
            }
        }
        containers.settled(&id)
    }

    /// The same for one container that is wanted again.
    fn try_settle(&self, id: &ContainerId) {
        let unfinished = self.containers().map(|containers| containers.unfinished()).unwrap_or_default();
        let of_this = unfinished.iter().filter(|record| record.id.as_deref() == Some(id.as_str()));
        for error in of_this.filter_map(|record| self.settle(record).err()) {
            log::warn!("finish the interrupted change of container {id}: {}", error.report());
        }
    }

    /// Mounts a container's layer, by any name, counting. Unknown: `NotFound`.
    pub fn mount_container(&self, any: &str) -> Result<PathBuf> {
        self.layers().mount(self.layer_of(any)?.as_str())
    }

    /// Drops one mount of a container's layer, or all with `force`; unknown or not mounted is fine.
    pub fn unmount_container(&self, any: &str, force: bool) -> Result<()> {
        match self.layer_of(any) {
            Ok(layer) => self.layers().unmount(layer.as_str(), force),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a container's layer itself holds, and the directory that was counted; its layer is not there: `None`. Unknown:
    /// `NotFound`.
    pub fn container_usage(&self, any: &str) -> Result<Option<(PathBuf, Usage)>> {
        self.layers().usage(&self.layer_of(any)?)
    }

    /// Where a container's content is. Unknown, or its layer is not there: `NotFound`.
    pub fn container_metadata(&self, any: &str) -> Result<Metadata> {
        self.layers().metadata(&self.layer_of(any)?)
    }

    /// Puts a container's layer aside whose record is broken: nothing is deleted, it can be restored. By id; unknown:
    /// `NotFound`; not writable: `InvalidArgument`; a container has it, or it is busy: `InUse`.
    pub fn quarantine_broken_layer(&self, id: &str) -> Result<Vec<Quarantined>> {
        let doing = || format!("put the layer of broken container {id} aside");
        let layer = self.layers().find(id).filter(|layer| layer.id.as_str() == id);
        let layer = layer.ok_or_else(|| Error::not_found("no such layer")).during(doing)?;
        if !layer.writable {
            return Err(Error::invalid("it is no container's layer").context(doing()));
        }
        let owner = self.containers()?.list()?.into_iter().find(|record| record.layer.as_deref() == Some(id));
        if let Some(owner) = owner {
            let message = format!("it belongs to container {}", owner.id.as_deref().unwrap_or_default());
            return Err(Error::new(ErrorKind::InUse, message).context(doing()));
        }
        self.layers().quarantine(id, "the record of its container is broken")
    }

    /// The record of any such name; unknown: `None`.
    fn known(&self, any: &str) -> Result<Option<Arc<RootfsRecord>>> {
        match self.containers()?.get(any) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn layer_of(&self, any: &str) -> Result<LayerId> {
        let record = self.containers()?.get(any)?;
        let layer = record.layer.as_deref();
        LayerId::new(layer.ok_or_else(|| Error::not_found(format!("container {any} has no layer")))?)
    }
}

/// Whether a layer that exists may be the one of a new container.
fn adoptable(existing: &Layer, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
    let reason = if existing.id != *id {
        "by this name"
    } else if !existing.writable {
        "that is an image's"
    } else if existing.parent.as_ref() != parent {
        "on another parent"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::AlreadyExists, format!("a layer {reason} exists: {}", existing.id)))
}
