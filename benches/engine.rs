// SPDX-License-Identifier: MulanPSL-2.0
//! The layer engine beside what cannot be undercut, and beside others: an image of five gzip layers is imported on a
//! loop-mounted ext4 that lies in memory, in turn with GNU tar, `gunzip`, bsdtar, `cp -a`, bare decompression, bare
//! hashing, bare unpacking, and the programs of other storages that are installed.
//!
//! | setting | default | what |
//! |---|---|---|
//! | `IMAGE` | `bench-image` beside the build | where the image lies; it is made there if it is not (`benches/engine/image.py`) |
//! | `PERCENT` | 100 | how large an image is made: 1.1 GB, 48,000 entries |
//! | `ROUNDS` | 5 | how often each is measured; the median counts |
//! | `PEER_ROUNDS` | 2 | the same for the other storages; 0 leaves them out |
//! | `PEER` | none | another library with the same interface, put beside ours in `benches/layers.c` |
//! | `ONLY` | all | names of rows, with commas |
//!
//! Needs root. Everything happens in a mount and a process namespace of its own, on a file that has no name any more: however
//! it ends, the kernel unmounts, frees and ends all of it. Nothing passes or fails by time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "benchmark"
)]
#![allow(clippy::print_stdout, reason = "benchmark")]

#[path = "engine/cost.rs"]
mod cost;
#[path = "engine/harness.rs"]
mod harness;
#[path = "engine/own.rs"]
mod own;
#[path = "engine/peers.rs"]
mod peers;
#[path = "engine/untar.rs"]
mod untar;

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cost::{Cost, median};
use peers::Peer;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Runs a tool of the machine and expects it to succeed.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {text}", output.status);
}

/// What the script has made.
struct Image {
    dir: PathBuf,
    layers: usize,
    entries: u64,
    bytes: u64,
}

impl Image {
    fn open() -> Image {
        let dir = std::env::var_os("IMAGE").map_or_else(
            || {
                let program = std::env::current_exe().unwrap();
                let built = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
                let percent = setting("PERCENT", 100);
                built.expect("a directory of builds").join(format!("bench-image-{percent}"))
            },
            |dir| std::path::absolute(dir).unwrap(),
        );
        if !dir.join("summary").exists() {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/engine/image.py");
            let mut make = Command::new("python3");
            make.arg(script);
            // A layout that somebody has is taken, and made ready beside the builds.
            if dir.join("index.json").exists() {
                let ready = std::env::temp_dir().join(format!("bench-image-{}", std::process::id()));
                run(make.arg(&ready).arg("--take").arg(&dir));
                return Image::read(ready);
            }
            println!("making {} of Debian's packages: takes a minute or two, once", dir.display());
            run(make.arg(&dir).arg(setting("PERCENT", 100).to_string()));
        }
        Image::read(dir)
    }

    fn read(dir: PathBuf) -> Image {
        let summary = std::fs::read_to_string(dir.join("summary")).unwrap();
        let mut numbers = summary.split_whitespace().map(|number| number.parse().unwrap());
        let (entries, bytes) = (numbers.next().unwrap(), numbers.next().unwrap());
        let layers = std::fs::read_dir(dir.join("plain")).unwrap().count();
        Image { dir, layers, entries, bytes }
    }

    fn paths(&self, kind: &str, end: &str) -> Vec<PathBuf> {
        (1..=self.layers).map(|number| self.dir.join(kind).join(format!("{number}{end}"))).collect()
    }
}

/// A row of the table.
enum Row {
    Shell(&'static str),
    Own(&'static str),
    Peer(Peer),
}

struct Bench {
    image: Image,
    disk: PathBuf,
}

const TAR: &str = "GNU tar, plain layers";
const GUNZIP: &str = "gunzip, nothing written";
const INFLATE: &str = "inflate, one thread";
const SHA: &str = "SHA-256 of the tar";
const BARE: &str = "bare untar, 1 thread";
const OURS: &str = "isula-storage import";
const DURABLE: &str = "the same, durable";

impl Bench {
    fn rows(&self) -> Vec<(&'static str, Row)> {
        let mut rows = vec![
            (
                TAR,
                Row::Shell(
                    "o=$1; shift; n=0; for l; do n=$((n+1)); mkdir -p $o/$n; tar -xf $l -C $o/$n; done",
                ),
            ),
            (OURS, Row::Own("import")),
            (GUNZIP, Row::Shell("shift; for l; do gunzip -c $l > /dev/null; done")),
            (DURABLE, Row::Own("import-durable")),
            (INFLATE, Row::Own("inflate")),
            (SHA, Row::Own("sha256")),
            (BARE, Row::Own("untar-1")),
            ("bare untar, 2 threads", Row::Own("untar-2")),
            ("cp -a of the tree", Row::Shell("cp -a ${1%/*}/tree $1")),
        ];
        if peers::has("bsdtar") {
            let script =
                "o=$1; shift; n=0; for l; do n=$((n+1)); mkdir -p $o/$n; bsdtar -xpf $l -C $o/$n; done";
            rows.push(("bsdtar, gzip layers", Row::Shell(script)));
        }
        rows.extend(Peer::installed().into_iter().map(|peer| (peer.name(), Row::Peer(peer))));
        if let Ok(only) = std::env::var("ONLY") {
            rows.retain(|(name, _)| only.split(',').any(|part| name.contains(part)));
        }
        rows
    }

    fn measure(&self, row: &Row, name: &str) -> Cost {
        let out = self.disk.join("out");
        let got = match row {
            Row::Shell(script) => {
                let layers = if name == TAR {
                    self.image.paths("plain", ".tar")
                } else {
                    self.image.paths("packed", ".tar.gz")
                };
                let mut args: Vec<&OsStr> =
                    vec!["-euc".as_ref(), script.as_ref(), "sh".as_ref(), out.as_ref()];
                args.extend(layers.iter().map(|layer| layer.as_os_str()));
                Cost::of_program(Path::new("/bin/sh"), &args)
            }
            Row::Own(what) => {
                let mut args = vec![out.clone()];
                match *what {
                    "import" | "import-durable" => args.push(self.image.dir.join("layout")),
                    "inflate" => args.extend(self.image.paths("packed", ".tar.gz")),
                    _ => args.extend(self.image.paths("plain", ".tar")),
                }
                Cost::of_own(what, &args)
            }
            Row::Peer(peer) => peer.measure(&self.image.dir, &self.disk),
        };
        if out.exists() {
            if name == TAR && !self.disk.join("tree").exists() {
                std::fs::rename(&out, self.disk.join("tree")).unwrap();
            } else {
                std::fs::remove_dir_all(&out).unwrap();
            }
        }
        run(Command::new("sync").arg("-f").arg(&self.disk));
        got
    }
}

/// Begins anew in namespaces of its own.
fn enter() -> ! {
    assert!(rustix::process::geteuid().is_root(), "this bench mounts: it needs root");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.arg(std::env::current_exe().unwrap()).arg("--inside");
    panic!("unshare: {}", unshare.exec());
}

/// A fresh ext4 in memory that goes away with the last process of this namespace.
fn disk(size: u64) -> PathBuf {
    let dir = PathBuf::from("/mnt");
    let memory = Path::new("/dev/shm");
    let file = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let file = file.join(format!("isula-storage-bench-{}-{}", std::process::id(), own::nanos()));
    std::fs::File::create(&file).and_then(|file| file.set_len(size)).unwrap();
    let mkfs = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    // Whatever goes wrong, the file goes first.
    let made = Command::new("mkfs.ext4").args(mkfs).arg(&file).status();
    let mounted = Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&dir).status();
    std::fs::remove_file(&file).unwrap();
    assert!(made.unwrap().success() && mounted.unwrap().success(), "no loop-mounted ext4");
    dir
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    // `cargo test --benches` only wants to know that it starts.
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    if let Some(at) = args.iter().position(|arg| arg == "--own") {
        return own::run(&args[at + 1], &args[at + 2..]);
    }
    if !args.iter().any(|arg| arg == "--inside") {
        enter();
    }
    // The first process of a namespace gets no signal that it does not wait for.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let always = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_shutdown(signal, 130, always).unwrap();
    }
    let rounds = setting("ROUNDS", 5).max(1);
    let image = Image::open();
    println!(
        "{} layers, {} entries, {} MB plain, {} rounds, {} cores",
        image.layers,
        image.entries,
        image.bytes / 1_000_000,
        rounds,
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    let disk = disk(image.bytes * 2 + image.entries * 16384 + (512 << 20));
    let bench = Bench { image, disk };
    let rows = bench.rows();
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); rows.len()];
    let progress = std::io::stderr().is_terminal();
    // The first round is to warm up.
    for round in 0..=rounds {
        for ((name, row), costs) in rows.iter().zip(&mut costs) {
            let is_peer = matches!(row, Row::Peer(_));
            if is_peer && (round == 0 || round > setting("PEER_ROUNDS", 2)) {
                continue;
            }
            let got = bench.measure(row, name);
            if progress {
                eprint!("\r\x1b[Kround {round}: {name} {:.2} s", got.wall);
            }
            if round > 0 {
                costs.push(got);
            }
        }
    }
    if progress {
        eprint!("\r\x1b[K");
    }
    table(&rows, &costs);
    std::fs::remove_dir_all(bench.disk.join("tree")).unwrap();
    harness::table(&bench.image.dir.join("list"), &bench.disk);
}

/// Says whether a goal is met, if it was measured.
fn goal(what: &str, most: f64, is: Option<f64>) {
    if let Some(is) = is {
        println!("{what:<58} {most:>8.2} {is:>8.2}  {}", if is <= most { "met" } else { "not met" });
    }
}

fn table(rows: &[(&str, Row)], costs: &[Vec<Cost>]) {
    let middle = |name: &str, value: fn(&Cost) -> f64| {
        let at = rows.iter().position(|(row, _)| *row == name)?;
        (!costs[at].is_empty()).then(|| median(costs[at].iter().map(value).collect()))
    };
    let wall = |name: &str| middle(name, |cost| cost.wall);
    let cpu = |name: &str| middle(name, |cost| cost.cpu);
    println!(
        "\n{:<26} {:>7} {:>15} {:>7} {:>9} {:>7} {:>9} {:>9}",
        "median of", "wall s", "from - to", "CPU s", "peak MiB", "x tar", "x gunzip", "CPU x gz"
    );
    let ratio = |part: Option<f64>, whole: Option<f64>| {
        part.zip(whole).map_or("-".to_owned(), |(part, whole)| format!("{:.2}", part / whole))
    };
    for ((name, _), costs) in rows.iter().zip(costs).filter(|(_, costs)| !costs.is_empty()) {
        let walls = || costs.iter().map(|cost| cost.wall);
        let peak = costs.iter().map(|cost| cost.peak_kib).max().unwrap_or_default();
        println!(
            "{name:<26} {:>7.2} {:>15} {:>7.2} {:>9} {:>7} {:>9} {:>9}",
            wall(name).unwrap(),
            format!("{:.2} - {:.2}", walls().fold(f64::MAX, f64::min), walls().fold(0.0, f64::max)),
            cpu(name).unwrap(),
            if peak == 0 { "-".to_owned() } else { format!("{:.1}", peak as f64 / 1024.0) },
            ratio(wall(name), wall(TAR)),
            ratio(wall(name), wall(GUNZIP)),
            ratio(cpu(name), cpu(GUNZIP)),
        );
    }
    println!("\n{:<58} {:>8} {:>8}", "goal", "at most", "is");
    let over = |part: Option<f64>, whole: Option<f64>| Some(part? / whole?);
    goal("wall time of the import / GNU tar's of the plain layers", 0.90, over(wall(OURS), wall(TAR)));
    goal("wall time of the import / gunzip's", 0.50, over(wall(OURS), wall(GUNZIP)));
    goal("CPU time of the import / gunzip's", 1.10, over(cpu(OURS), cpu(GUNZIP)));
    goal("peak memory of the import, MiB", 48.0, middle(OURS, |cost| cost.peak_kib as f64 / 1024.0));
    let durable = wall(DURABLE).zip(wall(OURS)).map(|(durable, not)| durable - not);
    if let Some(durable) = durable {
        println!("durability costs {durable:.2} s: one syncfs a layer, and the fsyncs of records");
    }
    if let (Some(inflate), Some(sha), Some(bare), Some(tar), Some(ours)) =
        (cpu(INFLATE), cpu(SHA), cpu(BARE), wall(TAR), cpu(OURS))
    {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(2);
        let least = inflate + sha + bare;
        println!(
            "what no import can leave out (inflate + SHA-256 + bare untar): {least:.2} s CPU, on {cores} cores {:.2} s, {:.2} x tar; \
             ours {ours:.2} s CPU, {:.2} x of that",
            least / cores as f64,
            least / cores as f64 / tar,
            ours / least
        );
    }
}
