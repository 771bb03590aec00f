// SPDX-License-Identifier: MulanPSL-2.0
//! Images and containers on a thin pool, from their first layer to their last.

use std::path::Path;

use isula_storage::driver::LayerKind;
use isula_storage::storage::CreateContainer;

use crate::guest::Scenario;
use crate::scene::*;
use crate::{layers, storages};

pub const ALL: &[Scenario] = crate::scenarios! {
    a_mounted_layer_is_as_the_reference_mounts_it
    an_image_lives_through_the_tool
    containers_live_on_an_image
    a_container_has_the_size_it_asked_for
};

/// What concerns nodes and their making; afterwards no semaphore may be left.
pub const WITH_UDEV: &[Scenario] = crate::scenarios! {
    a_mounted_layer_is_as_the_reference_mounts_it
    containers_live_on_an_image
    a_container_has_the_size_it_asked_for
    no_semaphore_is_left
};

fn no_semaphore_is_left() {
    assert!(Path::new("/run/udev/control").exists(), "udevd does not run");
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    for number in 0..5 {
        let name = format!("layer-{number}");
        create(&*driver, &name, None).unwrap();
        mount(&*driver, &name);
        unmount(&*driver, &name);
        remove(&*driver, &name);
    }
    driver.clean_up().unwrap();
    assert_eq!(pool.devices(), [""; 0]);
    let left = || -> Vec<String> {
        let nodes = std::fs::read_dir("/dev/mapper").unwrap().map(|entry| entry.unwrap());
        let ours = nodes.filter(|node| node.file_name().to_string_lossy().starts_with("container-"));
        ours.map(|node| format!("{:?} {:?}", node.file_name(), node.file_type().unwrap())).collect()
    };
    // A device that went when a rule of udev closed it: nobody waits for its node.
    let mut tries = 0..200;
    while !left().is_empty() && tries.next().is_some() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(left(), [""; 0]);
    assert_eq!(semaphores(), 0, "{}", std::fs::read_to_string("/proc/sysvipc/sem").unwrap());
}

fn a_mounted_layer_is_as_the_reference_mounts_it() {
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "one", None).unwrap();
    create(&*driver, "two", Some("one")).unwrap();
    let rootfs = mount(&*driver, "one");
    assert_eq!(rootfs, place.home().join("mnt/one/rootfs"));
    let mnt = rootfs.parent().unwrap();
    assert_eq!(layers::read(mnt.join("id")), "one");
    assert_eq!(rustix::fs::statfs(mnt).unwrap().f_type, 0xef53);
    let name =
        driver.metadata(&layers::id("one")).unwrap().into_iter().find(|(k, _)| *k == "DeviceName").unwrap().1;
    assert_eq!(pool.devices(), [name.as_str()]);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = format!("/dev/mapper/{name} {} ext4 rw,", mnt.display());
    assert!(mounts.contains(&line), "{mounts}");
    assert_eq!(place.mounts(), [mnt]);

    // The root has the mode and the identity that it is given, and keeps them.
    layers::write(rootfs.join("file"), "content");
    unmount(&*driver, "one");
    assert_eq!((pool.devices().len(), place.mounts().len()), (0, 0));
    // A snapshot from before does not have it; a later one does.
    create(&*driver, "three", Some("one")).unwrap();
    let rootfs = mount(&*driver, "three");
    assert_eq!(layers::read(rootfs.join("file")), "content");
    assert_eq!(
        layers::read(rootfs.parent().unwrap().join("id")),
        "one",
        "it is carried on, as in the reference"
    );
    assert_eq!(layers::names(&mount(&*driver, "two")), [""; 0]);
    // An image layer is mounted read-only.
    let rootfs = driver.mount(&layers::id("one"), LayerKind::ReadOnly, None).unwrap();
    let error = std::fs::write(rootfs.join("x"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    for name in ["one", "two", "three"] {
        remove(&*driver, name);
    }
    assert_eq!(pool.devices(), [""; 0]);
    driver.clean_up().unwrap();
    drop(driver);
    assert_eq!(pool.ids(), [1]);
}

fn an_image_lives_through_the_tool() {
    let pool = Pool::new();
    let place = Place::new();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/bb.tar.gz");
    run(place.tool().arg("import").arg(&archive));
    let images: serde_json::Value =
        serde_json::from_str(&text(&run(place.tool().args(["--json", "images"])))).unwrap();
    let image = images[0]["id"].as_str().unwrap().to_owned();
    let listed: serde_json::Value =
        serde_json::from_str(&text(&run(place.tool().args(["--json", "layers"])))).unwrap();
    for layer in listed.as_array().unwrap() {
        let out = place.path().join("layer.tar");
        let id = layer["id"].as_str().unwrap();
        run(place.tool().args(["export", id, "-o"]).arg(&out));
        let sum = text(&run(std::process::Command::new("sha256sum").arg(&out)));
        let digest = layer["uncompressed_digest"].as_str().unwrap();
        assert_eq!(digest.strip_prefix("sha256:"), sum.split(' ').next(), "layer {id}");
        std::fs::remove_file(out).unwrap();
    }
    let mounted = text(&run(place.tool().args(["mount", &image])));
    let rootfs = Path::new(mounted.trim());
    assert!(rootfs.ends_with("rootfs") && rootfs.join("bin").exists(), "{mounted}");
    run(place.tool().args(["umount", &image]));
    let status = text(&run(place.tool().arg("status")));
    assert!(status.contains("devicemapper"), "{status}");
    run(place.tool().args(["check", "--deep"]));
    run(place.tool().args(["rmi", &image]));
    assert_eq!(pool.devices(), [""; 0]);
    drop(place);
    assert_eq!(pool.ids(), [1], "only the base is left");
}

fn containers_live_on_an_image() {
    let pool = Pool::new();
    let place = Place::new();
    let storage = place.storage();
    let made = storages::add_image(&storage, &["a", "b"], &["img:1"]);
    let one = storages::add_container(&storage, '1', "img:1");
    let two = storages::add_container(&storage, '2', "img:1");
    let own = |id: &str| {
        let all = [("a", "a"), ("b", "b"), ("own", id)];
        all.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect()
    };
    assert_eq!(storages::content(&storage, &one), own(&one));
    let (path, usage) = storage.container_usage(&one).unwrap().unwrap();
    assert!(path.starts_with(place.home()) && usage.bytes.0 > 0 && usage.inodes.0 == 4, "{usage:?}");
    let metadata = storage.container_metadata(&one).unwrap();
    assert_eq!(
        metadata.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        ["DeviceId", "DeviceSize", "DeviceName", "MergedDir"]
    );
    let mut tar = Vec::new();
    storage.layers().diff(&one, None, &mut tar).map(drop).unwrap();
    assert!(!tar.is_empty());

    // The daemon ends while a container is mounted, without a clean-up.
    storage.mount_container(&two).unwrap();
    drop(storage);
    let storage = place.storage();
    assert_eq!(storages::problems(&storage), [""; 0]);
    assert_eq!(storages::content(&storage, &two), own(&two));
    assert_eq!(storage.check(true).unwrap().findings, []);
    for container in [&one, &two] {
        assert!(storage.delete_container(container).unwrap());
    }
    storage.remove_image(&made.id).map(drop).unwrap();
    assert_eq!(storages::layers(&storage), [""; 0]);
    drop(storage);
    assert_eq!((place.mounts().len(), pool.devices()), (0, Vec::<String>::new()));
    drop(place);
    assert_eq!(pool.ids(), [1]);
}

fn a_container_has_the_size_it_asked_for() {
    let _pool = Pool::new();
    let place = Place::new();
    let storage = place.storage();
    storages::add_image(&storage, &["a"], &["img:1"]);
    let sized = |digit, size: &str| CreateContainer {
        storage_options: vec![("size".to_owned(), size.to_owned())],
        ..storages::container(digit, "img:1")
    };
    storage.create_container(&storages::container('1', "img:1")).unwrap();
    storage.create_container(&sized('2', "160M")).unwrap();
    let error = storage.create_container(&sized('3', "1M")).unwrap_err();
    let text = format!("Container size cannot be smaller than {BASE_BYTES}");
    assert_eq!(error.shown(), Some(text.as_str()), "{}", error.report());
    assert_eq!(storages::containers(&storage).len(), 2);

    let small = size_of(&storage.mount_container(&storages::id('1')).unwrap());
    let place_of_large = storage.mount_container(&storages::id('2')).unwrap();
    let large = size_of(&place_of_large);
    assert!(small < BASE_BYTES && large > 2 * BASE_BYTES && large <= 160 << 20, "{small} {large}");
    let limit = fill(&place_of_large.join("fill"));
    assert_eq!(limit, libc::ENOSPC);
    assert!(place_of_large.join("fill").metadata().unwrap().len() > 2 * BASE_BYTES);
    drop(storage);
    // The limit is the file system's own, and so there after a restart.
    let storage = place.storage();
    assert_eq!(size_of(&storage.mount_container(&storages::id('2')).unwrap()), large);
    storage.unmount_container(&storages::id('2'), true).unwrap();
    for digit in ['1', '2'] {
        assert!(storage.delete_container(&storages::id(digit)).unwrap());
    }
}
