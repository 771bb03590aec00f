// SPDX-License-Identifier: MulanPSL-2.0
//! Which projects are the store's own: a symbolic link for each, named by its number, to the bytes that it was limited to.
//!
//! It is made before the project is used and goes when nothing is left of it, so it says of everything that a crash leaves
//! whose it is. A link is made in one step with what it says, and both file systems write names and quotas to one journal
//! in the order in which they were made: no flush is needed for it to be there when the limit is.

use std::ffi::OsStr;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::fs::Dir;
use crate::units::Bytes;

/// The directory in the state of the home.
pub(super) const PROJECTS: &str = "projects";
const DIR_MODE: u32 = 0o700;

/// The links of one store. The directory is made with the first of them.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Dir,
}

impl Ledger {
    pub(super) fn new(state: Dir) -> Ledger {
        Ledger { state }
    }

    fn dir(&self) -> Result<Option<Dir>> {
        match self.state.open_dir(PROJECTS) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a project down; `false` if it is there already.
    pub(super) fn add(&self, id: u32, limit: Bytes) -> Result<bool> {
        let dir = self.state.ensure_dir(PROJECTS, DIR_MODE)?;
        match dir.symlink(Path::new(&limit.0.to_string()), id.to_string()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a project was limited to, 0 if that is not known; `None` if it is not the store's.
    pub(super) fn find(&self, id: u32) -> Result<Option<Bytes>> {
        let Some(dir) = self.dir()? else { return Ok(None) };
        match dir.read_link(id.to_string()) {
            Ok(limit) => Ok(Some(Bytes(limit.to_str().and_then(|text| text.parse().ok()).unwrap_or(0)))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn forget(&self, id: u32) -> Result<()> {
        let Some(dir) = self.dir()? else { return Ok(()) };
        dir.remove_file(id.to_string()).map(drop)
    }

    /// All projects, in order.
    pub(super) fn all(&self) -> Result<Vec<u32>> {
        let Some(dir) = self.dir()? else { return Ok(Vec::new()) };
        let mut ids: Vec<u32> = dir.entries()?.iter().filter_map(|entry| number(&entry.name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// The project that a name stands for; it has one name only, so that another is not mistaken for it.
fn number(name: &OsStr) -> Option<u32> {
    let text = name.to_str()?;
    text.parse().ok().filter(|number: &u32| *number != 0 && number.to_string() == text)
}

/// There is nowhere to write projects down.
pub(super) fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the store was opened for reading only")
}
