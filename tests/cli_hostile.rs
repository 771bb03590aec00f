// SPDX-License-Identifier: MulanPSL-2.0
//! Archives that are not what they claim to be: a clear error, the right exit status, and nothing left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod cli_support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use cli_support::common::need_root;
use cli_support::images::{DockerImage, Layout, Tar, compressed, config, docker_archive, small_layer};
use cli_support::{Store, golden_image};
use isula_storage::digest::Digest;
use serde_json::json;

const OK_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Every name in the store, without what belongs to the locks.
fn names(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().to_owned());
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}

fn put(store: &Store, bytes: &[u8]) -> PathBuf {
    let path = store.home().join("archive");
    fs::write(&path, bytes).unwrap();
    path
}

/// A store that has held something, so that all its directories are there, and is empty now.
fn empty_store() -> Store {
    let store = Store::in_memory();
    let image = DockerImage::new(&[small_layer("first")], &["first:1"]);
    store.import(&put(&store, &docker_archive(&[image])));
    store.ok(["rmi", "first:1"]);
    store
}

/// Imports from a file, and from a pipe, and expects the same refusal.
fn refused(store: &Store, what: &str, archive: &[u8], code: i32, says: &str) {
    let before = names(&store.root());
    let path = put(store, archive);
    let (ended, message) = store.fails([Path::new("import"), &path]);
    assert_eq!(ended, code, "{what}: {message}");
    assert!(message.contains(says), "{what}: {message}");
    assert!(message.contains("archive"), "{what} names the file: {message}");
    assert_eq!(names(&store.root()), before, "{what} leaves something behind");

    let output = store.tool().args(["import", "-"]).stdin(fs::File::open(&path).unwrap()).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{what}, piped: {message}");
    assert!(message.contains(says), "{what}, piped: {message}");
    assert_eq!(names(&store.root()), before, "{what}, piped, leaves something behind");
}

#[test]
fn files_that_are_no_image_are_refused() {
    if !need_root() {
        return;
    }
    let store = empty_store();
    let root_fs = {
        let mut tar = Tar::new(Vec::new());
        tar.dir("bin/");
        tar.file("bin/sh", b"x");
        tar.finish()
    };
    let neither = "neither manifest.json";
    refused(&store, "an empty file", b"", 5, neither);
    refused(
        &store,
        "a text",
        b"hello, this is not an archive at all\n".repeat(40).as_slice(),
        5,
        "tar header",
    );
    refused(&store, "a tree", &root_fs, 5, neither);
    refused(&store, "a compressed tree", &compressed("gzip", &root_fs), 5, neither);
    refused(&store, "a program", &fs::read("/bin/true").unwrap(), 5, "tar header");
    refused(&store, "half of a compressed file", &compressed("gzip", &root_fs)[..60], 5, "");
}

#[test]
fn truncated_archives_are_refused_wherever_they_end() {
    if !need_root() {
        return;
    }
    let store = empty_store();
    let image = DockerImage::new(&[small_layer("a"), small_layer("b")], &["x:1"]);
    let whole = docker_archive(&[image]);
    let mut packed = Vec::new();
    fs::File::open(golden_image("bb.tar.gz")).unwrap().read_to_end(&mut packed).unwrap();
    // Cut at a block boundary, a list of images is missing; cut elsewhere, an entry is not whole.
    for at in [1, 511, 512, 513, 2048, whole.len() / 2, whole.len() - 1536] {
        refused(&store, &format!("{at} bytes"), &whole[..at], 5, "");
    }
    for at in [10, 1000, packed.len() / 2, packed.len() - 1] {
        refused(&store, &format!("{at} compressed bytes"), &packed[..at], 5, "");
    }
    // Without its end marker an archive is whole all the same.
    store.import(&put(&store, &whole[..whole.len() - 1024]));
    store.assert_whole();
}

#[test]
fn docker_archives_that_contradict_themselves_are_refused() {
    if !need_root() {
        return;
    }
    let store = empty_store();
    let (a, b) = (small_layer("a"), small_layer("b"));
    let archive = |change: fn(&mut DockerImage)| {
        let mut image = DockerImage::new(&[small_layer("a"), small_layer("b")], &["x:1"]);
        change(&mut image);
        docker_archive(&[image])
    };
    // The second layer is wrong: the first, already applied, is taken back.
    refused(&store, "a wrong layer", &archive(|image| image.layers[1] = small_layer("c")), 5, "digest");
    refused(&store, "a layer cut short", &archive(|image| drop(image.layers[1].split_off(700))), 5, "");
    refused(
        &store,
        "layers of which one is missing",
        &archive(|image| drop(image.layers.pop())),
        5,
        "names 2 layers",
    );
    refused(&store, "a config that is no JSON", &archive(|image| image.config = b"{".to_vec()), 5, "");
    refused(
        &store,
        "a bad name",
        &archive(|image| image.tags = vec!["Upper/CASE".to_owned()]),
        5,
        "Upper/CASE",
    );
    refused(
        &store,
        "a time out of range",
        &archive(|image| {
            let mut config = config(&[small_layer("a"), small_layer("b")]);
            config["created"] = json!("2140-01-01T00:00:00Z");
            image.config = config.to_string().into_bytes();
        }),
        5,
        "2140",
    );
    refused(
        &store,
        "a digest that is a path",
        &archive(|image| {
            let mut config = config(&[]);
            config["rootfs"]["diff_ids"] = json!(["sha256:../../../../etc/passwd", "sha256:x"]);
            image.config = config.to_string().into_bytes();
        }),
        5,
        "",
    );

    let list = |list: serde_json::Value, more: fn(&mut Tar<Vec<u8>>)| {
        let image = DockerImage::new(&[small_layer("a")], &[]);
        let mut tar = Tar::new(Vec::new());
        tar.file("config.json", &image.config);
        tar.file("layer.tar", &image.layers[0]);
        more(&mut tar);
        tar.file("manifest.json", list.to_string().as_bytes());
        tar.finish()
    };
    let nothing: fn(&mut Tar<Vec<u8>>) = |_| {};
    refused(&store, "no image", &list(json!([]), nothing), 5, "lists no image");
    refused(
        &store,
        "an absent layer",
        &list(json!([{"Config": "config.json", "Layers": ["gone.tar"]}]), nothing),
        5,
        "lacks the file gone.tar",
    );
    refused(
        &store,
        "an absent config",
        &list(json!([{"Config": "gone.json", "Layers": ["layer.tar"]}]), nothing),
        5,
        "lacks the file gone.json",
    );
    for path in ["/etc/passwd", "../../../../../../etc/passwd", "link"] {
        let evil = list(json!([{"Config": "config.json", "Layers": [path]}]), |tar| {
            tar.symlink("link", "/etc/passwd")
        });
        refused(&store, path, &evil, 5, "lacks the file");
        let evil = list(json!([{"Config": path, "Layers": ["layer.tar"]}]), |tar| {
            tar.symlink("link", "/etc/passwd")
        });
        refused(&store, path, &evil, 5, "lacks the file");
    }
    // Nothing of all that keeps the right archive from being imported.
    store.import(&put(&store, &docker_archive(&[DockerImage::new(&[a, b], &["x:1"])])));
    store.assert_whole();
}

/// The second image of an archive is bad: the first one stays, whole; what it had before stays, too.
#[test]
fn the_images_before_a_bad_one_stay() {
    if !need_root() {
        return;
    }
    let store = empty_store();
    let base = small_layer("base");
    let good = DockerImage::new(std::slice::from_ref(&base), &["good:1"]);
    let mut bad = DockerImage::new(&[base, small_layer("top")], &["good:1", "bad:1"]);
    bad.layers[1] = small_layer("other");
    let (code, _) = store.fails([Path::new("import"), &put(&store, &docker_archive(&[good, bad]))]);
    assert_eq!(code, 5);
    assert_eq!(store.assert_whole().len(), 1);
    assert_eq!(store.names()[0].1, ["good:1"], "a name does not move to an image that is not made");
    assert_eq!(store.layer_ids().len(), 1);
}

fn refused_layout(store: &Store, what: &str, dir: &Path, code: i32, says: &str) {
    let before = names(&store.root());
    let (ended, message) = store.fails([Path::new("import"), dir]);
    assert_eq!(ended, code, "{what}: {message}");
    assert!(message.contains(says), "{what}: {message}");
    assert_eq!(names(&store.root()), before, "{what} leaves something behind");
}

#[test]
fn layouts_with_wrong_blobs_are_refused() {
    if !need_root() {
        return;
    }
    let store = empty_store();
    let dir = store.home().join("layout");
    let (a, b) = (small_layer("a"), small_layer("b"));
    let blob = |bytes: &[u8]| dir.join("blobs/sha256").join(Digest::of(bytes).hex());
    let make = || {
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        let mut layout = Layout::new(&dir);
        let image =
            layout.image(&config(&[a.clone(), b.clone()]), &[(OK_LAYER, a.clone()), (OK_LAYER, b.clone())]);
        layout.list(image.clone(), Some("x:1"), None);
        layout.finish();
        image
    };

    make();
    fs::write(blob(&b), small_layer("c")).unwrap();
    refused_layout(&store, "another layer of the same size", &dir, 5, "digest");
    make();
    fs::write(blob(&b), &b[..b.len() - 1]).unwrap();
    refused_layout(&store, "a shorter layer", &dir, 5, "bytes instead of");
    make();
    fs::remove_file(blob(&a)).unwrap();
    refused_layout(&store, "an absent layer", &dir, 5, "lacks the file");
    make();
    let config_text = config(&[a.clone(), b.clone()]).to_string();
    fs::write(blob(config_text.as_bytes()), config_text.replace("amd64", "arm64")).unwrap();
    refused_layout(&store, "another config", &dir, 5, "has digest");
    let image = make();
    let manifest =
        dir.join("blobs/sha256").join(image["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap());
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"schemaVersion\":2", "\"schemaVersion\":3")).unwrap();
    refused_layout(&store, "another manifest", &dir, 5, "has digest");
    make();
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    fs::rename(dir.join("fifo"), blob(&a)).unwrap();
    refused_layout(&store, "a fifo", &dir, 5, "not a regular file");
    make();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    refused_layout(&store, "a later layout", &dir, 1, "version");
    make();
    fs::remove_file(dir.join("index.json")).unwrap();
    refused_layout(&store, "a layout without an index", &dir, 5, "lacks the file index.json");
    make();
    fs::write(dir.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    refused_layout(&store, "a layout without an image", &dir, 5, "");

    make();
    store.import(&dir);
    store.assert_whole();
}

/// A layer that says in a megabyte that it is a gigabyte of zeros is fine; a terabyte is not tried.
#[test]
fn a_decompression_bomb_ends_at_the_limit() {
    if !need_root() {
        return;
    }
    let store = empty_store();
    // zstd packs zeros at more than the allowed 10,000 to 1.
    let zeros = vec![0u8; 200 << 20];
    let bomb = compressed("zstd", &zeros);
    assert!(zeros.len() / bomb.len() > 10_000, "{}", bomb.len());
    refused(&store, "a bomb", &bomb, 5, "limit");
}

#[test]
fn a_full_disk_is_reported_and_everything_before_is_kept() {
    if !need_root() {
        return;
    }
    let store = Store::on_ext4(24 << 20);
    let outside = cli_support::common::TestRoot::in_memory("full");
    let small = DockerImage::new(&[small_layer("small")], &["small:1"]);
    fs::write(outside.join("small"), docker_archive(&[small])).unwrap();
    store.import(&outside.join("small"));
    let before = names(&store.root());

    let noise: Vec<u8> = (0..40_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut layer = Tar::new(Vec::new());
    layer.file("noise", &noise);
    let image = DockerImage::new(&[small_layer("a"), layer.finish()], &["large:1"]);
    let archive = docker_archive(&[image]);
    fs::write(outside.join("large"), &archive).unwrap();
    let (code, message) = store.fails([Path::new("import"), &outside.join("large")]);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("No space left") && message.contains("Make room"), "{message}");
    assert_eq!(names(&store.root()), before);

    // Compressed, it does not even fit beside the store.
    fs::write(outside.join("large.gz"), compressed("gzip", &archive)).unwrap();
    let (code, message) = store.fails([Path::new("import"), &outside.join("large.gz")]);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("No space left"), "{message}");
    assert_eq!(names(&store.root()), before);

    assert_eq!(store.names()[0].1, ["small:1"]);
    store.assert_whole();
    store.ok(["rmi", "small:1"]);
}
