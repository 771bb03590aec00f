// SPDX-License-Identifier: MulanPSL-2.0
//! Images made of containers: what they show, what their documents say, and that a failure leaves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod common;
mod storages;

use std::fs;

use archive_common::{differences, tree};
use common::TestRoot;
use isula_storage::digest::Digest;
use isula_storage::error::ErrorKind;
use isula_storage::storage::{CommitOptions, Committed, ImageChange, Storage, StorageOptions, Verdict};
use isula_storage::time::Timestamp;
use serde_json::Value;
use storages::*;

fn named(name: &str) -> CommitOptions {
    CommitOptions {
        names: vec![name.to_owned()],
        created: Some(Timestamp { seconds: 1_000_000_000, nanos: 0 }),
        ..CommitOptions::default()
    }
}

/// Changes a container: a file made, one changed, one deleted, a directory, a hard link.
fn change(storage: &Storage, container: &str) {
    let place = storage.mount_container(container).unwrap();
    fs::write(place.join("a"), "changed").unwrap();
    fs::remove_file(place.join("b")).unwrap();
    fs::create_dir(place.join("dir")).unwrap();
    fs::write(place.join("dir/file"), "new").unwrap();
    fs::hard_link(place.join("dir/file"), place.join("dir/link")).unwrap();
    storage.unmount_container(container, false).unwrap();
}

fn document(storage: &Storage, image: &str, key: &str) -> Value {
    serde_json::from_slice(&storage.images().big_data(image, key).unwrap()).unwrap()
}

fn shows_the_same(storage: &Storage, one: &str, other: &str) {
    let show = |layer: &str| {
        let mut seen = tree(&storage.layers().mount(layer).unwrap());
        seen.remove(std::path::Path::new(""));
        storage.layers().unmount(layer, false).unwrap();
        seen
    };
    let found = differences(&show(one), &show(other));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn on_every_driver(scenario: fn(&TestRoot, &str)) {
    scenario(&TestRoot::in_memory("commit"), "vfs");
    if common::need_root() {
        scenario(&TestRoot::in_memory("commit"), "overlay");
    }
}

#[test]
fn a_containers_changes_become_an_image() {
    on_every_driver(|place, driver| {
        let storage = Storage::open(options(place.path(), driver)).unwrap();
        let made = add_image(&storage, &["a", "b"], &["img:1"]);
        let one = add_container(&storage, '1', "img:1");
        change(&storage, &one);
        let options = CommitOptions {
            author: Some("me".to_owned()),
            changes: vec![ImageChange::parse("CMD [\"/x\"]").unwrap()],
            ..named("new:1")
        };
        let Committed { image, names, layer, diff } = storage.commit(&one[..5], &options).unwrap();
        assert_eq!(names, ["new:1"]);
        assert_eq!(storage.find_image("new:1").unwrap(), image);
        shows_the_same(&storage, &one, layer.as_str());

        let found = storage.layers().find(layer.as_str()).unwrap();
        assert_eq!(found.parent.as_ref(), Some(made.top()));
        assert!(!found.writable);
        assert_eq!(found.uncompressed_digest, Some(diff.diff_id.to_string()));
        assert_eq!(u64::try_from(found.uncompressed_size).unwrap(), diff.content_size.0);
        assert_eq!(storage.layers().hold_count(&layer).unwrap(), 0);
        assert_eq!(storage.layers().check(layer.as_str()).unwrap(), Verdict::Valid);
        let mut tar = Vec::new();
        assert_eq!(storage.export(layer.as_str(), &mut tar).unwrap(), (diff.diff_id, diff.tar_size));
        let mut again = Vec::new();
        assert_eq!(storage.diff(&one, None, &mut again).unwrap(), diff);
        assert!(tar == again, "the layer is what the container changes");

        let config = document(&storage, image.as_str(), &format!("sha256:{image}"));
        assert_eq!(config["rootfs"]["diff_ids"][2], diff.diff_id.to_string());
        assert_eq!((&config["author"], &config["config"]["Cmd"][0]), (&"me".into(), &"/x".into()));
        let manifest = document(&storage, image.as_str(), "manifest");
        assert_eq!(manifest["config"]["digest"], format!("sha256:{image}"));
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
        let whole = storage.images().big_data(image.as_str(), "manifest").unwrap();
        assert_eq!(
            storage.images().get(image.as_str()).unwrap().digest,
            Some(Digest::of(&whole).to_string())
        );
        assert!(storage.images().get(image.as_str()).unwrap().size > 0);
        // It serves for containers as any other image does.
        let two = add_container(&storage, '2', "new:1");
        assert_eq!(storage.changes(&two, Some(&one)).unwrap().len(), 1);
        drop(storage);
        let storage = Storage::open(StorageOptions {
            integration_check: true,
            ..storages::options(place.path(), driver)
        })
        .unwrap();
        assert_eq!(problems(&storage), [""; 0]);
        assert!(storage.find_image("new:1").is_ok());
    });
}

#[test]
fn the_same_commit_is_the_same_image() {
    on_every_driver(|place, driver| {
        let storage = Storage::open(options(place.path(), driver)).unwrap();
        add_image(&storage, &["a", "b"], &["img:1"]);
        let one = add_container(&storage, '1', "img:1");
        change(&storage, &one);
        let first = storage.commit(&one, &named("x:1")).unwrap();
        let second = storage.commit(&one, &named("x:2")).unwrap();
        assert_eq!((first.image.clone(), first.layer), (second.image, second.layer));
        let names = storage.images().names(first.image.as_str()).unwrap();
        assert_eq!(names, ["x:1", "x:2"]);
        let gzip = storage.commit(&one, &CommitOptions { compress: true, ..named("x:3") }).unwrap();
        assert_eq!(gzip.diff.diff_id, first.diff.diff_id);
    });
}

#[test]
fn a_compressed_layer_is_known_by_both_digests() {
    let place = TestRoot::in_memory("commit");
    let storage = open(place.path());
    add_image(&storage, &["a", "b"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");
    let made = storage.commit(&one, &CommitOptions { compress: true, ..named("x:1") }).unwrap();
    let layer = storage.layers().find(made.layer.as_str()).unwrap();
    assert_eq!(layer.uncompressed_digest, Some(made.diff.diff_id.to_string()));
    assert_ne!(layer.compressed_digest, layer.uncompressed_digest);
    let manifest = document(&storage, made.image.as_str(), "manifest");
    assert_eq!(manifest["layers"][2]["digest"], layer.compressed_digest.unwrap());
    assert_eq!(manifest["layers"][2]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
}

/// All that a storage holds, for before and after.
fn everything(storage: &Storage) -> (Vec<String>, Vec<String>, Vec<String>) {
    (images(storage), layers(storage), containers(storage))
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    on_every_driver(|place, driver| {
        let storage = Storage::open(options(place.path(), driver)).unwrap();
        let made = add_image(&storage, &["a", "b"], &["img:1"]);
        let one = add_container(&storage, '1', "img:1");
        let before = everything(&storage);
        let fails = |container: &str, options: &CommitOptions| {
            let kind = storage.commit(container, options).unwrap_err().kind();
            assert_eq!(everything(&storage), before);
            assert_eq!(storage.images().names(&made.id).unwrap(), ["img:1"]);
            assert!(storage.find_image("new:1").is_err());
            kind
        };
        assert_eq!(fails("nobody", &named("new:1")), ErrorKind::NotFound);
        assert_eq!(fails(&one, &named("Not A Name")), ErrorKind::InvalidArgument);
        // Something that no archive can hold.
        let place = storage.mount_container(&one).unwrap();
        fs::write(place.join(".wh.x"), "").unwrap();
        assert_eq!(fails(&one, &named("new:1")), ErrorKind::InvalidData);
        fs::remove_file(place.join(".wh.x")).unwrap();
        storage.unmount_container(&one, false).unwrap();
        // The config of its image is damaged.
        storage.images().set_big_data(&made.id, &made.config_key(), b"{}").unwrap();
        assert_eq!(fails(&one, &named("new:1")), ErrorKind::InvalidData);
        // Or says of other layers than there are.
        let other = image(&["a"]);
        storage.images().set_big_data(&made.id, &made.config_key(), other.config.as_bytes()).unwrap();
        assert_eq!(fails(&one, &named("new:1")), ErrorKind::Corrupt);
        storage.images().set_big_data(&made.id, &made.config_key(), made.config.as_bytes()).unwrap();
        storage.commit(&one, &named("new:1")).unwrap();
    });
}

#[test]
fn a_reader_does_not_commit_but_compares() {
    let place = TestRoot::in_memory("commit");
    let storage = open(place.path());
    add_image(&storage, &["a", "b"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");
    drop(storage);
    let storage = open_read_only(place.path());
    assert_eq!(storage.commit(&one, &named("new:1")).unwrap_err().kind(), ErrorKind::ReadOnly);
    let changes = storage.changes(&one, None).unwrap();
    assert_eq!(changes.iter().map(|change| change.path.as_slice()).collect::<Vec<_>>(), [b"own"]);
    assert_eq!(storage.diff_size(&one, None).unwrap().0, 64);
    assert_eq!(storage.changes("nobody", None).unwrap_err().kind(), ErrorKind::NotFound);
}
