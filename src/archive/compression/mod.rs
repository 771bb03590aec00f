// SPDX-License-Identifier: MulanPSL-2.0
//! Decompression by magic number.
//!
//! A stream may consist of several members (gzip, xz, bzip2) or frames (zstd) one after the other, and may end with
//! zero bytes as padding; anything else behind it is an error, never ignored. Memory is bounded, see `window`. So is the
//! number of members without content, which cost the reader more than the writer.

mod codec;
mod window;

use std::io::{self, BufRead, BufReader, Read};

use crate::archive::Compression;
use crate::error::{During, Error, ErrorKind, Result};

use codec::{Bzip2, Codec, Xz, Zstd};

/// Bytes needed to tell all formats apart.
pub(super) const MAGIC_LEN: usize = 10;

/// Members without content, one after the other, that are taken. No tool writes more than one or two.
const MOST_EMPTY: u32 = 4096;
/// Most zeros behind a compressed stream.
const MOST_PADDING: usize = 64 << 20;

/// The compression of a stream by its first bytes.
pub(super) fn detect(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A zstd stream may start with a frame to skip.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if bzip2_block(rest) => Compression::Bzip2,
        _ => Compression::None,
    }
}

/// A tar may begin with a file named `BZh9`, so what follows must be the start of a block or of an empty stream's
/// end, as far as it is there.
fn bzip2_block(rest: &[u8]) -> bool {
    const BLOCK: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
    const END: [u8; 6] = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];
    let seen = rest.get(..rest.len().min(6)).unwrap_or_default();
    BLOCK.starts_with(seen) || END.starts_with(seen)
}

/// Decompresses what `R` gives. Errors of `R` itself must be the crate's [`Error`] inside an [`io::Error`]; they pass
/// unchanged, while those of a decoder become `InvalidData`.
pub(super) struct Decoder<R: BufRead> {
    state: State<R>,
    compression: Compression,
    /// What this member has given.
    given: u64,
    /// Members with next to no content, one after the other, up to here.
    empty: u32,
}

enum State<R: BufRead> {
    Plain(R),
    Gzip(Box<flate2::bufread::GzDecoder<Slot<R>>>),
    Other(R, Box<dyn Codec + Send>),
    /// All members read, padding skipped.
    Ended(R),
    /// After an error.
    Failed,
}

/// A source that can be taken out of a decoder which is used again.
struct Slot<R>(Option<R>);

impl<R: BufRead> Slot<R> {
    fn source(&mut self) -> io::Result<&mut R> {
        self.0.as_mut().ok_or_else(|| io::Error::other("the stream failed before"))
    }
}

impl<R: BufRead> Read for Slot<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source()?.read(buffer)
    }
}

impl<R: BufRead> BufRead for Slot<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source()?.fill_buf()
    }
    fn consume(&mut self, count: usize) {
        if let Some(source) = &mut self.0 {
            source.consume(count);
        }
    }
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(source: R, compression: Compression) -> Result<Self> {
        let state = State::start(source, compression).during(|| "start decompression")?;
        Ok(Decoder { state, compression, given: 0, empty: 0 })
    }

    /// The source; only after the end of the stream has been reached.
    pub(super) fn into_source(self) -> Option<R> {
        match self.state {
            State::Plain(source) | State::Ended(source) => Some(source),
            _ => None,
        }
    }

    pub(super) fn source(&self) -> Option<&R> {
        match &self.state {
            State::Plain(source) | State::Ended(source) | State::Other(source, _) => Some(source),
            State::Gzip(decoder) => decoder.get_ref().0.as_ref(),
            State::Failed => None,
        }
    }

    fn read_member(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Plain(source) => source.read(buffer),
            State::Gzip(decoder) => decoder.read(buffer),
            State::Other(source, codec) => codec.read(source, buffer),
            State::Ended(_) => Ok(0),
            State::Failed => Err(io::Error::other("the stream failed before")),
        }
    }

    /// After a member's end: starts the next one, or notes the end of the stream.
    fn next_member(&mut self) -> io::Result<()> {
        let more = match &mut self.state {
            State::Plain(_) | State::Ended(_) => false,
            State::Gzip(decoder) => follows(decoder.get_mut().source()?, self.compression)?,
            State::Other(source, _) => follows(source, self.compression)?,
            State::Failed => return Err(io::Error::other("the stream failed before")),
        };
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Plain(source) | State::Ended(source) => State::Ended(source),
            State::Other(source, _) if !more => State::Ended(source),
            State::Other(source, mut codec) => {
                codec.restart()?;
                State::Other(source, codec)
            }
            State::Gzip(mut decoder) => match decoder.get_mut().0.take() {
                Some(source) if !more => State::Ended(source),
                source => {
                    decoder.reset(Slot(source));
                    State::Gzip(decoder)
                }
            },
            State::Failed => State::Failed,
        };
        self.empty = if self.given >= least(self.compression) { 0 } else { self.empty + 1 };
        self.given = 0;
        if more && self.empty > MOST_EMPTY {
            let what = format!(
                "more than {MOST_EMPTY} compressed streams without content, or with hardly any, follow each other"
            );
            return Err(Error::new(ErrorKind::LimitExceeded, what).into());
        }
        Ok(())
    }
}

/// Members with less than this count as empty. Each of bzip2 and xz needs a decoder made for it, which takes as long as a
/// block of a hundred kilobytes, and tools write no such members of less than that.
fn least(compression: Compression) -> u64 {
    match compression {
        Compression::Bzip2 | Compression::Xz => 4096,
        _ => 1,
    }
}

/// Whether another member follows: so, if not the end. Padding is skipped.
fn follows(source: &mut impl BufRead, compression: Compression) -> io::Result<bool> {
    let padded = skip_zeros(source)?;
    let head = source.fill_buf()?;
    // xz allows padding between its streams; elsewhere zeros are the end.
    let more = match (compression, head.first()) {
        (_, None) => return Ok(false),
        (Compression::None, _) => false,
        (Compression::Gzip, first) => !padded && first == Some(&0x1f),
        (Compression::Zstd, first) => !padded && matches!(first, Some(0x28 | 0x50..=0x5f)),
        (Compression::Bzip2, first) => !padded && first == Some(&b'B'),
        (Compression::Xz, first) => first == Some(&0xfd),
    };
    if !more {
        let error = Error::new(ErrorKind::InvalidData, "garbage follows the compressed stream");
        return Err(error.into());
    }
    Ok(true)
}

impl<R: BufRead> State<R> {
    fn start(source: R, compression: Compression) -> io::Result<Self> {
        let codec: Box<dyn Codec + Send> = match compression {
            Compression::None => return Ok(State::Plain(source)),
            Compression::Gzip => {
                let decoder = flate2::bufread::GzDecoder::new(Slot(Some(source)));
                return Ok(State::Gzip(Box::new(decoder)));
            }
            Compression::Zstd => Box::new(Zstd::new()?),
            Compression::Bzip2 => Box::new(Bzip2::new()),
            Compression::Xz => Box::new(Xz::new()?),
        };
        Ok(State::Other(source, codec))
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.read_member(buffer) {
                Ok(0) => {
                    match self.next_member() {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        done => done.map_err(decoding)?,
                    }
                    if matches!(self.state, State::Ended(_)) {
                        return Ok(0);
                    }
                }
                Ok(count) => {
                    self.given = self.given.saturating_add(count as u64);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.state = State::Failed;
                    return Err(decoding(error));
                }
            }
        }
    }
}

/// An error of a decoder is malformed or truncated data; an error of ours passes.
fn decoding(error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return error;
    }
    let what = if error.kind() == io::ErrorKind::UnexpectedEof {
        "the compressed stream is truncated"
    } else {
        "the compressed stream is malformed"
    };
    Error::with_source(ErrorKind::InvalidData, what, error).into()
}

/// Skips zero bytes; true if there were any. Tapes and block devices pad, but not without end.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    let mut skipped = 0usize;
    loop {
        let bytes = source.fill_buf()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let done = zeros < bytes.len() || bytes.is_empty();
        source.consume(zeros);
        skipped = skipped.saturating_add(zeros);
        if done {
            return Ok(skipped > 0);
        }
        if skipped > MOST_PADDING {
            let what = format!("more than {MOST_PADDING} bytes of padding follow the compressed stream");
            return Err(Error::new(ErrorKind::LimitExceeded, what).into());
        }
    }
}

/// Reads until `head` bytes can be seen in the buffer, or the stream ends, and names the compression.
pub(super) fn decompressed<'a>(source: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>> {
    let mut source = source;
    let mut head = Vec::with_capacity(MAGIC_LEN);
    (&mut source)
        .take(MAGIC_LEN as u64)
        .read_to_end(&mut head)
        .during(|| "read the first bytes of a stream")?;
    let compression = detect(&head);
    let whole = BufReader::with_capacity(64 << 10, io::Cursor::new(head).chain(Passing(source)));
    Ok(Box::new(Decoder::new(whole, compression)?))
}

/// Marks errors of a source as not those of the decoder above it.
struct Passing<R>(R);

impl<R: Read> Read for Passing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => passing(error),
        })
    }
}

/// An error of the source as one of ours, so that no decoder's error is taken for it.
pub(super) fn passing(error: io::Error) -> io::Error {
    match Err::<(), _>(error).during(|| "read the stream") {
        Ok(()) => io::Error::other("read the stream"),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests;
