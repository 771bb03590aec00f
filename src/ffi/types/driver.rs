// SPDX-License-Identifier: MulanPSL-2.0
//! What the graph-driver functions take. Source: `driver.h` of iSulad.

use std::ffi::c_char;

use super::libisula::CJsonMapStringString;

/// Options of a layer's creation by the driver.
#[repr(C)]
#[derive(Debug)]
pub struct CDriverCreateOpts {
    /// SELinux label, or NULL.
    pub mount_label: *mut c_char,
    /// Storage options such as `size`, or NULL.
    pub storage_opt: *mut CJsonMapStringString,
}

/// Options of a mount by the driver, freed by free_graphdriver_mount_opts.
#[repr(C)]
#[derive(Debug)]
pub struct CDriverMountOpts {
    /// SELinux label, or NULL.
    pub mount_label: *mut c_char,
    /// Mount options in place of those that the driver was opened with, if there are any.
    pub options: *mut *mut c_char,
    /// Their number.
    pub options_len: usize,
}
