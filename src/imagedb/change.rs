// SPDX-License-Identifier: MulanPSL-2.0
//! Changing the store: one change at a time, disk first, then memory. The layer store is called outside of it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};

use super::backend::Signature;
use super::config::Config;
use super::index::Entry;
use super::layers::RemovedLayer;
use super::open::failed_layer;
use super::{ImageDb, PARENT};

/// What is guarded by the mutex of those who change the store.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Why nothing may be written: an earlier failure left memory and disk apart.
    latched: Option<String>,
}

/// Runs one change. One that panics latches the store.
fn change<T>(db: &ImageDb, action: impl FnOnce(&mut Control) -> Result<T>) -> Result<T> {
    db.check_writable()?;
    let mut control = db.control.lock();
    if let Some(why) = &control.latched {
        let message = format!("the image store takes no changes until it is opened again: {why}");
        return Err(Error::new(ErrorKind::Latched, message));
    }
    control.latched = Some("a change was interrupted by a panic".to_owned());
    let mut inner = Control::default();
    let result = action(&mut inner);
    if let Some(why) = &inner.latched {
        log::error!("image store {}: {why}; changes are refused until it is opened again", db.root.display());
    }
    *control = inner;
    result
}

/// A reference on a layer that is given back unless it is kept.
struct Retained<'a> {
    db: &'a ImageDb,
    chain_id: Option<Digest>,
}

impl<'a> Retained<'a> {
    fn take(db: &'a ImageDb, chain_id: Option<Digest>) -> Result<Self> {
        if let Some(chain_id) = &chain_id {
            db.layers.retain(chain_id).map_err(|error| failed_layer(chain_id, error))?;
        }
        Ok(Retained { db, chain_id })
    }

    fn keep(mut self) {
        self.chain_id = None;
    }
}

impl Drop for Retained<'_> {
    fn drop(&mut self) {
        if let Some(chain_id) = &self.chain_id {
            self.db.layers.forget(chain_id);
        }
    }
}

pub(super) fn create(db: &ImageDb, bytes: &[u8]) -> Result<Digest> {
    db.check_writable()?;
    if bytes.is_empty() {
        return Err(Error::invalid("invalid empty data"));
    }
    let config = Config::parse(bytes)?;
    config.check_history()?;
    let id = Digest::of(bytes);
    let known = db.index.read().get(&id).cloned();
    if let Some(entry) = known {
        if db.verify(&entry).is_ok() {
            return Ok(id);
        }
        if let Some(id) = rewrite(db, &id, bytes)? {
            return Ok(id);
        }
        // It was deleted meanwhile.
    }
    let retained = Retained::take(db, config.chain_id)?;
    let config = Arc::new(config);
    let made = change(db, |control| {
        if db.index.read().get(&id).is_some() {
            return Ok(false);
        }
        db.backend.discard_stale_metadata(&db.state, &id)?;
        let verified = write(db, control, &id, bytes)?;
        db.index.write().put(Entry { id, config: config.clone(), verified: Mutex::new(verified) });
        Ok(true)
    })?;
    if made {
        retained.keep();
    }
    Ok(id)
}

/// Writes the config of an image that is in the store once more; `None` when it is not there any more.
fn rewrite(db: &ImageDb, id: &Digest, bytes: &[u8]) -> Result<Option<Digest>> {
    change(db, |_| {
        let Some(entry) = db.index.read().get(id).cloned() else { return Ok(None) };
        db.backend.put(bytes)?;
        if let Some(signature) = db.backend.signature(id)? {
            *entry.verified.lock() = signature;
        }
        Ok(Some(*id))
    })
}

/// Writes a new config; after an error there is none.
fn write(db: &ImageDb, control: &mut Control, id: &Digest, bytes: &[u8]) -> Result<Signature> {
    // Found damaged, or without its layer, when the store was opened: it was there before.
    let was_there = db.backend.is_there(id)?;
    let written = db.backend.put(bytes).and_then(|_| {
        let signature = db.backend.signature(id)?;
        signature.ok_or_else(|| Error::corrupt(format!("the config of image {id} is gone again")))
    });
    if written.is_err()
        && !was_there
        && let Err(error) = db.backend.take_back(id)
    {
        control.latched = Some(format!("remove what is left of a failed create: {}", error.report()));
    }
    written
}

pub(super) fn delete(db: &ImageDb, id: &Digest) -> Result<Vec<RemovedLayer>> {
    let removed = change(db, |_| {
        let known = db.index.read().get(id).is_some();
        if !known && !db.backend.is_there(id)? {
            return Err(Error::not_found(format!("unrecognized image ID {id}")));
        }
        let gone = match db.backend.delete(&db.state, id) {
            // Somebody removed it by hand: it is gone, as was asked for.
            Err(error) if error.kind() == ErrorKind::NotFound && !db.backend.is_there(id).unwrap_or(true) => {
                db.backend.sync_content()
            }
            other => other,
        };
        if gone.is_err() && db.backend.is_there(id).unwrap_or(true) {
            return gone.map(|()| (None, Ok(())));
        }
        let children = db.index.read().children(id);
        let entry = db.index.write().remove(id);
        for child in children {
            // The parent that it names is not there: nobody minds if this fails.
            if let Err(error) = db.backend.delete_metadata(&child, PARENT) {
                log::warn!("{}", error.report());
            }
        }
        Ok((entry, gone))
    })?;
    let (entry, gone) = removed;
    let Some(chain_id) = entry.and_then(|entry| entry.config.chain_id) else {
        return gone.map(|()| Vec::new());
    };
    if let Err(error) = gone {
        // A power cut may bring the image back: then it needs its layer.
        db.layers.forget(&chain_id);
        return Err(error);
    }
    let doing = || format!("image {id} is deleted; release layer {chain_id}");
    db.layers.release(&chain_id).during(doing)
}

pub(super) fn set_parent(db: &ImageDb, id: &Digest, parent: &Digest) -> Result<()> {
    change(db, |control| {
        {
            let index = db.index.read();
            if index.get(id).is_none() {
                return Err(Error::not_found(format!("unknown image ID {id}")));
            }
            if index.get(parent).is_none() {
                return Err(Error::not_found(format!("unknown parent image ID {parent}")));
            }
            if id == parent {
                return Err(Error::invalid("an image cannot be its own parent"));
            }
            if index.descends_from(parent, id) {
                return Err(Error::invalid(format!("image {parent} descends from it")));
            }
        }
        let written = db.backend.set_metadata(id, PARENT, parent.to_string().as_bytes());
        let now = match &written {
            Ok(()) => Some(*parent),
            // The old one or the new one: what the disk says counts.
            Err(_) => {
                match db.backend.metadata_of(id, PARENT).and_then(|text| super::open::parse_parent(&text)) {
                    Ok(parent) => Some(parent),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => {
                        control.latched = Some(format!("read the parent of image {id}: {}", error.report()));
                        return written;
                    }
                }
            }
        };
        db.index.write().set_parent(id, now);
        written
    })
}

pub(super) fn set_metadata(db: &ImageDb, id: &Digest, key: &str, value: &[u8]) -> Result<()> {
    change(db, |_| {
        if db.index.read().get(id).is_none() {
            return Err(Error::not_found(format!("unknown image ID {id}")));
        }
        db.backend.set_metadata(id, key, value)
    })
}
