// SPDX-License-Identifier: MulanPSL-2.0
//! Killed before every single change that the creation or deletion of a container or an image makes, or the change fails.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use super::common::TestRoot;
use super::storages::*;
use crate::error::{Error, ErrorKind};
use crate::persist::with_hook;
use crate::storage::Storage;

/// What is done to a storage with image `img:1` and container 1.
struct Scenario {
    name: &'static str,
    before: fn(&Storage),
    act: fn(&Storage) -> crate::error::Result<()>,
    /// What is there when it was not done, and when it was: containers, images, number of layers.
    old: (&'static str, usize, usize),
    new: (&'static str, usize, usize),
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "create a container",
        before: |_| {},
        act: |storage| storage.create_container(&container('2', "img:1")).map(drop),
        old: ("1", 1, 3),
        new: ("12", 1, 4),
    },
    Scenario {
        name: "delete a container",
        before: |storage| drop(add_container(storage, '2', "img:1")),
        act: |storage| storage.delete_container(&id('2')).map(drop),
        old: ("12", 1, 4),
        new: ("1", 1, 3),
    },
    Scenario {
        name: "delete a mounted container",
        before: |storage| {
            add_container(storage, '2', "img:1");
            storage.mount_container(&id('2')).unwrap();
        },
        act: |storage| storage.delete_container(&id('2')).map(drop),
        old: ("12", 1, 4),
        new: ("1", 1, 3),
    },
    Scenario {
        name: "make a container of a layer that is there",
        before: |storage| {
            add_container(storage, '2', "img:1");
            storage.containers().unwrap().delete(&id('2')).unwrap();
        },
        act: |storage| storage.create_container(&container('2', "img:1")).map(drop),
        // Its layer, with what is in it, stays in any case.
        old: ("1", 1, 4),
        new: ("12", 1, 4),
    },
    Scenario {
        name: "delete an image",
        before: |storage| drop(add_image(storage, &["a", "c", "d"], &["other:1"])),
        act: |storage| storage.delete_image("other:1").map(drop),
        old: ("1", 2, 5),
        new: ("1", 1, 3),
    },
];

fn prepared(scenario: &Scenario) -> (TestRoot, Storage) {
    let place = TestRoot::in_memory("facade-crash");
    let storage = open(place.path());
    add_image(&storage, &["a", "b"], &["img:1"]);
    add_container(&storage, '1', "img:1");
    (scenario.before)(&storage);
    (place, storage)
}

/// Copies a tree; what is removed meanwhile (the trash is being emptied) is not copied.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&from, &to),
            _ => drop(std::fs::copy(&from, &to)),
        }
    }
}

fn state(storage: &Storage) -> (String, usize, usize) {
    let digits = containers(storage).iter().filter_map(|id| id.chars().next()).collect();
    (digits, images(storage).len(), layers(storage).len())
}

/// Everything that is listed is whole; container 1 has what it had. Gives whether the change was made.
fn judge(scenario: &Scenario, storage: &Storage, what: &str) -> bool {
    assert!(storage.containers().unwrap().unfinished().is_empty(), "{what}");
    assert_eq!(content(storage, &id('1')).get("own"), Some(&id('1')), "{what}");
    for container in containers(storage) {
        assert!(content(storage, &container).contains_key("b"), "{what}: {container}");
    }
    if scenario.name.starts_with("make a container") {
        assert!(storage.layers().exists(&id('2')), "{what}");
    }
    assert!(storage.images().exists("img:1"), "{what}");
    // A chain that was cut short is reported, and stays.
    let chain_left = scenario.name == "delete an image" && images(storage).len() == 1;
    let mut state = state(storage);
    if chain_left {
        assert!((3..=5).contains(&state.2), "{what}: {state:?}");
        for layer in storage.layers().list().into_iter().rev() {
            storage.delete_unused_chain(&layer.id).unwrap();
        }
        state.2 = layers(storage).len();
    } else {
        let others = problems(storage).into_iter().filter(|text| !text.contains("no container has it"));
        assert_eq!(others.collect::<Vec<_>>(), [""; 0], "{what}");
    }
    let shape = |wanted: (&str, usize, usize)| (wanted.0.to_owned(), wanted.1, wanted.2);
    assert!(state == shape(scenario.old) || state == shape(scenario.new), "{what}: {state:?}");
    state == shape(scenario.new)
}

#[test]
fn a_change_of_the_storage_that_is_cut_short_anywhere_is_finished_or_taken_back() {
    for scenario in SCENARIOS {
        let (place, storage) = prepared(scenario);
        let worlds: Rc<RefCell<Vec<(String, TestRoot)>>> = Rc::default();
        let root = place.path().to_owned();
        let taken = worlds.clone();
        let take = move |step: &'static str| {
            let copied = TestRoot::in_memory("facade-crash");
            copy(&root, copied.path());
            taken.borrow_mut().push((step.to_owned(), copied));
            Ok(())
        };
        with_hook(take.clone(), || (scenario.act)(&storage).unwrap());
        take("the end").unwrap();
        let worlds = worlds.take();
        assert!(worlds.len() > 4, "{}: {} changes", scenario.name, worlds.len());
        let mut made = Vec::new();
        for (number, (step, place)) in worlds.iter().enumerate() {
            let what = format!("{}: killed before change {number}, {step}", scenario.name);
            let storage = open(place.path());
            made.push(judge(scenario, &storage, &what));
            // It can be done again, and undone.
            if !made[number] {
                (scenario.act)(&storage).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
                assert!(judge(scenario, &storage, &what), "{what}");
            }
            drop(storage);
            assert!(judge(scenario, &open(place.path()), &what), "{what}");
        }
        assert!(made[worlds.len() - 1], "{}", scenario.name);
        assert!(made.is_sorted(), "{}: once made, it stays made: {made:?}", scenario.name);
    }
}

#[test]
fn a_change_of_the_storage_whose_disk_fails_anywhere_is_made_or_not_made() {
    for scenario in SCENARIOS {
        for failing in 1.. {
            let (place, storage) = prepared(scenario);
            let reached = Rc::new(RefCell::new(None));
            let (at, mut number) = (reached.clone(), 0);
            let fail = move |step| {
                number += 1;
                if number == failing {
                    *at.borrow_mut() = Some(step);
                    return Err(Error::new(ErrorKind::Os(libc::EIO), "bad disk"));
                }
                Ok(())
            };
            let result = with_hook(fail, || (scenario.act)(&storage));
            let Some(step) = reached.take() else {
                assert!(failing > 4, "{}: only {failing} changes", scenario.name);
                break;
            };
            let what =
                format!("{}: change {failing}, {step}, fails: {:?}", scenario.name, result.as_ref().err());
            drop(storage);
            let storage = open(place.path());
            let made = judge(scenario, &storage, &what);
            assert!(made || result.is_err(), "{what}");
            if !made {
                (scenario.act)(&storage).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
                assert!(judge(scenario, &storage, &what), "{what}");
            }
        }
    }
}
