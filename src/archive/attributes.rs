// SPDX-License-Identifier: MulanPSL-2.0
//! Owner, mode, times and extended attributes of what an entry makes.
//!
//! Extended attributes: all are taken but `trusted.overlay.*` (an archive could redirect or graft directories of
//! other layers with them) and, where asked, every `trusted.*`. One that the file system does not know at all is left
//! out with a warning, as containers/storage does; without privileges so is one that needs them; every other failure
//! is an error. Access control lists come as attributes or as text; text that names somebody without a number is left
//! out with a warning. File flags (immutable, append-only) are not taken.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::archive::ApplyOptions;
use crate::archive::entry::Entry;
use crate::archive::pax::show;
use crate::archive::tree::Node;
use crate::archive::{acl, capability};
use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::filesystem_name;

pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
pub(super) const CAPABILITY: &[u8] = b"security.capability";
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

/// Owner and group that an entry asks for, shifted; `None` where owners are not taken.
pub(super) fn owner(entry: &Entry, options: &ApplyOptions) -> Result<Option<(Uid, Gid)>> {
    let shift = options.owner_shift;
    let id = |id: u64, shift: Option<u32>, what: &str| {
        // The highest number means "leave as it is" to the kernel.
        u32::try_from(id)
            .ok()
            .and_then(|id| id.checked_add(shift.unwrap_or(0)))
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| {
                let by = shift.map_or(String::new(), |shift| format!(" after a shift by {shift}"));
                Error::new(ErrorKind::InvalidData, format!("{what} id {id} is out of range{by}"))
            })
    };
    let uid = id(entry.uid, shift.map(|shift| shift.uid), "user")?;
    let gid = id(entry.gid, shift.map(|shift| shift.gid), "group")?;
    Ok(options.owners.then(|| (Uid::from_raw(uid), Gid::from_raw(gid))))
}

/// Owner and group of what no entry asks for: the root of the user namespace; `None` where that is whoever we are.
pub(super) fn root_owner(options: &ApplyOptions) -> Option<(Uid, Gid)> {
    let shift = options.owner_shift.filter(|_| options.owners)?;
    Some((Uid::from_raw(shift.uid), Gid::from_raw(shift.gid)))
}

/// Permission bits that an entry asks for.
pub(super) fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

/// Times that an entry asks for. An entry without an access time gets its modification time, so that unpacking twice
/// gives the same tree.
pub(super) fn times(entry: &Entry) -> Timestamps {
    let spec = |time: super::pax::Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    let mtime = spec(entry.mtime);
    Timestamps { last_access: entry.atime.map_or(mtime, spec), last_modification: mtime }
}

/// Times that a file has.
pub(super) fn times_of_stat(stat: &Stat) -> Timestamps {
    let nanos = |value: u64| i64::try_from(value).unwrap_or_default();
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
    }
}

/// What something new is known to have already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given {
    pub(super) owner: Option<(Uid, Gid)>,
    pub(super) mode: Option<Mode>,
}

/// Gives an open regular file or directory what its entry asks for, but its times and what it has. The order matters:
/// changing the owner clears set-uid and capabilities.
pub(super) fn set(fd: BorrowedFd<'_>, entry: &Entry, options: &ApplyOptions, given: Given) -> Result<()> {
    let owner = owner(entry, options)?;
    if owner != given.owner
        && let Some((uid, gid)) = owner
    {
        rustix::fs::fchown(fd, Some(uid), Some(gid)).during(|| "set owner")?;
    }
    let mode = mode(entry);
    if given.mode != Some(mode) {
        rustix::fs::fchmod(fd, mode).during(|| "set mode")?;
    }
    set_xattrs(fd, entry, options, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))
}

/// Gives a symbolic link, device or fifo just made what its entry asks for.
pub(super) fn set_special(
    dir: &Node,
    name: &[u8],
    entry: &Entry,
    options: &ApplyOptions,
    is_link: bool,
) -> Result<()> {
    use rustix::fs::AtFlags;
    let owner = owner(entry, options)?;
    if owner != dir.known_owner_of_new()
        && let Some((uid, gid)) = owner
    {
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .during(|| "set owner")?;
    }
    let has_xattrs = !entry.xattrs.is_empty() || entry.acl_access.is_some();
    if !is_link || has_xattrs || dir.inherits() {
        // It cannot be opened for real; its descriptor's name in /proc leads to it and nowhere else.
        let fd =
            rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .during(|| "open")?;
        let path = proc_path(&fd);
        if !is_link {
            if dir.inherits() {
                remove(rustix::fs::removexattr(path.as_str(), ACL_ACCESS))
                    .during(|| "remove inherited access control list")?;
            }
            rustix::fs::chmod(path.as_str(), mode(entry)).during(|| "set mode")?;
        }
        set_xattrs(fd.as_fd(), entry, options, |name, value| {
            rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty())
        })?;
    }
    rustix::fs::utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).during(|| "set times")
}

/// Lets the owner into a directory that cannot be opened without privileges.
pub(super) fn open_up(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    const PLACE: OFlags =
        OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let fd = rustix::fs::openat(dir, name, PLACE, Mode::empty())?;
    rustix::fs::chmod(proc_path(&fd).as_str(), Mode::RWXU)
}

pub(super) fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// What is wrong with an attribute that the kernel does not take. A full disk and a quota stay what they are: the archive
/// is not to blame.
fn refused(fd: BorrowedFd<'_>, entry: &Entry, name: &[u8], value: &[u8], errno: Errno) -> Error {
    let (shown, len) = (show(name), value.len());
    let (kind, message) = match errno {
        Errno::INVAL if name == CAPABILITY => (
            ErrorKind::InvalidData,
            format!("attribute {shown} of {len} bytes is malformed: no capabilities"),
        ),
        Errno::INVAL => (ErrorKind::InvalidData, format!("attribute {shown} of {len} bytes is malformed")),
        Errno::PERM if name.starts_with(b"user.") => {
            (ErrorKind::InvalidData, format!("attribute {shown} is for files and directories only"))
        }
        Errno::RANGE => (ErrorKind::LimitExceeded, format!("attribute {shown} has too long a name, or none")),
        Errno::TOOBIG => (
            ErrorKind::LimitExceeded,
            format!("attribute {shown} of {len} bytes is larger than the kernel takes"),
        ),
        Errno::NOSPC if has_room(fd) => {
            let bytes: usize = entry.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
            let count = entry.xattrs.len();
            let what = format!(
                "attribute {shown} does not fit: the file system has no room for the entry's {count} attributes of \
                 {bytes} bytes together"
            );
            (ErrorKind::LimitExceeded, what)
        }
        other => (ErrorKind::from_errno(other.raw_os_error()), format!("set attribute {shown}")),
    };
    Error::with_source(kind, message, std::io::Error::from(errno))
}

/// Whether the file system is not full: what has no room then is the file's own share. ext4 has a block for attributes.
/// xfs has no such share, and says the same of a project's quota, of which the numbers of a file's file system know nothing.
fn has_room(fd: BorrowedFd<'_>) -> bool {
    const BLOCKS: u64 = 64;
    if filesystem_name(fd).is_ok_and(|name| name == Some("xfs")) {
        return false;
    }
    rustix::fs::fstatvfs(fd)
        .is_ok_and(|stat| stat.f_bavail > BLOCKS && (stat.f_files == 0 || stat.f_ffree > 0))
}

fn set_xattrs(
    fd: BorrowedFd<'_>,
    entry: &Entry,
    options: &ApplyOptions,
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> Result<()> {
    let apply = |name: &[u8], value: &[u8]| match set(name, value) {
        Err(errno) if errno == Errno::OPNOTSUPP || (errno == Errno::PERM && !options.owners) => {
            log::warn!("{}: attribute {} left out: {errno}", show(&entry.name), show(name));
            Ok(())
        }
        result => result.map_err(|errno| refused(fd, entry, name, value, errno)),
    };
    for xattr in &entry.xattrs {
        let name = xattr.name.as_slice();
        if name.starts_with(b"trusted.overlay.") || (options.drop_trusted && name.starts_with(b"trusted.")) {
            continue;
        }
        if let Some(shift) = options.owner_shift
            && name == CAPABILITY
        {
            let value = capability::of_namespace(&xattr.value, shift.uid).ok_or_else(|| {
                Error::new(ErrorKind::InvalidData, format!("attribute {} is malformed", show(name)))
            })?;
            apply(name, &value)?;
            continue;
        }
        if let Some(shift) = options.owner_shift
            && (name == ACL_ACCESS || name == ACL_DEFAULT)
        {
            let value = acl::shifted(&xattr.value, shift).ok_or_else(|| {
                Error::new(ErrorKind::InvalidData, format!("attribute {} is malformed", show(name)))
            })?;
            apply(name, &value)?;
            continue;
        }
        apply(name, &xattr.value)?;
    }
    for (name, text) in [(ACL_ACCESS, &entry.acl_access), (ACL_DEFAULT, &entry.acl_default)] {
        let Some(text) = text else { continue };
        let list = acl::from_text(text);
        let list = match options.owner_shift {
            Some(shift) => list.and_then(|list| acl::shifted(&list, shift)),
            None => list,
        };
        match list {
            Some(list) => apply(name, &list)?,
            None => log::warn!("{}: access control list left out: {}", show(&entry.name), show(text)),
        }
    }
    Ok(())
}

/// Whether an entry gives its directory a list that new entries inherit.
pub(super) fn gives_default_acl(entry: &Entry) -> bool {
    entry.acl_default.is_some() || entry.xattrs.iter().any(|xattr| xattr.name == ACL_DEFAULT)
}

/// Whether new entries of a directory inherit an access control list. What cannot be read counts as "yes": the
/// answer only decides whether inherited lists are looked for.
pub(super) fn has_default_acl(fd: &OwnedFd) -> bool {
    match rustix::fs::fgetxattr_query(fd, ACL_DEFAULT) {
        Ok(_) => true,
        Err(errno) => errno != Errno::NODATA && errno != Errno::OPNOTSUPP,
    }
}

/// Removes lists that a new file or directory has inherited.
pub(super) fn remove_acls(fd: BorrowedFd<'_>) -> Result<()> {
    for name in [ACL_ACCESS, ACL_DEFAULT] {
        remove(rustix::fs::fremovexattr(fd, name)).during(|| "remove inherited access control list")?;
    }
    Ok(())
}

fn remove(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        // Only directories have a default list.
        Err(Errno::ACCESS) => Ok(()),
        result => result,
    }
}

/// Makes a directory hide the one below it.
pub(super) fn set_opaque(dir: &Node) -> Result<()> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
        .during(|| format!("make directory {} opaque", show(dir.path())))
}
