// SPDX-License-Identifier: MulanPSL-2.0
//! What is mounted, and how it shows.

use std::path::Path;

use crate::common::{TestRoot, need_root};
use crate::layers::{Tar, container_layer, create, id, image_layer, metadata, names, read, tree};
use isula_storage::driver::LayerKind;
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;

use crate::common;
use crate::{open, shows_all_three, three_layers, try_open};

/// Attributes below a directory that only the kernel's overlay writes.
fn kernel_attributes(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = tree(dir).into_keys().collect::<Vec<_>>();
    names.push(String::new());
    for name in names {
        let mut buffer = vec![0; 4096];
        let size = rustix::fs::llistxattr(dir.join(&name), &mut buffer[..]).unwrap();
        let text = String::from_utf8(buffer[..size].to_vec()).unwrap();
        found.extend(
            text.split_terminator('\0')
                .filter(|a| a.starts_with("trusted.overlay."))
                .map(|a| format!("{name}: {a}")),
        );
    }
    found
}

#[test]
fn looking_into_an_image_layer_leaves_nothing_on_it() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("pure");
    let driver = open(root.path());
    let [one, two, three] = three_layers(&*driver);
    let home = root.join("overlay");
    let before = tree(&home);
    for layer in [&one, &two] {
        let path = driver.mount(layer, LayerKind::ReadOnly, None).unwrap();
        assert!(driver.is_mounted(layer).unwrap());
        assert_eq!(read(path.join("d/one")), "1");
        let error = std::fs::File::create(path.join("new")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        driver.unmount(layer).unwrap();
        assert_eq!(kernel_attributes(&home.join(layer)), Vec::<String>::new());
    }
    assert_eq!(tree(&home), before);
    shows_all_three(&*driver, &three);
}

#[test]
fn the_mount_table_shows_lower_layers_as_the_daemon_mounts_them() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("table");
    let driver = open(root.path());
    let [_, _, three] = three_layers(&*driver);
    let path = driver.mount(&three, LayerKind::ReadWrite, None).unwrap();
    let home = root.join("overlay");
    let lower = metadata(&*driver, &three, "LowerDir").unwrap().display().to_string();
    assert!(lower.starts_with(&format!("{}/l/", home.display())));
    let table = read("/proc/self/mounts");
    let line = table.lines().find(|line| line.split(' ').nth(1) == path.to_str()).unwrap();
    let options: Vec<_> = line.split(' ').nth(3).unwrap().split(',').collect();
    // A kernel that was given the lower layers one by one shows them as `lowerdir+`.
    let shown: Vec<_> = options
        .iter()
        .filter_map(|option| option.strip_prefix("lowerdir=").or_else(|| option.strip_prefix("lowerdir+=")))
        .collect();
    assert_eq!(shown.join(":"), lower);
    for (key, name) in [("upperdir", "diff"), ("workdir", "work")] {
        let option = format!("{key}={}", home.join("three").join(name).display());
        assert!(options.contains(&option.as_str()), "{option}: {options:?}");
    }
    assert!(line.starts_with("overlay "));
}

#[test]
fn mount_options_of_the_daemon_reach_the_kernel() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mountopt");
    let driver = try_open(root.path(), &["overlay2.mountopt=nodev,index=off,volatile"]).unwrap();
    let [_, _, three] = three_layers(&*driver);
    let path = driver.mount(&three, LayerKind::ReadWrite, None).unwrap();
    let table = read("/proc/self/mounts");
    let line = table.lines().find(|line| line.split(' ').nth(1) == path.to_str()).unwrap();
    let shown: Vec<_> = line.split([' ', ',']).collect();
    assert!(shown.contains(&"nodev"), "{line}");
    assert!(shown.contains(&"volatile") || shown.contains(&"fsync=volatile"), "{line}");
    driver.unmount(&three).unwrap();
    drop(driver);

    let driver = try_open(root.path(), &["overlay2.mountopt=no_such_option"]).unwrap();
    let error = driver.mount(&three, LayerKind::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Os(libc::EINVAL));
    assert!(error.report().starts_with("mount layer three: "), "{}", error.report());
    assert!(!driver.is_mounted(&three).unwrap());
}

#[test]
fn something_else_on_the_mount_point_is_not_taken_for_the_layer() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("foreign");
    let driver = open(root.path());
    let layer = id("layer");
    container_layer(&*driver, &layer, None);
    let merged = driver.mount_path(&layer);
    common::run(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&merged));
    let error = driver.mount(&layer, LayerKind::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    driver.unmount(&layer).unwrap();
    driver.mount(&layer, LayerKind::ReadWrite, None).unwrap();
}

/// Since Linux 6.7 lower directories are given one by one; before, all of them have to fit into one page.
fn kernel_takes_lowers_one_by_one() -> bool {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

#[test]
fn a_chain_longer_than_the_reference_takes_is_mounted() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("deep");
    let driver = open(root.path());
    let shows = |layer: &LayerId, kind: LayerKind, files: usize| {
        let path = driver.mount(layer, kind, None).unwrap_or_else(|error| panic!("{}", error.report()));
        assert_eq!(names(&path).len(), files);
        assert_eq!(read(path.join("last")), (files - 2).to_string());
        driver.unmount(layer).unwrap();
    };
    let mut parent = None;
    for number in 0..500 {
        let layer = id(&format!("{number:064x}"));
        let last = number.to_string();
        let tar = Tar::new().file(&format!("f{number}"), b"").file("last", last.as_bytes()).finish();
        image_layer(&*driver, &layer, parent.as_ref(), &tar);
        // The reference ends at 128 lower layers.
        if [127, 128, 129].contains(&number) {
            shows(&layer, LayerKind::ReadOnly, number + 2);
            let container = id(&format!("container-{number}"));
            container_layer(&*driver, &container, Some(&layer));
            shows(&container, LayerKind::ReadWrite, number + 2);
        }
        parent = Some(layer);
    }
    let parent = parent.unwrap();
    let container = id("container");
    container_layer(&*driver, &container, Some(&parent));
    driver.validate(&container, Some(&parent)).unwrap();
    if kernel_takes_lowers_one_by_one() {
        shows(&parent, LayerKind::ReadOnly, 501);
        shows(&container, LayerKind::ReadWrite, 501);
    } else {
        let error = driver.mount(&container, LayerKind::ReadWrite, None).unwrap_err();
        assert!(error.report().contains("500 lower directories make "), "{}", error.report());
        assert!(!driver.is_mounted(&container).unwrap());
    }

    let before = tree(&root.join("overlay"));
    for kind in [LayerKind::ReadOnly, LayerKind::ReadWrite] {
        let below = if kind == LayerKind::ReadOnly { Some(&parent) } else { Some(&container) };
        let error = create(&*driver, &id("too-much"), below, kind).unwrap_err();
        assert_eq!(error.report(), "create layer too-much: 501 lower layers: an overlay takes 500 at most");
    }
    assert_eq!(tree(&root.join("overlay")), before);
}
