// SPDX-License-Identifier: MulanPSL-2.0
//! Comparing a layer with what it was made from, and giving that back.

use std::fs::File;
use std::io::{self, BufReader, Write};

use flate2::bufread::MultiGzDecoder;

use crate::digest::Digest;
use crate::driver::{Defect, Depth, Verdict};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::units::Bytes;

use super::LayerStore;
use super::entry::Entry;
use super::heal::is_damage;

impl LayerStore {
    pub(super) fn check_layer(&self, id_or_name: &str, depth: Depth) -> Result<Verdict> {
        let _activity = self.registry.enter()?;
        let entry = self.by_id_or_name(id_or_name)?;
        if !entry.is_image() {
            return Ok(Verdict::Valid);
        }
        let checked = self
            .disk
            .open_tar_split(entry.id())
            .and_then(|mut tar_split| self.driver.verify(entry.id(), &mut tar_split, depth));
        match &checked {
            Ok(Verdict::Differs(_)) => entry.set_suspect(true),
            Ok(Verdict::Valid) if depth == Depth::Metadata => entry.set_suspect(false),
            // A closer look may have found something.
            Ok(Verdict::Valid) => {}
            Err(error) if is_damage(error) => entry.set_suspect(true),
            Err(_) => {}
        }
        checked.during(|| format!("check layer {id_or_name}"))
    }

    pub(super) fn examine_layer(&self, id: &LayerId) -> Result<Vec<Defect>> {
        let _activity = self.registry.enter()?;
        let entry = self.by_id(id)?;
        let doing = || format!("examine layer {id}");
        let mut found = self.driver.examine(id, entry.parent()).during(doing)?;
        if found.iter().any(|defect| defect.missing) {
            entry.set_suspect(true);
        }
        if entry.is_image()
            && let Err(error) = self.disk.open_tar_split(id).and_then(|stream| read_through(&stream))
        {
            if !is_damage(&error) {
                return Err(error.context(doing()));
            }
            entry.set_suspect(true);
            found.push(Defect::lasting(format!(
                "its tar-split stream is damaged ({}): it can be neither checked nor exported",
                error.report()
            )));
        }
        Ok(found)
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

/// Reads a tar-split stream to its end: the checksum there covers all of it.
fn read_through(stream: &File) -> Result<()> {
    if stream.metadata().during(|| "stat it")?.len() == 0 {
        return Err(Error::corrupt("it is empty"));
    }
    let mut plain = MultiGzDecoder::new(BufReader::new(stream));
    match io::copy(&mut plain, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Err(Error::corrupt(format!("it is no gzip stream: {error}")))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::corrupt("it ends early")),
        Err(error) => Err(error).during(|| "read it"),
    }
}
