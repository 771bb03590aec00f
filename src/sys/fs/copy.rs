// SPDX-License-Identifier: MulanPSL-2.0
//! Copying a tree with everything that belongs to it.

use std::ffi::OsStr;

use crate::error::Result;
use crate::sys::fs::Dir;

/// See [`Dir::copy_tree`].
pub(super) fn copy_tree(_dir: &Dir, _name: &OsStr, _to: &Dir, _new_name: &OsStr) -> Result<()> {
    todo!()
}
