// SPDX-License-Identifier: MulanPSL-2.0
//! What frees what: the members of each struct, and the functions for C. libisula's own `free_*` work as well, which
//! is why this library must not export functions of those names.

use std::ffi::c_char;

use crate::ffi::cmem::{Members, clear, free, free_array, free_pointers, release, release_texts};
use crate::ffi::guard::guard_void;
use crate::ffi::types::{
    CCntRootfs, CContainerInspectGraphDriver, CContainerInspectGraphDriverData, CDefsHealthCheck,
    CDefsMapStringObject, CDefsMapStringObjectElement, CDriverMountOpts, CGraphdriverStatus,
    CImagetoolFsInfo, CImagetoolFsInfoImageFilesystemsElement, CImagetoolFsInfoImageFilesystemsFsId,
    CImagetoolFsInfoImageFilesystemsInodesUsed, CImagetoolFsInfoImageFilesystemsUsedBytes, CImagetoolImage,
    CImagetoolImageSummary, CImagetoolImageSummaryUid, CImagetoolImageUid, CImagetoolImagesList,
    CJsonMapStringInt64, CJsonMapStringString, CLayer, CLayerList, CLayerOpts, CLayerStoreMountOpts,
    COciImageSpec, COciImageSpecConfig, COciImageSpecHistoryElement, COciImageSpecRootfs, CRootfsList,
    CStorageImage, CStorageRootfs, CStorageRootfsGidmapElement, CStorageRootfsUidmapElement,
    image_storage_images,
};

/// Names every member that owns memory, by how it is freed.
macro_rules! members {
    ($type:ty {
        $(blocks: $($block:ident),+;)?
        $(texts: $($texts:ident / $texts_len:ident),+;)?
        $(structs: $($one:ident),+;)?
        $(arrays: $($array:ident / $array_len:ident),+;)?
    }) => {
        // SAFETY: numbers and pointers only: all zero bytes are valid and own nothing.
        unsafe impl Members for $type {
            #[allow(unused_unsafe, reason = "a struct may own nothing")]
            unsafe fn free_members(&mut self) {
                // SAFETY: the caller's promise for each member.
                unsafe {
                    $($(release(self.$block);)+)?
                    $($(release_texts(self.$texts, self.$texts_len);)+)?
                    $($(free(self.$one);)+)?
                    $($(free_pointers(self.$array, self.$array_len);)+)?
                }
            }
        }
    };
}

pub(crate) use members;

members!(CLayer { blocks: id, parent, mount_point, compressed_digest, uncompressed_digest; });
members!(CLayerList { arrays: layers / layers_len; });
members!(CLayerStoreMountOpts { blocks: mount_label; structs: mount_opts; });
members!(CLayerOpts {
    blocks: parent, uncompressed_digest, compressed_digest;
    texts: names / names_len;
    structs: opts;
});
members!(CDriverMountOpts { blocks: mount_label; texts: options / options_len; });
members!(CGraphdriverStatus { blocks: driver_name, backing_fs, status; });
members!(CJsonMapStringString { texts: keys / len, values / len; });
members!(CJsonMapStringInt64 { blocks: values; texts: keys / len; });
members!(CStorageImage {
    blocks: id, digest, layer, metadata, created, loaded;
    texts: names / names_len, mapped_layers / mapped_layers_len, big_data_names / big_data_names_len;
    structs: big_data_sizes, big_data_digests;
});
members!(CStorageRootfs {
    blocks: id, image, layer, metadata, created;
    texts: names / names_len;
    arrays: uidmap / uidmap_len, gidmap / gidmap_len;
});
members!(CStorageRootfsUidmapElement {});
members!(CStorageRootfsGidmapElement {});
members!(CRootfsList { arrays: rootfs / rootfs_len; });
members!(CCntRootfs { structs: srootfs; });
members!(CImagetoolFsInfo { arrays: image_filesystems / image_filesystems_len; });
members!(CContainerInspectGraphDriver { blocks: name; structs: data; });
members!(CContainerInspectGraphDriverData {
    blocks: lower_dir, merged_dir, upper_dir, work_dir, device_id, device_name, device_size;
});
members!(CImagetoolImageSummary {
    blocks: id, top_layer, created, loaded, username;
    texts: repo_tags / repo_tags_len, repo_digests / repo_digests_len;
    structs: uid, labels;
});
members!(CImagetoolImagesList { arrays: images / images_len; });
members!(CImagetoolImage {
    blocks: id, top_layer, created, loaded, username;
    texts: repo_tags / repo_tags_len, repo_digests / repo_digests_len;
    structs: uid, spec, healthcheck;
});
members!(COciImageSpec {
    blocks: created, author, architecture, os;
    structs: config, rootfs;
    arrays: history / history_len;
});
members!(COciImageSpecConfig {
    blocks: user, working_dir, stop_signal;
    texts: env / env_len, entrypoint / entrypoint_len, cmd / cmd_len;
    structs: exposed_ports, volumes, labels, healthcheck;
});
members!(COciImageSpecRootfs { blocks: r#type; texts: diff_ids / diff_ids_len; });
members!(COciImageSpecHistoryElement { blocks: created, author, created_by, comment; });
members!(CDefsMapStringObject { texts: keys / len; arrays: values / len; });
members!(CDefsMapStringObjectElement {});
members!(CDefsHealthCheck { texts: test / test_len; });
members!(CImagetoolImageUid {});
members!(CImagetoolImageSummaryUid {});
members!(CImagetoolFsInfoImageFilesystemsElement { structs: fs_id, used_bytes, inodes_used; });
members!(CImagetoolFsInfoImageFilesystemsFsId { blocks: mountpoint; });
members!(CImagetoolFsInfoImageFilesystemsUsedBytes {});
members!(CImagetoolFsInfoImageFilesystemsInodesUsed {});

/// Frees a text that this library returned.
///
/// @param text taken; may be NULL
///
/// # Safety
/// `text` must come from this library, or be malloc'ed, and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_string(text: *mut c_char) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_string", || unsafe { release(text) });
}

/// Frees an array of texts that this library returned.
///
/// @param texts taken; may be NULL
/// @param len number of texts
///
/// # Safety
/// `texts` must be malloc'ed with `len` malloc'ed texts and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_strings(texts: *mut *mut c_char, len: usize) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_strings", || unsafe { release_texts(texts, len) });
}

/// Frees a layer.
///
/// @param layer taken; may be NULL
///
/// # Safety
/// `layer` and its members must be malloc'ed, as this library returns them, and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_layer(layer: *mut CLayer) {
    // SAFETY: the caller's promise.
    guard_void("free_layer", || unsafe { free(layer) });
}

/// Frees a list of layers, the layers and the struct itself: for a malloc'ed list. See isula_storage_clear_layer_list.
///
/// @param list taken; may be NULL
///
/// # Safety
/// `list` and its members must be malloc'ed, as this library returns them, and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_layer_list(list: *mut CLayerList) {
    // SAFETY: the caller's promise.
    guard_void("free_layer_list", || unsafe { free(list) });
}

/// Frees the layers in a list and empties it; the struct stays: for a list on the stack.
///
/// @param list borrowed; may be NULL
///
/// # Safety
/// The members of `list` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_clear_layer_list(list: *mut CLayerList) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_clear_layer_list", || unsafe { clear(list) });
}

/// Frees the options of a layer's creation and all their members.
///
/// @param opts taken; may be NULL
///
/// # Safety
/// `opts` and its members must be malloc'ed and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_layer_opts(opts: *mut CLayerOpts) {
    // SAFETY: the caller's promise.
    guard_void("free_layer_opts", || unsafe { free(opts) });
}

/// Frees driver options of a layer's creation and all their members.
///
/// @param opts taken; may be NULL
///
/// # Safety
/// `opts` and its members must be malloc'ed and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_layer_store_mount_opts(opts: *mut CLayerStoreMountOpts) {
    // SAFETY: the caller's promise.
    guard_void("free_layer_store_mount_opts", || unsafe { free(opts) });
}

/// Frees the members of an image record and zeroes it; the struct stays: for one that the caller provided.
///
/// @param image borrowed; may be NULL
///
/// # Safety
/// The members of `image` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_clear_image(image: *mut image_storage_images) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_clear_image", || unsafe { clear(image) });
}

/// Frees an array of image records, as `images` and `by_digest` of an image store return it.
///
/// @param images taken; may be NULL
/// @param len number of records
///
/// # Safety
/// `images` must be one malloc'ed array of `len` records as this library returns them, not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_images(images: *mut image_storage_images, len: usize) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_images", || unsafe { free_array(images, len) });
}

/// Frees an image; libisula's free_imagetool_image does the same.
///
/// @param image taken; may be NULL
///
/// # Safety
/// `image` must be as this library returns it and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_imagetool_image(image: *mut CImagetoolImage) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_imagetool_image", || unsafe { free(image) });
}

/// Frees the summary of an image; libisula's free_imagetool_image_summary does the same.
///
/// @param summary taken; may be NULL
///
/// # Safety
/// `summary` must be as this library returns it and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_imagetool_image_summary(summary: *mut CImagetoolImageSummary) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_imagetool_image_summary", || unsafe { free(summary) });
}

/// Frees a list of summaries and the struct itself: for a malloc'ed list; libisula's free_imagetool_images_list does
/// the same.
///
/// @param list taken; may be NULL
///
/// # Safety
/// `list` must be malloc'ed with members as this library returns them, and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_imagetool_images_list(list: *mut CImagetoolImagesList) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_imagetool_images_list", || unsafe { free(list) });
}

/// Frees the summaries in a list and empties it; the struct stays: for a list on the stack.
///
/// @param list borrowed; may be NULL
///
/// # Safety
/// The members of `list` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_clear_imagetool_images_list(list: *mut CImagetoolImagesList) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_clear_imagetool_images_list", || unsafe { clear(list) });
}

/// Frees usage of file systems and the struct itself: for a malloc'ed one; libisula's free_imagetool_fs_info does the
/// same.
///
/// @param info taken; may be NULL
///
/// # Safety
/// `info` must be malloc'ed with members as this library returns them, and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_imagetool_fs_info(info: *mut CImagetoolFsInfo) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_imagetool_fs_info", || unsafe { free(info) });
}

/// Frees the members of usage of file systems and zeroes it; the struct stays: for one on the stack.
///
/// @param info borrowed; may be NULL
///
/// # Safety
/// The members of `info` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_clear_imagetool_fs_info(info: *mut CImagetoolFsInfo) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_clear_imagetool_fs_info", || unsafe { clear(info) });
}

/// Frees what a driver says of a layer; libisula's free_container_inspect_graph_driver does the same.
///
/// @param driver taken; may be NULL
///
/// # Safety
/// `driver` must be as this library returns it and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_graph_driver(driver: *mut CContainerInspectGraphDriver) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_graph_driver", || unsafe { free(driver) });
}

/// Frees the record of a container's root file system; libisula's free_storage_rootfs does the same.
///
/// @param rootfs taken; may be NULL
///
/// # Safety
/// `rootfs` must be as this library returns it and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_free_storage_rootfs(rootfs: *mut CStorageRootfs) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_free_storage_rootfs", || unsafe { free(rootfs) });
}

/// Frees the records in a list and empties it; the struct stays: for a list on the stack.
///
/// @param list borrowed; may be NULL
///
/// # Safety
/// The members of `list` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_clear_rootfs_list(list: *mut CRootfsList) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_clear_rootfs_list", || unsafe { clear(list) });
}
