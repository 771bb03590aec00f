// SPDX-License-Identifier: MulanPSL-2.0
//! Storages of many images and layers, written straight to the disk as iSulad writes them.
#![allow(dead_code, unreachable_pub, reason = "not every program uses all of it")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use isula_storage::digest::Digest;
use isula_storage::id::LayerId;
use isula_storage::record::image::ImageRecord;
use isula_storage::record::layer::LayerRecord;
use isula_storage::record::rootfs::RootfsRecord;
use isula_storage::reference::big_data_file_name;
use serde_json::json;

/// What a storage is to hold: each image has a chain of its own of `layers / images` layers.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub images: usize,
    pub layers: usize,
}

/// An empty tar-split stream as gzip writes it.
const TAR_SPLIT: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Short name of a layer: 26 digits.
fn link_of(layer: &LayerId) -> String {
    layer.as_str()[..26].to_owned()
}

fn time(second: usize) -> String {
    format!("2026-11-21T{:02}:{:02}:{:02}.564166910Z", second / 3600 % 24, second / 60 % 60, second % 60)
}

/// Makes the storage in `root`; returns the images' ids.
pub fn make(root: &Path, size: Size) -> Vec<String> {
    for dir in ["overlay/l", "overlay-layers", "overlay-images", "overlay-containers"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let each = size.layers / size.images.max(1);
    (0..size.images)
        .map(|number| {
            let mut chain = Chain::default();
            (0..each).for_each(|layer| chain.push(root, &format!("{number}/{layer}"), number));
            image(root, number, &chain)
        })
        .collect()
}

/// Layers that stand on each other.
#[derive(Debug, Default)]
pub struct Chain {
    pub layers: Vec<LayerId>,
    pub diff_ids: Vec<Digest>,
}

impl Chain {
    /// Makes one more layer on top, with nothing in it but `content`.
    pub fn push(&mut self, root: &Path, content: &str, second: usize) {
        let diff_id = Digest::of(content.as_bytes());
        let id = match self.layers.last() {
            None => LayerId::from(diff_id),
            Some(parent) => LayerId::from(Digest::of(format!("sha256:{parent} {diff_id}").as_bytes())),
        };
        let record = LayerRecord {
            id: Some(id.to_string()),
            parent: self.layers.last().map(ToString::to_string),
            created: Some(time(second)),
            compressed_diff_digest: Some(Digest::of(diff_id.to_string().as_bytes()).to_string()),
            diff_digest: Some(diff_id.to_string()),
            compressed_size: 1000,
            diff_size: 4321,
            ..LayerRecord::default()
        };
        let records = root.join("overlay-layers").join(&id);
        fs::create_dir(&records).unwrap();
        fs::write(records.join("layer.json"), record.to_json().unwrap()).unwrap();
        fs::write(records.join(format!("{id}.tar-split.gz")), TAR_SPLIT).unwrap();

        let home = root.join("overlay");
        let data = home.join(&id);
        for dir in ["", "diff", "merged", "work"] {
            fs::create_dir(data.join(dir)).unwrap();
        }
        fs::write(data.join("link"), link_of(&id)).unwrap();
        symlink(format!("../{id}/diff"), home.join("l").join(link_of(&id))).unwrap();
        if self.layers.is_empty() {
            fs::create_dir(data.join("empty")).unwrap();
        } else {
            let lowers: Vec<String> =
                self.layers.iter().rev().map(|lower| format!("l/{}", link_of(lower))).collect();
            fs::write(data.join("lower"), lowers.join(":")).unwrap();
        }
        self.layers.push(id);
        self.diff_ids.push(diff_id);
    }
}

fn image(root: &Path, number: usize, chain: &Chain) -> String {
    let diff_ids: Vec<String> = chain.diff_ids.iter().map(ToString::to_string).collect();
    let config = json!({
        "created": time(number), "author": "somebody", "architecture": "amd64", "os": "linux",
        "config": {
            "User": "1000", "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["/bin/sh"],
            "WorkingDir": "/root", "ExposedPorts": {"80/tcp": {}},
            "Labels": {"maintainer": "somebody@example.org", "number": number.to_string()},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": diff_ids.iter().map(|id| json!({
            "created": time(number), "created_by": format!("/bin/sh -c #(nop) COPY file:{id} in / ")
        })).collect::<Vec<_>>(),
    })
    .to_string();
    let id = Digest::of(config.as_bytes());
    let manifest = serde_json::to_string_pretty(&json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(), "digest": id.to_string(),
        },
        "layers": diff_ids.iter().map(|id| json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 4321, "digest": id,
        })).collect::<Vec<_>>(),
    }))
    .unwrap();
    let digest = Digest::of(manifest.as_bytes()).to_string();
    let (key, id) = (id.to_string(), id.hex());
    let record = ImageRecord {
        id: Some(id.clone()),
        digest: Some(digest.clone()),
        names: vec![format!("registry.example.org/some/application-{number}:v1")],
        layer: chain.layers.last().map(ToString::to_string),
        big_data_names: vec![key.clone(), "manifest".to_owned()],
        big_data_sizes: Some(vec![
            (key.clone(), i64::try_from(config.len()).unwrap()),
            ("manifest".to_owned(), i64::try_from(manifest.len()).unwrap()),
        ]),
        big_data_digests: Some(vec![(key.clone(), key.clone()), ("manifest".to_owned(), digest)]),
        created: Some(time(number)),
        loaded: Some(time(number)),
        size: 123_456,
        ..ImageRecord::default()
    };
    let dir = root.join("overlay-images").join(&id);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("images.json"), record.to_json().unwrap()).unwrap();
    fs::write(dir.join("manifest"), manifest).unwrap();
    fs::write(dir.join(big_data_file_name(&key)), config).unwrap();
    id
}

/// A container on top of a chain: its record, its layer's record and data.
pub fn container(root: &Path, id: &str, chain: &Chain) {
    let record = LayerRecord {
        id: Some(id.to_owned()),
        parent: chain.layers.last().map(ToString::to_string),
        created: Some(time(86_399)),
        writable: true,
        ..LayerRecord::default()
    };
    let records = root.join("overlay-layers").join(id);
    fs::create_dir(&records).unwrap();
    fs::write(records.join("layer.json"), record.to_json().unwrap()).unwrap();
    let home = root.join("overlay");
    let data = home.join(id);
    for dir in ["", "diff", "merged", "work"] {
        fs::create_dir(data.join(dir)).unwrap();
    }
    fs::write(data.join("link"), &id[..26]).unwrap();
    symlink(format!("../{id}/diff"), home.join("l").join(&id[..26])).unwrap();
    let lowers: Vec<String> =
        chain.layers.iter().rev().map(|lower| format!("l/{}", link_of(lower))).collect();
    fs::write(data.join("lower"), lowers.join(":")).unwrap();

    let record = RootfsRecord {
        id: Some(id.to_owned()),
        names: vec![id.to_owned()],
        layer: Some(id.to_owned()),
        created: Some(time(86_399)),
        ..RootfsRecord::default()
    };
    let dir = root.join("overlay-containers").join(id);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("container.json"), record.to_json().unwrap()).unwrap();
}
