// SPDX-License-Identifier: MulanPSL-2.0
//! One image store in several hands: owners, processes that share it, readers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;
mod images;

use common::TestRoot;
use images::{ids, open, open_as, options, sample, snapshot, strings};
use isula_storage::error::{ErrorKind, Result};
use isula_storage::image::{CreateImage, ImageStore, ImageStoreOptions};
use isula_storage::persist::Ownership;
use isula_storage::time::Timestamp;

fn root() -> TestRoot {
    TestRoot::in_memory("image-shared")
}

#[test]
fn a_store_has_one_owner() {
    let root = root();
    let owner = open(root.path());
    let error = ImageStore::open(options(root.path(), Ownership::Owner)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().ends_with(&format!("in use by pid {}", std::process::id())), "{}", error.report());
    drop(owner);
    drop(open(root.path()));
}

#[test]
fn two_that_share_a_store_see_each_others_changes_at_the_next_call() {
    let root = root();
    let one = open_as(root.path(), Ownership::Shared);
    let two = open_as(root.path(), Ownership::Shared);
    let (a, b) = (sample(1), sample(2));
    a.store(&one, &["a:1"]);
    assert_eq!(two.lookup("a:1").unwrap().as_str(), a.id);
    assert_eq!(two.config("a:1").unwrap().os, "linux");
    b.store(&two, &["b:1"]);
    assert_eq!(ids(&one), [a.id.clone(), b.id.clone()]);
    one.add_name("b:1", "a:1").unwrap();
    assert_eq!(two.names("b:1").unwrap(), ["a:1", "b:1"]);
    assert_eq!(two.names(&a.id).unwrap(), [""; 0]);
    // Each changes another member of one record: neither change is lost.
    one.set_size(&a.id, 5).unwrap();
    two.set_metadata(&a.id, "m").unwrap();
    one.add_name(&a.id, "c:1").unwrap();
    let record = two.get("c:1").unwrap();
    assert_eq!((record.size, record.metadata.as_deref()), (5, Some("m")));
    assert!(two.delete("b:1").unwrap());
    assert_eq!(one.count().unwrap(), 1);
    assert!(!one.exists("b:1"));
    assert_eq!(one.create(&a.request(&[])).unwrap_err().kind(), ErrorKind::AlreadyExists);
    drop((one, two));
    let again = open(root.path());
    assert_eq!(again.problems(), []);
    assert_eq!(*again.get(&a.id).unwrap(), *record);
}

#[test]
fn an_image_that_is_being_made_is_not_lost_when_others_change_the_store() {
    let root = root();
    let one = open_as(root.path(), Ownership::Shared);
    let two = open_as(root.path(), Ownership::Shared);
    let (a, b) = (sample(1), sample(2));
    one.create(&a.request(&["a:1"])).unwrap();
    assert!(!two.exists("a:1"), "not complete yet");
    b.store(&two, &["b:1"]);
    assert!(one.exists("b:1") && one.exists("a:1"));
    one.set_big_data("a:1", &a.config_key(), a.config.as_bytes()).unwrap();
    two.set_size("b:1", 1).unwrap();
    one.set_big_data("a:1", "manifest", a.manifest.as_bytes()).unwrap();
    assert_eq!(ids(&two), [a.id.as_str(), b.id.as_str()]);
}

#[test]
fn records_alone_are_shared_if_the_store_is_opened_so() {
    let root = root();
    let open = || {
        let options = options(root.path(), Ownership::Shared);
        ImageStore::open(ImageStoreOptions { list_incomplete: true, ..options }).unwrap()
    };
    let (one, two) = (open(), open());
    let image = sample(1);
    one.create(&image.request(&["a:1"])).unwrap();
    assert_eq!(two.lookup("a:1").unwrap().as_str(), image.id);
    assert_eq!(two.create(&image.request(&[])).unwrap_err().kind(), ErrorKind::AlreadyExists);
    two.set_metadata("a:1", "m").unwrap();
    assert_eq!(one.metadata("a:1").unwrap().as_deref(), Some("m"));
    drop((one, two));
    assert!(open().exists("a:1"));
}

#[test]
fn many_that_share_a_store_lose_nothing() {
    let root = root();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let root = &root;
            scope.spawn(move || {
                let store = open_as(root.path(), Ownership::Shared);
                for round in 0..8 {
                    let image = sample(thread * 100 + round);
                    image.store(&store, &[&format!("t{thread}r{round}:1")]);
                    store.add_name(&image.id, "shared:1").unwrap();
                    assert!(store.exists("shared:1"));
                }
            });
        }
    });
    let store = open(root.path());
    assert_eq!(store.count().unwrap(), 32);
    assert_eq!(store.problems(), []);
    assert_eq!(store.check().unwrap(), []);
    let holders = store.list().unwrap().iter().filter(|image| image.names.len() == 2).count();
    assert_eq!(holders, 1);
}

#[test]
fn a_reader_sees_what_an_owner_did_before() {
    let root = root();
    let owner = open(root.path());
    let reader = open_as(root.path(), Ownership::ReadOnly);
    let (a, b) = (sample(1), sample(2));
    a.store(&owner, &["a:1"]);
    // Incomplete for a start, so not there for another process.
    owner.create(&b.request(&["b:1"])).unwrap();
    assert_eq!(ids(&reader), [a.id.as_str()]);
    assert_eq!(reader.big_data("a:1", "manifest").unwrap(), a.manifest.as_bytes());
    owner.set_names(&a.id, &strings(&["c:1"])).unwrap();
    assert!(reader.exists("c:1") && !reader.exists("a:1"));
    owner.delete("c:1").unwrap();
    assert_eq!(ids(&reader), [""; 0]);
    // A later owner, after one that was lost.
    drop(owner);
    let owner = open(root.path());
    a.store(&owner, &["a:1"]);
    assert_eq!(ids(&reader), [a.id]);
}

#[test]
fn a_reader_never_sees_a_name_on_two_images_or_on_none() {
    let root = root();
    let owner = open(root.path());
    let (a, b) = (sample(1), sample(2));
    a.store(&owner, &["name:1"]);
    b.store(&owner, &["other:1"]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200 {
                let image = if round % 2 == 0 { &b } else { &a };
                owner.add_name(&image.id, "name:1").unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..50 {
                let reader = open_as(root.path(), Ownership::ReadOnly);
                assert!(reader.exists("name:1"));
                let holders =
                    reader.list().unwrap().iter().filter(|i| i.names.contains(&"name:1".into())).count();
                assert_eq!((holders, reader.count().unwrap()), (1, 2));
            }
        });
    });
}

#[test]
fn whoever_shares_a_store_may_read_beside_an_owner_but_not_write() {
    let root = root();
    let owner = open(root.path());
    let image = sample(1);
    image.store(&owner, &["a:1"]);
    let other = open_as(root.path(), Ownership::Shared);
    assert!(other.exists("a:1"));
    let error = other.set_size("a:1", 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains("in use by pid"), "{}", error.report());
    drop(owner);
    other.set_size("a:1", 1).unwrap();
    assert_eq!(open(root.path()).get("a:1").unwrap().size, 1);
}

/// A writer that was killed half-way leaves an odd counter: others must not wait for it for ever.
#[test]
fn a_change_that_was_never_finished_does_not_block_others() {
    let root = root();
    let image = sample(1);
    image.store(&open(root.path()), &["a:1"]);
    let generation = root.join(".isula-storage/generation");
    for content in ["00000000000000000007\n", "", "garbage", "99999999999999999999999999"] {
        std::fs::write(&generation, content).unwrap();
        let reader = open_as(root.path(), Ownership::ReadOnly);
        let shared = open_as(root.path(), Ownership::Shared);
        for store in [&reader, &shared] {
            assert_eq!(ids(store), [image.id.as_str()], "{content:?}");
        }
        std::fs::write(&generation, content).unwrap();
        shared.set_metadata("a:1", content.trim()).unwrap();
        assert_eq!(reader.metadata("a:1").unwrap().as_deref(), Some(content.trim()));
    }
}

#[test]
fn a_store_opened_for_reading_only_is_never_written() {
    let root = root();
    let image = sample(1);
    let owner = open(root.path());
    image.store(&owner, &["docker.io/library/a:1"]);
    let entry = owner.quarantine(&image.id, "test").unwrap();
    image.store(&owner, &["docker.io/library/a:1"]);
    drop(owner);
    std::fs::write(root.join(&image.id).join("extra"), "data").unwrap();
    let before = snapshot(root.path());
    let store = open_as(root.path(), Ownership::ReadOnly);
    let time = Timestamp::now();
    let id = image.id.as_str();
    let writers: Vec<(&str, Result<()>)> = vec![
        ("create", store.create(&CreateImage::default()).map(drop)),
        ("set_names", store.set_names(id, &strings(&["x:1"]))),
        ("add_name", store.add_name(id, "x:1")),
        ("delete", store.delete(id).map(drop)),
        ("wipe", store.wipe()),
        ("save", store.save()),
        ("set_loaded", store.set_loaded(id, time)),
        ("set_metadata", store.set_metadata(id, "m")),
        ("set_size", store.set_size(id, 1)),
        ("set_big_data", store.set_big_data(id, "k", b"d")),
        ("quarantine", store.quarantine(id, "r").map(drop)),
        ("restore", store.restore(&entry)),
        ("purge", store.purge(&entry)),
    ];
    for (what, result) in writers {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly, "{what}");
    }
    assert_eq!(store.names(id).unwrap(), ["a:1"]);
    assert_eq!(store.big_data_size(id, "extra").unwrap(), 4, "answered without recording it");
    assert!(store.big_data_digest(id, "extra").unwrap().starts_with("sha256:"));
    assert_eq!(store.big_data_names(id).unwrap().len(), 2);
    store.load().unwrap();
    store.check().unwrap();
    store.usage().unwrap();
    assert_eq!(store.quarantined().unwrap(), [entry]);
    drop(store);
    assert_eq!(snapshot(root.path()), before);
}

#[test]
fn a_store_of_another_program_can_be_read_without_leaving_a_trace() {
    let root = root();
    sample(1).store(&open(root.path()), &["a:1"]);
    std::fs::remove_dir_all(root.join(".isula-storage")).unwrap();
    let before = snapshot(root.path());
    let store = open_as(root.path(), Ownership::ReadOnly);
    assert!(store.exists("a:1"));
    assert_eq!(store.quarantined().unwrap(), []);
    drop(store);
    assert_eq!(snapshot(root.path()), before);
}

#[test]
fn two_stores_in_one_process_know_nothing_of_each_other() {
    let (one, two) = (root(), root());
    let (a, b) = (open(one.path()), open(two.path()));
    sample(1).store(&a, &["a:1"]);
    sample(1).store(&b, &["b:1"]);
    assert!(a.exists("a:1") && !a.exists("b:1"));
    assert!(b.exists("b:1") && !b.exists("a:1"));
    a.wipe().unwrap();
    assert_eq!((a.count().unwrap(), b.count().unwrap()), (0, 1));
}
