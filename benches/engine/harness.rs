// SPDX-License-Identifier: MulanPSL-2.0
//! The library through its C interface, layer by layer, and what others wait for while two large layers are made:
//! `benches/layers.c`, run on this library and on the one that `PEER` names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of the program, in order, as name and value with unit.
type Lines = Vec<(String, f64, String)>;

pub(crate) fn table(list: &Path, disk: &Path) {
    let built = std::env::current_exe().unwrap();
    let ours =
        built.ancestors().map(|dir| dir.join("libisula_storage.so")).find(|path| path.exists()).unwrap();
    let peer = std::env::var_os("PEER").map(PathBuf::from);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = disk.join("layers");
    let mut compile = Command::new("cc");
    compile.arg("-O2").arg("-I").arg(source.join("include")).arg("-o").arg(&program);
    crate::run(compile.arg(source.join("benches/layers.c")).args(["-ldl", "-lpthread"]));
    let ours = measure(&program, &ours, list, disk);
    let theirs: Option<BTreeMap<String, f64>> = peer.map(|peer| {
        measure(&program, &peer, list, disk).into_iter().map(|(name, value, _)| (name, value)).collect()
    });
    println!("\n{:<40} {:>14} {:>14}", "through the C interface, durable", "isula-storage", "PEER");
    for (name, value, unit) in &ours {
        let other = theirs.as_ref().and_then(|theirs| theirs.get(name));
        println!(
            "{:<40} {value:>14.3} {:>14} {unit}",
            name,
            other.map_or("-".to_owned(), |other| format!("{other:.3}"))
        );
    }
    let find = |wanted: &str| ours.iter().find(|(name, ..)| name == wanted).map(|(_, value, _)| *value);
    for what in ["lookup", "list"] {
        let p99 = find(&format!("{what}-two-imports-p99")).map(|p99| p99 / 1000.0);
        crate::goal(&format!("99th percentile of a {what} beside two imports, ms"), 1.0, p99);
    }
    let mounts = |call: &str, when: &str, part: &str| find(&format!("{call}-{when}-{part}"));
    for part in ["p50", "p99"] {
        let busy = mounts("mount-cycle", "two-imports", part);
        let over = |other: Option<f64>| Some(busy? / other?);
        crate::goal(
            &format!("mount and unmount beside two imports / idle, {part}"),
            2.0,
            over(mounts("mount-cycle", "idle", part)),
        );
        let bare = over(mounts("bare-mount-cycle", "two-imports", part));
        println!("the same / bare system calls beside two imports, {part}: {:.2}", bare.unwrap_or(f64::NAN));
    }
}

fn measure(program: &Path, library: &Path, list: &Path, disk: &Path) -> Lines {
    let (root, run) = (disk.join("root"), disk.join("run"));
    std::fs::create_dir(&run).unwrap();
    crate::run(Command::new("mount").args(["-t", "tmpfs", "run"]).arg(&run));
    let mut command = Command::new(program);
    let output = command.arg(library).arg(&root).arg(run.join("storage")).arg(list).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    crate::run(Command::new("umount").arg("-l").arg(&run));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(mount).starts_with(&root) {
            crate::run(Command::new("umount").args(["-l", mount]));
        }
    }
    let bare = disk.join("root.bare");
    if bare.exists() {
        std::fs::remove_dir_all(bare).unwrap();
    }
    for dir in [root, run] {
        std::fs::remove_dir_all(dir).unwrap();
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        Some((name, words.next()?.parse().ok()?, words.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}
