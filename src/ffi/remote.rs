// SPDX-License-Identifier: MulanPSL-2.0
//! `remote_*`: image layers and images that other hosts share. Only in the build with the feature `remote-layer-store`,
//! iSulad's ENABLE_REMOTE_LAYER_STORE.
//!
//! Left out are the functions that take or give iSulad's own maps and private structs (`remote_added_layers`,
//! `remote_deleted_layers`, `remote_*_create`, `remote_*_destroy`, `remote_*_refresh`, `get_maintain_context`).

use std::ffi::{c_char, c_int};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::global::{self, IMAGES, LAYERS, SharedHomes};
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::{arg, cmem};
use crate::id::{ImageId, LayerId};
use crate::image::ImageStore;
use crate::layer::LayerStore;
use crate::storage::remote::{self, REFRESH_INTERVAL, RefreshThread, RemoteLock};

/// How far apart the lock is tried. A thread that waited in the lock itself could not be told to end.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The daemon's lock.
struct DaemonLock(*mut libc::pthread_rwlock_t);

// SAFETY: a lock of this kind is used from any thread; that it lives long enough is the promise of whoever gave it.
unsafe impl Send for DaemonLock {}

impl RemoteLock for DaemonLock {
    fn lock(&self, wait: Duration) -> Result<bool> {
        let until = Instant::now() + wait;
        loop {
            // SAFETY: the promise given to `remote_start_refresh_thread`.
            match unsafe { libc::pthread_rwlock_trywrlock(self.0) } {
                0 => return Ok(true),
                libc::EBUSY if Instant::now() >= until => return Ok(false),
                libc::EBUSY => std::thread::sleep(LOCK_PAUSE),
                code => return Err(Error::new(ErrorKind::Os(code), "take the lock of remote layers")),
            }
        }
    }

    fn unlock(&self) {
        // SAFETY: as above; this thread has taken it.
        if unsafe { libc::pthread_rwlock_unlock(self.0) } != 0 {
            log::warn!("give back the lock of remote layers: it was not held");
        }
    }
}

/// Starts the thread `RoLayerRefresh`, which looks every five seconds for layers and images that other hosts have made or
/// deleted. storage_module_init with enable_remote_layer does so itself. It ends, and is waited for, in
/// storage_module_exit, layer_store_exit and layer_store_cleanup.
///
/// @param remote_lock borrowed until the thread has ended; held for writing during each look. The thread ends also while
/// others hold it
/// @return 0, or -1 with errno EINVAL (NULL), ENODEV (no layer store is open), EOPNOTSUPP (it was opened without
/// enable_remote_layer), EEXIST (the thread runs already), EAGAIN (no thread can be started)
///
/// # Safety
/// `remote_lock` must be NULL or an initialised lock that lives until the thread has ended.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_start_refresh_thread(remote_lock: *mut libc::pthread_rwlock_t) -> c_int {
    guard("remote_start_refresh_thread", || {
        // SAFETY: the caller's promise.
        unsafe { start(remote_lock) }?;
        Ok(0)
    })
}

/// Refuses a lock that is NULL.
pub(crate) fn check_lock(remote_lock: *mut libc::pthread_rwlock_t) -> Result<()> {
    if remote_lock.is_null() { Err(Error::invalid("remote_lock is NULL")) } else { Ok(()) }
}

/// # Safety
/// As for `remote_start_refresh_thread`.
pub(crate) unsafe fn start(remote_lock: *mut libc::pthread_rwlock_t) -> Result<()> {
    check_lock(remote_lock)?;
    LAYERS.get()?.read(LayerStore::require_shared)?;
    global::start_refresh(|| {
        RefreshThread::start(Box::new(DaemonLock(remote_lock)), REFRESH_INTERVAL, refresh)
    })
}

/// One look, at the stores that are open now.
fn refresh() {
    let Ok(layers) = LAYERS.get() else { return };
    let images = IMAGES.get().ok();
    let done = layers.write(|layers| match &images {
        Some(images) => images.write(|images| remote::refresh(layers, Some(images))),
        None => remote::refresh(layers, None),
    });
    if let Err(error) = done {
        log::warn!("refresh remote layers: {}", error.report());
    }
}

/// Sets where images are, for nothing but the reference's own order of calls: images need no links.
///
/// @param root_dir borrowed; the image directory
/// @return 0, or -1 with errno EINVAL (NULL or empty: all three places are forgotten), EILSEQ
///
/// # Safety
/// `root_dir` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_image_init(root_dir: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { init("remote_image_init", root_dir, |_| Ok(()), |homes, _| homes.has_images = true) }
}

/// Sets where records of layers are and makes `RO` (0700) there.
///
/// @param root_dir borrowed; the directory of the records
/// @return 0, or -1 with errno EINVAL (NULL or empty: all three places are forgotten), EILSEQ, or what the system said
///
/// # Safety
/// `root_dir` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_layer_init(root_dir: *const c_char) -> c_int {
    let make = |home: &PathBuf| remote::make_shared_home(home);
    // SAFETY: the caller's promise.
    unsafe { init("remote_layer_init", root_dir, make, |homes, home| homes.layers = Some(home)) }
}

/// Sets where the driver's data are and makes `RO` (0700) there.
///
/// @param driver_home borrowed; the home of the overlay driver
/// @return 0, or -1 with errno EINVAL (NULL or empty: all three places are forgotten), EILSEQ, or what the system said
///
/// # Safety
/// `driver_home` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_overlay_init(driver_home: *const c_char) -> c_int {
    let make = |home: &PathBuf| remote::make_shared_home(home);
    // SAFETY: the caller's promise.
    unsafe { init("remote_overlay_init", driver_home, make, |homes, home| homes.overlay = Some(home)) }
}

/// # Safety
/// As for `remote_layer_init`.
unsafe fn init(
    name: &'static str,
    dir: *const c_char,
    make: impl FnOnce(&PathBuf) -> Result<()>,
    set: impl FnOnce(&mut SharedHomes, PathBuf),
) -> c_int {
    guard(name, || {
        // SAFETY: the caller's promise.
        let home = unsafe { arg::path(dir, "dir") }.and_then(remote::absolute).and_then(|home| {
            make(&home)?;
            Ok(home)
        });
        match home {
            Ok(home) => {
                set(&mut global::SHARED_HOMES.lock(), home);
                Ok(0)
            }
            Err(error) => {
                *global::SHARED_HOMES.lock() = SharedHomes::default();
                Err(error)
            }
        }
    })
}

/// Forgets what remote_image_init, remote_layer_init and remote_overlay_init have set.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub extern "C" fn remote_maintain_cleanup() {
    guard_void("remote_maintain_cleanup", || *global::SHARED_HOMES.lock() = SharedHomes::default());
}

/// Makes `RO/<id>` (0700) among the records and the link `<id>` to it.
///
/// @param id borrowed; a layer id
/// @return 0, or -1 with errno EINVAL (NULL, bad id), EEXIST (the link's name is taken: nothing is changed), ENODEV
/// (remote_layer_init was not called), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_layer_build_ro_dir(id: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { build("remote_layer_build_ro_dir", id, |homes| homes.layers.clone()) }
}

/// Makes `RO/<id>` (0700) among the driver's data and the link `<id>` to it.
///
/// @param id borrowed; a layer id
/// @return 0, or -1 with errno EINVAL (NULL, bad id), EEXIST (the link's name is taken: nothing is changed), ENODEV
/// (remote_overlay_init was not called), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_overlay_build_ro_dir(id: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { build("remote_overlay_build_ro_dir", id, |homes| homes.overlay.clone()) }
}

/// Removes the link `<id>` and `RO/<id>` with everything in it among the records.
///
/// @param id borrowed; NULL or not there: nothing to do
/// @return 0, or -1 with errno EINVAL (bad id, or `<id>` is something else: nothing is changed), ENODEV
/// (remote_layer_init was not called), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_layer_remove_ro_dir(id: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { remove("remote_layer_remove_ro_dir", id, |homes| homes.layers.clone()) }
}

/// Removes the link `<id>` and `RO/<id>` with everything in it among the driver's data.
///
/// @param id borrowed; NULL or not there: nothing to do
/// @return 0, or -1 with errno EINVAL (bad id, or `<id>` is something else: nothing is changed), ENODEV
/// (remote_overlay_init was not called), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_overlay_remove_ro_dir(id: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { remove("remote_overlay_remove_ro_dir", id, |homes| homes.overlay.clone()) }
}

fn home(which: impl FnOnce(&SharedHomes) -> Option<PathBuf>) -> Result<PathBuf> {
    let home = which(&global::SHARED_HOMES.lock());
    home.ok_or_else(|| Error::new(ErrorKind::NotReady, "the place of shared layers is not set"))
}

/// # Safety
/// `id` is NULL or a string.
unsafe fn build(
    name: &'static str,
    id: *const c_char,
    which: impl FnOnce(&SharedHomes) -> Option<PathBuf>,
) -> c_int {
    guard(name, || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(id, "id") }?)?;
        remote::build_shared_entry(&home(which)?, &id)?;
        Ok(0)
    })
}

/// # Safety
/// `id` is NULL or a string.
unsafe fn remove(
    name: &'static str,
    id: *const c_char,
    which: impl FnOnce(&SharedHomes) -> Option<PathBuf>,
) -> c_int {
    guard(name, || {
        // SAFETY: the caller's promise.
        let Some(id) = unsafe { arg::optional_text(id, "id") }? else { return Ok(0) };
        remote::remove_shared_entry(&home(which)?, &LayerId::new(id)?)?;
        Ok(0)
    })
}

/// Whether the data of a shared layer were whole at the last look.
///
/// @param layer_id borrowed
/// @return false also with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no layer store is open)
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_overlay_layer_valid(layer_id: *const c_char) -> bool {
    guard("remote_overlay_layer_valid", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        LAYERS.get()?.read(|layers| Ok(layers.sees_shared(&id).data))
    })
}

/// Whether a shared layer is listed, and was there at the last look.
///
/// @param layer_id borrowed
/// @return false also with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no layer store is open)
///
/// # Safety
/// `layer_id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_layer_layer_valid(layer_id: *const c_char) -> bool {
    guard("remote_layer_layer_valid", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(layer_id, "layer_id") }?)?;
        LAYERS.get()?.read(|layers| Ok(layers.sees_shared(&id).record))
    })
}

/// Lists one layer that another host has made. From then on it is in lists as well, which the reference forgets.
///
/// @param id borrowed
/// @return 0: listed, now or before; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (it is not in the shared
/// directory), EBADMSG (it is not whole), EOPNOTSUPP (the store was opened without remote layers), ENODEV (not open)
///
/// # Safety
/// `id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_load_one_layer(id: *const c_char) -> c_int {
    guard("remote_load_one_layer", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(id, "id") }?)?;
        LAYERS.get()?.write(|layers| layers.load_shared(&id))?;
        Ok(0)
    })
}

/// Takes a shared layer out of memory; its files are left alone.
///
/// @param id borrowed
/// @return 0, also when it is not listed; -1 with errno EINVAL (NULL, bad id, a layer of this host alone), EILSEQ, EBUSY
/// (something here stands on it, holds it or has it mounted: it stays), EOPNOTSUPP (the store was opened without remote
/// layers), ENODEV (not open)
///
/// # Safety
/// `id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_layer_remove_memory_stores_with_lock(id: *const c_char) -> c_int {
    guard("remote_layer_remove_memory_stores_with_lock", || {
        // SAFETY: the caller's promise.
        let id = LayerId::new(unsafe { arg::text(id, "id") }?)?;
        LAYERS.get()?.write(|layers| layers.forget_shared(&id))?;
        Ok(0)
    })
}

/// Lists one image whose directory another host has made.
///
/// @param image_dir borrowed; path of the image's directory, whose last part is its id
/// @return 0: listed, now or before; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such directory), EBADMSG (it
/// is not whole, or not all of its layers are here), ENODEV (no image store is open)
///
/// # Safety
/// `image_dir` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_append_image_by_directory_with_lock(image_dir: *const c_char) -> c_int {
    guard("remote_append_image_by_directory_with_lock", || {
        // SAFETY: the caller's promise.
        let dir = unsafe { arg::path(image_dir, "image_dir") }?;
        let id = ImageId::new(&dir.file_name().unwrap_or_default().to_string_lossy())?;
        IMAGES.get()?.write(|images| images.append(&id))?;
        Ok(0)
    })
}

/// Takes an image out of memory until the directory is read again; its files are left alone.
///
/// @param id borrowed; the whole id
/// @return 0, also when it is not listed; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no image store is open)
///
/// # Safety
/// `id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_remove_image_from_memory_with_lock(id: *const c_char) -> c_int {
    guard("remote_remove_image_from_memory_with_lock", || {
        // SAFETY: the caller's promise.
        let id = ImageId::new(unsafe { arg::text(id, "id") }?)?;
        IMAGES.get()?.write(|images: &ImageStore| Ok(images.forget(&id)))?;
        Ok(0)
    })
}

/// Gives the top layer that an image's record on disk names, whether it is listed or not.
///
/// @param img_id borrowed; the whole id
/// @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no record, or it names no
/// layer), EBADMSG (the record is damaged), ENODEV (no image store is open), ENOMEM
///
/// # Safety
/// `img_id` must be NULL or a string.
#[cfg(feature = "remote-layer-store")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remote_image_get_top_layer_from_json(img_id: *const c_char) -> *mut c_char {
    guard("remote_image_get_top_layer_from_json", || {
        // SAFETY: the caller's promise.
        let id = ImageId::new(unsafe { arg::text(img_id, "img_id") }?)?;
        let top = IMAGES.get()?.read(|images| images.top_layer_on_disk(&id))?;
        cmem::text(&top.ok_or_else(|| Error::not_found(format!("image {id} names no layer")))?)
    })
}
