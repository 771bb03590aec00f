// SPDX-License-Identifier: MulanPSL-2.0
//! A power cut for tests.

use std::os::fd::AsRawFd;
use std::path::Path;

/// `EXT4_IOC_SHUTDOWN`, which xfs and f2fs share: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;

/// Neither data nor the journal are flushed.
static NO_LOG_FLUSH: u32 = 2;

/// Ends a file system at once: everything that has not reached its disk is lost, every later call on it fails. It
/// has to be unmounted and mounted again. Doing it twice is fine.
pub(crate) fn cut_power(path: &Path) {
    let top = match std::fs::File::open(path) {
        Ok(top) => top,
        // It is off already.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => return,
        Err(error) => panic!("open {}: {error}", path.display()),
    };
    // SAFETY: the call reads one u32 from a pointer that is valid for its whole length.
    let result = unsafe { libc::ioctl(top.as_raw_fd(), SHUTDOWN, &raw const NO_LOG_FLUSH) };
    let error = std::io::Error::last_os_error();
    assert!(result == 0 || error.raw_os_error() == Some(libc::EIO), "shut down: {error}");
}
