// SPDX-License-Identifier: MulanPSL-2.0
//! Killed, or without power, before any step of a change: what was listed before is there and whole.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use super::*;
use crate::persist::with_hook;
use crate::sys::power::cut_power;
use crate::sys::testing::{TestRoot, loop_ext4, need_root};

/// Something done to a store of images 1 (`one:1`, `name:1`) and 2 (`two:1`), and what must hold after a start.
struct Scenario {
    name: &'static str,
    /// Done by whoever had the store before.
    before: fn(&Path),
    act: fn(&Path) -> Result<()>,
    /// `done`: `act` had returned.
    check: fn(&ImageStore, bool, &str),
}

fn nothing(_: &Path) {}

/// The one image that has a name.
fn holder(store: &ImageStore, name: &str, at: &str) -> String {
    let holders: Vec<_> = store
        .list()
        .expect(at)
        .iter()
        .filter(|image| image.names.iter().any(|n| n == name))
        .cloned()
        .collect();
    assert_eq!(holders.len(), 1, "{at}: {name}");
    assert_eq!(store.lookup(name).expect(at).as_str(), holders[0].id.as_deref().unwrap(), "{at}");
    holders[0].id.clone().unwrap()
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "store a new image",
        before: nothing,
        act: |path| sample(3).store(&open(path)?, &["three:1", "name:1"]),
        check: |store, done, at| {
            let new = sample(3);
            if store.exists(&new.id) {
                new.assert_whole(store, at);
                assert_eq!(holder(store, "name:1", at), new.id, "{at}");
            } else {
                assert!(!done, "{at}");
                // An attempt that was interrupted can be made again.
                new.store(store, &["three:1"]).expect(at);
                new.assert_whole(store, at);
            }
        },
    },
    Scenario {
        name: "move a name",
        before: nothing,
        act: |path| open(path)?.add_name(&sample(2).id, "name:1"),
        check: |store, done, at| {
            let holder = holder(store, "name:1", at);
            assert!(holder == sample(2).id || (!done && holder == sample(1).id), "{at}");
            assert!(store.exists("one:1") && store.exists("two:1"), "{at}");
        },
    },
    Scenario {
        name: "replace names",
        before: nothing,
        act: |path| open(path)?.set_names(&sample(2).id, &["name:1".into(), "one:1".into()]),
        check: |store, done, at| {
            let names = (holder(store, "name:1", at), holder(store, "one:1", at));
            let both = |id: String| (id.clone(), id);
            assert!(names == both(sample(2).id) || (!done && names == both(sample(1).id)), "{at}");
        },
    },
    Scenario {
        name: "set small things",
        before: nothing,
        act: |path| {
            let store = open(path)?;
            store.set_size("one:1", 7)?;
            store.set_metadata("one:1", "text")?;
            store.set_loaded("one:1", Timestamp { seconds: 1, nanos: 0 })
        },
        check: |store, done, at| {
            let record = store.get(&sample(1).id).expect(at);
            assert!(record.size == 7 || (!done && record.size == 0), "{at}");
            assert!(record.metadata.is_none() || record.size == 7, "{at}");
            assert!(record.metadata.is_some() || !done, "{at}");
        },
    },
    Scenario {
        name: "store big data",
        before: nothing,
        act: |path| open(path)?.set_big_data("one:1", "extra", b"data"),
        check: |store, done, at| {
            let recorded = store.big_data_names("one:1").expect(at).contains(&"extra".to_owned());
            assert!(recorded || !done, "{at}");
            if recorded {
                assert_eq!(store.big_data("one:1", "extra").expect(at), b"data", "{at}");
            }
            assert_eq!(store.check().expect(at), [], "{at}");
        },
    },
    Scenario {
        name: "delete",
        before: |path| sample(3).store(&open(path).unwrap(), &["three:1"]).unwrap(),
        act: |path| open(path)?.delete("three:1").map(drop),
        check: |store, done, at| {
            assert!(!done || !store.exists("three:1"), "{at}");
            if store.exists("three:1") {
                sample(3).assert_whole(store, at);
            }
            let trash =
                store.root.open_dir(".isula-storage").and_then(|state| state.open_dir("trash")).expect(at);
            assert_eq!(trash.entries().expect(at).len(), 0, "the start empties the trash, {at}");
        },
    },
    Scenario {
        name: "put aside and bring back",
        before: |path| sample(3).store(&open(path).unwrap(), &["three:1"]).unwrap(),
        act: |path| {
            let store = open(path)?;
            let entry = store.quarantine("three:1", "test")?;
            store.restore(&entry)
        },
        check: |store, done, at| {
            if store.exists("three:1") {
                sample(3).assert_whole(store, at);
                assert_eq!(store.quarantined().expect(at), [], "{at}");
            } else {
                assert!(!done && store.quarantined().expect(at).len() == 1, "{at}");
            }
        },
    },
    Scenario {
        name: "convert",
        before: |path| {
            plant_schema1(path);
        },
        act: |path| open(path).map(drop),
        check: |store, _, at| {
            assert_eq!(store.problems(), [], "{at}");
            let id = holder(store, "old:1", at);
            assert_ne!(id, "1".repeat(64), "{at}");
            assert_eq!(store.config(&id).expect(at).rootfs.diff_ids, ["sha256:b"], "{at}");
            assert_eq!(store.check().expect(at), [], "{at}");
            assert_eq!(store.quarantined().expect(at), [], "{at}");
            assert_eq!(store.count().expect(at), 3, "{at}");
        },
    },
    Scenario {
        name: "put aside at a start",
        before: |path| {
            sample(3).store(&open(path).unwrap(), &["three:1"]).unwrap();
            std::fs::write(path.join(sample(3).id).join(files::RECORD), "{").unwrap();
        },
        act: |path| open(path).map(drop),
        check: |store, _, at| {
            assert_eq!(store.quarantined().expect(at).len(), 1, "{at}");
            assert!(!store.exists(&sample(3).id), "{at}");
        },
    },
];

fn prepare(path: &Path, scenario: &Scenario) {
    std::fs::create_dir(path).unwrap();
    let store = open(path).unwrap();
    sample(1).store(&store, &["one:1", "name:1"]).unwrap();
    sample(2).store(&store, &["two:1"]).unwrap();
    drop(store);
    (scenario.before)(path);
}

/// Starts again and looks at everything.
fn check(path: &Path, scenario: &Scenario, done: bool, at: &str) {
    let store = open(path).unwrap_or_else(|error| panic!("{at}: {}", error.report()));
    sample(1).assert_whole(&store, at);
    sample(2).assert_whole(&store, at);
    (scenario.check)(&store, done, at);
    for image in store.list().expect(at) {
        let dir = store.root.open_dir(image.id.as_deref().unwrap()).expect(at);
        let left = dir
            .entries()
            .expect(at)
            .into_iter()
            .find(|entry| entry.name.to_string_lossy().starts_with(".tmp-"));
        assert!(left.is_none(), "{at}: {left:?}");
    }
}

#[test]
fn a_process_killed_at_any_step_leaves_every_image_whole() {
    for scenario in SCENARIOS {
        let root = TestRoot::in_memory("image-killed");
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
fn a_power_cut_at_any_step_leaves_every_image_whole() {
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
