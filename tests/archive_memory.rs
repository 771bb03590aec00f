// SPDX-License-Identifier: MulanPSL-2.0
//! Memory of unpacking and rebuilding a layer, measured by the kernel. Alone in its process, so that nothing else
//! counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use archive_common::{Header, Scratch, Tar};
use isula_storage::archive::{self, ApplyOptions, Verdict, VerifyOptions, Whiteouts};

/// What unpacking may need beyond what the process had: buffers and the state of two compressors.
const ALLOWED_KIB: u64 = 16 << 10;
const FILE: u64 = 64 << 20;

/// A quarter of a gibibyte: a large file and its replacement, as many bytes without a file, and what follows the end.
fn layer() -> impl Read {
    let header = |name: &str| {
        let header = Header { size: FILE, ..Header::new(name, b'0') };
        io::Cursor::new(header.block().to_vec())
    };
    let content = |byte| io::repeat(byte).take(FILE);
    let end = io::repeat(0).take(FILE + 1024);
    header("large")
        .chain(content(b'x'))
        .chain(header("large"))
        .chain(content(b'y'))
        .chain(header(".wh.large"))
        .chain(content(b'z'))
        .chain(end)
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_large_layer_costs_no_memory() {
    let scratch = Scratch::new();
    let target = File::open(scratch.dir("target")).unwrap();
    let mut split = File::create(scratch.path().join("split.gz")).unwrap();
    // The parts used once, so that only what grows is counted.
    archive::apply(&mut &Tar::new().end()[..], target.as_fd(), &mut io::sink(), &ApplyOptions::default())
        .unwrap();
    let before = peak_kib();
    let owners = rustix::process::geteuid().is_root();
    let options = ApplyOptions { whiteouts: Whiteouts::Remove, owners, ..ApplyOptions::default() };
    let applied = archive::apply(&mut layer(), target.as_fd(), &mut split, &options).unwrap();
    assert_eq!(applied.entries, 3);
    assert_eq!(applied.tar_size.0, 4 * FILE + 3 * 512 + 1024);
    let open = || File::open(scratch.path().join("split.gz")).unwrap();
    let (digest, _) = archive::rebuild(&mut open(), target.as_fd(), &mut io::sink()).unwrap();
    assert_eq!(digest, applied.diff_id);
    assert_eq!(
        archive::verify(&mut open(), target.as_fd(), &VerifyOptions::default()).unwrap(),
        Verdict::Valid
    );
    let grown = peak_kib() - before;
    println!("{grown} KiB");
    assert!(grown < ALLOWED_KIB, "{grown} KiB for a layer of 256 MiB");
}
