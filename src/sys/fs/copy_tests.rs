// SPDX-License-Identifier: MulanPSL-2.0
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use super::*;
use crate::sys::testing::{TestRoot, loop_ext4, need_root, run};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Everything that can be said of a tree, one line an entry, sorted; hard links as groups.
fn describe(top: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut groups: HashMap<u64, String> = HashMap::new();
    let mut pending = vec![top.to_owned()];
    let mut all = Vec::new();
    while let Some(path) = pending.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push((path, meta));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, meta) in all {
        let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
        let content = match () {
            () if meta.is_file() => crate::digest::Digest::of(&std::fs::read(&path).unwrap()).to_string(),
            () if meta.is_symlink() => format!("-> {}", std::fs::read_link(&path).unwrap().display()),
            () => format!("{:x}", meta.rdev()),
        };
        let group = groups.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let parent = std::fs::File::open(path.parent().unwrap()).unwrap();
        let file_name = path.file_name().unwrap();
        let mut attributes: Vec<String> = xattr::list_at(parent.as_fd(), file_name)
            .unwrap()
            .iter()
            .map(|a| format!("{a:?}={:?}", xattr::get_at(parent.as_fd(), file_name, a).unwrap().unwrap()))
            .collect();
        attributes.sort();
        let size = if meta.is_dir() { 0 } else { meta.size() };
        lines.push(format!(
            "{name} {:o} {}:{} {}.{:09} {size} same as {group:?} {content} {attributes:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
        ));
    }
    lines
}

/// One of everything below `top`.
fn plant(top: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let sub = top.join("sub/deeper");
    std::fs::create_dir_all(&sub).unwrap();
    std::fs::create_dir(top.join("empty")).unwrap();
    std::fs::write(top.join("file"), b"content").unwrap();
    std::fs::write(top.join(OsStr::from_bytes(b"\xff\xfe")), b"").unwrap();
    std::fs::write(top.join("setuid"), b"#!").unwrap();
    std::fs::write(top.join("capable"), b"#!").unwrap();
    let sparse = std::fs::File::create(sub.join("sparse")).unwrap();
    sparse.write_all_at(b"data", 1 << 20).unwrap();
    sparse.set_len(4 << 20).unwrap();
    symlink("../nowhere", top.join("link")).unwrap();
    for name in ["sub/hard1", "sub/deeper/hard2", "hard3"] {
        std::fs::hard_link(top.join("file"), top.join(name)).unwrap();
    }
    std::fs::hard_link(top.join("link"), sub.join("link2")).unwrap();
    let dir = std::fs::File::open(top).unwrap();
    let special = [
        (FileType::Fifo, "fifo", 0),
        (FileType::CharacterDevice, "null", rustix::fs::makedev(1, 3)),
        (FileType::CharacterDevice, "whiteout", 0),
        (FileType::BlockDevice, "block", rustix::fs::makedev(7, 200)),
        (FileType::Socket, "socket", 0),
    ];
    for (number, (kind, name, device)) in (0..).zip(special) {
        rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(0o640), device).unwrap();
        std::os::unix::fs::lchown(top.join(name), Some(100 + number), Some(200)).unwrap();
    }
    let set = |name: &str, attribute: &str, value: &[u8]| {
        xattr::set_at(dir.as_fd(), OsStr::new(name), OsStr::new(attribute), value).unwrap();
    };
    set("file", "trusted.note", b"\0\xff");
    // tmpfs takes these since Linux 6.6.
    let user = xattr::set_at(dir.as_fd(), "file".as_ref(), "user.note".as_ref(), b"");
    assert!(user.is_ok() || user.is_err_and(|error| error.errno() == libc::EOPNOTSUPP));
    set("link", "trusted.note", b"of the link");
    set("fifo", "trusted.note", b"of the fifo");
    set("sub", "trusted.overlay.opaque", b"y");
    std::os::unix::fs::chown(top.join("file"), Some(1000), Some(1001)).unwrap();
    std::os::unix::fs::lchown(top.join("link"), Some(1002), Some(1003)).unwrap();
    std::os::unix::fs::chown(top.join("setuid"), Some(1000), Some(1001)).unwrap();
    for (name, mode) in [("setuid", 0o6755), ("sub", 0o3777), ("empty", 0o000), ("file", 0o444)] {
        std::fs::set_permissions(top.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // cap_net_raw+ep, as the kernel keeps it (version 2).
    let mut capability = [0u8; 20];
    capability[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    capability[4..8].copy_from_slice(&(1u32 << 13).to_le_bytes());
    set("capable", "security.capability", &capability);
    for (number, name) in (1..).zip(["link", "file", "fifo", "null", "sub/deeper", "sub", "empty", "."]) {
        let time = Timespec { tv_sec: -5 + number, tv_nsec: 123_456_000 + number };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn open(path: &Path) -> Dir {
    Dir::open(path).unwrap()
}

#[test]
fn a_copy_has_everything_that_the_tree_has() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(64 << 20);
    let memory = TestRoot::in_memory("copy");
    for base in [disk.path(), memory.path().to_owned()] {
        std::fs::create_dir(base.join("tree")).unwrap();
        plant(&base.join("tree"));
        let before = describe(&base.join("tree"));
        let dir = open(&base);
        dir.copy_tree("tree", &dir, "copy").unwrap();
        assert_eq!(describe(&base.join("copy")), before);
        assert_eq!(describe(&base.join("tree")), before);
        let blocks =
            |name: &str| std::fs::metadata(base.join(name).join("sub/deeper/sparse")).unwrap().blocks();
        assert!(blocks("copy") <= blocks("tree"));
    }
}

#[test]
fn content_is_shared_where_the_file_system_can() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("reflink");
    let image = root.join("image");
    std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
    run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image));
    std::fs::create_dir(root.join("mnt")).unwrap();
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(root.join("mnt")));
    let dir = open(&root.join("mnt"));
    dir.create_dir("tree", 0o755).unwrap();
    std::fs::write(root.join("mnt/tree/big"), vec![7; 32 << 20]).unwrap();
    dir.sync_fs().unwrap();
    let free = dir.free_space().unwrap();
    dir.copy_tree("tree", &dir, "copy").unwrap();
    dir.sync_fs().unwrap();
    assert!(free - dir.free_space().unwrap() < 8 << 20);
    assert_eq!(std::fs::read(root.join("mnt/copy/big")).unwrap(), vec![7; 32 << 20]);
}

#[test]
fn single_entries_are_copied_too() {
    let root = TestRoot::in_memory("copy");
    let dir = open(root.path());
    std::fs::write(root.join("file"), b"x").unwrap();
    std::fs::hard_link(root.join("file"), root.join("other")).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    dir.copy_tree("file", &dir, "file2").unwrap();
    dir.copy_tree("link", &dir, "link2").unwrap();
    assert_eq!(dir.read("file2", 1).unwrap(), b"x");
    assert_eq!(dir.read_link("link2").unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn a_copy_replaces_nothing_and_leaves_nothing_behind_when_it_fails() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("copy");
    let dir = open(root.path());
    std::fs::create_dir_all(root.join("tree/a/b")).unwrap();
    std::fs::write(root.join("tree/a/file"), b"x").unwrap();
    std::fs::write(root.join("there"), b"precious").unwrap();
    assert_eq!(dir.copy_tree("tree", &dir, "there").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        dir.copy_tree("tree/a/file".rsplit('/').next().unwrap(), &dir, "x").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(dir.read("there", 100).unwrap(), b"precious");

    let inside = open(&root.join("tree/a/b"));
    let error = dir.copy_tree("tree", &inside, "again").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{}", error.report());
    assert!(inside.entries().unwrap().is_empty());

    rustix::mount::mount_bind(root.path(), root.join("tree/a/b")).unwrap();
    let error = dir.copy_tree("tree", &dir, "copy").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    assert!(dir.stat("copy").unwrap().is_none());
    rustix::mount::unmount(root.join("tree/a/b"), rustix::mount::UnmountFlags::NOFOLLOW).unwrap();

    let small = loop_ext4(8 << 20);
    std::fs::write(root.join("tree/a/big"), vec![1; 16 << 20]).unwrap();
    let full = open(&small.path());
    let error = dir.copy_tree("tree", &full, "copy").unwrap_err();
    assert_eq!(error.errno(), libc::ENOSPC, "{}", error.report());
    assert!(full.entries().unwrap().is_empty());
}

#[test]
fn a_deep_tree_with_hard_links_at_both_ends_is_copied() {
    let root = TestRoot::in_memory("copy");
    let dir = open(root.path());
    let mut at = dir.create_dir("deep", 0o700).unwrap();
    let first = at.try_clone().unwrap();
    for _ in 0..3000 {
        at = at.create_dir("d", 0o700).unwrap();
        at.path = "deep".into();
    }
    drop(at.create_file("bottom", 0o600).unwrap());
    rustix::fs::linkat(&at, "bottom", &first, "top", AtFlags::empty()).unwrap();
    rustix::fs::linkat(&at, "bottom", &at, "again", AtFlags::empty()).unwrap();
    dir.copy_tree("deep", &dir, "copy").unwrap();
    assert_eq!(
        dir.open_dir("copy").unwrap().usage().unwrap(),
        dir.open_dir("deep").unwrap().usage().unwrap()
    );
    let copied = statat(dir.open_dir("copy").unwrap().as_fd(), "top", AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_eq!(copied.st_nlink, 3);
    // Deeper than what the test's own clean-up can take.
    for name in ["deep", "copy"] {
        assert!(dir.remove_all(name).unwrap());
    }
}
