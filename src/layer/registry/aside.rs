// SPDX-License-Identifier: MulanPSL-2.0
//! Layers that are not listed but may come back: what they stand on is kept for them.

use std::collections::HashSet;

use crate::id::LayerId;

use super::{Ledger, Registry, Removal, count_down};

impl Registry {
    /// Says what a layer stands on that is not listed, or of which something lies in quarantine: as long as it is not
    /// listed, those are kept for it. Nothing: it is forgotten.
    pub(in crate::layer) fn set_aside(&self, id: &LayerId, lowers: HashSet<LayerId>) {
        let mut ledger = self.ledger.lock();
        let counts = !self.index.read().by_id.contains_key(id);
        if counts {
            ledger.let_go(id);
        }
        if lowers.is_empty() {
            ledger.aside.remove(id);
        } else {
            ledger.aside.insert(id.clone(), lowers);
        }
        if counts {
            ledger.keep(id);
        }
    }

    /// Whether layers are, or will be, kept for this one.
    pub(in crate::layer) fn is_aside(&self, id: &LayerId) -> bool {
        self.ledger.lock().aside.contains_key(id)
    }
}

impl Ledger {
    /// A layer is not listed any more: what it stands on is kept if it lies in quarantine.
    pub(super) fn keep(&mut self, id: &LayerId) {
        for lower in self.aside.get(id).into_iter().flatten() {
            *self.kept.entry(lower.clone()).or_insert(0) += 1;
        }
    }

    /// A layer is about to be listed, or nothing of it lies in quarantine any more.
    pub(super) fn let_go(&mut self, id: &LayerId) {
        for lower in self.aside.get(id).into_iter().flatten() {
            count_down(&mut self.kept, lower);
        }
    }
}

impl Removal<'_> {
    /// The layer was put aside; it is no longer listed, but what it stands on is kept for it.
    pub(in crate::layer) fn put_aside(self) {
        let mut ledger = self.registry.ledger.lock();
        if let Some(parent) = self.entry.parent() {
            ledger.aside.entry(self.entry.id().clone()).or_default().insert(parent.clone());
        }
        drop(ledger);
        self.finish();
    }
}
