// SPDX-License-Identifier: MulanPSL-2.0
//! Opening: lock, records, then what has to be done about what was found.

use std::ffi::OsStr;
use std::path::Path;

use parking_lot::RwLock;

use crate::error::{During, Error, ErrorKind, Result};
use crate::layer::Problem;
use crate::persist::{Ownership, StateDir};
use crate::sys::fs::Dir;

use super::claims::Claims;
use super::disk::{CREATING, DIR_MODE, MAKING, REMOVING};
use super::load::{self, Loaded};
use super::{RootfsStore, RootfsStoreOptions};

/// Where the state of all stores below a root lies.
const STATE: &str = ".isula-storage";

pub(super) fn open(options: RootfsStoreOptions) -> Result<RootfsStore> {
    let doing = format!("open rootfs store {}", options.dir.display());
    open_store(options).during(|| doing)
}

fn open_store(options: RootfsStoreOptions) -> Result<RootfsStore> {
    let RootfsStoreOptions { dir, ownership, durability } = options;
    let (parent, name) = split(&dir)?;
    let beside = parent.join(STATE);
    let (root, state, work) = match ownership {
        // The lock comes before anything else is made or looked at.
        Ownership::Owner => {
            let beside = Dir::create_all(&beside, DIR_MODE)?;
            let state = StateDir::open(&beside, name, ownership, durability)?;
            let work = beside.open_dir(name)?;
            (Dir::create_all(&dir, DIR_MODE)?, state, Some(work))
        }
        Ownership::ReadOnly => {
            let root = Dir::open(&dir)?;
            let beside = match Dir::open(&beside) {
                Err(error) if error.kind() == ErrorKind::NotFound => root.try_clone()?,
                opened => opened?,
            };
            (root, StateDir::open(&beside, name, ownership, durability)?, None)
        }
        Ownership::Shared => return Err(Error::invalid("a rootfs store is owned or read-only, not shared")),
    };
    let mut store = RootfsStore {
        root,
        state,
        work,
        durability,
        claims: Claims::default(),
        index: RwLock::default(),
        unfinished: RwLock::default(),
        problems: Vec::new(),
        broken: Vec::new(),
    };
    if ownership == Ownership::Owner {
        store.make_parts();
    }
    let Loaded { index, unfinished, problems, broken } = load::load(&store)?;
    for Problem { subject, reason, .. } in &problems {
        log::warn!("rootfs store {}: {subject}: {reason}", store.dir().display());
    }
    store.index = RwLock::new(index);
    store.unfinished = RwLock::new(unfinished);
    store.problems = problems;
    store.broken = broken;
    store.state.sweep_trash();
    Ok(store)
}

fn split(dir: &Path) -> Result<(&Path, &str)> {
    let name = dir.file_name().and_then(OsStr::to_str);
    match (dir.parent(), name) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(Error::invalid(format!("{} does not name a directory", dir.display()))),
    }
}

impl RootfsStore {
    /// Makes the parts of the state now, so that a deletion needs no room for them on a disk that is full by then.
    fn make_parts(&self) {
        for part in [MAKING, CREATING, REMOVING] {
            if let Err(error) = self.part(part) {
                log::warn!("{}", error.report());
            }
        }
    }
}
