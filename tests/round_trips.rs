// SPDX-License-Identifier: MulanPSL-2.0
//! Layers of other people's tools, into a storage and back out of it: byte for byte by their tar-split stream, and as a diff
//! that makes the same tree of the same parent, for us and for the tools.

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
mod storages;

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use archive_common::{EVERYTHING, Tree, differences, layers_of, run, shell, tree};
use common::{LoopExt4, TestRoot, loop_ext4, need_root};
use isula_storage::archive;
use isula_storage::digest::Digest;
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;
use isula_storage::layer::{CreateLayer, Created};
use isula_storage::storage::{Storage, Verdict};
use serde_json::{Value, json};
use storages::options;

const DRIVERS: [&str; 2] = ["overlay", "vfs"];

/// All that there is, but for an attribute whose name and a time whose nanoseconds Go's programs cannot hold, and a
/// name that is too long to be that of a whiteout where that is a file.
fn everything() -> String {
    format!("{EVERYTHING} setfattr -x user.a=b%c f0; touch -d 2200-01-01 late; rm long/$m\n")
}

/// What an image's second layer does to the first: every kind of change.
const SECOND: &str = r"
    rm -r links; rm f0; echo changed >f1; chmod 600 big; mkdir dir/empty/new; ln big big2; ln -s big soft
    rm -r long; mkdir long; echo only >long/only; rm dir/hard2; mkfifo dir/hard2; setfattr -n user.new -v n dir
    rm fifo; mkdir fifo; echo f >fifo/f; touch -d '2015-05-05 05:05:05.5' dir late; mv null zero
    truncate -s 2M hole; printf end >>hole
";

const THIRD: &str = r"
    echo third >third; rm soft; ln third dir/third2; rm -r fifo; chown 12:13 dir; ln f1 again; echo back >links
    setfattr -x user.new dir
";

/// A disk for the work of one test: it takes every attribute, which memory may not.
fn disk() -> LoopExt4 {
    loop_ext4(1 << 30)
}

fn plain(layer: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    archive::decompressed(Box::new(Cursor::new(layer))).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

fn create(storage: &Storage, id: &str, parent: Option<&LayerId>, layer: &[u8], diff_id: Digest) -> LayerId {
    let id = LayerId::new(id).unwrap();
    let create = CreateLayer {
        parent: parent.cloned(),
        uncompressed_digest: Some(diff_id.to_string()),
        ..CreateLayer::default()
    };
    let mut stream = layer;
    let made = storage.layers().create(&id, &create, Some(&mut stream));
    assert_eq!(made.unwrap_or_else(|error| panic!("{}", error.report())), Created::New(id.clone()));
    id
}

/// A layer as its containers see it.
fn view(storage: &Storage, id: &LayerId) -> Tree {
    let seen = tree(&storage.layers().mount(id.as_str()).unwrap());
    storage.layers().unmount(id.as_str(), false).unwrap();
    seen
}

fn assert_same(what: &str, left: &Tree, right: &Tree) {
    let found = differences(left, right);
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// An image goes into a store of each driver, and each of its layers comes back: base first, compressed or not.
fn come_back(disk: &Path, what: &str, layers: &[Vec<u8>]) {
    for driver in DRIVERS {
        let what = format!("{what} on {driver}");
        let place = TestRoot::below(disk, "store");
        let storage = Storage::open(options(place.path(), driver)).unwrap();
        let (mut parent, mut chain): (Option<LayerId>, Option<Digest>) = (None, None);
        let mut diffs = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let what = format!("{what}, layer {index}");
            let original = plain(layer);
            let diff_id = Digest::of(&original);
            let chain_id = diff_id.chained_on(chain);
            let id = create(&storage, &chain_id.hex(), parent.as_ref(), layer, diff_id);

            let mut exported = Vec::new();
            let (digest, size) = storage.export(id.as_str(), &mut exported).unwrap();
            assert_eq!((digest, size.0), (diff_id, original.len() as u64), "{what}");
            assert!(exported == original, "{what}: the bytes differ");

            let mut diff = Vec::new();
            let diffed = storage
                .diff(id.as_str(), None, &mut diff)
                .unwrap_or_else(|error| panic!("{what}: {}", error.report()));
            assert_eq!(diffed.diff_id, Digest::of(&diff), "{what}");
            assert_eq!(storage.diff_size(id.as_str(), None).unwrap(), diffed.content_size, "{what}");
            // The same tree on the same parent, of which there is nothing to be told, and the same diff again.
            let other = Digest::of(format!("{what}, from its diff").as_bytes()).hex();
            let other = create(&storage, &other, parent.as_ref(), &diff, diffed.diff_id);
            assert_same(&what, &view(&storage, &id), &view(&storage, &other));
            assert_eq!(storage.changes(other.as_str(), Some(id.as_str())).unwrap(), [], "{what}");
            assert_eq!(storage.changes(id.as_str(), Some(other.as_str())).unwrap(), [], "{what}");
            let mut again = Vec::new();
            storage.diff(other.as_str(), None, &mut again).unwrap();
            assert!(again == diff, "{what}: the diff of the same tree differs");
            assert_eq!(storage.layers().check_closely(id.as_str()).unwrap(), Verdict::Valid, "{what}");
            storage.release(&other).unwrap();
            storage.layers().delete(other.as_str()).unwrap();

            // Without a word about whiteouts, which copies have no need to tell of as the original did.
            if driver == "overlay" {
                tars_unpack_the_same(disk, &what, &original, &diff);
            }
            diffs.push(diff);
            chain = Some(chain_id);
            parent.replace(id).into_iter().for_each(|below| storage.release(&below).unwrap());
        }
        let top = parent.unwrap();
        umoci_unpacks_the_same(disk, &what, &diffs, &view(&storage, &top));
        storage.release(&top).unwrap();
        storage.close().unwrap();
    }
}

/// What tools that know nothing of whiteouts make of the archive that was given and of the one that was made.
fn tars_unpack_the_same(disk: &Path, what: &str, original: &[u8], diff: &[u8]) {
    const GNU: &str = "tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf layer.tar -C";
    const BSD: &str = "bsdtar --xattrs --acls --numeric-owner --same-owner -xpf layer.tar -C";
    let place = TestRoot::below(disk, "tar");
    let unpacked = |name: &str, tool: &str, tar: &[u8]| {
        fs::write(place.join("layer.tar"), tar).unwrap();
        shell(&format!("mkdir {name}; {tool} {name}"), place.path());
        let mut tree = tree(&place.join(name));
        // Not named by every archive, and bsdtar sets nothing on its working directory.
        tree.remove(Path::new(""));
        // The archives need not say the same of whiteouts but their names; and what comes late into a directory is its time.
        let no_lists = !original.windows(10).any(|window| window == b"SCHILY.acl");
        for (path, node) in &mut tree {
            if node.mode & 0o170_000 == 0o040_000 {
                node.mtime = (0, 0);
            }
            // The tools know them as text only, which Go's programs do not write.
            node.xattrs.retain(|name, _| !(no_lists && name.starts_with(b"system.posix_acl")));
            if path.file_name().unwrap().as_encoded_bytes().starts_with(b".wh.") {
                (node.mode, node.uid, node.gid, node.mtime) = (0, 0, 0, (0, 0));
                node.xattrs.clear();
                node.links.clear();
            }
        }
        tree
    };
    let mut expected = unpacked("original", GNU, original);
    assert_same(&format!("{what}, by GNU tar"), &expected, &unpacked("gnu", GNU, diff));
    // It takes no trusted attributes, and has fractions before 1970 the other way.
    let mut found = unpacked("bsd", BSD, diff);
    for tree in [&mut expected, &mut found] {
        tree.remove(Path::new("ids"));
        tree.values_mut().for_each(|node| node.xattrs.retain(|name, _| !name.starts_with(b"trusted.")));
    }
    assert_same(&format!("{what}, by bsdtar"), &expected, &found);
}

/// An image of these layers, unpacked by somebody else, is what our mount shows.
fn umoci_unpacks_the_same(disk: &Path, what: &str, diffs: &[Vec<u8>], seen: &Tree) {
    let place = TestRoot::below(disk, "umoci");
    let blobs = place.join("image/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8], media_type: &str| -> Value {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    };
    let layers: Vec<Value> =
        diffs.iter().map(|diff| blob(diff, "application/vnd.oci.image.layer.v1.tar")).collect();
    let diff_ids: Vec<String> = diffs.iter().map(|diff| Digest::of(diff).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers,
    });
    let mut manifest = blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "t" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(place.join("image/index.json"), index.to_string()).unwrap();
    fs::write(place.join("image/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    shell("umoci unpack --image image:t bundle", place.path());
    assert_same(&format!("{what}, by umoci"), seen, &tree(&place.join("bundle/rootfs")));
}

/// The layers of an OCI layout with one image, base first.
fn layers_of_layout(layout: &Path) -> Vec<Vec<u8>> {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        fs::read(layout.join("blobs/sha256").join(digest)).unwrap()
    };
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
    manifest["layers"].as_array().unwrap().iter().map(blob).collect()
}

/// The steps of an image, as functions of a shell.
fn steps(steps: &[&str]) -> String {
    steps.iter().enumerate().map(|(number, step)| format!("step{number}() {{ {step}\n }}\n")).collect()
}

#[test]
fn layers_of_the_fixtures_come_back() {
    if !need_root() {
        return;
    }
    let disk = disk();
    for image in ["bb.tar.gz", "bb-nonutf8.tar.gz", "opq.tar.gz"] {
        come_back(&disk.path(), image, &layers_of(image));
    }
    let layout = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/bb-oci-layout.tar.gz");
    run("tar", &["-xzf".as_ref(), layout.as_os_str()], &disk.path());
    let layout = find(&disk.path(), "oci-layout").parent().unwrap().to_owned();
    come_back(&disk.path(), "bb-oci-layout", &layers_of_layout(&layout));
}

/// A file of this name below a directory.
fn find(dir: &Path, name: &str) -> PathBuf {
    let found = tree(dir).into_keys().find(|path| path.file_name().is_some_and(|found| found == name));
    dir.join(found.unwrap())
}

#[test]
fn layers_of_umoci_come_back() {
    if !need_root() {
        return;
    }
    let disk = disk();
    let script = steps(&[&everything(), SECOND, THIRD])
        + r"
        umoci init --layout image; umoci new --image image:t
        for step in step0 step1 step2; do
            umoci unpack --image image:t bundle; (cd bundle/rootfs; $step)
            umoci repack --image image:t bundle; rm -rf bundle
        done";
    shell(&script, &disk.path());
    let layers = layers_of_layout(&disk.join("image"));
    assert_eq!(layers.len(), 3);
    come_back(&disk.path(), "umoci", &layers);
}

#[test]
fn layers_of_buildah_come_back() {
    if !need_root() {
        return;
    }
    let disk = disk();
    let script = steps(&[&everything(), SECOND, THIRD])
        + r#"
        # It keeps a cache in the system's directory, whatever it is told: in a name space of its own.
        if [ "${1-}" != alone ]; then exec unshare -m bash -euc "$BASH_EXECUTION_STRING" bash alone; fi
        mkdir -p /var/lib/containers tmp; mount -t tmpfs none /var/lib/containers; export TMPDIR=$PWD/tmp HOME=$PWD/tmp
        b() { buildah --root "$PWD/root" --runroot "$PWD/runroot" --storage-driver vfs "$@"; }
        mkdir copied; echo copied >copied/file; ln copied/file copied/link; tar -cf added.tar copied
        c=$(b from scratch); m=$(b mount $c); (cd "$m"; step0)
        b copy -q $c copied /; b config --cmd /f1 --env A=b $c; b commit -q $c one
        c=$(b from --pull-never localhost/one); m=$(b mount $c); (cd "$m"; step1); b commit -q $c two
        c=$(b from --pull-never localhost/two); m=$(b mount $c); (cd "$m"; step2); b add -q $c added.tar /
        b commit -q $c oci:$PWD/plain:t; b commit -q --disable-compression=false $c oci:$PWD/packed:t
        b rm -a >/dev/null; rm -rf root runroot"#;
    shell(&script, &disk.path());
    for layout in ["plain", "packed"] {
        let layers = layers_of_layout(&disk.join(layout));
        assert_eq!(layers.len(), 3);
        come_back(&disk.path(), &format!("buildah, {layout}"), &layers);
    }
}

/// Whiteouts and opaque directories as the tools pack them that know nothing of them.
const ABOVE: &str = r"
    mkdir -p dir o/inner; : >.wh.f0; : >.wh.links; echo changed >f1; : >o/.wh..wh..opq; echo only >o/inner/only
    : >dir/.wh.hard2; ln f1 dir/f1; truncate -s 2M hole; printf end >>hole; mkdir f511; echo f >f511/f; chmod 700 dir
    ln -s f1 big; touch -d '2011-11-11 11:11:11' dir o big -h
";

/// Packs two layers by each of these commands, which are given a name to pack.
fn packed_and_back(first: &str, commands: &[(&str, &str)]) {
    let disk = disk();
    shell(&format!("mkdir one two; (cd one; {first}\n ); cd two; {ABOVE}"), &disk.path());
    for (what, command) in commands {
        let layers = ["one", "two"].map(|dir| shell(&format!("cd {dir}; {command}"), &disk.path()));
        come_back(&disk.path(), what, &layers);
    }
}

/// What all formats can hold.
const LITTLE: &str = r"
    mkdir -p dir/empty links o/gone; echo x >o/gone/x; printf '' >f0; printf x >f1; head -c 511 /dev/zero >f511; seq 1 90000 >big
    ln f1 links/hard; ln f1 dir/hard2; ln -s ../f1 links/soft; chown 5:6 f1; chmod 4755 f1; chmod 1777 dir/empty
    touch -d '2001-02-03 04:05:06' f0 f511 dir -h
";

/// What v7 has no types for, and names for ustar's second field.
const NODES: &str = r"
    mkfifo -m 604 fifo; mknod -m 620 null c 1 3; mknod disk b 259 7000; ln fifo links/fifo
    d=$(printf 'd%.0s' {1..70}); mkdir -p $d/$d; echo x >$d/$d.f; echo y >$d/$d/$d
";

#[test]
fn layers_of_the_old_formats_come_back() {
    if !need_root() {
        return;
    }
    packed_and_back(LITTLE, &[("GNU tar, v7", "tar -cf - --format=v7 .")]);
    packed_and_back(
        &format!("{LITTLE}{NODES}"),
        &[
            ("GNU tar, ustar", "tar -cf - --format=ustar ."),
            ("bsdtar, ustar", "bsdtar -cf - --format=ustar --no-acls --no-xattrs ."),
        ],
    );
}

#[test]
fn layers_of_gnu_tar_come_back() {
    if !need_root() {
        return;
    }
    let first = format!("{} mkdir -p o/gone; truncate -s 3M holes; echo end >>holes", everything());
    let pax = |more: &str| {
        format!("tar -cf - --format=pax --xattrs --xattrs-include='*' --acls --numeric-owner {more} .")
    };
    let (plain, zero, first_map, map) =
        (pax(""), pax("-S --sparse-version=0.0"), pax("-S --sparse-version=0.1"), pax("-S"));
    let commands = [
        ("GNU tar, gnu", "tar -cf - --format=gnu ."),
        ("GNU tar, gnu, sparse", "tar -cSf - --format=gnu ."),
        ("GNU tar, oldgnu, sparse", "tar -cSf - --format=oldgnu . | xz -0"),
        ("GNU tar, pax", &plain),
        ("GNU tar, pax, sparse 0.0", &zero),
        ("GNU tar, pax, sparse 0.1", &first_map),
        ("GNU tar, pax, sparse 1.0", &map),
        ("GNU tar, without dot", "shopt -s dotglob; tar -cf - --format=gnu * | zstd -q"),
    ];
    packed_and_back(&first, &commands);
}

#[test]
fn layers_of_bsdtar_come_back() {
    if !need_root() {
        return;
    }
    let first = format!("{} mkdir -p o/gone; truncate -s 3M holes; echo end >>holes", everything());
    let commands = [
        ("bsdtar, gnutar", "bsdtar -cf - --format=gnutar --no-acls --no-xattrs ."),
        ("bsdtar, pax", "bsdtar -cf - --format=pax --acls --xattrs --numeric-owner ."),
        ("bsdtar, restricted", "bsdtar -czf - --acls --xattrs ."),
    ];
    packed_and_back(&first, &commands);
}

/// A real daemon wrote the layers, of images that are here: what is in them can be had, but not the bytes of their archives,
/// whose headers it did not keep. That is said before a byte is written.
#[test]
fn layers_that_isulad_wrote_come_back_as_diffs() {
    if !need_root() {
        return;
    }
    let disk = disk();
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let arguments = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xJpf"].map(AsRef::as_ref);
    run("tar", &[&arguments[..], &[trees.as_os_str()]].concat(), &disk.path());
    fs::rename(disk.join("imported/storage"), disk.join("root")).unwrap();
    let theirs = Storage::open(options(&disk.path(), "overlay")).unwrap();
    let ours = TestRoot::below(&disk.path(), "store");
    let ours = Storage::open(options(ours.path(), "overlay")).unwrap();
    let mut known = 0;
    for image in ["bb.tar.gz", "opq.tar.gz"] {
        let mut parent: Option<LayerId> = None;
        for layer in layers_of(image) {
            let diff_id = Digest::of(&layer);
            let [found] = &theirs.layers().by_uncompressed_digest(&diff_id.to_string())[..] else {
                panic!("{image}: not one layer {diff_id}");
            };
            assert_eq!(found.parent, parent);
            let id = found.id.clone();
            if !ours.layers().exists(id.as_str()) {
                create(&ours, id.as_str(), parent.as_ref(), &layer, diff_id);
            }
            let mut diff = Vec::new();
            let diffed = theirs.diff(id.as_str(), None, &mut diff).unwrap();
            let other = Digest::of(format!("{image} {id}").as_bytes()).hex();
            let other = create(&ours, &other, parent.as_ref(), &diff, diffed.diff_id);
            let [mut original, mut brought] = [&id, &other].map(|id| view(&ours, id));
            // No archive names the root: it has the time at which the layer was made.
            for tree in [&mut original, &mut brought] {
                tree.remove(Path::new(""));
            }
            assert_same(id.as_str(), &original, &brought);
            known += 1;
            parent = Some(id);
        }
    }
    assert_eq!(known, 5);
    // Two were imported from archives that are not here: compared with what the daemon left.
    let all = theirs.layers().list();
    let others: Vec<_> = all.iter().filter(|layer| !ours.layers().exists(layer.id.as_str())).collect();
    assert_eq!(others.len(), 2);
    for layer in others {
        let mut diff = Vec::new();
        let diffed = theirs.diff(layer.id.as_str(), None, &mut diff).unwrap();
        let made = create(&ours, layer.id.as_str(), None, &diff, diffed.diff_id);
        assert_same(layer.id.as_str(), &view(&theirs, &layer.id), &view(&ours, &made));
    }
    for layer in theirs.layers().list() {
        let mut out = Vec::new();
        let error = theirs.export(layer.id.as_str(), &mut out).unwrap_err();
        assert_eq!((error.kind(), out.len()), (ErrorKind::Corrupt, 0), "{}", error.report());
    }
    theirs.close().unwrap();
    ours.close().unwrap();
}
