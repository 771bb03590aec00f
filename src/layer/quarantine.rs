// SPDX-License-Identifier: MulanPSL-2.0
//! Putting a layer aside, and taking it back.
//!
//! The record goes first and comes back last, so that a layer is never listed without its content: a crash in between
//! leaves content that no record names, and the next restoration finds it in place.

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;
use crate::record::layer::LayerRecord;
use crate::sys::fs::Dir;

use super::disk::Disk;
use super::entry::Entry;
use super::load;
use super::registry::Claim;
use super::{CreateLayer, LayerStore};

impl LayerStore {
    pub(super) fn quarantine_layer(&self, id_or_name: &str, reason: &str) -> Result<Vec<Quarantined>> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let doing = || format!("put layer {id_or_name} aside");
        let removal = self.registry.begin_removal(id_or_name).during(doing)?;
        let removal = removal.ok_or_else(|| self.unknown(id_or_name))?;
        let entry = removal.entry().clone();
        let mut mount = entry.lock_mount();
        self.unmount_all(&entry, &mut mount).during(doing)?;
        let put = self.put_aside(entry.id(), reason).during(doing)?;
        self.disk.try_forget_mount(entry.id());
        mount.lifecycle.gone = true;
        drop(mount);
        removal.finish();
        log::warn!("layer {}: put aside: {reason}", entry.id());
        Ok(put)
    }

    fn put_aside(&self, id: &LayerId, reason: &str) -> Result<Vec<Quarantined>> {
        let record = self.disk.quarantine_record(id.as_str(), reason)?;
        match self.driver.quarantine(id, reason) {
            Ok(content) => Ok(std::iter::once(record).chain(content).collect()),
            Err(error) => {
                let back = self.disk.state().and_then(|state| state.restore(&record, self.disk.layers()));
                if let Err(also) = back {
                    self.registry.latch(format!("layer {id}: take its record back: {}", also.report()));
                }
                Err(error)
            }
        }
    }

    pub(super) fn restore_layer(&self, id: &LayerId) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        self.take_back(id).during(|| format!("restore layer {id} from quarantine"))
    }

    fn take_back(&self, id: &LayerId) -> Result<()> {
        let put = newest(self.disk.quarantined()?, id)
            .ok_or_else(|| Error::not_found("there is no record of it in quarantine"))?;
        let record = Disk::read_record(&Dir::open(&put.path)?)?;
        let parent = load::check(id, &record).map_err(Error::corrupt)?;
        if record.incomplete {
            return Err(Error::corrupt("its record says that it is incomplete"));
        }
        let names = self.free_names(&record);
        let claim = CreateLayer { parent: parent.clone(), names: names.clone(), ..CreateLayer::default() };
        let Claim::New(reservation) = self.registry.reserve(id, &claim)? else {
            // The claim counted a reference on the layer that is there.
            self.registry.by_id(id).into_iter().for_each(|existing| existing.add_holds(-1));
            return Err(Error::new(ErrorKind::AlreadyExists, "a layer of that id or name exists"));
        };
        if self.disk.layers().stat(id.as_str())?.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "another record of it exists"));
        }
        let restored = self.take_content_back(id, &record)?;
        if let Err(error) = self.disk.state()?.restore(&put, self.disk.layers()) {
            if restored && let Err(also) = self.driver.quarantine(id, &put.reason) {
                log::warn!("layer {id}: put its data aside again: {}", also.report());
            }
            return Err(error);
        }
        let entry = Entry::new(id.clone(), parent, names, record, self.registry.next_sequence());
        if !entry.is_image() {
            entry.lock_mount().set_count(0);
        }
        reservation.publish(entry, 0);
        Ok(())
    }

    /// Whether content was moved. What lies in the driver's place already belongs to the record, if anything does: only
    /// the record was put aside.
    fn take_content_back(&self, id: &LayerId, record: &LayerRecord) -> Result<bool> {
        if self.driver.layers()?.contains(id) {
            return Ok(false);
        }
        match newest(self.driver.quarantined()?, id) {
            Some(content) => self.driver.restore(&content).map(|()| true),
            None if record.diff_digest.is_none() => Ok(false),
            None => Err(Error::corrupt("its data are in neither the driver nor its quarantine")),
        }
    }

    fn free_names(&self, record: &LayerRecord) -> Vec<String> {
        let is_free = |name: &&String| self.registry.find(name).is_none();
        record.names.iter().filter(is_free).cloned().collect()
    }
}

fn newest(entries: Vec<Quarantined>, id: &LayerId) -> Option<Quarantined> {
    entries.into_iter().rfind(|entry| entry.name == id.as_str())
}
