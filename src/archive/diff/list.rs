// SPDX-License-Identifier: MulanPSL-2.0
//! What of a comparison is listed or counted, not written.

use std::collections::HashSet;

use rustix::fs::{FileType, Stat};

use crate::archive::diff::walk::{Found, Sink};
use crate::archive::diff::{Change, ChangeKind};
use crate::error::Result;
use crate::units::Bytes;

/// Lists changes.
pub(super) struct Changes<'a> {
    each: &'a mut dyn FnMut(Change) -> Result<()>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(each: &'a mut dyn FnMut(Change) -> Result<()>) -> Self {
        Changes { each }
    }

    fn tell(&mut self, path: &[u8], kind: ChangeKind) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        (self.each)(Change { path: path.to_vec(), kind })
    }
}

impl Sink for Changes<'_> {
    fn is_archive(&self) -> bool {
        false
    }
    fn found(&mut self, found: &Found<'_>) -> Result<()> {
        self.tell(found.path, if found.is_new { ChangeKind::Added } else { ChangeKind::Modified })
    }
    fn hidden(&mut self, path: &[u8], _: Option<&Stat>) -> Result<()> {
        self.tell(path, ChangeKind::Deleted)
    }
    fn opaque(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn skipped(&mut self, _: &[u8]) {}
}

/// Adds up sizes of files.
#[derive(Default)]
pub(super) struct Size {
    total: u64,
    linked: HashSet<(u64, u64)>,
}

impl Size {
    pub(super) fn total(&self) -> Bytes {
        Bytes(self.total)
    }
}

impl Sink for Size {
    fn is_archive(&self) -> bool {
        false
    }
    fn found(&mut self, found: &Found<'_>) -> Result<()> {
        let stat = found.stat;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && (stat.st_nlink <= 1 || self.linked.insert((stat.st_dev, stat.st_ino)))
        {
            self.total = self.total.saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
        }
        Ok(())
    }
    fn hidden(&mut self, _: &[u8], _: Option<&Stat>) -> Result<()> {
        Ok(())
    }
    fn opaque(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn skipped(&mut self, _: &[u8]) {}
}
