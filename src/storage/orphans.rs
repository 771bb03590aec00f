// SPDX-License-Identifier: MulanPSL-2.0
//! Image layers that nothing uses any more: what is left when a removal or an import is killed.
//!
//! They are reported and left alone until somebody asks for their removal. Writable layers are not among them, whatever has
//! them: they are somebody's work.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::layer::Layer;

use super::Storage;
use super::remove::layers_of_unlisted;

/// What to do where there are layers but no image at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutImages {
    /// Nothing is an orphan there: the images may be missing.
    Refuse,
    /// All layers are orphans there: somebody knows that there are no images any more.
    Allow,
}

impl Storage {
    /// Image layers that no image, container, layer, mount or hold reference uses, nor anything in quarantine or left in place
    /// unlisted; each before those below it that only it uses. Beside a process that makes an image, the layers of that are
    /// among them.
    ///
    /// `Corrupt` while there is an image that is kept, put aside or not, of which nobody can read which layers it has; and
    /// while there are layers but no image at all, which is what a store looks like whose images are somewhere else.
    pub fn orphans(&self) -> Result<Vec<LayerId>> {
        self.orphans_with(WithoutImages::Refuse)
    }

    /// The same, also in a storage without images if asked for.
    pub fn orphans_with(&self, without_images: WithoutImages) -> Result<Vec<LayerId>> {
        let layers: HashMap<LayerId, Layer> =
            self.layers().list().into_iter().map(|layer| (layer.id.clone(), layer)).collect();
        let mut children: HashMap<&LayerId, usize> = HashMap::new();
        for parent in layers.values().filter_map(|layer| layer.parent.as_ref()) {
            *children.entry(parent).or_default() += 1;
        }
        let unlisted = layers_of_unlisted(self)?;
        if let Some(image) = &unlisted.unknown {
            let what =
                "is kept but cannot be read, so its layers may be any: mend, restore or purge it first";
            return Err(Error::corrupt(format!("image {image} {what}")));
        }
        let owned = self.layers_of_containers()?;
        let mut found = Vec::new();
        for (top, _) in self.layers().topmost() {
            let mut next = layers.get(&top);
            while let Some(layer) = next {
                let id = &layer.id;
                if children.get(id).is_some_and(|count| *count > 0)
                    || layer.writable
                    || layer.mount_count > 0
                    || owned.contains(id.as_str())
                    || unlisted.layers.contains_key(id)
                    || self.layers().is_kept(id)
                    || self.layers().check_unshared(id).is_err()
                    || self.layers().hold_count(id)? > 0
                    || self.images().is_top_layer(id.as_str())?
                    || self.layers().driver().is_mounted(id)?
                {
                    break;
                }
                found.push(id.clone());
                next = layer.parent.as_ref().and_then(|parent| {
                    let count = children.get_mut(parent)?;
                    *count -= 1;
                    layers.get(parent)
                });
            }
        }
        if !found.is_empty() && without_images == WithoutImages::Refuse && self.has_no_image()? {
            let what = format!(
                "{} layers would be orphans because there is no image at all: if the directory of the images was moved \
                 away or is not mounted, bring it back first",
                found.len()
            );
            return Err(Error::corrupt(what));
        }
        Ok(found)
    }

    fn has_no_image(&self) -> Result<bool> {
        Ok(self.images().list()?.is_empty() && self.images().unlisted()?.is_empty())
    }

    /// Deletes [`Storage::orphans`]; returns what is gone. Each is looked at once more: what is used by now stays.
    pub fn remove_orphans(&self) -> Result<Vec<LayerId>> {
        self.remove_orphans_with(WithoutImages::Refuse)
    }

    /// The same, also in a storage without images if asked for.
    pub fn remove_orphans_with(&self, without_images: WithoutImages) -> Result<Vec<LayerId>> {
        self.require_writable()?;
        let mut gone = Vec::new();
        for id in self.orphans_with(without_images)? {
            if self.delete_layer_if_unused(&id)? {
                log::info!("layer {id}: nothing used it: removed");
                gone.push(id);
            }
        }
        Ok(gone)
    }

    fn layers_of_containers(&self) -> Result<HashSet<String>> {
        let containers = match self.containers() {
            Ok(containers) => containers.list()?,
            Err(_) => Vec::new(),
        };
        Ok(containers.into_iter().filter_map(|record| record.layer.clone()).collect())
    }
}
