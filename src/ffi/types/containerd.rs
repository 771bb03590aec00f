// SPDX-License-Identifier: MulanPSL-2.0
//! Structs of the `containerd_images_*` functions.

use std::ffi::c_char;

use crate::ffi::cmem::{Members, free, release};
use crate::ffi::types::CJsonMapStringString;

/// How a file of images is opened. Zero bytes are the defaults.
#[repr(C)]
#[derive(Debug)]
pub struct CContainerdImagesOptions {
    /// Nothing is written, and the file is not made; others may read it at the same time.
    pub read_only: bool,
    /// A commit returns before it is on the disk: a power cut may damage the file.
    pub no_sync: bool,
    /// How long to wait for another process that has the file, and for a transaction that writes, in milliseconds; 0: not
    /// at all; negative: for ever.
    pub timeout_ms: i64,
}

/// What the name of an image points to. Bytes of a file that are no UTF-8 are U+FFFD here; there is no NUL in these texts.
#[repr(C)]
#[derive(Debug)]
pub struct CContainerdDescriptor {
    /// What the blob is.
    pub media_type: *mut c_char,
    /// Its digest.
    pub digest: *mut c_char,
    /// Its size in bytes.
    pub size: i64,
}

/// An image.
#[repr(C)]
#[derive(Debug)]
pub struct CContainerdImage {
    /// Its name: any bytes, also NUL. One more NUL follows.
    pub name: *mut c_char,
    /// Bytes of the name, without that NUL.
    pub name_len: usize,
    /// What it points to.
    pub target: CContainerdDescriptor,
}

/// Images, in the byte order of their names.
#[repr(C)]
#[derive(Debug)]
pub struct CContainerdImageList {
    /// The images, one behind the other. Never NULL. All that they point to goes with the list, and is not freed by itself.
    pub images: *mut CContainerdImage,
    /// Their number.
    pub images_len: usize,
}

/// An image of a namespace. Bytes of a file that are no UTF-8 are U+FFFD here; there is no NUL in these texts.
#[repr(C)]
#[derive(Debug)]
pub struct CContainerdNamespacedImage {
    /// Its name.
    pub name: *mut c_char,
    /// What it points to.
    pub target: CContainerdDescriptor,
    /// Labels; NULL if there are none.
    pub labels: *mut CJsonMapStringString,
    /// Annotations of the target; NULL if there are none.
    pub annotations: *mut CJsonMapStringString,
    /// When it was created: seconds since 1970. Not looked at in what is created or updated, as the next three.
    pub created_seconds: i64,
    /// When it was last changed.
    pub updated_seconds: i64,
    /// Nanoseconds within the second of its creation.
    pub created_nanos: u32,
    /// Nanoseconds within the second of its last change.
    pub updated_nanos: u32,
}

/// Images of a namespace, in the byte order of their names.
#[repr(C)]
#[derive(Debug)]
pub struct CContainerdNamespacedList {
    /// The images, one behind the other. Never NULL. All that they point to goes with the list, and is not freed by itself.
    pub images: *mut CContainerdNamespacedImage,
    /// Their number.
    pub images_len: usize,
    /// How many images could not be read, or have a NUL in a text, and are left out; the log says which and why.
    pub unreadable: usize,
}

/// What an import did.
#[repr(C)]
#[derive(Debug)]
pub struct CContainerdImportReport {
    /// Images that are new here.
    pub imported: usize,
    /// Images that were here already and point to the same.
    pub present: usize,
    /// Images that were left out: they are here and point to something else, or cannot be read, or are such as no create
    /// would take. The log says which and why.
    pub left_out: usize,
}

// SAFETY, for all below: numbers and pointers only: all zero bytes are valid and own nothing.

// SAFETY: as above.
unsafe impl Members for CContainerdDescriptor {
    unsafe fn free_members(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { release(self.media_type) };
        // SAFETY: as above.
        unsafe { release(self.digest) }
    }
}

// SAFETY: as above.
unsafe impl Members for CContainerdImage {
    unsafe fn free_members(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { release(self.name) };
        // SAFETY: as above.
        unsafe { self.target.free_members() }
    }
}

// SAFETY: as above.
unsafe impl Members for CContainerdImageList {
    unsafe fn free_members(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { release(self.images) }
    }
}

// SAFETY: as above.
unsafe impl Members for CContainerdNamespacedImage {
    unsafe fn free_members(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { release(self.name) };
        // SAFETY: as above.
        unsafe { self.target.free_members() };
        // SAFETY: as above.
        unsafe { free(self.labels) };
        // SAFETY: as above.
        unsafe { free(self.annotations) }
    }
}

// SAFETY: as above.
unsafe impl Members for CContainerdNamespacedList {
    unsafe fn free_members(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { release(self.images) }
    }
}
