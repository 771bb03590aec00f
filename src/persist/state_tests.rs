// SPDX-License-Identifier: MulanPSL-2.0
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use super::*;
use crate::persist::Ownership::{Owner, ReadOnly, Shared};
use crate::sys::testing::{TestRoot, need_root};
use std::path::Path;

const STATE: &str = ".isula-storage";

fn store() -> (TestRoot, Dir) {
    let root = TestRoot::in_memory("state");
    let dir = Dir::open(root.path()).unwrap();
    (root, dir)
}

fn open(parent: &Dir, ownership: Ownership) -> Result<StateDir> {
    StateDir::open(parent, STATE, ownership, Durability::Full)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_state_directory_is_as_it_is_drawn() {
    let (root, dir) = store();
    let state = open(&dir, Owner).unwrap();
    let at = root.join(STATE);
    assert_eq!(names(&at), ["format", "lock", "quarantine", "trash"]);
    assert_eq!(std::fs::read(at.join("format")).unwrap(), b"1\n");
    assert_eq!(std::fs::read_to_string(at.join("lock")).unwrap(), format!("{}\n", std::process::id()));
    for (name, mode) in
        [("", 0o700), ("trash", 0o700), ("quarantine", 0o700), ("format", 0o600), ("lock", 0o600)]
    {
        use std::os::unix::fs::PermissionsExt;
        let is = std::fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(is, mode, "{name}");
    }
    drop(state);
    assert_eq!(std::fs::read(at.join("lock")).unwrap(), b"", "nobody is named when nobody owns it");
}

#[test]
fn there_is_one_owner_and_others_are_told_which() {
    let (_root, dir) = store();
    let first = open(&dir, Owner).unwrap();
    let error = open(&dir, Owner).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains(&format!("in use by pid {}", std::process::id())), "{}", error.report());
    open(&dir, ReadOnly).unwrap();
    let shared = open(&dir, Shared).unwrap();
    let error = shared.lock_for_change(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    drop(first.lock_for_change(Duration::ZERO).unwrap());
    drop(first);
    let change = shared.lock_for_change(Duration::ZERO).unwrap();
    assert_eq!(open(&dir, Owner).unwrap_err().kind(), ErrorKind::InUse);
    drop(change);
    open(&dir, Owner).unwrap();
}

#[test]
fn shared_owners_take_turns() {
    let (_root, dir) = store();
    let (one, two) = (open(&dir, Shared).unwrap(), open(&dir, Shared).unwrap());
    let held = one.lock_for_change(Duration::ZERO).unwrap();
    assert_eq!(two.lock_for_change(Duration::from_millis(30)).unwrap_err().kind(), ErrorKind::InUse);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| two.lock_for_change(Duration::from_secs(60)).map(drop));
        drop(held);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn reading_writes_nothing_and_needs_no_state() {
    let (root, dir) = store();
    let state = open(&dir, ReadOnly).unwrap();
    assert_eq!(state.ownership(), ReadOnly);
    assert_eq!(state.quarantined().unwrap(), []);
    state.sweep_trash();
    std::fs::write(root.join("thing"), b"").unwrap();
    let kinds = [
        state.lock_for_change(Duration::ZERO).map(drop),
        state.discard(&dir, "thing").map(drop),
        state.quarantine(&dir, "thing", "why").map(drop),
    ]
    .map(|result| result.unwrap_err().kind());
    assert_eq!(kinds, [ErrorKind::ReadOnly; 3]);
    assert_eq!(names(root.path()), ["thing"]);

    let owner = open(&dir, Owner).unwrap();
    let entry = owner.quarantine(&dir, "thing", "why").unwrap();
    std::fs::create_dir(root.join(STATE).join("trash/left")).unwrap();
    let state = open(&dir, ReadOnly).unwrap();
    assert_eq!(state.quarantined().unwrap(), std::slice::from_ref(&entry));
    state.sweep_trash();
    assert_eq!(names(&root.join(STATE).join("trash")), ["left"]);
    assert_eq!(state.restore(&entry, &dir).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(state.purge(&entry).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn a_newer_or_damaged_format_is_refused_and_left_as_it_is() {
    let table: [(&[u8], ErrorKind); 11] = [
        (b"2\n", ErrorKind::Unsupported),
        (b"10\n", ErrorKind::Unsupported),
        (b"99999999999999999999\n", ErrorKind::Unsupported),
        (b"", ErrorKind::Corrupt),
        (b"1", ErrorKind::Corrupt),
        (b"\n", ErrorKind::Corrupt),
        (b"0\n", ErrorKind::Corrupt),
        (b"-1\n", ErrorKind::Corrupt),
        (b"one\n", ErrorKind::Corrupt),
        (b"1\n\n", ErrorKind::Corrupt),
        (&[b'1'; 65], ErrorKind::Corrupt),
    ];
    for (content, kind) in table {
        let (root, dir) = store();
        std::fs::create_dir(root.join(STATE)).unwrap();
        std::fs::write(root.join(STATE).join("format"), content).unwrap();
        for ownership in [Owner, Shared, ReadOnly] {
            let error = open(&dir, ownership).unwrap_err();
            assert_eq!(error.kind(), kind, "{content:?} {ownership:?}: {}", error.report());
            let report = error.report();
            assert!(report.contains("upgrade") || report.contains("backup"), "what to do: {report}");
        }
        assert_eq!(names(&root.join(STATE)), ["format"]);
        assert_eq!(std::fs::read(root.join(STATE).join("format")).unwrap(), content);
    }
}

#[test]
fn hostile_things_in_place_of_the_state_are_errors_and_never_hang() {
    type Plant = fn(&Path);
    let plant: [(&str, Plant); 9] = [
        ("state is a file", |at| std::fs::write(at, b"").unwrap()),
        ("state is a link", |at| std::os::unix::fs::symlink("/tmp", at).unwrap()),
        ("state is a fifo", fifo),
        ("format is a fifo", |at| in_dir(at, |at| fifo(&at.join("format")))),
        ("format is a directory", |at| in_dir(at, |at| std::fs::create_dir(at.join("format")).unwrap())),
        ("format is a link", |at| in_dir(at, |at| link("/proc/self/stat", &at.join("format")))),
        ("lock is a fifo", |at| in_dir(at, |at| fifo(&at.join("lock")))),
        ("lock is a link", |at| in_dir(at, |at| link("/dev/null", &at.join("lock")))),
        ("trash is a link", |at| in_dir(at, |at| link("/tmp", &at.join("trash")))),
    ];
    for (what, plant) in plant {
        let (root, dir) = store();
        plant(&root.join(STATE));
        open(&dir, Owner).map(drop).expect_err(what);
    }
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
}

fn link(target: &str, path: &Path) {
    std::os::unix::fs::symlink(target, path).unwrap();
}

fn in_dir(at: &Path, plant: impl FnOnce(&Path)) {
    std::fs::create_dir(at).unwrap();
    plant(at);
}

#[test]
fn opening_heals_what_is_missing() {
    let (root, dir) = store();
    drop(open(&dir, Owner).unwrap());
    for name in ["trash", "quarantine"] {
        std::fs::remove_dir(root.join(STATE).join(name)).unwrap();
    }
    std::fs::write(root.join(STATE).join(".tmp-format-0123456789"), b"").unwrap();
    let state = open(&dir, Owner).unwrap();
    assert_eq!(names(&root.join(STATE)), ["format", "lock", "quarantine", "trash"]);
    for name in ["trash", "quarantine"] {
        std::fs::remove_dir(root.join(STATE).join(name)).unwrap();
    }
    std::fs::write(root.join("thing"), b"").unwrap();
    state.discard(&dir, "thing").unwrap().expect("it was there").remove();
    assert_eq!(state.quarantined().unwrap(), []);
}

#[test]
fn a_state_directory_removed_while_in_use_is_not_taken_for_an_absent_thing() {
    let (root, dir) = store();
    let state = open(&dir, Owner).unwrap();
    std::fs::write(root.join("thing"), b"x").unwrap();
    std::fs::remove_dir_all(root.join(STATE)).unwrap();
    for kind in [
        state.discard(&dir, "thing").map(drop).unwrap_err().kind(),
        state.quarantine(&dir, "thing", "why").map(drop).unwrap_err().kind(),
        state.quarantined().map(drop).unwrap_err().kind(),
    ] {
        assert_eq!(kind, ErrorKind::Corrupt);
    }
    assert_eq!(names(root.path()), ["thing"]);
}

#[test]
fn discarded_things_are_gone_at_once_and_removed_later() {
    let (root, dir) = store();
    let state = open(&dir, Owner).unwrap();
    let trash = root.join(STATE).join("trash");
    std::fs::create_dir_all(root.join("tree/a/b")).unwrap();
    std::fs::write(root.join("file"), b"").unwrap();
    link("/etc", &root.join("link"));
    for name in ["tree", "file", "link"] {
        let discarded = state.discard(&dir, name).unwrap().expect("it was there");
        assert!(dir.stat(name).unwrap().is_none());
        assert_eq!(names(&trash).len(), 1);
        discarded.remove();
        assert_eq!(names(&trash), [""; 0]);
    }
    assert!(state.discard(&dir, "tree").unwrap().is_none());
    assert!(Path::new("/etc").is_dir());
    for name in ["", ".", "..", "a/b", "a\0"] {
        assert_eq!(state.discard(&dir, name).unwrap_err().kind(), ErrorKind::InvalidArgument, "{name:?}");
    }
}

#[test]
fn what_was_discarded_and_not_removed_is_swept_at_the_next_start() {
    let (root, dir) = store();
    let state = open(&dir, Owner).unwrap();
    for name in ["one", "two"] {
        std::fs::create_dir_all(root.join(name).join("sub")).unwrap();
        drop(state.discard(&dir, name).unwrap());
    }
    drop(state);
    let state = open(&dir, Owner).unwrap();
    assert_eq!(names(&root.join(STATE).join("trash")).len(), 2, "opening does not wait for it");
    state.sweep_trash();
    assert_eq!(names(&root.join(STATE).join("trash")), [""; 0]);
}

#[test]
fn a_mount_in_the_trash_is_left_and_the_rest_goes() {
    if !need_root() {
        return;
    }
    let (root, dir) = store();
    let state = open(&dir, Owner).unwrap();
    let outside = TestRoot::in_memory("outside");
    std::fs::write(outside.join("precious"), b"x").unwrap();
    let trash = root.join(STATE).join("trash");
    for name in ["a", "b", "c"] {
        std::fs::create_dir_all(trash.join(name).join("mnt")).unwrap();
    }
    rustix::mount::mount_bind(outside.path(), trash.join("b/mnt")).unwrap();
    state.sweep_trash();
    assert_eq!(names(&trash), ["b"]);
    assert!(outside.join("precious").exists());
    rustix::mount::unmount(trash.join("b/mnt"), rustix::mount::UnmountFlags::NOFOLLOW).unwrap();
    state.sweep_trash();
    assert_eq!(names(&trash), [""; 0]);
}

#[test]
fn another_mount_in_between_is_explained() {
    if !need_root() {
        return;
    }
    let (root, dir) = store();
    std::fs::create_dir(root.join("mnt")).unwrap();
    rustix::mount::mount_bind(root.join("mnt"), root.join("mnt")).unwrap();
    std::fs::write(root.join("mnt/thing"), b"x").unwrap();
    let state = open(&dir, Owner).unwrap();
    let other = dir.open_dir("mnt").unwrap();
    for error in [
        state.discard(&other, "thing").map(drop).unwrap_err(),
        state.quarantine(&other, "thing", "why").map(drop).unwrap_err(),
    ] {
        assert_eq!(error.errno(), libc::EXDEV);
        assert!(error.report().contains("different mounts"), "{}", error.report());
    }
    assert_eq!(std::fs::read(root.join("mnt/thing")).unwrap(), b"x");
    assert_eq!(state.quarantined().unwrap(), []);
    assert_eq!(names(&root.join(STATE).join("quarantine")), [""; 0]);
    assert_eq!(names(&root.join(STATE).join("trash")), [""; 0]);
}
