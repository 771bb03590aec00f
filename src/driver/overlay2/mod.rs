// SPDX-License-Identifier: MulanPSL-2.0
//! The overlay driver: each layer is a directory, a mount puts them on top of each other.
//!
//! ```text
//! <root>/overlay/                      0700, bound on itself and private unless overlay2.skip_mount_home
//!   backingFsBlockDev             b    0600  device node of the file system below (xfs, ext); best effort
//!   l/                                 0700
//!     <26 hex>                    ->   ../<id>/diff     the layer's short name
//!   <id>/                              0700  one layer
//!     diff/                            0755  its content; upper directory of a container's layer
//!     link                             0644  its name in l/: 26 lower-case hex digits, no newline
//!     lower                            0644  l/<parent's link>:l/<grandparent's link>:…, no newline; only with a parent
//!     empty/                           0700  lower directory of a base layer; only without a parent
//!     work/                            0700  for the kernel
//!     merged/                          0700  mount point
//!   .isula-storage/                    0700  ours: lock, trash, quarantine, staging (see `driver::home`)
//!     projects/                        0700  of limited layers, see `quota`; made with the first of them
//!       <number>              ->   <bytes>   a project of this store, and the size that was asked for
//! ```
//!
//! This is the layout of iSulad, in which names starting with a dot do not occur and are passed over. For a user
//! namespace, `overlay/`, `l/`, `<id>/`, `diff/`, `work/` and `merged/` belong to its root; the rest to the caller.
//!
//! **Life of a layer.** Built in `staging`, renamed to `<id>`; filled; mounted and unmounted; renamed to the trash, then
//! its short name goes. What was lost and can be derived is rebuilt when the layer is looked at: a name in `l/`, the
//! file `link`, the file `lower`, `work/`, `merged/`, `empty/`. Nothing is deleted out of doubt.
//!
//! **Crash safety.** A layer is absent or whole at any moment. A short name without its layer is swept at start, unless a
//! layer still has it below: then it is kept, and a new layer of that id takes it, which heals the layers above.
//!
//! **Concurrency.** No lock is held during any work; calls for one layer are serialised by the caller.
//!
//! Source: the layout is read off stores written by iSulad (`tests/golden`).

mod create;
mod diff;
mod examine;
mod layout;
mod mount;
mod open;
mod prepare;
mod quota;
mod remote;
mod repair;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use once_cell::sync::OnceCell;
use parking_lot::{Mutex, RwLock};

use crate::archive::{self, ApplyOptions, VerifyOptions, Whiteouts};
use crate::digest::Digest;
use crate::driver::home::Home;
use crate::driver::options::OverlayOptions;
use crate::driver::{
    Applied, Change, Defect, Depth, Diffed, DriverOptions, DriverStatus, GraphDriver, LayerKind, Limits,
    Metadata, MountOptions, NewLayer, OwnerShift, Prepared, Removed, SharedLayers, Verdict,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;
use crate::sys::fs::{Dir, FileKind};
use crate::sys::mount::MountMethod;
use crate::units::{Bytes, Usage};

use layout::{DIFF, LinkName, MERGED, WORK};

/// The overlay driver.
#[derive(Debug)]
pub struct Overlay2 {
    name: &'static str,
    home: PathBuf,
    /// Whether it was opened with layers that other hosts share.
    shares: bool,
    /// `None` after `clean_up`.
    open: RwLock<Option<Arc<Overlay>>>,
}

/// The driver while it is open. What needs the disk is done here, in the modules beside.
#[derive(Debug)]
struct Overlay {
    home: Home,
    links: Dir,
    options: OverlayOptions,
    /// Unless the file system has none.
    projects: Option<Arc<quota::Projects>>,
    owner_shift: Option<OwnerShift>,
    backing_fs: Option<&'static str>,
    /// How to mount, once it was asked for.
    method: OnceCell<MountMethod>,
    /// Short names of layers that are gone but that other layers have below them.
    kept_links: Mutex<HashMap<LayerId, LinkName>>,
    /// Layers that other hosts share, if they are asked for.
    remote: Option<remote::Remote>,
    /// Last, because open directories keep the mount busy.
    _bound: Option<open::BoundHome>,
}

impl Overlay2 {
    /// Opens the driver with its data in `home`. `name` is what it is called, `overlay` or `overlay2`.
    pub fn open(name: &'static str, home: &Path, options: &DriverOptions) -> Result<Overlay2> {
        let overlay = Overlay::open(home, options).map_err(|error| error.context("open overlay driver"))?;
        Ok(Overlay2 {
            name,
            home: home.to_owned(),
            shares: false,
            open: RwLock::new(Some(Arc::new(overlay))),
        })
    }

    fn overlay(&self) -> Result<Arc<Overlay>> {
        let overlay = self.open.read().clone();
        overlay.ok_or_else(|| Error::new(ErrorKind::NotReady, "the overlay driver is closed"))
    }
}

impl GraphDriver for Overlay2 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        self.overlay()?.create(layer)
    }

    fn apply(
        &self,
        id: &LayerId,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied> {
        self.overlay()?.apply(id, source, tar_split, limits)
    }

    fn prepare(
        &self,
        layer: &NewLayer<'_>,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<(Applied, Box<dyn Prepared>)> {
        prepare::prepare(self.overlay()?, layer, source, tar_split, limits)
    }

    fn creates_ahead(&self) -> bool {
        true
    }

    fn settle(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.overlay()?.settle(id, parent)
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        let overlay = self.overlay()?;
        overlay.home.flush_tree(&overlay.diff(id)?)
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.overlay()?.remove(id)
    }

    fn quarantine(&self, id: &LayerId, reason: &str) -> Result<Option<Quarantined>> {
        self.overlay()?.quarantine(id, reason)
    }

    fn restore(&self, entry: &Quarantined) -> Result<()> {
        self.overlay()?.restore(entry)
    }

    fn mount(&self, id: &LayerId, kind: LayerKind, mount_label: Option<&str>) -> Result<PathBuf> {
        self.mount_with(id, kind, &MountOptions { label: mount_label, ..MountOptions::default() })
    }

    fn mount_with(&self, id: &LayerId, kind: LayerKind, options: &MountOptions<'_>) -> Result<PathBuf> {
        self.overlay()?.mount(id, kind, options)
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        self.overlay()?.unmount(id)
    }

    fn is_mounted(&self, id: &LayerId) -> Result<bool> {
        self.overlay()?.is_mounted(id)
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        self.overlay()?.exists(id)
    }

    fn validate(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.overlay()?.validate(id, parent)
    }

    fn repair_lowers(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.overlay()?.repair_lowers(id, parent)
    }

    fn metadata(&self, id: &LayerId) -> Result<Metadata> {
        self.overlay()?.metadata(id)
    }

    fn mount_path(&self, id: &LayerId) -> PathBuf {
        self.home.join(id).join(MERGED)
    }

    fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>> {
        let overlay = self.overlay()?;
        let Some(layer) = overlay.find_layer(id)? else { return Ok(None) };
        let diff = layer.open_dir(DIFF)?;
        let usage = match overlay.projects.as_ref().and_then(|projects| projects.usage(&layer)) {
            Some(usage) => usage,
            None => diff.usage()?,
        };
        Ok(Some((diff.path().to_owned(), usage)))
    }

    fn limit(&self, id: &LayerId) -> Result<Option<Bytes>> {
        let overlay = self.overlay()?;
        let (Some(projects), Some(layer)) = (&overlay.projects, overlay.find_layer(id)?) else {
            return Ok(None);
        };
        projects.limit_of(&layer)
    }

    fn export(&self, id: &LayerId, tar_split: &mut dyn Read, out: &mut dyn Write) -> Result<(Digest, Bytes)> {
        archive::rebuild(tar_split, self.overlay()?.diff(id)?.as_fd(), out)
            .map_err(|error| error.context(format!("export layer {id}")))
    }

    fn diff(&self, id: &LayerId, parent: Option<&LayerId>, out: &mut dyn Write) -> Result<Diffed> {
        let overlay = self.overlay()?;
        overlay.compare(id, parent, |tree, base| archive::diff(tree, base, overlay.owner_shift, out))
    }

    fn changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Change>> {
        self.overlay()?.compare(id, parent, |tree, base| {
            let mut changes = Vec::new();
            archive::changes(tree, base, &mut |change| {
                changes.push(change);
                Ok(())
            })?;
            Ok(changes)
        })
    }

    fn diff_size(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Bytes> {
        self.overlay()?.compare(id, parent, archive::diff_size)
    }

    fn verify(&self, id: &LayerId, tar_split: &mut dyn Read, depth: Depth) -> Result<Verdict> {
        let overlay = self.overlay()?;
        let options =
            VerifyOptions { whiteouts: Whiteouts::Overlay, owner_shift: overlay.owner_shift, depth };
        archive::verify(tar_split, overlay.diff(id)?.as_fd(), &options)
            .map_err(|error| error.context(format!("verify layer {id}")))
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        self.overlay()?.layers()
    }

    fn lowers(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        self.overlay()?.lowers_of(id)
    }

    fn examine(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Defect>> {
        self.overlay()?.examine(id, parent).map_err(|error| error.context(format!("examine layer {id}")))
    }

    fn strays(&self) -> Result<Vec<String>> {
        match &self.overlay()?.projects {
            Some(projects) => projects.strays(),
            None => Ok(Vec::new()),
        }
    }

    fn purge(&self, entry: &Quarantined) -> Result<Removed> {
        let overlay = self.overlay()?;
        let removed = Removed::of(overlay.home.state()?.purge(entry)?);
        Ok(match overlay.projects.clone() {
            Some(projects) => removed.then(move || projects.sweep()),
            None => removed,
        })
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.overlay()?.home.quarantined()
    }

    fn status(&self) -> Result<DriverStatus> {
        let backing_fs = self.overlay()?.backing_fs.unwrap_or("unknown");
        Ok(DriverStatus {
            driver_name: self.name.to_owned(),
            backing_fs: backing_fs.to_owned(),
            status: format!("Backing Filesystem: {backing_fs}\nSupports d_type: true\n"),
        })
    }

    fn clean_up(&self) -> Result<()> {
        // The last user of the open driver closes its directories and takes the mount of the home away.
        drop(self.open.write().take());
        Ok(())
    }

    fn shared(&self) -> Option<&dyn SharedLayers> {
        self.shares.then_some(self)
    }
}

impl Overlay {
    fn apply(
        &self,
        id: &LayerId,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied> {
        self.home.check_writable()?;
        let diff = self.diff(id)?;
        if !diff.entries()?.is_empty() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("layer {id} has content already")));
        }
        self.unpack(&diff, source, tar_split, limits)
            .map_err(|error| error.context(format!("unpack layer {id}")))
    }

    fn unpack(
        &self,
        diff: &Dir,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied> {
        let options = ApplyOptions {
            whiteouts: Whiteouts::Overlay,
            limits: limits.clone(),
            owner_shift: self.owner_shift,
            ..ApplyOptions::default()
        };
        archive::apply(source, diff.as_fd(), tar_split, &options)
    }

    /// The content of an existing layer.
    fn diff(&self, id: &LayerId) -> Result<Dir> {
        self.layer(id)?.open_dir(DIFF)
    }

    fn metadata(&self, id: &LayerId) -> Result<Metadata> {
        let layer = self.layer(id)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let own = |name: &str| text(layer.path().join(name));
        let mut metadata = vec![("WorkDir", own(WORK)), ("MergedDir", own(MERGED)), ("UpperDir", own(DIFF))];
        if let Some(lowers) =
            self.resolved_lowers(&layer).map_err(|error| error.context(format!("layer {id}")))?
        {
            let home = self.home.dir().path();
            let paths: Vec<_> = lowers.iter().map(|lower| text(home.join(lower.path()))).collect();
            metadata.push(("LowerDir", paths.join(":")));
        }
        Ok(metadata)
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        let entries = self.home.dir().entries()?;
        let ids = entries.iter().filter_map(|entry| {
            let id = LayerId::new(entry.name.to_str()?).ok()?;
            let there = entry.kind == FileKind::Dir || self.is_shared_layer(entry.kind, &id);
            (there && !layout::is_reserved(id.as_str())).then_some(id)
        });
        Ok(ids.collect())
    }
}
