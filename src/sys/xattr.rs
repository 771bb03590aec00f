// SPDX-License-Identifier: MulanPSL-2.0
//! Extended attributes through descriptors.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;

use crate::error::Result;

/// Sets an attribute of an open file or directory.
pub fn set(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> Result<()> {
    todo!()
}

/// An attribute of an open file or directory, `None` when it has none of that name.
pub fn get(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    todo!()
}

/// Names of all attributes of an open file or directory.
pub fn list(fd: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    todo!()
}

/// Sets an attribute of a symbolic link or special file `name` below `dir`, which cannot be opened.
pub fn set_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr, value: &[u8]) -> Result<()> {
    todo!()
}
