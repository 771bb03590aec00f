// SPDX-License-Identifier: MulanPSL-2.0
//! Lines of tar-split, and the compressed stream of them.
#![no_main]

use isula_storage::archive::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzzing::tar_split(input);
});
