// SPDX-License-Identifier: MulanPSL-2.0
//! Bytes that are shared with the page they lie in, and numbers read from bytes.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Longest buffer that is copied to have its count beside it: a page of the largest size.
const LARGEST_SMALL: usize = 64 << 10;

/// A key or a value. Cheap to clone; keeps the page it lies in in memory, also after the transaction has ended.
#[derive(Clone, Default)]
pub struct Slice {
    buffer: Buffer,
    range: Range<usize>,
}

#[derive(Clone)]
enum Buffer {
    /// Counted in front of the bytes: pages are asked for often, and each step on the way to the bytes takes its time.
    Small(Arc<[u8]>),
    /// Not copied, for which there may be no memory.
    Large(Arc<Vec<u8>>),
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::Small(Arc::default())
    }
}

impl Slice {
    /// Copies.
    pub(super) fn copy(bytes: &[u8]) -> Slice {
        if bytes.len() > LARGEST_SMALL {
            return Slice::from(bytes.to_vec());
        }
        Slice { buffer: Buffer::Small(Arc::from(bytes)), range: 0..bytes.len() }
    }

    /// A part of it; `None` where it is not that long.
    pub(super) fn part(&self, start: usize, length: usize) -> Option<Slice> {
        let start = self.range.start.checked_add(start)?;
        let end = start.checked_add(length).filter(|end| *end <= self.range.end)?;
        Some(Slice { buffer: self.buffer.clone(), range: start..end })
    }

    /// What follows the first `start` bytes.
    pub(super) fn rest(&self, start: usize) -> Option<Slice> {
        self.part(start, self.len().checked_sub(start)?)
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        if bytes.len() <= LARGEST_SMALL {
            return Slice::copy(&bytes);
        }
        let range = 0..bytes.len();
        Slice { buffer: Buffer::Large(Arc::new(bytes)), range }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.buffer {
            Buffer::Small(bytes) => bytes,
            Buffer::Large(bytes) => bytes,
        };
        all.get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Longest part that is shown.
        const SHOWN: usize = 200;
        let part = self.get(..SHOWN).unwrap_or(self);
        let dots = if part.len() < self.len() { "…" } else { "" };
        write!(f, "\"{}\"{dots}", part.escape_ascii())
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        **self == **other
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Slice) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Slice) -> Ordering {
        (**self).cmp(other)
    }
}

/// The numbers of the format have the byte order of the machine, as those of the original.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// For lengths that are also counted in 64 bits. Too large for memory: larger than any buffer.
pub(super) fn to_usize(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

/// For lengths of buffers; none is longer than 64 bits can say.
pub(super) fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
