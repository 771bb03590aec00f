// SPDX-License-Identifier: MulanPSL-2.0
//! Project quotas that are only counted, for tests where the kernel has none: everything below one directory is the file
//! system, and who belongs to what is found out by looking at it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{Project, Quotas, Record, State};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::fs::Dir;
use crate::units::{Bytes, Inodes, Usage};

/// Device and inode.
type Identity = (u64, u64);

/// The file system below a directory.
#[derive(Debug)]
pub(crate) struct Fake {
    root: PathBuf,
    known: Mutex<Known>,
    beside: Beside,
}

/// What somebody does beside the next time that a project is given to a directory.
#[derive(Default)]
struct Beside(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Beside")
    }
}

#[derive(Debug)]
struct Known {
    state: State,
    projects: HashMap<Identity, Project>,
    limits: BTreeMap<u32, Bytes>,
    inode_limits: BTreeMap<u32, Inodes>,
    /// What belongs to a project and lies elsewhere.
    elsewhere: BTreeMap<u32, Usage>,
    largest: u32,
    /// Errno of every limit that is set.
    refuses: Option<i32>,
    /// What happens the next time that a project is given to a directory.
    meanwhile: Option<u32>,
    /// Projects whose record was asked for, in that order.
    asked: Vec<u32>,
}

impl Fake {
    pub(crate) fn new(root: &Path) -> Fake {
        let known = Known {
            state: State { accounted: true, enforced: true },
            projects: HashMap::new(),
            limits: BTreeMap::new(),
            inode_limits: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            largest: u32::MAX,
            refuses: None,
            meanwhile: None,
            asked: Vec::new(),
        };
        Fake { root: root.to_owned(), known: Mutex::new(known), beside: Beside::default() }
    }

    pub(crate) fn switch(&self, accounted: bool, enforced: bool) {
        self.known.lock().state = State { accounted, enforced };
    }

    /// No number above this can be given.
    pub(crate) fn set_largest(&self, largest: u32) {
        self.known.lock().largest = largest;
    }

    pub(crate) fn refuse_limits(&self, errno: Option<i32>) {
        self.known.lock().refuses = errno;
    }

    /// Somebody else gives the project of the next directory to something of theirs at the same moment, so many times.
    pub(crate) fn contest(&self, times: u32) {
        self.known.lock().meanwhile = Some(times);
    }

    /// An administrator limits a project's inodes.
    pub(crate) fn limit_inodes(&self, id: u32, most: Inodes) {
        self.known.lock().inode_limits.insert(id, most);
    }

    pub(crate) fn inode_limits(&self) -> BTreeMap<u32, Inodes> {
        self.known.lock().inode_limits.clone()
    }

    /// Does something just before the next directory is given a project.
    pub(crate) fn beside(&self, action: impl FnOnce() + Send + 'static) {
        *self.beside.0.lock() = Some(Box::new(action));
    }

    /// Somebody else uses a project.
    pub(crate) fn use_elsewhere(&self, id: u32, inodes: u64) {
        let usage = Usage { bytes: Bytes(inodes * 4096), inodes: Inodes(inodes) };
        self.known.lock().elsewhere.insert(id, usage);
    }

    /// Projects whose record was asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<u32> {
        std::mem::take(&mut self.known.lock().asked)
    }

    pub(crate) fn limits(&self) -> BTreeMap<u32, Bytes> {
        self.known.lock().limits.clone()
    }

    /// Looks at everything there is. What was not seen before was made below what it lies in.
    fn look(&self, known: &mut Known) -> Walk {
        let mut seen = Walk::default();
        walk(known, &self.root, Project { id: 0, inherited: false }, &mut seen);
        known.projects.retain(|identity, _| seen.there.contains(identity));
        seen
    }
}

fn walk(known: &mut Known, path: &Path, above: Project, seen: &mut Walk) {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
    let identity = (metadata.dev(), metadata.ino());
    seen.there.insert(identity);
    let made = Project { id: if above.inherited { above.id } else { 0 }, inherited: above.inherited };
    let own = *known.projects.entry(identity).or_insert(made);
    let usage = seen.usage.entry(own.id).or_default();
    usage.inodes.0 += 1;
    usage.bytes.0 += metadata.len();
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            walk(known, &entry.path(), own, seen);
        }
    }
}

#[derive(Default)]
struct Walk {
    there: HashSet<Identity>,
    usage: BTreeMap<u32, Usage>,
}

fn errno<T>(errno: i32, what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::from_errno(errno), what))
}

impl Quotas for Fake {
    fn state(&self) -> Result<State> {
        match self.known.lock().state {
            State { accounted: false, .. } => errno(libc::ENOSYS, "no project quota"),
            state => Ok(state),
        }
    }

    fn project(&self, dir: &Dir) -> Result<Project> {
        let mut known = self.known.lock();
        self.look(&mut known);
        Ok(known.projects.get(&dir.identity()?).copied().unwrap_or(Project { id: 0, inherited: false }))
    }

    fn set_project(&self, dir: &Dir, project: Project) -> Result<()> {
        let beside = self.beside.0.lock().take();
        if let Some(action) = beside {
            action();
        }
        let mut known = self.known.lock();
        if project.id > known.largest {
            return errno(libc::EINVAL, "the number is too large");
        }
        match known.meanwhile {
            Some(times) if project.id != 0 && times > 0 => {
                known.meanwhile = Some(times - 1);
                known.elsewhere.insert(project.id, Usage { bytes: Bytes(4096), inodes: Inodes(1) });
            }
            _ => {}
        }
        self.look(&mut known);
        known.projects.insert(dir.identity()?, project);
        Ok(())
    }

    fn record(&self, id: u32) -> Result<Record> {
        let mut known = self.known.lock();
        if !known.state.accounted {
            return errno(libc::ESRCH, "no project quota");
        }
        known.asked.push(id);
        let seen = self.look(&mut known);
        let mut used = seen.usage.get(&id).copied().unwrap_or_default();
        let elsewhere = known.elsewhere.get(&id).copied().unwrap_or_default();
        used.bytes.0 += elsewhere.bytes.0;
        used.inodes.0 += elsewhere.inodes.0;
        let most = known.limits.get(&id).copied().unwrap_or_default();
        Ok(Record { used, most, limited: most.0 > 0 || known.inode_limits.contains_key(&id) })
    }

    fn set_limit(&self, id: u32, most: Bytes) -> Result<()> {
        self.set_bytes(id, most)?;
        self.known.lock().inode_limits.remove(&id);
        Ok(())
    }

    fn set_bytes(&self, id: u32, most: Bytes) -> Result<()> {
        let mut known = self.known.lock();
        if let Some(refused) = known.refuses {
            return errno(refused, "set the quota");
        }
        if !known.state.accounted {
            return errno(libc::ESRCH, "no project quota");
        }
        match most.0 / 1024 * 1024 {
            0 => known.limits.remove(&id),
            most => known.limits.insert(id, Bytes(most)),
        };
        Ok(())
    }
}
