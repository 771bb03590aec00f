// SPDX-License-Identifier: MulanPSL-2.0
//! The machine goes off in the middle of a change. Its disks are kept: one with the store, two with the pool.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::TestRoot;
use crate::guest::Scenario;
use crate::host::{self, Machine};
use crate::kills;
use crate::layers;
use crate::scene::*;

pub const ALL: &[Scenario] = crate::scenarios! {
    what_was_whole_is_whole_after_a_power_cut
};

/// What is being done when the power goes, and the call, and which of those.
/// If it makes fewer of them, the last.
const CUTS: &[(&str, &str, usize)] = &[
    ("create", "renameat", 1),
    ("create", "renameat", 2),
    ("create", "renameat", 3),
    ("create", "fsync", 4),
    ("create", "ioctl", 14),
    ("create", "ioctl", 16),
    ("create", "ioctl", 18),
    ("create", "ioctl", 20),
    ("create", "ioctl", 22),
    ("remove", "renameat", 1),
    ("remove", "renameat", 2),
    ("remove", "unlinkat", 1),
    ("remove", "unlinkat", 2),
    ("remove", "ioctl", 15),
    ("remove", "ioctl", 17),
    ("remove", "ioctl", 19),
    ("grow", "renameat", 2),
    ("grow", "ioctl", 20),
    ("grow", "ioctl", 24),
    ("grow", "ioctl", 28),
    ("grow", "fsmount", 1),
    ("mount", "mount", 1),
];

/// The host's side: one boot after another, each looks at what the one before left.
pub fn cut_again_and_again() {
    if host::is_inside() || !host::is_ready() {
        return;
    }
    let root = TestRoot::new("power");
    let disks = [("metadata", 64u64 << 20), ("data", 1 << 30), ("home", 256 << 20)].map(|(name, size)| {
        let path = root.join(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path.to_str().unwrap().to_owned()
    });
    for number in 0..=CUTS.len() {
        let mut machine = Machine::new("power").variable("VM_CUT", &number.to_string());
        for disk in &disks {
            machine = machine.disk(disk);
        }
        let status = machine.run_until_cut();
        let wanted = (number == CUTS.len()).then_some(0);
        assert_eq!(status, wanted, "boot {number} (its output is above)");
    }
}

/// A store on a disk, found again at the next boot.
struct Kept(PathBuf);

impl Kept {
    fn mount(is_new: bool) -> Kept {
        let disk = disks()[2].clone();
        if is_new {
            run(Command::new("mkfs.ext4").arg("-q").arg(&disk));
        }
        let place = PathBuf::from("/tmp/kept");
        std::fs::create_dir(&place).unwrap();
        run(Command::new("mount").args(["-t", "ext4"]).arg(&disk).arg(&place));
        Kept(place)
    }

    fn driver(&self) -> std::sync::Arc<dyn isula_storage::driver::GraphDriver> {
        let options = isula_storage::driver::DriverOptions {
            options: options(&[]),
            ..layers::options(&self.0.join("root"), "devicemapper")
        };
        isula_storage::driver::open(&options).unwrap_or_else(|error| panic!("{}", error.report()))
    }
}

fn what_was_whole_is_whole_after_a_power_cut() {
    let number: usize = std::env::var("VM_CUT").unwrap().parse().unwrap();
    let kept = Kept::mount(number == 0);
    let pool = if number == 0 { Pool::new() } else { Pool::existing(u64::MAX, u64::MAX) };
    let driver = kept.driver();
    if number > 0 {
        let (deed, call, count) = CUTS[number - 1];
        let what = format!("after the cut during {deed} at {call} {count}");
        kills::check(&*driver, &what);
        let new = driver.exists(&layers::id("new")).unwrap();
        println!("    {what}: whole; layer new {}", if new { "is there" } else { "is not there" });
    }
    let Some((deed, call, count)) = CUTS.get(number).copied() else {
        let known = driver.layers().unwrap().len() + 1;
        driver.clean_up().unwrap();
        drop(driver);
        assert_eq!(pool.ids().len(), known, "no device without a layer");
        return;
    };
    driver.clean_up().unwrap();
    drop(driver);
    // The pool's metadata are looked at by its own tool.
    drop(pool);
    let _pool = Pool::existing(u64::MAX, u64::MAX);
    for count in (1..=count).rev() {
        let driver = kept.driver();
        kills::prepare(&*driver, deed);
        driver.clean_up().unwrap();
        drop(driver);
        rustix::fs::sync();
        if kills::kill_at(deed, &kept.0, call, count) {
            println!("    the power goes during {deed} at {call} {count}");
            cut_power();
        }
    }
    panic!("{deed} has no {call}");
}

/// Everything that is not on a disk is lost.
pub fn cut_power() -> ! {
    std::fs::write(Path::new("/proc/sysrq-trigger"), "b").unwrap();
    loop {
        std::thread::park();
    }
}
