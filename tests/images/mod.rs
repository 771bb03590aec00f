// SPDX-License-Identifier: MulanPSL-2.0
//! Images made up for tests, and stores of them.

#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use isula_storage::digest::Digest;
use isula_storage::id::ImageId;
use isula_storage::image::{CreateImage, ImageStore, ImageStoreOptions};
use isula_storage::persist::{Durability, Ownership};

/// An image as its parts: the id is the digest of the config.
pub struct Sample {
    pub id: String,
    pub config: String,
    pub manifest: String,
}

/// A made-up image; different numbers give different ones. `run` is its config's `config` member.
pub fn sample_with(number: usize, run: &str) -> Sample {
    let diff_id = Digest::of(number.to_string().as_bytes());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{run},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let digest = Digest::of(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"c","size":{},"digest":"{digest}"}},"layers":[{{"mediaType":"l","size":1,"digest":"{diff_id}"}}]}}"#,
        config.len()
    );
    Sample { id: digest.hex(), config, manifest }
}

pub fn sample(number: usize) -> Sample {
    sample_with(number, r#"{"User":"root","Labels":{"k":"v"}}"#)
}

impl Sample {
    pub fn config_key(&self) -> String {
        format!("sha256:{}", self.id)
    }

    pub fn manifest_digest(&self) -> String {
        Digest::of(self.manifest.as_bytes()).to_string()
    }

    pub fn top_layer(&self) -> String {
        Digest::of(self.id.as_bytes()).hex()
    }

    pub fn request(&self, names: &[&str]) -> CreateImage {
        CreateImage {
            id: Some(ImageId::new(&self.id).unwrap()),
            names: strings(names),
            layer: Some(self.top_layer()),
            digest: Some(self.manifest_digest()),
            ..CreateImage::default()
        }
    }

    /// Stores it as iSulad's own load does.
    pub fn store(&self, store: &ImageStore, names: &[&str]) {
        store.create(&self.request(names)).unwrap();
        store.set_big_data(&self.id, &self.config_key(), self.config.as_bytes()).unwrap();
        store.set_big_data(&self.id, "manifest", self.manifest.as_bytes()).unwrap();
    }
}

pub fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub fn options(dir: &Path, ownership: Ownership) -> ImageStoreOptions {
    ImageStoreOptions {
        dir: dir.to_owned(),
        ownership,
        durability: Durability::Full,
        default_host: Some("docker.io".to_owned()),
        layers: None,
        list_incomplete: false,
    }
}

pub fn open(dir: &Path) -> ImageStore {
    ImageStore::open(options(dir, Ownership::Owner)).unwrap()
}

pub fn open_as(dir: &Path, ownership: Ownership) -> ImageStore {
    ImageStore::open(options(dir, ownership)).unwrap()
}

/// Ids of all images in order.
pub fn ids(store: &ImageStore) -> Vec<String> {
    store.list().unwrap().iter().map(|record| record.id.clone().unwrap()).collect()
}

/// Everything below a directory: mode, inode, time of change and content of each entry.
pub fn snapshot(dir: &Path) -> BTreeMap<String, (u32, u64, i64, Vec<u8>)> {
    fn walk(dir: &Path, top: &Path, found: &mut BTreeMap<String, (u32, u64, i64, Vec<u8>)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::symlink_metadata(&path).unwrap();
            let content = if data.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let name = path.strip_prefix(top).unwrap().display().to_string();
            found.insert(name, (data.mode(), data.ino(), data.ctime_nsec(), content));
            if data.is_dir() {
                walk(&path, top, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}
