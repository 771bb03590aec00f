// SPDX-License-Identifier: MulanPSL-2.0
//! The home: its mount, its options, its owner, what it refuses.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crate::common::{TestRoot, need_root};
use crate::layers::{self, Tar, container_layer, create, id, read, tree, write};
use isula_storage::archive::OwnerShift;
use isula_storage::driver::{self, DriverOptions, LayerKind, Limits, NewLayer};
use isula_storage::error::ErrorKind;
use rustix::mount::MountFlags;

use crate::common;
use crate::{open, shows_all_three, three_layers, try_open};

#[test]
fn the_home_is_bound_on_itself_and_released_when_nothing_is_mounted_below() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("home");
    let home = root.join("overlay");
    let driver = open(root.path());
    assert_eq!(common::mounts_below(&home), std::slice::from_ref(&home));
    let container = id("container");
    container_layer(&*driver, &container, None);
    let merged = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    write(merged.join("file"), "content");
    driver.clean_up().unwrap();
    assert_eq!(
        common::mounts_below(&home),
        [merged.clone(), home.clone()],
        "a running container keeps its mount"
    );
    assert_eq!(read(merged.join("file")), "content");

    let driver = open(root.path());
    assert_eq!(common::mounts_below(&home), [merged.clone(), home.clone()], "not bound twice");
    assert!(driver.is_mounted(&container).unwrap());
    assert_eq!(driver.mount(&container, LayerKind::ReadWrite, None).unwrap(), merged);
    driver.unmount(&container).unwrap();
    driver.clean_up().unwrap();
    assert_eq!(
        common::mounts_below(&home),
        Vec::<PathBuf>::new(),
        "also a bind of an earlier process is released"
    );

    let driver = try_open(root.path(), &["overlay2.skip_mount_home=true"]).unwrap();
    assert_eq!(common::mounts_below(&home), Vec::<PathBuf>::new());
    shows_all_three(&*driver, &three_layers(&*driver)[2]);
    driver.remove(&id("three")).unwrap().remove();
    driver.clean_up().unwrap();
}

#[test]
fn a_file_system_mounted_on_the_home_stays() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("disk");
    let home = root.join("overlay");
    std::fs::create_dir(&home).unwrap();
    common::run(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&home));
    let driver = open(root.path());
    shows_all_three(&*driver, &three_layers(&*driver)[2]);
    driver.clean_up().unwrap();
    assert_eq!(common::mounts_below(&home), [home]);
}

#[test]
fn a_failed_start_leaves_no_mount() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("failed");
    let error = try_open(root.path(), &["overlay2.size=10G"]).err().unwrap();
    assert_eq!(
        error.report(),
        "open overlay driver: --storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option"
    );
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(common::mounts_below(root.path()), Vec::<PathBuf>::new());
    let error = try_open(root.path(), &["overlay2.nonsense=1"]).err().unwrap();
    assert_eq!(error.report(), "open overlay driver: overlay2: unknown option: 'overlay2.nonsense=1'");
    try_open(root.path(), &["overlay2.size=0", "overlay2.override_kernel_check=1"]).unwrap();
}

#[test]
fn a_size_for_a_container_is_refused_in_the_words_of_the_reference() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("size");
    let driver = open(root.path());
    let layer = id("layer");
    let new = NewLayer {
        id: &layer,
        parent: None,
        kind: LayerKind::ReadWrite,
        storage_options: &[("size".to_owned(), "1G".to_owned())],
        mount_label: None,
    };
    let text = "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option";
    let error = driver.create(&new).unwrap_err();
    assert_eq!(error.shown(), Some(text));
    assert_eq!(error.report(), format!("create layer layer: {text}"));
}

#[test]
fn an_archive_goes_only_into_an_empty_layer() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("filled");
    let driver = open(root.path());
    let [one, _, _] = three_layers(&*driver);
    let before = tree(&root.join("overlay"));
    let tar = Tar::new().file("again", b"").finish();
    let error = driver.apply(&one, &mut &tar[..], &mut Vec::new(), &Limits::default()).unwrap_err();
    assert_eq!(error.report(), "layer one has content already");
    assert_eq!(tree(&root.join("overlay")), before);
}

#[test]
fn a_home_on_an_overlay_is_refused() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("nested");
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    let place = root.path().display();
    let options = format!("lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work");
    common::run(
        std::process::Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(root.join("merged")),
    );
    let error = try_open(&root.join("merged"), &[]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let expected = format!(
        "open overlay driver: overlay layers cannot lie on overlayfs ({place}/merged/overlay); use ext4 or xfs"
    );
    assert_eq!(error.report(), expected);
}

#[test]
fn status_is_told_in_the_words_of_the_reference() {
    if !need_root() {
        return;
    }
    let disk = common::loop_ext4(16 << 20);
    for name in ["overlay", "overlay2"] {
        let driver = layers::open(&disk.path(), name);
        assert_eq!(driver.name(), name);
        let status = driver.status().unwrap();
        assert_eq!((status.driver_name.as_str(), status.backing_fs.as_str()), (name, "extfs"));
        assert_eq!(status.status, "Backing Filesystem: extfs\nSupports d_type: true\n");
        assert!(disk.join("overlay/l").is_dir(), "both names share one home");
    }
}

#[test]
fn directories_belong_to_the_root_of_the_user_namespace() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("remap");
    let shift = OwnerShift { uid: 100_000, gid: 200_000 };
    let options = DriverOptions { owner_shift: Some(shift), ..layers::options(root.path(), "overlay") };
    let driver = driver::open(&options).unwrap();
    let [one, two, _] = three_layers(&*driver);
    std::fs::remove_dir(root.join("overlay/two/work")).unwrap();
    driver.validate(&two, Some(&one)).unwrap();
    let home = root.join("overlay");
    let mut owners = BTreeMap::new();
    owners.insert("overlay".to_owned(), home.metadata().unwrap());
    for name in [
        "l",
        "one",
        "one/diff",
        "one/work",
        "one/merged",
        "one/empty",
        "one/link",
        "one/diff/top",
        "two/lower",
        "two/work",
    ] {
        owners.insert(name.to_owned(), home.join(name).metadata().unwrap());
    }
    for (name, metadata) in owners {
        let expected = match name.as_str() {
            "one/empty" | "one/link" | "two/lower" => (0, 0),
            _ => (100_000, 200_000),
        };
        assert_eq!((metadata.uid(), metadata.gid()), expected, "{name}");
    }
}

#[test]
fn reserved_names_are_no_layers() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("reserved");
    let driver = open(root.path());
    let [_, _, three] = three_layers(&*driver);
    let before = tree(&root.join("overlay"));
    for name in ["l", "backingFsBlockDev", "RO"] {
        let error = create(&*driver, &id(name), None, LayerKind::ReadWrite).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
        driver.remove(&id(name)).unwrap().remove();
        assert_eq!(driver.quarantine(&id(name), "why").unwrap(), None);
        assert!(!driver.exists(&id(name)).unwrap());
        assert_eq!(
            driver.mount(&id(name), LayerKind::ReadWrite, None).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    assert_eq!(tree(&root.join("overlay")), before);
    shows_all_three(&*driver, &three);
}

#[test]
fn nothing_remains_of_a_layer_that_could_not_be_made() {
    if !need_root() {
        return;
    }
    let disk = common::loop_ext4(4 << 20);
    let driver = open(&disk.path());
    let base = id("base");
    container_layer(&*driver, &base, None);
    // No inode is left: directories and links fail at one point or another as they are given back one by one.
    let mut fillers = Vec::new();
    while std::fs::create_dir(disk.join(format!("filler-{}", fillers.len()))).is_ok() {
        fillers.push(disk.join(format!("filler-{}", fillers.len())));
    }
    let before = tree(&disk.join("overlay"));
    let layer = id("layer");
    let mut failures = 0;
    loop {
        match create(&*driver, &layer, Some(&base), LayerKind::ReadWrite) {
            Ok(()) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Os(libc::ENOSPC), "{}", error.report());
                assert_eq!(tree(&disk.join("overlay")), before);
                assert!(
                    std::fs::read_dir(disk.join("overlay/.isula-storage/staging")).unwrap().next().is_none()
                );
                failures += 1;
                std::fs::remove_dir(fillers.pop().unwrap()).unwrap();
            }
        }
    }
    assert!(failures >= 4, "{failures}");
    driver.validate(&layer, Some(&base)).unwrap();
}

#[test]
fn the_mode_of_an_existing_home_is_left_alone() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mode");
    let home = root.join("overlay");
    std::fs::create_dir_all(home.join("l")).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o711)).unwrap();
    drop(open(root.path()));
    assert_eq!(home.metadata().unwrap().mode() & 0o7777, 0o711);
    assert_eq!(home.join("l").metadata().unwrap().mode() & 0o7777, 0o700);
}

/// Neither refused nor taken by its name: either it carries layers, or the reason is told and nothing stays mounted.
#[test]
fn a_file_system_that_is_not_known_to_carry_layers_is_tried_out() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("tried");
    let mount = |options| rustix::mount::mount("none", root.path(), "ramfs", options, None);
    if mount(MountFlags::empty()).is_err() {
        return; // this kernel has none
    }
    std::fs::create_dir(root.join("store")).unwrap();
    match try_open(&root.join("store"), &[]) {
        Ok(driver) => {
            assert_eq!(driver.status().unwrap().backing_fs, "ramfs");
            container_layer(&*driver, &id("layer"), None);
            write(driver.mount(&id("layer"), LayerKind::ReadWrite, None).unwrap().join("file"), "file");
            driver.unmount(&id("layer")).unwrap();
            assert_eq!(read(root.join("store/overlay/layer/diff/file")), "file");
            driver.clean_up().unwrap();
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.report());
            assert!(error.report().contains("does not carry overlay layers"), "{}", error.report());
        }
    }
    assert_eq!(common::mounts_below(&root.join("store")), Vec::<PathBuf>::new());
}
