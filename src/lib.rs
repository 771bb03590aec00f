// SPDX-License-Identifier: MulanPSL-2.0
//! Crash-safe storage for container engines.
//!
//! ```text
//! bin, tests, benches, fuzz ──► storage (Rust API)
//! ffi ──► storage ─┬─► image  ─┐
//!  │               ├─► rootfs ─┼─► layer ─► driver ─► archive ─► sys
//!  └──► imagedb ───┼───────────┘ (through a small trait)          ▲
//!                  └─ stores and drivers ─► persist ──────────────┘
//! leaves for all: error id digest reference time units json;   spec, record: pure, for the stores
//! ```
//!
//! C callers read `include/isula_storage.h`; the Rust API is [`storage`] and the stores beneath it.

// The helpers of the tests in `tests/` serve the unit tests, too, under the name that they know the crate by.
#[cfg(test)]
extern crate self as isula_storage;

pub mod digest;
pub mod error;
pub mod id;
pub mod json;
pub mod reference;
pub mod time;
pub mod units;

pub mod record;
pub mod spec;

pub mod archive;
pub mod driver;
pub mod image;
pub mod imagedb;
pub mod layer;
pub mod metadata;
pub mod persist;
pub mod rootfs;
pub mod storage;

#[allow(unsafe_code, reason = "the only module that makes system calls the standard library lacks")]
pub mod sys;

#[allow(unsafe_code, reason = "the C ABI")]
pub mod ffi;
