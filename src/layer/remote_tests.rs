// SPDX-License-Identifier: MulanPSL-2.0
//! The world ends, or the disk fails, before every single change that making or deleting a shared layer is.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::*;
use crate::digest::Digest;
use crate::driver::Limits;
use crate::layer::Created;
use crate::persist::{Durability, Ownership, with_hook};
use crate::sys::testing::{TestRoot, need_root, run};

fn id(digit: char) -> LayerId {
    LayerId::new(&digit.to_string().repeat(64)).unwrap()
}

fn open(root: &Path) -> LayerStore {
    let options = LayerStoreOptions {
        root: root.to_owned(),
        run_root: root.with_extension("run"),
        driver: "overlay".to_owned(),
        driver_options: Vec::new(),
        durability: Durability::Full,
        ownership: Ownership::Owner,
        owner_shift: None,
        limits: Limits::default(),
    };
    LayerStore::open_shared(options).unwrap_or_else(|error| panic!("{}", error.report()))
}

/// An archive of one file, `content`.
fn archive() -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..7].copy_from_slice(b"content");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(b"00000000005");
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(b"whole");
    archive.resize(512 * 4, 0);
    archive
}

fn create(store: &LayerStore, digit: char, parent: Option<char>) -> Result<Created> {
    let archive = archive();
    let digest = Digest::of(&archive).to_string();
    let layer =
        CreateLayer { parent: parent.map(id), uncompressed_digest: Some(digest), ..CreateLayer::default() };
    store.create(&id(digit), &layer, Some(&mut &archive[..]))
}

const RO: [&str; 2] = ["overlay/RO", "overlay-layers/RO"];

/// `own_mount`: the shared directories are mounts of their own.
struct Place {
    root: TestRoot,
}

impl Place {
    fn new(own_mount: bool) -> Place {
        let place = Place { root: TestRoot::in_memory("shared-crash") };
        std::fs::create_dir(place.store()).unwrap();
        if own_mount {
            for dir in RO {
                std::fs::create_dir_all(place.root.join("share").join(dir)).unwrap();
                std::fs::create_dir_all(place.store().join(dir)).unwrap();
            }
            place.mount();
        }
        place
    }

    fn mount(&self) {
        for dir in RO {
            let share = self.root.join("share").join(dir);
            if share.exists() {
                rustix::mount::mount_bind(&share, self.store().join(dir)).unwrap();
            }
        }
    }

    fn unmount(&self) {
        // The home takes its mounts along when it is bound on itself, and stays bound while they are there.
        let home = self.store().join("overlay");
        for at in [home].into_iter().chain(RO.map(|dir| self.store().join(dir))) {
            while rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).is_ok() {}
        }
    }

    /// What lies in the places where shared layers are made and removed.
    fn working_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in RO {
            let work = self.store().join(dir).join(".isula-storage-remote");
            for part in std::fs::read_dir(work).into_iter().flatten() {
                let part = part.unwrap().path();
                if !part.file_name().unwrap().to_string_lossy().starts_with("aside-") {
                    found.extend(std::fs::read_dir(part).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
        }
        for state in [".isula-storage/overlay-layers", "overlay/.isula-storage"] {
            for part in ["remote-staging", "remote-removals"] {
                let part = self.store().join(state).join(part);
                found
                    .extend(std::fs::read_dir(part).into_iter().flatten().map(|entry| entry.unwrap().path()));
            }
        }
        found
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// What all hosts see: complete records only, each with whole data.
    fn assert_only_whole_layers_are_shared(&self, what: &str) {
        let records = std::fs::read_dir(self.store().join("overlay-layers/RO")).unwrap();
        let names = records.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter(|name| !name.starts_with('.')) {
            let dir = self.store().join("overlay-layers/RO").join(&name);
            let record = std::fs::read_to_string(dir.join("layer.json")).unwrap();
            assert!(!record.contains("incompelte"), "{what}: {record}");
            assert!(dir.join(format!("{name}.tar-split.gz")).metadata().unwrap().len() > 0, "{what}");
        }
        let data = std::fs::read_dir(self.store().join("overlay/RO")).unwrap();
        let names = data.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter(|name| !name.starts_with('.')) {
            let layer = self.store().join("overlay/RO").join(&name);
            assert_eq!(std::fs::read(layer.join("diff/content")).unwrap(), b"whole", "{what}");
            assert_eq!(std::fs::read(layer.join("link")).unwrap().len(), 26, "{what}");
        }
    }
}

/// Ends the world before step number `end` of `action`: the disk is set back to what it was then. `None`: there were not so
/// many steps.
fn crash(place: &Place, store: LayerStore, end: usize, action: impl FnOnce(&LayerStore)) -> Option<String> {
    let (root, copy) = (place.root.path().to_owned(), place.root.join("copy"));
    let (count, found) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None)));
    let (counted, seen) = (count.clone(), found.clone());
    let shares = root.join("share").exists();
    let parts: &[&str] = if shares { &["store", "share"] } else { &["store"] };
    let (from, to) = (root.clone(), copy.clone());
    with_hook(
        move |step| {
            if counted.get() == end {
                std::fs::create_dir(&to).unwrap();
                for part in parts {
                    run(Command::new("cp").args(["-a", "-x"]).arg(from.join(part)).arg(&to));
                }
                *seen.borrow_mut() = Some(step.to_owned());
            }
            counted.set(counted.get() + 1);
            Ok(())
        },
        || action(&store),
    );
    store.close().unwrap();
    drop(store);
    let step = found.take()?;
    place.unmount();
    for part in parts {
        std::fs::remove_dir_all(root.join(part)).unwrap();
        run(Command::new("mv").arg(copy.join(part)).arg(&root));
    }
    std::fs::remove_dir(&copy).unwrap();
    place.mount();
    Some(step)
}

#[test]
fn a_shared_layer_is_whole_or_absent_whenever_its_creation_is_interrupted() {
    if !need_root() {
        return;
    }
    for own_mount in [false, true] {
        for end in 0.. {
            let place = Place::new(own_mount);
            let store = open(&place.store());
            create(&store, 'a', None).unwrap();
            let step = crash(&place, store, end, |store| drop(create(store, 'b', Some('a')).unwrap()));
            let what = format!("own mount {own_mount}, before step {end}: {step:?}");
            place.assert_only_whole_layers_are_shared(&what);
            let store = open(&place.store());
            assert!(store.exists(id('a').as_str()), "{what}");
            store.mount(id('a').as_str()).unwrap();
            store.unmount(id('a').as_str(), true).unwrap();
            // Made again, whatever was left of it.
            create(&store, 'b', Some('a')).unwrap();
            let merged = store.mount(id('b').as_str()).unwrap();
            assert_eq!(std::fs::read(merged.join("content")).unwrap(), b"whole", "{what}");
            store.unmount(id('b').as_str(), true).unwrap();
            place.assert_only_whole_layers_are_shared(&what);
            assert_eq!(store.refresh_shared().unwrap(), SharedChanges::default(), "{what}");
            store.close().unwrap();
            assert_eq!(place.working_files(), Vec::<PathBuf>::new(), "{what}");
            if step.is_none() {
                assert!(end > 5, "only {end} steps");
                break;
            }
        }
    }
}

#[test]
fn an_interrupted_deletion_of_a_shared_layer_is_finished_or_was_never_begun() {
    if !need_root() {
        return;
    }
    for own_mount in [false, true] {
        for end in 0.. {
            let place = Place::new(own_mount);
            let store = open(&place.store());
            create(&store, 'a', None).unwrap();
            create(&store, 'b', Some('a')).unwrap();
            store.release(&id('b')).unwrap();
            let step = crash(&place, store, end, |store| store.delete(id('b').as_str()).unwrap());
            let what = format!("own mount {own_mount}, before step {end}: {step:?}");
            place.assert_only_whole_layers_are_shared(&what);
            let store = open(&place.store());
            let listed = store.exists(id('b').as_str());
            for dir in ["overlay", "overlay-layers"] {
                assert_eq!(
                    place.store().join(dir).join("RO").join(id('b')).exists(),
                    listed,
                    "{what}: {dir}"
                );
                assert_eq!(
                    place.store().join(dir).join(id('b')).symlink_metadata().is_ok(),
                    listed,
                    "{what}: {dir}"
                );
            }
            let links = std::fs::read_dir(place.store().join("overlay/l")).unwrap().count();
            assert_eq!(links, if listed { 2 } else { 1 }, "{what}");
            assert_eq!(store.problems(), [], "{what}");
            store.close().unwrap();
            if step.is_none() {
                assert!(end > 5, "only {end} steps");
                break;
            }
        }
    }
}

#[test]
fn a_deletion_that_was_interrupted_does_not_take_the_layer_that_was_made_since() {
    if !need_root() {
        return;
    }
    let place = Place::new(false);
    let store = open(&place.store());
    create(&store, 'a', None).unwrap();
    let shared = store.disk.shared().unwrap();
    shared.note_removal(id('a').as_str(), "1.1 1.1").unwrap();
    store.close().unwrap();
    let store = open(&place.store());
    assert!(store.exists(id('a').as_str()));
    assert_eq!(store.disk.shared().unwrap().noted_removals().unwrap(), []);
}

/// Another host that makes the same layer puts data aside whose record is not there yet.
#[test]
fn a_layer_whose_data_another_host_puts_aside_meanwhile_is_not_made() {
    if !need_root() {
        return;
    }
    let place = Place::new(true);
    let store = open(&place.store());
    let data = place.store().join("overlay/RO").join(id('a'));
    let (published, aside) = (data.clone(), place.store().join("overlay/RO/aside"));
    let other_host = move |step: &str| {
        if step == "publish shared" && published.exists() {
            run(Command::new("mv").args([&published, &aside]));
        }
        Ok(())
    };
    let refused = with_hook(other_host, || create(&store, 'a', None)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(!store.exists(id('a').as_str()) && !data.exists());
    assert!(!place.store().join("overlay-layers/RO").join(id('a')).exists(), "a record without data");
    create(&store, 'a', None).unwrap();
    assert!(data.exists());
}

#[test]
fn a_deletion_does_not_take_the_data_that_another_host_makes_meanwhile() {
    if !need_root() {
        return;
    }
    for own_mount in [false, true] {
        let place = Place::new(own_mount);
        let store = open(&place.store());
        create(&store, 'a', None).unwrap();
        store.release(&id('a')).unwrap();
        let data = place.store().join("overlay/RO").join(id('a'));
        let note = place.store().join(".isula-storage/overlay-layers/remote-removals").join(id('a').as_str());
        let (of_other, mut is_first) = (data.clone(), true);
        let other_host = move |_: &str| {
            // Once it is noted what is to be removed.
            if note.exists() && std::mem::take(&mut is_first) {
                std::fs::remove_dir_all(&of_other).unwrap();
                std::fs::create_dir_all(of_other.join("diff/of the other host")).unwrap();
            }
            Ok(())
        };
        with_hook(other_host, || store.delete(id('a').as_str())).unwrap();
        assert!(!store.exists(id('a').as_str()));
        store.close().unwrap();
        let store = open(&place.store());
        assert!(data.join("diff/of the other host").exists(), "{own_mount}");
        assert_eq!(store.disk.shared().unwrap().noted_removals().unwrap(), []);
    }
}

#[test]
fn a_disk_that_fails_leaves_nothing_of_a_new_shared_layer() {
    if !need_root() {
        return;
    }
    for own_mount in [false, true] {
        for end in 0.. {
            let place = Place::new(own_mount);
            let store = open(&place.store());
            let count = Cell::new(0);
            let fail = move |_: &str| {
                count.set(count.get() + 1);
                if count.get() == end + 1 {
                    Err(Error::new(ErrorKind::Os(libc::EIO), "the disk failed"))
                } else {
                    Ok(())
                }
            };
            let made = with_hook(fail, || create(&store, 'a', None));
            if made.is_ok() {
                assert!(end > 5, "only {end} steps");
                break;
            }
            assert!(!store.exists(id('a').as_str()));
            place.assert_only_whole_layers_are_shared(&format!("own mount {own_mount}, step {end}"));
            create(&store, 'a', None).unwrap();
            assert!(store.exists(id('a').as_str()));
        }
    }
}
