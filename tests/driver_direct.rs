// SPDX-License-Identifier: MulanPSL-2.0
//! A driver that is used past the layer store: alone, and while the store is open.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;
mod layers;

use std::io::Read;
use std::path::Path;
use std::thread;

use common::{TestRoot, need_root};
use isula_storage::driver::{LayerKind, Limits, MountOptions, NewLayer};
use isula_storage::error::{ErrorKind, Result};
use isula_storage::id::LayerId;
use isula_storage::layer::{CreateLayer, Direct, LayerStore, LayerStoreOptions, LoneDriver};
use isula_storage::persist::{Durability, Ownership};
use layers::{Tar, id, names, read, tree, write};

fn alone(root: &Path, name: &str) -> LoneDriver {
    LoneDriver::open(&layers::options(root, name)).unwrap()
}

fn store(root: &Path, name: &str) -> LayerStore {
    LayerStore::open(LayerStoreOptions {
        root: root.to_owned(),
        run_root: root.join("run"),
        driver: name.to_owned(),
        driver_options: Vec::new(),
        durability: Durability::Full,
        ownership: Ownership::Owner,
        owner_shift: None,
        limits: Limits::default(),
    })
    .unwrap()
}

fn create(driver: &Direct<'_>, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
    driver.create(&NewLayer {
        id,
        parent,
        kind: LayerKind::ReadWrite,
        storage_options: &[],
        mount_label: None,
    })
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// The reference takes a directory over with what it holds.
#[test]
fn a_layer_that_is_there_is_not_made_again_and_what_is_none_is_put_aside() {
    let root = TestRoot::in_memory("direct-again");
    let lone = alone(root.path(), "vfs");
    let driver = lone.direct();
    create(&driver, &id("one"), None).unwrap();
    write(root.join("vfs/dir/one/mine"), "mine");
    let before = tree(&root.join("vfs"));
    assert_eq!(kind(create(&driver, &id("one"), None)), ErrorKind::AlreadyExists);
    assert_eq!(tree(&root.join("vfs")), before);
    if !need_root() {
        return;
    }
    let lone = alone(root.path(), "overlay");
    let driver = lone.direct();
    std::fs::create_dir(root.join("overlay/two")).unwrap();
    write(root.join("overlay/two/what"), "what");
    create(&driver, &id("two"), None).unwrap();
    assert!(driver.exists(&id("two")).unwrap());
    let aside = root.join("overlay/.isula-storage/quarantine");
    assert!(names(&aside).iter().any(|name| name.ends_with("/what")), "{:?}", names(&aside));
}

#[test]
fn a_layer_that_others_stand_on_is_not_removed_past_the_store() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("direct-remove");
    let (one, two, three) = (id("one"), id("two"), id("three"));
    {
        let lone = alone(root.path(), "overlay");
        let driver = lone.direct();
        create(&driver, &one, None).unwrap();
        create(&driver, &two, Some(&one)).unwrap();
        create(&driver, &three, Some(&two)).unwrap();
        assert_eq!(kind(driver.remove(&one)), ErrorKind::InUse);
    }
    // Nobody remembers, but the layers tell.
    let lone = alone(root.path(), "overlay");
    let driver = lone.direct();
    let before = tree(&root.join("overlay"));
    assert_eq!(kind(driver.remove(&one)), ErrorKind::InUse);
    assert_eq!(kind(driver.remove(&two)), ErrorKind::InUse);
    assert_eq!(tree(&root.join("overlay")), before);
    // What a layer with a broken list stands on is not known.
    let lower = std::fs::read_to_string(root.join("overlay/three/lower")).unwrap();
    write(root.join("overlay/three/lower"), "");
    assert_eq!(kind(driver.remove(&one)), ErrorKind::Corrupt);
    assert!(driver.exists(&one).unwrap());
    write(root.join("overlay/three/lower"), &lower);
    for layer in [&three, &two, &one, &one] {
        driver.remove(layer).unwrap();
    }
    assert_eq!(names(&root.join("overlay/l")), Vec::<String>::new());
}

#[test]
fn what_has_a_record_is_changed_by_the_store_only() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("direct-records");
    let (image, container, free) = (id(&"a".repeat(64)), id(&"c".repeat(64)), id(&"f".repeat(64)));
    let tar = Tar::new().file("file", b"content").finish();
    let check = |driver: &Direct<'_>| {
        let before = tree(&root.join("overlay"));
        for layer in [&image, &container] {
            assert_eq!(kind(create(driver, layer, None)), ErrorKind::AlreadyExists);
            assert_eq!(kind(driver.apply(layer, &mut &tar[..])), ErrorKind::InUse);
            assert_eq!(kind(driver.remove(layer)), ErrorKind::InUse);
        }
        assert_eq!(tree(&root.join("overlay")), before);
        // An image layer is looked at only, a container's is written to.
        for (layer, writable) in [(&image, false), (&container, true)] {
            let place = driver.mount(layer, &MountOptions::default()).unwrap();
            assert_eq!(read(place.join("file")), "content");
            let made = std::fs::create_dir(place.join("new"));
            assert_eq!(made.is_ok(), writable);
            if writable {
                std::fs::remove_dir(place.join("new")).unwrap();
            }
            driver.unmount(layer).unwrap();
        }
    };
    {
        let store = store(root.path(), "overlay");
        let new = CreateLayer::default();
        store
            .create(
                &image,
                &CreateLayer { uncompressed_digest: Some(digest(&tar)), ..new.clone() },
                Some(&mut &tar[..]),
            )
            .unwrap();
        let new = CreateLayer { parent: Some(image.clone()), writable: true, ..new };
        store.create(&container, &new, None).unwrap();
        check(&store.direct());
        // A layer without a record stands on the image: the store knows.
        create(&store.direct(), &free, Some(&image)).unwrap();
        store.delete(container.as_str()).unwrap();
        assert_eq!(kind(store.delete(image.as_str())), ErrorKind::InUse);
        store.direct().remove(&free).unwrap();
        store.create(&container, &new, None).unwrap();
        // A reader that asks for the layer that it is for does not wait for itself.
        create(&store.direct(), &free, None).unwrap();
        let mut asking = Asking { store: &store, id: &free, rest: &tar };
        store.direct().apply(&free, &mut asking).unwrap();
        store.direct().remove(&free).unwrap();
        store.close().unwrap();
        assert_eq!(kind(store.direct().exists(&image)), ErrorKind::NotReady);
        assert_eq!(kind(create(&store.direct(), &free, None)), ErrorKind::NotReady);
    }
    check(&alone(root.path(), "overlay").direct());
    let store = store(root.path(), "overlay");
    assert_eq!(store.list().len(), 2);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
}

fn digest(bytes: &[u8]) -> String {
    isula_storage::digest::Digest::of(bytes).to_string()
}

struct Asking<'a> {
    store: &'a LayerStore,
    id: &'a LayerId,
    rest: &'a [u8],
}

impl Read for Asking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert_eq!(kind(self.store.direct().remove(self.id)), ErrorKind::InUse);
        assert_eq!(kind(self.store.create(self.id, &CreateLayer::default(), None)), ErrorKind::InUse);
        assert!(self.store.direct().exists(self.id).unwrap());
        self.rest.read(buffer)
    }
}

/// Whatever the order: nobody waits for ever, and nothing is left that could not be removed.
#[test]
fn threads_that_make_and_remove_one_layer_disturb_nobody() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("direct-threads");
    let store = store(root.path(), "overlay");
    let (base, layer) = (id(&"b".repeat(64)), id(&"e".repeat(64)));
    store.create(&base, &CreateLayer::default(), None).unwrap();
    thread::scope(|scope| {
        for number in 0..4 {
            let (store, base, layer) = (&store, &base, &layer);
            scope.spawn(move || {
                for _ in 0..20 {
                    let driver = store.direct();
                    match number {
                        0 => drop(create(&driver, layer, Some(base))),
                        1 => drop(driver.remove(layer)),
                        2 => drop(driver.mount(layer, &MountOptions::default())),
                        _ => {
                            let new = CreateLayer {
                                parent: Some(base.clone()),
                                writable: true,
                                ..CreateLayer::default()
                            };
                            drop(store.create(layer, &new, None));
                            drop(store.delete(layer.as_str()));
                        }
                    }
                }
            });
        }
    });
    store.direct().unmount(&layer).unwrap();
    drop(store.delete(layer.as_str()));
    drop(store.direct().remove(&layer));
    assert!(!store.direct().exists(&layer).unwrap());
    store.delete(base.as_str()).unwrap();
    assert_eq!(names(&root.join("overlay/l")), Vec::<String>::new());
}

#[test]
fn a_driver_alone_is_closed_once_and_opened_again() {
    let root = TestRoot::in_memory("direct-close");
    let lone = alone(root.path(), "vfs");
    assert_eq!(
        LoneDriver::open(&layers::options(root.path(), "vfs")).err().unwrap().kind(),
        ErrorKind::InUse
    );
    create(&lone.direct(), &id("one"), None).unwrap();
    lone.close().unwrap();
    lone.close().unwrap();
    assert_eq!(kind(lone.direct().exists(&id("one"))), ErrorKind::NotReady);
    assert_eq!(kind(lone.direct().status()), ErrorKind::NotReady);
    let lone = alone(root.path(), "vfs");
    assert!(lone.direct().exists(&id("one")).unwrap());
}
