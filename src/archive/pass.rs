// SPDX-License-Identifier: MulanPSL-2.0
//! The one forward pass over a layer's tar: parse, write the tree, say what tar-split keeps.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use crate::archive::ApplyOptions;
use crate::archive::crc::Crc64;
use crate::archive::entry::{Entry, Input, Kind, Reader};
use crate::archive::pax::show;
use crate::archive::sparse::Region;
use crate::archive::tar_split::{self, Content, Outlet};
use crate::archive::tree;
use crate::archive::unpack::{Modes, Unpacker};
use crate::archive::whiteout::{self, Meaning, clean};
use crate::error::{During, Error, ErrorKind, Result};

/// What the entries were.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) entries: u64,
    /// Sum of the entries' sizes.
    pub(super) content_size: u64,
}

/// Unpacks the tar that `input` gives, to its end, below `target`; lines of tar-split go to `out`, which is given back.
pub(super) fn unpack<I: Input, O: Outlet>(
    input: I,
    out: O,
    target: BorrowedFd<'_>,
    options: &ApplyOptions,
    modes: Modes,
) -> Result<(Found, O)> {
    let limits = &options.limits;
    let mut pass = Pass {
        reader: Reader::new(input, limits),
        split: tar_split::Writer::new(out),
        unpacker: Unpacker::new(target, options, modes)?,
        options,
        path: Vec::new(),
    };
    let mut entry = Entry::default();
    let mut found = Found { entries: 0, content_size: 0 };
    while pass.reader.next(&mut entry)? {
        found.entries += 1;
        if found.entries > limits.entries {
            let what = format!("the layer has more than {} entries", limits.entries);
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        found.content_size = found.content_size.saturating_add(entry.size);
        pass.entry(&entry).during(|| format!("unpack {}", show(&entry.name)))?;
    }
    pass.end()?;
    let Pass { split, unpacker, .. } = pass;
    unpacker.finish()?;
    Ok((found, split.finish()?))
}

struct Pass<'a, I: Input, O: Outlet> {
    reader: Reader<I>,
    split: tar_split::Writer<O>,
    unpacker: Unpacker<'a>,
    options: &'a ApplyOptions,
    path: Vec<u8>,
}

impl<I: Input, O: Outlet> Pass<'_, I, O> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.headers()?;
        let invalid = |what| Error::new(ErrorKind::InvalidData, what);
        clean(&entry.name, &mut self.path).map_err(invalid)?;
        match whiteout::meaning(&self.path, self.options.whiteouts).map_err(invalid)? {
            Meaning::Root => {
                self.unpacker.root(entry)?;
                self.without_file(entry, None)
            }
            Meaning::Entry { parent, name } => {
                let dir = self.unpacker.dir(parent)?;
                // A link on the way leads elsewhere now, and may lead to a third place when the tar is rebuilt.
                let place = (dir.path() != parent).then(|| tree::join(dir.path(), name));
                if entry.kind != Kind::File {
                    self.unpacker.make_entry(&dir, name, entry, &mut self.split)?;
                    return self.without_file(entry, place.as_deref());
                }
                let file = self.unpacker.start_file(&dir, name, entry, &mut self.split)?;
                let crc = copy_content(&mut self.reader, entry, file.file())?;
                self.unpacker.finish_file(&file, entry)?;
                let content = Content { size: entry.size, crc, sparse: entry.sparse.as_deref() };
                let content = (entry.size != 0).then_some(&content);
                self.split.entry(&telling_name(entry), place.as_deref(), content)
            }
            Meaning::Hidden { parent, name } => {
                self.unpacker.hide(parent, name, entry)?;
                self.without_file(entry, None)
            }
            Meaning::Opaque { parent } => {
                self.unpacker.hide_all(parent)?;
                self.without_file(entry, None)
            }
            Meaning::Skipped => self.without_file(entry, None),
        }
    }

    /// An entry that leaves no content in the tree; what it has nevertheless goes to tar-split.
    fn without_file(&mut self, entry: &Entry, place: Option<&[u8]>) -> Result<()> {
        self.split.entry(&telling_name(entry), place, None)?;
        loop {
            let bytes = self.reader.content()?;
            let count = bytes.len();
            if count == 0 {
                return Ok(());
            }
            self.split.segment(bytes)?;
            self.reader.consume(count);
        }
    }

    fn headers(&mut self) -> Result<()> {
        self.split.segment(self.reader.raw())?;
        self.reader.clear_raw();
        Ok(())
    }

    /// Everything behind the last entry: the end of the archive, and what follows it. That is not looked at, as in
    /// Docker, but it belongs to the digest and to the exact tar.
    fn end(&mut self) -> Result<()> {
        self.headers()?;
        loop {
            let bytes = self.reader.rest()?;
            let count = bytes.len();
            if count == 0 {
                return Ok(());
            }
            self.split.segment(bytes)?;
            self.reader.consume(count);
        }
    }
}

/// The name of an entry with a slash at its end if and only if it is a directory, as nearly all have it; the root stays as it is.
fn telling_name(entry: &Entry) -> Cow<'_, [u8]> {
    let mut name = entry.name.as_slice();
    // The root of the layer, whichever way it is spelt, can be nothing else.
    if name.split(|byte| *byte == b'/').all(|component| matches!(component, b"" | b".")) {
        return Cow::Borrowed(name);
    }
    match (entry.kind == Kind::Directory, name.ends_with(b"/")) {
        (true, false) => Cow::Owned([name, b"/"].concat()),
        (false, true) => {
            while let Some(shorter) = name.strip_suffix(b"/") {
                name = shorter;
            }
            Cow::Borrowed(name)
        }
        _ => Cow::Borrowed(name),
    }
}

/// Writes an entry's content to its file; gives the CRC of the file.
fn copy_content<I: Input>(reader: &mut Reader<I>, entry: &Entry, file: &std::fs::File) -> Result<[u8; 8]> {
    let mut crc = Crc64::new();
    match &entry.sparse {
        None => copy_region(reader, (0, entry.size), file, &mut crc)?,
        Some(map) => {
            let mut end = 0;
            for (offset, length) in map {
                crc.update_zeros(offset - end);
                copy_region(reader, (*offset, *length), file, &mut crc)?;
                end = offset + length;
            }
            crc.update_zeros(entry.size - end);
            file.set_len(entry.size).during(|| format!("make a file of {} bytes", entry.size))?;
        }
    }
    Ok(crc.finish())
}

fn copy_region<I: Input>(
    reader: &mut Reader<I>,
    (offset, length): Region,
    file: &std::fs::File,
    crc: &mut Crc64,
) -> Result<()> {
    let mut at = offset;
    let mut rest = length;
    while rest != 0 {
        let bytes = reader.content()?;
        let most = usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..most).unwrap_or_default();
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "the content is shorter than its map"));
        }
        file.write_all_at(bytes, at).during(|| "write")?;
        crc.update(bytes);
        reader.consume(most);
        at += most as u64;
        rest -= most as u64;
    }
    Ok(())
}
