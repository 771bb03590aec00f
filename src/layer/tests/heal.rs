// SPDX-License-Identifier: MulanPSL-2.0
//! Making a damaged layer again.

use super::*;
use crate::driver::Verdict;

/// Base, image on it, container on that; in each the content of `add_image`.
fn three(place: &Place) -> [LayerId; 3] {
    let store = place.open();
    let ids = [add_image(&store, 1, None), add_image(&store, 2, Some(1)), add_container(&store, 3, 2)];
    store.close().unwrap();
    ids
}

fn tar_split(place: &Place, id: &LayerId) -> PathBuf {
    place.record_dir(id).join(format!("{id}.tar-split.gz"))
}

fn again(store: &LayerStore, number: u32, content: &str) -> Result<Created> {
    store.create(&id(number), &image(None, content), Some(&mut content.as_bytes()))
}

#[test]
fn a_layer_without_its_tar_split_gets_it_back_by_being_made_again() {
    for damage in [None, Some(""), Some("cut off")] {
        let place = Place::new();
        let [base, ..] = three(&place);
        let file = tar_split(&place, &base);
        let whole = std::fs::read(&file).unwrap();
        match damage {
            None => std::fs::remove_file(&file).unwrap(),
            Some(text) => place.put(&file, text),
        }
        let store = place.open();
        let [problem] = <[_; 1]>::try_from(store.problems()).unwrap();
        assert!(problem.reason.ends_with("it can be neither checked nor exported"), "{}", problem.reason);
        assert!(!problem.quarantined && store.find(base.as_str()).is_some(), "it is listed");
        // Also while a container on it runs: nothing but the stream is written.
        store.mount(id(3).as_str()).unwrap();
        place.world.take_trace();
        assert_eq!(again(&store, 1, "content of 1").unwrap(), Created::Existing(id(1)));
        assert_eq!(store.hold_count(&base).unwrap(), 1);
        assert_eq!(place.world.take_trace(), ["prepare 1".to_owned(), format!("apply aside-{base}")]);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
        assert_eq!(store.check(base.as_str()).unwrap(), Verdict::Valid);
        assert!(store.quarantined().unwrap().is_empty());
        // It is whole now, so nothing is read any more.
        again(&store, 1, "content of 1").unwrap();
        assert!(place.world.take_trace().is_empty());
        assert_eq!(std::fs::read_dir(place.record_dir(&base)).unwrap().count(), 2, "nothing is left over");
        drop(store);
        assert!(place.open().problems().is_empty());
    }
}

#[test]
fn an_archive_of_something_else_heals_nothing() {
    let place = Place::new();
    let [base, ..] = three(&place);
    std::fs::remove_file(tar_split(&place, &base)).unwrap();
    let before = tree(&place.path("root"));
    let store = place.open();
    assert_eq!(kind(again(&store, 1, "something else")), ErrorKind::DigestMismatch);
    assert_eq!(store.hold_count(&base).unwrap(), 0, "the hold is given back");
    assert!(store.find(base.as_str()).is_some());
    drop(store);
    assert_eq!(tree(&place.path("root")), before);
}

#[test]
fn content_that_a_check_found_damaged_is_replaced_and_the_old_put_aside() {
    let place = Place::new();
    let [base, ..] = three(&place);
    place.put(&place.data_dir(&base).join("content"), "damaged");
    let store = place.open();
    assert!(store.problems().is_empty(), "a start does not look at content");
    place.world.take_trace();
    again(&store, 1, "content of 1").unwrap();
    assert!(place.world.take_trace().is_empty(), "nothing is known of the damage");
    assert!(matches!(store.check(base.as_str()).unwrap(), Verdict::Differs(_)));
    again(&store, 1, "content of 1").unwrap();
    assert_eq!(store.check(base.as_str()).unwrap(), Verdict::Valid);
    let [put] = <[_; 1]>::try_from(store.quarantined().unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(put.path.join("content")).unwrap(), "damaged");
    assert!(put.reason.contains("its content was damaged"), "{}", put.reason);
    assert_eq!(store.list().len(), 3);
    store.mount(id(3).as_str()).unwrap();
}

#[test]
fn damaged_content_is_not_replaced_under_a_mount() {
    let place = Place::new();
    let [base, _, container] = three(&place);
    place.put(&place.data_dir(&base).join("content"), "damaged");
    let store = place.open();
    store.check(base.as_str()).unwrap();
    for mounted in [&container, &base] {
        store.mount(mounted.as_str()).unwrap();
        let error = again(&store, 1, "content of 1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.report().contains("unmount it (stop the container)"), "{}", error.report());
        assert_eq!(std::fs::read_to_string(place.data_dir(&base).join("content")).unwrap(), "damaged");
        store.unmount(mounted.as_str(), true).unwrap();
    }
    assert!(store.quarantined().unwrap().is_empty());
    again(&store, 1, "content of 1").unwrap();
    assert_eq!(store.check(base.as_str()).unwrap(), Verdict::Valid);
}

#[test]
fn a_layer_is_not_deleted_while_it_is_healed_and_others_need_not_wait() {
    let place = Place::new();
    let base = {
        let store = place.open();
        add_image(&store, 1, None)
    };
    std::fs::remove_file(tar_split(&place, &base)).unwrap();
    let store = Arc::new(place.open());
    let other = Arc::downgrade(&store);
    let name = base.clone();
    *place.world.hook.lock() = Some(Arc::new(move |operation: &str| {
        if operation == "prepare" {
            let store = other.upgrade().unwrap();
            assert_eq!(kind(store.delete(name.as_str())), ErrorKind::InUse);
            assert_eq!(kind(store.quarantine(name.as_str(), "why")), ErrorKind::InUse);
            assert_eq!(again(&store, 1, "content of 1").unwrap(), Created::Existing(name.clone()));
            add_container(&store, 5, 1);
        }
    }));
    again(&store, 1, "content of 1").unwrap();
    *place.world.hook.lock() = None;
    assert_eq!(store.hold_count(&base).unwrap(), 2);
    assert_eq!(store.check(base.as_str()).unwrap(), Verdict::Valid);
    store.delete(id(5).as_str()).unwrap();
    store.delete(base.as_str()).unwrap();
}

#[test]
fn a_healing_that_fails_leaves_everything_as_it_was() {
    for operation in ["prepare", "apply", "install"] {
        let place = Place::new();
        let [base, ..] = three(&place);
        place.put(&place.data_dir(&base).join("content"), "damaged");
        let store = place.open();
        store.check(base.as_str()).unwrap();
        let before = tree(&place.path("root"));
        place.world.fail(operation, super::fake::Fault::Before(ErrorKind::Os(libc::ENOSPC)));
        assert_eq!(kind(again(&store, 1, "content of 1")), ErrorKind::Os(libc::ENOSPC), "{operation}");
        assert_eq!(tree(&place.path("root")), before, "{operation}");
        again(&store, 1, "content of 1").unwrap();
        assert_eq!(store.check(base.as_str()).unwrap(), Verdict::Valid);
    }
}
