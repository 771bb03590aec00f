// SPDX-License-Identifier: MulanPSL-2.0
//! Comparison of a layer's tree with its tar-split stream.
//!
//! An archive may name a file twice, or put a file where a directory was: then an earlier entry does not fit the tree
//! and a later one says why. So a difference is kept until the end, and dropped when a later entry covers its path.
//!
//! The reference leaves the holes of a sparse file out of its CRC, so a file with holes cannot be judged by a stream
//! of the reference (one without type 2 lines); then only its size counts.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::BorrowedFd;

use crate::archive::Verdict;
use crate::archive::content::{self, BUFFER};
use crate::archive::crc::Crc64;
use crate::archive::files::Files;
use crate::archive::pax::show;
use crate::archive::tar_split::{Line, Lines, Record};
use crate::archive::whiteout::{clean, is_whiteout};
use crate::error::{Error, ErrorKind, Result};

/// Differences kept; with more than that no later entries will explain them all.
const MOST_DIFFERENCES: usize = 10_000;

/// See [`crate::archive::verify`].
pub(super) fn verify(tar_split: &mut dyn Read, layer: BorrowedFd<'_>) -> Result<Verdict> {
    let mut lines = Lines::new(tar_split)?;
    let mut check = Check {
        files: Files::open(layer)?,
        buffer: vec![0; BUFFER].into_boxed_slice(),
        differences: BTreeMap::new(),
        full: false,
        order: 0,
    };
    while let Some(line) = lines.next()? {
        match line {
            Line::Segment(_) => check.full = true,
            Line::Entry(record) => check.entry(&record)?,
            Line::Replaced { .. } | Line::Content(_) | Line::Other => {}
        }
        if check.differences.len() > MOST_DIFFERENCES {
            break;
        }
    }
    let first = check.differences.into_values().min_by_key(|(order, _)| *order);
    Ok(match first {
        None => Verdict::Valid,
        Some((_, what)) => Verdict::Differs(what),
    })
}

struct Check {
    files: Files,
    buffer: Box<[u8]>,
    /// By cleaned path: number of the entry, and what differs.
    differences: BTreeMap<Vec<u8>, (u64, String)>,
    /// Whether the stream has type 2 lines, so that CRCs are those of whole files.
    full: bool,
    order: u64,
}

impl Check {
    fn entry(&mut self, record: &Record) -> Result<()> {
        self.order += 1;
        let mut path = Vec::new();
        clean(record.path.as_ref().unwrap_or(&record.name), &mut path).map_err(Error::corrupt)?;
        if path.is_empty() {
            return Ok(());
        }
        // A whiteout is a device, an attribute, or nothing, depending on the driver.
        if record.size == 0 && is_whiteout(&path) {
            return Ok(());
        }
        let found = if record.size == 0 { self.files.exists(record) } else { self.content(record) };
        if !record.name.ends_with(b"/") {
            self.covered(&path);
        }
        match found {
            Ok(()) => {
                self.differences.remove(&path);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let what = format!("{}: {}", show(&record.name), error.report());
                self.differences.insert(path, (self.order, what));
            }
            Err(error) => return Err(error.context(format!("check {}", show(&record.name)))),
        }
        Ok(())
    }

    /// Drops differences below a path that is no directory: what was there has been replaced.
    fn covered(&mut self, path: &[u8]) {
        if self.differences.is_empty() {
            return;
        }
        let mut start = path.to_vec();
        start.push(b'/');
        let below: Vec<_> = self
            .differences
            .range(start.clone()..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(&start))
            .collect();
        for key in below {
            self.differences.remove(&key);
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
