// SPDX-License-Identifier: MulanPSL-2.0
//! From a container to an image: what the container changed becomes a layer like any other.
//!
//! ```text
//! archive of the changes      a file without a name in the storage root; the image of the container is in use
//! layer                       made from that archive as an import makes it: verified, durable, held
//! image record, config, manifest, size
//! names                       last
//! hold released
//! ```
//!
//! After an error nothing of it remains. The container may be running, but what it changes while it is read is an error.

mod document;

use std::fs::File;
use std::io::{BufWriter, Seek, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::digest::{Digest, Digester};
use crate::error::{During, Error, Result};
use crate::id::{ContainerId, ImageId, LayerId};
use crate::reference;
use crate::spec::config::ImageConfig;
use crate::spec::oci_layout;
use crate::time::Timestamp;

use super::import::{Held, PlannedImage, PlannedLayer, layer_ids};
use super::{Diffed, MANIFEST_KEY, Storage, config_key};

pub use document::ImageChange;

const BUFFER: usize = 128 << 10;

/// How a container becomes an image.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Names of the image, as a person writes them.
    pub names: Vec<String>,
    /// Who made it.
    pub author: Option<String>,
    /// What for.
    pub message: Option<String>,
    /// What is to be different for containers of the new image.
    pub changes: Vec<ImageChange>,
    /// Whether the layer is known by the digest of its archive compressed by gzip, as for a registry.
    pub compress: bool,
    /// When it was made; none: now.
    pub created: Option<Timestamp>,
}

/// What a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The image.
    pub image: ImageId,
    /// Its names, as records hold them.
    pub names: Vec<String>,
    /// Its new layer.
    pub layer: LayerId,
    /// The archive of the layer.
    pub diff: Diffed,
}

/// The layer archive, aside.
struct Spooled {
    file: File,
    diff: Diffed,
    /// Digest and length of what is in the file.
    blob: oci_layout::Blob,
}

impl Storage {
    /// Makes an image of a container, by any name that its store knows: the container's image with one more layer.
    ///
    /// Errors: `NotFound` for the container; `InvalidArgument` for a name; `InvalidData` when an archive cannot hold what the
    /// container changed; `InUse` when it changes meanwhile; `Corrupt` when its image or layer is not whole; what the stores
    /// say.
    pub fn commit(&self, container: &str, options: &CommitOptions) -> Result<Committed> {
        self.require_writable()?;
        self.make_commit(container, options).during(|| format!("commit container {container}"))
    }

    fn make_commit(&self, container: &str, options: &CommitOptions) -> Result<Committed> {
        if let Some(bad) = options.names.iter().find(|name| !reference::is_valid_name(name)) {
            return Err(Error::invalid(format!("{bad:?} is not a valid image name")));
        }
        let names = options.names.iter().map(|name| self.normalize(name)).collect::<Result<Vec<_>>>()?;
        let record = self.containers()?.get(container)?;
        let id = ContainerId::new(record.id.as_deref().unwrap_or_default())?;
        let image = record.image.as_deref().ok_or_else(|| Error::corrupt("it has no image"))?;
        let _passage = self.in_transit(&id, image);
        let image = ImageId::new(image)?;
        let text = self.images().big_data(image.as_str(), &config_key(&image))?;
        let facts = ImageConfig::parse(&text)?;
        let mut diff_ids =
            facts.rootfs.diff_ids.iter().map(|text| oci_layout::digest(text)).collect::<Result<Vec<_>>>()?;
        let changed = self.layer_of(container)?;
        let parent = self.parent_of(&changed, &image, diff_ids.len())?;

        let Spooled { mut file, diff, blob } = self.spool_changes(&changed, options.compress)?;
        diff_ids.push(diff.diff_id);
        let id = layer_ids(&diff_ids).pop().ok_or_else(|| Error::corrupt("its image has no layer"))?;
        let layer = PlannedLayer {
            id: id.clone(),
            diff_id: diff.diff_id,
            blob: Some(blob.digest),
            path: "changes of the container".to_owned(),
            size: blob.size,
        };
        let created = options.created.unwrap_or_else(Timestamp::now);
        let config = document::config(&text, &facts, diff.diff_id, created, options)?;
        let size = u64::try_from(config.len()).unwrap_or(u64::MAX);
        let config_blob = oci_layout::Blob { digest: Digest::of(&config), size };
        let manifest = self.images().big_data(image.as_str(), MANIFEST_KEY).ok();
        let last = document::NewLayer { diff_id: diff.diff_id, tar_size: diff.tar_size.0, blob };
        let manifest =
            document::manifest(manifest.as_deref(), &diff_ids, config_blob, &last, options.compress)?;

        let mut held = Held::new(self);
        let existed = self.register_layer(&layer, Some(parent), false, &mut file)?;
        held.add(&layer, existed);
        let planned = PlannedImage {
            id: ImageId::from(config_blob.digest),
            digest: Digest::of(&manifest),
            config,
            manifest,
            created,
            names,
            layers: vec![layer],
        };
        self.register_image(&planned)?;
        held.used();
        Ok(Committed { image: planned.id, names: planned.names, layer: id, diff })
    }

    /// The top layer of the image, on which the container's layer has to stand.
    fn parent_of(&self, layer: &LayerId, image: &ImageId, layers: usize) -> Result<LayerId> {
        let top = self.images().top_layer(image.as_str())?.unwrap_or_default();
        let found = self.layers().find(layer.as_str());
        let parent = found.ok_or_else(|| Error::not_found(format!("layer {layer}: no such layer")))?.parent;
        match parent {
            Some(parent) if parent.as_str() == top && self.chain(&top)?.len() == layers => Ok(parent),
            parent => Err(Error::corrupt(format!(
                "layer {layer} stands on {}, which is not the top of its image {image} of {layers} layers",
                parent.map_or("nothing".to_owned(), |parent| parent.to_string())
            ))),
        }
    }

    fn spool_changes(&self, layer: &LayerId, compress: bool) -> Result<Spooled> {
        let named = || format!("make a temporary file in {}", self.root().display());
        let file = tempfile::tempfile_in(self.root()).during(named)?;
        let mut counted =
            Counted { out: BufWriter::with_capacity(BUFFER, file), digester: Digester::new(), count: 0 };
        let diff = if compress {
            let mut gzip = GzEncoder::new(&mut counted, Compression::default());
            let diff = self.layers().diff(layer.as_str(), None, &mut gzip)?;
            gzip.finish().during(|| "compress the layer")?;
            diff
        } else {
            self.layers().diff(layer.as_str(), None, &mut counted)?
        };
        let Counted { out, digester, count } = counted;
        let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error).during(named)?;
        file.rewind().during(named)?;
        Ok(Spooled { file, diff, blob: oci_layout::Blob { digest: digester.finish(), size: count } })
    }
}

/// Takes the digest of what is written.
struct Counted<W> {
    out: W,
    digester: Digester,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digester.update(bytes.get(..written).unwrap_or(bytes));
        self.count += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
