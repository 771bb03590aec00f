// SPDX-License-Identifier: MulanPSL-2.0
//! The walk through a tree, beside what it is compared with.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Stat, fstat};

use crate::archive::diff::DiffBase;
use crate::archive::diff::lower::Lowers;
use crate::archive::diff::node::{Pinned, Xattr, changed, is_same_meta, is_same_state};
use crate::archive::pax::show;
use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::at::for_each_entry;
use crate::sys::fs::walk::{Cursor, Mounts, Step};

/// Something that belongs to the changes.
pub(super) struct Found<'a> {
    /// Below the root; empty for the root.
    pub(super) path: &'a [u8],
    pub(super) stat: &'a Stat,
    /// Empty unless the sink is an archive.
    pub(super) xattrs: &'a [Xattr],
    /// `None` for a directory.
    pub(super) node: Option<&'a Pinned>,
    /// There was nothing of this path below.
    pub(super) is_new: bool,
}

/// Who is told.
pub(super) trait Sink {
    /// An archive needs attributes and a tree that keeps still, and each mark of the tree; a list is to be true of what is
    /// below.
    fn is_archive(&self) -> bool;
    fn found(&mut self, found: &Found<'_>) -> Result<()>;
    /// Nothing of this path is to be seen any more; what says so, if something does.
    fn hidden(&mut self, path: &[u8], mark: Option<&Stat>) -> Result<()>;
    /// Nothing of what is below in this directory is to be seen any more.
    fn opaque(&mut self, path: &[u8]) -> Result<()>;
    /// A socket.
    fn skipped(&mut self, path: &[u8]);
}

/// Compares.
pub(super) fn walk(tree: BorrowedFd<'_>, base: &DiffBase<'_>, sink: &mut dyn Sink) -> Result<()> {
    let below = match base {
        DiffBase::Lowers(lowers) => Below::Lowers(Lowers::new(lowers)),
        DiffBase::Tree(None) => Below::Tree(None),
        DiffBase::Tree(Some(tree)) => Below::Tree(Some(cursor(*tree, "(below)")?)),
    };
    let archive = sink.is_archive();
    let upper = cursor(tree, "")?;
    let mut walk = Walk { upper, below, sink, archive, path: Vec::new(), frames: Vec::new() };
    walk.run()
}

/// `Unsupported` if an overlay directory has something whose content or place only the kernel finds.
pub(super) fn refuse_kernels_own(tree: BorrowedFd<'_>) -> Result<()> {
    let mut cursor = cursor(tree, "")?;
    let mut pending = vec![directories(&cursor)?];
    while let Some(names) = pending.last_mut() {
        match names.pop() {
            Some(name) => {
                if cursor.down(&name, false)? == Step::Entered {
                    pending.push(directories(&cursor)?);
                }
            }
            None => {
                pending.pop();
                cursor.up()?;
            }
        }
    }
    Ok(())
}

fn directories(cursor: &Cursor) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for_each_entry(cursor.fd(), |name, kind| {
        if matches!(kind, FileType::Directory | FileType::RegularFile)
            && let Some(node) = Pinned::open(cursor.fd(), name)?
            && let Some(what) = node.kernels_own()?
        {
            let message = format!("{} is {what}", cursor.show(name));
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if kind == FileType::Directory {
            names.push(name.to_owned());
        }
        Ok(())
    })?;
    Ok(names)
}

fn cursor(tree: BorrowedFd<'_>, base: &str) -> Result<Cursor> {
    Cursor::at_fd(tree, Path::new(base), Mounts::Refuse)
}

enum Below<'a> {
    Lowers(Lowers<'a>),
    /// Is where the walk is, or above where there is nothing beside it.
    Tree(Option<Cursor>),
}

struct Walk<'a, 's> {
    upper: Cursor,
    below: Below<'a>,
    sink: &'s mut dyn Sink,
    archive: bool,
    path: Vec<u8>,
    frames: Vec<Frame>,
}

/// A directory on the way down.
struct Frame {
    /// What is still to be looked at, last first.
    names: Vec<Name>,
    /// As it was when it was listed.
    stat: Stat,
    /// Length of its path.
    end: usize,
    /// The tree below has it too.
    paired: bool,
    /// It is the same as below, and so far is all in it: not told of yet.
    same: Option<(Stat, Vec<Xattr>)>,
}

/// A name in either tree.
struct Name {
    name: OsString,
    upper: bool,
    lower: bool,
}

impl Walk<'_, '_> {
    fn run(&mut self) -> Result<()> {
        self.root().during(|| "compare the root")?;
        while let Some(frame) = self.frames.last_mut() {
            let end = frame.end;
            match frame.names.pop() {
                Some(name) => {
                    let depth = self.frames.len();
                    if end > 0 {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(name.name.as_bytes());
                    self.look(&name).during(|| format!("compare {}", show(&self.path)))?;
                    if self.frames.len() == depth {
                        self.path.truncate(end);
                    }
                }
                None => {
                    self.leave().during(|| format!("compare directory {}", show(&self.path)))?;
                    let end = self.frames.last().map_or(0, |frame| frame.end);
                    self.path.truncate(end);
                }
            }
        }
        Ok(())
    }

    fn root(&mut self) -> Result<()> {
        let gone = || Error::new(ErrorKind::InUse, "it is gone");
        let node = Pinned::open(self.upper.fd(), ".".as_ref())?.ok_or_else(gone)?;
        let mut beside = None;
        if let Below::Tree(Some(cursor)) = &self.below {
            beside = Some(Pinned::open(cursor.fd(), ".".as_ref())?.ok_or_else(gone)?);
        }
        self.directory(&node, beside.as_ref(), true)
    }

    fn look(&mut self, name: &Name) -> Result<()> {
        let node = if name.upper { Pinned::open(self.upper.fd(), &name.name)? } else { None };
        if name.upper && node.is_none() && self.archive {
            return Err(Error::new(ErrorKind::InUse, "it went away while its directory was read"));
        }
        match &mut self.below {
            Below::Lowers(lowers) => {
                // Listed for what is below an opaque directory.
                let Some(node) = node else {
                    return if name.lower { self.sink.hidden(&self.path, None) } else { Ok(()) };
                };
                if node.is_whiteout()? {
                    return match self.archive || lowers.has(&name.name)? {
                        true => self.sink.hidden(&self.path, Some(node.stat())),
                        false => Ok(()),
                    };
                }
                if node.kind() == FileType::Socket {
                    self.sink.skipped(&self.path);
                    // Too late for another way to compare: something is written already.
                    let hides = lowers.has(&name.name).map_err(|error| match error.kind() {
                        ErrorKind::Unsupported if self.archive => error.with_kind(ErrorKind::InvalidData),
                        _ => error,
                    })?;
                    return if hides { self.sink.hidden(&self.path, None) } else { Ok(()) };
                }
                let is_new = !self.archive && !lowers.has(&name.name)?;
                if node.kind() == FileType::Directory {
                    return self.descend(&name.name, &node, None, is_new);
                }
                self.tell(&node, is_new)
            }
            Below::Tree(cursor) => {
                let paired = name.lower && self.frames.last().is_some_and(|frame| frame.paired);
                let beside = match cursor {
                    Some(cursor) if paired => Pinned::open(cursor.fd(), &name.name)?,
                    _ => None,
                };
                self.look_beside(&name.name, node, beside)
            }
        }
    }

    fn look_beside(&mut self, name: &OsStr, node: Option<Pinned>, beside: Option<Pinned>) -> Result<()> {
        // As on an overlay, where such a device hides what is below it.
        let beside = beside.filter(|beside| !beside.is_device_zero());
        let node = match (node, &beside) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return self.hide(),
            (Some(node), _) if node.kind() == FileType::Socket || node.is_device_zero() => {
                self.sink.skipped(&self.path);
                return if beside.is_some() { self.hide() } else { Ok(()) };
            }
            (Some(node), _) => node,
        };
        if node.kind() == FileType::Directory {
            let is_new = beside.is_none();
            let beside = beside.filter(|beside| beside.kind() == FileType::Directory);
            return self.descend(name, &node, beside.as_ref(), is_new);
        }
        match beside {
            Some(beside) if node.is_same(&beside)? => Ok(()),
            beside => {
                self.tell_on_the_way()?;
                self.tell(&node, beside.is_none())
            }
        }
    }

    fn hide(&mut self) -> Result<()> {
        self.tell_on_the_way()?;
        self.sink.hidden(&self.path, None)
    }

    fn tell(&mut self, node: &Pinned, is_new: bool) -> Result<()> {
        let xattrs = if self.archive { node.xattrs()? } else { Vec::new() };
        self.sink.found(&Found {
            path: &self.path,
            stat: node.stat(),
            xattrs: &xattrs,
            node: (node.kind() != FileType::Directory).then_some(node),
            is_new,
        })
    }

    /// Tells of the directories down to here that were not worth it until now.
    fn tell_on_the_way(&mut self) -> Result<()> {
        for frame in &mut self.frames {
            if let Some((stat, xattrs)) = frame.same.take() {
                let path = self.path.get(..frame.end).unwrap_or_default();
                self.sink.found(&Found { path, stat: &stat, xattrs: &xattrs, node: None, is_new: false })?;
            }
        }
        Ok(())
    }

    fn descend(&mut self, name: &OsStr, node: &Pinned, beside: Option<&Pinned>, is_new: bool) -> Result<()> {
        if !enter(&mut self.upper, name, node)? {
            return if self.archive { Err(replaced()) } else { Ok(()) };
        }
        match &mut self.below {
            Below::Lowers(lowers) => lowers.down(name),
            Below::Tree(Some(cursor)) => {
                if let Some(beside) = beside
                    && !enter(cursor, name, beside)?
                {
                    return Err(replaced());
                }
            }
            Below::Tree(None) => {}
        }
        self.directory(node, beside, is_new)
    }

    /// Lists the directory that the walk has just entered.
    fn directory(&mut self, node: &Pinned, beside: Option<&Pinned>, is_new: bool) -> Result<()> {
        let stat = *node.stat();
        let mut same = None;
        if let Some(beside) = beside
            && is_same_meta(&stat, beside.stat())
        {
            let xattrs = node.xattrs()?;
            same = (xattrs == beside.xattrs()?).then_some((stat, xattrs));
        }
        if same.is_none() {
            self.tell_on_the_way()?;
            self.tell(node, is_new)?;
        }
        let mut names: BTreeMap<OsString, (bool, bool)> = BTreeMap::new();
        for_each_entry(self.upper.fd(), |name, _| {
            names.insert(name.to_owned(), (true, false));
            Ok(())
        })?;
        match &mut self.below {
            Below::Lowers(lowers) => {
                if node.is_opaque()? {
                    self.sink.opaque(&self.path)?;
                    if !self.archive {
                        for name in lowers.names()? {
                            names.entry(name).or_default().1 = true;
                        }
                    }
                }
            }
            Below::Tree(Some(cursor)) if beside.is_some() => for_each_entry(cursor.fd(), |name, _| {
                names.entry(name.to_owned()).or_default().1 = true;
                Ok(())
            })?,
            Below::Tree(_) => {}
        }
        let names = names.into_iter().rev();
        let names = names.map(|(name, (upper, lower))| Name { name, upper, lower }).collect();
        self.frames.push(Frame { names, stat, end: self.path.len(), paired: beside.is_some(), same });
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if self.archive {
            let now = fstat(self.upper.fd().as_fd()).during(|| "stat")?;
            if !is_same_state(&frame.stat, &now) {
                return Err(changed());
            }
        }
        if self.frames.is_empty() {
            return Ok(());
        }
        self.upper.up()?;
        match &mut self.below {
            Below::Lowers(lowers) => lowers.up(),
            Below::Tree(Some(cursor)) if frame.paired => {
                cursor.up()?;
            }
            Below::Tree(_) => {}
        }
        Ok(())
    }
}

/// Goes down into a directory that was just looked at, if it is still that.
fn enter(cursor: &mut Cursor, name: &OsStr, node: &Pinned) -> Result<bool> {
    if cursor.down(name, false)? != Step::Entered {
        return Ok(false);
    }
    let identity = cursor.identity();
    if (identity.device, identity.inode) == (node.stat().st_dev, node.stat().st_ino) {
        return Ok(true);
    }
    cursor.up()?;
    Ok(false)
}

fn replaced() -> Error {
    Error::new(ErrorKind::InUse, "it was replaced while it was read")
}
