// SPDX-License-Identifier: MulanPSL-2.0
//! What a start costs, and what grows, and how: system calls of whole operations, each of them in a storage of few and in
//! one of many images, on a short and on a long chain of layers, with few and with many files. Traced by strace, not
//! timed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;
mod layers;
#[path = "../benches/scale/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::TestRoot;
use isula_storage::digest::Digest;
use isula_storage::id::LayerId;
use isula_storage::image::CreateImage;
use isula_storage::layer::CreateLayer;
use isula_storage::storage::{Storage, StorageOptions};
use layers::Tar;
use store::{Chain, Size};

/// What the program under strace is to do, and in which directory.
const STEPS: &str = "SCALE_STEPS";
const PLACE: &str = "SCALE_PLACE";
/// A path below which nothing is: asked for, it tells in the trace which step begins.
const MARK: &str = "/no/such/step/";

/// The step before all others.
const OPEN: &str = "open";

/// The layer of the only container; its parent is the top of the chain.
fn container() -> LayerId {
    LayerId::new(&format!("{:064x}", 5)).unwrap()
}

/// How often each system call was made in a step.
type Calls = BTreeMap<String, i64>;

#[derive(Debug, Default, Clone)]
struct Step {
    /// By the thread that called, and by those that it started and waited for.
    all: Calls,
    /// By the thread that called.
    own: Calls,
}

/// What depends on the scheduler, the allocator and the size of buffers, not on what is done.
const UNSTEADY: &[&str] = &[
    "brk",
    "clone3",
    "exit",
    "fcntl",
    "futex",
    "getrandom",
    "gettid",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "prctl",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
];

fn begin(step: &str) {
    assert!(!Path::new(&format!("{MARK}{step}")).exists());
}

fn archive(files: usize) -> Vec<u8> {
    let mut tar = Tar::new();
    for number in 0..files {
        if number % 100 == 0 {
            tar = tar.dir(&format!("d{}/", number / 100));
        }
        tar = tar.file(&format!("d{}/f{number}", number / 100), b"some content");
    }
    tar.finish()
}

fn make_layer(storage: &Storage, id: &LayerId, parent: Option<&LayerId>, tar: &[u8]) {
    let layer = CreateLayer {
        parent: parent.cloned(),
        uncompressed_digest: Some(Digest::of(tar).to_string()),
        ..CreateLayer::default()
    };
    storage.layers().create(id, &layer, Some(&mut &*tar)).map(drop).unwrap();
}

/// Is run by the other tests in a process of its own.
#[test]
fn work() {
    let (Ok(steps), Some(place)) = (std::env::var(STEPS), std::env::var_os(PLACE)) else { return };
    let place = Path::new(&place);
    let mut options = StorageOptions::new(place.join("root"), place.join("run"));
    options.driver_options = vec!["overlay2.skip_mount_home=true".to_owned()];
    begin(OPEN);
    let storage = Storage::open(options).unwrap();
    assert_eq!(storage.problems(), []);
    let (images, layers) = (storage.images(), storage.layers());
    let listed = images.list().unwrap();
    let first = listed.first().and_then(|image| image.id.clone()).unwrap_or_default();
    let top = layers.parent(&container()).flatten();
    let (one_file, names) = (archive(1), vec!["made:1".to_owned()]);
    let numbered = |number: usize| LayerId::new(&format!("{:064x}", 1 << 20 | number)).unwrap();
    let mut made = None;
    for step in steps.split(' ') {
        let files = || step.split_once('-').unwrap().1.parse().unwrap();
        let tar = if step.starts_with("import-") { archive(files()) } else { Vec::new() };
        begin(step);
        match step {
            "start" => {}
            "lookup" => {
                assert!(images.exists(&first) && images.exists(&first[..12]) && !images.exists("none"));
                assert_eq!(images.lookup(&first[..12]).unwrap().as_str(), first);
                assert_eq!(images.summary(&first).unwrap().id, first);
                assert!(layers.exists(&images.top_layer(&first).unwrap().unwrap()));
            }
            "list" => drop((images.shared_summaries().unwrap(), images.list().unwrap(), layers.list())),
            "create" => {
                let image = CreateImage { names: names.clone(), ..CreateImage::default() };
                made = Some(images.create(&image).unwrap());
            }
            "big-data" => images.set_big_data(&first, "note", b"some data").unwrap(),
            "add-name" => images.add_name(&first, "more:1").unwrap(),
            "set-names" => images.set_names(&first, &["other:1".to_owned()]).unwrap(),
            "delete-image" => assert!(images.delete(made.as_ref().unwrap().as_str()).unwrap()),
            "layer" => make_layer(&storage, &numbered(0), top.as_ref(), &one_file),
            "container" => {
                let layer = CreateLayer { parent: top.clone(), writable: true, ..CreateLayer::default() };
                layers.create(&numbered(1), &layer, None).map(drop).unwrap();
            }
            "mount" | "mount-again" => drop(layers.mount(container().as_str()).unwrap()),
            "unmount" | "unmount-again" => layers.unmount(container().as_str(), false).unwrap(),
            "delete-layer" => layers.delete(numbered(0).as_str()).unwrap(),
            _ if step.starts_with("import-") => make_layer(&storage, &numbered(files()), None, &tar),
            _ if step.starts_with("delete-") => layers.delete(numbered(files()).as_str()).unwrap(),
            _ => panic!("{step}"),
        }
    }
    begin("end");
    storage.close().unwrap();
}

/// Runs the steps; gives what each of them asked of the system.
fn trace(place: &Path, steps: &str) -> BTreeMap<String, Step> {
    let log = place.join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-s", "64", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "work", "--test-threads=1"])
        .env(STEPS, steps)
        .env(PLACE, place)
        .output()
        .unwrap();
    assert!(output.status.success(), "{steps}: {}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    let mut all = BTreeMap::<String, Step>::new();
    let (mut current, mut caller) = (None, "");
    for line in text.lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        // Neither the end of an interrupted call nor a signal.
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if call.contains(['<', '+', '-']) {
            continue;
        }
        if let Some((_, mark)) = arguments.split_once(MARK) {
            current = Some(mark.split('"').next().unwrap().to_owned());
            caller = thread;
            continue;
        }
        let Some(step) = &current else { continue };
        if UNSTEADY.contains(&call) {
            continue;
        }
        let counts = all.entry(step.clone()).or_default();
        *counts.all.entry(call.to_owned()).or_default() += 1;
        if thread == caller {
            *counts.own.entry(call.to_owned()).or_default() += 1;
        }
    }
    for step in steps.split(' ').chain([OPEN]) {
        all.entry(step.to_owned()).or_default();
    }
    all
}

/// A storage with many images, and a chain with a container on top.
fn storage(size: Size, depth: usize) -> TestRoot {
    let place = TestRoot::in_memory("growth");
    std::fs::create_dir(place.join("run")).unwrap();
    let root = place.join("root");
    store::make(&root, size);
    let mut chain = Chain::default();
    (0..depth).for_each(|layer| chain.push(&root, &format!("chain {layer}"), layer));
    store::container(&root, container().as_str(), &chain);
    // The first start makes what is missing.
    trace(place.path(), "start");
    place
}

const NO_IMAGES: Size = Size { images: 0, layers: 0 };

fn sum(calls: &Calls, wanted: &[&str]) -> i64 {
    wanted.iter().filter_map(|call| calls.get(*call)).sum()
}

const SYNCS: &[&str] = &["fsync", "fdatasync", "syncfs", "sync_file_range", "sync"];

fn total(calls: &Calls) -> i64 {
    calls.values().sum()
}

#[test]
fn a_start_makes_few_calls_for_each_image_and_layer() {
    if !common::need_root() {
        return;
    }
    let open = |images, layers| {
        let place = storage(Size { images, layers }, 0);
        total(&trace(place.path(), "start")[OPEN].all)
    };
    let few = open(100, 100);
    let layers = open(100, 300) - few;
    // It is looked at, opened, read and closed; its tar-split is looked at; its short name is read. The rest is for reading
    // directories.
    assert!((200 * 6..=200 * 6 + 60).contains(&layers), "{layers} calls for 200 layers");
    let images = open(300, 300) - few - layers;
    // The directory is opened, listed and closed; three files are opened, read and closed.
    assert!((200 * 13..=200 * 13 + 60).contains(&images), "{images} calls for 200 images");
}

#[test]
fn only_a_start_asks_more_of_the_system_among_many_images() {
    if !common::need_root() {
        return;
    }
    let steps = "lookup list create big-data add-name set-names delete-image layer container mount unmount delete-layer";
    let traced = |images| trace(storage(Size { images, layers: images }, 5).path(), steps);
    let (few, many) = (traced(100), traced(5000));
    for step in steps.split(' ') {
        assert_eq!(few[step].own, many[step].own, "{step}");
    }
    for step in ["lookup", "list"] {
        assert_eq!(few[step].all, Calls::new(), "{step}");
    }
    // A record is the file and the directory that it is renamed in; a new image's directory also has to be found again.
    // Big data come before the record that names them.
    for (step, least) in [("create", 3), ("add-name", 2), ("set-names", 2), ("big-data", 4)] {
        assert_eq!(sum(&many[step].all, SYNCS), least, "{step}");
    }
}

#[test]
fn a_long_chain_costs_a_layer_no_more_calls_than_a_short_one() {
    if !common::need_root() {
        return;
    }
    let steps = "layer container mount unmount mount-again unmount-again delete-layer";
    let traced = |depth| trace(storage(NO_IMAGES, depth).path(), steps);
    let (short, long) = (traced(5), traced(120));
    for step in ["layer", "container", "unmount", "unmount-again", "delete-layer"] {
        assert_eq!(short[step].own, long[step].own, "{step}");
    }
    // A mount looks where each short name leads and at the directory there, and tells the kernel.
    for step in ["mount", "mount-again"] {
        let (short, long) = (&short[step].own, &long[step].own);
        assert!(total(long) - total(short) <= 115 * 3, "{step}: {short:?} {long:?}");
    }
    // Without the five lower layers, three calls for each: 8 calls that mount, 2 that say where and what; the layer, its
    // directories and its list of lowers are looked at, and the count of mounts is saved.
    assert!(total(&short["mount-again"].own) - 5 * 3 <= 25, "{short:?}");
    assert!(total(&short["unmount-again"].own) <= 11, "{short:?}");
}

#[test]
fn an_import_asks_for_each_file_the_same_however_many_there_are() {
    if !common::need_root() {
        return;
    }
    let traced = trace(storage(NO_IMAGES, 0).path(), "import-1000 import-3000 import-9000");
    let per_file = |more: usize, less: usize| {
        let of = |files: usize| {
            let calls = &traced[&format!("import-{files}")].all;
            // How full the buffers between the threads are is the scheduler's.
            calls.iter().filter(|(call, _)| *call != "write").map(|(_, count)| count).sum::<i64>()
        };
        f64::from(i32::try_from(of(more) - of(less)).unwrap())
            / f64::from(u32::try_from(more - less).unwrap())
    };
    let (first, then) = (per_file(3000, 1000), per_file(9000, 3000));
    assert!(first < 8.0 && (first - then).abs() < 0.05, "{first} {then}");
}

#[test]
fn a_delete_asks_the_same_for_a_large_layer_as_for_a_small_one() {
    if !common::need_root() {
        return;
    }
    let traced = trace(storage(NO_IMAGES, 0).path(), "import-10 import-5000 delete-10 delete-5000");
    assert_eq!(traced["delete-10"].own, traced["delete-5000"].own);
}
