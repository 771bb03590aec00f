// SPDX-License-Identifier: MulanPSL-2.0
//! Extended attributes through descriptors.
//!
//! What cannot be opened (symbolic links, devices, fifos, sockets) is reached as `/proc/self/fd/N/name`, where `N`
//! is the directory: the system calls for such entries take only paths. Needs a mounted `/proc`.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, lgetxattr, listxattr, llistxattr,
    lsetxattr,
};
use rustix::io::Errno;

use crate::error::{During, Result};
use crate::sys::fs::at::{component, proc_path};

/// Sets an attribute of an open file or directory.
pub fn set(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> Result<()> {
    fsetxattr(fd, name, value, XattrFlags::empty()).during(|| format!("set attribute {name:?}"))
}

/// An attribute of an open file or directory, `None` when it has none of that name.
pub fn get(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    read_value(|buffer| fgetxattr(fd, name, buffer)).during(|| format!("read attribute {name:?}"))
}

/// Names of all attributes of an open file or directory; none where the file system knows no attributes.
pub fn list(fd: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    read_names(|buffer| flistxattr(fd, buffer)).during(|| "list attributes")
}

/// Takes an attribute away; it has none of that name: fine, `false`.
pub fn remove(fd: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    match fremovexattr(fd, name) {
        Ok(()) => Ok(true),
        Err(Errno::NODATA) => Ok(false),
        Err(error) => Err(error).during(|| format!("remove attribute {name:?}")),
    }
}

/// Sets an attribute of a symbolic link or special file `name` below `dir`, which cannot be opened.
pub fn set_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr, value: &[u8]) -> Result<()> {
    let path = proc_path(dir, Some(component(name)?));
    lsetxattr(path, attribute, value, XattrFlags::empty())
        .during(|| format!("set attribute {attribute:?} of {name:?}"))
}

/// An attribute of any entry `name` below `dir`, not followed if it is a symbolic link; `None` when it has none of
/// that name.
pub fn get_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr) -> Result<Option<Vec<u8>>> {
    let path = proc_path(dir, Some(component(name)?));
    read_value(|buffer| lgetxattr(&path, attribute, buffer))
        .during(|| format!("read attribute {attribute:?} of {name:?}"))
}

/// Names of all attributes of any entry `name` below `dir`, not followed if it is a symbolic link.
pub fn list_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<OsString>> {
    let path = proc_path(dir, Some(component(name)?));
    read_names(|buffer| llistxattr(&path, buffer)).during(|| format!("list attributes of {name:?}"))
}

/// An attribute of what a descriptor only names (`O_PATH`), a symbolic link itself included; `None` when it has none
/// of that name.
pub(crate) fn get_named(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    let path = proc_path(fd, None);
    read_value(|buffer| getxattr(&path, name, buffer)).during(|| format!("read attribute {name:?}"))
}

/// Names of all attributes of what a descriptor only names (`O_PATH`).
pub(crate) fn list_named(fd: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let path = proc_path(fd, None);
    read_names(|buffer| listxattr(&path, buffer)).during(|| "list attributes")
}

/// Reads with a buffer that nearly always is large enough, then with one of the kernel's limit for values and lists.
fn read_whole(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    const USUAL: usize = 1 << 10;
    const LARGEST: usize = 64 << 10;
    let mut buffer = vec![0; USUAL];
    let count = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(LARGEST, 0);
            read(&mut buffer)?
        }
        other => other?,
    };
    buffer.truncate(count);
    Ok(buffer)
}

fn read_value(
    read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Option<Vec<u8>>> {
    match read_whole(read) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_names(read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<OsString>> {
    let bytes = match read_whole(read) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        other => other?,
    };
    let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsStr::from_bytes(name).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::Dir;
    use crate::sys::testing::{TestRoot, need_root};
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn attributes_of_open_files_and_directories_come_back() {
        if !need_root() {
            return;
        }
        let root = TestRoot::new("xattr");
        let dir = Dir::open(root.path()).unwrap();
        let file = dir.create_file("f", 0o600).unwrap();
        let sub = dir.create_dir("d", 0o700).unwrap();
        for fd in [file.as_fd(), sub.as_fd()] {
            let name = OsStr::new("trusted.one");
            assert_eq!(list(fd).unwrap(), [""; 0]);
            assert_eq!(get(fd, name).unwrap(), None);
            set(fd, name, b"\0\xff value").unwrap();
            assert_eq!(get(fd, name).unwrap().unwrap(), b"\0\xff value");
            set(fd, name, b"").unwrap();
            assert_eq!(get(fd, name).unwrap().unwrap(), b"", "empty is not absent");
            set(fd, OsStr::new("trusted.two"), &[7; 2000]).unwrap();
            let mut names = list(fd).unwrap();
            names.sort();
            assert_eq!(names, ["trusted.one", "trusted.two"]);
            assert!(remove(fd, name).unwrap());
            assert!(!remove(fd, name).unwrap());
            assert_eq!(list(fd).unwrap(), ["trusted.two"]);
        }
        assert_eq!(
            get_at(dir.as_fd(), OsStr::new("f"), OsStr::new("trusted.two")).unwrap(),
            Some(vec![7; 2000])
        );
    }

    #[test]
    fn attributes_of_links_and_special_files_are_their_own() {
        if !need_root() {
            return;
        }
        let root = TestRoot::new("xattr");
        let dir = Dir::open(root.path()).unwrap();
        drop(dir.create_file("target", 0o600).unwrap());
        dir.symlink(Path::new("target"), "link").unwrap();
        dir.symlink(Path::new("none"), "dangling").unwrap();
        rustix::fs::mkfifoat(&dir, "fifo", rustix::fs::Mode::RWXU).unwrap();
        let attribute = OsStr::new("trusted.mark");
        for name in ["link", "dangling", "fifo"] {
            let entry = OsStr::new(name);
            set_at(dir.as_fd(), entry, attribute, name.as_bytes()).unwrap();
            assert_eq!(get_at(dir.as_fd(), entry, attribute).unwrap().unwrap(), name.as_bytes());
            assert_eq!(list_at(dir.as_fd(), entry).unwrap(), [attribute]);
        }
        assert_eq!(list_at(dir.as_fd(), OsStr::new("target")).unwrap(), [""; 0]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let root = TestRoot::new("xattr");
        let dir = Dir::open(root.path()).unwrap();
        for name in ["", ".", "..", "a/b", "../x"] {
            let name = OsStr::new(name);
            set_at(dir.as_fd(), name, OsStr::new("user.x"), b"").unwrap_err();
            get_at(dir.as_fd(), name, OsStr::new("user.x")).unwrap_err();
            list_at(dir.as_fd(), name).unwrap_err();
        }
    }
}
