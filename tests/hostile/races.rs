// SPDX-License-Identifier: MulanPSL-2.0
//! Two processes and eight threads that create and delete the same ids.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use isula_storage::error::ErrorKind;
use isula_storage::layer::{CreateLayer, Created};
use isula_storage::storage::{Storage, StorageOptions};

use crate::archive_common::Tar;
use crate::common::{mounts_below, need_root};
use crate::harness::{DRIVERS, World, at_most, base_id, id_of};

const THREADS: usize = 8;
const IDS: usize = 4;

/// Large enough for threads of its own when the number is odd.
fn archive(number: usize) -> Vec<u8> {
    let content = if number % 2 == 1 { at_most(600, 520) << 10 } else { 100 };
    Tar::new().dir("d/").file(format!("d/f{number}"), vec![b'x'; content]).end()
}

/// Each thread creates and deletes the same few layers, in another order. Gives how many were made and deleted.
fn fight(storage: &Storage, rounds: usize) -> (usize, usize) {
    let (made, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (made, refused) = (&made, &refused);
            scope.spawn(move || {
                for round in 0..rounds {
                    one(storage, (thread * 3 + round) % IDS, made, refused);
                }
            });
        }
    });
    (made.into_inner(), refused.into_inner())
}

fn one(storage: &Storage, number: usize, made: &AtomicUsize, refused: &AtomicUsize) {
    let id = id_of(&format!("fought for {number}"));
    let layers = storage.layers();
    // The last stands on the first: a delete below it is refused, a create above a deleted one too.
    let parent = if number == IDS - 1 { id_of("fought for 0") } else { base_id() };
    let create = CreateLayer { parent: Some(parent), ..CreateLayer::default() };
    let archive = archive(number);
    match layers.create(&id, &create, Some(&mut archive.as_slice())) {
        Ok(Created::New(new)) => {
            assert_eq!(new, id);
            made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Created::Existing(_)) => {}
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Mounted by one, deleted by another.
    match layers.mount(id.as_str()) {
        Ok(_) => layers.unmount(id.as_str(), false).unwrap(),
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InUse),
            "mount: {}",
            error.report()
        ),
    }
    match layers.delete(id.as_str()) {
        Ok(()) => {}
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn eight_threads_that_fight_for_ids_leave_a_sound_store() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::on_disk(driver, 64 << 20, &[]);
        let (made, _) = fight(world.storage(), at_most(25, 4));
        assert!(made > 0, "{driver}: nothing was made");
        for number in (0..IDS).rev() {
            world.layers().delete(id_of(&format!("fought for {number}")).as_str()).unwrap();
        }
        world.assert_clean("threads");
        world.end();
    }
}

const CHILD: &str = "ISULA_STORAGE_TEST_FIGHTER";
const DRIVER: &str = "ISULA_STORAGE_TEST_FIGHTER_DRIVER";

/// Runs only as a child: has the store, whenever it can, and fights for the ids in eight threads.
#[test]
fn fights_for_ids() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    let options = StorageOptions {
        driver: std::env::var(DRIVER).unwrap(),
        ..StorageOptions::new(Path::new(&root).join("root"), Path::new(&root).join("run"))
    };
    let mut turns = 0;
    let mut tries = 0..20_000;
    while turns < at_most(6, 2) {
        match Storage::open(options.clone()) {
            Ok(storage) => {
                fight(&storage, 3);
                let report = storage.check(true).unwrap();
                let found: Vec<_> = report
                    .findings
                    .iter()
                    .filter(|finding| !finding.reason.starts_with("no image"))
                    .collect();
                assert!(found.is_empty(), "{found:?}");
                storage.close().unwrap();
                turns += 1;
                std::thread::yield_now();
            }
            // The other one has it, and says so.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
                assert!(error.report().contains("in use"), "{}", error.report());
                assert!(tries.next().is_some(), "the other process never lets go");
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }
}

#[test]
fn two_processes_that_fight_for_ids_leave_a_sound_store() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let mut world = World::on_disk(driver, 64 << 20, &[]);
        let store = world.path().join("store");
        let others = world.closed(|| {
            let start = || {
                let mut child = Command::new(std::env::current_exe().unwrap());
                child.args(["--exact", "races::fights_for_ids", "--nocapture"]);
                child.env(CHILD, &store).env(DRIVER, driver).stdin(Stdio::null());
                child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            };
            let others = [start(), start()];
            others.map(|other| other.wait_with_output().unwrap())
        });
        for other in others {
            let text =
                String::from_utf8_lossy(&other.stdout).into_owned() + &String::from_utf8_lossy(&other.stderr);
            assert!(other.status.success() && text.contains("1 passed"), "{driver}: {text}");
        }
        for number in (0..IDS).rev() {
            world.layers().delete(id_of(&format!("fought for {number}")).as_str()).unwrap();
        }
        assert!(mounts_below(&store.join("run")).is_empty());
        world.assert_clean("processes");
        world.end();
    }
}
