// SPDX-License-Identifier: MulanPSL-2.0
//! Putting right what can be put right from what is there.
//!
//! | lost | derived from |
//! |---|---|
//! | short name of a layer, its file `link` | each other; a new one if both are lost |
//! | list of lower layers | the parent that the record names |
//! | directories `work`, `merged`, `empty` | they are empty |
//! | record of a container's layer whose data are there | the container's record, and the layers below by the data |
//! | size of an image | its big data and layers |
//!
//! All else has to come from outside: an image is imported again, what was put aside is mended and restored.

use std::collections::HashSet;

use crate::driver::Defect;
use crate::error::{ErrorKind, Result};
use crate::id::LayerId;

use super::Storage;
use super::check::{CheckReport, Finding};

/// What [`Storage::repair`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was put right, or would be.
    pub mended: Vec<Finding>,
    /// What is still wrong; after a dry run, what would be.
    pub left: Vec<Finding>,
}

impl Storage {
    /// Puts right what is derivable and reports the rest. With `dry_run` nothing is changed, and a storage that is open for
    /// reading only will do.
    pub fn repair(&self, dry_run: bool) -> Result<RepairReport> {
        if !dry_run {
            self.require_writable()?;
        }
        let mut report = RepairReport::default();
        let adopted = self.mend_container_layers(dry_run, &mut report)?;
        self.mend_layers(dry_run, &mut report)?;
        let CheckReport { findings, .. } = self.check(false)?;
        report.left.extend(findings);
        // In a dry run the check finds what would be put right as well.
        let RepairReport { mended, left } = &mut report;
        left.retain(|finding| {
            !mended.iter().any(|done| done.subject == finding.subject && done.reason == finding.reason)
                && !adopted.contains(&finding.subject)
        });
        Ok(report)
    }

    /// A layer's own parents come before it, so each is mended on solid ground.
    fn mend_layers(&self, dry_run: bool, report: &mut RepairReport) -> Result<()> {
        for layer in self.layers().list() {
            let defects: Vec<Defect> = match self.layers().examine(&layer.id) {
                Ok(defects) => defects.into_iter().filter(|defect| defect.derivable).collect(),
                Err(error) => {
                    log::warn!("{}", error.report());
                    continue;
                }
            };
            if defects.is_empty() {
                continue;
            }
            if !dry_run && let Err(error) = self.layers().mend(&layer.id) {
                log::warn!("{}", error.report());
                continue;
            }
            report.mended.extend(defects.into_iter().map(|defect| Finding {
                subject: format!("layer {}", layer.id),
                reason: defect.what,
                derivable: true,
                quarantined: false,
            }));
        }
        Ok(())
    }

    /// A container's record says that the data are a container's own; what they stand on, they say themselves.
    /// Returns the layers whose records were made again, as findings name them.
    fn mend_container_layers(&self, dry_run: bool, report: &mut RepairReport) -> Result<HashSet<String>> {
        let mut adopted = HashSet::new();
        let Ok(containers) = self.containers() else { return Ok(adopted) };
        for record in containers.list()? {
            let container = record.id.as_deref().unwrap_or_default();
            let Some(Ok(id)) = record.layer.as_deref().map(LayerId::new) else { continue };
            if self.layers().find(id.as_str()).is_some() {
                continue;
            }
            // Its data stand on layers of the image, or this is something else.
            let usable = self.layers().driver().exists(&id).unwrap_or(false)
                && self.layers().driver().lowers(&id).is_ok_and(|lowers| {
                    lowers.first().is_some_and(|parent| self.layers().find(parent.as_str()).is_some())
                });
            if !usable {
                continue;
            }
            if !dry_run && let Err(error) = self.layers().adopt(&id) {
                if error.kind() == ErrorKind::Latched {
                    return Err(error);
                }
                log::warn!("{}", error.report());
                continue;
            }
            adopted.insert(format!("layer {id}"));
            report.mended.push(Finding {
                subject: format!("container {container}"),
                reason: format!("its layer {id} is missing"),
                derivable: true,
                quarantined: false,
            });
        }
        Ok(adopted)
    }
}
