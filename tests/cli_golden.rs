// SPDX-License-Identifier: MulanPSL-2.0
//! What an import leaves on disk is what a real iSulad daemon left for the same archives, file by file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod cli_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cli_support::common::need_root;
use cli_support::{Store, golden_image, trees};
use serde_json::Value;

const BUSYBOX: &str = "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3";
const WHITEOUTS: &str = "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b";
const OPAQUE: &str = "2e36010176f580c7d91271f93622a79a2cabc2d9358fc4601da74f97abbcfbe8";
const BB: &str = "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";
const OPQ: &str = "bc963e45ffea5b72f31132cbaa00e912eb1fd7bfd4a5822cc1004791e791c6cb";

/// The lines of a record but those with one of these members.
fn lines_without(path: &Path, members: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let skipped =
        |line: &str| members.iter().any(|member| line.trim_start().starts_with(&format!("\"{member}\":")));
    text.lines().filter(|line| !skipped(line)).map(str::to_owned).collect()
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".isula-storage");
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode()
}

/// Compares what belongs to one layer: record, modes, directory of the driver, content.
fn assert_layer(ours: &Path, golden: &Path, id: &str) {
    let record = |root: &Path| root.join("overlay-layers").join(id);
    assert_eq!(
        lines_without(&record(ours).join("layer.json"), &["created"]),
        lines_without(&record(golden).join("layer.json"), &["created"]),
    );
    assert_eq!(names_in(&record(ours)), names_in(&record(golden)));
    for name in names_in(&record(golden)) {
        assert_eq!(mode(&record(ours).join(&name)), mode(&record(golden).join(&name)), "{name}");
    }

    let data = |root: &Path| root.join("overlay").join(id);
    assert_eq!(names_in(&data(ours)), names_in(&data(golden)));
    for name in names_in(&data(golden)) {
        assert_eq!(mode(&data(ours).join(&name)), mode(&data(golden).join(&name)), "{name}");
    }
    let link = fs::read_to_string(data(ours).join("link")).unwrap();
    assert!(link.len() == 26 && link.bytes().all(|byte| byte.is_ascii_hexdigit()), "{link}");
    let target = fs::read_link(ours.join("overlay/l").join(&link)).unwrap();
    assert_eq!(target, Path::new("..").join(id).join("diff"));
    trees::assert_same(&data(ours).join("diff"), &data(golden).join("diff"));
}

/// The lowers of a layer as ids, whatever their links are called.
fn lowers(root: &Path, id: &str) -> Vec<String> {
    let Ok(text) = fs::read_to_string(root.join("overlay").join(id).join("lower")) else { return Vec::new() };
    let layer = |link: &str| {
        let target = fs::read_link(root.join("overlay").join(link)).unwrap();
        target.iter().nth(1).unwrap().to_str().unwrap().to_owned()
    };
    text.split(':').map(layer).collect()
}

fn image_dir(root: &Path, id: &str) -> std::path::PathBuf {
    root.join("overlay-images").join(id)
}

fn size(record: &Path) -> u64 {
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    record["size"].as_u64().unwrap()
}

#[test]
fn an_import_of_a_docker_archive_leaves_what_isulad_leaves() {
    if !need_root() {
        return;
    }
    let golden = trees::golden();
    let golden = golden.join("imported/storage");
    let store = Store::in_memory();
    store.import(&golden_image("opq.tar.gz"));
    let ours = store.root();

    assert_eq!(names_in(&store.dir("layers")).len(), 3);
    for id in [BUSYBOX, WHITEOUTS, OPAQUE] {
        assert_layer(&ours, &golden, id);
        assert_eq!(lowers(&ours, id), lowers(&golden, id), "{id}");
    }
    assert_eq!(lowers(&ours, OPAQUE), [WHITEOUTS, BUSYBOX]);
    for dir in ["overlay", "overlay/l", "overlay-layers", "overlay-images"] {
        assert_eq!(mode(&ours.join(dir)), mode(&golden.join(dir)), "{dir}");
    }

    let (ours, golden) = (image_dir(&ours, OPQ), image_dir(&golden, OPQ));
    assert_eq!(mode(&ours), mode(&golden));
    assert_eq!(names_in(&ours), names_in(&golden));
    for name in names_in(&golden) {
        assert_eq!(mode(&ours.join(&name)), mode(&golden.join(&name)), "{name}");
        if name != "images.json" {
            assert_eq!(fs::read(ours.join(&name)).unwrap(), fs::read(golden.join(&name)).unwrap(), "{name}");
        }
    }
    let (ours, golden) = (ours.join("images.json"), golden.join("images.json"));
    assert_eq!(lines_without(&ours, &["loaded", "size"]), lines_without(&golden, &["loaded", "size"]));
    // iSulad counts from -1.
    assert_eq!(size(&ours), size(&golden) + 1);
}

/// The daemon had loaded this image twice, under two names. The second time it knew no sizes of the layer archives, for
/// the layers were there already, and wrote the manifest without them.
#[test]
fn a_second_name_leaves_the_image_as_isulad_leaves_it() {
    if !need_root() {
        return;
    }
    let golden = trees::golden();
    let golden = golden.join("running/storage");
    let store = Store::in_memory();
    let archive = golden_image("bb.tar.gz");
    let archive = archive.to_str().unwrap();
    store.ok(["import", "--name", "docker.io/library/busybox:latest", archive]);
    let loaded = lines_without(&image_dir(&store.root(), BB).join("images.json"), &["names"]);
    let second = store.json(["import", "--name", "localhost/bb:v2", archive]);
    assert_eq!(second["images"][0]["existed"], true);
    assert!(second["images"][0]["layers"].as_array().unwrap().iter().all(|layer| layer["existed"] == true));
    let ours = store.root();
    assert_ne!(
        lines_without(&image_dir(&ours, BB).join("images.json"), &["names"]),
        loaded,
        "a new loaded time"
    );

    for id in [BUSYBOX, WHITEOUTS] {
        assert_layer(&ours, &golden, id);
        assert_eq!(lowers(&ours, id), lowers(&golden, id), "{id}");
    }
    let (ours, golden) = (image_dir(&ours, BB), image_dir(&golden, BB));
    assert_eq!(names_in(&ours), names_in(&golden));
    let without_sizes = {
        let text = fs::read_to_string(ours.join("manifest")).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.retain(|line| !matches!(line.trim(), "\"size\": 2007552," | "\"size\": 7168,"));
        lines.join("\n") + "\n"
    };
    assert_eq!(without_sizes, fs::read_to_string(golden.join("manifest")).unwrap());
    // So the manifest differs, and with it its size and digest in the record, and the size of the image.
    let members = ["loaded", "size", "manifest"];
    let (ours, golden) = (ours.join("images.json"), golden.join("images.json"));
    assert_eq!(lines_without(&ours, &members), lines_without(&golden, &members));
    assert_eq!(
        size(&ours),
        1_982_362
            + 12
            + 658
            + without_sizes.len() as u64
            + 2 * "            \"size\": ,\n".len() as u64
            + 7
            + 4
    );
}

/// iSulad cannot load these; the layers are the same, so the content must be too. The manifest is the genuine one.
#[test]
fn an_oci_archive_gives_the_same_content() {
    if !need_root() {
        return;
    }
    let golden = trees::golden();
    let golden = golden.join("running/storage");
    let store = Store::in_memory();
    store.import(&golden_image("bb-oci-layout.tar.gz"));
    let ours = store.root();
    for id in [BUSYBOX, WHITEOUTS] {
        trees::assert_same(
            &ours.join("overlay").join(id).join("diff"),
            &golden.join("overlay").join(id).join("diff"),
        );
        let record = |root: &Path| root.join("overlay-layers").join(id).join("layer.json");
        let members = ["created", "compressed-diff-digest"];
        assert_eq!(lines_without(&record(&ours), &members), lines_without(&record(&golden), &members));
    }
    assert_eq!(store.names(), [(BB.to_owned(), vec!["base:latest".to_owned()])]);
    let image = store.json(["inspect", "base"]);
    let digest = "sha256:ebf14dadd9a5adaefc661f8e4128bf9f4003258622993172cdbf29a6407de62b";
    assert_eq!(image["digest"], digest);
    assert_eq!(
        image["layers"][1]["compressed_digest"],
        "sha256:789ffae5392983076af9deedfd0123192727857d5ea7c282b4ddb802027ebdf6"
    );
    let manifest = fs::read(image_dir(&ours, BB).join("manifest")).unwrap();
    assert_eq!(isula_storage::digest::Digest::of(&manifest).to_string(), digest);
    store.assert_whole();
}

#[test]
fn every_layer_of_the_real_images_exports_with_its_digest() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    for image in ["bb.tar.gz", "opq.tar.gz", "bb-oci-layout.tar.gz", "bb-nonutf8.tar.gz"] {
        store.import(&golden_image(image));
    }
    assert_eq!(store.assert_whole().len(), 3, "two archives hold the same image");
}

/// A store that iSulad wrote goes on with ours: its images are seen, its layers reused.
#[test]
fn an_import_into_a_store_of_isulad_reuses_its_layers() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let golden = trees::golden();
    cli_support::common::run(
        std::process::Command::new("cp").arg("-a").arg(golden.join("running/storage")).arg(store.root()),
    );
    assert_eq!(
        store.names(),
        [(BB.to_owned(), vec!["busybox:latest".to_owned(), "localhost/bb:v2".to_owned()])]
    );
    let report = store.import(&golden_image("opq.tar.gz"));
    let layers = report["images"][0]["layers"].as_array().unwrap().clone();
    let existed: Vec<bool> = layers.iter().map(|layer| layer["existed"].as_bool().unwrap()).collect();
    assert_eq!(existed, [true, true, false]);
    // The sizes in its manifest do not depend on what was there.
    let manifest = |root: &Path| fs::read_to_string(image_dir(root, OPQ).join("manifest")).unwrap();
    assert_eq!(manifest(&store.root()), manifest(&golden.join("imported/storage")));
    // The containers' layers of the golden store keep the image they were made from.
    let (code, message) = store.fails(["rmi", BB]);
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("is used by container"), "{message}");
    store.ok(["rmi", "localhost/opq:v1"]);
    assert_eq!(store.layer_ids().len(), 4, "two layers of the image, two of containers");
}
