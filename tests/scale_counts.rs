// SPDX-License-Identifier: MulanPSL-2.0
//! What a start and a change cost in system calls, and that a change costs the same however many images there are.
//! Counted by strace, not timed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;
#[path = "../benches/scale/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::TestRoot;
use isula_storage::image::CreateImage;
use isula_storage::storage::{Storage, StorageOptions};
use store::Size;

/// What the program under strace is to do, and in which directory.
const WORK: &str = "SCALE_WORK";
const PLACE: &str = "SCALE_PLACE";

/// How often each system call was made.
type Calls = BTreeMap<String, i64>;

/// Is run by the other tests in a process of its own.
#[test]
fn work() {
    let (Ok(work), Some(place)) = (std::env::var(WORK), std::env::var_os(PLACE)) else { return };
    let place = Path::new(&place);
    let mut options = StorageOptions::new(place.join("root"), place.join("run"));
    options.driver_options = vec!["overlay2.skip_mount_home=true".to_owned()];
    let storage = Storage::open(options).unwrap();
    assert_eq!(storage.problems(), []);
    let images = storage.images();
    let first = images.list().unwrap()[0].id.clone().unwrap();
    let (what, times) = work.split_once(' ').unwrap();
    for number in 0..times.parse().unwrap() {
        match what {
            "create" => {
                let names = vec![format!("made:{number}")];
                images.create(&CreateImage { names, ..CreateImage::default() }).map(drop).unwrap();
            }
            "name" => images.add_name(&first, &format!("more:{number}")).unwrap(),
            "look" => {
                assert!(images.exists(&first) && images.exists(&first[..12]) && !images.exists("none"));
                assert_eq!(images.summary(&first).unwrap().id, first);
                images.shared_summaries().unwrap();
                assert!(storage.layers().exists(&images.top_layer(&first).unwrap().unwrap()));
            }
            _ => panic!("{work}"),
        }
    }
    storage.close().unwrap();
}

fn count(place: &Path, work: &str) -> Calls {
    let table = place.join("calls");
    let output = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&table)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "work", "--test-threads=1"])
        .env(WORK, work)
        .env(PLACE, place)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = std::fs::read_to_string(table).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(((*words.last()?).to_owned(), words.get(3)?.parse().ok()?))
    };
    text.lines().filter_map(line).filter(|(name, _): &(String, i64)| name != "total").collect()
}

fn storage(images: usize, layers: usize) -> TestRoot {
    let place = TestRoot::in_memory("counts");
    std::fs::create_dir(place.join("run")).unwrap();
    store::make(&place.join("root"), Size { images, layers });
    // The first start makes what is missing.
    count(place.path(), "look 0");
    place
}

/// What one storage costs more than another.
fn difference(more: &Calls, less: &Calls, calls: &[&str]) -> i64 {
    let of = |table: &Calls, call: &str| table.get(call).copied().unwrap_or(0);
    calls.iter().map(|call| of(more, call) - of(less, call)).sum()
}

const FILES: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "close",
    "read",
    "readlinkat",
    "getdents64",
    "newfstatat",
    "fstat",
    "statx",
    "fcntl",
    "lseek",
    "access",
    "faccessat2",
    "fstatfs",
    "unlinkat",
];
const SYNCS: &[&str] = &["fsync", "fdatasync", "syncfs", "sync_file_range", "sync"];

#[test]
fn a_start_makes_few_calls_for_each_image_and_layer() {
    if !common::need_root() {
        return;
    }
    let few = count(storage(100, 100).path(), "look 0");
    let layers = difference(&count(storage(100, 300).path(), "look 0"), &few, FILES);
    // It is looked at, opened, read and closed; its tar-split is looked at; its short name is read. The rest is for reading
    // directories.
    assert!((200 * 6..=200 * 6 + 60).contains(&layers), "{layers} calls for 200 layers");
    let both = difference(&count(storage(300, 300).path(), "look 0"), &few, FILES);
    // The directory is opened, listed and closed; three files are opened, read to the end and closed.
    let images = both - layers;
    assert!((200 * 16..=200 * 16 + 60).contains(&images), "{images} calls for 200 images");
}

#[test]
fn lookups_and_lists_make_no_calls() {
    if !common::need_root() {
        return;
    }
    let place = storage(50, 50);
    let (none, many) = (count(place.path(), "look 0"), count(place.path(), "look 100"));
    assert_eq!(difference(&many, &none, FILES) + difference(&many, &none, SYNCS), 0);
}

#[test]
fn a_change_makes_the_fewest_syncs_whatever_the_number_of_images() {
    if !common::need_root() {
        return;
    }
    // A record is the file and the directory that it is renamed in; a new image's directory also has to be found again.
    for (work, least) in [("create", 3), ("name", 2)] {
        for images in [10, 300] {
            let place = storage(images, images);
            let none = count(place.path(), &format!("{work} 0"));
            let more = count(place.path(), &format!("{work} 10"));
            assert_eq!(difference(&more, &none, SYNCS), 10 * least, "{work} among {images}");
        }
    }
}

#[test]
fn a_change_makes_the_same_calls_whatever_the_number_of_images() {
    if !common::need_root() {
        return;
    }
    for work in ["create", "name"] {
        let calls = |images| {
            let place = storage(images, images);
            let none = count(place.path(), &format!("{work} 0"));
            difference(&count(place.path(), &format!("{work} 10")), &none, FILES)
        };
        assert_eq!(calls(10), calls(300), "{work}");
    }
}
