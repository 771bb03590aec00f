// SPDX-License-Identifier: MulanPSL-2.0
//! The process is killed at system calls that change the store, the pool or a device.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use isula_storage::driver::GraphDriver;

use crate::guest::Scenario;
use crate::layers;
use crate::scene::*;
use crate::steps::{self, Step};

pub const ALL: &[Scenario] = crate::scenarios! {
    killed_while_a_layer_is_made
    killed_while_a_layer_is_made_larger
    killed_while_a_layer_is_removed
    killed_while_a_layer_is_mounted
    killed_while_the_base_is_made
};

/// How often a step is tried to be hit: what is waited for may be there at once the next time.
const TRIES: usize = 3;

/// What a process of its own does to the store in `VM_PLACE`, and is killed at.
pub fn do_deed(deed: &str, place: &Path) {
    let root = place.join("root");
    let options = isula_storage::driver::DriverOptions {
        options: options(&[]),
        ..layers::options(&root, "devicemapper")
    };
    if deed == "base" {
        steps::begin();
    }
    let driver = isula_storage::driver::open(&options).unwrap_or_else(|error| panic!("{}", error.report()));
    if deed != "base" {
        steps::begin();
    }
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
    let mut command = Command::new("strace");
    command.args(["-qqq", "-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
    let status = strace(command, deed, place);
    if status.success() {
        return false;
    }
    assert!(
        status.signal() == Some(libc::SIGKILL) || status.code() == Some(137),
        "{deed} at {call} {count}: {status}"
    );
    true
}

/// Runs a deed under strace.
pub fn strace(mut command: Command, deed: &str, place: &Path) -> ExitStatus {
    command.arg(std::env::current_exe().unwrap()).args([
        "deed",
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env("VM_DEED", deed).env("VM_PLACE", place);
    command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap()
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

/// Kills at each step in turn: with those before it done, and it and all after it not.
fn kill_again_and_again(deed: &str) {
    let pool = Pool::new();
    let place = Place::new();
    let again = || {
        let driver = place.driver();
        prepare(&*driver, deed);
        driver.clean_up().unwrap();
    };
    again();
    let all = steps::of(deed, place.path());
    again();
    for (number, step) in all.iter().enumerate() {
        let what =
            format!("{deed} killed at step {}, {} {} {}", number + 1, step.call, step.count, step.what);
        assert!(is_hit(deed, place.path(), step, again), "{what}: it was not");
        let driver = place.driver();
        check(&*driver, &what);
        prepare(&*driver, deed);
        // What was mounted stays so.
        unmount(&*driver, "new");
        driver.clean_up().unwrap();
        drop(driver);
        assert_eq!((pool.devices(), place.mounts().len()), (Vec::<String>::new(), 0), "{what}");
    }
    println!("    killed at each of {} steps: {}", all.len(), steps::names(&all));
    let wanted = if matches!(deed, "remove" | "mount") { 3 } else { 2 };
    drop(place);
    assert_eq!(pool.ids().len(), wanted, "no device without a layer");
}

fn is_hit(deed: &str, place: &Path, step: &Step, again: impl Fn()) -> bool {
    (0..TRIES).any(|_| {
        let hit = kill_at(deed, place, &step.call, step.count);
        if !hit {
            again();
        }
        hit
    })
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
    let all = {
        let _pool = Pool::new();
        let place = Place::new();
        steps::of("base", place.path())
    };
    let chosen = steps::spread(all.clone(), if steps::wants_all() { all.len() + 1 } else { 24 });
    for step in &chosen {
        let pool = Pool::new();
        let place = Place::new();
        let what = format!("killed at {} {} {}", step.call, step.count, step.what);
        assert!(kill_at("base", place.path(), &step.call, step.count), "{what}: it was not");
        let driver = place.driver();
        make_bottom(&*driver);
        check(&*driver, &what);
        driver.clean_up().unwrap();
        drop(driver);
        drop(place);
        assert_eq!(pool.ids().len(), 2, "{what}");
    }
    println!("    killed at {} of {} steps: {}", chosen.len(), all.len(), steps::names(&chosen));
}
