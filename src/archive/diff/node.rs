// SPDX-License-Identifier: MulanPSL-2.0
//! One entry of a tree, pinned: whatever becomes of its name, this is what is described and read.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat};
use rustix::io::Errno;

use crate::archive::content::BUFFER;
use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::at::{open_at, proc_path};
use crate::sys::xattr;

/// What overlayfs keeps for itself.
const OVERLAY: &[u8] = b"trusted.overlay.";
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";
const REDIRECT: &str = "trusted.overlay.redirect";
const METACOPY: &str = "trusted.overlay.metacopy";
const WHITEOUT: &str = "trusted.overlay.whiteout";
/// What a machine says of its own files.
const LOCAL: [&[u8]; 2] = [b"security.selinux", b"security.evm"];

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Xattr {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// See the module.
pub(super) struct Pinned {
    fd: OwnedFd,
    stat: Stat,
}

impl Pinned {
    /// The entry `name` of `dir`; `None` when there is none.
    pub(super) fn open(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Pinned>> {
        let fd = match open_at(dir, name, OFlags::PATH, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).during(|| "open"),
        };
        let stat = fstat(&fd).during(|| "stat")?;
        Ok(Some(Pinned { fd, stat }))
    }

    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or_default()
    }

    /// Attributes that belong to a layer, in byte order of their names.
    pub(super) fn xattrs(&self) -> Result<Vec<Xattr>> {
        let mut found = Vec::new();
        for name in xattr::list_named(self.fd.as_fd())? {
            let bytes = name.as_bytes();
            if bytes.starts_with(OVERLAY) || LOCAL.contains(&bytes) {
                continue;
            }
            if let Some(value) = xattr::get_named(self.fd.as_fd(), &name)? {
                found.push(Xattr { name: name.into_vec(), value });
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn overlay_mark(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match xattr::get_named(self.fd.as_fd(), name.as_ref()) {
            // Not for us without privileges: then the kernel took no notice of it either.
            Err(error) if error.kind() == ErrorKind::Os(libc::EPERM) => Ok(None),
            read => read,
        }
    }

    /// Whether it is the device that is a whiteout on an overlay, and in an archive for one.
    pub(super) fn is_device_zero(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }

    /// Whether it hides what is below it, in either of the kernel's ways.
    pub(super) fn is_whiteout(&self) -> Result<bool> {
        match self.kind() {
            FileType::CharacterDevice => Ok(self.is_device_zero()),
            FileType::RegularFile if self.stat.st_size == 0 => {
                self.overlay_mark(WHITEOUT).map(|mark| mark.is_some())
            }
            _ => Ok(false),
        }
    }

    pub(super) fn is_opaque(&self) -> Result<bool> {
        self.overlay_mark(OPAQUE).map(|mark| mark.as_deref() == Some(b"y"))
    }

    /// What makes it something else than it looks, for people.
    pub(super) fn kernels_own(&self) -> Result<Option<&'static str>> {
        let (mark, what) = match self.kind() {
            FileType::Directory => (REDIRECT, "a renamed directory whose content is in a layer below"),
            FileType::RegularFile => (METACOPY, "a file whose content is in a layer below"),
            _ => return Ok(None),
        };
        Ok(self.overlay_mark(mark)?.map(|_| what))
    }

    /// The target of a symbolic link.
    pub(super) fn target(&self) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.fd, c"", Vec::new()).during(|| "read symbolic link")?;
        Ok(target.into_bytes())
    }

    /// The content of a regular file.
    pub(super) fn content(&self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = proc_path(self.fd.as_fd(), None);
        // Being looked at is no change of a layer; but only owners may leave the time alone.
        let opened = match rustix::fs::open(&path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::open(&path, flags, Mode::empty()),
            opened => opened,
        };
        opened.map(File::from).during(|| "open")
    }

    /// Fails if a file that was read is not what it was.
    pub(super) fn check_unchanged(&self, file: &File) -> Result<()> {
        let now = fstat(file).during(|| "stat")?;
        if is_same_state(&self.stat, &now) { Ok(()) } else { Err(changed()) }
    }

    /// Whether it is the same but for its name and inode. With more names than the other it is not: the new ones can be links
    /// in an archive only if this one is in it.
    pub(super) fn is_same(&self, other: &Pinned) -> Result<bool> {
        if !is_same_meta(&self.stat, &other.stat) || self.stat.st_nlink > other.stat.st_nlink {
            return Ok(false);
        }
        match self.kind() {
            FileType::RegularFile if self.stat.st_size != other.stat.st_size => return Ok(false),
            FileType::Symlink if self.target()? != other.target()? => return Ok(false),
            FileType::CharacterDevice | FileType::BlockDevice if self.stat.st_rdev != other.stat.st_rdev => {
                return Ok(false);
            }
            _ => {}
        }
        if self.xattrs()? != other.xattrs()? {
            return Ok(false);
        }
        // Two views of one inode, such as two overlays on one layer, need not be read.
        if self.kind() != FileType::RegularFile
            || (self.stat.st_ino == other.stat.st_ino && is_same_state(&self.stat, &other.stat))
        {
            return Ok(true);
        }
        same_content(&self.content()?, &other.content()?, self.size())
    }
}

/// Type, mode, owner and modification time.
pub(super) fn is_same_meta(one: &Stat, other: &Stat) -> bool {
    one.st_mode == other.st_mode
        && (one.st_uid, one.st_gid) == (other.st_uid, other.st_gid)
        && (one.st_mtime, one.st_mtime_nsec) == (other.st_mtime, other.st_mtime_nsec)
}

/// Whether nothing has changed between two looks at one inode.
pub(super) fn is_same_state(one: &Stat, other: &Stat) -> bool {
    one.st_size == other.st_size
        && (one.st_mtime, one.st_mtime_nsec) == (other.st_mtime, other.st_mtime_nsec)
        && (one.st_ctime, one.st_ctime_nsec) == (other.st_ctime, other.st_ctime_nsec)
}

pub(super) fn changed() -> Error {
    Error::new(ErrorKind::InUse, "it changed while it was read")
}

fn same_content(one: &File, other: &File, size: u64) -> Result<bool> {
    let mut buffers = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut at = 0;
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(BUFFER);
        let left = buffers.0.get_mut(..most).unwrap_or_default();
        let right = buffers.1.get_mut(..most).unwrap_or_default();
        for (file, space) in [(one, &mut *left), (other, &mut *right)] {
            match file.read_exact_at(space, at) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(changed()),
                read => read.during(|| "read")?,
            }
        }
        if left != right {
            return Ok(false);
        }
        at += most as u64;
    }
    Ok(true)
}
