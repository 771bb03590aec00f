// SPDX-License-Identifier: MulanPSL-2.0
//! The exact tar of a layer from its tree and its tar-split stream.
//!
//! Content that a later entry replaced stands in the stream behind the place where it is needed. So the stream is
//! looked through for it first, and such content laid in a temporary file without a name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, Mode, OFlags};

use crate::archive::content::{self, BUFFER};
use crate::archive::crc::Crc64;
use crate::archive::files::Files;
use crate::archive::pax::show;
use crate::archive::tar_split::{Line, Lines, Record};
use crate::digest::{Digest, Digester};
use crate::error::{During, Error, Result};
use crate::units::Bytes;

/// See [`crate::archive::rebuild`].
pub(super) fn rebuild(
    tar_split: &mut dyn Read,
    layer: BorrowedFd<'_>,
    out: &mut dyn Write,
) -> Result<(Digest, Bytes)> {
    let mut stream = spool(layer)?;
    io::copy(tar_split, &mut stream).during(|| "copy the tar-split stream")?;
    stream.rewind().during(|| "rewind the tar-split stream")?;
    let replaced = Replaced::collect(&mut stream, layer)?;
    stream.rewind().during(|| "rewind the tar-split stream")?;

    let mut files = Files::open(layer)?;
    let mut out = Hashed { out, digester: Digester::new(), count: 0 };
    let mut buffer = vec![0; BUFFER].into_boxed_slice();
    let mut headers = false;
    let mut lines = Lines::new(&mut stream)?;
    while let Some(line) = lines.next()? {
        match line {
            Line::Segment(bytes) => {
                headers = true;
                out.write(&bytes)?;
            }
            Line::Entry(record) if record.size != 0 => {
                if !headers {
                    return Err(Error::corrupt(
                        "tar-split holds checksums only, so the tar cannot be rebuilt from it",
                    ));
                }
                copy(&record, &mut files, &replaced, &mut buffer, &mut out)
                    .during(|| format!("rebuild {}", show(&record.name)))?;
            }
            Line::Entry(_) | Line::Replaced { .. } | Line::Content(_) | Line::Other => {}
        }
    }
    out.out.flush().during(|| "write the tar")?;
    Ok((out.digester.finish(), Bytes(out.count)))
}

struct Hashed<'a> {
    out: &'a mut dyn Write,
    digester: Digester,
    count: u64,
}

impl Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).during(|| "write the tar")?;
        self.digester.update(bytes);
        self.count += bytes.len() as u64;
        Ok(())
    }
}

/// A file without a name: on the layer's file system, or in memory where that cannot be written to.
fn spool(layer: BorrowedFd<'_>) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::openat(layer, ".", flags, Mode::RUSR | Mode::WUSR) {
        return Ok(File::from(fd));
    }
    let fd = rustix::fs::memfd_create("tar-split", MemfdFlags::CLOEXEC).during(|| "make a temporary file")?;
    Ok(File::from(fd))
}

/// Content of files that were replaced, one behind the other in a file of its own, found by size and CRC.
#[derive(Default)]
struct Replaced {
    spool: Option<File>,
    starts: HashMap<(u64, [u8; 8]), u64>,
}

impl Replaced {
    fn collect(stream: &mut File, layer: BorrowedFd<'_>) -> Result<Self> {
        let mut replaced = Replaced::default();
        let mut end = 0u64;
        let mut lines = Lines::new(stream)?;
        while let Some(line) = lines.next_of_types(b"34")? {
            let Line::Replaced { size, crc, map } = line else { continue };
            if replaced.spool.is_none() {
                replaced.spool = Some(spool(layer)?);
            }
            let known = replaced.starts.contains_key(&(size, crc));
            let Some(spool) = &replaced.spool else { continue };
            let short = || Error::corrupt("tar-split holds less of a replaced file than it says");
            let mut piece = Vec::new();
            for (offset, length) in map {
                let mut at = offset;
                let stop = offset.saturating_add(length);
                while at < stop {
                    if piece.is_empty() {
                        let Some(Line::Content(bytes)) = lines.next()? else { return Err(short()) };
                        if bytes.is_empty() {
                            return Err(short());
                        }
                        piece = bytes;
                    }
                    let most = usize::try_from(stop - at).unwrap_or(usize::MAX).min(piece.len());
                    if !known {
                        let bytes = piece.get(..most).unwrap_or_default();
                        spool
                            .write_all_at(bytes, end.saturating_add(at))
                            .during(|| "lay replaced content aside")?;
                    }
                    piece.drain(..most);
                    at += most as u64;
                }
            }
            if !known {
                replaced.starts.insert((size, crc), end);
                end = end.saturating_add(size);
                spool.set_len(end).during(|| "lay replaced content aside")?;
            }
        }
        Ok(replaced)
    }

    /// Where the content of an entry starts, if it was replaced.
    fn find(&self, record: &Record) -> Option<(&File, u64)> {
        let start = self.starts.get(&(record.size, record.crc?))?;
        Some((self.spool.as_ref()?, *start))
    }
}

fn copy(
    record: &Record,
    files: &mut Files,
    replaced: &Replaced,
    buffer: &mut [u8],
    out: &mut Hashed<'_>,
) -> Result<()> {
    let opened;
    let (file, start) = match replaced.find(record) {
        Some(found) => found,
        None => {
            let (file, size) = files.file(record)?;
            if size != record.size {
                let what = format!("the file has {size} bytes, the layer had {}", record.size);
                return Err(Error::corrupt(what));
            }
            opened = file;
            (&opened, 0)
        }
    };
    let whole = [(0, record.size)];
    let map = record.sparse.as_deref().unwrap_or(&whole);
    let mut crc = Crc64::new();
    content::for_each_piece(file, start, record.size, map, buffer, &mut crc, |piece| out.write(piece))?;
    match record.crc {
        Some(sum) if sum != crc.finish() => Err(Error::corrupt("the file's content has changed")),
        _ => Ok(()),
    }
}
