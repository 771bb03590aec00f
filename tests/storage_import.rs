// SPDX-License-Identifier: MulanPSL-2.0
//! The facade from Rust: cancelling, holds, and imports and removals at the same time.
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
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::PathBuf;

use cli_support::common::{TestRoot, need_root};
use cli_support::images::{DockerImage, Tar, compressed, docker_archive, small_layer};
use isula_storage::digest::Digest;
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;
use isula_storage::layer::CreateLayer;
use isula_storage::storage::{ImportOptions, Ownership, Progress, Storage, StorageOptions};

struct Scene {
    root: TestRoot,
    storage: Storage,
}

impl Scene {
    fn new() -> Scene {
        let root = TestRoot::in_memory("facade");
        let storage = Storage::open(options(&root, Ownership::Owner)).unwrap();
        Scene { root, storage }
    }

    fn archive(&self, name: &str, images: &[DockerImage]) -> PathBuf {
        let path = self.root.join(name);
        fs::write(&path, docker_archive(images)).unwrap();
        path
    }

    fn layers(&self) -> Vec<LayerId> {
        self.storage.layers().list().into_iter().map(|layer| layer.id).collect()
    }

    /// Every image is whole, nobody holds a layer any more, and every layer exports with its digest.
    fn assert_whole(&self) {
        for image in self.storage.images().list().unwrap() {
            let details = self.storage.image_details(image.id.as_deref().unwrap()).unwrap();
            assert_eq!(details.problems, [""; 0]);
            assert!(!details.layers.is_empty());
        }
        for layer in self.storage.layers().list() {
            assert_eq!(self.storage.layers().hold_count(&layer.id).unwrap(), 0, "layer {}", layer.id);
            let (digest, _) = self.storage.export(layer.id.as_str(), &mut std::io::sink()).unwrap();
            assert_eq!(Some(digest.to_string()), layer.uncompressed_digest);
        }
    }
}

fn options(root: &TestRoot, ownership: Ownership) -> StorageOptions {
    StorageOptions { ownership, ..StorageOptions::new(root.join("root"), root.join("run")) }
}

fn image(layers: &[&str], tags: &[&str]) -> DockerImage {
    let layers: Vec<Vec<u8>> = layers.iter().map(|tag| small_layer(tag)).collect();
    DockerImage::new(&layers, tags)
}

#[test]
fn a_cancelled_import_is_taken_back_whenever_it_is_cancelled() {
    if !need_root() {
        return;
    }
    let scene = Scene::new();
    let old = scene.archive("old", &[image(&["base"], &["old:1"])]);
    scene.storage.import(&old, ImportOptions::default()).unwrap();
    let before = scene.layers();
    let new = scene.archive("new", &[image(&["base", "b", "c"], &["new:1", "old:1"])]);
    let mut at = 0;
    let whole = loop {
        let mut told = 0;
        let mut cancel = |_: &Progress| {
            told += 1;
            if told > at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = ImportOptions { progress: Some(&mut cancel), ..ImportOptions::default() };
        match scene.storage.import(&new, options) {
            Ok(report) => break report,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report()),
        }
        assert_eq!(scene.layers(), before, "cancelled at {at}");
        assert_eq!(scene.storage.images().count().unwrap(), 1);
        assert_eq!(scene.storage.images().names(&image(&["base"], &[]).id()).unwrap(), ["old:1"]);
        scene.assert_whole();
        at += 1;
    };
    assert!(at >= 5, "cancelled {at} times");
    assert_eq!(
        whole.images[0].layers.iter().map(|layer| layer.existed).collect::<Vec<_>>(),
        [true, false, false]
    );
    scene.assert_whole();
}

/// Zstd frames that are skipped, of 16 MiB each, without end.
struct Skipped {
    given: u64,
    read: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl std::io::Read for Skipped {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        const CONTENT: u64 = 16 << 20;
        const HEADER: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 1];
        for byte in buffer.iter_mut() {
            let at = self.given % (CONTENT + 8);
            *byte = usize::try_from(at).ok().and_then(|at| HEADER.get(at).copied()).unwrap_or(0);
            self.given += 1;
        }
        self.read.store(self.given, std::sync::atomic::Ordering::Relaxed);
        Ok(buffer.len())
    }
}

#[test]
fn a_stream_that_gives_nothing_and_goes_on_for_ever_can_be_cancelled_and_has_a_bound() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("facade");
    let limited = StorageOptions {
        driver_options: vec!["layer.max_size=4M".to_owned()],
        ..options(&root, Ownership::Owner)
    };
    let storage = Storage::open(limited).unwrap();
    let read = std::sync::Arc::default();
    let skipped = || Box::new(Skipped { given: 0, read: std::sync::Arc::clone(&read) });
    let bytes = || read.load(std::sync::atomic::Ordering::Relaxed);

    let error = storage.import_stream(skipped(), ImportOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{}", error.report());
    assert!((8 << 20..9 << 20).contains(&bytes()), "{} bytes were read", bytes());

    let mut told = 0;
    let mut cancel = |_: &Progress| {
        told += 1;
        if told > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let cancelled = ImportOptions { progress: Some(&mut cancel), ..ImportOptions::default() };
    let error = storage.import_stream(skipped(), cancelled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report());
    assert!(bytes() < 2 << 20, "{} bytes were read", bytes());
    assert_eq!(told, 4);
}

#[test]
fn a_chain_is_deleted_down_to_what_is_still_used() {
    if !need_root() {
        return;
    }
    let scene = Scene::new();
    let path = scene.archive("a", &[image(&["1", "2", "3", "4"], &["a:1"])]);
    let report = scene.storage.import(&path, ImportOptions::default()).unwrap();
    let ids: Vec<LayerId> = report.images[0].layers.iter().map(|layer| layer.id.clone()).collect();
    let storage = &scene.storage;
    assert!(!storage.delete_layer_if_unused(&ids[3]).unwrap(), "an image uses it");
    assert!(!storage.delete_layer_if_unused(&ids[0]).unwrap(), "a layer stands on it");
    assert_eq!(storage.delete_unused_chain(&ids[3]).unwrap(), []);

    storage.layers().hold(&ids[2]).unwrap();
    let removal = storage.remove_image("a:1").unwrap();
    assert!(removal.deleted);
    assert_eq!(removal.layers, [ids[3].clone()], "the next one is held");
    storage.layers().release(&ids[2]).unwrap();

    // A container's layer on the second.
    let container = LayerId::new(&"c".repeat(64)).unwrap();
    let create = CreateLayer { parent: Some(ids[1].clone()), writable: true, ..CreateLayer::default() };
    storage.layers().create(&container, &create, None).unwrap();
    assert_eq!(storage.delete_unused_chain(&ids[2]).unwrap(), [ids[2].clone()]);
    storage.layers().release(&container).unwrap();
    storage.layers().delete(container.as_str()).unwrap();
    assert_eq!(storage.delete_unused_chain(&ids[1]).unwrap(), [ids[1].clone(), ids[0].clone()]);
    assert_eq!(storage.delete_unused_chain(&ids[1]).unwrap(), [], "unknown is fine");
    assert_eq!(scene.layers(), []);
}

#[test]
fn an_image_in_use_is_not_removed() {
    if !need_root() {
        return;
    }
    let scene = Scene::new();
    let path = scene.archive("a", &[image(&["1"], &["a:1", "a:2"])]);
    let report = scene.storage.import(&path, ImportOptions::default()).unwrap();
    let container = LayerId::new(&"c".repeat(64)).unwrap();
    let parent = Some(report.images[0].layers[0].id.clone());
    let create = CreateLayer { parent, writable: true, ..CreateLayer::default() };
    scene.storage.layers().create(&container, &create, None).unwrap();
    let error = scene.storage.remove_image(report.images[0].id.as_str()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains(container.as_str()), "{}", error.report());
    assert!(!scene.storage.remove_image("a:2").unwrap().deleted, "a name may go");
    assert_eq!(
        scene.storage.remove_image("a:1").unwrap_err().kind(),
        ErrorKind::InUse,
        "the last one may not"
    );
    scene.storage.layers().delete(container.as_str()).unwrap();
    assert!(scene.storage.remove_image("a:1").unwrap().deleted);
}

/// Several threads import and remove images that share layers. Nothing is ever half there, and at the end all is whole.
#[test]
fn imports_and_removals_at_the_same_time_leave_whole_images() {
    if !need_root() {
        return;
    }
    const ROUNDS: usize = 12;
    let scene = Scene::new();
    let images = [
        image(&["base", "left"], &["left:1"]),
        image(&["base", "right"], &["right:1"]),
        image(&["base", "left", "top"], &["top:1"]),
    ];
    let archives: Vec<Vec<u8>> =
        images.iter().map(|image| docker_archive(std::slice::from_ref(image))).collect();
    std::thread::scope(|scope| {
        for (which, archive) in archives.iter().enumerate() {
            for _ in 0..2 {
                let (scene, image) = (&scene, &images[which]);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        let stream = Box::new(Cursor::new(archive.clone()));
                        scene.storage.import_stream(stream, ImportOptions::default()).unwrap();
                        match scene.storage.remove_image(&image.tags[0]) {
                            Ok(_) => {}
                            Err(error) if error.kind() == ErrorKind::NotFound => {}
                            Err(error) => panic!("{}", error.report()),
                        }
                    }
                });
            }
        }
    });
    scene.assert_whole();
    for archive in &archives {
        let stream = Box::new(Cursor::new(archive.clone()));
        scene.storage.import_stream(stream, ImportOptions::default()).unwrap();
    }
    scene.assert_whole();
    assert_eq!(scene.layers().len(), 4);
    for image in &images {
        scene.storage.remove_image(&image.tags[0]).unwrap();
    }
    assert_eq!(scene.layers(), []);
}

#[test]
fn what_was_imported_is_found_after_opening_again_and_by_readers() {
    if !need_root() {
        return;
    }
    let scene = Scene::new();
    let path = scene.archive("a", &[image(&["1", "2"], &["a:1"])]);
    scene.storage.import(&path, ImportOptions::default()).unwrap();
    let Scene { root, storage } = scene;
    let reader = Storage::open(options(&root, Ownership::ReadOnly)).unwrap();
    assert_eq!(reader.images().count().unwrap(), 1);
    assert_eq!(reader.layers().list().len(), 2);
    assert_eq!(reader.remove_image("a:1").unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(reader.import(&path, ImportOptions::default()).unwrap_err().kind(), ErrorKind::ReadOnly);
    let stream = Box::new(fs::File::open(&path).unwrap());
    assert_eq!(
        reader.import_stream(stream, ImportOptions::default()).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(Storage::open(options(&root, Ownership::Owner)).unwrap_err().kind(), ErrorKind::InUse);
    drop(reader);
    storage.close().unwrap();
    let storage = Storage::open(options(&root, Ownership::Owner)).unwrap();
    Scene { root, storage }.assert_whole();
}

#[test]
fn layers_of_an_image_that_is_kept_but_not_listed_stay() {
    if !need_root() {
        return;
    }
    let scene = Scene::new();
    let two = [image(&["x"], &["below:1"]), image(&["x", "y"], &["above:1"])];
    let path = scene.archive("two", &two);
    scene.storage.import(&path, ImportOptions::default()).unwrap();
    let aside = scene.storage.images().quarantine("below:1", "a test").unwrap();
    // Whatever is left of it counts: without a record, its config.
    let record = aside.path.join("images.json");
    let text = fs::read(&record).unwrap();
    fs::write(&record, "broken").unwrap();

    let removal = scene.storage.remove_image("above:1").unwrap();
    assert_eq!(removal.layers.len(), 1, "only the layer of the removed image");
    assert_eq!(scene.layers().len(), 1);

    fs::write(&record, text).unwrap();
    scene.storage.images().restore(&aside).unwrap();
    assert_eq!(scene.storage.images().names(&two[0].id()).unwrap(), ["below:1"]);
    scene.assert_whole();
    assert_eq!(scene.storage.remove_image("below:1").unwrap().layers.len(), 1);
    assert_eq!(scene.layers(), []);
}

/// A layer that is worth threads: noise, so that it has that size in a gzip archive as well.
fn large_layer(tag: &str) -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    let mut noise =
        tag.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |sum, byte| sum.rotate_left(9) ^ u64::from(byte));
    tar.dir("data/");
    for number in 0..40 {
        let content: Vec<u8> = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        })
        .take(4000)
        .flatten()
        .collect();
        tar.file(&format!("data/{tag}-{number}"), &content);
    }
    tar.finish()
}

fn large_image(tags: &[&str], names: &[&str]) -> DockerImage {
    let plain: Vec<Vec<u8>> = tags.iter().map(|tag| large_layer(tag)).collect();
    let mut image = DockerImage::new(&plain, names);
    image.layers = plain.iter().map(|layer| compressed("gzip", layer)).collect();
    image
}

#[test]
fn large_layers_are_made_side_by_side_and_taken_back_together() {
    if !need_root() {
        return;
    }
    let scene = Scene::new();
    let image = large_image(&["a", "b", "c", "d"], &["large:1"]);
    let path = scene.archive("large", std::slice::from_ref(&image));
    let mut at = 0;
    loop {
        let (mut told, mut done) = (0, Vec::new());
        let mut cancel = |progress: &Progress| {
            if let Progress::LayerDone { id, existed } = progress {
                assert!(!existed && scene.storage.layers().exists(id.as_str()));
                done.push(id.clone());
            }
            told += 1;
            if told > at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = ImportOptions { progress: Some(&mut cancel), ..ImportOptions::default() };
        match scene.storage.import(&path, options) {
            Ok(report) => {
                let made: Vec<_> = report.images[0].layers.iter().map(|layer| layer.id.clone()).collect();
                assert_eq!(done, made, "in order");
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report()),
        }
        assert_eq!(told, at + 1, "told after it said no");
        assert!(scene.layers().is_empty(), "cancelled at {at}");
        at += 7;
    }
    assert!(at > 30, "cancelled at {at}");
    scene.assert_whole();
    for layer in scene.storage.layers().list() {
        let digest = layer.compressed_digest.unwrap();
        assert!(image.layers.iter().any(|archive| Digest::of(archive).to_string() == digest), "{digest}");
    }
}

#[test]
fn a_layer_that_is_not_what_the_image_promises_fails_the_import() {
    if !need_root() {
        return;
    }
    let scene = Scene::new();
    for bad in 0..3 {
        let mut image = large_image(&["a", "b", "c"], &["large:1"]);
        image.layers[bad] = compressed("gzip", &large_layer("another"));
        let path = scene.archive("bad", &[image]);
        let error = scene.storage.import(&path, ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DigestMismatch, "{}", error.report());
        assert!(error.report().contains(&format!("layer {} of 3", bad + 1)), "{}", error.report());
        assert!(scene.layers().is_empty());
        assert_eq!(scene.storage.images().count().unwrap(), 0);
    }
}
