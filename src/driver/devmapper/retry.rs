// SPDX-License-Identifier: MulanPSL-2.0
//! Deleting later what was in use: a thread that lives as long as something waits, and ends at clean-up.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::records::Record;
use super::store::Store;

/// Pauses between two tries: short at first, for most users are gone soon.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The thread, if there is one.
#[derive(Debug, Default)]
pub(super) struct Retry {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    running: bool,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Sees to it that what waits is tried again.
    pub(super) fn delete_later(self: &Arc<Self>) {
        if !self.records.read().values().any(Record::is_to_go) {
            return;
        }
        let mut state = self.retry.state.lock();
        if state.stopped || state.running {
            return;
        }
        let store = Arc::clone(self);
        let spawned =
            std::thread::Builder::new().name("dm-delete".to_owned()).spawn(move || store.retry_all());
        match spawned {
            Ok(thread) => {
                state.running = true;
                state.thread = Some(thread);
            }
            // The next start tries again.
            Err(error) => log::warn!("start a thread that deletes devices later: {error}"),
        }
    }

    fn retry_all(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            {
                let mut state = self.retry.state.lock();
                if !state.stopped {
                    self.retry.wake.wait_for(&mut state, pause);
                }
                if state.stopped {
                    return;
                }
            }
            let left = self.retry_deletions();
            let mut state = self.retry.state.lock();
            if !left && !self.records.read().values().any(Record::is_to_go) {
                state.running = false;
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether clean-up has begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.retry.state.lock().stopped
    }

    /// Ends the thread, and waits until it has.
    pub(super) fn stop_retrying(&self) {
        let thread = {
            let mut state = self.retry.state.lock();
            state.stopped = true;
            state.thread.take()
        };
        self.retry.wake.notify_all();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the thread that deletes devices later has failed");
        }
    }
}
