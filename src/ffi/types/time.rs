// SPDX-License-Identifier: MulanPSL-2.0
//! Points in time. Source: `utils_timestamp.h` of iSulad.
#![allow(non_camel_case_types, reason = "the name is iSulad's")]

/// A point in time.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CTimestamp {
    /// Whether `seconds` holds anything.
    pub has_seconds: bool,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Whether `nanos` holds anything.
    pub has_nanos: bool,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: i32,
}

/// A point in time, under iSulad's name.
pub type types_timestamp_t = CTimestamp;
