// SPDX-License-Identifier: MulanPSL-2.0
//! Docker's image store: configs named by their digest, parents, and the names of images.
//!
//! ```text
//! <root>/                          `/var/lib/docker/image/overlay2`, for one
//!     imagedb/                     see `backend.rs`
//!     layerdb/                     Docker's layers, only ever read: see `layerdb.rs`
//!     repositories.json      0600  names of images: see `repositories.rs`
//!     .isula-storage/        0700  lock, trash, quarantine
//! ```
//!
//! **Lifecycle.** Opening reads and verifies every config, takes a reference on the layer of each image, then ties parents
//! and children. An image that is damaged, or whose layer is not there, is left where it is, reported among the
//! [`problems`](ImageDb::problems) and not listed; making it again heals it. Closing gives the references back and
//! removes nothing.
//!
//! **Truth.** An image exists when its config is on disk under its digest. Making one: the reference on its layer, then
//! the config, durably, then memory; whatever fails, nothing is left. Deleting one: its config, durably, then memory,
//! then its layer.
//!
//! **Reads are verified.** [`ImageDb::get`] hashes what it reads. [`ImageDb::map`] and [`ImageDb::heads`] answer from
//! memory as long as size, inode and modification time of a config are those of the file that was verified.
//!
//! **Concurrency.** `index` is held for moments only. One change at a time holds `control`; the layer store is called
//! without either. Order: `control`, then `index`.
//!
//! A daemon does not know of our lock: let none run on the same directory, unless it is opened for reading only.
//!
//! Source: `image.Store`, `fs` backend and reference store of Docker 17.05 to 23.0.

mod backend;
mod change;
mod config;
mod familiar;
mod index;
mod layerdb;
mod layers;
mod open;
mod repositories;
mod shape;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::layer::Problem;
use crate::persist::{Durability, Ownership, StateDir};
use crate::time::Timestamp;

use change::Control;
use index::{Entry, Index};
use repositories::Repositories;

pub use backend::{Backend, Signature};
pub use config::{Config, History, MAX_CONFIG, RunConfig};
pub use familiar::Familiar;
pub use layerdb::{DockerLayer, DockerLayers};
pub use layers::{AnyLayers, Layers, NoLayers, RemovedLayer};
pub use repositories::Association;

const PARENT: &str = "parent";
const LAST_UPDATED: &str = "lastUpdated";
const BUILT_LOCALLY: &str = "builtLocally";

/// How to open the store.
pub struct ImageDbOptions {
    /// The directory above `imagedb`.
    pub root: PathBuf,
    /// `Owner` or `ReadOnly`.
    pub ownership: Ownership,
    /// How writes are made durable.
    pub durability: Durability,
    /// Where the layers are.
    pub layers: Arc<dyn Layers>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its config.
    pub id: Digest,
    /// The image it was made from, as recorded; that may be gone.
    pub parent: Option<Digest>,
    /// Its config.
    pub config: Arc<Config>,
}

/// Docker's image store. All methods may be called from any thread.
pub struct ImageDb {
    root: PathBuf,
    ownership: Ownership,
    state: StateDir,
    backend: Backend,
    layers: Arc<dyn Layers>,
    control: Mutex<Control>,
    index: RwLock<Index>,
    repositories: Repositories,
    problems: Vec<Problem>,
}

impl fmt::Debug for ImageDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageDb({})", self.root.display())
    }
}

impl ImageDb {
    /// Opens the store; an owner makes what is missing and takes the lock (held by another process: `InUse`).
    ///
    /// One bad image, a missing layer, an unreadable file of names keep nothing else from being opened: see
    /// [`ImageDb::problems`]. References on layers are taken one after the other in this thread; after an error all have
    /// been given back.
    pub fn open(options: ImageDbOptions) -> Result<ImageDb> {
        open::open(options)
    }

    /// The directory above `imagedb`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What was wrong when the store was opened.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Makes an image of a config and returns its id. It is there already: its id, and no second reference on its layer; a
    /// config that was damaged meanwhile is written again.
    ///
    /// Errors: as [`Config::parse`], `InvalidData` (the history tells of more layers than there are), `NotFound` (its layer
    /// is not there), `ReadOnly`, or what the disk said. Nothing is left on disk then, and no reference is held.
    pub fn create(&self, config: &[u8]) -> Result<Digest> {
        change::create(self, config).during(|| "create image")
    }

    /// An image, read and verified now; also one that is on disk but not in the store. None: `NotFound`.
    pub fn get(&self, id: &Digest) -> Result<Image> {
        self.get_with_bytes(id).map(|(image, _)| image)
    }

    /// The same with the config exactly as it is.
    pub fn get_with_bytes(&self, id: &Digest) -> Result<(Image, Vec<u8>)> {
        let bytes = self.backend.get(id)?;
        let known = self.index.read().get(id).map(|entry| entry.config.clone());
        let config = match known {
            Some(config) => config,
            None => Arc::new(Config::parse(&bytes).during(|| format!("image {id}"))?),
        };
        let parent = self.parent(id).ok();
        Ok((Image { id: *id, parent, config }, bytes))
    }

    /// Whether an image is in the store.
    pub fn exists(&self, id: &Digest) -> bool {
        self.index.read().get(id).is_some()
    }

    /// Deletes an image, damaged or not, and returns the layers that went with it. Its children are without a parent then.
    /// Its names stay: they are deleted by themselves.
    ///
    /// Errors: `NotFound` (unrecognized), `ReadOnly`, what the disk said. When the layer store fails the image is gone.
    pub fn delete(&self, id: &Digest) -> Result<Vec<RemovedLayer>> {
        change::delete(self, id)
    }

    /// The image whose id begins with `term`, with or without `sha256:`. None: `NotFound`; several: `Ambiguous`; an empty
    /// term: `InvalidArgument`, where Docker takes any image if there is but one.
    pub fn search(&self, term: &str) -> Result<Digest> {
        self.index.read().search(term)
    }

    /// Sets the parent of an image. Both have to be in the store (`NotFound`); an image is not its own parent or
    /// forefather (`InvalidArgument`).
    pub fn set_parent(&self, id: &Digest, parent: &Digest) -> Result<()> {
        change::set_parent(self, id, parent).during(|| format!("set parent of image {id}"))
    }

    /// The parent of an image, as recorded: it may be gone. None: `NotFound`.
    pub fn parent(&self, id: &Digest) -> Result<Digest> {
        if let Some(parent) = self.index.read().parent(id) {
            return Ok(parent);
        }
        let text = if self.exists(id) {
            self.backend.metadata_of(id, PARENT)?
        } else {
            self.backend.metadata(id, PARENT)?
        };
        open::parse_parent(&text).during(|| format!("parent of image {id}"))
    }

    /// The images whose parent this is, in the order of their ids. None for an image that is not there.
    pub fn children(&self, id: &Digest) -> Vec<Digest> {
        self.index.read().children(id)
    }

    /// All images in the order of their ids. One that can no longer be read, or is no longer what it was, is left out and
    /// logged.
    pub fn map(&self) -> Vec<Image> {
        let all = self.index.read().list();
        self.verified(all)
    }

    /// The same, without images that have children.
    pub fn heads(&self) -> Vec<Image> {
        let heads = self.index.read().heads();
        self.verified(heads)
    }

    /// How many images are in the store.
    pub fn len(&self) -> usize {
        self.index.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records that an image was used or named now.
    pub fn set_last_updated(&self, id: &Digest) -> Result<()> {
        let now = Timestamp::now().to_rfc3339_nano().unwrap_or_default();
        change::set_metadata(self, id, LAST_UPDATED, now.as_bytes())
    }

    /// When [`ImageDb::set_last_updated`] was last called; never, or not known: `None`. A text that is no time: `Corrupt`.
    pub fn last_updated(&self, id: &Digest) -> Result<Option<Timestamp>> {
        let Ok(text) = self.backend.metadata_of(id, LAST_UPDATED) else { return Ok(None) };
        let text = String::from_utf8_lossy(&text);
        let time = Timestamp::parse_rfc3339(&text)
            .map_err(|error| error.with_kind(ErrorKind::Corrupt))
            .during(|| format!("last update of image {id}"))?;
        Ok(Some(time).filter(|time| *time != ZERO_TIME))
    }

    /// Records that an image was built here.
    pub fn set_built_locally(&self, id: &Digest) -> Result<()> {
        change::set_metadata(self, id, BUILT_LOCALLY, &[1])
    }

    /// Whether an image was built here, as far as that is known.
    pub fn is_built_locally(&self, id: &Digest) -> Result<bool> {
        match self.backend.metadata_of(id, BUILT_LOCALLY) {
            Ok(value) => Ok(value.first() == Some(&1)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives an image a tag, or a name with a digest. The image need not be there. The same again: fine. A tag that
    /// belongs to another image: `AlreadyExists` unless `force`; a digest that does: always.
    pub fn add_name(&self, name: &str, id: &Digest, force: bool) -> Result<()> {
        self.check_writable()?;
        self.repositories.add(name, id, force).during(|| format!("name image {id}"))
    }

    /// Takes a name away from the image that has it. There is none of this name: `NotFound`.
    pub fn delete_name(&self, name: &str) -> Result<()> {
        self.check_writable()?;
        self.repositories.delete(name)
    }

    /// The image of this name. None: `NotFound`.
    pub fn by_name(&self, name: &str) -> Result<Digest> {
        self.repositories.get(name)
    }

    /// Names of an image, sorted.
    pub fn names(&self, id: &Digest) -> Vec<String> {
        self.repositories.of_image(id)
    }

    /// Names in one repository, sorted.
    pub fn names_in(&self, repository: &str) -> Result<Vec<Association>> {
        self.repositories.in_repository(repository)
    }

    /// All names, sorted.
    pub fn all_names(&self) -> Vec<Association> {
        self.repositories.all()
    }

    /// Gives back the references on layers; nothing is removed. The same as dropping it.
    pub fn close(self) {
        drop(self);
    }

    fn verified(&self, images: Vec<(Arc<Entry>, Option<Digest>)>) -> Vec<Image> {
        let (found, bad) = self.verify_all(images);
        for (id, error) in bad {
            log::error!("image {id}: {}", error.report());
        }
        found
    }

    /// Those that are what they were, and why others are not.
    fn verify_all(&self, images: Vec<(Arc<Entry>, Option<Digest>)>) -> (Vec<Image>, Vec<(Digest, Error)>) {
        let mut found = Vec::with_capacity(images.len());
        let mut bad = Vec::new();
        for (entry, parent) in images {
            match self.verify(&entry) {
                Ok(()) => found.push(Image { id: entry.id, parent, config: entry.config.clone() }),
                // Deleted since the list was made.
                Err(_) if !self.exists(&entry.id) => {}
                Err(error) => bad.push((entry.id, error)),
            }
        }
        (found, bad)
    }

    /// Reads and verifies the config, unless it is the file that was verified before.
    fn verify(&self, entry: &Entry) -> Result<()> {
        let now = self.backend.signature(&entry.id)?;
        if now.is_some() && now == Some(*entry.verified.lock()) {
            return Ok(());
        }
        let (_, signature) = self.backend.get_with_signature(&entry.id)?;
        *entry.verified.lock() = signature;
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        match self.ownership {
            Ownership::ReadOnly => {
                let message = format!("image store {} was opened for reading only", self.root.display());
                Err(Error::new(ErrorKind::ReadOnly, message))
            }
            Ownership::Owner | Ownership::Shared => Ok(()),
        }
    }
}

impl Drop for ImageDb {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *self.index.write());
        for (entry, _) in all.list() {
            if let Some(chain_id) = &entry.config.chain_id {
                self.layers.forget(chain_id);
            }
        }
    }
}

/// What Go writes for no time.
const ZERO_TIME: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };
