// SPDX-License-Identifier: MulanPSL-2.0
//! Whiteouts and opaque directories: what each of the three forms leaves, and that an overlay of layers shows the same
//! as the layers applied on top of each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use archive_common::{
    Overlay, Scratch, Tar, apply, apply_and_check, apply_with, differences, is_root, layers_of, tree,
};
use isula_storage::archive::{ApplyOptions, Whiteouts};
use isula_storage::error::ErrorKind;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const OPAQUE: &[u8] = b"trusted.overlay.opaque";

fn remove() -> ApplyOptions {
    ApplyOptions { whiteouts: Whiteouts::Remove, ..ApplyOptions::default() }
}

/// What a tree holds: each path with `d`, `f content`, `w` for a whiteout; `o` marks an opaque directory.
fn shape(root: &Path) -> BTreeMap<String, String> {
    let mut shape = BTreeMap::new();
    for (path, node) in tree(root) {
        let what = match node.mode & 0o170_000 {
            0o040_000 => String::from(if node.xattrs.contains_key(OPAQUE) { "do" } else { "d" }),
            0o100_000 => format!("f {}", std::fs::read_to_string(root.join(&path)).unwrap()),
            0o020_000 if node.device == 0 && node.mode == 0o020_000 => "w".to_owned(),
            _ => format!("{:o}", node.mode),
        };
        shape.insert(path.display().to_string(), what);
    }
    shape
}

fn shape_of(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect()
}

#[test]
fn overlay_layers_hold_devices_and_marks() {
    if !is_root() {
        return;
    }
    type Case = (&'static str, Tar, &'static [(&'static str, &'static str)]);
    let table: Vec<Case> = vec![
        ("below", Tar::new().dir("d/").file("d/.wh.x", ""), &[("", "d"), ("d", "d"), ("d/x", "w")]),
        ("top", Tar::new().file(".wh.x", ""), &[("", "d"), ("x", "w")]),
        ("top with dot", Tar::new().dir("./").file("./.wh.x", ""), &[("", "d"), ("x", "w")]),
        ("absolute", Tar::new().file("/.wh.x", ""), &[("", "d"), ("x", "w")]),
        (
            "no parent",
            Tar::new().file("d/e/.wh.x", ""),
            &[("", "d"), ("d", "d"), ("d/e", "d"), ("d/e/x", "w")],
        ),
        ("opaque", Tar::new().dir("d/").file("d/.wh..wh..opq", ""), &[("", "d"), ("d", "do")]),
        ("opaque top", Tar::new().file(".wh..wh..opq", ""), &[("", "do")]),
        ("opaque, no parent", Tar::new().file("d/.wh..wh..opq", ""), &[("", "d"), ("d", "do")]),
        (
            "opaque first",
            Tar::new().file("d/.wh..wh..opq", "").dir("d/").file("d/f", "x"),
            &[("", "d"), ("d", "do"), ("d/f", "f x")],
        ),
        ("twice", Tar::new().file(".wh.x", "").file(".wh.x", ""), &[("", "d"), ("x", "w")]),
        ("then a file", Tar::new().file(".wh.x", "").file("x", "new"), &[("", "d"), ("x", "f new")]),
        ("file before", Tar::new().file("x", "new").file(".wh.x", ""), &[("", "d"), ("x", "f new")]),
        ("then a directory", Tar::new().file(".wh.x", "").dir("x/"), &[("", "d"), ("x", "do")]),
        ("directory before", Tar::new().dir("x/").file(".wh.x", ""), &[("", "d"), ("x", "do")]),
        ("a directory in place of a file", Tar::new().file("x", "old").dir("x/"), &[("", "d"), ("x", "do")]),
        (
            "a directory in place of a file, and a whiteout",
            Tar::new().file("x", "old").file(".wh.x", "").dir("x/"),
            &[("", "d"), ("x", "do")],
        ),
        (
            "then something below",
            Tar::new().file(".wh.x", "").file("x/f", "new"),
            &[("", "d"), ("x", "do"), ("x/f", "f new")],
        ),
        (
            "something below before",
            Tar::new().file("x/f", "new").file(".wh.x", ""),
            &[("", "d"), ("x", "do"), ("x/f", "f new")],
        ),
        ("dots", Tar::new().file(".wh....", ""), &[("", "d"), ("...", "w")]),
        (
            "left over of aufs",
            Tar::new()
                .dir(".wh..wh.plnk/")
                .file(".wh..wh.plnk/1", "x")
                .file(".wh..wh.aufs", "")
                .file("f", "x"),
            &[("", "d"), ("f", "f x")],
        ),
        ("a directory's whiteout", Tar::new().dir(".wh.d/"), &[("", "d"), ("d", "w")]),
        (
            "through a link",
            Tar::new().dir("real/").symlink("d", "real").file("d/.wh.x", ""),
            &[("", "d"), ("d", "120777"), ("real", "d"), ("real/x", "w")],
        ),
    ];
    for (name, tar, expected) in table {
        let scratch = Scratch::new();
        apply_and_check(&tar.end(), &scratch.dir("target"));
        assert_eq!(shape(&scratch.path().join("target")), shape_of(expected), "{name}");
    }
}

#[test]
fn whiteout_devices_belong_to_the_owner_of_their_entry() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let header = archive_common::Header { uid: 7, gid: 8, ..archive_common::Header::new(".wh.x", b'0') };
    apply(&Tar::new().header(&header).end(), &scratch.dir("target")).unwrap();
    let node = &tree(&scratch.path().join("target"))[Path::new("x")];
    assert_eq!((node.mode, node.device, node.uid, node.gid), (0o020_000, 0, 7, 8));
}

#[test]
fn copies_of_the_parent_lose_what_is_hidden() {
    if !is_root() {
        return;
    }
    let parent = Tar::new()
        .dir("d/")
        .file("d/a", "a")
        .dir("d/e/")
        .file("d/e/b", "b")
        .file("f", "f")
        .symlink("outside", "/")
        .end();
    let everything = ["", "d", "d/a", "d/e", "d/e/b", "f", "outside"];
    let table: Vec<(&str, Tar, &[&str], &[&str])> = vec![
        ("file", Tar::new().file(".wh.f", ""), &["f"], &[]),
        ("directory", Tar::new().file("./.wh.d", ""), &["d", "d/a", "d/e", "d/e/b"], &[]),
        ("link itself", Tar::new().file(".wh.outside", ""), &["outside"], &[]),
        ("absent", Tar::new().file("no/.wh.x", "").file(".wh.y", ""), &[], &[]),
        ("opaque", Tar::new().file("d/.wh..wh..opq", ""), &["d/a", "d/e", "d/e/b"], &[]),
        (
            "opaque top",
            Tar::new().file(".wh..wh..opq", ""),
            &["d", "d/a", "d/e", "d/e/b", "f", "outside"],
            &[],
        ),
        (
            "opaque after entries",
            Tar::new().file("d/new", "n").dir("d/e/").file("d/e/new", "n").file("d/.wh..wh..opq", ""),
            &["d/a", "d/e/b"],
            &["d/new", "d/e/new"],
        ),
        (
            "opaque after a deep entry",
            Tar::new().file("d/e/new", "n").file("d/.wh..wh..opq", ""),
            &["d/a", "d/e/b"],
            &["d/e/new"],
        ),
        ("entry before", Tar::new().file("f", "f").file(".wh.f", ""), &[], &[]),
        (
            "directory before",
            Tar::new().dir("d/").file("d/new", "n").file(".wh.d", ""),
            &["d/a", "d/e", "d/e/b"],
            &["d/new"],
        ),
        ("entry after", Tar::new().file(".wh.d", "").dir("d/"), &["d/a", "d/e", "d/e/b"], &[]),
    ];
    for (name, tar, gone, new) in table {
        let scratch = Scratch::new();
        let target = scratch.dir("target");
        apply(&parent, &target).unwrap();
        apply_with(&tar.end(), &target, &remove()).unwrap();
        let mut expected: Vec<_> = everything.iter().filter(|path| !gone.contains(path)).collect();
        expected.extend(new);
        expected.sort();
        let found = tree(&target);
        let found: Vec<_> = found.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(found, expected.into_iter().copied().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn kept_whiteouts_are_files() {
    let scratch = Scratch::new();
    let target = scratch.dir("target");
    let options = ApplyOptions { whiteouts: Whiteouts::Keep, owners: false, ..ApplyOptions::default() };
    let tar = Tar::new().file(".wh.x", "x").file("d/.wh..wh..opq", "").file(".wh..", "y").end();
    apply_with(&tar, &target, &options).unwrap();
    let expected = [("", "d"), (".wh.x", "f x"), (".wh..", "f y"), ("d", "d"), ("d/.wh..wh..opq", "f ")];
    assert_eq!(shape(&target), shape_of(&expected));
}

#[test]
fn whiteouts_of_directories_themselves_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", "./.wh..", "d/../.wh.."] {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
            let scratch = Scratch::new();
            let target = scratch.dir("target");
            std::fs::write(target.join("f"), "precious").unwrap();
            let options = ApplyOptions { whiteouts, owners: false, ..ApplyOptions::default() };
            let error = apply_with(&Tar::new().file(name, "").end(), &target, &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{name}");
            assert_eq!(std::fs::read_to_string(target.join("f")).unwrap(), "precious");
        }
    }
}

/// Applies layers in both ways and compares what they show.
fn assert_same_view(layers: &[Vec<u8>]) -> Result<(), String> {
    let scratch = Scratch::new();
    let copy = scratch.dir("copy");
    let mut lowers: Vec<PathBuf> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let lower = scratch.dir(&index.to_string());
        apply_and_check(layer, &lower);
        lowers.insert(0, lower);
        apply_with(layer, &copy, &remove()).map_err(|error| error.report())?;
    }
    let merged = scratch.dir("merged");
    let mounted = Overlay::mount(&lowers, &merged);
    let (mut view, mut copy) = (tree(&merged), tree(&copy));
    drop(mounted);
    // The root and parents that no entry names are made in each layer, and hide the times of those below.
    for tree in [&mut view, &mut copy] {
        for node in tree.values_mut().filter(|node| node.mode & 0o170_000 == 0o040_000) {
            node.mtime = (0, 0);
        }
    }
    match differences(&view, &copy).as_slice() {
        [] => Ok(()),
        found => Err(found.join("\n")),
    }
}

#[test]
fn an_overlay_of_real_layers_shows_what_applying_them_one_by_one_does() {
    if !is_root() {
        return;
    }
    for image in ["bb.tar.gz", "opq.tar.gz"] {
        assert_same_view(&layers_of(image)).unwrap_or_else(|what| panic!("{image}: {what}"));
    }
}

/// A path of a small world, so that layers meet each other's entries.
fn small_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..4).prop_map(|components| components.join("/"))
}

#[derive(Debug, Clone)]
enum Change {
    File(String, u8),
    Dir(String),
    Hide(String),
    Opaque(String),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (small_path(), any::<u8>()).prop_map(|(path, byte)| Change::File(path, byte)),
        3 => small_path().prop_map(Change::Dir),
        2 => small_path().prop_map(Change::Hide),
        1 => small_path().prop_map(Change::Opaque),
    ]
}

/// A layer as image builders write them: each path once, parents before children, nothing below a file.
fn layer(changes: &[Change]) -> Vec<u8> {
    let mut entries: BTreeMap<String, Change> = BTreeMap::new();
    let parents = |path: &str| {
        let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
        slashes
    };
    for change in changes {
        let (Change::File(path, _) | Change::Dir(path) | Change::Hide(path) | Change::Opaque(path)) = change;
        let blocked = parents(path)
            .iter()
            .any(|parent| matches!(entries.get(parent), Some(Change::File(..) | Change::Hide(_))));
        let below = format!("{path}/");
        let leaf = matches!(change, Change::File(..) | Change::Hide(_));
        let filled = leaf && entries.keys().any(|other| other.starts_with(&below));
        if blocked || filled || entries.contains_key(path) {
            continue;
        }
        for parent in parents(path) {
            entries.entry(parent.clone()).or_insert(Change::Dir(parent));
        }
        entries.insert(path.clone(), change.clone());
    }
    let mut tar = Tar::new();
    for (path, change) in &entries {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        tar = match change {
            Change::File(path, byte) => tar.file(path, [*byte; 3]),
            Change::Dir(path) => tar.dir(format!("{path}/")),
            Change::Hide(_) => tar.file(format!("{parent}/.wh.{name}"), ""),
            Change::Opaque(path) => tar.dir(format!("{path}/")).file(format!("{path}/.wh..wh..opq"), ""),
        };
    }
    tar.end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn any_stack_of_layers_looks_the_same_both_ways(
        stack in prop::collection::vec(prop::collection::vec(change(), 1..8), 1..4)
    ) {
        if is_root() {
            let layers: Vec<_> = stack.iter().map(|changes| layer(changes)).collect();
            if let Err(what) = assert_same_view(&layers) {
                return Err(TestCaseError::fail(what));
            }
        }
    }
}
