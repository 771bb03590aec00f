// SPDX-License-Identifier: MulanPSL-2.0
//! Loading of all records when the store is opened.
//!
//! | found | done |
//! |---|---|
//! | a record that is absent, does not parse, is that of another id, has no id or no valid layer | put aside, reported |
//! | a record that the system fails to read | left, not listed, reported: it may be readable tomorrow |
//! | a layer or name that two records claim | stays with the one created first; both are listed, reported |
//! | any name that is not 64 lower-case hex digits, or not a directory | left, reported |
//! | a creation or deletion that was interrupted | in [`super::RootfsStore::unfinished`], unless the layer is another container's |
//! | temporary files | removed |

use std::sync::Arc;

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{ContainerId, is_canonical};
use crate::layer::Problem;
use crate::persist;
use crate::record::rootfs::RootfsRecord;
use crate::sys::fs::{Dir, FileKind};
use crate::time::Timestamp;

use super::RootfsStore;
use super::disk::{CREATING, MAKING, REMOVING, misfit, read_record};
use super::index::Index;

/// A creation or deletion that was interrupted.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) id: ContainerId,
    pub(super) record: Arc<RootfsRecord>,
}

/// What a start found.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) index: Index,
    pub(super) unfinished: Vec<Unfinished>,
    pub(super) problems: Vec<Problem>,
    pub(super) broken: Vec<ContainerId>,
}

/// What a directory holds.
enum Content {
    Record(Box<RootfsRecord>),
    /// Nothing but, perhaps, temporary files.
    Blank,
    /// The record is absent or does not parse: what the reference calls broken.
    Broken(String),
    /// The record parses, but does not fit.
    Misfit(String),
    Unreadable(String),
}

pub(super) fn load(store: &RootfsStore) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let heal = store.work.is_some();
    let mut records = Vec::new();
    for id in ids(store, &mut loaded.problems)? {
        match examine(&store.root, &id, heal)? {
            Content::Record(record) => records.push((id, *record)),
            Content::Blank => {
                loaded.put_aside(store, &id, "its record is missing");
                loaded.broken.push(id);
            }
            Content::Broken(reason) => {
                loaded.put_aside(store, &id, &reason);
                loaded.broken.push(id);
            }
            Content::Misfit(reason) => loaded.put_aside(store, &id, &reason),
            Content::Unreadable(reason) => loaded.report(&id, reason, false),
        }
    }
    loaded.list(records);
    if let Some(work) = &store.work {
        sweep(store, work);
        for part in [CREATING, REMOVING] {
            loaded.resume(store, work, part)?;
        }
    }
    Ok(loaded)
}

/// Directories that may be containers. What else there is, is reported.
fn ids(store: &RootfsStore, problems: &mut Vec<Problem>) -> Result<Vec<ContainerId>> {
    let mut ids = Vec::new();
    for entry in store.root.entries()? {
        let name = entry.name.to_string_lossy();
        let reason = match entry.kind {
            FileKind::Dir if is_canonical(&name) => {
                ids.push(ContainerId::new(&name)?);
                continue;
            }
            FileKind::Dir => "its name is not a container id of 64 lower-case hex digits, it was left alone",
            FileKind::Symlink => "it is a symbolic link, it was left alone",
            FileKind::File | FileKind::Other => "it is not a directory, it was left alone",
        };
        let subject = format!("{}", store.dir().join(&entry.name).display());
        problems.push(Problem { subject, reason: reason.to_owned(), quarantined: false });
    }
    ids.sort_unstable();
    Ok(ids)
}

fn examine(place: &Dir, id: &ContainerId, sweep: bool) -> Result<Content> {
    let dir = match place.open_dir(id.as_str()) {
        Ok(dir) => dir,
        Err(error) => return unreadable(id, error),
    };
    if sweep {
        persist::sweep_temporary(&dir);
    }
    match read_record(&dir) {
        Ok(record) => Ok(match misfit(id, &record) {
            None => Content::Record(Box::new(record)),
            Some(reason) => Content::Misfit(reason),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => match dir.entries() {
            Ok(entries) if entries.is_empty() => Ok(Content::Blank),
            Ok(_) => Ok(Content::Broken("its record is missing".to_owned())),
            Err(error) => unreadable(id, error),
        },
        Err(error) if matches!(error.kind(), ErrorKind::Os(_)) => unreadable(id, error),
        Err(error) => Ok(Content::Broken(error.report())),
    }
}

/// Being out of descriptors or memory says nothing of the record, and going on would hide containers that are whole.
fn unreadable(id: &ContainerId, error: Error) -> Result<Content> {
    match error.kind() {
        ErrorKind::Os(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR) => {
            Err(error.context(format!("read record of container {id}")))
        }
        _ => Ok(Content::Unreadable(error.report())),
    }
}

/// What was on its way into the store and meant nothing yet.
fn sweep(store: &RootfsStore, work: &Dir) {
    let swept = work.ensure_dir(MAKING, super::disk::DIR_MODE).and_then(|making| {
        for entry in making.entries()? {
            if let Some(discarded) = store.state.discard(&making, &entry.name.to_string_lossy())? {
                discarded.remove();
            }
        }
        Ok(())
    });
    if let Err(error) = swept {
        log::warn!("rootfs store {}: sweep interrupted creations: {}", store.dir().display(), error.report());
    }
}

impl Loaded {
    fn report(&mut self, id: &ContainerId, reason: impl Into<String>, quarantined: bool) {
        self.problems.push(Problem {
            subject: format!("container {id}"),
            reason: reason.into(),
            quarantined,
        });
    }

    fn put_aside(&mut self, store: &RootfsStore, id: &ContainerId, reason: &str) {
        self.put_aside_from(store, &store.root, id, reason);
    }

    fn put_aside_from(&mut self, store: &RootfsStore, place: &Dir, id: &ContainerId, reason: &str) {
        if store.work.is_none() {
            return self.report(id, reason, false);
        }
        match store.state.quarantine(place, id.as_str(), reason) {
            Ok(_) => self.report(id, reason, true),
            Err(error) => {
                self.report(id, format!("{reason}; it could not be put aside: {}", error.report()), false);
            }
        }
    }

    /// Puts the records in order: of two that claim one layer or name, the later one loses it.
    fn list(&mut self, records: Vec<(ContainerId, RootfsRecord)>) {
        let created = |record: &RootfsRecord| {
            let time = record.created.as_deref().and_then(|text| Timestamp::parse(text).ok());
            time.unwrap_or_default()
        };
        let mut records: Vec<_> =
            records.into_iter().map(|(id, record)| (created(&record), id, record)).collect();
        records.sort_by(|(a_time, a, _), (b_time, b, _)| (a_time, a).cmp(&(b_time, b)));
        for (_, id, mut record) in records {
            if let Some(layer) = &record.layer
                && let Some(holder) = self.index.holder_of_layer(layer)
            {
                let reason = format!("its layer {layer} belongs to container {holder}, which is older");
                self.report(&id, reason, false);
            }
            let (free, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut record.names)
                .into_iter()
                .partition(|name| self.index.holder_of_name(name).is_none());
            for name in lost {
                if let Some(holder) = self.index.holder_of_name(&name) {
                    let reason = format!("its name {name:?} belongs to container {holder}, which is older");
                    self.report(&id, reason, false);
                }
            }
            record.names = free;
            self.index.put(id, Arc::new(record));
        }
    }

    /// Finds interrupted creations or deletions in one part of the state.
    fn resume(&mut self, store: &RootfsStore, work: &Dir, part: &str) -> Result<()> {
        let place = match work.open_dir(part) {
            Ok(place) => place,
            // There was no room to make it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in place.entries().during(|| format!("list interrupted changes in {part}"))? {
            let name = entry.name.to_string_lossy();
            match ContainerId::new(&name) {
                Ok(id) if entry.kind == FileKind::Dir => self.resume_one(store, &place, id)?,
                _ => {
                    let subject = format!("{}", place.path().join(&entry.name).display());
                    let reason = "it is no record of an interrupted change, it was left alone".to_owned();
                    self.problems.push(Problem { subject, reason, quarantined: false });
                }
            }
        }
        Ok(())
    }

    fn resume_one(&mut self, store: &RootfsStore, place: &Dir, id: ContainerId) -> Result<()> {
        let record = match examine(place, &id, true)? {
            Content::Record(record) => *record,
            // The layer is touched only after the record is durable.
            Content::Blank => return store.discard_from(place, &id),
            Content::Broken(reason) | Content::Misfit(reason) => {
                let reason = format!("an interrupted change of it is not known in full: {reason}");
                self.put_aside_from(store, place, &id, &reason);
                return Ok(());
            }
            Content::Unreadable(reason) => {
                self.report(&id, format!("an interrupted change of it: {reason}"), false);
                return Ok(());
            }
        };
        let layer = record.layer.as_deref().unwrap_or_default();
        let exists = store.root.stat(id.as_str())?.is_some() || self.index.get(id.as_str()).is_some();
        if exists || self.index.is_shared(layer, &id) || self.unfinished.iter().any(|other| other.id == id) {
            let reason = "an interrupted change of it names a layer that may be another container's";
            self.put_aside_from(store, place, &id, reason);
            return Ok(());
        }
        log::info!("container {id}: its creation or deletion was interrupted");
        self.unfinished.push(Unfinished { id, record: Arc::new(record) });
        Ok(())
    }
}
