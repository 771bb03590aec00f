// SPDX-License-Identifier: MulanPSL-2.0
//! Docker's images over the layers of a storage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;
mod storages;

use std::path::Path;
use std::sync::Arc;

use common::TestRoot;
use isula_storage::digest::{Digest, chain_ids};
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;
use isula_storage::imagedb::{ImageDb, ImageDbOptions, Layers, RemovedLayer};
use isula_storage::storage::{Durability, Ownership, Storage};
use storages::{add_bare_layer, add_image, layer_tar};

fn open(root: &Path, storage: &Arc<Storage>) -> ImageDb {
    let layers: Arc<dyn Layers> = storage.clone();
    let options = ImageDbOptions {
        root: root.join("docker"),
        ownership: Ownership::Owner,
        durability: Durability::None,
        layers,
    };
    ImageDb::open(options).unwrap()
}

fn diff_ids(files: &[&str]) -> Vec<Digest> {
    files.iter().map(|file| Digest::of(&layer_tar(file))).collect()
}

fn config(diff_ids: &[Digest]) -> Vec<u8> {
    let diff_ids: Vec<_> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, diff_ids.join(",")).into_bytes()
}

#[test]
fn images_hold_their_layers_and_release_what_nothing_else_uses() {
    let place = TestRoot::in_memory("docker-layers");
    let storage = Arc::new(storages::open(place.path()));
    let made = add_image(&storage, &["one", "three", "five"], &["image:1"]);
    let diff_ids = diff_ids(&["one", "three", "five"]);
    let chain = chain_ids(&diff_ids);
    let hold = |place: usize| storage.layers().hold_count(&made.layers[place]).unwrap();

    let db = open(place.path(), &storage);
    let whole = db.create(&config(&diff_ids)).unwrap();
    let lower = db.create(&config(&diff_ids[..2])).unwrap();
    assert_eq!([hold(0), hold(1), hold(2)], [0, 1, 1]);
    db.close();
    assert_eq!([hold(0), hold(1), hold(2)], [0, 0, 0]);
    let db = open(place.path(), &storage);
    assert_eq!([hold(0), hold(1), hold(2)], [0, 1, 1]);

    // The image of the storage goes, its layers stay for ours.
    assert!(storage.delete_image("image:1").unwrap());
    assert_eq!(storage.layers().list().len(), 3);
    let gone = db.delete(&whole).unwrap();
    let layer = |place: usize, diff_size: u64, size: u64| RemovedLayer {
        chain_id: chain[place],
        diff_id: Some(diff_ids[place]),
        size,
        diff_size,
    };
    assert_eq!(gone, [layer(2, 4, 12)], "the next one is held");
    assert_eq!(db.delete(&lower).unwrap(), [layer(1, 5, 8), layer(0, 3, 3)]);
    assert_eq!(storage.layers().list().len(), 0);
}

#[test]
fn layers_that_the_storage_uses_itself_stay() {
    let place = TestRoot::in_memory("docker-layers");
    let storage = Arc::new(storages::open(place.path()));
    add_image(&storage, &["one", "two"], &["image:1"]);
    let db = open(place.path(), &storage);
    let id = db.create(&config(&diff_ids(&["one", "two"]))).unwrap();
    assert_eq!(db.delete(&id).unwrap(), []);
    assert_eq!(storage.layers().list().len(), 2);
    assert!(storage.images().exists("image:1"));
}

#[test]
fn an_image_without_its_layer_or_on_a_containers_is_refused() {
    let place = TestRoot::in_memory("docker-layers");
    let storage = Arc::new(storages::open(place.path()));
    let db = open(place.path(), &storage);
    let absent = Digest::of(b"absent");
    let error = db.create(&config(&[absent])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
    add_bare_layer(&storage, &absent.hex(), None, true);
    let error = db.create(&config(&[absent])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
    assert_eq!(storage.layers().hold_count(&LayerId::from(absent)).unwrap(), 0);
    assert_eq!(db.len(), 0);
}
