// SPDX-License-Identifier: MulanPSL-2.0
//! The layers that are listed, by everything they are looked up by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::id::LayerId;

use super::entry::Entry;

/// What lookups see.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) by_id: HashMap<LayerId, Arc<Entry>>,
    pub(super) by_name: HashMap<String, Arc<Entry>>,
    /// In order of their sequence, as in the next: mostly there is one.
    pub(super) by_compressed: HashMap<String, Vec<Arc<Entry>>>,
    pub(super) by_uncompressed: HashMap<String, Vec<Arc<Entry>>>,
    pub(super) in_order: BTreeMap<u64, Arc<Entry>>,
}

impl Index {
    /// An index with room for this many layers.
    pub(super) fn with_capacity(layers: usize) -> Index {
        Index {
            by_id: HashMap::with_capacity(layers),
            by_compressed: HashMap::with_capacity(layers),
            by_uncompressed: HashMap::with_capacity(layers),
            ..Index::default()
        }
    }

    pub(super) fn find(&self, id_or_name: &str) -> Option<&Arc<Entry>> {
        self.by_id.get(id_or_name).or_else(|| self.by_name.get(id_or_name))
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        for name in entry.names() {
            self.by_name.entry(name.clone()).or_insert_with(|| entry.clone());
        }
        let record = entry.record();
        for (map, digest) in [
            (&mut self.by_compressed, &record.compressed_diff_digest),
            (&mut self.by_uncompressed, &record.diff_digest),
        ] {
            if let Some(digest) = digest {
                let layers = map.entry(digest.clone()).or_insert_with(|| Vec::with_capacity(1));
                let at = layers.partition_point(|other| other.sequence() < entry.sequence());
                layers.insert(at, entry.clone());
            }
        }
        self.in_order.insert(entry.sequence(), entry.clone());
        self.by_id.insert(entry.id().clone(), entry);
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        for name in entry.names() {
            if self.by_name.get(name).is_some_and(|owner| owner.id() == entry.id()) {
                self.by_name.remove(name);
            }
        }
        let record = entry.record();
        for (map, digest) in [
            (&mut self.by_compressed, &record.compressed_diff_digest),
            (&mut self.by_uncompressed, &record.diff_digest),
        ] {
            if let Some(digest) = digest
                && let Some(layers) = map.get_mut(digest)
            {
                layers.retain(|other| other.sequence() != entry.sequence());
                if layers.is_empty() {
                    map.remove(digest);
                }
            }
        }
        self.in_order.remove(&entry.sequence());
        self.by_id.remove(entry.id());
    }
}

pub(super) fn listed(layers: Option<&Vec<Arc<Entry>>>) -> Vec<Arc<Entry>> {
    layers.cloned().unwrap_or_default()
}
