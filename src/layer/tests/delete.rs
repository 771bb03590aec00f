// SPDX-License-Identifier: MulanPSL-2.0
//! Deletion: order, refusals, what remains after a failure.

use super::fake::Fault;
use super::*;
use crate::persist::with_hook;

#[test]
fn a_deleted_layer_is_gone_from_disk_and_lists() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    store
        .create(
            &id(2),
            &CreateLayer { names: vec!["n".into()], ..image(Some(id(1)), "x") },
            Some(&mut &b"x"[..]),
        )
        .unwrap();
    store.mount("n").unwrap();
    store.delete(id(2).as_str()).unwrap();
    assert_eq!(ids(&store), [id(1)]);
    assert!(store.find("n").is_none() && !store.exists(id(2).as_str()) && !store.has_children(&id(1)));
    assert!(store.by_uncompressed_digest(&Digest::of(b"x").to_string()).is_empty());
    assert!(place.world.mounted.lock().is_empty());
    place.assert_absent(&id(2));
    store.close().unwrap();
    place.assert_no_trash();
}

#[test]
fn deletion_takes_names_and_does_not_mind_the_unknown() {
    let place = Place::new();
    let store = place.open();
    store.create(&id(1), &named(&["n"]), None).unwrap();
    store.hold(&id(1)).unwrap();
    store.delete("n").unwrap();
    for unknown in ["n", id(1).as_str(), "", "../x", "\u{0}"] {
        store.delete(unknown).unwrap();
    }
    // The name is free again.
    store.create(&id(2), &named(&["n"]), None).unwrap();
}

#[test]
fn delete_refuses_a_layer_with_children() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    add_container(&store, 3, 2);
    for number in [1, 2] {
        assert_eq!(kind(store.delete(id(number).as_str())), ErrorKind::InUse);
        assert!(store.has_children(&id(number)));
    }
    drop(store);
    let store = place.open();
    assert_eq!(kind(store.delete(id(1).as_str())), ErrorKind::InUse);
    for number in [3, 2, 1] {
        store.delete(id(number).as_str()).unwrap();
    }
    assert!(ids(&store).is_empty());
}

#[test]
fn delete_unmounts_first_and_then_marks_before_it_removes() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_container(&store, 2, 1);
    store.mount(id(2).as_str()).unwrap();
    place.world.take_trace();
    let record = place.record_dir(&id(2)).join("layer.json");
    let marked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = marked.clone();
    *place.world.hook.lock() = Some(Arc::new(move |_| {
        seen.lock().push(std::fs::read_to_string(&record).unwrap().contains("\"incompelte\": true"));
    }));
    store.delete(id(2).as_str()).unwrap();
    assert_eq!(place.world.take_trace(), ["unmount 2", "remove 2"]);
    assert_eq!(*marked.lock(), [false, true]);
}

#[test]
fn a_busy_mount_keeps_the_layer_as_it_was() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_container(&store, 2, 1);
    store.mount(id(2).as_str()).unwrap();
    place.world.busy.lock().insert(id(2));
    let before = (tree(&place.path("root")), tree(&place.path("run")));
    assert_eq!(kind(store.delete(id(2).as_str())), ErrorKind::InUse);
    assert_eq!((tree(&place.path("root")), tree(&place.path("run"))), before);
    assert_eq!(store.find(id(2).as_str()).unwrap().mount_count, 1);
    place.world.busy.lock().clear();
    store.delete(id(2).as_str()).unwrap();
}

#[test]
fn a_driver_that_cannot_remove_keeps_the_layer() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    let record = place.record_dir(&base).join("layer.json");
    let before = std::fs::read_to_string(&record).unwrap();
    place.world.fail("remove", Fault::Before(ErrorKind::InUse));
    assert_eq!(kind(store.delete(base.as_str())), ErrorKind::InUse);
    assert_eq!(std::fs::read_to_string(&record).unwrap(), before);
    assert_eq!(store.check(base.as_str()).unwrap(), crate::driver::Verdict::Valid);
    assert_eq!(store.hold_count(&base).unwrap(), 1);
    add_container(&store, 2, 1);
    drop(store);
    assert_eq!(place.open().list().len(), 2);
}

#[test]
fn a_driver_that_removed_and_then_failed_does_not_bring_the_layer_back() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    place.world.fail("remove", Fault::After(ErrorKind::Os(libc::EIO)));
    store.delete(base.as_str()).unwrap();
    assert!(ids(&store).is_empty());
    place.assert_absent(&base);
}

#[test]
fn a_full_disk_does_not_keep_anybody_from_deleting() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    let full = |step: &'static str| match step {
        "make temporary file" => Err(Error::new(ErrorKind::Os(libc::ENOSPC), "full")),
        _ => Ok(()),
    };
    with_hook(full, || store.delete(base.as_str())).unwrap();
    place.assert_absent(&base);
    assert!(ids(&store).is_empty());
}

/// The mark is on disk, the removal failed, and the mark cannot be taken back: going on would let the next start delete
/// a layer that is listed and perhaps built upon.
#[test]
fn a_mark_that_cannot_be_taken_back_stops_all_changes() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    let mut written = 0;
    let fails_later = move |step: &'static str| {
        written += usize::from(step == "make temporary file");
        if written > 1 { Err(Error::new(ErrorKind::Os(libc::EIO), "dying disk")) } else { Ok(()) }
    };
    place.world.fail("remove", Fault::Before(ErrorKind::Os(libc::EIO)));
    with_hook(fails_later, || store.delete(base.as_str())).unwrap_err();
    assert_eq!(kind(store.create(&id(2), &container(base.clone()), None)), ErrorKind::Latched);
    assert_eq!(kind(store.delete(base.as_str())), ErrorKind::Latched);
    assert!(store.exists(base.as_str()));
    store.mount(base.as_str()).unwrap();
}

#[test]
fn a_read_only_store_changes_nothing() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    store.mount(id(1).as_str()).unwrap();
    place.put(&place.record_dir(&id(2)).join("layer.json"), "");
    let doubtful = format!("{{\"id\": \"{}\", \"incompelte\": true}}", id(3));
    place.put(&place.record_dir(&id(3)).join("layer.json"), &doubtful);
    std::fs::create_dir(place.record_dir(&id(4))).unwrap();

    // Beside a running owner, and without one.
    for _ in 0..2 {
        let before = (tree(&place.path("root")), tree(&place.path("run")));
        let reader = place.open_read_only();
        assert_eq!(ids(&reader), [id(1)]);
        assert_eq!(reader.find(id(1).as_str()).unwrap().mount_count, 1);
        assert_eq!(reader.check(id(1).as_str()).unwrap(), crate::driver::Verdict::Valid);
        assert_eq!(reader.problems().len(), 1);
        assert!(reader.quarantined().unwrap().is_empty());
        let one = id(1);
        let refused = [
            kind(reader.create(&id(9), &CreateLayer::default(), None)),
            kind(reader.delete(one.as_str())),
            kind(reader.mount(one.as_str())),
            kind(reader.unmount(one.as_str(), false)),
            kind(reader.repair_lowers(one.as_str())),
            kind(reader.quarantine(one.as_str(), "x")),
            kind(reader.restore(&one)),
        ];
        assert_eq!(refused, [ErrorKind::ReadOnly; 7]);
        reader.close().unwrap();
        assert_eq!((tree(&place.path("root")), tree(&place.path("run"))), before);
        store.close().unwrap();
    }
}
