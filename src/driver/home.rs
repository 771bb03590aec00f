// SPDX-License-Identifier: MulanPSL-2.0
//! What the home of every driver has: hidden state, a place to build layers in, and durable steps.
//!
//! ```text
//! <home>/.isula-storage/            0700  lock, trash, quarantine: see `persist`
//! <home>/.isula-storage/staging/    0700  layers being built; emptied at start
//! ```
//!
//! It lies inside the home because the home may be bound on itself: nothing can be renamed across that mount.

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::{self, Durability, Ownership, Quarantined, SharedDir, StateDir, step};
use crate::sys::fs::{Dir, random_hex};

/// Name of the state directory.
pub(super) const STATE: &str = ".isula-storage";
pub(super) const STAGING: &str = "staging";
const STAGED_NAME_LEN: usize = 32;

/// An open home.
#[derive(Debug)]
pub(super) struct Home {
    dir: Dir,
    writer: Option<Writer>,
    state: StateDir,
}

#[derive(Debug)]
struct Writer {
    staging: Dir,
    durability: Durability,
}

impl Home {
    /// Opens the state of a home. For writing: takes its lock and removes what a crash left half-built or half-removed.
    pub(super) fn open(dir: Dir, durability: Durability, read_only: bool) -> Result<Home> {
        if read_only {
            let state = StateDir::open(&dir, STATE, Ownership::ReadOnly, durability)?;
            return Ok(Home { dir, writer: None, state });
        }
        let state = StateDir::open(&dir, STATE, Ownership::Owner, durability)?;
        let staging = dir.open_dir(STATE)?.ensure_dir(STAGING, 0o700)?;
        for entry in staging.entries()? {
            if let Err(error) = staging.remove_all(&entry.name) {
                log::warn!("remove half-built layer {:?}: {}", entry.name, error.report());
            }
        }
        state.sweep_trash();
        Ok(Home { dir, writer: Some(Writer { staging, durability }), state })
    }

    /// The home itself.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Whether nothing may be written.
    pub(super) fn is_read_only(&self) -> bool {
        self.writer.is_none()
    }

    /// Whether it is certain that no process has the home open for writing.
    pub(super) fn is_idle(&self) -> bool {
        self.is_read_only() && self.state.holder().is_ok_and(|holder| holder.is_none())
    }

    /// Fails unless the home was opened for writing.
    pub(super) fn check_writable(&self) -> Result<()> {
        self.writer().map(|_| ())
    }

    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::ReadOnly,
                format!("{} was opened for reading only", self.dir.path().display()),
            )
        })
    }

    /// The state directory, for changes.
    pub(super) fn state(&self) -> Result<&StateDir> {
        self.check_writable().map(|()| &self.state)
    }

    /// What lies in quarantine.
    pub(super) fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.state.quarantined()
    }

    /// Makes names in `dir` durable.
    pub(super) fn flush(&self, dir: &Dir) -> Result<()> {
        match self.writer()?.durability {
            Durability::Full => dir.sync(),
            Durability::None => Ok(()),
        }
    }

    /// Makes the content of a whole tree durable.
    pub(super) fn flush_tree(&self, dir: &Dir) -> Result<()> {
        match self.writer()?.durability {
            Durability::Full => dir.sync_fs(),
            Durability::None => Ok(()),
        }
    }

    /// Replaces a small file, durably.
    pub(super) fn replace(&self, dir: &Dir, name: &str, content: &str, mode: u32) -> Result<()> {
        persist::replace_file(dir, name, content.as_bytes(), mode, self.writer()?.durability)
    }

    /// Writes a small file into a layer that is being made; it is durable once the layer is published.
    pub(super) fn write_new(&self, dir: &Dir, name: &str, content: &str, mode: u32) -> Result<()> {
        persist::replace_file(dir, name, content.as_bytes(), mode, Durability::None)?;
        if self.writer()?.durability == Durability::Full {
            dir.open_file(name)?.sync_all().during(|| format!("sync file {name} of a new layer"))?;
        }
        Ok(())
    }

    /// The hidden directory, for what a driver keeps there.
    pub(super) fn hidden(&self) -> Result<Dir> {
        self.dir.open_dir(STATE)
    }

    /// Where layers are built.
    pub(super) fn staging(&self) -> Result<&Dir> {
        self.writer().map(|writer| &writer.staging)
    }

    /// The directory that other hosts share with this one.
    pub(super) fn open_shared(&self) -> Result<SharedDir> {
        let state = self.hidden()?;
        SharedDir::open(self.dir.try_clone()?, state, self.writer()?.durability)
    }

    /// Moves `name` to `to/new_name` and makes that durable; on failure it is where it was.
    fn move_durably(&self, from: &Dir, name: &str, to: &Dir, new_name: &str) -> Result<()> {
        step("publish")?;
        from.rename_new(name, to, new_name)?;
        let flushed = step("sync published").and_then(|()| self.flush(to));
        if flushed.is_err() {
            to.rename_new(new_name, from, name)?;
        }
        flushed
    }

    /// A new, empty directory (0700) to build a layer in; removed again unless it is published.
    pub(super) fn stage(&self) -> Result<Staged<'_>> {
        let writer = self.writer()?;
        let name = random_hex(STAGED_NAME_LEN)?;
        step("make staging directory")?;
        let dir = writer.staging.create_dir(&name, 0o700).during(|| "make a directory for a new layer")?;
        Ok(Staged { home: self, staging: &writer.staging, name, dir, published: false })
    }

    /// Goes on with what was parked.
    pub(super) fn resume(&self, parked: Parked) -> Result<Staged<'_>> {
        let Parked { name, dir } = parked;
        Ok(Staged { home: self, staging: &self.writer()?.staging, name, dir, published: false })
    }
}

/// A directory of [`Home::stage`] that outlives the call that made it: see [`Staged::park`].
#[derive(Debug)]
pub(super) struct Parked {
    name: String,
    dir: Dir,
}

/// A layer being built: either published whole, or removed.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    home: &'a Home,
    staging: &'a Dir,
    name: String,
    dir: Dir,
    published: bool,
}

impl Staged<'_> {
    /// The directory.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Leaves it for [`Home::resume`]; if that never comes, the next start removes it.
    pub(super) fn park(mut self) -> Result<Parked> {
        let parked = Parked { name: self.name.clone(), dir: self.dir.try_clone()? };
        self.published = true;
        Ok(parked)
    }

    /// Gives the directory its place, in one step and durably.
    pub(super) fn publish(mut self, to: &Dir, name: &str) -> Result<()> {
        step("sync staged")?;
        self.home.flush(&self.dir)?;
        self.home.move_durably(self.staging, &self.name, to, name)?;
        self.published = true;
        Ok(())
    }

    /// Gives what was built as `built` below the directory its place, in one step and durably.
    pub(super) fn publish_part(self, built: &str, to: &Dir, name: &str) -> Result<()> {
        self.home.move_durably(&self.dir, built, to, name)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = self.staging.remove_all(&self.name) {
            log::warn!("remove half-built layer {}: {}", self.name, error.report());
        }
    }
}
