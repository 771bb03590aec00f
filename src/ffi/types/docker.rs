// SPDX-License-Identifier: MulanPSL-2.0
//! Docker's images and layers. Our own.
#![allow(non_camel_case_types, reason = "the names are those of a C interface")]

use std::ffi::{c_char, c_int, c_void};

use super::CJsonMapStringString;

/// An open image store. Only a handle: it is never looked into.
#[derive(Debug)]
pub struct CDockerImageStore {
    _private: [u8; 0],
}

/// What a release callback says that it has removed. Only a handle.
#[derive(Debug)]
pub struct CDockerRemovedLayers {
    _private: [u8; 0],
}

/// Layers are those of the callbacks in docker_image_layers.
pub const DOCKER_IMAGE_LAYERS_CALLBACKS: c_int = 0;
/// Layers are those of the storage of this process (storage_module_init), which may be opened and closed at any time; while
/// it is not open, no image with layers can be made. A chain ID is the id of a layer.
pub const DOCKER_IMAGE_LAYERS_STORAGE: c_int = 1;
/// Layers are those that a Docker daemon has recorded in layerdb, beside imagedb. They are never removed.
pub const DOCKER_IMAGE_LAYERS_LAYERDB: c_int = 2;
/// There are no layers: every image has to be without.
pub const DOCKER_IMAGE_LAYERS_NONE: c_int = 3;

/// How to open a store. Zero bytes but for the size are the defaults.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerImageStoreOptions {
    /// sizeof(struct docker_image_store_options).
    pub size: usize,
    /// Nothing is ever written and no lock is taken; what changes something fails with EROFS.
    pub read_only: bool,
    /// Nothing is flushed: a power cut may lose the last changes. For those who ask.
    pub no_sync: bool,
    /// Where the layers are: one of DOCKER_IMAGE_LAYERS_*.
    pub layers: c_int,
}

/// Takes a reference on the layer with this chain ID: 0, ENOENT (there is none), or another errno.
pub type docker_image_retain_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, chain_id: *const c_char) -> c_int>;

/// Gives a reference back for good: removes the layer and what it stands on as far as nothing uses them any more, and tells
/// of each by docker_image_store_add_removed_layer, top first. 0 or an errno.
pub type docker_image_release_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        chain_id: *const c_char,
        removed: *mut CDockerRemovedLayers,
    ) -> c_int,
>;

/// Gives a reference back and removes nothing: the store is closed, or an image was not made.
pub type docker_image_forget_fn = Option<unsafe extern "C" fn(context: *mut c_void, chain_id: *const c_char)>;

/// A store of layers, which the caller has. No lock is held while one of its functions is called: it may use the image
/// store, but not close it. They may be called from any thread that uses the image store, and several at once.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CDockerImageLayers {
    /// sizeof(struct docker_image_layers).
    pub size: usize,
    /// Handed to the functions.
    pub context: *mut c_void,
    /// Has to be given.
    pub retain: docker_image_retain_fn,
    /// Has to be given.
    pub release: docker_image_release_fn,
    /// May be NULL: references are not counted by whoever has the layers, or not beyond this process.
    pub forget: docker_image_forget_fn,
}

/// How a layer came about.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerImageHistory {
    /// When, RFC 3339, or NULL; so are the others.
    pub created: *mut c_char,
    /// By whom.
    pub author: *mut c_char,
    /// By which command.
    pub created_by: *mut c_char,
    /// Free text.
    pub comment: *mut c_char,
    /// It made no layer.
    pub empty_layer: bool,
}

/// How a container of an image is to run.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerImageConfig {
    /// `user`, `user:group`, names or numbers, or NULL.
    pub user: *mut c_char,
    /// Where the command starts, or NULL.
    pub working_dir: *mut c_char,
    /// Signal that asks a container to stop, or NULL.
    pub stop_signal: *mut c_char,
    /// `80/tcp` and the like.
    pub exposed_ports: *mut *mut c_char,
    /// Their number.
    pub exposed_ports_len: usize,
    /// `NAME=value` each.
    pub env: *mut *mut c_char,
    /// Their number.
    pub env_len: usize,
    /// Command with arguments.
    pub entrypoint: *mut *mut c_char,
    /// Their number.
    pub entrypoint_len: usize,
    /// Arguments of the entry point, or command with arguments.
    pub cmd: *mut *mut c_char,
    /// Their number.
    pub cmd_len: usize,
    /// Paths.
    pub volumes: *mut *mut c_char,
    /// Their number.
    pub volumes_len: usize,
    /// Labels in order. Never NULL.
    pub labels: *mut CJsonMapStringString,
}

/// An image. U+FFFD stands in its texts for a NUL, and for what is no Unicode; `json` has the bytes as they are. All that it
/// points to goes with it, and is not freed by itself.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerImage {
    /// `sha256:` and 64 hexadecimal digits: the digest of its config.
    pub id: *mut c_char,
    /// Id of the image that it was made from, or NULL. That image may be gone.
    pub parent: *mut c_char,
    /// Chain ID of its top layer; NULL of an image without layers.
    pub chain_id: *mut c_char,
    /// When it was made, RFC 3339, or NULL; so are the others.
    pub created: *mut c_char,
    /// Who made it.
    pub author: *mut c_char,
    /// Free text.
    pub comment: *mut c_char,
    /// Container that it was made from.
    pub container: *mut c_char,
    /// Version of Docker that made it.
    pub docker_version: *mut c_char,
    /// Processor, in Go's words.
    pub architecture: *mut c_char,
    /// Variant of the processor.
    pub variant: *mut c_char,
    /// Operating system, in Go's words; NULL is Linux.
    pub os: *mut c_char,
    /// Version of the operating system.
    pub os_version: *mut c_char,
    /// What the layers are: `layers`.
    pub rootfs_type: *mut c_char,
    /// Features of the operating system.
    pub os_features: *mut *mut c_char,
    /// Their number.
    pub os_features_len: usize,
    /// Diff IDs of the layers, base first.
    pub diff_ids: *mut *mut c_char,
    /// Their number.
    pub diff_ids_len: usize,
    /// How each layer came about, base first, one behind the other. In lists NULL.
    pub history: *mut CDockerImageHistory,
    /// Their number.
    pub history_len: usize,
    /// How a container of it is to run. In lists NULL.
    pub config: *mut CDockerImageConfig,
    /// The config exactly as it is, with a NUL behind it. In lists NULL.
    pub json: *mut c_char,
    /// Its length in bytes, without that NUL.
    pub json_len: usize,
}

/// A layer that went with an image.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerRemovedLayer {
    /// Chain ID.
    pub chain_id: *mut c_char,
    /// Diff ID, or NULL where it is not known.
    pub diff_id: *mut c_char,
    /// Size of the layer and all below it, in bytes.
    pub size: u64,
    /// Size of the layer alone, in bytes.
    pub diff_size: u64,
}

/// A layer that a Docker daemon has recorded.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerLayer {
    /// Chain ID.
    pub chain_id: *mut c_char,
    /// Diff ID.
    pub diff_id: *mut c_char,
    /// Chain ID of the layer below, or NULL.
    pub parent: *mut c_char,
    /// Name of its directory in that of the graph driver.
    pub cache_id: *mut c_char,
    /// Size of the layer and all below it, in bytes.
    pub size: u64,
    /// Size of the layer alone, in bytes.
    pub diff_size: u64,
}

/// A name of an image.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerImageName {
    /// `repository:tag` or `repository@digest`, without the default host and its `library/`.
    pub name: *mut c_char,
    /// Id of the image, which need not be there.
    pub image: *mut c_char,
}

/// Something that was wrong when a store was opened.
#[repr(C)]
#[derive(Debug)]
pub struct CDockerImageProblem {
    /// What: `image sha256:…`, `repositories.json`.
    pub subject: *mut c_char,
    /// Why.
    pub reason: *mut c_char,
    /// It was put aside, into `.isula-storage/quarantine`; else it was left where it is.
    pub put_aside: bool,
}
