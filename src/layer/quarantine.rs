// SPDX-License-Identifier: MulanPSL-2.0
//! Putting a layer aside, and taking it back.
//!
//! The record goes first and comes back last, so that a layer is never listed without its content: a crash in between
//! leaves content that no record names, and the next restoration finds it in place.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;
use crate::record::layer::LayerRecord;
use crate::sys::fs::{Dir, FileKind};

use super::disk::Disk;
use super::entry::Entry;
use super::reaper::Rubbish;
use super::registry::{Claim, Reservation};
use super::{CreateLayer, LayerStore, create, load};

impl LayerStore {
    pub(super) fn quarantine_layer(&self, id_or_name: &str, reason: &str) -> Result<Vec<Quarantined>> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let doing = || format!("put layer {id_or_name} aside");
        let removal = self.registry.begin_putting_aside(id_or_name).during(doing)?;
        let removal = removal.ok_or_else(|| self.unknown(id_or_name))?;
        let entry = removal.entry().clone();
        self.refuse_shared(entry.id()).during(doing)?;
        let mut mount = entry.lock_mount();
        self.unmount_all(&entry, &mut mount).during(doing)?;
        let put = self.put_aside(entry.id(), reason).during(doing)?;
        self.disk.try_forget_mount(entry.id());
        mount.lifecycle.gone = true;
        drop(mount);
        removal.put_aside();
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

    /// Lists a layer that was made, or brought back.
    pub(super) fn publish(&self, reservation: Reservation<'_>, entry: Entry, holds: i32) {
        let id = entry.id().clone();
        reservation.publish(entry, holds);
        // What lay in its place is its own now; what lies in quarantine goes on counting as soon as it is deleted.
        if self.registry.is_aside(&id) {
            self.keep_below(&id);
        }
    }

    /// What lies in quarantine, or in its place without being listed, is mended by bringing it back, so what it stands on
    /// has to stay.
    pub(super) fn keep_below(&self, id: &LayerId) {
        let aside = self.disk.quarantined().unwrap_or_else(|error| {
            log::warn!("{}", error.report());
            Vec::new()
        });
        self.keep_below_all(std::iter::once(id.clone()).collect(), &aside);
    }

    /// The same for several layers; `aside` is what lies in quarantine.
    pub(super) fn keep_below_all(&self, ids: HashSet<LayerId>, aside: &[Quarantined]) {
        let mut lowers: HashMap<LayerId, HashSet<LayerId>> =
            ids.into_iter().map(|id| (id, HashSet::new())).collect();
        for put in aside {
            if let Some(lowers) = lowers.get_mut(put.name.as_str()) {
                lowers.extend(recorded_parent(&put.path));
            }
        }
        for (id, mut lowers) in lowers {
            if self.registry.by_id(&id).is_none() {
                lowers.extend(recorded_parent(&self.disk.layers().path().join(&id)));
                match self.driver.lowers(&id) {
                    Ok(found) => lowers.extend(found),
                    Err(error) => log::warn!("layer {id}, which is not listed: {}", error.report()),
                }
            }
            lowers.remove(&id);
            self.registry.set_aside(&id, lowers);
        }
    }

    fn take_back(&self, id: &LayerId) -> Result<()> {
        let put = newest(self.disk.quarantined()?, id)
            .ok_or_else(|| Error::not_found("there is no record of it in quarantine"))?;
        let record = Disk::read_record(&Dir::open(&put.path)?)?;
        let (reservation, parent, names) = self.claim(id, &record)?;
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
        self.publish(reservation, entry, 0);
        Ok(())
    }

    pub(super) fn restore_data_alone(&self, data: &Quarantined) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let doing = || format!("restore the data of layer {} from quarantine", data.name);
        let id = LayerId::new(&data.name).during(doing)?;
        if self.driver.layers().during(doing)?.contains(&id) {
            return Err(Error::new(ErrorKind::AlreadyExists, "it has data").context(doing()));
        }
        if self.registry.by_id(&id).is_some() {
            // A container's layer is listed also without data.
            return self.driver.restore(data).during(doing);
        }
        self.list_with(&id, || self.driver.restore(data)).during(doing)
    }

    pub(super) fn missing_layers(&self, top: &LayerId) -> Result<Vec<LayerId>> {
        let aside = self.disk.quarantined()?;
        let mut missing = Vec::new();
        let mut next = Some(top.clone());
        let mut walked = HashSet::new();
        while let Some(id) = next.filter(|id| walked.insert(id.clone())) {
            next = match self.registry.by_id(&id) {
                Some(entry) => entry.parent().cloned(),
                None => {
                    let put = aside.iter().rfind(|put| put.name == id.as_str());
                    missing.push(id);
                    put.and_then(|put| recorded_parent(&put.path))
                }
            };
        }
        Ok(missing)
    }

    /// Lists a layer whose record is in its place, once `ready` has seen to its data.
    fn list_with(&self, id: &LayerId, ready: impl FnOnce() -> Result<()>) -> Result<()> {
        let dir = self.disk.open_record_dir(id).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::not_found("there is no record of it: restore that"),
            _ => error,
        })?;
        let record = Disk::read_record(&dir)?;
        let (reservation, parent, names) = self.claim(id, &record)?;
        ready()?;
        let entry = Entry::new(id.clone(), parent, names, record, self.registry.next_sequence());
        if !entry.is_image() {
            entry.lock_mount().set_count(0);
        }
        self.publish(reservation, entry, 0);
        Ok(())
    }

    pub(super) fn adopt_layer(&self, id: &LayerId) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        self.make_record(id).during(|| format!("make a record for layer {id}"))
    }

    fn make_record(&self, id: &LayerId) -> Result<()> {
        if !self.driver.layers()?.contains(id) {
            return Err(Error::not_found("it has no data"));
        }
        let parent = self.driver.lowers(id)?.into_iter().next();
        let layer = CreateLayer { parent, writable: true, ..CreateLayer::default() };
        let record = LayerRecord { incomplete: false, ..create::new_record(id, &layer)? };
        let (reservation, parent, names) = self.claim(id, &record)?;
        self.put_useless_record_aside(id)?;
        let dir = self.disk.create_record_dir(id)?;
        let written = self.disk.write_record(&dir, &record).and_then(|()| self.disk.sync_layers());
        if let Err(error) = written {
            match self.disk.discard_record(id) {
                Ok(record) => record.into_iter().for_each(|record| self.reaper.take(Rubbish::Record(record))),
                Err(also) => log::warn!("layer {id}: take its new record away: {}", also.report()),
            }
            return Err(error);
        }
        let entry = Entry::new(id.clone(), parent, names, record, self.registry.next_sequence());
        entry.lock_mount().set_count(0);
        self.publish(reservation, entry, 0);
        Ok(())
    }

    /// What lies in the place of a record and is none, nor ever will be.
    fn put_useless_record_aside(&self, id: &LayerId) -> Result<()> {
        let Some(stat) = self.disk.layers().stat(id.as_str())? else { return Ok(()) };
        if stat.kind == FileKind::Dir {
            match Disk::read_record(&self.disk.open_record_dir(id)?) {
                Ok(_) => return Err(Error::new(ErrorKind::AlreadyExists, "it has a record")),
                Err(error) if matches!(error.kind(), ErrorKind::Os(_)) => return Err(error),
                Err(_) => {}
            }
        }
        self.disk.quarantine_record(id.as_str(), "it is no record of a layer").map(drop)
    }

    pub(super) fn purge_entry(&self, entry: &Quarantined) -> Result<()> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let doing = || format!("purge quarantine entry {}", entry.key);
        if self.disk.quarantined().during(doing)?.iter().any(|record| record.path == entry.path) {
            let purged = self.disk.state().and_then(|state| state.purge(entry)).during(doing)?;
            purged.into_iter().for_each(|record| self.reaper.take(Rubbish::Record(record)));
            if let Ok(id) = LayerId::new(&entry.name) {
                self.keep_below(&id);
            }
            return Ok(());
        }
        let purged = self.driver.purge(entry).during(doing)?;
        self.reaper.take(Rubbish::Content(purged));
        Ok(())
    }

    /// Reserves a layer as its record describes it, with the names that are free.
    fn claim(
        &self,
        id: &LayerId,
        record: &LayerRecord,
    ) -> Result<(Reservation<'_>, Option<LayerId>, Vec<String>)> {
        let parent = load::check(id, record).map_err(Error::corrupt)?;
        if record.incomplete {
            return Err(Error::corrupt("its record says that it is incomplete"));
        }
        let names = self.free_names(record);
        let claim = CreateLayer { parent: parent.clone(), names: names.clone(), ..CreateLayer::default() };
        match self.registry.reserve(id, &claim)? {
            Claim::New(reservation) => {
                reservation.await_parent()?;
                Ok((reservation, parent, names))
            }
            Claim::Existing(_) => {
                // The claim counted a reference on the layer that is there.
                self.registry.by_id(id).into_iter().for_each(|existing| existing.add_holds(-1));
                Err(Error::new(ErrorKind::AlreadyExists, "a layer of that id or name exists"))
            }
        }
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

/// What a record that may be damaged says of its layer's parent.
fn recorded_parent(dir: &Path) -> Option<LayerId> {
    let record = Dir::open(dir).and_then(|dir| Disk::read_record(&dir)).ok()?;
    LayerId::new(&record.parent?).ok()
}

fn newest(entries: Vec<Quarantined>, id: &LayerId) -> Option<Quarantined> {
    entries.into_iter().rfind(|entry| entry.name == id.as_str())
}
