// SPDX-License-Identifier: MulanPSL-2.0
//! What does not grow with the number of images and layers, and what grows only as it must: the tables of the goals of
//! scale, each figure beside what cannot be undercut, measured in the same run.
//!
//! | setting | default | what |
//! |---|---|---|
//! | `PARTS` | all | which of `calls`, `change`, `mount`, `delete`, `import`, `beside`, with commas |
//! | `SIZES` | `1000/5000,10000/20000` | images and layers |
//! | `ROUNDS` | 5 | how often each is measured; the fastest counts |
//! | `CHAINS` | `5,100,500` | lower layers of the mounts |
//! | `FILES` | `1000,10000,100000` | files of the imports |
//! | `DEPTHS` | `5,128` | layers of the imports of chains |
//! | `ENTRIES` | 39000 | entries of the layer that is deleted |
//! | `PEER` | none | another library with the same interface, put beside ours |
//! | `DIR` | `/dev/shm` | where the storages lie |
//!
//! Needs root. Nothing passes or fails by time: the numbers are for people.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "benchmark"
)]
#![allow(clippy::print_stdout, reason = "benchmark")]

#[path = "scale/beside.rs"]
mod beside;
#[path = "scale/calls.rs"]
mod calls;
#[path = "scale/changes.rs"]
mod changes;
#[path = "../tests/cli_support/mod.rs"]
mod cli_support;
#[path = "scale/mounts.rs"]
mod mounts;
#[path = "scale/store.rs"]
mod store;

use std::path::{Path, PathBuf};

use cli_support::common::TestRoot;
use isula_storage::storage::{Storage, StorageOptions};
use store::Size;

/// Files of each of the imports that others run beside.
const BESIDE: usize = 40_000;

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn numbers(name: &str, default: &str) -> Vec<usize> {
    let text = setting(name, default);
    text.split(',').map(|part| part.parse().unwrap_or_else(|_| panic!("{name}={text}"))).collect()
}

fn sizes() -> Vec<Size> {
    let text = setting("SIZES", "1000/5000,10000/20000");
    let number = |part: &str| part.parse().unwrap_or_else(|_| panic!("SIZES={text}"));
    let size = |pair: &str| {
        let (images, layers) = pair.split_once('/').unwrap_or_else(|| panic!("SIZES={text}"));
        Size { images: number(images), layers: number(layers) }
    };
    text.split(',').map(size).collect()
}

fn room(tag: &str) -> TestRoot {
    TestRoot::below(Path::new(&setting("DIR", "/dev/shm")), tag)
}

/// A goal, and whether it is met.
fn verdict(goal: &str, met: bool) -> String {
    format!("{goal} {}", if met { "met" } else { "not met" })
}

/// Opens a storage in which nothing is wrong.
fn open(options: StorageOptions) -> Storage {
    let storage = Storage::open(options).unwrap();
    assert!(changes::is_clean(&storage), "{:?}", storage.problems());
    storage
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    // `cargo test --benches` only wants to know that it starts.
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    if let Some(at) = args.iter().position(|arg| arg == "--make") {
        let number = |at: usize| args[at].parse().unwrap();
        let size = Size { images: number(at + 2), layers: number(at + 3) };
        store::make(&PathBuf::from(&args[at + 1]), size);
        return;
    }
    let parts = setting("PARTS", "calls,change,mount,delete,import,beside");
    let wants = |part: &str| parts.split(',').any(|wanted| wanted == part);
    let rounds = numbers("ROUNDS", "5")[0].max(1);
    if wants("calls") {
        calls::table(&sizes(), rounds, std::env::var_os("PEER").map(PathBuf::from).as_deref());
    }
    if wants("change") {
        changes::images(&sizes(), rounds);
    }
    if wants("mount") {
        mounts::table(&numbers("CHAINS", "5,100,500"), rounds);
    }
    if wants("delete") {
        changes::deletion(numbers("ENTRIES", "39000")[0], rounds);
    }
    if wants("import") {
        changes::imports(&numbers("FILES", "1000,10000,100000"), &numbers("DEPTHS", "5,128"), rounds.min(3));
    }
    if wants("beside") {
        beside::table(sizes()[0], BESIDE);
    }
}
