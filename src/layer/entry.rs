// SPDX-License-Identifier: MulanPSL-2.0
//! One layer in memory.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::driver::LayerKind;
use crate::id::LayerId;
use crate::record::layer::LayerRecord;

use super::Layer;

/// A layer. What never changes is plain; counters are atomic, so that a snapshot needs no lock.
#[derive(Debug)]
pub(super) struct Entry {
    id: LayerId,
    parent: Option<LayerId>,
    /// The names it is found by: those of the record without the ones another layer has.
    names: Vec<String>,
    record: LayerRecord,
    sequence: u64,
    holds: AtomicI32,
    /// Found damaged, and not healed since: made again, its archive is read.
    suspect: AtomicBool,
    mount: Mutex<Lifecycle>,
    // Written only under `mount`.
    mount_count: AtomicI32,
    mount_known: AtomicBool,
}

/// Guards mounting against deletion; held while the driver mounts and unmounts this layer, by nobody else.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    /// The layer was deleted; who waited for the mutex meanwhile has to give up.
    pub(super) gone: bool,
}

/// A layer's mount state and the right to change it.
#[derive(Debug)]
pub(super) struct MountGuard<'a> {
    entry: &'a Entry,
    pub(super) lifecycle: MutexGuard<'a, Lifecycle>,
}

impl Entry {
    /// `names` are those it is found by; `sequence` is its place in lists.
    pub(super) fn new(
        id: LayerId,
        parent: Option<LayerId>,
        names: Vec<String>,
        record: LayerRecord,
        sequence: u64,
    ) -> Entry {
        Entry {
            id,
            parent,
            names,
            record,
            sequence,
            holds: AtomicI32::new(0),
            suspect: AtomicBool::new(false),
            mount: Mutex::default(),
            mount_count: AtomicI32::new(0),
            mount_known: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> &LayerId {
        &self.id
    }

    pub(super) fn parent(&self) -> Option<&LayerId> {
        self.parent.as_ref()
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn record(&self) -> &LayerRecord {
        &self.record
    }

    /// What it is to the driver. A record without either mark is a container's of an older iSulad, which did not record
    /// `writable`.
    pub(super) fn kind(&self) -> LayerKind {
        match self.record.writable || !self.is_image() {
            true => LayerKind::ReadWrite,
            false => LayerKind::ReadOnly,
        }
    }

    /// Whether it is an image layer: the reference tells by the diff digest alone.
    pub(super) fn is_image(&self) -> bool {
        self.record.diff_digest.is_some()
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn holds(&self) -> i32 {
        self.holds.load(Ordering::Relaxed)
    }

    /// Adds to the hold references; stops at the bounds of the type.
    pub(super) fn add_holds(&self, count: i32) {
        // The closure never declines, so this cannot fail.
        let _always = self
            .holds
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |holds| Some(holds.saturating_add(count)));
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(super) fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    pub(super) fn mount_count(&self) -> i32 {
        self.mount_count.load(Ordering::Relaxed)
    }

    pub(super) fn lock_mount(&self) -> MountGuard<'_> {
        MountGuard { entry: self, lifecycle: self.mount.lock() }
    }

    /// What callers see. `mount_path` is asked only when the layer has a mount state.
    pub(super) fn snapshot(&self, mount_path: impl FnOnce() -> PathBuf) -> Layer {
        Layer {
            id: self.id.clone(),
            parent: self.parent.clone(),
            names: self.names.clone(),
            mount_point: self.mount_known.load(Ordering::Relaxed).then(mount_path),
            mount_count: self.mount_count(),
            compressed_digest: self.record.compressed_diff_digest.clone(),
            compressed_size: self.record.compressed_size,
            uncompressed_digest: self.record.diff_digest.clone(),
            uncompressed_size: self.record.diff_size,
            writable: self.record.writable,
            created: self.record.created.clone(),
        }
    }
}

impl MountGuard<'_> {
    pub(super) fn count(&self) -> i32 {
        self.entry.mount_count()
    }

    /// Whether the layer has a mount state at all; an image layer gets one with its first mount.
    pub(super) fn is_known(&self) -> bool {
        self.entry.mount_known.load(Ordering::Relaxed)
    }

    pub(super) fn set_count(&mut self, count: i32) {
        self.entry.mount_known.store(true, Ordering::Relaxed);
        self.entry.mount_count.store(count, Ordering::Relaxed);
    }
}
