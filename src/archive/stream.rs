// SPDX-License-Identifier: MulanPSL-2.0
//! The layer stream: what the caller gives, hashed as it comes, decompressed, within limits.

use std::io::{self, BufRead, Read};

use crate::archive::compression::{self, Decoder, MAGIC_LEN};
use crate::archive::{Compression, Limits};
use crate::digest::{Digest, Digester};
use crate::error::{During, Error, ErrorKind, Result};
use crate::units::Bytes;

/// Pieces in which the source is read: few calls of the caller's function, little enough to stay in the cache.
const SOURCE_BUFFER: usize = 128 << 10;
/// Below this much output a ratio says nothing: a small layer of zeros is no bomb.
const RATIO_GRACE: u64 = 64 << 20;

/// The caller's stream with the digest of what was read of it.
struct Source<'a> {
    inner: &'a mut dyn Read,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    digester: Option<Digester>,
    count: u64,
    /// Most bytes of it.
    limit: u64,
    ended: bool,
}

impl Source<'_> {
    /// Reads more behind what is buffered.
    fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        let room = free.len();
        let count = loop {
            match self.inner.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(compression::passing(error)),
                Ok(count) => break count,
            }
        };
        if count > room {
            let what = format!("read the stream: {count} bytes came where {room} were asked for");
            return Err(Error::invalid(what).into());
        }
        if let Some(digester) = &mut self.digester {
            digester.update(free.get(..count).unwrap_or_default());
        }
        self.end += count;
        self.count = self.count.saturating_add(count as u64);
        self.ended = count == 0;
        if self.count > self.limit {
            let what = format!("the layer is larger than {} compressed", Bytes(self.limit));
            return Err(Error::new(ErrorKind::LimitExceeded, what).into());
        }
        Ok(())
    }

    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end && !self.ended {
            self.fill()?;
        }
        Ok(self.buffered())
    }
    fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let count = bytes.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// What is known of a stream when it has ended.
#[derive(Debug)]
pub(super) struct Tail {
    /// `None` for a stream that is not compressed: it is the diff ID.
    pub(super) compressed_digest: Option<Digest>,
    pub(super) compressed_size: Bytes,
    pub(super) tar_size: Bytes,
    pub(super) compression: Compression,
}

/// The uncompressed bytes of a layer.
pub(super) struct Stream<'a> {
    decoder: Decoder<Source<'a>>,
    compression: Compression,
    count: u64,
    limit: u64,
    ratio: u64,
    ended: bool,
    /// What went wrong behind bytes that were given already.
    failed: Option<Error>,
}

impl<'a> Stream<'a> {
    pub(super) fn open(inner: &'a mut dyn Read, limits: &Limits) -> Result<Self> {
        let mut source = Source {
            inner,
            buffer: vec![0; SOURCE_BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            digester: Some(Digester::new()),
            count: 0,
            // A stream may be empty for ever: members, frames or padding without content.
            limit: limits.stream.0.saturating_mul(2).max(SOURCE_BUFFER as u64),
            ended: false,
        };
        while source.buffered().len() < MAGIC_LEN && !source.ended {
            source.fill().during(|| "read the first bytes of the layer")?;
        }
        let compression = compression::detect(source.buffered());
        if compression == Compression::None {
            // One digest serves as both.
            source.digester = None;
        }
        Ok(Stream {
            decoder: Decoder::new(source, compression)?,
            compression,
            count: 0,
            limit: limits.stream.0,
            ratio: limits.ratio,
            ended: false,
            failed: None,
        })
    }

    /// Fills `buffer`; less than all of it only at the end of the stream, or before an error that the next call gives.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut filled = 0;
        while !self.ended {
            let space = buffer.get_mut(filled..).unwrap_or_default();
            if space.is_empty() {
                break;
            }
            match self.read(space) {
                Ok(count) => filled += count,
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }

    /// Whether all bytes have been given.
    pub(super) fn has_ended(&self) -> bool {
        self.ended && self.failed.is_none()
    }

    fn read(&mut self, space: &mut [u8]) -> Result<usize> {
        let count = self.decoder.read(space).during(|| "read the layer")?;
        self.ended = count == 0;
        self.count = self.count.saturating_add(count as u64);
        self.check_limits()?;
        Ok(count)
    }

    fn check_limits(&self) -> Result<()> {
        if self.count > self.limit {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the layer is larger than {} uncompressed", Bytes(self.limit)),
            ));
        }
        let read = self.decoder.source().map_or(u64::MAX, |source| source.count);
        if self.count > RATIO_GRACE && self.count / self.ratio.max(1) > read {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the layer expands to more than {} times its size", self.ratio),
            ));
        }
        Ok(())
    }

    /// Digest and lengths; the stream must have been read to its end.
    pub(super) fn finish(self) -> Result<Tail> {
        let unread = || Error::new(ErrorKind::InvalidData, "the layer was not read to its end");
        let source = self.decoder.into_source().filter(|source| source.ended).ok_or_else(unread)?;
        Ok(Tail {
            compressed_digest: source.digester.map(Digester::finish),
            compressed_size: Bytes(source.count),
            tar_size: Bytes(self.count),
            compression: self.compression,
        })
    }
}
