// SPDX-License-Identifier: MulanPSL-2.0
//! What can get lost, and what becomes of it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::{TestRoot, need_root};
use crate::layers::{Tar, container_layer, id, image_layer, names, read, tree, write};
use isula_storage::driver::LayerKind;
use isula_storage::error::{Error, ErrorKind, Result};

use crate::{open, shows_all_three, three_layers};

fn lower_of(root: &Path, layer: &str) -> PathBuf {
    root.join("overlay").join(layer).join("lower")
}

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
fn many_that_miss_one_link_at_once_all_find_it_again() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("links");
    let driver = open(root.path());
    let [one, two, _] = three_layers(&*driver);
    let layers: Vec<_> = (0..8).map(|number| id(&format!("container{number}"))).collect();
    for layer in &layers {
        container_layer(&*driver, layer, Some(&two));
    }
    let home = root.join("overlay");
    for _ in 0..20 {
        for lost in [&one, &two] {
            std::fs::remove_file(link_of(&home, lost.as_str())).unwrap();
        }
        let start = std::sync::Barrier::new(layers.len());
        std::thread::scope(|scope| {
            for layer in &layers {
                scope.spawn(|| {
                    start.wait();
                    shows_all_three(&*driver, layer);
                });
            }
        });
    }
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
fn a_layer_made_again_in_one_run_takes_its_name_again() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("again");
    let driver = open(root.path());
    let [one, two, three] = three_layers(&*driver);
    let links = || std::fs::read_dir(root.join("overlay/l")).unwrap().count();
    let tar = Tar::new().dir("d/").file("d/one", b"1").file("top", b"t").finish();
    driver.quarantine(&one, "for the test").unwrap().unwrap();
    image_layer(&*driver, &one, None, &tar);
    shows_all_three(&*driver, &three);
    // The same when its data are just in the way.
    image_layer(&*driver, &one, None, &tar);
    shows_all_three(&*driver, &three);
    driver.validate(&two, Some(&one)).unwrap();
    assert_eq!(links(), 3);
    driver.remove(&three).unwrap().remove();
    driver.remove(&two).unwrap().remove();
    driver.quarantine(&one, "for good").unwrap().unwrap();
    driver.remove(&one).unwrap().remove();
    assert_eq!(links(), 0);
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
