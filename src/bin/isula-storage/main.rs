// SPDX-License-Identifier: MulanPSL-2.0
//! `isula-storage`: looks into, fills and mends a store.
fn main() {}
