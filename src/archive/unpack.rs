// SPDX-License-Identifier: MulanPSL-2.0
//! Making what entries ask for below a layer's root.
//!
//! What stands in the way of an entry is removed first, as the reference does; a directory on a directory merges. A
//! parent that no entry has named is made, 0755. Entries of one archive hide each other in no order: a whiteout and an
//! entry of the same name leave the entry, and a directory hides the one below it then (OCI image specification: a
//! whiteout only applies to layers below); so does a directory in place of anything else of the archive. A character device 0/0 in an archive is a whiteout spelt out: it can hide
//! nothing that `.wh.` could not.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::archive::attributes::{self, Given};
use crate::archive::entry::{Entry, Kind};
use crate::archive::pax::show;
use crate::archive::remove::{self, Inodes, Judge};
use crate::archive::tree::{Missing, Node, Tree, join};
use crate::archive::whiteout::{clean, split};
use crate::archive::{ApplyOptions, Whiteouts};
use crate::error::{During, Error, ErrorKind, Result};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Permissions of the owner; a directory without them could not be filled without privileges.
const OWNER_ALL: u32 = 0o700;

/// Takes the content of files that an earlier entry of the archive made and a later one replaces.
pub(super) trait Replaced {
    /// Takes the content of `file`.
    fn replaced(&mut self, file: &File) -> Result<()>;
}

/// What the kernel makes of the mode of something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modes {
    /// Permissions are taken as they are: this thread has no umask.
    Exact,
    /// Whatever the umask of the process leaves.
    Masked,
}

/// A file being written, and what it needs no more.
pub(super) struct NewFile {
    file: File,
    given: Given,
}

impl NewFile {
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// Writes entries below a root.
pub(super) struct Unpacker<'o> {
    tree: Tree,
    options: &'o ApplyOptions,
    modes: Modes,
    /// With [`Whiteouts::Remove`]: what this archive made.
    made: Option<Inodes>,
    /// Where a hard link leads: kept for its memory.
    target: Vec<u8>,
    /// Without privileges: directories that get a mode without owner permissions in the end.
    closed: BTreeMap<Box<[u8]>, Mode>,
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

impl<'o> Unpacker<'o> {
    pub(super) fn new(root: BorrowedFd<'_>, options: &'o ApplyOptions, modes: Modes) -> Result<Self> {
        let missing = match options.whiteouts {
            Whiteouts::Overlay => Missing::MakeOverWhiteout,
            Whiteouts::Remove | Whiteouts::Keep => Missing::Make,
        };
        Ok(Unpacker {
            tree: Tree::open(root, missing)?.owned_by(attributes::root_owner(options)),
            options,
            modes,
            made: (options.whiteouts == Whiteouts::Remove).then(Inodes::new),
            target: Vec::new(),
            closed: BTreeMap::new(),
        })
    }

    /// An entry for the root itself: its owner, mode, times and attributes.
    pub(super) fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(invalid("it would replace the root of the layer"));
        }
        let root = self.tree.dir(b"")?;
        self.furnish_directory(&root, entry, Given::default())
    }

    /// Makes a new file to be written to. [`Unpacker::finish_file`] completes it.
    pub(super) fn start_file(
        &mut self,
        dir: &Rc<Node>,
        name: &[u8],
        entry: &Entry,
        out: &mut dyn Replaced,
    ) -> Result<NewFile> {
        let mode = attributes::mode(entry);
        // A default list of the directory would have its say, and set-uid has to wait for the owner.
        let exact = self.modes == Modes::Exact
            && !dir.inherits()
            && !mode.intersects(Mode::SUID | Mode::SGID | Mode::SVTX);
        let first = if exact { mode } else { Mode::from_raw_mode(0o600) };
        let fd = self.make(dir, name, out, |dir, name| rustix::fs::openat(dir, name, NEW_FILE, first))?;
        if dir.inherits() {
            attributes::remove_acls(fd.as_fd())?;
        }
        let owner = if self.options.owners { Some(dir.owner_of_new(fd.as_fd())?) } else { None };
        Ok(NewFile { file: File::from(fd), given: Given { owner, mode: exact.then_some(mode) } })
    }

    /// The directory of an entry, made if no entry has named it.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<Node>> {
        self.tree.dir(path)
    }

    /// Owner, mode, attributes and times of a file whose content is complete.
    pub(super) fn finish_file(&mut self, file: &NewFile, entry: &Entry) -> Result<()> {
        let NewFile { file, given } = file;
        attributes::set(file.as_fd(), entry, self.options, *given)?;
        rustix::fs::futimens(file, &attributes::times(entry)).during(|| "set times")?;
        self.note_open(file.as_fd())
    }

    /// Makes everything but regular files.
    pub(super) fn make_entry(
        &mut self,
        dir: &Rc<Node>,
        name: &[u8],
        entry: &Entry,
        out: &mut dyn Replaced,
    ) -> Result<()> {
        match entry.kind {
            Kind::File => return Err(invalid("a file is not made at once")),
            Kind::Directory => return self.directory(dir, name, entry, out),
            Kind::HardLink => self.hard_link(dir, name, entry, out)?,
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(invalid("a symbolic link to nothing"));
                }
                self.make(dir, name, out, |dir, name| {
                    rustix::fs::symlinkat(entry.link.as_slice(), dir, name)
                })?;
                attributes::set_special(dir, name, entry, self.options, true)?;
            }
            Kind::CharDevice => self.device(dir, name, entry, FileType::CharacterDevice, out)?,
            Kind::BlockDevice => self.device(dir, name, entry, FileType::BlockDevice, out)?,
            Kind::Fifo => self.device(dir, name, entry, FileType::Fifo, out)?,
        }
        self.note(dir, name)
    }

    fn directory(
        &mut self,
        dir: &Rc<Node>,
        name: &[u8],
        entry: &Entry,
        out: &mut dyn Replaced,
    ) -> Result<()> {
        let mode = if self.modes == Modes::Exact && self.options.owners {
            attributes::mode(entry)
        } else {
            Mode::from_raw_mode(OWNER_ALL)
        };
        let node = match rustix::fs::mkdirat(dir, name, mode) {
            Ok(()) => self.open_made(dir, name)?,
            Err(Errno::EXIST) => match self.tree.child(dir, name)? {
                Some(node) => return self.furnish_directory(&node, entry, Given::default()),
                None => {
                    self.replace(dir, name, out)?;
                    rustix::fs::mkdirat(dir, name, mode).during(|| "make directory")?;
                    let node = self.open_made(dir, name)?;
                    // What was here hid the one below, whether it was a whiteout or not.
                    if self.options.whiteouts == Whiteouts::Overlay {
                        attributes::set_opaque(&node)?;
                    }
                    node
                }
            },
            Err(errno) => return Err(errno).during(|| "make directory"),
        };
        // One look instead of two changes: what the kernel made of owner and mode is mostly right.
        let stat = rustix::fs::fstat(&node).during(|| "stat")?;
        let given = Given {
            owner: self.options.owners.then(|| (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))),
            mode: Some(Mode::from_raw_mode(stat.st_mode & 0o7777)),
        };
        self.furnish_directory(&node, entry, given)
    }

    fn open_made(&mut self, dir: &Rc<Node>, name: &[u8]) -> Result<Rc<Node>> {
        dir.touch();
        let fd = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).during(|| "open directory")?;
        if dir.inherits() {
            attributes::remove_acls(fd.as_fd())?;
        }
        self.tree.keep(dir, name, fd)
    }

    fn furnish_directory(&mut self, node: &Rc<Node>, entry: &Entry, given: Given) -> Result<()> {
        attributes::set(node.as_fd(), entry, self.options, given)?;
        node.forget_owner_of_new();
        let mode = attributes::mode(entry);
        let open = Mode::from_raw_mode(OWNER_ALL);
        if !self.options.owners && !mode.contains(open) {
            rustix::fs::fchmod(node, mode.union(open)).during(|| "set mode")?;
            self.closed.insert(node.path().into(), mode);
        } else if !self.closed.is_empty() {
            self.closed.remove(node.path());
        }
        if attributes::gives_default_acl(entry) {
            node.set_inherits(true);
        }
        node.set_times(attributes::times(entry));
        self.note_open(node.as_fd())
    }

    fn hard_link(
        &mut self,
        dir: &Rc<Node>,
        name: &[u8],
        entry: &Entry,
        out: &mut dyn Replaced,
    ) -> Result<()> {
        let mut target = std::mem::take(&mut self.target);
        let made = self.link(dir, name, entry, &mut target, out);
        self.target = target;
        made
    }

    fn link(
        &mut self,
        dir: &Rc<Node>,
        name: &[u8],
        entry: &Entry,
        target: &mut Vec<u8>,
        out: &mut dyn Replaced,
    ) -> Result<()> {
        let what = || format!("hard link to {}", show(&entry.link));
        clean(&entry.link, target).map_err(|problem| invalid(format!("{}: {problem}", what())))?;
        let (target_parent, target_name) = split(target);
        if target_name.is_empty() {
            return Err(invalid(format!("{}: a directory", what())));
        }
        let missing = || invalid(format!("{}: no such file in the layer", what()));
        let target_dir = self.tree.existing(target_parent)?.ok_or_else(missing)?;
        let link = || rustix::fs::linkat(&target_dir, target_name, dir, name, AtFlags::empty());
        let made = match link() {
            Err(Errno::EXIST) => {
                if target_dir.path() == dir.path() && target_name == name {
                    return Err(invalid(format!("{}: the link itself", what())));
                }
                self.replace(dir, name, out)?;
                link()
            }
            made => made,
        };
        match made {
            Ok(()) => {
                dir.touch();
                Ok(())
            }
            Err(Errno::NOENT) => Err(missing()),
            Err(Errno::PERM) if self.tree.child(&target_dir, target_name)?.is_some() => {
                Err(invalid(format!("{}: a directory", what())))
            }
            Err(errno) => Err(errno).during(what),
        }
    }

    fn device(
        &mut self,
        dir: &Rc<Node>,
        name: &[u8],
        entry: &Entry,
        kind: FileType,
        out: &mut dyn Replaced,
    ) -> Result<()> {
        let device = device_number(entry.device)?;
        let mode = attributes::mode(entry);
        self.make(dir, name, out, |dir, name| rustix::fs::mknodat(dir, name, kind, mode, device))?;
        attributes::set_special(dir, name, entry, self.options, false)
    }

    /// Hides `name` of the layers below.
    pub(super) fn hide(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
        if let Some(made) = &self.made {
            let Some(dir) = self.tree.existing(parent)? else { return Ok(()) };
            self.tree.forget(&join(dir.path(), name))?;
            remove::remove(dir.as_fd(), name, &mut Older(made)).during(|| "remove what a whiteout hides")?;
            dir.touch();
            return Ok(());
        }
        let dir = self.tree.dir(parent)?;
        match rustix::fs::mknodat(&dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                dir.touch();
                if let Some((uid, gid)) = attributes::owner(entry, self.options)? {
                    rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                        .during(|| "set owner")?;
                }
                Ok(())
            }
            // This archive's own entry of that name hides the one below by being there.
            Err(Errno::EXIST) => match self.tree.child(&dir, name)? {
                Some(node) => attributes::set_opaque(&node),
                None => Ok(()),
            },
            Err(errno) => Err(errno).during(|| "make whiteout"),
        }
    }

    /// Hides everything in `parent` of the layers below.
    pub(super) fn hide_all(&mut self, parent: &[u8]) -> Result<()> {
        if let Some(made) = &self.made {
            let Some(dir) = self.tree.existing(parent)? else { return Ok(()) };
            self.tree.forget_below(dir.path())?;
            remove::empty(dir.as_fd(), &mut Older(made))
                .during(|| "remove what an opaque directory hides")?;
            dir.touch();
            return Ok(());
        }
        let dir = self.tree.dir(parent)?;
        attributes::set_opaque(&dir)
    }

    /// Sets what had to wait for the last entry.
    pub(super) fn finish(mut self) -> Result<()> {
        // Deepest first: a closed directory cannot be passed.
        for (path, mode) in std::mem::take(&mut self.closed).into_iter().rev() {
            if let Some(node) = self.tree.existing(&path)? {
                rustix::fs::fchmod(&node, mode).during(|| format!("set mode of {}", show(&path)))?;
            }
        }
        self.tree.finish()
    }

    /// Makes something new, in place of what is there.
    fn make<T>(
        &mut self,
        dir: &Rc<Node>,
        name: &[u8],
        out: &mut dyn Replaced,
        make: impl Fn(&Node, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let made = match make(dir, name) {
            Err(Errno::EXIST) => {
                self.replace(dir, name, out)?;
                make(dir, name)
            }
            made => made,
        };
        dir.touch();
        made.during(|| "make it")
    }

    fn replace(&mut self, dir: &Rc<Node>, name: &[u8], out: &mut dyn Replaced) -> Result<()> {
        self.tree.forget(&join(dir.path(), name))?;
        let mut all = All { made: self.made.as_ref(), out };
        remove::remove(dir.as_fd(), name, &mut all).during(|| "remove what was there before")?;
        dir.touch();
        Ok(())
    }

    fn note(&mut self, dir: &Node, name: &[u8]) -> Result<()> {
        if let Some(made) = &mut self.made {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).during(|| "stat")?;
            made.insert(stat.st_ino);
        }
        Ok(())
    }

    fn note_open(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        if let Some(made) = &mut self.made {
            made.insert(rustix::fs::fstat(fd).during(|| "stat")?.st_ino);
        }
        Ok(())
    }
}

/// Removes what this archive did not make.
struct Older<'a>(&'a Inodes);

impl Judge for Older<'_> {
    fn spares(&self, inode: u64) -> bool {
        self.0.contains(&inode)
    }
    fn losing(&mut self, _: BorrowedFd<'_>, _: &[u8], _: u64) -> Result<()> {
        Ok(())
    }
}

/// Removes everything, after saving content that belongs to this archive.
struct All<'a> {
    /// What this archive made, where there was something before.
    made: Option<&'a Inodes>,
    out: &'a mut dyn Replaced,
}

impl Judge for All<'_> {
    fn spares(&self, _: u64) -> bool {
        false
    }
    fn losing(&mut self, dir: BorrowedFd<'_>, name: &[u8], inode: u64) -> Result<()> {
        if self.made.is_some_and(|made| !made.contains(&inode)) {
            return Ok(());
        }
        let fd =
            rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .during(|| "open")?;
        self.out.replaced(&File::from(fd))
    }
}

/// What Linux can represent: 12 bits of major, 20 bits of minor number.
pub(super) fn device_number((major, minor): (u64, u64)) -> Result<Dev> {
    let part = |value: u64, bits: u32| u32::try_from(value).ok().filter(|value| value >> bits == 0);
    part(major, 12)
        .zip(part(minor, 20))
        .map(|(major, minor)| rustix::fs::makedev(major, minor))
        .ok_or_else(|| invalid(format!("device number {major}:{minor} is out of range")))
}
