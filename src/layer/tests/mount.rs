// SPDX-License-Identifier: MulanPSL-2.0
//! Mounting, counted; repair on demand.

use super::fake::Fault;
use super::*;
use crate::driver::LayerKind;

fn run_text(place: &Place, id: &LayerId) -> String {
    std::fs::read_to_string(place.run_file(id)).unwrap()
}

fn count(store: &LayerStore, id: &LayerId) -> i32 {
    store.find(id.as_str()).unwrap().mount_count
}

#[test]
fn a_layer_that_was_deleted_meanwhile_is_not_repaired_by_what_it_was() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_container(&store, 2, 1);
    let old = store.registry.by_id(&id(2)).unwrap();
    store.delete(id(2).as_str()).unwrap();
    store.create(&id(2), &CreateLayer { writable: true, ..CreateLayer::default() }, None).unwrap();
    place.world.take_trace();
    let failed: Result<()> = store.repairing(&old, || Err(Error::corrupt("its data are gone")));
    assert_eq!(kind(failed), ErrorKind::NotFound);
    assert_eq!(place.world.take_trace(), Vec::<String>::new());
}

#[test]
fn mounts_are_counted_and_recorded_as_the_reference_does() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    let layer = add_container(&store, 2, 1);
    let merged = place.data_dir(&layer).join("merged");
    let counted =
        |count: i32| format!("{{\n    \"count\": {count},\n    \"path\": \"{}\"\n}}\n", merged.display());
    let forgotten = format!("{{\n    \"path\": \"{}\"\n}}\n", merged.display());

    assert_eq!(store.mount(layer.as_str()).unwrap(), merged);
    assert_eq!(run_text(&place, &layer), counted(1));
    assert_eq!(store.mount(layer.as_str()).unwrap(), merged);
    assert_eq!((run_text(&place, &layer), count(&store, &layer)), (counted(2), 2));
    let mode = std::fs::metadata(place.run_file(&layer)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    store.unmount(layer.as_str(), false).unwrap();
    assert_eq!((run_text(&place, &layer), count(&store, &layer)), (counted(1), 1));
    assert!(place.world.mounted.lock().contains(&layer));
    store.unmount(layer.as_str(), false).unwrap();
    assert_eq!((run_text(&place, &layer), count(&store, &layer)), (forgotten.clone(), 0));
    assert!(place.world.mounted.lock().is_empty());
    // Once more is fine, as in the reference.
    store.unmount(layer.as_str(), false).unwrap();

    store.mount(layer.as_str()).unwrap();
    store.mount(layer.as_str()).unwrap();
    store.unmount(layer.as_str(), true).unwrap();
    assert_eq!((run_text(&place, &layer), count(&store, &layer)), (forgotten, 0));
    assert!(place.world.mounted.lock().is_empty());
}

#[test]
fn unknown_layers_cannot_be_mounted_and_need_no_unmounting() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    assert_eq!(kind(store.mount(id(9).as_str())), ErrorKind::NotFound);
    store.unmount(id(9).as_str(), false).unwrap();
    drop(store);
    // An image layer without a mount state: nothing is asked, nothing written.
    let store = place.open();
    assert_eq!(store.find(id(1).as_str()).unwrap().mount_point, None);
    place.world.take_trace();
    store.unmount(id(1).as_str(), true).unwrap();
    assert!(place.world.take_trace().is_empty() && !place.run_file(&id(1)).exists());
}

#[test]
fn image_layers_are_mounted_read_only_and_old_containers_writable() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_container(&store, 2, 1);
    // As an iSulad wrote it that did not record `writable` yet.
    store.create(&id(3), &CreateLayer { parent: Some(id(1)), ..CreateLayer::default() }, None).unwrap();
    for (number, expected) in [(1, LayerKind::ReadOnly), (2, LayerKind::ReadWrite), (3, LayerKind::ReadWrite)]
    {
        store.mount(id(number).as_str()).unwrap();
        assert_eq!(place.world.kinds.lock()[&id(number)], expected, "{number}");
    }
}

#[test]
fn a_counted_mount_that_is_gone_is_made_again() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    store.mount(base.as_str()).unwrap();
    place.world.mounted.lock().clear();
    store.mount(base.as_str()).unwrap();
    assert!(place.world.mounted.lock().contains(&base));
    assert_eq!(count(&store, &base), 2);
}

#[test]
fn a_failing_mount_is_not_counted_and_a_failing_unmount_is_still() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    place.world.fail("mount", Fault::Before(ErrorKind::Unsupported));
    assert_eq!(kind(store.mount(base.as_str())), ErrorKind::Unsupported);
    assert_eq!(count(&store, &base), 0);
    assert!(!place.run_file(&base).exists());
    store.mount(base.as_str()).unwrap();
    place.world.fail("unmount", Fault::Before(ErrorKind::Os(libc::EIO)));
    assert_eq!(kind(store.unmount(base.as_str(), false)), ErrorKind::Os(libc::EIO));
    assert_eq!(count(&store, &base), 1);
}

#[test]
fn a_mount_state_that_cannot_be_saved_does_not_undo_the_mount() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    std::fs::create_dir(place.run_file(&base)).unwrap();
    store.mount(base.as_str()).unwrap();
    assert_eq!(count(&store, &base), 1);
    assert!(place.world.mounted.lock().contains(&base));
}

/// In the reference one lost link of a shared base layer costs every container its data.
#[test]
fn a_lost_link_of_a_base_layer_is_repaired_by_the_mount_that_misses_it() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    let layer = add_container(&store, 3, 2);
    std::fs::remove_file(place.data_dir(&base).join("link")).unwrap();
    place.world.take_trace();
    store.mount(layer.as_str()).unwrap();
    assert_eq!(
        place.world.take_trace(),
        ["mount 3", "validate 1", "validate 2", "validate 3", "mount 3"],
        "parents first"
    );
    std::fs::remove_file(place.data_dir(&base).join("link")).unwrap();
    assert_eq!(store.metadata(&layer).unwrap().len(), 1);
    place.world.take_trace();
    store.mount(layer.as_str()).unwrap();
    assert_eq!(place.world.take_trace(), ["mount 3"], "nothing is checked while all is well");
}

#[test]
fn what_cannot_be_derived_is_an_error_that_says_why() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    let layer = add_container(&store, 2, 1);
    place.put(&place.data_dir(&layer).join("parent"), id(7).as_str());
    std::fs::remove_file(place.data_dir(&layer).join("link")).unwrap();
    let error = store.mount(layer.as_str()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.report().contains("it stands on another layer"), "{}", error.report());
    // Data gone altogether.
    std::fs::remove_dir_all(place.data_dir(&base)).unwrap();
    assert_eq!(kind(store.metadata(&base)), ErrorKind::NotFound);
    assert_eq!(kind(store.metadata(&id(9))), ErrorKind::NotFound);
}

#[test]
fn an_integrity_check_tells_content_from_trouble_and_mounts_nothing() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    let layer = add_container(&store, 2, 1);
    place.world.take_trace();
    let valid = crate::driver::Verdict::Valid;
    assert_eq!(store.check(base.as_str()).unwrap(), valid);
    assert_eq!(store.check(layer.as_str()).unwrap(), valid);
    assert!(place.world.take_trace().is_empty());
    place.put(&place.data_dir(&base).join("content"), "changed");
    assert_ne!(store.check(base.as_str()).unwrap(), valid);
    assert_eq!(kind(store.export(base.as_str(), &mut Vec::new())), ErrorKind::DigestMismatch);
    std::fs::remove_file(place.record_dir(&base).join(format!("{base}.tar-split.gz"))).unwrap();
    assert_eq!(kind(store.check(base.as_str())), ErrorKind::Corrupt);
    assert_eq!(kind(store.check(id(9).as_str())), ErrorKind::NotFound);
    assert_eq!(kind(store.export(id(9).as_str(), &mut Vec::new())), ErrorKind::NotFound);
}

#[test]
fn usage_of_an_unknown_layer_is_none() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    assert_eq!(store.usage(&id(1)).unwrap().unwrap().1.bytes.0, 12);
    assert_eq!(store.usage(&id(9)).unwrap(), None);
    assert_eq!(kind(store.repair_lowers(id(9).as_str())), ErrorKind::NotFound);
    store.repair_lowers(id(1).as_str()).unwrap();
}
