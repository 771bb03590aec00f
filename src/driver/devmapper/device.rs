// SPDX-License-Identifier: MulanPSL-2.0
//! Devices in use: made active, mounted, looked into, and let go.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::{self, Durability, step};
use crate::sys::dm::{self, Gone, Removal, Target};
use crate::sys::ext4;
use crate::sys::fs::Dir;
use crate::sys::mount::{self, Detached, Device};

use super::options::whole_blocks;
use super::records::Record;
use super::store::{MOUNT_MODE, Store};

/// Inside a layer's file system: the layer, and the id of the first layer of its line that was ever mounted.
const ROOTFS: &str = "rootfs";
const ROOTFS_MODE: u32 = 0o755;
const ID: &str = "id";
const ID_MODE: u32 = 0o600;
/// Options of a mount with which nothing is written to the device, the journal not replayed either.
const READ_ONLY: &str = "ro,noload";
/// How long a device that is to be deleted is waited for: rules of udev look into it for a moment.
const CLOSE_TRIES: u32 = 40;
const CLOSE_PAUSE: Duration = Duration::from_millis(25);

/// One lock for each device.
#[derive(Debug, Default)]
pub(super) struct Devices {
    uses: Mutex<HashMap<String, Arc<Mutex<Use>>>>,
    /// File systems that are smaller than their device, and did not grow: they are not asked again.
    tried: Mutex<HashSet<String>>,
}

/// How a device is used by this process.
#[derive(Debug, Default)]
pub(super) struct Use {
    /// Mounts that are attached nowhere.
    views: usize,
    /// This process made it active.
    ours: bool,
}

impl Store {
    /// How a device is used; locked, it keeps others from changing that.
    pub(super) fn device(&self, hash: &str) -> Arc<Mutex<Use>> {
        self.devices.uses.lock().entry(hash.to_owned()).or_default().clone()
    }

    /// Makes a device active, with the size that it has by its file. Call it with its lock held.
    pub(super) fn activate(&self, record: &Record, used: &mut Use) -> Result<PathBuf> {
        let name = self.prefix.device(&record.hash);
        self.try_activate(record, &name, used).during(|| format!("make device {name} active"))?;
        Ok(self.pool.dm.node(&name))
    }

    fn try_activate(&self, record: &Record, name: &str, used: &mut Use) -> Result<()> {
        let dm = &self.pool.dm;
        let table = self.pool.table(record);
        let mut info = dm.info(name)?;
        if self.home.is_read_only()
            && let Some(info) = &info
        {
            return self.borrow(record, name, info);
        }
        if info.as_ref().is_some_and(|info| info.deferred_remove) {
            match dm.message(name, "@cancel_deferred_remove") {
                // It went just now.
                Err(error) if dm::is_absent(&error) => info = None,
                cancelled => cancelled?,
            }
        }
        let Some(info) = info else {
            self.check_not_elsewhere(&table)?;
            step("make device")?;
            dm.create(name)?;
            let active =
                dm.load(name, &table).and_then(|()| step("resume device")).and_then(|()| dm.resume(name));
            if active.is_err()
                && let Err(error) = dm.remove(name, Removal::Deferred)
            {
                log::warn!("remove device {name}: {}", error.report());
            }
            used.ours = active.is_ok();
            return active;
        };
        if !info.has_table {
            // Left by a crash between two steps.
            dm.load(name, &table)?;
            return dm.resume(name);
        }
        let found = self.own_table(name, record)?;
        if found < table.sectors {
            dm.load(name, &table)?;
            dm.suspend(name)?;
            return dm.resume(name);
        }
        // A crash while a snapshot of it was taken.
        if info.suspended { dm.resume(name) } else { Ok(()) }
    }

    /// Refuses a device of the pool that is active under a name that is not of this store: it is used through a copy of the
    /// store, or was before the store's directory was made anew. The kernel would let both write.
    fn check_not_elsewhere(&self, table: &Target) -> Result<()> {
        let dm = &self.pool.dm;
        for name in dm.names()?.iter().filter(|name| self.prefix.hash(name).is_none()) {
            let found = match dm.table(name) {
                Err(error) if dm::is_absent(&error) => continue,
                found => found?,
            };
            if found.iter().any(|found| found.kind == table.kind && found.text == table.text) {
                let message = format!(
                    "device {name} is the same one of the pool: the store was copied, or its directory was made anew; end what uses \
                     that one, and remove it (dmsetup remove {name})"
                );
                return Err(Error::new(ErrorKind::InUse, message));
            }
        }
        Ok(())
    }

    /// A device that a running daemon has made active is used as it is, by who only reads: open, it stays for as long.
    fn borrow(&self, record: &Record, name: &str, info: &dm::Info) -> Result<()> {
        if !info.has_table || info.suspended {
            let message = "it is being changed by the process that owns the store";
            return Err(Error::new(ErrorKind::InUse, message));
        }
        self.own_table(name, record).map(drop)
    }

    /// Length of the table in use, if it is the one of this device; else `InUse`.
    pub(super) fn own_table(&self, name: &str, record: &Record) -> Result<u64> {
        let wanted = self.pool.table(record);
        match self.pool.dm.table(name)?.as_slice() {
            [found] if found.kind == wanted.kind && found.text == wanted.text => Ok(found.sectors),
            _ => {
                let message = "a device of that name exists that is another: it was left alone";
                Err(Error::new(ErrorKind::InUse, message))
            }
        }
    }

    /// Lets a device go unless it is mounted or looked into.
    pub(super) fn deactivate(&self, record: &Record, used: &mut Use) -> Result<Gone> {
        if used.views > 0 || self.is_mount_point(&record.hash)? || (self.home.is_read_only() && !used.ours) {
            return Ok(Gone::Later);
        }
        let name = self.prefix.device(&record.hash);
        let doing = || format!("remove device {name}");
        match self.own_table(&name, record) {
            Err(error) if dm::is_absent(&error) => {}
            // Another's by now.
            Err(error) => {
                used.ours = false;
                return Err(error).during(doing);
            }
            Ok(_) => {}
        }
        let gone = match self.pool.dm.remove(&name, Removal::Deferred) {
            Err(error) if dm::is_absent(&error) => Gone::Now,
            removed => removed.during(doing)?,
        };
        // Who makes it active next may be another process.
        used.ours = false;
        Ok(gone)
    }

    /// Waits for a moment until a device that was let go is gone.
    pub(super) fn wait_until_gone(&self, hash: &str) -> Result<()> {
        let name = self.prefix.device(hash);
        for _ in 0..CLOSE_TRIES {
            match self.pool.dm.info(&name)? {
                Some(info) if info.open_count > 0 && info.deferred_remove => std::thread::sleep(CLOSE_PAUSE),
                _ => break,
            }
        }
        Ok(())
    }

    /// Devices that a crash left without a table, suspended, or active without need. Best effort; those of others are not
    /// touched, and neither is what is open.
    pub(super) fn sweep_devices(&self) {
        let names = match self.pool.dm.names() {
            Ok(names) => names,
            Err(error) => return log::warn!("list devices: {}", error.report()),
        };
        for name in names {
            let Some(hash) = self.prefix.hash(&name) else { continue };
            if let Err(error) = self.sweep_device(&name, hash) {
                log::warn!("device {name}: {}", error.report());
            }
        }
    }

    fn sweep_device(&self, name: &str, hash: &str) -> Result<()> {
        let dm = &self.pool.dm;
        let Some(info) = dm.info(name)? else { return Ok(()) };
        if !info.has_table {
            return if info.open_count == 0 { dm.remove(name, Removal::Now).map(drop) } else { Ok(()) };
        }
        let Some(record) = self.record(hash) else { return Ok(()) };
        self.own_table(name, &record)?;
        if info.suspended {
            dm.resume(name)?;
        }
        if info.open_count == 0 { dm.remove(name, Removal::Deferred).map(drop) } else { Ok(()) }
    }

    /// Options of a mount of a layer.
    fn mount_options(&self, read_only: bool) -> Vec<String> {
        let mut options = self.options.mount.clone();
        options.extend(read_only.then(|| READ_ONLY.to_owned()));
        options
    }

    /// Whether a layer that is only looked at is mounted so that nothing is written. Who only reads the store does that
    /// while nobody else could want to mount the same layer, which would fail; everybody, when the pool takes no changes:
    /// where a layer shares its first blocks with others, only so it can be mounted at all.
    pub(super) fn looks_only(&self, used: &Use) -> bool {
        if self.home.is_read_only() {
            return used.ours && self.home.is_idle();
        }
        self.pool.status().is_ok_and(|status| status.check_writable().is_err())
    }

    /// Whether a layer's mount point is one.
    pub(super) fn is_mount_point(&self, hash: &str) -> Result<bool> {
        use std::os::fd::AsFd;
        match mount::is_mount_point(self.mounts.as_fd(), Path::new(hash)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            answer => answer,
        }
    }

    /// Mounts an active device on the layer's mount point; `look`: so that nothing is written.
    pub(super) fn mount_active(
        &self,
        record: &Record,
        node: &Path,
        label: Option<&str>,
        look: bool,
    ) -> Result<()> {
        let place = self.mounts.ensure_dir(&record.hash, MOUNT_MODE)?;
        let options = self.mount_options(look);
        step("mount")?;
        mount::mount_device(&Device { node, filesystem: "ext4", options: &options, label }, &place)?;
        // Above it now.
        let root = Dir::open(place.path())?;
        if look {
            return root.open_dir(ROOTFS).map(drop);
        }
        self.grow(record, node, &root);
        self.rootfs(record, &root).map(drop)
    }

    /// Grows a file system that is smaller than its device: a crash came between the two. Best effort.
    fn grow(&self, record: &Record, node: &Path, root: &Dir) {
        if let Err(error) = self.try_grow(record, node, root) {
            log::warn!(
                "layer {}: its file system stays smaller than its device: {}",
                record.hash,
                error.report()
            );
        }
    }

    fn try_grow(&self, record: &Record, node: &Path, root: &Dir) -> Result<()> {
        let now = self.filesystems.superblock(node)?;
        if now.size >= whole_blocks(record.size) || self.devices.tried.lock().contains(&record.hash) {
            return Ok(());
        }
        step("grow")?;
        let grown = ext4::grow(root, record.size.0 / now.block.0);
        // A last group of few blocks is never used.
        self.devices.tried.lock().insert(record.hash.clone());
        grown
    }

    /// The layer in its file system, made where nobody has mounted it before and it may be written to.
    pub(super) fn rootfs(&self, record: &Record, root: &Dir) -> Result<Dir> {
        if self.home.is_read_only() {
            return root.open_dir(ROOTFS);
        }
        let rootfs = match root.open_dir(ROOTFS) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                step("make rootfs")?;
                let made = root.create_dir(ROOTFS, ROOTFS_MODE)?;
                if let Some(shift) = self.owner_shift {
                    std::os::unix::fs::fchown(&made, Some(shift.uid), Some(shift.gid))
                        .during(|| "change its owner")?;
                }
                made
            }
            opened => opened?,
        };
        if root.stat(ID)?.is_none() {
            persist::replace_file(root, ID, record.hash.as_bytes(), ID_MODE, Durability::None)?;
        }
        Ok(rootfs)
    }

    /// Looks into a layer, without attaching it anywhere unless it is mounted already.
    pub(super) fn view(&self, record: &Record) -> Result<View<'_>> {
        let doing = || format!("look into layer {}", record.hash);
        let device = self.device(&record.hash);
        let mut used = device.lock();
        if self.is_mount_point(&record.hash)? {
            let root = Dir::open(&self.mounts.path().join(&record.hash))?;
            let rootfs = root.open_dir(ROOTFS).during(doing)?;
            return Ok(View {
                store: self,
                record: record.clone(),
                counted: false,
                rootfs: Some(rootfs),
                mount: None,
            });
        }
        let node = self.activate(record, &mut used)?;
        let look = self.looks_only(&used);
        let opened = self.open_active(record, &node, look).and_then(|mount| {
            let rootfs =
                if look { mount.root().open_dir(ROOTFS) } else { self.rootfs(record, mount.root()) }?;
            Ok((mount, rootfs))
        });
        match opened.during(doing) {
            Ok((mount, rootfs)) => {
                used.views += 1;
                let (rootfs, mount) = (Some(rootfs), Some(mount));
                Ok(View { store: self, record: record.clone(), counted: true, rootfs, mount })
            }
            Err(error) => {
                self.try_deactivate(record, &mut used);
                Err(error)
            }
        }
    }

    /// Mounts an active device nowhere, its file system as large as it is to be.
    fn open_active(&self, record: &Record, node: &Path, look: bool) -> Result<Detached> {
        let options = self.mount_options(look);
        let device = Device { node, filesystem: "ext4", options: &options, label: None };
        if self.home.is_read_only() {
            return mount::open_device(&device, None);
        }
        let scratch = self.home.stage()?;
        let mount = mount::open_device(&device, Some(scratch.dir()))?;
        if !look {
            self.grow(record, node, mount.root());
        }
        Ok(mount)
    }

    /// Grows the file system of a device that is mounted nowhere, and writes nothing else into it.
    pub(super) fn grow_alone(&self, record: &Record) -> Result<()> {
        let device = self.device(&record.hash);
        let mut used = device.lock();
        let grown = self.activate(record, &mut used).and_then(|node| self.open_active(record, &node, false));
        let grown = grown.map(drop);
        self.try_deactivate(record, &mut used);
        grown
    }

    /// The same as [`Store::deactivate`], where nothing depends on it.
    pub(super) fn try_deactivate(&self, record: &Record, used: &mut Use) {
        if let Err(error) = self.deactivate(record, used) {
            log::warn!("{}", error.report());
        }
    }

    /// Forgets the lock of a device that is gone.
    pub(super) fn forget_use(&self, hash: &str) {
        let mut uses = self.devices.uses.lock();
        if uses.get(hash).is_some_and(|used| Arc::strong_count(used) == 1) {
            uses.remove(hash);
        }
        self.devices.tried.lock().remove(hash);
    }
}

/// A layer's content, as long as this lives.
#[derive(Debug)]
pub(super) struct View<'a> {
    store: &'a Store,
    record: Record,
    /// It is among the views of the device.
    counted: bool,
    rootfs: Option<Dir>,
    mount: Option<Detached>,
}

impl View<'_> {
    /// The root of the layer.
    pub(super) fn rootfs(&self) -> Result<&Dir> {
        self.rootfs.as_ref().ok_or_else(|| Error::new(ErrorKind::NotReady, "the view is closed"))
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        // With the last descriptor the file system is unmounted.
        drop(self.rootfs.take());
        drop(self.mount.take());
        if self.counted {
            let device = self.store.device(&self.record.hash);
            let mut used = device.lock();
            used.views = used.views.saturating_sub(1);
            self.store.try_deactivate(&self.record, &mut used);
        }
    }
}
