// SPDX-License-Identifier: MulanPSL-2.0
//! Containers of a storage: made, mounted, deleted; images that they use; layers that go with images.
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

use std::fs;
use std::thread;

use common::TestRoot;
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;
use isula_storage::layer::CreateLayer;
use isula_storage::record::rootfs::RootfsRecord;
use isula_storage::storage::{CreateContainer, Storage};
use storages::*;

fn kind<T: std::fmt::Debug>(result: Result<T, isula_storage::error::Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_container_is_a_record_and_a_writable_layer_on_the_image() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a", "b"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");

    let record = storage.containers().unwrap().get(&one).unwrap();
    let RootfsRecord { id, names, image, layer, metadata, created, uid_map, gid_map } =
        record.as_ref().clone();
    assert_eq!((id.as_deref(), layer.as_deref()), (Some(one.as_str()), Some(one.as_str())));
    assert_eq!((names.len(), metadata, uid_map.len(), gid_map.len()), (0, None, 0, 0));
    assert_eq!(image.as_deref(), Some(made.id.as_str()), "the full id, whatever the image was called");
    assert!(created.is_some());
    let layer = storage.layers().find(&one).unwrap();
    assert!(layer.writable && layer.parent.as_ref() == Some(made.top()));
    assert_eq!(storage.layers().hold_count(&layer.id).unwrap(), 1, "as in the reference");
    let own = [("a", "a"), ("b", "b"), ("own", one.as_str())].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(content(&storage, &one), own.into());

    // By layer, by the beginning of the id; names in any spelling.
    assert_eq!(storage.unmount_container(&one[..5], true).unwrap(), ());
    for (digit, spelling) in [('2', "docker.io/library/img:1"), ('3', &made.id[..12])] {
        add_container(&storage, digit, spelling);
    }
    assert_eq!(containers(&storage), ['1', '2', '3'].map(storages::id));
    let (path, usage) = storage.container_usage(&one).unwrap().unwrap();
    assert!(path.ends_with("1".repeat(64)) && usage.inodes.0 > 0, "{path:?}");
    drop(storage);

    let storage = open(place.path());
    assert_eq!(problems(&storage), [""; 0]);
    assert_eq!(content(&storage, &one).get("own"), Some(&one));
}

#[test]
fn creating_an_existing_container_touches_nothing() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    add_image(&storage, &["a"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");
    let before = content(&storage, &one);
    assert_eq!(kind(storage.create_container(&container('1', "img:1"))), ErrorKind::AlreadyExists);
    assert_eq!(content(&storage, &one), before);
    assert_eq!(storage.layers().hold_count(&LayerId::new(&one).unwrap()).unwrap(), 1);
    // A layer of this id that is no container's stays as it was, too.
    let made = add_image(&storage, &["a", "b"], &["img:2"]);
    let taken = CreateContainer {
        id: isula_storage::id::ContainerId::new(made.top().as_str()).unwrap(),
        ..container('2', "img:1")
    };
    assert_eq!(kind(storage.create_container(&taken)), ErrorKind::AlreadyExists);
    let other_parent = add_bare_layer(&storage, &id('3'), Some(made.top()), true);
    assert_eq!(kind(storage.create_container(&container('3', "img:1"))), ErrorKind::AlreadyExists);
    assert!(storage.layers().exists(other_parent.as_str()));
    assert_eq!(containers(&storage), [one]);
}

#[test]
fn a_creation_that_fails_leaves_nothing() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a"], &["img:1"]);
    assert_eq!(kind(storage.create_container(&container('1', "nothing:1"))), ErrorKind::NotFound);
    let sized = CreateContainer {
        storage_options: vec![("size".to_owned(), "1G".to_owned())],
        ..container('1', "img:1")
    };
    storage.create_container(&sized).unwrap_err();
    assert_eq!((containers(&storage), layers(&storage)), (vec![], vec![made.top().to_string()]));
    assert!(storage.containers().unwrap().unfinished().is_empty());
    // The image is not in use.
    assert!(storage.delete_image("img:1").unwrap());
    drop(storage);
    let storage = open(place.path());
    assert_eq!((problems(&storage), layers(&storage)), (vec![], vec![]));
}

#[test]
fn a_writable_layer_without_a_container_becomes_that_of_a_new_one_with_its_content() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    add_image(&storage, &["a"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");
    let before = content(&storage, &one);
    drop(storage);
    fs::write(place.join(format!("root/vfs-containers/{one}/container.json")), "{ damaged").unwrap();

    let storage = open(place.path());
    assert_eq!(storage.containers().unwrap().broken().len(), 1);
    assert_eq!(containers(&storage), [""; 0]);
    assert_eq!(aside(&storage), [one.as_str()]);
    let reported = problems(&storage);
    assert!(
        reported.iter().any(|text| text.starts_with(&format!("layer {one}: it is writable"))),
        "{reported:?}"
    );
    assert!(storage.create_container(&container('1', "img:1")).unwrap().is_some());
    assert_eq!(content(&storage, &one), before);
    assert_eq!(storage.layers().hold_count(&LayerId::new(&one).unwrap()).unwrap(), 0);
}

#[test]
fn the_layer_of_a_broken_container_is_put_aside_and_can_be_restored() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");
    let before = content(&storage, &one);
    let table = [
        (one.clone(), ErrorKind::InUse),
        (made.top().to_string(), ErrorKind::InvalidArgument),
        (id('9'), ErrorKind::NotFound),
        (one[..12].to_owned(), ErrorKind::NotFound),
    ];
    for (layer, expected) in table {
        assert_eq!(kind(storage.quarantine_broken_layer(&layer)), expected, "{layer}");
    }
    let record = storage.containers().unwrap().quarantine(&one, "a test").unwrap();
    storage.quarantine_broken_layer(&one).unwrap();
    assert!(!storage.layers().exists(&one));
    storage.layers().restore(&LayerId::new(&one).unwrap()).unwrap();
    storage.containers().unwrap().restore(&record).unwrap();
    assert_eq!(content(&storage, &one), before);
}

#[test]
fn a_container_is_deleted_with_its_layer_and_unknown_is_fine() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");
    storage.mount_container(&one).unwrap();
    assert!(storage.delete_container(&one[..4]).unwrap(), "by the beginning of its id, mounted");
    assert_eq!((containers(&storage), layers(&storage)), (vec![], vec![made.top().to_string()]));
    assert!(!storage.delete_container(&one).unwrap());
    assert!(!storage.delete_container("11").unwrap());
    assert_eq!(kind(storage.mount_container(&one)), ErrorKind::NotFound);
    storage.unmount_container(&one, true).unwrap();
    assert_eq!(kind(storage.container_usage(&one)), ErrorKind::NotFound);
    assert_eq!(kind(storage.container_metadata(&one)), ErrorKind::NotFound);
    // Its layer is lost: what is left can be deleted.
    add_container(&storage, '2', "img:1");
    storage.layers().delete(&id('2')).unwrap();
    storage.unmount_container(&id('2'), false).unwrap();
    assert_eq!(storage.container_usage(&id('2')).unwrap(), None);
    assert!(storage.delete_container(&id('2')).unwrap());
}

/// A record may name any layer; only a writable one goes with its container.
#[test]
fn deleting_a_container_never_takes_the_layer_of_an_image() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a"], &["img:1"]);
    let record =
        RootfsRecord { id: Some(id('1')), layer: Some(made.top().to_string()), ..RootfsRecord::default() };
    storage.containers().unwrap().save(&record).unwrap();
    assert!(storage.delete_container(&id('1')).unwrap());
    assert_eq!(layers(&storage), [made.top().to_string()]);
    // One without an image uses none.
    let record = RootfsRecord { layer: Some(id('2')), id: Some(id('2')), ..record };
    storage.containers().unwrap().save(&record).unwrap();
    assert!(storage.delete_image("img:1").unwrap());
    assert_eq!(layers(&storage), [""; 0]);
}

#[test]
fn an_image_that_a_container_uses_is_not_deleted_and_people_are_told_by_which() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a", "b"], &["img:1"]);
    add_image(&storage, &["a", "c"], &["other:1"]);
    let one = add_container(&storage, '1', "img:1");
    for result in [storage.delete_image("img:1").map(drop), storage.remove_image("img:1").map(drop)] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert_eq!(error.shown(), Some(format!("Image used by {one}").as_str()));
    }
    assert_eq!(images(&storage).len(), 2);
    // Nor does the container's layer go as a chain, also when nobody holds it after a restart.
    drop(storage);
    let storage = open(place.path());
    assert_eq!(storage.delete_unused_chain(&LayerId::new(&one).unwrap()).unwrap(), []);
    // Another image may go, with what only it has.
    assert!(storage.delete_image("other:1").unwrap());
    assert_eq!(layers(&storage), sorted(made.layers.iter().map(ToString::to_string).chain([one.clone()])));
    assert!(!storage.delete_image("other:1").unwrap(), "unknown is fine");
    assert!(storage.delete_container(&one).unwrap());
    assert!(storage.delete_image(&made.id[..10]).unwrap());
    assert_eq!(layers(&storage), [""; 0]);
}

#[test]
fn an_image_goes_without_the_layers_that_anything_uses() {
    type Use = fn(&Storage, &Made);
    let table: [(&str, Use, usize); 6] = [
        ("nothing", |_, _| {}, 0),
        ("a hold on its top", |storage, made| storage.layers().hold(made.top()).unwrap(), 3),
        ("a hold on its base", |storage, made| storage.layers().hold(&made.layers[0]).unwrap(), 1),
        ("another image", |storage, _| drop(add_image(storage, &["a", "b"], &["other:1"])), 2),
        (
            "a layer in the making, or of an unlisted container",
            |storage, made| drop(add_bare_layer(storage, &id('7'), Some(&made.layers[1]), true)),
            3,
        ),
        (
            "an image that was put aside",
            |storage, _| {
                let other = add_image(storage, &["a", "b"], &["other:1"]);
                storage.images().quarantine(&other.id, "a test").unwrap();
            },
            2,
        ),
    ];
    for (what, prepare, left) in table {
        let place = TestRoot::in_memory("containers");
        let storage = open(place.path());
        let made = add_image(&storage, &["a", "b", "c"], &["img:1"]);
        prepare(&storage, &made);
        assert!(storage.delete_image("img:1").unwrap(), "{what}");
        assert_eq!(layers(&storage).len(), left, "{what}");
        for layer in &made.layers[..left.min(2)] {
            assert!(storage.layers().exists(layer.as_str()), "{what}: {layer}");
        }
    }
}

#[test]
fn images_whose_layers_are_gone_can_be_deleted() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a", "b"], &["img:1"]);
    storage.layers().delete(made.top().as_str()).unwrap();
    assert!(storage.delete_image("img:1").unwrap());
    assert_eq!((images(&storage), layers(&storage)), (vec![], vec![made.layers[0].to_string()]));
}

#[test]
fn the_size_of_an_image_is_the_sum_of_what_it_holds() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let made = add_image(&storage, &["a", "bb"], &["img:1"]);
    let sum = u64::try_from(made.config.len() + made.manifest.len() + 3).unwrap();
    assert_eq!(storage.images().get("img:1").unwrap().size, sum);
    // One less is what the reference computes.
    for (stored, kept) in [(sum - 1, sum - 1), (sum - 2, sum), (0, sum), (sum + 1, sum)] {
        storage.images().set_size(&made.id, stored).unwrap();
        assert_eq!(storage.refresh_size(&made.id).unwrap(), sum);
        assert_eq!(storage.images().get(&made.id).unwrap().size, kept, "{stored}");
    }
    assert_eq!(kind(storage.refresh_size("nothing:1")), ErrorKind::NotFound);
    let bare = isula_storage::image::CreateImage {
        id: Some(isula_storage::id::ImageId::new(&id('b')).unwrap()),
        ..isula_storage::image::CreateImage::default()
    };
    storage.create_image(&bare).unwrap();
    assert_eq!(kind(storage.refresh_size(&id('b'))), ErrorKind::NotFound, "it has no layer");
    // It can be deleted all the same, and is in nobody's way.
    assert!(storage.delete_image(&made.id).unwrap());
    assert!(storage.delete_image(&id('b')).unwrap());
}

/// Pulls an image as the daemon does: its layers are held until its record is there. Others may pull it, too, or remove it
/// at any moment after that.
fn pull(storage: &Storage) {
    let made = image(&["a", "b"]);
    let mut parent: Option<LayerId> = None;
    for (file, id) in ["a", "b"].iter().zip(&made.layers) {
        let create = CreateLayer { parent: parent.clone(), ..CreateLayer::default() };
        let archive = layer_tar(file);
        storage.layers().create(id, &create, Some(&mut archive.as_slice())).unwrap();
        parent.replace(id.clone()).into_iter().for_each(|below| storage.release(&below).unwrap());
    }
    if let Err(error) = storage.create_image(&made.request()) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.report());
    }
    if let Err(error) = storage.images().add_name(&made.id, "img:1") {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
    }
    storage.release(made.top()).unwrap();
}

#[test]
fn containers_and_images_come_and_go_at_once() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    let storage = &storage;
    let made: usize = thread::scope(|scope| {
        let work = |digit: char| {
            let mut made = 0;
            for _ in 0..25 {
                pull(storage);
                match storage.create_container(&container(digit, "img:1")) {
                    Ok(_) => {
                        assert_eq!(content(storage, &id(digit)).len(), 2);
                        assert_eq!(kind(storage.delete_image("img:1")), ErrorKind::InUse);
                        assert!(storage.delete_container(&id(digit)).unwrap());
                        made += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report()),
                }
                if let Err(error) = storage.delete_image("img:1") {
                    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
                }
            }
            made
        };
        let threads = ['1', '2', '3', '4'].map(|digit| scope.spawn(move || work(digit)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(made > 0);
    storage.delete_image("img:1").unwrap();
    assert_eq!((containers(storage), images(storage)), (vec![], vec![]));
    // A pull whose image was removed before it let its layers go leaves them, as in the reference.
    for layer in storage.layers().list().into_iter().rev() {
        storage.delete_unused_chain(&layer.id).unwrap();
    }
    assert_eq!(layers(storage), [""; 0]);
}

#[test]
fn two_creations_of_one_container_make_one() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    add_image(&storage, &["a"], &["img:1"]);
    let results: Vec<_> = thread::scope(|scope| {
        let create = || storage.create_container(&container('1', "img:1"));
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results.into_iter().filter_map(Result::err).all(|error| error.kind() == ErrorKind::AlreadyExists)
    );
    assert_eq!(content(&storage, &id('1')).len(), 1);
    storage.delete_container(&id('1')).unwrap();
    assert!(storage.delete_image("img:1").unwrap());
}

#[test]
fn a_storage_that_is_only_read_changes_nothing() {
    let place = TestRoot::in_memory("containers");
    let storage = open(place.path());
    add_image(&storage, &["a"], &["img:1"]);
    let one = add_container(&storage, '1', "img:1");
    drop(storage);
    let reader = open_read_only(place.path());
    assert_eq!(containers(&reader), [one.as_str()]);
    assert_eq!(kind(reader.create_container(&container('2', "img:1"))), ErrorKind::ReadOnly);
    assert_eq!(kind(reader.delete_container(&one)), ErrorKind::ReadOnly);
    assert_eq!(kind(reader.delete_image("img:1")), ErrorKind::ReadOnly);
    // One that never had containers has none, and says so.
    drop(reader);
    fs::remove_dir_all(place.join("root/vfs-containers")).unwrap();
    let reader = open_read_only(place.path());
    assert_eq!(reader.containers().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(kind(reader.mount_container(&one)), ErrorKind::NotFound);
    reader.status().unwrap();
}
