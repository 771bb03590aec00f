// SPDX-License-Identifier: MulanPSL-2.0
//! Documents of others: descriptors, manifests, configs, image archives. Pure: bytes in, value out.
//!
//! Documents are read with the leniency of [`crate::json`]; what a document must have and lacks is `InvalidData`.

pub mod config;
pub mod descriptor;
pub mod docker_archive;
pub mod docker_config;
pub mod manifest;
pub mod oci_layout;
pub mod platform;
pub mod schema1;
