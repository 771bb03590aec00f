// SPDX-License-Identifier: MulanPSL-2.0
//! Types that libisula generates from its JSON schemas, with the memory rules of the rest: every pointer is malloc'ed and
//! owned by the struct, so libisula's own `free_*` works on what this library returns. They go to their own header,
//! which a caller who has libisula's leaves out.
#![allow(non_camel_case_types, reason = "the names are libisula's")]
#![allow(missing_docs, reason = "fields are named like the members of the JSON schemas they come from")]

use std::ffi::{c_char, c_int};

/// A tree of JSON values of libisula; this library neither makes nor reads one.
pub struct yajl_val_s {
    _opaque: [u8; 0],
}

/// A tree of JSON values, or NULL.
pub type yajl_val = *mut yajl_val_s;

/// Record of a container's root file system.
#[repr(C)]
pub struct CStorageRootfs {
    pub id: *mut c_char,
    pub names: *mut *mut c_char,
    pub names_len: usize,
    pub image: *mut c_char,
    pub layer: *mut c_char,
    pub metadata: *mut c_char,
    pub created: *mut c_char,
    pub uidmap: *mut *mut CStorageRootfsUidmapElement,
    pub uidmap_len: usize,
    pub gidmap: *mut *mut CStorageRootfsGidmapElement,
    pub gidmap_len: usize,
    pub _residual: yajl_val,
}

/// A range of user ids.
#[repr(C)]
pub struct CStorageRootfsUidmapElement {
    pub container_id: c_int,
    pub host_id: c_int,
    pub size: c_int,
}

/// A range of group ids.
#[repr(C)]
pub struct CStorageRootfsGidmapElement {
    pub container_id: c_int,
    pub host_id: c_int,
    pub size: c_int,
}

/// Text to text, in the order of insertion.
#[repr(C)]
pub struct CJsonMapStringString {
    pub keys: *mut *mut c_char,
    pub values: *mut *mut c_char,
    pub len: usize,
}

/// Record of an image.
#[repr(C)]
pub struct CStorageImage {
    pub id: *mut c_char,
    pub digest: *mut c_char,
    pub names: *mut *mut c_char,
    pub names_len: usize,
    pub layer: *mut c_char,
    pub mapped_layers: *mut *mut c_char,
    pub mapped_layers_len: usize,
    pub metadata: *mut c_char,
    pub big_data_names: *mut *mut c_char,
    pub big_data_names_len: usize,
    pub big_data_sizes: *mut CJsonMapStringInt64,
    pub big_data_digests: *mut CJsonMapStringString,
    pub created: *mut c_char,
    pub loaded: *mut c_char,
    pub size: u64,
    pub _residual: yajl_val,
}

/// Text to number, in the order of insertion.
#[repr(C)]
pub struct CJsonMapStringInt64 {
    pub keys: *mut *mut c_char,
    pub values: *mut i64,
    pub len: usize,
}

/// An image's config.
#[repr(C)]
pub struct COciImageSpec {
    pub created: *mut c_char,
    pub author: *mut c_char,
    pub architecture: *mut c_char,
    pub os: *mut c_char,
    pub config: *mut COciImageSpecConfig,
    pub rootfs: *mut COciImageSpecRootfs,
    pub history: *mut *mut COciImageSpecHistoryElement,
    pub history_len: usize,
    pub _residual: yajl_val,
}

/// What a container of the image runs.
#[repr(C)]
pub struct COciImageSpecConfig {
    pub user: *mut c_char,
    pub exposed_ports: *mut CDefsMapStringObject,
    pub env: *mut *mut c_char,
    pub env_len: usize,
    pub entrypoint: *mut *mut c_char,
    pub entrypoint_len: usize,
    pub cmd: *mut *mut c_char,
    pub cmd_len: usize,
    pub volumes: *mut CDefsMapStringObject,
    pub working_dir: *mut c_char,
    pub labels: *mut CJsonMapStringString,
    pub stop_signal: *mut c_char,
    pub healthcheck: *mut CDefsHealthCheck,
    pub _residual: yajl_val,
}

/// A set of texts: a map whose values hold nothing.
#[repr(C)]
pub struct CDefsMapStringObject {
    pub keys: *mut *mut c_char,
    pub values: *mut *mut CDefsMapStringObjectElement,
    pub len: usize,
}

/// A value that holds nothing.
#[repr(C)]
pub struct CDefsMapStringObjectElement {
    pub unuseful: c_char,
}

/// How to find out whether a container is healthy.
#[repr(C)]
pub struct CDefsHealthCheck {
    pub test: *mut *mut c_char,
    pub test_len: usize,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub retries: c_int,
    pub exit_on_unhealthy: bool,
    pub _residual: yajl_val,
}

/// Layers of an image.
#[repr(C)]
pub struct COciImageSpecRootfs {
    pub diff_ids: *mut *mut c_char,
    pub diff_ids_len: usize,
    pub r#type: *mut c_char,
    pub _residual: yajl_val,
}

/// One step of how an image was made.
#[repr(C)]
pub struct COciImageSpecHistoryElement {
    pub created: *mut c_char,
    pub author: *mut c_char,
    pub created_by: *mut c_char,
    pub comment: *mut c_char,
    pub empty_layer: bool,
}

/// Usage of file systems.
#[repr(C)]
pub struct CImagetoolFsInfo {
    pub image_filesystems: *mut *mut CImagetoolFsInfoImageFilesystemsElement,
    pub image_filesystems_len: usize,
    pub _residual: yajl_val,
}

/// Usage of one file system or directory.
#[repr(C)]
pub struct CImagetoolFsInfoImageFilesystemsElement {
    pub timestamp: i64,
    pub fs_id: *mut CImagetoolFsInfoImageFilesystemsFsId,
    pub used_bytes: *mut CImagetoolFsInfoImageFilesystemsUsedBytes,
    pub inodes_used: *mut CImagetoolFsInfoImageFilesystemsInodesUsed,
}

/// Where it is.
#[repr(C)]
pub struct CImagetoolFsInfoImageFilesystemsFsId {
    pub mountpoint: *mut c_char,
    pub _residual: yajl_val,
}

/// A number of bytes.
#[repr(C)]
pub struct CImagetoolFsInfoImageFilesystemsUsedBytes {
    pub value: u64,
    pub _residual: yajl_val,
}

/// A number of inodes.
#[repr(C)]
pub struct CImagetoolFsInfoImageFilesystemsInodesUsed {
    pub value: u64,
    pub _residual: yajl_val,
}

/// An image with its config.
#[repr(C)]
pub struct CImagetoolImage {
    pub id: *mut c_char,
    pub repo_tags: *mut *mut c_char,
    pub repo_tags_len: usize,
    pub repo_digests: *mut *mut c_char,
    pub repo_digests_len: usize,
    pub top_layer: *mut c_char,
    pub size: u64,
    pub created: *mut c_char,
    pub loaded: *mut c_char,
    pub uid: *mut CImagetoolImageUid,
    pub username: *mut c_char,
    pub spec: *mut COciImageSpec,
    pub healthcheck: *mut CDefsHealthCheck,
    pub _residual: yajl_val,
}

/// A numeric user.
#[repr(C)]
pub struct CImagetoolImageUid {
    pub value: i64,
    pub _residual: yajl_val,
}

/// An image as lists show it.
#[repr(C)]
pub struct CImagetoolImageSummary {
    pub id: *mut c_char,
    pub repo_tags: *mut *mut c_char,
    pub repo_tags_len: usize,
    pub repo_digests: *mut *mut c_char,
    pub repo_digests_len: usize,
    pub top_layer: *mut c_char,
    pub size: u64,
    pub created: *mut c_char,
    pub loaded: *mut c_char,
    pub uid: *mut CImagetoolImageSummaryUid,
    pub username: *mut c_char,
    pub labels: *mut CJsonMapStringString,
    pub _residual: yajl_val,
}

/// A numeric user.
#[repr(C)]
pub struct CImagetoolImageSummaryUid {
    pub value: i64,
    pub _residual: yajl_val,
}

/// Images as lists show them.
#[repr(C)]
pub struct CImagetoolImagesList {
    pub images: *mut *mut CImagetoolImageSummary,
    pub images_len: usize,
    pub _residual: yajl_val,
}

/// Where a layer's content is.
#[repr(C)]
pub struct CContainerInspectGraphDriver {
    pub data: *mut CContainerInspectGraphDriverData,
    pub name: *mut c_char,
    pub _residual: yajl_val,
}

/// Paths and devices; NULL where the driver has none.
#[repr(C)]
pub struct CContainerInspectGraphDriverData {
    pub lower_dir: *mut c_char,
    pub merged_dir: *mut c_char,
    pub upper_dir: *mut c_char,
    pub work_dir: *mut c_char,
    pub device_id: *mut c_char,
    pub device_name: *mut c_char,
    pub device_size: *mut c_char,
    pub _residual: yajl_val,
}
