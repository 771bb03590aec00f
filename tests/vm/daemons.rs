// SPDX-License-Identifier: MulanPSL-2.0
//! The programs that play iSulad's daemon (`c_tests/daemon_*.c`), on a thin pool. They are compiled outside of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::c_support::{Program, Scratch, library};
use crate::daemon_support::write_bundles;
use crate::guest::Scenario;
use crate::host::{self, Machine};
use crate::scene::*;

pub const ALL: &[Scenario] = crate::scenarios! {
    a_daemon_lives_on_a_thin_pool
    many_use_a_daemon_on_a_thin_pool
};

const SOURCES: [&[&str]; 2] =
    [&["daemon_life.c", "daemon.c", "daemon_parts.c"], &["daemon_threads.c", "daemon.c", "daemon_parts.c"]];

/// The host's side.
pub fn compile_and_run() {
    if host::is_inside() || !host::is_ready() {
        return;
    }
    let dir = Scratch::new();
    write_bundles(dir.path());
    for sources in SOURCES {
        Program { sources, flags: &["-D_DEFAULT_SOURCE"] }.compile(dir.path(), "", &[]);
    }
    let bed = dir.path().to_str().unwrap();
    let machine = Machine::new("daemons").disk("64M").disk("4G").variable("VM_BED", bed);
    machine.share(dir.path()).share(library()).run();
}

/// Runs a program, then the tool with these commands; afterwards the base device is all that is in the pool.
fn play(program: &str, more: &[&str], tool: &[&[&str]]) {
    let bed = PathBuf::from(std::env::var_os("VM_BED").unwrap());
    let pool = Pool::new();
    let place = Place::new();
    let (graph, state) = (place.root.join("graph"), place.root.join("state"));
    let mut command = Command::new(bed.join(program));
    command.args([&graph, &state]).arg("devicemapper").arg(&bed).args(more);
    run(command.env("DAEMON_STORAGE_OPTS", options(&[]).join(",")));
    for words in tool {
        run(tool_on(&graph.join("storage"), &state.join("storage")).args(*words));
    }
    assert_eq!((pool.devices(), place.mounts()), (Vec::<String>::new(), Vec::<PathBuf>::new()));
    let mut left = names_in(&graph.join("storage/devicemapper/metadata"));
    left.sort_unstable();
    assert_eq!(left, ["base", "deviceset-metadata", "transaction-metadata"]);
    assert_eq!(pool.ids().len(), 1, "only the base device");
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn a_daemon_lives_on_a_thin_pool() {
    // The last that it does is to have the layer of a container put aside, which keeps what it stands on.
    let purge: &[&str] =
        &["quarantine", "purge", "b0b0000000000000000000000000000000000000000000000000000000000002"];
    play("daemon_life", &[], &[purge, &["repair", "--remove-orphans", "--even-without-images"]]);
}

fn many_use_a_daemon_on_a_thin_pool() {
    play("daemon_threads", &["8", "2"], &[]);
}
