// SPDX-License-Identifier: MulanPSL-2.0
//! Images that are kept but not listed: put aside, or left where they are because they could not be loaded.
//!
//! They may come back, so whoever deletes layers has to keep theirs.

use std::path::Path;

use crate::error::Result;
use crate::id::is_canonical;
use crate::persist::is_temporary;
use crate::sys::fs::{Dir, Entry, FileKind};

use super::{ImageStore, files};

/// What is known of an image that is not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// Name of its directory: its id.
    pub id: String,
    /// Its top layer, by its record; `None` when the record cannot be read or names none.
    pub layer: Option<String>,
    /// Diff IDs of its layers, base first, by its config; empty when that cannot be read.
    pub diff_ids: Vec<String>,
}

pub(super) fn unlisted(store: &ImageStore) -> Result<Vec<Unlisted>> {
    let mut found = Vec::new();
    for entry in store.state.quarantined()? {
        found.push(look_aside(&entry.path, &entry.name).unwrap_or_else(|| unknown(&entry.name)));
    }
    // What was left in place was reported.
    if !store.problems.read().is_empty() {
        for entry in store.root.entries()? {
            let name = entry.name.to_string_lossy();
            if is_canonical(&name) && store.index.read().get(&name).is_none() {
                // A link, or a file, may stand for a directory that is elsewhere.
                match store.root.open_dir(&entry.name) {
                    Ok(dir) if is_unborn(&dir) => {}
                    Ok(dir) => found.push(look(&dir, &name)),
                    Err(_) => found.push(unknown(&name)),
                }
            }
        }
    }
    Ok(found)
}

/// The item itself may be anything, also a link, so it is opened from the directory that it lies in.
pub(super) fn look_aside(path: &Path, id: &str) -> Option<Unlisted> {
    let dir =
        Dir::open(path.parent()?).and_then(|entry| entry.open_dir(path.file_name().unwrap_or_default()));
    dir.ok().map(|dir| look(&dir, id))
}

/// Whether a directory is what a creation that ended before its record leaves, or begins with. No image can come of it, whatever
/// emptied it.
fn is_unborn(dir: &Dir) -> bool {
    let is_left_over = |entry: &Entry| entry.kind == FileKind::File && is_temporary(&entry.name);
    dir.entries().is_ok_and(|entries| entries.iter().all(is_left_over))
}

/// An image of which nothing can be read.
fn unknown(id: &str) -> Unlisted {
    Unlisted { id: id.to_owned(), layer: None, diff_ids: Vec::new() }
}

/// Whatever can be read counts; what cannot be read is why the image is not listed.
fn look(dir: &Dir, id: &str) -> Unlisted {
    let layer = files::read_record(dir).ok().and_then(|record| record.layer);
    let config = files::read_text(dir, &files::config_key(id)).ok().flatten();
    let config = config.and_then(|text| crate::spec::config::ImageConfig::parse(&text).ok());
    let diff_ids = config.map(|config| config.rootfs.diff_ids).unwrap_or_default();
    Unlisted { id: id.to_owned(), layer, diff_ids }
}
