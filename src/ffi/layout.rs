// SPDX-License-Identifier: MulanPSL-2.0
//! The layout of every struct that crosses the boundary, from one list.
//!
//! `src/ffi/layout.def` lists struct, field, offset and C type, as a debugger shows them of a build of iSulad. From it
//! come the `const` asserts and the table below (by the build script), and the `_Static_assert`s of `c_tests/layout.c`.

use std::ffi::c_char;

use crate::ffi::arg;
use crate::ffi::guard::guard;
use crate::ffi::host::CHost;
use crate::ffi::types::*;

/// Where a field of a struct is in the built library.
#[repr(C)]
#[derive(Debug)]
pub struct CLayoutEntry {
    /// The struct, as C spells it: `struct layer`, `storage_image`.
    pub structure: *const c_char,
    /// The field, or NULL for the struct itself.
    pub field: *const c_char,
    /// Offset of the field in bytes, 0 for the struct itself.
    pub offset: usize,
    /// Size of the field or of the struct in bytes.
    pub size: usize,
}

// SAFETY: the texts are literals.
unsafe impl Sync for CLayoutEntry {}

/// Size of a field, by its type.
const fn size_of_field<S, T>(_: fn(&S) -> &T) -> usize {
    size_of::<T>()
}

/// Checks one line of the list and makes its entry of the table.
macro_rules! entry {
    ($rust:ident, $name:literal, $size:literal) => {{
        assert!(size_of::<$rust>() == $size, concat!("size of ", $name));
        CLayoutEntry {
            structure: concat!($name, "\0").as_ptr().cast(),
            field: std::ptr::null(),
            offset: 0,
            size: $size,
        }
    }};
    ($rust:ident, $name:literal, $field:ident, $field_name:literal, $offset:literal) => {{
        assert!(
            std::mem::offset_of!($rust, $field) == $offset,
            concat!("offset of ", $name, ".", $field_name)
        );
        CLayoutEntry {
            structure: concat!($name, "\0").as_ptr().cast(),
            field: concat!($field_name, "\0").as_ptr().cast(),
            offset: $offset,
            size: size_of_field(|value: &$rust| &value.$field),
        }
    }};
}

include!(concat!(env!("OUT_DIR"), "/layout.rs"));

/// Gives the layout of every struct as the library was built with it, to compare with the header that a program uses.
///
/// @param len out; number of entries
/// @return the table, which lives as long as the library: do not free it; NULL with errno EINVAL (NULL)
///
/// # Safety
/// `len` must be NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_abi_layout(len: *mut usize) -> *const CLayoutEntry {
    guard("isula_storage_abi_layout", || {
        // SAFETY: the caller's promise.
        unsafe { arg::out(len, "len") }?.set(LAYOUT.len());
        Ok(LAYOUT.as_ptr())
    })
}
