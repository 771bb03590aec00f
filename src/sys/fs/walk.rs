// SPDX-License-Identifier: MulanPSL-2.0
//! A place in a tree that moves down and up one directory at a time.
//!
//! A tree may be deeper than descriptors, stack or `PATH_MAX` allow: only the nearest ancestors are kept open, those
//! further up are reached again by `..` and recognised by their inode, so that a directory which somebody moved
//! meanwhile ends the walk instead of leading it out of the tree.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::at::{DIRECTORY, Identity, open_dir_at};
use crate::sys::fs::{Dir, at};

/// Ancestors kept open: enough for nearly every real tree, few enough for every limit on descriptors.
const OPEN_ANCESTORS: usize = 32;

/// Path components shown in a message.
const SHOWN_COMPONENTS: usize = 8;

/// What [`Cursor::down`] met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The cursor is in the directory now.
    Entered,
    /// There is no such entry (any more).
    Gone,
    /// It is not a directory (any more).
    NotDir,
}

/// Whether the walk may enter other mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// They belong to the tree.
    Cross,
    /// They are an error, `InUse`.
    Refuse,
}

struct Level {
    /// Name of the directory that was entered from here.
    entered: OsString,
    identity: Identity,
    fd: Option<OwnedFd>,
}

/// See the module.
pub(crate) struct Cursor {
    base: PathBuf,
    fd: OwnedFd,
    identity: Identity,
    levels: Vec<Level>,
    mounts: Mounts,
}

impl Cursor {
    /// Starts in `dir`.
    pub(crate) fn at(dir: &Dir, mounts: Mounts) -> Result<Cursor> {
        let fd = dir.fd.try_clone().during(|| format!("open {}", dir.path.display()))?;
        let identity = Identity::of(fd.as_fd()).during(|| format!("look at {}", dir.path.display()))?;
        Ok(Cursor { base: dir.path.clone(), fd, identity, levels: Vec::new(), mounts })
    }

    /// The same from a descriptor; `base` is for messages.
    pub(crate) fn at_fd(fd: BorrowedFd<'_>, base: &Path, mounts: Mounts) -> Result<Cursor> {
        let fd = at::open_at(fd, ".".as_ref(), DIRECTORY, Mode::empty())
            .during(|| format!("open {}", base.display()))?;
        let identity = Identity::of(fd.as_fd()).during(|| format!("look at {}", base.display()))?;
        Ok(Cursor { base: base.to_owned(), fd, identity, levels: Vec::new(), mounts })
    }

    /// The directory it is in.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Which directory it is in.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How far it is below the start.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Enters a directory. When it may not be read, its owner's rights are restored first (`force`).
    pub(crate) fn down(&mut self, name: &OsStr, force: bool) -> Result<Step> {
        let opened = match open_dir_at(self.fd(), name) {
            Err(Errno::ACCESS) if force => {
                at::chmod_at(self.fd(), name, 0o700).and_then(|()| open_dir_at(self.fd(), name))
            }
            other => other,
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Step::Gone),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Step::NotDir),
            Err(error) => return Err(error).during(|| format!("open directory {}", self.show(name))),
        };
        let identity = Identity::of(fd.as_fd()).during(|| format!("look at {}", self.show(name)))?;
        if self.mounts == Mounts::Refuse && !identity.same_mount(&self.identity) {
            let message = format!("{} is a mount point: unmount it first", self.show(name));
            return Err(Error::new(ErrorKind::InUse, message));
        }
        let above = std::mem::replace(&mut self.fd, fd);
        let identity = std::mem::replace(&mut self.identity, identity);
        self.levels.push(Level { entered: name.to_owned(), identity, fd: Some(above) });
        if let Some(far) = self.levels.len().checked_sub(OPEN_ANCESTORS + 1)
            && let Some(level) = self.levels.get_mut(far)
        {
            level.fd = None;
        }
        Ok(Step::Entered)
    }

    /// Goes up again; the name of the directory that was left. `None` at the start.
    pub(crate) fn up(&mut self) -> Result<Option<OsString>> {
        let Some(level) = self.levels.pop() else { return Ok(None) };
        let fd = match level.fd {
            Some(fd) => fd,
            None => {
                let fd = rustix::fs::openat(&self.fd, c"..", DIRECTORY, Mode::empty())
                    .during(|| format!("open the directory above {}", self.show(&level.entered)))?;
                let identity = Identity::of(fd.as_fd()).during(|| "look at a directory")?;
                if !identity.same_inode(&level.identity) {
                    let message = format!("{} was moved meanwhile", self.show(&level.entered));
                    return Err(Error::new(ErrorKind::InUse, message));
                }
                fd
            }
        };
        self.fd = fd;
        self.identity = level.identity;
        Ok(Some(level.entered))
    }

    /// Names of the directories between the start and here.
    pub(crate) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.levels.iter().map(|level| level.entered.as_os_str())
    }

    /// A path for messages; the middle of a very long one is left out.
    pub(crate) fn show(&self, name: &OsStr) -> String {
        let mut path = self.base.clone();
        let hidden = self.levels.len().saturating_sub(SHOWN_COMPONENTS);
        if hidden > 0 {
            path.push("…");
        }
        path.extend(self.names().skip(hidden));
        path.push(Path::new(name));
        path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::TestRoot;

    fn descend(root: &TestRoot, depth: usize) -> Cursor {
        let dir = Dir::open(root.path()).unwrap();
        let mut cursor = Cursor::at(&dir, Mounts::Refuse).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(cursor.fd(), "d", Mode::RWXU).unwrap();
            assert_eq!(cursor.down(OsStr::new("d"), false).unwrap(), Step::Entered);
        }
        cursor
    }

    #[test]
    fn few_descriptors_are_open_and_the_way_back_is_found() {
        let root = TestRoot::in_memory("walk");
        let mut cursor = descend(&root, 300);
        assert_eq!(cursor.levels.iter().filter(|level| level.fd.is_some()).count(), OPEN_ANCESTORS);
        let mut steps = 0;
        while let Some(name) = cursor.up().unwrap() {
            assert_eq!(name, "d");
            steps += 1;
        }
        assert_eq!((steps, cursor.depth()), (300, 0));
        let start = Dir::open(root.path()).unwrap();
        assert!(cursor.identity().same_inode(&Identity::of(start.as_fd()).unwrap()));
    }

    #[test]
    fn a_directory_that_was_moved_away_ends_the_walk() {
        let root = TestRoot::in_memory("walk");
        let mut cursor = descend(&root, 60);
        std::fs::create_dir(root.join("elsewhere")).unwrap();
        #[allow(clippy::disallowed_methods, reason = "test")]
        std::fs::rename(root.join("d/d/d/d/d"), root.join("elsewhere/d")).unwrap();
        let error = std::iter::from_fn(|| cursor.up().transpose()).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
        assert!(error.report().contains("moved meanwhile"), "{}", error.report());
    }

    #[test]
    fn long_ways_are_shown_short() {
        let root = TestRoot::in_memory("walk");
        let cursor = descend(&root, 100);
        let shown = cursor.show(OsStr::new("x"));
        assert_eq!(shown, format!("{}/…/d/d/d/d/d/d/d/d/x", root.path().display()));
    }
}
