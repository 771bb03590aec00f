// SPDX-License-Identifier: MulanPSL-2.0
//! The process is killed, or the machine goes off, while a limit is set or freed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isula_storage::driver::GraphDriver;

use crate::common::TestRoot;
use crate::disk::*;
use crate::guest::Scenario;
use crate::host::{self, Machine};
use crate::kills::kill_at;
use crate::layers;
use crate::power::cut_power;
use crate::scene::{mount, remove, unmount};

pub const KILLS: &[Scenario] = crate::scenarios! {
    killed_while_a_limited_layer_is_made
    killed_while_a_limited_layer_is_removed
};

pub const POWER: &[Scenario] = crate::scenarios! {
    no_limit_is_left_by_a_power_cut
};

/// Calls at which it is killed, each time at another one of them.
const CALLS: [&str; 7] = ["quotactl_fd", "ioctl", "symlinkat", "renameat2", "unlinkat", "fsync", "mkdirat"];
/// How many moments of one kind are looked for at most.
const MOMENTS: usize = 4;

/// Every limit is that of a layer, every layer of the store is whole, and the next one can be made.
fn check(disk: &Disk, driver: &dyn GraphDriver, what: &str) {
    assert_eq!(driver.strays().unwrap(), [""; 0], "{what}");
    assert!(driver.quarantined().unwrap().is_empty(), "{what}");
    let home = Disk::home("store");
    let mut limits = BTreeMap::new();
    for layer in driver.layers().unwrap() {
        driver.validate(&layer, None).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        limits.insert(disk.project(format!("{home}/{layer}/diff")), 5 << 10);
    }
    assert_eq!(disk.limits(), limits, "{what}");
    let ids: Vec<String> = limits.keys().map(ToString::to_string).collect();
    assert_eq!(disk.ledger("store"), layers_sorted(ids), "{what}");
    limited(driver, "next", Some("5M")).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    let place = mount(driver, "next");
    layers::write(place.join("file"), "content");
    unmount(driver, "next");
    remove(driver, "next");
    assert_eq!(disk.limits(), limits, "{what}");
}

fn layers_sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

/// Before the deed: `new` is there or not, beside one that stays.
fn prepare(driver: &dyn GraphDriver, deed: &str) {
    for (name, wanted) in [("old", true), ("new", deed == "quota:remove")] {
        if driver.exists(&layers::id(name)).unwrap() != wanted {
            match wanted {
                true => {
                    limited(driver, name, Some("5M")).unwrap();
                    let place = mount(driver, name);
                    (0..5).for_each(|number| layers::write(place.join(format!("{number}")), "content"));
                    unmount(driver, name);
                }
                false => remove(driver, name),
            }
        }
    }
}

fn kill_again_and_again(deed: &str) {
    for kind in Kind::BOTH {
        let disk = Disk::new(kind);
        let place = disk.place.join("store");
        let mut kills = 0;
        for call in CALLS {
            let (mut count, mut moments) = (1, 0);
            // The first moments, and then ever rarer ones.
            loop {
                let driver = disk.driver("store");
                prepare(&*driver, deed);
                driver.clean_up().unwrap();
                drop(driver);
                if moments == MOMENTS || !kill_at(deed, &place, call, count) {
                    break;
                }
                let what = format!("{kind:?}: {deed} killed at {call} {count}");
                let driver = disk.driver("store");
                check(&disk, &*driver, &what);
                driver.clean_up().unwrap();
                count += 1 + count / 2;
                moments += 1;
                kills += 1;
            }
        }
        println!("    killed {kills} times on {}", kind.name());
        assert!(kills >= 12, "{deed}: only {kills}");
    }
}

fn killed_while_a_limited_layer_is_made() {
    kill_again_and_again("quota:create");
}

fn killed_while_a_limited_layer_is_removed() {
    kill_again_and_again("quota:remove");
}

/// What is being done when the power goes, and the call, and which of those. Each on both file systems in turn.
const CUTS: [(&str, &str, usize); 8] = [
    ("quota:create", "symlinkat", 1),
    ("quota:create", "quotactl_fd", 5),
    ("quota:create", "mkdirat", 2),
    ("quota:create", "renameat2", 1),
    ("quota:create", "fsync", 5),
    ("quota:remove", "renameat2", 1),
    ("quota:remove", "unlinkat", 6),
    ("quota:remove", "quotactl_fd", 5),
];

/// The host's side: one boot after another, each looks at what the one before left.
pub fn cut_again_and_again() {
    if host::is_inside() || !host::is_ready() {
        return;
    }
    let root = TestRoot::new("quota-power");
    let disks = [("xfs", 512u64 << 20), ("ext4", 256 << 20)].map(|(name, size)| {
        let path: PathBuf = root.join(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path.to_str().unwrap().to_owned()
    });
    for number in 0..=2 * CUTS.len() {
        let mut machine = Machine::new("quota-power").variable("VM_CUT", &number.to_string());
        for disk in &disks {
            machine = machine.disk(disk);
        }
        let status = machine.run_until_cut();
        let wanted = (number == 2 * CUTS.len()).then_some(0);
        assert_eq!(status, wanted, "boot {number} (its output is above)");
    }
}

fn no_limit_is_left_by_a_power_cut() {
    let number: usize = std::env::var("VM_CUT").unwrap().parse().unwrap();
    let kind_of = |number: usize| Kind::BOTH[number % 2];
    if number > 0 {
        let (deed, call, count) = CUTS[(number - 1) / 2];
        let disk = Disk::existing(kind_of(number - 1), kind_of(number - 1).option());
        let what = format!("{:?}: after the cut during {deed} at {call} {count}", disk.kind);
        let driver = disk.driver("store");
        check(&disk, &*driver, &what);
        let new = driver.exists(&layers::id("new")).unwrap();
        println!("    {what}: whole; layer new {}", if new { "is there" } else { "is not there" });
        driver.clean_up().unwrap();
    }
    let Some((deed, call, count)) = CUTS.get(number / 2).copied() else { return };
    let kind = kind_of(number);
    let disk = if number < 2 { Disk::new(kind) } else { Disk::existing(kind, kind.option()) };
    for count in (1..=count).rev() {
        let driver = disk.driver("store");
        prepare(&*driver, deed);
        driver.clean_up().unwrap();
        drop(driver);
        rustix::fs::sync();
        if kill_at(deed, Path::new(&disk.place.join("store")), call, count) {
            println!("    the power goes during {deed} at {call} {count}");
            cut_power();
        }
    }
    panic!("{deed} has no {call}");
}
