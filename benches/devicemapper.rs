// SPDX-License-Identifier: MulanPSL-2.0
//! What layers of a thin pool cost while there are ever more of them, up to a thousand: made, mounted, unmounted, and
//! removed when all are there. Runs in the virtual machine of `tests/vm` (a kernel of its own, a pool on two disks in memory),
//! as it is built for release.
//!
//! | setting | default | what |
//! |---|---|---|
//! | `VM_LAYERS` | 1000 | how many; a row of the table is a tenth of them |
//!
//! The goal is that the last row is no more than 1.5 times the first. Where processors are emulated all figures are some ten
//! times what they are elsewhere, and so is what they are compared with. Nothing passes or fails by time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "benchmark"
)]
#![allow(clippy::print_stdout, dead_code, unreachable_pub, reason = "benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/vm/costs.rs"]
mod costs;
#[path = "../tests/vm/host.rs"]
mod host;
#[path = "../tests/layers/mod.rs"]
mod layers;
#[path = "../tests/vm/scene.rs"]
mod scene;
#[path = "../tests/storages/mod.rs"]
mod storages;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    if host::is_inside() {
        costs::of_layers(costs::wanted(1000));
        return;
    }
    host::Machine::new("costs").disk("64M").disk("4G").run();
}
