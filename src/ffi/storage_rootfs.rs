// SPDX-License-Identifier: MulanPSL-2.0
//! `storage_rootfs_*` and what belongs to them: the containers of the process-wide storage.
//!
//! Where a function takes `container_id`, it is an id, the id of the container's layer, or a unique short id of at least
//! three hex digits, in this order.

use std::ffi::{c_char, c_int};

use crate::ffi::global::STORAGE;
use crate::ffi::guard::guard;
use crate::ffi::types::{CContainerInspectGraphDriver, CImagetoolFsInfo, CJsonMapStringString};
use crate::ffi::{arg, out};
use crate::id::ContainerId;
use crate::storage::CreateContainer;

/// Makes a container: a record, and a writable layer of the same id on top of the image's.
///
/// @param container_id borrowed; 1-255 bytes, one path component that does not start with a dot
/// @param image borrowed; id, short id of at least three hex digits, or name in any spelling
/// @param mount_label borrowed; SELinux label; may be NULL
/// @param storage_opts borrowed; options of the layer such as `size`; may be NULL
/// @param mountpoint out, may be NULL; where the layer is or would be mounted, malloc'ed, freed with free()
/// @return 0, or -1 with errno EINVAL (NULL, bad id, no image name, bad option), EILSEQ, ENOENT (no such image), EEXIST (a
/// container of this id exists, or another layer: nothing is touched), EOPNOTSUPP (the driver cannot do what an option
/// asks for), ENODEV (not open), or what the system said; nothing of the container remains then
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_rootfs_create(
    container_id: *const c_char,
    image: *const c_char,
    mount_label: *const c_char,
    storage_opts: *mut CJsonMapStringString,
    mountpoint: *mut *mut c_char,
) -> c_int {
    guard("storage_rootfs_create", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = ContainerId::new(unsafe { arg::text(container_id, "container_id") }?)?;
        let container = CreateContainer {
            id,
            // SAFETY: as above.
            image: unsafe { arg::text(image, "image") }?.to_owned(),
            // SAFETY: as above.
            mount_label: unsafe { arg::optional_text(mount_label, "mount_label") }?.map(str::to_owned),
            // SAFETY: as above.
            storage_options: unsafe { arg::map(storage_opts, "storage_opts") }?,
        };
        let place = STORAGE.get()?.write(|storage| storage.create_container(&container))?;
        if !mountpoint.is_null() {
            let text = place.as_deref().map_or(Ok(std::ptr::null_mut()), out::path)?;
            // SAFETY: as above.
            unsafe { mountpoint.write(text) };
        }
        Ok(0)
    })
}

/// Deletes a container with its layer; unmounts it first.
///
/// @param container_id borrowed
/// @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, EBUSY (it cannot be unmounted), ENODEV (not
/// open), or what the system said: the container is still there then
///
/// # Safety
/// `container_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_rootfs_delete(container_id: *const c_char) -> c_int {
    guard("storage_rootfs_delete", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(container_id, "container_id") }?;
        STORAGE.get()?.write(|storage| storage.delete_container(id))?;
        Ok(0)
    })
}

/// Mounts a container, counting.
///
/// @param container_id borrowed
/// @return its root, malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such container, or its
/// layer is missing), ENODEV (not open), or what the system said
///
/// # Safety
/// `container_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_rootfs_mount(container_id: *const c_char) -> *mut c_char {
    guard("storage_rootfs_mount", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(container_id, "container_id") }?;
        out::path(&STORAGE.get()?.write(|storage| storage.mount_container(id))?)
    })
}

/// Drops one mount of a container, or all of them.
///
/// @param container_id borrowed
/// @param force drop all mounts, not one
/// @return 0: done, or there was nothing to do (no such container or layer, not mounted); -1 with errno EINVAL (NULL),
/// EILSEQ, ENODEV (not open), or what the system said
///
/// # Safety
/// `container_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_rootfs_umount(container_id: *const c_char, force: bool) -> c_int {
    guard("storage_rootfs_umount", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(container_id, "container_id") }?;
        STORAGE.get()?.write(|storage| storage.unmount_container(id, force))?;
        Ok(0)
    })
}

/// Gives what a container itself holds, without its image. (The name is iSulad's.)
///
/// @param container_id borrowed
/// @param fs_info out; one element with the time in nanoseconds since 1970, the directory, its apparent size in bytes and
/// number of inodes; freed with isula_storage_clear_imagetool_fs_info
/// @return 0: given, or its layer is missing and nothing was written; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such
/// container), ENODEV (not open), ENOMEM, or what the system said
///
/// # Safety
/// `container_id` must be NULL or a string, `fs_info` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_rootfs_fs_usgae(
    container_id: *const c_char,
    fs_info: *mut CImagetoolFsInfo,
) -> c_int {
    guard("storage_rootfs_fs_usgae", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(container_id, "container_id") }?;
        // SAFETY: the caller's promise.
        let fs_info = unsafe { arg::out(fs_info, "fs_info") }?;
        if let Some((path, usage)) = STORAGE.get()?.read(|storage| storage.container_usage(id))? {
            fs_info.set(out::fs_info(&path, usage)?.into_value());
        }
        Ok(0)
    })
}

/// Gives the directory of the containers' records.
///
/// @return malloc'ed, freed with free(); NULL with errno ENODEV (not open), ENOMEM
#[unsafe(no_mangle)]
pub extern "C" fn storage_rootfs_get_dir() -> *mut c_char {
    guard("storage_rootfs_get_dir", || {
        let dir = STORAGE.get()?.read(|storage| Ok(storage.containers()?.dir().to_owned()))?;
        out::path(&dir)
    })
}

/// Gives where a container's content is.
///
/// @param id borrowed; as container_id
/// @return freed with isula_storage_free_graph_driver; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such container, or
/// its layer is missing), ENODEV (not open), ENOMEM, or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_get_metadata_by_container_id(
    id: *const c_char,
) -> *mut CContainerInspectGraphDriver {
    guard("storage_get_metadata_by_container_id", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        let (name, metadata) = STORAGE
            .get()?
            .read(|storage| Ok((storage.layers().driver().name(), storage.container_metadata(id)?)))?;
        Ok(out::graph_driver(name, &metadata)?.into_raw())
    })
}

/// Takes the layer of a container whose record is broken out of the storage. It is not deleted: record and data go into
/// quarantine and can be restored.
///
/// @param layer_id borrowed; the id of the container
/// @return 0, or -1 with errno EINVAL (NULL, no container's layer), EILSEQ, ENOENT (no such layer), EBUSY (a container has
/// it, or it cannot be unmounted), ENODEV (not open), or what the system said
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn storage_broken_rw_layer_delete(layer_id: *const c_char) -> c_int {
    guard("storage_broken_rw_layer_delete", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(layer_id, "layer_id") }?;
        STORAGE.get()?.write(|storage| storage.quarantine_broken_layer(id))?;
        Ok(0)
    })
}
