// SPDX-License-Identifier: MulanPSL-2.0
//! Removing what an entry or a whiteout replaces.
//!
//! Never follows a symbolic link, never crosses into another file system, and can spare entries by inode number.
//! Depth costs memory, not stack or descriptors: of the directories on the way down only the last is open, and the way
//! up is checked to lead to where it came from.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::archive::attributes;
use crate::archive::pax::show;
use crate::error::{During, Error, ErrorKind, Result};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Inode numbers of entries.
pub(super) type Inodes = HashSet<u64>;

/// What is to be done with what is found.
pub(super) trait Judge {
    /// Whether an entry stays.
    fn spares(&self, inode: u64) -> bool;
    /// Told of each regular file with content before it is removed.
    fn losing(&mut self, dir: BorrowedFd<'_>, name: &[u8], inode: u64) -> Result<()>;
}

/// Removes `name` in `dir` with everything below, but what is spared and the directories that lead to it. Absent is
/// fine. True when nothing remains.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &[u8], judge: &mut dyn Judge) -> Result<bool> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(true),
        Err(errno) => return Err(errno).during(|| format!("stat {}", show(name))),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        if judge.spares(stat.st_ino) {
            return Ok(false);
        }
        unlink(dir, name, FileType::from_raw_mode(stat.st_mode), stat.st_ino, judge)?;
        return Ok(true);
    }
    let fd = open(dir, name)?;
    let emptied = empty(fd.as_fd(), judge)?;
    if !emptied || judge.spares(stat.st_ino) {
        return Ok(false);
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
        .during(|| format!("remove directory {}", show(name)))?;
    Ok(true)
}

/// A directory on the way down.
struct Level {
    /// Name in the directory above.
    name: CString,
    stat: Stat,
    /// Directories in it not yet looked into.
    below: Vec<CString>,
    /// Whether something stays in it.
    stays: bool,
}

/// Removes everything in `dir` but what is spared. True when nothing remains. Directories that stay keep their times.
pub(super) fn empty(dir: BorrowedFd<'_>, judge: &mut dyn Judge) -> Result<bool> {
    let mut current = rustix::io::fcntl_dupfd_cloexec(dir, 0).during(|| "copy a descriptor")?;
    let stat = rustix::fs::fstat(&current).during(|| "stat a directory")?;
    let mut levels = vec![scan(&current, CString::default(), stat, judge)?];
    loop {
        let Some(level) = levels.last_mut() else { return Ok(true) };
        if let Some(name) = level.below.pop() {
            let next = open(current.as_fd(), name.to_bytes())?;
            let stat = rustix::fs::fstat(&next).during(|| "stat a directory")?;
            if stat.st_dev != level.stat.st_dev {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("directory {} is a mount point", show(name.to_bytes())),
                ));
            }
            levels.push(scan(&next, name, stat, judge)?);
            current = next;
            continue;
        }
        let Some(done) = levels.pop() else { return Ok(true) };
        let stays = done.stays || judge.spares(done.stat.st_ino);
        if stays {
            if !is_open(&done.stat) {
                let mode = Mode::from_raw_mode(done.stat.st_mode & 0o7777);
                rustix::fs::fchmod(&current, mode).during(|| "set mode of a directory")?;
            }
            let times = attributes::times_of_stat(&done.stat);
            rustix::fs::futimens(&current, &times).during(|| "set times of a directory")?;
        }
        let Some(parent) = levels.last_mut() else { return Ok(!done.stays) };
        current = up(&current, &parent.stat)?;
        if stays {
            parent.stays = true;
        } else {
            rustix::fs::unlinkat(&current, &done.name, AtFlags::REMOVEDIR)
                .during(|| format!("remove directory {}", show(done.name.to_bytes())))?;
        }
    }
}

/// Opens a directory, whose owner need not have been allowed to.
fn open(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let opened = match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => attributes::open_up(dir, name)
            .and_then(|()| rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())),
        opened => opened,
    };
    opened.during(|| format!("open directory {}", show(name)))
}

/// Whether its owner may look into and change a directory.
fn is_open(stat: &Stat) -> bool {
    Mode::from_raw_mode(stat.st_mode).contains(Mode::RWXU)
}

/// Removes what is no directory and lists the directories.
fn scan(dir: &OwnedFd, name: CString, stat: Stat, judge: &mut dyn Judge) -> Result<Level> {
    if !is_open(&stat) {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777).union(Mode::RWXU);
        rustix::fs::fchmod(dir, mode).during(|| "set mode of a directory")?;
    }
    let mut level = Level { name, stat, below: Vec::new(), stays: false };
    let entries = Dir::read_from(dir).during(|| "read a directory")?;
    for entry in entries {
        let entry = entry.during(|| "read a directory")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .during(|| format!("stat {}", show(name.to_bytes())))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        if kind == FileType::Directory {
            level.below.push(name.to_owned());
        } else if judge.spares(entry.ino()) {
            level.stays = true;
        } else {
            unlink(dir.as_fd(), name.to_bytes(), kind, entry.ino(), judge)?;
        }
    }
    Ok(level)
}

fn unlink(dir: BorrowedFd<'_>, name: &[u8], kind: FileType, inode: u64, judge: &mut dyn Judge) -> Result<()> {
    if kind == FileType::RegularFile {
        judge.losing(dir, name, inode).during(|| format!("save {}", show(name)))?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).during(|| format!("remove {}", show(name)))
}

fn up(dir: &OwnedFd, expected: &Stat) -> Result<OwnedFd> {
    let parent =
        rustix::fs::openat(dir, "..", DIRECTORY, Mode::empty()).during(|| "open the directory above")?;
    let stat = rustix::fs::fstat(&parent).during(|| "stat a directory")?;
    if (stat.st_dev, stat.st_ino) != (expected.st_dev, expected.st_ino) {
        return Err(Error::new(ErrorKind::InUse, "a directory was moved while it was being removed"));
    }
    Ok(parent)
}
