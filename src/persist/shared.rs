// SPDX-License-Identifier: MulanPSL-2.0
//! A directory that other hosts see, too: `RO` in a store, often a file system of its own (NFS).
//!
//! ```text
//! <home>/<id>                              -> <home>/RO/<id>   absolute; this host's name for a shared entry
//! <home>/RO/<id>/                             the entry itself
//! <home>/RO/.isula-storage-remote/            only where RO is a mount of its own
//!     staging-<key>/  trash-<key>/  aside-<key>/   of the host whose key it is; others leave them alone
//! <state>/remote-key                          the key of this host, made once
//! <state>/remote-removals/<id>                entries that this host is about to remove
//! <state>/remote-staging/                     entries being made, where RO is on the mount of its home
//! ```
//!
//! An entry is built elsewhere on the same mount and renamed into `RO` when it is whole and durable; it leaves by a rename
//! as well. So another host sees it whole or not at all. No lock is taken: a host that died must not stop the others.
//!
//! `RO` is opened anew each time: an operator may mount it while the store is open. The names of the working directories
//! are none that a layer can have; iSulad makes a link to each name that it finds in `RO`, so they must not be the name
//! of a state directory either.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::state::{Discarded, KEY_LEN};
use crate::persist::{Durability, StateDir, replace_file, step};
use crate::sys::fs::{Dir, Entry, FileKind, random_hex};
use crate::sys::mount::is_mount_point;

/// Name of the shared directory, as iSulad has it.
pub const SHARED: &str = "RO";
const WORK: &str = ".isula-storage-remote";
const KEY: &str = "remote-key";
const REMOVALS: &str = "remote-removals";
/// Most bytes of a note that are read.
const NOTE_LIMIT: u64 = 1024;
const STAGING: &str = "remote-staging";
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The shared directory of one store.
#[derive(Debug)]
pub struct SharedDir {
    home: Dir,
    /// The store's own state directory, on the mount of `home`.
    state: Dir,
    key: String,
    durability: Durability,
}

/// What a name in the home is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Absent,
    /// Something of this host.
    Local,
    /// The link to the shared entry of that name, there or not.
    Shared,
    /// A symbolic link to anything else: never followed.
    Foreign,
}

/// An entry being made. Dropped unpublished: removed.
#[derive(Debug)]
pub struct SharedEntry {
    staging: Dir,
    name: String,
    dir: Dir,
    published: bool,
}

impl SharedDir {
    /// Makes `home/RO` (0700) if it is absent and removes what this host left half-made or half-removed. `state` is a
    /// directory of this store alone, on the mount of `home`.
    pub fn open(home: Dir, state: Dir, durability: Durability) -> Result<SharedDir> {
        let path = home.path().join(SHARED);
        let doing = || format!("open the shared directory {}", path.display());
        match home.create_dir(SHARED, DIR_MODE) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => {
                made.during(doing)?;
            }
        }
        let key = key(&state, durability).during(doing)?;
        let shared = SharedDir { home, state, key, durability };
        shared.dir().during(doing)?;
        shared.sweep();
        Ok(shared)
    }

    /// The shared directory as it is mounted now.
    pub fn dir(&self) -> Result<Dir> {
        self.home.open_dir(SHARED)
    }

    /// Directories in it that may be entries, in no order; names that start with a dot are never.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = self.dir()?.entries()?;
        entries.retain(|entry| entry.kind == FileKind::Dir && !starts_with_dot(&entry.name));
        Ok(entries)
    }

    /// What `name` in the home is.
    pub fn place(&self, name: &str) -> Result<Place> {
        Ok(match self.home.stat(name)?.map(|stat| stat.kind) {
            None => Place::Absent,
            Some(FileKind::Symlink) if self.home.read_link(name)? == self.target(name) => Place::Shared,
            Some(FileKind::Symlink) => Place::Foreign,
            Some(_) => Place::Local,
        })
    }

    /// Opens a shared entry; absent: `NotFound`.
    pub fn open_entry(&self, name: &str) -> Result<Dir> {
        self.dir()?.open_dir(name)
    }

    /// Whether a shared entry exists.
    pub fn has(&self, name: &str) -> Result<bool> {
        Ok(self.dir()?.stat(name)?.is_some_and(|stat| stat.kind == FileKind::Dir))
    }

    /// Gives a shared entry its name in the home, in one step; has it already: fine. `false`: something else has it.
    pub fn link(&self, name: &str) -> Result<bool> {
        match self.home.symlink(&self.target(name), name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(self.place(name)? == Place::Shared),
            made => made.map(|()| true),
        }
    }

    /// Takes the name in the home away, if it is the link to the shared entry.
    pub fn unlink(&self, name: &str) -> Result<()> {
        if self.place(name)? == Place::Shared {
            self.home.remove_file(name)?;
        }
        Ok(())
    }

    /// A new, empty directory (0700) that can be published.
    pub fn stage(&self) -> Result<SharedEntry> {
        let staging = self.working("staging", STAGING)?;
        let name = random_hex(KEY_LEN)?;
        step("make shared staging")?;
        let dir = staging.create_dir(&name, DIR_MODE).during(|| "make a directory for a shared layer")?;
        Ok(SharedEntry { staging, name, dir, published: false })
    }

    /// Shows a whole and durable entry to all, in one step and durably. An entry of that name is there: `AlreadyExists`.
    pub fn publish(&self, mut entry: SharedEntry, name: &str) -> Result<()> {
        let shared = self.dir()?;
        step("publish shared")?;
        entry.staging.rename_new(&entry.name, &shared, name)?;
        let flushed = step("sync shared").and_then(|()| self.durability.sync_dir(&shared));
        if flushed.is_err() {
            shared.rename_new(name, &entry.staging, &entry.name)?;
        } else {
            entry.published = true;
        }
        flushed
    }

    /// Moves a shared entry into the trash, durably; the link in the home stays. Absent: `None`.
    pub fn discard(&self, state: &StateDir, name: &str) -> Result<Option<Discarded>> {
        let shared = self.dir()?;
        if !self.is_own_mount()? {
            return state.discard(&shared, name);
        }
        match self.move_aside(&shared, "trash", name)? {
            Some((trash, name)) => Ok(Some(Discarded { trash, name })),
            None => Ok(None),
        }
    }

    /// Puts a shared entry aside out of doubt; the link in the home stays. Where `RO` is a mount of its own it lies in
    /// there, and is not in the lists of the store's quarantine. Absent: `None`; else where it lies.
    pub fn put_aside(&self, state: &StateDir, name: &str, reason: &str) -> Result<Option<PathBuf>> {
        let shared = self.dir()?;
        if shared.stat(name)?.is_none() {
            return Ok(None);
        }
        if !self.is_own_mount()? {
            return state.quarantine(&shared, name, reason).map(|aside| Some(aside.path));
        }
        let moved = self.move_aside(&shared, "aside", name)?;
        Ok(moved.map(|(aside, name)| aside.path().join(name)))
    }

    /// What tells an entry from another one that had its name before: when it was made. Nothing is added to one that is
    /// published. Absent: `None`.
    pub fn identity(&self, name: &str) -> Result<Option<String>> {
        let stat = self.dir()?.stat(name)?;
        Ok(stat.map(|stat| format!("{}.{}", stat.mtime, stat.mtime_nanos)))
    }

    /// Notes durably, with a text, that this host is about to remove an entry, so that a crash does not leave half of it
    /// for ever.
    pub fn note_removal(&self, name: &str, text: &str) -> Result<()> {
        let notes = self.state.ensure_dir(REMOVALS, DIR_MODE)?;
        replace_file(&notes, name, text.as_bytes(), FILE_MODE, self.durability)?;
        self.durability.sync_dir(&self.state)
    }

    /// Entries whose removal was noted and never settled, each with the text.
    pub fn noted_removals(&self) -> Result<Vec<(String, String)>> {
        let notes = match self.state.open_dir(REMOVALS) {
            Ok(notes) => notes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        crate::persist::sweep_temporary(&notes);
        let mut noted = Vec::new();
        for entry in notes.entries()? {
            let Ok(name) = entry.name.into_string() else { continue };
            let text = notes.read(&name, NOTE_LIMIT)?;
            noted.push((name, String::from_utf8_lossy(&text).into_owned()));
        }
        Ok(noted)
    }

    /// Takes the note back; best effort.
    pub fn settle_removal(&self, name: &str) {
        let settled = self.state.open_dir(REMOVALS).and_then(|notes| notes.remove_file(name));
        if let Err(error) = settled {
            log::warn!("note the end of a removal: {}", error.report());
        }
    }

    fn move_aside(&self, shared: &Dir, what: &str, name: &str) -> Result<Option<(Dir, String)>> {
        let to = self.working(what, STAGING)?;
        let new_name = format!("{}-{name}", random_hex(KEY_LEN)?);
        step("move out of the shared directory")?;
        match shared.rename_new(name, &to, &new_name) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound && shared.stat(name)?.is_none() => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        self.durability.sync_dir(&to)?;
        self.durability.sync_dir(shared)?;
        Ok(Some((to, new_name)))
    }

    /// A working directory on the mount of `RO`: inside of it, or else the one of this name in the state directory.
    fn working(&self, what: &str, in_state: &str) -> Result<Dir> {
        if !self.is_own_mount()? {
            return self.state.ensure_dir(in_state, DIR_MODE);
        }
        let work = self.dir()?.ensure_dir(WORK, DIR_MODE)?;
        work.ensure_dir(format!("{what}-{}", self.key), DIR_MODE)
    }

    fn is_own_mount(&self) -> Result<bool> {
        is_mount_point(self.home.as_fd(), Path::new(SHARED))
    }

    fn target(&self, name: &str) -> PathBuf {
        self.home.path().join(SHARED).join(name)
    }

    /// Removes what this host left in its working directories; best effort.
    fn sweep(&self) {
        let empty = |dir: Result<Dir>| {
            let Ok(dir) = dir else { return }; // there is none
            for entry in dir.entries().unwrap_or_default() {
                if let Err(error) = dir.remove_all(&entry.name) {
                    log::warn!("remove what a shared layer left: {}", error.report());
                }
            }
        };
        empty(self.state.open_dir(STAGING));
        for what in ["staging", "trash"] {
            let work = self.dir().and_then(|shared| shared.open_dir(WORK));
            empty(work.and_then(|work| work.open_dir(format!("{what}-{}", self.key))));
        }
    }
}

impl SharedEntry {
    /// The directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }
}

impl Drop for SharedEntry {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = self.staging.remove_all(&self.name) {
            log::warn!("remove a half-made shared layer: {}", error.report());
        }
    }
}

fn starts_with_dot(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// The key of this host. Not derived from the machine: copies of a machine would share it.
fn key(state: &Dir, durability: Durability) -> Result<String> {
    let is_key = |text: &str| text.len() == KEY_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match state.read(KEY, 64) {
        Ok(content) => {
            if let Some(key) = std::str::from_utf8(&content).ok().map(str::trim_end).filter(|key| is_key(key))
            {
                return Ok(key.to_owned());
            }
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LimitExceeded) => {}
        Err(error) => return Err(Error::context(error, "read the key of this host")),
    }
    let key = random_hex(KEY_LEN)?;
    replace_file(state, KEY, format!("{key}\n").as_bytes(), FILE_MODE, durability)?;
    Ok(key)
}

/// Makes `home/RO` (0700) and what is missing above it.
pub fn make_shared_home(home: &Path) -> Result<()> {
    let home = if home.is_dir() { Dir::open(home)? } else { Dir::create_all(home, DIR_MODE)? };
    match home.create_dir(SHARED, DIR_MODE) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => home.open_dir(SHARED).map(drop),
        made => made.map(drop),
    }
}

/// Makes an empty entry and its link. The link's name is taken: `AlreadyExists`, and nothing is changed.
pub fn build_shared_entry(home: &Path, name: &str) -> Result<()> {
    let home = Dir::open(home)?;
    let shared = home.open_dir(SHARED)?;
    let made = match shared.create_dir(name, DIR_MODE) {
        Ok(_) => true,
        // As in the reference, which makes it as `mkdir -p` does.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let linked = home.symlink(&home.path().join(SHARED).join(name), name);
    if linked.is_err() && made {
        shared.remove_empty_dir(name)?;
    }
    linked
}

/// Removes an entry and its link; absent is fine. Something else has the link's name: `InvalidArgument`.
pub fn remove_shared_entry(home: &Path, name: &str) -> Result<()> {
    let home = Dir::open(home)?;
    if let Some(stat) = home.stat(name)? {
        if stat.kind != FileKind::Symlink || home.read_link(name)? != home.path().join(SHARED).join(name) {
            let message = format!("{} is not the link to a shared entry", home.path().join(name).display());
            return Err(Error::invalid(message));
        }
        home.remove_file(name)?;
    }
    home.open_dir(SHARED)?.remove_all(name).map(drop)
}
