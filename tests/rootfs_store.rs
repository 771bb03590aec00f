// SPDX-License-Identifier: MulanPSL-2.0
//! The rootfs store: what callers ask of it, and what it makes of what it finds on disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::TestRoot;
use isula_storage::error::{Error, ErrorKind};
use isula_storage::id::ContainerId;
use isula_storage::persist::{Durability, Ownership};
use isula_storage::record::rootfs::RootfsRecord;
use isula_storage::rootfs::{CreateRootfs, IdMap, RootfsStore, RootfsStoreOptions};

fn try_open(root: &TestRoot, ownership: Ownership) -> Result<RootfsStore, Error> {
    let dir = root.join("overlay-containers");
    RootfsStore::open(RootfsStoreOptions { dir, ownership, durability: Durability::Full })
}

fn open(root: &TestRoot) -> RootfsStore {
    try_open(root, Ownership::Owner).unwrap_or_else(|error| panic!("{}", error.report()))
}

fn hex(text: &str) -> String {
    text.repeat(64).chars().take(64).collect()
}

fn id(text: &str) -> ContainerId {
    ContainerId::new(&hex(text)).unwrap()
}

fn new(text: &str) -> CreateRootfs {
    CreateRootfs { id: Some(id(text)), layer: hex(text), image: Some(hex("ee")), ..CreateRootfs::default() }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn record_path(root: &TestRoot, id: &str) -> PathBuf {
    root.join("overlay-containers").join(id).join("container.json")
}

/// A container's directory as somebody else left it.
fn plant(root: &TestRoot, id: &str, text: &[u8]) {
    let path = record_path(root, id);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn ids(store: &RootfsStore) -> Vec<String> {
    store.list().unwrap().iter().map(|record| record.id.clone().unwrap()).collect()
}

fn reasons(store: &RootfsStore) -> Vec<(String, String, bool)> {
    let problems = store.problems().into_iter();
    problems.map(|problem| (problem.subject, problem.reason, problem.quarantined)).collect()
}

/// Every file below, with its content.
fn tree(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![path.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                dirs.push(path);
            } else if path.file_name().unwrap() != "lock" {
                found.push((path.clone(), fs::read(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_container_is_made_found_changed_and_deleted_and_a_restart_finds_it_again() {
    let root = TestRoot::in_memory("rootfs");
    let store = open(&root);
    assert_eq!(store.dir(), root.join("overlay-containers"));
    let request = CreateRootfs {
        names: strings(&["b", "a", "b"]),
        metadata: Some("{}".into()),
        uid_map: vec![
            IdMap { container_id: 0, host_id: 1000, size: 10 },
            IdMap { container_id: 10, host_id: 0, size: 1 },
        ],
        gid_map: vec![IdMap { container_id: 5, host_id: 6, size: 7 }],
        ..new("a1")
    };
    assert_eq!(store.create(&request).unwrap(), id("a1"));
    let record = store.get(&hex("a1")).unwrap();
    assert_eq!(record.names, ["a", "b"], "sorted and unique");
    assert_eq!(record.uid_map, request.uid_map, "every range is its own");
    assert_eq!(record.gid_map, request.gid_map);
    assert_eq!(record.metadata.as_deref(), Some("{}"));
    assert!(record.created.as_deref().is_some_and(|time| time.len() == 35), "{record:?}");

    let path = record_path(&root, &hex("a1"));
    assert_eq!(RootfsRecord::parse(&fs::read(&path).unwrap()).unwrap(), *record);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(store.dir()).unwrap().permissions().mode() & 0o7777, 0o700);

    store.set_metadata(&hex("a1"), "text").unwrap();
    assert_eq!(store.get(&hex("a1")).unwrap().metadata.as_deref(), Some("text"));
    let random = store.create(&CreateRootfs { id: None, layer: "some-layer".into(), ..new("b") }).unwrap();
    assert!(isula_storage::id::is_canonical(random.as_str()));
    assert_eq!(ids(&store), [hex("a1"), random.to_string()]);
    let before = store.list().unwrap();
    drop(store);

    let store = open(&root);
    assert_eq!(store.list().unwrap(), before);
    assert!(store.problems().is_empty() && store.unfinished().is_empty());
    assert!(store.delete("some-layer").unwrap(), "by its layer");
    assert!(!store.delete("some-layer").unwrap(), "unknown is fine");
    assert_eq!(ids(&store), [hex("a1")]);
    store.create(&new("c")).unwrap();
    store.wipe().unwrap();
    assert!(store.list().unwrap().is_empty());
    drop(store);
    let store = open(&root);
    assert!(store.list().unwrap().is_empty() && store.quarantined().unwrap().is_empty());
}

#[test]
fn a_container_is_found_by_id_then_layer_then_unique_short_id_and_never_by_name() {
    let root = TestRoot::in_memory("rootfs");
    let store = open(&root);
    // The second has the first one's id as the id of its layer.
    let requests = [("abcd", "1"), ("abce", &hex("abcd")), ("0123", "layer-3")];
    for (text, layer) in requests {
        let names = strings(&[&format!("name-{text}")]);
        store.create(&CreateRootfs { layer: layer.to_owned(), names, ..new(text) }).unwrap();
    }
    let found = |text: &str| store.lookup(text).ok().map(|id| id.as_str().get(..4).unwrap().to_owned());
    let cases = [
        (hex("abcd").as_str(), Some("abcd")),
        ("1", Some("abcd")),
        ("layer-3", Some("0123")),
        ("012", Some("0123")),
        ("abcda", Some("abcd")),
        ("abce", Some("abce")),
        ("abc", None),
        ("01", None),
        ("", None),
        ("0", None),
        ("name-abcd", None),
        ("ABC", None),
        ("layer", None),
        ("zzz", None),
    ]
    .map(|(text, expected)| (text.to_owned(), expected.map(str::to_owned)));
    for (text, expected) in cases {
        assert_eq!(found(&text), expected, "{text:?}");
        assert_eq!(store.exists(&text), expected.is_some(), "{text:?}");
        assert_eq!(store.get(&text).is_ok(), expected.is_some(), "{text:?}");
        if expected.is_none() {
            assert_eq!(store.lookup(&text).unwrap_err().kind(), ErrorKind::NotFound, "{text:?}");
            assert_eq!(store.set_metadata(&text, "m").unwrap_err().kind(), ErrorKind::NotFound, "{text:?}");
            assert!(!store.delete(&text).unwrap(), "{text:?}");
            assert!(store.begin_removal(&text).unwrap().is_none(), "{text:?}");
        }
    }
    let ambiguous = store.lookup("abc").unwrap_err().report();
    assert!(ambiguous.contains("short id abc is ambiguous"), "{ambiguous}");
    assert_eq!(store.list().unwrap().len(), 3, "nothing was deleted by what means nothing");
}

#[test]
fn what_is_taken_is_refused_and_nothing_is_touched() {
    let root = TestRoot::in_memory("rootfs");
    let store = open(&root);
    store.create(&CreateRootfs { names: strings(&["n"]), ..new("a") }).unwrap();
    let before = tree(root.path());
    let vacant = |_: &str| Ok(());
    let cases = [
        ("id", CreateRootfs { layer: "other".into(), ..new("a") }),
        ("layer", CreateRootfs { layer: hex("a"), ..new("b") }),
        ("name", CreateRootfs { names: strings(&["m", "n"]), ..new("b") }),
    ];
    for (what, request) in cases {
        let error = store.create(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{what}: {}", error.report());
        let error = store.begin(&request, vacant).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{what}: {}", error.report());
    }
    let vacant = |_: &str| Ok(());
    let bad = [
        ("layer empty", CreateRootfs { layer: String::new(), ..new("b") }),
        ("layer outside", CreateRootfs { layer: "../x".into(), ..new("b") }),
        ("NUL in metadata", CreateRootfs { metadata: Some("a\0b".into()), ..new("b") }),
        ("NUL in image", CreateRootfs { image: Some("a\0b".into()), ..new("b") }),
        ("NUL in a name", CreateRootfs { names: strings(&["a\0b"]), ..new("b") }),
    ];
    for (what, request) in bad {
        assert_eq!(store.create(&request).unwrap_err().kind(), ErrorKind::InvalidArgument, "{what}");
        assert_eq!(store.begin(&request, vacant).unwrap_err().kind(), ErrorKind::InvalidArgument, "{what}");
    }
    let large = CreateRootfs { metadata: Some("x".repeat(11 << 20)), ..new("b") };
    assert_eq!(store.create(&large).unwrap_err().kind(), ErrorKind::LimitExceeded);
    for bad in ["", ".", "../x", "a/b", ".hidden"] {
        assert!(ContainerId::new(bad).is_err(), "{bad:?}");
    }
    assert_eq!(tree(root.path()), before);
    // What was refused left no claim behind.
    store.create(&CreateRootfs { names: strings(&["m"]), ..new("b") }).unwrap();
    assert!(store.delete(&hex("a")).unwrap());
    store.create(&CreateRootfs { names: strings(&["n"]), ..new("a") }).unwrap();
    assert_eq!(ids(&store), [hex("b"), hex("a")]);
}

#[test]
fn a_record_is_saved_as_it_is_given() {
    let root = TestRoot::in_memory("rootfs");
    let store = open(&root);
    store.create(&new("a")).unwrap();
    store.create(&new("b")).unwrap();
    let old = RootfsRecord::clone(&*store.get(&hex("a")).unwrap());
    let changed = RootfsRecord {
        layer: Some("another".into()),
        names: strings(&["z"]),
        created: Some("2020-01-01T00:00:00Z".into()),
        uid_map: vec![IdMap { size: 3, ..IdMap::default() }],
        ..old
    };
    store.save(&changed).unwrap();
    assert_eq!(*store.get("another").unwrap(), changed);
    assert!(store.create(&CreateRootfs { layer: hex("a"), ..new("d") }).is_ok(), "its old layer is free");
    // One that is not in the store is made, as a restart of the reference would find it.
    let foreign = RootfsRecord { id: Some(hex("c")), layer: Some("third".into()), ..RootfsRecord::default() };
    store.save(&foreign).unwrap();
    assert_eq!(*store.get(&hex("c")).unwrap(), foreign);

    let before = tree(store.dir());
    let refused = [
        (RootfsRecord { id: None, ..foreign.clone() }, ErrorKind::InvalidArgument),
        (RootfsRecord { id: Some("../x".into()), ..foreign.clone() }, ErrorKind::InvalidArgument),
        (RootfsRecord { layer: None, ..foreign.clone() }, ErrorKind::InvalidArgument),
        (RootfsRecord { layer: Some("../x".into()), ..foreign.clone() }, ErrorKind::InvalidArgument),
        (RootfsRecord { created: Some("\0".into()), ..foreign.clone() }, ErrorKind::InvalidArgument),
        (RootfsRecord { layer: Some(hex("b")), ..foreign.clone() }, ErrorKind::AlreadyExists),
        (RootfsRecord { names: strings(&["z"]), ..foreign.clone() }, ErrorKind::AlreadyExists),
        (RootfsRecord { id: Some(hex("f")), layer: Some(hex("b")), ..foreign }, ErrorKind::AlreadyExists),
    ];
    for (record, kind) in refused {
        let error = store.save(&record).unwrap_err();
        assert_eq!(error.kind(), kind, "{record:?}: {}", error.report());
    }
    assert_eq!(tree(store.dir()), before);
    let listed = store.list().unwrap();
    drop(store);
    let mut again = open(&root).list().unwrap();
    let mut listed = listed;
    again.sort_by(|a, b| a.id.cmp(&b.id));
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(again, listed);
}

/// What the reference deletes together with the container's data, or does not start with.
#[test]
fn a_container_record_in_doubt_is_put_aside_and_the_rest_works() {
    let deep = "[".repeat(1_000_000);
    let huge = format!("{{\"id\":\"{}\"}}{}", hex("b"), " ".repeat(11 << 20));
    let good = |id: &str, layer: &str| format!("{{\"id\":\"{id}\",\"layer\":\"{layer}\"}}");
    let cases: &[(&str, Option<String>, &str, bool)] = &[
        ("empty", Some(String::new()), "read container record", true),
        ("cut", Some(good(&hex("b"), &hex("b"))[..30].to_owned()), "read container record", true),
        ("garbage", Some("\u{1}\u{2}garbage".into()), "read container record", true),
        ("deep", Some(deep), "recursion limit", true),
        ("huge", Some(huge), "bytes", true),
        ("missing", None, "its record is missing", true),
        ("no members", Some("{}".into()), "its record has no id", false),
        ("no id", Some(r#"{"layer":"x"}"#.into()), "its record has no id", false),
        ("no layer", Some(format!("{{\"id\":\"{}\"}}", hex("b"))), "its record names no layer", false),
        ("another id", Some(good(&hex("c"), "x")), "its record is that of container", false),
        ("layer outside", Some(good(&hex("b"), "../../etc")), "layer id", false),
    ];
    for (what, text, reason, broken) in cases {
        let root = TestRoot::in_memory("rootfs");
        open(&root).create(&new("a")).unwrap();
        match text {
            Some(text) => plant(&root, &hex("b"), text.as_bytes()),
            None => fs::create_dir(root.join("overlay-containers").join(hex("b"))).unwrap(),
        }
        // A reader touches nothing.
        let reader = try_open(&root, Ownership::ReadOnly);
        assert_eq!(reader.map_err(|error| error.kind()).err(), None, "{what}");
        assert_eq!(record_path(&root, &hex("b")).exists(), text.is_some(), "{what}");

        let store = open(&root);
        assert_eq!(ids(&store), [hex("a")], "{what}");
        let problems = reasons(&store);
        assert_eq!(problems.len(), 1, "{what}: {problems:?}");
        assert_eq!(problems[0].0, format!("container {}", hex("b")), "{what}");
        assert!(problems[0].1.contains(reason) && problems[0].2, "{what}: {problems:?}");
        assert_eq!(store.broken(), if *broken { vec![id("b")] } else { vec![] }, "{what}");
        let aside = store.quarantined().unwrap();
        assert_eq!(aside.len(), 1, "{what}");
        assert_eq!(aside[0].name, hex("b"), "{what}");
        let kept = fs::read(aside[0].path.join("container.json")).ok();
        assert_eq!(kept.as_deref(), text.as_ref().map(String::as_bytes), "{what}: kept as it was");
        assert_eq!(store.restore(&aside[0]).unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
        // Making it again heals.
        store.create(&new("b")).unwrap();
        drop(store);
        let store = open(&root);
        assert_eq!(ids(&store), [hex("a"), hex("b")], "{what}");
        assert!(store.problems().is_empty(), "{what}: {:?}", store.problems());
        assert_eq!(store.quarantined().unwrap().len(), 1, "{what}: kept until somebody gives it up");
        store.purge(&aside[0]).unwrap();
        assert_eq!(store.quarantined().unwrap(), [], "{what}");
    }
}

#[test]
fn a_mended_record_can_be_taken_back() {
    let root = TestRoot::in_memory("rootfs");
    let store = open(&root);
    store.create(&CreateRootfs { names: strings(&["n", "o"]), ..new("a") }).unwrap();
    let text = fs::read(record_path(&root, &hex("a"))).unwrap();
    fs::write(record_path(&root, &hex("a")), "{").unwrap();
    drop(store);
    let store = open(&root);
    let aside = store.quarantined().unwrap().remove(0);
    fs::write(aside.path.join("container.json"), &text).unwrap();
    // Layer and id have to be free; a name that another has by now stays there.
    store.create(&CreateRootfs { id: Some(id("b")), ..new("a") }).unwrap();
    assert_eq!(store.restore(&aside).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(store.delete(&hex("b")).unwrap());
    store.create(&CreateRootfs { names: strings(&["n"]), ..new("b") }).unwrap();
    store.restore(&aside).unwrap();
    assert_eq!(store.get(&hex("a")).unwrap().names, ["o"]);
    assert_eq!(store.quarantined().unwrap(), []);
    let put = store.quarantine(&hex("a"), "by hand").unwrap();
    assert_eq!((put.name.as_str(), put.reason.as_str()), (hex("a").as_str(), "by hand"));
    assert!(!store.exists(&hex("a")));
    assert_eq!(store.quarantine("unknown", "x").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn names_that_are_no_container_ids_and_links_are_left_alone_and_reported() {
    let root = TestRoot::in_memory("rootfs");
    let outside = TestRoot::in_memory("rootfs-outside");
    let good = format!("{{\"id\":\"{0}\",\"layer\":\"{0}\"}}", hex("b"));
    fs::write(outside.join("container.json"), &good).unwrap();
    drop(open(&root));
    let dir = root.join("overlay-containers");
    plant(&root, &format!("{}.bak", hex("b")), good.as_bytes());
    plant(&root, &hex("B"), good.as_bytes());
    plant(&root, "short", good.as_bytes());
    plant(&root, ".hidden", good.as_bytes());
    fs::write(dir.join(hex("c")), "a file").unwrap();
    symlink(outside.path(), dir.join(hex("b"))).unwrap();
    let before = tree(&dir);
    let store = open(&root);
    assert!(store.list().unwrap().is_empty());
    let problems = store.problems();
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert!(problems.iter().all(|problem| !problem.quarantined), "{problems:?}");
    assert_eq!(tree(&dir), before);
    // A link in the way of a new container is moved, never followed.
    store.create(&new("b")).unwrap();
    assert_eq!(fs::read_to_string(outside.join("container.json")).unwrap(), good);
    let aside = store.quarantined().unwrap();
    assert_eq!(aside.len(), 1);
    assert!(store.delete(&hex("b")).unwrap());
    let refused = store.restore(&aside[0]).unwrap_err();
    assert!(matches!(refused.errno(), 20 | 40), "ENOTDIR or ELOOP: {}", refused.report());
    assert!(store.list().unwrap().is_empty());
    assert_eq!(fs::read_to_string(outside.join("container.json")).unwrap(), good);
}

#[test]
fn of_two_containers_with_one_layer_or_name_the_later_loses_it_and_both_stay() {
    let root = TestRoot::in_memory("rootfs");
    let text = |id: &str, created: &str| {
        format!(
            "{{\"id\":\"{id}\",\"layer\":\"shared\",\"names\":[\"n\",\"{id}\"],\"created\":\"{created}\"}}"
        )
    };
    // By time, then by id.
    plant(&root, &hex("c"), text(&hex("c"), "2026-01-01T00:00:00.000000000+00:00").as_bytes());
    plant(&root, &hex("b"), text(&hex("b"), "2026-01-01T01:00:00.000000000+01:00").as_bytes());
    plant(&root, &hex("a"), text(&hex("a"), "2026-01-02T00:00:00.000000000+00:00").as_bytes());
    let before = tree(&root.join("overlay-containers"));
    let store = open(&root);
    assert_eq!(ids(&store), [hex("b"), hex("c"), hex("a")]);
    assert_eq!(store.lookup("shared").unwrap(), id("b"));
    assert_eq!(store.problems().len(), 4, "{:?}", store.problems());
    assert_eq!(store.get(&hex("b")).unwrap().names, ["n".to_owned(), hex("b")]);
    assert_eq!(store.get(&hex("a")).unwrap().names, [hex("a")]);
    assert_eq!(store.get(&hex("a")).unwrap().layer.as_deref(), Some("shared"), "what its record says");
    assert_eq!(tree(&root.join("overlay-containers")), before);
    // The layer is not to be deleted as long as another container has it.
    for (text, layer, left) in
        [("b", None, Some(id("c"))), ("c", None, Some(id("a"))), ("a", Some("shared"), None)]
    {
        let removal = store.begin_removal(&hex(text)).unwrap().unwrap();
        assert_eq!(removal.layer(), layer, "{text}");
        removal.finish().unwrap();
        assert_eq!(store.lookup("shared").ok(), left, "{text}");
    }
}

#[test]
fn an_interrupted_change_never_condemns_the_layer_of_another_container() {
    let text = |id: &str, layer: &str| format!("{{\"id\":\"{id}\",\"layer\":\"{layer}\"}}");
    let cases = [
        ("another container has the layer", hex("b"), text(&hex("b"), &hex("a"))),
        ("a container of its id is there", hex("a"), text(&hex("a"), "elsewhere")),
        ("its record is damaged", hex("b"), "{".to_owned()),
        ("its record is that of another", hex("b"), text(&hex("c"), "x")),
    ];
    for part in ["creating", "removing"] {
        for (what, id, text) in &cases {
            let root = TestRoot::in_memory("rootfs");
            open(&root).create(&new("a")).unwrap();
            let place = root.join(".isula-storage/overlay-containers").join(part).join(id);
            fs::create_dir(&place).unwrap();
            fs::write(place.join("container.json"), text).unwrap();
            let store = open(&root);
            assert!(store.unfinished().is_empty(), "{part}: {what}");
            assert_eq!(ids(&store), [hex("a")], "{part}: {what}");
            assert_eq!(store.problems().len(), 1, "{part}: {what}");
            assert_eq!(store.quarantined().unwrap().len(), 1, "{part}: {what}");
        }
        // One that is beyond doubt, for comparison; and one that got no further than its directory.
        let root = TestRoot::in_memory("rootfs");
        open(&root).create(&new("a")).unwrap();
        let place = root.join(".isula-storage/overlay-containers").join(part);
        fs::create_dir(place.join(hex("c"))).unwrap();
        fs::create_dir(place.join(hex("b"))).unwrap();
        fs::write(place.join(hex("b")).join("container.json"), text(&hex("b"), &hex("b"))).unwrap();
        let store = open(&root);
        assert_eq!(
            store.unfinished().iter().map(|r| r.layer.clone().unwrap()).collect::<Vec<_>>(),
            [hex("b")]
        );
        assert_eq!(store.settled(&id("c")).unwrap_err().kind(), ErrorKind::NotFound);
        store.settled(&id("b")).unwrap();
        assert!(store.unfinished().is_empty());
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
        store.create(&new("b")).unwrap();
        assert!(store.problems().is_empty() && store.quarantined().unwrap().is_empty());
    }
}

#[test]
fn records_of_the_reference_are_read_and_left_as_they_are() {
    let root = TestRoot::in_memory("rootfs");
    let golden = include_bytes!("golden/records/container.json");
    let record = RootfsRecord::parse(golden).unwrap();
    let golden_id = record.id.clone().unwrap();
    plant(&root, &golden_id, golden);
    // As old versions wrote it.
    let old = format!(
        "{{\"id\":\"{0}\",\"layer\":\"{0}\",\"flags\":{{\"MountLabel\":\"\"}},\"created\":\"2019-01-01T00:00:00Z\"}}",
        hex("9")
    );
    plant(&root, &hex("9"), old.as_bytes());
    let store = open(&root);
    assert_eq!(ids(&store), [hex("9"), golden_id.clone()], "in order of creation");
    assert_eq!(*store.get(&golden_id).unwrap(), record);
    assert_eq!(fs::read(record_path(&root, &golden_id)).unwrap(), golden);
    assert_eq!(fs::read_to_string(record_path(&root, &hex("9"))).unwrap(), old);
    store.set_metadata(&hex("9"), "m").unwrap();
    let new = fs::read_to_string(record_path(&root, &hex("9"))).unwrap();
    assert!(new.contains("\"metadata\": \"m\"") && !new.contains("flags"), "{new}");
    // Nothing of ours lies among the containers, where others may trip over it.
    assert_eq!(fs::read_dir(store.dir()).unwrap().count(), 2);
}

#[test]
fn leftovers_of_a_crash_of_the_reference_are_swept() {
    let root = TestRoot::in_memory("rootfs");
    open(&root).create(&new("a")).unwrap();
    let left = record_path(&root, &hex("a")).with_file_name(".tmp-container.json-0123456789");
    let kept = left.with_file_name(".tmp-of-somebody");
    fs::write(&left, "half").unwrap();
    fs::write(&kept, "x").unwrap();
    drop(try_open(&root, Ownership::ReadOnly).unwrap());
    assert!(left.exists());
    drop(open(&root));
    assert!(!left.exists() && kept.exists());
}

#[test]
fn a_reader_changes_nothing_and_an_owner_is_alone() {
    let root = TestRoot::in_memory("rootfs");
    assert_eq!(try_open(&root, Ownership::ReadOnly).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(try_open(&root, Ownership::Shared).unwrap_err().kind(), ErrorKind::InvalidArgument);
    // A store that only the reference has written.
    plant(&root, &hex("9"), format!("{{\"id\":\"{0}\",\"layer\":\"{0}\"}}", hex("9")).as_bytes());
    let before = tree(root.path());
    let reader = try_open(&root, Ownership::ReadOnly).unwrap();
    assert_eq!(ids(&reader), [hex("9")]);
    assert_eq!(reader.quarantined().unwrap(), []);
    assert_eq!(tree(root.path()), before);

    let owner = open(&root);
    let error = try_open(&root, Ownership::Owner).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains("in use by pid"), "{}", error.report());
    owner.create(&new("a")).unwrap();
    let before = tree(root.path());
    let reader = try_open(&root, Ownership::ReadOnly).unwrap();
    assert_eq!(reader.ownership(), Ownership::ReadOnly);
    assert_eq!(reader.list().unwrap(), owner.list().unwrap());
    let entry = owner.quarantine(&hex("9"), "x").unwrap();
    owner.restore(&entry).unwrap();
    let record = RootfsRecord::clone(&*reader.get(&hex("a")).unwrap());
    let refused = [
        reader.create(&new("b")).map(drop),
        reader.begin(&new("b"), |_| Ok(())).map(drop),
        reader.begin_removal(&hex("a")).map(drop),
        reader.delete(&hex("a")).map(drop),
        reader.wipe(),
        reader.set_metadata(&hex("a"), "m"),
        reader.save(&record),
        reader.settled(&id("a")),
        reader.quarantine(&hex("a"), "x").map(drop),
        reader.restore(&entry),
        reader.purge(&entry),
    ];
    for (number, result) in refused.into_iter().enumerate() {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly, "{number}");
    }
    assert_eq!(tree(root.path()), before);
    drop(owner);
    assert_eq!(ids(&open(&root)).len(), 2);
}

#[test]
fn a_record_that_is_no_file_is_put_aside_and_never_followed() {
    for what in ["link", "directory", "fifo"] {
        let root = TestRoot::in_memory("rootfs");
        open(&root).create(&new("a")).unwrap();
        let outside = root.join("outside");
        fs::write(&outside, format!("{{\"id\":\"{0}\",\"layer\":\"{0}\"}}", hex("b"))).unwrap();
        let dir = root.join("overlay-containers").join(hex("b"));
        fs::create_dir(&dir).unwrap();
        let record = dir.join("container.json");
        match what {
            "link" => symlink(&outside, record).unwrap(),
            "directory" => fs::create_dir(record).unwrap(),
            // Opening it for reading would wait for ever.
            _ => assert!(std::process::Command::new("mkfifo").arg(record).status().unwrap().success()),
        }
        let store = open(&root);
        assert_eq!(ids(&store), [hex("a")], "{what}");
        let problems = reasons(&store);
        assert!(problems.len() == 1 && problems[0].2, "{what}: {problems:?}");
        assert_eq!(store.broken(), [id("b")], "{what}");
        let aside = store.quarantined().unwrap().remove(0);
        assert!(fs::symlink_metadata(aside.path.join("container.json")).is_ok(), "{what}");
        assert!(store.restore(&aside).is_err(), "{what}");
        store.purge(&aside).unwrap();
        assert!(outside.exists(), "{what}");
    }
}
