// SPDX-License-Identifier: MulanPSL-2.0
//! The driver while it is open: what it knows, and how that is found on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::driver::home::Home;
use crate::driver::{DriverOptions, OwnerShift};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::{step, sweep_temporary};
use crate::sys::dm::{Dm, MAX_NAME};
use crate::sys::ext4::{self, Superblock};
use crate::sys::fs::{Dir, FileKind, filesystem_name};

use super::device::Devices;
use super::names::{self, BASE, DEVICE_SET, Prefix, TRANSACTION};
use super::options::Options;
use super::pool::Pool;
use super::records::{DeviceSet, Record, Transaction};
use super::retry::Retry;

const METADATA: &str = "metadata";
const MOUNTS: &str = "mnt";
const HOME_MODE: u32 = 0o700;
pub(super) const MOUNT_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
/// Most bytes of a metadata file.
const MAX_FILE: u64 = 64 << 10;

/// How file systems are made and looked at; tests have others.
pub(super) trait FileSystems: Send + Sync + std::fmt::Debug {
    /// See [`ext4::make`].
    fn make(&self, device: &Path, arguments: &[String]) -> Result<()>;
    /// See [`ext4::superblock`].
    fn superblock(&self, device: &Path) -> Result<Superblock>;
}

/// The real ones.
#[derive(Debug)]
pub(super) struct Ext4;

impl FileSystems for Ext4 {
    fn make(&self, device: &Path, arguments: &[String]) -> Result<()> {
        ext4::make(device, arguments)
    }

    fn superblock(&self, device: &Path) -> Result<Superblock> {
        ext4::superblock(device)
    }
}

/// The open driver. Lock order: a device, `work`, `records`; `records` is held for looking and changing only.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) home: Home,
    pub(super) metadata: Dir,
    pub(super) mounts: Dir,
    pub(super) options: Options,
    pub(super) prefix: Prefix,
    pub(super) pool: Pool,
    pub(super) filesystems: Arc<dyn FileSystems>,
    pub(super) owner_shift: Option<OwnerShift>,
    pub(super) backing_fs: Option<&'static str>,
    /// What is known of each device, by its name in the metadata.
    pub(super) records: RwLock<BTreeMap<String, Record>>,
    /// Held for each transaction with the pool.
    pub(super) work: Mutex<Work>,
    pub(super) devices: Devices,
    pub(super) retry: Retry,
}

/// What a transaction needs.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Ids that are taken, as far as this store knows.
    pub(super) used: BTreeSet<u32>,
    pub(super) set: DeviceSet,
    /// The last transaction could not be ended, and its file says so: it is taken up before the next.
    pub(super) unfinished: bool,
}

impl Store {
    pub(super) fn open(
        path: &Path,
        driver: &DriverOptions,
        dm: Arc<dyn Dm>,
        filesystems: Arc<dyn FileSystems>,
    ) -> Result<Store> {
        let options = Options::parse(&driver.options)?;
        if !driver.read_only {
            drop(Dir::create_all(&path.join(METADATA), HOME_MODE)?);
        }
        let dir = Dir::open(path)?;
        let prefix = Prefix::of(&dir)?;
        let pool = Pool::open(dm, &options.pool, prefix.probe())?;
        let parent = Dir::open(path.parent().unwrap_or(path))?;
        let backing_fs = filesystem_name(parent.as_fd())?;
        let metadata = dir.open_dir(METADATA)?;
        let home = Home::open(dir, driver.durability, driver.read_only)?;
        let mounts = match driver.read_only {
            true => home.dir().open_dir(MOUNTS)?,
            false => home.dir().ensure_dir(MOUNTS, MOUNT_MODE)?,
        };
        let store = Store {
            home,
            metadata,
            mounts,
            options,
            prefix,
            pool,
            filesystems,
            owner_shift: driver.owner_shift,
            backing_fs,
            records: RwLock::default(),
            work: Mutex::default(),
            devices: Devices::default(),
            retry: Retry::default(),
        };
        store.start()?;
        Ok(store)
    }

    fn start(&self) -> Result<()> {
        if !self.home.is_read_only() {
            sweep_temporary(&self.metadata);
        }
        self.load()?;
        if self.home.is_read_only() {
            return Ok(());
        }
        self.reserve_put_aside()?;
        self.recover(&mut self.work.lock()).during(|| "take up an interrupted transaction")?;
        self.sweep_devices();
        self.prepare_base().during(|| "base device")
    }

    /// Reads all files of devices. One that cannot be used is put aside, and the others are.
    fn load(&self) -> Result<()> {
        let mut found: BTreeMap<String, Record> = BTreeMap::new();
        for entry in self.metadata.entries()? {
            let Some(name) = entry.name.to_str().filter(|_| entry.kind == FileKind::File) else { continue };
            if matches!(name, DEVICE_SET | TRANSACTION) || name.starts_with('.') {
                continue;
            }
            match self.read_record(name) {
                Ok(record) => {
                    found.insert(name.to_owned(), record);
                }
                Err(error) => self.put_damaged_aside(name, error)?,
            }
        }
        for name in doubles(&found) {
            let Some(record) = found.remove(&name) else { continue };
            if record.deleted && !self.home.is_read_only() {
                // What is to go is known under its other name.
                self.unlink(&name)?;
            } else {
                let reason =
                    format!("another device of the store has its id {} in the pool", record.device_id);
                self.put_file_aside(&name, &reason);
            }
        }
        let mut work = self.work.lock();
        work.used = found.values().map(|record| record.device_id).collect();
        match self.read(DEVICE_SET, DeviceSet::parse) {
            Ok(set) => work.set = set.unwrap_or_default(),
            Err(error) => self.put_damaged_aside(DEVICE_SET, error)?,
        }
        *self.records.write() = found;
        Ok(())
    }

    pub(super) fn read_record(&self, name: &str) -> Result<Record> {
        // Of which no device can be named.
        if name.len() > MAX_NAME || (name != BASE && LayerId::new(name).is_err()) {
            return Err(Error::corrupt(format!("{name:?} is no id of a layer")));
        }
        let record = self.read(name, |text| Record::parse(text, name))?;
        record.ok_or_else(|| Error::not_found(format!("there is no file {name}")))
    }

    /// A file of the metadata; absent: `None`.
    fn read<T>(&self, name: &str, parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
        match self.metadata.read(name, MAX_FILE) {
            Ok(text) => parse(&text).map(Some).during(|| format!("file {name}")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read_transaction(&self) -> Result<Option<Transaction>> {
        self.read(TRANSACTION, Transaction::parse)
    }

    /// Puts a file aside that says nothing that can be used. One that cannot be read now may be whole: nobody is to be the
    /// owner of a store of which that is not known.
    pub(super) fn put_damaged_aside(&self, name: &str, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::NotFound {
            return Ok(());
        }
        if !is_damaged(&error) && !self.home.is_read_only() {
            return Err(error.context(format!("read metadata file {name}")));
        }
        self.put_file_aside(name, &error.report());
        Ok(())
    }

    /// Puts a file of the metadata aside; best effort, for nothing depends on it.
    pub(super) fn put_file_aside(&self, name: &str, reason: &str) {
        log::error!("devicemapper: {}: {reason}", self.metadata.path().join(name).display());
        if self.home.is_read_only() {
            return;
        }
        let aside = self.home.state().and_then(|state| state.quarantine(&self.metadata, name, reason));
        if let Err(error) = aside {
            log::error!("devicemapper: {}", error.report());
        }
    }

    /// Writes what is known of a device, durably, and remembers it.
    pub(super) fn save(&self, record: &Record) -> Result<()> {
        self.home.replace(&self.metadata, &record.hash, &record.to_json(), FILE_MODE)?;
        self.records.write().insert(record.hash.clone(), record.clone());
        Ok(())
    }

    /// Takes a device for one that is to go, until it is known what became of it; its file stays as it is.
    pub(super) fn hide(&self, hash: &str) {
        if let Some(record) = self.records.write().get_mut(hash) {
            record.deleted = true;
        }
    }

    /// Forgets a device, durably.
    pub(super) fn forget(&self, hash: &str) -> Result<()> {
        self.unlink(hash)?;
        self.records.write().remove(hash);
        Ok(())
    }

    pub(super) fn unlink(&self, name: &str) -> Result<()> {
        step("remove metadata file")?;
        self.metadata.remove_file(name)?;
        step("sync metadata")?;
        self.home.flush(&self.metadata)
    }

    pub(super) fn save_transaction(&self, transaction: &Transaction) -> Result<()> {
        self.home.replace(&self.metadata, TRANSACTION, &transaction.to_json(), FILE_MODE)
    }

    pub(super) fn save_set(&self, set: &DeviceSet) -> Result<()> {
        self.home.replace(&self.metadata, DEVICE_SET, &set.to_json(), FILE_MODE)
    }

    /// What is known of a device, also of one that is to go.
    pub(super) fn record(&self, hash: &str) -> Option<Record> {
        self.records.read().get(hash).cloned()
    }

    /// A layer that is there.
    pub(super) fn layer(&self, id: &LayerId) -> Result<Record> {
        self.find(id).ok_or_else(|| {
            let place = self.metadata.path().display();
            Error::not_found(format!("layer {id}: no such layer in {place}"))
        })
    }

    /// The same; absent or on its way out: `None`.
    pub(super) fn find(&self, id: &LayerId) -> Option<Record> {
        let known = (!names::is_reserved(id.as_str())).then(|| self.record(id.as_str())).flatten();
        known.filter(|record| !record.deleted)
    }

    /// Whether a device of this store, other than `hash`, has an id in the pool.
    pub(super) fn has_other(&self, device_id: u32, hash: &str) -> bool {
        self.records.read().values().any(|other| other.device_id == device_id && other.hash != hash)
    }
}

impl Store {
    /// Ends what is the process's own. Layers that are mounted stay so: containers outlive a restart of their daemon.
    pub(super) fn close(&self) -> Result<()> {
        self.stop_retrying();
        if self.home.is_read_only() {
            return Ok(());
        }
        self.pool.close_probe();
        self.save_set(&self.work.lock().set)
    }
}

/// Whether an error says that a file has the wrong content, and not that it could not be read.
pub(super) fn is_damaged(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidData | ErrorKind::LimitExceeded)
}

/// Names of records whose device id another has with more right: one that is not to go, the base, the newer one.
fn doubles(records: &BTreeMap<String, Record>) -> Vec<String> {
    let mut best: BTreeMap<u32, &Record> = BTreeMap::new();
    let mut worse = Vec::new();
    let right = |record: &Record| (!record.deleted, record.hash == BASE, record.transaction);
    for record in records.values() {
        match best.get(&record.device_id).copied() {
            Some(other) if right(other) >= right(record) => worse.push(record.hash.clone()),
            other => {
                worse.extend(other.map(|other| other.hash.clone()));
                best.insert(record.device_id, record);
            }
        }
    }
    worse
}
