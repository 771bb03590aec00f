// SPDX-License-Identifier: MulanPSL-2.0
//! Archives and streams made to do harm, through a whole storage: each case is either refused with a clear error or confined
//! to its layer, on overlay and on plain copies, on an ext4 of its own.
//!
//! After each case: nothing beside the store has changed, contents, modes, attributes and times; the store's own check, which
//! reads all content, finds nothing; and once the layer is deleted no file, mount or descriptor is left over. See
//! `harness.rs`. What the parser alone makes of archives is in `tests/archive_hostile.rs`.
//!
//! With `HOSTILE_SMALL` in the environment the cases that are about large numbers have smaller ones: for valgrind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

#[path = "../archive_common/mod.rs"]
mod archive_common;
#[path = "../common/mod.rs"]
mod common;

mod amounts;
mod harness;
mod headers;
mod limits;
mod links;
mod metadata;
mod names;
mod races;
mod space;
mod streams;
mod whiteouts;
