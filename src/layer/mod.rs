// SPDX-License-Identifier: MulanPSL-2.0
//! The layer store: records of layers, their references, their creation and deletion, over a graph driver.
//!
//! ```text
//! <root>/<driver>-layers/<id>/layer.json            0600  the record
//! <root>/<driver>-layers/<id>/<id>.tar-split.gz     0600  of layers made from an archive
//! <root>/<driver>-layers/<id>/<id>.diff-id          0600  only where the record holds another digest: see `create.rs`
//! <run root>/<driver>-layers/<id>.json              0600  mount count and path
//! <root>/.isula-storage/<driver>-layers/            lock, trash, quarantine (outside `<driver>-layers`, where the
//!                                                   reference deletes every name that is not 64 characters long)
//! ```
//!
//! **Truth.** A layer exists when its record is on disk without the incomplete mark. Creating: the record with the
//! mark, then content and tar-split, all durable, then the record without it, then memory. Deleting: the record with
//! the mark, then the driver's data into the trash, then the record, then memory. Whatever a crash leaves carries the
//! mark and is removed at the next start; nothing else ever is.
//!
//! **Concurrency.** `index` is guarded by a read-write lock that is held for nanoseconds: lookups take a snapshot and
//! never wait for work. `ledger` says which ids are being created or deleted and how many layers stand on one; it too
//! is never held while anything is read, written or called. Each layer has a mutex that serialises its mounts with
//! each other and with its deletion. Order: a layer's mutex, then `ledger`, then `index`.

mod check;
mod create;
mod delete;
mod diff;
mod direct;
mod disk;
mod entry;
mod heal;
mod index;
mod load;
mod mount;
mod open;
mod quarantine;
mod reaper;
mod registry;
mod remote;
mod types;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::Digest;
use crate::driver::{
    Change, Defect, Depth, Diffed, DriverOptions, DriverStatus, GraphDriver, Limits, Metadata, Verdict,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;
use crate::units::{Bytes, Usage};

use disk::Disk;
use entry::Entry;
use reaper::Reaper;
use registry::Registry;
use remote::Sharing;

pub use direct::{Direct, LoneDriver};
pub use remote::{SharedChanges, SharedView};
pub use types::{CreateLayer, Created, Layer, LayerStoreOptions, Problem};

/// The layer store. All methods may be called from any thread; lookups never wait for a create, apply or delete.
pub struct LayerStore {
    driver: Arc<dyn GraphDriver>,
    disk: Disk,
    registry: Registry,
    reaper: Reaper,
    limits: Limits,
    problems: Vec<Problem>,
    /// Only one repair of a chain at a time: two containers may share a broken base.
    repair: Mutex<()>,
    /// Held by who holds the mutexes of several layers: taken before them.
    healing: Mutex<()>,
    sharing: Sharing,
    /// Layers that were handed out, for tests that count work.
    #[cfg(test)]
    pub(crate) looked_at: std::sync::atomic::AtomicU64,
}

impl LayerStore {
    /// Opens the store and its driver, resumes what a crash left, loads all records. Never deletes out of doubt.
    ///
    /// An owner takes the lock before anything else is touched (held by another process: `InUse`). `ReadOnly` writes
    /// nothing and sees what was complete at this moment. After an error nothing is held; it can be tried again.
    pub fn open(options: LayerStoreOptions) -> Result<LayerStore> {
        LayerStore::open_with(options, crate::driver::open)
    }

    /// The same over a driver of the caller's making; `open_driver` runs under the store's lock.
    pub fn open_with(
        options: LayerStoreOptions,
        open_driver: impl FnOnce(&DriverOptions) -> Result<Arc<dyn GraphDriver>>,
    ) -> Result<LayerStore> {
        open::open(options, false, open_driver)
    }

    /// Opens the store with image layers that other hosts share: those that are made here lie in `<driver>-layers/RO` and in
    /// the driver's `RO`, and those that other hosts put there are listed. Layers that are there already go on working.
    pub fn open_shared(options: LayerStoreOptions) -> Result<LayerStore> {
        open::open(options, true, crate::driver::open_shared)
    }

    /// Looks for layers that other hosts have made or deleted. A new one is listed once its data, its record and all that
    /// it stands on are there. A deleted one is no longer listed, unless something here stands on it, holds it or has it
    /// mounted: then it stays, and is among the problems, until a later call finds it free. One bad entry keeps no other
    /// from being found. `Unsupported` unless opened by [`LayerStore::open_shared`].
    pub fn refresh_shared(&self) -> Result<SharedChanges> {
        self.refresh_shared_layers()
    }

    /// `Unsupported` unless it was opened by [`LayerStore::open_shared`].
    pub fn require_shared(&self) -> Result<()> {
        self.shared().map(|_| ())
    }

    /// Lists one layer that another host has made; listed already: `false`. Not there, or not whole: `NotFound`, `Corrupt`.
    pub fn load_shared(&self, id: &LayerId) -> Result<bool> {
        self.load_shared_layer(id)
    }

    /// Takes a shared layer out of the lists; its data are left alone. Not listed: fine. A layer of this host alone:
    /// `InvalidArgument`; in use here: `InUse`.
    pub fn forget_shared(&self, id: &LayerId) -> Result<()> {
        self.forget_shared_layer(id)
    }

    /// Whether a layer and all that it stands on are listed and, if they are shared, there.
    pub fn is_chain_whole(&self, top: &str) -> bool {
        self.has_whole_chain(top)
    }

    /// Refuses a layer that other hosts use, too, with `Unsupported`: it is not put aside by one of them.
    pub fn check_unshared(&self, id: &LayerId) -> Result<()> {
        self.refuse_shared(id)
    }

    /// What the last look found of a shared layer.
    pub fn sees_shared(&self, id: &LayerId) -> SharedView {
        self.view_shared(id)
    }

    /// Makes a layer, from an archive stream if there is one. Two creates of one id coalesce; the new layer has one hold
    /// reference.
    ///
    /// An id that exists, as id or as name, gains a hold reference; then `content` is not read and nothing is compared,
    /// unless the layer is known to be damaged: see `heal.rs`.
    /// A parent that another thread is creating counts as there: the layer is complete only after it, and fails with it.
    /// Errors: `NotFound` when the parent is not in the store, `AlreadyExists` when a name is taken, `InvalidArgument`
    /// for a malformed digest, `InUse` when `content` itself asks for the layer it is for or when a damaged layer cannot be
    /// replaced now, `DigestMismatch` when the archive is not what was promised, or what the driver said. Nothing of a new
    /// layer remains after an error, and an existing one is as it was.
    pub fn create(
        &self,
        id: &LayerId,
        layer: &CreateLayer,
        content: Option<&mut (dyn Read + Send)>,
    ) -> Result<Created> {
        self.create_layer(id, layer, content)
    }

    /// Whether a layer whose parent is still being created can be filled at the same time; else its creation waits for the
    /// parent's.
    pub fn creates_ahead(&self) -> bool {
        self.driver.creates_ahead()
    }

    /// Adds (`+1`) a hold reference. By id only; unknown: `NotFound`. In memory only, zero after a restart.
    pub fn hold(&self, id: &LayerId) -> Result<()> {
        if self.registry.hold(id) { Ok(()) } else { Err(self.unknown(id.as_str())) }
    }

    /// Drops a hold reference. By id only; unknown: `NotFound`. The count may become negative, as in the reference.
    pub fn release(&self, id: &LayerId) -> Result<()> {
        self.by_id(id)?.add_holds(-1);
        Ok(())
    }

    /// Number of hold references. By id only; unknown: `NotFound`.
    pub fn hold_count(&self, id: &LayerId) -> Result<i32> {
        Ok(self.by_id(id)?.holds())
    }

    /// Deletes a layer, by id or name; unknown is fine. Mounted: unmounted first; still busy: `InUse`, nothing changed.
    /// Other layers stand on it, also some being made: `InUse`. Hold references are the caller's to respect.
    ///
    /// Returns when the layer is gone from every list; its data are removed in the background.
    pub fn delete(&self, id_or_name: &str) -> Result<()> {
        self.delete_layer(id_or_name)
    }

    /// Deletes a layer unless it is in use. By id only; unknown: `NotFound`; held, or other layers stand on it: `InUse`.
    /// Whoever gains a hold reference, by [`LayerStore::hold`] or by [`LayerStore::create`], has it on a layer that stays.
    pub fn delete_unheld(&self, id: &LayerId) -> Result<()> {
        self.delete_unheld_layer(id)
    }

    /// Whether a layer of this id or name exists.
    pub fn exists(&self, id_or_name: &str) -> bool {
        self.registry.find(id_or_name).is_some()
    }

    /// A layer by id or name, exact.
    pub fn find(&self, id_or_name: &str) -> Option<Layer> {
        self.registry.find(id_or_name).map(|entry| self.snapshot(&entry))
    }

    /// All layers, in order of creation (after a restart: of their records' `created`, then id).
    pub fn list(&self) -> Vec<Layer> {
        self.snapshots(&self.registry.all())
    }

    /// Layers whose recorded compressed digest is this text, in order of creation.
    pub fn by_compressed_digest(&self, digest: &str) -> Vec<Layer> {
        self.snapshots(&self.registry.by_compressed_digest(digest))
    }

    /// Layers whose recorded uncompressed digest is this text, in order of creation.
    pub fn by_uncompressed_digest(&self, digest: &str) -> Vec<Layer> {
        self.snapshots(&self.registry.by_uncompressed_digest(digest))
    }

    /// What a layer stands on; `None`: there is no layer of this id. Copies nothing else, as for walks over many.
    pub fn parent(&self, id: &LayerId) -> Option<Option<LayerId>> {
        self.registry.by_id(id).map(|entry| entry.parent().cloned())
    }

    /// Layers on which no other stands, in order of creation, and whether each is a container's.
    pub fn topmost(&self) -> Vec<(LayerId, bool)> {
        let layers = self.registry.topmost();
        layers.iter().map(|entry| (entry.id().clone(), entry.record().writable)).collect()
    }

    /// Whether other layers stand on this one, also some being made.
    pub fn has_children(&self, id: &LayerId) -> bool {
        self.registry.has_children(id)
    }

    /// The layers that are not listed of those that this one stands on, itself included, from the top down. Below one that
    /// nothing is known of, also not in quarantine, nothing is known.
    pub fn missing(&self, top: &LayerId) -> Result<Vec<LayerId>> {
        let _activity = self.registry.enter()?;
        self.missing_layers(top)
    }

    /// Whether something that lies in quarantine, or in its place without being listed, stands on this layer.
    pub fn is_kept(&self, id: &LayerId) -> bool {
        self.registry.is_kept(id)
    }

    /// Mounts a layer, by id or name, counting; unknown: `NotFound`. A mount that is counted but gone is made again.
    pub fn mount(&self, id_or_name: &str) -> Result<PathBuf> {
        self.mount_layer(id_or_name)
    }

    /// Drops one mount, or all with `force`; unknown or not mounted is fine.
    pub fn unmount(&self, id_or_name: &str, force: bool) -> Result<()> {
        self.unmount_layer(id_or_name, force)
    }

    /// What the layer itself holds, and the directory that was counted; unknown: `None`.
    pub fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>> {
        let _activity = self.registry.enter()?;
        self.driver.usage(id)
    }

    /// Most bytes that the layer itself may hold, if it is limited; unknown: `NotFound`.
    pub fn limit(&self, id: &LayerId) -> Result<Option<Bytes>> {
        let _activity = self.registry.enter()?;
        self.driver.limit(self.by_id(id)?.id())
    }

    /// Where the layer's content is; unknown: `NotFound`.
    pub fn metadata(&self, id: &LayerId) -> Result<Metadata> {
        let _activity = self.registry.enter()?;
        let entry = self.by_id(id)?;
        self.repairing(&entry, || self.driver.metadata(id))
    }

    /// Rebuilds the list of lower layers if it is broken; unknown: `NotFound`.
    pub fn repair_lowers(&self, id_or_name: &str) -> Result<()> {
        self.repair_layer(id_or_name)
    }

    /// Compares an image layer with its tar-split stream as far as nothing but damage makes it differ
    /// ([`crate::archive::Depth::Content`]), without mounting it; a layer without a diff digest (a
    /// container's) is valid. Unknown: `NotFound`; without a tar-split stream: `Corrupt`. A layer that is found damaged is
    /// healed by the next [`LayerStore::create`] that brings its archive.
    pub fn check(&self, id_or_name: &str) -> Result<Verdict> {
        self.check_layer(id_or_name, Depth::Content)
    }

    /// The same, and owners, modes, attributes and hard links.
    pub fn check_closely(&self, id_or_name: &str) -> Result<Verdict> {
        self.check_layer(id_or_name, Depth::Metadata)
    }

    /// Writes the exact uncompressed tar of an image layer; verified against the recorded diff digest: on a mismatch
    /// the error (`DigestMismatch`) comes after the bytes. Unknown: `NotFound`; without a tar-split stream: `Corrupt`.
    pub fn export(&self, id_or_name: &str, out: &mut dyn Write) -> Result<(Digest, Bytes)> {
        self.export_layer(id_or_name, out)
    }

    /// Writes a new layer archive of what a layer changes of `parent`; `None`: of the layer it stands on. By ids or names;
    /// unknown: `NotFound`; it changes meanwhile: `InUse`. What was written before an error is no archive.
    pub fn diff(&self, id_or_name: &str, parent: Option<&str>, out: &mut dyn Write) -> Result<Diffed> {
        self.diff_layer(id_or_name, parent, out)
    }

    /// The paths that a layer changes of `parent`, in the order of the archive; `None`: of the layer it stands on.
    pub fn changes(&self, id_or_name: &str, parent: Option<&str>) -> Result<Vec<Change>> {
        self.list_changes(id_or_name, parent)
    }

    /// Sum of the sizes of the files that [`LayerStore::diff`] would write.
    pub fn diff_size(&self, id_or_name: &str, parent: Option<&str>) -> Result<Bytes> {
        self.size_changes(id_or_name, parent)
    }

    /// The driver's name, backing file system and status lines.
    pub fn status(&self) -> Result<DriverStatus> {
        let _activity = self.registry.enter()?;
        self.driver.status()
    }

    /// The driver. Once the store is closed it answers `NotReady`.
    pub fn driver(&self) -> &dyn GraphDriver {
        self.driver.as_ref()
    }

    /// What was found wrong when the store was opened.
    pub fn problems(&self) -> Vec<Problem> {
        [self.problems.clone(), self.sharing.problems()].concat()
    }

    /// Takes a layer out of the store, by id or name, without deleting anything: record and data go into quarantine with
    /// the reason. Unknown: `NotFound`; mounted and busy, or other layers stand on it: `InUse`.
    pub fn quarantine(&self, id_or_name: &str, reason: &str) -> Result<Vec<Quarantined>> {
        self.quarantine_layer(id_or_name, reason)
    }

    /// What is wrong with a layer's data and with its tar-split stream, which is read through; its content is not compared.
    /// By id only; unknown: `NotFound`. Changes nothing.
    pub fn examine(&self, id: &LayerId) -> Result<Vec<Defect>> {
        self.examine_layer(id)
    }

    /// Whether there is a record of this layer on disk now, whatever it says. For a reader who found something wrong with a
    /// layer that its owner may have deleted meanwhile.
    pub fn is_recorded(&self, id: &LayerId) -> bool {
        matches!(self.disk.layers().stat(id.as_str()), Ok(Some(_)))
    }

    /// Puts right what is derivable in a layer and in all that it stands on. By id only; unknown: `NotFound`; what is wrong
    /// is not derivable: `Corrupt`.
    pub fn mend(&self, id: &LayerId) -> Result<()> {
        self.mend_layer(id)
    }

    /// Makes a record for a container's layer that has data but no record: its own was lost. What it stands on is what its data
    /// say. It has a record: `AlreadyExists`; it has no data, or what it stands on is not in the store: `NotFound`.
    pub fn adopt(&self, id: &LayerId) -> Result<()> {
        self.adopt_layer(id)
    }

    /// Takes a layer back out of quarantine: the entry of this id that was put there last. Not there, or its parent is
    /// not in the store: `NotFound`; a layer of that id exists: `AlreadyExists`; its record is the reason that it was
    /// put aside: `Corrupt`. A name that another layer has by now stays with that layer.
    pub fn restore(&self, id: &LayerId) -> Result<()> {
        self.restore_layer(id)
    }

    /// Puts a layer's data back that alone were put aside; whatever is wrong with them is so again. Its record is not in
    /// the store either, or the entry is gone: `NotFound`; the layer has data: `AlreadyExists`.
    pub fn restore_data(&self, data: &Quarantined) -> Result<()> {
        self.restore_data_alone(data)
    }

    /// Gives up what was put aside, record or data, for good. Gone already is fine.
    pub fn purge(&self, entry: &Quarantined) -> Result<()> {
        self.purge_entry(entry)
    }

    /// What lies in quarantine, records first, then driver data.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        let mut all = self.quarantined_records()?;
        all.extend(self.quarantined_data()?);
        Ok(all)
    }

    /// Records that lie in quarantine.
    pub fn quarantined_records(&self) -> Result<Vec<Quarantined>> {
        let _activity = self.registry.enter()?;
        self.disk.quarantined()
    }

    /// Data that lie in quarantine.
    pub fn quarantined_data(&self) -> Result<Vec<Quarantined>> {
        let _activity = self.registry.enter()?;
        self.driver.quarantined()
    }

    /// Ends the store: waits for calls under way and for the removal of deleted data, releases the driver and the lock.
    /// Later calls give `NotReady` or find nothing; closing twice is fine. Layers stay mounted.
    pub fn close(&self) -> Result<()> {
        if !self.registry.close() {
            return Ok(());
        }
        self.reaper.finish();
        let released = self.driver.clean_up();
        self.disk.release();
        released
    }

    fn by_id(&self, id: &LayerId) -> Result<Arc<Entry>> {
        self.registry.by_id(id).ok_or_else(|| self.unknown(id.as_str()))
    }

    fn by_id_or_name(&self, text: &str) -> Result<Arc<Entry>> {
        self.registry.find(text).ok_or_else(|| self.unknown(text))
    }

    fn unknown(&self, text: &str) -> Error {
        match self.registry.ready() {
            Ok(()) => Error::not_found(format!("layer {text}: no such layer")),
            Err(closed) => closed,
        }
    }

    fn require_writable(&self) -> Result<()> {
        if self.disk.is_read_only() {
            return Err(Error::new(ErrorKind::ReadOnly, "the layer store was opened for reading only"));
        }
        Ok(())
    }

    fn snapshot(&self, entry: &Entry) -> Layer {
        #[cfg(test)]
        self.looked_at.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        entry.snapshot(|| self.driver.mount_path(entry.id()))
    }

    fn snapshots(&self, entries: &[Arc<Entry>]) -> Vec<Layer> {
        entries.iter().map(|entry| self.snapshot(entry)).collect()
    }
}

impl Drop for LayerStore {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::warn!("close layer store: {}", error.report());
        }
    }
}

impl fmt::Debug for LayerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerStore")
            .field("driver", &self.driver.name())
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}
