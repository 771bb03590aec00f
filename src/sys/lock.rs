// SPDX-License-Identifier: MulanPSL-2.0
//! Advisory file locks that name their owner.
//!
//! `flock` on a file that holds the owner's process id as text; the kernel drops it when the process ends, however
//! it ends, so there is no stale lock.

use crate::error::Result;
use crate::sys::fs::Dir;

/// A held lock; released on drop.
#[derive(Debug)]
pub struct FileLock {
    file: std::fs::File,
}

impl FileLock {
    /// Takes the lock `name` below `dir` exclusively without waiting, making the file (0600) if absent, and writes
    /// this process's id into it. Held elsewhere: `InUse`, `in use by pid N`.
    pub fn try_exclusive(dir: &Dir, name: &str) -> Result<FileLock> {
        todo!()
    }

    /// The same, waiting up to `timeout` for another holder.
    pub fn exclusive(dir: &Dir, name: &str, timeout: std::time::Duration) -> Result<FileLock> {
        todo!()
    }
}

/// The process id written in a lock file that is held now, if any; never takes the lock, never writes.
pub fn holder(dir: &Dir, name: &str) -> Result<Option<u32>> {
    todo!()
}
