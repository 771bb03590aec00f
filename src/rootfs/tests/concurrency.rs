// SPDX-License-Identifier: MulanPSL-2.0
//! Who waits for whom.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::sys::testing::TestRoot;

#[test]
fn eight_threads_create_and_delete_the_same_ids() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 40;
    let root = TestRoot::in_memory("rootfs-threads");
    let store = open(root.path()).unwrap();
    let (created, deleted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (store, start, created, deleted) = (&store, &start, &created, &deleted);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let digit = char::from_digit(u32::try_from((number + round) % 4).unwrap(), 16).unwrap();
                    let result = match round % 2 {
                        0 => store.create(&new(digit)),
                        _ => store.begin(&new(digit), |_| Ok(())).and_then(Staged::publish),
                    };
                    match result {
                        Ok(_) => created.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.report());
                            0
                        }
                    };
                    let _either = store.set_metadata(id(digit).as_str(), "m").is_ok();
                    if let Ok(record) = store.get(id(digit).as_str()) {
                        assert_eq!(record.layer.as_deref(), Some(id(digit).as_str()));
                    }
                    assert!(store.list().unwrap().len() <= 4);
                    let gone = match round % 3 {
                        0 => store.delete(id(digit).as_str()).unwrap(),
                        _ => match store.begin_removal(id(digit).as_str()).unwrap() {
                            Some(removal) if round % 3 == 1 => removal.finish().map(|()| true).unwrap(),
                            Some(removal) => removal.undo().map(|()| false).unwrap(),
                            None => false,
                        },
                    };
                    deleted.fetch_add(usize::from(gone), Ordering::Relaxed);
                }
            });
        }
    });
    let (created, deleted) = (created.into_inner(), deleted.into_inner());
    assert!(created > ROUNDS, "{created}");
    assert_eq!(store.list().unwrap().len(), created - deleted);
    let left = ids(&store);
    drop(store);
    let store = open(root.path()).unwrap();
    let (mut again, mut left) = (ids(&store), left);
    again.sort();
    left.sort();
    assert_eq!(again, left);
    assert!(store.problems().is_empty() && store.unfinished().is_empty());
    assert_eq!(store.quarantined().unwrap(), []);
}

#[test]
fn lookups_do_not_wait_for_a_creation_and_do_not_see_it() {
    let root = TestRoot::in_memory("rootfs-lookups");
    let store = open(root.path()).unwrap();
    store.create(&new('1')).unwrap();
    let staged = store.begin(&new('2'), |_| Ok(())).unwrap();
    assert_eq!(ids(&store), [id('1').to_string()]);
    assert!(!store.exists(id('2').as_str()));
    store.set_metadata(id('1').as_str(), "others go on").unwrap();
    let error = store.create(&new('2')).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "the same thread would wait for itself: {}", error.report());
    staged.publish().unwrap();
    assert!(store.exists(id('2').as_str()));
}

#[test]
fn a_second_creation_waits_for_the_first_and_then_sees_it() {
    let root = TestRoot::in_memory("rootfs-second");
    let store = open(root.path()).unwrap();
    for publish in [true, false] {
        let digit = if publish { '1' } else { '2' };
        let staged = store.begin(&new(digit), |_| Ok(())).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| store.create(&new(digit)).map_err(|error| error.kind()));
            if publish {
                staged.publish().unwrap();
            } else {
                drop(staged);
            }
            let expected = if publish { Err(ErrorKind::AlreadyExists) } else { Ok(id(digit)) };
            assert_eq!(second.join().unwrap(), expected);
        });
    }
}

#[test]
fn a_layer_that_exists_is_never_taken_for_one_of_an_interrupted_creation() {
    let root = TestRoot::in_memory("rootfs-vacant");
    let store = open(root.path()).unwrap();
    let refuse = |layer: &str| {
        assert_eq!(layer, id('1').as_str());
        let creating = root.path().join(".isula-storage/overlay-containers/creating");
        assert_eq!(std::fs::read_dir(creating).unwrap().count(), 0, "asked before anything is written");
        Err(Error::new(ErrorKind::AlreadyExists, "such a layer exists"))
    };
    let error = store.begin(&new('1'), refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    drop(store);
    assert_eq!(unfinished(&open(root.path()).unwrap()), [""; 0]);
}
