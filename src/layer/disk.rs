// SPDX-License-Identifier: MulanPSL-2.0
//! The store's own files: records, tar-split streams, mount state.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::{self, Discarded, Durability, Place, Quarantined, Replacement, SharedDir, StateDir};
use crate::record::layer::LayerRecord;
use crate::record::mount_point::MountPointRecord;
use crate::sys::fs::Dir;

/// Name of the record in a record directory.
pub(super) const RECORD: &str = "layer.json";
/// Beginning of the names of unfinished replacements, as `persist::replace_file` and the reference make them.
pub(super) const TEMPORARY: &str = ".tmp-";

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Largest record, as in the reference.
pub(super) const RECORD_LIMIT: u64 = 10 << 20;

/// Name of a layer's tar-split stream in its record directory.
pub(super) fn tar_split_name(id: &LayerId) -> String {
    format!("{id}.tar-split.gz")
}

/// Name of the file that holds the true diff ID where the record cannot.
pub(super) fn diff_id_name(id: &LayerId) -> String {
    format!("{id}.diff-id")
}

/// Name of a layer's mount state below the run root.
pub(super) fn mount_name(id: &LayerId) -> String {
    format!("{id}.json")
}

/// The directories of the store.
#[derive(Debug)]
pub(super) struct Disk {
    layers: Dir,
    /// `None` when read-only and absent.
    run: Option<Dir>,
    /// `None` when read-only and absent, and after [`Disk::release`].
    state: RwLock<Option<Arc<StateDir>>>,
    durability: Durability,
    read_only: bool,
    /// Records that other hosts share, if they are asked for.
    shared: Option<SharedDir>,
}

impl Disk {
    pub(super) fn new(
        layers: Dir,
        run: Option<Dir>,
        state: Option<StateDir>,
        durability: Durability,
        read_only: bool,
    ) -> Disk {
        Disk { layers, run, state: RwLock::new(state.map(Arc::new)), durability, read_only, shared: None }
    }

    /// The same with records that other hosts share; `state` is the store's own state directory.
    pub(super) fn with_shared(mut self, state: Dir) -> Result<Disk> {
        self.shared = Some(SharedDir::open(self.layers.try_clone()?, state, self.durability)?);
        Ok(self)
    }

    /// The directory of shared records, if they are asked for.
    pub(super) fn shared(&self) -> Option<&SharedDir> {
        self.shared.as_ref()
    }

    /// Whether a name among the records is the link to a shared one, there or not.
    pub(super) fn is_shared(&self, name: &str) -> bool {
        self.shared.as_ref().is_some_and(|shared| matches!(shared.place(name), Ok(Place::Shared)))
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durability == Durability::Full
    }

    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    /// The directory of all records.
    pub(super) fn layers(&self) -> &Dir {
        &self.layers
    }

    /// The directory of mount states.
    pub(super) fn run(&self) -> Option<&Dir> {
        self.run.as_ref()
    }

    /// The hidden state directory.
    pub(super) fn state(&self) -> Result<Arc<StateDir>> {
        let state = self.state.read().clone();
        state.ok_or_else(|| match self.read_only {
            true => Error::new(ErrorKind::ReadOnly, "the layer store was opened for reading only"),
            false => Error::new(ErrorKind::NotReady, "the layer store is closed"),
        })
    }

    /// Lets go of the state directory and with it of the lock.
    pub(super) fn release(&self) {
        *self.state.write() = None;
    }

    /// Makes the directory of a new record.
    pub(super) fn create_record_dir(&self, id: &LayerId) -> Result<Dir> {
        self.layers.create_dir(id.as_str(), DIR_MODE)
    }

    /// Makes the entry of a new record directory durable.
    pub(super) fn sync_layers(&self) -> Result<()> {
        if self.is_durable() { self.layers.sync() } else { Ok(()) }
    }

    pub(super) fn open_record_dir(&self, id: &LayerId) -> Result<Dir> {
        match (self.layers.open_dir(id.as_str()), &self.shared) {
            (Err(_), Some(shared)) if self.is_shared(id.as_str()) => shared.open_entry(id.as_str()),
            (opened, _) => opened,
        }
    }

    pub(super) fn write_record(&self, dir: &Dir, record: &LayerRecord) -> Result<()> {
        let text = record.to_json()?;
        persist::replace_file(dir, RECORD, &text, FILE_MODE, self.durability)
    }

    /// The text of a record; absent: `NotFound`.
    pub(super) fn read_record(dir: &Dir) -> Result<LayerRecord> {
        LayerRecord::parse(&dir.read(RECORD, RECORD_LIMIT)?)
    }

    /// Makes the file that the tar-split stream goes into.
    pub(super) fn create_tar_split(dir: &Dir, id: &LayerId) -> Result<File> {
        dir.create_file(tar_split_name(id), FILE_MODE)
    }

    /// Begins a new tar-split stream for a layer that has one.
    pub(super) fn replace_tar_split(dir: &Dir, id: &LayerId) -> Result<Replacement> {
        Replacement::begin(dir, &tar_split_name(id), FILE_MODE)
    }

    /// A layer's tar-split stream; `Corrupt` when there is none.
    pub(super) fn open_tar_split(&self, id: &LayerId) -> Result<File> {
        let opened = self.open_record_dir(id).and_then(|dir| dir.open_file(tar_split_name(id)));
        opened.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::corrupt(format!("layer {id}: it has no tar-split stream")),
            _ => error.context(format!("layer {id}: open its tar-split stream")),
        })
    }

    /// Keeps the true diff ID beside a record that holds another digest.
    pub(super) fn write_diff_id(&self, dir: &Dir, id: &LayerId, diff_id: Digest) -> Result<()> {
        let text = format!("{diff_id}\n");
        persist::replace_file(dir, &diff_id_name(id), text.as_bytes(), FILE_MODE, self.durability)
    }

    /// The true diff ID, where it was kept beside the record.
    pub(super) fn read_diff_id(&self, id: &LayerId) -> Result<Option<Digest>> {
        let read = self.open_record_dir(id).and_then(|dir| dir.read(diff_id_name(id), RECORD_LIMIT));
        match read {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                Digest::parse(text.trim_end())
                    .map(Some)
                    .map_err(|error| error.with_kind(ErrorKind::Corrupt))
                    .during(|| format!("layer {id}: read its diff id"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves a record directory into the trash, durably.
    pub(super) fn discard_record(&self, id: &LayerId) -> Result<Option<Discarded>> {
        self.state()?.discard(&self.layers, id.as_str())
    }

    /// Puts a record directory aside.
    pub(super) fn quarantine_record(&self, name: &str, reason: &str) -> Result<Quarantined> {
        self.state()?.quarantine(&self.layers, name, reason)
    }

    /// What lies in this store's quarantine.
    pub(super) fn quarantined(&self) -> Result<Vec<Quarantined>> {
        let state = self.state.read().clone();
        state.map_or_else(|| Ok(Vec::new()), |state| state.quarantined())
    }

    /// Writes a layer's mount state. The run root does not outlive a reboot, so nothing is flushed.
    pub(super) fn save_mount(&self, id: &LayerId, count: i32, path: &Path) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let record = MountPointRecord { id: None, count, path: path.to_str().map(str::to_owned) };
        persist::replace_file(run, &mount_name(id), &record.to_json()?, FILE_MODE, Durability::None)
            .during(|| format!("save mount state of layer {id}"))
    }

    /// A layer's mount state as it was saved; absent: `NotFound`.
    pub(super) fn read_mount(&self, id: &LayerId) -> Result<MountPointRecord> {
        let run = self.run.as_ref().ok_or_else(|| Error::not_found("there is no run directory"))?;
        MountPointRecord::parse(&run.read(mount_name(id), RECORD_LIMIT)?)
    }

    /// Removes a layer's mount state; it is derivable, so failing is only logged.
    pub(super) fn try_forget_mount(&self, id: &LayerId) {
        if let Some(Err(error)) = self.run.as_ref().map(|run| run.remove_file(mount_name(id))) {
            log::warn!("remove mount state of layer {id}: {}", error.report());
        }
    }
}
