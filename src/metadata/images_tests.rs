// SPDX-License-Identifier: MulanPSL-2.0
//! Each row of the table of how the image store of containerd behaved in April 2017.

use std::time::Duration;

use super::boltfile::BoltFile;
use super::database::{IMAGES, V1};
use super::images::{DIGEST, SIZE};
use super::*;
use crate::error::{During, Result};
use crate::persist::Durability;
use crate::sys::fs::Dir;
use crate::sys::testing::TestRoot;

fn options() -> Options {
    Options { timeout: Some(Duration::ZERO), durability: Durability::None, ..Options::default() }
}

fn read_only() -> Options {
    Options { access: Access::ReadOnly, ..options() }
}

fn opened(root: &TestRoot) -> ImageFile {
    ImageFile::open(&root.join("db"), &options()).unwrap()
}

fn initialised(root: &TestRoot) -> ImageFile {
    let file = opened(root);
    file.init().unwrap();
    file
}

fn target(number: i64) -> Target {
    Target { media_type: "m/t".to_owned(), digest: format!("sha256:{number:064x}"), size: number }
}

/// Changes what lies in the file behind the store's back.
fn behind(root: &TestRoot, change: impl FnOnce(&mut boltfile::BucketMut<'_>)) {
    let file = BoltFile::open(&Dir::open(root.path()).unwrap(), "db", &options()).unwrap();
    let mut transaction = file.begin_write().unwrap();
    let mut outer = transaction.root_mut().unwrap();
    let mut v1 = outer.bucket(V1).unwrap().unwrap();
    change(&mut v1.bucket(IMAGES).unwrap().unwrap());
    transaction.commit().unwrap();
}

fn names(images: &[Image]) -> Vec<&[u8]> {
    images.iter().map(|image| &image.name[..]).collect()
}

fn says<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, end: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.report());
    assert!(error.report().ends_with(end), "{}", error.report());
}

fn is_missing<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert!(is_not_found(&error) && !is_exists(&error), "{}", error.report());
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().ends_with("images: not found"), "{}", error.report());
}

#[test]
fn init_can_be_repeated() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    file.put(b"a", &target(1)).unwrap();
    file.init().unwrap();
    assert_eq!(file.get(b"a").unwrap(), Image { name: b"a".to_vec(), target: target(1) });
}

#[test]
fn everything_is_not_found_before_init_also_a_list() {
    let root = TestRoot::in_memory("images");
    let file = opened(&root);
    is_missing(file.get(b"a"));
    is_missing(file.list());
    is_missing(file.put(b"a", &target(1)));
    is_missing(file.delete(b"a"));
    is_missing(file.put(b"", &target(1)));
    // Also where it could not be written.
    is_missing(file.begin().put(b"a", &target(1)));
    drop(file);
    is_missing(ImageFile::open(&root.join("db"), &read_only()).unwrap().list());
}

#[test]
fn a_list_of_an_empty_store_is_empty() {
    let root = TestRoot::in_memory("images");
    assert_eq!(initialised(&root).list().unwrap(), []);
}

#[test]
fn get_of_a_missing_or_empty_name_is_not_found_however_wrapped() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    is_missing(file.get(b"a"));
    is_missing(file.get(b""));
    let wrapped = file.get(b"a").unwrap_err().context("pull").context("run").with_kind(ErrorKind::InUse);
    assert!(is_not_found(&wrapped));
    let through_io: std::io::Result<()> = Err(file.get(b"a").unwrap_err().into());
    assert!(is_not_found(&through_io.during(|| "read").unwrap_err()));
    // What else is not there is no image.
    let error = ImageFile::open(&root.join("other"), &read_only()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!is_not_found(&error));
}

#[test]
fn put_creates_and_replaces() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    for number in [1, 2] {
        file.put(b"a", &target(number)).unwrap();
        assert_eq!(file.list().unwrap(), [Image { name: b"a".to_vec(), target: target(number) }]);
    }
}

#[test]
fn put_of_an_empty_name_is_refused() {
    let root = TestRoot::in_memory("images");
    let refused = initialised(&root).put(b"", &target(1));
    says(refused, ErrorKind::InvalidArgument, ": bucket name required");
}

#[test]
fn names_may_be_any_bytes_and_forty_thousand_of_them() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    let long = vec![b'x'; 40_000];
    let odd: [&[u8]; 5] = [b"a\0b", b"\0", b"\xff\xfe", b"../../etc", &long];
    for (number, name) in (1..).zip(odd) {
        file.put(name, &target(number)).unwrap();
        assert_eq!(file.get(name).unwrap(), Image { name: name.to_vec(), target: target(number) });
    }
    assert_eq!(file.list().unwrap().len(), odd.len());
    drop(file);
    let file = opened(&root);
    for name in odd {
        file.delete(name).unwrap();
    }
    assert_eq!(file.list().unwrap(), []);
}

#[test]
fn targets_are_not_looked_at() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    for size in [0, -1, i64::MIN, i64::MAX] {
        let target = Target { media_type: String::new(), digest: String::new(), size };
        file.put(b"a", &target).unwrap();
        assert_eq!(file.get(b"a").unwrap().target, target);
    }
}

#[test]
fn a_transaction_that_reads_cannot_write() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    file.put(b"a", &target(1)).unwrap();
    let mut reading = file.begin();
    assert!(!reading.is_writable());
    says(reading.put(b"b", &target(1)), ErrorKind::ReadOnly, ": tx not writable");
    says(reading.put(b"", &target(1)), ErrorKind::ReadOnly, ": tx not writable");
    says(reading.delete(b"a"), ErrorKind::ReadOnly, ": tx not writable");
    says(reading.delete(b"missing"), ErrorKind::ReadOnly, ": tx not writable");
    says(reading.commit(), ErrorKind::ReadOnly, ": tx not writable");
    drop(file);
    let file = ImageFile::open(&root.join("db"), &read_only()).unwrap();
    says(file.put(b"b", &target(1)), ErrorKind::ReadOnly, ": database is in read-only mode");
    says(file.init(), ErrorKind::ReadOnly, ": database is in read-only mode");
    assert_eq!(names(&file.list().unwrap()), [b"a"]);
}

#[test]
fn delete_takes_an_image_with_all_that_lies_in_it() {
    let root = TestRoot::in_memory("images");
    initialised(&root).put(b"a", &target(1)).unwrap();
    behind(&root, |images| {
        let mut image = images.bucket(b"a").unwrap().unwrap();
        image.create_bucket(b"nested").unwrap().put(b"k", &[7; 9000]).unwrap();
    });
    let file = opened(&root);
    file.delete(b"a").unwrap();
    is_missing(file.get(b"a"));
    assert_eq!(file.list().unwrap(), []);
}

#[test]
fn delete_of_a_missing_or_empty_name_is_not_found() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    is_missing(file.delete(b"a"));
    is_missing(file.delete(b""));
    file.put(b"a", &target(1)).unwrap();
    file.delete(b"a").unwrap();
    is_missing(file.delete(b"a"));
}

#[test]
fn lists_are_in_the_byte_order_of_names() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    let sorted: [&[u8]; 6] = [b"Z", b"a", b"a\0b", b"docker.io/library/busybox:1", "é".as_bytes(), b"\xff"];
    for name in [3, 0, 5, 1, 4, 2].map(|at| sorted[at]) {
        file.put(name, &target(1)).unwrap();
    }
    assert_eq!(names(&file.list().unwrap()), sorted);
}

#[test]
fn nothing_persists_of_a_rolled_back_transaction_which_sees_its_own_changes() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    file.put(b"a", &target(1)).unwrap();
    let mut writing = file.begin_write().unwrap();
    let before = file.begin();
    writing.put(b"b", &target(2)).unwrap();
    writing.put(b"a", &target(3)).unwrap();
    assert_eq!(writing.get(b"a").unwrap().target, target(3));
    assert_eq!(names(&writing.list().unwrap()), [b"a", b"b"]);
    writing.delete(b"a").unwrap();
    assert_eq!(names(&writing.list().unwrap()), [b"b"]);
    is_missing(writing.get(b"a"));
    assert_eq!(names(&before.list().unwrap()), [b"a"]);
    drop(writing);
    assert_eq!(file.list().unwrap(), [Image { name: b"a".to_vec(), target: target(1) }]);

    let mut writing = file.begin_write().unwrap();
    writing.put(b"b", &target(2)).unwrap();
    writing.commit().unwrap();
    assert_eq!(names(&before.list().unwrap()), [b"a"], "it sees what was when it began");
    drop((before, file));
    assert_eq!(names(&opened(&root).list().unwrap()), [b"a", b"b"]);
}

#[test]
fn unknown_keys_and_buckets_are_passed_over_and_an_empty_image_has_an_empty_target() {
    let root = TestRoot::in_memory("images");
    initialised(&root).put(b"a", &target(1)).unwrap();
    behind(&root, |images| {
        let mut image = images.bucket(b"a").unwrap().unwrap();
        image.put(b"colour", b"red").unwrap();
        image.create_bucket(b"labels").unwrap().put(SIZE, b"x").unwrap();
        images.create_bucket(b"empty").unwrap();
        images.create_bucket(b"odd").unwrap().create_bucket(DIGEST).unwrap();
    });
    let file = opened(&root);
    assert_eq!(file.get(b"a").unwrap().target, target(1));
    assert_eq!(file.get(b"empty").unwrap().target, Target::default());
    assert_eq!(file.get(b"odd").unwrap().target, Target::default());
    assert_eq!(names(&file.list().unwrap()), [&b"a"[..], b"empty", b"odd"]);
}

#[test]
fn a_size_that_does_not_parse_is_zero() {
    let root = TestRoot::in_memory("images");
    initialised(&root).put(b"a", &target(1)).unwrap();
    for bad in [&[][..], &[0x80], &[0xff; 11]] {
        behind(&root, |images| images.bucket(b"a").unwrap().unwrap().put(SIZE, bad).unwrap());
        let file = opened(&root);
        assert_eq!(file.get(b"a").unwrap().target, Target { size: 0, ..target(1) });
        assert_eq!(file.list().unwrap()[0].target.size, 0);
    }
}

#[test]
fn a_value_in_the_place_of_an_image_is_an_error() {
    let root = TestRoot::in_memory("images");
    initialised(&root).put(b"a", &target(1)).unwrap();
    behind(&root, |images| images.put(b"value", b"v").unwrap());
    let file = opened(&root);
    is_missing(file.get(b"value"));
    says(file.put(b"value", &target(1)), ErrorKind::InvalidArgument, ": incompatible value");
    says(file.delete(b"value"), ErrorKind::InvalidArgument, ": incompatible value");
    says(file.list(), ErrorKind::Corrupt, ": \"value\": it is a value, not an image");
    assert_eq!(file.get(b"a").unwrap().target, target(1));
}

#[test]
fn a_second_user_waits_for_the_file_and_is_told_who_has_it() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    let in_use = format!(": in use by pid {}", std::process::id());
    says(ImageFile::open(&root.join("db"), &options()), ErrorKind::InUse, &in_use);
    says(ImageFile::open(&root.join("db"), &read_only()), ErrorKind::InUse, &in_use);
    let writing = file.begin_write().unwrap();
    says(file.begin_write(), ErrorKind::InUse, ": another transaction writes");
    says(file.put(b"a", &target(1)), ErrorKind::InUse, ": another transaction writes");
    drop(writing);
    drop(file);
    let first = ImageFile::open(&root.join("db"), &read_only()).unwrap();
    ImageFile::open(&root.join("db"), &read_only()).unwrap();
    says(ImageFile::open(&root.join("db"), &options()), ErrorKind::InUse, &in_use);
    drop(first);
}

#[test]
fn a_file_of_another_schema_is_refused_by_name() {
    let root = TestRoot::in_memory("images");
    let path = root.join("db");
    drop(NamespacedFile::open(&path, &options()).unwrap());
    assert_eq!(schema_of(&path, &options()).unwrap(), Schema::Namespaced { version: OUR_VERSION });
    let length = std::fs::metadata(&path).unwrap().len();
    for options in [options(), read_only()] {
        says(
            ImageFile::open(&path, &options),
            ErrorKind::InvalidData,
            "it has namespaces, as containerd's metadata today (version 3 of the schema of \
             containerd_images_namespaced_open)",
        );
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);

    let dir = Dir::open(root.path()).unwrap();
    let other = BoltFile::open(&dir, "other", &options()).unwrap();
    let mut transaction = other.begin_write().unwrap();
    transaction.root_mut().unwrap().create_bucket(b"something").unwrap();
    transaction.commit().unwrap();
    drop(other);
    says(
        ImageFile::open(&root.join("other"), &options()),
        ErrorKind::InvalidData,
        "not one of image metadata",
    );
    #[allow(clippy::disallowed_methods, reason = "a test")]
    std::fs::write(root.join("text"), "text").unwrap();
    assert_eq!(ImageFile::open(&root.join("text"), &options()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(std::fs::read(root.join("text")).unwrap(), b"text");
}

#[test]
fn names_in_messages_are_short_and_printable() {
    assert_eq!(shown(b"a"), "\"a\"");
    assert_eq!(shown("é".as_bytes()), "\"é\"");
    assert_eq!(shown(b"\xff\n"), "\"\\xff\\n\"");
    assert_eq!(shown(&[b'x'; 40_000]), format!("\"{}\"…", "x".repeat(200)));
}

fn refused_as_too_much(root: &TestRoot, content: &[u8], end: &str) {
    #[allow(clippy::disallowed_methods, reason = "a test")]
    std::fs::write(root.join("made"), content).unwrap();
    let file = ImageFile::open(&root.join("made"), &read_only()).unwrap();
    says(file.list(), ErrorKind::Corrupt, end);
    assert_eq!(file.begin_write().unwrap_err().kind(), ErrorKind::ReadOnly);
}

/// 3,000 images of 256 KiB: the list would have 750 MiB, for a file of less than one.
#[test]
fn a_list_of_images_that_are_all_the_same_page_takes_no_more_memory_than_the_file_is_long() {
    let root = TestRoot::in_memory("images");
    for key in ["digest", "mediatype"] {
        let content = boltfile::hostile_tests::file_of_one_image(3000, &[(key, vec![b'x'; 256 << 10])]);
        assert!(content.len() < 1 << 20);
        refused_as_too_much(&root, &content, ": there is more in it than the file is long");
    }
}

/// The same, with nothing in it that would be copied: what would have no bounds is what is read.
#[test]
fn a_list_of_images_that_are_all_the_same_page_reads_no_more_than_some_times_the_file() {
    let root = TestRoot::in_memory("images");
    let content = boltfile::hostile_tests::file_of_one_image(3000, &[("other", vec![b'x'; 256 << 10])]);
    refused_as_too_much(&root, &content, "pages have more than one place: too much would be read");
}

/// A transaction that writes has seen that the file is sound, and sees more than lies in it.
#[test]
fn a_list_within_a_transaction_has_what_the_file_has_not_yet() {
    let root = TestRoot::in_memory("images");
    let file = initialised(&root);
    let mut writing = file.begin_write().unwrap();
    let long = Target { digest: "d".repeat(1000), ..target(1) };
    for number in 0..2000 {
        writing.put(format!("image{number}").as_bytes(), &long).unwrap();
    }
    assert_eq!(writing.list().unwrap().len(), 2000);
}

#[test]
fn a_put_that_cannot_be_made_changes_nothing() {
    let root = TestRoot::in_memory("images");
    initialised(&root).put(b"a", &target(1)).unwrap();
    behind(&root, |images| {
        let mut image = images.bucket(b"a").unwrap().unwrap();
        image.delete(SIZE).unwrap();
        image.create_bucket(SIZE).unwrap();
    });
    let file = opened(&root);
    let mut writing = file.begin_write().unwrap();
    says(writing.put(b"a", &target(2)), ErrorKind::InvalidArgument, ": incompatible value");
    writing.commit().unwrap();
    assert_eq!(file.get(b"a").unwrap().target, Target { size: 0, ..target(1) });
}
