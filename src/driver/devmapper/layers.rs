// SPDX-License-Identifier: MulanPSL-2.0
//! Layers: made as snapshots, filled, mounted, removed.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::archive::{self, ApplyOptions, DiffBase, Whiteouts};
use crate::driver::{Applied, Defect, LayerKind, Limits, Metadata, NewLayer};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::step;
use crate::sys::dm::{self, Gone};
use crate::sys::fs::{Dir, random_hex};
use crate::sys::mount;
use crate::units::Bytes;

use super::device::Use;
use super::names::{self, BASE};
use super::options;
use super::records::Record;
use super::store::{MOUNT_MODE, Store};
use super::transaction::NewDevice;

/// Digits of the name of a device that is to go and whose id somebody else has now.
const ASIDE_LEN: usize = 64;

impl Store {
    pub(super) fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        self.home.check_writable()?;
        let id = layer.id;
        self.prefix.check(id)?;
        if layer.kind == LayerKind::ReadOnly
            && let Some((key, _)) = layer.storage_options.first()
        {
            let message = format!("storage option {key}: an image layer takes no storage options");
            return Err(Error::invalid(message));
        }
        let wanted = options::layer_size(layer.storage_options)?;
        let (origin, parent_size) = match layer.parent {
            Some(parent) => {
                let record = self.layer(parent).during(|| "parent layer")?;
                (record.device_id, record.size)
            }
            None => self.base()?,
        };
        let least = options::whole_blocks(parent_size);
        // As large as the parent is as large as its device, whose size may be no whole blocks.
        let size = wanted.filter(|wanted| *wanted != least).unwrap_or(parent_size);
        if size < least {
            let text = format!("Container size cannot be smaller than {}", parent_size.0);
            return Err(Error::invalid(text.clone()).for_people(text));
        }
        self.make_room(id)?;
        let parent = layer.parent.map_or(BASE, LayerId::as_str);
        let record = self.snapshot(id, size, origin, parent)?;
        let finished = self.finish(&record, parent_size);
        if finished.is_err() {
            self.take_back_layer(&record);
        }
        finished
    }

    /// A layer's place, and its file system as large as it is to be.
    fn finish(&self, record: &Record, parent_size: Bytes) -> Result<()> {
        step("make mount point")?;
        drop(self.mounts.ensure_dir(&record.hash, MOUNT_MODE)?);
        if record.size > parent_size {
            let view = self.view(record)?;
            drop(view);
            let grown = self.file_system_size(record)?;
            if grown <= parent_size {
                let message = format!("its file system has {} bytes, and not {}", grown.0, record.size.0);
                return Err(Error::new(ErrorKind::Os(libc::EIO), message));
            }
        }
        Ok(())
    }

    pub(super) fn file_system_size(&self, record: &Record) -> Result<Bytes> {
        let device = self.device(&record.hash);
        let mut used = device.lock();
        let size = self.activate(record, &mut used).and_then(|node| self.filesystems.superblock(&node));
        self.try_deactivate(record, &mut used);
        Ok(size?.size)
    }

    fn take_back_layer(&self, record: &Record) {
        let device = self.device(&record.hash);
        self.try_deactivate(record, &mut device.lock());
        let removed = self.wait_until_gone(&record.hash).and_then(|()| self.delete_device(record).map(drop));
        let removed = removed.and_then(|()| self.mounts.remove_empty_dir(&record.hash).map(drop));
        if let Err(error) = removed {
            log::warn!("take back layer {}: {}", record.hash, error.report());
        }
    }

    /// What has the id already is put aside if it is a layer, and gets another name if it is on its way out.
    fn make_room(&self, id: &LayerId) -> Result<()> {
        let Some(record) = self.record(id.as_str()) else { return Ok(()) };
        if !record.deleted {
            let reason = "data without a record were in the way of a new layer of this id";
            let aside = self.quarantine(id, reason)?;
            if let Some(aside) = aside {
                log::warn!("layer {id}: left-over data moved to {}", aside.path.display());
            }
            return Ok(());
        }
        if self.delete_device(&record)? == Gone::Now {
            return Ok(());
        }
        let new = Record { hash: random_hex(ASIDE_LEN)?, ..record.clone() };
        // Both files say that it is to go, so either alone will do after a crash.
        self.save(&new)?;
        let (from, to) = (self.prefix.device(&record.hash), self.prefix.device(&new.hash));
        match self.pool.dm.rename(&from, &to) {
            Err(error) if !dm::is_absent(&error) => return Err(error),
            _ => {}
        }
        self.forget(&record.hash)
    }

    /// A snapshot of a device that may be in use: writes to it wait meanwhile, and what it holds is consistent.
    fn snapshot(&self, id: &LayerId, size: Bytes, origin: u32, parent: &str) -> Result<Record> {
        let device = self.device(parent);
        let _used = device.lock();
        let name = self.prefix.device(parent);
        let mut active = self.pool.dm.info(&name)?.is_some_and(|info| info.has_table);
        if active && let Some(record) = self.record(parent) {
            match self.own_table(&name, &record) {
                Err(error) if dm::is_absent(&error) => active = false,
                other => drop(other.during(|| format!("take a snapshot of device {name}"))?),
            }
        }
        let active = active.then_some(name.as_str());
        self.make_device(NewDevice { hash: id.as_str(), size, origin: Some(origin), active })
    }

    pub(super) fn apply(
        &self,
        id: &LayerId,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<Applied> {
        self.home.check_writable()?;
        let view = self.view(&self.layer(id)?)?;
        let rootfs = view.rootfs()?;
        let options = ApplyOptions {
            whiteouts: Whiteouts::Remove,
            limits: limits.clone(),
            owner_shift: self.owner_shift,
            ..ApplyOptions::default()
        };
        let applied = archive::apply(source, rootfs.as_fd(), tar_split, &options)?;
        // The file system is unmounted at once: what could not be written is found out here.
        self.home.flush_tree(rootfs)?;
        Ok(applied)
    }

    pub(super) fn sync(&self, id: &LayerId) -> Result<()> {
        self.home.check_writable()?;
        let record = self.layer(id)?;
        if self.is_mount_point(&record.hash)? {
            self.home.flush_tree(&Dir::open(&self.mounts.path().join(id))?)?;
        }
        Ok(())
    }

    pub(super) fn mount(&self, id: &LayerId, kind: LayerKind, label: Option<&str>) -> Result<()> {
        self.home.check_writable()?;
        let device = self.device(&self.layer(id)?.hash);
        let mut used = device.lock();
        // Or it was removed meanwhile.
        let record = self.layer(id)?;
        if self.is_mount_point(&record.hash)? {
            return Ok(());
        }
        let place = self.mounts.path().join(id);
        let mounted = self.activate(&record, &mut used).and_then(|node| {
            let look = kind == LayerKind::ReadOnly && self.looks_only(&used);
            self.mount_active(&record, &node, label, look)?;
            if kind == LayerKind::ReadOnly { mount::make_read_only(&place) } else { Ok(()) }
        });
        if mounted.is_err() {
            if let Err(error) = mount::unmount(&place) {
                log::warn!("{}", error.report());
            }
            self.try_deactivate(&record, &mut used);
        }
        mounted.during(|| format!("mount layer {id}"))
    }

    pub(super) fn unmount(&self, id: &LayerId) -> Result<()> {
        self.home.check_writable()?;
        if names::is_reserved(id.as_str()) {
            return Ok(());
        }
        self.unmount_locked(id, &mut self.device(id.as_str()).lock())
    }

    fn unmount_locked(&self, id: &LayerId, used: &mut Use) -> Result<()> {
        mount::unmount(&self.mounts.path().join(id)).during(|| format!("unmount layer {id}"))?;
        match self.record(id.as_str()) {
            Some(record) => self.deactivate(&record, used).map(drop),
            None => Ok(()),
        }
    }

    /// Unmounts a layer that is about to go and lets its device go; fails with `InUse` while it is mounted. Nobody can mount
    /// it while the lock of its device is held.
    pub(super) fn release(&self, id: &LayerId, used: &mut Use) -> Result<()> {
        self.unmount_locked(id, used)?;
        if self.is_mount_point(id.as_str())? {
            let place = self.mounts.path().join(id);
            return Err(Error::new(ErrorKind::InUse, format!("{} is still mounted", place.display())));
        }
        self.wait_until_gone(id.as_str())
    }

    /// Removes a layer; whether its device is gone, or goes when nobody uses it any more.
    pub(super) fn remove(&self, id: &LayerId) -> Result<Gone> {
        self.home.check_writable()?;
        self.prefix.check(id)?;
        let device = self.device(id.as_str());
        let gone = {
            let mut used = device.lock();
            self.release(id, &mut used)?;
            let gone = match self.record(id.as_str()) {
                Some(record) => self.delete_device(&record)?,
                None => Gone::Now,
            };
            step("remove mount point")?;
            self.mounts.remove_empty_dir(id.as_str())?;
            gone
        };
        drop(device);
        self.forget_use(id.as_str());
        Ok(gone)
    }

    /// Tries to delete what is to go; whether some of it is still in use.
    pub(super) fn retry_deletions(&self) -> bool {
        let waiting: Vec<Record> = self.records.read().values().filter(|r| r.is_to_go()).cloned().collect();
        let mut left = false;
        for record in waiting {
            if self.is_stopping() {
                return true;
            }
            let device = self.device(&record.hash);
            self.try_deactivate(&record, &mut device.lock());
            match self.delete_device(&record) {
                Ok(Gone::Now) => self.forget_use(&record.hash),
                Ok(Gone::Later) => left = true,
                Err(error) => {
                    left = true;
                    log::warn!("delete device {}: {}", record.hash, error.report());
                }
            }
        }
        left
    }

    pub(super) fn compare<T>(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        compare: impl FnOnce(&Dir, &DiffBase<'_>) -> Result<T>,
    ) -> Result<T> {
        let layer = self.view(&self.layer(id)?)?;
        let parent =
            parent.map(|parent| self.layer(parent).and_then(|record| self.view(&record))).transpose()?;
        let below = parent.as_ref().map(|view| view.rootfs()).transpose()?;
        let base = DiffBase::Tree(below.map(Dir::as_fd));
        compare(layer.rootfs()?, &base).during(|| format!("compare layer {id}"))
    }

    pub(super) fn facts(&self, id: &LayerId) -> Result<Metadata> {
        let record = self.layer(id)?;
        let merged = self.mount_path(id).to_string_lossy().into_owned();
        Ok(vec![
            ("DeviceId", record.device_id.to_string()),
            ("DeviceSize", record.size.0.to_string()),
            ("DeviceName", self.prefix.device(&record.hash)),
            ("MergedDir", merged),
        ])
    }

    pub(super) fn mount_path(&self, id: &LayerId) -> PathBuf {
        self.mounts.path().join(id).join("rootfs")
    }

    /// What is wrong with a layer as far as can be told without looking into it.
    pub(super) fn examine(&self, id: &LayerId) -> Result<Vec<Defect>> {
        let Some(record) = self.find(id) else { return Ok(vec![Defect::missing("its data are missing")]) };
        let mut found = Vec::new();
        if self.mounts.stat(id.as_str())?.is_none() {
            found.push(Defect::derivable("its mount point is missing"));
        }
        if !self.home.is_read_only() {
            let _work = self.work.lock();
            if !self.pool.has(record.device_id)? {
                let id = record.device_id;
                found.push(Defect::missing(format!("thin pool {} has no device {id}", self.pool.name)));
            }
        }
        Ok(found)
    }

    /// Puts right what can be, and says what cannot.
    pub(super) fn validate(&self, id: &LayerId) -> Result<()> {
        self.layer(id)?;
        for defect in self.examine(id)? {
            if !defect.derivable {
                return Err(Error::corrupt(format!("layer {id}: {}", defect.what)));
            }
            if !self.home.is_read_only() {
                drop(self.mounts.ensure_dir(id.as_str(), MOUNT_MODE)?);
            }
        }
        Ok(())
    }

    /// Ids of devices in the pool that no file of the store knows, up to a bound beyond the largest known one. The kernel
    /// writes two lines to its log for each id that is free.
    pub(super) fn orphans(&self) -> Result<Vec<u32>> {
        const BEYOND: u32 = 64;
        let aside = self.aside_ids()?;
        let mut found = Vec::new();
        let mut id = 0;
        loop {
            let work = self.work.lock();
            let known = work.used.last().copied().unwrap_or(0).max(work.set.last_id);
            let last = found.last().copied().unwrap_or(0).max(known).saturating_add(BEYOND);
            if id > last.min(super::records::MAX_ID) {
                return Ok(found);
            }
            let is_known = self.records.read().values().any(|record| record.device_id == id);
            let is_known = is_known || aside.contains(&id);
            // Or it was put aside just now.
            if !is_known && self.pool.has(id)? && !self.is_put_aside(id)? {
                found.push(id);
            }
            id += 1;
        }
    }
}
