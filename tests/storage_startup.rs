// SPDX-License-Identifier: MulanPSL-2.0
//! What a start of a storage puts right, what it reports, and what it never does.
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
use std::path::{Path, PathBuf};

use common::TestRoot;
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;
use isula_storage::image::CreateImage;
use isula_storage::storage::{Storage, StorageOptions, WithoutImages};
use storages::*;

/// A storage with two images that share their base, each with a container.
fn prepared(place: &Path) -> (Made, Made) {
    let storage = open(place);
    let one = add_image(&storage, &["a", "b"], &["one:1"]);
    let two = add_image(&storage, &["a", "c"], &["two:1"]);
    add_container(&storage, '1', "one:1");
    add_container(&storage, '2', "two:1");
    (one, two)
}

/// Takes the record and the data of a layer away, as if their disk were missing; gives what brings them back.
fn lose(place: &Path, layer: &str) -> impl Fn() + use<> {
    let moves: Vec<(PathBuf, PathBuf)> =
        [format!("root/vfs-layers/{layer}"), format!("root/vfs/dir/{layer}")]
            .into_iter()
            .map(|name| (place.join(&name), place.join(name.replace('/', "-"))))
            .collect();
    for (from, to) in &moves {
        fs::rename(from, to).unwrap();
    }
    move || moves.iter().for_each(|(from, to)| fs::rename(to, from).unwrap())
}

#[test]
fn nothing_is_wrong_with_a_storage_that_was_left_in_order() {
    let place = TestRoot::in_memory("startup");
    prepared(place.path());
    let before = fs::read(place.join(format!("root/vfs-containers/{}/container.json", id('1')))).unwrap();
    for _ in 0..2 {
        let storage = open(place.path());
        assert_eq!((problems(&storage), aside(&storage)), (vec![], vec![]));
        assert_eq!((images(&storage).len(), containers(&storage).len(), layers(&storage).len()), (2, 2, 5));
    }
    assert_eq!(
        fs::read(place.join(format!("root/vfs-containers/{}/container.json", id('1')))).unwrap(),
        before
    );
}

#[test]
fn an_image_without_its_layers_is_not_listed_and_comes_back_with_them() {
    let place = TestRoot::in_memory("startup");
    let (one, two) = prepared(place.path());
    let bring_back = lose(place.path(), one.top().as_str());

    let storage = open(place.path());
    assert_eq!(images(&storage), [two.id.as_str()]);
    assert!(!storage.images().exists("one:1"));
    let reported = problems(&storage);
    let missing = format!("image {}: it cannot be used: its layer {} is missing", one.id, one.top());
    assert!(reported.contains(&missing), "{reported:?}");
    assert!(
        reported.contains(&format!("container {}: its image {} is not listed", id('1'), one.id)),
        "{reported:?}"
    );
    // Its files and its containers stay, and so does what it stands on, whoever else goes.
    assert_eq!(containers(&storage), [id('1'), id('2')]);
    assert!(place.join(format!("root/vfs-images/{}/images.json", one.id)).exists());
    storage.delete_container(&id('2')).unwrap();
    storage.delete_image("two:1").unwrap();
    assert_eq!(layers(&storage), sorted([id('1'), one.layers[0].to_string()]));
    storage.images().load().unwrap();
    assert_eq!(images(&storage), [""; 0], "reading the directory again changes nothing");
    drop(storage);

    bring_back();
    let storage = open(place.path());
    assert_eq!(images(&storage), [one.id.as_str()]);
    assert_eq!(problems(&storage), [""; 0]);
    assert_eq!(storage.images().names(&one.id).unwrap(), ["one:1"]);
    assert_eq!(content(&storage, &id('1')).get("own"), Some(&id('1')));
}

#[test]
fn making_layers_and_image_again_heals() {
    let place = TestRoot::in_memory("startup");
    let (one, _) = prepared(place.path());
    let _never = lose(place.path(), one.top().as_str());
    let storage = open(place.path());
    // As long as the layer is missing, the image is a new one, and what was there is kept aside.
    assert!(!storage.delete_image(&one.id).unwrap());
    // Its name was taken meanwhile, by someone who does not know of it.
    let three = add_image(&storage, &["d"], &["one:1"]);
    add_layers(&storage, &["a", "b"]);
    // "Exists": the daemon compares the top layer and goes on.
    assert_eq!(storage.create_image(&one.request()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(storage.images().top_layer(&one.id).unwrap().as_deref(), Some(one.top().as_str()));
    assert_eq!(storage.images().lookup("one:1").unwrap().as_str(), three.id, "a name stays where it is");
    complete(&storage, &one, &["again:1"]);
    assert_eq!(aside(&storage), [""; 0]);
    assert!(problems(&storage).iter().all(|text| !text.starts_with("image ")), "{:?}", problems(&storage));
    drop(storage);
    let storage = open(place.path());
    assert_eq!(problems(&storage), [""; 0]);
    assert_eq!(storage.images().names(&one.id).unwrap(), ["again:1"]);
    assert_eq!(storage.images().lookup("one:1").unwrap().as_str(), three.id);
    assert_eq!(content(&storage, &id('1')).len(), 3);
}

#[test]
fn an_image_made_again_without_its_layers_keeps_the_old_one_aside() {
    let place = TestRoot::in_memory("startup");
    let (one, _) = prepared(place.path());
    let _never = lose(place.path(), one.top().as_str());
    let storage = open(place.path());
    storage.create_image(&one.request()).unwrap();
    assert_eq!(aside(&storage), [one.id.as_str()]);
    storage.images().load().unwrap();
    assert!(storage.images().exists(&one.id), "it is listed as long as its maker is at it");
}

#[test]
fn an_image_that_has_no_layer_at_all_is_not_listed() {
    let place = TestRoot::in_memory("startup");
    let storage = open(place.path());
    let made = image(&["a"]);
    storage.create_image(&CreateImage { layer: None, ..made.request() }).unwrap();
    for (key, text) in [(made.config_key(), &made.config), ("manifest".to_owned(), &made.manifest)] {
        storage.images().set_big_data(&made.id, &key, text.as_bytes()).unwrap();
    }
    drop(storage);
    let storage = open(place.path());
    assert_eq!(images(&storage), [""; 0]);
    assert_eq!(problems(&storage), [format!("image {}: it cannot be used: it has no layer", made.id)]);
}

#[test]
fn of_two_images_with_one_name_the_one_that_can_be_used_has_it() {
    let place = TestRoot::in_memory("startup");
    let (one, two) = prepared(place.path());
    // Both claim it on the disk, as after a crash; the one that was loaded first would win.
    let record = place.join(format!("root/vfs-images/{}/images.json", two.id));
    let text = fs::read_to_string(&record).unwrap().replace("two:1", "one:1");
    fs::write(&record, text).unwrap();
    let _never = lose(place.path(), one.top().as_str());
    let storage = open(place.path());
    assert_eq!(storage.images().lookup("one:1").unwrap().as_str(), two.id);
}

#[test]
fn sizes_that_are_missing_are_computed_and_others_stay() {
    let place = TestRoot::in_memory("startup");
    let (one, two) = prepared(place.path());
    let storage = open(place.path());
    let sum = storage.images().get(&one.id).unwrap().size;
    storage.images().set_size(&one.id, 0).unwrap();
    storage.images().set_size(&two.id, 5).unwrap();
    drop(storage);
    let storage = open(place.path());
    assert_eq!(storage.images().get(&one.id).unwrap().size, sum);
    assert_eq!(storage.images().get(&two.id).unwrap().size, 5);
}

#[test]
fn what_nothing_uses_is_reported_and_left() {
    let place = TestRoot::in_memory("startup");
    let (one, _) = prepared(place.path());
    let storage = open(place.path());
    let orphan = add_layers(&storage, &["a", "b", "x", "y"]);
    let writable = add_bare_layer(&storage, &id('8'), Some(one.top()), true);
    storage.layers().delete(&id('2')).unwrap();
    let before = layers(&storage);
    drop(storage);
    let storage = open_checking(place.path());
    assert_eq!(layers(&storage), before);
    let mut expected = [
        format!("container {0}: its layer {0} is missing", id('2')),
        format!("layer {}: no image, container or layer uses it: it was left alone", orphan.top()),
        format!("layer {writable}: it is writable, but no container has it: it was left alone"),
    ];
    let mut reported = problems(&storage);
    reported.sort();
    expected.sort();
    assert_eq!(reported, expected);
    assert_eq!(storage.status().unwrap().problems.len(), 3);
    assert_eq!(containers(&storage), [id('1'), id('2')], "it is listed all the same");
    assert_eq!(storage.delete_unused_chain(orphan.top()).unwrap().len(), 2);
}

/// Reads only; says what an owner would remove.
fn orphans_for_a_reader(place: &Path) -> Vec<String> {
    let reader = open_read_only(place);
    assert_eq!(reader.remove_orphans().unwrap_err().kind(), ErrorKind::ReadOnly);
    reader.orphans().unwrap().iter().map(ToString::to_string).collect()
}

/// A removal or an import that was killed leaves image layers: they go when somebody asks for it, with those below that
/// only they use.
#[test]
fn image_layers_that_nothing_uses_are_removed_when_asked_for() {
    let place = TestRoot::in_memory("startup");
    let (one, two) = prepared(place.path());
    let storage = open(place.path());
    let before = layers(&storage);
    assert_eq!(storage.orphans().unwrap(), []);
    let orphan = add_layers(&storage, &["a", "b", "x", "y"]);
    let beside = add_layers(&storage, &["a", "b", "x", "z"]);
    let alone = add_layers(&storage, &["v", "w"]);
    drop(storage);
    let mut expected: Vec<String> = [&orphan.layers[2..], &beside.layers[3..], &alone.layers]
        .concat()
        .iter()
        .map(ToString::to_string)
        .collect();
    expected.sort();
    let mut told = orphans_for_a_reader(place.path());
    // Each before what it stands on.
    for made in [&orphan, &alone] {
        let [.., below, top] = &made.layers[..] else { unreachable!() };
        let at = |id: &str| told.iter().position(|told| told == id).unwrap();
        assert!(at(top.as_str()) < at(below.as_str()));
    }
    told.sort();
    assert_eq!(told, expected);
    let storage = open(place.path());
    assert_eq!(sorted(storage.remove_orphans().unwrap()), expected);
    assert_eq!(layers(&storage), before);
    assert_eq!((images(&storage).len(), containers(&storage).len()), (2, 2));
    assert_eq!(storage.remove_orphans().unwrap(), []);
    drop(storage);
    let storage = open_checking(place.path());
    assert_eq!(problems(&storage), [""; 0]);
    for container in [id('1'), id('2')] {
        assert_eq!(content(&storage, &container).len(), 3);
    }
    drop((one, two));
}

/// Everything that makes a layer no orphan, one after the other.
#[test]
fn layers_that_anything_could_want_are_no_orphans() {
    let place = TestRoot::in_memory("startup");
    let (one, _) = prepared(place.path());
    let storage = open(place.path());
    let orphan = add_layers(&storage, &["a", "b", "x", "y"]);
    let top = orphan.top().clone();
    let all = [top.clone(), orphan.layers[2].clone()];
    let none = |storage: &Storage, why: &str| {
        assert_eq!(storage.orphans().unwrap(), [], "{why}");
        assert_eq!(storage.remove_orphans().unwrap(), [], "{why}");
        assert!(storage.layers().exists(top.as_str()), "{why}");
    };
    let some = |storage: &Storage, why: &str| assert_eq!(storage.orphans().unwrap(), all, "after {why}");
    some(&storage, "nothing");

    storage.layers().hold(&top).unwrap();
    none(&storage, "held");
    storage.layers().release(&top).unwrap();
    some(&storage, "held");

    let writable = add_bare_layer(&storage, &id('8'), Some(&top), true);
    none(&storage, "a writable layer on it, though no container has that");
    storage.layers().quarantine(writable.as_str(), "to see").unwrap();
    none(&storage, "a layer in quarantine stands on it");
    for put in storage.put_aside().unwrap() {
        storage.purge(&put.entry.key).unwrap();
    }
    some(&storage, "a layer in quarantine");

    storage.images().create(&orphan.request()).unwrap();
    complete(&storage, &orphan, &["third:1"]);
    none(&storage, "an image");
    storage.images().quarantine(&orphan.id, "to see").unwrap();
    none(&storage, "an image in quarantine");
    let [put] = &storage.put_aside().unwrap()[..] else { panic!("one thing in quarantine") };
    storage.purge(&put.entry.key).unwrap();
    some(&storage, "an image");

    storage.layers().mount(top.as_str()).unwrap();
    if storage.layers().find(top.as_str()).unwrap().mount_count > 0 {
        none(&storage, "mounted");
    }
    storage.layers().unmount(top.as_str(), true).unwrap();
    assert_eq!(storage.remove_orphans().unwrap(), all);
    assert!(storage.layers().exists(one.top().as_str()));
}

/// Which layers it has nobody can tell: it may be any.
#[test]
fn nothing_is_an_orphan_beside_an_image_that_cannot_be_read() {
    let place = TestRoot::in_memory("startup");
    let (one, _) = prepared(place.path());
    drop(open(place.path()));
    let dir = place.path().join("root/vfs-images").join(&one.id);
    let moved = place.path().join("moved");
    fs::rename(&dir, &moved).unwrap();
    let all = |storage: &Storage| layers(storage).len();
    let refused = |why: &str| {
        let storage = open(place.path());
        let before = all(&storage);
        let error = storage.remove_orphans().unwrap_err();
        assert_eq!(error.kind(), isula_storage::error::ErrorKind::Corrupt, "{why}");
        assert!(error.report().contains(&one.id), "{why}: {}", error.report());
        assert_eq!(all(&storage), before, "{why}");
    };
    std::os::unix::fs::symlink(&moved, &dir).unwrap();
    refused("a link to the directory");
    fs::remove_file(&dir).unwrap();
    fs::write(&dir, "").unwrap();
    refused("a file in its place");
    fs::remove_file(&dir).unwrap();
    fs::rename(&moved, &dir).unwrap();
    for file in fs::read_dir(&dir).unwrap() {
        fs::write(file.unwrap().path(), "{\"id\"").unwrap();
    }
    refused("nothing of it can be read, and it is put aside");
    refused("it was put aside before");
}

/// A creation that was killed before its record left a directory and perhaps a temporary file: no image, so in nobody's way.
#[test]
fn a_creation_that_ended_before_its_record_keeps_no_layers() {
    let place = TestRoot::in_memory("startup");
    let (_, two) = prepared(place.path());
    let storage = open(place.path());
    let images = place.path().join("root/vfs-images");
    let (empty, begun) = (images.join("e".repeat(64)), images.join("f".repeat(64)));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&begun).unwrap();
    fs::write(begun.join(".tmp-images.json-0123456789"), "{\"id\"").unwrap();
    // In the process that runs on, and after the next start, which tells of them.
    storage.delete_container(&id('2')).unwrap();
    assert_eq!(storage.orphans().unwrap(), [] as [isula_storage::id::LayerId; 0]);
    drop(storage);
    let storage = open(place.path());
    assert_eq!(problems(&storage).len(), 2);
    let before = layers(&storage).len();
    storage.remove_image(&two.id).unwrap();
    assert_eq!(layers(&storage).len(), before - 1, "its own layer goes");

    // With more in it than that it may have been one.
    fs::write(begun.join("manifest"), "{").unwrap();
    drop(storage);
    assert!(open(place.path()).orphans().is_err());
}

/// The directory of the images moved away, or on a file system that is not mounted: a store of layers nobody names.
#[test]
fn layers_are_no_orphans_where_there_is_no_image_at_all() {
    let place = TestRoot::in_memory("startup");
    let made = {
        let storage = open(place.path());
        add_image(&storage, &["a", "b"], &["one:1"])
    };
    let (images, aside) = (place.path().join("root/vfs-images"), place.path().join("aside"));
    fs::rename(&images, &aside).unwrap();
    let refused = |why: &str| {
        let storage = open(place.path());
        for outcome in [storage.orphans(), storage.remove_orphans()] {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{why}");
            assert!(error.report().contains("no image at all"), "{why}: {}", error.report());
        }
        assert_eq!(layers(&storage).len(), 2, "{why}");
    };
    refused("moved away");
    refused("empty by now");
    fs::remove_dir_all(&images).unwrap();
    fs::rename(&aside, &images).unwrap();
    assert_eq!(open(place.path()).orphans().unwrap(), []);
    // Nobody need be asked twice who knows better.
    fs::remove_dir_all(images.join(&made.id)).unwrap();
    refused("removed by hand");
    let storage = open(place.path());
    assert_eq!(storage.remove_orphans_with(WithoutImages::Allow).unwrap().len(), 2);
    assert_eq!(storage.orphans().unwrap(), []);
}

/// What the image that cannot be read stands on nobody knows: removing its neighbours must not take it along.
#[test]
fn removing_an_image_beside_one_that_cannot_be_read_leaves_all_layers() {
    let place = TestRoot::in_memory("startup");
    let (one, two) = {
        let storage = open(place.path());
        (add_image(&storage, &["a", "b"], &["one:1"]), add_image(&storage, &["a", "b", "c"], &["two:1"]))
    };
    let dir = place.path().join("root/vfs-images").join(&one.id);
    for file in fs::read_dir(&dir).unwrap() {
        fs::write(file.unwrap().path(), "{\"id\"").unwrap();
    }
    let storage = open(place.path());
    let removal = storage.remove_image("two:1").unwrap();
    assert!(removal.deleted && removal.layers.is_empty(), "{:?}", removal.layers);
    assert_eq!(layers(&storage).len(), 3);
    assert!(storage.images().lookup("two:1").is_err());
    drop(storage);
    // They are told of, and go when nobody can want them any more.
    let top = format!("layer {}", two.top());
    assert!(open_checking(place.path()).problems().iter().any(|problem| problem.subject == top));
    let storage = open(place.path());
    for put in storage.put_aside().unwrap() {
        storage.purge(&put.entry.key).unwrap();
    }
    assert_eq!(storage.remove_orphans_with(WithoutImages::Allow).unwrap().len(), 3);
}

/// The kernel knows of mounts that no record tells of.
#[test]
fn a_mounted_image_layer_is_no_orphan() {
    if !common::need_root() {
        return;
    }
    let place = TestRoot::in_memory("startup");
    let storage = Storage::open(options(place.path(), "overlay")).unwrap();
    let orphan = add_layers(&storage, &["a", "b"]);
    let merged = storage.layers().mount(orphan.top().as_str()).unwrap();
    assert_eq!(storage.remove_orphans_with(WithoutImages::Allow).unwrap(), []);
    assert!(merged.join("b").exists());
    storage.layers().unmount(orphan.top().as_str(), false).unwrap();
    assert_eq!(storage.remove_orphans_with(WithoutImages::Allow).unwrap().len(), 2);
    assert_eq!(layers(&storage), [""; 0]);
}

#[test]
fn nothing_is_restored_before_what_it_stands_on() {
    let place = TestRoot::in_memory("startup");
    let (one, _) = prepared(place.path());
    let storage = open(place.path());
    let [base, top] = &one.layers[..] else { unreachable!() };
    let before = (images(&storage), containers(&storage), layers(&storage));
    // From the top down, with the other image, whose base is the same.
    let others: Vec<String> = images(&storage).into_iter().filter(|image| *image != one.id).collect();
    storage.containers().unwrap().quarantine(&id('1'), "to see").unwrap();
    storage.containers().unwrap().quarantine(&id('2'), "to see").unwrap();
    for image in [&one.id, &others[0]] {
        storage.images().quarantine(image, "to see").unwrap();
    }
    let mut left: Vec<String> = layers(&storage);
    let aside = |id: &String| storage.layers().quarantine(id, "to see").is_ok();
    while let Some(at) = left.iter().position(aside) {
        left.remove(at);
    }
    assert_eq!(left, [""; 0]);

    let key = |kind: &str, name: &str| {
        let all = storage.put_aside().unwrap();
        let found = all.iter().find(|put| put.kind.to_string() == kind && put.entry.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}")).entry.key.clone()
    };
    let refused = |kind: &str, name: &str, missing: &[&str]| {
        let before = storage.put_aside().unwrap();
        let error = storage.restore(&key(kind, name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
        missing.iter().for_each(|layer| assert!(error.report().contains(layer), "{}", error.report()));
        assert_eq!(storage.put_aside().unwrap(), before, "it lies where it was");
    };
    refused("image", &one.id, &[base.as_str(), top.as_str(), "are missing"]);
    refused("container", &id('1'), &[&id('1'), "lies in quarantine too"]);
    refused("layer record", &id('1'), &[top.as_str()]);
    refused("layer record", top.as_str(), &[base.as_str()]);
    storage.layers().restore(base).unwrap();
    refused("image", &one.id, &[top.as_str(), "is missing"]);
    refused("layer record", &id('1'), &[top.as_str()]);
    storage.layers().restore(top).unwrap();
    assert_eq!(storage.restore(&key("image", &one.id)).unwrap().len(), 1);
    refused("container", &id('1'), &[&id('1')]);
    storage.layers().restore(&layer_id(&id('1'))).unwrap();
    storage.restore(&key("container", &id('1'))).unwrap();
    assert_eq!(content(&storage, &id('1')).len(), 3);
    // The rest in its order.
    let mut todo: Vec<String> = before.2.iter().filter(|id| !storage.layers().exists(id)).cloned().collect();
    while let Some(at) = todo.iter().position(|id| storage.layers().restore(&layer_id(id)).is_ok()) {
        todo.remove(at);
    }
    storage.restore(&key("image", &others[0])).unwrap();
    storage.restore(&key("container", &id('2'))).unwrap();
    assert_eq!((images(&storage), containers(&storage), layers(&storage)), before);
    assert_eq!(storage.put_aside().unwrap(), []);
    drop(storage);
    assert_eq!(problems(&open_checking(place.path())), [""; 0]);
}

fn layer_id(id: &str) -> LayerId {
    LayerId::new(id).unwrap()
}

#[test]
fn a_container_with_a_damaged_record_is_put_aside_and_its_layer_stays() {
    for damage in ["", "{", "[]", "{}", "\0\0\0\0", r#"{"id":"x"}"#] {
        let place = TestRoot::in_memory("startup");
        prepared(place.path());
        fs::write(place.join(format!("root/vfs-containers/{}/container.json", id('1'))), damage).unwrap();
        let storage = open(place.path());
        assert_eq!(containers(&storage), [id('2')], "{damage:?}");
        assert_eq!(aside(&storage), [id('1')], "{damage:?}");
        assert!(storage.layers().exists(&id('1')), "{damage:?}");
        assert_eq!(images(&storage).len(), 2, "{damage:?}");
        assert_eq!(content(&storage, &id('2')).len(), 3, "{damage:?}");
    }
}

#[test]
fn a_storage_can_be_closed_and_opened_again_and_a_failed_opening_holds_nothing() {
    let place = TestRoot::in_memory("startup");
    for _ in 0..3 {
        let storage = open(place.path());
        assert_eq!(Storage::open(options(place.path(), "vfs")).unwrap_err().kind(), ErrorKind::InUse);
        storage.close().unwrap();
    }
    // Each of the stores fails in turn.
    for store in ["layers", "images", "containers"] {
        let dir = place.join(format!("root/vfs-{store}"));
        fs::remove_dir_all(&dir).unwrap();
        fs::write(&dir, "no directory").unwrap();
        Storage::open(options(place.path(), "vfs")).unwrap_err();
        fs::remove_file(&dir).unwrap();
        open(place.path()).close().unwrap();
    }
    Storage::open(options(place.path(), "nothing")).unwrap_err();
    let bad =
        StorageOptions { driver_options: vec!["vfs.nothing=1".to_owned()], ..options(place.path(), "vfs") };
    Storage::open(bad).unwrap_err();
    open(place.path()).close().unwrap();
    assert_eq!(fs::metadata(place.join("root")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(place.join("run")).unwrap().permissions().mode() & 0o777, 0o700);
}

/// The daemon's own flag file.
#[test]
fn the_flag_file_of_the_daemon_is_left_alone() {
    let place = TestRoot::in_memory("startup");
    open(place.path()).close().unwrap();
    let flag = place.join("root/NEED_CHECK");
    fs::write(&flag, "").unwrap();
    open_checking(place.path()).close().unwrap();
    assert_eq!(fs::read(&flag).unwrap(), b"");
}
