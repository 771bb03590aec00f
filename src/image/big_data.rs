// SPDX-License-Identifier: MulanPSL-2.0
//! Big data: a file each, and its size and digest in the record.

use crate::digest::Digest;
use crate::error::{During, Result};
use crate::json::Map;
use crate::persist::{self, Ownership};
use crate::record::image::ImageRecord;

use super::ImageStore;
use super::change::change;
use super::files::{self, FILE_MODE};
use super::index::{Config, Image};

pub(super) fn set(store: &ImageStore, image: &str, key: &str, data: &[u8]) -> Result<()> {
    let name = files::file_name(key)?;
    change(store, |change| {
        let image = change.find(image)?;
        let id = image.id.as_str();
        let doing = || format!("store big data {key:?} of image {id}");
        files::check_size(id, key, data).during(doing)?;
        let dir = change.dir(&image.id).during(doing)?;
        // Data first: a record never promises what is not there.
        persist::replace_file(&dir, &name, data, FILE_MODE, store.durability).during(doing)?;
        let mut record = ImageRecord::clone(&image.record);
        note(&mut record, key, data);
        let config = if key == files::config_key(id) { Config::read(data) } else { image.config.clone() };
        let new = Image::new(image.id.clone(), record, config, store.default_host.as_deref());
        change.save(&image, new).during(doing)
    })
}

/// Writes size and digest of big data into a record, its key at the end of the list if it is new.
pub(super) fn note(record: &mut ImageRecord, key: &str, data: &[u8]) {
    let size = i64::try_from(data.len()).unwrap_or(i64::MAX);
    put(record.big_data_sizes.get_or_insert_default(), key, size);
    put(record.big_data_digests.get_or_insert_default(), key, Digest::of(data).to_string());
    if !record.big_data_names.iter().any(|name| name == key) {
        record.big_data_names.push(key.to_owned());
    }
}

fn put<T>(map: &mut Map<T>, key: &str, value: T) {
    match map.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => map.push((key.to_owned(), value)),
    }
}

/// The recorded value of a key.
pub(super) fn recorded<'a, T>(map: Option<&'a Map<T>>, key: &str) -> Option<&'a T> {
    map?.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

pub(super) fn size(store: &ImageStore, image: &str, key: &str) -> Result<i64> {
    let record = store.get(image)?;
    match recorded(record.big_data_sizes.as_ref(), key) {
        Some(size) => Ok(*size),
        None => Ok(i64::try_from(record_file(store, image, key)?.len()).unwrap_or(i64::MAX)),
    }
}

pub(super) fn digest(store: &ImageStore, image: &str, key: &str) -> Result<String> {
    let record = store.get(image)?;
    match recorded(record.big_data_digests.as_ref(), key) {
        Some(digest) => Ok(digest.clone()),
        None => Ok(Digest::of(&record_file(store, image, key)?).to_string()),
    }
}

/// Reads big data that are there but not recorded, and records them, as the reference does. That they cannot be
/// recorded is no reason not to answer.
fn record_file(store: &ImageStore, image: &str, key: &str) -> Result<Vec<u8>> {
    let content = store.big_data(image, key)?;
    if store.ownership() == Ownership::ReadOnly {
        return Ok(content);
    }
    let recorded = change(store, |change| {
        let image = change.find(image)?;
        // Read again, for it may have been replaced meanwhile.
        let content = files::read_big_data(&store.root, image.id.as_str(), key)?;
        let mut record = ImageRecord::clone(&image.record);
        note(&mut record, key, &content);
        change.save(&image, image.with_record(record, store.default_host.as_deref()))
    });
    if let Err(error) = recorded {
        log::warn!("record big data {key:?} of image {image}: {}", error.report());
    }
    Ok(content)
}
