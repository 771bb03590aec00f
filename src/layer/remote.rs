// SPDX-License-Identifier: MulanPSL-2.0
//! Image layers that other hosts share: `<driver>-layers/RO`, see [`crate::persist::SharedDir`].
//!
//! ```text
//! made      data built out of sight ─► durable ─► driver's RO/<id> ─► record with everything in it ─► RO/<id> ─► memory
//! deleted   noted ─► record into the trash ─► data into the trash ─► memory ─► note settled
//! seen      driver's RO/<id> whole ─► record whole, its parent listed ─► memory
//! ```
//!
//! A record that lies in `RO` never carries the incomplete mark of this store: what carries it is being made by iSulad on
//! another host, or was left by a crash there, and is reported and left alone. Nothing of another host is repaired, put
//! aside or deleted because of a doubt.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use parking_lot::Mutex;

use crate::driver::{GraphDriver, LayerKind, NewLayer, SharedLayers, SharedScan};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{LayerId, is_canonical};
use crate::persist::{Discarded, SharedDir};
use crate::sys::fs::Dir;

use super::create::{Kept, Promise, new_record};
use super::disk::Disk;
use super::entry::Entry;
use super::load::{self, Found, Reading};
use super::open::STATE;
use super::reaper::Rubbish;
use super::registry::Removal;
use super::{CreateLayer, LayerStore, LayerStoreOptions, Problem};

/// Longest chain of layers that is followed; ends a circle of records.
const LONGEST_CHAIN: usize = 4096;

/// What [`LayerStore::refresh_shared`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedChanges {
    /// Layers that are listed now, parents first.
    pub added: Vec<LayerId>,
    /// Layers that are not any more.
    pub removed: Vec<LayerId>,
    /// Whether anything can be used now that could not before, or the other way round.
    pub changed: bool,
    /// What could not be listed, and what is listed although it is gone.
    pub problems: Vec<Problem>,
}

/// What is known of one shared layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharedView {
    /// Its data were whole at the last look.
    pub data: bool,
    /// It is listed and there.
    pub record: bool,
}

/// What a store remembers of shared layers.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// One look at a time.
    looking: Mutex<()>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    whole: HashSet<LayerId>,
    /// Layers that are gone but listed still, and why.
    gone: BTreeMap<LayerId, String>,
    problems: Vec<Problem>,
}

impl Sharing {
    pub(super) fn problems(&self) -> Vec<Problem> {
        self.last.lock().problems.clone()
    }
}

/// Adds the shared records to the directories of a store.
pub(super) fn open_disk(disk: Disk, options: &LayerStoreOptions) -> Result<Disk> {
    if disk.is_read_only() {
        return Err(Error::new(ErrorKind::Unsupported, "shared layers need a store opened for writing"));
    }
    let name = disk.layers().path().file_name().unwrap_or_default().to_owned();
    let state = Dir::open(&options.root.join(STATE))?.open_dir(name)?;
    disk.with_shared(state)
}

/// Before the records are loaded: ends what a crash interrupted and gives every shared record its name. A share that
/// cannot be read keeps nothing of this host from being loaded.
pub(super) fn prepare(disk: &Disk, driver: &dyn GraphDriver) {
    let (Some(shared), Some(layers)) = (disk.shared(), driver.shared()) else { return };
    let prepared = (|| {
        let whole = layers.scan()?.layers;
        finish_removals(disk, shared, driver, layers)?;
        for entry in shared.entries()? {
            let name = entry.name.to_string_lossy();
            if is_canonical(&name) && LayerId::new(&name).is_ok_and(|id| whole.contains(&id)) {
                // Something else may have the name; loading says what it is.
                let _linked = shared.link(&name)?;
            }
        }
        Ok(())
    })();
    if let Err(error) = prepared {
        log::warn!("look through the shared layers: {}", Error::report(&error));
    }
}

/// Removes what a deletion left, if it is still that: another host may have made the layer again since.
fn finish_removals(
    disk: &Disk,
    shared: &SharedDir,
    driver: &dyn GraphDriver,
    layers: &dyn SharedLayers,
) -> Result<()> {
    for (name, noted) in shared.noted_removals()? {
        let Ok(id) = LayerId::new(&name) else { continue };
        let (record, data) = noted.split_once(' ').unwrap_or_default();
        let there = shared.identity(&name)?;
        if there.as_deref().is_none_or(|there| there == record) {
            log::info!("layer {id}: its deletion was begun: removing what is left of it");
            let record = shared.discard(disk.state()?.as_ref(), &name)?;
            record.into_iter().for_each(Discarded::remove);
            shared.unlink(&name)?;
            if layers.identity(&id)?.as_deref() == Some(data) {
                driver.remove(&id)?.remove();
            }
        }
        shared.settle_removal(&name);
    }
    Ok(())
}

/// What is wrong with a shared record is reported, whatever would be done about one of this host.
pub(super) fn left_alone(disk: &Disk, reading: Reading) -> Reading {
    let (id, reason) = match &reading {
        Reading::Layer(found) if found.record.incomplete => (found.id.to_string(), INCOMPLETE.to_owned()),
        Reading::Layer(found) if found.record.writable => (found.id.to_string(), WRITABLE.to_owned()),
        Reading::Layer(_) | Reading::Unreadable(_) => return reading,
        Reading::Blank(id) => (id.to_string(), "its shared record is empty".to_owned()),
        Reading::Doubtful(doubt) => (doubt.name.clone(), doubt.reason.clone()),
    };
    if disk.is_shared(&id) { Reading::Unreadable(load::problem(id, reason)) } else { reading }
}

const INCOMPLETE: &str =
    "its shared record says that it is incomplete: another host is at it, or was interrupted";
const WRITABLE: &str = "it is a container's layer, and such are not shared";

impl LayerStore {
    /// Whether a new layer is to be shared.
    pub(super) fn shares(&self, layer: &CreateLayer) -> bool {
        !layer.writable && self.disk.shared().is_some()
    }

    pub(super) fn shared(&self) -> Result<(&SharedDir, &dyn SharedLayers)> {
        match (self.disk.shared(), self.driver.shared()) {
            (Some(shared), Some(driver)) => Ok((shared, driver)),
            _ => Err(Error::new(ErrorKind::Unsupported, "the layer store was opened without shared layers")),
        }
    }

    pub(super) fn refuse_shared(&self, id: &LayerId) -> Result<()> {
        if self.disk.is_shared(id.as_str()) {
            let message = "it is shared with other hosts: it is left where it is";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(())
    }

    pub(super) fn refresh_shared_layers(&self) -> Result<SharedChanges> {
        let _activity = self.registry.enter()?;
        let (shared, driver) = self.shared()?;
        let _one_at_a_time = self.sharing.looking.lock();
        let scan = driver.scan()?;
        let mut changes = SharedChanges::default();
        let mut records = HashSet::new();
        for entry in shared.entries().during(|| "list shared records")? {
            let name = entry.name.to_string_lossy();
            match LayerId::new(&name) {
                Ok(id) if is_canonical(&name) => {
                    records.insert(id);
                }
                _ => changes.problems.push(load::problem(name, "its name is not a layer id")),
            }
        }
        self.list_new(shared, &scan, &records, &mut changes)?;
        let gone = self.drop_gone(driver, &scan, &records, &mut changes)?;
        for (name, reason) in &scan.problems {
            changes.problems.push(load::problem(name, reason.as_str()));
        }
        let mut last = self.sharing.last.lock();
        for problem in changes.problems.iter().filter(|problem| !last.problems.contains(problem)) {
            log::warn!("shared {}: {}", problem.subject, problem.reason);
        }
        changes.changed =
            !changes.added.is_empty() || !changes.removed.is_empty() || !gone.keys().eq(last.gone.keys());
        *last = Last { whole: scan.layers, gone, problems: changes.problems.clone() };
        Ok(changes)
    }

    fn list_new(
        &self,
        shared: &SharedDir,
        scan: &SharedScan,
        records: &HashSet<LayerId>,
        changes: &mut SharedChanges,
    ) -> Result<()> {
        let mut waiting = Vec::new();
        for id in records {
            if !scan.layers.contains(id) || self.registry.by_id(id).is_some() {
                continue;
            }
            match self.read_shared(shared, id) {
                Ok(found) => waiting.push(found),
                Err(error) if is_out_of_resources(&error) => return Err(error),
                Err(error) => changes.problems.push(load::problem(id, error.report())),
            }
        }
        waiting.sort_by(|a, b| (&a.record.created, &a.id).cmp(&(&b.record.created, &b.id)));
        // Parents first, whatever the clocks of the other hosts say.
        loop {
            let before = waiting.len();
            let mut later = Vec::new();
            for found in waiting {
                let parent = found.parent.as_ref();
                if parent.is_some_and(|parent| self.registry.by_id(parent).is_none()) {
                    later.push(found);
                } else {
                    let id = found.id.clone();
                    if self.registry.adopt(self.entry_of(found, None))? {
                        changes.added.push(id);
                    }
                }
            }
            waiting = later;
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        for found in waiting {
            let parent = found.parent.map(|parent| parent.to_string()).unwrap_or_default();
            changes
                .problems
                .push(load::problem(&found.id, format!("its parent {parent} is not in the store")));
        }
        Ok(())
    }

    /// Reads a shared record and gives it its name here.
    fn read_shared(&self, shared: &SharedDir, id: &LayerId) -> Result<Found> {
        if !shared.link(id.as_str())? {
            return Err(Error::corrupt("something of this host, which is not listed, has its name"));
        }
        match left_alone(&self.disk, load::read_one(&self.disk, id)?) {
            Reading::Layer(found) => Ok(*found),
            Reading::Unreadable(problem) => Err(Error::corrupt(problem.reason)),
            Reading::Blank(_) | Reading::Doubtful(_) => Err(Error::corrupt("its record is not whole")),
        }
    }

    /// A layer in memory. `names`: those it is to have; else those of its record that no other layer has.
    fn entry_of(&self, found: Found, names: Option<Vec<String>>) -> Entry {
        let names = names.unwrap_or_else(|| {
            let is_free = |name: &&String| self.registry.find(name).is_none();
            found.record.names.iter().filter(is_free).cloned().collect()
        });
        if let Some(damage) = found.damage {
            log::warn!("shared layer {}: {damage}", found.id);
        }
        Entry::new(found.id, found.parent, names, found.record, self.registry.next_sequence())
    }

    /// Takes layers that are gone out of the lists, those that others stand on last.
    fn drop_gone(
        &self,
        driver: &dyn SharedLayers,
        scan: &SharedScan,
        records: &HashSet<LayerId>,
        changes: &mut SharedChanges,
    ) -> Result<BTreeMap<LayerId, String>> {
        let mut gone = Vec::new();
        for entry in self.registry.all() {
            let id = entry.id();
            if self.disk.is_shared(id.as_str())
                && !(records.contains(id) && (scan.layers.contains(id) || driver.has_data(id)?))
            {
                gone.push(id.clone());
            }
        }
        loop {
            let mut free: Vec<Removal<'_>> = Vec::new();
            let mut kept = BTreeMap::new();
            for id in &gone {
                match self.free_shared(id) {
                    Ok(removal) => free.extend(removal),
                    Err(error) => {
                        kept.insert(id.clone(), error.report());
                    }
                }
            }
            if free.is_empty() {
                for (id, why) in &kept {
                    let reason = format!("it is gone from the shared directory, but is in use here: {why}");
                    changes.problems.push(load::problem(id, reason));
                }
                return Ok(kept);
            }
            let ids: Vec<LayerId> = free.iter().map(|removal| removal.entry().id().clone()).collect();
            driver.forget(&ids)?;
            for removal in free {
                self.forget(removal);
            }
            changes.removed.extend(ids);
            gone = kept.into_keys().collect();
        }
    }

    /// The right to forget a layer that nothing here uses; in use: an error that says by what.
    fn free_shared(&self, id: &LayerId) -> Result<Option<Removal<'_>>> {
        let unheld = |entry: &Entry| match entry.holds() {
            ..=0 => Ok(()),
            holds => Err(Error::new(ErrorKind::InUse, format!("{holds} hold references"))),
        };
        let Some(removal) = self.registry.begin_removal_if(id.as_str(), unheld)? else { return Ok(None) };
        let entry = removal.entry().clone();
        let mount = entry.lock_mount();
        if mount.count() > 0 || self.driver.is_mounted(id)? {
            return Err(Error::new(ErrorKind::InUse, "it is mounted"));
        }
        Ok(Some(removal))
    }

    /// Takes a layer out of memory, and its name away.
    fn forget(&self, removal: Removal<'_>) {
        let entry = removal.entry().clone();
        let id = entry.id();
        if let Some(Err(error)) = self.disk.shared().map(|shared| shared.unlink(id.as_str())) {
            log::warn!("layer {id}: take its name away: {}", error.report());
        }
        self.disk.try_forget_mount(id);
        entry.lock_mount().lifecycle.gone = true;
        removal.finish();
    }

    pub(super) fn load_shared_layer(&self, id: &LayerId) -> Result<bool> {
        let _activity = self.registry.enter()?;
        let (shared, driver) = self.shared()?;
        if self.registry.by_id(id).is_some() {
            return Ok(false);
        }
        let doing = || format!("load shared layer {id}");
        if !shared.has(id.as_str()).during(doing)? {
            return Err(Error::not_found("it is not in the shared directory").context(doing()));
        }
        let scan = driver.scan().during(doing)?;
        if !scan.layers.contains(id) {
            return Err(Error::corrupt("its data are not there, or not whole").context(doing()));
        }
        let found = self.read_shared(shared, id).during(doing)?;
        self.sharing.last.lock().whole.insert(id.clone());
        self.registry.adopt(self.entry_of(found, None)).during(doing)
    }

    pub(super) fn forget_shared_layer(&self, id: &LayerId) -> Result<()> {
        let _activity = self.registry.enter()?;
        let (_, driver) = self.shared()?;
        let doing = || format!("forget shared layer {id}");
        if self.registry.by_id(id).is_none() {
            return Ok(());
        }
        if !self.disk.is_shared(id.as_str()) {
            return Err(Error::invalid("it is a layer of this host alone").context(doing()));
        }
        if let Some(removal) = self.free_shared(id).during(doing)? {
            driver.forget(std::slice::from_ref(id)).during(doing)?;
            self.forget(removal);
        }
        Ok(())
    }

    pub(super) fn has_whole_chain(&self, top: &str) -> bool {
        let gone: HashSet<LayerId> = self.sharing.last.lock().gone.keys().cloned().collect();
        let Ok(mut next) = LayerId::new(top).map(Some) else { return false };
        for _ in 0..LONGEST_CHAIN {
            let Some(id) = next else { return true };
            let Some(entry) = self.registry.by_id(&id).filter(|_| !gone.contains(&id)) else { return false };
            next = entry.parent().cloned();
        }
        false
    }

    pub(super) fn view_shared(&self, id: &LayerId) -> SharedView {
        let last = self.sharing.last.lock();
        let listed = self.registry.by_id(id).is_some() && self.disk.is_shared(id.as_str());
        SharedView { data: last.whole.contains(id), record: listed && !last.gone.contains_key(id) }
    }

    /// A layer that another host has made since the last look, if there is one of that id.
    pub(super) fn take_over_shared(&self, id: &LayerId, layer: &CreateLayer) -> Result<Option<Entry>> {
        let (shared, driver) = self.shared()?;
        if !shared.has(id.as_str())? || !driver.scan()?.layers.contains(id) {
            return Ok(None);
        }
        let found = match self.read_shared(shared, id) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None), // which building it heals
            Err(error) => return Err(error),
        };
        if found.parent != layer.parent {
            return Err(Error::corrupt("another host has shared a layer of this id with another parent"));
        }
        Ok(Some(self.entry_of(found, Some(layer.names.clone()))))
    }

    pub(super) fn build_shared(
        &self,
        id: &LayerId,
        layer: &CreateLayer,
        content: Option<&mut (dyn Read + Send)>,
    ) -> Result<Entry> {
        let (shared, driver) = self.shared()?;
        let promise = Promise::of(layer)?;
        let mut record = new_record(id, layer)?;
        record.incomplete = false;
        self.make_way_for_shared(shared, id)?;

        let staged = shared.stage()?;
        let tar_split = content.as_ref().map(|_| Disk::create_tar_split(staged.dir(), id)).transpose()?;
        self.driver.create(&NewLayer {
            id,
            parent: layer.parent.as_ref(),
            kind: LayerKind::ReadOnly,
            storage_options: &layer.storage_options,
            mount_label: layer.mount_label.as_deref(),
        })?;
        let filled = (|| {
            if let (Some(content), Some(tar_split)) = (content, tar_split) {
                let (applied, tar_split) = self.fill(id, content, tar_split)?;
                if let Kept::Beside(diff_id) = promise.verify(&applied)? {
                    self.disk.write_diff_id(staged.dir(), id, diff_id)?;
                }
                if self.disk.is_durable() {
                    tar_split.sync_all().during(|| "make the tar-split stream durable")?;
                }
                record.diff_size = i64::try_from(applied.content_size.0).unwrap_or(i64::MAX);
            }
            self.disk.write_record(staged.dir(), &record)?;
            self.driver.sync(id)
        })();
        if let Err(error) = filled {
            if let Err(also) = driver.abandon(id) {
                log::warn!("layer {id}: take back its unfinished creation: {}", also.report());
            }
            return Err(error);
        }
        driver.publish(id)?;
        self.disk.try_forget_mount(id);
        if let Err(error) = shared.publish(staged, id.as_str()) {
            // Where another host was faster with its record, the data may be what it stands for.
            if error.kind() != ErrorKind::AlreadyExists {
                match self.driver.remove(id) {
                    Ok(content) => self.reaper.take(Rubbish::Content(content)),
                    Err(also) => log::warn!("layer {id}: take back its data: {}", also.report()),
                }
            }
            return Err(error);
        }
        // Data without a record are in the way of another host that makes the same layer: it may have put them aside.
        if !driver.has_data(id)? {
            let record = shared.discard(self.disk.state()?.as_ref(), id.as_str())?;
            record.into_iter().for_each(|record| self.reaper.take(Rubbish::Record(record)));
            return Err(Error::new(ErrorKind::AlreadyExists, "another host is making it"));
        }
        if !shared.link(id.as_str())? {
            return Err(Error::new(ErrorKind::AlreadyExists, "something of this host has its name"));
        }
        // An earlier removal of this id that was never settled must not come true for this one.
        shared.settle_removal(id.as_str());
        let entry = Entry::new(
            id.clone(),
            layer.parent.clone(),
            layer.names.clone(),
            record,
            self.registry.next_sequence(),
        );
        entry.lock_mount().set_count(0);
        Ok(entry)
    }

    /// What is not listed and has the name of a new shared layer is put aside, on this host and in the shared directory.
    fn make_way_for_shared(&self, shared: &SharedDir, id: &LayerId) -> Result<()> {
        let reason = "left over when the layer was made again";
        shared.unlink(id.as_str())?;
        if self.disk.layers().stat(id.as_str())?.is_some() {
            self.clear_left_over(id)?;
        }
        let state = self.disk.state()?;
        if let Some(aside) = shared.put_aside(&state, id.as_str(), reason)? {
            log::warn!("layer {id}: a left-over shared record was put aside as {}", aside.display());
        }
        Ok(())
    }

    /// Deletes a shared layer, for all hosts. The record first: without it nobody takes the data for a layer.
    pub(super) fn take_shared_away(&self, id: &LayerId) -> Result<()> {
        let (shared, layers) = self.shared()?;
        let identity = |found: Option<String>| found.unwrap_or_else(|| "-".to_owned());
        let record = identity(shared.identity(id.as_str())?);
        let data = identity(layers.identity(id)?);
        let note = format!("{record} {data}");
        shared.note_removal(id.as_str(), &note)?;
        match shared.discard(self.disk.state()?.as_ref(), id.as_str()) {
            Ok(record) => record.into_iter().for_each(|record| self.reaper.take(Rubbish::Record(record))),
            Err(error) => {
                shared.settle_removal(id.as_str());
                return Err(error);
            }
        }
        self.disk.try_forget_mount(id);
        // Without its record the layer can be made again by another host, and is not ours any more then.
        let removed = shared.unlink(id.as_str()).and_then(|()| {
            let is_ours = identity(layers.identity(id)?) == data;
            is_ours.then(|| self.driver.remove(id)).transpose()
        });
        match removed {
            Ok(content) => {
                content.into_iter().for_each(|content| self.reaper.take(Rubbish::Content(content)));
                shared.settle_removal(id.as_str());
            }
            // The layer is gone; the next start removes the rest.
            Err(error) => log::warn!("layer {id}: remove its data: {}", error.report()),
        }
        Ok(())
    }
}

fn is_out_of_resources(error: &Error) -> bool {
    matches!(error.errno(), libc::EMFILE | libc::ENFILE | libc::ENOMEM)
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
