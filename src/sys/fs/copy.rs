// SPDX-License-Identifier: MulanPSL-2.0
//! Copying a tree with everything that belongs to it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fstat, statat};
use rustix::io::Errno;

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::at::{Identity, MODE_BITS, chmod_at, for_each_entry, open_at};
use crate::sys::fs::walk::{Cursor, Mounts, Step};
use crate::sys::fs::{Dir, content};
use crate::sys::xattr;

/// See [`Dir::copy_tree`]. What was made is removed again on failure.
pub(super) fn copy_tree(dir: &Dir, name: &OsStr, to: &Dir, new_name: &OsStr) -> Result<()> {
    let doing = || format!("copy {} to {}", dir.path.join(name).display(), to.path.join(new_name).display());
    let mut copy = Copy {
        from: Cursor::at(dir, Mounts::Refuse).during(doing)?,
        to: Cursor::at(to, Mounts::Refuse).during(doing)?,
        start: to,
        made: None,
        links: HashMap::new(),
        reflink: content::Reflink::Try,
    };
    let copied = copy.run(name, new_name).during(doing);
    if copied.is_err()
        && copy.made.is_some()
        && let Err(error) = to.remove_all(new_name)
    {
        log::warn!("remove a half-made copy: {}", error.report());
    }
    copied
}

struct Copy<'a> {
    from: Cursor,
    to: Cursor,
    /// Directory in which the copy is made.
    start: &'a Dir,
    /// Name and identity of what was made there: a source that contains it would never end.
    made: Option<(OsString, Option<Identity>)>,
    /// Where the copy of an inode with several names is, for as long as more names of it are expected.
    links: HashMap<(u64, u64), Linked>,
    reflink: content::Reflink,
}

struct Linked {
    /// Components of its path from the start of the copy; never empty.
    path: Vec<OsString>,
    /// Names still to come.
    left: u64,
}

struct Frame {
    stat: Stat,
    pending: Vec<OsString>,
}

impl Copy<'_> {
    fn run(&mut self, name: &OsStr, new_name: &OsStr) -> Result<()> {
        let stat = self.look(name)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.copy_leaf(name, new_name, &stat);
        }
        let mut frames = vec![self.enter(name, new_name, stat)?];
        while let Some(frame) = frames.last_mut() {
            if let Some(child) = frame.pending.pop() {
                let stat = self.look(&child)?;
                let below = self.enter(&child, &child, stat)?;
                frames.push(below);
            } else {
                copy_attributes(self.from.fd(), self.to.fd(), &frame.stat)
                    .during(|| self.to.show(OsStr::new("")))?;
                frames.pop();
                self.from.up()?;
                self.to.up()?;
            }
        }
        Ok(())
    }

    fn look(&self, name: &OsStr) -> Result<Stat> {
        statat(self.from.fd(), name, AtFlags::SYMLINK_NOFOLLOW)
            .during(|| format!("look at {}", self.from.show(name)))
    }

    /// Makes a directory, goes there on both sides and copies everything in it but directories.
    fn enter(&mut self, name: &OsStr, new_name: &OsStr, stat: Stat) -> Result<Frame> {
        rustix::fs::mkdirat(self.to.fd(), new_name, Mode::RWXU)
            .during(|| format!("make directory {}", self.to.show(new_name)))?;
        self.note_made(new_name);
        for (cursor, name) in [(&mut self.from, name), (&mut self.to, new_name)] {
            if cursor.down(name, false)? != Step::Entered {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("{} was changed meanwhile", cursor.show(name)),
                ));
            }
        }
        match &mut self.made {
            Some((_, identity @ None)) => *identity = Some(*self.to.identity()),
            Some((_, Some(made))) if made.same_inode(self.from.identity()) => {
                return Err(Error::invalid("the copy would be made inside of what is copied"));
            }
            _ => {}
        }
        let mut directories = Vec::new();
        let mut others = Vec::new();
        for_each_entry(self.from.fd(), |name, file_type| {
            if file_type == FileType::Directory { &mut directories } else { &mut others }
                .push(name.to_owned());
            Ok(())
        })
        .during(|| format!("read {}", self.from.show(OsStr::new(""))))?;
        for other in others {
            let stat = self.look(&other)?;
            self.copy_leaf(&other, &other, &stat)?;
        }
        Ok(Frame { stat, pending: directories })
    }

    fn note_made(&mut self, new_name: &OsStr) {
        if self.made.is_none() {
            self.made = Some((new_name.to_owned(), None));
        }
    }

    /// Copies anything but a directory.
    fn copy_leaf(&mut self, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 && self.link(inode, new_name)? {
            return Ok(());
        }
        let made = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.copy_file(name, new_name, stat),
            FileType::Symlink => self.copy_symlink(name, new_name, stat),
            kind => self.copy_special(kind, name, new_name, stat),
        };
        made.during(|| format!("copy {}", self.from.show(name)))?;
        if stat.st_nlink > 1 {
            let made = self.made.iter().map(|(top, _)| top.as_os_str());
            // At the start of the copy its own name is the whole path.
            let path = match self.to.depth() {
                0 => made.map(OsStr::to_owned).collect(),
                _ => self.to.names().chain([new_name]).map(OsStr::to_owned).collect(),
            };
            let left = whole(stat.st_nlink).saturating_sub(1);
            self.links.insert(inode, Linked { path, left });
        }
        Ok(())
    }

    /// Gives the copy of an inode that was copied before one more name; `false` if there is none yet.
    fn link(&mut self, inode: (u64, u64), new_name: &OsStr) -> Result<bool> {
        let Some(linked) = self.links.get_mut(&inode) else { return Ok(false) };
        let doing = || format!("link {}", self.to.show(new_name));
        let Some((last, above)) = linked.path.split_last() else { return Ok(false) };
        // Step by step: the path may be longer than any call takes.
        let mut at: Option<OwnedFd> = None;
        for part in above {
            let dir = at.as_ref().map_or(self.start.as_fd(), AsFd::as_fd);
            at = Some(open_at(dir, part, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).during(doing)?);
        }
        let dir = at.as_ref().map_or(self.start.as_fd(), AsFd::as_fd);
        match rustix::fs::linkat(dir, last, self.to.fd(), new_name, AtFlags::empty()) {
            Ok(()) => {}
            // The file system takes fewer names: one more copy, with the names that follow.
            Err(Errno::MLINK) => {
                self.links.remove(&inode);
                return Ok(false);
            }
            Err(error) => return Err(error).during(doing),
        }
        linked.left -= 1;
        if linked.left == 0 {
            self.links.remove(&inode);
        }
        Ok(true)
    }

    fn copy_file(&mut self, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let source = open_at(self.from.fd(), name, flags, Mode::empty()).during(|| "open it")?;
        let opened = fstat(&source).during(|| "look at it")?;
        if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(Error::new(ErrorKind::InUse, "it was replaced meanwhile"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let copy = open_at(self.to.fd(), new_name, flags, Mode::RUSR | Mode::WUSR)
            .during(|| format!("make {}", self.to.show(new_name)))?;
        self.note_made(new_name);
        let (source, copy) = (std::fs::File::from(source), std::fs::File::from(copy));
        content::copy(&source, &copy, &mut self.reflink)?;
        copy_attributes(source.as_fd(), copy.as_fd(), stat)
    }

    fn copy_symlink(&mut self, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        let target = rustix::fs::readlinkat(self.from.fd(), name, Vec::new()).during(|| "read the link")?;
        rustix::fs::symlinkat(target.as_c_str(), self.to.fd(), new_name).during(|| "make the link")?;
        self.note_made(new_name);
        self.copy_attributes_at(name, new_name, stat)
    }

    fn copy_special(&mut self, kind: FileType, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        rustix::fs::mknodat(self.to.fd(), new_name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)
            .during(|| "make the special file")?;
        self.note_made(new_name);
        self.copy_attributes_at(name, new_name, stat)?;
        let mode = stat.st_mode & MODE_BITS;
        chmod_at(self.to.fd(), new_name, mode).during(|| "set the mode")?;
        set_times_at(self.to.fd(), new_name, stat)
    }

    /// Owner, extended attributes and times of what cannot be opened.
    fn copy_attributes_at(&self, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        let made = statat(self.to.fd(), new_name, AtFlags::SYMLINK_NOFOLLOW).during(|| "look at the copy")?;
        if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = owner(stat);
            rustix::fs::chownat(self.to.fd(), new_name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .during(|| "set the owner")?;
        }
        for attribute in xattr::list_at(self.from.fd(), name)? {
            if let Some(value) = xattr::get_at(self.from.fd(), name, &attribute)? {
                let set = xattr::set_at(self.to.fd(), new_name, &attribute, &value);
                unless_label(&attribute, set)?;
            }
        }
        set_times_at(self.to.fd(), new_name, stat)
    }
}

/// Owner, extended attributes, mode and times of what is open. The owner first: changing it takes set-uid bits and
/// file capabilities away.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    let made = fstat(to).during(|| "look at the copy")?;
    if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = owner(stat);
        rustix::fs::fchown(to, uid, gid).during(|| "set the owner")?;
    }
    for attribute in xattr::list(from)? {
        if let Some(value) = xattr::get(from, &attribute)? {
            unless_label(&attribute, xattr::set(to, &attribute, &value))?;
        }
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & MODE_BITS)).during(|| "set the mode")?;
    rustix::fs::futimens(to, &times(stat)).during(|| "set the times")
}

/// The policy of the machine decides on labels; a copy that it labels itself is whole all the same.
fn unless_label(attribute: &OsStr, set: Result<()>) -> Result<()> {
    match set {
        Err(error) if attribute == "security.selinux" => {
            log::debug!("{}", error.report());
            Ok(())
        }
        other => other,
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn set_times_at(dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<()> {
    rustix::fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).during(|| "set the times")
}

fn times(stat: &Stat) -> Timestamps {
    let access = i64::try_from(stat.st_atime_nsec).unwrap_or(0);
    let modification = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: access },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: modification },
    }
}

/// A number whose width differs from machine to machine.
fn whole(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
