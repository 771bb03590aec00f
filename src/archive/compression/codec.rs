// SPDX-License-Identifier: MulanPSL-2.0
//! The decoders of zstd, bzip2 and xz over a source: each gives one frame, member or stream, and is then made ready for the
//! next one, with the memory it has where the format's library allows that.

use std::io::{self, BufRead};

use bzip2::Decompress;
use liblzma::stream::{Action, Status, Stream};
use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::window::{FREE, Frame, Lease, MOST, ZSTD_HEADER, too_large, zstd_frame};

/// Reads one member after the other.
pub(super) trait Codec {
    /// Fills a part of `buffer`, which is not empty; 0 at the end of the member.
    fn read(&mut self, source: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize>;
    /// Makes ready for the next member.
    fn restart(&mut self) -> io::Result<()>;
}

/// What a call of a decoder did.
struct Step {
    taken: usize,
    given: usize,
    ended: bool,
}

/// Calls a decoder until it has given something, or has ended.
fn drive(
    source: &mut dyn BufRead,
    ended: &mut bool,
    mut step: impl FnMut(&[u8]) -> io::Result<Step>,
) -> io::Result<usize> {
    while !*ended {
        let bytes = source.fill_buf()?;
        let none_left = bytes.is_empty();
        let step = step(bytes)?;
        source.consume(step.taken);
        *ended = step.ended;
        if step.given > 0 {
            return Ok(step.given);
        }
        if none_left && !step.ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(0)
}

/// zstd, with the window looked up before there is memory for it.
pub(super) struct Zstd {
    decoder: Decoder<'static>,
    /// The frame's header, until the decoder has it.
    head: Vec<u8>,
    begun: bool,
    ended: bool,
    lease: Lease,
}

impl Zstd {
    pub(super) fn new() -> io::Result<Self> {
        let (decoder, head) = (zstd_decoder()?, Vec::with_capacity(ZSTD_HEADER));
        Ok(Zstd { decoder, head, begun: false, ended: false, lease: Lease::new() })
    }

    fn begin(&mut self, source: &mut dyn BufRead) -> io::Result<()> {
        let window = loop {
            let needs = match zstd_frame(&self.head)? {
                Frame::Window(bytes) => break bytes,
                Frame::Needs(len) => len.saturating_sub(self.head.len()),
            };
            let bytes = source.fill_buf()?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = bytes.len().min(needs);
            self.head.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            source.consume(taken);
        };
        // In powers of two, so that frames that need more and more do not make a decoder each.
        let window = window.checked_next_power_of_two().unwrap_or(window);
        if !self.lease.covers(window) {
            self.decoder = zstd_decoder()?;
            self.lease.release();
            self.lease.grow(window);
        }
        // It takes all of a header and wants more, for what it is about is still to come.
        let mut at = 0;
        while let Some(rest) = self.head.get(at..).filter(|rest| !rest.is_empty()) {
            let status = self.decoder.run_on_buffers(rest, &mut [])?;
            at += status.bytes_read;
            self.ended = status.remaining == 0;
            if self.ended || status.bytes_read == 0 {
                break;
            }
        }
        if at < self.head.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.begun = true;
        Ok(())
    }
}

fn zstd_decoder() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(MOST.ilog2()))?;
    Ok(decoder)
}

impl Codec for Zstd {
    fn read(&mut self, source: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            self.begin(source)?;
        }
        let Zstd { decoder, ended, .. } = self;
        drive(source, ended, |bytes| {
            let status = decoder.run_on_buffers(bytes, buffer)?;
            let (taken, given) = (status.bytes_read, status.bytes_written);
            Ok(Step { taken, given, ended: status.remaining == 0 })
        })
    }

    fn restart(&mut self) -> io::Result<()> {
        self.head.clear();
        self.begun = false;
        self.ended = false;
        self.decoder.reinit()
    }
}

/// bzip2, whose decoder needs less than 4 MiB. It cannot be used twice.
pub(super) struct Bzip2 {
    decoder: Decompress,
    ended: bool,
}

impl Bzip2 {
    pub(super) fn new() -> Self {
        Bzip2 { decoder: Decompress::new(false), ended: false }
    }
}

impl Codec for Bzip2 {
    fn read(&mut self, source: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        let Bzip2 { decoder, ended } = self;
        drive(source, ended, |bytes| {
            let (taken, given) = (decoder.total_in(), decoder.total_out());
            let status = decoder.decompress(bytes, buffer)?;
            let ended = match status {
                bzip2::Status::StreamEnd => true,
                bzip2::Status::MemNeeded => return Err(io::ErrorKind::OutOfMemory.into()),
                _ => false,
            };
            Ok(Step {
                taken: grown(taken, decoder.total_in()),
                given: grown(given, decoder.total_out()),
                ended,
            })
        })
    }

    fn restart(&mut self) -> io::Result<()> {
        *self = Bzip2::new();
        Ok(())
    }
}

/// xz. The decoder has no more memory than it was allowed; when a block needs more it says so, and goes on.
pub(super) struct Xz {
    decoder: Stream,
    ended: bool,
    lease: Lease,
}

/// What the decoder needs besides the dictionary: less than this.
const XZ_BESIDES: u64 = 1 << 20;

impl Xz {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Xz { decoder: xz_decoder()?, ended: false, lease: Lease::new() })
    }
}

fn xz_decoder() -> io::Result<Stream> {
    Ok(Stream::new_stream_decoder(FREE + XZ_BESIDES, 0)?)
}

/// Allows the decoder the dictionary that it needs.
fn allow(decoder: &mut Stream, lease: &mut Lease) -> io::Result<()> {
    // What the format can say beyond a mebibyte: powers of two, and one and a half times these.
    let sizes = (20..32).flat_map(|log| [1u64 << log, 3 << (log - 1)]).chain([1 << 32]);
    for dictionary in sizes {
        if dictionary > MOST {
            // Only to be able to tell.
            if decoder.set_memlimit(dictionary + XZ_BESIDES).is_ok() {
                return Err(too_large("the xz stream needs a dictionary", dictionary).into());
            }
        } else if decoder.set_memlimit(dictionary + XZ_BESIDES).is_ok() {
            lease.grow(dictionary);
            return Ok(());
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

impl Codec for Xz {
    fn read(&mut self, source: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        let Xz { decoder, ended, lease } = self;
        drive(source, ended, |bytes| {
            let (taken, given) = (decoder.total_in(), decoder.total_out());
            let step = |decoder: &Stream, ended| Step {
                taken: grown(taken, decoder.total_in()),
                given: grown(given, decoder.total_out()),
                ended,
            };
            match decoder.process(bytes, buffer, Action::Run) {
                Ok(status) => Ok(step(decoder, status == Status::StreamEnd)),
                Err(liblzma::stream::Error::MemLimit) => {
                    let done = step(decoder, false);
                    allow(decoder, lease)?;
                    Ok(done)
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    fn restart(&mut self) -> io::Result<()> {
        self.decoder = xz_decoder()?;
        self.ended = false;
        // What is held is kept: the next stream of the same archive will want as much.
        Ok(())
    }
}

/// What a counter has grown by, which is at most a buffer's length.
fn grown(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}
