// SPDX-License-Identifier: MulanPSL-2.0
//! What a start does once the stores are open.
//!
//! ```text
//! creations and deletions of containers that a crash interrupted    finished
//! images whose layers are not all there                             no longer listed, their files stay; reported
//! images without a size                                             the size is computed
//! content of image layers, if asked for                             compared, see `integrity`
//! what nothing uses, or what lacks something                        reported
//! ```
//!
//! Nothing is deleted but what carries its own mark: a disk that is missing today may come back tomorrow.
//!
//! Source: `storage_module_init` of iSulad, which deletes such images with their containers, and layers that nothing uses.

use std::collections::HashSet;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ImageId, LayerId};
use crate::layer::Problem;
use crate::record::image::ImageRecord;

use super::Storage;
use super::remove::layers_of_unlisted;

impl Storage {
    /// Puts right what can be put right and reports the rest. An error means that the stores themselves do not work.
    pub(super) fn start(&self, integration_check: bool) -> Result<()> {
        self.resume()?;
        self.hide_images_without_layers()?;
        self.compute_missing_sizes()?;
        if integration_check {
            self.check_integrity()?;
        }
        self.report_what_is_left()
    }

    /// Notes something for [`Storage::problems`], and in the log.
    pub(super) fn report(&self, subject: String, reason: String, quarantined: bool) {
        log::warn!("{subject}: {reason}");
        self.problems.write().push(Problem { subject, reason, quarantined });
    }

    fn resume(&self) -> Result<()> {
        for record in self.containers()?.unfinished() {
            let id = record.id.as_deref().unwrap_or_default();
            log::info!("container {id}: its creation or deletion was interrupted: deleting it");
            if let Err(error) = self.settle(&record) {
                let reason = format!("its interrupted change could not be finished: {}", error.report());
                self.report(format!("container {id}"), reason, false);
            }
        }
        Ok(())
    }

    fn hide_images_without_layers(&self) -> Result<()> {
        let images = self.images().list()?;
        let (mut whole, mut walked) = (HashSet::with_capacity(images.len() * 2), HashSet::new());
        let mut hidden = Vec::new();
        for image in images {
            walked.clear();
            if let Err(error) = self.follow(&image, &mut whole, &mut walked) {
                let id = ImageId::new(image.id.as_deref().unwrap_or_default())?;
                hidden.push((id, format!("it cannot be used: {}", error.report())));
            }
        }
        self.images().hide(hidden)
    }

    /// Walks down an image's layers to one that is known to stand on solid ground.
    fn follow(
        &self,
        image: &ImageRecord,
        whole: &mut HashSet<LayerId>,
        walked: &mut HashSet<LayerId>,
    ) -> Result<()> {
        let top = image.layer.as_deref().ok_or_else(|| Error::not_found("it has no layer"))?;
        let mut next = Some(LayerId::new(top)?);
        while let Some(id) = next.take_if(|id| !whole.contains(id)) {
            let parent = self.layers().parent(&id);
            let parent = parent.ok_or_else(|| Error::not_found(format!("its layer {id} is missing")))?;
            if !walked.insert(id.clone()) {
                return Err(Error::corrupt(format!("its layer {id} stands on itself")));
            }
            next = parent;
        }
        whole.extend(walked.drain());
        Ok(())
    }

    /// Images of interrupted creations, mostly; one whose size cannot be had is listed without.
    fn compute_missing_sizes(&self) -> Result<()> {
        for image in self.images().list()? {
            let id = image.id.as_deref().unwrap_or_default();
            if image.size == 0
                && let Err(error) = self.refresh_size(id)
            {
                log::warn!("{}", error.report());
            }
        }
        Ok(())
    }

    fn report_what_is_left(&self) -> Result<()> {
        for Problem { subject, reason, quarantined } in self.loose_ends()? {
            self.report(subject, reason, quarantined);
        }
        Ok(())
    }

    /// What nothing uses, and containers that lack something.
    pub(super) fn loose_ends(&self) -> Result<Vec<Problem>> {
        let mut found = Vec::new();
        let mut report =
            |subject, reason: String| found.push(Problem { subject, reason, quarantined: false });
        let containers = match self.containers() {
            Ok(containers) => containers.list()?,
            Err(_) => Vec::new(),
        };
        let mut owned: HashSet<&str> = HashSet::new();
        for record in &containers {
            let subject = || format!("container {}", record.id.as_deref().unwrap_or_default());
            let layer = record.layer.as_deref().unwrap_or_default();
            owned.insert(layer);
            if self.layers().find(layer).is_none_or(|found| found.id.as_str() != layer) {
                report(subject(), format!("its layer {layer} is missing"));
            }
            if let Some(image) = record.image.as_deref().filter(|image| !self.is_listed(image)) {
                report(subject(), format!("its image {image} is not listed"));
            }
        }
        let unlisted = layers_of_unlisted(self)?;
        for (id, writable) in self.layers().topmost() {
            if owned.contains(id.as_str()) {
                continue;
            }
            if writable {
                let reason = "it is writable, but no container has it: it was left alone";
                report(format!("layer {id}"), reason.to_owned());
            } else if !self.images().is_top_layer(id.as_str())? && !unlisted.layers.contains_key(&id) {
                let reason = "no image, container or layer uses it: it was left alone";
                report(format!("layer {id}"), reason.to_owned());
            }
        }
        Ok(found)
    }

    fn is_listed(&self, image: &str) -> bool {
        let found = self.images().lookup(image);
        !found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}
