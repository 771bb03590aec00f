// SPDX-License-Identifier: MulanPSL-2.0
//! The devicemapper driver: each layer is a thin device with an ext4 file system, a snapshot of the layer below it.
//!
//! ```text
//! <root>/devicemapper/                     0700
//!   metadata/                              0700
//!     base                                 0640  the device that layers without a parent are snapshots of
//!     <id>                                 0640  one layer: id of its device in the pool, size, transaction that made it
//!     deviceset-metadata                   0640  id that was given last, UUID of the base's file system
//!     transaction-metadata                 0640  what is being done to the pool
//!   mnt/                                   0750
//!     <id>/                                0750  mount point
//!       rootfs/                            0755  the layer
//!       id                                 0600  the first layer of its line that was ever mounted, no newline
//!   .isula-storage/                        0700  ours: lock, trash, quarantine, staging (see `driver::home`)
//! ```
//!
//! This is the layout of iSulad; names starting with a dot do not occur there and are passed over. The devices are
//! called `container-<major>:<minor>-<inode>-<id>`, by the driver's home. The pool is made by somebody else and named by
//! `dm.thinpooldev`; nothing in it is touched that no file of the store names.
//!
//! **Life of a layer.** A snapshot of its parent, or of the base; filled through a mount that is attached nowhere; mounted
//! and unmounted; deleted in the pool. A device that somebody still uses then is marked, and deleted later: see `retry`.
//!
//! **Crash safety.** See `transaction`. A file system that is smaller than its device because growing it was interrupted
//! is grown when it is mounted the next time.
//!
//! **Doubt.** A file that cannot be read is put aside, and the store works without that layer, whose device stays. A
//! transaction that does not fit the pool or the files is put aside, and nothing is deleted. A pool whose base is another
//! than this store's is refused.
//!
//! **Concurrency.** Each device has a lock, taken while it is made active, mounted, or let go; transactions with the pool
//! are one after the other. No lock is held while content is read or written.

mod aside;
mod base;
mod device;
mod layers;
mod names;
mod options;
mod pool;
mod records;
mod retry;
mod status;
mod store;
mod transaction;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::archive::{self, VerifyOptions, Whiteouts};
use crate::digest::Digest;
use crate::driver::{
    Applied, Change, Defect, Depth, Diffed, DriverOptions, DriverStatus, GraphDriver, LayerKind, Limits,
    Metadata, NewLayer, Removed, Verdict,
};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;
use crate::sys::dm::{Dm, Gone, Kernel};
use crate::units::{Bytes, Usage};

use store::{Ext4, FileSystems, Store};

/// The devicemapper driver.
#[derive(Debug)]
pub struct DeviceMapper {
    mounts: PathBuf,
    /// `None` after `clean_up`.
    open: RwLock<Option<Arc<Store>>>,
}

impl DeviceMapper {
    /// Opens the driver with its data in `home`.
    pub fn open(home: &Path, driver: &DriverOptions) -> Result<DeviceMapper> {
        // What is wrong with the options is said first.
        options::Options::parse(&driver.options)?;
        let dm = Kernel::open().during(|| "open devicemapper driver")?;
        DeviceMapper::with(home, driver, Arc::new(dm), Arc::new(Ext4))
    }

    fn with(
        home: &Path,
        driver: &DriverOptions,
        dm: Arc<dyn Dm>,
        filesystems: Arc<dyn FileSystems>,
    ) -> Result<DeviceMapper> {
        let store = Store::open(home, driver, dm, filesystems).during(|| "open devicemapper driver")?;
        let store = Arc::new(store);
        if !driver.read_only {
            store.delete_later();
        }
        Ok(DeviceMapper { mounts: store.mounts.path().to_owned(), open: RwLock::new(Some(store)) })
    }

    fn store(&self) -> Result<Arc<Store>> {
        let store = self.open.read().clone();
        store.ok_or_else(|| Error::new(ErrorKind::NotReady, "the devicemapper driver is closed"))
    }
}

impl GraphDriver for DeviceMapper {
    fn name(&self) -> &'static str {
        "devicemapper"
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let store = self.store()?;
        let created = store.create(layer).during(|| format!("create layer {}", layer.id));
        store.delete_later();
        created
    }

    fn apply(
        &self,
        id: &LayerId,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied> {
        self.store()?.apply(id, source, tar_split, limits).during(|| format!("unpack layer {id}"))
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        self.store()?.sync(id)
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        let store = self.store()?;
        if store.remove(id).during(|| format!("remove layer {id}"))? == Gone::Later {
            log::info!("layer {id}: its device is in use and goes later");
            store.delete_later();
        }
        Ok(Removed::of(None))
    }

    fn quarantine(&self, id: &LayerId, reason: &str) -> Result<Option<Quarantined>> {
        self.store()?.quarantine(id, reason)
    }

    fn restore(&self, entry: &Quarantined) -> Result<()> {
        self.store()?.restore(entry)
    }

    fn mount(&self, id: &LayerId, kind: LayerKind, mount_label: Option<&str>) -> Result<PathBuf> {
        let store = self.store()?;
        store.mount(id, kind, mount_label)?;
        Ok(store.mount_path(id))
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        self.store()?.unmount(id)
    }

    fn is_mounted(&self, id: &LayerId) -> Result<bool> {
        self.store()?.is_mount_point(id.as_str())
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.store()?.find(id).is_some())
    }

    fn validate(&self, id: &LayerId, _parent: Option<&LayerId>) -> Result<()> {
        self.store()?.validate(id)
    }

    fn repair_lowers(&self, _id: &LayerId, _parent: Option<&LayerId>) -> Result<()> {
        self.store().map(drop)
    }

    fn metadata(&self, id: &LayerId) -> Result<Metadata> {
        self.store()?.facts(id)
    }

    fn mount_path(&self, id: &LayerId) -> PathBuf {
        self.mounts.join(id).join("rootfs")
    }

    fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>> {
        let store = self.store()?;
        let Some(record) = store.find(id) else { return Ok(None) };
        let usage = store.view(&record)?.rootfs()?.usage()?;
        Ok(Some((store.mount_path(id), usage)))
    }

    fn export(&self, id: &LayerId, tar_split: &mut dyn Read, out: &mut dyn Write) -> Result<(Digest, Bytes)> {
        let store = self.store()?;
        let view = store.view(&store.layer(id)?)?;
        archive::rebuild(tar_split, view.rootfs()?.as_fd(), out).during(|| format!("export layer {id}"))
    }

    fn diff(&self, id: &LayerId, parent: Option<&LayerId>, out: &mut dyn Write) -> Result<Diffed> {
        let store = self.store()?;
        store.compare(id, parent, |tree, base| archive::diff(tree.as_fd(), base, store.owner_shift, out))
    }

    fn changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Change>> {
        self.store()?.compare(id, parent, |tree, base| {
            let mut changes = Vec::new();
            archive::changes(tree.as_fd(), base, &mut |change| {
                changes.push(change);
                Ok(())
            })?;
            Ok(changes)
        })
    }

    fn diff_size(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Bytes> {
        self.store()?.compare(id, parent, |tree, base| archive::diff_size(tree.as_fd(), base))
    }

    fn verify(&self, id: &LayerId, tar_split: &mut dyn Read, depth: Depth) -> Result<Verdict> {
        let store = self.store()?;
        let view = store.view(&store.layer(id)?)?;
        let options = VerifyOptions { whiteouts: Whiteouts::Remove, owner_shift: store.owner_shift, depth };
        archive::verify(tar_split, view.rootfs()?.as_fd(), &options).during(|| format!("verify layer {id}"))
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        let store = self.store()?;
        let records = store.records.read();
        let layers = records.values().filter(|record| !record.deleted && !names::is_reserved(&record.hash));
        layers.map(|record| LayerId::new(&record.hash)).collect()
    }

    /// Snapshots stand on their own: the pool keeps what they share.
    fn lowers(&self, _id: &LayerId) -> Result<Vec<LayerId>> {
        self.store().map(|_| Vec::new())
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.store()?.home.quarantined()
    }

    fn examine(&self, id: &LayerId, _parent: Option<&LayerId>) -> Result<Vec<Defect>> {
        self.store()?.examine(id).during(|| format!("examine layer {id}"))
    }

    fn strays(&self) -> Result<Vec<String>> {
        let store = self.store()?;
        if store.home.is_read_only() {
            return Ok(Vec::new());
        }
        let pool = &store.pool.name;
        let line = |id| format!("thin pool {pool} has a device {id} that no layer of this store knows");
        Ok(store.orphans()?.into_iter().map(line).collect())
    }

    fn not_looked_for(&self) -> Result<Vec<String>> {
        let store = self.store()?;
        let pool = &store.pool.name;
        let line =
            format!("layers without a device in thin pool {pool}, and devices in it that are of no layer");
        Ok(if store.home.is_read_only() { vec![line] } else { Vec::new() })
    }

    fn purge(&self, entry: &Quarantined) -> Result<Removed> {
        self.store()?.purge(entry)
    }

    fn status(&self) -> Result<DriverStatus> {
        let store = self.store()?;
        Ok(DriverStatus {
            driver_name: self.name().to_owned(),
            backing_fs: store.backing_fs.unwrap_or("unknown").to_owned(),
            status: store.status_text()?,
        })
    }

    fn clean_up(&self) -> Result<()> {
        let store = self.open.write().take();
        store.map_or(Ok(()), |store| store.close())
    }
}

impl Drop for DeviceMapper {
    fn drop(&mut self) {
        if let Some(store) = self.open.get_mut().take() {
            store.stop_retrying();
            if !store.home.is_read_only() {
                store.pool.close_probe();
            }
        }
    }
}
