// SPDX-License-Identifier: MulanPSL-2.0
//! The image store as an object: a struct of function pointers, several in one process.
//!
//! The struct is the caller's memory and may hold anything, so it is never trusted: its handle is a number that is
//! looked up in a table of open stores, never an address. Numbers are not used twice.
//!
//! Source: design documents of the image store, section 3. They say of `exists` that it is a bool and that it returns
//! 0 or -1; it is a bool here.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::Lazy;
use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::global::Held;
use crate::ffi::guard::guard;
use crate::ffi::image_store::{create_image, loaded_time};
use crate::ffi::storage::ProcessLayers;
use crate::ffi::types::{CImageStore, image_storage_images, image_store_t, timestamp};
use crate::ffi::{arg, cmem, host, out};
use crate::image::{ImageStore, ImageStoreOptions};
use crate::storage::{Durability, Ownership};

/// "ISIMGST" and a version: what a struct that new_image_store filled starts its private part with.
const MAGIC: u64 = 0x4953_494d_4753_5401;

static OPEN: Lazy<RwLock<HashMap<usize, Arc<Held<ImageStore>>>>> = Lazy::new(RwLock::default);
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(1);

/// The store behind a caller's struct.
///
/// # Safety
/// `store` is NULL or points to readable memory of the size of the struct.
unsafe fn open_store(store: *const CImageStore) -> Result<Arc<Held<ImageStore>>> {
    // SAFETY: the caller's promise.
    let store = unsafe { arg::required(store, "image_store") }?;
    let open = if store.magic == MAGIC { OPEN.read().get(&store.handle.addr()).cloned() } else { None };
    open.ok_or_else(|| Error::invalid("image_store is not open: not filled by new_image_store, or freed"))
}

/// Opens an image store and fills the caller's struct with its functions.
///
/// @param daemon true: the process owns the store until free_image_store, and another owner is refused; false: the
/// store is locked for each change, and a change made by another process is seen at the next call
/// @param readonly nothing is ever written, no lock is taken; functions that change something fail with EROFS. daemon
/// does not matter then
/// @param dir borrowed; the image directory itself; made if it is absent and readonly is false
/// @param image_store out; ended by free_image_store
/// @return 0, or -1 with errno EINVAL (NULL, dir is empty), EILSEQ, EBUSY (another owner), ENOENT (readonly, and there
/// is no directory), or what the system said
///
/// Source: design documents of the image store, section 3.
///
/// # Safety
/// `dir` must be NULL or a string, `image_store` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn new_image_store(
    daemon: bool,
    readonly: bool,
    dir: *const c_char,
    image_store: *mut image_store_t,
) -> c_int {
    guard("new_image_store", || {
        // SAFETY: the caller's promise.
        let dir = unsafe { arg::path(dir, "dir") }?.to_owned();
        // SAFETY: the caller's promise.
        let image_store = unsafe { arg::out(image_store, "image_store") }?;
        let ownership = match (readonly, daemon) {
            (true, _) => Ownership::ReadOnly,
            (false, true) => Ownership::Owner,
            (false, false) => Ownership::Shared,
        };
        let store = ImageStore::open(ImageStoreOptions {
            dir,
            ownership,
            durability: Durability::Full,
            default_host: host::default_registry_host(),
            layers: Some(Arc::new(ProcessLayers::default())),
            // By the documents an image is complete with its record; manifest and config are optional.
            list_incomplete: true,
        })?;
        let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        OPEN.write().insert(handle, Arc::new(Held::new(store)));
        image_store.set(filled(handle));
        Ok(0)
    })
}

/// Closes an image store and zeroes the struct; what is on disk stays. Copies of the struct are closed as well.
///
/// @param image_store borrowed; NULL, and one that is not open, are fine
///
/// # Safety
/// `image_store` must be NULL or point to readable memory of the size of the struct, writable if it is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_image_store(image_store: *mut image_store_t) {
    guard("free_image_store", || {
        // SAFETY: the caller's promise.
        let Some(store) = (unsafe { image_store.as_ref() }) else { return Ok(()) };
        if store.magic == MAGIC {
            let closed = OPEN.write().remove(&store.handle.addr());
            drop(closed);
            // SAFETY: the caller's promise; zero bytes are a valid struct: absent functions and a zero handle.
            unsafe { ptr::write_bytes(image_store, 0, 1) };
        }
        Ok(())
    });
}

fn filled(handle: usize) -> CImageStore {
    CImageStore {
        create: Some(create),
        set_names: Some(set_names),
        delete: Some(delete),
        wipe: Some(wipe),
        set_loaded_time: Some(set_loaded_time),
        add_name: Some(add_name),
        save: Some(save),
        set_metadata: Some(set_metadata),
        set_big_data: Some(set_big_data),
        exists: Some(exists),
        get: Some(get),
        lookup: Some(lookup),
        images: Some(images),
        by_digest: Some(by_digest),
        load: Some(load),
        metadata: Some(metadata),
        big_data: Some(big_data),
        big_data_size: Some(big_data_size),
        big_data_digest: Some(big_data_digest),
        big_data_names: Some(big_data_names),
        magic: MAGIC,
        handle: ptr::without_provenance_mut::<c_void>(handle),
    }
}

unsafe extern "C" fn create(
    id: *const c_char,
    names: *mut *const c_char,
    names_len: usize,
    layer: *const c_char,
    metadata: *const c_char,
    time: timestamp,
    searchable_digest: *const c_char,
    image_store: *mut CImageStore,
    image: *mut image_storage_images,
) -> c_int {
    guard("image_store_t.create", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let new = unsafe {
            create_image(id, names, names_len, layer, metadata, &raw const time, searchable_digest)
        }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let image = unsafe { arg::out(image, "image") }?;
        let record = store.write(|store| {
            let id = store.create(&new)?;
            store.get(id.as_str())
        })?;
        image.set(out::image(&record)?.into_value());
        Ok(0)
    })
}

unsafe extern "C" fn set_names(
    id: *const c_char,
    names: *mut *const c_char,
    names_len: usize,
    image_store: *mut CImageStore,
) -> c_int {
    guard("image_store_t.set_names", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let names = unsafe { arg::some_texts(names.cast_const(), names_len, "names") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        store.write(|store| store.set_names(id, &names))?;
        Ok(0)
    })
}

unsafe extern "C" fn delete(id: *const c_char, image_store: *mut CImageStore) -> c_int {
    guard("image_store_t.delete", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        store.write(|store| store.delete(id))?;
        Ok(0)
    })
}

unsafe extern "C" fn wipe(image_store: *mut CImageStore) -> c_int {
    guard("image_store_t.wipe", || {
        // SAFETY: the caller's promise.
        let store = unsafe { open_store(image_store) }?;
        store.write(ImageStore::wipe)?;
        Ok(0)
    })
}

unsafe extern "C" fn set_loaded_time(
    id: *const c_char,
    loaded: timestamp,
    image_store: *mut CImageStore,
) -> c_int {
    guard("image_store_t.set_loaded_time", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        let loaded = loaded_time(&loaded, "loaded")?;
        store.write(|store| store.set_loaded(id, loaded))?;
        Ok(0)
    })
}

unsafe extern "C" fn add_name(
    id: *const c_char,
    name: *const c_char,
    image_store: *mut CImageStore,
) -> c_int {
    guard("image_store_t.add_name", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let name = unsafe { arg::text(name, "name") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        store.write(|store| store.add_name(id, name))?;
        Ok(0)
    })
}

unsafe extern "C" fn save(image_store: *const CImageStore) -> c_int {
    guard("image_store_t.save", || {
        // SAFETY: the caller's promise.
        let store = unsafe { open_store(image_store) }?;
        store.write(ImageStore::save)?;
        Ok(0)
    })
}

unsafe extern "C" fn set_metadata(
    image_store: *mut CImageStore,
    id: *const c_char,
    metadata: *const c_char,
) -> c_int {
    guard("image_store_t.set_metadata", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let metadata = unsafe { arg::text(metadata, "metadata") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        store.write(|store| store.set_metadata(id, metadata))?;
        Ok(0)
    })
}

unsafe extern "C" fn set_big_data(
    image_store: *mut CImageStore,
    id: *const c_char,
    key: *const c_char,
    data: *const c_char,
) -> c_int {
    guard("image_store_t.set_big_data", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let key = unsafe { arg::text(key, "key") }?;
        // SAFETY: as above.
        let data = unsafe { arg::bytes(data, "data") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        store.write(|store| store.set_big_data(id, key, data))?;
        Ok(0)
    })
}

unsafe extern "C" fn exists(id: *const c_char, image_store: *const CImageStore) -> bool {
    guard("image_store_t.exists", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        store.read(|store| Ok(store.exists(id)))
    })
}

unsafe extern "C" fn get(
    id: *const c_char,
    image_store: *const CImageStore,
    image: *mut image_storage_images,
) -> c_int {
    guard("image_store_t.get", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let image = unsafe { arg::out(image, "image") }?;
        let record = store.read(|store| store.get(id))?;
        image.set(out::image(&record)?.into_value());
        Ok(0)
    })
}

unsafe extern "C" fn lookup(
    name: *const c_char,
    image_store: *const CImageStore,
    id: *mut *mut c_char,
) -> c_int {
    guard("image_store_t.lookup", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let name = unsafe { arg::text(name, "name") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let id = unsafe { arg::out(id, "id") }?;
        id.set(cmem::text(store.read(|store| store.lookup(name))?.as_str())?);
        Ok(0)
    })
}

unsafe extern "C" fn images(
    image_store: *const CImageStore,
    images: *mut *mut image_storage_images,
    len: *mut usize,
) -> c_int {
    guard("image_store_t.images", || {
        // SAFETY: the caller's promise.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let images = unsafe { arg::out(images, "images") }?;
        // SAFETY: as above.
        let len = unsafe { arg::out(len, "len") }?;
        let (array, count) = out::images(&store.read(ImageStore::list)?)?;
        images.set(array);
        len.set(count);
        Ok(0)
    })
}

unsafe extern "C" fn by_digest(
    image_store: *const CImageStore,
    digest: *const c_char,
    images: *mut *mut image_storage_images,
    len: *mut usize,
) -> c_int {
    guard("image_store_t.by_digest", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let digest = unsafe { arg::text(digest, "digest") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let images = unsafe { arg::out(images, "images") }?;
        // SAFETY: as above.
        let len = unsafe { arg::out(len, "len") }?;
        let records = store.read(|store| store.by_digest(digest))?;
        if records.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("no image has the digest {digest}")));
        }
        let (array, count) = out::images(&records)?;
        images.set(array);
        len.set(count);
        Ok(0)
    })
}

unsafe extern "C" fn load(image_store: *mut CImageStore) -> c_int {
    guard("image_store_t.load", || {
        // SAFETY: the caller's promise.
        let store = unsafe { open_store(image_store) }?;
        store.reload(ImageStore::load)?;
        Ok(0)
    })
}

unsafe extern "C" fn metadata(
    image_store: *const CImageStore,
    id: *const c_char,
    metadata: *mut *mut c_char,
) -> c_int {
    guard("image_store_t.metadata", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let metadata = unsafe { arg::out(metadata, "metadata") }?;
        let text = store.read(|store| store.metadata(id))?;
        metadata.set(cmem::optional_text(text.as_deref())?);
        Ok(0)
    })
}

unsafe extern "C" fn big_data(
    image_store: *const CImageStore,
    id: *const c_char,
    key: *const c_char,
    bigdata: *mut *mut c_char,
) -> c_int {
    guard("image_store_t.big_data", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let key = unsafe { arg::text(key, "key") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let bigdata = unsafe { arg::out(bigdata, "bigdata") }?;
        bigdata.set(cmem::bytes(&store.read(|store| store.big_data(id, key))?)?);
        Ok(0)
    })
}

unsafe extern "C" fn big_data_size(
    image_store: *const CImageStore,
    id: *const c_char,
    key: *const c_char,
    big_data_size: *mut i64,
) -> c_int {
    guard("image_store_t.big_data_size", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let key = unsafe { arg::text(key, "key") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let big_data_size = unsafe { arg::out(big_data_size, "big_data_size") }?;
        big_data_size.set(store.read(|store| store.big_data_size(id, key))?);
        Ok(0)
    })
}

unsafe extern "C" fn big_data_digest(
    image_store: *const CImageStore,
    id: *const c_char,
    key: *const c_char,
    big_data_digest: *mut *mut c_char,
) -> c_int {
    guard("image_store_t.big_data_digest", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let key = unsafe { arg::text(key, "key") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let big_data_digest = unsafe { arg::out(big_data_digest, "big_data_digest") }?;
        big_data_digest.set(cmem::text(&store.read(|store| store.big_data_digest(id, key))?)?);
        Ok(0)
    })
}

unsafe extern "C" fn big_data_names(
    image_store: *const CImageStore,
    id: *const c_char,
    big_data_names: *mut *mut *mut c_char,
    big_data_names_len: *mut usize,
) -> c_int {
    guard("image_store_t.big_data_names", || {
        // SAFETY: the caller's promise, as for every `unsafe` below.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let store = unsafe { open_store(image_store) }?;
        // SAFETY: as above.
        let names = unsafe {
            arg::out_texts(big_data_names, big_data_names_len, "big_data_names", "big_data_names_len")
        }?;
        names.set(&store.read(|store| store.big_data_names(id))?)?;
        Ok(0)
    })
}
