// SPDX-License-Identifier: MulanPSL-2.0
//! Layers of real images and archives of every format that GNU tar and bsdtar write: unpacked as GNU tar unpacks
//! them, verified, and rebuilt byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod archive_common;

use archive_common::{Scratch, apply_and_check, is_root, layers_of};

#[test]
fn layers_of_real_images_are_rebuilt_byte_for_byte() {
    if !is_root() {
        return;
    }
    for image in ["bb.tar.gz", "bb-nonutf8.tar.gz", "opq.tar.gz"] {
        for (index, layer) in layers_of(image).into_iter().enumerate() {
            let scratch = Scratch::new();
            let (applied, _) = apply_and_check(&layer, &scratch.dir("layer"));
            assert!(applied.entries > 0, "{image} {index}");
        }
    }
}
