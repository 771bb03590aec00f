// SPDX-License-Identifier: MulanPSL-2.0
//! Two hosts that share image layers and images: one has the directories, the other has them mounted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test plays iSulad and the operator")]

mod common;
mod images;
mod layers;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{TestRoot, need_root};
use images::{Sample, sample};
use isula_storage::error::ErrorKind;
use isula_storage::id::{ContainerId, LayerId};
use isula_storage::layer::{CreateLayer, Created};
use isula_storage::storage::{CreateContainer, Storage, StorageOptions};
use layers::{Tar, id};

const SHARED: [&str; 3] = ["overlay/RO", "overlay-layers/RO", "overlay-images"];

/// The host that makes images, and one that mounts what it shares.
struct Hosts {
    root: TestRoot,
}

impl Hosts {
    fn new() -> Hosts {
        let hosts = Hosts { root: TestRoot::in_memory("remote") };
        for dir in SHARED {
            fs::create_dir_all(hosts.maker().join(dir)).unwrap();
            fs::create_dir_all(hosts.user().join(dir)).unwrap();
            rustix::mount::mount_bind(hosts.maker().join(dir), hosts.user().join(dir)).unwrap();
        }
        hosts
    }

    fn maker(&self) -> PathBuf {
        self.root.join("maker")
    }

    fn user(&self) -> PathBuf {
        self.root.join("user")
    }

    fn options(&self, root: &Path) -> StorageOptions {
        StorageOptions::new(root, root.with_extension("run"))
    }

    fn open(&self, root: &Path) -> Storage {
        Storage::open_shared(self.options(root)).unwrap_or_else(|error| panic!("{}", error.report()))
    }
}

fn hex(digit: char) -> LayerId {
    id(&digit.to_string().repeat(64))
}

fn make(storage: &Storage, layer: &LayerId, parent: Option<&LayerId>, file: &str) {
    let tar = Tar::new().file(file, file.as_bytes()).finish();
    let digest = isula_storage::digest::Digest::of(&tar).to_string();
    let layer_options = CreateLayer {
        parent: parent.cloned(),
        uncompressed_digest: Some(digest.clone()),
        compressed_digest: Some(digest),
        ..CreateLayer::default()
    };
    let made = storage.layers().create(layer, &layer_options, Some(&mut &tar[..]));
    assert_eq!(made.unwrap_or_else(|error| panic!("{}", error.report())), Created::New(layer.clone()));
    storage.layers().release(layer).unwrap();
}

fn make_container(storage: &Storage, layer: &LayerId, parent: &LayerId) {
    let options = CreateLayer { parent: Some(parent.clone()), writable: true, ..CreateLayer::default() };
    storage.layers().create(layer, &options, None).unwrap_or_else(|error| panic!("{}", error.report()));
    storage.layers().release(layer).unwrap();
}

/// An image of two layers.
fn make_image(storage: &Storage, number: usize) -> (Sample, LayerId, LayerId) {
    let sample = sample(number);
    let top = id(&sample.top_layer());
    let base = id(&isula_storage::digest::Digest::of(format!("base {number}").as_bytes()).hex());
    make(storage, &base, None, &format!("base{number}"));
    make(storage, &top, Some(&base), &format!("top{number}"));
    sample.store(storage.images(), &[&format!("image{number}:1")]);
    (sample, base, top)
}

fn layer_ids(storage: &Storage) -> BTreeSet<LayerId> {
    storage.layers().list().into_iter().map(|layer| layer.id).collect()
}

fn image_ids(storage: &Storage) -> Vec<String> {
    storage.images().list().unwrap().iter().map(|record| record.id.clone().unwrap()).collect()
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn reported(storage: &Storage, subject: &str) -> Vec<String> {
    let problems = storage.layers().problems().into_iter();
    problems.filter(|problem| problem.subject.contains(subject)).map(|problem| problem.reason).collect()
}

/// Names of a store's own working directories below a shared directory.
fn left_over(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in ["overlay/RO/.isula-storage-remote", "overlay-layers/RO/.isula-storage-remote"] {
        for part in fs::read_dir(root.join(dir)).into_iter().flatten() {
            found.extend(fs::read_dir(part.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn image_layers_are_made_in_the_shared_directory_and_containers_stay_local() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    // Both sides can make layers: where RO is of the same file system, and where it is a mount of its own.
    for root in [hosts.maker(), hosts.user()] {
        let storage = hosts.open(&root);
        let (_, base, top) = make_image(&storage, usize::from(root == hosts.user()));
        let container = hex('c');
        make_container(&storage, &container, &top);
        for layer in [&base, &top] {
            for home in ["overlay", "overlay-layers"] {
                let target = root.join(home).join("RO").join(layer);
                assert_eq!(fs::read_link(root.join(home).join(layer)).unwrap(), target);
                let metadata = fs::symlink_metadata(&target).unwrap();
                assert!(metadata.is_dir() && metadata.permissions().mode() & 0o7777 == 0o700, "{target:?}");
            }
            let record =
                fs::read_to_string(root.join("overlay-layers").join(layer).join("layer.json")).unwrap();
            assert!(!record.contains("incompelte"), "{record}");
            assert!(root.join("overlay-layers").join(layer).join(format!("{layer}.tar-split.gz")).is_file());
        }
        for home in ["overlay", "overlay-layers"] {
            assert!(fs::symlink_metadata(root.join(home).join(&container)).unwrap().is_dir());
            assert!(!root.join(home).join("RO").join(&container).exists());
        }
        let merged = storage.layers().mount(container.as_str()).unwrap();
        assert_eq!(layers::names(&merged).len(), 2, "{:?}", layers::names(&merged));
        let looked_at = storage.layers().mount(top.as_str()).unwrap();
        assert_eq!(looked_at, root.join("overlay").join(&top).join("merged"));
        assert_eq!(layers::names(&looked_at).len(), 2);
        for layer in [&container, &top] {
            storage.layers().unmount(layer.as_str(), true).unwrap();
        }
        storage.layers().export(top.as_str(), &mut std::io::sink()).unwrap();

        // And again after a restart.
        storage.close().unwrap();
        let storage = hosts.open(&root);
        assert!(layer_ids(&storage).is_superset(&[base.clone(), top.clone(), container.clone()].into()));
        assert_eq!(reported(&storage, base.as_str()), Vec::<String>::new());
        assert_eq!(storage.layers().delete(base.as_str()).unwrap_err().kind(), ErrorKind::InUse);
        storage.layers().delete(container.as_str()).unwrap();
        storage.layers().delete(top.as_str()).unwrap();
        storage.layers().delete(base.as_str()).unwrap();
        for layer in [&base, &top] {
            for home in ["overlay", "overlay-layers"] {
                assert!(!is_link(&root.join(home).join(layer)));
                assert!(!root.join(home).join("RO").join(layer).exists());
            }
        }
        storage.close().unwrap();
        assert_eq!(left_over(&root), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(root.join("overlay/l")).unwrap().count(), 0);
    }
}

#[test]
fn what_another_host_makes_appears_when_it_is_whole_and_vanishes_when_it_is_deleted() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let (maker, user) = (hosts.open(&hosts.maker()), hosts.open(&hosts.user()));
    assert_eq!(user.refresh_now().unwrap().layers.added, []);
    let (image, base, top) = make_image(&maker, 1);

    // The image is there, but its layers are not known here yet.
    assert_eq!(image_ids(&user), Vec::<String>::new());
    let changes = user.refresh_now().unwrap();
    assert_eq!(changes.layers.added, [base.clone(), top.clone()]);
    assert_eq!(changes.layers.problems, []);
    assert_eq!(image_ids(&user), std::slice::from_ref(&image.id));
    assert_eq!(layer_ids(&user), [base.clone(), top.clone()].into());
    assert_eq!(
        user.layers()
            .by_compressed_digest(&user.layers().find(top.as_str()).unwrap().compressed_digest.unwrap())
            .len(),
        1
    );
    assert!(user.layers().has_children(&base));

    // It can be used like one of this host.
    make_container(&user, &hex('c'), &top);
    let merged = user.layers().mount(hex('c').as_str()).unwrap();
    assert_eq!(layers::names(&merged), ["base1", "top1"]);
    user.layers().unmount(hex('c').as_str(), true).unwrap();
    user.layers().delete(hex('c').as_str()).unwrap();

    // A second look changes nothing, not even a link.
    let links = || -> BTreeSet<(PathBuf, u64)> {
        let inode = |path: PathBuf| (path.clone(), fs::symlink_metadata(path).unwrap().ino());
        let dirs = ["overlay/l", "overlay", "overlay-layers"];
        let all = dirs.iter().flat_map(|dir| fs::read_dir(hosts.user().join(dir)).unwrap());
        all.map(|entry| inode(entry.unwrap().path())).collect()
    };
    let before = links();
    let again = user.refresh_now().unwrap();
    assert!(!again.layers.changed && again.images.added.is_empty() && again.images.removed.is_empty());
    assert_eq!(links(), before);

    assert_eq!(maker.remove_image(&image.id).unwrap().layers, [top.clone(), base.clone()]);
    let changes = user.refresh_now().unwrap();
    assert_eq!(changes.layers.removed.iter().cloned().collect::<BTreeSet<_>>(), [base, top].into());
    assert_eq!(changes.layers.problems, []);
    assert_eq!(image_ids(&user), Vec::<String>::new());
    assert_eq!(layer_ids(&user), BTreeSet::new());
    assert_eq!(fs::read_dir(hosts.user().join("overlay/l")).unwrap().count(), 0);

    // And comes back.
    let (image, ..) = make_image(&maker, 1);
    assert_eq!(user.refresh_now().unwrap().layers.added.len(), 2);
    assert_eq!(image_ids(&user), [image.id]);
}

#[test]
fn what_vanishes_stays_listed_and_is_reported_while_it_is_in_use() {
    if !need_root() {
        return;
    }
    type Act = fn(&Storage, &LayerId);
    let uses: [(&str, Act, Act); 3] = [
        (
            "other layers stand on it",
            |user, top| make_container(user, &hex('c'), top),
            |user, _| user.layers().delete(hex('c').as_str()).unwrap(),
        ),
        (
            "hold references",
            |user, top| user.layers().hold(top).unwrap(),
            |user, top| user.layers().release(top).unwrap(),
        ),
        (
            "it is mounted",
            |user, top| drop(user.layers().mount(top.as_str()).unwrap()),
            |user, top| user.layers().unmount(top.as_str(), true).unwrap(),
        ),
    ];
    for (why, begin, end) in uses {
        let hosts = Hosts::new();
        let (maker, user) = (hosts.open(&hosts.maker()), hosts.open(&hosts.user()));
        let (image, base, top) = make_image(&maker, 1);
        user.refresh_now().unwrap();
        begin(&user, &top);
        maker.remove_image(&image.id).unwrap();

        let changes = user.refresh_now().unwrap();
        assert_eq!(changes.layers.removed, [], "{why}");
        assert!(user.layers().exists(top.as_str()) && user.layers().exists(base.as_str()), "{why}");
        let problem = reported(&user, top.as_str()).join("\n");
        assert!(problem.contains("gone from the shared directory") && problem.contains(why), "{problem}");
        assert!(!reported(&user, base.as_str()).is_empty());
        // Nobody gets an image whose layers are gone.
        assert_eq!(image_ids(&user), Vec::<String>::new());
        assert!(!user.layers().is_chain_whole(top.as_str()));

        end(&user, &top);
        let changes = user.refresh_now().unwrap();
        assert_eq!(changes.layers.removed, [top.clone(), base.clone()], "{why}");
        assert_eq!(layer_ids(&user), BTreeSet::new());
        assert_eq!(user.layers().problems(), [], "{why}");
    }
}

#[test]
fn a_broken_entry_is_reported_left_alone_and_keeps_no_other_from_being_listed() {
    if !need_root() {
        return;
    }
    type Break = fn(&Path, &LayerId);
    let breaks: [(&str, Break); 7] = [
        ("its directory diff", |root, layer| {
            fs::rename(root.join("overlay/RO").join(layer).join("diff"), root.join("moved")).unwrap();
        }),
        ("its file link", |root, layer| {
            fs::remove_file(root.join("overlay/RO").join(layer).join("link")).unwrap();
        }),
        ("its file link", |root, layer| {
            layers::write(root.join("overlay/RO").join(layer).join("link"), "../../../etc");
        }),
        ("", |root, layer| layers::write(root.join("overlay-layers/RO").join(layer).join("layer.json"), "{")),
        ("its record is that of layer", |root, layer| {
            layers::write(root.join("overlay-layers/RO").join(layer).join("layer.json"), r#"{"id":"x"}"#);
        }),
        ("incomplete", |root, layer| {
            let text = format!(r#"{{"id":"{layer}","diff-digest":"sha256:{layer}","incompelte":true}}"#);
            layers::write(root.join("overlay-layers/RO").join(layer).join("layer.json"), &text);
        }),
        ("not shared", |root, layer| {
            let text = format!(r#"{{"id":"{layer}","writable":true}}"#);
            layers::write(root.join("overlay-layers/RO").join(layer).join("layer.json"), &text);
        }),
    ];
    for (index, (reason, damage)) in breaks.into_iter().enumerate() {
        let hosts = Hosts::new();
        let maker = hosts.open(&hosts.maker());
        make(&maker, &hex('a'), None, "a");
        make(&maker, &hex('b'), None, "b");
        make(&maker, &hex('d'), Some(&hex('a')), "d");
        maker.close().unwrap();
        damage(&hosts.maker(), &hex('a'));
        fs::create_dir(hosts.maker().join("overlay/RO/junk")).unwrap();
        layers::write(hosts.maker().join("overlay-layers/RO/file"), "");
        let shared = || SHARED.map(|dir| layers::tree(&hosts.maker().join(dir)));
        let before = shared();

        // Whether it is seen by a start or by a refresh.
        let user = hosts.open(&hosts.user());
        for _ in 0..2 {
            let changes = user.refresh_now().unwrap();
            assert!(user.layers().exists(hex('b').as_str()), "{index}");
            assert!(!user.layers().exists(hex('a').as_str()), "{index} {reason}");
            let problem =
                changes.layers.problems.iter().find(|problem| problem.subject.contains(hex('a').as_str()));
            assert!(
                problem.is_some_and(|problem| problem.reason.contains(reason)),
                "{:?}",
                changes.layers.problems
            );
        }
        user.close().unwrap();
        assert_eq!(shared(), before, "{index} {reason}");
    }
}

#[test]
fn a_layer_that_another_host_takes_apart_is_reported_although_it_was_whole_before() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let (maker, user) = (hosts.open(&hosts.maker()), hosts.open(&hosts.user()));
    make(&maker, &hex('a'), None, "a");
    assert_eq!(user.refresh_now().unwrap().layers.added, [hex('a')]);
    // As iSulad deletes: in place, here interrupted.
    fs::remove_dir_all(hosts.maker().join("overlay/RO").join(hex('a')).join("diff")).unwrap();
    user.refresh_now().unwrap();
    let problem = reported(&user, hex('a').as_str()).join("\n");
    assert!(problem.contains("its directory diff is missing"), "{problem}");
}

/// The layer stays where it is, so nothing that stands on it is moved either: not here, and not the image of all hosts.
#[test]
fn a_shared_layer_that_an_integrity_check_finds_damaged_is_reported_and_nothing_is_moved() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let user = hosts.open(&hosts.user());
    let (image, base, top) = make_image(&user, 1);
    let container = user.create_container(&CreateContainer {
        id: ContainerId::new(hex('c').as_str()).unwrap(),
        image: image.id.clone(),
        mount_label: None,
        storage_options: Vec::new(),
    });
    container.unwrap_or_else(|error| panic!("{}", error.report()));
    user.close().unwrap();
    layers::write(hosts.maker().join("overlay/RO").join(&top).join("diff/top1"), "TOP1");

    let options = StorageOptions { integration_check: true, ..hosts.options(&hosts.user()) };
    let user = Storage::open_shared(options).unwrap();
    let problem = user.problems().into_iter().find(|problem| problem.subject.contains(top.as_str())).unwrap();
    assert!(problem.reason.contains("its content differs") && !problem.quarantined, "{}", problem.reason);
    assert!(problem.reason.contains("shared with other hosts"), "{}", problem.reason);
    assert_eq!(layer_ids(&user), [base, top, hex('c')].into());
    assert_eq!(image_ids(&user), [image.id]);
    assert_eq!(user.containers().unwrap().list().unwrap().len(), 1);
    assert_eq!(user.put_aside().unwrap(), []);
}

#[test]
fn a_look_that_fails_half_way_spoils_no_later_one() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let (maker, user) = (hosts.open(&hosts.maker()), hosts.open(&hosts.user()));
    let (image, base, top) = make_image(&maker, 1);
    let record = hosts.user().join("overlay-layers/RO");
    rustix::mount::unmount(&record, rustix::mount::UnmountFlags::DETACH).unwrap();
    fs::remove_dir(&record).unwrap();
    for _ in 0..3 {
        user.refresh_now().unwrap_err();
    }
    fs::create_dir(&record).unwrap();
    rustix::mount::mount_bind(hosts.maker().join("overlay-layers/RO"), &record).unwrap();
    assert_eq!(user.refresh_now().unwrap().layers.added, [base, top]);
    assert_eq!(image_ids(&user), [image.id]);
}

#[test]
fn a_share_that_is_away_takes_nothing_with_it_that_is_in_use() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let (maker, user) = (hosts.open(&hosts.maker()), hosts.open(&hosts.user()));
    let (_, base, top) = make_image(&maker, 1);
    user.refresh_now().unwrap();
    make_container(&user, &hex('c'), &top);
    layers::write(hosts.user().join("overlay").join(hex('c')).join("diff/mine"), "data");
    user.close().unwrap();

    // A start before the share is mounted.
    for dir in ["overlay/RO", "overlay-layers/RO"] {
        rustix::mount::unmount(hosts.user().join(dir), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    let user = hosts.open(&hosts.user());
    assert_eq!(layer_ids(&user), [hex('c')].into());
    assert_eq!(image_ids(&user), Vec::<String>::new());
    for dir in ["overlay/RO", "overlay-layers/RO"] {
        rustix::mount::mount_bind(hosts.maker().join(dir), hosts.user().join(dir)).unwrap();
    }
    assert_eq!(user.refresh_now().unwrap().layers.added, [base, top]);
    assert_eq!(image_ids(&user).len(), 1);
    let merged = user.layers().mount(hex('c').as_str()).unwrap();
    assert_eq!(layers::names(&merged), ["base1", "mine", "top1"]);
    user.layers().unmount(hex('c').as_str(), true).unwrap();
}

#[test]
fn layers_of_before_go_on_working_and_shared_ones_are_reported_when_it_is_off() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let root = hosts.maker();
    let alone = Storage::open(hosts.options(&root)).unwrap();
    make(&alone, &hex('a'), None, "a");
    alone.close().unwrap();

    let storage = hosts.open(&root);
    make(&storage, &hex('b'), Some(&hex('a')), "b");
    make_container(&storage, &hex('c'), &hex('b'));
    assert!(fs::symlink_metadata(root.join("overlay").join(hex('a'))).unwrap().is_dir());
    let merged = storage.layers().mount(hex('c').as_str()).unwrap();
    assert_eq!(layers::names(&merged), ["a", "b"]);
    storage.layers().unmount(hex('c').as_str(), true).unwrap();
    storage.close().unwrap();

    let alone = Storage::open(hosts.options(&root)).unwrap();
    assert_eq!(layer_ids(&alone), [hex('a'), hex('c')].into());
    assert!(
        reported(&alone, hex('b').as_str()).join("").contains("symbolic link"),
        "{:?}",
        alone.layers().problems()
    );
    alone.close().unwrap();
    let storage = hosts.open(&root);
    assert_eq!(layer_ids(&storage), [hex('a'), hex('b'), hex('c')].into());
    storage.layers().mount(hex('c').as_str()).unwrap();
    storage.layers().unmount(hex('c').as_str(), true).unwrap();
}

#[test]
fn links_are_followed_only_to_the_shared_entry_of_their_name() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let root = hosts.maker();
    let storage = hosts.open(&root);
    make(&storage, &hex('a'), None, "a");
    make(&storage, &hex('b'), None, "b");
    storage.close().unwrap();
    for home in ["overlay", "overlay-layers"] {
        let home = root.join(home);
        fs::remove_file(home.join(hex('a'))).unwrap();
        symlink(home.join("RO").join(hex('b')), home.join(hex('a'))).unwrap();
    }
    let storage = hosts.open(&root);
    assert_eq!(layer_ids(&storage), [hex('b')].into());
    assert!(!reported(&storage, hex('a').as_str()).is_empty());
    storage.refresh_now().unwrap();
    assert_eq!(layer_ids(&storage), [hex('b')].into());
    assert!(is_link(&root.join("overlay").join(hex('a'))));
}

#[test]
fn a_layer_that_another_host_has_made_meanwhile_is_used_instead_of_made_again() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let (maker, user) = (hosts.open(&hosts.maker()), hosts.open(&hosts.user()));
    make(&maker, &hex('a'), None, "a");
    let mut unread = &b"not even an archive"[..];
    let made = user.layers().create(&hex('a'), &CreateLayer::default(), Some(&mut unread)).unwrap();
    assert_eq!(made, Created::Existing(hex('a')));
    assert_eq!(user.layers().hold_count(&hex('a')).unwrap(), 1);
    assert!(is_link(&hosts.user().join("overlay-layers").join(hex('a'))));
}

#[test]
fn left_overs_in_the_shared_directory_are_put_aside_when_the_layer_is_made_again() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    for root in [hosts.maker(), hosts.user()] {
        let layer = if root == hosts.maker() { hex('a') } else { hex('b') };
        // As iSulad leaves it when it dies in the middle: data and a record with the mark, both in their places.
        fs::create_dir_all(root.join("overlay/RO").join(&layer).join("diff")).unwrap();
        layers::write(root.join("overlay/RO").join(&layer).join("link"), "0123456789abcdef0123456789");
        layers::write(root.join("overlay/RO").join(&layer).join("diff/half"), "half");
        fs::create_dir_all(root.join("overlay-layers/RO").join(&layer)).unwrap();
        let text = format!(r#"{{"id":"{layer}","incompelte":true}}"#);
        layers::write(root.join("overlay-layers/RO").join(&layer).join("layer.json"), &text);
        let storage = hosts.open(&root);
        assert_eq!(storage.layers().find(layer.as_str()), None);
        make(&storage, &layer, None, "whole");
        let merged = storage.layers().mount(layer.as_str()).unwrap();
        assert_eq!(layers::names(&merged), ["whole"]);
        storage.layers().unmount(layer.as_str(), true).unwrap();
        storage.close().unwrap();
        // Kept, not deleted.
        let kept = std::process::Command::new("find").arg(&root).args(["-name", "half"]).output().unwrap();
        assert!(!kept.stdout.is_empty());
        // Layers above know it by its old name.
        assert_eq!(
            fs::read_to_string(root.join("overlay").join(&layer).join("link")).unwrap(),
            "0123456789abcdef0123456789"
        );
    }
}

#[test]
fn a_host_that_may_only_read_the_share_uses_it_and_makes_no_images() {
    if !need_root() {
        return;
    }
    use rustix::mount::{MountFlags, mount_remount};
    let hosts = Hosts::new();
    let maker = hosts.open(&hosts.maker());
    let (image, base, top) = make_image(&maker, 1);
    for dir in SHARED {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        mount_remount(hosts.user().join(dir), flags, c"").unwrap();
    }
    let user = hosts.open(&hosts.user());
    assert_eq!(layer_ids(&user), [base.clone(), top.clone()].into());
    assert_eq!(image_ids(&user), std::slice::from_ref(&image.id));
    make_container(&user, &hex('c'), &top);
    let merged = user.layers().mount(hex('c').as_str()).unwrap();
    layers::write(merged.join("mine"), "data");
    assert_eq!(layers::names(&merged), ["base1", "mine", "top1"]);
    user.layers().unmount(hex('c').as_str(), true).unwrap();

    let refused = user.layers().create(&hex('d'), &CreateLayer::default(), None).unwrap_err();
    assert_eq!(refused.errno(), libc::EROFS, "{}", refused.report());
    assert!(!user.layers().exists(hex('d').as_str()));
    assert_eq!(user.images().add_name(&image.id, "other:1").unwrap_err().kind(), ErrorKind::ReadOnly);
    user.layers().delete(hex('c').as_str()).unwrap();
    assert_eq!(user.layers().delete(top.as_str()).unwrap_err().errno(), libc::EROFS);
    assert!(user.layers().exists(top.as_str()));

    let (second, ..) = make_image(&maker, 2);
    user.refresh_now().unwrap();
    assert_eq!(image_ids(&user).len(), 2);
    assert!(image_ids(&user).contains(&second.id));
    maker.remove_image(&image.id).unwrap();
    user.refresh_now().unwrap();
    assert_eq!(image_ids(&user), [second.id]);
    assert!(!user.layers().exists(base.as_str()));
}

#[test]
fn tags_that_isulad_sets_are_seen_without_the_counter() {
    if !need_root() {
        return;
    }
    let hosts = Hosts::new();
    let (maker, user) = (hosts.open(&hosts.maker()), hosts.open(&hosts.user()));
    let (image, ..) = make_image(&maker, 1);
    user.refresh_now().unwrap();
    assert_eq!(user.images().names(&image.id).unwrap(), ["image1:1"]);
    // A record that is replaced as iSulad does it, by a rename.
    let dir = hosts.maker().join("overlay-images").join(&image.id);
    let record = fs::read_to_string(dir.join("images.json")).unwrap().replace("image1:1", "renamed:2");
    layers::write(dir.join(".tmp-images.json-0"), &record);
    fs::rename(dir.join(".tmp-images.json-0"), dir.join("images.json")).unwrap();
    user.refresh_now().unwrap();
    assert_eq!(user.images().names(&image.id).unwrap(), ["renamed:2"]);

    fs::rename(&dir, hosts.root.join("moved")).unwrap();
    assert_eq!(user.refresh_now().unwrap().images.removed.len(), 1);
    assert_eq!(image_ids(&user), Vec::<String>::new());
}

#[test]
fn a_driver_that_copies_cannot_share() {
    let root = TestRoot::in_memory("remote");
    let options = StorageOptions {
        driver: "vfs".to_owned(),
        ..StorageOptions::new(root.join("root"), root.join("run"))
    };
    assert_eq!(Storage::open_shared(options).unwrap_err().kind(), ErrorKind::Unsupported);
}
