// SPDX-License-Identifier: MulanPSL-2.0
//! The tar reader, with the checksums as they come and with right ones.
#![no_main]

use isula_storage::archive::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzzing::tar_reader(input);
    fuzzing::tar_reader_signed(input);
});
