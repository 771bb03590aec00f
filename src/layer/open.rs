// SPDX-License-Identifier: MulanPSL-2.0
//! Opening: lock, driver, records, then what has to be done about what was found.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::driver::options::take_limits;
use crate::driver::{DriverOptions, GraphDriver, name_on_disk};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::{self, Ownership, StateDir};
use crate::sys::fs::Dir;

use super::disk::{Disk, mount_name};
use super::entry::Entry;
use super::load::{self, Doubt, Loaded};
use super::reaper::{Reaper, Rubbish};
use super::registry::Registry;
use super::remote::{self, Sharing};
use super::{LayerStore, LayerStoreOptions, Problem};

/// Where the state of all stores below a root lies.
pub(super) const STATE: &str = ".isula-storage";
const DIR_MODE: u32 = 0o700;

pub(super) fn open(
    options: LayerStoreOptions,
    share: bool,
    open_driver: impl FnOnce(&DriverOptions) -> Result<Arc<dyn GraphDriver>>,
) -> Result<LayerStore> {
    let doing = format!("open layer store {}", options.root.display());
    let mut limits = options.limits.clone();
    let driver_options = take_limits(options.driver_options.clone(), &mut limits).during(|| doing.clone())?;
    let mut disk = open_disk(&options).during(|| doing.clone())?;
    if share {
        disk = remote::open_disk(disk, &options).during(|| doing.clone())?;
    }
    let driver = open_driver(&DriverOptions {
        root: options.root,
        name: options.driver,
        options: driver_options,
        durability: options.durability,
        read_only: disk.is_read_only(),
        owner_shift: options.owner_shift,
    })
    .during(|| doing.clone())?;

    remote::prepare(&disk, driver.as_ref());
    let loaded = match load::load(&disk, driver.as_ref()) {
        Ok(loaded) => loaded,
        Err(error) => {
            if let Err(also) = driver.clean_up() {
                log::warn!("{doing}: {}", also.report());
            }
            return Err(error.context(doing));
        }
    };
    let Loaded { entries, unfinished, doubtful, problems, recorded, .. } = loaded;
    let mut store = LayerStore {
        driver,
        disk,
        registry: Registry::new(entries),
        reaper: Reaper::default(),
        limits,
        problems,
        repair: Mutex::new(()),
        healing: Mutex::new(()),
        sharing: Sharing::default(),
        #[cfg(test)]
        looked_at: std::sync::atomic::AtomicU64::new(0),
    };
    // From here on a failure drops the store, which releases driver and lock.
    let mut found = store.settle(unfinished, doubtful);
    store.keep_what_may_be_needed(recorded);
    found.extend(store.restore_mounts().during(|| doing)?);
    store.problems.extend(found);
    for problem in &store.problems {
        log::warn!("{}: {}", problem.subject, problem.reason);
    }
    Ok(store)
}

/// Takes the lock before anything else is made or looked at.
fn open_disk(options: &LayerStoreOptions) -> Result<Disk> {
    let name = format!("{}-layers", name_on_disk(&options.driver)?);
    let layers = options.root.join(&name);
    let run = options.run_root.join(&name);
    let state = options.root.join(STATE);
    match options.ownership {
        Ownership::Owner => {
            let state = Dir::create_all(&state, DIR_MODE)?;
            let state = StateDir::open(&state, &name, Ownership::Owner, options.durability)?;
            let layers = Dir::create_all(&layers, DIR_MODE)?;
            let run = Dir::create_all(&run, DIR_MODE)?;
            Ok(Disk::new(layers, Some(run), Some(state), options.durability, false))
        }
        Ownership::ReadOnly => {
            let open_state = |dir: Dir| StateDir::open(&dir, &name, Ownership::ReadOnly, options.durability);
            let state = if_there(Dir::open(&state).and_then(open_state))?;
            let layers = Dir::open(&layers)?;
            let run = if_there(Dir::open(&run))?;
            Ok(Disk::new(layers, run, state, options.durability, true))
        }
        Ownership::Shared => Err(Error::invalid("a layer store is owned or read-only, not shared")),
    }
}

fn if_there<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl LayerStore {
    /// Removes what is unfinished, puts aside what is doubtful, empties the trash. Reports what it did not manage;
    /// none of it keeps the rest from working.
    fn settle(&self, unfinished: Vec<LayerId>, doubtful: Vec<Doubt>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut left = |id: &dyn std::fmt::Display, reason: String, quarantined| {
            problems.push(Problem { subject: format!("layer {id}"), reason, quarantined });
        };
        for Doubt { name, reason } in doubtful {
            if self.disk.is_read_only() {
                left(&name, reason, false);
                continue;
            }
            match self.disk.quarantine_record(&name, &reason) {
                Ok(_) => left(&name, reason, true),
                Err(error) => left(&name, format!("{reason}; put it aside: {}", error.report()), false),
            }
        }
        if self.disk.is_read_only() {
            return problems;
        }
        for id in unfinished {
            log::info!("layer {id}: it was never completed, or its deletion was begun: removing it");
            if let Err(error) = self.remove_unfinished(&id) {
                left(&id, format!("it is incomplete; remove it: {}", error.report()), false);
            }
        }
        match self.disk.state() {
            Ok(state) => self.reaper.take(Rubbish::Trash(state)),
            Err(error) => log::warn!("empty the trash: {}", error.report()),
        }
        problems
    }

    /// Nothing is deleted that stands below a layer which lies in quarantine, or which has a record but cannot be listed.
    /// (Data without a record are mostly what interrupted creations of the reference left.)
    fn keep_what_may_be_needed(&self, recorded: Vec<LayerId>) {
        if self.disk.is_read_only() {
            return;
        }
        let aside = self.disk.quarantined().unwrap_or_else(|error| {
            log::warn!("{}", error.report());
            Vec::new()
        });
        let mut known: HashSet<LayerId> =
            recorded.into_iter().filter(|id| self.registry.by_id(id).is_none()).collect();
        known.extend(aside.iter().filter_map(|entry| LayerId::new(&entry.name).ok()));
        self.keep_below_all(known, &aside);
    }

    /// Brings mount counts in line with the kernel: a container's layer that was mounted is mounted again, with count 1
    /// as in the reference; an image layer keeps one count if it is mounted still.
    fn restore_mounts(&self) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let saved = self.saved_mounts()?;
        for entry in self.registry.all() {
            let is_container = !entry.is_image();
            let is_saved = !saved.is_empty() && saved.contains(&mount_name(entry.id()));
            if is_container || is_saved {
                entry.lock_mount().set_count(0);
            }
            if is_saved && let Some(problem) = self.restore_mount(&entry) {
                problems.push(problem);
            }
        }
        Ok(problems)
    }

    fn saved_mounts(&self) -> Result<HashSet<String>> {
        let Some(run) = self.disk.run() else { return Ok(HashSet::new()) };
        if !self.disk.is_read_only() {
            persist::sweep_temporary(run);
        }
        let entries = run.entries().during(|| "list mount states")?;
        Ok(entries.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect())
    }

    fn restore_mount(&self, entry: &Entry) -> Option<Problem> {
        let id = entry.id();
        let report = |reason| Problem { subject: format!("layer {id}"), reason, quarantined: false };
        let mut problem = None;
        let saved = match self.disk.read_mount(id) {
            Ok(saved) => Some(saved),
            Err(error) => {
                problem = Some(report(format!("its mount state is lost: {}", error.report())));
                None
            }
        };
        let was_mounted = saved.as_ref().is_none_or(|saved| saved.count > 0);
        if self.disk.is_read_only() {
            // What the owner wrote is as good as what could be asked.
            entry.lock_mount().set_count(saved.map_or(0, |saved| saved.count));
            return problem;
        }
        if !was_mounted {
            return problem;
        }
        let mut mounted = self.driver.is_mounted(id).unwrap_or_else(|error| {
            log::warn!("layer {id}: ask whether it is mounted: {}", error.report());
            false
        });
        if !mounted && !entry.is_image() && saved.is_some() {
            match self.mount_in_driver(entry) {
                Ok(_) => mounted = true,
                Err(error) => problem = Some(report(format!("mount it again: {}", error.report()))),
            }
        }
        let count = i32::from(mounted);
        entry.lock_mount().set_count(count);
        let path = self.driver.mount_path(id);
        let is_saved =
            saved.is_some_and(|saved| saved.count == count && saved.path.as_deref() == path.to_str());
        if !is_saved {
            self.try_save_mount(entry, count);
        }
        problem
    }
}
