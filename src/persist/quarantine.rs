// SPDX-License-Identifier: MulanPSL-2.0
//! What was put aside out of doubt.
//!
//! An entry is a directory with the thing (`item`) and what is known about it (`record.json`). Putting aside makes
//! the record durable before the item is moved beside it; restoring moves the item back before the record goes. So
//! at every instant the item is either where it was or in an entry with a whole record. An entry without an item is
//! an interrupted move: it is not listed, and removed at the next start.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::state::{KEY_LEN, explain_other_mount};
use crate::persist::steps::step;
use crate::persist::{Discarded, StateDir, replace_file, sweep_temporary};
use crate::sys::fs::{Dir, Entry, FileKind, random_hex};
use crate::time::Timestamp;

/// The thing itself in its entry.
pub(crate) const ITEM: &str = "item";
const RECORD: &str = "record.json";

/// Most bytes read of a record; the reason is cut so that it fits.
const RECORD_LIMIT: u64 = 64 << 10;

/// Most characters kept of a reason.
const REASON_LIMIT: usize = 4096;

/// Something put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Name of the entry in the quarantine directory.
    pub key: String,
    /// Name it had; empty when its record cannot be read.
    pub name: String,
    /// Directory it was in, as a path for people; empty when not known.
    pub from: PathBuf,
    /// Why it was put aside.
    pub reason: String,
    /// When, as UTC text.
    pub time: String,
    /// Where it lies now.
    pub path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    from: String,
    reason: String,
    time: String,
}

impl StateDir {
    /// Moves `dir/name` into the quarantine with the reason, durably, and returns its entry. Absent: `NotFound`. In a
    /// shared store this is a change: hold its lock, for an opener removes entries that have no item yet.
    pub fn quarantine(&self, dir: &Dir, name: &str, reason: &str) -> Result<Quarantined> {
        let doing = || format!("put {} into quarantine", dir.path().join(name).display());
        let all = self.quarantine_for_change().during(doing)?;
        if dir.stat(name).during(doing)?.is_none() {
            return Err(Error::not_found("it does not exist").context(doing()));
        }
        let record = Record {
            name: name.to_owned(),
            from: dir.path().display().to_string(),
            reason: reason.chars().take(REASON_LIMIT).collect(),
            time: Timestamp::now().to_utc_text().unwrap_or_default(),
        };
        let key = random_hex(KEY_LEN).during(doing)?;
        step("make quarantine entry").during(doing)?;
        let entry = all.create_dir(&key, 0o700).during(doing)?;
        if let Err(error) = self.put_aside(dir, name, &all, &entry, &record) {
            // Takes the entry away only if the item did not get there.
            try_clear(&all, &entry, &key);
            return Err(error.context(doing()));
        }
        Ok(record.into_entry(key, &entry))
    }

    fn put_aside(&self, dir: &Dir, name: &str, all: &Dir, entry: &Dir, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record)
            .map_err(|error| Error::with_source(ErrorKind::InvalidArgument, "write the record", error))?;
        replace_file(entry, RECORD, &text, 0o600, self.durability)?;
        step("sync quarantine")?;
        self.durability.sync_dir(all)?;
        step("move into quarantine")?;
        dir.rename_new(name, entry, ITEM).map_err(|error| explain_other_mount(error, dir, entry))?;
        self.sync_move(dir, entry)
    }

    /// What is in quarantine, oldest first; entries that cannot be read are listed with what is known.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        let Some(all) = self.quarantine_dir().during(|| "list the quarantine")? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for Entry { name, kind } in all.entries().during(|| "list the quarantine")? {
            let Some(key) = name.to_str().filter(|_| kind == FileKind::Dir) else {
                log::warn!("not an entry of the quarantine: {}", all.path().join(&name).display());
                continue;
            };
            match examine(&all, key).during(|| "list the quarantine")? {
                Some(entry) => found.push(entry),
                None => log::debug!("quarantine entry {key} has no item: its move was interrupted"),
            }
        }
        found.sort_by(|a, b| (&a.time, &a.key).cmp(&(&b.time, &b.key)));
        Ok(found)
    }

    /// Moves an entry back as `dir/<its name>`; something is there already: `AlreadyExists`. No such entry:
    /// `NotFound`. An entry whose name is not known has to be given one first.
    pub fn restore(&self, entry: &Quarantined, dir: &Dir) -> Result<()> {
        let doing = || format!("restore {} from quarantine entry {}", entry.name, entry.key);
        let all = self.quarantine_for_change().during(doing)?;
        let place = all.open_dir(&entry.key).during(doing)?;
        step("move out of quarantine").during(doing)?;
        place
            .rename_new(ITEM, dir, &entry.name)
            .map_err(|error| explain_other_mount(error, &place, dir))
            .during(doing)?;
        self.sync_move(&place, dir).during(doing)?;
        step("clear quarantine entry").during(doing)?;
        try_clear(&all, &place, &entry.key);
        Ok(())
    }

    /// Gives up an entry for good: it goes to the trash with its record. No such entry: `None`.
    pub fn purge(&self, entry: &Quarantined) -> Result<Option<Discarded>> {
        let all = self.quarantine_for_change()?;
        self.discard(&all, &entry.key).during(|| format!("purge quarantine entry {}", entry.key))
    }
}

impl Record {
    fn into_entry(self, key: String, entry: &Dir) -> Quarantined {
        Quarantined {
            key,
            name: self.name,
            from: PathBuf::from(self.from),
            reason: self.reason,
            time: self.time,
            path: entry.path().join(ITEM),
        }
    }
}

/// An entry as it is listed; `None` when it has no item.
fn examine(all: &Dir, key: &str) -> Result<Option<Quarantined>> {
    let place = match all.open_dir(key) {
        Ok(place) => place,
        // Restored or purged meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if place.stat(ITEM)?.is_none() {
        return Ok(None);
    }
    let record = match read_record(&place) {
        Ok(record) => record,
        Err(error) => unknown(all, key, &error),
    };
    Ok(Some(record.into_entry(key.to_owned(), &place)))
}

fn read_record(place: &Dir) -> Result<Record> {
    let text = place.read(RECORD, RECORD_LIMIT)?;
    serde_json::from_slice(&text).map_err(|error| {
        let path: &Path = place.path();
        Error::with_source(ErrorKind::Corrupt, format!("parse {}", path.join(RECORD).display()), error)
    })
}

fn unknown(all: &Dir, key: &str, error: &Error) -> Record {
    let changed = all.stat(key).ok().flatten();
    let time =
        changed.and_then(|stat| Timestamp { seconds: stat.mtime, nanos: stat.mtime_nanos }.to_utc_text());
    Record {
        name: String::new(),
        from: String::new(),
        reason: format!("not known: {}", error.report()),
        time: time.unwrap_or_default(),
    }
}

/// Removes entries without an item; best effort. Called under the store's lock, when nobody is putting aside.
pub(super) fn sweep_interrupted(all: &Dir) {
    let entries = match all.entries() {
        Ok(entries) => entries,
        Err(error) => return log::warn!("sweep the quarantine: {}", error.report()),
    };
    for entry in entries.iter().filter(|entry| entry.kind == FileKind::Dir) {
        let Some(key) = entry.name.to_str() else { continue };
        match all.open_dir(key) {
            Ok(place) => try_clear(all, &place, key),
            Err(error) => log::warn!("sweep the quarantine: {}", error.report()),
        }
    }
}

/// Removes an entry that has no item. Only the record and temporary files are removed by name and the directory
/// only when it is empty, so nothing else can be lost here.
fn try_clear(all: &Dir, place: &Dir, key: &str) {
    let cleared = place.stat(ITEM).and_then(|item| {
        if item.is_some() {
            return Ok(());
        }
        sweep_temporary(place);
        place.remove_file(RECORD)?;
        all.remove_empty_dir(key).map(|_| ())
    });
    if let Err(error) = cleared {
        log::warn!("clear quarantine entry {key}: {}", error.report());
    }
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
