// SPDX-License-Identifier: MulanPSL-2.0
//! The layer engine beside what cannot be undercut: an image of five gzip layers is imported on a loop-mounted ext4 that
//! lies in memory, in turn with GNU tar, `gunzip`, `cp -a`, bare decompression and bare hashing of the same layers.
//!
//! `PERCENT` (100: 1.1 GB, 48,000 entries) says how large the image is, `ROUNDS` (5) how often, `IMAGE` in which
//! directory it is kept for the next run. Needs root. Nothing passes or fails by time: the numbers are for people.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "benchmark"
)]
#![allow(clippy::print_stdout, reason = "benchmark")]

#[path = "../tests/cli_support/mod.rs"]
mod cli_support;
#[path = "engine/image.rs"]
mod image;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cli_support::common::{self, TestRoot, run};
use image::Image;
use isula_storage::archive;
use isula_storage::digest::Digester;
use isula_storage::persist::Durability;
use isula_storage::storage::{ImportOptions, Storage, StorageOptions};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// What one run of a program took.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    peak_kib: u64,
}

/// A small interpreter stands between: the kernel counts what the parent had before `exec` as well.
fn cost(program: &Path, args: &[&std::ffi::OsStr]) -> Cost {
    const SCRIPT: &str = "import os, sys, time
start = time.monotonic()
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print(time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(status != 0)";
    let output = Command::new("python3")
        .args(["-I", "-S", "-c", SCRIPT])
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program:?} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.lines().last().unwrap().split_whitespace();
    let mut next = || numbers.next().unwrap();
    Cost { wall: next().parse().unwrap(), cpu: next().parse().unwrap(), peak_kib: next().parse().unwrap() }
}

fn shell(script: &str, args: &[&Path]) -> Cost {
    let mut all: Vec<&std::ffi::OsStr> = vec!["-euc".as_ref(), script.as_ref(), "sh".as_ref()];
    all.extend(args.iter().map(|arg| arg.as_os_str()));
    cost(Path::new("/bin/sh"), &all)
}

/// One of our own measurements, in a process of its own.
fn own(what: &str, args: &[&Path]) -> Cost {
    let mut all: Vec<&std::ffi::OsStr> = vec!["--own".as_ref(), what.as_ref()];
    all.extend(args.iter().map(|arg| arg.as_os_str()));
    cost(&std::env::current_exe().unwrap(), &all)
}

fn run_own(what: &str, args: &[String]) {
    match what {
        "inflate" => {
            for layer in args {
                let file = std::fs::File::open(layer).unwrap();
                let mut plain =
                    archive::decompressed(Box::new(std::io::BufReader::with_capacity(128 << 10, file)))
                        .unwrap();
                let mut buffer = vec![0; 128 << 10];
                while plain.read(&mut buffer).unwrap() != 0 {}
            }
        }
        "sha" => {
            let mut buffer = vec![0; 128 << 10];
            for layer in args {
                let mut file = std::fs::File::open(layer).unwrap();
                let mut digester = Digester::new();
                loop {
                    let len = file.read(&mut buffer).unwrap();
                    if len == 0 {
                        break;
                    }
                    digester.update(&buffer[..len]);
                }
                digester.finish();
            }
        }
        "import" | "import-durable" => {
            let [root, image] = args else { panic!("{args:?}") };
            let root = PathBuf::from(root);
            let mut options = StorageOptions::new(root.join("root"), root.join("run"));
            options.durability = if what == "import" { Durability::None } else { Durability::Full };
            let storage = Storage::open(options).unwrap();
            storage.import(Path::new(image), ImportOptions::default()).unwrap();
            storage.close().unwrap();
        }
        _ => panic!("{what}"),
    }
}

struct Bench {
    image: Image,
    disk: PathBuf,
}

impl Bench {
    fn measure(&self, what: &str) -> Cost {
        let paths = |layers: &[PathBuf]| -> Vec<PathBuf> { layers.to_vec() };
        let mut args: Vec<PathBuf> = Vec::new();
        let out = self.disk.join("out");
        let got = match what {
            "GNU tar, plain layers" => {
                args.push(out.clone());
                args.extend(paths(&self.image.plain));
                let script =
                    "o=$1; shift; n=0; for l; do n=$((n+1)); mkdir -p $o/$n; tar -xf $l -C $o/$n; done";
                shell(script, &args.iter().map(PathBuf::as_path).collect::<Vec<_>>())
            }
            "gunzip" => {
                args.extend(paths(&self.image.packed));
                let script = "for l; do gunzip -c $l > /dev/null; done";
                shell(script, &args.iter().map(PathBuf::as_path).collect::<Vec<_>>())
            }
            "cp -a of the tree" => {
                let tree = self.disk.join("tree");
                shell("cp -a $1 $2", &[&tree, &out])
            }
            "inflate" => own(what, &self.image.packed.iter().map(PathBuf::as_path).collect::<Vec<_>>()),
            "sha256" => own("sha", &self.image.plain.iter().map(PathBuf::as_path).collect::<Vec<_>>()),
            "import" | "import-durable" => own(what, &[&out, &self.image.layout]),
            _ => panic!("{what}"),
        };
        if out.exists() {
            if what.starts_with("GNU") && !self.disk.join("tree").exists() {
                std::fs::rename(&out, self.disk.join("tree")).unwrap();
            } else {
                std::fs::remove_dir_all(&out).unwrap();
            }
        }
        run(Command::new("sync").arg("-f").arg(&self.disk));
        got
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    // `cargo test --benches` only wants to know that it starts.
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    if let Some(at) = args.iter().position(|arg| arg == "--own") {
        return run_own(&args[at + 1], &args[at + 2..]);
    }
    let (percent, rounds) = (setting("PERCENT", 100), setting("ROUNDS", 5).max(1));
    let work = TestRoot::in_memory("engine");
    let image = match std::env::var_os("IMAGE") {
        None => Image::make(work.path(), percent),
        Some(dir) => {
            let dir = PathBuf::from(dir);
            if !dir.exists() {
                std::fs::create_dir(&dir).unwrap();
                Image::make(&dir, percent);
            }
            Image::open(&dir)
        }
    };
    println!(
        "{} entries, {} MB plain, {} rounds, {} cores",
        image.entries,
        image.bytes / 1_000_000,
        rounds,
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    let disk = common::loop_ext4(image.bytes * 2 + image.entries * 16384 + (256 << 20));
    let bench = Bench { image, disk: disk.path() };
    let all = [
        "GNU tar, plain layers",
        "gunzip",
        "import",
        "import-durable",
        "cp -a of the tree",
        "inflate",
        "sha256",
    ];
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); all.len()];
    // The first round is to warm up.
    for round in 0..=rounds {
        for (what, costs) in all.iter().zip(&mut costs) {
            let got = bench.measure(what);
            if round > 0 {
                costs.push(got);
            }
        }
    }
    println!("{:<24} {:>8} {:>8} {:>10} {:>8} {:>8}", "", "wall s", "CPU s", "peak KiB", "x tar", "x gunzip");
    let walls: Vec<f64> =
        costs.iter().map(|costs| median(costs.iter().map(|cost| cost.wall).collect())).collect();
    for ((what, costs), wall) in all.iter().zip(&costs).zip(&walls) {
        let cpu = median(costs.iter().map(|cost| cost.cpu).collect());
        let peak = costs.iter().map(|cost| cost.peak_kib).max().unwrap();
        let (tar, gunzip) = (wall / walls[0], wall / walls[1]);
        println!("{what:<24} {wall:>8.2} {cpu:>8.2} {peak:>10} {tar:>8.2} {gunzip:>8.2}");
    }
}
