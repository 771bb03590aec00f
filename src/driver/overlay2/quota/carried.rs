// SPDX-License-Identifier: MulanPSL-2.0
//! Which projects the layers of a home have, and which of the ledger none has.

use std::collections::HashSet;

use crate::driver::home::{STAGING, STATE};
use crate::error::{ErrorKind, Result};
use crate::persist::{QUARANTINE, QUARANTINED, TRASH};
use crate::sys::fs::{Dir, FileKind};
use crate::units::Usage;

use super::{Projects, is_off};

impl Projects {
    /// What of the projects belongs to no layer of the home, nor to anything that is on its way or lies aside.
    pub(in super::super) fn strays(&self) -> Result<Vec<String>> {
        let Some(ledger) = &self.ledger else { return Ok(Vec::new()) };
        let ids = ledger.all()?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // Whoever only reads looks on while layers come and go: first the projects, then who has them, then again whether
        // they are there.
        let carried = self.carried()?;
        let mut found = Vec::new();
        for id in ids.into_iter().filter(|id| !carried.contains(id)) {
            let record = match self.kernel.record(id) {
                Err(error) if is_off(&error) => break,
                record => record?,
            };
            if ledger.find(id)?.is_none() || record.is_blank() {
                continue;
            }
            found.push(match record.is_empty() {
                true => format!("project {id} has a limit of {} and is of no layer any more", record.most),
                false => {
                    let Usage { bytes, inodes } = record.used;
                    format!("project {id} still has {bytes} in {} files, which are in no layer", inodes.0)
                }
            });
        }
        Ok(found)
    }

    /// Projects of all that lies in the home.
    pub(super) fn carried(&self) -> Result<HashSet<u32>> {
        let mut carried = HashSet::new();
        self.add_carried(&self.home, None, &mut carried)?;
        if let Ok(state) = self.home.open_dir(STATE) {
            for (name, within) in [(STAGING, None), (TRASH, None), (QUARANTINE, Some(QUARANTINED))] {
                match state.open_dir(name) {
                    Ok(dir) => self.add_carried(&dir, within, &mut carried)?,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(carried)
    }

    /// Adds the projects of all layers in a directory, and `within` them, to what is carried.
    pub(super) fn add_carried(
        &self,
        dir: &Dir,
        within: Option<&str>,
        carried: &mut HashSet<u32>,
    ) -> Result<()> {
        for entry in dir.entries()?.iter().filter(|entry| entry.kind == FileKind::Dir) {
            // Gone meanwhile, or no layer.
            let Ok(layer) = dir.open_dir(&entry.name) else { continue };
            let layer = match within.map(|name| layer.open_dir(name)) {
                Some(Err(_)) => continue,
                Some(Ok(layer)) => layer,
                None => layer,
            };
            carried.insert(self.kernel.project(&layer)?.id);
            carried.extend(match self.ledger {
                Some(_) => self.of_layer(&layer)?,
                // Whoever asks before the home is open compares it with the ledger.
                None => self.of_layer_if(&layer, |_| Ok(true))?,
            });
        }
        Ok(())
    }
}
