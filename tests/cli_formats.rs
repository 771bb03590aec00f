// SPDX-License-Identifier: MulanPSL-2.0
//! Every form in which images come: docker archives and OCI layouts, packed or not, from a file, a directory or a pipe,
//! made by this test and by other tools.
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
use std::path::{Path, PathBuf};
use std::process::Command;

use cli_support::common::{TestRoot, need_root, run};
use cli_support::images::{DockerImage, Layout, Tar, compressed, config, docker_archive, small_layer};
use cli_support::{Store, golden_image, text};
use isula_storage::digest::Digest;
use serde_json::{Value, json};

const BB: &str = "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn put(store: &Store, bytes: &[u8]) -> PathBuf {
    let path = store.home().join("archive");
    fs::write(&path, bytes).unwrap();
    path
}

fn diff_ids(store: &Store, image: &str) -> Vec<String> {
    let image = store.json(["inspect", image]);
    let mut ids: Vec<String> =
        image["layers"].as_array().unwrap().iter().map(|layer| text(&layer["uncompressed_digest"])).collect();
    ids.reverse();
    ids
}

fn digests(layers: &[Vec<u8>]) -> Vec<String> {
    layers.iter().map(|layer| Digest::of(layer).to_string()).collect()
}

#[test]
fn a_docker_archive_may_be_packed_in_any_way_and_come_through_a_pipe() {
    if !need_root() {
        return;
    }
    let image = DockerImage::new(&[small_layer("a"), small_layer("b")], &["x:1"]);
    let plain = docker_archive(std::slice::from_ref(&image));
    for program in ["cat", "gzip", "zstd", "bzip2", "xz"] {
        let packed = if program == "cat" { plain.clone() } else { compressed(program, &plain) };
        let store = Store::in_memory();
        let path = put(&store, &packed);
        store.import(&path);
        assert_eq!(store.assert_whole(), [image.id()], "{program}");

        let store = Store::in_memory();
        let mut import = store.tool();
        let output =
            import.args(["-q", "import", "-"]).stdin(fs::File::open(put(&store, &packed)).unwrap()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), image.id(), "{program}, piped");
        assert_eq!(store.assert_whole(), [image.id()], "{program}, piped");
        let root: Vec<String> = fs::read_dir(store.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("overlay") && name != ".isula-storage")
            .collect();
        assert_eq!(root, [""; 0], "{program}: nothing stays of the unpacked archive");
    }
}

/// iSulad's load hashes the packed layer for the compressed digest and the unpacked one for the diff ID.
#[test]
fn layers_of_a_docker_archive_may_be_packed() {
    if !need_root() {
        return;
    }
    let layers = [small_layer("a"), small_layer("b"), small_layer("c")];
    let mut image = DockerImage::new(&layers, &["x:1"]);
    image.layers[0] = compressed("gzip", &layers[0]);
    image.layers[1] = compressed("zstd", &layers[1]);
    let store = Store::in_memory();
    store.import(&put(&store, &docker_archive(std::slice::from_ref(&image))));
    assert_eq!(store.assert_whole(), [image.id()]);
    assert_eq!(diff_ids(&store, "x:1"), digests(&layers));
    let held = store.json(["inspect", "x:1"]);
    let packed: Vec<String> = held["layers"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|layer| text(&layer["compressed_digest"]))
        .collect();
    assert_eq!(packed, digests(&image.layers));
    let manifest = fs::read(store.dir("images").join(image.id()).join("manifest")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for (entry, (packed, plain)) in
        manifest["layers"].as_array().unwrap().iter().zip(image.layers.iter().zip(&layers))
    {
        assert_eq!(text(&entry["digest"]), Digest::of(plain).to_string(), "the diff ID, as iSulad has it");
        assert_eq!(entry["size"], packed.len());
    }
}

#[test]
fn names_are_as_isulad_has_them_and_move() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let a = DockerImage::new(
        &[small_layer("a")],
        &["docker.io/library/x", "docker.io/me/y:1", "h:5000/z", "x:latest"],
    );
    let report = store.import(&put(&store, &docker_archive(std::slice::from_ref(&a))));
    assert_eq!(store.names(), [(a.id(), vec!["h:5000/z:latest".into(), "me/y:1".into(), "x:latest".into()])]);
    assert_eq!(report["images"][0]["existed"], false);

    let b = DockerImage::new(&[small_layer("b")], &["x", "b:1"]);
    store.import(&put(&store, &docker_archive(std::slice::from_ref(&b))));
    let mut names = store.names();
    names.sort();
    let mut wanted = [
        (a.id(), vec!["h:5000/z:latest".to_owned(), "me/y:1".to_owned()]),
        (b.id(), vec!["b:1".to_owned(), "x:latest".to_owned()]),
    ];
    wanted.sort();
    assert_eq!(names, wanted);

    // An image without a name, and then with one of the caller's choice.
    let c = DockerImage::new(&[small_layer("c")], &[]);
    let path = put(&store, &docker_archive(std::slice::from_ref(&c)));
    store.import(&path);
    assert!(store.ok(["images"]).contains("<none>"));
    let report = store.json(["import".as_ref(), "--name".as_ref(), "c:x".as_ref(), path.as_os_str()]);
    assert_eq!(report["images"][0]["existed"], true);
    assert_eq!(report["images"][0]["names"], json!(["c:x"]));
    for name in ["UPPER", "a b", ""] {
        let args = ["import".as_ref(), "--name".as_ref(), name.as_ref(), path.as_os_str()];
        assert_eq!(store.fails(args).0, 2, "{name:?}");
    }
    let mut keep = store.tool();
    keep.args(["--default-host", "", "-q", "import", "--name", "docker.io/library/k:1"]).arg(&path);
    run(&mut keep);
    let record = fs::read_to_string(store.dir("images").join(c.id()).join("images.json")).unwrap();
    assert!(record.contains("\"docker.io/library/k:1\""), "{record}");
    store.assert_whole();

    let two = docker_archive(&[a, b]);
    let path = put(&store, &two);
    let (code, message) =
        store.fails(["import".as_ref(), "--name".as_ref(), "n:1".as_ref(), path.as_os_str()]);
    assert_eq!(code, 2);
    assert!(message.contains("single image"), "{message}");
}

#[test]
fn a_layout_may_have_layers_of_every_compression() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let layers = [small_layer("a"), small_layer("b"), small_layer("c")];
    let dir = store.home().join("layout");
    let mut layout = Layout::new(&dir);
    let packed = [
        (PLAIN, layers[0].clone()),
        (GZIP, compressed("gzip", &layers[1])),
        (ZSTD, compressed("zstd", &layers[2])),
    ];
    let image = layout.image(&config(&layers), &packed);
    layout.list(image.clone(), Some("a:1"), None);
    layout.list(image.clone(), Some("b:1"), None);
    layout.list(image.clone(), Some("not a name"), None);
    let report = store.import(&layout.finish());
    assert_eq!(report["images"].as_array().unwrap().len(), 1);
    assert_eq!(report["images"][0]["names"], json!(["a:1", "b:1"]));
    assert!(text(&report["warnings"][0]).contains("not a name"), "{report}");
    store.assert_whole();
    assert_eq!(diff_ids(&store, "b:1"), digests(&layers));
    let held = store.json(["inspect", "a:1"]);
    assert_eq!(held["digest"], image["digest"], "that of the genuine manifest");
    let packed: Vec<Vec<u8>> = packed.into_iter().map(|(_, bytes)| bytes).collect();
    let compressed: Vec<String> = held["layers"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|layer| text(&layer["compressed_digest"]))
        .collect();
    assert_eq!(compressed, digests(&packed));

    // The same as an archive, also below a directory of its own.
    for args in [["-C", dir.to_str().unwrap(), "."], ["-C", store.home().to_str().unwrap(), "layout"]] {
        let archive = store.home().join("layout.tar");
        run(Command::new("tar").arg("-cf").arg(&archive).args(args));
        let again = store.import(&archive);
        assert_eq!(again["images"][0]["existed"], true, "{args:?}");
        let fresh = Store::in_memory();
        fresh.import(&archive);
        assert_eq!(fresh.assert_whole(), store.assert_whole());
    }
}

#[test]
fn of_an_image_for_several_platforms_one_is_taken() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let dir = store.home().join("layout");
    let mut layout = Layout::new(&dir);
    let make = |layout: &Layout, architecture: &str| {
        let layers = [small_layer(architecture)];
        let mut config = config(&layers);
        config["architecture"] = json!(architecture);
        layout.image(&config, &[(PLAIN, layers[0].clone())])
    };
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64", "riscv64"] {
        let mut image = make(&layout, architecture);
        image["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifests.push(image);
    }
    let mut attestation = layout.blob("application/vnd.oci.image.manifest.v1+json", b"{}");
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    manifests.push(attestation);
    let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    let index = layout.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    layout.list(index, Some("multi:1"), None);
    let dir = layout.finish();

    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    store.import(&dir);
    assert_eq!(store.json(["inspect", "multi:1"])["config"]["architecture"], here);
    store.ok(["import".as_ref(), "--platform".as_ref(), "linux/riscv64".as_ref(), dir.as_os_str()]);
    assert_eq!(store.json(["inspect", "multi:1"])["config"]["architecture"], "riscv64", "the name moved");
    let (code, message) =
        store.fails(["import".as_ref(), "--platform".as_ref(), "linux/s390x".as_ref(), dir.as_os_str()]);
    assert_eq!(code, 5);
    assert!(
        message.contains("no image for linux/s390x, only for linux/amd64, linux/arm64, linux/riscv64"),
        "{message}"
    );
    store.assert_whole();
}

/// Both ways of naming files in an old docker archive: a link to the layer, and the same layer twice.
#[test]
fn links_in_an_archive_are_followed_and_a_layer_may_occur_twice() {
    if !need_root() {
        return;
    }
    let layer = small_layer("a");
    let image = DockerImage::new(&[layer.clone(), layer.clone(), layer.clone()], &["x:1"]);
    let mut tar = Tar::new(Vec::new());
    tar.file("first/layer.tar", &layer);
    tar.symlink("second/layer.tar", "../first/layer.tar");
    tar.entry("third/layer.tar", b'1', 0o644, &[], "first/layer.tar");
    tar.file("config.json", &image.config);
    let list = json!([{ "Config": "config.json", "RepoTags": ["x:1"],
        "Layers": ["first/layer.tar", "./second/layer.tar", "third/layer.tar"] }]);
    tar.file("manifest.json", list.to_string().as_bytes());
    let store = Store::in_memory();
    store.import(&put(&store, &tar.finish()));
    store.assert_whole();
    assert_eq!(store.layer_ids().len(), 3, "each stands on the one below");
    let path = store.ok(["mount", "x:1"]);
    assert!(Path::new(path.trim()).join("data/a").exists());
    store.ok(["umount", "x:1"]);
}

/// What other tools write, from the real image.
#[test]
fn archives_of_other_tools_are_taken() {
    if !need_root() {
        return;
    }
    let work = TestRoot::in_memory("tools");
    run(Command::new("tar").arg("-xf").arg(golden_image("bb-oci-layout.tar.gz")).arg("-C").arg(work.path()));
    let from = format!("oci:{}:base", work.join("layout").display());
    let skopeo = |to: String| {
        let mut copy = Command::new("skopeo");
        run(copy.args(["--insecure-policy", "copy", "-q", &from, &to]));
    };
    skopeo(format!("oci-archive:{}:made:2", work.join("oci.tar").display()));
    skopeo(format!("docker-archive:{}:made:3", work.join("docker.tar").display()));
    skopeo(format!("oci:{}:made:4", work.join("oci").display()));
    run(Command::new("umoci").args(["tag", "--image"]).arg(work.join("oci:made:4")).arg("five"));
    for (file, names) in
        [("oci.tar", &["made:2"][..]), ("docker.tar", &["made:3"]), ("oci", &["five:latest", "made:4"])]
    {
        let store = Store::in_memory();
        store.import(&work.join(file));
        let ids = store.assert_whole();
        let image = store.json(["inspect", &ids[0]]);
        assert_eq!(image["names"], json!(names), "{file}");
        assert_eq!(diff_ids(&store, &ids[0]).len(), 2, "{file}");
        if file != "docker.tar" {
            assert_eq!(ids, [BB], "{file}");
        }
        let path = store.ok(["mount", &ids[0]]);
        let echo =
            Command::new("chroot").arg(path.trim()).args(["/bin/busybox", "echo", "hi"]).output().unwrap();
        assert_eq!(echo.stdout, b"hi\n", "{file}");
        store.ok(["umount", &ids[0]]);
    }
}

#[test]
fn the_vfs_driver_holds_the_same() {
    if !need_root() {
        return;
    }
    let mut store = Store::in_memory();
    store.driver = "vfs";
    store.import(&golden_image("opq.tar.gz"));
    store.assert_whole();
    let path = store.ok(["mount", "localhost/opq:v1"]);
    assert!(!Path::new(path.trim()).join("opt/dir1/one").exists());
    store.ok(["umount", "localhost/opq:v1"]);
    store.ok(["rmi", "localhost/opq:v1"]);
    assert_eq!(store.layer_ids(), [""; 0]);
}
