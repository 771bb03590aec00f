// SPDX-License-Identifier: MulanPSL-2.0
//! An image directory that other hosts use as well, over layers that they share.
//!
//! Other hosts' changes are seen by the counter in `generation`, and where iSulad made them, which knows no counter, by the
//! directories themselves: one look at each image's directory and record tells whether anything changed. Then the whole
//! directory is read again, as for any change of another process.
//!
//! An image is listed when its whole chain of layers is, so that nobody gets an image whose layers are still on their way.
//! Nothing is healed here: what looks doubtful may be another host at work, so it is reported and left where it is. For
//! the same reason images of schema 1 are not converted.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ImageId, is_canonical};
use crate::layer::Problem;
use crate::persist::Ownership;
use crate::sys::fs::{FileKind, Stat};

use super::examine::Found;
use super::{ImageStore, ImageStoreOptions, files, open};

/// What an image store asks of layers that other hosts share.
pub trait LayerChains: Send + Sync {
    /// Whether a layer and all that it stands on can be used.
    fn is_whole(&self, top: &str) -> bool;
}

/// What a look at a shared image directory changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageChanges {
    /// Images that are listed now.
    pub added: Vec<ImageId>,
    /// Images that are not any more.
    pub removed: Vec<ImageId>,
    /// What is not listed, and why.
    pub problems: Vec<Problem>,
}

/// How one entry of the directory looked: name, inode and time of change of the directory and of the record.
pub(super) type Look = (String, [Option<(u64, i64, u32, u64)>; 2]);

pub(super) fn open_shared(options: ImageStoreOptions, chains: Arc<dyn LayerChains>) -> Result<ImageStore> {
    let shared = ImageStoreOptions { ownership: Ownership::Shared, ..options.clone() };
    match open::open(shared, Some(chains.clone())) {
        Err(error) if is_unwritable(&error) => {
            log::warn!("{}: images of other hosts can be used, but none be made here", error.report());
            open::open(ImageStoreOptions { ownership: Ownership::ReadOnly, ..options }, Some(chains))
        }
        opened => opened,
    }
}

/// The directory is mounted for reading, or knows no locks.
fn is_unwritable(error: &Error) -> bool {
    matches!(error.errno(), libc::EROFS | libc::EACCES | libc::EPERM | libc::ENOLCK | libc::EOPNOTSUPP)
}

/// Why an image is not listed; `None`: it is.
pub(super) fn missing_layers(store: &ImageStore, image: &Found) -> Option<&'static str> {
    let chains = store.chains.as_ref()?;
    let top = image.record.layer.as_deref()?;
    (!chains.is_whole(top)).then_some("not all of its layers are here")
}

pub(super) fn refresh(store: &ImageStore, layers_changed: bool) -> Result<ImageChanges> {
    let mut last = store.last_look.lock();
    let look = look(store)?;
    if !layers_changed && *last == look {
        open::refresh(store)?;
        return Ok(ImageChanges { problems: store.problems(), ..ImageChanges::default() });
    }
    let ids = || store.index.read().list().map(|image| image.id.clone()).collect::<BTreeSet<ImageId>>();
    let before = ids();
    open::reload_all(store)?;
    let after = ids();
    *last = look;
    Ok(ImageChanges {
        added: after.difference(&before).cloned().collect(),
        removed: before.difference(&after).cloned().collect(),
        problems: store.problems(),
    })
}

fn look(store: &ImageStore) -> Result<Vec<Look>> {
    let seen = |stat: Option<Stat>| stat.map(|stat| (stat.inode, stat.mtime, stat.mtime_nanos, stat.size));
    let mut looks = Vec::new();
    for entry in store.root.entries()? {
        let name = entry.name.to_string_lossy().into_owned();
        if entry.kind != FileKind::Dir || !is_canonical(&name) {
            continue;
        }
        // One that vanishes meanwhile, or cannot be looked at, is another look than before; that is enough.
        let dir = store.root.stat(&name).ok().flatten();
        let record = store.root.open_dir(&name).and_then(|dir| dir.stat(files::RECORD)).ok().flatten();
        looks.push((name, [seen(dir), seen(record)]));
    }
    looks.sort();
    Ok(looks)
}

pub(super) fn append(store: &ImageStore, id: &ImageId) -> Result<bool> {
    let is_listed = || store.index.read().get(id.as_str()).is_some();
    if is_listed() {
        return Ok(false);
    }
    open::reload_all(store)?;
    if is_listed() {
        return Ok(true);
    }
    let subject = format!("image {id}");
    let problem = store.problems().into_iter().find(|problem| problem.subject == subject);
    Err(match problem {
        Some(problem) => Error::corrupt(format!("image {id}: {}", problem.reason)),
        None => Error::not_found(format!("image {id}: there is no such directory")),
    })
}

pub(super) fn top_layer_on_disk(store: &ImageStore, id: &ImageId) -> Result<Option<String>> {
    let record = store.root.open_dir(id.as_str()).and_then(|dir| files::read_record(&dir));
    match record {
        Ok(record) => Ok(record.layer),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::not_found(format!("image {id}: there is no record")))
        }
        Err(error) => Err(error.context(format!("read the record of image {id}"))),
    }
}
