// SPDX-License-Identifier: MulanPSL-2.0
//! The image store when the world ends, or the disk fails, between any two of its steps.
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

mod crash;
mod failure;

use std::path::Path;

use super::*;
use crate::digest::Digest;

/// A made-up image: its id is the digest of its config.
pub(super) struct Sample {
    pub(super) id: String,
    pub(super) config: String,
    pub(super) manifest: String,
}

pub(super) fn sample(number: usize) -> Sample {
    let diff_id = Digest::of(number.to_string().as_bytes());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let digest = Digest::of(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{digest}"}},"layers":[{{"mediaType":"l","digest":"{diff_id}"}}]}}"#
    );
    Sample { id: digest.hex(), config, manifest }
}

impl Sample {
    /// Stores it as callers do: record, names, config, manifest.
    pub(super) fn store(&self, store: &ImageStore, names: &[&str]) -> Result<()> {
        let id = Some(ImageId::new(&self.id)?);
        let digest = Some(Digest::of(self.manifest.as_bytes()).to_string());
        store.create(&CreateImage { id, digest, layer: Some("layer".into()), ..CreateImage::default() })?;
        for name in names {
            store.add_name(&self.id, name)?;
        }
        store.set_big_data(&self.id, &files::config_key(&self.id), self.config.as_bytes())?;
        store.set_big_data(&self.id, MANIFEST, self.manifest.as_bytes())
    }

    /// It is listed and all there.
    pub(super) fn assert_whole(&self, store: &ImageStore, at: &str) {
        let read = |key: &str| store.big_data(&self.id, key).expect(at);
        assert_eq!(read(MANIFEST), self.manifest.as_bytes(), "{at}");
        assert_eq!(read(&files::config_key(&self.id)), self.config.as_bytes(), "{at}");
        assert_eq!(store.get(&self.id).expect(at).layer.as_deref(), Some("layer"), "{at}");
        assert!(store.config(&self.id).is_ok(), "{at}");
    }
}

pub(super) fn open(path: &Path) -> Result<ImageStore> {
    struct Layers;
    impl LayerLookup for Layers {
        fn by_compressed_digest(&self, digest: &str) -> Vec<LayerCandidate> {
            let diff_id = Some(digest.to_owned());
            vec![LayerCandidate { id: "l".into(), parent: None, uncompressed_digest: diff_id }]
        }
    }
    ImageStore::open(ImageStoreOptions {
        dir: path.to_owned(),
        ownership: Ownership::Owner,
        durability: Durability::Full,
        default_host: Some("docker.io".into()),
        layers: Some(Arc::new(Layers)),
        list_incomplete: false,
    })
}

/// An image of schema 1 as an old store has it; its id.
pub(super) fn plant_schema1(path: &Path) -> String {
    let id = "1".repeat(64);
    std::fs::create_dir(path.join(&id)).unwrap();
    let manifest = r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:b"}],
        "history":[{"v1Compatibility":"{\"architecture\":\"a\",\"os\":\"o\"}"}]}"#;
    std::fs::write(path.join(&id).join(MANIFEST), manifest).unwrap();
    std::fs::write(path.join(&id).join(files::RECORD), format!(r#"{{"id":"{id}","names":["old:1"]}}"#))
        .unwrap();
    id
}
