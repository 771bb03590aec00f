// SPDX-License-Identifier: MulanPSL-2.0
//! Images of schema 1 become images with a config, under a new id.
//!
//! The new directory is made whole under a name that marks it as unfinished, renamed to its id, and only then the old
//! one goes. A crash before the rename leaves something to remove, a crash after it an old directory whose conversion
//! is found to be done already; the image is never listed twice.

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::persist::{self, Discarded};
use crate::record::image::ImageRecord;
use crate::spec::schema1::{Schema1, V1Layer};
use crate::sys::fs::random_hex;
use crate::time::Timestamp;

use super::examine::Found;
use super::files::{self, DIR_MODE, FILE_MODE, RECORD};
use super::index::Config;
use super::{ImageStore, LayerLookup, MANIFEST, big_data, local_text};

/// Beginning of the name of a directory that is not whole yet.
const UNFINISHED: &str = ".converted-";
const RANDOM_LEN: usize = 16;

/// Outcome of a conversion.
pub(super) enum Converted {
    /// The image is there now.
    New(Box<Found>),
    /// It was there already: an earlier conversion had been interrupted at the very end.
    Before,
}

pub(super) fn is_unfinished(name: &str) -> bool {
    name.strip_prefix(UNFINISHED).is_some_and(|rest| {
        rest.len() == RANDOM_LEN && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

pub(super) fn remove_unfinished(store: &ImageStore, name: &str) {
    match store.state.discard(&store.root, name) {
        Ok(discarded) => discarded.into_iter().for_each(Discarded::remove),
        Err(error) => log::warn!("remove unfinished conversion {name}: {}", error.report()),
    }
}

/// Converts `image`; `found` are the images that need no conversion.
pub(super) fn convert(
    store: &ImageStore,
    image: &Found,
    manifest: &[u8],
    found: &[Box<Found>],
    heal: bool,
) -> Result<Converted> {
    let Found { id: old, record, .. } = image;
    let not_now = |why: &str| Error::new(ErrorKind::Unsupported, why);
    if !heal {
        return Err(not_now("the store is not open for changing"));
    }
    let Some(layers) = store.layers.as_deref() else {
        return Err(not_now("there is no layer store to look for its layers"));
    };
    let (config, created) = new_config(manifest, layers)?;
    let id = ImageId::from(Digest::of(config.as_bytes()));
    if found.iter().any(|image| image.id == id) {
        remove_old(store, old, &id, manifest)?;
        return Ok(Converted::Before);
    }
    let record = new_record(record, &id, created, config.as_bytes(), manifest)?;
    if store.root.stat(id.as_str())?.is_some() {
        let reason =
            format!("it was in the way of image {old} of schema 1, which has this id after its conversion");
        store.state.quarantine(&store.root, id.as_str(), &reason)?;
    }
    publish(store, &id, &record, config.as_bytes(), manifest)?;
    remove_old(store, old, &id, manifest)?;
    let config = Config::read(config.as_bytes());
    Ok(Converted::New(Box::new(Found { id, record, config })))
}

/// The text of the config, and when the image was made.
fn new_config(manifest: &[u8], layers: &dyn LayerLookup) -> Result<(String, Option<Timestamp>)> {
    let manifest = Schema1::parse(manifest)?;
    let stack = manifest.layers()?;
    let config = manifest.to_config(&stack, &diff_ids(&stack, layers))?;
    let created = config.created.as_deref().and_then(|text| Timestamp::parse(text).ok());
    let text = config.to_text();
    // What cannot be read at the next start must not be made.
    match Config::read(text.as_bytes()) {
        Config::Broken(why) => Err(Error::new(ErrorKind::InvalidData, why.as_ref())),
        _ => Ok((text, created)),
    }
}

/// Diff IDs of the layers, base first: of the candidates for a blob the one that stands on the layer below.
fn diff_ids(stack: &[V1Layer], layers: &dyn LayerLookup) -> Vec<Option<String>> {
    let mut below: Option<String> = None;
    stack
        .iter()
        .map(|layer| {
            let blob_sum = layer.blob_sum.as_deref().filter(|_| !layer.document.throwaway)?;
            let candidates = layers.by_compressed_digest(blob_sum);
            let layer = candidates.into_iter().find(|candidate| candidate.parent == below)?;
            below = Some(layer.id);
            layer.uncompressed_digest
        })
        .collect()
}

fn new_record(
    old: &ImageRecord,
    id: &ImageId,
    created: Option<Timestamp>,
    config: &[u8],
    manifest: &[u8],
) -> Result<ImageRecord> {
    let mut record = old.clone();
    record.id = Some(id.to_string());
    record.loaded = Some(local_text(Timestamp::now())?);
    if let Some(created) = created {
        record.created = Some(local_text(created)?);
    }
    big_data::note(&mut record, &files::config_key(id.as_str()), config);
    big_data::note(&mut record, MANIFEST, manifest);
    Ok(record)
}

fn publish(
    store: &ImageStore,
    id: &ImageId,
    record: &ImageRecord,
    config: &[u8],
    manifest: &[u8],
) -> Result<()> {
    let unfinished = format!("{UNFINISHED}{}", random_hex(RANDOM_LEN)?);
    let dir = store.root.create_dir(&unfinished, DIR_MODE)?;
    let config_name = files::file_name(&files::config_key(id.as_str()))?;
    let text = record.to_json()?;
    let made = [(config_name.as_str(), config), (MANIFEST, manifest), (RECORD, &text)]
        .into_iter()
        .try_for_each(|(name, content)| {
            persist::replace_file(&dir, name, content, FILE_MODE, store.durability)
        })
        .and_then(|()| store.root.rename_new(&unfinished, &store.root, id.as_str()));
    if made.is_err() {
        remove_unfinished(store, &unfinished);
    }
    made?;
    store.sync_root()
}

/// Takes the old directory away: everything in it is in the new one, or it is put aside.
fn remove_old(store: &ImageStore, old: &ImageId, new: &ImageId, manifest: &[u8]) -> Result<()> {
    let doing = || format!("remove the directory of image {old} after its conversion to {new}");
    let copied =
        store.root.open_dir(new.as_str()).and_then(|dir| files::read_text(&dir, MANIFEST)).during(doing)?;
    if copied.as_deref() == Some(manifest) {
        let discarded = store.state.discard(&store.root, old.as_str()).during(doing)?;
        discarded.into_iter().for_each(Discarded::remove);
    } else {
        let reason =
            format!("it is of schema 1 and was converted to image {new}, which has another manifest now");
        store.state.quarantine(&store.root, old.as_str(), &reason).during(doing)?;
    }
    Ok(())
}
