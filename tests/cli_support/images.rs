// SPDX-License-Identifier: MulanPSL-2.0
//! Image archives made for a test.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use isula_storage::digest::Digest;
use serde_json::{Value, json};

const BLOCK: usize = 512;

/// Writes a ustar archive.
pub struct Tar<W: Write>(W);

impl<W: Write> Tar<W> {
    pub fn new(out: W) -> Self {
        Tar(out)
    }

    pub fn dir(&mut self, name: &str) {
        self.entry(name, b'5', 0o755, &[], "");
    }

    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, b'0', 0o644, content, "");
    }

    pub fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, b'2', 0o777, &[], target);
    }

    pub fn entry(&mut self, name: &str, kind: u8, mode: u32, content: &[u8], link: &str) {
        let mut header = [0u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let mut field =
            |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(100, format!("{mode:07o}"));
        field(108, format!("{:07o}", 0));
        field(116, format!("{:07o}", 0));
        field(124, format!("{:011o}", content.len()));
        field(136, format!("{:011o}", 1_600_000_000));
        field(148, " ".repeat(8));
        field(157, link.to_owned());
        field(257, "ustar\x0000".to_owned());
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.write_all(&header).unwrap();
        self.0.write_all(content).unwrap();
        self.0.write_all(&[0; BLOCK][..content.len().next_multiple_of(BLOCK) - content.len()]).unwrap();
    }

    pub fn finish(mut self) -> W {
        self.0.write_all(&[0; 2 * BLOCK]).unwrap();
        self.0
    }
}

/// A layer with a few files that are only this layer's.
pub fn small_layer(tag: &str) -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    tar.dir("data/");
    tar.file(&format!("data/{tag}"), format!("content of {tag}\n").repeat(50).as_bytes());
    tar.symlink(&format!("data/link-{tag}"), tag);
    tar.finish()
}

/// Bytes through a compression program.
pub fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The config of an image of these (uncompressed) layers.
pub fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    json!({
        "created": "2020-01-02T03:04:05.678901234Z",
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created": "2020-01-02T03:04:05Z", "created_by": "test" }],
    })
}

/// One image of a docker archive.
pub struct DockerImage {
    pub config: Vec<u8>,
    /// As they lie in the archive.
    pub layers: Vec<Vec<u8>>,
    pub tags: Vec<String>,
}

impl DockerImage {
    pub fn new(layers: &[Vec<u8>], tags: &[&str]) -> Self {
        DockerImage {
            config: config(layers).to_string().into_bytes(),
            layers: layers.to_vec(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config).hex()
    }
}

/// A docker archive, its list of images at the end as `docker save` writes it.
pub fn docker_archive(images: &[DockerImage]) -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    let mut list = Vec::new();
    for image in images {
        let config = format!("{}.json", image.id());
        let mut layers = Vec::new();
        for layer in &image.layers {
            let name = format!("{}/layer.tar", Digest::of(layer).hex());
            tar.file(&name, layer);
            layers.push(name);
        }
        tar.file(&config, &image.config);
        list.push(json!({ "Config": config, "RepoTags": image.tags, "Layers": layers }));
    }
    tar.file("manifest.json", Value::from(list).to_string().as_bytes());
    tar.finish()
}

/// A layout directory under construction.
pub struct Layout {
    dir: std::path::PathBuf,
    index: Vec<Value>,
}

impl Layout {
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir: dir.to_owned(), index: Vec::new() }
    }

    /// Stores a blob; its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    }

    /// Stores an image: its config, and its layers as media type and bytes; the manifest's descriptor.
    pub fn image(&self, config: &Value, layers: &[(&str, Vec<u8>)]) -> Value {
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<Value> = layers.iter().map(|(kind, bytes)| self.blob(kind, bytes)).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())
    }

    /// Lists a descriptor in the index.
    pub fn list(&mut self, mut descriptor: Value, name: Option<&str>, platform: Option<(&str, &str)>) {
        if let Some(name) = name {
            descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        if let Some((os, architecture)) = platform {
            descriptor["platform"] = json!({ "os": os, "architecture": architecture });
        }
        self.index.push(descriptor);
    }

    /// Writes the index; the directory.
    pub fn finish(self) -> std::path::PathBuf {
        let index = json!({ "schemaVersion": 2, "manifests": self.index });
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
        self.dir
    }
}

/// A docker archive of one layer with `files` files of together about `bytes` bytes, written to `path` piece by piece.
pub fn large_archive(path: &Path, files: usize, bytes: usize) {
    let scratch = path.with_extension("layer");
    let mut tar = Tar::new(std::io::BufWriter::new(fs::File::create(&scratch).unwrap()));
    let each = bytes / files.max(1);
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = vec![0u8; each];
    for number in 0..files {
        if number % 200 == 0 {
            tar.dir(&format!("d{}/", number / 200));
        }
        for chunk in content.chunks_mut(8) {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            chunk.copy_from_slice(&noise.to_le_bytes()[..chunk.len()]);
        }
        tar.file(&format!("d{}/f{number}", number / 200), &content);
    }
    tar.finish().into_inner().map_err(|error| error.to_string()).unwrap().sync_data().unwrap();

    let sum = Command::new("sha256sum").arg(&scratch).output().unwrap();
    let diff_id = String::from_utf8(sum.stdout).unwrap().split_whitespace().next().unwrap().to_owned();
    let mut config = config(&[]);
    config["rootfs"]["diff_ids"] = json!([format!("sha256:{diff_id}")]);
    let staging = path.with_extension("staging");
    fs::create_dir(&staging).unwrap();
    fs::rename(&scratch, staging.join("layer.tar")).unwrap();
    fs::write(staging.join("config.json"), config.to_string()).unwrap();
    let list = json!([{ "Config": "config.json", "RepoTags": ["large:1"], "Layers": ["layer.tar"] }]);
    fs::write(staging.join("manifest.json"), list.to_string()).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(path).arg("-C").arg(&staging).args(["layer.tar", "config.json", "manifest.json"]);
    super::common::run(&mut tar);
    fs::remove_dir_all(&staging).unwrap();
}
