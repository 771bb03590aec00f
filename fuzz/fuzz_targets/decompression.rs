// SPDX-License-Identifier: MulanPSL-2.0
//! Decompression by magic number.
#![no_main]

use isula_storage::archive::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzzing::decompression(input);
});
