// SPDX-License-Identifier: MulanPSL-2.0
//! Storages with made-up images and containers. Used by the unit tests of `storage` as well.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]
#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isula_storage::digest::Digest;
use isula_storage::id::{ContainerId, ImageId, LayerId};
use isula_storage::image::CreateImage;
use isula_storage::layer::{CreateLayer, Created};
use isula_storage::storage::{CreateContainer, Ownership, Storage, StorageOptions};

/// A storage of this driver in `place`.
pub fn options(place: &Path, driver: &str) -> StorageOptions {
    StorageOptions { driver: driver.to_owned(), ..StorageOptions::new(place.join("root"), place.join("run")) }
}

/// The driver that makes plain copies: needs nothing.
pub fn open(place: &Path) -> Storage {
    Storage::open(options(place, "vfs")).unwrap()
}

pub fn open_checking(place: &Path) -> Storage {
    Storage::open(StorageOptions { integration_check: true, ..options(place, "vfs") }).unwrap()
}

pub fn open_read_only(place: &Path) -> Storage {
    Storage::open(StorageOptions { ownership: Ownership::ReadOnly, ..options(place, "vfs") }).unwrap()
}

/// A layer archive with one file.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"07346545000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// The archive of the layer that has one file, whose content is its name.
pub fn layer_tar(file: &str) -> Vec<u8> {
    tar(file, file.as_bytes())
}

/// An image as it was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub id: String,
    pub config: String,
    pub manifest: String,
    /// Base first.
    pub layers: Vec<LayerId>,
}

impl Made {
    pub fn top(&self) -> &LayerId {
        self.layers.last().unwrap()
    }

    pub fn config_key(&self) -> String {
        format!("sha256:{}", self.id)
    }

    pub fn request(&self) -> CreateImage {
        CreateImage {
            id: Some(ImageId::new(&self.id).unwrap()),
            layer: self.layers.last().map(ToString::to_string),
            digest: Some(Digest::of(self.manifest.as_bytes()).to_string()),
            ..CreateImage::default()
        }
    }
}

/// The image whose layers have one file each.
pub fn image(files: &[&str]) -> Made {
    let mut chain = None;
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for file in files {
        let diff_id = Digest::of(&layer_tar(file));
        let id = diff_id.chained_on(chain);
        chain = Some(id);
        diff_ids.push(format!("\"{diff_id}\""));
        layers.push(LayerId::new(&id.hex()).unwrap());
    }
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let digest = Digest::of(config.as_bytes());
    let blobs: Vec<String> = diff_ids
        .iter()
        .map(|diff_id| format!(r#"{{"mediaType":"l","size":1,"digest":{diff_id}}}"#))
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"c","size":{},"digest":"{digest}"}},"layers":[{}]}}"#,
        config.len(),
        blobs.join(",")
    );
    Made { id: digest.hex(), config, manifest, layers }
}

/// Makes the layers that are missing, as a pull does; none is held afterwards.
pub fn add_layers(storage: &Storage, files: &[&str]) -> Made {
    let made = image(files);
    let mut parent: Option<LayerId> = None;
    for (file, id) in files.iter().zip(&made.layers) {
        let archive = layer_tar(file);
        let digest = Digest::of(&archive).to_string();
        let create = CreateLayer {
            parent: parent.clone(),
            compressed_digest: Some(digest.clone()),
            uncompressed_digest: Some(digest),
            ..CreateLayer::default()
        };
        let mut content = archive.as_slice();
        storage.layers().create(id, &create, Some(&mut content)).unwrap();
        parent.replace(id.clone()).into_iter().for_each(|below| storage.release(&below).unwrap());
    }
    parent.into_iter().for_each(|top| storage.release(&top).unwrap());
    made
}

/// Makes an image with its layers.
pub fn add_image(storage: &Storage, files: &[&str], names: &[&str]) -> Made {
    let made = add_layers(storage, files);
    storage.create_image(&made.request()).unwrap();
    complete(storage, &made, names);
    made
}

/// What a pull does once the record is there.
pub fn complete(storage: &Storage, made: &Made, names: &[&str]) {
    let images = storage.images();
    for name in names {
        images.add_name(&made.id, name).unwrap();
    }
    images.set_big_data(&made.id, &made.config_key(), made.config.as_bytes()).unwrap();
    images.set_big_data(&made.id, "manifest", made.manifest.as_bytes()).unwrap();
    storage.refresh_size(&made.id).unwrap();
}

/// Id of a container: one digit, 64 times.
pub fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

pub fn container(digit: char, image: &str) -> CreateContainer {
    CreateContainer {
        id: ContainerId::new(&id(digit)).unwrap(),
        image: image.to_owned(),
        mount_label: None,
        storage_options: Vec::new(),
    }
}

/// Makes a container with a file of its own; returns its id.
pub fn add_container(storage: &Storage, digit: char, image: &str) -> String {
    let place = storage.create_container(&container(digit, image)).unwrap().unwrap();
    assert_eq!(storage.mount_container(&id(digit)).unwrap(), place);
    std::fs::write(place.join("own"), id(digit)).unwrap();
    storage.unmount_container(&id(digit), false).unwrap();
    id(digit)
}

/// What is in a container: names and contents of its files.
pub fn content(storage: &Storage, container: &str) -> BTreeMap<String, String> {
    let place = storage.mount_container(container).unwrap();
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&place).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found.insert(name, std::fs::read_to_string(&path).unwrap());
    }
    storage.unmount_container(container, false).unwrap();
    found
}

/// A bare writable or image layer.
pub fn add_bare_layer(storage: &Storage, id: &str, parent: Option<&LayerId>, writable: bool) -> LayerId {
    let layer = LayerId::new(id).unwrap();
    let create = CreateLayer { parent: parent.cloned(), writable, ..CreateLayer::default() };
    assert!(matches!(storage.layers().create(&layer, &create, None).unwrap(), Created::New(_)));
    storage.release(&layer).unwrap();
    layer
}

pub fn layers(storage: &Storage) -> Vec<String> {
    let mut ids: Vec<String> =
        storage.layers().list().into_iter().map(|layer| layer.id.to_string()).collect();
    ids.sort();
    ids
}

pub fn sorted<S: ToString>(ids: impl IntoIterator<Item = S>) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.sort();
    ids
}

pub fn images(storage: &Storage) -> Vec<String> {
    sorted(storage.images().list().unwrap().iter().map(|image| image.id.clone().unwrap()))
}

pub fn containers(storage: &Storage) -> Vec<String> {
    sorted(storage.containers().unwrap().list().unwrap().iter().map(|record| record.id.clone().unwrap()))
}

/// `subject: reason` of all problems.
pub fn problems(storage: &Storage) -> Vec<String> {
    let problems = storage.problems().into_iter();
    problems.map(|problem| format!("{}: {}", problem.subject, problem.reason)).collect()
}

/// Names of what lies in quarantine, in order.
pub fn aside(storage: &Storage) -> Vec<String> {
    sorted(storage.status().unwrap().quarantined.into_iter().map(|entry| entry.name))
}

pub fn checked_list(place: &Path) -> PathBuf {
    let run = place.join("run");
    let name = Digest::of(run.to_str().unwrap().as_bytes()).hex();
    run.join(format!("{name}.json"))
}
