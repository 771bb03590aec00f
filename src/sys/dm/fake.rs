// SPDX-License-Identifier: MulanPSL-2.0
//! A device-mapper for tests: thin pools and thin devices as the kernel treats them, without data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use parking_lot::Mutex;

use super::{Dm, Gone, Info, Removal, Target};
use crate::error::{Error, ErrorKind, Result};

/// A kernel of its own.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) devices: BTreeMap<String, Device>,
    pub(crate) pool: Pool,
    /// Every message to the pool.
    pub(crate) messages: Vec<String>,
    /// Fails the next message that begins so, with this errno, once.
    pub(crate) fail: Option<(String, i32)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    pub(crate) table: Option<Target>,
    pub(crate) loaded: Option<Target>,
    pub(crate) open: u32,
    pub(crate) suspended: bool,
    pub(crate) deferred: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) transaction: u64,
    pub(crate) ids: BTreeSet<u32>,
    pub(crate) used_data: u64,
    pub(crate) total_data: u64,
    pub(crate) used_metadata: u64,
    pub(crate) total_metadata: u64,
    /// It takes no messages.
    pub(crate) read_only: bool,
    /// The next change succeeds and is lost, as when the metadata are full; then it takes no messages.
    pub(crate) loses_commit: bool,
}

impl Default for Pool {
    fn default() -> Self {
        let (total_data, total_metadata) = (1000, 4096);
        Pool {
            transaction: 0,
            ids: BTreeSet::new(),
            used_data: 0,
            total_data,
            used_metadata: 10,
            total_metadata,
            read_only: false,
            loses_commit: false,
        }
    }
}

/// Name and number of the pool.
pub(crate) const POOL: &str = "pool";
pub(crate) const POOL_DEVICE: &str = "254:0";

fn errno(number: i32, what: &str) -> Error {
    Error::new(ErrorKind::from_errno(number), what.to_owned())
}

impl State {
    fn device(&mut self, name: &str) -> Result<&mut Device> {
        self.devices.get_mut(name).ok_or_else(|| errno(libc::ENXIO, name))
    }

    /// Whether a device is written to while a snapshot of it is taken, which the kernel would let happen.
    fn is_busy(&self, id: u32) -> bool {
        let text = format!("{POOL_DEVICE} {id}");
        let uses = |target: &Option<Target>| target.as_ref().is_some_and(|target| target.text == text);
        self.devices.values().any(|device| uses(&device.table) && !device.suspended)
    }

    fn is_open(&self, id: u32) -> bool {
        let text = format!("{POOL_DEVICE} {id}");
        let uses = |target: &Option<Target>| target.as_ref().is_some_and(|target| target.text == text);
        self.devices.values().any(|device| uses(&device.table) || uses(&device.loaded))
    }

    fn pool_message(&mut self, text: &str) -> Result<()> {
        if let Some((begin, number)) = self.fail.clone()
            && text.starts_with(&begin)
        {
            self.fail = None;
            return Err(errno(number, text));
        }
        if self.pool.read_only {
            return Err(errno(libc::EOPNOTSUPP, text));
        }
        self.messages.push(text.to_owned());
        if self.pool.loses_commit {
            (self.pool.loses_commit, self.pool.read_only) = (false, true);
            return Ok(());
        }
        let words: Vec<&str> = text.split(' ').collect();
        let id = |at: usize| words[at].parse::<u32>().unwrap();
        match words[0] {
            "create_thin" if self.pool.ids.insert(id(1)) => Ok(()),
            "create_snap" if !self.pool.ids.contains(&id(2)) => Err(errno(libc::ENODATA, text)),
            "create_snap" if self.is_busy(id(2)) => Err(errno(libc::EINVAL, text)),
            "create_snap" if self.pool.ids.insert(id(1)) => Ok(()),
            "create_thin" | "create_snap" => Err(errno(libc::EEXIST, text)),
            "delete" if !self.pool.ids.contains(&id(1)) => Err(errno(libc::ENODATA, text)),
            "delete" if self.is_open(id(1)) => Err(errno(libc::EBUSY, text)),
            "delete" => {
                self.pool.ids.remove(&id(1));
                Ok(())
            }
            "set_transaction_id" if u64::from(id(1)) == self.pool.transaction => {
                self.pool.transaction = id(2).into();
                Ok(())
            }
            _ => Err(errno(libc::EINVAL, text)),
        }
    }
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let fake = Fake::default();
        let table = Target { start: 0, sectors: 128_000, kind: "thin-pool".into(), text: String::new() };
        let pool = Device { table: Some(table), open: 0, ..Device::default() };
        fake.state.lock().devices.insert(POOL.to_owned(), pool);
        fake
    }

    /// The same world, to go on with from here.
    pub(crate) fn copy(&self) -> Fake {
        Fake { state: Mutex::new(self.state.lock().clone()) }
    }
}

impl Dm for Fake {
    fn version(&self) -> Result<(u32, u32, u32)> {
        Ok((4, 47, 0))
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.state.lock().devices.keys().cloned().collect())
    }

    fn info(&self, name: &str) -> Result<Option<Info>> {
        let state = self.state.lock();
        let number = state.devices.keys().position(|known| known == name).map_or(0, |at| at + 1);
        Ok(state.devices.get(name).map(|device| Info {
            device: if name == POOL { POOL_DEVICE.to_owned() } else { format!("254:{number}") },
            open_count: device.open,
            has_table: device.table.is_some(),
            suspended: device.suspended,
            deferred_remove: device.deferred,
        }))
    }

    fn table(&self, name: &str) -> Result<Vec<Target>> {
        Ok(self.state.lock().device(name)?.table.iter().cloned().collect())
    }

    fn status(&self, name: &str) -> Result<Vec<Target>> {
        let mut state = self.state.lock();
        let pool = state.pool.clone();
        let text = format!(
            "{} {}/{} {}/{} - {} no_discard_passdown queue_if_no_space - 1024",
            pool.transaction,
            pool.used_metadata,
            pool.total_metadata,
            pool.used_data,
            pool.total_data,
            if pool.read_only { "ro" } else { "rw" }
        );
        let table = state.device(name)?.table.clone();
        Ok(table.into_iter().map(|target| Target { text: text.clone(), ..target }).collect())
    }

    fn create(&self, name: &str) -> Result<()> {
        let mut state = self.state.lock();
        if state.devices.contains_key(name) {
            return Err(errno(libc::EBUSY, name));
        }
        state.devices.insert(name.to_owned(), Device::default());
        Ok(())
    }

    fn load(&self, name: &str, target: &Target) -> Result<()> {
        let mut state = self.state.lock();
        let id = target.text.strip_prefix("254:0 ").and_then(|id| id.parse().ok()).unwrap();
        if !state.pool.ids.contains(&id) {
            return Err(errno(libc::ENODATA, name));
        }
        state.device(name)?.loaded = Some(target.clone());
        Ok(())
    }

    fn clear(&self, name: &str) -> Result<()> {
        self.state.lock().device(name)?.loaded = None;
        Ok(())
    }

    fn suspend(&self, name: &str) -> Result<()> {
        self.state.lock().device(name)?.suspended = true;
        Ok(())
    }

    fn resume(&self, name: &str) -> Result<()> {
        let mut state = self.state.lock();
        let device = state.device(name)?;
        if let Some(loaded) = device.loaded.take() {
            device.table = Some(loaded);
        }
        device.suspended = false;
        Ok(())
    }

    fn rename(&self, name: &str, new: &str) -> Result<()> {
        let mut state = self.state.lock();
        if state.devices.contains_key(new) {
            return Err(errno(libc::EBUSY, new));
        }
        let device = state.devices.remove(name).ok_or_else(|| errno(libc::ENXIO, name))?;
        state.devices.insert(new.to_owned(), device);
        Ok(())
    }

    fn remove(&self, name: &str, when: Removal) -> Result<Gone> {
        let mut state = self.state.lock();
        let device = state.device(name)?;
        match (device.open, when) {
            (0, _) => {
                state.devices.remove(name);
                Ok(Gone::Now)
            }
            (_, Removal::Deferred) => {
                device.deferred = true;
                Ok(Gone::Later)
            }
            (_, Removal::Now) => Err(errno(libc::EBUSY, name)),
        }
    }

    fn message(&self, name: &str, text: &str) -> Result<()> {
        let mut state = self.state.lock();
        if text == "@cancel_deferred_remove" {
            state.device(name)?.deferred = false;
            return Ok(());
        }
        state.device(name)?;
        state.pool_message(text)
    }

    fn node(&self, name: &str) -> PathBuf {
        PathBuf::from("/dev/mapper").join(name)
    }
}
