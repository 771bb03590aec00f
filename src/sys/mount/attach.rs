// SPDX-License-Identifier: MulanPSL-2.0
//! What is mounted where: mount points, unmounting, binding.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountPropagationFlags, UnmountFlags, fsopen, mount_bind_recursive, mount_change,
};

use crate::error::{During, Error, Result};
use crate::sys::fs::at::is_mount_root;

/// How often and how far apart a busy mount is tried again before it is detached: somebody who only looks at it
/// (`df`, an indexer) is gone by then.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// What is not detached is asked longer, for up to a second: a child of another thread has all descriptors of this process
/// until it runs its program.
const IDLE_TRIES: u32 = 100;

/// Whether `name` below `dir` is the root of a mount, asked of the kernel, not of a text file. A symbolic link is never
/// one. Absent: `NotFound`.
pub fn is_mount_point(dir: BorrowedFd<'_>, name: &Path) -> Result<bool> {
    let doing = || format!("ask whether {} is a mount point", name.display());
    match is_mount_root(dir, name).during(doing)? {
        Some(answer) => Ok(answer),
        None => differs_from_parent(dir, name).during(doing),
    }
}

/// Before Linux 5.8: a mount point is in another mount than the directory above it.
pub(super) fn differs_from_parent(dir: BorrowedFd<'_>, name: &Path) -> Result<bool> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = openat(dir, name, flags, Mode::empty()).during(|| "open it")?;
    let above = match openat(&entry, c"..", flags, Mode::empty()) {
        Ok(above) => above,
        // Not a directory: compare with where it lies.
        Err(Errno::NOTDIR) => {
            let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty());
            openat(dir, parent.unwrap_or(Path::new(".")), flags, Mode::empty())
                .during(|| "open the directory above")?
        }
        Err(error) => return Err(error).during(|| "open the directory above"),
    };
    Ok(mount_id(entry.as_fd())? != mount_id(above.as_fd())?)
}

fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
        .during(|| "read /proc/self/fdinfo")?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok())
        .ok_or_else(|| Error::new(crate::error::ErrorKind::Unsupported, "the kernel tells no mount ids"))
}

/// Unmounts what is mounted on `target`, the topmost mount if there are several; detaches it lazily if it stays busy.
/// Nothing mounted there, or no such path, is fine: `false`. `target` is not followed if it is a symbolic link.
pub fn unmount(target: &Path) -> Result<bool> {
    let doing = || format!("unmount {}", target.display());
    for _ in 0..BUSY_TRIES {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(true),
            Err(Errno::INVAL | Errno::NOENT) => return Ok(false),
            Err(Errno::BUSY) => std::thread::sleep(BUSY_PAUSE),
            Err(error) => return Err(error).during(doing),
        }
    }
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(error) => Err(error).during(doing),
    }
}

/// Unmounts what is mounted on `target` only if nothing uses it and nothing is mounted below it; never detaches. In use,
/// or nothing mounted there: `false`.
pub fn unmount_idle(target: &Path) -> Result<bool> {
    for _ in 0..IDLE_TRIES {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(true),
            Err(Errno::INVAL | Errno::NOENT) => return Ok(false),
            // Mounts below do not go by themselves.
            Err(Errno::BUSY) if has_mounts_below(target)? => return Ok(false),
            Err(Errno::BUSY) => std::thread::sleep(BUSY_PAUSE),
            Err(error) => return Err(error).during(|| format!("unmount {}", target.display())),
        }
    }
    Ok(false)
}

/// Whether something is mounted below a directory. Only saves waiting, so an odd spelling in the table does no harm.
fn has_mounts_below(target: &Path) -> Result<bool> {
    use std::os::unix::ffi::OsStrExt as _;
    let table = std::fs::read("/proc/self/mountinfo").during(|| "read /proc/self/mountinfo")?;
    let prefix = [target.as_os_str().as_bytes(), b"/"].concat();
    let point =
        |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).is_some_and(|at| at.starts_with(&prefix));
    Ok(table.split(|byte| *byte == b'\n').any(point))
}

/// Binds a directory on itself and makes it private, unless it is a mount point already (then it is only made private);
/// the home of the overlay driver is kept so in the reference.
///
/// Mounts that lie below already come along: a plain bind would hide the mounted layers of an earlier run, and they
/// would be mounted a second time. See the module for what it means for descriptors.
pub fn bind_private(path: &Path) -> Result<()> {
    let doing = || format!("make {} a private mount", path.display());
    if !is_mount_point(CWD, path).during(doing)? {
        mount_bind_recursive(path, path).during(doing)?;
    }
    mount_change(path, MountPropagationFlags::PRIVATE).during(doing)
}

/// Whether the kernel can mount overlays. Asking makes it load its module if it has one.
pub fn overlay_supported() -> Result<bool> {
    let known = std::fs::read("/proc/filesystems").during(|| "read /proc/filesystems")?;
    if known.split(|byte| *byte == b'\n').any(|line| line == b"nodev\toverlay") {
        return Ok(true);
    }
    match fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(true),
        // No such file system, or a kernel too old to be asked this way.
        Err(Errno::NODEV | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error).during(|| "ask the kernel for the overlay file system"),
    }
}
