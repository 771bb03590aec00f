// SPDX-License-Identifier: MulanPSL-2.0
//! Comparison of a layer's tree with its tar-split stream.
//!
//! Where a stream leaves open whether the tree is as it was made, nothing is said: who asks puts whole images aside.
//!
//! * The reference leaves the holes of a sparse file out of its CRC, so a file with holes cannot be judged by a stream of
//!   the reference (one without type 2 lines); then only its size counts.
//! * The reference loses whiteouts whose directory is not there yet, and those at the top that are not spelt `./.wh.`. So
//!   a missing whiteout counts by a stream of the reference only where it was certainly made.
//! * A whiteout or the target of a hard link that is reached by a symbolic link may have been elsewhere at that time.
//! * A tree with a stream that holds headers was made by this library, or compared with that stream.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use crate::archive::content::{self, BUFFER};
use crate::archive::crc::Crc64;
use crate::archive::differences::{Differences, Seen};
use crate::archive::entry::{Entry, Kind};
use crate::archive::files::Files;
use crate::archive::headers::Headers;
use crate::archive::metadata;
use crate::archive::pax::show;
use crate::archive::tar_split::{Line, Lines, Record};
use crate::archive::tree;
use crate::archive::whiteout::{Meaning, clean, meaning, split};
use crate::archive::{Depth, Verdict, VerifyOptions, Whiteouts};
use crate::error::{Error, ErrorKind, Result};

/// See [`crate::archive::verify`].
pub(super) fn verify(
    tar_split: &mut dyn Read,
    layer: BorrowedFd<'_>,
    options: &VerifyOptions,
) -> Result<Verdict> {
    let mut lines = Lines::new(tar_split)?;
    let mut files = Files::open(layer)?;
    let root = files.stat(b"")?;
    let mut headers = Headers::new();
    let mut check = Check {
        files,
        buffer: vec![0; BUFFER].into_boxed_slice(),
        options,
        owners: root.is_some_and(|(_, root)| metadata::has_owners(&root, options.owner_shift)),
        differences: Differences::default(),
        seen: Seen::default(),
        links: Seen::default(),
        tangled: false,
        full: false,
        order: 0,
    };
    while let Some(line) = lines.next()? {
        match line {
            Line::Segment(bytes) => {
                check.full = true;
                headers.segment(&bytes);
            }
            Line::Entry(record) => {
                // Without segments there is nothing to read.
                let header = if check.full { headers.entry(&record) } else { None };
                check.entry(&record, header)?;
            }
            Line::Replaced { .. } | Line::Content(_) | Line::Other => {}
        }
        if check.differences.are_too_many() {
            break;
        }
    }
    Ok(check.differences.first().map_or(Verdict::Valid, Verdict::Differs))
}

struct Check<'o> {
    files: Files,
    buffer: Box<[u8]>,
    options: &'o VerifyOptions,
    /// Whether owners are compared.
    owners: bool,
    differences: Differences,
    seen: Seen,
    /// What may have led elsewhere: symbolic links, and by a stream of the reference, which tells no kinds, all but
    /// directories.
    links: Seen,
    /// Whether a whiteout may have been elsewhere, so that nothing is said of whiteouts any more.
    tangled: bool,
    /// Whether the stream has type 2 lines, so that CRCs are those of whole files.
    full: bool,
    order: u64,
}

impl Check<'_> {
    fn entry(&mut self, record: &Record, header: Option<&Entry>) -> Result<()> {
        self.order += 1;
        let mut path = Vec::new();
        clean(record.path.as_ref().unwrap_or(&record.name), &mut path).map_err(Error::corrupt)?;
        let checking = |error: Error| error.context(format!("check {}", show(&record.name)));
        let meaning = match meaning(&path, self.options.whiteouts) {
            Ok(meaning) => meaning,
            // What makes a layer fail here makes nothing there.
            Err(_) => return Ok(()),
        };
        match meaning {
            Meaning::Skipped => Ok(()),
            Meaning::Hidden { .. } | Meaning::Opaque { .. } => {
                self.whiteout(&path, &meaning, record).map_err(checking)
            }
            Meaning::Root | Meaning::Entry { .. } => self.node(&path, record, header).map_err(checking),
        }
    }

    fn node(&mut self, path: &[u8], record: &Record, header: Option<&Entry>) -> Result<()> {
        let mut found = match (path, record.size) {
            (b"", _) => Ok(()),
            (_, 0) => self.files.exists(record),
            _ => self.content(record),
        };
        if let (Ok(()), Some(header)) = (&found, header) {
            found = self.compare(path, header);
        }
        let is_directory = record.name.ends_with(b"/") || path.is_empty();
        self.differences.replaced(path, is_directory);
        if !is_directory {
            self.differences.covered(path);
        }
        match found {
            Ok(()) => {
                self.differences.fits(path);
                if let Some(header) = header.filter(|header| header.kind == Kind::HardLink) {
                    self.hard_link(path, record, header)?;
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let what = format!("{}: {}", show(&record.name), error.report());
                match header {
                    // A whiteout spelt out, or perhaps a link to one: a later entry may be below it.
                    Some(
                        Entry { kind: Kind::CharDevice, device: (0, 0), .. }
                        | Entry { kind: Kind::HardLink, .. },
                    ) => {
                        if !self.tangled {
                            self.differences.add_depending(path, self.order, what, path, true);
                        }
                    }
                    _ => self.differences.add(path, self.order, what),
                }
            }
            Err(error) => return Err(error),
        }
        if self.options.whiteouts == Whiteouts::Overlay {
            self.seen.add(path);
            self.note_link(path, is_directory, header);
        }
        if !self.full {
            self.behind_a_link(path, is_directory)?;
        }
        Ok(())
    }

    fn note_link(&mut self, path: &[u8], is_directory: bool, header: Option<&Entry>) {
        let is_link = match header {
            None => !is_directory,
            Some(Entry { kind: Kind::Symlink, .. }) => true,
            Some(Entry { kind: Kind::HardLink, link, .. }) => {
                let mut target = Vec::new();
                clean(link, &mut target).is_err() || self.may_lead_elsewhere(&target)
            }
            Some(_) => false,
        };
        if is_link {
            self.links.add_alone(path);
        }
    }

    /// Whether a path is, or leads over, what was not a directory at some time.
    fn may_lead_elsewhere(&self, path: &[u8]) -> bool {
        let mut path = path;
        while !path.is_empty() {
            if self.links.has(path) != Some(false) {
                return true;
            }
            path = split(path).0;
        }
        false
    }

    /// Streams of the reference do not say where an entry is that a symbolic link on the way led elsewhere.
    fn behind_a_link(&mut self, path: &[u8], is_directory: bool) -> Result<()> {
        let (parent, name) = split(path);
        let dir = match self.files.dir(parent) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
            dir => dir?,
        };
        if dir.path() != parent {
            let place = tree::join(dir.path(), name);
            self.differences.replaced(&place, is_directory);
            self.seen.add(&place);
        }
        Ok(())
    }

    /// What is there with what its headers say; `Corrupt` for a difference.
    fn compare(&mut self, path: &[u8], header: &Entry) -> Result<()> {
        let Some((dir, stat)) = self.files.stat(path)? else {
            return Err(Error::corrupt("it is missing"));
        };
        let name = split(path).1;
        metadata::compare_kind(&dir, name, &stat, header)?;
        match self.options.depth {
            Depth::Content => Ok(()),
            Depth::Metadata => {
                metadata::compare_attributes(&dir, name, &stat, header, self.options, self.owners)
            }
        }
    }

    /// Whether a link is still to the same file.
    fn hard_link(&mut self, path: &[u8], record: &Record, header: &Entry) -> Result<()> {
        let mut target = Vec::new();
        if self.options.depth == Depth::Content || clean(&header.link, &mut target).is_err() {
            return Ok(());
        }
        let Some((_, link)) = self.files.stat(path)? else { return Ok(()) };
        let Some((dir, file)) = self.files.stat(&target)? else { return Ok(()) };
        if metadata::is_same(&link, &file) || dir.path() != split(&target).0 {
            return Ok(());
        }
        let what = format!("{}: it is no longer a hard link to {}", show(&record.name), show(&header.link));
        self.differences.add_depending(path, self.order, what, &target, true);
        Ok(())
    }

    /// Whether what an entry hides is still hidden; other drivers than overlays have no trace of it.
    fn whiteout(&mut self, path: &[u8], meaning: &Meaning<'_>, record: &Record) -> Result<()> {
        if self.options.whiteouts != Whiteouts::Overlay {
            return Ok(());
        }
        let parent = split(path).0;
        if self.tangled || self.may_lead_elsewhere(parent) {
            self.tangled = true;
            self.differences.forget_depending();
            return Ok(());
        }
        // It may have made its directory in place of a whiteout.
        self.differences.replaced(path, false);
        if self.full {
            self.seen.add(parent);
        }
        let made =
            self.full || (is_kept_by_the_reference(&record.name) && self.seen.has(parent) == Some(true));
        if !made {
            return Ok(());
        }
        let hidden = match meaning {
            Meaning::Hidden { parent, name } => tree::join(parent, name).into_vec(),
            _ => Vec::new(),
        };
        let found = match (meaning, self.files.dir(parent)) {
            (_, Err(error)) if error.kind() == ErrorKind::Corrupt => {
                Some(("its directory is missing", false))
            }
            (_, Err(error)) => return Err(error),
            (_, Ok(dir)) if dir.path() != parent => None,
            (Meaning::Hidden { .. }, Ok(_)) => self.hidden(&hidden)?,
            (_, Ok(dir)) => match metadata::is_opaque(&dir)? {
                Some(false) => Some(("its directory is no longer opaque", false)),
                _ => None,
            },
        };
        let Some((what, needs_mark)) = found else { return Ok(()) };
        let what = format!("{}: {what}", show(&record.name));
        if hidden.is_empty() {
            self.differences.add(path, self.order, what);
        } else {
            self.differences.add_depending(path, self.order, what, &hidden, !needs_mark);
        }
        Ok(())
    }

    /// What is wrong where a whiteout should be; and whether that is the missing mark of a directory.
    fn hidden(&mut self, hidden: &[u8]) -> Result<Option<(&'static str, bool)>> {
        let Some((_, stat)) = self.files.stat(hidden)? else {
            return Ok(Some(("the whiteout is missing", false)));
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return Ok(None);
        }
        // The archive's own directory of that name hides the one below by its mark; the reference does not do that.
        if kind == FileType::Directory && self.full {
            let dir = self.files.dir(hidden)?;
            return Ok(match metadata::is_opaque(&dir)? {
                Some(false) => Some(("its directory is no longer opaque", true)),
                _ => None,
            });
        }
        match self.seen.has(hidden) {
            Some(false) => Ok(Some(("the whiteout is missing, something else is there", false))),
            _ => Ok(None),
        }
    }

    fn content(&mut self, record: &Record) -> Result<()> {
        let (file, size) = self.files.file(record)?;
        if size != record.size {
            return Err(Error::corrupt(format!("it has {size} bytes, the layer had {}", record.size)));
        }
        let Some(expected) = record.crc else { return Ok(()) };
        let map = content::data_regions(&file, size)?;
        let holes = map != [(0, size)];
        let mut crc = Crc64::new();
        content::for_each_piece(&file, 0, size, &map, &mut self.buffer, &mut crc, |_| Ok(()))?;
        if crc.finish() != expected && (self.full || !holes) {
            return Err(Error::corrupt("its content has changed"));
        }
        Ok(())
    }
}

/// Whether the reference makes a whiteout of this name if its directory is there: it looks for the directory in the name
/// as it is, without a slash at its beginning.
fn is_kept_by_the_reference(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let (start, name) = match name.strip_prefix(b"./") {
        Some(name) => (true, name),
        None => (false, name),
    };
    let mut cleaned = Vec::new();
    clean(name, &mut cleaned).is_ok() && cleaned == name && (start || name.contains(&b'/'))
}
