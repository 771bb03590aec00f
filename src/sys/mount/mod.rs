// SPDX-License-Identifier: MulanPSL-2.0
//! Mounting: the file-descriptor API (`fsopen`, `fsconfig`, `fsmount`, `move_mount`) and `mount(2)` as fall-back.
//!
//! | kernel | how overlays are mounted |
//! |---|---|
//! | 6.13 and later | one `lowerdir+` for each lower, as a path or, if longer than 255 bytes, as a descriptor: 500 lowers |
//! | 6.7 to 6.12 | the same; a longer path is given through `/proc/self/fd` and shows as such in the mount table |
//! | before | `mount(2)` with one string of less than a page: absolute paths, else paths relative to `home` |
//!
//! The mount table shows lowers as they were named: `<home>/l/<link>`, as the reference's mounts do.
//!
//! # Binding and descriptors
//!
//! After [`bind_private`] a directory has two sides: descriptors opened before lead to the mount beneath, paths and
//! descriptors opened later to the new one. A rename from one side to the other is `EXDEV`, and what is mounted below an
//! old descriptor is not seen through the path. So: bind first, then open the directory and everything below it.

mod attach;
mod device;
mod fsapi;
mod legacy;
mod options;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::fs::Dir;

/// Whether an overlay may have up to 500 lowers, whatever the length of their paths, because the kernel takes them one
/// by one (Linux 6.7). Else what fits into one page of relative paths: 128 with links as short as the reference's.
pub fn takes_many_lowers() -> bool {
    fsapi::takes_lowers_one_by_one().unwrap_or(false)
}

pub use attach::{bind_private, is_mount_point, overlay_supported, unmount, unmount_idle};
pub use device::{Detached, Device, make_read_only, mount_device, open_device};

/// What an overlay mount is made of.
#[derive(Debug, Clone)]
pub struct Overlay<'a> {
    /// The driver's home; `lower`, `upper` and `work` are below it and are given relative to it, so that the
    /// fall-back can shorten its option string.
    pub home: &'a Dir,
    /// Lower directories relative to `home`, topmost first; at least one, and two when there is no upper.
    pub lowers: Vec<PathBuf>,
    /// Upper directory relative to `home`; `None` makes a read-only mount.
    pub upper: Option<PathBuf>,
    /// Work directory relative to `home`.
    pub work: Option<PathBuf>,
    /// Further options, `key=value` or `key`, as a comma-separated string of `overlay2.mountopt` holds them. Words
    /// that every file system knows (`nodev`, `ro`, …) become attributes of the mount.
    pub options: Vec<String>,
    /// SELinux label of the mount (`context=`), or none.
    pub label: Option<String>,
}

/// Which system calls to mount with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountMethod {
    /// The best the kernel offers, found out at run time.
    Auto,
    /// `fsopen` and friends; the only one that takes many lowers whatever their path lengths. `Unsupported` on a kernel
    /// that does not take them one by one: there it has no advantage, but refuses commas in paths.
    Fsopen,
    /// The same on a kernel of which [`takes_many_lowers`] is known: it is not asked again.
    OneByOne,
    /// `mount(2)` with an option string of less than one page.
    Legacy,
}

/// Mounts an overlay on `target` (relative to `home`). The error carries the kernel's own message where it gives one.
pub fn mount_overlay(overlay: &Overlay<'_>, target: &Path, method: MountMethod) -> Result<()> {
    let doing = || format!("mount overlay on {}", overlay.home.path().join(target).display());
    check(overlay, target).map_err(|error| error.context(doing()))?;
    let options = options::parse(&overlay.options).map_err(|error| error.context(doing()))?;
    let mounted = match method {
        MountMethod::Fsopen => fsapi::try_mount(overlay, &options, target),
        MountMethod::OneByOne => fsapi::mount(overlay, &options, target),
        MountMethod::Legacy => legacy::mount(overlay, &options, target),
        MountMethod::Auto => match fsapi::try_mount(overlay, &options, target) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                log::debug!("{}; falling back to mount(2)", error.report());
                legacy::mount(overlay, &options, target)
            }
            other => other,
        },
    };
    mounted.map_err(|error| error.context(doing()))
}

/// What an overlay shows, without mounting it anywhere: its root, which goes with its last descriptor. `Unsupported` on a
/// kernel that does not take lowers one by one.
pub fn view_overlay(overlay: &Overlay<'_>) -> Result<OwnedFd> {
    let doing = || format!("make an overlay of layers in {}", overlay.home.path().display());
    check(overlay, Path::new("root")).map_err(|error| error.context(doing()))?;
    let options = options::parse(&overlay.options).map_err(|error| error.context(doing()))?;
    fsapi::detached(overlay, &options).map_err(|error| error.context(doing()))
}

fn check(overlay: &Overlay<'_>, target: &Path) -> Result<()> {
    let directories = [&overlay.upper, &overlay.work];
    let all = overlay.lowers.iter().chain(directories.into_iter().flatten());
    for path in all.map(PathBuf::as_path).chain([target]) {
        let mut parts = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
        if !parts.all(|part| !matches!(part, b"" | b"." | b"..")) {
            return Err(Error::invalid(format!("{path:?} is not a path below the driver's home")));
        }
    }
    if overlay.lowers.is_empty() {
        return Err(Error::invalid("there is no lower directory"));
    }
    if overlay.upper.is_some() != overlay.work.is_some() {
        return Err(Error::invalid("an upper directory needs a work directory and the other way round"));
    }
    Ok(())
}

/// A descriptor that only names `path` below `dir`, resolved without following symbolic links.
fn name_below(dir: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use crate::sys::fs::at::open_at;
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsFd;
    let mut at = open_at(dir, ".".as_ref(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    for part in path {
        at = open_at(at.as_fd(), part, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests;
