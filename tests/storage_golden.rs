// SPDX-License-Identifier: MulanPSL-2.0
//! Stores written by a real iSulad daemon, opened as a whole: a start finds nothing wrong with them and changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;
mod layers;
mod storages;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{loop_ext4, need_root};
use isula_storage::error::ErrorKind;
use isula_storage::storage::{Storage, StorageOptions};
use layers::unpack_golden;
use storages::{aside, containers, images, problems};

/// Every record and tar-split stream, by its path.
fn records(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if entry.file_name() != ".isula-storage" {
                    walk(&path, found);
                }
            } else {
                found.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    for store in ["layers", "images", "containers"] {
        walk(&root.join(format!("overlay-{store}")), &mut found);
    }
    found
}

fn options(root: &Path, run_root: &Path) -> StorageOptions {
    StorageOptions {
        driver: "overlay2".to_owned(),
        integration_check: true,
        ..StorageOptions::new(root, run_root)
    }
}

#[test]
fn a_start_finds_nothing_wrong_with_the_stores_of_isulad_and_changes_none_of_their_records() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(96 << 20);
    unpack_golden(&disk.path());
    for (tree, images_there, containers_there) in [("running", 1, 2), ("imported", 3, 0), ("fresh", 0, 0)] {
        let dir = disk.join(tree);
        let root = if tree == "fresh" { dir.clone() } else { dir.join("storage") };
        let run_root = dir.join("run");
        let before = records(&root);
        for _ in 0..2 {
            let storage = Storage::open(options(&root, &run_root)).unwrap();
            assert_eq!((problems(&storage), aside(&storage)), (vec![], vec![]), "{tree}");
            assert_eq!(
                (images(&storage).len(), containers(&storage).len()),
                (images_there, containers_there)
            );
            for container in containers(&storage) {
                let place = storage.mount_container(&container).unwrap();
                assert!(place.join("bin").is_dir(), "{tree}: {container}");
                storage.unmount_container(&container, true).unwrap();
            }
            storage.close().unwrap();
        }
        assert_eq!(records(&root).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{tree}");
        for (path, content) in records(&root) {
            assert!(content == before[&path], "{path} was changed");
        }
        let checked = fs::read_dir(&run_root).unwrap().flatten().find(|entry| {
            entry.file_name().to_string_lossy().len() == 64 + ".json".len() && entry.path().is_file()
        });
        let lines = checked.map_or(0, |list| fs::read_to_string(list.path()).unwrap().lines().count());
        assert_eq!(lines > 0, images_there > 0, "{tree}");

        // Everything can go again.
        let storage = Storage::open(options(&root, &run_root)).unwrap();
        for image in images(&storage) {
            if containers_there > 0 {
                let error = storage.delete_image(&image).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InUse, "{tree}");
                assert!(error.shown().unwrap().starts_with("Image used by "), "{tree}");
            }
            for container in containers(&storage) {
                assert!(storage.delete_container(&container).unwrap(), "{tree}");
            }
            assert!(storage.delete_image(&image).unwrap(), "{tree}");
        }
        assert_eq!(storage.layers().list(), [], "{tree}");
        storage.close().unwrap();
    }
}
