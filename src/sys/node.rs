// SPDX-License-Identifier: MulanPSL-2.0
//! Device nodes, and what a file system says of its entries.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};

use crate::error::{During, Result};
use crate::sys::fs::Dir;

/// Makes sure that `name` below `dir` is the block device node of `device` (as `stat` gives it) with this mode; a node
/// of that name that differs is replaced.
pub fn ensure_block_device(dir: &Dir, name: &str, mode: u32, device: u64) -> Result<()> {
    let doing = || format!("make block device {}", dir.path().join(name).display());
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match rustix::fs::statat(dir, OsStr::new(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat)
            if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice
                && Mode::from_raw_mode(stat.st_mode) == mode
                && stat.st_rdev == device =>
        {
            return Ok(());
        }
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice => {
            rustix::fs::unlinkat(dir, OsStr::new(name), AtFlags::empty()).during(doing)?;
        }
        Ok(_) | Err(_) => {}
    }
    rustix::fs::mknodat(dir, OsStr::new(name), FileType::BlockDevice, mode, device).during(doing)?;
    rustix::fs::chmodat(dir, OsStr::new(name), mode, AtFlags::empty()).during(doing)
}

/// Whether reading a directory tells the type of each entry (`d_type`). `dir` has to have an entry.
pub fn reports_file_types(dir: &Dir) -> Result<bool> {
    let doing = || format!("read {}", dir.path().display());
    // An own descriptor: the position in the directory belongs to it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, c".", flags, Mode::empty()).during(doing)?;
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(fd.as_fd(), buffer.spare_capacity_mut());
    let mut seen = false;
    while let Some(entry) = entries.next() {
        let entry = entry.during(doing)?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Unknown {
            return Ok(false);
        }
        seen = true;
    }
    Ok(seen)
}

/// Whether this process acts as root: owners can be given away and devices made.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
