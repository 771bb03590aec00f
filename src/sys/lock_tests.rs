// SPDX-License-Identifier: MulanPSL-2.0
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use super::*;
use crate::sys::testing::TestRoot;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

fn dir() -> (TestRoot, Dir) {
    let root = TestRoot::in_memory("lock");
    let dir = Dir::open(root.path()).unwrap();
    (root, dir)
}

/// Another process that holds the lock until it is ended.
struct Other(Child);

impl Other {
    fn holding(path: &std::path::Path) -> Other {
        let mut child = Command::new("flock")
            .arg("--no-fork")
            .arg(path)
            .args(["sh", "-c", "echo held; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Other(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

#[test]
fn two_openings_in_one_process_exclude_each_other() {
    let (root, dir) = dir();
    let me = std::process::id();
    assert_eq!(holder(&dir, "lock").unwrap(), None);
    assert!(!root.join("lock").exists(), "looking makes no file");
    let held = FileLock::try_exclusive(&dir, "lock").unwrap();
    assert_eq!(std::fs::read_to_string(root.join("lock")).unwrap(), format!("{me}\n"));
    assert_eq!(dir.stat("lock").unwrap().unwrap().mode, 0o600);
    assert_eq!(holder(&dir, "lock").unwrap(), Some(me));
    let error = FileLock::try_exclusive(&dir, "lock").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().ends_with(&format!("in use by pid {me}")), "{}", error.report());
    let error = FileLock::exclusive(&dir, "lock", Duration::from_millis(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let other = FileLock::try_exclusive(&dir, "other").unwrap();
    drop((held, other));
    assert_eq!(holder(&dir, "lock").unwrap(), None);
    drop(FileLock::exclusive(&dir, "lock", Duration::ZERO).unwrap());
}

#[test]
fn a_lock_ends_with_its_process_and_an_old_name_means_nothing() {
    let (root, dir) = dir();
    // A longer text than ours: it must be gone after we have written.
    std::fs::write(root.join("lock"), "4194303\nleft by an older run\n").unwrap();
    let mut other = Other::holding(&root.join("lock"));
    let error = FileLock::try_exclusive(&dir, "lock").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert_eq!(holder(&dir, "lock").unwrap(), Some(4_194_303));
    other.kill();
    assert_eq!(holder(&dir, "lock").unwrap(), None);
    let _held = FileLock::try_exclusive(&dir, "lock").unwrap();
    assert_eq!(std::fs::read_to_string(root.join("lock")).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn a_holder_that_wrote_no_name_is_reported_without_one() {
    let (root, dir) = dir();
    for text in ["", "x", "-1\n", "99999999999999\n", "\u{ff}\u{fe}"] {
        std::fs::write(root.join("lock"), text).unwrap();
        let _other = Other::holding(&root.join("lock"));
        let error = FileLock::exclusive(&dir, "lock", Duration::ZERO).unwrap_err();
        assert!(error.report().ends_with("in use by another process"), "{text:?}: {}", error.report());
        assert_eq!(holder(&dir, "lock").unwrap(), None, "{text:?}");
    }
}

#[test]
fn who_waits_gets_the_lock_when_it_is_free() {
    let (_root, dir) = dir();
    let counter = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let _held = FileLock::exclusive(&dir, "lock", Duration::from_secs(600)).unwrap();
                    let value = counter.load(std::sync::atomic::Ordering::Relaxed);
                    std::thread::yield_now();
                    counter.store(value + 1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 40);
}

#[test]
fn looking_does_not_keep_an_owner_from_starting() {
    let (_root, dir) = dir();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                holder(&dir, "lock").unwrap();
            }
        });
        for _ in 0..500 {
            let held = FileLock::try_exclusive(&dir, "lock");
            if held.is_err() {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            drop(held.unwrap());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_lock_on_a_file_that_was_taken_away_does_not_count() {
    let (root, dir) = dir();
    let first = FileLock::try_exclusive(&dir, "lock").unwrap();
    std::fs::remove_file(root.join("lock")).unwrap();
    // Whoever removes the file takes the protection away; the next owner has a new file that all others see.
    let second = FileLock::try_exclusive(&dir, "lock").unwrap();
    assert_eq!(FileLock::try_exclusive(&dir, "lock").unwrap_err().kind(), ErrorKind::InUse);
    drop(first);
    assert_eq!(FileLock::try_exclusive(&dir, "lock").unwrap_err().kind(), ErrorKind::InUse);
    drop(second);
    FileLock::try_exclusive(&dir, "lock").unwrap();
}

#[test]
fn what_is_not_a_regular_file_is_no_lock() {
    let (root, dir) = dir();
    std::os::unix::fs::symlink("target", root.join("link")).unwrap();
    rustix::fs::mkfifoat(&dir, "fifo", Mode::RWXU).unwrap();
    dir.create_dir("dir", 0o700).unwrap();
    for name in ["link", "fifo", "dir", "", "..", "a/b"] {
        FileLock::try_exclusive(&dir, name).unwrap_err();
        holder(&dir, name).unwrap_err();
    }
    assert!(!root.join("target").exists());
}

#[test]
fn a_child_of_the_owner_cannot_give_up_its_lock() {
    let (root, dir) = dir();
    let held = FileLock::try_exclusive(&dir, "lock").unwrap();
    // SAFETY: between fork and exit the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(held);
        // SAFETY: ends the process without running anything of it.
        unsafe { libc::_exit(0) }
    }
    let child = Pid::from_raw(child).unwrap();
    rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap();
    assert_eq!(std::fs::read_to_string(root.join("lock")).unwrap(), format!("{}\n", std::process::id()));
    assert_eq!(FileLock::try_exclusive(&dir, "lock").unwrap_err().kind(), ErrorKind::InUse);
    drop(held);
    FileLock::try_exclusive(&dir, "lock").unwrap();
}
