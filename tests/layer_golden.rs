// SPDX-License-Identifier: MulanPSL-2.0
//! Stores written by a real iSulad daemon: opened, listed, mounted, changed, and compared file by file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use archive_common::{Tree, differences, layers_of, tree};
use common::{LoopExt4, loop_ext4, need_root, run};
use flate2::read::GzDecoder;
use isula_storage::driver::{Limits, Verdict};
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;
use isula_storage::layer::{CreateLayer, Created, LayerStore, LayerStoreOptions};
use isula_storage::persist::{Durability, Ownership};

const BASE: &str = "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3";
const TOP: &str = "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b";
const RUNNING: &str = "5bdedd739ff4704de65820ae9a5f93f63a0cf3869b70eee5531db7a63486ecf5";
const STOPPED: &str = "27cd7024d0302b999ae11c404ed0e0e148559fd3ba3c24947fc98da608fa8f14";
const TOP_DIFF_ID: &str = "sha256:33b7c9e99d55a2e67fbd0ecdf44f19975cbb1c570347feb195557df8f9cb9c24";

/// An ext4 with the stores on it.
struct Golden {
    disk: LoopExt4,
    name: &'static str,
}

impl Golden {
    fn unpack(name: &'static str) -> Golden {
        let disk = loop_ext4(64 << 20);
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
        run(Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xJpf"])
            .arg(archive)
            .arg("-C")
            .arg(disk.path()));
        Golden { disk, name }
    }

    fn root(&self) -> PathBuf {
        self.disk.join(self.name).join("storage")
    }

    fn run_root(&self) -> PathBuf {
        self.disk.join(self.name).join("run")
    }

    fn open(&self, ownership: Ownership) -> LayerStore {
        open(&self.root(), &self.run_root(), ownership)
    }

    /// All files, without what is this library's own and the mount points' contents.
    fn files(&self) -> Tree {
        let mut files = tree(&self.disk.join(self.name));
        files.retain(|path, _| {
            let text = path.to_string_lossy();
            !text.contains(".isula-storage") && !text.contains("/merged/")
        });
        // Times of directories tell when something was made in them, which is not what is compared.
        for node in files.values_mut().filter(|node| node.mode & 0o170_000 == 0o040_000) {
            node.mtime = (0, 0);
        }
        files
    }
}

fn open(root: &Path, run_root: &Path, ownership: Ownership) -> LayerStore {
    LayerStore::open(LayerStoreOptions {
        root: root.to_owned(),
        run_root: run_root.to_owned(),
        driver: "overlay".to_owned(),
        driver_options: Vec::new(),
        durability: Durability::Full,
        ownership,
        owner_shift: None,
        limits: Limits::default(),
    })
    .unwrap_or_else(|error| panic!("{}", error.report()))
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

#[test]
fn a_store_of_isulad_is_listed_as_it_is() {
    if !need_root() {
        return;
    }
    let golden = Golden::unpack("running");
    let store = golden.open(Ownership::Owner);
    assert_eq!(store.problems(), []);
    let layers: Vec<_> = store
        .list()
        .into_iter()
        .map(|layer| {
            let parent = layer.parent.map(|parent| parent.to_string());
            let digest = layer.uncompressed_digest.clone();
            assert_eq!(layer.compressed_digest, digest);
            let created = layer.created.unwrap();
            (
                layer.id.to_string(),
                parent,
                digest,
                layer.uncompressed_size,
                layer.writable,
                layer.mount_count,
                created,
            )
        })
        .collect();
    let owned = |text: &str| text.to_owned();
    let expected = [
        (
            owned(BASE),
            None,
            Some(format!("sha256:{BASE}")),
            1_982_362,
            false,
            0,
            owned("2026-11-21T07:56:35.940640739Z"),
        ),
        (
            owned(TOP),
            Some(owned(BASE)),
            Some(owned(TOP_DIFF_ID)),
            12,
            false,
            0,
            owned("2026-11-21T07:56:35.951805033Z"),
        ),
        (owned(RUNNING), Some(owned(TOP)), None, 0, true, 1, owned("2026-11-21T07:57:47.355553978Z")),
        (owned(STOPPED), Some(owned(TOP)), None, 0, true, 0, owned("2026-11-21T07:58:11.720838626Z")),
    ];
    assert_eq!(layers, expected);
    assert_eq!(store.by_uncompressed_digest(TOP_DIFF_ID).len(), 1);
    for layer in [BASE, TOP, RUNNING, STOPPED] {
        assert_eq!(store.check(layer).unwrap(), Verdict::Valid, "{layer}");
    }
    // Its tar-split streams hold no headers, so the tar cannot be had back; that is said.
    assert_eq!(store.export(BASE, &mut Vec::new()).unwrap_err().kind(), ErrorKind::Corrupt);
    store.unmount(RUNNING, true).unwrap();
    store.close().unwrap();
}

#[test]
fn opening_a_store_of_isulad_changes_only_the_mount_state() {
    if !need_root() {
        return;
    }
    let golden = Golden::unpack("running");
    let before = golden.files();
    let reader = golden.open(Ownership::ReadOnly);
    assert_eq!((reader.list().len(), reader.problems()), (4, Vec::new()));
    assert_eq!(reader.find(RUNNING).unwrap().mount_count, 1);
    drop(reader);
    assert_eq!(differences(&before, &golden.files()), [""; 0]);
    assert!(!golden.root().join(".isula-storage").exists());

    let store = golden.open(Ownership::Owner);
    // The running container is mounted again, on the layers that iSulad wrote.
    let merged = golden.root().join("overlay").join(RUNNING).join("merged");
    assert_eq!(store.find(RUNNING).unwrap().mount_point.as_deref(), Some(merged.as_path()));
    assert_eq!(std::fs::read_to_string(merged.join("root/w")).unwrap(), "hi\n");
    assert_eq!(std::fs::read_to_string(merged.join("opt/dir1/three")).unwrap().len(), 4);
    assert!(!merged.join("opt/dir1/one").exists() && !merged.join("opt/dir2/keep").exists());
    run(Command::new("chroot").arg(&merged).args(["/bin/busybox", "true"]));
    store.unmount(RUNNING, false).unwrap();
    store.mount(STOPPED).unwrap();
    store.unmount(STOPPED, true).unwrap();
    store.close().unwrap();
    let after = golden.files();
    let run_file = |id: &str| Path::new("run/overlay-layers").join(format!("{id}.json"));
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, node)| after.get(*path) != Some(node))
        .map(|(path, _)| path.clone())
        // The home of the driver is on another device now.
        .filter(|path| path != Path::new("storage/overlay/backingFsBlockDev"))
        // The kernel's own marks on an upper directory and its work directory.
        .filter(|path| !path.to_string_lossy().contains("/diff") && !path.to_string_lossy().contains("/work"))
        .collect();
    assert_eq!(changed, [run_file(STOPPED), run_file(RUNNING)]);
    let added: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(added.iter().all(|path| path.to_string_lossy().contains("/work/")), "{added:?}");
    let text =
        std::fs::read_to_string(golden.run_root().join("overlay-layers").join(format!("{RUNNING}.json")));
    assert_eq!(text.unwrap(), format!("{{\n    \"path\": \"{}\"\n}}\n", merged.display()));
}

#[test]
fn deleting_from_a_store_of_isulad_takes_what_belongs_to_the_layer_and_nothing_else() {
    if !need_root() {
        return;
    }
    let golden = Golden::unpack("running");
    // Nothing is mounted in the first place.
    std::fs::write(golden.run_root().join(format!("overlay-layers/{RUNNING}.json")), "{}").unwrap();
    let before = golden.files();
    let store = golden.open(Ownership::Owner);
    assert_eq!(store.delete(BASE).unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(store.delete(TOP).unwrap_err().kind(), ErrorKind::InUse);
    let link = std::fs::read_to_string(golden.root().join("overlay").join(STOPPED).join("link")).unwrap();
    store.delete(STOPPED).unwrap();
    store.close().unwrap();

    let mut expected = before;
    expected.retain(|path, _| {
        let text = path.to_string_lossy();
        !text.contains(STOPPED) || text.contains("overlay-containers")
    });
    expected.remove(&Path::new("storage/overlay/l").join(&link)).unwrap();
    let device = Path::new("storage/overlay/backingFsBlockDev");
    let mut after = golden.files();
    assert!(expected.remove(device).is_some() && after.remove(device).is_some());
    assert_eq!(differences(&expected, &after), [""; 0]);

    let store = golden.open(Ownership::Owner);
    for layer in [RUNNING, TOP, BASE] {
        store.delete(layer).unwrap();
    }
    store.close().unwrap();
    for (dir, left) in
        [("overlay-layers", vec![]), ("overlay", vec![".isula-storage", "backingFsBlockDev", "l"])]
    {
        let mut names: Vec<_> = std::fs::read_dir(golden.root().join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, left);
    }
    assert_eq!(std::fs::read_dir(golden.root().join("overlay/l")).unwrap().count(), 0);
}

/// Lines of a tar-split stream that the reference would have written, too.
fn file_lines(stream: &Path) -> Vec<serde_json::Value> {
    let file = std::fs::File::open(stream).unwrap();
    let text = std::io::read_to_string(GzDecoder::new(file)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    // `position` counts the entries of the stream, and ours holds segments as well.
    lines
        .filter(|line| line["type"] == 1)
        .map(|mut line| {
            line.as_object_mut().unwrap().remove("position");
            line
        })
        .collect()
}

#[test]
fn the_same_image_becomes_the_same_files() {
    if !need_root() {
        return;
    }
    let golden = Golden::unpack("running");
    let ours = golden.disk.join("ours");
    let store = open(&ours, &golden.disk.join("ours-run"), Ownership::Owner);
    let archives = layers_of("bb.tar.gz");
    let base_diff_id = format!("sha256:{BASE}");
    for (name, parent, diff_id, archive) in
        [(BASE, None, base_diff_id.as_str(), &archives[0]), (TOP, Some(id(BASE)), TOP_DIFF_ID, &archives[1])]
    {
        let layer = CreateLayer {
            parent,
            compressed_digest: Some(diff_id.to_owned()),
            uncompressed_digest: Some(diff_id.to_owned()),
            ..CreateLayer::default()
        };
        let created = store.create(&id(name), &layer, Some(&mut archive.as_slice())).unwrap();
        assert_eq!(created, Created::New(id(name)));
        // What the reference cannot do: the exact archive comes back.
        let mut exported = Vec::new();
        assert_eq!(store.export(name, &mut exported).unwrap().0.to_string(), diff_id);
        assert!(exported == *archive);
        assert_eq!(store.check(name).unwrap(), Verdict::Valid);
    }
    store.close().unwrap();
    let theirs = golden.root();

    for name in [BASE, TOP] {
        let layer = |root: &Path| root.join("overlay-layers").join(name);
        let record = |root: &Path| {
            let text = std::fs::read_to_string(layer(root).join("layer.json")).unwrap();
            let line = text.lines().find(|line| line.contains("\"created\"")).unwrap().to_owned();
            assert_eq!(line.len(), r#"    "created": "2026-11-21T07:56:35.940640739Z","#.len());
            text.replace(&line, "")
        };
        assert_eq!(record(&ours), record(&theirs));
        let stream = format!("{name}.tar-split.gz");
        assert_eq!(file_lines(&layer(&ours).join(&stream)), file_lines(&layer(&theirs).join(&stream)));
        let modes = |root: &Path| -> BTreeMap<PathBuf, u32> {
            tree(&layer(root)).into_iter().map(|(path, node)| (path, node.mode)).collect()
        };
        assert_eq!(modes(&ours), modes(&theirs));

        let data = |root: &Path| root.join("overlay").join(name);
        let shape = |root: &Path| -> BTreeMap<PathBuf, (u32, u32, u32)> {
            let mut nodes = tree(&data(root));
            nodes.retain(|path, _| !path.starts_with("diff"));
            nodes.into_iter().map(|(path, node)| (path, (node.mode, node.uid, node.gid))).collect()
        };
        assert_eq!(shape(&ours), shape(&theirs));
        let content = |root: &Path| {
            let mut nodes = tree(&data(root).join("diff"));
            for (path, node) in &mut nodes {
                // The kernel's marks of a writable mount that was looked into by the daemon.
                node.xattrs
                    .retain(|name, _| !name.starts_with(b"trusted.overlay.") || name.ends_with(b".opaque"));
                // Times of directories that no entry names, and of whiteouts, are those of the making.
                if path.as_os_str().is_empty() || node.mode & 0o170_000 != 0o100_000 {
                    node.mtime = (0, 0);
                }
            }
            nodes
        };
        let found = differences(&content(&ours), &content(&theirs));
        assert_eq!(found, [""; 0], "ours left, theirs right");
    }
    let lower = |root: &Path| std::fs::read_to_string(root.join("overlay").join(TOP).join("lower")).unwrap();
    let link = |root: &Path| std::fs::read_to_string(root.join("overlay").join(BASE).join("link")).unwrap();
    for root in [&ours, &theirs] {
        assert_eq!(lower(root), format!("l/{}", link(root)));
    }
}

#[test]
fn layers_made_here_stand_on_layers_made_by_isulad() {
    if !need_root() {
        return;
    }
    let golden = Golden::unpack("running");
    let store = golden.open(Ownership::Owner);
    let container = id(&"c0".repeat(32));
    let layer = CreateLayer { parent: Some(id(TOP)), writable: true, ..CreateLayer::default() };
    store.create(&container, &layer, None).unwrap();
    let merged = store.mount(container.as_str()).unwrap();
    assert!(merged.join("bin/busybox").exists() && !merged.join("opt/dir1/one").exists());
    std::fs::write(merged.join("new"), "x").unwrap();
    drop(store);
    // Layers stay mounted when the store is closed; the next owner counts one.
    assert!(merged.join("new").exists());
    let store = golden.open(Ownership::Owner);
    assert_eq!(store.find(container.as_str()).unwrap().mount_count, 1);
    assert_eq!(std::fs::read_to_string(merged.join("new")).unwrap(), "x");
    let existing = store.create(&id(BASE), &CreateLayer::default(), None).unwrap();
    assert_eq!(existing, Created::Existing(id(BASE)));
    store.delete(container.as_str()).unwrap();
    store.unmount(RUNNING, true).unwrap();
    store.close().unwrap();
}

#[test]
fn every_imported_image_of_isulad_is_found_and_mounts() {
    if !need_root() {
        return;
    }
    let golden = Golden::unpack("imported");
    let store = golden.open(Ownership::Owner);
    assert_eq!(store.problems(), []);
    let layers = store.list();
    assert_eq!(layers.len(), 5);
    for layer in &layers {
        assert_eq!(store.check(layer.id.as_str()).unwrap(), Verdict::Valid, "{}", layer.id);
        let merged = store.mount(layer.id.as_str()).unwrap();
        assert!(std::fs::read_dir(&merged).unwrap().count() > 0, "{}", layer.id);
        store.unmount(layer.id.as_str(), false).unwrap();
    }
    store.close().unwrap();
}

#[test]
fn a_fresh_root_of_isulad_is_an_empty_store() {
    if !need_root() {
        return;
    }
    let golden = Golden::unpack("fresh");
    let root = golden.disk.join("fresh");
    let run_root = golden.disk.join("fresh-run");
    let store = open(&root, &run_root, Ownership::Owner);
    assert_eq!((store.list(), store.problems()), (Vec::new(), Vec::new()));
    store.close().unwrap();
}
