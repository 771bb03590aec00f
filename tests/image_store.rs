// SPDX-License-Identifier: MulanPSL-2.0
//! What the image store does with images, names and big data, in memory and on disk.

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

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::TestRoot;
use images::{Sample, ids, open, sample, sample_with, snapshot, strings};
use isula_storage::digest::Digest;
use isula_storage::error::ErrorKind;
use isula_storage::id::ImageId;
use isula_storage::image::{CreateImage, MAX_BIG_DATA};
use isula_storage::record::image::ImageRecord;
use isula_storage::time::Timestamp;

fn root() -> TestRoot {
    TestRoot::in_memory("image-store")
}

fn record_of(root: &TestRoot, id: &str) -> String {
    std::fs::read_to_string(root.join(id).join("images.json")).unwrap()
}

fn names_below(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_image_is_recorded_as_the_reference_does() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    let created = Timestamp { seconds: 1_570_814_777, nanos: 800_168_778 };
    let request = CreateImage { created: Some(created), ..image.request(&["b:1", "a:1", "b:1"]) };
    assert_eq!(store.create(&request).unwrap().as_str(), image.id);

    let loaded = store.get(&image.id).unwrap().loaded.clone().unwrap();
    assert!(Timestamp::now().seconds - Timestamp::parse(&loaded).unwrap().seconds < 600);
    let wanted = format!(
        r#"{{
    "id": "{}",
    "digest": "{}",
    "names": [
        "a:1",
        "b:1"
    ],
    "layer": "{}",
    "created": "{}",
    "loaded": "{loaded}"
}}
"#,
        image.id,
        image.manifest_digest(),
        image.top_layer(),
        created.to_local_text().unwrap()
    );
    assert_eq!(record_of(&root, &image.id), wanted);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&root.join(&image.id)), 0o700);
    assert_eq!(mode(&root.join(&image.id).join("images.json")), 0o600);
    assert_eq!(mode(root.path()), 0o700);

    store.set_big_data(&image.id, &image.config_key(), image.config.as_bytes()).unwrap();
    store.set_big_data(&image.id, "manifest", image.manifest.as_bytes()).unwrap();
    store.set_metadata(&image.id, "{}").unwrap();
    store.set_loaded(&image.id, created).unwrap();
    store.set_size(&image.id, 305).unwrap();
    let wanted = format!(
        r#"{{
    "id": "{id}",
    "digest": "{digest}",
    "names": [
        "a:1",
        "b:1"
    ],
    "layer": "{}",
    "metadata": "{{}}",
    "big-data-names": [
        "sha256:{id}",
        "manifest"
    ],
    "big-data-sizes": {{
        "sha256:{id}": {},
        "manifest": {}
    }},
    "big-data-digests": {{
        "sha256:{id}": "sha256:{id}",
        "manifest": "{digest}"
    }},
    "created": "{time}",
    "loaded": "{time}",
    "size": 305
}}
"#,
        image.top_layer(),
        image.config.len(),
        image.manifest.len(),
        id = image.id,
        digest = image.manifest_digest(),
        time = created.to_local_text().unwrap(),
    );
    assert_eq!(record_of(&root, &image.id), wanted);
    let encoded = isula_storage::reference::big_data_file_name(&image.config_key());
    assert_eq!(names_below(&root.join(&image.id)), [encoded, "images.json".into(), "manifest".into()]);
    assert_eq!(mode(&root.join(&image.id).join("manifest")), 0o600);
}

#[test]
fn a_restart_finds_everything_again() {
    let root = root();
    let first = open(root.path());
    for number in 0..3 {
        sample(number).store(&first, &[&format!("n{number}:1")]);
    }
    first.set_metadata("n1:1", "text").unwrap();
    first.set_size("n1:1", 7).unwrap();
    let (records, summaries) = (first.list().unwrap(), first.summaries().unwrap());
    drop(first);
    let second = open(root.path());
    assert_eq!(second.list().unwrap(), records);
    assert_eq!(second.summaries().unwrap(), summaries);
    assert_eq!(second.count().unwrap(), 3);
    assert_eq!(second.problems(), []);
    assert_eq!(second.check().unwrap(), []);
    assert_eq!(second.metadata("n1:1").unwrap().as_deref(), Some("text"));
    let image = sample(1);
    assert_eq!(second.big_data("n1:1", "manifest").unwrap(), image.manifest.as_bytes());
    assert_eq!(second.config("n1:1").unwrap().os, "linux");
    assert_eq!(second.by_digest(&image.manifest_digest()).unwrap().len(), 1);
}

#[test]
fn an_id_or_a_name_is_given_once() {
    let root = root();
    let store = open(root.path());
    let (one, two) = (sample(1), sample(2));
    one.store(&store, &["a:1"]);
    let before = snapshot(root.path());
    assert_eq!(store.create(&one.request(&[])).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let error = store.create(&two.request(&["b:1", "a:1"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.report().contains("a:1") && error.report().contains(&one.id), "{}", error.report());
    assert_eq!(ids(&store), [one.id.as_str()]);
    assert!(!store.exists("b:1"));
    assert!(!root.join(&two.id).exists());
    let mut after = snapshot(root.path());
    after.insert(".isula-storage/generation".into(), before[".isula-storage/generation"].clone());
    assert_eq!(after, before);
}

#[test]
fn an_image_without_id_gets_a_random_one() {
    let root = root();
    let store = open(root.path());
    let ids: Vec<ImageId> = (0..2).map(|_| store.create(&CreateImage::default()).unwrap()).collect();
    assert!(ids.iter().all(|id| isula_storage::id::is_canonical(id.as_str())));
    assert_ne!(ids[0], ids[1]);
    let bare = store.get(ids[0].as_str()).unwrap();
    assert_eq!((bare.layer.as_ref(), bare.metadata.as_ref(), bare.digest.as_ref()), (None, None, None));
    assert_eq!(bare.created, bare.loaded);
}

#[test]
fn what_cannot_be_recorded_is_refused_and_changes_nothing() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    image.store(&store, &["a:1"]);
    let far = Timestamp { seconds: i64::MAX, nanos: 0 };
    let with = |request: CreateImage| store.create(&request).unwrap_err().kind();
    let base = CreateImage::default;
    assert_eq!(with(CreateImage { created: Some(far), ..base() }), ErrorKind::InvalidArgument);
    assert_eq!(with(CreateImage { metadata: Some("a\0b".into()), ..base() }), ErrorKind::InvalidArgument);
    assert_eq!(with(CreateImage { names: strings(&["a\0b"]), ..base() }), ErrorKind::InvalidArgument);
    let record = record_of(&root, &image.id);
    assert_eq!(store.set_loaded("a:1", far).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.set_metadata("a:1", "\0").unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.set_names("a:1", &[]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.set_names("a:1", &strings(&["x\0"])).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.add_name("a:1", "x\0").unwrap_err().kind(), ErrorKind::InvalidArgument);
    let huge = "x".repeat(isula_storage::json::MAX_TEXT);
    assert_eq!(store.set_metadata("a:1", &huge).unwrap_err().kind(), ErrorKind::LimitExceeded);
    for unknown in ["", "x", "aa", &"0".repeat(64)] {
        assert_eq!(store.set_metadata(unknown, "m").unwrap_err().kind(), ErrorKind::NotFound, "{unknown}");
        assert_eq!(store.set_size(unknown, 1).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.add_name(unknown, "n").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.set_big_data(unknown, "k", b"d").unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(record_of(&root, &image.id), record);
    assert_eq!(store.count().unwrap(), 1);
    assert_eq!(store.metadata("a:1").unwrap(), None);
}

#[test]
fn images_are_found_by_any_name() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    image.store(&store, &["h:5000/x:1"]);
    let digest = format!("h:5000/x@{}", image.manifest_digest());
    for name in [image.id.as_str(), "h:5000/x:1", &image.id[..3], &image.id[..63], &digest] {
        assert_eq!(store.lookup(name).unwrap().as_str(), image.id, "{name}");
        assert!(store.exists(name));
        assert_eq!(store.top_layer(name).unwrap(), Some(image.top_layer()));
        assert_eq!(store.names(name).unwrap(), ["h:5000/x:1"]);
    }
    for nothing in ["", "x", &image.id[..2], "h:5000/x", &format!("y@{}", image.manifest_digest())] {
        assert_eq!(store.lookup(nothing).unwrap_err().kind(), ErrorKind::NotFound, "{nothing}");
        assert!(!store.exists(nothing));
    }
}

#[test]
fn a_name_moves_and_both_records_show_it() {
    let root = root();
    let store = open(root.path());
    let (one, two) = (sample(1), sample(2));
    one.store(&store, &["a:1", "a:2", "a:3"]);
    two.store(&store, &["b:1"]);

    store.add_name(&two.id, "a:1").unwrap();
    assert_eq!(store.lookup("a:1").unwrap().as_str(), two.id);
    store.set_names(&two.id, &strings(&["a:2", "b:2", "a:2"])).unwrap();
    let recorded = |id: &str| ImageRecord::parse(record_of(&root, id).as_bytes()).unwrap().names;
    assert_eq!((recorded(&one.id), recorded(&two.id)), (strings(&["a:3"]), strings(&["a:2", "b:2"])));
    drop(store);
    let store = open(root.path());
    assert_eq!(store.names(&one.id).unwrap(), ["a:3"]);
    assert_eq!(store.names(&two.id).unwrap(), ["a:2", "b:2"]);
    assert!(!store.exists("a:1") && !store.exists("b:1"));
    assert_eq!(store.problems(), []);
}

#[test]
fn an_image_may_lose_all_its_names() {
    let root = root();
    let store = open(root.path());
    let (one, two) = (sample(1), sample(2));
    one.store(&store, &["a:1"]);
    two.store(&store, &[]);
    store.add_name(&two.id, "a:1").unwrap();
    assert_eq!(store.names(&one.id).unwrap(), [""; 0]);
    assert!(!record_of(&root, &one.id).contains("names\": [\n        \"a"));
    assert_eq!(store.summary(&one.id).unwrap().repo_tags, [""; 0]);
    // No validation, as in the reference.
    store.add_name(&one.id, "").unwrap();
    assert_eq!(store.lookup("").unwrap().as_str(), one.id);
}

#[test]
fn what_is_already_so_is_not_written_again() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    image.store(&store, &["a:1"]);
    store.set_size(&image.id, 5).unwrap();
    let inode = || std::fs::metadata(root.join(&image.id).join("images.json")).unwrap().ino();
    let before = inode();
    store.add_name(&image.id, "a:1").unwrap();
    store.set_names(&image.id, &strings(&["a:1"])).unwrap();
    store.set_size(&image.id, 5).unwrap();
    assert_eq!(inode(), before);
}

#[test]
fn delete_takes_everything_away() {
    let root = root();
    let store = open(root.path());
    let (one, two) = (sample(1), sample(2));
    one.store(&store, &["a:1"]);
    two.store(&store, &["b:1"]);
    for unknown in ["", "x", &"0".repeat(64), "aa"] {
        assert!(!store.delete(unknown).unwrap(), "{unknown:?}");
    }
    assert!(store.delete("a:1").unwrap());
    assert!(!store.exists(&one.id) && !store.exists("a:1"));
    assert!(!root.join(&one.id).exists());
    assert_eq!(names_below(&root.join(".isula-storage/trash")), [""; 0]);
    assert_eq!(store.by_digest(&one.manifest_digest()).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!store.delete(&one.id).unwrap());
    one.store(&store, &["a:1"]);
    assert_eq!(ids(&store), [two.id.clone(), one.id.clone()], "a new image is at the end");
    store.wipe().unwrap();
    assert_eq!(ids(&store), [""; 0]);
    assert_eq!(names_below(root.path()), [".isula-storage"]);
    store.wipe().unwrap();
}

#[test]
fn a_directory_that_went_away_does_not_keep_an_image_alive() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    image.store(&store, &["a:1"]);
    std::fs::remove_dir_all(root.join(&image.id)).unwrap();
    assert_eq!(store.set_size("a:1", 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.summary("a:1").unwrap().size, 0);
    assert!(store.delete("a:1").unwrap());
    assert!(!store.exists("a:1"));
}

#[test]
fn big_data_are_stored_under_encoded_names() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    store.create(&image.request(&[])).unwrap();
    let long = "k".repeat(255);
    let table: &[(&str, &[u8])] =
        &[("signature-1", b"data"), ("manifest", b"{}"), (".x", b"\0\xff"), (&long, b"x"), ("empty", b"")];
    for (key, data) in table {
        store.set_big_data(&image.id, key, data).unwrap();
        assert_eq!(store.big_data(&image.id, key).unwrap(), *data, "{key}");
        assert_eq!(store.big_data_size(&image.id, key).unwrap(), data.len() as i64);
        assert_eq!(store.big_data_digest(&image.id, key).unwrap(), Digest::of(data).to_string());
        let file = root.join(&image.id).join(isula_storage::reference::big_data_file_name(key));
        assert_eq!(std::fs::read(file).unwrap(), *data);
    }
    assert_eq!(
        store.big_data_names(&image.id).unwrap(),
        table.iter().map(|(key, _)| *key).collect::<Vec<_>>()
    );

    store.set_big_data(&image.id, "signature-1", b"longer data").unwrap();
    assert_eq!(store.big_data(&image.id, "signature-1").unwrap(), b"longer data");
    assert_eq!(store.big_data_size(&image.id, "signature-1").unwrap(), 11);
    assert_eq!(store.big_data_names(&image.id).unwrap().len(), table.len(), "an old key keeps its place");
    assert_eq!(store.check().unwrap(), []);

    for bad in ["", ".", "..", "images.json", "aa?", "a\0", &"k".repeat(256), &"K".repeat(191)] {
        assert_eq!(
            store.set_big_data(&image.id, bad, b"x").unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
        assert_eq!(store.big_data(&image.id, bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        assert_eq!(
            store.big_data_size(&image.id, bad).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{bad:?}"
        );
    }
    assert!(record_of(&root, &image.id).starts_with("{\n    \"id\""));
    assert_eq!(store.big_data(&image.id, "none").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.big_data_size(&image.id, "none").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.big_data_digest(&image.id, "none").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_can_be_stored_can_be_read() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    store.create(&image.request(&[])).unwrap();
    // The reference stores this and cannot read it.
    let large = vec![b'x'; 11 << 20];
    store.set_big_data(&image.id, "large", &large).unwrap();
    assert!(store.big_data(&image.id, "large").unwrap() == large);
    let too_large = vec![0; usize::try_from(MAX_BIG_DATA).unwrap() + 1];
    let error = store.set_big_data(&image.id, "larger", &too_large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!(
        store.set_big_data(&image.id, "manifest", &large).unwrap_err().kind(),
        ErrorKind::LimitExceeded
    );
    assert_eq!(store.big_data_names(&image.id).unwrap(), ["large"]);
}

#[test]
fn big_data_that_are_not_recorded_get_recorded_when_asked_for() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    store.create(&image.request(&[])).unwrap();
    std::fs::write(root.join(&image.id).join("extra"), b"data").unwrap();
    assert_eq!(store.big_data(&image.id, "extra").unwrap(), b"data");
    assert_eq!(store.big_data_names(&image.id).unwrap(), [""; 0]);
    assert_eq!(store.big_data_size(&image.id, "extra").unwrap(), 4);
    assert_eq!(store.big_data_names(&image.id).unwrap(), ["extra"]);
    assert!(record_of(&root, &image.id).contains("\"extra\": 4"));

    std::fs::write(root.join(&image.id).join("other"), b"x").unwrap();
    assert_eq!(store.big_data_digest(&image.id, "other").unwrap(), Digest::of(b"x").to_string());
    assert_eq!(store.big_data_names(&image.id).unwrap(), ["extra", "other"]);
}

#[test]
fn big_data_that_were_damaged_are_returned_and_reported() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    image.store(&store, &[]);
    std::fs::write(root.join(&image.id).join("manifest"), b"other").unwrap();
    assert_eq!(store.big_data(&image.id, "manifest").unwrap(), b"other");
    let problems = store.check().unwrap();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].subject, format!("image {}", image.id));
    let size = image.manifest.len();
    assert_eq!(problems[0].reason, format!("big data \"manifest\" has 5 bytes, recorded are {size}"));
    let same_size = image.manifest.replace("schemaVersion", "SchemaVersion");
    std::fs::write(root.join(&image.id).join("manifest"), same_size).unwrap();
    assert!(store.check().unwrap()[0].reason.contains("has digest"));
    std::fs::remove_file(root.join(&image.id).join("manifest")).unwrap();
    assert_eq!(store.check().unwrap()[0].reason, "big data \"manifest\" is missing");
}

#[test]
fn a_manifest_is_found_by_its_digest_at_once() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    store.create(&CreateImage { digest: None, ..image.request(&["x:1"]) }).unwrap();
    store.set_big_data(&image.id, "manifest", b"{}").unwrap();
    let (old, new) = (Digest::of(b"{}").to_string(), Digest::of(b"{ }").to_string());
    let found = |digest: &str| store.by_digest(digest).map(|images| images.len()).unwrap_or(0);
    assert_eq!(found(&old), 1);
    assert!(store.exists(&format!("x@{old}")));
    // Fatal in the reference for an image without digest.
    store.set_big_data(&image.id, "manifest", b"{ }").unwrap();
    assert_eq!((found(&old), found(&new)), (0, 1));
    assert_eq!(found(&new["sha256:".len()..]), 1, "64 hex digits will do");

    let with_digest = sample(2);
    store.create(&with_digest.request(&["y:1"])).unwrap();
    store.set_big_data(&with_digest.id, "manifest", b"{ }").unwrap();
    assert_eq!(found(&with_digest.manifest_digest()), 1, "the digest it was created with stays");
    assert_eq!(found(&new), 2);
    assert!(store.exists(&format!("y@{new}")), "also for the second image of a digest");
}

#[test]
fn summaries_show_user_and_labels() {
    let root = root();
    let store = open(root.path());
    let image = sample_with(1, r#"{"User":"1000:5","Labels":{"b":"1","a":"2"}}"#);
    store.create(&image.request(&["docker.io/library/x:1"])).unwrap();
    let bare = store.summary(&image.id).unwrap();
    assert_eq!((bare.uid, bare.labels), (None, None), "no config yet");
    assert_eq!(store.config(&image.id).unwrap_err().kind(), ErrorKind::NotFound);

    store.set_big_data(&image.id, &image.config_key(), image.config.as_bytes()).unwrap();
    let full = store.summary(&image.id).unwrap();
    assert_eq!((full.uid, full.username.as_deref()), (Some(1000), None));
    let labels = [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
    assert_eq!(full.labels.unwrap(), labels);
    assert_eq!(full.repo_tags, ["docker.io/library/x:1"]);
    assert_eq!(full.repo_digests, [format!("x@{}", image.manifest_digest())]);
    assert_eq!(full.top_layer, Some(image.top_layer()));

    store.set_big_data(&image.id, &image.config_key(), b"{}").unwrap();
    assert_eq!(store.config(&image.id).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.summary(&image.id).unwrap().labels, None);
}

/// An image whose config says user `:group` could be neither listed nor deleted, and the layers of the next image
/// deleted went with it.
#[test]
fn an_image_of_a_group_without_user_is_like_any_other() {
    let root = root();
    let store = open(root.path());
    let image = sample_with(1, r#"{"User":":grp"}"#);
    image.store(&store, &["x:1"]);
    let summaries = store.summaries().unwrap();
    assert_eq!(summaries.len(), 1);
    assert_eq!((summaries[0].uid, summaries[0].username.as_ref()), (None, None));
    assert!(store.delete("x:1").unwrap());
}

#[test]
fn an_image_without_big_data_answers() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    store.create(&image.request(&[])).unwrap();
    assert_eq!(store.big_data_names(&image.id).unwrap(), [""; 0]);
    assert_eq!(store.big_data_size(&image.id, "manifest").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.metadata(&image.id).unwrap(), None);
}

#[test]
fn usage_counts_the_image_directory() {
    let root = root();
    let store = open(root.path());
    let before = store.usage().unwrap();
    let image = sample(1);
    image.store(&store, &[]);
    let after = store.usage().unwrap();
    assert_eq!(after.inodes.0 - before.inodes.0, 4);
    let content = record_of(&root, &image.id).len() + image.config.len() + image.manifest.len();
    assert!(after.bytes.0 - before.bytes.0 >= content as u64);
}

#[test]
fn an_image_can_be_put_aside_and_come_back() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    image.store(&store, &["x:1"]);
    let before = store.get("x:1").unwrap();
    let entry = store.quarantine("x:1", "its content differs").unwrap();
    assert!(!store.exists("x:1") && !root.join(&image.id).exists());
    assert_eq!(store.quarantined().unwrap(), std::slice::from_ref(&entry));
    assert_eq!((entry.name.as_str(), entry.reason.as_str()), (image.id.as_str(), "its content differs"));
    store.restore(&entry).unwrap();
    assert_eq!(store.get("x:1").unwrap(), before);
    assert_eq!(store.quarantined().unwrap(), []);

    let entry = store.quarantine("x:1", "again").unwrap();
    image.store(&store, &["x:1"]);
    assert_eq!(store.restore(&entry).unwrap_err().kind(), ErrorKind::AlreadyExists);
    store.purge(&entry).unwrap();
    assert_eq!(store.quarantined().unwrap(), []);
    assert!(store.exists("x:1"));
}

#[test]
fn threads_may_do_everything_at_once() {
    let root = root();
    let store = open(root.path());
    let stable = sample(1000);
    stable.store(&store, &["stable:1"]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..25 {
                    let image: Sample = sample(thread * 100 + round);
                    image.store(store, &[&format!("t{thread}r{round}:1")]);
                    // All threads fight for this one.
                    store.add_name(&image.id, "shared:1").unwrap();
                    store.set_size(&image.id, round as u64 + 1).unwrap();
                    // Another thread may have taken the name and deleted the image with it: no answer is wrong.
                    store.exists("shared:1");
                    if round % 2 == 0 {
                        assert!(store.delete(&image.id).unwrap());
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..2000 {
                assert_eq!(store.lookup("stable:1").unwrap().as_str(), stable.id);
                let summaries = store.summaries().unwrap();
                let holders =
                    summaries.iter().filter(|image| image.repo_tags.contains(&"shared:1".to_owned()));
                assert!(holders.count() <= 1, "a name is never seen on two images");
            }
        });
    });
    assert_eq!(store.count().unwrap(), 4 * 12 + 1);
    let (records, name) = (store.list().unwrap(), store.lookup("shared:1").ok());
    drop(store);
    let again = open(root.path());
    assert_eq!(again.problems(), []);
    assert_eq!(again.list().unwrap(), records);
    assert_eq!(again.lookup("shared:1").ok(), name);
}
