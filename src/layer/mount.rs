// SPDX-License-Identifier: MulanPSL-2.0
//! Mounting, counted; and the repair of what a mount needs and can be derived.
//!
//! The count is what callers asked for, the kernel knows what is mounted. A count above zero whose mount is gone (a
//! crash, somebody else's unmount) is made true again by the next mount.

use std::path::PathBuf;

use crate::driver::MountOptions;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;

use super::LayerStore;
use super::entry::Entry;

/// Longest chain of parents that is followed; far above what can be mounted. Ends a circle of records.
pub(super) const LONGEST_CHAIN: usize = 4096;

impl LayerStore {
    pub(super) fn mount_layer(&self, id_or_name: &str) -> Result<PathBuf> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let entry = self.by_id_or_name(id_or_name)?;
        let mut mount = entry.lock_mount();
        if mount.lifecycle.gone {
            return Err(self.unknown(id_or_name));
        }
        let count = mount.count().max(0).checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::LimitExceeded, format!("layer {id_or_name}: mounted too often"))
        })?;
        let path = self.mount_in_driver(&entry).during(|| format!("mount layer {id_or_name}"))?;
        mount.set_count(count);
        self.try_save_mount(&entry, count);
        Ok(path)
    }

    pub(super) fn unmount_layer(&self, id_or_name: &str, force: bool) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let Some(entry) = self.registry.find(id_or_name) else { return Ok(()) };
        let mut mount = entry.lock_mount();
        if mount.lifecycle.gone || !mount.is_known() {
            return Ok(());
        }
        let count = if !force && mount.count() > 1 {
            mount.count() - 1
        } else {
            self.driver.unmount(entry.id()).during(|| format!("unmount layer {id_or_name}"))?;
            0
        };
        mount.set_count(count);
        self.try_save_mount(&entry, count);
        Ok(())
    }

    pub(super) fn repair_layer(&self, id_or_name: &str) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let entry = self.by_id_or_name(id_or_name)?;
        let mount = entry.lock_mount();
        if mount.lifecycle.gone {
            return Err(self.unknown(id_or_name));
        }
        self.repairing(&entry, || self.driver.repair_lowers(entry.id(), entry.parent()))
            .during(|| format!("repair layer {id_or_name}"))
    }

    pub(super) fn mend_layer(&self, id: &LayerId) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let entry = self.by_id(id)?;
        let mount = entry.lock_mount();
        if mount.lifecycle.gone {
            return Err(self.unknown(id.as_str()));
        }
        self.repair_chain(&entry).during(|| format!("mend layer {id}"))
    }

    /// Mounts, whatever the count says; already mounted is fine.
    pub(super) fn mount_in_driver(&self, entry: &Entry) -> Result<PathBuf> {
        let below = self.registry.below(entry, LONGEST_CHAIN);
        let label = entry.record().mount_label.as_deref();
        let options = MountOptions { label, below: &below, ..MountOptions::default() };
        self.repairing(entry, || self.driver.mount_with(entry.id(), entry.kind(), &options))
    }

    /// Saves the mount state; the mount is true without it, so failing is only logged (as in the reference).
    pub(super) fn try_save_mount(&self, entry: &Entry, count: i32) {
        let path = self.driver.mount_path(entry.id());
        if let Err(error) = self.disk.save_mount(entry.id(), count, &path) {
            log::warn!("{}", error.report());
        }
    }

    /// Does something with a layer; when it fails, repairs what is derivable in the layer and all below it (a lost
    /// link of a shared base, say) and tries once more. Nothing is checked while all is well.
    pub(super) fn repairing<T>(&self, entry: &Entry, action: impl Fn() -> Result<T>) -> Result<T> {
        let error = match action() {
            Err(error) if may_be_repaired(error.kind()) && !self.disk.is_read_only() => error,
            done => return done,
        };
        if self.is_listed(entry) {
            let done = match self.repair_chain(entry) {
                Ok(()) => action(),
                Err(why) if why.kind() == ErrorKind::Corrupt => Err(why),
                Err(_) => Err(error),
            };
            if done.is_ok() || self.is_listed(entry) {
                return done;
            }
        }
        Err(self.unknown(entry.id().as_str()))
    }

    /// Whether this is still the layer of its id: it may have been deleted meanwhile, and made again on another parent.
    fn is_listed(&self, entry: &Entry) -> bool {
        self.registry.by_id(entry.id()).is_some_and(|listed| std::ptr::eq(listed.as_ref(), entry))
    }

    fn repair_chain(&self, entry: &Entry) -> Result<()> {
        let _one_at_a_time = self.repair.lock();
        let mut chain = Vec::new();
        let mut next = entry.parent().cloned();
        while let Some(id) = next {
            if chain.len() >= LONGEST_CHAIN {
                return Err(Error::corrupt(format!("layer {}: its parents have no end", entry.id())));
            }
            let parent = self.registry.by_id(&id);
            next = parent.as_ref().and_then(|parent| parent.parent().cloned());
            chain.push((id, parent));
        }
        for (id, parent) in chain.iter().rev() {
            match parent {
                Some(parent) => self.driver.validate(id, parent.parent())?,
                // Its record is lost, so nobody knows what it stands on; its link can be repaired all the same.
                None => {
                    let there = self.driver.exists(id)?;
                    log::warn!("layer {}: its parent {id} has no record (data: {there})", entry.id());
                }
            }
        }
        self.driver.validate(entry.id(), entry.parent())
    }
}

/// Whether a lost link or list may be the cause: not where somebody uses the layer or the request is wrong.
fn may_be_repaired(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Os(_))
}
