// SPDX-License-Identifier: MulanPSL-2.0
//! Documents of others: descriptors, manifests, configs, image archives. Pure: bytes in, value out.

pub mod config;
