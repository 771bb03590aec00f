// SPDX-License-Identifier: MulanPSL-2.0
//! Memory of the decoders that remember much of what they gave: the windows of zstd, the dictionaries of xz.
//!
//! One stream may need [`MOST`], and several layers are unpacked at a time. So there is one [`Budget`] for all streams of the
//! process: those whose windows fit in [`SHARED`] together run side by side, and beyond that one at a time, however much it
//! needs; who wants more waits until another has given back. Nobody waits for ever: the one beyond never waits, and who
//! waits for [`PATIENCE`] without a turn goes on without one, because what it waits for may be a stream that has stalled.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::units::Bytes;

/// Largest window: the library's own default for zstd. What tools write without being asked for more needs 8 MiB.
pub(super) const MOST: u64 = 128 << 20;
/// Windows up to this size are not counted: the stream's other buffers need as much.
pub(super) const FREE: u64 = 1 << 20;
/// What streams may need together: two of 8 MiB.
const SHARED: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory is the process's, whichever store a stream goes to.
static PROCESS: Budget = Budget::new(SHARED, PATIENCE);

/// What streams share.
struct Budget {
    state: Mutex<State>,
    returned: Condvar,
    shared: u64,
    patience: Duration,
}

struct State {
    used: u64,
    /// Whether one runs beyond what is shared.
    beyond: bool,
}

/// How a stream's window is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Shared(u64),
    Beyond,
    /// It waited for too long.
    Uncounted,
}

impl Budget {
    const fn new(shared: u64, patience: Duration) -> Self {
        let state = Mutex::new(State { used: 0, beyond: false });
        Budget { state, returned: Condvar::new(), shared, patience }
    }

    fn take(&self, bytes: u64, waits: bool) -> Held {
        let end = Instant::now() + if waits { self.patience } else { Duration::ZERO };
        let mut state = self.state.lock();
        loop {
            if state.used.saturating_add(bytes) <= self.shared {
                state.used += bytes;
                return Held::Shared(bytes);
            }
            if !state.beyond {
                state.beyond = true;
                return Held::Beyond;
            }
            if self.returned.wait_until(&mut state, end).timed_out() {
                log::warn!("a stream's window of {} is taken beyond what is shared", Bytes(bytes));
                return Held::Uncounted;
            }
        }
    }

    fn give_back(&self, held: Held) {
        let mut state = self.state.lock();
        match held {
            Held::Shared(bytes) => state.used = state.used.saturating_sub(bytes),
            Held::Beyond => state.beyond = false,
            Held::Nothing | Held::Uncounted => return,
        }
        drop(state);
        self.returned.notify_all();
    }
}

/// What one stream holds of the budget; given back when it is dropped.
pub(super) struct Lease {
    budget: &'static Budget,
    held: Held,
    bytes: u64,
    /// A stream waits in vain once, not once for each window.
    has_waited: bool,
}

impl Lease {
    pub(super) fn new() -> Self {
        Lease { budget: &PROCESS, held: Held::Nothing, bytes: FREE, has_waited: false }
    }

    /// Whether it covers a window of so many bytes.
    pub(super) fn covers(&self, bytes: u64) -> bool {
        bytes <= self.bytes
    }

    /// Waits until there is room for `bytes` instead of what is held. What is held stays counted meanwhile, for it may be in
    /// use; who is beyond what is shared does not wait.
    pub(super) fn grow(&mut self, bytes: u64) {
        if self.covers(bytes) {
            return;
        }
        if self.held != Held::Beyond {
            let held = self.budget.take(bytes, !self.has_waited);
            self.has_waited |= held == Held::Uncounted;
            self.budget.give_back(std::mem::replace(&mut self.held, held));
        }
        self.bytes = bytes;
    }

    /// Gives back all; nothing may be in use any more.
    pub(super) fn release(&mut self) {
        self.budget.give_back(std::mem::replace(&mut self.held, Held::Nothing));
        self.bytes = FREE;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

/// The error of a window that is too large.
pub(super) fn too_large(what: &str, bytes: u64) -> Error {
    let message = format!("{what} of {}; at most {} are allowed", Bytes(bytes), Bytes(MOST));
    Error::new(ErrorKind::LimitExceeded, message)
}

/// Most bytes of the header of a zstd frame.
pub(super) const ZSTD_HEADER: usize = 18;

/// What the start of a zstd frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// At least so many bytes are needed to tell.
    Needs(usize),
    /// Memory for the window.
    Window(u64),
}

/// Reads the header of a zstd frame (RFC 8878, 3.1.1.1), as far as the window is concerned.
pub(super) fn zstd_frame(head: &[u8]) -> Result<Frame> {
    let Some(magic) = head.get(..4) else { return Ok(Frame::Needs(4)) };
    if magic != [0x28, 0xb5, 0x2f, 0xfd] {
        // To be skipped, or nothing that the decoder knows.
        return Ok(Frame::Window(0));
    }
    let Some(&descriptor) = head.get(4) else { return Ok(Frame::Needs(5)) };
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or_default();
    let size = match descriptor >> 6 {
        0 => usize::from(single),
        log => 1 << log,
    };
    let at = 5 + usize::from(!single) + dictionary;
    let Some(digits) = head.get(at..at + size) else { return Ok(Frame::Needs(at + size)) };
    let number = digits.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let content = match size {
        0 => u64::MAX,
        2 => number + 256,
        _ => number,
    };
    let window = match head.get(5) {
        Some(byte) if !single => {
            let base = 1u64 << (10 + (byte >> 3));
            base + base / 8 * u64::from(byte & 7)
        }
        _ => content,
    };
    if window > MOST {
        return Err(too_large("the zstd stream needs a window", window));
    }
    Ok(Frame::Window(window.min(content)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    fn budget(shared: u64, patience: Duration) -> &'static Budget {
        Box::leak(Box::new(Budget::new(shared, patience)))
    }

    fn lease(budget: &'static Budget) -> Lease {
        Lease { budget, held: Held::Nothing, bytes: FREE, has_waited: false }
    }

    fn state(budget: &Budget) -> (u64, bool) {
        let state = budget.state.lock();
        (state.used, state.beyond)
    }

    const MIB: u64 = 1 << 20;
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn one_stream_alone_always_runs() {
        let budget = budget(16 * MIB, LONG);
        for mib in [0, 1, 8, 16, 17, 128] {
            let mut alone = lease(budget);
            alone.grow(mib * MIB);
            assert!(alone.covers(mib * MIB));
        }
        // Growing and growing, which two at a time may do as well as one.
        let mut alone = lease(budget);
        for mib in 1..=128 {
            alone.grow(mib * MIB);
        }
        assert_eq!(alone.held, Held::Beyond);
        drop(alone);
        assert_eq!(state(budget), (0, false));
    }

    #[test]
    fn windows_are_shared_up_to_the_budget_and_one_is_beyond() {
        let budget = budget(16 * MIB, LONG);
        let mut leases: Vec<_> = (0..3).map(|_| lease(budget)).collect();
        for lease in &mut leases {
            lease.grow(8 * MIB);
        }
        let held: Vec<_> = leases.iter().map(|lease| lease.held).collect();
        assert_eq!(held, [Held::Shared(8 * MIB), Held::Shared(8 * MIB), Held::Beyond]);
        // Nothing of this concerns streams that need little.
        let mut little = lease(budget);
        little.grow(FREE);
        assert_eq!(little.held, Held::Nothing);
    }

    #[test]
    fn who_wants_more_than_there_is_waits_until_it_is_given_back() {
        let budget = budget(16 * MIB, LONG);
        let mut first = lease(budget);
        first.grow(100 * MIB);
        let (said, says) = channel();
        thread::scope(|scope| {
            for _ in 0..4 {
                let said = said.clone();
                scope.spawn(move || {
                    let mut other = lease(budget);
                    other.grow(100 * MIB);
                    assert!(budget.state.lock().beyond);
                    said.send(()).unwrap();
                });
            }
            assert!(says.try_recv().is_err());
            first.release();
            for _ in 0..4 {
                says.recv().unwrap();
            }
        });
    }

    /// Each holds something while it wants more.
    #[test]
    fn streams_that_grow_side_by_side_do_not_wait_for_each_other_for_ever() {
        let budget = budget(16 * MIB, LONG);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(move || {
                    for round in 0..200 {
                        let mut lease = lease(budget);
                        for mib in [2, 3 + round % 5, 12, 20, 128] {
                            lease.grow(mib * MIB);
                        }
                    }
                });
            }
        });
        assert_eq!(state(budget), (0, false));
    }

    #[test]
    fn who_has_waited_for_long_goes_on() {
        let budget = budget(16 * MIB, Duration::ZERO);
        let mut stalled = lease(budget);
        stalled.grow(100 * MIB);
        let mut other = lease(budget);
        other.grow(100 * MIB);
        assert_eq!(other.held, Held::Uncounted);
        drop(other);
        assert!(budget.state.lock().beyond);
    }

    #[test]
    fn a_stream_waits_in_vain_once() {
        let budget = budget(16 * MIB, Duration::from_millis(20));
        let mut stalled = lease(budget);
        stalled.grow(100 * MIB);
        let mut other = lease(budget);
        assert!(!other.has_waited);
        for _ in 0..3 {
            other.grow(100 * MIB);
            assert_eq!((other.held, other.has_waited), (Held::Uncounted, true));
            other.release();
        }
        // A turn that comes is taken all the same.
        drop(stalled);
        other.grow(100 * MIB);
        assert_eq!(other.held, Held::Beyond);
    }

    #[test]
    fn the_window_of_a_zstd_frame_is_read_from_its_header() {
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        let frame = |rest: &[u8]| zstd_frame(&[&magic[..], rest].concat());
        for (rest, window) in [
            // Unknown size: 1 KiB, 2 MiB, 128 MiB; with an eighth more.
            (&[0x00, 0x00][..], 1 << 10),
            (&[0x00, 0x58], 2 << 20),
            (&[0x04, 0x88], 128 << 20),
            (&[0x00, 0x59], (2 << 20) + (256 << 10)),
            // One segment, in one, two, four and eight bytes.
            (&[0x20, 0x07], 7),
            (&[0x60, 0x01, 0x00], 257),
            (&[0xa0, 0, 0, 0x10, 0], 1 << 20),
            (&[0xe0, 0, 0, 0, 0x08, 0, 0, 0, 0], 128 << 20),
            // A window larger than all of the content, behind the number of a dictionary.
            (&[0x43, 0x88, 9, 9, 9, 9, 0, 1], 512),
        ] {
            assert_eq!(frame(rest).unwrap(), Frame::Window(window), "{rest:x?}");
            for len in 0..4 + rest.len() {
                let bytes = [&magic[..], rest].concat();
                let Frame::Needs(needs) = zstd_frame(&bytes[..len]).unwrap() else { panic!("{rest:x?}") };
                assert!(needs > len && needs <= ZSTD_HEADER);
            }
        }
        assert_eq!(zstd_frame(&[0x50, 0x2a, 0x4d, 0x18]).unwrap(), Frame::Window(0));
        for (rest, words) in [
            (&[0x00, 0x89][..], "a window of 144.0 MiB; at most 128.0 MiB"),
            (&[0x00, 0xa0], "a window of 1.0 GiB"),
            (&[0x00, 0xff], "a window of 3.7 TiB"),
            (&[0xe0, 1, 0, 0, 0x08, 0, 0, 0, 0], "a window of 128.0 MiB"),
            (&[0xe0, 255, 255, 255, 255, 255, 255, 255, 255], "a window of"),
        ] {
            let error = frame(rest).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            assert!(error.report().contains(words), "{}", error.report());
        }
    }
}
