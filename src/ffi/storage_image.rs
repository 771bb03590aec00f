// SPDX-License-Identifier: MulanPSL-2.0
//! `storage_img_*`, `storage_get_*` and `storage_image_exist`: the images of the process-wide storage.
//!
//! Where a function takes `img_id`, it is an id, name, unique short id of at least three hex digits, or digest reference,
//! in this order, and a name as records hold it; only storage_img_get and storage_img_get_summary take a name in any
//! spelling that a person may use.

use std::ffi::{c_char, c_int};

use crate::ffi::global::STORAGE;
use crate::ffi::guard::guard;
use crate::ffi::types::{
    CImagetoolFsInfo, CImagetoolImage, CImagetoolImageSummary, CImagetoolImagesList,
    CStorageImgCreateOptions, types_timestamp_t,
};
use crate::ffi::{arg, cmem, image_store, out, out_spec};

/// Makes an image record without names.
///
/// @param id borrowed; one path component that does not start with a dot
/// @param parent_id borrowed; id of its top layer; may be NULL
/// @param metadata borrowed; free text; may be NULL
/// @param opts borrowed; create_time is when it was made (NULL, or neither seconds nor nanoseconds: now), digest the one
/// by which it is searched (may be NULL)
/// @return 0, or -1 with errno EINVAL (NULL, bad id, nanoseconds without seconds), EILSEQ, EEXIST (the id exists: compare
/// its top layer), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_create(
    id: *const c_char,
    parent_id: *const c_char,
    metadata: *const c_char,
    opts: *mut CStorageImgCreateOptions,
) -> c_int {
    guard("storage_img_create", || {
        // SAFETY: the caller's promise, here and for what follows.
        unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let opts = unsafe { arg::required(opts, "opts") }?;
        let (time, digest) = (opts.create_time, opts.digest);
        let image =
            // SAFETY: as above.
            unsafe { image_store::create_image(id, std::ptr::null_mut(), 0, parent_id, metadata, time, digest) }?;
        STORAGE.get()?.write(|storage| storage.create_image(&image))?;
        Ok(0)
    })
}

/// Gives an image with its config.
///
/// @param img_id borrowed; id, short id of at least three hex digits, or name in any spelling
/// @return freed with isula_storage_free_imagetool_image; NULL with errno EINVAL (NULL, no image name), EILSEQ, ENOENT (no
/// such image, or it has no config), EUCLEAN (its config is damaged), ENODEV (not open), ENOMEM
///
/// # Safety
/// `img_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_get(img_id: *const c_char) -> *mut CImagetoolImage {
    guard("storage_img_get", || {
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(img_id, "img_id") }?;
        let (summary, config) = STORAGE.get()?.read(|storage| {
            let id = storage.find_image(name)?;
            Ok((storage.images().summary(id.as_str())?, storage.images().config(id.as_str())?))
        })?;
        Ok(out_spec::image(&summary, &config)?.into_raw())
    })
}

/// Gives what lists show of an image.
///
/// @param img_id borrowed; id, short id of at least three hex digits, or name in any spelling
/// @return freed with isula_storage_free_imagetool_image_summary; NULL with errno EINVAL (NULL, no image name), EILSEQ,
/// ENOENT (no such image), ENODEV (not open), ENOMEM
///
/// # Safety
/// `img_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_get_summary(img_id: *const c_char) -> *mut CImagetoolImageSummary {
    guard("storage_img_get_summary", || {
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(img_id, "img_id") }?;
        let summary = STORAGE.get()?.read(|storage| {
            let id = storage.find_image(name)?;
            storage.images().shared_summary(id.as_str())
        })?;
        Ok(out::summary(&summary)?.into_raw())
    })
}

/// Stores text under a key.
///
/// @param img_id borrowed
/// @param key borrowed; not empty, not `images.json`, `.` or `..`
/// @param val borrowed; up to its NUL
/// @return 0, or -1 with errno EINVAL (NULL, bad key), EILSEQ (img_id or key is not UTF-8), ENOENT (no such image), ENODEV
/// (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_set_big_data(
    img_id: *const c_char,
    key: *const c_char,
    val: *const c_char,
) -> c_int {
    guard("storage_img_set_big_data", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(img_id, "img_id") }?;
        // SAFETY: as above.
        let key = unsafe { arg::text(key, "key") }?;
        // SAFETY: as above.
        let data = unsafe { arg::bytes(val, "val") }?;
        STORAGE.get()?.write(|storage| storage.images().set_big_data(id, key, data))?;
        Ok(0)
    })
}

/// Adds a name; if another image has it, it moves.
///
/// @param img_id borrowed
/// @param img_name borrowed; stored as it is
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_add_name(img_id: *const c_char, img_name: *const c_char) -> c_int {
    guard("storage_img_add_name", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(img_id, "img_id") }?;
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(img_name, "img_name") }?;
        STORAGE.get()?.write(|storage| storage.images().add_name(id, name))?;
        Ok(0)
    })
}

/// Deletes an image: its record first, then its layers from the top down, as far as nothing else uses them.
///
/// @param img_id borrowed
/// @param commit ignored
/// @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, EBUSY (a container was made from it; people
/// are shown which), ENODEV (not open), or what the system said
///
/// # Safety
/// `img_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_delete(img_id: *const c_char, commit: bool) -> c_int {
    guard("storage_img_delete", || {
        let _ignored = commit;
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(img_id, "img_id") }?;
        STORAGE.get()?.write(|storage| storage.delete_image(id))?;
        Ok(0)
    })
}

/// Sets when an image was loaded.
///
/// @param img_id borrowed
/// @param loaded_time borrowed; its seconds must be given
/// @return 0, or -1 with errno EINVAL (NULL, no seconds), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
/// system said
///
/// # Safety
/// `img_id` must be NULL or a string, `loaded_time` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_set_loaded_time(
    img_id: *const c_char,
    loaded_time: *mut types_timestamp_t,
) -> c_int {
    guard("storage_img_set_loaded_time", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(img_id, "img_id") }?;
        // SAFETY: the caller's promise.
        let time = unsafe { arg::required(loaded_time, "loaded_time") }?;
        let time = image_store::loaded_time(time, "loaded_time")?;
        STORAGE.get()?.write(|storage| storage.images().set_loaded(id, time))?;
        Ok(0)
    })
}

/// Gives the names of an image.
///
/// @param img_id borrowed
/// @param names out; malloc'ed, freed with isula_storage_free_strings; NULL when there are none
/// @param names_len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), ENOMEM
///
/// # Safety
/// `img_id` must be NULL or a string, the others NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_get_names(
    img_id: *const c_char,
    names: *mut *mut *mut c_char,
    names_len: *mut usize,
) -> c_int {
    guard("storage_img_get_names", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(img_id, "img_id") }?;
        // SAFETY: as above.
        let result = unsafe { arg::out_texts(names, names_len, "names", "names_len") }?;
        result.set(&STORAGE.get()?.read(|storage| storage.images().names(id))?)?;
        Ok(0)
    })
}

/// Replaces the names of an image; names that other images have move.
///
/// @param img_id borrowed
/// @param names borrowed; duplicates are dropped, the rest sorted
/// @param names_len number of names, not 0
/// @return 0, or -1 with errno EINVAL (NULL, no name), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
/// system said
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_set_names(
    img_id: *const c_char,
    names: *mut *const c_char,
    names_len: usize,
) -> c_int {
    guard("storage_img_set_names", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(img_id, "img_id") }?;
        // SAFETY: the caller's promise.
        let names = unsafe { arg::some_texts(names.cast_const(), names_len, "names") }?;
        STORAGE.get()?.write(|storage| storage.images().set_names(id, &names))?;
        Ok(0)
    })
}

/// Sets an image's size: the sum of its big data and of all its layers.
///
/// @param image_id borrowed
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image, it has no layer, or a layer is missing),
/// EUCLEAN (the size of a layer is not known), ENODEV (not open), or what the system said
///
/// # Safety
/// `image_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_set_image_size(image_id: *const c_char) -> c_int {
    guard("storage_img_set_image_size", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(image_id, "image_id") }?;
        STORAGE.get()?.write(|storage| storage.refresh_size(id))?;
        Ok(0)
    })
}

/// Gives the full id of an image.
///
/// @param img_name borrowed
/// @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not
/// open)
///
/// # Safety
/// `img_name` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_img_get_image_id(img_name: *const c_char) -> *mut c_char {
    guard("storage_img_get_image_id", || {
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(img_name, "img_name") }?;
        cmem::text(STORAGE.get()?.read(|storage| storage.images().lookup(name))?.as_str())
    })
}

/// Whether an image exists.
///
/// @param image_or_id borrowed
/// @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
///
/// # Safety
/// `image_or_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_image_exist(image_or_id: *const c_char) -> bool {
    guard("storage_image_exist", || {
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(image_or_id, "image_or_id") }?;
        STORAGE.get()?.read(|storage| Ok(storage.images().exists(name)))
    })
}

/// Gives the id of an image's top layer.
///
/// @param id borrowed
/// @return malloc'ed, freed with free(); NULL if it has none (errno is not set then), or with errno EINVAL (NULL),
/// EILSEQ, ENOENT (no such image), ENODEV (not open)
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_get_img_top_layer(id: *const c_char) -> *mut c_char {
    guard("storage_get_img_top_layer", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        cmem::optional_text(STORAGE.get()?.read(|storage| storage.images().top_layer(id))?.as_deref())
    })
}

/// Gives the number of images.
///
/// @return their number, or (size_t)-1 with errno ENODEV (not open)
#[unsafe(no_mangle)]
pub extern "C" fn storage_get_img_count() -> usize {
    guard("storage_get_img_count", || STORAGE.get()?.read(|storage| storage.images().count()))
}

/// Gives what lists show of all images, in order of creation.
///
/// @param images out; not written when there are no images; freed with isula_storage_clear_imagetool_images_list, or
/// isula_storage_free_imagetool_images_list if the struct itself is malloc'ed
/// @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
///
/// # Safety
/// `images` must be NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_get_all_images(images: *mut CImagetoolImagesList) -> c_int {
    guard("storage_get_all_images", || {
        // SAFETY: the caller's promise.
        let list = unsafe { arg::out(images, "images") }?;
        let summaries = STORAGE.get()?.read(|storage| storage.images().shared_summaries())?;
        if !summaries.is_empty() {
            list.set(out::summaries(&summaries)?.into_value());
        }
        Ok(0)
    })
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
pub unsafe extern "C" fn storage_get_images_fs_usage(fs_info: *mut CImagetoolFsInfo) -> c_int {
    guard("storage_get_images_fs_usage", || {
        // SAFETY: the caller's promise.
        let fs_info = unsafe { arg::out(fs_info, "fs_info") }?;
        let (dir, usage) = STORAGE.get()?.read(|storage| {
            let images = storage.images();
            Ok((images.dir().to_owned(), images.usage()?))
        })?;
        fs_info.set(out::fs_info(&dir, usage)?.into_value());
        Ok(0)
    })
}
