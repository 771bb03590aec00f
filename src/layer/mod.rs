// SPDX-License-Identifier: MulanPSL-2.0
//! The layer store: records of layers, their references, their creation and deletion, over a graph driver.
//!
//! ```text
//! <root>/<driver>-layers/<id>/layer.json            0600  the record
//! <root>/<driver>-layers/<id>/<id>.tar-split.gz     0600  of layers made from an archive
//! <run root>/<driver>-layers/<id>.json              0600  mount count and path
//! <root>/.isula-storage/<driver>-layers/            lock, trash, quarantine (outside `<driver>-layers`, where the
//!                                                   reference deletes every name that is not 64 characters long)
//! ```

use std::io::{Read, Write};
use std::path::PathBuf;

use crate::digest::Digest;
use crate::driver::{DriverStatus, GraphDriver, Limits, Metadata, OwnerShift, Verdict};
use crate::error::Result;
use crate::id::LayerId;
use crate::persist::{Durability, Ownership, Quarantined};
use crate::units::{Bytes, Usage};

/// How to open a layer store.
#[derive(Debug, Clone)]
pub struct LayerStoreOptions {
    /// `storage_root`.
    pub root: PathBuf,
    /// `storage_run_root`: mount state, lost at reboot.
    pub run_root: PathBuf,
    /// `overlay`, `overlay2`, `vfs`, as configured.
    pub driver: String,
    /// The daemon's `storage-opts`.
    pub driver_options: Vec<String>,
    /// How writes are made durable.
    pub durability: Durability,
    /// `Owner` or `ReadOnly`.
    pub ownership: Ownership,
    /// Owners shifted for a user namespace.
    pub owner_shift: Option<OwnerShift>,
    /// Bounds on archives.
    pub limits: Limits,
}

/// What a new layer is to be.
#[derive(Debug, Clone, Default)]
pub struct CreateLayer {
    /// The layer it stands on.
    pub parent: Option<LayerId>,
    /// Other names by which it is found.
    pub names: Vec<String>,
    /// A container's layer.
    pub writable: bool,
    /// Digest of the compressed archive (`sha256:…`), as the caller knows it.
    pub compressed_digest: Option<String>,
    /// Digest of the uncompressed archive (`sha256:…`), as the caller knows it; verified.
    pub uncompressed_digest: Option<String>,
    /// SELinux label.
    pub mount_label: Option<String>,
    /// Storage options, such as `size`.
    pub storage_options: Vec<(String, String)>,
}

/// A layer as callers see it: a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its id.
    pub id: LayerId,
    /// The layer it stands on.
    pub parent: Option<LayerId>,
    /// Other names.
    pub names: Vec<String>,
    /// Where it is or would be mounted.
    pub mount_point: Option<PathBuf>,
    /// How often it is mounted.
    pub mount_count: i32,
    /// Digest of the compressed archive, as recorded.
    pub compressed_digest: Option<String>,
    /// Size of the compressed archive in bytes, 0 if not recorded.
    pub compressed_size: i64,
    /// Digest of the uncompressed archive, as recorded.
    pub uncompressed_digest: Option<String>,
    /// Sum of the entries' sizes in bytes.
    pub uncompressed_size: i64,
    /// A container's layer.
    pub writable: bool,
    /// When it was made, as recorded.
    pub created: Option<String>,
}

/// What [`LayerStore::create`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// A new layer was made.
    New(LayerId),
    /// The layer existed; it gained a hold reference, nothing was read or compared.
    Existing(LayerId),
}

/// A problem found while opening the store: what, why, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The thing, for people: `layer 0123…`.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// Whether it was moved to quarantine (else it was left where it is).
    pub quarantined: bool,
}

/// The layer store. All methods may be called from any thread; lookups never wait for a create, apply or delete.
#[derive(Debug)]
pub struct LayerStore {}

impl LayerStore {
    /// Opens the store and its driver, resumes what a crash left, loads all records. Never deletes out of doubt.
    pub fn open(options: LayerStoreOptions) -> Result<LayerStore> {
        todo!()
    }

    /// Makes a layer, from an archive stream if there is one. Two creates of one id coalesce; the new layer has one hold reference.
    pub fn create(
        &self,
        id: &LayerId,
        layer: &CreateLayer,
        content: Option<&mut (dyn Read + Send)>,
    ) -> Result<Created> {
        todo!()
    }

    /// Adds (`+1`) a hold reference. By id only.
    pub fn hold(&self, id: &LayerId) -> Result<()> {
        todo!()
    }

    /// Drops a hold reference; below zero is an error and changes nothing.
    pub fn release(&self, id: &LayerId) -> Result<()> {
        todo!()
    }

    /// Number of hold references.
    pub fn hold_count(&self, id: &LayerId) -> Result<i32> {
        todo!()
    }

    /// Deletes a layer, by id or name; unknown is fine. Mounted: unmounted first. Other layers stand on it: `InUse`.
    pub fn delete(&self, id_or_name: &str) -> Result<()> {
        todo!()
    }

    /// Whether a layer of this id or name exists.
    pub fn exists(&self, id_or_name: &str) -> bool {
        todo!()
    }

    /// A layer by id or name, exact.
    pub fn find(&self, id_or_name: &str) -> Option<Layer> {
        todo!()
    }

    /// All layers, in order of creation (after a restart: of their records' `created`, then id).
    pub fn list(&self) -> Vec<Layer> {
        todo!()
    }

    /// Layers whose recorded compressed digest is this text, in order of creation.
    pub fn by_compressed_digest(&self, digest: &str) -> Vec<Layer> {
        todo!()
    }

    /// Layers whose recorded uncompressed digest is this text, in order of creation.
    pub fn by_uncompressed_digest(&self, digest: &str) -> Vec<Layer> {
        todo!()
    }

    /// Whether other layers stand on this one.
    pub fn has_children(&self, id: &LayerId) -> bool {
        todo!()
    }

    /// Mounts a layer, by id or name, counting.
    pub fn mount(&self, id_or_name: &str) -> Result<PathBuf> {
        todo!()
    }

    /// Drops one mount, or all with `force`; unknown or not mounted is fine.
    pub fn unmount(&self, id_or_name: &str, force: bool) -> Result<()> {
        todo!()
    }

    /// What the layer itself holds, and the directory that was counted; unknown: `None`.
    pub fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>> {
        todo!()
    }

    /// Where the layer's content is; unknown: `NotFound`.
    pub fn metadata(&self, id: &LayerId) -> Result<Metadata> {
        todo!()
    }

    /// Rebuilds the list of lower layers if it is broken.
    pub fn repair_lowers(&self, id_or_name: &str) -> Result<()> {
        todo!()
    }

    /// Compares an image layer with its tar-split stream, without mounting it; a container's layer is valid.
    pub fn check(&self, id_or_name: &str) -> Result<Verdict> {
        todo!()
    }

    /// Writes the exact uncompressed tar of an image layer; verified against the recorded diff digest: on a mismatch
    /// the error comes after the bytes.
    pub fn export(&self, id_or_name: &str, out: &mut dyn Write) -> Result<(Digest, Bytes)> {
        todo!()
    }

    /// The driver's name, backing file system and status lines.
    pub fn status(&self) -> Result<DriverStatus> {
        todo!()
    }

    /// The driver.
    pub fn driver(&self) -> &dyn GraphDriver {
        todo!()
    }

    /// What was found wrong when the store was opened.
    pub fn problems(&self) -> Vec<Problem> {
        todo!()
    }

    /// What lies in quarantine, records and driver data.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        todo!()
    }

    /// Ends the store: waits for running creates, releases the driver and the lock. Later calls give `NotReady`.
    /// Layers stay mounted.
    pub fn close(&self) -> Result<()> {
        todo!()
    }
}
