// SPDX-License-Identifier: MulanPSL-2.0
//! Decompression by magic number.
//!
//! A stream may consist of several members (gzip, xz, bzip2) or frames (zstd) one after the other, and may end with
//! zero bytes as padding; anything else behind it is an error, never ignored. Memory is bounded: a zstd window of
//! at most 128 MiB (the library's own default), an xz dictionary of at most 128 MiB; what common tools write by
//! default needs 8 MiB at most.

use std::io::{self, BufRead, BufReader, Read};

use crate::archive::Compression;
use crate::error::{During, Error, ErrorKind, Result};

/// Bytes needed to tell all formats apart.
pub(super) const MAGIC_LEN: usize = 10;

const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const XZ_MEMORY_LIMIT: u64 = 128 << 20;

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
}

enum State<R: BufRead> {
    Plain(R),
    Gzip(flate2::bufread::GzDecoder<R>),
    Zstd(zstd::stream::read::Decoder<'static, R>),
    Bzip2(bzip2::bufread::BzDecoder<R>),
    Xz(liblzma::bufread::XzDecoder<R>),
    /// All members read, padding skipped.
    Ended(R),
    /// After an error.
    Failed,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(source: R, compression: Compression) -> Result<Self> {
        let state = State::start(source, compression).during(|| "start decompression")?;
        Ok(Decoder { state, compression })
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
            State::Plain(source) | State::Ended(source) => Some(source),
            State::Gzip(decoder) => Some(decoder.get_ref()),
            State::Zstd(decoder) => Some(decoder.get_ref()),
            State::Bzip2(decoder) => Some(decoder.get_ref()),
            State::Xz(decoder) => Some(decoder.get_ref()),
            State::Failed => None,
        }
    }

    fn read_member(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Plain(source) => source.read(buffer),
            State::Gzip(decoder) => decoder.read(buffer),
            State::Zstd(decoder) => decoder.read(buffer),
            State::Bzip2(decoder) => decoder.read(buffer),
            State::Xz(decoder) => decoder.read(buffer),
            State::Ended(_) => Ok(0),
            State::Failed => Err(io::Error::other("the stream failed before")),
        }
    }

    /// After a member's end: starts the next one, or notes the end of the stream.
    fn next_member(&mut self) -> io::Result<()> {
        let mut source = match std::mem::replace(&mut self.state, State::Failed) {
            State::Plain(source) | State::Ended(source) => {
                self.state = State::Ended(source);
                return Ok(());
            }
            State::Gzip(decoder) => decoder.into_inner(),
            State::Zstd(decoder) => decoder.finish(),
            State::Bzip2(decoder) => decoder.into_inner(),
            State::Xz(decoder) => decoder.into_inner(),
            State::Failed => return Err(io::Error::other("the stream failed before")),
        };
        let padded = skip_zeros(&mut source)?;
        let head = source.fill_buf()?;
        if head.is_empty() {
            self.state = State::Ended(source);
            return Ok(());
        }
        // xz allows padding between its streams; elsewhere zeros are the end.
        let more = match self.compression {
            Compression::None => false,
            Compression::Gzip => !padded && head.first() == Some(&0x1f),
            Compression::Zstd => !padded && matches!(head.first(), Some(0x28 | 0x50..=0x5f)),
            Compression::Bzip2 => !padded && head.first() == Some(&b'B'),
            Compression::Xz => head.first() == Some(&0xfd),
        };
        if !more {
            let error = Error::new(ErrorKind::InvalidData, "garbage follows the compressed stream");
            return Err(error.into());
        }
        self.state = State::start(source, self.compression)?;
        Ok(())
    }
}

impl<R: BufRead> State<R> {
    fn start(source: R, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => State::Plain(source),
            Compression::Gzip => State::Gzip(flate2::bufread::GzDecoder::new(source)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                State::Zstd(decoder)
            }
            Compression::Bzip2 => State::Bzip2(bzip2::bufread::BzDecoder::new(source)),
            Compression::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_LIMIT, 0)?;
                State::Xz(liblzma::bufread::XzDecoder::new_stream(source, stream))
            }
        })
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
                    self.next_member().map_err(decoding)?;
                    if matches!(self.state, State::Ended(_)) {
                        return Ok(0);
                    }
                }
                Ok(count) => return Ok(count),
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

/// Skips zero bytes; true if there were any.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    let mut skipped = false;
    loop {
        let bytes = source.fill_buf()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let done = zeros < bytes.len() || bytes.is_empty();
        source.consume(zeros);
        skipped |= zeros > 0;
        if done {
            return Ok(skipped);
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
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(content: &[u8], compression: Compression) -> Vec<u8> {
        match compression {
            Compression::None => content.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(content, 1).unwrap(),
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn unpacked(bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        decompressed(Box::new(io::Cursor::new(bytes)))?.read_to_end(&mut content).during(|| "read")?;
        Ok(content)
    }

    const PACKED: [Compression; 4] =
        [Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

    #[test]
    fn each_format_is_known_by_its_magic_and_read() {
        let content = b"the quick brown fox".repeat(1000);
        for compression in PACKED {
            let bytes = packed(&content, compression);
            assert_eq!(detect(&bytes), compression);
            assert_eq!(detect(&packed(b"", compression)), compression);
            assert_eq!(unpacked(bytes).unwrap(), content, "{compression:?}");
        }
        for plain in [&b""[..], b"B", b"BZh", b"BZh9notes.txt", b"\x1f", b"etc/passwd", b"\xfd7zXZ"] {
            if plain != b"BZh" {
                assert_eq!(detect(plain), Compression::None, "{}", plain.escape_ascii());
            }
        }
        assert_eq!(unpacked(b"plain".to_vec()).unwrap(), b"plain");
    }

    #[test]
    fn members_one_after_the_other_are_one_stream() {
        for compression in PACKED {
            let mut bytes = packed(b"one ", compression);
            bytes.extend(packed(b"", compression));
            bytes.extend(packed(b"two", compression));
            assert_eq!(unpacked(bytes.clone()).unwrap(), b"one two", "{compression:?}");
            bytes.extend([0; 512]);
            assert_eq!(unpacked(bytes).unwrap(), b"one two", "{compression:?} with padding");
        }
    }

    #[test]
    fn garbage_behind_the_stream_is_an_error() {
        for compression in PACKED {
            for garbage in [&b"x"[..], b"\0x", b"\x1f", b"\x1f\x8b", b"BZh", b"\xfd7", b"\x28\xb5"] {
                let mut bytes = packed(b"content", compression);
                bytes.extend_from_slice(garbage);
                let error = unpacked(bytes).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData, "{compression:?} {error:?}");
            }
        }
    }

    #[test]
    fn a_cut_or_damaged_stream_is_an_error() {
        let content: Vec<u8> = (0..20_000u32).flat_map(|number| (number * number).to_le_bytes()).collect();
        for compression in PACKED {
            let bytes = packed(&content, compression);
            for cut in [11, 100, bytes.len() / 2, bytes.len() - 1] {
                let error = unpacked(bytes.get(..cut).unwrap().to_vec()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData, "{compression:?} at {cut}: {error:?}");
            }
            let mut damaged = bytes.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            // zstd has no checksum unless asked for; all others must notice.
            if compression != Compression::Zstd {
                assert_eq!(unpacked(damaged).unwrap_err().kind(), ErrorKind::InvalidData, "{compression:?}");
            }
        }
    }

    #[test]
    fn an_error_of_the_source_keeps_its_errno() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::ECONNRESET))
            }
        }
        for compression in PACKED {
            let bytes = packed(b"some content", compression);
            let start = io::Cursor::new(bytes.get(..bytes.len() / 2).unwrap().to_vec());
            let mut content = Vec::new();
            let error = decompressed(Box::new(start.chain(Broken)))
                .unwrap()
                .read_to_end(&mut content)
                .during(|| "unpack")
                .unwrap_err();
            assert_eq!(error.errno(), libc::ECONNRESET, "{compression:?}");
        }
    }
}
