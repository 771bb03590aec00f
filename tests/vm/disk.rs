// SPDX-License-Identifier: MulanPSL-2.0
//! File systems with project quotas on the machine's disks, and stores on them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use isula_storage::driver::{self, DriverOptions, GraphDriver, LayerKind, NewLayer};
use isula_storage::error::Result;
use isula_storage::sys::fs::Dir;
use isula_storage::sys::quota::{Kernel, Quotas};
use isula_storage::units::Bytes;

use crate::common::mounts_below;
use crate::layers;
use crate::scene::{disks, run, text};

pub const MIB: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Xfs,
    Ext4,
}

impl Kind {
    pub const BOTH: [Kind; 2] = [Kind::Xfs, Kind::Ext4];

    fn device(self) -> PathBuf {
        disks()[if self == Kind::Xfs { 0 } else { 1 }].clone()
    }

    pub fn place(self) -> PathBuf {
        PathBuf::from(format!("/tmp/{self:?}"))
    }

    pub fn name(self) -> &'static str {
        if self == Kind::Xfs { "xfs" } else { "ext4" }
    }

    /// Option of the mount that turns project quotas on.
    pub fn option(self) -> &'static str {
        if self == Kind::Xfs { "pquota" } else { "prjquota" }
    }

    /// What the writer of a container sees that is full.
    pub fn full(self) -> i32 {
        if self == Kind::Xfs { libc::ENOSPC } else { libc::EDQUOT }
    }

    pub fn make(self) {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Kind::Xfs => command.args(["-q", "-f"]),
            Kind::Ext4 => command.args(["-q", "-F", "-O", "quota,project"]),
        };
        run(command.arg(self.device()));
    }
}

/// A mounted file system. Dropped: unmounted.
pub struct Disk {
    pub kind: Kind,
    pub place: PathBuf,
}

impl Disk {
    /// A new one with quotas.
    pub fn new(kind: Kind) -> Disk {
        kind.make();
        Disk::existing(kind, kind.option())
    }

    /// The one that is on the disk.
    pub fn existing(kind: Kind, option: &str) -> Disk {
        let place = kind.place();
        std::fs::create_dir_all(&place).unwrap();
        run(Command::new("mount").args(["-t", kind.name(), "-o", option]).arg(kind.device()).arg(&place));
        Disk { kind, place }
    }

    pub fn unmount(&self) {
        for mount in mounts_below(&self.place) {
            run(Command::new("umount").arg(mount));
        }
    }

    /// The same after a restart of the machine.
    pub fn remount(&self, option: &str) {
        self.unmount();
        let device = self.kind.device();
        run(Command::new("mount").args(["-t", self.kind.name(), "-o", option]).arg(device).arg(&self.place));
    }

    /// What the system's own tool reports: the limits in KiB of all projects that have one.
    pub fn limits(&self) -> BTreeMap<u32, u64> {
        let mut command = match self.kind {
            Kind::Xfs => Command::new("xfs_quota"),
            Kind::Ext4 => Command::new("repquota"),
        };
        match self.kind {
            Kind::Xfs => command.args(["-x", "-c", "report -p -n -N -b"]),
            Kind::Ext4 => command.args(["-P", "-n", "-v"]),
        };
        let report = text(&run(command.arg(&self.place)));
        let mut found = BTreeMap::new();
        for line in report.lines() {
            let fields: Vec<&str> =
                line.split_whitespace().filter(|field| !field.contains(['-', '+'])).collect();
            let Some(id) = fields.first().and_then(|id| id.strip_prefix('#')) else { continue };
            let hard: u64 = fields[3].parse().unwrap_or_else(|_| panic!("{line}"));
            if hard > 0 {
                found.insert(id.parse().unwrap(), hard);
            }
        }
        found
    }

    pub fn quotas(&self) -> Kernel {
        Kernel::open(&Dir::open(&self.place).unwrap(), "no-node").unwrap()
    }

    pub fn project(&self, path: impl AsRef<Path>) -> u32 {
        self.quotas().project(&Dir::open(&self.place.join(path)).unwrap()).unwrap().id
    }

    pub fn options(&self, store: &str, more: &[&str]) -> DriverOptions {
        let root = self.place.join(store).join("root");
        let options = more.iter().map(ToString::to_string).collect();
        DriverOptions { options, ..layers::options(&root, "overlay2") }
    }

    pub fn driver(&self, store: &str) -> Arc<dyn GraphDriver> {
        driver::open(&self.options(store, &[])).unwrap_or_else(|error| panic!("{}", error.report()))
    }

    /// A home, relative to the file system.
    pub fn home(store: &str) -> String {
        format!("{store}/root/overlay")
    }

    /// Projects that a store has written down.
    pub fn ledger(&self, store: &str) -> Vec<String> {
        let path = self.place.join(Disk::home(store)).join(".isula-storage/projects");
        if path.exists() { layers::names(&path) } else { Vec::new() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for mount in mounts_below(&self.place) {
            if let Err(error) = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH) {
                eprintln!("unmount {}: {error}", mount.display());
            }
        }
    }
}

pub fn limited(driver: &dyn GraphDriver, name: &str, size: Option<&str>) -> Result<()> {
    let storage_options: Vec<_> = size.map(|size| ("size".to_owned(), size.to_owned())).into_iter().collect();
    let (id, kind) = (layers::id(name), LayerKind::ReadWrite);
    driver.create(&NewLayer {
        id: &id,
        parent: None,
        kind,
        storage_options: &storage_options,
        mount_label: None,
    })
}

/// Writes a file until it is refused: the errno, and how much there is then.
pub fn fill(path: &Path) -> (i32, u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let chunk = vec![0x5a; 64 << 10];
    loop {
        if let Err(error) = file.write_all(&chunk).and_then(|()| file.sync_data()) {
            return (error.raw_os_error().unwrap_or(0), file.metadata().unwrap().blocks() * 512);
        }
    }
}

pub fn limit(driver: &dyn GraphDriver, name: &str) -> Option<Bytes> {
    driver.limit(&layers::id(name)).unwrap()
}
