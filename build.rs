// SPDX-License-Identifier: MulanPSL-2.0
//! Build script.
fn main() {}
