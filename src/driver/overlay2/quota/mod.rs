// SPDX-License-Identifier: MulanPSL-2.0
//! Limits of container layers by project quotas.
//!
//! A limited layer is a project of its own: its directory is given a number before anything is made in it, hands the number
//! down, and the file system counts and limits what has it.
//!
//! **Whose a number is.** Other stores and programs use projects of the same file system and know nothing of each other.
//! So a number is taken only if nothing is counted to it and nothing was ever said of it; then the new directory has to be
//! all that is counted to it, for two may take one number at the same moment: the later of them sees the other, and
//! both may go elsewhere. Numbers are large and random at first, then one after the other: programs that count from 1 do not
//! meet them, and the file system's table stays small. [`ledger`] has those of this store.
//!
//! **When it is given back.** When nothing is counted to it any more: then the limit limits nobody. Data that are on their
//! way out or aside, or still open in some process, keep it. What a crash leaves is in the ledger, and the next start looks.
//!
//! **A home within a project.** Into a directory that hands a project down nothing of another project can be moved. So what is
//! moved is given the home's project first, and its own afterwards; what is below has its own all the time, and says which
//! that is if a crash comes between.

mod carried;
mod ledger;
mod size;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::driver::Defect;
use crate::driver::home::{Home, STAGING, STATE};
use crate::error::{Error, ErrorKind, Result};
use crate::persist::TRASH;
use crate::sys::fs::{Dir, random_hex};
use crate::sys::quota::{Project, Quotas, Record};
use crate::units::{Bytes, Usage};

use super::layout::DIFF;
use ledger::Ledger;

pub(super) use size::{NOT_SUPPORTED, not_supported, requested_size};

/// Numbers that are given. The least is above those of who counts from 1; the reference goes on after the largest it
/// finds, and that must not overflow.
const LEAST: u32 = 1 << 20;
const MOST: u32 = (1 << 31) - 1;
/// Those of an xfs without 32-bit projects.
const LEAST_OF_16_BITS: u32 = 1 << 10;
const MOST_OF_16_BITS: u32 = (1 << 16) - 1;
/// How many numbers are tried one after the other before a random one, and how many in all.
const RUN: u32 = 16;
const TRIES: u32 = 4096;
/// How long is waited until xfs no longer counts what was removed: pauses, each twice as long as the one before.
const PAUSES: u32 = 9;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// What a full layer gets for its mount: more than xfs sets aside for making a directory.
const ROOM: Bytes = Bytes(1 << 20);

/// Projects of the file system below a home.
#[derive(Debug)]
pub(super) struct Projects {
    kernel: Arc<dyn Quotas>,
    home: Dir,
    /// Limits are counted, and enforced.
    supported: bool,
    /// `None` until the home is open.
    ledger: Option<Ledger>,
    writable: bool,
    range: Mutex<Range>,
    /// What is still counted although it was removed.
    pending: Mutex<Vec<u32>>,
    /// Held while a number is taken until its limit is set, and while one is looked at and freed: what is being taken is
    /// written down, and still looks as if it was of nobody.
    change: Mutex<()>,
}

/// Numbers to be tried.
#[derive(Debug, Clone, Copy)]
struct Range {
    least: u32,
    most: u32,
    /// 0 before the first.
    next: u32,
}

impl Range {
    /// The next number, or a random one.
    fn take(&mut self, anywhere: bool) -> Result<u32> {
        if anywhere || self.next == 0 {
            let random = u32::from_str_radix(&random_hex(8)?, 16).unwrap_or(0);
            self.next = self.least + random % (self.most - self.least + 1);
        }
        if !(self.least..=self.most).contains(&self.next) {
            self.next = self.least;
        }
        let taken = self.next;
        self.next += 1;
        Ok(taken)
    }

    fn count(self) -> u32 {
        self.most - self.least + 1
    }
}

/// A project that was given to a new layer: taken back when dropped, once the layer is gone, unless it is kept.
#[derive(Debug)]
pub(super) struct Limited<'a> {
    projects: &'a Projects,
    id: u32,
    kept: bool,
}

impl Limited<'_> {
    /// The layer has its place.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.projects.give_back(self.id);
        }
    }
}

/// Room that a full layer has for a moment.
#[derive(Debug)]
pub(super) struct Room<'a> {
    projects: &'a Projects,
    id: u32,
    most: Bytes,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.projects.kernel.set_bytes(self.id, self.most) {
            log::warn!("{}", error.report());
        }
    }
}

impl Projects {
    /// Looks what the file system of `home` does; `None` if its directories have no projects.
    pub(super) fn detect(home: &Dir, kernel: Arc<dyn Quotas>) -> Result<Option<Projects>> {
        if let Err(error) = kernel.project(home) {
            log::debug!("{}", error.report());
            return Ok(None);
        }
        let supported = match kernel.state() {
            Ok(state) => state.enforced,
            Err(error) => {
                log::debug!("{}", error.report());
                false
            }
        };
        Ok(Some(Projects {
            kernel,
            home: home.try_clone()?,
            supported,
            ledger: None,
            writable: false,
            range: Mutex::new(Range { least: LEAST, most: MOST, next: 0 }),
            pending: Mutex::default(),
            change: Mutex::default(),
        }))
    }

    /// Whether layers can be limited.
    pub(super) fn supported(&self) -> bool {
        self.supported
    }

    /// Takes up the state of the home for reading.
    pub(super) fn read(&mut self, state: Option<Dir>) {
        self.ledger = state.map(Ledger::new);
    }

    /// Projects of what the home will remove when it is opened. Best effort.
    pub(super) fn on_their_way_out(&self, home: &Dir) -> HashSet<u32> {
        let mut found = HashSet::new();
        let Ok(state) = home.open_dir(STATE) else { return found };
        for name in [STAGING, TRASH] {
            if let Err(error) = state.open_dir(name).and_then(|dir| self.add_carried(&dir, None, &mut found))
            {
                log::debug!("{}", error.report());
            }
        }
        found
    }

    /// Takes up the state of the home, which is this process's, and frees what is left of layers that are gone, such as those
    /// that were `leaving` when it was opened.
    pub(super) fn take_up(&mut self, home: &Home, leaving: &HashSet<u32>) -> Result<()> {
        let ledger = Ledger::new(home.hidden()?);
        let ids = ledger.all()?;
        // Where the home was given its project later, the directory for new layers has none yet.
        if let Err(error) = home.staging().and_then(|staging| self.align(staging)) {
            log::warn!("{}", error.report());
        }
        self.range.get_mut().next =
            ids.iter().rev().find(|id| (LEAST..MOST).contains(*id)).map_or(0, |id| id + 1);
        self.ledger = Some(ledger);
        self.writable = true;
        self.give_all_back(ids.iter().copied().filter(|id| leaving.contains(id)).collect());
        let mut alive = None;
        for id in ids {
            if let Err(error) = self.look_at(id, &mut alive) {
                log::warn!("look after project {id}: {}", error.report());
                if is_off(&error) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn look_at(&self, id: u32, alive: &mut Option<HashSet<u32>>) -> Result<()> {
        let Some(wanted) = self.ledger()?.find(id)? else { return Ok(()) };
        let record = self.kernel.record(id)?;
        if record.is_empty() {
            log::info!("project {id} is of no layer any more");
            return self.release(id, &record);
        }
        if record.limited && record.most == whole(wanted) + ROOM {
            // A mount was interrupted.
            return self.kernel.set_bytes(id, wanted);
        }
        if record.limited || wanted == Bytes(0) {
            return Ok(());
        }
        // Repaired file systems can have lost their limits.
        let alive = match alive {
            Some(alive) => alive,
            None => alive.insert(self.carried()?),
        };
        if alive.contains(&id) {
            log::warn!("project {id}: its limit of {wanted} was lost and is set again");
            self.kernel.set_limit(id, wanted)?;
        }
        Ok(())
    }

    /// Limits a new, empty layer directory; what is made below it afterwards is counted.
    pub(super) fn limit(&self, layer: &Dir, size: Bytes) -> Result<Limited<'_>> {
        self.try_pending();
        let limited = (|| {
            if !self.kernel.state()?.enforced {
                return Err(Error::new(ErrorKind::Unsupported, "limits are not enforced any more"));
            }
            let (limited, set) = {
                let _change = self.change.lock();
                let limited = Limited { projects: self, id: self.claim(layer, size)?, kept: false };
                let set = self.kernel.set_limit(limited.id, size);
                if set.is_err() {
                    // The directory is still there, but is to be counted to nobody when the project is given back.
                    self.leave(layer);
                }
                (limited, set)
            };
            set.map(|()| limited)
        })();
        limited.map_err(|error| match is_off(&error) {
            true => not_supported().context(format!("project quota was switched off: {}", error.report())),
            false => error.context(format!("limit the layer to {size}")),
        })
    }

    /// Finds a number that nobody uses, and gives it to the directory. Call it with `change` held.
    fn claim(&self, layer: &Dir, size: Bytes) -> Result<u32> {
        let mut anywhere = false;
        let mut tried = 0;
        while tried < TRIES.min(self.range.lock().count()) {
            let id = self.range.lock().take(anywhere)?;
            // In a small range each is tried once.
            anywhere = tried % RUN == RUN - 1 && self.range.lock().count() > TRIES;
            tried += 1;
            if !self.kernel.record(id)?.is_blank() || !self.ledger()?.add(id, size)? {
                continue;
            }
            match self.take(layer, id) {
                Ok(true) => return Ok(id),
                Ok(false) => anywhere = self.range.lock().count() > TRIES,
                Err(error) => {
                    self.leave(layer);
                    self.ledger()?.forget(id)?;
                    if error.errno() == libc::EINVAL && id > MOST_OF_16_BITS {
                        *self.range.lock() =
                            Range { least: LEAST_OF_16_BITS, most: MOST_OF_16_BITS, next: 0 };
                        tried = 0;
                        anywhere = false;
                        continue;
                    }
                    // Who took it meanwhile has limited it to less than a directory takes.
                    if !error.is_no_space() {
                        return Err(error);
                    }
                    anywhere = self.range.lock().count() > TRIES;
                    continue;
                }
            }
            self.leave(layer);
            self.ledger()?.forget(id)?;
        }
        let message = format!("no project is free: {tried} were tried");
        Err(Error::new(ErrorKind::Os(libc::EUSERS), message))
    }

    /// Whether the directory is all that is counted to the project now.
    fn take(&self, layer: &Dir, id: u32) -> Result<bool> {
        self.kernel.set_project(layer, Project { id, inherited: true })?;
        Ok(self.kernel.record(id)?.used.inodes.0 == 1)
    }

    /// Counts a directory to what the home is counted to.
    fn leave(&self, layer: &Dir) {
        let left = self.kernel.project(&self.home).and_then(|home| self.kernel.set_project(layer, home));
        if let Err(error) = left {
            log::warn!("{}", error.report());
        }
    }

    /// The project of a layer of its own, if it has one.
    pub(super) fn of_layer(&self, layer: &Dir) -> Result<Option<u32>> {
        self.of_layer_if(layer, |id| match &self.ledger {
            Some(ledger) => ledger.find(id).map(|limit| limit.is_some()),
            None => Ok(false),
        })
    }

    /// The same. Where the layer's directory tells nothing, for it was moved within a home that has a project, its content
    /// does, whose project root in a container can change: it counts if it `is_known`.
    fn of_layer_if(&self, layer: &Dir, is_known: impl Fn(u32) -> Result<bool>) -> Result<Option<u32>> {
        let home = self.kernel.project(&self.home)?.id;
        let own = self.kernel.project(layer)?.id;
        if own != 0 && own != home {
            return Ok(Some(own));
        }
        let diff = match layer.open_dir(DIFF) {
            // Damaged: it is of no project that could be told.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::Os(libc::ENOTDIR | libc::ELOOP)
                ) =>
            {
                return Ok(None);
            }
            opened => opened?,
        };
        let id = self.kernel.project(&diff)?.id;
        Ok((id != 0 && id != home && is_known(id)?).then_some(id))
    }

    /// What is counted to a layer; `None` if its project is not certainly its own, or cannot be asked for.
    pub(super) fn usage(&self, layer: &Dir) -> Option<Usage> {
        let counted = (|| {
            let Some(ledger) = &self.ledger else { return Ok(None) };
            let Some(id) = self.of_layer(layer)? else { return Ok(None) };
            let is_own = ledger.find(id)?.is_some();
            is_own.then(|| self.kernel.record(id)).transpose()
        })();
        match counted {
            Ok(record) => record.filter(|record| !record.is_empty()).map(|record| record.used),
            Err(error) => {
                log::debug!("{}", error.report());
                None
            }
        }
    }

    /// Most bytes that a layer may have, if the file system sees to it.
    pub(super) fn limit_of(&self, layer: &Dir) -> Result<Option<Bytes>> {
        if !self.supported {
            return Ok(None);
        }
        let Some(id) = self.of_layer(layer)? else { return Ok(None) };
        match self.kernel.record(id) {
            Ok(record) => Ok((record.most > Bytes(0)).then_some(record.most)),
            Err(error) if is_off(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a layer that is full a little room until what is returned is dropped: overlay makes a directory in it when
    /// it is mounted, and else mounts it for reading only, so that it could not be emptied any more.
    pub(super) fn make_room(&self, layer: &Dir) -> Option<Room<'_>> {
        if !self.supported || !self.writable {
            return None;
        }
        let made = (|| {
            let Some(id) = self.of_layer(layer)? else { return Ok(None) };
            if self.ledger()?.find(id)?.is_none() {
                // Others may share it, and no start would know what to take back.
                return Ok(None);
            }
            let record = self.kernel.record(id)?;
            let most = record.most;
            if most == Bytes(0) || record.used.bytes + ROOM <= most {
                return Ok(None);
            }
            self.kernel.set_bytes(id, most + ROOM)?;
            Ok(Some(Room { projects: self, id, most }))
        })();
        made.unwrap_or_else(|error: Error| {
            log::warn!("{}", error.report());
            None
        })
    }

    /// Whether a layer's limit is lost.
    pub(super) fn examine(&self, layer: &Dir) -> Result<Option<Defect>> {
        let lost = self.lost_limit(layer)?;
        Ok(lost.map(|(_, limit)| Defect::derivable(format!("its limit of {limit} is lost"))))
    }

    /// Sets a lost limit again.
    pub(super) fn ensure_limit(&self, layer: &Dir) -> Result<()> {
        match self.lost_limit(layer)? {
            Some((id, limit)) if self.writable => self.kernel.set_limit(id, limit),
            Some(_) | None => Ok(()),
        }
    }

    fn lost_limit(&self, layer: &Dir) -> Result<Option<(u32, Bytes)>> {
        let Some(ledger) = self.ledger.as_ref().filter(|_| self.supported) else { return Ok(None) };
        let Some(id) = self.of_layer(layer)? else { return Ok(None) };
        let Some(limit) = ledger.find(id)?.filter(|limit| *limit > Bytes(0)) else { return Ok(None) };
        match self.kernel.record(id) {
            Ok(record) => Ok((!record.limited).then_some((id, limit))),
            Err(error) if is_off(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A layer is about to be removed: notes its project, which may be one that the reference gave it. Best effort: nothing
    /// of this may keep a layer from being removed, and the next start looks again.
    pub(super) fn about_to_go(&self, layer: &Dir) -> Option<u32> {
        let noted = self.of_layer(layer).and_then(|id| match id {
            Some(id) => self.ledger()?.add(id, Bytes(0)).map(|_| Some(id)),
            None => Ok(None),
        });
        noted.unwrap_or_else(|error| {
            log::warn!("{}", error.report());
            None
        })
    }

    /// Frees a project whose data were removed; what is still counted is tried again later.
    pub(super) fn give_back(&self, id: u32) {
        self.give_all_back(vec![id]);
    }

    /// The same with several, which are waited for together.
    fn give_all_back(&self, mut ids: Vec<u32>) {
        let mut pause = FIRST_PAUSE;
        for _ in 0..PAUSES {
            ids.retain(|id| match self.try_release(*id) {
                Ok(released) => !released,
                Err(error) => {
                    log::warn!("give project {id} back: {}", error.report());
                    self.pending.lock().push(*id);
                    false
                }
            });
            if ids.is_empty() {
                return;
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.pending.lock().extend(ids);
    }

    /// Frees what could not be freed before.
    pub(super) fn try_pending(&self) {
        let pending = std::mem::take(&mut *self.pending.lock());
        let left = pending.into_iter().filter(|id| !self.try_release(*id).unwrap_or(false));
        let left: Vec<u32> = left.collect();
        self.pending.lock().extend(left);
    }

    /// Frees every project of the store to which nothing is counted any more.
    pub(super) fn sweep(&self) {
        let swept = self
            .ledger()
            .and_then(Ledger::all)
            .and_then(|ids| ids.into_iter().try_for_each(|id| self.try_release(id).map(drop)));
        if let Err(error) = swept {
            log::warn!("sweep projects: {}", error.report());
        }
    }

    fn try_release(&self, id: u32) -> Result<bool> {
        let _change = self.change.lock();
        if self.ledger()?.find(id)?.is_none() {
            // Freed meanwhile, and perhaps somebody else's.
            return Ok(true);
        }
        let record = self.kernel.record(id)?;
        if !record.is_empty() {
            // Asked for the first project, xfs makes haste with what was removed.
            self.kernel.record(0)?;
            return Ok(false);
        }
        self.release(id, &record).map(|()| true)
    }

    /// Takes a limit away that limits nobody, by what is known of it now, then forgets the project.
    fn release(&self, id: u32, record: &Record) -> Result<()> {
        if record.limited {
            self.kernel.set_limit(id, Bytes(0))?;
        }
        self.ledger()?.forget(id)
    }

    fn ledger(&self) -> Result<&Ledger> {
        self.ledger.as_ref().filter(|_| self.writable).ok_or_else(ledger::read_only)
    }

    /// Gives a directory in the home the home's project, if the home hands one down: else nothing that is counted to it
    /// could be moved where it is needed.
    pub(super) fn align(&self, dir: &Dir) -> Result<bool> {
        let home = self.kernel.project(&self.home)?;
        if !home.inherited || self.kernel.project(dir)? == home {
            return Ok(false);
        }
        self.kernel.set_project(dir, home)?;
        Ok(true)
    }

    /// Gives a layer's directory back its own project after it was moved. Best effort: what is below has it anyway.
    pub(super) fn align_back(&self, layer: &Dir) {
        let back = self.of_layer(layer).and_then(|id| match id {
            Some(id) => self.kernel.set_project(layer, Project { id, inherited: true }),
            None => Ok(()),
        });
        if let Err(error) = back {
            log::warn!("{}", error.report());
        }
    }

    /// A directory of a layer was made again: it has to be of the layer's project, or nothing could be moved from it into
    /// the layer's content.
    pub(super) fn adopt(&self, layer: &Dir, made: &Dir) -> Result<()> {
        match self.of_layer(layer)? {
            Some(id) if self.kernel.project(made)?.id != id => {
                self.kernel.set_project(made, Project { id, inherited: true })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether an error says that the file system does not count any more.
fn is_off(error: &Error) -> bool {
    matches!(error.errno(), libc::ESRCH | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)
}

/// A limit as it is set, in whole KiB.
fn whole(limit: Bytes) -> Bytes {
    Bytes(limit.0 & !1023)
}
