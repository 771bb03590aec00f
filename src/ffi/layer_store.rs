// SPDX-License-Identifier: MulanPSL-2.0
//! `layer_store_*` and `layer_*_hold_refs`: the process-wide layer store.

use std::ffi::{c_char, c_int};
use std::io::Read;

use crate::error::{Error, Result};
use crate::ffi::global::{self, LAYERS};
use crate::ffi::guard::guard;
use crate::ffi::stream::CallerStream;
use crate::ffi::types::{
    CContainerInspectGraphDriver, CImagetoolFsInfo, CIoReadWrapper, CLayer, CLayerList, CLayerOpts,
    CStorageModuleInitOptions,
};
use crate::ffi::{arg, cmem, host, out};
use crate::id::LayerId;
use crate::layer::{CreateLayer, Created, LayerStore, LayerStoreOptions};
use crate::storage::{Durability, Limits, Ownership, Verdict};

/// Opens the process-wide layer store: its driver, what a crash left, all records.
///
/// @param conf borrowed; storage_root, storage_run_root and driver_name must be given and not be empty
/// @return 0, or -1 with errno EINVAL (NULL, unknown driver or option), EEXIST (open already), EBUSY (another process
/// owns the store), EILSEQ (a text is not UTF-8), EOPNOTSUPP (the driver cannot work here), or what the system said
///
/// Source: design document of the layer store, 3.1.
///
/// # Safety
/// `conf` must be NULL or valid with all its members during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_init(conf: *const CStorageModuleInitOptions) -> c_int {
    guard("layer_store_init", || {
        // SAFETY: the caller's promise.
        let options = unsafe { options(conf) }?;
        // SAFETY: as above.
        let open = if unsafe { is_remote(conf) } { LayerStore::open_shared } else { LayerStore::open };
        LAYERS.open(|| open(options))?;
        Ok(0)
    })
}

/// Whether layers are to be shared with other hosts.
///
/// # Safety
/// As for `layer_store_init`.
#[cfg_attr(not(feature = "remote-layer-store"), expect(unused_variables, reason = "the member is missing"))]
pub(crate) unsafe fn is_remote(conf: *const CStorageModuleInitOptions) -> bool {
    #[cfg(feature = "remote-layer-store")]
    // SAFETY: the caller's promise.
    return unsafe { conf.as_ref() }.is_some_and(|conf| conf.enable_remote_layer);
    #[cfg(not(feature = "remote-layer-store"))]
    false
}

/// # Safety
/// As for `layer_store_init`.
pub(crate) unsafe fn options(conf: *const CStorageModuleInitOptions) -> Result<LayerStoreOptions> {
    // SAFETY: the caller's promise, for all that follow.
    let conf = unsafe { arg::required(conf, "conf") }?;
    // SAFETY: as above.
    let root = unsafe { arg::path(conf.storage_root, "conf->storage_root") }?;
    // SAFETY: as above.
    let run_root = unsafe { arg::path(conf.storage_run_root, "conf->storage_run_root") }?;
    // SAFETY: as above.
    let driver = unsafe { arg::text(conf.driver_name, "conf->driver_name") }?;
    let opts = conf.driver_opts.cast_const().cast();
    // SAFETY: as above.
    let driver_options = unsafe { arg::texts(opts, conf.driver_opts_len, "conf->driver_opts") }?;
    Ok(LayerStoreOptions {
        root: root.to_owned(),
        run_root: run_root.to_owned(),
        driver: driver.to_owned(),
        driver_options,
        durability: Durability::Full,
        ownership: Ownership::Owner,
        owner_shift: host::owner_shift()?,
        limits: Limits::default(),
    })
}

/// Closes the process-wide layer store: waits for creates that are under way, releases the driver. Layers stay
/// mounted. Later calls fail with ENODEV until layer_store_init is called again; closing twice is fine. Not to be called
/// by the read function of a create, which would wait for itself.
#[unsafe(no_mangle)]
pub extern "C" fn layer_store_exit() {
    guard("layer_store_exit", close);
}

fn close() -> Result<()> {
    global::stop_refresh();
    LAYERS.take().map_or(Ok(()), |store| store.read(LayerStore::close))
}

/// Frees what layer_store_exit left in the reference; here layer_store_exit leaves nothing, so this is the same.
#[unsafe(no_mangle)]
pub extern "C" fn layer_store_cleanup() {
    guard("layer_store_cleanup", close);
}

/// Does nothing: in the reference it takes the last layer out of a list that this library does not have.
#[unsafe(no_mangle)]
pub extern "C" fn remove_layer_list_tail() {
    guard("remove_layer_list_tail", || Ok(()));
}

/// Makes a layer, from an archive if there is one. The new layer has one hold reference.
///
/// @param id borrowed; 1-255 bytes, one path component that does not start with a dot
/// @param opts borrowed; its uncompressed_digest, if given, is verified against the archive
/// @param content borrowed; a stream of a layer archive (tar, plain or compressed by gzip, zstd, bzip2 or xz), read
/// once, forward, to its end by its read function; context may be anything; close is not called; NULL: an empty layer.
/// The read function may call the library: no lock is held
/// @param new_id out, may be NULL; the id, malloc'ed, freed with free(); not written when the layer existed
/// @return 0: made, or a layer of this id or name existed and gained a hold reference (nothing is read or compared);
/// -1 with errno EINVAL (NULL, bad id, no read function), EILSEQ (a text is not UTF-8), ENOENT (no such parent), EEXIST
/// (a name belongs to another layer), EBADMSG (not an archive, truncated, or another digest), EFBIG (a limit), ENODEV
/// (not open), EIO (the read function failed without errno), or what the system said; nothing remains then
///
/// Source: design document of the layer store, 3.3.
///
/// # Safety
/// All pointers must be valid during the call; `content` may be read from any thread, by one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_create(
    id: *const c_char,
    opts: *const CLayerOpts,
    content: *const CIoReadWrapper,
    new_id: *mut *mut c_char,
) -> c_int {
    guard("layer_store_create", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = LayerId::new(unsafe { arg::text(id, "id") }?)?;
        // SAFETY: as above.
        let layer = unsafe { create_options(opts) }?;
        // SAFETY: as above.
        let mut content = unsafe { CallerStream::new(content, "content") }?;
        let content = content.as_mut().map(|content| content as &mut (dyn Read + Send));
        let store = LAYERS.get()?;
        if let Created::New(id) = store.write(|store| store.create(&id, &layer, content))? {
            // SAFETY: as above.
            unsafe { give_id(new_id, &id) }?;
        }
        Ok(0)
    })
}

/// # Safety
/// `new_id` is NULL or may be written.
unsafe fn give_id(new_id: *mut *mut c_char, id: &LayerId) -> Result<()> {
    if !new_id.is_null() {
        let text = cmem::text(id.as_str())?;
        // SAFETY: the caller's promise.
        unsafe { new_id.write(text) };
    }
    Ok(())
}

/// # Safety
/// `opts` is NULL or valid with all its members.
unsafe fn create_options(opts: *const CLayerOpts) -> Result<CreateLayer> {
    // SAFETY: the caller's promise, here and for what follows.
    let opts = unsafe { arg::required(opts, "opts") }?;
    // SAFETY: as above.
    let text =
        |pointer, name| unsafe { arg::optional_text(pointer, name) }.map(|text| text.map(str::to_owned));
    let mut layer = CreateLayer {
        parent: text(opts.parent, "opts->parent")?.as_deref().map(LayerId::new).transpose()?,
        // SAFETY: as above.
        names: unsafe { arg::texts(opts.names.cast_const().cast(), opts.names_len, "opts->names") }?,
        writable: opts.writable,
        compressed_digest: text(opts.compressed_digest, "opts->compressed_digest")?,
        uncompressed_digest: text(opts.uncompressed_digest, "opts->uncompressed_digest")?,
        ..CreateLayer::default()
    };
    // SAFETY: as above.
    if let Some(more) = unsafe { opts.opts.as_ref() } {
        layer.mount_label = text(more.mount_label, "opts->opts->mount_label")?;
        // SAFETY: as above.
        layer.storage_options = unsafe { arg::map(more.mount_opts, "opts->opts->mount_opts") }?;
    }
    Ok(layer)
}

/// Adds a hold reference to a layer. References live in memory only and are 0 after a restart.
///
/// @param layer_id borrowed; an id, not a name
/// @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_inc_hold_refs(layer_id: *const c_char) -> c_int {
    guard("layer_inc_hold_refs", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        LAYERS.get()?.write(|store| store.hold(&id))?;
        Ok(0)
    })
}

/// Drops a hold reference of a layer. The count may become negative, as in the reference.
///
/// @param layer_id borrowed; an id, not a name
/// @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_dec_hold_refs(layer_id: *const c_char) -> c_int {
    guard("layer_dec_hold_refs", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        LAYERS.get()?.write(|store| store.release(&id))?;
        Ok(0)
    })
}

/// Gives the number of hold references of a layer.
///
/// @param layer_id borrowed; an id, not a name
/// @param ref_num out
/// @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
///
/// # Safety
/// `layer_id` must be NULL or a string, `ref_num` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_get_hold_refs(layer_id: *const c_char, ref_num: *mut c_int) -> c_int {
    guard("layer_get_hold_refs", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        // SAFETY: the caller's promise.
        let ref_num = unsafe { arg::out(ref_num, "ref_num") }?;
        ref_num.set(LAYERS.get()?.read(|store| store.hold_count(&id))?);
        Ok(0)
    })
}

/// Deletes a layer; unmounts it first if it is mounted, whatever its hold references.
///
/// @param id borrowed; an id or name
/// @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, EBUSY (other layers stand on it), ENODEV
/// (not open), or what the system said
///
/// Source: design document of the layer store, 3.5.
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_delete(id: *const c_char) -> c_int {
    guard("layer_store_delete", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        LAYERS.get()?.write(|store| store.delete(id))?;
        Ok(0)
    })
}

/// Whether a layer exists.
///
/// @param id borrowed; an id or name
/// @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_exists(id: *const c_char) -> bool {
    guard("layer_store_exists", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        LAYERS.get()?.read(|store| Ok(store.exists(id)))
    })
}

/// Gives all layers, in order of creation.
///
/// @param resp out; its members belong to the caller: isula_storage_clear_layer_list, or free_layer_list if the struct
/// itself is malloc'ed. Without layers the array is empty, not NULL
/// @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
///
/// # Safety
/// `resp` must be NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_list(resp: *mut CLayerList) -> c_int {
    guard("layer_store_list", || {
        // SAFETY: the caller's promise.
        let resp = unsafe { arg::out(resp, "resp") }?;
        let layers = LAYERS.get()?.read(|store| Ok(store.list()))?;
        resp.set(out::layer_list(&layers)?.into_value());
        Ok(0)
    })
}

/// Gives the layers of which this is the compressed digest, in order of creation.
///
/// @param digest borrowed; compared as text, with its `sha256:`
/// @param resp out; as for layer_store_list
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not open), ENOMEM
///
/// # Safety
/// `digest` must be NULL or a string, `resp` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_by_compress_digest(
    digest: *const c_char,
    resp: *mut CLayerList,
) -> c_int {
    guard("layer_store_by_compress_digest", || {
        // SAFETY: the caller's promise.
        let digest = unsafe { arg::text(digest, "digest") }?;
        // SAFETY: the caller's promise.
        let resp = unsafe { arg::out(resp, "resp") }?;
        resp.set(by_compressed_digest(None, digest)?.into_value());
        Ok(0)
    })
}

/// The layers of this store, or else of the process's, of which this is the compressed digest; none: `NotFound`.
pub(crate) fn by_compressed_digest(
    store: Option<&LayerStore>,
    digest: &str,
) -> Result<cmem::CBox<CLayerList>> {
    let layers = match store {
        Some(store) => store.by_compressed_digest(digest),
        None => LAYERS.get()?.read(|store| Ok(store.by_compressed_digest(digest)))?,
    };
    if layers.is_empty() {
        return Err(Error::not_found(format!("no layer has the compressed digest {digest}")));
    }
    out::layer_list(&layers)
}

/// Gives the layers of which this is the uncompressed digest, in order of creation.
///
/// @param digest borrowed; compared as text, with its `sha256:`
/// @param resp out; as for layer_store_list
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not open), ENOMEM
///
/// # Safety
/// `digest` must be NULL or a string, `resp` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_by_uncompress_digest(
    digest: *const c_char,
    resp: *mut CLayerList,
) -> c_int {
    guard("layer_store_by_uncompress_digest", || {
        // SAFETY: the caller's promise.
        let digest = unsafe { arg::text(digest, "digest") }?;
        // SAFETY: the caller's promise.
        let resp = unsafe { arg::out(resp, "resp") }?;
        let layers = LAYERS.get()?.read(|store| Ok(store.by_uncompressed_digest(digest)))?;
        if layers.is_empty() {
            return Err(Error::not_found(format!("no layer has the uncompressed digest {digest}")));
        }
        resp.set(out::layer_list(&layers)?.into_value());
        Ok(0)
    })
}

/// Gives a layer.
///
/// @param name borrowed; an id or name, whole
/// @return the layer, freed with free_layer; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not
/// open), ENOMEM
///
/// # Safety
/// `name` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_lookup(name: *const c_char) -> *mut CLayer {
    guard("layer_store_lookup", || {
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(name, "name") }?;
        let layer = LAYERS.get()?.read(|store| Ok(store.find(name)))?;
        let layer = layer.ok_or_else(|| Error::not_found(format!("no such layer: {name}")))?;
        Ok(out::layer(&layer)?.into_raw())
    })
}

/// Mounts a layer, counting.
///
/// @param id borrowed; an id or name
/// @return the root of the mounted layer, malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no
/// such layer), ENODEV (not open), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_mount(id: *const c_char) -> *mut c_char {
    guard("layer_store_mount", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        let path = LAYERS.get()?.write(|store| store.mount(id))?;
        out::path(&path)
    })
}

/// Drops one mount of a layer, or all of them.
///
/// @param id borrowed; an id or name; NULL is fine
/// @param force drop all mounts, not one
/// @return 0: done, or there was nothing to do (NULL, no such layer, not mounted); -1 with errno EILSEQ, ENODEV (not
/// open), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_umount(id: *const c_char, force: bool) -> c_int {
    guard("layer_store_umount", || {
        // SAFETY: the caller's promise.
        if let Some(id) = unsafe { arg::optional_text(id, "id") }? {
            LAYERS.get()?.write(|store| store.unmount(id, force))?;
        }
        Ok(0)
    })
}

/// Rebuilds what a layer stands on if it is broken.
///
/// @param id borrowed; an id or name
/// @return 0: in order or repaired; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such layer), EUCLEAN (cannot be
/// repaired), ENODEV (not open), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_try_repair_lowers(id: *const c_char) -> c_int {
    guard("layer_store_try_repair_lowers", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        LAYERS.get()?.write(|store| store.repair_lowers(id))?;
        Ok(0)
    })
}

/// Gives what a layer itself holds, without the layers beneath it.
///
/// @param layer_id borrowed; an id
/// @param fs_info out; one element with the time in nanoseconds since 1970, the directory, its apparent size in bytes and
/// number of inodes; freed with isula_storage_clear_imagetool_fs_info
/// @return 0: given, or there is no such layer and nothing was written; -1 with errno EINVAL (NULL, bad id), EILSEQ,
/// ENODEV (not open), ENOMEM, or what the system said
///
/// Source: design document of the layer store, 3.10.
///
/// # Safety
/// `layer_id` must be NULL or a string, `fs_info` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_get_layer_fs_info(
    layer_id: *const c_char,
    fs_info: *mut CImagetoolFsInfo,
) -> c_int {
    guard("layer_store_get_layer_fs_info", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        // SAFETY: the caller's promise.
        let fs_info = unsafe { arg::out(fs_info, "fs_info") }?;
        if let Some((path, usage)) = LAYERS.get()?.read(|store| store.usage(&id))? {
            fs_info.set(out::fs_info(&path, usage)?.into_value());
        }
        Ok(0)
    })
}

/// Gives the most bytes that a layer itself may hold: the `size` with which a container was made.
///
/// @param layer_id borrowed
/// @param bytes out; in bytes; 0: it has no limit
/// @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open), or what the system
/// said
///
/// # Safety
/// `layer_id` must be NULL or a string, `bytes` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_layer_limit(layer_id: *const c_char, bytes: *mut u64) -> c_int {
    guard("isula_storage_layer_limit", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        // SAFETY: as above.
        let bytes = unsafe { arg::out(bytes, "bytes") }?;
        let limit = LAYERS.get()?.read(|store| store.limit(&id))?;
        bytes.set(limit.map_or(0, |limit| limit.0));
        Ok(0)
    })
}

/// Gives where a layer's content is.
///
/// @param id borrowed; an id
/// @return freed with isula_storage_free_graph_driver; NULL with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such
/// layer: the reference makes paths up), ENODEV (not open), ENOMEM, or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_get_metadata_by_layer_id(
    id: *const c_char,
) -> *mut CContainerInspectGraphDriver {
    guard("layer_store_get_metadata_by_layer_id", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(id, "id") }?)?;
        let (name, metadata) =
            LAYERS.get()?.read(|store| Ok((store.driver().name(), store.metadata(&id)?)))?;
        Ok(out::graph_driver(name, &metadata)?.into_raw())
    })
}

/// Compares an image layer with what was read when it was made.
///
/// @param id borrowed; an id or name
/// @return 0: as it was, or a container's layer; 1: it differs (the log says where); -1 with errno EINVAL (NULL), EILSEQ,
/// ENOENT (no such layer), ENODEV (not open), or what the system said: it could not be found out
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_store_check(id: *const c_char) -> c_int {
    guard("layer_store_check", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        match LAYERS.get()?.read(|store| store.check(id))? {
            Verdict::Valid => Ok(0),
            Verdict::Differs(where_) => {
                log::warn!("layer {id} differs from its archive: {where_}");
                Ok(1)
            }
        }
    })
}
