// SPDX-License-Identifier: MulanPSL-2.0
//! `storage_layer_*`, hold references and chains of layers: what brings images into the storage and takes them back.

use std::ffi::{OsStr, c_char, c_int};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{During, Error, Result};
use crate::ffi::global::STORAGE;
use crate::ffi::guard::guard;
use crate::ffi::types::{CLayer, CLayerList, storage_layer_create_opts_t};
use crate::ffi::{arg, out};
use crate::id::LayerId;
use crate::layer::CreateLayer;

/// Makes a layer from an archive, or an empty one for a container. The new layer has one hold reference.
///
/// @param layer_id borrowed; 1-255 bytes, one path component that does not start with a dot
/// @param opts borrowed; layer_data_path is a layer archive (tar, plain or compressed by gzip, zstd, bzip2 or xz) and must
/// be given unless the layer is writable; both digests, if given, are verified against it. Both may be that of the
/// compressed archive
/// @return 0: made, or a layer of this id existed and gained a hold reference (nothing is read or compared); -1 with errno
/// EINVAL (NULL, bad id or digest, no archive), EILSEQ (a text is not UTF-8), ENOENT (no such archive or parent), EBADMSG
/// (not an archive, truncated, or another digest), EFBIG (a limit), ENODEV (not open), or what the system said; nothing
/// remains then
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_layer_create(
    layer_id: *const c_char,
    opts: *mut storage_layer_create_opts_t,
) -> c_int {
    guard("storage_layer_create", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        // SAFETY: as above.
        let opts = unsafe { arg::required(opts, "opts") }?;
        // SAFETY: as above.
        let layer = unsafe { create_options(opts) }?;
        // SAFETY: as above.
        let mut data = unsafe { open_data(opts) }?;
        let content = data.as_mut().map(|data| data as &mut (dyn Read + Send));
        STORAGE.get()?.write(|storage| storage.layers().create(&id, &layer, content))?;
        Ok(0)
    })
}

/// # Safety
/// All members are NULL or valid.
unsafe fn create_options(opts: &storage_layer_create_opts_t) -> Result<CreateLayer> {
    // SAFETY: the caller's promise.
    let text =
        |pointer, name| unsafe { arg::optional_text(pointer, name) }.map(|text| text.map(str::to_owned));
    Ok(CreateLayer {
        parent: text(opts.parent, "opts->parent")?.as_deref().map(LayerId::new).transpose()?,
        writable: opts.writable,
        compressed_digest: text(opts.compressed_digest, "opts->compressed_digest")?,
        uncompressed_digest: text(opts.uncompress_digest, "opts->uncompress_digest")?,
        // SAFETY: as above.
        storage_options: unsafe { arg::map(opts.storage_opts, "opts->storage_opts") }?,
        ..CreateLayer::default()
    })
}

/// The archive, not read yet.
///
/// # Safety
/// As for `create_options`.
unsafe fn open_data(opts: &storage_layer_create_opts_t) -> Result<Option<File>> {
    if opts.layer_data_path.is_null() {
        if !opts.writable {
            return Err(Error::invalid("opts->layer_data_path is NULL, and the layer is not writable"));
        }
        return Ok(None);
    }
    // SAFETY: not NULL; the rest is the caller's promise. A path may be any bytes.
    let path =
        Path::new(OsStr::from_bytes(unsafe { arg::bytes(opts.layer_data_path, "opts->layer_data_path") }?));
    let data = File::open(path).during(|| format!("open layer archive {}", path.display()))?;
    Ok(Some(data))
}

/// Gives a layer.
///
/// @param layer_id borrowed; an id or name, whole
/// @return the layer, freed with free_layer; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not
/// open), ENOMEM
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_layer_get(layer_id: *const c_char) -> *mut CLayer {
    guard("storage_layer_get", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(layer_id, "layer_id") }?;
        let layer = STORAGE.get()?.read(|storage| Ok(storage.layers().find(id)))?;
        let layer = layer.ok_or_else(|| Error::not_found(format!("no such layer: {id}")))?;
        Ok(out::layer(&layer)?.into_raw())
    })
}

/// Deletes a layer and those it stands on, from the top down, as far as no image, other layer or hold reference uses them.
///
/// @param layer_id borrowed; an id, not a name
/// @return 0: done, also when the layer itself is in use; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such
/// layer), ENODEV (not open), or what the system said
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_layer_chain_delete(layer_id: *const c_char) -> c_int {
    guard("storage_layer_chain_delete", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        STORAGE.get()?.write(|storage| {
            storage.layers().hold_count(&id)?;
            storage.delete_unused_chain(&id)
        })?;
        Ok(0)
    })
}

/// Rebuilds what a layer stands on if it is broken.
///
/// @param layer_id borrowed; an id or name
/// @param last_layer_id ignored
/// @return 0: in order or repaired; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such layer), EUCLEAN (cannot be
/// repaired), ENODEV (not open), or what the system said
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_layer_try_repair_lowers(
    layer_id: *const c_char,
    last_layer_id: *const c_char,
) -> c_int {
    guard("storage_layer_try_repair_lowers", || {
        let _ignored = last_layer_id;
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(layer_id, "layer_id") }?;
        STORAGE.get()?.write(|storage| storage.layers().repair_lowers(id))?;
        Ok(0)
    })
}

/// Adds a hold reference to a layer: no removal of an image deletes it. References live in memory only and are 0 after a
/// restart.
///
/// @param layer_id borrowed; an id, not a name
/// @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_inc_hold_refs(layer_id: *const c_char) -> c_int {
    guard("storage_inc_hold_refs", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        STORAGE.get()?.write(|storage| storage.layers().hold(&id))?;
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
pub unsafe extern "C" fn storage_dec_hold_refs(layer_id: *const c_char) -> c_int {
    guard("storage_dec_hold_refs", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        STORAGE.get()?.write(|storage| storage.release(&id))?;
        Ok(0)
    })
}

/// Whether a layer of a list stands on this one.
///
/// @param layer_id borrowed
/// @param last_deleted_layer_id borrowed; a layer that does not count, NULL: all count
/// @param all_layers borrowed
/// @return true or false; false with errno EINVAL if layer_id or all_layers is NULL, EILSEQ if one is not UTF-8
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn is_parent_layer_of_other_layer(
    layer_id: *const c_char,
    last_deleted_layer_id: *const c_char,
    all_layers: *const CLayerList,
) -> bool {
    guard("is_parent_layer_of_other_layer", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(layer_id, "layer_id") }?;
        // SAFETY: as above.
        let last = unsafe { arg::optional_text(last_deleted_layer_id, "last_deleted_layer_id") }?;
        // SAFETY: as above.
        let list = unsafe { arg::required(all_layers, "all_layers") }?;
        let len = if list.layers.is_null() { 0 } else { list.layers_len };
        for index in 0..len {
            // SAFETY: as above: `layers_len` pointers, each NULL or to a layer.
            let Some(layer) = (unsafe { (*list.layers.add(index)).as_ref() }) else { continue };
            // SAFETY: as above.
            let parent = unsafe { arg::optional_text(layer.parent, "all_layers->layers[]->parent") }?;
            if parent != Some(id) {
                continue;
            }
            // SAFETY: as above.
            let child = unsafe { arg::optional_text(layer.id, "all_layers->layers[]->id") }?;
            if last.is_none() || child != last {
                return Ok(true);
            }
        }
        Ok(false)
    })
}
