// SPDX-License-Identifier: MulanPSL-2.0
//! The tar reader: a forward-only stream of entries that keeps every byte that is not content, for tar-split.
//!
//! Where the dialects leave room, this follows what Go's reader (and so Docker and containers/storage) does: links,
//! devices, directories and fifos have no content whatever their size says; a GNU long name wins over a PAX path;
//! the last of several extended headers counts; the archive ends with two zero blocks, with one at the very end, or
//! with the stream between two entries. Stricter: a stream that ends within a header, content or padding is an
//! error, as are entry types that hold neither a file nor a name.
//!
//! Memory is bounded by [`Limits::extended_header`].

use crate::archive::Limits;
use crate::archive::header::{self, BLOCK, Dialect, Header};
use crate::archive::pax::{self, Extended, Time, Xattr};
use crate::archive::sparse::{self, Region};
use crate::error::{Error, ErrorKind, Result};

/// A stream of bytes that is read in pieces of the stream's own choice.
pub(super) trait Input {
    /// The next bytes, at least one unless the stream has ended.
    fn peek(&mut self) -> Result<&[u8]>;
    /// Takes the first `count` of the bytes that `peek` showed.
    fn consume(&mut self, count: usize);
}

impl<I: Input> Input for &mut I {
    fn peek(&mut self) -> Result<&[u8]> {
        (**self).peek()
    }
    fn consume(&mut self, count: usize) {
        (**self).consume(count);
    }
}

impl Input for &[u8] {
    fn peek(&mut self) -> Result<&[u8]> {
        Ok(self)
    }
    fn consume(&mut self, count: usize) {
        *self = self.get(count..).unwrap_or_default();
    }
}

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry of the archive. Reused from entry to entry, so that a plain one costs no allocation.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// The name as stored, with its trailing slash.
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: Time,
    pub(super) atime: Option<Time>,
    pub(super) device: (u64, u64),
    /// Size of the file it makes; 0 for all that are not files.
    pub(super) size: u64,
    /// For a sparse file, where its content goes; the sum is what the archive stores.
    pub(super) sparse: Option<Vec<Region>>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) acl_access: Option<Vec<u8>>,
    pub(super) acl_default: Option<Vec<u8>>,
}

/// Reads entries from an [`Input`].
#[derive(Debug)]
pub(super) struct Reader<I> {
    input: I,
    /// Bytes consumed so far, for messages.
    offset: u64,
    /// Bytes of content of the current entry not yet consumed, and the padding after it.
    content: u64,
    padding: u64,
    raw: Vec<u8>,
    global: Extended,
    limit: usize,
    path_limit: usize,
}

impl<I: Input> Reader<I> {
    pub(super) fn new(input: I, limits: &Limits) -> Self {
        Reader {
            input,
            offset: 0,
            content: 0,
            padding: 0,
            raw: Vec::new(),
            global: Extended::default(),
            limit: limits.extended_header,
            path_limit: limits.path,
        }
    }

    /// Reads up to the next entry's content; `false` at the end of the archive. The content of the entry before
    /// must have been consumed.
    pub(super) fn next(&mut self, entry: &mut Entry) -> Result<bool> {
        debug_assert_eq!(self.content, 0);
        self.take_padding()?;
        let mut extended = Extended::default();
        let mut long_name = None;
        let mut long_link = None;
        let mut pending = false;
        loop {
            let mut block = [0u8; BLOCK];
            if !self.block(&mut block)? {
                return if pending { Err(self.truncated()) } else { Ok(false) };
            }
            if block == [0u8; BLOCK] {
                if pending {
                    return Err(self.bad("the archive ends after an extended header"));
                }
                return self.end();
            }
            let header = Header::parse(&block).map_err(|what| self.bad(what))?;
            pending = true;
            match header.kind() {
                b'x' | b'X' => {
                    extended = Extended::default();
                    let body = self.body(&header)?;
                    extended.parse(body).map_err(|what| self.bad(&what))?;
                }
                b'g' => {
                    let mut global = std::mem::take(&mut self.global);
                    let body = self.body(&header)?;
                    global.parse_global(body).map_err(|what| self.bad(&what))?;
                    self.global = global;
                    pending = false;
                }
                b'L' => long_name = Some(header::text(self.body(&header)?).to_vec()),
                b'K' => long_link = Some(header::text(self.body(&header)?).to_vec()),
                // The label of a volume: no file.
                b'V' => {
                    self.body(&header)?;
                    pending = false;
                }
                _ => {
                    self.fill(entry, &header, extended, long_name, long_link)?;
                    return Ok(true);
                }
            }
        }
    }

    /// The next piece of the current entry's content; empty when it is complete.
    pub(super) fn content(&mut self) -> Result<&[u8]> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let most = usize::try_from(self.content).unwrap_or(usize::MAX);
        if self.input.peek()?.is_empty() {
            return Err(self.truncated());
        }
        let bytes = self.input.peek()?;
        Ok(bytes.get(..most.min(bytes.len())).unwrap_or_default())
    }

    /// Takes `count` bytes of what `content` or `rest` showed.
    pub(super) fn consume(&mut self, count: usize) {
        let taken = u64::try_from(count).unwrap_or(u64::MAX);
        self.content = self.content.saturating_sub(taken);
        self.offset = self.offset.saturating_add(taken);
        self.input.consume(count);
    }

    /// The next piece of what follows the end of the archive; empty at the end of the stream.
    pub(super) fn rest(&mut self) -> Result<&[u8]> {
        self.input.peek()
    }

    /// What the entries are read from.
    pub(super) fn input(&mut self) -> &mut I {
        &mut self.input
    }

    /// Bytes of content of the current entry that were not consumed.
    pub(super) fn pending(&self) -> u64 {
        self.content
    }

    /// For an input that leaves the content of this entry out: its padding follows at once.
    pub(super) fn leave_content_out(&mut self) {
        self.content = 0;
    }

    /// Bytes of headers and padding read since the last `clear_raw`.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(super) fn clear_raw(&mut self) {
        self.raw.clear();
    }

    fn bad(&self, what: &str) -> Error {
        Error::new(ErrorKind::InvalidData, format!("{what} (tar offset {})", self.offset))
    }

    fn truncated(&self) -> Error {
        self.bad("the archive is truncated")
    }

    /// Copies bytes that are no content to `raw`; the number copied is less than `count` only at the stream's end.
    fn copy_raw(&mut self, count: usize) -> Result<usize> {
        // One entry may have an extended header of each kind, all at their limit.
        let most = self.limit.saturating_mul(4).saturating_add(64 * BLOCK);
        if self.raw.len().saturating_add(count) > most {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("extended headers of one entry exceed {most} bytes (tar offset {})", self.offset),
            ));
        }
        let mut copied = 0;
        while copied < count {
            let bytes = self.input.peek()?;
            let piece = bytes.get(..bytes.len().min(count - copied)).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            self.raw.extend_from_slice(piece);
            let taken = piece.len();
            self.input.consume(taken);
            self.offset = self.offset.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
            copied += taken;
        }
        Ok(copied)
    }

    /// Reads one block; `false` when the stream has ended before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let start = self.raw.len();
        match self.copy_raw(BLOCK)? {
            0 => Ok(false),
            BLOCK => {
                block.copy_from_slice(self.raw.get(start..).unwrap_or_default());
                Ok(true)
            }
            _ => Err(self.truncated()),
        }
    }

    /// After a zero block: a second one, or the end of the stream.
    fn end(&mut self) -> Result<bool> {
        let mut block = [0u8; BLOCK];
        if self.block(&mut block)? && block != [0u8; BLOCK] {
            return Err(self.bad("a zero block is followed by something else"));
        }
        Ok(false)
    }

    fn take_padding(&mut self) -> Result<()> {
        let padding = usize::try_from(self.padding).unwrap_or(BLOCK);
        self.padding = 0;
        if self.copy_raw(padding)? < padding {
            return Err(self.truncated());
        }
        Ok(())
    }

    /// The content of an extended header, in `raw` as everything that is no file content.
    fn body(&mut self, header: &Header<'_>) -> Result<&[u8]> {
        let size = header.size().map_err(|what| self.bad(what))?;
        let size = usize::try_from(size).ok().filter(|size| *size <= self.limit).ok_or_else(|| {
            Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "an extended header of {size} bytes exceeds {} (tar offset {})",
                    self.limit, self.offset
                ),
            )
        })?;
        let start = self.raw.len();
        let padded = size.next_multiple_of(BLOCK);
        if self.copy_raw(padded)? < padded {
            return Err(self.truncated());
        }
        Ok(self.raw.get(start..start + size).unwrap_or_default())
    }

    /// Makes the entry of its header and what was said before it.
    fn fill(
        &mut self,
        entry: &mut Entry,
        header: &Header<'_>,
        extended: Extended,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<()> {
        let Extended { path, linkpath, size, mut sparse, .. } = extended;
        entry.name.clear();
        let sparse_name = sparse.as_mut().and_then(|sparse| sparse.name.take());
        match long_name.or(sparse_name).or(path) {
            Some(name) => entry.name = name,
            None => header.name(&mut entry.name),
        }
        entry.link.clear();
        match long_link.or(linkpath) {
            Some(link) => entry.link = link,
            None => entry.link.extend_from_slice(header.link()),
        }
        self.check_names(entry)?;

        let bad = |what: &'static str| self.bad(&format!("entry {}: {what}", pax::show(&entry.name)));
        let stored = match size {
            Some(size) => size,
            None => header.size().map_err(bad)?,
        };
        let slash = entry.name.last() == Some(&b'/');
        entry.kind = match header.kind() {
            b'0' | b'7' | 0 | b'S' if !slash => Kind::File,
            b'0' | b'7' | 0 if stored == 0 => Kind::Directory,
            b'0' | b'7' | 0 | b'S' => return Err(bad("a directory's name, but it has content")),
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let what = format!(
                    "entry {}: entry type {:?} is not supported",
                    pax::show(&entry.name),
                    char::from(other)
                );
                return Err(self.bad(&what));
            }
        };
        entry.mode = header.mode().map_err(bad)?;
        entry.uid = match extended.uid.or(self.global.uid) {
            Some(uid) => uid,
            None => header.uid().map_err(bad)?,
        };
        entry.gid = match extended.gid.or(self.global.gid) {
            Some(gid) => gid,
            None => header.gid().map_err(bad)?,
        };
        entry.mtime = match extended.mtime.or(self.global.mtime) {
            Some(mtime) => mtime,
            None => Time { seconds: header.mtime().map_err(bad)?, nanos: 0 },
        };
        entry.atime = extended.atime.or(self.global.atime);
        entry.device = (0, 0);
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            entry.device = match (extended.major, extended.minor) {
                (Some(major), Some(minor)) => (major, minor),
                _ => header.device().map_err(bad)?,
            };
        }
        entry.xattrs = extended.xattrs;
        for xattr in &self.global.xattrs {
            if entry.xattrs.iter().all(|known| known.name != xattr.name) {
                entry.xattrs.push(xattr.clone());
            }
        }
        entry.acl_access = extended.acl_access;
        entry.acl_default = extended.acl_default;

        let stored = if entry.kind == Kind::File { stored } else { 0 };
        entry.size = stored;
        entry.sparse = None;
        self.content = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        if entry.kind == Kind::File {
            self.fill_sparse(entry, header, sparse.as_deref())?;
        }
        Ok(())
    }

    fn check_names(&self, entry: &Entry) -> Result<()> {
        for name in [&entry.name, &entry.link] {
            if name.len() > self.path_limit {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    format!(
                        "name {} is longer than {} bytes (tar offset {})",
                        pax::show(name),
                        self.path_limit,
                        self.offset
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The three ways a file can be sparse: GNU's own header type, records of PAX (0.0, 0.1), and a map at the
    /// start of the content (1.0).
    fn fill_sparse(
        &mut self,
        entry: &mut Entry,
        header: &Header<'_>,
        keys: Option<&pax::SparseKeys>,
    ) -> Result<()> {
        let mut map = Vec::new();
        let size;
        if header.kind() == b'S' {
            if header.dialect() != Dialect::Gnu {
                return Err(self.bad("a sparse entry that is not of the GNU format"));
            }
            size = header.real_size().map_err(|what| self.bad(what))?;
            let mut more = header.sparse_map(&mut map).map_err(|what| self.bad(what))?;
            while more {
                let mut block = [0u8; BLOCK];
                if !self.block(&mut block)? {
                    return Err(self.truncated());
                }
                more = header::sparse_extension(&block, &mut map).map_err(|what| self.bad(what))?;
            }
        } else if let Some(keys) = keys {
            match (keys.major.unwrap_or(0), keys.minor.unwrap_or(0)) {
                (0, 0 | 1) if keys.mapped => map.clone_from(&keys.map),
                (1, 0) => self.map_in_content(&mut map)?,
                // Without a map it is an ordinary file.
                (0, 0 | 1) => return Ok(()),
                (major, minor) => {
                    return Err(self.bad(&format!("sparse format {major}.{minor} is not supported")));
                }
            }
            size = keys.real_size.ok_or_else(|| self.bad("a sparse file without a size"))?;
        } else {
            return Ok(());
        }
        sparse::check(&mut map, self.content, size)
            .map_err(|what| self.bad(&format!("entry {}: {what}", pax::show(&entry.name))))?;
        entry.size = size;
        entry.sparse = Some(map);
        Ok(())
    }

    /// Sparse format 1.0: decimal numbers, one a line: the count of regions, then offset and length of each; padded
    /// to a block.
    fn map_in_content(&mut self, map: &mut Vec<Region>) -> Result<()> {
        let mut block = [0u8; BLOCK];
        let mut line = Vec::with_capacity(20);
        let mut wanted: Option<u64> = None;
        let mut offset = None;
        loop {
            if self.content < BLOCK as u64 || !self.block(&mut block)? {
                return Err(self.bad("a sparse map exceeds its entry"));
            }
            self.content -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    if line.len() == 20 {
                        return Err(self.bad("sparse map is not made of numbers"));
                    }
                    line.push(byte);
                    continue;
                }
                let number =
                    pax::decimal(&line).ok_or_else(|| self.bad("sparse map is not made of numbers"))?;
                line.clear();
                match (wanted, offset.take()) {
                    (None, _) => wanted = Some(number),
                    (Some(_), None) => offset = Some(number),
                    (Some(_), Some(offset)) => map.push((offset, number)),
                }
                if wanted == Some(map.len() as u64) && offset.is_none() {
                    return Ok(());
                }
            }
        }
    }
}
