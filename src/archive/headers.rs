// SPDX-License-Identifier: MulanPSL-2.0
//! The headers of a tar, read again from the lines of its tar-split stream.
//!
//! Whatever cannot be read, or does not fit the line of its entry, ends the reading: then nothing is said of the entries
//! that follow. The checksum of the stream covers the lines, so that is a stream of another program with entries of its
//! own, not damage. Memory is bounded by what the headers of one entry may take.

use crate::archive::Limits;
use crate::archive::entry::{Entry, Input, Reader};
use crate::archive::header::BLOCK;
use crate::archive::tar_split::Record;
use crate::archive::whiteout::clean;
use crate::error::Result;

/// Bytes that came and were not read yet.
#[derive(Debug, Default)]
struct Feed {
    bytes: Vec<u8>,
    at: usize,
}

impl Feed {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at.min(self.bytes.len()));
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

impl Input for Feed {
    fn peek(&mut self) -> Result<&[u8]> {
        Ok(self.rest())
    }
    fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.bytes.len());
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
    }
}

/// Reads headers from segments.
pub(super) struct Headers {
    /// `None` once it is over.
    reader: Option<Reader<Feed>>,
    entry: Entry,
    /// Most bytes that wait.
    most: usize,
}

impl Headers {
    pub(super) fn new() -> Self {
        let limits = Limits::default();
        Headers {
            reader: Some(Reader::new(Feed::default(), &limits)),
            entry: Entry::default(),
            // As the reader has it, for an extended header of each kind, and the padding before.
            most: limits.extended_header.saturating_mul(4).saturating_add(65 * BLOCK),
        }
    }

    /// Takes a segment.
    pub(super) fn segment(&mut self, bytes: &[u8]) {
        let Some(reader) = &mut self.reader else { return };
        reader.input().add(bytes);
        // Content without a file is among the segments.
        let waiting = reader.input().rest().len();
        let content = usize::try_from(reader.pending()).unwrap_or(usize::MAX).min(waiting);
        reader.consume(content);
        if reader.input().rest().len() > self.most {
            self.reader = None;
        }
    }

    /// What the headers say of the entry whose line has come.
    pub(super) fn entry(&mut self, record: &Record) -> Option<&Entry> {
        let reader = self.reader.as_mut()?;
        // Content that never came is as bad as a header that does not.
        let read = reader.pending() == 0 && reader.next(&mut self.entry).unwrap_or(false);
        reader.clear_raw();
        if !read || !fits(&self.entry, record) {
            self.reader = None;
            return None;
        }
        if record.size != 0 {
            reader.leave_content_out();
        }
        Some(&self.entry)
    }
}

/// Whether headers are those of a line.
fn fits(entry: &Entry, record: &Record) -> bool {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    clean(&entry.name, &mut left).is_ok()
        && clean(&record.name, &mut right).is_ok()
        && left == right
        && (record.size == 0 || record.size == entry.size)
}
