// SPDX-License-Identifier: MulanPSL-2.0
//! How much a tree holds, as the reference counts it.

use std::ffi::OsString;

use rustix::fs::{AtFlags, FileType, fstat, statat};
use rustix::io::Errno;

use crate::error::{During, Result};
use crate::sys::fs::Dir;
use crate::sys::fs::at::for_each_entry;
use crate::sys::fs::walk::{Cursor, Mounts, Step};
use crate::units::{Bytes, Inodes, Usage};

#[derive(Default)]
struct Total {
    bytes: u64,
    inodes: u64,
}

impl Total {
    fn add(&mut self, size: i64) {
        self.bytes = self.bytes.saturating_add(u64::try_from(size).unwrap_or(0));
        self.inodes = self.inodes.saturating_add(1);
    }
}

/// See [`Dir::usage`]. What vanishes during the walk (a running container) is not counted.
pub(super) fn usage(dir: &Dir) -> Result<Usage> {
    let mut cursor = Cursor::at(dir, Mounts::Cross)?;
    let mut total = Total::default();
    total.add(fstat(cursor.fd()).during(|| format!("look at {}", dir.path.display()))?.st_size);
    let mut pending = vec![scan(&cursor, &mut total)?];
    while let Some(directories) = pending.last_mut() {
        match directories.pop() {
            Some(name) => {
                if cursor.down(&name, false)? == Step::Entered {
                    pending.push(scan(&cursor, &mut total)?);
                }
            }
            None => {
                pending.pop();
                cursor.up()?;
            }
        }
    }
    Ok(Usage { bytes: Bytes(total.bytes), inodes: Inodes(total.inodes) })
}

fn scan(cursor: &Cursor, total: &mut Total) -> Result<Vec<OsString>> {
    let mut directories = Vec::new();
    for_each_entry(cursor.fd(), |name, file_type| {
        match statat(cursor.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => total.add(stat.st_size),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error).during(|| format!("look at {}", cursor.show(name))),
        }
        if file_type == FileType::Directory {
            directories.push(name.to_owned());
        }
        Ok(())
    })?;
    Ok(directories)
}
