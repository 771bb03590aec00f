// SPDX-License-Identifier: MulanPSL-2.0
//! The facade: layers, images and what ties them.
//!
//! ```text
//! <root>/                     0700
//!   <driver>-layers/          see `layer`
//!   <driver>-images/          see `image`
//!   <driver>-containers/      records of containers, each with the image it was made from
//!   <driver>/                 see `driver`
//! ```
//!
//! One lock, `ties`, taken before the stores' own locks, which are taken and dropped inside their methods. It is held while
//! the record of an image is made whole, while names or an image are removed, while it is decided whether an image uses a
//! layer and the layer is forgotten if not, and while a hold is dropped: so nobody sees or removes an image half-made, and
//! no layer is deleted between its use and the record that tells of it. No layer is read, unpacked or deleted under it.
//!
//! It guards the containers that are in transit: being made or deleted, which takes as long as their layer does. Their
//! image is in use meanwhile, though no record says so.

mod aside;
mod check;
mod commit;
mod containers;
mod diff;
mod docker_layers;
mod import;
mod inspect;
mod integrity;
mod orphans;
pub mod remote;
mod remove;
mod repair;
mod startup;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{self, ImageId, LayerId};
use crate::image::{CreateImage, ImageStore, ImageStoreOptions, LayerCandidate, LayerLookup};
use crate::layer::{Layer, LayerStore, LayerStoreOptions, Problem};
use crate::reference;
use crate::rootfs::{RootfsStore, RootfsStoreOptions};
use crate::units::Bytes;

use crate::driver::options::take_limits;
pub use crate::driver::{
    Change, ChangeKind, Diffed, DriverOptions, LayerKind, Limits, Metadata, MountOptions, NewLayer,
    OwnerShift, Verdict, name_on_disk,
};
pub use crate::persist::{Durability, Ownership};
pub use crate::spec::platform::Platform;
pub use aside::{PutAside, PutAsideKind};
pub use check::{CheckReport, Finding};
pub use commit::{CommitOptions, Committed, ImageChange};
pub use containers::CreateContainer;
pub use import::{ImportOptions, ImportReport, ImportedImage, ImportedLayer, OnProgress, Progress};
pub use inspect::{ImageDetails, LayerDetails};
pub use orphans::WithoutImages;
pub use remove::Removal;
pub use repair::RepairReport;
pub use status::Status;

use containers::InTransit;

/// Key of the big data that holds an image's manifest.
pub const MANIFEST_KEY: &str = "manifest";

/// Key of the big data that holds an image's config.
pub fn config_key(image: &ImageId) -> String {
    format!("sha256:{image}")
}

/// How to open a storage.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// `storage_root`.
    pub root: PathBuf,
    /// `storage_run_root`: mount state, lost at reboot.
    pub run_root: PathBuf,
    /// `overlay`, `overlay2`, `vfs`.
    pub driver: String,
    /// The daemon's `storage-opts`; bounds on archives among them count before `limits`.
    pub driver_options: Vec<String>,
    /// How writes are made durable.
    pub durability: Durability,
    /// `Owner` or `ReadOnly`.
    pub ownership: Ownership,
    /// Registry host that is not shown in names; none: names stay as they are.
    pub default_host: Option<String>,
    /// Bounds on archives.
    pub limits: Limits,
    /// Owners shifted for a user namespace.
    pub owner_shift: Option<OwnerShift>,
    /// Whether the content of image layers that were not checked since the last boot is compared at start.
    pub integration_check: bool,
}

impl StorageOptions {
    /// An overlay storage in `root`, owned, durable, with iSulad's default host.
    pub fn new(root: impl Into<PathBuf>, run_root: impl Into<PathBuf>) -> Self {
        StorageOptions {
            root: root.into(),
            run_root: run_root.into(),
            driver: "overlay".to_owned(),
            driver_options: Vec::new(),
            durability: Durability::Full,
            ownership: Ownership::Owner,
            default_host: Some("docker.io".to_owned()),
            limits: Limits::default(),
            owner_shift: None,
            integration_check: false,
        }
    }
}

/// Layers, images and what ties them. All methods may be called from any thread.
pub struct Storage {
    root: PathBuf,
    driver_dir: &'static str,
    read_only: bool,
    default_host: Option<String>,
    limits: Limits,
    layers: Arc<LayerStore>,
    images: Arc<ImageStore>,
    /// None in a storage that is only read and has none.
    containers: Option<Arc<RootfsStore>>,
    run_root: PathBuf,
    /// What the start found beyond what the stores report.
    problems: RwLock<Vec<Problem>>,
    /// See above.
    ties: Mutex<InTransit>,
}

impl Storage {
    /// Whether `root` has layers or images of this driver: whether opening it for writing would not make it one.
    pub fn exists(root: &Path, driver: &str) -> Result<bool> {
        let driver_dir = name_on_disk(driver)?;
        for what in ["layers", "images"] {
            let dir = root.join(format!("{driver_dir}-{what}"));
            match std::fs::metadata(&dir) {
                Ok(found) if found.is_dir() => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).during(|| format!("look at {}", dir.display())),
            }
        }
        Ok(false)
    }

    /// Opens the stores, layers first, and puts right what a crash or a missing disk left, see `startup`. Never deletes
    /// out of doubt. After an error nothing is held; it can be tried again.
    pub fn open(options: StorageOptions) -> Result<Storage> {
        Storage::open_with(options, |layers| Arc::new(ByDigest(layers)))
    }

    /// The same with another place where layers of schema 1 images are looked up; `lookup` gets the layers that were
    /// opened.
    pub fn open_with(
        options: StorageOptions,
        lookup: impl FnOnce(Arc<LayerStore>) -> Arc<dyn LayerLookup>,
    ) -> Result<Storage> {
        Storage::open_as(options, lookup, false)
    }

    fn open_as(
        mut options: StorageOptions,
        lookup: impl FnOnce(Arc<LayerStore>) -> Arc<dyn LayerLookup>,
        share: bool,
    ) -> Result<Storage> {
        let driver_dir = name_on_disk(&options.driver)?;
        if options.ownership == Ownership::ReadOnly && !Storage::exists(&options.root, &options.driver)? {
            return Err(Error::not_found(format!("open {}: there is no storage", options.root.display())));
        }
        options.driver_options = take_limits(options.driver_options, &mut options.limits)?;
        let layers = LayerStoreOptions {
            root: options.root.clone(),
            run_root: options.run_root.clone(),
            driver: options.driver,
            driver_options: options.driver_options,
            durability: options.durability,
            ownership: options.ownership,
            owner_shift: options.owner_shift,
            limits: options.limits.clone(),
        };
        let layers = Arc::new(remote::open_layers(layers, share)?);
        if let Some(shift) = options.owner_shift.filter(|_| options.ownership == Ownership::Owner) {
            // Whoever is root in the namespace has to get to the layers; the records are not for him.
            std::os::unix::fs::chown(&options.root, Some(shift.uid), Some(shift.gid))
                .during(|| format!("change owner of {}", options.root.display()))?;
        }
        let images = ImageStoreOptions {
            dir: options.root.join(format!("{driver_dir}-images")),
            ownership: options.ownership,
            durability: options.durability,
            default_host: options.default_host.clone(),
            layers: Some(lookup(layers.clone())),
            list_incomplete: false,
        };
        let images = Arc::new(remote::open_images(images, share, &layers)?);
        let read_only = options.ownership == Ownership::ReadOnly;
        let containers = RootfsStore::open(RootfsStoreOptions {
            dir: options.root.join(format!("{driver_dir}-containers")),
            ownership: options.ownership,
            durability: options.durability,
        });
        let containers = match containers {
            Err(error) if read_only && error.kind() == ErrorKind::NotFound => None,
            opened => Some(Arc::new(opened?)),
        };
        let storage = Storage {
            root: options.root,
            run_root: options.run_root,
            driver_dir,
            read_only,
            default_host: options.default_host,
            limits: options.limits,
            layers,
            images,
            containers,
            problems: RwLock::default(),
            ties: Mutex::default(),
        };
        // A reader sees the stores as of different moments: an image that came in between has not lost its layers.
        if !read_only {
            storage.start(options.integration_check)?;
        }
        Ok(storage)
    }

    /// `storage_root`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The layer store.
    pub fn layers(&self) -> &Arc<LayerStore> {
        &self.layers
    }

    /// The image store.
    pub fn images(&self) -> &Arc<ImageStore> {
        &self.images
    }

    /// What was found wrong when the storage was opened: by each of the stores, and between them.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.layers.problems();
        problems.extend(self.images.problems());
        problems.extend(self.containers.iter().flat_map(|containers| containers.problems()));
        problems.extend(self.problems.read().iter().cloned());
        problems
    }

    fn require_writable(&self) -> Result<()> {
        if self.read_only {
            let message = format!("{} is open for reading only", self.root.display());
            return Err(Error::new(ErrorKind::ReadOnly, message));
        }
        Ok(())
    }

    /// Ends all stores: waits for what is under way and gives up the locks.
    pub fn close(self) -> Result<()> {
        self.end()
    }

    /// Ends the layer store: waits for what is under way there and gives up its driver and lock. The other stores end with
    /// the storage.
    pub fn end(&self) -> Result<()> {
        self.layers.close()
    }

    /// A name as records hold it.
    pub fn normalize(&self, name: &str) -> Result<String> {
        reference::normalize(name, self.default_host.as_deref())
    }

    /// The image of this id, short id or name, the name in any spelling that a person may use.
    pub fn find_image(&self, name: &str) -> Result<ImageId> {
        self.resolve_image(name).map(|(id, _)| id)
    }

    /// The same, and whether it was meant by its id.
    fn resolve_image(&self, name: &str) -> Result<(ImageId, bool)> {
        if id::is_short(name) {
            match self.images.lookup(name) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                found => return Ok((found?, true)),
            }
        }
        Ok((self.images.lookup(&self.normalize(name)?)?, false))
    }

    /// The layer of this id or name, or the only one whose id begins like this (at least three digits).
    pub fn find_layer(&self, name: &str) -> Result<Layer> {
        if let Some(layer) = self.layers.find(name) {
            return Ok(layer);
        }
        let no_layer = |why: &str| Error::not_found(format!("layer {name}: {why}"));
        if !id::is_short(name) {
            return Err(no_layer("no such layer"));
        }
        let mut found = self.layers.list().into_iter().filter(|layer| layer.id.as_str().starts_with(name));
        let layer = found.next().ok_or_else(|| no_layer("no such layer"))?;
        if found.next().is_some() {
            return Err(no_layer("several layers have ids that begin so; give more digits"));
        }
        Ok(layer)
    }

    /// A layer, or the top layer of an image: what a person means by one word.
    pub fn find_layer_or_image(&self, name: &str) -> Result<LayerId> {
        match self.find_layer(name) {
            Ok(layer) => return Ok(layer.id),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.find_image(name) {
            Ok(image) => {
                let top = self.images.top_layer(image.as_str())?;
                let top = top.ok_or_else(|| Error::not_found(format!("image {image} has no layer")))?;
                LayerId::new(&top)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::not_found(format!("{name}: no such layer or image")))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the exact uncompressed tar of an image layer; returns its digest and length.
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<(Digest, Bytes)> {
        let layer = self.find_layer(name)?;
        self.layers.export(layer.id.as_str(), out)
    }

    /// Makes an image record; it has to have an id. Its id exists, or a name belongs to another image: `AlreadyExists`.
    ///
    /// An image of this id that a start found without its layers is listed again if they are there by now.
    pub fn create_image(&self, image: &CreateImage) -> Result<ImageId> {
        self.require_writable()?;
        let _ties = self.ties.lock();
        self.create_image_tied(image)
    }

    /// The same for who holds `ties`.
    fn create_image_tied(&self, image: &CreateImage) -> Result<ImageId> {
        if let Some(id) = &image.id
            && let Some(hidden) = self.images.hidden(id)?
            && hidden.layer == image.layer
            && self.chain(hidden.layer.as_deref().unwrap_or_default()).is_ok()
        {
            self.images.reveal(id)?;
        }
        self.images.create(image)
    }

    /// Sets an image's size anew: the sum of its big data and of all its layers, in bytes. A size that is one byte less,
    /// as the reference computes it, stays.
    ///
    /// Errors: `NotFound` without a top layer, or when one of the layers is missing; `Corrupt` for a layer whose size is
    /// not known.
    pub fn refresh_size(&self, image: &str) -> Result<u64> {
        self.compute_size(image).during(|| format!("compute the size of image {image}"))
    }

    fn compute_size(&self, image: &str) -> Result<u64> {
        let record = self.images.get(image)?;
        let mut size = 0u64;
        for key in &record.big_data_names {
            let bytes = u64::try_from(self.images.big_data_size(image, key)?);
            size =
                size.saturating_add(bytes.map_err(|_| Error::corrupt(format!("size of big data {key:?}")))?);
        }
        let top = record.layer.as_deref().ok_or_else(|| Error::not_found("it has no layer"))?;
        for layer in self.chain(top)? {
            let bytes =
                u64::try_from(layer.uncompressed_size).ok().filter(|_| layer.uncompressed_digest.is_some());
            let unknown = || Error::corrupt(format!("the size of layer {} is not known", layer.id));
            size = size.saturating_add(bytes.ok_or_else(unknown)?);
        }
        if record.size == 0 || record.size.checked_add(1) != Some(size) {
            self.images.set_size(image, size)?;
        }
        Ok(size)
    }

    /// A layer and all that it stands on, from the top down.
    pub fn chain(&self, top: &str) -> Result<Vec<Layer>> {
        let mut chain: Vec<Layer> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(LayerId::new(top)?);
        while let Some(id) = next {
            if !seen.insert(id.clone()) {
                return Err(Error::corrupt(format!("layer {id} stands on itself")));
            }
            let layer = self.layers.find(id.as_str());
            let layer = layer.ok_or_else(|| Error::not_found(format!("layer {id}: no such layer")))?;
            next = layer.parent.clone();
            chain.push(layer);
        }
        Ok(chain)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("root", &self.root)
            .field("driver", &self.driver_dir)
            .finish_non_exhaustive()
    }
}

/// What the image store asks of the layers.
struct ByDigest(Arc<LayerStore>);

impl LayerLookup for ByDigest {
    fn by_compressed_digest(&self, digest: &str) -> Vec<LayerCandidate> {
        let layers = self.0.by_compressed_digest(digest).into_iter();
        layers
            .map(|layer| LayerCandidate {
                id: layer.id.to_string(),
                parent: layer.parent.map(|parent| parent.to_string()),
                uncompressed_digest: layer.uncompressed_digest,
            })
            .collect()
    }
}
