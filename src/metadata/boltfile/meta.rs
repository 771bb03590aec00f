// SPDX-License-Identifier: MulanPSL-2.0
//! The two meta pages: which one is valid, which one is newer.

use super::bytes::{to_u64, to_usize, u32_at, u64_at};
use super::page::{HEADER, Header, META};
use crate::error::{Error, Result};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Length of what follows the page header, and of the part of it that the checksum is of.
const LENGTH: usize = 64;
const CHECKED: usize = 56;

/// A freelist page of this number: none is stored.
pub(super) const NO_FREELIST: u64 = u64::MAX;

/// Smallest and largest page that are read.
pub(super) const SMALLEST_PAGE: usize = 1 << 10;
pub(super) const LARGEST_PAGE: usize = 64 << 10;

/// One state of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub page_size: usize,
    pub flags: u32,
    /// Root page of the root bucket.
    pub root: u64,
    pub sequence: u64,
    /// Its page, or [`NO_FREELIST`].
    pub freelist: u64,
    /// The first page that was never used.
    pub high_water: u64,
    pub txid: u64,
}

impl Meta {
    /// Reads what follows the page header.
    pub(super) fn parse(bytes: &[u8]) -> Result<Meta, &'static str> {
        let number = |at| u64_at(bytes, at).ok_or("the meta page is not there");
        let small = |at| u32_at(bytes, at).ok_or("the meta page is not there");
        if small(0)? != MAGIC {
            return Err("it is no bolt file");
        }
        if small(4)? != VERSION {
            return Err("the version of the format is not known");
        }
        if number(CHECKED)? != checksum(bytes.get(..CHECKED).unwrap_or_default()) {
            return Err("the checksum of the meta page is wrong");
        }
        let meta = Meta {
            page_size: to_usize(small(8)?),
            flags: small(12)?,
            root: number(16)?,
            sequence: number(24)?,
            freelist: number(32)?,
            high_water: number(40)?,
            txid: number(48)?,
        };
        if !is_page_size(meta.page_size) {
            return Err("the page size is not supported");
        }
        // A freelist that cannot be is made anew; a root is not.
        if !(2..meta.high_water).contains(&meta.root) {
            return Err("the meta page names a root that cannot be");
        }
        Ok(meta)
    }

    /// A whole meta page.
    pub(super) fn to_page(self, slot: u64) -> Vec<u8> {
        let mut page = Header { id: slot, flags: META, count: 0, overflow: 0 }.to_bytes().to_vec();
        let size = u32::try_from(self.page_size).unwrap_or(0);
        for number in [MAGIC, VERSION, size, self.flags] {
            page.extend_from_slice(&number.to_ne_bytes());
        }
        for number in [self.root, self.sequence, self.freelist, self.high_water, self.txid] {
            page.extend_from_slice(&number.to_ne_bytes());
        }
        let sum = checksum(page.get(HEADER..).unwrap_or_default());
        page.extend_from_slice(&sum.to_ne_bytes());
        page.resize(self.page_size, 0);
        page
    }
}

pub(super) fn is_page_size(size: usize) -> bool {
    size.is_power_of_two() && (SMALLEST_PAGE..=LARGEST_PAGE).contains(&size)
}

/// Makes the checksums of both meta pages right, for whoever tries what else may be wrong.
pub(super) fn seal(content: &mut [u8], page_size: usize) {
    for slot in [0, page_size] {
        let Some(meta) = content.get_mut(slot..).and_then(|rest| rest.get_mut(HEADER..HEADER + CHECKED + 8))
        else {
            continue;
        };
        let (checked, sum) = meta.split_at_mut(CHECKED);
        sum.copy_from_slice(&checksum(checked).to_ne_bytes());
    }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The newer valid meta page and its slot (0 or 1). `read` gives the bytes at an offset, fewer at the end of the file.
pub(super) fn choose(mut read: impl FnMut(u64, usize) -> Result<Vec<u8>>) -> Result<(Meta, u64)> {
    let header = to_u64(HEADER);
    let first = Meta::parse(&read(header, LENGTH)?);
    // Where the first page does not say how large a page is, the second is where it says that it is.
    let size_in_first = first.as_ref().ok().map(|meta| meta.page_size);
    let mut second = Err("there is no second meta page");
    let mut size = SMALLEST_PAGE;
    while size <= LARGEST_PAGE {
        if size_in_first.is_none_or(|first| first == size) {
            let found = Meta::parse(&read(to_u64(size) + header, LENGTH)?);
            if found.as_ref().is_ok_and(|meta| meta.page_size == size) {
                second = found;
                break;
            }
        }
        size *= 2;
    }
    match (first, second) {
        (Ok(first), Ok(second)) if second.txid > first.txid => Ok((second, 1)),
        (Ok(first), _) => Ok((first, 0)),
        (Err(_), Ok(second)) => Ok((second, 1)),
        (Err(reason), Err(_)) => Err(Error::corrupt(reason).context("neither meta page is valid")),
    }
}
