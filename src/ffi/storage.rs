// SPDX-License-Identifier: MulanPSL-2.0
//! `storage_module_*`: the storage of a process, opened and closed as a whole; and layers by their compressed digest.
//!
//! An image store asks for layers through the process, not directly: a program may bring its own
//! `storage_layers_get_by_compress_digest` (the reference's own tests do), and it wins over ours.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;

use once_cell::sync::Lazy;

use crate::error::Result;
use crate::ffi::cmem::{self, Members};
use crate::ffi::free::free_layer_list;
use crate::ffi::global::{self, STORAGE};
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::types::{CLayerList, CStorageModuleInitOptions};
use crate::ffi::{arg, host, layer_store};
use crate::image::{LayerCandidate, LayerLookup};
use crate::layer::{LayerStore, LayerStoreOptions};
use crate::storage::{Storage, StorageOptions};

/// Opens the storage of this process: layers, images, containers, and what a start has to put right. From then on the
/// `layer_store_*`, `image_store_*` and `rootfs_store_*` functions work on the same stores.
///
/// Nothing is deleted out of doubt: what cannot be used is put aside or not listed, and reported through the log. Of each
/// container whose record is absent or does not parse, the clean-up function of the host is told once all is open.
///
/// @param opts borrowed; storage_root, storage_run_root and driver_name must be given and not be empty
/// @return 0, or -1 with errno EINVAL (NULL, unknown driver or option), EEXIST (the storage or one of its stores is open
/// already), EBUSY (another process owns it), EILSEQ (a text is not UTF-8), EOPNOTSUPP (the driver cannot work here), or
/// what the system said; after a failure nothing is open that was not before, and it can be tried again
///
/// # Safety
/// `opts` must be NULL or valid with all its members during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_module_init(opts: *mut CStorageModuleInitOptions) -> c_int {
    guard("storage_module_init", || {
        // SAFETY: the caller's promise.
        let options = unsafe { storage_options(opts) }?;
        // SAFETY: the caller's promise.
        let share = unsafe { layer_store::is_remote(opts) };
        #[cfg(feature = "remote-layer-store")]
        if share {
            // SAFETY: it is not NULL, or `storage_options` had refused it.
            crate::ffi::remote::check_lock(unsafe { (*opts).remote_lock })?;
        }
        global::open_all(|| {
            let lookup =
                |layers| -> Arc<dyn LayerLookup> { Arc::new(ProcessLayers { layers: Some(layers) }) };
            if share {
                Storage::open_shared_with(options, lookup)
            } else {
                Storage::open_with(options, lookup)
            }
        })?;
        #[cfg(feature = "remote-layer-store")]
        // SAFETY: as above; the lock lives until storage_module_exit has returned: the caller's promise.
        if share && let Err(error) = unsafe { crate::ffi::remote::start((*opts).remote_lock) } {
            global::close_all()?;
            return Err(error);
        }
        let broken = STORAGE.get()?.read(|storage| Ok(storage.containers()?.broken()))?;
        // With nothing held: the function may call the library.
        broken.iter().for_each(|id| host::report_broken_rootfs(id.as_str()));
        Ok(0)
    })
}

/// # Safety
/// As for `storage_module_init`.
unsafe fn storage_options(opts: *const CStorageModuleInitOptions) -> Result<StorageOptions> {
    // SAFETY: the caller's promise. Remote layers are seen to there.
    let LayerStoreOptions {
        root,
        run_root,
        driver,
        driver_options,
        durability,
        ownership,
        owner_shift,
        limits,
    } = unsafe { layer_store::options(opts) }?;
    // SAFETY: the caller's promise.
    let integration_check = unsafe { arg::required(opts, "opts") }?.integration_check;
    Ok(StorageOptions {
        root,
        run_root,
        driver,
        driver_options,
        durability,
        ownership,
        default_host: host::default_registry_host(),
        limits,
        owner_shift,
        integration_check,
    })
}

/// Closes the storage of this process: waits for the calls that are under way in other threads, gives up driver and
/// locks. Layers stay mounted. Later calls fail with ENODEV until storage_module_init is called again; closing what is not
/// open is fine. Not to be called by a function that the library calls, which would wait for itself.
#[unsafe(no_mangle)]
pub extern "C" fn storage_module_exit() {
    guard("storage_module_exit", global::close_all);
}

/// Frees options and all their members.
///
/// @param opts taken; malloc'ed, as its members; NULL is fine
///
/// # Safety
/// `opts` must be NULL or malloc'ed with malloc'ed members, and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_storage_module_init_options(opts: *mut CStorageModuleInitOptions) {
    // SAFETY: the caller's promise.
    guard_void("free_storage_module_init_options", || unsafe { cmem::free(opts) });
}

// SAFETY: numbers and pointers only: all zero bytes are valid and own nothing. The lock of remote layers is the caller's.
unsafe impl Members for CStorageModuleInitOptions {
    unsafe fn free_members(&mut self) {
        for text in [self.storage_run_root, self.storage_root, self.driver_name] {
            // SAFETY: the caller's promise.
            unsafe { cmem::release(text) };
        }
        // SAFETY: the caller's promise.
        unsafe { cmem::release_texts(self.driver_opts, self.driver_opts_len) };
    }
}

/// Gives the layers of which this is the compressed digest, from the process-wide layer store.
///
/// @param digest borrowed; compared as text, with its `sha256:`
/// @return freed with free_layer_list; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (the layer
/// store is not open), ENOMEM
///
/// The image store asks for the layers of images of schema 1 through this name and free_layer_list: a program may define
/// its own two, and they are used.
///
/// # Safety
/// `digest` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_layers_get_by_compress_digest(digest: *const c_char) -> *mut CLayerList {
    guard("storage_layers_get_by_compress_digest", || {
        // SAFETY: the caller's promise.
        let digest = unsafe { arg::text(digest, "digest") }?;
        let asked_for = ASKED_FOR.with_borrow(Clone::clone);
        Ok(layer_store::by_compressed_digest(asked_for.as_deref(), digest)?.into_raw())
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

thread_local! {
    /// The layers for which this thread asks the process at the moment.
    static ASKED_FOR: RefCell<Option<Arc<LayerStore>>> = const { RefCell::new(None) };
}

/// Layers as the process knows them.
///
/// Whether the process's function is ours cannot be told by its address: where a program brings its own, our name means
/// that one too. So the process is always asked, and ours finds here which layers are meant.
#[derive(Debug, Default)]
pub(crate) struct ProcessLayers {
    /// Layers of a storage that is not yet that of the process.
    layers: Option<Arc<LayerStore>>,
}

impl LayerLookup for ProcessLayers {
    fn by_compressed_digest(&self, digest: &str) -> Vec<LayerCandidate> {
        let Ok(digest) = CString::new(digest) else { return Vec::new() };
        let (get, free) = *FUNCTIONS;
        let before = ASKED_FOR.replace(self.layers.clone());
        // SAFETY: a string; the function gives NULL or a list that is ours.
        let list = unsafe { get(digest.as_ptr()) };
        ASKED_FOR.set(before);
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
