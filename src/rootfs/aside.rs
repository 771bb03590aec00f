// SPDX-License-Identifier: MulanPSL-2.0
//! Putting a record aside, and taking it back.

use std::sync::Arc;

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ContainerId;
use crate::persist::Quarantined;
use crate::sys::fs::Dir;

use super::RootfsStore;
use super::disk::{misfit, read_record};

pub(super) fn quarantine(store: &RootfsStore, rootfs: &str, reason: &str) -> Result<Quarantined> {
    store.writable()?;
    let unknown = || store.lookup(rootfs).err().unwrap_or_else(|| Error::not_found("no such container"));
    let (found, _claim) = store.claim(rootfs)?.ok_or_else(unknown)?;
    let id = &found.id;
    store
        .take(id, || store.state.quarantine(&store.root, id.as_str(), reason))
        .during(|| format!("put container {id} aside"))
}

pub(super) fn restore(store: &RootfsStore, entry: &Quarantined) -> Result<()> {
    store.writable()?;
    take_back(store, entry).during(|| format!("restore container {} from quarantine", entry.name))
}

/// The directory that was put aside. What is in its place may be a link, which is never followed.
fn open_aside(entry: &Quarantined) -> Result<Dir> {
    match (entry.path.parent(), entry.path.file_name()) {
        (Some(parent), Some(name)) => Dir::open(parent)?.open_dir(name),
        _ => Err(Error::invalid(format!("{} does not name a directory", entry.path.display()))),
    }
}

pub(super) fn layer(entry: &Quarantined) -> Option<String> {
    open_aside(entry).and_then(|dir| read_record(&dir)).ok()?.layer
}

fn take_back(store: &RootfsStore, entry: &Quarantined) -> Result<()> {
    let id = ContainerId::new(&entry.name)?;
    let mut record =
        open_aside(entry).and_then(|dir| read_record(&dir)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.with_kind(ErrorKind::Corrupt),
            _ => error,
        })?;
    if let Some(reason) = misfit(&id, &record) {
        return Err(Error::corrupt(reason));
    }
    let _claim = store.claims.take_all(&record)?;
    {
        let index = store.index.read();
        record.names.retain(|name| index.holder_of_name(name).is_none());
    }
    store.check_free(&id, &record)?;
    store.state.restore(entry, &store.root)?;
    store.index.write().put(id, Arc::new(record));
    Ok(())
}
