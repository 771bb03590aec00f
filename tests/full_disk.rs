// SPDX-License-Identifier: MulanPSL-2.0
//! A disk without a free block: whoever opens a store then wants to delete from it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;
mod images;
mod layers;

use std::io::Write;
use std::path::Path;

use common::{LoopExt4, loop_ext4, need_root};
use images::{ids, open_as, sample};
use isula_storage::driver::Limits;
use isula_storage::id::ContainerId;
use isula_storage::layer::{CreateLayer, LayerStore, LayerStoreOptions};
use isula_storage::persist::{Durability, Ownership};
use isula_storage::rootfs::{CreateRootfs, RootfsStore, RootfsStoreOptions};
use layers::{Tar, id};

/// Takes every free block.
fn fill(disk: &LoopExt4) {
    let mut file = std::fs::File::create(disk.join("filling")).unwrap();
    for size in [1 << 20, 1 << 10] {
        let piece = vec![1u8; size];
        let error = loop {
            if let Err(error) = file.write_all(&piece) {
                break error;
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
    file.sync_all().unwrap();
    let full = std::fs::write(disk.join("probe"), "x").unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
}

fn open_layers(disk: &LoopExt4, driver: &str) -> LayerStore {
    LayerStore::open(LayerStoreOptions {
        root: disk.join("root"),
        run_root: disk.join("run"),
        driver: driver.to_owned(),
        driver_options: Vec::new(),
        durability: Durability::Full,
        ownership: Ownership::Owner,
        owner_shift: None,
        limits: Limits::default(),
    })
    .unwrap_or_else(|error| panic!("{driver}: {}", error.report()))
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// The process id in a lock file and a trial of the file system kept a layer store from opening on a full disk.
#[test]
fn a_layer_store_on_a_full_disk_opens_and_deletes() {
    if !need_root() {
        return;
    }
    for driver in ["overlay2", "vfs"] {
        let disk = loop_ext4(16 << 20);
        let names = ["a", "b"].map(|digit| id(&digit.repeat(64)));
        let store = open_layers(&disk, driver);
        for name in &names {
            let tar = Tar::new().file("large", &vec![7; 1 << 20]).finish();
            store.create(name, &CreateLayer::default(), Some(&mut &tar[..])).unwrap();
        }
        drop(store);
        fill(&disk);
        let store = open_layers(&disk, driver);
        assert_eq!(store.list().len(), 2, "{driver}");
        store.delete(names[0].as_str()).unwrap_or_else(|error| panic!("{driver}: {}", error.report()));
        store.close().unwrap();
        std::fs::write(disk.join("probe"), "there is room again").unwrap();
        let store = open_layers(&disk, driver);
        assert_eq!(store.list().len(), 1, "{driver}");
        assert!(store.problems().is_empty(), "{driver}: {:?}", store.problems());
    }
}

/// The counter by which others see a change needed a block of its own.
#[test]
fn an_image_store_on_a_full_disk_opens_and_deletes_and_others_see_it() {
    if !need_root() {
        return;
    }
    for ownership in [Ownership::Owner, Ownership::Shared] {
        let disk = loop_ext4(16 << 20);
        let dir = disk.join("images");
        let store = open_as(&dir, ownership);
        let (one, two) = (sample(1), sample(2));
        one.store(&store, &["one:1"]);
        two.store(&store, &["two:1"]);
        drop(store);
        fill(&disk);
        let store = open_as(&dir, ownership);
        let reader = open_as(&dir, Ownership::ReadOnly);
        assert_eq!(ids(&reader).len(), 2);
        let deleted = store.delete(&one.id);
        assert!(deleted.unwrap_or_else(|error| panic!("{ownership:?}: {}", error.report())), "{ownership:?}");
        assert_eq!(ids(&reader), std::slice::from_ref(&two.id), "{ownership:?}");
        assert_eq!(entries(&dir.join(".isula-storage/trash")), 0);
    }
}

#[test]
fn a_rootfs_store_on_a_full_disk_opens_and_deletes() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(16 << 20);
    let open = || {
        RootfsStore::open(RootfsStoreOptions {
            dir: disk.join("overlay-containers"),
            ownership: Ownership::Owner,
            durability: Durability::Full,
        })
        .unwrap_or_else(|error| panic!("{}", error.report()))
    };
    let ids = ["a", "b", "c"].map(|digit| digit.repeat(64));
    let store = open();
    for id in &ids {
        let container = Some(ContainerId::new(id).unwrap());
        store.create(&CreateRootfs { id: container, layer: id.clone(), ..CreateRootfs::default() }).unwrap();
    }
    drop(store);
    fill(&disk);
    let store = open();
    assert_eq!(store.list().unwrap().len(), 3);
    assert!(store.delete(&ids[0]).unwrap_or_else(|error| panic!("{}", error.report())));
    let removal = store.begin_removal(&ids[1]).unwrap_or_else(|error| panic!("{}", error.report()));
    removal.unwrap().finish().unwrap_or_else(|error| panic!("{}", error.report()));
    drop(store);
    let store = open();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(store.problems().is_empty() && store.unfinished().is_empty(), "{:?}", store.problems());
}
