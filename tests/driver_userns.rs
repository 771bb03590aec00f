// SPDX-License-Identifier: MulanPSL-2.0
//! Layers for a user namespace: who owns what on the disk, and that archives come out as they went in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;
mod layers;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use common::{TestRoot, need_root};
use isula_storage::digest::Digest;
use isula_storage::driver::{self, Depth, GraphDriver, LayerKind, Limits, OwnerShift, Verdict};
use isula_storage::error::ErrorKind;
use isula_storage::storage::{Storage, StorageOptions};
use layers::{Tar, container_layer, create, id, image_layer, read, write};

const UID: u32 = 100_000;
const GID: u32 = 200_000;
const SHIFT: OwnerShift = OwnerShift { uid: UID, gid: GID };
const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

fn open_with(root: &Path, name: &str, owner_shift: Option<OwnerShift>) -> Arc<dyn GraphDriver> {
    let options = driver::DriverOptions { owner_shift, ..layers::options(root, name) };
    driver::open(&options).unwrap_or_else(|error| panic!("{}", error.report()))
}

fn open(root: &Path, name: &str) -> Arc<dyn GraphDriver> {
    open_with(root, name, Some(SHIFT))
}

/// Who owns everything below a directory, and the directory itself (an empty name).
fn owners(root: &Path) -> BTreeMap<String, (u32, u32)> {
    fn walk(root: &Path, path: &Path, found: &mut BTreeMap<String, (u32, u32)>) {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.insert(name, (metadata.uid(), metadata.gid()));
        if metadata.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                walk(root, &entry.unwrap().path(), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn expect_owners(root: &Path, expected: &[(&str, (u32, u32))]) {
    let expected = expected.iter().map(|(name, owner)| ((*name).to_owned(), *owner)).collect();
    assert_eq!(owners(root), expected, "{}", root.display());
}

/// One entry of each type, each of somebody else.
fn base() -> Tar {
    Tar::new()
        .any("etc/", b'5', 0o755, (0, 0), b"", "")
        .any("etc/passwd", b'0', 0o644, (0, 5), b"root", "")
        .any("home/me/file", b'0', 0o600, (1000, 1001), b"mine", "")
        .any("link", b'2', 0o777, (1002, 1003), b"", "home/me/file")
        .any("hard", b'1', 0o600, (1000, 1001), b"", "home/me/file")
        .any("null", b'3', 0o666, (1004, 1005), b"", "")
        .any("disk", b'4', 0o660, (0, 6), b"", "")
        .any("pipe", b'6', 0o644, (1006, 1007), b"", "")
        .any("last", b'0', 0o4755, (65_535, 65_535), b"", "")
        .any("beyond", b'0', 0o644, (65_536, 70_000), b"", "")
}

fn top() -> Vec<u8> {
    Tar::new()
        .any("etc/.wh.passwd", b'0', 0o644, (8, 9), b"", "")
        .any(".wh.pipe", b'0', 0o644, (0, 0), b"", "")
        .any("home/", b'5', 0o755, (0, 0), b"", "")
        .any("home/.wh..wh..opq", b'0', 0o644, (0, 0), b"", "")
        .any("home/new", b'0', 0o644, (10, 11), b"new", "")
        .finish()
}

const BASE_OWNERS: &[(&str, (u32, u32))] = &[
    ("", (UID, GID)),
    ("beyond", (UID + 65_536, GID + 70_000)),
    ("disk", (UID, GID + 6)),
    ("etc", (UID, GID)),
    ("etc/passwd", (UID, GID + 5)),
    ("hard", (UID + 1000, GID + 1001)),
    // No entry names these two.
    ("home", (UID, GID)),
    ("home/me", (UID, GID)),
    ("home/me/file", (UID + 1000, GID + 1001)),
    ("last", (UID + 65_535, GID + 65_535)),
    ("link", (UID + 1002, GID + 1003)),
    ("null", (UID + 1004, GID + 1005)),
    ("pipe", (UID + 1006, GID + 1007)),
];

#[test]
fn every_kind_of_entry_is_shifted_and_so_are_whiteouts_and_directories_that_no_entry_names() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        let root = TestRoot::in_memory("userns");
        let driver = open(root.path(), name);
        let (one, two) = (id("one"), id("two"));
        image_layer(&*driver, &one, None, &base().finish());
        let place = |id| driver.usage(id).unwrap().unwrap().0;
        expect_owners(&place(&one), BASE_OWNERS);
        let last = place(&one).join("last").symlink_metadata().unwrap();
        assert_eq!(last.mode() & 0o7777, 0o4755, "set-uid survives the change of owner");

        image_layer(&*driver, &two, Some(&one), &top());
        if name == "overlay2" {
            expect_owners(
                &place(&two),
                &[
                    ("", (UID, GID)),
                    ("etc", (UID, GID)),
                    ("etc/passwd", (UID + 8, GID + 9)),
                    ("home", (UID, GID)),
                    ("home/new", (UID + 10, GID + 11)),
                    ("pipe", (UID, GID)),
                ],
            );
        } else {
            let gone = ["etc/passwd", "home/me", "home/me/file", "pipe"];
            let mut expected: Vec<_> =
                BASE_OWNERS.iter().filter(|(name, _)| !gone.contains(name)).copied().collect();
            expected.push(("home/new", (UID + 10, GID + 11)));
            expect_owners(&place(&two), &expected);
        }
    }
}

#[test]
fn directories_of_the_overlay_driver_belong_to_the_root_of_the_namespace() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("userns-home");
    let (one, two, container) = (id("one"), id("two"), id("container"));
    {
        let driver = open(root.path(), "overlay");
        create(&*driver, &one, None, LayerKind::ReadOnly).unwrap();
        create(&*driver, &two, Some(&one), LayerKind::ReadOnly).unwrap();
        container_layer(&*driver, &container, Some(&two));
        std::fs::remove_dir(root.join("overlay/two/work")).unwrap();
        std::fs::remove_dir(root.join("overlay/two/merged")).unwrap();
        // What was lost is made again for the same owner.
        driver.validate(&two, Some(&one)).unwrap();
    }
    let all = owners(&root.join("overlay"));
    let shifted: Vec<_> =
        all.iter().filter(|(_, owner)| **owner == (UID, GID)).map(|(name, _)| name).collect();
    let expected = [
        "",
        "container",
        "container/diff",
        "container/merged",
        "container/work",
        "l",
        "one",
        "one/diff",
        "one/merged",
        "one/work",
        "two",
        "two/diff",
        "two/merged",
        "two/work",
    ];
    assert_eq!(shifted, expected);
    for caller in ["one/empty", "one/link", "two/lower", "container/link", ".isula-storage"] {
        assert_eq!(all[caller], (0, 0), "{caller}");
    }
}

#[test]
fn directories_of_the_plain_driver_belong_to_the_root_of_the_namespace() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("userns-vfs");
    let driver = open(root.path(), "vfs");
    create(&*driver, &id("one"), None, LayerKind::ReadOnly).unwrap();
    container_layer(&*driver, &id("two"), Some(&id("one")));
    let all = owners(&root.join("vfs"));
    for (name, owner) in &all {
        let expected = if name.starts_with(".isula-storage") { (0, 0) } else { (UID, GID) };
        assert_eq!(*owner, expected, "{name}");
    }
    assert!(all.contains_key("dir/two"));
}

#[test]
fn an_export_gives_the_archive_with_its_own_owners() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        let root = TestRoot::in_memory("userns-export");
        let driver = open(root.path(), name);
        let (one, two) = (id("one"), id("two"));
        let (base, top) = (base().finish(), top());
        let (_, first) = image_layer(&*driver, &one, None, &base);
        let (_, second) = image_layer(&*driver, &two, Some(&one), &top);
        for (layer, archive, tar_split) in [(&one, &base, &first), (&two, &top, &second)] {
            assert_eq!(driver.verify(layer, &mut &tar_split[..], Depth::Metadata).unwrap(), Verdict::Valid);
            let mut exported = Vec::new();
            let (digest, _) = driver.export(layer, &mut &tar_split[..], &mut exported).unwrap();
            assert_eq!(digest, Digest::of(archive), "{name}");
            assert!(exported == *archive, "{name}");
        }
    }
}

#[test]
fn a_container_sees_the_shifted_layers_and_its_whiteouts() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        let root = TestRoot::in_memory("userns-mount");
        let driver = open(root.path(), name);
        let (one, two, container) = (id("one"), id("two"), id("container"));
        image_layer(&*driver, &one, None, &base().finish());
        image_layer(&*driver, &two, Some(&one), &top());
        container_layer(&*driver, &container, Some(&two));
        let place = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
        let gone = ["etc/passwd", "home/me", "home/me/file", "pipe"];
        let mut expected: Vec<_> =
            BASE_OWNERS.iter().filter(|(name, _)| !gone.contains(name)).copied().collect();
        expected.push(("home/new", (UID + 10, GID + 11)));
        expect_owners(&place, &expected);
        // The root of the namespace is the owner of what it meets on its way in.
        write(place.join("mine"), "mine");
        assert_eq!(read(place.join("home/new")), "new");
        driver.unmount(&container).unwrap();
        driver.remove(&container).unwrap().remove();
    }
}

#[test]
fn an_owner_that_the_shift_carries_out_of_the_range_is_refused() {
    if !need_root() {
        return;
    }
    for name in DRIVERS {
        for (shift, owner, text) in [
            (
                OwnerShift { uid: u32::MAX - 10, gid: 0 },
                (11, 0),
                "user id 11 is out of range after a shift by 4294967285",
            ),
            (
                OwnerShift { uid: 0, gid: u32::MAX - 10 },
                (0, 10),
                "group id 10 is out of range after a shift by 4294967285",
            ),
        ] {
            let root = TestRoot::in_memory("userns-range");
            let driver = open_with(root.path(), name, Some(shift));
            let layer = id("layer");
            create(&*driver, &layer, None, LayerKind::ReadOnly).unwrap();
            for entry in ["file", ".wh.file"] {
                let tar = Tar::new().any(entry, b'0', 0o644, owner, b"", "").finish();
                if name == "vfs" && entry == ".wh.file" {
                    continue; // removes a file, and makes nothing that could have an owner
                }
                let error =
                    driver.apply(&layer, &mut &tar[..], &mut Vec::new(), &Limits::default()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert!(error.report().ends_with(text), "{}", error.report());
                driver.remove(&layer).unwrap().remove();
                create(&*driver, &layer, None, LayerKind::ReadOnly).unwrap();
            }
            let tar = Tar::new().any("file", b'0', 0o644, (9, 9), b"", "").finish();
            driver.apply(&layer, &mut &tar[..], &mut Vec::new(), &Limits::default()).unwrap();
        }
    }
}

/// Capabilities of version 2 have no effect in a user namespace, and lists of access name users and groups.
#[test]
fn capabilities_and_access_control_lists_are_for_the_namespace() {
    if !need_root() {
        return;
    }
    let two = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut three = two.to_vec();
    three[3] = 3;
    three.extend_from_slice(&UID.to_le_bytes());
    let acl = |user: u32, group: u32| -> Vec<u8> {
        let entry = |tag: u16, bits: u16, id: u32| {
            [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let entries = [
            entry(1, 6, u32::MAX),
            entry(2, 4, user),
            entry(4, 4, u32::MAX),
            entry(8, 4, group),
            entry(16, 6, u32::MAX),
            entry(32, 0, u32::MAX),
        ];
        [vec![2, 0, 0, 0], entries.concat()].concat()
    };
    let tar = Tar::new()
        .xattr("security.capability", two)
        .any("ping", b'0', 0o755, (0, 0), b"ping", "")
        .xattr("system.posix_acl_access", &acl(1000, 1001))
        .any("shared", b'0', 0o640, (0, 0), b"shared", "")
        .finish();
    for name in DRIVERS {
        let disk = common::loop_ext4(16 << 20);
        let driver = open(&disk.path(), name);
        let layer = id("layer");
        let (_, tar_split) = image_layer(&*driver, &layer, None, &tar);
        let place = driver.usage(&layer).unwrap().unwrap().0;
        let attribute = |file: &str, name: &str| {
            let mut value = [0; 256];
            let file = File::open(place.join(file)).unwrap();
            let length = rustix::fs::fgetxattr(&file, name, &mut value[..]).unwrap();
            value[..length].to_vec()
        };
        assert_eq!(attribute("ping", "security.capability"), three, "{name}");
        assert_eq!(attribute("shared", "system.posix_acl_access"), acl(UID + 1000, GID + 1001), "{name}");
        let mut exported = Vec::new();
        driver.export(&layer, &mut &tar_split[..], &mut exported).unwrap();
        assert!(exported == tar, "{name}");
        drop(driver);
    }
}

/// The directories on the way to a container's root, and nothing that is not on it.
#[test]
fn the_root_of_a_storage_belongs_to_the_root_of_the_namespace_and_its_records_do_not() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("userns-storage");
    let mut options = StorageOptions::new(root.join("storage"), root.join("run"));
    options.owner_shift = Some(SHIFT);
    drop(Storage::open(options).unwrap());
    let all = owners(&root.join("storage"));
    for (name, owner) in [
        ("", (UID, GID)),
        ("overlay", (UID, GID)),
        ("overlay/l", (UID, GID)),
        ("overlay-layers", (0, 0)),
        ("overlay-images", (0, 0)),
        ("overlay-containers", (0, 0)),
        (".isula-storage", (0, 0)),
    ] {
        assert_eq!(all[name], owner, "{name}");
    }
}
