// SPDX-License-Identifier: MulanPSL-2.0
//! Images that could be loaded, but cannot be used: another store lacks what they stand on. They are not listed and
//! nothing of them is touched, for what is missing may come back.

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::record::image::ImageRecord;

use super::change::change;
use super::examine::{Content, Found, examine};
use super::index::Image;
use super::summary::manifest_digest;
use super::{ImageStore, files, load, open};

pub(super) fn hide(store: &ImageStore, images: Vec<(ImageId, String)>) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    let ids: Vec<ImageId> = images.iter().map(|(id, _)| id.clone()).collect();
    store.hidden.write().extend(images);
    // Anew, so that a name that two images claim belongs to the one that is listed.
    let loaded = open::load(store);
    if loaded.is_err() {
        // At least they are not listed.
        let mut index = store.index.write();
        ids.iter().for_each(|id| index.remove(id.as_str()));
    }
    loaded
}

pub(super) fn hidden(store: &ImageStore, id: &ImageId) -> Result<Option<ImageRecord>> {
    if !store.hidden.read().contains_key(id) {
        return Ok(None);
    }
    let dir = store.root.open_dir(id.as_str());
    match dir.and_then(|dir| files::read_record(&dir)) {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.context(format!("look at image {id}, which is not listed"))),
    }
}

/// An image of this id is about to be listed.
pub(super) fn forget(store: &ImageStore, id: &ImageId) {
    if store.hidden.write().remove(id).is_some() {
        let subject = format!("image {id}");
        store.problems.write().retain(|problem| problem.subject != subject);
    }
}

pub(super) fn reveal(store: &ImageStore, id: &ImageId) -> Result<bool> {
    if !store.hidden.read().contains_key(id) {
        return Ok(false);
    }
    change(store, |_| {
        let doing = || format!("list image {id} again");
        let Content::Image(found) = examine(&store.root, id, false).during(doing)? else {
            return Err(Error::corrupt("it is not whole any more").context(doing()));
        };
        let Found { id, mut record, config } = *found;
        let before = record.names.clone();
        load::tidy_names(&mut record.names, store.default_host.as_deref());
        {
            let index = store.index.read();
            record.names.retain(|name| index.holder(name).is_none());
        }
        if record.names != before {
            load::save_stripped(store, &id, &record).during(doing)?;
        }
        let mut unsaved = false;
        if record.digest.is_none()
            && let Some(digest) = manifest_digest(&record).map(str::to_owned)
        {
            record.digest = Some(digest);
            unsaved = true;
        }
        forget(store, &id);
        let image = Image::new(id, record, config, store.default_host.as_deref());
        store.index.write().put(Image { unsaved, ..image });
        Ok(true)
    })
}
