// SPDX-License-Identifier: MulanPSL-2.0
//! All layers in memory: what is listed, and what is being made or deleted.
//!
//! Both locks are held for map operations only. Every change of `index` happens under `ledger`, so who holds
//! `ledger` sees an index that does not change.

mod aside;
mod chain;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;

use super::CreateLayer;
use super::entry::Entry;
use super::index::{Index, listed};

/// The layers of a store.
#[derive(Debug)]
pub(super) struct Registry {
    index: RwLock<Index>,
    ledger: Mutex<Ledger>,
    /// Something in `ledger` was released.
    released: Condvar,
    next_sequence: AtomicU64,
}

/// What changes are under way.
#[derive(Debug, Default)]
struct Ledger {
    closed: bool,
    /// Memory and disk may differ: why.
    latched: Option<String>,
    /// Calls that may be using disk or driver.
    active: usize,
    /// Ids being created or deleted, and by whom.
    busy: HashMap<LayerId, ThreadId>,
    /// Ids being created, and whether the driver knows them already.
    making: HashMap<LayerId, bool>,
    /// Names of layers being created, and by whom.
    claimed_names: HashMap<String, ThreadId>,
    /// Layers whose damage is being healed: they are used, but not deleted.
    healing: HashSet<LayerId>,
    /// How many layers, listed or being created, stand on a layer.
    children: HashMap<LayerId, usize>,
    /// Layers that were made past the store, and what they stand on: each counts in `children`.
    beside: HashMap<LayerId, LayerId>,
    /// Layers of which something lies in quarantine, or that are there but not listed, and what they stand on. They may
    /// come back, so each that is not listed counts in `kept`.
    aside: HashMap<LayerId, HashSet<LayerId>>,
    /// For how many of those a layer is kept.
    kept: HashMap<LayerId, usize>,
}

/// What a create is to do.
#[derive(Debug)]
pub(super) enum Claim<'a> {
    /// Nothing: this layer exists and gained a hold reference.
    Existing(LayerId),
    /// Make it.
    New(Reservation<'a>),
}

/// The sole right to create one layer. Dropped unpublished: as if it had never been asked for.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    registry: &'a Registry,
    id: LayerId,
    names: Vec<String>,
    parent: Option<LayerId>,
    /// The parent was not complete when this was reserved.
    ahead: bool,
    published: bool,
}

/// The sole right to delete one layer. Dropped: it stays.
#[derive(Debug)]
pub(super) struct Removal<'a> {
    registry: &'a Registry,
    entry: Arc<Entry>,
}

/// The sole right to work on one layer that the store does not list.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    registry: &'a Registry,
    id: LayerId,
    /// What it is to stand on, while it is being made.
    parent: Option<LayerId>,
}

/// The sole right to heal one layer.
#[derive(Debug)]
pub(super) struct Healing<'a> {
    registry: &'a Registry,
    entry: Arc<Entry>,
}

/// A call under way; [`Registry::close`] waits for it.
#[derive(Debug)]
pub(super) struct Activity<'a>(&'a Registry);

impl Registry {
    /// A registry of these layers, in this order. Of two that claim one name the first keeps it; the caller has seen to
    /// that already.
    pub(super) fn new(entries: Vec<Arc<Entry>>) -> Registry {
        let mut index = Index::with_capacity(entries.len());
        let mut children = HashMap::with_capacity(entries.len());
        let mut next = 0;
        for entry in entries {
            next = next.max(entry.sequence() + 1);
            if let Some(parent) = entry.parent() {
                *children.entry(parent.clone()).or_insert(0) += 1;
            }
            index.insert(entry);
        }
        Registry {
            index: RwLock::new(index),
            ledger: Mutex::new(Ledger { children, ..Ledger::default() }),
            released: Condvar::new(),
            next_sequence: AtomicU64::new(next),
        }
    }

    pub(super) fn by_id(&self, id: &LayerId) -> Option<Arc<Entry>> {
        self.index.read().by_id.get(id).cloned()
    }

    pub(super) fn find(&self, id_or_name: &str) -> Option<Arc<Entry>> {
        self.index.read().find(id_or_name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.index.read().in_order.values().cloned().collect()
    }

    pub(super) fn by_compressed_digest(&self, digest: &str) -> Vec<Arc<Entry>> {
        listed(self.index.read().by_compressed.get(digest))
    }

    pub(super) fn by_uncompressed_digest(&self, digest: &str) -> Vec<Arc<Entry>> {
        listed(self.index.read().by_uncompressed.get(digest))
    }

    /// Asks for the right to heal a layer; `None` when it is whole as far as is known, or somebody is at it already.
    pub(super) fn begin_healing(&self, id: &LayerId) -> Option<Healing<'_>> {
        let mut ledger = self.ledger.lock();
        let entry = self.by_id(id).filter(|entry| entry.is_suspect() && entry.is_image())?;
        (!ledger.busy.contains_key(id) && ledger.healing.insert(id.clone()))
            .then(|| Healing { registry: self, entry })
    }

    /// Layers on which no other stands, in order of creation.
    pub(super) fn topmost(&self) -> Vec<Arc<Entry>> {
        let (ledger, index) = (self.ledger.lock(), self.index.read());
        index.in_order.values().filter(|entry| !ledger.children.contains_key(entry.id())).cloned().collect()
    }

    pub(super) fn has_children(&self, id: &LayerId) -> bool {
        let ledger = self.ledger.lock();
        ledger.children.contains_key(id) || ledger.kept.contains_key(id)
    }

    pub(super) fn is_kept(&self, id: &LayerId) -> bool {
        self.ledger.lock().kept.contains_key(id)
    }

    /// `NotReady` once the store is closed.
    pub(super) fn ready(&self) -> Result<()> {
        self.ledger.lock().ready()
    }

    /// Announces a call that uses disk or driver; `NotReady` once the store is closed.
    pub(super) fn enter(&self) -> Result<Activity<'_>> {
        let mut ledger = self.ledger.lock();
        ledger.ready()?;
        ledger.active += 1;
        Ok(Activity(self))
    }

    /// The place in lists of the next layer.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks for the right to create a layer; waits while the id is being created or deleted, and until the driver knows a
    /// parent that another thread is creating. Such a layer may be filled beside its parent, but must not be completed
    /// before [`Reservation::await_parent`].
    pub(super) fn reserve(&self, id: &LayerId, layer: &CreateLayer) -> Result<Claim<'_>> {
        let mut ledger = self.ledger.lock();
        loop {
            ledger.changeable()?;
            let existing = self.index.read().find(id.as_str()).cloned();
            let wait = match existing {
                Some(existing) if !ledger.busy.contains_key(existing.id()) => {
                    existing.add_holds(1);
                    return Ok(Claim::Existing(existing.id().clone()));
                }
                Some(_) => true,
                None => ledger.is_in_the_making(id.as_str()),
            };
            if wait {
                ledger.refuse_own(id.as_str())?;
            } else if self.check_parent(&ledger, layer)? {
                break;
            }
            self.released.wait(&mut ledger);
        }
        self.check_names(&ledger, layer)?;
        let me = thread::current().id();
        ledger.busy.insert(id.clone(), me);
        ledger.making.insert(id.clone(), false);
        ledger.claimed_names.extend(layer.names.iter().map(|name| (name.clone(), me)));
        let ahead = layer.parent.as_ref().is_some_and(|parent| ledger.making.contains_key(parent));
        if let Some(parent) = &layer.parent {
            *ledger.children.entry(parent.clone()).or_insert(0) += 1;
        }
        Ok(Claim::New(Reservation {
            registry: self,
            id: id.clone(),
            names: layer.names.clone(),
            parent: layer.parent.clone(),
            ahead,
            published: false,
        }))
    }

    /// Whether the parent is there; false when it will be, or not, soon.
    fn check_parent(&self, ledger: &Ledger, layer: &CreateLayer) -> Result<bool> {
        let Some(parent) = &layer.parent else { return Ok(true) };
        match ledger.making.get(parent) {
            // Waiting for the creation that this call is made from would never end.
            Some(_) if ledger.busy.get(parent) == Some(&thread::current().id()) => {}
            // A container has nothing to do meanwhile.
            Some(_) if layer.writable => {}
            Some(in_driver) => return Ok(*in_driver),
            None if self.index.read().by_id.contains_key(parent) && !ledger.busy.contains_key(parent) => {
                return Ok(true);
            }
            None => {}
        }
        Err(no_parent(parent))
    }

    fn check_names(&self, ledger: &Ledger, layer: &CreateLayer) -> Result<()> {
        let index = self.index.read();
        let mut seen = HashSet::new();
        for name in &layer.names {
            if index.by_name.contains_key(name)
                || ledger.claimed_names.contains_key(name)
                || !seen.insert(name)
            {
                let message = format!("layer name {name:?} is in use");
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
        }
        Ok(())
    }

    /// Lists a layer that was not made here; `false` if its id or its parent is being created or deleted, or it is listed.
    pub(super) fn adopt(&self, entry: Entry) -> Result<bool> {
        let mut ledger = self.ledger.lock();
        ledger.changeable()?;
        let is_listed = |id: &LayerId| self.index.read().by_id.contains_key(id);
        if ledger.is_in_the_making(entry.id().as_str()) || is_listed(entry.id()) {
            return Ok(false);
        }
        if let Some(parent) = entry.parent() {
            if ledger.busy.contains_key(parent) || !is_listed(parent) {
                return Ok(false);
            }
            *ledger.children.entry(parent.clone()).or_insert(0) += 1;
        }
        ledger.let_go(entry.id());
        self.index.write().insert(Arc::new(entry));
        Ok(true)
    }

    /// Adds a hold reference; waits while the layer is being deleted, and then there is none: `false`.
    pub(super) fn hold(&self, id: &LayerId) -> bool {
        let mut ledger = self.ledger.lock();
        loop {
            let Some(entry) = self.by_id(id) else { return false };
            if !ledger.busy.contains_key(id) {
                entry.add_holds(1);
                return true;
            }
            self.released.wait(&mut ledger);
        }
    }

    /// Asks for the right to delete a layer; waits while it is being created or deleted. Unknown: `None`; other layers
    /// stand on it, or did before they were put aside: `InUse`.
    pub(super) fn begin_removal(&self, id_or_name: &str) -> Result<Option<Removal<'_>>> {
        self.begin_removal_if(id_or_name, |_| Ok(()))
    }

    /// The same for a layer that is to be put aside: what was put aside before it can be taken back after it.
    pub(super) fn begin_putting_aside(&self, id_or_name: &str) -> Result<Option<Removal<'_>>> {
        self.begin(id_or_name, |_, _| Ok(()))
    }

    /// The same if `allowed` says so; no hold is added between its answer and the removal.
    pub(super) fn begin_removal_if(
        &self,
        id_or_name: &str,
        allowed: impl Fn(&Entry) -> Result<()>,
    ) -> Result<Option<Removal<'_>>> {
        self.begin(id_or_name, |ledger, entry| {
            if let Some(count) = ledger.kept.get(entry.id()) {
                let id = entry.id();
                let message =
                    format!("layer {id}: {count} layers that are put aside or not listed stand on it");
                return Err(Error::new(ErrorKind::InUse, message));
            }
            allowed(entry)
        })
    }

    fn begin(
        &self,
        id_or_name: &str,
        allowed: impl Fn(&Ledger, &Entry) -> Result<()>,
    ) -> Result<Option<Removal<'_>>> {
        let mut ledger = self.ledger.lock();
        loop {
            ledger.changeable()?;
            let found = self.index.read().find(id_or_name).cloned();
            match found {
                Some(entry) if !ledger.busy.contains_key(entry.id()) => {
                    if let Some(count) = ledger.children.get(entry.id()) {
                        let message = format!("layer {}: {count} other layers stand on it", entry.id());
                        return Err(Error::new(ErrorKind::InUse, message));
                    }
                    if ledger.healing.contains(entry.id()) {
                        let message = format!("layer {} is being healed", entry.id());
                        return Err(Error::new(ErrorKind::InUse, message));
                    }
                    allowed(&ledger, &entry)?;
                    ledger.busy.insert(entry.id().clone(), thread::current().id());
                    return Ok(Some(Removal { registry: self, entry }));
                }
                None if !ledger.is_in_the_making(id_or_name) => return Ok(None),
                _ => {
                    ledger.refuse_own(id_or_name)?;
                    self.released.wait(&mut ledger);
                }
            }
        }
    }

    /// Asks for the right to work on a layer that the store does not list; waits while it, or what it is to stand on, is
    /// being created or deleted. Listed: `AlreadyExists`.
    pub(super) fn reserve_beside(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Beside<'_>> {
        let mut ledger = self.ledger.lock();
        loop {
            ledger.changeable()?;
            let mut ids = [Some(id), parent].into_iter().flatten();
            let Some(busy) = ids.find(|id| ledger.busy.contains_key(*id)) else { break };
            ledger.refuse_own(busy.as_str())?;
            self.released.wait(&mut ledger);
        }
        if self.index.read().by_id.contains_key(id) {
            let message = format!("layer {id} belongs to the layer store");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        ledger.busy.insert(id.clone(), thread::current().id());
        if let Some(parent) = parent {
            *ledger.children.entry(parent.clone()).or_insert(0) += 1;
        }
        Ok(Beside { registry: self, id: id.clone(), parent: parent.cloned() })
    }

    /// Refuses all further changes: memory and disk may differ.
    pub(super) fn latch(&self, why: String) {
        log::error!("the layer store takes no more changes until it is opened again: {why}");
        self.ledger.lock().latched.get_or_insert(why);
    }

    /// Refuses further calls, waits for those under way and forgets all layers; `false` when closed already.
    pub(super) fn close(&self) -> bool {
        let mut ledger = self.ledger.lock();
        if ledger.closed {
            return false;
        }
        ledger.closed = true;
        self.released.notify_all();
        while ledger.active > 0 {
            self.released.wait(&mut ledger);
        }
        *self.index.write() = Index::default();
        true
    }

    fn release(&self, ledger: MutexGuard<'_, Ledger>) {
        drop(ledger);
        self.released.notify_all();
    }
}

impl Ledger {
    fn ready(&self) -> Result<()> {
        if self.closed {
            return Err(Error::new(ErrorKind::NotReady, "the layer store is closed"));
        }
        Ok(())
    }

    fn changeable(&self) -> Result<()> {
        self.ready()?;
        match &self.latched {
            Some(why) => {
                let message = format!("the layer store takes no changes until it is opened again: {why}");
                Err(Error::new(ErrorKind::Latched, message))
            }
            None => Ok(()),
        }
    }

    /// Whether a layer of this id or name is being created or deleted.
    fn is_in_the_making(&self, id_or_name: &str) -> bool {
        self.busy.contains_key(id_or_name) || self.claimed_names.contains_key(id_or_name)
    }

    /// A function that reads an archive may call the store; waiting for the creation that called it would never end.
    fn refuse_own(&self, id_or_name: &str) -> Result<()> {
        let me = Some(thread::current().id());
        let owners = [self.busy.get(id_or_name), self.claimed_names.get(id_or_name)];
        if owners.iter().any(|owner| owner.copied() == me) {
            let message =
                format!("layer {id_or_name} is being created by the call that this one is made from");
            return Err(Error::new(ErrorKind::InUse, message));
        }
        Ok(())
    }

    fn drop_child(&mut self, parent: Option<&LayerId>) {
        parent.into_iter().for_each(|parent| count_down(&mut self.children, parent));
    }
}

fn count_down(counts: &mut HashMap<LayerId, usize>, id: &LayerId) {
    if let Some(count) = counts.get_mut(id) {
        *count -= 1;
        if *count == 0 {
            counts.remove(id);
        }
    }
}

fn no_parent(parent: &LayerId) -> Error {
    Error::not_found(format!("parent layer {parent}: no such layer"))
}

impl Reservation<'_> {
    /// The driver knows the layer: others may be made to stand on it.
    pub(super) fn in_driver(&self) {
        let mut ledger = self.registry.ledger.lock();
        ledger.making.insert(self.id.clone(), true);
        self.registry.release(ledger);
    }

    /// Waits until the parent is complete, which it stays: this layer counts as its child. `NotFound` when it could not
    /// be made. True if there was something to wait for since the layer was reserved.
    pub(super) fn await_parent(&self) -> Result<bool> {
        let Some(parent) = &self.parent else { return Ok(false) };
        let mut ledger = self.registry.ledger.lock();
        while ledger.making.contains_key(parent) {
            self.registry.released.wait(&mut ledger);
        }
        if !self.registry.index.read().by_id.contains_key(parent) {
            return Err(no_parent(parent));
        }
        Ok(self.ahead)
    }

    /// The layer is on disk; from now on it is listed, with this many hold references.
    pub(super) fn publish(mut self, entry: Entry, holds: i32) {
        entry.add_holds(holds);
        let mut ledger = self.registry.ledger.lock();
        ledger.let_go(entry.id());
        self.registry.index.write().insert(Arc::new(entry));
        self.published = true;
        drop(ledger);
        // The rest is released by `drop`.
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut ledger = self.registry.ledger.lock();
        ledger.busy.remove(&self.id);
        ledger.making.remove(&self.id);
        for name in &self.names {
            ledger.claimed_names.remove(name);
        }
        if !self.published {
            ledger.drop_child(self.parent.as_ref());
        }
        self.registry.release(ledger);
    }
}

impl Removal<'_> {
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The layer is gone from disk; from now on it is from lists.
    pub(super) fn finish(self) {
        let mut ledger = self.registry.ledger.lock();
        self.registry.index.write().remove(&self.entry);
        ledger.drop_child(self.entry.parent());
        ledger.keep(self.entry.id());
        drop(ledger);
        // The rest is released by `drop`.
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let mut ledger = self.registry.ledger.lock();
        ledger.busy.remove(self.entry.id());
        self.registry.release(ledger);
    }
}

impl Beside<'_> {
    /// The layer was made: what it stands on stays as long as it does.
    pub(super) fn made(mut self) {
        let mut ledger = self.registry.ledger.lock();
        if let Some(parent) = self.parent.take() {
            let before = ledger.beside.insert(self.id.clone(), parent);
            ledger.drop_child(before.as_ref());
        }
        drop(ledger);
        // The rest is released by `drop`.
    }

    /// The layer is gone.
    pub(super) fn removed(self) {
        let mut ledger = self.registry.ledger.lock();
        let parent = ledger.beside.remove(&self.id);
        ledger.drop_child(parent.as_ref());
        ledger.let_go(&self.id);
        ledger.aside.remove(&self.id);
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        let mut ledger = self.registry.ledger.lock();
        ledger.busy.remove(&self.id);
        ledger.drop_child(self.parent.as_ref());
        self.registry.release(ledger);
    }
}

impl Healing<'_> {
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Healing<'_> {
    fn drop(&mut self) {
        self.registry.ledger.lock().healing.remove(self.entry.id());
    }
}

impl Drop for Activity<'_> {
    fn drop(&mut self) {
        let mut ledger = self.0.ledger.lock();
        ledger.active -= 1;
        if ledger.closed && ledger.active == 0 {
            self.0.release(ledger);
        }
    }
}
