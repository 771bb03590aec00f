// SPDX-License-Identifier: MulanPSL-2.0
//! `graphdriver_*`: the driver of the process-wide layer store, or one that was opened alone.

use std::ffi::{c_char, c_int};

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::cmem::{CBox, free};
use crate::ffi::global::{DRIVER, LAYERS};
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::stream::CallerStream;
use crate::ffi::types::{
    CContainerInspectGraphDriver, CDriverCreateOpts, CDriverMountOpts, CGraphdriverStatus, CImagetoolFsInfo,
    CIoReadWrapper, CStorageModuleInitOptions,
};
use crate::ffi::{arg, cmem, host, layer_store, out};
use crate::id::LayerId;
use crate::layer::{Direct, LayerStore, LoneDriver};
use crate::storage::{DriverOptions, Durability, LayerKind, MountOptions, NewLayer};

/// Asks the driver: of the layer store, or else the one that was opened alone.
fn read<T>(body: impl FnOnce(&Direct<'_>) -> Result<T>) -> Result<T> {
    match LAYERS.get() {
        Ok(store) => store.read(|store: &LayerStore| body(&store.direct())),
        Err(_) => DRIVER.get()?.read(|driver: &LoneDriver| body(&driver.direct())),
    }
}

/// Changes something with it.
fn write<T>(body: impl FnOnce(&Direct<'_>) -> Result<T>) -> Result<T> {
    match LAYERS.get() {
        Ok(store) => store.write(|store: &LayerStore| body(&store.direct())),
        Err(_) => DRIVER.get()?.write(|driver: &LoneDriver| body(&driver.direct())),
    }
}

/// # Safety
/// `id` is NULL or a string.
unsafe fn layer_id(id: *const c_char, name: &str) -> Result<LayerId> {
    // SAFETY: the caller's promise.
    LayerId::new(unsafe { arg::text(id, name) }?)
}

/// # Safety
/// `id` is NULL or a string.
unsafe fn optional_layer_id(id: *const c_char, name: &str) -> Result<Option<LayerId>> {
    // SAFETY: the caller's promise.
    unsafe { arg::optional_text(id, name) }?.map(LayerId::new).transpose()
}

/// Opens a graph driver alone, without a layer store. layer_store_init and storage_module_init open the driver
/// themselves: the functions of this family then work on theirs.
///
/// @param opts borrowed; storage_root and driver_name must be given and not be empty; storage_run_root is not used
/// @return 0, or -1 with errno EINVAL (NULL, unknown driver or option), EEXIST (a driver is open already in this
/// process), EBUSY (another process owns the driver's directory), EILSEQ (a text is not UTF-8), EOPNOTSUPP (the driver
/// cannot work here), ENODEV (devicemapper: there is no such thin pool), or what the system said
///
/// # Safety
/// `opts` must be NULL or valid with all its members during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_init(opts: *const CStorageModuleInitOptions) -> c_int {
    guard("graphdriver_init", || {
        // SAFETY: the caller's promise.
        let options = unsafe { options(opts) }?;
        if LAYERS.get().is_ok() {
            let message = "the layer store has a graph driver open already";
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        // SAFETY: the caller's promise.
        let share = unsafe { layer_store::is_remote(opts) };
        DRIVER.open(|| if share { LoneDriver::open_shared(&options) } else { LoneDriver::open(&options) })?;
        Ok(0)
    })
}

/// # Safety
/// As for `graphdriver_init`.
unsafe fn options(opts: *const CStorageModuleInitOptions) -> Result<DriverOptions> {
    // SAFETY: the caller's promise, for all that follow.
    let opts = unsafe { arg::required(opts, "opts") }?;
    // SAFETY: as above.
    let root = unsafe { arg::path(opts.storage_root, "opts->storage_root") }?;
    // SAFETY: as above.
    let name = unsafe { arg::text(opts.driver_name, "opts->driver_name") }?;
    let texts = opts.driver_opts.cast_const().cast();
    // SAFETY: as above.
    let options = unsafe { arg::texts(texts, opts.driver_opts_len, "opts->driver_opts") }?;
    Ok(DriverOptions {
        root: root.to_owned(),
        name: name.to_owned(),
        options,
        durability: Durability::Full,
        read_only: false,
        owner_shift: host::owner_shift()?,
    })
}

/// Makes an empty layer for a container.
///
/// @param id borrowed; 1-255 bytes, one path component that does not start with a dot
/// @param parent borrowed; the layer it stands on, or NULL
/// @param create_opts borrowed, not changed; storage_opt may have one `size`
/// @return 0, or -1 with errno EINVAL (NULL, bad id, unknown option, bad size), EILSEQ, EEXIST (a layer of this id is
/// there: nothing is touched; the reference takes it over with what it holds), ENOENT (no such parent), EOPNOTSUPP (a size,
/// and the file system cannot limit it), ENODEV (no driver is open), or what the system said; nothing remains then
///
/// # Safety
/// All pointers must be valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_create_rw(
    id: *const c_char,
    parent: *const c_char,
    create_opts: *mut CDriverCreateOpts,
) -> c_int {
    // SAFETY: the caller's promise.
    guard("graphdriver_create_rw", || unsafe { create(id, parent, create_opts, LayerKind::ReadWrite) })
}

/// Makes an empty layer for an image, to be filled with graphdriver_apply_diff.
///
/// @param id borrowed; 1-255 bytes, one path component that does not start with a dot
/// @param parent borrowed; the layer it stands on, or NULL
/// @param create_opts borrowed; must have no storage options
/// @return as for graphdriver_create_rw; a storage option is EINVAL
///
/// # Safety
/// All pointers must be valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_create_ro(
    id: *const c_char,
    parent: *const c_char,
    create_opts: *const CDriverCreateOpts,
) -> c_int {
    // SAFETY: the caller's promise.
    guard("graphdriver_create_ro", || unsafe { create(id, parent, create_opts, LayerKind::ReadOnly) })
}

/// # Safety
/// As for `graphdriver_create_rw`.
unsafe fn create(
    id: *const c_char,
    parent: *const c_char,
    opts: *const CDriverCreateOpts,
    kind: LayerKind,
) -> Result<c_int> {
    // SAFETY: the caller's promise, here and for what follows.
    let id = unsafe { layer_id(id, "id") }?;
    // SAFETY: as above.
    let parent = unsafe { optional_layer_id(parent, "parent") }?;
    // SAFETY: as above.
    let opts = unsafe { arg::required(opts, "create_opts") }?;
    // SAFETY: as above.
    let label = unsafe { arg::optional_text(opts.mount_label, "create_opts->mount_label") }?;
    // SAFETY: as above.
    let storage_options = unsafe { arg::map(opts.storage_opt, "create_opts->storage_opt") }?;
    let layer = NewLayer {
        id: &id,
        parent: parent.as_ref(),
        kind,
        storage_options: &storage_options,
        mount_label: label,
    };
    write(|driver| driver.create(&layer))?;
    Ok(0)
}

/// Removes a layer's data; unmounts it first if it is mounted. What the layer store has a record of is deleted with
/// layer_store_delete only.
///
/// @param id borrowed
/// @return 0: removed, or there was none; -1 with errno EINVAL (NULL, bad id), EILSEQ, EBUSY (the layer store has a
/// record of it, other layers stand on it, or its mount is in use: nothing is touched), ENODEV (no driver is open), or what
/// the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_rm_layer(id: *const c_char) -> c_int {
    guard("graphdriver_rm_layer", || {
        // SAFETY: the caller's promise.
        let id = unsafe { layer_id(id, "id") }?;
        write(|driver| driver.remove(&id))?;
        Ok(0)
    })
}

/// Mounts a layer, not counting: one that is mounted already stays so. An image layer that the layer store has a record
/// of is mounted read-only, every other layer writable.
///
/// @param id borrowed
/// @param mount_opts borrowed; NULL: no label, and the options that the driver was opened with
/// @return the root of the mounted layer, malloc'ed, freed with free(); NULL with errno EINVAL (NULL, bad id, bad option),
/// EILSEQ, ENOENT (no such layer), EUCLEAN (what it stands on is broken), ENODEV (no driver is open), or what the system
/// said
///
/// # Safety
/// `id` must be NULL or a string, `mount_opts` NULL or valid with all its members.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_mount_layer(
    id: *const c_char,
    mount_opts: *const CDriverMountOpts,
) -> *mut c_char {
    guard("graphdriver_mount_layer", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { layer_id(id, "id") }?;
        let (mut label, mut options) = (None, Vec::new());
        // SAFETY: as above.
        if let Some(opts) = unsafe { mount_opts.as_ref() } {
            // SAFETY: as above.
            label = unsafe { arg::optional_text(opts.mount_label, "mount_opts->mount_label") }?;
            let texts = opts.options.cast_const().cast();
            // SAFETY: as above.
            options = unsafe { arg::texts(texts, opts.options_len, "mount_opts->options") }?;
        }
        let path = write(|driver| driver.mount(&id, &MountOptions { label, options: &options, below: &[] }))?;
        out::path(&path)
    })
}

/// Unmounts a layer, however often it was mounted.
///
/// @param id borrowed
/// @return 0: done, or there was nothing to do (not mounted, no such layer); -1 with errno EINVAL (NULL, bad id), EILSEQ,
/// ENODEV (no driver is open), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_umount_layer(id: *const c_char) -> c_int {
    guard("graphdriver_umount_layer", || {
        // SAFETY: the caller's promise.
        let id = unsafe { layer_id(id, "id") }?;
        write(|driver| driver.unmount(&id))?;
        Ok(0)
    })
}

/// Whether the driver has a layer; a lost link of it is made again.
///
/// @param id borrowed
/// @return true or false; false with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no driver is open) if it could not be
/// found out
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_layer_exists(id: *const c_char) -> bool {
    guard("graphdriver_layer_exists", || {
        // SAFETY: the caller's promise.
        let id = unsafe { layer_id(id, "id") }?;
        read(|driver| driver.exists(&id))
    })
}

/// Fills an empty layer from an archive; when it returns, the content is durable. No tar-split stream is kept: the
/// archive cannot be exported again byte for byte. layer_store_create does all of it.
///
/// @param id borrowed
/// @param content borrowed; as for layer_store_create
/// @return 0, or -1 with errno EINVAL (NULL, bad id, no read function), EILSEQ, ENOENT (no such layer), EBUSY (the layer
/// store has a record of it, or it is mounted), EEXIST (it has content), EBADMSG (not an archive, or truncated), EFBIG (a
/// limit), ENODEV (no driver is open), or what the system said; a part of the archive may be in the layer then: remove it
///
/// # Safety
/// All pointers must be valid during the call; `content` may be read from any thread, by one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_apply_diff(id: *const c_char, content: *const CIoReadWrapper) -> c_int {
    guard("graphdriver_apply_diff", || {
        // SAFETY: the caller's promise.
        let id = unsafe { layer_id(id, "id") }?;
        // SAFETY: the caller's promise.
        let content = unsafe { CallerStream::new(content, "content") }?;
        let mut content = content.ok_or_else(|| Error::invalid("content is NULL"))?;
        write(|driver| driver.apply(&id, &mut content))?;
        Ok(0)
    })
}

/// Gives where a layer's content is.
///
/// @param id borrowed
/// @return freed with isula_storage_free_graph_driver; NULL with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such
/// layer: the reference makes paths up), ENODEV (no driver is open), ENOMEM, or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_get_metadata(id: *const c_char) -> *mut CContainerInspectGraphDriver {
    guard("graphdriver_get_metadata", || {
        // SAFETY: the caller's promise.
        let id = unsafe { layer_id(id, "id") }?;
        let (name, metadata) = read(|driver| driver.metadata(&id))?;
        Ok(out::graph_driver(name, &metadata)?.into_raw())
    })
}

/// Gives what the driver says of itself.
///
/// @return freed with free_graphdriver_status; NULL with errno ENODEV (no driver is open), ENOMEM
#[unsafe(no_mangle)]
pub extern "C" fn graphdriver_get_status() -> *mut CGraphdriverStatus {
    guard("graphdriver_get_status", || {
        let status = read(|driver| driver.status())?;
        let mut boxed = CBox::<CGraphdriverStatus>::zeroed()?;
        boxed.driver_name = cmem::text(&status.driver_name)?;
        boxed.backing_fs = cmem::text(&status.backing_fs)?;
        boxed.status = cmem::text(&status.status)?;
        Ok(boxed.into_raw())
    })
}

/// Rebuilds what a layer stands on if it is broken.
///
/// @param id borrowed
/// @param parent borrowed; the layer that it stands on, or NULL
/// @return 0: in order, repaired, or there is no such layer; -1 with errno EINVAL (NULL, bad id), EILSEQ, EUCLEAN (cannot
/// be repaired), ENODEV (no driver is open), or what the system said
///
/// # Safety
/// Both must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_try_repair_lowers(id: *const c_char, parent: *const c_char) -> c_int {
    guard("graphdriver_try_repair_lowers", || {
        // SAFETY: the caller's promise.
        let id = unsafe { layer_id(id, "id") }?;
        // SAFETY: the caller's promise.
        let parent = unsafe { optional_layer_id(parent, "parent") }?;
        write(|driver| driver.repair_lowers(&id, parent.as_ref()))?;
        Ok(0)
    })
}

/// Gives what a layer itself holds, without the layers beneath it.
///
/// @param id borrowed
/// @param fs_info out; as for layer_store_get_layer_fs_info
/// @return 0: given, or there is no such layer and nothing was written; -1 with errno EINVAL (NULL, bad id), EILSEQ,
/// ENODEV (no driver is open), ENOMEM, or what the system said
///
/// # Safety
/// `id` must be NULL or a string, `fs_info` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphdriver_get_layer_fs_info(
    id: *const c_char,
    fs_info: *mut CImagetoolFsInfo,
) -> c_int {
    guard("graphdriver_get_layer_fs_info", || {
        // SAFETY: the caller's promise.
        let id = unsafe { layer_id(id, "id") }?;
        // SAFETY: the caller's promise.
        let fs_info = unsafe { arg::out(fs_info, "fs_info") }?;
        if let Some((path, usage)) = read(|driver| driver.usage(&id))? {
            fs_info.set(out::fs_info(&path, usage)?.into_value());
        }
        Ok(0)
    })
}

/// Closes a driver that graphdriver_init opened: waits for calls under way, takes the mount of its home away. Layers stay
/// mounted. Later calls fail with ENODEV until a driver is opened again. Not to be called by the read function of
/// graphdriver_apply_diff, which would wait for itself.
///
/// @return 0, or -1 with errno EBUSY (the driver is the layer store's: layer_store_exit closes it), ENODEV (no driver is
/// open), or what the system said
#[unsafe(no_mangle)]
pub extern "C" fn graphdriver_cleanup() -> c_int {
    guard("graphdriver_cleanup", || {
        if let Some(driver) = DRIVER.take() {
            driver.read(LoneDriver::close)?;
            return Ok(0);
        }
        if LAYERS.get().is_ok() {
            return Err(Error::new(ErrorKind::InUse, "the graph driver belongs to the layer store"));
        }
        Err(Error::new(ErrorKind::NotReady, "no graph driver is open"))
    })
}

/// Frees options of a mount by the driver and all their members.
///
/// @param opts taken; may be NULL
///
/// # Safety
/// `opts` and its members must be malloc'ed and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_graphdriver_mount_opts(opts: *mut CDriverMountOpts) {
    // SAFETY: the caller's promise.
    guard_void("free_graphdriver_mount_opts", || unsafe { free(opts) });
}

/// Frees what a driver says of itself.
///
/// @param status taken; may be NULL
///
/// # Safety
/// `status` must be as graphdriver_get_status returns it and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_graphdriver_status(status: *mut CGraphdriverStatus) {
    // SAFETY: the caller's promise.
    guard_void("free_graphdriver_status", || unsafe { free(status) });
}
