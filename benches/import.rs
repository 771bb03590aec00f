// SPDX-License-Identifier: MulanPSL-2.0
//! Import, export and removal of an image beside what GNU tar needs for the same layer, in the same run.
//!
//! `FILES` (5000) and `MIB` (100) say how large the image is, `DIR` where the store lies (the system's directory for
//! temporary files), `ROUNDS` (3) how often. Nothing passes or fails by time: the numbers are for people.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "benchmark"
)]
#![allow(clippy::print_stdout, reason = "benchmark")]

#[path = "../tests/cli_support/mod.rs"]
mod cli_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cli_support::common::{TestRoot, run};
use cli_support::images::{compressed, large_archive};
use cli_support::peak::peak_kib;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn timed(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

struct Bench {
    work: TestRoot,
    archive: PathBuf,
}

impl Bench {
    fn tool(&self, args: &[&Path]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isula-storage"));
        command.arg("--root").arg(self.work.join("root")).arg("--run-root").arg(self.work.join("run"));
        command.arg("-q").args(args);
        command
    }

    /// What an import cannot do without: unpack the layer and make it durable.
    fn tar(&self) {
        let out = self.work.join("unpacked");
        std::fs::create_dir(&out).unwrap();
        let layer = self.work.join("layer.tar");
        run(Command::new("tar").arg("-xf").arg(&layer).arg("-C").arg(&out));
        run(Command::new("sync").arg("-f").arg(&out));
    }

    fn clear(&self) {
        std::fs::remove_dir_all(self.work.join("unpacked")).unwrap();
    }

    fn remove(&self) {
        run(&mut self.tool(&[Path::new("rmi"), Path::new("large:1")]));
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let (files, mib, rounds) = (setting("FILES", 5000), setting("MIB", 100), setting("ROUNDS", 3).max(1));
    let dir = std::env::var_os("DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let work = TestRoot::below(&dir, "bench");
    let archive = work.join("image.tar");
    println!("{files} files, {mib} MiB, {rounds} rounds, in {}", dir.display());
    large_archive(&archive, files, mib << 20);
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(work.path()).arg("layer.tar"));
    let packed = work.join("image.tar.gz");
    let gzip = compressed("gzip", &std::fs::read(&archive).unwrap());
    #[allow(clippy::disallowed_methods, reason = "benchmark")]
    std::fs::write(&packed, gzip).unwrap();
    let bench = Bench { work, archive };

    let (mut tar, mut plain, mut gzip, mut export, mut remove) = (vec![], vec![], vec![], vec![], vec![]);
    let exported = bench.work.join("exported.tar");
    for _ in 0..rounds {
        tar.push(timed(|| bench.tar()));
        bench.clear();
        plain.push(timed(|| run(&mut bench.tool(&[Path::new("import"), &bench.archive]))));
        let layers = bench.tool(&[Path::new("layers"), Path::new("--no-trunc")]).output().unwrap();
        let layer = String::from_utf8(layers.stdout).unwrap();
        let args = [Path::new("export"), Path::new(layer.trim()), Path::new("-o"), &exported];
        export.push(timed(|| run(&mut bench.tool(&args))));
        remove.push(timed(|| bench.remove()));
        gzip.push(timed(|| run(&mut bench.tool(&[Path::new("import"), &packed]))));
        bench.remove();
    }
    let floor = median(tar);
    println!("{:<24} {floor:>8.2} s", "tar -xf, sync (floor)");
    for (what, times) in [("import", plain), ("import, gzip", gzip), ("export", export), ("rmi", remove)] {
        let time = median(times);
        println!("{what:<24} {time:>8.2} s   {:>5.2} x floor", time / floor);
    }
    let idle = peak_kib(bench.tool(&[]).arg("--help"));
    for (what, archive) in [("import", &bench.archive), ("import, gzip", &packed)] {
        let peak = peak_kib(&bench.tool(&[Path::new("import"), archive]));
        println!("{what:<24} {peak:>8} KiB resident, {} beyond the program's own", peak.saturating_sub(idle));
        bench.remove();
    }
}
