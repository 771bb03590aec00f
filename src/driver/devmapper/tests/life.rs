// SPDX-License-Identifier: MulanPSL-2.0
//! What layers are on the disk and in the pool, from their making to their end.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_new_store_has_a_base_as_the_reference_makes_it() {
    let bench = Bench::new();
    let driver = bench.open();
    let base = "{\n    \"hash\": \"base\",\n    \"device_id\": 1,\n    \"size\": 10737418240,\n    \
                \"transaction_id\": 1,\n    \"initialized\": true\n}\n";
    assert_eq!(bench.metadata("base").unwrap(), base);
    let set = "{\n    \"next_device_id\": 1,\n    \"BaseDeviceFilesystem\": \"ext4\",\n    \
               \"BaseDeviceUUID\": \"uuid-1\"\n}\n";
    assert_eq!(bench.metadata("deviceset-metadata").unwrap(), set);
    let transaction =
        "{\n    \"open_transaction_id\": 1,\n    \"device_hash\": \"base\",\n    \"device_id\": 1\n}\n";
    assert_eq!(bench.metadata("transaction-metadata").unwrap(), transaction);
    assert_eq!((bench.transaction(), bench.pool_ids()), (1, BTreeSet::from([1])));
    assert_eq!(driver.layers().unwrap(), [], "the base is no layer");
    let mode = |path: &str| bench.home().join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode(""), mode("metadata"), mode("mnt")], [0o700, 0o700, 0o750]);
    assert_eq!(mode("metadata/base"), 0o640);
    drop(driver);
    let before = bench.names();
    let driver = bench.open();
    assert_eq!(bench.names(), before, "opening again changes nothing");
    assert_whole(&bench, &driver, "opened again");
}

#[test]
fn layers_are_snapshots_of_their_parents() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "one", None).unwrap();
    create(&driver, "two", Some("one")).unwrap();
    let messages = bench.dm.state.lock().messages.clone();
    assert_eq!(
        messages,
        [
            "create_thin 1",
            "set_transaction_id 0 1",
            "create_snap 2 1",
            "set_transaction_id 1 2",
            "create_snap 3 2",
            "set_transaction_id 2 3",
        ]
    );
    let one = "{\n    \"hash\": \"one\",\n    \"device_id\": 2,\n    \"size\": 10737418240,\n    \
               \"transaction_id\": 2\n}\n";
    assert_eq!(bench.metadata("one").unwrap(), one);
    let store = driver.store().unwrap();
    let metadata = driver.metadata(&id("two")).unwrap();
    let value = |key: &str| metadata.iter().find(|(name, _)| *name == key).unwrap().1.clone();
    assert_eq!(value("DeviceId"), "3");
    assert_eq!(value("DeviceSize"), "10737418240");
    assert_eq!(value("DeviceName"), store.prefix.device("two"));
    assert_eq!(value("MergedDir"), bench.home().join("mnt/two/rootfs").to_str().unwrap());
    assert!(value("DeviceName").starts_with("container-"));

    remove(&driver, "one").unwrap();
    assert!(!driver.exists(&id("one")).unwrap() && driver.exists(&id("two")).unwrap());
    remove(&driver, "two").unwrap();
    remove(&driver, "two").unwrap();
    assert_eq!(bench.pool_ids(), BTreeSet::from([1]));
    assert_eq!(bench.transaction(), 5);
    assert_eq!(
        bench.names(),
        ["metadata/base", "metadata/deviceset-metadata", "metadata/transaction-metadata"]
    );
    assert_whole(&bench, &driver, "empty again");
    // Ids go on and are used again only when there are no others.
    create(&driver, "three", None).unwrap();
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 4]));
}

#[test]
fn layers_are_found_again_after_a_restart() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "one", None).unwrap();
    create(&driver, "two", Some("one")).unwrap();
    driver.clean_up().unwrap();
    assert_eq!(driver.exists(&id("one")).unwrap_err().kind(), ErrorKind::NotReady);
    assert!(bench.metadata("deviceset-metadata").unwrap().contains("\"next_device_id\": 3"));
    let driver = bench.open();
    assert_eq!(driver.layers().unwrap(), [id("one"), id("two")]);
    assert_whole(&bench, &driver, "after a restart");
    create(&driver, "three", Some("two")).unwrap();
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3, 4]));
}

/// The reference deletes the base like any layer, and no layer can be made afterwards.
#[test]
fn the_base_and_the_driver_s_own_files_are_no_layers() {
    let bench = Bench::new();
    let driver = bench.open();
    for name in ["base", "deviceset-metadata", "transaction-metadata"] {
        for error in [
            remove(&driver, name).unwrap_err(),
            create(&driver, name, None).unwrap_err(),
            driver.quarantine(&id(name), "why").map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}: {}", error.report());
        }
        assert!(!driver.exists(&id(name)).unwrap());
        assert_eq!(create(&driver, "x", Some(name)).unwrap_err().kind(), ErrorKind::NotFound, "{name}");
        assert_eq!(driver.metadata(&id(name)).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_whole(&bench, &driver, "nothing happened");
    create(&driver, "layer", None).unwrap();
}

/// The reference fails, and removes the mount point of the layer that was there.
#[test]
fn a_layer_whose_id_is_asked_for_again_is_put_aside_whole() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "layer", None).unwrap();
    create(&driver, "layer", None).unwrap();
    let aside = driver.quarantined().unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].reason, "data without a record were in the way of a new layer of this id");
    assert_eq!(driver.restore(&aside[0]).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(bench.home().join("mnt/layer").is_dir());
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3]));

    remove(&driver, "layer").unwrap();
    drop(driver);
    let driver = bench.open();
    assert_eq!(driver.strays().unwrap(), [""; 0], "the device of what lies aside is known");
    create(&driver, "other", None).unwrap();
    assert!(!bench.metadata("other").unwrap().contains("\"device_id\": 2,"), "its id is not given again");
    driver.restore(&aside[0]).unwrap();
    assert!(driver.exists(&id("layer")).unwrap());
    assert!(bench.metadata("layer").unwrap().contains("\"device_id\": 2,"));
    assert_whole(&bench, &driver, "restored");
}

#[test]
fn what_lies_aside_is_deleted_only_when_it_is_given_up() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "layer", None).unwrap();
    let aside = driver.quarantine(&id("layer"), "for the test").unwrap().unwrap();
    assert_eq!(driver.quarantine(&id("layer"), "again").unwrap(), None);
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2]));
    driver.purge(&aside).unwrap().remove();
    assert_whole(&bench, &driver, "given up");
    assert_eq!(bench.pool_ids(), BTreeSet::from([1]));
}

#[test]
fn options_of_layers_are_checked_and_nothing_remains() {
    let bench = Bench::new();
    let driver = bench.open();
    let before = bench.names();
    let ask = |kind, key: &str, value: &str| {
        let storage_options = [(key.to_owned(), value.to_owned())];
        let layer = id("layer");
        driver
            .create(&NewLayer {
                id: &layer,
                parent: None,
                kind,
                storage_options: &storage_options,
                mount_label: None,
            })
            .unwrap_err()
    };
    let smaller = ask(LayerKind::ReadWrite, "size", "1G");
    assert_eq!(smaller.shown(), Some("Container size cannot be smaller than 10737418240"));
    assert_eq!(ask(LayerKind::ReadWrite, "foo", "1").kind(), ErrorKind::InvalidArgument);
    assert_eq!(ask(LayerKind::ReadOnly, "size", "20G").kind(), ErrorKind::InvalidArgument);
    let error = create(&driver, "layer", Some("nobody")).unwrap_err();
    assert!(error.report().starts_with("create layer layer: parent layer: layer nobody: no such layer"));
    assert_eq!(bench.names(), before);
    assert_eq!(bench.pool_ids(), BTreeSet::from([1]));
}

#[test]
fn a_full_pool_takes_no_layer_and_no_base() {
    let bench = Bench::new();
    let driver = bench.open();
    bench.dm.state.lock().pool.used_data = 901;
    let error = create(&driver, "layer", None).unwrap_err();
    assert!(error.is_no_space(), "{}", error.report());
    assert!(error.shown().unwrap().starts_with("devmapper: Thin Pool has 99 free data blocks"));
    bench.dm.state.lock().pool.used_data = 0;
    bench.dm.state.lock().pool.used_metadata = 4000;
    assert!(create(&driver, "layer", None).unwrap_err().shown().unwrap().contains("free metadata blocks"));
    drop(driver);
    let driver = bench.try_open(&["dm.thinpooldev=pool", "dm.min_free_space=0%"]).unwrap();
    create(&driver, "layer", None).unwrap();

    let full = Bench::new();
    full.dm.state.lock().pool.used_metadata = 4096;
    let error = full.try_open(&["dm.thinpooldev=pool"]).unwrap_err();
    assert!(error.is_no_space(), "{}", error.report());
    assert_eq!(full.pool_ids(), BTreeSet::new());
}

#[test]
fn the_status_has_the_lines_of_the_reference() {
    let bench = Bench::new();
    let driver = bench.open();
    let status = driver.status().unwrap();
    assert_eq!(status.driver_name, "devicemapper");
    assert_eq!(status.backing_fs, "tmpfs");
    let text = "Pool Name: pool\nPool Blocksize: 64.000KB\nBase Device Size: 10.000GB\nBacking Filesystem: ext4\n\
                Data file: (null)\nMetadata file: (null)\nData Space Used: 0B\nData Space Total: 62.500MB\n\
                Data Space Available: 62.500MB\nMetadata Space Used: 40.000KB\nMetadata Space Total: 16.000MB\n\
                Metadata Space Available: 15.961MB\nThin Pool Minimum Free Space: 6.250MB\n\
                Udev Sync Supported: true\nDeferred Removal Enabled: true\nDeferred Deletion Enabled: true\n\
                Deferred Deleted Device Count: 0\nLibrary Version: 4.47.0\nSemaphore Set Used: ";
    assert!(status.status.starts_with(text), "{}", status.status);
}

#[test]
fn a_layer_in_use_is_gone_at_once_and_its_device_later() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "layer", None).unwrap();
    let store = driver.store().unwrap();
    let record = store.layer(&id("layer")).unwrap();
    let device = store.device("layer");
    store.activate(&record, &mut device.lock()).unwrap();
    let name = store.prefix.device("layer");
    // Mounted in another mount namespace.
    bench.dm.state.lock().devices.get_mut(&name).unwrap().open = 1;

    remove(&driver, "layer").unwrap();
    assert!(bench.metadata("layer").unwrap().contains("\"deleted\": true"));
    assert!(!driver.exists(&id("layer")).unwrap());
    assert_eq!(driver.layers().unwrap(), []);
    assert_eq!(
        driver.mount(&id("layer"), LayerKind::ReadWrite, None).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(driver.status().unwrap().status.contains("Deferred Deleted Device Count: 1\n"));
    remove(&driver, "layer").unwrap();

    // The reference refuses the id until its thread is through.
    create(&driver, "layer", None).unwrap();
    assert!(driver.exists(&id("layer")).unwrap());
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2, 3]));
    let busy: Vec<String> =
        bench.dm.names().unwrap().into_iter().filter(|n| n.contains("container")).collect();
    assert!(busy.iter().all(|other| *other != name), "it has another name: {busy:?}");
    assert!(store.retry_deletions(), "somebody still uses it");

    for device in bench.dm.state.lock().devices.values_mut() {
        device.open = 0;
    }
    assert!(!store.retry_deletions());
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 3]));
    store.pool.close_probe();
    assert_whole(&bench, &driver, "gone");
}

#[test]
fn what_was_in_use_at_the_end_is_deleted_after_the_next_start() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "layer", None).unwrap();
    drop(driver);
    let text = bench.metadata("layer").unwrap().replace("\n}", ",\n    \"deleted\": true\n}");
    bench.write("layer", &text);
    let driver = bench.open();
    assert!(!driver.exists(&id("layer")).unwrap());
    driver.store().unwrap().retry_deletions();
    assert_whole(&bench, &driver, "deleted");
    assert_eq!(bench.pool_ids(), BTreeSet::from([1]));
}

#[test]
fn nothing_more_is_deleted_once_clean_up_has_begun() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "layer", None).unwrap();
    drop(driver);
    let text = bench.metadata("layer").unwrap().replace("\n}", ",\n    \"deleted\": true\n}");
    bench.write("layer", &text);
    let driver = bench.open();
    let store = driver.store().unwrap();
    store.stop_retrying();
    assert!(store.retry_deletions(), "it is left");
    assert_eq!(bench.pool_ids(), BTreeSet::from([1, 2]));
}

#[test]
fn the_thread_that_retries_ends_at_clean_up() {
    let bench = Bench::new();
    let driver = bench.open();
    create(&driver, "layer", None).unwrap();
    let store = driver.store().unwrap();
    let record = store.layer(&id("layer")).unwrap();
    store.activate(&record, &mut store.device("layer").lock()).unwrap();
    let name = store.prefix.device("layer");
    bench.dm.state.lock().devices.get_mut(&name).unwrap().open = 1;
    remove(&driver, "layer").unwrap();
    driver.clean_up().unwrap();
    // The thread had the store, too.
    assert_eq!(Arc::strong_count(&store), 1);
    store.delete_later();
    assert_eq!(Arc::strong_count(&store), 1, "and there is no new one");
}
