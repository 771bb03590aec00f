// SPDX-License-Identifier: MulanPSL-2.0
//! `rootfs_store_*`, `rootfs_ref_*`: the process-wide rootfs store, and records with a reference count.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::ffi::cmem::{self, CBox};
use crate::ffi::global::ROOTFS;
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::types::{
    CIdMap, CRootfsList, CStorageModuleInitOptions, CStorageRootfs, CStorageRootfsGidmapElement,
    CStorageRootfsOptions, CStorageRootfsUidmapElement, cntrootfs_t,
};
use crate::ffi::{arg, host};
use crate::id::ContainerId;
use crate::record::rootfs::{IdMap, RootfsRecord};
use crate::rootfs::{CreateRootfs, RootfsStore, RootfsStoreOptions};
use crate::storage::{Durability, Ownership, name_on_disk};

/// Opens the process-wide rootfs store in `<storage_root>/<driver>-containers` and loads all records. Of each container
/// whose record is absent or does not parse, the clean-up function of the host is told; its record is put aside.
///
/// @param opts borrowed; only storage_root and driver_name are read, both must be given and not be empty
/// @return 0, or -1 with errno EINVAL (NULL, unknown driver: the reference answers 0 and has no store), EEXIST (open
/// already), EBUSY (another process owns the store), EILSEQ (a text is not UTF-8), or what the system said
///
/// # Safety
/// `opts` must be NULL or valid with the two members during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_init(opts: *mut CStorageModuleInitOptions) -> c_int {
    guard("rootfs_store_init", || {
        // SAFETY: the caller's promise, here and for what follows. The other members may be uninitialised.
        let (root, driver) = unsafe {
            arg::required(opts.cast_const().cast::<u8>(), "opts")?;
            (&raw const (*opts).storage_root, &raw const (*opts).driver_name)
        };
        // SAFETY: as above.
        let root = unsafe { arg::path(root.read(), "opts->storage_root") }?;
        // SAFETY: as above.
        let driver = name_on_disk(unsafe { arg::text(driver.read(), "opts->driver_name") }?)?;
        ROOTFS.open(|| {
            RootfsStore::open(RootfsStoreOptions {
                dir: root.join(format!("{driver}-containers")),
                ownership: Ownership::Owner,
                durability: Durability::Full,
            })
        })?;
        for id in ROOTFS.get()?.read(|store| Ok(store.broken()))? {
            host::report_broken_rootfs(id.as_str());
        }
        Ok(0)
    })
}

/// Closes the process-wide rootfs store; what is on disk stays. Closing twice is fine; rootfs_store_init works again.
#[unsafe(no_mangle)]
pub extern "C" fn rootfs_store_free() {
    guard("rootfs_store_free", || {
        drop(ROOTFS.take());
        Ok(())
    });
}

/// Makes the record of a container's root file system. Its layer is not looked at.
///
/// @param id borrowed; one path component that does not start with a dot; NULL: 64 random hex digits
/// @param names borrowed; duplicates are dropped, the rest sorted; may be NULL if names_len is 0
/// @param names_len number of names
/// @param image borrowed; id of its image; may be NULL
/// @param layer borrowed; id of its writable layer
/// @param metadata borrowed; free text; may be NULL
/// @param rootfs_opts borrowed; only uid_map and gid_map and their lengths are read; may be NULL
/// @return its id, malloc'ed, freed with free(); NULL with errno EINVAL (bad id or layer, a name is NULL), EILSEQ, EEXIST
/// (the id, the layer or a name belongs to a container; nothing is touched), EBUSY (an interrupted change of the id or
/// the layer waits for storage_module_init to finish it), ENODEV (not open), or what the system said
///
/// # Safety
/// All pointers must be NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_create(
    id: *const c_char,
    names: *mut *const c_char,
    names_len: usize,
    image: *const c_char,
    layer: *const c_char,
    metadata: *const c_char,
    rootfs_opts: *mut CStorageRootfsOptions,
) -> *mut c_char {
    guard("rootfs_store_create", || {
        // SAFETY: the caller's promise, here and for what follows.
        let text =
            |pointer, name| unsafe { arg::optional_text(pointer, name) }.map(|text| text.map(str::to_owned));
        // SAFETY: as above.
        let (uid_map, gid_map) = unsafe { id_maps(rootfs_opts) }?;
        let rootfs = CreateRootfs {
            id: text(id, "id")?.as_deref().map(ContainerId::new).transpose()?,
            // SAFETY: as above.
            names: unsafe { arg::texts(names.cast_const(), names_len, "names") }?,
            image: text(image, "image")?,
            // SAFETY: as above.
            layer: unsafe { arg::text(layer, "layer") }?.to_owned(),
            metadata: text(metadata, "metadata")?,
            uid_map,
            gid_map,
        };
        let id = ROOTFS.get()?.write(|store| store.create(&rootfs))?;
        cmem::text(id.as_str())
    })
}

/// The ranges of user ids and of group ids; the other members may be uninitialised.
///
/// # Safety
/// `opts` is NULL or points to options with these members.
pub(crate) unsafe fn id_maps(opts: *const CStorageRootfsOptions) -> Result<(Vec<IdMap>, Vec<IdMap>)> {
    if opts.is_null() {
        return Ok((Vec::new(), Vec::new()));
    }
    // SAFETY: the caller's promise; only these members are read.
    let (uid, gid) = unsafe {
        let mapping = &raw const (*opts).id_mapping_opts;
        (
            ((&raw const (*mapping).uid_map).read(), (&raw const (*mapping).uid_map_len).read()),
            ((&raw const (*mapping).gid_map).read(), (&raw const (*mapping).gid_map_len).read()),
        )
    };
    // SAFETY: the caller's promise.
    let uid_map = unsafe { ranges(uid.0, uid.1, "rootfs_opts->id_mapping_opts.uid_map") }?;
    // SAFETY: the caller's promise.
    let gid_map = unsafe { ranges(gid.0, gid.1, "rootfs_opts->id_mapping_opts.gid_map") }?;
    Ok((uid_map, gid_map))
}

/// # Safety
/// `array` is NULL or points to `len` ranges.
unsafe fn ranges(array: *const CIdMap, len: usize, name: &str) -> Result<Vec<IdMap>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if array.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")));
    }
    // SAFETY: the caller's promise.
    let ranges = unsafe { std::slice::from_raw_parts(array, len) };
    let convert =
        |range: &CIdMap| IdMap { container_id: range.container_id, host_id: range.host_id, size: range.size };
    Ok(ranges.iter().map(convert).collect())
}

/// Gives the full id of a container.
///
/// @param id borrowed; id, id of its layer, or unique short id of at least three hex digits, in this order; the same for
/// every `id` below
/// @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not
/// open)
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_lookup(id: *const c_char) -> *mut c_char {
    guard("rootfs_store_lookup", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        cmem::text(ROOTFS.get()?.read(|store| store.lookup(id))?.as_str())
    })
}

/// Deletes the record of a container; its layer stays.
///
/// @param id borrowed; as for rootfs_store_lookup
/// @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, ENODEV (not open), or what the system said
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_delete(id: *const c_char) -> c_int {
    guard("rootfs_store_delete", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        ROOTFS.get()?.write(|store| store.delete(id))?;
        Ok(0)
    })
}

/// Deletes all records; layers stay. Goes on after a failure.
///
/// @return 0, or -1 with errno ENODEV (not open), or what the system said to the first that could not be deleted
#[unsafe(no_mangle)]
pub extern "C" fn rootfs_store_wipe() -> c_int {
    guard("rootfs_store_wipe", || {
        ROOTFS.get()?.write(RootfsStore::wipe)?;
        Ok(0)
    })
}

/// Sets the free text of a record.
///
/// @param id borrowed; as for rootfs_store_lookup
/// @param metadata borrowed
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not open), or what the system
/// said; then the old text stays
///
/// # Safety
/// Both must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_set_metadata(id: *const c_char, metadata: *const c_char) -> c_int {
    guard("rootfs_store_set_metadata", || {
        // SAFETY: the caller's promise.
        let (id, metadata) = unsafe { (arg::text(id, "id")?, arg::text(metadata, "metadata")?) };
        ROOTFS.get()?.write(|store| store.set_metadata(id, metadata))?;
        Ok(0)
    })
}

/// Writes a record as it is given, in place of the one of its id, or as a new one; lookups see it at once.
///
/// @param c borrowed; its record must have an id and a layer
/// @return 0, or -1 with errno EINVAL (NULL, no or bad id or layer), EILSEQ, EEXIST (its layer or a name belongs to
/// another container), ENODEV (not open), or what the system said
///
/// # Safety
/// `c` must be NULL or valid with all its members during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_save(c: *mut cntrootfs_t) -> c_int {
    guard("rootfs_store_save", || {
        // SAFETY: the caller's promise, here and for what follows.
        let c = unsafe { arg::required(c.cast_const(), "c") }?;
        // SAFETY: as above.
        let rootfs = unsafe { arg::required(c.srootfs.cast_const(), "c->srootfs") }?;
        // SAFETY: as above.
        let record = unsafe { record_of(rootfs) }?;
        ROOTFS.get()?.write(|store| store.save(&record))?;
        Ok(0)
    })
}

/// # Safety
/// All members of `rootfs` are valid.
unsafe fn record_of(rootfs: &CStorageRootfs) -> Result<RootfsRecord> {
    // SAFETY: the caller's promise, here and for what follows.
    let text =
        |pointer, name| unsafe { arg::optional_text(pointer, name) }.map(|text| text.map(str::to_owned));
    let names = rootfs.names.cast_const().cast();
    let mut record = RootfsRecord {
        // SAFETY: as above.
        id: Some(unsafe { arg::text(rootfs.id, "c->srootfs->id") }?.to_owned()),
        // SAFETY: as above.
        names: unsafe { arg::texts(names, rootfs.names_len, "c->srootfs->names") }?,
        image: text(rootfs.image, "c->srootfs->image")?,
        // SAFETY: as above.
        layer: Some(unsafe { arg::text(rootfs.layer, "c->srootfs->layer") }?.to_owned()),
        metadata: text(rootfs.metadata, "c->srootfs->metadata")?,
        created: text(rootfs.created, "c->srootfs->created")?,
        ..RootfsRecord::default()
    };
    let null = |name: &str| Error::invalid(format!("c->srootfs->{name} is NULL"));
    if rootfs.uidmap.is_null() && rootfs.uidmap_len > 0 {
        return Err(null("uidmap"));
    }
    for index in 0..rootfs.uidmap_len {
        // SAFETY: below the length: the caller's promise.
        let range = unsafe { (*rootfs.uidmap.add(index)).as_ref() };
        let range = range.ok_or_else(|| null(&format!("uidmap[{index}]")))?;
        let CStorageRootfsUidmapElement { container_id, host_id, size } = *range;
        record.uid_map.push(IdMap { container_id, host_id, size });
    }
    if rootfs.gidmap.is_null() && rootfs.gidmap_len > 0 {
        return Err(null("gidmap"));
    }
    for index in 0..rootfs.gidmap_len {
        // SAFETY: below the length: the caller's promise.
        let range = unsafe { (*rootfs.gidmap.add(index)).as_ref() };
        let range = range.ok_or_else(|| null(&format!("gidmap[{index}]")))?;
        let CStorageRootfsGidmapElement { container_id, host_id, size } = *range;
        record.gid_map.push(IdMap { container_id, host_id, size });
    }
    Ok(record)
}

/// A record for C.
pub(crate) fn storage_rootfs(record: &RootfsRecord) -> Result<CBox<CStorageRootfs>> {
    let mut out = CBox::<CStorageRootfs>::zeroed()?;
    out.id = cmem::optional_text(record.id.as_deref())?;
    {
        let out: &mut CStorageRootfs = &mut out;
        cmem::set_texts(&mut out.names, &mut out.names_len, &record.names)?;
    }
    out.image = cmem::optional_text(record.image.as_deref())?;
    out.layer = cmem::optional_text(record.layer.as_deref())?;
    out.metadata = cmem::optional_text(record.metadata.as_deref())?;
    out.created = cmem::optional_text(record.created.as_deref())?;
    let out_maps: &mut CStorageRootfs = &mut out;
    if !record.uid_map.is_empty() {
        cmem::set_pointers(&mut out_maps.uidmap, &mut out_maps.uidmap_len, &record.uid_map, |range| {
            let mut element = CBox::<CStorageRootfsUidmapElement>::zeroed()?;
            (element.container_id, element.host_id, element.size) =
                (range.container_id, range.host_id, range.size);
            Ok(element)
        })?;
    }
    if !record.gid_map.is_empty() {
        cmem::set_pointers(&mut out_maps.gidmap, &mut out_maps.gidmap_len, &record.gid_map, |range| {
            let mut element = CBox::<CStorageRootfsGidmapElement>::zeroed()?;
            (element.container_id, element.host_id, element.size) =
                (range.container_id, range.host_id, range.size);
            Ok(element)
        })?;
    }
    Ok(out)
}

/// Whether a container's record exists.
///
/// @param id borrowed; as for rootfs_store_lookup
/// @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_exists(id: *const c_char) -> bool {
    guard("rootfs_store_exists", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        ROOTFS.get()?.read(|store| Ok(store.exists(id)))
    })
}

/// Gives the record of a container.
///
/// @param id borrowed; as for rootfs_store_lookup
/// @return malloc'ed, freed with isula_storage_free_storage_rootfs or libisula's free_storage_rootfs; NULL with errno
/// EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not open), ENOMEM
///
/// # Safety
/// `id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_get_rootfs(id: *const c_char) -> *mut CStorageRootfs {
    guard("rootfs_store_get_rootfs", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        let record = ROOTFS.get()?.read(|store| store.get(id))?;
        storage_rootfs(&record).map(CBox::into_raw)
    })
}

/// Gives all records, in order of creation.
///
/// @param all_rootfs out; its members belong to the caller: isula_storage_clear_rootfs_list. Without records NULL and 0
/// @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
///
/// # Safety
/// `all_rootfs` must be NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_store_get_all_rootfs(all_rootfs: *mut CRootfsList) -> c_int {
    guard("rootfs_store_get_all_rootfs", || {
        // SAFETY: the caller's promise.
        let all_rootfs = unsafe { arg::out(all_rootfs, "all_rootfs") }?;
        let records = ROOTFS.get()?.read(RootfsStore::list)?;
        let mut list = CBox::<CRootfsList>::zeroed()?;
        if !records.is_empty() {
            let list: &mut CRootfsList = &mut list;
            cmem::set_pointers(&mut list.rootfs, &mut list.rootfs_len, &records, |record| {
                storage_rootfs(record)
            })?;
        }
        all_rootfs.set(list.into_value());
        Ok(0)
    })
}

/// Gives the directory in which the records are.
///
/// @return malloc'ed, freed with free(); NULL with errno ENODEV (not open), EILSEQ (it is not UTF-8)
#[unsafe(no_mangle)]
pub extern "C" fn rootfs_store_get_data_dir() -> *mut c_char {
    guard("rootfs_store_get_data_dir", || {
        ROOTFS.get()?.read(|store| {
            let dir = store.dir().to_str();
            cmem::text(dir.ok_or_else(|| {
                Error::new(crate::error::ErrorKind::NotUtf8, "the directory's name is not UTF-8")
            })?)
        })
    })
}

/// Makes a counted record of a record, with one reference.
///
/// @param scntr taken by the new struct; freed with it
/// @return malloc'ed, for rootfs_ref_dec or free_rootfs_t; NULL with errno EINVAL (NULL), ENOMEM; then scntr stays the
/// caller's
///
/// # Safety
/// `scntr` must be NULL or malloc'ed with malloc'ed members.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn new_rootfs(scntr: *mut CStorageRootfs) -> *mut cntrootfs_t {
    guard("new_rootfs", || {
        // SAFETY: the caller's promise.
        unsafe { arg::required(scntr.cast_const(), "scntr") }?;
        let mut counted = CBox::<cntrootfs_t>::zeroed()?;
        counted.srootfs = scntr;
        counted.refcnt = 1;
        Ok(counted.into_raw())
    })
}

/// Adds a reference to a counted record.
///
/// @param c borrowed; may be NULL
///
/// # Safety
/// `c` must be NULL or a counted record that has a reference.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_ref_inc(c: *mut cntrootfs_t) {
    guard_void("rootfs_ref_inc", || {
        if !c.is_null() {
            // SAFETY: not NULL, aligned, and shared as an atomic number only: the caller's promise.
            unsafe { AtomicU64::from_ptr(&raw mut (*c).refcnt) }.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Drops a reference of a counted record; with the last one it is freed.
///
/// @param c may be NULL; taken if it was the last reference
///
/// # Safety
/// `c` must be NULL or a counted record that has a reference, which is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rootfs_ref_dec(c: *mut cntrootfs_t) {
    guard_void("rootfs_ref_dec", || {
        // SAFETY: the caller's promise.
        let was = (!c.is_null())
            .then(|| unsafe { AtomicU64::from_ptr(&raw mut (*c).refcnt) }.fetch_sub(1, Ordering::AcqRel));
        if was == Some(1) {
            // SAFETY: it was the last reference.
            unsafe { cmem::free(c) };
        }
    });
}

/// Frees a counted record, whatever its references.
///
/// @param ptr taken; may be NULL
///
/// # Safety
/// `ptr` and its record must be malloc'ed with malloc'ed members, and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_rootfs_t(ptr: *mut cntrootfs_t) {
    // SAFETY: the caller's promise.
    guard_void("free_rootfs_t", || unsafe { cmem::free(ptr) });
}
