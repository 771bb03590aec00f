// SPDX-License-Identifier: MulanPSL-2.0
//! Looking for damage in the whole storage. Changes nothing, and works beside a process that owns the storage.
//!
//! | looked at | found out |
//! |---|---|
//! | what a start finds in the records of all stores | not parsable, contradicting its place, missing |
//! | big data of each image | size and digest as recorded |
//! | layers of each image | all there, and those that its config names |
//! | directory of each layer | short name, lower layers, directories for the kernel |
//! | tar-split stream of each image layer | there, and whole |
//! | containers | layer and image are there |
//! | the driver | nothing that belongs to no layer, as far as it can tell |
//! | deep: content of each image layer | as the tar-split stream says |
//!
//! What a container wrote has nothing to be compared with.

use std::collections::HashSet;

use crate::driver::Verdict;
use crate::error::Result;
use crate::id::{ImageId, LayerId, is_canonical};
use crate::layer::{Layer, Problem};
use crate::record::image::ImageRecord;

use super::Storage;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The thing, for people: `layer 0123…`.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
    /// [`Storage::repair`] puts it right.
    pub derivable: bool,
    /// It was put aside when the storage was opened.
    pub quarantined: bool,
}

/// What [`Storage::check`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Images that were looked at.
    pub images: usize,
    /// Layers that were looked at.
    pub layers: usize,
    /// Layers among them whose content was compared.
    pub compared: usize,
    /// Containers that were looked at.
    pub containers: usize,
    /// What lies in quarantine, from now or before.
    pub quarantined: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What only the owner of the storage can look for, as [`Storage::repair`] does.
    pub not_looked_for: Vec<String>,
}

impl CheckReport {
    fn add(&mut self, finding: Finding) {
        if !self
            .findings
            .iter()
            .any(|known| known.subject == finding.subject && known.reason == finding.reason)
        {
            self.findings.push(finding);
        }
    }

    fn problems(&mut self, problems: Vec<Problem>) {
        for Problem { subject, reason, quarantined } in problems {
            self.add(Finding { subject, reason, derivable: false, quarantined });
        }
    }

    fn wrong(&mut self, subject: String, reason: String) {
        self.add(Finding { subject, reason, derivable: false, quarantined: false });
    }
}

impl Storage {
    /// Looks for damage; `deep` also compares the content of all image layers, and so reads it all.
    ///
    /// Errors say that something could not be looked at, not that it is damaged.
    pub fn check(&self, deep: bool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        report.problems(self.problems());
        report.problems(self.images().check()?);
        for image in self.images().list()? {
            report.images += 1;
            self.check_image(&image, &mut report)?;
        }
        for layer in self.layers().list() {
            report.layers += 1;
            self.check_layer(&layer, deep, &mut report)?;
        }
        if let Ok(containers) = self.containers() {
            report.containers = containers.list()?.len();
        }
        report.problems(self.loose_ends()?);
        let driver = self.layers().driver();
        for stray in driver.strays()? {
            report.wrong(format!("driver {}", driver.name()), stray);
        }
        report.not_looked_for = driver.not_looked_for()?;
        report.quarantined = self.put_aside()?.len();
        report.findings.retain(|finding| !(finding.quarantined && self.is_back(&finding.subject)));
        self.forget_what_is_gone(&mut report);
        Ok(report)
    }

    fn check_image(&self, image: &ImageRecord, report: &mut CheckReport) -> Result<()> {
        let id = image.id.as_deref().unwrap_or_default();
        let subject = || format!("image {id}");
        let chain = match self.chain(image.layer.as_deref().unwrap_or_default()) {
            Ok(chain) => chain,
            Err(error) => {
                report.wrong(subject(), format!("it cannot be used: {}", error.report()));
                return Ok(());
            }
        };
        let config = match self.images().config(id) {
            Ok(config) => config,
            Err(error) => {
                report.wrong(subject(), error.report());
                return Ok(());
            }
        };
        let named = &config.rootfs.diff_ids;
        if named.len() != chain.len() {
            let reason = format!("its config names {} layers, and it has {}", named.len(), chain.len());
            report.wrong(subject(), reason);
            return Ok(());
        }
        for (layer, named) in chain.iter().rev().zip(named) {
            // An image imported from a compressed archive has the digest of that in its layer's record.
            let recorded = [&layer.uncompressed_digest, &layer.compressed_digest];
            if !recorded.contains(&&Some(named.clone())) {
                let reason = format!("its config names {named} where its layer {} stands", layer.id);
                report.wrong(subject(), reason);
            }
        }
        Ok(())
    }

    fn check_layer(&self, layer: &Layer, deep: bool, report: &mut CheckReport) -> Result<()> {
        let subject = || format!("layer {}", layer.id);
        let defects = match self.layers().examine(&layer.id) {
            Ok(defects) => defects,
            Err(error) => {
                report.wrong(subject(), format!("it could not be looked at: {}", error.report()));
                return Ok(());
            }
        };
        let lasting = defects.iter().any(|defect| !defect.derivable);
        let known = report.findings.iter().any(|finding| finding.subject == subject());
        for defect in defects {
            // A start has told of it already, in its own words.
            if known && !defect.derivable {
                continue;
            }
            report.add(Finding {
                subject: subject(),
                reason: defect.what,
                derivable: defect.derivable,
                quarantined: false,
            });
        }
        if !deep || lasting || layer.uncompressed_digest.is_none() {
            return Ok(());
        }
        report.compared += 1;
        match self.layers().check_closely(layer.id.as_str()) {
            Ok(Verdict::Valid) => {}
            Ok(Verdict::Differs(place)) => {
                report.wrong(subject(), format!("its content differs from its archive: {place}"));
            }
            Err(error) => report.wrong(subject(), format!("it could not be checked: {}", error.report())),
        }
        Ok(())
    }

    /// Whoever only reads may find half of what its owner is just deleting.
    fn forget_what_is_gone(&self, report: &mut CheckReport) {
        if !self.read_only {
            return;
        }
        let mut gone = HashSet::new();
        for finding in &report.findings {
            let is_gone = match finding.subject.split_once(' ') {
                Some(("layer", id)) if is_canonical(id) => {
                    LayerId::new(id).is_ok_and(|id| self.was_listed(&id) && !self.layers().is_recorded(&id))
                }
                Some(("image", id)) if is_canonical(id) => {
                    ImageId::new(id).is_ok_and(|id| !self.images().exists(id.as_str()))
                        && !self.images().dir().join(id).exists()
                }
                _ => false,
            };
            if is_gone {
                gone.insert(finding.subject.clone());
            }
        }
        report.findings.retain(|finding| !gone.contains(&finding.subject));
    }

    /// Whether something that a start put aside was made again or restored since.
    fn is_back(&self, subject: &str) -> bool {
        match subject.split_once(' ') {
            Some(("layer", id)) => self.layers().find(id).is_some(),
            Some(("image", id)) => self.images().exists(id),
            Some(("container", id)) => self.containers().is_ok_and(|containers| containers.exists(id)),
            _ => false,
        }
    }

    fn was_listed(&self, id: &LayerId) -> bool {
        self.layers().find(id.as_str()).is_some()
    }
}
