// SPDX-License-Identifier: MulanPSL-2.0
//! The world ends, or something fails, before every single change of the disk, the pool or a device.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::persist::with_hook;

/// The world before each step of `action`, and at the end.
fn worlds(bench: &Rc<Bench>, action: impl FnOnce()) -> Vec<(String, Bench)> {
    let found: Rc<RefCell<Vec<(String, Bench)>>> = Rc::default();
    let (taken, from) = (found.clone(), bench.clone());
    let take = move |step: &str| {
        taken.borrow_mut().push((step.to_owned(), from.copy()));
        Ok(())
    };
    with_hook(take, action);
    found.borrow_mut().push(("the end".to_owned(), bench.copy()));
    found.take()
}

/// Everything fits together, and the next creation and removal work.
fn assert_goes_on(world: &Bench, what: &str) {
    let driver = world.open();
    assert_whole(world, &driver, what);
    create(&driver, "next", Some("bottom")).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    remove(&driver, "next").unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    assert!(driver.exists(&id("bottom")).unwrap(), "{what}");
    assert_whole(world, &driver, what);
}

fn prepared() -> (Rc<Bench>, DeviceMapper) {
    let bench = Rc::new(Bench::new());
    let driver = bench.open();
    create(&driver, "bottom", None).unwrap();
    (bench, driver)
}

#[test]
fn a_crash_while_a_layer_is_made_leaves_it_whole_or_absent() {
    let (bench, driver) = prepared();
    let worlds = worlds(&bench, || create(&driver, "new", Some("bottom")).unwrap());
    let mut absent = 0;
    assert!(worlds.len() > 12, "{}", worlds.len());
    for (step, world) in worlds {
        let what = format!("before {step:?}");
        let opened = world.open();
        if !opened.exists(&id("new")).unwrap() {
            absent += 1;
            assert_eq!(world.pool_ids(), BTreeSet::from([1, 2]), "{what}");
            assert!(world.metadata("new").is_none(), "{what}");
        }
        drop(opened);
        assert_goes_on(&world, &what);
    }
    assert!(absent > 8, "{absent}");
}

#[test]
fn a_crash_while_a_layer_is_removed_leaves_it_whole_or_absent() {
    let (bench, driver) = prepared();
    create(&driver, "new", Some("bottom")).unwrap();
    let worlds = worlds(&bench, || remove(&driver, "new").unwrap());
    let mut there = 0;
    for (step, world) in worlds {
        let what = format!("before {step:?}");
        there += usize::from(world.open().exists(&id("new")).unwrap());
        assert_goes_on(&world, &what);
    }
    assert!(there > 1, "{there}");
}

#[test]
fn a_crash_while_the_base_is_made_is_made_good_at_the_next_start() {
    let bench = Rc::new(Bench::new());
    let worlds = worlds(&bench, || drop(bench.open()));
    assert!(worlds.len() > 20, "{}", worlds.len());
    for (step, world) in worlds {
        let what = format!("before {step:?}");
        let driver = world.open();
        assert_whole(&world, &driver, &what);
        assert_eq!(world.pool_ids().len(), 1, "{what}");
        create(&driver, "layer", None).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        assert_whole(&world, &driver, &what);
    }
}

#[test]
fn a_crash_while_a_layer_is_put_aside_or_taken_back_loses_nothing() {
    let (bench, driver) = prepared();
    create(&driver, "layer", Some("bottom")).unwrap();
    let mut all = worlds(&bench, || drop(driver.quarantine(&id("layer"), "why").unwrap()));
    let entry = driver.quarantined().unwrap().remove(0);
    all.extend(worlds(&bench, || driver.restore(&entry).unwrap()));
    for (step, world) in all {
        let what = format!("before {step:?}");
        let driver = world.open();
        let aside = driver.quarantined().unwrap();
        if !driver.exists(&id("layer")).unwrap() {
            assert_eq!(aside.len(), 1, "{what}");
            create(&driver, "between", None).unwrap();
            driver.restore(&aside[0]).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
            remove(&driver, "between").unwrap();
        }
        assert_whole(&world, &driver, &what);
        assert_eq!(world.pool_ids(), BTreeSet::from([1, 2, 3]), "{what}");
    }
}

/// Runs `action` again and again, with the first, second, … step failing, until it succeeds.
fn with_each_step_failing(mut action: impl FnMut() -> Result<()>, mut check: impl FnMut(&str)) -> usize {
    let mut failed = 0;
    loop {
        let (count, last) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(String::new())));
        let (counted, seen) = (count.clone(), last.clone());
        let hook = move |step: &'static str| {
            counted.set(counted.get() + 1);
            if counted.get() != failed + 1 {
                return Ok(());
            }
            *seen.borrow_mut() = step.to_owned();
            Err(Error::new(ErrorKind::Os(libc::EIO), format!("no {step}")))
        };
        let result = with_hook(hook, &mut action);
        if count.get() <= failed {
            result.unwrap();
            return failed;
        }
        check(&last.borrow());
        failed += 1;
    }
}

#[test]
fn a_failure_while_a_layer_is_made_leaves_nothing() {
    let (bench, driver) = prepared();
    let failed = with_each_step_failing(
        || {
            if driver.exists(&id("new"))? {
                remove(&driver, "new")?;
            }
            create(&driver, "new", Some("bottom"))
        },
        |step| {
            if !driver.exists(&id("new")).unwrap() {
                assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2]), "{step}");
                assert!(bench.metadata("new").is_none(), "{step}");
            }
            assert_whole(&bench, &driver, step);
        },
    );
    assert!(failed > 8, "{failed}");
    drop(driver);
    assert_whole(&bench, &bench.open(), "at the end");
}

#[test]
fn a_failure_while_a_layer_is_removed_is_made_good_by_the_next_removal() {
    let (bench, driver) = prepared();
    for which in 0..40 {
        create(&driver, "new", Some("bottom")).unwrap();
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let hook = move |step: &'static str| {
            counted.set(counted.get() + 1);
            let fails = counted.get() == which + 1;
            if fails { Err(Error::new(ErrorKind::Os(libc::EIO), format!("no {step}"))) } else { Ok(()) }
        };
        let failed = with_hook(hook, || remove(&driver, "new")).is_err();
        remove(&driver, "new").unwrap();
        assert_whole(&bench, &driver, &which.to_string());
        if !failed && count.get() <= which {
            return;
        }
    }
    panic!("more steps than anybody thought");
}

#[test]
fn errors_of_the_pool_leave_nothing() {
    let (bench, driver) = prepared();
    for (message, errno) in [("create_snap", libc::EIO), ("set_transaction_id", libc::EINVAL)] {
        bench.dm.state.lock().fail = Some((message.to_owned(), errno));
        let error = create(&driver, "new", None).unwrap_err();
        assert_eq!(error.errno(), errno);
        assert_whole(&bench, &driver, message);
        assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2]), "{message}");
    }
    bench.dm.state.lock().fail = Some(("delete".to_owned(), libc::EIO));
    assert_eq!(remove(&driver, "bottom").unwrap_err().errno(), libc::EIO);
    assert!(driver.exists(&id("bottom")).unwrap());
    assert_whole(&bench, &driver, "delete");
    remove(&driver, "bottom").unwrap();
}

#[test]
fn a_base_whose_file_system_cannot_be_made_leaves_nothing() {
    let bench = Bench::new();
    let error = bench.try_open(&["dm.thinpooldev=pool", "dm.mkfsarg=fail"]).unwrap_err();
    assert!(error.report().contains("mkfs.ext4 ended with exit status: 1"), "{}", error.report());
    assert_eq!(bench.pool_ids(), BTreeSet::new());
    let driver = bench.open();
    assert_whole(&bench, &driver, "the next start");
}

/// The metadata of the pool are full: the message succeeds, the kernel's commit of it does not.
#[test]
fn a_creation_that_the_pool_lost_leaves_nothing() {
    let (bench, driver) = prepared();
    bench.dm.state.lock().pool.loses_commit = true;
    let error = create(&driver, "new", Some("bottom")).unwrap_err();
    assert_eq!(error.errno(), libc::EROFS, "{}", error.report());
    assert!(!driver.exists(&id("new")).unwrap());
    assert_eq!(driver.layers().unwrap(), [id("bottom")]);
    let error = create(&driver, "new", Some("bottom")).unwrap_err();
    assert!(error.shown().unwrap().contains("can only be read"), "{}", error.report());
    let error = remove(&driver, "bottom").unwrap_err();
    assert_eq!(error.errno(), libc::EROFS, "{}", error.report());
    assert!(driver.exists(&id("bottom")).unwrap());

    // Started again meanwhile, and mended after that, or without another start.
    let started = bench.copy();
    let after = started.open();
    assert_eq!(after.layers().unwrap(), [id("bottom")]);
    for (bench, driver) in [(&started, &after), (&*bench, &driver)] {
        bench.dm.state.lock().pool.read_only = false;
        create(driver, "new", Some("bottom")).unwrap();
        assert_eq!(driver.layers().unwrap(), [id("bottom"), id("new")]);
        assert_whole(bench, driver, "mended");
    }
}

#[test]
fn a_removal_that_the_pool_lost_is_completed_when_it_can_be() {
    let (bench, driver) = prepared();
    create(&driver, "new", Some("bottom")).unwrap();
    bench.dm.state.lock().pool.loses_commit = true;
    assert_eq!(remove(&driver, "new").unwrap_err().errno(), libc::EROFS);
    assert!(!driver.exists(&id("new")).unwrap() && driver.exists(&id("bottom")).unwrap());
    remove(&driver, "new").unwrap();
    assert_eq!(bench.pool_ids().len(), 3, "its device is still there");
    let started = bench.copy();
    let after = started.open();
    for (bench, driver) in [(&started, &after), (&*bench, &driver)] {
        bench.dm.state.lock().pool.read_only = false;
        create(driver, "other", None).unwrap();
        assert_eq!(driver.layers().unwrap(), [id("bottom"), id("other")]);
        assert_whole(bench, driver, "mended");
    }
}

#[test]
fn a_base_cannot_be_made_in_a_pool_that_can_only_be_read() {
    let bench = Bench::new();
    bench.dm.state.lock().pool.read_only = true;
    let error = bench.try_open(&["dm.thinpooldev=pool"]).unwrap_err();
    assert!(error.shown().unwrap().contains("can only be read"), "{}", error.report());
    bench.dm.state.lock().pool.read_only = false;
    assert_whole(&bench, &bench.open(), "the next start");
}
