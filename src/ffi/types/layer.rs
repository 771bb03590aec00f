// SPDX-License-Identifier: MulanPSL-2.0
//! Layers, how the store is opened, and its driver. Source: `storage.h`, `layer_store.h`, `driver.h` of iSulad.

use std::ffi::{c_char, c_int};

use super::libisula::CJsonMapStringString;

/// A layer: a snapshot that belongs to the caller, freed by free_layer.
#[repr(C)]
#[derive(Debug)]
pub struct CLayer {
    /// Id.
    pub id: *mut c_char,
    /// Id of the layer it stands on, or NULL.
    pub parent: *mut c_char,
    /// Where it is or would be mounted, or NULL.
    pub mount_point: *mut c_char,
    /// How often it is mounted.
    pub mount_count: c_int,
    /// Digest of the compressed archive, or NULL.
    pub compressed_digest: *mut c_char,
    /// Size of the compressed archive in bytes, 0 if not recorded.
    pub compress_size: i64,
    /// Digest of the uncompressed archive, or NULL.
    pub uncompressed_digest: *mut c_char,
    /// Sum of the sizes of the archive's entries in bytes.
    pub uncompress_size: i64,
    /// A container's layer.
    pub writable: bool,
}

/// A list of layers that belongs to the caller.
#[repr(C)]
#[derive(Debug)]
pub struct CLayerList {
    /// The layers.
    pub layers: *mut *mut CLayer,
    /// Their number.
    pub layers_len: usize,
}

/// How to open the stores.
#[repr(C)]
#[derive(Debug)]
pub struct CStorageModuleInitOptions {
    /// Directory of what is lost at a reboot: mount state.
    pub storage_run_root: *mut c_char,
    /// Directory of everything else.
    pub storage_root: *mut c_char,
    /// `overlay`, `overlay2` (both keep their data in `overlay`), `vfs`.
    pub driver_name: *mut c_char,
    /// `key=value` options of the driver, and limits of a layer: `layer.max_entries`, `layer.max_size`, `layer.max_ratio`.
    pub driver_opts: *mut *mut c_char,
    /// Their number.
    pub driver_opts_len: usize,
    /// Check the content of all layers at start.
    pub integration_check: bool,
    /// Layers may come from a remote directory.
    #[cfg(feature = "remote-layer-store")]
    pub enable_remote_layer: bool,
    /// Lock that the caller shares with the refresh of remote layers.
    #[cfg(feature = "remote-layer-store")]
    pub remote_lock: *mut libc::pthread_rwlock_t,
}

/// Options of a layer's creation that go to the driver.
#[repr(C)]
#[derive(Debug)]
pub struct CLayerStoreMountOpts {
    /// SELinux label, or NULL.
    pub mount_label: *mut c_char,
    /// Storage options such as `size` (not mount options: the name is historical), or NULL.
    pub mount_opts: *mut CJsonMapStringString,
}

/// What a new layer is to be.
#[repr(C)]
#[derive(Debug)]
pub struct CLayerOpts {
    /// Id of the layer it stands on, or NULL.
    pub parent: *mut c_char,
    /// Other names by which it is found.
    pub names: *mut *mut c_char,
    /// Their number.
    pub names_len: usize,
    /// A container's layer.
    pub writable: bool,
    /// Digest of the uncompressed archive (`sha256:` and 64 hex digits), verified; or NULL.
    pub uncompressed_digest: *mut c_char,
    /// Digest of the compressed archive, or NULL.
    pub compressed_digest: *mut c_char,
    /// More options, or NULL.
    pub opts: *mut CLayerStoreMountOpts,
}

/// What the storage facade is given to make a layer.
#[repr(C)]
#[derive(Debug)]
pub struct CStorageLayerCreateOpts {
    /// Id of the layer it stands on, or NULL.
    pub parent: *const c_char,
    /// Digest of the uncompressed archive.
    pub uncompress_digest: *const c_char,
    /// Digest of the compressed archive.
    pub compressed_digest: *const c_char,
    /// Path of the archive.
    pub layer_data_path: *const c_char,
    /// A container's layer.
    pub writable: bool,
    /// Storage options such as `size`, or NULL.
    pub storage_opts: *mut CJsonMapStringString,
}

/// What the storage facade is given to make a layer, under iSulad's name.
#[allow(non_camel_case_types, reason = "the name is iSulad's")]
pub type storage_layer_create_opts_t = CStorageLayerCreateOpts;

/// What a driver says of itself.
#[repr(C)]
#[derive(Debug)]
pub struct CGraphdriverStatus {
    /// Name.
    pub driver_name: *mut c_char,
    /// File system below it.
    pub backing_fs: *mut c_char,
    /// Lines `Name: value`.
    pub status: *mut c_char,
}
