// SPDX-License-Identifier: MulanPSL-2.0
//! Opening: what is loaded, repaired, put aside, reported; who may open.

use super::fake::Fault;
use super::*;

fn record(id: &LayerId, more: &str) -> String {
    format!("{{\"id\": \"{id}\", \"created\": \"2026-01-01T00:00:00.000000000Z\"{more}}}")
}

/// Base, image on it, container on that.
fn three(place: &Place) -> [LayerId; 3] {
    let store = place.open();
    let ids = [add_image(&store, 1, None), add_image(&store, 2, Some(1)), add_container(&store, 3, 2)];
    store.close().unwrap();
    ids
}

fn reasons(store: &LayerStore) -> Vec<(String, bool)> {
    store.problems().into_iter().map(|problem| (problem.reason, problem.quarantined)).collect()
}

#[test]
fn everything_is_found_again() {
    let place = Place::new();
    let store = place.open();
    for number in [5, 3, 4] {
        add_image(&store, number, None);
    }
    store.create(&id(1), &CreateLayer { names: vec!["n".into()], ..container(id(3)) }, None).unwrap();
    let before = store.list();
    drop(store);
    let files = tree(&place.path("root/vfs-layers"));
    let store = place.open();
    let after: Vec<_> = store
        .list()
        .into_iter()
        // An image layer has no mount state until it is mounted.
        .map(|layer| super::super::Layer { mount_point: before[0].mount_point.clone(), ..layer })
        .collect();
    let before: Vec<_> = before
        .iter()
        .map(|layer| super::super::Layer { mount_point: before[0].mount_point.clone(), ..layer.clone() })
        .collect();
    assert_eq!(after, before);
    assert_eq!(store.find("n").unwrap().mount_point, Some(place.data_dir(&id(1)).join("merged")));
    assert!(store.problems().is_empty());
    assert_eq!(tree(&place.path("root/vfs-layers")), files, "loading writes nothing");
}

#[test]
fn an_incomplete_layer_is_removed_with_its_data() {
    let place = Place::new();
    let [base, top, layer] = three(&place);
    let file = place.record_dir(&layer).join("layer.json");
    place.put(&file, &record(&layer, ", \"incompelte\": true, \"writable\": true"));
    place.put(&place.run_file(&layer), "{\"count\": 1}");
    let store = place.open();
    assert_eq!(ids(&store), [base.clone(), top.clone()]);
    place.assert_absent(&layer);
    assert!(store.problems().is_empty());
    assert!(!store.has_children(&top));
    store.close().unwrap();
    place.assert_no_trash();
}

#[test]
fn a_whole_chain_of_incomplete_layers_is_removed_from_the_top() {
    let place = Place::new();
    let [base, top, layer] = three(&place);
    for (id, parent) in [(&layer, Some(&top)), (&top, Some(&base)), (&base, None)] {
        let parent = parent.map_or(String::new(), |parent| format!(", \"parent\": \"{parent}\""));
        let text = record(id, &format!("{parent}, \"incompelte\": true"));
        place.put(&place.record_dir(id).join("layer.json"), &text);
    }
    place.world.take_trace();
    let store = place.open();
    assert_eq!(place.world.take_trace(), ["remove 3", "remove 2", "remove 1"]);
    assert!(ids(&store).is_empty() && store.problems().is_empty());
}

#[test]
fn an_incomplete_layer_below_complete_ones_is_left_alone_until_it_is_made_again() {
    let place = Place::new();
    let [base, top, layer] = three(&place);
    place.put(&place.record_dir(&base).join("layer.json"), &record(&base, ", \"incompelte\": true"));
    let store = place.open();
    assert_eq!(ids(&store), [top.clone(), layer]);
    assert_eq!(store.problems().len(), 2, "{:?}", store.problems());
    assert!(place.data_dir(&base).join("content").exists());
    assert_eq!(kind(store.delete(top.as_str())), ErrorKind::InUse);
    add_image(&store, 1, None);
    assert!(store.has_children(&base));
    // What others stand on is put aside rather than removed.
    assert_eq!(store.quarantined().unwrap().len(), 2);
    drop(store);
    assert!(place.open().problems().is_empty());
}

#[test]
fn a_circle_of_parents_is_reported() {
    let place = Place::new();
    let [base, top, layer] = three(&place);
    let text = record(&base, &format!(", \"parent\": \"{top}\""));
    place.put(&place.record_dir(&base).join("layer.json"), &text);
    let store = place.open();
    assert_eq!(store.list().len(), 3);
    let subjects: Vec<_> = store.problems().into_iter().map(|problem| problem.subject).collect();
    let expected = [&base, &top, &layer].map(|id| format!("layer {id}"));
    assert!(expected.iter().all(|subject| subjects.contains(subject)), "{subjects:?}");
    assert_eq!(kind(store.delete(top.as_str())), ErrorKind::InUse);
}

#[test]
fn incomplete_layers_below_one_that_is_left_alone_are_left_alone_too() {
    let place = Place::new();
    let [base, top, layer] = three(&place);
    let below = format!(", \"parent\": \"{base}\", \"incompelte\": true");
    place.put(&place.record_dir(&base).join("layer.json"), &record(&base, ", \"incompelte\": true"));
    place.put(&place.record_dir(&top).join("layer.json"), &record(&top, &below));
    let store = place.open();
    assert_eq!(ids(&store), [layer]);
    for id in [&base, &top] {
        assert!(place.data_dir(id).join("content").exists(), "{id}");
    }
    assert_eq!(store.problems().len(), 3, "{:?}", store.problems());
}

#[test]
fn what_does_not_parse_or_contradicts_its_place_is_put_aside_and_the_rest_works() {
    let other = id(77);
    let table = [
        ("empty", String::new()),
        ("truncated", format!("{{\"id\": \"{}\"", id(3))),
        ("no object", "[]".to_owned()),
        ("no id", "{}".to_owned()),
        ("other id", record(&other, "")),
        ("wrong number", record(&id(3), ", \"diff-size\": 1.5")),
        ("own parent", record(&id(3), &format!(", \"parent\": \"{}\"", id(3)))),
        ("parent outside", record(&id(3), ", \"parent\": \"../../etc\"")),
    ];
    for (what, text) in table {
        let place = Place::new();
        let [base, top, layer] = three(&place);
        place.put(&place.data_dir(&layer).join("content"), "a user's data");
        place.put(&place.record_dir(&layer).join("layer.json"), &text);
        let store = place.open();
        assert_eq!(ids(&store), [base, top.clone()], "{what}");
        let problems = reasons(&store);
        assert!(problems[0].1, "{what}: {problems:?}");
        assert_eq!(store.problems()[0].subject, format!("layer {layer}"), "{what}");
        let aside = store.quarantined().unwrap();
        assert_eq!((aside.len(), aside[0].name.as_str()), (1, layer.as_str()), "{what}");
        assert_eq!(std::fs::read_to_string(aside[0].path.join("layer.json")).unwrap(), text, "{what}");
        assert!(!place.record_dir(&layer).exists(), "{what}");
        // The data stay where they are, for layers may stand on them; making the layer again puts them aside, too.
        let data = place.data_dir(&layer).join("content");
        assert_eq!(std::fs::read_to_string(data).unwrap(), "a user's data", "{what}");
        add_container(&store, 3, 2);
        let aside = store.quarantined().unwrap();
        assert_eq!(
            std::fs::read_to_string(aside[1].path.join("content")).unwrap(),
            "a user's data",
            "{what}"
        );
        drop(store);
        let store = place.open();
        assert_eq!((store.problems(), store.list().len()), (Vec::new(), 3), "{what}");
    }
}

#[test]
fn a_record_directory_without_a_record_is_put_aside_unless_it_is_empty() {
    let place = Place::new();
    place.open().close().unwrap();
    std::fs::create_dir(place.record_dir(&id(1))).unwrap();
    place.put(&place.record_dir(&id(2)).join(format!("{}.tar-split.gz", id(2))), "");
    place.put(&place.record_dir(&id(3)).join(".tmp-layer.json-0123456789"), "{");
    place.put(&place.record_dir(&id(4)).join(format!("{}.tar-split.gz", id(4))), "something");
    let store = place.open();
    for number in 1..=4 {
        assert!(!place.record_dir(&id(number)).exists(), "{number}");
    }
    let aside = store.quarantined().unwrap();
    assert_eq!(aside.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), [id(4).as_str()]);
    assert_eq!(store.problems().len(), 1);
}

#[test]
fn strange_names_are_left_alone_and_reported() {
    let place = Place::new();
    let [base, ..] = three(&place);
    let layers = place.path("root/vfs-layers");
    let upper = "A".repeat(64);
    for name in ["l", "RO", upper.as_str(), ".hidden"] {
        place.put(&layers.join(name).join("layer.json"), "x");
    }
    place.put(&layers.join("file"), "x");
    place.put(&layers.join("f".repeat(64)), "x");
    std::os::unix::fs::symlink(place.record_dir(&base), layers.join("e".repeat(64))).unwrap();
    let before = tree(&layers);
    let store = place.open();
    assert_eq!(store.list().len(), 3);
    assert_eq!(tree(&layers), before);
    let mut subjects: Vec<_> = store.problems().into_iter().map(|problem| problem.subject).collect();
    subjects.sort();
    let mut expected: Vec<_> = ["l", "RO", &upper, ".hidden", "file", &"f".repeat(64), &"e".repeat(64)]
        .iter()
        .map(|name| layers.join(name).display().to_string())
        .collect();
    expected.sort();
    assert_eq!(subjects, expected);
    assert!(reasons(&store).iter().all(|(_, quarantined)| !quarantined));
}

#[test]
fn missing_pieces_are_reported_and_nothing_is_removed() {
    let place = Place::new();
    let [base, top, layer] = three(&place);
    std::fs::remove_file(place.record_dir(&top).join(format!("{top}.tar-split.gz"))).unwrap();
    std::fs::remove_dir_all(place.data_dir(&layer)).unwrap();
    std::fs::remove_dir_all(place.data_dir(&base)).unwrap();
    std::fs::create_dir(place.data_dir(&id(9))).unwrap();
    let before = tree(&place.path("root/vfs-layers"));
    let store = place.open();
    assert_eq!(ids(&store), [top.clone(), layer.clone()]);
    assert_eq!(tree(&place.path("root/vfs-layers")), before);
    let mut found: Vec<_> =
        store.problems().into_iter().map(|problem| (problem.subject, problem.reason)).collect();
    found.sort();
    let mut expected = vec![
        (format!("layer {base}"), "its data are missing".to_owned()),
        (format!("layer {}", id(9)), "the driver has data of it, but there is no record".to_owned()),
        (format!("layer {layer}"), "its data are missing; it is listed, but cannot be mounted".to_owned()),
        (
            format!("layer {top}"),
            "it has no tar-split stream: it can be neither checked nor exported".to_owned(),
        ),
        (format!("layer {top}"), format!("its parent {base} is not in the store")),
    ];
    expected.sort();
    assert_eq!(found, expected);
    // A disk that was missing is there again.
    drop(store);
    std::fs::create_dir(place.data_dir(&base)).unwrap();
    assert_eq!(ids(&place.open()), [base, top, layer]);
}

/// In the reference this store never starts again.
#[test]
fn the_later_of_two_layers_loses_a_name_that_both_claim() {
    let place = Place::new();
    let store = place.open();
    store.create(&id(2), &named(&["shared", "two"]), None).unwrap();
    store.create(&id(1), &named(&["one"]), None).unwrap();
    drop(store);
    let file = place.record_dir(&id(1)).join("layer.json");
    let text = std::fs::read_to_string(&file).unwrap().replace("\"one\"", "\"one\",\n        \"shared\"");
    place.put(&file, &text);
    let store = place.open();
    assert_eq!(ids(&store), [id(2), id(1)]);
    assert_eq!(store.find("shared").unwrap().id, id(2));
    assert_eq!(store.find("one").unwrap().names, ["one"]);
    assert_eq!(store.problems().len(), 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    // The loser goes, the name stays with the winner; the winner goes, the name is free.
    store.delete("one").unwrap();
    assert_eq!(store.find("shared").unwrap().id, id(2));
    store.delete("shared").unwrap();
    store.create(&id(3), &named(&["shared"]), None).unwrap();
}

#[test]
fn mounted_containers_are_mounted_again_with_one_count() {
    let place = Place::new();
    let [base, top, layer] = three(&place);
    let path = place.data_dir(&layer).join("merged");
    let saved = |count: i32| format!("{{\n    \"count\": {count},\n    \"path\": \"/other/merged\"\n}}\n");
    let expected =
        |count: i32| format!("{{\n    \"count\": {count},\n    \"path\": \"{}\"\n}}\n", path.display());
    // After a reboot: not mounted any more.
    place.put(&place.run_file(&layer), &saved(2));
    // Image layers are not mounted again.
    place.put(&place.run_file(&base), &saved(1));
    let store = place.open();
    assert_eq!(*place.world.mounted.lock(), [layer.clone()].into());
    assert_eq!(store.find(layer.as_str()).unwrap().mount_count, 1);
    assert_eq!(store.find(layer.as_str()).unwrap().mount_point, Some(path.clone()));
    assert_eq!(std::fs::read_to_string(place.run_file(&layer)).unwrap(), expected(1));
    assert_eq!(store.find(base.as_str()).unwrap().mount_count, 0);
    assert!(store.find(base.as_str()).unwrap().mount_point.is_some());
    assert_eq!(store.find(top.as_str()).unwrap().mount_point, None);
    // After a restart of the process: still mounted.
    drop(store);
    place.world.take_trace();
    let store = place.open();
    assert!(place.world.take_trace().is_empty());
    assert_eq!(store.find(layer.as_str()).unwrap().mount_count, 1);
}

/// In the reference both cost the container its data.
#[test]
fn a_mount_that_fails_or_a_broken_mount_state_condemns_nothing() {
    let place = Place::new();
    let [_, _, layer] = three(&place);
    place.put(&place.run_file(&layer), "{\"count\": 2}");
    place.world.fail("mount", Fault::Before(ErrorKind::Unsupported));
    let store = place.open();
    assert_eq!(store.list().len(), 3);
    assert_eq!(store.find(layer.as_str()).unwrap().mount_count, 0);
    assert_eq!(store.problems().len(), 1);
    assert!(!std::fs::read_to_string(place.run_file(&layer)).unwrap().contains("count"));
    drop(store);

    for (mounted, count) in [(false, 0), (true, 1)] {
        place.put(&place.run_file(&layer), "{\"count\": ");
        if mounted {
            place.world.mounted.lock().insert(layer.clone());
        }
        let store = place.open();
        assert_eq!(store.find(layer.as_str()).unwrap().mount_count, count);
        assert_eq!(store.problems().len(), 1);
        drop(store);
        assert!(place.open().problems().is_empty(), "it was written anew");
    }
}

#[test]
fn one_process_owns_a_store_and_the_driver_is_not_touched_without_the_lock() {
    let place = Place::new();
    let store = place.open();
    let mut opened = false;
    let second = LayerStore::open_with(place.options(Ownership::Owner), |_| {
        opened = true;
        Err(Error::invalid("not reached"))
    });
    let error = second.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains(&format!("in use by pid {}", std::process::id())), "{}", error.report());
    assert!(!opened);
    store.close().unwrap();
    // The closed one still exists.
    let again = place.open();
    assert!(store.list().is_empty());
    drop(again);
    assert_eq!(kind(place.try_open(Ownership::Shared)), ErrorKind::InvalidArgument);
}

#[test]
fn a_failed_opening_holds_nothing_and_can_be_tried_again() {
    let place = Place::new();
    let failed = LayerStore::open_with(place.options(Ownership::Owner), |_| {
        Err(Error::new(ErrorKind::Unsupported, "no such kernel"))
    });
    assert_eq!(kind(failed), ErrorKind::Unsupported);
    // After the driver was opened.
    place.world.fail("layers", Fault::Before(ErrorKind::Os(libc::EIO)));
    assert_eq!(kind(place.try_open(Ownership::Owner)), ErrorKind::Os(libc::EIO));
    assert_eq!(place.world.take_trace(), ["clean up"]);
    place.open().close().unwrap();
}

#[test]
fn after_close_nothing_is_found_and_nothing_changed() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    store.close().unwrap();
    store.close().unwrap();
    let one = id(1);
    assert!(store.list().is_empty() && store.find(one.as_str()).is_none() && !store.exists(one.as_str()));
    let refused = [
        kind(store.create(&one, &CreateLayer::default(), None)),
        kind(store.delete(one.as_str())),
        kind(store.mount(one.as_str())),
        kind(store.unmount(one.as_str(), false)),
        kind(store.check(one.as_str())),
        kind(store.export(one.as_str(), &mut Vec::new())),
        kind(store.hold(&one)),
        kind(store.usage(&one)),
        kind(store.metadata(&one)),
        kind(store.status()),
        kind(store.quarantined()),
        kind(store.restore(&one)),
    ];
    assert_eq!(refused, [ErrorKind::NotReady; 12]);
    assert_eq!(ids(&place.open()), [one]);
}

#[test]
fn thousands_of_records_are_read_in_several_threads_and_listed_in_order() {
    let place = Place::new();
    place.open().close().unwrap();
    let count = 2_100;
    for number in 0..count {
        let time = format!("2026-01-01T00:00:00.{:09}Z", count - number);
        let text = format!("{{\"id\": \"{}\", \"created\": \"{time}\", \"writable\": true}}", id(number));
        place.put(&place.record_dir(&id(number)).join("layer.json"), &text);
        std::fs::create_dir(place.data_dir(&id(number))).unwrap();
    }
    let store = place.open();
    let expected: Vec<_> = (0..count).rev().map(id).collect();
    assert_eq!(ids(&store), expected);
    assert!(store.problems().is_empty());
}
