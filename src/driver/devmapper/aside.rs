// SPDX-License-Identifier: MulanPSL-2.0
//! Layers that are put aside: their file lies in quarantine, their device stays in the pool.

use std::path::Path;

use crate::driver::Removed;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;
use crate::sys::fs::Dir;

use super::names::{self, BASE};
use super::records::Record;
use super::store::Store;

/// Most bytes of a file that is taken for one of a device.
const MAX_FILE: u64 = 64 << 10;

impl Store {
    pub(super) fn quarantine(&self, id: &LayerId, reason: &str) -> Result<Option<Quarantined>> {
        self.home.check_writable()?;
        self.prefix.check(id)?;
        if self.find(id).is_none() {
            return Ok(None);
        }
        let device = self.device(id.as_str());
        let aside = {
            let mut used = device.lock();
            self.release(id, &mut used)?;
            let aside = self.home.state()?.quarantine(&self.metadata, id.as_str(), reason)?;
            // Its id stays taken.
            self.records.write().remove(id.as_str());
            if let Err(error) = self.mounts.remove_empty_dir(id.as_str()) {
                log::warn!("{}", error.report());
            }
            aside
        };
        drop(device);
        self.forget_use(id.as_str());
        Ok(Some(aside))
    }

    pub(super) fn restore(&self, entry: &Quarantined) -> Result<()> {
        let state = self.home.state()?;
        let doing = || format!("restore layer {}", entry.name);
        let id = LayerId::new(&entry.name).during(doing)?;
        let is_base = entry.name == BASE;
        if !is_base {
            self.prefix.check(&id).during(doing)?;
        }
        if self.record(id.as_str()).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "a layer of that id exists").context(doing()));
        }
        let record = aside_record(entry).during(doing)?;
        if is_base && (!record.initialized || record.deleted) {
            return Err(Error::corrupt("it is that of a base without a file system").context(doing()));
        }
        {
            let _work = self.work.lock();
            if self.has_other(record.device_id, &record.hash) {
                return Err(Error::corrupt("a layer of the store has its device").context(doing()));
            }
            if !self.pool.has(record.device_id).during(doing)? {
                return Err(Error::corrupt("its device is not in the thin pool any more").context(doing()));
            }
        }
        state.restore(entry, &self.metadata)?;
        self.work.lock().used.insert(record.device_id);
        self.records.write().insert(record.hash.clone(), record);
        if !is_base {
            drop(self.mounts.ensure_dir(id.as_str(), super::store::MOUNT_MODE)?);
        }
        Ok(())
    }

    /// Deletes the device of an entry, if it is certain which one it is, and then the entry.
    pub(super) fn purge(&self, entry: &Quarantined) -> Result<Removed> {
        let state = self.home.state()?;
        match aside_record(entry) {
            Ok(_) if entry.name == BASE => {
                log::warn!("entry {}: the device of a base stays in the pool", entry.key);
            }
            Ok(record) => {
                let mut work = self.work.lock();
                let others = self.aside_ids()?.into_iter().filter(|id| *id == record.device_id).count();
                if self.has_other(record.device_id, "") || others > 1 {
                    log::warn!("device {} of entry {} belongs to others: kept", record.device_id, entry.key);
                } else {
                    self.pool.delete(record.device_id).during(|| format!("delete layer {}", entry.name))?;
                    work.used.remove(&record.device_id);
                }
            }
            Err(error) => {
                log::warn!("entry {}: its device is not known, and stays: {}", entry.key, error.report());
            }
        }
        Ok(Removed::of(state.purge(entry)?))
    }

    /// Keeps ids of devices that were put aside from being given again.
    pub(super) fn reserve_put_aside(&self) -> Result<()> {
        let ids = self.aside_ids()?;
        self.work.lock().used.extend(ids);
        Ok(())
    }

    /// Ids of devices that were put aside.
    pub(super) fn aside_ids(&self) -> Result<Vec<u32>> {
        let entries = self.home.quarantined()?;
        Ok(entries
            .iter()
            .filter_map(|entry| aside_record(entry).ok())
            .map(|record| record.device_id)
            .collect())
    }

    pub(super) fn is_put_aside(&self, device_id: u32) -> Result<bool> {
        Ok(self.aside_ids()?.contains(&device_id))
    }
}

fn aside_record(entry: &Quarantined) -> Result<Record> {
    if names::is_reserved(&entry.name) && entry.name != BASE {
        return Err(Error::invalid(format!("{} is no layer", entry.name)));
    }
    let place = entry.path.parent().unwrap_or(Path::new("/"));
    let name = entry.path.file_name().unwrap_or_default();
    let text = Dir::open(place)?.read(name, MAX_FILE)?;
    Record::parse(&text, &entry.name)
}
