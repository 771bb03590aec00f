// SPDX-License-Identifier: MulanPSL-2.0
//! The driver over a device-mapper without data. What needs real devices runs in a virtual machine (`tests/vm`).

mod crash;
mod doubt;
mod life;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::persist::Durability;
use crate::sys::dm::fake::{Fake, POOL};
use crate::sys::ext4::Superblock;
use crate::sys::testing::TestRoot;

/// Remembers which devices have a file system.
#[derive(Debug, Default)]
pub(super) struct FakeFileSystems {
    made: Mutex<BTreeMap<PathBuf, Superblock>>,
    next: Mutex<u32>,
}

impl FileSystems for FakeFileSystems {
    fn make(&self, device: &Path, arguments: &[String]) -> Result<()> {
        if arguments.iter().any(|argument| argument == "fail") {
            return Err(Error::new(ErrorKind::Os(libc::EIO), "mkfs.ext4 ended with exit status: 1"));
        }
        let mut next = self.next.lock();
        *next += 1;
        let superblock =
            Superblock { uuid: format!("uuid-{next}"), size: Bytes(10 << 30), block: Bytes(4096) };
        self.made.lock().insert(suffix(device), superblock);
        Ok(())
    }

    fn superblock(&self, device: &Path) -> Result<Superblock> {
        let found = self.made.lock().get(&suffix(device)).cloned();
        found.ok_or_else(|| Error::corrupt("it is not an ext4 file system"))
    }
}

/// A copied home has another inode, and so its devices other names.
fn suffix(device: &Path) -> PathBuf {
    device.to_string_lossy().rsplit('-').next().unwrap().into()
}

pub(super) struct Bench {
    pub(super) root: TestRoot,
    pub(super) dm: Arc<Fake>,
    pub(super) filesystems: Arc<FakeFileSystems>,
}

impl Bench {
    pub(super) fn new() -> Bench {
        let root = TestRoot::in_memory("devmapper");
        Bench { root, dm: Arc::new(Fake::new()), filesystems: Arc::default() }
    }

    pub(super) fn home(&self) -> PathBuf {
        self.root.join("devicemapper")
    }

    pub(super) fn try_open(&self, options: &[&str]) -> Result<DeviceMapper> {
        self.try_open_as(options, false)
    }

    /// Beside the process that owns it.
    pub(super) fn read(&self) -> DeviceMapper {
        self.try_open_as(&["dm.thinpooldev=pool"], true).unwrap_or_else(|error| panic!("{}", error.report()))
    }

    fn try_open_as(&self, options: &[&str], read_only: bool) -> Result<DeviceMapper> {
        let driver = DriverOptions {
            root: self.root.path().to_owned(),
            name: "devicemapper".to_owned(),
            options: options.iter().map(ToString::to_string).collect(),
            durability: Durability::Full,
            read_only,
            owner_shift: None,
        };
        DeviceMapper::with(&self.home(), &driver, self.dm.clone(), self.filesystems.clone())
    }

    pub(super) fn open(&self) -> DeviceMapper {
        self.try_open(&["dm.thinpooldev=/dev/mapper/pool"])
            .unwrap_or_else(|error| panic!("{}", error.report()))
    }

    /// The same world at another place, to go on with from here.
    pub(super) fn copy(&self) -> Bench {
        let root = TestRoot::in_memory("world");
        let from = self.root.path().join(".");
        crate::sys::testing::run(std::process::Command::new("cp").arg("-a").arg(from).arg(root.path()));
        let made = Mutex::new(self.filesystems.made.lock().clone());
        let next = Mutex::new(*self.filesystems.next.lock());
        let filesystems = Arc::new(FakeFileSystems { made, next });
        let copy = Bench { root, dm: Arc::new(self.dm.copy()), filesystems };
        // The copied home has another inode, by which its devices are called.
        let prefix = |bench: &Bench| {
            crate::sys::fs::Dir::open(&bench.home()).ok().and_then(|home| names::Prefix::of(&home).ok())
        };
        if let (Some(from), Some(to)) = (prefix(self), prefix(&copy)) {
            let mut state = copy.dm.state.lock();
            for (name, device) in std::mem::take(&mut state.devices) {
                let name = from.hash(&name).map_or(name.clone(), |hash| to.device(hash));
                state.devices.insert(name, device);
            }
        }
        copy
    }

    pub(super) fn metadata(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.home().join("metadata").join(name)).ok()
    }

    #[allow(clippy::disallowed_methods, reason = "test")]
    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home().join("metadata").join(name), text).unwrap();
    }

    pub(super) fn pool_ids(&self) -> BTreeSet<u32> {
        self.dm.state.lock().pool.ids.clone()
    }

    pub(super) fn transaction(&self) -> u64 {
        self.dm.state.lock().pool.transaction
    }

    /// Names in `metadata` and `mnt`.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for dir in ["metadata", "mnt"] {
            for entry in std::fs::read_dir(self.home().join(dir)).unwrap() {
                names.push(format!("{dir}/{}", entry.unwrap().file_name().into_string().unwrap()));
            }
        }
        names.sort();
        names
    }
}

pub(super) fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

pub(super) fn create(driver: &DeviceMapper, name: &str, parent: Option<&str>) -> Result<()> {
    let parent = parent.map(id);
    driver.create(&NewLayer {
        id: &id(name),
        parent: parent.as_ref(),
        kind: LayerKind::ReadWrite,
        storage_options: &[],
        mount_label: None,
    })
}

pub(super) fn remove(driver: &DeviceMapper, name: &str) -> Result<()> {
    driver.remove(&id(name)).map(Removed::remove)
}

/// No layer without a device, no device without a layer.
pub(super) fn assert_whole(bench: &Bench, driver: &DeviceMapper, what: &str) {
    let store = driver.store().unwrap();
    let known: BTreeSet<u32> = store.records.read().values().map(|record| record.device_id).collect();
    assert_eq!(known, bench.pool_ids(), "{what}");
    assert_eq!(driver.strays().unwrap(), [""; 0], "{what}");
    for layer in driver.layers().unwrap() {
        driver.validate(&layer, None).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    }
    let left: Vec<_> = bench.dm.names().unwrap().into_iter().filter(|name| name.ends_with("-base")).collect();
    assert_eq!(left, [""; 0], "{what}: the base is not active");
    assert!(driver.quarantined().unwrap().is_empty(), "{what}");
}
