// SPDX-License-Identifier: MulanPSL-2.0
//! The power goes before every single change that a creation or deletion makes, on a real file system.
//!
//! The file system lies in an image file. What is in that file at an instant is what a disk would hold: what was only
//! in the cache of the file system is not there. A copy of it is mounted, which replays the journal, and opened.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use super::*;
use crate::driver::Verdict;
use crate::persist::with_hook;
use crate::sys::testing::{need_root, run};

const SIZE: u64 = 24 << 20;

/// A file system in an image file, unmounted when dropped.
struct Disk {
    root: TestRoot,
}

impl Disk {
    fn new() -> Disk {
        let disk = Disk { root: TestRoot::in_memory("power") };
        std::fs::File::create(disk.image()).and_then(|file| file.set_len(SIZE)).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(disk.image()));
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.root.join("image")
    }

    fn mount(&self) {
        std::fs::create_dir_all(self.root.join("mnt")).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.root.join("mnt")));
    }

    /// Another disk with what is on this one now, in whatever state.
    fn copy(&self) -> Disk {
        let copy = Disk { root: TestRoot::in_memory("power-cut") };
        loop {
            // The kernel may be writing: a copy counts only if nothing has changed while it was made.
            std::fs::copy(self.image(), copy.image()).unwrap();
            if std::fs::read(self.image()).unwrap() == std::fs::read(copy.image()).unwrap() {
                return copy;
            }
        }
    }

    fn try_open(&self, driver: &str) -> Result<LayerStore> {
        let root = self.root.join("mnt");
        LayerStore::open(LayerStoreOptions {
            // As after a power cut: the run root is empty.
            run_root: self.root.join("run"),
            root,
            driver: driver.to_owned(),
            driver_options: Vec::new(),
            durability: Durability::Full,
            ownership: Ownership::Owner,
            owner_shift: None,
            limits: Limits::default(),
        })
    }

    fn open(&self, driver: &str) -> LayerStore {
        self.try_open(driver).unwrap_or_else(|error| panic!("{}", error.report()))
    }
}

/// A tar of some files, large enough not to be written at once.
fn archive(seed: u8) -> Vec<u8> {
    let mut tar = Vec::new();
    for number in 0u8..24 {
        let content = vec![seed ^ number; usize::from(number) * 400];
        let mut header = [0u8; 512];
        let name = format!("file{number}");
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(&content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn add(store: &LayerStore, number: u8, parent: Option<u32>) {
    let tar = archive(number);
    let digest = Some(Digest::of(&tar).to_string());
    let layer = CreateLayer { parent: parent.map(id), uncompressed_digest: digest, ..CreateLayer::default() };
    let created = store.create(&id(u32::from(number)), &layer, Some(&mut tar.as_slice())).unwrap();
    assert_eq!(created, Created::New(id(u32::from(number))));
}

fn assert_whole(store: &LayerStore, number: u8, what: &str) {
    let layer = id(u32::from(number));
    assert!(store.exists(layer.as_str()), "{what}: layer {number} is lost; {:?}", store.problems());
    assert_eq!(store.check(layer.as_str()).unwrap(), Verdict::Valid, "{what}: layer {number}");
    let mut out = Vec::new();
    store.export(layer.as_str(), &mut out).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    assert!(out == archive(number), "{what}: layer {number}");
}

fn assert_absent(disk: &Disk, store: &LayerStore, layer: &LayerId, what: &str) {
    assert!(!store.driver().layers().unwrap().contains(layer), "{what}: its data are left");
    for dir in ["overlay-layers", "overlay", "vfs-layers", "vfs"] {
        let path = disk.root.join("mnt").join(dir).join(layer);
        assert!(!path.exists(), "{what}: {} is left", path.display());
    }
}

/// Copies of the disk before each change of `action` and after it, with the names of the changes.
fn cuts(disk: &Rc<Disk>, action: impl FnOnce()) -> Vec<(String, Disk)> {
    let found: Rc<RefCell<Vec<(String, Disk)>>> = Rc::default();
    let (from, to) = (disk.clone(), found.clone());
    let take = move |step: &str| {
        to.borrow_mut().push((step.to_owned(), from.copy()));
        Ok(())
    };
    with_hook(take, action);
    found.borrow_mut().push(("the end".to_owned(), disk.copy()));
    found.take()
}

fn creation_and_deletion_survive(driver: &str) {
    if !need_root() {
        return;
    }
    let disk = Rc::new(Disk::new());
    let store = disk.open(driver);
    add(&store, 1, None);

    let created = cuts(&disk, || add(&store, 2, Some(1)));
    let deleted = cuts(&disk, || store.delete(id(2).as_str()).unwrap());
    drop(store);
    for (is_creation, cuts) in [(true, created), (false, deleted)] {
        assert!(cuts.len() > 8, "{driver}: only {} changes", cuts.len());
        let mut states = Vec::new();
        for (number, (step, disk)) in cuts.iter().enumerate() {
            let what = format!("{driver}, creation {is_creation}, before change {number}, {step}");
            disk.mount();
            let store = disk.open(driver);
            assert_eq!(store.problems(), [], "{what}");
            assert_whole(&store, 1, &what);
            let listed = store.exists(id(2).as_str());
            if listed {
                assert_whole(&store, 2, &what);
            } else {
                assert_absent(disk, &store, &id(2), &what);
                add(&store, 2, Some(1));
                assert_whole(&store, 2, &what);
            }
            assert_eq!(store.quarantined().unwrap(), [], "{what}");
            states.push(listed == is_creation);
        }
        // What a call has returned for is durable; and there is one instant at which it became so.
        assert!(!states[0] && states[states.len() - 1], "{driver}: {states:?}");
        assert!(states.is_sorted(), "{driver}: {states:?}");
    }
}

#[test]
fn a_power_cut_leaves_overlay_layers_whole_or_absent() {
    creation_and_deletion_survive("overlay");
}

#[test]
fn a_power_cut_leaves_copied_layers_whole_or_absent() {
    creation_and_deletion_survive("vfs");
}
