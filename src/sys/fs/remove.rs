// SPDX-License-Identifier: MulanPSL-2.0
//! Removing a tree: iterative, with a bounded number of descriptors, never through a link or into a mount.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{During, Result};
use crate::sys::fs::Dir;
use crate::sys::fs::at::{for_each_entry, open_at, try_unprotect};
use crate::sys::fs::walk::{Cursor, Mounts, Step};

/// How often in one removal a directory may turn out not to be empty (somebody fills it, or the file system
/// skipped entries while others were removed) before it is given up.
const MAX_RESCANS: u32 = 1000;

#[derive(Default)]
struct Frame {
    /// Directories here that are still to be emptied.
    pending: Vec<OsString>,
    scanned: bool,
}

/// See [`Dir::remove_all`].
pub(super) fn remove_all(dir: &Dir, name: &OsStr) -> Result<bool> {
    let mut cursor = Cursor::at(dir, Mounts::Refuse)?;
    match statat(cursor.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error).during(|| format!("look at {}", cursor.show(name))),
    }
    let mut frames = vec![Frame { pending: vec![name.to_owned()], scanned: true }];
    let mut rescans = 0;
    while let Some(frame) = frames.last_mut() {
        if let Some(child) = frame.pending.pop() {
            match cursor.down(&child, true)? {
                Step::Entered => frames.push(Frame::default()),
                Step::Gone => {}
                Step::NotDir => {
                    let removed = unlink(cursor.fd(), &child, AtFlags::empty());
                    removed.during(|| format!("remove {}", cursor.show(&child)))?;
                }
            }
        } else if !frame.scanned {
            frame.scanned = true;
            frame.pending = empty_of_files(&cursor)?;
        } else {
            frames.pop();
            let Some(left) = cursor.up()? else { break };
            match unlink(cursor.fd(), &left, AtFlags::REMOVEDIR) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) if rescans < MAX_RESCANS => {
                    rescans += 1;
                    if let Some(above) = frames.last_mut() {
                        above.pending.push(left);
                    }
                }
                Err(error) => return Err(error).during(|| format!("remove {}", cursor.show(&left))),
            }
        }
    }
    Ok(true)
}

/// Removes everything but directories from where the cursor is, and returns the directories.
fn empty_of_files(cursor: &Cursor) -> Result<Vec<OsString>> {
    let mut directories = Vec::new();
    let emptied = for_each_entry(cursor.fd(), |name, file_type| {
        if file_type == FileType::Directory {
            directories.push(name.to_owned());
            return Ok(());
        }
        match unlink(cursor.fd(), name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::ISDIR) => {
                directories.push(name.to_owned());
                Ok(())
            }
            Err(error) => Err(error).during(|| format!("remove {}", cursor.show(name))),
        }
    });
    emptied.map(|()| directories)
}

/// Removes one entry; absent is fine. Flags and modes that stand in the way are taken off.
fn unlink(dir: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> rustix::io::Result<()> {
    match unlinkat(dir, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {
            try_unprotect(dir);
            try_unprotect_entry(dir, name);
            match unlinkat(dir, name, flags) {
                Err(Errno::NOENT) => Ok(()),
                other => other,
            }
        }
        other => other,
    }
}

fn try_unprotect_entry(dir: BorrowedFd<'_>, name: &OsStr) {
    // Only these two kinds have such flags, and opening a device could have effects.
    let flagged = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory)
    });
    if flagged && let Ok(fd) = open_at(dir, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        try_unprotect(fd.as_fd());
    }
}
