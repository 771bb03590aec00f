// SPDX-License-Identifier: MulanPSL-2.0
//! Removal of images and of the layers that nobody uses any more.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{ImageId, LayerId};

use super::Storage;
use super::containers::InTransit;
use super::import::layer_ids;

/// What [`Storage::remove_image`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The image that was meant.
    pub image: ImageId,
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Whether the image itself is gone.
    pub deleted: bool,
    /// Layers that are gone, top first.
    pub layers: Vec<LayerId>,
}

impl Storage {
    /// Removes a name, and the image with it when that was its last name or the image was named by its id: the record
    /// first, then its layers from the top down, as far as no other image, layer or hold uses them. Beside an image that is
    /// kept but cannot be read all layers stay, for they may be that one's: they are reported, and
    /// [`Storage::remove_orphans`] removes them once it is mended or purged.
    ///
    /// Errors: `NotFound`; `InUse` when a container was made from the image, or it is mounted.
    pub fn remove_image(&self, name: &str) -> Result<Removal> {
        let ties = self.ties.lock();
        let (image, by_id) = self.resolve_image(name)?;
        let record = self.images().get(image.as_str())?;
        let asked = self.normalize(name)?;
        if !by_id && record.names.len() > 1 {
            let rest: Vec<String> = record.names.iter().filter(|name| **name != asked).cloned().collect();
            if rest.len() == record.names.len() {
                let message = format!(
                    "{name} means image {image}, which has several names: give one of them, or its id"
                );
                return Err(Error::invalid(message));
            }
            self.images().set_names(image.as_str(), &rest)?;
            return Ok(Removal { image, untagged: vec![asked], deleted: false, layers: Vec::new() });
        }
        let top = record.layer.as_deref().map(LayerId::new).transpose()?;
        self.refuse_if_used(&image, &ties)?;
        if let Some(top) = &top {
            self.refuse_if_in_use(&image, top)?;
        }
        self.images().delete(image.as_str())?;
        drop(ties);
        let layers = match top {
            Some(top) => {
                self.delete_unused_chain(&top).during(|| format!("remove the layers of image {image}"))?
            }
            None => Vec::new(),
        };
        Ok(Removal { image, untagged: record.names.clone(), deleted: true, layers })
    }

    /// A container was made from the image, or is just being made or deleted.
    fn refuse_if_used(&self, image: &ImageId, ties: &InTransit) -> Result<()> {
        let mut user = ties.user_of(image.as_str()).map(ToString::to_string);
        if let Ok(containers) = self.containers() {
            let recorded =
                containers.list()?.into_iter().find(|record| record.image.as_deref() == Some(image.as_str()));
            user = recorded.and_then(|record| record.id.clone()).or(user);
        }
        let Some(user) = user else { return Ok(()) };
        let error = Error::new(ErrorKind::InUse, format!("image {image} is used by container {user}"));
        Err(error.for_people(format!("Image used by {user}")))
    }

    /// A container keeps its own layer on top of the image's; whoever mounted the image looks at its top layer.
    fn refuse_if_in_use(&self, image: &ImageId, top: &LayerId) -> Result<()> {
        let mounted = self.layers().find(top.as_str()).is_some_and(|layer| layer.mount_count > 0);
        if mounted && self.images_with_top(top)?.iter().all(|id| id == image.as_str()) {
            return Err(Error::new(ErrorKind::InUse, format!("image {image} is mounted: unmount it first")));
        }
        let container = self
            .layers()
            .list()
            .into_iter()
            .find(|layer| layer.writable && layer.parent.as_ref() == Some(top));
        match container {
            // Another image may have the same layers; then the container may be that one's.
            Some(container) if self.images_with_top(top)?.iter().all(|id| id == image.as_str()) => {
                let message = format!("image {image} is used by container {}", container.id);
                Err(Error::new(ErrorKind::InUse, message))
            }
            _ => Ok(()),
        }
    }

    fn images_with_top(&self, top: &LayerId) -> Result<Vec<String>> {
        let images = self.images().list()?;
        Ok(images
            .iter()
            .filter(|image| image.layer.as_deref() == Some(top.as_str()))
            .filter_map(|image| image.id.clone())
            .collect())
    }

    /// Deletes an image by any name that its store knows: the record first, then its layers from the top down, as far as
    /// no other image, layer or hold uses them. Unknown is fine (`false`).
    ///
    /// Errors: `InUse` when a container was made from the image, with the text that people see.
    pub fn delete_image(&self, any: &str) -> Result<bool> {
        self.require_writable()?;
        let top = {
            let ties = self.ties.lock();
            let record = match self.images().get(any) {
                Ok(record) => record,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            let id = ImageId::new(record.id.as_deref().unwrap_or_default())?;
            self.refuse_if_used(&id, &ties)?;
            self.images().delete(id.as_str())?;
            record.layer.clone()
        };
        match top.as_deref().map(LayerId::new).transpose() {
            Ok(Some(top)) => {
                self.delete_unused_chain(&top).during(|| format!("remove the layers of image {any}"))?;
            }
            Ok(None) => {}
            // It never had a layer of such an id.
            Err(error) => log::warn!("image {any}: its top layer: {}", error.report()),
        }
        Ok(true)
    }

    /// Deletes a layer and those it stands on, from the top down, until one that is still used; returns what is gone. What
    /// it looks at grows with the chain, not with the store.
    pub fn delete_unused_chain(&self, top: &LayerId) -> Result<Vec<LayerId>> {
        let mut gone = Vec::new();
        let mut unlisted = Unlisted::default();
        let mut next = Some(top.clone());
        while let Some(id) = next {
            let Some(layer) = self.layers().find(id.as_str()) else { break };
            if !self.delete_if_unused(&id, &mut unlisted)? {
                break;
            }
            next = layer.parent;
            gone.push(id);
        }
        Ok(gone)
    }

    /// Drops a hold reference. The image that the layer was held for is on disk by now, or will never be.
    pub fn release(&self, id: &LayerId) -> Result<()> {
        let _ties = self.ties.lock();
        self.layers().release(id)
    }

    /// Deletes a layer that no image, container, layer or hold uses; returns whether it did. Unknown is fine.
    pub fn delete_layer_if_unused(&self, id: &LayerId) -> Result<bool> {
        self.delete_if_unused(id, &mut Unlisted::default())
    }

    /// The same with a layer that was just made and is wanted no more: an image that cannot be read had to do without it
    /// before as well.
    pub(super) fn take_back_layer(&self, id: &LayerId) -> Result<bool> {
        self.delete_if_unused(id, &mut Unlisted { takes_back: true, ..Unlisted::default() })
    }

    fn is_a_containers(&self, id: &LayerId) -> bool {
        let record = self.containers().and_then(|containers| containers.get(id.as_str()));
        record.is_ok_and(|record| record.layer.as_deref() == Some(id.as_str()))
    }

    fn delete_if_unused(&self, id: &LayerId, unlisted: &mut Unlisted) -> Result<bool> {
        let _ties = self.ties.lock();
        // In this order: an image that stops being listed in between has changed what is unlisted.
        if self.images().is_top_layer(id.as_str())? || unlisted.uses(self, id)? || self.is_a_containers(id) {
            return Ok(false);
        }
        match self.layers().delete_unheld(id) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::InUse | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Layers of images that are kept but not listed: they may come back. Looked up once, and again when it may have changed.
#[derive(Debug, Default)]
struct Unlisted {
    as_of: Option<u64>,
    layers: HashMap<LayerId, String>,
    /// One of which nobody can tell which layers it has: they may be any.
    unknown: Option<String>,
    takes_back: bool,
}

impl Unlisted {
    fn uses(&mut self, storage: &Storage, id: &LayerId) -> Result<bool> {
        let now = storage.images().removals();
        if self.as_of != Some(now) {
            let kept = layers_of_unlisted(storage)?;
            self.layers = kept.layers;
            self.unknown = kept.unknown.filter(|_| !self.takes_back);
            self.as_of = Some(now);
        }
        let image = self.layers.get(id).or(self.unknown.as_ref());
        if let Some(image) = image {
            log::info!("layer {id} is kept for image {image}, which is not listed");
        }
        Ok(image.is_some())
    }
}

/// What images use that are kept but not listed.
#[derive(Debug, Default)]
pub(super) struct KeptByUnlisted {
    /// Their layers, each with the id of one of those images.
    pub(super) layers: HashMap<LayerId, String>,
    /// One of which nothing tells all layers: it may have any.
    pub(super) unknown: Option<String>,
}

pub(super) fn layers_of_unlisted(storage: &Storage) -> Result<KeptByUnlisted> {
    let mut kept = KeptByUnlisted::default();
    for image in storage.images().unlisted()? {
        // The layers above one that cannot be read have other ids than could be told.
        let digests: Option<Vec<Digest>> =
            image.diff_ids.iter().map(|text| Digest::parse(text).ok()).collect();
        let diff_ids = digests.unwrap_or_default();
        let top = image.layer.as_deref().and_then(|layer| LayerId::new(layer).ok());
        // What is below a layer that is there its record tells.
        let is_known =
            !diff_ids.is_empty() || top.as_ref().is_some_and(|top| storage.layers().exists(top.as_str()));
        if !is_known {
            kept.unknown.get_or_insert_with(|| image.id.clone());
        }
        for layer in layer_ids(&diff_ids).into_iter().chain(top) {
            kept.layers.entry(layer).or_insert_with(|| image.id.clone());
        }
    }
    Ok(kept)
}
