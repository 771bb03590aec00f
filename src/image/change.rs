// SPDX-License-Identifier: MulanPSL-2.0
//! Changing the store: one change at a time, disk first, then memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::persist::{self, Ownership};
use crate::record::image::ImageRecord;
use crate::sys::fs::Dir;

use super::files::{FILE_MODE, RECORD};
use super::index::Image;
use super::{ImageStore, open};

/// How long a change of a shared store waits for another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// What is guarded by the mutex of those who change the store.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Why nothing may be written: an earlier failure left memory and disk apart.
    pub(super) latched: Option<String>,
    /// The store's generation, as last written or read under the lock.
    pub(super) generation: u64,
}

/// What one change may do.
pub(super) struct Change<'a> {
    pub(super) store: &'a ImageStore,
    /// Set when it is not known what the disk holds now.
    doubt: Option<String>,
}

/// Runs one change: alone in this process and among all that share the store, with an index that is up to date.
pub(super) fn change<T>(store: &ImageStore, action: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
    run(store, false, action)
}

fn run<T>(
    store: &ImageStore,
    latched_too: bool,
    action: impl FnOnce(&mut Change<'_>) -> Result<T>,
) -> Result<T> {
    if store.ownership() == Ownership::ReadOnly {
        let message = format!("change image store {}: it was opened for reading only", store.dir().display());
        return Err(Error::new(ErrorKind::ReadOnly, message));
    }
    let mut control = store.control.lock();
    if let Some(why) = control.latched.as_ref().filter(|_| !latched_too) {
        return Err(Error::new(ErrorKind::Latched, format!("the image store must be loaded again: {why}")));
    }
    let _lock = store.state.lock_for_change(LOCK_TIMEOUT)?;
    open::refresh_under_lock(store, &mut control)?;
    announce(store, &mut control, true)?;

    let mut guard = Latch { control: &mut control, armed: true };
    let mut change = Change { store, doubt: None };
    let result = action(&mut change);
    let doubt = change.doubt;
    guard.armed = false;
    drop(guard);

    if let Some(why) = doubt {
        log::error!(
            "image store {}: {why}; writes are refused until it is loaded again",
            store.dir().display()
        );
        control.latched = Some(why);
    }
    if let Err(error) = announce(store, &mut control, false) {
        // The odd number stays: others read the records again each time, which costs only time.
        log::warn!("{}", error.report());
    }
    result
}

/// Tells others that a change begins or has ended.
pub(super) fn announce(store: &ImageStore, control: &mut Control, begins: bool) -> Result<()> {
    let Some(generation) = store.generation() else { return Ok(()) };
    match begins {
        true => generation.begin(&mut control.generation)?,
        false => generation.end(&mut control.generation)?,
    }
    store.seen.store(control.generation, Ordering::Release);
    Ok(())
}

/// Latches the store when a change panics half-way.
struct Latch<'a> {
    control: &'a mut Control,
    armed: bool,
}

impl Drop for Latch<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.control.latched = Some("a change was interrupted by a panic".to_owned());
        }
    }
}

/// Changes the record of one image.
pub(super) fn edit(store: &ImageStore, image: &str, edit: impl FnOnce(&mut ImageRecord)) -> Result<()> {
    change(store, |change| {
        let image = change.find(image)?;
        let mut record = ImageRecord::clone(&image.record);
        edit(&mut record);
        change.save(&image, image.with_record(record, store.default_host.as_deref()))
    })
}

/// Writes what is not on disk yet.
pub(super) fn save(store: &ImageStore) -> Result<()> {
    run(store, true, |change| {
        let unsaved: Vec<_> = store.index.read().list().filter(|image| image.unsaved).cloned().collect();
        for image in unsaved {
            change.save(&image, Image { unsaved: false, ..Image::clone(&image) })?;
        }
        store.root.sync()
    })?;
    store.control.lock().latched = None;
    Ok(())
}

impl Change<'_> {
    /// The image of any such name.
    pub(super) fn find(&self, image: &str) -> Result<Arc<Image>> {
        self.store.index.read().resolve(image, self.store.default_host.as_deref()).cloned()
    }

    /// The directory of an image.
    pub(super) fn dir(&self, id: &ImageId) -> Result<Dir> {
        self.store.root.open_dir(id.as_str()).during(|| format!("open image {id}"))
    }

    /// Puts `new` in the place of `old`, on disk unless nothing changed there, then in memory.
    pub(super) fn save(&mut self, old: &Image, new: Image) -> Result<()> {
        if new.record != old.record || old.unsaved {
            self.write_or_undo(&[(old, &new)])?;
        }
        self.store.index.write().put(new);
        Ok(())
    }

    /// Writes the new records in this order. If one fails, those already written are set back, last first, so that
    /// disk and memory agree; only when that fails, too, the store is latched.
    pub(super) fn write_or_undo(&mut self, images: &[(&Image, &Image)]) -> Result<()> {
        for (index, (old, new)) in images.iter().enumerate() {
            let Err(error) = self.write(&new.id, &new.record) else { continue };
            let error = error.context(format!("save image {}", new.id));
            // A failed write may have been made all the same.
            let untouched = match self.dir(&old.id).and_then(|dir| super::files::read_record(&dir)) {
                Ok(record) => record != *new.record,
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
            let undo = images.get(..index + usize::from(!untouched)).unwrap_or_default();
            for (old, _) in undo.iter().rev() {
                if let Err(also) = self.write(&old.id, &old.record) {
                    self.doubt(&old.id, format!("{}; setting it back: {}", error.report(), also.report()));
                }
            }
            return Err(error);
        }
        Ok(())
    }

    fn write(&self, id: &ImageId, record: &ImageRecord) -> Result<()> {
        let text = record.to_json()?;
        persist::replace_file(&self.dir(id)?, RECORD, &text, FILE_MODE, self.store.durability)
    }

    fn doubt(&mut self, id: &ImageId, why: String) {
        self.doubt.get_or_insert(why);
        let mut index = self.store.index.write();
        if let Some(image) = index.get(id.as_str()).cloned() {
            index.put(Image { unsaved: true, ..Image::clone(&image) });
        }
    }
}
