// SPDX-License-Identifier: MulanPSL-2.0
//! What stands on what.

use std::collections::HashSet;
use std::sync::Arc;

use crate::id::LayerId;
use crate::layer::entry::Entry;

use super::Registry;

impl Registry {
    /// What a layer stands on by the records, its parent first; nothing where one of them is not listed, or where there are
    /// more than `most`.
    pub(in crate::layer) fn below(&self, entry: &Entry, most: usize) -> Vec<LayerId> {
        let mut below = Vec::new();
        let index = self.index.read();
        let mut next = entry.parent();
        while let Some(id) = next {
            let Some(parent) = index.by_id.get(id).filter(|_| below.len() < most) else {
                return Vec::new();
            };
            below.push(id.clone());
            next = parent.parent();
        }
        below
    }

    /// A layer and all that stand on it, directly or not, in order of creation.
    pub(in crate::layer) fn standing_on(&self, id: &LayerId) -> Vec<Arc<Entry>> {
        let all = self.all();
        let mut ids = HashSet::from([id.clone()]);
        // Parents mostly come before their children, so this is two passes.
        loop {
            let before = ids.len();
            let above = all.iter().filter(|entry| entry.parent().is_some_and(|parent| ids.contains(parent)));
            let above: Vec<LayerId> = above.map(|entry| entry.id().clone()).collect();
            ids.extend(above);
            if ids.len() == before {
                return all.into_iter().filter(|entry| ids.contains(entry.id())).collect();
            }
        }
    }
}
