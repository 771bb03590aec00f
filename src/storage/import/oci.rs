// SPDX-License-Identifier: MulanPSL-2.0
//! OCI layouts and archives.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::reference;
use crate::spec::oci_layout::{self, Descriptor, Kind, Platform};

use super::plan::{self, PlannedImage, PlannedLayer};
use super::source::Source;

/// Indexes within indexes; builders write one.
const MAX_DEPTH: usize = 4;
/// Images of one archive.
const MAX_IMAGES: usize = 1000;

/// The manifests that were found, by digest, with the names that lead to them, in the order of the index.
#[derive(Default)]
struct Found {
    order: Vec<Descriptor>,
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
    let index = oci_layout::parse_index(&source.document(oci_layout::INDEX)?)?;
    found.collect(source, &index, None, wanted, MAX_DEPTH, warnings)?;
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
        .map(|descriptor| {
            let names = names.remove(&descriptor.digest).unwrap_or_default();
            plan_image(source, descriptor, names).during(|| format!("manifest {}", descriptor.digest))
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
                .filter(|descriptor| descriptor.kind() != Kind::Other)
                .filter_map(|descriptor| descriptor.platform.as_ref().map(Platform::to_string)),
        );
        for descriptor in oci_layout::choose(index, wanted) {
            let name = descriptor.name().or(name);
            if descriptor.kind() == Kind::Index {
                if depth == 0 {
                    return Err(Error::new(ErrorKind::LimitExceeded, "indexes are nested too deep"));
                }
                let inner = oci_layout::parse_index(&blob(source, descriptor)?)
                    .during(|| format!("index {}", descriptor.digest))?;
                self.collect(source, &inner, name, wanted, depth - 1, warnings)?;
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
        let names = self.names.entry(descriptor.digest).or_insert_with(|| {
            self.order.push(descriptor.clone());
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

fn plan_image(source: &Source, descriptor: &Descriptor, names: Vec<String>) -> Result<PlannedImage> {
    let text = blob(source, descriptor)?;
    let manifest = oci_layout::parse_manifest(&text)?;
    let config = blob(source, &manifest.config)?;
    let facts = oci_layout::parse_config(&config)?;
    plan::check_layers(&facts, manifest.layers.len())?;
    let ids = plan::layer_ids(&facts.diff_ids);
    let mut layers = Vec::with_capacity(ids.len());
    for ((id, diff_id), layer) in ids.into_iter().zip(&facts.diff_ids).zip(&manifest.layers) {
        let path = layer.path();
        let size = source.open_file(&path)?.size;
        check_size(layer, size)?;
        layers.push(PlannedLayer { id, diff_id: *diff_id, blob: layer.digest, path, size });
    }
    Ok(PlannedImage {
        id: ImageId::from(manifest.config.digest),
        manifest: text,
        digest: descriptor.digest,
        created: plan::created(&facts)?,
        names,
        layers,
        config,
    })
}

fn check_size(descriptor: &Descriptor, size: u64) -> Result<()> {
    if size == descriptor.size {
        return Ok(());
    }
    let message = format!("blob {} has {size} bytes instead of {}", descriptor.digest, descriptor.size);
    Err(Error::new(ErrorKind::DigestMismatch, message))
}

/// Reads a document, with the size and the digest that were promised.
fn blob(source: &Source, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let text = source.document(&descriptor.path())?;
    check_size(descriptor, u64::try_from(text.len()).unwrap_or(u64::MAX))?;
    let digest = Digest::of(&text);
    if digest != descriptor.digest {
        let message = format!("blob {} has digest {digest}", descriptor.digest);
        return Err(Error::new(ErrorKind::DigestMismatch, message));
    }
    Ok(text)
}
