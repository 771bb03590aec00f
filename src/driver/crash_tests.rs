// SPDX-License-Identifier: MulanPSL-2.0
//! The world ends, or the disk fails, before every single change that a driver makes.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use super::*;
use crate::persist::with_hook;
use crate::sys::testing::{TestRoot, need_root, run};

const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn open_at(root: &Path, name: &str) -> Arc<dyn GraphDriver> {
    open(&DriverOptions {
        root: root.to_owned(),
        name: name.to_owned(),
        options: Vec::new(),
        durability: Durability::Full,
        read_only: false,
        owner_shift: None,
    })
    .unwrap_or_else(|error| panic!("{}", error.report()))
}

fn create(driver: &dyn GraphDriver, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
    driver.create(&NewLayer {
        id,
        parent,
        kind: LayerKind::ReadWrite,
        storage_options: &[],
        mount_label: None,
    })
}

/// A driver with a layer `base` and a layer `top` on it.
fn prepared(name: &str) -> (TestRoot, Arc<dyn GraphDriver>) {
    let root = TestRoot::in_memory("crash");
    let driver = open_at(root.path(), name);
    create(&*driver, &id("base"), None).unwrap();
    create(&*driver, &id("top"), Some(&id("base"))).unwrap();
    (root, driver)
}

/// What the disk looks like before each change that `action` makes, and at the end.
fn worlds(root: &Path, action: impl FnOnce()) -> Vec<(String, TestRoot)> {
    let found: Rc<RefCell<Vec<(String, TestRoot)>>> = Rc::default();
    let (root, taken) = (root.to_owned(), found.clone());
    let take = move |step: &str| {
        let copied = TestRoot::in_memory("world");
        run(std::process::Command::new("cp").arg("-a").arg(root.join(".")).arg(copied.path()));
        taken.borrow_mut().push((step.to_owned(), copied));
        Ok(())
    };
    let at_step = take.clone();
    with_hook(at_step, action);
    take("the end").unwrap();
    found.take()
}

/// Names in the directory of layers, and in `l/` where there is one.
fn names(root: &Path, driver: &str) -> Vec<String> {
    let home = root.join(name_on_disk(driver).unwrap());
    let mut names = Vec::new();
    for dir in [home.clone(), home.join("l"), home.join("dir")] {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            names.push(entry.unwrap().path().strip_prefix(&home).unwrap().display().to_string());
        }
    }
    names.sort();
    names
}

fn is_empty(root: &Path, driver: &str, place: &str) -> bool {
    let dir = root.join(name_on_disk(driver).unwrap()).join(".isula-storage").join(place);
    std::fs::read_dir(dir).unwrap().next().is_none()
}

fn assert_whole(driver: &dyn GraphDriver, layer: &LayerId, parent: Option<&LayerId>, what: &str) {
    driver.validate(layer, parent).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    driver
        .mount(layer, LayerKind::ReadWrite, None)
        .unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    driver.unmount(layer).unwrap();
}

#[test]
fn a_crash_while_a_layer_is_made_leaves_it_whole_or_absent() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        let (root, driver) = prepared(name);
        let before = names(root.path(), name);
        let worlds = worlds(root.path(), || create(&*driver, &id("new"), Some(&id("top"))).unwrap());
        assert!(worlds.len() >= 4, "{name}: {}", worlds.len());
        let mut absent = 0;
        for (step, world) in worlds {
            let what = format!("{name}: before {step:?}");
            let driver = open_at(world.path(), name);
            if driver.exists(&id("new")).unwrap() {
                assert_whole(&*driver, &id("new"), Some(&id("top")), &what);
            } else {
                assert_eq!(names(world.path(), name), before, "{what}");
                absent += 1;
            }
            assert!(is_empty(world.path(), name, "staging"), "{what}");
            assert!(driver.quarantined().unwrap().is_empty(), "{what}");
            assert_whole(&*driver, &id("top"), Some(&id("base")), &what);
        }
        assert!(absent >= 2, "{name}");
    }
}

#[test]
fn a_crash_while_a_layer_is_removed_leaves_it_whole_or_absent() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        let (root, driver) = prepared(name);
        let before = names(root.path(), name);
        create(&*driver, &id("new"), Some(&id("top"))).unwrap();
        for (step, world) in worlds(root.path(), || driver.remove(&id("new")).unwrap().remove()) {
            let what = format!("{name}: before {step:?}");
            let driver = open_at(world.path(), name);
            if driver.exists(&id("new")).unwrap() {
                assert_whole(&*driver, &id("new"), Some(&id("top")), &what);
            } else {
                assert_eq!(names(world.path(), name), before, "{what}");
            }
            assert!(is_empty(world.path(), name, "trash"), "{what}");
            assert_whole(&*driver, &id("top"), Some(&id("base")), &what);
        }
    }
}

#[test]
fn a_crash_while_a_layer_is_put_aside_or_taken_back_loses_nothing() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        let (root, driver) = prepared(name);
        let mut all = worlds(root.path(), || drop(driver.quarantine(&id("base"), "why").unwrap().unwrap()));
        let entry = driver.quarantined().unwrap().remove(0);
        all.extend(worlds(root.path(), || driver.restore(&entry).unwrap()));
        for (step, world) in all {
            let what = format!("{name}: before {step:?}");
            let driver = open_at(world.path(), name);
            let aside = driver.quarantined().unwrap();
            if driver.exists(&id("base")).unwrap() {
                assert!(aside.is_empty(), "{what}");
            } else {
                assert_eq!(aside.len(), 1, "{what}");
                driver.restore(&aside[0]).unwrap();
            }
            assert_whole(&*driver, &id("base"), None, &what);
            assert_whole(&*driver, &id("top"), Some(&id("base")), &what);
        }
    }
}

#[test]
fn a_failure_while_a_layer_is_made_leaves_nothing() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        let (root, driver) = prepared(name);
        let before = names(root.path(), name);
        let mut failed = 0;
        loop {
            let count = Rc::new(Cell::new(0));
            let at_step = count.clone();
            let hook = move |step: &'static str| {
                at_step.set(at_step.get() + 1);
                match at_step.get() > failed {
                    true => Err(Error::new(ErrorKind::Os(libc::EIO), format!("no {step}"))),
                    false => Ok(()),
                }
            };
            match with_hook(hook, || create(&*driver, &id("new"), Some(&id("top")))) {
                Ok(()) => break,
                Err(error) => assert_eq!(error.errno(), libc::EIO, "{}", error.report()),
            }
            // A name in `l/` that could not be taken back is swept at the next start.
            let now = names(root.path(), name);
            assert!(!now.iter().any(|entry| entry.ends_with("new")), "{name}: {now:?}");
            assert!(driver.layers().unwrap().len() == 2 && is_empty(root.path(), name, "staging"), "{name}");
            failed += 1;
        }
        assert!(failed >= 3, "{name}: {failed}");
        driver.remove(&id("new")).unwrap().remove();
        driver.clean_up().unwrap();
        open_at(root.path(), name);
        assert_eq!(names(root.path(), name), before, "{name}");
    }
}
