// SPDX-License-Identifier: MulanPSL-2.0
//! What a registry or an archive would give the daemon of the tests: images as files, described by `NAME.bundle`
//! (c_tests/daemon.h); and stores that the reference left.

#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]

use std::fs;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use isula_storage::digest::Digest;
use serde_json::json;

use crate::archive_common::layers_of;
use crate::c_support::run;
use crate::images::Tar;

/// Writes all bundles that the programs know.
pub fn write_bundles(dir: &Path) {
    let base = base_layer();
    let seen = [
        ("etc/name", "derived\n"),
        ("opt/kept", "kept\n"),
        ("opt/added", "added\n"),
        ("opt/removed", ""),
        ("cache/old", ""),
        ("cache/new", "new\n"),
        ("bin/linked", "tool\n"),
    ];
    let first = layer(&[("etc/name", "derived\n"), ("opt/.wh.removed", ""), ("opt/added", "added\n")]);
    let second = layer(&[("cache/.wh..wh..opq", ""), ("cache/new", "new\n")]);
    let own = |name: &str| layer(&[("own", name)]);
    write(dir, "base", &[gzip(&base)], &[("etc/name", "base\n"), ("opt/removed", "removed\n")]);
    write(dir, "derived", &[gzip(&base), gzip(&first), gzip(&second)], &seen);
    for name in ["other1", "other2", "other3", "other4"] {
        write(dir, name, &[gzip(&base), gzip(&own(name))], &[("own", name), ("etc/name", "base\n")]);
    }
    let mut broken = gzip(&own("broken"));
    // The file is not what its digest says, as far as the daemon could not know before it unpacks.
    broken.bytes = gzip(&own("another")).bytes;
    write(dir, "broken", &[gzip(&base), gzip(&own("under")), broken], &[]);
    write(dir, "plain", &[stored(&base), stored(&own("plain"))], &[("own", "plain")]);
    let import = |name: &str, bytes: Vec<u8>| {
        // The daemon's import takes the digest of the file for that of what is in it.
        let digest = Digest::of(&bytes).to_string();
        let file = Blob { digest: digest.clone(), diff_id: digest, bytes };
        write(dir, name, &[file], &[("own", name)]);
    };
    import("imported-tar", own("imported-tar"));
    import("imported-gz", gzip(&own("imported-gz")).bytes);
    // The real image of the golden trees, as it was loaded there.
    let real: Vec<Blob> = layers_of("bb.tar.gz").iter().map(|bytes| stored(bytes)).collect();
    write(
        dir,
        "real",
        &real,
        &[("opt/dir1/three", "new\n"), ("opt/dir1/one", ""), ("opt/dir2/keep", "changed\n")],
    );
}

struct Blob {
    digest: String,
    diff_id: String,
    bytes: Vec<u8>,
}

fn gzip(bytes: &[u8]) -> Blob {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    let packed = encoder.finish().unwrap();
    Blob { digest: Digest::of(&packed).to_string(), diff_id: Digest::of(bytes).to_string(), bytes: packed }
}

fn stored(bytes: &[u8]) -> Blob {
    let digest = Digest::of(bytes).to_string();
    Blob { digest: digest.clone(), diff_id: digest, bytes: bytes.to_vec() }
}

fn base_layer() -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    for dir in ["bin/", "cache/", "etc/", "opt/", "root/"] {
        tar.dir(dir);
    }
    for (name, content) in [("etc/name", "base\n"), ("opt/kept", "kept\n"), ("opt/removed", "removed\n")] {
        tar.file(name, content.as_bytes());
    }
    tar.file("cache/old", b"old\n");
    tar.file("bin/tool", b"tool\n");
    tar.entry("bin/linked", b'1', 0o644, &[], "bin/tool");
    tar.symlink("bin/sh", "tool");
    tar.entry("root/fifo", b'6', 0o600, &[], "");
    tar.file("bin/large", &vec![b'x'; 300 << 10]);
    tar.finish()
}

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    for (name, content) in files {
        tar.file(name, content.as_bytes());
    }
    tar.finish()
}

fn write(dir: &Path, name: &str, layers: &[Blob], seen: &[(&str, &str)]) {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20.000000005Z",
        "config": {"Cmd": [name], "Env": ["PATH=/bin"], "Labels": {"made": "for tests"}, "User": "0:0"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": name}],
    })
    .to_string();
    let config_digest = Digest::of(config.as_bytes());
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                            "size": layer.bytes.len(), "digest": layer.digest})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(),
                   "digest": config_digest.to_string()},
        "layers": descriptors,
    })
    .to_string();
    let mut lines = vec![
        format!("name {name}:latest"),
        format!("id {}", config_digest.hex()),
        format!("manifest_digest {}", Digest::of(manifest.as_bytes())),
        format!("config {name}.config"),
        format!("manifest {name}.manifest"),
    ];
    let mut chain: Option<String> = None;
    for (number, layer) in layers.iter().enumerate() {
        let id = match &chain {
            None => layer.diff_id.clone(),
            // Not as OCI has it: the reference leaves the algorithms out.
            Some(parent) => {
                let text = format!("{parent}+{}", layer.diff_id).replace("sha256:", "");
                Digest::of(text.as_bytes()).to_string()
            }
        };
        lines.push(format!(
            "layer {} {} {} {name}.{number}",
            layer.digest,
            layer.diff_id,
            id.trim_start_matches("sha256:")
        ));
        fs::write(dir.join(format!("{name}.{number}")), &layer.bytes).unwrap();
        chain = Some(id);
    }
    for (path, content) in seen {
        // A line of the description ends where the file's line does.
        match content.trim_end() {
            "" => lines.push(format!("absent {path}")),
            content => lines.push(format!("file {path} {content}")),
        }
    }
    fs::write(dir.join(format!("{name}.config")), config).unwrap();
    fs::write(dir.join(format!("{name}.manifest")), manifest).unwrap();
    fs::write(dir.join(format!("{name}.bundle")), lines.join("\n") + "\n").unwrap();
}

/// Unpacks one of the trees that a real iSulad daemon left; `graph` and `state` as its settings would name them.
pub fn unpack_golden(tree: &str, graph: &Path, state: &Path) {
    fs::create_dir_all(graph).unwrap();
    fs::create_dir_all(state).unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let dir = graph.join("unpacked");
    fs::create_dir(&dir).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xJpf"]).arg(archive);
    run(tar.arg("-C").arg(&dir).arg(tree));
    // One of them is a storage root itself.
    let storage = dir.join(tree).join("storage");
    let (storage, run_root) = if storage.is_dir() {
        (storage, dir.join(tree).join("run"))
    } else {
        (dir.join(tree), dir.join("none"))
    };
    fs::rename(storage, graph.join("storage")).unwrap();
    if run_root.is_dir() {
        fs::rename(run_root, state.join("storage")).unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
}
