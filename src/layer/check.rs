// SPDX-License-Identifier: MulanPSL-2.0
//! Comparing a layer with what it was made from, and giving that back.

use std::io::Write;

use crate::digest::Digest;
use crate::driver::Verdict;
use crate::error::{During, Error, ErrorKind, Result};
use crate::units::Bytes;

use super::LayerStore;
use super::entry::Entry;
use super::heal::is_damage;

impl LayerStore {
    pub(super) fn check_layer(&self, id_or_name: &str) -> Result<Verdict> {
        let _activity = self.registry.enter()?;
        let entry = self.by_id_or_name(id_or_name)?;
        if !entry.is_image() {
            return Ok(Verdict::Valid);
        }
        let checked = self
            .disk
            .open_tar_split(entry.id())
            .and_then(|mut tar_split| self.driver.verify(entry.id(), &mut tar_split));
        match &checked {
            Ok(verdict) => entry.set_suspect(*verdict != Verdict::Valid),
            Err(error) if is_damage(error) => entry.set_suspect(true),
            Err(_) => {}
        }
        checked.during(|| format!("check layer {id_or_name}"))
    }

    pub(super) fn export_layer(&self, id_or_name: &str, out: &mut dyn Write) -> Result<(Digest, Bytes)> {
        let _activity = self.registry.enter()?;
        let entry = self.by_id_or_name(id_or_name)?;
        let expected = self.diff_id(&entry)?;
        let mut tar_split = self.disk.open_tar_split(entry.id())?;
        let (digest, size) = self
            .driver
            .export(entry.id(), &mut tar_split, out)
            .during(|| format!("export layer {id_or_name}"))?;
        match expected {
            Some(expected) if expected != digest => {
                let message =
                    format!("export layer {id_or_name}: it should have diff id {expected}, but has {digest}");
                Err(Error::new(ErrorKind::DigestMismatch, message))
            }
            _ => Ok((digest, size)),
        }
    }

    /// What the layer's archive must hash to; `None` where nobody said (no digest, or one of another algorithm).
    pub(super) fn diff_id(&self, entry: &Entry) -> Result<Option<Digest>> {
        let beside = self.disk.read_diff_id(entry.id())?;
        let recorded = || entry.record().diff_digest.as_deref().and_then(|text| Digest::parse(text).ok());
        Ok(beside.or_else(recorded))
    }
}
