// SPDX-License-Identifier: MulanPSL-2.0
//! Damage and strangers: what is not certain is neither used nor deleted, and does not stop the rest.

use super::*;

fn prepared() -> Bench {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "one", None).unwrap();
    create(&driver, "two", Some("one")).unwrap();
    driver.clean_up().unwrap();
    bench
}

#[test]
fn a_pool_has_to_be_named_and_to_be_one() {
    let bench = Bench::new();
    for (options, text) in [
        (&[][..], "no thin pool: name one that exists by the storage option dm.thinpooldev"),
        (&["dm.thinpooldev="], "Invalid thinpool device, it must not be empty"),
        (&["dm.thinpooldev=absent"], "thin pool absent: there is no such device"),
    ] {
        let error = bench.try_open(options).unwrap_err();
        assert!(error.report().contains(text), "{}", error.report());
    }
}

/// The reference does not start with one damaged file.
#[test]
fn a_damaged_file_is_put_aside_and_the_others_work() {
    for (name, text) in [
        ("one", "{"),
        ("one", ""),
        ("one", "{\"hash\":\"one\",\"device_id\":99999999,\"size\":4096}"),
        ("one", "{\"hash\":\"two\",\"device_id\":2,\"size\":4096}"),
        ("stranger", "not of ours"),
        ("deviceset-metadata", "[1]"),
        ("transaction-metadata", "x"),
    ] {
        let bench = prepared();
        bench.write(name, text);
        let driver = bench.open();
        let aside = driver.quarantined().unwrap();
        assert_eq!(aside.len(), 1, "{name} {text}");
        assert_eq!(aside[0].name, name);
        assert!(driver.exists(&id("two")).unwrap(), "{name} {text}");
        assert_eq!(driver.exists(&id("one")).unwrap(), name != "one", "{name} {text}");
        assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3]), "no device was touched");
        create(&driver, "three", Some("two")).unwrap();
        assert!(bench.metadata("three").unwrap().contains("\"device_id\": 4,"));
        if name == "one" {
            assert_eq!(
                driver.strays().unwrap(),
                ["thin pool pool has a device 2 that no layer of this store knows"]
            );
            assert!(driver.restore(&aside[0]).is_err());
            driver.purge(&aside[0]).unwrap().remove();
            assert!(bench.pool_ids().contains(&2), "nobody knows whose device it is");
        }
    }
}

#[test]
fn a_file_too_long_or_of_another_kind_stops_nothing() {
    let bench = prepared();
    bench.write("one", &" ".repeat(70_000));
    std::fs::create_dir(bench.home().join("metadata/dir")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.home().join("metadata/link")).unwrap();
    bench.write(".tmp-two-0123456789", "half");
    let driver = bench.open();
    assert_eq!(driver.layers().unwrap(), [id("two")]);
    assert!(bench.metadata(".tmp-two-0123456789").is_none());
}

#[test]
fn two_files_with_one_device_are_never_both_used() {
    let bench = prepared();
    let copy =
        bench.metadata("two").unwrap().replace("\"two\"", "\"copy\"").replace("_id\": 3\n", "_id\": 2\n");
    bench.write("copy", &copy);
    let driver = bench.open();
    assert_eq!(driver.layers().unwrap(), [id("one"), id("two")]);
    assert!(driver.quarantined().unwrap()[0].reason.contains("has its id 3 in the pool"));
    let aside = driver.quarantined().unwrap().remove(0);
    assert!(driver.restore(&aside).is_err());
    driver.purge(&aside).unwrap().remove();
    assert!(bench.pool_ids().contains(&3), "the device belongs to the other");
    drop(driver);

    // One that is to go never takes the device of a layer with it.
    let doomed = copy.replace("\n}", ",\n    \"deleted\": true\n}");
    bench.write("copy", &doomed);
    let driver = bench.open();
    driver.store().unwrap().retry_deletions();
    assert!(bench.pool_ids().contains(&3) && bench.metadata("copy").is_none());
    assert_whole(&bench, &driver, "the device is the layer's");
}

fn transaction(number: u64, hash: &str, device: u32) -> String {
    format!(
        "{{\n    \"open_transaction_id\": {number},\n    \"device_hash\": \"{hash}\",\n    \"device_id\": {device}\n}}\n"
    )
}

/// The reference deletes the device of every transaction that is younger than the pool.
#[test]
fn an_interrupted_transaction_deletes_only_what_it_certainly_made() {
    // The pool is at 3; layer `two` is device 3 of transaction 3.
    for (number, hash, device, doubt) in [
        (9, "two", 3, "it has number 9, and the thin pool is at 3"),
        (5, "absent", 7, "it has number 5, and the thin pool is at 3"),
        (4, "absent", 3, "another device of the store has its id"),
        (4, "two", 2, "another device of the store has its id"),
        (4, "two", 7, "the device's file has id 3"),
        (4, "base", 1, "the base device is in use"),
        (4, "", 1, "the base device is in use"),
    ] {
        let bench = prepared();
        bench.dm.state.lock().pool.ids.insert(7);
        bench.write("transaction-metadata", &transaction(number, hash, device));
        let driver = bench.open();
        assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3, 7]), "{number} {hash} {device}");
        assert_eq!(driver.layers().unwrap(), [id("one"), id("two")], "{number} {hash} {device}");
        let aside = driver.quarantined().unwrap();
        assert_eq!(aside.len(), 1);
        assert!(aside[0].reason.starts_with(doubt), "{}", aside[0].reason);
        assert!(bench.metadata("transaction-metadata").is_none());
    }
    for (number, hash, device) in [(3, "two", 3), (2, "one", 2), (1, "absent", 3)] {
        let bench = prepared();
        bench.write("transaction-metadata", &transaction(number, hash, device));
        assert_whole(&bench, &bench.open(), "what is done is done");
    }
    // And these were made, or to be deleted, by it.
    for (hash, device, left) in [("absent", 7, &["one", "two"][..]), ("two", 3, &["one"])] {
        let bench = prepared();
        bench.dm.state.lock().pool.ids.insert(7);
        bench.write("transaction-metadata", &transaction(4, hash, device));
        let driver = bench.open();
        assert!(!bench.pool_ids().contains(&device));
        assert_eq!(driver.layers().unwrap(), left.iter().map(|name| id(name)).collect::<Vec<_>>());
    }
}

#[test]
fn an_interrupted_deletion_of_a_device_in_use_is_completed_later() {
    let bench = prepared();
    bench.write("transaction-metadata", &transaction(4, "two", 3));
    let driver = {
        let busy =
            crate::sys::dm::Target { start: 0, sectors: 8, kind: "thin".into(), text: "254:0 3".into() };
        let device = crate::sys::dm::fake::Device { table: Some(busy), open: 1, ..Default::default() };
        bench.dm.state.lock().devices.insert("somebody".into(), device);
        bench.open()
    };
    assert!(!driver.exists(&id("two")).unwrap());
    assert!(bench.metadata("two").unwrap().contains("\"deleted\": true"));
    bench.dm.state.lock().devices.remove("somebody");
    driver.store().unwrap().retry_deletions();
    assert_whole(&bench, &driver, "now it is");
}

#[test]
fn devices_of_others_are_never_touched() {
    let bench = prepared();
    let prefix = names::Prefix::of(&crate::sys::fs::Dir::open(&bench.home()).unwrap()).unwrap();
    let ours = |hash: &str| prefix.device(hash);
    let foreign = format!("{}3-zzz", ours("").trim_end_matches('-'));
    bench.dm.create(&foreign).unwrap();
    bench.dm.create("other").unwrap();
    // Left of ours by a crash: without a table, suspended, active without need.
    bench.dm.create(&ours("one")).unwrap();
    let target = |id: u32| crate::sys::dm::Target {
        start: 0,
        sectors: 20_971_520,
        kind: "thin".into(),
        text: format!("254:0 {id}"),
    };
    bench.dm.create(&ours("two")).unwrap();
    bench.dm.load(&ours("two"), &target(3)).unwrap();
    bench.dm.resume(&ours("two")).unwrap();
    bench.dm.suspend(&ours("two")).unwrap();
    // Of our name, but another's table.
    bench.dm.create(&ours("base")).unwrap();
    bench.dm.load(&ours("base"), &target(3)).unwrap();
    bench.dm.resume(&ours("base")).unwrap();

    let error = bench.try_open(&["dm.thinpooldev=pool"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    assert!(error.report().contains("a device of that name exists that is another"), "{}", error.report());
    assert_eq!(bench.dm.names().unwrap(), [&*ours("base"), &*foreign, "other", POOL]);
    bench.dm.remove(&ours("base"), crate::sys::dm::Removal::Now).unwrap();
    assert_whole(&bench, &bench.open(), "and then it opens");
}

#[test]
fn a_device_left_suspended_in_use_is_resumed() {
    let bench = prepared();
    let driver = bench.open();
    let store = driver.store().unwrap();
    let record = store.layer(&id("one")).unwrap();
    store.activate(&record, &mut store.device("one").lock()).unwrap();
    let name = store.prefix.device("one");
    drop(store);
    drop(driver);
    {
        let mut state = bench.dm.state.lock();
        let device = state.devices.get_mut(&name).unwrap();
        device.open = 1;
        device.suspended = true;
    }
    let driver = bench.open();
    assert!(!bench.dm.info(&name).unwrap().unwrap().suspended);
    create(&driver, "three", Some("one")).unwrap();
    assert!(!bench.dm.info(&name).unwrap().unwrap().suspended);
}

#[test]
fn who_only_reads_changes_no_device_of_the_running_daemon() {
    let bench = prepared();
    let daemon = bench.open();
    let owner = daemon.store().unwrap();
    let record = owner.layer(&id("one")).unwrap();
    owner.activate(&record, &mut owner.device("one").lock()).unwrap();
    let name = owner.prefix.device("one");
    let reader = bench.read();
    let store = reader.store().unwrap();
    let device = store.device("one");
    let change = |change: &dyn Fn(&mut crate::sys::dm::fake::Device)| {
        let mut state = bench.dm.state.lock();
        let device = state.devices.get_mut(&name).unwrap();
        *device = crate::sys::dm::fake::Device { table: device.table.clone(), open: 1, ..Default::default() };
        change(device);
        device.clone()
    };
    let now = || bench.dm.state.lock().devices[&name].clone();
    let assert_same = |before: crate::sys::dm::fake::Device, what: &str| {
        assert_eq!(format!("{:?}", now()), format!("{before:?}"), "{what}");
    };

    let before = change(&|device| device.deferred = true);
    store.activate(&record, &mut device.lock()).unwrap();
    assert_same(before, "its removal is not called off");
    let before = change(&|device| device.suspended = true);
    let error = store.activate(&record, &mut device.lock()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    assert_same(before, "a snapshot of it is being taken");
    let before = change(&|device| device.table.as_mut().unwrap().sectors = 8);
    store.activate(&record, &mut device.lock()).unwrap();
    assert_same(before, "it does not grow");
    store.deactivate(&record, &mut device.lock()).unwrap();
    assert!(bench.dm.info(&name).unwrap().is_some(), "it is not the reader's to let go");

    // One that the reader made is let go, and what the daemon makes afterwards stays.
    bench.dm.state.lock().devices.remove(&name);
    store.activate(&record, &mut device.lock()).unwrap();
    store.deactivate(&record, &mut device.lock()).unwrap();
    assert!(bench.dm.info(&name).unwrap().is_none());
    owner.activate(&record, &mut owner.device("one").lock()).unwrap();
    store.deactivate(&record, &mut device.lock()).unwrap();
    assert!(bench.dm.info(&name).unwrap().is_some());

    // Nor is anything written into a layer.
    let content = crate::sys::fs::Dir::create_all(&bench.root.join("content"), 0o700).unwrap();
    assert_eq!(store.rootfs(&record, &content).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(content.entries().unwrap().len(), 0);
    drop(owner.rootfs(&record, &content).unwrap());
    drop(store.rootfs(&record, &content).unwrap());
}

#[test]
fn ids_that_somebody_else_has_in_the_pool_are_left_alone() {
    let bench = prepared();
    bench.dm.state.lock().pool.ids.extend([4, 5, 6]);
    let driver = bench.open();
    create(&driver, "three", None).unwrap();
    assert!(bench.metadata("three").unwrap().contains("\"device_id\": 7,"));
    assert_eq!(driver.strays().unwrap().len(), 3);
    assert_eq!(driver.not_looked_for().unwrap(), [""; 0]);
    let reader = bench.read();
    assert_eq!(reader.strays().unwrap(), [""; 0]);
    assert_eq!(
        reader.not_looked_for().unwrap(),
        ["layers without a device in thin pool pool, and devices in it that are of no layer"]
    );
    drop(reader);
    // Taken between the look and the creation.
    bench.dm.state.lock().fail = Some(("create_snap 8".to_owned(), libc::EEXIST));
    create(&driver, "four", None).unwrap();
    assert!(bench.metadata("four").unwrap().contains("\"device_id\": 9,"));
    remove(&driver, "three").unwrap();
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3, 4, 5, 6, 9]));
}

#[test]
fn the_pool_of_another_store_is_refused() {
    let bench = prepared();
    bench.filesystems.made.lock().clear();
    assert!(bench.try_open(&["dm.thinpooldev=pool"]).is_err(), "the base has no file system");
    bench.filesystems.make(Path::new("/dev/mapper/x-base"), &[]).unwrap();
    let error = bench.try_open(&["dm.thinpooldev=pool"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.report().contains("it is not the thin pool of this store"), "{}", error.report());

    // No files, but data in the pool.
    let empty = Bench::new();
    empty.dm.state.lock().pool.used_data = 5;
    let error = empty.try_open(&["dm.thinpooldev=pool"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains("the pool of another store, or the files"), "{}", error.report());
    assert_eq!(empty.pool_ids(), BTreeSet::new());
}

/// The layers are there, and no layer without a parent can be made.
fn assert_goes_on_without_base(bench: &Bench, driver: &DeviceMapper) {
    assert_eq!(driver.layers().unwrap(), [id("one"), id("two")]);
    assert_eq!(create(driver, "bottom", None).unwrap_err().kind(), ErrorKind::NotReady);
    create(driver, "three", Some("two")).unwrap();
    remove(driver, "three").unwrap();
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3]), "no device was touched");
}

#[test]
fn a_damaged_file_of_the_base_stops_only_what_needs_it() {
    let bench = prepared();
    let whole = bench.metadata("base").unwrap();
    std::fs::remove_file(bench.home().join("metadata/base")).unwrap();
    assert_goes_on_without_base(&bench, &bench.open());
    bench.write("base", "{");
    let driver = bench.open();
    assert_goes_on_without_base(&bench, &driver);
    let aside = driver.quarantined().unwrap().remove(0);
    assert_eq!(aside.name, "base");
    driver.restore(&aside).unwrap_err();
    // Mended by somebody.
    #[allow(clippy::disallowed_methods, reason = "test")]
    std::fs::write(&aside.path, whole).unwrap();
    driver.restore(&aside).unwrap();
    create(&driver, "bottom", None).unwrap();
    assert_whole(&bench, &driver, "restored");
    drop(driver);
    assert_whole(&bench, &bench.open(), "and opened again");
}

/// A start that cannot read a file now may read it later.
#[test]
fn a_file_that_cannot_be_read_now_is_not_put_aside() {
    let bench = prepared();
    let driver = bench.open();
    let store = driver.store().unwrap();
    for errno in [libc::EIO, libc::EMFILE] {
        let error = Error::new(ErrorKind::from_errno(errno), "no");
        assert_eq!(store.put_damaged_aside("one", error).unwrap_err().errno(), errno);
    }
    assert!(bench.metadata("one").is_some());
    store.put_damaged_aside("one", Error::corrupt("it is")).unwrap();
    assert!(bench.metadata("one").is_none());
}

#[test]
fn one_lost_flag_does_not_delete_the_base() {
    for lost in ["\"initialized\": true", "\"deleted\": true"] {
        let bench = prepared();
        let half = bench.metadata("base").unwrap().replace("\"initialized\": true", lost);
        bench.write("base", &half.replace("\"initialized\": true", "\"initialized\": false"));
        let driver = bench.open();
        assert_goes_on_without_base(&bench, &driver);
        driver.store().unwrap().retry_deletions();
        assert!(bench.pool_ids().contains(&1), "{lost}");
        drop(driver);
        // What was done last was its making.
        bench.write("transaction-metadata", &transaction(bench.transaction(), "base", 1));
        let driver = bench.open();
        create(&driver, "bottom", None).unwrap();
        assert!(!bench.pool_ids().contains(&1), "{lost}");
        assert_whole(&bench, &driver, lost);
    }
}

#[test]
fn a_transaction_never_names_a_device_of_somebody_else_or_one_put_aside() {
    let bench = prepared();
    let driver = bench.open();
    let dm = bench.dm.clone();
    let taken = std::cell::Cell::new(false);
    // Somebody takes the id between the look and the creation, and then the disk is full.
    let hook = move |step: &str| {
        if step == "create in pool" && !taken.get() {
            taken.set(true);
            dm.state.lock().pool.ids.insert(4);
        } else if taken.get() && !matches!(step, "remove metadata file" | "sync metadata") {
            return Err(Error::new(ErrorKind::Os(libc::ENOSPC), "full"));
        }
        Ok(())
    };
    assert!(crate::persist::with_hook(hook, || create(&driver, "three", None)).is_err());
    assert!(bench.metadata("transaction-metadata").is_none());
    drop(driver);
    let driver = bench.open();
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3, 4]));
    driver.quarantine(&id("one"), "why").unwrap();
    drop(driver);
    bench.write("transaction-metadata", &transaction(4, "absent", 2));
    let driver = bench.open();
    assert!(bench.pool_ids().contains(&2));
    let mut reasons = driver.quarantined().unwrap().into_iter().map(|entry| entry.reason);
    assert!(reasons.any(|reason| reason.starts_with("something that was put aside has its id: ")));
}

#[test]
fn a_device_that_is_another_is_not_suspended_for_a_snapshot() {
    let bench = prepared();
    let driver = bench.open();
    let name = driver.store().unwrap().prefix.device("one");
    let text = "254:0 3".to_owned();
    bench.dm.create(&name).unwrap();
    bench
        .dm
        .load(&name, &crate::sys::dm::Target { start: 0, sectors: 8, kind: "thin".into(), text })
        .unwrap();
    bench.dm.resume(&name).unwrap();
    let error = create(&driver, "three", Some("one")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_layer_without_a_device_is_told() {
    let bench = prepared();
    let driver = bench.open();
    bench.dm.state.lock().pool.ids.remove(&2);
    let defects = driver.examine(&id("one"), None).unwrap();
    assert_eq!(defects, [Defect::missing("thin pool pool has no device 2")]);
    assert_eq!(driver.validate(&id("one"), None).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::remove_dir(bench.home().join("mnt/two")).unwrap();
    assert_eq!(driver.examine(&id("two"), None).unwrap(), [Defect::derivable("its mount point is missing")]);
    driver.validate(&id("two"), None).unwrap();
    assert!(bench.home().join("mnt/two").is_dir());
    remove(&driver, "one").unwrap();
}

#[test]
fn the_base_does_not_shrink() {
    let bench = prepared();
    let error = bench.try_open(&["dm.thinpooldev=pool", "dm.basesize=1G"]).unwrap_err();
    assert!(error.shown().unwrap().contains("is smaller than the base device"), "{}", error.report());
    bench.try_open(&["dm.thinpooldev=pool", "dm.basesize=10G"]).unwrap();
}

/// The reference writes down what it was told, which may be no whole number of blocks.
#[test]
fn a_base_of_any_size_is_as_large_as_it_was_asked_for() {
    let bench = prepared();
    let text = bench.metadata("base").unwrap().replace("10737418240", "10000000000");
    bench.write("base", &text);
    for superblock in bench.filesystems.made.lock().values_mut() {
        superblock.size = Bytes(10_000_000_000 / 4096 * 4096);
    }
    for options in [&["dm.thinpooldev=pool"][..], &["dm.thinpooldev=pool", "dm.basesize=10000000000"]] {
        let driver = bench.try_open(options).unwrap_or_else(|error| panic!("{}", error.report()));
        assert_whole(&bench, &driver, "opened");
        assert_eq!(bench.metadata("base").unwrap(), text);
    }
    let error = bench.try_open(&["dm.thinpooldev=pool", "dm.basesize=9999990000"]).unwrap_err();
    assert!(error.shown().unwrap().contains("is smaller than the base device"), "{}", error.report());
    // And so with a layer that is to be as large as what it stands on.
    let driver = bench.open();
    let storage_options = [("size".to_owned(), "10000000000".to_owned())];
    let kind = LayerKind::ReadWrite;
    let layer = id("three");
    driver
        .create(&NewLayer {
            id: &layer,
            parent: None,
            kind,
            storage_options: &storage_options,
            mount_label: None,
        })
        .unwrap();
    assert!(bench.metadata("three").unwrap().contains("\"size\": 10000000000,"));
}

#[test]
fn a_second_owner_is_refused_and_touches_nothing() {
    let bench = prepared();
    let _driver = bench.open();
    let error = bench.try_open(&["dm.thinpooldev=pool"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains("in use by pid"), "{}", error.report());
}

/// What is written to a mounted parent waits for the snapshot only, not for others' transactions and not for files.
#[test]
fn an_active_parent_rests_for_the_snapshot_alone() {
    let bench = std::rc::Rc::new(prepared());
    let driver = bench.open();
    let store = driver.store().unwrap();
    let record = store.layer(&id("one")).unwrap();
    store.activate(&record, &mut store.device("one").lock()).unwrap();
    let name = store.prefix.device("one");
    let (dm, seen) = (bench.dm.clone(), std::rc::Rc::new(std::cell::Cell::new(0)));
    let (counted, parent) = (seen.clone(), name.clone());
    let hook = move |step: &'static str| {
        assert!(!dm.info(&parent).unwrap().unwrap().suspended, "at {step:?}");
        counted.set(counted.get() + 1);
        Ok(())
    };
    crate::persist::with_hook(hook, || create(&driver, "above", Some("one")).unwrap());
    assert!(seen.get() > 5);
    assert!(!bench.dm.info(&name).unwrap().unwrap().suspended);
    // Also when it fails.
    bench.dm.state.lock().fail = Some(("create_snap".to_owned(), libc::EIO));
    create(&driver, "other", Some("one")).unwrap_err();
    assert!(!bench.dm.info(&name).unwrap().unwrap().suspended);
}

#[test]
fn nobody_can_mount_a_layer_that_is_being_removed() {
    let bench = prepared();
    let driver = bench.open();
    let store = driver.store().unwrap();
    let steps = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = steps.clone();
    let hook = move |step: &'static str| {
        let is_held = store.device("two").try_lock().is_none();
        seen.borrow_mut().push((step, is_held));
        Ok(())
    };
    crate::persist::with_hook(hook, || remove(&driver, "two").unwrap());
    let steps = steps.borrow();
    assert!(steps.iter().any(|(step, _)| *step == "delete in pool"));
    assert!(steps.iter().all(|(_, is_held)| *is_held), "{steps:?}");
    let error = driver.mount(&id("two"), LayerKind::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// The names of devices are made of the inode of the driver's home.
#[test]
fn a_home_made_anew_does_not_use_devices_that_are_active_under_their_old_names() {
    let bench = prepared();
    let driver = bench.open();
    let store = driver.store().unwrap();
    let record = store.layer(&id("one")).unwrap();
    store.activate(&record, &mut store.device("one").lock()).unwrap();
    let old = store.prefix.device("one");
    bench.dm.state.lock().devices.get_mut(&old).unwrap().open = 1;
    drop(store);
    drop(driver);
    let (home, away) = (bench.home(), bench.root.join("away"));
    let run = |program: &str, from: &Path, to: &Path| {
        let options = if program == "cp" { &["-a"][..] } else { &[] };
        crate::sys::testing::run(std::process::Command::new(program).args(options).arg(from).arg(to));
    };
    run("mv", &home, &away);
    run("cp", &away, &home);

    let driver = bench.open();
    let store = driver.store().unwrap();
    assert_ne!(store.prefix.device("one"), old, "it has another inode");
    let try_activate = |name: &str| {
        let record = store.layer(&id(name)).unwrap();
        store.activate(&record, &mut store.device(name).lock()).map(drop)
    };
    let error = try_activate("one").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    let advice = format!("made anew; end what uses that one, and remove it (dmsetup remove {old})");
    assert!(error.report().contains(&advice), "{}", error.report());
    assert!(bench.dm.info(&store.prefix.device("one")).unwrap().is_none());
    // The others are not concerned, and the old one is left alone.
    try_activate("two").unwrap();
    create(&driver, "new", Some("two")).unwrap();
    assert!(bench.dm.info(&old).unwrap().is_some());
    remove(&driver, "one").unwrap();
    assert!(bench.pool_ids().contains(&record.device_id), "it goes later");

    bench.dm.state.lock().devices.remove(&old);
    assert!(!store.retry_deletions());
    assert!(!bench.pool_ids().contains(&record.device_id));
}
