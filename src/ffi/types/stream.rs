// SPDX-License-Identifier: MulanPSL-2.0
//! Streams that a caller hands in. Source: `io_wrapper.h` of iSulad.
#![allow(non_camel_case_types, reason = "the names are iSulad's")]

use std::ffi::{c_char, c_int, c_void};

use libc::ssize_t;

/// Reads up to `len` bytes into `buf`: their number, 0 at the end, -1 on failure.
pub type io_read_func_t =
    Option<unsafe extern "C" fn(context: *mut c_void, buf: *mut c_void, len: usize) -> ssize_t>;

/// Writes up to `len` bytes: their number, or -1 on failure.
pub type io_write_func_t =
    Option<unsafe extern "C" fn(context: *mut c_void, data: *const c_void, len: usize) -> ssize_t>;

/// Ends a stream: 0, or -1 and a malloc'ed text in `err`.
pub type io_close_func_t = Option<unsafe extern "C" fn(context: *mut c_void, err: *mut *mut c_char) -> c_int>;

/// A stream to read from.
#[repr(C)]
#[derive(Debug)]
pub struct CIoReadWrapper {
    /// Handed to the functions.
    pub context: *mut c_void,
    /// Reads.
    pub read: io_read_func_t,
    /// Ends the stream; the layer store never calls it.
    pub close: io_close_func_t,
    /// For the caller.
    pub io_type: c_int,
}

/// A stream to write to.
#[repr(C)]
#[derive(Debug)]
pub struct CIoWriteWrapper {
    /// Handed to the functions.
    pub context: *mut c_void,
    /// Writes.
    pub write_func: io_write_func_t,
    /// Ends the stream.
    pub close_func: io_close_func_t,
    /// For the caller.
    pub io_type: c_int,
}
