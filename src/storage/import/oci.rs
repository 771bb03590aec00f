// SPDX-License-Identifier: MulanPSL-2.0
//! OCI layouts and archives.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::reference;
use crate::spec::config::ImageConfig;
use crate::spec::descriptor::Descriptor;
use crate::spec::manifest::{Index, Manifest};
use crate::spec::oci_layout::{self, Blob, Kind};
use crate::spec::platform::Platform;

use super::plan::{self, PlannedImage, PlannedLayer};
use super::source::Source;

/// Indexes within indexes; builders write one.
const MAX_DEPTH: usize = 4;
/// Images of one archive.
const MAX_IMAGES: usize = 1000;

/// The manifests that were found, by digest, with the names that lead to them, in the order of the index.
#[derive(Default)]
struct Found {
    order: Vec<Blob>,
    names: BTreeMap<Digest, Vec<String>>,
    /// Platforms that were offered, for people.
    offered: Vec<String>,
}

/// Reads what the layout holds for this platform.
pub(super) fn plan(
    source: &Source,
    wanted: &Platform,
    warnings: &mut Vec<String>,
) -> Result<Vec<PlannedImage>> {
    oci_layout::check_layout(&source.document(oci_layout::LAYOUT)?)?;
    let mut found = Found::default();
    let index = Index::parse(&source.document(oci_layout::INDEX)?)?;
    found.collect(source, &index.manifests, None, wanted, MAX_DEPTH, warnings)?;
    if found.order.is_empty() {
        let message = if found.offered.is_empty() {
            "it holds no image".to_owned()
        } else {
            found.offered.sort();
            found.offered.dedup();
            format!("it holds no image for {wanted}, only for {}", found.offered.join(", "))
        };
        return Err(Error::new(ErrorKind::InvalidData, message));
    }
    let Found { order, mut names, .. } = found;
    order
        .iter()
        .map(|manifest| {
            let names = names.remove(&manifest.digest).unwrap_or_default();
            plan_image(source, manifest, names).during(|| format!("manifest {}", manifest.digest))
        })
        .collect()
}

impl Found {
    fn collect(
        &mut self,
        source: &Source,
        index: &[Descriptor],
        name: Option<&str>,
        wanted: &Platform,
        depth: usize,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        self.offered.extend(
            index
                .iter()
                .filter(|descriptor| Kind::of(descriptor) != Kind::Other)
                .filter_map(|descriptor| descriptor.platform.as_ref().map(Platform::to_string)),
        );
        for descriptor in oci_layout::choose(index, wanted) {
            let name = oci_layout::name(descriptor).or(name);
            if Kind::of(descriptor) == Kind::Index {
                if depth == 0 {
                    return Err(Error::new(ErrorKind::LimitExceeded, "indexes are nested too deep"));
                }
                let inner = read(source, &Blob::of(descriptor)?).and_then(|text| Index::parse(&text));
                let inner = inner.during(|| format!("index {}", descriptor.digest))?;
                self.collect(source, &inner.manifests, name, wanted, depth - 1, warnings)?;
            } else {
                self.take(descriptor, name, warnings)?;
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        descriptor: &Descriptor,
        name: Option<&str>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        if self.order.len() >= MAX_IMAGES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("it holds more than {MAX_IMAGES} images"),
            ));
        }
        let manifest = Blob::of(descriptor)?;
        let names = self.names.entry(manifest.digest).or_insert_with(|| {
            self.order.push(manifest);
            Vec::new()
        });
        match name {
            Some(name) if reference::is_valid_name(name) => names.push(name.to_owned()),
            Some(name) => warnings.push(format!("name {name:?} is not a valid image name and was left out")),
            None => {}
        }
        Ok(())
    }
}

fn plan_image(source: &Source, blob: &Blob, names: Vec<String>) -> Result<PlannedImage> {
    let text = read(source, blob)?;
    let manifest = Manifest::parse(&text)?;
    oci_layout::check_types(&manifest)?;
    let config_blob = Blob::of(&manifest.config)?;
    let config = read(source, &config_blob)?;
    let facts = ImageConfig::parse(&config)?;
    let diff_ids = plan::diff_ids(&facts, manifest.layers.len())?;
    let ids = plan::layer_ids(&diff_ids);
    let mut layers = Vec::with_capacity(ids.len());
    for ((id, diff_id), layer) in ids.into_iter().zip(&diff_ids).zip(&manifest.layers) {
        let layer = Blob::of(layer)?;
        let path = layer.path();
        let size = source.open_file(&path)?.size;
        check_size(&layer, size)?;
        layers.push(PlannedLayer { id, diff_id: *diff_id, blob: Some(layer.digest), path, size });
    }
    Ok(PlannedImage {
        id: ImageId::from(config_blob.digest),
        manifest: text,
        digest: blob.digest,
        created: plan::created(&facts)?,
        names,
        layers,
        config,
    })
}

fn check_size(blob: &Blob, size: u64) -> Result<()> {
    if size == blob.size {
        return Ok(());
    }
    let message = format!("blob {} has {size} bytes instead of {}", blob.digest, blob.size);
    Err(Error::new(ErrorKind::DigestMismatch, message))
}

/// Reads a document, with the size and the digest that were promised.
fn read(source: &Source, blob: &Blob) -> Result<Vec<u8>> {
    let text = source.document(&blob.path())?;
    check_size(blob, u64::try_from(text.len()).unwrap_or(u64::MAX))?;
    let digest = Digest::of(&text);
    if digest != blob.digest {
        return Err(Error::new(
            ErrorKind::DigestMismatch,
            format!("blob {} has digest {digest}", blob.digest),
        ));
    }
    Ok(text)
}
