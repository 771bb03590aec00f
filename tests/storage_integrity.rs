// SPDX-License-Identifier: MulanPSL-2.0
//! The comparison of image layers with what they were made from, at start.
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
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{TestRoot, need_root};
use isula_storage::id::LayerId;
use isula_storage::storage::{Storage, StorageOptions};
use storages::*;

/// Two images that share their base, each with a container.
fn prepared(place: &Path) -> (Made, Made) {
    let storage = open(place);
    let one = add_image(&storage, &["a", "b"], &["one:1"]);
    let two = add_image(&storage, &["a", "c"], &["two:1"]);
    add_container(&storage, '1', "one:1");
    add_container(&storage, '2', "two:1");
    (one, two)
}

/// The file of a layer.
fn file(place: &Path, layer: &LayerId, name: &str) -> std::path::PathBuf {
    place.join(format!("root/vfs/dir/{layer}/{name}"))
}

fn checked(place: &Path) -> Vec<String> {
    let text = fs::read_to_string(checked_list(place)).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'));
    sorted(text.lines())
}

fn everything(one: &Made, two: &Made) -> Vec<String> {
    let mut all: Vec<String> = one.layers.iter().chain(&two.layers).map(ToString::to_string).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn each_layer_of_an_image_is_checked_once_after_a_boot() {
    let place = TestRoot::in_memory("integrity");
    let (one, two) = prepared(place.path());
    assert!(!checked_list(place.path()).exists(), "only if it is asked for");
    assert_eq!(problems(&open_checking(place.path())), [""; 0]);
    assert_eq!(checked(place.path()), everything(&one, &two));
    assert_eq!(fs::metadata(checked_list(place.path())).unwrap().permissions().mode() & 0o777, 0o600);

    // What was good is not read again, and the file is not written again.
    fs::write(file(place.path(), one.top(), "b"), "changed").unwrap();
    let before = fs::read(checked_list(place.path())).unwrap();
    assert_eq!(problems(&open_checking(place.path())), [""; 0]);
    assert_eq!(fs::read(checked_list(place.path())).unwrap(), before);
    // After a boot it is.
    fs::remove_file(checked_list(place.path())).unwrap();
    assert_eq!(images(&open_checking(place.path())), [two.id]);
}

#[test]
fn a_layer_that_differs_goes_into_quarantine_with_all_that_stands_on_it_and_can_be_made_again() {
    let place = TestRoot::in_memory("integrity");
    let (one, two) = prepared(place.path());
    fs::write(file(place.path(), one.top(), "b"), "changed").unwrap();

    let storage = open_checking(place.path());
    assert_eq!((images(&storage), containers(&storage)), (vec![two.id.clone()], vec![id('2')]));
    assert_eq!(layers(&storage), sorted([two.layers[0].as_str(), two.layers[1].as_str(), &id('2')]));
    let put = [one.id.clone(), id('1'), id('1'), id('1'), one.top().to_string(), one.top().to_string()];
    assert_eq!(aside(&storage), sorted(put), "record and data of each, of the container also its own record");
    let reported = storage.problems();
    assert!(reported.iter().all(|problem| problem.quarantined), "{reported:?}");
    let subjects = sorted(reported.iter().map(|problem| problem.subject.clone()));
    let expected = [
        format!("container {}", id('1')),
        format!("image {}", one.id),
        format!("layer {}", id('1')),
        format!("layer {}", one.top()),
    ];
    assert_eq!(subjects, sorted(expected));
    assert_eq!(checked(place.path()), sorted(two.layers.iter().map(LayerId::as_str)));
    assert_eq!(content(&storage, &id('2')).len(), 3);

    // Made again: listed, whole, and checked at the next start.
    add_image(&storage, &["a", "b"], &["one:1"]);
    drop(storage);
    let storage = open_checking(place.path());
    assert_eq!(problems(&storage), [""; 0]);
    assert_eq!(images(&storage).len(), 2);
    assert_eq!(checked(place.path()), everything(&one, &two));
    // The container's own data can be brought back.
    storage.layers().restore(&LayerId::new(&id('1')).unwrap()).unwrap();
    let store = storage.containers().unwrap();
    let record = store.quarantined().unwrap().into_iter().find(|entry| entry.name == id('1')).unwrap();
    store.restore(&record).unwrap();
    assert_eq!(content(&storage, &id('1')).get("own"), Some(&id('1')));
}

#[test]
fn a_lost_whiteout_is_found_and_a_changed_mode_condemns_nothing() {
    if !need_root() {
        return;
    }
    let place = TestRoot::new("integrity");
    let overlay = |check| {
        let options = StorageOptions { integration_check: check, ..options(place.path(), "overlay2") };
        Storage::open(options).unwrap()
    };
    let storage = overlay(false);
    let one = add_image(&storage, &["a", ".wh.a"], &["one:1"]);
    let two = add_image(&storage, &["b"], &["two:1"]);
    drop(storage);
    let diff = |layer: &LayerId| place.path().join(format!("root/overlay/{layer}/diff"));

    fs::set_permissions(diff(two.top()).join("b"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(problems(&overlay(true)), [""; 0]);
    fs::remove_file(checked_list(place.path())).unwrap();

    fs::remove_file(diff(one.top()).join("a")).unwrap();
    let storage = overlay(true);
    assert_eq!(images(&storage), std::slice::from_ref(&two.id));
    assert_eq!(layers(&storage), sorted([one.layers[0].as_str(), two.top().as_str()]));
    let found = problems(&storage).concat();
    assert!(found.contains("the whiteout is missing"), "{found}");
}

#[test]
fn a_base_that_differs_takes_every_image_on_it_along() {
    let place = TestRoot::in_memory("integrity");
    let (one, _) = prepared(place.path());
    fs::write(file(place.path(), &one.layers[0], "a"), "changed").unwrap();
    let storage = open(place.path());
    let three = add_image(&storage, &["d"], &["three:1"]);
    add_layers(&storage, &["a", "x"]);
    drop(storage);
    let storage = open_checking(place.path());
    assert_eq!((images(&storage), containers(&storage)), (vec![three.id], vec![]));
    assert_eq!(layers(&storage), [three.layers[0].as_str()]);
    assert!(checked_list(place.path()).exists());
    let again = add_image(&storage, &["a", "b"], &["one:1"]);
    assert_eq!(again.id, one.id);
    drop(storage);
    assert_eq!(problems(&open_checking(place.path())), [""; 0]);
}

#[test]
fn nothing_is_moved_while_a_container_is_mounted() {
    let place = TestRoot::in_memory("integrity");
    let (one, two) = prepared(place.path());
    let storage = open(place.path());
    storage.mount_container(&id('1')).unwrap();
    drop(storage);
    fs::write(file(place.path(), one.top(), "b"), "changed").unwrap();
    let storage = open_checking(place.path());
    assert_eq!(images(&storage), sorted([&one.id, &two.id]));
    assert_eq!((containers(&storage).len(), aside(&storage)), (2, vec![]));
    let reported = storage.problems();
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert!(!reported[0].quarantined && reported[0].reason.contains("is mounted"), "{reported:?}");
    storage.unmount_container(&id('1'), true).unwrap();
    drop(storage);
    // Not noted as checked: the next start finds it again.
    assert_eq!(images(&open_checking(place.path())), [two.id]);
}

/// A crash between a mount and its note, or a run root that was cleaned: the kernel knows better.
#[test]
fn nothing_is_moved_while_a_container_is_mounted_that_nobody_has_noted() {
    if !need_root() {
        return;
    }
    let place = TestRoot::in_memory("integrity");
    let storage = Storage::open(options(place.path(), "overlay")).unwrap();
    let one = add_image(&storage, &["a", "b"], &["one:1"]);
    add_container(&storage, '1', "one:1");
    storage.mount_container(&id('1')).unwrap();
    drop(storage);
    fs::remove_file(place.join(format!("run/overlay-layers/{}.json", id('1')))).unwrap();
    fs::write(place.join(format!("root/overlay/{}/diff/b", one.top())), "changed").unwrap();
    let checking = StorageOptions { integration_check: true, ..options(place.path(), "overlay") };
    let storage = Storage::open(checking).unwrap();
    assert_eq!(
        (images(&storage), containers(&storage), aside(&storage)),
        (vec![one.id], vec![id('1')], vec![])
    );
    let reported = problems(&storage);
    assert!(reported.len() == 1 && reported[0].contains("is mounted"), "{reported:?}");
    storage.unmount_container(&id('1'), true).unwrap();
}

#[test]
fn what_an_interrupted_start_left_of_a_tree_is_put_aside_by_the_next() {
    let place = TestRoot::in_memory("integrity");
    let (one, two) = prepared(place.path());
    fs::write(file(place.path(), one.top(), "b"), "changed").unwrap();
    // As far as a start got before the power went.
    let storage = open(place.path());
    storage.containers().unwrap().quarantine(&id('1'), "x").unwrap();
    storage.images().quarantine(&one.id, "x").unwrap();
    drop(storage);
    let storage = open_checking(place.path());
    assert_eq!(layers(&storage), sorted([two.layers[0].as_str(), two.layers[1].as_str(), &id('2')]));
    // So that it is made again, not taken as it is.
    add_image(&storage, &["a", "b"], &["one:1"]);
    drop(storage);
    assert_eq!(problems(&open_checking(place.path())), [""; 0]);
    assert_eq!(checked(place.path()), everything(&one, &two));
}

#[test]
fn what_could_not_be_found_out_condemns_nothing_and_is_tried_again() {
    let place = TestRoot::in_memory("integrity");
    let (one, two) = prepared(place.path());
    let tar_split = place.join(format!("root/vfs-layers/{0}/{0}.tar-split.gz", one.top()));
    let moved = place.join("moved");
    fs::rename(&tar_split, &moved).unwrap();
    let storage = open_checking(place.path());
    assert_eq!((images(&storage).len(), containers(&storage).len(), aside(&storage)), (2, 2, vec![]));
    let reported = problems(&storage);
    let subject = format!("layer {}: it could not be checked", one.top());
    assert!(reported.iter().any(|text| text.starts_with(&subject)), "{reported:?}");
    assert_eq!(checked(place.path()), sorted(two.layers.iter().map(LayerId::as_str)));
    drop(storage);
    fs::rename(&moved, &tar_split).unwrap();
    assert_eq!(problems(&open_checking(place.path())), [""; 0]);
    assert_eq!(checked(place.path()), everything(&one, &two));
}

#[test]
fn the_list_of_checked_layers_is_that_of_the_reference() {
    let place = TestRoot::in_memory("integrity");
    let (one, two) = prepared(place.path());
    // Written by the reference, ended in the middle of a line by a crash, with a line that is no id.
    let list = checked_list(place.path());
    let start = format!("{}\nnonsense\n{}", one.layers[0], &one.top().as_str()[..20]);
    fs::write(&list, &start).unwrap();
    fs::write(file(place.path(), &one.layers[0], "a"), "changed").unwrap();
    let storage = open_checking(place.path());
    assert_eq!(problems(&storage), [""; 0], "the reference has checked it");
    let text = fs::read_to_string(&list).unwrap();
    assert!(text.starts_with(&format!("{start}\n")), "{text}");
    assert_eq!(sorted(text[start.len()..].lines().skip(1)), sorted([one.top(), two.top()]));
    drop(storage);

    // A list that cannot be read or written stops nothing.
    for prepare in [
        |list: &Path| fs::create_dir(list).unwrap(),
        |list: &Path| {
            std::os::unix::fs::symlink("/nonexistent/target", list).unwrap();
        },
    ] {
        let _removed = fs::remove_file(&list).or_else(|_| fs::remove_dir(&list));
        prepare(&list);
        let storage = open_checking(place.path());
        assert_eq!((images(&storage).len(), aside(&storage)), (2, vec![]));
        assert_eq!(problems(&storage).len(), 1, "{:?}", problems(&storage));
    }
}

/// The name of the list is made of the path as it was given.
#[test]
fn the_name_of_the_list_follows_the_path_of_the_run_root() {
    let place = TestRoot::in_memory("integrity");
    prepared(place.path());
    let given = place.join("run/../run/");
    let mut options = options(place.path(), "vfs");
    options.run_root = given.clone();
    options.integration_check = true;
    drop(Storage::open(options).unwrap());
    let name = isula_storage::digest::Digest::of(given.to_str().unwrap().as_bytes()).hex();
    assert!(place.join(format!("run/{name}.json")).exists());
}
