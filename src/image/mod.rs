// SPDX-License-Identifier: MulanPSL-2.0
//! The image store: names, big data and the records that tie an image to its top layer.
//!
//! ```text
//! <dir>/<image id>/images.json                     0600  the record
//! <dir>/<image id>/manifest                        0600  big data "manifest"
//! <dir>/<image id>/=<base64 of "sha256:<id>">      0600  big data: the image's config
//! <dir>/<image id>/<big data name>                 0600  other big data
//! <dir>/.isula-storage/                            lock, trash, quarantine
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::id::ImageId;
use crate::layer::Problem;
use crate::persist::{Durability, Ownership, Quarantined};
use crate::record::image::ImageRecord;
use crate::time::Timestamp;
use crate::units::Usage;

/// What the image store asks of the layer store, to convert images of schema 1.
pub trait LayerLookup: Send + Sync {
    /// Layers with this compressed digest: `(parent id, uncompressed digest)` of each; empty when there is none.
    fn by_compressed_digest(&self, digest: &str) -> Vec<LayerCandidate>;
}

/// A layer that may be the one a schema 1 manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCandidate {
    /// Its id.
    pub id: String,
    /// The layer it stands on.
    pub parent: Option<String>,
    /// Its diff ID.
    pub uncompressed_digest: Option<String>,
}

/// How to open an image store.
#[derive(Clone)]
pub struct ImageStoreOptions {
    /// The image directory itself.
    pub dir: PathBuf,
    /// How the store is held.
    pub ownership: Ownership,
    /// How writes are made durable.
    pub durability: Durability,
    /// Registry host that is not shown in names, such as `docker.io`; none: names stay as they are.
    pub default_host: Option<String>,
    /// Where layers of schema 1 images are looked up; none: such images stay as they are.
    pub layers: Option<Arc<dyn LayerLookup>>,
}

/// What a new image is to be.
#[derive(Debug, Clone, Default)]
pub struct CreateImage {
    /// Its id; none: 64 random hex digits.
    pub id: Option<ImageId>,
    /// Its names; duplicates are dropped, the rest sorted.
    pub names: Vec<String>,
    /// Id of its top layer.
    pub layer: Option<String>,
    /// Free text.
    pub metadata: Option<String>,
    /// When it was made; none: now.
    pub created: Option<Timestamp>,
    /// Digest by which it is searched.
    pub digest: Option<String>,
}

/// What lists show of an image: the reference's `imagetool_image_summary`, and `imagetool_image` without its spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its id.
    pub id: String,
    /// Names that are tags, sorted.
    pub repo_tags: Vec<String>,
    /// Names that are digests, and `<repository>@<digest>` for each tag.
    pub repo_digests: Vec<String>,
    /// Top layer.
    pub top_layer: Option<String>,
    /// Size in bytes: big data and all layers.
    pub size: u64,
    /// When it was made, as recorded.
    pub created: Option<String>,
    /// When it was loaded, as recorded.
    pub loaded: Option<String>,
    /// Numeric user of its config.
    pub uid: Option<i64>,
    /// User name of its config.
    pub username: Option<String>,
    /// Labels of its config; `None` when the config has no such member.
    pub labels: Option<Vec<(String, String)>>,
}

/// The image store. All methods may be called from any thread. "By any name" means: id, name, unique short id of at
/// least three digits, or digest reference, in this order.
#[derive(Debug)]
pub struct ImageStore {}

impl ImageStore {
    /// Opens the store and loads all images. Never deletes out of doubt.
    pub fn open(options: ImageStoreOptions) -> Result<ImageStore> {
        todo!()
    }

    /// The image directory.
    pub fn dir(&self) -> &Path {
        todo!()
    }

    /// Makes an image record. Its id exists: `AlreadyExists`; a name belongs to another image: `AlreadyExists`.
    pub fn create(&self, image: &CreateImage) -> Result<ImageId> {
        todo!()
    }

    /// Replaces the names; names held by other images move, durably, winner first. Empty: `InvalidArgument`.
    pub fn set_names(&self, image: &str, names: &[String]) -> Result<()> {
        todo!()
    }

    /// Adds a name; held by another image: it moves.
    pub fn add_name(&self, image: &str, name: &str) -> Result<()> {
        todo!()
    }

    /// Deletes an image by any name; unknown is fine (`false`).
    pub fn delete(&self, image: &str) -> Result<bool> {
        todo!()
    }

    /// Deletes all images.
    pub fn wipe(&self) -> Result<()> {
        todo!()
    }

    /// Writes every record whose memory is ahead of the disk; clears the latch of an earlier failure when all succeed.
    pub fn save(&self) -> Result<()> {
        todo!()
    }

    /// Reads the directory again.
    pub fn load(&self) -> Result<()> {
        todo!()
    }

    /// Sets when it was loaded.
    pub fn set_loaded(&self, image: &str, time: Timestamp) -> Result<()> {
        todo!()
    }

    /// Sets the free text.
    pub fn set_metadata(&self, image: &str, metadata: &str) -> Result<()> {
        todo!()
    }

    /// Sets the size in bytes.
    pub fn set_size(&self, image: &str, size: u64) -> Result<()> {
        todo!()
    }

    /// Stores big data under a key.
    pub fn set_big_data(&self, image: &str, key: &str, data: &[u8]) -> Result<()> {
        todo!()
    }

    /// Whether an image of any such name exists.
    pub fn exists(&self, image: &str) -> bool {
        todo!()
    }

    /// Full id of the image of any such name. Ambiguous short ids are `NotFound` and the message says so.
    pub fn lookup(&self, image: &str) -> Result<ImageId> {
        todo!()
    }

    /// The record of the image of any such name.
    pub fn get(&self, image: &str) -> Result<Arc<ImageRecord>> {
        todo!()
    }

    /// All records, in order of creation (after a restart: of their `loaded`, then id).
    pub fn list(&self) -> Result<Vec<Arc<ImageRecord>>> {
        todo!()
    }

    /// Records of the images with this digest, in order.
    pub fn by_digest(&self, digest: &str) -> Result<Vec<Arc<ImageRecord>>> {
        todo!()
    }

    /// Number of images.
    pub fn count(&self) -> Result<usize> {
        todo!()
    }

    /// What lists show of one image; no disk is read.
    pub fn summary(&self, image: &str) -> Result<ImageSummary> {
        todo!()
    }

    /// What lists show of all images, in order.
    pub fn summaries(&self) -> Result<Vec<ImageSummary>> {
        todo!()
    }

    /// The image's config as parsed when it was loaded or set; `Corrupt`/`NotFound` when it has none.
    pub fn config(&self, image: &str) -> Result<Arc<crate::spec::config::ImageConfig>> {
        todo!()
    }

    /// Names of the image.
    pub fn names(&self, image: &str) -> Result<Vec<String>> {
        todo!()
    }

    /// Free text, if set.
    pub fn metadata(&self, image: &str) -> Result<Option<String>> {
        todo!()
    }

    /// Top layer, if set.
    pub fn top_layer(&self, image: &str) -> Result<Option<String>> {
        todo!()
    }

    /// Content of big data.
    pub fn big_data(&self, image: &str, key: &str) -> Result<Vec<u8>> {
        todo!()
    }

    /// Size of big data in bytes.
    pub fn big_data_size(&self, image: &str, key: &str) -> Result<i64> {
        todo!()
    }

    /// Digest of big data.
    pub fn big_data_digest(&self, image: &str, key: &str) -> Result<String> {
        todo!()
    }

    /// Keys of all big data, in order of insertion.
    pub fn big_data_names(&self, image: &str) -> Result<Vec<String>> {
        todo!()
    }

    /// What the image directory holds (records and big data, not layers).
    pub fn usage(&self) -> Result<Usage> {
        todo!()
    }

    /// What was found wrong when the store was loaded.
    pub fn problems(&self) -> Vec<Problem> {
        todo!()
    }

    /// What lies in quarantine.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        todo!()
    }
}
