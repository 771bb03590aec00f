// SPDX-License-Identifier: MulanPSL-2.0
//! What lies on disk, against stores of a real daemon.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common::need_root;
use crate::layers::{self, Tar, container_layer, id, image_layer, metadata, names, read, tree};
use isula_storage::driver::{GraphDriver, LayerKind};

use crate::common;
use crate::open;

const BASE: &str = "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3";
const SECOND: &str = "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b";
const OPAQUE: &str = "2e36010176f580c7d91271f93622a79a2cabc2d9358fc4601da74f97abbcfbe8";
const RUNNING: &str = "5bdedd739ff4704de65820ae9a5f93f63a0cf3869b70eee5531db7a63486ecf5";
const CREATED: &str = "27cd7024d0302b999ae11c404ed0e0e148559fd3ba3c24947fc98da608fa8f14";

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
    let root = common::loop_ext4(32 << 20);
    layers::unpack_golden(&root.path());
    let golden = root.join("running/storage/overlay");
    let stands_for = [(BASE, "base"), (SECOND, "second"), (CREATED, "created")];
    // The container that ran has left its traces in work/ and on merged/; the other three are as they were created.
    for gone in ["l/d20cbe092bb0b8725bd84185ad", RUNNING] {
        let path = golden.join(gone);
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)).unwrap();
    }
    let work = golden.join(CREATED).join("work/work");
    std::fs::remove_dir(&work).unwrap_or_default();

    let driver = open(&root.path());
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
    layers::unpack_golden(&disk.path());
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
    let root = common::loop_ext4(32 << 20);
    layers::unpack_golden(&root.path());
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
