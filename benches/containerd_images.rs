// SPDX-License-Identifier: MulanPSL-2.0
//! Files of ten thousand images, of both schemas, beside their goals and beside what a durable change cannot undercut: the
//! same bytes written and synced in the same order without anything around them.
//!
//! | setting | default | what |
//! |---|---|---|
//! | `IMAGES` | 10000 | images in a file |
//! | `ROUNDS` | 5 | how often each is measured; the fastest counts |
//! | `CREATES` | 100 | durable changes |
//! | `DIR` | the system's directory for temporary files | where the files lie: on a disk, or a sync costs nothing |
//!
//! Nothing passes or fails by time: the numbers are for people.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "benchmark"
)]
#![allow(clippy::print_stdout, reason = "benchmark")]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "calls the library as C does")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::TestRoot;
use isula_storage::ffi::containerd_images::{
    containerd_images_clear_image, containerd_images_clear_list, containerd_images_close,
    containerd_images_get, containerd_images_list, containerd_images_open,
};
use isula_storage::ffi::containerd_images_namespaced::{
    containerd_images_namespaced_clear_image, containerd_images_namespaced_clear_list,
    containerd_images_namespaced_close, containerd_images_namespaced_get, containerd_images_namespaced_list,
    containerd_images_namespaced_open,
};
use isula_storage::ffi::types::{
    CContainerdImage, CContainerdImageList, CContainerdImagesOptions, CContainerdNamespacedImage,
    CContainerdNamespacedList,
};
use isula_storage::metadata::{
    Access, Filters, ImageFile, NamespacedFile, NamespacedImage, Options, Target, is_not_found,
};
use isula_storage::persist::Durability;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

const NAMESPACE: &str = "default";

fn name(number: usize) -> String {
    format!("registry.example.org/team{}/service-{number}:1.{}.0", number % 97, number % 13)
}

fn target(number: usize) -> Target {
    Target {
        media_type: "application/vnd.docker.distribution.manifest.list.v2+json".to_owned(),
        digest: format!("sha256:{number:064x}"),
        size: i64::try_from(number).unwrap() + 1,
    }
}

fn image(number: usize) -> NamespacedImage {
    NamespacedImage { name: name(number), target: target(number), ..NamespacedImage::default() }
        .with_labels([("io.cri-containerd.image", "managed")])
}

/// Seconds of the fastest of several runs.
fn fastest(rounds: usize, mut body: impl FnMut()) -> f64 {
    let run = |_| {
        let begun = Instant::now();
        body();
        begun.elapsed().as_secs_f64()
    };
    (0..rounds).map(run).fold(f64::INFINITY, f64::min)
}

fn row(what: &str, measured: f64, unit: &str, goal: &str) {
    println!("| {what} | {measured:.2} {unit} | {goal} |");
}

fn options(access: Access, durability: Durability) -> Options {
    Options { access, durability, ..Options::default() }
}

struct Sizes {
    images: usize,
    rounds: usize,
    creates: usize,
}

/// Lists all images, and gives their number.
type List<'a> = &'a mut dyn FnMut() -> usize;
/// Gets one.
type Get<'a> = &'a mut dyn FnMut(&CStr);

/// What both schemas are asked for, in a form that can be measured alike.
trait Images: Sized {
    const TITLE: &'static str;
    fn open(path: &Path, options: &Options) -> Self;
    fn fill(&self, count: usize);
    fn begin_writing(&self);
    fn count(&self) -> usize;
    fn get_many(&self, names: &[String]);
    fn miss_many(&self, names: &[String]);
    fn get_many_in_one(&self, names: &[String]);
    fn create(&self, number: usize);
    /// Calls `measure` with a list, and a get of one name, through C, each with freeing.
    fn through_c(path: &CStr, measure: &mut dyn FnMut(List<'_>, Get<'_>));
}

const READ_ONLY: CContainerdImagesOptions =
    CContainerdImagesOptions { read_only: true, no_sync: false, timeout_ms: 0 };

impl Images for ImageFile {
    const TITLE: &'static str = "names of images only";
    fn open(path: &Path, options: &Options) -> Self {
        ImageFile::open(path, options).unwrap()
    }
    fn fill(&self, count: usize) {
        self.init().unwrap();
        let mut transaction = self.begin_write().unwrap();
        (0..count).for_each(|number| transaction.put(name(number).as_bytes(), &target(number)).unwrap());
        transaction.commit().unwrap();
    }
    fn begin_writing(&self) {
        drop(self.begin_write().unwrap());
    }
    fn count(&self) -> usize {
        self.list().unwrap().len()
    }
    fn get_many(&self, names: &[String]) {
        for name in names {
            black_box(self.get(name.as_bytes()).unwrap());
        }
    }
    fn miss_many(&self, names: &[String]) {
        for name in names {
            assert!(is_not_found(&self.get(name.as_bytes()).unwrap_err()));
        }
    }
    fn get_many_in_one(&self, names: &[String]) {
        let transaction = self.begin();
        for name in names {
            black_box(transaction.get(name.as_bytes()).unwrap());
        }
    }
    fn create(&self, number: usize) {
        self.put(name(number).as_bytes(), &target(number)).unwrap();
    }
    fn through_c(path: &CStr, measure: &mut dyn FnMut(List<'_>, Get<'_>)) {
        // SAFETY: strings and structs that are whole; what comes is cleared once.
        let file = unsafe { containerd_images_open(path.as_ptr(), &READ_ONLY) };
        assert!(!file.is_null());
        measure(
            &mut || unsafe {
                let mut list: CContainerdImageList = std::mem::zeroed();
                assert_eq!(containerd_images_list(file, &raw mut list), 0);
                let len = list.images_len;
                containerd_images_clear_list(&raw mut list);
                len
            },
            &mut |name| unsafe {
                let mut image: CContainerdImage = std::mem::zeroed();
                assert_eq!(containerd_images_get(file, name.as_ptr(), -1, &raw mut image), 0);
                containerd_images_clear_image(&raw mut image);
            },
        );
        containerd_images_close(file);
    }
}

impl Images for NamespacedFile {
    const TITLE: &'static str = "namespaces, labels and times";
    fn open(path: &Path, options: &Options) -> Self {
        NamespacedFile::open(path, options).unwrap()
    }
    fn fill(&self, count: usize) {
        let mut transaction = self.begin_write().unwrap();
        for number in 0..count {
            transaction.create(NAMESPACE, &image(number)).unwrap();
        }
        transaction.commit().unwrap();
    }
    fn begin_writing(&self) {
        drop(self.begin_write().unwrap());
    }
    fn count(&self) -> usize {
        self.list(NAMESPACE, &Filters::default()).unwrap().images.len()
    }
    fn get_many(&self, names: &[String]) {
        for name in names {
            black_box(self.get(NAMESPACE, name).unwrap());
        }
    }
    fn miss_many(&self, names: &[String]) {
        for name in names {
            assert!(is_not_found(&self.get(NAMESPACE, name).unwrap_err()));
        }
    }
    fn get_many_in_one(&self, names: &[String]) {
        let transaction = self.begin();
        for name in names {
            black_box(transaction.get(NAMESPACE, name).unwrap());
        }
    }
    fn create(&self, number: usize) {
        NamespacedFile::create(self, NAMESPACE, &image(number)).unwrap();
    }
    fn through_c(path: &CStr, measure: &mut dyn FnMut(List<'_>, Get<'_>)) {
        let namespace = CString::new(NAMESPACE).unwrap();
        // SAFETY: strings and structs that are whole; what comes is cleared once.
        let file = unsafe { containerd_images_namespaced_open(path.as_ptr(), &READ_ONLY) };
        assert!(!file.is_null());
        measure(
            &mut || unsafe {
                let mut list: CContainerdNamespacedList = std::mem::zeroed();
                let none = std::ptr::null();
                let listed =
                    containerd_images_namespaced_list(file, namespace.as_ptr(), none, 0, &raw mut list);
                assert_eq!(listed, 0);
                let len = list.images_len;
                containerd_images_namespaced_clear_list(&raw mut list);
                len
            },
            &mut |name| unsafe {
                let mut image: CContainerdNamespacedImage = std::mem::zeroed();
                let namespace = namespace.as_ptr();
                let got = containerd_images_namespaced_get(file, namespace, name.as_ptr(), &raw mut image);
                assert_eq!(got, 0);
                containerd_images_namespaced_clear_image(&raw mut image);
            },
        );
        containerd_images_namespaced_close(file);
    }
}

fn measure<I: Images>(dir: &Path, sizes: &Sizes) {
    let path = dir.join("images.db");
    let made = Instant::now();
    I::open(&path, &options(Access::ReadWrite, Durability::Full)).fill(sizes.images);
    let made = made.elapsed().as_secs_f64();
    let length = std::fs::metadata(&path).unwrap().len();
    println!("\n{} images, {}: {:.1} MiB\n", sizes.images, I::TITLE, length as f64 / f64::from(1 << 20));
    println!("| what | measured | goal |\n|---|---|---|");
    row("make all in one transaction", made * 1e3, "ms", "");

    let reading = options(Access::ReadOnly, Durability::Full);
    let open = fastest(sizes.rounds, || drop(I::open(&path, &reading)));
    row("open to read", open * 1e3, "ms", "< 300 ms");
    let open = fastest(sizes.rounds, || {
        I::open(&path, &options(Access::ReadWrite, Durability::Full)).begin_writing();
    });
    row("open to write, with the check of the whole file", open * 1e3, "ms", "< 300 ms");
    let cold = fastest(sizes.rounds, || assert_eq!(I::open(&path, &reading).count(), sizes.images));
    row("open and list", cold * 1e3, "ms", "< 320 ms");
    let file = I::open(&path, &reading);
    let list = fastest(sizes.rounds, || assert_eq!(file.count(), sizes.images));
    row("list", list * 1e3, "ms", "< 20 ms");
    // In an order that has nothing to do with that of the names.
    let names: Vec<String> = (0..sizes.images).map(|number| name(number * 7919 % sizes.images)).collect();
    let each = |seconds: f64| seconds * 1e6 / names.len() as f64;
    let get = fastest(sizes.rounds, || file.get_many(&names));
    row("get, each in a transaction of its own", each(get), "µs", "< 2 µs");
    let get = fastest(sizes.rounds, || file.get_many_in_one(&names));
    row("get, all in one transaction", each(get), "µs", "< 2 µs");
    let absent: Vec<String> = names.iter().map(|name| format!("{name}x")).collect();
    let miss = fastest(sizes.rounds, || file.miss_many(&absent));
    row("look for what is not there", each(miss), "µs", "< 2 µs");
    drop(file);
    let c_names: Vec<CString> = names.iter().map(|name| CString::new(name.as_str()).unwrap()).collect();
    let c_path = CString::new(path.to_str().unwrap()).unwrap();
    I::through_c(&c_path, &mut |list, get| {
        let listed = fastest(sizes.rounds, || assert_eq!(list(), sizes.images));
        row("list through C, with freeing", listed * 1e3, "ms", "< 20 ms");
        let got = fastest(sizes.rounds, || c_names.iter().for_each(|name| get(name)));
        row("get through C, with freeing", each(got), "µs", "< 2 µs");
    });

    let file = I::open(&path, &options(Access::ReadWrite, Durability::Full));
    file.begin_writing();
    let (before, blocks) = (written(), blocks_of(&path));
    let create = fastest(1, || (0..sizes.creates).for_each(|number| file.create(sizes.images + number)));
    let bytes = (written() - before) / sizes.creates;
    let per_create = create * 1e6 / sizes.creates as f64;
    let grows = blocks_of(&path) > blocks;
    let floor = floor(dir, sizes.creates, bytes, grows) * 1e6 / sizes.creates as f64;
    let where_to = if grows { "where the file had none" } else { "in place" };
    let goal = format!("{floor:.2} µs: {bytes} bytes {where_to}, sync, a page, sync");
    row("durable create", per_create, "µs", &goal);
    drop(file);
    let file = I::open(&path, &options(Access::ReadWrite, Durability::None));
    file.begin_writing();
    let first = sizes.images + sizes.creates;
    let create = fastest(1, || (0..sizes.creates).for_each(|number| file.create(first + number)));
    row("create without syncs", create * 1e6 / sizes.creates as f64, "µs", "");
}

/// Bytes that this process has handed to `write` so far.
fn written() -> usize {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn blocks_of(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks()
}

/// Seconds for as many pairs of a write and a sync: `bytes` somewhere, then a meta page. A file that grows needs blocks from
/// its file system, which then syncs more than the bytes.
fn floor(dir: &Path, count: usize, bytes: usize, grows: bool) -> f64 {
    const PAGE: usize = 4096;
    let pages = bytes.saturating_sub(PAGE).div_ceil(PAGE).max(1);
    let file = File::options().read(true).write(true).create_new(true).open(dir.join("floor")).unwrap();
    let places = 1000u64;
    file.write_all_at(&vec![1; (usize::try_from(places).unwrap() + pages) * PAGE], 0).unwrap();
    let mut end = 2 + places;
    if grows {
        file.set_len(64 << 20).unwrap();
    }
    file.sync_all().unwrap();
    let page = vec![2; PAGE];
    let mut place = 1;
    fastest(1, || {
        for number in 0..u64::try_from(count).unwrap() {
            for _ in 0..pages {
                place = (place * 7919 + 13) % places;
                end += 1;
                let at = if grows { end } else { 2 + place };
                file.write_all_at(&page, at * u64::try_from(PAGE).unwrap()).unwrap();
            }
            file.sync_data().unwrap();
            file.write_all_at(&page, number % 2 * u64::try_from(PAGE).unwrap()).unwrap();
            file.sync_data().unwrap();
        }
    })
}

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let sizes = Sizes {
        images: setting("IMAGES", 10_000),
        rounds: setting("ROUNDS", 5).max(1),
        creates: setting("CREATES", 100).max(1),
    };
    let parent = std::env::var_os("DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    for schema in ["plain", "namespaced"] {
        let root = TestRoot::below(&parent, schema);
        match schema {
            "plain" => measure::<ImageFile>(root.path(), &sizes),
            _ => measure::<NamespacedFile>(root.path(), &sizes),
        }
    }
}
