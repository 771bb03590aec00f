// SPDX-License-Identifier: MulanPSL-2.0
//! Limits of containers on overlay, by the project quotas of xfs and of ext4.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use isula_storage::driver::{self, LayerKind, NewLayer};
use isula_storage::storage::{CreateContainer, Storage, StorageOptions};
use isula_storage::sys::fs::Dir;
use isula_storage::sys::quota::{Kernel, Project, Quotas, State};
use isula_storage::units::Bytes;

use crate::disk::*;
use crate::guest::Scenario;
use crate::scene::{TOOL, mount, remove, run, size_of, text, unmount};
use crate::{layers, storages};

pub const ALL: &[Scenario] = crate::scenarios! {
    a_limited_container_gets_no_more_than_its_size
    a_full_container_can_be_mounted_again_and_emptied
    all_of_a_layer_is_of_one_project_from_the_start
    usage_comes_from_the_counters_of_the_file_system
    limits_survive_a_restart_and_are_listed
    limits_go_with_their_layers_and_nothing_is_reported_then
    stores_in_two_processes_and_strangers_share_no_project
    layers_come_and_go_in_a_home_that_has_a_project
    a_home_that_was_given_a_project_later_goes_on
    a_quota_that_is_switched_off_later_refuses_sizes_only
    where_no_quota_is_enforced_sizes_are_refused
    without_quotactl_fd_the_device_node_is_used
    what_the_reference_limited_is_freed_unless_others_have_it
    a_default_size_is_that_of_each_container
    the_c_interface_limits_containers
};

const TEXT: &str = "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option";

pub fn storage(disk: &Disk, store: &str, options: &[&str]) -> Storage {
    let options = StorageOptions {
        driver_options: options.iter().map(ToString::to_string).collect(),
        ..storages::options(&disk.place.join(store), "overlay2")
    };
    Storage::open(options).unwrap_or_else(|error| panic!("{}", error.report()))
}

fn container(digit: char, image: &str, size: Option<&str>) -> CreateContainer {
    let storage_options = size.map(|size| ("size".to_owned(), size.to_owned())).into_iter().collect();
    CreateContainer { storage_options, ..storages::container(digit, image) }
}

fn on_both(scenario: fn(&Disk)) {
    for kind in Kind::BOTH {
        println!("    on {}", kind.name());
        scenario(&Disk::new(kind));
    }
}

fn a_limited_container_gets_no_more_than_its_size() {
    on_both(|disk| {
        let storage = storage(disk, "store", &[]);
        let image = storages::add_image(&storage, &["file"], &["image"]);
        let image = image.id.to_string();
        storage.create_container(&container('a', &image, Some("12M"))).unwrap();
        storage.create_container(&container('b', &image, None)).unwrap();
        let place = storage.mount_container(&storages::id('a')).unwrap();
        assert_eq!(size_of(&place), 12 * MIB, "what the container sees as its disk");
        let (errno, written) = fill(&place.join("big"));
        assert_eq!(errno, disk.kind.full());
        assert!((10 * MIB..=12 * MIB).contains(&written), "{written}");
        // Nor by another way.
        let error = std::fs::write(place.join("more"), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(disk.kind.full()));
        for name in layers::names(&place).into_iter().filter(|name| name != "file") {
            std::fs::remove_file(place.join(name)).unwrap();
        }
        // A file of the image is copied up, and directories are replaced, within the limit.
        std::fs::write(place.join("file"), "changed").unwrap();
        std::fs::create_dir_all(place.join("dir/dir")).unwrap();
        std::fs::rename(place.join("dir"), place.join("other")).unwrap();
        std::fs::remove_dir_all(place.join("other")).unwrap();

        let free = storage.mount_container(&storages::id('b')).unwrap();
        std::fs::write(free.join("big"), vec![0x5a; 20 << 20]).unwrap();
        for digit in ['a', 'b'] {
            storage.unmount_container(&storages::id(digit), true).unwrap();
            assert!(storage.delete_container(&storages::id(digit)).unwrap());
        }
        assert_eq!(disk.limits(), BTreeMap::new());
        assert!(storage.check(true).unwrap().findings.is_empty());
    });
}

fn a_full_container_can_be_mounted_again_and_emptied() {
    on_both(|disk| {
        let driver = disk.driver("store");
        limited(&*driver, "one", Some("8M")).unwrap();
        let limits = disk.limits();
        let place = mount(&*driver, "one");
        assert_eq!(fill(&place.join("big")).0, disk.kind.full());
        // To the last block.
        let mut number = 0;
        while std::fs::write(place.join(format!("small-{number}")), "x").is_ok() {
            number += 1;
        }
        unmount(&*driver, "one");
        let place = mount(&*driver, "one");
        assert_eq!(disk.limits(), limits);
        // Full still, and not read-only.
        let error = std::fs::write(place.join("more"), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(disk.kind.full()));
        std::fs::remove_file(place.join("big")).unwrap();
        layers::write(place.join("file"), "content");
        unmount(&*driver, "one");
        driver.clean_up().unwrap();
    });
}

fn all_of_a_layer_is_of_one_project_from_the_start() {
    on_both(|disk| {
        let driver = disk.driver("store");
        limited(&*driver, "one", Some("5M")).unwrap();
        let home = Disk::home("store");
        let id = disk.project(format!("{home}/one"));
        assert!(id >= 1 << 20, "{id}");
        let quotas = disk.quotas();
        for name in ["", "diff", "work", "merged", "empty"] {
            let dir = Dir::open(&disk.place.join(&home).join("one").join(name)).unwrap();
            assert_eq!(quotas.project(&dir).unwrap(), Project { id, inherited: true }, "{name}");
        }
        // The directory itself, those four and the file `link`.
        assert_eq!(quotas.record(id).unwrap().used.inodes.0, 6);
        assert_eq!(disk.limits(), BTreeMap::from([(id, 5 << 10)]));
        assert_eq!(disk.ledger("store"), [id.to_string()]);
        assert_eq!(quotas.project(&Dir::open(&disk.place.join(&home)).unwrap()).unwrap().id, 0);
        // An odd size is whole KiB.
        limited(&*driver, "two", Some("1048577")).unwrap();
        assert_eq!(limit(&*driver, "two"), Some(Bytes(MIB)));
        let node = std::fs::symlink_metadata(disk.place.join(home).join("backingFsBlockDev")).unwrap();
        assert!(node.file_type().is_block_device() && node.permissions().mode() & 0o7777 == 0o600);
    });
}

fn usage_comes_from_the_counters_of_the_file_system() {
    on_both(|disk| {
        let driver = disk.driver("store");
        limited(&*driver, "one", Some("50M")).unwrap();
        limited(&*driver, "free", None).unwrap();
        let place = mount(&*driver, "one");
        layers::write(place.join("file"), &"x".repeat(3 << 20));
        // Takes no blocks, and a walk would count it all.
        std::fs::File::create(place.join("hole")).unwrap().set_len(1 << 40).unwrap();
        (0..100).for_each(|number| layers::write(place.join(format!("small-{number}")), ""));
        rustix::fs::sync();
        let (path, usage) = driver.usage(&layers::id("one")).unwrap().unwrap();
        let layer = disk.place.join(Disk::home("store")).join("one");
        assert_eq!(path, layer.join("diff"));
        assert!((3 * MIB..3 * MIB + MIB).contains(&usage.bytes.0), "{usage:?}");
        let found = text(&run(Command::new("find").arg(&layer).arg("-xdev")));
        assert_eq!(usage.inodes.0, u64::try_from(found.lines().count()).unwrap());
        let (_, usage) = driver.usage(&layers::id("free")).unwrap().unwrap();
        assert_eq!(usage.inodes.0, 1);
        unmount(&*driver, "one");
    });
}

fn tool(disk: &Disk, arguments: &[&str]) -> serde_json::Value {
    let place = disk.place.join("store");
    let mut command = Command::new(TOOL);
    command.arg("--root").arg(place.join("root")).arg("--run-root").arg(place.join("run"));
    let output = run(command.args(["--driver", "overlay2", "--json"]).args(arguments));
    serde_json::from_str(&text(&output)).unwrap()
}

fn limits_survive_a_restart_and_are_listed() {
    on_both(|disk| {
        let id = {
            let storage = storage(disk, "store", &[]);
            let image = storages::add_image(&storage, &["file"], &["image"]);
            storage.create_container(&container('a', image.id.as_str(), Some("8M"))).unwrap();
            storage.create_container(&container('b', image.id.as_str(), None)).unwrap();
            assert_eq!(
                storage.layers().limit(&layers::id(&storages::id('a'))).unwrap(),
                Some(Bytes(8 * MIB))
            );
            // Beside the process that owns the store.
            let listed = tool(disk, &["layers"]);
            let limits: Vec<_> =
                listed.as_array().unwrap().iter().map(|layer| layer["limit"].as_u64()).collect();
            assert_eq!(limits.iter().flatten().collect::<Vec<_>>(), [&(8 * MIB)], "{listed}");
            disk.limits().into_keys().next().unwrap()
        };
        disk.remount(disk.kind.option());
        assert_eq!(disk.limits(), BTreeMap::from([(id, 8 << 10)]));
        let storage = storage(disk, "store", &[]);
        assert_eq!(disk.limits(), BTreeMap::from([(id, 8 << 10)]));
        let layer = tool(disk, &["inspect", &storages::id('a')]);
        assert_eq!(layer["limit"], 8 * MIB, "{layer}");
        assert_eq!(tool(disk, &["inspect", &storages::id('b')]).get("limit"), None);
        let place = storage.mount_container(&storages::id('a')).unwrap();
        assert_eq!(fill(&place.join("big")).0, disk.kind.full());
        storage.unmount_container(&storages::id('a'), true).unwrap();
        let checked = tool(disk, &["check"]);
        assert_eq!(checked["findings"], serde_json::json!([]), "{checked}");
    });
}

fn limits_go_with_their_layers_and_nothing_is_reported_then() {
    on_both(|disk| {
        let driver = disk.driver("store");
        for round in 0..3 {
            for number in 0..10 {
                let name = format!("layer-{number}");
                limited(&*driver, &name, Some("5M")).unwrap();
                let place = mount(&*driver, &name);
                // Many files, which xfs frees in the background.
                (0..50).for_each(|file| layers::write(place.join(format!("file-{file}")), "content"));
            }
            assert_eq!(disk.limits().len(), 10);
            for number in 0..10 {
                remove(&*driver, &format!("layer-{number}"));
            }
            assert_eq!(disk.limits(), BTreeMap::new(), "round {round}");
            assert_eq!(disk.ledger("store"), [""; 0]);
        }
        // A file that is still open belongs to its project, and is limited with it.
        limited(&*driver, "open", Some("5M")).unwrap();
        let place = mount(&*driver, "open");
        layers::write(place.join("file"), "content");
        unmount(&*driver, "open");
        let id = disk.project(format!("{}/open/diff", Disk::home("store")));
        let file = std::fs::File::open(disk.place.join(Disk::home("store")).join("open/diff/file")).unwrap();
        remove(&*driver, "open");
        assert_eq!(disk.limits(), BTreeMap::from([(id, 5 << 10)]));
        assert_eq!(driver.strays().unwrap().len(), 1);
        drop(file);
        drop(driver);
        let driver = disk.driver("store");
        assert_eq!((disk.limits(), disk.ledger("store").len()), (BTreeMap::new(), 0));
        driver.clean_up().unwrap();
    });
}

fn child(deed: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["deed", "--exact", "--nocapture", "--test-threads=1"]);
    command.env("VM_DEED", deed).env("VM_PLACE", place).stdin(Stdio::null());
    command
}

fn stores_in_two_processes_and_strangers_share_no_project() {
    on_both(|disk| {
        let quotas = disk.quotas();
        // One that is in use, one that only has a limit.
        let strangers = disk.place.join("strangers");
        std::fs::create_dir(&strangers).unwrap();
        quotas.set_project(&Dir::open(&strangers).unwrap(), Project { id: 1, inherited: true }).unwrap();
        quotas.set_limit(1, Bytes(MIB)).unwrap();
        quotas.set_limit(2, Bytes(MIB)).unwrap();
        let children: Vec<_> = ["a", "b"]
            .map(|store| child("quota:many", &disk.place.join(store)).stdout(Stdio::null()).spawn().unwrap())
            .into();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let mut ids = BTreeSet::from([1, 2]);
        for store in ["a", "b"] {
            for number in 0..MANY {
                let id = disk.project(format!("{}/layer-{number}", Disk::home(store)));
                assert!(ids.insert(id), "{id} twice");
                // The next of the other store would like to have it: a stranger takes those that come next.
                assert!(id >= 1 << 20);
            }
        }
        assert_eq!(disk.limits().into_keys().collect::<BTreeSet<_>>(), ids);
        let next = ids.last().unwrap() + 1;
        quotas.set_limit(next, Bytes(MIB)).unwrap();
        for store in ["a", "b"] {
            let driver = disk.driver(store);
            limited(&*driver, "last", Some("5M")).unwrap();
            let id = disk.project(format!("{}/last", Disk::home(store)));
            assert!(id != next && !ids.contains(&id), "{id}");
            for layer in driver.layers().unwrap() {
                remove(&*driver, layer.as_str());
            }
            driver.clean_up().unwrap();
        }
        drop(["a", "b"].map(|store| disk.driver(store)));
        assert_eq!(disk.limits().into_keys().collect::<Vec<_>>(), [1, 2, next]);
    });
}

const MANY: usize = 20;

/// What a process of its own does.
pub fn do_deed(deed: &str, place: &Path) {
    let options = layers::options(&place.join("root"), "overlay2");
    let driver = driver::open(&options).unwrap_or_else(|error| panic!("{}", error.report()));
    match deed {
        "many" => {
            for number in 0..MANY {
                limited(&*driver, &format!("layer-{number}"), Some("5M"))
                    .unwrap_or_else(|error| panic!("{}", error.report()));
            }
        }
        "create" => limited(&*driver, "new", Some("5M")).unwrap(),
        "remove" => remove(&*driver, "new"),
        "refused" => {
            assert_eq!(limited(&*driver, "new", Some("5M")).unwrap_err().shown(), Some(TEXT));
            limited(&*driver, "free", None).unwrap();
        }
        other => panic!("{other}"),
    }
    driver.clean_up().unwrap();
}

/// A directory becomes part of a project, with a limit.
fn give_project(disk: &Disk, dir: &Path, id: u32) {
    let quotas = disk.quotas();
    quotas.set_project(&Dir::open(dir).unwrap(), Project { id, inherited: true }).unwrap();
    quotas.set_limit(id, Bytes(100 * MIB)).unwrap();
}

fn live_in_a_project(disk: &Disk) {
    let image = {
        let storage = storage(disk, "store", &[]);
        let image = storages::add_image(&storage, &["one", "two"], &["image"]);
        storage.create_container(&container('a', image.id.as_str(), Some("8M"))).unwrap();
        storage.create_container(&container('b', image.id.as_str(), None)).unwrap();
        image.id.to_string()
    };
    // After a start as well.
    let storage = storage(disk, "store", &[]);
    let home = Disk::home("store");
    assert_eq!(disk.project(format!("{home}/{}/diff", storages::id('b'))), 77);
    let own = disk.project(format!("{home}/{}/diff", storages::id('a')));
    assert_eq!(disk.project(format!("{home}/{}", storages::id('a'))), own);
    assert_eq!(disk.limits(), BTreeMap::from([(77, 100 << 10), (own, 8 << 10)]));
    for digit in ['a', 'b'] {
        let place = storage.mount_container(&storages::id(digit)).unwrap();
        assert_eq!(layers::read(place.join("one")), "one");
        std::fs::write(place.join("one"), "changed").unwrap();
        std::fs::remove_file(place.join("two")).unwrap();
        std::fs::create_dir_all(place.join("dir/dir")).unwrap();
        std::fs::rename(place.join("dir"), place.join("other")).unwrap();
        if digit == 'a' {
            assert_eq!(fill(&place.join("big")).0, disk.kind.full());
            std::fs::remove_file(place.join("big")).unwrap();
        }
        storage.unmount_container(&storages::id(digit), true).unwrap();
    }
    let layers = storage.layers();
    for digit in ['a', 'b'] {
        let id = layers::id(&storages::id(digit));
        layers.quarantine(id.as_str(), "doubt").unwrap();
        layers.restore(&id).unwrap();
        let place = storage.mount_container(id.as_str()).unwrap();
        assert_eq!(layers::read(place.join("one")), "changed");
        storage.unmount_container(id.as_str(), true).unwrap();
    }
    assert_eq!(disk.project(format!("{home}/{}", storages::id('a'))), own);
    // What was lost of it is made again as part of it.
    std::fs::remove_dir_all(disk.place.join(&home).join(storages::id('a')).join("work")).unwrap();
    let place = storage.mount_container(&storages::id('a')).unwrap();
    std::fs::create_dir(place.join("new")).unwrap();
    std::fs::remove_dir(place.join("new")).unwrap();
    storage.unmount_container(&storages::id('a'), true).unwrap();
    for digit in ['a', 'b'] {
        assert!(storage.delete_container(&storages::id(digit)).unwrap());
    }
    storage.remove_image(&image).unwrap();
    assert_eq!(disk.limits(), BTreeMap::from([(77, 100 << 10)]));
    assert!(storage.check(true).unwrap().findings.is_empty());
}

fn layers_come_and_go_in_a_home_that_has_a_project() {
    on_both(|disk| {
        let home = disk.place.join(Disk::home("store"));
        std::fs::create_dir_all(&home).unwrap();
        give_project(disk, &home, 77);
        live_in_a_project(disk);
    });
}

fn a_home_that_was_given_a_project_later_goes_on() {
    on_both(|disk| {
        let driver = disk.driver("store");
        limited(&*driver, "old", Some("5M")).unwrap();
        limited(&*driver, "free", None).unwrap();
        driver.clean_up().unwrap();
        drop(driver);
        give_project(disk, &disk.place.join(Disk::home("store")), 77);
        let driver = disk.driver("store");
        for name in ["old", "free"] {
            let aside = driver.quarantine(&layers::id(name), "doubt").unwrap().unwrap();
            driver.restore(&aside).unwrap();
            layers::write(mount(&*driver, name).join("file"), "content");
            unmount(&*driver, name);
            remove(&*driver, name);
        }
        driver.clean_up().unwrap();
        drop(driver);
        live_in_a_project(disk);
    });
}

fn a_quota_that_is_switched_off_later_refuses_sizes_only() {
    on_both(|disk| {
        let switch = |on: bool| match disk.kind {
            Kind::Xfs => {
                let command = if on { "enable -p" } else { "disable -p" };
                run(Command::new("xfs_quota").args(["-x", "-c", command]).arg(&disk.place));
            }
            Kind::Ext4 => {
                run(Command::new(if on { "quotaon" } else { "quotaoff" }).arg("-P").arg(&disk.place));
            }
        };
        let driver = disk.driver("store");
        for name in ["one", "two", "three"] {
            limited(&*driver, name, Some("5M")).unwrap();
        }
        switch(false);
        let error = limited(&*driver, "new", Some("5M")).unwrap_err();
        assert_eq!((error.shown(), error.errno()), (Some(TEXT), libc::EOPNOTSUPP), "{}", error.report());
        assert!(error.report().contains("project quota was switched off"), "{}", error.report());
        assert!(!driver.exists(&layers::id("new")).unwrap());
        limited(&*driver, "new", None).unwrap();
        remove(&*driver, "one");
        assert!(driver.usage(&layers::id("two")).unwrap().is_some());
        switch(true);
        limited(&*driver, "newer", Some("5M")).unwrap();
        assert_eq!(disk.limits().len(), 3, "two, three, newer");
        driver.clean_up().unwrap();
        drop(driver);

        // A whole life without.
        disk.remount("noquota");
        let driver = disk.driver("store");
        assert_eq!(limited(&*driver, "none", Some("5M")).unwrap_err().shown(), Some(TEXT));
        assert_eq!(limit(&*driver, "two"), None);
        assert!(driver.usage(&layers::id("two")).unwrap().is_some());
        layers::write(mount(&*driver, "two").join("file"), "content");
        unmount(&*driver, "two");
        remove(&*driver, "two");
        driver.clean_up().unwrap();
        drop(driver);
        disk.remount(disk.kind.option());
        let driver = disk.driver("store");
        assert_eq!(disk.limits().len(), 2, "three, newer");
        assert_eq!(limit(&*driver, "three"), Some(Bytes(5 * MIB)));
        driver.clean_up().unwrap();
    });
}

fn where_no_quota_is_enforced_sizes_are_refused() {
    let refused = |disk: &Disk, what: &str| {
        let error = driver::open(&disk.options("sized", &["overlay2.size=5M"])).err().unwrap();
        assert_eq!(error.report(), format!("open overlay driver: {TEXT}"), "{what}");
        let driver = disk.driver("store");
        let error = limited(&*driver, "one", Some("5M")).unwrap_err();
        assert_eq!(error.shown(), Some(TEXT), "{what}");
        limited(&*driver, "one", None).unwrap();
        assert_eq!(disk.ledger("store"), [""; 0]);
        driver.clean_up().unwrap();
    };
    Kind::Xfs.make();
    for option in ["noquota", "pqnoenforce", "uquota"] {
        refused(&Disk::existing(Kind::Xfs, option), option);
    }
    Kind::Ext4.make();
    // It counts, but refuses nothing.
    let disk = Disk::existing(Kind::Ext4, "defaults");
    assert_eq!(disk.quotas().state().unwrap(), State { accounted: true, enforced: false });
    refused(&disk, "without prjquota");
    drop(disk);
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&crate::scene::disks()[1]));
    refused(&Disk::existing(Kind::Ext4, "defaults"), "without the feature");
}

fn without_quotactl_fd_the_device_node_is_used() {
    on_both(|disk| {
        let on_an_old_kernel = |deed: &str| {
            let place = disk.place.join("store");
            let mut command = Command::new("strace");
            command.args(["-qqq", "-f", "-o", "/dev/null", "-e", "trace=quotactl_fd"]);
            command.args(["-e", "inject=quotactl_fd:error=ENOSYS"]).arg(std::env::current_exe().unwrap());
            command.args(["deed", "--exact", "--nocapture", "--test-threads=1"]);
            run(command.env("VM_DEED", deed).env("VM_PLACE", place));
        };
        on_an_old_kernel("quota:create");
        assert_eq!(disk.limits().into_values().collect::<Vec<_>>(), [5 << 10]);
        let node = disk.place.join(Disk::home("store"));
        let kernel = Kernel::by_node(&Dir::open(&node).unwrap(), "backingFsBlockDev").unwrap();
        assert_eq!(kernel.state().unwrap(), State { accounted: true, enforced: true });
        drop(kernel);
        on_an_old_kernel("quota:remove");
        assert_eq!((disk.limits(), disk.ledger("store").len()), (BTreeMap::new(), 0));
        // A mount with nodev opens no devices: then only the call that needs none will do.
        disk.remount(&format!("{},nodev", disk.kind.option()));
        on_an_old_kernel("quota:refused");
        let driver = disk.driver("store");
        limited(&*driver, "one", Some("5M")).unwrap();
        assert_eq!(limit(&*driver, "one"), Some(Bytes(5 * MIB)));
        driver.clean_up().unwrap();
    });
}

fn what_the_reference_limited_is_freed_unless_others_have_it() {
    on_both(|disk| {
        let driver = disk.driver("store");
        let quotas = disk.quotas();
        let home = disk.place.join(Disk::home("store"));
        for (name, id) in [("one", 1), ("two", 2)] {
            limited(&*driver, name, None).unwrap();
            for part in ["", "diff", "work", "merged", "empty"] {
                let dir = Dir::open(&home.join(name).join(part)).unwrap();
                quotas.set_project(&dir, Project { id, inherited: true }).unwrap();
            }
            quotas.set_limit(id, Bytes(5 * MIB)).unwrap();
            assert_eq!(limit(&*driver, name), Some(Bytes(5 * MIB)));
        }
        let other = disk.place.join("other");
        std::fs::create_dir(&other).unwrap();
        quotas.set_project(&Dir::open(&other).unwrap(), Project { id: 2, inherited: true }).unwrap();
        for name in ["one", "two"] {
            layers::write(mount(&*driver, name).join("file"), "content");
            remove(&*driver, name);
        }
        assert_eq!(disk.limits(), BTreeMap::from([(2, 5 << 10)]));
        driver.clean_up().unwrap();
    });
}

fn a_default_size_is_that_of_each_container() {
    on_both(|disk| {
        for (number, key) in ["overlay2.size", "overlay2.basesize"].into_iter().enumerate() {
            let store = format!("store-{number}");
            let storage = storage(disk, &store, &[&format!("{key}=6M")]);
            let image = storages::add_image(&storage, &["file"], &["image"]);
            storage.create_container(&container('a', image.id.as_str(), None)).unwrap();
            storage.create_container(&container('b', image.id.as_str(), Some("7M"))).unwrap();
            let place = storage.mount_container(&storages::id('a')).unwrap();
            assert_eq!((size_of(&place), fill(&place.join("big")).0), (6 * MIB, disk.kind.full()));
            storage.unmount_container(&storages::id('a'), true).unwrap();
            let limit = |id: &str| storage.layers().limit(&layers::id(id)).unwrap();
            assert_eq!(limit(&storages::id('b')), Some(Bytes(7 * MIB)));
            assert_eq!(limit(image.top().as_str()), None, "image layers are not limited");
            let read_only = layers::id("read-only");
            let layer = NewLayer {
                id: &read_only,
                parent: None,
                kind: LayerKind::ReadOnly,
                storage_options: &[("size".to_owned(), "5M".to_owned())],
                mount_label: None,
            };
            let error = storage.layers().driver().create(&layer).unwrap_err();
            assert!(error.report().ends_with("--storage-opt size is only supported for ReadWrite Layers"));
        }
    });
}

#[allow(unsafe_code, reason = "as a daemon calls it")]
fn the_c_interface_limits_containers() {
    use isula_storage::ffi::{layer_store, storage as c, storage_rootfs, types};
    use std::ffi::{CStr, CString, c_char};
    use std::ptr::{null, null_mut};
    on_both(|disk| {
        let image = {
            let storage = storage(disk, "store", &[]);
            storages::add_image(&storage, &["file"], &["image"]).id.to_string()
        };
        let text = |text: &str| CString::new(text).unwrap();
        let place = disk.place.join("store");
        let (root, run) =
            (text(place.join("root").to_str().unwrap()), text(place.join("run").to_str().unwrap()));
        let (driver, id, image) = (text("overlay2"), text(&storages::id('a')), text(&image));
        let (key, value) = (text("size"), text("9M"));
        // SAFETY: zero is a value of these structs; every pointer below is to something that lives long enough.
        unsafe {
            let mut options: types::CStorageModuleInitOptions = std::mem::zeroed();
            options.storage_root = root.as_ptr().cast_mut();
            options.storage_run_root = run.as_ptr().cast_mut();
            options.driver_name = driver.as_ptr().cast_mut();
            assert_eq!(c::storage_module_init(&raw mut options), 0);
            let (mut keys, mut values): ([*mut c_char; 1], [*mut c_char; 1]) =
                ([key.as_ptr().cast_mut()], [value.as_ptr().cast_mut()]);
            let mut map: types::CJsonMapStringString = std::mem::zeroed();
            (map.keys, map.values, map.len) = (keys.as_mut_ptr(), values.as_mut_ptr(), 1);
            let mut mountpoint = null_mut();
            let made = storage_rootfs::storage_rootfs_create(
                id.as_ptr(),
                image.as_ptr(),
                null(),
                &raw mut map,
                &raw mut mountpoint,
            );
            assert_eq!(made, 0);
            libc::free(mountpoint.cast());
            assert_eq!(disk.limits().into_values().collect::<Vec<_>>(), [9 << 10]);
            let mut limit = 0;
            assert_eq!(layer_store::isula_storage_layer_limit(id.as_ptr(), &raw mut limit), 0);
            assert_eq!(limit, 9 * MIB);
            let absent = text(&storages::id('f'));
            assert_eq!(layer_store::isula_storage_layer_limit(absent.as_ptr(), &raw mut limit), -1);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOENT));
            let mounted = storage_rootfs::storage_rootfs_mount(id.as_ptr());
            assert!(!mounted.is_null());
            let path = CStr::from_ptr(mounted).to_str().unwrap().to_owned();
            libc::free(mounted.cast());
            let (errno, written) = fill(&Path::new(&path).join("big"));
            assert_eq!(errno, disk.kind.full());
            let mut info: types::CImagetoolFsInfo = std::mem::zeroed();
            assert_eq!(layer_store::layer_store_get_layer_fs_info(id.as_ptr(), &raw mut info), 0);
            let used = (*(**info.image_filesystems).used_bytes).value;
            assert!((written..=9 * MIB).contains(&used), "{used}");
            isula_storage::ffi::free::isula_storage_clear_imagetool_fs_info(&raw mut info);
            assert_eq!(storage_rootfs::storage_rootfs_umount(id.as_ptr(), true), 0);
            assert_eq!(storage_rootfs::storage_rootfs_delete(id.as_ptr()), 0);
            assert_eq!(disk.limits(), BTreeMap::new());
            let key = text("sise");
            let mut keys = [key.as_ptr().cast_mut()];
            map.keys = keys.as_mut_ptr();
            let made = storage_rootfs::storage_rootfs_create(
                id.as_ptr(),
                image.as_ptr(),
                null(),
                &raw mut map,
                null_mut(),
            );
            assert_eq!((made, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EINVAL)));
            assert_eq!(c::storage_module_exit(), ());
        }
    });
}
