// SPDX-License-Identifier: MulanPSL-2.0
//! The layer store on the drivers that ship: the same life on each, and what overlay can lose and get back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod common;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use archive_common::layers_of;
use common::{LoopExt4, loop_ext4, mounts_below, need_root};
use isula_storage::digest::{Digest, chain_ids};
use isula_storage::driver::{Limits, Verdict};
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;
use isula_storage::layer::{CreateLayer, LayerStore, LayerStoreOptions};
use isula_storage::persist::{Durability, Ownership};

const DRIVERS: [&str; 3] = ["overlay", "overlay2", "vfs"];

struct Place {
    disk: LoopExt4,
    driver: &'static str,
}

impl Place {
    fn new(driver: &'static str) -> Place {
        Place { disk: loop_ext4(192 << 20), driver }
    }

    fn open(&self) -> LayerStore {
        LayerStore::open(LayerStoreOptions {
            root: self.disk.join("root"),
            run_root: self.disk.join("run"),
            driver: self.driver.to_owned(),
            driver_options: Vec::new(),
            durability: Durability::Full,
            ownership: Ownership::Owner,
            owner_shift: None,
            limits: Limits::default(),
        })
        .unwrap_or_else(|error| panic!("{}", error.report()))
    }

    fn data(&self, id: &LayerId, name: &str) -> PathBuf {
        self.disk.join("root/overlay").join(id).join(name)
    }
}

fn container_id(number: u32) -> LayerId {
    LayerId::new(&format!("{number:064x}")).unwrap()
}

fn container(parent: &LayerId) -> CreateLayer {
    CreateLayer { parent: Some(parent.clone()), writable: true, ..CreateLayer::default() }
}

/// Makes the layers of an image; ids are chain IDs.
fn import(store: &LayerStore, image: &str) -> Vec<LayerId> {
    let archives = layers_of(image);
    let diff_ids: Vec<_> = archives.iter().map(|archive| Digest::of(archive)).collect();
    let mut parent = None;
    let mut ids = Vec::new();
    for ((archive, diff_id), chain_id) in archives.iter().zip(&diff_ids).zip(chain_ids(&diff_ids)) {
        let layer = CreateLayer {
            parent: parent.clone(),
            uncompressed_digest: Some(diff_id.to_string()),
            ..CreateLayer::default()
        };
        let id = LayerId::from(chain_id);
        store.create(&id, &layer, Some(&mut archive.as_slice())).unwrap();
        ids.push(id.clone());
        parent = Some(id);
    }
    ids
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn an_image_and_a_container_live_the_same_life_on_every_driver() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        let store = place.open();
        let image = import(&store, "bb.tar.gz");
        let top = image.last().unwrap();
        let layer = container_id(1);
        store.create(&layer, &container(top), None).unwrap();
        let root = store.mount(layer.as_str()).unwrap();
        assert_eq!(Some(&root), store.find(layer.as_str()).unwrap().mount_point.as_ref(), "{driver}");
        assert!(root.join("bin/busybox").exists() && !root.join("opt/dir1/one").exists(), "{driver}");
        std::fs::write(root.join("note"), driver).unwrap();
        // The image is not touched by what the container writes.
        for id in &image {
            assert_eq!(store.check(id.as_str()).unwrap(), Verdict::Valid, "{driver}");
        }
        let usage = store.usage(&layer).unwrap().unwrap().1;
        assert!(usage.bytes.0 >= driver.len() as u64 && usage.inodes.0 >= 2, "{driver}: {usage:?}");
        store.close().unwrap();

        let store = place.open();
        assert_eq!(store.problems(), [], "{driver}");
        assert_eq!(store.find(layer.as_str()).unwrap().mount_count, 1, "{driver}");
        assert_eq!(read(&root.join("note")), driver);
        store.unmount(layer.as_str(), false).unwrap();
        assert_eq!(read(&store.mount(layer.as_str()).unwrap().join("note")), driver);
        assert_eq!(store.delete(top.as_str()).unwrap_err().kind(), ErrorKind::InUse, "{driver}");
        // Mounted still: unmounted by the deletion.
        store.delete(layer.as_str()).unwrap();
        for (id, archive) in image.iter().zip(layers_of("bb.tar.gz")).rev() {
            let mut out = Vec::new();
            store.export(id.as_str(), &mut out).unwrap();
            assert!(out == archive, "{driver}: {id}");
            store.delete(id.as_str()).unwrap();
        }
        assert_eq!(store.list(), [], "{driver}");
        assert_eq!(store.driver().layers().unwrap(), [], "{driver}");
        store.close().unwrap();
        // The driver's home may stay mounted: a program that another test starts just now has all descriptors open.
        let root = place.disk.join("root");
        let left: Vec<_> =
            mounts_below(&root).into_iter().filter(|mount| mount.parent() != Some(&root)).collect();
        assert!(left.is_empty(), "{driver}: {left:?}");
    }
}

#[test]
fn a_bad_archive_leaves_nothing_on_any_driver() {
    if !need_root() {
        return;
    }
    let good = layers_of("bb.tar.gz").remove(0);
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    let truncated = good[..good.len() / 2].to_vec();
    let table = [
        ("truncated", truncated, ErrorKind::InvalidData),
        ("changed", changed, ErrorKind::DigestMismatch),
        ("no archive", b"this is no archive at all".repeat(50), ErrorKind::InvalidData),
    ];
    for driver in DRIVERS {
        let place = Place::new(driver);
        let store = place.open();
        let digest = Some(Digest::of(&good).to_string());
        let layer = CreateLayer { uncompressed_digest: digest, ..CreateLayer::default() };
        for (what, archive, expected) in &table {
            let error = store.create(&container_id(1), &layer, Some(&mut archive.as_slice())).unwrap_err();
            assert_eq!(error.kind(), *expected, "{driver}, {what}: {}", error.report());
            assert_eq!(store.driver().layers().unwrap(), [], "{driver}, {what}");
            assert_eq!(store.quarantined().unwrap(), [], "{driver}, {what}");
        }
        store.create(&container_id(1), &layer, Some(&mut good.as_slice())).unwrap();
    }
}

#[test]
fn what_overlay_has_lost_and_can_derive_comes_back_by_itself() {
    if !need_root() {
        return;
    }
    let place = Place::new("overlay");
    let store = place.open();
    let image = import(&store, "opq.tar.gz");
    let layer = container_id(1);
    store.create(&layer, &container(image.last().unwrap()), None).unwrap();
    let root = store.mount(layer.as_str()).unwrap();
    std::fs::write(root.join("note"), "a user's data").unwrap();
    store.close().unwrap();
    drop(store);

    let link_of = |id: &LayerId| place.disk.join("root/overlay/l").join(read(&place.data(id, "link")));
    let remove_dir = |path: &Path| std::fs::remove_dir_all(path).unwrap();
    type Loss<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let losses: [Loss<'_>; 7] = [
        ("link of the base", Box::new(|| std::fs::remove_file(link_of(&image[0])).unwrap())),
        ("all links", Box::new(|| remove_dir(&place.disk.join("root/overlay/l")))),
        ("link of the container", Box::new(|| std::fs::remove_file(link_of(&layer)).unwrap())),
        ("work", Box::new(|| remove_dir(&place.data(&layer, "work")))),
        ("merged", Box::new(|| remove_dir(&place.data(&layer, "merged")))),
        ("empty lower", Box::new(|| std::fs::write(place.data(&layer, "lower"), "").unwrap())),
        ("lower", Box::new(|| std::fs::remove_file(place.data(&layer, "lower")).unwrap())),
    ];
    for (what, lose) in &losses {
        rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH).unwrap();
        lose();
        // Mounted again at the start, because it was mounted.
        let store = place.open();
        assert_eq!(store.problems(), [], "{what}");
        assert_eq!(store.find(layer.as_str()).unwrap().mount_count, 1, "{what}");
        assert_eq!(read(&root.join("note")), "a user's data", "{what}");
        assert!(root.join("bin").exists(), "{what}: the layers below are missing");
        assert!(!root.join("l").exists(), "{what}: the driver's home shows through");
        store.close().unwrap();
    }
    let store = place.open();
    store.delete(layer.as_str()).unwrap();
}

/// Who takes the list of what is below from a parent that has lost its own gets too short a one.
#[test]
fn a_layer_made_on_a_parent_that_lost_its_list_stands_on_all_that_the_records_name() {
    if !need_root() {
        return;
    }
    let place = Place::new("overlay");
    let store = place.open();
    let image = import(&store, "opq.tar.gz");
    let top = image.last().unwrap();
    let lower = |layer: &LayerId| place.data(layer, "lower");
    let whole = read(&lower(top));
    assert!(image.len() > 1 && !whole.is_empty());
    let (first, second) = (container_id(1), container_id(2));
    store.create(&first, &container(top), None).unwrap();
    let right = read(&lower(&first));
    std::fs::remove_file(lower(top)).unwrap();
    store.create(&second, &container(top), None).unwrap();
    assert_ne!(read(&lower(&second)), right, "this is where it goes wrong");
    // One that has none at all, too.
    std::fs::remove_file(lower(&first)).unwrap();
    for layer in [&second, &first] {
        store.mount(layer.as_str()).unwrap();
        assert_eq!((read(&lower(layer)), read(&lower(top))), (right.clone(), whole.clone()));
        store.unmount(layer.as_str(), false).unwrap();
    }
    store.close().unwrap();
}

/// A short name that leads to a directory which looks like a layer: the kernel mounts what it is given.
#[test]
fn a_short_name_that_leads_to_another_directory_is_refused_by_every_mount() {
    if !need_root() {
        return;
    }
    let place = Place::new("overlay");
    let store = place.open();
    let image = import(&store, "opq.tar.gz");
    let layer = container_id(1);
    let top = image.last().unwrap();
    store.create(&layer, &container(top), None).unwrap();
    let home = place.disk.join("root/overlay");
    for (what, lower) in [("the base", &image[0]), ("the parent", top)] {
        let link = home.join("l").join(read(&place.data(lower, "link")));
        let stranger = home.join("stranger");
        std::fs::create_dir_all(stranger.join("diff/stolen")).unwrap();
        for file in ["link", "lower"] {
            let from = place.data(lower, file);
            if from.exists() {
                std::fs::copy(from, stranger.join(file)).unwrap();
            }
        }
        for target in ["stranger", layer.as_str()] {
            std::fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink(format!("../{target}/diff"), &link).unwrap();
            let error = store.mount(layer.as_str()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {}", error.report());
            assert!(error.report().contains(target), "{what}: {}", error.report());
        }
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(format!("../{lower}/diff"), &link).unwrap();
        std::fs::remove_dir_all(&stranger).unwrap();
        store.mount(layer.as_str()).unwrap();
        store.unmount(layer.as_str(), false).unwrap();
    }
    store.delete(layer.as_str()).unwrap();
    store.close().unwrap();
}

/// An archive that waits after its first piece.
struct Gate<'a> {
    reached: Sender<()>,
    open: Receiver<()>,
    archive: &'a [u8],
    pieces: usize,
}

impl Read for Gate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.pieces += 1;
        if self.pieces == 2 {
            self.reached.send(()).unwrap();
            self.open.recv().unwrap();
        }
        let piece = buffer.len().min(8192);
        self.archive.read(&mut buffer[..piece])
    }
}

#[test]
fn layers_are_made_side_by_side_and_others_are_used_meanwhile() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        let store = place.open();
        let image = import(&store, "bb.tar.gz");
        store.create(&container_id(1), &container(&image[1]), None).unwrap();
        let archive = layers_of("bb.tar.gz").remove(0);
        let diff_id = Digest::of(&archive).to_string();
        thread::scope(|scope| {
            let mut gates = Vec::new();
            let mut creators = Vec::new();
            for number in 10..13 {
                let (reached, was_reached) = channel();
                let (opener, open) = channel();
                gates.push((was_reached, opener));
                let (store, archive, diff_id) = (&store, archive.as_slice(), diff_id.clone());
                creators.push(scope.spawn(move || {
                    let mut gate = Gate { reached, open, archive, pieces: 0 };
                    let layer = CreateLayer { uncompressed_digest: Some(diff_id), ..CreateLayer::default() };
                    store.create(&container_id(number), &layer, Some(&mut gate)).map(drop)
                }));
            }
            for (reached, _) in &gates {
                reached.recv().unwrap();
            }
            // All three are in the middle of their archives.
            assert_eq!(store.list().len(), 3, "{driver}");
            let root = store.mount(container_id(1).as_str()).unwrap();
            assert!(root.join("bin/busybox").exists());
            store.unmount(container_id(1).as_str(), true).unwrap();
            store.create(&container_id(2), &container(&image[0]), None).unwrap();
            store.delete(container_id(2).as_str()).unwrap();
            for (_, opener) in gates.iter().rev() {
                opener.send(()).unwrap();
            }
            for creator in creators {
                creator.join().unwrap().unwrap();
            }
        });
        assert_eq!(store.by_uncompressed_digest(&diff_id).len(), 4, "{driver}");
        for layer in store.by_uncompressed_digest(&diff_id) {
            assert_eq!(store.check(layer.id.as_str()).unwrap(), Verdict::Valid, "{driver}");
        }
    }
}

/// An opaque mark at the top of a layer hides all layers below it. A child that is filled while the mark has not come yet
/// must know it in the end; on the driver that copies its parent the child waits.
#[test]
fn a_layer_made_beside_its_parent_stands_on_what_the_parent_leaves_visible() {
    if !need_root() {
        return;
    }
    let archive = |name: &str| archive_common::Tar::new().file(name, vec![b'x'; 9000]);
    let base = archive("base").end();
    let opaque = archive("middle").file(".wh..wh..opq", "").end();
    let top = archive("top").end();
    for driver in DRIVERS {
        let place = Place::new(driver);
        let store = place.open();
        let ids: Vec<_> = (1..=3).map(container_id).collect();
        let create = |at: usize, archive: &mut (dyn Read + Send)| {
            let parent = at.checked_sub(1).map(|below| ids[below].clone());
            store.create(&ids[at], &CreateLayer { parent, ..CreateLayer::default() }, Some(archive)).unwrap();
        };
        create(0, &mut base.as_slice());
        let (reached, was_reached) = channel();
        let (opener, open) = channel();
        let mut slow = Gate { reached, open, archive: &opaque, pieces: 0 };
        let (begun, has_begun) = channel();
        let (go, let_go) = channel();
        go.send(()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| create(1, &mut slow));
            was_reached.recv().unwrap();
            let mut second = Gate { reached: begun, open: let_go, archive: &top, pieces: 0 };
            let creates = &create;
            scope.spawn(move || creates(2, &mut second));
            if store.creates_ahead() {
                has_begun.recv().unwrap();
            }
            opener.send(()).unwrap();
        });
        let mounted = store.mount(ids[2].as_str()).unwrap();
        let mut seen: Vec<_> =
            std::fs::read_dir(&mounted).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        seen.sort();
        assert_eq!(seen, ["middle", "top"], "{driver}");
        store.unmount(ids[2].as_str(), false).unwrap();
        if driver != "vfs" {
            let lower = read(&place.data(&ids[2], "lower"));
            assert_eq!(lower.split(':').count(), 1, "{lower}");
        }
    }
}

#[test]
fn what_a_layer_with_a_broken_record_stands_on_is_not_deleted() {
    if !need_root() {
        return;
    }
    let place = Place::new("overlay");
    let store = place.open();
    let image = import(&store, "bb.tar.gz");
    let layer = container_id(1);
    store.create(&layer, &container(image.last().unwrap()), None).unwrap();
    let root = store.mount(layer.as_str()).unwrap();
    std::fs::write(root.join("note"), "mine").unwrap();
    store.unmount(layer.as_str(), true).unwrap();
    store.close().unwrap();
    let record = place.disk.join("root/overlay-layers").join(&layer).join("layer.json");
    let text = read(&record);
    std::fs::write(&record, "{").unwrap();

    // Put aside at the first start, still aside at the second.
    for _ in 0..2 {
        let store = place.open();
        assert!(!store.exists(layer.as_str()));
        for id in &image {
            assert_eq!(store.delete(id.as_str()).unwrap_err().kind(), ErrorKind::InUse);
        }
        store.close().unwrap();
    }

    let store = place.open();
    let aside = store.quarantined().unwrap();
    assert_eq!(aside.len(), 1);
    std::fs::write(aside[0].path.join("layer.json"), text).unwrap();
    store.restore(&layer).unwrap();
    let root = store.mount(layer.as_str()).unwrap();
    assert_eq!(read(&root.join("note")), "mine");
    store.unmount(layer.as_str(), true).unwrap();
    store.close().unwrap();

    let store = place.open();
    for id in [&layer].into_iter().chain(image.iter().rev()) {
        store.delete(id.as_str()).unwrap();
    }
    assert!(store.list().is_empty());
    store.close().unwrap();
}
