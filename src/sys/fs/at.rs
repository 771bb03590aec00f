// SPDX-License-Identifier: MulanPSL-2.0
//! Single steps below a directory descriptor: the name check, opening without following links, identities.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, fstat,
    ioctl_getflags, ioctl_setflags, openat, openat2, statx,
};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::fs::FileKind;

/// All permission bits, set-uid, set-gid and sticky.
pub(super) const MODE_BITS: u32 = 0o7777;

/// How a directory is opened: readable, so that it can be listed and synced.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Checks that `name` is one path component that names an entry.
pub(crate) fn component(name: &OsStr) -> Result<&OsStr> {
    let bytes = name.as_bytes();
    let why = match bytes {
        b"" => "it is empty",
        b"." | b".." => "it is not an entry of its own",
        _ if bytes.contains(&b'/') => "it contains a slash",
        _ if bytes.contains(&0) => "it contains a NUL byte",
        _ => return Ok(name),
    };
    let shown: String = name.to_string_lossy().chars().take(80).collect();
    Err(Error::new(ErrorKind::InvalidArgument, format!("file name {shown:?} is not valid: {why}")))
}

/// Opens one component below `dir`; a symbolic link is never followed (`ELOOP`, or `ENOTDIR` for a directory).
///
/// `openat2` came with Linux 5.6 and some seccomp filters answer `EPERM` for what they do not know; with one
/// component `O_NOFOLLOW` keeps the same promise.
pub(crate) fn open_at(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // openat2 takes a mode only with O_CREAT.
    let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
    // It resolves no link at all, also not the one that O_PATH wants to hold.
    if !flags.contains(OFlags::PATH) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match retry_on_intr(|| openat2(dir, name, flags, mode, resolve)) {
            Err(Errno::NOSYS | Errno::PERM) => {}
            other => return other,
        }
    }
    retry_on_intr(|| openat(dir, name, flags, mode))
}

/// Opens a directory below `dir` for listing.
pub(super) fn open_dir_at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    open_at(dir, name, DIRECTORY, Mode::empty())
}

/// Sets the mode of what is open unless it has it: looking costs less than a change that changes nothing.
pub(super) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    if fstat(fd)?.st_mode & MODE_BITS == mode & MODE_BITS {
        return Ok(());
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & MODE_BITS))
}

/// Sets the mode of something that may not be openable, through a descriptor that only names it.
pub(super) fn chmod_at(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> rustix::io::Result<()> {
    let fd = open_at(dir, name, OFlags::PATH, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    // fchmod refuses O_PATH descriptors; their /proc link does not, and leads to exactly this inode.
    rustix::fs::chmod(proc_path(fd.as_fd(), None), Mode::from_raw_mode(mode & MODE_BITS))
}

/// `/proc/self/fd/N` or `/proc/self/fd/N/name`: a path for system calls that take no descriptor.
pub(crate) fn proc_path(fd: BorrowedFd<'_>, name: Option<&OsStr>) -> std::path::PathBuf {
    let mut path = std::path::PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    path.extend(name);
    path
}

/// Which inode a descriptor stands for, and in which mount it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Device number of the file system.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
    /// Mount, where the kernel tells (Linux 5.8).
    mount: Option<u64>,
}

impl Identity {
    /// Asks the kernel.
    pub(super) fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Identity> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        match statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, wanted) {
            Ok(stat) => Ok(Identity {
                device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
                mount: (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id),
            }),
            Err(Errno::NOSYS) => {
                let stat = fstat(fd)?;
                Ok(Identity { device: stat.st_dev, inode: stat.st_ino, mount: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether both are the same inode.
    pub(super) fn same_inode(&self, other: &Identity) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether both were reached in the same mount; without mount ids, a bind mount of the same file system
    /// cannot be told apart.
    pub(super) fn same_mount(&self, other: &Identity) -> bool {
        match (self.mount, other.mount) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.device == other.device,
        }
    }
}

/// Whether an entry is the root of a mount, or `None` when this kernel does not say (before Linux 5.8).
pub(crate) fn is_mount_root(dir: BorrowedFd<'_>, path: &std::path::Path) -> rustix::io::Result<Option<bool>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(dir, path, flags, StatxFlags::TYPE) {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(Some(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
        }
        Ok(_) | Err(Errno::NOSYS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes what is open changeable: clears the immutable and append-only flags and, for a directory, gives the
/// owner all rights. Best effort: the operation that is tried again afterwards has the say.
pub(super) fn try_unprotect(fd: BorrowedFd<'_>) {
    let locked = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = ioctl_getflags(fd)
        && flags.intersects(locked)
        && let Err(error) = ioctl_setflags(fd, flags.difference(locked))
    {
        log::debug!("clear immutable flag: {error}");
    }
    if let Ok(stat) = fstat(fd)
        && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        && stat.st_mode & 0o700 != 0o700
        && let Err(error) = rustix::fs::fchmod(fd, Mode::from_raw_mode((stat.st_mode | 0o700) & MODE_BITS))
    {
        log::debug!("make directory writable: {error}");
    }
}

/// The kind of a file type of the kernel.
pub(super) fn kind_of(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Dir,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

/// Entries of a directory but `.` and `..`, one call of `each` for every one, without holding them all.
/// An entry that vanishes meanwhile is left out.
pub(crate) fn for_each_entry(
    dir: BorrowedFd<'_>,
    mut each: impl FnMut(&OsStr, FileType) -> Result<()>,
) -> Result<()> {
    use crate::error::During;
    let mut listing = rustix::fs::Dir::read_from(dir).during(|| "list directory")?;
    while let Some(entry) = listing.read() {
        let entry = entry.during(|| "list directory")?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let file_type = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).during(|| format!("look at {name:?}")),
            },
            known => known,
        };
        each(name, file_type)?;
    }
    Ok(())
}
