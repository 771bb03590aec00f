// SPDX-License-Identifier: MulanPSL-2.0
//! The daemon with many users (`c_tests/daemon_threads.c`) under ThreadSanitizer: program and library, this one built
//! anew for it. `make tsan` runs this; a plain `cargo test` does not, for the time that the build takes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod c_support;
mod common;
mod daemon_support;
#[allow(dead_code, unreachable_pub, reason = "only the archives are used")]
#[path = "cli_support/images.rs"]
mod images;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use c_support::{Program, Scratch, needs_root, run, source};
use daemon_support::write_bundles;

/// For -Z in a stable compiler; the standard library as it comes, without the instrumentation.
const RUSTFLAGS: &str = "-Zsanitizer=thread -Zexternal-clangrt -Cunsafe-allow-abi-mismatch=sanitizer";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the library for ThreadSanitizer; the directory with it, under the names that programs ask for.
fn library(dir: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tsan");
    let glue = dir.join("daemon_races.o");
    let mut compiler = Command::new("gcc");
    // -fno-builtin: else the compiler makes the functions call themselves.
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-fno-builtin", "-c", "-o"]);
    run(compiler.arg(&glue).arg(source("c_tests/daemon_races.c")));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(source("")).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", RUSTFLAGS);
    // With --target the flags are not those of build scripts and macros.
    cargo.args(["rustc", "--locked", "--lib", "--crate-type", "cdylib", "--target", TARGET, "--target-dir"]);
    cargo.arg(&target).args(["--", "-Clink-arg=-ltsan"]).arg(format!("-Clink-arg={}", glue.display()));
    run(&mut cargo);
    let names = dir.join("lib");
    fs::create_dir(&names).unwrap();
    for name in ["libisula_storage.so", "libisula_storage.so.0"] {
        symlink(target.join(TARGET).join("debug/libisula_storage.so"), names.join(name)).unwrap();
    }
    names
}

fn start(program: &Path, bundles: &Path, driver: &str, threads: &str, rounds: &str) -> Output {
    let place = Scratch::new();
    let command = |wrapper: &[&str]| {
        let mut words: Vec<PathBuf> = wrapper.iter().map(PathBuf::from).collect();
        words.push(program.to_path_buf());
        let mut command = Command::new(words.remove(0));
        let suppressions = source("c_tests/tsan.supp");
        command.env("TSAN_OPTIONS", format!("suppressions={}:history_size=7", suppressions.display()));
        command.args(words).arg(place.path().join("graph")).arg(place.path().join("state"));
        command.arg(driver).arg(bundles).args([threads, rounds]);
        command
    };
    let output = command(&[]).output().unwrap();
    // The run-time library does not know of all the places where newer kernels put a program.
    if String::from_utf8_lossy(&output.stderr).contains("unexpected memory mapping") {
        return command(&["setarch", "--addr-no-randomize"]).output().unwrap();
    }
    output
}

#[test]
fn no_two_users_of_a_daemon_race() {
    const SOURCES: &[&str] = &["daemon_threads.c", "daemon.c", "daemon_parts.c"];
    const FLAGS: [&str; 2] = ["-fsanitize=thread", "-O1"];
    let dir = Scratch::new();
    write_bundles(dir.path());
    let library = library(dir.path());
    let program = |flags: &'static [&'static str], variant: &str| {
        Program { sources: SOURCES, flags }.compile_with(&library, dir.path(), variant, &FLAGS)
    };

    // A race that is there is found: what the program changes while the library reads it.
    let racy = program(&["-D_DEFAULT_SOURCE", "-DRACY"], "-racy");
    let output = start(&racy, dir.path(), "vfs", "2", "20");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("WARNING: ThreadSanitizer: data race"), "{text}");
    assert!(text.contains("libisula_storage.so") && text.contains("storage_img_set_loaded_time"), "{text}");

    let program = program(&["-D_DEFAULT_SOURCE"], "");
    let mut runs = vec![("vfs", "8", "20"), ("vfs", "3", "20")];
    if needs_root() {
        runs.extend([("overlay2", "2", "20"), ("overlay2", "8", "20"), ("overlay2", "8", "20")]);
    }
    for (driver, threads, rounds) in runs {
        let output = start(&program, dir.path(), driver, threads, rounds);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !text.contains("ThreadSanitizer"), "{driver} {threads}: {text}");
    }
}
