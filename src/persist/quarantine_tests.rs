// SPDX-License-Identifier: MulanPSL-2.0
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use super::*;
use crate::persist::{Durability, Ownership};
use crate::sys::testing::TestRoot;

const STATE: &str = ".state";

fn store() -> (TestRoot, Dir, StateDir) {
    let root = TestRoot::in_memory("quarantine");
    let dir = Dir::open(root.path()).unwrap();
    let state = reopen(&dir);
    (root, dir, state)
}

fn reopen(dir: &Dir) -> StateDir {
    StateDir::open(dir, STATE, Ownership::Owner, Durability::Full).unwrap()
}

fn count(root: &TestRoot) -> usize {
    std::fs::read_dir(root.join(STATE).join("quarantine")).unwrap().count()
}

#[test]
fn things_are_put_aside_with_the_reason_and_come_back_unchanged() {
    let (root, dir, state) = store();
    let layers = dir.create_dir("layers", 0o755).unwrap();
    std::fs::create_dir_all(root.join("layers/abc/sub")).unwrap();
    std::fs::write(root.join("layers/abc/sub/file"), b"content").unwrap();
    let entry = state.quarantine(&layers, "abc", "record does not parse").unwrap();
    assert!(layers.stat("abc").unwrap().is_none());
    assert_eq!(entry.name, "abc");
    assert_eq!(entry.from, root.join("layers"));
    assert_eq!(entry.reason, "record does not parse");
    assert_eq!(entry.path, root.join(STATE).join("quarantine").join(&entry.key).join("item"));
    assert!(Timestamp::parse(&entry.time).is_ok());
    assert_eq!(std::fs::read(entry.path.join("sub/file")).unwrap(), b"content");
    drop(state);
    let state = reopen(&dir);
    assert_eq!(state.quarantined().unwrap(), std::slice::from_ref(&entry));
    state.restore(&entry, &layers).unwrap();
    assert_eq!(std::fs::read(root.join("layers/abc/sub/file")).unwrap(), b"content");
    assert_eq!(state.quarantined().unwrap(), []);
    assert_eq!(count(&root), 0);
    assert_eq!(state.restore(&entry, &layers).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_not_there_cannot_be_put_aside() {
    let (root, dir, state) = store();
    assert_eq!(state.quarantine(&dir, "none", "x").unwrap_err().kind(), ErrorKind::NotFound);
    for name in ["", ".", "..", "a/b", "a\0"] {
        let error = state.quarantine(&dir, name, "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name:?}");
    }
    assert_eq!(count(&root), 0);
}

#[test]
fn every_kind_of_thing_and_every_text_is_kept() {
    let (root, dir, state) = store();
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    rustix::fs::mkfifoat(&dir, "fifo", rustix::fs::Mode::RWXU).unwrap();
    std::fs::write(root.join("\u{1}\"\\ü日"), b"").unwrap();
    let long = "n".repeat(255);
    std::fs::write(root.join(&long), b"").unwrap();
    let reason = "\0\"\u{1f600}".repeat(10_000);
    for name in ["link", "fifo", "\u{1}\"\\ü日", &long] {
        let entry = state.quarantine(&dir, name, &reason).unwrap();
        let listed = state.quarantined().unwrap().into_iter().find(|e| e.key == entry.key).unwrap();
        assert_eq!((listed.name.as_str(), &listed), (name, &entry));
        assert!(reason.starts_with(&listed.reason) && listed.reason.chars().count() == REASON_LIMIT);
        state.restore(&entry, &dir).unwrap();
        assert!(dir.stat(name).unwrap().is_some());
    }
}

#[test]
fn the_oldest_comes_first() {
    let (root, dir, state) = store();
    let mut expected = Vec::new();
    for n in 0..20 {
        std::fs::write(root.join("thing"), n.to_string()).unwrap();
        expected.push(state.quarantine(&dir, "thing", &n.to_string()).unwrap());
    }
    expected.sort_by(|a, b| (&a.time, &a.key).cmp(&(&b.time, &b.key)));
    assert_eq!(state.quarantined().unwrap(), expected);
}

#[test]
fn restoring_replaces_nothing() {
    let (root, dir, state) = store();
    std::fs::write(root.join("thing"), b"old").unwrap();
    let entry = state.quarantine(&dir, "thing", "doubt").unwrap();
    std::fs::write(root.join("thing"), b"new").unwrap();
    assert_eq!(state.restore(&entry, &dir).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(root.join("thing")).unwrap(), b"new");
    assert_eq!(state.quarantined().unwrap(), std::slice::from_ref(&entry));
    for (key, name) in [("..", "x"), ("a/b", "x"), ("", "x"), (&*entry.key, "../x"), (&*entry.key, "")] {
        let bad = Quarantined { key: key.into(), name: name.into(), ..entry.clone() };
        assert_eq!(state.restore(&bad, &dir).unwrap_err().kind(), ErrorKind::InvalidArgument, "{key} {name}");
    }
    assert_eq!(std::fs::read(&entry.path).unwrap(), b"old");
}

#[test]
fn an_entry_whose_record_is_damaged_is_listed_and_kept() {
    let (root, dir, state) = store();
    let at = root.join(STATE).join("quarantine");
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("missing", |record| std::fs::remove_file(record).unwrap()),
        ("empty", |record| std::fs::write(record, b"").unwrap()),
        ("garbage", |record| std::fs::write(record, b"{\"name\":1}").unwrap()),
        ("huge", |record| std::fs::File::create(record).unwrap().set_len(1 << 40).unwrap()),
        ("directory", |record| {
            std::fs::remove_file(record).unwrap();
            std::fs::create_dir(record).unwrap();
        }),
        ("fifo", |record| {
            std::fs::remove_file(record).unwrap();
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, record, kind, rustix::fs::Mode::RWXU, 0).unwrap();
        }),
    ];
    for (what, damage) in damages {
        std::fs::write(root.join(what), what).unwrap();
        let entry = state.quarantine(&dir, what, "doubt").unwrap();
        damage(&at.join(&entry.key).join("record.json"));
        let listed = state.quarantined().unwrap().into_iter().find(|e| e.key == entry.key).unwrap();
        assert_eq!((listed.name.as_str(), &listed.path), ("", &entry.path), "{what}");
        assert!(listed.reason.starts_with("not known: "), "{what}: {}", listed.reason);
        assert!(Timestamp::parse(&listed.time).is_ok(), "{what}: {}", listed.time);
        assert_eq!(state.restore(&listed, &dir).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    drop(state);
    let state = reopen(&dir);
    let all = state.quarantined().unwrap();
    assert_eq!(all.len(), 6);
    for entry in all {
        let what = std::fs::read_to_string(&entry.path).unwrap();
        state.restore(&Quarantined { name: what.clone(), ..entry }, &dir).unwrap();
        assert_eq!(std::fs::read_to_string(root.join(&what)).unwrap(), what);
    }
}

#[test]
fn entries_without_an_item_go_at_the_next_start_and_nothing_else_does() {
    let (root, dir, state) = store();
    let at = root.join(STATE).join("quarantine");
    for key in ["interrupted", "bare", "strange"] {
        std::fs::create_dir(at.join(key)).unwrap();
    }
    std::fs::write(at.join("interrupted/record.json"), b"{}").unwrap();
    std::fs::write(at.join("interrupted/.tmp-record.json-0123456789"), b"{}").unwrap();
    std::fs::write(at.join("strange/unknown"), b"precious").unwrap();
    std::fs::write(at.join("file"), b"precious").unwrap();
    assert_eq!(state.quarantined().unwrap(), []);
    drop(state);
    let state = reopen(&dir);
    assert_eq!(state.quarantined().unwrap(), []);
    assert_eq!(count(&root), 2);
    assert_eq!(std::fs::read(at.join("strange/unknown")).unwrap(), b"precious");
    assert_eq!(std::fs::read(at.join("file")).unwrap(), b"precious");
}

#[test]
fn purging_gives_an_entry_to_the_trash() {
    let (root, dir, state) = store();
    std::fs::create_dir_all(root.join("thing/sub")).unwrap();
    let entry = state.quarantine(&dir, "thing", "doubt").unwrap();
    state.purge(&entry).unwrap().expect("it was there").remove();
    assert!(state.purge(&entry).unwrap().is_none());
    assert_eq!(state.quarantined().unwrap(), []);
    assert_eq!(std::fs::read_dir(root.join(STATE).join("trash")).unwrap().count(), 0);
}
