// SPDX-License-Identifier: MulanPSL-2.0
//! Advisory file locks that name their owner.
//!
//! `flock` on a file that holds the owner's process id as text; the kernel drops it when the process ends, however
//! it ends, so there is no stale lock. The lock belongs to the open file: two openings in one process exclude each
//! other as two processes do. The text is for people only; who holds the lock is asked of the kernel.
//!
//! A child made by `fork` without `exec` shares the open file. Dropping the lock releases it explicitly, so such a
//! child does not keep it; only when the owner is killed while the child lives on does the lock outlive it. What the
//! child drops is the owner's still.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, statat};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::Dir;
use crate::sys::fs::at::{component, open_at};

/// How often and how far apart an acquisition is tried again when nobody alive is named as owner: then the lock is held
/// for a moment only, by [`holder`] or by an owner that has not written its id yet.
const BRIEF_TRIES: u32 = 20;
const BRIEF_PAUSE: Duration = Duration::from_millis(3);

/// Longest pause between two tries while waiting for another owner.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Room for a process id and a newline, with some to spare.
const TEXT_LIMIT: usize = 32;

/// A held lock; released on drop.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    /// The process that took it.
    owner: u32,
}

impl FileLock {
    /// Takes the lock `name` below `dir` exclusively without waiting, making the file (0600) if absent, and writes
    /// this process's id into it. Held elsewhere: `InUse`, `in use by pid N`.
    pub fn try_exclusive(dir: &Dir, name: &str) -> Result<FileLock> {
        let doing = || format!("lock {}", dir.path().join(name).display());
        for _ in 0..BRIEF_TRIES {
            match try_once(dir, name).during(doing)? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Held(Some(pid)) if is_alive(pid) => return Err(in_use(Some(pid)).context(doing())),
                Attempt::Held(_) => std::thread::sleep(BRIEF_PAUSE),
            }
        }
        match try_once(dir, name).during(doing)? {
            Attempt::Taken(lock) => Ok(lock),
            Attempt::Held(pid) => Err(in_use(pid).context(doing())),
        }
    }

    /// The same, waiting up to `timeout` for another holder.
    pub fn exclusive(dir: &Dir, name: &str, timeout: Duration) -> Result<FileLock> {
        let doing = || format!("lock {}", dir.path().join(name).display());
        // A time too far away to be named is for ever.
        let deadline = Instant::now().checked_add(timeout);
        let mut pause = Duration::from_millis(1);
        loop {
            let owner = match try_once(dir, name).during(doing)? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Held(owner) => owner,
            };
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(in_use(owner).context(doing()));
            }
            std::thread::sleep(left.map_or(pause, |left| pause.min(left)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl FileLock {
    fn write_owner(&self) -> Result<()> {
        let text = format!("{}\n", std::process::id());
        // Written over the old text before it is cut, so that the file always names somebody.
        self.file.write_all_at(text.as_bytes(), 0).during(|| "write the process id")?;
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.file.set_len(length).during(|| "write the process id")
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        // An empty file tells others not to blame a former owner.
        if let Err(error) = self.file.set_len(0) {
            log::debug!("empty lock file: {error}");
        }
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            log::warn!("unlock: {error}");
        }
    }
}

/// The process id written in a lock file that is held now, if any; never takes the lock, never writes.
///
/// The kernel is asked by trying a shared lock and giving it back at once. (`/proc/locks` would not disturb anybody,
/// but shows ids of other namespaces as 0 and, on btrfs, device numbers that `stat` does not know.) An owner that
/// starts in that very moment tries again, see [`FileLock::try_exclusive`].
pub fn holder(dir: &Dir, name: &str) -> Result<Option<u32>> {
    let doing = || format!("look at lock {}", dir.path().join(name).display());
    let file = match open(dir, name, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.context(doing())),
    };
    match flock_retrying(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(&file, FlockOperation::Unlock).during(doing)?;
            Ok(None)
        }
        Err(Errno::WOULDBLOCK) => read_owner(&file).during(doing),
        Err(error) => Err(error).during(doing),
    }
}

enum Attempt {
    Taken(FileLock),
    Held(Option<u32>),
}

fn try_once(dir: &Dir, name: &str) -> Result<Attempt> {
    loop {
        let file = open(dir, name, OFlags::RDWR | OFlags::CREATE)?;
        match flock_retrying(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Attempt::Held(read_owner(&file)?)),
            Err(error) => return Err(error).during(|| "take the lock"),
        }
        // Only a lock on the file that others will open is worth something.
        let mine = fstat(&file).during(|| "look at the lock file")?;
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (mine.st_dev, mine.st_ino) => {}
            Ok(_) | Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).during(|| "look at the lock file"),
        }
        let lock = FileLock { file, owner: std::process::id() };
        match lock.write_owner() {
            Ok(()) => {}
            // The text is for people only, and somebody has to be able to open a store on a full disk to delete from it.
            Err(error) if error.is_no_space() => log::warn!("{}", error.report()),
            Err(error) => return Err(error),
        }
        return Ok(Attempt::Taken(lock));
    }
}

fn open(dir: &Dir, name: &str, flags: OFlags) -> Result<File> {
    use std::os::fd::AsFd;
    let name = component(name.as_ref())?;
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = open_at(dir.as_fd(), name, flags, Mode::RUSR | Mode::WUSR).during(|| "open the lock file")?;
    let stat = fstat(&fd).during(|| "look at the lock file")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::corrupt("it is not a regular file"));
    }
    Ok(File::from(fd))
}

fn flock_retrying(file: &File, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn read_owner(file: &File) -> Result<Option<u32>> {
    let mut buffer = [0u8; TEXT_LIMIT];
    let count = file.read_at(&mut buffer, 0).during(|| "read the owner's process id")?;
    let text = buffer.get(..count).and_then(|bytes| std::str::from_utf8(bytes).ok());
    Ok(text.and_then(|text| text.lines().next()).and_then(|line| line.parse().ok()))
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    // Not allowed to signal it: it lives.
    test_kill_process(pid) != Err(Errno::SRCH)
}

fn in_use(pid: Option<u32>) -> Error {
    let message = match pid {
        Some(pid) => format!("in use by pid {pid}"),
        None => "in use by another process".to_owned(),
    };
    Error::new(ErrorKind::InUse, message)
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
