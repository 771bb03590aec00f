// SPDX-License-Identifier: MulanPSL-2.0
//! `docker_image_store_*`: Docker's image store. Lists, names and what frees them are in `docker_image_lists.rs`.
//!
//! A handle is a number that is looked up in a table of open stores, never an address: one that was closed, or never
//! opened, is refused. Numbers are not used twice.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::Lazy;
use parking_lot::RwLock;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ffi::cmem::CArray;
use crate::ffi::docker_image_lists::{image, removed_layer};
use crate::ffi::docker_layers::{layers_of, removed_layers};
use crate::ffi::global::Held;
use crate::ffi::guard::guard;
use crate::ffi::types::{
    CDockerImage, CDockerImageLayers, CDockerImageStore, CDockerImageStoreOptions, CDockerRemovedLayer,
    CDockerRemovedLayers, CTimestamp, DOCKER_IMAGE_LAYERS_CALLBACKS, types_timestamp_t,
};
use crate::ffi::{arg, cmem};
use crate::imagedb::{ImageDb, ImageDbOptions, RemovedLayer};
use crate::storage::{Durability, Ownership};

static OPEN: Lazy<RwLock<HashMap<usize, Arc<Held<ImageDb>>>>> = Lazy::new(RwLock::default);
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(1);

/// The store behind a handle.
pub(super) fn open_store(store: *const CDockerImageStore) -> Result<Arc<Held<ImageDb>>> {
    if store.is_null() {
        return Err(Error::invalid("store is NULL"));
    }
    let open = OPEN.read().get(&store.addr()).cloned();
    open.ok_or_else(|| Error::invalid("store is not open: not from docker_image_store_open, or closed"))
}

/// What Docker says of an id that is none: before the id itself.
pub(super) const NOT_READ: &str = "failed to get digest";
const NOT_DELETED: &str = "unrecognized image ID";
const NOT_KNOWN: &str = "unknown image ID";
const NO_PARENT: &str = "unknown parent image ID";

/// The id of an image. What is no digest is no image either, as for Docker: `NotFound`, in these words.
///
/// # Safety
/// `id` is NULL or a string.
pub(super) unsafe fn id(id: *const c_char, name: &str, missing: &str) -> Result<Digest> {
    // SAFETY: the caller's promise.
    let text = unsafe { arg::text(id, name) }?;
    Digest::parse(text).map_err(|error| {
        let shown: String = text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect();
        Error::not_found(error.report()).context(format!("{missing} {shown}"))
    })
}

/// Opens Docker's image store in a directory, `/var/lib/docker/image/overlay2` for one, and makes what is missing. Every
/// config is read and verified, and a reference taken on the layer of each image. What is damaged, or without its layer, is
/// left where it is and not listed: docker_image_store_problems. A daemon does not know of this library's lock: let none run
/// on the same directory unless it is opened for reading only.
///
/// @param root borrowed; the directory above imagedb
/// @param options borrowed; may be NULL: layers of callbacks, everything is flushed
/// @param layers borrowed, and copied; NULL unless options->layers is DOCKER_IMAGE_LAYERS_CALLBACKS. Its functions and their
/// context are used until docker_image_store_close has returned
/// @return a handle that docker_image_store_close ends, or NULL with errno EINVAL (NULL, root is empty, a wrong size), EILSEQ,
/// EBUSY (another owner), ENOENT (read_only, and there is no directory), ENOTDIR (something is in the way), EOPNOTSUPP (a
/// newer version has written there), or what the system said
///
/// # Safety
/// `root` must be NULL or a string, `options` and `layers` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_open(
    root: *const c_char,
    options: *const CDockerImageStoreOptions,
    layers: *const CDockerImageLayers,
) -> *mut CDockerImageStore {
    guard("docker_image_store_open", || {
        // SAFETY: the caller's promise.
        let root = unsafe { arg::path(root, "root") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { options.as_ref() };
        if options.is_some_and(|options| options.size < size_of::<CDockerImageStoreOptions>()) {
            return Err(Error::invalid("options->size is not the size of the struct"));
        }
        let kind = options.map_or(DOCKER_IMAGE_LAYERS_CALLBACKS, |options| options.layers);
        // SAFETY: the caller's promise.
        let layers = unsafe { layers_of(root, kind, layers) }?;
        let read_only = options.is_some_and(|options| options.read_only);
        let no_sync = options.is_some_and(|options| options.no_sync);
        let db = ImageDb::open(ImageDbOptions {
            root: root.to_owned(),
            ownership: if read_only { Ownership::ReadOnly } else { Ownership::Owner },
            durability: if no_sync { Durability::None } else { Durability::Full },
            layers,
        })?;
        let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        OPEN.write().insert(handle, Arc::new(Held::new(db)));
        Ok(ptr::without_provenance_mut(handle))
    })
}

/// Closes a store: waits for calls that still use it, then gives back the references on layers. Nothing is removed. Not to be
/// called from a callback of the store's.
///
/// @param store taken; NULL, and one that is not open, are fine
#[unsafe(no_mangle)]
pub extern "C" fn docker_image_store_close(store: *mut CDockerImageStore) {
    guard("docker_image_store_close", || {
        let closed = OPEN.write().remove(&store.addr());
        closed.into_iter().for_each(Held::wait_until_unused);
        Ok(())
    });
}

/// Makes an image of a config. Is it there already, nothing changes, unless its config was damaged: then it is written anew.
/// After a failure nothing is left on disk, and no reference on a layer.
///
/// @param store borrowed
/// @param config borrowed; the bytes, which need not end with a NUL
/// @param len their number; at most 10 MiB
/// @return the id, malloc'ed, or NULL with errno EINVAL (NULL, empty), EBADMSG (no config: not JSON, nested deeper than 128
/// levels, more than 65,536 elements, a member of a wrong type, no rootfs, more layers in the history than diff IDs), EFBIG (too large), EOPNOTSUPP (not
/// for Linux), ENOENT (its layer is not there), EROFS, EIO (an earlier failure: open it again), or what a callback or the
/// system said
///
/// # Safety
/// `config` must be NULL or have `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_create(
    store: *mut CDockerImageStore,
    config: *const c_void,
    len: usize,
) -> *mut c_char {
    guard("docker_image_store_create", || {
        let store = open_store(store)?;
        if config.is_null() {
            return Err(Error::invalid("config is NULL"));
        }
        if isize::try_from(len).is_err() {
            return Err(Error::invalid("len is more than there can be"));
        }
        // SAFETY: not NULL, and the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(config.cast::<u8>(), len) };
        let id = store.write(|db| db.create(bytes))?;
        cmem::text(&id.to_string())
    })
}

/// Gives an image, read and verified now; also one that is on disk but not in the store.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @return the image, to be freed by docker_image_store_free_image, or NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none),
/// EBADMSG (its config is damaged or none), EUCLEAN (no file), ENOMEM, or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_get(
    store: *mut CDockerImageStore,
    id: *const c_char,
) -> *mut CDockerImage {
    guard("docker_image_store_get", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_READ) }?;
        let (found, bytes) = store.read(|db| db.get_with_bytes(&id))?;
        image(&found, &bytes)
    })
}

/// Deletes an image, damaged or not. Its children are without a parent then; its names stay. Its layer is released: what went
/// with it is returned, top first.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @param removed out; may be NULL; an array to be freed by docker_image_store_free_removed_layers. Never NULL on success
/// @param removed_len out; may be NULL if removed is; their number
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (unrecognized), EROFS, EIO (an earlier failure: open it again), or
/// what a callback (the image is gone then) or the system said
///
/// # Safety
/// `id` must be NULL or a string, `removed` and `removed_len` NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_delete(
    store: *mut CDockerImageStore,
    id: *const c_char,
    removed: *mut *mut CDockerRemovedLayer,
    removed_len: *mut usize,
) -> c_int {
    guard("docker_image_store_delete", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_DELETED) }?;
        let place = if removed.is_null() {
            None
        } else {
            // SAFETY: the caller's promise.
            Some(unsafe { (arg::out(removed, "removed")?, arg::out(removed_len, "removed_len")?) })
        };
        let gone = store.write(|db| db.delete(&id))?;
        if let Some((array, len)) = place {
            let (start, count) = CArray::collect(&gone, removed_layer)?.into_raw();
            array.set(start);
            len.set(count);
        }
        Ok(0)
    })
}

/// Finds the image whose id begins with a term.
///
/// @param store borrowed
/// @param term borrowed; hexadecimal digits in lower case, with or without `sha256:` in front
/// @return the whole id, malloc'ed, or NULL with errno EINVAL (NULL, empty: Docker takes any image then if there is but one),
/// EILSEQ, ENOENT (none), ENOTUNIQ (several), ENOMEM
///
/// # Safety
/// `term` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_search(
    store: *mut CDockerImageStore,
    term: *const c_char,
) -> *mut c_char {
    guard("docker_image_store_search", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let term = unsafe { arg::text(term, "term") }?;
        let id = store.read(|db| db.search(term))?;
        cmem::text(&id.to_string())
    })
}

/// Sets the parent of an image.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @param parent borrowed; the same
/// @return 0, or -1 with errno EINVAL (NULL; an image would be its own parent or forefather), EILSEQ, ENOENT (one of them is
/// not in the store), EROFS, EIO (an earlier failure: open it again), or what the system said
///
/// # Safety
/// `id` and `parent` must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_set_parent(
    store: *mut CDockerImageStore,
    id: *const c_char,
    parent: *const c_char,
) -> c_int {
    guard("docker_image_store_set_parent", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_KNOWN) }?;
        // SAFETY: the caller's promise.
        let parent = unsafe { self::id(parent, "parent", NO_PARENT) }?;
        store.write(|db| db.set_parent(&id, &parent)).map(|()| 0)
    })
}

/// Gives the parent of an image, as recorded: it may be gone.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @return the id, malloc'ed, or NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such image, or it has none), EUCLEAN (what is
/// recorded is no id), ENOMEM, or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_get_parent(
    store: *mut CDockerImageStore,
    id: *const c_char,
) -> *mut c_char {
    guard("docker_image_store_get_parent", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_READ) }?;
        let parent = store.read(|db| db.parent(&id))?;
        cmem::text(&parent.to_string())
    })
}

/// Tells how many images are in the store.
///
/// @param store borrowed
/// @return their number, or (size_t)-1 with errno EINVAL (NULL)
#[unsafe(no_mangle)]
pub extern "C" fn docker_image_store_len(store: *mut CDockerImageStore) -> usize {
    guard("docker_image_store_len", || open_store(store)?.read(|db| Ok(db.len())))
}

/// Records that an image was used or named now.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), EROFS, EIO (an earlier failure: open it again), or
/// what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_set_last_updated(
    store: *mut CDockerImageStore,
    id: *const c_char,
) -> c_int {
    guard("docker_image_store_set_last_updated", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_KNOWN) }?;
        store.write(|db| db.set_last_updated(&id)).map(|()| 0)
    })
}

/// Gives the time of the last docker_image_store_set_last_updated. There may be none: neither seconds nor nanoseconds then.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @param time out
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), EUCLEAN (what is recorded is no time)
///
/// # Safety
/// `id` must be NULL or a string, `time` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_get_last_updated(
    store: *mut CDockerImageStore,
    id: *const c_char,
    time: *mut types_timestamp_t,
) -> c_int {
    guard("docker_image_store_get_last_updated", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_READ) }?;
        // SAFETY: the caller's promise.
        let place = unsafe { arg::out(time, "time") }?;
        let time = store.read(|db| db.last_updated(&id))?;
        let nanos = time.and_then(|time| i32::try_from(time.nanos).ok()).unwrap_or(0);
        let there = time.is_some();
        let seconds = time.map_or(0, |time| time.seconds);
        place.set(CTimestamp { has_seconds: there, seconds, has_nanos: there, nanos });
        Ok(0)
    })
}

/// Records that an image was built here.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @return 0, or -1 with errno as docker_image_store_set_last_updated
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_set_built_locally(
    store: *mut CDockerImageStore,
    id: *const c_char,
) -> c_int {
    guard("docker_image_store_set_built_locally", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_KNOWN) }?;
        store.write(|db| db.set_built_locally(&id)).map(|()| 0)
    })
}

/// Tells whether an image was built here, as far as that is known.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @return 1: yes; 0: no, or not known; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_is_built_locally(
    store: *mut CDockerImageStore,
    id: *const c_char,
) -> c_int {
    guard("docker_image_store_is_built_locally", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_READ) }?;
        store.read(|db| db.is_built_locally(&id)).map(c_int::from)
    })
}

/// Tells of a layer that is gone; only for a release callback, while it runs, from its thread.
///
/// @param removed borrowed; what the callback got
/// @param chain_id borrowed; `sha256:` and 64 hexadecimal digits
/// @param diff_id borrowed; the same; NULL where it is not known
/// @param size size of the layer and all below it, in bytes
/// @param diff_size size of the layer alone, in bytes
/// @return 0, or -1 with errno EINVAL (NULL, no digest), EILSEQ
///
/// # Safety
/// `removed` must be NULL or what the callback got, `chain_id` and `diff_id` NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_add_removed_layer(
    removed: *mut CDockerRemovedLayers,
    chain_id: *const c_char,
    diff_id: *const c_char,
    size: u64,
    diff_size: u64,
) -> c_int {
    guard("docker_image_store_add_removed_layer", || {
        // SAFETY: the caller's promise, here and for what follows.
        let removed = unsafe { removed_layers(removed) }?;
        // SAFETY: as above.
        let chain_id = Digest::parse(unsafe { arg::text(chain_id, "chain_id") }?)?;
        // SAFETY: as above.
        let diff_id = unsafe { arg::optional_text(diff_id, "diff_id") }?.map(Digest::parse).transpose()?;
        removed.push(RemovedLayer { chain_id, diff_id, size, diff_size });
        Ok(0)
    })
}
