// SPDX-License-Identifier: MulanPSL-2.0
//! Names of images. Each name belongs to one image; giving it to another takes it away from the first.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::record::image::ImageRecord;

use super::change::{Change, change};
use super::index::Image;
use super::{ImageStore, no_nul};

pub(super) fn set(store: &ImageStore, image: &str, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Err(Error::invalid("set names of an image: there must be one at least"));
    }
    let names = unique(names)?;
    change(store, |change| {
        let image = change.find(image)?;
        assign(change, &image, names)
    })
}

pub(super) fn add(store: &ImageStore, image: &str, name: &str) -> Result<()> {
    no_nul("image name", name)?;
    change(store, |change| {
        let image = change.find(image)?;
        let mut names = image.record.names.clone();
        names.push(name.to_owned());
        assign(change, &image, sorted(names))
    })
}

/// Names as records hold them: sorted, each once.
pub(super) fn unique(names: &[String]) -> Result<Vec<String>> {
    names.iter().try_for_each(|name| no_nul("image name", name))?;
    Ok(sorted(names.to_vec()))
}

pub(super) fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

/// Gives `image` these names. The winner is written first: a crash leaves a name on two images, never on none.
fn assign(change: &mut Change<'_>, image: &Arc<Image>, names: Vec<String>) -> Result<()> {
    let store = change.store;
    let host = store.default_host.as_deref();
    let losers: Vec<(Arc<Image>, Image)> = losers(store, image, &names)
        .into_iter()
        .map(|loser| {
            let record = without(&loser.record, &names);
            let new = loser.with_record(record, host);
            (loser, new)
        })
        .collect();
    let winner = image.with_record(ImageRecord { names, ..ImageRecord::clone(&image.record) }, host);
    if losers.is_empty() {
        return change.save(image, winner);
    }
    let mut writes = vec![(image.as_ref(), &winner)];
    writes.extend(losers.iter().map(|(old, new)| (old.as_ref(), new)));
    change.write_or_undo(&writes)?;
    let mut index = store.index.write();
    losers.into_iter().for_each(|(_, new)| index.put(new));
    index.put(winner);
    Ok(())
}

/// Other images that hold one of the names, each once.
fn losers(store: &ImageStore, winner: &Image, names: &[String]) -> Vec<Arc<Image>> {
    let index = store.index.read();
    let mut losers: Vec<Arc<Image>> = Vec::new();
    for holder in names.iter().filter_map(|name| index.holder(name)) {
        if holder.id != winner.id && !losers.iter().any(|loser| loser.id == holder.id) {
            losers.push(Arc::clone(holder));
        }
    }
    losers
}

fn without(record: &ImageRecord, names: &[String]) -> ImageRecord {
    let mut record = record.clone();
    record.names.retain(|name| !names.contains(name));
    record
}
