// SPDX-License-Identifier: MulanPSL-2.0
//! Putting aside and taking back.

use super::fake::Fault;
use super::*;

#[test]
fn a_layer_put_aside_is_not_listed_and_comes_back_whole() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    let layer = CreateLayer { names: vec!["n".into()], ..image(Some(id(1)), "x") };
    store.create(&id(2), &layer, Some(&mut &b"x"[..])).unwrap();
    store.mount("n").unwrap();
    let before = (tree(&place.record_dir(&id(2))), tree(&place.data_dir(&id(2))));
    let put = store.quarantine("n", "content differs").unwrap();
    assert_eq!(put.len(), 2);
    assert!(put.iter().all(|entry| entry.name == id(2).as_str() && entry.reason == "content differs"));
    assert_eq!(store.quarantined().unwrap(), put);
    assert_eq!(ids(&store), [id(1)]);
    assert!(store.has_children(&id(1)) && place.world.mounted.lock().is_empty());
    place.assert_absent(&id(2));
    drop(store);

    let store = place.open();
    assert!(store.problems().is_empty());
    store.restore(&id(2)).unwrap();
    assert_eq!((tree(&place.record_dir(&id(2))), tree(&place.data_dir(&id(2)))), before);
    assert_eq!(store.find("n").unwrap().parent, Some(id(1)));
    assert_eq!(store.hold_count(&id(2)).unwrap(), 0);
    assert!(store.has_children(&id(1)) && store.quarantined().unwrap().is_empty());
    drop(store);
    assert_eq!(ids(&place.open()), [id(1), id(2)]);
}

#[test]
fn only_what_nobody_uses_is_put_aside() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_container(&store, 2, 1);
    store.mount(id(2).as_str()).unwrap();
    place.world.busy.lock().insert(id(2));
    assert_eq!(kind(store.quarantine(id(1).as_str(), "x")), ErrorKind::InUse);
    assert_eq!(kind(store.quarantine(id(2).as_str(), "x")), ErrorKind::InUse);
    assert_eq!(kind(store.quarantine(id(9).as_str(), "x")), ErrorKind::NotFound);
    place.world.busy.lock().clear();
    place.world.fail("quarantine", Fault::Before(ErrorKind::Os(libc::EIO)));
    assert_eq!(kind(store.quarantine(id(2).as_str(), "x")), ErrorKind::Os(libc::EIO));
    assert_eq!(ids(&store), [id(1), id(2)]);
    drop(store);
    assert_eq!(ids(&place.open()), [id(1), id(2)]);
}

#[test]
fn restoring_refuses_what_would_not_be_whole() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    assert_eq!(kind(store.restore(&id(2))), ErrorKind::NotFound);
    store.quarantine(id(2).as_str(), "x").unwrap();
    store.quarantine(id(1).as_str(), "x").unwrap();
    let before = store.quarantined().unwrap();
    assert_eq!(kind(store.restore(&id(2))), ErrorKind::NotFound, "its parent is not in the store");
    assert_eq!(store.quarantined().unwrap(), before);
    add_image(&store, 1, None);
    assert_eq!(kind(store.restore(&id(1))), ErrorKind::AlreadyExists);
    assert_eq!(store.hold_count(&id(1)).unwrap(), 1);
    store.restore(&id(2)).unwrap();
    drop(store);
    // A record that was put aside because it does not parse still does not.
    place.put(&place.record_dir(&id(2)).join("layer.json"), "{");
    let store = place.open();
    assert_eq!(ids(&store), [id(1)]);
    assert_eq!(kind(store.restore(&id(2))), ErrorKind::Corrupt);
    assert_eq!(ids(&store), [id(1)]);
}

#[test]
fn a_mended_record_finds_its_data_in_place() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_container(&store, 2, 1);
    drop(store);
    let file = place.record_dir(&id(2)).join("layer.json");
    let whole = std::fs::read_to_string(&file).unwrap();
    place.put(&file, "");
    let store = place.open();
    let aside = store.quarantined().unwrap();
    place.put(&aside[0].path.join("layer.json"), &whole);
    store.restore(&id(2)).unwrap();
    store.mount(id(2).as_str()).unwrap();
}

/// Deletes the image layer; it stays because something that is put aside stands on it.
fn assert_kept(store: &LayerStore, number: u32) {
    assert!(store.has_children(&id(number)), "layer {number}");
    assert_eq!(kind(store.delete(id(number).as_str())), ErrorKind::InUse);
    assert_eq!(kind(store.delete_unheld(&id(number))), ErrorKind::InUse);
    assert!(store.exists(id(number).as_str()));
}

#[test]
fn what_a_layer_in_quarantine_stands_on_is_kept_until_it_is_purged() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    add_container(&store, 3, 2);
    store.release(&id(1)).unwrap();
    store.release(&id(2)).unwrap();
    store.quarantine(id(3).as_str(), "x").unwrap();
    assert_kept(&store, 2);
    drop(store);
    // Record and data are both in quarantine.
    let store = place.open();
    assert_kept(&store, 2);
    store.restore(&id(3)).unwrap();
    store.quarantine(id(3).as_str(), "x").unwrap();
    assert_kept(&store, 2);
    let put = store.quarantined().unwrap();
    for entry in &put {
        store.purge(entry).unwrap();
    }
    assert!(!store.has_children(&id(2)));
    store.delete(id(2).as_str()).unwrap();
    drop(store);
    assert!(!place.open().has_children(&id(1)));
}

#[test]
fn what_is_put_aside_keeps_nothing_from_being_put_aside_after_it() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    add_container(&store, 3, 2);
    for number in [3, 2, 1] {
        store.quarantine(id(number).as_str(), "x").unwrap();
    }
    drop(store);
    let store = place.open();
    for number in [1, 2, 3] {
        store.restore(&id(number)).unwrap();
    }
    for number in [3, 2, 1] {
        store.delete(id(number).as_str()).unwrap();
    }
    assert!(ids(&store).is_empty());
}

#[test]
fn a_layer_made_again_keeps_what_it_stands_on_itself_and_once_deleted_its_old_self_does() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    let put = store.quarantine(id(2).as_str(), "x").unwrap();
    add_image(&store, 2, Some(1));
    assert_kept(&store, 1);
    store.delete(id(2).as_str()).unwrap();
    assert_kept(&store, 1);
    store.restore(&id(2)).unwrap();
    store.delete(id(2).as_str()).unwrap();
    assert!(!store.has_children(&id(1)) && store.quarantined().unwrap().is_empty());
    drop(put);
}

#[test]
fn what_a_layer_stands_on_is_kept_while_its_data_or_its_record_are_away() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    drop(store);
    let (data, away) = (place.data_dir(&id(2)), place.data_dir(&id(9)).with_extension("away"));
    #[allow(clippy::disallowed_methods, reason = "a test's file")]
    std::fs::rename(&data, &away).unwrap();
    let store = place.open();
    assert_eq!(ids(&store), [id(1)]);
    assert_kept(&store, 1);
    // Made again, it is like any other.
    add_image(&store, 2, Some(1));
    store.delete(id(2).as_str()).unwrap();
    let put = store.quarantined().unwrap();
    assert_eq!(put.len(), 1, "the old record");
    assert_kept(&store, 1);
    store.purge(&put[0]).unwrap();
    assert!(!store.has_children(&id(1)));
}
