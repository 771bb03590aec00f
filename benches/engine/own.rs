// SPDX-License-Identifier: MulanPSL-2.0
//! What is measured in a process of this program's own.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use isula_storage::persist::Durability;
use isula_storage::storage::{ImportOptions, Storage, StorageOptions};
use sha2::{Digest, Sha256};

use crate::cost;
use crate::untar::Plan;

const PIECE: usize = 128 << 10;

/// Runs it and prints wall and CPU seconds and the peak of memory in KiB. The first argument is where things go.
pub(crate) fn run(what: &str, args: &[String]) {
    let (out, layers) = (Path::new(&args[0]), &args[1..]);
    match what {
        "inflate" => timed(|| layers.iter().for_each(|layer| inflate(layer))),
        "sha256" => timed(|| layers.iter().for_each(|layer| sha256(layer))),
        "untar-1" | "untar-2" => {
            rustix::process::umask(rustix::fs::Mode::empty());
            let layers: Vec<Vec<u8>> = layers.iter().map(|layer| std::fs::read(layer).unwrap()).collect();
            let plans: Vec<Plan<'_>> = layers.iter().map(|layer| Plan::of(layer)).collect();
            let threads = if what == "untar-1" { 1 } else { 2 };
            std::fs::create_dir(out).unwrap();
            timed(|| {
                plans
                    .iter()
                    .enumerate()
                    .for_each(|(number, plan)| plan.carry_out(&out.join(number.to_string()), threads));
            });
        }
        "import" | "import-durable" => timed(|| {
            let mut options = StorageOptions::new(out.join("root"), out.join("run"));
            options.durability = if what == "import" { Durability::None } else { Durability::Full };
            let storage = Storage::open(options).unwrap();
            let image = PathBuf::from(&layers[0]);
            storage.import(&image, ImportOptions::default()).unwrap();
            storage.close().unwrap();
        }),
        _ => panic!("{what}"),
    }
}

fn timed(action: impl FnOnce()) {
    let pid = std::process::id();
    let (start, cpu) = (Instant::now(), own_cpu());
    action();
    println!("{} {} {}", start.elapsed().as_secs_f64(), own_cpu() - cpu, cost::peak_kib_of(pid));
}

/// Of all threads, also those that have ended.
fn own_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn inflate(layer: &str) {
    let file = std::io::BufReader::with_capacity(PIECE, File::open(layer).unwrap());
    let mut plain = flate2::bufread::MultiGzDecoder::new(file);
    let mut buffer = vec![0; PIECE];
    while plain.read(&mut buffer).unwrap() != 0 {}
}

fn sha256(layer: &str) {
    let mut file = File::open(layer).unwrap();
    let mut buffer = vec![0; PIECE];
    let mut summing = Sha256::new();
    loop {
        let len = file.read(&mut buffer).unwrap();
        if len == 0 {
            break;
        }
        summing.update(&buffer[..len]);
    }
    std::hint::black_box(summing.finalize());
}

pub(crate) fn nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}
