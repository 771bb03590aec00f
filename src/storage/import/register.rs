// SPDX-License-Identifier: MulanPSL-2.0
//! From a planned image to layers and a record.

use std::io::Read;

use crate::digest::Digest;
use crate::driver::Verdict;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::image::CreateImage;
use crate::layer::{CreateLayer, Created, Layer};
use crate::storage::{MANIFEST_KEY, Storage, config_key};
use crate::time::Timestamp;

use super::plan::{PlannedImage, PlannedLayer};
use super::source::Source;
use super::{ImportedImage, ImportedLayer, Progress, Watch, layers};

/// Layers that this import holds; dropped: released, and unless an image uses them, what was made is deleted again.
pub(in crate::storage) struct Held<'a> {
    storage: &'a Storage,
    layers: Vec<ImportedLayer>,
    used: bool,
}

impl<'a> Held<'a> {
    pub(in crate::storage) fn new(storage: &'a Storage) -> Self {
        Held { storage, layers: Vec::new(), used: false }
    }

    /// Takes over a layer that was made or held.
    pub(in crate::storage) fn add(&mut self, layer: &PlannedLayer, existed: bool) {
        self.layers.push(ImportedLayer { id: layer.id.clone(), existed, size: layer.size });
    }

    /// An image uses them now.
    pub(in crate::storage) fn used(&mut self) {
        self.used = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for layer in self.layers.iter().rev() {
            if let Err(error) = self.storage.release(&layer.id) {
                log::warn!("release layer {}: {}", layer.id, error.report());
            }
            if layer.existed || self.used {
                continue;
            }
            if let Err(error) = self.storage.take_back_layer(&layer.id) {
                log::warn!("take back layer {}: {}", layer.id, error.report());
            }
        }
    }
}

impl Storage {
    /// Makes the layers and the record of one image, or completes an image that is there already.
    pub(super) fn register(
        &self,
        source: &Source,
        image: &PlannedImage,
        watch: &mut Watch<'_>,
    ) -> Result<ImportedImage> {
        let mut held = Held::new(self);
        let doing = |at: usize, path: &str| format!("layer {} of {} ({path})", at + 1, image.layers.len());
        layers::make(self, source, image, watch, |watch, at, outcome| {
            let layer = image.layers.get(at).ok_or_else(|| Error::corrupt("more layers than planned"))?;
            let existed = outcome.during(|| doing(at, &layer.path))?;
            held.add(layer, existed);
            watch.tell(&Progress::LayerDone { id: layer.id.clone(), existed })
        })?;
        let existed = self.register_image(image)?;
        held.used();
        Ok(ImportedImage {
            id: image.id.clone(),
            names: image.names.clone(),
            existed,
            layers: held.layers.clone(),
        })
    }

    /// Makes one layer, or holds the one that is there: `true`.
    pub(in crate::storage) fn register_layer(
        &self,
        layer: &PlannedLayer,
        parent: Option<LayerId>,
        heal: bool,
        content: &mut (dyn Read + Send),
    ) -> Result<bool> {
        let create = CreateLayer {
            parent,
            compressed_digest: layer.blob.map(|blob| blob.to_string()),
            find_compressed_digest: true,
            uncompressed_digest: Some(layer.diff_id.to_string()),
            ..CreateLayer::default()
        };
        if heal && self.layers().find(layer.id.as_str()).is_some() {
            // Whatever is wrong, the creation reads the archive then.
            match self.layers().check_closely(layer.id.as_str()) {
                Ok(Verdict::Valid) => {}
                Ok(Verdict::Differs(place)) => {
                    log::warn!("layer {}: it differs from its archive: {place}", layer.id)
                }
                Err(error) => log::warn!("{}", error.report()),
            }
        }
        match self.layers().create(&layer.id, &create, Some(content))? {
            Created::New(_) => Ok(false),
            Created::Existing(id) => {
                let same = self.layers().find(id.as_str()).is_some_and(|held| is_same(&held, layer, &create));
                if same {
                    return Ok(true);
                }
                self.release(&id)?;
                Err(Error::corrupt(format!(
                    "layer {id} of the store has another content or parent than its id says"
                )))
            }
        }
    }

    /// Returns whether the image was there before.
    pub(in crate::storage) fn register_image(&self, image: &PlannedImage) -> Result<bool> {
        let _ties = self.ties.lock();
        let id = image.id.as_str();
        let top = image.layers.last().map(|layer| layer.id.to_string());
        let create = CreateImage {
            id: Some(image.id.clone()),
            layer: top.clone(),
            created: Some(image.created),
            digest: Some(image.digest.to_string()),
            ..CreateImage::default()
        };
        let existed = match self.create_image_tied(&create) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => true,
            Err(error) => return Err(error),
        };
        if existed {
            let held = self.images().top_layer(id)?;
            if held != top {
                let message =
                    format!("image {id} exists with another top layer: {}", held.unwrap_or_default());
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
        }
        let completed = self.complete_image(image, existed);
        if completed.is_err()
            && !existed
            && let Err(error) = self.images().delete(id)
        {
            log::warn!("take back image {id}: {}", error.report());
        }
        completed.map(|()| existed)
    }

    fn complete_image(&self, image: &PlannedImage, existed: bool) -> Result<()> {
        let id = image.id.as_str();
        let images = self.images();
        let config_key = config_key(&image.id);
        let mut changed = !existed;
        // What the file holds counts, not what the record says of it.
        if images.big_data(id, &config_key).ok().as_ref() != Some(&image.config) {
            images.set_big_data(id, &config_key, &image.config)?;
            changed = true;
        }
        // A manifest that is there stays: another archive may have brought the image with another one.
        let manifest = images.big_data(id, MANIFEST_KEY).ok().map(|held| Digest::of(&held).to_string());
        if manifest.is_none() || manifest != images.big_data_digest(id, MANIFEST_KEY).ok() {
            images.set_big_data(id, MANIFEST_KEY, &image.manifest)?;
            changed = true;
        }
        images.set_loaded(id, Timestamp::now())?;
        if changed || images.get(id)?.size == 0 {
            self.refresh_size(id)?;
        }
        // All at once: a name that moves is either moved or still where it was.
        let held = images.names(id)?;
        let new = image.names.iter().filter(|name| !held.contains(name));
        let names: Vec<String> = held.iter().chain(new).cloned().collect();
        if names.len() > held.len() { images.set_names(id, &names) } else { Ok(()) }
    }
}

/// An existing layer stands for the one of the archive only if it is the same by its record.
fn is_same(existing: &Layer, planned: &PlannedLayer, create: &CreateLayer) -> bool {
    existing.parent == create.parent
        && existing.uncompressed_digest.as_deref() == Some(planned.diff_id.to_string().as_str())
        && !existing.writable
}
