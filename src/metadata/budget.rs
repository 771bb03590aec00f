// SPDX-License-Identifier: MulanPSL-2.0
//! What a call may copy out of a file.

use super::boltfile::{Slice, Transaction};
use crate::error::{Error, Result};

/// Bytes that a call may still copy. Each byte of a sound file belongs to one image; in a file that was made to harm, many
/// buckets may share their pages.
#[derive(Debug)]
pub(super) struct Budget(Option<u64>);

impl Budget {
    /// Of a call in this transaction. One that writes has seen that the file is sound, and may have made more than the
    /// file has.
    pub(super) fn of(transaction: &Transaction) -> Budget {
        if transaction.is_writable() { Budget(None) } else { Budget::new(transaction.file_bytes()) }
    }

    pub(super) fn new(file_bytes: u64) -> Budget {
        /// Of a file with holes, which may be longer than the memory.
        const MOST: u64 = 1 << 30;
        // For what is no text, which is three times as long when it has been read, and what is shared by right: names
        // and keys are counted although branches repeat them.
        Budget(Some(file_bytes.saturating_mul(4).saturating_add(1 << 16).min(MOST)))
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<()> {
        /// What an element takes in a page, beside its key and value.
        const ELEMENT: usize = 16;
        let Some(left) = &mut self.0 else { return Ok(()) };
        let bytes = u64::try_from(bytes.saturating_add(ELEMENT)).unwrap_or(u64::MAX);
        *left = left
            .checked_sub(bytes)
            .ok_or_else(|| Error::corrupt("there is more in it than the file is long"))?;
        Ok(())
    }

    /// A copy of what should be text.
    pub(super) fn text(&mut self, bytes: &Slice) -> Result<String> {
        /// Bytes of the sign that stands for one that is no text.
        const REPLACEMENT: usize = 3;
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                self.take(text.len())?;
                Ok(text.to_owned())
            }
            Err(_) => {
                self.take(bytes.len().saturating_mul(REPLACEMENT))?;
                Ok(String::from_utf8_lossy(bytes).into_owned())
            }
        }
    }
}
