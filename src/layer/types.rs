// SPDX-License-Identifier: MulanPSL-2.0
//! What callers of the layer store hand in and get back.

use std::path::PathBuf;

use crate::driver::{Limits, OwnerShift};
use crate::id::LayerId;
use crate::persist::{Durability, Ownership};

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
    /// Digest of the archive as it is handed over (`sha256:…`), or of what it was before the caller decompressed it;
    /// verified when the archive is read.
    pub compressed_digest: Option<String>,
    /// Without `compressed_digest`: record the digest that the archive turns out to have.
    pub find_compressed_digest: bool,
    /// Digest of the uncompressed archive (`sha256:…`), as the caller knows it; verified when the archive is read.
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
    /// Where it is or would be mounted; `None` for an image layer that was neither made nor mounted since the store
    /// was opened.
    pub mount_point: Option<PathBuf>,
    /// How often it is mounted.
    pub mount_count: i32,
    /// Digest of the compressed archive, as recorded.
    pub compressed_digest: Option<String>,
    /// Size of the compressed archive in bytes, 0 if not recorded (neither the reference nor this store records it).
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

/// What [`LayerStore::create`](super::LayerStore::create) did.
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
