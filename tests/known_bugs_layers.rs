// SPDX-License-Identifier: MulanPSL-2.0
//! What the reference does wrong with layers, where no other test shows the better outcome. The numbers are those of
//! `docs/known-problems-of-the-reference.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod cli_support;

use std::io::Read;
use std::path::Path;
use std::process::Command;

use archive_common::layers_of;
use cli_support::common::{TestRoot, mounts_below, need_root};
use cli_support::{Store, golden_image};
use isula_storage::driver::Limits;
use isula_storage::id::LayerId;
use isula_storage::layer::{CreateLayer, LayerStore, LayerStoreOptions};
use isula_storage::persist::{Durability, Ownership};
use isula_storage::time::Timestamp;

fn open(root: &TestRoot) -> LayerStore {
    LayerStore::open(LayerStoreOptions {
        root: root.join("root"),
        run_root: root.join("run"),
        driver: "overlay".to_owned(),
        driver_options: Vec::new(),
        durability: Durability::None,
        ownership: Ownership::Owner,
        owner_shift: None,
        limits: Limits::default(),
    })
    .unwrap()
}

fn id(number: u8) -> LayerId {
    LayerId::new(&format!("{number:064x}")).unwrap()
}

/// An archive that looks around while it is read.
struct Looking<'a> {
    archive: &'a [u8],
    look: &'a (dyn Fn() + Sync),
}

impl Read for Looking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.look)();
        self.archive.read(buffer)
    }
}

/// W7. The reference binds the target on itself, and a kill leaves that behind.
#[test]
fn unpacking_a_layer_mounts_nothing() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("unpack");
    let store = open(&root);
    let before = mounts_below(root.path());
    let look = || assert_eq!(mounts_below(root.path()), before);
    let archives = layers_of("bb.tar.gz");
    let mut content = Looking { archive: &archives[1], look: &look };
    store.create(&id(1), &CreateLayer::default(), Some(&mut content)).unwrap();
    look();
    assert_eq!(before, [root.join("root/overlay")], "the home of the driver, bound on itself");
}

/// W8. The reference mounts, then writes the count; a crash in between, and nobody ever unmounts.
#[test]
fn a_mount_that_nobody_counted_is_counted_by_the_next() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("count");
    let store = open(&root);
    store.create(&id(1), &CreateLayer::default(), None).unwrap();
    let writable = CreateLayer { parent: Some(id(1)), writable: true, ..CreateLayer::default() };
    store.create(&id(2), &writable, None).unwrap();
    let merged = store.mount(id(2).as_str()).unwrap();
    std::fs::write(merged.join("kept"), "x").unwrap();
    drop(store);
    std::fs::remove_file(root.join("run/overlay-layers").join(format!("{}.json", id(2)))).unwrap();
    assert!(mounts_below(root.path()).contains(&merged));

    let store = open(&root);
    assert!(store.problems().is_empty());
    assert_eq!(store.find(id(2).as_str()).unwrap().mount_count, 0);
    assert_eq!(store.mount(id(2).as_str()).unwrap(), merged);
    assert_eq!(store.find(id(2).as_str()).unwrap().mount_count, 1);
    assert!(merged.join("kept").exists());
    store.unmount(id(2).as_str(), false).unwrap();
    assert!(!mounts_below(root.path()).contains(&merged));
    store.delete(id(2).as_str()).unwrap();
}

/// B6, B10. The reference needs `modprobe` and `rm` in PATH, a locale, a temporary directory, and `/` as working directory.
#[test]
fn nothing_is_needed_of_the_environment() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let elsewhere = TestRoot::in_memory("elsewhere");
    let nowhere = elsewhere.join("gone");
    std::fs::create_dir(&nowhere).unwrap();
    let archive = golden_image("bb-nonutf8.tar.gz");
    for args in [&["import", archive.to_str().unwrap()][..], &["check", "--deep"], &["status"]] {
        let mut command = Command::new("/bin/sh");
        // The working directory does not even exist.
        command.args(["-c", "cd \"$0\" && rmdir \"$0\" 2>/dev/null; shift 0; exec \"$@\""]).arg(&nowhere);
        command.arg(env!("CARGO_BIN_EXE_isula-storage"));
        command.arg("--root").arg(store.root()).arg("--run-root").arg(store.run_root()).args(args);
        std::fs::create_dir_all(&nowhere).unwrap();
        let output = command.env_clear().output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let left: Vec<_> = std::fs::read_dir(elsewhere.path()).unwrap().collect();
    assert!(left.len() <= 1, "nothing is made in the working directory: {left:?}");
}

/// B12. The reference writes local time and says that it is UTC.
#[test]
fn a_layer_says_when_it_was_made_in_utc() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let before = Timestamp::now();
    let output = store
        .tool()
        .env("TZ", "Asia/Shanghai")
        .args([Path::new("import"), &golden_image("bb.tar.gz")])
        .output()
        .unwrap();
    assert!(output.status.success());
    let after = Timestamp::now();
    for layer in store.json(["layers"]).as_array().unwrap() {
        let created = layer["created"].as_str().unwrap();
        assert!(created.ends_with('Z'), "{created}");
        let created = Timestamp::parse(created).unwrap();
        assert!(before <= created && created <= after, "{created:?}");
    }
}

/// B21. The reference logs an error for each whiteout, and cleans up what is not there.
#[test]
fn unpacking_says_nothing_of_what_is_no_error() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    for image in ["bb.tar.gz", "opq.tar.gz"] {
        let output = store.tool().args([Path::new("import"), &golden_image(image)]).output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{image}");
    }
}
