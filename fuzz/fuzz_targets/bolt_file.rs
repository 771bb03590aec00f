// SPDX-License-Identifier: MulanPSL-2.0
//! Bolt files with any content.
#![no_main]

use isula_storage::metadata::boltfile::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzzing::file(input);
});
