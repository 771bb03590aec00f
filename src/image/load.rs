// SPDX-License-Identifier: MulanPSL-2.0
//! Reading the whole directory.
//!
//! A start never deletes out of doubt: what is doubtful is put aside, what is incomplete stays where it is, and both
//! are reported. Only what is marked as unfinished by its own name is removed.

use std::thread;

use crate::error::{During, Error, Result};
use crate::id::{self, ImageId};
use crate::layer::Problem;
use crate::persist;
use crate::reference;
use crate::sys::fs::{Entry, FileKind, SmallFiles};
use crate::time::Timestamp;

use super::convert::{self, Converted};
use super::examine::{Content, Found, examine, examine_quickly};
use super::files::{FILE_MODE, RECORD};
use super::index::{Image, Index};
use super::summary::manifest_digest;
use super::{ImageStore, names, remote};

/// Fewer directories than this are not worth a thread.
const WORTH_A_THREAD: usize = 512;
/// Reading is bound by the kernel's directory cache; more threads do not help.
const MAX_THREADS: usize = 8;

/// What a start found.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) index: Index,
    pub(super) problems: Vec<Problem>,
}

/// Reads the directory. With `heal` (the store's lock is held) it also puts aside what is doubtful, converts images of
/// schema 1, removes left-over temporary files and stores names whose host was stripped.
pub(super) fn load(store: &ImageStore, heal: bool) -> Result<Loaded> {
    let mut problems = Vec::new();
    let ids = image_ids(store, heal, &mut problems)
        .during(|| format!("list image store {}", store.dir().display()))?;
    let mut found = Vec::with_capacity(ids.len());
    let mut schema1 = Vec::new();
    for (id, content) in examine_all(store, &ids, heal)? {
        match content {
            Content::Image(image) => found.push(image),
            Content::Schema1(image, manifest) => schema1.push((image, manifest)),
            Content::Incomplete(image, _) if is_listed(store, &id) => found.push(image),
            Content::Incomplete(_, reason) => problems.push(problem(&id, reason, false)),
            Content::Nothing(reason) => problems.push(problem(&id, reason, false)),
            Content::Doubtful(reason) => problems.push(put_aside(store, &id, reason, heal)),
        }
    }
    for (image, manifest) in schema1 {
        match convert::convert(store, &image, &manifest, &found, heal) {
            Ok(Converted::New(image)) => found.push(image),
            Ok(Converted::Before) => {}
            Err(error) => {
                let reason = format!("its manifest is of schema 1 and was not converted: {}", error.report());
                problems.push(problem(&image.id, reason, false));
                if is_listed(store, &image.id) {
                    found.push(image);
                }
            }
        }
    }
    found.retain(|image| match remote::missing_layers(store, image) {
        Some(reason) => {
            problems.push(problem(&image.id, reason, false));
            false
        }
        None => true,
    });
    {
        let hidden = store.hidden.read();
        found.retain(|image| match hidden.get(&image.id) {
            Some(reason) => {
                problems.push(problem(&image.id, reason.as_str(), false));
                false
            }
            None => true,
        });
    }
    let index = index(store, found, heal, &mut problems);
    let known = store.problems();
    for problem in problems.iter().filter(|problem| !known.contains(problem)) {
        log::warn!("image store {}: {}: {}", store.dir().display(), problem.subject, problem.reason);
    }
    Ok(Loaded { index, problems })
}

/// Whether an incomplete image is listed: if the store was opened so, or if it is listed already, for then somebody is
/// just making it.
fn is_listed(store: &ImageStore, id: &ImageId) -> bool {
    store.list_incomplete || store.index.read().get(id.as_str()).is_some()
}

fn problem(id: &ImageId, reason: impl Into<String>, quarantined: bool) -> Problem {
    Problem { subject: format!("image {id}"), reason: reason.into(), quarantined }
}

fn put_aside(store: &ImageStore, id: &ImageId, reason: String, heal: bool) -> Problem {
    if !heal {
        return problem(id, reason, false);
    }
    match store.state.quarantine(&store.root, id.as_str(), &reason) {
        Ok(_) => problem(id, reason, true),
        Err(error) => problem(id, format!("{reason}; it could not be put aside: {}", error.report()), false),
    }
}

/// Directories that may be images, in order of their names. What else has such a name is reported.
fn image_ids(store: &ImageStore, heal: bool, problems: &mut Vec<Problem>) -> Result<Vec<ImageId>> {
    let mut ids = Vec::new();
    for Entry { name, kind } in store.root.entries()? {
        let shown = name.to_string_lossy().into_owned();
        let mut report = |reason: &str| {
            problems.push(Problem {
                subject: format!("entry {shown}"),
                reason: reason.to_owned(),
                quarantined: false,
            });
        };
        match (name.to_str(), kind) {
            (Some(text), FileKind::Dir) if id::is_canonical(text) => ids.push(ImageId::new(text)?),
            (Some(text), _) if id::is_canonical(text) => {
                report("it has the name of an image but is no directory")
            }
            (Some(text), FileKind::Dir) if heal && convert::is_unfinished(text) => {
                convert::remove_unfinished(store, text);
            }
            (Some(text), FileKind::Dir) if text.starts_with('.') => {}
            (_, FileKind::Dir) => report("its name is no image id, it was left alone"),
            _ => {}
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

fn examine_all(store: &ImageStore, ids: &[ImageId], sweep: bool) -> Result<Vec<(ImageId, Content)>> {
    let examine_some = |ids: &[ImageId]| -> Result<Vec<(ImageId, Content)>> {
        let mut files = SmallFiles::default();
        let mut examine_one = |id| match examine_quickly(&store.root, id, &mut files) {
            Some(image) => Ok(Content::Image(image)),
            None => examine(&store.root, id, sweep),
        };
        ids.iter().map(|id| Ok((id.clone(), examine_one(id)?))).collect()
    };
    let cores = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let threads = cores.min(ids.len() / WORTH_A_THREAD).max(1);
    let mut parts = ids.chunks(ids.len().div_ceil(threads).max(1));
    let Some(mine) = parts.next() else { return Ok(Vec::new()) };
    thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|part| match thread::Builder::new().spawn_scoped(scope, move || examine_some(part)) {
                Ok(handle) => (part, Some(handle)),
                Err(error) => {
                    log::debug!("read images without another thread: {error}");
                    (part, None)
                }
            })
            .collect();
        let mut all = examine_some(mine)?;
        for (part, handle) in others {
            let lost = || Error::corrupt("read images: a thread panicked");
            let content = match handle {
                Some(handle) => handle.join().map_err(|_| lost())??,
                None => examine_some(part)?,
            };
            all.extend(content);
        }
        Ok(all)
    })
}

/// Puts the images in order: of two that claim one name, the one loaded later loses it.
#[allow(clippy::vec_box, reason = "sorted and moved often: moving the images themselves costs more")]
fn index(store: &ImageStore, found: Vec<Box<Found>>, heal: bool, problems: &mut Vec<Problem>) -> Index {
    let mut found: Vec<(Timestamp, Box<Found>)> =
        found.into_iter().map(|image| (loaded_time(&image), image)).collect();
    found.sort_by(|(a_time, a), (b_time, b)| (a_time, &a.id).cmp(&(b_time, &b.id)));
    let host = store.default_host.as_deref();
    let mut index = Index::with_capacity(found.len());
    index.fill(found, |index, (_, image)| {
        let Found { id, mut record, config } = *image;
        let before = record.names.clone();
        let stripped = tidy_names(&mut record.names, host);
        record.names.retain(|name| match index.holder(name) {
            None => true,
            Some(holder) => {
                let holder = &holder.id;
                let reason = format!("name {name} belongs to image {holder}, which was loaded earlier");
                problems.push(problem(&id, reason, false));
                false
            }
        });
        let mut unsaved = record.names != before;
        if record.digest.is_none() {
            record.digest = manifest_digest(&record).map(str::to_owned);
            unsaved |= record.digest.is_some();
        }
        if stripped && heal {
            match save_stripped(store, &id, &record) {
                Ok(()) => unsaved = false,
                Err(error) => problems.push(problem(&id, error.report(), false)),
            }
        }
        Image { unsaved, ..Image::new(id, record, config, host) }
    });
    index
}

fn loaded_time(image: &Found) -> Timestamp {
    let loaded = image.record.loaded.as_deref().and_then(|text| Timestamp::parse(text).ok());
    loaded.unwrap_or_default()
}

/// Sorts the names and takes the default host off; whether it did.
pub(super) fn tidy_names(names: &mut Vec<String>, host: Option<&str>) -> bool {
    let mut stripped = false;
    for name in names.iter_mut() {
        let short = reference::strip_host(name, host);
        if short.len() < name.len() {
            *name = short.to_owned();
            stripped = true;
        }
    }
    *names = names::sorted(std::mem::take(names));
    stripped
}

pub(super) fn save_stripped(
    store: &ImageStore,
    id: &ImageId,
    record: &crate::record::image::ImageRecord,
) -> Result<()> {
    let doing = || "store its names without the default host".to_owned();
    let dir = store.root.open_dir(id.as_str()).during(doing)?;
    persist::replace_file(&dir, RECORD, &record.to_json()?, FILE_MODE, store.durability).during(doing)
}
