// SPDX-License-Identifier: MulanPSL-2.0
//! The plain driver: each layer is a whole tree, a copy of its parent's with its own changes. For file systems
//! without overlay, for tests, and as the simplest thing that the contract can mean.
//!
//! ```text
//! <root>/vfs/                 0700
//!   dir/                      0700
//!     <id>/                   0755 or as its archive says: the layer's whole tree
//!   .isula-storage/           0700  lock, trash, quarantine, staging (see `driver::home`)
//! ```
//!
//! Files are shared by reflink where the file system can. Nothing is mounted: a layer's root is its directory, writable
//! also for image layers, and `is_mounted` is false. What a layer "itself holds" is its whole tree. Works without root,
//! as far as the content does; everything then belongs to the caller. For a user namespace, `vfs/`, `dir/` and the root of
//! each layer belong to its root.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::archive::{self, ApplyOptions, DiffBase, VerifyOptions, Whiteouts};
use crate::digest::Digest;
use crate::driver::home::{Home, Parked, Staged};
use crate::driver::{
    Applied, Change, Depth, Diffed, DriverOptions, DriverStatus, GraphDriver, LayerKind, Limits, Metadata,
    NewLayer, OwnerShift, Prepared, Removed, Verdict, options,
};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;
use crate::sys::fs::{Dir, FileKind, filesystem_name};
use crate::sys::node;
use crate::units::{Bytes, Usage};

const LAYERS: &str = "dir";
/// Name under which a tree is built in its staging directory.
const TREE: &str = "tree";
const HOME_MODE: u32 = 0o700;
const ROOT_MODE: u32 = 0o755;

/// The plain driver.
#[derive(Debug)]
pub struct Vfs {
    layers: PathBuf,
    /// `None` after `clean_up`.
    open: RwLock<Option<Arc<Store>>>,
}

#[derive(Debug)]
struct Store {
    home: Home,
    layers: Dir,
    owner_shift: Option<OwnerShift>,
    backing_fs: Option<&'static str>,
}

impl Vfs {
    /// Opens the driver with its data in `home`.
    pub fn open(home: &Path, driver: &DriverOptions) -> Result<Vfs> {
        options::refuse_all("vfs", &driver.options)?;
        let layers = home.join(LAYERS);
        let store = Store::open(home, &layers, driver).during(|| "open vfs driver")?;
        Ok(Vfs { layers, open: RwLock::new(Some(Arc::new(store))) })
    }

    fn store(&self) -> Result<Arc<Store>> {
        let store = self.open.read().clone();
        store.ok_or_else(|| Error::new(ErrorKind::NotReady, "the vfs driver is closed"))
    }
}

impl GraphDriver for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let store = self.store()?;
        store.home.check_writable()?;
        refuse_storage_options(layer)?;
        store.create(layer).during(|| format!("create layer {}", layer.id))
    }

    fn apply(
        &self,
        id: &LayerId,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied> {
        let store = self.store()?;
        store.home.check_writable()?;
        let applied = store.unpack(&store.layer(id)?, source, tar_split, limits);
        applied.during(|| format!("unpack layer {id}"))
    }

    fn prepare(
        &self,
        layer: &NewLayer<'_>,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<(Applied, Box<dyn Prepared>)> {
        let store = self.store()?;
        store.home.check_writable()?;
        let prepared = store.prepare(layer, source, tar_split, limits);
        let (applied, parked) = prepared.during(|| format!("unpack layer {} aside", layer.id))?;
        Ok((applied, Box::new(Aside { store, id: layer.id.clone(), parked: Some(parked) })))
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        let store = self.store()?;
        store.home.flush_tree(&store.layer(id)?)
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        let store = self.store()?;
        let discarded = store.home.state()?.discard(&store.layers, id.as_str());
        discarded.during(|| format!("remove layer {id}")).map(Removed::of)
    }

    fn quarantine(&self, id: &LayerId, reason: &str) -> Result<Option<Quarantined>> {
        let store = self.store()?;
        store.home.check_writable()?;
        match store.layers.stat(id.as_str())? {
            None => Ok(None),
            Some(_) => store.home.state()?.quarantine(&store.layers, id.as_str(), reason).map(Some),
        }
    }

    fn restore(&self, entry: &Quarantined) -> Result<()> {
        let store = self.store()?;
        store.home.state()?.restore(entry, &store.layers)
    }

    fn mount(&self, id: &LayerId, _kind: LayerKind, _mount_label: Option<&str>) -> Result<PathBuf> {
        let store = self.store()?;
        store.home.check_writable()?;
        Ok(store.layer(id)?.path().to_owned())
    }

    fn unmount(&self, _id: &LayerId) -> Result<()> {
        self.store()?.home.check_writable()
    }

    fn is_mounted(&self, _id: &LayerId) -> Result<bool> {
        self.store().map(|_| false)
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        self.store()?.find(id).map(|layer| layer.is_some())
    }

    fn validate(&self, id: &LayerId, _parent: Option<&LayerId>) -> Result<()> {
        self.store()?.layer(id).map(drop)
    }

    fn repair_lowers(&self, _id: &LayerId, _parent: Option<&LayerId>) -> Result<()> {
        self.store().map(drop)
    }

    fn metadata(&self, id: &LayerId) -> Result<Metadata> {
        let path = self.store()?.layer(id)?.path().to_string_lossy().into_owned();
        Ok(vec![("MergedDir", path.clone()), ("UpperDir", path)])
    }

    fn mount_path(&self, id: &LayerId) -> PathBuf {
        self.layers.join(id)
    }

    fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>> {
        let Some(layer) = self.store()?.find(id)? else { return Ok(None) };
        Ok(Some((layer.path().to_owned(), layer.usage()?)))
    }

    fn export(&self, id: &LayerId, tar_split: &mut dyn Read, out: &mut dyn Write) -> Result<(Digest, Bytes)> {
        let layer = self.store()?.layer(id)?;
        archive::rebuild(tar_split, layer.as_fd(), out).during(|| format!("export layer {id}"))
    }

    fn diff(&self, id: &LayerId, parent: Option<&LayerId>, out: &mut dyn Write) -> Result<Diffed> {
        let store = self.store()?;
        store.compare(id, parent, |tree, base| archive::diff(tree, base, store.owner_shift, out))
    }

    fn changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Change>> {
        self.store()?.compare(id, parent, |tree, base| {
            let mut changes = Vec::new();
            archive::changes(tree, base, &mut |change| {
                changes.push(change);
                Ok(())
            })?;
            Ok(changes)
        })
    }

    fn diff_size(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Bytes> {
        self.store()?.compare(id, parent, archive::diff_size)
    }

    fn verify(&self, id: &LayerId, tar_split: &mut dyn Read, depth: Depth) -> Result<Verdict> {
        let store = self.store()?;
        let layer = store.layer(id)?;
        let options = VerifyOptions { whiteouts: Whiteouts::Remove, owner_shift: store.owner_shift, depth };
        archive::verify(tar_split, layer.as_fd(), &options).during(|| format!("verify layer {id}"))
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        let entries = self.store()?.layers.entries()?;
        let dirs = entries.iter().filter(|entry| entry.kind == FileKind::Dir);
        Ok(dirs.filter_map(|entry| LayerId::new(entry.name.to_str()?).ok()).collect())
    }

    fn lowers(&self, _id: &LayerId) -> Result<Vec<LayerId>> {
        Ok(Vec::new())
    }

    fn purge(&self, entry: &Quarantined) -> Result<Removed> {
        let purged = self.store()?.home.state()?.purge(entry)?;
        Ok(Removed::of(purged))
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.store()?.home.quarantined()
    }

    fn status(&self) -> Result<DriverStatus> {
        let backing_fs = self.store()?.backing_fs.unwrap_or("unknown");
        Ok(DriverStatus {
            driver_name: self.name().to_owned(),
            backing_fs: backing_fs.to_owned(),
            status: format!("Backing Filesystem: {backing_fs}\n"),
        })
    }

    fn clean_up(&self) -> Result<()> {
        drop(self.open.write().take());
        Ok(())
    }
}

impl Store {
    fn open(home: &Path, layers: &Path, driver: &DriverOptions) -> Result<Store> {
        let dir = if driver.read_only {
            Dir::open(home)?
        } else {
            drop(Dir::create_all(layers, HOME_MODE)?);
            Dir::open(home)?
        };
        let layers = dir.open_dir(LAYERS)?;
        let backing_fs = filesystem_name(dir.as_fd())?;
        let home = Home::open(dir, driver.durability, driver.read_only)?;
        let store = Store { home, layers, owner_shift: driver.owner_shift, backing_fs };
        if !driver.read_only {
            store.shift_owner(store.home.dir())?;
            store.shift_owner(&store.layers)?;
        }
        Ok(store)
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let id = layer.id;
        if self.layers.stat(id.as_str())?.is_some() {
            let reason = "data without a record were in the way of a new layer of this id";
            let aside = self.home.state()?.quarantine(&self.layers, id.as_str(), reason)?;
            log::warn!("layer {id}: left-over data moved to {}", aside.path.display());
        }
        let staged = self.stage(layer)?;
        staged.publish_part(TREE, &self.layers, id.as_str())
    }

    /// An empty layer, or a copy of the parent, in the staging directory.
    fn stage(&self, layer: &NewLayer<'_>) -> Result<Staged<'_>> {
        let staged = self.home.stage()?;
        match layer.parent {
            Some(parent) => {
                drop(self.layer(parent).during(|| "parent layer")?);
                self.layers.copy_tree(parent.as_str(), staged.dir(), TREE)?;
                self.home.flush_tree(staged.dir())?;
            }
            None => {
                let tree = staged.dir().create_dir(TREE, ROOT_MODE)?;
                self.shift_owner(&tree)?;
                self.home.flush(&tree)?;
            }
        }
        Ok(staged)
    }

    fn unpack(
        &self,
        tree: &Dir,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied> {
        let options = ApplyOptions {
            whiteouts: Whiteouts::Remove,
            limits: limits.clone(),
            owner_shift: self.owner_shift,
            owners: node::is_root(),
            ..ApplyOptions::default()
        };
        archive::apply(source, tree.as_fd(), tar_split, &options)
    }

    fn prepare(
        &self,
        layer: &NewLayer<'_>,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<(Applied, Parked)> {
        let staged = self.stage(layer)?;
        let tree = staged.dir().open_dir(TREE)?;
        let applied = self.unpack(&tree, source, tar_split, limits)?;
        Ok((applied, staged.park()?))
    }

    fn install(&self, id: &LayerId, parked: Parked, reason: &str) -> Result<Option<Quarantined>> {
        let staged = self.home.resume(parked)?;
        self.home.flush_tree(staged.dir())?;
        let state = self.home.state()?;
        let old = match self.layers.stat(id.as_str())? {
            Some(_) => Some(state.quarantine(&self.layers, id.as_str(), reason)?),
            None => None,
        };
        match staged.publish_part(TREE, &self.layers, id.as_str()) {
            Ok(()) => Ok(old),
            Err(error) => {
                if let Some(old) = old
                    && let Err(also) = state.restore(&old, &self.layers)
                {
                    log::error!("layer {id}: put its data back: {}", also.report());
                }
                Err(error)
            }
        }
    }

    fn compare<T>(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        compare: impl FnOnce(BorrowedFd<'_>, &DiffBase<'_>) -> Result<T>,
    ) -> Result<T> {
        let tree = self.layer(id)?;
        let parent = parent.map(|parent| self.layer(parent)).transpose()?;
        let base = DiffBase::Tree(parent.as_ref().map(Dir::as_fd));
        compare(tree.as_fd(), &base).during(|| format!("compare layer {id}"))
    }

    /// Gives a directory to the owner of the user namespace, if there is one.
    fn shift_owner(&self, dir: &Dir) -> Result<()> {
        match self.owner_shift {
            None => Ok(()),
            Some(shift) => std::os::unix::fs::fchown(dir, Some(shift.uid), Some(shift.gid))
                .during(|| format!("change owner of {}", dir.path().display())),
        }
    }

    fn layer(&self, id: &LayerId) -> Result<Dir> {
        self.find(id)?.ok_or_else(|| {
            Error::not_found(format!("layer {id}: no such layer in {}", self.layers.path().display()))
        })
    }

    fn find(&self, id: &LayerId) -> Result<Option<Dir>> {
        match self.layers.open_dir(id.as_str()) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.context(format!("open layer {id}"))),
        }
    }
}

/// Content unpacked aside.
struct Aside {
    store: Arc<Store>,
    id: LayerId,
    /// `None` once it is installed.
    parked: Option<Parked>,
}

impl Prepared for Aside {
    fn install(mut self: Box<Self>, reason: &str) -> Result<Option<Quarantined>> {
        let doing = || format!("replace the data of layer {}", self.id);
        let Some(parked) = self.parked.take() else {
            return Err(Error::new(ErrorKind::NotReady, "they were installed before").context(doing()));
        };
        self.store.install(&self.id, parked, reason).during(doing)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Taken up again, and dropped unpublished, it is removed.
        if let Some(Err(error)) = self.parked.take().map(|parked| self.store.home.resume(parked).map(drop)) {
            log::warn!("remove what was unpacked for layer {}: {}", self.id, error.report());
        }
    }
}

fn refuse_storage_options(layer: &NewLayer<'_>) -> Result<()> {
    match (layer.storage_options.first(), layer.kind) {
        (None, _) => Ok(()),
        (Some((key, _)), LayerKind::ReadOnly) => {
            Err(Error::invalid(format!("storage option {key}: an image layer takes no storage options")))
        }
        (Some((key, _)), LayerKind::ReadWrite) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("storage option {key}: vfs has no storage options"),
        )),
    }
}
