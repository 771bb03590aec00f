// SPDX-License-Identifier: MulanPSL-2.0
//! The base device: an empty file system that layers without a parent are snapshots of.

use std::path::Path;

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::step;
use crate::units::Bytes;

use super::device::Use;
use super::names::BASE;
use super::options::whole_blocks;
use super::records::Record;
use super::store::Store;
use super::transaction::NewDevice;

impl Store {
    /// Makes sure that there is a base, and that it is the one of this store.
    pub(super) fn prepare_base(&self) -> Result<()> {
        match self.record(BASE) {
            Some(record) if record.initialized && !record.deleted => self.check_base(record),
            Some(half) if !self.is_certainly_half(&half)? => {
                let message = "its file says that it was never filled, or is to go, and there are others: it stays as it is";
                self.go_without_base(message);
                Ok(())
            }
            Some(half) => {
                let device = self.device(BASE);
                self.deactivate(&half, &mut device.lock())?;
                self.wait_until_gone(BASE)?;
                self.delete_device(&half)?;
                if self.record(BASE).is_some() {
                    let message = "it has no file system yet, and somebody uses its device";
                    return Err(Error::new(ErrorKind::InUse, message));
                }
                self.make_base()
            }
            // Nothing else of the store depends on it.
            None if !self.records.read().is_empty() => {
                self.go_without_base("its file is lost");
                Ok(())
            }
            None => {
                let used = self.pool.status()?.data.used;
                if used > 0 {
                    let message = format!(
                        "thin pool {} has data ({used} blocks), and the store has no base device: it is the pool of another \
                         store, or the files in {} were lost",
                        self.pool.name,
                        self.metadata.path().display()
                    );
                    return Err(Error::new(ErrorKind::InUse, message));
                }
                self.make_base()
            }
        }
    }

    /// Whether nothing stands on a base that is said to have no file system: one flag of a file is little to go by.
    fn is_certainly_half(&self, base: &Record) -> Result<bool> {
        if self.records.read().len() == 1 {
            return Ok(true);
        }
        let last = self.read_transaction()?;
        Ok(last.is_some_and(|last| last.hash == base.hash && last.device_id == base.device_id))
    }

    fn go_without_base(&self, why: &str) {
        let place = self.metadata.path().join(BASE);
        log::error!("devicemapper: {}: {why}; layers without a parent cannot be made", place.display());
    }

    fn make_base(&self) -> Result<()> {
        let size = self.options.new_base_size();
        let record = self.make_device(NewDevice { hash: BASE, size, origin: None, active: None })?;
        let device = self.device(BASE);
        let mut used = device.lock();
        let made = self.fill_base(record, &mut used);
        if let Some(record) = self.record(BASE) {
            self.try_deactivate(&record, &mut used);
            if made.is_err() {
                // At the next start it is made anew.
                if let Err(error) =
                    self.wait_until_gone(BASE).and_then(|()| self.delete_device(&record).map(drop))
                {
                    log::warn!("{}", error.report());
                }
            }
        }
        made
    }

    fn fill_base(&self, mut record: Record, used: &mut Use) -> Result<()> {
        let node = self.activate(&record, used)?;
        step("make file system")?;
        self.filesystems.make(&node, &self.options.mkfs)?;
        let uuid = self.filesystems.superblock(&node)?.uuid;
        record.initialized = true;
        self.save(&record)?;
        self.save_uuid(uuid)
    }

    fn save_uuid(&self, uuid: String) -> Result<()> {
        let mut work = self.work.lock();
        work.set.base_uuid = Some(uuid);
        self.save_set(&work.set)
    }

    /// Compares the base with what the store knows of it, and grows it if it is to be larger.
    fn check_base(&self, mut record: Record) -> Result<()> {
        let size = whole_blocks(record.size);
        let wanted = self.options.base_size.unwrap_or(size);
        if wanted < size {
            let text = format!(
                "dm.basesize {} bytes is smaller than the base device, which has {} bytes",
                wanted.0, record.size.0
            );
            return Err(Error::invalid(text.clone()).for_people(text));
        }
        if wanted > size {
            // What is interrupted from here on is taken up by the comparison below, at any later start.
            record.size = wanted;
            self.save(&record)?;
        }
        let smaller = {
            let device = self.device(BASE);
            let mut used = device.lock();
            let smaller =
                self.activate(&record, &mut used).and_then(|node| self.compare_base(&record, &node));
            self.try_deactivate(&record, &mut used);
            smaller?
        };
        if smaller {
            self.grow_alone(&record).during(|| "grow it")?;
        }
        Ok(())
    }

    /// Whether the file system is smaller than the device.
    fn compare_base(&self, record: &Record, node: &Path) -> Result<bool> {
        let found = self.filesystems.superblock(node)?;
        let known = self.work.lock().set.base_uuid.clone();
        match known {
            None => self.save_uuid(found.uuid)?,
            Some(known) if known == found.uuid => {}
            Some(known) => {
                let message = format!(
                    "its file system has UUID {}, and the store knows {known}: it is not the thin pool of this store",
                    found.uuid
                );
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
        }
        Ok(found.size < whole_blocks(record.size))
    }

    /// Size and id of what a layer without a parent is made of.
    pub(super) fn base(&self) -> Result<(u32, Bytes)> {
        let base = self.record(BASE).filter(|base| base.initialized && !base.deleted);
        let base = base.ok_or_else(|| Error::new(ErrorKind::NotReady, "there is no base device"))?;
        Ok((base.device_id, base.size))
    }
}
