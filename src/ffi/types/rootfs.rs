// SPDX-License-Identifier: MulanPSL-2.0
//! Container root file systems. Source: `storage.h` and `rootfs.h` of iSulad.

use std::ffi::{c_char, c_int};

use super::libisula::CStorageRootfs;

/// A list of container root file systems that belongs to the caller.
#[repr(C)]
#[derive(Debug)]
pub struct CRootfsList {
    /// The root file systems.
    pub rootfs: *mut *mut CStorageRootfs,
    /// Their number.
    pub rootfs_len: usize,
}

/// A range of user or group ids.
#[repr(C)]
#[derive(Debug)]
pub struct CIdMap {
    /// First id in the container.
    pub container_id: c_int,
    /// First id on the host.
    pub host_id: c_int,
    /// Number of ids.
    pub size: c_int,
}

/// How ids of a container map to the host.
#[repr(C)]
#[derive(Debug)]
pub struct CIdMappingOptions {
    /// User ids are the host's.
    pub host_uid_mapping: bool,
    /// Group ids are the host's.
    pub host_gid_mapping: bool,
    /// Ranges of user ids.
    pub uid_map: *mut CIdMap,
    /// Their number.
    pub uid_map_len: usize,
    /// Ranges of group ids.
    pub gid_map: *mut CIdMap,
    /// Their number.
    pub gid_map_len: usize,
}

/// What a new container root file system is to be.
#[repr(C)]
#[derive(Debug)]
pub struct CStorageRootfsOptions {
    /// How ids map.
    pub id_mapping_opts: CIdMappingOptions,
    /// SELinux labels.
    pub label_opts: *mut *mut c_char,
    /// Their number.
    pub label_opts_len: usize,
    /// Mount options.
    pub mount_opts: *mut *mut c_char,
    /// Their number.
    pub mount_opts_len: usize,
}

/// A record of a container's root file system with a reference count.
#[repr(C)]
#[derive(Debug)]
pub struct CCntRootfs {
    /// The record; it belongs to this struct.
    pub srootfs: *mut CStorageRootfs,
    /// Number of references.
    pub refcnt: u64,
}

/// A record of a container's root file system with a reference count.
#[allow(non_camel_case_types, reason = "the name is iSulad's")]
pub type cntrootfs_t = CCntRootfs;
