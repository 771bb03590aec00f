// SPDX-License-Identifier: MulanPSL-2.0
//! Killed, or without power, before any step of a change: every container is whole, or known to be unfinished.
//!
//! A layer is played by a directory `layers/<id>`, so that what a crash leaves of it can be looked at, too.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::persist::{step, with_hook};
use crate::sys::power::cut_power;
use crate::sys::testing::{TestRoot, loop_ext4, need_root};

/// Something done to a store of container 1, and what must hold after a start.
struct Scenario {
    name: &'static str,
    /// Done by whoever had the store before.
    before: fn(&Path),
    act: fn(&Path) -> Result<()>,
    /// `done`: `act` had returned.
    check: fn(&RootfsStore, &Path, bool, &str),
}

fn layer(path: &Path, digit: char) -> PathBuf {
    path.join("layers").join(id(digit))
}

fn make_layer(path: &Path, digit: char) -> Result<()> {
    step("make the layer")?;
    let layers = Dir::create_all(&path.join("layers"), 0o700)?;
    layers.create_dir(id(digit).as_str(), 0o700)?;
    layers.sync()
}

fn delete_layer(path: &Path, digit: char) -> Result<()> {
    step("delete the layer")?;
    let layers = Dir::create_all(&path.join("layers"), 0o700)?;
    layers.remove_all(id(digit).as_str())?;
    step("sync the layer's deletion")?;
    layers.sync()
}

/// Creates a container with its layer, as the facade does.
fn create(path: &Path, digit: char) -> Result<()> {
    let store = open(path)?;
    let staged = store.begin(&new(digit), |layer| {
        assert_eq!(layer, id(digit).as_str());
        Ok(())
    })?;
    make_layer(path, digit)?;
    staged.publish().map(drop)
}

fn remove(path: &Path, digit: char) -> Result<()> {
    let store = open(path)?;
    let removal = store.begin_removal(id(digit).as_str())?.unwrap();
    delete_layer(path, digit)?;
    removal.finish()
}

fn with_two(path: &Path) {
    create(path, '2').unwrap();
}

/// What a start does, and after it: a container has its layer, and no layer is without its container.
fn settle(store: &RootfsStore, path: &Path, at: &str) {
    for record in store.unfinished() {
        let container = ContainerId::new(record.id.as_deref().unwrap()).unwrap();
        assert_eq!(container, id('2'), "{at}");
        assert!(!store.exists(container.as_str()), "{at}");
        let error = store.create(&new('2')).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse, "{at}: {}", error.report());
        delete_layer(path, '2').unwrap();
        store.settled(&container).unwrap();
    }
    assert_eq!(unfinished(store), [""; 0], "{at}");
    assert_eq!(store.exists(id('2').as_str()), layer(path, '2').exists(), "{at}");
}

/// A creation or deletion ends as if it had been made, or never been asked for.
fn check_pair(store: &RootfsStore, path: &Path, at: &str) {
    settle(store, path, at);
    if store.exists(id('2').as_str()) {
        assert_whole(store, '2', at);
    } else {
        let staged = store.begin(&new('2'), |_| Ok(())).unwrap();
        staged.publish().unwrap();
        assert_whole(store, '2', at);
    }
    assert_eq!(store.quarantined().unwrap(), [], "{at}");
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "create with a layer",
        before: |_| {},
        act: |path| create(path, '2'),
        check: |store, path, done, at| {
            assert!(!done || store.exists(id('2').as_str()), "{at}");
            check_pair(store, path, at);
        },
    },
    Scenario {
        name: "delete with a layer",
        before: with_two,
        act: |path| remove(path, '2'),
        check: |store, path, done, at| {
            assert!(!done || !store.exists(id('2').as_str()), "{at}");
            check_pair(store, path, at);
        },
    },
    Scenario {
        name: "take a creation back",
        before: |_| {},
        act: |path| {
            let store = open(path)?;
            drop(store.begin(&new('2'), |_| Ok(()))?);
            Ok(())
        },
        // A failure to take it back cannot be told: the next start does it.
        check: |store, path, _, at| check_pair(store, path, at),
    },
    Scenario {
        name: "take a deletion back",
        before: with_two,
        act: |path| {
            let store = open(path)?;
            store.begin_removal(id('2').as_str())?.unwrap().undo()
        },
        check: |store, path, done, at| {
            assert!(!done || store.exists(id('2').as_str()), "{at}");
            check_pair(store, path, at);
        },
    },
    Scenario {
        name: "create a record alone",
        before: |path| make_layer(path, '2').unwrap(),
        act: |path| open(path)?.create(&new('2')).map(drop),
        check: |store, path, done, at| {
            assert_eq!(unfinished(store), [""; 0], "{at}");
            assert!(layer(path, '2').exists(), "{at}: the layer was there before");
            assert!(!done || store.exists(id('2').as_str()), "{at}");
        },
    },
    Scenario {
        name: "delete a record alone",
        before: with_two,
        act: |path| open(path)?.delete(id('2').as_str()).map(drop),
        check: |store, path, done, at| {
            assert_eq!(unfinished(store), [""; 0], "{at}");
            assert!(layer(path, '2').exists(), "{at}: nobody asked for the layer's deletion");
            assert!(!done || !store.exists(id('2').as_str()), "{at}");
        },
    },
    Scenario {
        name: "set metadata",
        before: with_two,
        act: |path| open(path)?.set_metadata(id('2').as_str(), "text"),
        check: |store, _, done, at| {
            assert_whole(store, '2', at);
            let metadata = store.get(id('2').as_str()).unwrap().metadata.clone();
            assert!(metadata.as_deref() == Some("text") || (!done && metadata.is_none()), "{at}");
        },
    },
    Scenario {
        name: "put aside and bring back",
        before: with_two,
        act: |path| {
            let store = open(path)?;
            let entry = store.quarantine(id('2').as_str(), "test")?;
            store.restore(&entry)
        },
        check: |store, _, done, at| {
            if store.exists(id('2').as_str()) {
                assert_whole(store, '2', at);
                assert_eq!(store.quarantined().unwrap(), [], "{at}");
            } else {
                assert!(!done && store.quarantined().unwrap().len() == 1, "{at}");
            }
        },
    },
    Scenario {
        name: "put aside at a start",
        before: |path| {
            with_two(path);
            std::fs::write(path.join("overlay-containers").join(id('2')).join(disk::RECORD), "{").unwrap();
        },
        act: |path| open(path).map(drop),
        check: |store, path, _, at| {
            assert_eq!(store.quarantined().unwrap().len(), 1, "{at}");
            assert!(!store.exists(id('2').as_str()) && layer(path, '2').exists(), "{at}");
            assert_eq!(unfinished(store), [""; 0], "{at}");
        },
    },
    Scenario {
        name: "finish a deletion at a start",
        before: |path| {
            with_two(path);
            // As a process leaves it that is killed between the two steps.
            let removing = path.join(".isula-storage/overlay-containers/removing");
            std::fs::rename(path.join("overlay-containers").join(id('2')), removing.join(id('2'))).unwrap();
        },
        act: |path| {
            let store = open(path)?;
            assert_eq!(unfinished(&store), [id('2').to_string()]);
            delete_layer(path, '2')?;
            store.settled(&id('2'))
        },
        check: |store, path, done, at| {
            assert!(!done || !layer(path, '2').exists(), "{at}");
            settle(store, path, at);
            assert!(!layer(path, '2').exists() && !store.exists(id('2').as_str()), "{at}");
        },
    },
];

fn prepare(path: &Path, scenario: &Scenario) {
    std::fs::create_dir(path).unwrap();
    create(path, '1').unwrap();
    (scenario.before)(path);
}

/// Starts again and looks at everything.
fn check(path: &Path, scenario: &Scenario, done: bool, at: &str) {
    let store = open(path).unwrap_or_else(|error| panic!("{at}: {}", error.report()));
    assert_whole(&store, '1', at);
    assert!(layer(path, '1').exists(), "{at}");
    (scenario.check)(&store, path, done, at);
    for part in [disk::MAKING, disk::CREATING, disk::REMOVING, "trash"] {
        let part = path.join(".isula-storage/overlay-containers").join(part);
        assert_eq!(std::fs::read_dir(&part).unwrap().count(), 0, "{at}: {}", part.display());
    }
    for record in store.list().unwrap() {
        let dir = path.join("overlay-containers").join(record.id.as_deref().unwrap());
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "{at}");
    }
}

#[test]
fn a_process_killed_at_any_step_leaves_every_container_whole_or_known_as_unfinished() {
    for scenario in SCENARIOS {
        let root = TestRoot::in_memory("rootfs-killed");
        prepare(&root.join("store"), scenario);
        let parent = Dir::open(root.path()).unwrap();
        let snapshots = Rc::new(RefCell::new(Vec::new()));
        let taken = Rc::clone(&snapshots);
        let hook = move |step: &'static str| {
            let name = format!("snapshot {} before {step}", taken.borrow().len());
            parent.copy_tree("store", &parent, &name)?;
            taken.borrow_mut().push(name);
            Ok(())
        };
        with_hook(hook, || (scenario.act)(&root.join("store"))).unwrap();
        let snapshots = snapshots.take();
        assert!(snapshots.len() >= 5, "{}: {snapshots:?}", scenario.name);
        for snapshot in snapshots {
            let at = format!("{}, {snapshot}", scenario.name);
            check(&root.join(&snapshot), scenario, false, &at);
        }
        check(&root.join("store"), scenario, true, scenario.name);
    }
}

fn count_steps(path: &Path, scenario: &Scenario) -> usize {
    let count = Rc::new(RefCell::new(0));
    let counter = Rc::clone(&count);
    let hook = move |_: &str| {
        *counter.borrow_mut() += 1;
        Ok(())
    };
    with_hook(hook, || (scenario.act)(path)).unwrap();
    count.take()
}

#[test]
fn a_power_cut_at_any_step_leaves_every_container_whole_or_known_as_unfinished() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(32 << 20);
    for scenario in SCENARIOS {
        let store = |name: &str| -> PathBuf {
            let path = disk.join(format!("{} {name}", scenario.name));
            prepare(&path, scenario);
            path
        };
        let steps = count_steps(&store("counted"), scenario);
        for number in 0..=steps {
            let path = store(&number.to_string());
            Dir::open(&path).unwrap().sync_fs().unwrap();
            let top = disk.path();
            let mut left = Some(number);
            let hook = move |_: &str| {
                match left {
                    Some(0) => {
                        left = None;
                        cut_power(&top);
                    }
                    Some(more) => left = Some(more - 1),
                    None => {}
                }
                Ok(())
            };
            let done = with_hook(hook, || (scenario.act)(&path)).is_ok();
            cut_power(&disk.path());
            disk.remount();
            let at = format!("{}, power cut before step {number} of {steps}", scenario.name);
            assert!(done || number < steps, "{at}");
            check(&path, scenario, done, &at);
        }
    }
}
