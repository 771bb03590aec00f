// SPDX-License-Identifier: MulanPSL-2.0
//! The layers below an overlay directory, as one view: what of a path is there, without mounting anything.
//!
//! Moves along with the walk through the upper directory. Descriptors of directories far up are given back and found again
//! by their names when the walk comes back to them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::archive::diff::node::Pinned;
use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::at::{for_each_entry, open_at};

/// Descriptors kept for directories further up.
const KEPT: usize = 128;

/// See the module.
pub(super) struct Lowers<'a> {
    roots: &'a [BorrowedFd<'a>],
    levels: Vec<Level>,
}

struct Level {
    name: OsString,
    /// The directories that make up this one, topmost first; `None`: not open, or not any more.
    dirs: Option<Vec<OwnedFd>>,
}

impl<'a> Lowers<'a> {
    pub(super) fn new(roots: &'a [BorrowedFd<'a>]) -> Self {
        Lowers { roots, levels: Vec::new() }
    }

    /// Enters a directory, which need not be there; nothing is looked for before it is asked for.
    pub(super) fn down(&mut self, name: &OsStr) {
        self.levels.push(Level { name: name.to_owned(), dirs: None });
    }

    pub(super) fn up(&mut self) {
        self.levels.pop();
    }

    /// The directories that make up the one it is in.
    fn dirs(&mut self) -> Result<Vec<BorrowedFd<'_>>> {
        if let Some(level) = self.levels.last()
            && level.dirs.is_none()
        {
            let open = self.levels.iter().rposition(|level| level.dirs.is_some());
            let start = open.map_or(0, |open| open + 1);
            let mut found: Option<Vec<OwnedFd>> = None;
            for at in start..self.levels.len() {
                let above: Vec<BorrowedFd<'_>> = match (&found, open.and_then(|open| self.levels.get(open))) {
                    (Some(found), _) => found.iter().map(AsFd::as_fd).collect(),
                    (None, Some(level)) => level.dirs.iter().flatten().map(AsFd::as_fd).collect(),
                    (None, None) => self.roots.to_vec(),
                };
                let Some(level) = self.levels.get(at) else { break };
                let next = merged(above, &level.name)?;
                found = Some(next);
            }
            if let Some(level) = self.levels.last_mut() {
                level.dirs = found;
            }
            self.give_back();
        }
        Ok(match self.levels.last() {
            None => self.roots.to_vec(),
            Some(level) => level.dirs.iter().flatten().map(AsFd::as_fd).collect(),
        })
    }

    /// Closes directories far up.
    fn give_back(&mut self) {
        let mut open: usize = self.levels.iter().filter_map(|level| level.dirs.as_ref()).map(Vec::len).sum();
        let above = self.levels.len().saturating_sub(1);
        for level in self.levels.iter_mut().take(above) {
            if open <= KEPT {
                break;
            }
            open -= level.dirs.take().map_or(0, |dirs| dirs.len());
        }
    }

    /// Whether something of this name is there.
    pub(super) fn has(&mut self, name: &OsStr) -> Result<bool> {
        for dir in self.dirs()? {
            if let Some(node) = Pinned::open(dir, name)? {
                return Ok(!node.is_whiteout()?);
            }
        }
        Ok(false)
    }

    /// All names that are there.
    pub(super) fn names(&mut self) -> Result<Vec<OsString>> {
        let mut names: BTreeMap<OsString, bool> = BTreeMap::new();
        for dir in self.dirs()? {
            // Seeking belongs to the open file: a descriptor of its own starts at the beginning.
            let own = open_at(dir, ".".as_ref(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .during(|| "open a directory of a layer below")?;
            for_each_entry(own.as_fd(), |name, kind| {
                if !names.contains_key(name) {
                    // Only these can be whiteouts.
                    let special = matches!(kind, FileType::CharacterDevice | FileType::RegularFile);
                    let hidden = special
                        && Pinned::open(own.as_fd(), name)?.map_or(Ok(true), |node| node.is_whiteout())?;
                    names.insert(name.to_owned(), !hidden);
                }
                Ok(())
            })?;
        }
        Ok(names.into_iter().filter_map(|(name, there)| there.then_some(name)).collect())
    }
}

/// The directories that make up `name`: down to the first that is opaque, or to what hides or is no directory.
fn merged(dirs: Vec<BorrowedFd<'_>>, name: &OsStr) -> Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for dir in dirs {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match open_at(dir, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR | Errno::LOOP) => break,
            Err(errno) => return Err(errno).during(|| format!("open {name:?} in a layer below")),
        };
        let Some(node) = Pinned::open(dir, name)? else { break };
        if let Some(what) = node.kernels_own()? {
            return Err(Error::new(ErrorKind::Unsupported, format!("{name:?} of a layer below is {what}")));
        }
        found.push(fd);
        if node.is_opaque()? {
            break;
        }
    }
    Ok(found)
}
