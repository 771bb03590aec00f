// SPDX-License-Identifier: MulanPSL-2.0
//! See `bodies.rs`.
#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "one target uses one of them")]
mod bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bodies::docker_store(input);
});
