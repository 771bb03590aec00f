// SPDX-License-Identifier: MulanPSL-2.0
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use super::*;
use crate::sys::testing::{TestRoot, need_root};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn dir() -> (TestRoot, Dir) {
    let root = TestRoot::in_memory("fs");
    let dir = Dir::open(root.path()).unwrap();
    (root, dir)
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & MODE_BITS
}

#[test]
fn names_that_are_not_one_component_are_refused_everywhere() {
    use std::os::unix::ffi::OsStrExt;
    let (_root, dir) = dir();
    let other = dir.try_clone().unwrap();
    for bytes in [&b""[..], b".", b"..", b"a/b", b"/", b"/etc", b"../x", b"a/", b"a\0b", b"\0"] {
        let name = OsStr::from_bytes(bytes);
        let kinds = [
            dir.open_dir(name).map(drop),
            dir.create_dir(name, 0o700).map(drop),
            dir.ensure_dir(name, 0o700).map(drop),
            dir.stat(name).map(drop),
            dir.read(name, 1).map(drop),
            dir.open_file(name).map(drop),
            dir.create_file(name, 0o600).map(drop),
            dir.symlink(Path::new("x"), name),
            dir.read_link(name).map(drop),
            dir.rename(name, &other, "x"),
            dir.rename("x", &other, name),
            dir.rename_new(name, &other, "x"),
            dir.rename_new("x", &other, name),
            dir.remove_file(name).map(drop),
            dir.remove_empty_dir(name).map(drop),
            dir.remove_all(name).map(drop),
            dir.copy_tree(name, &other, "x"),
            dir.copy_tree("x", &other, name),
        ]
        .map(|result| result.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::InvalidArgument; 18], "{bytes:?}");
    }
    assert!(dir.entries().unwrap().is_empty());
}

#[test]
fn names_are_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let (_root, dir) = dir();
    for bytes in [&b"\xff\xfe"[..], b"...", b"a b\n", b"-rf", b"\x01"] {
        let name = OsStr::from_bytes(bytes);
        drop(dir.create_file(name, 0o600).unwrap());
        assert_eq!(dir.read(name, 0).unwrap(), b"");
        assert_eq!(dir.entries().unwrap()[0].name, name);
        assert!(dir.remove_file(name).unwrap());
    }
}

#[test]
fn modes_are_exact_whatever_the_umask_would_take() {
    let (root, dir) = dir();
    for mode in [0o777, 0o1777, 0o2770, 0o700, 0o755, 0o500] {
        let name = format!("d{mode:o}");
        dir.create_dir(&name, mode).unwrap();
        assert_eq!(mode_of(&root.join(&name)), mode, "{name}");
        dir.ensure_dir(&name, 0o711).unwrap();
        assert_eq!(mode_of(&root.join(&name)), 0o711, "{name}");
    }
    for mode in [0o666, 0o600, 0o4755, 0o444, 0o777, 0o000] {
        let name = format!("f{mode:o}");
        let mut file = dir.create_file(&name, mode).unwrap();
        std::io::Write::write_all(&mut file, b"").unwrap();
        assert_eq!(mode_of(&root.join(&name)), mode, "{name}");
    }
}

#[test]
fn set_group_id_of_the_parent_is_not_inherited_into_an_exact_mode() {
    let (root, dir) = dir();
    let parent = dir.create_dir("p", 0o2755).unwrap();
    parent.create_dir("c", 0o755).unwrap();
    assert_eq!(mode_of(&root.join("p/c")), 0o755);
}

#[test]
fn creating_what_exists_is_told_apart() {
    let (root, dir) = dir();
    dir.create_dir("d", 0o700).unwrap();
    assert_eq!(dir.create_dir("d", 0o755).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(mode_of(&root.join("d")), 0o700);
    assert_eq!(dir.create_file("d", 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
    symlink("nowhere", root.join("l")).unwrap();
    for result in [dir.create_dir("l", 0o700).map(drop), dir.create_file("l", 0o600).map(drop)] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    assert!(!root.join("nowhere").exists());
}

#[test]
fn create_all_makes_what_is_missing_and_sets_the_mode_of_the_last() {
    let (root, _) = dir();
    let path = root.join("a/b/c");
    let made = Dir::create_all(&path, 0o750).unwrap();
    assert_eq!(made.path(), path);
    for part in ["a", "a/b", "a/b/c"] {
        assert_eq!(mode_of(&root.join(part)), 0o750, "{part}");
    }
    Dir::create_all(&root.join("a/b"), 0o700).unwrap();
    assert_eq!(mode_of(&root.join("a")), 0o750);
    assert_eq!(mode_of(&root.join("a/b")), 0o700);
    assert_eq!(mode_of(&path), 0o750);
    std::fs::write(root.join("file"), b"").unwrap();
    Dir::create_all(&root.join("file/x"), 0o700).unwrap_err();
    Dir::create_all(&root.join("missing/../x"), 0o700).unwrap_err();
}

#[test]
fn the_way_to_a_store_may_be_a_link_what_lies_in_it_may_not() {
    let (root, dir) = dir();
    dir.create_dir("real", 0o700).unwrap();
    symlink("real", root.join("link")).unwrap();
    let through = Dir::open(&root.join("link")).unwrap();
    drop(through.create_file("f", 0o600).unwrap());
    assert!(root.join("real/f").exists());
    let errno = dir.open_dir("link").unwrap_err().errno();
    assert!([libc::ELOOP, libc::ENOTDIR].contains(&errno), "{errno}");
    let errno = dir.ensure_dir("link", 0o755).unwrap_err().errno();
    assert!([libc::ELOOP, libc::ENOTDIR].contains(&errno), "{errno}");
    assert_eq!(mode_of(&root.join("real")), 0o700);
    assert_eq!(Dir::open(&root.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir.open_dir("none").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn reading_keeps_to_the_limit_and_to_regular_files() {
    let (root, dir) = dir();
    std::fs::write(root.join("f"), b"12345").unwrap();
    assert_eq!(dir.read("f", 5).unwrap(), b"12345");
    assert_eq!(dir.read("f", u64::MAX).unwrap(), b"12345");
    assert_eq!(dir.read("f", 4).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(dir.read("none", 4).unwrap_err().kind(), ErrorKind::NotFound);
    symlink("f", root.join("link")).unwrap();
    symlink("none", root.join("dangling")).unwrap();
    dir.create_dir("dir", 0o700).unwrap();
    rustix::fs::mkfifoat(&dir, "fifo", Mode::RWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    for name in ["link", "dangling", "dir", "fifo", "socket"] {
        let error = dir.read(name, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {}", error.report());
        assert_eq!(dir.open_file(name).unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_does_not_pass_the_limit() {
    // Files of procfs have no size until they are read.
    let proc = Dir::open(Path::new("/proc/self")).unwrap();
    assert_eq!(proc.read("status", 10).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(proc.read("status", 1 << 20).unwrap().starts_with(b"Name:"));
}

#[test]
fn stat_and_entries_do_not_follow_links() {
    let (root, dir) = dir();
    symlink("/etc", root.join("l")).unwrap();
    dir.create_dir("d", 0o750).unwrap();
    std::fs::write(root.join("f"), b"abc").unwrap();
    rustix::fs::mkfifoat(&dir, "p", Mode::RWXU).unwrap();
    let mut entries: Vec<_> =
        dir.entries().unwrap().into_iter().map(|e| (e.name.into_string().unwrap(), e.kind)).collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let expected =
        [("d", FileKind::Dir), ("f", FileKind::File), ("l", FileKind::Symlink), ("p", FileKind::Other)];
    assert_eq!(entries, expected.map(|(name, kind)| (name.to_owned(), kind)));
    for (name, kind) in expected {
        let stat = dir.stat(name).unwrap().unwrap();
        let real = std::fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!(stat.kind, kind);
        assert_eq!((stat.inode, stat.device, stat.size), (real.ino(), real.dev(), real.size()));
        assert_eq!((stat.uid, stat.gid, stat.mode), (real.uid(), real.gid(), real.mode() & MODE_BITS));
        assert_eq!((stat.mtime, i64::from(stat.mtime_nanos)), (real.mtime(), real.mtime_nsec()));
    }
    assert!(dir.stat("none").unwrap().is_none());
    assert_eq!(dir.read_link("l").unwrap(), Path::new("/etc"));
    assert_eq!(dir.read_link("f").unwrap_err().errno(), libc::EINVAL);
    assert!(dir.is_link("l", |target| target == b"/etc") && !dir.is_link("l", |_| false));
    assert!(
        !dir.is_link("f", |_| true) && !dir.is_link("absent", |_| true) && !dir.is_link("../l", |_| true)
    );
    // Twice the same: reading a directory leaves no position behind.
    assert_eq!(dir.try_clone().unwrap().entries().unwrap().len(), 4);
    for (length, told) in [(511, true), (512, false)] {
        dir.symlink(Path::new(&"x".repeat(length)), length.to_string()).unwrap();
        assert_eq!(dir.is_link(length.to_string(), |target| target.len() == length), told, "{length}");
    }
}

#[test]
fn renaming_replaces_or_refuses_as_asked() {
    let (root, dir) = dir();
    let to = dir.create_dir("to", 0o700).unwrap();
    std::fs::write(root.join("a"), b"a").unwrap();
    std::fs::write(root.join("to/b"), b"b").unwrap();
    assert_eq!(dir.rename_new("a", &to, "b").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(to.read("b", 1).unwrap(), b"b");
    dir.rename("a", &to, "b").unwrap();
    assert_eq!(to.read("b", 1).unwrap(), b"a");
    assert_eq!(dir.rename("a", &to, "b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir.rename_new("a", &to, "c").unwrap_err().kind(), ErrorKind::NotFound);
    dir.create_dir("d", 0o700).unwrap();
    dir.create_dir("empty", 0o700).unwrap();
    assert_eq!(dir.rename_new("d", &dir, "empty").unwrap_err().kind(), ErrorKind::AlreadyExists);
    dir.rename_new("d", &to, "d").unwrap();
    assert!(root.join("to/d").is_dir());
}

#[test]
fn removing_a_file_says_whether_there_was_one() {
    let (root, dir) = dir();
    std::fs::write(root.join("f"), b"").unwrap();
    symlink("f", root.join("l")).unwrap();
    dir.create_dir("d", 0o700).unwrap();
    assert!(dir.remove_file("l").unwrap());
    assert!(root.join("f").exists());
    assert!(dir.remove_file("f").unwrap());
    assert!(!dir.remove_file("f").unwrap());
    assert_eq!(dir.remove_file("d").unwrap_err().errno(), libc::EISDIR);
    std::fs::write(root.join("d/x"), b"").unwrap();
    assert_eq!(dir.remove_empty_dir("d").unwrap_err().errno(), libc::ENOTEMPTY);
    assert!(dir.remove_file("d/x").is_err());
    std::fs::remove_file(root.join("d/x")).unwrap();
    assert!(dir.remove_empty_dir("d").unwrap());
    assert!(!dir.remove_empty_dir("d").unwrap());
}

#[test]
fn usage_counts_as_the_reference_does() {
    let (root, dir) = dir();
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::write(root.join("a/f"), [0; 1000]).unwrap();
    std::fs::hard_link(root.join("a/f"), root.join("a/b/again")).unwrap();
    symlink("/", root.join("a/b/link")).unwrap();
    let expected: u64 = ["", "a", "a/b", "a/f", "a/b/again", "a/b/link"]
        .iter()
        .map(|path| std::fs::symlink_metadata(root.join(path)).unwrap().size())
        .sum();
    let usage = dir.usage().unwrap();
    assert_eq!((usage.bytes.0, usage.inodes.0), (expected, 6));
}

#[test]
fn random_text_has_the_length_asked_for_and_differs() {
    for len in [0, 1, 2, 9, 26, 64] {
        let text = random_hex(len).unwrap();
        assert_eq!(text.len(), len);
        assert!(text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{text}");
    }
    assert_ne!(random_hex(32).unwrap(), random_hex(32).unwrap());
}

#[test]
fn syncing_and_free_space_answer() {
    let (_root, dir) = dir();
    dir.sync().unwrap();
    dir.sync_fs().unwrap();
    assert!(dir.free_space().unwrap() > 0);
}

#[test]
fn the_path_stays_true_when_it_was_opened_by_a_relative_one() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(Dir::open(Path::new(".")).unwrap().path(), here);
}

#[test]
fn remove_all_takes_every_kind_and_follows_nothing() {
    let (root, dir) = dir();
    let outside = TestRoot::in_memory("outside");
    std::fs::write(outside.join("precious"), b"x").unwrap();
    std::fs::create_dir_all(root.join("t/a/b/c")).unwrap();
    symlink(outside.path(), root.join("t/a/dirlink")).unwrap();
    symlink(outside.join("precious"), root.join("t/a/b/filelink")).unwrap();
    std::fs::hard_link(outside.join("precious"), root.join("t/hard")).unwrap();
    rustix::fs::mkfifoat(&dir, "t/fifo", Mode::RWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("t/socket")).unwrap();
    assert!(dir.remove_all("t").unwrap());
    assert!(!dir.remove_all("t").unwrap());
    assert!(dir.entries().unwrap().is_empty());
    assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"x");
    symlink(outside.path(), root.join("link")).unwrap();
    assert!(dir.remove_all("link").unwrap());
    assert!(outside.join("precious").exists());
    std::fs::write(root.join("file"), b"").unwrap();
    assert!(dir.remove_all("file").unwrap());
    assert!(dir.entries().unwrap().is_empty());
}

/// Makes `depth` directories `d` below each other, deeper than any path can name.
fn deep(dir: &Dir, depth: usize) {
    let mut at = dir.create_dir("deep", 0o700).unwrap();
    for _ in 0..depth {
        at = at.create_dir("d", 0o700).unwrap();
        at.path = PathBuf::from("deep");
    }
    drop(at.create_file("f", 0o600).unwrap());
}

/// Descriptors of this process that lead below `path`.
fn descriptors_below(path: &Path) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter(|target| target.starts_with(path))
        .count()
}

#[test]
fn trees_deeper_than_any_path_are_measured_and_removed() {
    let (_root, dir) = dir();
    deep(&dir, 6000);
    let usage = dir.open_dir("deep").unwrap().usage().unwrap();
    assert_eq!(usage.inodes.0, 6002);
    assert!(dir.remove_all("deep").unwrap());
    assert!(dir.entries().unwrap().is_empty());
}

#[test]
fn directories_that_their_owner_may_not_enter_are_removed() {
    let (root, dir) = dir();
    std::fs::create_dir_all(root.join("t/a/b/c")).unwrap();
    std::fs::write(root.join("t/a/b/f"), b"").unwrap();
    for path in ["t/a/b/c", "t/a/b", "t/a", "t"] {
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    assert!(dir.remove_all("t").unwrap());
    assert!(dir.entries().unwrap().is_empty());
}

#[test]
fn a_wide_directory_is_removed() {
    let (root, dir) = dir();
    std::fs::create_dir(root.join("wide")).unwrap();
    for n in 0..3000 {
        std::fs::write(root.join(format!("wide/f{n}")), b"").unwrap();
        std::fs::create_dir(root.join(format!("wide/d{n}"))).unwrap();
    }
    assert!(dir.remove_all("wide").unwrap());
    assert!(dir.entries().unwrap().is_empty());
}

#[test]
fn immutable_and_append_only_entries_are_removed() {
    if !need_root() {
        return;
    }
    let (root, dir) = dir();
    std::fs::create_dir_all(root.join("t/locked/sub")).unwrap();
    for file in ["t/f", "t/locked/f", "t/locked/sub/f"] {
        std::fs::write(root.join(file), b"").unwrap();
    }
    for (path, flag) in [
        ("t/f", rustix::fs::IFlags::IMMUTABLE),
        ("t/locked/sub/f", rustix::fs::IFlags::APPEND),
        ("t/locked/sub", rustix::fs::IFlags::IMMUTABLE),
        ("t/locked", rustix::fs::IFlags::APPEND),
    ] {
        let file = File::open(root.join(path)).unwrap();
        rustix::fs::ioctl_setflags(&file, flag).unwrap();
    }
    assert!(std::fs::remove_dir_all(root.join("t")).is_err(), "the flags are in force");
    assert!(dir.remove_all("t").unwrap());
    assert!(dir.entries().unwrap().is_empty());
}

#[test]
fn a_mount_below_is_never_entered() {
    if !need_root() {
        return;
    }
    let (root, dir) = dir();
    let outside = TestRoot::in_memory("outside");
    std::fs::write(outside.join("precious"), b"x").unwrap();
    std::fs::create_dir_all(root.join("t/a/mnt")).unwrap();
    // The same file system: only the mount id tells.
    rustix::mount::mount_bind(outside.path(), root.join("t/a/mnt")).unwrap();
    let error = dir.remove_all("t").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    assert!(error.report().contains("t/a/mnt"), "{}", error.report());
    let error = dir.open_dir("t").unwrap().open_dir("a").unwrap().remove_all("mnt").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "the top may be a mount, too");
    assert!(outside.join("precious").exists());
    rustix::mount::unmount(root.join("t/a/mnt"), rustix::mount::UnmountFlags::NOFOLLOW).unwrap();
    assert!(dir.remove_all("t").unwrap());
}

#[test]
fn two_removals_of_one_tree_get_on_with_each_other() {
    let (root, dir) = dir();
    for n in 0..40 {
        std::fs::create_dir_all(root.join(format!("t/d{n}/a/b"))).unwrap();
        for f in 0..20 {
            std::fs::write(root.join(format!("t/d{n}/a/f{f}")), b"").unwrap();
        }
    }
    let other = dir.try_clone().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| dir.remove_all("t"));
        let second = scope.spawn(|| other.remove_all("t"));
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    assert!(dir.entries().unwrap().is_empty());
}

#[test]
fn descriptors_are_given_back() {
    let (root, dir) = dir();
    deep(&dir, 100);
    dir.usage().unwrap();
    dir.remove_all("deep").unwrap();
    assert_eq!(descriptors_below(root.path()), 1);
}
