// SPDX-License-Identifier: MulanPSL-2.0
//! Creation.
//!
//! ```text
//! record directory, tar-split file, record with the incomplete mark   durable
//! driver: create, apply ◄── content, read once, no lock held
//! digests verified
//! driver: sync, tar-split: sync                                       content durable
//! parent complete: waited for                                         nothing complete ever stands on what is not
//! record without the mark                                             durable: the layer exists
//! memory, one hold reference
//! ```
//!
//! The tar-split file is made before the first record is written, so that the one flush of the directory that makes
//! the record durable covers both names.
//!
//! Layers of one image may be made side by side: once the driver knows the parent, its child can be filled. Until the
//! parent is complete the child carries the mark, so a crash removes both; a parent that fails takes its child with it.
//!
//! The reference's `import` of a compressed archive passes the digest of the compressed file as both digests, and such
//! a record is kept as given. The true diff ID then lies beside the record, so that an export can still be verified.

use std::fs::File;
use std::io::{BufWriter, Read, Write};

use crate::digest::Digest;
use crate::driver::{Applied, LayerKind, NewLayer};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Discarded;
use crate::record::layer::LayerRecord;
use crate::sys::fs::Dir;
use crate::time::Timestamp;

use super::disk::{Disk, RECORD, TEMPORARY};
use super::entry::Entry;
use super::reaper::Rubbish;
use super::registry::{Claim, Reservation};
use super::{CreateLayer, Created, LayerStore};

/// The digests that a caller promises.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    compressed: Option<Digest>,
    uncompressed: Option<Digest>,
}

/// What `Promise::verify` found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// The record holds what is true.
    AsRecorded,
    /// The record's diff digest is that of the compressed archive; this is the true one.
    Beside(Digest),
}

impl Promise {
    pub(super) fn of(layer: &CreateLayer) -> Result<Promise> {
        let parse = |text: &Option<String>| text.as_deref().map(Digest::parse).transpose();
        Ok(Promise {
            compressed: parse(&layer.compressed_digest)?,
            uncompressed: parse(&layer.uncompressed_digest)?,
        })
    }

    /// Compares with what was read. The compressed digest may be that of the plain archive when the caller has
    /// decompressed it; a third one is refused even beside a right diff digest, for layers are looked up by it.
    pub(super) fn verify(&self, applied: &Applied) -> Result<Kept> {
        if let Some(promised) = self.compressed
            && promised != applied.compressed_digest
            && promised != applied.diff_id
        {
            return Err(mismatch("compressed", promised, applied.compressed_digest));
        }
        match self.uncompressed {
            Some(promised) if promised != applied.diff_id => {
                if self.compressed == Some(promised) && promised == applied.compressed_digest {
                    return Ok(Kept::Beside(applied.diff_id));
                }
                Err(mismatch("uncompressed", promised, applied.diff_id))
            }
            _ => Ok(Kept::AsRecorded),
        }
    }
}

fn mismatch(what: &str, promised: Digest, found: Digest) -> Error {
    let message = format!("the {what} archive should have digest {promised}, but has {found}");
    Error::new(ErrorKind::DigestMismatch, message)
}

/// Takes back what was made, unless it is kept.
struct Staged<'a> {
    store: &'a LayerStore,
    id: &'a LayerId,
    in_driver: bool,
    keep: bool,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.store.roll_back(self.id, self.in_driver);
        }
    }
}

impl LayerStore {
    pub(super) fn create_layer(
        &self,
        id: &LayerId,
        layer: &CreateLayer,
        content: Option<&mut (dyn Read + Send)>,
    ) -> Result<Created> {
        self.require_writable()?;
        let _activity = self.registry.enter()?;
        let doing = || format!("create layer {id}");
        match self.registry.reserve(id, layer).during(doing)? {
            Claim::Existing(id) => {
                if let Some(content) = content
                    && let Err(error) = self.heal(&id, content)
                {
                    self.registry.by_id(&id).into_iter().for_each(|existing| existing.add_holds(-1));
                    return Err(error);
                }
                Ok(Created::Existing(id))
            }
            Claim::New(reservation) if self.shares(layer) => {
                reservation.await_parent().during(doing)?;
                if let Some(entry) = self.take_over_shared(id, layer).during(doing)? {
                    self.publish(reservation, entry, 1);
                    return Ok(Created::Existing(id.clone()));
                }
                let entry = self.build_shared(id, layer, content).during(doing)?;
                self.publish(reservation, entry, 1);
                Ok(Created::New(id.clone()))
            }
            Claim::New(reservation) => {
                let entry = self.build(id, layer, content, &reservation).during(doing)?;
                self.publish(reservation, entry, 1);
                Ok(Created::New(id.clone()))
            }
        }
    }

    fn build(
        &self,
        id: &LayerId,
        layer: &CreateLayer,
        content: Option<&mut (dyn Read + Send)>,
        reservation: &Reservation<'_>,
    ) -> Result<Entry> {
        let promise = Promise::of(layer)?;
        let mut record = new_record(id, layer)?;
        self.clear_left_over(id)?;

        let dir = self.disk.create_record_dir(id)?;
        let mut staged = Staged { store: self, id, in_driver: false, keep: false };
        let tar_split = content.as_ref().map(|_| Disk::create_tar_split(&dir, id)).transpose()?;
        self.disk.write_record(&dir, &record)?;
        self.disk.sync_layers()?;

        let kind = if layer.writable { LayerKind::ReadWrite } else { LayerKind::ReadOnly };
        self.driver.create(&NewLayer {
            id,
            parent: layer.parent.as_ref(),
            kind,
            storage_options: &layer.storage_options,
            mount_label: layer.mount_label.as_deref(),
        })?;
        staged.in_driver = true;
        if self.driver.creates_ahead() {
            reservation.in_driver();
        }

        match (content, tar_split) {
            (Some(content), Some(tar_split)) => {
                let (applied, tar_split) = self.fill(id, content, tar_split)?;
                if let Kept::Beside(diff_id) = promise.verify(&applied)? {
                    self.disk.write_diff_id(&dir, id, diff_id)?;
                }
                self.driver.sync(id)?;
                if self.disk.is_durable() {
                    tar_split.sync_all().during(|| "make the tar-split stream durable")?;
                }
                if layer.find_compressed_digest && record.compressed_diff_digest.is_none() {
                    record.compressed_diff_digest = Some(applied.compressed_digest.to_string());
                }
                record.diff_size = i64::try_from(applied.content_size.0).unwrap_or(i64::MAX);
            }
            _ => self.driver.sync(id)?,
        }

        if reservation.await_parent()? {
            self.driver.settle(id, layer.parent.as_ref())?;
        }
        // Of an earlier layer of this id, perhaps: it must not count for this one.
        self.disk.try_forget_mount(id);
        record.incomplete = false;
        self.disk.write_record(&dir, &record)?;
        staged.keep = true;

        let sequence = self.registry.next_sequence();
        let entry = Entry::new(id.clone(), layer.parent.clone(), layer.names.clone(), record, sequence);
        entry.lock_mount().set_count(0);
        Ok(entry)
    }

    pub(super) fn fill(
        &self,
        id: &LayerId,
        content: &mut (dyn Read + Send),
        tar_split: File,
    ) -> Result<(Applied, File)> {
        let mut out = BufWriter::new(tar_split);
        let applied = self.driver.apply(id, content, &mut out, &self.limits)?;
        out.flush().during(|| "write the tar-split stream")?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error);
        Ok((applied, file.during(|| "write the tar-split stream")?))
    }

    /// Makes room where an earlier layer of this id left something: what carries the incomplete mark goes, all else is
    /// put aside. (What the driver still has of it, the driver puts aside itself.)
    pub(super) fn clear_left_over(&self, id: &LayerId) -> Result<()> {
        let Some(_) = self.disk.layers().stat(id.as_str())? else { return Ok(()) };
        // Others may stand on data whose record says incomplete; only this reservation is counted otherwise.
        let removable = self.disk.open_record_dir(id).is_ok_and(|dir| never_completed(&dir));
        if removable && !self.registry.has_children(id) {
            log::info!("layer {id}: removing what an unfinished creation left");
            return self.remove_unfinished(id);
        }
        let put = self.disk.quarantine_record(id.as_str(), "left over when the layer was made again")?;
        log::warn!("layer {id}: a left-over record was put aside as {}", put.path.display());
        self.keep_below(id);
        Ok(())
    }

    /// Removes a layer that carries the incomplete mark: content first, so that the mark outlives it.
    pub(super) fn remove_unfinished(&self, id: &LayerId) -> Result<()> {
        let content = self.driver.remove(id)?;
        self.reaper.take(Rubbish::Content(content));
        self.disk.try_forget_mount(id);
        if let Some(record) = self.disk.discard_record(id)? {
            self.reaper.take(Rubbish::Record(record));
        }
        Ok(())
    }

    fn roll_back(&self, id: &LayerId, in_driver: bool) {
        let content = if in_driver { self.driver.remove(id).map(Some) } else { Ok(None) };
        let record: Result<Option<Discarded>> = match content {
            Ok(content) => {
                content.into_iter().for_each(|content| self.reaper.take(Rubbish::Content(content)));
                self.disk.discard_record(id)
            }
            Err(error) => Err(error),
        };
        match record {
            Ok(record) => record.into_iter().for_each(|record| self.reaper.take(Rubbish::Record(record))),
            // Its record still says incomplete: the next start, or the next creation, removes it.
            Err(error) => log::warn!("layer {id}: take back its unfinished creation: {}", error.report()),
        }
    }
}

/// Whether a record directory is that of a layer that was never finished: its record says so, or there is none and
/// nothing else of worth either.
pub(super) fn never_completed(dir: &Dir) -> bool {
    match Disk::read_record(dir) {
        Ok(record) => record.incomplete,
        Err(error) if error.kind() == ErrorKind::NotFound => is_blank(dir),
        Err(_) => false,
    }
}

/// Whether a record directory without a record holds nothing but what a creation makes before its record: an empty
/// tar-split file and temporary files.
pub(super) fn is_blank(dir: &Dir) -> bool {
    let Ok(entries) = dir.entries() else { return false };
    entries.iter().all(|entry| {
        let name = entry.name.to_string_lossy();
        let empty = || matches!(dir.stat(&entry.name), Ok(Some(stat)) if stat.size == 0);
        name.starts_with(TEMPORARY) || (name != RECORD && name.ends_with(".tar-split.gz") && empty())
    })
}

pub(super) fn new_record(id: &LayerId, layer: &CreateLayer) -> Result<LayerRecord> {
    let created = Timestamp::now().to_utc_text();
    Ok(LayerRecord {
        id: Some(id.to_string()),
        names: layer.names.clone(),
        parent: layer.parent.as_ref().map(LayerId::to_string),
        mount_label: layer.mount_label.clone(),
        created: Some(created.ok_or_else(|| Error::invalid("the clock shows a time beyond the calendar"))?),
        compressed_diff_digest: layer.compressed_digest.clone(),
        diff_digest: layer.uncompressed_digest.clone(),
        incomplete: true,
        writable: layer.writable,
        ..LayerRecord::default()
    })
}
