// SPDX-License-Identifier: MulanPSL-2.0
//! The archive of a comparison.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;

use rustix::fs::{FileType, Stat, major, minor};

use crate::archive::OwnerShift;
use crate::archive::content::{self, BUFFER};
use crate::archive::crc::Crc64;
use crate::archive::diff::Diffed;
use crate::archive::diff::node::{Pinned, Xattr, changed};
use crate::archive::diff::tar::{self, Header};
use crate::archive::diff::walk::{Found, Sink};
use crate::archive::header::BLOCK;
use crate::archive::pax::{Time, show};
use crate::archive::sparse::Region;
use crate::archive::whiteout::split;
use crate::archive::{acl, capability};
use crate::digest::Digester;
use crate::error::{During, Error, ErrorKind, Result};
use crate::units::Bytes;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const ROOT: &[u8] = b"./";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
/// Bytes of holes that make a file worth being stored as a sparse one, which not every reader knows.
const WORTH_A_MAP: u64 = 64 << 10;
const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Device and number.
type Inode = (u64, u64);
/// The path, and how many names are still to come.
type FirstName = (Box<[u8]>, u64);

/// Writes entries.
pub(super) struct Entries<'a> {
    out: &'a mut dyn Write,
    shift: Option<OwnerShift>,
    digester: Digester,
    written: u64,
    content: u64,
    entries: u64,
    skipped: u64,
    /// The first name of an inode that has several, for as long as more are expected.
    links: HashMap<Inode, FirstName>,
    buffer: Box<[u8]>,
    name: Vec<u8>,
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

impl<'a> Entries<'a> {
    pub(super) fn new(out: &'a mut dyn Write, shift: Option<OwnerShift>) -> Self {
        Entries {
            out,
            shift,
            digester: Digester::new(),
            written: 0,
            content: 0,
            entries: 0,
            skipped: 0,
            links: HashMap::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            name: Vec::new(),
        }
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<Diffed> {
        self.write(&ZEROS)?;
        self.out.flush().during(|| "write the archive")?;
        Ok(Diffed {
            diff_id: self.digester.finish(),
            tar_size: Bytes(self.written),
            content_size: Bytes(self.content),
            entries: self.entries,
            skipped: self.skipped,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        write(self.out, &mut self.digester, &mut self.written, bytes)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<()> {
        self.entries += 1;
        self.write(&header.blocks())
    }

    /// Owner, mode and time.
    fn described(&self, stat: &Stat) -> Result<Header<'static>> {
        let (uid, gid) = match self.shift {
            None => (Some(stat.st_uid), Some(stat.st_gid)),
            Some(shift) => (stat.st_uid.checked_sub(shift.uid), stat.st_gid.checked_sub(shift.gid)),
        };
        let outside = |what: &str, id: u32| invalid(format!("{what} {id} is not of the user namespace"));
        Ok(Header {
            mode: stat.st_mode & 0o7777,
            uid: uid.ok_or_else(|| outside("user", stat.st_uid))?.into(),
            gid: gid.ok_or_else(|| outside("group", stat.st_gid))?.into(),
            mtime: Time {
                seconds: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            },
            ..Header::default()
        })
    }

    /// A whiteout. One that the kernel made for a user namespace belongs to somebody outside of it: to its root then.
    fn mark(&mut self, directory: &[u8], name: &[&[u8]], stat: Option<&Stat>) -> Result<()> {
        let mut path = directory.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        name.iter().for_each(|part| path.extend_from_slice(part));
        let (uid, gid) = match stat.and_then(|stat| self.described(stat).ok()) {
            Some(Header { uid, gid, .. }) => (uid, gid),
            None => (0, 0),
        };
        self.header(&Header { kind: tar::FILE, name: &path, uid, gid, ..Header::default() })
    }

    fn records(&self, xattrs: &[Xattr], path: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut records = Vec::with_capacity(xattrs.len());
        for Xattr { name, value } in xattrs {
            let mut value = value.clone();
            let is_list = name == ACL_ACCESS || name == ACL_DEFAULT;
            if let Some(shift) = self.shift {
                if is_list {
                    value = acl::unshifted(&value, shift).ok_or_else(|| {
                        invalid(format!(
                            "attribute {} names somebody outside of the user namespace",
                            show(name)
                        ))
                    })?;
                } else if name == CAPABILITY {
                    let Some(of_image) = capability::of_image(&value, shift.uid) else {
                        let name = show(name);
                        log::warn!(
                            "{}: {name} is without effect in the user namespace: left out",
                            show(path)
                        );
                        continue;
                    };
                    value = of_image;
                }
            }
            if is_list && let Some(text) = acl::to_text(&value) {
                let keyword =
                    if name == ACL_ACCESS { &b"SCHILY.acl.access"[..] } else { b"SCHILY.acl.default" };
                records.push((keyword.to_vec(), text.into_bytes()));
            }
            records.push(tar::xattr_record(name, &value));
        }
        Ok(records)
    }

    /// The first name of an inode that has several; `None` for the first.
    fn linked(&mut self, path: &[u8], stat: &Stat) -> Option<Box<[u8]>> {
        let names = stat.st_nlink;
        if names <= 1 {
            return None;
        }
        match self.links.entry((stat.st_dev, stat.st_ino)) {
            Entry::Vacant(place) => {
                place.insert((path.into(), names - 1));
                None
            }
            Entry::Occupied(mut place) => {
                let (first, left) = place.get_mut();
                *left = left.saturating_sub(1);
                Some(if *left == 0 { place.remove().0 } else { first.clone() })
            }
        }
    }

    fn file<'h>(&mut self, path: &'h [u8], node: &Pinned, mut header: Header<'h>) -> Result<()> {
        let size = node.size();
        let file = node.content()?;
        let whole = [(0, size)];
        let regions = worth_a_map(node.stat(), size)
            .then(|| content::data_regions(&file, size))
            .transpose()?
            .filter(|map| size - stored(map) >= WORTH_A_MAP);
        let map = regions.as_deref().map(|map| tar::sparse_map(map, size));
        header.name = path;
        header.kind = tar::FILE;
        header.sparse = map.is_some().then_some(size);
        let regions: &[Region] = if size == 0 { &[] } else { regions.as_deref().unwrap_or(&whole) };
        header.size = stored(regions) + map.as_ref().map_or(0, |map| map.len() as u64);
        self.header(&header)?;
        if let Some(map) = map {
            self.write(&map)?;
        }
        let Entries { out, digester, written, buffer, .. } = self;
        // The checksum is nobody's: the regions are read as elsewhere.
        let read = content::for_each_piece(&file, 0, 0, regions, buffer, &mut Crc64::new(), |piece| {
            write(*out, digester, written, piece)
        });
        read.map_err(|error| match error.kind() {
            ErrorKind::InvalidData => changed(),
            _ => error,
        })?;
        node.check_unchanged(&file)?;
        self.content = self.content.saturating_add(size);
        let padding = header.size.next_multiple_of(BLOCK as u64) - header.size;
        let padding = usize::try_from(padding).unwrap_or_default();
        self.write(ZEROS.get(..padding).unwrap_or_default())
    }
}

impl Sink for Entries<'_> {
    fn is_archive(&self) -> bool {
        true
    }

    fn found(&mut self, found: &Found<'_>) -> Result<()> {
        let Found { path, stat, node, .. } = found;
        if split(path).1.starts_with(WHITEOUT) {
            return Err(invalid("in an archive a name that begins with .wh. would be a whiteout"));
        }
        let mut header = self.described(stat)?;
        header.records = self.records(found.xattrs, path)?;
        let Some(node) = node else {
            let mut name = std::mem::take(&mut self.name);
            name.clear();
            name.extend_from_slice(path);
            name.push(b'/');
            header.name = if path.is_empty() { ROOT } else { &name };
            header.kind = tar::DIRECTORY;
            let written = self.header(&header);
            self.name = name;
            return written;
        };
        if let Some(first) = self.linked(path, stat) {
            return self.header(&Header {
                kind: tar::HARD_LINK,
                name: path,
                link: &first,
                records: Vec::new(),
                ..header
            });
        }
        let target;
        header.name = path;
        match node.kind() {
            FileType::RegularFile => return self.file(path, node, header),
            FileType::Symlink => {
                target = node.target()?;
                header.link = &target;
                header.kind = tar::SYMLINK;
                header.mode = 0o777;
            }
            FileType::CharacterDevice => header.kind = tar::CHAR_DEVICE,
            FileType::BlockDevice => header.kind = tar::BLOCK_DEVICE,
            FileType::Fifo => header.kind = tar::FIFO,
            kind => return Err(invalid(format!("no archive can hold a file of type {kind:?}"))),
        }
        if matches!(node.kind(), FileType::CharacterDevice | FileType::BlockDevice) {
            header.device = (major(stat.st_rdev).into(), minor(stat.st_rdev).into());
        }
        self.header(&header)
    }

    fn hidden(&mut self, path: &[u8], stat: Option<&Stat>) -> Result<()> {
        let (directory, name) = split(path);
        if name.starts_with(WHITEOUT) {
            return Err(invalid("an archive cannot hide a name that begins with .wh."));
        }
        self.mark(directory, &[WHITEOUT, name], stat)
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        self.mark(path, &[OPAQUE], None)
    }

    fn skipped(&mut self, path: &[u8]) {
        self.skipped += 1;
        log::warn!("{}: no archive can hold a socket or a device 0/0: left out", show(path));
    }
}

fn write(out: &mut dyn Write, digester: &mut Digester, written: &mut u64, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).during(|| "write the archive")?;
    digester.update(bytes);
    *written += bytes.len() as u64;
    Ok(())
}

/// Whether a file has fewer blocks than its size asks for.
fn worth_a_map(stat: &Stat, size: u64) -> bool {
    let allocated = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512);
    size.saturating_sub(allocated) >= WORTH_A_MAP
}

fn stored(map: &[Region]) -> u64 {
    map.iter().map(|(_, length)| length).sum()
}
