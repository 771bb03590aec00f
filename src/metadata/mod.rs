// SPDX-License-Identifier: MulanPSL-2.0
//! containerd-style image metadata.
//!
//! [`boltfile`] is the database file beneath it.

pub mod boltfile;
