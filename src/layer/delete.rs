// SPDX-License-Identifier: MulanPSL-2.0
//! Deletion.
//!
//! ```text
//! unmounted (busy: `InUse`, nothing changed)
//! record with the incomplete mark                durable: a crash from here on finishes the deletion at the next start
//! driver: data into the trash
//! mount state
//! record directory into the trash
//! memory
//! trash emptied in the background
//! ```

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::record::layer::LayerRecord;

use super::LayerStore;
use super::disk::Disk;
use super::entry::{Entry, MountGuard};
use super::reaper::Rubbish;
use super::registry::Removal;

impl LayerStore {
    pub(super) fn delete_layer(&self, id_or_name: &str) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let doing = || format!("delete layer {id_or_name}");
        match self.registry.begin_removal(id_or_name).during(doing)? {
            Some(removal) => self.remove(removal).during(doing),
            None => Ok(()),
        }
    }

    pub(super) fn delete_unheld_layer(&self, id: &LayerId) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let doing = || format!("delete layer {id}");
        let unheld = |entry: &Entry| match entry.holds() {
            ..=0 => Ok(()),
            holds => Err(Error::new(ErrorKind::InUse, format!("layer {id}: {holds} hold references"))),
        };
        match self.registry.begin_removal_if(id.as_str(), unheld).during(doing)? {
            Some(removal) => self.remove(removal).during(doing),
            None => Err(self.unknown(id.as_str())),
        }
    }

    fn remove(&self, removal: Removal<'_>) -> Result<()> {
        let entry = removal.entry().clone();
        let mut mount = entry.lock_mount();
        self.take_away(&entry, &mut mount)?;
        mount.lifecycle.gone = true;
        drop(mount);
        removal.finish();
        Ok(())
    }

    fn take_away(&self, entry: &Entry, mount: &mut MountGuard<'_>) -> Result<()> {
        let id = entry.id();
        self.unmount_all(entry, mount)?;
        if self.disk.is_shared(id.as_str()) {
            return self.take_shared_away(id);
        }
        let marked = self.mark_deleted(entry)?;
        match self.driver.remove(id) {
            Ok(content) => self.reaper.take(Rubbish::Content(content)),
            // Failed half-way: what is gone is gone.
            Err(error) if self.driver.layers().is_ok_and(|ids| !ids.contains(id)) => {
                log::warn!("layer {id}: remove its data: {}", error.report());
            }
            Err(error) => {
                self.unmark(entry, marked);
                return Err(error);
            }
        }
        // Before the record, which is what the next start would find it by.
        self.disk.try_forget_mount(id);
        match self.disk.discard_record(id) {
            Ok(record) => record.into_iter().for_each(|record| self.reaper.take(Rubbish::Record(record))),
            // The layer is gone, and what is left of it says so.
            Err(error) => log::warn!("layer {id}: remove its record: {}", error.report()),
        }
        Ok(())
    }

    /// Unmounts before anything is changed; a mount that stays makes the layer busy.
    pub(super) fn unmount_all(&self, entry: &Entry, mount: &mut MountGuard<'_>) -> Result<()> {
        let id = entry.id();
        self.driver.unmount(id)?;
        if self.driver.is_mounted(id)? {
            return Err(Error::new(ErrorKind::InUse, format!("layer {id} is still mounted")));
        }
        if mount.count() != 0 {
            mount.set_count(0);
            self.try_save_mount(entry, 0);
        }
        Ok(())
    }

    /// Writes the incomplete mark; `false` when there is no room for it on the disk, which must not keep anybody from
    /// deleting. (Then a crash in the next moment leaves data without a record: reported, not lost.)
    fn mark_deleted(&self, entry: &Entry) -> Result<bool> {
        let record = LayerRecord { incomplete: true, ..entry.record().clone() };
        let dir = match self.disk.open_record_dir(entry.id()) {
            Ok(dir) => dir,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        match self.disk.write_record(&dir, &record) {
            Ok(()) => Ok(true),
            Err(error) => {
                // It may be there or not: make sure that it is not.
                self.unmark(entry, true);
                if error.is_no_space() { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Takes the mark back. If that fails too, the next start would delete a layer that memory still lists, so nothing
    /// more is changed until then.
    fn unmark(&self, entry: &Entry, marked: bool) {
        if !marked {
            return;
        }
        let id = entry.id();
        let unmarked = self.disk.open_record_dir(id).and_then(|dir| {
            let held = Disk::read_record(&dir)?;
            if held.incomplete { self.disk.write_record(&dir, entry.record()) } else { Ok(()) }
        });
        if let Err(error) = unmarked {
            self.registry.latch(format!("layer {id}: take back its deletion: {}", error.report()));
        }
    }
}
