// SPDX-License-Identifier: MulanPSL-2.0
//! Project quotas: what a directory is counted to, what is counted there, and how much of it there may be.
//!
//! Each inode belongs to one project, a number; 0 is that of whatever was never given another. A directory may hand its
//! project down to what is made in it (`FS_XFLAG_PROJINHERIT`). Nothing can be renamed or linked into such a directory
//! from another project: `EXDEV`; of a directory that is moved only its own inode is looked at, not what is below it.
//!
//! Both xfs and ext4 count at once what is made. What is removed, xfs may count a moment longer: it is freed in the
//! background.

#[cfg(test)]
pub(crate) mod fake;
mod kernel;

use std::fmt;

use crate::error::Result;
use crate::sys::fs::Dir;
use crate::units::{Bytes, Usage};

pub use kernel::Kernel;

/// What a directory is counted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Project {
    /// The number; 0 is that of everything that has none of its own.
    pub id: u32,
    /// Whether what is made in the directory belongs to it as well.
    pub inherited: bool,
}

/// What the file system does about projects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// It counts.
    pub accounted: bool,
    /// It refuses what is beyond a limit.
    pub enforced: bool,
}

/// What the file system knows of one project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// What there is of it: bytes of the blocks that are taken, and inodes.
    pub used: Usage,
    /// Most bytes that there may be; 0 is no limit.
    pub most: Bytes,
    /// Whether there is any limit at all, be it of another kind.
    pub limited: bool,
}

impl Record {
    /// Whether nothing belongs to the project and nothing was said of it.
    pub fn is_blank(&self) -> bool {
        !self.limited && self.is_empty()
    }

    /// Whether nothing belongs to it.
    pub fn is_empty(&self) -> bool {
        self.used == Usage::default()
    }
}

/// Project quotas of one file system. Errors have the errno of the kernel.
pub trait Quotas: fmt::Debug + Send + Sync {
    /// Whether they are on. A file system without: `ENOSYS` or the like; not for this process: `EPERM`.
    fn state(&self) -> Result<State>;

    /// What a directory is counted to.
    fn project(&self, dir: &Dir) -> Result<Project>;

    /// Counts a directory, and if inherited what will be made in it, to another project. What is in it stays where it is.
    fn set_project(&self, dir: &Dir, project: Project) -> Result<()>;

    /// What is known of a project; all 0 if nothing.
    fn record(&self, id: u32) -> Result<Record>;

    /// Sets how many bytes there may be of a project, in whole KiB; 0 takes every limit away.
    fn set_limit(&self, id: u32, most: Bytes) -> Result<()>;

    /// The same, not 0, and every other limit of the project stays as it is.
    fn set_bytes(&self, id: u32, most: Bytes) -> Result<()>;
}
