// SPDX-License-Identifier: MulanPSL-2.0
//! Directories as descriptors, and what is done below them.
//!
//! A [`Dir`] remembers the path it was opened by for messages only; every operation goes through the descriptor.
//! `name` arguments are one path component each; anything else is refused with `InvalidArgument`.
//!
//! A descriptor belongs to the mount it was opened in. After a directory was bound on itself
//! ([`crate::sys::mount::bind_private`]), descriptors from before are on the other side: what is mounted below them is
//! not seen through the path, and a rename between the two sides is `EXDEV` although the file system is one. Open
//! a directory after binding it.

pub(crate) mod at;
mod content;
mod copy;
mod magic;
mod remove;
mod small;
mod usage;
pub(crate) mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{During, Error, ErrorKind, Result};
use crate::units::Usage;

use at::{DIRECTORY, MODE_BITS, component, open_at, open_dir_at};
pub use magic::filesystem_name;
pub use small::{FewFiles, SmallFiles};

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
        let flags = DIRECTORY;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .during(|| format!("open directory {}", path.display()))?;
        // Messages and mount tables must stay true wherever the process goes later.
        let path = std::path::absolute(path).during(|| format!("find out where {} is", path.display()))?;
        Ok(Dir { fd, path })
    }

    /// A directory that was opened otherwise; `path` is what messages say of it.
    pub(crate) fn of(fd: OwnedFd, path: &Path) -> Dir {
        Dir { fd, path: path.to_owned() }
    }

    /// Makes `path` and what is missing above it with `mode`, sets `mode` on the last component even when it
    /// existed (as the reference does), makes new directories durable, and opens it.
    pub fn create_all(path: &Path, mode: u32) -> Result<Dir> {
        let mut missing = Vec::new();
        let mut at = path;
        let mut dir = loop {
            match Dir::open(if at.as_os_str().is_empty() { Path::new(".") } else { at }) {
                Ok(dir) => break dir,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else { return Err(error) };
                    missing.push(name);
                    at = parent;
                }
                Err(error) => return Err(error),
            }
        };
        let existed = missing.is_empty();
        while let Some(name) = missing.pop() {
            let below = dir.ensure_dir(name, mode)?;
            dir.sync()?;
            dir = below;
        }
        if existed {
            dir.set_mode(mode)?;
        }
        Ok(dir)
    }

    /// The path it was opened by; for messages and for what must be told to others (mount points).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode number of the directory itself.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.fd).during(|| format!("look at {}", self.path.display()))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// A second descriptor of the same directory.
    pub fn try_clone(&self) -> Result<Dir> {
        let fd = self.fd.try_clone().during(|| format!("open {} again", self.path.display()))?;
        Ok(Dir { fd, path: self.path.clone() })
    }

    /// Opens a directory below; a symbolic link or a file is an error (`Os(ENOTDIR)`/`Os(ELOOP)`).
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Dir> {
        let name = component(name.as_ref())?;
        let path = self.path.join(name);
        let fd = open_dir_at(self.as_fd(), name).during(|| format!("open directory {}", path.display()))?;
        Ok(Dir { fd, path })
    }

    /// Makes a directory below; exists already: `AlreadyExists`. `mode` is set exactly, whatever the umask.
    pub fn create_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Dir> {
        let name = component(name.as_ref())?;
        // Closed to others until the mode is what was asked for.
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode & 0o700))
            .during(|| self.doing("make directory", name))?;
        let made = self.open_dir(name).and_then(|dir| dir.set_mode(mode).map(|()| dir));
        if made.is_err()
            && let Err(error) = rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
        {
            log::warn!("{}: {error}", self.doing("remove half-made directory", name));
        }
        made
    }

    /// Makes a directory below unless it exists, and opens it; `mode` is set exactly in both cases.
    pub fn ensure_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Dir> {
        let name = component(name.as_ref())?;
        match self.create_dir(name, mode) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let dir = self.open_dir(name)?;
        dir.set_mode(mode)?;
        Ok(dir)
    }

    /// All entries but `.` and `..`, in directory order.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        at::for_each_entry(self.as_fd(), |name, file_type| {
            entries.push(Entry { name: name.to_owned(), kind: at::kind_of(file_type) });
            Ok(())
        })
        .during(|| format!("read {}", self.path.display()))?;
        Ok(entries)
    }

    /// `lstat` of an entry; `None` when it does not exist.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>> {
        let name = component(name.as_ref())?;
        let stat = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).during(|| self.doing("look at", name)),
        };
        Ok(Some(Stat {
            kind: at::kind_of(FileType::from_raw_mode(stat.st_mode)),
            mode: stat.st_mode & MODE_BITS,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
            inode: stat.st_ino,
            device: stat.st_dev,
            mtime: stat.st_mtime,
            mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }))
    }

    /// Whether `name` in the directory `below` is a directory and neither is a symbolic link. `false` also where that could
    /// not be found out in one step.
    pub fn is_dir_below(&self, below: &str, name: &str) -> bool {
        small::is_dir_below(self.as_fd(), below, name)
    }

    /// Reads a whole regular file of at most `limit` bytes; larger: `LimitExceeded`; absent: `NotFound`; a symbolic
    /// link or other kind: an error. Never blocks on a fifo.
    pub fn read(&self, name: impl AsRef<OsStr>, limit: u64) -> Result<Vec<u8>> {
        let name = name.as_ref();
        let (file, size) = self.open_regular(component(name)?, OFlags::RDONLY)?;
        let too_large = || {
            Error::new(ErrorKind::LimitExceeded, format!("larger than {limit} bytes"))
                .context(self.doing("read", name))
        };
        if size > limit {
            return Err(too_large());
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        // What is all that there is needs no second read to find the end.
        let known = if size > 0 { size } else { limit.saturating_add(1) };
        file.take(known).read_to_end(&mut content).during(|| self.doing("read", name))?;
        if u64::try_from(content.len()).is_ok_and(|len| len > limit) {
            return Err(too_large());
        }
        Ok(content)
    }

    /// Opens a regular file for reading, never following a symbolic link.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> Result<File> {
        self.open_regular(component(name.as_ref())?, OFlags::RDONLY).map(|(file, _)| file)
    }

    /// The same for writing over what is in it. Not for what must be whole after a crash.
    pub fn open_file_in_place(&self, name: impl AsRef<OsStr>) -> Result<File> {
        self.open_regular(component(name.as_ref())?, OFlags::RDWR).map(|(file, _)| file)
    }

    /// The file and its size in bytes.
    fn open_regular(&self, name: &OsStr, access: OFlags) -> Result<(File, u64)> {
        let irregular = |kind: FileKind| {
            let what = match kind {
                FileKind::Dir => "a directory",
                FileKind::Symlink => "a symbolic link",
                FileKind::File | FileKind::Other => "a special file",
            };
            Error::corrupt(format!("it is {what}, not a regular file")).context(self.doing("open", name))
        };
        // Looked at first: opening a device could have effects, opening a fifo would find its other end.
        match self.stat(name)? {
            Some(stat) if stat.kind != FileKind::File => return Err(irregular(stat.kind)),
            Some(_) | None => {}
        }
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = open_at(self.as_fd(), name, flags, Mode::empty()).during(|| self.doing("open", name))?;
        let stat = rustix::fs::fstat(&fd).during(|| self.doing("look at", name))?;
        match at::kind_of(FileType::from_raw_mode(stat.st_mode)) {
            FileKind::File => Ok((File::from(fd), u64::try_from(stat.st_size).unwrap_or(0))),
            other => Err(irregular(other)),
        }
    }

    /// Makes a new file for writing (`O_EXCL`); `mode` is set exactly.
    pub fn create_file(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<File> {
        let name = component(name.as_ref())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fd = open_at(self.as_fd(), name, flags, Mode::from_raw_mode(mode & 0o600))
            .during(|| self.doing("make file", name))?;
        if let Err(error) = at::set_mode(fd.as_fd(), mode) {
            if let Err(error) = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
                log::warn!("{}: {error}", self.doing("remove half-made file", name));
            }
            return Err(error).during(|| self.doing("set the mode of", name));
        }
        Ok(File::from(fd))
    }

    /// Makes a symbolic link `name` with this target.
    pub fn symlink(&self, target: &Path, name: impl AsRef<OsStr>) -> Result<()> {
        let name = component(name.as_ref())?;
        rustix::fs::symlinkat(target, &self.fd, name).during(|| self.doing("make symbolic link", name))
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let name = component(name.as_ref())?;
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .during(|| self.doing("read symbolic link", name))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Whether `name` is a symbolic link with a target of at most 511 bytes of which `wanted` is true; nothing is allocated
    /// for it. `false` also where it could not be read.
    pub fn is_link(&self, name: impl AsRef<OsStr>, wanted: impl FnOnce(&[u8]) -> bool) -> bool {
        let Ok(name) = component(name.as_ref()) else { return false };
        let mut target = [0; 512];
        let room = target.len();
        match rustix::fs::readlinkat_raw(&self.fd, name, &mut target) {
            // One that fills all the room may have been cut off.
            Ok(length) if length < room => target.get(..length).is_some_and(wanted),
            _ => false,
        }
    }

    /// Renames `name` to `to/new_name`, replacing a file there.
    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Dir, new_name: impl AsRef<OsStr>) -> Result<()> {
        let (name, new_name) = (component(name.as_ref())?, component(new_name.as_ref())?);
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name)
            .during(|| format!("{} to {}", self.doing("rename", name), to.path.join(new_name).display()))
    }

    /// Renames without replacing (`RENAME_NOREPLACE`); the target exists: `AlreadyExists`.
    pub fn rename_new(&self, name: impl AsRef<OsStr>, to: &Dir, new_name: impl AsRef<OsStr>) -> Result<()> {
        let (name, new_name) = (component(name.as_ref())?, component(new_name.as_ref())?);
        let doing = || format!("{} to {}", self.doing("rename", name), to.path.join(new_name).display());
        match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
            // The file system (or a very old kernel) knows no flags. Not atomic then: the store's lock, not this
            // call, keeps others away.
            Err(Errno::INVAL | Errno::NOSYS) => match to.stat(new_name)? {
                Some(_) => Err(Error::new(ErrorKind::AlreadyExists, "it exists already").context(doing())),
                None => rustix::fs::renameat(&self.fd, name, &to.fd, new_name).during(doing),
            },
            other => other.during(doing),
        }
    }

    /// Removes a file or symbolic link; absent is fine. Returns whether something was removed.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        let name = component(name.as_ref())?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).during(|| self.doing("remove", name)),
        }
    }

    /// Removes an empty directory; absent is fine. Returns whether something was removed.
    pub fn remove_empty_dir(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        let name = component(name.as_ref())?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).during(|| self.doing("remove directory", name)),
        }
    }

    /// Removes an entry and all below it without following symbolic links and without crossing into another file
    /// system (a mount below is an error `InUse`, never emptied); immutable flags are cleared; absent is fine.
    /// Depth is limited by memory, not by the stack or by open descriptors.
    pub fn remove_all(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        remove::remove_all(self, component(name.as_ref())?)
    }

    /// Makes changes of the directory itself durable (names made, renamed, removed).
    pub fn sync(&self) -> Result<()> {
        match retry_on_intr(|| rustix::fs::fsync(&self.fd)) {
            // A file system that knows no fsync of directories has nothing to flush for them.
            Err(Errno::INVAL) => Ok(()),
            other => other.during(|| format!("sync directory {}", self.path.display())),
        }
    }

    /// Makes the whole file system below durable (`syncfs`).
    pub fn sync_fs(&self) -> Result<()> {
        retry_on_intr(|| rustix::fs::syncfs(&self.fd))
            .during(|| format!("sync file system of {}", self.path.display()))
    }

    /// Sum of the apparent sizes and number of entries of `self` and everything below it (the reference's
    /// `util_calculate_dir_size`: directories count with their own size, hard links each time).
    pub fn usage(&self) -> Result<Usage> {
        usage::usage(self).during(|| format!("measure {}", self.path.display()))
    }

    /// Copies `name` with everything below to `to/new_name`: owner, mode, times, xattrs, hard links, devices, sparse
    /// files; content by reflink where the file system can. For the vfs driver.
    pub fn copy_tree(&self, name: impl AsRef<OsStr>, to: &Dir, new_name: impl AsRef<OsStr>) -> Result<()> {
        copy::copy_tree(self, component(name.as_ref())?, to, component(new_name.as_ref())?)
    }

    /// Number of bytes free for this process on the file system.
    pub fn free_space(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.fd)
            .during(|| format!("ask for free space of {}", self.path.display()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl Dir {
    fn doing(&self, what: &str, name: &OsStr) -> String {
        format!("{what} {}", self.path.join(name).display())
    }

    /// Sets the mode of the directory itself unless it has it.
    fn set_mode(&self, mode: u32) -> Result<()> {
        at::set_mode(self.as_fd(), mode).during(|| format!("set the mode of {}", self.path.display()))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Lower-case hexadecimal text of `len` characters from the kernel's random source.
pub fn random_hex(len: usize) -> Result<String> {
    use std::fmt::Write;
    let mut bytes = vec![0u8; len.div_ceil(2)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).during(|| "ask for random bytes"),
        }
    }
    let mut text = bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    });
    text.truncate(len);
    Ok(text)
}

#[cfg(test)]
mod tests;
