// SPDX-License-Identifier: MulanPSL-2.0
//! Directories below a layer's root, found one component at a time from descriptors.
//!
//! No call ever gives the kernel a path of more than one component or lets it follow a symbolic link: links within
//! the layer are read and resolved here, as if the root were `/`, so nothing leads out of the root, whoever changes
//! what in the tree meanwhile, on any kernel.
//!
//! Open directories are kept ([`KEPT`] of them), each under its path without links, so that a typical entry needs
//! no look-up at all. A directory gets its times when it leaves the cache: those of its entry, or those it had when
//! it was opened. So a directory that is only passed through keeps its times, in bounded memory and without a
//! second walk.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid};
use rustix::io::Errno;

use crate::archive::attributes;
use crate::archive::pax::show;
use crate::archive::whiteout::split;
use crate::error::{During, Error, ErrorKind, Result};

/// Open directories kept: enough for every directory on the way to an entry, few beside a limit of 1024.
const KEPT: usize = 64;
/// As the kernel has it.
const MOST_LINKS: u32 = 40;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory below the root.
#[derive(Debug)]
pub(super) struct Node {
    fd: OwnedFd,
    /// Path below the root without symbolic links; empty for the root.
    path: Box<[u8]>,
    /// Times it is to have in the end; `None` for one that this archive did not name.
    times: RefCell<Option<Timestamps>>,
    /// Whether something below it was made or removed since, or its times were set by an entry.
    changed: Cell<bool>,
    /// Whether new entries inherit an access control list from it.
    inherits: Cell<bool>,
    /// Owner that the kernel gives new entries: ours, but where the group comes from the directory.
    owner_of_new: Cell<Option<(Uid, Gid)>>,
    used: Cell<u64>,
}

impl Node {
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Notes that entries below were made or removed.
    pub(super) fn touch(&self) {
        self.changed.set(true);
    }

    /// Gives it the times of its entry, in the end.
    pub(super) fn set_times(&self, times: Timestamps) {
        self.times.replace(Some(times));
        self.changed.set(true);
    }

    pub(super) fn inherits(&self) -> bool {
        self.inherits.get()
    }

    pub(super) fn set_inherits(&self, inherits: bool) {
        self.inherits.set(inherits);
    }

    /// The owner of `new`, just made in this directory, which all that are made in it have at first.
    pub(super) fn owner_of_new(&self, new: BorrowedFd<'_>) -> Result<(Uid, Gid)> {
        if let Some(owner) = self.owner_of_new.get() {
            return Ok(owner);
        }
        let stat = rustix::fs::fstat(new).during(|| "stat")?;
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        self.owner_of_new.set(Some(owner));
        Ok(owner)
    }

    /// The same if it is known.
    pub(super) fn known_owner_of_new(&self) -> Option<(Uid, Gid)> {
        self.owner_of_new.get()
    }

    /// For when the directory gets another group or loses its set-group-id bit.
    pub(super) fn forget_owner_of_new(&self) {
        self.owner_of_new.set(None);
    }

    fn settle(&self) -> Result<()> {
        match &*self.times.borrow() {
            Some(times) if self.changed.replace(false) => rustix::fs::futimens(&self.fd, times)
                .during(|| format!("set times of directory {}", show(&self.path))),
            _ => Ok(()),
        }
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What to do about a directory on the way that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it, 0755.
    Make,
    /// Make it, and also in place of an overlay whiteout, hiding what that hid.
    MakeOverWhiteout,
    /// `NotFound`.
    Fail,
}

/// The tree below a root.
#[derive(Debug)]
pub(super) struct Tree {
    root: Rc<Node>,
    nodes: HashMap<Box<[u8]>, Rc<Node>>,
    /// The directory asked for last, by the path it was asked for.
    last: Option<(Vec<u8>, Rc<Node>)>,
    clock: u64,
    missing: Missing,
    /// Owner of directories that are made on the way; `None`: whoever we are.
    owner: Option<(Uid, Gid)>,
}

/// What one step down found.
enum Step {
    Down(Rc<Node>),
    Link(Vec<u8>),
    Absent,
}

impl Tree {
    /// The tree below `root`; `missing` says what [`Tree::dir`] does about absent directories.
    pub(super) fn open(root: BorrowedFd<'_>, missing: Missing) -> Result<Tree> {
        let fd = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty())
            .during(|| "open the layer's directory")?;
        let root = Rc::new(Node {
            times: RefCell::new(Some(times_of(&fd)?)),
            inherits: Cell::new(attributes::has_default_acl(&fd)),
            fd,
            path: Box::default(),
            changed: Cell::new(false),
            owner_of_new: Cell::new(None),
            used: Cell::new(0),
        });
        Ok(Tree { root, nodes: HashMap::new(), last: None, clock: 0, missing, owner: None })
    }

    /// Gives directories that are made on the way to this owner.
    pub(super) fn owned_by(mut self, owner: Option<(Uid, Gid)>) -> Tree {
        self.owner = owner;
        self
    }

    /// The directory at a cleaned path, symbolic links within the tree followed.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<Node>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((last, node)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(node));
        }
        let node = self.walk(path)?;
        let mut key = self.last.take().map(|(key, _)| key).unwrap_or_default();
        key.clear();
        key.extend_from_slice(path);
        self.last = Some((key, Rc::clone(&node)));
        Ok(node)
    }

    /// Keeps a directory just made or opened as `name` in `parent`.
    pub(super) fn keep(&mut self, parent: &Node, name: &[u8], fd: OwnedFd) -> Result<Rc<Node>> {
        let path = join(&parent.path, name);
        let node = Rc::new(Node {
            fd,
            path: path.clone(),
            times: RefCell::new(None),
            changed: Cell::new(false),
            inherits: Cell::new(false),
            owner_of_new: Cell::new(None),
            used: Cell::new(0),
        });
        self.insert(path, &node)?;
        Ok(node)
    }

    /// The directory `name` in `parent` if it is kept open.
    pub(super) fn kept(&mut self, parent: &Node, name: &[u8]) -> Option<Rc<Node>> {
        let node = self.nodes.get(&join(&parent.path, name)).map(Rc::clone)?;
        self.clock += 1;
        node.used.set(self.clock);
        Some(node)
    }

    /// Opens the directory `name` in `parent`: `None` if there is something else or nothing.
    pub(super) fn child(&mut self, parent: &Node, name: &[u8]) -> Result<Option<Rc<Node>>> {
        if let Some(node) = self.kept(parent, name) {
            return Ok(Some(node));
        }
        match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => {
                let times = times_of(&fd)?;
                let inherits = attributes::has_default_acl(&fd);
                let node = self.keep(parent, name, fd)?;
                node.times.replace(Some(times));
                node.inherits.set(inherits);
                Ok(Some(node))
            }
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).during(|| format!("open directory {}", show(&join(&parent.path, name)))),
        }
    }

    /// The directory at a cleaned path, `None` if it does not exist.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Option<Rc<Node>>> {
        let missing = std::mem::replace(&mut self.missing, Missing::Fail);
        let found = self.dir(path);
        self.missing = missing;
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Forgets open directories at and below `path`, which is about to be removed. Their times are set first, for
    /// those that stay.
    pub(super) fn forget(&mut self, path: &[u8]) -> Result<()> {
        self.forget_below(path)?;
        match self.nodes.remove(path) {
            Some(node) => node.settle(),
            None => Ok(()),
        }
    }

    /// Forgets open directories below `path`, and by which path the last one was found: a link may have changed.
    pub(super) fn forget_below(&mut self, path: &[u8]) -> Result<()> {
        self.last = None;
        let below =
            |key: &[u8]| path.is_empty() || key.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
        for (key, node) in &self.nodes {
            if below(key) {
                node.settle()?;
            }
        }
        self.nodes.retain(|key, _| !below(key));
        Ok(())
    }

    /// Sets the times of all directories still open.
    pub(super) fn finish(self) -> Result<()> {
        self.root.settle()?;
        self.nodes.values().try_for_each(|node| node.settle())
    }

    fn insert(&mut self, path: Box<[u8]>, node: &Rc<Node>) -> Result<()> {
        if self.nodes.len() >= KEPT {
            let idle = self.nodes.iter().filter(|(_, node)| Rc::strong_count(node) == 1);
            let oldest = idle.min_by_key(|(_, node)| node.used.get()).map(|(path, _)| path.clone());
            if let Some(node) = oldest.and_then(|path| self.nodes.remove(&path)) {
                node.settle()?;
            }
        }
        self.clock += 1;
        node.used.set(self.clock);
        self.nodes.insert(path, Rc::clone(node));
        Ok(())
    }

    /// The deepest kept directory on the way to `path`, and what remains of the path.
    fn deepest<'p>(&self, path: &'p [u8]) -> (Rc<Node>, &'p [u8]) {
        let mut prefix = path;
        while !prefix.is_empty() {
            if let Some(node) = self.nodes.get(prefix) {
                let rest = path.get(prefix.len() + 1..).unwrap_or_default();
                return (Rc::clone(node), rest);
            }
            prefix = split(prefix).0;
        }
        (Rc::clone(&self.root), path)
    }

    fn walk(&mut self, path: &[u8]) -> Result<Rc<Node>> {
        let (mut node, rest) = self.deepest(path);
        let mut todo = rest.to_vec();
        let mut links = 0;
        let mut at = 0;
        while let Some(component) = next_component(&todo, &mut at) {
            let name = todo.get(component).unwrap_or_default();
            if name == b".." {
                let parent = split(&node.path).0.to_vec();
                node = self.dir_without_links(&parent)?;
                continue;
            }
            match self.step(&node, name)? {
                Step::Down(next) => node = next,
                Step::Absent => node = self.make(&node, name)?,
                Step::Link(mut target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Error::new(
                            ErrorKind::InvalidData,
                            format!("{}: too many symbolic links on the way", show(path)),
                        ));
                    }
                    if target.starts_with(b"/") {
                        node = Rc::clone(&self.root);
                    }
                    target.push(b'/');
                    target.extend_from_slice(todo.get(at..).unwrap_or_default());
                    todo = target;
                    at = 0;
                }
            }
        }
        Ok(node)
    }

    /// For `..` of a link's target: the parent by its own path, which has no links unless somebody puts one there.
    fn dir_without_links(&mut self, path: &[u8]) -> Result<Rc<Node>> {
        let (mut node, rest) = self.deepest(path);
        for name in rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            node = match self.step(&node, name)? {
                Step::Down(next) => next,
                Step::Link(_) | Step::Absent => {
                    return Err(Error::new(
                        ErrorKind::InvalidData,
                        format!("directory {} changed while it was in use", show(path)),
                    ));
                }
            };
        }
        Ok(node)
    }

    fn step(&mut self, node: &Rc<Node>, name: &[u8]) -> Result<Step> {
        if let Some(next) = self.child(node, name)? {
            return Ok(Step::Down(next));
        }
        match rustix::fs::readlinkat(node.as_ref(), name, Vec::new()) {
            Ok(target) => Ok(Step::Link(target.into_bytes())),
            Err(Errno::NOENT) => Ok(Step::Absent),
            Err(Errno::INVAL) if self.missing == Missing::MakeOverWhiteout && is_whiteout(node, name)? => {
                rustix::fs::unlinkat(node.as_ref(), name, AtFlags::empty())
                    .during(|| format!("replace whiteout {}", show(&join(&node.path, name))))?;
                let made = self.make(node, name)?;
                attributes::set_opaque(&made)?;
                Ok(Step::Down(made))
            }
            Err(Errno::INVAL) => {
                let path = join(&node.path, name);
                Err(Error::new(ErrorKind::InvalidData, format!("{} is not a directory", show(&path))))
            }
            Err(errno) => {
                Err(errno).during(|| format!("read symbolic link {}", show(&join(&node.path, name))))
            }
        }
    }

    /// Makes a directory that no entry named: 0755, of the root of the tree's user namespace.
    fn make(&mut self, parent: &Rc<Node>, name: &[u8]) -> Result<Rc<Node>> {
        let path = || show(&join(&parent.path, name));
        if self.missing == Missing::Fail {
            return Err(Error::not_found(format!("directory {} does not exist", path())));
        }
        rustix::fs::mkdirat(parent.as_ref(), name, Mode::from_raw_mode(0o755))
            .during(|| format!("make directory {}", path()))?;
        parent.touch();
        let fd = rustix::fs::openat(parent.as_ref(), name, DIRECTORY, Mode::empty())
            .during(|| format!("open directory {}", path()))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))
            .during(|| format!("set mode of directory {}", path()))?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&fd, Some(uid), Some(gid))
                .during(|| format!("set owner of directory {}", path()))?;
        }
        if parent.inherits() {
            attributes::remove_acls(fd.as_fd()).during(|| format!("directory {}", path()))?;
        }
        self.keep(parent, name, fd)
    }
}

/// Whether `name` in `dir` is a character device 0/0.
pub(super) fn is_whiteout(dir: &Node, name: &[u8]) -> Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            Ok(kind == FileType::CharacterDevice && stat.st_rdev == 0)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).during(|| format!("stat {}", show(&join(&dir.path, name)))),
    }
}

/// `name` in the directory `path`.
pub(super) fn join(path: &[u8], name: &[u8]) -> Box<[u8]> {
    if path.is_empty() {
        return name.into();
    }
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    joined.push(b'/');
    joined.extend_from_slice(name);
    joined.into_boxed_slice()
}

fn times_of(fd: &OwnedFd) -> Result<Timestamps> {
    let stat = rustix::fs::fstat(fd).during(|| "stat a directory of the layer")?;
    Ok(attributes::times_of_stat(&stat))
}

/// The range of the next component in `path` from `at` on, skipping empty ones and `.`.
fn next_component(path: &[u8], at: &mut usize) -> Option<std::ops::Range<usize>> {
    loop {
        let start = *at;
        let rest = path.get(start..)?;
        if rest.is_empty() {
            return None;
        }
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        *at = path.len().min(start + length + 1);
        match rest.get(..length) {
            Some(b"" | b".") | None => {}
            Some(_) => return Some(start..start + length),
        }
    }
}
