// SPDX-License-Identifier: MulanPSL-2.0
//! Making images and taking them away.

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::persist::{self, Discarded, Quarantined};
use crate::record::image::ImageRecord;
use crate::sys::fs::{Dir, FileKind, random_hex};
use crate::time::Timestamp;

use super::change::{Change, change};
use super::files::{self, DIR_MODE, FILE_MODE, RECORD};
use super::index::{Config, Image};
use super::{CreateImage, ImageStore, MANIFEST, local_text, names, no_nul};

/// Digits of a random id.
const ID_LEN: usize = 64;

pub(super) fn create(store: &ImageStore, image: &CreateImage) -> Result<ImageId> {
    change(store, |change| {
        let record = new_record(image)?;
        let id = match &image.id {
            Some(id) => id.clone(),
            None => ImageId::new(&random_hex(ID_LEN)?)?,
        };
        check_free(store, &id, &record)?;
        let record = ImageRecord { id: Some(id.to_string()), ..record };
        let config = make(change, &id, &record).during(|| format!("create image {id}"))?;
        super::hide::forget(store, &id);
        store.index.write().put(Image::new(id.clone(), record, config, store.default_host.as_deref()));
        Ok(id)
    })
}

fn new_record(image: &CreateImage) -> Result<ImageRecord> {
    let texts = [("layer", &image.layer), ("metadata", &image.metadata), ("digest", &image.digest)];
    for (what, text) in texts {
        no_nul(what, text.as_deref().unwrap_or_default())?;
    }
    let now = Timestamp::now();
    Ok(ImageRecord {
        digest: image.digest.clone(),
        names: names::unique(&image.names)?,
        layer: image.layer.clone(),
        metadata: image.metadata.clone(),
        created: Some(local_text(image.created.unwrap_or(now))?),
        loaded: Some(local_text(now)?),
        ..ImageRecord::default()
    })
}

fn check_free(store: &ImageStore, id: &ImageId, record: &ImageRecord) -> Result<()> {
    let index = store.index.read();
    if index.get(id.as_str()).is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("create image {id}: it exists already")));
    }
    for name in &record.names {
        if let Some(holder) = index.holder(name) {
            let message = format!("create image {id}: name {name} belongs to image {}", holder.id);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
    }
    Ok(())
}

/// Makes directory and record durable. Returns the config, which may be there from an interrupted attempt.
fn make(change: &Change<'_>, id: &ImageId, record: &ImageRecord) -> Result<Config> {
    let store = change.store;
    let text = record.to_json()?;
    let (dir, fresh) = match make_way(store, id)? {
        Some(left_over) => (left_over, false),
        None => (store.root.create_dir(id.as_str(), DIR_MODE)?, true),
    };
    let written = persist::replace_file(&dir, RECORD, &text, FILE_MODE, store.durability)
        .and_then(|()| store.sync_root());
    if let Err(error) = written {
        if fresh {
            discard_quietly(store, id.as_str());
        }
        return Err(error);
    }
    if fresh {
        return Ok(Config::Missing);
    }
    Ok(match files::read_text(&dir, &files::config_key(id.as_str())).unwrap_or_default() {
        Some(content) => Config::read(&content),
        None => Config::Missing,
    })
}

/// What is in the way of a new image and not listed: an attempt without a manifest is taken up again, as the
/// reference does; anything that may have been a whole image is put aside.
fn make_way(store: &ImageStore, id: &ImageId) -> Result<Option<Dir>> {
    let Some(stat) = store.root.stat(id.as_str())? else { return Ok(None) };
    if stat.kind == FileKind::Dir {
        let dir = store.root.ensure_dir(id.as_str(), DIR_MODE)?;
        if dir.stat(MANIFEST)?.is_none() {
            persist::sweep_temporary(&dir);
            return Ok(Some(dir));
        }
    }
    let reason = "it was in the way of a new image of this id, and was not listed itself";
    store.state.quarantine(&store.root, id.as_str(), reason)?;
    Ok(None)
}

pub(super) fn delete(store: &ImageStore, image: &str) -> Result<bool> {
    let discarded = change(store, |change| {
        let image = match change.find(image) {
            Ok(image) => image,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        take(store, &image.id, || store.state.discard(&store.root, image.id.as_str()))
            .during(|| format!("delete image {}", image.id))
            .map(Some)
    })?;
    let found = discarded.is_some();
    if let Some(discarded) = discarded.flatten() {
        discarded.remove();
    }
    Ok(found)
}

pub(super) fn wipe(store: &ImageStore) -> Result<()> {
    let ids: Vec<ImageId> = store.read(|index| index.list().map(|image| image.id.clone()).collect())?;
    if ids.is_empty() {
        // Tells at least whether it would be allowed.
        return change(store, |_| Ok(()));
    }
    let mut first = Ok(());
    for error in ids.iter().filter_map(|id| delete(store, id.as_str()).err()) {
        log::warn!("wipe the image store: {}", error.report());
        first = first.and(Err(error));
    }
    first
}

pub(super) fn quarantine(store: &ImageStore, image: &str, reason: &str) -> Result<Quarantined> {
    change(store, |change| {
        let image = change.find(image)?;
        take(store, &image.id, || store.state.quarantine(&store.root, image.id.as_str(), reason))
    })
}

/// Takes an image's directory away by `moving` it, then the image out of memory. When the move was made but not known
/// to be durable, memory follows what the disk shows: a power cut brings back a whole image or none.
fn take<T>(store: &ImageStore, id: &ImageId, moving: impl FnOnce() -> Result<T>) -> Result<T> {
    let moved = moving();
    if moved.is_ok() || matches!(store.root.stat(id.as_str()), Ok(None)) {
        store.index.write().remove(id.as_str());
    }
    moved
}

fn discard_quietly(store: &ImageStore, name: &str) {
    match store.state.discard(&store.root, name) {
        Ok(discarded) => discarded.into_iter().for_each(Discarded::remove),
        Err(error) => log::warn!("undo the creation of image {name}: {}", error.report()),
    }
}
