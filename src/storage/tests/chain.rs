// SPDX-License-Identifier: MulanPSL-2.0
//! How much a deletion looks at.

use std::sync::atomic::Ordering;

use super::common::TestRoot;
use super::storages::*;
use crate::storage::Storage;

/// Records of layers and images that were handed out while `action` ran.
fn looked_at(storage: &Storage, action: impl FnOnce()) -> u64 {
    let count = || {
        storage.layers().looked_at.load(Ordering::Relaxed)
            + storage.images().looked_at.load(Ordering::Relaxed)
    };
    let before = count();
    action();
    count() - before
}

/// Deletes a chain of this length among so many other images; gives how much was looked at.
fn deletion(length: usize, others: usize, with_image: bool) -> u64 {
    let place = TestRoot::in_memory("chain");
    let storage = open(place.path());
    let names: Vec<String> = (0..length).map(|number| format!("layer-{number}")).collect();
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let made = add_layers(&storage, &files);
    for number in 0..others {
        // On the same base, each with a layer of its own.
        let own = format!("other-{number}");
        add_image(&storage, &["base", &own], &[&format!("other:{number}")]);
    }
    if with_image {
        storage.create_image(&made.request()).unwrap();
    }
    let looked_at = looked_at(&storage, || {
        if with_image {
            assert!(storage.delete_image(&made.id).unwrap());
        } else {
            assert_eq!(storage.delete_unused_chain(made.top()).unwrap().len(), length);
        }
    });
    let left = if others == 0 { 0 } else { others + 1 };
    assert_eq!((layers(&storage).len(), images(&storage).len()), (left, others));
    looked_at
}

#[test]
fn deleting_a_chain_looks_at_the_chain_and_not_at_the_store() {
    for with_image in [false, true] {
        let alone = deletion(4, 0, with_image);
        assert!(alone >= 4);
        assert_eq!(deletion(4, 40, with_image), alone, "others are not looked at");
        assert_eq!(
            deletion(12, 40, with_image) - alone,
            2 * alone,
            "three times the chain, three times the work"
        );
    }
}
