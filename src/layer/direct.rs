// SPDX-License-Identifier: MulanPSL-2.0
//! A driver used past the layer store, as the reference's graph-driver functions do.
//!
//! What the store has a record of is changed by the store only: here such a layer can be mounted and looked at, but not
//! be made again, filled or removed. A layer without a record is nobody else's, and the caller may do with it what a
//! driver can do. Calls for one layer are serialised with each other and with the store's own, as drivers demand it.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use crate::driver::options::take_limits;
use crate::driver::{
    self, DriverOptions, DriverStatus, GraphDriver, LayerKind, Limits, Metadata, MountOptions, NewLayer,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::record::layer::LayerRecord;
use crate::sys::fs::Dir;
use crate::units::Usage;

use super::LayerStore;
use super::disk::{RECORD, RECORD_LIMIT};
use super::mount::LONGEST_CHAIN;
use super::registry::Registry;

/// A driver that is open without a layer store. It knows the records of a store that lies there by looking for them.
pub struct LoneDriver {
    driver: Arc<dyn GraphDriver>,
    registry: Registry,
    records: PathBuf,
    limits: Limits,
}

/// A driver used directly; see the module.
pub struct Direct<'a> {
    driver: &'a dyn GraphDriver,
    registry: &'a Registry,
    /// Where records are, if they are not in the registry.
    records: Option<&'a PathBuf>,
    limits: Limits,
}

impl LoneDriver {
    /// Opens a driver on its own. Errors: those of [`driver::open`]; `InUse` when a store or another process has it.
    pub fn open(options: &DriverOptions) -> Result<LoneDriver> {
        LoneDriver::open_with(options, driver::open)
    }

    /// The same with layers that other hosts share.
    pub fn open_shared(options: &DriverOptions) -> Result<LoneDriver> {
        LoneDriver::open_with(options, driver::open_shared)
    }

    fn open_with(
        options: &DriverOptions,
        open: impl FnOnce(&DriverOptions) -> Result<Arc<dyn GraphDriver>>,
    ) -> Result<LoneDriver> {
        let records = options.root.join(format!("{}-layers", driver::name_on_disk(&options.name)?));
        let mut limits = Limits::default();
        let rest = take_limits(options.options.clone(), &mut limits)?;
        let driver = open(&DriverOptions { options: rest, ..options.clone() })?;
        Ok(LoneDriver { driver, registry: Registry::new(Vec::new()), records, limits })
    }

    /// What can be done with it.
    pub fn direct(&self) -> Direct<'_> {
        Direct {
            driver: self.driver.as_ref(),
            registry: &self.registry,
            records: Some(&self.records),
            limits: self.limits.clone(),
        }
    }

    /// Releases the driver after waiting for calls under way; closing twice is fine. Layers stay mounted.
    pub fn close(&self) -> Result<()> {
        if self.registry.close() { self.driver.clean_up() } else { Ok(()) }
    }
}

impl Drop for LoneDriver {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::warn!("close graph driver: {}", error.report());
        }
    }
}

impl LayerStore {
    /// The store's driver, for use past the store.
    pub fn direct(&self) -> Direct<'_> {
        Direct {
            driver: self.driver.as_ref(),
            registry: &self.registry,
            records: None,
            limits: self.limits.clone(),
        }
    }
}

/// What is known of a layer that has a record.
#[derive(Debug)]
struct Recorded {
    kind: LayerKind,
    label: Option<String>,
    /// What it stands on, as far as that is listed.
    below: Vec<LayerId>,
}

impl Direct<'_> {
    /// Makes an empty layer. It is there, with a record or without: `AlreadyExists`, nothing is touched. Data that are no
    /// whole layer are put aside first. What the driver says otherwise: see [`GraphDriver::create`].
    pub fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let _activity = self.registry.enter()?;
        let beside = self.registry.reserve_beside(layer.id, layer.parent)?;
        if self.record(layer.id)?.is_some() || self.driver.exists(layer.id)? {
            let what = format!("layer {} exists already", layer.id);
            return Err(Error::new(ErrorKind::AlreadyExists, what));
        }
        self.driver.create(layer)?;
        if let (LayerKind::ReadOnly, Some(shared)) = (layer.kind, self.driver.shared()) {
            // Nobody says when it is full: seen at once, as in the reference.
            shared.publish(layer.id)?;
        }
        beside.made();
        Ok(())
    }

    /// Fills an empty layer from an archive, durably. The layer has a record, or is mounted: `InUse`; it has content:
    /// `AlreadyExists`. After another error it holds a part: remove it.
    pub fn apply(&self, id: &LayerId, source: &mut dyn Read) -> Result<()> {
        let _activity = self.registry.enter()?;
        let _beside = self.unrecorded(id)?;
        if self.driver.is_mounted(id)? {
            return Err(Error::new(ErrorKind::InUse, format!("layer {id} is mounted")));
        }
        self.driver.apply(id, source, &mut io::sink(), &self.limits)?;
        self.driver.sync(id)
    }

    /// Removes a layer; absent is fine. It has a record, other layers stand on it, or its mount is busy: `InUse`. It cannot
    /// be found out whether others stand on it: that error, and it stays.
    pub fn remove(&self, id: &LayerId) -> Result<()> {
        let _activity = self.registry.enter()?;
        let beside = self.unrecorded(id)?;
        if self.registry.has_children(id) {
            return Err(Error::new(ErrorKind::InUse, format!("layer {id}: other layers stand on it")));
        }
        for other in self.driver.layers()? {
            if self.driver.lowers(&other)?.contains(id) {
                return Err(Error::new(ErrorKind::InUse, format!("layer {id}: layer {other} stands on it")));
            }
        }
        let removed = self.driver.remove(id)?;
        beside.removed();
        removed.remove();
        Ok(())
    }

    /// Mounts a layer without counting; already mounted is success. An image layer that has a record is mounted
    /// read-only, every other layer writable, as in the reference.
    pub fn mount(&self, id: &LayerId, options: &MountOptions<'_>) -> Result<PathBuf> {
        self.using(id, |recorded| {
            let kind = recorded.as_ref().map_or(LayerKind::ReadWrite, |recorded| recorded.kind);
            let label = recorded.as_ref().and_then(|recorded| recorded.label.as_deref());
            let below = recorded.as_ref().map_or(&[][..], |recorded| &recorded.below);
            let options = MountOptions { label: options.label.or(label), below, ..*options };
            self.driver.mount_with(id, kind, &options)
        })
    }

    /// Unmounts a layer, whatever the layer store has counted; not mounted or absent is fine.
    pub fn unmount(&self, id: &LayerId) -> Result<()> {
        self.using(id, |_| self.driver.unmount(id))
    }

    /// Whether the layer is there and usable; repairs a lost link.
    pub fn exists(&self, id: &LayerId) -> Result<bool> {
        let _activity = self.registry.enter()?;
        self.driver.exists(id)
    }

    /// Rebuilds the list of lower layers if it is broken; absent is fine.
    pub fn repair_lowers(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.using(id, |_| self.driver.repair_lowers(id, parent))
    }

    /// The driver's name and where the layer's content is. Unknown: `NotFound`.
    pub fn metadata(&self, id: &LayerId) -> Result<(&'static str, Metadata)> {
        let _activity = self.registry.enter()?;
        Ok((self.driver.name(), self.driver.metadata(id)?))
    }

    /// What the layer itself holds, and the directory that was counted; unknown: `None`.
    pub fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>> {
        let _activity = self.registry.enter()?;
        self.driver.usage(id)
    }

    /// Name, backing file system, status lines.
    pub fn status(&self) -> Result<DriverStatus> {
        let _activity = self.registry.enter()?;
        self.driver.status()
    }

    /// The right to change a layer that has no record.
    fn unrecorded(&self, id: &LayerId) -> Result<super::registry::Beside<'_>> {
        let in_use = |error: Error| match error.kind() {
            ErrorKind::AlreadyExists => error.with_kind(ErrorKind::InUse),
            _ => error,
        };
        let beside = self.registry.reserve_beside(id, None).map_err(in_use)?;
        match self.record(id)? {
            None => Ok(beside),
            Some(_) => Err(Error::new(
                ErrorKind::InUse,
                format!("layer {id} has a record: it belongs to a layer store"),
            )),
        }
    }

    /// Does something that changes neither content nor existence.
    fn using<T>(&self, id: &LayerId, action: impl FnOnce(Option<Recorded>) -> Result<T>) -> Result<T> {
        let _activity = self.registry.enter()?;
        if let Some(entry) = self.registry.by_id(id) {
            let mount = entry.lock_mount();
            if !mount.lifecycle.gone {
                let label = entry.record().mount_label.clone();
                let below = self.registry.below(&entry, LONGEST_CHAIN);
                return action(Some(Recorded { kind: entry.kind(), label, below }));
            }
        }
        let _beside = self.registry.reserve_beside(id, None)?;
        action(self.record(id)?)
    }

    /// What a record on disk says, where nobody has read it. One that cannot be read is an image layer's: mounting that
    /// changes nothing.
    fn record(&self, id: &LayerId) -> Result<Option<Recorded>> {
        let Some(records) = self.records else { return Ok(None) };
        let text = match Dir::open(&records.join(id)).and_then(|dir| dir.read(RECORD, RECORD_LIMIT)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.context(format!("look for a record of layer {id}"))),
            Ok(text) => text,
        };
        let record = LayerRecord::parse(&text).unwrap_or_default();
        let kind = if record.writable { LayerKind::ReadWrite } else { LayerKind::ReadOnly };
        Ok(Some(Recorded { kind, label: record.mount_label, below: Vec::new() }))
    }
}
