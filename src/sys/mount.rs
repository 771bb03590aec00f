// SPDX-License-Identifier: MulanPSL-2.0
//! Mounting: the file-descriptor API (`fsopen`, `fsconfig`, `fsmount`, `move_mount`) and `mount(2)` as fall-back.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::sys::fs::Dir;

/// What an overlay mount is made of.
#[derive(Debug, Clone)]
pub struct Overlay<'a> {
    /// The driver's home; `lower`, `upper` and `work` are below it and are given relative to it, so that the
    /// fall-back can shorten its option string.
    pub home: &'a Dir,
    /// Lower directories relative to `home`, topmost first; at least one.
    pub lowers: Vec<PathBuf>,
    /// Upper directory relative to `home`; `None` makes a read-only mount.
    pub upper: Option<PathBuf>,
    /// Work directory relative to `home`.
    pub work: Option<PathBuf>,
    /// Further options, `key=value` or `key`, as a comma-separated string of `overlay2.mountopt` holds them.
    pub options: Vec<String>,
    /// SELinux label of the mount (`context=`), or none.
    pub label: Option<String>,
}

/// Which system calls to mount with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountMethod {
    /// The best the kernel offers, found out once at run time.
    Auto,
    /// `fsopen` and friends; the only one that takes many lowers whatever their path lengths.
    Fsopen,
    /// `mount(2)` with an option string of at most one page.
    Legacy,
}

/// Mounts an overlay on `target` (relative to `home`). The error carries the kernel's own message where it gives one.
pub fn mount_overlay(overlay: &Overlay<'_>, target: &Path, method: MountMethod) -> Result<()> {
    todo!()
}

/// Whether `path` (an open directory) is the root of a mount, asked of the kernel (`statx` mount id / attributes), not of a
/// text file.
pub fn is_mount_point(dir: BorrowedFd<'_>, name: &Path) -> Result<bool> {
    todo!()
}

/// Unmounts what is mounted on `target`; detaches lazily if it is busy; nothing mounted there is fine (`false`).
pub fn unmount(target: &Path) -> Result<bool> {
    todo!()
}

/// Binds a directory on itself and makes it private, unless it is a mount point already; the home of the overlay
/// driver is kept so in the reference.
pub fn bind_private(path: &Path) -> Result<()> {
    todo!()
}

/// Whether the kernel can mount overlays.
pub fn overlay_supported() -> Result<bool> {
    todo!()
}
