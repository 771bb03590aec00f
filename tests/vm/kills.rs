// SPDX-License-Identifier: MulanPSL-2.0
//! The process is killed at system calls that change the store, the pool or a device.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use isula_storage::driver::GraphDriver;

use crate::guest::Scenario;
use crate::layers;
use crate::scene::*;

pub const ALL: &[Scenario] = crate::scenarios! {
    killed_while_a_layer_is_made
    killed_while_a_layer_is_made_larger
    killed_while_a_layer_is_removed
    killed_while_a_layer_is_mounted
    killed_while_the_base_is_made
};

/// Calls at which it is killed, each time at another one of them.
const CALLS: [&str; 7] = ["ioctl", "fsync", "renameat", "unlinkat", "mkdirat", "mount", "fsmount"];
/// How many moments of one kind are looked for at most.
const MOMENTS: usize = 4;

/// What a process of its own does to the store in `VM_PLACE`, and is killed at.
pub fn do_deed(deed: &str, place: &Path) {
    let root = place.join("root");
    let options = isula_storage::driver::DriverOptions {
        options: options(&[]),
        ..layers::options(&root, "devicemapper")
    };
    let driver = isula_storage::driver::open(&options).unwrap_or_else(|error| panic!("{}", error.report()));
    match deed {
        "base" => {}
        "create" => create(&*driver, "new", Some("bottom")).unwrap(),
        "grow" => create_of_size(&*driver, "new", Some("bottom"), Some("96M")).unwrap(),
        "remove" => remove(&*driver, "new"),
        "mount" => {
            layers::write(mount(&*driver, "new").join("file"), "new");
            unmount(&*driver, "new");
        }
        other => panic!("{other}"),
    }
    driver.clean_up().unwrap();
}

/// Runs a deed and kills it at the `count`th such call; whether it was still running.
pub fn kill_at(deed: &str, place: &Path, call: &str, count: usize) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={count}");
    let status = Command::new("strace")
        .args(["-qqq", "-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject])
        .arg(std::env::current_exe().unwrap())
        .args(["deed", "--exact", "--nocapture", "--test-threads=1"])
        .env("VM_DEED", deed)
        .env("VM_PLACE", place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    if status.success() {
        return false;
    }
    assert!(
        status.signal() == Some(libc::SIGKILL) || status.code() == Some(137),
        "{deed} at {call} {count}: {status}"
    );
    true
}

/// Everything fits together, and the next creation works.
pub fn check(driver: &dyn GraphDriver, what: &str) {
    assert_eq!(driver.strays().unwrap(), [""; 0], "{what}");
    assert!(driver.quarantined().unwrap().is_empty(), "{what}");
    for layer in driver.layers().unwrap() {
        driver.validate(&layer, None).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        assert!(driver.usage(&layer).unwrap().is_some(), "{what}");
    }
    create(driver, "next", Some("bottom")).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    assert_eq!(layers::read(mount(driver, "next").join("file")), "bottom", "{what}");
    unmount(driver, "next");
    remove(driver, "next");
}

pub fn make_bottom(driver: &dyn GraphDriver) {
    if !driver.exists(&layers::id("bottom")).unwrap() {
        create(driver, "bottom", None).unwrap();
        layers::write(mount(driver, "bottom").join("file"), "bottom");
        unmount(driver, "bottom");
    }
}

/// Before the deed: `new` is there or not.
pub fn prepare(driver: &dyn GraphDriver, deed: &str) {
    make_bottom(driver);
    let new = layers::id("new");
    let wanted = matches!(deed, "remove" | "mount");
    if driver.exists(&new).unwrap() != wanted {
        match wanted {
            true => create(driver, "new", Some("bottom")).unwrap(),
            false => remove(driver, "new"),
        }
    }
}

fn kill_again_and_again(deed: &str) {
    let pool = Pool::new();
    let place = Place::new();
    {
        let driver = place.driver();
        prepare(&*driver, deed);
        driver.clean_up().unwrap();
    }
    let mut kills = 0;
    for call in CALLS {
        let mut count = 1;
        let mut moments = 0;
        // The first moments, and then ever rarer ones.
        while moments < MOMENTS && kill_at(deed, place.path(), call, count) {
            let what = format!("{deed} killed at {call} {count}");
            let driver = place.driver();
            check(&*driver, &what);
            prepare(&*driver, deed);
            driver.clean_up().unwrap();
            drop(driver);
            assert_eq!((pool.devices(), place.mounts().len()), (Vec::<String>::new(), 0), "{what}");
            count += 1 + count / 2;
            moments += 1;
            kills += 1;
        }
        let driver = place.driver();
        prepare(&*driver, deed);
        driver.clean_up().unwrap();
    }
    println!("    killed {kills} times");
    assert!(kills >= 8, "{deed}: only {kills}");
    let wanted = if matches!(deed, "remove" | "mount") { 3 } else { 2 };
    drop(place);
    assert_eq!(pool.ids().len(), wanted, "no device without a layer");
}

fn killed_while_a_layer_is_made() {
    kill_again_and_again("create");
}

fn killed_while_a_layer_is_made_larger() {
    kill_again_and_again("grow");
}

fn killed_while_a_layer_is_removed() {
    kill_again_and_again("remove");
}

fn killed_while_a_layer_is_mounted() {
    kill_again_and_again("mount");
}

fn killed_while_the_base_is_made() {
    let mut kills = 0;
    for call in ["ioctl", "fsync", "renameat"] {
        let mut count = 1;
        loop {
            let pool = Pool::new();
            let place = Place::new();
            if !kill_at("base", place.path(), call, count) {
                break;
            }
            let what = format!("killed at {call} {count}");
            let driver = place.driver();
            make_bottom(&*driver);
            check(&*driver, &what);
            driver.clean_up().unwrap();
            drop(driver);
            drop(place);
            assert_eq!(pool.ids().len(), 2, "{what}");
            count = 2 * count + 1;
            kills += 1;
        }
    }
    println!("    killed {kills} times");
    assert!(kills >= 5, "only {kills}");
}
