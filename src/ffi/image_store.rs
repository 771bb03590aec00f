// SPDX-License-Identifier: MulanPSL-2.0
//! `image_store_*`: the process-wide image store.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ffi::global::IMAGES;
use crate::ffi::guard::guard;
use crate::ffi::storage::ProcessLayers;
use crate::ffi::types::{
    CImagetoolFsInfo, CImagetoolImage, CImagetoolImageSummary, CImagetoolImagesList,
    CStorageModuleInitOptions, types_timestamp_t,
};
use crate::ffi::{arg, cmem, host, out, out_spec};
use crate::id::ImageId;
use crate::image::{CreateImage, ImageStore, ImageStoreOptions};
use crate::storage::{Durability, Ownership, name_on_disk};
use crate::time::Timestamp;

/// Opens the process-wide image store in `<storage_root>/<driver>-images` and loads all images.
///
/// @param opts borrowed; only storage_root and driver_name are read, both must be given and not be empty
/// @return 0, or -1 with errno EINVAL (NULL, unknown driver: the reference answers 0 and has no store), EEXIST (open
/// already), EBUSY (another process owns the store), EILSEQ (a text is not UTF-8), or what the system said
///
/// # Safety
/// `opts` must be NULL or valid with the two members during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_init(opts: *mut CStorageModuleInitOptions) -> c_int {
    guard("image_store_init", || {
        // SAFETY: the caller's promise, here and for what follows. The other members may be uninitialised.
        let (root, driver) = unsafe {
            arg::required(opts.cast_const().cast::<u8>(), "opts")?;
            (&raw const (*opts).storage_root, &raw const (*opts).driver_name)
        };
        // SAFETY: as above.
        let root = unsafe { arg::path(root.read(), "opts->storage_root") }?;
        // SAFETY: as above.
        let driver = name_on_disk(unsafe { arg::text(driver.read(), "opts->driver_name") }?)?;
        IMAGES.open(|| {
            ImageStore::open(ImageStoreOptions {
                dir: root.join(format!("{driver}-images")),
                ownership: Ownership::Owner,
                durability: Durability::Full,
                default_host: host::default_registry_host(),
                layers: Some(Arc::new(ProcessLayers::default())),
                list_incomplete: false,
            })
        })?;
        Ok(0)
    })
}

/// Closes the process-wide image store; what is on disk stays. Closing twice is fine; image_store_init works again.
#[unsafe(no_mangle)]
pub extern "C" fn image_store_free() {
    guard("image_store_free", || {
        drop(IMAGES.take());
        Ok(())
    });
}

/// Makes an image record.
///
/// @param id borrowed; one path component that does not start with a dot; NULL: 64 random hex digits
/// @param names borrowed; duplicates are dropped, the rest sorted; may be NULL if names_len is 0
/// @param names_len number of names
/// @param layer borrowed; id of its top layer; may be NULL
/// @param metadata borrowed; free text; may be NULL
/// @param time borrowed; when it was made; NULL, or neither seconds nor nanoseconds: now
/// @param searchable_digest borrowed; digest by which it is searched; may be NULL
/// @return its id, malloc'ed, freed with free(); NULL with errno EINVAL (bad id, a name is NULL, nanoseconds without
/// seconds), EILSEQ, EEXIST (the id, or a name, belongs to an image), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_create(
    id: *const c_char,
    names: *mut *const c_char,
    names_len: usize,
    layer: *const c_char,
    metadata: *const c_char,
    time: *const types_timestamp_t,
    searchable_digest: *const c_char,
) -> *mut c_char {
    guard("image_store_create", || {
        // SAFETY: the caller's promise.
        let image = unsafe { create_image(id, names, names_len, layer, metadata, time, searchable_digest) }?;
        let id = IMAGES.get()?.write(|store| store.create(&image))?;
        cmem::text(id.as_str())
    })
}

/// What a new image is to be, as both interfaces name it.
///
/// # Safety
/// All pointers are NULL or valid.
pub(crate) unsafe fn create_image(
    id: *const c_char,
    names: *mut *const c_char,
    names_len: usize,
    layer: *const c_char,
    metadata: *const c_char,
    time: *const types_timestamp_t,
    searchable_digest: *const c_char,
) -> Result<CreateImage> {
    // SAFETY: the caller's promise, here and for what follows.
    let text =
        |pointer, name| unsafe { arg::optional_text(pointer, name) }.map(|text| text.map(str::to_owned));
    Ok(CreateImage {
        id: text(id, "id")?.as_deref().map(ImageId::new).transpose()?,
        // SAFETY: as above.
        names: unsafe { arg::texts(names.cast_const(), names_len, "names") }?,
        layer: text(layer, "layer")?,
        metadata: text(metadata, "metadata")?,
        // SAFETY: as above.
        created: unsafe { time.as_ref() }.map_or(Ok(None), |time| arg::time(time, "time"))?,
        digest: text(searchable_digest, "searchable_digest")?,
    })
}

/// When something happened; seconds have to be given.
pub(crate) fn loaded_time(time: &types_timestamp_t, name: &str) -> Result<Timestamp> {
    arg::time(time, name)?.ok_or_else(|| Error::invalid(format!("{name} has no seconds")))
}

/// Gives the full id of an image.
///
/// @param id borrowed; id, name, unique short id of at least three hex digits, or digest reference, in this order; the
/// same for every `id` below
/// @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not
/// open)
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_lookup(id: *const c_char) -> *mut c_char {
    guard("image_store_lookup", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        cmem::text(IMAGES.get()?.read(|store| store.lookup(id))?.as_str())
    })
}

/// Whether an image exists.
///
/// @param id borrowed; as for image_store_lookup
/// @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_exists(id: *const c_char) -> bool {
    guard("image_store_exists", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        IMAGES.get()?.read(|store| Ok(store.exists(id)))
    })
}

/// Deletes an image record and its big data; its layers stay.
///
/// @param id borrowed; as for image_store_lookup
/// @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, ENODEV (not open), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_delete(id: *const c_char) -> c_int {
    guard("image_store_delete", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        IMAGES.get()?.write(|store| store.delete(id))?;
        Ok(0)
    })
}

/// Stores text under a key.
///
/// @param id borrowed; as for image_store_lookup
/// @param key borrowed; not empty, not `images.json`, `.` or `..`
/// @param data borrowed; up to its NUL
/// @return 0, or -1 with errno EINVAL (NULL, bad key), EILSEQ (id or key is not UTF-8), ENOENT (no such image), ENODEV
/// (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_set_big_data(
    id: *const c_char,
    key: *const c_char,
    data: *const c_char,
) -> c_int {
    guard("image_store_set_big_data", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let key = unsafe { arg::text(key, "key") }?;
        // SAFETY: as above.
        let data = unsafe { arg::bytes(data, "data") }?;
        IMAGES.get()?.write(|store| store.set_big_data(id, key, data))?;
        Ok(0)
    })
}

/// Adds a name; if another image has it, it moves.
///
/// @param id borrowed; as for image_store_lookup
/// @param name borrowed
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_add_name(id: *const c_char, name: *const c_char) -> c_int {
    guard("image_store_add_name", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(name, "name") }?;
        IMAGES.get()?.write(|store| store.add_name(id, name))?;
        Ok(0)
    })
}

/// Replaces the names of an image; names that other images have move.
///
/// @param id borrowed; as for image_store_lookup
/// @param names borrowed; duplicates are dropped, the rest sorted
/// @param names_len number of names, not 0
/// @return 0, or -1 with errno EINVAL (NULL, no name), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
/// system said
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_set_names(
    id: *const c_char,
    names: *mut *const c_char,
    names_len: usize,
) -> c_int {
    guard("image_store_set_names", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: the caller's promise.
        let names = unsafe { arg::some_texts(names.cast_const(), names_len, "names") }?;
        IMAGES.get()?.write(|store| store.set_names(id, &names))?;
        Ok(0)
    })
}

/// Gives the names of an image.
///
/// @param id borrowed; as for image_store_lookup
/// @param names out; malloc'ed, freed with isula_storage_free_strings; NULL when there are none
/// @param names_len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), ENOMEM
///
/// # Safety
/// `id` must be NULL or a string, the others NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_get_names(
    id: *const c_char,
    names: *mut *mut *mut c_char,
    names_len: *mut usize,
) -> c_int {
    guard("image_store_get_names", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let result = unsafe { arg::out_texts(names, names_len, "names", "names_len") }?;
        result.set(&IMAGES.get()?.read(|store| store.names(id))?)?;
        Ok(0)
    })
}

/// Sets the free text of an image.
///
/// @param id borrowed; as for image_store_lookup
/// @param metadata borrowed
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_set_metadata(id: *const c_char, metadata: *const c_char) -> c_int {
    guard("image_store_set_metadata", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: the caller's promise.
        let metadata = unsafe { arg::text(metadata, "metadata") }?;
        IMAGES.get()?.write(|store| store.set_metadata(id, metadata))?;
        Ok(0)
    })
}

/// Sets when an image was loaded.
///
/// @param id borrowed; as for image_store_lookup
/// @param time borrowed; its seconds must be given
/// @return 0, or -1 with errno EINVAL (NULL, no seconds), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
/// system said
///
/// # Safety
/// `id` must be NULL or a string, `time` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_set_load_time(
    id: *const c_char,
    time: *const types_timestamp_t,
) -> c_int {
    guard("image_store_set_load_time", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: the caller's promise.
        let time = loaded_time(unsafe { arg::required(time, "time") }?, "time")?;
        IMAGES.get()?.write(|store| store.set_loaded(id, time))?;
        Ok(0)
    })
}

/// Sets the size of an image.
///
/// @param id borrowed; as for image_store_lookup
/// @param size in bytes
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_set_image_size(id: *const c_char, size: u64) -> c_int {
    guard("image_store_set_image_size", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        IMAGES.get()?.write(|store| store.set_size(id, size))?;
        Ok(0)
    })
}

/// Gives an image with its config.
///
/// @param id borrowed; as for image_store_lookup
/// @return freed with isula_storage_free_imagetool_image; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such image, or
/// it has no config), EUCLEAN (its config is damaged), ENODEV (not open), ENOMEM
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_get_image(id: *const c_char) -> *mut CImagetoolImage {
    guard("image_store_get_image", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        let (summary, config) = IMAGES.get()?.read(|store| Ok((store.summary(id)?, store.config(id)?)))?;
        Ok(out_spec::image(&summary, &config)?.into_raw())
    })
}

/// Gives what lists show of an image.
///
/// @param id borrowed; as for image_store_lookup
/// @return freed with isula_storage_free_imagetool_image_summary; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such
/// image), ENODEV (not open), ENOMEM
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_get_image_summary(id: *const c_char) -> *mut CImagetoolImageSummary {
    guard("image_store_get_image_summary", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        Ok(out::summary(IMAGES.get()?.read(|store| store.shared_summary(id))?.as_ref())?.into_raw())
    })
}

/// Gives what is stored under a key.
///
/// @param id borrowed; as for image_store_lookup
/// @param key borrowed; not empty
/// @return malloc'ed, with a NUL behind it, freed with free(); NULL with errno EINVAL (NULL, bad key), EILSEQ, ENOENT (no
/// such image or key), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_big_data(id: *const c_char, key: *const c_char) -> *mut c_char {
    guard("image_store_big_data", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: the caller's promise.
        let key = unsafe { arg::text(key, "key") }?;
        cmem::bytes(&IMAGES.get()?.read(|store| store.big_data(id, key))?)
    })
}

/// Gives the size of what is stored under a key.
///
/// @param id borrowed; as for image_store_lookup
/// @param key borrowed; not empty
/// @return size in bytes, or -1 with errno EINVAL (NULL, bad key), EILSEQ, ENOENT (no such image or key), ENODEV (not
/// open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_big_data_size(id: *const c_char, key: *const c_char) -> i64 {
    guard("image_store_big_data_size", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: the caller's promise.
        let key = unsafe { arg::text(key, "key") }?;
        IMAGES.get()?.read(|store| store.big_data_size(id, key))
    })
}

/// Gives the digest of what is stored under a key.
///
/// @param id borrowed; as for image_store_lookup
/// @param key borrowed; not empty
/// @return `sha256:` and 64 hex digits, malloc'ed, freed with free(); NULL with errno EINVAL (NULL, bad key), EILSEQ,
/// ENOENT (no such image or key), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_big_data_digest(id: *const c_char, key: *const c_char) -> *mut c_char {
    guard("image_store_big_data_digest", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: the caller's promise.
        let key = unsafe { arg::text(key, "key") }?;
        cmem::text(&IMAGES.get()?.read(|store| store.big_data_digest(id, key))?)
    })
}

/// Gives the keys of all big data of an image, in order of insertion.
///
/// @param id borrowed; as for image_store_lookup
/// @param names out; malloc'ed, freed with isula_storage_free_strings; NULL when there are none
/// @param names_len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), ENOMEM
///
/// # Safety
/// `id` must be NULL or a string, the others NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_big_data_names(
    id: *const c_char,
    names: *mut *mut *mut c_char,
    names_len: *mut usize,
) -> c_int {
    guard("image_store_big_data_names", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let result = unsafe { arg::out_texts(names, names_len, "names", "names_len") }?;
        result.set(&IMAGES.get()?.read(|store| store.big_data_names(id))?)?;
        Ok(0)
    })
}

/// Gives the free text of an image.
///
/// @param id borrowed; as for image_store_lookup
/// @return malloc'ed, freed with free(); NULL if it has none (errno is not set then), or with errno EINVAL (NULL),
/// EILSEQ, ENOENT (no such image), ENODEV (not open)
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_metadata(id: *const c_char) -> *mut c_char {
    guard("image_store_metadata", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        cmem::optional_text(IMAGES.get()?.read(|store| store.metadata(id))?.as_deref())
    })
}

/// Gives the id of an image's top layer.
///
/// @param id borrowed; as for image_store_lookup
/// @return malloc'ed, freed with free(); NULL if it has none (errno is not set then), or with errno EINVAL (NULL),
/// EILSEQ, ENOENT (no such image), ENODEV (not open)
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_top_layer(id: *const c_char) -> *mut c_char {
    guard("image_store_top_layer", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        cmem::optional_text(IMAGES.get()?.read(|store| store.top_layer(id))?.as_deref())
    })
}

/// Gives what lists show of all images, in order of creation.
///
/// @param images_list out; not written when there are no images; freed with isula_storage_clear_imagetool_images_list,
/// or isula_storage_free_imagetool_images_list if the struct itself is malloc'ed
/// @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
///
/// # Safety
/// `images_list` must be NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_get_all_images(images_list: *mut CImagetoolImagesList) -> c_int {
    guard("image_store_get_all_images", || {
        // SAFETY: the caller's promise.
        let list = unsafe { arg::out(images_list, "images_list") }?;
        let summaries = IMAGES.get()?.read(ImageStore::shared_summaries)?;
        if !summaries.is_empty() {
            list.set(out::summaries(&summaries)?.into_value());
        }
        Ok(0)
    })
}

/// Gives the number of images.
///
/// @return their number, or (size_t)-1 with errno ENODEV (not open)
#[unsafe(no_mangle)]
pub extern "C" fn image_store_get_images_number() -> usize {
    guard("image_store_get_images_number", || IMAGES.get()?.read(ImageStore::count))
}

/// Gives what the image directory holds: records and big data, not layers.
///
/// @param fs_info out; one element with the time in nanoseconds since 1970, the directory, its apparent size in bytes and
/// number of inodes; freed with isula_storage_clear_imagetool_fs_info
/// @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM, or what the system said
///
/// # Safety
/// `fs_info` must be NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn image_store_get_fs_info(fs_info: *mut CImagetoolFsInfo) -> c_int {
    guard("image_store_get_fs_info", || {
        // SAFETY: the caller's promise.
        let fs_info = unsafe { arg::out(fs_info, "fs_info") }?;
        let (dir, usage) = IMAGES.get()?.read(|store| Ok((store.dir().to_owned(), store.usage()?)))?;
        fs_info.set(out::fs_info(&dir, usage)?.into_value());
        Ok(0)
    })
}
