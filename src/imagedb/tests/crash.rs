// SPDX-License-Identifier: MulanPSL-2.0
//! Killed, without power, or with a disk that fails, before any step of a change.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::persist::with_hook;
use crate::sys::fs::Dir;
use crate::sys::power::cut_power;
use crate::sys::testing::{loop_ext4, need_root};

/// Something done to a store with a grandparent, a parent and a child, and what must hold after a start.
struct Scenario {
    name: &'static str,
    act: fn(&ImageDb) -> Result<()>,
    /// `done`: `act` had returned.
    check: fn(&ImageDb, bool, &str),
}

fn layer() -> Digest {
    diff("base")
}

fn id_of(name: &str) -> Digest {
    Digest::of(&config_of(name))
}

fn config_of(name: &str) -> Vec<u8> {
    layered(name, &[layer()])
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "create",
        act: |db| db.create(&config_of("new")).map(drop),
        check: |db, done, at| {
            assert!(db.exists(&id_of("new")) || !done, "{at}");
            if !db.exists(&id_of("new")) {
                fails(db.get(&id_of("new")), ErrorKind::NotFound, "failed to get digest");
            }
            assert_eq!(db.create(&config_of("new")).expect(at), id_of("new"), "{at}");
            assert_eq!(db.get_with_bytes(&id_of("new")).expect(at).1, config_of("new"), "{at}");
        },
    },
    Scenario {
        name: "delete a parent",
        act: |db| db.delete(&id_of("parent")).map(drop),
        check: |db, done, at| {
            let (parent, child) = (id_of("parent"), id_of("child"));
            if db.exists(&parent) {
                assert!(!done, "{at}");
                assert_eq!(db.parent(&parent).expect(at), id_of("grandparent"), "{at}");
                assert!(db.last_updated(&parent).expect(at).is_some(), "{at}");
                assert!(db.is_built_locally(&parent).expect(at), "{at}");
                assert_eq!(db.children(&parent), [child], "{at}");
            } else {
                assert_eq!(ids(&db.heads()), sorted(vec![id_of("grandparent"), child]), "{at}");
                // Made again it inherits nothing.
                db.create(&config_of("parent")).expect(at);
                assert!(db.parent(&parent).is_err() && !db.is_built_locally(&parent).expect(at), "{at}");
            }
        },
    },
    Scenario {
        name: "set another parent",
        act: |db| db.set_parent(&id_of("child"), &id_of("grandparent")),
        check: |db, done, at| {
            let (old, new) = (id_of("parent"), id_of("grandparent"));
            let parent = db.parent(&id_of("child")).expect(at);
            assert!(parent == new || (parent == old && !done), "{at}");
            assert!(db.children(&parent).contains(&id_of("child")), "{at}");
        },
    },
    Scenario {
        name: "set a first value",
        act: |db| db.set_last_updated(&id_of("grandparent")),
        check: |db, done, at| {
            assert!(db.last_updated(&id_of("grandparent")).expect(at).is_some() || !done, "{at}");
        },
    },
    Scenario {
        name: "move a name",
        act: |db| db.add_name("name:1", &id_of("child"), true),
        check: |db, done, at| {
            let image = db.by_name("name:1").expect(at);
            assert!(image == id_of("child") || (image == id_of("parent") && !done), "{at}");
        },
    },
    Scenario {
        name: "delete a name",
        act: |db| db.delete_name("name:1"),
        check: |db, done, at| {
            assert!(db.by_name("name:1").is_err() || !done, "{at}");
        },
    },
];

fn prepare(path: &Path) {
    std::fs::create_dir(path).unwrap();
    let db = open(path, FakeLayers::with(&[layer()])).unwrap();
    for name in ["grandparent", "parent", "child"] {
        db.create(&config_of(name)).unwrap();
    }
    db.set_parent(&id_of("parent"), &id_of("grandparent")).unwrap();
    db.set_parent(&id_of("child"), &id_of("parent")).unwrap();
    db.set_last_updated(&id_of("parent")).unwrap();
    db.set_built_locally(&id_of("parent")).unwrap();
    db.add_name("name:1", &id_of("parent"), false).unwrap();
}

fn act(path: &Path, scenario: &Scenario) -> Result<()> {
    (scenario.act)(&open(path, FakeLayers::with(&[layer()])).unwrap())
}

/// Starts again and looks at everything.
fn check(path: &Path, scenario: &Scenario, done: bool, at: &str) {
    let layers = FakeLayers::with(&[layer()]);
    let db = open(path, layers.clone()).unwrap_or_else(|error| panic!("{at}: {}", error.report()));
    assert_eq!(db.problems(), [], "{at}");
    for name in ["grandparent", "child"] {
        assert_eq!(db.get_with_bytes(&id_of(name)).expect(at).1, config_of(name), "{at}");
    }
    assert_eq!(layers.references(&layer()), 1 + i32::try_from(db.len()).unwrap(), "{at}");
    let left: Vec<_> = tree(path).into_keys().filter(|name| name.contains("/.")).collect();
    assert_eq!(left, [""; 0], "{at}");
    (scenario.check)(&db, done, at);
}

#[test]
fn a_process_killed_at_any_step_leaves_the_old_or_the_new_state() {
    for scenario in SCENARIOS {
        let root = TestRoot::in_memory("imagedb-killed");
        prepare(&root.join("store"));
        let parent = Dir::open(root.path()).unwrap();
        let snapshots = Rc::new(RefCell::new(Vec::new()));
        let taken = Rc::clone(&snapshots);
        let hook = move |step: &'static str| {
            let name = format!("snapshot {} before {step}", taken.borrow().len());
            parent.copy_tree("store", &parent, &name)?;
            taken.borrow_mut().push(name);
            Ok(())
        };
        with_hook(hook, || act(&root.join("store"), scenario)).unwrap();
        let snapshots = snapshots.take();
        assert!(snapshots.len() >= 5, "{}: {snapshots:?}", scenario.name);
        for snapshot in snapshots {
            check(&root.join(&snapshot), scenario, false, &format!("{}, {snapshot}", scenario.name));
        }
        check(&root.join("store"), scenario, true, scenario.name);
    }
}

fn steps_of(path: &Path, scenario: &Scenario) -> usize {
    let db = open(path, FakeLayers::with(&[layer()])).unwrap();
    let count = Rc::new(Cell::new(0));
    let counter = Rc::clone(&count);
    let hook = move |_: &str| {
        counter.set(counter.get() + 1);
        Ok(())
    };
    with_hook(hook, || (scenario.act)(&db)).unwrap();
    count.get()
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_or_the_new_state() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(32 << 20);
    for scenario in SCENARIOS {
        let store = |name: &str| -> PathBuf {
            let path = disk.join(format!("{} {name}", scenario.name));
            prepare(&path);
            path
        };
        let steps = steps_of(&store("counted"), scenario);
        for number in 0..=steps {
            let path = store(&number.to_string());
            let db = open(&path, FakeLayers::with(&[layer()])).unwrap();
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
            let done = with_hook(hook, || (scenario.act)(&db)).is_ok();
            drop(db);
            cut_power(&disk.path());
            disk.remount();
            let at = format!("{}, power cut before step {number} of {steps}", scenario.name);
            assert!(done || number < steps, "{at}");
            // Removing names of an orphan may be lost: nobody minds.
            check(&path, scenario, done && number == steps, &at);
        }
    }
}

/// What memory says of every image, and what a start would find.
fn view(db: &ImageDb) -> Vec<(Digest, Option<Digest>, Vec<Digest>)> {
    db.map().into_iter().map(|image| (image.id, image.parent, db.children(&image.id))).collect()
}

#[test]
fn after_a_step_that_failed_memory_and_disk_agree() {
    for scenario in SCENARIOS {
        for failures in [1, usize::MAX] {
            for fail_at in 0.. {
                let root = TestRoot::in_memory("imagedb-failure");
                let path = root.join("store");
                prepare(&path);
                let layers = FakeLayers::with(&[layer()]);
                let db = open(&path, layers.clone()).unwrap();
                let before = tree(&path);
                let (mut at_step, mut failed) = (0, 0);
                let hook = move |_: &str| {
                    at_step += 1;
                    if at_step > fail_at && failed < failures {
                        failed += 1;
                        return Err(Error::new(ErrorKind::Os(libc::EIO), "the disk fails"));
                    }
                    Ok(())
                };
                let result = with_hook(hook, || (scenario.act)(&db));
                let at = format!("{}, step {fail_at}, {failures} failures", scenario.name);
                if scenario.name == "create" && result.is_err() {
                    assert_eq!(tree(&path), before, "{at}: a failed create leaves nothing");
                }
                let (mut seen, names) = (view(&db), db.all_names());
                assert_eq!(layers.references(&layer()), 1 + i32::try_from(seen.len()).unwrap(), "{at}");
                // It goes on.
                db.create(&config_of("afterwards"))
                    .unwrap_or_else(|error| panic!("{at}: {}", error.report()));
                db.delete(&id_of("afterwards")).expect(&at);
                let made_again = !db.exists(&id_of("parent"));
                if made_again {
                    db.create(&config_of("parent")).expect(&at);
                    seen = view(&db);
                }
                db.close();
                let db = open(&path, layers.clone()).expect(&at);
                let found = view(&db);
                if made_again {
                    let parent = id_of("parent");
                    assert!(db.parent(&parent).is_err(), "{at}: it inherits a parent");
                    assert!(!db.is_built_locally(&parent).expect(&at), "{at}");
                    assert_eq!(db.last_updated(&parent).expect(&at), None, "{at}");
                }
                if scenario.name == "delete a parent" {
                    // Whether the file with a parent that is gone went, too, is all the same.
                    let ids = |view: &[(Digest, _, _)]| view.iter().map(|image| image.0).collect::<Vec<_>>();
                    assert_eq!(ids(&found), ids(&seen), "{at}");
                } else {
                    assert_eq!(found, seen, "{at}");
                }
                assert_eq!((db.all_names(), db.problems()), (names, &[][..]), "{at}");
                if result.is_ok() {
                    assert!(fail_at >= 3, "{at}");
                    break;
                }
            }
        }
    }
}
