// SPDX-License-Identifier: MulanPSL-2.0
//! Ten thousand images in Docker's image store: what each operation takes, beside the system calls that it cannot do
//! without, measured in the same run, and beside what Docker's own store took.
//!
//! | setting | default | what |
//! |---|---|---|
//! | `IMAGES` | 10000 | how many |
//! | `ROUNDS` | 5 | how often reading is measured; the fastest counts |
//! | `DIR` | `/dev/shm` | where the store lies |
//! | `DISK` | the directory for temporary files | where durable creates are measured: a real disk |
//! | `CREATES` | 300 | how many of these |
//!
//! Nothing passes or fails by time: the numbers are for people.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "benchmark"
)]
#![allow(clippy::print_stdout, reason = "benchmark")]
#![allow(unsafe_code, reason = "calls the library as C does")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::ffi::CString;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use common::TestRoot;
use isula_storage::digest::Digest;
use isula_storage::ffi::docker_image_lists::{
    docker_image_store_free_image, docker_image_store_free_images, docker_image_store_heads,
    docker_image_store_map,
};
use isula_storage::ffi::docker_image_store::{
    docker_image_store_close, docker_image_store_get, docker_image_store_open,
};
use isula_storage::ffi::types::{CDockerImageStoreOptions, DOCKER_IMAGE_LAYERS_NONE};
use isula_storage::imagedb::{ImageDb, ImageDbOptions, NoLayers};
use isula_storage::storage::{Durability, Ownership};

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// A config of 4 KiB, as those of real images are.
fn config(number: usize) -> Vec<u8> {
    let history: Vec<String> = (0..12)
        .map(|step| {
            format!(
                r#"{{"created":"2026-11-21T07:56:35.617811787Z","created_by":"/bin/sh -c #(nop) step {step} of image {number}: {step:0200}","empty_layer":true}}"#
            )
        })
        .collect();
    let mut text = format!(
        r#"{{"created":"2026-11-21T07:56:35.56416691Z","architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin:/usr/bin"],"Cmd":["/bin/sh"],"Labels":{{"a":"b"}}}},"rootfs":{{"type":"layers","diff_ids":[]}},"history":[{}],"padding":""#,
        history.join(",")
    );
    while text.len() < 4094 {
        text.push('x');
    }
    (text + "\"}").into_bytes()
}

fn open(root: &Path, durability: Durability) -> ImageDb {
    let ownership = Ownership::Owner;
    let options = ImageDbOptions { root: root.to_owned(), ownership, durability, layers: Arc::new(NoLayers) };
    let db = ImageDb::open(options).unwrap();
    assert_eq!(db.problems(), []);
    db
}

/// Milliseconds of the fastest of some rounds.
fn fastest<T>(rounds: usize, mut action: impl FnMut() -> T) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        black_box(action());
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    best
}

fn row(what: &str, ours: String, floor: String, docker: &str) {
    println!("{what:<34} {ours:>14} {floor:>34} {docker:>22}");
}

/// A file that is there after a power cut, and nothing else: written beside its place, flushed, renamed, flushed.
fn durable_file(dir: &Path, handle: &File, name: &str, content: &[u8]) {
    let temporary = dir.join(format!(".{name}"));
    let mut file = File::create(&temporary).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    fs::rename(&temporary, dir.join(name)).unwrap();
    handle.sync_all().unwrap();
}

fn creates() {
    let disk = std::env::var_os("DISK").map_or_else(std::env::temp_dir, Into::into);
    let count = setting("CREATES", 300);
    let place = TestRoot::below(&disk, "bench-docker");
    let db = open(&place.join("store"), Durability::Full);
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    let handle = File::open(&plain).unwrap();
    // In turn, so that both see the same disk.
    let (mut ours, mut floor) = (0.0, 0.0);
    for number in 0..count {
        let config = config(number);
        let start = Instant::now();
        db.create(&config).unwrap();
        ours += start.elapsed().as_secs_f64();
        let start = Instant::now();
        durable_file(&plain, &handle, &Digest::of(&config).hex(), &config);
        floor += start.elapsed().as_secs_f64();
    }
    let each = |seconds: f64| format!("{:.2} ms", seconds * 1e3 / count as f64);
    row("durable create, each", each(ours), format!("{} (2 fsyncs)", each(floor)), "3.3 ms (1 fsync)");
}

fn through_c(root: &Path, ids: &[Digest], rounds: usize) {
    let root = CString::new(root.to_str().unwrap()).unwrap();
    let options = CDockerImageStoreOptions {
        size: size_of::<CDockerImageStoreOptions>(),
        read_only: true,
        no_sync: false,
        layers: DOCKER_IMAGE_LAYERS_NONE,
    };
    // SAFETY: a string, a struct that is whole, and no layers, as these options say.
    let store = unsafe { docker_image_store_open(root.as_ptr(), &raw const options, std::ptr::null()) };
    assert!(!store.is_null());
    for (what, list) in [
        ("map through C, with freeing", docker_image_store_map as unsafe extern "C" fn(_, _, _) -> _),
        ("heads through C, with freeing", docker_image_store_heads),
    ] {
        let took = fastest(rounds, || {
            let (mut images, mut len) = (std::ptr::null_mut(), 0);
            // SAFETY: an open store and two places to write to; what comes is freed once.
            unsafe {
                assert_eq!(list(store, &raw mut images, &raw mut len), 0);
                docker_image_store_free_images(images, len);
            }
        });
        row(what, format!("{took:.1} ms"), String::new(), "");
    }
    let ids: Vec<CString> = ids.iter().map(|id| CString::new(id.to_string()).unwrap()).collect();
    let took = fastest(rounds, || {
        for id in &ids {
            // SAFETY: an open store and a string; what comes is freed once.
            unsafe {
                let image = docker_image_store_get(store, id.as_ptr());
                assert!(!image.is_null());
                docker_image_store_free_image(image);
            }
        }
    });
    let each = took * 1e3 / ids.len() as f64;
    row("get through C, with freeing, each", format!("{each:.1} µs"), String::new(), "");
    docker_image_store_close(store);
}

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let (count, rounds) = (setting("IMAGES", 10_000), setting("ROUNDS", 5).max(1));
    let dir = std::env::var_os("DIR").unwrap_or_else(|| "/dev/shm".into());
    println!("{count} images of 4 KiB");
    println!("{:<34} {:>14} {:>34} {:>22}", "", "here", "floor", "Docker 23, 10000");
    creates();

    let place = TestRoot::below(Path::new(&dir), "bench-docker");
    let root = place.join("store");
    let db = open(&root, Durability::None);
    let start = Instant::now();
    let ids: Vec<Digest> = (0..count).map(|number| db.create(&config(number)).unwrap()).collect();
    for pair in ids.chunks_exact(2) {
        db.set_parent(&pair[1], &pair[0]).unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    row(
        "create all, set parent of half",
        format!("{took:.2} s"),
        "nothing is flushed".into(),
        "32.9 s (flushed)",
    );
    db.close();

    let content = root.join("imagedb/content/sha256");
    let read_all = || {
        let mut digests = Vec::with_capacity(count);
        for entry in fs::read_dir(&content).unwrap() {
            digests.push(Digest::of(&fs::read(entry.unwrap().path()).unwrap()));
        }
        digests
    };
    let floor = fastest(rounds, read_all);
    let took = fastest(rounds, || open(&root, Durability::None));
    let text = format!("{floor:.0} ms (read, hash; one thread)");
    row("open", format!("{took:.0} ms"), text, "2003 ms");

    let db = open(&root, Durability::None);
    let stat_all = |heads: bool| {
        let handle = File::open(&content).unwrap();
        let mut sizes = 0;
        for id in ids.iter().skip(usize::from(heads)).step_by(1 + usize::from(heads)) {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            sizes += rustix::fs::statat(&handle, id.hex(), flags).unwrap().st_size;
        }
        sizes
    };
    let floor = fastest(rounds, || stat_all(false));
    let took = fastest(rounds, || assert_eq!(db.map().len(), count));
    row("map", format!("{took:.1} ms"), format!("{floor:.1} ms (stat)"), "1559 ms");
    let floor = fastest(rounds, || stat_all(true));
    let took = fastest(rounds, || assert_eq!(db.heads().len(), count.div_ceil(2)));
    row("heads", format!("{took:.1} ms"), format!("{floor:.1} ms (stat)"), "1047 ms");

    let terms: Vec<String> = ids.iter().map(|id| id.hex()[..12].to_owned()).collect();
    let took = fastest(rounds, || {
        for (term, id) in terms.iter().zip(&ids) {
            assert_eq!(db.search(term).unwrap(), *id);
        }
    });
    row("search by 12 digits, each", format!("{:.2} µs", took * 1e3 / count as f64), String::new(), "");
    let took = fastest(rounds, || {
        for id in &ids {
            black_box(db.get_with_bytes(id).unwrap());
        }
    });
    row("get, verified, each", format!("{:.1} µs", took * 1e3 / count as f64), String::new(), "");
    let start = Instant::now();
    for id in &ids {
        db.delete(id).unwrap();
    }
    let took = start.elapsed().as_secs_f64() * 1e6 / count as f64;
    row("delete, each", format!("{took:.0} µs"), "nothing is flushed".into(), "");
    for number in 0..count {
        db.create(&config(number)).unwrap();
    }
    db.close();
    through_c(&root, &ids, rounds);
}
