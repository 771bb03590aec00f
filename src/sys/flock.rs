// SPDX-License-Identifier: MulanPSL-2.0
//! `flock` on a file that is data itself, so that it cannot hold its owner's process id as [`crate::sys::lock`] does.
//!
//! Who holds it is asked of `/proc/locks`, for messages only: the process may live in another namespace, and some file
//! systems show device numbers there that `stat` does not know.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstat, major, minor};
use rustix::io::Errno;

use crate::error::{During, Error, ErrorKind, Result};

/// Longest pause between two tries while waiting for another holder.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// With whom a lock may be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// With nobody.
    Exclusive,
    /// With others that take it so, too.
    Shared,
}

/// An open file that is locked until dropped.
///
/// The lock belongs to the open file: two openings in one process exclude each other as two processes do. It is given
/// back explicitly, so that a child made by `fork` without `exec` does not keep it.
#[derive(Debug)]
pub struct LockedFile {
    file: File,
}

impl LockedFile {
    /// Takes the lock, waiting up to `timeout` for other holders, `None` for ever. Held elsewhere: `InUse`,
    /// `in use by pid N`.
    pub fn lock(file: File, sharing: Sharing, timeout: Option<Duration>) -> Result<LockedFile> {
        let operation = match sharing {
            Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
            Sharing::Shared => FlockOperation::NonBlockingLockShared,
        };
        // A time too far away to be named is for ever.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut pause = Duration::from_millis(1);
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(LockedFile { file }),
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error).during(|| "take the lock"),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let message = match holder(&file) {
                    Some(pid) => format!("in use by pid {pid}"),
                    None => "in use by another process".to_owned(),
                };
                return Err(Error::new(ErrorKind::InUse, message));
            }
            std::thread::sleep(left.map_or(pause, |left| pause.min(left)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            log::warn!("unlock: {error}");
        }
    }
}

/// The process that holds the lock of this file, as far as the kernel tells.
fn holder(file: &File) -> Option<u32> {
    let stat = fstat(file).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, major(stat.st_dev), minor(stat.st_dev), stat.st_ino)
}

fn holder_in(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4242 08:01:1234 0 EOF`; who waits has `->` in the second column.
        let mut words = line.split_ascii_whitespace().skip(1);
        (words.next() == Some("FLOCK")).then_some(())?;
        let pid = words.nth(2)?;
        (words.next() == Some(place.as_str())).then_some(())?;
        // 0: of a process that this namespace does not know.
        pid.parse().ok().filter(|pid| *pid > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::TestRoot;

    fn open(root: &TestRoot) -> File {
        File::options().read(true).write(true).create(true).truncate(false).open(root.join("file")).unwrap()
    }

    #[test]
    fn an_exclusive_lock_excludes_all_and_names_its_holder() {
        let root = TestRoot::in_memory("flock");
        let held = LockedFile::lock(open(&root), Sharing::Exclusive, Some(Duration::ZERO)).unwrap();
        for sharing in [Sharing::Exclusive, Sharing::Shared] {
            let error = LockedFile::lock(open(&root), sharing, Some(Duration::from_millis(3))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert_eq!(error.report(), format!("in use by pid {}", std::process::id()));
        }
        drop(held);
        LockedFile::lock(open(&root), Sharing::Exclusive, Some(Duration::ZERO)).unwrap();
    }

    #[test]
    fn a_shared_lock_is_shared_and_excludes_an_exclusive_one() {
        let root = TestRoot::in_memory("flock");
        let first = LockedFile::lock(open(&root), Sharing::Shared, Some(Duration::ZERO)).unwrap();
        let second = LockedFile::lock(open(&root), Sharing::Shared, Some(Duration::ZERO)).unwrap();
        drop(first);
        LockedFile::lock(open(&root), Sharing::Exclusive, Some(Duration::ZERO)).unwrap_err();
        drop(second);
        LockedFile::lock(open(&root), Sharing::Exclusive, Some(Duration::ZERO)).unwrap();
    }

    #[test]
    fn who_waits_and_who_is_unknown_is_not_named() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:1234 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 0 08:01:1234 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 8 08:01:1234 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 9 08:01:1235 0 EOF\n";
        assert_eq!(holder_in(locks, 8, 1, 1234), None);
        assert_eq!(holder_in(locks, 8, 1, 1235), Some(9));
        assert_eq!(holder_in(locks, 8, 2, 1235), None);
    }
}
