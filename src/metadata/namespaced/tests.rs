// SPDX-License-Identifier: MulanPSL-2.0

mod import;

use super::*;
use crate::metadata::boltfile::{BucketMut, Freelist};
use crate::metadata::budget::Budget;
use crate::metadata::{ImageFile, ImageTransaction, gotime, is_exists, is_not_found, schema_of};
use crate::persist::Durability;
use crate::sys::fs::Dir;
use crate::sys::testing::TestRoot;

fn options() -> Options {
    Options { timeout: Some(Duration::ZERO), durability: Durability::None, ..Options::default() }
}

fn read_only() -> Options {
    Options { access: Access::ReadOnly, ..options() }
}

fn opened(root: &TestRoot) -> NamespacedFile {
    NamespacedFile::open(&root.join("db"), &options()).unwrap()
}

fn image(name: &str, number: u8) -> NamespacedImage {
    NamespacedImage {
        name: name.to_owned(),
        target: Target {
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            digest: format!("sha256:{number:064x}"),
            size: i64::from(number) + 1,
        },
        ..NamespacedImage::default()
    }
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.images.iter().map(|image| image.name.as_str()).collect()
}

fn all(file: &NamespacedFile, namespace: &str) -> Vec<String> {
    let listing = file.list(namespace, &Filters::default()).unwrap();
    assert!(listing.problems.is_empty(), "{:?}", listing.problems);
    names(&listing).into_iter().map(str::to_owned).collect()
}

fn behind(root: &TestRoot, name: &str, change: impl FnOnce(&mut BucketMut<'_>)) {
    let file = BoltFile::open(&Dir::open(root.path()).unwrap(), name, &options()).unwrap();
    let mut transaction = file.begin_write().unwrap();
    change(&mut transaction.root_mut().unwrap().create_bucket_if_not_exists(V1).unwrap());
    transaction.commit().unwrap();
}

fn says<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, end: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.report());
    assert!(error.report().ends_with(end), "{}", error.report());
}

#[test]
fn create_stores_everything_and_refuses_what_is_there() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    let mut new = image("a", 1).with_labels([("x", "1"), ("empty", "")]);
    new.annotations.insert("org.example".to_owned(), "é".to_owned());
    let before = Timestamp::now();
    let stored = file.create("default", &new).unwrap();
    assert!(stored.created.is_some_and(|time| time >= before) && stored.created == stored.updated);
    let mut expected = new.clone().with_labels([("x", "1")]);
    (expected.created, expected.updated) = (stored.created, stored.updated);
    assert_eq!(stored, expected);
    let error = file.create("default", &new).unwrap_err();
    assert!(is_exists(&error) && !is_not_found(&error), "{}", error.report());
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    file.create("other", &new).unwrap();
    drop(file);
    let file = NamespacedFile::open(&root.join("db"), &read_only()).unwrap();
    assert_eq!(file.get("default", "a").unwrap(), expected);
    assert_eq!(file.namespaces().unwrap(), ["default", "other"]);
    says(file.create("default", &image("b", 1)), ErrorKind::ReadOnly, ": database is in read-only mode");
}

#[test]
fn update_replaces_what_is_named_and_keeps_the_time_of_creation() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    let first = file.create("ns", &image("a", 1).with_labels([("x", "1"), ("y", "2")])).unwrap();
    let other = {
        let mut other = image("a", 2).with_labels([("x", "new"), ("z", "3")]);
        other.annotations.insert("k".to_owned(), "v".to_owned());
        other
    };
    type Case<'a> = (&'a [&'a str], i64, &'a [(&'a str, &'a str)], bool);
    let table: &[Case<'_>] = &[
        (&["labels.x"], 2, &[("x", "new"), ("y", "2")], false),
        (&["labels.y"], 2, &[("x", "new")], false),
        (&["annotations.k"], 2, &[("x", "new")], true),
        (&["annotations.none"], 2, &[("x", "new")], true),
        (&["labels", "target"], 3, &[("x", "new"), ("z", "3")], true),
    ];
    for (fields, size, labels, annotated) in table {
        let after = file.update("ns", &other, fields).unwrap();
        assert_eq!(after, file.get("ns", "a").unwrap());
        assert_eq!(after.target.size, *size, "{fields:?}");
        let expected = after.clone().with_labels(labels.iter().copied());
        assert_eq!(after, expected, "{fields:?}");
        assert_eq!(!after.annotations.is_empty(), *annotated, "{fields:?}");
        assert!(after.created == first.created && after.updated >= first.updated, "{fields:?}");
    }
    let after = file.update("ns", &image("a", 7), &[]).unwrap();
    assert_eq!((after.created, after.target.size, after.labels.len()), (first.created, 8, 0));
    assert!(after.annotations.is_empty());

    says(file.update("ns", &other, &["name"]), ErrorKind::InvalidArgument, ": cannot update field \"name\"");
    let invalid = NamespacedImage { target: Target::default(), ..other.clone() };
    assert!(file.update("ns", &invalid, &["target"]).is_err());
    assert_eq!(file.get("ns", "a").unwrap(), after, "a failed update changes nothing");
    for (namespace, name) in [("ns", "missing"), ("missing", "a")] {
        let error = file.update(namespace, &image(name, 1), &[]).unwrap_err();
        assert!(is_not_found(&error), "{}", error.report());
    }
}

#[test]
fn delete_may_depend_on_where_the_image_points_to() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    let digest = file.create("ns", &image("a", 1)).unwrap().target.digest;
    let other = image("a", 2).target.digest;
    let error = file.delete("ns", "a", Some(&other)).unwrap_err();
    assert!(is_not_found(&error) && error.report().contains("points to"), "{}", error.report());
    assert_eq!(all(&file, "ns"), ["a"]);
    file.delete("ns", "a", Some(&digest)).unwrap();
    for digest in [None, Some(digest.as_str())] {
        assert!(is_not_found(&file.delete("ns", "a", digest).unwrap_err()));
        assert!(is_not_found(&file.delete("missing", "a", digest).unwrap_err()));
    }
    assert!(is_not_found(&file.delete("ns", "", None).unwrap_err()));
    file.create("ns", &image("a", 1)).unwrap();
    file.delete("ns", "a", None).unwrap();
    assert!(is_not_found(&file.get("ns", "a").unwrap_err()));
}

#[test]
fn a_list_of_a_namespace_that_is_not_there_is_empty() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    assert_eq!(all(&file, "none"), [""; 0]);
    file.create_namespace("none", &Labels::new()).unwrap();
    assert_eq!(all(&file, "none"), [""; 0]);
    assert!(is_not_found(&file.get("none", "a").unwrap_err()));
}

#[test]
fn lists_are_filtered() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    file.create("ns", &image("docker.io/a", 1).with_labels([("x", "1")])).unwrap();
    file.create("ns", &image("docker.io/b", 2).with_labels([("x", "2")])).unwrap();
    file.create("ns", &image("quay.io/c", 3)).unwrap();
    let list = |filters: &[&str]| {
        let listing = file.list("ns", &Filters::parse(filters).unwrap()).unwrap();
        names(&listing).join(" ")
    };
    assert_eq!(list(&[]), "docker.io/a docker.io/b quay.io/c");
    assert_eq!(list(&["name^=docker.io/"]), "docker.io/a docker.io/b");
    assert_eq!(list(&["name==quay.io/c", "labels.x==2"]), "docker.io/b quay.io/c");
    assert_eq!(list(&["labels.x,name!=docker.io/a"]), "docker.io/b");
    assert_eq!(list(&[&format!("digest==sha256:{:064x}", 3)]), "quay.io/c");
}

#[test]
fn a_namespace_is_made_and_is_only_deleted_when_it_is_empty() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    let labels: Labels = [("k".to_owned(), "v".to_owned())].into();
    file.create_namespace("ns", &labels).unwrap();
    assert_eq!(file.begin().namespace_labels("ns").unwrap(), labels);
    says(file.create_namespace("ns", &labels), ErrorKind::AlreadyExists, ": there is one");
    file.create("ns", &image("a", 1)).unwrap();
    says(file.delete_namespace("ns"), ErrorKind::InUse, ": it still has \"images\"");
    file.delete("ns", "a", None).unwrap();
    behind(root_closed(file, &root), "db", |v1| {
        let mut ns = v1.bucket(b"ns").unwrap().unwrap();
        let mut content = ns.create_bucket(b"content").unwrap();
        content
            .create_bucket(b"blob")
            .unwrap()
            .create_bucket(b"sha256:x")
            .unwrap()
            .put(b"size", b"1")
            .unwrap();
    });
    let file = opened(&root);
    says(file.delete_namespace("ns"), ErrorKind::InUse, ": it still has \"content\"");
    behind(root_closed(file, &root), "db", |v1| {
        let mut ns = v1.bucket(b"ns").unwrap().unwrap();
        ns.bucket(b"content")
            .unwrap()
            .unwrap()
            .bucket(b"blob")
            .unwrap()
            .unwrap()
            .delete_bucket(b"sha256:x")
            .unwrap();
    });
    let file = opened(&root);
    file.delete_namespace("ns").unwrap();
    assert_eq!(file.namespaces().unwrap(), [""; 0]);
    says(file.delete_namespace("ns"), ErrorKind::NotFound, ": there is no such namespace");
    assert!(file.begin().namespace_labels("ns").is_err());
}

/// Closes the file, so that something else can be done with it.
fn root_closed(file: NamespacedFile, root: &TestRoot) -> &TestRoot {
    drop(file);
    root
}

#[test]
fn one_bad_image_does_not_hide_the_others() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    for name in ["good", "no-target", "odd-time", "other"] {
        file.create("ns", &image(name, 1)).unwrap();
    }
    drop(file);
    behind(&root, "db", |v1| {
        let mut ns = v1.bucket(b"ns").unwrap().unwrap();
        let mut images = ns.bucket(b"images").unwrap().unwrap();
        images.put(b"a-value", b"v").unwrap();
        images.create_bucket(b"\xff").unwrap();
        images.bucket(b"no-target").unwrap().unwrap().delete_bucket(b"target").unwrap();
        images.bucket(b"odd-time").unwrap().unwrap().put(b"createdat", b"yesterday").unwrap();
        images.bucket(b"other").unwrap().unwrap().delete(b"updatedat").unwrap();
    });
    let file = opened(&root);
    let listing = file.list("ns", &Filters::default()).unwrap();
    assert_eq!(names(&listing), ["good", "other"]);
    assert_eq!(listing.images[1].updated, None);
    let told: Vec<_> = listing.problems.iter().map(|(_, error)| error.report()).collect();
    assert_eq!(
        told,
        [
            "image \"a-value\": it is a value, not an image",
            "image \"no-target\": it has no target",
            "image \"odd-time\": createdat: not a time: \"yesterday\"",
            "image \"\\xff\": its name is not UTF-8",
        ]
    );
    assert_eq!(file.get("ns", "no-target").unwrap_err().kind(), ErrorKind::Corrupt);
    // They can be deleted.
    file.delete("ns", "no-target", None).unwrap();
    says(file.delete("ns", "a-value", None), ErrorKind::InvalidArgument, ": incompatible value");
}

#[test]
fn labels_that_are_no_text_are_within_what_a_list_may_take() {
    let root = TestRoot::in_memory("namespaced");
    drop(opened(&root));
    behind(&root, "db", |v1| {
        let mut ns = v1.create_bucket(b"ns").unwrap();
        let mut images = ns.create_bucket(b"images").unwrap();
        let mut a = images.create_bucket(b"a").unwrap();
        let mut target = a.create_bucket(b"target").unwrap();
        target.put(b"digest", b"d").unwrap();
        target.put(b"size", &varint::encode(1)).unwrap();
        a.create_bucket(b"labels").unwrap().put(b"k", &vec![0xff; (2 << 20) - (128 << 10)]).unwrap();
    });
    let length = std::fs::metadata(root.join("db")).unwrap().len();
    assert!(length <= 2 << 20, "it would fit anyhow: {length}");
    let listing = NamespacedFile::open(&root.join("db"), &read_only()).unwrap();
    let listing = listing.list("ns", &Filters::default()).unwrap();
    assert_eq!(names(&listing), ["a"], "{:?}", listing.problems);
}

/// Many images whose labels are one and the same tree: what a list would take has no bound but this.
#[test]
fn a_list_takes_no_more_memory_than_the_file_is_long() {
    let mut budget = Budget::new(1000);
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    let labels = (0..20).map(|number| (format!("key{number}"), "v".repeat(4000)));
    file.create("ns", &image("a", 1).with_labels(labels)).unwrap();
    let reading = file.begin();
    let root = reading.root();
    let images = root.bucket(V1).unwrap().unwrap().bucket(b"ns").unwrap().unwrap();
    let bucket = images.bucket(b"images").unwrap().unwrap().bucket(b"a").unwrap().unwrap();
    let error = record::read(b"a", &bucket, &mut budget).unwrap_err();
    assert_eq!(error.report(), "there is more in it than the file is long");
}

#[test]
fn files_of_other_schemas_and_versions_are_refused() {
    let root = TestRoot::in_memory("namespaced");
    let plain = root.join("plain");
    ImageFile::open(&plain, &options()).unwrap().init().unwrap();
    assert_eq!(schema_of(&plain, &options()).unwrap(), Schema::Images);
    for options in [options(), read_only()] {
        says(
            NamespacedFile::open(&plain, &options),
            ErrorKind::InvalidData,
            "it has names of images without namespaces (the schema of containerd_images_open)",
        );
    }
    ImageFile::open(&plain, &options()).unwrap();

    let with_version = |name: &str, version: i64| {
        behind(&root, name, |v1| {
            v1.put(VERSION, &varint::encode(version)).unwrap();
            v1.create_bucket_if_not_exists(b"ns").unwrap();
        });
        root.join(name)
    };
    for (version, reads, writes) in
        [(-1, false, false), (2, true, false), (3, true, true), (4, true, true), (5, false, false)]
    {
        let path = with_version(&format!("v{version}"), version);
        assert_eq!(NamespacedFile::open(&path, &read_only()).is_ok(), reads, "{version}");
        assert_eq!(NamespacedFile::open(&path, &options()).is_ok(), writes, "{version}");
    }
    says(
        NamespacedFile::open(&root.join("v5"), &options()),
        ErrorKind::Unsupported,
        "its schema has version 5, which is not known",
    );
    // From before it had versions.
    behind(&root, "old", |v1| {
        v1.create_bucket(b"ns").unwrap();
    });
    assert_eq!(schema_of(&root.join("old"), &options()).unwrap(), Schema::Namespaced { version: 0 });
    NamespacedFile::open(&root.join("old"), &read_only()).unwrap();
    // A new file that is only read has no schema.
    drop(BoltFile::open(&Dir::open(root.path()).unwrap(), "empty", &options()).unwrap());
    says(NamespacedFile::open(&root.join("empty"), &read_only()), ErrorKind::InvalidData, "nothing in it");
}

#[test]
fn after_a_change_in_part_nothing_is_committed() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    file.create("ns", &image("a", 1)).unwrap();
    behind(root_closed(file, &root), "db", |v1| {
        let mut ns = v1.bucket(b"ns").unwrap().unwrap();
        let mut images = ns.bucket(b"images").unwrap().unwrap();
        let mut a = images.bucket(b"a").unwrap().unwrap();
        a.bucket(b"target").unwrap().unwrap().create_bucket(b"size2").unwrap();
        let mut target = a.bucket(b"target").unwrap().unwrap();
        target.delete(b"size").unwrap();
        target.create_bucket(b"size").unwrap();
    });
    let file = opened(&root);
    let before = file.get("ns", "a").unwrap();
    let mut writing = file.begin_write().unwrap();
    says(writing.update("ns", &image("a", 2), &[]), ErrorKind::InvalidArgument, ": incompatible value");
    says(writing.commit(), ErrorKind::Latched, "an earlier change was made in part only");
    assert_eq!(file.get("ns", "a").unwrap(), before);
    file.create("ns", &image("b", 2)).unwrap();
}

#[test]
fn a_list_tells_a_thousand_problems_and_how_many_more_there_are() {
    let root = TestRoot::in_memory("namespaced");
    drop(opened(&root));
    behind(&root, "db", |v1| {
        let mut ns = v1.create_bucket(b"ns").unwrap();
        let mut images = ns.create_bucket(b"images").unwrap();
        for number in 0..1100 {
            images.create_bucket(format!("image{number}").as_bytes()).unwrap();
        }
    });
    let listing = opened(&root).list("ns", &Filters::default()).unwrap();
    assert_eq!((listing.problems.len(), listing.unreadable), (1001, 1100));
    assert_eq!(listing.problems[1000].1.report(), "100 more images cannot be read");
    let report = opened_as(&root, "ours").import(&root.join("db"), None, None).unwrap();
    assert_eq!((report.problems.len(), report.left_out), (1001, 1100));
}

/// Reads everything that can be read; what it says does not matter.
fn read_all(path: &Path) -> usize {
    let Ok(file) = NamespacedFile::open(path, &read_only()) else { return 0 };
    let found = file.namespaces().unwrap_or_default();
    let list = |name: &String| file.list(name, &Filters::default()).map_or(0, |found| found.images.len());
    found.iter().map(list).sum()
}

#[test]
fn damaged_files_do_no_harm() {
    let root = TestRoot::in_memory("namespaced");
    let small = Options { page_size: 1024, ..options() };
    let file = NamespacedFile::open(&root.join("db"), &small).unwrap();
    let mut transaction = file.begin_write().unwrap();
    for number in 0..30 {
        let labels = (0..number % 5).map(|key| (format!("key{key}"), "v".repeat(usize::from(key) * 90)));
        transaction.create("ns", &image(&format!("image{number}"), number).with_labels(labels)).unwrap();
    }
    transaction.commit().unwrap();
    drop(file);
    let sound = std::fs::read(root.join("db")).unwrap();
    assert_eq!(read_all(&root.join("db")), 30);
    let used: Vec<usize> = (0..sound.len()).filter(|at| sound[*at] != 0).collect();
    let mut number = 1u64;
    let mut next = |limit: usize| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(number >> 33).unwrap() % limit
    };
    let ours = opened_as(&root, "ours");
    let (mut whole, mut part) = (0, 0);
    for round in 0..2000 {
        let mut damaged = sound.clone();
        for _ in 0..=next(3) {
            damaged[used[next(used.len())]] ^= 1 << next(8);
        }
        let path = root.join("damaged");
        #[allow(clippy::disallowed_methods, reason = "a test")]
        std::fs::write(&path, &damaged).unwrap();
        match read_all(&path) {
            30 => whole += 1,
            _ => part += 1,
        }
        if round % 10 == 0 {
            let imported = ours.import(&path, None, Some(Duration::ZERO));
            // Damage is in names and targets at most.
            assert!(
                imported.is_err_and(|error| error.kind() != ErrorKind::Latched)
                    || ours.begin().check().is_ok()
            );
        }
    }
    assert!(whole > 100 && part > 100, "{whole} {part}");
}

fn opened_as(root: &TestRoot, name: &str) -> NamespacedFile {
    NamespacedFile::open(&root.join(name), &options()).unwrap()
}

#[test]
fn transactions_of_either_store_may_go_to_another_thread() {
    fn sendable<T: Send + 'static>() {}
    sendable::<NamespacedTransaction>();
    sendable::<ImageTransaction>();
}
