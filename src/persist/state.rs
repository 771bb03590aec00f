// SPDX-License-Identifier: MulanPSL-2.0
//! The hidden state directory of one store: format version, owner, trash.

use std::ffi::OsStr;
use std::time::Duration;

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::steps::step;
use crate::persist::{Durability, Ownership, quarantine, replace_file, sweep_temporary};
use crate::sys::fs::{Dir, random_hex};
use crate::sys::lock::FileLock;

/// The layout this version reads and writes.
const FORMAT_VERSION: u32 = 1;

const FORMAT: &str = "format";
const LOCK: &str = "lock";
pub(crate) const TRASH: &str = "trash";
pub(crate) const QUARANTINE: &str = "quarantine";

/// Mode of the state directory and everything directly in it: nobody but the owner looks at deleted data.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Most bytes read of the format file: a number and a newline.
const FORMAT_LIMIT: u64 = 64;

/// Random characters of a name in the trash or the quarantine: 64 bits.
pub(super) const KEY_LEN: usize = 16;

/// How long opening a shared store waits for another process that is just making its state directory.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The hidden state directory of one store.
#[derive(Debug)]
pub struct StateDir {
    /// `None` only for a read-only store that never had one.
    dir: Option<Dir>,
    ownership: Ownership,
    pub(super) durability: Durability,
    _owner: Option<FileLock>,
}

impl StateDir {
    /// Opens `parent/name` (making it unless read-only), checks the format version, and takes the lock when
    /// `ownership` is `Owner` (held elsewhere: `InUse`, "in use by pid N"). A newer format is `Unsupported`, a format
    /// file that is no number `Corrupt`; nothing is written then.
    pub fn open(parent: &Dir, name: &str, ownership: Ownership, durability: Durability) -> Result<StateDir> {
        let doing = || format!("open the state of the store in {}", parent.path().display());
        let (dir, owner) = match ownership {
            Ownership::ReadOnly => (open_existing(parent, name).during(doing)?, None),
            Ownership::Owner | Ownership::Shared => {
                let (dir, lock) = open_or_make(parent, name, ownership).during(doing)?;
                (Some(dir), lock.filter(|_| ownership == Ownership::Owner))
            }
        };
        Ok(StateDir { dir, ownership, durability, _owner: owner })
    }

    /// Takes the lock for one change of a shared store, waiting up to `timeout`; a no-op token for an owner; `ReadOnly`
    /// error for a read-only one.
    pub fn lock_for_change(&self, timeout: Duration) -> Result<ChangeLock> {
        let dir = self.writable()?;
        let lock = match self.ownership {
            Ownership::Shared => Some(FileLock::exclusive(dir, LOCK, timeout)?),
            Ownership::Owner | Ownership::ReadOnly => None,
        };
        Ok(ChangeLock { _lock: lock })
    }

    /// The process that holds the store now, for who only reads. `NotFound`: nobody has made a lock that would tell.
    pub fn holder(&self) -> Result<Option<u32>> {
        match &self.dir {
            Some(dir) => crate::sys::lock::holder(dir, LOCK),
            None => Err(Error::not_found("the store has no lock")),
        }
    }

    /// How this store is held.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Moves `dir/name` into the trash and makes that durable; it is gone from `dir` when this returns, its data are
    /// removed by [`Discarded::remove`], at the latest at the next start. Absent: `None`.
    pub fn discard(&self, dir: &Dir, name: &str) -> Result<Option<Discarded>> {
        let trash = self.part(TRASH)?;
        loop {
            let key = random_hex(KEY_LEN)?;
            step("move to the trash")?;
            match dir.rename_new(name, &trash, &key) {
                Ok(()) => {
                    self.sync_move(dir, &trash)?;
                    return Ok(Some(Discarded { trash, name: key }));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound && dir.stat(name)?.is_none() => {
                    return Ok(None);
                }
                Err(error) => return Err(gone(explain_other_mount(error, dir, &trash))),
            }
        }
    }

    /// Removes what lies in the trash from earlier; best effort, logs what it could not remove. Harmless beside
    /// running [`Discarded::remove`]s. Does nothing for a read-only store.
    pub fn sweep_trash(&self) {
        if self.ownership == Ownership::ReadOnly {
            return;
        }
        match self.part(TRASH).and_then(|trash| trash.entries().map(|entries| (trash, entries))) {
            Ok((trash, entries)) => entries.iter().for_each(|entry| try_remove(&trash, &entry.name)),
            Err(error) => log::warn!("sweep the trash: {}", error.report()),
        }
    }

    /// The directory with what was put aside; `None` when there never was one.
    pub(super) fn quarantine_dir(&self) -> Result<Option<Dir>> {
        match (&self.dir, self.ownership) {
            (None, _) => Ok(None),
            (Some(dir), Ownership::ReadOnly) => found(dir.open_dir(QUARANTINE)),
            (Some(_), Ownership::Owner | Ownership::Shared) => self.part(QUARANTINE).map(Some),
        }
    }

    /// The same for a change.
    pub(super) fn quarantine_for_change(&self) -> Result<Dir> {
        self.part(QUARANTINE)
    }

    /// Makes a move between two directories durable: first that it arrived, then that it left.
    pub(super) fn sync_move(&self, from: &Dir, to: &Dir) -> Result<()> {
        step("sync new place")?;
        self.durability.sync_dir(to)?;
        step("sync old place")?;
        self.durability.sync_dir(from)
    }

    fn writable(&self) -> Result<&Dir> {
        match (&self.dir, self.ownership) {
            (Some(dir), Ownership::Owner | Ownership::Shared) => Ok(dir),
            _ => Err(Error::new(ErrorKind::ReadOnly, "the store was opened for reading only")),
        }
    }

    /// A directory of the state, made again if somebody removed it.
    fn part(&self, name: &str) -> Result<Dir> {
        self.writable()?.ensure_dir(name, DIR_MODE).map_err(gone)
    }
}

/// The state directory was removed under our feet: that is not "no such thing" to the caller.
fn gone(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error
            .with_kind(ErrorKind::Corrupt)
            .context("the state directory of the store was removed while it is in use; reload the store"),
        _ => error,
    }
}

/// A rename between mounts says only "invalid cross-device link"; say what to do.
pub(super) fn explain_other_mount(error: Error, from: &Dir, to: &Dir) -> Error {
    if error.errno() != libc::EXDEV {
        return error;
    }
    error.context(format!(
        "{} and {} are on different mounts, but must be on one: do not mount anything between them",
        from.path().display(),
        to.path().display()
    ))
}

fn found(opened: Result<Dir>) -> Result<Option<Dir>> {
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_existing(parent: &Dir, name: &str) -> Result<Option<Dir>> {
    let Some(dir) = found(parent.open_dir(name))? else { return Ok(None) };
    // Without a format file it is just being made, or was interrupted: there is nothing in it yet.
    is_formatted(&dir)?;
    Ok(Some(dir))
}

fn open_or_make(parent: &Dir, name: &str, ownership: Ownership) -> Result<(Dir, Option<FileLock>)> {
    step("make state directory")?;
    let dir = parent.ensure_dir(name, DIR_MODE)?;
    // Before the lock: what a newer version does with its files is not known.
    let formatted = is_formatted(&dir)?;
    let lock = match ownership {
        Ownership::Shared if !formatted => Some(FileLock::exclusive(&dir, LOCK, SETUP_TIMEOUT)?),
        Ownership::Shared => match FileLock::try_exclusive(&dir, LOCK) {
            Ok(lock) => Some(lock),
            // Tidying up can wait for somebody who gets the lock.
            Err(error) if error.kind() == ErrorKind::InUse => None,
            Err(error) => return Err(error),
        },
        Ownership::Owner | Ownership::ReadOnly => Some(FileLock::try_exclusive(&dir, LOCK)?),
    };
    if lock.is_some() {
        prepare(parent, &dir)?;
    }
    Ok((dir, lock))
}

/// Makes what is missing, the format file last: where it is, everything before it is durable. Called under the lock.
fn prepare(parent: &Dir, dir: &Dir) -> Result<()> {
    step("make parts")?;
    dir.ensure_dir(TRASH, DIR_MODE)?;
    let aside = dir.ensure_dir(QUARANTINE, DIR_MODE)?;
    if is_formatted(dir)? {
        sweep_temporary(dir);
        quarantine::sweep_interrupted(&aside);
        return Ok(());
    }
    // Once in the life of a store, and an empty format file would keep it from ever opening again: always flushed.
    step("sync parts")?;
    Durability::Full.sync_dir(dir)?;
    Durability::Full.sync_dir(parent)?;
    replace_file(dir, FORMAT, format!("{FORMAT_VERSION}\n").as_bytes(), FILE_MODE, Durability::Full)
}

fn is_formatted(dir: &Dir) -> Result<bool> {
    let content = match dir.read(FORMAT, FORMAT_LIMIT) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == ErrorKind::LimitExceeded => {
            return Err(not_a_version().context(error.report()));
        }
        Err(error) => return Err(error),
    };
    check_format(&content).during(|| format!("read {}", dir.path().join(FORMAT).display()))?;
    Ok(true)
}

fn check_format(content: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(content).ok().and_then(|text| text.strip_suffix('\n'));
    let digits = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(digits) = digits else {
        return Err(not_a_version());
    };
    // More digits than a u32 has are a newer version, too.
    match digits.parse::<u32>() {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(0) => Err(Error::corrupt("there is no format version 0; restore it from a backup")),
        Ok(_) | Err(_) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the store was written in format {digits}, this version of isula-storage knows only format \
                 {FORMAT_VERSION}: upgrade isula-storage, nothing was changed"
            ),
        )),
    }
}

fn not_a_version() -> Error {
    Error::corrupt("it does not hold a format version; restore it from a backup")
}

/// A change lock; released on drop.
#[derive(Debug)]
pub struct ChangeLock {
    _lock: Option<FileLock>,
}

/// Data in the trash that can be removed now, outside every lock.
#[derive(Debug)]
#[must_use = "the data are removed only by `remove` or at the next start"]
pub struct Discarded {
    pub(super) trash: Dir,
    pub(super) name: String,
}

impl Discarded {
    /// Removes the data; best effort: what fails is logged and retried at the next start.
    pub fn remove(self) {
        try_remove(&self.trash, self.name.as_ref());
    }
}

fn try_remove(trash: &Dir, name: &OsStr) {
    if let Err(error) = trash.remove_all(name) {
        log::warn!("empty the trash, to be tried again at the next start: {}", error.report());
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
