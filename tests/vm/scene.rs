// SPDX-License-Identifier: MulanPSL-2.0
//! A thin pool on two disks of the machine, and stores on it.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use isula_storage::driver::{self, DriverOptions, GraphDriver, LayerKind, NewLayer};
use isula_storage::error::Result;
use isula_storage::id::LayerId;
use isula_storage::storage::{Storage, StorageOptions};
use isula_storage::sys::dm::{Dm, Kernel, Removal, Target};

use crate::common::{TestRoot, mounts_below};
use crate::{layers, storages};

pub const TOOL: &str = env!("CARGO_BIN_EXE_isula-storage");
pub const POOL: &str = "pool";
/// Large enough for every scenario, small enough to be made quickly.
pub const BASE: &str = "64M";
pub const BASE_BYTES: u64 = 64 << 20;
const SECTOR: u64 = 512;
/// Sectors of a block of the pool: 64 KiB.
const BLOCK: u64 = 128;

/// A pool for one scenario. Dropped: it is removed, and `thin_check` looks at its metadata.
pub struct Pool {
    pub dm: Kernel,
    metadata: PathBuf,
    is_damaged: bool,
}

pub fn disks() -> Vec<PathBuf> {
    std::env::var("VM_DISKS").unwrap().split(' ').map(PathBuf::from).collect()
}

fn sectors(device: &Path) -> u64 {
    std::fs::File::open(device).unwrap().seek(SeekFrom::End(0)).unwrap() / SECTOR
}

impl Pool {
    /// An empty pool on the first two disks.
    pub fn new() -> Pool {
        Pool::of_size(u64::MAX, u64::MAX)
    }

    /// An empty pool with this many sectors of metadata and data, at most what the disks have.
    pub fn of_size(metadata: u64, data: u64) -> Pool {
        let disks = disks();
        let disk = std::fs::File::options().write(true).open(&disks[0]).unwrap();
        disk.write_all_at(&[0; 4096], 0).unwrap();
        disk.sync_all().unwrap();
        Pool::existing(metadata, data)
    }

    /// The pool that is on the disks.
    pub fn existing(metadata: u64, data: u64) -> Pool {
        let disks = disks();
        let dm = Kernel::open().unwrap();
        let linear = |name: &str, disk: &Path, most: u64| {
            let length = most.min(sectors(disk));
            let target = Target {
                start: 0,
                sectors: length,
                kind: "linear".into(),
                text: format!("{} 0", disk.display()),
            };
            make(&dm, name, &target);
            length
        };
        linear("pool-metadata", &disks[0], metadata);
        let length = linear("pool-data", &disks[1], data);
        let text = format!(
            "{} {} {BLOCK} 0 1 error_if_no_space",
            dm.node("pool-metadata").display(),
            dm.node("pool-data").display()
        );
        let target = Target { start: 0, sectors: length / BLOCK * BLOCK, kind: "thin-pool".into(), text };
        make(&dm, POOL, &target);
        Pool { dm, metadata: disks[0].clone(), is_damaged: false }
    }

    pub fn status(&self) -> String {
        self.dm.status(POOL).unwrap().remove(0).text
    }

    /// Names of devices of stores, without the one that an open driver tries tables on.
    pub fn devices(&self) -> Vec<String> {
        let mut names = self.all_devices();
        names.retain(|name| !name.ends_with("-.probe"));
        names
    }

    fn all_devices(&self) -> Vec<String> {
        let names = self.dm.names().unwrap();
        names.into_iter().filter(|name| name.starts_with("container-")).collect()
    }

    /// Ids of the devices in the pool; the pool is looked at by its own tool, so nothing may be active.
    pub fn ids(self) -> Vec<u32> {
        drop(self);
        let output = run(Command::new("thin_dump").arg(&disks()[0]));
        let text = String::from_utf8(output.stdout).unwrap();
        let ids = text.lines().filter_map(|line| {
            line.trim().strip_prefix("<device dev_id=\"")?.split('"').next()?.parse().ok()
        });
        ids.collect()
    }
}

impl Pool {
    /// Enlarges the metadata while the pool is in use, as lvextend does.
    pub fn enlarge_metadata(&self, sectors: u64) {
        let disks = disks();
        let text = format!("{} 0", disks[0].display());
        let target = Target { start: 0, sectors, kind: "linear".into(), text };
        let whole = self.dm.table(POOL).unwrap().remove(0);
        self.dm.suspend(POOL).unwrap();
        self.dm.load("pool-metadata", &target).unwrap();
        self.dm.suspend("pool-metadata").unwrap();
        self.dm.resume("pool-metadata").unwrap();
        self.dm.load(POOL, &whole).unwrap();
        self.dm.resume(POOL).unwrap();
    }

    /// Removes the pool, whose metadata are not in order, without having them checked.
    pub fn close(mut self) {
        self.is_damaged = true;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        for name in self.all_devices() {
            let is_probe = name.ends_with("-.probe");
            assert!(panicking || !is_probe, "{name} is left");
            let removed = self.dm.remove(&name, Removal::Now);
            assert!(panicking || removed.is_ok(), "{name} is still open");
        }
        for name in [POOL, "pool-data", "pool-metadata"] {
            if let Err(error) = self.dm.remove(name, Removal::Now) {
                eprintln!("remove {name}: {}", error.report());
                return;
            }
        }
        if !panicking && !self.is_damaged {
            run(Command::new("thin_check").arg(&self.metadata));
        }
    }
}

fn make(dm: &Kernel, name: &str, target: &Target) {
    let made = dm.create(name).and_then(|()| dm.load(name, target)).and_then(|()| dm.resume(name));
    made.unwrap_or_else(|error| {
        let log = text(&run(&mut Command::new("dmesg")));
        let said: Vec<&str> = log.lines().filter(|line| line.contains("device-mapper")).collect();
        panic!("make {name}: {}: {:?}", error.report(), said.last_chunk::<3>())
    });
}

/// Runs a program that has to succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&said));
    output
}

/// The options of a store on the pool.
pub fn options(more: &[&str]) -> Vec<String> {
    let mut options = vec![format!("dm.thinpooldev={POOL}"), format!("dm.basesize={BASE}")];
    options.extend(more.iter().map(ToString::to_string));
    options
}

/// A directory for a store on the pool; all that is mounted in it is unmounted in the end.
pub struct Place {
    pub root: TestRoot,
}

impl Place {
    pub fn new() -> Place {
        Place { root: TestRoot::in_memory("vm") }
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn home(&self) -> PathBuf {
        self.root.join("root/devicemapper")
    }

    pub fn driver_options(&self, more: &[&str]) -> DriverOptions {
        let root = self.root.join("root");
        DriverOptions { options: options(more), ..layers::options(&root, "devicemapper") }
    }

    pub fn try_driver(&self, more: &[&str]) -> Result<Arc<dyn GraphDriver>> {
        driver::open(&self.driver_options(more))
    }

    pub fn driver(&self) -> Arc<dyn GraphDriver> {
        self.try_driver(&[]).unwrap_or_else(|error| panic!("{}", error.report()))
    }

    pub fn storage(&self) -> Storage {
        let options = StorageOptions {
            driver_options: options(&[]),
            ..storages::options(self.root.path(), "devicemapper")
        };
        Storage::open(options).unwrap_or_else(|error| panic!("{}", error.report()))
    }

    /// The tool on this store.
    pub fn tool(&self) -> Command {
        tool(self.root.path())
    }

    pub fn mounts(&self) -> Vec<PathBuf> {
        mounts_below(self.root.path())
    }
}

/// The tool on the store in `place`.
pub fn tool(place: &Path) -> Command {
    tool_on(&place.join("root"), &place.join("run"))
}

/// The tool on the store in these two directories.
pub fn tool_on(root: &Path, run_root: &Path) -> Command {
    let mut command = Command::new(TOOL);
    command.arg("--root").arg(root).arg("--run-root").arg(run_root);
    command.args(["--driver", "devicemapper"]);
    for option in options(&[]) {
        command.args(["--storage-opt", &option]);
    }
    command
}

pub fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn create(driver: &dyn GraphDriver, name: &str, parent: Option<&str>) -> Result<()> {
    create_of_size(driver, name, parent, None)
}

pub fn create_of_size(
    driver: &dyn GraphDriver,
    name: &str,
    parent: Option<&str>,
    size: Option<&str>,
) -> Result<()> {
    let parent = parent.map(layers::id);
    let storage_options: Vec<_> = size.map(|size| ("size".to_owned(), size.to_owned())).into_iter().collect();
    driver.create(&NewLayer {
        id: &layers::id(name),
        parent: parent.as_ref(),
        kind: LayerKind::ReadWrite,
        storage_options: &storage_options,
        mount_label: None,
    })
}

pub fn mount(driver: &dyn GraphDriver, name: &str) -> PathBuf {
    driver
        .mount(&layers::id(name), LayerKind::ReadWrite, None)
        .unwrap_or_else(|error| panic!("{}", error.report()))
}

pub fn unmount(driver: &dyn GraphDriver, name: &str) {
    driver.unmount(&layers::id(name)).unwrap_or_else(|error| panic!("{}", error.report()));
}

pub fn remove(driver: &dyn GraphDriver, name: &str) {
    driver.remove(&layers::id(name)).unwrap_or_else(|error| panic!("{}", error.report())).remove();
}

/// Size of the mounted file system in bytes.
pub fn size_of(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_blocks * stat.f_frsize
}

/// Writes a file until the disk is full; what the kernel said.
pub fn fill(path: &Path) -> i32 {
    let mut file = std::fs::File::create(path).unwrap();
    let chunk = vec![0x5a; 1 << 20];
    loop {
        if let Err(error) = file.write_all(&chunk).and_then(|()| file.sync_data()) {
            return error.raw_os_error().unwrap_or(0);
        }
    }
}

/// Semaphore sets of the machine.
pub fn semaphores() -> usize {
    std::fs::read_to_string("/proc/sysvipc/sem").unwrap().lines().count() - 1
}

pub fn layer_ids(driver: &dyn GraphDriver) -> Vec<LayerId> {
    let mut ids = driver.layers().unwrap();
    ids.sort();
    ids
}
