// SPDX-License-Identifier: MulanPSL-2.0
//! Files of a layer by what tar-split says of their entries.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::archive::tar_split::Record;
use crate::archive::tree::{Missing, Node, Tree};
use crate::archive::whiteout::{clean, split};
use crate::error::{During, Error, ErrorKind, Result};

fn missing(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::InvalidData => Error::corrupt("it is missing"),
        _ => error,
    }
}

/// A layer whose files are looked for.
pub(super) struct Files {
    tree: Tree,
    path: Vec<u8>,
}

impl Files {
    pub(super) fn open(layer: BorrowedFd<'_>) -> Result<Self> {
        Ok(Files { tree: Tree::open(layer, Missing::Fail)?, path: Vec::new() })
    }

    /// Finds the directory of an entry; `Corrupt` when it is not there. Its whole path is left in `path`.
    fn parent(&mut self, record: &Record) -> Result<Rc<Node>> {
        let name = record.path.as_ref().unwrap_or(&record.name);
        clean(name, &mut self.path).map_err(Error::corrupt)?;
        self.tree.dir(split(&self.path).0).map_err(missing)
    }

    /// The directory at a cleaned path; `Corrupt` when it is not there.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<Node>> {
        self.tree.dir(path).map_err(missing)
    }

    /// What is at a cleaned path, with its directory; `None` when nothing is.
    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Option<(Rc<Node>, Stat)>> {
        let (parent, name) = split(path);
        let dir = match self.tree.dir(parent) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                return Ok(None);
            }
            dir => dir?,
        };
        let found = match name {
            b"" => rustix::fs::fstat(&dir),
            name => rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW),
        };
        match found {
            Ok(stat) => Ok(Some((dir, stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).during(|| "stat"),
        }
    }

    /// Whether an entry is there, as a directory if that is what it has to be. `Corrupt` when not.
    pub(super) fn exists(&mut self, record: &Record) -> Result<()> {
        let dir = self.parent(record)?;
        match rustix::fs::statat(&dir, split(&self.path).1, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat)
                if record.name.ends_with(b"/")
                    && FileType::from_raw_mode(stat.st_mode) != FileType::Directory =>
            {
                Err(Error::corrupt("it is not a directory"))
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Err(Error::corrupt("it is missing")),
            Err(errno) => Err(errno).during(|| "stat"),
        }
    }

    /// The regular file of an entry and its size. `Corrupt` when there is none.
    pub(super) fn file(&mut self, record: &Record) -> Result<(File, u64)> {
        // Without blocking on a fifo that stands there instead.
        const READ: OFlags = OFlags::RDONLY
            .union(OFlags::NOFOLLOW)
            .union(OFlags::NONBLOCK)
            .union(OFlags::NOCTTY)
            .union(OFlags::CLOEXEC);
        let dir = self.parent(record)?;
        let fd = match rustix::fs::openat(&dir, split(&self.path).1, READ, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(Error::corrupt("it is missing")),
            Err(Errno::LOOP | Errno::NXIO) => return Err(Error::corrupt("it is not a regular file")),
            Err(errno) => return Err(errno).during(|| "open"),
        };
        let stat = rustix::fs::fstat(&fd).during(|| "stat")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::corrupt("it is not a regular file"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Ok((File::from(fd), size))
    }
}
