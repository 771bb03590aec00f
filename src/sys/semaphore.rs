// SPDX-License-Identifier: MulanPSL-2.0
//! System V semaphores of the machine, of which each wait for udev takes one for a moment.

/// How many sets there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Sets in use.
    pub used: u32,
    /// Sets that there can be.
    pub most: u32,
}

/// `SEM_INFO` of semctl(2).
const SEM_INFO: libc::c_int = 19;

/// `struct seminfo`.
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    semmap: libc::c_int,
    semmni: libc::c_int,
    semmns: libc::c_int,
    semmnu: libc::c_int,
    semmsl: libc::c_int,
    semopm: libc::c_int,
    semume: libc::c_int,
    semusz: libc::c_int,
    semvmx: libc::c_int,
    semaem: libc::c_int,
}

/// `None` where the kernel does not say.
pub fn usage() -> Option<Usage> {
    let mut info = Info::default();
    // SAFETY: SEM_INFO writes one seminfo to a pointer that is valid for it.
    let result = unsafe { libc::semctl(0, 0, SEM_INFO, &raw mut info) };
    if result < 0 {
        return None;
    }
    Some(Usage { used: u32::try_from(info.semusz).ok()?, most: u32::try_from(info.semmni).ok()? })
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_room_for_at_least_one_set() {
        let usage = super::usage().unwrap();
        assert!(usage.most > 0 && usage.used <= usage.most, "{usage:?}");
    }
}
