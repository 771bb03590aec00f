// SPDX-License-Identifier: MulanPSL-2.0
//! What a start makes of what lies in the image directory: nothing is deleted out of doubt.

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

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{TestRoot, run};
use images::{ids, open, open_as, options, sample, sample_with, snapshot, strings};
use isula_storage::digest::Digest;
use isula_storage::error::ErrorKind;
use isula_storage::image::{ImageStore, LayerCandidate, LayerLookup};
use isula_storage::persist::Ownership;
use isula_storage::record::image::ImageRecord;
use isula_storage::reference::big_data_file_name;

fn root() -> TestRoot {
    TestRoot::in_memory("image-load")
}

fn unpack(trees: &TestRoot, tree: &str) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let images = format!("{tree}/storage/overlay-images");
    run(Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(trees.path()).arg(&images));
    trees.join(images)
}

#[test]
fn a_store_of_the_reference_opens_and_is_left_as_it_was() {
    let trees = root();
    let dir = unpack(&trees, "imported");
    let before = snapshot(&dir);
    let store = open(&dir);
    assert_eq!(store.problems(), []);
    assert_eq!(store.check().unwrap(), []);
    let opq = "bc963e45ffea5b72f31132cbaa00e912eb1fd7bfd4a5822cc1004791e791c6cb";
    let imp = "fb89ae61d3d5ba7958b739b7a87d5b7f3bf88ef6681a68e1dc090c99e457e083";
    let impgz = "1316ce484b98c671bbb2b5299140d1bc12596c790936de9d4a044f96bb39fa48";
    assert_eq!(ids(&store), [opq, imp, impgz], "in the order in which they were loaded");

    let summary = store.summary("localhost/opq:v1").unwrap();
    assert_eq!(summary.id, opq);
    assert_eq!(summary.size, 1_984_125);
    assert_eq!(summary.repo_tags, ["localhost/opq:v1"]);
    let digest = "sha256:40a76ed7dc7fd30f991376f20b821abca68521fe42972f3c4ce209698c28f1c5";
    assert_eq!(summary.repo_digests, [format!("localhost/opq@{digest}")]);
    let layer = "2e36010176f580c7d91271f93622a79a2cabc2d9358fc4601da74f97abbcfbe8";
    assert_eq!(summary.top_layer.as_deref(), Some(layer));
    assert_eq!(summary.created.as_deref(), Some("2026-11-21T07:56:35.564166910+00:00"));
    assert_eq!(store.config(opq).unwrap().rootfs.diff_ids.len(), 3);
    let manifest = "sha256:479f734dc295f9e19ecb1305a7de96a33997bdb3c103731f0ac7bf14f0c63052";
    for digest in [digest, manifest] {
        assert_eq!(store.by_digest(digest).unwrap()[0].id.as_deref(), Some(opq));
        assert_eq!(store.lookup(&format!("localhost/opq@{digest}")).unwrap().as_str(), opq);
    }
    drop(store);
    let mut after = snapshot(&dir);
    after.retain(|name, _| !name.starts_with(".isula-storage"));
    assert_eq!(after, before);
}

#[test]
fn what_changes_in_a_store_of_the_reference_is_what_it_would_have_changed() {
    let trees = root();
    let dir = unpack(&trees, "running");
    let id = "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";
    let path = dir.join(id).join("images.json");
    let before = std::fs::read_to_string(&path).unwrap();
    let store = open(&dir);
    store.add_name("busybox:latest", "another:1").unwrap();
    let wanted = before.replace("\"busybox:latest\"", "\"another:1\",\n        \"busybox:latest\"");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), wanted);
    store.set_names(id, &strings(&["localhost/bb:v2", "busybox:latest"])).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    let data = store.big_data(id, "manifest").unwrap();
    store.set_big_data(id, "manifest", &data).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
}

/// Spoils one of two images in some way; what becomes of it.
struct Case {
    what: &'static str,
    spoil: fn(&Path),
    /// Whether it is put aside; else it is left where it is.
    aside: bool,
    reason: &'static str,
}

fn write(path: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(path.join(name), content).unwrap();
}

fn config_file(path: &Path) -> PathBuf {
    let id = path.file_name().unwrap().to_str().unwrap();
    path.join(big_data_file_name(&format!("sha256:{id}")))
}

const CASES: &[Case] = &[
    Case {
        what: "no manifest",
        spoil: |path| std::fs::remove_file(path.join("manifest")).unwrap(),
        aside: false,
        reason: "it has no manifest",
    },
    Case {
        what: "empty manifest, as after a power cut",
        spoil: |path| write(path, "manifest", ""),
        aside: true,
        reason: "read manifest",
    },
    Case {
        what: "deeply nested manifest, which crashed the reference at each start",
        spoil: |path| write(path, "manifest", "[".repeat(1_000_000)),
        aside: true,
        reason: "read manifest",
    },
    Case {
        what: "manifest larger than what is parsed",
        spoil: |path| write(path, "manifest", vec![b' '; 10 << 20]),
        aside: true,
        reason: "larger than",
    },
    Case {
        what: "no record",
        spoil: |path| std::fs::remove_file(path.join("images.json")).unwrap(),
        aside: false,
        reason: "it has no record",
    },
    Case {
        what: "zeros for a record",
        spoil: |path| write(path, "images.json", [0; 100]),
        aside: true,
        reason: "read image record",
    },
    Case {
        what: "a record without id, which made the reference use freed memory",
        spoil: |path| write(path, "images.json", "{}"),
        aside: true,
        reason: "its record has no id",
    },
    Case {
        what: "a record of another image",
        spoil: |path| write(path, "images.json", r#"{"id":"x"}"#),
        aside: true,
        reason: "its record is of another image, x",
    },
    Case {
        what: "no config",
        spoil: |path| std::fs::remove_file(config_file(path)).unwrap(),
        aside: false,
        reason: "it has no config",
    },
    Case {
        what: "a config without layers",
        spoil: |path| {
            std::fs::write(
                config_file(path),
                r#"{"architecture":"a","os":"o","rootfs":{"type":"layers","diff_ids":[]}}"#,
            )
            .unwrap();
        },
        aside: true,
        reason: "diff IDs",
    },
    Case {
        what: "a directory for a record",
        spoil: |path| {
            std::fs::remove_file(path.join("images.json")).unwrap();
            std::fs::create_dir(path.join("images.json")).unwrap();
        },
        aside: true,
        reason: "directory",
    },
    Case {
        what: "a link for a config",
        spoil: |path| {
            let config = config_file(path);
            std::fs::rename(&config, path.join("real")).unwrap();
            std::os::unix::fs::symlink("real", config).unwrap();
        },
        aside: true,
        reason: "symbolic link",
    },
    Case {
        what: "schema 1 without a layer store",
        spoil: |path| {
            write(path, "manifest", r#"{"schemaVersion":1}"#);
            std::fs::remove_file(config_file(path)).unwrap();
        },
        aside: false,
        reason: "there is no layer store",
    },
    Case {
        what: "an odd manifest without config",
        spoil: |path| {
            write(path, "manifest", "[]");
            std::fs::remove_file(config_file(path)).unwrap();
        },
        aside: false,
        reason: "it has no config",
    },
];

#[test]
fn an_image_that_cannot_be_loaded_is_kept_and_reported_and_the_rest_works() {
    for case in CASES {
        let root = root();
        let (good, bad) = (sample(1), sample(2));
        let store = open(root.path());
        good.store(&store, &["good:1"]);
        bad.store(&store, &["bad:1"]);
        drop(store);
        let path = root.join(&bad.id);
        (case.spoil)(&path);
        let content =
            |path: &Path| snapshot(path).into_iter().map(|(name, entry)| (name, entry.3)).collect::<Vec<_>>();
        let kept = content(&path);

        let store = open(root.path());
        assert_eq!(ids(&store), [good.id.as_str()], "{}", case.what);
        let problems = store.problems();
        assert_eq!(problems.len(), 1, "{}: {problems:?}", case.what);
        assert_eq!(problems[0].subject, format!("image {}", bad.id), "{}", case.what);
        assert!(problems[0].reason.contains(case.reason), "{}: {}", case.what, problems[0].reason);
        assert_eq!(problems[0].quarantined, case.aside, "{}", case.what);
        assert_eq!(path.exists(), !case.aside, "{}", case.what);
        let aside = store.quarantined().unwrap();
        assert_eq!(aside.len(), usize::from(case.aside), "{}", case.what);
        let now = aside.first().map_or(path.clone(), |entry| entry.path.clone());
        assert_eq!(content(&now), kept, "{}", case.what);

        // A second start tells the same of what was left, and nothing more of what was put aside.
        store.load().unwrap();
        assert_eq!(store.problems().len(), usize::from(!case.aside), "{}", case.what);

        // Making it again heals it.
        bad.store(&store, &["bad:1"]);
        assert_eq!(store.big_data("bad:1", "manifest").unwrap(), bad.manifest.as_bytes(), "{}", case.what);
        drop(store);
        let store = open(root.path());
        assert_eq!(ids(&store), [good.id.clone(), bad.id.clone()], "{}", case.what);
        assert_eq!(store.problems(), [], "{}", case.what);
    }
}

#[test]
fn a_reader_that_may_not_change_anything_only_reports() {
    for case in CASES {
        let root = root();
        let bad = sample(2);
        bad.store(&open(root.path()), &["bad:1"]);
        (case.spoil)(&root.join(&bad.id));
        let before = snapshot(root.path());
        let store = open_as(root.path(), Ownership::ReadOnly);
        assert_eq!(ids(&store), [""; 0], "{}", case.what);
        assert_eq!(store.problems().len(), 1, "{}", case.what);
        assert!(!store.problems()[0].quarantined);
        store.load().unwrap();
        assert_eq!(snapshot(root.path()), before, "{}", case.what);
    }
}

#[test]
fn an_image_that_is_just_being_made_stays_listed() {
    let root = root();
    let store = open(root.path());
    let image = sample(1);
    store.create(&image.request(&["a:1"])).unwrap();
    store.load().unwrap();
    assert_eq!(store.lookup("a:1").unwrap().as_str(), image.id);
    assert_eq!(store.problems(), []);
    store.set_big_data("a:1", &image.config_key(), image.config.as_bytes()).unwrap();
    store.load().unwrap();
    assert!(store.config("a:1").is_ok());
    drop(store);
    let store = open(root.path());
    assert!(!store.exists("a:1"), "a start cannot know who was at it");
    store.load().unwrap();
    assert!(!store.exists("a:1"));
}

#[test]
fn a_store_may_be_opened_with_images_that_have_only_a_record() {
    let root = root();
    let (bare, half, whole) = (sample(1), sample(2), sample(3));
    let store = open(root.path());
    store.create(&bare.request(&["bare:1"])).unwrap();
    store.create(&half.request(&["half:1"])).unwrap();
    store.set_big_data("half:1", &half.config_key(), half.config.as_bytes()).unwrap();
    whole.store(&store, &["whole:1"]);
    let (old, records) = (plant_schema1(&root), store.list().unwrap());
    drop(store);
    std::fs::create_dir(root.join("3".repeat(64))).unwrap();
    for ownership in [Ownership::ReadOnly, Ownership::Shared, Ownership::Owner] {
        let store = ImageStore::open(isula_storage::image::ImageStoreOptions {
            list_incomplete: true,
            ..options(root.path(), ownership)
        })
        .unwrap();
        let found: Vec<_> =
            store.list().unwrap().into_iter().filter(|i| i.id.as_ref() != Some(&old)).collect();
        assert_eq!(found, records);
        assert!(store.exists("quay.io/x:1"), "not converted, and listed as it is");
        assert_eq!(store.config("bare:1").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(store.config("half:1").is_ok());
        let problems: Vec<_> = store.problems().into_iter().map(|problem| problem.subject).collect();
        assert_eq!(problems.len(), 2, "{problems:?}: no record; schema 1");
        assert_eq!(store.quarantined().unwrap(), []);
    }
}

#[test]
fn a_docker_config_beside_an_odd_manifest_is_an_image() {
    let root = root();
    let image = sample(1);
    let store = open(root.path());
    image.store(&store, &["a:1"]);
    store.set_big_data(&image.id, "manifest", br#"{"schemaVersion":1}"#).unwrap();
    drop(store);
    assert_eq!(ids(&open(root.path())), [image.id]);
}

#[test]
fn other_names_are_left_alone() {
    let root = root();
    let image = sample(1);
    image.store(&open(root.path()), &["a:1"]);
    let elsewhere = common::TestRoot::in_memory("elsewhere");
    sample(2).store(&open(elsewhere.path()), &["b:1"]);
    let other = sample(2).id;
    std::os::unix::fs::symlink(elsewhere.join(&other), root.join(&other)).unwrap();
    std::fs::create_dir(root.join("short")).unwrap();
    std::fs::create_dir(root.join("A".repeat(64))).unwrap();
    std::fs::create_dir(root.join(".hidden")).unwrap();
    std::fs::write(root.join("f".repeat(64)), "x").unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let before = snapshot(elsewhere.path());

    let store = open(root.path());
    assert_eq!(ids(&store), [image.id]);
    let mut problems: Vec<_> =
        store.problems().iter().map(|p| format!("{}: {}", p.subject, p.reason)).collect();
    problems.sort();
    let wanted = [
        format!("entry {other}: it has the name of an image but is no directory"),
        format!("entry {}: its name is no image id, it was left alone", "A".repeat(64)),
        format!("entry {}: it has the name of an image but is no directory", "f".repeat(64)),
        "entry short: its name is no image id, it was left alone".to_owned(),
    ];
    let mut wanted = wanted.to_vec();
    wanted.sort();
    assert_eq!(problems, wanted);
    // Followed by the reference: what the link points to was emptied when the image was deleted.
    assert!(!store.delete(&other).unwrap());
    store.wipe().unwrap();
    assert_eq!(snapshot(elsewhere.path()), before);
    // What is in the way of a new image goes aside, as it is.
    sample(2).store(&store, &[]);
    assert_eq!(store.quarantined().unwrap().len(), 1);
    assert_eq!(snapshot(elsewhere.path()), before);
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let root = root();
    let image = sample(1);
    image.store(&open(root.path()), &["a:1"]);
    let temporary = root.join(&image.id).join(".tmp-manifest-0123456789");
    std::fs::write(&temporary, "half").unwrap();
    let unfinished = root.join(".converted-0123456789abcdef");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("manifest"), "half").unwrap();
    let store = open_as(root.path(), Ownership::ReadOnly);
    assert!(temporary.exists() && unfinished.exists());
    drop(store);
    let store = open(root.path());
    assert!(!temporary.exists() && !unfinished.exists());
    assert_eq!(store.problems(), []);
    assert_eq!(ids(&store), [image.id]);
}

#[test]
fn of_two_images_with_one_name_the_one_loaded_later_loses_it() {
    let root = root();
    let (one, two) = (sample(1), sample(2));
    let store = open(root.path());
    one.store(&store, &["a:1"]);
    two.store(&store, &["b:1"]);
    drop(store);
    let path = root.join(&two.id).join("images.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"b:1\"", "\"a:1\",\n        \"b:1\"")).unwrap();
    let on_disk = std::fs::read_to_string(&path).unwrap();

    let store = open(root.path());
    assert_eq!(store.lookup("a:1").unwrap().as_str(), one.id);
    assert_eq!(store.names(&two.id).unwrap(), ["b:1"]);
    let problems = store.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].subject, format!("image {}", two.id));
    assert_eq!(problems[0].reason, format!("name a:1 belongs to image {}, which was loaded earlier", one.id));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), on_disk, "a start decides nothing for good");
    store.save().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    drop(store);
    assert_eq!(open(root.path()).problems(), []);
}

#[test]
fn the_default_host_is_stripped_from_stored_names() {
    let root = root();
    let image = sample(1);
    let store = ImageStore::open(isula_storage::image::ImageStoreOptions {
        default_host: None,
        ..options(root.path(), Ownership::Owner)
    })
    .unwrap();
    image.store(&store, &["docker.io/library/x:1", "docker.io/y/z:1", "library/x:1", "quay.io/q:1"]);
    drop(store);
    let path = root.join(&image.id).join("images.json");
    let before = std::fs::read_to_string(&path).unwrap();
    let names = ["quay.io/q:1", "x:1", "y/z:1"];
    let reader = open_as(root.path(), Ownership::ReadOnly);
    assert_eq!(reader.names(&image.id).unwrap(), names);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    let store = ImageStore::open(isula_storage::image::ImageStoreOptions {
        default_host: Some("docker.io/".to_owned()),
        ..options(root.path(), Ownership::Owner)
    })
    .unwrap();
    assert_eq!(store.names("x:1").unwrap(), names);
    assert_eq!(ImageRecord::parse(&std::fs::read(&path).unwrap()).unwrap().names, names, "stored at once");
}

#[test]
fn a_missing_digest_is_that_of_the_manifest() {
    let root = root();
    let image = sample(1);
    let store = open(root.path());
    image.store(&store, &["a:1"]);
    drop(store);
    let path = root.join(&image.id).join("images.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = format!("    \"digest\": \"{}\",\n", image.manifest_digest());
    let without = text.replace(&line, "");
    assert_ne!(without, text);
    std::fs::write(&path, &without).unwrap();
    let store = open(root.path());
    assert_eq!(store.get("a:1").unwrap().digest, Some(image.manifest_digest()));
    assert_eq!(store.by_digest(&image.manifest_digest()).unwrap().len(), 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), without);
    store.set_size("a:1", 0).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "with the next change");
}

#[test]
fn compact_and_historic_records_are_read() {
    let root = root();
    let image = sample(1);
    let store = open(root.path());
    image.store(&store, &[]);
    drop(store);
    let path = root.join(&image.id).join("images.json");
    std::fs::write(
        &path,
        format!(r#"{{"id":"{}","names":["b:1","a:1"],"Loaded":"2020-01-01T00:00:00Z"}}"#, image.id),
    )
    .unwrap();
    let store = open(root.path());
    assert_eq!(store.names(&image.id).unwrap(), ["a:1", "b:1"]);
    assert_eq!(store.get("a:1").unwrap().loaded, None);
    store.set_metadata("a:1", "m").unwrap();
    let wanted = format!(
        "{{\n    \"id\": \"{}\",\n    \"names\": [\n        \"a:1\",\n        \"b:1\"\n    ],\n    \"metadata\": \"m\"\n}}\n",
        image.id
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), wanted);
}

#[test]
fn many_images_are_read_by_several_threads_and_in_order() {
    let root = root();
    let store = ImageStore::open(isula_storage::image::ImageStoreOptions {
        durability: isula_storage::persist::Durability::None,
        ..options(root.path(), Ownership::Owner)
    })
    .unwrap();
    for number in 0..1500 {
        sample(number).store(&store, &[&format!("n{number}:1")]);
    }
    let records = store.list().unwrap();
    drop(store);
    std::fs::remove_file(root.join(&sample(700).id).join("manifest")).unwrap();
    let store = open(root.path());
    let wanted: Vec<_> =
        records.into_iter().filter(|record| record.id.as_deref() != Some(&sample(700).id)).collect();
    assert_eq!(store.list().unwrap(), wanted);
    assert_eq!(store.problems().len(), 1);
    for number in (0..1500).filter(|number| *number != 700) {
        let image = sample(number);
        assert_eq!(store.lookup(&format!("n{number}:1")).unwrap().as_str(), image.id);
        assert_eq!(store.lookup(&image.id[..12]).unwrap().as_str(), image.id);
    }
}

/// Layers as a test wants them: blob sum, id, parent, diff ID.
struct Layers(&'static [(&'static str, &'static str, Option<&'static str>, &'static str)]);

impl LayerLookup for Layers {
    fn by_compressed_digest(&self, digest: &str) -> Vec<LayerCandidate> {
        let candidate = |(_, id, parent, diff_id): &(&str, &str, Option<&str>, &str)| LayerCandidate {
            id: (*id).to_owned(),
            parent: parent.map(str::to_owned),
            uncompressed_digest: Some((*diff_id).to_owned()),
        };
        self.0.iter().filter(|layer| layer.0 == digest).map(candidate).collect()
    }
}

const LAYERS: Layers = Layers(&[
    // The same blob on other layers comes first.
    ("sha256:one", "wrong", Some("elsewhere"), "sha256:wrong"),
    ("sha256:one", "l1", None, "sha256:d1"),
    ("sha256:two", "wrong", None, "sha256:wrong"),
    ("sha256:two", "l2", Some("l1"), "sha256:d2"),
]);

const SCHEMA1: &str = r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:e"},{"blobSum":"sha256:two"},{"blobSum":"sha256:one"}],
    "history":[{"v1Compatibility":"{\"architecture\":\"arm64\",\"os\":\"linux\",\"id\":\"c\",\"created\":\"2019-10-11T17:26:17.8Z\",\"throwaway\":true}"},
    {"v1Compatibility":"{\"id\":\"b\"}"},{"v1Compatibility":"{\"id\":\"a\"}"}]}"#;

const CONVERTED: &str = r#"{
    "created": "2019-10-11T17:26:17.8Z",
    "architecture": "arm64",
    "os": "linux",
    "rootfs": {
        "type": "layers",
        "diff_ids": [
            "sha256:d1",
            "sha256:d2"
        ]
    },
    "history": [
        {

        },
        {

        },
        {
            "created": "2019-10-11T17:26:17.8Z",
            "empty_layer": true
        }
    ]
}
"#;

fn plant_schema1(root: &TestRoot) -> String {
    let id = "2".repeat(64);
    std::fs::create_dir(root.join(&id)).unwrap();
    std::fs::write(root.join(&id).join("manifest"), SCHEMA1).unwrap();
    let record = format!(
        r#"{{"id":"{id}","digest":"sha256:s","names":["quay.io/x:1"],"layer":"l2","metadata":"{{}}","big-data-names":["manifest"],"big-data-sizes":{{"manifest":1}},"big-data-digests":{{"manifest":"sha256:m"}},"created":"old","Loaded":"2020"}}"#
    );
    std::fs::write(root.join(&id).join("images.json"), record).unwrap();
    id
}

fn open_with_layers(root: &TestRoot, ownership: Ownership) -> ImageStore {
    let layers: Arc<dyn LayerLookup> = Arc::new(LAYERS);
    ImageStore::open(isula_storage::image::ImageStoreOptions {
        layers: Some(layers),
        ..options(root.path(), ownership)
    })
    .unwrap()
}

fn assert_converted(root: &TestRoot, store: &ImageStore, old: &str) {
    let new = Digest::of(CONVERTED.as_bytes()).hex();
    assert_eq!(ids(store), [new.as_str()]);
    assert_eq!(store.problems(), []);
    assert_eq!(store.check().unwrap(), []);
    assert!(!root.join(old).exists());
    let key = format!("sha256:{new}");
    assert_eq!(String::from_utf8(store.big_data(&new, &key).unwrap()).unwrap(), CONVERTED);
    assert_eq!(store.big_data(&new, "manifest").unwrap(), SCHEMA1.as_bytes());
    let record = store.get("quay.io/x:1").unwrap();
    assert_eq!(record.id.as_deref(), Some(new.as_str()));
    assert_eq!((record.layer.as_deref(), record.metadata.as_deref()), (Some("l2"), Some("{}")));
    assert_eq!(record.digest.as_deref(), Some("sha256:s"));
    assert_eq!(record.big_data_names, ["manifest", &key]);
    let sizes = [("manifest".to_owned(), SCHEMA1.len() as i64), (key, CONVERTED.len() as i64)];
    assert_eq!(record.big_data_sizes.as_ref().unwrap()[..], sizes);
    let created = isula_storage::time::Timestamp::parse(record.created.as_deref().unwrap()).unwrap();
    assert_eq!((created.seconds, created.nanos), (1_570_814_777, 800_000_000));
    assert!(record.loaded.is_some());
    assert_eq!(
        ImageRecord::parse(&std::fs::read(root.join(&new).join("images.json")).unwrap()).unwrap(),
        *record
    );
}

#[test]
fn an_image_of_schema_1_is_converted_once() {
    let root = root();
    let old = plant_schema1(&root);
    let reader = open_with_layers(&root, Ownership::ReadOnly);
    assert_eq!(ids(&reader), [""; 0]);
    assert!(reader.problems()[0].reason.contains("schema 1"), "{:?}", reader.problems());
    assert!(root.join(&old).exists());
    drop(reader);
    for _ in 0..2 {
        let store = open_with_layers(&root, Ownership::Owner);
        assert_converted(&root, &store, &old);
        assert_eq!(store.quarantined().unwrap(), []);
    }
}

/// Never converted by the reference, which wants the base layer to be the very first.
#[test]
fn an_image_of_schema_1_may_stand_on_an_empty_layer() {
    let root = root();
    let old = plant_schema1(&root);
    let manifest = r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:one"},{"blobSum":"sha256:e"}],
        "history":[{"v1Compatibility":"{\"architecture\":\"a\",\"os\":\"o\"}"},{"v1Compatibility":"{\"throwaway\":true}"}]}"#;
    std::fs::write(root.join(&old).join("manifest"), manifest).unwrap();
    let store = open_with_layers(&root, Ownership::Owner);
    assert_eq!(store.problems(), []);
    assert_eq!(store.config("quay.io/x:1").unwrap().rootfs.diff_ids, ["sha256:d1"]);
}

/// The reference converts again after a crash in between, and lists the image twice.
#[test]
fn an_interrupted_conversion_is_completed() {
    let root = root();
    let old = plant_schema1(&root);
    let new = Digest::of(CONVERTED.as_bytes()).hex();
    // Before the rename: something unfinished. After it: both directories.
    std::fs::create_dir(root.join(".converted-00000000000000ff")).unwrap();
    drop(open_with_layers(&root, Ownership::Owner));
    plant_schema1(&root);
    assert!(root.join(&old).exists() && root.join(&new).exists());
    let store = open_with_layers(&root, Ownership::Owner);
    assert_converted(&root, &store, &old);
    assert_eq!(store.quarantined().unwrap(), []);
    drop(store);
    // What the reference leaves: a new directory that is not whole.
    plant_schema1(&root);
    std::fs::remove_file(root.join(&new).join("manifest")).unwrap();
    let store = open_with_layers(&root, Ownership::Owner);
    assert_eq!(ids(&store), [new.as_str()]);
    assert_eq!(store.quarantined().unwrap().len(), 1);
    drop(store);
    // The converted image got another manifest meanwhile: the old directory is the only place of the old one.
    plant_schema1(&root);
    std::fs::write(root.join(&new).join("manifest"), sample(1).manifest).unwrap();
    let store = open_with_layers(&root, Ownership::Owner);
    assert_eq!(ids(&store), [new]);
    assert!(!root.join(&old).exists());
    assert_eq!(store.quarantined().unwrap().len(), 2);
}

#[test]
fn an_image_of_schema_1_stays_as_long_as_its_layers_are_not_known() {
    let root = root();
    let old = plant_schema1(&root);
    let before = snapshot(&root.join(&old));
    let none: Arc<dyn LayerLookup> = Arc::new(Layers(&[]));
    let store = ImageStore::open(isula_storage::image::ImageStoreOptions {
        layers: Some(none),
        ..options(root.path(), Ownership::Owner)
    })
    .unwrap();
    assert_eq!(ids(&store), [""; 0]);
    assert!(
        store.problems()[0].reason.ends_with("no diff ID is known for layer 0"),
        "{:?}",
        store.problems()
    );
    assert_eq!(snapshot(&root.join(&old)), before);
    drop(store);
    assert_converted(&root, &open_with_layers(&root, Ownership::Owner), &old);
}

#[test]
fn an_old_store_with_an_image_of_a_group_is_listed() {
    let root = root();
    let image = sample_with(1, r#"{"User":":grp"}"#);
    image.store(&open(root.path()), &["a:1"]);
    assert_eq!(open(root.path()).summaries().unwrap().len(), 1);
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let root = root();
    std::fs::write(root.join("file"), "x").unwrap();
    let error = ImageStore::open(options(&root.join("file"), Ownership::Owner)).unwrap_err();
    assert!(error.report().starts_with("open image store "), "{}", error.report());
    let error = ImageStore::open(options(&root.join("none"), Ownership::ReadOnly)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!root.join("none").exists());
    drop(open(&root.join("a/b/c")));
    assert!(root.join("a/b/c/.isula-storage").is_dir());
}
