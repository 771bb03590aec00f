// SPDX-License-Identifier: MulanPSL-2.0
//! The files: each row of the table of Docker's `fs` backend.

use super::*;
use crate::sys::fs::Dir;

fn backend() -> (TestRoot, Backend) {
    let root = TestRoot::in_memory("imagedb-backend");
    let backend = Backend::open(&Dir::open(root.path()).unwrap(), Durability::Full).unwrap();
    (root, backend)
}

fn state(root: &TestRoot) -> StateDir {
    let dir = Dir::open(root.path()).unwrap();
    StateDir::open(&dir, ".isula-storage", Ownership::Owner, Durability::Full).unwrap()
}

fn content(root: &TestRoot, id: &Digest) -> PathBuf {
    root.join("imagedb/content/sha256").join(id.hex())
}

#[test]
fn new_makes_both_directories_for_the_owner_only() {
    let (root, _backend) = backend();
    let dirs = [
        "imagedb",
        "imagedb/content",
        "imagedb/content/sha256",
        "imagedb/metadata",
        "imagedb/metadata/sha256",
    ];
    let wanted: BTreeMap<String, u32> = dirs.iter().map(|dir| ((*dir).to_owned(), 0o700)).collect();
    assert_eq!(tree(root.path()), wanted);
}

#[test]
fn new_fails_where_a_file_is_in_the_way() {
    for file in ["imagedb", "imagedb/content", "imagedb/metadata", "imagedb/content/sha256"] {
        let root = TestRoot::in_memory("imagedb-backend");
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "x").unwrap();
        let opened = Backend::open(&Dir::open(root.path()).unwrap(), Durability::Full);
        fails(opened, ErrorKind::Os(libc::ENOTDIR), "failed to create storage backend");
    }
}

#[test]
fn put_returns_the_digest_and_writes_the_bytes() {
    let (root, backend) = backend();
    let id = backend.put(b"foobar").unwrap();
    assert_eq!(id.hex(), "c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2");
    assert_eq!(backend.get(&id).unwrap(), b"foobar");
    let mode = std::fs::metadata(content(&root, &id)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let large: Vec<u8> = (0..8192u32).map(|i| u8::try_from(i * i % 251).unwrap()).collect();
    assert_eq!(backend.get(&backend.put(&large).unwrap()).unwrap(), large);
    // The first vector of the reference's own tests.
    let config = br#"{"comment": "abc", "rootfs": {"type": "layers", "diff_ids": ["2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"]}}"#;
    let id = backend.put(config).unwrap();
    assert_eq!(id.hex(), "8d25a9c45df515f9d0fe8e4a6b1c64dd3b965a84790ddbcc7954bb9bc89eb993");
}

#[test]
fn put_again_changes_nothing() {
    let (_root, backend) = backend();
    let id = backend.put(b"foobar").unwrap();
    assert_eq!(backend.put(b"foobar").unwrap(), id);
    assert_eq!(backend.ids().unwrap(), [id]);
    assert_eq!(backend.get(&id).unwrap(), b"foobar");
}

#[test]
fn put_of_nothing_is_an_error() {
    let (_root, backend) = backend();
    fails(backend.put(b""), ErrorKind::InvalidArgument, "invalid empty data");
    assert_eq!(backend.ids().unwrap(), []);
}

#[test]
fn put_fails_where_a_directory_is_in_the_way() {
    let (root, backend) = backend();
    std::fs::create_dir(content(&root, &Digest::of(b"foobar"))).unwrap();
    let error = backend.put(b"foobar").unwrap_err().report();
    assert!(error.starts_with("failed to write digest data"), "{error}");
    assert_eq!(tree(root.path()).len(), 6, "nothing temporary is left");
}

#[test]
fn get_of_what_is_not_there_fails() {
    let (_root, backend) = backend();
    let id = Digest::of(b"x");
    fails(backend.get(&id), ErrorKind::NotFound, &format!("failed to get digest {id}"));
    // Other algorithms and ids of a wrong length are no digests here.
    for text in [
        "foobar:abc",
        "sha256:abc",
        &format!("sha256:{}", "a".repeat(65)),
        &format!("sha512:{}", "a".repeat(64)),
    ] {
        assert!(Digest::parse(text).is_err(), "{text}");
    }
}

#[test]
fn get_verifies_every_time() {
    let (root, backend) = backend();
    let id = backend.put(b"foobar").unwrap();
    std::fs::write(content(&root, &id), "foobaz").unwrap();
    fails(backend.get(&id), ErrorKind::DigestMismatch, &format!("failed to verify: {id}"));
    std::fs::write(content(&root, &id), "").unwrap();
    fails(backend.get(&id), ErrorKind::DigestMismatch, "failed to verify");
    std::fs::write(content(&root, &id), "foobar").unwrap();
    backend.get(&id).unwrap();
}

#[test]
fn get_never_follows_a_link_and_never_blocks() {
    let (root, backend) = backend();
    let id = Digest::of(b"foobar");
    std::fs::write(root.join("elsewhere"), "foobar").unwrap();
    std::os::unix::fs::symlink(root.join("elsewhere"), content(&root, &id)).unwrap();
    fails(backend.get(&id), ErrorKind::Corrupt, "symbolic link");
    std::fs::remove_file(content(&root, &id)).unwrap();
    let fifo = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, content(&root, &id), rustix::fs::FileType::Fifo, fifo, 0).unwrap();
    fails(backend.get(&id), ErrorKind::Corrupt, "special file");
}

#[test]
fn a_config_that_is_too_large_is_not_read() {
    let (root, backend) = backend();
    let id = Digest::of(b"x");
    let file = std::fs::File::create(content(&root, &id)).unwrap();
    file.set_len(100 << 30).unwrap();
    fails(backend.get(&id), ErrorKind::LimitExceeded, "failed to get digest");
}

#[test]
fn walk_sees_each_digest_once_and_skips_other_names() {
    let (root, backend) = backend();
    let ids = sorted(vec![backend.put(b"foo").unwrap(), backend.put(b"bar").unwrap()]);
    let dir = root.join("imagedb/content/sha256");
    let upper = "A".repeat(64);
    for name in ["foobar", ".tmp-x", &upper, &"a".repeat(63), &"a".repeat(65), "é"] {
        std::fs::write(dir.join(name), "x").unwrap();
    }
    let mut seen = Vec::new();
    backend
        .walk(|id| {
            seen.push(id);
            Ok(())
        })
        .unwrap();
    assert_eq!(sorted(seen), ids);
}

#[test]
fn walk_stops_at_an_error_and_returns_it() {
    let (_root, backend) = backend();
    backend.put(b"foo").unwrap();
    backend.put(b"bar").unwrap();
    let mut calls = 0;
    let walked = backend.walk(|_| {
        calls += 1;
        Err(Error::invalid("enough"))
    });
    fails(walked, ErrorKind::InvalidArgument, "enough");
    assert_eq!(calls, 1);
}

#[test]
fn metadata_of_each_image_and_key_stand_alone() {
    let (root, backend) = backend();
    let (foo, bar) = (backend.put(b"foo").unwrap(), backend.put(b"bar").unwrap());
    for (id, key, value) in [(foo, "tkey", "value1"), (bar, "tkey", "value2"), (foo, "tkey2", "value3")] {
        backend.set_metadata(&id, key, value.as_bytes()).unwrap();
    }
    for (id, key, value) in [(foo, "tkey", "value1"), (bar, "tkey", "value2"), (foo, "tkey2", "value3")] {
        assert_eq!(backend.metadata(&id, key).unwrap(), value.as_bytes());
    }
    fails(backend.metadata(&bar, "tkey2"), ErrorKind::NotFound, "failed to read metadata");
    let place = format!("imagedb/metadata/sha256/{}", foo.hex());
    let modes = tree(root.path());
    assert_eq!((modes[&place], modes[&format!("{place}/tkey")]), (0o700, 0o600));
}

#[test]
fn metadata_need_a_config_that_is_there_and_right() {
    let (root, backend) = backend();
    let id = Digest::of(b"foo");
    fails(backend.set_metadata(&id, "tkey", b"x"), ErrorKind::NotFound, "failed to get digest");
    fails(backend.metadata(&id, "tkey"), ErrorKind::NotFound, "failed to get digest");
    backend.put(b"foo").unwrap();
    backend.set_metadata(&id, "tkey", b"x").unwrap();
    std::fs::write(content(&root, &id), "bar").unwrap();
    fails(backend.set_metadata(&id, "tkey", b"y"), ErrorKind::DigestMismatch, "failed to verify");
    fails(backend.metadata(&id, "tkey"), ErrorKind::DigestMismatch, "failed to verify");
}

#[test]
fn a_metadata_key_is_one_path_component() {
    let (root, backend) = backend();
    let id = backend.put(b"foo").unwrap();
    let before = tree(root.path());
    for key in ["../evil", "a/b", "", ".", "..", ".tmp-x", "a\0b", "/x", &"k".repeat(129)] {
        fails(backend.set_metadata(&id, key, b"x"), ErrorKind::InvalidArgument, "metadata key");
        fails(backend.metadata(&id, key), ErrorKind::InvalidArgument, "metadata key");
        fails(backend.delete_metadata(&id, key), ErrorKind::InvalidArgument, "metadata key");
    }
    assert_eq!(tree(root.path()), before);
}

#[test]
fn deleting_metadata_needs_nothing_to_be_there() {
    let (root, backend) = backend();
    let id = backend.put(b"foo").unwrap();
    backend.delete_metadata(&id, "tkey").unwrap();
    backend.delete_metadata(&Digest::of(b"unknown"), "tkey").unwrap();
    backend.set_metadata(&id, "tkey", b"x").unwrap();
    std::fs::remove_file(content(&root, &id)).unwrap();
    backend.delete_metadata(&id, "tkey").unwrap();
    assert!(!root.join("imagedb/metadata/sha256").join(id.hex()).join("tkey").exists());
}

#[test]
fn delete_removes_config_and_metadata_of_one_image_only() {
    let (root, backend) = backend();
    let state = state(&root);
    let (foo, bar) = (backend.put(b"foo").unwrap(), backend.put(b"bar").unwrap());
    for id in [&foo, &bar] {
        backend.set_metadata(id, "tkey", b"x").unwrap();
    }
    backend.delete(&state, &foo).unwrap();
    assert_eq!(backend.ids().unwrap(), [bar]);
    assert_eq!(backend.ids_with_metadata().unwrap(), [bar]);
    assert_eq!(backend.metadata(&bar, "tkey").unwrap(), b"x");
    fails(backend.delete(&state, &foo), ErrorKind::NotFound, "delete image");
}

#[test]
fn a_deletion_that_cannot_be_ended_does_not_stop_the_others() {
    let (root, backend) = backend();
    let state = state(&root);
    for content in [&b"foo"[..], b"bar"] {
        let id = backend.put(content).unwrap();
        backend.set_metadata(&id, "tkey", b"x").unwrap();
        let place = |prefix: &str| root.join("imagedb/metadata/sha256").join(format!("{prefix}{}", id.hex()));
        std::fs::rename(place(""), place(".deleting-")).unwrap();
    }
    let mut failed = false;
    let fail_once = move |_: &str| {
        if std::mem::replace(&mut failed, true) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Os(libc::EIO), "injected"))
    };
    crate::persist::with_hook(fail_once, || backend.tidy(&state)).unwrap();
    assert_eq!(backend.ids_with_metadata().unwrap().len(), 1);
    backend.tidy(&state).unwrap();
    assert_eq!(backend.ids_with_metadata().unwrap().len(), 2);
}

#[test]
fn delete_takes_whatever_lies_there() {
    let (root, backend) = backend();
    let state = state(&root);
    let id = Digest::of(b"foo");
    std::fs::create_dir_all(content(&root, &id).join("deep/er")).unwrap();
    backend.delete(&state, &id).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", content(&root, &id)).unwrap();
    backend.delete(&state, &id).unwrap();
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert_eq!(backend.ids().unwrap(), []);
    assert_eq!(std::fs::read_dir(root.join(".isula-storage/trash")).unwrap().count(), 0);
}
