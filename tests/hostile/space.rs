// SPDX-License-Identifier: MulanPSL-2.0
//! Disks that are full, of blocks or of names, and quotas that are used up, at every stage of making a layer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isula_storage::error::ErrorKind;
use isula_storage::storage::{Storage, StorageOptions};

use crate::archive_common::Tar;
use crate::common::{TestRoot, need_root};
use crate::harness::{DRIVERS, World, at_most, id_of};

/// Files that hold what is free of a disk.
struct Filling(Vec<PathBuf>);

impl Filling {
    /// Takes all blocks, in files of this size at most.
    fn blocks(dir: &Path, piece: usize) -> Filling {
        let mut filling = Filling(Vec::new());
        for size in [piece, 1024] {
            while filling.add(dir, size) {}
        }
        filling
    }

    /// Takes all inodes.
    fn inodes(dir: &Path) -> Filling {
        let mut filling = Filling(Vec::new());
        while filling.add(dir, 0) {}
        filling
    }

    fn add(&mut self, dir: &Path, size: usize) -> bool {
        let path = dir.join(format!("{}", self.0.len()));
        let made = std::fs::File::create(&path).and_then(|mut file| {
            self.0.push(path);
            file.write_all(&vec![1; size])?;
            file.sync_all()
        });
        made.is_ok()
    }

    /// Gives some of it back; false when there is none left.
    fn give(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(path) = self.0.pop() else { return false };
            std::fs::remove_file(path).unwrap();
        }
        true
    }
}

fn layer() -> Vec<u8> {
    let mut tar = Tar::new();
    for index in 0..12 {
        tar = tar
            .dir(format!("n{index}/"))
            .pax(&[("SCHILY.xattr.user.x", &[b'x'; 700])])
            .file(format!("n{index}/f"), vec![index; 6000])
            .symlink(format!("n{index}/s"), "x".repeat(99))
            .file(format!("n{index}/.wh.gone"), "");
    }
    tar.end()
}

/// A layer is made again and again while a full disk becomes emptier, so that it fails at each stage, and succeeds at last.
fn made_at_last(world: &World, what: &str, mut filling: Filling, step: usize) -> usize {
    let layer = layer();
    let mut failures = 0;
    loop {
        match world.create(what, &layer) {
            Ok(id) => {
                world.assert_exact(what, &id, &layer);
                world.delete(&id);
                assert!(failures > 0, "{what}: the disk was not full");
                return failures;
            }
            Err(error) => {
                failures += 1;
                assert_eq!(error.errno(), libc::ENOSPC, "{}: {what}: {}", world.driver, error.report());
            }
        }
        assert!(world.layers().find(id_of(what).as_str()).is_none());
        assert!(filling.give(step), "{what}: the disk is empty and the layer does not fit");
    }
}

#[test]
fn a_disk_without_blocks_is_an_error_at_every_stage() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::on_disk(driver, 8 << 20, &[]);
        let dir = world.path().join("canary/target");
        let filling = Filling::blocks(&dir, 16 << 10);
        let failures = made_at_last(&world, "blocks", filling, at_most(1, 3));
        assert!(failures > at_most(5, 1), "{driver}: only {failures} stages");
        clear(&dir);
        world.end();
    }
}

#[test]
fn a_disk_without_inodes_is_an_error_at_every_stage() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::on_disk(driver, 8 << 20, &[]);
        let dir = world.path().join("canary/target");
        let filling = Filling::inodes(&dir);
        let failures = made_at_last(&world, "inodes", filling, at_most(1, 9));
        assert!(failures > at_most(30, 2), "{driver}: only {failures} stages");
        clear(&dir);
        world.end();
    }
}

/// Empties the canary's directory, and gives it the time that it had: the canary is compared.
fn clear(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    crate::archive_common::shell("touch -d @2 .", dir);
}

/// Where the store of the process is that runs out of its quota.
const VICTIM: &str = "ISULA_STORAGE_TEST_QUOTA";
const DRIVER: &str = "ISULA_STORAGE_TEST_QUOTA_DRIVER";

/// Runs only as a child, under strace: makes one layer and says how that ended, without a word that would be written.
#[test]
fn makes_a_layer_under_a_quota() {
    let Some(root) = std::env::var_os(VICTIM) else { return };
    let driver = std::env::var(DRIVER).unwrap();
    let options = StorageOptions {
        driver,
        ..StorageOptions::new(Path::new(&root).join("root"), Path::new(&root).join("run"))
    };
    let storage = match Storage::open(options) {
        Ok(storage) => storage,
        Err(error) => std::process::exit(if error.errno() == libc::EDQUOT { 41 } else { 42 }),
    };
    let layer = layer();
    let made = storage.layers().create(&id_of("quota"), &Default::default(), Some(&mut layer.as_slice()));
    let code = match made {
        Ok(_) => 40,
        Err(error) if error.errno() == libc::EDQUOT => 41,
        // Only the hashing thread, or only the unpacking one, knows why.
        Err(error) if error.kind() == ErrorKind::NotFound => 43,
        Err(_) => 42,
    };
    std::process::exit(code);
}

/// The kernel here need not know quotas: strace answers in its place, to one call after the other.
#[test]
fn a_quota_that_is_used_up_is_an_error_at_every_stage() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        for call in
            ["write", "pwrite64", "mkdirat", "symlinkat", "mknodat", "fsetxattr", "renameat2", "fsync"]
        {
            let mut ends = Vec::new();
            // The test program writes two lines of its own before.
            let mut number = if call == "write" { 3 } else { 1 };
            // Later calls by larger steps; the last ones, where nothing fails, end it.
            while ends.last() != Some(&40) && number < 400 {
                ends.push(with_quota(driver, call, number));
                number += at_most(1 + number / 3, 1 + number);
            }
            assert!(ends.iter().all(|end| [40, 41].contains(end)), "{driver}: {call}: {ends:?}");
            // What is not called fails nowhere; what is, does at some stage.
            let called = matches!(call, "mkdirat" | "symlinkat" | "fsetxattr");
            assert!(!called || ends.contains(&41), "{driver}: {call}: {ends:?}");
        }
    }
}

/// Makes a layer in a store of its own where the `number`th such call says that the quota is used up. How that ended.
fn with_quota(driver: &str, call: &str, number: usize) -> i32 {
    let place = TestRoot::in_memory("hostile-quota");
    let options = StorageOptions {
        driver: driver.to_owned(),
        ..StorageOptions::new(place.join("root"), place.join("run"))
    };
    let storage = Storage::open(options.clone()).unwrap();
    storage.close().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
    // The canonical failure of a quota; the process has written nothing before it opens the store.
    strace.arg("-e").arg(format!("inject={call}:error=EDQUOT:when={number}"));
    strace.arg(std::env::current_exe().unwrap()).args(["--exact", "space::makes_a_layer_under_a_quota"]);
    strace.args(["--nocapture", "--test-threads=1"]).env(VICTIM, place.path()).env(DRIVER, driver);
    let status = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let code = status.code().unwrap_or(-1);

    let storage =
        Storage::open(options).unwrap_or_else(|error| panic!("{call} {number}: {}", error.report()));
    let found: Vec<_> = storage.check(true).unwrap().findings;
    let found: Vec<_> = found.iter().filter(|finding| !finding.reason.starts_with("no image")).collect();
    assert!(found.is_empty(), "{driver}: {call} {number}: {found:?}");
    let listed = storage.layers().list().len();
    assert_eq!(listed, usize::from(code == 40), "{driver}: {call} {number}: ended with {code}");
    let data = storage.layers().driver().layers().unwrap();
    assert_eq!(data.len(), listed, "{driver}: {call} {number}: {data:?}");
    storage.close().unwrap();
    code
}
