// SPDX-License-Identifier: MulanPSL-2.0
//! What the reference does wrong with images and containers, where no other test shows the better outcome. The numbers are
//! those of `docs/known-problems-of-the-reference.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod cli_support;

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use cli_support::common::{TestRoot, need_root};
use cli_support::golden_image;
use isula_storage::id::ContainerId;
use isula_storage::image::MANIFEST;
use isula_storage::storage::{CreateContainer, Durability, ImportOptions, Storage, StorageOptions};

const IMAGE: &str = "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";

fn open(root: &TestRoot) -> Storage {
    Storage::open(StorageOptions {
        durability: Durability::None,
        ..StorageOptions::new(root.join("root"), root.join("run"))
    })
    .unwrap()
}

/// A storage with one image and one container.
fn storage(root: &TestRoot) -> Storage {
    let storage = open(root);
    storage.import(&golden_image("bb.tar.gz"), ImportOptions::default()).unwrap();
    let container = CreateContainer {
        id: ContainerId::new(&"c".repeat(64)).unwrap(),
        image: IMAGE.to_owned(),
        mount_label: None,
        storage_options: Vec::new(),
    };
    storage.create_container(&container).unwrap();
    storage
}

/// 2. The reference stores data, then what is recorded of them; a crash in between, and nobody ever notices.
#[test]
fn data_that_differ_from_their_record_are_reported_and_storing_them_again_heals() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("differ");
    let storage = storage(&root);
    let manifest = storage.images().big_data(IMAGE, MANIFEST).unwrap();
    storage.close().unwrap();
    let mut newer = manifest.clone();
    newer.push(b'\n');
    std::fs::write(root.join("root/overlay-images").join(IMAGE).join(MANIFEST), &newer).unwrap();

    let storage = open(&root);
    assert_eq!(storage.images().big_data(IMAGE, MANIFEST).unwrap(), newer, "what is there is returned");
    let found = storage.check(false).unwrap().findings;
    let [finding] = <[_; 1]>::try_from(found).unwrap();
    assert_eq!(finding.subject, format!("image {IMAGE}"));
    assert_eq!(
        finding.reason,
        format!("big data \"manifest\" has {} bytes, recorded are {}", newer.len(), manifest.len())
    );
    storage.images().set_big_data(IMAGE, MANIFEST, &manifest).unwrap();
    assert_eq!(storage.check(false).unwrap().findings, []);
    storage.close().unwrap();
}

/// 18. In the reference, whoever gets an image takes a lock that the image's own functions take again.
#[test]
fn who_reads_an_image_waits_for_nobody() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("read");
    let storage = storage(&root);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(storage.images().get(IMAGE).unwrap().id.as_deref(), Some(IMAGE));
                        storage.images().config(IMAGE).unwrap();
                        storage.images().summary(IMAGE).unwrap();
                    }
                })
            })
            .collect();
        for number in 0..50 {
            storage.images().add_name(IMAGE, &format!("localhost/name:{number}")).unwrap();
            storage.images().set_metadata(IMAGE, "text").unwrap();
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    storage.close().unwrap();
}

/// 25, 28. In the reference the empty name means the only image, or the whole store.
#[test]
fn an_empty_or_short_name_deletes_nothing() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("short");
    let storage = storage(&root);
    for name in ["", "1", "11", "c", "cc", "/", ".", "..", "../x"] {
        assert!(!storage.delete_image(name).unwrap_or(false), "image {name:?}");
        assert!(!storage.images().delete(name).unwrap_or(false), "image {name:?}");
        assert!(!storage.delete_container(name).unwrap_or(false), "container {name:?}");
        assert!(!storage.containers().unwrap().delete(name).unwrap_or(false), "container {name:?}");
        storage.layers().delete(name).unwrap();
    }
    assert_eq!(storage.images().count().unwrap(), 1);
    assert_eq!(storage.containers().unwrap().list().unwrap().len(), 1);
    assert_eq!(storage.layers().list().len(), 3);
    assert_eq!(storage.check(true).unwrap().findings, []);
    storage.close().unwrap();
}

/// 26. The reference loads what a link with such a name leads to, and a deletion empties it.
#[test]
fn a_link_with_the_name_of_an_image_is_neither_followed_nor_removed() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("link");
    storage(&root).close().unwrap();
    let place = root.join("root/overlay-images").join(IMAGE);
    let target = root.join("elsewhere");
    std::fs::rename(&place, &target).unwrap();
    symlink(&target, &place).unwrap();

    let storage = open(&root);
    assert!(!storage.images().exists(IMAGE));
    assert!(storage.images().problems().iter().any(|problem| problem.subject.contains(IMAGE)));
    assert!(!storage.delete_image(IMAGE).unwrap());
    storage.images().wipe().unwrap();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 3, "nothing there was touched");
    // Making the image again takes its place, and the link is kept.
    storage.import(&golden_image("bb.tar.gz"), ImportOptions::default()).unwrap();
    assert!(storage.images().exists(IMAGE));
    let [put] = <[_; 1]>::try_from(storage.images().quarantined().unwrap()).unwrap();
    assert_eq!(std::fs::read_link(put.path).unwrap(), target);
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 3);
    storage.close().unwrap();
}
