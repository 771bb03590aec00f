// SPDX-License-Identifier: MulanPSL-2.0
//! The tool is killed at many moments of an import and of a removal. Whatever was listed before is still there and
//! whole, and the same command then succeeds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod cli_support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use cli_support::common::{TestRoot, need_root, run};
use cli_support::images::{DockerImage, docker_archive, small_layer};
use cli_support::{Store, golden_image, text};
use serde_json::json;

/// The system calls before which it is killed: all that change what is on disk.
const DETERMINISTIC: [&str; 9] =
    ["fsync", "syncfs", "renameat", "renameat2", "unlinkat", "mkdirat", "symlinkat", "linkat", "pwrite64"];

/// How often it is killed at a moment that no system call marks.
const KILLS: u32 = 20;

struct Scene {
    files: TestRoot,
    old: DockerImage,
    new: DockerImage,
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// The import of an image that shares a layer with one in the store, and takes a name from it.
    Import,
    /// The removal of that image when both are there.
    Remove,
}

impl Scene {
    fn new() -> Scene {
        let files = TestRoot::in_memory("crash");
        let base = small_layer("base");
        let old = DockerImage::new(&[base.clone(), small_layer("old")], &["old:1", "moving:1"]);
        let new = DockerImage::new(&[base, small_layer("new"), small_layer("newer")], &["moving:1", "new:1"]);
        fs::write(files.join("old"), docker_archive(std::slice::from_ref(&old))).unwrap();
        fs::write(files.join("new"), docker_archive(std::slice::from_ref(&new))).unwrap();
        Scene { files, old, new }
    }

    /// A store as it is before the deed.
    fn prepared(&self, deed: Deed) -> PathBuf {
        let store = Store::in_memory();
        store.import(&self.files.join("old"));
        if matches!(deed, Deed::Remove) {
            store.import(&self.files.join("new"));
        }
        let kept = self.files.join("store");
        run(Command::new("cp").arg("-a").arg(store.root()).arg(&kept));
        kept
    }

    fn args(&self, deed: Deed) -> Vec<PathBuf> {
        match deed {
            Deed::Import => vec!["import".into(), self.files.join("new")],
            Deed::Remove => vec!["rmi".into(), self.new.id().into()],
        }
    }

    /// After the kill: the old image is listed and whole, and readers have no trouble.
    fn check_killed(&self, store: &Store, moment: &str) {
        let old = store.json(["inspect", &self.old.id()]);
        assert_eq!(old["problems"], json!([]), "{moment}");
        let names: Vec<String> = old["names"].as_array().unwrap().iter().map(text).collect();
        assert!(names.contains(&"old:1".to_owned()), "{moment}: {names:?}");
        for layer in old["layers"].as_array().unwrap() {
            assert_eq!(store.export(&text(&layer["id"])), text(&layer["uncompressed_digest"]), "{moment}");
        }
        let owners = store.names().iter().filter(|(_, names)| names.contains(&"moving:1".to_owned())).count();
        assert!(owners <= 1, "{moment}: a name has {owners} owners");
    }

    /// The command is repeated and the end is as if nothing had happened.
    fn check_repeated(&self, store: &Store, deed: Deed, moment: &str) {
        let wanted = match deed {
            Deed::Import => {
                store.ok(self.args(deed));
                vec![
                    (self.old.id(), vec!["old:1".to_owned()]),
                    (self.new.id(), vec!["moving:1".to_owned(), "new:1".to_owned()]),
                ]
            }
            Deed::Remove => {
                // It may be gone already; then layers without an image can be left. The next import uses them.
                let ended = store.run(self.args(deed));
                assert!(matches!(ended.code, Some(0 | 3)), "{moment}: {}", ended.stderr);
                vec![(self.old.id(), vec!["old:1".to_owned()])]
            }
        };
        let mut names = store.names();
        names.sort();
        let mut wanted = wanted;
        wanted.sort();
        assert_eq!(names, wanted, "{moment}");
        store.assert_whole();
        if matches!(deed, Deed::Import) {
            assert_eq!(store.layer_ids().len(), 4, "{moment}");
            let left = staging(store);
            assert!(left.is_empty(), "{moment}: {left:?}");
        }
    }

    /// Kills the deed once, by `kill`, on a fresh copy of the store; whether it was still running.
    fn kill_once(&self, deed: Deed, kept: &Path, moment: &str, kill: impl FnOnce(Command) -> bool) -> bool {
        let store = Store::in_memory();
        run(Command::new("cp").arg("-a").arg(kept).arg(store.root()));
        let mut command = store.tool();
        command.args(self.args(deed));
        let killed = kill(command);
        self.check_killed(&store, moment);
        self.check_repeated(&store, deed, moment);
        killed
    }
}

/// Temporary files and directories of the store that should be gone after a successful command.
fn staging(store: &Store) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![store.root()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() && !name.starts_with("diff") {
                if name == "trash" || name == "quarantine" {
                    found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                } else {
                    todo.push(path);
                }
            } else if name.starts_with(".tmp") {
                found.push(path);
            }
        }
    }
    found
}

/// Kills before the `n`th of a kind of system call, for every `n` that there is.
fn kill_at_every_call(deed: Deed) -> usize {
    let scene = Scene::new();
    let kept = scene.prepared(deed);
    let mut kills = 0;
    for call in DETERMINISTIC {
        for n in 1.. {
            let moment = format!("{deed:?} killed before {call} number {n}");
            let killed = scene.kill_once(deed, &kept, &moment, |command| {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-qq", "-o", "/dev/null"]);
                strace.arg(format!("--trace={call}")).arg(format!("--inject={call}:signal=KILL:when={n}"));
                strace.arg(command.get_program()).args(command.get_args());
                let output = strace.output().unwrap();
                let killed = output.status.signal() == Some(9) || output.status.code() == Some(128 + 9);
                assert!(
                    killed || output.status.success(),
                    "{moment}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                killed
            });
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    kills
}

#[test]
fn an_import_killed_before_any_change_of_the_disk_loses_nothing() {
    if !need_root() {
        return;
    }
    let kills = kill_at_every_call(Deed::Import);
    assert!(kills >= 50, "only {kills} kills");
    println!("{kills} kills");
}

#[test]
fn a_removal_killed_before_any_change_of_the_disk_loses_nothing() {
    if !need_root() {
        return;
    }
    let kills = kill_at_every_call(Deed::Remove);
    assert!(kills >= 10, "only {kills} kills");
    println!("{kills} kills");
}

/// Moments that no list of system calls foresees, on a file system that really writes.
#[test]
fn an_import_killed_at_any_time_loses_nothing() {
    if !need_root() {
        return;
    }
    let store = Store::on_ext4(128 << 20);
    store.import(&golden_image("bb.tar.gz"));
    let files = TestRoot::in_memory("crash");
    let noise: Vec<u8> = (0..3_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut layer = cli_support::images::Tar::new(Vec::new());
    for number in 0..300 {
        layer.file(&format!("f{number}"), &noise[number * 10_000..][..10_000]);
    }
    let image =
        DockerImage::new(&[small_layer("a"), layer.finish(), small_layer("b")], &["localhost/bb:v1", "x:1"]);
    fs::write(files.join("image"), docker_archive(std::slice::from_ref(&image))).unwrap();

    let import = |store: &Store| {
        let mut import = store.tool();
        import.arg("import").arg(files.join("image")).stdout(Stdio::null());
        import
    };
    let start = Instant::now();
    run(&mut import(&store));
    let mut whole = start.elapsed();
    store.ok(["rmi", &image.id()]);
    store.import(&golden_image("bb.tar.gz"));

    let mut kills = 0;
    for round in 0.. {
        let mut child = import(&store).spawn().unwrap();
        // The time only chooses the moment; no result depends on it.
        std::thread::sleep(whole * kills / KILLS);
        child.kill().unwrap();
        if child.wait().unwrap().signal() == Some(9) {
            kills += 1;
        } else {
            // It was faster than that: aim earlier.
            whole = whole * 9 / 10;
        }
        let old = store.json(["inspect", "11ecebd34f10"]);
        assert_eq!(old["problems"], json!([]), "round {round}");
        for layer in old["layers"].as_array().unwrap() {
            assert_eq!(
                store.export(&text(&layer["id"])),
                text(&layer["uncompressed_digest"]),
                "round {round}"
            );
        }
        run(&mut import(&store));
        assert_eq!(store.assert_whole().len(), 2, "round {round}");
        if kills == KILLS {
            break;
        }
        store.ok(["rmi", &image.id()]);
        store.import(&golden_image("bb.tar.gz"));
    }
}
