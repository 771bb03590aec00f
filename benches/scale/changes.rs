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

use crate::cli_support::common::{loop_ext4, run};
use crate::cli_support::images::{Layout, Tar, config};
use crate::store::{self, Chain, Size};
use crate::{open, room};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

fn least(best: &mut f64, action: impl FnOnce()) {
    let start = Instant::now();
    action();
    *best = best.min(start.elapsed().as_secs_f64() * 1e6);
}

/// The steps that one durable replacement of a record cannot do without.
fn bare(dir: &Path, name: &str, content: &[u8]) {
    let temporary = dir.join("bare");
    let mut file = fs::File::create(&temporary).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    fs::rename(&temporary, dir.join(name)).unwrap();
    fsync(fs::File::open(dir).unwrap().as_fd()).unwrap();
}

/// `create` and `add_name`, on a loop-mounted ext4.
pub(crate) fn images(sizes: &[Size], rounds: usize) {
    println!(
        "\n{:<24} {:>10} {:>10} {:>8} {:>6}",
        "change of an image, µs", "bare", "ours", "x bare", "goal"
    );
    for size in sizes {
        let disk = loop_ext4((size.images as u64 * 20 + size.layers as u64 * 36 + 65_536) << 10);
        let (root, run_root) = (disk.join("root"), disk.join("run"));
        fs::create_dir(&run_root).unwrap();
        let ids = store::make(&root, *size);
        run(Command::new("sync").arg("-f").arg(&root));
        let storage = open(StorageOptions::new(&root, &run_root));
        let images = storage.images();
        let (mut create, mut bare_create, mut name, mut bare_name) = (f64::MAX, f64::MAX, f64::MAX, f64::MAX);
        let spare = disk.join("bare");
        fs::create_dir(&spare).unwrap();
        for number in 0..rounds * 30 {
            let image = CreateImage { names: vec![format!("new:{number}")], ..CreateImage::default() };
            least(&mut create, || drop(images.create(&image).unwrap()));
            least(&mut bare_create, || {
                let dir = spare.join(number.to_string());
                fs::create_dir(&dir).unwrap();
                bare(&dir, "record", &[b'x'; 400]);
                fsync(fs::File::open(&spare).unwrap().as_fd()).unwrap();
            });
            let id = &ids[number % ids.len()];
            least(&mut name, || images.add_name(id, &format!("more:{number}")).unwrap());
            let dir = root.join("overlay-images").join(id);
            let record = fs::read(dir.join("images.json")).unwrap();
            least(&mut bare_name, || bare(&dir, "images.json", &record));
        }
        for (what, bare, ours) in [("create", bare_create, create), ("add_name", bare_name, name)] {
            let ratio = ours / bare;
            let met = if ratio <= 1.05 { "ok" } else { "NO" };
            println!(
                "{:<24} {bare:>10.0} {ours:>10.0} {ratio:>8.2} {met:>6}",
                format!("{what} among {}", size.images)
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
    let disk = loop_ext4((entries as u64 * 12 + 131_072) << 10);
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
        let storage = open(StorageOptions::new(&root, &run_root));
        least(&mut all, || {
            least(&mut call, || storage.layers().delete(&id).unwrap());
            storage.close().unwrap();
        });
        least(&mut rm, || run(Command::new("rm").arg("-rf").arg(&other)));
        run(Command::new("sync").arg("-f").arg(&root));
    }
    let verdict = |met: bool| if met { "ok" } else { "NO" };
    println!("\ndeletion of a layer of {entries} entries");
    println!("  call               {:>9.2} ms  goal 5   {}", call / 1e3, verdict(call <= 5e3));
    println!(
        "  space is back      {:>9.0} ms  rm -rf {:.0} ms, x {:.2}  {}",
        all / 1e3,
        rm / 1e3,
        all / rm,
        verdict(all <= rm)
    );
}

fn import(layout: &Path, rounds: usize) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let place = room("scale-import");
        let mut options = StorageOptions::new(place.join("root"), place.join("run"));
        options.durability = Durability::None;
        let storage = open(options);
        least(&mut best, || drop(storage.import(layout, ImportOptions::default()).unwrap()));
        storage.close().unwrap();
    }
    best
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

/// Imports of more and more files, and of longer and longer chains, on tmpfs.
pub(crate) fn imports(files: &[usize], depths: &[usize], rounds: usize) {
    println!("\n{:<24} {:>10} {:>14}", "import", "ms", "µs each");
    for &count in files {
        let work = room("scale-layout");
        let took = import(&layout(&work.join("layout"), vec![layer(count, 0)]), rounds);
        println!("{:<24} {:>10.1} {:>14.2}", format!("{count} files"), took / 1e3, took / count as f64);
    }
    for &depth in depths {
        let work = room("scale-layout");
        let layers = (0..depth).map(|seed| layer(20, seed)).collect();
        let took = import(&layout(&work.join("layout"), layers), rounds);
        println!(
            "{:<24} {:>10.1} {:>14.2}",
            format!("{depth} layers of 20 files"),
            took / 1e3,
            took / depth as f64
        );
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
