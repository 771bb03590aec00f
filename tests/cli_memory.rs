// SPDX-License-Identifier: MulanPSL-2.0
//! Memory of an import, measured by the kernel: it does not grow with the image.
//!
//! `ISULA_STORAGE_LARGE=1` runs it with 48,000 files and a gigabyte; `make bench` measures it on an image of real packages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod cli_support;

use std::path::Path;

use cli_support::Store;
use cli_support::common::need_root;
use cli_support::images::{compressed, large_archive};
use cli_support::peak::peak_kib;

/// What an import may need beyond what the program itself needs.
const ALLOWED_KIB: u64 = 64 << 10;

#[test]
fn an_import_needs_little_memory_however_large_the_image() {
    if !need_root() {
        return;
    }
    let (files, mib) =
        if std::env::var_os("ISULA_STORAGE_LARGE").is_some() { (48_000, 1024) } else { (10_000, 200) };
    let store = Store::in_memory();
    let archive = store.home().join("large.tar");
    large_archive(&archive, files, mib << 20);
    let idle = peak_kib(store.tool().arg("--help"));
    let (import, list) = (Path::new("import"), Path::new("layers"));
    let used = peak_kib(store.tool().args([import, &archive]));
    println!("{files} files, {mib} MiB: {used} KiB, idle {idle} KiB");
    assert!(used < idle + ALLOWED_KIB, "{used} KiB for {files} files of {mib} MiB, {idle} KiB idle");
    assert_eq!(store.layer_ids().len(), 1, "{list:?}");

    // Compressed, it is unpacked beside the store first; zstd needs a window, too.
    let bytes = std::fs::read(&archive).unwrap();
    let packed = store.home().join("large.tar.zst");
    std::fs::write(&packed, compressed("zstd", &bytes)).unwrap();
    drop(bytes);
    store.ok(["rmi", "large:1"]);
    let used = peak_kib(store.tool().args([import, &packed]));
    println!("compressed: {used} KiB");
    assert!(used < idle + ALLOWED_KIB, "{used} KiB compressed, {idle} KiB idle");
}
