// SPDX-License-Identifier: MulanPSL-2.0
//! Opening, lookups, lists and summaries through the C interface, by the harness in C.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::cli_support::common::{TestRoot, run};
use crate::room;
use crate::store::{self, Size};

/// What the goals say of storages of any size, in the unit of the figure.
const GOALS: &[(&str, f64)] = &[
    ("init", 400.0),
    ("init-peak", 120.0 * 1024.0),
    ("list", 20.0),
    ("storage_img_get_summary-id", 5.0),
    ("storage_img_get_summary-name", 5.0),
];
/// The same for every lookup.
const LOOKUP: f64 = 1.0;

type Figures = BTreeMap<String, (f64, String)>;

/// Compiles the harness.
fn harness(work: &Path) -> PathBuf {
    let program = work.join("peer");
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(project.join("include"))
        .arg("-o")
        .arg(&program)
        .arg(project.join("benches/peer.c"))
        .arg("-ldl"));
    program
}

/// The shared library beside this program.
fn ours() -> PathBuf {
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libisula_storage.so");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

fn measure(program: &Path, library: &Path, root: &Path) -> Vec<(String, f64, String)> {
    let output = Command::new(program)
        .arg(library)
        .arg(root.join("root"))
        .arg(root.join("run"))
        .args(["overlay", "3"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{library:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (name, value) = (words.next()?, words.next()?.parse().ok()?);
            Some((name.to_owned(), value, words.next().unwrap_or_default().to_owned()))
        })
        .collect()
}

/// What opening cannot do without: reading the directories and the files that it has to know.
fn floor(root: &Path) -> (f64, f64) {
    let (start, before) = (Instant::now(), cpu());
    for (dir, files) in [("overlay-layers", &["layer.json"][..]), ("overlay-images", &[])] {
        for entry in std::fs::read_dir(root.join("root").join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with('.') {
                continue;
            }
            files.iter().for_each(|file| drop(std::fs::read(path.join(file)).unwrap()));
            if files.is_empty() {
                for file in std::fs::read_dir(&path).unwrap() {
                    std::fs::read(file.unwrap().path()).unwrap();
                }
            }
        }
    }
    (start.elapsed().as_secs_f64() * 1e3, cpu() - before)
}

/// CPU time of this thread in milliseconds.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Prints the table: every figure is the least of all rounds.
pub(crate) fn table(sizes: &[Size], rounds: usize, peer: Option<&Path>) {
    let work = room("scale-peer");
    let program = harness(work.path());
    let mut libraries = vec![("ours", ours())];
    libraries.extend(peer.map(|peer| ("peer", peer.to_owned())));
    let mut columns: Vec<(String, Figures)> = Vec::new();
    let mut order: Vec<String> = Vec::new();
    for size in sizes {
        let root: TestRoot = room("scale");
        std::fs::create_dir(root.join("run")).unwrap();
        store::make(&root.join("root"), *size);
        let first = columns.len();
        for (name, _) in &libraries {
            columns.push((format!("{name} {}/{}", size.images, size.layers), Figures::new()));
        }
        for _ in 0..rounds {
            for ((_, library), (_, figures)) in libraries.iter().zip(&mut columns[first..]) {
                let mut got = measure(&program, library, root.path());
                let (wall, used) = floor(root.path());
                got.insert(0, ("read-files".to_owned(), wall, "ms".to_owned()));
                got.insert(1, ("read-files-cpu".to_owned(), used, "ms".to_owned()));
                for (name, value, unit) in got {
                    if !order.contains(&name) {
                        order.push(name.clone());
                    }
                    let least = figures.entry(name).or_insert((value, unit));
                    least.0 = least.0.min(value);
                }
            }
        }
    }
    print!("\n{:<32} {:>9} {:>5}", "C interface", "goal", "");
    columns.iter().for_each(|(name, _)| print!(" {name:>24}"));
    println!();
    for name in &order {
        let lookup = (name.contains("lookup") || name.contains("exist") || name.contains("image_id"))
            .then_some(LOOKUP);
        let goal = GOALS.iter().find(|(of, _)| of == name).map(|(_, goal)| *goal).or(lookup);
        let unit = columns.iter().find_map(|(_, figures)| figures.get(name)).map_or("", |(_, unit)| unit);
        print!("{name:<32} {:>9} {unit:>5}", goal.map_or(String::new(), |goal| format!("{goal}")));
        for (_, figures) in &columns {
            let shown = figures.get(name).map_or("-".to_owned(), |(value, _)| {
                let met = goal.map(|goal| if *value <= goal { "met" } else { "not met" });
                format!("{value:.3} {:<7}", met.unwrap_or_default())
            });
            print!(" {shown:>24}");
        }
        println!();
    }
}
