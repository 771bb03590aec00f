// SPDX-License-Identifier: MulanPSL-2.0
//! The umask of one thread.

use rustix::fs::Mode;
use rustix::thread::UnshareFlags;

/// Parts the calling thread's umask (and working directory) from the process's and clears it: what this thread makes has
/// exactly the mode it asks for. For threads that the library starts and ends itself; nothing else notices. False where
/// that is not allowed (a seccomp filter); then nothing has changed.
#[must_use]
pub(crate) fn clear_for_this_thread() -> bool {
    // SAFETY: this parts file system attributes only; descriptors and memory stay shared, which is what could break the
    // assumptions of other code in this process.
    if unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.is_err() {
        return false;
    }
    rustix::process::umask(Mode::empty());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn umask_of_this_thread() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("Umask:")).unwrap().to_owned()
    }

    #[test]
    fn only_this_thread_has_no_umask() {
        let before = umask_of_this_thread();
        let (cleared, inside) =
            std::thread::spawn(|| (clear_for_this_thread(), umask_of_this_thread())).join().unwrap();
        if cleared {
            assert_eq!(inside, "Umask:\t0000");
        }
        assert_eq!(umask_of_this_thread(), before);
    }
}
