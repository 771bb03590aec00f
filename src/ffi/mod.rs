// SPDX-License-Identifier: MulanPSL-2.0
//! The C ABI: shims that check arguments, call the core once and convert the result.
//!
//! | what | where |
//! |---|---|
//! | a panic, errno, the last error, the log | [`guard`] |
//! | C to Rust | [`arg`], [`stream`] |
//! | Rust to C, malloc-owned | [`cmem`], [`out`], [`out_spec`], [`free`] |
//! | structs, and the check of their layouts | [`types`], [`layout`] |
//! | what the process offers, and where the log goes | [`host`], [`logger`], [`isulad_log`] |
//! | the one process-wide store of each kind | [`global`] |
//! | one family of functions each | [`layer_store`], [`graphdriver`], [`image_store`], [`image_object`],
//! | | [`rootfs_store`], [`storage`], [`storage_image`], [`storage_layer`], [`storage_rootfs`],
//! | | [`docker_image_store`], [`docker_image_lists`], [`containerd_images`], [`containerd_images_namespaced`] |
//!
//! Rules of every function: each pointer is checked (NULL: EINVAL and the parameter's name; text that is not UTF-8:
//! EILSEQ); outputs are written on success only and whole; errno is set on failure only and kept on success; what is
//! given to C is malloc'ed, zeroed and deep; a panic becomes the failure value and latches the store it came from.

pub(crate) mod arg;
pub(crate) mod cmem;
pub mod containerd_images;
pub mod containerd_images_namespaced;
pub mod docker_image_lists;
pub mod docker_image_store;
pub(crate) mod docker_layers;
pub mod free;
pub(crate) mod global;
pub mod graphdriver;
pub mod guard;
pub mod host;
pub mod image_object;
pub mod image_store;
pub(crate) mod isulad_log;
pub mod layer_diff;
pub mod layer_store;
pub mod layout;
pub mod logger;
pub(crate) mod out;
pub(crate) mod out_spec;
pub(crate) mod pack;
#[cfg(feature = "remote-layer-store")]
pub mod remote;
pub mod rootfs_store;
pub mod storage;
pub mod storage_image;
pub mod storage_layer;
pub mod storage_rootfs;
pub(crate) mod stream;
pub mod types;

#[cfg(test)]
mod containerd_images_tests;
