// SPDX-License-Identifier: MulanPSL-2.0
//! Branch and leaf pages: what lies in them, checked once when they are read, and how they are written.

use std::cmp::Ordering;
use std::ops::Range;

use super::bytes::{Slice, to_u64, to_usize, u16_at, u32_at, u64_at};
use crate::error::{Error, ErrorKind, Result};

/// Length of a page's header, and of each element that follows it.
pub(super) const HEADER: usize = 16;
pub(super) const ELEMENT: usize = 16;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREELIST: u16 = 0x10;

/// The value of this leaf element is a bucket.
pub(super) const BUCKET: u32 = 0x01;

/// The header of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    pub overflow: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            id: u64_at(bytes, 0)?,
            flags: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let fields = [
            &self.id.to_ne_bytes()[..],
            &self.flags.to_ne_bytes(),
            &self.count.to_ne_bytes(),
            &self.overflow.to_ne_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        bytes
    }

    /// The page and those that continue it.
    pub(super) fn run(self) -> Run {
        Run { start: self.id, length: u64::from(self.overflow) + 1 }
    }
}

/// Consecutive pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub start: u64,
    pub length: u64,
}

impl Run {
    /// The page behind it.
    pub(super) fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }

    pub(super) fn pages(self) -> Range<u64> {
        self.start..self.end()
    }
}

/// A key and what belongs to it in a leaf.
#[derive(Debug, Clone)]
pub(super) struct LeafItem {
    pub flags: u32,
    pub key: Slice,
    pub value: Slice,
}

impl LeafItem {
    pub(super) fn is_bucket(&self) -> bool {
        self.flags & BUCKET != 0
    }
}

/// What belongs to a key in a leaf.
#[derive(Debug)]
pub(super) struct Found {
    pub flags: u32,
    pub value: Slice,
}

impl Found {
    pub(super) fn is_bucket(&self) -> bool {
        self.flags & BUCKET != 0
    }
}

/// A branch or leaf page whose elements lie within it, with keys in ascending order.
#[derive(Debug)]
pub(super) struct Page {
    leaf: bool,
    count: usize,
    run: Run,
    bytes: Slice,
}

impl Page {
    /// Checks everything that can be checked without other pages. `bytes` is the page with its overflow, or the value
    /// of an inline bucket behind its header.
    pub(super) fn parse(bytes: Slice) -> Result<Page> {
        let corrupt = |what: String| Error::corrupt(what);
        let header = Header::parse(&bytes).ok_or_else(|| corrupt("shorter than a page header".into()))?;
        let leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            other => return Err(corrupt(format!("flags {other:#x} are neither of a branch nor of a leaf"))),
        };
        let page = Page { leaf, count: usize::from(header.count), run: header.run(), bytes };
        if !leaf && page.count == 0 {
            return Err(corrupt("a branch without elements".into()));
        }
        let mut last: Option<&[u8]> = None;
        // Elements that lie over each other would be more than the page has.
        let elements = HEADER.saturating_add(page.count.saturating_mul(ELEMENT));
        let mut left = page.bytes.len().saturating_sub(elements);
        let mut place = |length: usize, index: usize| -> Result<()> {
            left = left
                .checked_sub(length)
                .ok_or_else(|| corrupt(format!("element {index} lies where another one does")))?;
            Ok(())
        };
        for index in 0..page.count {
            let key = page
                .key_range(index)
                .and_then(|range| page.bytes.get(range))
                .ok_or_else(|| corrupt(format!("the key of element {index} lies outside")))?;
            place(key.len(), index)?;
            if leaf {
                let value = page
                    .value_range(index)
                    .and_then(|range| page.bytes.get(range))
                    .ok_or_else(|| corrupt(format!("the value of element {index} lies outside")))?;
                place(value.len(), index)?;
            }
            if last.is_some_and(|last| last >= key) {
                return Err(corrupt(format!(
                    "the key of element {index} is not larger than the one before it"
                )));
            }
            last = Some(key);
        }
        Ok(page)
    }

    /// The same in less memory, if most of it is empty: an image with labels has a page of its own and fills a tenth.
    pub(super) fn compact(self) -> Page {
        let ends = (0..self.count).map(|index| {
            let range = if self.leaf { self.value_range(index) } else { self.key_range(index) };
            range.map_or(0, |range| range.end)
        });
        let elements = HEADER.saturating_add(self.count.saturating_mul(ELEMENT));
        let used = ends.max().unwrap_or(0).max(elements);
        match self.bytes.get(..used) {
            Some(content) if used < self.bytes.len() / 2 => Page { bytes: Slice::copy(content), ..self },
            Some(_) | None => self,
        }
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.leaf
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where it lies in the file; means nothing for an inline bucket.
    pub(super) fn run(&self) -> Run {
        self.run
    }

    /// Bytes that it keeps in memory.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn element(&self, index: usize) -> Option<usize> {
        index.checked_mul(ELEMENT)?.checked_add(HEADER)
    }

    fn key_range(&self, index: usize) -> Option<Range<usize>> {
        let at = self.element(index)?;
        let (position, size) = if self.leaf { (at + 4, at + 8) } else { (at, at + 4) };
        let start = at.checked_add(to_usize(u32_at(&self.bytes, position)?))?;
        Some(start..start.checked_add(to_usize(u32_at(&self.bytes, size)?))?)
    }

    fn value_range(&self, index: usize) -> Option<Range<usize>> {
        let start = self.key_range(index)?.end;
        let size = u32_at(&self.bytes, self.element(index)?.checked_add(12)?)?;
        Some(start..start.checked_add(to_usize(size))?)
    }

    /// Empty where there is no such element; [`Page::parse`] has looked at all that there are.
    pub(super) fn key(&self, index: usize) -> &[u8] {
        self.key_range(index).and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    pub(super) fn key_slice(&self, index: usize) -> Slice {
        self.key_range(index).and_then(|range| self.bytes.part(range.start, range.len())).unwrap_or_default()
    }

    /// What belongs to this key in a leaf.
    pub(super) fn find(&self, key: &[u8]) -> Option<Found> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return self.found(middle),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn found(&self, index: usize) -> Option<Found> {
        if !self.leaf {
            return None;
        }
        let value = self.value_range(index)?;
        Some(Found {
            flags: u32_at(&self.bytes, self.element(index)?)?,
            value: self.bytes.part(value.start, value.len())?,
        })
    }

    /// The element of a branch below which the key would be.
    pub(super) fn towards(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) > key {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low.saturating_sub(1)
    }

    /// The page that a branch's element leads to; `None` for a leaf.
    pub(super) fn child(&self, index: usize) -> Option<u64> {
        if self.leaf || index >= self.count {
            return None;
        }
        u64_at(&self.bytes, self.element(index)?.checked_add(8)?)
    }

    /// An element of a leaf; `None` for a branch.
    pub(super) fn item(&self, index: usize) -> Option<LeafItem> {
        if !self.leaf || index >= self.count {
            return None;
        }
        let value = self.value_range(index)?;
        Some(LeafItem {
            flags: u32_at(&self.bytes, self.element(index)?)?,
            key: self.key_slice(index),
            value: self.bytes.part(value.start, value.len())?,
        })
    }
}

/// Length of a leaf with these items.
pub(super) fn leaf_size(items: &[LeafItem]) -> usize {
    items.iter().fold(HEADER, |size, item| size.saturating_add(item_size(item)))
}

/// Length that an item takes in a leaf.
pub(super) fn item_size(item: &LeafItem) -> usize {
    ELEMENT.saturating_add(item.key.len()).saturating_add(item.value.len())
}

/// A leaf as it is written. `id` and `overflow` are 0 for an inline bucket.
pub(super) fn encode_leaf(id: u64, overflow: u32, items: &[LeafItem]) -> Result<Vec<u8>> {
    let contents: Vec<_> = items.iter().map(|item| [&item.key[..], &item.value[..]]).collect();
    encode(
        Header { id, flags: LEAF, count: count_of(items.len())?, overflow },
        &contents,
        |index, position| {
            let item = items.get(index)?;
            let sizes = [u32::try_from(item.key.len()).ok()?, u32::try_from(item.value.len()).ok()?];
            let [key, value] = sizes.map(u32::to_ne_bytes);
            Some([item.flags.to_ne_bytes(), position.to_ne_bytes(), key, value].concat())
        },
    )
}

/// A branch as it is written.
pub(super) fn encode_branch(id: u64, overflow: u32, items: &[(Slice, u64)]) -> Result<Vec<u8>> {
    let contents: Vec<_> = items.iter().map(|(key, _)| [&key[..], &[]]).collect();
    encode(
        Header { id, flags: BRANCH, count: count_of(items.len())?, overflow },
        &contents,
        |index, position| {
            let (key, child) = items.get(index)?;
            let size = u32::try_from(key.len()).ok()?;
            Some([&position.to_ne_bytes()[..], &size.to_ne_bytes(), &child.to_ne_bytes()].concat())
        },
    )
}

fn count_of(count: usize) -> Result<u16> {
    // 0xffff says in a freelist that the count is elsewhere; the original writes no page with so many elements, either.
    u16::try_from(count).ok().filter(|count| *count < u16::MAX).ok_or_else(too_large)
}

fn too_large() -> Error {
    Error::new(ErrorKind::LimitExceeded, "a page would be too large for the format")
}

fn encode(
    header: Header,
    contents: &[[&[u8]; 2]],
    element: impl Fn(usize, u32) -> Option<Vec<u8>>,
) -> Result<Vec<u8>> {
    let length = |content: &[&[u8]; 2]| content.iter().map(|bytes| bytes.len()).sum::<usize>();
    let elements = contents.len() * ELEMENT;
    let mut page = Vec::with_capacity(HEADER + elements + contents.iter().map(length).sum::<usize>());
    page.extend_from_slice(&header.to_bytes());
    // Positions count from the start of the element.
    let mut position = elements;
    for (index, content) in contents.iter().enumerate() {
        let position_of = u32::try_from(position).map_err(|_| too_large())?;
        page.extend_from_slice(&element(index, position_of).ok_or_else(too_large)?);
        position = position.saturating_sub(ELEMENT).saturating_add(length(content));
    }
    for bytes in contents.iter().flatten() {
        page.extend_from_slice(bytes);
    }
    Ok(page)
}

/// The page ids of a freelist page, as stored.
pub(super) fn parse_freelist(bytes: &[u8]) -> Result<Vec<u64>> {
    let header = Header::parse(bytes).filter(|header| header.flags == FREELIST);
    let header = header.ok_or_else(|| Error::corrupt("it is not a freelist page"))?;
    let (count, start) = match header.count {
        u16::MAX => (to_usize(u64_at(bytes, HEADER).unwrap_or(u64::MAX)), HEADER + 8),
        count => (usize::from(count), HEADER),
    };
    let end = count.checked_mul(8).and_then(|length| length.checked_add(start));
    let list = end.and_then(|end| bytes.get(start..end)).ok_or_else(|| {
        Error::corrupt(format!("the freelist has {count} pages, which is more than the page holds"))
    })?;
    Ok(list.chunks_exact(8).filter_map(|id| u64_at(id, 0)).collect())
}

/// Length of a freelist page with so many ids.
pub(super) fn freelist_size(count: u64) -> u64 {
    let ids = if count >= u64::from(u16::MAX) { count.saturating_add(1) } else { count };
    ids.saturating_mul(8).saturating_add(to_u64(HEADER))
}

/// A freelist as it is written; `ids` in ascending order.
pub(super) fn encode_freelist(run: Run, ids: &[u64]) -> Result<Vec<u8>> {
    let overflow = u32::try_from(run.length.saturating_sub(1)).map_err(|_| too_large())?;
    let short = u16::try_from(ids.len()).ok().filter(|count| *count < u16::MAX);
    let header = Header { id: run.start, flags: FREELIST, count: short.unwrap_or(u16::MAX), overflow };
    let mut page = header.to_bytes().to_vec();
    if short.is_none() {
        page.extend_from_slice(&to_u64(ids.len()).to_ne_bytes());
    }
    for id in ids {
        page.extend_from_slice(&id.to_ne_bytes());
    }
    Ok(page)
}
