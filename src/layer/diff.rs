// SPDX-License-Identifier: MulanPSL-2.0
//! What a layer changes of another.

use std::io::Write;

use crate::driver::{Change, Diffed};
use crate::error::Result;
use crate::id::LayerId;
use crate::units::Bytes;

use super::LayerStore;

impl LayerStore {
    pub(super) fn diff_layer(
        &self,
        id_or_name: &str,
        parent: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<Diffed> {
        self.comparing(id_or_name, parent, |id, parent| self.driver.diff(id, parent, out))
    }

    pub(super) fn list_changes(&self, id_or_name: &str, parent: Option<&str>) -> Result<Vec<Change>> {
        self.comparing(id_or_name, parent, |id, parent| self.driver.changes(id, parent))
    }

    pub(super) fn size_changes(&self, id_or_name: &str, parent: Option<&str>) -> Result<Bytes> {
        self.comparing(id_or_name, parent, |id, parent| self.driver.diff_size(id, parent))
    }

    fn comparing<T>(
        &self,
        id_or_name: &str,
        parent: Option<&str>,
        compare: impl FnOnce(&LayerId, Option<&LayerId>) -> Result<T>,
    ) -> Result<T> {
        let _activity = self.registry.enter()?;
        let entry = self.by_id_or_name(id_or_name)?;
        let other = parent.map(|parent| self.by_id_or_name(parent)).transpose()?;
        let parent = match &other {
            Some(other) => Some(other.id()),
            None => entry.parent(),
        };
        compare(entry.id(), parent)
    }
}
