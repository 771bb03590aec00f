// SPDX-License-Identifier: MulanPSL-2.0
//! What `diff` and `commit` print, write and return.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod cli_support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use cli_support::common::need_root;
use cli_support::{Store, golden_image, text};
use isula_storage::id::ContainerId;
use isula_storage::storage::{CreateContainer, Storage, StorageOptions};
use serde_json::json;

/// A container of the busybox image with a few changes; its id.
fn with_container(store: &Store) -> String {
    store.import(&golden_image("bb.tar.gz"));
    let storage = Storage::open(StorageOptions::new(store.root(), store.run_root())).unwrap();
    let id = "c".repeat(64);
    let container = CreateContainer {
        id: ContainerId::new(&id).unwrap(),
        image: "localhost/bb:v1".to_owned(),
        mount_label: None,
        storage_options: Vec::new(),
    };
    storage.create_container(&container).unwrap();
    let place = storage.mount_container(&id).unwrap();
    fs::remove_file(place.join("bin/busybox")).unwrap();
    fs::create_dir_all(place.join("new/dir")).unwrap();
    fs::write(place.join("new/dir/file"), "content").unwrap();
    fs::write(place.join(OsStr::from_bytes(b"new/\xff\n")), "").unwrap();
    storage.unmount_container(&id, false).unwrap();
    storage.close().unwrap();
    id
}

#[test]
fn changes_are_listed_for_people_and_programs() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let container = with_container(&store);
    let expected = "C /bin\nD /bin/busybox\nA /new\nA /new/dir\nA /new/dir/file\nA /new/\\xff\\n\n";
    assert_eq!(store.ok(["diff", &container[..12]]), expected);
    let changes = store.json(["diff", &container]);
    assert_eq!(changes[1], json!({ "kind": "deleted", "path": "bin/busybox" }));
    assert_eq!(changes[5]["path_bytes"], json!([110, 101, 119, 47, 255, 10]));
    // Of an image layer, and of any other layer.
    let layers: Vec<String> = store.layer_ids();
    let top = layers.iter().find(|id| **id != container && store.ok(["diff", id.as_str()]).contains("D /"));
    assert!(top.is_some(), "the second layer of the image deletes something");
    assert!(store.ok(["diff", &container, &layers[0]]).contains("D /bin/busybox"));
    let (code, message) = store.fails(["diff", "nobody"]);
    assert_eq!(code, 3, "{message}");
    let (code, _) = store.fails(["diff", &container, "-o", "x"]);
    assert_eq!(code, 2, "a file only for an archive");
}

#[test]
fn an_archive_is_written_under_its_name_when_it_is_whole() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let container = with_container(&store);
    let file = store.home().join("changes.tar");
    let said = store.json(["diff", "--tar", "-o", file.to_str().unwrap(), &container]);
    let sum = Command::new("sha256sum").arg(&file).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(text(&said["digest"]), format!("sha256:{}", &sum[..64]));
    let list = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert!(list.status.success());
    let names = String::from_utf8(list.stdout).unwrap();
    assert_eq!(names, "./\nbin/\nbin/.wh.busybox\nnew/\nnew/dir/\nnew/dir/file\nnew/\\377\\n\n");
    let through_a_pipe = store.tool().args(["diff", "--tar", &container]).output().unwrap();
    assert!(through_a_pipe.status.success());
    assert_eq!(through_a_pipe.stdout, fs::read(&file).unwrap());
    fs::remove_file(&file).unwrap();
    let (code, _) = store.fails(["diff", "--tar", "-o", file.to_str().unwrap(), "nobody"]);
    assert_eq!(code, 3);
    assert!(!file.exists());
}

#[test]
fn a_container_becomes_an_image() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let container = with_container(&store);
    let said = store.ok([
        "commit",
        "--author",
        "me",
        "--message",
        "why",
        "--change",
        "ENV A=b",
        "--change",
        "CMD [\"/x\"]",
        &container,
        "made:1",
    ]);
    let (id, rest) = said.split_once("  ").unwrap();
    assert!(rest.starts_with("made:1  ("), "{rest}");
    let image = store.json(["inspect", id]);
    let config = &image["config"];
    assert_eq!((&config["author"], &config["config"]["Cmd"]), (&json!("me"), &json!(["/x"])));
    assert!(config["config"]["Env"].as_array().unwrap().contains(&json!("A=b")));
    assert_eq!(config["history"].as_array().unwrap().last().unwrap()["comment"], "why");
    assert_eq!(store.assert_whole().len(), 2);

    let gzip = store.json(["commit", "--gzip", &container, "made:2"]);
    assert_ne!(gzip["id"], json!(id));
    assert_eq!(store.ok(["-q", "commit", &container]).trim().len(), 64);
    assert_eq!(store.assert_whole().len(), 4);
    // What was made of the container is an image of its own.
    store.ok(["rmi", "made:1"]);
    assert!(store.ok(["images"]).contains("made:2"));

    for (args, code) in [
        (vec!["commit", "nobody", "x:1"], 3),
        (vec!["commit", container.as_str(), "Not A Name"], 2),
        (vec!["commit", container.as_str(), "--change", "RUN x"], 2),
    ] {
        let (ended, message) = store.fails(&args);
        assert_eq!(ended, code, "{args:?}: {message}");
    }
}
