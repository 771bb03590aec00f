// SPDX-License-Identifier: MulanPSL-2.0
//! With udevd, whose rules may never be through.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::costs;
use crate::guest::Scenario;
use crate::layers;
use crate::scene::*;

pub const ALL: &[Scenario] = crate::scenarios! {
    many_layers_leave_nothing_with_udev
    a_udevd_that_is_stopped_holds_nobody_up_for_long
    a_udevd_without_rules_holds_nobody_up_for_long
};

/// The library's longest wait for one change, and what the rest takes at most on a busy machine.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_secs(29);

/// A hundred, or `VM_LAYERS` of them.
fn many_layers_leave_nothing_with_udev() {
    assert!(Path::new("/run/udev/control").exists(), "udevd does not run");
    costs::of_layers(costs::wanted(100));
}

/// Something that is undone in the end, also after a failure.
struct Undo<F: FnMut()>(F);

impl<F: FnMut()> Drop for Undo<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// The daemon and its workers.
fn udevd() -> Vec<Pid> {
    let numbers =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let is_udevd = |number: &str| {
        let comm = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        comm.trim().ends_with("udevd") || comm.starts_with("(udev-worker")
    };
    let found = numbers.filter(|number| number.parse::<i32>().is_ok() && is_udevd(number));
    found.map(|number| Pid::from_raw(number.parse().unwrap()).unwrap()).collect()
}

/// A layer comes and goes while nobody counts semaphores down; then somebody does again.
fn live_without(silence: impl FnOnce() -> Box<dyn FnMut()>) {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "layer", None).unwrap();
    {
        let _undo = Undo(silence());
        let start = Instant::now();
        let rootfs = mount(&*driver, "layer");
        let took = start.elapsed();
        assert!(took >= LONGEST_WAIT, "udevd answered after {took:?}");
        assert!(took < LONGEST_WAIT + REST, "{took:?}");
        layers::write(rootfs.join("file"), "content");
        assert_eq!(semaphores(), 0, "after the mount");
        // It is known by now that nobody answers.
        let start = Instant::now();
        unmount(&*driver, "layer");
        create(&*driver, "above", Some("layer")).unwrap();
        assert_eq!(layers::read(mount(&*driver, "above").join("file")), "content");
        remove(&*driver, "above");
        remove(&*driver, "layer");
        let took = start.elapsed();
        assert!(took < LONGEST_WAIT, "{took:?}");
        assert_eq!((semaphores(), pool.devices(), place.mounts().len()), (0, Vec::<String>::new(), 0));
        println!("    after the first wait a whole life took {took:.1?}");
    }
    run(Command::new("udevadm").args(["settle", "--timeout=60"]));
    create(&*driver, "layer", None).unwrap();
    mount(&*driver, "layer");
    unmount(&*driver, "layer");
    remove(&*driver, "layer");
    driver.clean_up().unwrap();
    drop(driver);
    assert_eq!((semaphores(), pool.devices()), (0, Vec::<String>::new()));
    drop(place);
    assert_eq!(pool.ids(), [1]);
}

fn a_udevd_that_is_stopped_holds_nobody_up_for_long() {
    live_without(|| {
        let signal = |signal| {
            let found = udevd();
            assert!(!found.is_empty(), "udevd does not run");
            for pid in found {
                kill_process(pid, signal).unwrap_or_else(|error| println!("    signal {pid:?}: {error}"));
            }
        };
        signal(Signal::STOP);
        Box::new(move || signal(Signal::CONT))
    });
}

fn a_udevd_without_rules_holds_nobody_up_for_long() {
    let rules = ["/usr/lib/udev/rules.d", "/lib/udev/rules.d"].map(Path::new);
    let dir = rules.into_iter().find(|dir| dir.join("95-dm-notify.rules").exists()).expect("no rules");
    let reload = || drop(run(Command::new("udevadm").args(["control", "--reload"])));
    live_without(|| {
        let rename = move |from: &str, to: &str| std::fs::rename(dir.join(from), dir.join(to)).unwrap();
        rename("95-dm-notify.rules", "95-dm-notify.rules.away");
        reload();
        Box::new(move || {
            rename("95-dm-notify.rules.away", "95-dm-notify.rules");
            reload();
        })
    });
}
