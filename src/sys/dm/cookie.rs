// SPDX-License-Identifier: MulanPSL-2.0
//! Waiting until udevd has made or removed a node.
//!
//! A change is announced with 32 bits of the caller's choice. Their lower half names a System V semaphore, which the rules
//! of udev count down when they are through with the device; the upper half holds flags for the rules. A worker of udevd
//! that was killed never does: so the wait ends after a while, asleep all the time, and the semaphore is always removed.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::sys::fs::random_hex;

/// Upper half of a semaphore's key (`DM_COOKIE_MAGIC`).
const KEY: i32 = 0x0d4d << 16;
/// The change was made by whom the event names, not by the kernel alone (`DM_UDEV_PRIMARY_SOURCE_FLAG`).
const PRIMARY_SOURCE: u32 = 0x0040 << 16;
/// How often another key is tried.
const TRIES: u32 = 20;
/// Where a running udevd listens.
const UDEVD: &str = "/run/udev/control";

/// Longest wait for udevd: its workers are done in well under a second, and killed ones never are.
const WAIT: Duration = Duration::from_secs(30);
/// The same when nobody answered the last time.
const WAIT_AGAIN: Duration = Duration::from_secs(1);

/// Whether udevd answered the last time: one that does not holds up one call for long, and the others not.
#[derive(Debug, Default)]
pub(super) struct Patience {
    is_silent: AtomicBool,
}

impl Patience {
    /// Waits for a change to be dealt with; how long that was too short, if it was.
    pub(super) fn wait(&self, cookie: &Cookie) -> Option<Duration> {
        self.wait_at_most(cookie, WAIT, WAIT_AGAIN)
    }

    fn wait_at_most(&self, cookie: &Cookie, most: Duration, again: Duration) -> Option<Duration> {
        let most = if self.is_silent.load(Ordering::Relaxed) { again } else { most };
        let answered = cookie.wait(most);
        self.is_silent.store(!answered, Ordering::Relaxed);
        (!answered).then_some(most)
    }
}

/// One announced change. Dropped: its semaphore is removed.
#[derive(Debug)]
pub(super) struct Cookie {
    semaphore: libc::c_int,
    event: u32,
}

impl Cookie {
    /// `None` where no udevd runs, or no semaphore is to be had: then nobody can be waited for.
    pub(super) fn new() -> Option<Cookie> {
        if !Path::new(UDEVD).exists() {
            return None;
        }
        match Cookie::make() {
            Ok(cookie) => Some(cookie),
            Err(error) => {
                log::warn!("make a semaphore to wait for udev: {error}");
                None
            }
        }
    }

    fn make() -> io::Result<Cookie> {
        for _ in 0..TRIES {
            let random = random_hex(4).ok().and_then(|text| u16::from_str_radix(&text, 16).ok());
            let Some(half) = random.filter(|half| *half != 0) else { continue };
            let flags = 0o600 | libc::IPC_CREAT | libc::IPC_EXCL;
            // SAFETY: semget takes no pointers.
            let semaphore = unsafe { libc::semget(KEY | i32::from(half), 1, flags) };
            if semaphore < 0 {
                match io::Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::EEXIST) => continue,
                    error => return Err(error),
                }
            }
            let cookie = Cookie { semaphore, event: PRIMARY_SOURCE | u32::from(half) };
            let one: libc::c_int = 1;
            // SAFETY: SETVAL takes an int as its fourth argument.
            if unsafe { libc::semctl(semaphore, 0, libc::SETVAL, one) } < 0 {
                return Err(io::Error::last_os_error());
            }
            return Ok(cookie);
        }
        Err(io::Error::from_raw_os_error(libc::EEXIST))
    }

    /// What the change is announced with.
    pub(super) fn event(&self) -> u32 {
        self.event
    }

    /// Waits until the rules are through; `false`: they were not after `most`.
    fn wait(&self, most: Duration) -> bool {
        let end = Instant::now() + most;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            #[allow(clippy::unnecessary_fallible_conversions, reason = "it has 32 bits on some machines")]
            let timeout = libc::timespec {
                tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(0),
                // Below 1,000,000,000.
                tv_nsec: libc::c_long::try_from(left.subsec_nanos()).unwrap_or(0),
            };
            let mut zero = libc::sembuf { sem_num: 0, sem_op: 0, sem_flg: 0 };
            // SAFETY: one operation and one time-out, both valid for the whole call, which the kernel only reads.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_semtimedop,
                    libc::c_long::from(self.semaphore),
                    &raw mut zero,
                    1 as libc::c_long,
                    &raw const timeout,
                )
            };
            if result == 0 {
                return true;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                // Somebody cleaned up old semaphores.
                Some(libc::EIDRM | libc::EINVAL) => return true,
                _ => return false,
            }
        }
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no further argument. A semaphore that is gone already is no harm.
        unsafe { libc::semctl(self.semaphore, 0, libc::IPC_RMID) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(cookie: &Cookie) -> libc::c_int {
        // SAFETY: GETVAL takes no further argument.
        unsafe { libc::semctl(cookie.semaphore, 0, libc::GETVAL) }
    }

    #[test]
    fn a_wait_ends_when_the_rules_are_through_or_when_time_is_over() {
        let cookie = Cookie::make().unwrap();
        assert_eq!(cookie.event() & 0xffff_0000, 0x0040_0000);
        assert_eq!(value(&cookie), 1);
        assert!(!cookie.wait(Duration::from_millis(1)), "nobody counted it down");
        let mut down = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 };
        // SAFETY: one operation, valid for the whole call.
        assert_eq!(unsafe { libc::semop(cookie.semaphore, &raw mut down, 1) }, 0);
        assert!(cookie.wait(Duration::from_secs(3600)));
    }

    /// The reference waits three minutes each time, and keeps a core busy.
    #[test]
    fn who_does_not_answer_is_waited_for_only_once() {
        let (long, short) = (Duration::from_millis(2), Duration::from_millis(1));
        let patience = Patience::default();
        let (silent, answered) = (Cookie::make().unwrap(), Cookie::make().unwrap());
        // SAFETY: SETVAL takes an int as its fourth argument.
        assert_eq!(unsafe { libc::semctl(answered.semaphore, 0, libc::SETVAL, 0 as libc::c_int) }, 0);
        let wait = |cookie| patience.wait_at_most(cookie, long, short);
        assert_eq!([wait(&silent), wait(&silent)], [Some(long), Some(short)]);
        // Somebody does again.
        assert_eq!([wait(&answered), wait(&silent)], [None, Some(long)]);
    }

    #[test]
    fn no_semaphore_is_left() {
        let semaphore = Cookie::make().unwrap().semaphore;
        // SAFETY: GETVAL takes no further argument.
        assert_eq!(unsafe { libc::semctl(semaphore, 0, libc::GETVAL) }, -1);
    }
}
