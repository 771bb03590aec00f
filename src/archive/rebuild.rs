// SPDX-License-Identifier: MulanPSL-2.0
//! The exact tar of a layer from its tree and its tar-split stream.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::archive::crc::Crc64;
use crate::archive::pax::show;
use crate::archive::tar_split::{Line, Lines, Record};
use crate::archive::tree::{Missing, Node, Tree};
use crate::archive::whiteout::{clean, split};
use crate::digest::{Digest, Digester};
use crate::error::{During, Error, ErrorKind, Result};
use crate::units::Bytes;

const BUFFER: usize = 256 << 10;

/// See [`crate::archive::rebuild`].
pub(super) fn rebuild(
    tar_split: &mut dyn Read,
    layer: BorrowedFd<'_>,
    out: &mut dyn Write,
) -> Result<(Digest, Bytes)> {
    let mut lines = Lines::new(tar_split)?;
    let mut files = Files::open(layer)?;
    let mut out = Hashed { out, digester: Digester::new(), count: 0 };
    let mut buffer = vec![0; BUFFER].into_boxed_slice();
    let mut headers = false;
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
                copy(&record, &mut files, &mut buffer, &mut out)
                    .during(|| format!("rebuild {}", show(&record.name)))?;
            }
            Line::Entry(_) | Line::Other => {}
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

fn copy(record: &Record, files: &mut Files, buffer: &mut [u8], out: &mut Hashed<'_>) -> Result<()> {
    let (file, size) = files.file(&record.name)?;
    if size != record.size {
        return Err(Error::corrupt(format!("the file has {size} bytes, the layer had {}", record.size)));
    }
    let whole = [(0, record.size)];
    let mut crc = Crc64::new();
    let mut end = 0;
    for (offset, length) in record.sparse.as_deref().unwrap_or(&whole) {
        crc.update_zeros(offset - end);
        end = offset + length;
        let mut at = *offset;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let space = buffer.get_mut(..most).unwrap_or_default();
            file.read_exact_at(space, at).during(|| "read")?;
            crc.update(space);
            out.write(space)?;
            at += most as u64;
        }
    }
    crc.update_zeros(record.size - end);
    match record.crc {
        Some(sum) if sum != crc.finish() => Err(Error::corrupt("the file's content has changed")),
        _ => Ok(()),
    }
}

/// Files of a layer by the names of their entries.
pub(super) struct Files {
    tree: Tree,
    path: Vec<u8>,
}

impl Files {
    pub(super) fn open(layer: BorrowedFd<'_>) -> Result<Self> {
        Ok(Files { tree: Tree::open(layer, Missing::Fail)?, path: Vec::new() })
    }

    /// Finds the directory of an entry; `Corrupt` when it is not there. Its last component is left in `path`.
    fn parent(&mut self, name: &[u8]) -> Result<Rc<Node>> {
        clean(name, &mut self.path).map_err(Error::corrupt)?;
        self.tree.dir(split(&self.path).0).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::InvalidData => Error::corrupt("it is missing"),
            _ => error,
        })
    }

    /// Whether an entry is there, as a directory if that is what it has to be. `Corrupt` when not.
    pub(super) fn exists(&mut self, name: &[u8], directory: bool) -> Result<()> {
        let dir = self.parent(name)?;
        match rustix::fs::statat(&dir, split(&self.path).1, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if directory && FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
                Err(Error::corrupt("it is not a directory"))
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Err(Error::corrupt("it is missing")),
            Err(errno) => Err(errno).during(|| "stat"),
        }
    }

    /// The regular file of an entry and its size. `Corrupt` when there is none.
    pub(super) fn file(&mut self, name: &[u8]) -> Result<(File, u64)> {
        const READ: OFlags = OFlags::RDONLY
            .union(OFlags::NOFOLLOW)
            .union(OFlags::NONBLOCK)
            .union(OFlags::NOCTTY)
            .union(OFlags::CLOEXEC);
        let dir = self.parent(name)?;
        let fd = match rustix::fs::openat(&dir, split(&self.path).1, READ, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(Error::corrupt("it is missing")),
            Err(Errno::LOOP | Errno::NXIO) => return Err(Error::corrupt("it is not a regular file")),
            Err(errno) => return Err(errno).during(|| "open"),
        };
        let stat = rustix::fs::fstat(&fd).during(|| "stat")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::corrupt("it is not a regular file"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Ok((File::from(fd), size))
    }
}
