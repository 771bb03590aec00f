// SPDX-License-Identifier: MulanPSL-2.0
//! Records on disk: reading, writing, and moving them from place to place.

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ContainerId, LayerId};
use crate::json;
use crate::persist::{self, Discarded, Durability, step};
use crate::record::rootfs::RootfsRecord;
use crate::sys::fs::Dir;

use super::RootfsStore;

/// The record of a container.
pub(super) const RECORD: &str = "container.json";
pub(super) const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Records on their way into the store; they mean nothing for a layer.
pub(super) const MAKING: &str = "making";
/// Records of containers whose layer is being made.
pub(super) const CREATING: &str = "creating";
/// Records of containers whose layer is being deleted.
pub(super) const REMOVING: &str = "removing";

/// Largest text that is parsed: one byte less than what the parser refuses.
const MAX_PARSED: u64 = json::MAX_TEXT as u64 - 1;

/// Reads the record in a container's directory.
pub(super) fn read_record(dir: &Dir) -> Result<RootfsRecord> {
    let text = dir.read(RECORD, MAX_PARSED).map_err(|error| match error.kind() {
        ErrorKind::LimitExceeded => error.with_kind(ErrorKind::Corrupt),
        _ => error,
    })?;
    RootfsRecord::parse(&text)
}

/// Why a record does not fit its place; none: it fits.
pub(super) fn misfit(id: &ContainerId, record: &RootfsRecord) -> Option<String> {
    match (&record.id, &record.layer) {
        (None, _) => Some("its record has no id".to_owned()),
        (Some(text), _) if text != id.as_str() => {
            let shown: String = text.chars().take(80).collect();
            Some(format!("its record is that of container {shown:?}"))
        }
        (_, None) => Some("its record names no layer".to_owned()),
        (_, Some(layer)) => LayerId::new(layer).err().map(|error| error.report()),
    }
}

impl RootfsStore {
    /// A directory of the state, made again if somebody removed it.
    pub(super) fn part(&self, name: &str) -> Result<Dir> {
        self.writable()?.ensure_dir(name, DIR_MODE)
    }

    pub(super) fn sync(&self, dir: &Dir) -> Result<()> {
        match self.durability {
            Durability::Full => dir.sync(),
            Durability::None => Ok(()),
        }
    }

    /// Makes directory and record below `place`, durably. What is left after a failure is the caller's to take back.
    pub(super) fn write_new(&self, place: &Dir, id: &ContainerId, record: &RootfsRecord) -> Result<()> {
        let text = record.to_json()?;
        step("make record directory")?;
        let dir = place.create_dir(id.as_str(), DIR_MODE)?;
        persist::replace_file(&dir, RECORD, &text, FILE_MODE, self.durability)?;
        step("sync record directory's name")?;
        self.sync(place)
    }

    /// Replaces the record of a container.
    pub(super) fn write(&self, id: &ContainerId, record: &RootfsRecord) -> Result<()> {
        let text = record.to_json()?;
        persist::replace_file(&self.root.open_dir(id.as_str())?, RECORD, &text, FILE_MODE, self.durability)
    }

    /// Moves a record's directory, durably. On an error it is moved back; the second value then says whether it is in its
    /// old place.
    pub(super) fn move_record(&self, id: &ContainerId, from: &Dir, to: &Dir) -> Result<(), (Error, bool)> {
        let rename = || {
            step("move record")?;
            from.rename_new(id.as_str(), to, id.as_str())
        };
        rename().map_err(|error| (error, true))?;
        let sync = || {
            step("sync new place")?;
            self.sync(to)?;
            step("sync old place")?;
            self.sync(from)
        };
        let Err(error) = sync() else { return Ok(()) };
        let back = to
            .rename_new(id.as_str(), from, id.as_str())
            .and_then(|()| self.sync(from))
            .and_then(|()| self.sync(to));
        if let Err(also) = &back {
            log::error!("container {id}: {}; moving its record back: {}", error.report(), also.report());
        }
        let is_back = matches!(to.stat(id.as_str()), Ok(None));
        Err((error, is_back))
    }

    /// Takes a record's directory away from a part of the state; absent is fine.
    pub(super) fn discard_from(&self, part: &Dir, id: &ContainerId) -> Result<()> {
        self.state.discard(part, id.as_str())?.into_iter().for_each(Discarded::remove);
        Ok(())
    }
}
