// SPDX-License-Identifier: MulanPSL-2.0
//! Changes of images beside their bare writes and syncs, deletion beside `rm -rf`, imports of more and more.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use isula_storage::image::CreateImage;
use isula_storage::persist::Durability;
use isula_storage::storage::{ImportOptions, Storage, StorageOptions};
use rustix::fs::fsync;
use serde_json::json;

use crate::cli_support::common::{LoopExt4, loop_ext4, run};
use crate::cli_support::images::{Layout, Tar, config};
use crate::store::{self, Chain, Size};
use crate::{open, room, verdict};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

fn least(best: &mut f64, action: impl FnOnce()) {
    let start = Instant::now();
    action();
    *best = best.min(start.elapsed().as_secs_f64() * 1e6);
}

/// The steps that one durable replacement of a record cannot do without.
fn bare(dir: &Path, name: &str, content: &[u8]) {
    let temporary = dir.join(".bare");
    let mut file = fs::File::create(&temporary).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    fs::rename(&temporary, dir.join(name)).unwrap();
    fsync(fs::File::open(dir).unwrap().as_fd()).unwrap();
}

/// A file system for so many inodes. A new one has one for each 16 KiB, most of which are never touched.
fn disk_for(inodes: usize) -> LoopExt4 {
    loop_ext4((inodes as u64 + 10_000) << 14)
}

/// `create` and `add_name`, on a loop-mounted ext4.
pub(crate) fn images(sizes: &[Size], rounds: usize) {
    println!(
        "\n{:<28} {:>10} {:>10} {:>8} {:>14}",
        "change of an image, µs", "bare", "ours", "x bare", "goal"
    );
    for size in sizes {
        let disk = disk_for(size.images * 5 + size.layers * 11);
        let (root, run_root) = (disk.join("root"), disk.join("run"));
        fs::create_dir(&run_root).unwrap();
        let ids = store::make(&root, *size);
        run(Command::new("sync").arg("-f").arg(&root));
        let storage = open(StorageOptions::new(&root, &run_root));
        let images = storage.images();
        let (mut create, mut bare_create, mut name, mut bare_name) = (f64::MAX, f64::MAX, f64::MAX, f64::MAX);
        let all = root.join("overlay-images");
        for number in 0..rounds * 60 {
            let image = CreateImage { names: vec![format!("new:{number}")], ..CreateImage::default() };
            least(&mut create, || drop(images.create(&image).unwrap()));
            // Among the same many directories; the store leaves hidden ones alone.
            least(&mut bare_create, || {
                let dir = all.join(format!(".bare-{number}"));
                fs::create_dir(&dir).unwrap();
                bare(&dir, "record", &[b'x'; 400]);
                fsync(fs::File::open(&all).unwrap().as_fd()).unwrap();
            });
            least(&mut name, || {
                images.add_name(&ids[number % ids.len()], &format!("more:{number}")).unwrap()
            });
            // In a directory that nothing was written to just now, as the other.
            let dir = all.join(&ids[(number + ids.len() / 2) % ids.len()]);
            let record = fs::read(dir.join("images.json")).unwrap();
            least(&mut bare_name, || bare(&dir, "images.json", &record));
        }
        for (what, bare, ours) in [("create", bare_create, create), ("add_name", bare_name, name)] {
            let ratio = ours / bare;
            println!(
                "{:<28} {bare:>10.0} {ours:>10.0} {ratio:>8.2} {:>14}",
                format!("{what} among {}", size.images),
                verdict("x 1.05", ratio <= 1.05)
            );
        }
        storage.close().unwrap();
    }
}

fn fill(dir: &Path, entries: usize) {
    for number in 0..entries / 100 {
        let below = dir.join(number.to_string());
        fs::create_dir(&below).unwrap();
        (1..100).for_each(|file| fs::write(below.join(file.to_string()), b"some content").unwrap());
    }
}

/// Deletion of a large layer, on a loop-mounted ext4.
pub(crate) fn deletion(entries: usize, rounds: usize) {
    let disk = disk_for(entries * 2);
    let (root, run_root, other) = (disk.join("root"), disk.join("run"), disk.join("other"));
    fs::create_dir(&run_root).unwrap();
    let (mut call, mut all, mut rm) = (f64::MAX, f64::MAX, f64::MAX);
    for round in 0..rounds {
        store::make(&root, Size { images: 0, layers: 0 });
        let mut chain = Chain::default();
        chain.push(&root, &round.to_string(), 1);
        let id = chain.layers[0].to_string();
        fill(&root.join("overlay").join(&id).join("diff"), entries);
        fs::create_dir(&other).unwrap();
        fill(&other, entries);
        run(Command::new("sync").arg("-f").arg(&root));
        // No image has the layer: reported, and left alone.
        let storage = Storage::open(StorageOptions::new(&root, &run_root)).unwrap();
        least(&mut all, || {
            least(&mut call, || storage.layers().delete(&id).unwrap());
            storage.close().unwrap();
        });
        least(&mut rm, || run(Command::new("rm").arg("-rf").arg(&other)));
        run(Command::new("sync").arg("-f").arg(&root));
    }
    println!("\n{:<28} {:>10} {:>10} {:>8} {:>14}", "deletion, ms", "rm -rf", "ours", "x rm", "goal");
    println!(
        "{:<28} {:>10} {:>10.2} {:>8} {:>14}",
        format!("returns, {entries} entries"),
        "",
        call / 1e3,
        "",
        verdict("5 ms", call <= 5e3)
    );
    println!(
        "{:<28} {:>10.0} {:>10.0} {:>8.2} {:>14}",
        "space is back",
        rm / 1e3,
        all / 1e3,
        all / rm,
        verdict("x 1.0", all <= rm)
    );
}

/// Microseconds by the clock, and of all threads' work.
fn import(layout: &Path, rounds: usize) -> (f64, f64) {
    let (mut best, mut work) = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let place = room("scale-import");
        let mut options = StorageOptions::new(place.join("root"), place.join("run"));
        options.durability = Durability::None;
        let storage = open(options);
        let before = cpu();
        least(&mut best, || drop(storage.import(layout, ImportOptions::default()).unwrap()));
        work = work.min(cpu() - before);
        storage.close().unwrap();
    }
    (best, work)
}

fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn layer(files: usize, seed: usize) -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    for number in 0..files {
        if number % 100 == 0 {
            tar.dir(&format!("d{seed}-{}/", number / 100));
        }
        tar.file(
            &format!("d{seed}-{}/f{number}", number / 100),
            format!("{number}\n").repeat(100).as_bytes(),
        );
    }
    tar.finish()
}

fn layout(dir: &Path, layers: Vec<Vec<u8>>) -> std::path::PathBuf {
    let mut layout = Layout::new(dir);
    let config = config(&layers);
    let layers: Vec<(&str, Vec<u8>)> = layers.into_iter().map(|layer| (PLAIN, layer)).collect();
    let manifest = json!(layout.image(&config, &layers));
    layout.list(manifest, Some("bench:1"), None);
    layout.finish()
}

/// GNU tar of the same plain layer.
fn untar(layer: &[u8], rounds: usize) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let place = room("scale-untar");
        let (archive, target) = (place.join("layer.tar"), place.join("target"));
        fs::write(&archive, layer).unwrap();
        fs::create_dir(&target).unwrap();
        least(&mut best, || run(Command::new("tar").arg("-xpf").arg(&archive).arg("-C").arg(&target)));
    }
    best
}

/// How much more one costs of many than of few.
const GROWTH: f64 = 1.1;

/// Imports of more and more files, and of longer and longer chains, on tmpfs.
pub(crate) fn imports(files: &[usize], depths: &[usize], rounds: usize) {
    println!(
        "\n{:<28} {:>10} {:>10} {:>8} {:>10} {:>10} {:>18}",
        "import, ms", "GNU tar", "ours", "x tar", "µs each", "CPU each", "goal"
    );
    let mut cheapest = f64::MAX;
    for &count in files {
        let work = room("scale-layout");
        let layer = layer(count, 0);
        let tar = untar(&layer, rounds);
        let (took, used) = import(&layout(&work.join("layout"), vec![layer]), rounds);
        let each = took / count as f64;
        println!(
            "{:<28} {:>10.1} {:>10.1} {:>8.2} {each:>10.2} {:>10.2} {:>18}",
            format!("{count} files"),
            tar / 1e3,
            took / 1e3,
            took / tar,
            used / count as f64,
            verdict("linear", each <= cheapest * GROWTH)
        );
        cheapest = cheapest.min(each);
    }
    let mut cheapest = f64::MAX;
    for &depth in depths {
        let work = room("scale-layout");
        let layers: Vec<_> = (0..depth).map(|seed| layer(20, seed)).collect();
        let tar: f64 = layers.iter().map(|layer| untar(layer, rounds)).sum();
        let (took, used) = import(&layout(&work.join("layout"), layers), rounds);
        let each = took / depth as f64;
        println!(
            "{:<28} {:>10.1} {:>10.1} {:>8.2} {each:>10.2} {:>10.2} {:>18}",
            format!("{depth} layers of 20 files"),
            tar / 1e3,
            took / 1e3,
            took / tar,
            used / depth as f64,
            verdict("no growth", each <= cheapest * GROWTH)
        );
        cheapest = cheapest.min(each);
    }
}

/// The layout of an image of one layer, for who needs something to import.
pub(crate) fn large(dir: &Path, files: usize, seed: usize) -> std::path::PathBuf {
    layout(dir, vec![layer(files, seed)])
}

/// Whether a storage has no problems.
pub(crate) fn is_clean(storage: &Storage) -> bool {
    storage.problems().is_empty()
}
