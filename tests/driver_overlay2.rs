// SPDX-License-Identifier: MulanPSL-2.0
//! The overlay driver on real file systems: layout, repair, mounts, and stores written by a real iSulad daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;
mod layers;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{TestRoot, need_root};
use isula_storage::archive::OwnerShift;
use isula_storage::driver::{self, DriverOptions, GraphDriver, LayerKind, Limits, NewLayer};
use isula_storage::error::{Error, ErrorKind, Result};
use isula_storage::id::LayerId;
use layers::{Tar, container_layer, create, id, image_layer, metadata, names, read, tree, write};

const BASE: &str = "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3";
const SECOND: &str = "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b";
const OPAQUE: &str = "2e36010176f580c7d91271f93622a79a2cabc2d9358fc4601da74f97abbcfbe8";
const RUNNING: &str = "5bdedd739ff4704de65820ae9a5f93f63a0cf3869b70eee5531db7a63486ecf5";
const CREATED: &str = "27cd7024d0302b999ae11c404ed0e0e148559fd3ba3c24947fc98da608fa8f14";

fn try_open(root: &Path, options: &[&str]) -> Result<Arc<dyn GraphDriver>> {
    let options = options.iter().map(ToString::to_string).collect();
    driver::open(&DriverOptions { options, ..layers::options(root, "overlay2") })
}

fn open(root: &Path) -> Arc<dyn GraphDriver> {
    layers::open(root, "overlay2")
}

/// An image layer `one`, an image layer `two` on it, a container's layer `three` on that.
fn three_layers(driver: &dyn GraphDriver) -> [LayerId; 3] {
    let ids = [id("one"), id("two"), id("three")];
    image_layer(driver, &ids[0], None, &Tar::new().dir("d/").file("d/one", b"1").file("top", b"t").finish());
    image_layer(driver, &ids[1], Some(&ids[0]), &Tar::new().dir("d/").file("d/two", b"2").finish());
    container_layer(driver, &ids[2], Some(&ids[1]));
    ids
}

fn shows_all_three(driver: &dyn GraphDriver, layer: &LayerId) {
    let root =
        driver.mount(layer, LayerKind::ReadWrite, None).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(names(&root), ["d/", "d/one", "d/two", "top"]);
    driver.unmount(layer).unwrap();
}

/// Attributes below a directory that only the kernel's overlay writes.
fn kernel_attributes(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = tree(dir).into_keys().collect::<Vec<_>>();
    names.push(String::new());
    for name in names {
        let mut buffer = vec![0; 4096];
        let size = rustix::fs::llistxattr(dir.join(&name), &mut buffer[..]).unwrap();
        let text = String::from_utf8(buffer[..size].to_vec()).unwrap();
        found.extend(
            text.split_terminator('\0')
                .filter(|a| a.starts_with("trusted.overlay."))
                .map(|a| format!("{name}: {a}")),
        );
    }
    found
}

fn lower_of(root: &Path, layer: &str) -> PathBuf {
    root.join("overlay").join(layer).join("lower")
}

// ---- layout -----------------------------------------------------------------------------------------------------

/// What lies in a home, with ids, short names and file contents replaced by what they stand for.
fn shape(home: &Path, stands_for: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut links = BTreeMap::new();
    for (id, name) in stands_for {
        links.insert(read(home.join(id).join("link")), format!("<link of {name}>"));
    }
    let replace = |text: &str| {
        let text = stands_for.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name));
        links.iter().fold(text, |text, (link, name)| text.replace(link, name))
    };
    let mut shape = BTreeMap::new();
    for (path, what) in tree(home) {
        let in_content = path.split('/').nth(1) == Some("diff") && path.split('/').count() > 2;
        if in_content || path == "backingFsBlockDev" {
            continue;
        }
        let small = ["link", "lower"].contains(&path.rsplit('/').next().unwrap()) && what.starts_with("file");
        let what = if small {
            let mode = what.split(' ').take(3).collect::<Vec<_>>().join(" ");
            format!("{mode} {}", replace(&read(home.join(&path))))
        } else {
            replace(&what)
        };
        shape.insert(replace(&path), what);
    }
    shape
}

#[test]
fn a_home_looks_as_the_daemon_leaves_it() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("layout");
    layers::unpack_golden(root.path());
    let golden = root.join("running/storage/overlay");
    let stands_for = [(BASE, "base"), (SECOND, "second"), (CREATED, "created")];
    // The container that ran has left its traces in work/ and on merged/; the other three are as they were created.
    for gone in ["l/d20cbe092bb0b8725bd84185ad", RUNNING] {
        let path = golden.join(gone);
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)).unwrap();
    }
    let work = golden.join(CREATED).join("work/work");
    std::fs::remove_dir(&work).unwrap_or_default();

    let driver = open(root.path());
    let tar = Tar::new().file("f", b"").finish();
    image_layer(&*driver, &id(BASE), None, &tar);
    image_layer(&*driver, &id(SECOND), Some(&id(BASE)), &tar);
    container_layer(&*driver, &id(CREATED), Some(&id(SECOND)));
    let home = root.join("overlay");
    let (ours, theirs) = (shape(&home, &stands_for), shape(&golden, &stands_for));
    assert_eq!(ours, theirs);
    assert_eq!(ours["base/link"], "file 644 0:0 <link of base>");
    assert_eq!(ours["created/lower"], "file 644 0:0 l/<link of second>:l/<link of base>");
    assert_eq!(home.metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_fresh_home_is_as_the_daemon_leaves_it() {
    if !need_root() {
        return;
    }
    let disk = common::loop_ext4(16 << 20);
    layers::unpack_golden(disk.path().as_path());
    let golden = tree(&disk.join("fresh/overlay"));
    let root = disk.join("store");
    std::fs::create_dir(&root).unwrap();
    drop(open(&root));
    let ours = tree(&root.join("overlay"));
    assert_eq!(ours.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    assert_eq!(ours["l"], golden["l"]);
    let device = root.metadata().unwrap().dev();
    assert_eq!(ours["backingFsBlockDev"], format!("block 600 0:0 {device:x}"));
    assert!(golden["backingFsBlockDev"].starts_with("block 600 0:0 "));
}

#[test]
fn stores_of_a_real_daemon_open_validate_mount_and_stay_as_they_are() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("golden");
    layers::unpack_golden(root.path());
    let stores = [
        (
            "running/storage",
            vec![(BASE, None), (SECOND, Some(BASE)), (RUNNING, Some(SECOND)), (CREATED, Some(SECOND))],
        ),
        ("imported/storage", vec![(BASE, None), (SECOND, Some(BASE)), (OPAQUE, Some(SECOND))]),
    ];
    for (store, layers_of_it) in stores {
        let home = root.join(store).join("overlay");
        let mut before = tree(&home);
        // The node is for the disk that the store lies on now; here it lies on none.
        before.remove("backingFsBlockDev");
        let same = |driver: &dyn GraphDriver| {
            let mut now = tree(&home);
            now.remove("backingFsBlockDev");
            assert_eq!(now, before, "{store} {:?}", driver.name());
        };
        let driver = open(&root.join(store));
        for (layer, parent) in &layers_of_it {
            let parent = parent.map(id);
            assert!(driver.exists(&id(layer)).unwrap());
            driver.validate(&id(layer), parent.as_ref()).unwrap_or_else(|error| panic!("{}", error.report()));
            driver.repair_lowers(&id(layer), parent.as_ref()).unwrap();
        }
        same(&*driver);
        if store.starts_with("running") {
            let container = driver.mount(&id(RUNNING), LayerKind::ReadWrite, None).unwrap();
            assert!(container.join("root/w").is_file(), "what the container wrote");
            assert!(!container.join("opt/dir2/keep").exists(), "what the container removed");
            assert_eq!(container.join("opt/dir1/three").metadata().unwrap().len(), 4);
            driver.unmount(&id(RUNNING)).unwrap();
            let lower = metadata(&*driver, &id(RUNNING), "LowerDir").unwrap();
            let links = ["60126e880cab53ebb8e0803aa2", "48789e258cd229c759ee86aa3b"];
            let expected = links.map(|link| home.join("l").join(link).display().to_string()).join(":");
            assert_eq!(lower, Path::new(&expected));
        } else {
            let opaque = driver.mount(&id(OPAQUE), LayerKind::ReadOnly, None).unwrap();
            assert_eq!(names(&opaque.join("opt/dir1")), ["four"]);
            driver.unmount(&id(OPAQUE)).unwrap();
            same(&*driver);
        }
    }
}

// ---- mounts -----------------------------------------------------------------------------------------------------

#[test]
fn looking_into_an_image_layer_leaves_nothing_on_it() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("pure");
    let driver = open(root.path());
    let [one, two, three] = three_layers(&*driver);
    let home = root.join("overlay");
    let before = tree(&home);
    for layer in [&one, &two] {
        let path = driver.mount(layer, LayerKind::ReadOnly, None).unwrap();
        assert!(driver.is_mounted(layer).unwrap());
        assert_eq!(read(path.join("d/one")), "1");
        let error = std::fs::File::create(path.join("new")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        driver.unmount(layer).unwrap();
        assert_eq!(kernel_attributes(&home.join(layer)), Vec::<String>::new());
    }
    assert_eq!(tree(&home), before);
    shows_all_three(&*driver, &three);
}

#[test]
fn the_mount_table_shows_lower_layers_as_the_daemon_mounts_them() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("table");
    let driver = open(root.path());
    let [_, _, three] = three_layers(&*driver);
    let path = driver.mount(&three, LayerKind::ReadWrite, None).unwrap();
    let home = root.join("overlay");
    let lower = metadata(&*driver, &three, "LowerDir").unwrap().display().to_string();
    assert!(lower.starts_with(&format!("{}/l/", home.display())));
    let table = read("/proc/self/mounts");
    let line = table.lines().find(|line| line.split(' ').nth(1) == path.to_str()).unwrap();
    let options: Vec<_> = line.split(' ').nth(3).unwrap().split(',').collect();
    // A kernel that was given the lower layers one by one shows them as `lowerdir+`.
    let shown: Vec<_> = options
        .iter()
        .filter_map(|option| option.strip_prefix("lowerdir=").or_else(|| option.strip_prefix("lowerdir+=")))
        .collect();
    assert_eq!(shown.join(":"), lower);
    for (key, name) in [("upperdir", "diff"), ("workdir", "work")] {
        let option = format!("{key}={}", home.join("three").join(name).display());
        assert!(options.contains(&option.as_str()), "{option}: {options:?}");
    }
    assert!(line.starts_with("overlay "));
}

#[test]
fn mount_options_of_the_daemon_reach_the_kernel() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mountopt");
    let driver = try_open(root.path(), &["overlay2.mountopt=nodev,index=off,volatile"]).unwrap();
    let [_, _, three] = three_layers(&*driver);
    let path = driver.mount(&three, LayerKind::ReadWrite, None).unwrap();
    let table = read("/proc/self/mounts");
    let line = table.lines().find(|line| line.split(' ').nth(1) == path.to_str()).unwrap();
    let shown: Vec<_> = line.split([' ', ',']).collect();
    assert!(shown.contains(&"nodev"), "{line}");
    assert!(shown.contains(&"volatile") || shown.contains(&"fsync=volatile"), "{line}");
    driver.unmount(&three).unwrap();
    drop(driver);

    let driver = try_open(root.path(), &["overlay2.mountopt=no_such_option"]).unwrap();
    let error = driver.mount(&three, LayerKind::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Os(libc::EINVAL));
    assert!(error.report().starts_with("mount layer three: "), "{}", error.report());
    assert!(!driver.is_mounted(&three).unwrap());
}

#[test]
fn something_else_on_the_mount_point_is_not_taken_for_the_layer() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("foreign");
    let driver = open(root.path());
    let layer = id("layer");
    container_layer(&*driver, &layer, None);
    let merged = driver.mount_path(&layer);
    common::run(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&merged));
    let error = driver.mount(&layer, LayerKind::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{}", error.report());
    driver.unmount(&layer).unwrap();
    driver.mount(&layer, LayerKind::ReadWrite, None).unwrap();
}

#[test]
fn a_chain_longer_than_the_reference_takes_is_mounted() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("deep");
    let driver = open(root.path());
    let mut parent = None;
    for number in 0..500 {
        let layer = id(&format!("{number:064x}"));
        let tar =
            Tar::new().file(&format!("f{number}"), b"").file("last", number.to_string().as_bytes()).finish();
        image_layer(&*driver, &layer, parent.as_ref(), &tar);
        if [129, 130, 499].contains(&number) {
            let path =
                driver.mount(&layer, LayerKind::ReadOnly, None).unwrap_or_else(|e| panic!("{}", e.report()));
            assert_eq!(names(&path).len(), number + 2);
            assert_eq!(read(path.join("last")), number.to_string());
            driver.unmount(&layer).unwrap();
        }
        if [128, 129].contains(&number) {
            let container = id(&format!("container-{number}"));
            container_layer(&*driver, &container, Some(&layer));
            let path = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
            assert_eq!(names(&path).len(), number + 2);
            driver.unmount(&container).unwrap();
        }
        parent = Some(layer);
    }
    let container = id("container");
    container_layer(&*driver, &container, parent.as_ref());
    driver.validate(&container, parent.as_ref()).unwrap();
    let path = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    assert_eq!(names(&path).len(), 501);
    driver.unmount(&container).unwrap();

    let before = tree(&root.join("overlay"));
    for kind in [LayerKind::ReadOnly, LayerKind::ReadWrite] {
        let below = if kind == LayerKind::ReadOnly { parent.as_ref() } else { Some(&container) };
        let error = create(&*driver, &id("too-much"), below, kind).unwrap_err();
        assert_eq!(error.report(), "create layer too-much: 501 lower layers: an overlay takes 500 at most");
    }
    assert_eq!(tree(&root.join("overlay")), before);
}

// ---- the home ---------------------------------------------------------------------------------------------------

#[test]
fn the_home_is_bound_on_itself_and_released_when_nothing_is_mounted_below() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("home");
    let home = root.join("overlay");
    let driver = open(root.path());
    assert_eq!(common::mounts_below(&home), std::slice::from_ref(&home));
    let container = id("container");
    container_layer(&*driver, &container, None);
    let merged = driver.mount(&container, LayerKind::ReadWrite, None).unwrap();
    write(merged.join("file"), "content");
    driver.clean_up().unwrap();
    assert_eq!(
        common::mounts_below(&home),
        [merged.clone(), home.clone()],
        "a running container keeps its mount"
    );
    assert_eq!(read(merged.join("file")), "content");

    let driver = open(root.path());
    assert_eq!(common::mounts_below(&home), [merged.clone(), home.clone()], "not bound twice");
    assert!(driver.is_mounted(&container).unwrap());
    assert_eq!(driver.mount(&container, LayerKind::ReadWrite, None).unwrap(), merged);
    driver.unmount(&container).unwrap();
    driver.clean_up().unwrap();
    assert_eq!(
        common::mounts_below(&home),
        Vec::<PathBuf>::new(),
        "also a bind of an earlier process is released"
    );

    let driver = try_open(root.path(), &["overlay2.skip_mount_home=true"]).unwrap();
    assert_eq!(common::mounts_below(&home), Vec::<PathBuf>::new());
    shows_all_three(&*driver, &three_layers(&*driver)[2]);
    driver.remove(&id("three")).unwrap().remove();
    driver.clean_up().unwrap();
}

#[test]
fn a_file_system_mounted_on_the_home_stays() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("disk");
    let home = root.join("overlay");
    std::fs::create_dir(&home).unwrap();
    common::run(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&home));
    let driver = open(root.path());
    shows_all_three(&*driver, &three_layers(&*driver)[2]);
    driver.clean_up().unwrap();
    assert_eq!(common::mounts_below(&home), [home]);
}

#[test]
fn a_failed_start_leaves_no_mount() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("failed");
    let error = try_open(root.path(), &["overlay2.size=10G"]).err().unwrap();
    assert_eq!(
        error.report(),
        "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option"
    );
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(common::mounts_below(root.path()), Vec::<PathBuf>::new());
    let error = try_open(root.path(), &["overlay2.nonsense=1"]).err().unwrap();
    assert_eq!(error.report(), "open overlay driver: overlay2: unknown option: 'overlay2.nonsense=1'");
    try_open(root.path(), &["overlay2.size=0", "overlay2.override_kernel_check=1"]).unwrap();
}

#[test]
fn a_size_for_a_container_is_refused_in_the_words_of_the_reference() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("size");
    let driver = open(root.path());
    let layer = id("layer");
    let new = NewLayer {
        id: &layer,
        parent: None,
        kind: LayerKind::ReadWrite,
        storage_options: &[("size".to_owned(), "1G".to_owned())],
        mount_label: None,
    };
    assert_eq!(
        driver.create(&new).unwrap_err().report(),
        "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option"
    );
}

#[test]
fn an_archive_goes_only_into_an_empty_layer() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("filled");
    let driver = open(root.path());
    let [one, _, _] = three_layers(&*driver);
    let before = tree(&root.join("overlay"));
    let tar = Tar::new().file("again", b"").finish();
    let error = driver.apply(&one, &mut &tar[..], &mut Vec::new(), &Limits::default()).unwrap_err();
    assert_eq!(error.report(), "layer one has content already");
    assert_eq!(tree(&root.join("overlay")), before);
}

#[test]
fn a_home_on_an_overlay_is_refused() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("nested");
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    let place = root.path().display();
    let options = format!("lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work");
    common::run(
        std::process::Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(root.join("merged")),
    );
    let error = try_open(&root.join("merged"), &[]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let expected = format!(
        "open overlay driver: overlay layers cannot lie on overlayfs ({place}/merged/overlay); use ext4 or xfs"
    );
    assert_eq!(error.report(), expected);
}

#[test]
fn status_is_told_in_the_words_of_the_reference() {
    if !need_root() {
        return;
    }
    let disk = common::loop_ext4(16 << 20);
    for name in ["overlay", "overlay2"] {
        let driver = layers::open(&disk.path(), name);
        assert_eq!(driver.name(), name);
        let status = driver.status().unwrap();
        assert_eq!((status.driver_name.as_str(), status.backing_fs.as_str()), (name, "extfs"));
        assert_eq!(status.status, "Backing Filesystem: extfs\nSupports d_type: true\n");
        assert!(disk.join("overlay/l").is_dir(), "both names share one home");
    }
}

#[test]
fn directories_belong_to_the_root_of_the_user_namespace() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("remap");
    let shift = OwnerShift { uid: 100_000, gid: 200_000 };
    let options = DriverOptions { owner_shift: Some(shift), ..layers::options(root.path(), "overlay") };
    let driver = driver::open(&options).unwrap();
    let [one, two, _] = three_layers(&*driver);
    std::fs::remove_dir(root.join("overlay/two/work")).unwrap();
    driver.validate(&two, Some(&one)).unwrap();
    let home = root.join("overlay");
    let mut owners = BTreeMap::new();
    owners.insert("overlay".to_owned(), home.metadata().unwrap());
    for name in [
        "l",
        "one",
        "one/diff",
        "one/work",
        "one/merged",
        "one/empty",
        "one/link",
        "one/diff/top",
        "two/lower",
        "two/work",
    ] {
        owners.insert(name.to_owned(), home.join(name).metadata().unwrap());
    }
    for (name, metadata) in owners {
        let expected = match name.as_str() {
            "one/empty" | "one/link" | "two/lower" => (0, 0),
            _ => (100_000, 200_000),
        };
        assert_eq!((metadata.uid(), metadata.gid()), expected, "{name}");
    }
}

#[test]
fn reserved_names_are_no_layers() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("reserved");
    let driver = open(root.path());
    let [_, _, three] = three_layers(&*driver);
    let before = tree(&root.join("overlay"));
    for name in ["l", "backingFsBlockDev", "RO"] {
        let error = create(&*driver, &id(name), None, LayerKind::ReadWrite).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
        driver.remove(&id(name)).unwrap().remove();
        assert_eq!(driver.quarantine(&id(name), "why").unwrap(), None);
        assert!(!driver.exists(&id(name)).unwrap());
        assert_eq!(
            driver.mount(&id(name), LayerKind::ReadWrite, None).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    assert_eq!(tree(&root.join("overlay")), before);
    shows_all_three(&*driver, &three);
}

#[test]
fn nothing_remains_of_a_layer_that_could_not_be_made() {
    if !need_root() {
        return;
    }
    let disk = common::loop_ext4(4 << 20);
    let driver = open(&disk.path());
    let base = id("base");
    container_layer(&*driver, &base, None);
    // No inode is left: directories and links fail at one point or another as they are given back one by one.
    let mut fillers = Vec::new();
    while std::fs::create_dir(disk.join(format!("filler-{}", fillers.len()))).is_ok() {
        fillers.push(disk.join(format!("filler-{}", fillers.len())));
    }
    let before = tree(&disk.join("overlay"));
    let layer = id("layer");
    let mut failures = 0;
    loop {
        match create(&*driver, &layer, Some(&base), LayerKind::ReadWrite) {
            Ok(()) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Os(libc::ENOSPC), "{}", error.report());
                assert_eq!(tree(&disk.join("overlay")), before);
                assert!(
                    std::fs::read_dir(disk.join("overlay/.isula-storage/staging")).unwrap().next().is_none()
                );
                failures += 1;
                std::fs::remove_dir(fillers.pop().unwrap()).unwrap();
            }
        }
    }
    assert!(failures >= 4, "{failures}");
    driver.validate(&layer, Some(&base)).unwrap();
}

// ---- repair -----------------------------------------------------------------------------------------------------

/// What is done to a home.
type Damage = Box<dyn Fn(&Path)>;

/// Damages a store, then checks that looking at its layers as a start does heals it, and that nothing was put aside.
fn heals(tag: &str, what: &str, damage: impl Fn(&Path)) {
    let root = TestRoot::in_memory(tag);
    let driver = open(root.path());
    let [one, two, three] = three_layers(&*driver);
    drop(driver);
    let home = root.join("overlay");
    let before = tree(&home);
    damage(&home);
    assert_ne!(tree(&home), before, "{what}: the damage did nothing");

    let driver = open(root.path());
    for (layer, parent) in [(&one, None), (&two, Some(&one)), (&three, Some(&two))] {
        driver.validate(layer, parent).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    }
    shows_all_three(&*driver, &three);
    assert!(driver.quarantined().unwrap().is_empty(), "{what}");
    assert_eq!(driver.layers().unwrap().len(), 3, "{what}");
    for layer in ["one", "two", "three"] {
        let link = read(home.join(layer).join("link"));
        assert_eq!(
            std::fs::read_link(home.join("l").join(&link)).unwrap(),
            Path::new("..").join(layer).join("diff")
        );
    }
}

fn link_of(home: &Path, layer: &str) -> PathBuf {
    home.join("l").join(read(home.join(layer).join("link")))
}

#[test]
fn what_can_be_derived_is_made_again() {
    if !need_root() {
        return;
    }
    let remove =
        |path: PathBuf| std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)).unwrap();
    let cases: Vec<(&str, Damage)> = vec![
        ("a lost link of the base", Box::new(move |home| remove(link_of(home, "one")))),
        ("a lost link of the middle", Box::new(move |home| remove(link_of(home, "two")))),
        (
            "all links lost",
            Box::new(move |home| {
                remove(home.join("l"));
                std::fs::create_dir(home.join("l")).unwrap();
            }),
        ),
        ("l lost", Box::new(move |home| remove(home.join("l")))),
        (
            "a link that leads nowhere",
            Box::new(move |home| {
                let link = link_of(home, "two");
                remove(link.clone());
                symlink("../nobody/diff", link).unwrap();
            }),
        ),
        ("a lost link file", Box::new(move |home| remove(home.join("two/link")))),
        ("an empty link file", Box::new(|home| write(home.join("one/link"), ""))),
        ("a garbled link file", Box::new(|home| write(home.join("one/link"), "../../../etc/passwd-1234567"))),
        (
            "no link file and no link",
            Box::new(move |home| {
                remove(link_of(home, "one"));
                remove(home.join("one/link"));
            }),
        ),
        ("an empty lower file", Box::new(|home| write(home.join("three/lower"), ""))),
        ("a lost lower file", Box::new(move |home| remove(home.join("three/lower")))),
        ("a garbled lower file", Box::new(|home| write(home.join("three/lower"), "l/..:l/x"))),
        (
            "a cut lower file",
            Box::new(|home| {
                let lower = read(home.join("three/lower"));
                write(home.join("three/lower"), &lower[..40]);
            }),
        ),
        (
            "empty lower files all over",
            Box::new(|home| {
                write(home.join("two/lower"), "");
                write(home.join("three/lower"), "");
            }),
        ),
        (
            "lost own directories",
            Box::new(move |home| {
                for name in ["one/empty", "one/work", "one/merged", "three/work", "three/merged"] {
                    remove(home.join(name));
                }
            }),
        ),
    ];
    for (what, damage) in cases {
        heals("repair", what, damage);
    }
}

#[test]
fn a_lower_file_of_another_tool_may_end_with_a_newline() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("newline");
    let driver = open(root.path());
    let [_, two, three] = three_layers(&*driver);
    for name in ["two/link", "two/lower", "three/lower"] {
        let path = root.join("overlay").join(name);
        write(&path, &format!("{}\n", read(&path)));
    }
    let before = tree(&root.join("overlay"));
    driver.validate(&three, Some(&two)).unwrap();
    assert_eq!(tree(&root.join("overlay")), before, "it is not rewritten either");
    shows_all_three(&*driver, &three);
    container_layer(&*driver, &id("four"), Some(&two));
    shows_all_three(&*driver, &id("four"));
}

#[test]
fn a_mount_finds_a_layer_whose_short_name_was_lost_meanwhile() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("late");
    let driver = open(root.path());
    let [_, _, three] = three_layers(&*driver);
    let home = root.join("overlay");
    std::fs::remove_file(link_of(&home, "one")).unwrap();
    std::fs::remove_dir(home.join("three/merged")).unwrap();
    std::fs::remove_dir_all(home.join("three/work")).unwrap();
    shows_all_three(&*driver, &three);
}

#[test]
fn contradictions_are_reported_and_nothing_is_touched() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("doubt");
    let driver = open(root.path());
    let [one, two, three] = three_layers(&*driver);
    let other = id("other");
    image_layer(&*driver, &other, None, &Tar::new().file("o", b"").finish());
    let bare = id("bare");
    container_layer(&*driver, &bare, Some(&other));
    std::fs::remove_dir(root.join("overlay/bare/diff")).unwrap();
    let shared = id("shared");
    container_layer(&*driver, &shared, Some(&other));
    write(root.join("overlay/shared/link"), &read(root.join("overlay/two/link")));
    let before = tree(&root.join("overlay"));
    let report = |result: Result<()>| {
        let error: Error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report());
        error.report()
    };
    assert_eq!(
        report(driver.validate(&three, Some(&other))),
        "layer three: it stands on layer two by its file lower, but on other by its record"
    );
    assert_eq!(
        report(driver.validate(&three, None)),
        "layer three: it has lower layers, but its record names no parent"
    );
    assert_eq!(report(driver.validate(&bare, Some(&other))), "layer bare: its directory diff is missing");
    assert!(report(driver.validate(&shared, Some(&other))).ends_with("leads to layer two"));
    assert_eq!(tree(&root.join("overlay")), before);
    driver.validate(&two, Some(&one)).unwrap();
}

#[test]
fn making_a_lost_layer_again_heals_what_stands_on_it() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("heal");
    let driver = open(root.path());
    let [one, two, three] = three_layers(&*driver);
    let lower = read(lower_of(root.path(), "three"));
    let merged = driver.mount(&three, LayerKind::ReadWrite, None).unwrap();
    write(merged.join("mine"), "mine");
    driver.unmount(&three).unwrap();
    driver.quarantine(&one, "for the test").unwrap().unwrap();
    assert_eq!(driver.validate(&three, Some(&two)).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(driver.mount(&three, LayerKind::ReadWrite, None).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(driver.metadata(&three).unwrap_err().kind(), ErrorKind::Corrupt);
    // Also after a restart the name is known.
    drop(driver);
    let driver = open(root.path());
    assert_eq!(driver.validate(&two, Some(&one)).unwrap_err().kind(), ErrorKind::Corrupt);

    image_layer(&*driver, &one, None, &Tar::new().dir("d/").file("d/one", b"1").file("top", b"t").finish());
    driver.validate(&two, Some(&one)).unwrap();
    driver.validate(&three, Some(&two)).unwrap();
    assert_eq!(read(lower_of(root.path(), "three")), lower);
    let merged = driver.mount(&three, LayerKind::ReadWrite, None).unwrap();
    assert_eq!(names(&merged), ["d/", "d/one", "d/two", "mine", "top"]);
}

#[test]
fn names_without_a_layer_are_swept_at_start_and_nothing_else() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("sweep");
    let driver = open(root.path());
    let [one, two, three] = three_layers(&*driver);
    drop(driver);
    let home = root.join("overlay");
    let before = tree(&home);
    let dangling = home.join("l/00000000000000000000000000");
    symlink("../nobody/diff", &dangling).unwrap();
    // Not ours: a directory, a file, links of other shapes. They stay.
    std::fs::create_dir_all(home.join("stray/dir")).unwrap();
    write(home.join("note"), "");
    symlink("/nowhere", home.join("l/11111111111111111111111111")).unwrap();
    symlink("../nobody/diff", home.join("l/short")).unwrap();
    let driver = open(root.path());
    let mut after = tree(&home);
    for stray in ["stray", "stray/dir", "note", "l/11111111111111111111111111", "l/short"] {
        assert!(after.remove(stray).is_some(), "{stray}");
    }
    assert_eq!(after, before);
    let mut layers = driver.layers().unwrap();
    layers.sort();
    assert_eq!(layers, [one, id("stray"), three, two]);
    assert!(!driver.exists(&id("stray")).unwrap());
}

#[test]
fn removing_a_layer_takes_its_short_name_with_it() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("remove");
    let driver = open(root.path());
    let [_, _, three] = three_layers(&*driver);
    let home = root.join("overlay");
    let link = link_of(&home, "three");
    // Also when the layer itself does not say its name any more.
    std::fs::remove_file(home.join("three/link")).unwrap();
    driver.remove(&three).unwrap().remove();
    assert!(link.symlink_metadata().is_err());
    assert_eq!(std::fs::read_dir(home.join("l")).unwrap().count(), 2);
}

#[test]
fn the_mode_of_an_existing_home_is_left_alone() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mode");
    let home = root.join("overlay");
    std::fs::create_dir_all(home.join("l")).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o711)).unwrap();
    drop(open(root.path()));
    assert_eq!(home.metadata().unwrap().mode() & 0o7777, 0o711);
    assert_eq!(home.join("l").metadata().unwrap().mode() & 0o7777, 0o700);
}
