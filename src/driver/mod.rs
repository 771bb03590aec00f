// SPDX-License-Identifier: MulanPSL-2.0
//! Graph drivers: how layer content is kept and mounted.
//!
//! [`GraphDriver`] is the whole contract; `tests/driver_conformance.rs` runs one suite on every driver.

pub mod devmapper;
mod home;
pub mod options;
pub mod overlay2;
pub mod vfs;

use std::collections::HashSet;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::archive::{
    Applied, Change, ChangeKind, Compression, Depth, Diffed, Limits, OwnerShift, Verdict,
};
use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::{Discarded, Durability, Quarantined};
use crate::units::{Bytes, Usage};

/// How to open a driver.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// `storage_root`; the driver's home is `<root>/<driver name on disk>`.
    pub root: PathBuf,
    /// `overlay`, `overlay2` (both keep their data in `overlay/`), `vfs`, `devicemapper`.
    pub name: String,
    /// `key=value` strings of the daemon's `storage-opts`, unmodified.
    pub options: Vec<String>,
    /// How writes are made durable.
    pub durability: Durability,
    /// Nothing is ever written and nothing mounted.
    pub read_only: bool,
    /// Owner of directories and shift of content for a user namespace.
    pub owner_shift: Option<OwnerShift>,
}

/// Whether a layer is written once from an archive or by a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// An image layer.
    ReadOnly,
    /// A container's layer.
    ReadWrite,
}

/// What a new layer is to be.
#[derive(Debug, Clone)]
pub struct NewLayer<'a> {
    /// Its id.
    pub id: &'a LayerId,
    /// The layer it stands on.
    pub parent: Option<&'a LayerId>,
    /// Image or container.
    pub kind: LayerKind,
    /// Storage options in the caller's order, such as `size=10G`.
    pub storage_options: &'a [(String, String)],
    /// SELinux label, or none.
    pub mount_label: Option<&'a str>,
}

/// How to mount a layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions<'a> {
    /// SELinux label, or none.
    pub label: Option<&'a str>,
    /// Options in place of those of the driver's own configuration, if there are any.
    pub options: &'a [String],
    /// All layers that it stands on by their records, its parent first; empty where the caller does not know. A driver that
    /// finds others in its own files refuses: `Corrupt`.
    pub below: &'a [LayerId],
}

/// What a driver says of itself (`isula info`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverStatus {
    /// Name, as in the reference's driver table.
    pub driver_name: String,
    /// File system below it.
    pub backing_fs: String,
    /// Lines `Name: value`, each ended by a newline.
    pub status: String,
}

/// Where a layer's content is: known keys `LowerDir MergedDir UpperDir WorkDir DeviceId DeviceName DeviceSize`.
pub type Metadata = Vec<(&'static str, String)>;

/// Data of a removed layer, on its way out.
#[must_use = "the data are removed only by `remove` or at the next start"]
pub struct Removed {
    data: Vec<Discarded>,
    then: Option<Box<dyn FnOnce() + Send>>,
}

impl Removed {
    /// Data that lie in a trash.
    pub(crate) fn of(data: impl IntoIterator<Item = Discarded>) -> Removed {
        Removed { data: data.into_iter().collect(), then: None }
    }

    /// The same, and what is to be done when they are gone.
    pub(crate) fn then(self, then: impl FnOnce() + Send + 'static) -> Removed {
        Removed { then: Some(Box::new(then)), ..self }
    }

    /// Removes the data; call it outside every lock. Best effort: what fails is logged and retried at the next start.
    pub fn remove(self) {
        self.data.into_iter().for_each(Discarded::remove);
        if let Some(then) = self.then {
            then();
        }
    }
}

impl fmt::Debug for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Removed").field(&self.data).finish()
    }
}

/// Something that is wrong with a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// What, for people.
    pub what: String,
    /// [`GraphDriver::validate`] puts it right.
    pub derivable: bool,
    /// The layer's own content is not there.
    pub missing: bool,
}

impl Defect {
    /// One that can be put right from what is there.
    pub fn derivable(what: impl Into<String>) -> Defect {
        Defect { what: what.into(), derivable: true, missing: false }
    }

    /// One that cannot.
    pub fn lasting(what: impl Into<String>) -> Defect {
        Defect { what: what.into(), derivable: false, missing: false }
    }

    /// The layer's own content is not there.
    pub fn missing(what: impl Into<String>) -> Defect {
        Defect { what: what.into(), derivable: false, missing: true }
    }
}

/// A layer's content, unpacked aside. Dropped: removed.
pub trait Prepared: Send {
    /// Takes the place of the layer's data, durably; what was there goes to quarantine with the reason. Layers that stand on
    /// it find it under the same name. The caller sees to it that neither the layer nor any of those is mounted. After an
    /// error the layer's data are where they were.
    fn install(self: Box<Self>, reason: &str) -> Result<Option<Quarantined>>;
}

/// A graph driver. All methods may be called from any thread at any time; the caller (the layer store) serialises
/// calls for one layer and never removes a layer that others stand on.
pub trait GraphDriver: Send + Sync {
    /// Name by which it is known, as configured: `overlay`, `overlay2`, `vfs`, `devicemapper`.
    fn name(&self) -> &'static str;

    /// Makes an empty layer. A left-over directory of that id (no record knows it) is put into quarantine first.
    /// Nothing remains after an error. Reserved names (`l`, …) are `InvalidArgument`; an unknown parent `NotFound`.
    fn create(&self, layer: &NewLayer<'_>) -> Result<()>;

    /// Fills an empty layer from an archive stream, read to its end, and writes its gzip-compressed tar-split stream.
    /// Not durable until [`GraphDriver::sync`].
    fn apply(
        &self,
        id: &LayerId,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied>;

    /// Unpacks an archive aside, as [`GraphDriver::apply`] would into a layer made like this; a layer of that id is neither
    /// read nor changed. A driver that cannot: `Unsupported`, and nothing is read.
    fn prepare(
        &self,
        layer: &NewLayer<'_>,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<(Applied, Box<dyn Prepared>)> {
        let _ = (source, tar_split, limits);
        let message = format!("driver {} cannot unpack layer {} aside", self.name(), layer.id);
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Whether a layer can be made on a parent, and filled, while the parent is still being filled. Then
    /// [`GraphDriver::settle`] is called when the parent has its content.
    fn creates_ahead(&self) -> bool {
        false
    }

    /// For a layer made on a parent that was not complete: sets right what depends on the parent's content, durably.
    fn settle(&self, _id: &LayerId, _parent: Option<&LayerId>) -> Result<()> {
        Ok(())
    }

    /// Makes a layer's content durable.
    fn sync(&self, id: &LayerId) -> Result<()>;

    /// Moves a layer out of the driver; unmounts it first and fails with `InUse` rather than touch a live mount.
    /// Absent: nothing to remove, `Ok`.
    fn remove(&self, id: &LayerId) -> Result<Removed>;

    /// Puts a layer's data aside out of doubt; unmounts it first and fails with `InUse` rather than move a live
    /// mount. Absent: `None`.
    fn quarantine(&self, id: &LayerId, reason: &str) -> Result<Option<Quarantined>>;

    /// Moves a layer's data out of quarantine to where they were; a layer of that id exists: `AlreadyExists`.
    fn restore(&self, entry: &Quarantined) -> Result<()>;

    /// Mounts a layer and gives its root; already mounted is success. `NotFound` when the layer does not exist.
    ///
    /// A container's layer is mounted writable. An image layer is mounted read-only where the driver can, so that
    /// looking into it does not change it (the reference mounts it writable, and the kernel then leaves attributes
    /// on it).
    fn mount(&self, id: &LayerId, kind: LayerKind, mount_label: Option<&str>) -> Result<PathBuf>;

    /// The same with options of the caller's. A driver that has nothing to mount takes no notice of them.
    fn mount_with(&self, id: &LayerId, kind: LayerKind, options: &MountOptions<'_>) -> Result<PathBuf> {
        self.mount(id, kind, options.label)
    }

    /// Unmounts a layer; not mounted or absent is fine.
    fn unmount(&self, id: &LayerId) -> Result<()>;

    /// Whether it is mounted now, asked of the kernel. `false` from a driver that has nothing to mount.
    fn is_mounted(&self, id: &LayerId) -> Result<bool>;

    /// Whether the layer is there and usable; repairs what is derivable without knowing the parent (a lost
    /// link, `work`, `merged`).
    fn exists(&self, id: &LayerId) -> Result<bool>;

    /// Checks a layer against the parent that its record names and repairs what is derivable; `Corrupt` with the
    /// reason when it is not, `NotFound` when the driver has nothing of it. Validate parents before their children:
    /// what was lost of a child is derived from its parent.
    fn validate(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()>;

    /// The reference's `try_repair_lowers`.
    fn repair_lowers(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()>;

    /// Where the layer's content is. Missing lowers are an error.
    fn metadata(&self, id: &LayerId) -> Result<Metadata>;

    /// Path that a mount of this layer would have; no system call.
    fn mount_path(&self, id: &LayerId) -> PathBuf;

    /// What the layer itself (not its parents) holds, and the directory that was counted. Absent: `None`.
    fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>>;

    /// Most bytes that the layer itself may hold, if the driver limits it. Absent: `None`.
    fn limit(&self, _id: &LayerId) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// The exact tar of a layer made by `apply`: see [`crate::archive::rebuild`].
    fn export(&self, id: &LayerId, tar_split: &mut dyn Read, out: &mut dyn Write) -> Result<(Digest, Bytes)>;

    /// Writes a new layer archive of what a layer changes of `parent`; `None`: of nothing. See [`crate::archive::diff`].
    /// Unknown: `NotFound`; it changes meanwhile: `InUse`. A driver that cannot: `Unsupported`.
    fn diff(&self, id: &LayerId, parent: Option<&LayerId>, out: &mut dyn Write) -> Result<Diffed> {
        let _ = (parent, out);
        Err(self.cannot_compare(id))
    }

    /// The paths that a layer changes of `parent`, in the order of the archive.
    fn changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Change>> {
        let _ = parent;
        Err(self.cannot_compare(id))
    }

    /// Sum of the sizes of the files that [`GraphDriver::diff`] would write.
    fn diff_size(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Bytes> {
        let _ = parent;
        Err(self.cannot_compare(id))
    }

    /// What a driver says that does not compare layers.
    fn cannot_compare(&self, id: &LayerId) -> Error {
        let message = format!("driver {} cannot compare layer {id} with another", self.name());
        Error::new(ErrorKind::Unsupported, message)
    }

    /// Compares a layer with its tar-split stream: see [`crate::archive::verify`].
    fn verify(&self, id: &LayerId, tar_split: &mut dyn Read, depth: Depth) -> Result<Verdict>;

    /// Ids of all layers that the driver has data of, also of those that no record knows.
    fn layers(&self) -> Result<Vec<LayerId>>;

    /// Layers that the data of this one stand on, as far as the data tell; empty where they tell nothing (copies stand
    /// on their own) and for an unknown layer.
    fn lowers(&self, id: &LayerId) -> Result<Vec<LayerId>>;

    /// What lies in the driver's quarantine.
    fn quarantined(&self) -> Result<Vec<Quarantined>>;

    /// What is wrong with a layer as it lies there, compared with the parent that its record names. Reads only.
    fn examine(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Defect>> {
        let _ = parent;
        Ok(match self.exists(id)? {
            true => Vec::new(),
            false => vec![Defect::missing("its data are missing")],
        })
    }

    /// What the driver has that belongs to no layer, each in a sentence for people. Looks only.
    fn strays(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What damage cannot be looked for, opened as it is, each in words for people.
    fn not_looked_for(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Gives up what lies in the driver's quarantine, for good.
    fn purge(&self, entry: &Quarantined) -> Result<Removed>;

    /// Name, backing file system, status lines.
    fn status(&self) -> Result<DriverStatus>;

    /// Releases what the driver holds of the system (mount of its home). Called once, at exit.
    fn clean_up(&self) -> Result<()>;

    /// Layers that other hosts share; `None` unless the driver was opened by [`open_shared`].
    fn shared(&self) -> Option<&dyn SharedLayers> {
        None
    }
}

/// What a driver does for image layers that other hosts share with this one. Such a layer is made by
/// [`GraphDriver::create`] and filled by [`GraphDriver::apply`] like any other, but nobody else sees it before it is
/// published.
pub trait SharedLayers: Send + Sync {
    /// Shows a layer that is whole and durable to all hosts. Another host has shown one of that id: `AlreadyExists`. After
    /// an error nothing remains of it.
    fn publish(&self, id: &LayerId) -> Result<()>;

    /// Takes back a layer that was not published; published or unknown: nothing to do.
    fn abandon(&self, id: &LayerId) -> Result<()>;

    /// Looks through the shared directory and makes sure that each whole layer in it has its names on this host. One that
    /// is not whole is among the problems and keeps no other from being found.
    fn scan(&self) -> Result<SharedScan>;

    /// Whether the shared directory has something of that id now.
    fn has_data(&self, id: &LayerId) -> Result<bool>;

    /// What tells the shared data of a layer from those that had its id before; absent: `None`.
    fn identity(&self, id: &LayerId) -> Result<Option<String>>;

    /// Takes away the names of shared layers on this host; their data are left alone. A layer of this host is not
    /// touched.
    fn forget(&self, ids: &[LayerId]) -> Result<()>;
}

/// What lies in a shared directory.
#[derive(Debug, Clone, Default)]
pub struct SharedScan {
    /// Layers that can be used.
    pub layers: HashSet<LayerId>,
    /// Names that cannot, and why.
    pub problems: Vec<(String, String)>,
}

/// Name of the directory below `storage_root` for a configured driver name: `overlay2` keeps its data in `overlay`.
/// An unknown name: `InvalidArgument`.
pub fn name_on_disk(configured: &str) -> Result<&'static str> {
    Kind::of(configured).map(Kind::directory)
}

/// Opens the driver that `options.name` names.
pub fn open(options: &DriverOptions) -> Result<Arc<dyn GraphDriver>> {
    let kind = Kind::of(&options.name)?;
    // What is told to others (mount points, metadata) has to be true wherever the process is.
    let root = std::path::absolute(&options.root).during(|| "find out where the storage root is")?;
    let home = root.join(kind.directory());
    Ok(match kind {
        Kind::Overlay(name) => Arc::new(overlay2::Overlay2::open(name, &home, options)?),
        Kind::Vfs => Arc::new(vfs::Vfs::open(&home, options)?),
        Kind::DeviceMapper => Arc::new(devmapper::DeviceMapper::open(&home, options)?),
    })
}

/// The same with image layers that other hosts share. A driver that keeps them for itself: `Unsupported`.
pub fn open_shared(options: &DriverOptions) -> Result<Arc<dyn GraphDriver>> {
    let root = std::path::absolute(&options.root).during(|| "find out where the storage root is")?;
    match Kind::of(&options.name)? {
        kind @ Kind::Overlay(name) => {
            Ok(Arc::new(overlay2::Overlay2::open_shared(name, &root.join(kind.directory()), options)?))
        }
        Kind::Vfs | Kind::DeviceMapper => {
            let message = format!("graph driver {} cannot share layers with other hosts", options.name);
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// The drivers that are built in.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Overlay(&'static str),
    Vfs,
    DeviceMapper,
}

impl Kind {
    fn of(configured: &str) -> Result<Kind> {
        match configured {
            "overlay" => Ok(Kind::Overlay("overlay")),
            "overlay2" => Ok(Kind::Overlay("overlay2")),
            "vfs" => Ok(Kind::Vfs),
            "devicemapper" => Ok(Kind::DeviceMapper),
            other => Err(Error::invalid(format!("unknown graph driver {other:?}"))),
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Kind::Overlay(_) => "overlay",
            Kind::Vfs => "vfs",
            Kind::DeviceMapper => "devicemapper",
        }
    }
}

#[cfg(test)]
mod crash_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_overlay_share_one_home() {
        assert_eq!(name_on_disk("overlay").unwrap(), "overlay");
        assert_eq!(name_on_disk("overlay2").unwrap(), "overlay");
        assert_eq!(name_on_disk("vfs").unwrap(), "vfs");
        assert_eq!(name_on_disk("devicemapper").unwrap(), "devicemapper");
        for unknown in ["", "aufs", "Overlay", "../overlay"] {
            assert_eq!(name_on_disk(unknown).unwrap_err().kind(), ErrorKind::InvalidArgument, "{unknown}");
        }
    }
}
