// SPDX-License-Identifier: MulanPSL-2.0
//! What only the kernel understands of a container's directory: it is compared as the kernel shows it.

use std::os::unix::fs::PermissionsExt;

use isula_storage::driver::{self, DriverOptions, GraphDriver, LayerKind};
use isula_storage::error::ErrorKind;

use crate::archive_common::{Tree, differences, tree};
use crate::common::{self, TestRoot};
use crate::layers::{self, Tar, container_layer, id, image_layer};

fn shown(driver: &dyn GraphDriver, layer: &str) -> Tree {
    let root = driver.mount(&id(layer), LayerKind::ReadOnly, None).unwrap();
    let seen = tree(&root);
    driver.unmount(&id(layer)).unwrap();
    seen
}

#[test]
fn renamed_directories_and_files_with_metadata_only_are_compared_as_they_are_shown() {
    if !common::need_root() {
        return;
    }
    let disk = common::loop_ext4(32 << 20);
    let root = TestRoot::in_memory("diff");
    for (mountopt, plain) in [("redirect_dir=on,metacopy=on", false), ("redirect_dir=nofollow", true)] {
        let place = disk.path().join(if plain { "plain" } else { "redirecting" });
        std::fs::create_dir(&place).unwrap();
        let options = DriverOptions {
            options: vec![format!("overlay2.mountopt={mountopt}")],
            ..layers::options(&place, "overlay2")
        };
        let driver = driver::open(&options).unwrap();
        let tar = Tar::new().dir("a/").dir("a/b/").file("a/b/f", b"f").file("content", &[7; 50_000]);
        image_layer(&*driver, &id("image"), None, &tar.finish());
        container_layer(&*driver, &id("container"), Some(&id("image")));
        let merged = driver.mount(&id("container"), LayerKind::ReadWrite, None).unwrap();
        // mv(1) copies where rename(2) cannot.
        common::run(std::process::Command::new("mv").arg(merged.join("a")).arg(merged.join("moved")));
        std::fs::set_permissions(merged.join("content"), PermissionsExt::from_mode(0o600)).unwrap();
        let seen = tree(&merged);
        driver.unmount(&id("container")).unwrap();

        let mut archive = Vec::new();
        let image = id("image");
        match driver.diff(&id("container"), Some(&image), &mut archive) {
            Err(error) if error.kind() == ErrorKind::Unsupported && !plain => {
                assert!(archive.is_empty());
                eprintln!("skipped: {}", error.report());
                continue;
            }
            diffed => drop(diffed.unwrap_or_else(|error| panic!("{}", error.report()))),
        }
        let changes = driver.changes(&id("container"), Some(&image)).unwrap();
        let mut paths: Vec<_> =
            changes.into_iter().map(|change| String::from_utf8(change.path).unwrap()).collect();
        paths.retain(|path| path != "content");
        assert_eq!(paths, ["a", "moved", "moved/b", "moved/b/f"]);
        image_layer(&*driver, &id("copy"), Some(&image), &archive);
        let found = differences(&seen, &shown(&*driver, "copy"));
        assert!(found.is_empty(), "{}", found.join("\n"));
        driver.clean_up().unwrap();
    }
    drop(root);
}

/// Without leave to follow such marks the kernel shows nothing wrong, and neither do we.
#[test]
fn marks_that_the_mount_may_not_follow_are_an_error() {
    if !common::need_root() {
        return;
    }
    let root = TestRoot::in_memory("diff");
    let options = DriverOptions {
        options: vec!["overlay2.mountopt=redirect_dir=nofollow,metacopy=off".to_owned()],
        ..layers::options(root.path(), "overlay2")
    };
    let driver = driver::open(&options).unwrap();
    image_layer(&*driver, &id("image"), None, &Tar::new().dir("a/").file("a/f", b"secret").finish());
    container_layer(&*driver, &id("container"), Some(&id("image")));
    let upper = layers::metadata(&*driver, &id("container"), "UpperDir").unwrap();
    std::fs::create_dir(upper.join("b")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(upper.join("b"), "trusted.overlay.redirect", b"/a", flags).unwrap();
    let mut archive = Vec::new();
    let diffed = driver.diff(&id("container"), Some(&id("image")), &mut archive);
    assert!(diffed.is_err(), "{diffed:?}");
}
