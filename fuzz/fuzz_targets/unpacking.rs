// SPDX-License-Identifier: MulanPSL-2.0
//! Unpacking into directories, in one thread and in three. Run it without privileges, with TMPDIR on a tmpfs.
#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "the other targets use the rest")]
mod bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::unpacking(input));
