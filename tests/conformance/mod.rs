// SPDX-License-Identifier: MulanPSL-2.0
//! One suite for every graph driver, and what a driver needs to be put through it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]

use std::path::PathBuf;
use std::sync::Arc;

use isula_storage::digest::Digest;
use isula_storage::driver::{self, Change, Depth, GraphDriver, LayerKind, Limits, NewLayer, Verdict};
use isula_storage::error::ErrorKind;
use isula_storage::id::LayerId;

use crate::{archive_common, common, layers};
use layers::{Tar, container_layer, create, id, image_layer, metadata, names, read, tree, write};

/// A driver and the storage root it works on.
pub struct Bench {
    pub name: &'static str,
    pub root: PathBuf,
    /// The driver's options.
    pub options: Vec<String>,
}

impl Bench {
    fn options(&self) -> driver::DriverOptions {
        driver::DriverOptions { options: self.options.clone(), ..layers::options(&self.root, self.name) }
    }

    fn open(&self) -> Arc<dyn GraphDriver> {
        driver::open(&self.options()).unwrap_or_else(|error| panic!("{}", error.report()))
    }

    fn home(&self) -> PathBuf {
        self.root.join(driver::name_on_disk(self.name).unwrap())
    }

    fn state(&self) -> PathBuf {
        self.home().join(".isula-storage")
    }

    /// Layers are devices of a pool: what is seen of them is mounted, and they are deleted at once.
    fn has_devices(&self) -> bool {
        self.name == "devicemapper"
    }

    /// What lies in the home, but for the file that tells of the last transaction with a pool.
    fn tree(&self) -> std::collections::BTreeMap<String, String> {
        let mut tree = tree(&self.home());
        tree.remove("metadata/transaction-metadata");
        tree
    }

    /// Where a layer's own content is, mounted if it has to be.
    fn content(&self, driver: &dyn GraphDriver, layer: &LayerId) -> PathBuf {
        match self.has_devices() {
            true => driver.mount(layer, LayerKind::ReadWrite, None).unwrap(),
            false => metadata(driver, layer, "UpperDir").unwrap(),
        }
    }
}

/// Gives the names of all scenarios to another macro.
macro_rules! for_each_scenario {
    ($action:ident) => {
        $action! {
            a_layer_lives_from_create_to_remove
            a_chain_shows_whiteouts_opaque_directories_and_hard_links
            a_layer_that_is_opaque_at_its_top_hides_all_below
            a_containers_layer_sees_what_is_below_and_keeps_its_changes
            mounting_twice_is_one_mount
            a_mounted_layer_is_unmounted_before_it_is_removed
            data_in_the_way_of_a_new_layer_is_put_aside
            quarantine_and_restore_move_a_layer_away_and_back
            an_unknown_parent_is_not_found_and_nothing_remains
            storage_options_are_refused_and_nothing_remains
            layers_are_found_again_after_a_restart
            what_a_crash_left_half_done_is_gone_after_a_restart
            a_second_owner_is_refused
            usage_counts_what_the_layer_itself_holds
            verify_finds_a_changed_file
            export_gives_the_exact_archive_back
            what_a_container_changed_is_a_layer
            a_layer_becomes_an_archive_again
            layers_are_compared_with_any_other
            a_layer_that_no_archive_can_hold_is_an_error
            a_broken_archive_fails_and_the_layer_can_be_removed
            absent_layers_are_told_apart_from_failures
            read_only_reads_and_never_writes
            a_closed_driver_says_so
            layers_are_made_in_parallel
        }
    };
}
pub(crate) use for_each_scenario;

fn base() -> Vec<u8> {
    Tar::new()
        .dir("d/")
        .file("d/one", b"1")
        .file("d/two", b"22")
        .dir("e/")
        .file("e/x", b"xxx")
        .file("top", b"top")
        .hard_link("hard", "d/two")
        .symlink("soft", "d/one")
        .finish()
}

pub fn a_layer_lives_from_create_to_remove(bench: &Bench) {
    let driver = bench.open();
    let layer = id("bottom");
    image_layer(&*driver, &layer, None, &base());
    assert!(driver.exists(&layer).unwrap());
    driver.validate(&layer, None).unwrap();
    assert_eq!(driver.layers().unwrap(), std::slice::from_ref(&layer));

    let root = driver.mount(&layer, LayerKind::ReadOnly, None).unwrap();
    assert_eq!(root, driver.mount_path(&layer));
    assert_eq!(metadata(&*driver, &layer, "MergedDir"), Some(root.clone()));
    assert_eq!(names(&root), ["d/", "d/one", "d/two", "e/", "e/x", "hard", "soft", "top"]);
    assert_eq!(read(root.join("hard")), "22");
    assert_eq!(read(root.join("soft")), "1");
    driver.unmount(&layer).unwrap();
    driver.unmount(&layer).unwrap();
    assert!(!driver.is_mounted(&layer).unwrap());

    driver.remove(&layer).unwrap().remove();
    assert!(!driver.exists(&layer).unwrap());
    assert!(driver.layers().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(bench.state().join("trash")).unwrap().count(), 0);
}

pub fn a_chain_shows_whiteouts_opaque_directories_and_hard_links(bench: &Bench) {
    let driver = bench.open();
    let (one, two, three, container) = (id("one"), id("two"), id("three"), id("container"));
    image_layer(&*driver, &one, None, &base());
    let second = Tar::new().file(".wh.top", b"").dir("d/").file("d/.wh.one", b"").file("d/new", b"new");
    image_layer(&*driver, &two, Some(&one), &second.hard_link("d/newer", "d/new").finish());
    let third = Tar::new().dir("e/").file("e/.wh..wh..opq", b"").file("e/y", b"y").file("d/two", b"changed");
    image_layer(&*driver, &three, Some(&two), &third.finish());
    container_layer(&*driver, &container, Some(&three));
    for (layer, parent) in
        [(&one, None), (&two, Some(&one)), (&three, Some(&two)), (&container, Some(&three))]
    {
        driver.validate(layer, parent).unwrap();
    }

    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    assert_eq!(names(&root), ["d/", "d/new", "d/newer", "d/two", "e/", "e/y", "hard", "soft"]);
    assert_eq!(read(root.join("d/two")), "changed");
    assert_eq!(read(root.join("d/newer")), "new");
    assert_eq!(read(root.join("hard")), "22", "the other name of a file that was replaced keeps its content");
    driver.unmount(&container).unwrap();

    let root = driver.mount(&two, LayerKind::ReadOnly, None).unwrap();
    assert_eq!(names(&root), ["d/", "d/new", "d/newer", "d/two", "e/", "e/x", "hard", "soft"]);
    driver.unmount(&two).unwrap();
}

pub fn a_layer_that_is_opaque_at_its_top_hides_all_below(bench: &Bench) {
    let driver = bench.open();
    let (one, two, three, container) = (id("one"), id("two"), id("three"), id("container"));
    image_layer(&*driver, &one, None, &base());
    image_layer(
        &*driver,
        &two,
        Some(&one),
        &Tar::new().file(".wh..wh..opq", b"").file("new", b"new").finish(),
    );
    image_layer(&*driver, &three, Some(&two), &Tar::new().file("newer", b"newer").finish());
    container_layer(&*driver, &container, Some(&three));
    for (layer, parent) in
        [(&one, None), (&two, Some(&one)), (&three, Some(&two)), (&container, Some(&three))]
    {
        driver.validate(layer, parent).unwrap();
    }
    for (layer, kind, shown) in [
        (&two, LayerKind::ReadOnly, &["new"][..]),
        (&three, LayerKind::ReadOnly, &["new", "newer"]),
        (&container, LayerKind::ReadWrite, &["new", "newer"]),
    ] {
        let root = driver.mount(layer, kind, None).unwrap();
        assert_eq!(names(&root), shown, "{layer}");
        driver.unmount(layer).unwrap();
    }
    driver.validate(&two, Some(&one)).unwrap();
}

pub fn a_containers_layer_sees_what_is_below_and_keeps_its_changes(bench: &Bench) {
    let driver = bench.open();
    let (image, container, other) = (id("image"), id("container"), id("other"));
    image_layer(&*driver, &image, None, &base());
    container_layer(&*driver, &container, Some(&image));
    container_layer(&*driver, &other, Some(&image));

    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    write(root.join("d/one"), "changed");
    write(root.join("mine"), "mine");
    std::fs::remove_file(root.join("top")).unwrap();
    driver.unmount(&container).unwrap();

    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    assert_eq!(names(&root), ["d/", "d/one", "d/two", "e/", "e/x", "hard", "mine", "soft"]);
    assert_eq!(read(root.join("d/one")), "changed");
    for (layer, kind) in [(&image, LayerKind::ReadOnly), (&other, LayerKind::ReadWrite)] {
        let root = driver.mount(layer, kind, None).unwrap();
        assert_eq!(names(&root), ["d/", "d/one", "d/two", "e/", "e/x", "hard", "soft", "top"]);
        assert_eq!(read(root.join("d/one")), "1");
        driver.unmount(layer).unwrap();
    }
    driver.unmount(&container).unwrap();
}

pub fn mounting_twice_is_one_mount(bench: &Bench) {
    let driver = bench.open();
    let layer = id("layer");
    container_layer(&*driver, &layer, None);
    let first = driver.mount(&layer, LayerKind::ReadWrite, None).unwrap();
    let mounts = common::mounts_below(&first);
    assert_eq!(driver.mount(&layer, LayerKind::ReadWrite, None).unwrap(), first);
    assert_eq!(common::mounts_below(&first), mounts);
    driver.unmount(&layer).unwrap();
    assert_eq!(common::mounts_below(&first), Vec::<PathBuf>::new());
}

pub fn a_mounted_layer_is_unmounted_before_it_is_removed(bench: &Bench) {
    let driver = bench.open();
    let (base_layer, layer) = (id("bottom"), id("layer"));
    image_layer(&*driver, &base_layer, None, &base());
    container_layer(&*driver, &layer, Some(&base_layer));
    let mounts = common::mounts_below(&bench.home());
    let root = driver.mount(&layer, LayerKind::ReadWrite, None).unwrap();
    write(root.join("mine"), "mine");
    let removed = driver.remove(&layer).unwrap();
    assert_eq!(common::mounts_below(&bench.home()), mounts, "nothing is mounted in the trash either");
    removed.remove();
    assert_eq!(std::fs::read_dir(bench.state().join("trash")).unwrap().count(), 0);
    let root = driver.mount(&base_layer, LayerKind::ReadOnly, None).unwrap();
    assert_eq!(read(root.join("d/one")), "1", "the layer below is whole");
}

pub fn data_in_the_way_of_a_new_layer_is_put_aside(bench: &Bench) {
    let driver = bench.open();
    let layer = id("layer");
    image_layer(&*driver, &layer, None, &base());
    assert!(driver.quarantined().unwrap().is_empty());

    image_layer(&*driver, &layer, None, &Tar::new().file("fresh", b"").finish());
    let root = driver.mount(&layer, LayerKind::ReadOnly, None).unwrap();
    assert_eq!(names(&root), ["fresh"]);
    driver.unmount(&layer).unwrap();

    let aside = driver.quarantined().unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].name, "layer");
    assert_eq!(aside[0].reason, "data without a record were in the way of a new layer of this id");
    assert_eq!(driver.restore(&aside[0]).unwrap_err().kind(), ErrorKind::AlreadyExists);
    if !bench.has_devices() {
        assert!(tree(&aside[0].path).keys().any(|name| name.ends_with("d/one")));
    }
}

pub fn quarantine_and_restore_move_a_layer_away_and_back(bench: &Bench) {
    let driver = bench.open();
    let (image, container) = (id("image"), id("container"));
    let (_, tar_split) = image_layer(&*driver, &image, None, &base());
    container_layer(&*driver, &container, Some(&image));
    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    write(root.join("mine"), "mine");

    let aside = driver.quarantine(&container, "for the test").unwrap().unwrap();
    assert_eq!((aside.name.as_str(), aside.reason.as_str()), ("container", "for the test"));
    assert!(!driver.exists(&container).unwrap());
    assert_eq!(common::mounts_below(&root), Vec::<PathBuf>::new());
    let aside_image = driver.quarantine(&image, "too").unwrap().unwrap();
    assert!(driver.layers().unwrap().is_empty());

    drop(driver);
    let driver = bench.open();
    assert_eq!(driver.quarantined().unwrap(), [aside.clone(), aside_image.clone()]);
    driver.restore(&aside_image).unwrap();
    driver.restore(&aside).unwrap();
    assert!(driver.quarantined().unwrap().is_empty());
    driver.validate(&image, None).unwrap();
    driver.validate(&container, Some(&image)).unwrap();
    assert_eq!(driver.verify(&image, &mut &tar_split[..], Depth::Metadata).unwrap(), Verdict::Valid);
    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    assert_eq!(read(root.join("mine")), "mine");
    assert_eq!(read(root.join("d/two")), "22");
}

pub fn an_unknown_parent_is_not_found_and_nothing_remains(bench: &Bench) {
    let driver = bench.open();
    let before = tree(&bench.home());
    let error = create(&*driver, &id("layer"), Some(&id("nobody")), LayerKind::ReadWrite).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.report().starts_with("create layer layer: parent layer: layer nobody: no such layer"),
        "{error:?}"
    );
    assert_eq!(tree(&bench.home()), before);
    assert_eq!(std::fs::read_dir(bench.state().join("staging")).unwrap().count(), 0);
}

pub fn storage_options_are_refused_and_nothing_remains(bench: &Bench) {
    let driver = bench.open();
    let before = tree(&bench.home());
    // A device cannot be smaller than the one it is a snapshot of.
    let (size, refused) = match bench.has_devices() {
        true => ("4096", ErrorKind::InvalidArgument),
        false => ("10G", ErrorKind::Unsupported),
    };
    let storage_options = [("size".to_owned(), size.to_owned())];
    for (kind, expected) in
        [(LayerKind::ReadWrite, refused), (LayerKind::ReadOnly, ErrorKind::InvalidArgument)]
    {
        let layer = id("layer");
        let new =
            NewLayer { id: &layer, parent: None, kind, storage_options: &storage_options, mount_label: None };
        assert_eq!(driver.create(&new).unwrap_err().kind(), expected, "{kind:?}");
    }
    assert_eq!(tree(&bench.home()), before);
}

pub fn layers_are_found_again_after_a_restart(bench: &Bench) {
    let (image, container) = (id("image"), id("container"));
    let driver = bench.open();
    let (_, tar_split) = image_layer(&*driver, &image, None, &base());
    container_layer(&*driver, &container, Some(&image));
    write(driver.mount(&container, LayerKind::ReadWrite, None).unwrap().join("mine"), "mine");
    driver.unmount(&container).unwrap();
    driver.clean_up().unwrap();
    drop(driver);

    let before = tree(&bench.home());
    let driver = bench.open();
    let mut layers = driver.layers().unwrap();
    layers.sort();
    assert_eq!(layers, [container.clone(), image.clone()]);
    driver.validate(&image, None).unwrap();
    driver.validate(&container, Some(&image)).unwrap();
    assert_eq!(tree(&bench.home()), before, "opening and looking changes nothing");
    assert_eq!(driver.verify(&image, &mut &tar_split[..], Depth::Metadata).unwrap(), Verdict::Valid);
    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    assert_eq!(read(root.join("mine")), "mine");
    assert_eq!(read(root.join("top")), "top");
}

pub fn what_a_crash_left_half_done_is_gone_after_a_restart(bench: &Bench) {
    let driver = bench.open();
    let layer = id("layer");
    image_layer(&*driver, &layer, None, &base());
    let half_removed = id("half-removed");
    image_layer(&*driver, &half_removed, None, &base());
    // The process ends before it removes what it has moved to the trash.
    let removed = driver.remove(&half_removed).unwrap();
    assert!(!driver.exists(&half_removed).unwrap());
    let waiting = usize::from(!bench.has_devices());
    assert_eq!(std::fs::read_dir(bench.state().join("trash")).unwrap().count(), waiting);
    std::mem::forget(removed);
    // And it ended while it built a layer.
    let half_built = bench.state().join("staging").join("0123").join("diff");
    std::fs::create_dir_all(&half_built).unwrap();
    write(half_built.join("file"), "content");
    let before = tree(&bench.home());
    drop(driver);

    let driver = bench.open();
    assert_eq!(tree(&bench.home()), before);
    for place in ["trash", "staging"] {
        assert_eq!(std::fs::read_dir(bench.state().join(place)).unwrap().count(), 0, "{place}");
    }
    driver.validate(&layer, None).unwrap();
}

pub fn a_second_owner_is_refused(bench: &Bench) {
    let driver = bench.open();
    let error = driver::open(&bench.options()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.report().contains(&format!("in use by pid {}", std::process::id())), "{}", error.report());
    drop(driver);
    bench.open();
}

pub fn usage_counts_what_the_layer_itself_holds(bench: &Bench) {
    let driver = bench.open();
    let layer = id("layer");
    image_layer(&*driver, &layer, None, &base());
    let (counted, usage) = driver.usage(&layer).unwrap().unwrap();
    assert_eq!(counted, bench.content(&*driver, &layer));
    // d d/one d/two e e/x top hard soft, and the directory itself; the hard link counts again.
    assert_eq!(usage.inodes.0, 9);
    let all = ["", "d", "d/one", "d/two", "e", "e/x", "top", "hard", "soft"];
    let sizes = all.iter().map(|name| counted.join(name).symlink_metadata().unwrap().len());
    assert_eq!(usage.bytes.0, sizes.sum::<u64>());
    assert_eq!(driver.usage(&id("nobody")).unwrap(), None);
}

pub fn verify_finds_a_changed_file(bench: &Bench) {
    let driver = bench.open();
    let layer = id("layer");
    let (_, tar_split) = image_layer(&*driver, &layer, None, &base());
    assert_eq!(driver.verify(&layer, &mut &tar_split[..], Depth::Metadata).unwrap(), Verdict::Valid);
    let content = bench.content(&*driver, &layer);
    write(content.join("e/x"), "xxy");
    let verdict = driver.verify(&layer, &mut &tar_split[..], Depth::Metadata).unwrap();
    assert!(matches!(&verdict, Verdict::Differs(what) if what.contains("e/x")), "{verdict:?}");
    std::fs::remove_file(content.join("e/x")).unwrap();
    assert!(matches!(
        driver.verify(&layer, &mut &tar_split[..], Depth::Metadata).unwrap(),
        Verdict::Differs(_)
    ));
}

pub fn export_gives_the_exact_archive_back(bench: &Bench) {
    let driver = bench.open();
    let (one, two) = (id("one"), id("two"));
    let second = Tar::new()
        .dir("d/")
        .file("d/.wh.one", b"")
        .file("d/.wh..wh..opq", b"")
        .file("d/new", &[7; 100_000])
        .finish();
    for (layer, parent, tar) in [(&one, None, base()), (&two, Some(&one), second)] {
        let (applied, tar_split) = image_layer(&*driver, layer, parent, &tar);
        let mut out = Vec::new();
        let (digest, size) = driver.export(layer, &mut &tar_split[..], &mut out).unwrap();
        assert_eq!(digest, applied.diff_id);
        assert_eq!(size, applied.tar_size);
        assert!(out == tar, "{layer}: the archive differs");
    }
}

/// A driver's archive of what a layer changes of `parent`; sizes and digest are right.
fn diff(driver: &dyn GraphDriver, layer: &LayerId, parent: Option<&LayerId>) -> Vec<u8> {
    let mut tar = Vec::new();
    let diffed =
        driver.diff(layer, parent, &mut tar).unwrap_or_else(|error| panic!("{layer}: {}", error.report()));
    assert_eq!(diffed.diff_id, Digest::of(&tar));
    assert_eq!(diffed.tar_size.0, tar.len() as u64);
    assert_eq!(driver.diff_size(layer, parent).unwrap(), diffed.content_size);
    tar
}

fn changes(driver: &dyn GraphDriver, layer: &LayerId, parent: Option<&LayerId>) -> Vec<String> {
    let changes = driver.changes(layer, parent).unwrap_or_else(|error| panic!("{layer}: {}", error.report()));
    let line = |change: Change| format!("{:?} {}", change.kind, String::from_utf8(change.path).unwrap());
    changes.into_iter().map(line).collect()
}

/// What two layers show, all that there is to know of it.
fn assert_same_views(driver: &dyn GraphDriver, one: &LayerId, other: &LayerId) {
    let show = |layer: &LayerId| {
        let root = driver.mount(layer, LayerKind::ReadOnly, None).unwrap();
        let mut tree = archive_common::tree(&root);
        // The driver's own mark of a base layer's root.
        tree.remove(std::path::Path::new(""));
        driver.unmount(layer).unwrap();
        tree
    };
    let found = archive_common::differences(&show(one), &show(other));
    assert!(found.is_empty(), "{one} and {other} differ:\n{}", found.join("\n"));
}

fn with_container(driver: &dyn GraphDriver) -> (LayerId, LayerId, LayerId) {
    let (base_layer, image, container) = (id("bottom"), id("image"), id("container"));
    image_layer(driver, &base_layer, None, &base());
    let second = Tar::new().dir("d/").file("d/.wh.one", b"").file("d/new", b"new").dir("e/").dir("e/f/");
    let second = second.file("e/f/g", b"g").file("e/z", b"z").finish();
    image_layer(driver, &image, Some(&base_layer), &second);
    container_layer(driver, &container, Some(&image));
    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    write(root.join("d/new"), "changed");
    write(root.join("mine"), "mine");
    std::fs::hard_link(root.join("mine"), root.join("mine-too")).unwrap();
    std::fs::remove_file(root.join("top")).unwrap();
    std::fs::remove_file(root.join("soft")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("soft")).unwrap();
    std::fs::remove_dir_all(root.join("e")).unwrap();
    std::fs::create_dir(root.join("e")).unwrap();
    write(root.join("e/z"), "other");
    write(root.join("d/one"), "again");
    let xattr = rustix::fs::setxattr(root.join("mine"), "user.a", b"b", rustix::fs::XattrFlags::empty());
    xattr.unwrap();
    driver.unmount(&container).unwrap();
    (base_layer, image, container)
}

pub fn what_a_container_changed_is_a_layer(bench: &Bench) {
    let driver = bench.open();
    let (_, image, container) = with_container(&*driver);
    let expected = [
        "Modified d",
        "Modified d/new",
        "Added d/one",
        "Modified e",
        "Deleted e/f",
        "Deleted e/x",
        "Modified e/z",
        "Added mine",
        "Added mine-too",
        "Modified soft",
        "Deleted top",
    ];
    let found = changes(&*driver, &container, Some(&image));
    assert_eq!(found, expected);

    let tar = diff(&*driver, &container, Some(&image));
    let copy = id("copy");
    let (applied, _) = image_layer(&*driver, &copy, Some(&image), &tar);
    assert_eq!(driver.diff_size(&container, Some(&image)).unwrap(), applied.content_size);
    assert_same_views(&*driver, &container, &copy);
    assert_eq!(changes(&*driver, &copy, Some(&image)), expected);
    assert!(diff(&*driver, &copy, Some(&image)) == tar, "the archive of the same layer differs");

    // Mounted and in use, it is compared all the same.
    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    write(root.join("later"), "later");
    assert!(changes(&*driver, &container, Some(&image)).contains(&"Added later".to_owned()));
    driver.unmount(&container).unwrap();
}

pub fn a_layer_becomes_an_archive_again(bench: &Bench) {
    let driver = bench.open();
    let (base_layer, image, _) = with_container(&*driver);
    let (one, two) = (id("again-base"), id("again-image"));
    image_layer(&*driver, &one, None, &diff(&*driver, &base_layer, None));
    image_layer(&*driver, &two, Some(&one), &diff(&*driver, &image, Some(&base_layer)));
    assert_same_views(&*driver, &base_layer, &one);
    assert_same_views(&*driver, &image, &two);
}

pub fn layers_are_compared_with_any_other(bench: &Bench) {
    let driver = bench.open();
    let (base_layer, image, container) = with_container(&*driver);
    if let Err(error) = driver.changes(&container, None)
        && error.kind() == ErrorKind::Unsupported
    {
        eprintln!("skipped: {}", error.report());
        return;
    }
    image_layer(&*driver, &id("flat"), None, &diff(&*driver, &container, None));
    assert_same_views(&*driver, &container, &id("flat"));
    image_layer(&*driver, &id("on-base"), Some(&base_layer), &diff(&*driver, &container, Some(&base_layer)));
    assert_same_views(&*driver, &container, &id("on-base"));
    // Backwards, from the container to what it was.
    let back = diff(&*driver, &image, Some(&container));
    image_layer(&*driver, &id("back"), Some(&container), &back);
    assert_same_views(&*driver, &image, &id("back"));
    assert_eq!(changes(&*driver, &id("back"), Some(&image)), [""; 0]);
    assert_eq!(
        changes(&*driver, &image, Some(&base_layer)),
        ["Modified d", "Added d/new", "Deleted d/one", "Modified e", "Added e/f", "Added e/f/g", "Added e/z"]
    );
}

pub fn a_layer_that_no_archive_can_hold_is_an_error(bench: &Bench) {
    let driver = bench.open();
    let (_, image, container) = with_container(&*driver);
    let root = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    write(root.join(".wh.d"), "not a whiteout");
    driver.unmount(&container).unwrap();
    let error = driver.diff(&container, Some(&image), &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.report().contains(".wh.d"), "{}", error.report());
    assert!(changes(&*driver, &container, Some(&image)).contains(&"Added .wh.d".to_owned()));
}

pub fn a_broken_archive_fails_and_the_layer_can_be_removed(bench: &Bench) {
    let driver = bench.open();
    let before = bench.tree();
    let layer = id("layer");
    let tar = base();
    let broken: [(&str, &[u8]); 2] = [("truncated", &tar[..tar.len() / 2]), ("no archive", &[b'x'; 2048])];
    for (what, bytes) in broken {
        create(&*driver, &layer, None, LayerKind::ReadOnly).unwrap();
        let error = driver.apply(&layer, &mut &bytes[..], &mut Vec::new(), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}: {}", error.report());
        driver.remove(&layer).unwrap().remove();
        assert_eq!(bench.tree(), before, "{what}");
    }
    create(&*driver, &layer, None, LayerKind::ReadOnly).unwrap();
    let limits = Limits { entries: 3, ..Limits::default() };
    let error = driver.apply(&layer, &mut &tar[..], &mut Vec::new(), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

pub fn absent_layers_are_told_apart_from_failures(bench: &Bench) {
    let driver = bench.open();
    let nobody = id("nobody");
    assert!(!driver.exists(&nobody).unwrap());
    assert!(!driver.is_mounted(&nobody).unwrap());
    assert_eq!(driver.usage(&nobody).unwrap(), None);
    assert_eq!(driver.quarantine(&nobody, "why").unwrap(), None);
    driver.unmount(&nobody).unwrap();
    driver.repair_lowers(&nobody, None).unwrap();
    driver.remove(&nobody).unwrap().remove();
    let errors = [
        driver.mount(&nobody, LayerKind::ReadWrite, None).unwrap_err(),
        driver.validate(&nobody, None).unwrap_err(),
        driver.metadata(&nobody).unwrap_err(),
        driver.sync(&nobody).unwrap_err(),
        driver.verify(&nobody, &mut std::io::empty(), Depth::Metadata).unwrap_err(),
        driver.export(&nobody, &mut std::io::empty(), &mut std::io::sink()).unwrap_err(),
        driver.diff(&nobody, None, &mut std::io::sink()).unwrap_err(),
        driver.changes(&nobody, None).unwrap_err(),
        driver.diff_size(&nobody, None).unwrap_err(),
        driver.apply(&nobody, &mut std::io::empty(), &mut std::io::sink(), &Limits::default()).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
    }
}

pub fn read_only_reads_and_never_writes(bench: &Bench) {
    let (image, container) = (id("image"), id("container"));
    let driver = bench.open();
    let (applied, tar_split) = image_layer(&*driver, &image, None, &base());
    container_layer(&*driver, &container, Some(&image));
    driver.clean_up().unwrap();
    drop(driver);
    let before = (tree(&bench.home()), tree(&bench.state()), common::mounts_below(&bench.root));

    let options = driver::DriverOptions { read_only: true, ..bench.options() };
    let driver = driver::open(&options).unwrap();
    assert!(driver.exists(&image).unwrap());
    driver.validate(&image, None).unwrap();
    driver.validate(&container, Some(&image)).unwrap();
    assert_eq!(driver.usage(&image).unwrap().unwrap().1.inodes.0, 9);
    assert_eq!(metadata(&*driver, &container, "MergedDir"), Some(driver.mount_path(&container)));
    assert_eq!(driver.verify(&image, &mut &tar_split[..], Depth::Metadata).unwrap(), Verdict::Valid);
    let mut out = Vec::new();
    assert_eq!(driver.export(&image, &mut &tar_split[..], &mut out).unwrap().0, applied.diff_id);
    assert_eq!(Digest::of(&out), applied.diff_id);
    assert!(driver.quarantined().unwrap().is_empty());
    let errors = [
        create(&*driver, &id("new"), None, LayerKind::ReadWrite).unwrap_err(),
        driver.mount(&container, LayerKind::ReadWrite, None).unwrap_err(),
        driver.unmount(&container).unwrap_err(),
        driver.remove(&container).unwrap_err(),
        driver.quarantine(&container, "why").unwrap_err(),
        driver.apply(&container, &mut &base()[..], &mut Vec::new(), &Limits::default()).unwrap_err(),
        driver.sync(&container).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{}", error.report());
    }
    driver.clean_up().unwrap();
    assert_eq!((tree(&bench.home()), tree(&bench.state()), common::mounts_below(&bench.root)), before);
}

pub fn a_closed_driver_says_so(bench: &Bench) {
    let driver = bench.open();
    let layer = id("layer");
    container_layer(&*driver, &layer, None);
    driver.clean_up().unwrap();
    assert_eq!(driver.exists(&layer).unwrap_err().kind(), ErrorKind::NotReady);
    assert_eq!(driver.mount(&layer, LayerKind::ReadWrite, None).unwrap_err().kind(), ErrorKind::NotReady);
    driver.clean_up().unwrap();
    assert!(bench.open().exists(&layer).unwrap(), "closing gave the store free");
}

pub fn layers_are_made_in_parallel(bench: &Bench) {
    let driver = bench.open();
    let parent = id("parent");
    image_layer(&*driver, &parent, None, &base());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (driver, parent) = (&*driver, &parent);
            scope.spawn(move || {
                let layer = id(&format!("layer-{number}"));
                let name = format!("file-{number}");
                let tar = Tar::new().file(&name, b"content").finish();
                let (_, tar_split) = image_layer(driver, &layer, Some(parent), &tar);
                let root = driver.mount(&layer, LayerKind::ReadOnly, None).unwrap();
                assert_eq!(read(root.join(&name)), "content");
                assert_eq!(read(root.join("top")), "top");
                driver.unmount(&layer).unwrap();
                assert_eq!(
                    driver.verify(&layer, &mut &tar_split[..], Depth::Metadata).unwrap(),
                    Verdict::Valid
                );
            });
        }
    });
    assert_eq!(driver.layers().unwrap().len(), 9);
}
