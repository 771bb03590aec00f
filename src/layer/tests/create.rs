// SPDX-License-Identifier: MulanPSL-2.0
//! Creation: what is written, what is refused, what remains after a failure.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fake::Fault;
use super::*;
use crate::time::Timestamp;

/// A reader that must not be read.
struct Untouchable;

impl Read for Untouchable {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("the content was read")
    }
}

fn without_time(record: &str) -> String {
    let lines = record.lines().filter(|line| !line.contains("\"created\""));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_image_layer_is_written_as_the_reference_writes_it() {
    let place = Place::new();
    let store = place.open();
    let before = Timestamp::now();
    let base = add_image(&store, 1, None);
    let top = add_image(&store, 2, Some(1));

    let layers = place.path("root/vfs-layers");
    let digest = Digest::of(b"content of 2");
    let record = std::fs::read_to_string(place.record_dir(&top).join("layer.json")).unwrap();
    assert_eq!(
        without_time(&record),
        format!(
            "{{\n    \"id\": \"{top}\",\n    \"parent\": \"{base}\",\n    \"compressed-diff-digest\": \"{digest}\",\n    \
             \"diff-digest\": \"{digest}\",\n    \"diff-size\": 12\n}}"
        )
    );
    let modes: Vec<_> = tree(&layers).into_iter().map(|(path, (mode, _))| (path, mode)).collect();
    let mut expected = Vec::new();
    for id in [&base, &top] {
        expected.push((PathBuf::from(id.as_str()), 0o700));
        expected.push((Path::new(id.as_str()).join(format!("{id}.tar-split.gz")), 0o600));
        expected.push((Path::new(id.as_str()).join("layer.json"), 0o600));
    }
    assert_eq!(modes, expected);
    let mode = std::fs::metadata(&layers).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);

    let layer = store.find(top.as_str()).unwrap();
    let created = Timestamp::parse(layer.created.as_deref().unwrap()).unwrap();
    assert!(before <= created && created <= Timestamp::now(), "created is not UTC: {created:?}");
    assert_eq!((layer.uncompressed_size, layer.compressed_size), (12, 0));
    assert_eq!(layer.mount_point, Some(place.data_dir(&top).join("merged")));
    assert_eq!((layer.mount_count, layer.writable), (0, false));
    assert_eq!(store.hold_count(&top).unwrap(), 1);
    assert!(!place.run_file(&top).exists(), "mount state is written by mounts only");
}

#[test]
fn a_container_layer_has_no_tar_split_and_no_digests() {
    let place = Place::new();
    let store = place.open();
    let base = add_image(&store, 1, None);
    let layer = CreateLayer { names: vec!["n1".into(), "n2".into()], ..container(base.clone()) };
    store.create(&id(2), &CreateLayer { mount_label: Some("l".into()), ..layer }, None).unwrap();
    let record = std::fs::read_to_string(place.record_dir(&id(2)).join("layer.json")).unwrap();
    assert_eq!(
        without_time(&record),
        format!(
            "{{\n    \"id\": \"{}\",\n    \"names\": [\n        \"n1\",\n        \"n2\"\n    ],\n    \"parent\": \"{base}\",\n    \
             \"mountlabel\": \"l\",\n    \"writable\": true\n}}",
            id(2)
        )
    );
    assert_eq!(std::fs::read_dir(place.record_dir(&id(2))).unwrap().count(), 1);
    assert_eq!(store.find("n2").unwrap().id, id(2));
}

#[test]
fn content_is_durable_before_the_record_is_complete() {
    let place = Place::new();
    let store = place.open();
    let record = place.record_dir(&id(1)).join("layer.json");
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen_by_hook = seen.clone();
    *place.world.hook.lock() = Some(Arc::new(move |operation| {
        let text = std::fs::read_to_string(&record).unwrap();
        seen_by_hook.lock().push((operation.to_owned(), text.contains("\"incompelte\": true")));
    }));
    add_image(&store, 1, None);
    let expected: Vec<_> =
        ["create", "apply", "sync"].iter().map(|name| ((*name).to_owned(), true)).collect();
    assert_eq!(*seen.lock(), expected);
}

#[test]
fn an_existing_layer_gains_a_reference_and_nothing_is_read() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    store.create(&id(2), &named(&["other"]), None).unwrap();
    // Different parent, digest and kind: not compared.
    let other = CreateLayer { parent: Some(id(9)), writable: true, ..image(None, "x") };
    let created = store.create(&id(1), &other, Some(&mut Untouchable)).unwrap();
    assert_eq!(created, Created::Existing(id(1)));
    assert_eq!(store.hold_count(&id(1)).unwrap(), 2);
    let by_name = store.create(&LayerId::new("other").unwrap(), &other, Some(&mut Untouchable)).unwrap();
    assert_eq!(by_name, Created::Existing(id(2)));
    assert_eq!(store.hold_count(&id(2)).unwrap(), 2);
}

#[test]
fn refused_requests_leave_nothing() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    store.create(&id(2), &named(&["taken"]), None).unwrap();
    // In the driver, but not in the store.
    std::fs::create_dir(place.data_dir(&id(7))).unwrap();
    let before = tree(&place.path("root"));
    let upper = format!("sha256:{}", "A".repeat(64));
    let digest =
        |text: &str| CreateLayer { uncompressed_digest: Some(text.into()), ..CreateLayer::default() };
    let table = [
        ("unknown parent", container(id(9)), ErrorKind::NotFound),
        ("parent known to the driver only", container(id(7)), ErrorKind::NotFound),
        ("parent by name", container(LayerId::new("taken").unwrap()), ErrorKind::NotFound),
        ("own parent", container(id(3)), ErrorKind::NotFound),
        ("name taken", named(&["free", "taken"]), ErrorKind::AlreadyExists),
        ("name twice", named(&["free", "free"]), ErrorKind::AlreadyExists),
        ("no digest", digest("sha256:"), ErrorKind::InvalidArgument),
        ("other algorithm", digest("md5:d41d8cd98f00b204e9800998ecf8427e"), ErrorKind::InvalidArgument),
        ("upper case", digest(&upper), ErrorKind::InvalidArgument),
    ];
    for (what, layer, expected) in table {
        assert_eq!(kind(store.create(&id(3), &layer, Some(&mut Untouchable))), expected, "{what}");
        assert!(!store.exists(id(3).as_str()), "{what}");
        assert_eq!(tree(&place.path("root")), before, "{what}");
    }
    assert!(!store.has_children(&id(1)));
    store.create(&id(3), &named(&["free"]), None).unwrap();
}

#[test]
fn promised_digests_are_verified() {
    let plain = Digest::of(b"data").to_string();
    let packed = Digest::of(b"GZ:data").to_string();
    let third = Digest::of(b"something else").to_string();
    let mismatch = Some(ErrorKind::DigestMismatch);
    // content, compressed, uncompressed, what comes of it
    let table = [
        ("data", None, None, None),
        ("data", Some(&plain), Some(&plain), None),
        ("data", None, Some(&plain), None),
        ("data", Some(&packed), Some(&plain), mismatch),
        ("data", None, Some(&third), mismatch),
        ("data", Some(&third), None, mismatch),
        ("GZ:data", Some(&packed), Some(&plain), None),
        ("GZ:data", Some(&packed), None, None),
        ("GZ:data", None, Some(&plain), None),
        // The caller names the plain archive twice.
        ("GZ:data", Some(&plain), Some(&plain), None),
        // The reference's import names the compressed one twice.
        ("GZ:data", Some(&packed), Some(&packed), None),
        ("GZ:data", None, Some(&packed), mismatch),
        ("GZ:data", Some(&plain), Some(&packed), mismatch),
        ("GZ:data", Some(&third), Some(&plain), mismatch),
        ("GZ:data", Some(&third), Some(&third), mismatch),
    ];
    for (content, compressed, uncompressed, expected) in table {
        let what = format!("{content} {compressed:?} {uncompressed:?}");
        let place = Place::new();
        let store = place.open();
        let layer = CreateLayer {
            compressed_digest: compressed.cloned(),
            uncompressed_digest: uncompressed.cloned(),
            ..CreateLayer::default()
        };
        let created = store.create(&id(1), &layer, Some(&mut content.as_bytes()));
        assert_eq!(created.as_ref().err().map(Error::kind), expected, "{what}");
        if created.is_err() {
            place.assert_absent(&id(1));
            continue;
        }
        let listed = store.find(id(1).as_str()).unwrap();
        assert_eq!(listed.compressed_digest.as_ref(), compressed, "{what}");
        assert_eq!(listed.uncompressed_digest.as_ref(), uncompressed, "{what}");
        let mut out = Vec::new();
        let (digest, size) = store.export(id(1).as_str(), &mut out).unwrap();
        assert_eq!((digest.to_string(), size.0, out.as_slice()), (plain.clone(), 4, &b"data"[..]), "{what}");
    }
}

#[test]
fn an_export_is_verified_also_where_the_record_holds_the_compressed_digest() {
    let place = Place::new();
    let store = place.open();
    let packed = Some(Digest::of(b"GZ:data").to_string());
    let layer = CreateLayer {
        compressed_digest: packed.clone(),
        uncompressed_digest: packed,
        ..CreateLayer::default()
    };
    store.create(&id(1), &layer, Some(&mut &b"GZ:data"[..])).unwrap();
    let beside =
        std::fs::read_to_string(place.record_dir(&id(1)).join(format!("{}.diff-id", id(1)))).unwrap();
    assert_eq!(beside, format!("{}\n", Digest::of(b"data")));
    place.put(&place.data_dir(&id(1)).join("content"), "date");
    assert_eq!(kind(store.export(id(1).as_str(), &mut Vec::new())), ErrorKind::DigestMismatch);
}

#[test]
fn nothing_remains_when_a_step_fails() {
    for operation in ["create", "apply", "sync"] {
        let place = Place::new();
        let store = place.open();
        add_image(&store, 1, None);
        let layer = CreateLayer { names: vec!["n".into()], ..image(Some(id(1)), "x") };
        let before = tree(&place.path("root/vfs-layers"));
        place.world.fail(operation, Fault::Before(ErrorKind::Os(libc::ENOSPC)));
        let failed = store.create(&id(2), &layer, Some(&mut &b"x"[..]));
        assert_eq!(kind(failed), ErrorKind::Os(libc::ENOSPC), "{operation}");
        place.assert_absent(&id(2));
        assert_eq!(tree(&place.path("root/vfs-layers")), before, "{operation}");
        assert_eq!(ids(&store), [id(1)], "{operation}");
        assert!(!store.has_children(&id(1)), "{operation}");
        assert_eq!(
            store.create(&id(2), &layer, Some(&mut &b"x"[..])).unwrap(),
            Created::New(id(2)),
            "{operation}"
        );
        store.close().unwrap();
        place.assert_no_trash();
    }
}

#[test]
fn a_failed_roll_back_keeps_the_first_error_and_is_finished_at_the_next_start() {
    let place = Place::new();
    let store = place.open();
    place.world.fail("apply", Fault::Before(ErrorKind::InvalidData));
    place.world.fail("remove", Fault::Before(ErrorKind::Os(libc::EIO)));
    let failed = store.create(&id(1), &image(None, "x"), Some(&mut &b"x"[..])).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::InvalidData);
    assert_eq!(failed.report(), format!("create layer {}: apply was told to fail", id(1)));
    assert!(place.record_dir(&id(1)).exists(), "the record is what says that the data may go");
    assert!(ids(&store).is_empty());
    drop(store);
    let store = place.open();
    assert_eq!((ids(&store), store.problems()), (Vec::new(), Vec::new()));
    place.assert_absent(&id(1));
}

#[test]
fn a_failed_roll_back_does_not_hinder_the_next_creation() {
    let place = Place::new();
    let store = place.open();
    place.world.fail("apply", Fault::Before(ErrorKind::InvalidData));
    place.world.fail("remove", Fault::Before(ErrorKind::Os(libc::EIO)));
    store.create(&id(1), &image(None, "x"), Some(&mut &b"x"[..])).unwrap_err();
    add_image(&store, 1, None);
    assert!(store.quarantined().unwrap().is_empty());
}

#[test]
fn a_failing_or_panicking_reader_leaves_nothing() {
    struct Failing(ErrorKind);
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::new(self.0, "the caller gave up").into())
        }
    }
    let place = Place::new();
    let store = place.open();
    let failed = store.create(&id(1), &image(None, "x"), Some(&mut Failing(ErrorKind::Cancelled)));
    assert_eq!(kind(failed), ErrorKind::Cancelled);
    place.assert_absent(&id(1));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let panicked =
        catch_unwind(AssertUnwindSafe(|| store.create(&id(1), &image(None, "x"), Some(&mut Untouchable))));
    std::panic::set_hook(hook);
    assert!(panicked.is_err());
    place.assert_absent(&id(1));
    add_image(&store, 1, None);
}

#[test]
fn what_is_in_the_way_is_put_aside() {
    let place = Place::new();
    let store = place.open();
    place.put(&place.record_dir(&id(1)).join("layer.json"), "not a record");
    place.put(&place.data_dir(&id(1)).join("content"), "somebody's");
    add_image(&store, 1, None);
    let aside: Vec<_> = store.quarantined().unwrap().into_iter().map(|entry| entry.path).collect();
    assert_eq!(aside.len(), 2);
    assert_eq!(std::fs::read_to_string(aside[0].join("layer.json")).unwrap(), "not a record");
    assert_eq!(std::fs::read_to_string(aside[1].join("content")).unwrap(), "somebody's");
}

#[test]
fn mount_state_of_an_earlier_layer_does_not_count_for_a_new_one() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    place.put(&place.run_file(&id(2)), "{\"count\": 3, \"path\": \"/nowhere\"}");
    add_container(&store, 2, 1);
    drop(store);
    let store = place.open();
    assert_eq!(store.find(id(2).as_str()).unwrap().mount_count, 0);
    assert!(place.world.mounted.lock().is_empty());
}

#[test]
fn a_layer_without_content_but_with_a_digest_is_kept_and_not_checkable() {
    let place = Place::new();
    let store = place.open();
    store.create(&id(1), &image(None, "x"), None).unwrap();
    assert_eq!(kind(store.check(id(1).as_str())), ErrorKind::Corrupt);
    assert_eq!(kind(store.export(id(1).as_str(), &mut Vec::new())), ErrorKind::Corrupt);
    drop(store);
    let store = place.open();
    assert_eq!(ids(&store), [id(1)]);
    assert_eq!(store.problems().len(), 1);
}

#[test]
fn references_are_counted_by_id_and_may_become_negative() {
    let place = Place::new();
    let store = place.open();
    store.create(&id(1), &named(&["n"]), None).unwrap();
    let name = LayerId::new("n").unwrap();
    store.hold(&id(1)).unwrap();
    assert_eq!(store.hold_count(&id(1)).unwrap(), 2);
    for left in [1, 0, -1] {
        store.release(&id(1)).unwrap();
        assert_eq!(store.hold_count(&id(1)).unwrap(), left);
    }
    for unknown in [name, id(9)] {
        assert_eq!(kind(store.hold(&unknown)), ErrorKind::NotFound);
        assert_eq!(kind(store.release(&unknown)), ErrorKind::NotFound);
        assert_eq!(kind(store.hold_count(&unknown)), ErrorKind::NotFound);
    }
    drop(store);
    assert_eq!(place.open().hold_count(&id(1)).unwrap(), 0);
}

#[test]
fn digests_find_all_their_layers_in_order_of_creation() {
    let place = Place::new();
    let store = place.open();
    for number in [3, 1, 2] {
        store.create(&id(number), &image(None, "same"), Some(&mut &b"same"[..])).unwrap();
    }
    add_image(&store, 4, None);
    let digest = Digest::of(b"same").to_string();
    let found =
        |layers: Vec<super::super::Layer>| layers.into_iter().map(|layer| layer.id).collect::<Vec<_>>();
    assert_eq!(found(store.by_compressed_digest(&digest)), [id(3), id(1), id(2)]);
    assert_eq!(found(store.by_uncompressed_digest(&digest)), [id(3), id(1), id(2)]);
    store.delete(id(1).as_str()).unwrap();
    assert_eq!(found(store.by_compressed_digest(&digest)), [id(3), id(2)]);
    drop(store);
    let store = place.open();
    assert_eq!(found(store.by_uncompressed_digest(&digest)), [id(3), id(2)]);
    assert_eq!(ids(&store), [id(3), id(2), id(4)]);
    let hex = digest.trim_start_matches("sha256:");
    assert!(store.by_compressed_digest(hex).is_empty() && store.by_compressed_digest("").is_empty());
}
