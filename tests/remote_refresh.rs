// SPDX-License-Identifier: MulanPSL-2.0
//! The thread that refreshes: under the daemon's lock, until it is told to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use isula_storage::error::Result;
use isula_storage::storage::remote::{RefreshThread, RemoteLock};

const SOON: Duration = Duration::from_millis(1);
/// Only ends a test that hangs.
const FOR_EVER: Duration = Duration::from_secs(120);

/// A lock that tells how often it was asked for in vain.
#[derive(Default, Clone)]
struct Lock(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    held: bool,
    refused: usize,
    taken: usize,
}

impl Lock {
    fn hold(&self, held: bool) {
        let mut state = self.0.0.lock().unwrap();
        while held && state.held {
            state = self.0.1.wait(state).unwrap();
        }
        state.held = held;
        self.0.1.notify_all();
    }

    fn wait_until_refused(&self) {
        let mut state = self.0.0.lock().unwrap();
        let before = state.refused;
        while state.refused == before {
            state = self.0.1.wait(state).unwrap();
        }
    }
}

impl RemoteLock for Lock {
    fn lock(&self, _wait: Duration) -> Result<bool> {
        let mut state = self.0.0.lock().unwrap();
        if state.held {
            state.refused += 1;
            self.0.1.notify_all();
            return Ok(false);
        }
        state.held = true;
        state.taken += 1;
        Ok(true)
    }

    fn unlock(&self) {
        self.hold(false);
    }
}

fn start(lock: &Lock) -> (RefreshThread, Receiver<String>) {
    let (sender, looks) = channel();
    let seen = lock.clone();
    let thread = RefreshThread::start(Box::new(lock.clone()), SOON, move || {
        assert!(seen.0.0.lock().unwrap().held);
        let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        let _gone = sender.send(name.trim_end().to_owned());
    });
    (thread.unwrap(), looks)
}

#[test]
fn every_look_is_under_the_lock_and_in_a_thread_of_the_known_name() {
    let lock = Lock::default();
    let (thread, looks) = start(&lock);
    for _ in 0..3 {
        assert_eq!(looks.recv_timeout(FOR_EVER).unwrap(), "RoLayerRefresh");
    }
    thread.stop();
    let state = lock.0.0.lock().unwrap();
    assert!(!state.held && state.taken >= 3);
    // It has ended: nobody can send any more.
    assert!(looks.iter().count() < state.taken);
}

#[test]
fn a_look_waits_for_who_holds_the_lock_and_comes_then() {
    let lock = Lock::default();
    lock.hold(true);
    let (thread, looks) = start(&lock);
    lock.wait_until_refused();
    assert!(looks.try_recv().is_err());
    lock.hold(false);
    looks.recv_timeout(FOR_EVER).unwrap();
    drop(thread);
}

#[test]
fn the_thread_ends_while_somebody_holds_the_lock() {
    let lock = Lock::default();
    lock.hold(true);
    let (thread, looks) = start(&lock);
    lock.wait_until_refused();
    thread.stop();
    assert!(looks.recv().is_err());
    assert_eq!(lock.0.0.lock().unwrap().taken, 0);
}

#[test]
fn a_look_that_panics_gives_the_lock_back_and_is_not_the_last() {
    let lock = Lock::default();
    let (sender, looks) = channel();
    let thread = RefreshThread::start(Box::new(lock.clone()), SOON, move || {
        let _gone = sender.send(());
        panic!("a look that panics");
    })
    .unwrap();
    for _ in 0..3 {
        looks.recv_timeout(FOR_EVER).unwrap();
    }
    thread.stop();
    assert!(!lock.0.0.lock().unwrap().held);
}
