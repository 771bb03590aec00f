// SPDX-License-Identifier: MulanPSL-2.0
//! A disk that fails at any step of a change: memory says what the disk says, and the store goes on.

use super::*;
use crate::persist::with_hook;
use crate::sys::testing::TestRoot;

type Act = fn(&RootfsStore) -> Result<()>;

const ACTS: &[(&str, Act)] = &[
    ("create", |store| store.create(&new('3')).map(drop)),
    ("create with a layer", |store| store.begin(&new('3'), |_| Ok(()))?.publish().map(drop)),
    ("delete", |store| store.delete(id('2').as_str()).map(drop)),
    ("delete with a layer", |store| store.begin_removal(id('2').as_str())?.map_or(Ok(()), Removal::finish)),
    ("take a deletion back", |store| store.begin_removal(id('2').as_str())?.map_or(Ok(()), Removal::undo)),
    ("set metadata", |store| store.set_metadata(id('2').as_str(), "m")),
    ("save", |store| {
        let record = RootfsRecord::clone(&*store.get(id('2').as_str())?);
        store.save(&RootfsRecord { image: Some("image".into()), metadata: Some("n".into()), ..record })
    }),
    ("quarantine", |store| store.quarantine(id('2').as_str(), "r").map(drop)),
    ("wipe", RootfsStore::wipe),
];

fn prepare(path: &Path) -> RootfsStore {
    let store = open(path).unwrap();
    store.create(&new('1')).unwrap();
    store.create(&new('2')).unwrap();
    store
}

/// Lets the first `left` steps pass, and the next `failures` fail.
fn failing(mut left: usize, mut failures: usize) -> impl FnMut(&'static str) -> Result<()> {
    move |_| {
        if left > 0 {
            left -= 1;
            return Ok(());
        }
        if failures > 0 {
            failures -= 1;
            return Err(Error::new(ErrorKind::Os(libc::EIO), "the disk fails"));
        }
        Ok(())
    }
}

fn records(store: &RootfsStore) -> Vec<RootfsRecord> {
    store.list().unwrap().iter().map(|record| RootfsRecord::clone(record)).collect()
}

fn on_disk(path: &Path) -> Vec<RootfsRecord> {
    let mut found: Vec<RootfsRecord> = std::fs::read_dir(path.join("overlay-containers"))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path().join(disk::RECORD)).unwrap())
        .map(|text| RootfsRecord::parse(&text).unwrap())
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

fn sorted(mut records: Vec<RootfsRecord>) -> Vec<RootfsRecord> {
    records.sort_by(|a, b| a.id.cmp(&b.id));
    records
}

#[test]
fn after_a_failure_at_any_step_memory_and_disk_agree_and_containers_can_be_changed() {
    for (what, act) in ACTS {
        for failures in [1, 2, 100] {
            for fail_at in 0.. {
                let root = TestRoot::in_memory("rootfs-failure");
                let store = prepare(root.path());
                let before = records(&store);
                let result = with_hook(failing(fail_at, failures), || act(&store));
                let at = format!("{what}, {failures} failures from step {fail_at}");
                assert_eq!(sorted(records(&store)), on_disk(root.path()), "{at}");
                if result.is_ok() {
                    assert!(fail_at >= 2, "{at}");
                    break;
                }
                assert_eq!(result.unwrap_err().errno(), libc::EIO, "{at}");
                let undone = matches!(*what, "create" | "create with a layer" | "set metadata" | "save");
                if undone && failures == 1 {
                    assert_eq!(records(&store), before, "{at}: nothing has happened");
                    act(&store).unwrap_or_else(|error| panic!("{at}: {}", error.report()));
                }
                if store.exists(id('1').as_str()) {
                    store.set_metadata(id('1').as_str(), "after").unwrap();
                }
                let left = records(&store);
                drop(store);
                let again = open(root.path()).unwrap();
                assert_eq!(sorted(records(&again)), sorted(left), "{at}");
                assert_eq!(again.problems(), [], "{at}");
                assert!(unfinished(&again).iter().all(|id| !again.exists(id)), "{at}");
            }
        }
    }
}

#[test]
fn a_panic_between_the_two_steps_takes_back_what_was_begun() {
    let root = TestRoot::in_memory("rootfs-panic");
    let store = prepare(root.path());
    for creation in [true, false] {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let staged = creation.then(|| store.begin(&new('3'), |_| Ok(())).unwrap());
            let removal = (!creation).then(|| store.begin_removal(id('2').as_str()).unwrap().unwrap());
            assert!(staged.is_none() && removal.is_none(), "a bug");
        }));
        assert!(panicked.is_err());
        assert_eq!(ids(&store), [id('1').to_string(), id('2').to_string()]);
    }
    drop(store);
    let store = open(root.path()).unwrap();
    assert_eq!(unfinished(&store), [""; 0]);
    assert_eq!(ids(&store), [id('1').to_string(), id('2').to_string()]);
}
