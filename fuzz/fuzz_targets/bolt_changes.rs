// SPDX-License-Identifier: MulanPSL-2.0
//! Any changes of a bolt file, beside a map.
#![no_main]

use isula_storage::metadata::boltfile::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzzing::changes(input);
});
