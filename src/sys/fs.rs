// SPDX-License-Identifier: MulanPSL-2.0
//! Directories as descriptors, and what is done below them.
//!
//! A [`Dir`] remembers the path it was opened by for messages only; every operation goes through the descriptor.
//! `name` arguments are one path component each; anything else is refused with `InvalidArgument`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::units::Usage;

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Anything else: device, fifo, socket.
    Other,
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name, one path component.
    pub name: OsString,
    /// What it is, without following a symbolic link.
    pub kind: FileKind,
}

/// What `lstat` says of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, set-uid, set-gid and sticky.
    pub mode: u32,
    /// Apparent size in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number.
    pub inode: u64,
    /// Device number of the file system.
    pub device: u64,
    /// Modification time, seconds.
    pub mtime: i64,
    /// Modification time, nanoseconds.
    pub mtime_nanos: u32,
}

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens an existing directory (symbolic links in `path` are followed: the operator may have moved the store).
    pub fn open(path: &Path) -> Result<Dir> {
        todo!()
    }

    /// Makes `path` and what is missing above it with `mode`, sets `mode` on the last component even when it
    /// existed (as the reference does), makes new directories durable, and opens it.
    pub fn create_all(path: &Path, mode: u32) -> Result<Dir> {
        todo!()
    }

    /// The path it was opened by; for messages and for what must be told to others (mount points).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A second descriptor of the same directory.
    pub fn try_clone(&self) -> Result<Dir> {
        todo!()
    }

    /// Opens a directory below; a symbolic link or a file is an error (`Os(ENOTDIR)`/`Os(ELOOP)`).
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Dir> {
        todo!()
    }

    /// Makes a directory below; exists already: `AlreadyExists`. `mode` is set exactly, whatever the umask.
    pub fn create_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Dir> {
        todo!()
    }

    /// Makes a directory below unless it exists, and opens it; `mode` is set exactly in both cases.
    pub fn ensure_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Dir> {
        todo!()
    }

    /// All entries but `.` and `..`, in directory order.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        todo!()
    }

    /// `lstat` of an entry; `None` when it does not exist.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>> {
        todo!()
    }

    /// Reads a whole regular file of at most `limit` bytes; larger: `LimitExceeded`; absent: `NotFound`; a symbolic
    /// link or other kind: an error. Never blocks on a fifo.
    pub fn read(&self, name: impl AsRef<OsStr>, limit: u64) -> Result<Vec<u8>> {
        todo!()
    }

    /// Opens a regular file for reading, never following a symbolic link.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> Result<File> {
        todo!()
    }

    /// Makes a new file for writing (`O_EXCL`); `mode` is set exactly.
    pub fn create_file(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<File> {
        todo!()
    }

    /// Makes a symbolic link `name` with this target.
    pub fn symlink(&self, target: &Path, name: impl AsRef<OsStr>) -> Result<()> {
        todo!()
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> Result<PathBuf> {
        todo!()
    }

    /// Renames `name` to `to/new_name`, replacing a file there.
    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Dir, new_name: impl AsRef<OsStr>) -> Result<()> {
        todo!()
    }

    /// Renames without replacing (`RENAME_NOREPLACE`); the target exists: `AlreadyExists`.
    pub fn rename_new(&self, name: impl AsRef<OsStr>, to: &Dir, new_name: impl AsRef<OsStr>) -> Result<()> {
        todo!()
    }

    /// Removes a file or symbolic link; absent is fine. Returns whether something was removed.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        todo!()
    }

    /// Removes an entry and all below it without following symbolic links and without crossing into another file
    /// system (a mount below is an error `InUse`, never emptied); immutable flags are cleared; absent is fine.
    /// Depth is limited by memory, not by the stack or by open descriptors.
    pub fn remove_all(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        todo!()
    }

    /// Makes changes of the directory itself durable (names made, renamed, removed).
    pub fn sync(&self) -> Result<()> {
        todo!()
    }

    /// Makes the whole file system below durable (`syncfs`).
    pub fn sync_fs(&self) -> Result<()> {
        todo!()
    }

    /// Sum of the apparent sizes and number of entries of `self` and everything below it (the reference's
    /// `util_calculate_dir_size`: directories count with their own size, hard links each time).
    pub fn usage(&self) -> Result<Usage> {
        todo!()
    }

    /// Copies `name` with everything below to `to/new_name`: owner, mode, times, xattrs, hard links, devices, sparse
    /// files; content by reflink where the file system can. For the vfs driver.
    pub fn copy_tree(&self, name: impl AsRef<OsStr>, to: &Dir, new_name: impl AsRef<OsStr>) -> Result<()> {
        todo!()
    }

    /// Number of bytes free for this process on the file system.
    pub fn free_space(&self) -> Result<u64> {
        todo!()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Name of a file system by its magic number: the reference's table (`extfs`, `xfs`, `tmpfs`, `overlayfs`, …),
/// `None` for a number not in it.
pub fn filesystem_name(dir: BorrowedFd<'_>) -> Result<Option<&'static str>> {
    todo!()
}

/// Lower-case hexadecimal text of `len` characters from the kernel's random source.
pub fn random_hex(len: usize) -> Result<String> {
    todo!()
}
