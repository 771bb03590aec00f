// SPDX-License-Identifier: MulanPSL-2.0
//! The rootfs store when the world ends, or the disk fails, between any two of its steps.
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

mod concurrency;
mod crash;
mod failure;

use super::*;

pub(super) fn id(digit: char) -> ContainerId {
    ContainerId::new(&String::from(digit).repeat(64)).unwrap()
}

/// A container whose layer has its id, as the facade makes them.
pub(super) fn new(digit: char) -> CreateRootfs {
    CreateRootfs {
        id: Some(id(digit)),
        image: Some("image".into()),
        layer: id(digit).to_string(),
        uid_map: vec![IdMap { container_id: 0, host_id: 1000, size: 10 }],
        ..CreateRootfs::default()
    }
}

pub(super) fn open(path: &Path) -> Result<RootfsStore> {
    RootfsStore::open(RootfsStoreOptions {
        dir: path.join("overlay-containers"),
        ownership: Ownership::Owner,
        durability: Durability::Full,
    })
}

pub(super) fn ids(store: &RootfsStore) -> Vec<String> {
    store.list().unwrap().iter().map(|record| record.id.clone().unwrap()).collect()
}

pub(super) fn unfinished(store: &RootfsStore) -> Vec<String> {
    store.unfinished().iter().map(|record| record.id.clone().unwrap()).collect()
}

/// The record and what it stands for are all there.
pub(super) fn assert_whole(store: &RootfsStore, digit: char, at: &str) {
    let record = store.get(id(digit).as_str()).unwrap_or_else(|error| panic!("{at}: {}", error.report()));
    assert_eq!(record.layer.as_deref(), Some(id(digit).as_str()), "{at}");
    assert_eq!(record.image.as_deref(), Some("image"), "{at}");
    assert_eq!(record.uid_map, new(digit).uid_map, "{at}");
}
