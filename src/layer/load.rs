// SPDX-License-Identifier: MulanPSL-2.0
//! Loading of all records when the store is opened.
//!
//! | found | done |
//! |---|---|
//! | a record with the incomplete mark | removed with its data, unless complete layers stand on it: left, reported |
//! | a record directory without anything in it, and no data | removed: a creation got no further |
//! | a record that is absent where there are data, does not parse, contradicts its place or itself | quarantined; its data stay, for others may stand on them |
//! | a record that the system fails to read | left, reported: it may be readable tomorrow |
//! | an image layer without data | left, not listed, reported: the disk with the data may be missing |
//! | an image layer whose tar-split is missing or too short to be one | listed, reported, suspect: making it again heals it |
//! | a layer whose parent has no record, a container's layer without data | listed, reported |
//! | layers that stand on each other in a circle, and what stands on them | listed, reported |
//! | a name that two layers claim | the later layer loses it in memory; reported |
//! | any name that is not 64 lower-case hex digits, or not a directory | left, reported |
//! | data without a record | left, reported |
//!
//! Content is not looked at: links and lists of lowers are checked, and repaired, when a layer is used.
//!
//! Two passes over the directories and five system calls a layer, in as many threads as pay.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::driver::GraphDriver;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{LayerId, is_canonical};
use crate::persist::SHARED;
use crate::record::layer::LayerRecord;
use crate::sys::fs::{Dir, FileKind, SmallFiles};

use super::Problem;
use super::create::is_blank;
use super::disk::{Disk, RECORD, tar_split_name};
use super::entry::Entry;
use super::remote;

/// More threads than this wait for each other in the kernel.
const MOST_THREADS: usize = 4;
/// Fewer records than this for each thread are not worth one.
const LEAST_SHARE: usize = 512;
/// Length of a gzip stream of nothing.
const SHORTEST_GZIP: u64 = 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Layers to list, in order of creation.
    pub(super) entries: Vec<Arc<Entry>>,
    /// Layers to remove: they carry the incomplete mark, or are blank. Those that stand on others come first.
    pub(super) unfinished: Vec<LayerId>,
    /// Record directories with nothing in them; judged at the end.
    blank: Vec<LayerId>,
    /// Record directories to put aside.
    pub(super) doubtful: Vec<Doubt>,
    /// What is only reported.
    pub(super) problems: Vec<Problem>,
    /// All layers that have a record directory, listed or not.
    pub(super) recorded: Vec<LayerId>,
}

/// A record directory that contradicts itself.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) name: String,
    pub(super) reason: String,
}

#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: LayerId,
    pub(super) parent: Option<LayerId>,
    pub(super) record: LayerRecord,
    /// What is wrong with its tar-split stream, as far as its name and length tell.
    pub(super) damage: Option<&'static str>,
}

/// What a record directory was read as.
pub(super) enum Reading {
    Layer(Box<Found>),
    Blank(LayerId),
    Doubtful(Doubt),
    Unreadable(Problem),
}

pub(super) fn problem(id: impl std::fmt::Display, reason: impl Into<String>) -> Problem {
    Problem { subject: format!("layer {id}"), reason: reason.into(), quarantined: false }
}

/// Reads all records and judges them; changes nothing.
pub(super) fn load(disk: &Disk, driver: &dyn GraphDriver) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let ids = record_ids(disk, &mut loaded)?;
    let mut complete = Vec::with_capacity(ids.len());
    let mut incomplete = Vec::new();
    for reading in read_all(disk, &ids)? {
        match remote::left_alone(disk, reading) {
            Reading::Layer(found) if found.record.incomplete => incomplete.push(found),
            Reading::Layer(found) => complete.push(found),
            Reading::Blank(id) => loaded.blank.push(id),
            Reading::Doubtful(doubt) => loaded.doubtful.push(doubt),
            Reading::Unreadable(problem) => loaded.problems.push(problem),
        }
    }
    judge_incomplete(incomplete, &complete, &mut loaded);
    let data = judge_data(driver, &ids, &mut complete, &mut loaded)?;
    judge_blank(&data, &mut loaded);
    loaded.recorded = ids;
    complete.sort_by(|a, b| (&a.record.created, &a.id).cmp(&(&b.record.created, &b.id)));
    list(complete, &mut loaded);
    Ok(loaded)
}

fn record_ids(disk: &Disk, loaded: &mut Loaded) -> Result<Vec<LayerId>> {
    let entries = disk.layers().entries().during(|| "list layer records")?;
    let mut ids = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = entry.name.to_string_lossy();
        let reason = match entry.kind {
            FileKind::Dir if is_canonical(&name) => {
                ids.push(LayerId::new(&name)?);
                continue;
            }
            FileKind::Dir if disk.shared().is_some() && name == SHARED => continue,
            FileKind::Dir => "its name is not a layer id of 64 lower-case hex digits",
            FileKind::Symlink if is_canonical(&name) && disk.is_shared(&name) => {
                ids.push(LayerId::new(&name)?);
                continue;
            }
            FileKind::Symlink => "it is a symbolic link; layers shared from elsewhere are not loaded",
            FileKind::File | FileKind::Other => "it is not a directory",
        };
        let subject = format!("{}", disk.layers().path().join(&entry.name).display());
        loaded.problems.push(Problem { subject, reason: reason.to_owned(), quarantined: false });
    }
    Ok(ids)
}

fn read_all(disk: &Disk, ids: &[LayerId]) -> Result<Vec<Reading>> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = available.min(MOST_THREADS).min(ids.len() / LEAST_SHARE).max(1);
    let read = |ids: &[LayerId]| {
        let mut files = SmallFiles::default();
        let mut read = |id| match read_quickly(disk, id, &mut files) {
            Some(found) => Ok(Reading::Layer(found)),
            None => read_one(disk, id),
        };
        ids.iter().map(&mut read).collect::<Result<Vec<_>>>()
    };
    if threads == 1 {
        return read(ids);
    }
    let parts: Vec<Result<Vec<Reading>>> = std::thread::scope(|scope| {
        let read = &read;
        let shares = ids.chunks(ids.len().div_ceil(threads));
        let readers: Vec<_> = shares.map(|share| scope.spawn(move || read(share))).collect();
        let panicked = |_| Err(Error::corrupt("read layer records: a reader panicked"));
        readers.into_iter().map(|reader| reader.join().unwrap_or_else(panicked)).collect()
    });
    let mut all = Vec::with_capacity(ids.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// A layer with which all is well; of anything else [`read_one`] has to tell.
fn read_quickly(disk: &Disk, id: &LayerId, files: &mut SmallFiles) -> Option<Box<Found>> {
    let record = LayerRecord::parse(files.read(disk.layers(), id.as_str(), RECORD)?).ok()?;
    let parent = check(id, &record).ok()?;
    let is_whole = |files: &mut SmallFiles| {
        files.size(disk.layers(), id.as_str(), &tar_split_name(id)) >= Some(SHORTEST_GZIP)
    };
    if record.diff_digest.is_some() && !is_whole(files) {
        return None;
    }
    Some(Box::new(Found { id: id.clone(), parent, record, damage: None }))
}

pub(super) fn read_one(disk: &Disk, id: &LayerId) -> Result<Reading> {
    let dir = match disk.open_record_dir(id) {
        Ok(dir) => dir,
        Err(error) => return unreadable(id, error),
    };
    let record = match Disk::read_record(&dir) {
        Ok(record) => record,
        Err(error) if error.kind() == ErrorKind::NotFound && is_blank(&dir) => {
            return Ok(Reading::Blank(id.clone()));
        }
        Err(error) if matches!(error.kind(), ErrorKind::Os(_)) => return unreadable(id, error),
        Err(error) => return Ok(doubtful(id, error.report())),
    };
    let parent = match check(id, &record) {
        Ok(parent) => parent,
        Err(reason) => return Ok(doubtful(id, reason)),
    };
    // Whether there is one matters for image layers only.
    let damage = if record.diff_digest.is_some() { tar_split_damage(&dir, id) } else { None };
    Ok(Reading::Layer(Box::new(Found { id: id.clone(), parent, record, damage })))
}

/// Reading the stream would make a start slow; a check does.
fn tar_split_damage(dir: &Dir, id: &LayerId) -> Option<&'static str> {
    match dir.stat(tar_split_name(id)) {
        Ok(Some(stat)) if stat.kind != FileKind::File => Some("its tar-split stream is no file"),
        Ok(Some(stat)) if stat.size == 0 => Some("its tar-split stream is empty"),
        Ok(Some(stat)) if stat.size < SHORTEST_GZIP => Some("its tar-split stream is cut off"),
        Ok(Some(_)) => None,
        _ => Some("it has no tar-split stream"),
    }
}

fn doubtful(id: &LayerId, reason: String) -> Reading {
    Reading::Doubtful(Doubt { name: id.to_string(), reason })
}

/// Being out of descriptors or memory says nothing of the record, and going on would hide layers that are whole.
fn unreadable(id: &LayerId, error: Error) -> Result<Reading> {
    match error.kind() {
        ErrorKind::Os(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR) => {
            Err(error.context(format!("read record of layer {id}")))
        }
        _ => Ok(Reading::Unreadable(problem(id, error.report()))),
    }
}

/// Whether a record fits its place; gives the typed parent.
pub(super) fn check(id: &LayerId, record: &LayerRecord) -> Result<Option<LayerId>, String> {
    match &record.id {
        Some(text) if text == id.as_str() => {}
        Some(text) => return Err(format!("its record is that of layer {text:?}")),
        None => return Err("its record has no id".to_owned()),
    }
    match &record.parent {
        None => Ok(None),
        Some(parent) if parent == id.as_str() => {
            Err("its record names the layer as its own parent".to_owned())
        }
        Some(parent) => LayerId::new(parent).map(Some).map_err(|error| error.report()),
    }
}

/// What is unfinished goes, children before parents, but never from under a complete layer.
#[allow(clippy::vec_box, reason = "sorted and moved often: moving the records themselves costs more")]
fn judge_incomplete(incomplete: Vec<Box<Found>>, complete: &[Box<Found>], loaded: &mut Loaded) {
    if incomplete.is_empty() {
        return;
    }
    let mut parents: HashSet<LayerId> = complete.iter().filter_map(|found| found.parent.clone()).collect();
    let (mut kept, mut removed) = (Vec::new(), incomplete);
    loop {
        let (used, unused): (Vec<_>, Vec<_>) =
            removed.into_iter().partition(|found| parents.contains(&found.id));
        removed = unused;
        if used.is_empty() {
            break;
        }
        // What a layer stands on that is kept is kept, too.
        parents.extend(used.iter().filter_map(|found| found.parent.clone()));
        kept.extend(used);
    }
    for found in kept {
        let reason = "its record says that it is incomplete, but complete layers stand on it";
        loaded.problems.push(problem(&found.id, reason));
    }
    let parent_of: HashMap<LayerId, Option<LayerId>> =
        removed.into_iter().map(|found| (found.id.clone(), found.parent.clone())).collect();
    let depth = |id: &LayerId| {
        let mut depth = 0;
        let mut next = Some(id);
        while let Some(id) = next
            && depth <= parent_of.len()
        {
            next = parent_of.get(id).and_then(Option::as_ref);
            depth += 1;
        }
        depth
    };
    let mut removed: Vec<(usize, LayerId)> = parent_of.keys().map(|id| (depth(id), id.clone())).collect();
    removed.sort_by(|a, b| b.cmp(a));
    loaded.unfinished.extend(removed.into_iter().map(|(_, id)| id));
}

/// Compares records with what the driver has; which of the recorded layers it has data of.
#[allow(clippy::vec_box, reason = "sorted and moved often: moving the records themselves costs more")]
fn judge_data<'a>(
    driver: &dyn GraphDriver,
    ids: &'a [LayerId],
    complete: &mut Vec<Box<Found>>,
    loaded: &mut Loaded,
) -> Result<HashMap<&'a str, bool>> {
    let mut data: HashMap<&str, bool> = ids.iter().map(|id| (id.as_str(), false)).collect();
    for id in driver.layers().during(|| "list the driver's layers")? {
        match data.get_mut(id.as_str()) {
            Some(there) => *there = true,
            None => {
                loaded.problems.push(problem(&id, "the driver has data of it, but there is no record"));
            }
        }
    }
    complete.retain(|found| {
        let there = has_data(&data, &found.id);
        let is_image = found.record.diff_digest.is_some();
        if !there && is_image {
            loaded.problems.push(problem(&found.id, "its data are missing"));
        } else if !there {
            loaded
                .problems
                .push(problem(&found.id, "its data are missing; it is listed, but cannot be mounted"));
        } else if let Some(damage) = found.damage {
            let reason = format!("{damage}: it can be neither checked nor exported");
            loaded.problems.push(problem(&found.id, reason));
        }
        there || !is_image
    });
    Ok(data)
}

fn has_data(data: &HashMap<&str, bool>, id: &LayerId) -> bool {
    data.get(id.as_str()).copied().unwrap_or(false)
}

/// A creation makes data only after the record, so data without a record are those of a layer whose record was lost.
fn judge_blank(data: &HashMap<&str, bool>, loaded: &mut Loaded) {
    for id in std::mem::take(&mut loaded.blank) {
        if has_data(data, &id) {
            let reason = "its record is missing".to_owned();
            loaded.doubtful.push(Doubt { name: id.to_string(), reason });
        } else {
            loaded.unfinished.push(id);
        }
    }
}

/// What a layer stands on: its place among those that are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    Listed(usize),
    Missing,
}

fn all_below(complete: &[Box<Found>]) -> Vec<Below> {
    let places: HashMap<&LayerId, usize> = complete.iter().map(|found| &found.id).zip(0..).collect();
    let below = |parent: &Option<LayerId>| match parent {
        None => Below::Nothing,
        Some(parent) => places.get(parent).map_or(Below::Missing, |place| Below::Listed(*place)),
    };
    complete.iter().map(|found| below(&found.parent)).collect()
}

/// Places of layers whose chain of parents is a circle or leads into one.
fn endless(below: &[Below]) -> Vec<usize> {
    let mut ends = vec![false; below.len()];
    let mut above: Vec<(usize, Below)> = (0..).zip(below.iter().copied()).collect();
    // Parents mostly come before their children, so this is one pass, or a few.
    loop {
        let before = above.len();
        above.retain(|(place, below)| {
            let good = match below {
                Below::Nothing | Below::Missing => true,
                Below::Listed(parent) => ends.get(*parent).copied().unwrap_or(true),
            };
            if let Some(end) = ends.get_mut(*place) {
                *end = good;
            }
            !good
        });
        if above.is_empty() || above.len() == before {
            return above.into_iter().map(|(place, _)| place).collect();
        }
    }
}

#[allow(clippy::vec_box, reason = "sorted and moved often: moving the records themselves costs more")]
fn list(complete: Vec<Box<Found>>, loaded: &mut Loaded) {
    let below = all_below(&complete);
    for found in endless(&below).into_iter().filter_map(|place| complete.get(place)) {
        let reason = "its parents have no end: one of them stands on itself";
        loaded.problems.push(problem(&found.id, reason));
    }
    let mut owners: HashMap<String, LayerId> = HashMap::new();
    loaded.entries.reserve(complete.len());
    for ((sequence, found), below) in (0..).zip(complete).zip(below) {
        let Found { id, parent, record, damage } = *found;
        if let Some(parent) = parent.as_ref().filter(|_| below == Below::Missing) {
            loaded.problems.push(problem(&id, format!("its parent {parent} is not in the store")));
        }
        let mut names = Vec::with_capacity(record.names.len());
        for name in &record.names {
            match owners.get(name) {
                Some(owner) if *owner != id => {
                    let reason = format!("its name {name:?} belongs to layer {owner}, which is older");
                    loaded.problems.push(problem(&id, reason));
                }
                Some(_) => {}
                None => {
                    owners.insert(name.clone(), id.clone());
                    names.push(name.clone());
                }
            }
        }
        let entry = Entry::new(id, parent, names, record, sequence);
        entry.set_suspect(damage.is_some());
        loaded.entries.push(Arc::new(entry));
    }
}
