// SPDX-License-Identifier: MulanPSL-2.0
//! Unpacking allocates for a layer and for its directories, not for its entries. Alone in its process, so that nothing else
//! counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "tests"
)]

mod archive_common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use archive_common::{Scratch, Tar};
use isula_storage::archive::{self, ApplyOptions};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DIRECTORIES: usize = 10;

/// Files, hard links, symbolic links and whiteouts in the same directories however many there are.
fn layer(entries: usize) -> Vec<u8> {
    let mut tar = Tar::new();
    for dir in 0..DIRECTORIES {
        tar = tar.dir(format!("d{dir}"));
    }
    for number in 0..entries {
        let dir = number * DIRECTORIES / entries;
        tar = match number % 10 {
            7 => tar.symlink(format!("d{dir}/{number}"), "/some/where"),
            8 => tar.hard_link(format!("d{dir}/{number}"), format!("d{dir}/{}", number - 2)),
            9 => tar.file(format!("d{dir}/.wh.gone{number}"), ""),
            _ => tar.file(format!("d{dir}/{number}"), format!("content {number}").repeat(number % 40)),
        };
    }
    tar.end()
}

fn allocations(entries: usize) -> u64 {
    let bytes = layer(entries);
    let scratch = Scratch::new();
    let target = File::open(scratch.dir("target")).unwrap();
    let mut split = File::create(scratch.path().join("split.gz")).unwrap();
    let options = ApplyOptions { owners: rustix::process::geteuid().is_root(), ..ApplyOptions::default() };
    let before = COUNT.load(Ordering::Relaxed);
    let applied = archive::apply(&mut &bytes[..], target.as_fd(), &mut split, &options).unwrap();
    assert_eq!(applied.entries, (DIRECTORIES + entries) as u64);
    COUNT.load(Ordering::Relaxed) - before
}

#[test]
fn entries_cost_no_allocations() {
    allocations(100);
    // In one thread, and in several, where the channels between them allocate now and then.
    for (few, many) in [(100, 200), (5_000, 20_000)] {
        let (some, more) = (allocations(few), allocations(many));
        let grown = more.saturating_sub(some);
        println!("{few} entries: {some} allocations, {many}: {more}");
        assert!(grown < (many - few) as u64 / 20 + 10, "{grown} allocations for {} entries more", many - few);
    }
}
