// SPDX-License-Identifier: MulanPSL-2.0
//! Docker archives, taken as iSulad's load takes them.

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::reference;
use crate::spec::config::ImageConfig;
use crate::spec::docker_archive::{self, ArchiveImage};
use crate::spec::oci_layout::Blob;

use super::plan::{self, PlannedImage, PlannedLayer};
use super::source::{Opened, Source};

/// Reads what the archive holds.
pub(super) fn plan(source: &Source) -> Result<Vec<PlannedImage>> {
    let text = source.document(docker_archive::MANIFEST)?;
    // iSulad gives every image of the archive the digest of this file.
    let digest = Digest::of(&text);
    let images = docker_archive::parse_manifest(&text)?;
    let bad = images.iter().flat_map(|image| &image.repo_tags).find(|name| !reference::is_valid_name(name));
    if let Some(bad) = bad {
        let message = format!("the archive names an image {bad:?}, which is not a valid image name");
        return Err(Error::new(ErrorKind::InvalidData, message));
    }
    images.iter().map(|image| plan_image(source, image, digest).during(|| image.config.clone())).collect()
}

fn plan_image(source: &Source, image: &ArchiveImage, digest: Digest) -> Result<PlannedImage> {
    let config = source.document(&image.config)?;
    let config_digest = Digest::of(&config);
    let facts = ImageConfig::parse(&config)?;
    let diff_ids = plan::diff_ids(&facts, image.layers.len())?;
    let ids = plan::layer_ids(&diff_ids);
    let mut layers = Vec::with_capacity(ids.len());
    for ((id, diff_id), path) in ids.into_iter().zip(&diff_ids).zip(&image.layers) {
        let Opened { size, .. } = source.open_file(path)?;
        layers.push(PlannedLayer { id, diff_id: *diff_id, blob: None, path: path.clone(), size });
    }
    let blobs: Vec<Blob> =
        layers.iter().map(|layer| Blob { digest: layer.diff_id, size: layer.size }).collect();
    let size = u64::try_from(config.len()).unwrap_or(u64::MAX);
    Ok(PlannedImage {
        id: ImageId::from(config_digest),
        manifest: docker_archive::made_up_manifest(Blob { digest: config_digest, size }, &blobs)?,
        digest,
        created: plan::created(&facts)?,
        names: image.repo_tags.clone(),
        layers,
        config,
    })
}
