// SPDX-License-Identifier: MulanPSL-2.0
//! A mount and unmount of a container's layer beside the bare system calls for the same directories.

use std::ffi::CString;
use std::path::Path;
use std::time::Instant;

use isula_storage::storage::{Storage, StorageOptions};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

use crate::cli_support::common::loop_ext4;
use crate::store::{self, Chain};
use crate::{open, room, verdict};

const GOAL: f64 = 1.25;

fn id_of(depth: usize) -> String {
    format!("{depth:064x}")
}

/// The directories of one mount.
struct Bare {
    lowers: Vec<String>,
    upper: String,
    work: String,
    merged: String,
}

impl Bare {
    fn of(home: &Path, depth: usize, chain: &Chain) -> Bare {
        let own = |name: &str| home.join(id_of(depth)).join(name).to_str().unwrap().to_owned();
        let lower = |id: &isula_storage::id::LayerId| format!("l/{}", &id.as_str()[..26]);
        Bare {
            lowers: chain.layers.iter().rev().map(lower).collect(),
            upper: own("diff"),
            work: own("work"),
            merged: own("merged"),
        }
    }

    /// With `mount(2)` and paths relative to the home, which is the working directory.
    fn mount(&self) -> bool {
        let options =
            format!("lowerdir={},upperdir={},workdir={}", self.lowers.join(":"), self.upper, self.work);
        if options.len() > 4095 {
            return false;
        }
        let options = CString::new(options).unwrap();
        mount("overlay", &*self.merged, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
        true
    }

    /// With `fsopen` and its kin, which take any number of lower directories.
    fn fsopen(&self) {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for lower in &self.lowers {
            fsconfig_set_string(&context, "lowerdir+", lower).unwrap();
        }
        fsconfig_set_string(&context, "upperdir", &self.upper).unwrap();
        fsconfig_set_string(&context, "workdir", &self.work).unwrap();
        fsconfig_create(&context).unwrap();
        let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mounted, c"", rustix::fs::CWD, &*self.merged, flags).unwrap();
    }

    fn unmount(&self) {
        unmount(&*self.merged, UnmountFlags::NOFOLLOW).unwrap();
    }
}

fn least(best: &mut f64, action: impl FnOnce()) {
    let start = Instant::now();
    action();
    *best = best.min(start.elapsed().as_secs_f64() * 1e6);
}

/// Prints the table: the least of all cycles.
pub(crate) fn table(depths: &[usize], rounds: usize) {
    println!(
        "\n{:<28} {:>10} {:>10} {:>10} {:>8} {:>14}",
        "mount + unmount, µs", "mount(2)", "fsopen", "ours", "x bare", "goal"
    );
    for &depth in depths {
        let disk = loop_ext4(256 << 20);
        // As on a real machine, what does not outlive a reboot lies in memory.
        let memory = room("scale-mount");
        let (root, run) = (disk.join("root"), memory.join("run"));
        std::fs::create_dir(&run).unwrap();
        store::make(&root, store::Size { images: 0, layers: 0 });
        let mut chain = Chain::default();
        (0..depth).for_each(|layer| chain.push(&root, &layer.to_string(), layer));
        store::container(&root, &id_of(depth), &chain);
        let storage: Storage = open(StorageOptions::new(&root, &run));
        let home = root.join("overlay");
        std::env::set_current_dir(&home).unwrap();
        let bare = Bare::of(&home, depth, &chain);
        let (mut by_mount, mut by_fsopen, mut ours) = (f64::MAX, f64::MAX, f64::MAX);
        for _ in 0..rounds * 40 {
            least(&mut by_mount, || {
                if bare.mount() {
                    bare.unmount();
                }
            });
            least(&mut by_fsopen, || {
                bare.fsopen();
                bare.unmount();
            });
            least(&mut ours, || {
                storage.layers().mount(&id_of(depth)).unwrap();
                storage.layers().unmount(&id_of(depth), false).unwrap();
            });
        }
        let fits = bare.mount();
        if fits {
            bare.unmount();
        }
        std::env::set_current_dir("/").unwrap();
        storage.close().unwrap();
        let floor = if fits { by_mount.min(by_fsopen) } else { by_fsopen };
        let shown = if fits { format!("{by_mount:.0}") } else { "too long".to_owned() };
        let ratio = ours / floor;
        println!(
            "{:<28} {shown:>10} {by_fsopen:>10.0} {ours:>10.0} {ratio:>8.2} {:>14}",
            format!("{depth} lowers"),
            verdict(&format!("x {GOAL}"), ratio <= GOAL)
        );
    }
}
