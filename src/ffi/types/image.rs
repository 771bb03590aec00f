// SPDX-License-Identifier: MulanPSL-2.0
//! The image store as an object. Source: the design documents of the image store; the order of the members is theirs.
#![allow(non_camel_case_types, reason = "the names are those of the design documents")]

use std::ffi::{c_char, c_int, c_void};

use super::libisula::CStorageImage;
use super::time::types_timestamp_t;

/// The record of an image, under the design documents' name.
pub type image_storage_images = CStorageImage;

/// A point in time, under the design documents' name.
pub type timestamp = types_timestamp_t;

/// An image store, under the design documents' name.
pub type image_store_t = CImageStore;

/// What the storage facade is given to make an image.
#[repr(C)]
#[derive(Debug)]
pub struct CStorageImgCreateOptions {
    /// When it was made, or NULL.
    pub create_time: *mut types_timestamp_t,
    /// Digest by which it is searched, or NULL.
    pub digest: *mut c_char,
}

/// An open image store: made by new_image_store, ended by free_image_store.
///
/// The functions return 0, or -1 with errno set (exists: true or false). Outputs are written on success only. "id" and
/// "name" may be an id, a name, a unique short id of at least three digits, or a digest reference. Any thread may call
/// them at any time. A struct that new_image_store did not fill, or that was freed, gives EINVAL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CImageStore {
    /// Makes an image and fills `image`, whose members belong to the caller (isula_storage_clear_image).
    /// `names`, `layer`, `metadata` and `searchable_digest` may be NULL; `id` NULL gives a random one; a
    /// `time` without seconds and nanoseconds is now.
    pub create: Option<
        unsafe extern "C" fn(
            id: *const c_char,
            names: *mut *const c_char,
            names_len: usize,
            layer: *const c_char,
            metadata: *const c_char,
            time: timestamp,
            searchable_digest: *const c_char,
            image_store: *mut CImageStore,
            image: *mut image_storage_images,
        ) -> c_int,
    >,
    /// Replaces the names of an image; names held by other images move. An empty list is refused.
    pub set_names: Option<
        unsafe extern "C" fn(
            id: *const c_char,
            names: *mut *const c_char,
            names_len: usize,
            image_store: *mut CImageStore,
        ) -> c_int,
    >,
    /// Deletes an image; one that does not exist is fine.
    pub delete: Option<unsafe extern "C" fn(id: *const c_char, image_store: *mut CImageStore) -> c_int>,
    /// Deletes all images.
    pub wipe: Option<unsafe extern "C" fn(image_store: *mut CImageStore) -> c_int>,
    /// Sets when an image was loaded; `loaded` needs seconds.
    pub set_loaded_time: Option<
        unsafe extern "C" fn(id: *const c_char, loaded: timestamp, image_store: *mut CImageStore) -> c_int,
    >,
    /// Adds a name; held by another image, it moves.
    pub add_name: Option<
        unsafe extern "C" fn(id: *const c_char, name: *const c_char, image_store: *mut CImageStore) -> c_int,
    >,
    /// Writes every record whose memory is ahead of the disk, which only an earlier failure can cause.
    pub save: Option<unsafe extern "C" fn(image_store: *const CImageStore) -> c_int>,
    /// Sets the free text of an image.
    pub set_metadata: Option<
        unsafe extern "C" fn(
            image_store: *mut CImageStore,
            id: *const c_char,
            metadata: *const c_char,
        ) -> c_int,
    >,
    /// Stores text under a key.
    pub set_big_data: Option<
        unsafe extern "C" fn(
            image_store: *mut CImageStore,
            id: *const c_char,
            key: *const c_char,
            data: *const c_char,
        ) -> c_int,
    >,
    /// Whether an image of this id, name, short id or digest reference exists.
    pub exists: Option<unsafe extern "C" fn(id: *const c_char, image_store: *const CImageStore) -> bool>,
    /// Fills `image`, whose members belong to the caller (isula_storage_clear_image).
    pub get: Option<
        unsafe extern "C" fn(
            id: *const c_char,
            image_store: *const CImageStore,
            image: *mut image_storage_images,
        ) -> c_int,
    >,
    /// Gives the full id of an image, malloc'ed.
    pub lookup: Option<
        unsafe extern "C" fn(
            name: *const c_char,
            image_store: *const CImageStore,
            id: *mut *mut c_char,
        ) -> c_int,
    >,
    /// Gives all images in one malloc'ed array (isula_storage_free_images).
    pub images: Option<
        unsafe extern "C" fn(
            image_store: *const CImageStore,
            images: *mut *mut image_storage_images,
            len: *mut usize,
        ) -> c_int,
    >,
    /// Gives the images with this digest in one malloc'ed array (isula_storage_free_images); without any it
    /// fails with ENOENT.
    pub by_digest: Option<
        unsafe extern "C" fn(
            image_store: *const CImageStore,
            digest: *const c_char,
            images: *mut *mut image_storage_images,
            len: *mut usize,
        ) -> c_int,
    >,
    /// Reads the directory again.
    pub load: Option<unsafe extern "C" fn(image_store: *mut CImageStore) -> c_int>,
    /// Gives the free text of an image, malloc'ed; NULL when it has none.
    pub metadata: Option<
        unsafe extern "C" fn(
            image_store: *const CImageStore,
            id: *const c_char,
            metadata: *mut *mut c_char,
        ) -> c_int,
    >,
    /// Gives what is stored under a key, malloc'ed, with a NUL behind it.
    pub big_data: Option<
        unsafe extern "C" fn(
            image_store: *const CImageStore,
            id: *const c_char,
            key: *const c_char,
            bigdata: *mut *mut c_char,
        ) -> c_int,
    >,
    /// Gives the size in bytes of what is stored under a key.
    pub big_data_size: Option<
        unsafe extern "C" fn(
            image_store: *const CImageStore,
            id: *const c_char,
            key: *const c_char,
            big_data_size: *mut i64,
        ) -> c_int,
    >,
    /// Gives the digest of what is stored under a key, malloc'ed.
    pub big_data_digest: Option<
        unsafe extern "C" fn(
            image_store: *const CImageStore,
            id: *const c_char,
            key: *const c_char,
            big_data_digest: *mut *mut c_char,
        ) -> c_int,
    >,
    /// Gives all keys in a malloc'ed array (isula_storage_free_strings); NULL and 0 when there are none.
    pub big_data_names: Option<
        unsafe extern "C" fn(
            image_store: *const CImageStore,
            id: *const c_char,
            big_data_names: *mut *mut *mut c_char,
            big_data_names_len: *mut usize,
        ) -> c_int,
    >,
    /// Private: says that new_image_store filled this struct.
    pub magic: u64,
    /// Private: which store it is; not an address.
    pub handle: *mut c_void,
}
