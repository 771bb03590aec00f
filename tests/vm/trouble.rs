// SPDX-License-Identifier: MulanPSL-2.0
//! Layers in use, growth that was interrupted, mounts that fail.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isula_storage::driver::GraphDriver;
use isula_storage::error::ErrorKind;
use isula_storage::sys::dm::{Dm, Target};

use crate::guest::Scenario;
use crate::layers;
use crate::scene::*;

pub const ALL: &[Scenario] = crate::scenarios! {
    a_layer_mounted_elsewhere_is_gone_at_once_and_its_device_later
    the_base_grows_and_layers_keep_their_size
    growth_that_was_interrupted_is_taken_up
    an_active_device_grows_too
    a_snapshot_of_a_mounted_layer_is_whole
    a_mount_that_fails_leaves_no_device_active
    a_foreign_device_is_not_touched
    devices_in_the_pool_that_nobody_knows_are_found
};

fn a_layer_mounted_elsewhere_is_gone_at_once_and_its_device_later() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "layer", None).unwrap();
    let rootfs = mount(&*driver, "layer");
    layers::write(rootfs.join("file"), "content");
    // A mount namespace of its own keeps what is mounted when it is made; the current directory keeps it also when the
    // mount point is removed, with which the kernel takes away what is mounted on it anywhere.
    let mut holder = Command::new("unshare")
        .args(["-m", "sh", "-c", "cd \"$0\" && echo ready; exec sleep 1000"])
        .arg(&rootfs)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let elsewhere = layers::read(format!("/proc/{}/mounts", holder.id()));
    assert!(elsewhere.contains("mnt/layer ext4"), "{elsewhere}");

    remove(&*driver, "layer");
    assert!(!driver.exists(&layers::id("layer")).unwrap() && !place.home().join("mnt/layer").exists());
    assert_eq!(pool.devices().len(), 1, "the other name space has it");
    assert!(layers::read(place.home().join("metadata/layer")).contains("\"deleted\": true"));
    create(&*driver, "layer", None).unwrap();
    assert_eq!(layers::names(&mount(&*driver, "layer")), [""; 0], "it is a new one");
    assert_eq!(pool.devices().len(), 2);
    unmount(&*driver, "layer");

    holder.kill().unwrap();
    holder.wait().unwrap();
    let start = Instant::now();
    while pool.devices().len() + std::fs::read_dir(place.home().join("metadata")).unwrap().count() > 4 {
        assert!(start.elapsed() < Duration::from_secs(120), "the thread that retries did not delete it");
        std::thread::sleep(Duration::from_millis(50));
    }
    driver.clean_up().unwrap();
    drop(driver);
    assert_eq!(pool.ids().len(), 2);
}

fn grown(driver: &dyn GraphDriver, name: &str) -> u64 {
    let size = size_of(&mount(driver, name));
    unmount(driver, name);
    size
}

fn the_base_grows_and_layers_keep_their_size() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "old", None).unwrap();
    drop(driver);
    let driver = place.try_driver(&["dm.basesize=192M"]).unwrap();
    create(&*driver, "new", None).unwrap();
    create(&*driver, "above", Some("old")).unwrap();
    assert!(layers::read(place.home().join("metadata/base")).contains("\"size\": 201326592"));
    assert!(grown(&*driver, "old") < BASE_BYTES && grown(&*driver, "above") < BASE_BYTES);
    assert!(grown(&*driver, "new") > 2 * BASE_BYTES);
    drop(driver);
    let error = place.try_driver(&[]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "it does not shrink: {}", error.report());
    assert_eq!(pool.devices(), [""; 0]);
}

/// The device has its new size, the file system the old one: the reference stays so for ever.
fn growth_that_was_interrupted_is_taken_up() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "layer", None).unwrap();
    layers::write(mount(&*driver, "layer").join("file"), "content");
    unmount(&*driver, "layer");
    drop(driver);
    for name in ["base", "layer"] {
        let file = place.home().join("metadata").join(name);
        layers::write(&file, &layers::read(&file).replace("67108864", "201326592"));
    }
    let driver = place.try_driver(&["dm.basesize=192M"]).unwrap();
    create(&*driver, "new", None).unwrap();
    assert!(grown(&*driver, "new") > 2 * BASE_BYTES, "the base was grown at the start");
    let rootfs = mount(&*driver, "layer");
    assert!(size_of(&rootfs) > 2 * BASE_BYTES, "the layer was grown when it was mounted");
    assert_eq!(layers::read(rootfs.join("file")), "content");
    unmount(&*driver, "layer");
    driver.clean_up().unwrap();
    assert_eq!(pool.devices(), [""; 0]);
}

/// The reference leaves the old table in use.
fn an_active_device_grows_too() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "layer", None).unwrap();
    let id = |metadata: &str| {
        let text = layers::read(place.home().join("metadata").join(metadata));
        text.split("\"device_id\": ").nth(1).unwrap().split(',').next().unwrap().to_owned()
    };
    let name = driver
        .metadata(&layers::id("layer"))
        .unwrap()
        .into_iter()
        .find(|(k, _)| *k == "DeviceName")
        .unwrap()
        .1;
    drop(driver);
    let file = place.home().join("metadata/layer");
    layers::write(&file, &layers::read(&file).replace("67108864", "201326592"));
    let driver = place.driver();
    let pool_device = pool.dm.info(POOL).unwrap().unwrap().device;
    let target = Target {
        start: 0,
        sectors: BASE_BYTES / 512,
        kind: "thin".into(),
        text: format!("{pool_device} {}", id("layer")),
    };
    pool.dm.create(&name).unwrap();
    pool.dm.load(&name, &target).unwrap();
    pool.dm.resume(&name).unwrap();
    assert!(grown(&*driver, "layer") > 2 * BASE_BYTES);
    driver.clean_up().unwrap();
    assert_eq!(pool.devices(), [""; 0]);
}

fn a_snapshot_of_a_mounted_layer_is_whole() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "layer", None).unwrap();
    let rootfs = mount(&*driver, "layer");
    for number in 0..5 {
        layers::write(rootfs.join(format!("file-{number}")), "content");
        let name = format!("snapshot-{number}");
        create(&*driver, &name, Some("layer")).unwrap();
        let seen = layers::names(&mount(&*driver, &name));
        assert_eq!(seen.len(), number + 1, "what was written before is there: {seen:?}");
        layers::write(rootfs.join("later"), "not stopped");
        std::fs::remove_file(rootfs.join("later")).unwrap();
        unmount(&*driver, &name);
    }
    driver.clean_up().unwrap();
    drop(driver);
    // It stays mounted, and the next start finds it so.
    assert_eq!((pool.devices().len(), place.mounts().len()), (1, 1));
    let driver = place.driver();
    assert!(driver.is_mounted(&layers::id("layer")).unwrap());
    unmount(&*driver, "layer");
    driver.clean_up().unwrap();
    assert_eq!((pool.devices(), place.mounts().len()), (Vec::<String>::new(), 0));
}

fn a_mount_that_fails_leaves_no_device_active() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.try_driver(&["dm.mountopt=nosuchoption"]).unwrap();
    create(&*driver, "layer", None).unwrap();
    let error =
        driver.mount(&layers::id("layer"), isula_storage::driver::LayerKind::ReadWrite, None).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL, "{}", error.report());
    assert!(driver.usage(&layers::id("layer")).is_err());
    assert_eq!((pool.devices(), place.mounts().len()), (Vec::<String>::new(), 0));
    drop(driver);
    let driver = place.try_driver(&["dm.mountopt=noatime,nodev"]).unwrap();
    let mnt = mount(&*driver, "layer").parent().unwrap().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(mnt.to_str().unwrap())).unwrap().to_owned();
    assert!(line.contains("nodev") && line.contains("noatime"), "{line}");
    // It lost its mount point; the reference cannot mount it any more.
    unmount(&*driver, "layer");
    std::fs::remove_dir(&mnt).unwrap();
    mount(&*driver, "layer");
    unmount(&*driver, "layer");
    driver.clean_up().unwrap();
}

fn a_foreign_device_is_not_touched() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "layer", None).unwrap();
    let name = driver
        .metadata(&layers::id("layer"))
        .unwrap()
        .into_iter()
        .find(|(k, _)| *k == "DeviceName")
        .unwrap()
        .1;
    drop(driver);
    // Another store's, whose inode number begins with ours; and one of our name with another table.
    let foreign = name.replace("-layer", "9-layer");
    pool.dm.create(&foreign).unwrap();
    let target = Target { start: 0, sectors: 8, kind: "zero".into(), text: String::new() };
    pool.dm.create(&name).unwrap();
    pool.dm.load(&name, &target).unwrap();
    pool.dm.resume(&name).unwrap();
    let driver = place.driver();
    let error =
        driver.mount(&layers::id("layer"), isula_storage::driver::LayerKind::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    assert_eq!(driver.remove(&layers::id("layer")).map(drop).unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(pool.dm.table(&name).unwrap(), [target]);
    let mut names = pool.devices();
    names.sort();
    assert_eq!(names, [name.clone(), foreign.clone()]);
    for device in [&foreign, &name] {
        pool.dm.remove(device, isula_storage::sys::dm::Removal::Now).unwrap();
    }
    remove(&*driver, "layer");
    driver.clean_up().unwrap();
}

fn devices_in_the_pool_that_nobody_knows_are_found() {
    let pool = Pool::new();
    let place = Place::new();
    let storage = place.storage();
    pool.dm.message(POOL, "create_thin 40").unwrap();
    let report = storage.check(false).unwrap();
    let found: Vec<String> = report.findings.iter().map(|f| format!("{}: {}", f.subject, f.reason)).collect();
    assert_eq!(
        found,
        ["driver devicemapper: thin pool pool has a device 40 that no layer of this store knows"]
    );
    pool.dm.message(POOL, "delete 40").unwrap();
    assert_eq!(storage.check(false).unwrap().findings, []);
    drop(storage);
}
