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
use crate::steps;

pub const ALL: &[Scenario] = crate::scenarios! {
    what_was_whole_is_whole_after_a_power_cut
};

/// Before a cut that the first boot plans.
const PLAN: &str = "    planned: ";
/// How many of the steps by which a layer that was made is grown, and of those of a mount. Of making and removing one all.
const SOME: [(&str, usize); 2] = [("grow", 12), ("mount", 2)];

/// The host's side: the first boot finds out the steps, each of the others looks at what the one before left, and goes off.
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
    let boot = |last: &str, next: &str, plan: &mut Vec<String>| {
        let mut machine = Machine::new("power").variable("VM_LAST", last).variable("VM_NEXT", next);
        for disk in &disks {
            machine = machine.disk(disk);
        }
        machine.run_and_listen(&mut |line| plan.extend(line.strip_prefix(PLAN).map(str::to_owned)))
    };
    let mut plan = Vec::new();
    assert_eq!(boot("", "", &mut plan), Some(0), "the first boot (its output is above)");
    assert!(plan.len() >= 30, "{plan:?}");
    let cuts: Vec<&str> = plan.iter().map(String::as_str).collect();
    let none = &mut Vec::new();
    for number in 0..=cuts.len() {
        let last = number.checked_sub(1).map_or("nothing", |last| cuts[last]);
        let next = cuts.get(number).copied().unwrap_or_default();
        let wanted = next.is_empty().then_some(0);
        assert_eq!(boot(last, next, none), wanted, "after {last}, before {next} (its output is above)");
    }
    println!("the power was cut {} times", cuts.len());
}

/// All cuts, as `deed call count`. By default those of a mount, and of a growth which are not those of a creation, are some.
fn plan(kept: &Kept) -> Vec<String> {
    let mut plan = Vec::new();
    let mut of_create = 0;
    for deed in ["create", "remove", "grow", "mount"] {
        let again = || {
            let driver = kept.driver();
            kills::prepare(&*driver, deed);
            driver.clean_up().unwrap();
        };
        again();
        let mut steps = steps::of(deed, &kept.0);
        println!("    {deed} has {} steps: {}", steps.len(), steps::names(&steps));
        if deed == "create" {
            of_create = steps.len();
        }
        let some = SOME.iter().find(|(other, _)| *other == deed && !steps::wants_all());
        if let Some((_, most)) = some {
            if deed == "grow" {
                // The last ones of a creation end it.
                steps.drain(..of_create.saturating_sub(3));
            }
            steps = steps::spread(steps, *most);
        }
        plan.extend(steps.into_iter().map(|step| format!("{deed} {} {}", step.call, step.count)));
    }
    let driver = kept.driver();
    kills::prepare(&*driver, "create");
    driver.clean_up().unwrap();
    plan
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
    let [last, next] = ["VM_LAST", "VM_NEXT"].map(|name| std::env::var(name).unwrap());
    let kept = Kept::mount(last.is_empty());
    if last.is_empty() {
        let _pool = Pool::new();
        for cut in plan(&kept) {
            println!("{PLAN}{cut}");
        }
        return;
    }
    let pool = Pool::existing(u64::MAX, u64::MAX);
    let driver = kept.driver();
    let what = format!("after the cut during {last}");
    kills::check(&*driver, &what);
    let new = driver.exists(&layers::id("new")).unwrap();
    println!("    {what}: whole; layer new {}", if new { "is there" } else { "is not there" });
    let known = driver.layers().unwrap().len() + 1;
    driver.clean_up().unwrap();
    drop(driver);
    // The pool's metadata are looked at by its own tools.
    assert_eq!(pool.ids().len(), known, "no device without a layer {what}");
    let [deed, call, count] = next.split(' ').collect::<Vec<_>>()[..] else { return };
    let _pool = Pool::existing(u64::MAX, u64::MAX);
    for _ in 0..3 {
        let driver = kept.driver();
        kills::prepare(&*driver, deed);
        driver.clean_up().unwrap();
        drop(driver);
        rustix::fs::sync();
        if kills::kill_at(deed, &kept.0, call, count.parse().unwrap()) {
            println!("    the power goes during {next}");
            cut_power();
        }
    }
    panic!("{next} was not reached");
}

/// Everything that is not on a disk is lost.
pub fn cut_power() -> ! {
    std::fs::write(Path::new("/proc/sysrq-trigger"), "b").unwrap();
    loop {
        std::thread::park();
    }
}
