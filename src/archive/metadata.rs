// SPDX-License-Identifier: MulanPSL-2.0
//! What is in a tree compared with the headers of its entry.
//!
//! Only what an entry makes is compared, and nothing that a mount, the kernel or a label changes: no times, no attribute
//! that the entry does not have, no `trusted.overlay.*`, no security labels. Where a file system or the rights of this
//! process keep an attribute from being seen, nothing is said of it.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use crate::archive::attributes::{ACL_ACCESS, ACL_DEFAULT, CAPABILITY, OPAQUE, proc_path};
use crate::archive::entry::{Entry, Kind};
use crate::archive::pax::show;
use crate::archive::tree::Node;
use crate::archive::unpack::device_number;
use crate::archive::{OwnerShift, VerifyOptions, acl};
use crate::error::{During, Error, Result};

/// Longest value of an attribute that Linux has.
const VALUE_MAX: usize = 64 << 10;
/// Bytes of an access control list before its entries, and of an entry.
const LIST_HEAD: usize = 4;
const LIST_ENTRY: usize = 8;
/// Entries of a list that says what the mode says: it is not kept.
const PLAIN_LIST: usize = 3;

fn kind_of(kind: Kind) -> Option<FileType> {
    match kind {
        Kind::File => Some(FileType::RegularFile),
        // To anything but a directory.
        Kind::HardLink => None,
        Kind::Symlink => Some(FileType::Symlink),
        Kind::CharDevice => Some(FileType::CharacterDevice),
        Kind::BlockDevice => Some(FileType::BlockDevice),
        Kind::Directory => Some(FileType::Directory),
        Kind::Fifo => Some(FileType::Fifo),
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Symlink => "a symbolic link",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Directory => "a directory",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::Unknown => "of no known type",
    }
}

/// Type, target, device number, and the size of a file that has to be empty: what a container could not do without.
/// `Corrupt` for a difference, as in all that follow.
pub(super) fn compare_kind(dir: &Node, name: &[u8], stat: &Stat, entry: &Entry) -> Result<()> {
    let found = FileType::from_raw_mode(stat.st_mode);
    let differs = |what: String| Err(Error::corrupt(what));
    match kind_of(entry.kind) {
        None if found == FileType::Directory => {
            return differs("it is a directory, the layer had a hard link".to_owned());
        }
        Some(expected) if expected != found => {
            return differs(format!("it is {}, the layer had {}", word(found), word(expected)));
        }
        _ => {}
    }
    match entry.kind {
        Kind::File if entry.size == 0 && stat.st_size != 0 => {
            differs(format!("it has {} bytes, the layer had 0", stat.st_size))
        }
        Kind::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).during(|| "read symbolic link")?;
            if target.as_bytes() == entry.link {
                return Ok(());
            }
            differs(format!("it leads to {}, the layer had {}", show(target.as_bytes()), show(&entry.link)))
        }
        Kind::CharDevice | Kind::BlockDevice => match device_number(entry.device) {
            Ok(device) if device != stat.st_rdev => {
                let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                let (major, minor) = entry.device;
                differs(format!("it is device {}:{}, the layer had {major}:{minor}", found.0, found.1))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Owner, permissions and attributes. What a hard link says of them counts for nothing.
pub(super) fn compare_attributes(
    dir: &Node,
    name: &[u8],
    stat: &Stat,
    entry: &Entry,
    options: &VerifyOptions,
    owners: bool,
) -> Result<()> {
    if entry.kind == Kind::HardLink {
        return Ok(());
    }
    if owners {
        let shift = options.owner_shift.unwrap_or(OwnerShift { uid: 0, gid: 0 });
        let expected =
            (entry.uid.saturating_add(shift.uid.into()), entry.gid.saturating_add(shift.gid.into()));
        if expected != (stat.st_uid.into(), stat.st_gid.into()) {
            let (uid, gid) = expected;
            let what = format!("its owner is {}:{}, the layer had {uid}:{gid}", stat.st_uid, stat.st_gid);
            return Err(Error::corrupt(what));
        }
    }
    let lists = lists(entry);
    // A list has its own permissions for owner, group and others.
    let has_list = entry.acl_access.is_some() || entry.xattrs.iter().any(|xattr| xattr.name == ACL_ACCESS);
    if entry.kind != Kind::Symlink && !has_list {
        // Without privileges the system may have left out the set-group-id bit.
        let compared = if owners { 0o7777 } else { 0o777 };
        let (found, expected) = (stat.st_mode & compared, entry.mode & compared);
        if found != expected {
            let what = format!("its mode is {found:04o}, the layer had {expected:04o}");
            return Err(Error::corrupt(what));
        }
    }
    if entry.xattrs.is_empty() && lists.is_empty() {
        return Ok(());
    }
    let place = Place::open(dir, name)?;
    for list in lists {
        if place.value(list)?.is_missing() {
            return Err(Error::corrupt(format!("its attribute {} is missing", show(list))));
        }
    }
    for xattr in &entry.xattrs {
        let name = xattr.name.as_slice();
        // Without privileges the others are left out, and these where they cannot be.
        let needs_rights = !name.starts_with(b"user.") || !matches!(entry.kind, Kind::File | Kind::Directory);
        if is_of_others(name) || (needs_rights && !owners) {
            continue;
        }
        let what = match place.value(name)? {
            Value::Unknown => continue,
            Value::Missing => "is missing",
            // Written for one namespace and read in another, it has another form.
            Value::Is(_) if name == CAPABILITY => continue,
            Value::Is(value) if value == xattr.value => continue,
            Value::Is(_) => "has changed",
        };
        return Err(Error::corrupt(format!("its attribute {} {what}", show(name))));
    }
    Ok(())
}

/// The access control lists that an entry gives and that say more than a mode.
fn lists(entry: &Entry) -> Vec<&'static [u8]> {
    let says_more = |list: &[u8]| list.len() > LIST_HEAD + PLAIN_LIST * LIST_ENTRY;
    let mut found = Vec::new();
    for (name, text) in [(ACL_ACCESS, &entry.acl_access), (ACL_DEFAULT, &entry.acl_default)] {
        let as_text = text.as_ref().and_then(|text| acl::from_text(text));
        let as_value = entry.xattrs.iter().find(|xattr| xattr.name == name).map(|xattr| &xattr.value);
        if as_text.as_ref().or(as_value).is_some_and(|list| says_more(list)) {
            found.push(name);
        }
    }
    found
}

/// Attributes that the kernel or an administrator changes, and lists, which are looked at otherwise.
fn is_of_others(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"system.")
        || (name.starts_with(b"security.") && name != CAPABILITY)
}

/// Whether a directory hides the one below it; `None` when that cannot be known.
pub(super) fn is_opaque(dir: &Node) -> Result<Option<bool>> {
    Ok(
        match (Place { fd: dir.as_fd().try_clone_to_owned().during(|| "open")? }).value(OPAQUE.as_bytes())? {
            Value::Unknown => None,
            Value::Missing => Some(false),
            Value::Is(value) => Some(value == b"y"),
        },
    )
}

/// An attribute.
enum Value {
    Is(Vec<u8>),
    Missing,
    /// The file system does not have it, or this process may not see it.
    Unknown,
}

impl Value {
    fn is_missing(&self) -> bool {
        matches!(self, Value::Missing)
    }
}

/// Something whose attributes are read, of whatever type.
struct Place {
    fd: OwnedFd,
}

impl Place {
    fn open(dir: &Node, name: &[u8]) -> Result<Place> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = if name.is_empty() { b"." } else { name };
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).during(|| "open")?;
        Ok(Place { fd })
    }

    fn value(&self, name: &[u8]) -> Result<Value> {
        let mut value = vec![0; VALUE_MAX];
        match rustix::fs::getxattr(proc_path(&self.fd).as_str(), name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                Ok(Value::Is(value))
            }
            Err(Errno::NODATA) if name.starts_with(b"trusted.") && !sees_trusted() => Ok(Value::Unknown),
            Err(Errno::NODATA) => Ok(Value::Missing),
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::OVERFLOW | Errno::INVAL) => {
                Ok(Value::Unknown)
            }
            Err(errno) => Err(errno).during(|| format!("read attribute {}", show(name))),
        }
    }
}

/// Whether this process sees `trusted.*`: to others the kernel says that there is none. Asked of a file in memory.
fn sees_trusted() -> bool {
    const NAME: &CStr = c"trusted.isula-storage";
    let file = rustix::fs::memfd_create("attributes", MemfdFlags::CLOEXEC);
    file.is_ok_and(|file| {
        !matches!(
            rustix::fs::fsetxattr(&file, NAME, b"", XattrFlags::empty()),
            Err(Errno::PERM | Errno::ACCESS)
        )
    })
}

/// Whether owners of a tree are those of its archive: not where they were left to whoever made it, nor where they were
/// made for another shift than today's.
pub(super) fn has_owners(root: &Stat, shift: Option<OwnerShift>) -> bool {
    let shift = shift.unwrap_or(OwnerShift { uid: 0, gid: 0 });
    (root.st_uid, root.st_gid) == (shift.uid, shift.gid)
}

/// Whether two names are those of one file.
pub(super) fn is_same(left: &Stat, right: &Stat) -> bool {
    (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)
}
