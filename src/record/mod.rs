// SPDX-License-Identifier: MulanPSL-2.0
//! iSulad's own JSON records, read as leniently and written byte for byte as the reference does. Pure.

use crate::error::{Error, ErrorKind, Result};

pub mod image;
pub mod layer;
pub mod mount_point;
pub mod rootfs;

/// A record that could not be read again must not be written.
fn within_limit(text: String) -> Result<Vec<u8>> {
    if text.len() >= crate::json::MAX_TEXT {
        let message = format!("write record of {} bytes: the limit is {}", text.len(), crate::json::MAX_TEXT);
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(text.into_bytes())
}
