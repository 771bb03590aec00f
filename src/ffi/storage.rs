// SPDX-License-Identifier: MulanPSL-2.0
//! The part of `storage_*` that the image store needs: layers by their compressed digest.
//!
//! The image store asks through the process, not directly: a program may bring its own
//! `storage_layers_get_by_compress_digest` (the reference's own tests do), and it wins over ours.

use std::ffi::{CStr, CString, c_char, c_void};

use once_cell::sync::Lazy;

use crate::ffi::free::free_layer_list;
use crate::ffi::guard::guard;
use crate::ffi::types::CLayerList;
use crate::ffi::{arg, host, layer_store};
use crate::image::{LayerCandidate, LayerLookup};

/// Gives the layers of which this is the compressed digest, from the process-wide layer store.
///
/// @param digest borrowed; compared as text, with its `sha256:`
/// @return freed with free_layer_list; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (the layer
/// store is not open), ENOMEM
///
/// The image store asks for the layers of images of schema 1 through this name and free_layer_list: a program that is
/// linked with the shared library may define its own two, and they are used.
///
/// # Safety
/// `digest` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_layers_get_by_compress_digest(digest: *const c_char) -> *mut CLayerList {
    guard("storage_layers_get_by_compress_digest", || {
        // SAFETY: the caller's promise.
        let digest = unsafe { arg::text(digest, "digest") }?;
        Ok(layer_store::by_compressed_digest(digest)?.into_raw())
    })
}

type GetFn = unsafe extern "C" fn(*const c_char) -> *mut CLayerList;
type FreeFn = unsafe extern "C" fn(*mut CLayerList);

/// The process's two functions; ours when it has no such symbols, as when it is linked statically.
static FUNCTIONS: Lazy<(GetFn, FreeFn)> = Lazy::new(|| {
    let get = host::symbol(c"storage_layers_get_by_compress_digest");
    let free = host::symbol(c"free_layer_list");
    (
        // SAFETY: under this name the process has a function of this type.
        get.map_or(storage_layers_get_by_compress_digest, |f| unsafe {
            std::mem::transmute::<*mut c_void, GetFn>(f)
        }),
        // SAFETY: as above.
        free.map_or(free_layer_list, |f| unsafe { std::mem::transmute::<*mut c_void, FreeFn>(f) }),
    )
});

/// Layers as the process knows them.
#[derive(Debug)]
pub(crate) struct ProcessLayers;

impl LayerLookup for ProcessLayers {
    fn by_compressed_digest(&self, digest: &str) -> Vec<LayerCandidate> {
        let Ok(digest) = CString::new(digest) else { return Vec::new() };
        let (get, free) = *FUNCTIONS;
        // SAFETY: a string; the function gives NULL or a list that is ours.
        let list = unsafe { get(digest.as_ptr()) };
        // SAFETY: as above.
        let candidates = unsafe { candidates(list) };
        // SAFETY: not used any more.
        unsafe { free(list) };
        candidates
    }
}

/// # Safety
/// `list` is NULL or a valid list of layers.
unsafe fn candidates(list: *const CLayerList) -> Vec<LayerCandidate> {
    // SAFETY: the caller's promise, for all that follow.
    let Some(list) = (unsafe { list.as_ref() }) else { return Vec::new() };
    if list.layers.is_null() {
        return Vec::new();
    }
    let text = |pointer: *mut c_char| {
        // SAFETY: as above: NULL or a string.
        (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
    };
    (0..list.layers_len)
        // SAFETY: as above: `layers_len` pointers, each NULL or to a layer.
        .filter_map(|index| unsafe { (*list.layers.add(index)).as_ref() })
        .filter_map(|layer| {
            Some(LayerCandidate {
                id: text(layer.id)?,
                parent: text(layer.parent),
                uncompressed_digest: text(layer.uncompressed_digest),
            })
        })
        .collect()
}
