// SPDX-License-Identifier: MulanPSL-2.0
//! Files of image metadata with anything in them.
#![no_main]

use isula_storage::metadata::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzzing::images(input);
});
