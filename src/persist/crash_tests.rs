// SPDX-License-Identifier: MulanPSL-2.0
//! The end of the world between any two changes of the disk.
//!
//! Killed: before each step the whole store is copied; every copy is what a process killed there would leave.
//! Power cut: before each step the file system is shut down without flushing anything, so that only what had been
//! synced is there after mounting it again.
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::steps::with_hook;
use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::fs::Dir;
use crate::sys::power::cut_power;
use crate::sys::testing::{LoopExt4, TestRoot, loop_ext4, need_root};

const STATE: &str = ".state";

/// What is done to a store, and what must hold at every instant of it.
struct Scenario {
    name: &'static str,
    prepare: fn(&Path),
    act: fn(&Dir) -> Result<()>,
    /// Given the store after the world ended and was started again; `done`: `act` had returned.
    check: fn(&Dir, bool, &str),
}

fn open_state(dir: &Dir) -> Result<StateDir> {
    StateDir::open(dir, STATE, Ownership::Owner, Durability::Full)
}

fn thing(dir: &Dir) -> Option<Vec<u8>> {
    dir.open_dir("thing").ok().map(|thing| thing.read("file", 100).expect("whole"))
}

fn plant_thing(path: &Path) {
    std::fs::create_dir(path.join("thing")).unwrap();
    std::fs::write(path.join("thing/file"), b"content").unwrap();
}

fn the_quarantined(dir: &Dir) -> Vec<Quarantined> {
    open_state(dir).expect("opens again").quarantined().expect("lists")
}

fn is_content(entry: &Quarantined) -> bool {
    std::fs::read(entry.path.join("file")).is_ok_and(|content| content == b"content")
}

static SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "replace",
        prepare: |path| std::fs::write(path.join("record"), b"old").unwrap(),
        act: |dir| replace_file(dir, "record", b"new and longer", 0o600, Durability::Full),
        check: |dir, done, at| {
            let content = dir.read("record", 100).expect(at);
            assert!(content == b"new and longer" || (!done && content == b"old"), "{at}: {content:?}");
            sweep_temporary(dir);
            assert_eq!(dir.entries().unwrap().len(), 1, "{at}");
        },
    },
    Scenario {
        name: "create",
        prepare: |_| {},
        act: |dir| replace_file(dir, "record", b"new", 0o600, Durability::Full),
        check: |dir, done, at| match dir.read("record", 100) {
            Ok(content) => assert_eq!(content, b"new", "{at}"),
            Err(error) => assert!(!done && error.kind() == ErrorKind::NotFound, "{at}: {}", error.report()),
        },
    },
    Scenario {
        name: "open",
        prepare: |_| {},
        act: |dir| open_state(dir).map(drop),
        check: |dir, done, at| {
            if let Ok(state) = dir.open_dir(STATE)
                && state.stat("format").unwrap().is_some()
            {
                // Where the format file is, everything before it is, too.
                assert!(state.open_dir("trash").is_ok() && state.open_dir("quarantine").is_ok(), "{at}");
                assert_eq!(state.read("format", 10).unwrap(), b"1\n", "{at}");
            } else {
                assert!(!done, "{at}");
            }
            StateDir::open(dir, STATE, Ownership::ReadOnly, Durability::Full).expect(at);
            open_state(dir).expect(at);
        },
    },
    Scenario {
        name: "discard",
        prepare: plant_thing,
        act: |dir| open_state(dir)?.discard(dir, "thing").map(drop),
        check: |dir, done, at| {
            match thing(dir) {
                Some(content) => assert!(!done && content == b"content", "{at}"),
                None => {
                    let trash = dir.open_dir(STATE).unwrap().open_dir("trash").unwrap();
                    assert_eq!(trash.entries().unwrap().len(), 1, "{at}");
                }
            }
            open_state(dir).expect(at).sweep_trash();
        },
    },
    Scenario {
        name: "quarantine",
        prepare: plant_thing,
        act: |dir| open_state(dir)?.quarantine(dir, "thing", "doubt").map(drop),
        check: |dir, done, at| match (thing(dir), the_quarantined(dir).as_slice()) {
            (Some(content), []) => assert!(!done && content == b"content", "{at}"),
            (None, [entry]) => {
                assert!(
                    is_content(entry) && entry.name == "thing" && entry.reason == "doubt",
                    "{at}: {entry:?}"
                );
            }
            other => panic!("{at}: {other:?}"),
        },
    },
    Scenario {
        name: "restore",
        prepare: |path| {
            plant_thing(path);
            let dir = Dir::open(path).unwrap();
            open_state(&dir).unwrap().quarantine(&dir, "thing", "doubt").unwrap();
        },
        act: |dir| {
            let state = open_state(dir)?;
            let all = state.quarantined()?;
            let entry = all.first().ok_or_else(|| Error::not_found("nothing in quarantine"))?;
            state.restore(entry, dir)
        },
        check: |dir, done, at| match (thing(dir), the_quarantined(dir).as_slice()) {
            (Some(content), []) => assert!(content == b"content", "{at}"),
            (None, [entry]) => {
                assert!(!done && is_content(entry) && entry.name == "thing", "{at}: {entry:?}")
            }
            other => panic!("{at}: {other:?}"),
        },
    },
];

fn steps_of(scenario: &Scenario, path: &Path) -> Vec<&'static str> {
    let steps = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&steps);
    let dir = Dir::open(path).unwrap();
    let hook = move |name| {
        seen.borrow_mut().push(name);
        Ok(())
    };
    with_hook(hook, || (scenario.act)(&dir)).unwrap();
    steps.take()
}

#[test]
fn a_process_killed_at_any_step_leaves_the_old_or_the_new_state() {
    for scenario in &SCENARIOS {
        let root = TestRoot::in_memory("killed");
        std::fs::create_dir(root.join("store")).unwrap();
        (scenario.prepare)(&root.join("store"));
        let parent = Dir::open(root.path()).unwrap();
        let dir = Dir::open(&root.join("store")).unwrap();
        let snapshots = Rc::new(RefCell::new(Vec::new()));
        let taken = Rc::clone(&snapshots);
        let hook = move |step: &'static str| {
            let name = format!("snapshot {} before {step}", taken.borrow().len());
            parent.copy_tree("store", &parent, &name)?;
            taken.borrow_mut().push(name);
            Ok(())
        };
        with_hook(hook, || (scenario.act)(&dir)).unwrap();
        let snapshots = snapshots.take();
        assert!(snapshots.len() >= 3, "{}: {snapshots:?}", scenario.name);
        for snapshot in snapshots {
            let at = format!("{}, {snapshot}", scenario.name);
            (scenario.check)(&Dir::open(&root.join(&snapshot)).unwrap(), false, &at);
        }
        (scenario.check)(&dir, true, scenario.name);
    }
}

#[test]
fn an_error_at_any_step_leaves_the_old_or_the_new_state() {
    for scenario in &SCENARIOS {
        let root = TestRoot::in_memory("failed");
        let store = |name: String| -> PathBuf {
            let path = root.join(name);
            std::fs::create_dir(&path).unwrap();
            (scenario.prepare)(&path);
            path
        };
        let steps = steps_of(scenario, &store("counted".into()));
        for (number, step) in steps.iter().enumerate() {
            let path = store(format!("{number}"));
            let dir = Dir::open(&path).unwrap();
            let mut left = number;
            let hook = move |_| match left.checked_sub(1) {
                Some(rest) => {
                    left = rest;
                    Ok(())
                }
                None => Err(Error::new(ErrorKind::Os(libc::EIO), "the disk fails")),
            };
            let error = with_hook(hook, || (scenario.act)(&dir)).unwrap_err();
            assert_eq!(error.errno(), libc::EIO, "{}", error.report());
            (scenario.check)(&dir, false, &format!("{}, {step} failed", scenario.name));
        }
    }
}

/// Does one thing on a disk whose power is cut before step `number` of it (after the last: when it has returned), and
/// starts again. Returns whether the thing was reported as done.
fn with_power_cut(disk: &LoopExt4, path: &Path, number: usize, act: impl FnOnce(&Dir) -> Result<()>) -> bool {
    let dir = Dir::open(path).unwrap();
    dir.sync_fs().unwrap();
    let top = disk.path();
    let mut left = Some(number);
    let hook = move |_| {
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
    let done = with_hook(hook, || act(&dir)).is_ok();
    cut_power(&disk.path());
    drop(dir);
    disk.remount();
    done
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_or_the_new_state() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(16 << 20);
    for scenario in &SCENARIOS {
        let store = |name: &str| -> PathBuf {
            let path = disk.join(format!("{} {name}", scenario.name));
            std::fs::create_dir(&path).unwrap();
            (scenario.prepare)(&path);
            path
        };
        let steps = steps_of(scenario, &store("counted"));
        for number in 0..=steps.len() {
            let path = store(&number.to_string());
            let done = with_power_cut(&disk, &path, number, scenario.act);
            let at = format!("{}, power cut before step {number} of {steps:?}", scenario.name);
            assert!(done || number < steps.len(), "{at}");
            (scenario.check)(&Dir::open(&path).unwrap(), done, &at);
        }
    }
}

/// The test above proves something only if this machine forgets what was not synced.
#[test]
fn without_durability_a_power_cut_takes_the_last_change() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(16 << 20);
    std::fs::write(disk.join("record"), b"old").unwrap();
    let replace = |dir: &Dir| replace_file(dir, "record", b"new", 0o600, Durability::None);
    assert!(with_power_cut(&disk, &disk.path(), usize::MAX, replace));
    assert_eq!(std::fs::read(disk.join("record")).unwrap(), b"old");
}
