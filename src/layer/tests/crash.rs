// SPDX-License-Identifier: MulanPSL-2.0
//! The world ends, or the disk fails, before every single change that a creation or deletion makes.

use std::cell::RefCell;
use std::rc::Rc;

use super::fake::Fault;
use super::*;
use crate::driver::Verdict;
use crate::persist::with_hook;

/// Copies a tree; what is removed meanwhile (the trash is being emptied) is not copied.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let Ok(mode) = std::fs::metadata(from).map(|stat| stat.permissions()) else { return };
    std::fs::set_permissions(to, mode).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&from, &to),
            _ => drop(std::fs::copy(&from, &to)),
        }
    }
}

/// A store with an image of two layers and a container.
fn prepared() -> (Place, LayerStore) {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
    add_container(&store, 3, 2);
    (place, store)
}

/// What the disk looks like before each change that `action` makes, with the name of the change.
fn worlds(place: &Place, action: impl FnOnce()) -> Vec<(String, Place)> {
    let found: Rc<RefCell<Vec<(String, Place)>>> = Rc::default();
    let (root, run) = (place.path("root"), place.path("run"));
    let taken = found.clone();
    let take = move |step: &str| {
        let copied = Place::new();
        copy(&root, &copied.path("root"));
        copy(&run, &copied.path("run"));
        taken.borrow_mut().push((step.to_owned(), copied));
        Ok(())
    };
    let at_step = take.clone();
    with_hook(at_step, action);
    take("the end").unwrap();
    found.take()
}

fn assert_old_layers_are_whole(store: &LayerStore, what: &str) {
    assert_eq!(store.problems(), [], "{what}");
    for (number, parent) in [(1, None), (2, Some(id(1))), (3, Some(id(2)))] {
        let layer =
            store.find(id(number).as_str()).unwrap_or_else(|| panic!("{what}: layer {number} is lost"));
        assert_eq!(layer.parent, parent, "{what}");
        assert_eq!(store.check(id(number).as_str()).unwrap(), Verdict::Valid, "{what}");
    }
    store.mount(id(3).as_str()).unwrap();
    store.unmount(id(3).as_str(), true).unwrap();
}

/// The layer is either listed and whole, or there is no trace of it.
fn assert_whole_or_absent(
    place: &Place,
    store: &LayerStore,
    id: &LayerId,
    content: &str,
    what: &str,
) -> bool {
    let listed = store.exists(id.as_str());
    if listed {
        assert_eq!(store.check(id.as_str()).unwrap(), Verdict::Valid, "{what}");
        let mut out = Vec::new();
        store.export(id.as_str(), &mut out).unwrap();
        assert_eq!(out, content.as_bytes(), "{what}");
    } else {
        place.assert_absent(id);
    }
    assert_eq!(store.driver().layers().unwrap().contains(id), listed, "{what}");
    assert_eq!(store.quarantined().unwrap(), [], "{what}");
    listed
}

#[test]
fn a_creation_cut_short_anywhere_leaves_the_layer_whole_or_absent() {
    let (place, store) = prepared();
    let worlds = worlds(&place, || drop(add_image(&store, 4, Some(2))));
    assert!(worlds.len() > 8, "{}", worlds.len());
    let mut listed = Vec::new();
    for (number, (step, place)) in worlds.iter().enumerate() {
        let what = format!("before change {number}, {step}");
        let store = place.open();
        assert_old_layers_are_whole(&store, &what);
        listed.push(assert_whole_or_absent(place, &store, &id(4), "content of 4", &what));
        if !store.exists(id(4).as_str()) {
            add_image(&store, 4, Some(2));
        }
        assert!(assert_whole_or_absent(place, &store, &id(4), "content of 4", &what));
        store.close().unwrap();
        place.assert_no_trash();
    }
    assert!(!listed[0] && listed[listed.len() - 1]);
    assert!(listed.is_sorted(), "once there, it stays: {listed:?}");
}

#[test]
fn a_deletion_cut_short_anywhere_leaves_the_layer_whole_or_absent() {
    let (place, store) = prepared();
    add_image(&store, 4, Some(2));
    store.mount(id(4).as_str()).unwrap();
    let worlds = worlds(&place, || store.delete(id(4).as_str()).unwrap());
    assert!(worlds.len() > 8, "{}", worlds.len());
    let mut gone = Vec::new();
    for (number, (step, place)) in worlds.iter().enumerate() {
        let what = format!("before change {number}, {step}");
        let store = place.open();
        assert_old_layers_are_whole(&store, &what);
        gone.push(!assert_whole_or_absent(place, &store, &id(4), "content of 4", &what));
        store.delete(id(4).as_str()).unwrap();
        add_image(&store, 4, Some(2));
        assert!(assert_whole_or_absent(place, &store, &id(4), "content of 4", &what));
        store.close().unwrap();
        place.assert_no_trash();
    }
    assert!(!gone[0] && gone[gone.len() - 1]);
    assert!(gone.is_sorted(), "once gone, it stays gone: {gone:?}");
}

#[test]
fn a_crash_in_the_driver_leaves_nothing_of_the_new_layer() {
    let (place, store) = prepared();
    let taken: Arc<parking_lot::Mutex<Vec<Place>>> = Arc::default();
    let (root, run, found) = (place.path("root"), place.path("run"), taken.clone());
    *place.world.hook.lock() = Some(Arc::new(move |_| {
        let copied = Place::new();
        copy(&root, &copied.path("root"));
        copy(&run, &copied.path("run"));
        found.lock().push(copied);
    }));
    add_image(&store, 4, Some(2));
    let taken = std::mem::take(&mut *taken.lock());
    assert_eq!(taken.len(), 3);
    for place in taken {
        let store = place.open();
        assert_old_layers_are_whole(&store, "in the driver");
        assert!(!assert_whole_or_absent(&place, &store, &id(4), "", "in the driver"));
    }
}

/// Runs `action` on fresh stores with the first, second, … change failing once, until it makes no more changes.
fn each_failure(
    action: impl Fn(&LayerStore) -> Result<()>,
    judge: impl Fn(&Place, &LayerStore, Result<()>, &str),
) {
    for failing in 0.. {
        let (place, store) = prepared();
        add_image(&store, 4, Some(2));
        let reached = Rc::new(RefCell::new(None));
        let (at, mut number) = (reached.clone(), 0);
        let result = with_hook(
            move |step| {
                number += 1;
                if number == failing + 1 {
                    *at.borrow_mut() = Some(step);
                    return Err(Error::new(ErrorKind::Os(libc::EIO), "bad disk"));
                }
                Ok(())
            },
            || action(&store),
        );
        let Some(step) = reached.take() else {
            assert!(failing > 8, "only {failing} changes");
            return;
        };
        let what = format!("change {failing}, {step}, fails");
        judge(&place, &store, result, &what);
        assert_old_layers_are_whole(&store, &what);
        drop(store);
        assert_old_layers_are_whole(&place.open(), &what);
    }
}

#[test]
fn a_disk_that_fails_once_in_a_creation_leaves_the_layer_whole_or_absent() {
    let new = id(5);
    let create = |store: &LayerStore| {
        store.create(&id(5), &image(Some(id(2)), "five"), Some(&mut &b"five"[..])).map(drop)
    };
    each_failure(create, |place, store, result, what| {
        assert_eq!(assert_whole_or_absent(place, store, &new, "five", what), result.is_ok(), "{what}");
        if result.is_err() {
            create(store).unwrap();
        }
        assert!(assert_whole_or_absent(place, store, &new, "five", what));
    });
}

#[test]
fn a_disk_that_fails_once_in_a_deletion_leaves_the_layer_whole_or_absent() {
    each_failure(
        |store| store.delete(id(4).as_str()),
        |place, store, result, what| {
            let listed = store.exists(id(4).as_str());
            assert_eq!(listed, result.is_err(), "{what}");
            if listed {
                assert!(assert_whole_or_absent(place, store, &id(4), "content of 4", what));
                store.mount(id(4).as_str()).unwrap();
            }
            store.delete(id(4).as_str()).unwrap();
            assert!(!store.exists(id(4).as_str()), "{what}");
        },
    );
}

#[test]
fn a_driver_that_fails_after_its_work_leaves_nothing_of_a_creation() {
    for operation in ["create", "apply", "sync"] {
        let (place, store) = prepared();
        place.world.fail(operation, Fault::After(ErrorKind::Os(libc::EIO)));
        store.create(&id(4), &image(Some(id(2)), "x"), Some(&mut &b"x"[..])).unwrap_err();
        if operation == "create" {
            // The driver broke its word that nothing remains. The next start reports it, the next creation copes.
            add_image(&store, 4, Some(2));
            continue;
        }
        assert!(!assert_whole_or_absent(&place, &store, &id(4), "", operation));
        assert_old_layers_are_whole(&store, operation);
    }
}

#[test]
fn a_healing_cut_short_anywhere_loses_nothing_and_can_be_done_again() {
    let (place, store) = prepared();
    let content = "content of 1";
    place.put(&place.data_dir(&id(1)).join("content"), "damaged");
    assert!(matches!(store.check(id(1).as_str()).unwrap(), Verdict::Differs(_)));
    let again = |store: &LayerStore| {
        store.create(&id(1), &image(None, content), Some(&mut content.as_bytes())).unwrap();
        assert_eq!(store.check(id(1).as_str()).unwrap(), Verdict::Valid);
    };
    let worlds = worlds(&place, || again(&store));
    assert!(worlds.len() > 5, "{}", worlds.len());
    for (number, (step, place)) in worlds.iter().enumerate() {
        let what = format!("before change {number}, {step}");
        let store = place.open();
        if store.exists(id(1).as_str()) {
            store.check(id(1).as_str()).unwrap();
        }
        again(&store);
        for other in [2, 3] {
            assert_eq!(store.check(id(other).as_str()).unwrap(), Verdict::Valid, "{what}");
        }
        store.mount(id(3).as_str()).unwrap();
        let old = store.quarantined().unwrap().into_iter().map(|put| put.path.join("content"));
        assert!(
            old.filter_map(|path| std::fs::read_to_string(path).ok()).any(|text| text == "damaged"),
            "{what}"
        );
    }
}
