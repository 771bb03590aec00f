// SPDX-License-Identifier: MulanPSL-2.0
//! Records in memory: by id, by layer, by name, in order. No files.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{self, ContainerId};
use crate::record::rootfs::RootfsRecord;

/// A container. Never changed: a change makes a new one in its place.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: ContainerId,
    pub(super) record: Arc<RootfsRecord>,
    sequence: u64,
}

/// All containers.
#[derive(Debug, Default)]
pub(super) struct Index {
    containers: BTreeMap<ContainerId, Found>,
    order: BTreeMap<u64, ContainerId>,
    /// Containers whose record names a layer; the layer belongs to the first.
    layers: HashMap<String, BTreeMap<u64, ContainerId>>,
    names: HashMap<String, ContainerId>,
    next: u64,
}

impl Index {
    /// All containers in order.
    pub(super) fn list(&self) -> impl Iterator<Item = &Found> {
        self.order.values().filter_map(|id| self.containers.get(id))
    }

    pub(super) fn get(&self, id: &str) -> Option<&Found> {
        self.containers.get(id)
    }

    /// The container that has this layer.
    pub(super) fn holder_of_layer(&self, layer: &str) -> Option<&ContainerId> {
        self.layers.get(layer)?.values().next()
    }

    /// The container that has this name.
    pub(super) fn holder_of_name(&self, name: &str) -> Option<&ContainerId> {
        self.names.get(name)
    }

    /// Whether a container other than `id` has this layer in its record, also one that is not found by it.
    pub(super) fn is_shared(&self, layer: &str, id: &ContainerId) -> bool {
        self.layers.get(layer).is_some_and(|all| all.values().any(|holder| holder != id))
    }

    /// Adds a container at the end, or takes the place of the one with its id. Layer and names that another one has stay
    /// with that one.
    pub(super) fn put(&mut self, id: ContainerId, record: Arc<RootfsRecord>) {
        let sequence = match self.forget(&id) {
            Some(old) => old.sequence,
            None => {
                self.next += 1;
                self.next
            }
        };
        self.insert(Found { id, record, sequence });
    }

    /// Puts back what [`remove`](Self::remove) took, where it was.
    pub(super) fn put_back(&mut self, found: Found) {
        self.forget(&found.id);
        self.insert(found);
    }

    pub(super) fn remove(&mut self, id: &ContainerId) -> Option<Found> {
        self.forget(id)
    }

    fn insert(&mut self, found: Found) {
        let Found { id, record, sequence } = &found;
        if let Some(layer) = &record.layer {
            self.layers.entry(layer.clone()).or_default().insert(*sequence, id.clone());
        }
        for name in &record.names {
            self.names.entry(name.clone()).or_insert_with(|| id.clone());
        }
        self.order.insert(*sequence, id.clone());
        self.containers.insert(id.clone(), found);
    }

    fn forget(&mut self, id: &ContainerId) -> Option<Found> {
        let found = self.containers.remove(id)?;
        self.order.remove(&found.sequence);
        if let Some(layer) = &found.record.layer
            && let Some(all) = self.layers.get_mut(layer)
        {
            all.remove(&found.sequence);
            if all.is_empty() {
                self.layers.remove(layer);
            }
        }
        for name in &found.record.names {
            if self.names.get(name) == Some(id) {
                self.names.remove(name);
            }
        }
        Some(found)
    }

    /// The container that `text` means: an id, the id of a layer, a unique short id, in this order.
    pub(super) fn resolve(&self, text: &str) -> Result<&Found> {
        let by_layer = || self.holder_of_layer(text).and_then(|id| self.containers.get(id));
        if let Some(found) = self.get(text).or_else(by_layer) {
            return Ok(found);
        }
        let range = (Bound::Included(text), Bound::Unbounded);
        let starts = |(id, _): &(&ContainerId, &Found)| id.as_str().starts_with(text);
        let mut fitting = self.containers.range::<str, _>(range).take_while(starts);
        let shown: String = text.chars().take(200).collect();
        match (id::is_short(text).then(|| fitting.next()).flatten(), fitting.next()) {
            (Some((_, found)), None) => Ok(found),
            (Some((one, _)), Some((two, _))) => {
                let message =
                    format!("no such container: short id {shown} is ambiguous, it fits {one} and {two}");
                Err(Error::new(ErrorKind::NotFound, message))
            }
            (None, _) => Err(Error::not_found(format!("no such container: {shown}"))),
        }
    }
}
