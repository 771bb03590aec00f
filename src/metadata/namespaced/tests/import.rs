// SPDX-License-Identifier: MulanPSL-2.0
//! Taking over images of another file.

use super::*;

#[test]
fn an_import_takes_images_with_their_times_and_leaves_ours_alone() {
    let root = TestRoot::in_memory("namespaced");
    // As containerd 1.7 and later write it.
    let without = Options { freelist: Freelist::Absent, ..options() };
    let theirs = NamespacedFile::open(&root.join("theirs"), &without).unwrap();
    for (namespace, name, number) in [("one", "a", 1), ("one", "b", 2), ("one", "c", 3), ("two", "d", 4)] {
        theirs.create(namespace, &image(name, number).with_labels([("l", name)])).unwrap();
    }
    let a = theirs.get("one", "a").unwrap();
    let path = root.join("theirs");
    let ours = opened(&root);
    says(
        ours.import(&path, None, Some(Duration::ZERO)),
        ErrorKind::InUse,
        &format!("in use by pid {}", std::process::id()),
    );
    drop(theirs);
    behind(&root, "theirs", |v1| {
        let mut one = v1.bucket(b"one").unwrap().unwrap();
        let mut images = one.bucket(b"images").unwrap().unwrap();
        images.create_bucket(b"bad").unwrap();
        let mut unsound = images.create_bucket(b"no-digest").unwrap();
        unsound.put(b"createdat", &gotime::encode(Timestamp::default())).unwrap();
        unsound.create_bucket(b"target").unwrap().put(b"digest", b"md5:0").unwrap();
    });
    let content = std::fs::read(&path).unwrap();
    ours.create("one", &image("b", 2)).unwrap();
    ours.create("one", &image("c", 9)).unwrap();

    let id = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    let report = ours.import(&path, Some("one"), Some(Duration::ZERO)).unwrap();
    assert_eq!(report.imported, [id("one", "a")]);
    assert_eq!(report.present, [id("one", "b")]);
    let told: Vec<_> = report.problems.iter().map(Error::report).collect();
    assert_eq!((told.len(), report.left_out), (3, 3), "{told:?}");
    assert!(told[0].contains("\"bad\": it has no target"), "{told:?}");
    assert!(told[1].starts_with("\"c\" points to \"sha256:"), "{told:?}");
    assert!(told[2].contains("\"md5:0\": it is no digest"), "{told:?}");
    assert_eq!(ours.get("one", "a").unwrap(), a, "labels and times are theirs");
    assert_eq!(ours.get("one", "c").unwrap().target, image("c", 9).target);

    let report = ours.import(&path, None, None).unwrap();
    assert_eq!((report.imported, report.present.len()), (vec![id("two", "d")], 2));
    assert_eq!(std::fs::read(&path).unwrap(), content, "it is only read");
}

#[test]
fn a_file_is_not_imported_into_itself() {
    let root = TestRoot::in_memory("namespaced");
    let file = opened(&root);
    #[allow(clippy::disallowed_methods, reason = "a test")]
    std::fs::hard_link(root.join("db"), root.join("same")).unwrap();
    std::os::unix::fs::symlink(root.join("db"), root.join("link")).unwrap();
    for name in ["db", "same", "link"] {
        // With any other timeout it would end, too, with another error.
        let error = file.import(&root.join(name), None, Some(Duration::ZERO)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{}", error.report());
    }
}

#[test]
fn messages_do_not_carry_whole_values() {
    const LONG: usize = 30_000;
    let root = TestRoot::in_memory("namespaced");
    let theirs = opened_as(&root, "theirs");
    for name in ["time", "unsound"] {
        theirs.create("ns", &image(name, 1)).unwrap();
    }
    drop(theirs);
    behind(&root, "theirs", |v1| {
        let mut ns = v1.bucket(b"ns").unwrap().unwrap();
        let mut images = ns.bucket(b"images").unwrap().unwrap();
        images.bucket(b"time").unwrap().unwrap().put(b"createdat", &[b'x'; LONG]).unwrap();
        let mut unsound = images.bucket(b"unsound").unwrap().unwrap();
        unsound.bucket(b"target").unwrap().unwrap().put(b"digest", &[b'x'; LONG]).unwrap();
        let mut other = v1.create_bucket(b"other").unwrap();
        other.create_bucket(&[b'x'; LONG]).unwrap().put(b"k", b"v").unwrap();
    });
    let imported = opened(&root).import(&root.join("theirs"), None, None).unwrap();
    let theirs = opened_as(&root, "theirs");
    let mut told = imported.problems;
    told.push(theirs.delete("ns", "unsound", Some(&"y".repeat(LONG))).unwrap_err());
    told.push(theirs.delete_namespace("other").unwrap_err());
    told.push(theirs.update("ns", &image("unsound", 1), &[&"y".repeat(LONG)]).unwrap_err());
    let told: Vec<_> = told.iter().map(Error::report).collect();
    assert_eq!(told.len(), 5);
    for text in told {
        assert!(text.len() < 1000 && (text.contains("xxx") || text.contains("yyy")), "{text}");
    }
}

#[test]
fn a_file_that_does_not_fit_together_is_not_imported() {
    let root = TestRoot::in_memory("namespaced");
    let theirs = NamespacedFile::open(&root.join("theirs"), &options()).unwrap();
    for number in 0..100 {
        theirs.create("ns", &image(&format!("image{number}"), number)).unwrap();
    }
    drop(theirs);
    let mut bytes = std::fs::read(root.join("theirs")).unwrap();
    // A leaf that says that it is another page.
    let page = (2..bytes.len() / 4096).rev().find(|page| bytes[page * 4096 + 8] == 2).unwrap();
    bytes[page * 4096] ^= 0x40;
    #[allow(clippy::disallowed_methods, reason = "a test")]
    std::fs::write(root.join("theirs"), bytes).unwrap();
    let ours = opened(&root);
    let imported = ours.import(&root.join("theirs"), None, None);
    assert_eq!(imported.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(ours.namespaces().unwrap(), [""; 0]);
}

/// Puts into a namespace of a file what no create would.
fn with_annotation(root: &TestRoot, name: &str, key: &str) {
    let mut odd = image("a", 1);
    odd.annotations.insert(key.to_owned(), "v".to_owned());
    let error = NamespacedFile::open(&root.join(name), &options()).unwrap().create("ns", &odd).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{}", error.report());
}

#[test]
fn an_annotation_that_the_file_cannot_have_leaves_nothing_of_its_image() {
    let root = TestRoot::in_memory("namespaced");
    for key in [String::new(), "k".repeat(32_769)] {
        with_annotation(&root, "db", &key);
        let file = opened(&root);
        let mut writing = file.begin_write().unwrap();
        let mut odd = image("a", 1);
        odd.annotations.insert(key.clone(), "v".to_owned());
        assert_eq!(writing.create("ns", &odd).unwrap_err().kind(), ErrorKind::InvalidArgument);
        writing.create("ns", &image("b", 2)).unwrap();
        let update = writing.update("ns", &NamespacedImage { name: "b".to_owned(), ..odd.clone() }, &[]);
        assert_eq!(update.unwrap_err().kind(), ErrorKind::InvalidArgument);
        writing.commit().unwrap();
        assert_eq!(all(&file, "ns"), ["b"]);
        assert_eq!(file.get("ns", "b").unwrap().target, image("b", 2).target);
        file.delete("ns", "b", None).unwrap();
    }
    let mut longest = image("a", 1);
    longest.annotations.insert("k".repeat(32_768), "v".to_owned());
    assert_eq!(opened(&root).create("ns", &longest).unwrap().annotations, longest.annotations);
}

/// The name of a bucket may be longer than a key: as an annotation's value it is read, but cannot be written.
#[test]
fn an_import_commits_no_half_image_and_the_next_one_goes_on() {
    let root = TestRoot::in_memory("namespaced");
    let theirs = opened_as(&root, "theirs");
    for name in ["a", "b", "c"] {
        theirs.create("ns", &image(name, 1)).unwrap();
    }
    let long = theirs.create("ns", &{
        let mut long = image("d", 1);
        long.annotations.insert("k".repeat(30_000), "v".to_owned());
        long
    });
    assert!(long.is_ok());
    drop(theirs);
    behind(&root, "theirs", |v1| {
        let mut ns = v1.bucket(b"ns").unwrap().unwrap();
        let mut images = ns.bucket(b"images").unwrap().unwrap();
        let mut b = images.bucket(b"b").unwrap().unwrap();
        // Bytes that are no text are three bytes each when they have been read.
        b.create_bucket(b"annotations").unwrap().put(&[0xff; 32_768], b"v").unwrap();
    });
    let ours = opened(&root);
    for round in 0..2 {
        let report = ours.import(&root.join("theirs"), None, None).unwrap();
        let told: Vec<_> = report.problems.iter().map(Error::report).collect();
        assert_eq!(told.len(), 1, "{round}: {told:?}");
        assert!(told[0].contains("create image \"b\" in ns"), "{told:?}");
        assert_eq!((report.imported.len(), report.present.len()), if round == 0 { (3, 0) } else { (0, 3) });
        assert_eq!(all(&ours, "ns"), ["a", "c", "d"]);
    }
}

#[test]
fn an_unreadable_image_of_ours_does_not_keep_the_others_from_being_imported() {
    let root = TestRoot::in_memory("namespaced");
    let theirs = opened_as(&root, "theirs");
    for name in ["a", "b", "c", "d"] {
        theirs.create("ns", &image(name, 1)).unwrap();
    }
    drop(theirs);
    let ours = opened(&root);
    ours.create("ns", &image("b", 1)).unwrap();
    behind(root_closed(ours, &root), "db", |v1| {
        let mut ns = v1.bucket(b"ns").unwrap().unwrap();
        let mut images = ns.bucket(b"images").unwrap().unwrap();
        images.bucket(b"b").unwrap().unwrap().delete_bucket(b"target").unwrap();
        images.put(b"c", b"a value").unwrap();
    });
    let ours = opened(&root);
    let report = ours.import(&root.join("theirs"), None, None).unwrap();
    let names: Vec<_> = report.imported.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["a", "d"]);
    let told: Vec<_> = report.problems.iter().map(Error::report).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].ends_with(": it has no target"), "{told:?}");
    assert!(told[1].ends_with(": incompatible value"), "{told:?}");
}
