// SPDX-License-Identifier: MulanPSL-2.0
//! Healing: making a damaged image layer again from its archive.
//!
//! A layer is suspect when it was loaded without a whole tar-split stream, or when a check found it damaged. A creation of
//! a suspect layer reads its archive after all:
//!
//! ```text
//! archive unpacked aside, new tar-split stream beside the old one     content and other layers untouched
//! its diff ID is the recorded one                                     else: an error, nothing changed
//! content fits the new stream: it stays
//! content differs: nothing of the layer or above it is mounted        else: an error that says what to do, or where only
//!                                                                     owners, modes and the like differ, it stays, suspect
//!                  the old data go to quarantine, the new ones in their place, under the same name
//! the new stream takes the place of the old one
//! ```
//!
//! A crash leaves the layer suspect, or without data while both lie in the driver's quarantine or nowhere yet; making it once more
//! heals it.

use std::io::{BufWriter, Read, Write};
use std::sync::Arc;

use crate::digest::Digest;
use crate::driver::{Applied, Depth, LayerKind, NewLayer, Prepared, Verdict};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Replacement;

use super::LayerStore;
use super::disk::Disk;
use super::entry::Entry;

/// Why the content of a layer has to be replaced.
type Damage = Option<String>;

impl LayerStore {
    /// What a creation does for a layer that exists: nothing unless it is suspect.
    pub(super) fn heal(&self, id: &LayerId, content: &mut (dyn Read + Send)) -> Result<()> {
        let Some(healing) = self.registry.begin_healing(id) else { return Ok(()) };
        let entry = healing.entry();
        if self.disk.is_shared(id.as_str()) {
            log::warn!("layer {id} is damaged, but shared with other hosts: it is left as it is");
            return Ok(());
        }
        let doing = || format!("heal layer {id}");
        log::warn!("layer {id} is damaged: reading its archive again");
        match self.make_again(entry, content).during(doing) {
            // Nothing was read: it is used as it is, as it always was.
            Err(error) if error.kind() == ErrorKind::Unsupported => log::warn!("{}", error.report()),
            Err(error) => return Err(error),
            Ok(true) => {
                entry.set_suspect(false);
                log::warn!("layer {id}: healed");
            }
            Ok(false) => {}
        }
        Ok(())
    }

    /// Whether all is well after it.
    fn make_again(&self, entry: &Entry, content: &mut (dyn Read + Send)) -> Result<bool> {
        let id = entry.id();
        let dir = self.disk.open_record_dir(id)?;
        crate::persist::sweep_temporary(&dir);
        let mut stream = Disk::replace_tar_split(&dir, id)?;
        let (applied, prepared) = self.unpack_aside(entry, content, &mut stream)?;
        let expected = self.diff_id_or_none(entry);
        let beside = match expected {
            Some(expected) if expected == applied.diff_id => None,
            // What `isula import` of a compressed archive leaves in a record.
            Some(expected) if expected == applied.compressed_digest => Some(applied.diff_id),
            Some(expected) => {
                let message =
                    format!("the archive should have digest {expected}, but has {}", applied.diff_id);
                return Err(Error::new(ErrorKind::DigestMismatch, message));
            }
            None => return Err(Error::corrupt("its record does not say which archive it was made from")),
        };
        let mut whole = true;
        match self.damage(id, &stream, Depth::Metadata)? {
            None => drop(prepared),
            Some(reason) => match self.replace_content(entry, prepared, &reason) {
                Err(error)
                    if error.kind() == ErrorKind::InUse
                        && self.damage(id, &stream, Depth::Content)?.is_none() =>
                {
                    log::warn!("layer {id}: its content is used as it is: {}", error.report());
                    whole = false;
                }
                replaced => replaced?,
            },
        }
        if let Some(diff_id) = beside {
            self.disk.write_diff_id(&dir, id, diff_id)?;
        }
        stream.commit(self.disk.durability())?;
        Ok(whole)
    }

    fn unpack_aside(
        &self,
        entry: &Entry,
        content: &mut (dyn Read + Send),
        stream: &mut Replacement,
    ) -> Result<(Applied, Box<dyn Prepared>)> {
        let layer = NewLayer {
            id: entry.id(),
            parent: entry.parent(),
            kind: LayerKind::ReadOnly,
            storage_options: &[],
            mount_label: entry.record().mount_label.as_deref(),
        };
        let mut out = BufWriter::new(stream.file());
        let done = self.driver.prepare(&layer, content, &mut out, &self.limits)?;
        out.flush().during(|| "write the tar-split stream")?;
        Ok(done)
    }

    /// Compares the content that is there with a stream that is whole.
    fn damage(&self, id: &LayerId, stream: &Replacement, depth: Depth) -> Result<Damage> {
        match self.driver.verify(id, &mut stream.open()?, depth) {
            Ok(Verdict::Valid) => Ok(None),
            Ok(Verdict::Differs(what)) => Ok(Some(what)),
            Err(error) if is_damage(&error) => Ok(Some(error.report())),
            Err(error) => Err(error),
        }
    }

    fn replace_content(&self, entry: &Entry, prepared: Box<dyn Prepared>, reason: &str) -> Result<()> {
        let id = entry.id();
        // Nobody else holds more than one layer's mutex, so the order among those that do is all that counts.
        let _one_at_a_time = self.healing.lock();
        let stack = self.registry.standing_on(id);
        let held: Vec<_> = stack.iter().map(|above| above.lock_mount()).collect();
        for above in &stack {
            let counted = above.id() == id && above.mount_count() > 0;
            if counted || self.driver.is_mounted(above.id())? {
                return Err(in_the_way(id, above, reason));
            }
        }
        let put = prepared.install(&format!("its content was damaged, and it was made again: {reason}"))?;
        drop(held);
        if let Some(put) = put {
            log::warn!("layer {id}: its damaged content was put aside as {}", put.path.display());
        }
        Ok(())
    }

    /// What the layer's archive must hash to, as far as that is known.
    fn diff_id_or_none(&self, entry: &Entry) -> Option<Digest> {
        self.diff_id(entry).unwrap_or_else(|error| {
            log::warn!("layer {}: {}", entry.id(), error.report());
            entry.record().diff_digest.as_deref().and_then(|text| Digest::parse(text).ok())
        })
    }
}

fn in_the_way(id: &LayerId, above: &Arc<Entry>, reason: &str) -> Error {
    let who = match above.id() == id {
        true => "it is mounted".to_owned(),
        false => format!("layer {}, which stands on it, is mounted", above.id()),
    };
    let message = format!(
        "its content is damaged ({reason}) and cannot be replaced while {who}: unmount it (stop the container), then \
         make the layer again"
    );
    Error::new(ErrorKind::InUse, message)
}

/// Whether an error tells of the layer, and not of this process or machine.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt
            | ErrorKind::InvalidData
            | ErrorKind::NotFound
            | ErrorKind::Os(libc::ENOTDIR | libc::EISDIR | libc::ELOOP | libc::EIO | libc::EUCLEAN)
    )
}
