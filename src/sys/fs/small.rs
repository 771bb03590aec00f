// SPDX-License-Identifier: MulanPSL-2.0
//! Reading very many small files, each with as few system calls as will do, into one buffer.
//!
//! Only for what goes well: whatever is absent, large, no regular file or behind a link is `None`, and has to be looked at
//! with [`Dir`], which says why.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, openat2, statat};
use rustix::io::{Errno, retry_on_intr};

use super::Dir;

/// Larger files are not small; one byte more is asked for, to see that nothing follows.
const LARGEST: usize = 64 << 10;
/// Longest file name of Linux file systems.
const NAME_MAX: usize = 255;
/// Room for the names of one read of a directory.
const NAMES: usize = 16 << 10;
/// Stays below the directory, and nothing on the way is a link.
const NO_LINKS: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A reader of small files.
#[derive(Debug)]
pub struct SmallFiles {
    content: Vec<u8>,
    names: Vec<MaybeUninit<u8>>,
    path: Vec<u8>,
}

impl Default for SmallFiles {
    fn default() -> Self {
        SmallFiles {
            content: vec![0; LARGEST + 1],
            names: vec![MaybeUninit::uninit(); NAMES],
            path: Vec::with_capacity(256),
        }
    }
}

impl SmallFiles {
    /// The content of `name` in the directory `below` of `dir`. Three calls: it is looked at, opened and read.
    pub fn read(&mut self, dir: &Dir, below: &str, name: &str) -> Option<&[u8]> {
        let size = self.size(dir, below, name)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= LARGEST)?;
        let file = open(dir.as_fd(), &self.path, OFlags::empty())?;
        let room = self.content.get_mut(..=size)?;
        let read = retry_on_intr(|| rustix::io::read(&file, &mut *room)).ok()?;
        // It changed between two calls, or the end is not the end on this file system.
        if read == size { self.content.get(..read) } else { None }
    }

    /// The size in bytes of the regular file `name` in the directory `below` of `dir`.
    pub fn size(&mut self, dir: &Dir, below: &str, name: &str) -> Option<u64> {
        if below.contains('/') || name.contains('/') {
            return None;
        }
        self.path.clear();
        self.path.extend_from_slice(below.as_bytes());
        self.path.push(b'/');
        self.path.extend_from_slice(name.as_bytes());
        let stat = statat(dir.as_fd(), &*self.path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        u64::try_from(stat.st_size).ok().filter(|_| regular)
    }

    /// A directory of few files, and that all of them are regular.
    pub fn open_dir(&mut self, dir: &Dir, name: &str) -> Option<FewFiles<'_>> {
        if name.contains('/') {
            return None;
        }
        let fd = open(dir.as_fd(), name.as_bytes(), OFlags::DIRECTORY)?;
        let mut names = Vec::with_capacity(4);
        let mut entries = RawDir::new(&fd, &mut self.names);
        while let Some(entry) = entries.next() {
            let entry = entry.ok()?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if entry.file_type() != FileType::RegularFile || names.len() >= 64 {
                return None;
            }
            names.push(name.to_str()?.to_owned());
        }
        Some(FewFiles { fd, names, content: &mut self.content })
    }
}

/// An open directory of few regular files.
#[derive(Debug)]
pub struct FewFiles<'a> {
    fd: OwnedFd,
    names: Vec<String>,
    content: &'a mut Vec<u8>,
}

impl FewFiles<'_> {
    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The content of one of them, by one read: a file system that gives less than there is cuts it short, which has to
    /// show in the content.
    pub fn read(&mut self, name: &str) -> Option<&[u8]> {
        if !self.names.iter().any(|known| known == name) {
            return None;
        }
        let file = open(self.fd.as_fd(), name.as_bytes(), OFlags::empty())?;
        let read = retry_on_intr(|| rustix::io::read(&file, &mut *self.content)).ok()?;
        self.content.get(..read).filter(|_| read <= LARGEST)
    }
}

/// One call: what is a directory cannot be opened for writing, and what is none not as a directory, so the answer is
/// always an error.
pub(super) fn is_dir_below(dir: BorrowedFd<'_>, below: &str, name: &str) -> bool {
    let mut room = [0; 2 * (NAME_MAX + 1)];
    let mut end = 0;
    for part in [below.as_bytes(), b"/", name.as_bytes()] {
        let start = end;
        end += part.len();
        let Some(place) = room.get_mut(start..end) else { return false };
        place.copy_from_slice(part);
    }
    let path = room.get(..end).unwrap_or_default();
    let flags = OFlags::WRONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    matches!(retry_on_intr(|| openat2(dir, path, flags, Mode::empty(), NO_LINKS)), Err(Errno::ISDIR))
}

/// A kernel or a filter that does not know the call: `None`.
fn open(dir: BorrowedFd<'_>, path: &[u8], more: OFlags) -> Option<OwnedFd> {
    let harmless = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | harmless | more;
    retry_on_intr(|| openat2(dir, path, flags, Mode::empty(), NO_LINKS)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::TestRoot;

    #[test]
    fn what_is_regular_and_small_is_read_and_nothing_else() {
        let root = TestRoot::in_memory("small");
        #[allow(clippy::disallowed_methods, reason = "test")]
        let write = |name: &str, content: &[u8]| std::fs::write(root.join(name), content).unwrap();
        for dir in ["one", "odd"] {
            std::fs::create_dir(root.join(dir)).unwrap();
        }
        write("one/empty", b"");
        write("one/text", b"content");
        write("one/most", &vec![b'x'; LARGEST]);
        for large in ["odd/large", "one/large"] {
            write(large, &vec![b'x'; LARGEST + 1]);
        }
        std::os::unix::fs::symlink("../one/text", root.join("odd/link")).unwrap();
        std::os::unix::fs::symlink("one", root.join("linked")).unwrap();
        std::fs::create_dir(root.join("odd/dir")).unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let mut files = SmallFiles::default();
        assert_eq!(files.read(&dir, "one", "text").unwrap(), b"content");
        assert_eq!(files.read(&dir, "one", "empty").unwrap(), b"");
        assert_eq!(files.read(&dir, "one", "most").unwrap().len(), LARGEST);
        for (below, name) in [
            ("one", "absent"),
            ("absent", "text"),
            ("odd", "large"),
            ("odd", "link"),
            ("odd", "dir"),
            ("linked", "text"),
            ("odd/..", "text"),
            ("one", "../one/text"),
        ] {
            assert!(files.read(&dir, below, name).is_none(), "{below}/{name}");
        }
        let mut one = files.open_dir(&dir, "one").unwrap();
        let mut names = one.names().to_vec();
        names.sort();
        assert_eq!(names, ["empty", "large", "most", "text"]);
        assert_eq!(one.read("text").unwrap(), b"content");
        assert_eq!(one.read("most").unwrap().len(), LARGEST);
        assert_eq!(one.read("empty").unwrap(), b"");
        assert!(one.read("absent").is_none() && one.read("large").is_none());
        for name in ["odd", "linked", "absent", "one/text"] {
            assert!(files.open_dir(&dir, name).is_none(), "{name}");
        }
    }

    #[test]
    fn only_a_directory_that_no_link_leads_to_is_a_directory_below() {
        let root = TestRoot::in_memory("small");
        std::fs::create_dir_all(root.join("one/dir")).unwrap();
        std::fs::create_dir(root.join("one/closed")).unwrap();
        #[allow(clippy::disallowed_methods, reason = "test")]
        std::fs::write(root.join("one/file"), b"content").unwrap();
        for (target, name) in
            [("one", "linked"), ("dir", "one/link"), ("../..", "one/out"), ("gone", "one/to-nothing")]
        {
            std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        }
        let dir = Dir::open(root.path()).unwrap();
        rustix::fs::mkfifoat(&dir, "one/fifo", Mode::RWXU).unwrap();
        for name in ["dir", "closed"] {
            assert!(dir.is_dir_below("one", name), "{name}");
        }
        let long = "x".repeat(600);
        for name in ["absent", "file", "fifo", "link", "out", "to-nothing", "../..", "file/x", &long] {
            assert!(!dir.is_dir_below("one", name), "{name}");
        }
        for below in ["", "absent", "linked", "..", "/tmp", "../one", &long] {
            assert!(!dir.is_dir_below(below, "dir"), "{below}");
        }
        assert_eq!(std::fs::read(root.join("one/file")).unwrap(), b"content");
    }
}
