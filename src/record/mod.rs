// SPDX-License-Identifier: MulanPSL-2.0
//! iSulad's own JSON records, read as leniently and written byte for byte as the reference does. Pure.

pub mod image;
pub mod layer;
pub mod mount_point;
